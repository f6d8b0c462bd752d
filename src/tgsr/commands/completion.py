"""completion: what the shells read to complete our words, made from the parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from tgsr.commands import shared

BASH = """\
# tgsr's words for bash: eval "$(tgsr completion bash)" in ~/.bashrc
_tgsr() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" path="" words="" word
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$path $word" in {paths}) path="$path $word" ;; esac
  done
  case "$path" in
{flags}
  esac
  case "$path $before" in
{values}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _tgsr tgsr
"""
ZSH = """\
# tgsr's words for zsh: eval "$(tgsr completion zsh)" in ~/.zshrc
autoload -U +X bashcompinit && bashcompinit
"""


@dataclass(frozen=True, slots=True)
class Words:
    """What may follow after a command (" train sta"): further words, flags, and the values of flags that have few."""

    path: str
    steps: tuple[str, ...]
    flags: tuple[str, ...]
    values: tuple[tuple[str, tuple[str, ...]], ...]


def add_completion(command: argparse.ArgumentParser) -> None:
    command.add_argument("shell", choices=("bash", "zsh", "fish"), help="whose")
    more = 'Read by the shell when it starts: eval "$(tgsr completion bash)" in ~/.bashrc.'
    shared.finish(command, completion, "tgsr completion bash", more)


def completion(args: argparse.Namespace) -> None:
    from tgsr.cli import GROUPS, parser

    names = [name for group in GROUPS.values() for name in group]
    found = [Words("", tuple(names), ("--help", "--version"), ())]
    for name in names:
        found += words_of(_steps(parser([name]))[name], f" {name}")
    before = ZSH if args.shell == "zsh" else ""
    print(before, fish(found) if args.shell == "fish" else bash(found), sep="", end="")


def _steps(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of what may follow: commands, or a command's steps."""
    for action in parser._actions:  # argparse has no public way to list them
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def words_of(parser: argparse.ArgumentParser, path: str) -> Iterator[Words]:
    """The words of a command and, behind it, of its steps."""
    steps = _steps(parser)
    actions = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
    flags = tuple(flag for action in actions for flag in action.option_strings if flag.startswith("--"))
    few = [(action, tuple(map(str, action.choices))) for action in actions if action.choices]
    values = tuple((flag, given) for action, given in few for flag in action.option_strings)
    given = tuple(word for action, given in few if not action.option_strings for word in given)
    yield Words(path, (*steps, *given), flags, values)
    for name, step in steps.items():
        yield from words_of(step, f"{path} {name}")


def bash(found: list[Words]) -> str:
    """A function of bash that completes the words, and files where none fits."""
    return BASH.format(
        paths="|".join(f'"{words.path}"' for words in found if words.path),
        flags="\n".join(f'    "{w.path}") words="{" ".join((*w.steps, *w.flags))}" ;;' for w in found),
        values="\n".join(
            f'    "{w.path} {flag}") words="{" ".join(given)}" ;;' for w in found for flag, given in w.values
        ),
    )


def fish(found: list[Words]) -> str:
    """The words as fish's own command takes them."""
    lines = ["# tgsr's words for fish: tgsr completion fish | source, in ~/.config/fish/config.fish"]
    for words in found:
        seen = words.path.split()
        seen_all = "; and ".join(f"__fish_seen_subcommand_from {name}" for name in seen)
        where = seen_all or "__fish_use_subcommand"
        values = dict(words.values)
        lines += [f'complete -c tgsr -n "{where}" -a "{" ".join(words.steps)}"'] if words.steps else []
        for flag in words.flags:
            given = f' -x -a "{" ".join(values[flag])}"' if flag in values else ""
            lines.append(f'complete -c tgsr -n "{where}" -l {flag[2:]}{given}')
    return "\n".join(lines) + "\n"

"""The flags that several commands have, and what is made of them."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
import re
import tempfile
import typing
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgsr.errors import NothingDone, OptionError
from tgsr.models.placement import Placement

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from tgsr.engine.features import FeatureCache
    from tgsr.models.lalm import Lalm
    from tgsr.records import Question

    Config = typing.TypeVar("Config", bound=DataclassInstance)

LLM = "a folder, a hub id, or http://HOST:PORT/v1#MODEL"
DONE_CLIPS = "the clips that are done"
JUDGED = "what the judge has said"


FOR_PROGRAMS = frozenset(
    (
        *("seed", "cache", "cache_as", "system", "load_as", "devices", "top_p"),
        *("at_once", "per_minute", "runner", "rows_per_shard", "most_bad", "timestamped_python"),
        *("schedule", "warmup_share", "clip_norm", "weight_decay", "keep_last", "checkpoint_every"),
        *("checkpoint_minutes", "tracker", "shard", "clips_at_once", "lora_experts", "lora_router"),
        *("lora_alpha", "epsilon", "epsilon_high"),
        *("kl", "normalisation", "scale_rewards", "updates_per_rollout", "dynamic_sampling", "mask_cut"),
        *("python", "dtype", "memory_share", "pad", "fill", "shifts", "draws", "layer", "heat"),
    )
)
"""Flags by their names that scripts and long runs give; --help leaves them to --help-all, and all of them work."""


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help with the defaults that say something, as one types them, without the flags FOR_PROGRAMS."""

    left_out = FOR_PROGRAMS

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any = None) -> None:
        super().add_usage(usage, self._shown(actions), groups, prefix)

    def add_arguments(self, actions: Any) -> None:
        super().add_arguments(self._shown(actions))

    def _shown(self, actions: Iterable[argparse.Action]) -> list[argparse.Action]:
        return [action for action in actions if action.required or action.dest not in self.left_out]

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if isinstance(default, list | tuple):
            return f"{action.help} (default: {' '.join(map(str, default))})" if default else action.help
        return action.help if default is None or default is False else super()._get_help_string(action)


class _WholeHelp(_Help):
    left_out = frozenset()


class _HelpAll(argparse.Action):
    """Prints the help with every flag."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.formatter_class = _WholeHelp
        parser.print_help()
        parser.exit()


def finish(
    command: argparse.ArgumentParser,
    run: Callable[[Any], None],
    example: str,
    more: str = "",
    holds_out: bool = False,
    keeps: str = "",
) -> None:
    """Gives a command the function that runs it, an example, and what its line in `tgsr --help` leaves out.

    What --out `keeps` when the command is stopped, and the same command takes from there, is said then.

    A command that `holds_out` goes on in the folder --out where it was stopped, and no second one may at the same time.
    """
    command.set_defaults(run=partial(_holding_out, run) if holds_out else run, keeps=keeps)
    command.description = f"{command.description} {more}"
    command.epilog = f"example: {example}"
    command.formatter_class = _Help
    about = "the same with the flags that programs and long runs give"
    command.add_argument("--help-all", action=_HelpAll, nargs=0, help=about)


def _holding_out(run: Callable[[Any], None], args: argparse.Namespace) -> None:
    from tgsr.disk.lock import held_folder

    require_writable("--out", args.out, folder=True)
    with held_folder(args.out):
        run(args)


def require_there(*paths: Path | None) -> None:
    """FileNotFoundError for the first path that is not there, OptionError for a URL; before anything heavy."""
    for path in paths:
        if path is None or path.exists():
            continue
        if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
            raise OptionError(f"{path}: is an address, and only files are read; download it first")
        raise FileNotFoundError(f"{path}: no such file or folder")


def language_code(name: str) -> str:
    """The code of a language by its code or English name: fr, fr-CA, French. OptionError where Whisper knows none."""
    code = name.casefold().replace("_", "-").partition("-")[0]
    if code in ("auto", "en"):
        return code
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    if code in LANGUAGES:
        return code
    if name.casefold() in TO_LANGUAGE_CODE:
        return str(TO_LANGUAGE_CODE[name.casefold()])
    near = get_close_matches(name.casefold(), TO_LANGUAGE_CODE, 1)
    meant = f"did you mean {near[0]}?" if near else f"they are {', '.join(sorted(LANGUAGES))}, and auto"
    raise OptionError(f"--language {name}: is none of Whisper's languages; {meant}")


def require_writable(
    flag: str, path: Path | None, *, folder: bool = False, remedy: str = "choose another"
) -> None:
    """OptionError where no file (or folder) can be written there, before anything heavy is done; None asks nothing."""
    if path is None:
        return
    if path.is_dir() != folder and path.exists():
        raise OptionError(f"{flag} {path}: is {'no folder' if folder else 'a folder'}; {remedy}")
    if path.exists() and not path.is_file() and not path.is_dir():
        return  # /dev/stdout, a pipe
    parents = [path, *path.absolute().parents] if folder else path.absolute().parents
    nearest = next(parent for parent in parents if os.path.lexists(parent))
    try:
        tempfile.TemporaryFile(dir=nearest).close()  # what permissions say is not what a disk allows
    except OSError as error:
        problem = f"cannot be written ({nearest}: {error.strerror})"
        raise OptionError(f"{flag} {path}: {problem}; {remedy}") from error
    if path.exists() and not os.access(path, os.W_OK):
        raise OptionError(f"{flag} {path}: cannot be written (no permission); {remedy}")


def add_config(command: argparse._ActionsContainer, config: type[DataclassInstance]) -> None:
    """One flag a field that has a description, typed by its annotation; without a default it is required."""
    hints = typing.get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        if typing.get_origin(hints[field.name]) is not typing.Annotated:
            continue
        hint, about = typing.get_args(hints[field.name])
        given: dict[str, Any] = {"required": True, "default": argparse.SUPPRESS}
        if field.default is not dataclasses.MISSING:
            given = {"default": field.default}
        if type(None) in typing.get_args(hint):
            (hint,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
        if hint is bool:
            given["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(hint) is typing.Literal:
            given["choices"] = typing.get_args(hint)
        elif typing.get_origin(hint) is tuple:
            given |= {"nargs": "+", "type": typing.get_args(hint)[0]}
        else:
            given["type"] = hint
        flag = command.add_argument("--" + field.name.replace("_", "-"), **given)
        flag.help = about  # no argument: Python 3.12's BooleanOptionalAction adds the default to it


def config_of(args: argparse.Namespace, config: type[Config], **given: object) -> Config:
    """The config with the given values, and those of the flags that are named like its other fields."""
    return config(**arguments_of(args, config, **given))


def arguments_of(args: argparse.Namespace, call: Callable[..., Any], **given: object) -> dict[str, Any]:
    """The given arguments of a call, and the values of the flags that are named like its other parameters."""
    names = inspect.signature(call).parameters
    return {name: value for name, value in vars(args).items() if name in names} | given


def add_cache(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("--cache", help="folder of encoder outputs; ~/.cache/tgsr/features if not given")
    kept_as = ("float16", "bfloat16")
    flag("--cache-as", choices=kept_as, default="float16", help="how encoder outputs are kept")
    add_long_audio(command)


def cache_of(args: argparse.Namespace) -> FeatureCache:
    import torch

    from tgsr.engine.features import FeatureCache
    from tgsr.models.packaged_weights import cache_folder

    folder = Path(args.cache) if args.cache else cache_folder() / "features"
    return FeatureCache(folder, getattr(torch, args.cache_as), args.long_audio)


def add_long_audio(command: argparse.ArgumentParser, windows: bool = False) -> None:
    """--long-audio; with `windows` one question is asked, which one window of a long recording may answer."""
    about = "of clips that are longer than the model hears: refuse them, or split: hear them in parts"
    ways = ["refuse", "split"]
    if windows:
        about += "; windows: ask windows that overlap, and take the answer that the model is surest of"
        ways.insert(0, "windows")
    command.add_argument("--long-audio", choices=ways, default=ways[0], help=about)


def add_system(command: argparse.ArgumentParser) -> None:
    """The flag that `open_model` reads, of every command that asks a model."""
    about = (
        "the system turn of every question, on this machine or on a server; the family's own if not given; "
        "'': what the chat template puts there"
    )
    command.add_argument("--system", metavar="TEXT", help=about)


def add_limits(command: argparse.ArgumentParser) -> None:
    """The flags of models behind an API."""
    flag = command.add_argument_group("models behind an API").add_argument
    flag("--at-once", type=int, default=8, help="requests under way at a time")
    flag("--per-minute", type=float, help="requests a minute at most")
    add_longest(flag)


def add_longest(flag: Callable[..., Any]) -> None:
    """Adds --max-seconds by an `add_argument`."""
    about = "the longest clip that a served model hears; known for some families, else taken to be 30"
    flag("--max-seconds", type=float, metavar="SECONDS", help=about)


def load(args: argparse.Namespace, name: str) -> Lalm:
    """The named model, held as the flags of Placement say."""
    from tgsr.models.load import load

    return load(name, config_of(args, Placement))


def open_model(args: argparse.Namespace, name: str) -> Any:
    """The Lalm or Responder of that name, held as the flags of Placement say."""
    from tgsr.answering.open import open_model
    from tgsr.llm.endpoint import Limits
    from tgsr.models.packaged_weights import cache_folder

    limits = Limits(at_once=args.at_once, requests_per_minute=args.per_minute, max_seconds=args.max_seconds)
    require_cache()
    return open_model(name, cache_folder(), config_of(args, Placement), limits, args.system)


def require_cache() -> None:
    """OptionError where nothing can be kept of what is heard, before anything is."""
    from tgsr.models.packaged_weights import cache_folder

    require_writable("the cache,", cache_folder(), folder=True, remedy="make it writable, or set TGSR_CACHE")


def add_audio(flag: Callable[..., Any]) -> None:
    """Adds --audio by an `add_argument`, for every command that opens the sound of records."""
    flag("--audio", type=Path, metavar="FOLDER", help="where the sound files lie now, if they have moved")


def add_shards(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument_group("many clips").add_argument
    flag("--workers", type=int, default=1, help="processes")
    flag("--runner", choices=("here", "ray"), default="here", help="ray: a cluster, or this machine")
    flag("--rows-per-shard", type=int, default=64, help="what a stop costs, at most, per worker")
    flag("--most-bad", type=float, default=1.0, help="fail where a larger share was left out")


def shards_of(args: argparse.Namespace) -> dict[str, Any]:
    for flag, value in (("--workers", args.workers), ("--rows-per-shard", args.rows_per_shard)):
        if value < 1:
            raise OptionError(f"{flag} {value}: must be 1 or more")
    return {name: getattr(args, name) for name in ("workers", "runner", "rows_per_shard", "most_bad")}


def add_questions(command: argparse.ArgumentParser) -> None:
    """--questions and what belongs to it, for every command that asks some; `questions_of` reads them."""
    about = (
        "questions.jsonl, or a benchmark as its owner ships it: mmau-test-mini.json, MMAR-meta.jsonl, "
        "qa.json (Daily-Omni), bench-EN-TAG.jsonl (LAT-Bench), others in docs/benchmarks.md"
    )
    command.add_argument("--questions", type=Path, required=True, help=about)
    flag = command.add_argument_group("of a benchmark, or of many questions").add_argument
    about = "the sound files: a benchmark's, where they do not lie beside its file, or those that have moved"
    flag("--audio", type=Path, metavar="FOLDER", help=about)
    about = "speech, SER, SNV, SIC, ... or LABEL=VALUE (difficulty=hard); values of one label widen, labels narrow"
    flag("--only", nargs="+", default=[], metavar="WHAT", help=about)
    flag("--limit", type=int, metavar="N", help="N of them at random, drawn by --seed")


def questions_of(args: argparse.Namespace, skip_bad: bool = False) -> list[Question]:
    """The questions that the flags of `add_questions` name. Bad rows are listed beside --out, in OUT.errors.jsonl."""
    from tgsr.evaluation.benchmarks import questions_of

    errors = args.out.with_name(f"{args.out.name}.errors.jsonl")
    given = arguments_of(args, questions_of, errors=errors, skip_bad=skip_bad)
    questions = questions_of(args.questions, args.audio, **given)
    if not questions:
        raise NothingDone(f"{args.questions}: holds no question that can be asked")
    return questions

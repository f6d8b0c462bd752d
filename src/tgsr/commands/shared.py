"""The flags that several commands have, and what is made of them."""

from __future__ import annotations

import argparse
import typing
from pathlib import Path
from typing import Any


def _command(commands: Any, name: str, run: Any, about: str, example: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=about,
        epilog=f"example: {example}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.set_defaults(run=run)
    return made


def _cache(args: argparse.Namespace) -> Any:
    import torch

    from tgsr.engine.features import FeatureCache
    from tgsr.models.fetch import cache_folder

    folder = Path(args.cache) if args.cache else cache_folder() / "features"
    return FeatureCache(folder, getattr(torch, args.cache_as), args.long_audio)


def _add_cache(command: argparse.ArgumentParser) -> None:
    command.add_argument("--cache", help="folder of encoder outputs; ~/.cache/tgsr/features if not given")
    command.add_argument(
        "--cache-as", choices=("float16", "bfloat16"), default="float16", help="how encoder outputs are kept"
    )
    _add_long_audio(command)


def _add_long_audio(command: argparse.ArgumentParser) -> None:
    about = "of clips that are longer than the model hears: refuse them, or split: hear them in parts"
    command.add_argument("--long-audio", choices=("refuse", "split"), default="refuse", help=about)


def _add_model(command: argparse.ArgumentParser, default: str | None = None) -> None:
    about = (
        "mini, mini:sta, mini:tgsr, mini-lm; a folder or hub id; cascade or cascade:LLM (Whisper, then a text LLM: "
        "a folder, hub id or http://HOST:PORT/v1#MODEL); gemini:MODEL, openai:MODEL, or any OpenAI-compatible "
        "server with audio as http://HOST:PORT/v1#MODEL"
    )
    given: dict[str, Any] = {"required": True} if default is None else {"default": default}
    command.add_argument("--model", help=about, **given)
    _add_placement(command)
    remote = command.add_argument_group("models behind an API")
    remote.add_argument("--at-once", type=int, default=8, help="requests under way at a time")
    remote.add_argument("--per-minute", type=float, default=None, help="requests a minute at most")


def _add_placement(command: argparse.ArgumentParser) -> None:
    from tgsr.models.placement import Devices, LoadAs

    command.add_argument(
        "--load-as",
        choices=typing.get_args(LoadAs),
        default="checkpoint",
        help="how a checkpoint's weights are held; 4bit needs CUDA and bitsandbytes",
    )
    command.add_argument(
        "--devices", choices=typing.get_args(Devices), default="one", help="all: layers spread over all GPUs"
    )


def _load(args: argparse.Namespace, name: str) -> Any:
    from tgsr.models.load import load
    from tgsr.models.placement import Placement

    return load(name, Placement(args.load_as, args.devices))


def _open(args: argparse.Namespace) -> Any:
    from tgsr.answering.open import open_model
    from tgsr.answering.remote import Limits
    from tgsr.models.fetch import cache_folder
    from tgsr.models.placement import Placement

    limits = Limits(at_once=args.at_once, requests_per_minute=args.per_minute)
    return open_model(args.model, cache_folder(), Placement(args.load_as, args.devices), limits)


def _add_shards(command: argparse.ArgumentParser) -> None:
    many = command.add_argument_group("many clips")
    many.add_argument("--workers", type=int, default=1, help="processes")
    many.add_argument(
        "--runner", choices=("here", "ray"), default="here", help="ray: a cluster, or this machine"
    )
    many.add_argument("--rows-per-shard", type=int, default=64, help="what a stop costs, at most, per worker")
    many.add_argument("--most-bad", type=float, default=1.0, help="fail where a larger share was left out")


def _shards_of(args: argparse.Namespace) -> dict[str, Any]:
    from tgsr.errors import RunError

    for flag, value in (("--workers", args.workers), ("--rows-per-shard", args.rows_per_shard)):
        if value < 1:
            raise RunError(f"{flag} {value}: must be 1 or more")
    names = ("workers", "runner", "rows_per_shard", "most_bad")
    return {name: getattr(args, name) for name in names}


def _add_questions(command: argparse.ArgumentParser) -> None:
    """--questions and what belongs to it, for every command that asks some; `_questions` reads them."""
    about = (
        "questions.jsonl, or a benchmark as its owner ships it: mmau-test-mini.json, MMAR-meta.jsonl, "
        "Foundation_meta.json (AIR-Bench), test_sent_emo.csv (MELD)"
    )
    command.add_argument("--questions", type=Path, required=True, help=about)
    which = command.add_argument_group("of a benchmark, or of many questions")
    which.add_argument("--audio", type=Path, help="the benchmark's sound files; beside its file if not given")
    which.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WHAT",
        help="speech, SER, SNV, SIC, ... or LABEL=VALUE (difficulty=hard); values of one label widen, labels narrow",
    )
    which.add_argument("--limit", type=int, metavar="N", help="N of them at random, drawn by --seed")


def _questions(args: argparse.Namespace, errors: Path, skip_bad: bool = False) -> Any:
    from tgsr.evaluation.benchmarks import questions_of

    return questions_of(
        args.questions,
        args.audio,
        args.only,
        errors,
        skip_bad=skip_bad,
        limit=args.limit,
        seed=args.seed,
    )


_RUNS = (
    "folders with predictions*.jsonl, metrics.json, behaviour.json, controls.json, attention.json or training logs "
    "anywhere below them, or such files"
)


def _add_rows(command: argparse.ArgumentParser) -> None:
    rows = command.add_argument_group("rows of the tables")
    rows.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="LABEL=MODEL",
        help="a model and what readers know it as, in order; without any, all models under their own names",
    )
    rows.add_argument(
        "--sta", action="append", default=[], metavar="MODEL", help="went through stage 1: table 1's tick"
    )
    rows.add_argument(
        "--published", action="store_true", help="the paper's own numbers too, in groups of their own"
    )

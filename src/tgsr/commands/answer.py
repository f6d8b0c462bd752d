"""ask, predict."""

from __future__ import annotations

import argparse
import typing
from pathlib import Path

from tgsr.commands import shared
from tgsr.errors import NothingDone, OptionError, RecordError
from tgsr.llm.decoding import Decoding
from tgsr.models.placement import Placement

MODEL = (
    "mini, mini:sta, mini:paper, mini:tgsr (spoken digits); mini-en, mini-en:sta, mini-en:tokens, mini-en:paper, "
    "mini-en:tgsr (English); mini-lm; a folder or hub id; cascade or cascade:LLM (Whisper, then a text LLM: a folder, "
    "hub id or http://HOST:PORT/v1#MODEL), cascade+MODEL (MODEL says the seconds of phrases that the cascade has "
    "found); gemini:MODEL, openai:MODEL, or any OpenAI-compatible server with audio as http://HOST:PORT/v1#MODEL"
)

TAUGHT = (
    "mini-en:tgsr was taught questions with choices about which words follow others, are said first, at all or how "
    "often, the words in quotation marks (eight to ten of ten are right, how often five of ten; mini-en's seconds are "
    "made up); without choices only 'Which two words are said right after \"...\"?' and 'Transcribe the input "
    "speech.'; all else is a guess"
)


def add_ask(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("recording", type=Path, help="wav, flac, mp3 or ogg")
    flag("question", help=f"the question; with --phrase the words to be located. {TAUGHT}")
    flag("--choice", action="append", default=[], help="an answer to choose from; give several")
    flag("--phrase", action="store_true", help="locate the words (stage 1's prompt)")
    flag("--model", default="cascade", help=MODEL)
    flag("--start", type=float, default=0.0, help="hear from this second on")
    flag("--end", type=float, help="hear up to this second")
    flag("--evidence", type=Path, help="where to write the wav; evidence.wav if not given")
    shared.add_system(command)
    shared.add_config(command, Placement)
    shared.add_limits(command)
    shared.add_long_audio(command, windows=True)
    example = 'tgsr ask recording.wav "Which digit is said right after seven?" --choice two --choice four'
    shared.finish(command, ask, example)


def ask(args: argparse.Namespace) -> None:
    shared.require_there(args.recording)
    if args.evidence and args.evidence.exists():
        raise OptionError(f"--evidence {args.evidence}: exists; choose another")
    shared.require_writable("--evidence", args.evidence or Path("."), folder=args.evidence is None)
    from tgsr import audio
    from tgsr.answering.ask import ask

    duration = audio.duration(args.recording)  # one that cannot be read is said before a model is loaded
    from tgsr.answering.citing import SAME
    from tgsr.answering.in_windows import likeness, written_down
    from tgsr.answering.responder import require_heard
    from tgsr.engine.features import seconds_to_decode
    from tgsr.llm.decoding import Cut
    from tgsr.models.lalm import Lalm
    from tgsr.timeline import Span

    model = shared.open_model(args, args.model)
    any_length = args.long_audio != "refuse"
    most = (
        seconds_to_decode(model, "split" if any_length else "refuse")
        if isinstance(model, Lalm)
        else model.max_seconds
    )
    if not isinstance(model, Lalm):
        require_heard(model, (duration if args.end is None else args.end) - args.start)
    samples = audio.load(args.recording, start=args.start, end=args.end, max_seconds=most)
    answer = ask(
        model, samples, args.question, tuple(args.choice), phrase=args.phrase, long_audio=args.long_audio
    ).moved(args.start, args.choice, args.question if args.phrase else None)
    print(answer.text)
    if isinstance(answer.text, Cut):
        print("the response was cut off at its limit and may lack its answer")
    if args.start:
        print(f"times are the recording's; the model heard it from {args.start:g} s on")
    if answer.window:
        heard = f"{answer.window.start:.2f} - {answer.window.end:.2f} s of {duration:.2f} s"
        print(
            f"the recording is longer than {model.name} hears; this is about {heard}, the best of its windows"
        )
    spans = [span for span in answer.spans[:1] if span.start - args.start < len(samples) / audio.SAMPLE_RATE]
    if args.phrase and isinstance(model, Lalm) and spans:
        heard_at = Span(max(0.0, spans[0].start - args.start), spans[0].end - args.start)
        (words,) = written_down(model, samples, [heard_at])
        other = "" if likeness(args.question, words) >= SAME else ": not the words that were asked for"
        print(f'asked what is said around there, the model writes "{words}"{other}')
    if answer.unmoved:
        print(f"left as written, lengths or counted from {args.start:g} s on: {', '.join(answer.unmoved)}")
    if limits := getattr(model, "limits", ""):
        print(f"limits: {limits}")
    for span in answer.spans:
        print(f"evidence: {span.start:.2f} - {span.end:.2f} s")
    if answer.n_invalid:
        print(f"{answer.n_invalid} cited interval(s) end before they start: left out")
    if not len(answer.evidence):
        print("no evidence: the response cites no valid span inside the recording")
        return
    path, n = args.evidence or Path("evidence.wav"), 2
    while path.exists():  # the next free number
        path, n = Path(f"evidence-{n}.wav"), n + 1
    audio.save_wav(path, answer.evidence)
    print(f"{path}: {len(answer.evidence) / audio.SAMPLE_RATE:.2f} s to listen to")


def add_predict(command: argparse.ArgumentParser) -> None:
    from tgsr.prompts import Prompt

    flag = command.add_argument
    shared.add_questions(command)
    about = (
        "how choices are asked: reasoning (the paper's B.1.3) unless the questions say otherwise, plain (the "
        "letter alone), cot (step by step, no timestamps), airbench (its owner's words, letters A to D)"
    )
    flag("--prompt", choices=typing.get_args(Prompt), help=about)
    flag("--name", help="the model's name in OUT; runs of one model lie side by side under several names")
    flag("--model", required=True, help=MODEL)
    flag("--out", type=Path, required=True, help="JSONL file; appended to")
    about = "also write the answers as the benchmark's own scorer reads them (MMAU, MMAR, AIR-Bench)"
    flag("--official", type=Path, help=about)
    about = "record bad rows of questions.jsonl in OUT.errors.jsonl and go on; a benchmark's always are"
    flag("--skip-bad", action="store_true", help=about)
    shared.add_config(command, Decoding)
    shared.add_system(command)
    shared.add_config(command, Placement)
    shared.add_limits(command)
    shared.add_cache(command)
    example = "tgsr predict --questions mmau-test-mini.json --only speech --model mini:tgsr --out mmau.jsonl"
    shared.finish(command, predict, example)


def predict(args: argparse.Namespace) -> None:
    shared.require_there(args.questions)
    shared.require_writable("--out", args.out)
    shared.require_writable("--official", args.official)
    decoding = shared.config_of(args, Decoding)
    from tgsr.answering.predict import predict_to_file
    from tgsr.evaluation.owners.files import require_scorer, write_official
    from tgsr.models.lalm import Lalm
    from tgsr.prompts import asked_with
    from tgsr.records import read_responses

    if args.official:
        require_scorer(args.questions)
    try:
        questions = shared.questions_of(args, args.skip_bad)
    except RecordError as error:
        if error.line is None or args.skip_bad:
            raise
        remedy = f"{error.remedy}, or pass --skip-bad"
        raise RecordError(error.field, error.problem, error.file, error.line, remedy) from error
    if args.prompt:
        questions = asked_with(questions, args.prompt)
    model = shared.open_model(args, args.model)
    n_done, n_left = predict_to_file(
        model, questions, args.questions, args.out, shared.cache_of(args), decoding, name=args.name
    )
    ids, name = {question.id for question in questions}, args.name or model.name
    responses = read_responses(args.out) if args.out.exists() else []
    mine = [r for r in responses if r.model == name and r.question.id in ids]
    left = f", {n_left} left without (see its errors file)" if n_left else ""
    print(f"{args.out}: {n_done} responses{left}")
    if n_cut := sum(response.truncated for response in mine):
        print(f"{n_cut} of {len(mine)} were cut off at --max-new-tokens and may lack their answer")
    if not isinstance(model, Lalm) and (spent := model.spent()):
        print(spent)
    if n_left and n_left == len(questions):
        raise NothingDone(
            f"{args.out}: no response to any of {n_left} questions; see {args.out}.errors.jsonl"
        )
    if args.official:
        written = write_official(args.questions, args.official, mine)
        unclear = f", {written.n_without_choice} without a clear choice" if written.n_without_choice else ""
        print(f"{args.official}: {written.n} of {len(ids)} rows{unclear}")

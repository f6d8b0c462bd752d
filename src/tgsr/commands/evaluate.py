"""score, rewards, import, attend, control, behaviour, judge."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from tgsr.commands.shared import (
    _add_cache,
    _add_placement,
    _add_questions,
    _cache,
    _command,
    _load,
    _open,
    _questions,
)


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

    from tgsr.errors import RecordError
    from tgsr.evaluation.reward_hacking import compare, draw, table, write_hacking
    from tgsr.records import read_clips, read_questions, read_responses

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
    from tgsr.errors import ImportFileError
    from tgsr.evaluation.scoring.importing import import_predictions

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
    from tgsr.disk.run_folder import open_run
    from tgsr.disk.whole import sha256_of
    from tgsr.errors import RecordError
    from tgsr.evaluation.attention import look as attend
    from tgsr.evaluation.attention.scores import layer_to_show, summarise_all, table, write_summary
    from tgsr.llm.decoding import Decoding
    from tgsr.prompts import prompt_text
    from tgsr.records import read_responses, write_jsonl
    from tgsr.report import attention_figures as attend_figures

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
        models = summarise_all(looked, n_without, args.seed)
        layers = layer_to_show(models, args.layer)
        write_summary(args.out / "attention.json", models)
        print(table(models))
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
    from tgsr.disk.run_folder import open_run
    from tgsr.evaluation.controls.ask import Control, Settings, control, drop_features
    from tgsr.evaluation.controls.scores import summarise, table, write
    from tgsr.llm.decoding import Decoding

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
    from tgsr.data.transcribe.whisper import FasterWhisper
    from tgsr.disk.whole import sha256_of
    from tgsr.errors import RecordError
    from tgsr.evaluation.behaviour.audiology_verify import similarity, verify
    from tgsr.evaluation.behaviour.consistency import VARIANTS, case_of, judge
    from tgsr.evaluation.behaviour.table import behaviour, table, write_behaviour, write_verified
    from tgsr.llm.local import llm_of
    from tgsr.models.fetch import cache_folder
    from tgsr.records import Response, read_responses
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

    from tgsr.disk.whole import write_whole
    from tgsr.evaluation.behaviour.consistency import check, told
    from tgsr.llm.local import llm_of
    from tgsr.models.fetch import cache_folder

    found = check(llm_of(args.llm, cache_folder()), args.llm, args.out / "judged.jsonl", args.seed)
    write_whole(args.out / "judge.json", json.dumps(dataclasses.asdict(found), indent=1) + "\n")
    print(told(found))
    print(args.out / "judge.json")

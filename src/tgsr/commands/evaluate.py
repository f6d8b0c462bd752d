"""audit, score, rewards, import, attend, control, behaviour, judge."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tgsr.commands import shared
from tgsr.errors import MissingPackage, NothingDone, OptionError, RecordError
from tgsr.llm.decoding import GREEDY, Cut, Decoding
from tgsr.models.placement import Placement

if TYPE_CHECKING:
    from tgsr.evaluation.behaviour.measure import Hearing, Judging
    from tgsr.evaluation.controls.replies import Replies
    from tgsr.llm.served import Llm


def add_audit(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    about = "prediction files, ours or a benchmark's own, or folders that hold some"
    flag("predictions", type=Path, nargs="+", help=about)
    about = "folder: index.html, report.md, tables/, audit.json, items.jsonl"
    flag("--out", type=Path, required=True, help=about)
    about = "the benchmark's own file, for predictions that do not repeat their questions"
    flag("--questions", type=Path, help=about)
    about = "clips with words; clips.jsonl beside the sound if not given"
    flag("--clips", type=Path, nargs="+", default=[], help=about)
    shared.add_audio(flag)
    flag("--no-verify", action="store_true", help="leave Audiology Verify out: nothing is transcribed")
    flag("--whisper", type=Path, help="folder of a faster-whisper model; the packaged one if none")
    flag("--judge", help=f"an LLM for Consistency: {shared.LLM}")
    about = "numbers and ids alone, where texts may not be shown round"
    flag("--without-texts", action="store_true", help=about)
    flag("--seed", type=int, default=0, help="of the intervals and of the examples")
    example = "tgsr audit omni.jsonl --questions MMAR-meta.jsonl --out audit"
    more = "Several files are compared, paired where ids agree. docs/audit.md has two audits."
    shared.finish(command, audit, example, more, holds_out=True)


def audit(args: argparse.Namespace) -> None:
    shared.require_there(*args.predictions, args.questions, *args.clips, args.audio, args.whisper)
    from tgsr.report.audit import audit
    from tgsr.report.write import prediction_files

    has_whisper = find_spec("faster_whisper") is not None
    if not has_whisper and not args.no_verify:
        print("Audiology Verify is left out: it needs faster-whisper", file=sys.stderr)
    hearing = _hearing(args.whisper) if has_whisper and not args.no_verify else None
    judging = _judging(args.judge, args.out)
    given = shared.arguments_of(args, audit, predictions=prediction_files(args.predictions))
    found = audit(**given, hearing=hearing, judging=judging)
    print(*found.verdict, sep="\n")
    if (errors := args.out / "errors.jsonl").exists():
        print(f"rows that cannot be used are left out: {errors}")
    print(args.out / "index.html")


def add_score(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("predictions", type=Path, help="a prediction file of any length, or a trainer's completions log")
    flag("--out", type=Path, required=True, help="metrics.json")
    about = (
        "what was asked, as the authority on choices and answers: a benchmark's own file, or questions.jsonl; "
        "what is missing or foreign is listed"
    )
    flag("--questions", type=Path, help=about)
    about = "their clips with words; clips.jsonl beside the questions or their sound if not given"
    flag("--clips", type=Path, nargs="+", default=[], help=about)
    flag("--items", type=Path, help="also write a JSON line for each prediction: right or not, and why")
    about = "of event-based F1: seconds that a start may be off, a score each"
    flag("--collars", type=_positive, nargs="+", default=[0.1, 0.2, 0.5], metavar="SECONDS", help=about)
    about = "of event-based F1: what an end may be off, as a share of the length, where that is more"
    flag("--length-share", type=float, default=0.5, help=about)
    flag("--seed", type=int, default=0, help="of the bootstrap and of the paired tests")
    more = (
        "Benchmarks' predictions are scored by their owners' rules and by a strict one, with intervals and paired "
        "tests. docs/scoring.md says what each number means."
    )
    shared.finish(command, score, "tgsr score predictions.jsonl --out metrics.json", more)


def _positive(text: str) -> float:
    if not (value := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"must be more than 0, got {text}")
    return value


def score(args: argparse.Namespace) -> None:
    shared.require_there(args.predictions, args.questions, *args.clips)
    shared.require_writable("--out", args.out)
    shared.require_writable("--items", args.items)
    from tgsr.evaluation.scoring.event_f1 import Collars
    from tgsr.evaluation.scoring.score import score_file, write_metrics
    from tgsr.evaluation.scoring.terminal import notes, summary

    collars = Collars(tuple(args.collars), args.length_share)
    given = {"clips": args.clips, "seed": args.seed, "collars": collars}
    metrics = score_file(args.predictions, args.questions, args.items, **given)
    write_metrics(metrics, args.out)
    for line in (summary(metrics), *notes(metrics), args.items, args.out):
        if line:
            print(line)


def add_rewards(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("questions", type=Path, help="questions.jsonl with choices and evidence")
    flag("--clips", type=Path, help="their clips with words; clips.jsonl beside them if not given")
    flag("--predictions", type=Path, help="responses to the questions: their models become further rows")
    flag("--n", type=int, default=500, help="questions, drawn by --seed; 0: all")
    flag("--seed", type=int, default=0, help="of the draw, the policies and the intervals")
    flag("--out", type=Path, required=True, help="folder: hacking.json, hacking.png")
    more = "Honest and degenerate policies beside each other: can it be earned without listening?"
    shared.finish(command, rewards, "tgsr rewards data/qa/questions.jsonl --out hacking", more)


def rewards(args: argparse.Namespace) -> None:
    shared.require_there(args.questions, args.predictions)
    shared.require_writable("--out", args.out, folder=True)
    clips = args.clips or args.questions.with_name("clips.jsonl")
    if not clips.exists():
        remedy = "give --clips, as `tgsr transcribe` or `tgsr build` writes it"
        raise RecordError(None, "is not there, and the words are needed", str(clips), remedy=remedy)
    import numpy as np

    from tgsr.evaluation.reward_hacking import compare, draw, table, write_hacking
    from tgsr.records import read_clips, read_questions, read_responses

    words = {clip.id: clip.words for clip in read_clips(clips)}
    responses = read_responses(args.predictions) if args.predictions else []
    answered = {response.question.id for response in responses}
    questions = [q for q in read_questions(args.questions) if not args.predictions or q.id in answered]
    if 0 < args.n < len(questions):
        drawn = np.random.default_rng(args.seed).choice(len(questions), args.n, replace=False)
        questions = [questions[index] for index in sorted(drawn)]
    hacking = compare(questions, words, responses, str(args.questions), args.seed)
    write_hacking(hacking, args.out / "hacking.json")
    draw(hacking, args.out / "hacking.png")
    print(table(hacking))
    print(args.out / "hacking.png")


def add_import(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("predictions", type=Path, help="JSON list, JSONL, CSV, TSV or an Excel workbook")
    flag("--out", type=Path, required=True, help="what tgsr score reads; replaced")
    about = "what the predictions lack, joined by id or the sound's name: a benchmark's file, questions.jsonl, a table"
    flag("--questions", type=Path, help=about)
    flag("--model", help="the model's name in the scores")
    about = (
        "where a field is: id, response, question, choices, answer, audio, duration, task, split, phrase, start, "
        "end, model; COLUMN may be a.b (nested), a+b (several) or =CONSTANT"
    )
    flag("--map", action="append", default=[], metavar="FIELD=COLUMN", help=about)
    flag("--audio", type=Path, metavar="FOLDER", help="the sound files, also in folders below, for durations")
    about = "official scorers get whole completions, not the choice in them"
    flag("--as-is", action="store_true", help=about)
    example = "tgsr import salmonn.csv --map response=answer_text --questions mmau-test-mini.json --out salmonn.json"
    more = (
        "It reads the files of benchmarks (docs/benchmarks.md has them all) and lmms-eval, what ms-swift, TRL, verl, "
        "NeMo-RL and LLaMA-Factory log of our questions or answer to them, or any table."
    )
    shared.finish(command, import_, example, more)


def import_(args: argparse.Namespace) -> None:
    shared.require_there(args.predictions, args.questions, args.audio)
    shared.require_writable("--out", args.out)
    columns = {}
    for pair in args.map:
        field, _, columns[field] = pair.partition("=")
        if not columns[field]:
            raise OptionError(f"--map {pair}: must be FIELD=COLUMN")
    from tgsr.evaluation.scoring.importing import import_predictions

    given = shared.arguments_of(args, import_predictions, columns=columns, audio_root=args.audio)
    imported = import_predictions(args.predictions, **given)
    print(f"{args.out}: {imported.n} responses ({imported.format}), read from {imported.response_column}")
    for n, what in (
        (imported.n_bad, f"rows are left out: {args.out}.errors.jsonl"),
        (imported.n_unread, "completions name no choice clearly: kept as they are"),
        (imported.n_more, "further responses to the same question are left out"),
        (imported.n_unanswered, "questions have no response"),
    ):
        if n:
            print(f"{n} {what}")
    if imported.unknown:
        print(f"columns that nothing was read from: {', '.join(imported.unknown)}")
    if not imported.n:
        raise NothingDone(f"{args.predictions}: no response was imported")


def add_attend(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    shared.add_questions(command)
    about = "mini, ..., a folder or a hub id; give several: the others are compared with the first"
    flag("--model", action="append", required=True, help=about)
    flag("--predictions", type=Path, help="look at these responses of the models instead of new ones")
    about = "paper: instead of the questions, section 5.1's three open queries about each of their clips"
    flag("--queries", choices=("own", "paper"), default="own", help=about)
    flag("--out", type=Path, required=True, help="folder; resumed where it exists")
    flag("--max-new-tokens", type=int, default=GREEDY.max_new_tokens, help="of a response, at most")
    flag("--seed", type=int, default=0, help="seed of the intervals")
    flag = command.add_argument_group("pictures of single items").add_argument
    flag("--heat", type=int, default=2, metavar="N", help="of the first N questions")
    flag("--item", action="append", default=[], metavar="ID", help="of this question too")
    flag("--layer", type=int, help="the layer to show; the one with most attention to audio if not given")
    shared.add_config(command, Placement)
    shared.add_cache(command)
    example = "tgsr attend --questions data/questions.jsonl --model mini --model mini:tgsr --out attention"
    more = "Attention by block, layer, phase and second, inside and outside of the cited intervals."
    shared.finish(command, attend, example, more, holds_out=True, keeps="the responses that were looked at")


def attend(args: argparse.Namespace) -> None:
    shared.require_there(args.questions, args.predictions)
    from tgsr.answering.predict import take_given
    from tgsr.disk.run_folder import begin_run, describe_run, find_run
    from tgsr.disk.whole import sha256_of
    from tgsr.evaluation.attention.kept import Attending, look_to_file
    from tgsr.evaluation.attention.look import as_written, paper_questions
    from tgsr.evaluation.attention.scores import layer_to_show, summarise_all, write_summary
    from tgsr.evaluation.attention.table import table
    from tgsr.models.load import files_of
    from tgsr.prompts import prompt_text
    from tgsr.records import read_responses, write_errors
    from tgsr.report.attention_figures import draw_all

    questions = shared.questions_of(args)
    prompting: Any = prompt_text
    if args.queries == "paper":
        questions, prompting = paper_questions(questions), as_written
    shown = [question for i, question in enumerate(questions) if i < args.heat or question.id in args.item]
    if unknown := sorted({*args.item} - {question.id for question in shown}):
        problem = f"--item {unknown[0]}: no such question"
        raise RecordError(None, problem, str(args.questions), remedy="give the id of one of its questions")
    given = read_responses(args.predictions) if args.predictions else []
    texts_hash = sha256_of(args.predictions) if args.predictions else None
    cache = shared.cache_of(args)
    common = Attending(args.queries, args.max_new_tokens, texts_hash)
    asking = {"decoding": Decoding(args.max_new_tokens), "prompting": prompting}
    asking["with_tokens"] = {question.id for question in shown}
    looked, n_without, errors = {}, {}, []
    asked_for = describe_run("attend", common, str(args.questions), cache.settings)
    folder = find_run(args.out, common, asked_for)
    for name in dict.fromkeys(args.model):
        lalm = shared.load(args, name)
        asked = questions
        if args.predictions:
            asked, mine = take_given(lalm, questions, given, args.predictions)
            asking["responses"] = {id_: Cut(r.text) if r.truncated else r.text for id_, r in mine.items()}
        begin_run(folder, asked_for)  # now, so that a model that cannot be had leaves no run behind
        folder.rest_on(f"model {name}", files_of(name))
        rows, unheard = look_to_file(lalm, asked, args.questions, args.out, cache, **asking)
        errors += [{"id": item.question.id, "model": name, "error": item.reason} for item in unheard]
        if rows:
            looked[lalm.name], n_without[lalm.name] = rows, len(unheard)
        else:
            print(f"{name}: no response to look at; see {args.out / 'errors.jsonl'}", file=sys.stderr)
    write_errors(args.out / "errors.jsonl", errors)
    if looked:
        models = summarise_all(looked, n_without, args.seed)
        layers = layer_to_show(models, args.layer)
        write_summary(args.out / "attention.json", models)
        print(table(models))
        print(*draw_all(args.out, args.questions, models, looked, layers, shown, args.seed), sep="\n")
    else:
        raise NothingDone(f"{args.out}: no response of any model to look at; see {args.out / 'errors.jsonl'}")


def add_control(command: argparse.ArgumentParser) -> None:
    from tgsr.evaluation.controls import FAITHFULNESS, FAMILIES, OFFERED

    flag = command.add_argument
    shared.add_questions(command)
    flag("--model", action="append", required=True, help="as for tgsr predict; give several to compare")
    flag("--predictions", type=Path, help="the models' responses to the unaltered clips, instead of new ones")
    flag("--out", type=Path, required=True, help="folder; resumed where it exists")
    flag = command.add_argument_group("what is altered").add_argument
    about = "what is kept and removed: the intervals that the original response cites, or the question's own"
    flag("--evidence", choices=("cited", "reference"), default="cited", help=about)
    flag("--pad", type=float, default=0.1, help="seconds kept or removed around each interval")
    about = "in place of what is removed; noise: white, as loud as the clip's noise floor"
    flag("--fill", choices=("silence", "noise"), default="silence", help=about)
    flag("--shifts", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="seconds put before a clip")
    flag("--draws", type=int, default=1, help="random removals to compare with, per question")
    words, default = (*OFFERED, FAITHFULNESS), list(FAMILIES)
    about = f"of {', '.join(OFFERED)}; {FAITHFULNESS}: arXiv 2509.22363's; if not given, the first {len(FAMILIES)}"
    flag("--conditions", nargs="+", choices=words, default=default, metavar="CONDITION", help=about)
    about = "%% of a clip that is masked; of the reasoning's words that are cut off, or become filler"
    flag("--shares", type=float, nargs="+", default=[20.0, 40.0, 60.0, 80.0, 100.0], help=about)
    snrs = [20.0, 10.0, 0.0, -10.0, -20.0]
    flag("--snrs", type=float, nargs="+", default=snrs, help="dB above white noise")
    about = "folder of recordings of the options, each called as its option: said over the clip"
    flag("--spoken", help=about)
    flag("--rewriter", help=f"who paraphrases reasonings and adds mistakes: {shared.LLM}")
    flag("--judge", help=f"who grades from 1 to 5 how alike reasonings are: {shared.LLM}")
    shared.add_config(command, Decoding)
    shared.add_system(command)
    shared.add_config(command, Placement)
    shared.add_limits(command)
    shared.add_cache(command)
    example = (
        "tgsr control --questions questions.jsonl --model mini:sta --model mini:tgsr --out runs/controls"
    )
    more = "It is also shifted, and reduced to the cited evidence. --seed is that of the removals and intervals too."
    shared.finish(command, control, example, more, holds_out=True, keeps="the responses that are there")


def control(args: argparse.Namespace) -> None:
    shared.require_there(args.questions, args.predictions)
    decoding = shared.config_of(args, Decoding)
    from tgsr.disk.run_folder import begin_run, describe_run, find_run
    from tgsr.evaluation.controls.alter import Settings
    from tgsr.evaluation.controls.ask import Control, control, drop_features
    from tgsr.evaluation.controls.scores import summarise, table, write
    from tgsr.models.load import files_of

    lists = {name: tuple(getattr(args, name)) for name in ("shifts", "shares", "snrs")}
    settings = shared.config_of(args, Settings, families=tuple(args.conditions), **lists)
    shared.require_there(None if args.spoken is None else Path(args.spoken))
    questions = shared.questions_of(args)
    cache = shared.cache_of(args)
    models, items = {}, []
    common = shared.config_of(args, Control)
    asked_for = describe_run("control", common, str(args.questions), None)
    folder = find_run(args.out, common, asked_for)
    rewrite, judge = (_replies(name, args.out) for name in (args.rewriter, args.judge))
    for name in dict.fromkeys(args.model):
        model = shared.open_model(args, name)
        begin_run(folder, asked_for)  # now, so that a model that cannot be had leaves no run behind
        folder.rest_on(f"model {name}", files_of(name))
        asked = (model, questions, args.questions, args.out, cache, decoding, settings)
        rows = control(*asked, args.predictions, rewrite, judge)
        items += rows
        if any(item.response is not None for item in rows):
            models[model.name] = summarise(rows, args.seed)
        else:
            print(f"{model.name}: no response; see {args.out / 'errors.jsonl'}", file=sys.stderr)
        del model  # before the next one is loaded
    write(args.out, models, items, settings)
    drop_features(args.out)
    if models:
        print(table(models))
        print(args.out / "controls.png")
    else:
        raise NothingDone(f"{args.out}: no response of any model; see {args.out / 'errors.jsonl'}")


def _replies(name: str | None, out: Path) -> Replies | None:
    """The text model of that name, whose replies are kept below `out`; None where none is named."""
    from tgsr.evaluation.controls.replies import Replies

    return None if name is None else Replies.of(_llm(name), name, out / "replies.jsonl")


def _llm(name: str) -> Llm:
    from tgsr.llm.by_name import llm_of, require_llm
    from tgsr.models.packaged_weights import cache_folder

    require_llm(name, cache_folder())
    return llm_of(name, cache_folder())


def add_behaviour(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("runs", type=Path, nargs="+", help="prediction files, or folders that hold some")
    flag("--out", type=Path, required=True, help="folder; goes on where it was stopped")
    flag("--no-verify", action="store_true", help="leave Audiology Verify out: nothing is transcribed")
    flag("--whisper", type=Path, help="folder of a faster-whisper model; the packaged one if none")
    flag("--judge", help=f"an LLM for Consistency: {shared.LLM}")
    shared.add_audio(flag)
    flag("--bias", action="store_true", help="ask the judge in another order of choices and of verdicts too")
    flag("--seed", type=int, default=0, help="of the intervals")
    example = "tgsr behaviour runs/predictions.jsonl --judge http://localhost:8000/v1#Qwen/Qwen3-32B --out behaviour"
    shared.finish(command, behaviour, example, holds_out=True, keeps=shared.JUDGED)


def behaviour(args: argparse.Namespace) -> None:
    shared.require_there(*args.runs, args.whisper, args.audio)
    from tgsr.evaluation.behaviour.audiology_verify import similarity
    from tgsr.evaluation.behaviour.measure import measure
    from tgsr.evaluation.behaviour.table import table, write_behaviour, write_verified
    from tgsr.evaluation.scoring.responses import read_answers
    from tgsr.report.write import prediction_files

    if not args.no_verify and find_spec("faster_whisper") is None:
        if not args.judge:
            raise MissingPackage(
                "Audiology Verify needs faster-whisper; --no-verify leaves it out, or: pip install ."
            )
        args.no_verify = True
        said = "Audiology Verify is left out: it needs faster-whisper, which is not installed"
        print(said, file=sys.stderr)
    judging = _judging(args.judge, args.out, args.bias)  # before hours of listening
    errors = args.out / "errors.jsonl"
    errors.unlink(missing_ok=True)
    files = prediction_files(args.runs)
    by_file = {path: read_answers(path, errors, args.audio) for path in files}
    n_choices = sum(a.response.question.kind == "choice" for answers in by_file.values() for a in answers)
    if not n_choices:
        raise NothingDone(f"{args.runs[0]}: no response to a question with choices: nothing to say about")
    measured = measure(by_file, None if args.no_verify else _hearing(args.whisper), judging, args.seed)
    write_behaviour(args.out, measured.models, args.judge, similarity.__name__)
    if not args.no_verify:
        write_verified(args.out / "verified.jsonl", list(chain.from_iterable(measured.verified.values())))
    print(table(measured.models))
    if errors.exists():
        print(f"rows without a response are left out: {errors}")
    if n_phrases := sum(map(len, by_file.values())) - n_choices:
        print(f"{n_phrases} responses to phrases left out: `tgsr score` has their scores")
    print(args.out / "behaviour.png")


def _hearing(whisper: Path | None) -> Hearing:
    """What writes crops down: the Whisper in that folder, or the packaged one."""
    from tgsr.data.transcribe.whisper import HEARING, FasterWhisper
    from tgsr.disk.whole import sha256_of
    from tgsr.evaluation.behaviour.measure import Hearing
    from tgsr.models.packaged_weights import cache_folder

    # what was heard is kept by the weights themselves: a folder's may change
    weights = "whisper-base" if whisper is None else sha256_of(whisper / "model.bin")
    return Hearing(FasterWhisper(whisper, "en"), f"{weights} {HEARING}", cache_folder())


def _judging(name: str | None, out: Path, is_for_bias: bool = False) -> Judging | None:
    """The judge of that name, whose replies are kept below `out`; None where none is named."""
    from tgsr.evaluation.behaviour.measure import Judging

    return None if name is None else Judging(_llm(name), name, out / "judged.jsonl", is_for_bias)


def add_rubrics(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    about = "submissions (id, thinking_prediction, answer_prediction), or what tgsr predict writes"
    flag("predictions", type=Path, nargs="+", help=about)
    flag("--questions", type=Path, required=True, help="MMAR-meta.jsonl; a judge needs its rubrics")
    flag("--judge", help=f"an LLM: {shared.LLM}; without one only the submission is written")
    about = "write the answers of a single file as a submission to the challenge"
    flag("--submission", type=Path, help=about)
    flag("--seed", type=int, default=0, help="of the intervals")
    flag("--out", type=Path, required=True, help="folder: rubrics.json, rated.jsonl")
    example = (
        "tgsr rubrics omni.jsonl --questions MMAR-meta.jsonl --judge http://localhost:8000/v1#Qwen3 --out r"
    )
    more = "A wrong answer is 0; five runs of the judge, the mean of the middle three."
    shared.finish(command, rubrics, example, more, holds_out=True, keeps=shared.JUDGED)


def rubrics(args: argparse.Namespace) -> None:
    shared.require_there(*args.predictions, args.questions)
    shared.require_writable("--submission", args.submission)
    if args.submission and len(args.predictions) > 1:
        raise OptionError(f"--submission: is of one file, and {len(args.predictions)} are given")
    from tgsr.evaluation.rubrics import rate, read_rubrics, submission, told, write_rubrics
    from tgsr.evaluation.scoring.responses import read_answers
    from tgsr.records import write_jsonl

    if args.judge is None and args.submission is None:
        raise OptionError("nothing to do: give --judge, --submission, or both")
    judging = _judging(args.judge, args.out)
    known = read_rubrics(args.questions) if judging else {}  # a submission needs none
    errors = args.out / "errors.jsonl"
    errors.unlink(missing_ok=True)
    by_model: dict[str, list[Any]] = {}
    for path in args.predictions:
        for answer in read_answers(path, errors, questions=args.questions):
            by_model.setdefault(answer.response.model, []).append(answer)
    if not any(by_model.values()):
        raise NothingDone(f"{args.predictions[0]}: holds no answer")
    if args.submission:
        write_jsonl(args.submission, submission(list(chain.from_iterable(by_model.values()))))
        print(args.submission)
    if judging is None:
        return
    rated = {model: rate(answers, known, judging.llm) for model, answers in by_model.items()}
    if not any(rated.values()):
        raise NothingDone(f"{args.predictions[0]}: no answer to a question of {args.questions}")
    for model, scores in write_rubrics(args.out, rated, judging.name, args.seed).items():
        print(told(model, scores))
    print(args.out / "rubrics.json")


def add_judge(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("llm", help=shared.LLM)
    flag("--out", type=Path, required=True, help="folder; goes on where it was stopped")
    flag("--seed", type=int, default=0, help="of the intervals")
    example = "tgsr judge http://localhost:8000/v1#Qwen/Qwen3-32B --out judge"
    more = "Two tests of bias come with it."
    shared.finish(command, judge, example, more, holds_out=True, keeps=shared.JUDGED)


def judge(args: argparse.Namespace) -> None:
    import json

    from tgsr.disk.whole import write_whole
    from tgsr.evaluation.behaviour.consistency import check, told
    from tgsr.llm.by_name import llm_of
    from tgsr.models.packaged_weights import cache_folder

    agreement = check(llm_of(args.llm, cache_folder()), args.llm, args.out / "judged.jsonl", args.seed)
    write_whole(args.out / "judge.json", json.dumps(dataclasses.asdict(agreement), indent=1) + "\n")
    print(told(agreement))
    print(args.out / "judge.json")

"""`tgsr score`: prediction files, ours and the benchmarks' own, to metrics.json.

What a model wrote is scored or counted, whatever it is. What we were handed (a file, a row, an id) is
checked, and refused with its file and line. docs/scoring.md says what each number means.

The way of a prediction: read (files), scored to a few numbers (items, official), counted (means).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tqdm import tqdm

from tgsr.disk.whole import StrPath, whole, write_whole
from tgsr.errors import NothingDone, RecordError
from tgsr.evaluation.owners.files import owner_of_question
from tgsr.evaluation.owners.owner import BenchmarkRow, plain_id
from tgsr.evaluation.scoring.event_f1 import SED_EVAL, Collars
from tgsr.evaluation.scoring.files import Foreign, Known, Prediction, open_predictions, read_known
from tgsr.evaluation.scoring.items import (
    Scored,
    ScoredAnswer,
    item_line,
    missing_response,
    score_response,
    score_row,
)
from tgsr.evaluation.scoring.means import benchmark_scores, differences, model_scores
from tgsr.evaluation.scoring.metrics import Format, Metrics
from tgsr.evaluation.scoring.spoken import Spoken
from tgsr.evaluation.scoring.trainer_logs import REMEDY, is_log, read_log
from tgsr.records import Response
from tgsr.statistics.intervals import Bootstrap

LONG_FILE = 2**24  # bytes, from which on a progress bar is shown


@dataclass(frozen=True, slots=True)
class Predictions:
    """A prediction file: `responses` where it is ours, `rows` where it is a benchmark's."""

    format: Format
    responses: tuple[Response, ...] = ()
    rows: tuple[BenchmarkRow, ...] = ()


def read_predictions(path: StrPath) -> Predictions:
    """A prediction file in any format, whole in memory; told apart by what it holds, not by its name.

    MMAU's json (a list of rows, `model_output`), MMAR's jsonl (`answer_prediction`; a list will do), AIR-Bench's rows
    (`response`), MELD's table with a column `prediction`, our own JSONL, where a model may answer a question several
    times, and the completions logs of other trainers (trainer_logs.py). RecordError, with file and line (in a json
    list: the row's number), for what is not JSON, an empty file, a row without an id or choices, and rows that are none
    of these. OSError where the file can't be read.
    """
    format_, read = _open(Path(path), None, is_log(Path(path)))
    predictions = list(read)
    responses = tuple(one for one in predictions if isinstance(one, Response))
    return Predictions(format_, responses, tuple(one for one in predictions if isinstance(one, BenchmarkRow)))


def score(
    predictions: Predictions,
    file: str = "",
    seed: int = 0,
    n_resamples: int = 1000,
    spoken: Spoken | None = None,
    collars: Collars = SED_EVAL,
) -> Metrics:
    """Everything that can be said of predictions in memory; `file` is only noted down, `spoken` has the clips' words.

    `collars` are those of the event-based F1. Intervals are of the bootstrap by clip, from `seed`. No text raises,
    whatever it holds.
    """
    spoken = Spoken() if spoken is None else spoken
    rows: list[Response | BenchmarkRow] = [*predictions.responses, *predictions.rows]
    by_model: dict[str, list[Scored]] = {}
    for row in rows:
        scored = _scored(row, predictions.format, spoken)
        by_model.setdefault(scored[0].model, []).extend(scored)
    bootstrap = Bootstrap(seed, n_resamples)
    return _metrics(by_model, {}, predictions.format, bootstrap, spoken, collars, file=file, n=len(rows))


def score_file(
    path: StrPath,
    questions: StrPath | None = None,
    items: StrPath | None = None,
    *,
    clips: Sequence[StrPath] = (),
    seed: int = 0,
    n_resamples: int = 1000,
    collars: Collars = SED_EVAL,
) -> Metrics:
    """`score` of a file, whose predictions are read one after another, and of which only the scores are kept.

    `questions`, a benchmark's own file or questions.jsonl, is the authority on choices and answers; what it asks and
    the file lacks is missing (but from a trainer's log, which may be of one step), what it does not ask is foreign.
    `items` gets a line for each prediction. The words of the questions' clips are in `clips`, or in the clips.jsonl
    beside the questions, the predictions or their sound.
    Errors as in `read_predictions`, and NothingDone where everything is foreign.
    """
    known = None if questions is None else read_known(questions)
    spoken = Spoken(clips, beside=[file for file in (questions, path) if file is not None])
    is_short = os.stat(path).st_size < LONG_FILE
    with _line_writer(items) as write_line:
        of_trainer = is_log(Path(path))
        format_, predictions = _open(Path(path), known, of_trainer)
        by_model: dict[str, list[Scored]] = {}
        foreign: dict[str, list[str]] = {}
        answered: dict[str, set[str]] = {}
        n = 0
        for prediction in tqdm(predictions, desc=f"score {path}", unit=" predictions", disable=is_short):
            n += 1
            if isinstance(prediction, Foreign):
                by_model.setdefault(prediction.model, [])
                foreign.setdefault(prediction.model, []).append(prediction.id)
                continue
            scored = _scored(prediction, format_, spoken)
            by_model.setdefault(scored[0].model, []).extend(scored)
            answered.setdefault(scored[0].model, set()).add(scored[0].id)
            write_line(scored)
        if known is not None:
            if foreign and not answered:
                found, wanted = next(iter(foreign.values()))[0], next(iter(known.ids), "none")
                problem = f"none of its {n} predictions is for a question of {questions}"
                example = f"ids here are like {found!r}, there like {wanted!r}"
                raise NothingDone(f"{path}: {problem} ({example}): give the questions that were asked")
            for model, ids in () if of_trainer else (answered or {"": set()}).items():
                for scored in _missing(known, format_, model, ids):
                    by_model.setdefault(model, []).extend(scored)
                    write_line(scored)
    bootstrap = Bootstrap(seed, n_resamples)
    metrics = _metrics(by_model, foreign, format_, bootstrap, spoken, collars, file=os.fspath(path), n=n)
    return metrics if questions is None else replace(metrics, questions=os.fspath(questions))


def write_metrics(metrics: Metrics, path: StrPath) -> None:
    """Write metrics.json as a whole or not at all: a reader never sees half of it. Folders are made."""
    write_whole(path, json.dumps(asdict(metrics), ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def _open(path: Path, known: Known | None, of_trainer: bool) -> tuple[Format, Iterator[Prediction]]:
    """`open_predictions`, and of a trainer's log its responses."""
    if not of_trainer:
        return open_predictions(path, known)
    if known is not None and not known.questions:
        problem = "is a trainer's log, whose questions are none of a benchmark's file"
        raise RecordError(None, problem, str(path), remedy=REMEDY)
    return "tgsr", read_log(path, None if known is None else known.questions)


def _scored(prediction: Response | BenchmarkRow, format_: Format, spoken: Spoken) -> list[Scored]:
    if isinstance(prediction, Response):
        is_choice = prediction.question.kind == "choice"
        return score_response(prediction, spoken.words_of(prediction.question) if is_choice else None)
    assert format_ != "tgsr"
    return [score_row(prediction, format_, clip=spoken.clip_of(prediction.audio))]


def _missing(known: Known, format_: Format, model: str, answered: set[str]) -> Iterator[list[Scored]]:
    """What was asked and a model did not answer."""
    plain = {plain_id(id_) for id_ in answered}
    for id_ in known.ids:
        if id_ in answered or plain_id(id_) in plain:
            continue
        question = known.questions.get(id_)
        if format_ == "tgsr" and question is not None:
            if model:
                yield missing_response(question, model)
            continue
        row = known.row_of(id_)
        benchmark = known.format if format_ == "tgsr" else format_
        owner = None if question is None else owner_of_question(question)
        if row is not None and benchmark != "tgsr" and (owner is None or owner.name == benchmark):
            yield [score_row(replace(row, prediction=None), benchmark, model)]


def _metrics(
    by_model: Mapping[str, Sequence[Scored]],
    foreign: Mapping[str, Sequence[str]],
    format_: Format,
    bootstrap: Bootstrap,
    spoken: Spoken,
    collars: Collars,
    *,
    file: str,
    n: int,
) -> Metrics:
    metrics = Metrics(file, format_, n, models={}, benchmark=None, clips=spoken.files)
    if format_ == "tgsr":
        models = {
            model: model_scores(scored, foreign.get(model, ()), bootstrap, collars)
            for model, scored in by_model.items()
        }
        compared, no_words = differences(by_model, bootstrap), None if spoken.files else spoken.why_unknown()
        return replace(metrics, models=models, differences=compared, no_words=no_words)
    if spoken.is_given and not spoken.files:
        metrics = replace(metrics, no_words=spoken.why_unknown())
    answers = [item for item in by_model.get("", ()) if isinstance(item, ScoredAnswer)]
    return replace(metrics, benchmark=benchmark_scores(format_, answers, foreign.get("", ()), bootstrap))


@contextmanager
def _line_writer(path: StrPath | None) -> Iterator[Callable[[Sequence[Scored]], object]]:
    """Writes the line of a prediction's scores to a file that appears under its name when it is complete."""
    if path is None:
        yield lambda scored: None
        return
    with whole(path) as half, half.open("w", encoding="utf-8", errors="backslashreplace") as file:
        yield lambda scored: file.write(json.dumps(item_line(scored), ensure_ascii=False) + "\n")

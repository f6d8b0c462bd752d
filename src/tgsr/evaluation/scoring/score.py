"""`tgsr score`: prediction files, ours and the benchmarks' own, to metrics.json.

What a model wrote is scored or counted, whatever it is. What we were handed (a file, a row, an id) is
checked, and refused with its file and line. docs/scoring.md says what each number means.

The way of a prediction: read (score_files), scored to a few numbers (score_items, official), counted (score_totals,
score_pools), written (score_metrics).
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import IO, cast

from tqdm import tqdm

from tgsr.disk.whole import StrPath, whole, write_whole
from tgsr.evaluation.benchmarks import Benchmark
from tgsr.evaluation.scoring.files import (
    PREDICTION_KEYS,
    Foreign,
    Known,
    Prediction,
    PredictionFile,
    plain_id,
    read_known,
)
from tgsr.evaluation.scoring.items import (
    BenchmarkRow,
    Item,
    Line,
    benchmark_of,
    item_line,
    missing_items,
    score_response,
    score_row,
)
from tgsr.evaluation.scoring.metrics import (
    BenchmarkScores,
    ChoiceScores,
    Difference,
    Format,
    GroupScores,
    Metrics,
    ModelScores,
    PhraseScores,
)
from tgsr.evaluation.scoring.totals import MOST_IN_MEMORY, Totals
from tgsr.records import Question, Response

__all__ = [
    "PREDICTION_KEYS",
    "BenchmarkRow",
    "BenchmarkScores",
    "ChoiceScores",
    "Difference",
    "Format",
    "GroupScores",
    "Metrics",
    "ModelScores",
    "PhraseScores",
    "Predictions",
    "read_predictions",
    "score",
    "score_file",
    "write_metrics",
]

LONG_FILE = 2**24  # bytes, from which on a progress bar is shown
PART = 2**22  # bytes of a file, whose predictions wait together on disk and are counted at once


@dataclass(frozen=True, slots=True)
class Predictions:
    """A prediction file: `responses` where it is ours, `rows` where it is a benchmark's."""

    format: Format
    responses: tuple[Response, ...] = ()
    rows: tuple[BenchmarkRow, ...] = ()


def read_predictions(path: StrPath) -> Predictions:
    """A prediction file in any format, whole in memory; told apart by what it holds, not by its name.

    MMAU's json (a list of rows, `model_output`), MMAR's jsonl (`answer_prediction`; a list will do), AIR-Bench's rows
    (`response`), MELD's table with a column `prediction`, and our own JSONL, where a model may answer a question
    several times. RecordError, with file and line (in a json list: the row's number), for what is not JSON, an empty
    file, a row without an id or choices, and rows that are none of these. OSError where the file can't be read.
    """
    file = PredictionFile(path)
    predictions = [prediction for _, prediction in file]
    return Predictions(
        file.format,
        responses=tuple(p for p in predictions if isinstance(p, Response)),
        rows=tuple(p for p in predictions if isinstance(p, BenchmarkRow)),
    )


def score(predictions: Predictions, file: str = "", seed: int = 0, n_resamples: int = 1000) -> Metrics:
    """Everything that can be said of predictions in memory; `file` is only noted down.

    Intervals are of the bootstrap by clip, from `seed`. No text raises, whatever it holds.
    """
    scored: list[Prediction] = [*predictions.responses, *predictions.rows]
    with Totals(seed, n_resamples, most_in_memory=3 * len(scored) + 1) as totals:
        for at, prediction in enumerate(scored):
            totals.add(_items(at, prediction, predictions.format))
        return _metrics(totals, file, predictions.format, len(scored))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of reference cycles: rows and items have none, and looking for them costs 4 %."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def score_file(
    path: StrPath,
    questions: StrPath | None = None,
    items: StrPath | None = None,
    *,
    seed: int = 0,
    n_resamples: int = 1000,
    most_in_memory: int = MOST_IN_MEMORY,
) -> Metrics:
    """`score` of a file of any length, whose predictions are read one after another and not kept.

    `questions`, a benchmark's own file or questions.jsonl, is the authority on choices and answers; what it asks and
    the file lacks is missing, what it does not ask is foreign. `items` gets a line for each prediction. Beyond
    `most_in_memory` items the bootstrap is the Poisson one. Errors as in `read_predictions`.
    """
    known = None if questions is None else read_known(questions)
    size = os.stat(path).st_size
    with (
        _uncollected(),
        tqdm(total=size, unit="B", unit_scale=True, desc=f"score {path}", disable=size < LONG_FILE) as bar,
        Totals(seed, n_resamples, most_in_memory, min(max(8, size // PART), 4096)) as totals,
        _line_writer(items) as lines,
    ):
        file = PredictionFile(path, known, bar.update)
        seen: dict[str, set[str]] = {}
        at = n = 0
        for at, prediction in file:
            n += 1
            if isinstance(prediction, Foreign):
                totals.add_foreign(at, prediction.id, prediction.model)
                continue
            scored = _items(at, prediction, file.format)
            totals.add(scored)
            if known is not None:
                seen.setdefault(scored[0].model, set()).add(scored[0].id)
            if lines is not None:
                _write_line(lines, item_line(scored))
        for scored in _missing(known, file.format, seen, at):
            totals.add(scored)
            if lines is not None:
                _write_line(lines, item_line(scored))
        return _metrics(totals, os.fspath(path), file.format, n, questions)


def write_metrics(metrics: Metrics, path: StrPath) -> None:
    """Write metrics.json as a whole or not at all: a reader never sees half of it. Folders are made."""
    write_whole(path, json.dumps(asdict(metrics), ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def _items(at: int, prediction: Prediction, format_: Format) -> list[Item]:
    if isinstance(prediction, Response):
        return score_response(at, prediction)
    assert isinstance(prediction, BenchmarkRow)
    return [score_row(at, prediction, cast(Benchmark, format_))]


def _missing(
    known: Known | None, format_: Format, seen: dict[str, set[str]], last: int
) -> Iterator[list[Item]]:
    """What was asked and not answered, by each model of the file; after the file's last line."""
    if known is None:
        return
    for model, answered in (seen or {"": set()}).items():
        plain = {plain_id(id_) for id_ in answered}
        for at, id_ in enumerate(known.ids, last + 1):
            if id_ in answered or plain_id(id_) in plain:
                continue
            question = known.questions.get(id_)
            if format_ == "tgsr" and question is not None:
                if model:
                    yield missing_items(at, question, model)
                continue
            asked = known.row_of(id_)
            benchmark = known.format if format_ == "tgsr" else format_
            if asked is not None and benchmark != "tgsr" and _asks(question, benchmark):
                unanswered = replace(asked, is_answered=False, prediction="")
                yield [score_row(at, unanswered, benchmark, model)]


def _asks(question: Question | None, benchmark: Benchmark) -> bool:
    return question is None or benchmark_of(question) in (None, benchmark)


def _metrics(totals: Totals, file: str, format_: Format, n: int, questions: StrPath | None = None) -> Metrics:
    totals.finish()
    benchmark = None if format_ == "tgsr" else totals.benchmark_scores("", format_)
    return Metrics(
        file,
        format_,
        n,
        models=totals.models() if format_ == "tgsr" else {},
        benchmark=benchmark,
        differences=totals.differences() if format_ == "tgsr" else (),
        bootstrap="multinomial" if totals.is_whole else "poisson",
        questions=None if questions is None else os.fspath(questions),
    )


@contextmanager
def _line_writer(path: StrPath | None) -> Iterator[IO[str] | None]:
    """A file that appears under its name when it is complete."""
    if path is None:
        yield None
        return
    with whole(path) as half, half.open("w", encoding="utf-8", errors="backslashreplace") as file:
        yield file


def _write_line(file: IO[str], line: Line) -> None:
    file.write(json.dumps(line, ensure_ascii=False) + "\n")

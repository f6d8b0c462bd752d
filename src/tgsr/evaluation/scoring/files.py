"""Prediction files, row by row: ours and the benchmarks' own, told apart by what they hold."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, BinaryIO, cast

from tgsr.disk.jsonl import Row, row_of
from tgsr.disk.whole import StrPath
from tgsr.errors import RecordError
from tgsr.evaluation.benchmarks import AIRBENCH_CHOICES, EMOTIONS, Benchmark, airbench_domain
from tgsr.evaluation.scoring.items import BenchmarkRow, Labels, benchmark_of
from tgsr.evaluation.scoring.metrics import Format
from tgsr.records import Question, Response, question_of, response_of

PREDICTION_KEYS: dict[Format, str] = {
    "mmau": "model_output",
    "mmar": "answer_prediction",
    "airbench": "response",
    "meld": "prediction",
}
MELD_COLUMNS = ("Emotion", "Dialogue_ID", "Utterance_ID")
# What only rows of that benchmark have, in the order in which it is looked for
_MARKS: dict[Format, tuple[str, ...]] = {
    "mmau": ("model_output", "audio_id"),
    "mmar": ("answer_prediction", "audio_path", "modality"),
    "airbench": ("uniq_id", "answer_gt", "choice_a"),
    "meld": MELD_COLUMNS,
    "tgsr": ("response", "clip_id"),
}
_HOW_TO = (
    "give MMAU's json list (model_output), MMAR's jsonl (answer_prediction), AIR-Bench's rows (response), MELD's csv "
    "with a column prediction, or what tgsr predict writes; tgsr import makes these of other files"
)
_COPY = "copy it from the benchmark's file"

# --- rows ------------------------------------------------------------------------------------------------


def read_rows(path: StrPath) -> Iterator[tuple[int, Row]]:
    """Each row of JSON lines or of a table with its line, or of a JSON list with its place in it.

    Raises RecordError for what is none of them, with file and line, and where there is no row.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        start = file.read(65536).removeprefix(codecs.BOM_UTF8).lstrip()
        file.seek(0)
        header = start.split(b"\n", 1)[0]
        if start.startswith(b"["):
            rows = _list_rows(name, file.read())
        elif not start.startswith(b"{") and all(column.encode() in header for column in MELD_COLUMNS):
            rows = _table_rows(name, file)
        else:
            rows = _line_rows(name, file)
        is_empty = True
        for line, row in rows:
            is_empty = False
            yield line, row
    if is_empty:
        raise RecordError(None, "holds no predictions", name, remedy=_HOW_TO)


def _line_rows(name: str, file: BinaryIO) -> Iterator[tuple[int, Row]]:
    # bytes end lines at \n only: text would also end them at U+2028 and its like, inside strings
    for line, content in enumerate(file, 1):
        if line == 1:
            content = content.removeprefix(codecs.BOM_UTF8)
        if content.isspace() or not content:
            continue
        try:
            row = row_of(content)
        except RecordError as error:
            is_cut = "half-written" in error.problem
            remedy = error.remedy if is_cut or "UTF-8" in error.problem else _HOW_TO
            raise RecordError(None, error.problem, name, line, remedy) from None
        yield line, row


def _list_rows(name: str, content: bytes) -> Iterator[tuple[int, Row]]:
    line, problem, remedy = None, "", _HOW_TO
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        problem, remedy = f"is not UTF-8 ({error.reason})", "save it as UTF-8"
    except json.JSONDecodeError as error:
        line, problem = error.lineno, f"is not JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        line, problem = 1, "is not JSON: nested too deeply"
    except ValueError as error:  # a number of 4,300 digits
        line, problem = 1, f"is not JSON: {error}"
    if problem:
        raise RecordError(None, problem, name, line, remedy)
    for place, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise RecordError(None, f"a row must be a JSON object, got {value!r:.80}", name, place, _HOW_TO)
        yield place, value


def _table_rows(name: str, file: BinaryIO) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(sys.maxsize)  # a response may be longer than the 131,072 characters of the default
    reader = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    try:
        for row in reader:
            yield reader.line_num, row
    except UnicodeDecodeError as error:
        problem, remedy = f"is not UTF-8 ({error.reason})", "save it as UTF-8"
    except csv.Error as error:
        problem, remedy = f"is not CSV ({error})", _HOW_TO
    else:
        return
    raise RecordError(None, problem, name, reader.line_num, remedy)


def format_of(name: str, line: int, row: Row) -> Format:
    """By what only rows of that format have. RecordError where there is nothing of the kind."""
    if "clip_id" in row and "kind" in row:
        return "tgsr"
    for format_, marks in _MARKS.items():
        if any(mark in row for mark in marks):
            return format_
    raise RecordError(None, f"has none of the known keys, only {sorted(row)!r:.200}", name, line, _HOW_TO)


# --- an owner's row --------------------------------------------------------------------------------------


def benchmark_row(row: Row, format_: Format) -> BenchmarkRow:
    """A row of an owner's file. RecordError for one without an id, choices, or a usable answer."""
    if format_ == "airbench":
        return _airbench_row(row)
    if format_ == "meld":
        return _meld_row(row)
    choices = row.get("choices")
    if not isinstance(choices, list) or not all(
        choice is None or isinstance(choice, str) for choice in choices
    ):
        raise RecordError("choices", f"must be a list of texts, got {choices!r:.80}", remedy=_COPY)
    category = row.get("category")
    domain = row.get("task" if format_ == "mmau" else "modality")
    domain = None if domain is None else str(domain)
    categories = _texts(category if isinstance(category, list) else [category])
    id_ = _id(row, "id")
    is_answered, prediction = _prediction(row, PREDICTION_KEYS[format_])
    return BenchmarkRow(
        id=id_,
        audio=str(row.get("audio_id") or row.get("audio_path") or id_),
        choices=tuple(choices),
        answer=_answer(row, "answer"),
        is_answered=is_answered,
        prediction=prediction,
        domain=domain,
        categories=categories,
        labels=_labels(domain, categories, _texts([row.get("sub-category")])),
    )


def _airbench_row(row: Row) -> BenchmarkRow:
    choices = tuple(row.get(column) for column in AIRBENCH_CHOICES)
    for column, choice in zip(AIRBENCH_CHOICES, choices, strict=True):
        if choice is not None and not isinstance(choice, str):
            raise RecordError(column, f"must be text or null, got {choice!r:.80}", remedy=_COPY)
    task, dataset = (str(row.get(key) or "") for key in ("task_name", "dataset_name"))
    folder = f"{task}_{dataset}"
    is_answered, prediction = _prediction(row, "response")
    domain = airbench_domain(task)
    return BenchmarkRow(
        id=f"{folder}-{_id(row, 'uniq_id')}",
        audio=f"{folder}/{row.get('path')}",
        choices=cast("tuple[str | None, ...]", choices),
        answer=_answer(row, "answer_gt"),
        # its script passes over a row without a task
        is_answered=is_answered and row.get("response") is not None and row.get("task_name") is not None,
        prediction=prediction,
        domain=domain,
        categories=_texts([task]),
        labels=(*_labels(domain, _texts([task]), ()), ("task_dataset", folder)),
    )


def _meld_row(row: Row) -> BenchmarkRow:
    emotion = _answer(row, "Emotion")
    emotion = None if emotion is None else emotion.strip().lower()
    if emotion is not None and emotion not in EMOTIONS:
        raise RecordError("Emotion", f"{emotion!r} is none of {', '.join(EMOTIONS)}", remedy=_COPY)
    at = [_id(row, column) for column in ("Dialogue_ID", "Utterance_ID")]
    is_answered, prediction = _prediction(row, "prediction")
    return BenchmarkRow(
        id=f"dia{at[0]}_utt{at[1]}",
        audio=f"dia{at[0]}_utt{at[1]}",
        choices=EMOTIONS,
        answer=emotion,
        is_answered=is_answered,
        prediction=prediction,
        domain="speech",
        categories=() if emotion is None else (emotion,),
        labels=_labels("speech", () if emotion is None else (emotion,), ()),
    )


def _id(row: Row, field: str) -> str:
    value = row.get(field)
    if isinstance(value, int) and not isinstance(value, bool) and field != "id":
        return str(value)  # AIR-Bench's and MELD's are numbers
    if not isinstance(value, str) or not value:
        raise RecordError(field, f"must be text, got {value!r:.80}", remedy=_COPY)
    return value


def _answer(row: Row, field: str) -> str | None:
    """The right choice's text; None where the row has none, as in a test set whose answers are kept secret."""
    value = row.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise RecordError(field, f"must be text, got {value!r:.80}", remedy=_COPY)
    return value


def _prediction(row: Row, key: str) -> tuple[bool, str]:
    """Whether there is one, and its text: null is an empty one, and what is no text is written out."""
    value = row.get(key)
    return key in row, "" if value is None else str(value)


def _texts(values: list[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(value) for value in values if value))


def _labels(domain: str | None, categories: tuple[str, ...], sub_categories: tuple[str, ...]) -> Labels:
    return (
        *((("domain", domain),) if domain else ()),
        *(("category", category) for category in categories),
        *(("sub-category", sub) for sub in sub_categories),
    )


# --- the questions, given apart --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """What was asked, by id: an owner's rows, or questions of ours. They are the authority on choices and answers."""

    format: Format
    rows: Mapping[str, BenchmarkRow]
    questions: Mapping[str, Question]

    @property
    def ids(self) -> list[str]:
        return list(self.rows or self.questions)

    def row_of(self, id_: str) -> BenchmarkRow | None:
        """The owner's row of that id, or a question of ours as one, MELD's also without their split's name."""
        if id_ in self.rows:
            return self.rows[id_]
        names = (id_, *(f"meld-{split}-{id_}" for split in ("test", "dev", "train")))
        question = next((self.questions[name] for name in names if name in self.questions), None)
        return None if question is None or question.kind != "choice" else _row_of_question(question)


def read_known(path: StrPath) -> Known:
    """A benchmark's own file, or questions.jsonl. RecordError for what is neither, with file and line."""
    name = os.fspath(path)
    rows: dict[str, BenchmarkRow] = {}
    questions: dict[str, Question] = {}
    format_: Format | None = None
    for line, row in read_rows(path):
        format_ = format_ or format_of(name, line, row)
        try:
            if format_ == "tgsr":
                question = question_of(row)
                questions.setdefault(question.id, question)
            else:
                asked = benchmark_row(row, format_)
                rows.setdefault(asked.id, asked)
        except RecordError as error:
            raise error.at(name, line) from None
    assert format_ is not None  # read_rows raises where there is no row
    return Known(format_, rows, questions)


def _row_of_question(question: Question) -> BenchmarkRow:
    domain = next(iter(question.labelled("domain")), None)
    categories = question.labelled("category")
    labels = _labels(domain, categories, question.labelled("sub-category"))
    dataset = question.labelled("dataset")
    if benchmark_of(question) == "airbench" and categories and dataset:
        labels += (("task_dataset", f"{categories[0]}_{dataset[0]}"),)
    return BenchmarkRow(
        id=plain_id(question.id),
        audio=question.clip_id,
        choices=question.choices,
        answer=question.answer,
        is_answered=False,
        prediction="",
        domain=domain,
        categories=categories,
        labels=labels,
    )


def plain_id(id_: str) -> str:
    """MELD's clip without the split that questions of ours name before it: "meld-test-dia0_utt0" is "dia0_utt0"."""
    return id_.rpartition("-")[2] if id_.startswith("meld-") else id_


# --- predictions -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Foreign:
    """An answer to something that is not among the questions."""

    id: str
    model: str


Prediction = Response | BenchmarkRow | Foreign


class PredictionFile:
    """A prediction file, opened: what it is, and its predictions one after another."""

    def __init__(self, path: StrPath, known: Known | None = None) -> None:
        self.name = os.fspath(path)
        self._known = known
        rows = read_rows(path)
        line, first = next(rows)
        self._rows = chain([(line, first)], rows)
        try:
            self.format = format_of(self.name, line, first)
        except RecordError:
            if known is None or "id" not in first:
                raise
            self.format = known.format
        if known is not None and self.format == "tgsr" and known.rows and "clip_id" not in first:
            self.format = known.format
        self._key = PREDICTION_KEYS.get(self.format, "response")
        if self._key not in first and known is not None:
            keys = (*PREDICTION_KEYS.values(), "response")
            self._key = next((key for key in keys if key in first), self._key)

    def __iter__(self) -> Iterator[Prediction]:
        """Each prediction. Rows that cannot be used raise RecordError, with file and line."""
        read = self._response if self.format == "tgsr" else self._owners_row
        for line, row in self._rows:
            try:
                yield read(row)
            except RecordError as error:
                raise error.at(self.name, line) from None

    def _response(self, row: Row) -> Response | Foreign:
        """A response of ours; what was asked is taken from the questions, where they are given."""
        known = self._known
        if known is None:
            return response_of(row)
        id_, model, text = str(row.get("id")), row.get("model"), row.get("response")
        if known.questions:
            if id_ not in known.questions:
                return Foreign(id_, str(model))
            if text is None:
                raise RecordError("response", 'is missing; "" is the empty response')
            if not isinstance(model, str) or not isinstance(text, str):
                raise RecordError("response", "model and response must be text")
            return Response(known.questions[id_], model, text)
        asked = known.rows.get(plain_id(id_))
        if asked is None:
            return Foreign(id_, str(model))
        response = response_of(row)
        question = _with_authority(response.question, asked, cast(Benchmark, known.format))
        return replace(response, question=question)

    def _owners_row(self, row: Row) -> BenchmarkRow | Foreign:
        """A row of an owner's file; what was asked is taken from the questions, where they are given."""
        if self._known is None:
            return benchmark_row(row, self.format)
        id_ = _row_id(row, self.format)
        asked = self._known.row_of(id_)
        if asked is None:
            return Foreign(id_, "")
        is_answered, prediction = _prediction(row, self._key)
        if self.format == "airbench":
            is_answered = is_answered and row.get(self._key) is not None
        return replace(asked, is_answered=is_answered, prediction=prediction)


def _row_id(row: Row, format_: Format) -> str:
    """The id of an owner's row, by which it is found among the questions."""
    if format_ == "airbench" and "uniq_id" in row:
        return f"{row.get('task_name')}_{row.get('dataset_name')}-{row['uniq_id']}"
    if format_ == "meld" and "Dialogue_ID" in row:
        return f"dia{row['Dialogue_ID']}_utt{row.get('Utterance_ID')}"
    return plain_id(_id(row, "id"))


def _with_authority(question: Question, asked: BenchmarkRow, benchmark: Benchmark) -> Question:
    """A question of ours with the owner's choices, answer and labels; as it is where these make no question."""
    choices = tuple(choice for choice in asked.choices if choice is not None and choice.strip())
    if asked.answer not in choices or len(choices) < 2:
        return question
    labels = [("benchmark", benchmark), *(pair for pair in asked.labels if pair[0] != "task_dataset")]
    labels += [pair for pair in question.labels if pair[0] not in {name for name, _ in labels}]
    return replace(question, kind="choice", choices=choices, answer=asked.answer, labels=tuple(labels))

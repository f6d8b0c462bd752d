"""Prediction files, row by row: ours and the benchmarks' own, told apart by what they hold.

Nothing here holds a whole file but a short one, or the questions, where they are given apart.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
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
TOLD_EVERY = 2**16  # bytes
MOST_AT_ONCE = 2**24  # bytes of a JSON list that is read whole, so that an error has its line
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

OnBytes = Callable[[int], object]


# --- rows ------------------------------------------------------------------------------------------------


def read_rows(path: StrPath, on_bytes: OnBytes | None = None) -> Iterator[tuple[int, Row]]:
    """Each row of JSON lines or of a table with its line, or of a JSON list with its place in it.

    `on_bytes` is told how many bytes were read since the last time. Raises RecordError for what is none of them,
    with file and line, and where there is no row.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        start = file.read(65536).removeprefix(codecs.BOM_UTF8).lstrip()
        file.seek(0)
        if start.startswith(b"["):
            rows = _list_rows(name, file, on_bytes)
        elif _is_table(start):
            rows = _table_rows(name, file, on_bytes)
        else:
            rows = _line_rows(name, file, on_bytes)
        is_empty = True
        for line, row in rows:
            is_empty = False
            yield line, row
    if is_empty:
        raise RecordError(None, "holds no predictions", name, remedy=_HOW_TO)


def _is_table(start: bytes) -> bool:
    header = start.split(b"\n", 1)[0]
    return not start.startswith(b"{") and all(column.encode() in header for column in MELD_COLUMNS)


def _line_rows(name: str, file: BinaryIO, on_bytes: OnBytes | None) -> Iterator[tuple[int, Row]]:
    # bytes end lines at \n only: text would also end them at U+2028 and its like, inside strings
    n_unsaid = 0
    for line, content in enumerate(file, 1):
        n_unsaid += len(content)
        if on_bytes is not None and n_unsaid > TOLD_EVERY:
            on_bytes(n_unsaid)
            n_unsaid = 0
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
    if on_bytes is not None:
        on_bytes(n_unsaid)


def _list_rows(name: str, file: BinaryIO, on_bytes: OnBytes | None) -> Iterator[tuple[int, Row]]:
    size = os.fstat(file.fileno()).st_size
    if size <= MOST_AT_ONCE:
        try:
            text = file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise RecordError(
                None, f"is not UTF-8 ({error.reason})", name, remedy="save it as UTF-8"
            ) from None
        values: Iterator[Any] = iter(_parse(name, text))
    else:
        values = _long_list(name, file, on_bytes)
    for place, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise RecordError(None, f"a row must be a JSON object, got {value!r:.80}", name, place, _HOW_TO)
        yield place, value
    if on_bytes is not None and size <= MOST_AT_ONCE:
        on_bytes(size)


def _parse(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line, problem = error.lineno, f"{error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # ValueError: a number of 4,300 digits
        line, problem = 1, "nested too deeply" if isinstance(error, RecursionError) else str(error)
    raise RecordError(None, f"is not JSON: {problem}", name, line, _HOW_TO)


def _long_list(name: str, file: BinaryIO, on_bytes: OnBytes | None) -> Iterator[Any]:
    """The values of a JSON list, each parsed when it is complete; what was parsed is dropped."""
    decoder, decode = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8-sig")()
    text, at, n_chunk, is_end = "", 0, 2**20, False
    is_open, place = False, 0
    while True:
        while at < len(text) and text[at] in " \t\r\n,[" and (text[at] != "[" or not is_open):
            is_open |= text[at] == "["
            at += 1
        if at < len(text):
            if text[at] == "]":
                return
            try:
                value, at = decoder.raw_decode(text, at)
            except (ValueError, RecursionError) as error:
                if is_end or isinstance(error, RecursionError):
                    what = f"the row after the {place}th ({error!s:.80})"
                    raise RecordError(None, f"is not JSON: {what}", name, place + 1, _HOW_TO) from None
            else:
                place += 1
                n_chunk = 2**20
                yield value
                continue
        elif is_end:
            raise RecordError(None, "is not JSON: its list has no end", name, place, _HOW_TO)
        content = file.read(n_chunk)
        n_chunk *= 2  # a value that takes many reads is parsed from its start each time
        is_end = not content
        if on_bytes is not None:
            on_bytes(len(content))
        try:
            text, at = text[at:] + decode.decode(content, is_end), 0
        except UnicodeDecodeError as error:
            raise RecordError(
                None, f"is not UTF-8 ({error.reason})", name, place + 1, "save it as UTF-8"
            ) from None


def _table_rows(name: str, file: BinaryIO, on_bytes: OnBytes | None) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(sys.maxsize)  # a completion may be longer than the default of 131,072 characters
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    reader = csv.DictReader(text)
    last = 0
    try:
        for row in reader:
            yield reader.line_num, row
            if on_bytes is not None:
                here = file.tell()
                on_bytes(here - last)
                last = here
    except UnicodeDecodeError as error:
        raise RecordError(
            None, f"is not UTF-8 ({error.reason})", name, reader.line_num, "save it as UTF-8"
        ) from None
    except csv.Error as error:
        raise RecordError(None, f"is not CSV ({error})", name, reader.line_num, _HOW_TO) from None


def format_of(name: str, line: int, row: Row) -> Format:
    """By what only rows of that format have. RecordError where there is nothing of the kind."""
    if "clip_id" in row and "kind" in row:
        return "tgsr"
    for format_, marks in _MARKS.items():
        if any(mark in row for mark in marks):
            return format_
    raise RecordError(None, f"has none of the known keys, only {sorted(row)!r:.200}", name, line, _HOW_TO)


# --- an owner's row --------------------------------------------------------------------------------------


def benchmark_row(name: str, line: int, row: Row, format_: Format) -> BenchmarkRow:
    """A row of an owner's file. RecordError for one without an id, choices, or a usable answer."""
    if format_ == "airbench":
        return _airbench_row(name, line, row)
    if format_ == "meld":
        return _meld_row(name, line, row)
    choices = row.get("choices")
    if not isinstance(choices, list) or not all(
        choice is None or isinstance(choice, str) for choice in choices
    ):
        raise RecordError("choices", f"must be a list of texts, got {choices!r:.80}", name, line, _COPY)
    category = row.get("category")
    domain = row.get("task" if format_ == "mmau" else "modality")
    domain = None if domain is None else str(domain)
    categories = _texts(category if isinstance(category, list) else [category])
    id_ = _id(name, line, row, "id")
    is_answered, prediction = _prediction(row, PREDICTION_KEYS[format_])
    return BenchmarkRow(
        id=id_,
        audio=str(row.get("audio_id") or row.get("audio_path") or id_),
        choices=tuple(choices),
        answer=_answer(name, line, row, "answer"),
        is_answered=is_answered,
        prediction=prediction,
        domain=domain,
        categories=categories,
        labels=_labels(domain, categories, _texts([row.get("sub-category")])),
    )


def _airbench_row(name: str, line: int, row: Row) -> BenchmarkRow:
    choices = tuple(row.get(column) for column in AIRBENCH_CHOICES)
    for column, choice in zip(AIRBENCH_CHOICES, choices, strict=True):
        if choice is not None and not isinstance(choice, str):
            raise RecordError(column, f"must be text or null, got {choice!r:.80}", name, line, _COPY)
    task, dataset = (str(row.get(key) or "") for key in ("task_name", "dataset_name"))
    folder = f"{task}_{dataset}"
    is_answered, prediction = _prediction(row, "response")
    domain = airbench_domain(task)
    return BenchmarkRow(
        id=f"{folder}-{_id(name, line, row, 'uniq_id')}",
        audio=f"{folder}/{row.get('path')}",
        choices=cast("tuple[str | None, ...]", choices),
        answer=_answer(name, line, row, "answer_gt"),
        # its script passes over a row without a task
        is_answered=is_answered and row.get("response") is not None and row.get("task_name") is not None,
        prediction=prediction,
        domain=domain,
        categories=_texts([task]),
        labels=(*_labels(domain, _texts([task]), ()), ("task_dataset", folder)),
    )


def _meld_row(name: str, line: int, row: Row) -> BenchmarkRow:
    emotion = _answer(name, line, row, "Emotion")
    emotion = None if emotion is None else emotion.strip().lower()
    if emotion is not None and emotion not in EMOTIONS:
        raise RecordError("Emotion", f"{emotion!r} is none of {', '.join(EMOTIONS)}", name, line, _COPY)
    at = [_id(name, line, row, column) for column in ("Dialogue_ID", "Utterance_ID")]
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


def _id(name: str, line: int, row: Row, field: str) -> str:
    value = row.get(field)
    if isinstance(value, int) and not isinstance(value, bool) and field != "id":
        return str(value)  # AIR-Bench's and MELD's are numbers
    if not isinstance(value, str) or not value:
        raise RecordError(field, f"must be text, got {value!r:.80}", name, line, _COPY)
    return value


def _answer(name: str, line: int, row: Row, field: str) -> str | None:
    """The right choice's text; None where the row has none, as in a test set whose answers are kept secret."""
    value = row.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise RecordError(field, f"must be text, got {value!r:.80}", name, line, _COPY)
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
        if format_ == "tgsr":
            question = _ours(name, line, question_of, row)
            questions.setdefault(question.id, question)
        else:
            asked = benchmark_row(name, line, row, format_)
            rows.setdefault(asked.id, asked)
    assert format_ is not None  # read_rows raises where there is no row
    return Known(format_, rows, questions)


def _ours(name: str, line: int, make: Callable[[Row], Any], row: Row) -> Any:
    try:
        return make(row)
    except RecordError as error:
        raise error.at(name, line) from None


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

    def __init__(self, path: StrPath, known: Known | None = None, on_bytes: OnBytes | None = None) -> None:
        self.name = os.fspath(path)
        self._rows = read_rows(path, on_bytes)
        self._first = next(self._rows)
        self._known = known
        try:
            self.format = format_of(self.name, *self._first)
        except RecordError:
            if known is None or "id" not in self._first[1]:
                raise
            self.format = known.format
        first = self._first[1]
        if known is not None and self.format == "tgsr" and known.rows and "clip_id" not in first:
            self.format = known.format
        self._key = PREDICTION_KEYS.get(self.format, "response")
        if self._key not in first and known is not None:
            keys = (*PREDICTION_KEYS.values(), "response")
            self._key = next((key for key in keys if key in first), self._key)

    def __iter__(self) -> Iterator[tuple[int, Prediction]]:
        """Each prediction with its line. Rows that cannot be used raise RecordError."""
        read = self._our_reader() if self.format == "tgsr" else self._owners_reader()
        line, row = self._first
        yield line, read(line, row)
        for line, row in self._rows:
            yield line, read(line, row)

    def _our_reader(self) -> Callable[[int, Row], Prediction]:
        """Responses; the question of the row before is kept, since a question's answers often follow each other."""
        name, known = self.name, self._known
        last: tuple[dict[str, object], Question] | None = None

        def read(line: int, row: Row) -> Prediction:
            nonlocal last
            if known is not None:
                return self._asked_response(line, row)
            asked = cast("dict[str, object]", row)  # this reader's own: it is taken apart
            text, model = asked.pop("response", None), asked.pop("model", None)
            if last is not None and last[0] == asked:
                question = last[1]
            else:
                question = _ours(name, line, question_of, asked)
                last = (asked, question)
            if text is None:
                problem = 'is missing; "" is the empty response'
                raise RecordError("response", problem, name, line)
            return self._response(line, question, cast(str, model), cast(str, text))

        return read

    def _asked_response(self, line: int, row: Row) -> Prediction:
        known, name = self._known, self.name
        assert known is not None
        id_, model = str(row.get("id")), str(row.get("model"))
        if known.questions:
            question = known.questions.get(id_)
            if question is None:
                return Foreign(id_, model)
            text, model_name = row.get("response"), row.get("model")
            if text is None:
                raise RecordError("response", 'is missing; "" is the empty response', name, line)
            if not isinstance(model_name, str) or not isinstance(text, str):
                raise RecordError("response", "model and response must be text", name, line)
            return self._response(line, question, model_name, text)
        asked = known.rows.get(plain_id(id_))
        if asked is None:
            return Foreign(id_, model)
        response: Response = _ours(name, line, response_of, row)
        question = _with_authority(response.question, asked, cast(Benchmark, known.format))
        return replace(response, question=question)

    def _response(self, line: int, question: Question, model: str, text: str) -> Response:
        try:
            return Response(question, model, text)
        except RecordError as error:
            raise error.at(self.name, line) from None

    def _owners_reader(self) -> Callable[[int, Row], Prediction]:
        name, known, format_, key = self.name, self._known, self.format, self._key

        def read(line: int, row: Row) -> Prediction:
            if known is None:
                return benchmark_row(name, line, row, format_)
            id_ = _row_id(name, line, row, format_)
            asked = known.row_of(id_)
            if asked is None:
                return Foreign(id_, "")
            is_answered, prediction = _prediction(row, key)
            if format_ == "airbench":
                is_answered = is_answered and row.get(key) is not None
            return replace(asked, is_answered=is_answered, prediction=prediction)

        return read


def _row_id(name: str, line: int, row: Row, format_: Format) -> str:
    """The id of an owner's row, by which it is found among the questions."""
    if format_ == "airbench" and "uniq_id" in row:
        return f"{row.get('task_name')}_{row.get('dataset_name')}-{row['uniq_id']}"
    if format_ == "meld" and "Dialogue_ID" in row:
        return f"dia{row['Dialogue_ID']}_utt{row.get('Utterance_ID')}"
    return plain_id(_id(name, line, row, "id"))


def _with_authority(question: Question, asked: BenchmarkRow, benchmark: Benchmark) -> Question:
    """A question of ours with the owner's choices, answer and labels; as it is where these make no question."""
    choices = tuple(choice for choice in asked.choices if choice is not None and choice.strip())
    if asked.answer not in choices or len(choices) < 2:
        return question
    labels = [("benchmark", benchmark), *(pair for pair in asked.labels if pair[0] != "task_dataset")]
    labels += [pair for pair in question.labels if pair[0] not in {name for name, _ in labels}]
    return replace(question, kind="choice", choices=choices, answer=asked.answer, labels=tuple(labels))

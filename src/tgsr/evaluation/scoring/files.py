"""Prediction files, row by row: ours and the benchmarks' own, told apart by what they hold."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

from tgsr.disk.jsonl import Row, lines_in, row_of
from tgsr.disk.parquet import MAGIC, parquet_rows
from tgsr.disk.rows import header_of, opened, table
from tgsr.disk.whole import StrPath
from tgsr.errors import Bad, RecordError
from tgsr.evaluation.owners.files import OWNERS, owner_of_question
from tgsr.evaluation.owners.grounding import format_of_row
from tgsr.evaluation.owners.joining import Joining
from tgsr.evaluation.owners.meld import Meld
from tgsr.evaluation.owners.owner import Benchmark, BenchmarkRow, Owner, id_in, plain_id
from tgsr.evaluation.scoring.metrics import Format
from tgsr.records import Question, Response, no_response, question_of, response_of

_HOW_TO = (
    "give MMAU's json list (model_output), MMAR's jsonl (answer_prediction), AIR-Bench's rows (response), MMAU-Pro's "
    "table (model_output), Daily-Omni's rows (api_answer), MELD's csv "
    "with a column prediction, or what tgsr predict writes; tgsr import makes these of other files"
)

_TABLE = "`tgsr import` makes predictions of it, and asks for what it lacks"
AS_UTF8 = "save it as UTF-8; Excel calls it CSV UTF-8, and its own .xlsx is read too"

# --- rows ------------------------------------------------------------------------------------------------


def read_rows(path: StrPath, *, constants: bool = False) -> Iterator[tuple[int, Row]]:
    """Each row of JSON lines or of MELD's table with its line, or of a JSON list with its place in it.

    `constants` reads NaN and Infinity in JSON lines, which Python's programs write and JSON does not have.

    Raises RecordError for what is none of them, with file and line, and where there is no row.
    """
    name = os.fspath(path)
    with opened(Path(name)) as file:
        start = file.read(65536).removeprefix(codecs.BOM_UTF8).lstrip()
        file.seek(0)
        rows: Iterator[tuple[int, Row]]
        if start.startswith(MAGIC):
            rows = enumerate(parquet_rows(Path(name)), 1)
        elif start.startswith(b"["):
            rows = _list_rows(name, file.read())
        elif start and not start.startswith(b"{") and len(header := header_of(Path(name))) > 1:
            if not all(column in header for column in Meld.marks):
                problem = f"is a table with the columns {', '.join(header)!s:.200}"
                raise RecordError(None, problem, name, remedy=_TABLE)
            rows = _table_rows(name, Path(name))
        else:
            rows = _line_rows(name, file, constants)
        first = next(rows, None)
        if first is None:
            raise RecordError(None, "holds no predictions", name, remedy=_HOW_TO)
        yield first
        yield from rows


def _line_rows(name: str, file: BinaryIO, constants: bool) -> Iterator[tuple[int, Row]]:
    for line, content in lines_in(file):
        try:
            row = row_of(content, constants=constants)
        except RecordError as error:
            is_cut = "half-written" in error.problem
            remedy = error.remedy if is_cut or "UTF-8" in error.problem else _HOW_TO
            raise RecordError(None, error.problem, name, line, remedy) from None
        yield line, row


def _list_rows(name: str, content: bytes) -> Iterator[tuple[int, Row]]:
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RecordError(None, f"is not UTF-8 ({error.reason})", name, None, "save it as UTF-8") from None
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} at column {error.colno}"
        raise RecordError(None, problem, name, error.lineno, _HOW_TO) from None
    except (ValueError, RecursionError) as error:  # ValueError: a number of 4,300 digits
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RecordError(None, f"is not JSON: {problem}", name, 1, _HOW_TO) from None
    for place, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise RecordError(None, f"a row must be a JSON object, got {value!r:.80}", name, place, _HOW_TO)
        yield place, value


def _table_rows(name: str, path: Path) -> Iterator[tuple[int, Row]]:
    for row in table(path, spreadsheet=True):
        if isinstance(row, Bad):
            remedy = AS_UTF8 if "UTF-8" in row.error else _HOW_TO
            raise RecordError(row.field, row.error, name, row.line, remedy)
        yield row.line or 0, dict(row.values)


def format_of(row: Row) -> Format:
    """By what only rows of that format have. RecordError where there is nothing of the kind."""
    if "clip_id" in row and "kind" in row:
        return "tgsr"
    if "clip_id" not in row and format_of_row(row) is not None:
        raise RecordError(None, "says where a sound is, as a benchmark of places does", remedy=_TABLE)
    for owner in OWNERS.values():
        if any(mark in row for mark in owner.marks):
            return owner.name
    if "response" in row or "clip_id" in row:
        return "tgsr"
    raise RecordError(None, f"has none of the known keys, only {sorted(row)!r:.200}", remedy=_HOW_TO)


# --- the questions, given apart --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """What was asked, by id: an owner's rows, or questions of ours. They are the authority on choices and answers.

    `joining` finds the question of a row, also by the name of its sound.
    """

    format: Format
    rows: Mapping[str, BenchmarkRow]
    questions: Mapping[str, Question]
    joining: Joining

    @property
    def ids(self) -> list[str]:
        return list(self.rows or self.questions)

    def id_of(self, row: Row, *ids: str | None) -> str | None:
        """The question that a row answers: of one of the ids, MELD's also without their split's name, or of its sound.

        None where there is none. RecordError where several are about its sound.
        """
        names = [id_ for id_ in ids if id_]
        names += [f"meld-{split}-{id_}" for id_ in names for split in ("test", "dev", "train")]
        sounds = (row.get(name) for name in ("audio", "audio_path", "audio_id", "path", "clip_id"))
        return self.joining.find(names, next((str(sound) for sound in sounds if sound), None))

    def row_of(self, id_: str) -> BenchmarkRow | None:
        """The owner's row of that id, or a question of ours as one."""
        if id_ in self.rows:
            return self.rows[id_]
        question = self.questions.get(id_)
        if question is None or question.kind != "choice":
            return None
        labels = (owner_of_question(question) or OWNERS["mmau"]).breakdown(question.labels)
        id_, clip = plain_id(question.id), question.clip_id
        return BenchmarkRow(id_, clip, question.choices, question.answer, prediction=None, labels=labels)


def read_known(path: StrPath) -> Known:
    """A benchmark's own file, or questions.jsonl. RecordError for what is neither, with file and line."""
    name = os.fspath(path)
    rows: dict[str, BenchmarkRow] = {}
    questions: dict[str, Question] = {}
    format_: Format | None = None
    for line, row in read_rows(path):
        try:
            format_ = format_ or format_of(row)
            if format_ == "tgsr":
                question = question_of(row)
                questions.setdefault(question.id, question)
            else:
                question_row = OWNERS[format_].row(row)
                rows.setdefault(question_row.id, question_row)
        except RecordError as error:
            raise error.at(name, line) from None
    assert format_ is not None  # read_rows raises where there is no row
    sounds = {id_: row.audio for id_, row in rows.items()} | {id_: q.audio for id_, q in questions.items()}
    return Known(format_, rows, questions, Joining.of(sounds))


# --- predictions -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Foreign:
    """An answer to something that is not among the questions."""

    id: str
    model: str


Prediction = Response | BenchmarkRow | Foreign


def open_predictions(path: StrPath, known: Known | None = None) -> tuple[Format, Iterator[Prediction]]:
    """What a prediction file is, and its predictions one after another.

    Rows that cannot be used raise RecordError, with file and line.
    """
    name = os.fspath(path)
    rows = read_rows(path)
    line, first = next(rows)
    try:
        format_ = format_of(first)
    except RecordError as error:
        if known is None or "id" not in first:
            raise error.at(name, line) from None
        format_ = known.format
    if known is not None and format_ == "tgsr" and known.rows and "clip_id" not in first:
        format_ = known.format
    if format_ == "tgsr":
        read: Callable[[Row], Prediction] = partial(_response, known)
    else:
        owner = OWNERS[format_]
        keys = [owner.key] if known is None else [owner.key, *(other.key for other in OWNERS.values())]
        read = partial(_owners_row, known, owner, next((key for key in keys if key in first), owner.key))

    def predictions() -> Iterator[Prediction]:
        for line_number, row in chain([(line, first)], rows):
            try:
                yield read(row)
            except RecordError as error:
                raise error.at(name, line_number) from None

    return format_, predictions()


def _response(known: Known | None, row: Row) -> Response | Foreign:
    """A response of ours; what was asked is taken from the questions, where they are given."""
    if known is None:
        return response_of(row)
    given, model, text = row.get("id"), row.get("model"), row.get("response")
    ids = () if given is None else (str(given), plain_id(str(given)))
    id_ = known.id_of(row, *ids)
    if id_ is None:
        return Foreign(str(given), str(model))
    if known.questions:
        if text is None:
            raise no_response()
        if not isinstance(model, str) or not isinstance(text, str):
            raise RecordError("response", "model and response must be text")
        cut, system = row.get("truncated"), cast(str | None, row.get("system"))  # Response checks the types
        return Response(known.questions[id_], model, text, False if cut is None else cast(bool, cut), system)
    question_row = known.rows[id_]
    response = response_of(row)
    question = _with_authority(response.question, question_row, cast(Benchmark, known.format))
    return replace(response, question=question)


def _owners_row(known: Known | None, owner: Owner, key: str, row: Row) -> BenchmarkRow | Foreign:
    """A row of an owner's file; what was asked is taken from the questions, where they are given."""
    if known is None:
        return owner.row(row)
    given = owner.composed_id(row) or row.get("id")
    id_ = known.id_of(row, None if given is None else plain_id(str(given)))
    if id_ is None and given is None:
        id_in(row, "id")  # says what is missing
    question_row = None if id_ is None else known.row_of(id_)
    if question_row is None:
        return Foreign(str(given), "")
    return replace(question_row, prediction=owner.prediction(row, key), trace=owner.trace(row))


def _with_authority(question: Question, question_row: BenchmarkRow, benchmark: Benchmark) -> Question:
    """A question of ours with the owner's choices, answer and labels; as it is where these make no question."""
    choices = tuple(choice for choice in question_row.choices if choice is not None and choice.strip())
    if question_row.answer not in choices or len(choices) < 2:
        return question
    labels = [("benchmark", benchmark), *(pair for pair in question_row.labels if pair[0] != "task_dataset")]
    labels += [pair for pair in question.labels if pair[0] not in {name for name, _ in labels}]
    return replace(question, kind="choice", choices=choices, answer=question_row.answer, labels=tuple(labels))

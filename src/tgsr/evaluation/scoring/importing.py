"""`tgsr import`: predictions that other programs wrote, in a form that `tgsr score` reads.

MMAU's, MMAR's, AIR-Bench's and MELD's files under any name of the output, lmms-eval's sample logs, what other trainers
log and answer (trainer_logs.py), and any table (CSV, TSV, JSON, JSONL) whose columns are named. What belongs to a
benchmark leaves as its owner's own file, so that the official score can be computed; everything else becomes responses
with their questions, as `tgsr predict` writes them. What says that it was cut stays so.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tgsr import audio
from tgsr.choices import extract_choice
from tgsr.disk.jsonl import Row, maybe_json
from tgsr.disk.parquet import is_parquet, parquet_rows
from tgsr.disk.rows import LONGEST_ROW, Entry, opened, seconds_in, table
from tgsr.disk.sound_folder import SoundFolder
from tgsr.disk.workbook import is_workbook
from tgsr.errors import AudioError, Bad, ImportFileError, RecordError
from tgsr.evaluation.owners.files import OWNERS, owner_of, write_owners_rows
from tgsr.evaluation.owners.grounding import (
    BENCHMARK,
    columns_of,
    flat_row,
    format_of_row,
    spans_of,
    why_unread,
)
from tgsr.evaluation.owners.joining import Joining
from tgsr.evaluation.owners.owner import COMPLETION, Owner, answer_among, plain_id, texts_of, within
from tgsr.evaluation.scoring.files import AS_UTF8
from tgsr.evaluation.scoring.trainer_logs import is_log, read_log
from tgsr.llm.chat import CUT, read_chat, whole_text
from tgsr.llm.endpoint import Malformed
from tgsr.records import Question, Response, append_jsonl, question_of, read_questions, write_jsonl
from tgsr.timeline import Span

RESPONSE_COLUMNS = (
    *("model_output", "answer_prediction", "model_prediction", "model_answer", "api_answer", "prediction"),
    *(
        "model_response",
        "predicted",
        "response",
        "completion",
        "output",
        "generated_text",
        "generation",
        "pred",
    ),
)
OTHER_COLUMNS = ("truncated", "finish_reason", "finishReason", "stop_reason", "system")  # that are read, too
FIELDS = (
    *("id", "response", "question", "choices", "answer", "audio", "duration", "task", "split"),
    *("phrase", "start", "end", "model"),
)
NO_RESPONSE = "no column is known to be the response"
# What Excel shows of a cell that it took for a formula, because its text began with "=", "+" or "-".
FORMULA_ERRORS = {"#NAME?", "#VALUE!", "#REF!", "#DIV/0!", "#N/A", "#NULL!", "#NUM!"}


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file's rows. `format` is what was written: mmau, mmar, airbench, meld or tgsr.

    n_unread counts completions without a clear choice, which are kept as they are; n_more the further responses of
    rows that hold several (the first is taken); n_unanswered the questions of the given file that no row answers;
    `unknown` are the columns that nothing was read from, with the known name that is nearest.
    """

    format: str
    response_column: str
    n: int
    n_bad: int
    n_unread: int
    n_more: int
    n_unanswered: int
    unknown: tuple[str, ...] = ()


def import_predictions(
    path: Path,
    out: Path,
    *,
    model: str | None = None,
    questions: Path | None = None,
    columns: Mapping[str, str] | None = None,
    audio_root: Path | None = None,
    as_is: bool = False,
) -> Imported:
    """Reads `path`, writes `out` and, for rows that cannot be used, `out`.errors.jsonl.

    `columns` maps FIELDS to columns: "question=text". A column may be "a.b" (nested), "a+b" (joined by _, or a list of
    choices), or "=constant". `questions` holds what the predictions lack, joined by id, or by the name of the sound
    file where a single question is about it: a benchmark's own file, questions.jsonl, or a table.
    `as_is` keeps whole completions where the official scorers want a choice's text or letter.
    AIR-Bench's and MELD's rows become responses of ours, labelled as the benchmark's, where `columns` or `audio_root`
    say how long the clips are; the owners' files name no model. Of a trainer's log all responses are kept.

    Raises ImportFileError where nothing can be read, where columns are missing or the response could be in several,
    and where no row is left.
    """
    if not columns and is_log(path):  # columns that are named make a table of it
        return _import_log(path, out, model, questions)
    columns = dict(columns or {})
    for name in columns:
        if name not in FIELDS:
            raise ImportFileError(f"--map {name}=...: no such field; there are {', '.join(FIELDS)}")
    has_durations = "duration" in columns or audio_root is not None
    read = read_table(path)
    known = _questions(questions) if questions else None
    asks_where = known is not None and BENCHMARK in next(iter(known.values()), {})
    rows = [(line, flat_row(_flat(row), joins=asks_where)) for line, row in read.rows]
    given, columns = columns, _presets(rows[0][1]) | columns
    if "response" not in columns:
        columns["response"] = _response_column(path, rows[0][1])
    if not any(_has(row, columns["response"]) for _, row in rows):
        raise ImportFileError(
            f"{path}: no row has a column {columns['response']}; say which with --map response=COLUMN. Columns: "
            f"{', '.join(_with_nearest(rows[0][1]))}"
        )
    errors = out.with_name(out.name + ".errors.jsonl")
    errors.unlink(missing_ok=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    responses: list[Response] = []
    owners_rows: list[Row] = []
    seen: dict[str, int] = {}
    owner = owner_of(next(iter(known.values()), {}) if known else rows[0][1])
    if owner is not None and owner.columns and has_durations:
        owner = None  # there is all that a response of ours needs
    sounds = None if audio_root is None else SoundFolder.of(audio_root)
    joining = None if known is None else _joining(known)
    joined = {**columns, **(_presets(next(iter(known.values()))) if known and owner is None else {}), **given}
    n_bad, n_unread, n_more = len(read.bad), 0, 0
    first_bad = f"line {read.bad[0].line}: {read.bad[0].error}" if read.bad else ""
    for bad in read.bad:
        append_jsonl(errors, {name: value for name, value in asdict(bad).items() if value is not None})
    for line, row in rows:
        try:
            if _value(row, columns["response"]) is None and row.get("error"):  # of a batch: nobody was asked
                raise RecordError("response", f"the request failed: {row['error']!s:.200}")
            if not _has(row, columns["response"]):
                raise RecordError("response", f"column {columns['response']} is missing")
            text, n_others, is_cut = _text(_value(row, columns["response"]))
            if text.strip() in FORMULA_ERRORS:
                problem = f"is {text.strip()}, which Excel shows of a text that begins as a formula does"
                raise RecordError("response", problem)
            asked = Mapped(row, columns, comma=read.comma)
            id_ = asked.id() if joining is None else _joined(asked, joining)
            # The questions' file is the authority; what a prediction file repeats of it may be cut or changed.
            record = {**row, **(known[id_] if known else {}), **({"truncated": True} if is_cut else {})}
            if id_ in seen:
                raise RecordError("id", f"{id_!r} was already on line {seen[id_]}")
            if owner is None:
                mapped = Mapped({**record, "id": id_}, {**joined, "id": "id"}, comma=read.comma)
                responses.append(_response(mapped, text, model, sounds))
            else:
                official_row, unread = _owners_row(owner, Mapped(record, columns), id_, text, as_is)
                owners_rows.append(official_row)
                n_unread += unread
        except RecordError as error:
            error = why_unread(row) or error
            n_bad += 1
            first_bad = first_bad or f"its {error.field}: {error.problem}"
            where = {"file": str(path), "line": line}
            append_jsonl(errors, {**where, "field": error.field, "error": error.problem})
            continue
        seen[id_] = line
        n_more += n_others
    if not seen:
        raise ImportFileError(
            f"{path}: none of its {len(rows) + len(read.bad)} rows can be used, the first for {first_bad}; {errors} "
            f"has the others. Columns: {', '.join(_with_nearest(rows[0][1]))}"
        )
    if owner is None:
        write_jsonl(out, responses)
    else:
        write_owners_rows(owner, out, owners_rows)
    n_unanswered = len(set(known) - set(seen)) if known else 0
    format_ = "tgsr" if owner is None else owner.name
    unknown = _with_nearest(name for name in rows[0][1] if not _is_read(name, columns, rows[0][1]))
    return Imported(format_, columns["response"], len(seen), n_bad, n_unread, n_more, n_unanswered, unknown)


def _import_log(path: Path, out: Path, model: str | None, questions: Path | None) -> Imported:
    known = None if questions is None else {question.id: question for question in read_questions(questions)}
    errors = out.with_name(out.name + ".errors.jsonl")
    errors.unlink(missing_ok=True)
    responses: list[Response] = []
    n_bad = 0
    for row in read_log(path, known):
        if isinstance(row, Response):
            responses.append(row if model is None else replace(row, model=model))
        else:
            n_bad += 1
            append_jsonl(errors, {"file": str(path), "error": f"answers no question that is known: {row.id}"})
    if not responses:
        of = questions or "the questions.jsonl beside it"
        raise ImportFileError(f"{path}: none of its {n_bad} completions answers a question of {of}")
    write_jsonl(out, responses)
    n_unanswered = len({*(known or {})} - {response.question.id for response in responses})
    return Imported("tgsr", COMPLETION, len(responses), n_bad, 0, 0, n_unanswered)


# --- reading ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Table:
    """A file's rows, each with its line (of a JSON list: its place); those that are none, and whether 1,5 is 1.5."""

    rows: list[tuple[int, Row]]
    bad: list[Bad] = field(default_factory=list)
    comma: bool = False


def read_table(path: Path) -> Table:
    """The rows of a JSON list, JSONL, CSV, TSV, Excel workbook or Parquet. What it is, its content says.

    JSON and tables may be gzipped (.gz). A line of JSONL that is none is bad, and the others are read.

    Raises ImportFileError for text that is none of them or neither UTF-8 nor Excel's UTF-16, and where there are no
    rows; RecordError for a .gz that is cut off.
    """
    if is_workbook(path):
        return _cells(path)
    if is_parquet(path):
        return Table(list(enumerate(parquet_rows(path), 1)))
    with opened(path) as file:
        content = file.read()
    is_utf16 = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ImportFileError(f"{path}:{line}: is not UTF-8 ({error.reason}): {AS_UTF8}") from error
    start = text.lstrip()[:1]
    read: list[tuple[int, Any]]
    if start == "[":
        whole = _json_or_bad(path, 1, text)
        read = [(1, whole)] if isinstance(whole, Bad) else list(enumerate(whole, 1))
    elif start == "{":
        whole = maybe_json(text)
        if isinstance(whole, dict):
            read = list(enumerate(_rows_in(path, whole), 1))
        else:
            lines = enumerate(text.split("\n"), 1)
            read = [(line, _json_or_bad(path, line, content)) for line, content in lines if content.strip()]
    else:
        return _cells(path)
    if not read:
        raise ImportFileError(f"{path}: holds no rows")
    rows: list[tuple[int, Row]] = [(line, row) for line, row in read if isinstance(row, dict)]
    problem = "a row must be an object with named values"
    bad = [
        row if isinstance(row, Bad) else Bad(str(path), f"{problem}, got {row!r:.60}", line)
        for line, row in read
        if not isinstance(row, dict)
    ]
    if not rows:
        raise ImportFileError(f"{path}:{bad[0].line}: {bad[0].error}")
    return Table(rows, bad)


def _rows_in(path: Path, whole: dict[str, Any]) -> list[Any]:
    """The rows of one JSON object, as programs write them.

    A table as W&B's and pandas' `split` ("columns" and "data"), pandas' columns, each by row, or rows, or nothing but
    responses, by id; a row alone; or what a results file says beside its one list of rows.
    """
    names, data, values = whole.get("columns"), whole.get("data"), list(whole.values())
    are_objects = bool(values) and all(isinstance(value, dict) for value in values)
    is_row = any(key in whole for key in ("id", "custom_id", "key", "doc_id", "messages", *RESPONSE_COLUMNS))
    if isinstance(names, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return [dict(zip(map(str, names), row, strict=False)) for row in data]
    if are_objects and is_row:
        keys = dict.fromkeys(key for column in values for key in column)
        return [{name: column.get(key) for name, column in whole.items()} for key in keys]
    if is_row:
        return [whole]
    if are_objects:
        return [{"id": id_, **row} for id_, row in whole.items()]
    if values and all(value is None or isinstance(value, str) for value in values):
        return [{"id": id_, "response": text} for id_, text in whole.items()]
    inner = [v for v in values if isinstance(v, list) and v and all(isinstance(row, dict) for row in v)]
    if len(inner) != 1:
        problem = f"one JSON object with {len(inner)} lists of rows; give the one with the rows, as a file of its own"
        raise ImportFileError(f"{path}: {problem}")
    return list(inner[0])


def _cells(path: Path) -> Table:
    """A table of columns, as programs of spreadsheets write it. A blank cell is none: a model that said nothing."""
    read = list(table(path, spreadsheet=True))
    good = [row for row in read if isinstance(row, Entry)]
    if not good:
        bad = next((row for row in read if isinstance(row, Bad)), None)
        raise ImportFileError(f"{path}: holds no rows" + (f" that can be read: {bad.error}" if bad else ""))
    rows: list[tuple[int, Row]] = [(row.line or 0, dict(row.values)) for row in good]
    return Table(rows, [row for row in read if isinstance(row, Bad)], good[0].comma)


def _json_or_bad(path: Path, line: int, text: str) -> Any:
    """A line's value; Bad where it has none, as the last one of a run that was killed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = f"is not JSON ({error}); neither is it a table with a header"
        return Bad(str(path), problem, line, row=text[:LONGEST_ROW])


def _flat(row: Row) -> dict[str, Any]:
    """An lmms-eval row's document beside what the log adds; other rows as they are. The log's own keys win."""
    doc = row.get("doc")
    return {**doc, **row} if isinstance(doc, dict) else dict(row)


def _presets(row: Mapping[str, Any]) -> dict[str, str]:
    """Columns that well-known files have, whatever their capitals and blanks ("Audio Path")."""
    if (owner := owner_of(row)) is not None and owner.columns:
        return dict(owner.columns)
    names = [(field, field) for field in FIELDS if field != "response"]
    names = [("id", "custom_id"), *names]  # beside it OpenAI's batches have an id of their own
    names += [("id", "doc_id"), ("id", "key"), ("id", "question_id"), ("choices", "options")]
    names += [("answer", "ground_truth"), ("answer", "answer_gt"), ("answer", "correct_answer")]
    names += [("answer", "target"), ("audio", "audio_id"), ("audio", "audio_path")]
    plain = _by_plain_name(row)
    return {field: plain[name] for field, name in reversed(names) if name in plain}


def _by_plain_name(row: Mapping[str, Any]) -> dict[str, str]:
    """The columns by their names in small letters with _ for blanks; of two that differ in that alone the plain one."""
    plain = {"_".join(str(name).lower().split()): name for name in row}
    return plain | {name: name for name in row}


def _response_column(path: Path, row: Mapping[str, Any]) -> str:
    plain = _by_plain_name(row)
    logged = [name for name in ("resps", "filtered_resps") if "doc_id" in row and name in row]
    names = logged[:1] or [plain[name] for name in RESPONSE_COLUMNS if name in plain]
    if len(names) == 1:
        return names[0]
    problem = f"the response could be in {', '.join(names)}" if names else NO_RESPONSE
    columns = f"say which with --map response=COLUMN. Columns: {', '.join(_with_nearest(row))}"
    raise ImportFileError(f"{path}: {problem}; {columns}")


def _with_nearest(columns: Iterable[object]) -> tuple[str, ...]:
    """Columns as a message lists them, those with a slip of the pen with the known name that is nearest."""
    known = sorted({*FIELDS, *RESPONSE_COLUMNS, "audio_id", "audio_path"})
    listed = []
    for column in map(str, columns):
        plain = "_".join(column.lower().split())
        near = [] if plain in known else get_close_matches(plain, known, 1, 0.75)
        listed.append(f"{column} (is it {near[0]}?)" if near else column)
    return tuple(listed)


def _is_read(column: str, columns: Mapping[str, str], row: Mapping[str, Any]) -> bool:
    """Whether something is read from the row's column: by a field, or because its owner's files have it."""
    named = {piece.split(".")[0] for name in columns.values() for piece in (name, *name.split("+"))}
    is_known = column in (*RESPONSE_COLUMNS, *OTHER_COLUMNS)
    return column in named or is_known or owner_of(row) is not None or "clip_id" in row or BENCHMARK in row


def _questions(path: Path) -> dict[str, Row]:
    """The rows of a file of questions by their id. Raises ImportFileError for one without."""
    rows: dict[str, Row] = {}
    read = read_table(path)
    if read.bad:  # what is asked about must be known, whole
        raise ImportFileError(f"{path}:{read.bad[0].line}: {read.bad[0].error}")
    for _, row in read.rows:
        if owner_of(row) is None and (queries := format_of_row(row)) is not None:
            rows |= {query.id: columns_of(query) for query in queries(row)}
            continue
        try:
            rows[Mapped(row, {"id": _by_plain_name(row).get("id", "id")}).id()] = row
        except RecordError:
            columns = ", ".join(_with_nearest(row))
            raise ImportFileError(f"{path}: a question has no id; columns: {columns}") from None
    return rows


def _joining(known: Mapping[str, Row]) -> Joining:
    """How rows find their questions among these."""
    sounds = {id_: Mapped(row, _presets(row)).maybe("audio") for id_, row in known.items()}
    return Joining.of({id_: None if sound is None else str(sound) for id_, sound in sounds.items()})


def _joined(asked: Mapped, joining: Joining) -> str:
    """The id of the question that a row answers. RecordError where it has neither id nor sound, or nothing fits."""
    sound = asked.maybe("audio")
    try:
        id_ = asked.id()
    except RecordError:
        if sound is None:
            raise
        id_ = ""
    # MELD's also without the split that ours have before it
    found = joining.find([id_, plain_id(id_)], None if sound is None else str(sound))
    if found is None:
        hint = "" if sound is None or not id_ else "; --map id=COLUMN of the sound's name joins by that"
        raise RecordError("id", f"{id_ or sound!r} is not in the questions' file{hint}")
    return found


# --- values ----------------------------------------------------------------------------------------------------


_MISSING = object()


def _value(row: Mapping[str, Any], column: str, missing: object = None) -> Any:
    """The value of a column, as import_predictions says; `missing` where there is none."""
    if column.startswith("="):
        return column[1:]
    if column in row:
        return row[column]
    if "+" in column:
        values = [_value(row, piece, missing) for piece in column.split("+")]
        return _MISSING if any(value is _MISSING for value in values) else values
    value: Any = row
    for key in column.split("."):
        if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            return missing
    return value


def _has(row: Mapping[str, Any], column: str) -> bool:
    """Whether the row has that column at all; null in it is a model that said nothing."""
    return _value(row, column, _MISSING) is not _MISSING


@dataclass(frozen=True, slots=True)
class Mapped:
    """A row whose fields stand in the columns that `columns` names; `comma` as Table has it."""

    row: Mapping[str, Any]
    columns: Mapping[str, str]
    comma: bool = False

    def maybe(self, field: str) -> Any:
        """The field's value; None where no column is named for it, or the row lacks it."""
        return _value(self.row, self.columns[field]) if field in self.columns else None

    def need(self, field: str) -> Any:
        """The field's value; several columns' values are joined. Raises RecordError where it is missing or blank."""
        value = self.maybe(field)
        if isinstance(value, list) and field != "choices":
            value = "_".join(str(piece) for piece in value)
        if value is None or (isinstance(value, str) and not value.strip()):
            column = self.columns.get(field)
            none = f"no column: give --map {field}=COLUMN"
            raise RecordError(field, f"column {column} is empty or missing" if column else none)
        return value

    def seconds(self, field: str) -> float:
        """The field in seconds, as `seconds_in` reads them. Raises RecordError where its value says none."""
        value = self.need(field)
        seconds = seconds_in(str(value), comma=self.comma)
        if not math.isfinite(seconds):
            raise RecordError(field, f"must be seconds, got {value!r:.40}")
        return seconds

    def id(self) -> str:
        """The row's id; of AIR-Bench and MELD as `tgsr predict` and `tgsr score` name their rows."""
        if self.columns.get("id", "id") == "id":
            for owner in OWNERS.values():
                if (composed := owner.composed_id(self.row)) is not None:
                    return composed
        return str(self.need("id"))


def _text(value: Any) -> tuple[str, int, bool]:
    """The response as text, how many more there were, and whether a server says that a limit cut it.

    null, and NaN, which pandas writes for it, are a model that said nothing: "". Messages, chat completions, OpenAI's
    Responses and Gemini's, also as batches wrap them, are what the model's last message says.
    """
    n_more = 0
    while isinstance(value, list) and not _is_said(value):
        n_more += max(0, len(value) - 1)
        value = value[0] if value else None
    if isinstance(value, list):
        replies = [message for message in value if message.get("role") == "assistant"]
        value = replies[-1] if replies else {"content": value if "type" in value[0] else ""}
    if isinstance(value, dict):
        body = value["body"] if isinstance(value.get("body"), dict) else value
        body = {"choices": [{"message": body}]} if "content" in body else _as_chat(body)
        if body.get("error"):
            raise RecordError("response", f"the request failed: {body['error']!s:.200}")
        if "choices" not in body:
            problem = f"is an object with {', '.join(map(str, value))}"
            raise RecordError("response", f"{problem}: map one of its keys, response=COLUMN.KEY")
        try:
            said = read_chat(body)
        except Malformed as error:
            raise RecordError("response", str(error)) from error
        if "failed" in said:
            raise RecordError("response", str(said["failed"]))
        return whole_text(said), len(body["choices"]) - 1, "truncated" in said
    is_none = value is None or (isinstance(value, float) and math.isnan(value))
    return ("" if is_none else str(value)), n_more, False


def _as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """A reply of Gemini's or of OpenAI's Responses as a chat completion; any other body as it is."""
    replies, output = body.get("candidates"), body.get("output")
    if isinstance(replies, list) and all(isinstance(reply, dict) for reply in replies):
        return {"choices": [_of_gemini(reply) for reply in replies]}
    if isinstance(output, list) and all(isinstance(item, dict) for item in output):
        parts = [
            {"type": "reasoning" if item.get("type") == "reasoning" else "text", "text": part.get("text")}
            for item in output
            for part in [*(item.get("summary") or []), *(item.get("content") or [])]
            if isinstance(part, dict)
        ]
        is_whole = body.get("status", "completed") == "completed"
        reason = (body.get("incomplete_details") or {}).get("reason")
        cut = "length" if reason == "max_output_tokens" else reason or body.get("status")
        message = {"content": parts or None}
        return {**body, "choices": [{"message": message, "finish_reason": "stop" if is_whole else cut}]}
    return body


def _of_gemini(reply: dict[str, Any]) -> dict[str, Any]:
    content = reply.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    said = [
        {"type": "thought" if part.get("thought") else "text", "text": part.get("text")}
        for part in parts or []
        if isinstance(part, dict)
    ]
    return {"message": {"content": said or None}, "finish_reason": reply.get("finishReason")}


def _is_said(values: list[Any]) -> bool:
    """Whether a list is one conversation, or the parts of one message, and not several responses."""
    return bool(values) and all(isinstance(one, dict) and ("role" in one or "type" in one) for one in values)


# --- rows ------------------------------------------------------------------------------------------------------


def _owners_row(owner: Owner, mapped: Mapped, id_: str, text: str, as_is: bool) -> tuple[Row, bool]:
    """The owner's row with the prediction under its key, and whether no choice could be read out of the text.

    MMAU's and MMAR's match compares sets of words with each choice, and AIR-Bench's reads one letter: a whole
    completion that weighs the choices fails whatever it answers. So the key gets the choice that it ends up with.
    """
    options = owner.options(mapped.row)
    if owner.name == "meld" and "choices" in mapped.columns:
        options = list(texts_of(mapped.need("choices")))
    chosen = None if as_is else extract_choice(text, options)
    row = {key: value for key, value in mapped.row.items() if key not in RESPONSE_COLUMNS}
    if owner.composed_id(mapped.row) is None:
        row["id"] = id_
    row[owner.key] = owner.handed_over(text, options, chosen)
    row[COMPLETION] = text
    return row, chosen is None and not as_is


def _response(mapped: Mapped, text: str, model: str | None, sounds: SoundFolder | None) -> Response:
    """A response of ours; RecordError names the field that is missing or cannot be."""
    name = model or ("model" in mapped.columns and mapped.need("model"))
    if not name:
        raise RecordError("model", "no name: give --model NAME, or --map model=COLUMN")
    if "clip_id" in mapped.row and "kind" in mapped.row:  # joined to questions.jsonl
        is_ours = "model" in mapped.row and isinstance(mapped.row.get("system"), str)
        system = str(mapped.row["system"]) if is_ours else None
        return Response(question_of(mapped.row), str(name), text, _is_cut(mapped.row), system)
    sound, id_ = str(mapped.need("audio")), str(mapped.need("id"))
    owner, where = owner_of(mapped.row), sound
    if sounds is not None:
        places: tuple[str, ...] = ()
        if owner is not None and not sounds.find(sound):
            places = owner.question(Entry(Path(), None, mapped.row)).places
        found = next((file for name in (sound, *places) if (file := sounds.find(name)) is not None), None)
        where = str(found or sounds.folder / sound)
    if mapped.maybe("duration") not in (None, ""):
        duration = mapped.seconds("duration")
    elif sounds is None:
        ways = "--audio FOLDER, --map duration=COLUMN, or --map duration==SECONDS for all"
        raise RecordError("duration", f"unknown: give {ways}")
    else:
        try:
            duration = audio.duration(where)
        except (AudioError, FileNotFoundError) as error:
            raise RecordError("duration", f"{error}") from error
    task = mapped.maybe("task")
    fields: dict[str, Any] = {
        "task": None if task is None else str(task),
        "split": str(mapped.maybe("split") or "test"),
        "labels": () if owner is None else owner.labels(Entry(Path(), None, mapped.row)),
    }
    if "phrase" in mapped.columns:
        phrase = str(mapped.need("phrase"))
        fields |= {"kind": "phrase", "phrase": phrase, "question": phrase}
        if isinstance(mapped.row.get("evidence"), list):  # of a benchmark of places
            fields |= {"question": str(mapped.need("question")), "answer": str(mapped.need("answer"))}
            fields["evidence"] = within(spans_of(mapped.row["evidence"]), duration)
            fields["labels"] = ((BENCHMARK, str(mapped.row[BENCHMARK])),)
        else:
            start, end = mapped.seconds("start"), mapped.seconds("end")
            if not 0 <= start < end:
                raise RecordError("end", f"{end} s is not after start {start} s")
            fields["evidence"] = (Span(start, end),)
    else:
        choices = texts_of(mapped.need("choices"))
        fields |= {"kind": "choice", "choices": choices, "question": str(mapped.need("question"))}
        fields["answer"] = answer_among(mapped.need("answer"), choices)
    return Response(Question(id_, sound, where, duration, **fields), str(name), text, _is_cut(mapped.row))


def _is_cut(row: Row) -> bool:
    """Whether a row says that the limit cut its response: by our `truncated`, or by a server's word for its end."""
    ends = (str(row.get(name) or "").lower() for name in ("finish_reason", "finishReason", "stop_reason"))
    return str(row.get("truncated")).strip().lower() == "true" or any(end in CUT for end in ends)

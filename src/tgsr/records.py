"""What flows between the commands: clips, questions and responses, one JSON object a line.

A dataclass here cannot hold what the commands cannot use: a bad value raises RecordError when it is
made, whether it comes from Python or from a file. Nothing is rewritten.
"""

from __future__ import annotations

import codecs
import json
import logging
import math
import mmap
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from tgsr.errors import RecordError
from tgsr.timeline import END_SLACK, Event, Seconds, Span, Word

StrPath = str | os.PathLike[str]
Row = Mapping[str, object]
T = TypeVar("T", bound="Clip | Question | Response")

KINDS = ("phrase", "choice")
_QUESTION_TEXTS = ("id", "clip_id", "audio", "question", "split")
MOST_CHOICES = 26
ROUNDING = 1e-9  # 3.1 + 0.05 is not quite 3.15

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording with its words. `audio` is a path: absolute, or relative to the JSONL file's folder.

    `text` is what its publisher says was said, without times; `speaker` who says all of it; `labels` what is known of
    the whole clip (("emotion", "joy"), ...), `events` what is heard besides words. `flags` name what a step found wrong
    or put right (transcribe/guard.py).

    Raises RecordError for an empty id or path, a duration that is not positive and finite, and a word or event
    that ends more than 0.05 s after the clip. Words may overlap and come in any order.
    """

    id: str
    audio: str
    duration: Seconds
    words: tuple[Word, ...] = ()
    split: str = "train"
    source: str | None = None
    licence: str | None = None
    speaker: str | None = None
    text: str | None = None
    language: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    events: tuple[Event, ...] = ()
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("id", "audio", "split"):
            _require_text(field, getattr(self, field))
        _require_duration(self.duration)
        _require_tuple("words", self.words, Word)
        _require_tuple("events", self.events, Event)
        for word in self.words:
            _require_inside("words", f"word {word.text!r}: end", word.end, self.duration)
        for event in self.events:
            _require_inside("events", f"event {event.label!r}: end", event.end, self.duration)

    def label(self, name: str) -> str | None:
        """What is known of the clip under that name; None where nothing is."""
        return dict(self.labels).get(name)


@dataclass(frozen=True, slots=True)
class Question:
    """Something asked about one clip.

    kind "phrase": `phrase` is the text to be located and `evidence` holds its one span (stage 1).
    kind "choice": `choices` and the right one, `answer` (its text), and `evidence`, the spans that
    support it; () where nobody marked them (stage 2).
    `task` names the category that scores are broken down by. `labels` are further ones, (("category", "Reasoning"),
    ...), of which a name may have several; ("benchmark", "mmau") says whose official scorer is the measure.

    Raises RecordError where a kind lacks what it needs: a phrase, or two choices with the answer among
    them (choices may repeat: real benchmarks do); for an empty id, path or question, a duration that is
    not positive and finite, and evidence that ends more than 0.05 s after the clip.
    """

    id: str
    clip_id: str
    audio: str
    duration: Seconds
    kind: str
    question: str
    answer: str | None = None
    choices: tuple[str, ...] = ()
    phrase: str | None = None
    evidence: tuple[Span, ...] = ()
    task: str | None = None
    split: str = "train"
    labels: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for field in _QUESTION_TEXTS:
            value = getattr(self, field)
            if (
                type(value) is not str or not value or value.isspace()
            ):  # a call for each is dear: millions of them
                _require_text(field, value)
        _require_duration(self.duration)
        _require_tuple("choices", self.choices, str)
        _require_tuple("evidence", self.evidence, Span)
        for span in self.evidence:
            _require_inside("evidence", "span end", span.end, self.duration)
        if self.kind == "phrase":
            self._require_phrase()
        elif self.kind == "choice":
            self._require_choice()
        else:
            raise RecordError("kind", f"is {self.kind!r}, must be one of {', '.join(map(repr, KINDS))}")

    def labelled(self, name: str) -> tuple[str, ...]:
        """All that is known of the question under that name, in order."""
        return tuple(value for label, value in self.labels if label == name)

    def _require_phrase(self) -> None:
        _require_text("phrase", self.phrase)
        if len(self.evidence) > 1:
            raise RecordError("evidence", f"has {len(self.evidence)} spans; a phrase question has one")

    def _require_choice(self) -> None:
        if not 2 <= len(self.choices) <= MOST_CHOICES:
            raise RecordError(
                "choices",
                f"has {len(self.choices)}; a choice question needs 2 to {MOST_CHOICES}, one a letter",
            )
        for choice in self.choices:
            if not choice or choice.isspace():
                raise RecordError("choices", f"must be texts that are not blank, got {choice!r}")
        if self.answer not in self.choices:
            raise RecordError("answer", f"{self.answer!r} is not one of the choices {list(self.choices)!r}")


@dataclass(frozen=True, slots=True)
class Response:
    """A model's text for one question; the question travels with it, so that a file can be scored alone.

    Any text is a response, the empty one too: what a model wrote is scored, never refused. Raises
    RecordError for an empty model name.
    """

    question: Question
    model: str
    text: str

    def __post_init__(self) -> None:
        _require_text("model", self.model)
        if not isinstance(self.text, str):
            raise RecordError("response", f"must be text, got {self.text!r}")


def read_clips(path: StrPath, on_error: StrPath | None = None) -> list[Clip]:
    """Clips, one JSON object a line: {"id", "audio", "duration", "words": [{"word", "start", "end",
    "speaker"?, "source"?, "confidence"?}, ...], "split"?, "source"?, "licence"?, "speaker"?, "text"?, "language"?,
    "labels"?: {...}, "events"?: [{"label", "start", "end"}, ...], "flags"?: [...]}, times in seconds.

    Manifests may say "path" for audio, which then is the id where none is given, and "prob" for
    confidence. Unknown keys are ignored, blank lines skipped; UTF-8, with or without a byte order mark.
    An empty file gives []. A bad row, or an id seen before, raises RecordError; with `on_error` it is
    appended to that file as {"file", "line", "field", "error", "row"} instead, and reading goes on.
    """
    return _read(path, clip_of, lambda clip: clip.id, on_error)


def read_questions(path: StrPath, on_error: StrPath | None = None) -> list[Question]:
    """Questions, one JSON object a line with Question's fields; evidence is [[start, end], ...] in seconds.

    Errors and `on_error` as in `read_clips`.
    """
    return _read(path, question_of, lambda question: question.id, on_error)


def read_responses(
    path: StrPath, on_error: StrPath | None = None, *, several: bool = False
) -> list[Response]:
    """Responses, one JSON object a line: the question's fields, "model" and "response".

    A model answers a question once; a second answer is a bad row unless `several` says that there may
    be more (sampling). Errors and `on_error` as in `read_clips`.
    """
    key = None if several else _question_and_model
    return _read(path, response_of, key, on_error)


def write_jsonl(path: StrPath, records: Iterable[Clip | Question | Response | Row]) -> None:
    """Write records, or plain mappings, one JSON object a line; fields that are None are left out.

    The file is replaced as a whole, after it is on disk: where anything fails (a full disk, a record
    that raises) the old file is untouched and nothing else is left. Missing folders are made. Raises
    RecordError for NaN and infinite numbers.
    """
    path = Path(os.path.realpath(path))  # a link's target is replaced, not the link
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            for n_written, record in enumerate(records):
                file.write(_line(record, str(path), n_written + 1))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def append_jsonl(path: StrPath, record: Clip | Question | Response | Row) -> None:
    """Append one record to a log in a single write; the file is made where it is missing.

    Raises RecordError for NaN and infinite numbers, and where the log ends in a half-written line, to
    which the record would be glued (`repair_jsonl` first).
    """
    line = _line(record, os.fspath(path), None)
    with open(path, "ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                raise RecordError(
                    None, "the last line is half-written", os.fspath(path), None, "repair_jsonl drops it"
                )
        n_written = file.write(line)
        if n_written != len(line):  # a disk that fills up takes part of a line
            raise OSError(
                f"{os.fspath(path)}: only {n_written} of {len(line)} bytes were written; free space"
            )


def repair_jsonl(path: StrPath) -> int:
    """Drop the half-written last line that a killed process leaves in a log; the bytes dropped, mostly 0.

    A last line that lacks only its line break gets one. Complete lines are not looked at.
    """
    with open(path, "rb+") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            kept = content.rfind(b"\n") + 1
            tail = content[kept:]
        if tail and _is_row(tail):
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
            return 0
        file.truncate(kept)
        return size - kept


def resolve_audio(record: Clip | Question | Response, jsonl_path: StrPath) -> Path:
    """Where the record's audio is: a relative path starts at the folder of the JSONL file."""
    audio = record.question.audio if isinstance(record, Response) else record.audio
    return Path(jsonl_path).parent / audio


# Requirements on values


def _require_text(field: str, value: object) -> None:
    if value is None:
        raise RecordError(field, "is missing")
    if not isinstance(value, str) or not value or value.isspace():
        raise RecordError(field, f"must be text that is not blank, got {value!r}")


def _require_duration(value: object) -> None:
    if _number("duration", "", value) <= 0:
        raise RecordError("duration", f"must be more than 0 s, got {value!r}")


def _require_tuple(field: str, value: object, of: type) -> None:
    if isinstance(value, tuple):
        for item in value:
            if not isinstance(item, of):
                break
        else:
            return
    raise RecordError(field, f"must be a tuple of {of.__name__}, got {value!r:.80}")


def _require_inside(field: str, what: str, end: Seconds, duration: Seconds) -> None:
    if end > duration + END_SLACK + ROUNDING:
        raise RecordError(
            field, f"{what} {end} s is more than {END_SLACK} s after the clip's end {duration} s"
        )


# Rows to records


def _read(
    path: StrPath,
    parse: Callable[[Row], T],
    key: Callable[[T], object] | None,
    on_error: StrPath | None,
) -> list[T]:
    name = os.fspath(path)
    records: list[T] = []
    seen: dict[object, int] = {}
    n_bad = 0
    with open(path, "rb") as file:
        # bytes end lines at \n only: text would also end them at U+2028 and its like, inside strings
        for line, content in enumerate(file, 1):
            content = content.removeprefix(codecs.BOM_UTF8) if line == 1 else content
            if not content.strip():
                continue
            try:
                record = parse(row_of(content))
                _require_new(key, record, seen, line)
            except RecordError as error:
                bad = error.at(name, line)
                if on_error is None:
                    raise bad from None
                append_jsonl(on_error, _bad_row(bad, content))
                n_bad += 1
            else:
                records.append(record)
    if n_bad:
        log.warning("%s: %d rows are bad and left out; see %s", name, n_bad, on_error)
    return records


def _require_new(key: Callable[[T], object] | None, record: T, seen: dict[object, int], line: int) -> None:
    if key is None:
        return
    first = seen.setdefault(key(record), line)
    if first != line:
        raise RecordError(
            "id",
            f"{_id(record)!r} was already on line {first}, and is again on line {line}",
            remedy="give one of them another id, drop one, or pass --skip-bad",
        )


def _id(record: Clip | Question | Response) -> str:
    return record.question.id if isinstance(record, Response) else record.id


def _question_and_model(response: Response) -> tuple[str, str]:
    return response.question.id, response.model


def _bad_row(error: RecordError, content: bytes) -> Row:
    row: object
    try:
        row = row_of(content)
        json.dumps(row, allow_nan=False)
    except (ValueError, RecursionError):  # not JSON, or (1e999) not to be written as JSON
        row = content.decode(errors="backslashreplace").rstrip("\r\n")
    return {
        "file": error.file,
        "line": error.line,
        "field": error.field,
        "error": error.problem,
        "row": row,
    }


def row_of(content: bytes) -> Row:
    """One line as a JSON object. NaN and Infinity, which Python would accept, are not JSON."""
    try:
        row = _DECODER.decode(content.decode())
    except UnicodeDecodeError as error:
        raise RecordError(
            None, f"byte {content[error.start]:#04x} at {error.start} is not UTF-8", remedy="save it as UTF-8"
        ) from None
    except RecordError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or a number of 4,300 digits
        if content.endswith(b"\n"):
            raise RecordError(None, f"is not JSON ({error})") from None
        raise RecordError(
            None, "the last line is half-written", remedy="repair_jsonl drops it; or pass --skip-bad"
        ) from None
    if not isinstance(row, dict):
        raise RecordError(None, f"must be a JSON object, got {row!r:.80}")
    return row


def _refuse_constant(constant: str) -> object:
    raise RecordError(None, f"{constant} is not a number that JSON has")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _is_row(content: bytes) -> bool:
    try:
        row_of(content.removeprefix(codecs.BOM_UTF8))
    except RecordError:
        return False
    return True


def clip_of(row: Row) -> Clip:
    """The clip of one row of a clips file. RecordError names the field that is wrong."""
    audio = _text(row, "audio" if row.get("audio") is not None or row.get("path") is None else "path")
    return Clip(
        id=audio if row.get("id") is None else _text(row, "id"),
        audio=audio,
        duration=_number("duration", "", row.get("duration")),
        words=tuple(_word(item) for item in _list(row, "words")),
        split=_text(row, "split", "train"),
        source=_text_or_none(row, "source"),
        licence=_text_or_none(row, "licence"),
        speaker=_text_or_none(row, "speaker"),
        text=_text_or_none(row, "text"),
        language=_text_or_none(row, "language"),
        labels=_labels(row.get("labels")),
        events=tuple(_event(item) for item in _list(row, "events")),
        flags=tuple(_flag(item) for item in _list(row, "flags")),
    )


def _labels(value: object) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    if not isinstance(value, dict) or not all(isinstance(label, str) for label in value.values()):
        raise RecordError("labels", f"must be an object of texts, got {value!r:.80}")
    return tuple(value.items())


def _several_labels(value: object) -> tuple[tuple[str, str], ...]:
    """{"category": ["A", "B"], "domain": "speech"}: a text, or a list of them, under each name."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise RecordError("labels", f"must be an object of texts or lists of them, got {value!r:.80}")
    pairs = [(name, item) for name, of in value.items() for item in (of if isinstance(of, list) else [of])]
    if not all(isinstance(item, str) for _, item in pairs):
        raise RecordError("labels", f"must be an object of texts or lists of them, got {value!r:.80}")
    return tuple(pairs)


def _by_name(labels: tuple[tuple[str, str], ...]) -> Row | None:
    """Labels as a row has them: a list where a name has several. None where there are none."""
    found: dict[str, list[str]] = {}
    for name, value in labels:
        found.setdefault(name, []).append(value)
    return {name: of[0] if len(of) == 1 else of for name, of in found.items()} or None


def _event(item: object) -> Event:
    if not isinstance(item, dict):
        raise RecordError("events", f"each must be an object, got {item!r:.80}")
    label = item.get("label")
    if not isinstance(label, str) or not label.strip():
        raise RecordError("events", f'"label" must be text that is not blank, got {label!r}')
    span = _span("events", f"event {label!r}: ", item.get("start"), item.get("end"))
    return Event(label, span.start, span.end)


def _flag(item: object) -> str:
    if not isinstance(item, str):
        raise RecordError("flags", f"each must be text, got {item!r:.80}")
    return item


def _word(item: object) -> Word:
    if not isinstance(item, dict):
        raise RecordError("words", f"each must be an object, got {item!r:.80}")
    text = item.get("word")
    if not isinstance(text, str) or not text.strip():
        raise RecordError("words", f'"word" must be text that is not blank, got {text!r}')
    what = f"word {text!r}: "
    span = _span("words", what, item.get("start"), item.get("end"))
    confidence = item.get("confidence", item.get("prob"))
    if confidence is not None:
        confidence = _number("words", f"{what}confidence ", confidence)
        if not 0 <= confidence <= 1:
            raise RecordError("words", f"{what}confidence must be in [0, 1], got {confidence}")
    return Word(
        text=text,
        start=span.start,
        end=span.end,
        speaker=_text_or_none(item, "speaker"),
        source=_text_or_none(item, "source"),
        confidence=confidence,
    )


def question_of(row: Row) -> Question:
    """The question of one row of a questions file. RecordError names the field that is wrong."""
    get = row.get
    split = get("split")
    return Question(
        id=_text(row, "id"),
        clip_id=_text(row, "clip_id"),
        audio=_text(row, "audio"),
        duration=_number("duration", "", get("duration")),
        kind=_text(row, "kind"),
        question=cast(str, get("question")),  # checked by Question itself
        answer=_text_or_none(row, "answer"),
        choices=tuple([_choice(item) for item in _list(row, "choices")]),
        phrase=_text_or_none(row, "phrase"),
        evidence=tuple([_evidence_span(item) for item in _list(row, "evidence")]),
        task=_text_or_none(row, "task"),
        split="train" if split is None else cast(str, split),
        labels=_several_labels(get("labels")),
    )


def response_of(row: Row) -> Response:
    """The response of one row of a predictions file. RecordError names the field that is wrong."""
    text = _text_or_none(row, "response")
    if text is None:
        raise RecordError("response", 'is missing; "" is the empty response')
    return Response(question=question_of(row), model=_text(row, "model"), text=text)


def _choice(item: object) -> str:
    if not isinstance(item, str):
        raise RecordError("choices", f"each must be text, got {item!r:.80}")
    return item


def _evidence_span(item: object) -> Span:
    if not isinstance(item, list) or len(item) != 2:
        raise RecordError("evidence", f"each span must be [start, end], got {item!r:.80}")
    return _span("evidence", "span ", item[0], item[1])


def _span(field: str, what: str, start: object, end: object) -> Span:
    if type(start) is float and type(end) is float and 0 <= start < end < math.inf:
        return Span(start, end)
    first, last = _number(field, f"{what}start ", start), _number(field, f"{what}end ", end)
    if first < 0:
        raise RecordError(field, f"{what}start {first} s is before the clip's start, 0 s")
    if last <= first:
        raise RecordError(field, f"{what}end {last} s is not after its start {first} s")
    return Span(first, last)


def _text(row: Row, field: str, default: str | None = None) -> str:
    value = row.get(field)
    if type(value) is str and value and not value.isspace():  # as nearly all are
        return value
    if value is None and default is not None:
        return default
    _require_text(field, value)
    return str(value)


def _text_or_none(row: Row, field: str) -> str | None:
    value = row.get(field)
    if value is not None and not isinstance(value, str):
        raise RecordError(field, f"must be text, got {value!r:.80}")
    return value


def _list(row: Row, field: str) -> list[object]:
    value = row.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RecordError(field, f"must be a list, got {value!r:.80}")
    return value


def _number(field: str, what: str, value: object) -> float:
    if type(value) is float and -math.inf < value < math.inf:
        return value
    if value is None:
        raise RecordError(field, f"{what}is missing")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(field, f"{what}must be a number, got {value!r:.80}")
    try:
        number = float(value)
    except OverflowError:  # JSON's integers have no limit
        number = math.inf
    if not math.isfinite(number):
        raise RecordError(field, f"{what}must be finite, got {number}")
    return number


# Records to rows


def _line(record: Clip | Question | Response | Row, name: str, line: int | None) -> bytes:
    row = as_row(record)
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        field = next((field for field, value in row.items() if _is_not_finite(value)), None)
        raise RecordError(field, str(error), name, line, "leave out what has no value") from None
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair: only its escape survives
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def _is_not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def as_row(record: Clip | Question | Response | Row) -> Row:
    if isinstance(record, Response):
        return {**as_row(record.question), "model": record.model, "response": record.text}
    if isinstance(record, Clip):
        row = {
            "id": record.id,
            "audio": record.audio,
            "duration": record.duration,
            "words": [_word_row(word) for word in record.words],
            "split": record.split,
            "source": record.source,
            "licence": record.licence,
            "speaker": record.speaker,
            "text": record.text,
            "language": record.language,
            "labels": dict(record.labels) or None,
            "events": [{"label": e.label, "start": e.start, "end": e.end} for e in record.events] or None,
            "flags": list(record.flags) or None,
        }
    elif isinstance(record, Question):
        row = {
            "id": record.id,
            "clip_id": record.clip_id,
            "audio": record.audio,
            "duration": record.duration,
            "kind": record.kind,
            "question": record.question,
            "answer": record.answer,
            "choices": list(record.choices),
            "phrase": record.phrase,
            "evidence": [[span.start, span.end] for span in record.evidence],
            "task": record.task,
            "split": record.split,
            "labels": _by_name(record.labels),
        }
    else:
        row = dict(record)
    return {field: value for field, value in row.items() if value is not None}


def _word_row(word: Word) -> Row:
    row = {
        "word": word.text,
        "start": word.start,
        "end": word.end,
        "speaker": word.speaker,
        "source": word.source,
        "confidence": word.confidence,
    }
    return {field: value for field, value in row.items() if value is not None}


NO_SPEECH = "no-speech"
"""Nobody speaks, as far as voice activity detection and Whisper can tell: silence, noise, music."""
NOT_ENGLISH = "not-english"
"""Another language is spoken; its words are not written down as English ones."""
INVENTED = "invented"
"""A stretch was written down and left out: it repeats itself, or Whisper itself did not believe it."""
TOO_LONG = "too-long"
"""Longer than the bound that was set: not transcribed."""
TEXT_DIFFERS = "text-differs"
"""What was heard shares less than half of its words with the publisher's text."""
UNALIGNED = "unaligned"
"""Forced alignment failed; the times are the first back end's."""

"""What flows between the commands: clips, questions and responses, one JSON object a line.

A dataclass here cannot hold what the commands cannot use: a bad value raises RecordError when it is
made, whether it comes from Python or from a file. Nothing is rewritten.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from tgsr.disk.jsonl import Row, append_row, line_of, lines_in, row_of
from tgsr.disk.sound_folder import SoundFolder, parts_of
from tgsr.disk.whole import StrPath, whole
from tgsr.errors import RecordError
from tgsr.timeline import END_SLACK, Event, Hole, Seconds, Span, Word, is_past_end

T = TypeVar("T", bound="Clip | Question | Response")

KINDS = ("phrase", "choice")
_QUESTION_TEXTS = ("id", "clip_id", "audio", "question", "split")
MOST_CHOICES = 26
ABSENT = "absent"
"""The label of a phrase that is not said in its clip; its value says how the phrase was made."""
HELD_OUT = re.compile(r"(?i)(test(ing)?|dev(el)?|val(id|idation)?|eval(uation)?|held.?out)(?![a-z])")
"""How a split's name begins from which nothing is to be learned: dev-clean, validation, heldout-speaker."""
CHANNEL = re.compile(r"CH(\d+)")
"""How a speaker is named who is known by the channel alone: CH1 is the first."""
BEGUN = "begun"
"""The label whose value is how the response to a question begins."""

log = logging.getLogger(__name__)

# What `Clip.flags` can say
NO_SPEECH = "no-speech"
"""Nobody speaks, as far as voice activity detection and Whisper can tell: silence, noise, music."""
NOT_ENGLISH = "not-english"
"""Another language is spoken; its words, if it has any, are of that language, and no question is asked about them."""
INVENTED = "invented"
"""A stretch was written down and left out: it repeats itself, or Whisper itself did not believe it."""
UNHEARD = "speech-without-words"
"""Somebody speaks where no words could be written down; `holes` says where."""
TOO_LONG = "too-long"
"""Longer than the bound that was set: not transcribed."""
EVENTS_LEFT_OUT = "events-left-out"
"""Other sounds are heard than the clip's events say."""
TURNS_LEFT_OUT = "turns-left-out"
"""Others speak than the clip's turns say."""
TEXT_DIFFERS = "text-differs"
"""What was heard shares less than half of its words with the publisher's text."""
SPEAKERS_GUESSED = "speakers-guessed"
"""Who says a word is a guess from the voices: nothing is asked about it."""
UNALIGNED = "unaligned"
"""Forced alignment failed; the times are the first back end's."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording with its words. `audio` is a path: absolute, or relative to the JSONL file's folder.

    `text` is what its publisher says was said, without times; `speaker` who says all of it; `labels` what is known of
    the whole clip (("emotion", "joy"), ...), `events` what is heard besides words. `flags` name what a step found wrong
    or put right (data/transcribe/hallucinations.py). `holes` are where something is, or may be, said that `words` lack.

    Raises RecordError for an empty id or path, a duration that is not positive and finite, and a word, event or hole
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
    holes: tuple[Hole, ...] = ()

    def __post_init__(self) -> None:
        for field in ("id", "audio", "split"):
            _require_text(field, getattr(self, field))
        _require_duration(self.duration)
        _require_tuple("words", self.words, Word)
        _require_tuple("events", self.events, Event)
        _require_tuple("holes", self.holes, Hole)
        for word in self.words:
            _require_inside("words", f"word {word.text!r}: end", word.end, self.duration)
        for event in self.events:
            _require_inside("events", f"event {event.label!r}: end", event.end, self.duration)
        for hole in self.holes:
            _require_inside("holes", "hole: end", hole.end, self.duration)

    def label(self, name: str) -> str | None:
        """What is known of the clip under that name; None where nothing is."""
        return dict(self.labels).get(name)


@dataclass(frozen=True, slots=True)
class Question:
    """Something asked about one clip.

    kind "phrase": `phrase` is the text to be located and `evidence` holds its one span (stage 1), or, of a benchmark
    that asks for all places of a sound, those; with the label ABSENT it is not said in the clip, and has none.
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
            # A call for each is dear: millions of them.
            if type(value) is not str or not value or value.isspace():
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

    @property
    def is_absent(self) -> bool:
        """Whether it is known that the phrase is not said in the clip."""
        return self.kind == "phrase" and bool(self.labelled(ABSENT))

    def labelled(self, name: str) -> tuple[str, ...]:
        """All that is known of the question under that name, in order."""
        return tuple(value for label, value in self.labels if label == name)

    def _require_phrase(self) -> None:
        _require_text("phrase", self.phrase)
        if self.labels and self.evidence and self.labelled(ABSENT):
            raise RecordError("evidence", f"has a span; a phrase that is labelled {ABSENT!r} has none")

    def _require_choice(self) -> None:
        if not 2 <= len(self.choices) <= MOST_CHOICES:
            needed = f"a choice question needs 2 to {MOST_CHOICES}, one a letter"
            raise RecordError("choices", f"has {len(self.choices)}; {needed}")
        for choice in self.choices:
            if not choice or choice.isspace():
                raise RecordError("choices", f"must be texts that are not blank, got {choice!r}")
        if self.answer not in self.choices:
            raise RecordError("answer", f"{self.answer!r} is not one of the choices {list(self.choices)!r}")


def is_held_out(question: Question) -> bool:
    """Whether the question's split says that it is for testing."""
    return HELD_OUT.match(question.split) is not None


def begun_of(question: Question) -> str:
    """How the response to the question begins, from which the model goes on; "" where it is the model's to begin."""
    return next(iter(question.labelled(BEGUN)), "")


@dataclass(frozen=True, slots=True)
class Response:
    """A model's text for one question; the question travels with it, so that a file can be scored alone.

    Any text is a response, the empty one too: what a model wrote is scored, never refused. `truncated` says that the
    limit of new tokens cut it off, so that its answer may be missing. `system` is the system turn that it was asked
    with, "" where that was left to the model's chat template, None where nobody knows. Raises RecordError for an empty
    model name.
    """

    question: Question
    model: str
    text: str
    truncated: bool = False
    system: str | None = None

    def __post_init__(self) -> None:
        _require_text("model", self.model)
        if not isinstance(self.text, str):
            raise RecordError("response", f"must be text, got {self.text!r:.80}")
        if not isinstance(self.truncated, bool):
            raise RecordError("truncated", f"must be true or false, got {self.truncated!r:.80}")
        if self.system is not None and not isinstance(self.system, str):
            raise RecordError("system", f"must be text, got {self.system!r:.80}")


def read_clips(path: StrPath, on_error: StrPath | None = None) -> list[Clip]:
    """Clips, one JSON object a line: {"id", "audio", "duration", "words": [{"word", "start", "end",
    "speaker"?, "source"?, "confidence"?}, ...], "split"?, "source"?, "licence"?, "speaker"?, "text"?, "language"?,
    "labels"?: {...}, "events"?: [{"label", "start", "end"}, ...], "flags"?: [...],
    "holes"?: [{"start", "end", "text"?, "speaker"?, "source"?}, ...]}, times in seconds.

    Manifests may say "path" for audio, which then is the id where none is given, and "prob" for
    confidence. Unknown keys are ignored, blank lines skipped; UTF-8, with or without a byte order mark.
    An empty file gives []. A bad row, or an id seen before, raises RecordError; with `on_error` it is
    appended to that file as {"file", "line", "field", "error", "row"} instead, and reading goes on.
    """
    return _read(path, clip_of, lambda clip: (clip.id,), on_error)


def read_questions(path: StrPath, on_error: StrPath | None = None) -> list[Question]:
    """Questions, one JSON object a line with Question's fields; evidence is [[start, end], ...] in seconds.

    Errors and `on_error` as in `read_clips`.
    """
    return _read(path, question_of, lambda question: (question.id,), on_error)


def read_responses(
    path: StrPath, on_error: StrPath | None = None, *, several: bool = False
) -> list[Response]:
    """Responses, one JSON object a line: the question's fields, "model", "response", "truncated"? and "system"?.

    A model answers a question once; a second answer is a bad row unless `several` says that there may
    be more (sampling). Errors and `on_error` as in `read_clips`.
    """
    names = None if several else lambda response: (response.question.id, response.model)
    return _read(path, response_of, names, on_error)


def write_errors(path: Path, errors: Sequence[Row]) -> None:
    """The rows of an error file, as `write_jsonl` writes them; without any, that of an earlier run is gone."""
    if errors:
        write_jsonl(path, errors)
    else:
        path.unlink(missing_ok=True)


def write_jsonl(path: StrPath, records: Iterable[Clip | Question | Response | Row]) -> None:
    """Write records, or plain mappings, one JSON object a line; fields that are None are left out.

    The file is there as a whole or not at all (disk/whole.py). Raises RecordError for NaN and infinite numbers.
    """
    name = os.path.realpath(path)
    with whole(path) as half, half.open("wb") as file:
        for line, record in enumerate(records, 1):
            file.write(line_of(as_row(record), name, line))


def append_jsonl(path: StrPath, record: Clip | Question | Response | Row) -> None:
    """Append one record to a log, as `append_row` appends its row."""
    append_row(path, as_row(record))


def resolve_audio(record: Clip | Question | Response, jsonl_path: StrPath) -> Path:
    """Where the record's audio is: a relative path starts at the folder of the JSONL file."""
    return Path(jsonl_path).parent / _audio(record)


def _audio(record: Clip | Question | Response) -> str:
    return record.question.audio if isinstance(record, Response) else record.audio


def moved(records: Iterable[T], folder: str | Path | None) -> list[T]:
    """The records, their sound where it lies below the folder now; what is not there stays as it is written.

    So does what may be either of two files there, which is said. All as they are where no folder is given. Errors as
    `parted_by_sound`.
    """
    there, unclear = parted_by_sound(records, folder)
    if unclear:
        more = f" ({len(unclear)} rows in all)" if len(unclear) > 1 else ""
        log.warning("%s%s; left where its row says it is", next(iter(unclear.values())), more)
    return there


def parted_by_sound(
    records: Iterable[T], folder: str | Path | None
) -> tuple[list[T], dict[int, RecordError]]:
    """The records as `moved`, and why it is not known where the sound of some is, by their place among them.

    RecordError where none of their sound is known to be there, and as `SoundFolder.of` says.
    """
    given = list(records)
    if folder is None or not given:
        return given, {}
    sounds = SoundFolder.of(Path(folder))
    names = sorted({_audio(record) for record in given})
    found: dict[str, str] = {}
    unclear: dict[str, RecordError] = {}
    for name in names:
        try:
            path = sounds.find(name)
        except RecordError as error:
            unclear[name] = error
        else:
            found |= {} if path is None else {name: str(path.absolute())}
    if unclear and not found:
        raise next(iter(unclear.values()))
    if not found:
        problem = f"holds none of the {len(names)} sound files, such as {parts_of(names[0])[-1]}"
        remedy = "give --audio the folder that they have moved to"
        raise RecordError(None, problem, str(folder), remedy=remedy)
    there = [_at(record, found.get(_audio(record))) for record in given]
    return there, {at: unclear[name] for at, name in enumerate(map(_audio, given)) if name in unclear}


def _at(record: T, audio: str | None) -> T:
    if audio is None:
        return record
    if isinstance(record, Response):
        return replace(record, question=replace(record.question, audio=audio))
    return replace(record, audio=audio)


def by_clip(questions: Iterable[Question]) -> list[list[Question]]:
    """The questions of each clip together, clips and questions in the order in which they come."""
    clips: dict[str, list[Question]] = {}
    for question in questions:
        clips.setdefault(question.audio, []).append(question)
    return list(clips.values())


# Requirements on values


def _require_text(field: str, value: object) -> None:
    if value is None:
        raise RecordError(field, "is missing")
    if not isinstance(value, str) or not value or value.isspace():
        raise RecordError(field, f"must be text that is not blank, got {value!r}")


def _require_duration(value: object) -> None:
    if value is None:
        raise RecordError("duration", "is missing")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError("duration", f"must be a number, got {value!r:.80}")
    if not abs(value) <= sys.float_info.max:  # nor is NaN
        raise RecordError("duration", f"must be finite, got {value!r:.80}")
    if value <= 0:
        raise RecordError("duration", f"must be more than 0 s, got {value!r}")


def _require_tuple(field: str, value: object, kind: type) -> None:
    if isinstance(value, tuple):
        for item in value:
            if not isinstance(item, kind):
                break
        else:
            return
    raise RecordError(field, f"must be a tuple of {kind.__name__}, got {value!r:.80}")


def _require_inside(field: str, what: str, end: Seconds, duration: Seconds) -> None:
    if is_past_end(end, duration):
        problem = f"{what} {end} s is more than {END_SLACK} s after the clip's end {duration} s"
        raise RecordError(field, problem)


# Rows to records


def _read(
    path: StrPath,
    parse: Callable[[Row], T],
    names_of: Callable[[T], tuple[str, ...]] | None,
    on_error: StrPath | None,
) -> list[T]:
    """The records of a file, no two with the same names, of which the first is the id."""
    file_name = os.fspath(path)
    records: list[T] = []
    first_lines: dict[tuple[str, ...], int] = {}
    n_bad = 0
    with open(path, "rb") as file:
        for line, content in lines_in(file):
            try:
                record = parse(row_of(content))
                names = (str(line),) if names_of is None else names_of(record)
                if (first := first_lines.setdefault(names, line)) != line:
                    problem = f"{names[0]!r} was already on line {first}, and is again on line {line}"
                    raise RecordError("id", problem, remedy="give one of them another id, or drop one")
                records.append(record)
            except RecordError as error:
                if on_error is None:
                    raise error.at(file_name, line) from None
                row: object
                try:
                    row = row_of(content)
                    json.dumps(row, allow_nan=False)
                except (ValueError, RecursionError):  # not JSON, or (1e999) not to be written as JSON
                    row = content.decode(errors="backslashreplace").rstrip("\r\n")
                where = {"file": file_name, "line": line, "field": error.field}
                append_jsonl(on_error, {**where, "error": error.problem, "row": row})
                n_bad += 1
    if n_bad:
        log.warning("%s: %d rows are bad and left out; see %s", file_name, n_bad, on_error)
    return records


def clip_of(row: Row) -> Clip:
    """The clip of one row of a clips file. RecordError names the field that is wrong."""
    given = _given(row)
    audio = given.setdefault("audio", given.get("path"))
    given.setdefault("id", audio)
    if isinstance(words := given.get("words"), list):
        given["words"] = [
            {**word, "text": word.get("word"), "confidence": word.get("confidence", word.get("prob"))}
            if isinstance(word, dict)
            else word
            for word in words
        ]
    if (labels := given.get("labels")) is not None:
        if not isinstance(labels, dict) or not all(isinstance(label, str) for label in labels.values()):
            raise RecordError("labels", f"must be an object of texts, got {labels!r:.80}")
        given["labels"] = list(labels.items())
    clip = _record(Clip, given)
    for word in clip.words:
        if not word.text or word.text.isspace():
            raise RecordError("words", f'"word" must be text that is not blank, got {word.text!r}')
        if word.confidence is not None and not 0 <= word.confidence <= 1:
            problem = f"word {word.text!r}: confidence must be in [0, 1], got {word.confidence}"
            raise RecordError("words", problem)
    for event in clip.events:
        if not event.label.strip():
            raise RecordError("events", f'"label" must be text that is not blank, got {event.label!r}')
    return clip


def question_of(row: Row) -> Question:
    """The question of one row of a questions file. RecordError names the field that is wrong."""
    given = _given(row)
    if isinstance(evidence := given.get("evidence"), list):
        spans = given["evidence"] = []
        for pair in evidence:
            if not isinstance(pair, list) or len(pair) != 2:
                raise RecordError("evidence", f"each span must be [start, end], got {pair!r:.80}")
            spans.append({"start": pair[0], "end": pair[1]})
    if (labels := given.get("labels")) is not None:
        pairs = [
            (name, label)
            for name, several in (labels.items() if isinstance(labels, dict) else [("", None)])
            for label in (several if isinstance(several, list) else [several])
        ]
        if not all(isinstance(label, str) for _, label in pairs):
            raise RecordError("labels", f"must be an object of texts or lists of them, got {labels!r:.80}")
        given["labels"] = pairs
    return _record(Question, given)


def no_response() -> RecordError:
    """The error of a row without a response, as every row is where questions or clips are given for predictions."""
    remedy = "correct the row, or give what `tgsr predict` or `tgsr import` writes"
    return RecordError("response", 'is missing; "" is the empty response', remedy=remedy)


def response_of(row: Row) -> Response:
    """The response of one row of a predictions file. RecordError names the field that is wrong."""
    if row.get("response") is None:
        raise no_response()
    # Response checks the types
    truncated, system = row.get("truncated"), cast(str | None, row.get("system"))
    cut = False if truncated is None else cast(bool, truncated)
    return Response(question_of(row), cast(str, row.get("model")), cast(str, row["response"]), cut, system)


def _given(row: Row) -> dict[str, object]:
    """The row's values; null is no value, but the same as a missing field."""
    return {name: value for name, value in row.items() if value is not None}


def _record(kind: type[T], row: dict[str, object]) -> T:
    try:
        return msgspec.convert(row, kind)
    except msgspec.ValidationError as error:
        raise _explained(error, row) from None


def _explained(error: msgspec.ValidationError, row: dict[str, object]) -> RecordError:
    """The error with the field, the value that is there and what must be there instead.

    msgspec says "Expected `float`, got `str` - at `$.words[3].start`": what it expects, and where.
    """
    if isinstance(error.__cause__, RecordError):
        return error.__cause__
    problem, _, path = str(error).partition(" - at `$")
    places: list[str] = re.findall(r"\w+", path)
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", problem):
        places.append(missing[1])
    value: Any = row
    for place in places:
        value = value[int(place)] if isinstance(value, list) else value.get(place)
    field, index, part = (*places, "", "")[:3]
    if expected := re.match(r"Expected `(\w+)", problem):
        blank = " that is not blank" if field in (*_QUESTION_TEXTS, "kind") else ""
        problem = f"must be {_CALLED[expected[1]]}{blank}, got {value!r:.80}"
    if field != "holes" and part in ("text", "label"):
        name = "word" if part == "text" else part
        return RecordError(field, f'"{name}" must be text that is not blank, got {value!r}')
    if index and not part and expected:
        return RecordError(field, f"each {problem}")
    if part in ("speaker", "source", "text"):
        return RecordError(part, problem)
    if value is None:
        near = [] if field in row else get_close_matches(field, map(str, row), 1, 0.75)
        problem = f"is missing (is it {near[0]!r}?)" if near else "is missing"
    elif not expected and isinstance(value, int):
        problem = "must be finite, got inf"  # JSON's integers have no limit
    if not index:
        return RecordError(field, problem)
    item = cast(list[dict[str, Any]], row[field])[int(index)]
    names = {"evidence": "span", "words": f"word {item.get('text')!r}:"}
    names |= {"events": f"event {item.get('label')!r}:", "holes": "hole:"}
    return RecordError(field, f"{names[field]} {f'{part} {problem}' if part else _misplaced(item)}")


def _misplaced(item: Mapping[str, float]) -> str:
    """Why the item's start and end are no span."""
    start, end = float(item["start"]), float(item["end"])
    for name, time in (("start", start), ("end", end)):
        if not math.isfinite(time):
            return f"{name} must be finite, got {time}"
    if start < 0:
        return f"start {start} s is before the clip's start, 0 s"
    return f"end {end} s is not after its start {start} s"


_CALLED = {"str": "text", "float": "a number", "array": "a list", "object": "an object"}


# Records to rows


_WORD_FIELDS = [("word" if field == "text" else field, field) for field in Word.__slots__]


def as_row(record: Clip | Question | Response | Row) -> Row:
    """The record as its line has it; fields that are None are left out."""
    if isinstance(record, Response):
        row = {**as_row(record.question), "model": record.model, "response": record.text}
        if record.truncated:
            row["truncated"] = True
        return row if record.system is None else {**row, "system": record.system}
    if isinstance(record, Clip):
        row = _values(record)
        row["words"] = [
            {key: value for key, field in _WORD_FIELDS if (value := getattr(word, field)) is not None}
            for word in record.words
        ]
        row["labels"] = dict(record.labels) or None
        row["events"] = [_values(event) for event in record.events] or None
        row["flags"] = list(record.flags) or None
        row["holes"] = [_values(hole) for hole in record.holes] or None
    elif isinstance(record, Question):
        row = _values(record)
        row["choices"] = list(record.choices)
        row["evidence"] = [[span.start, span.end] for span in record.evidence]
        by_name: dict[str, list[str]] = {}
        for name, label in record.labels:
            by_name.setdefault(name, []).append(label)
        row["labels"] = {name: some if len(some) > 1 else some[0] for name, some in by_name.items()} or None
    else:
        row = dict(record)
    return _given(row)


def _values(record: Clip | Question | Event | Hole) -> dict[str, object]:
    """The record's values under its fields' names, in order; fields that are None are left out."""
    return {name: value for name in record.__slots__ if (value := getattr(record, name)) is not None}

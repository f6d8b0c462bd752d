"""Benchmarks that ask where a sound is, all of it or once: LAT-Bench's TAG, SpotSound-Bench, AEGBench.

A format is a function from a row to its queries. They become phrase questions whose split is the benchmark's name, so
that scores are told apart by it; predictions are joined by the ids, which follow from the sound and the query alone.
docs/benchmarks.md says where each format was seen, and what could not be.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgsr.disk.jsonl import Row
from tgsr.disk.rows import seconds_in
from tgsr.errors import RecordError
from tgsr.grounding import find_asked, valid_spans
from tgsr.records import Question
from tgsr.timeline import Seconds, Span

BENCHMARK = "benchmark"  # the label, and the column of an imported row, that names it
LAT_BENCH, SPOTSOUND, AEGBENCH = "lat-bench-tag", "spotsound-bench", "aegbench"
COPY = "copy it from the benchmark's file"
_WRAPPED = re.compile(r"\blocate\s+(?P<query>.+?)[\s.]*Please strictly output\b", re.DOTALL)
_LAT_SPAN = re.compile(r"(\d+):(\d+)\s*-\s*(\d+):(\d+)")


@dataclass(frozen=True, slots=True)
class Query:
    """What a row asks about its sound. `reference`: the times as the row writes them; `question`: all that it says."""

    benchmark: str
    audio: str
    phrase: str
    evidence: tuple[Span, ...]
    question: str
    reference: str
    duration: Seconds | None = None

    @property
    def id(self) -> str:
        return id_of(self.audio, self.question)


def id_of(audio: str, question: str) -> str:
    """Of what is asked about a sound: rows have none. Its name, and a hash of the question."""
    digest = hashlib.sha256(question.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{Path(audio).stem}-{digest}"


def places_of(audio: str) -> tuple[str, ...]:
    """Where a sound may lie that its row names with or without a folder and a suffix."""
    named = audio if Path(audio).suffix else f"{audio}.wav"
    name = os.path.basename(named)
    return tuple(dict.fromkeys((os.path.normpath(named), f"audio/{name}", f"audios/{name}", name)))


# --- formats ---------------------------------------------------------------------------------------------


def lat_bench(row: Mapping[str, Any]) -> Iterator[Query]:
    """A conversation of ms-swift's, or a line of what its `infer` or the owner's lat-audio-infer.py writes."""
    messages, sounds = row.get("messages") or [], row.get("audios") or [row.get("audio_path")]
    if not isinstance(messages, list) or not isinstance(sounds, list) or len(sounds) != 1:
        raise RecordError("audios", f"must be a list with one sound, got {sounds!r:.60}", remedy=COPY)
    contents = [*map(_content, messages), "", ""]
    asked = str(row.get("query") or contents[0]).replace("<audio>", "").strip()
    reference = str(row.get("labels") or row.get("ground_truth") or contents[1])
    sound = _path_of(sounds[0])
    if not asked or sound is None:
        problem = f"must ask about a sound, got {asked!r:.60} about {sound!r:.60}"
        raise RecordError("messages", problem, remedy=COPY)
    spans = tuple(valid_spans(find_asked(reference)))
    wrapped = _WRAPPED.search(asked)
    phrase = wrapped["query"].strip() if wrapped else asked
    yield Query(LAT_BENCH, sound, phrase, _some(spans, "labels", reference), asked, reference)


def spotsound(row: Mapping[str, Any]) -> Iterator[Query]:
    """A caption and its intervals; the owner's files for training call those `answer`."""
    times = row.get("annotations") if row.get("annotations") is not None else row.get("answer")
    phrase, sound = row.get("caption"), row.get("audio_path")
    if not isinstance(phrase, str) or not phrase.strip() or not isinstance(sound, str) or not sound:
        raise RecordError("caption", f"must be text about a sound, got {phrase!r:.60} about {sound!r:.60}")
    spans = _some(spans_of(times), "annotations", times)
    yield Query(SPOTSOUND, sound, phrase.strip(), spans, phrase, str(times), _seconds(row.get("duration")))


def aegbench(row: Mapping[str, Any]) -> Iterator[Query]:
    """All categories of a recording; one that has no interval is not asked, as nobody asks it who reports numbers."""
    categories, clips = row.get("categories"), row.get("clips")
    sound = row.get("audio_rel") or row.get("audio_path")
    if not isinstance(categories, list) or not isinstance(clips, list) or not isinstance(sound, str):
        raise RecordError("clips", "must be lists of categories and of clips about a sound")
    for category in dict.fromkeys(map(str, categories)):
        own = [clip for clip in clips if isinstance(clip, dict) and clip.get("category") == category]
        times = [[clip.get("start"), clip.get("end")] for clip in own]
        if times:
            duration = _seconds(row.get("duration"))
            yield Query(AEGBENCH, sound, category.strip(), spans_of(times), category, str(times), duration)


FORMATS: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Iterator[Query]]], ...] = (
    (("messages", "audios"), lat_bench),
    (("query", "ground_truth", "audio_path"), lat_bench),
    (("categories", "clips"), aegbench),
    (("caption", "audio_path"), spotsound),
)
"""What rows of a format have, and what reads them."""


def format_of_row(row: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Iterator[Query]] | None:
    """What reads the row; None where it is of none of these benchmarks."""
    return next((read for marks, read in FORMATS if all(mark in row for mark in marks)), None)


def flat_row(row: Row, *, joins: bool = False) -> Row:
    """A row of predictions with its query in plain columns (id, phrase, evidence, ...); any other row as it is.

    A row of several queries, and one that cannot be read, stays as it is: the questions' file says what was asked.
    Where such a file is given (`joins`), a row without an id has that of its sound and its query, caption or category.
    """
    read = format_of_row(row)
    texts = (row.get(name) for name in ("query", "caption", "category"))
    asked = next((text for text in texts if isinstance(text, str)), "")
    if joins and "id" not in row and asked and isinstance(row.get("audio_path"), str):
        row = {**row, "id": id_of(str(row["audio_path"]), asked.replace("<audio>", "").strip())}
    try:
        queries = [] if read is None else list(read(row))
    except RecordError:  # ms-swift writes answers to any question so: this one is joined by its sound
        sounds = row.get("audios")
        sound = _path_of(sounds[0]) if isinstance(sounds, list) and len(sounds) == 1 else None
        return row if "audio" in row or sound is None else {**row, "audio": sound}
    if len(queries) != 1:
        return row
    response = {"response": row["final_prediction"]} if "final_prediction" in row else {}
    told = ("answer", "labels", "messages", "query")
    kept = {name: value for name, value in row.items() if name not in told}
    return {**kept, **columns_of(queries[0]), **response}


def why_unread(row: Mapping[str, Any]) -> RecordError | None:
    """What is wrong with a row of these benchmarks; None where nothing is, and for any other row."""
    read = None if BENCHMARK in row else format_of_row(row)
    try:
        return None if read is None or list(read(row)) else RecordError(None, "asks nothing")
    except RecordError as error:
        return error


def columns_of(query: Query) -> Row:
    """A query in the columns that `tgsr import` reads."""
    return {
        "id": query.id,
        "audio": query.audio,
        "phrase": query.phrase,
        "question": query.question,
        "evidence": [[span.start, span.end] for span in query.evidence],
        "answer": query.reference,
        "split": query.benchmark,
        BENCHMARK: query.benchmark,
        **({} if query.duration is None else {"duration": query.duration}),
    }


def spans_of(times: object) -> tuple[Span, ...]:
    """Intervals as [[start, end], ...], one [start, end], or text of them; each end in seconds or m:ss.

    Raises RecordError for anything else, and for an interval that ends before it starts.
    """
    if isinstance(times, str):
        return tuple(valid_spans(find_asked(times)))
    pairs = times if isinstance(times, list | tuple) else []
    if len(pairs) == 2 and not any(isinstance(one, list | tuple | dict) for one in pairs):
        pairs = [pairs]
    spans = []
    for pair in pairs:
        ends = [pair.get("start"), pair.get("end")] if isinstance(pair, dict) else pair
        are_two = isinstance(ends, list | tuple) and len(ends) == 2
        start, end = map(_time, ends) if are_two else (math.nan, math.nan)
        if not 0 <= start < end < math.inf:
            raise RecordError("annotations", f"{pair!r:.60} is no interval in seconds")
        spans.append(Span(start, end))
    return tuple(spans)


def _time(value: object) -> float:
    return seconds_in(str(value)) if value is not None else math.nan


def _seconds(value: object) -> Seconds | None:
    seconds = _time(value)
    return seconds if 0 < seconds < math.inf else None


def _some(spans: tuple[Span, ...], field: str, written: object) -> tuple[Span, ...]:
    if not spans:
        raise RecordError(field, f"{written!r:.60} says no interval")
    return spans


def _path_of(sound: object) -> str | None:
    path = sound.get("path") if isinstance(sound, dict) else sound
    return path if isinstance(path, str) else None


def _content(message: object) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):  # parts, of which the sound is one
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


# --- the owners' rules -----------------------------------------------------------------------------------


def lat_iou(text: str, reference: str) -> float | None:
    """eval-TAG.py's IoU (alanshaoTT/LAT-Audio-Repo, 28 April 2026); None where it leaves the answer out of its means.

    Both are the first MM:SS - MM:SS of the text without square brackets, whole seconds; hours are not read, so that
    01:02:03 - 01:03:03 is taken for 02:03 - 01:03. An interval that ends before it starts has 0.
    """
    spans = [_LAT_SPAN.search(one.replace("[", "").replace("]", "")) for one in (text, reference)]
    if spans[0] is None or spans[1] is None:
        return None
    numbers = [map(int, span.groups()) for span in spans if span]
    (s1, e1), (s2, e2) = ((m * 60 + s, n * 60 + t) for m, s, n, t in numbers)
    if s1 >= e1 or s2 >= e2:
        return 0.0
    common = max(0, min(e1, e2) - max(s1, s2))
    return common / (e1 - s1 + e2 - s2 - common)


def whole_seconds(span: Span) -> str:
    """A span as LAT-Bench's script reads it: "[00:12 - 01:05]", to the nearest seconds."""
    ends = (divmod(round(end), 60) for end in (span.start, span.end))
    return f"[{' - '.join(f'{minutes:02d}:{seconds:02d}' for minutes, seconds in ends)}]"


OFFICIAL: Mapping[str, Callable[[str, str], float | None]] = {LAT_BENCH: lat_iou}
"""The IoU of a text with the reference as it is written, by the benchmarks whose script can be read."""


def official_iou_of(question: Question) -> Callable[[str, str], float | None] | None:
    """The rule of the question's owner; None where there is none."""
    names = question.labelled(BENCHMARK) if question.answer else ()
    return next((OFFICIAL[name] for name in names if name in OFFICIAL), None)

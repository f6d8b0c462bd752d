"""JSON with words and their times, as recognisers and aligners answer.

Whisper and what is built on it (openai, faster-whisper, whisper-timestamped, WhisperX, stable-ts, whisper.cpp,
transformers' pipeline, OpenAI's API), NeMo, Vosk, Gentle, the Montreal Forced Aligner, YouTube's json3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from unicodedata import east_asian_width

from tgsr.data.alignments import tiers
from tgsr.data.alignments.captions import is_by_token
from tgsr.data.alignments.timed import (
    DECIMALS,
    Cue,
    Timed,
    UnknownFormat,
    completed,
    number,
    said,
    shared_out,
)
from tgsr.errors import AlignmentError
from tgsr.timeline import Seconds

WHISPER, WHISPERX, WHISPER_TIMESTAMPED = "whisper", "whisperx", "whisper-timestamped"
REMEDY = "give a recogniser's JSON with times for words, such as WhisperX's or whisper-timestamped's"
CONFIDENCES = ("probability", "score", "confidence", "conf")
MS: Seconds = 0.001

Row = dict[str, object]
Times = tuple[Seconds | None, Seconds | None]


def json_words(text: str) -> Iterator[Timed]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        remedy = "it may be half-written: write it again"
        raise AlignmentError(f"is not JSON ({error.msg})", remedy, error.lineno) from None
    except (ValueError, RecursionError) as error:  # a number of 4,300 digits; brackets a thousand deep
        raise AlignmentError(f"is not JSON ({error})", "write it again") from None
    rows = list(_rows(document))
    if not rows and _has_text(document):
        raise AlignmentError("has text, but no words with times", "run the recogniser with times for words")
    return iter(rows)


def _rows(document: object) -> Iterable[Timed]:
    if not isinstance(document, dict):
        return _of_list(document)
    for layout in LAYOUTS:
        if (rows := layout(document)) is not None:
            return rows
    raise UnknownFormat('has no list "segments"', REMEDY)


def _has_text(value: object) -> bool:
    if isinstance(value, dict):
        said = any(isinstance(text := value.get(key), str) and text.strip() for key in ("text", "transcript"))
        return said or any(map(_has_text, value.values()))
    return isinstance(value, list) and any(map(_has_text, value))


# Documents. Each layout gives the rows of a document that is one of its kind, and None for any other.


def _segments(document: Row) -> Iterable[Timed] | None:
    """Whisper's and its relatives'; words on top where the segments have none, as in verbose_json."""
    segments, words = document.get("segments"), document.get("words")
    if not isinstance(segments, list):
        return None
    rows = _objects(segments, "segment")
    if isinstance(words, list) and words and not any(row.get("words") for _, row in rows):
        return completed(_words(_objects(words, "word"), WHISPER), _text(document))
    return _of_segments(rows)


def _of_segments(segments: Sequence[tuple[str, Row]]) -> Iterable[Timed]:
    """Each segment's words, with its speaker where they have none. Without any words, segments are cues."""
    said: list[tuple[list[tuple[str, Row]], str]] = []
    wordless: list[Cue] = []
    for where, segment in segments:
        words, text, speaker = segment.get("words"), _text(segment), segment.get("speaker")
        if words is not None and not isinstance(words, list):
            raise AlignmentError(f'{where} has no list "words"', "run the recogniser with times for words")
        words = [_segment_of(word) if isinstance(word, list) else word for word in words or ()]
        places = [(at, {"speaker": speaker, **word}) for at, word in _objects(words, f"{where}, word")]
        if not words and text is not None:
            wordless.append(_cue(WHISPER, text, _span(segment, where), where, speaker))
            # where other segments have words, this one's have no times
            places = [(where, {"word": word, "text": word, "speaker": speaker}) for word in text.split()]
        said.append((places, text or ""))
    if len(wordless) == len(segments):
        return shared_out(wordless)
    source = _source_of(chain.from_iterable(places for places, _ in said))
    return chain.from_iterable(completed(_words(places, source), text) for places, text in said)


def _text(row: Row) -> str | None:
    return text if isinstance(text := row.get("text"), str) else None


def _on_top(document: Row) -> Iterable[Timed] | None:
    """A list of words: Gentle, NeMo, OpenAI's API, WhisperX; AssemblyAI, whose times are milliseconds."""
    words = document.get("words", document.get("word_segments"))
    if words is None and isinstance(timestamp := document.get("timestamp"), dict):
        words = timestamp.get("word")
    if not isinstance(words, list):
        return None
    rows = _objects(words, "word")
    if any("case" in row for _, row in rows):
        in_text = [(at, row) for at, row in rows if row.get("case") != "not-found-in-transcript"]
        return _words(in_text, "gentle")
    return completed(_words(rows, unit=MS if "audio_duration" in document else 1.0), _text(document))


def _whisper_cpp(document: Row) -> Iterable[Timed] | None:
    """whisper.cpp's, in milliseconds: tokens make words where they are there (-ojf), else each text is a cue."""
    if not isinstance(entries := document.get("transcription"), list):
        return None
    rows = _objects(entries, "transcription")
    if any(entry.get("tokens") for _, entry in rows):
        tokens = [_objects(entry.get("tokens") or [], f"{where}, token") for where, entry in rows]
    elif is_by_token([str(entry.get("text") or "") for _, entry in rows]):  # -ml 1
        tokens = [rows]
    else:
        return shared_out(
            [_cue("whisper.cpp", entry.get("text"), _offsets(entry, where), where) for where, entry in rows]
        )
    return chain.from_iterable(_pieced(list(map(_token, of_entry))) for of_entry in tokens)


def _token(token: tuple[str, Row]) -> Timed:
    """A token; one that is none of the text, such as [_BEG_] or <|en|>, is empty."""
    where, row = token
    text = re.sub(r"\[_.*\]|<\|.*\|>", "", str(row.get("text")))
    p = _number_of(row, ("p",), where)
    return Timed("whisper.cpp", text, *_offsets(row, where), None, None, p, where=f"{where}: ")


def _pieced(pieces: Sequence[Timed]) -> list[Timed]:
    """Words of their pieces: what does not begin with a blank goes on with what stands before it (" 10", ",000").

    Chinese and Japanese have no blanks.
    """
    words: list[Timed] = []
    for piece in pieces:
        if not piece.text:
            continue
        if not words or piece.text[0].isspace() or east_asian_width(piece.text[0]) == "W":
            words.append(piece)
            continue
        word, least = words[-1], [c for c in (words[-1].confidence, piece.confidence) if c is not None]
        text, confidence = word.text + piece.text, min(least, default=None)
        words[-1] = word._replace(text=text, end=piece.end, confidence=confidence)
    return words


def _offsets(row: Row, where: str) -> Times:
    offsets = row.get("offsets")
    return _span(offsets if isinstance(offsets, dict) else {}, where, ("from", "to"), MS)


def _pipeline(document: Row) -> Iterable[Timed] | None:
    """transformers': chunks with a timestamp each, words or utterances."""
    if not isinstance(chunks := document.get("chunks"), list):
        return None
    cues = []
    for where, chunk in _objects(chunks, "chunk"):
        pair = chunk.get("timestamp")
        start, end = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
        cues.append(
            _cue("transformers", chunk.get("text"), _span({"start": start, "end": end}, where), where)
        )
    return shared_out(cues)


def _json3(document: Row) -> Iterable[Timed] | None:
    """YouTube's: segments of an event, which begin some milliseconds after it; a word lasts to the next one."""
    if not isinstance(events := document.get("events"), list):
        return None
    cues = []
    for where, event in _objects(events, "event"):
        begin, length = (_time(event, key, where, MS) or 0.0 for key in ("tStartMs", "dDurationMs"))
        for at, segment in _objects(event.get("segs") or [], f"{where}, segment"):
            text = segment.get("utf8")
            if isinstance(text, str) and text.strip():
                later = _time(segment, "tOffsetMs", at, MS) or 0.0
                span = (round(begin + later, DECIMALS), round(begin + length, DECIMALS))
                cues.append(_cue("youtube", text, span, at)._replace(is_exact=True))
    return shared_out(_one_by_one(cues))


def _vosk(document: Row) -> Iterable[Timed] | None:
    return (
        _words(_objects(result, "word"), "vosk")
        if isinstance(result := document.get("result"), list)
        else None
    )


def _montreal(document: Row) -> Iterable[Timed] | None:
    """The Montreal Forced Aligner's JSON: tiers with entries [start, end, label]."""
    if not isinstance(named := document.get("tiers"), dict):
        return None
    found = []
    for name, tier in named.items():
        entries = tier.get("entries") if isinstance(tier, dict) else None
        if not isinstance(entries, list) or not all(isinstance(e, list) and len(e) == 3 for e in entries):
            raise AlignmentError(f"tier {name!r} has no entries [start, end, label]", REMEDY)
        intervals = []
        for n, (start, end, label) in enumerate(entries, 1):
            span = _span({"start": start, "end": end}, f"tier {name!r}, entry {n}")
            intervals.append((*span, str(label), n))
        found.append(tiers.Tier(name, tiers.speaker_of(name), intervals))
    return tiers.timed("mfa", found)


LAYOUTS: tuple[Callable[[Row], Iterable[Timed] | None], ...] = (
    _segments,
    _on_top,
    _whisper_cpp,
    _pipeline,
    _json3,
    _vosk,
    _montreal,
)


def _of_list(document: object) -> Iterable[Timed]:
    """A list: of faster-whisper's segments, as objects or as lists; of words; of Vosk's results; of cues."""
    if not isinstance(document, list):
        raise UnknownFormat('has no list "segments"', REMEDY)
    if not document:
        return ()
    first = document[0]
    if isinstance(first, list) and first and isinstance(first[0], dict | list):
        return _of_list(first)  # (segments, info)
    if all(isinstance(row, list) for row in document):
        document = [_segment_of(row) for row in document]
    rows = _objects(document, "segment")
    if any("result" in row for _, row in rows):
        return chain.from_iterable(_vosk(row) or () for _, row in rows)
    if any("word" in row for _, row in rows):
        return _words(rows)
    if any("words" in row or ("text" in row and "end" in row) for _, row in rows):
        return _of_segments(rows)
    raise UnknownFormat('has no list "segments"', REMEDY)


def _segment_of(row: object) -> object:
    """A segment of faster-whisper, or a word, as JSON has its tuple: (..., start, end, text, ..., words)."""
    if not isinstance(row, list):
        raise UnknownFormat('has no list "segments"', REMEDY)
    texts = [n for n, value in enumerate(row) if isinstance(value, str)]
    words = [value for value in row if isinstance(value, list) and value and isinstance(value[0], list)]
    if len(row) == 4 and texts == [2]:
        return dict(zip(("start", "end", "word", "probability"), row, strict=True))
    if len(texts) != 1 or texts[0] < 2:
        raise UnknownFormat('has no list "segments"', REMEDY)
    times = {"start": row[texts[0] - 2], "end": row[texts[0] - 1], "text": row[texts[0]]}
    return {**times, "words": [_segment_of(word) for word in words[0]] if words else None}


def _one_by_one(cues: Sequence[Cue]) -> list[Cue]:
    """The cues without the time for which they still stand there when the next one comes."""
    single = []
    for cue, after in zip_longest(cues, cues[1:]):
        start, begins, end = cue.start, after.start if after else None, cue.end
        if start is not None and begins is not None and end is not None and start < begins < end:
            cue = cue._replace(end=begins)
        single.append(cue)
    return single


# Rows


def _objects(values: object, what: str) -> list[tuple[str, Row]]:
    """Where each object of a list is, and it."""
    if not isinstance(values, list):
        raise AlignmentError(
            f"has no list of {what.rpartition(', ')[2]}s" + (f" in {what}" if "," in what else ""), REMEDY
        )
    for n, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise AlignmentError(f"{what} {n} must be an object, got {value!r:.60}", "correct it")
    return [(f"{what} {n}", value) for n, value in enumerate(values, 1)]


def _source_of(rows: Iterable[tuple[str, Row]]) -> str:
    """Whose words they are, by the names that they give their values."""
    names = set(chain.from_iterable(row for _, row in rows))
    return WHISPER if "probability" in names else WHISPERX if "word" in names else WHISPER_TIMESTAMPED


def _words(rows: Sequence[tuple[str, Row]], source: str | None = None, unit: Seconds = 1.0) -> list[Timed]:
    """The words of these objects; where the first begins with a blank, what does not is only a piece of a word."""
    words = []
    source = source or _source_of(rows)
    for where, row in rows:
        text = row["word"] if row.get("word") is not None else row.get("text")
        if not isinstance(text, str):
            raise AlignmentError(f'{where}: "word" must be text, got {text!r:.60}', "correct it")
        speaker, confidence = _name(row.get("speaker")), _number_of(row, CONFIDENCES, where)
        span = _span(row, where, unit=unit)
        words.append(Timed(source, text, *span, None, speaker, confidence, where=f"{where}: "))
    return _pieced(words) if words and words[0].text[:1].isspace() else words


def _cue(source: str, text: object, span: Times, where: str, speaker: object = None) -> Cue:
    words = said(text if isinstance(text, str) else "", _name(speaker))
    return Cue(source, words, *span, None, where=f"{where}: ")


def _span(row: Row, where: str, names: tuple[str, str] = ("start", "end"), unit: Seconds = 1.0) -> Times:
    return _time(row, names[0], where, unit), _time(row, names[1], where, unit)


def _name(speaker: object) -> str | None:
    """A speaker's name; some are numbers."""
    if isinstance(speaker, int) and not isinstance(speaker, bool):
        return f"speaker {speaker}"
    return speaker if isinstance(speaker, str) and speaker.strip() else None


def _number_of(row: Row, names: Iterable[str], where: str) -> float | None:
    """The first of these numbers, also as a text; None where all are missing, or it is null, NaN or infinite."""
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        return None
    value = row[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and number(value) is not None):
        raise AlignmentError(f'{where}: "{name}" must be a number, got {value!r:.60}', "correct it")
    return number(str(value))


def _time(row: Row, name: str, where: str, unit: Seconds = 1.0) -> Seconds | None:
    time = _number_of(row, (name,), where)
    return None if time is None else time if unit == 1.0 else round(time * unit, DECIMALS)

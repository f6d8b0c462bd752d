"""JSON with words and their times, as recognisers and aligners answer.

Whisper and what is built on it (openai, faster-whisper, whisper-timestamped, WhisperX, stable-ts, whisper.cpp,
transformers' pipeline, OpenAI's API), NeMo, Vosk, Gentle, the Montreal Forced Aligner, YouTube's json3; and those of
`services`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, zip_longest

from tgsr.data.alignments import tiers
from tgsr.data.alignments.captions import is_by_token
from tgsr.data.alignments.json_rows import (
    MS,
    REMEDY,
    WHISPER,
    Row,
    Times,
    cue_of,
    number_of,
    objects_in,
    pieced,
    source_of,
    span_of,
    time_of,
    words_of,
)
from tgsr.data.alignments.services import SERVICES
from tgsr.data.alignments.timed import DECIMALS, Cue, Timed, UnknownFormat, completed, shared_out
from tgsr.errors import AlignmentError


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


# Documents


def _segments(document: Row) -> Iterable[Timed] | None:
    """Whisper's and its relatives'; words on top where the segments have none, as in verbose_json."""
    segments, words = document.get("segments"), document.get("words")
    if not isinstance(segments, list):
        return None
    rows = objects_in(segments, "segment")
    if isinstance(words, list) and words and not any(row.get("words") for _, row in rows):
        return completed(words_of(objects_in(words, "word"), WHISPER), _text(document))
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
        places = [(at, {"speaker": speaker, **word}) for at, word in objects_in(words, f"{where}, word")]
        if not words and text is not None:
            wordless.append(cue_of(WHISPER, text, span_of(segment, where), where, speaker))
            # where other segments have words, this one's have no times
            places = [(where, {"word": word, "text": word, "speaker": speaker}) for word in text.split()]
        said.append((places, text or ""))
    if len(wordless) == len(segments):
        return shared_out(wordless)
    source = source_of(chain.from_iterable(places for places, _ in said))
    return chain.from_iterable(completed(words_of(places, source), text) for places, text in said)


def _text(row: Row) -> str | None:
    return text if isinstance(text := row.get("text"), str) else None


def _on_top(document: Row) -> Iterable[Timed] | None:
    """A list of words: Gentle, NeMo, OpenAI's API, WhisperX; AssemblyAI, whose times are milliseconds."""
    words = document.get("words", document.get("word_segments"))
    if words is None and isinstance(timestamp := document.get("timestamp"), dict):
        words = timestamp.get("word")
    if not isinstance(words, list):
        return None
    rows = objects_in(words, "word")
    if any("case" in row for _, row in rows):
        in_text = [(at, row) for at, row in rows if row.get("case") != "not-found-in-transcript"]
        return words_of(in_text, "gentle")
    return completed(words_of(rows, unit=MS if "audio_duration" in document else 1.0), _text(document))


def _whisper_cpp(document: Row) -> Iterable[Timed] | None:
    """whisper.cpp's, in milliseconds: tokens make words where they are there (-ojf), else each text is a cue."""
    if not isinstance(entries := document.get("transcription"), list):
        return None
    rows = objects_in(entries, "transcription")
    if any(entry.get("tokens") for _, entry in rows):
        tokens = [objects_in(entry.get("tokens") or [], f"{where}, token") for where, entry in rows]
    elif is_by_token([str(entry.get("text") or "") for _, entry in rows]):  # -ml 1
        tokens = [rows]
    else:
        cues = [(where, entry.get("text"), _offsets(entry, where)) for where, entry in rows]
        return shared_out([cue_of("whisper.cpp", text, span, where) for where, text, span in cues])
    return chain.from_iterable(pieced(list(map(_token, of_entry))) for of_entry in tokens)


def _token(token: tuple[str, Row]) -> Timed:
    """A token; one that is none of the text, such as [_BEG_] or <|en|>, is empty."""
    where, row = token
    text = re.sub(r"\[_.*\]|<\|.*\|>", "", str(row.get("text")))
    p = number_of(row, ("p",), where)
    return Timed("whisper.cpp", text, *_offsets(row, where), None, None, p, where=f"{where}: ")


def _offsets(row: Row, where: str) -> Times:
    offsets = row.get("offsets")
    return span_of(offsets if isinstance(offsets, dict) else {}, where, ("from", "to"), MS)


def _pipeline(document: Row) -> Iterable[Timed] | None:
    """transformers': chunks with a timestamp each, words or utterances."""
    if not isinstance(chunks := document.get("chunks"), list):
        return None
    cues = []
    for where, chunk in objects_in(chunks, "chunk"):
        pair = chunk.get("timestamp")
        start, end = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
        span = span_of({"start": start, "end": end}, where)
        cues.append(cue_of("transformers", chunk.get("text"), span, where))
    return shared_out(cues)


def _json3(document: Row) -> Iterable[Timed] | None:
    """YouTube's: segments of an event, which begin some milliseconds after it; a word lasts to the next one."""
    if not isinstance(events := document.get("events"), list):
        return None
    cues = []
    for where, event in objects_in(events, "event"):
        begin, length = (time_of(event, key, where, MS) or 0.0 for key in ("tStartMs", "dDurationMs"))
        for at, segment in objects_in(event.get("segs") or [], f"{where}, segment"):
            text = segment.get("utf8")
            if isinstance(text, str) and text.strip():
                later = time_of(segment, "tOffsetMs", at, MS) or 0.0
                span = (round(begin + later, DECIMALS), round(begin + length, DECIMALS))
                cues.append(cue_of("youtube", text, span, at)._replace(is_exact=True))
    return shared_out(_one_by_one(cues))


def _vosk(document: Row) -> Iterable[Timed] | None:
    result = document.get("result")
    return words_of(objects_in(result, "word"), "vosk") if isinstance(result, list) else None


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
            span = span_of({"start": start, "end": end}, f"tier {name!r}, entry {n}")
            intervals.append((*span, str(label), n))
        found.append(tiers.Tier(name, tiers.speaker_of(name), intervals))
    return tiers.timed("mfa", found)


LAYOUTS = (*SERVICES, _segments, _on_top, _whisper_cpp, _pipeline, _json3, _vosk, _montreal)


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
    rows = objects_in(document, "segment")
    if any("result" in row for _, row in rows):
        return chain.from_iterable(_vosk(row) or () for _, row in rows)
    if any("word" in row for _, row in rows):
        return words_of(rows)
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

"""JSON with words and their times, as recognisers and aligners answer.

Whisper and what is built on it (openai, faster-whisper, whisper-timestamped, WhisperX, stable-ts, whisper.cpp,
transformers' pipeline, OpenAI's API), NeMo, Vosk, Gentle, the Montreal Forced Aligner, YouTube's json3; the services
AWS Transcribe, AssemblyAI, Deepgram, ElevenLabs, Google, IBM, Rev AI and Speechmatics.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

from tgsr.data.alignments import tiers
from tgsr.data.alignments.captions import is_by_token
from tgsr.data.alignments.timed import DECIMALS, Cue, Timed, UnknownFormat, number, said, shared_out
from tgsr.errors import AlignmentError
from tgsr.timeline import Seconds

WHISPER, WHISPERX, WHISPER_TIMESTAMPED = "whisper", "whisperx", "whisper-timestamped"
REMEDY = "give a recogniser's JSON with times for words, such as WhisperX's or whisper-timestamped's"
SECONDS_OF = re.compile(r"(\d+(?:\.\d+)?)s?")

Row = dict[str, object]


class _Keys(NamedTuple):
    """Under which names a word has what; `unit` is what its times count, in seconds."""

    text: tuple[str, ...] = ("word", "text")
    start: tuple[str, ...] = ("start",)
    end: tuple[str, ...] = ("end",)
    confidence: tuple[str, ...] = ("probability", "score", "confidence", "conf")
    speaker: tuple[str, ...] = ("speaker", "speaker_id", "speaker_label", "speakerTag", "speakerLabel")
    unit: float = 1.0


PLAIN = _Keys()


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
        return _words(_objects(words, "word"), WHISPER)
    return _of_segments(rows)


def _of_segments(segments: Sequence[tuple[str, Row]]) -> Iterable[Timed]:
    """Each segment's words, with its speaker where they have none. Without any words, segments are cues."""
    places: list[tuple[str, Row]] = []
    wordless: list[Cue] = []
    for where, segment in segments:
        words, text, speaker = segment.get("words"), segment.get("text"), segment.get("speaker")
        if words is not None and not isinstance(words, list):
            raise AlignmentError(f'{where} has no list "words"', "run the recogniser with times for words")
        words = [_segment_of(word) if isinstance(word, list) else word for word in words or ()]
        if not words and isinstance(text, str):
            wordless.append(_cue(WHISPER, text, _span(segment, where), where, speaker))
            # where other segments have words, this one's have no times
            places += [(where, {"word": word, "text": word, "speaker": speaker}) for word in text.split()]
        places += [(at, {"speaker": speaker, **word}) for at, word in _objects(words, f"{where}, word")]
    return shared_out(wordless) if len(wordless) == len(segments) else _words(places)


def _on_top(document: Row) -> Iterable[Timed] | None:
    """A list of words: Gentle, AssemblyAI (whose times are milliseconds), ElevenLabs, NeMo, OpenAI's API, WhisperX."""
    words = document.get("words", document.get("word_segments"))
    if words is None and isinstance(timestamp := document.get("timestamp"), dict):
        words = timestamp.get("word")
    if not isinstance(words, list):
        return None
    rows = _objects(words, "word")
    if "acoustic_model" in document or "audio_duration" in document or "audio_url" in document:
        return _words(rows, "assemblyai", PLAIN._replace(unit=0.001))
    if any("case" in row for _, row in rows):
        return _words(
            [(at, row) for at, row in rows if row.get("case") != "not-found-in-transcript"], "gentle"
        )
    if any("type" in row for _, row in rows):
        spoken = [
            (at, row if row["type"] == "word" else {**row, "text": f"[{row.get('text')}]"})
            for at, row in rows
            if row.get("type") != "spacing"
        ]
        return _words(spoken, "elevenlabs", PLAIN._replace(confidence=()))
    return _words(rows)


def _of_services(document: Row) -> Iterable[Timed] | None:
    results = document.get("results")
    if isinstance(results, dict) and isinstance(results.get("channels"), list):
        return _deepgram(results["channels"])
    if isinstance(results, dict) and isinstance(results.get("items"), list):
        return _best(
            _objects(results["items"], "item"), "aws-transcribe", "pronunciation", ("start_time", "end_time")
        )
    if isinstance(results, list) and any(isinstance(row, dict) and "start_time" in row for row in results):
        return _best(_objects(results, "result"), "speechmatics", "word", ("start_time", "end_time"))
    if isinstance(results, list):
        return _google(_objects(results, "result"))
    if isinstance(monologues := document.get("monologues"), list):
        keys = _Keys(("value",), ("ts",), ("end_ts",))
        rows = [
            (at, {"speaker": monologue.get("speaker"), **element})
            for where, monologue in _objects(monologues, "monologue")
            for at, element in _objects(monologue.get("elements"), f"{where}, element")
            if element.get("type") != "punct"
        ]
        return _words(rows, "rev", keys)
    return None


def _deepgram(channels: list[object]) -> Iterator[Timed]:
    for n, (where, channel) in enumerate(_objects(channels, "channel")):
        alternatives = _objects(channel.get("alternatives"), f"{where}, alternative")
        words = _objects(alternatives[0][1].get("words"), f"{where}, word") if alternatives else []
        speaker = f"channel {n}" if len(channels) > 1 else None
        rows = [(at, {"speaker": speaker, **word}) for at, word in words]
        yield from _words(rows, "deepgram", PLAIN._replace(text=("punctuated_word", "word")))


def _best(
    items: Sequence[tuple[str, Row]], source: str, spoken: str, times: tuple[str, str]
) -> Iterator[Timed]:
    """Items of which each has alternatives, the best one first; punctuation is no item of its own."""
    rows = []
    for where, item in items:
        if item.get("type") == spoken:
            alternatives = _objects(item.get("alternatives"), f"{where}, alternative")
            best = alternatives[0][1] if alternatives else {}
            rows.append((where, {**best, **item}))
    return _words(rows, source, _Keys(("content",), times[:1], times[1:]))


def _google(results: Sequence[tuple[str, Row]]) -> Iterator[Timed]:
    """The best alternative of each result. Where words name speakers, the last result has all of them once more."""
    rows = []
    for where, result in results:
        alternatives = _objects(result.get("alternatives", []), f"{where}, alternative")
        best = alternatives[0][1] if alternatives else {}
        if isinstance(timestamps := best.get("timestamps"), list):  # IBM Watson's [word, start, end]
            rows += [
                (where, dict(zip(("word", "startTime", "endTime"), one, strict=False))) for one in timestamps
            ]
        words = _objects(best.get("words", []), f"{where}, word")
        rows += [(at, {"startTime": "0s", **word} if "endTime" in word else word) for at, word in words]
    tagged = [(at, row) for at, row in rows if row.get("speakerTag") or row.get("speakerLabel")]
    keys = _Keys(("word",), ("startTime", "startOffset"), ("endTime", "endOffset"))
    return _words(tagged or rows, "google-speech", keys)


class _Piece(NamedTuple):
    """A token of whisper.cpp's, or the tokens of a word; `p` is the least of their probabilities."""

    text: str
    start: Seconds | None
    end: Seconds | None
    p: float | None
    where: str


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
        cues = (
            _cue("whisper.cpp", entry.get("text"), _offsets(entry, where), where) for where, entry in rows
        )
        return shared_out(list(cues))
    words: list[_Piece] = []
    for of_entry in tokens:
        begins = True
        for at, token in of_entry:
            text = str(token.get("text"))
            if re.fullmatch(r"\[_.*\]|<\|.*\|>", text):
                continue
            piece = _Piece(text, *_offsets(token, at), _number_of(token, ("p",), at), f"{at}: ")
            if begins or text.startswith(" "):
                words.append(piece)
            else:
                word = words.pop()
                p = None if piece.p is None or word.p is None else min(piece.p, word.p)
                words.append(_Piece(word.text + text, word.start, piece.end, p, word.where))
            begins = False
    return (Timed("whisper.cpp", w.text, w.start, w.end, None, None, w.p, where=w.where) for w in words)


def _offsets(row: Row, where: str) -> tuple[Seconds | None, Seconds | None]:
    offsets = row.get("offsets")
    return _span(
        offsets if isinstance(offsets, dict) else {}, where, _Keys(start=("from",), end=("to",), unit=0.001)
    )


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
        begin, length = (_time(event, (key,), where, 0.001) or 0.0 for key in ("tStartMs", "dDurationMs"))
        for at, segment in _objects(event.get("segs") or [], f"{where}, segment"):
            text = segment.get("utf8")
            if isinstance(text, str) and text.strip():
                later = _time(segment, ("tOffsetMs",), at, 0.001) or 0.0
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
            row, where = {"start": start, "end": end}, f"tier {name!r}, entry {n}: "
            intervals.append(
                (_time(row, ("start",), where, 1.0), _time(row, ("end",), where, 1.0), str(label), n)
            )
        found.append(tiers.Tier(name, tiers.speaker_of(name), intervals))
    return tiers.timed("mfa", found)


LAYOUTS: tuple[Callable[[Row], Iterable[Timed] | None], ...] = (
    _segments,
    _on_top,
    _of_services,
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
    if all("duration" in row and "text" in row for _, row in rows):
        return _transcript_api(rows)
    if any("word" in row for _, row in rows):
        return _words(rows)
    if any("words" in row or ("text" in row and "end" in row) for _, row in rows):
        return _of_segments(rows)
    raise UnknownFormat('has no list "segments"', REMEDY)


def _segment_of(row: list[object]) -> object:
    """A segment of faster-whisper, or a word, as JSON has its tuple: (..., start, end, text, ..., words)."""
    texts = [n for n, value in enumerate(row) if isinstance(value, str)]
    words = [value for value in row if isinstance(value, list) and value and isinstance(value[0], list)]
    if len(row) == 4 and texts == [2]:
        return dict(zip(("start", "end", "word", "probability"), row, strict=True))
    if len(texts) != 1 or texts[0] < 2:
        raise UnknownFormat('has no list "segments"', REMEDY)
    times = {"start": row[texts[0] - 2], "end": row[texts[0] - 1], "text": row[texts[0]]}
    return {**times, "words": [_segment_of(word) for word in words[0]] if words else None}


def _transcript_api(rows: Sequence[tuple[str, Row]]) -> Iterator[Timed]:
    """youtube-transcript-api's cues."""
    cues = []
    for where, row in rows:
        start, length = (_time(row, (key,), where, 1.0) for key in ("start", "duration"))
        end = None if start is None or length is None else round(start + length, DECIMALS)
        cues.append(_cue("youtube", row.get("text"), (start, end), where))
    return shared_out(_one_by_one(cues))


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


def _words(
    rows: Sequence[tuple[str, Row]], source: str | None = None, keys: _Keys = PLAIN
) -> Iterator[Timed]:
    """The words of these objects. Whose they are, where nobody says so, their names tell."""
    if source is None:
        names = set(chain.from_iterable(row for _, row in rows))
        source = WHISPER if "probability" in names else WHISPERX if "word" in names else WHISPER_TIMESTAMPED
    for where, row in rows:
        where = f"{where}: "
        word = _first(row, keys.text)
        if not isinstance(word, str):
            raise AlignmentError(f'{where}"{keys.text[0]}" must be text, got {word!r:.60}', "correct it")
        start, end = _span(row, where.rstrip(": "), keys)
        speaker, confidence = _name(_first(row, keys.speaker)), _number_of(row, keys.confidence, where)
        yield Timed(source, word, start, end, None, speaker, confidence, where=where)


def _cue(
    source: str, text: object, span: tuple[Seconds | None, Seconds | None], where: str, speaker: object = None
) -> Cue:
    return Cue(
        source, said(text if isinstance(text, str) else "", _name(speaker)), *span, None, where=f"{where}: "
    )


def _span(row: Row, where: str, keys: _Keys = PLAIN) -> tuple[Seconds | None, Seconds | None]:
    return _time(row, keys.start, f"{where}: ", keys.unit), _time(row, keys.end, f"{where}: ", keys.unit)


def _first(row: Row, names: Iterable[str]) -> object:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _name(speaker: object) -> str | None:
    """A speaker's name; services number them."""
    if isinstance(speaker, int) and not isinstance(speaker, bool):
        return f"speaker {speaker}"
    return speaker if isinstance(speaker, str) and speaker.strip() else None


def _number_of(row: Row, names: Iterable[str], where: str) -> float | None:
    """A number; None where it is missing, null, NaN or infinite. Services write numbers as texts."""
    value = _first(row, names)
    if isinstance(value, str) and (written := number(value)) is not None:
        return written
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        name = next(name for name in names if row.get(name) is not None)
        raise AlignmentError(f'{where}"{name}" must be a number, got {value!r:.60}', "correct it")
    return number(str(value))


def _time(row: Row, names: Sequence[str], where: str, unit: float) -> Seconds | None:
    """Seconds; Google writes "1.300s", or {"seconds": 1, "nanos": 300000000}."""
    value = _first(row, names)
    if isinstance(value, str) and (match := SECONDS_OF.fullmatch(value)):
        value = float(match[1])
    if isinstance(value, dict) and set(value) <= {"seconds", "nanos"}:
        value = float(value.get("seconds", 0)) + float(value.get("nanos", 0)) / 1e9
    time = _number_of({names[0]: value}, names[:1], where)
    return None if time is None else time if unit == 1.0 else round(time * unit, DECIMALS)

"""Objects of a recogniser's JSON as words: their texts, times, speakers and confidences, and where each stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from unicodedata import east_asian_width

from tgsr.data.alignments.timed import DECIMALS, Cue, Timed, number, said
from tgsr.errors import AlignmentError
from tgsr.timeline import Seconds

WHISPER, WHISPERX, WHISPER_TIMESTAMPED = "whisper", "whisperx", "whisper-timestamped"
REMEDY = "give a recogniser's JSON with times for words, such as WhisperX's or whisper-timestamped's"
MS: Seconds = 0.001
CONFIDENCES = ("probability", "score", "confidence", "conf")

Row = dict[str, object]
Layout = Callable[[Row], Iterable[Timed] | None]
"""The words, or cues shared out, of a document that is one of a kind; None for any other."""
Times = tuple[Seconds | None, Seconds | None]


def pieced(pieces: Sequence[Timed]) -> list[Timed]:
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


def objects_in(values: object, what: str) -> list[tuple[str, Row]]:
    """Where each object of a list is, and it."""
    if not isinstance(values, list):
        inside = f" in {what}" if "," in what else ""
        raise AlignmentError(f"has no list of {what.rpartition(', ')[2]}s{inside}", REMEDY)
    for n, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise AlignmentError(f"{what} {n} must be an object, got {value!r:.60}", "correct it")
    return [(f"{what} {n}", value) for n, value in enumerate(values, 1)]


def source_of(rows: Iterable[tuple[str, Row]]) -> str:
    """Whose words they are, by the names that they give their values."""
    names = set(chain.from_iterable(row for _, row in rows))
    return WHISPER if "probability" in names else WHISPERX if "word" in names else WHISPER_TIMESTAMPED


def words_of(rows: Sequence[tuple[str, Row]], source: str | None = None, unit: Seconds = 1.0) -> list[Timed]:
    """The words of these objects; where the first begins with a blank, what does not is only a piece of a word."""
    words = []
    source = source or source_of(rows)
    for where, row in rows:
        text = row["word"] if row.get("word") is not None else row.get("text")
        if not isinstance(text, str):
            raise AlignmentError(f'{where}: "word" must be text, got {text!r:.60}', "correct it")
        speaker, confidence = name_of(row.get("speaker")), number_of(row, CONFIDENCES, where)
        span = span_of(row, where, unit=unit)
        words.append(Timed(source, text, *span, None, speaker, confidence, where=f"{where}: "))
    return pieced(words) if words and words[0].text[:1].isspace() else words


def cue_of(source: str, text: object, span: Times, where: str, speaker: object = None) -> Cue:
    words = said(text if isinstance(text, str) else "", name_of(speaker))
    return Cue(source, words, *span, None, where=f"{where}: ")


def span_of(row: Row, where: str, names: tuple[str, str] = ("start", "end"), unit: Seconds = 1.0) -> Times:
    return time_of(row, names[0], where, unit), time_of(row, names[1], where, unit)


def name_of(speaker: object) -> str | None:
    """A speaker's name; some are numbers."""
    if isinstance(speaker, int) and not isinstance(speaker, bool):
        return f"speaker {speaker}"
    return speaker if isinstance(speaker, str) and speaker.strip() else None


def number_of(row: Row, names: Iterable[str], where: str) -> float | None:
    """The first of these numbers, also as a text; None where all are missing, or it is null, NaN or infinite."""
    name = next((name for name in names if row.get(name) is not None), None)
    if name is None:
        return None
    value = row[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and number(value) is not None):
        raise AlignmentError(f'{where}: "{name}" must be a number, got {value!r:.60}', "correct it")
    return number(str(value))


def time_of(row: Row, name: str, where: str, unit: Seconds = 1.0) -> Seconds | None:
    time = number_of(row, (name,), where)
    return None if time is None else time if unit == 1.0 else round(time * unit, DECIMALS)

"""Alignments that already exist, as words: what aligners, recognisers and captions wrote, read as it stands.

Words come in the file's order and with its times; `tgsr.data.transcribe.repair` puts right what clips cannot hold.
"""

from __future__ import annotations

import codecs
import html
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from tgsr.errors import AlignmentError
from tgsr.timeline import Seconds, Word

TEXTGRID, CTM, LIBRISPEECH = "textgrid", "ctm", "librispeech-alignments"
WHISPERX, WHISPER_TIMESTAMPED, WHISPER = "whisperx", "whisper-timestamped", "whisper"
SRT, VTT = "srt", "vtt"

NO_WORDS = ("", "sil", "sp", "<eps>", "<p:>", "[*]")  # silences; [*] is whisper-timestamped's hesitation
WORD_TIERS = ("words", "word", "ort-mau", "ort")  # the first of them that a TextGrid has
SOUND_TIERS = ("phones", "phone", "mau", "kan-mau", "kan")  # WebMAUS's MAU holds phones
DECIMALS = 6  # 0.1 + 0.2 s is not quite 0.3 s

log = logging.getLogger(__name__)


def read_alignment(path: Path) -> dict[str, tuple[Word, ...]]:
    """The words of every recording in a file, by the recording's name: "" where the file names none.

    The format is told from what the file says and, failing that, from its suffix; each word's `source` names it:

    - textgrid: Praat's, long or short; the tier "words", "word", "ORT-MAU" or "ORT", all tiers "SPEAKER - words"
      of the Montreal Forced Aligner, else the first interval tier that does not hold phones.
    - ctm: `file channel start duration word [confidence]`; where a recording has several channels, they are its
      speakers.
    - librispeech-alignments: `id ",WORD,WORD," "end,end,end"`, an empty word being a silence.
    - whisperx, whisper-timestamped, whisper: JSON with segments[].words[].
    - srt, vtt: a cue's time is shared out over its words by their number of characters: a guess, so confidence 0.0.
      VTT's times between words are used as they are. <v NAME> and NAME: (in capitals, or "Speaker 1") tell the
      speaker for the rest of the cue; [sounds] in brackets are no words.

    Silences are left out. Words without times or without length are left out too, with a warning that counts them;
    a confidence outside [0, 1] is None. A file that holds no words gives () for its recording.
    Raises AlignmentError for a file that is empty, binary, half-written or in another format, and for times that run
    backwards or begin before 0 s; OSError where it cannot be read.
    """
    try:
        text = _text(path.read_bytes())
        reader = _reader(text, path.suffix.casefold())
        words, n_left_out = _kept(reader(text))
    except AlignmentError as error:
        raise AlignmentError(error.problem, error.remedy, error.line, str(path)) from None
    if n_left_out:
        log.warning("%s: %d words have no time or no length and are left out", path, n_left_out)
    return words if words or reader in (_ctm, _librispeech) else {"": ()}


class _Timed(NamedTuple):
    """A word, or a silence, as a file has it; `where` is its place in a file without lines."""

    source: str
    text: str
    start: Seconds | None
    end: Seconds | None
    line: int | None
    speaker: str | None = None
    confidence: float | None = None
    recording: str = ""
    where: str = ""


_Reader = Callable[[str], Iterator[_Timed]]


def _kept(rows: Iterable[_Timed]) -> tuple[dict[str, tuple[Word, ...]], int]:
    """The words by recording, and how many others had no time or no length."""
    words: dict[str, list[Word]] = {}
    n_left_out = 0
    for source, text, start, end, line, speaker, confidence, recording, where in rows:
        of_recording = words.setdefault(recording, [])
        text = " ".join(text.split())
        if text.casefold() in NO_WORDS:
            continue
        if start is None or end is None or 0 <= start == end:
            n_left_out += 1
            continue
        if not 0 <= start < end < math.inf:
            problem = f"{where}{text!r} must have 0 <= start <= end, got {start:g} s to {end:g} s"
            raise AlignmentError(problem, "correct its times", line)
        if confidence is not None and not 0 <= confidence <= 1:  # NaN too
            confidence = None
        of_recording.append(Word(text, start, end, speaker, source, confidence))
    return {recording: tuple(of_recording) for recording, of_recording in words.items()}, n_left_out


def _text(content: bytes) -> str:
    """The file's text, its lines ending in \\n. UTF-8, or UTF-16 with a byte order mark."""
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        byte, line = content[error.start], content.count(b"\n", 0, error.start) + 1
        problem = f"byte {byte:#04x} is not {error.encoding}"
        raise AlignmentError(problem, "save it as UTF-8 text", line) from None
    if "\0" in text:
        raise AlignmentError("is binary", 'save it as text (in Praat: "Save as text file...")')
    if not text.strip():
        raise AlignmentError("is empty", "write the alignment again, or leave the file out")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _reader(text: str, suffix: str) -> _Reader:
    start = text.lstrip()
    if re.match(r'(File type\s*=\s*)?"ooTextFile', start):
        return _textgrid
    if start.startswith("WEBVTT"):
        return _vtt
    if start.startswith(("{", "[")):
        return _json
    by_suffix = {".textgrid": _textgrid, ".ctm": _ctm, ".json": _json, ".srt": _srt, ".vtt": _vtt}
    if suffix in by_suffix:
        return by_suffix[suffix]
    line = next((line for line in text.split("\n") if line.strip() and not line.startswith(";;")), "")
    if LIBRISPEECH_LINE.fullmatch(line):
        return _librispeech
    if CTM_LINE.fullmatch(line):
        return _ctm
    if any(TIMING.fullmatch(line) for line in start.split("\n", 2)[:2]):
        return _srt
    remedy = "give a TextGrid, CTM, LibriSpeech alignment, WhisperX's or Whisper's JSON, SRT or WebVTT"
    raise AlignmentError(f"is no alignment that is known: {line:.60}", remedy)


def _number(text: str) -> float | None:
    """The finite number that the text is; None where it is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


# Praat TextGrid. Its labels ("xmin =", "item [1]:") are comments: only free-standing strings and numbers count.

TOKEN = re.compile(
    r'"(?P<string>[^"]*(?:""[^"]*)*)"(?!")'
    r"|(?P<number>[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)s?(?!\S)"
    r"|![^\n]*|\S+"
)


class _Tier(NamedTuple):
    name: str
    speaker: str | None
    kind: str  # what follows the speaker in "ann - words"
    intervals: list[tuple[Seconds, Seconds, str, int]]  # start, end, text, line


class _Tokens:
    """A TextGrid's strings and numbers in turn. AlignmentError where the other kind, or nothing, follows."""

    def __init__(self, text: str) -> None:
        self._tokens = TOKEN.finditer(text)
        self._text, self._offset, self.line = text, 0, 1

    def string(self, what: str) -> str:
        return self._next("string", what).replace('""', '"')

    def number(self, what: str) -> float:
        number = _number(found := self._next("number", what))
        if number is None:
            raise AlignmentError(f"{what} is {found:.60}", "save it anew in Praat", self.line)
        return number

    def _next(self, kind: str, what: str) -> str:
        for token in self._tokens:
            if token.lastgroup is None:
                continue
            self.line += self._text.count("\n", self._offset, token.start())
            self._offset = token.start()
            if token.lastgroup != kind:
                problem = f"{what} expected, got {token[0]:.60}"
                raise AlignmentError(problem, "save it anew in Praat", self.line)
            return str(token[kind])
        last = self._text.rstrip().count("\n") + 1
        raise AlignmentError(f"ends where {what} is expected", "it may be half-written: save it again", last)


def _textgrid(text: str) -> Iterator[_Timed]:
    tokens = _Tokens(text)
    file_type, object_class = tokens.string("a file type"), tokens.string("an object class")
    if not file_type.startswith("ooTextFile") or object_class != "TextGrid":
        raise AlignmentError(f"holds {file_type!r}, {object_class!r}", "save a TextGrid as text in Praat", 1)
    tokens.number("the start"), tokens.number("the end")
    tiers = tuple(_tiers(tokens, int(tokens.number("the number of tiers"))))
    for tier in _word_tiers(tiers):
        for start, end, label, line in tier.intervals:
            yield _Timed(TEXTGRID, label, start, end, line, tier.speaker)


def _tiers(tokens: _Tokens, n_tiers: int) -> Iterator[_Tier]:
    """The interval tiers; tiers of points are read over."""
    for _ in range(n_tiers):
        kind, name = tokens.string("a tier's class"), tokens.string("a tier's name")
        if kind not in ("IntervalTier", "TextTier"):
            raise AlignmentError(f"a tier's class is {kind!r}", "save it anew in Praat", tokens.line)
        tokens.number("a tier's start"), tokens.number("a tier's end")
        intervals = []
        for _ in range(int(tokens.number("a tier's size"))):
            start, line = tokens.number("a start"), tokens.line
            end = tokens.number("an end") if kind == "IntervalTier" else start
            intervals.append((start, end, tokens.string("a text"), line))
        if kind == "IntervalTier":
            speaker, _, of_what = name.rpartition(" - ")
            yield _Tier(name, speaker.strip() or None, of_what.strip().casefold(), intervals)


def _word_tiers(tiers: tuple[_Tier, ...]) -> list[_Tier]:
    """The tier of words, or one a speaker."""
    for kind in WORD_TIERS:
        if chosen := [tier for tier in tiers if tier.kind == kind]:
            return [tier for tier in chosen if tier.speaker] or chosen[:1]
    if chosen := [tier for tier in tiers if tier.kind not in SOUND_TIERS]:
        return chosen[:1]
    names = ", ".join(repr(tier.name) for tier in tiers) or "none"
    raise AlignmentError(f"has no interval tier of words (interval tiers: {names})", 'name one "words"')


# Lines of words: CTM, LibriSpeech alignments

CTM_LINE = re.compile(r"\s*\S+\s+\S+\s+-?[\d.]+\s+-?[\d.]+\s+\S+(\s+\S+)?\s*")
LIBRISPEECH_LINE = re.compile(r'\s*(\S+)\s+"([^"]*)"\s+"([^"]*)"\s*')


def _ctm(text: str) -> Iterator[_Timed]:
    remedy = "a line is `file channel start duration word [confidence]`, times in seconds"
    rows: list[tuple[int, list[str]]] = []
    channels: dict[str, set[str]] = {}
    for line, content in enumerate(text.split("\n"), 1):
        fields = content.split()
        if not fields or fields[0].startswith(";;"):
            continue
        if len(fields) not in (5, 6):
            raise AlignmentError(f"has {len(fields)} fields: {content:.60}", remedy, line)
        rows.append((line, fields))
        channels.setdefault(fields[0], set()).add(fields[1])
    for line, (recording, channel, first, length, word, *score) in rows:
        start, duration = _number(first), _number(length)
        if start is None or duration is None:
            raise AlignmentError(f"{first!r} or {length!r} of {word!r} is no number", remedy, line)
        end = round(start + duration, DECIMALS)
        speaker = channel if len(channels[recording]) > 1 else None
        confidence = _number(score[0]) if score else None
        yield _Timed(CTM, word, start, end, line, speaker, confidence, recording)


def _librispeech(text: str) -> Iterator[_Timed]:
    remedy = 'a line is `id ",WORD,WORD," "end,end,end"`, an end for each word and silence'
    recordings: set[str] = set()
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        parts = LIBRISPEECH_LINE.fullmatch(content)
        if parts is None:
            raise AlignmentError(f"is no alignment: {content:.60}", remedy, line)
        recording, words, ends = parts[1], parts[2].split(","), parts[3].split(",")
        if recording in recordings:
            raise AlignmentError(f"{recording!r} was there before", "drop one of the two", line)
        recordings.add(recording)
        if len(words) != len(ends):
            raise AlignmentError(f"{len(words)} words and silences but {len(ends)} ends", remedy, line)
        start = 0.0
        for word, value in zip(words, ends, strict=True):
            end = _number(value)
            if end is None:
                raise AlignmentError(f"end {value!r} of {word!r} is no number", remedy, line)
            yield _Timed(LIBRISPEECH, word, start, end, line, recording=recording)
            start = end


def librispeech_words(content: str) -> tuple[str, tuple[Word, ...]]:
    """Recording and words of one line. Raises AlignmentError, which names no file, where it is no such line."""
    (alignment,) = _kept(_librispeech(content))[0].items()
    return alignment


# JSON of WhisperX, whisper-timestamped and Whisper


def _json(text: str) -> Iterator[_Timed]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        remedy = "it may be half-written: write it again"
        raise AlignmentError(f"is not JSON ({error.msg})", remedy, error.lineno) from None
    except (ValueError, RecursionError) as error:  # a number of 4,300 digits; brackets a thousand deep
        raise AlignmentError(f"is not JSON ({error})", "write it again") from None
    rows = list(_json_words(document))
    if any("probability" in row for _, row in rows):
        source, text_key, confidence_key = WHISPER, "word", "probability"
    elif any("text" in row for _, row in rows):
        source, text_key, confidence_key = WHISPER_TIMESTAMPED, "text", "confidence"
    else:
        source, text_key, confidence_key = WHISPERX, "word", "score"
    for where, row in rows:
        word, speaker = row.get(text_key), row.get("speaker")
        if not isinstance(word, str):
            raise AlignmentError(f'{where}"{text_key}" must be text, got {word!r:.60}', "correct it")
        start, end, confidence = (_json_number(row, key, where) for key in ("start", "end", confidence_key))
        speaker = speaker if isinstance(speaker, str) else None
        yield _Timed(source, word, start, end, None, speaker, confidence, where=where)


def _json_words(document: object) -> Iterator[tuple[str, dict[str, object]]]:
    """Where each word is, and the word, with its segment's speaker where it has none of its own."""
    segments = document.get("segments") if isinstance(document, dict) else None
    if not isinstance(segments, list):
        remedy = "give WhisperX's, whisper-timestamped's or Whisper's JSON"
        raise AlignmentError('has no list "segments"', remedy)
    for n_segment, segment in enumerate(segments, 1):
        where = f"segment {n_segment}"
        if not isinstance(segment, dict):
            raise AlignmentError(f"{where} must be an object, got {segment!r:.60}", "correct it")
        words = segment.get("words")
        if words is None and not segment.get("text"):
            continue
        if not isinstance(words, list):
            raise AlignmentError(f'{where} has no list "words"', "run the recogniser with times for words")
        for n_word, word in enumerate(words, 1):
            place = f"{where}, word {n_word}"
            if not isinstance(word, dict):
                raise AlignmentError(f"{place} must be an object, got {word!r:.60}", "correct it")
            yield f"{place}: ", {"speaker": segment.get("speaker"), **word}


def _json_number(row: dict[str, object], key: str, where: str) -> float | None:
    """A number; None where it is missing, null, NaN or infinite."""
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AlignmentError(f'{where}"{key}" must be a number, got {value!r:.60}', "correct it")
    return _number(str(value))


# Captions: SRT and WebVTT

CLOCK = r"(?:\d{1,4}:)?\d{1,2}:\d{2}(?:[.,]\d+)?"
TIMING = re.compile(rf"\s*({CLOCK})\s*-->\s*({CLOCK})(?:\s.*)?")
INLINE = re.compile(rf"<({CLOCK})>")
VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]*)>")
SPLIT = re.compile(rf"(<{CLOCK}>|</?v(?:[.\s][^>]*)?>)")
MARKUP = re.compile(r"</?(?!v[.\s>])[A-Za-z][^>]*>|\{\\[^}]*\}")  # <i>, </c>, {\an8}
SOUND = re.compile(r"\[[^\]]*\](?!:)")
SPEAKER = re.compile(r"\s*(?:[-–—]|>>)?\s*\[?([^\W\d][^:\[\]]{0,39})\]?:(?:\s+|$)")
NUMBERED = re.compile(r"\s*speaker[ _-]?\w+\s*", re.IGNORECASE)
NO_LETTERS = re.compile(r"[-–—♪♫>*.…]+")
TIMING_REMEDY = "a cue's times are 00:00:01,000 --> 00:00:02,000"

_Stretch = tuple[Seconds, list[tuple[str, str | None]]]  # where it begins, its words with their speakers


def _captions(text: str, source: str) -> Iterator[_Timed]:
    """Every cue's words. Captions that roll show a line again in the next cue, then without its times: left out."""
    lines = text.split("\n")
    cues = [n for n, line in enumerate(lines) if "-->" in line]
    if not cues and not text.lstrip().startswith("WEBVTT"):
        raise AlignmentError("has no cue", TIMING_REMEDY)
    rolls = INLINE.search(text) is not None
    shown: set[str] = set()
    for n, following in pairwise([*cues, len(lines)]):
        times = TIMING.fullmatch(lines[n])
        if times is None:
            raise AlignmentError(f"times cannot be read: {lines[n]:.60}", TIMING_REMEDY, n + 1)
        body = lines[n + 1 : following]
        if source == VTT and "" in body:  # what follows the empty line is a note, or the next cue's name
            body = body[: body.index("")]
        elif following < len(lines) and body and body[-1].strip().isdigit():  # the next cue's number
            body.pop()
        shown_before, shown = shown, {_plain(line) for line in body}
        if rolls:
            body = [line for line in body if INLINE.search(line) or _plain(line) not in shown_before]
        yield from _shared_out(
            source, _stretches(body, _seconds(times[1]), source), _seconds(times[2]), n + 1
        )


_srt: _Reader = partial(_captions, source=SRT)
_vtt: _Reader = partial(_captions, source=VTT)


def _stretches(body: list[str], start: Seconds, source: str) -> list[_Stretch]:
    """A cue's words with their speakers, in stretches that begin at its start and at each time inside it."""
    stretches: list[_Stretch] = [(start, [])]
    speaker = None
    for line in body:
        may_name = True  # only a line's beginning names a speaker
        for piece in SPLIT.split(SOUND.sub(" ", MARKUP.sub("", line))):
            if inline := INLINE.fullmatch(piece):
                stretches.append((_seconds(inline[1]), []))
            elif SPLIT.fullmatch(piece):
                voice = VOICE.fullmatch(piece)
                speaker = html.unescape(voice[1]).strip() or None if voice else None
            elif piece.strip():
                piece = html.unescape(piece) if source == VTT else piece
                prefix = SPEAKER.match(piece) if may_name else None
                if prefix and (prefix[1].isupper() or NUMBERED.fullmatch(prefix[1])):
                    speaker, piece = prefix[1].strip(), piece[prefix.end() :]
                may_name = False
                stretches[-1][1].extend((w, speaker) for w in piece.split() if not NO_LETTERS.fullmatch(w))
    return stretches


def _shared_out(source: str, stretches: list[_Stretch], end: Seconds, line: int) -> Iterator[_Timed]:
    """Each stretch's time to its words by number of characters; one word between two times has them for its own."""
    ends = [*(start for start, _ in stretches[1:]), end]
    for (start, words), finish in zip(stretches, ends, strict=True):
        if finish < start:
            raise AlignmentError(
                f"times run backwards: {start:g} s to {finish:g} s", "correct the cue's times", line
            )
        confidence = None if len(stretches) > 1 and len(words) == 1 else 0.0
        bounds = [0, *accumulate(len(word) for word, _ in words)]
        times = [round(start + (finish - start) * n / max(1, bounds[-1]), DECIMALS) for n in bounds]
        for (word, speaker), (first, last) in zip(words, pairwise(times), strict=True):
            yield _Timed(source, word, first, last, line, speaker, confidence)


def _plain(line: str) -> str:
    return " ".join(MARKUP.sub("", INLINE.sub("", line)).split())


def _seconds(clock: str) -> Seconds:
    parts = clock.replace(",", ".").split(":")
    return round(sum(float(part) * 60**power for power, part in enumerate(reversed(parts))), DECIMALS)

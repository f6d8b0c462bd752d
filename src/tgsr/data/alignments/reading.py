"""Alignments that already exist: what aligners, recognisers and captions wrote, read as it stands.

Words come in the file's order and with its times; `tgsr.data.transcribe.repair` puts right what clips cannot hold.
"""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tgsr.data.alignments import captions, elan, lines, responses, subtitle_formats, tiers
from tgsr.data.alignments.alignment import Alignment, joined, kept
from tgsr.data.alignments.marks import kind
from tgsr.data.alignments.timed import Timed, UnknownFormat
from tgsr.errors import AlignmentError

Reader = Callable[[str], Iterator[Timed]]

BY_SUFFIX: dict[str, Reader] = {
    **{".textgrid": tiers.textgrid, ".ctm": lines.ctm, ".stm": lines.stm},
    **dict.fromkeys((".json", ".json3"), responses.json_words),
    **{".srt": captions.srt, ".vtt": captions.vtt},
    **dict.fromkeys((".ass", ".ssa"), subtitle_formats.ass),
    **{".sbv": subtitle_formats.sbv, ".lrc": subtitle_formats.lrc},
    **dict.fromkeys((".ttml", ".dfxp"), subtitle_formats.xml),
    ".eaf": elan.eaf,
}
OF_MANY = (lines.ctm, lines.stm, lines.librispeech)  # recordings, which they name

log = logging.getLogger(__name__)


# How a text begins that can be told by that, whatever its file's suffix.
BY_BEGINNING = (
    (re.compile(r'(File type\s*=\s*)?"ooTextFile'), tiers.textgrid),
    (re.compile(r"WEBVTT"), captions.vtt),
    (subtitle_formats.ASS_LINE, subtitle_formats.ass),
    (re.compile(r"(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<ANNOTATION_DOCUMENT", re.DOTALL), elan.eaf),
    (re.compile(r"<\?xml|<(?:\w+:)?tt\b|<transcript\b|<timedtext\b"), subtitle_formats.xml),
    (subtitle_formats.SBV_LINE, subtitle_formats.sbv),
    (subtitle_formats.LRC_LINE, subtitle_formats.lrc),
    (re.compile(rf"{lines.TABLE_LINE.pattern}$", re.MULTILINE), lines.table),
    (re.compile(r"[{]|\[\s*([\[{\]]|$)"), responses.json_words),
)
BY_LINES = (
    (lines.LABEL_LINE, lines.labels),
    (lines.LIBRISPEECH_LINE, lines.librispeech),
    (lines.CTM_LINE, lines.ctm),
    (lines.STM_LINE, lines.stm),
    (captions.TIMING, captions.srt),
)


def read_alignment(path: Path) -> dict[str, Alignment]:
    """The words of every recording in a file, by the recording's name: "" where the file names none.

    The format is told from what the file says and, failing that, from its suffix; each word's `source` names it. What
    is read of each: tiers.py (TextGrid), elan.py, lines.py (CTM, STM, LibriSpeech-alignments, labels, tables),
    responses.py and services.py (JSON), captions.py (SRT, WebVTT) and subtitle_formats.py. The time of a cue, or of
    an utterance, is shared out over its words by their number of characters: a guess, so confidence 0.0.

    Silences, sounds and other marks are no words (marks.py). A word without a time or length, or that ends before it
    starts, is missing, with a warning that counts them; a confidence outside [0, 1] is None. A file that holds no words
    gives an empty Alignment for its recording.
    Raises AlignmentError for a file that is empty, binary, half-written or in another format; OSError where it cannot
    be read.
    """
    try:
        text = _text(path.read_bytes())
        reader = _reader(text, path.suffix.casefold())
        rows = list(reader(text))
        bounds = tiers.bounds(text) if reader is tiers.textgrid else None
    except AlignmentError as error:
        raise type(error)(error.problem, error.remedy, error.line, str(path)) from None
    found = {} if reader in OF_MANY else {"": Alignment(bounds=bounds)}
    of_recording: dict[str, list[Timed]] = {}
    for row in rows:
        of_recording.setdefault(row.recording, []).append(row)
    n_left_out, first = 0, None
    for recording, its_rows in of_recording.items():
        alignment, n, first_of = kept(its_rows)
        found[recording] = Alignment(alignment.words, alignment.missing, bounds)
        n_left_out, first = n_left_out + n, first or first_of
    if first is not None:
        place = f"line {first.line}" if first.line else first.where.rstrip(": ")
        warning = "%s: %d words have no time or no length and leave holes; the first: %r, %s"
        log.warning(warning, path, n_left_out, first.text, place)
    return found


def plain_text(path: Path) -> str:
    """A text without times: a text file as it is, the words of subtitles, whether they have a time or none.

    AlignmentError as `read_alignment`, and where no word is there.
    """
    suffix = path.suffix.casefold()
    try:
        text = _text(path.read_bytes())
        is_shown = any(captions.TIMING.fullmatch(line) for line in text.split("\n"))  # subtitles, called .txt
        if is_shown or suffix in BY_SUFFIX:
            rows = _reader(text, ".srt" if is_shown else suffix)(text)
            text = " ".join(row.text for row in joined(rows) if kind(row.text) is None)
        if not any(character.isalnum() for character in text):
            raise AlignmentError("has no words", "give the text that is said")
    except AlignmentError as error:
        raise type(error)(error.problem, error.remedy, error.line, str(path)) from None
    return text


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


def _reader(text: str, suffix: str) -> Reader:
    start = text.lstrip()
    for pattern, reader in BY_BEGINNING:
        if pattern.match(start):
            return reader
    if suffix in BY_SUFFIX:
        return BY_SUFFIX[suffix]
    first = [line for line in text.split("\n") if line.strip() and not line.startswith(";;")][:2]
    for pattern, reader in BY_LINES:
        if any(pattern.fullmatch(line) for line in first[: 2 if reader is captions.srt else 1]):
            return reader
    remedy = "give a TextGrid, CTM, STM, ELAN's .eaf, a recogniser's JSON, SRT, WebVTT or other subtitles, or labels"
    raise UnknownFormat(f"is no alignment that is known: {first[0] if first else '':.60}", remedy)

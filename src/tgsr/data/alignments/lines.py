"""Alignments with a word or an utterance a line: CTM, STM, LibriSpeech alignments, tables, Audacity's labels."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tgsr.data.alignments.marks import kind
from tgsr.data.alignments.timed import DECIMALS, Cue, Timed, number, said, shared_out
from tgsr.errors import AlignmentError

CTM, STM, LIBRISPEECH, TABLE, LABELS = "ctm", "stm", "librispeech-alignments", "tsv", "labels"

CTM_LINE = re.compile(r"\s*\S+\s+\S+\s+-?[\d.]+\s+-?[\d.]+\s+\S+(\s+\S+){0,3}\s*")
STM_LINE = re.compile(r"\s*\S+\s+\S+\s+\S+\s+-?[\d.]+\s+-?[\d.]+(\s+.*)?")
LIBRISPEECH_LINE = re.compile(r'\s*(\S+)\s+"([^"]*)"\s+"([^"]*)"\s*')
LABEL_LINE = re.compile(r"-?\d+(?:[.,]\d+)?\t-?\d+(?:[.,]\d+)?(?:\t[^\t]*)?")
TABLE_LINE = re.compile(r"start\tend\t(?:text|word)(?:\t.*)?")
CTM_REMEDY = "a line is `file channel start duration word [confidence [type [speaker]]]`, times in seconds"
CTM_TYPES = {"lex", "frag", "fp", "un-lex", "for-lex", "non-lex", "misc", "noise", "na", "unknown"}
NO_SPEECH_TYPES = {"non-lex": "<noise>", "noise": "<noise>", "misc": "<unk>", "un-lex": "<unk>"}
NOBODY = {"unknown", "null", "na", "<na>", "-"}
# Kaldi's phones tell their place in the word, the Montreal Forced Aligner's their stress; tokens begin with a mark
NO_WORD = re.compile(r"\S+_[BIES]|[A-Z]{2}[012]|[▁Ġ]\S*")
STM_REMEDY = "a line is `file channel speaker start end [<label>] words`, times in seconds"


def _filled(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not blank."""
    return ((line, content) for line, content in enumerate(text.split("\n"), 1) if content.strip())


def _fields(text: str) -> Iterator[tuple[int, list[str], str]]:
    """Line number, fields and text of every line that is no comment."""
    rows = ((line, content.split(), content) for line, content in _filled(text))
    return (row for row in rows if not row[1][0].startswith(";;"))


def ctm(text: str) -> Iterator[Timed]:
    """Words; where a recording has several channels, they are its speakers."""
    rows = list(_fields(text))
    channels: dict[str, set[str]] = {}
    for line, fields, content in rows:
        typed = len(fields) in (7, 8) and fields[6].casefold() in CTM_TYPES
        if len(fields) not in (5, 6) and not typed:
            raise AlignmentError(f"has {len(fields)} fields: {content:.60}", CTM_REMEDY, line)
        channels.setdefault(fields[0], set()).add(fields[1])
    labels = [label for _, (_, _, _, _, label, *_), _ in rows if kind(label) is None]
    if 2 * sum(NO_WORD.fullmatch(label) is not None for label in labels) > len(labels):
        raise AlignmentError(f"holds phones or tokens: {' '.join(labels[:5])}", "give the CTM of words")
    is_alternative = False  # between <ALT_BEGIN> and <ALT_END>: one of several readings
    for line, (recording, channel, first, length, word, *more), _ in rows:
        confidence, type_, name = (*more, "", "", "")[:3]
        speaker = name if name and name.casefold() not in NOBODY else None
        if len(channels[recording]) > 1:
            speaker = speaker or channel
        if first == length == "*":
            is_alternative = word.casefold() != "<alt_end>"
            yield Timed(CTM, "<unk>", None, None, line, speaker, None, recording)
            continue
        start, duration = number(first), number(length)
        if confidence and confidence.casefold() not in NOBODY and not _is_number(confidence):
            problem = f"{confidence!r} of {word!r} is no confidence: a name may hold a blank"
            raise AlignmentError(problem, CTM_REMEDY, line)
        if start is None or duration is None:
            raise AlignmentError(f"{first!r} or {length!r} of {word!r} is no number", CTM_REMEDY, line)
        word = "<unk>" if is_alternative else NO_SPEECH_TYPES.get(type_.casefold(), word)
        end = round(start + duration, DECIMALS)
        yield Timed(CTM, word, start, end, line, speaker, number(confidence), recording)


def _is_number(text: str) -> bool:
    """Whether it says a number, NaN and infinity among them."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def stm(text: str) -> Iterator[Timed]:
    """Utterances; the words of each share its time. The speaker is the third field."""
    cues = []
    for line, fields, content in _fields(text):
        if len(fields) < 5:
            raise AlignmentError(f"has {len(fields)} fields: {content:.60}", STM_REMEDY, line)
        recording, _, speaker, first, last, *words = fields
        start, end = number(first), number(last)
        if start is None or end is None:
            raise AlignmentError(f"{first!r} or {last!r} is no number", STM_REMEDY, line)
        if words and words[0].startswith("<") and "," in words[0]:  # <o,f0,male>
            words = words[1:]
        if words[:1] == ["ignore_time_segment_in_scoring"]:
            words = ["<unk>"]
        cues.append(Cue(STM, said(" ".join(words), speaker), start, end, line, recording=recording))
    return shared_out(cues)


def librispeech(text: str) -> Iterator[Timed]:
    """The words of an utterance a line; an empty one is a silence."""
    remedy = 'a line is `id ",WORD,WORD," "end,end,end"`, an end for each word and silence'
    recordings: set[str] = set()
    for line, content in _filled(text):
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
            end = number(value)
            if end is None:
                raise AlignmentError(f"end {value!r} of {word!r} is no number", remedy, line)
            yield Timed(LIBRISPEECH, word, start, end, line, recording=recording)
            start = end


def labels(text: str) -> Iterator[Timed]:
    """Audacity's labels: `start, end, label` between tabs, in seconds; labels of several words are cues.

    Lines that begin with a backslash hold frequencies.
    """
    remedy = "a line is start, end and label with tabs between them (in Audacity: Export Labels)"
    cues = []
    for line, content in _filled(text):
        if content.startswith("\\"):
            continue
        if not LABEL_LINE.fullmatch(content):
            raise AlignmentError(f"is no label: {content:.60}", remedy, line)
        first, last, *label = content.split("\t")
        start, end = (number(time.replace(",", ".")) for time in (first, last))
        cues.append(Cue(LABELS, said("".join(label)), start, end, line))
    return shared_out(cues)


def table(text: str) -> Iterator[Timed]:
    """Columns between tabs: start, end, word, and speaker and confidence, in seconds; or Whisper's own start, end, text
    of a cue, in milliseconds.
    """
    columns = "start, end, word, speaker, confidence (seconds), or start, end, text (milliseconds)"
    (_, header), *rows = _filled(text)
    names = header.strip().split("\t")
    cues = []
    for line, content in rows:
        values = dict(zip(names, content.split("\t"), strict=False))
        start, end = number(values["start"]), number(values.get("end", ""))
        if start is None or end is None:
            raise AlignmentError(f"has no start and end: {content:.60}", f"its columns are {columns}", line)
        if "text" in values:
            cues.append(Cue(TABLE, said(values["text"]), start / 1000, end / 1000, line))
        else:
            sure, speaker = number(values.get("confidence", "")), values.get("speaker") or None
            yield Timed(TABLE, values.get("word", ""), start, end, line, speaker, sure)
    yield from shared_out(cues)

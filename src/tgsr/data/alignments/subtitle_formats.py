"""Subtitles that are neither SRT nor WebVTT: SubStation's ASS and SSA, YouTube's SBV and XML, TTML, lyrics (LRC).

Each is brought to the cues of `captions`: a time inside one stands as <0:00:01.200>, its speaker as <v NAME>.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from xml.etree import ElementTree

from tgsr.data.alignments.captions import Shown, read, seconds
from tgsr.data.alignments.timed import DECIMALS, Timed, number
from tgsr.errors import AlignmentError
from tgsr.timeline import Seconds

ASS, SBV, LRC, TTML, YOUTUBE = "ass", "sbv", "lrc", "ttml", "youtube"
_LAST_LINE: Seconds = 5.0  # a lyric's last line has no end: no longer than that

# --- SubStation ----------------------------------------------------------------------------------------------------

# a syllable's length in hundredths
_KARAOKE = re.compile(r"\{[^}]{0,200}?\\(?:k|K|kf|ko)(\d{1,6})[^}]{0,200}\}")
_NOBODY = "NTP"  # what some programs write for no name
_DRAWING = re.compile(r"\\p[1-9]")
ASS_LINE = re.compile(r"\[(?:Script Info|Events)\]", re.IGNORECASE)


def ass(text: str) -> Iterator[Timed]:
    """The Dialogue lines, in order of time; {\\k20} gives syllables times, a Name is the speaker."""
    fields = "layer start end style name marginl marginr marginv effect text".split()  # noqa: SIM905 - one line
    shown = []
    for n, line in enumerate(text.split("\n"), 1):
        key, _, value = line.partition(":")
        if key == "Format" and "text" in (names := [part.strip().casefold() for part in value.split(",")]):
            fields = names
        elif key == "Dialogue":
            row = dict(zip(fields, value.split(",", len(fields) - 1), strict=False))
            try:
                start, end = seconds(row["start"].strip()), seconds(row["end"].strip())
            except (KeyError, ValueError):
                problem = f"times cannot be read: {line:.60}"
                raise AlignmentError(problem, "a line's times are 0:00:01.20", n) from None
            if not _DRAWING.search(said := row.get("text", "")):
                lines = re.split(r"\\[Nn]", _sung(said, start).replace("\\h", " "))
                shown.append(Shown(start, end, tuple(_by(row.get("name", ""), lines)), n))
    return read(ASS, sorted(shown, key=lambda cue: cue.start))


def _sung(text: str, start: Seconds) -> str:
    """Karaoke's lengths as times: where a word begins with a syllable, the syllable's."""
    pieces, at = [], 0
    for match in _KARAOKE.finditer(text):
        pieces.append(text[at : match.start()])
        before, after = "".join(pieces), text[match.end() : match.end() + 1]
        if not before or before[-1].isspace() or before.endswith(("\\N", ">")) or after.isspace():
            pieces.append(_clock(start))
        start, at = start + int(match[1]) / 100, match.end()
    return "".join([*pieces, text[at:]])


def _by(speaker: str, lines: list[str]) -> list[str]:
    name = re.sub(r"[<>]", "", speaker).strip()
    return [f"<v {name}>{lines[0]}", *lines[1:]] if name not in ("", _NOBODY) and lines else lines


def _clock(time: Seconds) -> str:
    return f"<{int(time // 3600)}:{int(time // 60 % 60):02}:{time % 60:06.3f}>"


# --- YouTube's SBV, and lyrics ---------------------------------------------------------------------------------------

SBV_LINE = re.compile(r"(\d{1,3}:\d{2}:\d{2}\.\d{1,3}),(\d{1,3}:\d{2}:\d{2}\.\d{1,3})\s*")
_LRC_TIME = r"(\d{1,3}):(\d{2}(?:[.:]\d{1,3})?)"
_STAMP, _WORD_STAMP = re.compile(rf"\[{_LRC_TIME}\]"), re.compile(f"<{_LRC_TIME}>")
_TAG = re.compile(r"\[(offset|length)\s*:\s*([^\]]*)\]", re.IGNORECASE)
_LRC_TAG = r"\[(?:ar|ti|al|au|by|offset|re|ve|length|la)\s*:[^\]]*\]\s*"
LRC_LINE = re.compile(rf"(?:{_STAMP.pattern}.*|{_LRC_TAG})", re.IGNORECASE)


def sbv(text: str) -> Iterator[Timed]:
    """Two times in a line, and what is shown up to an empty one."""
    lines = text.split("\n")
    at = [n for n, line in enumerate(lines) if SBV_LINE.fullmatch(line)]
    if not at:
        raise AlignmentError("has no cue", "a cue's times are 0:00:01.000,0:00:02.000")
    shown = []
    for n, following in pairwise([*at, len(lines)]):
        if (times := SBV_LINE.fullmatch(lines[n])) is not None:
            body = tuple(line for line in lines[n + 1 : following] if line.strip())
            shown.append(Shown(seconds(times[1]), seconds(times[2]), body, n + 1))
    return read(SBV, shown)


def lrc(text: str) -> Iterator[Timed]:
    """[mm:ss.xx] before a line, or several where it comes again, <mm:ss.xx> before a word; a line lasts to the next."""
    tags = {match[1].casefold(): match[2].strip() for match in _TAG.finditer(text)}
    sooner = (number(tags.get("offset", "0")) or 0.0) / 1000
    found: list[tuple[Seconds, str, int]] = []
    for n, line in enumerate(text.split("\n"), 1):
        stamps = list(_STAMP.finditer(line))
        if stamps:
            said = _WORD_STAMP.sub(lambda match: _clock(_minutes(match, sooner)), line[stamps[-1].end() :])
            found += [(round(_minutes(stamp, sooner), DECIMALS), said, n) for stamp in stamps]
    if not found:
        raise AlignmentError("has no line with a time", "a line begins with [00:01.20]")
    found.sort(key=lambda row: row[0])
    ends = [start for start, _, _ in found[1:]] + [found[-1][0] + _LAST_LINE]
    lines = zip(found, ends, strict=True)
    return read(LRC, [Shown(start, end, (said,), n) for (start, said, n), end in lines])


def _minutes(match: re.Match[str], sooner: Seconds) -> Seconds:
    return max(0.0, 60.0 * int(match[1]) + float(match[2].replace(":", ".")) - sooner)


# --- XML -------------------------------------------------------------------------------------------------------------

_PARTS = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)(?::(\d+(?:\.\d+)?))?")
_UNITS: dict[str, Seconds] = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_XML_REMEDY = "give TTML (<tt>), YouTube's <transcript> or <timedtext>, or ELAN's <ANNOTATION_DOCUMENT>"


def parsed(text: str) -> ElementTree.Element:
    """The root of an XML text; AlignmentError with its line where it is none."""
    try:
        return ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    except ElementTree.ParseError as error:
        remedy = "it may be half-written: save it again"
        raise AlignmentError(f"is not XML ({error})", remedy, error.position[0]) from None


def xml(text: str) -> Iterator[Timed]:
    root = parsed(text)
    if _name(root) == "tt":
        return read(TTML, list(_ttml(root)))
    if _name(root) in ("transcript", "timedtext"):
        return read(YOUTUBE, list(_youtube(root)))
    raise AlignmentError(f"is XML, but no subtitles that are known: <{_name(root)}>", _XML_REMEDY)


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _attribute(element: ElementTree.Element, name: str) -> str | None:
    """An attribute, in whatever namespace."""
    return next((value for key, value in element.items() if key.rpartition("}")[2] == name), None)


def _ttml(root: ElementTree.Element) -> Iterator[Shown]:
    """Each <p> that has times, counted from those of what it stands in; a <span>'s begin is its words'."""
    frames = number(_attribute(root, "frameRate") or "30") or 30.0
    ticks = number(_attribute(root, "tickRate") or "0") or frames
    agents = [element for element in root.iter() if _name(element) == "agent"]
    names = {_attribute(agent, "id"): " ".join("".join(agent.itertext()).split()) for agent in agents}

    def time(element: ElementTree.Element, name: str) -> Seconds | None:
        written = _attribute(element, name)
        return None if written is None else _ttml_time(written, frames, ticks)

    def walk(element: ElementTree.Element, since: Seconds) -> Iterator[Shown]:
        begin = since + (time(element, "begin") or 0.0)
        if _name(element) == "p":
            length, end = time(element, "dur"), time(element, "end")
            stop = begin + length if length is not None else since + end if end is not None else None
            if stop is not None:
                lines = "".join(inside(element, begin)).split("\n")
                speaker = names.get(_attribute(element, "agent"), "")
                yield Shown(begin, stop, tuple(_by(speaker, [" ".join(line.split()) for line in lines])), 0)
            return
        for child in element:
            yield from walk(child, begin)

    def inside(element: ElementTree.Element, since: Seconds) -> Iterator[str]:
        yield " ".join((element.text or "").split("\n"))
        for child in element:
            if _name(child) == "br":
                yield "\n"
            elif _name(child) != "metadata":
                # a player's lyrics count a word's time from the recording's start, as its line's
                begin = time(child, "begin")
                yield "" if begin is None else _clock(begin if begin >= since else since + begin)
                yield from inside(child, since)
            yield " ".join((child.tail or "").split("\n"))

    yield from walk(root, 0.0)


def _ttml_time(written: str, frames: float, ticks: float) -> Seconds:
    """Seconds of "00:00:01.200", "00:00:01:12" (frames), "1.2s", "1200ms", "30f", "12000000t", and of bare "1.2"."""
    if match := _PARTS.fullmatch(written.strip()):
        hours, minutes, rest, of_frame = match.groups()
        total = 3600.0 * int(hours or 0) + 60.0 * int(minutes) + float(rest) + float(of_frame or 0) / frames
        return round(total, DECIMALS)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(h|ms|m|s|f|t|)", written.strip())
    if match is None:
        remedy = "a time is 00:00:01.200, 1.2s or 1200ms"
        raise AlignmentError(f"a time cannot be read: {written:.60}", remedy)
    unit = _UNITS.get(match[2] or "s") or 1 / (frames if match[2] == "f" else ticks)
    return round(float(match[1]) * unit, DECIMALS)


def _youtube(root: ElementTree.Element) -> Iterator[Shown]:
    """<text start dur> in seconds, or <p t d> in milliseconds, whose <s t> are words."""
    for element in root.iter():
        if _name(element) == "text" and (start := number(element.get("start", ""))) is not None:
            end = start + (number(element.get("dur", "")) or 0.0)
            yield Shown(start, end, (" ".join(element.itertext()),), 0)
        elif _name(element) == "p" and (start := number(element.get("t", ""))) is not None:
            pieces = [element.text or ""]
            for word in element:
                pieces += [_clock((start + (number(word.get("t", "0")) or 0.0)) / 1000), word.text or ""]
            if "".join(pieces).strip():
                end = start + (number(element.get("d", "")) or 0.0)
                yield Shown(start / 1000, end / 1000, tuple("".join(pieces).split("\n")), 0)

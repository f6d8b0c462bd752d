"""Times that a label, a key or a column calls start and end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tgsr.notation.doubts import OTHER_MEASURE, is_time_of_day
from tgsr.notation.times import AFTER, BEFORE, Pair, Stated, Time, any_case
from tgsr.timeline import Seconds

# --- times that are labelled start and end -----------------------------------------------------------------------

_LABEL = any_case(
    r"(?<![a-z])(?:[a-z]_|ts?_?|time_?)?(?:(?P<start>start(?:ing)?|begin(?:ning)?|onset"
    r"|(?<=[\"'])(?P<way>from)(?=[\"'])|开始|起始)"
    r"|(?P<end>end(?:ing)?|stop|offset|finish|(?<=[\"'])to(?=[\"'])|结束|终止)|(?P<length>duration|时长))"
    r"(?:[_ ]?(?:time-?stamp|time|ts|secs?|seconds?|s|point|at|时间|时刻|点)){0,2}(?P<offset>_offset)?"
    r"(?P<ms>[_ ]?ms)?"
    r"(?:(?P<key>[\"']?)\s{0,2}(?:\((?:s|secs?|seconds?)\)\s?)?(?P<sign>[:=>]|(?:is|of)\b(?: at\b)?|[为于]"
    r"|是)\s{0,4}[\"'\[(第]{0,2}|\s{1,2}(?:- )?|(?<=[始束止]))"
    r"(?:(?:about|around|approximately|approx\.|~|≈) ?)?$"
)
_OTHER_KEY = any_case(r"[\"'](?:entity|token|char|page|line|index|year)[a-z_]*[\"']\s?:|\boffsets\b")
_RUNS_ON = any_case(r"\s?[-/][0-9]|\s?[ap]\.?m\b")
_SENTENCE_END = re.compile(r"[.!?。]\s")
_NEAR = 40  # characters between two times that are one mention; a text between farther ones is no part of it
_MOST_IN_LINES, _MOST_IN_OBJECT, _MOST_KEYS = 100, 600, 8


LABEL_WORDS = ("start", "begin", "onset", 'from"', "from'", "开始", "起始")


class _Label(NamedTuple):
    """A labelled time: its place among the times, its role ("start", "end", "length"), what labels it."""

    place: int
    role: str
    is_key: bool
    is_signed: bool
    seconds: Seconds


def labelled(text: str, times: Sequence[Time]) -> Iterator[Stated]:
    """The pairs of a time that is labelled start and one that is labelled end: JSON, bullets, "start 3.2 end 5.6"."""
    labels = _labels(text, times)
    taken: set[int] = set()
    for place, label in enumerate(labels):
        if label.place in taken or label.role == "length":
            continue
        other = _partner(text, times, labels[place + 1 : place + 1 + _MOST_KEYS], label)
        if other is None or not _are_times(text, times, label, other):
            continue
        taken.add(other.place)
        start, end = (label, other) if label.role == "start" else (other, label)
        last = round(start.seconds + end.seconds, 6) if end.role == "length" else end.seconds
        here, there = times[label.place], times[other.place]
        is_near = there.at - here.stop <= _NEAR
        yield Stated(here.at, (there if is_near else here).unit_stop, start.seconds, last)


def _labels(text: str, times: Sequence[Time]) -> list[_Label]:
    labels, stop = [], 0
    for index, time in enumerate(times):
        match = _LABEL.search(text, max(stop, time.at - _NEAR), time.at)
        stop = time.stop
        if match is not None and not _RUNS_ON.match(text, stop):
            role = next(role for role in ("start", "end", "length") if match[role])
            is_ms = match["ms"] is not None and not time.unit
            seconds = round(time.seconds / 1000, 6) if is_ms else time.seconds
            is_signed = match["sign"] is not None and not (match["way"] or match["offset"])
            labels.append(_Label(index, role, bool(match["key"]), is_signed, seconds))
    return labels


def _partner(text: str, times: Sequence[Time], following: Sequence[_Label], label: _Label) -> _Label | None:
    """The labelled time that goes with a start; in an object whose end comes first, with the end."""
    if label.role == "end" and not label.is_key:
        return None
    most = _MOST_IN_OBJECT if label.is_key else _MOST_IN_LINES if label.is_signed else _NEAR
    length = None
    for other in following:
        at = times[other.place].at
        if at - times[label.place].stop > most or other.role == label.role:
            break
        between = text[times[label.place].stop : at]
        if "}" in between or "\n\n" in between or (not label.is_signed and _SENTENCE_END.search(between)):
            break
        if not label.is_key and any(c.isdigit() for c in between) and length is None:
            break
        if other.role == "length":
            length = length or other
        else:
            return other
    return length if label.role == "start" else None


def _are_times(text: str, times: Sequence[Time], label: _Label, other: _Label) -> bool:
    """Whether two labelled numbers are times: by unit or decimals, or whole ones after a sign that are no years."""
    first, last = times[label.place], times[other.place]
    around = text[max(0, first.at - BEFORE) : last.stop + AFTER]
    pair = Pair(
        first,
        last,
        "label",
        text[max(0, first.at - BEFORE) : first.at],
        text[last.stop : last.stop + AFTER],
    )
    if "min" in (first.unit, last.unit) or (pair.are_clocks and is_time_of_day(pair, text)):
        return False
    if any(not time.unit and OTHER_MEASURE.match(text, time.stop) for time in (first, last)):
        return False
    if first.unit or last.unit or first.is_decimal or last.is_decimal:
        return not _OTHER_KEY.search(around) or bool(first.unit)
    are_years = 1900 <= label.seconds <= 2100 and 1900 <= other.seconds <= 2100
    return label.is_signed and not are_years and not _OTHER_KEY.search(around)


# --- tables ------------------------------------------------------------------------------------------------------

_KEY = r"(?:{})[a-z]{{0,4}}[ _]?(?:time|timestamp|时间)?[ _]?\(?(?:s|secs?|seconds)?\)?"
_START_HEAD = any_case(_KEY.format("start|begin|onset|from|开始|起始"))
_END_HEAD = any_case(_KEY.format("end|stop|offset|to|until|finish|结束|终止"))
_LENGTH_HEAD = any_case(_KEY.format("duration|length|dur|时长"))
_RULE = re.compile(r"[\s|:+-]{3,}")
TABLE_HEAD = re.compile(r"start[a-z_ ()]{0,16}[,\t]")
_MOST_CELLS = 30


def in_tables(text: str, times: Sequence[Time]) -> Iterator[Stated]:
    """The rows of tables: their start and end columns; without a head, two cells side by side that are two times."""
    time_at = {time.at: time for time in times}
    sign, columns, at = "", None, 0
    for line in text.split("\n"):
        if sign and sign not in line:
            sign = ""
        if not sign:
            sign, columns = _head(line)
        elif _RULE.fullmatch(line):
            columns = columns or ()
        if sign and any(c.isdigit() for c in line):
            cells = _cells(line, at, sign, time_at)
            if columns:
                yield from _of_columns(cells, *columns)
            elif columns is None:
                yield from _side_by_side(cells)
        at += len(line) + 1


def _head(line: str) -> tuple[str, tuple[int, int, bool] | tuple[()] | None]:
    """What parts a table's cells and where its start and end (True: its length) stand; "" where no table begins.

    No columns where the line isn't a head, but a row of bars.
    """
    for sign in "|\t,":
        if sign in line:
            names = [cell.strip(" \"'") for cell in line.split(sign, _MOST_CELLS)]
            starts = [index for index, name in enumerate(names) if _START_HEAD.fullmatch(name)]
            for pattern in (_END_HEAD, _LENGTH_HEAD):
                ends = [index for index, name in enumerate(names) if pattern.fullmatch(name)]
                if len(starts) == len(ends) == 1:
                    return sign, (starts[0], ends[0], pattern is _LENGTH_HEAD)
            if sign == "|":
                return sign, None
    return "", None


def _cells(line: str, at: int, sign: str, time_at: Mapping[int, Time]) -> list[Time | None]:
    """The time that each cell holds and nothing beside it, else None; `at` is where the line begins."""
    cells = []
    for cell in line.split(sign, _MOST_CELLS):
        bare = cell.strip(" \t\"'~≈")
        time = time_at.get(at + cell.find(bare)) if bare else None
        cells.append(time if time is not None and time.stop - time.at == len(bare) else None)
        at += len(cell) + 1
    return cells


def _of_columns(cells: Sequence[Time | None], start: int, end: int, is_length: bool) -> Iterator[Stated]:
    if max(start, end) < len(cells):
        first, last = cells[start], cells[end]
        if first is not None and last is not None and "min" not in (first.unit, last.unit):
            stop = last.unit_stop if end == start + 1 else first.unit_stop
            seconds = round(first.seconds + last.seconds, 6) if is_length else last.seconds
            yield Stated(first.at, stop, first.seconds, seconds)


def _side_by_side(cells: Sequence[Time | None]) -> Iterator[Stated]:
    with_unit = [
        index for index, time in enumerate(cells) if time is not None and time.unit not in ("", "min")
    ]
    if len(with_unit) == 2 and with_unit[1] == with_unit[0] + 1:
        first, last = cells[with_unit[0]], cells[with_unit[1]]
        if first is not None and last is not None and first.seconds < last.seconds:
            yield Stated(first.at, last.unit_stop, first.seconds, last.seconds)

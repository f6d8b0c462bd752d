"""Single times: "at 5.2 s", "around the 00:12 mark", "[0:05] a door closes"; a place, and no interval."""

from __future__ import annotations

from tgsr.notation.doubts import LATER_AFTER, NOUN_AFTER, ONE_SECOND, OTHER_MEASURE
from tgsr.notation.times import ABOUT, AFTER, BEFORE, NUMBER_HEAD, Time, any_case, times_of

_PLACE = any_case(
    rf"(?:\b(?:at|near|by|until|till|since|from|past|before|to|starts?|begins?|ends?|starting|beginning|ending)\b|@|在)"
    rf"\s{{0,2}}{NUMBER_HEAD}$"
)
_PLACE_OF_CLOCK = any_case(
    rf"(?:^|\n)[\s*#>+\d.)-]{{0,6}}[(\[*]{{0,3}}{NUMBER_HEAD}$|[(\[]{NUMBER_HEAD}$"
    rf"|\b(?:around|about|approximately|after|and|then|again)\s{{1,2}}{NUMBER_HEAD}$"
)
_HEAD = any_case(rf"(?:^|\n)[\s*#>+-]{{0,6}}(?:{ABOUT})\s{{0,2}}$")  # "- Around 6.2 seconds, ..."
_YEARS = 1000  # a bare number from there on, "1949 marks the end", is none of a recording's seconds
_RUNS_ON = any_case(
    r"\s{0,2}(?:-|~|to\b|and\b)\s{0,2}[0-9]|\s?[ap]\.?m\b|\s{1,2}(?:intervals|each)\b|\s{1,2}of\b(?! the )"
)
_RATE_BEFORE = any_case(r"\b(?:estimated|occur[a-z]{0,4}|pace|rate|speed|tempo|intervals?) (?:at|to|from)\s")


def points(text: str) -> list[Time]:
    """The single times that a `plain` text gives as places in a recording, in order of appearance.

    A time with a unit or in clock notation, after a word that says where ("at", "from", "until"), with a mark, or, of
    clocks, at the head of a line or in brackets. No lengths, times of day, or what counts something else. Those that
    are one end of an interval are among them.
    """
    found, stop = [], 0
    for time in times_of(text):
        before, after = text[max(stop, time.at - BEFORE) : time.at], text[time.stop : time.stop + AFTER]
        stop = time.stop
        if not (time.says_seconds or time.unit == "clock" or (time.is_mark and time.seconds < _YEARS)):
            continue
        is_adjective = not time.is_mark and (
            ONE_SECOND.search(text[time.number_stop : time.stop]) and NOUN_AFTER.match(after)
        )
        if is_adjective or LATER_AFTER.match(after) or _RUNS_ON.match(after) or _RATE_BEFORE.search(before):
            continue
        if time.unit == "clock" and OTHER_MEASURE.match(after):
            continue
        is_placed = (
            time.is_mark or _PLACE.search(before) or (after[:1] in (",", ":") and _HEAD.search(before))
        )
        if is_placed or (time.unit == "clock" and _PLACE_OF_CLOCK.search(before)):
            found.append(time)
    return found

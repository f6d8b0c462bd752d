"""Single times: "at 5.2 s", "around the 00:12 mark", "timestamp 5.2", "[5.2s] a door closes"; a place, no interval."""

from __future__ import annotations

import itertools

from tgsr.notation.doubts import LATER_AFTER, NOUN_AFTER, ONE_SECOND, OTHER_MEASURE
from tgsr.notation.times import ABOUT, AFTER, BEFORE, NUMBER_HEAD, SECOND_ABROAD, Time, any_case, times_of

_PLACE = any_case(
    rf"(?:\b(?:at|near|by|until|till|since|from|past|before|to|starts?|begins?|ends?|starting|beginning"
    rf"|ending)\b|@|在)"
    rf"\s{{0,2}}{NUMBER_HEAD}$"
)
_PLACE_OF_CLOCK = any_case(
    rf"(?:^|\n)[\s*#>+\d.)-]{{0,6}}[(\[*]{{0,3}}{NUMBER_HEAD}$|[(\[]{NUMBER_HEAD}$"
    rf"|\b(?:around|about|approximately|after|and|then|again)\s{{1,2}}{NUMBER_HEAD}$"
)
# "en el segundo 3", "à 3 secondes", "на 3 секунде", "3초에"
_PLACE_ABROAD = any_case(
    rf"\b(?:en|em|à|a los|aos|bei|ab|um|op|vid|ved|na|на|в|pada) (?:(?:el|la|le|den|de"
    rf"|o) )?(?:{SECOND_ABROAD} )?{NUMBER_HEAD}$"
)
_NAMED_ABROAD = any_case(rf"\b{SECOND_ABROAD} $")
_PLACED_ABROAD = any_case(
    r" ?(?:에|쯤|지점|무렵|부근|に|で|付近|頃|ごろ|あたり|の(?:时|地)点|处|时(?![长间])|पर)"
)
# "at 3.2s, 4.5s and again at 6.1s"
_ANOTHER = any_case(
    rf"\s?(?:,|,? ?(?:and|or|&|und|y|et|e|и|和|、)) {{0,2}}(?:(?:then |again )?at )?{NUMBER_HEAD}$"
)
# "at second 3", "timestamps 3.2 and 4.5", "t = 3.2": what stands before them makes bare numbers seconds.
_NAMED = any_case(
    r"(?:\b(?:timestamps?:?|time ?=|t ?=|(?:at|around|about|near|by|until|till|from|after|before|on) (?:the )?second)"
    r" ?)$"
)
_INTO = any_case(  # "3 seconds into the clip", "two seconds in,"
    r" in(?:to the (?:audio|clip|recording|video|track|file|song|speech|conversation|dialogue)\b|\s?(?:[,.;:)\n]|$))"
)
_HEAD = any_case(rf"(?:^|\n)[\s*#>+-]{{0,6}}(?:{ABOUT})\s{{0,2}}$")  # "- Around 6.2 seconds, ..."
_YEARS = 1000  # a bare number from there on, "1949 marks the end", is none of a recording's seconds
_RUNS_ON = any_case(
    r"\s{0,2}(?:-|~|to\b)\s{0,2}[0-9]|\s?[ap]\.?m\b|\s{1,2}(?:intervals|each)\b|\s{1,2}of\b(?! the )"
)
_AND_ANOTHER = any_case(r"\s{0,2}and\b\s{0,2}[0-9]")  # "from 3 s and 5", but "at 3 s and 5 s"
_AT_BEFORE = any_case(rf"(?:\bat|@|在) {{0,2}}{NUMBER_HEAD}$")
_RATE_BEFORE = any_case(r"\b(?:estimated|occur[a-z]{0,4}|pace|rate|speed|tempo|intervals?) (?:at|to|from)\s")


def points(text: str) -> list[Time]:
    """The single times that a `plain` text gives as places in a recording, in order of appearance.

    A time with a unit or in clock notation, after a word that says where ("at", "from", "until"), with a mark, or, of
    clocks, at the head of a line or in brackets. No lengths, times of day, or what counts something else. Those that
    are one end of an interval are among them.
    """
    times = times_of(text)
    gaps = [text[max(one.stop, last.at - BEFORE) : last.at] for one, last in itertools.pairwise(times)]
    counts = [time.says_seconds for time in times]
    for i in reversed(range(len(gaps))):  # "at 3.2, 4.1 and 5 seconds": the last one's unit is that of all
        counts[i] |= not times[i].unit and counts[i + 1] and _ANOTHER.fullmatch(gaps[i]) is not None
    found: list[Time] = []
    for i, time in enumerate(times):
        before = gaps[i - 1] if i else text[max(0, time.at - BEFORE) : time.at]
        after = text[time.stop : time.stop + AFTER]
        is_listed = bool(found) and found[-1] is times[i - 1] and _ANOTHER.fullmatch(before) is not None
        is_named = _NAMED.search(before) is not None or (
            not time.unit and before.endswith(" ") and _NAMED_ABROAD.search(before) is not None
        )
        if not time.unit:
            counts[i] |= is_named or (is_listed and not times[i - 1].unit and counts[i - 1])
        is_another = is_listed and counts[i] == counts[i - 1]
        is_in_time = time.seconds < _YEARS
        if not (counts[i] or time.unit == "clock" or (time.is_mark and is_in_time)) or (
            is_named and not is_in_time
        ):
            continue
        is_adjective = not time.is_mark and (
            ONE_SECOND.search(text[time.number_stop : time.stop]) and NOUN_AFTER.match(after)
        )
        if is_adjective or LATER_AFTER.match(after) or _RUNS_ON.match(after) or _RATE_BEFORE.search(before):
            continue
        if _AND_ANOTHER.match(after) and not (is_another or is_named or _AT_BEFORE.search(before)):
            continue
        if time.unit in ("clock", "") and OTHER_MEASURE.match(after):
            continue
        is_placed = (
            time.is_mark
            or is_named
            or (_PLACE if time.unit or is_another else _AT_BEFORE).search(before)
            or (after[:1] in (",", ":") and _HEAD.search(before))
            or is_another
            or (time.says_seconds and _is_placed_second(before, after))
        )
        if is_placed or (time.unit == "clock" and _PLACE_OF_CLOCK.search(before)):
            found.append(time)
    return found


def _is_placed_second(before: str, after: str) -> bool:
    """ "3.2 s" in square brackets, into the clip, or as other languages place it."""
    in_brackets = before.endswith("[") and after.startswith("]")
    return in_brackets or any((_INTO.match(after), _PLACE_ABROAD.search(before), _PLACED_ABROAD.match(after)))

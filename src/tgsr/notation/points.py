"""Single times: "at 5.2 s", "around the 00:12 mark", "[0:05] a door closes"; a place, and no interval."""

from __future__ import annotations

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
_ANOTHER = any_case(
    rf"\s?(?:,|,? ?(?:and|or|&|und|y|et|e|и|和|、)) {{0,2}}{NUMBER_HEAD}$"
)  # "at 3.2s, 4.5s and 6.1s"
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
    found: list[Time] = []
    stop = 0
    for time in times_of(text):
        before, after = text[max(stop, time.at - BEFORE) : time.at], text[time.stop : time.stop + AFTER]
        is_next = bool(found) and found[-1].stop == stop and found[-1].unit == time.unit
        stop = time.stop
        is_named = before.endswith(" ") and not time.unit and _NAMED_ABROAD.search(before) is not None
        is_second = time.says_seconds or is_named
        if not (is_second or time.unit == "clock" or (time.is_mark and time.seconds < _YEARS)):
            continue
        is_adjective = not time.is_mark and (
            ONE_SECOND.search(text[time.number_stop : time.stop]) and NOUN_AFTER.match(after)
        )
        if is_adjective or LATER_AFTER.match(after) or _RUNS_ON.match(after) or _RATE_BEFORE.search(before):
            continue
        is_another = is_next and _ANOTHER.fullmatch(before) is not None
        if _AND_ANOTHER.match(after) and not (is_another or _AT_BEFORE.search(before)):
            continue
        if time.unit == "clock" and OTHER_MEASURE.match(after):
            continue
        is_placed = (
            time.is_mark
            or is_named
            or _PLACE.search(before)
            or (after[:1] in (",", ":") and _HEAD.search(before))
            or is_another
            or (is_second and (_PLACE_ABROAD.search(before) or _PLACED_ABROAD.match(after)))
        )
        if is_placed or (time.unit == "clock" and _PLACE_OF_CLOCK.search(before)):
            found.append(time)
    return found

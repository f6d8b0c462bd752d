"""Two times in a row that a dash, a word or a verb joins, where something says that they are seconds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tgsr.notation.doubts import (
    ESTIMATE_BEFORE,
    OTHER_BEFORE,
    RANGE_AFTER,
    SUM_AFTER,
    UNBRACKETED,
    counts_something_else,
    is_decade,
    is_length,
    is_time_of_day,
)
from tgsr.notation.times import (
    AFTER,
    BEFORE,
    CLOSE,
    NEARLY,
    NUMBER_HEAD,
    SECOND,
    SECOND_ABROAD,
    Pair,
    Stated,
    Time,
    any_case,
)

# --- what joins two times ----------------------------------------------------------------------------------------

_AND_IT = r"[,;.]?\s{1,3}(?:(?:and|then|before|but) ){0,2}(?:it |he |she |they |this |that |which )?"
# 3.2s - 5.6s, 0:03 --> 0:07, 3～5秒
_DASH = rf"{CLOSE}(?: \(start\))?[ \t]{{0,4}}(?:<?-{{1,3}}(?:>|&gt;)?|→|↔|<?=>|~|\.{{2,3}}|…)[ \t]{{0,4}}{NUMBER_HEAD}"
# 3 s to about 5 s, 0:03 up until 0:07, 3秒一直持续到5秒
_TO = (
    rf"{CLOSE}-?,?\s{{1,4}}(?:\(start\) )?(?:(?:all the way|onwards?) )?"
    rf"(?:(?:up )?(?:to|until|till|through|thru)|hasta|bis)\s{{1,4}}"
    rf"(?:the end (?:of the [a-z]{{1,12}} )?(?:at )?)?{NUMBER_HEAD}"
    rf"|-to-|(?:左右|处|时)?(?:开始|起)?[ ,]{{0,2}}(?:一?直)?(?:持续|延续)?(?:到|至|から|부터)了? ?{NUMBER_HEAD}"
)
# between 3 and 5 s, 3秒和5秒之间
_AND = rf"{CLOSE}-?\s{{1,4}}(?:and|&|und|et|y|à|a)\s{{1,4}}{NUMBER_HEAD}| ?[和与跟及] ?{NUMBER_HEAD}"
# at 3 s and it ends at 5 s, 3 s, fading out by 5 s, 3秒开始，5秒结束
_ENDS = (
    rf"{CLOSE}{_AND_IT}(?:"
    r"(?:end|stop|finish|conclud|ceas|complet|fad|last|continu|extend|run|go|persist|carr|keep|stretch)[a-z]{0,4} "
    r"(?:(?:on|out|up|off|away|going|playing|speaking|talking|singing) )?"
    r"(?:at|until|till|til|through|to|by|up to|up until)"
    rf"|(?:end|stop|finish|conclud|ceas|fad)[a-z]{{0,4}} (?:around|about|near)) {NUMBER_HEAD}"
    rf"|(?:处|时)?(?:开始|起),? ?(?:并|在|于){{0,2}}{NUMBER_HEAD}|,? ?(?:止|终止|结束)于{NUMBER_HEAD}"
)
# at 3 s and lasts for 2 s, 0:03 for 2 seconds, 3秒开始，持续2秒
_LASTS = (
    rf"{CLOSE}{_AND_IT}(?:(?:last|continu|persist|run|play|go)[a-z]{{0,4}}(?: on)?|with a duration of)(?: for)? "
    rf"{NUMBER_HEAD}| for {NUMBER_HEAD}|(?:开始)?,?持续了?{NUMBER_HEAD}"
)
_GAP = any_case(
    rf"(?P<dash>{_DASH})|(?P<to>{_TO})|(?P<and>{_AND})|(?P<comma>[\"']?\s{{0,2}}[,;、]\s{{0,2}}[\"']?~?)"
    rf"|(?P<ends>{_ENDS})|(?P<lasts>{_LASTS})"
)
_MOST_BETWEEN = 90  # characters that join two times


_COMMA_DIGIT = re.compile(r",[0-9]")
_UNIT_BEHIND_BRACKET = any_case(rf"[)\]]\s{{0,2}}(?:{SECOND})|\s?\((?:in )?(?:{SECOND})\)")
_AFTER_ANOTHER = any_case(
    rf"\s{{0,2}}{CLOSE}\s{{0,2}}(?:[,;]|,? ?(?:and|&|or|以及|和))\s{{0,2}}(?:then |again ){{0,2}}(?:from )?"
    rf"{NUMBER_HEAD}"
)


def joined(text: str, times: Sequence[Time], is_asked: bool) -> Iterator[Stated]:
    """The pairs of times that a dash, a word or a verb joins."""
    gaps = [_gap(text, first, last) for first, last in pairwise(times)]
    previous: Time | None = None  # the last time of the last pair that counted
    for index, joint in enumerate(gaps):
        if joint is None:
            continue
        first, last = times[index], times[index + 1]
        if joint == "dash" and _is_chain(times, gaps, index):
            continue
        if (
            (joint != "comma" and last.unit != "clock" and _COMMA_DIGIT.match(text, last.number_stop))
            or _is_long(first)
            or _is_long(last)
        ):
            continue
        behind = _UNIT_BEHIND_BRACKET.match(text, last.stop) if not last.unit else None
        if behind is not None:
            last = last._replace(unit="s", unit_stop=behind.end(), stop=behind.end())
        if last.unit == "ms" and not first.unit:
            first = first._replace(seconds=round(first.seconds / 1000, 6))
        stop = times[index - 1].stop if index else 0
        before = text[max(stop, first.at - BEFORE) : first.at]
        pair = Pair(first, last, joint, before, text[last.stop : last.stop + AFTER])
        is_another = previous is times[index - 1] and bool(_AFTER_ANOTHER.fullmatch(before))
        if not _is_begun(text, first) or not _is_interval(pair, text, is_asked, is_another):
            continue
        previous = times[index + 1]
        start = -first.seconds if _has_sign(text, first.at) else first.seconds
        end = round(first.seconds + last.seconds, 6) if joint == "lasts" else last.seconds
        yield Stated(first.at - (start < 0), last.unit_stop, start, end)


def _gap(text: str, first: Time, last: Time) -> str | None:
    if last.at - first.stop > _MOST_BETWEEN:
        return None
    if text[first.stop : last.at] == "/" and last.written.startswith("PT"):
        return "dash"  # ISO 8601's interval
    match = _GAP.fullmatch(text, first.stop, last.at)
    return None if match is None else match.lastgroup


def _is_begun(text: str, time: Time) -> bool:
    """Whether nothing runs into the number: it isn't the 4 of GPT-4, the day of a date, the 5 of 12,5."""
    before = text[max(0, time.at - 2) : time.at]
    return not (before[1:] == "-" and (before[0].isalnum() or before[0] == "_")) and not (
        before[1:] == "," and before[0].isdigit() and time.unit != "clock"
    )


def _has_sign(text: str, at: int) -> bool:
    """Whether the number is below 0: "from -1.2s", "(-1.2s"; after a blank line or a bullet it is a dash."""
    if at < 2 or text[at - 1] != "-":
        return False
    return text[at - 2] in "([" or (text[at - 2] == " " and at > 2 and text[at - 3].isalnum())


def _is_chain(times: Sequence[Time], gaps: Sequence[str | None], index: int) -> bool:
    """Whether more dashes join more of the same kind: 1-2-3, 1s - 2s - 3s."""
    is_dash_before = index > 0 and gaps[index - 1] == "dash"
    is_dash_after = index + 1 < len(gaps) and gaps[index + 1] == "dash"
    return (is_dash_before and _are_alike(times[index - 1], times[index])) or (
        is_dash_after and _are_alike(times[index + 1], times[index + 2])
    )


def _is_long(time: Time) -> bool:
    """Whether thousands are set off, "1,000": nobody says that of seconds, and it may be two numbers."""
    return "," in time.written and time.unit not in ("ms", "clock")


def _are_alike(one: Time, other: Time) -> bool:
    return (one.unit, one.is_decimal) == (other.unit, other.is_decimal)


# --- what says that seconds are meant ----------------------------------------------------------------------------

_SECONDS_BEFORE = any_case(rf"(?:\bsec(?:ond)?s?[ {{]|\b{SECOND_ABROAD} |\bt ?= ?){NUMBER_HEAD}$")
_TIME_WORD = (
    r"(?:\btime[- ]?stamps?|\btimesteps?|\btimes?|\btime[ _]?(?:range|interval|span|frame|window|segment|period)s?"
    r"|\bsegments?|\bintervals?|\bspans?|时间戳?|时间段|时段|区间|片段)"
)
_TIME_BEFORE = any_case(
    rf"(?:{_TIME_WORD}(?: is| of| in s(?:econds)?| \(s\)| \(seconds\))?[\"']?[\s:=>]{{0,6}}[\[(\"']{{0,3}}"
    rf"|\bduring )(?:the )?{NEARLY}$"
)
_TIME_NAMED_BEFORE = any_case(
    rf"{_TIME_WORD}(?: in s(?:econds)?| \(s\)| \(seconds\))?[\"']?\s?[:=]|timestamps? $"
)
_STAMPS_BEFORE = any_case(
    r"(?:timestamps?|segments|intervals|spans|时间戳)[\"']?\s?[:=]\s?[\[(\"']{0,3}$"
    r"|[\"'](?:segment|interval|span|time_?range)[\"']\s?:\s?\[$"
)
_FROM_BEFORE = any_case(rf"(?:\b(?:from|von|ab|desde|del?|du)\s{{1,4}}|从 ?){NUMBER_HEAD}$")
_BETWEEN_BEFORE = any_case(rf"(?:\b(?:between|zwischen|entre)\s{{1,4}}|在|介于){NUMBER_HEAD}$")
_AT_BEFORE = any_case(
    r"(?:\b(?:start|begin|began|commenc|heard|occur|appear)[a-z]{0,4}(?: speaking| talking)?(?: at| from| on| ?:)?"
    rf"|\b(?:at|from)|[于在从])\s{{0,2}}{NUMBER_HEAD}$"
)
_CLAUSE_BEFORE = any_case(
    rf"(?:(?:^|[\n.!?:;,(\[\"'>-])\s{{0,4}}|\b(?:is|are|was|were)\s{{1,2}})from\s{{1,4}}{NUMBER_HEAD}$"
)
_SOUND_BEFORE = any_case(
    r"\b(?:speak|spoke|talk|say|said|sing|sang|laugh|play|hear|occur|happen|appear|locat|utter|shout|bark|cr[iy]|sound"
    rf"|voice|clip|segment|interval)[a-z]{{0,4}} from {NUMBER_HEAD}$"
)
_CLAUSE_AFTER = any_case(
    r"\s*(?:$|[.,;:!?)\]\"'<-]|(?:the|an?|there|and|in|i|we|you|he|she|it|they|is|where|when|someone)\b)"
)
_PAUSE_AFTER = re.compile(r"\s{0,3}(?:$|[.,;:!?)\]\"'<\n])")
_LINE_HEAD = re.compile(r"(?:^|[\n>\"'])\s{0,3}(?:[-•] |[0-9]{1,2}[.)] )?$")
_LINE_TAIL = re.compile(r"\s{0,3}\.?\s{0,2}(?:$|[\n<:\"'])")
_CELL_AFTER = re.compile(r"\s{0,3}\|")
_TIME_HEAD = any_case(r"\|\s?(?:time|timestamp|interval|时间)[^|\n]{0,16}\|")
_MOST_OF_TABLE = 1500  # characters between a column's head and its cell
_TAG = r"<(?:seg|segment|span|interval|ts|time[a-z]{0,6})>\s{0,4}"
_TAG_BEFORE = any_case(rf"{_TAG}$")
_BRACKET_BEFORE = any_case(rf"(?:[\[(]\s{{0,2}}[\"']?|{_TAG}){NEARLY}$")
_KEY_BEFORE = re.compile(r"[\"'](\w{1,40})[\"']\s{0,2}:\s{0,2}[\[(]{1,2}\s{0,2}$")
_TIME_KEY = any_case(
    r"time|stamp|span|segment|interval|window|range|evidence|answer|result|location|period|region|audio|clip|ground|when"
)
_BRACKET_AFTER = re.compile(r"[\"']?\s{0,2}[)\]]|\s{0,4}</")
_BOTH_BEFORE = any_case(
    rf"\bstart(?:ing)? and end(?:ing)?(?: times?| points?| timestamps?)?(?: are|:) {NUMBER_HEAD}$"
)
_BETWEEN_AFTER = re.compile(r"\s?(?:之[间間]|[间間])")
_END_AFTER = re.compile(r"(?:处|时)?(?:结束|停止|终止|为止)")


def _is_interval(pair: Pair, text: str, is_asked: bool, is_another: bool) -> bool:
    """Whether the pair is an interval of time and nothing else."""
    first, last, joint, before, after = pair
    is_both = joint in ("comma", "and") and _BOTH_BEFORE.search(before) is not None
    if (
        joint == "comma"
        and not is_both
        and not (_BRACKET_BEFORE.search(before) and _is_bracketed(text, last))
    ):
        return False
    if joint == "and" and not (
        is_both or _BETWEEN_BEFORE.search(before) or _BETWEEN_AFTER.match(after) or _is_foreign(pair, text)
    ):
        return False
    if joint == "ends" and text[first.stop] in "处时开起" and not _END_AFTER.match(after):
        return False
    if joint == "lasts":
        return _is_start_and_length(pair, text)
    if not (
        _says_seconds(pair)
        or (is_asked and not {"min", "clock"} & {first.unit, last.unit})
        or _is_bare_interval(pair, text)
        or (is_another and _PAUSE_AFTER.match(after))
    ):
        return False
    return not (
        SUM_AFTER.match(after)
        or (not last.says_seconds and counts_something_else(pair))
        or (joint in ("dash", "to", "and") and not pair.are_clocks and is_length(pair, text))
        or is_decade(pair, text)
        or (pair.are_clocks and is_time_of_day(pair, text))
    )


def _says_seconds(pair: Pair) -> bool:
    """Whether a unit, two clocks, a mark or a word before the pair say that its numbers are seconds."""
    first, last = pair.first, pair.last
    units = {first.unit, last.unit}
    if first.is_mark or last.is_mark:
        return units != {""}
    if "min" in units:
        return "min s" in units
    if "clock" in units:
        return units != {"clock", ""}
    return first.says_seconds or last.says_seconds or _SECONDS_BEFORE.search(pair.before) is not None


def _is_bare_interval(pair: Pair, text: str) -> bool:
    """Whether two numbers without a unit are an interval because of where they stand.

    Two decimals: "From 0.2 to 1.4, the ...", "speaks from 0.2 to 1.4.", "Interval: 0.2-1.4", "starts at 0.2 and ends at
    1.4", alone in brackets or in a line. Whole numbers: only as the value of a "timestamp" or of "segments".
    """
    first, last, joint, before, after = pair
    if first.unit or last.unit:
        return False
    is_bracketed = _BRACKET_BEFORE.search(before) is not None and _is_bracketed(text, last)
    if _STAMPS_BEFORE.search(before) or _TAG_BEFORE.search(before):
        return True
    if not (first.is_decimal and last.is_decimal):
        return False
    if joint in ("dash", "to") and _TIME_BEFORE.search(before):
        return _TIME_NAMED_BEFORE.search(before) is not None or _PAUSE_AFTER.match(after) is not None
    if "-->" in text[first.stop : last.at]:
        return True
    if OTHER_BEFORE.search(before):
        return False
    if joint == "ends":
        return _AT_BEFORE.search(before) is not None
    if joint not in ("dash", "to", "comma"):
        return False
    if is_bracketed:
        key = _KEY_BEFORE.search(before)
        if key is not None and not _TIME_KEY.search(key[1]):
            return False
        is_around = ESTIMATE_BEFORE.search(text[max(0, first.at - BEFORE) : first.at])
        return is_around is None and not OTHER_BEFORE.search(UNBRACKETED.sub("", before))
    if joint == "to" and _CLAUSE_BEFORE.search(before):
        return _CLAUSE_AFTER.match(after) is not None
    if _SOUND_BEFORE.search(before):
        return _PAUSE_AFTER.match(after) is not None
    if before.endswith(("|", "| ")) and _CELL_AFTER.match(after):
        return _TIME_HEAD.search(text, max(0, first.at - _MOST_OF_TABLE), first.at) is not None
    is_line = _LINE_HEAD.search(before) and _LINE_TAIL.match(after)
    return is_line is not None and first.seconds < last.seconds


def _is_bracketed(text: str, last: Time) -> bool:
    """Whether the pair's bracket closes behind it: right away, or it did before a unit."""
    return (
        _BRACKET_AFTER.match(text, last.stop) is not None
        or _UNIT_BEHIND_BRACKET.match(text, last.number_stop) is not None
    )


def _is_foreign(pair: Pair, text: str) -> bool:
    """ "de 3.2 à 5.6 secondes", "de 0:03 a 0:07": what joins them is no word of English."""
    return (
        text[pair.first.stop : pair.last.at].strip() in ("à", "a")
        and _FROM_BEFORE.search(pair.before) is not None
    )


def _is_start_and_length(pair: Pair, text: str) -> bool:
    """ "starts at 3.2 s and lasts for 2.4 s": a time, and how long from there."""
    first, last, _, before, after = pair
    is_start = first.says_seconds or first.unit == "clock"
    return (
        is_start
        and last.says_seconds
        and _AT_BEFORE.search(before) is not None
        and not RANGE_AFTER.match(after)
        and not is_length(pair, text)
    )

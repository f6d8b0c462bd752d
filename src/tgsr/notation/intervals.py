"""The intervals that a text states, in whatever notation.

A text is read in two steps. First its times. Then pairs: two in a row that something short joins, two that are labelled
start and end, two cells of a table. A pair counts where something says that seconds are meant, and nothing that it is
something else. Every pattern looks at a bounded stretch beside a time: reading is linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tgsr.notation.doubts import LATER_AFTER, NOUN_AFTER, ONE_SECOND, RANGE_AFTER
from tgsr.notation.joined import joined
from tgsr.notation.labelled import LABEL_WORDS, TABLE_HEAD, in_tables, labelled
from tgsr.notation.languages import in_other_languages
from tgsr.notation.times import ABOUT, AFTER, BEFORE, NEARLY, NUMBER_HEAD, Stated, Time, any_case, times_of


def stated(text: str, *, is_asked: bool = False) -> list[Stated]:
    """Every interval that a `plain` text states, in order of appearance, whatever its ends; none overlap.

    With `is_asked` the text answers the question when something is: numbers that are joined need no sign that seconds
    are meant.
    """
    times = times_of(text)
    if not times:
        return []
    found = list(joined(text, times, is_asked))
    if 2 * len(found) < len(times) or "|" in text:  # else no time is left for another notation
        found += _in_other_notations(text, times)
        found.sort(key=lambda one: (one.text_start, -one.text_end))
    apart: list[Stated] = []
    for one in found:
        if not apart or one.text_start >= apart[-1].text_end:
            apart.append(one)
    return apart


def _in_other_notations(text: str, times: Sequence[Time]) -> Iterator[Stated]:
    lowered = text.lower()
    if any([word in lowered for word in LABEL_WORDS]):
        yield from labelled(text, times)
    if "|" in text or ("start" in lowered and TABLE_HEAD.search(lowered)):
        yield from in_tables(text, times)
    if "<|" in text:
        yield from _between_tokens(text)
    if any([word in lowered for word in _START_WORDS]):
        yield from _from_the_start(text, times)
    yield from in_other_languages(text, times)


# --- Whisper's tokens, and intervals from the start ------------------------------------------------------------------

_TOKEN = re.compile(r"<\|([0-9]{1,6}(?:\.[0-9]{1,3})?)s?\|>")


def _between_tokens(text: str) -> Iterator[Stated]:
    """<|1.20|> text <|3.40|>: the times around each text, at the first of the two; or two that are all of the text."""
    for first, last in pairwise(_TOKEN.finditer(text)):
        is_all = text.strip() == text[first.start() : last.end()]
        if is_all or text[first.end() : last.start()].strip():
            yield Stated(first.start(1), first.end(1), float(first[1]), float(last[1]))


_START_WORDS = ("first", "opening", "initial", "beginning", "start ", "outset", "前", "开", "最初")
_FIRST_BEFORE = any_case(
    rf"\b(?:first|opening|initial) {NEARLY}$|(?:(?<![之提以目])前|最初|开头)的?(?:{ABOUT})?$"
)
_OUTSET_BEFORE = any_case(
    r"\b(?:from|between) (?:the )?(?:very )?(?:beginning|start"
    r"|outset)(?: of the [a-z]{1,12})? (?:up )?(?:to|until|till|through|and) "
    rf"{NUMBER_HEAD}$|从(?:一?开头|一?开始|最开始)(?:一?直)?[到至]{NUMBER_HEAD}$"
)


def _from_the_start(text: str, times: Sequence[Time]) -> Iterator[Stated]:
    """ "the first 3 seconds", "from the beginning to 3.5 s": from 0."""
    stop = 0
    for time in times:
        before, stop = text[max(stop, time.at - BEFORE) : time.at], time.stop
        if not (time.says_seconds or time.unit == "clock") or not time.seconds:
            continue
        lowered = before.lower()
        if not any(piece in lowered for piece in _START_WORDS):
            continue
        match = _OUTSET_BEFORE.search(before)
        if match is None and time.says_seconds:
            match = _FIRST_BEFORE.search(before)
            after = text[time.stop : time.stop + AFTER]
            is_adjective = ONE_SECOND.search(text[time.number_stop : time.stop]) and NOUN_AFTER.match(after)
            if is_adjective or LATER_AFTER.match(after) or RANGE_AFTER.match(after):
                continue
        if match is not None:
            yield Stated(time.at - len(before) + match.start(), time.unit_stop, 0.0, time.seconds)


# --- where one interval was asked for --------------------------------------------------------------------------------

_WORD = re.compile(r"[^\W\d_]+")
_WORDS_OF_AN_ANSWER = {
    *("start", "starts", "starting", "begin", "begins", "onset", "end", "ends", "ending", "offset", "stop"),
    *("from", "to", "time", "times", "timestamp", "timestamps", "second", "seconds", "sec", "secs", "s"),
    *("ms", "and", "about", "around", "approximately", "the", "answer", "is", "final", "span", "interval"),
    *("segment", "boxed", "json", "秒", "到", "至"),
}


def two_numbers(text: str) -> list[Stated]:
    """The two numbers of a `plain` text that holds no other and hardly a word: "3.20, 5.60"; else []."""
    times = times_of(text)
    if len(times) != 2:
        return []
    first, last = times
    others = f"{text[: first.at]} {text[first.stop : last.at]} {text[last.stop :]}"
    if not _WORDS_OF_AN_ANSWER.issuperset(_WORD.findall(others.lower())) or "-" in others:
        return []
    return [Stated(first.at, last.unit_stop, first.seconds, last.seconds)]

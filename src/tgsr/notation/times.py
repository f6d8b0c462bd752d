"""Times in a text: numbers, clocks and "1 minute 5 seconds", each with its unit."""

from __future__ import annotations

import re
from typing import NamedTuple

from tgsr.timeline import Seconds


def any_case(pattern: str) -> re.Pattern[str]:
    """The pattern, in capitals too."""
    return re.compile(pattern, re.IGNORECASE)


# One character for one, so that offsets stay true: any dash is a hyphen, emphasis and odd spaces are blanks.
_PLAIN = {
    **dict.fromkeys("‐‑‒–—―−－", "-"),
    **dict.fromkeys("～〜∼˜", "~"),
    **dict.fromkeys("⟶➔⇒➡", "→"),
    **dict.fromkeys("“”„«»", '"'),
    **dict.fromkeys("‘’", "'"),
    **dict.fromkeys("（【「", "("),
    **dict.fromkeys("）】」", ")"),
    **dict.fromkeys("*`\u00a0\u2009\u202f\u3000\u200b", " "),
    **{chr(ord("０") + digit): str(digit) for digit in range(10)},
    **dict(zip("：，；．｜［］", ":,;.|[]", strict=True)),
}
_NOT_PLAIN = re.compile(f"[{''.join(_PLAIN)}]")
_IN_DOLLARS = re.compile(r"\$(~?[0-9.:]{1,12}s?)\$")
# "3,2 Sekunden", "von 3,2 bis": a comma is a decimal point where a word beside it is of such a language.
_COMMA_LANGUAGE = any_case(r"[0-9],[0-9]{1,3}\s?(?:s\s)?(?:sek\b|sekunde|seconde|segundo|bis\b|à\b|hasta\b)")
_DECIMAL_COMMA = re.compile(r"(?<![0-9.,])([0-9]{1,4}),([0-9]{1,3})(?![0-9.,])")

_NUMBER = r"[0-9]{1,6}(?:\.[0-9]{1,20})?"
# A number begins where no more of it precedes, and ends where no more of it follows: not in v1.2, 1.2.3, $3. Its first
# digit is matched before the look behind it, so that other characters are passed over at a glance.
_FIRST_DIGIT = r"[0-9](?<![A-Za-z0-9_$£€#/\\][0-9])(?<![0-9][.:][0-9])"
_STOP = r"(?![0-9]|[.:][0-9])"
SECOND = r"(?:seconds?|secs?\b\.?|s|sekunden?|sek\b\.?|secondes?|segundos?)(?![A-Za-z0-9_])|秒钟?|秒鐘|초"
_MINUTE = r"(?:minutes?|mins?\.?|m)(?![A-Za-z_])|分钟?|分鐘"
_TIME = any_case(
    rf"{_FIRST_DIGIT}(?:(?P<clock>[0-9]{{0,2}}:[0-5][0-9](?::[0-5][0-9])?(?:[.,][0-9]{{1,6}})?{_STOP})"
    rf"|(?P<min>[0-9]{{0,3}})(?:\s?|-)(?:{_MINUTE})"
    rf"(?:[ ,]{{0,2}}(?:and )?(?P<sec>{_NUMBER})(?=\s?(?:{SECOND})))?"
    rf"|(?P<num>[0-9]{{0,5}}(?:\.[0-9]{{1,20}}|(?:,[0-9]{{3}}(?![0-9])){{1,2}})?){_STOP}(?:(?:st|nd|rd|th)\b)?)"
    rf"(?:(?:\s{{0,2}}|-)(?:(?P<ms>(?:ms|msecs?|milliseconds?)(?![A-Za-z0-9_])|毫秒)|(?P<unit>{SECOND})))?"
    r"(?P<mark>[ -](?:marks?|markers?)\b|(?<=[a-z])[ -]points?\b)?"
)
_UNITS_IN_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TENS_IN_WORDS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60}
_WORDS = {
    **{word: value for value, word in enumerate(_UNITS_IN_WORDS, 1)},
    **{"ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15},
    **_TENS_IN_WORDS,
    **{
        f"{ten} {word}": 10 * (2 + tens) + value
        for tens, ten in enumerate(_TENS_IN_WORDS)
        for value, word in enumerate(_UNITS_IN_WORDS, 1)
    },
}
_IN_WORDS = any_case(
    rf"\b(?P<num>(?:{'|'.join(_TENS_IN_WORDS)})[ -](?:{'|'.join(_UNITS_IN_WORDS)})|{'|'.join(_WORDS)})\b"
    r"(?P<unit>[ -](?:seconds?|secs?)\b)?(?P<mark>[ -]marks?\b)?"
)

# What may stand between a word such as "from" and its number, and around the number.
ABOUT = r"about|around|approximately|approx\.?|roughly|exactly|nearly|almost|circa|ca\.|~|≈|约|大约|大概"
NEARLY = rf"(?:(?:{ABOUT}|the|sec(?:ond)?s?|sekunde|timestamps?|t ?=|第)[ \t]{{0,2}}){{0,4}}"
OPEN = r"(?:<[a-z_]{1,12}>|[\[({\"']{1,2})?"
CLOSE = r"(?:</[a-z_]{1,12}>|[\])}\"']{1,2})?"
NUMBER_HEAD = rf"{NEARLY}{OPEN}{NEARLY}"
BEFORE, AFTER = 48, 40  # characters of context beside a time


class Time(NamedTuple):
    """A time, or another bare number, as it is written at the characters [at, stop).

    `number_stop` ends its number, `unit_stop` its unit, `stop` also a "mark" after it. `unit` is "s", "ms", "min s" ("1
    minute 5 seconds"), "min" (minutes alone), "clock", or "" for a bare number.
    """

    at: int
    number_stop: int
    unit_stop: int
    stop: int
    seconds: Seconds
    unit: str
    written: str
    is_mark: bool

    @property
    def is_decimal(self) -> bool:
        return "." in self.written

    @property
    def says_seconds(self) -> bool:
        return self.unit in ("s", "ms", "min s")


class Stated(NamedTuple):
    """An interval as the text states it, in seconds, at the characters [text_start, text_end)."""

    text_start: int
    text_end: int
    start: Seconds
    end: Seconds


class Pair(NamedTuple):
    """Two times in a row, what kind of gap joins them, and the text beside them that no other number stands in."""

    first: Time
    last: Time
    joint: str
    before: str
    after: str

    @property
    def are_clocks(self) -> bool:
        return self.first.unit == self.last.unit == "clock"


def plain(text: str) -> str:
    """The text with dashes, quotes, brackets and full-width signs in their plain form, character for character."""
    if not text.isascii() or "*" in text or "`" in text:
        text = _NOT_PLAIN.sub(lambda match: _PLAIN[match[0]], text)
    if "$" in text:
        text = _IN_DOLLARS.sub(r" \1 ", text)
    if "," in text and _COMMA_LANGUAGE.search(text):
        text = _DECIMAL_COMMA.sub(r"\1.\2", text)
    return text


def times_of(text: str) -> list[Time]:
    """Every time and every bare number of a `plain` text, in order of appearance."""
    times = [_time(match) for match in _TIME.finditer(text)]
    if _counts_seconds_in_words(text):
        times = sorted(times + [_time_in_words(match) for match in _IN_WORDS.finditer(text)])
    return times


def _counts_seconds_in_words(text: str) -> bool:
    """Whether "three seconds" or the like stands somewhere."""
    at = text.find("econd")
    while at >= 0:
        if text[at - 3 : at - 2].isalpha():
            word = text[max(0, at - 9) : at - 2].replace("-", " ").rpartition(" ")[2]
            if word.lower() in _WORDS:
                return True
        at = text.find("econd", at + 5)
    return False


def _time(match: re.Match[str]) -> Time:
    clock, _, rest, number, ms, unit, mark = match.groups()
    at, stop = match.span()
    unit_stop = stop if mark is None else match.start("mark")
    if number is not None:
        number_stop, kind = match.end("num"), "s" if unit is not None else "ms" if ms is not None else ""
        written = match.string[at:number_stop]
        seconds = float(written.replace(",", "")) if number else float(written)
    elif clock is not None:
        number_stop, kind = match.end("clock"), "clock"
        written = match.string[at:number_stop]
        seconds = _clock_seconds(written)
    else:
        number_stop, kind = match.end("min" if rest is None else "sec"), "min" if rest is None else "min s"
        written = match.string[at : match.end("min")]
        seconds = 60.0 * int(written) + float(rest or 0)
    if ms is not None:
        seconds /= 1000
    if not seconds.is_integer():
        seconds = round(seconds, 6)  # 878.127, not 878.1270000000001: equal times must compare equal
    return Time(at, number_stop, unit_stop, stop, seconds, kind, written, mark is not None)


def _time_in_words(match: re.Match[str]) -> Time:
    word, unit, mark = match.groups()
    seconds, kind = float(_WORDS[word.lower().replace("-", " ")]), "s" if unit else ""
    unit_stop = match.end("unit" if unit else "num")
    return Time(
        match.start(), match.end("num"), unit_stop, match.end(), seconds, kind, word, mark is not None
    )


def _clock_seconds(written: str) -> Seconds:
    """Seconds of "0:12", "00:14:38,127"."""
    total = 0.0
    for part in written.replace(",", ".").split(":"):
        total = total * 60 + float(part)
    return total

"""Times in a text: numbers, clocks and "1 minute 5 seconds", each with its unit."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from tgsr.timeline import Seconds


@cache
def any_case(pattern: str) -> re.Pattern[str]:
    """The pattern, in capitals too; compiled once, whenever it is first asked for."""
    return re.compile(pattern, re.IGNORECASE)


# One character for one, so that offsets stay true: any dash is a hyphen, emphasis and odd spaces are blanks,
# traditional characters are simplified.
_PLAIN = {
    **dict.fromkeys("‐‑‒–—―−－", "-"),
    **dict.fromkeys("～〜∼˜", "~"),
    **dict.fromkeys("⟶➔⇒➡", "→"),
    **dict.fromkeys("“”„«»", '"'),
    **dict.fromkeys("‘’", "'"),
    **dict.fromkeys("（【「", "("),
    **dict.fromkeys("）】」", ")"),
    **dict.fromkeys("*`\u00a0\u2009\u202f\u3000\u200b", " "),
    **{chr(ord(zero) + digit): str(digit) for zero in "０٠۰०" for digit in range(10)},
    **dict(zip("：，；．｜［］٫،", ":,;.|[].,", strict=True)),
    **dict(zip("開從時處結續鐘約後個點終兩於為", "开从时处结续钟约后个点终两于为", strict=True)),
}
_NOT_PLAIN = re.compile(f"[{''.join(_PLAIN)}]")
_IN_DOLLARS = re.compile(r"\$(~?[0-9.:]{1,12}s?)\$")
_DECIMAL_COMMA = re.compile(r"(?<![0-9.,])([0-9]{1,4}),([0-9]{1,3})(?![0-9.,])")

_NUMBER = r"[0-9]{1,6}(?:\.[0-9]{1,20})?"
# A number begins where no more of it precedes, and ends where no more of it follows: not in v1.2, 1.2.3, $3. Its first
# digit is matched before the look behind it, so that other characters are passed over at a glance.
_FIRST_DIGIT = r"[0-9](?<![A-Za-z0-9_$£€#/\\][0-9])(?<![0-9][.:][0-9])"
_STOP = r"(?![0-9]|[.:][0-9])"
# 1'05": minutes and seconds; 5'10" and its like are as often a height.
_PRIMES = r"[0-9]?['′](?:[02-5][0-9]|1[2-9]|(?<=[0-389]['′])1[01])(?:\.[0-9]{1,3})?(?:[\"″]|''|′′)"
# Words for seconds that stand before their number too: "al segundo 5", "Sekunde 5".
SECOND_ABROAD = (
    r"(?:segundos?|segons?|second[oi]|secondes?|seconden|sekund\w{0,4}|sek\b\.?|secund\w{1,4}|vteřin\w?|sekunt\w{1,4}"
    r"|sekunn\w{1,4}|másodperc\w{0,6}|секунд\w{0,3}|сек\b\.?|saniye\w{0,6}|detik|giây|δευτερ\w{1,8}"
    r"|(?:ال)?ثاني(?:ة|ه|تين)"
    r"|(?:ال)?ثوان[يٍ]?|ثانیه|שני(?:ה|ות|יות)|सेकंड|सेकेंड|सेकण्ड|วินาที)(?!\w)"
)
SECOND = (
    r"(?:seconds?|secs?\b\.?|s|с(?=\s?(?:$|[-~,.;:)\]→]|до\b|по\b|и\b)))(?![A-Za-z0-9_])"
    rf"|{SECOND_ABROAD}|秒[钟目]?|초"
)
# "3,2 Sekunden", "von 3,2 bis", "Sekunde 3,2", "3,2 s": a comma is a decimal point where such a word is beside it.
_COMMA_LANGUAGE = any_case(
    r"[0-9],[0-9]{1,3}\s?(?:s\s|с\s)?(?:sek\b|sekund|sekunt|second[eio]|seg[ou]n|секунд|сек\b|до\b|по\b|bis\b"
    r"|à\b|a\b|hasta\b"
    r"|até\b|tot\b|do\b|til\b|al\b|hingga\b|sampai\b|saniye|detik|giây|秒|초)|[0-9],[0-9]{1,2}\s?(?:s|с|secs?)\b"
    rf"|(?<!\w){SECOND_ABROAD} [0-9]{{1,4}},[0-9]{{1,2}}(?![0-9])"
)
_MINUTE = r"(?:minutes?|mins?\.?|m|minut[aeio]\w?|минут\w?|мин\.?)(?![A-Za-z_])|分钟?|분"
_TIME = any_case(
    rf"{_FIRST_DIGIT}(?:(?P<clock>[0-9]{{0,2}}:[0-5][0-9](?::[0-5][0-9])?(?:[.,][0-9]{{1,6}}"
    rf"|:[0-9]{{3}})?{_STOP}|{_PRIMES})"
    rf"|(?P<min>[0-9]{{0,3}})(?:\s?|-)(?:{_MINUTE})"
    rf"(?:[ ,]{{0,2}}(?:and )?(?P<sec>{_NUMBER})(?=\s?(?:{SECOND})))?"
    rf"|(?P<num>[0-9]{{0,5}}(?:\.[0-9]{{1,20}}|(?:,[0-9]{{3}}(?![0-9])){{1,2}})?){_STOP}(?:(?:st|nd|rd|th|e|ème|-?[йяюей])\b|वें)?)"
    rf"(?:(?:\s{{0,3}}|-)(?:(?P<ms>(?:ms|msecs?|milliseconds?)(?![A-Za-z0-9_])|毫秒)"
    rf"|(?P<unit>{SECOND}|(?<=:[0-5][0-9] )min(?:ute)?s?\b)))?"
    r"(?P<mark>[ -](?:marks?|markers?)\b|(?<=[a-z])[ -]points?\b)?"
)
# ISO 8601, as subtitles, players and JSON have it: PT3.2S, PT1M3.5S, PT0H1M3S.
_ISO = re.compile(
    r"(?<![A-Za-z0-9_])PT(?=[0-9])(?:(?P<hours>[0-9]{1,2})H)?(?:(?P<minutes>[0-9]{1,3})M)?"
    r"(?:(?P<num>[0-9]{1,6}(?:[.,][0-9]{1,20})?)S)?(?P<unit>)(?<=[HMS])(?![A-Za-z0-9_])(?P<mark>[ -]marks?\b)?"
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
_DIGITS_IN_WORDS = {"zero": 0, "oh": 0, **{word: value for value, word in enumerate(_UNITS_IN_WORDS, 1)}}
_WORD = rf"(?:(?:{'|'.join(_TENS_IN_WORDS)})[ -](?:{'|'.join(_UNITS_IN_WORDS)})|{'|'.join(_WORDS)})"
_AND_DIGITS = rf"(?: point(?: (?:{'|'.join(_DIGITS_IN_WORDS)})\b){{1,3}})?"
_IN_WORDS = any_case(
    rf"\b(?:(?P<min>{_WORD})[ -]minutes?\b"
    rf"(?:[ ,]{{0,2}}(?:and )?(?P<sec>{_WORD}{_AND_DIGITS})(?=[ -](?:seconds?|secs?)\b))?"
    rf"|(?P<num>(?:{_WORD}|zero(?= point)){_AND_DIGITS})\b)"
    r"(?P<unit>[ -](?:seconds?|secs?)\b)?(?P<mark>[ -]marks?\b)?"
)
_CHINESE_DIGITS = "零一二三四五六七八九"
_IN_CHINESE = re.compile(
    rf"(?P<num>[{_CHINESE_DIGITS}两十]{{1,3}}(?:点[{_CHINESE_DIGITS}]{{1,3}})?)(?P<unit>秒钟?)(?P<mark>)"
)

# What may stand between a word such as "from" and its number, and around the number.
ABOUT = r"about|around|approximately|approx\.?|roughly|exactly|nearly|almost|circa|ca\.|~|≈|约|大约|大概"
NEARLY = (
    rf"(?:(?:{ABOUT}|the|sec(?:ond)?s?|sekunde|timestamps?|t_?(?:[0-9]|start|end)? ?=|第)[ \t]{{0,2}}){{0,4}}"
)
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
        return "." in self.written or " point" in self.written or "点" in self.written

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
    if _DECIMAL_COMMA.search(text) and _COMMA_LANGUAGE.search(text):
        text = _DECIMAL_COMMA.sub(r"\1.\2", text)
    return text


def times_of(text: str) -> list[Time]:
    """Every time and every bare number of a `plain` text, in order of appearance."""
    times = [_time(match) for match in _TIME.finditer(text)]
    if _counts_in_words(text, "econd") or _counts_in_words(text, "inute"):
        times = sorted(times + [_time_in_words(match) for match in _IN_WORDS.finditer(text)])
    if "秒" in text and (in_chinese := [_time_in_words(match) for match in _IN_CHINESE.finditer(text)]):
        times = sorted(times + in_chinese)
    if "PT" in text and (iso := [_iso_time(match) for match in _ISO.finditer(text)]):
        times = sorted(times + iso)
    return times


def _counts_in_words(text: str, unit: str) -> bool:
    """Whether "three seconds" or the like stands somewhere; `unit` without its first letter, which may be a capital."""
    at = text.find(unit)
    while at >= 0:
        if text[at - 3 : at - 2].isalpha():
            word = text[max(0, at - 9) : at - 2].replace("-", " ").rpartition(" ")[2]
            if word.lower() in _WORDS:
                return True
        at = text.find(unit, at + 5)
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
        seconds = clock_seconds(written)
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
    *minutes, word, unit, mark = match.groups()  # "one minute and five seconds" in English alone
    at, stop = match.span()
    unit_stop = stop if mark is None else match.start("mark")
    if word is not None:
        seconds, number_stop, kind = _number_in_words(word), match.end("num"), "s" if unit else ""
        return Time(at, number_stop, unit_stop, stop, seconds, kind, word, bool(mark))
    whole, rest = minutes
    seconds = 60 * _number_in_words(whole) + (_number_in_words(rest) if rest else 0)
    number_stop = match.end("sec" if rest else "min")
    return Time(at, number_stop, unit_stop, stop, seconds, "min s" if rest else "min", whole, bool(mark))


def _iso_time(match: re.Match[str]) -> Time:
    hours, minutes, seconds = (
        float((match[part] or "0").replace(",", ".")) for part in ("hours", "minutes", "num")
    )
    stop, written = match.end("unit"), match.string[match.start() : match.end("unit")]
    total = round(3600 * hours + 60 * minutes + seconds, 6)
    return Time(match.start(), stop, stop, match.end(), total, "s", written, match["mark"] is not None)


def _number_in_words(word: str) -> Seconds:
    """ "twenty-one", "three point two", "十二", "三点二"."""
    if word.isascii():
        whole, _, digits = word.lower().replace("-", " ").partition(" point")
        decimals = "".join(str(_DIGITS_IN_WORDS[digit]) for digit in digits.split())
        return float(f"{_WORDS.get(whole, 0)}.{decimals or 0}")
    whole, _, digits = word.replace("两", "二").partition("点")
    tens, ten, ones = whole.rpartition("十")
    number = 10 * (_CHINESE_DIGITS.find(tens) if tens else 1) if ten else 0
    decimals = "".join(str(_CHINESE_DIGITS.index(digit)) for digit in digits)
    return float(f"{number + max(0, _CHINESE_DIGITS.find(ones[-1:] or '零'))}.{decimals or 0}")


_PARTS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def clock_seconds(written: str) -> Seconds:
    """Seconds of "0:12", "00:14:38,127", "00:14:38:127", "1'05\"", "1 min 5" and of bare "3,2"."""
    parts = _PARTS.findall(written.replace(",", "."))
    milliseconds = int(parts.pop()) if len(parts) > 2 and len(parts[-1]) == 3 else 0
    total = 0.0
    for part in parts:
        total = total * 60 + float(part)
    return total + milliseconds / 1000

"""How what is written is said: numbers, money, times of day, signs. Whisper writes "$43,000"; nobody says that."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import chain, islice, product
from typing import Any

from tgsr.reasoning import numeral_speller

SIGNS = {"%": "percent", "&": "and", "+": "plus", "=": "equals", "@": "at", "°": "degrees"}
MONEY = {
    **{"$": ("dollars", "cents"), "£": ("pounds", "pence"), "€": ("euros", "cents")},
    **{"¥": ("yen", "sen"), "₹": ("rupees", "paise")},
}
PIECE = re.compile(
    r"(?P<money>[$£€¥₹])?(?P<number>\d+(?:[.,:]\d+)*)(?P<ending>st|nd|rd|th|'?s|\s?[$£€¥₹])?(?![A-Za-z\d])"
    r"|(?P<digits>\d+)|[A-Za-z]+(?:'[A-Za-z]+)*|[%&+=@°]"
)
LIGATURES = {"æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ß": "ss"}
WITHOUT_PARTS = str.maketrans({**LIGATURES, "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "’": "'"})
MOST_READINGS = 8  # of a word
FEWEST_ONE_BY_ONE = 5  # digits without a comma: nobody says them as one number
Reading = tuple[str, ...]


def spell(word: str) -> list[str]:
    """A written word as the lower-case words that are said, by its likeliest reading: "1985," -> nineteen eighty five;
    "Café" -> cafe; "--" -> none.
    """
    return list(readings(word)[0])


def readings(word: str) -> tuple[Reading, ...]:
    """All ways to say a written word, the likeliest first, up to MOST_READINGS; ((),) where there is nothing to say."""
    pieces = [_readings_of(piece) for piece in PIECE.finditer(in_plain_letters(word))]
    return tuple(tuple(chain(*chosen)) for chosen in islice(product(*pieces), MOST_READINGS))


@lru_cache(maxsize=1 << 14)
def in_plain_letters(text: str) -> str:
    """The text without accents and ligatures, as dictionaries of English have it: "ﬁancée’s" -> "fiancee's".

    Letters of other scripts stay, and so do signs that are no letters (½, ²).
    """
    if text.isascii():
        return text
    letters = (unicodedata.normalize("NFKD", one) if one.isalpha() else one for one in text)
    plain = "".join(letters).translate(WITHOUT_PARTS)
    return "".join(one for one in plain if not unicodedata.combining(one))


def _readings_of(piece: re.Match[str]) -> tuple[Reading, ...]:
    text = piece.group()
    if digits := piece["digits"]:  # letters follow: 4K
        return _number(digits)
    number = piece["number"]
    if number is None:
        return ((SIGNS.get(text, text.lower()),),)
    ending = (piece["ending"] or "").strip().strip("'")
    if money := MONEY.get(piece["money"] or ending):
        return _money(number, *money)
    if ending == "s":
        return tuple((*said[:-1], _plural(said[-1])) for said in _number(number)[:2])
    if ending:
        return tuple(tuple(_words(numeral_speller().ordinal(" ".join(said)))) for said in _number(number)[:2])
    return _number(number)


def _money(number: str, whole: str, hundredths: str) -> tuple[Reading, ...]:
    before, point, after = number.partition(".")
    if point and len(after) == 2:
        large, small = (_number(part.lstrip("0") or "0")[0] for part in (before, after))
        return (*large, whole, "and", *small, hundredths), (*large, whole, *small), (*large, *small)
    # "$3 million": the unit is said later
    return tuple(reading for said in _number(number)[:3] for reading in ((*said, whole), said))


def _number(number: str) -> tuple[Reading, ...]:
    """Digits, with commas, a point or a colon."""
    if ":" in number:
        hours, *rest = (int(re.sub(r"\D", "", part)) for part in number.split(":"))
        minutes = [("oh", *_whole(part)) if part < 10 else _whole(part) for part in rest if part]
        return ((*_whole(hours), *(word for of_part in minutes for word in of_part)),)
    digits = number.replace(",", "")
    plain = tuple(_words(numeral_speller().number_to_words(digits)))
    short = tuple(_words(numeral_speller().number_to_words(digits, andword="")))
    if not digits.isdigit() or len(digits) == 1:
        return tuple(dict.fromkeys((plain, ("oh",) if digits == "0" else plain)))
    singly = tuple(_words(numeral_speller().number_to_words(digits, group=1)))
    one_by_one = (singly, tuple("oh" if digit == "zero" else digit for digit in singly))
    if "," not in number and (digits[0] == "0" or len(digits) >= FEWEST_ONE_BY_ONE):
        return tuple(dict.fromkeys((*one_by_one, plain, short)))
    as_year = _year(int(digits)) if len(digits) == 4 and "," not in number else ()
    return tuple(dict.fromkeys((*as_year, plain, short, *one_by_one)))


def _year(year: int) -> tuple[Reading, ...]:
    century, rest = divmod(year, 100)
    if year < 1100 or 2000 <= year < 2010:
        return ()
    ending = ("hundred",) if not rest else ("oh", *_whole(rest)) if rest < 10 else _whole(rest)
    return ((*_whole(century), *ending),)


def _whole(number: int) -> Reading:
    return tuple(_words(numeral_speller().number_to_words(number)))


def _words(text: Any) -> list[str]:
    return re.findall(r"[a-z]+", str(text).lower())


def _plural(word: str) -> str:
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}es" if word.endswith("x") else f"{word}s"

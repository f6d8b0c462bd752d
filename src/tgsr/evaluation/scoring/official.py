"""What the benchmarks' owners compute, what we read instead, and why the two differ on an answer.

Official is what the owner's own script makes of a text, its faults included. Strict is one reading for all: the option
that the text ends up with (choices.extract_choice), compared as text with the right one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tgsr.choices import (
    airbench_letter,
    extract_choice,
    letter,
    official_letter,
    token_match,
    why_unclear,
)
from tgsr.evaluation.benchmarks import Benchmark

# Why official and strict differ. docs/scoring.md defines each; a new one needs its definition there.
OTHER_WORDS = "another choice's words beside the right one"
LETTER_WITHOUT_TEXT = "letter without text"
NO_WORDS = "no word to match"
SCATTERED = "the right words, not as a choice's text"
SAME_WORDS = "choices of the same words"
NO_LETTER = "text without letter"
BEYOND_D = "(e) and further letters never score"
NOT_LAST_LINE = "letter before the last line"
OTHER_LETTER_FIRST = "another letter first in the last line"
REPEATED = "repeated choice text"
SEVERAL = "several answers"
AGAINST = "letter against text"
UNCLEAR = "no clear answer"
UNREADABLE = "unreadable left the denominator"
MISREAD = "letter read elsewhere in the text"
REASONS = (
    *(OTHER_WORDS, LETTER_WITHOUT_TEXT, NO_WORDS, SCATTERED, SAME_WORDS, NO_LETTER, BEYOND_D, NOT_LAST_LINE),
    *(OTHER_LETTER_FIRST, REPEATED, SEVERAL, AGAINST, UNCLEAR, UNREADABLE, MISREAD),
)

_WORD = re.compile(r"\b\w+\b")
_UNCLEAR = {"none": UNCLEAR, "several": SEVERAL, "against": AGAINST}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one answer. `official` is None where the owner's script leaves it out of its denominator, and
    both are None where nobody says what is right. `chosen` is strict's option, `letter` the one that the official
    rule reads, where it reads letters. `why` is None where official and strict agree.
    """

    official: bool | None
    strict: bool | None
    chosen: int | None
    letter: str | None
    why: str | None


def authors_verdict(text: str, choices: Sequence[str], answer: str) -> Verdict:
    """The paper's own answer reward (Eq. 1): the first "(a)" to "(d)" of the last line that is not blank."""
    read, chosen = official_letter(text), extract_choice(text, choices)
    index = choices.index(answer)
    official = read is not None and read == letter(index)
    strict = chosen is not None and choices[chosen] == answer
    why = None
    if strict and not official and chosen is not None:
        why = _why_authors_missed(text, read, chosen, index)
    elif official and not strict:
        why = _why_strict_missed(text, choices)
    return Verdict(official, strict, chosen, read, why)


def verdict(
    benchmark: Benchmark,
    text: str,
    choices: Sequence[str | None],
    answer: str | None,
) -> Verdict:
    """One answer as its benchmark's owner scores it, and as we read it.

    MMAU, MMAR: sets of words. AIR-Bench: the letter of the first choice with the answer's text; None where no letter
    is read, and where the answer is no choice (its script stops there). MELD, whose owners have no script for texts:
    strict for both. `choices` are in the owner's order, null ones included; `answer` None is unknown.
    """
    return _judged(benchmark, text, choices, answer, extract_choice(text, choices))


def verdicts(
    benchmark: Benchmark, text: str, choices: Sequence[str], answer: str, chosen: int | None
) -> tuple[Verdict, Verdict]:
    """What the owner's script says of the option that a completion ends up with, and of the whole completion.

    `chosen` is that option, as extract_choice reads it; where it is unclear, the script gets the whole text.
    """
    as_is = _judged(benchmark, text, choices, answer, chosen)
    if chosen is None:
        return as_is, as_is
    return _judged(benchmark, handed_over(benchmark, text, choices, chosen), choices, answer, chosen), as_is


def _judged(
    benchmark: Benchmark, said: str, choices: Sequence[str | None], answer: str | None, chosen: int | None
) -> Verdict:
    read = airbench_letter(said) if benchmark == "airbench" else None
    if answer is None or (benchmark == "airbench" and answer not in choices[:4]):
        return Verdict(None, None, chosen, read, None)
    strict = chosen is not None and choices[chosen] == answer
    if benchmark == "meld":
        return Verdict(strict, strict, chosen, None, None)
    if benchmark == "airbench":
        official = None if read is None else read == "ABCD"[choices.index(answer)]
        why = None if official == strict else _why_letters(said, read, choices, answer, strict)
        return Verdict(official, strict, chosen, read, why)
    official = token_match(said, answer, choices)
    why = None
    if strict and not official:
        why = _why_words_missed(said, answer)
    elif official and not strict:
        why = _why_words_matched(said, choices, chosen)
    return Verdict(official, strict, chosen, None, why)


def handed_over(benchmark: Benchmark, text: str, choices: Sequence[str | None], chosen: int | None) -> str:
    """What a careful user gives the owner's script: the option that a completion ends up with, in the form that the
    script wants; the whole text where that is unclear.

    AIR-Bench wants a letter: that of the first choice with the option's text, which is the one its script compares
    with. The others want the text without its letter.
    """
    option = None if chosen is None else choices[chosen]
    if option is None:
        return text
    return letter(choices.index(option)).upper() if benchmark == "airbench" else option


def _why_letters(
    text: str, read: str | None, choices: Sequence[str | None], answer: str, strict: bool
) -> str:
    """AIR-Bench's letter and strict differ."""
    if read is None:
        return UNREADABLE
    if not strict:
        return _why_strict_missed(text, choices) or MISREAD
    at = "ABCD".index(read)
    return REPEATED if at < len(choices) and choices[at] == answer else MISREAD


def _why_authors_missed(text: str, read: str | None, chosen: int, right: int) -> str:
    """Strict is right, the authors' letter is not."""
    if read is not None:
        return REPEATED if chosen != right and read == letter(chosen) else OTHER_LETTER_FIRST
    if re.search(rf"\({letter(chosen)}\)", text, re.IGNORECASE) is None:
        return NO_LETTER
    return BEYOND_D if chosen > 3 else NOT_LAST_LINE


def _why_strict_missed(text: str, choices: Sequence[str | None]) -> str | None:
    """The official rule is right, strict reads no option; None where it reads another one."""
    problem = why_unclear(text, choices)
    return None if problem is None else _UNCLEAR[problem]


def _why_words_missed(text: str, answer: str) -> str:
    """Strict is right, the sets of words are not."""
    said, right = (set(_WORD.findall(words.lower())) for words in (text, answer))
    if not said:
        return NO_WORDS
    return OTHER_WORDS if right <= said else LETTER_WITHOUT_TEXT


def _why_words_matched(text: str, choices: Sequence[str | None], chosen: int | None) -> str:
    """The sets of words are right, strict is not."""
    if chosen is not None:
        return SAME_WORDS
    problem = why_unclear(text, choices)
    return SCATTERED if problem in (None, "none") else _UNCLEAR[problem]

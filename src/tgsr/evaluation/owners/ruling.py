"""What becomes of one answer, officially and strictly, and why the two differ.

Official is what the owner's own script makes of a text, its faults included. Strict is one reading for all: the option
that the text ends up with (choices.extract_choice), compared as text with the right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tgsr.choices import why_unclear

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
EMBEDDED = "no choice's own text, which the owner's embedding would judge"
MISREAD = "letter read elsewhere in the text"
REASONS = (
    *(OTHER_WORDS, LETTER_WITHOUT_TEXT, NO_WORDS, SCATTERED, SAME_WORDS, NO_LETTER, BEYOND_D, NOT_LAST_LINE),
    *(OTHER_LETTER_FIRST, REPEATED, SEVERAL, AGAINST, UNCLEAR, UNREADABLE, EMBEDDED, MISREAD),
)


class Ruling(NamedTuple):
    """What becomes of one answer. `official` is None where the owner's script leaves it out of its denominator, and
    both are None where nobody says what is right. `chosen` is strict's option, `letter` the one that the official
    rule reads, where it reads letters. `why` is None where official and strict agree.
    """

    official: bool | None
    strict: bool | None
    chosen: int | None
    letter: str | None
    why: str | None


def why_no_option(text: str, choices: Sequence[str | None]) -> str | None:
    """Why strict reads no option in the text; None where it reads one."""
    unclear = why_unclear(text, choices)
    return None if unclear is None else {"none": UNCLEAR, "several": SEVERAL, "against": AGAINST}[unclear]

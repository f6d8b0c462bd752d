"""Questions of ours: the paper's authors score them by the letter in the last line (Eq. 1)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tgsr.choices import extract_choice, letter, official_letter
from tgsr.evaluation.owners.ruling import (
    BEYOND_D,
    NO_LETTER,
    NOT_LAST_LINE,
    OTHER_LETTER_FIRST,
    REPEATED,
    Ruling,
    why_no_option,
)


def authors_ruling(text: str, choices: Sequence[str], answer: str) -> Ruling:
    """The paper's own answer reward (Eq. 1): the first "(a)" to "(d)" of the last line that is not blank."""
    read, chosen = official_letter(text), extract_choice(text, choices)
    right = choices.index(answer)
    official = read is not None and read == letter(right)
    strict = chosen is not None and choices[chosen] == answer
    why = None
    if official and not strict:
        why = why_no_option(text, choices)
    elif strict and not official and chosen is not None:
        if read is not None:
            why = REPEATED if chosen != right and read == letter(chosen) else OTHER_LETTER_FIRST
        elif re.search(rf"\({letter(chosen)}\)", text, re.IGNORECASE) is None:
            why = NO_LETTER
        else:
            why = BEYOND_D if chosen > 3 else NOT_LAST_LINE
    return Ruling(official, strict, chosen, read, why)

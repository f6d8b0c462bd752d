"""Multiple choice: how options are lettered, which one a text names, how the benchmarks match it."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tgsr.records import Question

_OFFICIAL_LETTER = re.compile(r"\(([a-d])\)")
_TOKEN = re.compile(r"\b\w+\b")
_LETTERS = string.ascii_lowercase

Unclear = Literal["none", "several", "against"]

# "answer" alone announces nothing: it may be a word of a choice.
_MARKER = re.compile(
    r"(?=[ac])(?<!/)\b(?:answer|correct\s{1,4}(?:option|choice))\b[\s*]{0,4}"
    r"(?:[:=>]|(?:is|would\s{1,4}be)\b\s{0,4}:?|(?=\()|(?=(?-i:[A-Z])\b))[\s*\"'-]{0,8}",
    re.IGNORECASE,
)
# "(b)" anywhere; at the head also "b)", "b.", "b:", "option b", a letter alone, and a capital before words
# unless it is an English word itself (A, I).
_BRACKETED = re.compile(r"\(\s?([a-z])\s?\)", re.IGNORECASE)
_HEAD = re.compile(
    r"[\s*\"'>_-]{0,8}(?i:(?:option|choice)\s{1,4})?(?:"
    r"\(\s?(?P<round>[A-Za-z])\s?\)"
    r"|(?P<marked>[A-Za-z])(?:[).:\]*]|,(?=\s))(?!\w)"
    r"|(?P<alone>[A-Za-z])\s{0,4}(?:$|<)"
    r"|(?P<capital>[B-HJ-Z])(?=\s)"
    r")[\s*):.,-]{0,8}"
)


def letter(index: int) -> str:
    """The letter of the option at `index`: 0 is "a". ValueError outside [0, 26)."""
    if not 0 <= index < len(_LETTERS):
        raise ValueError(f"an option's index must be in [0, {len(_LETTERS)}), got {index}")
    return _LETTERS[index]


def correct_letter(question: Question) -> str:
    """The letter of a choice question's answer."""
    return letter(question.choices.index(str(question.answer)))


def format_choices(choices: Sequence[str]) -> str:
    """ "(a) text", one option a line, as the paper's prompts list them (appendix B.1.3).

    No choices give "". ValueError for more than 26.
    """
    return "\n".join(f"({letter(index)}) {choice}" for index, choice in enumerate(choices))


def official_letter(completion: str | None) -> str | None:
    """The first "(a)" to "(d)", any case, in the last line that is not blank; None where it has none.

    "(e)" is no letter here, whatever the number of choices. Source: the paper's answer reward, as its
    authors compute it.
    """
    text = (completion or "").rstrip()
    match = _OFFICIAL_LETTER.search(text[text.rfind("\n") + 1 :].lower())
    return match[1] if match else None


def extract_choice(completion: str | None, choices: Sequence[str | None]) -> int | None:
    """The index in `choices` of the one option that the text ends up with; None where that is unclear.

    Read is what follows the last "answer:", "answer is" and the like, up to the line's end, else the
    last line that is not blank. A letter within the number of choices counts as "(b)" anywhere there,
    and at its head as "b)", "b." or "B"; without a letter, the text of exactly one choice does (the
    longest, where one choice's text holds another's; the first, where choices repeat). None for no
    option, for more than one, and for a letter beside the whole text of another choice.
    Our own reading, not a benchmark's: see `official_letter`, `token_match`, `airbench_letter`.
    """
    reading = _read(completion, choices)
    return reading if isinstance(reading, int) else None


def why_unclear(completion: str | None, choices: Sequence[str | None]) -> Unclear | None:
    """Why `extract_choice` gives None: "none" of the options is named, "several" are, or a letter stands "against"
    the whole text of another choice. None where the text is clear.
    """
    reading = _read(completion, choices)
    return None if isinstance(reading, int) else reading


def _read(completion: str | None, choices: Sequence[str | None]) -> int | Unclear:
    start, end = final_statement(completion or "")
    statement = (completion or "")[start:end]
    words = _choice_words(tuple(choices))
    whole = _words(statement)
    if whole.strip() and whole in words:
        return words.index(whole)  # a choice may itself be one letter, or hold "(b)"
    head = _HEAD.match(statement)
    index = _index(head.group(head.lastgroup), len(choices)) if head and head.lastgroup else None
    if head and index is not None:
        rest = _words(statement[head.end() :])
        if rest.strip() and rest == words[index]:
            return index
        if rest.strip() and rest in words:
            return "against"
    indices = {_index(named, len(choices)) for named in _BRACKETED.findall(statement)}
    indices.discard(None)
    if index is not None:
        indices.add(index)
    if indices:
        only = indices.pop()
        return "several" if indices or only is None else only
    return _only_choice_in(whole, words)


def token_match(prediction: str | None, answer: str | None, choices: Sequence[str | None]) -> bool:
    r"""Whether MMAU's and MMAR's scorers call the prediction right.

    As sets of lower-cased \b\w+\b tokens: the prediction has all the answer's tokens, and none that
    another choice has and the answer lacks. A prediction without a token, or None, is wrong; null
    choices are passed over. Source: string_match of the benchmarks' evaluation scripts.
    """
    predicted = _tokens(prediction)
    right, wrong = _right_and_wrong(answer, tuple(choices))
    return bool(predicted) and right <= predicted and not predicted & wrong


def airbench_letter(response: str | None) -> str | None:
    """The letter "A" to "D" that AIR-Bench's scorer reads; None where the row leaves its denominator.

    The first character, else the last but one ("The answer is A."), after outer blanks and line breaks
    are taken away; None for other texts, empty ones and the word "None".
    Source: the foundation benchmark's scoring script.
    """
    text = (response or "").strip().replace("\n", "")
    if not text or text == "None":
        return None
    if text[0] in "ABCD":
        return text[0]
    return text[-2] if len(text) > 1 and text[-2] in "ABCD" else None


# A question comes with several predictions, often one after another; 64 of them hold little, whatever their length.
@lru_cache(maxsize=64)
def _right_and_wrong(
    answer: str | None, choices: tuple[str | None, ...]
) -> tuple[frozenset[str], frozenset[str]]:
    right = frozenset(_tokens(answer))
    return right, frozenset().union(*(_tokens(choice) for choice in choices)) - right


@lru_cache(maxsize=64)
def _choice_words(choices: tuple[str | None, ...]) -> tuple[str, ...]:
    return tuple(_words(choice or "") for choice in choices)


def _tokens(text: str | None) -> set[str]:
    return set(_TOKEN.findall((text or "").lower()))


def final_statement(text: str) -> tuple[int, int]:
    """The characters that `extract_choice` reads: after the last "answer" to its line's end, or the last line."""
    text = text.rstrip()
    start = text.rfind("\n") + 1
    for marker in _MARKER.finditer(text):
        if marker.end() < len(text):
            start = marker.end()
    end = text.find("\n", start)
    return start, end if end >= 0 else len(text)


def _index(letter: str, n_choices: int) -> int | None:
    index = _LETTERS.find(letter.lower())
    return index if 0 <= index < n_choices else None


def _words(text: str) -> str:
    """Lower-cased words between single blanks, one at either end, so that `in` finds whole words only."""
    return f" {' '.join(_TOKEN.findall(text.lower()))} "


def _only_choice_in(statement: str, choices: Sequence[str]) -> int | Unclear:
    named = {choice for choice in choices if choice.strip() and choice in statement}
    longest = [choice for choice in named if not any(choice != other and choice in other for other in named)]
    if len(longest) != 1:
        return "several" if longest else "none"
    return choices.index(longest[0])

"""Multiple choice: how options are lettered, which one a text names, how the benchmarks match it."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from tgsr.reading.statements import Options, Reading, Unclear, read
from tgsr.reading.thoughts import said_aloud

if TYPE_CHECKING:
    from tgsr.records import Question

_OFFICIAL_LETTER = re.compile(r"\(([a-d])\)")
_TOKEN = re.compile(r"\b\w+\b")
_LETTERS = string.ascii_lowercase


_LETTERS_ALONE = Options((), n_letters=26)
_LETTER_ALONE = re.compile(
    r"[^\w?✗✘❌]*(?:(?:the )?(?:final |correct )?(?:answer|option)(?: is)?[^\w?✗✘❌]+)?([a-z])[^\w#♯♭?✗✘❌]*",
    re.IGNORECASE,
)
_PLAIN = re.compile(
    r"(?P<says>[Ff]inal [Aa]nswer: )?(?:\((?P<letter>[A-Za-z])\) ?|(?P<capital>[A-Z])[.)] )?(?P<text>.*)"
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
    authors compute it. Their models do not think: a response that ends inside its thoughts has no answer yet (ours).
    """
    text = (completion or "").rstrip()
    if said_aloud(text)[2]:
        return None
    match = _OFFICIAL_LETTER.search(text[text.rfind("\n") + 1 :].lower())
    return match[1] if match else None


def extract_choice(completion: str | None, choices: Sequence[str | None]) -> int | None:
    """The index in `choices` of the one option that a careful reader says was meant; None where none or several were.

    What counts is what the text states as its answer, by letter or by text: in <answer> tags or a box, after "the
    answer is" and the like, else at its head, else in its last line. A hedge, a negation, a question and a
    condition are no answer, a letter beside another choice's text neither, and what "wait, no" takes back counts no
    more; thoughts that are closed are not read, and those that are not have no answer. Where choices repeat, a text
    is the first of them.
    Our own reading, not a benchmark's: see `official_letter`, `token_match`, `airbench_letter`.
    """
    return read_choice(completion, choices).index


def why_unclear(completion: str | None, choices: Sequence[str | None]) -> Unclear | None:
    """Why `extract_choice` gives None: "none" of the options is affirmed, "several" are or one is left open, or a
    letter stands "against" the text of another choice. None where the text is clear.
    """
    return read_choice(completion, choices).why


def read_choice(completion: str | None, choices: Sequence[str | None]) -> Reading:
    """What `extract_choice` and `why_unclear` give, with the place in the text that says so."""
    return _reading(completion or "", tuple(choices))


def final_statement(text: str, choices: Sequence[str | None] = ()) -> tuple[int, int]:
    """The characters that announce and name the answer; without choices, the answer is a letter."""
    reading = read_choice(text, choices) if choices else read(text, _LETTERS_ALONE)
    return reading.start, reading.end


# A response is read for several scores, one after another; 64 of them hold little, whatever their length.
@lru_cache(maxsize=64)
def _reading(text: str, choices: tuple[str | None, ...]) -> Reading:
    return _plain(text, choices) or read(text, Options(choices))


def _plain(text: str, choices: Sequence[str | None]) -> Reading | None:
    """The reading of a text that is a letter, or is, or has as its only final answer, "(b) text", "B. text" or a text.

    None for any other text: what most responses are is read at once, and the same as `read` would.
    """
    if (
        len(text) < 40
        and (alone := _LETTER_ALONE.fullmatch(text))
        and min(map(len, map(str, choices)), default=0) > 1
    ):
        index = ord(alone[1].lower()) - 97
        return Reading(index, None, alone.start(), alone.end()) if index < len(choices) else None
    end = len(text.rstrip())
    start = text.rfind("\n", 0, end) + 1
    match = _PLAIN.match(text, start, end)
    if match is None or (start and (match["says"] is None or not _is_only_final_answer(text, start))):
        return None
    said, named = match["text"], match["letter"] or match["capital"]
    if named is None:
        return Reading(choices.index(said), None, start, end) if said in choices and said else None
    index = ord(named.lower()) - 97
    choice = choices[index] if index < len(choices) else None
    if choice is not None and (said.rstrip(".") == choice.rstrip(".") or (not said and match["letter"])):
        return Reading(index, None, start, end)
    return None


def _is_only_final_answer(text: str, start: int) -> bool:
    before = text[:start].lower()
    return not any(other in before for other in ("final", "boxed", "<", "[think", "◁", "{", "最终"))


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


def _tokens(text: str | None) -> set[str]:
    return set(_TOKEN.findall((text or "").lower()))

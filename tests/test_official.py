"""What the owners' scripts compute, stated a second time here, and the reasons for which strict differs."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgsr.choices import extract_choice
from tgsr.evaluation.owners import ruling
from tgsr.evaluation.owners.files import OWNERS
from tgsr.evaluation.owners.meld import EMOTIONS
from tgsr.evaluation.owners.ours import authors_ruling
from tgsr.evaluation.owners.ruling import REASONS, Ruling

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
DOCS = Path(__file__).resolve().parents[1] / "docs" / "scoring.md"
MMAU, MMAR = DATA / "mmau" / "mmau-test-mini.json", DATA / "mmar" / "MMAR-meta.jsonl"
WORDS = ["man", "Woman", "a", "the", "(b)", "B", "no", "1-2", "2-1", "A.", "é", "_x", "joy", ""]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)


def words_match(prediction: str, answer: str, choices: Sequence[str | None]) -> bool:
    """MMAU's and MMAR's rule, from its description: all words of the answer, and none that only other choices have."""
    said, right = (re.findall(r"\b\w+\b", text.lower()) for text in (prediction, answer))
    if not said:
        return False
    for word in right:
        if word not in said:
            return False
    for choice in choices:
        for word in re.findall(r"\b\w+\b", (choice or "").lower()):
            if word in said and word not in right:
                return False
    return True


def letter_match(response: str, answer: str, choices: Sequence[str | None]) -> bool | None:
    """AIR-Bench's rule: the first character, else the last but one; against the first choice with the answer's text."""
    text = response.strip().replace("\n", "")
    if text == "None" or text == "":
        return None
    read = None
    for at in (0, -2):
        if read is None and len(text) >= max(1, -at) and text[at] in ("A", "B", "C", "D"):
            read = text[at]
    if read is None:
        return None
    for letter, choice in zip("ABCD", choices, strict=False):
        if choice == answer:
            return letter == read
    raise AssertionError("the answer is no choice")


@given(TEXTS, st.lists(st.none() | TEXTS, min_size=1, max_size=5), st.integers(0, 4))
def test_words_are_matched_as_the_owners_do(text: str, choices: list[str | None], at: int) -> None:
    answer = choices[at % len(choices)]
    if answer is not None:
        assert OWNERS["mmau"].ruling(text, choices, answer).official == words_match(text, answer, choices)


@given(
    st.text(alphabet="ABCDabe. \n()N", max_size=6) | st.just("None"),
    st.lists(st.sampled_from(["x", "y", None]), min_size=2, max_size=4),
    st.integers(0, 3),
)
def test_letters_are_read_as_the_owners_do(text: str, choices: list[str | None], at: int) -> None:
    answer = choices[at % len(choices)]
    if answer is not None:
        assert OWNERS["airbench"].ruling(text, choices, answer).official == letter_match(
            text, answer, choices
        )


def rows_of(path: Path) -> list[dict[str, object]]:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


def said_about(choices: Sequence[str], answer: str, rng: random.Random) -> str:
    """What models write, and what breaks scorers."""
    other, at = rng.choice(choices), choices.index(answer)
    letter = "abcdefghijklmnop"[at]
    return rng.choice(
        [
            answer,
            other,
            f"({letter})",
            f"{letter.upper()}. {answer}",
            f"Final answer: ({letter}) {answer}",
            f"It is {answer}, not {other}.",
            f"The answer is {letter.upper()}.",
            answer.upper(),
            " ".join(reversed(answer.split())),
            f"{answer} {other}",
            "",
            "None",
            "🙂",
            f"Certainly! {other}",
        ]
    )


@pytest.mark.parametrize("path", [MMAU, MMAR], ids=["mmau", "mmar"])
def test_the_real_questions_are_scored_as_the_owners_do(path: Path) -> None:
    if not path.is_file():
        pytest.skip(f"needs the benchmark's file {path.name}")
    rng = random.Random(0)
    n_differ = 0
    for row in rows_of(path):
        choices, answer = row["choices"], row["answer"]
        assert isinstance(choices, list)
        assert isinstance(answer, str)
        for _ in range(4):
            text = said_about(choices, answer, rng)
            judged = OWNERS["mmau"].ruling(text, choices, answer)
            assert judged.official == words_match(text, answer, choices)
            assert (judged.why is None) == (judged.official == judged.strict)
            n_differ += judged.why is not None
            # no metadata of AIR-Bench are at hand: its rule on these questions' first four choices
            four = [*choices, None, None][:4]
            if answer in four:
                judged = OWNERS["airbench"].ruling(text, four, answer)
                assert judged.official == letter_match(text, answer, four)
                assert (judged.why is None) == (judged.official == judged.strict)
    assert n_differ > 100


CHOICES = ["Man", "Woman", "Child", "Robot"]
Judge = Callable[[str], Ruling]


def words(text: str, choices: Sequence[str] = CHOICES, answer: str = "Woman") -> Ruling:
    return OWNERS["mmau"].ruling(text, choices, answer)


def letters(text: str, choices: Sequence[str | None] = CHOICES, answer: str = "Woman") -> Ruling:
    return OWNERS["airbench"].ruling(text, choices, answer)


def authors(text: str, choices: Sequence[str] = CHOICES, answer: str = "Woman") -> Ruling:
    return authors_ruling(text, choices, answer)


@pytest.mark.parametrize(
    ("judged", "expected", "why"),
    [
        (words("No man. Final answer: (b) Woman"), (False, True), ruling.OTHER_WORDS),
        (words("(b)"), (False, True), ruling.LETTER_WITHOUT_TEXT),
        (OWNERS["mmau"].rulings("(b)", ["+", "-"], "-", 1)[0], (False, True), ruling.NO_WORDS),
        (words("the dog bites, the man", ["the man bites", "cat"], "the man bites"), (True, False), ruling.SCATTERED),
        (words("b a", ["a b", "b a"], "a b"), (True, False), ruling.SAME_WORDS),
        (words("(b), as it is big, the cat", ["big cat", "cat"], "big cat"), (True, False), ruling.SCATTERED),
        (words("(a) or (b), a woman"), (True, False), ruling.SEVERAL),
        (words("(a) Woman"), (True, False), ruling.AGAINST),
        (authors("Woman"), (False, True), ruling.NO_LETTER),
        (authors("(e) x", ["1", "2", "3", "4", "x"], "x"), (False, True), ruling.BEYOND_D),
        (authors("Answer: (b)\nThanks."), (False, True), ruling.NOT_LAST_LINE),
        (authors("(a) is wrong. Answer: (b)"), (False, True), ruling.OTHER_LETTER_FIRST),
        (authors("(c) x", ["y", "x", "x"], "x"), (False, True), ruling.REPEATED),
        (authors("(b) or (c)"), (True, False), ruling.SEVERAL),
        (authors("(b) Man"), (True, False), ruling.AGAINST),
        (authors("(b). Answer: nothing"), (True, False), ruling.UNCLEAR),
        (letters("It is (b)."), (None, True), ruling.UNREADABLE),
        (letters("no idea"), (None, False), ruling.UNREADABLE),
        (letters("Certainly (b)"), (False, True), ruling.MISREAD),
        (letters("C", ["y", "x", "x"], "x"), (False, True), ruling.REPEATED),
        (letters("B or (a) or (c)"), (True, False), ruling.SEVERAL),
    ],
)  # fmt: skip
def test_each_difference_has_its_reason(judged: Ruling, expected: tuple[bool | None, bool], why: str) -> None:
    assert (judged.official, judged.strict, judged.why) == (*expected, why)


def test_every_reason_is_defined_in_the_docs() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [reason for reason in REASONS if f"| {reason} |" not in text] == []


def test_a_letter_of_a_null_choice_is_wrong_and_in_the_denominator() -> None:
    judged = letters("D", ["x", "y", None, None], "y")
    assert (judged.official, judged.strict, judged.letter) == (False, False, "D")


def test_an_answer_that_is_no_choice_stops_the_owners_script_and_not_ours() -> None:
    assert letters("A", ["x", "y"], "z").official is None
    assert OWNERS["airbench"].ruling("A", ["x", "y"], None).official is None
    assert OWNERS["mmau"].ruling("x", ["x", "y"], None).strict is None


def test_the_owners_script_gets_what_it_wants() -> None:
    repeated = ["y", "x", "x"]
    assert OWNERS["mmau"].handed_over("(b)", CHOICES, 1) == "Woman"
    assert OWNERS["airbench"].handed_over("(b)", CHOICES, 1) == "B"
    assert (
        OWNERS["airbench"].handed_over("(c)", repeated, 2) == "B"
    )  # the column that its script compares with
    assert OWNERS["mmau"].handed_over("either", CHOICES, None) == "either"
    for name, owner in OWNERS.items():
        text = "A man is heard first.\nFinal answer: (b) Woman"
        handed, as_is = owner.rulings(text, CHOICES, "Woman", extract_choice(text, CHOICES))
        assert handed.official is True
        # of a text that is no choice's own MMAU-Pro's embedding would judge
        assert as_is.official is {"meld": True, "daily-omni": False, "mmau-pro": None}.get(name, False)


def test_an_emotion_is_read_from_a_word_or_a_whole_completion() -> None:
    for text in ("joy", "Joy.", "I hear no anger.\nFinal answer: joy", "(d) joy"):
        judged = OWNERS["meld"].ruling(text, EMOTIONS, "joy")
        assert (judged.official, judged.strict) == (True, True)
    assert OWNERS["meld"].ruling("happiness", EMOTIONS, "joy").official is False

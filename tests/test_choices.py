"""Options: which one a text names, by the authors' rule, by ours, and by the benchmarks' scorers."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgsr.choices import (
    airbench_letter,
    extract_choice,
    format_choices,
    letter,
    official_letter,
    read_choice,
    token_match,
)
from tgsr.reading.naming import Options
from tgsr.reading.statements import read

CASES = Path(__file__).parent / "data" / "cases"
SHARED = Path(__file__).parents[2] / "shared" / "data"
PEOPLE = ["Man", "Woman", "Child", "Robot"]


def test_options_are_lettered_in_lower_case() -> None:
    assert format_choices(["yes", "no"]) == "(a) yes\n(b) no"
    assert format_choices([]) == ""
    assert letter(25) == "z"


@pytest.mark.parametrize("index", [-1, 26])
def test_there_is_no_letter_outside_the_alphabet(index: int) -> None:
    with pytest.raises(ValueError, match=str(index)):
        letter(index)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("Final answer: (b) text", "b"),
        ("FINAL ANSWER: (B)", "b"),
        ("(a) first\n(c) last\n\n  \n", "c"),
        ("(c) or (a)", "c"),
        ("Final answer: (b)\nThank you.", None),
        ("(e) five", None),
        ("(e) or (d)", "d"),
        ("b", None),
        ("", None),
        ("\n \n", None),
        (None, None),
    ],
)
def test_the_official_letter_is_the_first_in_the_last_line(
    completion: str | None, expected: str | None
) -> None:
    assert official_letter(completion) == expected


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("Final answer: (b) text", 1),
        ("Reasoning about (a) and (c).\nFinal answer: (b) Woman", 1),
        ("**Final answer: (c)** Child", 2),
        ("Final answer:\n(d)", 3),
        ("Answer: B\n\nNot (a), because it is high.", 1),
        ("<answer>B</answer>", 1),
        ("The correct option is (d).", 3),
        ("b)", 1),
        ("B", 1),
        ("B. Woman", 1),
        ("Answer: B because of the pitch", 1),
        ("Option C is right", 2),
        ("woman", 1),
        ("It is the woman.", 1),
        ("Answer: A man", 0),
        ("A child", 2),  # an article, no letter
        ("(e) Robot", 3),  # no fifth choice: the text decides
        ("(a) or (b)", None),
        ("Answer: (a) Woman", None),
        ("man and woman", None),
        ("no idea", None),
        ("Final answer: none", None),
        ("", None),
        (None, None),
    ],
)
def test_the_strict_reading_is_one_option_or_none(completion: str | None, expected: int | None) -> None:
    assert extract_choice(completion, PEOPLE) == expected


def cases(name: str) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (CASES / name).read_text(encoding="utf-8").splitlines()]
    assert len({(row["text"], *row["choices"]) for row in rows}) == len(rows)
    return rows


def meant(row: dict[str, object]) -> str | None:
    index = extract_choice(row["text"], row["choices"])
    return None if index is None else row["choices"][index]


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("answers.jsonl", 1.0),
        ("answers_of_ours.jsonl", 1.0),
        ("answers_later.jsonl", 0.97),
        ("answers_further.jsonl", 1.0),
    ],
)
def test_responses_are_read_as_a_careful_reader_does(name: str, least: float) -> None:
    """`meant` is null where a response names several options, none, or one that it rejects.

    The later ones were written when the reader was done. What it does not read it may leave out, not misread.
    """
    rows = cases(name)
    unlike = [(row["text"], row["meant"], meant(row)) for row in rows if meant(row) != row["meant"]]
    assert [(text, was, read_as) for text, was, read_as in unlike if read_as is not None] == []
    assert len(unlike) <= (1 - least) * len(rows), unlike


def test_plain_texts_are_read_at_once_as_the_grammar_reads_them() -> None:
    rows = [*cases("answers.jsonl"), *cases("answers_of_ours.jsonl")]
    for row in rows:
        assert read(row["text"], Options(row["choices"])).index == extract_choice(row["text"], row["choices"])


@pytest.mark.parametrize(
    "text", ["She sings.\nFinal answer: (b) Woman", "I choose B.", "It rains.\n\n**B. Woman**"]
)
def test_a_reading_says_where_it_was_read(text: str) -> None:
    reading = read_choice(text, PEOPLE)
    assert reading.index == 1
    assert re.search(r"\bb\b|\bwoman\b", text[reading.start : reading.end], re.IGNORECASE)
    assert "sings" not in text[reading.start : reading.end]


NOTATIONS: dict[str, Callable[[str, str], str]] = {
    "(b) text": lambda letter, text: f"({letter}) {text}",
    "B. text": lambda letter, text: f"{letter.upper()}. {text}",
    "B) text": lambda letter, text: f"{letter.upper()}) {text}",
    "text": lambda letter, text: text,
    "(b)": lambda letter, text: f"({letter})",
    "Final answer: (b) text": lambda letter, text: f"She sings.\nFinal answer: ({letter}) {text}",
    "Answer: B": lambda letter, text: f"Answer: {letter.upper()}",
    "answer tags": lambda letter, text: f"<think>(a) or (b)?</think>\n<answer>{text}</answer>",
    "JSON": lambda letter, text: json.dumps({"answer": text}),
    "Option B: text": lambda letter, text: f"Option {letter.upper()}: {text}",
    "**B. text**": lambda letter, text: f"**{letter.upper()}. {text}**",
    "text (B)": lambda letter, text: f"{text} ({letter.upper()})",
    "text in quotes": lambda letter, text: f'"{text}"',
    "Chinese": lambda letter, text: f"答案：{letter.upper()}. {text}",
    "(b) text, because": lambda letter, text: f"({letter}) {text.rstrip('.')}, because the pitch is high.",
}


def tenths(file: str) -> list[dict[str, Any]]:
    """Each tenth row of a benchmark's file; skips the test where that is not there."""
    path = SHARED / file
    if not path.exists():
        pytest.skip(f"{path} is not there")
    content = path.read_text(encoding="utf-8")
    rows = (
        json.loads(content) if file.endswith(".json") else [json.loads(line) for line in content.splitlines()]
    )
    return list(rows[::10])


@pytest.mark.parametrize("notation", NOTATIONS)
@pytest.mark.parametrize("file", ["mmau/mmau-test-mini.json", "mmar/MMAR-meta.jsonl"])
def test_every_choice_of_the_benchmarks_reads_as_itself(file: str, notation: str) -> None:
    """Each tenth row's; only a letter alone that is another choice's text is read as that."""
    misread = []
    for row in tenths(file):
        for index, text in enumerate(row["choices"]):
            if notation == "Answer: B" and letter(index).upper() in row["choices"]:
                text = letter(index).upper()
            chosen = extract_choice(NOTATIONS[notation](letter(index), text), row["choices"])
            if text.strip() and (chosen is None or row["choices"][chosen] != text):
                misread.append((text, row["choices"]))
    assert misread == []


SAID: dict[str, Callable[[str, str, str, str], str]] = {
    "rather than": lambda b, text, c, other: f"The answer is {text} rather than {other}.",
    "the other is wrong": lambda b, text, c, other: (
        f"The answer is ({b}) {text}. The other answer ({c}) is wrong."
    ),
    "weighed": lambda b, text, c, other: f"It could be {other}.\nFinal answer: ({b}) {text}",
    "not but": lambda b, text, c, other: f"not {c.upper()} but {b.upper()}",
    "taken back": lambda b, text, c, other: f"The answer is {c.upper()}. Wait, no, it is {b.upper()}.",
    "since": lambda b, text, c, other: f"({b}) {text}, since {other} is not heard.",
    "plausible": lambda b, text, c, other: f"Therefore, the most plausible answer is ({b}) {text}",
}
UNSAID: dict[str, Callable[[str, str, str, str], str]] = {
    "letters": lambda b, text, c, other: f"The answer is {b.upper()} or {c.upper()}.",
    "texts": lambda b, text, c, other: f"either {text} or {other}",
    "plausible": lambda b, text, c, other: f"Answer: {b.upper()} and {c.upper()} are both plausible",
    "wrong": lambda b, text, c, other: f"{b.upper()} is wrong.",
    "against": lambda b, text, c, other: f"The answer is ({b}) {other}",
    "lines": lambda b, text, c, other: f"({b}) {text}\n({c}) {other}",
    "isn't": lambda b, text, c, other: f"The answer isn't {text}.",
}


@pytest.mark.parametrize("file", ["mmau/mmau-test-mini.json", "mmar/MMAR-meta.jsonl"])
def test_the_benchmarks_choices_are_seldom_unread_and_never_another(file: str) -> None:
    """Each tenth row, whose choices are no letters: at most 1 of 100 answers unread, none misread."""
    n = n_unread = 0
    misread = []
    for number, row in enumerate(tenths(file)):
        texts = [text.strip().rstrip(".") for text in row["choices"]]
        if (
            len(set(texts)) < len(texts)
            or min(map(len, texts)) < 2
            or any("not" in text.lower() for text in texts)
        ):
            continue
        right, other = number % len(texts), (number + 1) % len(texts)
        for say in (*SAID.values(), *UNSAID.values()):
            said = say(letter(right), texts[right], letter(other), texts[other])
            chosen = extract_choice(said, row["choices"])
            is_said = say in SAID.values()
            n += is_said
            n_unread += is_said and chosen is None
            if chosen is not None and chosen != (right if is_said else None):
                misread.append((said, row["choices"], chosen))
    assert misread == []
    assert n_unread <= n / 100


@pytest.mark.parametrize(
    "hostile",
    [
        "the answer is ",
        "answer: ",
        "\\boxed{",
        "<answer>",
        '"answer": [',
        "not ",
        "(a) ",
        "A or ",
        "Wait, ",
        "man ",
        "\n(a) man",
        "answer " + "x " * 30,
        "<",
        "I choose ",
        "答案",
        "?" * 9,
    ],
)
def test_reading_takes_time_in_proportion_to_the_text(hostile: str) -> None:
    def seconds(n: int) -> float:
        text = hostile * (n // len(hostile)) + "."
        start = time.process_time()
        read(text, Options(PEOPLE))
        return time.process_time() - start

    short = min(seconds(1_500) for _ in range(3))
    long = min(seconds(12_000) for _ in range(3))
    assert long < 8 * 5 * short + 0.1  # a square would be 64 times


def test_a_fifth_choice_can_be_chosen() -> None:
    assert extract_choice("Final answer: (e) five", ["one", "two", "three", "four", "five"]) == 4


def test_a_choice_that_holds_another_is_the_longer_one() -> None:
    choices = ["anger", "first speaker shows anger", "joy"]
    assert extract_choice("So the first speaker shows anger", choices) == 1
    assert extract_choice("So it is anger", choices) == 0
    assert extract_choice("unangered", choices) is None


def test_repeated_choices_are_one_text_and_two_letters() -> None:
    choices = ["one", "ten", "fifteen", "fifteen"]
    assert extract_choice("fifteen", choices) == 2
    assert extract_choice("(d) fifteen", choices) == 3


def test_choices_may_look_like_letters_or_announcements() -> None:
    assert extract_choice("b", ["c", "b", "a"]) == 1
    assert extract_choice("(b) Plan (c) approved", ["Plan A", "Plan (c) approved", "none"]) == 1
    assert extract_choice("(b) The answer machine", ["A bell", "The answer machine"]) == 1


@pytest.mark.parametrize(
    "choices",
    [
        ["(A) Man", "(B) Woman", "(C) Child"],
        ["A. Man", "B. Woman", "C. Child"],
        ["a) Man", "b) Woman", "c) Child"],
        ["A: Man", "B: Woman", None, "D: Child"],
    ],
)
@pytest.mark.parametrize(
    "text", ["Woman", "The answer is woman.", "B", "(b) Woman", "(B) Woman", "B. Woman", "A woman speaks."]
)
def test_choices_that_hold_their_letters_are_named_by_letter_or_text(
    choices: list[str | None], text: str
) -> None:
    assert extract_choice(text, choices) == 1


def test_choices_whose_letters_are_their_own_text_keep_it() -> None:
    assert extract_choice("B. Anthony", ["B. Anthony", "A. Smith"]) == 0


@pytest.mark.parametrize(
    ("text", "choices", "expected"),
    [
        ("There are two speakers.", ["1", "2", "3", "4"], 1),
        ("Answer: three", ["1", "2", "3", "4"], 2),
        ("(b) two", ["1", "2", "3", "4"], 1),
        ("B. two", ["1", "2", "3", "4"], 1),
        ("one speaker", ["1", "2", "3", "4"], 0),
        ("The dog barks three times.", ["2 times", "3 times"], 1),
        ("The word appears 3 times.", ["two", "three", "four", "one"], 1),
        ("3 people", ["Two people", "Three people"], 1),
        ("2", ["two", "2"], 1),
        ("The correct one is (c).", ["1", "2", "3", "4"], 2),
        ("One of the speakers is a man. There are three speakers.", ["1", "2", "3", "4"], 2),
        ("The two women argue with a man. The answer is (c).", ["1", "2", "3", "4"], 2),
        ("No one speaks.", ["1", "2"], None),
        ("two hundred", ["1", "2"], None),
        ("twenty-two", ["1", "2"], None),
    ],
)
def test_a_number_is_the_same_in_words_and_in_digits(
    text: str, choices: list[str], expected: int | None
) -> None:
    assert extract_choice(text, choices) == expected


@pytest.mark.parametrize(
    "text",
    [
        "选项A是男性，不符合。\n因此答案是(B)女性。",
        "选项A：男性。音频中没有。\n选项B：女性。符合音频内容。\n因此，正确答案是B。",
        "我认为选项A和选项B都有可能，但选项B更符合。",
        "应该选择选项B",
        "故选项B正确。",
        "A. 男性 ❌\nB. 女性 ✅\nC. 儿童 ❌",
        "A. 男性\nB. 女性 ✅\nC. 儿童\n✔ marks what is heard",
    ],
)
def test_options_that_are_weighed_or_crossed_out_are_no_answer(text: str) -> None:
    assert extract_choice(text, ["男性", "女性", "儿童"]) == 1


@pytest.mark.parametrize(
    ("text", "choices", "index"),
    [
        ("3.5 s", ["2.5 seconds", "3.5 seconds", "4.5 seconds"], 1),
        ("at 3.5 seconds", ["2.5 s", "3.5 s", "4.5 s"], 1),
        ("3 sec", ["2s", "3s", "4s"], 1),
        ("0:03", ["2 seconds", "3 seconds", "63 seconds"], 1),
        ("63 s", ["0:03", "1:03", "1:30"], 1),
        ("From 3s to 5s", ["0-2s", "3-5s", "6-8s"], 1),
        ("between 3 and 5 seconds", ["0-2 s", "3-5 s", "6-8 s"], 1),
        ("0:03-0:05", ["0 to 2 seconds", "3 to 5 seconds", "6 to 8 seconds"], 1),
        ("5 s", ["0-2 s", "3-5 s", "6-8 s"], None),
        ("3 to 5 minutes", ["0-2 s", "3-5 s", "6-8 s"], None),
        ("20 percent", ["10%", "20%", "30%"], 1),
        ("20%", ["10 percent", "20 percent", "30 percent"], 1),
        ("1,000", ["1000", "2000", "3000"], 0),
        ("1000 Hz", ["1,000 hertz", "2,000 hertz", "3,000 hertz"], 0),
        ("3.50", ["2.5", "3.5", "4.5"], 1),
        ("twenty-five", ["20", "25", "30"], 1),
        ("25", ["twenty", "twenty-five", "thirty"], 1),
        ("20", ["twenty-one", "twenty-five", "thirty"], None),
    ],
)
def test_a_time_or_an_amount_is_the_same_however_it_is_written(
    text: str, choices: list[str], index: int | None
) -> None:
    assert extract_choice(text, choices) == index


@pytest.mark.parametrize(
    ("text", "choices", "index"),
    [
        ("The last one.", PEOPLE, 3),
        ("The answer is the first one.", PEOPLE, 0),
        ("I would choose the third one.", PEOPLE, 2),
        ("The second one is correct.", PEOPLE, 1),
        ("第二个选项", PEOPLE, 1),
        ("答案：第二个", PEOPLE, 1),
        ("最后一个", PEOPLE, 3),
        ("the former", ["Man", "Woman"], 0),
        ("The answer is the latter.", ["Man", "Woman"], 1),
        ("the latter", PEOPLE, None),
        ("The former is louder", ["Man", "Woman"], None),
        ("The first one to speak is the woman", PEOPLE, 1),
        ("There are two voices, and the woman is the last one.", PEOPLE, 1),
        ("The last one", ["The last bell", "The horn"], 0),
        ("第二个说话的人", PEOPLE, None),
        ("2", PEOPLE, None),
    ],
)
def test_an_option_may_be_called_by_its_place(text: str, choices: list[str], index: int | None) -> None:
    assert extract_choice(text, choices) == index


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("Both are correct.", 2),
        ("Both of them", 2),
        ("Neither of them.", 3),
        ("None of the above", None),
        ("Both of them are men.", None),
    ],
)
def test_both_and_neither_are_said_of_something(text: str, index: int | None) -> None:
    assert extract_choice(text, ["Man", "Men", "Both", "Neither"]) == index


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("What emotion does the angry customer end with", None),
        ("The question asks about the emotion of the angry customer. The customer sounds sad.", 1),
        ("The user asks what emotion the angry customer shows. It is sad.", 1),
        ("You asked what emotion the angry customer ends with. He is sad.", 1),
        ("Let me listen. The question is about the angry customer. He ends up sad.", 1),
        ("The question asks about the customer, and he is sad.", 1),
        ("Which emotion does he show: sad", 1),
        ("What I hear is sad.", 1),
        ("He asked for help, sad.", 1),
    ],
)
def test_what_repeats_the_question_is_no_answer(text: str, index: int | None) -> None:
    assert extract_choice(text, ["Happy", "Sad", "Angry", "Neutral"]) == index


def test_null_choices_are_never_chosen() -> None:
    assert extract_choice("None", ["yes", "no", None, None]) is None
    assert not token_match("yes no", "yes", ["yes", "no", None])
    assert token_match("yes", "yes", ["yes", "no", None])


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("The Man!", True),
        ("man", True),
        ("woman", False),
        ("man or woman", False),
        ("manly", False),
        ("", False),
        ("...", False),
        (None, False),
    ],
)
def test_token_match_wants_the_answer_and_nothing_of_the_others(
    prediction: str | None, expected: bool
) -> None:
    assert token_match(prediction, "Man", PEOPLE) is expected


def test_the_letter_before_the_text_can_cost_the_point() -> None:
    choices = ["a dog", "the cat"]
    assert token_match("the cat", "the cat", choices)
    assert not token_match("(a) the cat", "the cat", choices)  # "a" is a token of the other choice


def test_words_shared_with_the_answer_are_not_held_against_it() -> None:
    choices = ["red car", "blue car", "red car red"]
    assert token_match("a red car", "red car", choices)
    assert not token_match("blue car", "red car", choices)


@given(
    st.text("abAB _-é1", max_size=12),
    st.text("abAB _-é1", max_size=6),
    st.lists(st.text("abAB _-é1", max_size=6), max_size=4),
)
def test_token_match_is_the_stated_rule(prediction: str, answer: str, choices: list[str]) -> None:
    def tokens(text: str) -> list[str]:
        return re.findall(r"\b\w+\b", text.lower())

    has_all = all(token in tokens(prediction) for token in tokens(answer))
    foreign = [token for choice in choices for token in tokens(choice) if token not in tokens(answer)]
    expected = (
        tokens(prediction) != [] and has_all and not any(token in foreign for token in tokens(prediction))
    )
    assert token_match(prediction, answer, choices) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("A", "A"),
        ("B. because", "B"),
        ("Apples", "A"),
        ("The answer is C.", "C"),
        ("(D)", "D"),
        (" \nB\n", "B"),
        ("The answer is\nC.\n", "C"),
        ("a", None),
        ("E", None),
        ("x", None),
        ("The answer is C", None),
        ("None", None),
        ("", None),
        (None, None),
    ],
)
def test_airbench_reads_the_first_or_the_last_but_one_character(
    response: str | None, expected: str | None
) -> None:
    assert airbench_letter(response) == expected


@given(st.text())
def test_no_text_breaks_a_reader(text: str) -> None:
    reading = read_choice(text, PEOPLE)
    assert reading.index in (None, 0, 1, 2, 3)
    assert (reading.why is None) == (reading.index is not None)
    assert 0 <= reading.start <= reading.end <= len(text)
    assert official_letter(text) in (None, "a", "b", "c", "d")
    assert airbench_letter(text) in (None, "A", "B", "C", "D")

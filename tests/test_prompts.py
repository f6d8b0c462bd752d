"""The prompts are the paper's, letter by letter."""

import re
from pathlib import Path

import pytest

from tgsr.prompts import (
    REASONING_INSTRUCTION,
    REASONING_OPENING,
    chat_messages,
    choice_question,
    phrase_answer_af3,
    phrase_answer_qwen,
    phrase_question_af3,
    phrase_question_qwen,
)
from tgsr.timeline import Span

PAPER = Path(__file__).resolve().parents[2] / "shared" / "paper.txt"
GIVEN = "[given sentence]"
TIMES = Span(1.25, 2.5)


def test_stage_1_of_qwen_repeats_the_phrase_in_its_answer():
    assert phrase_question_qwen(GIVEN) == ("What is the timestamp of the following segment? [given sentence]")
    assert phrase_answer_qwen(GIVEN, TIMES) == (
        "The segment [given sentence] starts at 1.25 seconds and ends at 2.50 seconds."
    )


def test_stage_1_of_af3_states_the_form_and_does_not_repeat_the_phrase():
    assert phrase_question_af3(GIVEN) == (
        "What is the timestamp of the following segment? [given sentence] Provide both the start and end "
        "timestamps of this segment in seconds with 2 decimal places. Format: The segment starts at X.XX "
        "seconds and ends at Y.YY seconds."
    )
    assert phrase_answer_af3(TIMES) == "The segment starts at 1.25 seconds and ends at 2.50 seconds."


def test_stage_2_asks_for_the_fixed_opening_in_plain_quotes():
    assert REASONING_OPENING == (
        "To determine the best description, let's analyze the audio content and the given timestamps:"
    )
    assert REASONING_INSTRUCTION == (
        "When answering, you must first provide reasoning grounded in the audio content using explicit "
        "timestamps. Start your response exactly with: \"To determine the best description, let's analyze "
        'the audio content and the given timestamps:" Then, after the reasoning, provide the final answer.'
    )


@pytest.mark.skipif(not PAPER.exists(), reason="needs the paper's text, which is not shipped")
def test_every_prompt_stands_in_the_paper_word_for_word():
    paper = re.sub(r"\s+", " ", PAPER.read_text(encoding="utf-8")).replace("``", '"').replace("''", '"')
    # The paper's text repeats each formula as LaTeX: "tst_{s}" is t_s, "tet_{e}" is t_e.
    qwen = phrase_answer_qwen(GIVEN, TIMES).replace("1.25", "tst_{s}").replace("2.50", "tet_{e}")
    af3 = phrase_answer_af3(TIMES).replace("1.25", "tst_{s}").replace("2.50", "tet_{e}")
    assert f"Q: {phrase_question_qwen(GIVEN)} A: {qwen}" in paper
    assert f"Q: {phrase_question_af3(GIVEN)} A: {af3}" in paper
    assert REASONING_INSTRUCTION in paper


def test_times_are_rounded_and_keep_their_trailing_zeros():
    assert phrase_answer_af3(Span(0, 10.006)) == (
        "The segment starts at 0.00 seconds and ends at 10.01 seconds."
    )


@pytest.mark.parametrize("answer", [phrase_answer_af3, lambda span: phrase_answer_qwen("hello", span)])
def test_a_span_that_vanishes_in_two_decimals_is_not_taught(answer):
    with pytest.raises(ValueError, match=r"1\.001.*1\.004.*at least 0\.01 s"):
        answer(Span(1.001, 1.004))


@pytest.mark.parametrize(
    "make",
    [
        phrase_question_qwen,
        phrase_question_af3,
        lambda blank: phrase_answer_qwen(blank, TIMES),
        lambda blank: choice_question(blank, ["x", "y"]),
        lambda blank: choice_question("Who?", ["x", blank]),
    ],
)
def test_a_blank_text_is_refused(make):
    with pytest.raises(ValueError, match="must not be blank"):
        make(" \n")


def test_choices_are_lettered_lines_between_question_and_instruction():
    assert choice_question("Who speaks?", ["Ann", "Bob", "Cy", "Di", "Ed"], "Be brief.") == (
        "Who speaks?\n(a) Ann\n(b) Bob\n(c) Cy\n(d) Di\n(e) Ed\nBe brief."
    )
    assert choice_question("Who?", ["Ann", "Bob"]).splitlines()[-1] == REASONING_INSTRUCTION


def test_without_an_instruction_the_last_line_is_the_last_choice():
    assert choice_question("Who?", ["Ann", "Bob"], "") == "Who?\n(a) Ann\n(b) Bob"


@pytest.mark.parametrize("choices", [[], ["only one"], [str(n) for n in range(27)], "ab"])
def test_choices_that_cannot_be_lettered_are_refused(choices):
    with pytest.raises(ValueError, match="choices must be 2 to 26 texts"):
        choice_question("Who?", choices)


def test_the_audio_stands_before_the_text():
    assert chat_messages("When?") == [
        {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "When?"}]}
    ]


def test_a_system_turn_comes_first_and_hears_nothing():
    system, user = chat_messages("When?", system="You listen.")
    assert system == {"role": "system", "content": [{"type": "text", "text": "You listen."}]}
    assert user == chat_messages("When?")[0]

"""What a model thinks is no answer, however its family marks it."""

from __future__ import annotations

import pytest

from tgsr.choices import extract_choice, official_letter
from tgsr.evaluation.behaviour.consistency import reasoning_of, verdict_of
from tgsr.evaluation.owners.mmar import thoughts_and_answer
from tgsr.grounding import asked_span, find_asked
from tgsr.timeline import Span

MOODS = ["happy", "sad", "angry"]
MARKS = {
    "think": ("<think>", "</think>"),
    "opened by the prompt": ("", "</think>"),
    "thinking": ("<thinking>", "</thinking>"),
    "capitals": ("<THINK>", "</THINK>"),
    "thought": ("<thought>\n", "\n</thought>\n"),
    "Seed": ("<seed:think>", "</seed:think>"),
    "Mistral": ("[THINK]", "[/THINK]"),
    "Kimi": ("◁think▷", "◁/think▷"),
    "long names": ("<|begin_of_thought|>", "<|end_of_thought|>"),
    "gpt-oss": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    "gpt-oss, special tokens left out": ("analysis", "assistantfinal"),
    "Gemma": ("<|channel>thought\n", "<channel|>"),
}


@pytest.mark.parametrize("name", MARKS)
def test_what_is_thought_is_no_answer(name: str) -> None:
    opened, closed = MARKS[name]
    assert extract_choice(f"{opened}The answer is (a).{closed}The answer is (b).", MOODS) == 1
    assert extract_choice(f"{opened}The answer is (a).{closed}B", MOODS) == 1
    said = f"{opened}Perhaps from 1.0s to 2.0s.{closed}From 3.0s to 4.0s."
    assert asked_span(find_asked(said)) == Span(3, 4)
    assert verdict_of(f"{opened}The verdict would be 0.{closed}1") is True
    thoughts, answer = thoughts_and_answer(f"{opened}She sighs.{closed}sad", MOODS)
    assert (thoughts.removeprefix("analysis").split("<|end|>")[0], answer) == ("She sighs.", "sad")


@pytest.mark.parametrize("opened", sorted({opened for opened, _ in MARKS.values()} - {"", "analysis"}))
def test_thoughts_that_do_not_end_have_no_answer(opened: str) -> None:
    text = f"{opened}From 1.0s to 2.0s she sighs.\nFinal answer: (b) sad"
    assert extract_choice(text, MOODS) is None
    assert official_letter(text) is None
    assert find_asked(text) == []


def test_a_thought_after_the_answer_is_no_part_of_it() -> None:
    assert asked_span(find_asked("From 3.0s to 4.0s.\n<think>Or from 5.0s to 6.0s?")) == Span(3, 4)


def test_words_beginning_as_marks_do_are_none() -> None:
    assert extract_choice("[Thoughtfully] <thoughtful> The answer is (b) sad.", MOODS) == 1


def test_reasoning_keeps_the_thoughts_without_their_marks() -> None:
    assert reasoning_of("[THINK]She sighs, hence sad.[/THINK]\n(b) sad", MOODS) == "She sighs, hence sad."

"""Questions that a text LLM answers without the audio are left out: they would reward guessing, not listening.

The LLM is asked in several orders of the choices, so that a liking for a letter does not pass for an answer. It is a
folder or hub id of transformers, or any OpenAI-compatible server as http://HOST:PORT/v1#MODEL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tgsr.choices import extract_choice, format_choices, letter
from tgsr.data.shards import Made
from tgsr.disk.jsonl import Row
from tgsr.errors import Bad
from tgsr.llm.by_name import llm_of
from tgsr.llm.decoding import Decoding, Failed
from tgsr.llm.served import TextPrompt
from tgsr.records import Question, question_of

LETTER = Decoding(max_new_tokens=64)  # room for "The answer is (b), because"


@dataclass(frozen=True, slots=True)
class TextOnly:
    """Who is asked without the audio, and in how many orders of the choices: no more than there are choices."""

    llm: str
    cache: Path
    n_orders: int = 4

    def __post_init__(self) -> None:
        if self.n_orders < 1:
            raise ValueError(f"n_orders must be 1 or more, got {self.n_orders}")


def heard_only(settings: TextOnly, rows: Sequence[Row]) -> Made:
    """The questions that the LLM does not answer right in every order. A step of shards.run.

    A question that it got wrong once is not asked again. A reply that names no choice is wrong. Where a request fails,
    the question is kept, and listed as not tested. Questions without choices are kept.
    """
    questions = [question_of(row) for row in rows]
    llm = llm_of(settings.llm, settings.cache)
    n_right = [0] * len(questions)
    bad: dict[int, Bad] = {}
    for order in range(settings.n_orders):
        left = (index for index, n in enumerate(n_right) if n == order and index not in bad)
        indices = [index for index in left if order < len(questions[index].choices)]
        prompts = [without_audio(questions[index], order) for index in indices]
        for index, reply in zip(indices, llm.replies(prompts, LETTER), strict=True):
            question = questions[index]
            if isinstance(reply, Failed):
                reason = f"not tested without audio, and kept: {reply.reason}"
                bad[index] = Bad(question.id, reason, None, "question")
            else:
                n_right[index] += is_right(reply, question, order)
    kept = []
    for index, question in enumerate(questions):
        n_asked = min(settings.n_orders, len(question.choices))
        if n_asked and n_right[index] == n_asked:
            reason = f"answerable without audio: right in {n_asked} of {n_asked} orders of its choices"
            bad[index] = Bad(question.id, reason, None, "question")
        else:
            kept.append(question)
    return Made(kept, [bad[index] for index in sorted(bad)])


def in_turn(choices: tuple[str, ...], order: int) -> tuple[str, ...]:
    """The choices from the one at `order` on, then those before it."""
    return choices[order:] + choices[:order]


def without_audio(question: Question, order: int) -> TextPrompt:
    """The question with its choices in that order, to be answered with a letter."""
    choices = in_turn(question.choices, order)
    text = (
        "This question is about a recording that you cannot hear. Choose the answer that is most likely right.\n"
        f"{question.question}\n{format_choices(choices)}\nReply with the letter of that answer and nothing else."
    )
    return TextPrompt(text, "".join(map(letter, range(len(choices)))))


def is_right(reply: str, question: Question, order: int) -> bool:
    """Whether the reply names the right choice: by a letter alone, as it was asked for, else as a text may."""
    choices = in_turn(question.choices, order)
    alone = reply.strip(" \n().*").lower()
    letters = [letter(index) for index in range(len(choices))]
    chosen = letters.index(alone) if alone in letters else extract_choice(reply, choices)
    return chosen is not None and choices[chosen] == question.answer

"""What is said to the models: appendix B of the paper word for word, and the chat messages that carry it.

Beside the paper's way to ask a choice (B.1.3) stand a direct one and a chain of thought, both ours, and AIR-Bench's.

The paper's "Q:" and "A:" mark the two sides of an example and belong to neither string. The paper
gives times to two decimals for Audio Flamingo 3 only; that Qwen2.5-Omni's have two as well is ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, cast, get_args

from tgsr.choices import format_choices
from tgsr.errors import ModelError, RecordError
from tgsr.records import Question
from tgsr.timeline import Span

Times = Literal["words", "tokens"]
"""How a model writes times: "7.40 seconds" as the paper's do, or one token for 7.40 s, as Whisper's <|7.40|>."""

REASONING_OPENING = (
    "To determine the best description, let's analyze the audio content and the given timestamps:"
)
"""The sentence that every stage-2 response has to begin with. Source: B.1.3."""

REASONING_INSTRUCTION = (
    "When answering, you must first provide reasoning grounded in the audio content using explicit "
    f'timestamps. Start your response exactly with: "{REASONING_OPENING}" '
    "Then, after the reasoning, provide the final answer."
)
"""The stage-2 instruction; the quotation marks stand for the paper's LaTeX ones. Source: B.1.3."""

PLAIN_INSTRUCTION = "Answer with the letter of the right option, in round brackets, and nothing else."
"""Asks for a direct answer. Ours: the paper gives no prompt without reasoning."""

COT_INSTRUCTION = (
    "Think step by step about what you hear. Then write the letter of the right option, in round brackets, "
    "on a last line of its own."
)
"""Chain of thought that asks for no timestamps: table 3's "Standard CoT". Ours: the paper does not print its own."""

AIRBENCH_INSTRUCTION = (
    "Choose the most suitable answer from options A, B, C, and D to respond the question in next line, "
    "you may only choose A or B or C or D."
)
"""Comes before the question. Source: AIR-Bench's Inference_Foundation.py, word for word."""

Prompt = Literal["reasoning", "plain", "cot", "airbench"]
"""How a choice is asked: the paper's B.1.3, and the three above."""

QWEN_SYSTEM = (
    "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of perceiving "
    "auditory and visual inputs, as well as generating text and speech."
)
"""The system turn of the Qwen2.5-Omni card's examples. A chat template without a system turn may put another one."""

_QWEN_OMNI = re.compile(r"qwen[ ._-]?2[._-]?5[ ._-]?omni", re.IGNORECASE)


def system_of(name: str) -> str | None:
    """The system turn that a model of that name is asked with, unless the user sets one; None: its template's own.

    For models that are known by a name alone, on a server: the same turn as the family has on this machine.
    """
    return QWEN_SYSTEM if _QWEN_OMNI.search(name) else None


class AsksPhrases(Protocol):
    """A model that has its own words for stage 1's question: every family, and every model that only answers."""

    def phrase_question(self, phrase: str) -> str: ...


def phrase_question_qwen(phrase: str) -> str:
    """Stage 1's question for Qwen2.5-Omni: when is `phrase` said? ValueError for a blank phrase.

    Source: B.1.1.
    """
    return f"What is the timestamp of the following segment? {_not_blank('phrase', phrase)}"


def phrase_answer_qwen(phrase: str, span: Span) -> str:
    """Stage 1's target for Qwen2.5-Omni: `span` in seconds, two decimals.

    ValueError for a blank phrase, or where start and end are the same to two decimals: a model must
    not be taught spans that hold nothing. Source: B.1.1; the two decimals are ours.
    """
    start, end = _seconds(span)
    return f"The segment {_not_blank('phrase', phrase)} starts at {start} seconds and ends at {end} seconds."


def phrase_question_af3(phrase: str) -> str:
    """Stage 1's question for Audio Flamingo 3: when is `phrase` said, and in which form to answer.

    ValueError for a blank phrase. Source: B.1.2.
    """
    return (
        f"What is the timestamp of the following segment? {_not_blank('phrase', phrase)} "
        "Provide both the start and end timestamps of this segment in seconds with 2 decimal places. "
        "Format: The segment starts at X.XX seconds and ends at Y.YY seconds."
    )


def phrase_answer_af3(span: Span) -> str:
    """Stage 1's target for Audio Flamingo 3: `span` in seconds, two decimals; the phrase is not repeated.

    ValueError where start and end are the same to two decimals. Source: B.1.2.
    """
    start, end = _seconds(span)
    return f"The segment starts at {start} seconds and ends at {end} seconds."


def without_target(question: Question) -> str:
    """Why stage 1 has no target for a phrase, which is taught one span of a hundredth of a second or more; "" where it
    has one, as all have that are known not to be said.
    """
    spans = question.evidence
    if question.is_absent:
        return ""
    if len(spans) != 1:
        return f"has {f'{len(spans)} spans' if spans else 'no span'}, so there is no target"
    if f"{spans[0].start:.2f}" != f"{spans[0].end:.2f}":
        return ""
    about = f"{spans[0].start:g} to {spans[0].end:g} s"
    return f"has a span, {about}, that begins and ends at the same hundredth of a second"


NOT_SAID = "The segment is not said in this audio."
"""Stage 1's target for a phrase that is not said. Ours: the paper asks for phrases that are."""


def choice_question(question: str, choices: Sequence[str], instruction: str = REASONING_INSTRUCTION) -> str:
    """A multiple-choice question as stage 2 and the benchmarks ask it.

    The question, one line "(a) text" a choice, then the instruction; an empty instruction leaves its
    line out. The instruction is the paper's (B.1.3). The layout is ours: the paper only shows, in its
    outputs, that options are lettered "(a)", "(b)", ...
    ValueError for a blank question or choice, for fewer than two choices or more than 26.
    """
    if isinstance(choices, str) or not 2 <= len(choices) <= 26:
        raise ValueError(f"choices must be 2 to 26 texts, got {choices!r}")
    lines = [_not_blank("question", question), format_choices([_not_blank("choice", c) for c in choices])]
    if instruction:
        lines.append(instruction)
    return "\n".join(lines)


def open_question(question: str) -> str:
    """A question without choices, with B.1.3's instruction."""
    return f"{question}\n{REASONING_INSTRUCTION}"


def airbench_question(question: str, choices: Sequence[str]) -> str:
    """A multiple-choice question as AIR-Bench's owner asks it: options A to D, the missing ones "None".

    ValueError for a blank question or choice, for fewer than two choices or more than four, which it has no letter for.
    Source: AIR-Bench's Inference_Foundation.py.
    """
    if isinstance(choices, str) or not 2 <= len(choices) <= 4:
        raise ValueError(f"the airbench prompt has letters for 2 to 4 choices, got {len(choices)}")
    texts = [*(_not_blank("choice", choice) for choice in choices), "None", "None"][:4]
    options = [f"{letter}. {text}" for letter, text in zip("ABCD", texts, strict=True)]
    return "\n".join([AIRBENCH_INSTRUCTION, _not_blank("question", question), *options])


def prompted(question: str, choices: Sequence[str], prompt: Prompt = "reasoning") -> str:
    """A multiple-choice question under that prompt. ValueError as `choice_question` or `airbench_question` raise."""
    if prompt == "airbench":
        return airbench_question(question, choices)
    instructions = {"plain": PLAIN_INSTRUCTION, "cot": COT_INSTRUCTION, "reasoning": REASONING_INSTRUCTION}
    return choice_question(question, choices, instructions[prompt])


def chat_messages(text: str, system: str | None = None) -> list[dict[str, Any]]:
    """One user turn in transformers' chat format: a place for the audio, then `text`.

    `system` becomes a turn before it; None leaves that turn to the model's chat template.
    """
    user = {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": text}]}
    if system is None:
        return [user]
    return [{"role": "system", "content": [{"type": "text", "text": system}]}, user]


def _seconds(span: Span) -> tuple[str, str]:
    start, end = f"{span.start:.2f}", f"{span.end:.2f}"
    if start == end:
        raise ValueError(
            f"span [{span.start}, {span.end}) starts and ends at {start} s to two decimals: "
            "give one that is at least 0.01 s long"
        )
    return start, end


def _not_blank(name: str, text: str) -> str:
    if not text.strip():
        raise ValueError(f"{name} must not be blank, got {text!r}")
    return text


def asked_with(questions: Sequence[Question], prompt: Prompt) -> list[Question]:
    """The questions, their choices to be asked under that prompt.

    It becomes their label "prompt", which travels with the responses: who looks at these again asks in the same words.
    The default, "reasoning", is the label's absence.
    """
    label = () if prompt == "reasoning" else (("prompt", prompt),)
    return [
        replace(q, labels=(*(pair for pair in q.labels if pair[0] != "prompt"), *label))
        if q.kind == "choice"
        else q
        for q in questions
    ]


def prompt_of(question: Question) -> Prompt:
    """How the question's choices are asked. Raises RecordError for a label "prompt" that is no prompt of ours."""
    named = question.labelled("prompt") or ("reasoning",)
    if named[0] not in get_args(Prompt):
        known = ", ".join(get_args(Prompt))
        raise RecordError(
            "labels", f"question {question.id!r} has the prompt {named[0]!r}, not one of {known}"
        )
    return cast(Prompt, named[0])


def prompt_text(model: AsksPhrases, question: Question) -> str:
    """Stage 1's prompt (B.1.1 or B.1.2) for a phrase; for a choice B.1.3, or what `asked_with` chose.

    Raises ModelError where the prompt has no room for the choices, RecordError as `prompt_of` does.
    """
    if question.kind == "phrase":
        return model.phrase_question(str(question.phrase))
    prompt = prompt_of(question)
    try:
        return prompted(question.question, question.choices, prompt)
    except ValueError as error:
        raise ModelError(str(error)) from None

"""Questions that a text LLM answers without the audio are left out: they would reward guessing, not listening.

The LLM is asked in several orders of the choices, so that a liking for a letter does not pass for an answer. It is a
folder or hub id of transformers, or any OpenAI-compatible server as http://HOST:PORT/v1#MODEL.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from tgsr.answering.cascade import CHARACTERS, LocalLlm
from tgsr.answering.remote import chat, chat_endpoint
from tgsr.answering.responder import Decoding, Failed
from tgsr.choices import extract_choice, format_choices, letter
from tgsr.data.shards import Made
from tgsr.llm.endpoint import Endpoint
from tgsr.records import Bad, Question, Row, question_of

# --- a text LLM, here or behind a server ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prompt:
    """One user turn; `letters`, where there are any, are the only answers that count."""

    text: str
    letters: str = ""


class Llm(Protocol):
    """Replies to prompts, one each, in order. What fails is Failed; the others go on."""

    @property
    def characters(self) -> int:
        """How many characters of a transcript fit into a prompt."""
        ...

    def replies(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str | Failed]: ...


@functools.cache
def llm_of(name: str, cache: Path) -> Llm:
    """The LLM called `name`, loaded once a process; `cache` keeps a server's replies. ModelError for none."""
    if name.startswith(("http://", "https://")):
        return Served(*chat_endpoint(name, cache=cache))
    return Local(LocalLlm.load(name))


@dataclass
class Served:
    """Writes what it likes: letters are asked for in the prompt alone."""

    endpoint: Endpoint
    model: str
    characters: int = CHARACTERS

    def replies(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str | Failed]:
        def reply(prompt: Prompt) -> str | Failed:
            return chat(self.endpoint, self.model, [{"role": "user", "content": prompt.text}], decoding)

        with ThreadPoolExecutor(self.endpoint.limits.at_once) as pool:
            return list(pool.map(reply, prompts))


@dataclass
class Local:
    """Says the likeliest of a prompt's letters. One prompt at a time: a reply must not depend on its neighbours."""

    llm: LocalLlm

    @property
    def characters(self) -> int:
        # Half of the context is for the transcript and the instruction; lines with times are 2 characters a token.
        return max(1000, self.llm.context - 800)

    def replies(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str | Failed]:
        decoding = replace(decoding, max_new_tokens=min(decoding.max_new_tokens, self.llm.context // 2))
        return [
            self.likeliest(prompt) if prompt.letters else self.llm.write(prompt.text, decoding)
            for prompt in prompts
        ]

    @torch.no_grad()
    def likeliest(self, prompt: Prompt) -> str:
        """The letter with the highest next-token likelihood; the first of equals."""
        ids = self.llm.prompt(prompt.text)[-self.llm.context :]
        row = torch.tensor([ids], device=self.llm.model.device)
        logits_V = self.llm.model(input_ids=row, logits_to_keep=1).logits[0, -1].float()
        # The last token: some tokenizers write a blank before a word that stands alone.
        tokens = [
            self.llm.tokenizer(one, add_special_tokens=False)["input_ids"][-1] for one in prompt.letters
        ]
        return prompt.letters[int(logits_V[tokens].argmax())]


# --- the filter ----------------------------------------------------------------------------------------------------

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
        asked = [
            index
            for index, question in enumerate(questions)
            if n_right[index] == order < len(question.choices) and index not in bad
        ]
        prompts = [without_audio(questions[index], order) for index in asked]
        for index, reply in zip(asked, llm.replies(prompts, LETTER), strict=True):
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


def without_audio(question: Question, order: int) -> Prompt:
    """The question with its choices in that order, to be answered with a letter."""
    choices = in_turn(question.choices, order)
    text = (
        "This question is about a recording that you cannot hear. Choose the answer that is most likely right.\n"
        f"{question.question}\n{format_choices(choices)}\nReply with the letter of that answer and nothing else."
    )
    return Prompt(text, "".join(map(letter, range(len(choices)))))


def is_right(reply: str, question: Question, order: int) -> bool:
    """Whether the reply names the right choice: by a letter alone, as it was asked for, else as a text may."""
    choices = in_turn(question.choices, order)
    alone = reply.strip(" \n().*").lower()
    letters = [letter(index) for index in range(len(choices))]
    chosen = letters.index(alone) if alone in letters else extract_choice(reply, choices)
    return chosen is not None and choices[chosen] == question.answer

"""A model that can be asked about recordings and no more: remote ones, the cascade, any transformers class.

What is trained or looked into is a Lalm (models/lalm.py). Whatever only answers has this smaller interface, so that
`tgsr predict` and `tgsr ask` measure and use it by the same commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tgsr.errors import ModelError
from tgsr.llm.decoding import Decoding, Failed
from tgsr.prompts import phrase_question_af3
from tgsr.timeline import Seconds


@dataclass(frozen=True, slots=True)
class ClipQuestion:
    """One question about one of the clips that go with it.

    `text` is the whole user turn in the paper's words (appendix B), which a model that reads prompts gets as it is.
    `question`, `choices` and `phrase` are what it was made of, for models that do more than read a prompt:
    `phrase` is None unless words are to be located, and then `question` is not used. `id` names the question where a
    model draws at random. `begun` is how the answer begins, for models that say that they go on from a text.
    """

    clip: int
    text: str
    question: str
    choices: tuple[str, ...] = ()
    phrase: str | None = None
    id: str = ""
    begun: str = ""


class Responder(Protocol):
    """Answers questions about recordings. Raises ModelError where no question at all can be answered."""

    name: str
    max_seconds: Seconds  # the longest clip that it takes; longer ones are refused before they reach it
    longer: str = "cut it"  # what to do about a longer one
    at_once: int  # how many clips it likes to get together
    system: str | None = None  # the system turn; None leaves that turn to the chat template
    goes_on: bool = False  # whether it goes on from the beginning of an answer

    def phrase_question(self, phrase: str) -> str:
        """The user turn that asks where `phrase` is said: B.1.2's, which says in which form to answer."""
        return phrase_question_af3(phrase)

    def respond(
        self, clips: Sequence[np.ndarray], questions: Sequence[ClipQuestion], decoding: Decoding
    ) -> list[str | Failed]:
        """One response for each question, in order; `clips` are 16 kHz mono float32.

        What a model writes comes back as it is, the empty text too; a `Cut` is a text that the limit cut off. One that
        fails is Failed; the others go on.
        """
        ...

    def spent(self) -> str:
        """What the responses so far have cost: requests, tokens, money; "" where there is nothing to say."""
        return ""


def require_heard(model: Responder, seconds: Seconds) -> None:
    """ModelError for a clip that is longer than the model hears."""
    if seconds > model.max_seconds:
        raise ModelError(
            f"{model.name} hears {model.max_seconds:g} s, the audio lasts {seconds:.2f} s: {model.longer}"
        )

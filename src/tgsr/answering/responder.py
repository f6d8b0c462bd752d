"""A model that can be asked about recordings and no more: remote ones, the cascade, any transformers class.

What is trained or looked into is a Lalm (lalm.py). Whatever only answers has this smaller interface, so that
`tgsr predict` and `tgsr ask` measure and use it by the same commands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tgsr.models.lalm import ModelError
from tgsr.timeline import Seconds


@dataclass(frozen=True, slots=True)
class Decoding:
    """How responses are drawn: greedy unless a temperature is given."""

    max_new_tokens: int = 250
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """ModelError for numbers that no sampling has."""
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ModelError(f"--temperature {self.temperature}: must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise ModelError(f"--top-p {self.top_p}: must be above 0 and at most 1")
        if self.max_new_tokens < 1:
            raise ModelError(f"--max-new-tokens {self.max_new_tokens}: must be 1 or more")


GREEDY = Decoding()


@dataclass(frozen=True, slots=True)
class Asked:
    """One question about one of the clips that go with it.

    `text` is the whole user turn in the paper's words (appendix B), which a model that reads prompts gets as it is.
    `question`, `choices` and `phrase` are what it was made of, for models that do more than read a prompt:
    `phrase` is None unless words are to be located, and then `question` is not used.
    """

    clip: int
    text: str
    question: str
    choices: tuple[str, ...] = ()
    phrase: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """No response, and why, in a sentence for an errors file: a refused request, a connection that was cut."""

    reason: str


class Responder(Protocol):
    """Answers questions about recordings. Raises ModelError where no question at all can be answered."""

    name: str
    max_seconds: Seconds  # the longest clip that it takes; longer ones are refused before they reach it
    at_once: int  # how many clips it likes to get together

    def phrase_question(self, phrase: str) -> str:
        """The user turn that asks where `phrase` is said (B.1.1, B.1.2)."""
        ...

    def respond(
        self, clips: Sequence[np.ndarray], asked: Sequence[Asked], decoding: Decoding
    ) -> list[str | Failed]:
        """One response for each of `asked`, in order; `clips` are 16 kHz mono float32.

        What a model writes comes back as it is, the empty text too. One that fails is Failed; the others go on.
        """
        ...

    def spent(self) -> str:
        """What the responses so far have cost: requests, tokens, money; "" where there is nothing to say."""
        ...

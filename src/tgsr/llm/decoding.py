"""How a response is decoded, and what stands in for one that failed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tgsr.errors import ModelError


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
class Failed:
    """No response, and why, in a sentence for an errors file: a refused request, a connection that was cut."""

    reason: str

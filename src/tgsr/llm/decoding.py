"""How a response is decoded, and what stands in for one that failed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from tgsr.errors import require
from tgsr.models.placement import Quantize


@dataclass(frozen=True, slots=True)
class Decoding:
    """How responses are drawn: greedy unless a temperature is given."""

    max_new_tokens: Annotated[int, "of a response, at most"] = 250
    temperature: Annotated[float, "0 is greedy"] = 0.0
    top_p: Annotated[float, "nucleus of sampling"] = 1.0
    seed: Annotated[int, "of --temperature and --limit"] = 0
    quantize: Annotated[
        Quantize | None,
        "on a CPU: token by token with the decoder's matrices rounded to 8 bits; faster, not exact",
    ] = None
    relisten: Annotated[
        bool, "once a response has cited a span, the span's frames enter again, and it goes on from there"
    ] = False
    relisten_seconds: Annotated[float, "of --relisten: most that a response hears again"] = 10.0

    def __post_init__(self) -> None:
        """OptionError for numbers that no sampling has."""
        require("temperature", self.temperature, "0 or more", 0 <= self.temperature < math.inf)
        require("top_p", self.top_p, "above 0 and at most 1", 0 < self.top_p <= 1)
        require("max_new_tokens", self.max_new_tokens, "1 or more", self.max_new_tokens >= 1)
        require("relisten_seconds", self.relisten_seconds, "above 0", 0 < self.relisten_seconds < math.inf)

    @property
    def hears_again(self) -> float:
        """Seconds of what it cites that a response hears again, at most; 0 without --relisten."""
        return self.relisten_seconds if self.relisten else 0.0


GREEDY = Decoding()


class Cut(str):
    """A text that the limit of new tokens cut off: what there is of it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """No response, and why, in a sentence for an errors file: a refused request, a connection that was cut."""

    reason: str


def written(text: str, cut: bool, failed: str) -> str | Failed:
    """A model's text as what it is: whole, `Cut` at the limit, or Failed where the model could not go on."""
    if failed:
        return Failed(f"{failed}; until then it wrote {text!r:.80}")
    return Cut(text) if cut else text

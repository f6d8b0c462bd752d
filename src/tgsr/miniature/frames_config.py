"""The settings of the frame baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tgsr.errors import require
from tgsr.training.config import require_counts


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesConfig:
    """How the head over an encoder's frames is trained. Nothing here is the paper's."""

    clips: Annotated[
        tuple[str, ...],
        "clips with words and times (tgsr transcribe, tgsr compose), JSONL; several become one set",
    ]
    watch: Annotated[tuple[str, ...], "other clips, of voices that are not in those, to measure it on"] = ()
    model: Annotated[str, "whose encoder hears the clips"] = "whisper-base"
    steps: Annotated[int, "in all"] = 2000
    clips_per_step: Annotated[int, "drawn at random"] = 16
    frames_per_clip: Annotated[int, "of each, drawn at random"] = 128
    n_pieces: Annotated[int, "of words, learned from the clips; the pause is one"] = 1000
    hidden: Annotated[int, "width of the first layer"] = 512
    dropout: Annotated[float, "after it"] = 0.2
    noise: Annotated[float, "on the frames, in their standard deviations"] = 0.15
    pause_weight: Annotated[float, "of a frame in which nobody speaks, in the loss"] = 0.2
    learning_rate: Annotated[float, "peak"] = 2e-3
    warmup_steps: Annotated[int, "to the peak"] = 100
    weight_decay: Annotated[float, "of all weights"] = 0.05
    clip_norm: Annotated[float, "of the gradient"] = 1.0
    watch_every: Annotated[int, "steps between two measurements"] = 500
    checkpoint_every: Annotated[int, "steps"] = 500
    seed: Annotated[int, "of the weights, and of what is drawn"] = 0

    def __post_init__(self) -> None:
        counts = ("steps", "clips_per_step", "frames_per_clip", "n_pieces", "hidden", "watch_every")
        require_counts(self, *counts, "checkpoint_every")
        require("dropout", self.dropout, "0 or more and below 1", 0 <= self.dropout < 1)
        for name in ("noise", "pause_weight"):
            require(name, getattr(self, name), "0 or more", getattr(self, name) >= 0)
        for name in ("learning_rate", "clip_norm"):
            require(name, getattr(self, name), "above 0", getattr(self, name) > 0)

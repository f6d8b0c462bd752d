"""The settings of the base that hears English."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tgsr.errors import require
from tgsr.training.config import require_counts


@dataclass(frozen=True, slots=True, kw_only=True)
class EnglishConfig:
    """How the base is made. Nothing here is the paper's: it starts from a trained model."""

    clips: Annotated[
        tuple[str, ...], "clips with words and times (tgsr compose), JSONL; several become one set"
    ]
    watch: Annotated[
        tuple[str, ...], "other clips, of voices that are not in those; the gates are measured on them"
    ] = ()
    model: Annotated[str, "the model that is taught"] = "whisper-base"
    start: Annotated[str, "another run of this command, whose last weights this one begins with"] = ""
    without: Annotated[tuple[str, ...], "tasks of `tgsr build qa` that no lesson asks"] = ("speaker count",)
    steps: Annotated[int, "in all"] = 2000
    clips_per_step: Annotated[int, "each with its lessons; all of them where there are fewer"] = 2
    lesson_tokens: Annotated[int, "a clip's lessons in words together"] = 560
    token_phrases: Annotated[int, "a clip's phrases that are answered in Whisper's time tokens"] = 2
    early_share: Annotated[float, "of the steps, at the beginning, which hold few questions with choices"] = (
        0.25
    )
    timed_share: Annotated[float, "of the clips: with time code and true times"] = 0.7
    spread: Annotated[float, "of a time token's soft target, in ticks of 0.02 s"] = 3.0
    lora_rank: Annotated[int, "of the LoRA that is merged into the decoder"] = 64
    learning_rate: Annotated[float, "peak"] = 1e-3
    warmup_steps: Annotated[int, "to the peak"] = 50
    weight_decay: Annotated[float, "of the LoRA and the time code"] = 0.01
    clip_norm: Annotated[float, "of the gradient"] = 1.0
    bfloat16: Annotated[bool, "matrix products, on a CPU that has it (avx512_bf16)"] = True
    watch_every: Annotated[int, "steps between two looks at the gates"] = 400
    checkpoint_every: Annotated[int, "steps"] = 100
    seed: Annotated[int, "of the LoRA and of the lessons"] = 0

    def __post_init__(self) -> None:
        require_counts(self, "steps", "clips_per_step", "lora_rank", "watch_every", "checkpoint_every")
        require("token_phrases", self.token_phrases, "0 or more", self.token_phrases >= 0)
        for name in ("early_share", "timed_share"):
            require(name, getattr(self, name), "0 to 1", 0 <= getattr(self, name) <= 1)
        for name in ("spread", "learning_rate", "clip_norm"):
            require(name, getattr(self, name), "above 0", getattr(self, name) > 0)

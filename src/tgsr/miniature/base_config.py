"""The settings of the miniature's base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tgsr.errors import require
from tgsr.training.config import require_counts


@dataclass(frozen=True, slots=True)
class BaseConfig:
    """How the miniature's base is made. Nothing here is the paper's: it starts from a trained model."""

    start: Annotated[
        str, "a base to go on from, a folder or mini, which hears and reads: only talking is left"
    ] = ""
    n_clips: Annotated[int, "composed once, heard again and again"] = 4000
    vary_voices: Annotated[bool, "each speaker at one of five rates: five voices for one"] = True
    hearing_steps: Annotated[int, "the aligner alone"] = 1200
    reading_steps: Annotated[int, "the decoder alone"] = 450
    steps: Annotated[int, "both, after that"] = 2400
    talking_steps: Annotated[int, "and these with questions above all; the rate starts again from half"] = 900
    evidence_gain: Annotated[
        float,
        "while talking: how much more often lessons' answers are right for better evidence; 0: as often without any",
    ] = 1.0
    texts_per_step: Annotated[int, "while reading"] = 32
    clips_per_step: Annotated[int, "after that"] = 8
    lesson_tokens: Annotated[int, "a clip's branches together"] = 320
    talking_tokens: Annotated[int, "the same while talking"] = 512
    timed_share: Annotated[float, "of the clips: with time code and true times"] = 0.55
    read_share: Annotated[float, "of the clips: as text"] = 0.12
    short_clips_first: Annotated[float, "of the steps, while the longest clip grows from 4 s to 10 s"] = 0.35
    learning_rate: Annotated[float, "peak of AdamW: embeddings, head, norms, aligner, readers"] = 1.5e-3
    matrix_learning_rate: Annotated[float, "peak of Muon: the decoder's matrices"] = 0.01
    warmup_steps: Annotated[int, "to the first peak"] = 100
    weight_decay: Annotated[float, "of both"] = 0.01
    clip_norm: Annotated[float, "of the gradient"] = 1.0
    reader_weight: Annotated[float, "of the losses of FrameHeads, WordHeads and VoiceHeads"] = 0.5
    first_voice_layer: Annotated[int, "of 6, read for the clip's first speaker"] = 2
    frame_layer: Annotated[int, "of 6, read at the frames: later layers look up what is written there"] = 3
    word_layer: Annotated[int, "of 6, read at the words: the layer that looks up"] = 4
    bfloat16: Annotated[
        bool, "matrix products, on a CPU that has it (avx512_bf16): three times the speed"
    ] = True
    checkpoint_every: Annotated[int, "steps"] = 200
    seed: Annotated[int, "of the weights and the lessons"] = 0

    def __post_init__(self) -> None:
        require_counts(
            self, "n_clips", "hearing_steps", "texts_per_step", "clips_per_step", "checkpoint_every"
        )
        for name in ("reading_steps", "steps", "talking_steps", "reader_weight"):
            require(name, getattr(self, name), "0 or more", getattr(self, name) >= 0)
        for name in ("learning_rate", "matrix_learning_rate", "clip_norm", "short_clips_first"):
            require(name, getattr(self, name), "above 0", getattr(self, name) > 0)
        # at 2 the answers of lessons without evidence are right in 5 %; soon after that in less than none
        require("evidence_gain", self.evidence_gain, "0 to 2", 0 <= self.evidence_gain <= 2)
        require("timed_share", self.timed_share, "0 to 1", 0 <= self.timed_share <= 1)
        rest = 1 - self.timed_share
        require("read_share", self.read_share, f"0 to {rest:g}, which is left", 0 <= self.read_share <= rest)
        for name in ("first_voice_layer", "frame_layer", "word_layer"):
            require(name, getattr(self, name), "1 to 6", 1 <= getattr(self, name) <= 6)

    @property
    def before_talking(self) -> int:
        """Steps before the lessons are questions above all."""
        return 0 if self.start else self.reading_steps + self.steps

"""The settings of the miniature's base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


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

    @property
    def before_talking(self) -> int:
        """Steps before the lessons are questions above all."""
        return 0 if self.start else self.reading_steps + self.steps

"""Audio Flamingo 3 as transformers has it: a Whisper encoder, a two-layer projector, a Qwen2 decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import AudioFlamingo3ForConditionalGeneration, AudioFlamingo3Processor

from tgsr.audio import SAMPLE_RATE
from tgsr.errors import ModelError
from tgsr.models.checkpoint import PROJECTED, check_processor, read_processor, read_weights
from tgsr.models.lalm import Lalm, too_short
from tgsr.models.placement import AS_SAVED, Placement
from tgsr.models.whisper_encoder import pooled
from tgsr.prompts import phrase_answer_af3, phrase_question_af3
from tgsr.timeline import Span

AUDIO_TOKEN = "<sound>"
CLASSES = {"audioflamingo3": AudioFlamingo3ForConditionalGeneration}


@dataclass
class AudioFlamingo3(Lalm):
    """One loaded model of the family.

    Audio longer than one window of the feature extractor (30 s; the miniature: 10 s) is heard window by window, as the
    official processor does. `max_seconds` is that processor's limit.
    """

    audio_token = AUDIO_TOKEN
    hashed_as = "af3"
    called: ClassVar[str] = "an Audio Flamingo 3 model"
    model_class: ClassVar[Any] = AudioFlamingo3ForConditionalGeneration
    processor_class: ClassVar[Any] = AudioFlamingo3Processor

    max_seconds: float = 600.0

    @torch.no_grad()
    def encode_audio(self, samples: np.ndarray) -> Tensor:
        """16 kHz mono samples -> F x D_enc.

        Only the frames that hold audio go through the transformer: the official forward pads to the
        whole window and masks the padding, which gives the same numbers for more work.
        """
        self.refuse_long(samples)
        window = self.feature_extractor.chunk_length * SAMPLE_RATE
        pieces = [samples[i : i + window] for i in range(0, max(1, len(samples)), window)]
        tower = self.inner.model.audio_tower
        frames = torch.cat([pooled(self.feature_extractor, tower, piece) for piece in pieces])
        if not len(frames):
            raise too_short(self.name, samples)
        return frames

    def phrase_question(self, phrase: str) -> str:
        return phrase_question_af3(phrase)

    def phrase_answer(self, phrase: str, span: Span) -> str:
        return phrase_answer_af3(span)


def load_audio_flamingo3(
    name: str, placement: Placement = AS_SAVED, family: type[AudioFlamingo3] = AudioFlamingo3
) -> AudioFlamingo3:
    """A checkpoint of this family, or of one that is made like it, in the hub's layout, by folder or hub id, frozen.

    `max_seconds` is the processor's own, in whole windows (the family's where it says nothing). Raises ModelError for
    a missing or unreadable file, for another model's processor, and where weights are missing.
    """
    tokenizer, extractor, about = read_processor(name, family.called)
    model = read_weights(family.model_class, name, family.called, placement, unquantized=PROJECTED)
    check_processor(name, model.config, tokenizer, extractor, AUDIO_TOKEN)
    n_positions = model.config.audio_config.max_source_positions
    if extractor.nb_max_frames != 2 * n_positions:
        raise ModelError(
            f"{name}: the feature extractor has windows of {extractor.chunk_length} s, {extractor.nb_max_frames} "
            f"frames, the encoder takes {2 * n_positions}; take the processor files that came with the weights"
        )
    n_windows = about.get("max_audio_len", family.max_seconds) // extractor.chunk_length
    return family(
        name, model, tokenizer, extractor, max_seconds=float(max(1, n_windows) * extractor.chunk_length)
    )

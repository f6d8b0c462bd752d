"""Audio Flamingo 3 as transformers has it: a Whisper encoder, a two-layer projector, a Qwen2 decoder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AudioFlamingo3ForConditionalGeneration

from tgsr.audio import SAMPLE_RATE
from tgsr.models.checkpoint import check_processor, read_processor, read_weights
from tgsr.models.lalm import Lalm, too_short, weights_hash
from tgsr.models.placement import AS_SAVED, Placement
from tgsr.models.whisper_encoder import pooled
from tgsr.prompts import phrase_answer_af3, phrase_question_af3
from tgsr.timeline import Span

AUDIO_TOKEN = "<sound>"
MODEL_TYPES = ("audioflamingo3",)


@dataclass
class AudioFlamingo3(Lalm):
    """One loaded model of the family.

    Audio longer than one window of the feature extractor (30 s; the miniature: 10 s) is heard window by window, as the
    official processor does. `max_seconds` is that processor's limit.
    """

    audio_token = AUDIO_TOKEN
    hub_decoder = "language_model.model."

    max_seconds: float = 600.0

    @property
    def aligner(self) -> Any:
        return self.inner.model.multi_modal_projector

    @cached_property
    def encoder_key(self) -> str:
        """A hash of the encoder's weights and of the window."""
        weights = self.inner.model.audio_tower.state_dict()
        return weights_hash(f"af3 {self.feature_extractor.chunk_length}", weights.items())

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


def load_audio_flamingo3(name: str, placement: Placement = AS_SAVED) -> AudioFlamingo3:
    """An Audio Flamingo 3 checkpoint in the hub's layout, by folder or hub id, frozen.

    `max_seconds` is the processor's own (600 s where it says nothing). Raises ModelError for a missing or unreadable
    file, for another model's processor, and where weights are missing.
    """
    family = "an Audio Flamingo 3 model"
    tokenizer, extractor, about = read_processor(name, family)
    model = read_weights(
        AudioFlamingo3ForConditionalGeneration,
        name,
        family,
        placement,
        unquantized=["model.audio_tower", "model.multi_modal_projector", "lm_head"],
    )
    check_processor(name, model.config, tokenizer, extractor, AUDIO_TOKEN)
    max_seconds = float(about.get("max_audio_len", 600))
    return AudioFlamingo3(name, model, tokenizer, extractor, max_seconds=max_seconds)

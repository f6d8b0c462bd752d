"""Qwen2-Audio as transformers has it: a Whisper encoder, one linear layer, a decoder of Qwen's first 7B's shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

from tgsr.models.checkpoint import PROJECTED, check_processor, read_processor, read_weights
from tgsr.models.lalm import Lalm, too_short
from tgsr.models.placement import AS_SAVED, Placement
from tgsr.models.whisper_encoder import pooled
from tgsr.prompts import chat_messages

AUDIO_TOKEN = "<|AUDIO|>"
CLASSES = {"qwen2_audio": Qwen2AudioForConditionalGeneration}


@dataclass
class Qwen2Audio(Lalm):
    """One loaded model of the family.

    `max_seconds` is the feature extractor's one window, where the official processor cuts without a word; longer audio
    is refused, or heard a window at a time (--long-audio split). Stage 1 asks in Qwen2.5-Omni's words (B.1.1): the
    paper has none for this family.
    """

    audio_token = AUDIO_TOKEN
    hashed_as = "qwen2-audio"

    max_seconds: float = 30.0

    @torch.no_grad()
    def encode_audio(self, samples: np.ndarray) -> Tensor:
        """16 kHz mono samples -> F x D_enc: what the official forward, which masks its padding, gives the projector."""
        self.refuse_long(samples)
        frames = pooled(self.feature_extractor, self.inner.model.audio_tower, samples)
        if not len(frames):
            raise too_short(self.name, samples)
        return frames

    def turns(self, text: str, system: str | None) -> list[dict[str, Any]]:
        """With the key by which the family's templates before June 2025 know an audio; newer ones go by its type."""
        chat = chat_messages(text, system)
        chat[-1]["content"][0]["audio_url"] = ""
        return chat


def load_qwen2_audio(name: str, placement: Placement = AS_SAVED) -> Qwen2Audio:
    """A Qwen2-Audio checkpoint in the hub's layout, by folder or hub id, frozen.

    Raises ModelError for a missing or unreadable file, for another model's processor, and where weights are missing.
    """
    family = "a Qwen2-Audio model"
    tokenizer, extractor, _ = read_processor(name, family, Qwen2AudioProcessor)
    model = read_weights(Qwen2AudioForConditionalGeneration, name, family, placement, unquantized=PROJECTED)
    check_processor(name, model.config, tokenizer, extractor, AUDIO_TOKEN)
    return Qwen2Audio(name, model, tokenizer, extractor, max_seconds=float(extractor.chunk_length))

"""Qwen3-Omni's thinker as transformers has it: a tower in 1-s chunks, two linear layers, a mixture of experts.

What it shares with Qwen2.5-Omni's is that family's. Instruct and Captioner answer at once; Thinking's template
opens <think>, or the model does (`Lalm.opening`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn
from transformers import Qwen3OmniMoeThinkerForConditionalGeneration

from tgsr.audio import SAMPLE_RATE
from tgsr.models.checkpoint import check_processor
from tgsr.models.lalm import too_short
from tgsr.models.placement import AS_SAVED, Placement
from tgsr.models.qwen_omni import QwenOmni, load_thinker
from tgsr.models.whisper_encoder import spectrogram

AUDIO_TOKEN = "<|audio_pad|>"
# Of the whole Omni, or of what the thinker itself saves.
CLASSES = dict.fromkeys(
    ("qwen3_omni_moe", "qwen3_omni_moe_thinker"), Qwen3OmniMoeThinkerForConditionalGeneration
)
MOST_SECONDS = 2400.0  # the technical report's (arXiv 2509.17765); the processor would take any length
STRIDE = 8  # mel columns to a frame: three convolutions, each of stride 2


@dataclass
class Qwen3Omni(QwenOmni):
    """One loaded model of the family.

    The aligner is the tower's last two layers, `proj1` and `proj2`; the layer norm before them is the frozen encoder's.
    A chunk of 1 s is 13 frames, twelve of 80 ms and one of 40 ms: 13 a second, and not 12.5. A clip is heard as the
    official processor hears it alone. In a batch that processor pads shorter clips, which moves their last frame, and
    all frames of a clip of less than 1 s, by what they see of the padding.

    Each token chooses its experts by itself, so that a row of branches is routed as separate sequences are. The LoRA
    is on attention: experts and router stay frozen unless `with_lora` is asked for them.
    """

    audio_token = AUDIO_TOKEN
    seconds_per_frame = 1 / 13  # in the mean; `frame_edges` says it exactly
    lora_targets = r".*language_model\.layers\.\d+\.self_attn\.[qkvo]_proj"
    # PEFT turns a mixture's pattern into the names q_proj, k_proj, ..., which the towers and the talker have too.
    lora_excludes = r"(?!.*language_model\.layers\.).*"

    max_seconds: float = MOST_SECONDS
    system: str | None = None

    @property
    def audio_place(self) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(self.inner.config.audio_token_id))

    @property
    def aligner(self) -> Any:
        tower = self.inner.model.audio_tower
        return nn.Sequential(OrderedDict(proj1=tower.proj1, act=tower.act, proj2=tower.proj2))

    @property
    def windows(self) -> str:
        tower = self.inner.model.audio_tower
        return f"qwen3-omni {tower.n_window} {tower.n_window_infer}"

    def frame_edges(self, n_frames: int) -> np.ndarray:
        columns = 2 * self.inner.model.audio_tower.n_window
        chunk, frame = np.divmod(np.arange(n_frames + 1), -(-columns // STRIDE))
        return (chunk * columns + frame * STRIDE) * self.feature_extractor.hop_length / SAMPLE_RATE

    def mels(self, samples: np.ndarray) -> Any:
        least = self.feature_extractor.n_fft // 2  # samples are mirrored at both ends
        if len(samples) <= least:
            raise too_short(self.name, samples, least)
        # The extractor's own default cuts at its chunk_length, 30 s in the published files.
        return spectrogram(
            self.feature_extractor, samples, padding="longest", truncation=False, return_attention_mask=True
        )


def load_qwen3_omni(name: str, placement: Placement = AS_SAVED) -> Qwen3Omni:
    """The thinker of a Qwen3-Omni checkpoint in the hub's layout, by folder or hub id, frozen; as `load_thinker`."""
    model, tokenizer, extractor = load_thinker(name, "a Qwen3-Omni model", CLASSES, placement)
    named = getattr(tokenizer, "audio_token", None)  # by which the official processor knows it
    check_processor(name, model.config, tokenizer, extractor, str(named or AUDIO_TOKEN))
    return Qwen3Omni(name, model, tokenizer, extractor)

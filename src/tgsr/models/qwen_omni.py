"""Qwen2.5-Omni's thinker as transformers has it: a Whisper-like tower in 2-s chunks, one linear layer, a decoder.

The talker and the vocoder are never loaded, the vision tower is loaded and not used. The processor class
is left alone: it imports torchvision, and audio and text need no more than its two parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerBase,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from tgsr.audio import SAMPLE_RATE
from tgsr.errors import ModelError
from tgsr.models.checkpoint import check_processor, check_type, read_processor, read_weights
from tgsr.models.lalm import Lalm, too_short, weights_hash
from tgsr.models.placement import AS_SAVED, Placement
from tgsr.models.whisper_encoder import spectrogram
from tgsr.prompts import QWEN_SYSTEM

AUDIO_TOKEN = "<|AUDIO|>"
END_TOKEN = "<|im_end|>"
# Of the whole Omni, or of what the thinker itself saves.
CLASSES = dict.fromkeys(("qwen2_5_omni", "qwen2_5_omni_thinker"), Qwen2_5OmniThinkerForConditionalGeneration)


@dataclass
class QwenOmni(Lalm):
    """One loaded model of the family.

    The aligner is the tower's last layer, `proj`: what comes before it, the layer norm after the pooling
    included, is the frozen encoder. `max_seconds` is the feature extractor's limit. The prompt is cut between
    <|audio_bos|> and <|audio_eos|>. Raises ModelError for a tokenizer without <|im_end|> or a padding token.

    Positions of audio and text are the same on all three axes of this decoder, one a token: ordinary
    B x N position ids. Source: get_rope_index in transformers, for inputs without images.
    """

    audio_token = AUDIO_TOKEN
    hub_decoder = "thinker.model."

    max_seconds: float = 300.0
    system: str | None = QWEN_SYSTEM

    def __post_init__(self) -> None:
        end, pad = self.tokenizer.get_vocab().get(END_TOKEN), self.tokenizer.pad_token_id
        if end is None or pad is None:
            lacks = END_TOKEN if end is None else "a padding token"
            raise ModelError(
                f"{self.name}: the tokenizer lacks {lacks}; take the one that came with the model"
            )
        super().__post_init__()
        self.eos_id = int(end)

    @property
    def aligner(self) -> Any:
        return self.inner.model.audio_tower.proj

    @property
    def windows(self) -> str:
        """How the tower cuts sound up, which its weights do not say."""
        return f"qwen-omni {self.inner.model.audio_tower.n_window}"

    @cached_property
    def encoder_key(self) -> str:
        """A hash of the tower's weights without the aligner and of `windows`."""
        weights = self.inner.model.audio_tower.state_dict().items()
        encoder = [(name, weight) for name, weight in weights if not name.startswith("proj")]
        return weights_hash(self.windows, encoder)

    def mels(self, samples: np.ndarray) -> Any:
        """The official extractor's `input_features` and `attention_mask` for one clip, without what no frame sees.

        Raises ModelError for a clip that is too short for a frame.
        """
        hop = self.feature_extractor.hop_length
        n_mels = -(-len(samples) // hop)
        if n_mels < 3:  # two convolved positions, which the pooling makes one frame
            raise too_short(self.name, samples, 2 * hop)
        # The official call pads to 300 s of zeros. One window of them gives the same: no kept column sees further.
        window = self.feature_extractor.n_fft
        return spectrogram(
            self.feature_extractor,
            samples,
            padding="max_length",
            max_length=min(n_mels * hop + window, round(self.max_seconds * SAMPLE_RATE)),
            return_attention_mask=True,
        )

    @torch.no_grad()
    def encode_audio(self, samples: np.ndarray) -> Tensor:
        """16 kHz mono samples -> F x D_enc: what the official forward gives to the aligner's first layer."""
        self.refuse_long(samples)
        batch = self.mels(samples)
        first = next(layer for layer in self.aligner.modules() if isinstance(layer, nn.Linear))
        weight = first.weight
        pooled: list[Tensor] = []

        def keep(_: nn.Module, arguments: tuple[Tensor]) -> Tensor:
            pooled.append(arguments[0])
            return arguments[0].to(weight.dtype)  # training keeps the aligner in float32 in a bfloat16 tower

        hook = first.register_forward_pre_hook(keep)
        try:
            self.inner.get_audio_features(
                batch["input_features"].to(weight.device), batch["attention_mask"].to(weight.device)
            )
        finally:
            hook.remove()
        return pooled[0].float().cpu()


def load_qwen_omni(name: str, placement: Placement = AS_SAVED) -> QwenOmni:
    """The thinker of a Qwen2.5-Omni checkpoint in the hub's layout, by folder or hub id, frozen; as `load_thinker`."""
    model, tokenizer, extractor = load_thinker(name, "a Qwen2.5-Omni model", CLASSES, placement)
    check_processor(name, model.config, tokenizer, extractor, AUDIO_TOKEN)
    return QwenOmni(name, model, tokenizer, extractor, max_seconds=float(extractor.chunk_length))


def load_thinker(
    name: str, family: str, classes: Mapping[str, Any], placement: Placement
) -> tuple[Any, PreTrainedTokenizerBase, WhisperFeatureExtractor]:
    """A thinker without its talker, its tokenizer and its feature extractor.

    Raises ModelError for a missing or unreadable file, for another family's checkpoint or processor, and where
    weights are missing.
    """
    model_class = classes[check_type(name, family, classes)]
    tokenizer, extractor, _ = read_processor(name, family)
    unquantized = ["model.audio_tower", "model.visual", "lm_head"]
    model = read_weights(model_class, name, family, placement, unquantized=unquantized)
    return model, tokenizer, extractor

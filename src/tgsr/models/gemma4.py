"""Gemma 4 as transformers has it: a conformer, or in the 12B no encoder at all, one linear layer, and a decoder.

Layers attend to a sliding window or to all positions, in turns. In the small models (E2B, E4B) the last layers attend
to the keys of earlier ones, and each position brings, besides what enters the first layer, a piece for each layer
(per-layer embeddings): of text its token's, of a frame those of padding. In a prefix's row these pieces stand behind
the embedding, and a hook of the decoder gives them to the layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoFeatureExtractor,
    Gemma4ForConditionalGeneration,
    Gemma4UnifiedForConditionalGeneration,
)

from tgsr.errors import ModelError
from tgsr.models.checkpoint import check_sizes, check_token, read_processor, read_weights
from tgsr.models.lalm import Lalm, PromptParts, too_short, weights_hash
from tgsr.models.placement import AS_SAVED, Placement
from tgsr.models.whisper_encoder import spectrogram

AUDIO_TOKEN = "<|audio|>"
BEFORE_AUDIO, AFTER_AUDIO = "<|audio>", "<audio|>"  # the processor's, not the chat template's
CLASSES = {"gemma4": Gemma4ForConditionalGeneration}
WITHOUT_ENCODER = {"gemma4_unified": Gemma4UnifiedForConditionalGeneration}
MAX_SECONDS = 30.0  # the model's card; its processor cuts there without a word
UNQUANTIZED = [
    *("model.audio_tower", "model.embed_audio", "model.vision_tower", "model.embed_vision", "lm_head"),
    # They are small and feed each layer: what is rounded here adds up.
    *("per_layer_model_projection", "per_layer_input_gate", "per_layer_projection"),
]


class CappedHead(nn.Module):
    """A head whose logits stay below a bound: cap x tanh(logits / cap), as the official forward has it."""

    def __init__(self, linear: nn.Linear, cap: float) -> None:
        super().__init__()
        self.linear, self.cap = linear, cap

    @property
    def weight(self) -> Tensor:
        return self.linear.weight

    def forward(self, hidden_ND: Tensor) -> Tensor:
        return torch.tanh(self.linear(hidden_ND) / self.cap) * self.cap


@dataclass
class Gemma4(Lalm):
    """One loaded model of the family that has an encoder: E2B, E4B.

    The aligner is `embed_audio`, a norm without weights and a linear layer; the tower's own last layer stays frozen.
    Stage 1 asks in Qwen2.5-Omni's words (B.1.1): the paper has none for this family.
    """

    model_class: ClassVar[Any] = Gemma4ForConditionalGeneration

    audio_token = AUDIO_TOKEN
    hub_decoder = "model.language_model."

    max_seconds: float = MAX_SECONDS

    def __post_init__(self) -> None:
        super().__post_init__()
        decoder = self.language_model
        width, pieces = decoder.config.hidden_size, getattr(decoder.config, "hidden_size_per_layer_input", 0)
        self.has_pieces = bool(pieces)

        def take_apart(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
            """Rows of a prefix or its branches, B x N x (D + layers x pieces), as the decoder wants them."""
            row = named.get("inputs_embeds")
            if row is None or row.shape[-1] == width:  # the official forward's own
                return None
            of_layers = row[..., width:].unflatten(-1, (-1, pieces))
            return given, named | {"inputs_embeds": row[..., :width], "per_layer_inputs": of_layers}

        if self.has_pieces:
            decoder.register_forward_pre_hook(take_apart, with_kwargs=True)

    @property
    def aligner(self) -> Any:
        return self.inner.model.embed_audio

    @cached_property
    def lm_head(self) -> nn.Module:
        cap = self.language_model.config.final_logit_softcapping
        return CappedHead(self.inner.lm_head, cap) if cap else self.inner.lm_head

    @cached_property
    def encoder_key(self) -> str:
        about = f"gemma4 {self.feature_extractor.to_json_string()}"
        return weights_hash(about, self.audio_tower.state_dict().items())

    @torch.no_grad()
    def encode_audio(self, samples: np.ndarray) -> Tensor:
        """16 kHz mono samples -> F x D_enc: what the official forward, which masks its padding, gives the aligner."""
        self.refuse_long(samples)
        extractor: Any = self.feature_extractor
        tower = self.audio_tower
        least = extractor.frame_length // 2  # half of the first mel frame lies before the sound
        if len(samples) <= least:
            raise too_short(self.name, samples, least)
        mels = spectrogram(extractor, [samples])
        weight = tower.output_proj.weight
        heard = tower(
            mels["input_features"].to(weight.device, weight.dtype),
            mels["input_features_mask"].to(weight.device),
        )
        return heard.last_hidden_state[heard.attention_mask].float().cpu()

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids of any shape -> embeddings, each layer's piece behind them."""
        embedded = super().embed(ids)
        if not self.has_pieces:
            return embedded
        return torch.cat([embedded, self.language_model.embed_tokens_per_layer(ids)], -1)

    def in_row(self, frames_FD: Tensor) -> Tensor:
        """Frames bring the pieces of padding, as the official forward gives them."""
        if not self.has_pieces:
            return frames_FD
        padding = torch.tensor([self.language_model.config.pad_token_id], device=frames_FD.device)
        pieces = self.language_model.embed_tokens_per_layer(padding).expand(len(frames_FD), -1)
        return torch.cat([frames_FD, pieces], -1)

    def turns(self, text: str, system: str | None) -> list[dict[str, Any]]:
        """With the system turn as one text: templates of spring 2026 write its parts as they stand in Python."""
        chat = super().turns(text, system)
        return chat if system is None else [{"role": "system", "content": system}, *chat[1:]]

    def prompt(self, text: str) -> PromptParts:
        """The chat prompt in two parts, the audio between <|audio> and <audio|>."""
        parts, config = super().prompt(text), self.inner.config
        return PromptParts((*parts.before, config.boa_token_id), (config.eoa_token_index, *parts.after))


@dataclass
class Gemma4Unified(Gemma4):
    """One loaded model without an encoder (12B): a frame is 40 ms of the sound itself, the last filled with zeros."""

    model_class = Gemma4UnifiedForConditionalGeneration

    @property
    def audio_tower(self) -> Any:
        return nn.Identity()

    @cached_property
    def encoder_key(self) -> str:
        return f"gemma4-unified {self.inner.config.audio_config.audio_embed_dim}"

    def encode_audio(self, samples: np.ndarray) -> Tensor:
        """16 kHz mono samples -> F x 640, float32."""
        self.refuse_long(samples)
        if not len(samples):
            raise too_short(self.name, samples, 0)
        return spectrogram(self.feature_extractor, [samples])["input_features"][0].float()


def load_gemma4(name: str, placement: Placement = AS_SAVED, kind: type[Gemma4] = Gemma4) -> Gemma4:
    """A Gemma 4 checkpoint in the hub's layout, by folder or hub id, frozen.

    Raises ModelError for one that hears nothing (26B-A4B, 31B), for a missing or unreadable file, for another model's
    processor, and where weights are missing.
    """
    family = "a Gemma 4 model"
    if kind.model_class.config_class.from_pretrained(name).audio_config is None:
        raise ModelError(f"{name}: has no audio_config, it was not made to hear; take E2B, E4B or 12B")
    tokenizer, extractor, _ = read_processor(name, family, extractor_class=AutoFeatureExtractor)
    model = read_weights(kind.model_class, name, family, placement, unquantized=UNQUANTIZED)
    config = model.config
    check_token(name, tokenizer, AUDIO_TOKEN, config.audio_token_id)
    check_token(name, tokenizer, BEFORE_AUDIO, config.boa_token_id)
    check_token(name, tokenizer, AFTER_AUDIO, config.eoa_token_index)
    check_sizes(name, config, tokenizer, extractor)
    return kind(name, model, tokenizer, extractor)


def load_gemma4_unified(name: str, placement: Placement = AS_SAVED) -> Gemma4:
    """As `load_gemma4`, of one without an encoder."""
    return load_gemma4(name, placement, Gemma4Unified)

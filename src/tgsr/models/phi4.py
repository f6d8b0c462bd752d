"""Phi-4-multimodal as transformers has it: a Conformer encoder, two linear layers, Phi-4-mini's decoder.

It hears by a LoRA of its own, speech-lora/ in its repository, which is merged when the model is loaded: all that is
asked here is asked about sound. What it sees by is loaded and not used.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Phi4MultimodalFeatureExtractor, Phi4MultimodalForCausalLM

from tgsr.audio import SAMPLE_RATE
from tgsr.errors import ModelError
from tgsr.models.checkpoint import MERGED_FILE, check_sizes, read_processor, read_weights
from tgsr.models.foreign_adapter import merge_own_lora, own_lora
from tgsr.models.lalm import Lalm, context_of, weights_hash
from tgsr.models.placement import AS_SAVED, Placement
from tgsr.models.whisper_encoder import spectrogram

CLASSES = {"phi4_multimodal": Phi4MultimodalForCausalLM}
SPEECH_LORA = "speech-lora"
MAX_SECONDS = 240.0  # 3,000 of the 4,096 positions that the decoder's rotary factors are the same for


@dataclass
class Phi4(Lalm):
    """One loaded model of the family.

    The aligner is the two layers that the encoder's frames go through where no picture is shown. A clip is heard as the
    official processor hears it alone. Past 4,096 positions the decoder's rotary factors are others for the whole row,
    other clips' included: no row is longer. Stage 1 asks in Qwen2.5-Omni's words (B.1.1): the paper has none for this
    family.
    """

    hub_decoder = "model."
    seconds_per_frame = 0.08
    lora_targets = r"model\.layers\.\d+\.(self_attn\.(qkv|o)_proj|mlp\.(gate_up|down)_proj)"

    max_seconds: float = MAX_SECONDS

    @property
    def audio_id(self) -> int:
        return int(self.inner.config.audio_config.audio_token_id)

    @property
    def audio_place(self) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(self.audio_id))

    @property
    def audio_tower(self) -> Any:
        return self.inner.model.embed_tokens_extend.audio_embed

    @property
    def aligner(self) -> Any:
        tower = self.audio_tower
        return nn.Sequential(
            OrderedDict(up=tower.up_proj_for_speech, act=nn.GELU(), down=tower.down_proj_for_speech)
        )

    @property
    def language_model(self) -> Any:
        return self.inner.model

    @cached_property
    def encoder_key(self) -> str:
        return weights_hash("phi4-multimodal", self.audio_tower.encoder.state_dict().items())

    @torch.no_grad()
    def encode_audio(self, samples: np.ndarray) -> Tensor:
        """16 kHz mono samples -> F x D_enc: what the official forward gives its two layers."""
        self.refuse_long(samples)
        least = self.feature_extractor.win_length
        if len(samples) < least:
            raise ModelError(
                f"{self.name} needs {least / SAMPLE_RATE:g} s of audio, got {len(samples) / SAMPLE_RATE:.4f} s"
            )
        encoder, weight = self.audio_tower.encoder, self.audio_tower.up_proj_for_vision_speech.weight
        encoder.eval()  # its mask is drawn at random while the model around it trains
        mels = spectrogram(self.feature_extractor, samples)["audio_input_features"]
        return encoder(mels.to(weight.device, weight.dtype), None)[0].float().cpu()


def load_phi4(name: str, placement: Placement = AS_SAVED) -> Phi4:
    """A Phi-4-multimodal checkpoint in the layout of transformers' own class, by folder or hub id, frozen.

    Raises ModelError for a missing or unreadable file, for another model's processor, where weights are missing, and
    without speech-lora/ where `tgsr merge` has not written the checkpoint.
    """
    family = "a Phi-4-multimodal model"
    tokenizer, extractor, _ = read_processor(name, family, extractor_class=Phi4MultimodalFeatureExtractor)
    model = read_weights(
        Phi4MultimodalForCausalLM,
        name,
        family,
        placement,
        unquantized=["model.embed_tokens_extend", "lm_head"],
        layers="model.layers",
    )
    check_sizes(name, model.config, tokenizer, extractor)
    lalm = Phi4(name, model, tokenizer, extractor)
    if (model.config.sliding_window or 0) >= context_of(lalm):  # as published: it holds nothing back
        model.config.sliding_window = None
    if folder := own_lora(name, SPEECH_LORA):
        merge_own_lora(lalm, folder)
    elif not (Path(name) / MERGED_FILE).exists():
        raise ModelError(
            f"{name}: {SPEECH_LORA}/ (adapter_config.json, adapter_model.safetensors) is missing, without which the "
            "model was not trained to hear; download the whole repository again"
        )
    return lalm

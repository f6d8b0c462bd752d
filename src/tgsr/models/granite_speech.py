"""Granite Speech as transformers has it: a Conformer encoder, a window Q-Former of three tokens, a Granite decoder.

The decoder hears by a LoRA of its own that lies beside the weights (later checkpoints have it in their matrices). It is
merged when the model is loaded: all that is asked here is asked about sound.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    GraniteSpeechForConditionalGeneration,
    GraniteSpeechPlusForConditionalGeneration,
)

from tgsr.audio import SAMPLE_RATE
from tgsr.errors import ModelError
from tgsr.models.checkpoint import NO_ADAPTER, check_processor, check_type, read_processor, read_weights
from tgsr.models.foreign_adapter import merge_own_lora, own_lora
from tgsr.models.granite_mels import GraniteMels
from tgsr.models.lalm import Lalm, too_short, weights_hash
from tgsr.models.placement import AS_SAVED, Placement
from tgsr.models.whisper_encoder import spectrogram

AUDIO_TOKEN = "<|audio|>"
CLASSES = {
    "granite_speech": GraniteSpeechForConditionalGeneration,
    "granite_speech_plus": GraniteSpeechPlusForConditionalGeneration,
}
MAX_SECONDS = 500.0  # for which vLLM makes room; the official code has no limit but the decoder's context
# The cards' of 3.3; their template would write the day on which it is asked, another prompt every day.
SYSTEM = (
    "Knowledge Cutoff Date: April 2024.\nToday's Date: April 9, 2025.\n"
    "You are Granite, developed by IBM. You are a helpful AI assistant"
)

log = logging.getLogger(__name__)


@dataclass
class GraniteSpeech(Lalm):
    """One loaded model of the family.

    The aligner is the whole projector: its queries, the Q-Former and the linear layer. Sound is filled up to windows of
    0.3 s, each of them three tokens. A clip is heard as the official processor hears it alone: in a batch that one pads
    shorter clips, which moves their frames. Stage 1 asks in Qwen2.5-Omni's words (B.1.1): the paper has none for this
    family.
    """

    audio_token = AUDIO_TOKEN
    seconds_per_frame = 0.1
    filled_up = 0.3

    max_seconds: float = MAX_SECONDS

    @property
    def audio_tower(self) -> Any:
        return self.inner.model.encoder

    @property
    def aligner(self) -> Any:
        return self.inner.model.projector

    @property
    def mels(self) -> GraniteMels:
        return cast(GraniteMels, self.feature_extractor)

    @cached_property
    def encoder_key(self) -> str:
        return weights_hash(f"granite-speech {self.mels}", self.audio_tower.state_dict().items())

    @torch.no_grad()
    def encode_audio(self, samples: np.ndarray) -> Tensor:
        """16 kHz mono samples -> F x D_enc: what the projector gets, the frames of a token in a row."""
        self.refuse_long(samples)
        least = self.mels.n_fft // 2  # samples are mirrored at both ends
        if len(samples) <= least:
            raise too_short(self.name, samples, least)
        weight = next(self.audio_tower.parameters())
        mels = spectrogram(self.mels, samples)["input_features"].to(weight.device, weight.dtype)
        frames = self.audio_tower(mels).last_hidden_state[0]
        frames = nn.functional.pad(frames, (0, 0, 0, -len(frames) % self.aligner.window_size))
        return frames.reshape(-1, self.aligner.downsample_rate * frames.shape[-1]).float().cpu()

    def project(self, features_FE: Tensor) -> Tensor:
        aligner, rate = self.aligner, self.aligner.downsample_rate
        rows = features_FE.to(aligner.query.device, aligner.query.dtype)
        frames = rows.reshape(-1, rows.shape[-2] * rate, rows.shape[-1] // rate)
        return cast(Tensor, aligner(frames).reshape(*rows.shape[:-1], -1))

    def turns(self, text: str, system: str | None) -> list[dict[str, Any]]:
        """Each turn is one text, the audio's token in it: the family's templates know no parts."""
        before = [] if system is None else [{"role": "system", "content": system}]
        return [*before, {"role": "user", "content": self.audio_token + text}]


def load_granite_speech(name: str, placement: Placement = AS_SAVED) -> GraniteSpeech:
    """A Granite Speech checkpoint in the hub's layout, by folder or hub id, frozen, its own LoRA in its matrices.

    Raises ModelError for a missing or unreadable file, for another model's processor, and where weights are
    missing, the LoRA's included; warns where config.json says that there is a LoRA and there is none.
    """
    family = "a Granite Speech model"
    model_class = CLASSES[check_type(name, family, CLASSES)]
    tokenizer, extractor, _ = read_processor(name, family, extractor_class=GraniteMels)
    model = read_weights(
        model_class,
        name,
        family,
        placement,
        unquantized=["model.encoder", "model.projector", "lm_head"],
        adapter_kwargs=NO_ADAPTER,
    )
    config = model.config
    check_processor(name, config, tokenizer, extractor, AUDIO_TOKEN)
    check_parts(name, config, extractor)
    # The class leaves out what GraniteForCausalLM does and what the model was trained with.
    model.lm_head.register_forward_hook(partial(divided, config.text_config.logits_scaling))
    system = SYSTEM if "strftime_now" in str(tokenizer.chat_template) else None
    lalm = GraniteSpeech(name, model, tokenizer, extractor, system=system)
    if folder := own_lora(name):
        merge_own_lora(lalm, folder)
        config.has_lora_adapter = False  # not any more
    elif config.has_lora_adapter:
        log.warning(
            "%s: config.json says that the model hears by a LoRA of its own, and adapter_config.json is not there: "
            "unless somebody has merged it, download the whole repository again",
            name,
        )
    return lalm


def check_parts(name: str, config: Any, mels: GraniteMels) -> None:
    """ModelError for another model's features, and for a decoder or a token's length that no published model has."""
    made = 2 * mels.feature_size, mels.projector_window_size, mels.projector_downsample_rate
    taken = config.encoder_config.input_dim, config.window_size, config.downsample_rate
    if made != taken:
        raise ModelError(
            f"{name}: features, frames a window and frames a token are {made} in the feature extractor's file and "
            f"{taken} in config.json; take the preprocessor_config.json that came with the weights"
        )
    decoder, seconds = config.text_config.model_type, 2 * mels.hop_length * made[2] / SAMPLE_RATE
    if (decoder, seconds) != ("granite", GraniteSpeech.seconds_per_frame):
        raise ModelError(
            f"{name}: its decoder is of type {decoder} and a token of its audio {seconds:g} s; known here are granite "
            f"and {GraniteSpeech.seconds_per_frame:g} s, as in 3.3, 4.0-1b-speech and 4.1"
        )


def divided(by: float, head: nn.Module, given: Any, logits: Tensor) -> Tensor:
    """A hook's logits over Granite's logits_scaling."""
    return logits / by

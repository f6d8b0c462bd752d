"""Voxtral as transformers has it: Whisper's encoder over whole windows, four positions a frame, a Llama decoder.

Its tokenizer is mistral-common's: it reads no names of special tokens in any text, and writes a chat around a sound
file and not by a template.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor
from transformers import AutoTokenizer, VoxtralForConditionalGeneration, WhisperFeatureExtractor
from transformers.utils import is_mistral_common_available

from tgsr.audio import SAMPLE_RATE
from tgsr.errors import ModelError, install
from tgsr.models.checkpoint import PROJECTED, check_processor, read_weights
from tgsr.models.lalm import Lalm, PromptParts
from tgsr.models.placement import AS_SAVED, Placement
from tgsr.models.whisper_encoder import spectrogram

AUDIO_TOKEN = "[AUDIO]"
CLASSES = {"voxtral": VoxtralForConditionalGeneration}
MAX_SECONDS = 2400.0  # what its makers name; its processor hears any number of windows of 30 s


@dataclass
class Voxtral(Lalm):
    """One loaded model of the family.

    A clip is filled up with silence to whole windows of 30 s, and all of their frames are heard, 375 a window: the
    official forward masks none. Stage 1 asks in Qwen2.5-Omni's words (B.1.1): the paper has none for this family.
    """

    audio_token = AUDIO_TOKEN
    hashed_as = "voxtral"
    seconds_per_frame = 0.08
    filled_up = 30.0

    max_seconds: float = MAX_SECONDS
    chats: dict[str | None, PromptParts] = field(default_factory=dict, repr=False)
    """What stands around a clip and an empty question, by the system turn."""

    @torch.no_grad()
    def encode_audio(self, samples: np.ndarray) -> Tensor:
        """16 kHz mono samples -> F x 4 times the encoder's width: what the official forward gives the projector."""
        self.refuse_long(samples)
        if not len(samples):
            raise ModelError(f"{self.name} needs audio, got no sample")
        extractor, tower = self.feature_extractor, self.inner.model.audio_tower
        mels = spectrogram(  # of all windows together: they are scaled by the loudest
            extractor,
            samples,
            padding="longest",
            truncation=False,
            pad_to_multiple_of=extractor.n_samples,
        )["input_features"]
        windows = mels.to(tower.conv1.weight.device).split(extractor.nb_max_frames, dim=-1)
        frames = [tower(window).last_hidden_state.flatten() for window in windows]
        return torch.cat(frames).reshape(-1, self.inner.config.audio_config.intermediate_size).float().cpu()

    def prompt(self, text: str) -> PromptParts:
        """As mistral-common writes it, the question after the audio. ModelError where it refuses a system turn."""
        if self.system not in self.chats:
            chat = as_a_file(np.zeros(1, np.float32), SAMPLE_RATE, "", self.system)
            try:
                written = self.tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
            except ValueError as error:
                raise ModelError(f"{self.name}: its tokenizer refuses the chat: {error}") from error
            ids: list[int] = list(written)
            audio_id = self.inner.config.audio_token_id
            first = ids.index(audio_id)
            self.chats[self.system] = PromptParts(
                tuple(ids[:first]), tuple(ids[first + ids.count(audio_id) :])
            )
        around = self.chats[self.system]
        return PromptParts(around.before, (*self.plain_tokens(text), *around.after))


def as_a_file(samples: np.ndarray, rate: int, text: str, system: str | None = None) -> list[dict[str, Any]]:
    """The chat as Voxtral's tokenizer takes it, which reads sound files and no samples."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    sound = {"type": "audio", "base64": base64.b64encode(file.getvalue()).decode("ascii")}
    turns = [] if system is None else [{"role": "system", "content": system}]
    return [*turns, {"role": "user", "content": [sound, {"type": "text", "text": text}]}]


def load_voxtral(name: str, placement: Placement = AS_SAVED) -> Voxtral:
    """A Voxtral checkpoint in transformers' layout, by folder or hub id, frozen.

    Raises ModelError without mistral-common, for a missing or unreadable file, for another model's tokenizer, and where
    weights are missing.
    """
    family = "a Voxtral model"
    if not is_mistral_common_available():
        raise ModelError(f"{name}: its tokenizer needs mistral-common, {install('voxtral')}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        extractor = WhisperFeatureExtractor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: cannot be loaded as {family}: {error}") from error
    model = read_weights(VoxtralForConditionalGeneration, name, family, placement, unquantized=PROJECTED)
    check_processor(name, model.config, tokenizer, extractor, AUDIO_TOKEN)
    return Voxtral(name, model, tokenizer, extractor)

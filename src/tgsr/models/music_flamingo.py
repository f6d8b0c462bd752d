"""Music Flamingo and Audio Flamingo Next as transformers has them: Audio Flamingo 3 whose frames know their time.

Between encoder and projector, each frame is turned by angles that follow from its second in the clip (rotary time
embeddings), so that one window of 30 s differs from the next. Nothing of that trains: the frequencies are buffers,
computed from config.json. Turned frames are as frozen as the encoder's output, and are kept in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from transformers import MusicFlamingoForConditionalGeneration, MusicFlamingoProcessor
from transformers.models.musicflamingo.modeling_musicflamingo import apply_rotary_time_emb

from tgsr.models.audio_flamingo3 import AudioFlamingo3, load_audio_flamingo3
from tgsr.models.checkpoint import check_token
from tgsr.models.lalm import PromptParts, weights_hash
from tgsr.models.placement import AS_SAVED, Placement

CLASSES = {"musicflamingo": MusicFlamingoForConditionalGeneration}
BEFORE_AUDIO, AFTER_AUDIO = "<|sound_bos|>", "<|sound_eos|>"  # the processor's, not the chat template's
POOLED = 4  # mel frames in a frame


@dataclass
class MusicFlamingo(AudioFlamingo3):
    """One loaded model of the family: Audio Flamingo Next hears 1,800 s, Music Flamingo 1,200 s."""

    called = "a Music Flamingo model"
    model_class = MusicFlamingoForConditionalGeneration
    processor_class = MusicFlamingoProcessor
    hears_whole = True

    max_seconds: float = 1200.0

    @cached_property
    def encoder_key(self) -> str:
        """A hash of the encoder's weights, of the window, and of what frames are turned by."""
        model, step = self.inner.model, self.inner.config.audio_frame_step
        turning = {"frequencies": model.pos_emb.inv_freq, "angles": model.pos_emb.position_angles}
        about = f"musicflamingo {self.feature_extractor.chunk_length} {step}"
        return weights_hash(about, (model.audio_tower.state_dict() | turning).items())

    def encode_audio(self, samples: np.ndarray) -> Tensor:
        """16 kHz mono samples -> F x D_enc: what the official forward gives to the projector."""
        return self.turned(super().encode_audio(samples))

    @torch.no_grad()
    def turned(self, frames_FE: Tensor) -> Tensor:
        """A clip's frames as the encoder leaves them, F x D_enc -> the same, turned by their times; float32."""
        model = self.inner.model
        dtype, device = model.audio_tower.layer_norm.weight.dtype, model.pos_emb.inv_freq.device
        n_frames = model.audio_tower.config.max_source_positions * 2 // POOLED  # of a whole window
        step = self.inner.config.audio_frame_step * POOLED
        n_windows = -(-len(frames_FE) // n_frames)
        # In the official order, so that late times are rounded as there.
        times_WN = torch.arange(n_windows)[:, None] * n_frames * step + torch.arange(n_frames).float() * step
        windows = []
        for times_N, window_NE in zip(times_WN.to(device), frames_FE.to(dtype).split(n_frames), strict=True):
            n = len(window_NE)
            cos, sin = (angles[0, :n] for angles in model.pos_emb(times_N[None], seq_len=n_frames))
            windows.append(apply_rotary_time_emb(window_NE, cos, sin).float())
        return torch.cat(windows)

    def prompt(self, text: str) -> PromptParts:
        """The chat prompt in two parts, the audio between <|sound_bos|> and <|sound_eos|>."""
        parts, config = super().prompt(text), self.inner.config
        return PromptParts(
            (*parts.before, config.audio_bos_token_id), (config.audio_eos_token_id, *parts.after)
        )


def load_music_flamingo(name: str, placement: Placement = AS_SAVED) -> AudioFlamingo3:
    """A Music Flamingo or Audio Flamingo Next checkpoint in the hub's layout, by folder or hub id, frozen.

    Raises ModelError as `load_audio_flamingo3`, and for a tokenizer without the marks around audio.
    """
    lalm = load_audio_flamingo3(name, placement, MusicFlamingo)
    config = lalm.inner.config
    check_token(name, lalm.tokenizer, BEFORE_AUDIO, config.audio_bos_token_id)
    check_token(name, lalm.tokenizer, AFTER_AUDIO, config.audio_eos_token_id)
    return lalm

"""Whisper's encoder as all families run it: only the frames that hold audio go through the transformer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import WhisperFeatureExtractor

from tgsr.audio import SAMPLE_RATE


def spectrogram(extractor: Any, samples: Any, **how: Any) -> Any:
    """What the official extractor makes of 16 kHz mono samples, or of a list of clips, as tensors in float32.

    Under a CPU's autocast its mel filters would be rounded to bfloat16, and NumPy refuses what comes out.
    """
    with torch.autocast("cpu", enabled=False):
        return extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt", **how)


def encoded(extractor: WhisperFeatureExtractor, encoder: Any, samples: np.ndarray) -> Tensor:
    """16 kHz mono samples, one window of the extractor's at most -> P x D_enc before the last norm, 50 a second.

    The official forward pads to the whole window; with the padding masked it gives the same numbers for more work.
    Nothing for samples that are too short for one position.
    """
    batch = spectrogram(extractor, samples, return_attention_mask=True)
    n_mels = int(batch["attention_mask"].sum())
    n_positions = (n_mels - 1) // 2 + 1
    if n_positions < 1:
        return torch.zeros(0, encoder.layer_norm.weight.numel())
    mels = batch["input_features"].to(encoder.conv1.weight.device, encoder.conv1.weight.dtype)
    # Four frames more than there are, so that the convolutions see at the end what they see in a whole window.
    mels = mels[..., : n_mels + 4]
    hidden = nn.functional.gelu(encoder.conv2(nn.functional.gelu(encoder.conv1(mels)))).permute(0, 2, 1)
    hidden = hidden[:, :n_positions] + encoder.embed_positions.weight[:n_positions]
    for layer in encoder.layers:
        hidden = layer(hidden, None)
    return hidden[0]


def pooled(extractor: WhisperFeatureExtractor, tower: Any, samples: np.ndarray) -> Tensor:
    """`encoded`, each two positions pooled into a frame, and the last norm: F x D_enc float32 on the CPU, 25 a second.

    Nothing for samples that are too short for two positions: 0.02 s or less.
    """
    hidden = encoded(extractor, tower, samples)
    if len(hidden) < 2:
        return torch.zeros(0, tower.layer_norm.weight.numel())
    return tower.layer_norm(tower.avg_pooler(hidden.T[None])[0].T).float().cpu()

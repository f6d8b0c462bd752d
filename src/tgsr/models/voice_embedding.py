"""A voice as a vector: 1.6 s of speech, near to other speech of the same voice whatever is said.

The encoder is that of Wan et al. 2018 (generalised end-to-end loss) as the package Resemblyzer trained it on VoxCeleb 1
and 2 and LibriSpeech's "other" readers: three LSTM layers over 40 mel bands, which are powers and no logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tgsr.audio import SAMPLE_RATE, Samples
from tgsr.models.packaged_weights import voice_model
from tgsr.timeline import Seconds

WINDOW: Seconds = 1.6  # that it was trained on
HOP, N_FFT, N_MELS = 160, 400, 40
N_FRAMES = round(WINDOW * SAMPLE_RATE) // HOP
LOUDNESS = 10 ** (-30 / 20)  # of the root mean square
AT_ONCE = 64


@dataclass
class VoiceEmbedding:
    """The recurrent layers and the projection of their last state."""

    lstm: Any = field(repr=False)
    linear: Any = field(repr=False)

    @classmethod
    def load(cls, folder: Path | None = None) -> VoiceEmbedding:
        """Of a folder with model.safetensors; None is the packaged one, fetched the first time. FetchError for none."""
        import torch
        from safetensors.torch import load_file

        weights = load_file((folder or voice_model()) / "model.safetensors")
        parts = [
            {name.removeprefix(part): weight for name, weight in weights.items() if name.startswith(part)}
            for part in ("lstm.", "linear.")
        ]
        n_hidden = parts[1]["weight"].shape[1]
        n_layers = sum(name.startswith("weight_ih") for name in parts[0])
        modules = (
            torch.nn.LSTM(N_MELS, n_hidden, n_layers, batch_first=True),
            torch.nn.Linear(n_hidden, len(parts[1]["bias"])),
        )
        for module, state in zip(modules, parts, strict=True):
            module.load_state_dict(state)
        return cls(*modules)

    def __call__(self, samples: Samples, starts: Sequence[Seconds]) -> np.ndarray:
        """16 kHz mono -> (len(starts), 256) float32 of length 1: the voice in the WINDOW from each start on.

        What lies after the end is silence. The samples should be as loud as speech (LOUDNESS); silence gives zeros.
        """
        import torch

        mels = mel_powers(samples)
        vectors = [np.zeros((0, self.linear.out_features), np.float32)]
        firsts = [round(start * SAMPLE_RATE / HOP) for start in starts]
        mels = np.pad(mels, ((0, max(0, max(firsts, default=0) + N_FRAMES - len(mels))), (0, 0)))
        for n in range(0, len(firsts), AT_ONCE):
            windows = np.stack([mels[first : first + N_FRAMES] for first in firsts[n : n + AT_ONCE]])
            with torch.no_grad():
                _, (states, _) = self.lstm(torch.from_numpy(windows))
                raw = torch.relu(self.linear(states[-1])).numpy()
            vectors.append(raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-9))
        return np.concatenate(vectors)


def mel_powers(samples: Samples) -> np.ndarray:
    """(n_frames, 40): a frame each 10 ms, around its middle, in bands of equal area on Slaney's mel scale."""
    padded = np.pad(samples, N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    powers = [
        np.abs(np.fft.rfft(frames[n : n + 4096] * window, axis=1)) ** 2 @ _bands()
        for n in range(0, len(frames), 4096)  # a part of a recording would take a gigabyte
    ]
    return np.concatenate(powers).astype(np.float32)


@cache
def _bands() -> np.ndarray:
    from transformers.audio_utils import mel_filter_bank

    bins, top = N_FFT // 2 + 1, SAMPLE_RATE / 2
    return mel_filter_bank(bins, N_MELS, 0.0, top, SAMPLE_RATE, norm="slaney", mel_scale="slaney")

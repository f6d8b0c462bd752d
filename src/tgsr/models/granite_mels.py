"""Granite Speech's features: log mels at 100 a second, two in a row, computed with torch alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import FeatureExtractionMixin
from transformers.audio_utils import mel_filter_bank

from tgsr.audio import SAMPLE_RATE
from tgsr.disk.whole import write_whole


@dataclass(frozen=True)
class GraniteMels:
    """The official extractor's features, without torchaudio, which that one needs; `about` is its file.

    B clips -> B x T x 2 feature_size, 50 a second, and a mask of the tokens that they become, B x F.
    """

    about: Mapping[str, Any] = field(repr=False)
    n_fft: int = 512
    win_length: int = 400
    hop_length: int = 160
    feature_size: int = 80
    projector_window_size: int = 15
    projector_downsample_rate: int = 5

    @classmethod
    def from_pretrained(cls, name: str) -> GraniteMels:
        about = FeatureExtractionMixin.get_feature_extractor_dict(name)[0]
        return cls(about, **{each.name: about[each.name] for each in fields(cls) if each.name in about})

    def save_pretrained(self, folder: str) -> None:
        about = {"processor_class": "GraniteSpeechProcessor", **self.about}
        write_whole(Path(folder) / "preprocessor_config.json", json.dumps(about, indent=2) + "\n")

    def __call__(self, clips: np.ndarray | Sequence[np.ndarray], **_: object) -> dict[str, Tensor]:
        rows = [
            torch.as_tensor(clip, dtype=torch.float32)
            for clip in ([clips] if isinstance(clips, np.ndarray) else clips)
        ]
        window = torch.hann_window(self.win_length)
        spectra = torch.stft(
            pad_sequence(rows, True),
            self.n_fft,
            self.hop_length,
            self.win_length,
            window,
            return_complex=True,
        )
        bins = self.n_fft // 2 + 1, self.feature_size
        filters = mel_filter_bank(*bins, 0, SAMPLE_RATE / 2, SAMPLE_RATE, mel_scale="htk")
        mels = spectra.abs().square().transpose(1, 2) @ torch.from_numpy(filters).float()
        logs = mels.clamp(min=1e-10).log10()
        logs = logs.maximum(logs.amax((1, 2), keepdim=True) - 8) / 4 + 1
        n_frames = torch.tensor([(len(row) // self.hop_length + 1) // 2 for row in rows])
        a_window = self.projector_window_size // self.projector_downsample_rate
        n_tokens = (n_frames / self.projector_window_size).ceil().long() * a_window
        return {
            "input_features": logs[:, : logs.shape[1] // 2 * 2].reshape(len(rows), -1, 2 * bins[1]),
            "attention_mask": torch.arange(int(n_tokens.max())) < n_tokens[:, None],
        }

"""Frozen encoder outputs, computed once and kept on disk: one safetensors file a clip."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tgsr.audio import content_hash
from tgsr.models.lalm import Lalm


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """A folder of encoder outputs, keyed by the encoder and by the samples' hash.

    Stored as float16. What `get` returns was rounded to float16 whether it came from the disk or not,
    so that no result depends on the cache being warm. A half-written or unreadable file is encoded again.
    """

    folder: Path

    def get(self, lalm: Lalm, samples: np.ndarray) -> Tensor:
        """The encoder's output for 16 kHz mono samples, F x D_enc float32."""
        path = self.folder / lalm.encoder_key / f"{content_hash(samples)}.safetensors"
        if path.exists():
            try:
                return load_file(path)["features"].float()
            except (SafetensorError, KeyError):
                path.unlink()
        features = lalm.encode_audio(samples).half()
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as half_written:
            pass
        try:
            save_file({"features": features}, half_written.name)
            os.replace(half_written.name, path)
        finally:
            Path(half_written.name).unlink(missing_ok=True)
        return features.float()


def without_cache(lalm: Lalm, samples: np.ndarray) -> Tensor:
    """The same numbers as FeatureCache.get, nothing kept."""
    return torch.as_tensor(lalm.encode_audio(samples)).half().float()

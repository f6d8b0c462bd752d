"""Frozen encoder outputs, computed once and kept on disk: one safetensors file a clip."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tgsr.audio import content_hash
from tgsr.models.lalm import Lalm, ModelError


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """A folder of encoder outputs, keyed by the encoder and by the samples' hash.

    Stored as float16, or as bfloat16 where an encoder's outputs do not fit float16's range. What `get`
    returns was rounded to that type whether it came from the disk or not, so that no result depends on the
    cache being warm. Each file says whose output it holds; one that is half-written, unreadable, of another
    encoder or audio, or of another type is encoded again.
    """

    folder: Path
    dtype: torch.dtype = torch.float16

    def get(self, lalm: Lalm, samples: np.ndarray) -> Tensor:
        """The encoder's output for 16 kHz mono samples, F x D_enc float32.

        Raises ModelError for audio that the model refuses and where the output overflows the type.
        """
        audio = content_hash(samples)
        path = self.folder / lalm.encoder_key / f"{audio}.safetensors"
        described = {"encoder": lalm.encoder_key, "audio": audio, "dtype": str(self.dtype)}
        if (kept := _read(path, described)) is not None:
            return kept.float()
        features = lalm.encode_audio(samples).to(self.dtype)
        if not torch.isfinite(features).all():
            raise ModelError(f"{lalm.name}: features that {self.dtype} cannot hold; keep them as bfloat16")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as half_written:
            pass
        try:
            save_file({"features": features}, half_written.name, metadata=described)
            os.replace(half_written.name, path)
        finally:
            Path(half_written.name).unlink(missing_ok=True)
        return features.float()


def _read(path: Path, described: dict[str, str]) -> Tensor | None:
    """The kept features, memory-mapped; None where there is no whole file that says the same of itself."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as kept:
            if kept.metadata() != described:
                return None
            return kept.get_tensor("features")
    except SafetensorError:
        return None


def without_cache(lalm: Lalm, samples: np.ndarray) -> Tensor:
    """The same numbers as FeatureCache.get, nothing kept."""
    return torch.as_tensor(lalm.encode_audio(samples)).half().float()

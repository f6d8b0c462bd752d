"""Frozen encoder outputs, computed once and kept on disk: one safetensors file a clip."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tgsr.audio import MAX_SECONDS, SAMPLE_RATE, content_hash, load
from tgsr.disk.whole import StrPath, write_whole
from tgsr.errors import AudioError, ModelError
from tgsr.models.lalm import Lalm, device_of
from tgsr.records import Clip, Question, resolve_audio

CHECKSUM = "crc32"  # where a file of kept features has it
LongAudio = Literal["refuse", "split"]


def seconds_to_decode(lalm: Lalm, long_audio: LongAudio) -> float:
    """The longest file to decode: without "split" as much as the model hears, and audio.MAX_SECONDS at least."""
    return math.inf if long_audio == "split" else max(MAX_SECONDS, lalm.max_seconds)


def parts(lalm: Lalm, samples: np.ndarray, long_audio: LongAudio) -> list[np.ndarray]:
    """The samples in pieces that the model hears: one, or with "split" as many as needed.

    Processors cut off at the limit without an error. "refuse" raises ModelError instead; "split" hears the
    pieces one after the other and joins their frames: more of them than the model saw in training, which its
    decoder may or may not follow. Pieces of a model that `hears_whole` are never joined: each would begin at 0 s again.
    """
    if not len(samples) or not np.isfinite(samples).all():
        raise ModelError(
            f"{len(samples)} audio samples, some not finite or none at all: decode the clip again"
        )
    if long_audio == "refuse" or lalm.hears_whole:
        lalm.refuse_long(samples)
    room = round(lalm.max_seconds * SAMPLE_RATE)
    pieces = [samples[first : first + room] for first in range(0, len(samples), room)]
    # A rest that fills no frame is not heard by itself.
    fills = len(pieces) == 1 or len(pieces[-1]) >= lalm.seconds_per_frame * SAMPLE_RATE
    return pieces if fills else pieces[:-1]


@dataclass(frozen=True, slots=True)
class KeptFeatures:
    """One clip's encoder output on disk, F x D_enc."""

    path: Path
    n_frames: int

    def read(self) -> Tensor:
        """F x D_enc float32. Raises ModelError where the file has gone or was altered, be it by a bit."""
        try:
            return _read(self.path)[1].float()
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(
                f"{self.path}: kept features are gone or damaged ({error}); start again, and they are made again; "
                "several machines need a --cache that all of them see"
            ) from error


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """A folder of encoder outputs, keyed by the encoder and by the samples' hash.

    Stored as float16, or as bfloat16 where an encoder's outputs do not fit float16's range. What `get`
    returns was rounded to that type whether it came from the disk or not, so that no result depends on the
    cache being warm. Each file says whose output it holds and has a checksum of it; one that is half-written,
    unreadable, altered, of another encoder or audio, or of another type is encoded again. Files of before, without
    a checksum, are taken as they are.
    """

    folder: Path
    dtype: torch.dtype = torch.float16
    long_audio: LongAudio = "refuse"

    @property
    def settings(self) -> dict[str, str]:
        """What says how a clip is heard, for a run's run.json."""
        return {"dtype": str(self.dtype), "long_audio": self.long_audio}

    def get(self, lalm: Lalm, samples: np.ndarray) -> Tensor:
        """The encoder's output for 16 kHz mono samples, F x D_enc float32; errors as in `keep`."""
        return self.keep(lalm, samples).read()

    def keep(self, lalm: Lalm, samples: np.ndarray) -> KeptFeatures:
        """Where the encoder's output for 16 kHz mono samples is, computed unless it is there already.

        Raises ModelError for audio that is too long or that the model refuses, and where the output
        overflows the type.
        """
        pieces = parts(lalm, samples, self.long_audio)
        audio = content_hash(samples)
        path = self.folder / lalm.encoder_key / f"{audio}.safetensors"
        described = {"encoder": lalm.encoder_key, "audio": audio, "dtype": str(self.dtype)}
        if (n_frames := _kept(path, described)) is not None:
            return KeptFeatures(path, n_frames)
        features = _encoded(lalm, pieces, self.dtype)
        write_whole(path, save({"features": features}, metadata=described | {CHECKSUM: checksum(features)}))
        return KeptFeatures(path, len(features))


def hear(
    lalm: Lalm, record: Clip | Question, jsonl: StrPath, cache: FeatureCache, slack: float = math.inf
) -> KeptFeatures:
    """The encoder's output of the record's clip, whose path starts at the folder of its file `jsonl`.

    Raises AudioError for a file that cannot be decoded, or that lasts `slack` seconds more or less than the record
    says, whose times are then of another sound or in another unit; ModelError as FeatureCache.keep does.
    """
    path = resolve_audio(record, jsonl)
    samples = load(path, max_seconds=seconds_to_decode(lalm, cache.long_audio))
    kept = cache.keep(lalm, samples)
    require_lasting(path, len(samples) / SAMPLE_RATE, record, slack)
    return kept


def require_lasting(path: Path, seconds: float, record: Clip | Question, slack: float) -> None:
    """AudioError where a sound of so many seconds lasts `slack` more or less than its record says."""
    if abs(seconds - record.duration) > slack:
        found = f'lasts {seconds:.2f} s, and its row\'s "duration" is {record.duration:g}'
        raise AudioError(str(path), found, "give times in seconds, of this very file")


def _kept(path: Path, described: dict[str, str]) -> int | None:
    """The kept features' number of frames; None where there is no whole file that says the same of itself."""
    if not path.exists():
        return None
    try:
        metadata, features = _read(path)
    except (SafetensorError, ValueError):
        return None
    return len(features) if metadata == described else None


def _read(path: Path) -> tuple[dict[str, str], Tensor]:
    """What a file says of its features, and these. ValueError where its checksum is another one than theirs."""
    with safe_open(path, "pt") as kept:
        metadata, features = dict(kept.metadata() or {}), kept.get_tensor("features")
    if metadata.pop(CHECKSUM, found := checksum(features)) != found:
        raise ValueError("their checksum is another one")
    return metadata, features


def checksum(features: Tensor) -> str:
    """CRC-32 of a tensor's type, shape and bytes, in hexadecimal: any bit that flips changes it."""
    described = zlib.crc32(f"{features.dtype} {tuple(features.shape)}".encode())
    return f"{zlib.crc32(features.contiguous().view(torch.uint8).numpy().data, described):08x}"


def without_cache(lalm: Lalm, samples: np.ndarray, long_audio: LongAudio = "refuse") -> Tensor:
    """The same numbers as FeatureCache.get with its default type, nothing kept; the same errors."""
    return _encoded(lalm, parts(lalm, samples, long_audio), torch.float16).float()


def _encoded(lalm: Lalm, pieces: list[np.ndarray], dtype: torch.dtype) -> Tensor:
    # In the encoder's own width, whoever hears: a watch inside autocast fills the cache that training reads.
    with torch.autocast(device_of(lalm).type, enabled=False):
        features = torch.cat([lalm.encode_audio(piece) for piece in pieces]).to(dtype)
    if not torch.isfinite(features).all():
        raise ModelError(
            f"{lalm.name}: features that {dtype} cannot hold; keep them as bfloat16 (--cache-as)"
        )
    return features

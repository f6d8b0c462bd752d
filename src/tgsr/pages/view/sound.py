"""The sound that a browser gets: whatever the file is, 16 kHz mono wav, in memory that no length of clip exceeds.

A clip of up to 10 minutes is converted once and kept in a temporary folder. A longer one is a wav file that does not
exist: its size is known from the header, and what a browser asks of it is decoded then, block by block.
"""

from __future__ import annotations

import math
import os
import shutil
import struct
import tempfile
import threading
import wave
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile as sf

from tgsr import audio
from tgsr.audio import MAX_SECONDS, SAMPLE_RATE, Samples
from tgsr.disk.whole import whole
from tgsr.errors import AudioError
from tgsr.pages.view.index import Index, ViewedQuestion
from tgsr.timeline import Seconds

BLOCK: Seconds = 30.0  # of a long clip, decoded together; a whole number, so that blocks begin on samples
RUN_UP: Seconds = 1.0  # decoded on both sides and dropped, that blocks join without a click
HEADER_BYTES = 44
LARGEST_WAV = 2**32 - 1 - HEADER_BYTES  # bytes of samples that a header can say: 37 hours
MOST_KEPT = 2**30  # bytes of converted clips
FINEST = 24_000  # peaks that are kept of a long clip
MOVED = "if it was moved, pass --audio FOLDER, where it now lies"


@dataclass(frozen=True, slots=True)
class BrowserSound:
    """A clip as a browser hears it. `wav` is the converted file; None where it is decoded as it is asked for."""

    path: Path
    n_samples: int
    wav: Path | None

    @property
    def seconds(self) -> Seconds:
        return self.n_samples / SAMPLE_RATE

    @property
    def n_bytes(self) -> int:
        return HEADER_BYTES + 2 * self.n_samples


# --- which file ------------------------------------------------------------------------------------------


def file_of(index: Index, item: ViewedQuestion) -> Path:
    """The file of an item's clip: exactly what its row names, or, where nothing is there, below an audio root.

    What lies in a run's folder may not be a link that leads out of all folders that were named. AudioError says
    what is wrong.
    """
    named = item.sound
    if os.path.lexists(named):
        real = Path(os.path.realpath(named))
        roots = (*index.roots, *index.audio_roots)
        if _is_below(named, index.roots) and not _is_below(real, roots):
            problem = f"is a link that leads out of the run, to {real}"
            raise AudioError(str(named), problem, f"pass --audio {real.parent}")
    else:
        real = _moved(index, item) or named
    if real.exists() and not real.is_dir() and not real.is_file():
        raise AudioError(str(named), "is a device or a pipe, not a file", "name an audio file")
    if not real.exists():
        raise AudioError(str(named), "no such file", MOVED)
    return real


def _moved(index: Index, item: ViewedQuestion) -> Path | None:
    """The clip below an audio root: by its path as the row has it, less what leads upwards, or by its name alone."""
    parts = [part for part in Path(item.question.audio).parts if part not in ("..", "/")]
    for root in index.audio_roots:
        for first in range(len(parts)):
            real = Path(os.path.realpath(root.joinpath(*parts[first:])))
            if real.is_file() and _is_below(real, index.audio_roots):
                return real
    return None


def _is_below(path: Path, roots: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


# --- conversion ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Sounds:
    """Converted clips in a temporary folder of our own, which `close` removes; the least recently heard leave first."""

    most_kept: int = MOST_KEPT
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="tgsr-view-")))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kept: OrderedDict[tuple[str, int, int], BrowserSound] = field(default_factory=OrderedDict)
    _peaks: dict[tuple[str, int, int], Samples] = field(default_factory=dict)
    _n_made: int = 0

    def open(self, path: Path) -> BrowserSound:
        """The file's sound, converted now where it was not yet, or has changed. AudioError as `audio.load`."""
        key = _stamp(path)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            seconds = audio.duration(path)
            if seconds > MAX_SECONDS and audio.is_counted(path):
                sound = _decoded_when_asked(path)
            else:
                self._n_made += 1
                wav = self.folder / f"{self._n_made}.wav"
                if seconds > MAX_SECONDS:
                    sound = BrowserSound(path, track_to_wav(path, wav), wav)
                else:
                    samples = audio.load(path)
                    audio.save_wav(wav, samples)
                    sound = BrowserSound(path, len(samples), wav)
            self._kept[key] = sound
            self._make_room()
            return sound

    def peaks(self, sound: BrowserSound, n: int) -> list[tuple[float, float]]:
        """(lowest, highest) sample of n equal stretches; of a clip that is decoded when asked, of at most FINEST."""
        if sound.wav is not None and sound.seconds <= MAX_SECONDS:
            samples, _ = sf.read(sound.wav, dtype="float32")
            return audio.peaks(samples, n)
        key = _stamp(sound.path)
        if key not in self._peaks:
            self._peaks[key] = _long_peaks(sound.wav or sound.path)
        fine = self._peaks[key]
        n = min(n, len(fine))
        lows, highs = (audio.peaks(fine[:, column], n) for column in (0, 1))
        return [(low, high) for (low, _), (_, high) in zip(lows, highs, strict=True)]

    def peaks_row(self, sound: BrowserSound, n: int) -> dict[str, object]:
        """The answer of /api/peaks: `peaks` and the sound's length."""
        rounded = [[round(low, 4), round(high, 4)] for low, high in self.peaks(sound, n)]
        return {"peaks": rounded, "seconds": sound.seconds}

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_room(self) -> None:
        """Drops the clips heard longest ago, never the last one."""
        while len(self._kept) > 1:
            if sum(s.n_bytes for s in self._kept.values() if s.wav is not None) <= self.most_kept:
                return
            _, oldest = self._kept.popitem(last=False)
            if oldest.wav is not None:
                oldest.wav.unlink(missing_ok=True)


def track_to_wav(path: Path, wav: Path, most_seconds: Seconds = math.inf) -> int:
    """Writes the first sound track as 16 kHz mono wav, piece by piece, and returns its number of samples.

    What a browser records says no length in its header, and a long track cannot be cut without decoding it. AudioError
    for what cannot be decoded, and as soon as the track turns out longer than most_seconds; no file is left then.
    """
    n_samples = 0
    with whole(wav) as half, wave.open(str(half), "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        for samples in audio.stream(path):
            out.writeframes(_pcm(samples).tobytes())
            n_samples += len(samples)
            if n_samples > most_seconds * SAMPLE_RATE:
                raise AudioError(str(path), f"is longer than the {most_seconds:g} s allowed", "cut it")
    return n_samples


def _stamp(path: Path) -> tuple[str, int, int]:
    """What tells a file from an earlier one of its name; AudioError where it is gone."""
    try:
        status = path.stat()
    except OSError as error:
        raise AudioError(str(path), f"cannot be read ({error.strerror})", MOVED) from None
    return str(path), status.st_mtime_ns, status.st_size


def _decoded_when_asked(path: Path) -> BrowserSound:
    with sf.SoundFile(path) as file:
        n_samples = round(file.frames * SAMPLE_RATE / file.samplerate)
    if 2 * n_samples > LARGEST_WAV:
        raise AudioError(str(path), f"lasts {n_samples / SAMPLE_RATE / 3600:.1f} hours", "cut it into parts")
    audio.load(path, end=1.0)  # that it cannot be decoded is said now, not when a browser has the header
    return BrowserSound(path, n_samples, None)


def _long_peaks(path: Path) -> Samples:
    """FINEST x 2: the lowest and highest value of equal stretches, channels averaged, the file read once."""
    with sf.SoundFile(path) as file:
        n_frames = file.frames
        n = min(FINEST, n_frames)
        lowest, highest = np.full(n, np.inf, np.float32), np.full(n, -np.inf, np.float32)
        n_before = 0
        for block in file.blocks(audio.BLOCK_FRAMES, dtype="float32", always_2d=True):
            mono = block.mean(axis=1)
            place = (n_before + np.arange(len(mono))) * n // n_frames
            firsts = np.flatnonzero(np.diff(place, prepend=-1))
            where = place[firsts]
            lowest[where] = np.minimum(lowest[where], np.minimum.reduceat(mono, firsts))
            highest[where] = np.maximum(highest[where], np.maximum.reduceat(mono, firsts))
            n_before += len(mono)
    both = np.stack([lowest, highest], axis=1)
    return np.clip(np.where(np.isfinite(both), both, 0), -1, 1).astype(np.float32)


# --- bytes -----------------------------------------------------------------------------------------------


def wav_header(n_samples: int) -> bytes:
    """The 44 bytes before n_samples of 16-bit mono at 16 kHz."""
    n_bytes = 2 * n_samples
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
    return b"RIFF" + struct.pack("<I4s", 36 + n_bytes, b"WAVE") + form + struct.pack("<4sI", b"data", n_bytes)


def read_bytes(sound: BrowserSound, first: int, last: int) -> Iterator[bytes]:
    """The bytes [first, last) of a long clip's wav file, a block at a time. AudioError where decoding fails."""
    if first < HEADER_BYTES:
        yield wav_header(sound.n_samples)[first:last]
    per_block = 2 * round(BLOCK * SAMPLE_RATE)
    position = max(first, HEADER_BYTES) - HEADER_BYTES
    end = last - HEADER_BYTES
    while position < end:
        number, skipped = divmod(position, per_block)
        content = _block(sound, number)[skipped : skipped + end - position]
        if not content:
            return
        yield content
        position += len(content)


def _block(sound: BrowserSound, number: int) -> bytes:
    """The samples of a block as bytes, exactly as many as belong there: what cannot be had is silence."""
    start = number * BLOCK
    n_wanted = min(round(BLOCK * SAMPLE_RATE), sound.n_samples - round(start * SAMPLE_RATE))
    if n_wanted <= 0:
        return b""
    before = min(start, RUN_UP)
    stop = start + BLOCK + RUN_UP
    end = None if stop >= sound.seconds - RUN_UP else stop
    samples = audio.load(sound.path, start=start - before, end=end)[round(before * SAMPLE_RATE) :][:n_wanted]
    return np.pad(_pcm(samples), (0, n_wanted - len(samples))).tobytes()


def _pcm(samples: Samples) -> np.ndarray:
    """Samples in [-1, 1] as little-endian 16-bit integers."""
    return np.rint(samples.astype(np.float64) * 32768).clip(-32768, 32767).astype("<i2")

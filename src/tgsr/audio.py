"""Any audio file as 16 kHz mono: samples are float32 arrays of shape (n_samples,) in [-1, 1].

Length is what is heard. Where a file's header counts its samples and the last of them is there (wav, flac, aiff), it is
believed, and a stretch is read alone. Every other file (mp3, aac, the tracks of video, a header that says nothing)
is decoded from its beginning each time, so that `duration`, `load` and `stream` hear the same.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from tgsr.disk import sound_track
from tgsr.disk.sound_track import BLOCK_FRAMES, FETCH_AGAIN, Mono, Piece, Samples, require_whole
from tgsr.disk.whole import write_whole
from tgsr.errors import AudioError
from tgsr.timeline import END_SLACK, Seconds, Span

StrPath = str | os.PathLike[str]

SAMPLE_RATE = 16_000
MAX_SECONDS: Seconds = 600.0  # what Audio Flamingo 3 hears; who hears more says so
HEADER_SLACK: Seconds = 0.3
RUN_UP: Seconds = 0.05  # on both sides of a stretch that is resampled: the filter's length, and more
MAX_PEAK = 4.0  # decoders overshoot 1.0 a little; a float file that passes 4.0 is not scaled to [-1, 1]
UNKNOWN_FRAMES = 2**62  # libsndfile reports 2**63 - 1 where a header leaves the length open
# What libsndfile's log calls the size of the sound, or, where it says no more, of all.
SIZES = {
    **dict.fromkeys(("WAV", "WAVEX"), "data"),
    **{"AIFF": "SSND", "AU": "Data Size", "W64": "riff", "RF64": "Riff size"},
}
STREAMED_BYTES = 0x7FFF0000  # programs that write wav into a pipe claim 2 or 4 GiB, for want of the length

CONVERT = "convert it with: ffmpeg -i IN -ac 1 -ar 16000 OUT.wav"
SAY_RATE = "say rate and width, as they are: ffmpeg -f s16le -ar 16000 -ac 1 -i IN OUT.wav"


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds: the seconds that are heard, and libsndfile's or FFmpeg's name of its format, in capitals."""

    seconds: Seconds
    format: str


def content(path: StrPath) -> Content:
    """Length and format of the file, whatever it is called. AudioError as `duration`."""
    file = _counted(path)
    if file is not None:
        with file:
            return Content(file.frames / file.samplerate, file.format)
    seconds, format_ = sound_track.measured(os.fspath(path))
    return Content(seconds, format_.upper())


def duration(path: StrPath) -> Seconds:
    """The seconds of the file that are heard: the length of what `load` gives, to within a sample of the file's rate.

    From the header where that counts the samples; other files are decoded to count them, 1,500 times as fast as they
    play. Raises AudioError as `load` does for a file that is missing, empty, not audio, cut off or of length zero.
    """
    return content(path).seconds


def load(
    path: StrPath,
    *,
    start: Seconds = 0.0,
    end: Seconds | None = None,
    max_seconds: Seconds = MAX_SECONDS,
    channel: int | None = None,
) -> Samples:
    """The stretch [start, end) of an audio file, in seconds, as float32 mono at 16 kHz in [-1, 1].

    Reads what libsndfile and FFmpeg read, at any rate, whatever the file is called; of several sound tracks the first.
    Channels are averaged, unless one is named (from 0). The clock is the file's: it begins where its first track does,
    so that sound which begins after the picture is late, and where packets are missing there is silence. n decoded
    samples at `rate` Hz become round(n * 16000 / rate). `end=None` is the end of the sound; an `end` up to 0.05 s past
    it is cut to it.

    Raises AudioError for a file that is missing, empty, not audio or of length zero; that is cut off, as far as its
    header says how long it was; with NaN or infinite samples or samples far outside [-1, 1]; whose channels cancel
    each other when they are averaged; for a stretch that is not in the file; and for one longer than `max_seconds`,
    of which no more than that is kept in memory.
    """
    file = _counted(path)
    name = os.fspath(path)
    if file is None:
        return _load_decoded(name, start, end, max_seconds, channel)
    with file:
        rate = file.samplerate
        first, n_frames = _frames_to_read(name, file.frames, rate, start, end, max_seconds)
        begin, stop = _with_run_up(first, first + n_frames, rate, file.frames)
        mono = _decode_mono(name, file, begin, stop - begin, channel)
    _require_sound(name, mono[first - begin :][:n_frames])
    samples = _resample(np.nan_to_num(mono, posinf=0, neginf=0) if stop - begin > n_frames else mono, rate)
    samples = samples[round(first * SAMPLE_RATE / rate) - begin * SAMPLE_RATE // rate :]
    n_samples = max(1, round(n_frames * SAMPLE_RATE / rate))
    return np.clip(np.pad(samples, (0, max(0, n_samples - len(samples))))[:n_samples], -1.0, 1.0)


def stream(path: StrPath, channel: int | None = None) -> Iterator[Samples]:
    """All that `load` gives of a file of any length, piece by piece, in flat memory. AudioError as `load`."""
    file = _counted(path)
    name = os.fspath(path)
    pieces = sound_track.pieces(name, channel) if file is None else _blocks(name, file, channel)
    for samples in _resampled(pieces):
        if len(samples):
            _require_sound(name, samples)
            yield np.clip(samples, -1.0, 1.0)


def n_channels(path: StrPath) -> int:
    """The number of channels of the file, of its first sound track. AudioError as `duration`."""
    with _counted(path) or nullcontext() as file:
        return sound_track.n_channels_of(os.fspath(path)) if file is None else file.channels


def n_tracks(path: StrPath) -> int:
    """The number of the file's sound tracks; all else is about the first. AudioError as `duration`."""
    return 1 if is_counted(path) else sound_track.n_tracks_of(os.fspath(path))


def is_counted(path: StrPath) -> bool:
    """Whether a stretch of the file is read without what comes before it. AudioError as `duration`."""
    with _counted(path) or nullcontext() as file:
        return file is not None


def save_wav(path: StrPath, samples: Samples) -> None:
    """Write samples as a 16-bit mono wav file at 16 kHz; `load` gives them back to within 1/65536.

    The file appears whole or not at all. Raises AudioError as `wav_bytes` does.
    """
    write_whole(path, _encode(os.fspath(path), samples, "WAV"))


def save_flac(path: StrPath, samples: Samples) -> None:
    """Write samples as `save_wav` does, as FLAC; those outside [-1, 1] are cut to it.

    A file that is so already is left alone: what was made of it under its time stays good.
    """
    content = _encode(os.fspath(path), np.clip(samples, -1, 1), "FLAC")
    if not (os.path.isfile(path) and Path(path).read_bytes() == content):
        write_whole(path, content)


def wav_bytes(samples: Samples) -> bytes:
    """The content of a 16-bit mono wav file at 16 kHz.

    Raises AudioError where samples are not one axis of finite numbers in [-1, 1], or where there are none.
    """
    return _encode("samples", samples, "WAV")


def crop(samples: Samples, spans: Iterable[Span]) -> Samples:
    """The spans' stretches of 16 kHz samples, one after the other in the order given; a copy.

    Overlapping spans repeat what they share (`tgsr.timeline.merge` first where that is not wanted). No
    spans give no samples. A span up to 0.05 s past the end is cut; AudioError where one is further out.
    """
    length = len(samples) / SAMPLE_RATE
    pieces = []
    for span in spans:
        if span.start >= length or span.end > length + END_SLACK:
            problem = f"span [{span.start}, {span.end}) s is not inside their {length:g} s"
            raise AudioError("samples", problem, "clip spans to the clip's duration first")
        pieces.append(samples[round(span.start * SAMPLE_RATE) : round(span.end * SAMPLE_RATE)])
    return np.concatenate(pieces).astype(np.float32) if pieces else np.zeros(0, np.float32)


def silence(seconds: Seconds) -> Samples:
    """round(seconds * 16000) zeros; ValueError where `seconds` is negative."""
    if seconds < 0:
        raise ValueError(f"silence needs seconds >= 0, got {seconds}")
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def content_hash(samples: Samples) -> str:
    """SHA-256 of the samples as little-endian float32, in hex: a cache key that ignores file names."""
    unsigned_zeros = np.asarray(samples, dtype="<f4") + np.float32(0)  # -0.0 and 0.0 sound alike
    return hashlib.sha256(unsigned_zeros.tobytes()).hexdigest()


def peaks(samples: Samples, n: int) -> list[tuple[float, float]]:
    """(lowest, highest) sample of each of n equal stretches, for a picture of the waveform.

    Always n pairs: fewer than n samples repeat, no samples give (0, 0). ValueError where n < 1.
    """
    if n < 1:
        raise ValueError(f"peaks needs n >= 1, got {n}")
    if len(samples) == 0:
        return [(0.0, 0.0)] * n
    firsts = np.arange(n) * len(samples) // n
    lowest, highest = np.minimum.reduceat(samples, firsts), np.maximum.reduceat(samples, firsts)
    return list(zip(lowest.tolist(), highest.tolist(), strict=True))


def _require_file(path: StrPath) -> None:
    """AudioError unless the file is there, may be read and holds anything."""
    name = os.fspath(path)
    if not os.path.exists(name):
        remedy = "check the path; inside a JSONL file, relative ones start at its folder"
        raise AudioError(name, "no such file", remedy)
    if os.path.isdir(name):
        raise AudioError(name, "is a folder, not an audio file", "name one file in it")
    if not os.access(name, os.R_OK):
        raise AudioError(name, "the file may not be read", "check its permissions")
    if os.path.getsize(name) == 0:
        raise AudioError(name, "the file is empty (0 bytes)", FETCH_AGAIN)


def _counted(path: StrPath) -> sf.SoundFile | None:
    """The file, opened, where its header counts its samples and the last of them is there; else None.

    AudioError for a file that is missing or empty, and where its header says that it is cut off.
    """
    name = os.fspath(path)
    with sound_track.given(name):
        _require_file(path)
        return _opened(name)


def _opened(name: str) -> sf.SoundFile | None:
    if Path(name).suffix.lower() == ".raw":
        raise AudioError(name, "raw samples have no header that gives their rate", SAY_RATE)
    sound_track.require_all_of_wav(name)
    try:
        file = sf.SoundFile(os.fsencode(name))
    except sf.LibsndfileError:
        return None
    try:
        if _has_its_last_sample(name, file):
            return file
    except AudioError:
        file.close()
        raise
    file.close()
    return None


def _has_its_last_sample(name: str, file: sf.SoundFile) -> bool:
    """Whether the header's number of frames is no guess, the last is there, and nothing that was joined to them."""
    if file.format == "MP3" or not 0 < file.frames < UNKNOWN_FRAMES:  # mp3: libsndfile guesses
        return False
    if file.format in ("OGG", "FLAC") and not sound_track.is_one_stream(name):
        return False
    found = file.frames / file.samplerate
    require_whole(name, found * _share_claimed(name, file), found, HEADER_SLACK)
    try:
        file.seek(file.frames - 1)
        is_there = len(file.read(1)) == 1
        file.seek(0)
    except sf.LibsndfileError:
        return False
    return is_there


def _share_claimed(name: str, file: sf.SoundFile) -> float:
    """What the header claims of sound, as a multiple of what is there: libsndfile quietly shortens a file that is cut.

    1 where it claims no more, or leaves its size open.
    """
    if file.format == "NIST":
        with open(name, "rb") as content:
            count = re.search(rb"sample_count -i (\d+)", content.read(1024))
        return max(1.0, int(count[1]) / file.frames) if count else 1.0
    if file.format not in SIZES:
        return 1.0
    size = re.search(rf"(?m)^\s*{SIZES[file.format]}\s*: (\d+) \(should be (\d+)\)", file.extra_info)
    if size is None:
        return 1.0
    claimed, there = int(size[1]), int(size[2])
    is_open = there == 0 or claimed >= (2**62 if file.format in ("W64", "RF64") else STREAMED_BYTES)
    return 1.0 if is_open else max(1.0, claimed / there)


def _frames_to_read(
    name: str, n_frames: int, rate: int, start: Seconds, end: Seconds | None, max_seconds: Seconds
) -> tuple[int, int]:
    """First frame and number of frames of the stretch [start, end) of a file of n_frames."""
    length = n_frames / rate
    stop = length if end is None else end
    if not 0 <= start < stop <= length + END_SLACK:
        problem = f"the stretch [{start}, {stop}) s is not inside its {length:.3f} s"
        raise AudioError(name, problem, f"give 0 <= start < end <= {length:.3f}")
    stop = min(stop, length)
    if stop - start > max_seconds:
        problem = f"{stop - start:.1f} s of audio are more than the {max_seconds:g} s allowed"
        in_parts = "hear it in parts (--long-audio split; in Python a larger max_seconds)"
        raise AudioError(name, problem, f"cut it (start, end), or {in_parts}")
    first, last = round(start * rate), round(stop * rate)
    if first >= last:
        raise AudioError(name, f"no sample at {rate} Hz lies in [{start}, {stop}) s", "give a longer stretch")
    return first, last - first


def _with_run_up(first: int, stop: int, rate: int, n_frames: int) -> tuple[int, int]:
    """The frames [first, stop) and enough around them that they are resampled as in the whole file.

    They begin on a frame that is a sample at 16 kHz, too.
    """
    if rate == SAMPLE_RATE:
        return first, stop
    grid, around = rate // math.gcd(rate, SAMPLE_RATE), round(RUN_UP * rate)
    return max(0, first - around) // grid * grid, min(n_frames, stop + around)


def _decode_mono(name: str, file: sf.SoundFile, first: int, n_frames: int, channel: int | None) -> Samples:
    """The channel, or the mean of all, of n_frames frames from `first` on, at the file's own rate."""
    mono, mean = np.empty(n_frames, np.float32), Mono(name, channel)
    n_read, rate = 0, file.samplerate
    try:
        file.seek(first)
        while n_read < n_frames:
            block = file.read(min(BLOCK_FRAMES, n_frames - n_read), dtype="float32", always_2d=True)
            if len(block) == 0:
                break
            mono[n_read : n_read + len(block)] = mean.of(block)
            n_read += len(block)
    except sf.LibsndfileError as error:
        raise _undecoded(name, (first + n_read) / rate, error) from error
    require_whole(name, (first + n_frames) / rate, (first + n_read) / rate, HEADER_SLACK)
    if n_read == 0:
        raise AudioError(name, f"no sample could be decoded at {first / rate:.2f} s", FETCH_AGAIN)
    mean.require_sound()
    return mono[:n_read]


def _undecoded(name: str, heard: Seconds, error: sf.LibsndfileError) -> AudioError:
    return AudioError(name, f"decoding fails after {heard:.2f} s ({error.error_string})", FETCH_AGAIN)


def _blocks(name: str, file: sf.SoundFile, channel: int | None) -> Iterator[Piece]:
    """The channel, or the mean of all, block by block. AudioError as `_decode_mono`, where it comes to that."""
    mean, n_read, n_frames, rate = Mono(name, channel), 0, file.frames, file.samplerate
    with file:
        try:
            for block in file.blocks(BLOCK_FRAMES, dtype="float32", always_2d=True):
                n_read += len(block)
                yield rate, mean.of(block)
        except sf.LibsndfileError as error:
            raise _undecoded(name, n_read / rate, error) from error
    require_whole(name, n_frames / rate, n_read / rate, HEADER_SLACK)
    mean.require_sound()


def _load_decoded(
    name: str, start: Seconds, end: Seconds | None, max_seconds: Seconds, channel: int | None
) -> Samples:
    """`load` of a file that is decoded from its beginning: exactly what the whole has between start and end."""
    until = start + max_seconds if end is None else min(end, start + max_seconds)
    kept: list[Samples] = []
    n_samples = n_before = 0
    with closing(_resampled(sound_track.pieces(name, channel))) as pieces:
        for piece in pieces:
            n_samples += len(piece)
            if n_samples <= start * SAMPLE_RATE - 1:
                n_before = n_samples
            elif n_samples - len(piece) <= until * SAMPLE_RATE:
                kept.append(piece)
            elif end is not None:
                break
    first, n_wanted = _frames_to_read(name, n_samples, SAMPLE_RATE, start, end, max_seconds)
    samples = np.concatenate(kept)[first - n_before :][:n_wanted]
    _require_sound(name, samples)
    return np.clip(samples, -1.0, 1.0)


def _resampled(pieces: Iterable[Piece]) -> Generator[Samples]:
    """The pieces at 16 kHz. Each run of one rate becomes round(n * 16000 / rate) samples, as in `_resample`."""
    for rate, run in groupby(pieces, key=lambda piece: piece[0]):
        to_16k = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        n_in = n_out = 0
        for _, mono in run:
            samples = mono if rate == SAMPLE_RATE else to_16k.resample_chunk(mono)
            n_in, n_out = n_in + len(mono), n_out + len(samples)
            yield samples
        n_left = max(1, round(n_in * SAMPLE_RATE / rate)) - n_out
        if n_left > 0:
            rest = to_16k.resample_chunk(np.zeros(0, np.float32), last=True)[:n_left]
            yield np.pad(rest, (0, n_left - len(rest)))


def _require_sound(name: str, samples: Samples) -> None:
    if not np.isfinite(samples).all():
        n_bad = int((~np.isfinite(samples)).sum())
        raise AudioError(name, f"{n_bad} of {len(samples)} samples are NaN or infinite", "export it again")
    peak = float(np.abs(samples).max())
    if peak > MAX_PEAK:
        raise AudioError(name, f"samples reach {peak:g} where [-1, 1] is full scale", "divide by full scale")


def _resample(mono: Samples, rate: int) -> Samples:
    """soxr's length, which rounds halves up, made round(n * 16000 / rate)."""
    if rate == SAMPLE_RATE:
        return mono
    n_samples = max(1, round(len(mono) * SAMPLE_RATE / rate))
    resampled = soxr.resample(mono, rate, SAMPLE_RATE)[:n_samples]
    return np.pad(resampled, (0, n_samples - len(resampled)))


def _encode(name: str, samples: Samples, format_: str) -> bytes:
    if samples.ndim != 1 or len(samples) == 0:
        raise AudioError(name, f"samples have shape {samples.shape}", "give one axis of at least one sample")
    if not (np.abs(samples) <= 1).all():  # NaN compares false
        raise AudioError(name, "samples are not all finite numbers in [-1, 1]", "scale them, or clip them")
    # integers of ours: libsndfile writes floats times 32767 but reads them over 32768
    pcm = np.rint(samples.astype(np.float64) * 32768).clip(-32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    sf.write(buffer, pcm, SAMPLE_RATE, format=format_, subtype="PCM_16")
    return buffer.getvalue()

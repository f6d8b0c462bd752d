"""Any audio file as 16 kHz mono: samples are float32 arrays of shape (n_samples,) in [-1, 1]."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from tgsr.disk.whole import write_whole
from tgsr.errors import AudioError
from tgsr.timeline import END_SLACK, Seconds, Span

Samples = NDArray[np.float32]
StrPath = str | os.PathLike[str]

SAMPLE_RATE = 16_000
MAX_SECONDS: Seconds = 600.0  # Audio Flamingo 3 hears 600 s; Qwen2.5-Omni hears the first 300 s of them
HEADER_SLACK: Seconds = 0.3  # mp3 headers count whole frames: up to two are 2,304 samples, 0.288 s at 8 kHz
MAX_PEAK = 4.0  # decoders overshoot 1.0 a little; a float file that passes 4.0 is not scaled to [-1, 1]
UNKNOWN_FRAMES = 2**62  # libsndfile reports 2**63 - 1 where a header leaves the length open
STREAMED_BYTES = 0x7FFF0000  # programs that write wav into a pipe claim 2 or 4 GiB, for want of the length
MP3_RUN_UP: Seconds = 1.0  # an mp3 frame draws on bits of frames before it, which a seek skips
BLOCK_FRAMES = 1 << 18  # channels are averaged block by block: six channels of 600 s would be 0.7 GB

CONTAINERS = (".mp4", ".m4a", ".mov", ".mkv", ".webm", ".aac", ".wma", ".3gp", ".avi")
TRACK_SLACK: Seconds = 0.5  # a track may begin after its video does
CONVERT = "convert it with: ffmpeg -i IN -ac 1 -ar 16000 OUT.wav"
FETCH_AGAIN = "copy or download it again"


def duration(path: StrPath) -> Seconds:
    """Length of the file in seconds, from the sample count and rate in its header; nothing is decoded.

    Raises AudioError as `load` does for a file that is missing, empty, not audio, cut off or of length zero.
    """
    if is_container(path):
        return _track_seconds(path)
    with _open(path) as file:
        return file.frames / file.samplerate


def load(
    path: StrPath, *, start: Seconds = 0.0, end: Seconds | None = None, max_seconds: Seconds = MAX_SECONDS
) -> Samples:
    """The stretch [start, end) of an audio file, in seconds, as float32 mono at 16 kHz in [-1, 1].

    Reads what libsndfile reads (wav, flac, mp3, ogg, ...), and the sound track of CONTAINERS whole, at any rate;
    channels are averaged, so two channels in opposite phase cancel. Only the stretch is decoded. n decoded samples at
    `rate` Hz become round(n * 16000 / rate). `end=None` is the file's end; an `end` up to 0.05 s past it is cut to it.

    Raises AudioError for a file that is missing, empty, not audio, cut off (a cut ogg file cannot be told
    from a short one), of length zero, with NaN or infinite samples or samples far outside [-1, 1]; for a
    stretch that is not in the file; and, before anything is decoded, for one longer than `max_seconds`.
    """
    name = os.fspath(path)
    if is_container(path):
        track = _track(path, max_seconds if end is None and not start else None)
        first, n_frames = _frames_to_read(name, len(track), SAMPLE_RATE, start, end, max_seconds)
        return track[first : first + n_frames]
    with _open(path) as file:
        rate = file.samplerate
        first, n_frames = _frames_to_read(name, file.frames, rate, start, end, max_seconds)
        mono = _decode_mono(name, file, first, n_frames)
    _require_sound(name, mono)
    return np.clip(_resample(mono, rate), -1.0, 1.0)


def save_wav(path: StrPath, samples: Samples) -> None:
    """Write samples as a 16-bit mono wav file at 16 kHz; `load` gives them back to within 1/65536.

    The file appears whole or not at all. Raises AudioError as `wav_bytes` does.
    """
    write_whole(path, _encode(os.fspath(path), samples, "WAV"))


def save_flac(path: StrPath, samples: Samples) -> None:
    """Write samples as `save_wav` does, as FLAC; those outside [-1, 1] are cut to it."""
    write_whole(path, _encode(os.fspath(path), np.clip(samples, -1, 1), "FLAC"))


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
            raise AudioError(
                "samples",
                f"span [{span.start}, {span.end}) s is not inside their {length:g} s",
                "clip spans to the clip's duration first",
            )
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


def is_container(path: StrPath) -> bool:
    """Whether the file's suffix is one of CONTAINERS, which libsndfile does not read and FFmpeg does."""
    return Path(path).suffix.lower() in CONTAINERS


def _track_seconds(path: StrPath) -> Seconds:
    """Length of the first sound track, from its header."""
    import av

    _require_file(path)
    name = os.fspath(path)
    try:
        with av.open(name) as container:
            track = next(iter(container.streams.audio), None)
            if track is None:
                raise AudioError(name, "has no sound track", "leave the clip out")
            if track.duration is not None and track.time_base is not None:
                return float(track.duration * track.time_base)
            if container.duration is not None:  # webm keeps the length of the whole
                return float(container.duration / 1_000_000)
    except av.error.FFmpegError as error:
        raise AudioError(
            name, f"not video or audio that can be read ({error.strerror})", FETCH_AGAIN
        ) from None
    raise AudioError(name, "its header says no length", CONVERT)


def _track(path: StrPath, max_seconds: Seconds | None) -> Samples:
    """The first sound track as mono at 16 kHz; AudioError before it is decoded where it is longer than max_seconds."""
    import av
    from faster_whisper.audio import decode_audio

    name, seconds = os.fspath(path), _track_seconds(path)
    if max_seconds is not None and seconds > max_seconds:
        _frames_to_read(name, round(seconds * SAMPLE_RATE), SAMPLE_RATE, 0.0, None, max_seconds)
    try:
        samples = np.asarray(decode_audio(name, SAMPLE_RATE), np.float32)
    except av.error.FFmpegError as error:
        raise AudioError(name, f"decoding fails ({error.strerror})", FETCH_AGAIN) from None
    if not len(samples):
        raise AudioError(name, "the sound track holds no samples", "leave the clip out")
    _require_whole(name, seconds - TRACK_SLACK, len(samples) / SAMPLE_RATE)
    return samples


def _require_file(path: StrPath) -> None:
    """AudioError unless the file is there, may be read and holds anything."""
    name = os.fspath(path)
    if not os.path.exists(name):
        raise AudioError(
            name, "no such file", "check the path; inside a JSONL file, relative ones start at its folder"
        )
    if os.path.isdir(name):
        raise AudioError(name, "is a folder, not an audio file", "name one file in it")
    if not os.access(name, os.R_OK):
        raise AudioError(name, "the file may not be read", "check its permissions")
    if os.path.getsize(name) == 0:
        raise AudioError(name, "the file is empty (0 bytes)", FETCH_AGAIN)


def _open(path: StrPath) -> sf.SoundFile:
    """The file, opened, its header believed: it is there, is audio, is whole and has a length."""
    name = os.fspath(path)
    _require_file(path)
    if Path(name).suffix.lower() == ".raw":
        raise AudioError(name, "raw samples have no header that gives their rate", CONVERT)
    try:
        file = sf.SoundFile(name)
    except sf.LibsndfileError:
        # libsndfile's own words are left out: it says "does not exist" of an mp3 that it cannot parse
        raise AudioError(
            name,
            f"not audio that libsndfile {sf.__libsndfile_version__} can read, or its header is cut off",
            f"{CONVERT}, or {FETCH_AGAIN}",
        ) from None
    try:
        _require_length(name, file)
    except AudioError:
        file.close()
        raise
    return file


def _require_length(name: str, file: sf.SoundFile) -> None:
    if file.frames == 0:
        raise AudioError(
            name, "the file holds no samples", "record or export it again, or leave the clip out"
        )
    if file.frames >= UNKNOWN_FRAMES:
        raise AudioError(name, "the header leaves the length open", CONVERT)
    # libsndfile quietly shortens a wav whose data end early; only its log tells
    cut = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    if cut is None:
        return
    claimed_bytes, found_bytes = int(cut[1]), int(cut[2])
    if claimed_bytes < STREAMED_BYTES and found_bytes > 0:
        claimed = file.frames * claimed_bytes / found_bytes
        _require_whole(name, claimed / file.samplerate, file.frames / file.samplerate)


def _require_whole(name: str, claimed: Seconds, decoded: Seconds) -> None:
    if decoded < claimed - HEADER_SLACK:
        raise AudioError(
            name,
            f"the header promises {claimed:.2f} s, but {decoded:.2f} s are there: the file is cut off",
            FETCH_AGAIN,
        )


def _frames_to_read(
    name: str, n_frames: int, rate: int, start: Seconds, end: Seconds | None, max_seconds: Seconds
) -> tuple[int, int]:
    """First frame and number of frames of the stretch [start, end) of a file of n_frames."""
    length = n_frames / rate
    stop = length if end is None else end
    if not 0 <= start < stop <= length + END_SLACK:
        raise AudioError(
            name,
            f"the stretch [{start}, {stop}) s is not inside its {length:.3f} s",
            f"give 0 <= start < end <= {length:.3f}",
        )
    stop = min(stop, length)
    if stop - start > max_seconds:
        raise AudioError(
            name,
            f"{stop - start:.1f} s of audio are more than the {max_seconds:g} s allowed",
            "crop it (start=, end=) or pass a larger max_seconds",
        )
    first, last = round(start * rate), round(stop * rate)
    if first >= last:
        raise AudioError(name, f"no sample at {rate} Hz lies in [{start}, {stop}) s", "give a longer stretch")
    return first, last - first


def _decode_mono(name: str, file: sf.SoundFile, first: int, n_frames: int) -> Samples:
    """The mean of the channels of n_frames frames from `first` on, at the file's own rate."""
    # an mp3 is read in one piece: soundfile seeks after every read, and each seek spoils an mp3's next frames
    is_mp3 = file.format == "MP3"
    run_up = min(first, round(MP3_RUN_UP * file.samplerate)) if is_mp3 else 0
    n_block = run_up + n_frames if is_mp3 else BLOCK_FRAMES
    mono = np.empty(run_up + n_frames, np.float32)
    n_read = 0
    try:
        file.seek(first - run_up)
        while n_read < len(mono):
            block = file.read(min(n_block, len(mono) - n_read), dtype="float32", always_2d=True)
            if len(block) == 0:
                break
            mono[n_read : n_read + len(block)] = block.mean(axis=1)
            n_read += len(block)
    except sf.LibsndfileError as error:
        seconds = (first - run_up + n_read) / file.samplerate
        raise AudioError(
            name, f"decoding fails after {seconds:.2f} s ({error.error_string})", FETCH_AGAIN
        ) from error
    _require_whole(name, (first + n_frames) / file.samplerate, (first - run_up + n_read) / file.samplerate)
    if n_read <= run_up:
        raise AudioError(name, f"no sample could be decoded at {first / file.samplerate:.2f} s", FETCH_AGAIN)
    return mono[run_up:n_read]


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

import errno
import io
import pickle
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from tgsr import audio
from tgsr.audio import SAMPLE_RATE, load
from tgsr.errors import AudioError
from tgsr.timeline import Span

TONE = (0.8, 1.4)  # seconds
LENGTH = 2.0
RATES = (8000, 11025, 16000, 22050, 44100, 48000)
CHANNELS = (1, 2, 6)
CODECS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}


def writable(extension: str, rate: int, n_channels: int) -> bool:
    """mp3 has two channels at most; Opus has rates of its own."""
    if extension == "mp3":
        return n_channels <= 2
    return extension != "opus" or rate in (8000, 12000, 16000, 24000, 48000)


def tone(rate: int, n_channels: int = 1) -> np.ndarray:
    t = np.arange(round(LENGTH * rate)) / rate
    mono = np.where((t >= TONE[0]) & (t < TONE[1]), 0.5 * np.sin(2 * np.pi * 1000 * (t - TONE[0])), 0)
    return np.repeat(mono[:, None], n_channels, axis=1)


def write(folder: Path, extension: str = "wav", rate: int = 16000, n_channels: int = 1) -> Path:
    path = folder / f"tone.{extension}"
    container, subtype = CODECS[extension]
    sf.write(path, tone(rate, n_channels), rate, format=container, subtype=subtype)
    return path


def refusal(path: Path, **arguments: float) -> str:
    with pytest.raises(AudioError) as caught:
        load(path, **arguments)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message, "no remedy"
    return message


@pytest.mark.parametrize(
    ("extension", "rate", "n_channels"),
    [(e, r, c) for e in CODECS for r in RATES for c in CHANNELS if writable(e, r, c)],
)
def test_a_tone_is_heard_when_it_was_played(
    tmp_path: Path, extension: str, rate: int, n_channels: int
) -> None:
    path = write(tmp_path, extension, rate, n_channels)
    samples = load(path)
    loud = np.flatnonzero(np.abs(samples) > 0.1) / SAMPLE_RATE
    tolerance = 0.001 if extension in ("wav", "flac") else 0.005
    assert loud[0] == pytest.approx(TONE[0], abs=tolerance)
    assert loud[-1] == pytest.approx(TONE[1], abs=tolerance)
    heard = samples[round(0.9 * SAMPLE_RATE) : round(1.3 * SAMPLE_RATE)]
    # ogg encoders take the fourth of six channels for a subwoofer's and may leave the tone out of it
    lowest = 5 / 6 if extension in ("ogg", "opus") and n_channels == 6 else 1
    assert 0.97 * lowest < np.sqrt(2 * np.mean(heard**2)) / 0.5 < 1.03
    assert np.argmax(np.abs(np.fft.rfft(heard))) / 0.4 == pytest.approx(1000, abs=3)
    assert samples.dtype == np.float32
    assert len(samples) == round(round(LENGTH * rate) * SAMPLE_RATE / rate)
    assert audio.duration(path) == pytest.approx(LENGTH, abs=1 / rate)


def write_bursts(folder: Path, extension: str) -> Path:
    """6 s of bursts of noise: an mp3 frame then borrows bits from those before it."""
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal(6 * SAMPLE_RATE) * (np.sin(np.arange(6 * SAMPLE_RATE) / 1800) > 0)
    path = folder / f"noise.{extension}"
    container, subtype = CODECS[extension]
    sf.write(path, noise, SAMPLE_RATE, format=container, subtype=subtype)
    return path


@pytest.mark.parametrize("extension", CODECS)
def test_a_stretch_is_what_the_whole_file_has_there(tmp_path: Path, extension: str) -> None:
    path = write_bursts(tmp_path, extension)
    whole = load(path)
    starts = np.random.default_rng(1).integers(0, 5 * SAMPLE_RATE, 20) / SAMPLE_RATE
    for start in (0.0, 0.777, *starts):
        first = round(start * SAMPLE_RATE)
        stretch = load(path, start=start, end=start + 0.5)
        np.testing.assert_allclose(stretch, whole[first : first + 8000], atol=1e-6)
    np.testing.assert_allclose(load(path, start=5.5), whole[-8000:], atol=1e-6)


@pytest.mark.parametrize("extension", CODECS)
def test_files_longer_than_a_block_have_no_seams(
    tmp_path: Path, extension: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_bursts(tmp_path, extension)
    at_once, _ = sf.read(path, dtype="float32")
    monkeypatch.setattr(audio, "BLOCK_FRAMES", 5000)
    np.testing.assert_allclose(load(path), at_once.clip(-1, 1), atol=1e-5)  # mp3: another decoder's rounding


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_a_stretch_of_another_rate_is_what_the_whole_file_has_there(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "noise.flac"
    sf.write(path, 0.1 * np.random.default_rng(0).standard_normal(3 * rate), rate)
    whole = load(path)
    for start, end in ((0.0, 0.5), (0.7373, 1.25), (1.00003, 1.00103), (2.5, None)):
        stretch = load(path, start=start, end=end)
        first = round(round(start * rate) * SAMPLE_RATE / rate)
        np.testing.assert_allclose(stretch, whole[first : first + len(stretch)], atol=2e-4)
        assert len(stretch) == pytest.approx(((end or 3) - start) * SAMPLE_RATE, abs=2)


def test_a_stretch_of_another_rate_starts_on_time(tmp_path: Path) -> None:
    path = write(tmp_path, "flac", 44100, 2)
    samples = load(path, start=0.5, end=1.0)
    assert len(samples) == 8000
    assert np.flatnonzero(np.abs(samples) > 0.1)[0] / SAMPLE_RATE == pytest.approx(0.3, abs=0.001)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 48000])
@pytest.mark.parametrize("n_frames", [1, 2, 5, 9, 1000, 44101])
def test_every_length_is_rounded_as_promised(tmp_path: Path, rate: int, n_frames: int) -> None:
    path = tmp_path / "short.wav"
    sf.write(path, np.full(n_frames, 0.25), rate)
    assert len(load(path)) == max(1, round(n_frames * SAMPLE_RATE / rate))


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    sf.write(path, np.tile([0.5, -0.25], (300_000, 1)), 16000)  # more than one block
    assert np.unique(load(path)).tolist() == [0.125]


def test_decoded_samples_stay_within_full_scale(tmp_path: Path) -> None:
    path = tmp_path / "square.wav"
    sf.write(path, np.sign(np.sin(np.arange(44100) / 17)), 44100, subtype="FLOAT")
    samples = load(path)  # a square wave overshoots when it is resampled
    assert samples.max() == 1.0
    assert samples.min() == -1.0


def write_ten_hours(path: Path) -> None:
    """10 h at 8 kHz as a hole in the file, but for a second of tone after 9 h."""
    n_bytes = 10 * 3600 * 8000 * 2
    header = b"RIFF" + struct.pack("<I", 36 + n_bytes) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16) + b"data" + struct.pack("<I", n_bytes)
    with path.open("wb") as file:
        file.write(header)
        file.seek(len(header) + 9 * 3600 * 8000 * 2)
        file.write((8000 * np.sin(2 * np.pi * 500 * np.arange(8000) / 8000)).astype("<i2").tobytes())
        file.truncate(len(header) + n_bytes)
    assert path.stat().st_blocks * 512 < 1_000_000


def test_ten_hours_are_refused_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "day.wav"
    write_ten_hours(path)

    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(audio, "_decode_mono", decode)
    assert audio.duration(path) == 36_000
    message = refusal(path)
    assert "36000.0 s" in message
    assert "600 s" in message
    assert "max_seconds" in message
    with pytest.raises(AssertionError, match="decoded"):
        load(path, max_seconds=36_000)


def test_a_second_of_ten_hours_can_be_had(tmp_path: Path) -> None:
    path = tmp_path / "day.wav"
    write_ten_hours(path)
    samples = load(path, start=9 * 3600 - 0.5, end=9 * 3600 + 0.5)
    assert len(samples) == SAMPLE_RATE
    assert np.flatnonzero(np.abs(samples) > 0.05)[0] / SAMPLE_RATE == pytest.approx(0.5, abs=0.002)


def test_files_that_are_no_audio_say_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    assert "no such file" in refusal(path)
    assert "is a folder" in refusal(tmp_path)
    path.touch()
    assert "empty (0 bytes)" in refusal(path)
    for content in (b"hello world\n" * 50, b"RIFF", b"RIFF\0\0\0\0WAVE", b"\0" * 4000, bytes(range(256)) * 9):
        path.write_bytes(content)
        assert "not audio" in refusal(path)
    raw = tmp_path / "clip.raw"
    raw.write_bytes(b"\0" * 100)
    assert "no header" in refusal(raw)
    assert "ffmpeg -f s16le -ar 16000 -ac 1 -i IN OUT.wav" in refusal(
        raw
    )  # without -f ffmpeg knows no more than we
    with pytest.raises(AudioError, match="not audio"):
        audio.duration(path)


@pytest.mark.parametrize("extension", CODECS)
def test_a_header_cut_off_is_refused(tmp_path: Path, extension: str) -> None:
    path = write(tmp_path, extension)
    path.write_bytes(path.read_bytes()[:30])
    assert "header is cut off" in refusal(path)


@pytest.mark.parametrize("extension", ["wav", "flac", "mp3"])
def test_half_a_file_is_not_taken_for_a_short_one(tmp_path: Path, extension: str) -> None:
    path = write(tmp_path, extension)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    message = refusal(path)
    assert "cut off" in message or "decoding fails" in message
    assert "again" in message


def test_a_wav_written_into_a_pipe_is_read(tmp_path: Path) -> None:
    path = write(tmp_path)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4  # such headers claim 4 GiB
    path.write_bytes(content)
    assert audio.duration(path) == LENGTH
    assert len(load(path)) == LENGTH * SAMPLE_RATE


def test_a_header_that_leaves_the_length_open_is_no_obstacle(tmp_path: Path) -> None:
    path = write(tmp_path, "flac")
    whole = load(path)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the last 36 bits of bytes 18-25 count the samples
    content[22:26] = b"\0" * 4
    path.write_bytes(content)
    assert audio.duration(path) == LENGTH
    np.testing.assert_array_equal(load(path), whole)


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nothing.wav"
    sf.write(path, np.zeros(0), 16000)
    assert "no samples" in refusal(path)
    with pytest.raises(AudioError, match="no samples"):
        audio.duration(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "broken.wav"
    samples = np.zeros(1000)
    samples[700] = value
    sf.write(path, samples, 16000, subtype="FLOAT")
    assert "1 of 1000 samples are NaN or infinite" in refusal(path)
    assert len(load(path, end=600 / 16000)) == 600, "the good part can be read"


def test_floats_scaled_as_integers_are_refused_and_not_clipped_to_noise(tmp_path: Path) -> None:
    path = tmp_path / "scaled.wav"
    sf.write(path, 20_000 * tone(16000), 16000, subtype="FLOAT")
    assert "full scale" in refusal(path)


def test_stretches_outside_the_file_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    for start, end in [(-1, 1), (1, 1), (1.5, 1), (2, None), (0, 2.1), (3, 4), (float("nan"), 1)]:
        arguments = {"start": start} if end is None else {"start": start, "end": end}
        assert "not inside its 2.000 s" in refusal(path, **arguments)
    assert len(load(path, start=1, end=2.04)) == SAMPLE_RATE, "published durations are rounded"
    assert "no sample" in refusal(path, start=1.00001, end=1.00002)


def test_errors_survive_the_way_from_a_worker_process() -> None:
    error = AudioError("a.wav", "is odd", "leave it")
    assert str(pickle.loads(pickle.dumps(error))) == "a.wav: is odd; leave it"


def test_sixteen_bit_samples_come_back_bit_for_bit(tmp_path: Path) -> None:
    samples = (np.arange(-32768, 32768) / 32768).astype(np.float32)
    path = tmp_path / "all.wav"
    audio.save_wav(path, samples)
    np.testing.assert_array_equal(load(path), samples)
    assert audio.wav_bytes(samples) == path.read_bytes()
    assert [child.name for child in tmp_path.iterdir()] == ["all.wav"]
    info = sf.info(io.BytesIO(path.read_bytes()))
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")


def test_full_scale_is_written_without_wrapping_around(tmp_path: Path) -> None:
    path = tmp_path / "loud.wav"
    audio.save_wav(path, np.ones(10, np.float32))
    assert load(path).min() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "samples",
    [np.zeros(0, np.float32), np.zeros((2, 5), np.float32), np.array([0, np.nan]), np.array([0, 1.5])],
)
def test_samples_that_no_wav_can_hold_leave_no_file(tmp_path: Path, samples: np.ndarray) -> None:
    path = tmp_path / "bad.wav"
    with pytest.raises(AudioError) as caught:
        audio.save_wav(path, samples)
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_crop_is_its_stretches_in_the_order_given() -> None:
    samples = np.arange(3 * SAMPLE_RATE, dtype=np.float32)
    cropped = audio.crop(samples, [Span(2, 2.5), Span(0.25, 0.5), Span(2.9, 3.04)])
    expected = np.r_[samples[32000:40000], samples[4000:8000], samples[46400:]]
    np.testing.assert_array_equal(cropped, expected)
    cropped[:] = 0
    assert samples[-1] == 47999, "a crop is a copy"
    assert audio.crop(samples, []).shape == (0,)


def test_a_crop_past_the_end_is_refused() -> None:
    for span in (Span(0.5, 1.1), Span(1.0, 1.04)):
        with pytest.raises(AudioError, match="not inside"):
            audio.crop(audio.silence(1), [span])


def test_silence_is_silent() -> None:
    assert audio.silence(0.5).tolist() == [0.0] * 8000
    assert audio.silence(0).shape == (0,)
    with pytest.raises(ValueError, match="seconds >= 0"):
        audio.silence(-1)


def test_the_hash_follows_content_and_not_memory_layout() -> None:
    samples = np.linspace(-1, 1, 100, dtype=np.float32)
    key = audio.content_hash(samples)
    assert key == audio.content_hash(np.repeat(samples, 2)[::2])
    assert key == audio.content_hash(samples.astype(np.float64))
    assert key != audio.content_hash(np.r_[samples, np.float32(0)])
    assert audio.content_hash(np.zeros(0, np.float32)).startswith("e3b0c442")  # SHA-256 of nothing


def test_peaks_keep_a_click_that_is_one_sample_long() -> None:
    samples = np.zeros(1000, np.float32)
    samples[734] = 0.75
    samples[0] = -0.5
    expected = [(0.0, 0.0)] * 10
    expected[0], expected[7] = (-0.5, 0.0), (0.0, 0.75)
    assert audio.peaks(samples, 10) == expected


def test_there_are_always_as_many_peaks_as_asked_for() -> None:
    assert audio.peaks(np.array([0.25, -0.5], np.float32), 4) == [(0.25, 0.25)] * 2 + [(-0.5, -0.5)] * 2
    assert audio.peaks(np.zeros(0, np.float32), 3) == [(0.0, 0.0)] * 3
    assert len(audio.peaks(np.zeros(1001, np.float32), 7)) == 7
    with pytest.raises(ValueError, match="n >= 1"):
        audio.peaks(np.zeros(3, np.float32), 0)


# Sound tracks of video and of what FFmpeg alone reads


def track(path: Path, samples: np.ndarray) -> Path:
    import av

    with av.open(str(path), "w") as container:
        codec = "libopus" if path.suffix in (".webm", ".mkv") else "aac"
        stream = container.add_stream(codec, rate=48_000 if codec == "libopus" else 16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="flt", layout="mono")
        frame.sample_rate = 16_000
        resampler = av.AudioResampler(
            stream.format.name, "mono", stream.rate, frame_size=stream.frame_size or 960
        )
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".m4a", ".webm"])
def test_a_sound_track_is_read_like_a_sound_file(suffix: str, tmp_path: Path) -> None:
    seconds = np.arange(3 * 16_000) / 16_000
    tone = (0.3 * np.sin(2 * np.pi * 440 * seconds) * (seconds > 1)).astype(np.float32)
    path = track(tmp_path / f"a{suffix}", tone)
    assert audio.duration(path) == pytest.approx(3.0, abs=0.15)
    samples = audio.load(path)
    assert samples.dtype == np.float32
    assert len(samples) / 16_000 == pytest.approx(3.0, abs=0.15)
    assert np.abs(samples[: 16_000 * 9 // 10]).max() < 0.05  # silence, then the tone where it was
    assert np.sqrt((samples[20_000:40_000] ** 2).mean()) == pytest.approx(0.3 / np.sqrt(2), rel=0.1)
    assert len(audio.load(path, start=0.5, end=1.5)) == 16_000


def test_a_sound_track_has_the_same_errors(tmp_path: Path) -> None:
    path = track(tmp_path / "a.mp4", np.zeros(3 * 16_000))
    with pytest.raises(AudioError, match=r"more than the 2 s allowed; cut it .*--long-audio split"):
        audio.load(path, max_seconds=2)
    with pytest.raises(AudioError, match="is not inside its"):
        audio.load(path, start=9.0, end=10.0)
    (tmp_path / "b.mp4").write_text("no video")
    with pytest.raises(AudioError, match=r"b\.mp4: not audio or video that can be read"):
        audio.duration(tmp_path / "b.mp4")
    with pytest.raises(AudioError, match="no such file"):
        audio.load(tmp_path / "c.mp4")


@pytest.mark.parametrize("hear", [load, lambda path: list(audio.stream(path))])
def test_a_flac_that_is_damaged_in_its_middle_is_an_error_however_it_is_read(
    hear: Callable[[Path], object], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 10 * SAMPLE_RATE)
    sf.write(path := tmp_path / "a.flac", noise, SAMPLE_RATE)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(n * 7 % 256 for n in range(3000))
    path.write_bytes(content)
    assert audio.duration(path) == 10.0  # by the header, which is whole
    with pytest.raises(
        AudioError, match=r"a\.flac: decoding fails after .* s \(.*\); copy or download it again"
    ):
        hear(path)


@pytest.mark.parametrize("name", ["a.wav", "a.ogg", "a.mp3"])
@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "No such file or directory"), OSError(5, "I/O error")]
)
def test_a_file_that_goes_while_it_is_read_is_an_error_of_its_own(
    name: str, error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk over a network a file may be there, and not be given: at each of the places where it is opened."""
    sf.write(path := tmp_path / name, np.zeros(SAMPLE_RATE) + 0.1, SAMPLE_RATE)
    real, n_opened = open, [0]

    def opened(file: object, *how: Any) -> Any:
        n_opened[0] += file == str(path)
        if file == str(path) and n_opened[0] == fails_at:
            raise error
        return real(file, *how)

    monkeypatch.setattr("builtins.open", opened)
    for fails_at in (1, 2, 3, 0):
        n_opened[0] = 0
        if fails_at:
            with suppress(AudioError):
                load(path)
        else:
            load(path)
    fails_at, n_opened[0] = 1, 0
    with pytest.raises(
        AudioError, match=rf"{name}: cannot be read \({error.strerror}\); see that it is there"
    ):
        load(path)
    monkeypatch.setattr("os.path.getsize", lambda name: opened(name))
    n_opened[0] = 0
    with pytest.raises(AudioError, match="cannot be read"):
        audio.duration(path)

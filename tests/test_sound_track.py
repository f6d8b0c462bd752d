"""Files whose headers say another length than is heard: each made here, with a tone at a known time."""

import io
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf

from tgsr import audio
from tgsr.audio import SAMPLE_RATE
from tgsr.errors import AudioError

CASES = Path(__file__).parents[2] / "shared" / "cases" / "data"
LENGTH, TONE = 4.0, (2.5, 3.0)  # seconds
PICTURE = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")


def beep(seconds: float = LENGTH, tone: tuple[float, float] = TONE, rate: int = SAMPLE_RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return np.where((t >= tone[0]) & (t < tone[1]), 0.5 * np.sin(2 * np.pi * 1000 * t), 0).astype(np.float32)


def heard(path: Path) -> tuple[float, float]:
    """When the last tone begins and ends, in the file's clock."""
    samples = audio.load(path)
    assert audio.duration(path) == pytest.approx(len(samples) / SAMPLE_RATE, abs=1e-3)
    loud = np.flatnonzero(np.abs(samples) > 0.1) / SAMPLE_RATE
    begins = np.flatnonzero(np.diff(loud, prepend=-1.0) > 0.5)
    return loud[begins[-1]], loud[-1]


def encoded(format_: str, subtype: str, **tone: float | tuple[float, float]) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, beep(**tone), SAMPLE_RATE, format=format_, subtype=subtype)
    return buffer.getvalue()


def without_xing(content: bytes) -> bytes:
    """An mp3 less its first frame, which counts the others."""
    return content[content.index(content[:2], 4) :]


def with_cover(content: bytes) -> bytes:
    """An mp3 after 300 kB of ID3 tag, as a cover is."""
    size = 300_000
    return b"ID3\4\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + b"\0" * size + content


def muxed(
    to: Path | io.RawIOBase,
    *,
    format_: str | None = None,
    codec: str = "aac",
    late: float = 0.0,
    picture: float = 0.0,
    lost: tuple[float, float] = (0.0, 0.0),
) -> None:
    """The tone as a sound track that begins `late`, less the packets in `lost`, beside so many seconds of picture."""
    rate = 48_000 if codec == "libopus" else SAMPLE_RATE
    with av.open(str(to) if isinstance(to, Path) else to, "w", format=format_) as container:
        video = container.add_stream("mpeg4", rate=10) if picture else None
        track = container.add_stream(codec, rate=rate, layout="mono", bit_rate=64_000)
        packets = []
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for number in range(round(picture * 10)):
                frame = PICTURE.reformat(format="yuv420p")
                frame.pts = number
                packets += video.encode(frame)
            packets += video.encode(None)
        samples = av.AudioFrame.from_ndarray(beep(rate=rate)[None], format="flt", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(track.format.name, "mono", rate, frame_size=track.frame_size or 960)
        for piece in (*resampler.resample(samples), *resampler.resample(None)):
            packets += track.encode(piece)
        packets += track.encode(None)
        for packet in packets:
            if packet.stream is track:
                if lost[0] <= float(packet.pts * packet.time_base) < lost[1]:
                    continue
                packet.pts = packet.dts = packet.pts + round(late / packet.time_base)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)


class Pipe(io.RawIOBase):
    """What is written there cannot be gone back to, so that no header is completed."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, piece) -> int:
        self.content += bytes(piece)
        return len(piece)


MP3 = ("MP3", "MPEG_LAYER_III")
VORBIS, OPUS = ("OGG", "VORBIS"), ("OGG", "OPUS")
FIRST, SECOND = {"seconds": 3.0, "tone": (0.5, 0.6)}, {"seconds": 4.0, "tone": (2.5, 3.0)}


@pytest.mark.parametrize(
    ("name", "content", "length", "late"),
    [
        ("no-xing.mp3", without_xing(encoded(*MP3)), 4.0, 0.0),
        ("cover.mp3", with_cover(encoded(*MP3)), 4.0, 0.0),
        ("cover-no-xing.mp3", with_cover(without_xing(encoded(*MP3))), 4.0, 0.0),
        ("joined.mp3", encoded(*MP3, **FIRST) + encoded(*MP3, **SECOND), 7.0, 3.0),
        ("joined-no-xing.mp3", without_xing(encoded(*MP3, **FIRST)) + without_xing(encoded(*MP3)), 7.0, 3.0),
        ("joined-with-tags.mp3", encoded(*MP3, **FIRST) + with_cover(encoded(*MP3)), 7.0, 3.0),
        ("chained.ogg", encoded(*VORBIS, **FIRST) + encoded(*VORBIS), 7.0, 3.0),
        ("chained.opus", encoded(*OPUS, **FIRST) + encoded(*OPUS), 7.0, 3.0),
        ("chained-both.ogg", encoded(*OPUS, **FIRST) + encoded(*VORBIS), 7.0, 3.0),
        ("joined.flac", encoded("FLAC", "PCM_16", **FIRST) + encoded("FLAC", "PCM_16"), 7.0, 3.0),
    ],
)
def test_all_of_a_file_is_heard_whatever_its_first_header_counts(
    name: str, content: bytes, length: float, late: float, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert audio.duration(tmp_path / name) == pytest.approx(length, abs=0.25 if "no-xing" in name else 0.03)
    assert heard(tmp_path / name) == pytest.approx((TONE[0] + late, TONE[1] + late), abs=0.2)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.aac", {"format_": "adts"}),
        ("a.m4b", {"format_": "mp4"}),
        ("a.mka", {"format_": "matroska", "codec": "libopus"}),
        ("a.oga", {"format_": "ogg", "codec": "libopus"}),
        ("a.ts", {"format_": "mpegts"}),
        ("video.ts", {"format_": "mpegts", "picture": 6.0}),
        ("long-picture.mkv", {"picture": 9.0}),
        ("long-picture.mp4", {"picture": 9.0}),
        ("long-picture.avi", {"picture": 9.0, "codec": "mp2"}),
        ("short-picture.mkv", {"picture": 1.0}),
        ("a.mp4", {"codec": "mp3"}),
        ("a.wma", {"format_": "asf", "codec": "wmav2"}),
    ],
)
def test_a_track_is_as_long_as_its_sound(name: str, how: dict, tmp_path: Path) -> None:
    muxed(tmp_path / name, **how)
    assert audio.duration(tmp_path / name) == pytest.approx(LENGTH, abs=0.15)
    assert heard(tmp_path / name) == pytest.approx(TONE, abs=0.1)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts"])
def test_sound_that_begins_after_the_picture_is_late(name: str, tmp_path: Path) -> None:
    muxed(tmp_path / name, late=2.0, picture=8.0)
    assert heard(tmp_path / name) == pytest.approx((TONE[0] + 2, TONE[1] + 2), abs=0.1)
    assert audio.duration(tmp_path / name) == pytest.approx(LENGTH + 2, abs=0.15)
    whole = audio.load(tmp_path / name)
    np.testing.assert_array_equal(audio.load(tmp_path / name, start=4.4, end=5.1), whole[70_400:81_600])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.ts"])
def test_packets_that_are_missing_are_silence(name: str, tmp_path: Path) -> None:
    codec = "libopus" if name.endswith("webm") else "aac"
    muxed(tmp_path / name, codec=codec, lost=(0.5, 2.0))
    assert heard(tmp_path / name) == pytest.approx(TONE, abs=0.1)
    assert audio.duration(tmp_path / name) == pytest.approx(LENGTH, abs=0.15)


@pytest.mark.parametrize(
    ("format_", "codec"),
    [("webm", "libopus"), ("matroska", "aac"), ("mpegts", "aac"), ("ogg", "libopus"), ("adts", "aac")],
)
def test_what_was_written_into_a_pipe_is_read(format_: str, codec: str, tmp_path: Path) -> None:
    pipe = Pipe()
    muxed(pipe, format_=format_, codec=codec)
    path = tmp_path / "stream.bin"
    path.write_bytes(pipe.content)
    assert audio.duration(path) == pytest.approx(LENGTH, abs=0.15)
    assert heard(path) == pytest.approx(TONE, abs=0.1)


def wav(**sizes: int) -> bytes:
    """A wav file with other sizes in its header: of RIFF and of the data."""
    content = bytearray(encoded("WAV", "PCM_16"))
    for name, value in sizes.items():
        struct.pack_into("<I", content, {"riff": 4, "data": 40}[name], value)
    return bytes(content)


def in_channels(format_: str, subtype: str, rate: int) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, beep(rate=rate), rate, format=format_, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data-0.wav", wav(data=0)),
        ("both-0.wav", wav(riff=0, data=0)),
        ("pipe.wav", wav(riff=0xFFFFFFFF, data=0xFFFFFFFF)),
        ("pipe-sox.wav", wav(riff=0x7FFFF024, data=0x7FFFF000)),
        ("riff-0.wav", wav(riff=0)),
        ("odd.wav", wav(data=2 * 64_000 - 1)),
        ("odd-and-over.wav", wav(data=2 * 64_000 + 1)),
        ("gsm.wav", in_channels("WAV", "GSM610", 8000)),
        ("adpcm.wav", in_channels("WAV", "IMA_ADPCM", 8000)),
        ("ulaw.wav", in_channels("WAV", "ULAW", 8000)),
        ("a.aif", in_channels("AIFF", "PCM_16", 16_000)),
        ("a.caf", in_channels("CAF", "PCM_16", 16_000)),
        ("a.w64", in_channels("W64", "PCM_16", 16_000)),
        ("a.au", in_channels("AU", "PCM_16", 16_000)),
        ("a.sph", in_channels("NIST", "PCM_16", 16_000)),
        ("a.rf64", in_channels("RF64", "PCM_16", 16_000)),
    ],
)
def test_a_header_that_says_another_size_changes_nothing(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert audio.duration(tmp_path / name) == pytest.approx(
        LENGTH, abs=0.07
    )  # blocks of GSM and ADPCM are filled up
    assert heard(tmp_path / name) == pytest.approx(TONE, abs=0.01)


@pytest.mark.parametrize(
    ("more", "is_refused"),
    [
        (encoded("WAV", "PCM_16"), True),
        (b"\1\2" * 20_000, True),
        (b"\0" * 40_000, False),
        (b"TAG" + b"x" * 20_000, False),
        (b"LIST" + (20_000).to_bytes(4, "little") + b"\1" * 20_000, False),
        (b"\1\2" * 100, False),
    ],
    ids=["joined", "sound", "filled up", "tag", "chunk", "a little"],
)
def test_sound_beyond_what_a_wav_counts_is_not_passed_over(
    more: bytes, is_refused: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav() + more)
    if is_refused:
        with pytest.raises(AudioError, match=r"bytes follow the 4\.00 s that its header counts"):
            audio.duration(path)
    else:
        assert audio.duration(path) == LENGTH


def test_an_empty_wav_with_a_chunk_after_its_data_is_empty(tmp_path: Path) -> None:
    content = bytearray(wav(data=0)[:44]) + b"LIST" + (20_000).to_bytes(4, "little") + b"\1" * 20_000
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(AudioError, match="no samples"):
        audio.duration(tmp_path / "a.wav")


@pytest.mark.parametrize(
    "name",
    [
        *("a.mp3", "a.flac", "a.wav", "a.aiff", "a.caf", "a.au", "a.w64", "a.rf64", "a.nist", "a.ogg"),
        *("a.m4a", "a.mkv", "a.webm", "a.mov"),
    ],
)
def test_half_a_file_is_refused_before_its_length_is_believed(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix not in (".m4a", ".mkv", ".webm", ".mov"):
        rng = np.random.default_rng(0)
        sf.write(path, 0.1 * rng.standard_normal(64_000), 16_000, format=name[2:])
    else:
        muxed(
            path,
            codec="libopus" if name == "a.webm" else "aac",
            picture=4.0 if name[2:] in ("mkv", "mov") else 0,
        )
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    for hear in (audio.duration, audio.load):
        with pytest.raises(AudioError, match=r"cut off|decoding fails"):
            hear(path)


def test_an_mp3_that_lost_frames_in_the_middle_is_refused(tmp_path: Path) -> None:
    content = bytearray(encoded(*MP3))
    content[len(content) // 2 : len(content) // 2 + 300] = b"\0" * 300
    (tmp_path / "a.mp3").write_bytes(content)
    with pytest.raises(AudioError, match="cut off"):
        audio.duration(tmp_path / "a.mp3")


def test_a_clock_that_leaps_over_days_is_refused_at_once(tmp_path: Path) -> None:
    muxed(tmp_path / "a.ts")
    muxed(tmp_path / "b.mkv", late=100_000.0, picture=1.0)
    assert audio.duration(tmp_path / "a.ts") == pytest.approx(LENGTH, abs=0.15)
    with pytest.raises(AudioError, match=r"leaps over \d+ s"):
        audio.duration(tmp_path / "b.mkv")


@pytest.mark.parametrize("format_", ["CAF", "W64", "WAV", "AIFF"])
def test_a_damaged_header_is_read_or_refused_and_never_raises_anything_else(
    format_: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(40):
        spoilt = bytearray(in_channels(format_, "PCM_16", 16_000)[:8000])
        for place in rng.integers(4, 120, 2):
            spoilt[int(place)] = int(rng.choice([0, 255, rng.integers(256)]))
        (tmp_path / "a").write_bytes(spoilt)
        try:
            audio.load(tmp_path / "a")
        except AudioError:
            n_refused += 1
    assert n_refused > 0


def test_two_channels_in_opposite_phase_are_refused_and_said(tmp_path: Path) -> None:
    tone = beep()[:, None]
    rng = np.random.default_rng(0)
    noise = 0.001 * rng.standard_normal((len(tone), 2))
    for name, left_and_right in [
        ("opposite.wav", np.hstack([tone, -tone]) + noise),
        ("opposite.flac", np.hstack([tone, -tone])),
        ("opposite.mp3", np.hstack([tone, -tone])),
        ("opposite.ogg", np.hstack([tone, -tone])),
        ("offset.wav", np.hstack([tone, -tone]) / 2 + 0.3),  # a constant is what is left of it, and no sound
    ]:
        sf.write(tmp_path / name, left_and_right, SAMPLE_RATE)
        with pytest.raises(AudioError, match=r"2 channels are in opposite phase.*keep one"):
            audio.load(tmp_path / name)
    for name, left_and_right in [
        ("one-side.wav", np.hstack([tone, 0 * tone])),
        ("apart.wav", np.hstack([np.roll(tone, 16_000), tone])),
        ("unlike.wav", rng.standard_normal((16_000, 2)).clip(-3, 3) / 4),
        ("silent.wav", np.zeros((16_000, 2))),
        ("nearly-silent.wav", np.hstack([np.ones((16_000, 1)), -np.ones((16_000, 1))]) / 32768),
        ("six.wav", np.hstack([tone, *[0 * tone] * 5])),
        (
            "offset-apart.wav",
            np.hstack([tone / 2 + 0.3, 0 * tone - 0.3]),
        ),  # the constants alone cancel each other
    ]:
        sf.write(tmp_path / name, left_and_right, SAMPLE_RATE)
        assert len(audio.load(tmp_path / name))


@pytest.mark.parametrize(
    "playlist",
    ["#EXTM3U\n#EXTINF:4,\nsecret.wav\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile secret.wav\n"],
)
def test_a_playlist_fetches_nothing(playlist: str, tmp_path: Path) -> None:
    sf.write(tmp_path / "secret.wav", beep(), SAMPLE_RATE)
    for name in ("a.mp4", "a.m3u8", "a.ts", "a.mp3", "a.ffconcat"):
        (tmp_path / name).write_text(playlist)
        with pytest.raises(AudioError, match="not audio"):
            audio.load(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["at 12:30:05.mp3", "http:a.mp3", "caf\udce9.mp3", "caf\udce9.wav", "%d.mp3"]
)
def test_a_name_is_only_a_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    content = encoded(*MP3) if name.endswith("mp3") else encoded("WAV", "PCM_16")
    Path(os.fsdecode(path)).write_bytes(content)
    assert heard(path) == pytest.approx(TONE, abs=0.01)


def test_tags_that_are_not_unicode_are_no_obstacle(tmp_path: Path) -> None:
    text = b"\3" + "Caf\xe9".encode("latin-1")
    frame = b"TIT2" + len(text).to_bytes(4, "big") + b"\0\0" + text
    (tmp_path / "a.mp3").write_bytes(b"ID3\3\0\0\0\0\0" + bytes([len(frame)]) + frame + encoded(*MP3))
    assert heard(tmp_path / "a.mp3") == pytest.approx(TONE, abs=0.01)


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.flac", "a.wav", "a.m4a"])
def test_a_stream_is_what_the_whole_file_has(name: str, tmp_path: Path) -> None:
    rate = 44_100
    if name == "a.m4a":
        muxed(tmp_path / name)
    else:
        sf.write(tmp_path / name, beep(rate=rate), rate)
    pieces = np.concatenate(list(audio.stream(tmp_path / name)))
    np.testing.assert_allclose(pieces, audio.load(tmp_path / name), atol=1e-3)


def test_a_file_whose_length_is_not_known_keeps_no_more_than_was_allowed(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.flac", beep(61.0, rate=8000), 8000)
    with (tmp_path / "a.flac").open("r+b") as file:
        file.seek(21)
        file.write(b"\xf0" + b"\0" * 4)  # leaves the number of samples open
    with pytest.raises(AudioError, match=r"61\.\d s of audio are more than the 60 s allowed"):
        audio.load(tmp_path / "a.flac", max_seconds=60)
    assert len(audio.load(tmp_path / "a.flac")) == 61 * SAMPLE_RATE
    assert len(audio.load(tmp_path / "a.flac", start=58.0, end=60.5)) == 2.5 * SAMPLE_RATE


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")
@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        *[
            ("cat.mp3", 11.185),
            ("cat.ogg", 11.185),
            ("late.mp4", 9.609),
            ("ls.aac", 11.65),
            ("noxing.mp3", 7.609),
        ],
        *[("short.mkv", 7.609), ("stream.webm", 7.609), ("w_data0.wav", 7.609), ("x.aif", 7.609)],
    ],
)
def test_the_shared_cases_are_heard_whole(name: str, seconds: float) -> None:
    assert audio.duration(CASES / name) == pytest.approx(seconds, abs=0.13)
    first = audio.load(CASES / "a.flac")
    late = 2.0 if name == "late.mp4" else 0.0
    sound = audio.load(CASES / name)
    assert np.abs(sound[: round(late * SAMPLE_RATE)]).max(initial=0) < 0.02
    n = 1 << 18
    spectrum = np.fft.rfft(sound, n) * np.conj(np.fft.rfft(first[: 3 * SAMPLE_RATE], n))
    lag = np.argmax(np.fft.irfft(spectrum)[: 4 * SAMPLE_RATE]) / SAMPLE_RATE
    if name != "ls.aac":
        assert lag == pytest.approx(late, abs=0.08)

"""The sound track of any file, decoded by FFmpeg from its beginning, by the file's own clock.

A header's length is often a guess, of one track too many, or missing. Here the length is what comes out: sound where
its packets' times put it, counted from the beginning of the first track; silence where packets are missing.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO, TypeVar

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from tgsr.errors import AudioError
from tgsr.timeline import Seconds

Samples = NDArray[np.float32]
T = TypeVar("T")
Piece = tuple[int, Samples]  # rate in Hz, mono samples

# What FFmpeg may open: no playlists, whose entries it would fetch, and no pictures.
DEMUXERS = "mov,matroska,mpegts,mpeg,avi,asf,flv,mp3,aac,loas,ogg,flac,wav,w64,aiff,caf,au,nistsphere,amr,ac3,eac3,ape"
TRACK_IS_COUNTED = ("mov,mp4,m4a,3gp,3g2,mj2", "flac")  # these headers say how long the track is
WHOLE_IS_COUNTED = ("matroska,webm", "avi", "asf")  # and these how long the longest track is
SLACK: Seconds = 0.5  # a header may count the silence that encoders add at both ends
LOST: Seconds = 0.3  # of damaged packets is borne, as silence: tags amid joined files look like them
GAP: Seconds = 0.05  # times of packets are rounded; where sound is missing longer than this, there is silence
LONGEST_GAP: Seconds = 86_400.0  # a clock that leaps over a day is no clock
RESTART: Seconds = 1.0  # a clock that falls back further begins anew, as in files that were joined
MOST_BYTES = 1 << 20  # that are looked at together
BLOCK_FRAMES = 1 << 18  # about as many samples are given at once
CANCELLED = 0.1  # of the power that is left where channels without relation to each other are averaged
INAUDIBLE = 1e-7  # mean power: -70 dB of full scale; the last bits of silence may cancel each other
FETCH_AGAIN = "copy or download it again"
REMUX = "ffmpeg -i IN OUT.flac"
FLAC = b"fLaC\0\0\0\x22"  # how a flac stream with more than one block of metadata begins
# The first sample description of an MP4 track; ASF's objects of content encryption, by their GUIDs.
ENCRYPTED = re.compile(
    rb"stsd.{12}(?:enca|encv|drms|drmi|aavd)"
    rb"|\xfb\xb3\x11\x22\x23\xbd\xd2\x11\xb4\xb7\x00\xa0\xc9\x55\xfc\x6e"
    rb"|\x14\xe6\x8a\x29\x22\x26\x17\x4c\xb9\x35\xda\xe0\x7e\xe9\x28\x9c",
    re.DOTALL,
)
# bytes of it in an mp3 frame, by whether it is MPEG-1 and mono
SIDE_INFORMATION = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}
FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "flt": 1.0, "dbl": 1.0}  # of FFmpeg's samples


class Mono:
    """One channel of a file, or the mean of all, block by block, and what averaging has left of their power.

    Power is that of what is heard: a constant offset, which averaging leaves, is none.
    """

    def __init__(self, name: str, channel: int | None = None) -> None:
        self.name, self.channel = name, channel
        self.n_channels, self.n_samples = 1, 0
        self.sums, self.squares = np.zeros(1), np.zeros(1)  # of each channel, and of their mean
        self.format = "ogg"  # of a file that is read as its links

    def of(self, block: Samples) -> Samples:
        """(n_frames,) of (n_frames, n_channels). AudioError where the channel is not among them."""
        n_channels = block.shape[1]
        if self.channel is not None:
            if not 0 <= self.channel < n_channels:
                problem = f"has {n_channels} channels, and no channel {self.channel} (the first is 0)"
                raise AudioError(self.name, problem, "name one of them")
            return block[:, self.channel]
        if n_channels == 1:
            return block[:, 0]
        mono = block.mean(axis=1)
        self.n_channels = n_channels
        self.n_samples += len(block)
        every = np.column_stack((block, mono)).astype(np.float64)
        self.sums, self.squares = self.sums + every.sum(0), self.squares + np.square(every).sum(0)
        return mono

    def require_sound(self) -> None:
        """AudioError where next to nothing is left: channels in opposite phase cancel each other."""
        *channels, after = (self.squares - self.sums**2 / max(1, self.n_samples)).tolist()
        before = sum(channels) / self.n_channels
        is_heard = before > INAUDIBLE * self.n_samples
        if is_heard and after * self.n_channels < CANCELLED * before:
            lost = f"{1 - after / before:.0%} of the sound is lost when they are averaged"
            problem = f"its {self.n_channels} channels are in opposite phase: {lost}"
            raise AudioError(self.name, problem, "keep one: ffmpeg -i IN -af 'pan=mono|c0=c0' OUT.wav")


def pieces(name: str, channel: int | None = None) -> Iterator[Piece]:
    """The file's first sound track from its clock's zero on, about BLOCK_FRAMES samples at a time.

    Zero is where the first track of sound or picture begins. Packets that cannot be decoded are silence, up to LOST
    seconds of them. The streams of a chained ogg file follow one another. AudioError for what is not sound or video,
    has no sound, ends long before its header says, or has channels that cancel each other.
    """
    waiting: list[Samples] = []
    rate = n_waiting = 0
    mono = Mono(name, channel)
    for rate_, samples in _decoded(name, mono):
        if waiting and (rate_ != rate or n_waiting >= BLOCK_FRAMES):
            yield rate, np.concatenate(waiting)
            waiting, n_waiting = [], 0
        waiting.append(samples)
        rate, n_waiting = rate_, n_waiting + len(samples)
    if not waiting:
        raise _empty(name)
    mono.require_sound()
    yield rate, np.concatenate(waiting)


def measured(name: str) -> tuple[Seconds, str]:
    """The seconds that `pieces` gives, and FFmpeg's name of the format, told from the content: mp3, "matroska,webm".

    AudioError as `pieces`, but for channels that cancel each other.
    """
    mono = Mono(name)
    n_samples: Counter[int] = Counter()
    for rate, samples in _decoded(name, mono):
        n_samples[rate] += len(samples)
    if not n_samples.total():
        raise _empty(name)
    return sum(n / rate for rate, n in n_samples.items()), mono.format


def n_channels_of(name: str) -> int:
    """The number of channels of the first sound track, by its header. AudioError as `pieces`."""
    return _header(name, lambda container: int(_sound_track(name, container).codec_context.channels))


def n_tracks_of(name: str) -> int:
    """The number of sound tracks, of which the first is read. AudioError for what is not sound or video."""
    return _header(name, lambda container: len(container.streams.audio))


@contextmanager
def given(name: str) -> Iterator[None]:
    """AudioError where the system does not give what is in the file: it has gone since, or its disk fails."""
    try:
        yield
    except OSError as error:
        remedy = "see that it is there and its disk answers, and run the same command again"
        raise AudioError(name, f"cannot be read ({error.strerror})", remedy) from error


def _header(name: str, read: Callable[[Any], T]) -> T:
    import av

    with given(name), open(name, "rb") as file:
        try:
            with _opened(file) as container:
                return read(container)
        except av.error.FFmpegError as error:
            raise _unreadable(name, error, 0.0) from None


def require_whole(name: str, claimed: Seconds, found: Seconds, slack: Seconds) -> None:
    """AudioError where less was found than a header claims."""
    if found < claimed - slack:
        promised = f"the header promises {claimed:.2f} s, but {found:.2f} s are there"
        raise AudioError(name, f"{promised}: the file is cut off or damaged", FETCH_AGAIN)


@dataclass(slots=True)
class _Clock:
    """Where in the file's time the next sample is: `now` seconds of sound and silence have been given."""

    name: str
    zero: Seconds = 0.0
    now: Seconds = 0.0
    silent: Seconds = 0.0
    silent_first: Seconds = 0.0

    def missing(self, at: Seconds | None) -> Seconds:
        """The silence before a frame whose time is `at`, in the file's own count; 0 where it follows, or has none."""
        if at is None:
            return 0.0
        ahead = at - self.zero - self.now
        if ahead < -RESTART:
            self.zero = at - self.now
        missing = ahead if ahead > GAP else 0.0
        self.silent += missing
        if self.silent > LONGEST_GAP:
            problem = f"its clock leaps over {ahead:.0f} s after {self.now:.2f} s"
            raise AudioError(self.name, problem, "write its sound anew: ffmpeg -i IN -ac 1 -ar 16000 OUT.wav")
        return missing


def _decoded(name: str, mono: Mono) -> Iterator[Piece]:
    with given(name), open(name, "rb") as file:
        links = ogg_links(file)
        if len(links) < 2:
            begins = [0, *_begins_of_mp3(file)[1:], file.seek(0, os.SEEK_END)]
            file.seek(0)
            if len(begins) == 2:
                yield from _frames(name, file, mono)
                return
            for begin, end in pairwise(begins):
                file.seek(begin)
                yield from _frames(name, io.BytesIO(file.read(end - begin)), mono)
            return
        for link in links:
            file.seek(link.begin)
            content = io.BytesIO(file.read(link.end - link.begin))
            try:
                sound = sf.SoundFile(content) if link.is_unbroken else None
            except sf.LibsndfileError:  # speex
                sound = None
            if sound is None:
                content.seek(0)
                yield from _frames(name, content, mono)
                continue
            with sound:  # FFmpeg is wrong about vorbis' first and last samples
                for block in sound.blocks(BLOCK_FRAMES, dtype="float32", always_2d=True):
                    yield sound.samplerate, mono.of(block)


def _begins_of_mp3(file: BinaryIO) -> list[int]:
    """Where the mp3 files begin that were joined, as far as each has a first frame that counts the others (Xing's)."""
    file.seek(0)
    head = file.read(4)
    if head[:3] != b"ID3" and not (head[:1] == b"\xff" and head[1:2] >= b"\xe0"):
        return []
    begins = []
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for tag in (b"Xing", b"Info"):
            at = content.find(tag)
            while at >= 0:
                begins += [begin for gap in (9, 17, 32) if _is_mp3_frame(content, begin := at - 4 - gap, gap)]
                at = content.find(tag, at + 4)
    return sorted(begins)


def _is_mp3_frame(content: mmap.mmap, at: int, n_side: int) -> bool:
    """Whether a frame of layer III begins there whose side information has that many bytes."""
    if at < 0 or content[at] != 0xFF or content[at + 1] & 0xE6 != 0xE2:
        return False
    is_first_version, is_mono = content[at + 1] & 0x18 == 0x18, content[at + 3] >> 6 == 3
    return n_side == SIDE_INFORMATION[is_first_version, is_mono]


def require_all_of_wav(name: str) -> None:
    """AudioError where a wav file goes on after its data in no chunk: its header counts too little, or others follow.

    Also where it holds no data at all. Tags, and zeros with which files are filled up, do not count. Files whose header
    leaves the size open, by 0 or by more than there is, and other formats pass.
    """
    with open(name, "rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at, data, per_second = 12, None, 0
            while at + 8 <= len(content):
                label, size = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
                is_label = label != b"RIFF" and label.isascii() and label.decode().isprintable()
                if not is_label or (data is not None and at + 8 + size > len(content)):
                    break
                if label == b"fmt ":
                    per_second = int.from_bytes(content[at + 16 : at + 20], "little")
                data = size if label == b"data" else data
                at += 8 + size + size % 2
            starts = range(at, len(content), MOST_BYTES)
            n_rest = len(content) - at if any(content[i : i + MOST_BYTES].strip(b"\0") for i in starts) else 0
            is_tag = content[at : at + 8].startswith((b"ID3", b"TAG", b"APETAGEX"))
    if data == 0 and not n_rest:
        raise _empty(name)
    if data and not is_tag and n_rest > LOST * per_second > 0:
        problem = f"{n_rest} bytes follow the {data / per_second:.2f} s that its header counts"
        remedy = "if they are its sound: ffmpeg -ignore_length 1 -i IN OUT.wav; else split the file"
        raise AudioError(name, problem, remedy)


def is_one_stream(name: str) -> bool:
    """Whether an ogg or flac file is a single stream with all its pages, and nothing that was joined to it."""
    with open(name, "rb") as file:
        if links := ogg_links(file):
            return len(links) == 1 and links[0].is_unbroken
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            first = content.find(FLAC)
            return content.find(FLAC, first + 1) < 0


@dataclass(frozen=True, slots=True)
class OggLink:
    """One of the streams that follow one another in an ogg file: its bytes [begin, end); whether no page is missing."""

    begin: int
    end: int
    is_unbroken: bool


def ogg_links(file: BinaryIO) -> list[OggLink]:
    """The streams of an ogg file, told by their pages' headers; [] where it is none."""
    file.seek(0)
    magic = file.read(4)
    file.seek(0)
    if magic != b"OggS":
        return []
    links: list[OggLink] = []
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        begin = at = 0
        is_beginning, is_unbroken = True, True
        expected: dict[int, int] = {}
        while at + 27 <= len(content):
            if content[at : at + 4] != b"OggS":
                is_unbroken = False
                at = content.find(b"OggS", at)
                if at < 0:
                    break
                continue
            is_first = bool(content[at + 5] & 2)
            if is_first and not is_beginning:
                links.append(OggLink(begin, at, is_unbroken))
                begin, is_unbroken, expected = at, True, {}
            is_beginning = is_first
            serial, number = struct.unpack_from("<II", content, at + 14)
            is_unbroken &= expected.get(serial, 0) == number
            expected[serial] = number + 1
            n_segments = content[at + 26]
            at += 27 + n_segments + sum(content[at + 27 : at + 27 + n_segments])
        if at > len(content) and not is_beginning:
            remedy = f"{FETCH_AGAIN}; or keep what is there: {REMUX}"
            raise AudioError(file.name, "its last page is cut off", remedy)
        links.append(OggLink(begin, len(content), is_unbroken and at == len(content)))
    return links


def _frames(name: str, file: BinaryIO, mono: Mono) -> Iterator[Piece]:
    """The decoded frames, one by one, and the silence between them."""
    import av

    lost = reached = 0.0
    n_packets = 0
    clock = _Clock(name)
    try:
        with _opened(file) as container:
            track = _sound_track(name, container)
            mono.format = container.format.name
            clock.zero = _beginning(container)
            ticks = [float(stream.time_base or 0) for stream in container.streams]
            for packet in _packets(container):
                tick = ticks[packet.stream_index]
                length = (packet.duration or 0) * tick
                if packet.pts is not None:
                    reached = max(reached, packet.pts * tick + length)
                if packet.stream_index != track.index:
                    continue
                n_packets += packet.size > 0
                try:
                    frames = packet.decode()
                except av.error.InvalidDataError as error:
                    lost += length
                    if lost > LOST:
                        raise _unreadable(name, error, clock.now) from None
                    continue
                for frame in frames:
                    at = None if frame.pts is None else frame.pts * tick
                    missing = clock.missing(at)
                    if clock.now == 0.0:
                        clock.silent_first = missing
                    yield from _silence(missing, frame.sample_rate)
                    samples = mono.of(_by_channel(name, frame))
                    clock.now += missing + len(samples) / frame.sample_rate
                    yield frame.sample_rate, samples
            _require_whole(name, container, track, clock, reached)
            if mono.format == "mp3":
                length = track.codec_context.frame_size / track.rate  # of a frame: the last may be torn
                n_claimed = _frames_of_mp3(file)
                require_whole(name, n_claimed * length, n_packets * length, max(GAP, 1.5 * length))
    except av.error.FFmpegError as error:
        raise _unreadable(name, error, clock.now) from None


@dataclass(frozen=True, slots=True)
class _Seekable:
    """A file for FFmpeg, which a damaged header may send before its beginning: that is an error of FFmpeg's then."""

    file: BinaryIO

    def read(self, n: int) -> bytes:
        return self.file.read(n)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):
            return -errno.EINVAL

    def tell(self) -> int:
        return self.file.tell()

    @property
    def name(self) -> str:
        return str(getattr(self.file, "name", ""))


def _opened(file: BinaryIO) -> Any:
    """The file as FFmpeg reads it: itself and nothing that it names, whatever it is called."""
    import av

    options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "none"}
    return av.open(_Seekable(file), metadata_errors="ignore", options=options)


def _packets(container: Any) -> Iterator[Any]:
    """Every packet. PyAV ends with an IndexError where a track appeared midway: it does not know it when it flushes."""
    packets = container.demux()
    while True:
        try:
            packet = next(packets)
        except (StopIteration, IndexError):
            return
        yield packet


def _sound_track(name: str, container: Any) -> Any:
    track = next(iter(container.streams.audio), None)
    if track is None:
        raise AudioError(name, "has no sound track", "leave the clip out")
    return track


def _beginning(container: Any) -> Seconds:
    """The time at which the first track of sound or picture begins; a cover is no picture of that kind."""
    from av.stream import Disposition

    starts = [
        float(track.start_time * track.time_base)
        for track in (*container.streams.audio, *container.streams.video)
        if track.start_time is not None and not track.disposition & Disposition.attached_pic
    ]
    return min(starts, default=0.0)


def _by_channel(name: str, frame: Any) -> Samples:
    """A frame's samples as (n_frames, n_channels), in [-1, 1] where the file's are."""
    scale = FULL_SCALE.get(frame.format.name.removesuffix("p"))
    if scale is None:
        problem = f"its samples are {frame.format.name}, which is not read here"
        raise AudioError(name, problem, "convert it with: ffmpeg -i IN -ac 1 -ar 16000 OUT.wav")
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if scale == FULL_SCALE["u8"]:
        values = values - 128.0
    return np.asarray(values / scale, np.float32)


def _silence(seconds: Seconds, rate: int) -> Iterator[Piece]:
    n_left = round(seconds * rate)
    while n_left > 0:
        yield rate, np.zeros(min(n_left, BLOCK_FRAMES), np.float32)
        n_left -= BLOCK_FRAMES


def _empty(name: str) -> AudioError:
    remedy = "record or export it again, or leave the clip out"
    return AudioError(name, "the file holds no samples, or its header is cut off", remedy)


def _unreadable(name: str, error: Exception, heard: Seconds) -> AudioError:
    reason = str(getattr(error, "strerror", error))
    if _is_encrypted(name):
        remedy = "get a copy without protection; where you may play it, a recording of that can be read"
        return AudioError(name, f"its sound is encrypted (DRM) ({reason})", remedy)
    if heard > 0:
        return AudioError(name, f"decoding fails after {heard:.2f} s ({reason})", FETCH_AGAIN)
    problem = f"not audio or video that can be read, or its header is cut off ({reason})"
    return AudioError(name, problem, FETCH_AGAIN)


def _is_encrypted(name: str) -> bool:
    """Whether an MP4 file's samples are under a key (Common Encryption, FairPlay, Audible), or a WMA's."""
    with open(name, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return ENCRYPTED.search(content) is not None


def _require_whole(name: str, container: Any, track: Any, clock: _Clock, reached: Seconds) -> None:
    """AudioError where the file ends long before its header says; not every format has a header that knows."""
    if container.format.name in TRACK_IS_COUNTED and track.duration is not None:
        require_whole(name, float(track.duration * track.time_base), clock.now - clock.silent_first, SLACK)
    elif container.format.name in WHOLE_IS_COUNTED and container.duration is not None:
        require_whole(name, container.duration / 1_000_000, reached, SLACK)
    elif container.format.name == "caf":
        require_whole(name, clock.now * _share_claimed_by_caf(name), clock.now, SLACK)


def _frames_of_mp3(file: BinaryIO) -> int:
    """The number of frames that an mp3's first frame claims (Xing's header); 0 where it claims none."""
    file.seek(0)
    head = file.read(10)
    is_tagged = head[:3] == b"ID3" and len(head) == 10
    size = sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False))
    file.seek(10 + size if is_tagged else 0)
    first = file.read(2048)
    at = max(first.find(b"Xing"), first.find(b"Info"))
    is_counted = at >= 0 and len(first) >= at + 12 and first[at + 7] & 1
    return int.from_bytes(first[at + 8 : at + 12], "big") if is_counted else 0


def _share_claimed_by_caf(name: str) -> float:
    """The size of a caf file's data, as a multiple of what is there; 1 where it is left open."""
    with open(name, "rb") as file:
        n_bytes = file.seek(0, 2)
        at = 8
        while at + 12 <= n_bytes:
            file.seek(at)
            label, size = struct.unpack(">4sq", file.read(12))
            at += 12
            if label == b"data":
                return max(1.0, size / max(1, n_bytes - at))
            at += max(0, size)
    return 1.0

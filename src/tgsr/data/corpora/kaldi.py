"""Kaldi's data folders: wav.scp and text, and where they are there utt2spk, segments, the words' times as ctm, ..."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tgsr import audio
from tgsr.data.alignments import lines as alignment_lines
from tgsr.data.alignments.alignment import kept
from tgsr.data.alignments.timed import Timed, completed
from tgsr.data.corpora.folders import NOTHING, Given, clips, described, sound, stretch, written
from tgsr.data.transcribe.repair import WORDS_MISSING, mended
from tgsr.disk.rows import Entry, OnDisk, grouped, lines, made
from tgsr.errors import AlignmentError, AudioError, Bad, CorpusError, RecordError
from tgsr.records import Clip
from tgsr.timeline import Hole, Seconds, Word

SPLIT = re.compile(r"train|dev|valid|test|eval")
BLANKS = " \t"  # what parts a line's fields; others, as Unicode has them, belong to the text
OVERSHOOT: Seconds = 0.5  # that a segment may last past its recording's end, where it is cut, as Kaldi does
LABELS = {"spk2gender": "sex", "spk2age": "age", "utt2lang": "language"}  # what files beside wav.scp say
LEFT_OUT = "alignment-left-out"
ARCHIVE = re.compile(r".+\.ark:\d+(\[.*\])?")
REMEDY = "write its sound to a file (run the command into X.wav), and name that in wav.scp"

# Commands that give a file's sound as it is: of each program the flags alone, and those with a value and what it may
# be. Sound is heard at 16 kHz, as the mean of its channels: what makes it so changes nothing.
RATE = "(?:1[6-9]|[2-9]\\d|\\d{3})(?:\\d{3}|k)"
COPIES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "cat": ("", {}),
    "flac": ("-c|-d|-s|--decode|--stdout|--silent|-[cds]{2,3}", {}),
    "sox": (
        f"-V[0-3]?|-G|-c1|-b(16|24)|-r{RATE}",
        {
            **{"-t": "wav|wavpcm|sph|flac|nist|mp3", "-r": RATE, "-b": "16|24"},
            **{"-e": "signed(-integer)?", "-c": "1"},
        },
    ),
    "sph2pipe": ("-p", {"-f": "wav|rif|riff"}),
    "ffmpeg": (
        "-nostdin|-hide_banner|-y|-vn",  # the first sound track is what is heard of a film
        {
            **{"-v": ".*", "-loglevel": ".*", "-ab": ".*", "-i": ".+", "-f": "wav", "-ar": RATE, "-ac": "1"},
            **{"-threads": "\\d+", "-map": "0:a:0"},
            **dict.fromkeys(("-acodec", "-c:a", "-codec:a"), "pcm_s16le|pcm_s24le"),
        },
    ),
    "opusdec": ("--force-wav|--quiet", {"--rate": RATE}),
}
STREAMS = ("-", "pipe:1", "pipe:", "2>/dev/null")
ONE_CHANNEL = {"sph2pipe": "-c", "sox": "remix"}  # what keeps one, by its number from 1
CTM_CHANNELS = ("1A", "2B")  # what ctms call the first and the second


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a recording in seconds, on one of its channels or on all; `end` None is the recording's end."""

    recording: str
    start: Seconds = 0.0
    end: Seconds | None = None
    channel: int | None = None


def read(folder: Path, given: Given = NOTHING) -> Iterator[Clip | Bad]:
    """Every utterance of a data folder, in the order of its segments, or of wav.scp where there are none.

    `folder` may also be its wav.scp. Where there is none in it, all the folders nearest below it that have one are
    read. A path in wav.scp starts at the folder or at one of those above it, the nearest that has the file, or where
    the program runs. A command that only writes out a file's sound, or one channel of it ("flac -c -d -s X |",
    "sph2pipe -f wav -c 1 X |"), is that; other commands, and archives, are Bad. A segment, and one channel of several,
    gets a file of its own in audio/ in `given.relative_to`; a segment's end may be -1, the recording's end, and is cut
    there where it lasts no more than 0.5 s past it. The split is what the folder's name says; the sex and age of
    speakers are labels. Words are those of the file ctm, or of the only X.ctm: by utterance, or by recording, or by
    file and channel as reco2file_and_channel names them; of several channels those of a segment's own. Words of the
    text that it lacks are holes.

    Flags: "no-text", "empty-text", "alignment-left-out", and those of `repair.py`. Bad: a second row of the same
    name, a row whose file is missing, a text without audio, a recording without a segment, words of
    neither. Raises CorpusError where there is no wav.scp.
    """
    folder = folder.parent if folder.name == "wav.scp" else folder
    folders = [folder] if (folder / "wav.scp").is_file() else _below(folder)
    if not folders:
        names = ", ".join(sorted(path.name for path in folder.glob("*"))[:5])
        raise CorpusError(folder, "a Kaldi data folder with wav.scp", names or "nothing")
    ids = OnDisk()
    for data in folders:
        split = (SPLIT.findall(data.resolve().name) or [given.split])[0]
        yield from _folder(data, replace(given, split=split), ids)


def is_kaldi(path: Path) -> bool:
    """Whether there is a wav.scp in the folder or at most two below it, or whether the file is one."""
    return path.name == "wav.scp" or (path / "wav.scp").is_file() or bool(_below(path))


def _below(folder: Path) -> list[Path]:
    """The folders with a wav.scp, all at the least depth at which there is one, to the second."""
    depths = (sorted(path.parent for path in folder.glob("*/" * n + "wav.scp")) for n in (1, 2))
    return next(filter(None, depths), [])


def _folder(folder: Path, given: Given, ids: OnDisk) -> Iterator[Clip | Bad]:
    tables: dict[str, OnDisk] = {}
    for name in ("wav.scp", "text", "utt2spk", *LABELS):
        tables[name] = OnDisk()
        yield from _put(folder / name, tables[name])
    aligned = tables["ctm"] = OnDisk()
    yield from _put_ctm(folder, aligned)
    segments = folder / "segments"
    rows = segments if segments.is_file() else folder / "wav.scp"
    there, used = OnDisk(), OnDisk()

    def make(entry: Entry) -> Clip:
        utterance, rest = _parted(entry)
        segment = _segment(rest) if rows is segments else Segment(utterance)
        used.put(segment.recording)
        if first := there.put_new(utterance, entry.where) or next(iter(ids.get(utterance)), None):
            # before its sound is written over
            raise RecordError(None, f"{utterance!r} was already at {first}")
        return _clip(entry, utterance, segment, folder, tables, given)

    yield from clips(lines(rows), make, ids)
    if rows is segments:
        unused = "no row of segments is of this recording"
        yield from _without(tables["wav.scp"], used, folder / "wav.scp", unused)
    yield from _without(tables["text"], there, folder / "text", f"{rows.name} has no such utterance")
    strange = [name for name in aligned.keys_as_put() if not there.get(name) and not used.get(name)]
    if strange:
        problem = "no utterance and no recording; reco2file_and_channel says which a file and channel are"
        yield Bad(str(folder / "ctm"), f"words of {len(strange)} names, the first {strange[0]!r}: {problem}")


def _clip(
    entry: Entry, utterance: str, segment: Segment, folder: Path, tables: Mapping[str, OnDisk], given: Given
) -> Clip:
    """The utterance's clip. Raises ValueError where its sound cannot be had."""
    sources = tables["wav.scp"].get(segment.recording)
    if not sources:
        raise RecordError("wav.scp", f"has no recording {segment.recording!r}")
    file, channel = source_of(sources[0])
    path = _found(folder, file)
    duration, flags = sound(path)
    start, end = segment.start, duration if segment.end is None else segment.end
    if start >= duration or end > duration + OVERSHOOT:
        problem = f"[{start:g}, {end:g}) s is not in the recording, which lasts {duration:g} s"
        raise RecordError("segments", problem)
    end = min(end, duration)
    channel = segment.channel if channel is None else channel
    if channel == 0 and audio.n_channels(path) == 1:
        channel = None
    if (start, end, channel) != (0.0, duration, None):
        samples = stretch(path, start, end, channel)
        path, duration = written(samples, utterance, given), len(samples) / audio.SAMPLE_RATE
    texts = tables["text"].get(utterance)
    speaker = next(iter(tables["utt2spk"].get(utterance)), "")
    values = {"speaker": speaker} | ({"text": texts[0]} if texts else {})
    for file, label in LABELS.items():
        for value in tables[file].get(speaker if file.startswith("spk") else utterance):
            values[label] = value
    if values.get("language", "").casefold().startswith("en"):  # eng, English, en-GB
        values["language"] = "en"
    clip = described(Entry(entry.file, entry.line, values), utterance, path, duration, flags, given)
    words, holes, more = _words(utterance, segment, clip, tables["ctm"])
    more = (*(() if texts else ("no-text",)), *more)
    return replace(clip, words=words, holes=holes, flags=tuple(dict.fromkeys((*clip.flags, *more))))


# Files


def _parted(entry: Entry) -> tuple[str, str]:
    """A line's name, and what follows it."""
    name, *rest = re.split(f"[{BLANKS}]+", entry.text("line"), maxsplit=1)
    return name, rest[0] if rest else ""


def _put(path: Path, table: OnDisk) -> Iterator[Bad]:
    """Puts what follows each name of a file; Bad for a line of a name that was there before."""
    if not path.is_file():
        return
    where = OnDisk()

    def put(entry: Entry) -> None:
        name, rest = _parted(entry)
        if first := where.put_new(name, entry.where):
            raise RecordError(None, f"{name!r} was already at {first}")
        table.put(name, rest)

    yield from filter(None, made(lines(path), put))


def _without(names: OnDisk, others: OnDisk, path: Path, problem: str) -> Iterator[Bad]:
    for name in names.keys_as_put():
        if not others.get(name):
            yield Bad(str(path), f"{name}: {problem}")


def _segment(rest: str) -> Segment:
    """The segment of a line, less its name. RecordError where it is none."""
    recording, *numbers = rest.split()
    row = Entry(Path(), None, dict(zip(("start", "end", "channel"), numbers, strict=False)))
    if len(numbers) not in (2, 3):
        raise RecordError(None, f"must be UTTERANCE RECORDING START END, got {len(numbers) + 2} values")
    start, end = row.number("start"), row.number("end")
    if start < 0 or (end != -1 and end <= start):
        raise RecordError("end", f"{end:g} s is not after the start, {start:g} s")
    channel = row.number("channel") if len(numbers) == 3 else -1
    if channel != int(channel) or channel < -1:
        raise RecordError("channel", f"must be a number of one, from 0, or -1 for all, got {numbers[2]!r}")
    return Segment(recording, start, None if end == -1 else end, None if channel == -1 else int(channel))


def source_of(source: str) -> tuple[str, int | None]:
    """The file whose sound a row of wav.scp gives, and which channel of it, from 0; None for all.

    RecordError where it is an archive, or a command that does more.
    """
    if not source:
        raise RecordError("wav.scp", "names no file")
    if ARCHIVE.fullmatch(source):
        raise RecordError("wav.scp", f"{source!r:.200} is a place in an archive; {REMEDY}")
    if not source.endswith("|"):
        return source, None
    channel = None
    try:
        program, *arguments = shlex.split(source[:-1])
        name = os.path.basename(program)
        alone, valued = COPIES[name]
        if (flag := ONE_CHANNEL.get(name, "")) in arguments[:-1]:
            at = arguments.index(flag)
            channel = "12345678".index(arguments[at + 1])
            del arguments[at : at + 2]
        files = list(_files_in(arguments, alone, valued))
    except (ValueError, KeyError):
        files = []
    if len(files) != 1:
        raise RecordError("wav.scp", f"{source!r:.200} is a command; {REMEDY}")
    return files[0], channel


def _files_in(arguments: Sequence[str], alone: str, valued: Mapping[str, str]) -> Iterator[str]:
    """The files among a command's arguments. ValueError for a flag that may change the sound."""
    left = iter(arguments)
    for argument in left:
        if argument in valued:
            value = next(left, "")
            if re.fullmatch(valued[argument], value) is None:
                raise ValueError(argument)
            if argument == "-i":
                yield value
        elif argument in STREAMS:
            continue
        elif argument.startswith("-") and re.fullmatch(alone, argument) is None:
            raise ValueError(argument)
        elif not argument.startswith("-"):
            yield argument


def _found(folder: Path, name: str) -> Path:
    """The file of that name in the folder, in one of those above it, or where the program runs."""
    places = [folder, *folder.resolve().parents, Path.cwd()]
    found = next((place / name for place in places if (place / name).is_file()), None)
    if found is None:
        problem = "no such file, nor from a folder above"
        raise AudioError(str(folder / name), problem, "correct the path in wav.scp")
    return found


# Words


def _put_ctm(folder: Path, aligned: OnDisk) -> Iterator[Bad]:
    """Puts the rows of the folder's ctm, as JSON, under the recordings and utterances that they are of."""
    named_so = sorted(folder.glob("*.ctm"))
    path = named_so[0] if len(named_so) == 1 else folder / "ctm"
    if not path.is_file():
        return
    recordings = OnDisk()
    yield from _put(folder / "reco2file_and_channel", files := OnDisk())
    for recording in files.keys_as_put():
        recordings.put(" ".join(files.get(recording)[0].split()), recording)

    def named(entry: Entry) -> Entry:
        name, rest = _parted(entry)
        return replace(entry, values={"name": name, "line": f"{name} {rest}"})

    for rows in grouped(made(lines(path), named), "name"):
        if isinstance(rows, Bad):
            yield rows
            continue
        name = rows[0].text("name")
        if name.startswith(";;"):
            continue
        by_channel: dict[str, list[str]] = {}
        for row in rows:
            by_channel.setdefault([*row.text("line").split(), ""][1], []).append(row.text("line"))
        for channel, of_it in by_channel.items():
            recording = next(iter(recordings.get(f"{name} {channel}")), name)
            try:
                words = list(alignment_lines.ctm("\n".join(of_it)))
            except AlignmentError as error:
                yield rows[0].bad(RecordError("ctm", f"{name} {channel}: {error.problem}"))
                aligned.put(recording, "null")
            else:
                aligned.put(recording, json.dumps([channel, words]))


def _words(
    utterance: str, segment: Segment, clip: Clip, aligned: OnDisk
) -> tuple[tuple[Word, ...], tuple[Hole, ...], tuple[str, ...]]:
    """The clip's words, on its clock, their holes and flags; those of its recording that lie in its segment."""
    start = 0.0
    found = aligned.get(utterance)
    if not found and segment.recording != utterance:
        found, start = aligned.get(segment.recording), segment.start
    if not found:
        return (), (), ()
    if "null" in found:
        return (), (), (LEFT_OUT,)
    by_channel = [json.loads(one) for one in found]
    if segment.channel in (0, 1):
        its_own = [one for one in by_channel if one[0] in CTM_CHANNELS[segment.channel]]
        by_channel = its_own if len(by_channel) > 1 else by_channel
    rows = [Timed(*row) for _, of_it in by_channel for row in of_it]
    inside = [row for row in rows if start <= _middle(row) < start + clip.duration]
    moved = [
        row._replace(start=round(row.start - start, 6), end=round(row.end - start, 6), speaker=clip.speaker)
        for row in inside
        if row.start is not None and row.end is not None
    ]
    words, holes = kept(completed(moved, clip.text)).alignment.on(clip.duration)
    words, flags, more = mended(words, clip.duration)
    holes = tuple(dict.fromkeys((*holes, *more)))
    return words, holes, (*flags, *((WORDS_MISSING,) if holes else ()))


def _middle(row: Timed) -> Seconds:
    return math.inf if row.start is None or row.end is None else (row.start + row.end) / 2

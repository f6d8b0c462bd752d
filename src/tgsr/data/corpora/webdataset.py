"""WebDataset shards: tar files in which the members that share a key are one sample, read as a stream."""

from __future__ import annotations

import filecmp
import json
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from tgsr.audio import FETCH_AGAIN, HEADER_SLACK
from tgsr.data.alignments.manifests import within
from tgsr.data.corpora.folders import NOTHING, Given, described, place, require_new, sound, stem, walk
from tgsr.disk.rows import ID, TEXT, Entry, OnDisk, utf8
from tgsr.disk.sound_folder import FORMATS
from tgsr.disk.whole import half_name
from tgsr.errors import AudioError, Bad, CorpusError, RecordError
from tgsr.records import Clip, clip_of

SUFFIXES = (".tar", ".tar.gz", ".tgz")
TEXTS = (".json", ".txt", ".cls")
MOST_TEXT = 64 << 20  # bytes of a member that is held in memory
BLOCK = 1 << 20
KEY = "__key__"  # what WebDataset calls it
# What reading a damaged tar raises; the last ones for headers that make no sense.
DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, LookupError, OverflowError)


def read(path: Path, out: Path, given: Given = NOTHING) -> Iterator[Clip | Bad]:
    """Every sample of a tar file, or of all of them below a folder in order of path; sound goes to out/audio/ as it is.

    A sample is what lies together and shares a key, the member's path up to the first dot of its last part: one sound
    file (see FORMATS in folders.py), and optionally .json, .txt (the text) and .cls (the label "cls"); other members
    are passed over. A .json with "id", "duration" and "words" is a clip as `tgsr.records` has it; of another's values,
    text, speaker, language, licence, id and split are found as in tables, and the rest become labels. The id is the
    key where nothing gives one; the file is named after the key, %-quoted.

    Bad, and nothing is written for it: a sample with no or two sound files, one with a name that leads out of the
    folder, a link or a device, or with a key or id that was there before. So is a tar that is cut off, and the sample
    that it is cut off in. `line` of a Bad is the sample's number in its tar.

    Raises CorpusError where there is no tar.
    """
    shards = _shards(path)
    folder = out / "audio"
    folder.mkdir(parents=True, exist_ok=True)
    names, ids = OnDisk(), OnDisk()
    with tempfile.TemporaryDirectory(dir=folder, prefix=half_name()) as parts:
        for shard in shards:
            for sample in _samples(shard, Path(parts)):
                if isinstance(sample, Bad):
                    yield sample
                    continue
                entry = Entry(shard, sample.number, {KEY: sample.key})
                try:
                    values = sample.values()
                    entry = Entry(shard, sample.number, {KEY: sample.key, **values})
                    clip, sound_path = _clip(sample, entry, folder, given)
                    if before := names.get(sound_path.stem):
                        raise RecordError(None, f"the key {sample.key!r} was already at {before[0]}")
                    require_new(ids, clip.id, entry)
                    _keep(sample.sounds[0], sound_path)
                    names.put(sound_path.stem, entry.where)
                except ValueError as error:
                    yield entry.bad(error)
                else:
                    yield clip
                finally:
                    for part in sample.sounds:
                        part.unlink(missing_ok=True)


def is_tar(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def _shards(path: Path) -> list[Path]:
    expected = f"{', '.join(SUFFIXES)}, or a folder of them"
    if path.is_file():
        if not is_tar(path):
            raise CorpusError(path, expected, f"a file {path.suffix}")
        return [path]
    if not path.is_dir():
        raise CorpusError(path, expected, "nothing")
    shards = sorted(filter(is_tar, walk(path, (".tar", ".gz", ".tgz"))))
    if not shards:
        raise CorpusError(path, expected, "none")
    return shards


# Samples


@dataclass(slots=True)
class Sample:
    """Members that share a key: sound in files of its own, texts by suffix; `problem` is why it cannot be used."""

    key: str
    number: int
    sounds: list[Path] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of the sounds, in the tar
    texts: dict[str, bytes] = field(default_factory=dict)
    problem: str | None = None

    def values(self) -> dict[str, object]:
        """What the sample says besides its sound. Raises RecordError where that cannot be read or was refused."""
        if self.problem is not None:
            raise RecordError(None, self.problem)
        if len(self.sounds) != 1:
            several = f"has {len(self.sounds)} sound files ({', '.join(self.names)})"
            sounds = several if self.names else "has no sound file"
            raise RecordError("audio", f"{sounds}; a sample has one, of {', '.join(FORMATS)}")
        values = _object(self.texts[".json"]) if ".json" in self.texts else {}
        text = utf8(self.texts.get(".txt", b""), ".txt")
        if (text or (".txt" in self.texts and not _is_clip(values))) and not any(map(values.get, TEXT)):
            values["text"] = text
        label = utf8(self.texts.get(".cls", b""), ".cls")
        if label and not _is_clip(values):
            values.setdefault("cls", label)
        return values


def _samples(path: Path, parts: Path) -> Iterator[Sample | Bad]:
    """The samples of one tar; the last one is Bad where the tar is cut off, as more may have belonged to it."""
    sample: Sample | None = None
    number = 0
    try:
        for tar, member in _members(path):
            name = PurePosixPath(member.name)
            if _is_passed_over(member, name):
                continue
            key = str(name.parent / (name.name.partition(".")[0] or name.name))
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                number += 1
                sample = Sample(key, number)
            _add(sample, tar, member, name, parts)
    except Damaged as error:
        after = f" in the sample {sample.key!r}" if sample is not None else ""
        yield Bad(str(path), f"cannot be read further{after} ({error}); {FETCH_AGAIN}", max(number, 1))
        return
    if sample is not None:
        yield sample


def _is_passed_over(member: tarfile.TarInfo, name: PurePosixPath) -> bool:
    """Folders, and plain files that are of no sample's use: hidden ones, as macOS adds, and other suffixes."""
    is_of_no_use = name.name.startswith(".") or name.suffix.lower() not in (*FORMATS, *TEXTS)
    return member.isdir() or (member.isreg() and is_of_no_use)


def _add(
    sample: Sample, tar: tarfile.TarFile, member: tarfile.TarInfo, name: PurePosixPath, parts: Path
) -> None:
    """Takes the member into the sample, or notes why it cannot be taken. Raises Damaged."""
    suffix = name.suffix.lower()
    problem = _problem(member, name)
    if problem is None and suffix in sample.texts:
        problem = f"has two {suffix} files"
    if problem is not None:
        sample.problem = sample.problem or problem
    if sample.problem is not None:
        return
    if suffix in TEXTS:
        sample.texts[suffix] = b"".join(_blocks(tar, member))
        return
    part = parts / f"{len(sample.sounds)}{suffix}"
    sample.sounds.append(part)
    sample.names.append(name.name)
    if len(sample.sounds) > 1:
        return
    with part.open("wb") as file:
        file.writelines(_blocks(tar, member))


def _problem(member: tarfile.TarInfo, name: PurePosixPath) -> str | None:
    try:
        member.name.encode()
    except UnicodeEncodeError:
        return f"the name {member.name!r:.200} is not UTF-8"
    if name.is_absolute() or ".." in name.parts:
        return f"the name {member.name!r:.200} leads out of the folder"
    if not member.isreg():
        what = "a link" if member.issym() or member.islnk() else "a device, or nothing that is known"
        return f"{member.name!r:.200} is {what}, not a file"
    if name.suffix.lower() in TEXTS and member.size > MOST_TEXT:
        return f"{member.name!r:.200} has {member.size} bytes, more than {MOST_TEXT}"
    return None


def _object(content: bytes) -> dict[str, object]:
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise RecordError(".json", f"is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise RecordError(".json", f"must be a JSON object, got {values!r:.80}")
    return values


# Clips


def _is_clip(values: Mapping[str, object]) -> bool:
    return None not in (values.get("id"), values.get("duration")) and isinstance(values.get("words"), list)


def _clip(sample: Sample, entry: Entry, folder: Path, given: Given) -> tuple[Clip, Path]:
    """The sample's clip, and where its sound is to be put. Raises ValueError where there is none."""
    (part,) = sample.sounds
    name = stem(sample.key, "the key ", None, " %")
    try:
        duration, flags = sound(part)
    except AudioError as error:
        raise AudioError(sample.names[0], error.found, error.remedy) from None
    path = folder / f"{name}{part.suffix}"
    if _is_clip(entry.values):
        clip = clip_of(within({**entry.values, "audio": place(path, given.relative_to)}))
        if abs(clip.duration - duration) > HEADER_SLACK:
            raise RecordError("duration", f"is {clip.duration} s, but the sound lasts {duration} s")
        clip = replace(clip, flags=tuple(dict.fromkeys((*clip.flags, *flags))))
    else:
        values = {name: value for name, value in entry.values.items() if not name.startswith("__")}
        row = Entry(entry.file, entry.line, values)
        clip = described(row, row.first(ID) or sample.key, path, duration, flags, given)
    try:
        clip.id.encode()
    except UnicodeEncodeError:
        raise RecordError("id", f"{clip.id!r} cannot be written as UTF-8") from None
    return clip, path


def _keep(part: Path, path: Path) -> None:
    """Gives the part its name, unless a file of the same bytes has it."""
    if path.is_file() and not path.is_symlink() and filecmp.cmp(part, path, shallow=False):
        return
    os.replace(part, path)


# Tar files as streams


class Damaged(ValueError):
    """The tar cannot be read any further."""


class _Info(tarfile.TarInfo):
    """A member. tarfile takes a broken header, and a missing one, for the end of the tar; here they are errors."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Info:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}; it does not end as a tar does") from None


def _members(path: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The members one by one, each to be read before the next. Raises Damaged."""
    how: dict[str, Any] = {"tarinfo": _Info, "encoding": "utf-8", "errors": "surrogateescape"}
    with _reading():
        tar = tarfile.open(path, "r|*", **how)  # noqa: SIM115 - closed below; opening it reads, too
    with tar:
        while True:
            with _reading():
                member = tar.next()
            if member is None:
                return
            yield tar, member
            tar.members = []  # type: ignore[attr-defined]  # or they would all be kept


def _blocks(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    """The member's content, piece by piece. Raises Damaged."""
    with _reading():
        content = tar.extractfile(member)
    left = member.size if content is not None else 0
    while content is not None and left > 0:
        with _reading():
            block = content.read(min(BLOCK, left))
            if not block:
                raise tarfile.ReadError("unexpected end of data")
        left -= len(block)
        yield block


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise Damaged(str(error)) from error

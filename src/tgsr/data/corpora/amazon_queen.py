"""Flight of the Amazon Queen, talkie version: the game's one file as a corpus of acted English speech.

The layout, in big-endian numbers: queen.1c begins with QTBL, a version (CEM10: C for the talkie, E for English), and a
table of its files. X.DOG holds a dialogue with one character: Joe's lines and the character's, each under a number; a
line's marks (*, and two letters or digits) part it into what one sound file says.
"""

from __future__ import annotations

import io
import lzma
import math
import re
import struct
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tgsr import audio
from tgsr.data.corpora.folders import NOTHING, Given, described, require_new, written
from tgsr.disk.rows import Entry, OnDisk
from tgsr.disk.whole import half_name
from tgsr.errors import Bad, CorpusError, RecordError
from tgsr.records import Clip

SOURCE = "Flight of the Amazon Queen"
LICENCE = "freeware (Flight-of-the-Amazon-Queen-License)"
JOE = "JOE"
PACKAGE = r"flight-of-the-amazon-queen_.*\.deb"
BUNDLES = ("queen.1c", "queen.1")
ENTRY = struct.Struct(">12sBII")  # name, disk, offset, size
SOUND = ".SB"
DIALOGUE = ".DOG"
HEADER = 20  # bytes before the content of a dialogue
NODES = 96  # bytes of a level of a dialogue's tree
MARK = re.compile(r"\*(?:XY.{11}|..)", re.DOTALL)  # XY is followed by where somebody goes: XY00(237,112)
NOT_WORDS = re.compile(r"\^_?|<[^>]*>|\([a-z]+\)")
SPOKEN = re.compile(r"\d\d[0-9A-F]{4}[JP][0-9A-F]|\d\d(?:SSSS|XXXX)[JP][0-9A-F]|JOE\d{4}[0-9A-F]")


@dataclass(frozen=True, slots=True)
class Line:
    """What is said in one sound file: by whom, and in which dialogue."""

    text: str
    speaker: str
    dialogue: str


class Bundle:
    """The game's file: its parts by name, upper-cased."""

    def __init__(self, path: Path, content: bytes) -> None:
        """Raises CorpusError where the bytes are not a whole English talkie version with its table in front."""
        self.path, self._content = path, content
        expected = "queen.1c of the English talkie version"
        if content[:4] != b"QTBL":
            raise CorpusError(path, f"{expected}, which begins with QTBL", repr(content[:4]))
        version = content[4:9].decode("latin-1")
        if not version.startswith("CE"):
            raise CorpusError(path, f"{expected} (CEM10)", f"the version {version!r}")
        (n_entries,) = self._numbers(">H", 13, "the table's length")
        self.entries: dict[str, tuple[int, int]] = {}
        for at in range(15, 15 + n_entries * ENTRY.size, ENTRY.size):
            name, _, offset, size = self._numbers(ENTRY.format, at, "the table")
            self.entries[name.split(b"\0")[0].decode("latin-1").upper()] = (offset, size)

    def part(self, name: str) -> bytes:
        """A part's bytes. CorpusError where the file ends before they do."""
        offset, size = self.entries[name]
        self._require(offset + size, offset, name)
        return self._content[offset : offset + size]

    def names(self, suffix: str) -> list[str]:
        return sorted(name for name in self.entries if name.endswith(suffix))

    def _numbers(self, form: str, at: int, what: str) -> tuple[Any, ...]:
        self._require(at + struct.calcsize(form), at, what)
        return struct.unpack_from(form, self._content, at)

    def _require(self, end: int, at: int, what: str) -> None:
        if end > len(self._content):
            found = f"{what} at byte {at:,} to {end:,}, and the file ends at {len(self._content):,}: it is cut off"
            raise CorpusError(self.path, "a whole file", found)


def read(path: Path, given: Given = NOTHING) -> Iterator[Clip | Bad]:
    """A clip for every sound file of speech: of Debian's package, of a folder it was unpacked to, or of queen.1c.

    Text and speaker are the script's where a dialogue tells them. What Joe says of things he sees has no text here and
    his name. Other sound files are Bad: their speaker is not known (or they are no speech). The sound goes to audio/
    in `given.relative_to`, as FLAC.

    Raises CorpusError, with the byte, where the file is cut off or another one.
    """
    bundle = _bundle(path)
    lines = script(bundle)
    known = replace(given, source=SOURCE, licence=given.licence or LICENCE, language="en")
    ids = OnDisk()
    with tempfile.TemporaryDirectory(prefix=half_name()) as scratch:
        for name in bundle.names(SOUND):
            stem = name.removesuffix(SOUND)
            entry = Entry(Path(f"{bundle.path}/{name}"))
            try:
                line = lines.get(stem)
                if line is None and SPOKEN.fullmatch(stem) is None:
                    raise RecordError("speaker", "nothing tells who speaks here, or whether it is speech")
                require_new(ids, stem, entry)
                yield _clip(stem, line, bundle.part(name), Path(scratch), known)
            except ValueError as error:
                if isinstance(error, CorpusError):
                    raise
                yield entry.bad(error)


def _clip(stem: str, line: Line | None, content: bytes, scratch: Path, given: Given) -> Clip:
    part = scratch / "sound"
    part.write_bytes(content)
    samples = audio.load(part, max_seconds=math.inf)
    values = (
        {"speaker": JOE}
        if line is None
        else {"text": line.text, "speaker": line.speaker, "dialogue": line.dialogue}
    )
    clip = described(
        Entry(part, None, values),
        stem,
        written(samples, stem, given),
        len(samples) / audio.SAMPLE_RATE,
        (),
        given,
    )
    return clip if clip.text else replace(clip, flags=(*clip.flags, "no-text"))


def is_bundle(path: Path) -> bool:
    """Whether the file is called as the game's is, or Debian's package of it."""
    return path.name.lower() in BUNDLES or re.fullmatch(PACKAGE, path.name) is not None


# The script


def script(bundle: Bundle) -> Mapping[str, Line]:
    """What is said in each sound file, as far as the dialogues tell, by the name without its suffix."""
    lines: dict[str, Line] = {}
    for name in bundle.names(DIALOGUE):
        for key, speaker, text in _dialogue(bundle, name):
            for part, said in enumerate(MARK.split(text), 1):
                stem = f"{key}{part:x}".replace(" ", "0").upper()
                if f"{stem}{SOUND}" in bundle.entries and said.strip():
                    lines.setdefault(stem, Line(_plain(said), speaker, name.removesuffix(DIALOGUE)))
    return lines


def _plain(said: str) -> str:
    """The words, without signs that nobody says: sounds (<gulp>, (sigh)) and the game's trademark (^_)."""
    return " ".join(NOT_WORDS.sub(" ", said).split())


def _dialogue(bundle: Bundle, name: str) -> Iterator[tuple[str, str, str]]:
    """Of each line of a dialogue: how the names of its sound files begin, who says it, and its text with marks."""
    content = bundle.part(name)[HEADER:]
    reader = _Reader(bundle.path, name, content)
    levels, _, talk, n_joe, n_other = reader.numbers(">5h", 0)
    of_other, _, second = reader.numbers(">3H", 22)
    of_joe = 32 + abs(levels) * NODES
    other = name.removesuffix(DIALOGUE).rstrip("0123456789")
    (is_without,) = reader.numbers(">H", of_joe + 2)
    if not is_without:
        yield f"{talk:2d}SSSSJ", JOE, reader.string(of_joe + 4, 2)[0]
    text, at = reader.string(second, 2)
    yield f"{talk:2d}XXXXP", other, text
    yield f"{talk:2d}XXXXJ", JOE, reader.string(at, 2)[0]
    for letter, speaker, at, n in (("J", JOE, of_joe, n_joe), ("P", other, of_other, n_other)):
        for _ in range(n):
            (number,) = reader.numbers(">H", at + 2)
            text, at = reader.string(at + 4, 4)
            yield f"{talk:2d}{number:4x}{letter}", speaker, text


@dataclass(frozen=True, slots=True)
class _Reader:
    """Numbers and texts of a part, which must not reach past its end."""

    path: Path
    name: str
    content: bytes

    def numbers(self, form: str, at: int) -> tuple[int, ...]:
        self._require(at, at + struct.calcsize(form))
        return struct.unpack_from(form, self.content, at)

    def string(self, at: int, step: int) -> tuple[str, int]:
        """The text whose length stands at that byte, and where the next one begins, at a multiple of `step`."""
        self._require(at, at + 1)
        end = at + 1 + self.content[at]
        self._require(at, end)
        text = self.content[at + 1 : end].decode("latin-1")
        return text, -(-end // step) * step if text else end

    def _require(self, at: int, end: int) -> None:
        if end > len(self.content):
            found = f"{self.name} whose byte {at + HEADER:,} needs {end - at} bytes: it was altered"
            raise CorpusError(self.path, f"{self.name} as it was published", found)


# Where the bundle is


def _bundle(path: Path) -> Bundle:
    if path.is_dir():
        names = [*(f"**/{name}" for name in BUNDLES), "**/*.deb"]
        found = next((file for name in names for file in sorted(path.glob(name)) if file.is_file()), None)
        if found is None:
            raise CorpusError(path, "queen.1c, or Debian's package flight-of-the-amazon-queen", "neither")
        path = found
    if path.suffix == ".deb":
        return Bundle(path, _in_package(path))
    return Bundle(path, path.read_bytes())


def _in_package(path: Path) -> bytes:
    """queen.1c of a Debian package, which is an ar archive with a tar in it. CorpusError where that cannot be read."""
    content = path.read_bytes()
    expected = "Debian's package flight-of-the-amazon-queen"
    if not content.startswith(b"!<arch>\n"):
        raise CorpusError(path, expected, f"a file that begins with {content[:8]!r}")
    at = 8
    while at + 60 <= len(content):
        header = content[at : at + 60]
        try:
            size = int(header[48:58])
        except ValueError:
            raise CorpusError(path, expected, f"no header of a member at byte {at:,}") from None
        if at + 60 + size > len(content):
            raise CorpusError(path, expected, f"a member at byte {at:,} that the file ends in: it is cut off")
        if header.startswith(b"data.tar"):
            try:
                with tarfile.open(fileobj=io.BytesIO(content[at + 60 : at + 60 + size])) as tar:
                    for member in tar:
                        file = tar.extractfile(member) if Path(member.name).name in BUNDLES else None
                        if file is not None:
                            return file.read()
            except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
                raise CorpusError(path, expected, f"data.tar that cannot be read ({error})") from None
        at += 60 + size + size % 2
    raise CorpusError(path, expected, "no queen.1c in it")

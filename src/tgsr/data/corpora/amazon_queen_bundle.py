"""The one file of Flight of the Amazon Queen, talkie version: its parts by name, out of it or of Debian's package.

Numbers are big-endian. queen.1c (as ScummVM's tools write it): QTBL, a version (CEM10: C for talkie, E for English),
two bytes, how sound is compressed, and a table of the parts. queen.1 (as it was sold): the parts alone; their table is
in ScummVM's queen.tbl.
"""

from __future__ import annotations

import io
import lzma
import re
import struct
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgsr.errors import CorpusError

EXPECTED = "queen.1c of the English talkie version of Flight of the Amazon Queen"
NAMES = ("queen.1c", "queen.1")
PACKAGE = re.compile(r"flight-of-the-amazon-queen_.*\.deb")
# Ubuntu's have a form that Python cannot read.
UNPACK = "unpack it (dpkg-deb -x FILE FOLDER) and name the folder"
TABLE = "queen.tbl"
SOLD = 0x584E  # where the table of the English talkie version begins in queen.tbl
ENTRY = struct.Struct(">12sBII")  # name, disk, offset, size
MEMBER = 60  # bytes of a header in an ar archive
# What reading a damaged tar raises.
DAMAGE = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the bundle, or the bundle itself: numbers and texts by the byte, never from past its end."""

    where: str
    content: bytes

    def numbers(self, form: str, at: int) -> tuple[Any, ...]:
        """What struct's `form` reads there. CorpusError where the part ends before."""
        return struct.unpack(form, self.taken(at, struct.calcsize(form)))

    def text(self, at: int, step: int) -> tuple[str, int]:
        """The text whose length stands in one byte there, and where the next begins, at a multiple of `step` bytes."""
        (length,) = self.taken(at, 1)
        text = self.taken(at + 1, length).decode("latin-1")
        end = at + 1 + length
        return text, -(-end // step) * step if text else end

    def taken(self, at: int, n_bytes: int) -> bytes:
        """CorpusError, with the byte, where the part ends before."""
        if not 0 <= at <= at + n_bytes <= len(self.content):
            found = f"{n_bytes:,} bytes needed at byte {at:,} of {len(self.content):,}"
            raise CorpusError(self.where, "a whole file of the game", f"{found}: it was cut off or altered")
        return self.content[at : at + n_bytes]


class Bundle(Mapping[str, Part]):
    """The game's parts by their names, in capitals. `is_compressed`: its sound is MP3, Ogg or FLAC."""

    def __init__(self, path: Path, content: bytes, table: bytes | None = None) -> None:
        """`table` is ScummVM's queen.tbl, for a queen.1. CorpusError for another version, and for a broken table."""
        self.path, self._whole = path, Part(str(path), content)
        self.is_compressed = content[:4] == b"QTBL" and content[12:13] != b"\0"
        if content[:4] == b"QTBL":
            version = content[4:9].decode("latin-1")
            if not version.startswith("CE"):
                raise CorpusError(path, f"{EXPECTED} (CEM10)", f"the version {version!r}")
            listed, at = self._whole, 13
        elif path.name.lower() == NAMES[1]:
            if table is None:
                expected = f"ScummVM's {TABLE} beside it, which says where its parts are"
                raise CorpusError(path, expected, "none")
            listed, at = Part(str(path.with_name(TABLE)), table), SOLD
        else:
            found = f"a file of {len(content):,} bytes that begins with {content[:4]!r}"
            raise CorpusError(path, EXPECTED, found)
        (n_parts,) = listed.numbers(">H", at)
        rows = ENTRY.iter_unpack(listed.taken(at + 2, n_parts * ENTRY.size))
        named = ((name.split(b"\0")[0].decode("latin-1").upper(), place) for name, _, *place in rows)
        self._places: dict[str, tuple[int, int]] = {name: (offset, size) for name, (offset, size) in named}
        end = max((offset + size for offset, size in self._places.values()), default=0)
        if end != len(content):
            found = f"{len(content):,} bytes: it was cut off, or is of another version"
            raise CorpusError(path, f"{EXPECTED}, of {end:,} bytes", found)

    def __getitem__(self, name: str) -> Part:
        offset, size = self._places[name]
        return Part(f"{self.path}/{name}", self._whole.taken(offset, size))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def of_kind(self, suffix: str) -> list[str]:
        """The names with that suffix, in order."""
        return sorted(name for name in self if name.endswith(suffix))


def is_bundle(path: Path) -> bool:
    """Whether the file is called as the game's is, or Debian's package of it."""
    return path.name.lower() in NAMES or PACKAGE.fullmatch(path.name) is not None


def bundle(path: Path) -> Bundle:
    """The bundle that the file is or Debian's package holds, or the first one in or below the folder.

    Raises CorpusError where there is none, or not a whole one.
    """
    if path.is_dir():
        found = sorted(filter(is_bundle, path.rglob("*")), key=lambda file: (file.suffix == ".deb", file))
        if not found:
            expected = f"queen.1c, or Debian's package {PACKAGE.pattern.split('_')[0]}"
            raise CorpusError(path, expected, "neither")
        path = found[0]
    if path.suffix.lower() == ".deb":
        return Bundle(path, member_of_package(path, NAMES))
    table = next((file for file in path.parent.iterdir() if file.name.lower() == TABLE), None)
    return Bundle(path, path.read_bytes(), table.read_bytes() if table else None)


def member_of_package(path: Path, names: Collection[str]) -> bytes:
    """The first file of one of these names in a Debian package, which is an ar archive with a tar in it.

    Raises CorpusError where there is none, and where the package is cut off or altered.
    """
    archive = Part(str(path), path.read_bytes())
    if archive.content[:8] != b"!<arch>\n":
        raise CorpusError(path, "a Debian package", f"a file that begins with {archive.content[:8]!r}")
    at = 8
    while at < len(archive.content):
        header = archive.taken(at, MEMBER)
        if not header[48:58].strip().isdigit():
            found = f"no header of a member at byte {at:,}: it was altered"
            raise CorpusError(path, "a Debian package", found)
        size = int(header[48:58])
        member = archive.taken(at + MEMBER, size)
        if header.startswith(b"data.tar"):
            return _in_tar(path, member, names)
        at += MEMBER + size + size % 2
    raise CorpusError(path, "a Debian package", "one without data.tar")


def _in_tar(path: Path, content: bytes, names: Collection[str]) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                if member.isreg() and Path(member.name).name.lower() in names:
                    file = tar.extractfile(member)
                    assert file is not None  # of a regular file
                    return file.read()
    except DAMAGE as error:
        raise CorpusError(path, "a whole data.tar", f"one that cannot be read ({error}); {UNPACK}") from None
    raise CorpusError(path, f"{' or '.join(names)} in the package", "neither")

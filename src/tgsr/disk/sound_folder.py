"""Recordings that are no longer where records say: found again below a folder, by the end of their path."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from operator import eq
from pathlib import Path

from tgsr.errors import RecordError

# What libsndfile or FFmpeg call the content of a file with that suffix; () where both have several names for it.
MP4, MATROSKA, WAV = ("MOV,MP4,M4A,3GP,3G2,MJ2",), ("MATROSKA,WEBM",), ("WAV", "WAVEX", "RF64")
FORMATS = {
    **{".wav": WAV, ".rf64": WAV, ".w64": ("W64",), ".flac": ("FLAC",), ".mp3": ("MP3",), ".aac": ("AAC",)},
    **{".au": ("AU",), ".caf": ("CAF",), ".sph": ("NIST", "NISTSPHERE"), ".avi": ("AVI",)},
    **dict.fromkeys((".ogg", ".opus", ".oga"), ("OGG",)),
    **dict.fromkeys((".aiff", ".aif"), ("AIFF",)),
    **dict.fromkeys((".m4a", ".mp4", ".m4b", ".m4r", ".m4v", ".mov", ".3gp", ".3g2"), MP4),
    **dict.fromkeys((".mka", ".mkv", ".webm", ".weba"), MATROSKA),
    **dict.fromkeys((".ts", ".m2ts"), ("MPEGTS",)),
    **dict.fromkeys((".wma", ".wmv"), ("ASF",)),
    **dict.fromkeys((".mpg", ".mpeg", ".mp2", ".flv", ".amr", ".ogv", ".ac3", ".aifc", ".snd", ".nist"), ()),
}


def parts_of(path: str) -> tuple[str, ...]:
    """A path's folders and its name, in any system's spelling; the name without a suffix of audio."""
    *folders, name = re.split(r"[/\\]", path.strip())
    stem, dot, suffix = name.rpartition(".")
    bare = stem if stem and f"{dot}{suffix}".lower() in FORMATS else name
    return (*(folder for folder in folders if folder not in ("", ".", "..")), bare)


@dataclass(frozen=True, slots=True)
class SoundFolder:
    """The sound files below a folder, by their names without suffix."""

    folder: Path
    by_name: Mapping[str, tuple[Path, ...]]

    @classmethod
    def of(cls, folder: Path) -> SoundFolder:
        """Every file below the folder with a suffix of audio; linked folders are entered, each folder once.

        RecordError where the folder is not there, or holds no such file.
        """
        by_name: dict[str, tuple[Path, ...]] = {}
        entered: set[str] = set()
        for inside, folders, names in os.walk(folder, followlinks=True):
            real = os.path.realpath(inside)
            if real in entered:  # by a link, which may lead to a folder above it
                folders.clear()
                continue
            entered.add(real)
            folders.sort()
            for name in sorted(names):
                if os.path.splitext(name)[1].lower() in FORMATS:
                    bare = parts_of(name)[-1]
                    by_name[bare] = (*by_name.get(bare, ()), Path(inside, name))
        if not by_name:
            problem = "no such folder" if not folder.is_dir() else "holds no sound file"
            raise RecordError(None, problem, str(folder), remedy="give --audio the folder of sound files")
        return cls(folder, by_name)

    def find(self, audio: str) -> Path | None:
        """The file with the same name, whose folders agree best with the path's, from its end; None for no such file.

        Of files that agree alike the one with the same suffix, then the one that lies highest, is taken; RecordError
        where that leaves several.
        """
        wanted = parts_of(audio)
        ranked = [(self._rank(path, audio, wanted), path) for path in self.by_name.get(wanted[-1], ())]
        best = max((rank for rank, _ in ranked), default=None)
        found = [path for rank, path in ranked if rank == best]
        if len(found) > 1:
            problem = f"{audio} may be {found[0]} or {found[1]}"
            remedy = "give --audio a folder that holds one of them"
            raise RecordError("audio", problem, str(self.folder), remedy=remedy)
        return found[0] if found else None

    def _rank(self, path: Path, audio: str, wanted: tuple[str, ...]) -> tuple[int, bool, int]:
        parts = parts_of(path.relative_to(self.folder).as_posix())
        n_alike = [*map(eq, parts[::-1], wanted[::-1]), False].index(False)
        return n_alike, audio.lower().endswith(path.suffix.lower()), -len(parts)

"""Recordings that are no longer where records say: found again below a folder, by the end of their path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tgsr.data.corpora.folders import FORMATS
from tgsr.errors import RecordError
from tgsr.records import Clip, Question, Response

T = TypeVar("T", bound=Clip | Question | Response)


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
        """Every file below the folder with a suffix of audio, linked folders not entered.

        RecordError where the folder is not there, or holds no such file.
        """
        by_name: dict[str, tuple[Path, ...]] = {}
        for inside, _, names in os.walk(folder):
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
            raise RecordError("audio", problem, remedy="give --audio a folder that holds one of them")
        return found[0] if found else None

    def _rank(self, path: Path, audio: str, wanted: tuple[str, ...]) -> tuple[int, bool, int]:
        parts = parts_of(path.relative_to(self.folder).as_posix())
        n_alike = next(
            (n for n, (a, b) in enumerate(zip(parts[::-1], wanted[::-1], strict=False)) if a != b), None
        )
        n_alike = min(len(parts), len(wanted)) if n_alike is None else n_alike
        return n_alike, audio.lower().endswith(path.suffix.lower()), -len(parts)


def moved(records: Iterable[T], folder: str | Path | None) -> list[T]:
    """The records, their sound where it lies below the folder now; what is not there stays as it is written.

    All as they are where no folder is given. RecordError where none of their sound is there, and as `SoundFolder` says.
    """
    given = list(records)
    if folder is None or not given:
        return given
    sounds = SoundFolder.of(Path(folder))
    names = {_audio(record) for record in given}
    found = {name: str(path.absolute()) for name in names if (path := sounds.find(name)) is not None}
    if not found:
        problem = f"holds none of the {len(names)} sound files, such as {parts_of(min(names))[-1]}"
        raise RecordError(
            None, problem, str(folder), remedy="give --audio the folder that they have moved to"
        )
    return [_at(record, found.get(_audio(record))) for record in given]


def _audio(record: Clip | Question | Response) -> str:
    return record.question.audio if isinstance(record, Response) else record.audio


def _at(record: T, audio: str | None) -> T:
    if audio is None:
        return record
    if isinstance(record, Response):
        return replace(record, question=replace(record.question, audio=audio))
    return replace(record, audio=audio)

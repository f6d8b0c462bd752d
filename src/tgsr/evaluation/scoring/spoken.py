"""What is said in the clips that questions are about, from the clips.jsonl that they were made from."""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tgsr.disk.jsonl import row_of
from tgsr.disk.whole import StrPath
from tgsr.errors import RecordError
from tgsr.records import Clip, Question, clip_of
from tgsr.timeline import END_SLACK, Seconds, Word

CLIPS = "clips.jsonl"
KEPT_CLIPS = 256  # those read last: questions about one clip mostly come together


class _Place(NamedTuple):
    """Where a row of a clips file begins, in bytes, and the number of its line."""

    path: Path
    offset: int
    line: int


class Spoken:
    """The words of clips, by question. Of the files only the places of their rows are held in memory.

    `clips` are the clips files. Without any, clips.jsonl is looked for beside the files `beside` (questions,
    predictions), beside the sound that a question names from there, and in the folder above that sound's.
    """

    def __init__(self, clips: Sequence[StrPath] = (), beside: Sequence[StrPath] = ()) -> None:
        self._given = [Path(path) for path in clips]
        self._folders = [Path(path).parent for path in beside]
        self._places: dict[Path, dict[str, list[_Place]]] = {}
        self._found = lru_cache(KEPT_CLIPS)(self._find)
        self._clip = lru_cache(KEPT_CLIPS)(_read_clip)
        self._used: dict[str, None] = {}

    @property
    def is_given(self) -> bool:
        """Whether clips files were named, where an owner's predictions are mostly letters, and need none."""
        return bool(self._given)

    @property
    def files(self) -> tuple[str, ...]:
        """The clips files that had words of clips that were asked for."""
        return tuple(self._used)

    def words_of(self, question: Question) -> tuple[Word, ...] | None:
        """The words of the question's clip; () where it has none, None where its clip is not known.

        The clip is the one of the same id, or else of the same name of its sound file, and of the same length.
        RecordError, with file and line, for such a row that is no clip, and for a file of `clips` that holds none.
        """
        clip = self._clip_of(question.audio, (question.clip_id,), question.duration)
        return None if clip is None else clip.words

    def clip_of(self, audio: str) -> Clip | None:
        """The clip of a sound file of that name, whose length nobody has told; None where none is known."""
        return self._clip_of(audio)

    def _clip_of(self, audio: str, ids: tuple[str, ...] = (), duration: Seconds | None = None) -> Clip | None:
        for path in self._given or self._found(os.path.dirname(audio)):
            if path not in self._places:
                self._places[path] = _places_in(path, is_given=bool(self._given))
            names = (*ids, Path(audio).stem)
            for place in chain.from_iterable(self._places[path].get(name, ()) for name in names):
                clip = self._clip(place)
                if duration is None or abs(clip.duration - duration) <= 2 * END_SLACK:
                    if clip.words:
                        self._used.setdefault(os.fspath(path))
                    return clip
        return None

    def why_unknown(self) -> str:
        """Why the words of a clip are not known, and what to do."""
        files = [os.fspath(path) for path in self._places]
        if not files:
            return f"no {CLIPS} lies beside the questions, the predictions or their sound: give --clips"
        return f"{', '.join(files)} has no clip of these ids and lengths with words: give --clips"

    def _find(self, audio_folder: str) -> list[Path]:
        names = ("", audio_folder, f"{audio_folder}/..")
        folders = [folder / name for name in names for folder in self._folders]
        files = (Path(os.path.normpath(folder / CLIPS)) for folder in folders)
        return [path for path in dict.fromkeys(files) if path.is_file()]


def _places_in(path: Path, is_given: bool) -> dict[str, list[_Place]]:
    """Where the rows of each name begin: their id, and their sound file's name. Of a file that nobody gave, rows that
    are no JSON objects are passed over.
    """
    places: dict[str, list[_Place]] = {}
    offset = 0
    with path.open("rb") as file:
        for line, content in enumerate(file, 1):
            place = _Place(path, offset, line)
            offset += len(content)
            content = content.removeprefix(codecs.BOM_UTF8)
            if not content.strip():
                continue
            try:
                row = row_of(content)
            except RecordError as error:
                if is_given:
                    raise error.at(os.fspath(path), line) from None
                continue
            audio = str(row.get("audio", row.get("path")))
            for name in {str(row.get("id", audio)), Path(audio).stem}:
                places.setdefault(name, []).append(place)
    if is_given and not places:
        raise RecordError(None, "holds no clips", os.fspath(path), remedy="give what `tgsr transcribe` wrote")
    return places


def _read_clip(place: _Place) -> Clip:
    with place.path.open("rb") as file:
        file.seek(place.offset)
        content = file.readline()
    try:
        return clip_of(row_of(content.removeprefix(codecs.BOM_UTF8)))
    except RecordError as error:
        raise error.at(os.fspath(place.path), place.line) from None

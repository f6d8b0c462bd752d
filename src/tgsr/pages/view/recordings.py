"""Recordings that are heard on the page, one at a time: named when the server starts, or sent by a browser and kept.

What is sent is kept beside the transcripts of `tgsr ask`, each recording in a folder that is named by the hash of its
content, until somebody deletes it on the page. A browser names recordings by key, never by path.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tgsr.answering.cascade import Cascade, Spoken, forget
from tgsr.answering.outline import OutlineLine, notes_of, outline
from tgsr.data.alignments.cues import SUFFIXES, Format, is_parted
from tgsr.data.alignments.writing import written
from tgsr.data.transcribe.speech import shortened
from tgsr.disk.sound_folder import FORMATS as SOUNDS
from tgsr.disk.whole import sha256_of, whole, write_whole
from tgsr.errors import AudioError, shown
from tgsr.pages.view.ask import Asker, Job
from tgsr.records import Clip
from tgsr.timeline import Seconds

MOST_BYTES = 2**30  # of a recording that is sent; one that is named when the server starts may be larger
OFFERED: tuple[Format, ...] = ("srt", "vtt", "txt", "textgrid", "json")
LONGEST_NAME = 120
NAMED = "name.txt"  # beside a kept recording: what its sender calls it


@dataclass(slots=True)
class Recording(Job):
    """One recording. `is_kept`: it was sent, and can be deleted; else it is the user's own file, which stays."""

    key: str
    name: str
    path: Path
    is_kept: bool
    spoken: Spoken | None = None
    lines: tuple[OutlineLine, ...] = ()
    is_deleted: bool = False

    @property
    def state(self) -> str:
        return self.events[-1][0] if self.events else "new"

    def as_row(self) -> dict[str, object]:
        return {"key": self.key, "name": self.name, "kept": self.is_kept, "state": self.state}


@dataclass(slots=True)
class Shelf:
    """The recordings by key. They are heard by the worker of the asker, with its model `model`, a cascade."""

    asker: Asker
    model: str
    cache: Path
    most_bytes: int = MOST_BYTES
    recordings: dict[str, Recording] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def folder(self) -> Path:
        return self.cache / "transcripts" / "uploads"

    @classmethod
    def of(cls, asker: Asker, model: str, cache: Path, given: Sequence[Path] = ()) -> Shelf:
        """With the `given` files, and those that were sent in earlier times and kept in `cache`."""
        shelf = cls(asker, model, cache)
        for path in given:
            key = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
            shelf.recordings[key] = Recording(key, shown(path.name), path.resolve(), False)
        for named in sorted(shelf.folder.glob(f"*/{NAMED}"), key=lambda path: -path.stat().st_mtime):
            sound = next(named.parent.glob("sound*"), None)
            if sound is not None:
                key = named.parent.name
                shelf.recordings[key] = Recording(key, named.read_text(encoding="utf-8"), sound, True)
        return shelf

    def keep(self, sent: Path, name: str) -> Recording:
        """Takes a file that was sent; the same sound is kept once, under its first name."""
        key = sha256_of(sent)[:32]
        with self._lock:
            if key not in self.recordings or not self.recordings[key].path.exists():
                plain = plain_name(name)
                suffix = os.path.splitext(plain)[1].lower()
                path = self.folder / key / f"sound{suffix if suffix in SOUNDS else ''}"
                self.folder.mkdir(0o700, parents=True, exist_ok=True)  # speech is its sender's alone
                path.parent.mkdir(exist_ok=True)
                with whole(path) as half:
                    shutil.move(sent, half)
                write_whole(path.parent / NAMED, plain)
                self.recordings[key] = Recording(key, plain, path, True)
            return self.recordings[key]

    def open(self, recording: Recording) -> None:
        """Hears a recording that is not heard yet, nor about to be. Raises Busy. What cannot be heard is not kept."""
        with self._lock:
            if recording.spoken is not None or (recording.events and not recording.is_over):
                return
            if recording.is_over and not recording.path.exists():  # its events say what was wrong with it
                return
            recording.events.clear()
            recording.is_cancelled.clear()
            self.asker.hear(recording, partial(self._hear, recording), self._hidden(recording))

    def delete(self, recording: Recording) -> None:
        """Deletes what was sent, and what was heard of it; what is being heard now goes when it is."""
        recording.is_deleted = True
        recording.cancel()
        with self._lock:
            self.recordings.pop(recording.key, None)
        if recording.spoken is not None:
            self.cascade().forget(recording.path)
        else:  # by an earlier server, and no model is opened to forget it
            forget(self.cache, recording.path)
        shutil.rmtree(recording.path.parent, ignore_errors=True)

    def cascade(self) -> Cascade:
        model = self.asker.opened(self.model)
        assert isinstance(model, Cascade)
        return model

    def _hidden(self, recording: Recording) -> str:
        return str(recording.path) if recording.is_kept else ""

    def _hear(self, recording: Recording) -> None:
        try:
            self._heard(recording)
        except AudioError:
            if recording.is_kept:
                shutil.rmtree(recording.path.parent, ignore_errors=True)
            raise

    def _heard(self, recording: Recording) -> None:
        recording.require_wanted()
        recording.tell("opening")
        recording.sound = self.asker.sounds.open(recording.path)
        cascade = self.cascade()
        if recording.sound.seconds > cascade.max_seconds:
            problem = f"is longer than the {cascade.max_seconds / 3600:g} hours that are heard"
            raise AudioError(str(recording.path), problem, "cut it")
        recording.tell("sound", seconds=recording.sound.seconds)

        def told(done: Seconds, whole: Seconds) -> None:
            recording.require_wanted()
            recording.tell("hearing", share=round(min(1.0, done / whole), 3) if whole else 1.0)

        told(0.0, 1.0)
        try:
            spoken = cascade.spoken_in(recording.path, told)
            recording.require_wanted()
            recording.tell("outlining")
            recording.lines = tuple(outline(cascade, spoken))
            recording.spoken = spoken
        finally:
            if recording.is_deleted:
                cascade.forget(recording.path)
        recording.tell("done")


def plain_name(name: str) -> str:
    """A name as it is shown and downloaded: without folders, without what is no letter on a line, not too long."""
    bare = "".join(letter for letter in name.replace("\\", "/").rpartition("/")[2] if letter.isprintable())
    stem, suffix = os.path.splitext(bare.strip())
    return (stem[: LONGEST_NAME - len(suffix[:8])] + suffix[:8]) or "recording"


def heard_row(recording: Recording, limits: str) -> dict[str, object]:
    """What the page shows of a recording that was heard: its words, and its outline."""
    assert recording.spoken is not None
    assert recording.sound is not None
    words = [shortened(word) for word in recording.spoken.transcript.words]
    return recording.as_row() | {
        "seconds": recording.sound.seconds,
        "words": [
            [word.text, round(word.start, 3), round(word.end, 3), is_parted(words, n)]
            for n, word in enumerate(words)
        ],
        "outline": [line.as_row() for line in recording.lines],
        "notes": notes_of(recording.spoken),
        "limits": limits,
        "formats": list(OFFERED),
    }


def download(recording: Recording, to: Format) -> tuple[str, str]:
    """The words in a format of `tgsr transcribe --to`, and the header that names the file."""
    assert recording.spoken is not None
    said, name = recording.spoken.transcript, recording.name
    more: dict[str, Any] = {"language": said.language, "flags": said.flags, "holes": said.holes}
    clip = Clip(name, name, said.duration, said.words, **more)
    stem = os.path.splitext(recording.name)[0] or "recording"
    return written(clip, to), f"attachment; filename*=UTF-8''{quote(stem + SUFFIXES[to])}"

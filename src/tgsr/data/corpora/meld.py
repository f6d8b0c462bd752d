"""MELD: utterances of the series Friends with emotions, as MELD.Raw unpacks (csv files and folders of mp4 clips)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tgsr.data.corpora.folders import FORMATS, NOTHING, Given, clips, described, locate, sound, walk
from tgsr.disk.rows import Entry, OnDisk, require_columns, table
from tgsr.errors import Bad, CorpusError, RecordError
from tgsr.records import Clip
from tgsr.timeline import Seconds

FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
COLUMNS = (
    *("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"),
    *("Season", "Episode", "StartTime", "EndTime"),
)
LABELS = {
    **{"emotion": "Emotion", "sentiment": "Sentiment", "dialogue": "Dialogue_ID"},
    **{"utterance": "Utterance_ID", "season": "Season", "episode": "Episode"},
}
MINUTES = "the publisher's clip is minutes long and holds much more than this utterance"
# What the publisher's release is known to have wrong.
DAMAGED = {
    ("train", "dia125_utt3"): "the publisher's clip is corrupt",
    ("dev", "dia110_utt7"): "the publisher's release lacks this clip",
    **dict.fromkeys((("test", "dia38_utt4"), ("test", "dia220_utt0")), MINUTES),
}
TIME = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})")
# The test folder also has final_videos_testdia0_utt0.mp4, copies that no row names.
NAME = re.compile(r"dia\d+_utt\d+")
VIDEO = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm")
SOURCE = "MELD"
LICENCE = "GPL-3.0"


def read(folder: Path, given: Given = NOTHING) -> Iterator[Clip | Bad]:
    """Every row of {train,dev,test}_sent_emo.csv, those that are there; files may also lie in train/, dev/ and test/.

    A clip diaD_uttU may be .wav, .flac, .mp3, ...; where only the publisher's .mp4 is there, the clip names that, with
    the length of its sound track and the flag "video". LABELS names the labels; a
    blank utterance is flagged "empty-text". Bad: what DAMAGED lists, a row that does not end after it starts, and a
    file dia*_utt* that no row names.

    Raises CorpusError where there is none of the csv files, or where one lacks one of COLUMNS.
    """
    names = {split: f"{split}_sent_emo.csv" for split in FOLDERS}
    tables = {split: _there(folder, split, name) for split, name in names.items()}
    present = {split: path for split, path in tables.items() if path.is_file()}
    if not present:
        names_here = ", ".join(sorted(path.name for path in folder.glob("*"))[:5])
        raise CorpusError(folder, " or ".join(names.values()), names_here or "nothing")
    for path in present.values():
        require_columns(path, COLUMNS)
    ids = OnDisk()
    for split, path in present.items():
        known = replace(given, split=split, source=SOURCE, licence=LICENCE, language="en")
        yield from _split(path, _there(folder, split, FOLDERS[split]), known, ids)


def _split(path: Path, folder: Path, given: Given, ids: OnDisk) -> Iterator[Clip | Bad]:
    named = OnDisk()
    yield from clips(table(path), lambda entry: _clip(entry, folder, given, named), ids)
    if folder.is_dir():
        for sound_file in walk(folder, FORMATS):
            if NAME.fullmatch(sound_file.stem) and not named.get(sound_file.stem):
                yield Bad(str(sound_file), f"no row of {path.name} names this file", field="audio")


def _clip(entry: Entry, folder: Path, given: Given, named: OnDisk) -> Clip:
    name = f"dia{entry.text('Dialogue_ID')}_utt{entry.text('Utterance_ID')}"
    named.put(name)
    if (given.split, name) in DAMAGED:
        raise RecordError("audio", f"{name}: {DAMAGED[given.split, name]}")
    start, end = _seconds(entry, "StartTime"), _seconds(entry, "EndTime")
    if end <= start:
        raise RecordError("EndTime", f"{end:g} s is not after StartTime {start:g} s")
    path = locate(folder, f"{name}.wav")
    duration, flags = sound(path)
    flags += ("video",) if path.suffix.lower() in VIDEO else ()
    values = {"text": entry.maybe("Utterance"), "speaker": entry.maybe("Speaker")}
    values |= {label: entry.text(column) for label, column in LABELS.items()}
    row = Entry(entry.file, entry.line, values)
    return described(row, f"meld-{given.split}-{name}", path, duration, flags, given)


def _seconds(entry: Entry, column: str) -> Seconds:
    """Seconds of "0:10:44,769": hours, minutes, seconds, milliseconds."""
    match = TIME.fullmatch(entry.text(column))
    if match is None:
        raise RecordError(column, f"must be a time such as 0:10:44,769, got {entry.text(column)!r:.80}")
    hours, minutes, seconds, _ = map(int, match.groups())
    return hours * 3600 + minutes * 60 + seconds + float(f"0.{match[4]}")


def _there(folder: Path, split: str, name: str) -> Path:
    """The file or folder of that name in the folder, or else in its folder of the split's name."""
    return folder / name if (folder / name).exists() else folder / split / name

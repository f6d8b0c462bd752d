"""Hugging Face datasets of audio, as save_to_disk or the hub has them: Arrow or Parquet files with encoded sound."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tgsr.audio import FETCH_AGAIN
from tgsr.data.alignments.manifests import within
from tgsr.data.corpora.folders import NOTHING, Given, clips, described, place, sound, stem, suffix_of, walk
from tgsr.disk.parquet import pyarrow_for
from tgsr.disk.rows import ID, Entry, OnDisk
from tgsr.disk.whole import half_name, whole, write_whole
from tgsr.errors import AudioError, Bad, CorpusError, RecordError
from tgsr.records import Clip, clip_of

PURPOSE = "reading Hugging Face datasets"
BATCH = 16  # rows in memory at a time
SHARD = re.compile(r"(\w+)-\d+-of-\d+")


def read(folder: Path, out: Path, given: Given = NOTHING) -> Iterator[Clip | Bad]:
    """Every row of the .arrow and .parquet files below the folder, or of one such file.

    The encoded sound is written as it is to out/audio/.
    The column `audio` holds {bytes, path}; where there are no bytes, the path starts at the folder of the file. Text,
    speaker, language and licence are found under the names that disk/rows.py lists; other texts and numbers
    become labels, class labels by their names. The split is that of the file's name or folder, or train. The id is
    SPLIT-ID, or SPLIT-FILE-ROW by number where no column gives one, and names the sound file, %-quoted. No text: the
    flag "no-text". `line` of a Bad is the row in its file.

    Raises CorpusError where there is no such file or one has no column `audio`, and MissingPackage without
    pyarrow.
    """
    pyarrow_for(PURPOSE)
    files = [folder] if folder.is_file() else walk(folder, (".arrow", ".parquet"))
    shards = sorted(path for path in files if not path.name.startswith("cache-"))
    if not shards:
        raise CorpusError(folder, ".arrow or .parquet files", "none")
    (out / "audio").mkdir(parents=True, exist_ok=True)
    ids = OnDisk()
    for n, path in enumerate(shards):
        split = _split(path, folder)

        def make(entry: Entry, n: int = n, split: str = split) -> Clip:
            packed = _as_packed(entry)
            name = entry.first(ID) or f"{n:05d}-{entry.line:06d}"
            identity = f"{split}-{name}" if packed is None else packed.id
            if before := ids.get(identity):  # before the other's sound is written over
                raise RecordError("id", f"{identity!r} was already at {before[0]}")
            sound_file = _sound_file(entry, identity, out / "audio")
            duration, flags = sound(sound_file)
            if packed is not None:
                flags = tuple(dict.fromkeys((*packed.flags, *flags)))
                return replace(packed, audio=place(sound_file, given.relative_to), flags=flags)
            clip = described(entry, identity, sound_file, duration, flags, given)
            flags = (*flags, "no-text") if clip.text is None else flags
            return replace(clip, split=split, source=given.source, flags=flags)

        yield from clips(_rows(path), make, ids)


def _as_packed(entry: Entry) -> Clip | None:
    """The clip of a row that `tgsr pack` wrote, words and all; None for another's row. RecordError for a bad one."""
    listed = entry.values.get("labels")
    if not isinstance(entry.values.get("words"), list) or not isinstance(listed, list):
        return None
    if not all(isinstance(label, dict) and set(label) == {"name", "value"} for label in listed):
        return None
    labels = {str(label["name"]): label["value"] for label in listed}
    return clip_of(within({**entry.values, "audio": entry.text("id"), "labels": labels}))


def _sound_file(entry: Entry, identity: str, folder: Path) -> Path:
    """The row's sound in the folder, written there, or where its path says. Raises ValueError for what is no sound."""
    held = entry.values.get("audio")
    if not isinstance(held, dict) or not (held.get("bytes") or held.get("path")):
        raise RecordError("audio", "must be {bytes, path} with one of them")
    content = held.get("bytes")
    if not content:
        return entry.file.parent / str(held["path"])
    name = stem(identity)
    with TemporaryDirectory(dir=folder, prefix=half_name()) as parts:
        part = Path(parts) / "sound"
        write_whole(part, content)
        try:
            path = folder / f"{name}{suffix_of(part)}"
        except AudioError as error:
            raise AudioError(f"the sound of {identity}", error.found, error.remedy) from None
        with whole(path) as half:
            os.replace(part, half)
    return path


def _rows(path: Path) -> Iterator[Entry | Bad]:
    """The rows of one file, numbered from 1, class labels by name. Bad where the file cannot be read any further."""
    pa = pyarrow_for(PURPOSE)
    row = 0
    try:
        for batch in _batches(path):
            if "audio" not in batch.schema.names:
                raise CorpusError(path, "a column audio", f"columns {', '.join(batch.schema.names)}")
            classes = _classes(batch.schema.metadata)
            for values in batch.to_pylist():
                row += 1
                # datasets writes -1 where the class is unknown
                known = {c: names for c, names in classes.items() if values[c] in range(len(names))}
                yield Entry(path, row, {**values, **{c: names[values[c]] for c, names in known.items()}})
    except (pa.ArrowException, OSError) as error:
        yield Bad(str(path), f"cannot be read further ({error}); {FETCH_AGAIN}", row + 1)


def _batches(path: Path) -> Iterator[Any]:
    pa = pyarrow_for(PURPOSE)
    if path.suffix == ".parquet":
        with pa.parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=BATCH)
        return
    with pa.memory_map(str(path)) as content, pa.ipc.open_stream(content) as stream:
        for batch in stream:
            for first in range(0, batch.num_rows, BATCH):
                yield batch.slice(first, BATCH)


def _classes(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of the values of every column of class labels, from what `datasets` notes in the file."""
    noted = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    features = noted.get("info", {}).get("features", {})
    return {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}


def _split(path: Path, folder: Path) -> str:
    """train of train-00000-of-00001.parquet, of train/data-00000-of-00001.arrow and of train/0000.parquet."""
    shard = SHARD.match(path.stem)
    if shard is not None and shard[1] != "data":
        return shard[1]
    return "train" if path.parent in (folder, folder.parent, folder / "data") else path.parent.name

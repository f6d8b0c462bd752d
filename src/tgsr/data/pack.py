"""Clips or questions and their sound as shards that trainers stream: WebDataset tars, or parquet as the hub has it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, get_args
from urllib.parse import quote

from tqdm import tqdm

from tgsr.audio import CONVERT
from tgsr.data.alignments.manifests import within
from tgsr.data.corpora.folders import FORMATS
from tgsr.disk.parquet import pyarrow_for, write_parquet
from tgsr.disk.rows import Entry, OnDisk, json_lines, made
from tgsr.disk.sound_folder import SoundFolder
from tgsr.disk.whole import whole, write_whole
from tgsr.errors import Bad, PackError, RecordError
from tgsr.records import Clip, Question, as_row, clip_of, question_of, resolve_audio

Format = Literal["webdataset", "parquet"]
FORMATS_OUT: tuple[str, ...] = get_args(Format)

SHARD = re.compile(r"\d{6,}\.(tar|parquet)")
VERSION = 1  # of what is written; another one writes every shard again
LONGEST_KEY = 120  # characters; with its suffix it is a file's name wherever it is unpacked
ROWS_AT_ONCE = 64  # of a parquet file's group, or fewer:
BYTES_AT_ONCE = 32 << 20  # of its sound


@dataclass(frozen=True, slots=True)
class Packed:
    """How many samples were packed, of how many rows, in how many shards; of those, how many were there already.

    `left_out` rows are in errors.jsonl. A sample is a clip, or the questions about one (webdataset), or one question.
    """

    samples: int
    rows: int
    shards: int
    found: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A row as it is packed, with the sound of that path; `audio` in it is the name that the sound has in the shard."""

    key: str
    sound: Path
    row: dict[str, Any]
    n_rows: int = 1

    @property
    def sound_name(self) -> str:
        return f"{self.key}{self.sound.suffix.lower()}"


def pack(
    path: Path, out: Path, to: Format, *, samples_per_shard: int = 1000, audio: Path | None = None
) -> Packed:
    """Packs the rows of a clips or questions file, told apart by "clip_id", with their sound into out/000000.tar, ...

    webdataset: KEY.json and the sound as it is, KEY.EXT, for every clip in the file's order; the questions about one
    clip are one sample, {"id", "audio", "duration", "split", "questions": [...]}. KEY is the clip's id, %-quoted.
    `data/corpora/webdataset.py` reads them back. `audio` is the folder that the sound has moved to. parquet: a row a
    clip or question, in the record's columns; `audio` is {bytes, path}, `labels` a list of {name, value}, and
    `datasets` decodes the sound.

    A row that is no record, or whose sound is missing, goes to out/errors.jsonl. The same rows give the same bytes.
    A shard appears whole or not at all; one that is there already, made of the same rows and of files of the same
    size and time (out/packed.json), is not written again, and those of an earlier run that are no longer needed go.

    Raises PackError where there is no such file, and where `out` has shards of the other kind; MissingPackage
    without pyarrow.
    """
    if to not in FORMATS_OUT:
        raise PackError(f"to must be one of {', '.join(FORMATS_OUT)}, got {to!r}")
    if samples_per_shard < 1:
        raise PackError(f"samples_per_shard must be 1 or more, got {samples_per_shard}")
    if not path.is_file():
        raise PackError(f"{path}: expected a file of clips or questions (JSONL), found nothing")
    write, suffix = (_write_tar, ".tar") if to == "webdataset" else (_write_parquet, ".parquet")
    if to == "parquet":
        pyarrow_for("packing as parquet")
    out.mkdir(parents=True, exist_ok=True)
    before = _noted(out, to)
    shards: dict[str, dict[str, object]] = {}
    n_samples = n_rows = n_found = n_left_out = 0
    errors = out / "errors.jsonl"
    with (
        whole(errors) as half_errors,
        half_errors.open("w", encoding="utf-8") as errors_file,
        tqdm(desc=out.name, unit="sample") as bar,
    ):

        def usable() -> Iterator[Sample]:
            nonlocal n_left_out
            for sample in _samples(path, to, None if audio is None else SoundFolder.of(audio)):
                if isinstance(sample, Bad):
                    # escaped: what is wrong with a row may be that it cannot be written as UTF-8
                    errors_file.write(json.dumps(asdict(sample)) + "\n")
                    n_left_out += 1
                else:
                    yield sample

        samples = usable()
        while shard := list(islice(samples, samples_per_shard)):
            file = out / f"{len(shards):06d}{suffix}"
            key, noted = _content_key(shard, to), before.get(file.name, {})
            if noted.get("key") == key and file.is_file() and file.stat().st_size == noted.get("bytes"):
                n_found += 1
            else:
                write(file, shard)
            shards[file.name] = {"key": key, "bytes": file.stat().st_size, "samples": len(shard)}
            _note(out, to, {**before, **shards})
            n_samples += len(shard)
            n_rows += sum(sample.n_rows for sample in shard)
            bar.update(len(shard))
    if not n_left_out:
        errors.unlink()
    for name in before.keys() - shards.keys():
        (out / name).unlink(missing_ok=True)
    if shards:
        _note(out, to, shards)
    else:
        (out / "packed.json").unlink(missing_ok=True)
    return Packed(n_samples, n_rows, len(shards), n_found, n_left_out)


# Rows to samples


def _samples(path: Path, to: Format, sounds: SoundFolder | None) -> Iterator[Sample | Bad]:
    if to == "webdataset":
        yield from _by_clip(path, sounds)
        return
    for item in _records(path, sounds):
        yield item if isinstance(item, Bad) else _sample(path, item[0])


def _records(path: Path, sounds: SoundFolder | None) -> Iterator[tuple[Clip | Question, Entry] | Bad]:
    """The file's records with sound that can be packed; the first row says whether they are clips or questions."""
    seen = OnDisk()
    parse: Callable[[Any], Clip | Question] | None = None

    def make(entry: Entry) -> tuple[Clip | Question, Entry]:
        nonlocal parse
        is_question = "clip_id" in entry.values
        parse = parse or (question_of if is_question else clip_of)
        if is_question != (parse is question_of):
            raise RecordError("clip_id", "clips and questions are in one file; give each a file")
        record = parse(entry.values if is_question else within(entry.values))
        if sounds is not None and (there := sounds.find(record.audio)) is not None:
            record = replace(record, audio=str(there.absolute()))
        _require_packable(record, path)
        if before := seen.put_new(record.id, str(entry.line)):
            raise RecordError("id", f"{record.id!r} was already on line {before}")
        return record, entry

    return made(json_lines(path), make)


def _require_packable(record: Clip | Question, path: Path) -> None:
    try:
        json.dumps(as_row(record), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RecordError(None, "holds half of a surrogate pair, which is no text") from None
    sound = resolve_audio(record, path)
    if not sound.is_file():
        raise RecordError("audio", f"{sound} is missing")
    if not os.access(sound, os.R_OK):
        raise RecordError("audio", f"{sound} may not be read")
    if sound.suffix.lower() not in FORMATS:
        raise RecordError("audio", f"{sound} is not {', '.join(FORMATS)}; {CONVERT}")


def _by_clip(path: Path, folder: SoundFolder | None) -> Iterator[Sample | Bad]:
    """A sample a clip, as it comes; for questions a sample with all of one clip, in the order of their first ones."""
    order, questions, sounds = OnDisk(), OnDisk(), OnDisk()
    n = 0
    for item in _records(path, folder):
        if isinstance(item, Bad):
            yield item
            continue
        record, entry = item
        if isinstance(record, Clip):
            yield _sample(path, record)
            continue
        known = sounds.put_new(record.clip_id, record.audio)
        if known not in (None, record.audio):
            problem = f"is {record.audio!r}; another question about {record.clip_id!r} has {known!r}"
            yield entry.bad(RecordError("audio", problem))
            continue
        if known is None:
            order.put(f"{n:012d}", record.clip_id)
            n += 1
        questions.put(record.clip_id, json.dumps(as_row(record), ensure_ascii=False))
    for place in iter(order.keys()):
        (clip_id,) = order.get(place)
        rows = [json.loads(row) for row in questions.get(clip_id)]
        sample = Sample(_key(clip_id), path.parent / rows[0]["audio"], {}, len(rows))
        of_clip = {"id": clip_id, "audio": sample.sound_name}
        of_clip |= {name: rows[0][name] for name in ("duration", "split")}
        sample.row.update(of_clip, questions=[{**row, "audio": sample.sound_name} for row in rows])
        yield sample


def _sample(path: Path, record: Clip | Question) -> Sample:
    key = _key(record.id if isinstance(record, Clip) else record.clip_id)
    sample = Sample(key, resolve_audio(record, path), dict(as_row(record)))
    sample.row["audio"] = sample.sound_name
    return sample


def _key(identity: str) -> str:
    """The id as the name of a file, without the dot that would end a key; a long one ends in its hash instead."""
    key = quote(identity, safe=" ").replace(".", "%2E")
    if len(key) > LONGEST_KEY:
        key = f"{key[: LONGEST_KEY - 17]}~{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    return key


# Shards


def _write_tar(path: Path, samples: Sequence[Sample]) -> None:
    """KEY.EXT and KEY.json of every sample, with neither time nor owner."""
    with whole(path) as half, tarfile.open(half, "w", format=tarfile.GNU_FORMAT) as tar:
        for sample in samples:
            row = io.BytesIO(json.dumps(sample.row, ensure_ascii=False).encode())
            with sample.sound.open("rb") as sound:
                streams: dict[str, IO[bytes]] = {f"{sample.key}.json": row, sample.sound_name: sound}
                for name, stream in sorted(streams.items()):
                    member = tarfile.TarInfo(name)
                    member.size = stream.seek(0, io.SEEK_END)
                    stream.seek(0)
                    tar.addfile(member, stream)
            tar.members = []  # type: ignore[attr-defined]  # or they would all be kept


def _write_parquet(path: Path, samples: Sequence[Sample]) -> None:
    schema = _schema(pyarrow_for("packing as parquet"), "clip_id" in samples[0].row)
    write_parquet(path, schema, _groups(samples))


def _groups(samples: Sequence[Sample]) -> Iterator[list[dict[str, Any]]]:
    """Groups of rows that fit into memory with their sound."""
    group: list[dict[str, Any]] = []
    n_bytes = 0
    for sample in samples:
        content = sample.sound.read_bytes()
        if group and (len(group) == ROWS_AT_ONCE or n_bytes + len(content) > BYTES_AT_ONCE):
            yield group
            group, n_bytes = [], 0
        labels = [
            {"name": name, "value": value}
            for name, values in sample.row.get("labels", {}).items()
            # a question may have several of a name
            for value in (values if isinstance(values, list) else [values])
        ]
        group.append({**sample.row, "audio": {"bytes": content, "path": sample.sound_name}, "labels": labels})
        n_bytes += len(content)
    yield group


def _schema(pyarrow: Any, of_questions: bool) -> Any:
    text, number, many = pyarrow.string(), pyarrow.float64(), pyarrow.list_
    sound = pyarrow.struct([("bytes", pyarrow.binary()), ("path", text)])
    span = [("start", number), ("end", number)]
    labelled = ("labels", many(pyarrow.struct([("name", text), ("value", text)])))
    columns = [("id", text), ("audio", sound), ("duration", number)]
    if of_questions:
        columns += [(name, text) for name in ("clip_id", "kind", "question", "answer")]
        columns += [("choices", many(text)), ("phrase", text), ("evidence", many(many(number)))]
        columns += [("task", text), ("split", text), labelled]
    else:
        word = [("word", text), *span, ("speaker", text), ("source", text), ("confidence", number)]
        columns.append(("words", many(pyarrow.struct(word))))
        columns += [(name, text) for name in ("split", "source", "licence", "speaker", "text", "language")]
        event, hole = [("label", text), *span], [*span, ("text", text), ("speaker", text)]
        columns += [labelled, ("events", many(pyarrow.struct(event))), ("flags", many(text))]
        columns.append(("holes", many(pyarrow.struct(hole))))
    noted = {"info": {"features": {"audio": {"_type": "Audio"}}}}  # so that `datasets` decodes it
    return pyarrow.schema(columns, metadata={"huggingface": json.dumps(noted)})


# What is there already


def _content_key(samples: Iterable[Sample], to: Format) -> str:
    digest = hashlib.sha256(f"{VERSION} {to}".encode())
    for sample in samples:
        stat = sample.sound.stat()
        known = [sample.key, sample.sound_name, stat.st_size, stat.st_mtime_ns, sample.row]
        digest.update(json.dumps(known).encode() + b"\n")
    return digest.hexdigest()[:32]


def _noted(out: Path, to: Format) -> dict[str, dict[str, object]]:
    """What packed.json says of the shards that are there, by name; nothing where it cannot be read."""
    try:
        noted = json.loads((out / "packed.json").read_text(encoding="utf-8"))
        shards = {name: dict(shard) for name, shard in noted["shards"].items() if SHARD.fullmatch(name)}
        kind = noted["to"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    if kind != to and shards:
        raise PackError(f"{out}: expected a new folder or shards of {to}, found {kind}; give another --out")
    return shards


def _note(out: Path, to: Format, shards: dict[str, dict[str, object]]) -> None:
    text = json.dumps({"version": VERSION, "to": to, "shards": shards}, indent=1)
    write_whole(out / "packed.json", text + "\n")

"""Benchmarks as their owners ship them become questions of ours.

A row that cannot be used (its answer is no choice, its sound file is missing) is a Bad with the reason. Sound files are
opened for their headers only, and only those of the rows that were selected. docs/benchmarks.md says what is where.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from tgsr import audio
from tgsr.data.corpora.folders import FORMATS, locate, place
from tgsr.disk.jsonl import repair_jsonl
from tgsr.disk.rows import Entry, json_lines
from tgsr.errors import Bad, RecordError
from tgsr.evaluation.owners.files import benchmark_questions, whose_file
from tgsr.evaluation.owners.owner import BenchmarkQuestion
from tgsr.records import Question, append_jsonl, as_row, parted_by_sound, read_questions

NAMED = ("domain", "column", "task")  # where --only looks for a word without a name
MOST_NAMED = 12  # values that an error message lists

T = TypeVar("T", bound="BenchmarkQuestion | Question")

log = logging.getLogger(__name__)


# --- sound ---------------------------------------------------------------------------------------------------------


def read_benchmark(
    path: Path,
    audio_folder: Path | None = None,
    only: Sequence[str] = (),
    *,
    limit: int | None = None,
    seed: int = 0,
) -> Iterator[Question | Bad]:
    """The questions of a benchmark's own file, and as Bad what cannot be asked.

    `audio_folder` holds the sound files in the owner's layout, or is the folder that they lie in; without it they are
    looked for beside `path`. Another suffix than the owner's will do (.flac for .wav, MELD's .mp4). Paths in the
    questions start at `path`'s folder. The length comes from the file's header. `only` as `selected` takes it; `limit`
    draws that many at random, a larger one keeping those of a smaller one.

    Raises RecordError where `path` is no benchmark's file, where `audio_folder` is no folder, and as `selected` does.
    """
    root = path.parent if audio_folder is None else audio_folder
    if not root.is_dir():
        raise RecordError(None, "no such folder", str(root), remedy="give --audio the folder of sound files")
    rows = list(benchmark_questions(path))
    yield from (row for row in rows if isinstance(row, Bad))
    chosen = selected([row for row in rows if isinstance(row, BenchmarkQuestion)], only, str(path))
    asked = limited(chosen, limit, seed)
    for item in tqdm(asked, desc=f"headers of {path.name}", unit="file", disable=len(asked) < 100):
        try:
            yield _question(item, root, path.parent)
        except ValueError as error:  # RecordError, AudioError
            yield item.entry.bad(error)


def _question(item: BenchmarkQuestion, root: Path, relative_to: Path) -> Question:
    """Raises RecordError where the sound file is in none of the places, AudioError where it cannot be read."""
    paths = [locate(root, name) for name in item.places]
    sound = next((path for path in paths if path.is_file()), None)
    if sound is None:
        where = " and ".join(str(path) for path in dict.fromkeys(paths))
        suffixes = ", ".join(FORMATS)
        raise RecordError("audio", f"no sound file: looked for {where}, or with another suffix ({suffixes})")
    return item.about(place(sound, relative_to), audio.duration(sound))


# --- selection -----------------------------------------------------------------------------------------------------


def selected(rows: Sequence[T], only: Sequence[str], file: str) -> list[T]:
    """The rows that --only names, in order; all of them where it names nothing.

    NAME=VALUE asks for a label of that name, or for task, split or clip_id; a word alone is a value of one of NAMED
    ("speech", "SER"). Values of one name widen the selection, and so do words; each further name narrows it. Upper
    and lower case are alike.

    Raises RecordError for a word or value that no row has, naming those that there are, and where nothing is left.
    """
    if not rows:
        return []
    wanted: dict[tuple[str, ...], set[str]] = {}
    for word in only:
        name, equals, value = word.partition("=")
        names, value = ((name,), value) if equals else (NAMED, word)
        if not any(value.casefold() in _folded(row, names) for row in rows):
            problem = f"--only {word}: no question has that; {_there_is(rows, names)}"
            raise RecordError(None, problem, file, remedy="choose from these")
        wanted.setdefault(names, set()).add(value.casefold())
    chosen = [row for row in rows if all(values & _folded(row, names) for names, values in wanted.items())]
    if not chosen:
        problem = f"no question is all of --only {' '.join(only)}"
        raise RecordError(None, problem, file, remedy="ask for less at once")
    return chosen


def limited(rows: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """`limit` of the rows, drawn by `seed`, in their order; those of a smaller limit are among them."""
    if limit is None or limit >= len(rows):
        return list(rows)
    drawn = np.random.default_rng(seed).permutation(len(rows))[:limit]
    return [rows[index] for index in sorted(drawn)]


def _named(row: BenchmarkQuestion | Question) -> list[tuple[str, str]]:
    """What --only can ask for: the labels and some fields, by name."""
    fields = [("task", row.task), ("split", row.split), ("clip_id", row.clip_id)]
    return [*row.labels, *((name, value) for name, value in fields if value)]


def _folded(row: BenchmarkQuestion | Question, names: Sequence[str]) -> set[str]:
    return {value.casefold() for name, value in _named(row) if name in names}


def _there_is(rows: Sequence[BenchmarkQuestion | Question], names: Sequence[str]) -> str:
    """What a message says of the values of these names, and of the names where these have none."""
    pairs = {pair for row in rows for pair in _named(row)}
    lists = []
    for name in names:
        values = sorted(value for label, value in pairs if label == name)
        more = f", and {len(values) - MOST_NAMED} more" if len(values) > MOST_NAMED else ""
        if values:
            lists.append(f"{name} is {', '.join(values[:MOST_NAMED])}{more}")
    others = sorted({label for label, _ in pairs} | {"task", "split", "clip_id"})
    return "; ".join(lists) or f"the names are {', '.join(others)}"


def questions_of(
    path: Path,
    audio_folder: Path | None = None,
    only: Sequence[str] = (),
    errors: Path | None = None,
    *,
    skip_bad: bool = False,
    limit: int | None = None,
    seed: int = 0,
) -> list[Question]:
    """What any command asks: questions.jsonl, or a benchmark's own file as `read_benchmark` takes it.

    `audio_folder` is where the sound of a benchmark lies, or that of questions.jsonl has moved to.

    A benchmark's bad rows are listed in `errors`, each once however often the command is run again, and the others
    go on; without `errors` the first one is raised. Of questions.jsonl that holds where `skip_bad`, else its first bad
    row is raised; one whose sound may be either of two files below `audio_folder` is listed as a benchmark's.

    Raises RecordError for that, where no question is left, and as `read_benchmark` and `selected` do.
    """
    if limit is not None and limit < 1:
        problem = f"--limit {limit}: must be 1 or more"
        raise RecordError(None, problem, str(path), remedy="leave it out for all")
    if not any(whose_file(path)):
        questions = read_questions(path, on_error=errors if skip_bad else None)
        asked = limited(selected(questions, only, str(path)), limit, seed)
        there, unclear = parted_by_sound(asked, audio_folder)
        if unclear:
            if errors is None:
                raise next(iter(unclear.values()))
            listed = [
                Bad(str(path), str(why), None, "audio", json.dumps(as_row(there[at]), ensure_ascii=False))
                for at, why in unclear.items()
            ]
            _list_bad(errors, listed)
            log.warning("%s: the sound of %d questions is unclear; see %s", path, len(unclear), errors)
        return [question for at, question in enumerate(there) if at not in unclear]
    rows = list(read_benchmark(path, audio_folder, only, limit=limit, seed=seed))
    bad = [row for row in rows if isinstance(row, Bad)]
    questions = [row for row in rows if isinstance(row, Question)]
    if bad and (errors is None or not questions):
        row = bad[0] if errors is None else bad[-1]  # the last one is of a missing sound file, where any is
        problem = row.error if errors is None else f"none of {len(bad)} rows can be asked; {row.error}"
        has_sound = row.field != "audio"
        remedy = "correct or leave out the row" if has_sound else "give --audio the folder of sound files"
        raise RecordError(row.field, problem, row.file, row.line, remedy)
    if bad and errors is not None:
        _list_bad(errors, bad)
        log.warning("%s: %d rows cannot be asked; see %s", path, len(bad), errors)
    return questions


def _list_bad(errors: Path, bad: Iterable[Bad]) -> None:
    """Each bad row as a line of the errors file, unless it is there from an earlier run."""
    errors.parent.mkdir(parents=True, exist_ok=True)
    before = set()
    if errors.exists():
        repair_jsonl(errors)
        rows = [entry.values for entry in json_lines(errors) if isinstance(entry, Entry)]
        before = {(row.get("file"), row.get("line"), row.get("error")) for row in rows}
    for row in bad:
        if (row.file, row.line, row.error) not in before:
            append_jsonl(errors, asdict(row))

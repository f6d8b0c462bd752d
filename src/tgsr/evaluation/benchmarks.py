"""Benchmarks as their owners ship them: MMAU, MMAR, AIR-Bench's foundation part and MELD become questions of ours.

A row that cannot be used (its answer is no choice, its sound file is missing) is a Bad with the reason. Sound files are
opened for their headers only, and only those of the rows that were selected. docs/benchmarks.md says what is where.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from tqdm import tqdm

from tgsr import audio
from tgsr.data.corpora import meld
from tgsr.data.corpora.folders import FORMATS, locate, place
from tgsr.disk.jsonl import repair_jsonl
from tgsr.disk.rows import Entry, json_lines, table
from tgsr.errors import Bad, RecordError
from tgsr.records import Question, append_jsonl, read_questions

Benchmark = Literal["mmau", "mmar", "airbench", "meld"]

EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
MELD_QUESTION = "Which emotion does the speaker express?"  # MELD's rows ask nothing: the words are ours
AIRBENCH_CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
COLUMNS = {
    "Speaker_Emotion_Recontion": "SER",  # the owner's spelling
    "Speaker_Number_Verification": "SNV",
    "Speaker_Intent_Classification": "SIC",
}
"""The columns of the paper's table 2, by AIR-Bench's names of its tasks."""
NAMED = ("domain", "column", "task")  # where --only looks for a word without a name
MOST_NAMED = 12  # values that an error message lists

# What only rows of that benchmark have.
_MARKS: dict[Benchmark, tuple[str, ...]] = {
    "mmau": ("audio_id", "choices"),
    "mmar": ("audio_path", "modality", "choices"),
    "airbench": ("uniq_id", "answer_gt", "choice_a"),
    "meld": ("Utterance", "Emotion", "Dialogue_ID", "Utterance_ID"),
}
_KNOWN = (
    "give questions.jsonl, or a benchmark's own file: MMAU's mmau-test-mini.json, MMAR's MMAR-meta.jsonl, AIR-Bench's "
    "Foundation_meta.json, MELD's *_sent_emo.csv"
)

T = TypeVar("T", bound="Item | Question")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """One row of a benchmark, checked, whose sound file was not looked for yet.

    `clip_id` is the same for rows about the same file. `places` are the paths below the audio folder at which the file
    may lie, the owner's own layout first.
    """

    entry: Entry
    id: str
    clip_id: str
    places: tuple[str, ...]
    question: str
    choices: tuple[str, ...]
    answer: str
    task: str
    labels: tuple[tuple[str, str], ...]
    split: str = "test"


# --- what a file is ------------------------------------------------------------------------------------------------


def benchmark_of(path: Path) -> Benchmark | None:
    """Which benchmark's own file this is, told from its first row that can be read, not from its name.

    None for any other file of JSON lines: it may be questions.jsonl. Raises RecordError for a JSON list and a table
    that are no benchmark's, and OSError where the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    first = next((entry for entry in _entries(path, start) if isinstance(entry, Entry)), None)
    for benchmark, marks in _MARKS.items():
        if first and "clip_id" not in first.values and all(mark in first.values for mark in marks):
            return benchmark
    if start in (b"{", b""):
        return None
    found = f"has the keys {', '.join(map(str, first.values))!s:.200}" if first else "has no row"
    raise RecordError(None, f"is no benchmark's file: its first row {found}", str(path), remedy=_KNOWN)


def items(path: Path) -> Iterator[Item | Bad]:
    """Every row of a benchmark's file in its order, no sound file touched.

    Bad: a row that is not JSON, has no id, question or answer, an answer that is none of its choices, an id that an
    earlier row has, and a clip of MELD that is known to be damaged. Choices that are null or blank are left out.
    Raises RecordError where the file is no benchmark's.
    """
    benchmark = benchmark_of(path)
    if benchmark is None:
        raise RecordError(None, "is no benchmark's own file", str(path), remedy=_KNOWN)
    makers: dict[Benchmark, Callable[[Entry], Item]] = {
        "mmau": _mmau,
        "mmar": _mmar,
        "airbench": _airbench,
        "meld": _meld,
    }
    make = makers[benchmark]
    seen: dict[str, int | None] = {}
    for entry in _entries(path):
        if isinstance(entry, Bad):
            yield entry
            continue
        try:
            item = make(entry)
            if item.id in seen:
                raise RecordError("id", f"{item.id!r} was already on line {seen[item.id]}")
        except RecordError as error:
            yield entry.bad(error)
            continue
        seen[item.id] = entry.line
        yield item


def _entries(path: Path, start: bytes = b"") -> Iterator[Entry | Bad]:
    """The rows of a JSON list (their line is their place in it), of JSON lines, or of a table with a header."""
    if not start:
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[":
        for number, values in enumerate(_json_list(path), 1):
            if isinstance(values, dict):
                yield Entry(path, number, values)
            else:
                yield Bad(str(path), f"must be a JSON object, got {values!r:.80}", number)
    elif start in (b"{", b""):
        yield from json_lines(path)
    else:
        yield from table(path)


def _json_list(path: Path) -> list[object]:
    try:
        values = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        problem = f"begins as a JSON list and is none ({error})"
        raise RecordError(None, problem, str(path), remedy="copy or download it again") from None
    return list(values)


# --- rows ----------------------------------------------------------------------------------------------------------


def _mmau(entry: Entry) -> Item:
    choices = _choices(entry.values.get("choices"))
    return Item(
        entry,
        entry.text("id"),
        f"mmau-{Path(entry.text('audio_id')).stem}",
        _below(entry.text("audio_id")),
        entry.text("question"),
        choices,
        _answer(entry, "answer", choices),
        " and ".join(_several(entry, "category")) or entry.text("task"),
        _labels(
            ("benchmark", "mmau"),
            ("domain", entry.maybe("task")),
            *(("category", category) for category in _several(entry, "category")),
            ("sub-category", entry.maybe("sub-category")),
            ("difficulty", entry.maybe("difficulty")),
            ("dataset", entry.maybe("dataset")),
        ),
    )


def _mmar(entry: Entry) -> Item:
    choices = _choices(entry.values.get("choices"))
    languages = (entry.maybe("language") or "").split("|")
    return Item(
        entry,
        entry.text("id"),
        f"mmar-{Path(entry.text('audio_path')).stem}",
        _below(entry.text("audio_path")),
        entry.text("question"),
        choices,
        _answer(entry, "answer", choices),
        " and ".join(_several(entry, "category")) or entry.text("modality"),
        _labels(
            ("benchmark", "mmar"),
            ("domain", entry.maybe("modality")),
            *(("category", category) for category in _several(entry, "category")),
            ("sub-category", entry.maybe("sub-category")),
            ("dataset", entry.maybe("source")),
            *(("language", language) for language in languages),
        ),
    )


def _airbench(entry: Entry) -> Item:
    choices = _choices([entry.values.get(column) for column in AIRBENCH_CHOICES])
    task = entry.text("task_name")
    folder = f"{task}_{entry.text('dataset_name')}"
    name = entry.text("path")
    return Item(
        entry,
        f"{folder}-{entry.text('uniq_id')}",  # whether uniq_id is unique beyond its folder, nobody says
        f"airbench-{folder}-{Path(name).stem}",
        (f"Foundation/{folder}/{name}", f"{folder}/{name}"),
        entry.text("question"),
        choices,
        _answer(entry, "answer_gt", choices),
        task,
        _labels(
            ("benchmark", "airbench"),
            ("domain", airbench_domain(task)),
            ("category", task),
            ("dataset", entry.text("dataset_name")),
            ("column", COLUMNS.get(task)),
        ),
    )


def airbench_domain(task: str) -> str:
    """speech, sound or music, as the owner groups the tasks; vocal_sound_classification and AQA are sound."""
    if task.startswith("Music"):
        return "music"
    return "speech" if task.startswith(("Speaker", "Speech", "Spoken", "Synthesized")) else "sound"


def _meld(entry: Entry) -> Item:
    split = _meld_split(entry.file)
    name = f"dia{entry.text('Dialogue_ID')}_utt{entry.text('Utterance_ID')}"
    if (split, name) in meld.DAMAGED:
        raise RecordError("audio", f"{name}: {meld.DAMAGED[split, name]}")
    folder = meld.FOLDERS[split]
    emotion = entry.text("Emotion").lower()
    if emotion not in EMOTIONS:
        raise RecordError("Emotion", f"{emotion!r} is none of {', '.join(EMOTIONS)}")
    return Item(
        entry,
        f"meld-{split}-{name}",
        f"meld-{split}-{name}",
        tuple(f"{below}{name}.wav" for below in (f"{folder}/", f"{split}/{folder}/", f"{split}/", "")),
        MELD_QUESTION,
        EMOTIONS,
        emotion,
        "Emotion Recognition",
        _labels(
            ("benchmark", "meld"),
            ("domain", "speech"),
            ("category", emotion),
            ("dataset", "MELD"),
            ("language", "en"),
        ),
        split,
    )


def _meld_split(path: Path) -> str:
    """The csv files do not say their split, so their names must: train_..., dev_..., anything else is the test set."""
    split = path.name.partition("_")[0].lower()
    return split if split in meld.FOLDERS else "test"


def _below(name: str) -> tuple[str, str]:
    """The owner's path ("./audio/x.wav"), and the file alone, where --audio names the folder itself."""
    return os.path.normpath(name), os.path.basename(name)


def _several(entry: Entry, field: str) -> tuple[str, ...]:
    """The texts of a value that is one text or a list of them; null and blank ones left out."""
    value = entry.values.get(field)
    each = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(str(item).strip() for item in each if item is not None and str(item).strip()))


def _labels(*pairs: tuple[str, str | None]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in pairs if value)


def _choices(values: object) -> tuple[str, ...]:
    """The choices' texts as they are; null and blank ones left out. Raises RecordError for what is no list of texts."""
    if not isinstance(values, list):
        raise RecordError("choices", f"must be a list, got {values!r:.80}")
    kept = [value for value in values if value is not None and str(value).strip()]
    for value in kept:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise RecordError("choices", f"each must be text, got {value!r:.80}")
    return tuple(map(str, kept))


def _answer(entry: Entry, field: str, choices: Sequence[str]) -> str:
    """The choice that the row says is right. Raises RecordError where it is none of them."""
    value = entry.values.get(field)
    if value is None:
        raise RecordError(
            field, "is missing: the owner keeps the answers of this part, so it cannot be scored here"
        )
    wanted = str(value)
    found = [choice for choice in choices if choice == wanted] or [
        choice for choice in choices if choice.strip() == wanted.strip()
    ]
    if not found:
        raise RecordError(field, f"{wanted!r:.80} is not one of the choices {list(choices)!r:.200}")
    return found[0]


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
    rows = list(items(path))
    yield from (row for row in rows if isinstance(row, Bad))
    chosen = selected([row for row in rows if isinstance(row, Item)], only, str(path))
    for item in tqdm(
        limited(chosen, limit, seed), desc=f"headers of {path.name}", unit="file", disable=len(chosen) < 100
    ):
        try:
            yield _question(item, root, path.parent)
        except ValueError as error:  # RecordError, AudioError
            yield item.entry.bad(error)


def _question(item: Item, root: Path, relative_to: Path) -> Question:
    """Raises RecordError where the sound file is in none of the places, AudioError where it cannot be read."""
    tried = [locate(root, name) for name in item.places]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        where = " and ".join(str(path) for path in dict.fromkeys(tried))
        suffixes = ", ".join(FORMATS)
        raise RecordError("audio", f"no sound file: looked for {where}, or with another suffix ({suffixes})")
    return Question(
        id=item.id,
        clip_id=item.clip_id,
        audio=place(found, relative_to),
        duration=audio.duration(found),
        kind="choice",
        question=item.question,
        answer=item.answer,
        choices=item.choices,
        task=item.task,
        split=item.split,
        labels=item.labels,
    )


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
            raise RecordError(
                None, f"--only {word}: {_there_is(rows, names)}", file, remedy="choose from these"
            )
        wanted.setdefault(names, set()).add(value.casefold())
    found = [row for row in rows if all(values & _folded(row, names) for names, values in wanted.items())]
    if not found:
        raise RecordError(
            None, f"no question is all of --only {' '.join(only)}", file, remedy="ask for less at once"
        )
    return found


def limited(rows: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """`limit` of the rows, drawn by `seed`, in their order; those of a smaller limit are among them."""
    if limit is None or limit >= len(rows):
        return list(rows)
    drawn = np.random.default_rng(seed).permutation(len(rows))[:limit]
    return [rows[index] for index in sorted(drawn)]


def _values(row: Item | Question, names: Sequence[str]) -> list[str]:
    fields = [getattr(row, name) for name in ("task", "split", "clip_id") if name in names]
    return [value for label, value in row.labels if label in names] + [value for value in fields if value]


def _folded(row: Item | Question, names: Sequence[str]) -> set[str]:
    return {value.casefold() for value in _values(row, names)}


def _there_is(rows: Sequence[Item | Question], names: Sequence[str]) -> str:
    """What a message says of the values of these names, and of the names where these have none."""
    lists = []
    for name in names:
        there = sorted({value for row in rows for value in _values(row, (name,))})
        more = f", and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else ""
        if there:
            lists.append(f"{name} is {', '.join(there[:MOST_NAMED])}{more}")
    if not lists:
        others = sorted({label for row in rows for label, _ in row.labels} | {"task", "split", "clip_id"})
        return f"no question has that; the names are {', '.join(others)}"
    return f"no question has that; {'; '.join(lists)}"


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

    A benchmark's bad rows are listed in `errors`, each once however often the command is run again, and the others
    go on; without `errors` the first one is raised. Of questions.jsonl that holds where `skip_bad`, else its first bad
    row is raised.

    Raises RecordError for that, where no question is left, and as `read_benchmark` and `selected` do.
    """
    if limit is not None and limit < 1:
        raise RecordError(
            None, f"--limit {limit}: must be 1 or more", str(path), remedy="leave it out for all"
        )
    if benchmark_of(path) is None:
        if audio_folder is not None:
            raise RecordError(
                None,
                f"--audio {audio_folder}: the questions say where their sound files are",
                str(path),
                remedy="leave it out; it is for the benchmarks' own files",
            )
        questions = read_questions(path, on_error=errors if skip_bad else None)
        return limited(selected(questions, only, str(path)), limit, seed)
    found = list(read_benchmark(path, audio_folder, only, limit=limit, seed=seed))
    bad = [one for one in found if isinstance(one, Bad)]
    questions = [one for one in found if isinstance(one, Question)]
    if bad and (errors is None or not questions):
        first = bad[0] if errors is None else bad[-1]  # the last one is of a missing sound file, where any is
        raise RecordError(
            first.field,
            first.error if errors is None else f"none of {len(bad)} rows can be asked; {first.error}",
            first.file,
            first.line,
            "give --audio the folder of sound files"
            if first.field == "audio"
            else "correct or leave out the row",
        )
    if bad and errors is not None:
        _list_bad(errors, bad)
        log.warning("%s: %d rows cannot be asked; see %s", path, len(bad), errors)
    return questions


def _list_bad(errors: Path, bad: Iterable[Bad]) -> None:
    """Each bad row as a line of the errors file, unless it is there from an earlier run."""
    errors.parent.mkdir(parents=True, exist_ok=True)
    if errors.exists():
        repair_jsonl(errors)
    before = {
        (entry.maybe("file"), entry.maybe("line"), entry.maybe("error"))
        for entry in (json_lines(errors) if errors.exists() else ())
        if isinstance(entry, Entry)
    }
    for one in bad:
        line = None if one.line is None else str(one.line)
        if (one.file, line, one.error.strip()) not in before:
            append_jsonl(errors, asdict(one))

"""The index that the page is served from: questions with every model's responses and scores, made once.

It is read leniently. A row that cannot be used is left out and noted with file and line, a half-written last line is
a file that is still growing, and what remains is shown.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from tqdm import tqdm

from tgsr.disk.jsonl import Row, row_of
from tgsr.errors import RecordError
from tgsr.evaluation.scoring.items import ScoredChoice, ScoredPhrase, score_response
from tgsr.grounding import count_mentions, find_mentions
from tgsr.overlap import HIGH_OVERLAP, high_overlap
from tgsr.records import Clip, Question, Response, as_row, clip_of, response_of
from tgsr.report.write import prediction_files
from tgsr.statistics.pictures import stated
from tgsr.timeline import END_SLACK, Seconds, Span, Word

T = TypeVar("T")
Sort = Literal["order", "worst", "best"]
GROUNDED_IOU = 0.3  # a trace of less has not heard its evidence where it says
MOST_NOTES = 20  # of one file; the rest is counted
MOST_VALUES = 200  # of a label, to be offered as a list; of more, none is
MOST_SIZE = 200  # items a page
MANY = 5000  # questions, from which on a progress bar is shown
CLIP_FILES = "clips*.jsonl"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the scores make of one response, as `tgsr score` counts it.

    `right`: the official letter, or IoU >= 0.7; None where nobody knows. `iou`: a phrase's, or the trace's. `k`: the
    official count of mentions. `grounded`: False where no interval inside the clip is cited, or where the evidence is
    known and IoU < 0.3. `quality` in [0, 1] as the report ranks: a phrase's IoU; for a choice the mean of right and
    trace IoU, or right alone without evidence. `chosen`: the option that was read.
    """

    right: bool | None
    iou: float | None
    k: int
    grounded: bool
    quality: float | None
    chosen: str | None
    first: tuple[Seconds, Seconds] | None


@dataclass(frozen=True, slots=True)
class Item:
    """One question and, in the index's order of models, the first response of each model that was asked.

    `sound` is its audio as the row names it, absolute; `text` what is searched, lower-cased.
    """

    key: str
    question: Question
    sound: Path
    responses: tuple[Response, ...]
    verdicts: Mapping[str, Verdict]
    text: str
    disagree: bool

    def response(self, model: str) -> Response | None:
        return next((response for response in self.responses if response.model == model), None)


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for. "" and False ask for nothing; all that is asked for must hold.

    `wrong`, `ungrounded` and the order "worst" or "best" are about `model`, or the index's last one.
    """

    model: str = ""
    wrong: bool = False
    ungrounded: bool = False
    disagree: bool = False
    kind: str = ""
    task: str = ""
    split: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    text: str = ""
    sort: Sort = "order"


@dataclass(frozen=True, slots=True)
class Index:
    """Everything that is shown. `roots` are the run folders, `audio_roots` where audio may lie besides."""

    title: str
    models: tuple[str, ...]
    items: tuple[Item, ...]
    notes: tuple[str, ...]
    roots: tuple[Path, ...]
    audio_roots: tuple[Path, ...]
    words: Mapping[str, tuple[Clip, ...]]
    by_key: Mapping[str, Item] = field(repr=False)

    def words_of(self, item: Item) -> tuple[Word, ...] | None:
        """The clip's words; None where no clips file has a clip of that id and length."""
        for clip in self.words.get(item.question.clip_id, ()):
            if abs(clip.duration - item.question.duration) <= 2 * END_SLACK:
                return clip.words
        return None


# --- reading ---------------------------------------------------------------------------------------------


def read_index(
    runs: Sequence[Path],
    *,
    clips: Sequence[Path] = (),
    audio_roots: Sequence[Path] = (),
    title: str | None = None,
) -> Index:
    """The index of the prediction files among `runs` and in and below the folders among them.

    `clips` are clips files with words; without any, those in the run folders and beside them are used. Raises
    FileNotFoundError for a path that does not exist and where there is no prediction file; nothing else.
    """
    for path in (*clips, *audio_roots):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
    notes: list[str] = []
    roots = tuple(dict.fromkeys(_folder(run) for run in runs))
    files = [path for path in prediction_files(runs) if _stays(path, runs, roots, notes)]
    models: dict[str, None] = {}
    found: dict[Question, tuple[Question, Path, dict[str, Response]]] = {}
    for path in files:
        base = Path(os.path.realpath(path.parent))
        sounds: dict[str, Path] = {}
        for response in _rows(path, response_of, notes):
            name = response.question.audio
            if name not in sounds:
                sounds[name] = Path(os.path.normpath(base / name))
            models.setdefault(response.model)
            same = replace(response.question, audio=str(sounds[name]))  # each file has its own relative path
            _, _, by_model = found.setdefault(same, (response.question, sounds[name], {}))
            by_model.setdefault(response.model, response)
    by_key: dict[str, Item] = {}
    bar = tqdm(found.values(), desc="score", unit="question", disable=len(found) < MANY)
    for question, sound, by_model in bar:
        name = str(sound.relative_to(roots[0]) if sound.is_relative_to(roots[0]) else sound)
        key = _key(replace(question, audio=name), by_key)
        by_key[key] = _item(key, question, sound, tuple(by_model.values()))
    clips = clips or _clip_files(runs)
    words = _words(clips, {question.clip_id for question, *_ in found.values()}, notes)
    return Index(
        title=title or ", ".join(dict.fromkeys(_name(run) for run in runs)),
        models=tuple(models),
        items=tuple(by_key.values()),
        notes=tuple(notes),
        roots=roots,
        audio_roots=tuple(Path(os.path.realpath(root)) for root in audio_roots),
        words=words,
        by_key=by_key,
    )


def _rows(path: Path, parse: Callable[[Row], T], notes: list[str]) -> Iterator[T]:
    """The rows that can be used; what is wrong with the others goes to `notes`."""
    n_bad = 0
    try:
        with path.open("rb") as file:
            for line, content in enumerate(file, 1):
                content = content.removeprefix(codecs.BOM_UTF8) if line == 1 else content
                if not content.strip():
                    continue
                try:
                    row = parse(row_of(content))
                except RecordError as error:
                    if not content.endswith(b"\n"):
                        notes.append(
                            f"{path}:{line}: the last line is half-written and left out until it is whole"
                        )
                        continue
                    n_bad += 1
                    if n_bad <= MOST_NOTES:
                        notes.append(f"{path}:{line}: left out: {error}")
                else:
                    yield row
    except OSError as error:
        notes.append(f"{path}: cannot be read on ({error.strerror})")
    if n_bad > MOST_NOTES:
        notes.append(f"{path}: {n_bad - MOST_NOTES} more rows are left out")


def _key(question: Question, taken: Mapping[str, Item]) -> str:
    """A name for the question that stays when files grow or come in; of two of one name the second gets another."""
    content = json.dumps(as_row(question), sort_keys=True).encode()
    for n in range(len(taken) + 1):
        key = hashlib.sha256(content + str(n).encode()).hexdigest()[:16]
        if key not in taken:
            return key
    raise AssertionError("more keys are taken than there are")


def _item(key: str, question: Question, sound: Path, responses: tuple[Response, ...]) -> Item:
    verdicts = {response.model: verdict_of(response) for response in responses}
    told = (question.id, question.question, question.phrase or "", *(r.text for r in responses))
    return Item(
        key,
        question,
        sound,
        responses,
        verdicts,
        text="\n".join(told).lower(),
        disagree=_disagree(question, list(verdicts.values())),
    )


def verdict_of(response: Response) -> Verdict:
    """One response as `tgsr score` scores it; any text has a verdict."""
    question = response.question
    item = score_response(response)[0]
    spans = [stated(m.start, m.end, question.duration) for m in find_mentions(response.text)]
    is_cited = any(span.is_audible for span in spans)
    right: bool | None
    if isinstance(item, ScoredPhrase):
        right = None if item.iou is None else high_overlap(item.iou)
        iou, chosen, first, quality = item.iou, None, item.first, item.iou
    else:
        assert isinstance(item, ScoredChoice)
        right, iou, chosen, first = item.official, item.trace_iou, item.chosen, None
        quality = None if right is None else float(right)
        if quality is not None and question.evidence:
            quality = (quality + (iou or 0.0)) / 2
    is_grounded = is_cited and not (bool(question.evidence) and (iou or 0.0) < GROUNDED_IOU)
    return Verdict(right, iou, count_mentions(response.text), is_grounded, quality, chosen, first)


def _disagree(question: Question, verdicts: Sequence[Verdict]) -> bool:
    """Whether two models answer differently: other options, or first intervals with an IoU below 0.7."""
    if len(verdicts) < 2:
        return False
    if question.kind == "choice":
        return len({verdict.chosen for verdict in verdicts}) > 1
    firsts = [None if verdict.first is None else Span(*verdict.first) for verdict in verdicts]
    known = [span for span in firsts if span is not None]
    if len(known) < len(firsts):
        return bool(known)
    return any(one.iou(other) < HIGH_OVERLAP for one in known for other in known)


def _stays(path: Path, runs: Sequence[Path], roots: Sequence[Path], notes: list[str]) -> bool:
    """Whether a file that was found in a run's folder lies there; one that was named may lie anywhere."""
    real = Path(os.path.realpath(path))
    if path in runs or any(real.is_relative_to(root) for root in roots):
        return True
    notes.append(f"{path}: left out: is a link that leads out of the run, to {real}; name that file itself")
    return False


def _name(run: Path) -> str:
    return Path(os.path.abspath(run)).name or str(run)


def _folder(run: Path) -> Path:
    return Path(os.path.realpath(run if run.is_dir() else run.parent))


def _clip_files(runs: Sequence[Path]) -> list[Path]:
    """clips*.jsonl in and below the runs' folders and, not below, beside them."""
    folders = [_folder(run) for run in runs]
    found = [
        path for folder in folders for path in (*folder.rglob(CLIP_FILES), *folder.parent.glob(CLIP_FILES))
    ]
    return sorted({path.resolve() for path in found if path.is_file() and ".errors" not in path.name})


def _words(files: Iterable[Path], wanted: set[str], notes: list[str]) -> dict[str, tuple[Clip, ...]]:
    """Clips with words that a question is about, by id."""
    found: dict[str, tuple[Clip, ...]] = {}
    for path in files:
        for clip in _rows(path, clip_of, notes):
            if clip.words and clip.id in wanted:
                found[clip.id] = (*found.get(clip.id, ()), clip)
    return found


# --- looking things up -----------------------------------------------------------------------------------


def select(index: Index, query: Query) -> list[Item]:
    """The items that a query asks for, in its order; those without a quality come last in "worst" and "best".

    A model that the index has not gives [].
    """
    model = query.model or (index.models[-1] if index.models else "")
    text = query.text.lower()
    chosen = [item for item in index.items if _fits(item, query, model, text)]
    if query.sort == "order":
        return chosen
    sign = 1 if query.sort == "worst" else -1
    known = [(quality, item) for item in chosen if (quality := _quality(item, model)) is not None]
    known.sort(key=lambda pair: sign * pair[0])
    return [item for _, item in known] + [item for item in chosen if _quality(item, model) is None]


def _fits(item: Item, query: Query, model: str, text: str) -> bool:
    question = item.question
    if query.kind and question.kind != query.kind:
        return False
    if query.task and question.task != query.task:
        return False
    if query.split and question.split != query.split:
        return False
    if query.disagree and not item.disagree:
        return False
    if any(pair not in question.labels for pair in query.labels):
        return False
    verdict = item.verdicts.get(model)
    if query.model and verdict is None:
        return False
    if query.wrong and (verdict is None or verdict.right is not False):
        return False
    if query.ungrounded and (verdict is None or verdict.grounded):
        return False
    return not text or text in item.text


def _quality(item: Item, model: str) -> float | None:
    verdict = item.verdicts.get(model)
    return None if verdict is None else verdict.quality


# --- as JSON ---------------------------------------------------------------------------------------------


def run_row(index: Index) -> dict[str, object]:
    """What /api/run says, less "ask"."""
    questions = [item.question for item in index.items]
    n_of = Counter(response.model for item in index.items for response in item.responses)
    labels: dict[str, dict[str, None]] = {}
    for question in questions:
        for name, value in question.labels:
            labels.setdefault(name, {}).setdefault(value)
    return {
        "title": index.title,
        "models": [{"name": model, "n": n_of[model]} for model in index.models],
        "tasks": sorted({question.task for question in questions if question.task}),
        "splits": sorted({question.split for question in questions}),
        "kinds": sorted({question.kind for question in questions}),
        "labels": {
            name: sorted(values) for name, values in sorted(labels.items()) if len(values) <= MOST_VALUES
        },
        "n_items": len(questions),
        "notes": list(index.notes),
    }


def summary_row(item: Item) -> dict[str, object]:
    """An item in a list."""
    question = item.question
    return {
        "id": question.id,
        "key": item.key,
        "question": question.question,
        "kind": question.kind,
        "task": question.task,
        "split": question.split,
        "duration": question.duration,
        "verdicts": {model: _verdict_row(verdict) for model, verdict in item.verdicts.items()},
    }


def item_row(index: Index, item: Item) -> dict[str, object]:
    """An item by itself, less "sound"."""
    question = item.question
    words = index.words_of(item)
    return {
        "key": item.key,
        "id": question.id,
        "question": question.question,
        "kind": question.kind,
        "choices": list(question.choices),
        "answer": question.answer,
        "phrase": question.phrase,
        "task": question.task,
        "split": question.split,
        "labels": labels_row(question),
        "duration": question.duration,
        "clip_id": question.clip_id,
        "evidence": [[span.start, span.end] for span in question.evidence],
        "words": None if words is None else [_word_row(word) for word in words],
        "responses": [_response_row(item, response) for response in item.responses],
    }


def labels_row(question: Question) -> dict[str, list[str]]:
    return {name: list(question.labelled(name)) for name, _ in question.labels}


def mention_rows(text: str, duration: Seconds) -> list[dict[str, object]]:
    """The intervals that a text states, and what is wrong with each in a clip of that length."""
    rows: list[dict[str, object]] = []
    at = units = 0
    for mention in find_mentions(text):
        first = units + _units(text[at : mention.text_start])
        last = first + _units(text[mention.text_start : mention.text_end])
        at, units = mention.text_end, last
        judged = stated(mention.start, mention.end, duration)
        rows.append(
            {
                "text_start": first,
                "text_end": last,
                "start": judged.start,
                "end": judged.end,
                "problem": judged.problem,
                "audible": judged.is_audible,
            }
        )
    return rows


def _units(text: str) -> int:
    """The text's length as JavaScript counts it: a character beyond U+FFFF is two."""
    return len(text) if text.isascii() else len(text) + sum(character > "\uffff" for character in text)


def _verdict_row(verdict: Verdict) -> dict[str, object]:
    return {"right": verdict.right, "iou": verdict.iou, "k": verdict.k, "grounded": verdict.grounded}


def _word_row(word: Word) -> dict[str, object]:
    return {"word": word.text, "start": word.start, "end": word.end, "speaker": word.speaker}


def _response_row(item: Item, response: Response) -> dict[str, object]:
    verdict = item.verdicts[response.model]
    return {
        "model": response.model,
        "text": response.text,
        "mentions": mention_rows(response.text, item.question.duration),
        "chosen": verdict.chosen,
        **_verdict_row(verdict),
    }

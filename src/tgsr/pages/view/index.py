"""The index that the page is served from: questions with every model's responses and scores, made once.

It is read leniently. A row that cannot be used is left out and noted with file and line, a half-written last line is
a file that is still growing, and what remains is shown.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Literal, TypeVar, get_args

from tqdm import tqdm

from tgsr.data.alignments.cues import is_parted
from tgsr.disk.jsonl import Row, lines_in, row_of
from tgsr.errors import Bad, RecordError
from tgsr.evaluation.scoring.items import Scored, ScoredChoice, ScoredPhrase, score_response
from tgsr.evaluation.scoring.responses import owner_of_predictions, owners_answers
from tgsr.evidence import HIT_IOU, evidence_scores, ungrounded
from tgsr.grounding import Mention, count_mentions, find_mentions, mentions_in
from tgsr.overlap import HIGH_OVERLAP, high_overlap
from tgsr.records import Clip, Question, Response, as_row, clip_of, response_of
from tgsr.report.cited import CitedPlace, cited_places
from tgsr.report.evidence import in_words
from tgsr.report.write import prediction_files
from tgsr.statistics.intervals import Bootstrap, percent
from tgsr.statistics.pictures import stated
from tgsr.timeline import END_SLACK, Seconds, Span, Word

T = TypeVar("T")
Sort = Literal["order", "worst", "best", "away"]
Flag = Literal["wrong", "ungrounded", "missed", "misquoted", "late"]
FLAGS = get_args(Flag)
GROUNDED_IOU = 0.3  # a trace of less has not heard its evidence where it says
MOST_NOTES = 20  # of one file; the rest is counted
MOST_VALUES = 200  # of a label, to be offered as a list; of more, none is
MOST_SIZE = 200  # items a page
MANY = 5000  # questions, from which on a progress bar is shown
CLIP_FILES = "clips*.jsonl"
LISTED = ("id", "question", "kind", "task", "split", "duration")  # of a question, in a list of them


@dataclass(frozen=True, slots=True)
class ResponseScore:
    """One response's scores, as `tgsr score` counts them.

    `right`: the official letter, or IoU >= 0.7; None where nobody knows. `iou`: a phrase's, or the trace's. `k`: the
    official count of mentions. `grounded`: False where no interval inside the clip is cited, or where the evidence is
    known and IoU < 0.3. `hit`: some cited interval has an IoU >= 0.5 with a piece of the evidence; `quoted`: what it
    quotes is said there; None where nobody knows. `late`: it cites what is past the clip's end. `place`: IoU with the
    evidence, 0 where nothing is cited. `quality` in [0, 1] as the report ranks: a phrase's IoU; for a choice the mean
    of right and trace IoU, or right alone without evidence. `chosen`: the option that was read.
    """

    right: bool | None
    iou: float | None
    k: int
    grounded: bool
    hit: bool | None
    quoted: bool | None
    late: bool
    place: float | None
    quality: float | None
    chosen: str | None
    first: tuple[Seconds, Seconds] | None

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What the response is; what nobody knows, it is not."""
        known: dict[Flag, bool] = {
            "wrong": self.right is False,
            "ungrounded": not self.grounded,
            "missed": self.hit is False,
            "misquoted": self.quoted is False,
            "late": self.late,
        }
        return tuple(flag for flag, is_so in known.items() if is_so)


@dataclass(frozen=True, slots=True)
class ViewedQuestion:
    """One question and, in the index's order of models, the first response of each model that was asked.

    `sound` is its audio as the row names it, absolute; `text` what is searched, lower-cased.
    """

    key: str
    question: Question
    sound: Path
    responses: tuple[Response, ...]
    verdicts: Mapping[str, ResponseScore]
    text: str
    disagree: bool


@dataclass(frozen=True, slots=True)
class Query:
    """A search for questions. "" and False ask for nothing; all that is asked for must hold.

    The flags (FLAGS) and all orders but "order" are about `model`, or the index's last one. "away" has first what is
    farthest from the evidence.
    """

    model: str = ""
    wrong: bool = False
    ungrounded: bool = False
    missed: bool = False
    misquoted: bool = False
    late: bool = False
    disagree: bool = False
    kind: str = ""
    task: str = ""
    split: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    text: str = ""
    sort: Sort = "order"

    @property
    def flags(self) -> tuple[Flag, ...]:
        return tuple(flag for flag in FLAGS if getattr(self, flag))


@dataclass(frozen=True, slots=True)
class Measured:
    """How far a model's evidence holds, in words, and what is to be warned of."""

    model: str
    text: str
    warning: str | None


@dataclass(frozen=True, slots=True)
class Index:
    """Everything that is shown. `roots` are the run folders, `audio_roots` where audio may lie besides."""

    title: str
    models: tuple[str, ...]
    items: tuple[ViewedQuestion, ...]
    measures: tuple[Measured, ...]
    notes: tuple[str, ...]
    roots: tuple[Path, ...]
    audio_roots: tuple[Path, ...]
    words: Mapping[str, tuple[Clip, ...]]
    by_key: Mapping[str, ViewedQuestion] = field(repr=False)

    def words_of(self, item: ViewedQuestion) -> tuple[Word, ...] | None:
        """The clip's words; None where no clips file has a clip of that id and length."""
        return _words(self.words, item.question)


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
    by_question: dict[Question, tuple[Question, Path, dict[str, Response]]] = {}
    for path in files:
        base = os.path.realpath(path.parent)
        for response in _responses(path, notes):
            models.setdefault(response.model)
            sound = Path(os.path.normpath(os.path.join(base, response.question.audio)))
            same = replace(response.question, audio=str(sound))  # each file has its own relative path
            _, _, by_model = by_question.setdefault(same, (response.question, sound, {}))
            by_model.setdefault(response.model, response)
    words = _clips_with_words(clips or _clip_files(runs), by_question, notes)
    cases: dict[str, list[ScoredChoice]] = {}
    by_key: dict[str, ViewedQuestion] = {}  # names that stay when files grow or come in
    bar = tqdm(by_question.values(), desc="score", unit="question", disable=len(by_question) < MANY)
    for question, sound, by_model in bar:
        name = str(sound.relative_to(roots[0]) if sound.is_relative_to(roots[0]) else sound)
        content = json.dumps(as_row(replace(question, audio=name)), sort_keys=True).encode()
        keys = (hashlib.sha256(content + str(n).encode()).hexdigest()[:16] for n in count())
        key = next(key for key in keys if key not in by_key)
        responses = tuple(by_model.values())
        texts = (question.id, question.question, question.phrase or "", *(r.text for r in responses))
        said = _words(words, question)
        scored = {response.model: score_response(response, said)[0] for response in responses}
        verdicts = {response.model: verdict_of(response, scored[response.model]) for response in responses}
        for model, item in scored.items():
            if isinstance(item, ScoredChoice):
                cases.setdefault(model, []).append(item)
        searched, disagree = "\n".join(texts).lower(), _disagree(question, list(verdicts.values()))
        by_key[key] = ViewedQuestion(key, question, sound, responses, verdicts, searched, disagree)
    return Index(
        title=title or ", ".join(dict.fromkeys(Path(os.path.abspath(run)).name or str(run) for run in runs)),
        models=tuple(models),
        items=tuple(by_key.values()),
        measures=tuple(measured(model, cases[model]) for model in models if model in cases),
        notes=tuple(notes),
        roots=roots,
        audio_roots=tuple(Path(os.path.realpath(root)) for root in audio_roots),
        words=words,
        by_key=by_key,
    )


def no_runs(title: str | None = None) -> Index:
    """The index of a page that only asks."""
    return Index(title or "Ask a recording", (), (), (), (), (), (), {}, {})


def _clips_with_words(
    files: Sequence[Path], questions: Iterable[Question], notes: list[str]
) -> dict[str, tuple[Clip, ...]]:
    """The clips that have words, of those that the questions are about, by id."""
    ids = {question.clip_id for question in questions}
    clips: dict[str, tuple[Clip, ...]] = {}
    for path in files:
        for clip in _rows(path, clip_of, notes):
            if clip.words and clip.id in ids:
                clips[clip.id] = (*clips.get(clip.id, ()), clip)
    return clips


def _words(clips: Mapping[str, Sequence[Clip]], question: Question) -> tuple[Word, ...] | None:
    named, length = clips.get(question.clip_id, ()), question.duration
    return next((clip.words for clip in named if abs(clip.duration - length) <= 2 * END_SLACK), None)


def _responses(path: Path, notes: list[str]) -> Iterator[Response]:
    """The responses of a file of ours, or of a benchmark's own."""
    owner = owner_of_predictions(path)
    if owner is None:
        yield from _rows(path, response_of, notes)
        return
    n_bad = 0
    try:
        for row in owners_answers(path, owner):
            if not isinstance(row, Bad):
                yield row.response
                continue
            n_bad += 1
            if n_bad <= MOST_NOTES:
                notes.append(f"{path}:{row.line}: left out: {row.error}")
    except RecordError as error:  # a row that is no JSON
        notes.append(f"cannot be read on: {error}")
    if n_bad > MOST_NOTES:
        notes.append(f"{path}: {n_bad - MOST_NOTES} more rows are left out")


def _rows(path: Path, parse: Callable[[Row], T], notes: list[str]) -> Iterator[T]:
    """The rows that can be used; what is wrong with the others goes to `notes`."""
    n_bad = 0
    try:
        with path.open("rb") as file:
            for line, content in lines_in(file):
                try:
                    yield parse(row_of(content))
                except RecordError as error:
                    if not content.endswith(b"\n"):
                        problem = "the last line is half-written and left out until it is whole"
                        notes.append(f"{path}:{line}: {problem}")
                        continue
                    n_bad += 1
                    if n_bad <= MOST_NOTES:
                        notes.append(f"{path}:{line}: left out: {error}")
    except OSError as error:
        notes.append(f"{path}: cannot be read on ({error.strerror})")
    if n_bad > MOST_NOTES:
        notes.append(f"{path}: {n_bad - MOST_NOTES} more rows are left out")


def verdict_of(response: Response, item: Scored) -> ResponseScore:
    """One response as `tgsr score` scores it, by the first item of its scores."""
    question = response.question
    spans = [stated(m.start, m.end, question.duration) for m in mentions_in(response)]
    is_cited = any(span.is_audible for span in spans)
    right: bool | None
    if isinstance(item, ScoredPhrase):
        right = None if item.iou is None else high_overlap(item.iou)
        iou, chosen, first, quality = item.iou, None, item.first, item.iou
        place, quoted = iou, None
        hit = None if iou is None else high_overlap(iou, HIT_IOU)
    else:
        assert isinstance(item, ScoredChoice)
        assert item.evidence is not None
        cited = item.evidence.cited
        hit, quoted, place = cited.evidence_hit, cited.quote_truth, cited.trace_iou
        right, iou, chosen, first = item.official, item.trace_iou, item.chosen, None
        quality = None if right is None else float(right)
        if quality is not None and question.evidence:
            quality = (quality + (iou or 0.0)) / 2
    is_grounded = is_cited and not (bool(question.evidence) and (iou or 0.0) < GROUNDED_IOU)
    k = count_mentions(response.text)
    late = item.is_past_end
    return ResponseScore(right, iou, k, is_grounded, hit, quoted, late, place, quality, chosen, first)


def measured(model: str, items: Sequence[ScoredChoice]) -> Measured:
    """How far a model's evidence holds in its responses to choice questions."""
    bootstrap = Bootstrap()
    evidence = evidence_scores([item.evidence for item in items if item.evidence is not None], bootstrap)
    of_items = {
        "right": [item.official for item in items],
        "k1": [None if item.n_mentions is None else item.n_mentions == 1 for item in items],
    }
    means = bootstrap.means(of_items, [item.clip for item in items])
    warning = ungrounded(means["k1"].value, evidence.evidence_hit.value, evidence.above_chance.value)
    text = f"{in_words(evidence)}; accuracy {percent(means['right'])}"
    return Measured(model, text, warning)


def _disagree(question: Question, verdicts: Sequence[ResponseScore]) -> bool:
    """Whether two models answer differently: other options, or first intervals with an IoU below 0.7."""
    if len(verdicts) < 2:
        return False
    if question.kind == "choice":
        return len({verdict.chosen for verdict in verdicts}) > 1
    firsts = {verdict.first for verdict in verdicts}
    spans = [Span(*first) for first in firsts if first is not None]
    if None in firsts:
        return bool(spans)
    return any(span.iou(other) < HIGH_OVERLAP for span in spans for other in spans)


def _stays(path: Path, runs: Sequence[Path], roots: Sequence[Path], notes: list[str]) -> bool:
    """Whether a file lies in a run's folder, not behind a link out of it; one that was named may lie anywhere."""
    real = Path(os.path.realpath(path))
    if path in runs or any(real.is_relative_to(root) for root in roots):
        return True
    notes.append(f"{path}: left out: is a link that leads out of the run, to {real}; name that file itself")
    return False


def _folder(run: Path) -> Path:
    return Path(os.path.realpath(run if run.is_dir() else run.parent))


def _clip_files(runs: Sequence[Path]) -> list[Path]:
    """clips*.jsonl in and below the runs' folders and, not below, beside them."""
    folders = [_folder(run) for run in runs]
    files = [path for folder in folders for path in folder.rglob(CLIP_FILES)]
    files += [path for folder in folders for path in folder.parent.glob(CLIP_FILES)]
    return sorted({path.resolve() for path in files if path.is_file() and ".errors" not in path.name})


# --- looking things up -----------------------------------------------------------------------------------


def select(index: Index, query: Query) -> list[ViewedQuestion]:
    """The items that a query asks for, in its order; those without what it goes by come last.

    A model that the index has not gives [].
    """
    model = query.model or (index.models[-1] if index.models else "")
    text = query.text.lower()
    chosen = [item for item in index.items if _fits(item, query, model, text)]
    if query.sort == "order":
        return chosen

    def rank(item: ViewedQuestion) -> tuple[bool, float]:
        verdict = item.verdicts.get(model)
        value = verdict and (verdict.place if query.sort == "away" else verdict.quality)
        return value is None, (value or 0.0) * (-1 if query.sort == "best" else 1)

    return sorted(chosen, key=rank)


def _fits(item: ViewedQuestion, query: Query, model: str, text: str) -> bool:
    question, verdict = item.question, item.verdicts.get(model)
    return (
        query.kind in ("", question.kind)
        and query.task in ("", question.task)
        and query.split in ("", question.split)
        and (item.disagree or not query.disagree)
        and all(pair in question.labels for pair in query.labels)
        and (verdict is not None or not (query.model or query.flags))
        and (verdict is None or set(query.flags) <= set(verdict.flags))
        and text in item.text
    )


# --- as JSON ---------------------------------------------------------------------------------------------


def run_row(index: Index) -> dict[str, object]:
    """The answer of /api/run, less "ask"."""
    questions = [item.question for item in index.items]
    n_responses = Counter(response.model for item in index.items for response in item.responses)
    labels: dict[str, set[str]] = {}
    for name, value in chain.from_iterable(question.labels for question in questions):
        labels.setdefault(name, set()).add(value)
    offered = {name: sorted(values) for name, values in sorted(labels.items()) if len(values) <= MOST_VALUES}
    return {
        "title": index.title,
        "models": [{"name": model, "n": n_responses[model]} for model in index.models],
        "tasks": sorted({question.task for question in questions if question.task}),
        "splits": sorted({question.split for question in questions}),
        "kinds": sorted({question.kind for question in questions}),
        "labels": offered,
        "n_items": len(questions),
        "measures": [asdict(one) for one in index.measures],
        "notes": list(index.notes),
    }


def summary_row(item: ViewedQuestion) -> dict[str, object]:
    """An item in a list."""
    verdicts = {model: _verdict_row(verdict) for model, verdict in item.verdicts.items()}
    return {"key": item.key, **_values(item.question, LISTED), "verdicts": verdicts}


def item_row(index: Index, item: ViewedQuestion) -> dict[str, object]:
    """An item by itself, less "sound"."""
    question = item.question
    words = index.words_of(item)
    return {
        "key": item.key,
        **_values(question, (*LISTED, "choices", "answer", "phrase", "clip_id")),
        "labels": labels_row(question),
        "evidence": [[span.start, span.end] for span in question.evidence],
        "words": None if words is None else [_word_row(words, n) for n in range(len(words))],
        "responses": [_response_row(item, response, words) for response in item.responses],
    }


def _word_row(words: Sequence[Word], n: int) -> dict[str, object]:
    word = words[n]
    said = {"word": word.text, "start": word.start, "end": word.end, "speaker": word.speaker}
    return said | {"parted": is_parted(words, n)}


def _values(question: Question, names: Sequence[str]) -> dict[str, object]:
    return {name: getattr(question, name) for name in names}


def labels_row(question: Question) -> dict[str, list[str]]:
    return {name: list(question.labelled(name)) for name, _ in question.labels}


def mention_rows(
    text: str, duration: Seconds, mentions: Sequence[Mention] | None = None
) -> list[dict[str, object]]:
    """The intervals that a text states, or the given ones, and what is wrong with each in a clip of that length."""
    rows: list[dict[str, object]] = []
    place = units = 0
    for mention in find_mentions(text) if mentions is None else mentions:
        first = units + _units(text[place : mention.text_start])
        last = first + _units(text[mention.text_start : mention.text_end])
        place, units = mention.text_end, last
        interval = stated(mention.start, mention.end, duration)
        row = {"text_start": first, "text_end": last, "start": interval.start, "end": interval.end}
        rows.append({**row, "problem": interval.problem, "audible": interval.is_audible})
    return rows


def _units(text: str) -> int:
    """The text's length as JavaScript counts it: a character beyond U+FFFF is two."""
    return len(text) if text.isascii() else len(text) + sum(character > "\uffff" for character in text)


def _verdict_row(verdict: ResponseScore) -> dict[str, object]:
    names = ("right", "iou", "k", "grounded", "hit", "quoted", "late")
    return {name: getattr(verdict, name) for name in names}


def _response_row(
    item: ViewedQuestion, response: Response, words: Sequence[Word] | None
) -> dict[str, object]:
    verdict = item.verdicts[response.model]
    mentions = mentions_in(response)
    places = {place.mention.text_start: place for place in cited_places(response, words)}
    rows = mention_rows(response.text, item.question.duration, mentions)
    return {
        "model": response.model,
        "text": response.text,
        "mentions": [
            row | _place_row(places.get(one.text_start)) for row, one in zip(rows, mentions, strict=True)
        ],
        "chosen": verdict.chosen,
        **_verdict_row(verdict),
    }


def _place_row(place: CitedPlace | None) -> dict[str, object]:
    """What the place of a mention holds; one that is no citation (it stands in the answer's line) holds nothing."""
    if place is None:
        return {"cited": False, "hit": None, "said": None, "quoted": None, "quote_true": None}
    return {
        "cited": True,
        "hit": place.is_hit,
        "said": None if place.said is None else " ".join(place.said),
        "quoted": " ".join(place.quoted) or None,
        "quote_true": place.is_quote_true,
    }

"""`tgsr score`: prediction files, ours and the benchmarks' own, to metrics.json.

What a model wrote is scored or counted, whatever it is. What we were handed (a file, a row, an id) is
checked, and refused with its file and line.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeVar

from tgsr.choices import extract_choice, letter, official_letter, token_match
from tgsr.evaluation.grounding import (
    event_f1,
    high_overlap,
    item_f1,
    item_iou,
    segment_f1,
    trace_iou,
)
from tgsr.evaluation.intervals import Mean, bootstrap_mean
from tgsr.grounding import Mention, count_mentions, find_mentions
from tgsr.records import RecordError, Response, Row, StrPath, read_responses
from tgsr.timeline import END_SLACK, Seconds, Span

PREDICTION_KEYS = {"mmau": "model_output", "mmar": "answer_prediction"}
# What only rows of that benchmark have, in the order in which it is looked for
_MARKS = {
    "mmau": ("model_output", "audio_id"),
    "mmar": ("answer_prediction", "audio_path", "modality"),
    "tgsr": ("response", "clip_id"),
}
_HOW_TO = (
    "give MMAU's json list (model_output), MMAR's jsonl (answer_prediction), or what tgsr predict writes"
)

Format = Literal["tgsr", "mmau", "mmar"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One question of MMAU or MMAR with a model's prediction.

    `is_answered` is False where the row lacks the prediction's key: the official scorers skip it. A
    prediction that is null is an empty one. `domain` is speech, sound, music or a mix of them.
    """

    id: str
    audio: str
    choices: tuple[str | None, ...]
    answer: str
    is_answered: bool
    prediction: str
    domain: str | None
    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Predictions:
    """A prediction file: `responses` where it is ours, `rows` where it is a benchmark's."""

    format: Format
    responses: tuple[Response, ...] = ()
    rows: tuple[BenchmarkRow, ...] = ()


@dataclass(frozen=True, slots=True)
class PhraseScores:
    """Table 1: the first interval of each response against the phrase's own.

    An interval that is no interval (end <= start) has IoU 0, and so has a missing one. `n_past_end`
    counts responses with an interval that ends more than 0.05 s after its clip. The two sound event
    detection scores are pooled, over the same first intervals; None where nothing was predicted.
    """

    n: int
    iou: Mean
    f1: Mean
    high_overlap: Mean
    segment_f1: float | None
    event_f1: float | None
    n_without_span: int
    n_invalid: int
    n_past_end: int


@dataclass(frozen=True, slots=True)
class ChoiceScores:
    """Stage 2: answers and the regions that the reasoning explores.

    accuracy_official: the authors' letter against the right option's; accuracy_strict: our reading of
    the final answer. chance: the mean share of right options. mentions_official and regions_strict: k,
    by both counters; share_k1_*: how often it is exactly 1. trace_iou: against the questions' evidence;
    an invalid interval counts as one of IoU 0, a trace without intervals is unscored.
    """

    n: int
    accuracy_official: Mean
    accuracy_strict: Mean
    chance: float | None
    accuracy_official_by_task: dict[str, Mean]
    accuracy_strict_by_task: dict[str, Mean]
    mentions_official: Mean
    regions_strict: Mean
    share_k1_official: Mean
    share_k1_strict: Mean
    trace_iou: Mean
    n_without_letter: int
    n_without_choice: int
    n_without_span: int
    n_invalid: int
    n_past_end: int


@dataclass(frozen=True, slots=True)
class GroupScores:
    """One model's responses, all of them or those of one split; None where there are none of a kind."""

    phrase: PhraseScores | None
    choice: ChoiceScores | None


@dataclass(frozen=True, slots=True)
class ModelScores:
    """One model in a file of ours; `several` lists questions answered more than once, every answer scored."""

    all: GroupScores
    by_split: dict[str, GroupScores]
    several: tuple[str, ...]
    empty: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BenchmarkScores:
    """MMAU or MMAR. Rows without a prediction are `n_unscored` in each mean and listed as `missing`.

    A row of several categories counts in each of them. `duplicates` lists ids that occur again: every
    row is scored, as the official scorers do.
    """

    n: int
    n_unscored: int
    accuracy_official: Mean
    accuracy_strict: Mean
    chance: float | None
    accuracy_official_by_domain: dict[str, Mean]
    accuracy_official_by_category: dict[str, Mean]
    accuracy_strict_by_domain: dict[str, Mean]
    accuracy_strict_by_category: dict[str, Mean]
    n_without_choice: int
    missing: tuple[str, ...]
    duplicates: tuple[str, ...]
    empty: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """`other` minus `model` on the questions that both answered once, paired; intervals over clips.

    Two models' own intervals overlap long before their difference is in doubt: much of each is which
    questions were asked, and that is the same for both. None where they share no question of the kind.
    """

    model: str
    other: str
    n_choices: int
    accuracy_official: Mean | None
    n_phrases: int
    iou: Mean | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """What metrics.json holds: `models` and `differences` for a file of ours, `benchmark` for MMAU's and MMAR's."""

    file: str
    format: Format
    n: int
    models: dict[str, ModelScores]
    benchmark: BenchmarkScores | None
    differences: tuple[Difference, ...] = ()


# --- reading -------------------------------------------------------------------------------------------


def read_predictions(path: StrPath) -> Predictions:
    """A prediction file in any of three formats, told apart by what it holds, not by its name.

    MMAU's json (a list of rows, `model_output`), MMAR's jsonl (`answer_prediction`; a list will do), and
    our own JSONL, where a model may answer a question several times. RecordError, with file and line (in
    a json list: the row's number), for what is not JSON, an empty file, a row without an id, choices or
    answer, and rows that are none of the three. OSError where the file can't be read.
    """
    name = os.fspath(path)
    rows = _read_rows(name)
    format_ = _format(name, *rows[0])
    if format_ == "tgsr":
        return Predictions("tgsr", responses=tuple(read_responses(path, several=True)))
    return Predictions(format_, rows=tuple(_benchmark_row(name, line, row, format_) for line, row in rows))


def _read_rows(name: str) -> list[tuple[int, Row]]:
    """Each row with its line, or with its place in a list that is one JSON value."""
    try:
        text = Path(name).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(None, f"is not UTF-8 ({error.reason})", name, remedy="save it as UTF-8") from None
    if text.lstrip().startswith("["):
        values = list(enumerate(_parse(name, 1, text), 1))
    else:
        lines = enumerate(text.split("\n"), 1)  # not splitlines: U+2028 may stand inside a string
        values = [(line, _parse(name, line, content)) for line, content in lines if content.strip()]
    if not values:
        raise RecordError(None, "holds no predictions", name, remedy=_HOW_TO)
    for line, value in values:
        if not isinstance(value, dict):
            raise RecordError(None, f"a row must be a JSON object, got {value!r:.80}", name, line, _HOW_TO)
    return values


def _parse(name: str, first_line: int, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line, problem = first_line + error.lineno - 1, f"{error.msg} at column {error.colno}"
    except RecursionError:
        line, problem = first_line, "nested too deeply"
    raise RecordError(None, f"is not JSON: {problem}", name, line, _HOW_TO)


def _format(name: str, line: int, row: Row) -> Format:
    for format_, marks in _MARKS.items():
        if any(mark in row for mark in marks):
            return format_  # type: ignore[return-value]
    raise RecordError(None, f"has none of the known keys, only {sorted(row)!r:.200}", name, line, _HOW_TO)


def _benchmark_row(name: str, line: int, row: Row, format_: Format) -> BenchmarkRow:
    for field in ("id", "answer"):
        if not isinstance(row.get(field), str) or not row[field]:
            raise RecordError(
                field,
                f"must be text, got {row.get(field)!r:.80}",
                name,
                line,
                "copy it from the benchmark's file",
            )
    choices = row.get("choices")
    if not isinstance(choices, list) or not all(
        choice is None or isinstance(choice, str) for choice in choices
    ):
        raise RecordError(
            "choices",
            f"must be a list of texts, got {choices!r:.80}",
            name,
            line,
            "copy it from the benchmark's file",
        )
    prediction = row.get(PREDICTION_KEYS[format_])
    category = row.get("category")
    categories = category if isinstance(category, list) else [category]
    domain = row.get("task" if format_ == "mmau" else "modality")
    return BenchmarkRow(
        id=str(row["id"]),
        audio=str(row.get("audio_id") or row.get("audio_path") or row["id"]),
        choices=tuple(choices),
        answer=str(row["answer"]),
        is_answered=PREDICTION_KEYS[format_] in row,
        prediction="" if prediction is None else str(prediction),
        domain=None if domain is None else str(domain),
        categories=tuple(dict.fromkeys(str(item) for item in categories if item)),
    )


# --- scoring -------------------------------------------------------------------------------------------


def score(predictions: Predictions, file: str = "", seed: int = 0, n_resamples: int = 1000) -> Metrics:
    """Everything that can be said of a prediction file; `file` is only noted down.

    Intervals are of the bootstrap by clip, from `seed`. No text raises, whatever it holds.
    """
    bootstrap = _Bootstrap(seed, n_resamples)
    if predictions.format != "tgsr":
        benchmark = _score_benchmark(predictions.rows, bootstrap)
        return Metrics(file, predictions.format, len(predictions.rows), {}, benchmark)
    by_model = _grouped((response.model, response) for response in predictions.responses)
    items = {model: [_score_response(r) for r in responses] for model, responses in by_model.items()}
    models = {model: _score_model(by_model[model], items[model], bootstrap) for model in by_model}
    once = {model: _answered_once(by_model[model], items[model]) for model in by_model}
    differences = tuple(
        _difference(model, other, once, bootstrap) for model, other in combinations(by_model, 2)
    )
    return Metrics(file, "tgsr", len(predictions.responses), models, None, differences)


def write_metrics(metrics: Metrics, path: StrPath) -> None:
    """Write metrics.json as a whole or not at all: a reader never sees half of it. Folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        text = json.dumps(asdict(metrics), ensure_ascii=False, allow_nan=False, indent=2)
        partial.write_text(
            text + "\n", encoding="utf-8", errors="backslashreplace"
        )  # ids may hold lone surrogates
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Bootstrap:
    seed: int
    n_resamples: int

    def mean(self, values: Iterable[float | None], clips: Sequence[Hashable]) -> Mean:
        return bootstrap_mean(list(values), clips, self.seed, self.n_resamples)


def _grouped(pairs: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for key, item in pairs:
        groups.setdefault(key, []).append(item)
    return groups


def _score_response(response: Response) -> _Phrase | _Choice:
    return _score_phrase(response) if response.question.kind == "phrase" else _score_choice(response)


def _answered_once(
    responses: Sequence[Response], items: Sequence[_Phrase | _Choice]
) -> dict[str, _Phrase | _Choice]:
    n_answers = Counter(response.question.id for response in responses)
    pairs = zip(responses, items, strict=True)
    return {r.question.id: item for r, item in pairs if n_answers[r.question.id] == 1}


def _difference(
    model: str, other: str, once: dict[str, dict[str, _Phrase | _Choice]], bootstrap: _Bootstrap
) -> Difference:
    pairs = [(item, once[other][id_]) for id_, item in once[model].items() if id_ in once[other]]
    choices = [(a, b) for a, b in pairs if isinstance(a, _Choice) and isinstance(b, _Choice)]
    phrases = [(a, b) for a, b in pairs if isinstance(a, _Phrase) and isinstance(b, _Phrase)]
    accuracy = [float(b.is_right_official) - float(a.is_right_official) for a, b in choices]
    ious = [None if a.iou is None or b.iou is None else b.iou - a.iou for a, b in phrases]
    return Difference(
        model,
        other,
        n_choices=len(choices),
        accuracy_official=bootstrap.mean(accuracy, [a.clip for a, _ in choices]) if choices else None,
        n_phrases=len(phrases),
        iou=bootstrap.mean(ious, [a.clip for a, _ in phrases]) if phrases else None,
    )


def _score_model(
    responses: Sequence[Response], items: Sequence[_Phrase | _Choice], bootstrap: _Bootstrap
) -> ModelScores:
    by_split = _grouped(
        (response.question.split, item) for response, item in zip(responses, items, strict=True)
    )
    return ModelScores(
        all=_group_scores(items, bootstrap),
        by_split={split: _group_scores(group, bootstrap) for split, group in sorted(by_split.items())},
        several=_repeated(response.question.id for response in responses),
        empty=tuple(response.question.id for response in responses if not response.text.strip()),
    )


def _group_scores(items: Sequence[_Phrase | _Choice], bootstrap: _Bootstrap) -> GroupScores:
    phrases = [item for item in items if isinstance(item, _Phrase)]
    choices = [item for item in items if isinstance(item, _Choice)]
    return GroupScores(
        phrase=_phrase_scores(phrases, bootstrap) if phrases else None,
        choice=_choice_scores(choices, bootstrap) if choices else None,
    )


@dataclass(frozen=True, slots=True)
class _Phrase:
    """One phrase response: `iou` is None where the question has no reference."""

    clip: str
    iou: float | None
    first: tuple[Span, ...]
    reference: tuple[Span, ...]
    is_without_span: bool
    is_invalid: bool
    is_past_end: bool


def _score_phrase(response: Response) -> _Phrase:
    question = response.question
    mentions = find_mentions(response.text)
    first = tuple(mention.span for mention in mentions[:1] if mention.span is not None)
    return _Phrase(
        clip=question.clip_id,
        iou=item_iou(first, question.evidence[0]) if question.evidence else None,
        first=first,
        reference=question.evidence,
        is_without_span=not mentions,
        is_invalid=any(not mention.is_valid for mention in mentions),
        is_past_end=_ends_late(mentions, question.duration),
    )


def _phrase_scores(items: Sequence[_Phrase], bootstrap: _Bootstrap) -> PhraseScores:
    clips = [item.clip for item in items]
    ious = [item.iou for item in items]
    pairs = [(item.first, item.reference) for item in items if item.reference]
    return PhraseScores(
        n=len(items),
        iou=bootstrap.mean(ious, clips),
        f1=bootstrap.mean((None if iou is None else item_f1(iou) for iou in ious), clips),
        high_overlap=bootstrap.mean(
            (None if iou is None else float(high_overlap(iou)) for iou in ious), clips
        ),
        segment_f1=segment_f1(pairs),
        event_f1=event_f1(pairs),
        n_without_span=sum(item.is_without_span for item in items),
        n_invalid=sum(item.is_invalid for item in items),
        n_past_end=sum(item.is_past_end for item in items),
    )


@dataclass(frozen=True, slots=True)
class _Choice:
    """One choice response. `n_regions` is the strict k."""

    clip: str
    task: str
    is_right_official: bool
    is_right_strict: bool
    chance: float
    n_mentions: int
    n_regions: int
    trace_iou: float | None
    has_letter: bool
    has_choice: bool
    is_without_span: bool
    is_invalid: bool
    is_past_end: bool


def _score_choice(response: Response) -> _Choice:
    question, text = response.question, response.text
    choices, answer = question.choices, question.answer or ""
    mentions = find_mentions(text)
    read, chosen = official_letter(text), extract_choice(text, choices)
    index = choices.index(answer)
    return _Choice(
        clip=question.clip_id,
        task=question.task or "",
        is_right_official=read is not None and index < 26 and read == letter(index),
        is_right_strict=chosen is not None and choices[chosen] == answer,
        chance=choices.count(answer) / len(choices),
        n_mentions=count_mentions(text),
        n_regions=len({mention.span for mention in mentions if mention.is_valid}),
        trace_iou=_trace_iou(mentions, question.evidence),
        has_letter=read is not None,
        has_choice=chosen is not None,
        is_without_span=not mentions,
        is_invalid=any(not mention.is_valid for mention in mentions),
        is_past_end=_ends_late(mentions, question.duration),
    )


def _trace_iou(mentions: Sequence[Mention], evidence: Sequence[Span]) -> float | None:
    spans = {mention.span for mention in mentions if mention.span is not None}
    n_invalid = len({(mention.start, mention.end) for mention in mentions if not mention.is_valid})
    if not evidence or not (spans or n_invalid):
        return None
    mean = trace_iou(list(spans), evidence)
    return 0.0 if mean is None else mean * len(spans) / (len(spans) + n_invalid)


def _ends_late(mentions: Iterable[Mention], duration: Seconds) -> bool:
    return any(mention.is_valid and mention.end > duration + END_SLACK for mention in mentions)


def _choice_scores(items: Sequence[_Choice], bootstrap: _Bootstrap) -> ChoiceScores:
    clips = [item.clip for item in items]
    tasks = [(item.task,) if item.task else () for item in items]
    official = [float(item.is_right_official) for item in items]
    strict = [float(item.is_right_strict) for item in items]
    return ChoiceScores(
        n=len(items),
        accuracy_official=bootstrap.mean(official, clips),
        accuracy_strict=bootstrap.mean(strict, clips),
        chance=sum(item.chance for item in items) / len(items),
        accuracy_official_by_task=_by_key(official, tasks, clips, bootstrap),
        accuracy_strict_by_task=_by_key(strict, tasks, clips, bootstrap),
        mentions_official=bootstrap.mean((item.n_mentions for item in items), clips),
        regions_strict=bootstrap.mean((item.n_regions for item in items), clips),
        share_k1_official=bootstrap.mean((float(item.n_mentions == 1) for item in items), clips),
        share_k1_strict=bootstrap.mean((float(item.n_regions == 1) for item in items), clips),
        trace_iou=bootstrap.mean((item.trace_iou for item in items), clips),
        n_without_letter=sum(not item.has_letter for item in items),
        n_without_choice=sum(not item.has_choice for item in items),
        n_without_span=sum(item.is_without_span for item in items),
        n_invalid=sum(item.is_invalid for item in items),
        n_past_end=sum(item.is_past_end for item in items),
    )


def _by_key(
    values: Sequence[float | None],
    keys: Sequence[Sequence[str]],
    clips: Sequence[Hashable],
    bootstrap: _Bootstrap,
) -> dict[str, Mean]:
    """The mean for each key, over the items that bear it; an item may bear several, or none."""
    bearers: dict[str, list[int]] = {}
    for item, item_keys in enumerate(keys):
        for key in item_keys:
            bearers.setdefault(key, []).append(item)
    return {
        key: bootstrap.mean([values[item] for item in items], [clips[item] for item in items])
        for key, items in sorted(bearers.items())
    }


def _score_benchmark(rows: Sequence[BenchmarkRow], bootstrap: _Bootstrap) -> BenchmarkScores:
    clips = [row.audio for row in rows]
    chosen = [extract_choice(row.prediction, row.choices) if row.is_answered else None for row in rows]
    official = [
        float(token_match(row.prediction, row.answer, row.choices)) if row.is_answered else None
        for row in rows
    ]
    strict = [
        float(index is not None and row.choices[index] == row.answer) if row.is_answered else None
        for row, index in zip(rows, chosen, strict=True)
    ]
    domains = [(row.domain,) if row.domain else () for row in rows]
    categories = [row.categories for row in rows]
    answered = [row for row in rows if row.is_answered]
    return BenchmarkScores(
        n=len(rows),
        n_unscored=len(rows) - len(answered),
        accuracy_official=bootstrap.mean(official, clips),
        accuracy_strict=bootstrap.mean(strict, clips),
        chance=_chance(answered),
        accuracy_official_by_domain=_by_key(official, domains, clips, bootstrap),
        accuracy_official_by_category=_by_key(official, categories, clips, bootstrap),
        accuracy_strict_by_domain=_by_key(strict, domains, clips, bootstrap),
        accuracy_strict_by_category=_by_key(strict, categories, clips, bootstrap),
        n_without_choice=sum(row.is_answered and at is None for row, at in zip(rows, chosen, strict=True)),
        missing=tuple(row.id for row in rows if not row.is_answered),
        duplicates=_repeated(row.id for row in rows),
        empty=tuple(row.id for row in answered if not row.prediction.strip()),
    )


def _chance(rows: Sequence[BenchmarkRow]) -> float | None:
    """The expected accuracy of a blind pick among the choices that aren't null; None where no row has any."""
    shares = [
        row.choices.count(row.answer) / n
        for row in rows
        if (n := sum(choice is not None for choice in row.choices))
    ]
    return sum(shares) / len(shares) if shares else None


def _repeated(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(id_ for id_, count in Counter(ids).items() if count > 1)

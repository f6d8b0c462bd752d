"""Scored predictions to what metrics.json says of them: counts, means with their intervals, and paired tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from tgsr.evaluation.owners.meld import EMOTIONS
from tgsr.evaluation.owners.owner import Benchmark
from tgsr.evaluation.scoring.event_f1 import (
    SED_EVAL,
    Collars,
    Counts,
    event_counts,
    pooled_f1,
    segment_counts,
)
from tgsr.evaluation.scoring.items import Item, Scored, ScoredAnswer, ScoredChoice, ScoredPhrase
from tgsr.evaluation.scoring.metrics import (
    BenchmarkScores,
    ChoiceScores,
    Difference,
    GroupScores,
    ModelScores,
    PhraseScores,
)
from tgsr.evidence import EvidenceCase, evidence_scores
from tgsr.overlap import HIGH_OVERLAP, RECALLS, high_overlap, item_f1
from tgsr.statistics.intervals import (
    LEVELS,
    NOT_MEASURED,
    Bootstrap,
    Floats,
    Mean,
    codes_of,
    mcnemar_exact,
    quantiles,
)
from tgsr.timeline import Span

MOST_LISTED = 1000
MOST_VALUES = 30  # of a label, to be a breakdown

AccuracyBy = dict[str, Mean]


# --- models of ours --------------------------------------------------------------------------------------


def model_scores(
    scored: Sequence[Scored], foreign: Sequence[str], bootstrap: Bootstrap, collars: Collars = SED_EVAL
) -> ModelScores:
    """One model's scores: of all its responses, of each split's and each benchmark's."""
    responses = [item for item in scored if not isinstance(item, ScoredAnswer)]
    answers = [item for item in scored if isinstance(item, ScoredAnswer)]
    whole = _group_scores(responses, bootstrap, collars)
    splits = sorted({item.split for item in responses})
    by_split = {split: [item for item in responses if item.split == split] for split in splits}
    benchmarks = dict.fromkeys(item.benchmark for item in answers)
    return ModelScores(
        all=whole,
        by_split={
            split: whole if len(by_split) == 1 else _group_scores(items, bootstrap, collars)
            for split, items in by_split.items()
        },
        benchmarks={
            name: benchmark_scores(name, [item for item in answers if item.benchmark == name], (), bootstrap)
            for name in benchmarks
        },
        **_listed(
            several=_repeated(responses),
            truncated=[item.id for item in responses if item.is_truncated],
            empty=[item.id for item in responses if item.is_empty],
            missing=[item.id for item in responses if item.is_missing],
            foreign=foreign,
        ),
    )


def _listed(**lists: Sequence[str]) -> dict[str, Any]:
    """The first ids of each list, and the whole counts of those that are not empty."""
    first = {name: tuple(ids[:MOST_LISTED]) for name, ids in lists.items()}
    return {**first, "n_listed": {name: len(ids) for name, ids in lists.items() if ids}}


def _repeated(items: Sequence[Item]) -> list[str]:
    """The ids that occur more than once."""
    return [id_ for id_, n in Counter(item.id for item in items).items() if n > 1]


def _group_scores(
    scored: Sequence[ScoredPhrase | ScoredChoice], bootstrap: Bootstrap, collars: Collars
) -> GroupScores:
    phrases = [item for item in scored if isinstance(item, ScoredPhrase)]
    choices = [item for item in scored if isinstance(item, ScoredChoice)]
    return GroupScores(
        phrase=_phrase_scores(phrases, bootstrap, collars) if phrases else None,
        choice=_choice_scores(choices, bootstrap) if choices else None,
    )


def _phrase_scores(phrases: Sequence[ScoredPhrase], bootstrap: Bootstrap, collars: Collars) -> PhraseScores:
    absent = [item for item in phrases if item.is_absent and not item.is_missing]
    phrases = [item for item in phrases if not item.is_absent]
    ious = [item.iou for item in phrases]
    columns: dict[str, list[float | None]] = {
        "iou": ious,
        "f1": [None if iou is None else item_f1(iou) for iou in ious],
        "high_overlap": [None if iou is None else high_overlap(iou) for iou in ious],
        **{f"r{at}": [None if iou is None else high_overlap(iou, at) for iou in ious] for at in RECALLS},
    }
    if any(item.is_missing for item in phrases):
        columns["iou_of_all"] = [0.0 if item.is_missing else item.iou for item in phrases]
    errors = [item.errors for item in phrases if item.errors is not None]
    marked = [item for item in phrases if item.reference and not item.is_missing]
    spans = [
        ([Span(*span) for span in item.spans], [Span(*piece) for piece in item.reference]) for item in marked
    ]
    clips = [item.clip for item in marked]
    means: dict[str, Any] = bootstrap.means(columns, [item.clip for item in phrases])
    says_where, says_absent = [item.says_where for item in absent], [item.says_absent for item in absent]
    alarms = {"false_alarm": says_where, "rejected": says_absent}
    means |= bootstrap.means(alarms, [item.clip for item in absent])
    missed = [None if item.is_missing else item.says_absent for item in phrases]
    means |= bootstrap.means({"missed": missed}, [item.clip for item in phrases])
    ruled = [item for item in phrases if item.has_official]
    if ruled:
        theirs = [item.iou_official for item in ruled]
        official: dict[str, list[float | None]] = {"iou": theirs}
        for at in (*RECALLS, HIGH_OVERLAP):
            official[f"R@{at:g}"] = [None if iou is None else high_overlap(iou, at) for iou in theirs]
        official["iou_as_is"] = [item.iou_as_is for item in ruled]
        means["official"] = bootstrap.means(official, [item.clip for item in ruled])
    recalls = {f"{at:g}": means.pop(f"r{at}") for at in RECALLS}
    return PhraseScores(
        n=len(phrases),
        segment_f1=pooled_f1(segment_counts(*pair) for pair in spans),
        event_f1=pooled_f1(event_counts(*pair) for pair in spans),
        recalls={**recalls, f"{HIGH_OVERLAP:g}": means["high_overlap"]},
        event_f1_by_collar={
            f"{collar:g}": _pooled(
                [event_counts(*pair, collar, collars.length_share) for pair in spans], clips, bootstrap
            )
            for collar in collars.seconds
        },
        n_without_span=sum(item.is_without_span for item in phrases),
        n_invalid=sum(item.is_invalid for item in phrases),
        n_past_end=sum(item.is_past_end for item in phrases),
        start_error=quantiles([start for start, _ in errors]),
        end_error=quantiles([end for _, end in errors]),
        **means,
    )


def _pooled(counts: Sequence[Counts], clips: Sequence[str], bootstrap: Bootstrap) -> Mean:
    """`pooled_f1` with its interval over clips."""
    if pooled_f1(counts) is None:
        return NOT_MEASURED
    return bootstrap.ratio([2 * n for n, _, _ in counts], [a + b for _, a, b in counts], clips)


def _choice_scores(choices: Sequence[ScoredChoice], bootstrap: Bootstrap) -> ChoiceScores:
    clips = [item.clip for item in choices]
    official, strict = [item.official for item in choices], [item.strict for item in choices]
    mentions, regions = [item.n_mentions for item in choices], [item.n_regions for item in choices]
    means: dict[str, Any] = bootstrap.means(
        {
            "accuracy_official": official,
            "accuracy_strict": strict,
            "mentions_official": mentions,
            "regions_strict": regions,
            "share_k1_official": [None if k is None else k == 1 for k in mentions],
            "share_k1_strict": [None if k is None else k == 1 for k in regions],
            "trace_iou": [item.trace_iou for item in choices],
        },
        clips,
    )
    tasks = [[("task", item.task)] if item.task else [] for item in choices]
    official_by_task, strict_by_task = _broken_down(choices, tasks, bootstrap).get("task", ({}, {}))
    by_label = _broken_down(choices, [item.labels for item in choices], bootstrap, MOST_VALUES)
    answered = [item for item in choices if not item.is_missing]
    if len(answered) < len(choices):
        of_all = {"official": list(map(bool, official)), "strict": list(map(bool, strict))}
        means |= {f"accuracy_{name}_of_all": mean for name, mean in bootstrap.means(of_all, clips).items()}
    return ChoiceScores(
        n=len(choices),
        chance=sum(item.chance for item in choices) / len(choices),
        accuracy_official_by_task=official_by_task,
        accuracy_strict_by_task=strict_by_task,
        n_without_letter=sum(item.letter is None for item in answered),
        n_without_choice=sum(item.chosen is None for item in answered),
        n_without_span=sum(item.is_without_span for item in answered),
        n_invalid=sum(item.is_invalid for item in answered),
        n_past_end=sum(item.is_past_end for item in answered),
        accuracy_by_label={name: official for name, (official, _) in by_label.items()},
        why=_reasons(item.why for item in choices),
        evidence=evidence_scores([item.evidence for item in choices if item.evidence is not None], bootstrap),
        **means,
    )


def _broken_down(
    items: Sequence[ScoredChoice | ScoredAnswer],
    labels: Sequence[Sequence[tuple[str, str]]],
    bootstrap: Bootstrap,
    most_values: int | None = None,
) -> dict[str, tuple[AccuracyBy, AccuracyBy]]:
    """By each label of not too many values: official and strict accuracy by its value, in order of name and value."""
    bearers: dict[str, dict[str, list[ScoredChoice | ScoredAnswer]]] = {}
    for item, pairs in zip(items, labels, strict=True):
        for name, value in dict.fromkeys(pairs):
            bearers.setdefault(name, {}).setdefault(value, []).append(item)
    broken_down: dict[str, tuple[AccuracyBy, AccuracyBy]] = {}
    for name, by_value in sorted(bearers.items()):
        if most_values is None or len(by_value) <= most_values:
            official, strict = broken_down[name] = {}, {}
            for value, alike in sorted(by_value.items()):
                columns = {field: [getattr(i, field) for i in alike] for field in ("official", "strict")}
                clips = [item.clip for item in alike]
                official[value], strict[value] = bootstrap.means(columns, clips).values()
    return broken_down


def _reasons(reasons: Iterable[str | None]) -> dict[str, int]:
    """Each reason and how often it was given, the most frequent first."""
    counts = Counter(reason for reason in reasons if reason is not None)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


# --- benchmarks ------------------------------------------------------------------------------------------


def benchmark_scores(
    benchmark: Benchmark, answers: Sequence[ScoredAnswer], foreign: Sequence[str], bootstrap: Bootstrap
) -> BenchmarkScores:
    """One model's answers to a benchmark, or one owner's file of them, which names no model."""
    official, strict = [item.official for item in answers], [item.strict for item in answers]
    has_answer = [not item.is_without_answer for item in answers]
    fields: dict[str, Any] = bootstrap.means(
        {
            "accuracy_official": official,
            "accuracy_strict": strict,
            "accuracy_as_is": [item.as_is for item in answers],
            "accuracy_official_of_all": _of_all(official, has_answer),
            "accuracy_strict_of_all": _of_all(strict, has_answer),
        },
        [item.clip for item in answers],
    )
    by_label = _broken_down(answers, [item.labels for item in answers], bootstrap)
    for name in ("domain", "category", "sub-category", "difficulty", "task_dataset"):
        official_by, strict_by = by_label.get(name, ({}, {}))
        name = name.replace("-", "_")
        fields |= {f"accuracy_official_by_{name}": official_by, f"accuracy_strict_by_{name}": strict_by}
    answered = [item for item in answers if not item.is_missing]
    chances = [item.chance for item in answered if item.chance is not None]
    scored = [item for item in answers if item.official is not None]
    if not any(item.model for item in answers):  # an owner's file has no completions beside its predictions
        del fields["accuracy_as_is"]
    weighted = macro = always_neutral = None
    if benchmark == "meld":
        weighted, macro = _emotion_f1(scored, len(answers) - len(scored), bootstrap)
        always_neutral = sum(item.truth == "neutral" for item in scored) / len(scored) if scored else None
    traced = [item.evidence for item in answers if item.evidence is not None]
    return BenchmarkScores(
        n=len(answers),
        evidence=evidence_scores(traced, bootstrap) if traced else None,
        n_unscored=len(answers) - len(scored),
        chance=sum(chances) / len(chances) if chances else None,
        n_without_choice=sum(item.chosen is None and item.has_choices for item in answered),
        speech=fields["accuracy_official_by_domain"].get("speech"),
        why=_reasons(item.why for item in answers),
        why_as_is=_reasons(item.why_as_is for item in answers),
        weighted_f1=weighted,
        macro_f1=macro,
        always_neutral=always_neutral,
        **fields,
        **_listed(
            missing=[item.id for item in answers if item.is_missing],
            duplicates=_repeated(answers),
            empty=[item.id for item in answers if item.is_empty],
            several=[item.id for item in answers if item.names_several],
            unreadable=[item.id for item in answers if item.is_unreadable],
            without_answer=[item.id for item in answers if item.is_without_answer],
            foreign=foreign,
        ),
    )


def _of_all(column: Sequence[bool | None], has_answer: Sequence[bool]) -> list[bool | None]:
    """The column with what was not scored as wrong, but for questions whose answer nobody knows."""
    return [bool(value) if is_known else None for value, is_known in zip(column, has_answer, strict=True)]


def _emotion_f1(scored: Sequence[ScoredAnswer], n_unscored: int, bootstrap: Bootstrap) -> tuple[Mean, Mean]:
    """MELD's weighted and macro F1 over the seven emotions; an emotion that is neither said nor true has F1 0."""
    if not scored:
        nothing = Mean(None, None, None, 0, n_unscored)
        return nothing, nothing
    emotions_E = np.array(EMOTIONS)[:, None]
    chosen_EN = np.array([item.chosen or "" for item in scored]) == emotions_E
    truth_EN = np.array([item.truth or "" for item in scored]) == emotions_E
    columns = [*(chosen_EN & truth_EN), *chosen_EN, *truth_EN]
    codes = codes_of([item.clip for item in scored])
    sums, draws_RM = bootstrap.sums([column.astype(float) for column in columns], codes)

    def weighted_and_macro(sums_RM: Floats) -> Floats:
        hits_RE, chosen_RE, truth_RE = np.split(sums_RM, 3, axis=1)
        f1_RE = 2 * hits_RE / np.maximum(chosen_RE + truth_RE, 1)
        weighted_R = (truth_RE * f1_RE).sum(axis=1) / np.maximum(truth_RE.sum(axis=1), 1)
        return np.stack([weighted_R, f1_RE.mean(axis=1)])

    values = weighted_and_macro(sums[None])[:, 0]
    means = [Mean(float(value), None, None, len(scored), n_unscored) for value in values]
    if draws_RM is not None:
        ends = np.percentile(weighted_and_macro(draws_RM), LEVELS, axis=1).tolist()
        means = [replace(mean, low=low, high=high) for mean, low, high in zip(means, *ends, strict=True)]
    return means[0], means[1]


# --- pairs of models -------------------------------------------------------------------------------------


def differences(scored: Mapping[str, Sequence[Scored]], bootstrap: Bootstrap) -> tuple[Difference, ...]:
    """Each two models' difference, on the questions that each of them answered once, by id."""
    answered_once: dict[str, dict[str, ScoredPhrase | ScoredChoice]] = {}
    for model, items in scored.items():
        responses = [item for item in items if not isinstance(item, ScoredAnswer)]
        repeated = set(_repeated(responses))
        once = [item for item in responses if item.id not in repeated and not item.is_missing]
        answered_once[model] = {item.id: item for item in once}
    return tuple(
        _difference(model, other, answered_once[model], answered_once[other], bootstrap)
        for model, other in combinations(scored, 2)
    )


def _difference(
    model: str,
    other: str,
    once: Mapping[str, ScoredPhrase | ScoredChoice],
    once_by_other: Mapping[str, ScoredPhrase | ScoredChoice],
    bootstrap: Bootstrap,
) -> Difference:
    """What the other model has more."""
    pairs = [(item, once_by_other[id_]) for id_, item in once.items() if id_ in once_by_other]
    phrases = [
        (a.clip, b.iou - a.iou)
        for a, b in pairs
        if isinstance(a, ScoredPhrase) and isinstance(b, ScoredPhrase)
        if a.iou is not None and b.iou is not None  # a phrase that is not said has no place
    ]
    choices = [(a, b) for a, b in pairs if isinstance(a, ScoredChoice) and isinstance(b, ScoredChoice)]
    official = [(a.clip, float(bool(b.official)) - bool(a.official)) for a, b in choices]
    cited = [(a.evidence, b.evidence) for a, b in choices if a.evidence and b.evidence]
    measures = {
        "accuracy_official": official,
        "accuracy_strict": [(a.clip, float(bool(b.strict)) - bool(a.strict)) for a, b in choices],
        "iou": phrases,
        **{name: _more(cited, name) for name in ("evidence_hit", "quote_truth")},
    }
    fields: dict[str, Any] = {}
    for name, differences in measures.items():
        values, clips = [value for _, value in differences], [clip for clip, _ in differences]
        fields[name], fields[f"p_{name}"] = bootstrap.paired(values, clips)
    n_only = [sum(value == side for _, value in official) for side in (-1, 1)]
    fields |= {"n_only_model": n_only[0], "n_only_other": n_only[1], "p_mcnemar": mcnemar_exact(*n_only)}
    return Difference(model, other, n_choices=len(choices), n_phrases=len(phrases), **fields)


def _more(cited: Sequence[tuple[EvidenceCase, EvidenceCase]], name: str) -> list[tuple[str, float]]:
    """By clip, what the other has more of a measure that is True or False, where it is known of both."""
    values = [(a.clip, getattr(a.cited, name), getattr(b.cited, name)) for a, b in cited]
    return [(clip, float(more) - float(less)) for clip, less, more in values if None not in (less, more)]

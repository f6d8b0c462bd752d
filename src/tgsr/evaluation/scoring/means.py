"""Scored predictions to what metrics.json says of them: counts, means with their intervals, and paired tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, TypeVar

import numpy as np

from tgsr.evaluation.owners.meld import EMOTIONS
from tgsr.evaluation.owners.owner import Benchmark
from tgsr.evaluation.scoring.event_f1 import pooled_f1
from tgsr.evaluation.scoring.items import Scored, ScoredAnswer, ScoredChoice, ScoredPhrase
from tgsr.evaluation.scoring.metrics import (
    BenchmarkScores,
    ChoiceScores,
    Difference,
    GroupScores,
    ModelScores,
    PhraseScores,
)
from tgsr.overlap import high_overlap, item_f1
from tgsr.statistics.intervals import (
    LEVELS,
    Bootstrap,
    Floats,
    Mean,
    cluster_sums,
    codes_of,
    mcnemar_exact,
    quantiles,
    swap_test,
)

MOST_LISTED = 1000
MOST_VALUES = 30  # of a label, to be a breakdown

T = TypeVar("T", ScoredPhrase, ScoredChoice, ScoredAnswer)
Breakdown = dict[str, dict[str, dict[str, Mean]]]
"""Means by label, value and column."""


# --- models of ours --------------------------------------------------------------------------------------


def model_scores(scored: Sequence[Scored], foreign: Sequence[str], bootstrap: Bootstrap) -> ModelScores:
    """One model's scores: of all its responses, of each split's and each benchmark's."""
    responses = [item for item in scored if not isinstance(item, ScoredAnswer)]
    answers = [item for item in scored if isinstance(item, ScoredAnswer)]
    splits = sorted({item.split for item in responses})
    whole = _group_scores(responses, bootstrap)
    n_responses = Counter(item.id for item in responses)
    lists = {
        "several": [id_ for id_, n in n_responses.items() if n > 1],
        "empty": [item.id for item in responses if item.is_empty],
        "missing": [item.id for item in responses if item.is_missing],
        "foreign": list(foreign),
    }
    return ModelScores(
        all=whole,
        by_split={
            split: whole
            if len(splits) == 1
            else _group_scores([item for item in responses if item.split == split], bootstrap)
            for split in splits
        },
        benchmarks={
            benchmark: benchmark_scores(
                benchmark, [item for item in answers if item.benchmark == benchmark], (), bootstrap
            )
            for benchmark in dict.fromkeys(item.benchmark for item in answers)
        },
        **{name: tuple(ids[:MOST_LISTED]) for name, ids in lists.items()},
        n_listed={name: len(ids) for name, ids in lists.items() if ids},
    )


def _group_scores(scored: Sequence[ScoredPhrase | ScoredChoice], bootstrap: Bootstrap) -> GroupScores:
    phrases = [item for item in scored if isinstance(item, ScoredPhrase)]
    choices = [item for item in scored if isinstance(item, ScoredChoice)]
    return GroupScores(
        phrase=_phrase_scores(phrases, bootstrap) if phrases else None,
        choice=_choice_scores(choices, bootstrap) if choices else None,
    )


def _phrase_scores(phrases: Sequence[ScoredPhrase], bootstrap: Bootstrap) -> PhraseScores:
    ious = [item.iou for item in phrases]
    columns: dict[str, list[float | None]] = {
        "iou": ious,
        "f1": [None if iou is None else item_f1(iou) for iou in ious],
        "high_overlap": [None if iou is None else high_overlap(iou) for iou in ious],
    }
    if any(item.is_missing for item in phrases):
        columns["iou_of_all"] = [0.0 if item.is_missing else item.iou for item in phrases]
    errors = [item.errors for item in phrases if item.errors is not None]
    return PhraseScores(
        n=len(phrases),
        segment_f1=pooled_f1(item.segment for item in phrases if item.segment is not None),
        event_f1=pooled_f1(item.event for item in phrases if item.event is not None),
        n_without_span=sum(item.is_without_span for item in phrases),
        n_invalid=sum(item.is_invalid for item in phrases),
        n_past_end=sum(item.is_past_end for item in phrases),
        start_error=quantiles([start for start, _ in errors]),
        end_error=quantiles([end for _, end in errors]),
        **bootstrap.means(columns, [item.clip for item in phrases]),
    )


def _choice_scores(choices: Sequence[ScoredChoice], bootstrap: Bootstrap) -> ChoiceScores:
    clips = [item.clip for item in choices]
    official, strict = [item.official for item in choices], [item.strict for item in choices]
    mentions, regions = [item.n_mentions for item in choices], [item.n_regions for item in choices]
    means = bootstrap.means(
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
    by_task = _broken_down(
        [(("task", item.task),) if item.task else () for item in choices],
        {"official": official, "strict": strict},
        clips,
        bootstrap,
    ).get("task", {})
    by_label = _broken_down(
        [item.labels for item in choices], {"official": official}, clips, bootstrap, MOST_VALUES
    )
    answered = [item for item in choices if not item.is_missing]
    if len(answered) < len(choices):
        of_all = {"official": list(map(bool, official)), "strict": list(map(bool, strict))}
        means |= {f"accuracy_{name}_of_all": mean for name, mean in bootstrap.means(of_all, clips).items()}
    return ChoiceScores(
        n=len(choices),
        chance=sum(item.chance for item in choices) / len(choices),
        accuracy_official_by_task=_column(by_task, "official"),
        accuracy_strict_by_task=_column(by_task, "strict"),
        n_without_letter=sum(item.letter is None for item in answered),
        n_without_choice=sum(item.chosen is None for item in answered),
        n_without_span=sum(item.is_without_span for item in answered),
        n_invalid=sum(item.is_invalid for item in answered),
        n_past_end=sum(item.is_past_end for item in answered),
        accuracy_by_label={name: _column(values, "official") for name, values in by_label.items()},
        why=_reasons(item.why for item in choices),
        **means,
    )


def _broken_down(
    labels: Sequence[Sequence[tuple[str, str]]],
    columns: Mapping[str, Sequence[float | None]],
    clips: Sequence[str],
    bootstrap: Bootstrap,
    most_values: int | None = None,
) -> Breakdown:
    """Means of the items that bear each label of not too many values, in order of name and value."""
    bearers: dict[str, dict[str, list[int]]] = {}
    for item_number, pairs in enumerate(labels):
        for name, value in dict.fromkeys(pairs):
            bearers.setdefault(name, {}).setdefault(value, []).append(item_number)
    return {
        name: {
            value: bootstrap.means(
                {column: [values[number] for number in numbers] for column, values in columns.items()},
                [clips[number] for number in numbers],
            )
            for value, numbers in sorted(by_value.items())
        }
        for name, by_value in sorted(bearers.items())
        if most_values is None or len(by_value) <= most_values
    }


def _column(means: Mapping[str, Mapping[str, Mean]], column: str) -> dict[str, Mean]:
    return {value: by_column[column] for value, by_column in means.items()}


def _reasons(reasons: Iterable[str | None]) -> dict[str, int]:
    """Each reason and how often it was given, the most frequent first."""
    counts = Counter(reason for reason in reasons if reason is not None)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


# --- benchmarks ------------------------------------------------------------------------------------------


def benchmark_scores(
    benchmark: Benchmark, answers: Sequence[ScoredAnswer], foreign: Sequence[str], bootstrap: Bootstrap
) -> BenchmarkScores:
    """One model's answers to a benchmark, or one owner's file of them, which names no model."""
    clips = [item.clip for item in answers]
    official, strict = [item.official for item in answers], [item.strict for item in answers]
    has_answer = [not item.is_without_answer for item in answers]
    means = bootstrap.means(
        {
            "accuracy_official": official,
            "accuracy_strict": strict,
            "accuracy_as_is": [item.as_is for item in answers],
            "accuracy_official_of_all": _of_all(official, has_answer),
            "accuracy_strict_of_all": _of_all(strict, has_answer),
        },
        clips,
    )
    by_label = _broken_down(
        [item.labels for item in answers], {"official": official, "strict": strict}, clips, bootstrap
    )
    by = {
        f"accuracy_{column}_by_{name.replace('-', '_')}": _column(by_label.get(name, {}), column)
        for column in ("official", "strict")
        for name in ("domain", "category", "sub-category", "task_dataset")
    }
    answered = [item for item in answers if not item.is_missing]
    chances = [item.chance for item in answered if item.chance is not None]
    scored = [item for item in answers if item.official is not None]
    n_answers = Counter(item.id for item in answers)
    lists = {
        "missing": [item.id for item in answers if item.is_missing],
        "duplicates": [id_ for id_, n in n_answers.items() if n > 1],
        "empty": [item.id for item in answers if item.is_empty],
        "several": [item.id for item in answers if item.names_several],
        "unreadable": [item.id for item in answers if item.is_unreadable],
        "without_answer": [item.id for item in answers if item.is_without_answer],
        "foreign": list(foreign),
    }
    if not any(item.model for item in answers):  # an owner's file has no completions beside its predictions
        del means["accuracy_as_is"]
    fields: dict[str, Any] = {
        **means,
        **by,
        **{name: tuple(ids[:MOST_LISTED]) for name, ids in lists.items()},
    }
    weighted = macro = always_neutral = None
    if benchmark == "meld":
        weighted, macro = _emotion_f1(scored, len(answers) - len(scored), bootstrap)
        always_neutral = sum(item.truth == "neutral" for item in scored) / len(scored) if scored else None
    return BenchmarkScores(
        n=len(answers),
        n_unscored=len(answers) - len(scored),
        chance=sum(chances) / len(chances) if chances else None,
        n_without_choice=sum(item.chosen is None for item in answered),
        n_listed={name: len(ids) for name, ids in lists.items() if ids},
        speech=by["accuracy_official_by_domain"].get("speech"),
        why=_reasons(item.why for item in answers),
        why_as_is=_reasons(item.why_as_is for item in answers),
        weighted_f1=weighted,
        macro_f1=macro,
        always_neutral=always_neutral,
        **fields,
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
    sums, draws_RM = bootstrap.sums(
        [column.astype(float) for column in columns], codes_of([item.clip for item in scored])
    )

    def weighted_and_macro(sums_RM: Floats) -> Floats:
        hits_RE, chosen_RE, truth_RE = np.split(sums_RM, 3, axis=1)
        f1_RE = 2 * hits_RE / np.maximum(chosen_RE + truth_RE, 1)
        weighted_R = (truth_RE * f1_RE).sum(axis=1) / np.maximum(truth_RE.sum(axis=1), 1)
        return np.stack([weighted_R, f1_RE.mean(axis=1)])

    values = weighted_and_macro(sums[None])[:, 0]
    means = [Mean(float(value), None, None, len(scored), n_unscored) for value in values]
    if draws_RM is not None:
        ends = np.percentile(weighted_and_macro(draws_RM), LEVELS, axis=1)
        means = [
            replace(mean, low=float(low), high=float(high))
            for mean, low, high in zip(means, *ends, strict=True)
        ]
    return means[0], means[1]


# --- pairs of models -------------------------------------------------------------------------------------


def differences(scored: Mapping[str, Sequence[Scored]], bootstrap: Bootstrap) -> tuple[Difference, ...]:
    """Each two models' difference, from every model's scored responses."""
    once: dict[str, tuple[dict[str, ScoredPhrase], dict[str, ScoredChoice]]] = {}
    for model, items in scored.items():
        n_responses = Counter(item.id for item in items if not isinstance(item, ScoredAnswer))
        single = [item for item in items if n_responses[item.id] == 1 and not item.is_missing]
        once[model] = (
            {item.id: item for item in single if isinstance(item, ScoredPhrase)},
            {item.id: item for item in single if isinstance(item, ScoredChoice)},
        )
    return tuple(
        _difference(model, other, once[model], once[other], bootstrap)
        for model, other in combinations(scored, 2)
    )


def _difference(
    model: str,
    other: str,
    once: tuple[dict[str, ScoredPhrase], dict[str, ScoredChoice]],
    once_by_other: tuple[dict[str, ScoredPhrase], dict[str, ScoredChoice]],
    bootstrap: Bootstrap,
) -> Difference:
    """What the other model has more, on the questions that each of them answered once, by id."""
    phrases = [(item, once_by_other[0][id_]) for id_, item in once[0].items() if id_ in once_by_other[0]]
    choices = [(item, once_by_other[1][id_]) for id_, item in once[1].items() if id_ in once_by_other[1]]
    ious = [None if a.iou is None or b.iou is None else b.iou - a.iou for a, b in phrases]
    columns = {
        "official": [float(bool(b.official)) - bool(a.official) for a, b in choices],
        "strict": [float(bool(b.strict)) - bool(a.strict) for a, b in choices],
    }
    clips, clips_of_phrases = [a.clip for a, _ in choices], [a.clip for a, _ in phrases]
    means = bootstrap.means(columns, clips) if choices else {}

    def p(values: Sequence[float | None], clips: Sequence[str]) -> float | None:
        known = [(value, clip) for value, clip in zip(values, clips, strict=True) if value is not None]
        sums = cluster_sums([value for value, _ in known], [clip for _, clip in known]) if known else ()
        return swap_test(sums, bootstrap.seed)

    n_only_model, n_only_other = columns["official"].count(-1.0), columns["official"].count(1.0)
    return Difference(
        model,
        other,
        n_choices=len(choices),
        accuracy_official=means.get("official"),
        n_phrases=len(phrases),
        iou=bootstrap.means({"iou": ious}, clips_of_phrases)["iou"] if phrases else None,
        accuracy_strict=means.get("strict"),
        n_only_model=n_only_model,
        n_only_other=n_only_other,
        p_mcnemar=mcnemar_exact(n_only_model, n_only_other),
        p_accuracy_official=p(columns["official"], clips),
        p_accuracy_strict=p(columns["strict"], clips),
        p_iou=p(ious, clips_of_phrases),
    )

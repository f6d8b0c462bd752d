"""What the ratings say: tables and plots by system and condition, with agreement and intervals."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from tgsr.disk.whole import whole, write_whole
from tgsr.pages.study.design import CHECK_RATING, CONDITIONS, N_STRETCHES, Study, trials_for
from tgsr.pages.study.store import MEASURES, Measure, Store
from tgsr.report.typeset import no_formula
from tgsr.statistics.agreement import (
    Agreement,
    Level,
    design_effect,
    fleiss_kappa,
    krippendorff_alpha,
    n_for_difference,
    with_interval,
)
from tgsr.statistics.intervals import Mean, bootstrap_mean, number
from tgsr.statistics.pictures import Dot, Dots, dots_png, tint

Side = Literal["system", "condition"]
WORDS = {
    "referent": "referent choice: share that chose the cited stretch",
    "helpful": "helpfulness, 1 to 5",
    "supportive": "supportiveness, 1 to 5",
}


@dataclass(frozen=True, slots=True)
class Rating:
    """One answer with what it was about: a line of ratings.csv. `correct` is None where there is no right answer."""

    rater: int
    position: int
    kind: str
    item: str
    system: str
    condition: str
    trial: str
    measure: Measure
    value: int
    correct: bool | None
    seconds: float | None
    plays: int | None
    changes: int
    at: str


@dataclass(frozen=True, slots=True)
class Excluded:
    """A rater whose ratings are left out: more than half of the answers to attention checks were wrong."""

    rater: int
    n_checks: int
    n_wrong: int


@dataclass(frozen=True, slots=True)
class Contrast:
    """`other` minus `model`: of items that both have in the same condition, the mean of each item's own difference;
    intervals over items.
    """

    model: str
    other: str
    measure: Measure
    difference: Mean


@dataclass(frozen=True, slots=True)
class Analysis:
    """means[measure][system][condition]; agreement[measure][coefficient].

    `contrasts` compare systems over both conditions, `conditions` the cited evidence with the full clip within a
    system. Fleiss' kappa needs as many ratings of every trial: None where that is not so. n_items_needed: paired items
    that would show half a point of helpfulness, by the spread found here; None where it can't be told.
    """

    n_raters: int
    n_finished: int
    n_ratings: int
    excluded: tuple[Excluded, ...]
    means: dict[str, dict[str, dict[str, Mean]]]
    contrasts: tuple[Contrast, ...]
    conditions: dict[str, dict[str, Mean]]
    agreement: dict[str, dict[str, Agreement | None]]
    seconds: dict[str, Mean]
    n_items_needed: int | None
    chance_referent: float = 1 / N_STRETCHES


def ratings_of(study: Study, store: Store) -> list[Rating]:
    """Every answer with its trial, in the order given; answers to trials that the study lacks are left out."""
    answers = store.answers()
    places = {
        rater: {trial.id: (position, trial) for position, trial in enumerate(trials_for(study, rater))}
        for rater in {answer.rater for answer in answers}
    }
    ratings = []
    for answer in answers:
        if answer.trial not in places[answer.rater]:
            continue
        position, trial = places[answer.rater][answer.trial]
        correct = None
        if answer.measure == "referent":
            correct = answer.value == trial.right
        elif trial.kind == "check":
            correct = answer.value == CHECK_RATING
        about = (position, trial.kind, trial.item, trial.system, trial.condition, trial.id)
        taken = (answer.seconds, answer.plays, answer.changes, answer.at)
        ratings.append(Rating(answer.rater, *about, answer.measure, answer.value, correct, *taken))
    return ratings


def write_csv(path: Path, ratings: Sequence[Rating]) -> None:
    """One line an answer, with a header; None is an empty field, and no item or system a formula."""
    with whole(path) as half, half.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Rating)])
        writer.writeheader()
        for rating in ratings:
            names = {"item": no_formula(rating.item), "system": no_formula(rating.system)}
            writer.writerow(asdict(rating) | names)


# --- numbers -----------------------------------------------------------------------------------------------


def analyse(study: Study, ratings: Sequence[Rating], seed: int = 0) -> Analysis:
    """Means by system and condition over the raters who passed their checks; intervals are of the bootstrap by item."""
    excluded = tuple(_excluded(ratings))
    failed = {rater.rater for rater in excluded}
    rated = [rating for rating in ratings if rating.kind == "rated" and rating.rater not in failed]
    own = {system: [rating for rating in rated if rating.system == system] for system in study.systems}
    values: dict[tuple[str, str, str], list[tuple[float, str]]] = defaultdict(list)
    seconds: dict[str, list[tuple[float | None, str]]] = {condition: [] for condition in CONDITIONS}
    for r in rated:
        values[r.measure, r.system, r.condition].append((_value(r), r.item))
        if r.measure == "supportive":  # the last question of a trial
            seconds[r.condition].append((r.seconds, r.item))

    def mean(pairs: Sequence[tuple[float | None, str]]) -> Mean:
        return bootstrap_mean([value for value, _ in pairs], [item for _, item in pairs], seed)

    def difference(ratings: Sequence[Rating], measure: Measure, side: Side, first: str, other: str) -> Mean:
        by_item = _differences(ratings, measure, side, first, other)
        return mean([(value, item) for item, value in by_item.items()])

    return Analysis(
        n_raters=len({rating.rater for rating in ratings}),
        n_finished=_n_finished(study, ratings),
        n_ratings=len(rated),
        excluded=excluded,
        means={
            measure: {s: {c: mean(values[measure, s, c]) for c in CONDITIONS} for s in study.systems}
            for measure in MEASURES
        },
        contrasts=tuple(
            Contrast(model, other, measure, difference(rated, measure, "system", model, other))
            for measure in MEASURES
            for model, other in combinations(study.systems, 2)
        ),
        conditions={
            measure: {s: difference(own[s], measure, "condition", "full", "evidence") for s in own}
            for measure in MEASURES
            if measure != "referent"  # the same question in both conditions
        },
        agreement={measure: _agreement(rated, measure, seed) for measure in MEASURES},
        seconds={condition: mean(pairs) for condition, pairs in seconds.items()},
        n_items_needed=_n_items_needed(rated, study.systems),
    )


def _excluded(ratings: Sequence[Rating]) -> Iterable[Excluded]:
    for rater in sorted({rating.rater for rating in ratings}):
        checks = [r for r in ratings if r.rater == rater and r.kind == "check"]
        n_wrong = sum(not check.correct for check in checks)
        if n_wrong > len(checks) / 2:
            yield Excluded(rater, len(checks), n_wrong)


def _value(rating: Rating) -> float:
    return float(bool(rating.correct)) if rating.measure == "referent" else float(rating.value)


def _differences(
    ratings: Sequence[Rating], measure: Measure, side: Side, first: str, other: str
) -> dict[str, float]:
    """By item: the mean on the `other` side less that on the `first`, of what is the same but for the side.

    Systems are compared within a condition, conditions within a system, and these differences are averaged: where not
    every rater has come yet, one system may have been heard in other conditions than another. Items without such a
    pair are left out.
    """
    kept: Side = "condition" if side == "system" else "system"
    cells: dict[tuple[str, str], dict[str, list[float]]] = {}
    for rating in ratings:
        if rating.measure == measure:
            cell = cells.setdefault((rating.item, getattr(rating, kept)), {})
            cell.setdefault(getattr(rating, side), []).append(_value(rating))
    by_item: dict[str, list[float]] = {}
    for (item, _), values in cells.items():
        if first in values and other in values:
            by_item.setdefault(item, []).append(fmean(values[other]) - fmean(values[first]))
    return {item: fmean(differences) for item, differences in by_item.items()}


def _agreement(ratings: Sequence[Rating], measure: Measure, seed: int) -> dict[str, Agreement | None]:
    chosen = [rating for rating in ratings if rating.measure == measure]
    raters = sorted({rating.rater for rating in chosen})
    rows: dict[str, list[float | None]] = {}  # a row a trial, a column a rater
    item_of: dict[str, str] = {}
    for rating in chosen:
        rows.setdefault(rating.trial, [None] * len(raters))[raters.index(rating.rater)] = float(rating.value)
        item_of[rating.trial] = rating.item
    table, items = list(rows.values()), [item_of[trial] for trial in rows]
    level: Level = "nominal" if measure == "referent" else "ordinal"
    alpha = partial(krippendorff_alpha, level=level)
    n_ratings = {sum(value is not None for value in row) for row in table}
    same = len(n_ratings) == 1 and n_ratings.pop() > 1
    return {
        f"krippendorff_alpha_{level}": with_interval(alpha, table, seed, clusters=items),
        "fleiss_kappa": with_interval(fleiss_kappa, table, seed, clusters=items) if same else None,
    }


def _n_finished(study: Study, ratings: Sequence[Rating]) -> int:
    given = {(r.rater, r.trial, r.measure) for r in ratings}
    raters = {rating.rater for rating in ratings}
    wanted = {n: [(n, trial.id, m) for trial in trials_for(study, n) for m in MEASURES] for n in raters}
    return sum(given.issuperset(answers) for answers in wanted.values())


def _n_items_needed(ratings: Sequence[Rating], systems: Sequence[str]) -> int | None:
    differences = _differences(ratings, "helpful", "system", systems[0], systems[-1]).values()
    deviation = stdev(differences) if len(differences) > 1 else 0.0
    return n_for_difference(0.5, deviation) if deviation > 0 else None


# --- how it is told ----------------------------------------------------------------------------------------


def write_analysis(analysis: Analysis, out: Path) -> None:
    """analysis.json, analysis.md and analysis.png in the folder `out`."""
    write_whole(out / "analysis.json", json.dumps(asdict(analysis), indent=1) + "\n")
    write_whole(out / "analysis.md", markdown(analysis))
    draw(analysis, out / "analysis.png")


def markdown(analysis: Analysis) -> str:
    """The tables as text; a dash where nothing was rated."""
    paragraphs = [
        "# Listening study",
        f"{analysis.n_raters} raters, {analysis.n_finished} finished, {len(analysis.excluded)} left out for failed "
        f"attention checks; {analysis.n_ratings} ratings. Intervals: 95 %, bootstrap over items.",
    ]
    for measure, systems in analysis.means.items():
        table = ["| system | evidence | full clip |", "|---|---|---|"]
        for system, means in systems.items():
            cells = " | ".join(_told(means[condition]) for condition in CONDITIONS)
            name = system.replace("|", "\\|").replace("\n", " ")
            table.append(f"| {name} | {cells} |")
        paragraphs += [f"## {WORDS[measure].capitalize()}", "\n".join(table)]
        if measure == "referent":
            paragraphs.append(f"Chance: {analysis.chance_referent:.2f}.")
        contrasts = [contrast for contrast in analysis.contrasts if contrast.measure == measure]
        differences = {f"{c.other} - {c.model}": c.difference for c in contrasts}
        for system, difference in analysis.conditions.get(measure, {}).items():
            differences[f"{system}, evidence - full clip"] = difference
        paragraphs += [f"{name}: {_told(mean)} (paired by item)" for name, mean in differences.items()]
        for name, agreement in analysis.agreement[measure].items():
            words = name.replace("_", " ")
            if agreement is None:
                paragraphs.append(f"{words}: not defined, trials have different numbers of ratings")
            elif agreement.value is None:
                paragraphs.append(f"{words}: nothing can be said")
            else:
                interval = "" if agreement.low is None else f" [{agreement.low:.2f}, {agreement.high:.2f}]"
                paragraphs.append(f"{words}: {agreement.value:.2f}{interval}, {agreement.n_units} trials")
    if analysis.n_items_needed is not None:
        paragraphs.append(
            f"By the spread found here, {analysis.n_items_needed} items show a difference of half a point in "
            "helpfulness between the first and the last system (power 0.8, two-sided 5 %)."
        )
    return "\n\n".join(paragraphs) + "\n"


def _told(mean: Mean) -> str:
    return "–" if mean.value is None else f"{number(mean, 2)} (n = {mean.n})"


def draw(analysis: Analysis, path: Path) -> None:
    """A panel a measure: each system's mean on its evidence and on the full clip."""
    panels = []
    rows = {"evidence": "evidence alone", "full": "full clip"}
    for measure, systems in analysis.means.items():
        groups = {
            system: [Dot(row, tint([*systems], system), means[c]) for c, row in rows.items()]
            for system, means in systems.items()
        }
        title = WORDS[measure].split(":")[0]
        if measure == "referent":
            marks = dict.fromkeys(systems, analysis.chance_referent)
            panels.append(Dots(f"{title}; dotted: chance", groups, marks))
        else:
            panels.append(Dots(title, groups, low=1, high=5))
    dots_png(panels, path)


def sample_size(difference: float, deviation: float, raters: int, correlation: float, power: float) -> str:
    """How many paired items a mean difference needs, in a sentence; `correlation` of raters on one item, in [0, 1].

    The deviation of one rating's paired difference; several raters of an item shrink it to sqrt(design effect / n).
    """
    spread = deviation * (design_effect(raters, correlation) / raters) ** 0.5
    n = n_for_difference(difference, spread, power)
    return (
        f"{n} items, each rated by {raters} raters, show a paired difference of {difference:g} points with power "
        f"{power:g} (two-sided 5 %; deviation {deviation:g} of one rating's difference, correlation {correlation:g} "
        "between raters of one item)"
    )

"""`tgsr control` in numbers: what the answers to altered sound (`controls.py`) say about a model, with intervals.

docs/controls.md has the formulas and how to read them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from tgsr.disk.jsonl import Row
from tgsr.disk.whole import write_whole
from tgsr.evaluation.controls.ask import EXPECTED, FOLLOWS, NOT_HEARD, STAYS, Item, Settings, displacement
from tgsr.evaluation.controls.metrics import ConditionScores, Controls
from tgsr.records import write_jsonl
from tgsr.statistics.intervals import Mean, bootstrap_mean, number, percent
from tgsr.statistics.pictures import Dot, Dots, dots_png, tint
from tgsr.timeline import Seconds, Span

# --- measuring -------------------------------------------------------------------------------------------


BY_TASK = ("sufficiency", "sufficiency_over_silence", "necessity", "shift_following")


def summarise(items: Sequence[Item], seed: int = 0) -> Controls:
    """One model's items (as `control` gives them) in numbers."""
    of_task: dict[str, list[Item]] = {}
    for item in items:
        if item.question.kind == "choice" and item.question.task:
            of_task.setdefault(item.question.task, []).append(item)
    by_task: dict[str, dict[str, Mean]] = {}
    for task, theirs in sorted(of_task.items()):
        found = _summarise(theirs, seed)
        by_task[task] = {"accuracy": found.conditions["original"].accuracy}
        by_task[task] |= {field: getattr(found, field) for field in BY_TASK}
    return replace(_summarise(items, seed), by_task=by_task)


def _summarise(items: Sequence[Item], seed: int) -> Controls:
    by: dict[str, dict[str, Item]] = {}
    for item in items:
        by.setdefault(item.condition, {})[item.question.id] = item
    originals = [item for item in by["original"].values() if item.skipped is None]
    choices = [item for item in originals if item.question.kind == "choice"]

    def mean(values: Sequence[float | None], of: Sequence[Item] = choices) -> Mean:
        return bootstrap_mean(values, [item.question.clip_id for item in of], seed)

    def same(condition: str) -> list[float | None]:
        return [_number(_get(by, condition, item, "is_same")) for item in choices]

    def right(condition: str) -> list[float | None]:
        return [_number(_get(by, condition, item, "is_right")) for item in choices]

    draws = [name for name in by if name.startswith("random-removed")]
    sufficiency, silent = same("evidence-only"), same("silenced")
    removed = [_minus(1.0, value) for value in same("evidence-removed")]
    by_draw = [same(name) for name in draws]
    random = [_minus(1.0, _mean_of([values[i] for values in by_draw])) for i in range(len(choices))]
    necessity = [_minus(a, b) for a, b in zip(removed, random, strict=True)]
    is_paired = [value is not None for value in necessity]
    chance = [
        item.question.choices.count(str(item.question.answer)) / len(item.question.choices)
        for item in choices
    ]
    with_evidence = [item for item in choices if item.spans]
    shifts = _movements(by, originals, "shifted")
    return Controls(
        n=len(originals),
        n_clips=len({item.question.clip_id for item in originals}),
        n_choices=len(choices),
        n_phrases=len(originals) - len(choices),
        n_without_original=len(by["original"]) - len(originals),
        n_citing=sum(bool(item.cited) for item in originals),
        n_with_evidence=len(with_evidence),
        covered=mean(
            [sum(span.duration for span in item.spans) / item.question.duration for item in with_evidence],
            with_evidence,
        ),
        chance=sum(chance) / len(chance) if chance else None,
        conditions={name: _condition_scores(by[name], originals, seed) for name in by},
        sufficiency=mean(sufficiency),
        sufficiency_right=mean(
            [value if item.is_right else None for value, item in zip(sufficiency, choices, strict=True)]
        ),
        sufficiency_cropped=mean(same("evidence-cropped")),
        sufficiency_over_silence=mean([_minus(a, b) for a, b in zip(sufficiency, silent, strict=True)]),
        necessity=mean(necessity),
        changed_removed=mean([v if ok else None for v, ok in zip(removed, is_paired, strict=True)]),
        changed_random=mean([v if ok else None for v, ok in zip(random, is_paired, strict=True)]),
        reliance_silenced=mean(
            [_minus(a, b) for a, b in zip(right("original"), right("silenced"), strict=True)]
        ),
        reliance_swapped=mean(
            [_minus(a, b) for a, b in zip(right("original"), right("swapped"), strict=True)]
        ),
        text_prior=mean([_minus(a, b) for a, b in zip(right("silenced"), chance, strict=True)]),
        shift_following=_share(shifts, Movement.follows, seed),
        shift_staying=_share(shifts, Movement.stays, seed),
        shift_lost=_share(shifts, Movement.is_lost, seed),
        shift_slope=slope([m for m in shifts if m.moved is not None], seed),
        shift_following_by_kind={
            kind: _share([m for m in shifts if m.kind == kind], Movement.follows, seed)
            for kind in sorted({m.kind for m in shifts})
        },
        roll_following=_share(_movements(by, originals, "rolled"), Movement.follows, seed),
        by_task={},
    )


@dataclass(frozen=True, slots=True)
class Movement:
    """What became of one cited interval when its sound moved by `expected`: by how much its start and end moved.

    `moved` is None where the response to the altered clip cites fewer intervals.
    """

    clip: Hashable
    kind: str
    expected: Seconds
    moved: tuple[Seconds, Seconds] | None

    def follows(self) -> bool:
        # a rounding error more: 1.2 + 0.5 and 2.0 are 0.3 apart
        return self.moved is not None and all(abs(m - self.expected) <= FOLLOWS + 1e-9 for m in self.moved)

    def stays(self) -> bool:
        return self.moved is not None and all(abs(m) < STAYS for m in self.moved)

    def is_lost(self) -> bool:
        return self.moved is None


def movements(before: Sequence[Span], after: Sequence[Span]) -> list[tuple[Seconds, Seconds] | None]:
    """How far each interval's start and end moved; intervals are matched by the order in which they are cited.

    None for one that has no counterpart. Matching the nearest ones instead would favour either staying or following.
    """
    pairs = list(zip(before, after, strict=False))
    return [displacement(one, other) for one, other in pairs] + [None] * (len(before) - len(pairs))


def slope(found: Sequence[Movement], seed: int = 0, n_resamples: int = 1000) -> Mean:
    """Seconds moved per second shifted, by least squares through the origin, over starts and ends.

    An unshifted clip moves nothing, hence no intercept. The interval is the percentile bootstrap's, by clip. `n` counts
    intervals; all need a `moved`. Value None for none.
    """
    totals: dict[Hashable, tuple[float, float]] = {}
    for one in found:
        assert one.moved is not None
        product, square = totals.get(one.clip, (0.0, 0.0))
        totals[one.clip] = (product + one.expected * sum(one.moved), square + 2 * one.expected**2)
    if not totals:
        return Mean(None, None, None, 0, 0)
    products, squares = np.array(list(totals.values())).T
    value = float(products.sum() / squares.sum())
    if len(totals) == 1:
        return Mean(value, None, None, len(found), 0)
    rng = np.random.default_rng(seed)
    drawn_at = rng.integers(len(products), size=(n_resamples, len(products)))
    low, high = np.percentile(products[drawn_at].sum(1) / squares[drawn_at].sum(1), [2.5, 97.5])
    return Mean(value, float(low), float(high), len(found), 0)


def _movements(
    by: Mapping[str, Mapping[str, Item]], originals: Sequence[Item], family: str
) -> list[Movement]:
    found: list[Movement] = []
    for condition, items in by.items():
        if not condition.startswith(family):
            continue
        for original in originals:
            item = items.get(original.question.id)
            if item is None or item.skipped is not None:
                continue
            moved = movements(original.cited, item.cited)
            clip, kind = original.question.clip_id, original.question.kind
            for expected, one in zip(item.expected, moved, strict=True):
                if expected is not None:
                    found.append(Movement(clip, kind, expected, one))
    return found


def _share(found: Sequence[Movement], holds: Callable[[Movement], bool], seed: int) -> Mean:
    return bootstrap_mean([float(holds(one)) for one in found], [one.clip for one in found], seed)


def _condition_scores(items: Mapping[str, Item], originals: Sequence[Item], seed: int) -> ConditionScores:
    there = [item for o in originals if (item := items.get(o.question.id)) and item.skipped is None]
    choices = [item for item in there if item.question.kind == "choice"]
    phrases = [item for item in there if item.question.kind == "phrase"]

    def mean(of: Sequence[Item], values: Iterable[float | bool | None]) -> Mean:
        return bootstrap_mean([_number(v) for v in values], [item.question.clip_id for item in of], seed)

    reasons = [_reason(item.skipped) for item in items.values() if item.skipped is not None]
    return ConditionScores(
        n=len(there),
        skipped=dict(sorted(Counter(reasons).items())),
        accuracy=mean(choices, (item.is_right for item in choices)),
        accuracy_official=mean(choices, (item.is_right_official for item in choices)),
        same_answer=mean(choices, (item.is_same for item in choices)),
        iou=mean(phrases, (item.iou for item in phrases)),
        same_place=mean(phrases, (item.is_same for item in phrases)),
    )


def _get(by: Mapping[str, Mapping[str, Item]], condition: str, original: Item, field: str) -> bool | None:
    item = by.get(condition, {}).get(original.question.id)
    return None if item is None or item.skipped is not None else getattr(item, field)


def _reason(skipped: str) -> str:
    return skipped if skipped in EXPECTED else NOT_HEARD


def _number(value: float | bool | None) -> float | None:
    return None if value is None else float(value)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _mean_of(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


# --- writing ---------------------------------------------------------------------------------------------


def write(out: Path, models: Mapping[str, Controls], items: Sequence[Item], settings: Settings) -> None:
    """controls.json, items.jsonl, controls.png, and errors.jsonl with what could not be heard, where there is any."""
    rows = {name: asdict(of) for name, of in models.items()}
    text = json.dumps({"settings": asdict(settings), "models": rows}, indent=1, allow_nan=False)
    write_whole(out / "controls.json", text + "\n")
    write_jsonl(out / "items.jsonl", [_row(item) for item in items])
    errors: list[Row] = [
        {"id": item.question.id, "model": item.model, "condition": item.condition, "error": item.skipped}
        for item in items
        if item.skipped is not None and item.skipped not in EXPECTED
    ]
    if errors:
        write_jsonl(out / "errors.jsonl", errors)
    else:
        (out / "errors.jsonl").unlink(missing_ok=True)
    if models:
        draw(out / "controls.png", models)


def _row(item: Item) -> Row:
    def seconds(spans: Sequence[Span]) -> list[list[float]]:
        return [[round(span.start, 3), round(span.end, 3)] for span in spans]

    return {
        "id": item.question.id,
        "clip_id": item.question.clip_id,
        "kind": item.question.kind,
        "model": item.model,
        "condition": item.condition,
        "skipped": item.skipped,
        "answer": item.answer,
        "is_right": item.is_right,
        "is_same": item.is_same,
        "iou": None if item.iou is None else round(item.iou, 4),
        "cited": seconds(item.cited),
        "spans": seconds(item.spans),
        "response": item.response,
    }


def table(models: Mapping[str, Controls]) -> str:
    """Shares in % with their 95 % intervals; slopes as they are."""
    return "\n\n".join(_table(name, of) for name, of in models.items())


FIGURES = {
    "sufficiency": "same answer on the evidence alone",
    "sufficiency_right": "  of those originally right",
    "sufficiency_cropped": "  cropped, without its place",
    "sufficiency_over_silence": "  minus the same answer on silence",
    "changed_removed": "another answer without the evidence",
    "changed_random": "another answer without as much of the rest",
    "necessity": "  necessity: their difference",
    "reliance_silenced": "accuracy lost on silence",
    "reliance_swapped": "accuracy lost on another clip",
    "text_prior": "accuracy on silence above chance",
    "shift_following": "cited times follow a shift",
    "shift_staying": "cited times stay",
    "shift_lost": "no longer cited",
    "roll_following": "cited times follow a roll",
}


SLOPE = "seconds moved per second shifted"
TASK_COLUMNS = ("accuracy %", "sufficiency %", "over silence", "necessity", "shift-following %")


def _table(name: str, of: Controls) -> str:
    head = (
        f"{name}: {of.n} questions ({of.n_choices} choices, {of.n_phrases} phrases) about {of.n_clips} clips"
    )
    if of.n_without_original:
        head += f", {of.n_without_original} more without a response"
    head += f"; {of.n_citing} responses cite a valid interval"
    if of.covered.value is not None:
        head += f"; the evidence of {of.n_with_evidence} choices covers {of.covered.value:.0%} of its clip"
    lines = [head]
    if of.n_choices:
        cells = [(scores.accuracy, scores.same_answer) for scores in of.conditions.values()]
        lines += _condition_lines(of, ("accuracy %", "same answer %"), cells)
        lines.append(f"  {'a blind pick':18} {'':5}  {100 * (of.chance or 0):.1f}")
    if of.n_phrases:
        cells = [(scores.iou, scores.same_place) for scores in of.conditions.values()]
        lines += _condition_lines(of, ("IoU %", "same place %"), cells)
    for field, words in FIGURES.items():
        mean: Mean = getattr(of, field)
        if mean.n:
            lines.append(f"  {words:44} {percent(mean, ''):22} n {mean.n}")
    if of.shift_slope.n:
        lines.append(f"  {SLOPE:44} {number(of.shift_slope, 2):22} n {of.shift_slope.n}")
    if len(of.by_task) > 1:
        lines.append("  " + " ".join([f"{'task':12}", *(f"{words:20}" for words in TASK_COLUMNS)]).rstrip())
        for task, means in of.by_task.items():
            row = " ".join([f"{task:12}", *(f"{percent(mean, ''):20}" for mean in means.values())])
            lines.append("  " + row.rstrip())
    return "\n".join(lines)


def _condition_lines(of: Controls, columns: tuple[str, str], cells: Sequence[tuple[Mean, Mean]]) -> list[str]:
    """A row for each condition that has a score of the kind, or a reason for having none."""
    lines = [f"  {'condition':18} {'n':>5}  {columns[0]:20} {columns[1]:20} not asked"]
    for (name, scores), (first, second) in zip(of.conditions.items(), cells, strict=True):
        n = first.n + first.n_unscored
        skipped = ", ".join(f"{reason} {k}" for reason, k in scores.skipped.items())
        same = "" if name == "original" else percent(second, "")
        if n or (skipped and not scores.n):
            lines.append(f"  {name:18} {n:5}  {percent(first, ''):20} {same:20} {skipped}".rstrip())
    return lines


LEAST_DRAWN = 10
PLOTTED = {
    "sufficiency": "sufficiency",
    "sufficiency_over_silence": "sufficiency over silence",
    "necessity": "necessity",
    "shift_following": "shift-following",
    "roll_following": "roll-following",
    "shift_staying": "staying",
}


def draw(path: Path, models: Mapping[str, Controls]) -> None:
    """Left: accuracy under each condition, with chance (IoU where there are phrases only); right: the evidence's part.

    Dots with 95 % intervals. Means over fewer than LEAST_DRAWN items, or over the times of fewer responses, are left
    out: their intervals look surer than they are.
    """

    def dots(mean_of: Callable[[Controls], Mean | None]) -> list[Dot]:
        means = {name: mean_of(controls) for name, controls in models.items()}
        names = [*models]
        return [
            Dot(name, tint(names, name), mean)
            for name, mean in means.items()
            if mean is not None and mean.n >= LEAST_DRAWN
        ]

    def of_condition(controls: Controls, condition: str) -> Mean | None:
        scores = controls.conditions.get(condition)
        return None if scores is None else getattr(scores, score)

    def of_evidence(controls: Controls, field: str) -> Mean | None:
        few = field.startswith(("shift", "roll")) and controls.n_citing < LEAST_DRAWN
        return None if few else getattr(controls, field)

    score = "accuracy" if any(controls.n_choices for controls in models.values()) else "iou"
    conditions = dict.fromkeys(name for controls in models.values() for name in controls.conditions)
    left = {name: dots(partial(of_condition, condition=name)) for name in conditions}
    right = {words: dots(partial(of_evidence, field=field)) for field, words in PLOTTED.items()}
    left, right = ({name: row for name, row in rows.items() if row} for rows in (left, right))
    chance = next((controls.chance for controls in models.values() if controls.chance is not None), None)
    title = (
        "Accuracy on altered sound; dotted: a blind pick" if score == "accuracy" else "IoU on altered sound"
    )
    lows = [dot.mean.low for row in right.values() for dot in row if dot.mean.low is not None]
    panels = [
        Dots(title, left, {} if chance is None else dict.fromkeys(left, chance)),
        Dots("What the evidence does", right, dict.fromkeys(right, 0.0), low=min([0.0, *lows])),
    ]
    dots_png(panels, path)

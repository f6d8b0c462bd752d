"""`tgsr control` in numbers: what the answers to altered sound (ask.py) say about a model, with intervals.

docs/controls.md has the formulas and how to read them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tgsr.disk.jsonl import Row
from tgsr.disk.whole import write_whole
from tgsr.evaluation.controls import CRITERIA
from tgsr.evaluation.controls.alter import EXPECTED, FOLLOWS, NOT_HEARD, STAYS, Settings
from tgsr.evaluation.controls.ask import ControlItem, displacement
from tgsr.evaluation.controls.metrics import ConditionScores, Controls
from tgsr.records import write_errors, write_jsonl
from tgsr.statistics.intervals import Bootstrap, Floats, Mean, number, percent
from tgsr.statistics.pictures import Dot, Dots, dots_by_model, dots_png
from tgsr.timeline import ROUNDING, Seconds, Span

# --- measuring -------------------------------------------------------------------------------------------


BY_TASK = ("sufficiency", "sufficiency_over_silence", "necessity", "shift_following")


def summarise(items: Sequence[ControlItem], seed: int = 0) -> Controls:
    """One model's items (as `control` gives them) in numbers."""
    bootstrap = Bootstrap(seed)
    tasks: dict[str, list[ControlItem]] = {}
    for item in items:
        if item.question.kind == "choice" and item.question.task:
            tasks.setdefault(item.question.task, []).append(item)
    by_task: dict[str, dict[str, Mean]] = {}
    for task, task_items in sorted(tasks.items()):
        scores = _summarise(task_items, bootstrap)
        by_task[task] = {"accuracy": scores.conditions["original"].accuracy}
        by_task[task] |= {field: getattr(scores, field) for field in BY_TASK}
    return replace(_summarise(items, bootstrap), by_task=by_task)


def _summarise(items: Sequence[ControlItem], bootstrap: Bootstrap) -> Controls:
    by_condition: dict[str, dict[str, ControlItem]] = {}
    for item in items:
        by_condition.setdefault(item.condition, {})[item.question.id] = item
    originals = [item for item in by_condition["original"].values() if item.skipped is None]
    choices = [item for item in originals if item.question.kind == "choice"]
    clips = [item.question.clip_id for item in choices]

    def answers(condition: str, field: str) -> Floats:
        """1 or 0 for each choice, NaN where there is no answer under that condition."""
        asked = by_condition.get(condition, {})
        return np.array([getattr(asked.get(item.question.id), field, None) for item in choices], dtype=float)

    same = partial(answers, field="is_same")
    right = partial(answers, field="is_right")
    sufficiency, removed = same("evidence-only"), 1 - same("evidence-removed")
    draws = [same(name) for name in by_condition if name.startswith("random-removed")]
    same_DC = np.array(draws).reshape(len(draws), len(choices))
    n_drawn_C = (~np.isnan(same_DC)).sum(axis=0)
    random = 1 - np.nansum(same_DC, axis=0) / np.where(n_drawn_C > 0, n_drawn_C, np.nan)
    necessity, silenced = removed - random, right("original") - right("silenced")
    asked = [item.question for item in choices]
    chance = np.array([q.choices.count(str(q.answer)) / len(q.choices) for q in asked])
    means: dict[str, Any] = bootstrap.means(
        {
            "sufficiency": sufficiency,
            "sufficiency_right": np.where(right("original") == 1, sufficiency, np.nan),
            "sufficiency_cropped": same("evidence-cropped"),
            "sufficiency_over_silence": sufficiency - same("silenced"),
            "necessity": necessity,
            "changed_removed": np.where(np.isnan(necessity), np.nan, removed),
            "changed_random": np.where(np.isnan(necessity), np.nan, random),
            "reliance_silenced": silenced,
            "reliance_swapped": right("original") - right("swapped"),
            "text_prior": right("silenced") - chance,
        },
        clips,
    )
    with_evidence = [item for item in choices if item.spans]
    covered = [sum(s.duration for s in item.spans) / item.question.duration for item in with_evidence]
    shifts = _movements(by_condition, originals, "shifted")
    return Controls(
        n=len(originals),
        n_clips=len({item.question.clip_id for item in originals}),
        n_choices=len(choices),
        n_phrases=len(originals) - len(choices),
        n_without_original=len(by_condition["original"]) - len(originals),
        n_citing=sum(bool(item.cited) for item in originals),
        n_with_evidence=len(with_evidence),
        covered=bootstrap.means({"": covered}, [item.question.clip_id for item in with_evidence])[""],
        chance=float(chance.mean()) if choices else None,
        conditions={
            name: _condition_scores(by_condition[name], originals, bootstrap) for name in by_condition
        },
        **means,
        shift_following=_share(shifts, Movement.follows, bootstrap),
        shift_staying=_share(shifts, Movement.stays, bootstrap),
        shift_lost=_share(shifts, Movement.is_lost, bootstrap),
        shift_slope=slope([m for m in shifts if m.moved is not None], bootstrap),
        shift_following_by_kind={
            kind: _share([m for m in shifts if m.kind == kind], Movement.follows, bootstrap)
            for kind in sorted({m.kind for m in shifts})
        },
        roll_following=_share(_movements(by_condition, originals, "rolled"), Movement.follows, bootstrap),
        p_necessity=bootstrap.paired(necessity.tolist(), clips)[1],
        p_reliance_silenced=bootstrap.paired(silenced.tolist(), clips)[1],
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
        return self.moved is not None and all(
            abs(m - self.expected) <= FOLLOWS + ROUNDING for m in self.moved
        )

    def stays(self) -> bool:
        return self.moved is not None and all(abs(m) < STAYS - ROUNDING for m in self.moved)

    def is_lost(self) -> bool:
        return self.moved is None


def movements(before: Sequence[Span], after: Sequence[Span]) -> list[tuple[Seconds, Seconds] | None]:
    """How far each interval's start and end moved; intervals are matched by the order in which they are cited.

    None for one that has no counterpart. Matching the nearest ones instead would favour either staying or following.
    """
    pairs = list(zip(before, after, strict=False))
    return [displacement(one, other) for one, other in pairs] + [None] * (len(before) - len(pairs))


def slope(moved: Sequence[Movement], bootstrap: Bootstrap) -> Mean:
    """Seconds moved per second shifted, by least squares through the origin, over starts and ends.

    An unshifted clip moves nothing, hence no intercept. The interval is the percentile bootstrap's, by clip. `n` counts
    intervals; all need a `moved`. Value None for none.
    """
    products = [movement.expected * sum(movement.moved or ()) for movement in moved]
    squares = [2 * movement.expected**2 for movement in moved]
    return bootstrap.ratio(products, squares, [movement.clip for movement in moved])


def _movements(
    by_condition: Mapping[str, Mapping[str, ControlItem]], originals: Sequence[ControlItem], family: str
) -> list[Movement]:
    """What became of each cited interval whose sound moved, over the conditions of the family."""
    return [
        Movement(original.question.clip_id, original.question.kind, expected, moved)
        for condition, items in by_condition.items()
        if condition.startswith(family)
        for original in originals
        if (item := items.get(original.question.id)) is not None and item.skipped is None
        for expected, moved in zip(item.expected, movements(original.cited, item.cited), strict=True)
        if expected is not None
    ]


def _share(moved: Sequence[Movement], holds: Callable[[Movement], bool], bootstrap: Bootstrap) -> Mean:
    clips = [movement.clip for movement in moved]
    return bootstrap.means({"": [float(holds(movement)) for movement in moved]}, clips)[""]


def _condition_scores(
    items: Mapping[str, ControlItem], originals: Sequence[ControlItem], bootstrap: Bootstrap
) -> ConditionScores:
    asked = [item for o in originals if (item := items.get(o.question.id)) and item.skipped is None]

    def means(kind: str, fields: Mapping[str, str]) -> dict[str, Mean]:
        of_kind = [item for item in asked if item.question.kind == kind]
        columns = {score: [getattr(item, field) for item in of_kind] for score, field in fields.items()}
        return bootstrap.means(columns, [item.question.clip_id for item in of_kind])

    skipped = (item.skipped for item in items.values() if item.skipped is not None)
    reasons = Counter(reason if reason in EXPECTED else NOT_HEARD for reason in skipped)
    fields = {"accuracy": "is_right", "accuracy_official": "is_right_official", "same_answer": "is_same"}
    name = next((item.condition for item in items.values()), "")
    return ConditionScores(
        n=len(asked),
        criterion=next((words for family, words in CRITERIA.items() if name.startswith(family)), None),
        skipped=dict(sorted(reasons.items())),
        n_cut=sum(item.is_cut for item in asked),
        **means("choice", {**fields, "reasoning_alike": "alike"}),
        **means("phrase", {"iou": "iou", "same_place": "is_same"}),
    )


# --- writing ---------------------------------------------------------------------------------------------


def write(
    out: Path, models: Mapping[str, Controls], items: Sequence[ControlItem], settings: Settings
) -> None:
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
    write_errors(out / "errors.jsonl", errors)
    if models:
        draw(out / "controls.png", models)


def _row(item: ControlItem) -> Row:
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
        **({} if item.alike is None else {"alike": item.alike}),
        **({"truncated": True} if item.is_cut else {}),
        "response": item.response,
    }


def table(models: Mapping[str, Controls]) -> str:
    """Shares in % with their 95 % intervals; slopes as they are."""
    return "\n\n".join(_table(name, controls) for name, controls in models.items())


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
CUT = (
    "cut off: by the limit of new tokens (choices and phrases); without a readable answer they count as wrong, and on "
    "altered sound as another answer"
)
TASK_COLUMNS = ("accuracy %", "sufficiency %", "over silence", "necessity", "shift-following %")


def _table(name: str, controls: Controls) -> str:
    kinds = f"{controls.n_choices} choices, {controls.n_phrases} phrases"
    head = f"{name}: {controls.n} questions ({kinds}) about {controls.n_clips} clips"
    if controls.n_without_original:
        head += f", {controls.n_without_original} more without a response"
    head += f"; {controls.n_citing} responses cite a valid interval"
    if controls.covered.value is not None:
        head += f"; the evidence of {controls.n_with_evidence} choices covers {controls.covered.value:.0%} of its clip"
    lines = [head]
    if controls.n_choices:
        lines += _condition_lines(controls, {"accuracy": "accuracy %", "same_answer": "same answer %"})
        lines.append(f"  {'a blind pick':18} {'':5}  {100 * (controls.chance or 0):.1f}")
    if controls.n_phrases:
        lines += _condition_lines(controls, {"iou": "IoU %", "same_place": "same place %"})
    if any(scores.n_cut for scores in controls.conditions.values()):
        lines.append(f"  {CUT}")
    for field, words in FIGURES.items():
        mean: Mean = getattr(controls, field)
        if mean.n:
            lines.append(f"  {words:44} {percent(mean, ''):22} n {mean.n}")
    if controls.shift_slope.n:
        lines.append(f"  {SLOPE:44} {number(controls.shift_slope, 2):22} n {controls.shift_slope.n}")
    if len(controls.by_task) > 1:
        lines.append("  " + " ".join([f"{'task':12}", *(f"{words:20}" for words in TASK_COLUMNS)]).rstrip())
        for task, means in controls.by_task.items():
            row = " ".join([f"{task:12}", *(f"{percent(mean, ''):20}" for mean in means.values())])
            lines.append("  " + row.rstrip())
    return "\n".join(lines)


def _condition_lines(controls: Controls, columns: Mapping[str, str]) -> list[str]:
    """A row for each condition that has a score of the kind, or a reason for having none."""
    heads = " ".join(f"{head:20}" for head in columns.values())
    lines = [f"  {'condition':18} {'n':>5}  {heads} not asked, (criterion of arXiv 2509.22363)"]
    for name, scores in controls.conditions.items():
        first, second = (getattr(scores, field) for field in columns)
        n = first.n + first.n_unscored
        skipped = ", ".join(f"{reason} {k}" for reason, k in scores.skipped.items())
        same = "" if name == "original" else percent(second, "")
        notes = [skipped, f"{scores.n_cut} cut off" if scores.n_cut else ""]
        notes.append(f"same of {second.n}" if same and 0 < second.n < n else "")
        notes.append(f"alike {number(scores.reasoning_alike)}" if scores.reasoning_alike.n else "")
        notes.append(f"({scores.criterion})" if scores.criterion else "")
        if n or (skipped and not scores.n):
            told = ", ".join(note for note in notes if note)
            lines.append(f"  {name:18} {n:5}  {percent(first, ''):20} {same:20} {told}".rstrip())
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

    def dots(means: Mapping[str, Mapping[str, Mean | None]]) -> dict[str, list[Dot]]:
        all_rows = {name: dots_by_model(of_models) for name, of_models in means.items()}
        rows = {name: [dot for dot in row if dot.mean.n >= LEAST_DRAWN] for name, row in all_rows.items()}
        return {name: row for name, row in rows.items() if row}

    def of_evidence(controls: Controls, field: str) -> Mean | None:
        few = field.startswith(("shift", "roll")) and controls.n_citing < LEAST_DRAWN
        return None if few else getattr(controls, field)

    score, title = "iou", "IoU on altered sound"
    if any(controls.n_choices for controls in models.values()):
        score, title = "accuracy", "Accuracy on altered sound; dotted: a blind pick"
    conditions = dict.fromkeys(name for controls in models.values() for name in controls.conditions)
    left = dots(
        {c: {m: getattr(models[m].conditions.get(c), score, None) for m in models} for c in conditions}
    )
    right = dots(
        {words: {m: of_evidence(models[m], field) for m in models} for field, words in PLOTTED.items()}
    )
    chance = next((controls.chance for controls in models.values() if controls.chance is not None), None)
    lows = [dot.mean.low for row in right.values() for dot in row if dot.mean.low is not None]
    panels = [
        Dots(title, left, {} if chance is None else dict.fromkeys(left, chance)),
        Dots("What the evidence does", right, dict.fromkeys(right, 0.0), low=min([0.0, *lows])),
    ]
    dots_png(panels, path)

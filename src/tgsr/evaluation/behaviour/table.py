"""`tgsr behaviour`: how a model reasons, beside whether it is right. Table 3; section 5.4 and appendix C.4.

Regions Explored counts the distinct intervals of a response, Audiology Verify asks whether what it says is heard there
is heard there (audiology.py), Consistency whether its reasoning supports its answer (judge.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import matplotlib.pyplot as plt

from tgsr.choices import letter, official_letter
from tgsr.disk.jsonl import Row
from tgsr.disk.whole import whole, write_whole
from tgsr.evaluation.behaviour.audiology_verify import SIMILARITIES, Verified
from tgsr.evaluation.behaviour.consistency import Judged, flips
from tgsr.evaluation.behaviour.metrics import Behaviour
from tgsr.evaluation.scoring.terminal import number, percent
from tgsr.grounding import count_distinct, count_mentions, find_mentions
from tgsr.records import Response, write_jsonl
from tgsr.statistics.intervals import NOT_MEASURED, Mean, bootstrap_mean
from tgsr.statistics.pictures import MODEL_COLOURS

N_LETTERS = 26


def behaviour(
    responses: Sequence[Response],
    verified: Sequence[Verified] | None = None,
    judged: Sequence[Judged] | None = None,
    seed: int = 0,
) -> Behaviour:
    """One model's numbers. `responses` are to questions with choices; `verified` are theirs, in the same order;
    `judged` those that could be judged, in any order.
    """
    clips = [response.question.clip_id for response in responses]
    texts = [response.text for response in responses]

    def mean(values: Sequence[float | None]) -> Mean:
        return bootstrap_mean(values, clips, seed)

    # As the paper's authors read the answer (Eq. 1), so that the numbers stand beside `tgsr score`'s
    correct = [response.question.choices.index(response.question.answer or "") for response in responses]
    is_right = [
        i < N_LETTERS and official_letter(text) == letter(i) for i, text in zip(correct, texts, strict=True)
    ]
    scores = Behaviour(
        n=len(responses),
        regions_official=mean([float(count_mentions(text)) for text in texts]),
        regions_strict=mean([float(count_distinct(text)) for text in texts]),
        accuracy=mean([float(right) for right in is_right]),
        n_without_span=sum(not find_mentions(text) for text in texts),
    )
    if verified is not None:
        problems = [
            step.problem.partition(":")[0] for v in verified for step in v.steps if step.problem is not None
        ]
        scores = replace(
            scores,
            verify=mean([v.value for v in verified]),
            verify_zero=mean([v.value if v.steps else 0.0 for v in verified]),
            verify_by={
                measure.__name__: mean([v.value_by(measure) for v in verified]) for measure in SIMILARITIES
            },
            n_unverifiable=dict(Counter(problems)),
        )
    if judged is not None:
        by_variant = {
            variant: bootstrap_mean(
                [None if (verdict := j.verdicts.get(variant)) is None else float(verdict) for j in judged],
                [j.case.clip for j in judged],
                seed,
            )
            for variant in dict.fromkeys(name for j in judged for name in (*j.verdicts, *j.failed))
        }
        scores = replace(
            scores,
            consistency=by_variant.get("plain", NOT_MEASURED),
            by_variant=by_variant,
            flips={variant: flips(judged, variant, seed) for variant in by_variant if variant != "plain"},
            n_unparsed=sum("plain" in j.verdicts and j.verdicts["plain"] is None for j in judged),
            n_failed=sum("plain" in j.failed for j in judged),
            n_without_answer=len(responses) - len(judged),
        )
    return scores


# --- files -----------------------------------------------------------------------------------------------------


def write_behaviour(out: Path, models: Mapping[str, Behaviour], judge: str | None, similarity: str) -> None:
    """behaviour.json and behaviour.png in the folder `out`."""
    row = {
        "models": {name: asdict(of) for name, of in models.items()},
        "judge": judge,
        "similarity": similarity,
    }
    write_whole(out / "behaviour.json", json.dumps(row, indent=1) + "\n")
    draw(out / "behaviour.png", models)


def write_verified(path: Path, verified: Sequence[Verified]) -> None:
    """One line a cited interval: what the response says is heard there, and what is."""
    rows: list[Row] = [
        {
            "id": of.response.question.id,
            "clip_id": of.response.question.clip_id,
            "model": of.response.model,
            **asdict(step),
        }
        for of in verified
        for step in of.steps
    ]
    write_jsonl(path, rows)


def table(models: Mapping[str, Behaviour]) -> str:
    """A line a model: table 3's columns."""
    lines = []
    for name, of in models.items():
        verify = (
            "not asked for"
            if of.verify is None or of.verify_zero is None
            else _verify(of.verify, of.verify_zero)
        )
        judged = "not asked for" if of.consistency is None else number(of.consistency)
        lines.append(
            f"{name}: {of.n} responses: Regions Explored {number(of.regions_strict)} "
            f"(mentions {number(of.regions_official)}), Audiology Verify {verify}, Consistency {judged}, "
            f"accuracy {percent(of.accuracy)}"
        )
        if of.n_unverifiable:
            problems = ", ".join(f"{n} {problem}" for problem, n in sorted(of.n_unverifiable.items()))
            lines.append(f"{name}: cited intervals: {problems}")
        if of.consistency is not None and (of.n_unparsed or of.n_failed or of.n_without_answer):
            lines.append(
                f"{name}: judge: {of.n_unparsed} replies were no verdict, {of.n_failed} requests failed, "
                f"{of.n_without_answer} responses without an answer or a reasoning were not judged"
            )
        for variant, flip in of.flips.items():
            rate = percent(flip.rate)
            lines.append(
                f"{name}: judge, {variant}: {rate} of verdicts change ({flip.to_yes} to 1, {flip.to_no} to 0)"
            )
    return "\n".join(lines)


def _verify(verify: Mean, zero: Mean) -> str:
    return f"{number(verify)} ({verify.n} responses; {number(zero)} with 0 for those that cite nothing)"


def draw(path: Path, models: Mapping[str, Behaviour]) -> None:
    """One panel a behaviour, one dot with its interval a model."""
    panels: dict[str, list[Mean | None]] = {
        "Regions Explored": [of.regions_strict for of in models.values()],
        "Audiology Verify": [of.verify for of in models.values()],
        "Consistency": [of.consistency for of in models.values()],
        "Accuracy": [of.accuracy for of in models.values()],
    }
    shown = {title: means for title, means in panels.items() if any(mean is not None for mean in means)}
    height = 1.3 + 0.34 * len(models)
    figure, axes = plt.subplots(1, len(shown), figsize=(2.9 * len(shown) + 1.4, height), squeeze=False)
    for column, (title, means) in enumerate(shown.items()):
        panel = axes[0][column]
        for row, mean in enumerate(means):
            colour = MODEL_COLOURS[row % len(MODEL_COLOURS)]
            if mean is None or mean.value is None:
                continue
            if mean.low is not None:
                panel.plot([mean.low, mean.high], [row, row], color=colour, linewidth=1.8)
            panel.plot(mean.value, row, "o", color=colour, clip_on=False, zorder=3)
        panel.set_yticks(range(len(models)), list(models) if column == 0 else [""] * len(models))
        panel.set_ylim(len(models) - 0.5, -0.5)
        panel.set_xlim(left=0, right=None if title == "Regions Explored" else 1)
        panel.set_title(title, fontsize=10)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x", color="#e1ded7", linewidth=0.6)
        panel.set_axisbelow(True)
    figure.tight_layout()
    with whole(path) as half:
        figure.savefig(half, dpi=150, facecolor="white")
    plt.close(figure)

"""`tgsr behaviour`: how a model reasons, beside whether it is right. Table 3; section 5.4 and appendix C.4.

Regions Explored counts the distinct intervals of a response, Audiology Verify asks whether what it says is heard there
is heard there (audiology.py), Consistency whether its reasoning supports its answer (judge.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt

from tgsr.choices import letter, official_letter
from tgsr.disk.whole import whole, write_whole
from tgsr.evaluation.behaviour.audiology_verify import SIMILARITIES, Verified
from tgsr.evaluation.behaviour.consistency import Flips, Judged, flips
from tgsr.evaluation.scoring.terminal import number, percent
from tgsr.grounding import count_distinct, count_mentions, find_mentions
from tgsr.records import Response, Row, write_jsonl
from tgsr.statistics.intervals import Mean, bootstrap_mean
from tgsr.statistics.pictures import MODEL_COLOURS

N_LETTERS = 26


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One model's behaviours over its responses to questions with choices; intervals are over clips.

    verify: the mean over responses that cite something that could be verified; verify_zero: the same with 0 for
    responses that cite nothing (docs/behaviour.md says which of the two the paper can have meant); verify_by: `verify`
    by each similarity that was compared: does a difference hang on the chosen one? n_unverifiable counts
    cited intervals by what was wrong with them. consistency: over the responses with a verdict; `by_variant` has
    it under the turned order of choices and with the verdicts swapped, `flips` how often a verdict changed; n_unparsed
    are replies that were no verdict, n_failed requests without a reply, n_without_answer responses that name no choice
    clearly or reason nothing, and are not judged. None for what was not asked for.
    """

    n: int
    regions_official: Mean
    regions_strict: Mean
    accuracy: Mean
    n_without_span: int
    verify: Mean | None
    verify_zero: Mean | None
    verify_by: dict[str, Mean]
    n_unverifiable: dict[str, int]
    consistency: Mean | None
    by_variant: dict[str, Mean]
    flips: dict[str, Flips]
    n_unparsed: int
    n_failed: int
    n_without_answer: int


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
    by_variant: dict[str, Mean] = {}
    changed: dict[str, Flips] = {}
    n_unparsed = n_failed = 0
    if judged is not None:
        for variant in dict.fromkeys(name for of in judged for name in (*of.verdicts, *of.failed)):
            verdicts = [of.verdicts.get(variant) for of in judged]
            values = [None if verdict is None else float(verdict) for verdict in verdicts]
            by_variant[variant] = bootstrap_mean(values, [of.case.clip for of in judged], seed)
            if variant == "plain":
                n_unparsed = sum("plain" in of.verdicts and of.verdicts["plain"] is None for of in judged)
                n_failed = sum("plain" in of.failed for of in judged)
            else:
                changed[variant] = flips(judged, variant, seed)  # type: ignore[arg-type]
    values_of = None if verified is None else [of.value for of in verified]
    unverifiable: dict[str, int] = {}
    for of_one in verified or ():
        for step in of_one.steps:
            if step.problem is not None:
                kind = step.problem.partition(":")[0]
                unverifiable[kind] = unverifiable.get(kind, 0) + 1
    nothing = Mean(None, None, None, 0, 0)
    return Behaviour(
        len(responses),
        bootstrap_mean([float(count_mentions(text)) for text in texts], clips, seed),
        bootstrap_mean([float(count_distinct(text)) for text in texts], clips, seed),
        bootstrap_mean([float(_is_right(response)) for response in responses], clips, seed),
        sum(not find_mentions(text) for text in texts),
        None if values_of is None else bootstrap_mean(values_of, clips, seed),
        None if verified is None else bootstrap_mean([_or_zero(of) for of in verified], clips, seed),
        {
            measure.__name__: bootstrap_mean([of.value_by(measure) for of in verified or ()], clips, seed)
            for measure in SIMILARITIES
            if verified is not None
        },
        unverifiable,
        None if judged is None else by_variant.get("plain", nothing),
        by_variant,
        changed,
        n_unparsed,
        n_failed,
        0 if judged is None else len(responses) - len(judged),
    )


def _or_zero(verified: Verified) -> float | None:
    return verified.value if verified.steps else 0.0


def _is_right(response: Response) -> bool:
    """As the paper's authors read the answer (Eq. 1), so that the numbers stand beside `tgsr score`'s."""
    index = response.question.choices.index(response.question.answer or "")
    return index < N_LETTERS and official_letter(response.text) == letter(index)


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

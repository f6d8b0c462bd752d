"""`tgsr behaviour`: how a model reasons, beside whether it is right. Table 3; section 5.4 and appendix C.4.

Regions Explored counts the distinct intervals of a response, Audiology Verify asks whether what it says is heard there
is heard there (audiology_verify.py), Consistency whether its reasoning supports its answer (consistency.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tgsr.disk.jsonl import Row
from tgsr.disk.whole import write_whole
from tgsr.evaluation.behaviour.audiology_verify import SIMILARITIES, Verified
from tgsr.evaluation.behaviour.consistency import Judged, flips
from tgsr.evaluation.behaviour.metrics import CRITERIA, Behaviour
from tgsr.evaluation.scoring.responses import Answered, official_of
from tgsr.grounding import count_distinct, count_mentions, find_regions
from tgsr.records import write_jsonl
from tgsr.statistics.intervals import NOT_MEASURED, Mean, bootstrap_mean, number, percent
from tgsr.statistics.pictures import Dots, dots_by_model, dots_png


def behaviour(
    answers: Sequence[Answered],
    verified: Sequence[Verified] | None = None,
    judged: Sequence[Judged] | None = None,
    seed: int = 0,
) -> Behaviour:
    """One model's numbers. `answers` are to questions with choices; `verified` are theirs, in the same order;
    `judged` those that could be judged, in any order.
    """
    clips = [answer.response.question.clip_id for answer in answers]
    texts = [answer.response.text for answer in answers]

    def mean(values: Sequence[float | None]) -> Mean:
        return bootstrap_mean(values, clips, seed)

    is_right = [None if (right := official_of(answer)) is None else float(right) for answer in answers]
    scores = Behaviour(
        n=len(answers),
        regions_official=mean([float(count_mentions(text)) for text in texts]),
        regions_strict=mean([float(count_distinct(text)) for text in texts]),
        accuracy=mean(is_right),
        n_without_span=sum(not find_regions(text) for text in texts),
        n_cut=sum(answer.response.truncated for answer in answers),
    )
    if verified is not None:
        said = (step.problem for v in verified for step in v.steps)
        problems = Counter(problem.partition(":")[0] for problem in said if problem is not None)
        # Where nothing that is cited could be heard, those that cite nothing are not all that there is to say.
        unheard = all(v.value is None for v in verified) and any(v.steps for v in verified)
        scores = replace(
            scores,
            verify=mean([v.value for v in verified]),
            verify_zero=mean([None if unheard else v.value if v.steps else 0.0 for v in verified]),
            verify_by={by.__name__: mean([v.value_by(by) for v in verified]) for by in SIMILARITIES},
            n_unverifiable=dict(problems),
        )
    if judged is not None:
        by_variant, judged_clips = {}, [j.case.clip for j in judged]
        for variant in dict.fromkeys(name for j in judged for name in (*j.verdicts, *j.failed)):
            verdicts = [None if (v := j.verdicts.get(variant)) is None else float(v) for j in judged]
            by_variant[variant] = bootstrap_mean(verdicts, judged_clips, seed)
        scores = replace(
            scores,
            consistency=by_variant.get("plain", NOT_MEASURED),
            by_variant=by_variant,
            flips={variant: flips(judged, variant, seed) for variant in by_variant if variant != "plain"},
            n_unparsed=sum("plain" in j.verdicts and j.verdicts["plain"] is None for j in judged),
            n_failed=sum("plain" in j.failed for j in judged),
            n_without_answer=len(answers) - len(judged),
        )
    return scores


# --- files -----------------------------------------------------------------------------------------------------


def write_behaviour(out: Path, models: Mapping[str, Behaviour], judge: str | None, similarity: str) -> None:
    """behaviour.json and behaviour.png in the folder `out`."""
    rows = {name: asdict(scores) for name, scores in models.items()}
    said = {"models": rows, "judge": judge, "similarity": similarity, "criteria": CRITERIA}
    write_whole(out / "behaviour.json", json.dumps(said, indent=1) + "\n")
    draw(out / "behaviour.png", models)


def write_verified(path: Path, verified: Sequence[Verified]) -> None:
    """One line a cited interval: what the response says is heard there, and what is."""
    rows: list[Row] = []
    for response, steps in ((v.response, v.steps) for v in verified):
        names = {"id": response.question.id, "clip_id": response.question.clip_id, "model": response.model}
        rows += [names | asdict(step) for step in steps]
    write_jsonl(path, rows)


def table(models: Mapping[str, Behaviour]) -> str:
    """A line a model: table 3's columns."""
    lines = []
    for name, scores in models.items():
        verify = consistency = "not asked for"
        if scores.verify is not None and scores.verify_zero is not None:
            verify = (
                f"{number(scores.verify)} ({scores.verify.n} responses; "
                f"{number(scores.verify_zero)} with 0 for those that cite nothing)"
            )
        if scores.consistency is not None:
            consistency = number(scores.consistency)
        lines.append(
            f"{name}: {scores.n} responses: Regions Explored {number(scores.regions_strict)} "
            f"(mentions {number(scores.regions_official)}), Audiology Verify {verify}, Consistency {consistency}, "
            f"accuracy {percent(scores.accuracy)}"
        )
        if scores.n_cut:
            lines.append(
                f"{name}: {scores.n_cut} of {scores.n} responses were cut off at the limit of new tokens: regions that "
                "were still to come are not counted, and an answer that was is wrong, or not judged"
            )
        if scores.n_unverifiable:
            problems = ", ".join(f"{n} {problem}" for problem, n in sorted(scores.n_unverifiable.items()))
            lines.append(f"{name}: cited intervals: {problems}")
        if scores.n_unparsed or scores.n_failed or scores.n_without_answer:
            lines.append(
                f"{name}: judge: {scores.n_unparsed} replies were no verdict, {scores.n_failed} requests failed, "
                f"{scores.n_without_answer} responses without an answer or a reasoning were not judged"
            )
        lines += [f"{name}: judge, {flips.told(variant)}" for variant, flips in scores.flips.items()]
    names = f"Verify {CRITERIA['verify']}, Consistency {CRITERIA['consistency']}"
    lines.append(f"in the words of arXiv 2509.22363: {names}")
    return "\n".join(lines)


def draw(path: Path, models: Mapping[str, Behaviour]) -> None:
    """A panel a behaviour, a dot with its interval a model."""
    measures = {"Regions Explored": "regions_strict", "Audiology Verify": "verify"}
    measures |= {"Consistency": "consistency", "Accuracy": "accuracy"}
    panels = []
    for title, measure in measures.items():
        dots = dots_by_model({name: getattr(scores, measure) for name, scores in models.items()})
        if dots:
            panels.append(Dots(title, {"": dots}, high=None if measure == "regions_strict" else 1))
    dots_png(panels, path)

"""What the numbers of a report say, in one sentence each: what may be read from them, and what may not."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from tgsr import __version__
from tgsr.evaluation.controls.metrics import Controls
from tgsr.evidence import EvidenceScores
from tgsr.report.evidence import evidence_of
from tgsr.report.question_sets import QuestionSet, difference_to
from tgsr.report.results import Results
from tgsr.statistics.intervals import Mean, binomial_tail, number, percent

MOST = 24  # sentences; further ones are in the tables
ALPHA = 0.05
# Resamples lie between the least and the greatest value: of n values of either sign by chance both are on one side of 0
# once in 2^(n - 1), so that the widest interval of five or fewer is none of 95 %.
LEAST = 6


def dated(day: datetime.date) -> str:
    """When and by what the report was made, and what its words mean."""
    when = f"{day.day} {day:%B %Y}"
    return (
        f"Made by tgsr {__version__} on {when}. A difference is named only where its 95 % interval leaves 0 out, its "
        "paired test has p < 0.05 and it is of six values or more; “above chance” only where the interval lies above "
        "it and a guess would rarely do as well (binomial, p < 0.025). Nothing is corrected for how much is compared: "
        "of twenty differences that are none one is named."
    )


def verdict(results: Results, audits: Mapping[str, Mapping[str, Mean]] | None = None) -> list[str]:
    """A sentence for each model and set of questions, each pair of models, and what controls and judges found.

    `audits` are the means of `tgsr.evaluation.audit` by model, of which the first sentences are. Empty where nothing
    was scored. Of more than MOST sentences the last says how many were left out.
    """
    sentences, evidence = list(map(_audited, audits or {}, (audits or {}).values())), evidence_of(results)
    for questions in results.sets:
        place = f" ({questions.name})" if len(results.sets) > 1 else ""
        models = [model for model in results.models if model in questions.models]
        held = evidence.get(questions.name, {})
        for model in models:
            parts = _scores(questions, model)
            if model in held:
                parts += _evidence(held[model].evidence)
            if parts:
                sentences.append(f"{model}{place} {'; '.join(parts)}.")
        for other in models[1:]:
            sentences += _compared(models[0], other, questions, place)
    for model, controls in results.controls.items():
        sentences += [f"{model}: {said}." for said in _rests(controls)]
    for model, behaviour in results.behaviour.items():
        if behaviour.consistency is not None and behaviour.consistency.n:
            share = percent(behaviour.consistency)
            sentences.append(f"{model}: its answer follows from its reasoning in {share} of what was judged.")
    n_more = len(sentences) - MOST
    return sentences if n_more <= 0 else [*sentences[:MOST], f"{n_more} more such sentences: see the tables."]


def _audited(model: str, means: Mapping[str, Mean]) -> str:
    """How many responses cite, how many answer rightly, and what the paper's rule would pay for them."""
    n = means["cites"].n
    parts = [f"of {n} responses {percent(means['cites'])} cite an interval"]
    if means["points"].value:
        parts.append(f"{percent(means['points'])} single times alone")
    if means["official"].n:
        parts.append(f"{percent(means['official'])} are right by the owner's scorer")
    paid, blind = means["paid"], means["paid_blind"]
    if paid.value is not None:
        parts.append(
            f"the paper's reward would be {number(paid, 2)} a response, and {number(blind, 2)} for a guess that cites "
            "the first second"
        )
    if means["paid_ungrounded"].value is not None:
        share = percent(means["paid_ungrounded"])
        parts.append(f"{share} of those that are paid for citing cite what is not there")
    return f"{model}: {'; '.join(parts)}."


def _scores(questions: QuestionSet, model: str) -> list[str]:
    """What a model is right about."""
    parts = []
    phrase, choice = questions.phrase.get(model), questions.choice.get(model)
    if phrase is not None and phrase.iou.value is not None:
        iou, share = number(phrase.iou, 2), percent(phrase.high_overlap)
        parts.append(f"finds {phrase.n} phrases with a mean IoU of {iou}, {share} of them to 0.7")
    accuracy = questions.official.get(model) or (choice.accuracy_official if choice else None)
    if accuracy is not None and accuracy.value is not None:
        scores = questions.scores.get(model) or choice
        chance = scores.chance if scores is not None else None
        parts.append(f"is right in {percent(accuracy)} of {accuracy.n} questions{_against(accuracy, chance)}")
    return parts


def _against(accuracy: Mean, chance: float | None) -> str:
    if chance is None:
        return ""
    n, n_right = accuracy.n, round(accuracy.n * (accuracy.value or 0.0))
    # Where all answers are right, or all wrong, the interval has no width, however few they are.
    is_above = accuracy.low is not None and accuracy.low > chance
    is_below = accuracy.high is not None and accuracy.high < chance
    if is_above and binomial_tail(n_right, n, chance) < ALPHA / 2:
        told = "above chance"
    elif is_below and binomial_tail(n - n_right, n, 1 - chance) < ALPHA / 2:
        told = "below chance"
    else:
        told = "which cannot be told from chance"
    return f", {told} ({100 * chance:.0f} %)"


def _side(mean: Mean, p: float | None = None) -> int:
    """1 or -1 where it is sure on which side of 0 the mean is, else 0. `p` is its paired test's, None without one."""
    if mean.low is None or mean.high is None or mean.n < LEAST or (p is not None and p >= ALPHA):
        return 0
    return (mean.low > 0) - (mean.high < 0)


def _told(mean: Mean, p: float | None, digits: int, scale: float = 1, unit: str = "") -> str:
    """The number, and why it is not sure where its interval alone looks so."""
    text = number(mean, digits, scale, unit)
    looks_sure = mean.low is not None and mean.high is not None and (mean.low > 0 or mean.high < 0)
    if not looks_sure or _side(mean, p):
        return text
    return f"{text} of {mean.n} alone" if mean.n < LEAST else f"{text}, p {p:.2f}"


def _evidence(evidence: EvidenceScores) -> list[str]:
    """Whether what a model cites is evidence."""
    if not evidence.n_citations:
        return ["cites no seconds"]
    parts = []
    if evidence.n_with_evidence:
        parts.append(f"cites the evidence in {percent(evidence.evidence_hit)}")
    above = evidence.above_chance
    if above.value is not None and above.low is not None:
        fits = {
            1: "its times fit their own clips better than other clips",
            -1: "its times fit their own clips worse than other clips",
            0: "it cannot be told that its times fit their own clips better than other clips",
        }
        parts.append(f"{fits[_side(above)]} ({_told(above, None, 2)} IoU)")
    if evidence.n_with_words:
        parts.append(f"what it quotes is said there in {percent(evidence.quote_truth)}")
    return parts


def _compared(first: str, other: str, questions: QuestionSet, place: str) -> list[str]:
    """How another model differs from the first on the same questions."""
    difference = difference_to(first, other, questions)
    if difference is None:
        return []
    measures = (
        ("right answers", difference.accuracy_official, difference.p_accuracy_official, 1, 100, " points"),
        ("evidence cited", difference.evidence_hit, difference.p_evidence_hit, 1, 100, " points"),
        ("IoU of phrases", difference.iou, difference.p_iou, 2, 1, ""),
    )
    sure, unsure = [], []
    for name, mean, p, digits, scale, unit in measures:
        if mean is None or mean.value is None or mean.low is None:
            continue
        told = f"({_told(mean, p, digits, scale, unit)})"
        if side := _side(mean, p):
            sure.append(f"{'more' if side > 0 else 'less'} in {name} {told}")
        else:
            unsure.append(f"{name} {told}")
    parts = [f"has {' and '.join(sure)}"] if sure else []
    parts += [f"no difference can be told in {' and '.join(unsure)}"] if unsure else []
    return [f"{other} beside {first}{place}: {'; '.join(parts)}."] if parts else []


def _rests(controls: Controls) -> list[str]:
    """Whether answers rest on the sound."""
    necessity, silenced, parts = controls.necessity, controls.reliance_silenced, []
    if silenced.value is not None and silenced.low is not None:
        p = controls.p_reliance_silenced
        lost = f"{_told(silenced, p, 1, 100, ' points')} of accuracy are lost in silence"
        head = {1: "", 0: "it may not listen at all: ", -1: "the sound misleads it: "}[_side(silenced, p)]
        parts.append(f"{head}{lost}")
    if necessity.value is not None and necessity.low is not None:
        p = controls.p_necessity
        needs = _side(necessity, p) > 0
        told = "its answers need the sound that it cites" if needs else "no need of the cited sound is shown"
        parts.append(f"{told} (necessity {_told(necessity, p, 2)})")
    return parts

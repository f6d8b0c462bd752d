"""Scores as plain text: what a terminal shows after `tgsr score`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tgsr.evaluation.scoring.metrics import BenchmarkScores, ChoiceScores, GroupScores, Metrics, ModelScores
from tgsr.evidence import WITHIN, EvidenceScores, ungrounded
from tgsr.statistics.intervals import Mean, Quantiles, number, percent

MOST_IDS = 5  # of a list that a note shows
MOST_REASONS = 4
NO_WORDS = "quote truth, errors of quoted words: no words known"
SEGMENTS = (  # what segments of speech cannot say, where they stand in for the evidence
    "nobody marked which segment a question rests on, so that each is taken for evidence; times inside a segment are "
    "not known, so that only quotes that begin or end with one have that error; how long the clips are is not known, "
    "so that no citation can be said to be past the end"
)
_LISTS = {
    "missing": "without prediction",
    "duplicates": "ids that occur again",
    "empty": "empty predictions",
    "several": "predictions that name several options",
    "unreadable": "predictions that the official rule reads no option in: left out of its denominator",
    "without_answer": "questions whose answer is unknown, or no choice",
    "foreign": "predictions for other questions: not scored",
}
# Of a model of ours "several" is something else.
_LISTS_OF_MODEL = {
    **_LISTS,
    "several": "questions answered more than once, each answer scored",
    "truncated": "responses cut off at the limit of new tokens, scored as they are",
}


def evidence_lines(
    name: str, scores: EvidenceScores, no_words: str | None, is_marked: bool = True
) -> list[str]:
    """What is to be said of citations, in plain words.

    `no_words` says why nobody knows what is said in the clips. Without `is_marked` something stands in for the
    evidence, with whose place citations are not to be compared.
    """
    if not scores.n_citations:
        n = scores.n_with_evidence
        missed = f": evidence hit 0 of {n} questions with evidence" if n else ""
        return [f"{name}: no response cites any seconds{missed}"]
    lines = []
    if scores.n_with_evidence:
        no_chance = "no other clips of like length to measure chance by"
        above = number(scores.above_chance) if scores.above_chance.n else no_chance
        lines.append(
            f"evidence hit {percent(scores.evidence_hit)} of {scores.n_with_evidence} questions with evidence, "
            f"trace IoU {number(scores.trace_iou)}, above chance {above}"
        )
    else:
        lines.append("evidence hit, trace IoU, above chance: not known, no question has evidence marked")
    if scores.n_with_words:
        lines.append(
            f"quote truth {percent(scores.quote_truth)} of {scores.n_with_words} responses about clips with words; "
            f"quoted words start {_off(scores.start_error, scores.start_within)} and end "
            f"{_off(scores.end_error, scores.end_within)}"
        )
    else:
        lines.append(f"{NO_WORDS}: {no_words or 'these clips have none'}")
    places = []
    if scores.first_place.n:
        there = f" (the evidence: {percent(scores.evidence_first_place)})" if is_marked else ""
        place = "first citation at the clip's first word or at 0"
        places.append(f"{place}: {percent(scores.first_place)}{there}")
    if scores.start_spread is not None:
        is_known = is_marked and scores.evidence_spread is not None
        there = f" (the evidence: {scores.evidence_spread:.2f} s)" if is_known else ""
        places.append(f"first citations spread over {scores.start_spread:.2f} s{there}")
    if is_marked:
        places.append(f"{scores.n_past_end} of {scores.n_citations} citations past the clip's end")
    return [f"{name}: {line}" for line in (*lines, "; ".join(places))]


def _off(error: Quantiles, within: Mean) -> str:
    """How far times are from those that are right."""
    return "-" if error.median is None else f"{error.median:.2f} s off ({percent(within)} within {WITHIN} s)"


def _group_lines(name: str, group: GroupScores, no_words: str | None) -> list[str]:
    """One line for phrases (table 1), and for choices what they cite and what they answer, where there are any."""
    lines = []
    if (phrase := group.phrase) is not None:
        lines.append(
            f"{name}: {phrase.n} phrases: IoU {number(phrase.iou)}, F1 {number(phrase.f1)}, "
            f"IoU >= 0.7 {percent(phrase.high_overlap)}, {phrase.n_without_span} without a readable span"
        )
    if (choice := group.choice) is not None:
        if choice.evidence is not None and choice.evidence.n:
            lines += evidence_lines(name, choice.evidence, no_words)
        lines.append(
            f"{name}: {choice.n} choices: accuracy {percent(choice.accuracy_official)}, "
            f"k {number(choice.mentions_official)}, k = 1 {percent(choice.share_k1_official)}{_unclear(choice)}"
        )
        if (told := _ungrounded(choice)) is not None:
            lines.append(f"{name}: {told}")
    return lines


def _ungrounded(scores: ChoiceScores) -> str | None:
    """That k looks perfect over lost grounding, where it does."""
    if (evidence := scores.evidence) is None:
        return None
    k1 = scores.share_k1_official
    return ungrounded(k1.value, evidence.evidence_hit.value, evidence.above_chance.value)


def _unclear(scores: ChoiceScores | BenchmarkScores) -> str:
    """How many answers say no option clearly, where there are any: strict accuracy counts them as wrong."""
    return f", {scores.n_without_choice} without a clear answer" if scores.n_without_choice else ""


def _points(difference: Mean) -> str:
    return percent(difference).replace(" %", " points", 1)


def summary(metrics: Metrics) -> str:
    """The file's scores, a line a model, split and kind of question."""
    lines: list[str] = []
    for model, scores in metrics.models.items():
        for split, group in scores.by_split.items():
            lines += _group_lines(f"{model}, {split}", group, metrics.no_words)
    for difference in metrics.differences:
        name = f"{difference.other} - {difference.model}"
        if difference.accuracy_official is not None:
            points = _points(difference.accuracy_official)
            lines.append(f"{name}: accuracy {points}, {difference.n_choices} choices, paired")
        shares = {"evidence hit": difference.evidence_hit, "quote truth": difference.quote_truth}
        for what, mean in shares.items():
            if mean is not None:
                lines.append(f"{name}: {what} {_points(mean)}, {mean.n} choices, paired")
        if difference.iou is not None:
            lines.append(f"{name}: IoU {number(difference.iou)}, {difference.n_phrases} phrases, paired")
    if (benchmark := metrics.benchmark) is not None:
        lines += _owners_lines(benchmark.evidence, metrics.no_words)
        lines.append(
            f"{benchmark.n} items, {benchmark.n_unscored} unscored: official accuracy "
            f"{percent(benchmark.accuracy_official)}, strict {percent(benchmark.accuracy_strict)}{_unclear(benchmark)}"
        )
    return "\n".join(lines)


def _owners_lines(scores: EvidenceScores | None, no_words: str | None) -> list[str]:
    """The same of an owner's file: of its predictions, or of traces beside them, with what segments cannot say."""
    if scores is None:
        return [] if no_words is None else [f"{NO_WORDS}: {no_words}"]
    if not scores.n_with_evidence:
        return evidence_lines("predictions", scores, None)
    return [*evidence_lines("traces", scores, None, is_marked=False), f"traces: {SEGMENTS}"]


def notes(metrics: Metrics) -> list[str]:
    """What must be known besides the means: the benchmarks' numbers, tests, and what was left out or odd."""
    lines: list[str] = []
    for model, scores in metrics.models.items():
        lines += _model_notes(model, scores)
    for difference in metrics.differences:
        name = f"{difference.other} - {difference.model}"
        if difference.n_choices:
            lines.append(
                f"{name}: right by one of them only: {difference.n_only_other} and {difference.n_only_model}, "
                f"p {_p(difference.p_accuracy_official)} swapping clips, {_p(difference.p_mcnemar)} McNemar"
            )
        tests = {"evidence hit": difference.p_evidence_hit, "quote truth": difference.p_quote_truth}
        for what, p in tests.items():
            if p is not None:
                lines.append(f"{name}: {what}: p {_p(p)} swapping clips")
        if difference.n_phrases:
            lines.append(f"{name}: IoU: p {_p(difference.p_iou)} swapping clips")
    if metrics.benchmark is not None:
        lines += _benchmark_notes("", metrics.benchmark)
        lines += _list_notes("", metrics.benchmark, _LISTS)
    return lines


def _model_notes(model: str, scores: ModelScores) -> Iterator[str]:
    if (phrase := scores.all.phrase) is not None and phrase.recalls:
        recalls = ", ".join(f"R@{at} {percent(share)}" for at, share in phrase.recalls.items())
        events = ", ".join(f"{number(f1)} at {at} s" for at, f1 in phrase.event_f1_by_collar.items())
        yield f"{model}: mIoU {number(phrase.iou)}, {recalls}; event-based F1 {events}"
        if phrase.official:
            of = phrase.official
            shares = [f"{at} {percent(share)}" for at, share in of.items() if at.startswith("R@")]
            iou, whole_text = phrase.official["iou"], phrase.official["iou_as_is"]
            yield (
                f"{model}: by the owner's script mIoU {number(iou)}, {', '.join(shares)}, {iou.n_unscored} left out; "
                f"on whole texts mIoU {number(whole_text)}, {whole_text.n_unscored} left out"
            )
        if phrase.false_alarm.n:
            yield (
                f"{model}: of {phrase.false_alarm.n} phrases that are not said {percent(phrase.false_alarm)} are given "
                f"a place (false alarms), of {percent(phrase.rejected)} it says that they are not said, as of "
                f"{percent(phrase.missed)} of those that are, whose mean IoU is {number(phrase.iou)}"
            )
    if (choice := scores.all.choice) is not None and choice.why:
        yield (
            f"{model}: that accuracy is by the letter in the last line (Eq. 1); by what the texts end up with, strict, "
            f"{percent(choice.accuracy_strict)}"
        )
        yield _differ(f"{model}: ", choice.why)
    for name, benchmark in scores.benchmarks.items():
        as_is = benchmark.accuracy_as_is
        whole = "" if as_is is None else f", on whole completions {percent(as_is)}"
        yield (
            f"{model}, {name}: official accuracy {percent(benchmark.accuracy_official)}{whole}, "
            f"strict {percent(benchmark.accuracy_strict)}, {benchmark.n} questions{_unclear(benchmark)}"
        )
        yield from _benchmark_notes(f"{model}, {name}: ", benchmark)
    yield from _list_notes(f"{model}: ", scores, _LISTS_OF_MODEL)


def _benchmark_notes(name: str, scores: BenchmarkScores) -> Iterator[str]:
    if scores.speech is not None and len(scores.accuracy_official_by_domain) > 1:
        yield f"{name}speech: official accuracy {percent(scores.speech)}, {scores.speech.n} questions"
    if scores.weighted_f1 is not None and scores.macro_f1 is not None:
        always = "-" if scores.always_neutral is None else f"{100 * scores.always_neutral:.1f} %"
        yield (
            f"{name}weighted F1 {percent(scores.weighted_f1)}, macro F1 {percent(scores.macro_f1)}; "
            f"always neutral: accuracy {always}"
        )
    if scores.n_unscored and scores.accuracy_official_of_all is not None:
        yield f"{name}unscored ones counted as wrong: {percent(scores.accuracy_official_of_all)} official"
    if scores.why:
        yield _differ(name, scores.why)


def _differ(name: str, why: Mapping[str, int]) -> str:
    most = list(why.items())[:MOST_REASONS]
    return f"{name}official and strict differ on: {', '.join(f'{n} ({reason})' for reason, n in most)}"


def _list_notes(name: str, scores: ModelScores | BenchmarkScores, lists: Mapping[str, str]) -> Iterator[str]:
    for kind, n in scores.n_listed.items():
        shown = ", ".join(getattr(scores, kind)[:MOST_IDS]) + (", ..." if n > MOST_IDS else "")
        yield f"{name}{n} {lists[kind]}: {shown}"


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"

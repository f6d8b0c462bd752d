"""Does the evidence hold? How often what models cite is evidence, in tables, in sentences and in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np

from tgsr.evaluation.scoring.terminal import SEGMENTS
from tgsr.evidence import EvidenceScores, cited_evidence, ungrounded
from tgsr.records import Response
from tgsr.report.question_sets import key_of
from tgsr.report.results import Results
from tgsr.report.typeset import Column, Field, Group, Table, model_rows
from tgsr.statistics.intervals import NOT_MEASURED, Mean, percent
from tgsr.statistics.pictures import Scatter, tint
from tgsr.timeline import Seconds

MOST_POINTS = 400  # of a picture; of more, so many are drawn at random
NOTES = (
    "Evidence hit: of all questions with evidence, those where a cited span has an IoU of at least 0.5 with a piece of "
    "it; citing nothing is a miss, and a trace IoU of 0. Above chance: trace IoU less what the same citations reach in "
    "other clips of like length, so that one place for every clip is worth nothing.",
    "Quote truth: of all responses about clips with known words, those of whose quoted words at least 75 % are said "
    "there; quoting nothing is not true. First place: the first citation starts at the clip’s first word, or at 0.",
)


@dataclass(frozen=True, slots=True)
class Held:
    """How often one model's evidence holds, with the accuracy of the same responses and how often k is 1.

    Without `is_marked`, as of an owner's file of traces, segments of speech stand in for the evidence, and `share_k1`
    is None.
    """

    evidence: EvidenceScores
    accuracy: Mean
    share_k1: Mean | None
    is_marked: bool


def evidence_of(results: Results) -> dict[str, dict[str, Held]]:
    """By set of questions and model; of scores of earlier versions nothing is known."""
    found: dict[str, dict[str, Held]] = {}
    for questions in results.sets:
        held = {
            model: Held(scores.evidence, scores.accuracy_official, None, is_marked=False)
            for model, scores in questions.scores.items()
            if scores.evidence is not None
        }
        held |= {
            model: Held(
                scores.evidence,
                questions.official.get(model, scores.accuracy_official),  # a benchmark's is its owner's
                scores.share_k1_official,
                is_marked=True,
            )
            for model, scores in questions.choice.items()
            if scores.evidence is not None and scores.evidence.n
        }
        if held:
            found[questions.name] = held
    return found


def evidence_tables(results: Results) -> list[Table]:
    """How often citations are evidence, and how exact their times are: a group a set of questions."""

    def of(name: str) -> Field:
        return attrgetter(f"evidence.{name}")

    def of_marked(name: str) -> Field:
        return lambda held: getattr(held.evidence, name) if held.is_marked else None

    measures: dict[Column, Field] = {
        Column("evidence hit", "%", 100, 1, "higher"): of("evidence_hit"),
        Column("trace IoU", better="higher"): of("trace_iou"),
        Column("above chance", "IoU", better="higher"): of("above_chance"),
        Column("quote truth", "%", 100, 1, "higher"): of("quote_truth"),
        Column("first place", "%", 100, 1): of("first_place"),
        Column("starts within 0.1 s", "%", 100, 1, "higher"): of("start_within"),
        Column("ends within 0.1 s", "%", 100, 1, "higher"): of("end_within"),
        Column("past the end", "%", 100, 1, "lower"): of("past_end"),
        Column("accuracy", "%", 100, 1, "higher"): "accuracy",
    }
    details: dict[Column, Field] = {
        Column("start error", "s, median", digits=2, better="lower"): of("start_error.median"),
        Column("end error", "s, median", digits=2, better="lower"): of("end_error.median"),
        Column("spread of first starts", "s", digits=2): of("start_spread"),
        Column("of the evidence’s", "s", digits=2): of_marked("evidence_spread"),
        Column("evidence at the first place", "%", 100, 1): of_marked("evidence_first_place"),
        Column("k = 1", "%", 100, 1): "share_k1",
        Column("citations"): of("n_citations"),
        Column("past the end"): of("n_past_end"),
        Column("with evidence"): of("n_with_evidence"),
        Column("with words"): of("n_with_words"),
        Column("n"): of("n"),
    }
    tables, held = [], evidence_of(results)
    times = "How exact the cited times are, and of how many responses that is known"
    for key, title, columns, notes in (
        ("evidence", "Does the evidence hold?", measures, NOTES),
        ("evidence-times", times, details, ()),
    ):
        rows = {name: model_rows(results.models, of_set, columns) for name, of_set in held.items()}
        shown = tuple(Group(name, of_set) for name, of_set in rows.items() if of_set)
        tables.append(Table(key, title, "model", tuple(columns), shown, notes))
    return tables


# --- in words --------------------------------------------------------------------------------------------


def findings(results: Results) -> list[str]:
    """What was found of each model in each set of questions, and what is unknown and why."""
    sentences: list[str] = []
    by_set: list[tuple[str, list[EvidenceScores]]] = []
    for name, by_model in evidence_of(results).items():
        place = f" ({name})" if len(results.sets) > 1 else ""
        known = {model: by_model[model] for model in results.models if model in by_model}
        for model, held in known.items():
            sentences.append(f"{model}{place}: {in_words(held.evidence, held.is_marked)}.")
            if held.evidence.n_with_evidence and not held.is_marked:
                sentences.append(f"{model}{place}: {SEGMENTS}.")
        by_set.append((name, [held.evidence for held in known.values()]))
    sentences += _unknown(by_set, results.spoken.why_unknown())
    unmeasured = {m for q in results.sets for m, scores in q.choice.items() if scores.evidence is None}
    old = [model for model in results.models if model in unmeasured]
    again = "stored scores of an earlier version, which did not measure it: run `tgsr score` again, or give predictions"
    return [*sentences, *(f"{model}: {again}." for model in old)]


def in_words(evidence: EvidenceScores, is_marked: bool = True) -> str:
    """One model's measures as a sentence without its subject and full stop."""
    if not evidence.n_citations:
        return f"no place is cited in any of {evidence.n} responses"
    parts = []
    if n := evidence.n_with_evidence:
        parts.append(f"the evidence is cited in {percent(evidence.evidence_hit)} of {n} questions")
    if n := evidence.n_with_words:
        parts.append(f"what is quoted is said there in {percent(evidence.quote_truth)} of {n} responses")
    if evidence.first_place.n:
        marked = evidence.evidence_first_place
        beside = f" (the evidence: in {percent(marked)})" if marked.n and is_marked else ""
        first = percent(evidence.first_place)
        parts.append(f"the first citation starts at the clip’s first word, or at 0, in {first}{beside}")
    return "; ".join(parts) or "neither the evidence nor the clips’ words are known"


def _unknown(by_set: Sequence[tuple[str, Sequence[EvidenceScores]]], why_no_words: str) -> list[str]:
    """What cannot be measured in which sets of questions, by the model of which most is known in each, and why."""
    without_evidence: dict[str, tuple[int, int]] = {}
    without_words: dict[str, tuple[int, int]] = {}
    for name, known in by_set:
        n = max(evidence.n for evidence in known)
        without_evidence[name] = n - max(evidence.n_with_evidence for evidence in known), n
        without_words[name] = n - max(evidence.n_with_words for evidence in known), n
    no_evidence = "questions, so that no evidence hit, trace IoU or chance is known there"
    no_words = f"responses, so that no quote can be checked there: {why_no_words}"
    return [
        *_told(without_evidence, "nobody marked the evidence of", no_evidence),
        *_told(without_words, "the words of the clip are not known for", no_words),
    ]


def _told(missing: Mapping[str, tuple[int, int]], what: str, why: str) -> list[str]:
    """What all sets that lack something lack, of how many, and why, in one sentence."""
    lacking = {name: pair for name, pair in missing.items() if pair[0]}
    if not lacking:
        return []
    n, of = (sum(pair[i] for pair in lacking.values()) for i in (0, 1))
    some = f"all {of}" if n == of else f"{n} of {of}"
    return [f"{', '.join(lacking)}: {what} {some} {why}."]


def evidence_warnings(results: Results) -> list[str]:
    """Where k looks perfect and grounding is gone."""
    warnings = []
    for name, by_model in evidence_of(results).items():
        for model, held in by_model.items():
            k1, hit = held.share_k1 or NOT_MEASURED, held.evidence.evidence_hit
            if warning := ungrounded(k1.value, hit.value, held.evidence.above_chance.value):
                warnings.append(f"{model}, {name}: {warning}")
    return warnings


# --- in a picture ----------------------------------------------------------------------------------------


def place_panels(results: Results, seed: int = 0) -> list[Scatter]:
    """Where each response's first citation starts, against where the evidence does: a panel a set and model.

    A model that cites nothing has none, nor have scores without their responses. Of many responses MOST_POINTS are
    drawn at random. The panels of a set have one scale, up to the last start inside a clip; where most start much
    earlier it ends there, and those whose evidence is later are left out.
    """
    of_sets: dict[str, dict[str, list[Response]]] = {questions.key: {} for questions in results.sets}
    for response in results.responses:
        if response.question.kind == "choice" and response.question.evidence:
            of_sets[key_of(response.question)].setdefault(response.model, []).append(response)
    panels = []
    for questions in results.sets:
        of_set = of_sets[questions.key]
        places = {model: _places(of_set[model], seed) for model in results.models if model in of_set}
        end = _end([place for of_model in places.values() for place in of_model])
        for model, of_model in places.items():
            cited = [place for place in of_model if place.cited is not None and place.evidence <= end]
            if cited:
                name = f"{model}, {questions.name}" if len(results.sets) > 1 else model
                n_shown = "" if len(of_model) == len(of_set[model]) else f" ({len(cited)} shown)"
                scores = questions.choice[model].evidence
                hit = "" if scores is None else percent(replace(scores.evidence_hit, low=None))
                share = f": {hit} hit{n_shown}" if hit else ""
                panels.append(_panel(f"{name}{share}", tint(results.models, model), cited, end))
    return panels


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the evidence starts and the first citation does, if there is one, in a clip of `duration` seconds."""

    evidence: Seconds
    cited: Seconds | None
    is_hit: bool
    duration: Seconds


def _places(responses: Sequence[Response], seed: int) -> list[_Place]:
    order = np.random.default_rng(seed).permutation(len(responses))[:MOST_POINTS]
    places = []
    for response in (responses[i] for i in sorted(order)):
        question = response.question
        cited = cited_evidence(response.text, None, question.duration, question.evidence)
        start = min(piece.start for piece in question.evidence)
        places.append(_Place(start, cited.first_start, bool(cited.evidence_hit), question.duration))
    return places


def _end(places: Sequence[_Place]) -> Seconds:
    """The end of a picture's axes: a little after the last start, or after most of them where that is much earlier."""
    pairs = [(start, place.duration) for place in places for start in (place.evidence, place.cited)]
    starts = [start for start, duration in pairs if start is not None and start < duration]
    most, last = np.quantile(starts or [1.0], [0.95, 1.0])
    return 1.02 * float(last if last <= 2 * most else most) or 1.0


def _panel(title: str, colour: str, cited: Sequence[_Place], end: Seconds) -> Scatter:
    return Scatter(
        title,
        colour,
        "evidence starts, s",
        "first citation starts, s",
        tuple(place.evidence for place in cited),
        tuple(place.cited or 0.0 for place in cited),
        tuple(place.is_hit for place in cited),
        end,
    )

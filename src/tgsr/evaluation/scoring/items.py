"""One prediction, scored: a few numbers and names, without its text, so that a million of them fit anywhere.

Each kind is a tuple of plain values, which marshal can write to disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from tgsr.choices import why_unclear
from tgsr.evaluation.benchmarks import Benchmark
from tgsr.evaluation.scoring.event_f1 import Counts, event_counts, segment_counts
from tgsr.evaluation.scoring.official import authors_verdict, verdict, verdicts
from tgsr.grounding import Mention, count_mentions, find_mentions
from tgsr.overlap import item_iou, trace_iou
from tgsr.records import Question, Response
from tgsr.timeline import END_SLACK, Seconds, Span

Labels = tuple[tuple[str, str], ...]
SCORED_BENCHMARKS = ("mmau", "mmar", "airbench", "meld")


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One question of a benchmark in its owner's form, with a model's prediction.

    `is_answered` is False where the row lacks the prediction's key: the official scorers skip it. A
    prediction that is null is an empty one, but in AIR-Bench, where it is none. `domain` is speech, sound, music or a
    mix of them. `choices` hold null where the owner's row does; `answer` is None where the row has none. `labels` are
    what scores are broken down by, domain and categories among them.
    """

    id: str
    audio: str
    choices: tuple[str | None, ...]
    answer: str | None
    is_answered: bool
    prediction: str
    domain: str | None
    categories: tuple[str, ...]
    labels: Labels = ()


class Phrase(NamedTuple):
    """A response to a phrase question. `iou`, `errors` and the counts are None where there is no reference, `errors`
    also where the `first` interval is none. `at` is the place in the file.
    """

    at: int
    id: str
    model: str
    split: str
    clip: str
    first: tuple[Seconds, Seconds] | None
    iou: float | None
    errors: tuple[Seconds, Seconds] | None
    segment: Counts | None
    event: Counts | None
    is_missing: bool
    is_empty: bool
    is_without_span: bool
    is_invalid: bool
    is_past_end: bool


class Choice(NamedTuple):
    """A response to a choice question. `n_regions` is the strict k; None is for a question without response.

    `letter` is the one that the authors' rule reads, `said` the option that ours does.
    """

    at: int
    id: str
    model: str
    split: str
    clip: str
    task: str
    labels: Labels
    official: bool | None
    strict: bool | None
    why: str | None
    chance: float
    n_mentions: int | None
    n_regions: int | None
    trace_iou: float | None
    letter: str | None
    said: str | None
    is_missing: bool
    is_empty: bool
    is_without_span: bool
    is_invalid: bool
    is_past_end: bool


class Answer(NamedTuple):
    """An answer to a benchmark's question, by its owner's rule. `as_is`: the rule on the whole completion, where
    `official` is the rule on the option in it; None for the owners' own files. `said` is the option read.
    """

    at: int
    id: str
    model: str
    clip: str
    benchmark: Benchmark
    labels: Labels
    official: bool | None
    as_is: bool | None
    strict: bool | None
    why: str | None
    why_as_is: str | None
    chance: float | None
    truth: str | None
    letter: str | None
    said: str | None
    is_missing: bool
    is_empty: bool
    is_unreadable: bool
    names_several: bool


Item = Phrase | Choice | Answer
Line = dict[str, object]
"""What `tgsr score --items` writes of a prediction."""


# --- ours ------------------------------------------------------------------------------------------------


def score_response(at: int, response: Response) -> list[Item]:
    """A phrase or a choice, and what a benchmark's owner says where the question is labelled as a benchmark's."""
    question = response.question
    if question.kind == "phrase":
        return [score_phrase(at, question, response.model, response.text)]
    return score_choice(at, question, response.model, response.text)


def score_phrase(at: int, question: Question, model: str, text: str) -> Phrase:
    mentions = find_mentions(text)
    first = tuple(mention.span for mention in mentions[:1] if mention.span is not None)
    is_invalid, is_past_end = _problems(mentions, question.duration)
    evidence = question.evidence
    is_known = bool(evidence)
    return Phrase(  # in order, not by name, which takes twice as long: there may be millions
        at,
        question.id,
        model,
        question.split,
        question.clip_id,
        (first[0].start, first[0].end) if first else None,
        item_iou(first, evidence[0]) if is_known else None,
        _errors(first[0], evidence[0]) if first and is_known else None,
        segment_counts(first, evidence) if is_known else None,
        event_counts(first, evidence) if is_known else None,
        False,  # not missing
        not text or text.isspace(),
        not mentions,
        is_invalid,
        is_past_end,
    )


def _errors(said: Span, reference: Span) -> tuple[Seconds, Seconds]:
    return abs(said.start - reference.start), abs(said.end - reference.end)


def score_choice(at: int, question: Question, model: str, text: str) -> list[Item]:
    choices, answer = question.choices, question.answer or ""
    mentions = find_mentions(text)
    is_invalid, is_past_end = _problems(mentions, question.duration)
    judged = authors_verdict(text, choices, answer)
    said = None if judged.chosen is None else choices[judged.chosen]
    is_empty = not text or text.isspace()
    chance = choices.count(answer) / len(choices)
    items: list[Item] = [
        Choice(
            at,
            question.id,
            model,
            question.split,
            question.clip_id,
            question.task or "",
            question.labels,
            judged.official,
            judged.strict,
            judged.why,
            chance,
            count_mentions(text),
            _n_regions(mentions),
            _trace_iou(mentions, question.evidence),
            judged.letter,
            said,
            False,  # not missing
            is_empty,
            not mentions,
            is_invalid,
            is_past_end,
        )
    ]
    benchmark = benchmark_of(question)
    if benchmark is not None:
        chosen = judged.chosen
        handed, as_is = verdicts(benchmark, text, choices, answer, chosen)
        items.append(
            Answer(
                at,
                question.id,
                model,
                question.clip_id,
                benchmark,
                _breakdown(benchmark, question.labels),
                official=handed.official,
                as_is=as_is.official,
                strict=handed.strict,
                why=handed.why,
                why_as_is=as_is.why,
                chance=chance,
                truth=answer,
                letter=handed.letter,
                said=said,
                is_missing=False,
                is_empty=is_empty,
                is_unreadable=benchmark == "airbench" and handed.letter is None,
                names_several=chosen is None and why_unclear(text, choices) == "several",
            )
        )
    return items


def missing_items(at: int, question: Question, model: str) -> list[Item]:
    """A question that a model left out: in every count, and without a score."""
    of = (at, question.id, model, question.split, question.clip_id)
    flags = (True, False)  # missing, and so not empty
    if question.kind == "phrase":
        return [Phrase(*of, None, None, None, None, None, *flags, False, False, False)]
    answer = question.answer or ""
    chance = question.choices.count(answer) / len(question.choices)
    task, nothing = question.task or "", (None, None, None)
    items: list[Item] = [
        Choice(
            *of, task, question.labels, *nothing, chance, *nothing, None, None, *flags, False, False, False
        )
    ]
    benchmark = benchmark_of(question)
    if benchmark is not None:
        labels = _breakdown(benchmark, question.labels)
        items.append(
            missing_answer(at, question.id, model, question.clip_id, benchmark, labels, chance, answer)
        )
    return items


def missing_answer(
    at: int,
    id_: str,
    model: str,
    clip: str,
    benchmark: Benchmark,
    labels: Labels,
    chance: float | None,
    truth: str | None,
) -> Answer:
    nothing = (None, None, None, None, None)
    flags = (True, False, False, False)
    return Answer(at, id_, model, clip, benchmark, labels, *nothing, chance, truth, None, None, *flags)


def benchmark_of(question: Question) -> Benchmark | None:
    """Whose question it is, where its labels say so and there is a rule for it."""
    for name, value in question.labels:
        if name == "benchmark":
            return cast(Benchmark, value) if value in SCORED_BENCHMARKS else None
    return None


def _breakdown(benchmark: Benchmark, labels: Labels) -> Labels:
    kept = tuple(pair for pair in labels if pair[0] in ("domain", "category", "sub-category"))
    if benchmark != "airbench":
        return kept
    named = dict(labels)
    if "category" in named and "dataset" in named:
        kept += (("task_dataset", f"{named['category']}_{named['dataset']}"),)
    return kept


def _problems(mentions: Iterable[Mention], duration: Seconds) -> tuple[bool, bool]:
    """Whether any stated interval is none, and whether any ends after the clip."""
    is_invalid = is_past_end = False
    latest = duration + END_SLACK
    for mention in mentions:
        if not mention.is_valid:
            is_invalid = True
        elif mention.end > latest:
            is_past_end = True
    return is_invalid, is_past_end


def _n_regions(mentions: Sequence[Mention]) -> int:
    if len(mentions) < 2:
        return int(bool(mentions) and mentions[0].is_valid)
    return len({(mention.start, mention.end) for mention in mentions if mention.is_valid})


def _trace_iou(mentions: Sequence[Mention], evidence: Sequence[Span]) -> float | None:
    if not evidence or not mentions:
        return None
    if len(mentions) == 1:
        only = mentions[0].span
        return 0.0 if only is None else max([only.iou(other) for other in evidence])
    spans = {mention.span for mention in mentions if mention.span is not None}
    n_invalid = len({(mention.start, mention.end) for mention in mentions if not mention.is_valid})
    mean = trace_iou(list(spans), evidence)
    return 0.0 if mean is None else mean * len(spans) / (len(spans) + n_invalid)


# --- the owners' files -----------------------------------------------------------------------------------


def score_row(at: int, row: BenchmarkRow, benchmark: Benchmark, model: str = "") -> Answer:
    """A row of an owner's file by the owner's rule; nothing of it can raise."""
    chance = _chance(row)
    if not row.is_answered:
        return missing_answer(at, row.id, model, row.audio, benchmark, row.labels, chance, row.answer)
    judged = verdict(benchmark, row.prediction, row.choices, row.answer)
    return Answer(
        at,
        row.id,
        model,
        row.audio,
        benchmark,
        row.labels,
        official=judged.official,
        as_is=None,
        strict=judged.strict,
        why=judged.why,
        why_as_is=None,
        chance=chance if row.answer is not None else None,
        truth=row.answer,
        letter=judged.letter,
        said=None if judged.chosen is None else row.choices[judged.chosen],
        is_missing=False,
        is_empty=not row.prediction.strip(),
        is_unreadable=benchmark == "airbench" and judged.letter is None,
        names_several=judged.chosen is None and why_unclear(row.prediction, row.choices) == "several",
    )


def _chance(row: BenchmarkRow) -> float | None:
    """The chance of a blind pick among the choices that aren't null; None where there are none."""
    n = sum(choice is not None for choice in row.choices)
    return row.choices.count(row.answer) / n if n and row.answer is not None else None


# --- one line an item ------------------------------------------------------------------------------------


def item_line(items: Sequence[Item]) -> Line:
    """What became of one prediction: the items that `score_response` or `score_row` made of it."""
    first = items[0]
    line: Line = {"id": first.id, "model": first.model or None, "clip": first.clip}
    for item in items:
        if isinstance(item, Phrase):
            line |= _phrase_line(item)
        elif isinstance(item, Choice):
            line |= {
                "kind": "choice",
                "official": item.official,
                "strict": item.strict,
                "why": item.why,
                "letter": item.letter,
                "chosen": item.said,
                "mentions_official": item.n_mentions,
                "regions_strict": item.n_regions,
                "trace_iou": item.trace_iou,
                "has_invalid": item.is_invalid,
                "is_past_end": item.is_past_end,
            }
        else:
            line |= {
                "kind": "choice",
                **({"by_letter": line["official"]} if "official" in line else {}),
                "benchmark": item.benchmark,
                "official": item.official,
                "strict": item.strict,
                "why": item.why,
                "letter": item.letter,
                "chosen": item.said,
                "answer": item.truth,
            }
            if item.model:
                line |= {"as_is": item.as_is, "why_as_is": item.why_as_is}
    if first.is_missing:
        line["unscored"] = "missing"
    return line


def _phrase_line(item: Phrase) -> Line:
    start_error, end_error = item.errors or (None, None)
    return {
        "kind": "phrase",
        "first": item.first,
        "iou": item.iou,
        "start_error": start_error,
        "end_error": end_error,
        "has_span": not item.is_without_span,
        "has_invalid": item.is_invalid,
        "is_past_end": item.is_past_end,
    }

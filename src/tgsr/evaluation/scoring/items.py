"""One prediction, scored: a few numbers and names, without its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from tgsr.choices import why_unclear
from tgsr.evaluation.owners.files import OWNERS, owner_of_question
from tgsr.evaluation.owners.grounding import official_iou_of, whole_seconds
from tgsr.evaluation.owners.ours import authors_ruling
from tgsr.evaluation.owners.owner import Benchmark, BenchmarkRow, Choices, Labels, Owner
from tgsr.evaluation.owners.ruling import EMBEDDED, Ruling
from tgsr.evidence import EvidenceCase, evidence_case
from tgsr.grounding import Mention, count_mentions, places_stated, regions_in, says_absent
from tgsr.overlap import place_iou
from tgsr.records import Clip, Question, Response
from tgsr.timeline import Seconds, Span, Word, is_past_end


class Item(Struct, frozen=True, kw_only=True, gc=False):
    """What became of one prediction, or of a question that a model left out: that one is missing."""

    id: str
    model: str
    clip: str
    is_missing: bool = False
    is_empty: bool = False
    is_truncated: bool = False


class ScoredResponse(Item, frozen=True, kw_only=True, gc=False):
    """A response to a question of ours, and what is to be said of its intervals."""

    split: str
    is_without_span: bool = False
    is_invalid: bool = False
    is_past_end: bool = False


class ScoredPhrase(ScoredResponse, frozen=True, kw_only=True, gc=False):
    """A response to a phrase question. `iou` and `errors` are None where the question has no evidence, whose pieces are
    `reference`; `first`, its one span, and `errors` also where none can be read (`tgsr.grounding.asked_span`):
    `is_without_span`. Of a question with several pieces all spans that are stated are `spans`, and `iou` is that of the
    two sets. is_absent: it is known that the phrase is not said; says_absent: that is the answer; says_where: it states
    some interval instead. iou_official: by the script of the benchmark's owner, where there is one, of the span in the
    form that the script wants; iou_as_is: of the whole text. Both None where it leaves the answer out of its mean.
    """

    is_absent: bool = False
    says_absent: bool = False
    says_where: bool = False
    first: tuple[Seconds, Seconds] | None = None
    spans: tuple[tuple[Seconds, Seconds], ...] = ()
    iou: float | None = None
    has_official: bool = False
    iou_official: float | None = None
    iou_as_is: float | None = None
    errors: tuple[Seconds, Seconds] | None = None
    reference: tuple[tuple[Seconds, Seconds], ...] = ()


class ScoredChoice(ScoredResponse, frozen=True, kw_only=True, gc=False):
    """A response to a choice question. `n_regions` is the strict k; None is for a question without response.

    `letter` is the one that the authors' rule reads, `chosen` the option that ours does. `trace_iou` is None for a
    response without intervals, which counts as 0 in `evidence`.
    """

    task: str
    labels: Labels
    chance: float
    official: bool | None = None
    strict: bool | None = None
    why: str | None = None
    letter: str | None = None
    chosen: str | None = None
    n_mentions: int | None = None
    n_regions: int | None = None
    trace_iou: float | None = None
    evidence: EvidenceCase | None = None


class ScoredAnswer(Item, frozen=True, kw_only=True, gc=False):
    """An answer to a benchmark's question, by its owner's rule; `truth` is the right one, `chosen` the option read.

    `as_is` is the rule's verdict on the whole completion, where `official` is that on the option in it; None for the
    owners' own files. `evidence` is of a row that has a trace beside its prediction.
    """

    benchmark: Benchmark
    labels: Labels
    chance: float | None
    truth: str | None
    has_choices: bool = True
    is_unreadable: bool = False
    names_several: bool = False
    official: bool | None = None
    strict: bool | None = None
    why: str | None = None
    letter: str | None = None
    chosen: str | None = None
    as_is: bool | None = None
    why_as_is: str | None = None
    evidence: EvidenceCase | None = None

    @property
    def is_without_answer(self) -> bool:
        """Whether nobody can say if it is right: no answer is known, or none that is a choice."""
        return self.truth is None or (self.official is None and not (self.is_missing or self.is_unreadable))


Scored = ScoredPhrase | ScoredChoice | ScoredAnswer
Line = dict[str, object]
"""What `tgsr score --items` writes of a prediction."""


# --- ours ------------------------------------------------------------------------------------------------


def missing_response(question: Question, model: str) -> list[Scored]:
    """A question that a model left out: in every count, and without a score.

    A phrase or a choice, and a benchmark's answer where the question is labelled as a benchmark's.
    """
    common: dict[str, Any] = {"id": question.id, "model": model, "clip": question.clip_id, "is_missing": True}
    split = question.split
    if question.kind == "phrase":
        has_official = official_iou_of(question) is not None
        return [ScoredPhrase(**common, split=split, is_absent=question.is_absent, has_official=has_official)]
    answer, labels, task = question.answer or "", question.labels, question.task or ""
    common["chance"] = question.choices.count(answer) / len(question.choices)
    items: list[Scored] = [ScoredChoice(**common, split=split, task=task, labels=labels)]
    if (owner := owner_of_question(question)) is not None:
        labels = owner.breakdown(labels)
        items.append(ScoredAnswer(**common, benchmark=owner.name, labels=labels, truth=answer))
    return items


def score_response(response: Response, words: Sequence[Word] | None = None) -> list[Scored]:
    """The items of `missing_response` with what the response makes of them. Any text has its scores.

    `words` are those of the question's clip, where they are known.
    """
    question, text = response.question, response.text
    mentions = regions_in(response)
    written: dict[str, Any] = {
        "is_missing": False,
        "is_empty": not text or text.isspace(),
        "is_truncated": response.truncated,
    }
    intervals: dict[str, Any] = {
        "is_without_span": not mentions,
        "is_invalid": any([not mention.is_valid for mention in mentions]),
        "is_past_end": any([m.is_valid and is_past_end(m.end, question.duration) for m in mentions]),
    }
    blank, *blank_answers = missing_response(question, response.model)
    if isinstance(blank, ScoredPhrase):
        fields = _placed(mentions, question.evidence)
        intervals["is_without_span"] = not fields["spans"]
        intervals["says_absent"] = says_absent(text, question.phrase)
        intervals["says_where"] = bool(mentions) and not intervals["says_absent"]
        if (official_iou := official_iou_of(question)) is not None:
            written_out = whole_seconds(Span(*fields["first"])) if fields["first"] else text
            fields["iou_official"] = official_iou(written_out, str(question.answer))
            fields["iou_as_is"] = official_iou(text, str(question.answer))
        return [replace(blank, **written, **intervals, **fields)]
    choices, answer = question.choices, question.answer or ""
    ruling = authors_ruling(text, choices, answer)
    k_strict = len({(mention.start, mention.end) for mention in mentions if mention.is_valid})
    counts = {"n_mentions": count_mentions(text), "n_regions": k_strict}
    about = question.evidence, question.clip_id, question.task
    evidence = evidence_case(text, words, question.duration, *about)
    traced = {**counts, "evidence": evidence, "trace_iou": evidence.cited.trace_iou if mentions else None}
    scored: list[Scored] = [replace(blank, **written, **intervals, **_ruled(ruling, choices), **traced)]
    for blank_answer in blank_answers:
        assert isinstance(blank_answer, ScoredAnswer)
        owner = OWNERS[blank_answer.benchmark]
        handed, as_is = owner.rulings(text, choices, answer, ruling.chosen)
        verdicts = _answered(owner, handed, text, choices)
        verdicts |= {"as_is": as_is.official, "why_as_is": as_is.why}
        scored.append(replace(blank_answer, **written, **verdicts))
    return scored


def _ruled(ruling: Ruling, choices: Choices) -> dict[str, Any]:
    """An item's fields that hold a ruling."""
    chosen = None if ruling.chosen is None else choices[ruling.chosen]
    return {**ruling._asdict(), "chosen": chosen}


def _answered(owner: Owner, ruling: Ruling, text: str, choices: Choices) -> dict[str, Any]:
    """A benchmark's answer's fields that hold its owner's ruling, and what the text lacks for one."""
    names_several = ruling.chosen is None and why_unclear(text, choices) == "several"
    is_unreadable = (owner.reads_letters and ruling.letter is None) or ruling.why == EMBEDDED
    return {**_ruled(ruling, choices), "is_unreadable": is_unreadable, "names_several": names_several}


def _placed(mentions: Sequence[Mention], evidence: Sequence[Span]) -> dict[str, Any]:
    """A phrase's fields that say what its answer's span, or spans, have in common with the evidence."""
    spans = places_stated(mentions, len(evidence))
    fields: dict[str, Any] = {"spans": tuple((one.start, one.end) for one in spans)}
    fields["first"] = fields["spans"][0] if spans else None
    if evidence:
        fields["iou"] = place_iou(spans, evidence)
        fields["reference"] = tuple((piece.start, piece.end) for piece in evidence)
        if spans and len(evidence) == 1:
            fields["errors"] = abs(spans[0].start - evidence[0].start), abs(spans[0].end - evidence[0].end)
    return fields


# --- the owners' files -----------------------------------------------------------------------------------


def score_row(
    row: BenchmarkRow, benchmark: Benchmark, model: str = "", clip: Clip | None = None
) -> ScoredAnswer:
    """A row of an owner's file by the owner's rule, and what it cites by its clip where that is known; none raises."""
    n_choices = sum(choice is not None for choice in row.choices)
    chance = row.choices.count(row.answer) / n_choices if n_choices and row.answer is not None else None
    fields: dict[str, Any] = {"chance": chance, "is_missing": row.prediction is None}
    fields |= {"has_choices": bool(n_choices), "labels": row.labels, "truth": row.answer}
    if row.prediction is not None:
        owner = OWNERS[benchmark]
        ruling = owner.ruling(row.prediction, row.choices, row.answer)
        if row.follows is not None:
            ruling = Ruling(row.follows(row.prediction), None, None, None, None)
        fields |= _answered(owner, ruling, row.prediction, row.choices)
        fields["is_empty"] = not row.prediction.strip()
        fields["evidence"] = _cited(row, row.prediction, clip)
    return ScoredAnswer(id=row.id, model=model, clip=row.audio, benchmark=benchmark, **fields)


def _cited(row: BenchmarkRow, prediction: str, clip: Clip | None) -> EvidenceCase | None:
    """What a row's trace cites, with its segments in the place of evidence that nobody has marked; without a trace what
    its prediction cites, about a clip with words.
    """
    if row.trace is not None and row.trace.segments:
        segments = row.trace.segments
        spans = [segment.span for segment in segments]
        return evidence_case(row.trace.text, segments, None, spans, row.audio)
    if clip is not None and clip.words:
        return evidence_case(prediction, clip.words, clip.duration, (), row.audio)
    return None


# --- one line an item ------------------------------------------------------------------------------------


def item_line(items: Sequence[Scored]) -> Line:
    """What became of one prediction: the items that `score_response` or `score_row` made of it."""
    first = items[0]
    line: Line = {"id": first.id, "model": first.model or None, "clip": first.clip}
    for item in items:
        if isinstance(item, ScoredPhrase):
            start_error, end_error = item.errors or (None, None)
            line |= {"kind": "phrase", "first": item.first, "iou": item.iou}
            line |= {"start_error": start_error, "end_error": end_error, "has_span": not item.is_without_span}
            line |= {"spans": item.spans} if len(item.reference) > 1 else {}
            if item.has_official:
                line |= {"iou_official": item.iou_official, "iou_as_is": item.iou_as_is}
            line |= {"absent": True} if item.is_absent else {}
            line |= {"says_absent": item.says_absent} if item.is_absent or item.says_absent else {}
        else:
            ruled = {name: getattr(item, name) for name in ("official", "strict", "why", "letter", "chosen")}
            line["kind"] = "choice"
            if isinstance(item, ScoredChoice):
                line |= {**ruled, "mentions_official": item.n_mentions, "regions_strict": item.n_regions}
                line["trace_iou"] = item.trace_iou
                line |= _evidence_line(item.evidence)
            else:
                line |= {"by_letter": line["official"]} if "official" in line else {}
                line |= {"benchmark": item.benchmark, **ruled, "answer": item.truth}
                if item.model:
                    line |= {"as_is": item.as_is, "why_as_is": item.why_as_is}
                else:
                    line |= _evidence_line(item.evidence)
        if isinstance(item, ScoredResponse):
            line |= {"has_invalid": item.is_invalid, "is_past_end": item.is_past_end}
    if first.is_missing:
        line["unscored"] = "missing"
    if first.is_truncated:
        line["truncated"] = True
    return line


def _evidence_line(case: EvidenceCase | None) -> Line:
    if case is None:
        return {}
    cited = case.cited
    return {
        "evidence_hit": cited.evidence_hit,
        "quote_truth": cited.quote_truth,
        "quote_errors": [list(errors) for errors in cited.errors],
        "first_place": cited.first_place,
    }

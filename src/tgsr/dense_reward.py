"""Rewards that look where a response points: appendix D's dense reward, and the place of `--reward grounded`.

Both are C_max times the mean credit of a response's reasoning steps: `step_credits`' and `place_credits`'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tgsr.grounding import Mention
from tgsr.overlap import evidence_crop, high_overlap, trace_iou
from tgsr.reasoning import (
    ReasoningStep,
    places_of,
    reasoning_steps,
    spoken,
    word_agreement,
    words_in,
    words_said,
)
from tgsr.rewards import C_MAX, Completion, completion_text
from tgsr.timeline import END_SLACK, Seconds, Span, Word, cover, in_order, merge

UNMARKED_SHARE = 0.5  # of a clip that may be cited for nothing where nobody marked the evidence
MOST = 0.5  # a span over a larger share of its clip points nowhere, unless the evidence is as large:
MEETS = 0.5  # their IoU is at least this
UNQUOTED = 0.5  # what a step without a quote is worth at most, of what a true quote is


@dataclass(frozen=True, slots=True)
class StepCredit:
    """What one reasoning step is worth, in [0, 1], and why, in words for a log.

    `said` are the words that are really said in the span, `heard` those of the explanation. `span` is None
    where the step states no interval that can be (its end is not after its start).
    """

    span: Span | None
    said: tuple[str, ...]
    heard: tuple[str, ...]
    credit: float
    why: str


def dense_grounding_reward(
    completions: Sequence[Completion],
    words: Sequence[Sequence[Word | Mapping[str, Any]] | None],
    duration: Sequence[Seconds],
    evidence: Sequence[Sequence[Span | Sequence[Seconds]] | None] | None = None,
    c_max: float = C_MAX,
    **columns: Any,
) -> list[float]:
    """c_max times the mean of a response's `step_credits`: one float in [0, c_max] a completion.

    `words` holds each clip's words with their times (Word, or {"word", "start", "end"} as clips.jsonl has
    them), `duration` its seconds, `evidence` the question's reference spans (Span or [start, end]); None or
    empty where nobody marked them. Every stated interval is in the mean, the invalid ones too, so that a false
    step costs a true one. 0.0 without any interval.

    ValueError where the lengths differ or c_max < 0, and where there is nothing to judge by: `words[i]` is
    None, or it is empty and no evidence is known. An empty list means that nothing is said in the clip.
    Such rows are the caller's to leave out: 0 would say that the response is wrong.
    Source: ours; appendix D asks for dense rewards that supervise both reasoning steps and grounding accuracy.
    """
    return _mean_credits(step_credits, completions, words, duration, evidence, c_max)


def grounded_reward(
    completions: Sequence[Completion],
    words: Sequence[Sequence[Word | Mapping[str, Any]] | None],
    duration: Sequence[Seconds],
    evidence: Sequence[Sequence[Span | Sequence[Seconds]] | None] | None = None,
    c_max: float = C_MAX,
    **columns: Any,
) -> list[float]:
    """c_max times the mean of a response's `place_credits`: one float in [0, c_max] a completion.

    The place of `--reward grounded`, beside the answer's reward. The columns, the mean and the errors are
    `dense_grounding_reward`'s. Source: ours.
    """
    return _mean_credits(place_credits, completions, words, duration, evidence, c_max)


def _mean_credits(
    credits_of: Callable[[str, Sequence[Word], Seconds, Sequence[Span]], list[StepCredit]],
    completions: Sequence[Completion],
    words: Sequence[Sequence[Word | Mapping[str, Any]] | None],
    duration: Sequence[Seconds],
    evidence: Sequence[Sequence[Span | Sequence[Seconds]] | None] | None,
    c_max: float,
) -> list[float]:
    evidence = [None] * len(completions) if evidence is None else evidence
    for name, column in (("words", words), ("duration", duration), ("evidence", evidence)):
        if isinstance(column, str) or len(column) != len(completions):
            raise ValueError(f"{name} must have an item for each of the {len(completions)} completions")
    if not (math.isfinite(c_max) and c_max >= 0):
        raise ValueError(f"c_max must be 0 or more, got {c_max}")
    rewards = []
    for index, completion in enumerate(completions):
        marked = [_as_span(span, index) for span in evidence[index] or ()]
        said = words[index]
        if said is None or not (said or marked):
            raise ValueError(
                f"words[{index}] has no word, so that nobody can judge what is heard: give the clip's words "
                "(`tgsr transcribe` finds them), or leave the question out of this reward"
            )
        in_clip = [_as_word(word, index) for word in said]
        steps = credits_of(completion_text(completion), in_clip, duration[index], marked)
        mean = math.fsum(step.credit for step in steps) / len(steps) if steps else 0.0
        rewards.append(c_max * mean)
    return rewards


def step_credits(
    text: str, words: Sequence[Word], duration: Seconds, evidence: Sequence[Span] = ()
) -> list[StepCredit]:
    """Each stated interval's credit in [0, 1], in order of appearance; [] where the text states none.

    credit = agreement x place x news x thrift, for a span [a, b) inside the clip with an explanation:

    - agreement: `word_agreement` of what the step says is heard (its quotes; without quotes its whole
      text) and of the words of the clip that lie in the span, half of each word at least.
    - place: the mean of two IoUs: of the span with the nearest place where what is heard is said (the
      stretches of as many words that share most words with it; of a text without quotes only those words are
      sought that the clip has), and with the nearest evidence. Only the first one where no evidence is known.
    - news: the share of the span that no earlier step cites; 0 for a span that is cited again.
    - thrift: min(1, allowed / cited) over the whole response: cited are the seconds that its spans cover,
      allowed are those of the evidence with 0.5 s around it (`evidence_crop`), or half of the clip where no
      evidence is known.

    Where nothing is said in the span and nothing is quoted ("there is a pause"), the agreement is 1 and the
    place is the evidence's IoU alone, 0 where none is known. No credit for a span that ends before it starts or
    more than 0.05 s after the clip, for one without explanation, and for a quote where nothing is said.
    ValueError for a duration that is not positive. Source: ours.
    """
    words = in_order(words)
    steps = _cited_steps(text, duration)
    allowed = _seconds_of(evidence_crop(evidence, duration)) if evidence else UNMARKED_SHARE * duration
    thrift = _thrift(steps, allowed, duration)
    credits: list[StepCredit] = []
    before: list[Span] = []
    for step, span in steps:
        if span is None:
            credits.append(_uncited(step, duration))
            continue
        said = words_said(words, span)
        agreement, place, why = _judged(step, span, said, words, evidence)
        news = _news(span, before, duration)
        factors = {"agreement": agreement, "place": place, "news": news, "thrift": thrift}
        credits.append(_credited(step, span, said, factors, why))
        before = merge([*before, span])
    return credits


def place_credits(
    text: str, words: Sequence[Word], duration: Seconds, evidence: Sequence[Span] = ()
) -> list[StepCredit]:
    """Each stated interval's credit in [0, 1], in order of appearance; [] where the text states none.

    credit = place x agreement x news, for a span [a, b) inside the clip with an explanation:

    - place: its IoU with the nearest piece of evidence.
    - agreement: `word_agreement` of its quotes and of the words that lie in it, half of each word at least. A step
      without a quote gets 0.5, or 1 where nothing is said in the piece of evidence, which then has no true quote.
    - news: the share of the span that no earlier step cites for the same piece, so that pieces that overlap can all
      be cited and none can be cited again.

    Where no evidence is known the agreement alone decides, without a quote half of the whole text's; but place falls
    where less than half of the span is from the first to the last word in it, and all credits do where the spans
    together cover more than half of the clip, or where several hold more than half of its words (thrift).

    No credit for a span that ends before it starts or more than 0.05 s after the clip; for one over more than half
    of the clip, unless the evidence is as large (their IoU is 0.5 or more); for a quote that is not said there; and
    for one without explanation, which an option's letter is not.
    ValueError for a duration that is not positive. Source: ours.
    """
    words = in_order(words)
    steps = _cited_steps(text, duration)
    thrift = {} if evidence else {"thrift": _unmarked_thrift(steps, words, duration)}
    credits: list[StepCredit] = []
    cited: dict[Span | None, list[Span]] = {}
    for step, span in steps:
        if span is None:
            credits.append(_uncited(step, duration))
            continue
        said = words_said(words, span)
        piece = max(evidence, key=span.iou, default=None)
        place = _filled(span, words) if piece is None else span.iou(piece)
        is_silent = piece is not None and not words_said(words, piece)
        agreement, why = _agreement(step, said, piece, is_silent)
        if span.duration > MOST * duration and not (piece and high_overlap(place, MEETS)):
            place, why = 0.0, f"over more than {MOST:.0%} of the clip"
        elif piece and not place:
            why = "no evidence is near"
        before = cited.setdefault(piece, [])
        factors = {"place": place, "agreement": agreement, "news": _news(span, before, duration), **thrift}
        credits.append(_credited(step, span, said, factors, why))
        cited[piece] = merge([*before, span])
    return credits


def _cited_steps(text: str, duration: Seconds) -> list[tuple[ReasoningStep, Span | None]]:
    """The text's steps, each with its span inside the clip, None where it has none."""
    if not duration > 0:
        raise ValueError(f"duration must be more than 0 s, got {duration}")
    return [(step, _inside(step.mention, duration)) for step in reasoning_steps(text)]


def _thrift(steps: Sequence[tuple[ReasoningStep, Span | None]], allowed: Seconds, duration: Seconds) -> float:
    cited = _seconds_of(evidence_crop([span for _, span in steps if span is not None], duration, 0))
    return min(1.0, allowed / cited) if cited else 1.0


def _unmarked_thrift(
    steps: Sequence[tuple[ReasoningStep, Span | None]], words: Sequence[Word], duration: Seconds
) -> float:
    """What is allowed over what is cited, of the clip's seconds and, by several spans, of its words; 1 at most."""
    by_seconds = _thrift(steps, UNMARKED_SHARE * duration, duration)
    spans = {span for _, span in steps if span is not None}
    n_cited = len({word for span in spans for word in words_in(words, span)})
    if len(spans) < 2 or not n_cited:
        return by_seconds
    return min(by_seconds, UNMARKED_SHARE * len(words) / n_cited)


def _filled(span: Span, words: Sequence[Word]) -> float:
    """1 where half of the span, at least, is from the first to the last word in it; less in proportion; 0 for none."""
    spoken = cover(word.span for word in words_in(words, span))
    return 0.0 if spoken is None else min(1.0, span.iou(spoken) / MEETS)


def _news(span: Span, before: Sequence[Span], duration: Seconds) -> float:
    """The share of the span that none of those before it covers."""
    again = [
        Span(max(span.start, other.start), min(span.end, other.end))
        for other in before
        if span.overlap(other) > 0
    ]
    return 1 - _seconds_of(evidence_crop(again, duration, 0)) / span.duration


def _uncited(step: ReasoningStep, duration: Seconds) -> StepCredit:
    """The credit of a step whose interval is none, or is past the clip's end."""
    mention = step.mention
    why = "no interval"
    if mention.is_valid:
        why = f"{mention.start:g} to {mention.end:g} s: past the clip's end at {duration:g} s"
    return StepCredit(mention.span, (), step.heard, 0.0, why)


def _credited(
    step: ReasoningStep, span: Span, said: tuple[str, ...], factors: Mapping[str, float], why: str
) -> StepCredit:
    """The product of the factors, named in its reason; `why` is the reason where it is 0."""
    credit = min(1.0, max(0.0, math.prod(factors.values())))
    if credit:
        why = ", ".join(f"{name} {value:.2f}" for name, value in factors.items())
    elif factors["news"] <= 0:
        why = "cited before"
    return StepCredit(span, said, step.heard, credit, why)


def _agreement(
    step: ReasoningStep, said: tuple[str, ...], piece: Span | None, is_silent: bool
) -> tuple[float, str]:
    """How far what a step quotes is said in its span, and why there is no credit, should there be none."""
    if step.is_quoted:
        why = "what is said there is something else" if said else "a quote, and nothing is said there"
        return word_agreement(step.heard, said), why
    if not any(len(token) > 1 for token in step.heard):
        return 0.0, "nothing is said to be heard there"
    if piece is None:
        return UNQUOTED * word_agreement(step.heard, said), "nothing of what it says is said there"
    return 1.0 if is_silent else UNQUOTED, ""


def _judged(
    step: ReasoningStep, span: Span, said: tuple[str, ...], words: Sequence[Word], evidence: Sequence[Span]
) -> tuple[float, float, str]:
    """(agreement, place) of a step inside the clip, and why there is no credit, should there be none."""
    if not step.heard:
        return 0.0, 0.0, "nothing is said to be heard there"
    near = trace_iou([span], evidence)
    if not said and not step.is_quoted:
        return 1.0, near or 0.0, "nothing is said there, and no evidence is near"
    if not said:
        return 0.0, 0.0, "a quote, and nothing is said there"
    agreement = word_agreement(step.heard, said)
    in_clip = {token for word in words for token in spoken(word.text)}
    sought = step.heard if step.is_quoted else [token for token in step.heard if token in in_clip]
    place = trace_iou([span], places_of(sought, words)) or 0.0
    return (agreement, place if near is None else (place + near) / 2, "what is said there is something else")


def _inside(mention: Mention, duration: Seconds) -> Span | None:
    """The stated interval cut to the clip; None for an invalid one and one that runs past the end."""
    span = mention.span
    if span is None or span.start >= duration or span.end > duration + END_SLACK:
        return None
    return span.padded(0, duration)


def _seconds_of(spans: Sequence[Span]) -> Seconds:
    return math.fsum(span.duration for span in spans)


def _as_span(span: Span | Sequence[Seconds], index: int) -> Span:
    if isinstance(span, Span):
        return span
    try:
        start, end = span
        return Span(float(start), float(end))
    except (TypeError, ValueError) as error:
        raise ValueError(f"evidence[{index}] must hold [start, end] in seconds, got {span!r:.80}") from error


def _as_word(word: Word | Mapping[str, Any], index: int) -> Word:
    if isinstance(word, Word):
        return word
    try:
        return Word(str(word["word"]), float(word["start"]), float(word["end"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'words[{index}] must hold {{"word", "start", "end"}} in seconds, got {word!r:.80}'
        ) from error

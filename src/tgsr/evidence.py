"""Whether what a response cites is evidence: what it quotes is said there, and its question rests on that place.

One response's measures (`cited_evidence`), and those of many (`evidence_scores`), with what citations reach by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from tgsr.grounding import valid_spans
from tgsr.overlap import high_overlap, trace_iou
from tgsr.reasoning import (
    ReasoningStep,
    common_subsequence,
    reasoning_steps,
    spoken,
    words_said,
)
from tgsr.statistics.intervals import Bootstrap, Floats, Mean, Quantiles, codes_of, quantiles
from tgsr.timeline import ROUNDING, Seconds, Span, Word, in_order, is_past_end

HIT_IOU = 0.5  # from which on a cited span meets a piece of evidence
QUOTE_SHARE = 0.75  # of the quoted words that must be said: Whisper and models hear some words otherwise
QUOTE_SLACK: Seconds = 0.2  # around a cited span: what is cut off at its edges is still said there
WITHIN: Seconds = 0.1  # an error of quoted words that nobody hears
LIKE_LENGTH = 1.25  # how much longer the longest of clips of like length may be than the shortest
MOST_PLACES = 100  # where a quote may be said, that are looked at: the nearest
MOST_SPANS = 4096  # of a response that are dealt out at once
N_LIKE = 8  # clips of like length are as many at least, where there are more: the nearest


@dataclass(frozen=True, slots=True)
class CitedEvidence:
    """What one response cites, held against the question's evidence and the clip's words.

    `spans` are its distinct valid intervals in order of appearance. The measures of the evidence are None where none is
    marked, those of the words where no word of the clip is known. `errors` has, for each citation whose quote is said
    in the clip, the start and the end that are cited less those of the nearest place where it is said, in seconds.
    """

    spans: tuple[Span, ...]
    n_citations: int
    n_invalid: int
    n_past_end: int
    evidence_hit: bool | None
    trace_iou: float | None
    quote_truth: bool | None
    errors: tuple[tuple[Seconds | None, Seconds | None], ...]
    first_place: bool | None

    @property
    def first_start(self) -> Seconds | None:
        """Where the first citation starts; None without one."""
        return self.spans[0].start if self.spans else None


def cited_evidence(
    text: str, words: Sequence[Word] | None, duration: Seconds | None, evidence: Sequence[Span] = ()
) -> CitedEvidence:
    """The measures of one response about a clip of `duration` seconds, None where nobody knows; no text raises.

    - evidence_hit: some cited span has an IoU of at least 0.5 with a piece of the evidence.
    - trace_iou: `tgsr.overlap.trace_iou`, where an invalid interval (its end is not after its start) counts as one of
      IoU 0, and a response without intervals has 0: it was asked for its evidence.
    - quote_truth: of the words that it quotes about cited spans at least 75 % are said, in order, in these spans with
      0.2 s around them; "7" is seven. Citing nothing and quoting nothing are not true. Spans with the same quote share
      it: each must hold some of its words.
    - errors: of each citation whose quote is said somewhere (75 % of its words, in order). None for a start or an end
      inside a word (where "words" are whole segments, whose inner times nobody knows).
    - first_place: the first citation starts at the clip's first word or at 0, to 0.1 s; None without a citation.

    Citations are the intervals of `tgsr.reasoning.reasoning_steps`, with what each quotes. Source: ours; the measured
    habits of models that were rewarded for citing, not for citing the right place.
    """
    steps = reasoning_steps(text)
    mentions = [step.mention for step in steps]
    invalid = {(mention.start, mention.end) for mention in mentions if not mention.is_valid}
    spans = tuple(dict.fromkeys(valid_spans(mentions)))
    past_end = [
        mention for mention in mentions if mention.is_valid and is_past_end(mention.end, duration or math.inf)
    ]
    said = CitedEvidence(spans, len(mentions), len(invalid), len(past_end), None, None, None, (), None)
    if evidence:
        said = replace(
            said,
            evidence_hit=any(is_hit(span, evidence) for span in spans),
            trace_iou=(trace_iou(spans, evidence) or 0.0) * len(spans) / max(1, len(spans) + len(invalid)),
        )
    if not words:
        return said
    words = in_order(words)
    quotes = _quotes(steps, words)
    return replace(
        said,
        quote_truth=_is_true(quotes),
        errors=tuple(_errors(quotes, words)),
        first_place=_is_first(said.first_start, words[0].start),
    )


def is_hit(span: Span, evidence: Sequence[Span]) -> bool:
    """Whether a cited span meets a piece of the evidence: their IoU is at least 0.5."""
    return any(high_overlap(span.iou(piece), HIT_IOU) for piece in evidence)


def _is_first(start: Seconds | None, first_word: Seconds) -> bool | None:
    return None if start is None else min(start, abs(start - first_word)) <= WITHIN + ROUNDING


@dataclass(frozen=True, slots=True)
class _Quote:
    """Words that one citation quotes, or several in a row: `spans` with the words that are said about each."""

    heard: tuple[str, ...]
    spans: tuple[Span | None, ...]
    said: tuple[tuple[str, ...], ...]

    @property
    def n_said(self) -> int:
        """How many of the words are said in the spans together, in order."""
        return common_subsequence(self.heard, [token for there in self.said for token in there])

    @property
    def is_shared_out(self) -> bool:
        """Whether the spans hold it together and none does alone: "one" and "two", at 1 to 2 s and at 5 to 6 s."""
        enough = QUOTE_SHARE * len(self.heard)
        return self.n_said >= enough > max(common_subsequence(self.heard, there) for there in self.said)


def _quotes(steps: Sequence[ReasoningStep], words: Sequence[Word]) -> list[_Quote]:
    quotes = []
    for heard, alike in groupby((step for step in steps if step.is_quoted), key=lambda step: step.heard):
        spans = tuple(step.mention.span for step in alike)
        quotes.append(_Quote(heard, spans, tuple(said_about(span, words) for span in spans)))
    return quotes


def _is_true(quotes: Sequence[_Quote]) -> bool:
    """Whether enough of what is quoted is said in its spans."""
    n_quoted = n_said = 0
    for quote in quotes:
        n_strangers = sum(set(quote.heard).isdisjoint(there) for there in quote.said)
        # a span without any word of the quote counts the whole quote as one that is not said
        n_quoted += len(quote.heard) * (n_strangers + (n_strangers < len(quote.said)))
        n_said += quote.n_said
    return 0 < QUOTE_SHARE * n_quoted <= n_said


def said_about(span: Span | None, words: Sequence[Word]) -> tuple[str, ...]:
    """The plain words that are said in the span with 0.2 s around it, of words in order of time; () of no span."""
    if span is None:
        return ()
    about = Span(max(0.0, span.start - QUOTE_SLACK), span.end + QUOTE_SLACK)
    return words_said(words, about)


# --- where a quote is said -------------------------------------------------------------------------------


def _errors(
    quotes: Sequence[_Quote], words: Sequence[Word]
) -> Iterator[tuple[Seconds | None, Seconds | None]]:
    """Start and end error of each citation whose quote is said in the clip; none where several share it out."""
    if not quotes:
        return
    timed = [(spoken(word.text), word) for word in words]
    tokens = [token for inside, _ in timed for token in inside]
    # NaN inside a word
    starts = [w.start if i == 0 else math.nan for inside, w in timed for i in range(len(inside))]
    ends = [w.end if i == len(inside) - 1 else math.nan for inside, w in timed for i in range(len(inside))]
    for quote in quotes:
        if quote.is_shared_out:
            continue
        for span in filter(None, quote.spans):
            place = _nearest_place(quote.heard, tokens, np.array(starts), np.array(ends), span)
            if place is not None:
                start, end = span.start - place[0], span.end - place[1]
                yield None if math.isnan(start) else start, None if math.isnan(end) else end


def _nearest_place(
    heard: Sequence[str], tokens: Sequence[str], starts: Floats, ends: Floats, span: Span
) -> tuple[Seconds, Seconds] | None:
    """Start and end of the place, of those where the quote is said, that is nearest to the span; None if it is not.

    A place that overlaps with one where more of the quote is said is none.
    """
    first, last, score = _alignments(heard, tokens)
    away = np.nan_to_num(np.abs(starts[first] - span.start)) + np.nan_to_num(np.abs(ends[last] - span.end))
    for place in np.argsort(away, kind="stable")[:MOST_PLACES]:
        overlapping = (first <= last[place]) & (first[place] <= last)
        if (score[overlapping] > score[place]).any():
            continue
        there = tokens[first[place] : last[place] + 1]
        if common_subsequence(heard, there) >= QUOTE_SHARE * len(heard):
            return float(starts[first[place]]), float(ends[last[place]])
    return None


def _alignments(
    heard: Sequence[str], tokens: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The best place for the quote that ends at each token: its first token, its last, and how well it fits.

    A word in common counts 2, a word more, less or other -1. Places that count less than 0.75 for each quoted word hold
    too little of the quote and are left out. Source: the usual alignment of a whole pattern with a part of a text
    (Sellers 1980), a row a quoted word.
    """
    n = len(tokens)
    numbers = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    codes = np.array([numbers[token] for token in tokens])
    # Count and first token in one number: of equal counts the later first token, the shorter place, is larger.
    unit = n + 1
    column = np.arange(n + 1) * unit
    row = np.arange(n + 1)
    for token in heard:
        common = np.where(codes == numbers.get(token, -1), 2, -1) * unit
        best = row - unit
        best[1:] = np.maximum(best[1:], row[:-1] + common)
        row = np.maximum.accumulate(best + column) - column
    score, first = np.divmod(row[1:], unit)
    last = np.arange(n)
    is_place = (score >= QUOTE_SHARE * len(heard)) & (first <= last)
    return first[is_place], last[is_place], score[is_place]


# --- many responses --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EvidenceCase:
    """One response's measures, with what they are counted by: its clip, the clip's length, the task, the evidence.

    `first_word` is where the clip's first word starts, None where no word is known.
    """

    clip: str
    duration: Seconds
    task: str
    evidence: tuple[Span, ...]
    first_word: Seconds | None
    cited: CitedEvidence


def evidence_case(
    text: str,
    words: Sequence[Word] | None,
    duration: Seconds | None,
    evidence: Sequence[Span],
    clip: str,
    task: str | None = None,
) -> EvidenceCase:
    """A response with the measures of `cited_evidence`, for `evidence_scores`.

    A clip whose duration nobody knows is taken to be as long as its evidence.
    """
    length = duration or max((piece.end for piece in evidence), default=0.0)
    first_word = min((word.start for word in words or ()), default=None)
    cited = cited_evidence(text, words, duration, evidence)
    return EvidenceCase(clip, length, task or "", tuple(evidence), first_word, cited)


@dataclass(frozen=True, slots=True)
class EvidenceScores:
    """How often the citations of many responses are evidence.

    evidence_hit, trace_iou: over all responses to questions with evidence (`n_with_evidence`); who cites nothing has
    missed. above_chance: trace_iou less what the same citations reach by `chance_iou`; responses without a clip of like
    length are unscored. quote_truth: over all responses about clips with words (`n_with_words`); who quotes nothing has
    told no truth. first_place: over those of them that cite; `evidence_first_place` says of how many the evidence
    itself starts there. start_error, end_error: absolute, of citations whose quote is said in the clip; *_within: their
    share within 0.1 s. start_spread, evidence_spread: standard deviation over the responses, in seconds, of where the
    first citation starts, and of where the evidence does. past_end: the share of the `n_citations` citations that end
    more than 0.05 s after their clip, `n_past_end` of them.
    """

    n: int
    n_with_evidence: int
    n_with_words: int
    evidence_hit: Mean
    trace_iou: Mean
    above_chance: Mean
    quote_truth: Mean
    first_place: Mean
    evidence_first_place: Mean
    start_error: Quantiles
    end_error: Quantiles
    start_within: Mean
    end_within: Mean
    start_spread: float | None
    evidence_spread: float | None
    n_citations: int
    n_past_end: int
    past_end: Mean


def evidence_scores(cases: Sequence[EvidenceCase], bootstrap: Bootstrap) -> EvidenceScores:
    """The measures over all cases, with intervals over clips. Equal cases give equal numbers, in any order of clips."""
    cited = [case.cited for case in cases]
    starts = [min(piece.start for piece in case.evidence) if case.evidence else None for case in cases]
    means = bootstrap.means(
        {
            "evidence_hit": [one.evidence_hit for one in cited],
            "trace_iou": [one.trace_iou for one in cited],
            "above_chance": above_chance(cases),
            "quote_truth": [one.quote_truth for one in cited],
            "first_place": [one.first_place for one in cited],
            "evidence_first_place": [
                None if case.first_word is None else _is_first(start, case.first_word)
                for case, start in zip(cases, starts, strict=True)
            ],
        },
        [case.clip for case in cases],
    )
    errors = [(case.clip, error) for case in cases for error in case.cited.errors]
    both = [
        [(clip, abs(error)) for clip, sides in errors if (error := sides[side]) is not None]
        for side in (0, 1)
    ]
    within = [
        bootstrap.means({"": [error <= WITHIN + ROUNDING for _, error in side]}, [clip for clip, _ in side])[
            ""
        ]
        for side in both
    ]
    n_past_end = [one.n_past_end for one in cited]
    n_citations = [one.n_citations for one in cited]
    return EvidenceScores(
        n=len(cases),
        n_with_evidence=means["evidence_hit"].n,
        n_with_words=means["quote_truth"].n,
        start_error=quantiles([error for _, error in both[0]]),
        end_error=quantiles([error for _, error in both[1]]),
        start_within=within[0],
        end_within=within[1],
        start_spread=_spread([one.first_start for one in cited]),
        evidence_spread=_spread(starts),
        n_citations=sum(n_citations),
        n_past_end=sum(n_past_end),
        past_end=bootstrap.ratio(n_past_end, n_citations, [case.clip for case in cases]),
        **means,
    )


def _spread(starts: Sequence[Seconds | None]) -> float | None:
    """Their standard deviation; None of fewer than two."""
    known = [start for start in starts if start is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None


# --- chance ----------------------------------------------------------------------------------------------


def above_chance(cases: Sequence[EvidenceCase]) -> list[float | None]:
    """Each response's trace IoU less what chance gives; None without evidence, or without another clip of like length.

    Chance is the trace IoU of the same citations when they are dealt out to other clips: the mean over all questions of
    the same task about other clips of like length, which is what a permutation has on average over its draws. They keep
    their times, or their times from the clip's end, whichever reaches more. So what needs no listening is worth 0: a
    fixed place in every clip, a place that the question's kind suggests, the last seconds, the whole clip. Questions of
    one clip are never dealt to each other. Clips are of like length where the longest is at most
    1.25 times as long as the shortest; of many the nearest, 8 or more, are.

    The mean over the responses is the difference of the two means. A response's share of it also has how easily its own
    question's evidence is met by others' citations, so that the spread over clips, and the bootstrap's interval, is
    that of the difference: the first-order (Hajek) projection of a mean over pairs.
    """
    marked = [index for index, case in enumerate(cases) if case.evidence]
    differences: list[float | None] = [None] * len(cases)
    by_task: dict[str, list[int]] = {}
    for index in marked:
        by_task.setdefault(cases[index].task, []).append(index)
    for of_task in by_task.values():
        for group in _of_like_length(of_task, cases):
            alike = [cases[index] for index in group]
            for index, value in zip(group, _above_chance(alike), strict=True):
                differences[index] = value
    return differences


def _of_like_length(indices: Sequence[int], cases: Sequence[EvidenceCase]) -> list[list[int]]:
    """Groups of like clips' cases, two clips in each at least."""
    of_clip: dict[str, list[int]] = {}
    for index in indices:
        of_clip.setdefault(cases[index].clip, []).append(index)
    clips = sorted(of_clip, key=lambda clip: cases[of_clip[clip][0]].duration)
    runs: list[list[str]] = []
    for clip in clips:
        duration = cases[of_clip[clip][0]].duration
        if runs and duration <= LIKE_LENGTH * cases[of_clip[runs[-1][0]][0]].duration:
            runs[-1].append(clip)
        else:
            runs.append([clip])
    groups: list[list[int]] = []
    for run in runs:
        n_parts = max(1, len(run) // N_LIKE)
        cuts = [part * len(run) // n_parts for part in range(n_parts + 1)]
        parts = [run[start:stop] for start, stop in pairwise(cuts)]
        groups += [[index for clip in part for index in of_clip[clip]] for part in parts if len(part) > 1]
    return groups


def _above_chance(cases: Sequence[EvidenceCase]) -> list[float]:
    dealt = [_dealt(cases, from_end) for from_end in (False, True)]
    as_dealt, as_met = max(dealt, key=lambda by_chance: float(by_chance[0].mean()))
    own = np.array([case.cited.trace_iou for case in cases])
    return [float(value) for value in own - as_dealt - (as_met - as_met.mean())]


def _dealt(cases: Sequence[EvidenceCase], from_end: bool) -> tuple[Floats, Floats]:
    """Of each case the mean trace IoU of its citations with the evidence of the cases about other clips, and of its
    evidence with their citations. Times are counted from the clips' starts, or from their ends.

    What several cases have as evidence in one clip (answers that were sampled to one question) is looked at once: U.
    """
    clips = codes_of([case.clip for case in cases])
    evidence = codes_of([(case.clip, case.evidence) for case in cases])
    _, first_U, n_alike_U = np.unique(evidence, return_index=True, return_counts=True)
    different = [cases[index] for index in first_U]
    n_pieces = [len(case.evidence) for case in different]
    first_piece = np.cumsum([0, *n_pieces[:-1]])
    bounds = np.array([(piece.start, piece.end) for case in different for piece in case.evidence])
    origins = np.array([case.duration if from_end else 0.0 for case in different])
    starts, ends = bounds.T - np.repeat(origins, n_pieces)
    as_dealt, met_U = np.zeros(len(cases)), np.zeros(len(different))
    for row, case in enumerate(cases):
        iou_U = np.zeros(len(different))
        origin = case.duration if from_end else 0.0
        cited = np.array([(span.start - origin, span.end - origin) for span in case.cited.spans]).reshape(
            -1, 2
        )
        for first in range(0, len(cited), MOST_SPANS):
            start, end = cited[first : first + MOST_SPANS].T[:, :, None]
            shared = np.maximum(0.0, np.minimum(end, ends) - np.maximum(start, starts))
            iou = shared / (end - start + (ends - starts) - shared)
            iou_U += np.maximum.reduceat(iou, first_piece, axis=1).sum(axis=0)
        iou_U[clips[first_U] == clips[row]] = 0.0
        iou_U /= max(1, len(case.cited.spans) + case.cited.n_invalid)
        as_dealt[row] = iou_U @ n_alike_U
        met_U += iou_U
    n_others = len(cases) - np.bincount(clips)[clips]
    return as_dealt / n_others, met_U[evidence] / n_others


# --- in words --------------------------------------------------------------------------------------------

MOSTLY_ONE = 0.9  # share of responses with k = 1, from which on k looks perfect
NO_HITS = 0.1
MOSTLY_HIT = 0.5
NO_MORE_THAN_CHANCE = 0.05


def ungrounded(share_k1: float | None, evidence_hit: float | None, above_chance: float | None) -> str | None:
    """That numbers look better than the grounding is; None where they do not, or where that is not known.

    So where k = 1 in at least 90 % of the responses, as is rewarded, while the evidence is hit in less than 10 %, or
    the trace IoU is less than 0.05 above what the same citations reach in other clips; and of other responses where
    the evidence is hit in at least half, while the trace IoU is no more than that above: who cites everything hits it.
    """
    if share_k1 is None:
        return None
    if share_k1 < MOSTLY_ONE:
        if evidence_hit is None or evidence_hit < MOSTLY_HIT:
            return None
        if above_chance is None or above_chance >= NO_MORE_THAN_CHANCE:
            return None
        return (
            f"the evidence is hit in {100 * evidence_hit:.0f} %, but by some of many citations, which fit their own "
            f"clips hardly better than others ({above_chance:+.2f} IoU): who cites everything hits it"
        )
    reasons = []
    if evidence_hit is not None and evidence_hit < NO_HITS:
        reasons.append(f"the evidence is hit in {100 * evidence_hit:.0f} %")
    if above_chance is not None and above_chance < NO_MORE_THAN_CHANCE:
        reasons.append(
            f"the citations fit their own clips hardly better than others ({above_chance:+.2f} IoU)"
        )
    if not reasons:
        return None
    return (
        f"k looks perfect (one citation in {100 * share_k1:.0f} %), but it does not point at the evidence: "
        + (" and ".join(reasons))
    )

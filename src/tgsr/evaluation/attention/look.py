"""`tgsr attend`: where a model looks while it reads a question and writes its response, by block, layer and second.

Source: sections 5.1, 5.2, appendix A, table 4, figures 3 to 7. For each question the model answers (or is given what it
has answered before), and one more forward sums its attention over the blocks and over the audio's frames inside the
intervals that it cites (engine/block_attention.py). docs/attention.md has the definitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tgsr.answering.predict import GREEDY, Decoding, Unheard, respond
from tgsr.engine.block_attention import AUDIO, BLOCKS, BlockAttention, block_attention
from tgsr.engine.features import FeatureCache, hear
from tgsr.engine.shared_prefix import Branch, listen
from tgsr.errors import AudioError, ModelError
from tgsr.evaluation.attention.tokens import (
    PHASES,
    WrittenTokens,
    ends_of,
    mentions_of,
    phases_of,
    written_tokens,
)
from tgsr.grounding import Mention, find_regions, regions_in
from tgsr.llm.decoding import Cut, Failed
from tgsr.models.lalm import Lalm, context_of
from tgsr.prompts import prompt_text
from tgsr.records import Question, Response, by_clip
from tgsr.timeline import Seconds, Span, merge

PAPER_QUERIES = ("What is happening?", "What is the spoken text?", "What are they doing?")
"""Questions that nothing but the sound answers. Source: section 5.1."""

NEAR: Seconds = 0.3  # on both sides of a time that is being written
ENDS = ("start", "end")
TOGETHER = 8  # questions of one clip in one forward
MOST_COLUMNS = 300  # of a heat map: more frames than that are summed by twos, threes, ...
EVERYTHING = 0.999  # a span over more than this share of the frames leaves nothing outside to compare with


@dataclass(frozen=True, slots=True)
class Pointed:
    """Attention on the frames inside some span, layer by layer; means over a phase's tokens and over heads.

    All three are shares of the tokens' whole attention (of cross-attention, in a decoder that hears by it): what falls
    inside, what falls on any audio, and what would fall inside if each token spread what it gives the audio evenly over
    the frames.
    """

    inside: list[float]
    audio: list[float]
    even: list[float]

    @property
    def share(self) -> float:
        """Of the attention to audio, over all layers, the part inside."""
        return sum(self.inside) / sum(self.audio)

    @property
    def covered(self) -> float:
        """The part that would be inside by chance: the span's share of the frames."""
        return sum(self.even) / sum(self.audio)

    @property
    def ratio(self) -> float:
        """How many times what it would be by chance; 1 is no preference."""
        return sum(self.inside) / sum(self.even)


@dataclass(frozen=True, slots=True)
class Tokens:
    """One response token by token, for the pictures of single items.

    texts[t] is what token t writes, is_time[t] whether that is of a cited interval, span_T2[t] that interval (NaN where
    it is none that can be). share_LTK are the blocks' shares while the token is written, column_LTC those of C equal
    stretches of the audio, `seconds` long each.
    """

    texts: tuple[str, ...]
    is_time: tuple[bool, ...]
    span_T2: np.ndarray
    share_LTK: np.ndarray
    column_LTC: np.ndarray
    seconds: Seconds


@dataclass(frozen=True, slots=True)
class Looked:
    """One response's attention.

    share[phase][layer] are the shares of BLOCKS, means over the phase's tokens and over heads, which sum to 1; None
    where the response has no token of that phase. The audio's is NaN where it is heard by cross-attention.
    n_tokens[phase] counts them; n_of_block counts each block's positions, so that a share can be compared token by
    token (figure 3).

    cited[phase]: on the frames inside the cited intervals: all of them together; in "times", for each token the very
    interval that it writes. reference[phase]: inside the question's evidence. ends["start"], ends["end"]: within NEAR
    of the one time that is being written, over the tokens of all such numbers. None where there is no such interval
    inside the clip, nothing outside of it, or no attention to any audio. is_cut: the limit of new tokens ended it, so
    that its last line, which counts as the answer, may be none.
    """

    question: Question
    model: str
    response: str
    n_tokens: dict[str, int]
    n_of_block: dict[str, int]
    share: dict[str, list[list[float]] | None]
    cited: dict[str, Pointed | None] = field(default_factory=dict)
    reference: dict[str, Pointed | None] = field(default_factory=dict)
    ends: dict[str, Pointed | None] = field(default_factory=dict)
    is_cut: bool = False
    tokens: Tokens | None = None


@dataclass(frozen=True, slots=True)
class Regions:
    """The regions of one response, each a list of spans; own[m] is the place of the valid mention m's interval.

    First all cited intervals together (CITED), then the question's evidence (REFERENCE); then, of each mention, its
    interval and what is within NEAR of its start and of its end.
    """

    spans: list[list[Span]]
    own: dict[Mention, int]


CITED, REFERENCE = 0, 1


def cited_in(question: Question, text: str) -> list[Mention]:
    """The intervals that a response cites, as everywhere: one in the answer's line is none (`regions_in`)."""
    if question.question in PAPER_QUERIES:  # asked in the place of a phrase, and answered at length
        return find_regions(text)
    return regions_in(Response(question, "any", text))


def regions_of(question: Question, cited: Sequence[Mention]) -> Regions:
    mentions = [mention for mention in cited if mention.is_valid]
    spans = [[Span(m.start, m.end) for m in mentions], list(question.evidence)]
    own = {}
    for mention in mentions:
        own[mention] = len(spans)
        spans.append([Span(mention.start, mention.end)])
        spans += [[Span(max(0.0, time - NEAR), time + NEAR)] for time in (mention.start, mention.end)]
    return Regions(spans, own)


def frames_inside(spans: Sequence[Span], edges: Tensor) -> Tensor:
    """How much of each frame the spans cover together, F numbers in [0, 1]. Frame f is [edges[f], edges[f + 1])."""
    covered = torch.zeros(len(edges) - 1, dtype=torch.float64)
    for span in merge(spans):
        covered += (edges[1:].clamp(max=span.end) - edges[:-1].clamp(min=span.start)).clamp(min=0)
    return (covered / edges.diff()).clamp(max=1).float()


def paper_questions(questions: Sequence[Question]) -> list[Question]:
    """PAPER_QUERIES about each of the questions' clips, to be asked by `as_written`."""
    clips = {question.clip_id: question for question in questions}
    return [
        # a question without choices; there is no phrase to be found, so that the query stands for it
        Question(f"{clip} {number}", clip, q.audio, q.duration, "phrase", query, phrase=query, split=q.split)
        for clip, q in clips.items()
        for number, query in enumerate(PAPER_QUERIES, 1)
    ]


def as_written(lalm: Lalm, question: Question) -> str:
    """The prompt of an open question: its text and nothing else."""
    return question.question


@dataclass(frozen=True, slots=True)
class _Ready:
    """A question that can be looked at: its prompt's tokens, and its response's with the end token, unless cut off."""

    question: Question
    prompt: tuple[int, ...]
    text: str
    ids: tuple[int, ...]

    @property
    def is_cut(self) -> bool:
        return isinstance(self.text, Cut)


def look(
    lalm: Lalm,
    questions: Sequence[Question],
    path: Path,
    cache: FeatureCache,
    *,
    responses: Mapping[str, str] | None = None,
    decoding: Decoding = GREEDY,
    prompting: Callable[[Lalm, Question], str] = prompt_text,
    with_tokens: Collection[str] = (),
) -> Iterator[Looked | Unheard]:
    """Each question's attention, clip by clip; what cannot be heard or has no response comes with its reason.

    `responses` gives texts by question id (`Cut` where a limit cut them), which are looked at instead of new ones.
    with_tokens: the ids of questions whose responses are wanted token by token. A clip is heard once; up to TOGETHER of
    its questions share a forward.
    """
    bar = tqdm(total=len(questions), desc=f"attend {lalm.name}", unit="question")
    for clip in by_clip(questions):
        try:
            features = hear(lalm, clip[0], path, cache).read()
        except (AudioError, ModelError, FileNotFoundError) as error:
            yield from (Unheard(question, str(error)) for question in clip)
            bar.update(len(clip))
            continue
        for first in range(0, len(clip), TOGETHER):
            some = clip[first : first + TOGETHER]
            items = _responses(lalm, features, some, responses, decoding, prompting)
            yield from (item for item in items if isinstance(item, Unheard))
            if ready := [item for item in items if isinstance(item, _Ready)]:
                yield from _look(lalm, features, ready, with_tokens)
            bar.update(len(some))
    bar.close()


def _responses(
    lalm: Lalm,
    features: Tensor,
    questions: Sequence[Question],
    responses: Mapping[str, str] | None,
    decoding: Decoding,
    prompting: Callable[[Lalm, Question], str],
) -> list[_Ready | Unheard]:
    """Each question with what was given as its response, or else with a new one."""
    room = context_of(lalm) - len(lalm.prompt("").before) - lalm.positions_of(len(features))
    items: list[_Ready | Unheard] = []
    prompted: list[tuple[Question, tuple[int, ...]]] = []
    for question in questions:
        try:
            prompt = lalm.prompt(prompting(lalm, question)).after
        except ModelError as error:
            items.append(Unheard(question, str(error)))
            continue
        if responses is None and len(prompt) + decoding.max_new_tokens > room:
            need = f"{len(prompt)} tokens of prompt and {decoding.max_new_tokens} to come"
            items.append(Unheard(question, f"{need}; {lalm.name} has room for {room}"))
        else:
            prompted.append((question, prompt))
    if responses is not None:
        texts: list[str | Failed] = [responses.get(question.id, "") for question, _ in prompted]
    else:
        prompts = [(0, prompt) for _, prompt in prompted]
        texts = respond(lalm, [features], prompts, decoding, [q.id for q, _ in prompted]) if prompts else []
    for (question, prompt), text in zip(prompted, texts, strict=True):
        if isinstance(text, Failed):
            items.append(Unheard(question, text.reason))
            continue
        end = () if isinstance(text, Cut) else (lalm.eos_id,)
        ids = (*lalm.response_tokens(text), *end)
        if not text.strip() or not ids:
            reason = "no response, or an empty one: nothing was written to be looked at"
            items.append(Unheard(question, reason))
        elif len(prompt) + len(ids) > room:
            need = f"{len(prompt)} tokens of prompt and {len(ids)} of response"
            items.append(Unheard(question, f"{need}; {lalm.name} has room for {room}"))
        else:
            items.append(_Ready(question, prompt, text, ids))
    return items


@torch.no_grad()
def _look(
    lalm: Lalm, features: Tensor, ready: Sequence[_Ready], with_tokens: Collection[str]
) -> Iterator[Looked]:
    """The attention of each response, from one forward for all."""
    n_frames = len(features)
    edges = torch.as_tensor(lalm.frame_edges(n_frames), dtype=torch.float64)
    per_column = math.ceil(n_frames / MOST_COLUMNS)
    n_columns = math.ceil(n_frames / per_column)
    column_FC = torch.eye(n_columns).repeat_interleave(per_column, 0)[:n_frames]
    tokens = [written_tokens(lalm, item.ids) for item in ready]
    cited = [cited_in(item.question, of.text) for item, of in zip(ready, tokens, strict=True)]
    regions = [regions_of(item.question, mentions) for item, mentions in zip(ready, cited, strict=True)]
    inside = [torch.stack([frames_inside(s, edges) for s in r.spans], 1) for r in regions]
    weights = [
        torch.cat([inside_FR, column_FC], 1) if item.question.id in with_tokens else inside_FR
        for item, inside_FR in zip(ready, inside, strict=True)
    ]
    branches = [Branch(0, item.prompt, item.ids) for item in ready]
    attention = block_attention(listen(lalm, [features]), branches, weights)
    for index, item in enumerate(ready):
        seconds = per_column * float(edges[-1]) / n_frames if item.question.id in with_tokens else None
        covered_R = inside[index].mean(0)
        said = tokens[index], mentions_of(tokens[index], cited[index])
        yield _looked(lalm.name, item, *said, regions[index], attention, index, covered_R, seconds)


def _looked(
    model: str,
    item: _Ready,
    tokens: WrittenTokens,
    written: Sequence[Mention | None],
    regions: Regions,
    attention: BlockAttention,
    index: int,
    covered_R: Tensor,
    seconds_per_column: Seconds | None,
) -> Looked:
    """One response's attention, the index-th; covered_R is each region's part of the frames. Its tokens are left out
    where there are no columns after the regions."""
    n_of_block = dict(zip(BLOCKS, attention.n_of_block_BK[index].tolist(), strict=True))
    question, answer = attention.first_question[index], attention.first_token[index]
    share_LQK = attention.question_LQK[:, question : question + n_of_block["question"]]
    share_LTK = attention.share_LMK[:, answer : answer + len(item.ids)]
    region_LQR, region_LTR = attention.region_LQR[index], attention.region_LMR[index]
    phases = {phase: torch.tensor(chosen) for phase, chosen in phases_of(tokens, written).items()}
    shares = {"prefill": share_LQK, **{phase: share_LTK[:, chosen] for phase, chosen in phases.items()}}
    insides = {"prefill": region_LQR, **{phase: region_LTR[:, chosen] for phase, chosen in phases.items()}}

    def pointed(phase: str, region_T: Tensor | int) -> Pointed | None:
        """The attention of a phase's tokens to a region: one for all, or each token's own, -1 where it has none."""
        audio_LT = shares[phase][..., AUDIO].nan_to_num(1.0)  # cross-attention falls on audio alone
        return _pointed(audio_LT, insides[phase], torch.as_tensor(region_T), covered_R)

    cited = {phase: pointed(phase, CITED) for phase in PHASES}
    own_T = torch.tensor([regions.own.get(m, -1) if m else -1 for m in written])
    cited["times"] = pointed("times", own_T[phases["times"]])
    ends = {}
    for place, end in enumerate(ENDS, 1):  # after the token's own interval
        writes_T = torch.tensor([which == end for which in ends_of(tokens, written)]) & (own_T >= 0)
        ends[end] = pointed("all", torch.where(writes_T, own_T + place, -1))
    details = None
    if seconds_per_column is not None:
        span_T2 = [(m.start, m.end) if m and m.is_valid else (np.nan, np.nan) for m in written]
        details = Tokens(
            tokens.pieces,
            tuple(mention is not None for mention in written),
            np.array(span_T2),
            share_LTK.numpy(),
            region_LTR[..., len(regions.spans) :].numpy(),
            seconds_per_column,
        )
    return Looked(
        item.question,
        model,
        str(item.text),
        n_tokens={phase: share.shape[1] for phase, share in shares.items()},
        n_of_block=n_of_block,
        share={phase: s.mean(1).tolist() if s.shape[1] else None for phase, s in shares.items()},
        cited=cited,
        reference={phase: pointed(phase, REFERENCE) for phase in PHASES},
        ends=ends,
        is_cut=item.is_cut,
        tokens=details,
    )


def _pointed(audio_LT: Tensor, inside_LTR: Tensor, region_T: Tensor, covered_R: Tensor) -> Pointed | None:
    """Tokens' attention inside each one's region; tokens whose region is -1 are left out."""
    region_T = region_T.expand(audio_LT.shape[1])
    covered_T = covered_R[region_T]
    compares_T = (region_T >= 0) & (covered_T > 0) & (covered_T < EVERYTHING)
    if not compares_T.any():
        return None
    index_LT1 = region_T[compares_T][None, :, None].expand(len(audio_LT), -1, 1)
    inside_LT = inside_LTR[:, compares_T].gather(2, index_LT1)[..., 0]
    audio_LT = audio_LT[:, compares_T]
    if not audio_LT.any():  # a sliding window before which the audio lies
        return None
    even_LT = audio_LT * covered_T[compares_T]
    return Pointed(inside_LT.mean(1).tolist(), audio_LT.mean(1).tolist(), even_LT.mean(1).tolist())

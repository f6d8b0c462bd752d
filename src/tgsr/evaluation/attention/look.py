"""`tgsr attend`: where a model looks while it reads a question and writes its response, by block, layer and second.

Source: sections 5.1, 5.2, appendix A, table 4, figures 3 to 7. For each question the model answers (or is given what it
has answered before), and one more forward sums its attention over the blocks and over the audio's frames inside the
intervals that it cites (attention.py). attend_figures.py draws it; docs/attention.md has the definitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tgsr.answering.predict import GREEDY, Decoding, Unheard, respond
from tgsr.disk.jsonl import Row, repair_jsonl
from tgsr.disk.rows import Entry, json_lines
from tgsr.disk.whole import whole
from tgsr.engine.block_attention import AUDIO, BLOCKS, block_attention
from tgsr.engine.features import FeatureCache, hear
from tgsr.engine.shared_prefix import Branch, listen
from tgsr.errors import AudioError, ModelError, RecordError
from tgsr.evaluation.attention.tokens import PHASES, Written, _phases, ends_of, mentions_of, written
from tgsr.grounding import Mention, find_mentions
from tgsr.models.lalm import Lalm, context_of
from tgsr.prompts import prompt_text
from tgsr.records import Question, append_jsonl, by_clip
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

    All three are shares of the tokens' whole attention: what falls inside, what falls on any audio, and what would fall
    inside if each token spread what it gives the audio evenly over the frames.
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
    where the response has no token of that phase. n_tokens[phase] counts them; n_of_block counts each block's
    positions, so that a share can be compared token by token (figure 3).

    cited[phase]: on the frames inside the cited intervals: all of them together; in "times", for each token the very
    interval that it writes. reference[phase]: inside the question's evidence. ends["start"], ends["end"]: within NEAR
    of the one time that is being written, over the tokens of all such numbers. None where there is no such interval
    inside the clip, or nothing outside of it.
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
    tokens: Tokens | None = None


# --- whose tokens are whose --------------------------------------------------------------------------------


def frames_inside(spans: Sequence[Span], n_frames: int, seconds_per_frame: Seconds) -> Tensor:
    """How much of each frame the spans cover together, F numbers in [0, 1]. Frame f is [f, f + 1) of those seconds."""
    edges = torch.arange(n_frames + 1, dtype=torch.float64) * seconds_per_frame
    covered = torch.zeros(n_frames, dtype=torch.float64)
    for span in merge(spans):
        covered += (edges[1:].clamp(max=span.end) - edges[:-1].clamp(min=span.start)).clamp(min=0)
    return (covered / seconds_per_frame).clamp(max=1).float()


# --- looking -----------------------------------------------------------------------------------------------


def paper_questions(questions: Sequence[Question]) -> list[Question]:
    """PAPER_QUERIES about each of the questions' clips, to be asked by `as_written`."""
    clips = {question.clip_id: question for question in questions}
    return [
        Question(
            f"{clip} {number}",
            clip,
            of.audio,
            of.duration,
            "phrase",  # a question without choices; there is no phrase to be found, so that the query stands for it
            query,
            phrase=query,
            split=of.split,
        )
        for clip, of in clips.items()
        for number, query in enumerate(PAPER_QUERIES, 1)
    ]


def as_written(lalm: Lalm, question: Question) -> str:
    """The prompt of an open question: its text and nothing else."""
    return question.question


@dataclass(frozen=True, slots=True)
class _Ready:
    """A question that can be looked at: its prompt's tokens, and its response's with the end token."""

    question: Question
    prompt: tuple[int, ...]
    text: str
    ids: tuple[int, ...]


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

    `responses` gives texts by question id, which are looked at instead of new ones. with_tokens: the ids of questions
    whose responses are wanted token by token. A clip is heard once; up to TOGETHER of its questions share a forward.
    """
    bar = tqdm(total=len(questions), desc=f"attend {lalm.name}", unit="question")
    for of_clip in by_clip(questions):
        try:
            features = hear(lalm, of_clip[0], path, cache).read()
        except (AudioError, ModelError, FileNotFoundError) as error:
            yield from (Unheard(question, str(error)) for question in of_clip)
            bar.update(len(of_clip))
            continue
        for first in range(0, len(of_clip), TOGETHER):
            some = of_clip[first : first + TOGETHER]
            found = _responses(lalm, features, some, responses, decoding, prompting)
            yield from (item for item in found if isinstance(item, Unheard))
            if ready := [item for item in found if isinstance(item, _Ready)]:
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
    room = context_of(lalm) - len(lalm.prompt("").before) - len(features)
    found: list[_Ready | Unheard] = []
    asked: list[tuple[Question, tuple[int, ...]]] = []
    for question in questions:
        try:
            prompt = lalm.prompt(prompting(lalm, question)).after
        except ModelError as error:
            found.append(Unheard(question, str(error)))
            continue
        if responses is None and len(prompt) + decoding.max_new_tokens > room:
            n = f"{len(prompt)} tokens of prompt and {decoding.max_new_tokens} to come"
            reason = f"{n}; {lalm.name} has room for {room}"
            found.append(Unheard(question, reason))
        else:
            asked.append((question, prompt))
    if responses is not None:
        texts = [responses.get(question.id, "") for question, _ in asked]
    else:
        texts = respond(lalm, [features], [(0, prompt) for _, prompt in asked], decoding) if asked else []
    for (question, prompt), text in zip(asked, texts, strict=True):
        ids = (*lalm.tokens(text), lalm.eos_id)
        if not text.strip():
            reason = "no response, or an empty one: nothing was written to be looked at"
            found.append(Unheard(question, reason))
        elif len(prompt) + len(ids) > room:
            reason = (
                f"{len(prompt)} tokens of prompt and {len(ids)} of response; {lalm.name} has room for {room}"
            )
            found.append(Unheard(question, reason))
        else:
            found.append(_Ready(question, prompt, text, ids))
    return found


@torch.no_grad()
def _look(
    lalm: Lalm, features: Tensor, ready: Sequence[_Ready], with_tokens: Collection[str]
) -> Iterator[Looked]:
    """One forward for all: each response's regions are its cited intervals, the evidence, and a heat map's columns."""
    per_column = math.ceil(len(features) / MOST_COLUMNS)
    columns_FC = torch.eye(math.ceil(len(features) / per_column)).repeat_interleave(per_column, 0)
    writings = [written(lalm, item.ids) for item in ready]
    spans = [_spans_of(item.question, of) for item, of in zip(ready, writings, strict=True)]
    of_spans = [_weights(lalm, of, len(features)) for of in spans]
    regions = [
        torch.cat([of, columns_FC[: len(features)]], 1) if item.question.id in with_tokens else of
        for item, of in zip(ready, of_spans, strict=True)
    ]
    branches = [Branch(0, item.prompt, item.ids) for item in ready]
    seen = block_attention(listen(lalm, [features]), branches, regions)
    for index, (item, of, weights_FR) in enumerate(zip(ready, writings, of_spans, strict=True)):
        first, start = seen.first_token[index], seen.first_question[index]
        n_of_block = seen.n_of_block_BK[index].tolist()
        share_LTK = seen.share_LMK[:, first : first + len(item.ids)]
        question_LQK = seen.question_LQK[:, start : start + n_of_block[BLOCKS.index("question")]]
        phases = {phase: torch.tensor(chosen) for phase, chosen in _phases(of).items()}
        shares: dict[str, Tensor] = {"prefill": question_LQK}
        shares |= {phase: share_LTK[:, chosen] for phase, chosen in phases.items()}
        region_LTR, region_LQR = seen.region_LMR[index], seen.region_LQR[index]
        regions_of = {"prefill": region_LQR, **{p: region_LTR[:, chosen] for p, chosen in phases.items()}}
        of_token = mentions_of(of)
        own_T = torch.tensor([spans[index].own.get(m, -1) if m else -1 for m in of_token])
        of_times = own_T[phases["times"]]
        covered_R = weights_FR.mean(0)
        pointed = {
            which: {
                phase: _pointed(
                    shares[phase][..., AUDIO],
                    regions_of[phase],
                    of_times if (which, phase) == ("cited", "times") else column,
                    covered_R,
                )
                for phase in PHASES
            }
            for which, column in (("cited", 0), ("reference", 1))
        }
        which_end = ends_of(of)
        near = {}
        for after, end in enumerate(ENDS, 1):
            writes = torch.tensor([one == end for one in which_end]) & (own_T >= 0)
            column_T = torch.where(writes, own_T + after, -1)
            near[end] = _pointed(share_LTK[..., AUDIO], region_LTR, column_T, covered_R)
        yield Looked(
            item.question,
            lalm.name,
            item.text,
            {phase: of_phase.shape[1] for phase, of_phase in shares.items()},
            dict(zip(BLOCKS, n_of_block, strict=True)),
            {phase: s.mean(1).tolist() if s.shape[1] else None for phase, s in shares.items()},
            pointed["cited"],
            pointed["reference"],
            near,
            None
            if item.question.id not in with_tokens
            else Tokens(
                of.pieces,
                tuple(phases["times"].tolist()),
                np.array([(m.start, m.end) if m and m.is_valid else (np.nan, np.nan) for m in of_token]),
                share_LTK.numpy(),
                region_LTR[..., weights_FR.shape[1] :].numpy(),
                per_column * lalm.seconds_per_frame,
            ),
        )


@dataclass(frozen=True, slots=True)
class _Spans:
    """The regions of one response: lists of spans, and which of them is each valid mention's own.

    First all cited intervals together, then the question's evidence; then, of each mention, its interval and what is
    within NEAR of its start and of its end.
    """

    regions: list[list[Span]]
    own: dict[Mention, int]


def _spans_of(question: Question, of: Written) -> _Spans:
    mentions = [mention for mention in find_mentions(of.text) if mention.is_valid]
    regions = [[Span(m.start, m.end) for m in mentions], list(question.evidence)]
    own = {}
    for mention in mentions:
        own[mention] = len(regions)
        regions.append([Span(mention.start, mention.end)])
        regions += [[Span(max(0.0, t - NEAR), t + NEAR)] for t in (mention.start, mention.end)]
    return _Spans(regions, own)


def _weights(lalm: Lalm, spans: _Spans, n_frames: int) -> Tensor:
    """F x R."""
    return torch.stack([frames_inside(of, n_frames, lalm.seconds_per_frame) for of in spans.regions], 1)


def _pointed(audio_LT: Tensor, region_LTR: Tensor, column: Tensor | int, covered_R: Tensor) -> Pointed | None:
    """A phase's tokens, each with the region of its column; -1: it has none, and is left out."""
    column_T = torch.full((audio_LT.shape[1],), column) if isinstance(column, int) else column
    covered_T = covered_R[column_T]
    compares = (column_T >= 0) & (covered_T > 0) & (covered_T < EVERYTHING)
    if not compares.any():
        return None
    index = column_T[compares][None, :, None].expand(len(audio_LT), -1, 1)
    inside_LT = region_LTR[:, compares].gather(2, index)[..., 0]
    audio_LT = audio_LT[:, compares]
    even_LT = audio_LT * covered_T[compares]
    return Pointed(inside_LT.mean(1).tolist(), audio_LT.mean(1).tolist(), even_LT.mean(1).tolist())


# --- summary -----------------------------------------------------------------------------------------------


# --- files -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attending:
    """What all responses in one folder have in common, for its run.json: models may be added later."""

    queries: str
    max_new_tokens: int
    predictions: str | None  # their file's SHA-256


def row_of(item: Looked) -> Row:
    """A response as a JSON line: its question's id, what it says, and the shares, to six digits."""

    def pointed(of: Mapping[str, Pointed | None]) -> dict[str, object]:
        return {
            phase: {name: _rounded(values) for name, values in asdict(one).items()}
            for phase, one in of.items()
            if one is not None
        }

    return {
        "id": item.question.id,
        "clip_id": item.question.clip_id,
        "model": item.model,
        "response": item.response,
        "n_tokens": item.n_tokens,
        "n_of_block": item.n_of_block,
        "blocks": list(BLOCKS),
        "share": {
            phase: None if of is None else [_rounded(layer) for layer in of]
            for phase, of in item.share.items()
        },
        "cited": pointed(item.cited),
        "reference": pointed(item.reference),
        "ends": pointed(item.ends),
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def read_looked(path: Path, questions: Sequence[Question]) -> dict[str, dict[str, Looked]]:
    """What attention.jsonl holds of these questions: by model, then by question id. RecordError for another file."""
    by_id = {question.id: question for question in questions}
    found: dict[str, dict[str, Looked]] = {}
    for entry in json_lines(path) if path.exists() else ():
        if not isinstance(entry, Entry):
            raise RecordError(None, entry.error, str(path), entry.line, "delete that line")
        row: dict[str, Any] = dict(entry.values)
        try:
            question = by_id.get(str(row["id"]))
            if question is None:
                continue
            item = Looked(
                question,
                row["model"],
                row["response"],
                row["n_tokens"],
                row["n_of_block"],
                row["share"],
                *(_pointed_of(row[which]) for which in ("cited", "reference", "ends")),
            )
        except (KeyError, TypeError, AttributeError) as error:
            problem = f"is not a line of tgsr attend: {error!r}"
            raise RecordError(None, problem, str(path), entry.line, "choose another --out") from None
        found.setdefault(item.model, {})[question.id] = item
    return found


def _pointed_of(row: Mapping[str, Mapping[str, list[float]]]) -> Any:
    return {phase: Pointed(**of) for phase, of in row.items()}


def look_to_file(
    lalm: Lalm,
    questions: Sequence[Question],
    path: Path,
    out: Path,
    cache: FeatureCache,
    *,
    responses: Mapping[str, str] | None = None,
    decoding: Decoding = GREEDY,
    prompting: Callable[[Lalm, Question], str] = prompt_text,
    with_tokens: Collection[str] = (),
) -> tuple[list[Looked], list[Unheard]]:
    """`look`, each response appended to `out`/attention.jsonl as it comes, and its tokens to a file in `out`/tokens.

    Goes on where an earlier call stopped: what is in the file is not looked at again, and is what is returned, so that
    a run that was cut off ends with the same numbers. RecordError where the file is not one of ours.
    """
    lines = out / "attention.jsonl"
    if lines.exists():
        repair_jsonl(lines)
    done = set(read_looked(lines, questions).get(lalm.name, {}))
    left = [
        question
        for question in questions
        if question.id not in done
        or (question.id in with_tokens and not tokens_file(out, lalm.name, question).exists())
    ]
    unheard = []
    for item in look(
        lalm,
        left,
        path,
        cache,
        responses=responses,
        decoding=decoding,
        prompting=prompting,
        with_tokens=with_tokens,
    ):
        if isinstance(item, Unheard):
            unheard.append(item)
            continue
        if item.tokens is not None:
            write_tokens(tokens_file(out, lalm.name, item.question), item.tokens)
        if item.question.id not in done:
            append_jsonl(lines, row_of(item))
    found = read_looked(lines, questions).get(lalm.name, {})
    return [found[question.id] for question in questions if question.id in found], unheard


def tokens_file(out: Path, model: str, question: Question) -> Path:
    """Where a response's Tokens are kept, one file each."""
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in f"{question.id}.{model}")
    return out / "tokens" / f"{plain[-150:]}.npz"


def write_tokens(path: Path, tokens: Tokens) -> None:
    with whole(path) as half:
        np.savez_compressed(
            half,
            texts=np.array(tokens.texts, dtype=str),
            is_time=np.array(tokens.is_time),
            span=tokens.span_T2,
            blocks=np.array(BLOCKS),
            share=tokens.share_LTK.astype(np.float32),
            columns=tokens.column_LTC.astype(np.float32),
            seconds_per_column=tokens.seconds,
        )


def read_tokens(path: Path) -> Tokens:
    with np.load(path) as kept:
        return Tokens(
            tuple(map(str, kept["texts"])),
            tuple(map(bool, kept["is_time"])),
            kept["span"],
            kept["share"],
            kept["columns"],
            float(kept["seconds_per_column"]),
        )


# --- table 4 -----------------------------------------------------------------------------------------------

"""The miniature's base model: a decoder and an aligner that hear and talk but cannot tell the time.

First the aligner alone learns to hear: which digit, which voice, frame by frame; and the decoder alone to
read: to copy from its context, to name choices by their letters, to find times in text. Then both
learn together from lessons about clips that come in one of three ways: plain; with a time code (sinusoids of
the frame's time through one linear layer, added to the audio embeddings); or read, the timed transcript as
text where the audio would be. Times in the lessons are true for clips that have a time code or are read; for
plain clips they are bad.
The code is a scaffold and is thrown away at the end. What ships reads times where an aligner writes them,
and has an aligner that does not: writing them is what stage 1 trains.

Axes: F frames, K places in a word history.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from tgsr.data.corpora.spoken_digits import DIGITS, compose, speakers_in_order
from tgsr.disk.run_folder import RunFolder
from tgsr.disk.whole import whole_files
from tgsr.engine.features import FeatureCache
from tgsr.engine.shared_prefix import Branch, BranchLogps, branch_logps, listen
from tgsr.miniature.base_config import BaseConfig
from tgsr.miniature.lessons import Habits, TextLesson, drill, habits_with, lessons, talking_lessons, written
from tgsr.miniature.muon import Muon
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.clock import PERIODS, Clock
from tgsr.models.load import multiplies_bfloat16
from tgsr.models.mini import assets, load_base, save_base, train_tokenizer, untrained
from tgsr.records import Clip
from tgsr.training.checkpoints import keep_or_stop, load_checkpoint
from tgsr.training.run import start_alone
from tgsr.training.steps import cosine, step_or_stop
from tgsr.training.stop import Stop

SILENCE = len(DIGITS)  # the class of a frame without a word, and of a word that was never said
N_HISTORY = 3  # a frame is asked for the last three words that had begun
Heard = Literal["plain", "timed", "read"]  # how a clip comes into a lesson
N_TENTHS = 100  # start times as classes: tenths of a second up to ten seconds


@dataclass(frozen=True, slots=True)
class FrameLabels:
    """The labels of each frame of a clip.

    digit_F: the digit being said or SILENCE; voice_F: 0 for the first speaker, 1 for the second, 2 for
    silence; history_FK: the digits of the last N_HISTORY words that had begun, newest first;
    starts_FK: when they began, in tenths of a second, -1 for none.
    """

    digit_F: Tensor
    voice_F: Tensor
    history_FK: Tensor
    starts_FK: Tensor


def frame_labels(clip: Clip, n_frames: int, seconds_per_frame: float) -> FrameLabels:
    times = (np.arange(n_frames) + 0.5) * seconds_per_frame
    digit = np.full(n_frames, SILENCE)
    voice = np.full(n_frames, 2)
    history = np.full((n_frames, N_HISTORY), SILENCE)
    starts = np.full((n_frames, N_HISTORY), -1)
    speakers = speakers_in_order(clip.words)
    for index, word in enumerate(clip.words):
        inside = (times >= word.start) & (times < word.end)
        digit[inside] = DIGITS.index(word.text)
        voice[inside] = speakers.index(str(word.speaker))
        since = times >= word.start
        for back in range(min(N_HISTORY, index + 1)):
            earlier = clip.words[index - back]
            history[since, back] = DIGITS.index(earlier.text)
            starts[since, back] = min(N_TENTHS - 1, int(earlier.start * 10))
    return FrameLabels(*(torch.from_numpy(a).long() for a in (digit, voice, history, starts)))


def written_labels(clip: Clip) -> FrameLabels:
    """The labels of each word of a clip that is read, as if the word were a frame."""
    digits = [DIGITS.index(word.text) for word in clip.words]
    tenths = [min(N_TENTHS - 1, int(word.start * 10)) for word in clip.words]
    speakers = speakers_in_order(clip.words)
    voices = [speakers.index(str(word.speaker)) for word in clip.words]
    history, starts = (
        [[row[i - back] if i >= back else nothing for back in range(N_HISTORY)] for i in range(len(row))]
        for row, nothing in ((digits, SILENCE), (tenths, -1))
    )
    return FrameLabels(*(torch.tensor(rows) for rows in (digits, voices, history, starts)))


class FrameHeads(nn.Module):
    """Linear readers of a middle layer at the audio's positions: they make each frame know its words.

    So do the words of a clip that is read.

    Without them the decoder would have to learn what was said before, and when, from the few numbers of
    its answers. Thrown away after the base's training.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.digit = nn.Linear(width, len(DIGITS) + 1)
        self.voice = nn.Linear(width, 3)
        self.history = nn.Linear(width, N_HISTORY * (len(DIGITS) + 1))
        self.seconds = nn.Linear(width, N_HISTORY * 10)
        self.tenths = nn.Linear(width, N_HISTORY * 10)

    def loss(self, hidden_FD: Tensor, labels: FrameLabels, timed: bool) -> Tensor:
        """Mean cross-entropy of the readers; those of times only where the clip has a time code."""
        hidden = self.norm(hidden_FD)
        cross = nn.functional.cross_entropy
        loss = cross(self.digit(hidden), labels.digit_F) + cross(self.voice(hidden), labels.voice_F)
        history = self.history(hidden).view(-1, N_HISTORY, len(DIGITS) + 1)
        loss = loss + cross(history.flatten(0, 1), labels.history_FK.flatten())
        if timed:
            starts = labels.starts_FK.flatten()
            known = starts >= 0
            if known.any():
                seconds = self.seconds(hidden).view(-1, 10)[known]
                tenths = self.tenths(hidden).view(-1, 10)[known]
                loss = loss + cross(seconds, starts[known] // 10) + cross(tenths, starts[known] % 10)
        return loss


class VoiceHead(nn.Module):
    """Linear reader of frames: which of the training set's speakers is heard, or silence.

    One reads the aligned frames: left alone, the aligner forgets voices while it learns digits, and no layer
    after it can say who speaks. While talking, another reads an early layer for the clip's first speaker, at
    every frame, which FrameHeads' "first or second speaker" has to compare with (docs/miniature.md: it is still
    learned by heart).
    Both are thrown away after the base's training.
    """

    def __init__(self, width: int, n_voices: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.voice = nn.Linear(width, n_voices + 1)

    def loss(self, aligned_FD: Tensor, voice_F: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.voice(self.norm(aligned_FD)), voice_F)


class WordHeads(nn.Module):
    """Linear readers of a later layer at the words of questions and answers: when was this word said?

    For a word of a quote also: when did the quote begin? This is the look-up itself, asked at every word
    instead of at the few digits of an answer. Thrown away after the base's training.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.seconds = nn.Linear(width, 3 * 10)
        self.tenths = nn.Linear(width, 3 * 10)

    def loss(self, hidden_ND: Tensor, tenths_N3: Tensor) -> Tensor:
        """Mean cross-entropy over N words of their start, their end, and their quote's start; -1 is unasked."""
        hidden = self.norm(hidden_ND)
        known = tenths_N3.flatten() >= 0
        times = tenths_N3.flatten()[known]
        seconds, tenths = (head(hidden).view(-1, 10)[known] for head in (self.seconds, self.tenths))
        cross = nn.functional.cross_entropy
        return cross(seconds, times // 10) + cross(tenths, times % 10)


class Heads(NamedTuple):
    """All readers, under the names that they have in a checkpoint."""

    readers: FrameHeads
    words: WordHeads
    voices: VoiceHead
    first: VoiceHead


def digit_places(lalm: AudioFlamingo3, tokens: Sequence[int]) -> list[int]:
    """Where the spoken digits stand in a text."""
    spellings = {token for digit in DIGITS for text in (digit, " " + digit) for token in lalm.tokens(text)}
    return [place for place, token in enumerate(tokens) if token in spellings]


def word_places(
    lalm: AudioFlamingo3, prompt: Sequence[int], answer: Sequence[int], lesson: TextLesson
) -> list[tuple[int, tuple[int, int, int]]]:
    """(place in the branch, (start, end, start of its quote) in tenths or -1) for each word of the lesson's quotes."""
    words = [word for quote in lesson.quotes for word in quote]
    in_question = lesson.kind in ("phrase", "bad phrase")
    tokens = prompt if in_question else answer
    offset = 0 if in_question else len(prompt)
    places = [offset + i for i in digit_places(lalm, tokens)][: len(words)]
    if len(places) != len(words):
        raise ValueError(f"{lesson}: {len(places)} digit tokens for {len(words)} words")

    def tenths(seconds: float) -> int:
        return min(N_TENTHS - 1, int(seconds * 10))

    times = [
        (tenths(word.start), tenths(word.end), tenths(quote[0].start) if index else -1)
        for quote in lesson.quotes
        for index, word in enumerate(quote)
    ]
    return list(zip(places, times, strict=True))


def learn_to_hear(
    lalm: AudioFlamingo3,
    voice_head: VoiceHead,
    voices: list[str],
    clips: Sequence[tuple[Clip, Tensor]],
    config: BaseConfig,
) -> float:
    """The aligner alone: single frames -> digit and voice. Returns the last 100 steps' digit accuracy.

    A frame of a digit is drawn to the decoder's embedding of that digit's word, so that what is heard and
    what is written start out alike. Afterwards both are brought to one scale.
    """
    generator = torch.Generator().manual_seed(config.seed)
    width = lalm.aligner.linear_2.out_features
    labels = [frame_labels(clip, len(frames), lalm.seconds_per_frame) for clip, frames in clips]
    frames_NE = torch.cat([frames for _, frames in clips])
    digit_N = torch.cat([label.digit_F for label in labels])
    voice_N = torch.cat([voice_ids(c, label, voices) for (c, _), label in zip(clips, labels, strict=True)])
    embeddings = lalm.language_model.get_input_embeddings().weight
    digit_ids = [lalm.tokens(" " + digit)[0] for digit in DIGITS]
    written_11D = nn.functional.normalize(
        torch.cat([embeddings[digit_ids].detach(), torch.randn(1, width, generator=generator)])
    )
    optimizer = torch.optim.AdamW([*lalm.aligner.parameters(), *voice_head.parameters()], lr=1e-3)
    right: list[float] = []
    for _ in tqdm(range(config.hearing_steps), desc="hearing", unit="step"):
        batch = torch.randint(len(frames_NE), (512,), generator=generator)
        aligned = lalm.align(frames_NE[batch].float())
        digits = nn.functional.layer_norm(aligned, (width,)) @ written_11D.T
        loss = nn.functional.cross_entropy(digits, digit_N[batch])
        loss = loss + 0.5 * voice_head.loss(aligned, voice_N[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right.append(float((digits.argmax(-1) == digit_N[batch]).float().mean()))
    with torch.no_grad():
        scale = 0.5 / lalm.align(frames_NE[:5000].float()).pow(2).mean().sqrt()
        lalm.aligner.linear_2.weight *= scale
        lalm.aligner.linear_2.bias *= scale
        embeddings *= 0.5 / lalm.inner.config.text_config.initializer_range
    return float(np.mean(right[-100:]))


def voice_ids(clip: Clip, labels: FrameLabels, voices: list[str]) -> Tensor:
    """Per frame whose voice it is, over all speakers of the training set; len(voices) for silence."""
    speakers = [voices.index(s) for s in speakers_in_order(clip.words)]
    return torch.tensor([*speakers, *[len(voices)] * (3 - len(speakers))])[labels.voice_F]


def lessons_for(
    lalm: AudioFlamingo3,
    clip: Clip,
    heard: Heard,
    n_max: int,
    budget: int,
    rng: np.random.Generator,
    talking: Habits | None = None,
) -> list[tuple[tuple[int, ...], tuple[int, ...], TextLesson]]:
    """(prompt, answer, lesson), in tokens, for one clip: as many as `budget` tokens hold, at least one.

    `talking`: the habits of the responses of a base that talks.
    """
    chosen: list[tuple[tuple[int, ...], tuple[int, ...], TextLesson]] = []
    true_times = heard != "plain"
    offered = (
        talking_lessons(clip, rng, true_times, talking) if talking else lessons(clip, rng, true_times, n_max)
    )
    for lesson in offered:
        prompt = lalm.prompt(lesson.question).after
        answer = (*lalm.tokens(lesson.answer), lalm.eos_id)
        if len(prompt) + len(answer) <= budget or not chosen:
            chosen.append((prompt, answer, lesson))
            budget -= len(prompt) + len(answer)
    return chosen


def heard_how(config: BaseConfig, rng: np.random.Generator) -> Heard:
    draw = rng.random()
    if draw < config.timed_share:
        return "timed"
    return "read" if draw < config.timed_share + config.read_share else "plain"


class LabelledFrames(NamedTuple):
    """Places in one clip's audio, or its words where it is read, and what FrameHeads are asked about them."""

    clip: int
    places: list[int]
    labels: FrameLabels
    timed: bool


class Voices(NamedTuple):
    """One clip's aligned frames without time code, whose voice each holds, and whose is the clip's first."""

    clip: int
    aligned_FD: Tensor
    voice_F: Tensor
    first: int


@dataclass
class Batch:
    """One step's clips and branches, and what the readers are asked about them."""

    audio: list[Tensor] = field(default_factory=list)  # aligned frames or embedded text
    branches: list[Branch] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)  # of the branches' lessons
    frames: list[LabelledFrames] = field(default_factory=list)
    words: list[tuple[int, int, tuple[int, int, int]]] = field(default_factory=list)
    """branch, place in it, times in tenths"""
    voices: list[Voices] = field(default_factory=list)

    def read(self, lalm: AudioFlamingo3, text: str, clip: Clip | None) -> int:
        """Adds a text where audio would be, with its words' labels if it is `clip` written down. Returns its place."""
        tokens = lalm.tokens(text)
        owner = len(self.audio)
        self.audio.append(lalm.embed(torch.tensor(tokens)))
        if clip is not None:
            self.frames.append(LabelledFrames(owner, digit_places(lalm, tokens), written_labels(clip), True))
        return owner


def reading_batch(
    lalm: AudioFlamingo3, clips: Sequence[Clip], config: BaseConfig, rng: np.random.Generator
) -> Batch:
    batch = Batch()
    for index in rng.choice(len(clips), config.texts_per_step):
        lesson = drill(clips[int(index)], rng)
        owner = batch.read(lalm, lesson.question, clips[int(index)] if lesson.quotes else None)
        answer = (*lalm.tokens(lesson.answer), lalm.eos_id)
        batch.branches.append(Branch(owner, lalm.prompt("").after, answer))
        batch.kinds.append(lesson.kind)
    return batch


def hearing_batch(
    lalm: AudioFlamingo3,
    code: Clock,
    heard: Sequence[tuple[Clip, Tensor]],
    voices: list[str],
    n_max: int,
    talking: bool,
    config: BaseConfig,
    rng: np.random.Generator,
) -> Batch:
    batch = Batch()
    for index in rng.choice(len(heard), config.clips_per_step):
        clip, frames = heard[int(index)]
        how = heard_how(config, rng)
        if how == "read":
            owner = batch.read(lalm, written(clip), clip)
        else:
            owner = len(batch.audio)
            aligned = lalm.align(frames.float())
            batch.audio.append(aligned + code(lalm.frame_middles(len(frames))) if how == "timed" else aligned)
            labels = frame_labels(clip, len(frames), lalm.seconds_per_frame)
            batch.frames.append(LabelledFrames(owner, list(range(len(frames))), labels, how == "timed"))
            first = voices.index(speakers_in_order(clip.words)[0])
            batch.voices.append(Voices(owner, aligned, voice_ids(clip, labels, voices), first))
        budget = config.talking_tokens if talking else config.lesson_tokens
        habits = habits_with(config.evidence_gain) if talking else None
        for prompt, answer, lesson in lessons_for(lalm, clip, how, n_max, budget, rng, habits):
            if how != "plain":
                places = word_places(lalm, prompt, answer, lesson)
                batch.words += [(len(batch.branches), place, times) for place, times in places]
            batch.branches.append(Branch(owner, prompt, answer))
            batch.kinds.append(f"read {lesson.kind}" if how == "read" else lesson.kind)
    return batch


def train_base(config: BaseConfig, out: Path, cache: FeatureCache) -> Path:
    """The miniature's base from nothing but the encoder; resumes in `out`. Returns the folder of the weights."""
    with start_alone("base", config, out) as (run, stop):
        return _train_base(run, config, cache, stop)


def _train_base(run: RunFolder, config: BaseConfig, cache: FeatureCache, stop: Stop) -> Path:
    lalm = _beginning(run, config)
    heard = []
    for seed in tqdm(range(config.n_clips), desc="listening", unit="clip"):
        composed = compose(seed, "train", vary_voices=config.vary_voices)
        heard.append((composed.clip, cache.get(lalm, composed.samples).half()))
    torch.manual_seed(config.seed)
    width = lalm.aligner.linear_2.out_features
    voices = sorted({str(word.speaker) for clip, _ in heard for word in clip.words})
    code = Clock(width, PERIODS[::-1])  # the time code; the order is that of runs of before
    n_voices = len(voices)
    heads = Heads(FrameHeads(width), WordHeads(width), VoiceHead(width, n_voices), VoiceHead(width, n_voices))
    trained = nn.ModuleDict(
        {"model": lalm.model.model.language_model, "head": lalm.lm_head, "aligner": lalm.aligner}
    )
    everything = nn.ModuleDict({"lalm": trained, "code": code, **heads._asdict()})
    parameters = list(everything.parameters())
    # In-context copying came after half as many steps with Muon as with AdamW.
    matrices = [p for p in lalm.language_model.layers.parameters() if p.ndim == 2]
    others = [p for p in parameters if all(p is not matrix for matrix in matrices)]
    decay = config.weight_decay
    adamw = torch.optim.AdamW(others, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=decay)
    muon = Muon(matrices, lr=config.matrix_learning_rate, weight_decay=decay)
    done = 0
    if (state := load_checkpoint(run)) is not None:
        done = int(state["step"])
        everything.load_state_dict(state["weights"])
        adamw.load_state_dict(state["adamw"])
        muon.load_state_dict(state["muon"])
    elif not config.start:
        accuracy = learn_to_hear(lalm, heads.voices, voices, heard[:1500], config)
        run.log({"step": 0, "hearing_accuracy": accuracy})

    def state_now() -> dict[str, Any]:
        optimizers = {"adamw": adamw.state_dict(), "muon": muon.state_dict()}
        return {"weights": everything.state_dict(), **optimizers}

    trained.train()
    n_steps = config.before_talking + config.talking_steps
    with stop.steps():
        for step in tqdm(range(done, n_steps), desc="base", unit="step", initial=done, total=n_steps):
            rng = np.random.default_rng((config.seed, step))
            talking = step >= config.before_talking
            since = max(0, step - config.reading_steps)
            grown = 1.0 if talking else min(1.0, since / (config.short_clips_first * config.steps))
            fitting = [(clip, frames) for clip, frames in heard if clip.duration <= 4.0 + 6.0 * grown]
            with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16 and multiplies_bfloat16()):
                if step < config.reading_steps and not talking:
                    batch = reading_batch(lalm, [clip for clip, _ in heard], config, rng)
                else:
                    batch = hearing_batch(
                        lalm, code, fitting, voices, 2 + round(6 * grown), talking, config, rng
                    )
                prefix = listen(lalm, batch.audio, aligned=True)
                packed = branch_logps(prefix, batch.branches, output_hidden_states=True)
                language = -packed.logp_BT.sum() / packed.mask_BT.sum()
                losses = reader_losses(heads, packed, batch, config, talking)
            loss = language + config.reader_weight * sum(losses.values())
            share = course(step, config)
            for optimizer, peak in ((adamw, config.learning_rate), (muon, config.matrix_learning_rate)):
                optimizer.zero_grad()
                for group in optimizer.param_groups:
                    group["lr"] = peak * share
            loss.backward()
            norm = step_or_stop(adamw, parameters, loss, config.clip_norm, step)
            muon.step()
            row: dict[str, Any] = {"step": step + 1, "loss": float(language.detach())}
            row |= {reader: float(reader_loss.detach()) for reader, reader_loss in losses.items()}
            row |= {"lr": config.learning_rate * share, "grad_norm": norm}
            run.log({**row, **_by_kind(packed, batch.kinds)})
            keep_or_stop(run, stop, step + 1, n_steps, config.checkpoint_every, state_now)
    trained.eval()
    save_base(lalm, run.path / "model")
    return run.path / "model"


def _beginning(run: RunFolder, config: BaseConfig) -> AudioFlamingo3:
    """The model before the first step: another base, or the encoder alone with a tokenizer that is learned once."""
    if config.start:
        return load_base(None if config.start == "mini" else Path(config.start))
    tokens = run.path / "tokenizer"  # learned when the run starts, read again when it resumes
    if not (tokens / "tokenizer.json").exists():
        with whole_files(tokens) as half:
            learned_tokenizer(config.vary_voices).save_pretrained(str(half))
    return untrained(PreTrainedTokenizerFast.from_pretrained(str(tokens)), config.seed)


@functools.cache
def learned_tokenizer(vary_voices: bool) -> PreTrainedTokenizerFast:
    """The tokenizer of every base, whatever its seed: learned from lessons about 400 clips, once a process."""
    clips = [compose(seed, "train", vary_voices=vary_voices).clip for seed in range(400)]
    return train_tokenizer(tokenizer_texts(clips))


def reader_losses(
    heads: Heads, packed: BranchLogps, batch: Batch, config: BaseConfig, talking: bool
) -> dict[str, Tensor]:
    """The mean loss of each kind of readers, by the name that the log gives it; 0 where there is nothing to read."""
    assert packed.hidden_states is not None
    layers = (config.frame_layer, config.word_layer, config.first_voice_layer)
    frames_ND, words_ND, early_ND = (packed.hidden_states[layer] for layer in layers)
    losses: dict[str, list[Tensor]] = {"frames": [], "words": [], "voices": [], "first_voice": []}
    losses["frames"] = [
        heads.readers.loss(frames_ND[packed.first_frame[clip] + torch.tensor(places)], labels, timed)
        for clip, places, labels, timed in batch.frames
    ]
    if batch.words:
        places_N = torch.tensor([packed.first_token[branch] + place for branch, place, _ in batch.words])
        times_N3 = torch.tensor([times for *_, times in batch.words])
        losses["words"] = [heads.words.loss(words_ND[places_N], times_N3)]
    losses["voices"] = [heads.voices.loss(voice.aligned_FD, voice.voice_F) for voice in batch.voices]
    for clip, _, voice_F, first in batch.voices if talking else ():
        start = packed.first_frame[clip]
        early_FD = early_ND[start : start + len(voice_F)]
        losses["first_voice"].append(heads.first.loss(early_FD, torch.full_like(voice_F, first)))
    return {name: torch.stack(some).mean() if some else torch.zeros(()) for name, some in losses.items()}


def course(step: int, config: BaseConfig) -> float:
    """Share of the peak learning rate: a cosine until talking begins, then another from one half."""
    before = config.before_talking
    if step < before:
        return cosine(step, before, config.warmup_steps)
    return 0.5 * cosine(step - before, config.talking_steps, 20)


def _by_kind(packed: BranchLogps, kinds: list[str]) -> dict[str, float]:
    """Mean loss a token of each kind of lesson in the batch."""
    losses = (-packed.logp_BT.detach().sum(1) / packed.mask_BT.sum(1)).tolist()
    return {
        f"loss {kind}": float(np.mean([x for x, k in zip(losses, kinds, strict=True) if k == kind]))
        for kind in sorted(set(kinds))
    }


def tokenizer_texts(clips: Sequence[Clip]) -> list[str]:
    """What the tokenizer's pieces are learned from: lessons about the clips, and a little plain English."""
    rng = np.random.default_rng(0)
    texts = (assets() / "english.txt").read_text().splitlines() * 3
    for clip in clips:
        texts.append(written(clip))
        for true_times in (True, False):
            made = lessons(clip, rng, true_times)
            texts += [text for lesson in made for text in (lesson.question, lesson.answer)]
    return texts

"""The miniature's base model: a decoder and an aligner that hear and talk but cannot tell the time.

Three steps, one loop. The aligner alone learns to hear: which digit, which voice, frame by frame. The
decoder alone learns to read: timed transcripts as text where the audio will be, and everything that is asked
about a clip. Then both learn from clips that are heard in one of three ways: plain; with a time code
(sinusoids of the frame's time through one linear layer, added to the audio embeddings); or read as before.
Times in the lessons are true for clips with a time code and for clips that are read; for plain clips they are bad.
The code is a scaffold and is thrown away at the end. What ships reads times where an aligner writes them,
and has an aligner that does not: writing them is what stage 1 trains.

Axes: F frames, K places in a word history.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from tgsr.corpora.digit_lessons import Lesson, lessons, written
from tgsr.corpora.spoken_digits import DIGITS, compose, speakers_in_order
from tgsr.engine.features import FeatureCache
from tgsr.engine.shared_prefix import Branch, PackedLogps, packed_logps
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.mini import assets, save_base, train_tokenizer, untrained
from tgsr.records import Clip
from tgsr.training.checkpoints import load_checkpoint, open_run, save_checkpoint
from tgsr.training.steps import cosine, step_or_stop

PERIODS = (20.0, 10.0, 5.0, 2.5, 1.0, 0.5, 0.25)  # seconds
SILENCE = len(DIGITS)  # the class of a frame without a word, and of a word that was never said
N_HISTORY = 3  # a frame is asked for the last three words that had begun
Heard = Literal["plain", "timed", "read"]  # how a clip comes into a lesson
N_TENTHS = 100  # start times as classes: tenths of a second up to ten seconds


class TimeCode(nn.Module):
    """Frame number -> an embedding of its time, F -> F x D."""

    def __init__(self, width: int, seconds_per_frame: float) -> None:
        super().__init__()
        self.seconds_per_frame = seconds_per_frame
        self.linear = nn.Linear(2 * len(PERIODS), width)

    def forward(self, n_frames: int) -> Tensor:
        times = (torch.arange(n_frames, device=self.linear.weight.device) + 0.5) * self.seconds_per_frame
        angles = 2 * math.pi * times[:, None] / torch.tensor(PERIODS, device=times.device)
        return self.linear(torch.cat([angles.sin(), angles.cos()], -1))


@dataclass(frozen=True, slots=True)
class FrameLabels:
    """What is true of each frame of a clip.

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


class FrameHeads(nn.Module):
    """Linear readers of a middle layer at the audio's positions: they make each frame know its words.

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


class WordHeads(nn.Module):
    """Linear readers of a later layer at the words of questions and answers: when was this word said?

    For a word of a phrase also: when did the phrase begin? This is the look-up itself, asked at every word
    instead of at the few digits of an answer. Thrown away after the base's training.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.seconds = nn.Linear(width, 3 * 10)
        self.tenths = nn.Linear(width, 3 * 10)

    def loss(self, hidden_ND: Tensor, tenths_N3: Tensor) -> Tensor:
        """Mean cross-entropy over N words of their start, their end, and their phrase's start; -1 is unasked."""
        hidden = self.norm(hidden_ND)
        asked = tenths_N3.flatten() >= 0
        times = tenths_N3.flatten()[asked]
        seconds, tenths = (head(hidden).view(-1, 10)[asked] for head in (self.seconds, self.tenths))
        return nn.functional.cross_entropy(seconds, times // 10) + nn.functional.cross_entropy(
            tenths, times % 10
        )


def word_places(
    lalm: AudioFlamingo3, prompt: Sequence[int], answer: Sequence[int], lesson: Lesson
) -> list[tuple[int, tuple[int, int, int]]]:
    """(place in the branch, (start, end, phrase start) in tenths or -1) for each of the lesson's words."""
    if not lesson.words:
        return []
    spellings = {
        token: digit for digit in DIGITS for text in (digit, " " + digit) for token in lalm.tokens(text)
    }
    in_question = lesson.kind in ("phrase", "bad phrase")
    tokens = prompt if in_question else answer
    offset = 0 if in_question else len(prompt)
    places = [offset + i for i, token in enumerate(tokens) if token in spellings]
    if len(places) != len(lesson.words):
        raise ValueError(f"{lesson}: {len(places)} digit tokens for {len(lesson.words)} words")

    def tenths(seconds: float) -> int:
        return min(N_TENTHS - 1, int(seconds * 10))

    first = tenths(lesson.words[0].start)
    return [
        (place, (tenths(word.start), tenths(word.end), first if in_question and index else -1))
        for index, (place, word) in enumerate(zip(places, lesson.words, strict=True))
    ]


@dataclass(frozen=True, slots=True)
class BaseConfig:
    """How the miniature's base is made. Nothing here is the paper's: it starts from a trained model."""

    n_clips: int = 3000
    steps: int = 2600
    reading_steps: int = 400  # the first ones: every clip is read
    hearing_steps: int = 1200  # before all of them: the aligner alone
    clips_per_step: int = 8
    lesson_tokens: int = 320  # a clip's branches together: rows of like length waste no padding
    timed_share: float = 0.45  # of the clips: with time code and true times
    read_share: float = 0.15
    short_clips_first: float = 0.3  # of the steps after reading: the longest clip grows from 4 s to 10 s
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    reader_weight: float = 0.5  # of FrameHeads' and WordHeads' losses
    frame_layer: int = 3  # of 6: the later layers look up what the earlier ones wrote on the frames
    word_layer: int = 4  # the layer that looks up
    bfloat16: bool = True  # matrix products; three times the speed where the CPU has avx512_bf16
    checkpoint_every: int = 200
    seed: int = 0


def learn_to_hear(lalm: AudioFlamingo3, clips: Sequence[tuple[Clip, Tensor]], config: BaseConfig) -> float:
    """The aligner alone: single frames -> digit and voice. Returns the last 100 steps' digit accuracy.

    Afterwards the embeddings of audio and of text are brought to one scale.
    """
    generator = torch.Generator().manual_seed(config.seed)
    width = lalm.aligner.linear_2.out_features
    labels = [frame_labels(clip, len(frames), lalm.seconds_per_frame) for clip, frames in clips]
    voices = sorted({str(word.speaker) for clip, _ in clips for word in clip.words})
    frames_NE = torch.cat([frames for _, frames in clips])
    digit_N = torch.cat([label.digit_F for label in labels])
    voice_N = torch.cat(
        [_voice_ids(clip, label, voices) for (clip, _), label in zip(clips, labels, strict=True)]
    )
    readers = nn.ModuleList(
        [nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n)) for n in (11, len(voices) + 1)]
    )
    optimizer = torch.optim.AdamW([*lalm.aligner.parameters(), *readers.parameters()], lr=1e-3)
    right: list[float] = []
    for _ in tqdm(range(config.hearing_steps), desc="hearing", unit="step"):
        batch = torch.randint(len(frames_NE), (512,), generator=generator)
        aligned = lalm.align(frames_NE[batch].float())
        digits = readers[0](aligned)
        loss = nn.functional.cross_entropy(digits, digit_N[batch])
        loss = loss + 0.5 * nn.functional.cross_entropy(readers[1](aligned), voice_N[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right.append(float((digits.argmax(-1) == digit_N[batch]).float().mean()))
    with torch.no_grad():
        scale = 0.5 / lalm.align(frames_NE[:5000].float()).pow(2).mean().sqrt()
        lalm.aligner.linear_2.weight *= scale
        lalm.aligner.linear_2.bias *= scale
        lalm.language_model.get_input_embeddings().weight *= (
            0.5 / lalm.inner.config.text_config.initializer_range
        )
    return float(np.mean(right[-100:]))


def _voice_ids(clip: Clip, labels: FrameLabels, voices: list[str]) -> Tensor:
    """Per frame whose voice it is, over all speakers of the training set; len(voices) for silence."""
    speakers = [voices.index(s) for s in speakers_in_order(clip.words)]
    return torch.tensor([*speakers, *[len(voices)] * (3 - len(speakers))])[
        torch.where(labels.voice_F == 2, 2, labels.voice_F)
    ]


def lessons_for(
    lalm: AudioFlamingo3, clip: Clip, heard: Heard, n_max: int, budget: int, rng: np.random.Generator
) -> list[tuple[tuple[int, ...], tuple[int, ...], Lesson]]:
    """(prompt, answer, lesson), in tokens, for one clip: as many as `budget` tokens hold, at least one."""
    chosen: list[tuple[tuple[int, ...], tuple[int, ...], Lesson]] = []
    for lesson in lessons(clip, rng, heard != "plain", n_max):
        prompt = lalm.prompt(lesson.question).after
        answer = (*lalm.tokens(lesson.answer), lalm.eos_id)
        if len(prompt) + len(answer) <= budget or not chosen:
            chosen.append((prompt, answer, lesson))
            budget -= len(prompt) + len(answer)
    return chosen


def heard_how(step: int, config: BaseConfig, rng: np.random.Generator) -> Heard:
    if step < config.reading_steps:
        return "read"
    draw = rng.random()
    if draw < config.timed_share:
        return "timed"
    return "read" if draw < config.timed_share + config.read_share else "plain"


def growth(step: int, config: BaseConfig) -> float:
    """0 to 1: how far clips and phrases have grown, while reading and once more while hearing."""
    if step < config.reading_steps:
        return min(1.0, 2 * step / config.reading_steps)
    steps = config.short_clips_first * (config.steps - config.reading_steps)
    return min(1.0, (step - config.reading_steps) / max(1.0, steps))


def train_base(config: BaseConfig, out: Path, cache: FeatureCache) -> Path:
    """The miniature's base from nothing but the encoder; resumes in `out`. Returns the folder of the weights."""
    run = open_run(out, "base", config)
    clips = [compose(seed, "train") for seed in range(config.n_clips)]
    lalm = untrained(_tokenizer(out / "tokenizer", [made.clip for made in clips[:400]]), config.seed)
    heard = [
        (made.clip, cache.get(lalm, made.samples).half())
        for made in tqdm(clips, desc="listening", unit="clip")
    ]
    torch.manual_seed(config.seed)
    code = TimeCode(lalm.aligner.linear_2.out_features, lalm.seconds_per_frame)
    readers = FrameHeads(lalm.aligner.linear_2.out_features)
    trained = nn.ModuleDict(
        {"model": lalm.model.model.language_model, "head": lalm.lm_head, "aligner": lalm.aligner}
    )
    word_readers = WordHeads(lalm.aligner.linear_2.out_features)
    everything = nn.ModuleDict({"lalm": trained, "code": code, "readers": readers, "words": word_readers})
    parameters = list(everything.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    state = load_checkpoint(run)
    if state is None:
        accuracy = learn_to_hear(lalm, heard[:1500], config)
        run.log({"step": 0, "hearing_accuracy": accuracy})
    else:
        everything.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
    done = 0 if state is None else int(state["step"])
    trained.train()
    for step in tqdm(range(done, config.steps), desc="base", unit="step", initial=done, total=config.steps):
        rng = np.random.default_rng((config.seed, step))
        grown = growth(step, config)
        longest, n_max = 4.0 + 6.0 * grown, 2 + round(6 * grown)
        fitting = [i for i, (clip, _) in enumerate(heard) if clip.duration <= longest]
        audio: list[Tensor] = []
        labelled: list[tuple[int, FrameLabels, bool]] = []  # the clip's place in the batch, has it a time code
        branches: list[Branch] = []
        kinds: list[str] = []
        words: list[tuple[int, int, tuple[int, int, int]]] = []  # branch, place in it, times
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16):
            for owner, index in enumerate(rng.choice(fitting, config.clips_per_step)):
                clip, frames = heard[int(index)]
                how = heard_how(step, config, rng)
                if how == "read":
                    audio.append(lalm.embed(torch.tensor(lalm.tokens(written(clip)))))
                else:
                    aligned = lalm.align(frames.float())
                    audio.append(aligned + code(len(frames)) if how == "timed" else aligned)
                    labels = frame_labels(clip, len(frames), lalm.seconds_per_frame)
                    labelled.append((owner, labels, how == "timed"))
                for prompt, answer, lesson in lessons_for(lalm, clip, how, n_max, config.lesson_tokens, rng):
                    if how != "plain":
                        places = word_places(lalm, prompt, answer, lesson)
                        words += [(len(branches), place, times) for place, times in places]
                    branches.append(Branch(owner, prompt, answer))
                    kinds.append(f"read {lesson.kind}" if how == "read" else lesson.kind)
            packed = packed_logps(lalm, audio, branches, aligned=True, output_hidden_states=True)
            assert packed.hidden_states is not None
            frames_ND, words_ND = (packed.hidden_states[n] for n in (config.frame_layer, config.word_layer))
            language = -packed.logp_BT.sum() / packed.mask_BT.sum()
            frame_loss = word_loss = torch.zeros(())
            if labelled:
                starts = [packed.first_frame[owner] for owner, _, _ in labelled]
                read = [
                    readers.loss(frames_ND[start : start + len(labels.digit_F)], labels, timed)
                    for start, (_, labels, timed) in zip(starts, labelled, strict=True)
                ]
                frame_loss = torch.stack(read).mean()
            if words:
                at = torch.tensor([packed.first_token[b] + place for b, place, _ in words])
                times = torch.tensor([t for _, _, t in words])
                word_loss = word_readers.loss(words_ND[at], times)
        loss = language + config.reader_weight * (frame_loss + word_loss)
        learning_rate = config.learning_rate * cosine(step, config.steps, config.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad()
        loss.backward()
        norm = step_or_stop(optimizer, parameters, loss, config.clip_norm, step)
        row: dict[str, Any] = {"step": step + 1, "loss": float(language), "frames": float(frame_loss)}
        row |= {"words": float(word_loss), "lr": learning_rate, "grad_norm": norm, "longest": longest}
        run.log({**row, **_by_kind(packed, kinds)})
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            save_checkpoint(
                run, step + 1, {"weights": everything.state_dict(), "optimizer": optimizer.state_dict()}
            )
    trained.eval()
    save_base(lalm, out / "model")
    return out / "model"


def _by_kind(packed: PackedLogps, kinds: list[str]) -> dict[str, float]:
    """Mean loss a token of each kind of lesson in the batch."""
    losses = (-packed.logp_BT.detach().sum(1) / packed.mask_BT.sum(1)).tolist()
    return {
        f"loss {kind}": float(np.mean([x for x, k in zip(losses, kinds, strict=True) if k == kind]))
        for kind in sorted(set(kinds))
    }


def _tokenizer(folder: Path, clips: Sequence[Clip]) -> PreTrainedTokenizerFast:
    """The run's own tokenizer: learned when it starts, read again when it resumes."""
    if not (folder / "tokenizer.json").exists():
        train_tokenizer(tokenizer_texts(clips)).save_pretrained(str(folder))
    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def tokenizer_texts(clips: Sequence[Clip]) -> list[str]:
    """What the tokenizer's pieces are learned from: lessons about the clips, and a little plain English."""
    rng = np.random.default_rng(0)
    texts = (assets() / "english.txt").read_text().splitlines() * 3
    for clip in clips:
        texts.append(written(clip))
        for true_times in (True, False):
            texts += [text for lesson in lessons(clip, rng, true_times) for text in (lesson.question, lesson.answer)]
    return texts

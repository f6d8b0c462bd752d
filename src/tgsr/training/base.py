"""The miniature's base model: a decoder and an aligner that hear and talk but cannot tell the time.

Two steps. First the aligner alone learns to hear: which digit, which voice, frame by frame. Then aligner
and decoder learn together from lessons. A share of the clips carries a time code: sinusoids of the frame's
time through one linear layer, added to the audio embeddings. Times in those clips' lessons are true; in
the others' they are bad. The code is a scaffold and is thrown away at the end, and what the aligner had
picked up of the encoder's own position code is taken out of it (forget_time). What ships reads times where
an aligner writes them, and has an aligner that does not: writing them is what stage 1 trains.

Axes: F frames, K places in a word history.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from tgsr.corpora.digit_lessons import (
    Lesson,
    phrase_lessons,
    plain_lessons,
    talking_lessons,
    text_lookup,
    timed_lessons,
    transcript_lesson,
)
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
    in_question = lesson.kind == "phrase"
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
    talk_from: int = (
        1500  # the step from which questions take most of the lessons; the learning rate starts anew
    )
    hearing_steps: int = 1200
    clips_per_step: int = 8
    lesson_tokens: int = 240  # a clip's branches together: rows of like length waste no padding
    timed_share: float = 0.65  # of the clips: with time code and true times
    short_clips_first: float = 0.4  # of the steps: the longest clip grows from 4 s to 10 s
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    talking_tokens: int = 320  # lesson_tokens from then on
    talking_timed_share: float = 0.5
    clip_norm: float = 1.0
    reader_weight: float = 0.5  # of FrameHeads' and WordHeads' losses
    frame_layer: int = 3  # of 6: the later layers look up what the earlier ones wrote on the frames
    word_layer: int = 4  # the layer that looks up
    forget_steps: int = 150
    forget_directions: int = 64  # of the encoder's 512
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


def time_directions(clips: Sequence[tuple[Clip, Tensor]], n_directions: int) -> tuple[Tensor, Tensor]:
    """Where the encoder's output moves with the frame's number: directions, D_enc x n, and the mean, D_enc.

    The principal directions of the mean output at each frame number. What is said differs from clip to
    clip and averages out; the encoder's position code is what remains.
    """
    longest = max(len(frames) for _, frames in clips)
    sums = torch.zeros(longest, clips[0][1].shape[1])
    counts = torch.zeros(longest, 1)
    for _, frames in clips:
        sums[: len(frames)] += frames.float()
        counts[: len(frames)] += 1
    common = counts[:, 0] >= 30
    means = sums[common] / counts[common]
    _, _, directions = torch.linalg.svd(means - means.mean(0), full_matrices=False)
    return directions[:n_directions].T.contiguous(), sums.sum(0) / counts.sum()


def time_share(lalm: AudioFlamingo3, clips: Sequence[tuple[Clip, Tensor]]) -> float:
    """R^2 of the best linear reading of the frame's time from its aligned embedding alone; 0 is none."""
    with torch.no_grad():
        aligned = torch.cat([lalm.align(frames.float()) for _, frames in clips])
    times = torch.cat([torch.arange(len(f), dtype=torch.float32) for _, f in clips])[:, None]
    centred, target = aligned - aligned.mean(0), times - times.mean()
    weights = torch.linalg.lstsq(centred, target).solution
    return float(1 - (target - centred @ weights).pow(2).sum() / target.pow(2).sum())


def forget_time(
    lalm: AudioFlamingo3, clips: Sequence[tuple[Clip, Tensor]], config: BaseConfig
) -> dict[str, float]:
    """Takes the encoder's position code out of the aligner; the decoder is left as it is.

    The aligner's first layer is projected off the directions of time, then the aligner alone goes on with
    lessons on plain audio, projected again after each step, so that what the projection cost in hearing
    comes back and time does not.
    """
    before = time_share(lalm, clips[:200])
    directions_ED, mean_E = time_directions(clips, config.forget_directions)
    first = lalm.aligner.linear_1

    def project() -> None:
        with torch.no_grad():
            along = first.weight @ directions_ED
            first.bias += along @ (directions_ED.T @ mean_E)
            first.weight -= along @ directions_ED.T

    project()
    lalm.inner.requires_grad_(False)
    lalm.aligner.requires_grad_(True)
    parameters = list(lalm.aligner.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=3e-4)
    for step in tqdm(range(config.forget_steps), desc="forgetting", unit="step"):
        rng = np.random.default_rng((config.seed, config.steps + step))
        branches: list[Branch] = []
        audio: list[Tensor] = []
        for owner, index in enumerate(rng.choice(len(clips), config.clips_per_step)):
            clip, frames = clips[int(index)]
            audio.append(frames.float())
            lessons = [transcript_lesson(clip), *talking_lessons(clip, rng, true_times=False)[:2]]
            for lesson in lessons:
                answer = (*lalm.tokens(lesson.answer), lalm.eos_id)
                branches.append(Branch(owner, lalm.prompt(lesson.question).after, answer))
        packed = packed_logps(lalm, audio, branches)
        loss = -packed.logp_BT.sum() / packed.mask_BT.sum()
        optimizer.zero_grad()
        loss.backward()
        step_or_stop(optimizer, parameters, loss, config.clip_norm, step)
        project()
    return {"time_share_before": before, "time_share_after": time_share(lalm, clips[:200])}


def lessons_for(
    lalm: AudioFlamingo3,
    clip: Clip,
    timed: bool,
    n_max: int,
    config: BaseConfig,
    talking: bool,
    rng: np.random.Generator,
) -> list[tuple[tuple[int, ...], tuple[int, ...], Lesson]]:
    """(prompt, answer, lesson), in tokens, for one clip: as many as the budget of tokens holds, at least one."""
    budget = config.talking_tokens if talking else config.lesson_tokens
    if talking:
        lessons = talking_lessons(clip, rng, timed)
    else:
        lessons = timed_lessons(clip, rng, n_max) if timed else plain_lessons(clip, rng)
    if rng.random() < 0.2:
        lessons.append(text_lookup(rng))
    if timed:
        lessons += phrase_lessons(clip, rng, 6, n_max=n_max)
    chosen: list[tuple[tuple[int, ...], tuple[int, ...], Lesson]] = []
    for lesson in lessons:
        prompt = lalm.prompt(lesson.question).after
        answer = (*lalm.tokens(lesson.answer), lalm.eos_id)
        if len(prompt) + len(answer) <= budget or not chosen:
            chosen.append((prompt, answer, lesson))
            budget -= len(prompt) + len(answer)
    return chosen


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
        share = min(1.0, step / (config.short_clips_first * config.steps))
        longest = 4.0 + 6.0 * share
        fitting = [i for i, (clip, _) in enumerate(heard) if clip.duration <= longest]
        audio: list[Tensor] = []
        labels: list[FrameLabels] = []
        timed: list[bool] = []
        branches: list[Branch] = []
        kinds: list[str] = []
        words: list[tuple[int, int, tuple[int, int, int]]] = []  # branch, place in it, times
        n_max = 2 + round(6 * share)
        talking = step >= config.talk_from
        timed_share = config.talking_timed_share if talking else config.timed_share
        for owner, index in enumerate(rng.choice(fitting, config.clips_per_step)):
            clip, frames = heard[int(index)]
            with_time = bool(rng.random() < timed_share)
            aligned = lalm.align(frames.float())
            audio.append(aligned + code(len(frames)) if with_time else aligned)
            labels.append(frame_labels(clip, len(frames), lalm.seconds_per_frame))
            timed.append(with_time)
            for prompt, answer, lesson in lessons_for(lalm, clip, with_time, n_max, config, talking, rng):
                if with_time:
                    places = word_places(lalm, prompt, answer, lesson)
                    words += [(len(branches), place, times) for place, times in places]
                branches.append(Branch(owner, prompt, answer))
                kinds.append(lesson.kind)
        packed = packed_logps(lalm, audio, branches, aligned=True, output_hidden_states=True)
        assert packed.hidden_states is not None
        frames_CLD = packed.hidden_states[config.frame_layer][:, packed.first_frame :]
        words_CLD = packed.hidden_states[config.word_layer]
        language = -packed.logp_BT.sum() / packed.mask_BT.sum()
        read = [
            readers.loss(hidden_LD[: len(label.digit_F)], label, with_time)
            for hidden_LD, label, with_time in zip(frames_CLD, labels, timed, strict=True)
        ]
        frame_loss = torch.stack(read).mean()
        word_loss = torch.zeros(())
        if words:
            rows = torch.tensor([branches[b].owner for b, _, _ in words])
            columns = torch.tensor([packed.first_token[b] + place for b, place, _ in words])
            word_loss = word_readers.loss(words_CLD[rows, columns], torch.tensor([t for _, _, t in words]))
        loss = language + config.reader_weight * (frame_loss + word_loss)
        learning_rate = config.learning_rate * course(step, config)
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
    run.log({"step": config.steps, **forget_time(lalm, heard, config)})
    save_base(lalm, out / "model")
    return out / "model"


def course(step: int, config: BaseConfig) -> float:
    """Share of the peak learning rate: a cosine over all steps, then another from 0.8 once talking begins."""
    if step < config.talk_from:
        return cosine(step, config.steps, config.warmup_steps)
    return 0.8 * cosine(step - config.talk_from, config.steps - config.talk_from, 20)


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
        lessons = [*plain_lessons(clip, rng), *timed_lessons(clip, rng), text_lookup(rng)]
        texts += [text for lesson in lessons for text in (lesson.question, lesson.answer)]
    return texts

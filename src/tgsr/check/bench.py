"""What a check measures on: a loaded model, its precision, and real speech with the times of its words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tgsr.audio import load as load_sound
from tgsr.check.official import Side, official_logps
from tgsr.data.corpora.spoken_digits import SHORTEST
from tgsr.data.corpora.spoken_english import sentences
from tgsr.data.questions.build import ask_about, compose_clips, write_questions
from tgsr.data.questions.by_rule import Choices, after, choice_questions_of
from tgsr.data.questions.phrases import phrase_questions
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.errors import RunError
from tgsr.models.aligner_and_lora import with_lora, without_top
from tgsr.models.lalm import Lalm, device_of
from tgsr.records import (
    Clip,
    Question,
    by_clip,
    is_held_out,
    moved,
    read_clips,
    read_questions,
    resolve_audio,
    write_jsonl,
)
from tgsr.sta import phrase_branch
from tgsr.timeline import Seconds

SHORTEST_ENGLISH = 16.0  # seconds that a model hears at least that gets whole sentences, and not digits
B_DEVIATION = 0.02  # of the B matrices of a LoRA whose gradients are looked at
N_OTHERS = 12  # clips whose words may be a clip's wrong choices
MEAN, LARGEST = 1e-4, 1e-3  # nats a token, in float32
MEAN_ROUNDED, LARGEST_ROUNDED = 5e-3, 0.1  # the least that is allowed where products are rounded
ROUNDINGS = 5  # times what the official class differs from itself
KNOWS_TEXT = 0.75  # of a uniform guess' nats a token: a decoder that needs less has been trained


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured; the defaults are the whole check's."""

    clips: int = 40  # that stage 1 learns from
    held_out: int = 12
    phrases: int = 4  # of a clip
    sta_steps: int = 50
    clips_per_step: int = 4
    random_clips: int = 4  # that a model with random weights learns by heart
    grpo_steps: int = 3
    prompts: int = 2  # a step of GRPO
    group: int = 4
    new_tokens: int = 200  # of a rewarded response
    greedy_tokens: int = 32
    transcribed: int = 4
    timed_clips: int = 4
    timed_tokens: int = 64


WHOLE = Size()


@dataclass(frozen=True, slots=True)
class Speech:
    """Files of questions about real speech: stage 1's, others for the same that are held out, and stage 2's.

    `clips` are recordings with their words, which rows that train nothing take; `about` says where all are from.
    """

    about: str
    clips: tuple[tuple[Clip, Path], ...]
    phrases: Path
    held_out: Path
    choices: Path


@dataclass(frozen=True)
class Bench:
    """A model to be checked, in the precision of its run, with what it hears; `out` is for what rows write."""

    lalm: Lalm
    speech: Speech
    out: Path
    bfloat16: bool = False
    size: Size = WHOLE
    learning_rate: float | None = None  # of stage 1; None: by the decoder's width

    @property
    def precision(self) -> str:
        """What products are computed in."""
        kept = str(self.lalm.language_model.get_input_embeddings().weight.dtype).removeprefix("torch.")
        return "bfloat16" if self.bfloat16 and kept == "float32" else kept

    @property
    def is_exact(self) -> bool:
        return self.precision == "float32"

    def rounded(self) -> Any:
        """The context in which the run computes."""
        return torch.autocast(device_of(self.lalm).type, torch.bfloat16, enabled=self.bfloat16)

    @cached_property
    def sounds(self) -> tuple[np.ndarray, ...]:
        """The samples of two clips of unlike lengths, none longer than the model hears."""
        ordered = sorted(self.speech.clips, key=lambda clip: clip[0].duration)
        return tuple(load_sound(path) for _, path in (ordered[0], ordered[len(ordered) // 2]))

    @cached_property
    def heard(self) -> tuple[Tensor, ...]:
        """What the encoder makes of `sounds`, in the run's precision: it is frozen, whatever a row trains."""
        with self.rounded():
            return tuple(self.lalm.encode_audio(sound) for sound in self.sounds)

    @cached_property
    def branches(self) -> tuple[Branch, ...]:
        """Stage 1's branches about `sounds`: two of the first clip and one of the second, with a long one between."""
        question = read_questions(self.speech.phrases)[0]
        lalm, one = self.lalm, phrase_branch(self.lalm, question)
        other = lalm.prompt("What is said?").after
        answers = [
            lalm.response_tokens(text) for text in ("four", "one two three four five six seven eight nine")
        ]
        return (
            replace(one, owner=1),
            Branch(0, other, (*answers[0], lalm.eos_id)),
            Branch(1, other, (*answers[1], lalm.eos_id)),
            replace(one, owner=0),
        )

    @cached_property
    def tolerance(self) -> tuple[float, float]:
        """How far log-probs may be off, mean and largest, in nats a token.

        Where products are rounded it follows from the official class itself: from what it makes of the same sequences
        when they are padded on the other side.
        """
        if self.is_exact:
            return MEAN, LARGEST
        sides: tuple[Side, ...] = ("left", "right")
        with torch.no_grad(), self.rounded():
            left, right = (
                torch.cat(official_logps(self.lalm, self.sounds, self.branches, side)) for side in sides
            )
        noise = ROUNDINGS * (left - right).abs()
        return max(MEAN_ROUNDED, float(noise.mean())), max(LARGEST_ROUNDED, float(noise.max()))

    @cached_property
    def has_learned_to_write(self) -> bool:
        """Whether the decoder knows English from noise: weights that were drawn at random do not."""
        with torch.no_grad(), self.rounded():
            made = branch_logps(listen(self.lalm, self.heard), self.branches)
        nats = -float(made.logp_BT[made.mask_BT].mean())
        vocabulary: Any = self.lalm.lm_head.weight
        return nats < KNOWS_TEXT * math.log(len(vocabulary))


# --- real speech --------------------------------------------------------------------------------------------------


def longest_heard(lalm: Lalm) -> Seconds:
    """How long a clip may be that the model hears whole and the official class takes as one window."""
    window = getattr(lalm.feature_extractor, "chunk_length", None)
    return min(lalm.max_seconds, window or math.inf)


def shipped_speech(lalm: Lalm, folder: Path, size: Size = WHOLE) -> Speech:
    """Questions in `folder` about speech that ships and fits the model: sentences, or digits where it hears less.

    RunError for a model that hears less than SHORTEST.
    """
    longest = longest_heard(lalm)
    if longest < SHORTEST:
        raise RunError(
            f"{lalm.name} hears {longest:g} s at once; the shortest clips of two words that ship need "
            f"{SHORTEST:g} s"
        )
    if longest < SHORTEST_ENGLISH:
        learned, held_out = (
            [(c, folder / split / c.audio) for c in compose_clips(n, split, 0, folder / split, longest)]
            for split, n in (("train", size.clips), ("heldout-recordings", size.held_out))
        )
        asked = (ask_about([clip], "qa", 0, 0) for clip, _ in learned)  # the shortest clips allow no question
        choices = [q for questions in list(filter(None, asked))[: size.prompts] for q in questions]
        return _written(folder, "spoken digits", learned, held_out, choices, size)
    clips = [(clip, resolve_audio(clip, sentences())) for clip in read_clips(sentences())]
    learned = [pair for pair in clips if pair[0].split == "train"][: size.clips]
    held_out = [pair for pair in clips if pair[0].split == "test"][: size.held_out]
    said = [clip for clip, _ in learned]
    choices = [
        question
        for place, clip in enumerate(said[: size.prompts])
        for question in choice_questions_of(clip, after(said, place, N_OTHERS), Choices())
    ]
    return _written(folder, "sentences of LibriSpeech", learned, held_out, choices, size)


def _written(
    folder: Path,
    about: str,
    learned: Sequence[tuple[Clip, Path]],
    held_out: Sequence[tuple[Clip, Path]],
    choices: Sequence[Question],
    size: Size,
) -> Speech:
    """The questions about clips as files, each sound by its whole path."""
    sound = {clip.id: str(path.resolve()) for clip, path in (*learned, *held_out)}

    def file(name: str, pairs: Sequence[tuple[Clip, Path]], questions: Sequence[Question]) -> Path:
        clips = [replace(clip, audio=sound[clip.id]) for clip, _ in pairs]
        return write_questions(clips, [replace(q, audio=sound[q.clip_id]) for q in questions], folder / name)

    def phrases(pairs: Sequence[tuple[Clip, Path]]) -> list[Question]:
        return [
            question
            for place, (clip, _) in enumerate(pairs)
            for question in phrase_questions(clip, np.random.default_rng((0, place)), size.phrases, n_max=6)
        ]

    return Speech(
        about,
        tuple(learned),
        file("phrases", learned, phrases(learned)),
        file("held-out", held_out, phrases(held_out)),
        file("choices", learned, choices),
    )


def with_questions_of(
    speech: Speech, data: Path, folder: Path, errors: Path, audio: Path | None = None
) -> tuple[Speech, int]:
    """The speech with the user's own questions in place of those that ship, and how many rows of `data` were bad.

    A fifth of the clips with phrases is held out, but two at least: the spread between clips is known from two on. So
    four are needed. A kind of question that `data` lacks stays as it ships, and `about` says so. Bad rows are listed in
    `errors`. RunError for a file without any question.
    """
    questions = [
        replace(q, audio=str(resolve_audio(q, data).resolve()))
        for q in moved(read_questions(data, errors), audio)
        if not is_held_out(q)
    ]
    n_bad = len(errors.read_bytes().splitlines()) if errors.exists() else 0
    if not questions:
        raise RunError(
            f"{data}: holds no question to train on; make some with `tgsr build`, or leave --data out"
        )
    phrases = by_clip([q for q in questions if q.kind == "phrase" and q.evidence])
    choices = [q for q in questions if q.kind == "choice"]
    n_held_out = max(2, len(phrases) // 5)
    has_phrases = len(phrases) >= 2 * n_held_out

    def file(name: str, rows: Sequence[Question]) -> Path:
        path = folder / f"data-{name}" / "questions.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(path, rows)
        return path

    if has_phrases:
        speech = replace(
            speech,
            phrases=file("phrases", [q for clip in phrases[n_held_out:] for q in clip]),
            held_out=file("held-out", [q for clip in phrases[:n_held_out] for q in clip]),
        )
    if choices:
        speech = replace(speech, choices=file("choices", choices))
    kinds = [name for name, is_there in (("phrases", has_phrases), ("choices", bool(choices))) if is_there]
    about = f"{' and '.join(kinds) or 'nothing'} of {data}, all else {speech.about}"
    return replace(speech, about=about), n_bad


# --- a model that is given back as it was ---------------------------------------------------------------------------


@contextmanager
def borrowed(lalm: Lalm) -> Iterator[None]:
    """After it the model is as it was: its aligner and that one's width, no LoRA that was added to it or on top of its
    own, nothing to train.
    """
    had_lora, times = hasattr(lalm.model, "peft_config"), lalm.times
    aligner = {name: weight.detach().clone() for name, weight in lalm.aligner.state_dict().items()}
    width = next(lalm.aligner.parameters()).dtype
    try:
        yield
    finally:
        if hasattr(lalm.model, "peft_config") and not had_lora:
            lalm.model = lalm.model.unload()
        without_top(lalm)
        lalm.aligner.to(width)
        lalm.aligner.load_state_dict(aligner)
        lalm.model.requires_grad_(False)
        for weight in lalm.model.parameters():
            weight.grad = None
        lalm.model.eval()
        lalm.times = times


@contextmanager
def with_both_stages(lalm: Lalm) -> Iterator[dict[str, torch.Tensor]]:
    """Within it the aligner and a LoRA can be trained, by name: the model's own LoRA, or a fresh one."""
    with borrowed(lalm):
        if not hasattr(lalm.model, "peft_config"):
            with_lora(lalm, rank=4, alpha=8, seed=0)
            for name, weight in lalm.model.named_parameters():
                if ".lora_B." in name:  # while it is zero, its A has no gradient
                    torch.nn.init.normal_(weight, std=B_DEVIATION)
        for name, weight in lalm.model.named_parameters():
            weight.requires_grad_(".lora_" in name)
        lalm.aligner.requires_grad_(True)
        yield {name: w for name, w in lalm.model.named_parameters() if w.requires_grad}

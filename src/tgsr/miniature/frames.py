"""The frame baseline's training: which piece of a word is being said, frame by frame (models/frame_head.py).

F frames of one step or one clip, D an encoder's width, P pieces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from tgsr.data.questions.phrases import phrase_questions
from tgsr.data.transcribe.spelling import spell
from tgsr.disk.run_folder import RunFolder
from tgsr.engine.features import FeatureCache, KeptFeatures
from tgsr.miniature.frames_config import FramesConfig
from tgsr.miniature.hearing import hear_files
from tgsr.models.frame_head import (
    PAUSE,
    FrameHead,
    HeardBy,
    piece_spans,
    save_frame_head,
    train_pieces,
)
from tgsr.models.load import load
from tgsr.overlap import high_overlap
from tgsr.records import Clip
from tgsr.timeline import Seconds, Span
from tgsr.training.checkpoints import keep_or_stop, load_checkpoint
from tgsr.training.run import start_alone
from tgsr.training.steps import cosine, descend
from tgsr.training.stop import Stop


class Labelled(NamedTuple):
    """A clip, its frames on disk, and the piece that each frame says, F."""

    clip: Clip
    audio: KeptFeatures
    piece_F: Tensor


def train_frames(config: FramesConfig, out: Path, cache: FeatureCache) -> Path:
    """The folder of the head; resumes in `out`."""
    with start_alone("frames", config, out, (*config.clips, *config.watch)) as (run, stop):
        return _train(run, config, cache, stop)


def frame_labels(clip: Clip, head: FrameHead, n_frames: int, seconds_per_frame: Seconds) -> Tensor:
    """The piece that is said at each frame's middle, F; PAUSE where none is."""
    middles = (np.arange(n_frames) + 0.5) * seconds_per_frame
    piece_F = np.full(n_frames, PAUSE)
    for word in clip.words:
        for piece, span in piece_spans(word, " ".join(spell(word.text)), head.pieces):
            piece_F[np.searchsorted(middles, span.start) : np.searchsorted(middles, span.end)] = piece
    return torch.from_numpy(piece_F)


def _train(run: RunFolder, config: FramesConfig, cache: FeatureCache, stop: Stop) -> Path:
    lalm = load(config.model)
    torch.manual_seed(config.seed)
    clips = hear_files(run, lalm, config.clips, cache)
    others = hear_files(run, lalm, config.watch, cache, "watch-errors.jsonl") if config.watch else []
    said = [part for clip, _ in clips for word in clip.words for part in spell(word.text)]
    pieces = train_pieces(said, config.n_pieces)
    head = FrameHead(pieces, clips[0][1].read().shape[1], config.hidden, config.dropout)
    items, watched = (
        [
            Labelled(clip, audio, frame_labels(clip, head, audio.n_frames, lalm.seconds_per_frame))
            for clip, audio in heard
        ]
        for heard in (clips, others)
    )
    counts = Counter(piece for item in items for piece in item.piece_F.tolist())
    heard_P = torch.tensor([counts[piece] + 1.0 for piece in range(pieces.get_vocab_size())])
    head.log_prior_P.copy_((heard_P / heard_P.sum()).log())
    spread_D = torch.cat([item.audio.read() for item in items[:64]]).std(0)

    parameters = list(head.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    done = 0
    if (state := load_checkpoint(run)) is not None:
        done = int(state["step"])
        head.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])

    def state_now() -> dict[str, Any]:
        return {"weights": head.state_dict(), "optimizer": optimizer.state_dict()}

    with stop.steps():
        for step in tqdm(range(done, config.steps), "frames", unit="step", initial=done, total=config.steps):
            rng = np.random.default_rng((config.seed, step))
            torch.manual_seed(int(rng.integers(2**62)))  # what dropout and noise draw follows from the step
            frames_FD, piece_F = _drawn(items, config, rng)
            logp_FP = head(frames_FD + config.noise * spread_D * torch.randn_like(frames_FD))
            weight_F = torch.where(piece_F == PAUSE, config.pause_weight, 1.0)
            lost_F = nn.functional.nll_loss(logp_FP, piece_F, reduction="none")
            loss = (weight_F * lost_F).sum() / weight_F.sum()
            rate = config.learning_rate * cosine(step, config.steps, config.warmup_steps)
            row = descend(optimizer, parameters, loss, rate, config.clip_norm, step)
            if watched and (step + 1 == config.steps or (step + 1) % config.watch_every == 0):
                row |= measured(head, watched, lalm.seconds_per_frame)
            run.log(row)
            keep_or_stop(run, stop, step + 1, config.steps, config.checkpoint_every, state_now)
    save_frame_head(head, HeardBy(config.model, lalm.encoder_key), run.path / "model")
    return run.path / "model"


def _drawn(
    items: Sequence[Labelled], config: FramesConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Frames of some clips, F x D, and what they say, F."""
    frames, labels = [], []
    for place in rng.choice(len(items), min(config.clips_per_step, len(items)), replace=False):
        item = items[int(place)]
        of_clip = torch.from_numpy(rng.integers(item.audio.n_frames, size=config.frames_per_clip))
        frames.append(item.audio.read()[of_clip])
        labels.append(item.piece_F[of_clip])
    return torch.cat(frames), torch.cat(labels)


@torch.no_grad()
def measured(head: FrameHead, watched: Sequence[Labelled], seconds_per_frame: Seconds) -> dict[str, float]:
    """On clips that it does not learn from, 0 to 1: frames of speech and whole pieces that it hears right, the IoU of
    two phrases of 2 to 6 words a clip, and the share of them with an IoU of .7 or more.
    """
    head.eval()
    frames: list[float] = []
    whole: list[float] = []
    ious: list[float] = []
    for place, (clip, audio, piece_F) in enumerate(watched):
        frames_FD = audio.read()
        logp_FP = head(frames_FD)
        frames += (logp_FP.argmax(-1) == piece_F)[piece_F != PAUSE].float().tolist()
        for of_piece in torch.arange(len(piece_F)).tensor_split(torch.nonzero(piece_F.diff())[:, 0] + 1):
            if piece_F[of_piece[0]] != PAUSE:
                whole.append(float(logp_FP[of_piece].mean(0).argmax() == piece_F[of_piece[0]]))
        for question in phrase_questions(clip, np.random.default_rng(place), 2, n_max=6):
            found = head.place(frames_FD, spell(str(question.phrase)))
            span = found and Span(found.first * seconds_per_frame, found.stop * seconds_per_frame)
            ious.append(span.iou(question.evidence[0]) if span else 0.0)
    head.train()
    well = [float(high_overlap(iou)) for iou in ious]
    named = {"frames": frames, "pieces": whole, "iou": ious, "high_overlap": well}
    return {name: sum(values) / len(values) for name, values in named.items() if values}

"""A head over an encoder's frames that hears pieces of words: a phrase is placed without any language model.

Each frame by itself goes through two layers to a log-probability for every piece of a small vocabulary and for a pause.
Viterbi then finds the stretch of frames that reads most like the phrase's pieces. It is the baseline that a model which
answers in words has to be held against: what the same frozen encoder tells whoever only matches patterns.

F frames, D an encoder's width, P pieces, S states: a phrase's pieces in order, with a pause before every further word.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn

from tgsr.disk.whole import write_whole
from tgsr.errors import ModelError
from tgsr.timeline import Span, Word

FRAMES_FILE = "frames.json"
WEIGHTS_FILE = "frames.safetensors"
START = "\u2581"  # of a word, in its first piece
PAUSE = 0  # the piece of a frame in which nobody speaks
WIDTH = 256  # of the second layer
LEAST, MOST = -4.0, 6.0  # a frame's say: how much likelier than usual it makes a piece, as logarithm
ENTRY = 1.0  # taken from it: only frames that make their piece likelier lengthen a stretch


class Place(NamedTuple):
    """A stretch of frames, first to before stop, and how well it reads, higher is better."""

    first: int
    stop: int
    score: float


class FrameHead(nn.Module):
    """Frames -> log-probabilities of pieces, F x D -> F x P; `log_prior_P` is how often each piece was heard."""

    log_prior_P: Tensor

    def __init__(self, pieces: Tokenizer, n_in: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.pieces = pieces
        n_pieces = pieces.get_vocab_size()
        self.layers = nn.Sequential(
            nn.Linear(n_in, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, WIDTH),
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, n_pieces),
        )
        self.register_buffer("log_prior_P", torch.full((n_pieces,), -float(np.log(n_pieces))))

    def forward(self, frames_FD: Tensor) -> Tensor:
        return self.layers(frames_FD).log_softmax(-1)

    def spelled(self, word: str) -> list[int]:
        """The pieces of one plain word; letters that no training word had are left out, and words without others."""
        encoded = self.pieces.encode(word, add_special_tokens=False)
        return list(encoded.ids) if any(piece.strip(START) for piece in encoded.tokens) else []

    @torch.no_grad()
    def place(self, frames_FD: Tensor, words: Iterable[str]) -> Place | None:
        """Where these plain words are said one after the other; None where they have no piece, or too few frames."""
        spelled = [pieces for word in words if (pieces := self.spelled(word))]
        return place((self(frames_FD) - self.log_prior_P).numpy(), spelled)


def place(likelier_FP: NDArray[np.float32], words: Sequence[Sequence[int]]) -> Place | None:
    """The stretch of frames in which the words' pieces follow each other most likely.

    `likelier_FP` is log p(piece | frame) - log p(piece). Each piece lasts a frame or more; between two words there may
    be a pause. A stretch's score is the sum over its frames of that number, held between LEAST and MOST so that no
    single frame decides, less ENTRY; a frame of a pause adds 0 at most: silence says nothing for a place. Of equal
    stretches the first. Source: Viterbi in log space, with a free start and a free end, as keyword spotting has it.
    """
    states = [state for word in words for state in (PAUSE, *word)][1:]
    is_pause_S = np.array([state == PAUSE for state in states], bool)
    if not states or len(likelier_FP) < (~is_pause_S).sum():
        return None
    said_FS = likelier_FP[:, states].clip(LEAST, MOST) - ENTRY
    said_FS[:, is_pause_S] = said_FS[:, is_pause_S].clip(max=0.0)
    best_S, first_S = np.full(len(states), -np.inf), np.zeros(len(states), int)
    over_pause_S = np.flatnonzero(
        np.roll(is_pause_S, 1)
    )  # states that may be entered past the pause before them
    found: Place | None = None
    for frame, said_S in enumerate(said_FS):
        came_S, from_S = np.roll(best_S, 1), np.roll(first_S, 1)
        came_S[0], from_S[0] = 0.0, frame
        past = over_pause_S[best_S[over_pause_S - 2] > came_S[over_pause_S]]
        came_S[past], from_S[past] = best_S[past - 2], first_S[past - 2]
        is_new_S = came_S > best_S
        best_S = np.where(is_new_S, came_S, best_S) + said_S
        first_S = np.where(is_new_S, from_S, first_S)
        if np.isfinite(best_S[-1]) and (found is None or best_S[-1] > found.score):
            found = Place(int(first_S[-1]), frame + 1, float(best_S[-1]))
    return found


def train_pieces(words: Iterable[str], n_pieces: int) -> Tokenizer:
    """Pieces of plain words, learned from them: letters, and what often stands together; the pause is the first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(START)
    trainer = trainers.BpeTrainer(vocab_size=n_pieces, special_tokens=["<pause>"], show_progress=False)
    tokenizer.train_from_iterator(words, trainer)
    return tokenizer


def piece_spans(word: Word, text: str, pieces: Tokenizer) -> list[tuple[int, Span]]:
    """When each piece of a word is said, taken to last as its letters' share of it; `text` is what is said for it, in
    lower case: "nineteen eighty" for 1980.
    """
    encoded = pieces.encode(text, add_special_tokens=False)
    letters = [max(1, len(piece.strip(START))) for piece in encoded.tokens]
    edges = word.start + (word.end - word.start) * np.cumsum([0, *letters]) / max(1, sum(letters))
    return [
        (number, Span(float(start), float(end)))
        for number, start, end in zip(encoded.ids, edges, edges[1:], strict=False)
        if end > start
    ]


@dataclass(frozen=True, slots=True)
class HeardBy:
    """Whose frames a head was trained on: the model's name, and the hash of its encoder."""

    model: str
    encoder: str


def save_frame_head(head: FrameHead, heard_by: HeardBy, folder: Path) -> None:
    """Weights as safetensors; the pieces and whose frames they are as JSON."""
    weights = {name: weight.detach().contiguous() for name, weight in head.state_dict().items()}
    described = {
        "model": heard_by.model,
        "encoder": heard_by.encoder,
        "pieces": json.loads(head.pieces.to_str()),
    }
    write_whole(folder / WEIGHTS_FILE, save(weights))
    write_whole(folder / FRAMES_FILE, json.dumps(described, indent=1) + "\n")


def load_frame_head(folder: Path) -> tuple[FrameHead, HeardBy]:
    """What `save_frame_head` wrote. ModelError where a file is gone or was altered."""
    described = folder / FRAMES_FILE
    try:
        about = json.loads(described.read_text(encoding="utf-8"))
        pieces = Tokenizer.from_str(json.dumps(about["pieces"]))
        heard_by = HeardBy(str(about["model"]), str(about["encoder"]))
        weights = load_file(folder / WEIGHTS_FILE)
        hidden, n_in = weights["layers.0.weight"].shape
        head = FrameHead(pieces, n_in, hidden)
        head.load_state_dict(weights)
    # what tokenizers raises for a damaged file is a bare Exception: a text that json reads is whole
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"{os.fspath(folder)}: is not what `tgsr train frames` writes ({error!r:.200}); train it again"
        ) from error
    return head.eval(), heard_by

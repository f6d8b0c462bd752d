"""The miniature's base model: a decoder and an aligner that hear and talk but cannot tell the time.

Two steps. First the aligner alone learns to hear: which digit, which voice, frame by frame. Then aligner
and decoder learn together from lessons. A share of the clips carries a time code: sinusoids of the frame's
time through one linear layer, added to the audio embeddings. Times in those clips' lessons are true; in
the others' they are bad. The code is a scaffold and is thrown away at the end: what ships reads times
where an aligner writes them, and has an aligner that does not. Writing them is what stage 1 trains.

Axes: F frames, K places in a word history.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tgsr.corpora.spoken_digits import DIGITS, speakers_in_order
from tgsr.records import Clip

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

"""Who speaks in one channel, guessed from the voices: stretches that sound alike are one speaker's.

N windows of speech, K voices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np

from tgsr.audio import SAMPLE_RATE, Samples
from tgsr.data.corpora.multispeaker import SPEAKER
from tgsr.data.transcribe.parts import Part
from tgsr.data.transcribe.speech import FRAME, is_speech, runs, speech_probability
from tgsr.models.voice_embedding import LOUDNESS, WINDOW, VoiceEmbedding
from tgsr.timeline import Event, Seconds

STEP: Seconds = 0.4  # from window to window
MOST_WINDOWS = 1200  # that the voices are found in; all others are held against these voices
MOST_VOICES = 8  # that are told apart without being told how many
DIFFERENT = 0.8  # two voices' cosine, from which on they are one; see docs/data.md for what that does
TICK: Seconds = 0.1  # at which it is decided who speaks
TURN = 0.4  # what another speaker costs, in cosines a tick; a quarter of it where nobody speaks
JOIN: Seconds = 0.5  # a pause in a turn

Embed = Callable[[Samples, Sequence[Seconds]], np.ndarray]
"""16 kHz mono and where windows of WINDOW begin -> a vector of length 1 for each."""


def voice_turns(
    sound: Iterable[Part], n_voices: int | None = None, embed: Embed | None = None
) -> tuple[Event, ...]:
    """Turns "speaker VOICE1", ... of a recording that comes in parts, in order; () where nobody speaks.

    `n_voices` is how many speak, None where nobody knows: then as many as differ, at most MOST_VOICES. Voices are
    numbered as they are first heard. Two who speak at once are one of them. `embed` is VoiceEmbedding where it is not
    given.
    """
    embed = embed or packaged()
    probabilities, vectors, middles = [], [], []
    n_frames = 0
    for part in sound:
        probability = speech_probability(part.samples)
        # The frames of all parts on one clock; a part ends in a pause, so that half a frame there does not matter.
        first = round(part.start / FRAME)
        probabilities.append(probability[max(0, n_frames - first) :])
        n_frames = first + len(probability)
        starts = window_starts(is_speech(probability))
        if len(starts):
            vectors.append(embed(as_loud_as_speech(part.samples, is_speech(probability)), starts))
            middles += [part.start + start + WINDOW / 2 for start in starts]
    if not vectors:
        return ()
    probability = np.concatenate(probabilities)
    vectors_NW = np.concatenate(vectors)
    n = len(vectors_NW)
    few = vectors_NW[np.linspace(0, n - 1, min(n, MOST_WINDOWS)).round().astype(int)]
    voices_KW = voices_of(few, n_voices)
    ticks = np.arange(0.0, len(probability) * FRAME, TICK)
    alike_TK = np.stack([np.interp(ticks, middles, alike) for alike in voices_KW @ vectors_NW.T], axis=1)
    is_pause = probability[(ticks / FRAME).astype(int)] < 0.5
    path = likeliest(alike_TK, np.where(is_pause, TURN / 4, TURN))
    said = is_speech(probability)
    tick_of_frame = np.minimum((np.arange(len(said)) * FRAME / TICK).astype(int), len(path) - 1)
    return _named(np.where(said, path[tick_of_frame], -1))


def window_starts(speech: np.ndarray) -> list[Seconds]:
    """Where windows begin that are speech at least for half of their time; the fullest one where none is."""
    n = round(WINDOW / FRAME)
    share = np.convolve(speech, np.ones(n) / n)[n - 1 :]  # of the window from each frame on
    at = np.arange(0.0, max(1, len(speech) - n // 2) * FRAME, STEP)
    shares = share[np.round(at / FRAME).astype(int)] if len(share) else share
    full = [float(start) for start, of in zip(at, shares, strict=False) if of >= 0.5]
    return full or ([float(share.argmax() * FRAME)] if speech.any() else [])


def as_loud_as_speech(samples: Samples, speech: np.ndarray) -> Samples:
    spoken = samples[np.repeat(speech, round(FRAME * SAMPLE_RATE))[: len(samples)]]
    level = float(np.sqrt(np.square(spoken, dtype=np.float64).mean()))
    return samples * np.float32(LOUDNESS / max(level, 1e-9))


def voices_of(vectors_NW: np.ndarray, n_voices: int | None = None) -> np.ndarray:
    """(K, W): the mean vector of each voice. K is `n_voices`, or the largest at which all differ; never above N.

    Spectral clustering (Ng, Jordan and Weiss 2002) of the cosines: average linkage confused voices of one accent three
    times as often.
    """
    cosines_NN = np.clip(vectors_NW @ vectors_NW.T, 0.0, 1.0)
    np.fill_diagonal(cosines_NN, 0.0)
    degree_N = np.maximum(cosines_NN.sum(1), 1e-9)
    _, axes_NN = np.linalg.eigh(cosines_NN / np.sqrt(degree_N[:, None] * degree_N[None]))
    best = _centres(vectors_NW, np.zeros(len(vectors_NW), int))
    for k in range(2, min(n_voices or MOST_VOICES, len(vectors_NW)) + 1):
        if n_voices and k < n_voices:
            continue
        voices_KW = _centres(vectors_NW, clusters(_normed(axes_NN[:, -k:]), k))
        if n_voices or np.triu(voices_KW @ voices_KW.T, 1).max() < DIFFERENT:
            best = voices_KW
    return best


def _centres(vectors_NW: np.ndarray, of_N: np.ndarray) -> np.ndarray:
    return _normed(np.stack([vectors_NW[of_N == k].mean(0) for k in np.unique(of_N)]))


def _normed(rows_NW: np.ndarray) -> np.ndarray:
    return np.asarray(rows_NW / np.maximum(np.linalg.norm(rows_NW, axis=1, keepdims=True), 1e-9))


def clusters(points_ND: np.ndarray, k: int) -> np.ndarray:
    """(N,): which of k clusters each point is in, by k-means from points that lie far apart; no draw is made."""
    centres = [points_ND[0]]
    for _ in range(k - 1):
        far = np.min([np.square(points_ND - centre).sum(1) for centre in centres], axis=0)
        centres.append(points_ND[far.argmax()])
    of_N = np.full(len(points_ND), -1)
    while True:
        before, of_N = of_N, np.stack([np.square(points_ND - centre).sum(1) for centre in centres]).argmin(0)
        if (before == of_N).all():
            return of_N
        centres = [points_ND[of_N == n].mean(0) if (of_N == n).any() else centres[n] for n in range(k)]


def likeliest(scores_TK: np.ndarray, cost_T: np.ndarray) -> np.ndarray:
    """(T,): the path of the largest sum of scores less `cost_T` at each change (Viterbi)."""
    total_K = scores_TK[0]
    came_TK = np.tile(np.arange(scores_TK.shape[1]), (len(scores_TK), 1))
    for t in range(1, len(scores_TK)):
        best = int(total_K.argmax())
        changed = total_K[best] - cost_T[t]
        came_TK[t, total_K < changed] = best
        total_K = np.maximum(total_K, changed) + scores_TK[t]
    path = [int(total_K.argmax())]
    for t in range(len(scores_TK) - 1, 0, -1):
        path.append(int(came_TK[t, path[-1]]))
    return np.array(path[::-1])


def _named(who: np.ndarray) -> tuple[Event, ...]:
    """The turns of frames that say which voice is heard, -1 none; a pause of up to JOIN is part of a turn."""
    turns: list[tuple[int, Seconds, Seconds]] = []
    order: dict[int, int] = {}
    stretches = sorted((*run, voice) for voice in set(who.tolist()) - {-1} for run in runs(who == voice))
    for first, stop, voice in stretches:
        start, end = round(first * FRAME, 3), round(stop * FRAME, 3)
        number = order.setdefault(voice, len(order) + 1)
        if turns and turns[-1][0] == number and start - turns[-1][2] <= JOIN:
            turns[-1] = (number, turns[-1][1], end)
        else:
            turns.append((number, start, end))
    return tuple(Event(f"{SPEAKER}VOICE{number}", start, end) for number, start, end in turns)


@cache
def packaged() -> VoiceEmbedding:
    """The packaged model, loaded once; FetchError where it cannot be had."""
    return VoiceEmbedding.load()

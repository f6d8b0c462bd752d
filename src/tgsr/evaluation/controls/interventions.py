"""What is done to a clip's sound to see what an answer rests on, and where its places are afterwards.

Pure functions on 16 kHz mono samples (`tgsr.audio.Samples`) and on spans in seconds. Cuts fade over RAMP with half a
cosine, outside what is cut out or kept, so that no click marks a place and no sample inside a span is touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from tgsr.audio import SAMPLE_RATE, Samples
from tgsr.timeline import Seconds, Span, merge

RAMP: Seconds = 0.01
N_RAMP = round(RAMP * SAMPLE_RATE)  # 160 samples
RISE = ((1 - np.cos(np.pi * (np.arange(N_RAMP) + 0.5) / N_RAMP)) / 2).astype(np.float32)
FRAME: Seconds = 0.02  # over which the noise floor is measured
FLOOR_SHARE = 10  # % of the frames are quieter than the noise floor
LEAST_FLOOR = 1e-4  # three steps of 16 bits: digital silence gets a floor too
TRIES = 100  # at placing all stretches at random before a clip is said to have no room
SCATTERED: tuple[Seconds, Seconds] = (0.05, 0.5)
NEIGHBOURS = 8  # clips of like length among which sounds are swapped

Fill = Literal["silence", "noise"]
"""What stands where sound was taken away: digital silence, or white noise as loud as the clip's noise floor."""


# --- sound ---------------------------------------------------------------------------------------------


def noise_floor(samples: Samples) -> float:
    """The RMS that a tenth of the clip's 20-ms frames stay below, at least LEAST_FLOOR.

    A clip shorter than a frame has the RMS of all its samples; no samples have LEAST_FLOOR.
    """
    n_frame = round(FRAME * SAMPLE_RATE)
    n_frames = len(samples) // n_frame
    if n_frames == 0:
        frames = samples.reshape(1, -1) if len(samples) else np.zeros((1, 1), np.float32)
    else:
        frames = samples[: n_frames * n_frame].reshape(n_frames, n_frame)
    rms = np.sqrt((frames.astype(np.float64) ** 2).mean(axis=1))
    return max(LEAST_FLOOR, float(np.percentile(rms, FLOOR_SHARE)))


def filling(samples: Samples, n_samples: int, fill: Fill, rng: np.random.Generator) -> Samples:
    """n_samples of what replaces this clip's sound; white noise has the clip's own floor and is cut to [-1, 1]."""
    if fill == "silence":
        return np.zeros(n_samples, np.float32)
    noise = rng.standard_normal(n_samples, dtype=np.float32) * np.float32(noise_floor(samples))
    return np.clip(noise, -1.0, 1.0)


def gain_of(spans: Iterable[Span], n_samples: int) -> Samples:
    """1 inside the spans, 0 further than RAMP from them, half a cosine between; in [0, 1], n_samples of it.

    Spans, or parts of them, past the last sample are left out.
    """
    gain = np.zeros(n_samples, np.float32)
    for span in spans:
        first, last = (min(n_samples, round(time * SAMPLE_RATE)) for time in (span.start, span.end))
        if first == last:
            continue
        gain[first:last] = 1.0
        before, after = gain[max(0, first - N_RAMP) : first], gain[last : last + N_RAMP]
        np.maximum(before, RISE[N_RAMP - len(before) :], out=before)
        np.maximum(after, RISE[::-1][: len(after)], out=after)
    return gain


def silenced(samples: Samples, fill: Fill, rng: np.random.Generator) -> Samples:
    """Nothing of the clip, for as long as it lasts."""
    return filling(samples, len(samples), fill, rng)


def kept(samples: Samples, spans: Sequence[Span], fill: Fill, rng: np.random.Generator) -> Samples:
    """Only the spans' sound, each in its place."""
    return _mixed(samples, gain_of(spans, len(samples)), fill, rng)


def removed(samples: Samples, spans: Sequence[Span], fill: Fill, rng: np.random.Generator) -> Samples:
    """All but the spans' sound, each in its place."""
    return _mixed(samples, 1 - gain_of(spans, len(samples)), fill, rng)


def cropped(samples: Samples, spans: Sequence[Span]) -> Samples:
    """Only the spans' sound, one piece after the other in order of time, each with its fades; places are lost.

    ValueError where the spans hold no sample.
    """
    faded = kept(samples, spans, "silence", np.random.default_rng(0))
    cuts = [(round(piece.start * SAMPLE_RATE), round(piece.end * SAMPLE_RATE)) for piece in pieces(spans)]
    parts = [faded[first:last] for first, last in cuts if first < min(last, len(faded))]
    if not parts:
        raise ValueError(f"nothing to keep: no sample of {len(samples)} lies in {list(spans)}")
    return np.concatenate(parts)


def shifted(samples: Samples, delta: Seconds, fill: Fill, rng: np.random.Generator) -> Samples:
    """The clip after `delta` seconds of filling, faded in; it lasts longer by that. ValueError for delta < 0."""
    if delta < 0:
        raise ValueError(f"a shift needs delta >= 0 s, got {delta}")
    n_before = round(delta * SAMPLE_RATE)
    if n_before == 0:
        return samples.copy()
    fade_in = np.ones(len(samples), np.float32)
    fade_in[:N_RAMP] = RISE[: len(samples)]
    gain = np.concatenate([np.zeros(n_before, np.float32), fade_in])
    whole = np.concatenate([np.zeros(n_before, np.float32), samples])
    return whole * gain + filling(samples, len(whole), fill, rng) * (1 - gain)


def rolled(samples: Samples, delta: Seconds) -> Samples:
    """The clip's last `delta` seconds, then the rest: as long as before, with fades at the seam.

    `delta` is taken modulo the clip's length.
    """
    n_samples = len(samples)
    n_first = round(delta * SAMPLE_RATE) % n_samples if n_samples else 0
    if n_first == 0:
        return samples.copy()
    turned = np.roll(samples, n_first)
    before, after = turned[max(0, n_first - N_RAMP) : n_first], turned[n_first : n_first + N_RAMP]
    before *= RISE[::-1][N_RAMP - len(before) :]
    after *= RISE[: len(after)]
    return turned


def noisy(samples: Samples, snr: float, rng: np.random.Generator) -> Samples:
    """The clip with white noise at `snr` dB below its own power; made quieter as a whole where it would be clipped.

    A clip without sound is as it was: no noise is any number of decibels below nothing.
    """
    noise = rng.standard_normal(len(samples)) * math.sqrt(_power(samples) / 10 ** (snr / 10))
    return _unclipped(samples + noise)


def spoken_over(samples: Samples, speech: Samples, start: Seconds) -> Samples:
    """The clip with the speech over it from `start`, no louder than the clip (RMS); what lasts longer is cut off."""
    rms, theirs = (math.sqrt(_power(sound)) for sound in (samples, speech))
    first = round(start * SAMPLE_RATE)
    over = speech[: max(0, len(samples) - first)] * min(1.0, rms / theirs if theirs else 1.0)
    mixed = samples.astype(np.float64)
    mixed[first : first + len(over)] += over
    return _unclipped(mixed)


def _power(samples: Samples) -> float:
    return float((samples.astype(np.float64) ** 2).mean()) if len(samples) else 0.0


def _unclipped(samples: np.ndarray) -> Samples:
    peak = float(np.abs(samples).max()) if len(samples) else 0.0
    return (samples / max(1.0, peak)).astype(np.float32)


def backwards(samples: Samples) -> Samples:
    """The clip from its end to its beginning; a copy."""
    return samples[::-1].copy()


def _mixed(samples: Samples, gain: Samples, fill: Fill, rng: np.random.Generator) -> Samples:
    return samples * gain + filling(samples, len(samples), fill, rng) * (1 - gain)


# --- places --------------------------------------------------------------------------------------------


def pieces(spans: Sequence[Span]) -> list[Span]:
    """What `cropped` cuts out: the spans with their fades, disjoint, in order of time."""
    return merge(Span(max(0.0, span.start - RAMP), span.end + RAMP) for span in spans)


def cropped_spans(places: Sequence[Span], spans: Sequence[Span]) -> tuple[Span, ...]:
    """Where those parts of `places` that `cropped` keeps are afterwards; what is cut off is left out."""
    found: list[Span] = []
    offset = 0.0
    for piece in pieces(spans):
        for place in places:
            if place.overlap(piece) > 0:
                start, end = max(place.start, piece.start), min(place.end, piece.end)
                found.append(Span(start - piece.start + offset, end - piece.start + offset))
        offset += piece.duration
    return tuple(merge(found))


def shifted_spans(places: Sequence[Span], delta: Seconds) -> tuple[Span, ...]:
    """Where `shifted` moves them."""
    return tuple(Span(place.start + delta, place.end + delta) for place in places)


def rolled_spans(places: Sequence[Span], delta: Seconds, duration: Seconds) -> tuple[Span, ...]:
    """Where `rolled` moves them; one that lies across the seam comes out as its two parts."""
    found: list[Span] = []
    for place in places:
        start, end = (place.start + delta) % duration, min(place.end, duration) + delta
        length = end - place.start - delta
        if length <= 0:
            continue
        if start + length <= duration:
            found.append(Span(start, start + length))
        else:
            found += [Span(start, duration), Span(0.0, start + length - duration)]
    return tuple(found)


def backwards_spans(places: Sequence[Span], duration: Seconds) -> tuple[Span, ...]:
    """Where `backwards` moves them; what lies past the clip's end is left out."""
    inside = [(place.start, min(place.end, duration)) for place in places if place.start < duration]
    return tuple(Span(duration - end, duration - start) for start, end in inside)


def random_stretches(
    spans: Sequence[Span], duration: Seconds, rng: np.random.Generator
) -> tuple[Span, ...] | None:
    """As many stretches as there are spans, of their lengths, anywhere else in the clip; in order of time.

    They keep RAMP from the spans and from each other, so that fades do not meet. The spans must be disjoint.
    None where the clip has no room for them, or none was found in TRIES attempts.
    """
    lengths = sorted((span.duration for span in spans), reverse=True)
    for _ in range(TRIES):
        placed: list[Span] = []
        for length in lengths:
            starts = _free_starts([*spans, *placed], length, duration)
            if not starts:
                break
            room = np.array([high - low + 1e-9 for low, high in starts])  # an exact fit has no width
            low, high = starts[int(rng.choice(len(starts), p=room / room.sum()))]
            start = float(rng.uniform(low, high))
            placed.append(Span(start, min(duration, start + length)))
        if len(placed) == len(lengths):
            return tuple(sorted(placed))
    return None


def scattered(duration: Seconds, share: float, rng: np.random.Generator) -> tuple[Span, ...]:
    """Stretches of SCATTERED seconds each anywhere in a clip, `share` per cent of it together, in order of time.

    Lengths are drawn until they are enough, the last one shorter, and so are the gaps. Source: the masks of arXiv
    2509.22363's authors (lovenya/Measuring-Faithfulness-of-CoT-Reasoning-LALMs, 1 March 2026).
    """
    left, lengths = duration * share / 100, []
    while left > 1e-9:
        lengths.append(min(left, float(rng.uniform(*SCATTERED))))
        left -= lengths[-1]
    gaps = np.sort(rng.uniform(0, max(0.0, duration - sum(lengths)), size=len(lengths)))
    starts = gaps + np.concatenate([[0.0], np.cumsum(lengths)[:-1]]) if lengths else []
    return tuple(Span(float(s), min(duration, float(s) + n)) for s, n in zip(starts, lengths, strict=True))


def _free_starts(taken: Sequence[Span], length: Seconds, duration: Seconds) -> list[tuple[Seconds, Seconds]]:
    """The ranges of times at which a stretch of that length can begin."""
    found: list[tuple[Seconds, Seconds]] = []
    low = 0.0
    for span in sorted(taken):
        if (high := span.start - RAMP - length) >= low:
            found.append((low, high))
        low = max(low, span.end + RAMP)
    if duration - length >= low:
        found.append((low, duration - length))
    return found


def derangement(durations: Mapping[str, Seconds], rng: np.random.Generator) -> dict[str, str]:
    """Another clip for each clip, each used once, among NEIGHBOURS clips of like length.

    {} for fewer than two clips: then there is no other one.
    """
    names = sorted(durations, key=lambda name: (durations[name], name))
    if len(names) < 2:
        return {}
    firsts = list(range(0, len(names), NEIGHBOURS))
    if len(names) - firsts[-1] < 2:
        firsts.pop()  # one that would be alone joins the block before
    others: dict[str, str] = {}
    for index, first in enumerate(firsts):
        last = firsts[index + 1] if index + 1 < len(firsts) else len(names)
        block = [names[first + i] for i in rng.permutation(last - first)]
        others |= dict(zip(block, [*block[1:], block[0]], strict=True))  # one cycle: nobody gets his own
    return others

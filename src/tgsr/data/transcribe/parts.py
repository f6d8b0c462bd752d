"""Sound of any length in parts, in flat memory: what is heard of one is kept before the next is read."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from tgsr.audio import SAMPLE_RATE, Samples, content_hash
from tgsr.data.transcribe.speech import FRAME, runs, speech_probability
from tgsr.data.transcribe.transcript import Backend, Transcript
from tgsr.data.transcribe.windows import MAYBE
from tgsr.disk.whole import write_whole
from tgsr.errors import RecordError
from tgsr.records import NO_SPEECH, Clip, as_row, clip_of
from tgsr.timeline import Hole, Seconds, Word

T = TypeVar("T", Word, Hole)

PART: Seconds = 900.0  # of sound that is heard as one; what lasts longer is cut
LOOK: Seconds = 60.0  # at the end of a part, for the longest pause to cut it in


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a recording: when it begins, and its 16 kHz samples."""

    start: Seconds
    samples: Samples

    @property
    def end(self) -> Seconds:
        return self.start + len(self.samples) / SAMPLE_RATE


def parts(pieces: Iterable[Samples], longest: Seconds = PART, look: Seconds = LOOK) -> Iterator[Part]:
    """The sound, as `audio.stream` gives it, in parts of up to `longest` seconds, one after the other without a gap.

    Each but the last ends in the longest pause of its last `look` seconds, or where speech is least likely; so that no
    word is cut, as far as anyone pauses. The same sound is always cut at the same places.
    """
    n_most, n_look = round(longest * SAMPLE_RATE), round(look * SAMPLE_RATE)
    waiting: list[Samples] = []
    n_waiting = first = 0
    for piece in pieces:
        waiting.append(piece)
        n_waiting += len(piece)
        while n_waiting > n_most:
            sound = np.concatenate(waiting)
            n = n_most - n_look + _pause(sound[n_most - n_look : n_most])
            yield Part(first / SAMPLE_RATE, sound[:n].copy())
            first, waiting, n_waiting = first + n, [sound[n:].copy()], n_waiting - n
    if n_waiting:
        yield Part(first / SAMPLE_RATE, np.concatenate(waiting))


def _pause(samples: Samples) -> int:
    """Which sample is in the middle of the longest pause."""
    probability = speech_probability(samples)
    least = int(probability.argmin())
    first, stop = max(runs(probability < MAYBE), key=lambda run: run[1] - run[0], default=(least, least))
    return max(1, min(len(samples), round((first + stop) / 2 * FRAME * SAMPLE_RATE)))


def hear_in_parts(
    sound: Iterable[Part], backend: Backend, kept: Path, key: str, seconds: Seconds = 0.0, name: str = ""
) -> Transcript:
    """What `backend` hears in all parts, on the recording's clock.

    What was heard of a part is a file in `kept`, named by `key` (whatever the back end's answer depends on) and the
    part's content: a run that was stopped goes on after the last part that was heard. A damaged one is heard again.
    `seconds` and `name` are the bar's. The language is the one that most words were heard in. No part gives no words.
    """
    heard: list[Transcript] = []
    with tqdm(desc=f"hearing {name}", unit="s", total=round(seconds), leave=False) as bar:
        for part in sound:
            digest = hashlib.sha256(f"{key} {content_hash(part.samples)}".encode()).hexdigest()[:32]
            path = kept / f"{digest}.json"
            transcript = _kept(path)
            if transcript is None:
                (transcript,) = backend.many([part.samples])
                write_whole(path, json.dumps(as_row(_as_clip(transcript)), ensure_ascii=False))
            words = tuple(later(word, part.start) for word in transcript.words)
            holes = tuple(later(hole, part.start) for hole in transcript.holes)
            heard.append(replace(transcript, words=words, holes=holes))
            bar.update(round(part.end) - round(part.start))
    words = tuple(word for one in heard for word in one.words)
    spoken = Counter(one.language for one in heard for _ in one.words if one.language)
    flags = dict.fromkeys(flag for one in heard for flag in one.flags if flag != NO_SPEECH or not words)
    holes = tuple(hole for one in heard for hole in one.holes)
    total = sum(one.duration for one in heard)
    language = spoken.most_common(1)[0][0] if spoken else None
    return Transcript(words, total, backend.source, language, tuple(flags), holes)


def later(one: T, seconds: Seconds) -> T:
    """The word or hole so many seconds later, to the millisecond."""
    return replace(one, start=round(one.start + seconds, 3), end=round(one.end + seconds, 3))


def _as_clip(heard: Transcript) -> Clip:
    told: dict[str, Any] = {name: getattr(heard, name) for name in ("source", "language", "flags", "holes")}
    return Clip("part", "part", heard.duration, heard.words, **told)


def _kept(path: Path) -> Transcript | None:
    """What was heard before; None where that is not there, or damaged."""
    try:
        clip = clip_of(json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, RecursionError, RecordError, AttributeError):
        return None
    return Transcript(clip.words, clip.duration, clip.source or "", clip.language, clip.flags, clip.holes)

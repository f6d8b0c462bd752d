"""Which clips are trained on: by speaker, so that no voice is heard in both, and a test that nothing leaked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tgsr.records import CHANNEL, SPEAKERS_GUESSED, Clip

By = Literal["publisher", "speaker", "clip"]


@dataclass(frozen=True, slots=True)
class Split:
    """How clips are divided: as their publisher did, or `share` of the speakers (or clips) are for testing.

    Who is chosen follows from the name alone, however many others there are: a corpus that grows keeps its split.
    """

    by: By = "publisher"
    share: float = 0.05
    seed: int = 0

    def of(self, clip: Clip) -> str:
        """ "train" or "test", or what the publisher says. A clip whose speaker nobody knows is divided as a clip.

        Guessed speakers and channels are nobody's names: VOICE1, or CH1, of two recordings are two people.
        """
        if self.by == "publisher":
            return clip.split
        who = clip.id
        if self.by == "speaker":
            voices = sorted(voices_of(clip))
            # Voices that talk to each other must not be parted; the first one decides, the leak test has the last word.
            who = clip.speaker or (voices[0] if voices else clip.id)
        return "test" if drawn(self.seed, who) / 2**64 < self.share else "train"


def drawn(seed: int, name: str) -> int:
    """A number of 64 bits that follows from the name and the seed alone: what is drawn so does not depend on others."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")


def voices_of(clip: Clip) -> set[str]:
    """Who is known to speak in the clip, by names that mean the same person in another."""
    if SPEAKERS_GUESSED in clip.flags:
        return {clip.speaker} if clip.speaker else set()
    voices = (clip.speaker, *(word.speaker for word in clip.words))
    return {voice for voice in voices if voice and not CHANNEL.fullmatch(voice)}


@dataclass(frozen=True, slots=True)
class Leak:
    """A speaker, clip or recording that is in two splits."""

    what: Literal["speaker", "clip", "recording"]
    name: str
    splits: tuple[str, str]


def leaks(clips: Iterable[Clip], most: int = 100) -> list[Leak]:
    """The first `most` leaks between any two splits, in order of appearance."""
    where: dict[tuple[str, str], str] = {}
    leaked: list[Leak] = []
    for clip in clips:
        voices = sorted(voices_of(clip))
        named = [("clip", clip.id), ("recording", clip.audio), *(("speaker", voice) for voice in voices)]
        for what, name in named:
            before = where.setdefault((what, name), clip.split)
            if before != clip.split and len(leaked) < most:
                leaked.append(Leak(what, name, (before, clip.split)))  # type: ignore[arg-type]
    return leaked

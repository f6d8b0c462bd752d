"""Phrases that are not said: another clip's, and a clip's own with one word changed. The right answer is no.

A clip whose transcript may lack something (a hole without words, two languages, no words at all) is asked about none:
what is not written down may still be said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tgsr.data.questions.draft import question_about
from tgsr.data.questions.phrases import Said, in_time, sounds, swapped
from tgsr.data.splits import drawn
from tgsr.reasoning import common_subsequence
from tgsr.records import ABSENT, Clip, Question

Kind = Literal["another clip's", "one word changed"]
MOST_POOLED = 20_000  # phrases of other clips that are held to draw from
MOST_DRAWS = 20  # for one phrase, before none is made


@dataclass(frozen=True, slots=True)
class Pool:
    """Phrases that are said in some clip, each with its clip's id and split, to be asked of others."""

    phrases: tuple[tuple[str, str, str], ...]

    @classmethod
    def of(cls, questions: Iterable[Question], seed: int) -> Pool:
        """Of many phrases MOST_POOLED, each as likely as another, whatever their number (reservoir sampling)."""
        rng = np.random.default_rng((seed, 1))
        kept: list[tuple[str, str, str]] = []
        for number, question in enumerate(q for q in questions if q.phrase and q.evidence):
            one = (str(question.phrase), question.clip_id, question.split)
            if number < MOST_POOLED:
                kept.append(one)
            elif (place := int(rng.integers(number + 1))) < MOST_POOLED:
                kept[place] = one
        return cls(tuple(kept))

    def of_split(self, split: str) -> tuple[tuple[str, str, str], ...]:
        """Those of one split: a test's phrases must not be met in training."""
        return tuple(one for one in self.phrases if one[2] == split)


def absent_phrases(
    clip: Clip, asked: Sequence[Question], pool: Sequence[tuple[str, str, str]], share: float, seed: int
) -> list[Question]:
    """Questions for phrases that are surely not said in the clip, labelled ABSENT with their kind.

    As many as make up `share`, in [0, 1), of all that is asked about the clip; a fraction of one is made as often as it
    says. Both kinds in turn; fewer where nothing that is drawn is surely absent. `pool` as `Pool.of_split` gives it.
    """
    words, holes = in_time(clip)
    if not words or any(not hole.text for hole in holes):
        return []
    rng = np.random.default_rng(drawn(seed, f"absent {clip.id}"))
    n = int(len(asked) * share / (1 - share) + rng.random())
    said = Said(words, holes)
    made: dict[str, Kind] = {}
    draws = _draws(clip, asked, pool, rng)
    for phrase, kind in (next(draws) for _ in range(MOST_DRAWS * n)):
        if len(made) == n:
            break
        if phrase is not None and _is_surely_absent(phrase, said, kind):
            made.setdefault(phrase, kind)
    return [
        question_about(
            clip, f"absent{number}", (), kind="phrase", question=phrase, phrase=phrase, task="phrase that is not said",
            labels=((ABSENT, kind),),
        )
        for number, (phrase, kind) in enumerate(made.items())
    ]  # fmt: skip


def _draws(
    clip: Clip, asked: Sequence[Question], pool: Sequence[tuple[str, str, str]], rng: np.random.Generator
) -> Iterator[tuple[str | None, Kind]]:
    """Phrases of both kinds in turn, without end; None where none could be drawn."""
    while True:
        phrase, of_clip, _ = pool[int(rng.integers(len(pool)))] if pool else ("", clip.id, "")
        yield None if of_clip == clip.id else phrase, "another clip's"
        own = str(asked[int(rng.integers(len(asked)))].phrase).split()
        place = int(rng.integers(len(own)))
        others = phrase.split() or own
        changed = swapped(own[place], others[int(rng.integers(len(others)))])
        yield changed and " ".join([*own[:place], changed, *own[place + 1 :]]), "one word changed"


def _is_surely_absent(phrase: str, said: Said, kind: Kind) -> bool:
    """Not said as it is; and of another clip's phrase not even half of the words in order, so that no slip of the
    transcript can hide it.
    """
    heard = tuple(sounds([phrase]))
    if not heard or said.count_sounds(heard):
        return False
    return kind == "one word changed" or 2 * common_subsequence(heard, said.sounds) < len(heard)

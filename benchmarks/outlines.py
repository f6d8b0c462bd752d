"""Where one topic ends and the next begins: the borders of `tgsr outline` in recordings whose borders are known.

    python benchmarks/outlines.py [--seeds 20] [--folder benchmarks/asked]

Joined are clips of benchmarks/asked, as the words that are kept of them (CREDITS.md there): `readings` are its six
recordings as they are, twelve clips of different books each; `mixed` ones have two such clips by turns with three to
seven consecutive clips of one lecture, twelve topics of 10 to 55 s. Every method is told the number of stretches. Pk
(Beeferman et al. 1999) and WindowDiff (Pevzner and Hearst 2002) are over words, with a window of half the mean topic:
shares of windows that are judged wrongly, 0 is best. `found` is the share of borders with one of the method's within
three words. Intervals are bootstraps over recordings. No method sees pauses.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from asking import FOLDER

from tgsr.answering.cascade import packaged_embeddings
from tgsr.answering.outline import Sentences, stretches
from tgsr.answering.passages import Passages
from tgsr.cli import script
from tgsr.statistics.intervals import bootstrap_mean
from tgsr.timeline import Seconds, Word

PAUSE: Seconds = 0.5  # between clips, as between an ordinary speaker's sentences
NEAR = 3  # words

Said = list[tuple[str, float, float]]
Borders = list[int]  # the first word of each topic but the first


class Clip(msgspec.Struct, frozen=True):
    """A clip, and where it begins in its recording."""

    id: str
    start: Seconds


class Recording(msgspec.Struct, frozen=True):
    """A recording of clips, with the words that are kept of it."""

    audio: str
    kind: str
    clips: list[Clip]
    words: Said

    def said(self) -> list[Said]:
        """Each clip's words; a word belongs where it begins, give or take what times are off by."""
        starts = [clip.start - 0.3 for clip in self.clips]
        owners = np.searchsorted(starts, [start for _, start, _ in self.words], side="right") - 1
        return [
            [word for word, owner in zip(self.words, owners, strict=True) if owner == n]
            for n in range(len(starts))
        ]


def joined(clips: Sequence[Said]) -> Said:
    """Their words one after another."""
    words: Said = []
    for clip in clips:
        shift = (words[-1][2] + PAUSE if words else 0.0) - clip[0][1]
        words += [(text, start + shift, end + shift) for text, start, end in clip]
    return words


@dataclass(frozen=True, slots=True)
class Joined:
    """A recording of several topics, as passages, and where each but the first begins."""

    kind: str
    passages: Passages
    borders: Borders

    @classmethod
    def of(cls, kind: str, topics: Sequence[Said]) -> Joined:
        words = [Word(text, round(start, 2), round(end, 2)) for text, start, end in joined(topics)]
        borders = np.cumsum([len(topic) for topic in topics])[:-1]
        return cls(kind, Passages.of(words, packaged_embeddings()), borders.tolist())

    @property
    def n_words(self) -> int:
        return sum(len(line.words) for line in self.passages.lines)


def recordings_of(folder: Path, n_seeds: int) -> list[Joined]:
    kept = (folder / "recordings.jsonl").read_bytes().splitlines()
    recordings = [msgspec.json.decode(line, type=Recording) for line in kept]
    readings = [recording.said() for recording in recordings if recording.kind == "readings"]
    lecture = [clip for recording in recordings if recording.kind == "lecture" for clip in recording.said()]
    made = [Joined.of("readings", topics) for topics in readings]
    for seed in range(n_seeds):
        draw = random.Random(seed)
        clips = draw.sample([clip for topics in readings for clip in topics], 8)
        topics = []
        for n in range(4):
            length = draw.randint(3, 7)
            first = draw.randrange(len(lecture) - length)
            topics += [clips[2 * n], clips[2 * n + 1], joined(lecture[first : first + length])]
        made.append(Joined.of("mixed", topics))
    return made


# --- methods ---------------------------------------------------------------------------------------------

Method = Callable[[Passages, int], Borders]


def ours(passages: Passages, n: int) -> Borders:
    told = Sentences.of(passages)
    starts = stretches(told.vectors_SW, told.sizes_S, n)
    return [int(told.sizes_S[:start].sum()) for start in starts[1:]]


def depth_scores(window: int) -> Method:
    """TextTiling (Hearst 1997) on the same vectors: the n - 1 deepest valleys, `window` sentences on each side."""

    def borders(passages: Passages, n: int) -> Borders:
        told = Sentences.of(passages)
        vectors_SW = told.vectors_SW
        near = []
        for place in range(1, len(told.parts)):
            before = vectors_SW[max(0, place - window) : place].sum(0)
            after = vectors_SW[place : place + window].sum(0)
            near.append(float(before @ after / np.linalg.norm(before) / np.linalg.norm(after)))
        depths = [
            _peak(near[: place + 1][::-1]) + _peak(near[place:]) - 2 * near[place]
            for place in range(len(near))
        ]
        deepest = sorted(np.argsort(-np.array(depths), kind="stable")[: n - 1] + 1)
        return [int(told.sizes_S[:place].sum()) for place in deepest]

    return borders


def _peak(values: Sequence[float]) -> float:
    """The height that is climbed to from the first value before it goes down."""
    top = values[0]
    for value in values[1:]:
        if value < top:
            break
        top = value
    return top


def uniform(passages: Passages, n: int) -> Borders:
    n_words = sum(len(line.words) for line in passages.lines)
    return [round(n_words * place / n) for place in range(1, n)]


def at_random(passages: Passages, n: int) -> Borders:
    """Between sentences, drawn by their number."""
    starts = np.cumsum(Sentences.of(passages).sizes_S)[:-1]
    return sorted(random.Random(len(starts)).sample(starts.tolist(), n - 1))


# --- measures --------------------------------------------------------------------------------------------


def errors(n_words: int, true: Borders, found: Borders) -> tuple[float, float]:
    """Pk and WindowDiff, in [0, 1], over windows of half the mean topic's words."""
    window = max(1, round(n_words / (len(true) + 1) / 2))
    counts = []
    for borders in (true, found):
        marks = np.zeros(n_words, int)
        marks[borders] = 1
        counts.append(np.cumsum(marks))
    true_between, found_between = (count[window:] - count[:-window] for count in counts)
    pk = np.mean((true_between == 0) != (found_between == 0))
    return float(pk), float(np.mean(true_between != found_between))


def share_found(true: Borders, found: Borders) -> float:
    return sum(any(abs(a - b) <= NEAR for b in found) for a in true) / len(true)


METHODS: dict[str, Method] = {
    "`tgsr outline`": ours,
    **{f"depth scores, {window} sentences a side": depth_scores(window) for window in (1, 2, 3)},
    "equal stretches": uniform,
    "random sentences": at_random,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--seeds", type=int, default=20, help="mixed recordings")
    args = parser.parse_args()
    made = recordings_of(args.folder, args.seeds)
    print("| method | recordings | Pk | WindowDiff | found |\n|---|---|---|---|---|")
    started = time.process_time()
    for name, method in METHODS.items():
        for kind in ("readings", "mixed"):
            of = [one for one in made if one.kind == kind]
            rows = [(method(one.passages, len(one.borders) + 1), one) for one in of]
            measured = [
                (*errors(one.n_words, one.borders, found), share_found(one.borders, found))
                for found, one in rows
            ]
            means = [
                bootstrap_mean(list(values), list(map(str, range(len(of)))))
                for values in zip(*measured, strict=True)
            ]
            cells = [f"{mean.value:.2f} [{mean.low:.2f}, {mean.high:.2f}]" for mean in means]
            print(f"| {name} | {kind}, {len(of)} | {' | '.join(cells)} |")
    print(f"{time.process_time() - started:.1f} processor seconds after the embeddings")


if __name__ == "__main__":
    raise SystemExit(script(main))

"""How often `transcribe --speakers voices` errs about who speaks: conversations composed of known voices.

Each is half a minute to a minute of one to four voices in turns of 1 to 8 s, cut in pauses from single recordings, 0.1
to 0.8 s apart, at levels within 3 dB of each other, with noise 25 to 40 dB below. The diarisation error rate is
md-eval's: missed, false and confused speech over all that is said, outside of a collar around the true bounds.

    OMP_NUM_THREADS=1 python benchmarks/voices.py                          # the readers that ship
    OMP_NUM_THREADS=1 python benchmarks/voices.py --clips so762/clips.jsonl    # any clips with words and speakers
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from tgsr import audio
from tgsr.audio import SAMPLE_RATE, Samples
from tgsr.cli import script
from tgsr.data.corpora.multispeaker import SPEAKER
from tgsr.data.corpora.spoken_english import sentences
from tgsr.data.transcribe.parts import Part
from tgsr.data.transcribe.voices import packaged, voice_turns
from tgsr.records import read_clips
from tgsr.timeline import Event, Seconds, Word

STEP = 0.01
PIECE: tuple[Seconds, Seconds] = (1.0, 8.0)
CUT: Seconds = 0.2  # a pause that a piece ends in, once it has 1.5 s
LONGEST: Seconds = 60.0


@dataclass(frozen=True)
class Conversation:
    samples: Samples
    turns: tuple[Event, ...]

    @property
    def n_voices(self) -> int:
        return len({turn.label for turn in self.turns})


def pieces(samples: Samples, words: Sequence[Word]) -> Iterator[Samples]:
    """Stretches between pauses, from word to word."""
    run: list[Word] = []
    for word, after in pairwise([*words, None]):
        assert word is not None
        run.append(word)
        seconds = word.end - run[0].start
        if (
            after
            and not (after.start - word.end >= CUT and seconds >= 1.5)
            and after.end - run[0].start <= PIECE[1]
        ):
            continue
        if seconds >= PIECE[0]:
            yield samples[round(run[0].start * SAMPLE_RATE) : round(word.end * SAMPLE_RATE)]
        run = []


def conversation(voices: Mapping[str, Sequence[Samples]], n_voices: int, seed: int) -> Conversation:
    draw = np.random.default_rng(seed)
    who = [str(name) for name in draw.choice(sorted(voices), n_voices, replace=False)]
    left = {name: [voices[name][n] for n in draw.permutation(len(voices[name]))] for name in who}
    sound, turns, last, now = [], [], "", 0.0
    while now < LONGEST:
        free = [name for name in who if left[name] and (name != last or n_voices == 1)]
        unheard = [name for name in free if all(turn.label != name for turn in turns)]
        if not free:
            break
        last = str(draw.choice(unheard or free))
        piece = left[last].pop()
        piece = piece * (0.05 * 10 ** (draw.uniform(-3, 3) / 20) / np.sqrt(np.square(piece).mean()))
        sound += [np.zeros(round(draw.uniform(0.1, 0.8) * SAMPLE_RATE)), piece]
        start = now + len(sound[-2]) / SAMPLE_RATE
        now = start + len(piece) / SAMPLE_RATE
        turns.append(Event(last, start, now))
    samples = np.concatenate([*sound, np.zeros(SAMPLE_RATE // 2)])
    samples = samples + draw.normal(0, 0.05 * 10 ** (-draw.uniform(25, 40) / 20), len(samples))
    return Conversation(samples.astype(np.float32), tuple(turns))


def errors(true: Sequence[Event], found: Sequence[Event], seconds: Seconds, collar: Seconds) -> np.ndarray:
    """Steps missed, false, confused, and said: of one speaker at a time, the voices matched so that most is right."""
    grids = []
    for turns in (true, found):
        names = sorted({turn.label for turn in turns})
        grid = np.full(round(seconds / STEP), -1)
        for turn in turns:
            grid[round(turn.start / STEP) : round(turn.end / STEP)] = names.index(turn.label)
        grids.append(grid)
    is_scored = np.ones(len(grids[0]), bool)
    for bound in (bound for turn in true for bound in (turn.start, turn.end) if collar):
        is_scored[max(0, round((bound - collar) / STEP)) : round((bound + collar) / STEP)] = False
    said, heard = (grid[is_scored] for grid in grids)
    best = {0: 0}  # by which true voices are taken: steps that are right
    for voice in range(int(heard.max(initial=-1)) + 1):
        for taken, right in list(best.items()):
            for other in range(int(said.max(initial=-1)) + 1):
                both = right + int(((heard == voice) & (said == other)).sum())
                if not taken >> other & 1 and both > best.get(taken | 1 << other, -1):
                    best[taken | 1 << other] = both
    both = int(((said >= 0) & (heard >= 0)).sum())
    n_said, n_heard = int((said >= 0).sum()), int((heard >= 0).sum())
    return np.array([n_said - both, n_heard - both, both - max(best.values()), n_said])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, default=sentences(), help="clips.jsonl with words and speakers")
    parser.add_argument("--conversations", type=int, default=48)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--rttm", type=Path, help="a folder for truth and guess, for other scorers")
    args = parser.parse_args()
    voices: dict[str, list[Samples]] = defaultdict(list)
    for clip in read_clips(args.clips):
        voices[clip.speaker or ""] += pieces(audio.load(args.clips.parent / clip.audio), clip.words)
    print(
        f"{len(voices)} voices, {sum(len(p) for some in voices.values() for p in some) / SAMPLE_RATE:.0f} s"
    )
    print(
        "number    | DER 0.25 | DER 0 | missed | false | confused | count right (of n)  | s of processor a minute"
    )
    for is_known in (True, False):
        totals = {0.0: np.zeros(4), 0.25: np.zeros(4)}
        counts: dict[int, list[int]] = defaultdict(list)
        spent = seconds = 0.0
        for seed in range(args.first, args.first + args.conversations):
            made = conversation(voices, 1 + seed % 4, seed)
            length = len(made.samples) / SAMPLE_RATE
            began = time.process_time()
            found = voice_turns([Part(0.0, made.samples)], made.n_voices if is_known else None, packaged())
            spent, seconds = spent + time.process_time() - began, seconds + length
            for collar, total in totals.items():
                total += errors(made.turns, found, length, collar)
            counts[made.n_voices].append(len({turn.label for turn in found}))
            if args.rttm:
                write_rttm(args.rttm, f"{'known' if is_known else 'unknown'}-{seed}", made.turns, found)
        (missed, false, confused, said), whole = totals[0.25], totals[0.0]
        rates = [sum(t[:3]) / t[3] for t in (totals[0.25], whole)] + [
            n / said for n in (missed, false, confused)
        ]
        right = ", ".join(f"{n}: {sum(k == n for k in got)}/{len(got)}" for n, got in sorted(counts.items()))
        shown = " | ".join(f"{rate:.1%}" for rate in rates)
        print(f"{'known' if is_known else 'unknown'} | {shown} | {right} | {60 * spent / seconds:.1f}")


def write_rttm(folder: Path, name: str, true: Sequence[Event], found: Sequence[Event]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, turns in (("true", true), ("found", found)):
        rows = [
            f"SPEAKER {name} 1 {turn.start:.3f} {turn.end - turn.start:.3f} <NA> <NA> "
            f"{turn.label.removeprefix(SPEAKER)} <NA> <NA>\n"
            for turn in turns
        ]
        (folder / f"{name}.{kind}.rttm").write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(script(main))

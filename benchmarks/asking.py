"""Questions about recordings: whether the cited evidence holds the answer, and whether what nobody says is declined.

    python benchmarks/asking.py [--heard] [--show] [--folder benchmarks/asked_unseen]
    python benchmarks/asking.py --times

The recordings and questions are those of benchmarks/asked (CREDITS.md there). Without --heard the transcripts are the
kept ones of recordings.jsonl (benchmarks/asked_elsewhere has nothing else: texts of ours in French, German and Spanish,
ten sentences each), which takes half a minute; with it the package's own Whisper hears the recordings, once.
Evidence is right where one of the cited intervals holds the middle of the words that answer; an answer that is declined
is wrong. The threshold is the package's; then that which the recordings but one choose, on the one that is left, so
that no question has a part in its own. Intervals are bootstraps by recording. The area tells
whether what is said and what is not are told apart better, or only the threshold was moved.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from tgsr import audio
from tgsr.answering.cascade import Cascade, load_cascade
from tgsr.answering.conversation import Conversation
from tgsr.answering.passages import Passages, evidence, least_score, matches
from tgsr.cli import script
from tgsr.data.transcribe.transcript import ENGLISH
from tgsr.data.transcribe.whisper import SOURCE, Transcript
from tgsr.models.packaged_weights import cache_folder
from tgsr.statistics.intervals import bootstrap_mean, percent
from tgsr.timeline import Seconds, Span, Word

FOLDER = Path(__file__).parent / "asked"


class Recording(msgspec.Struct, frozen=True):
    """A recording with the words that are kept of it."""

    audio: str
    kind: str
    words: list[tuple[str, float, float]]
    language: str = ENGLISH


class Question(msgspec.Struct, frozen=True):
    """A question, and where the words are said that answer it; nothing of what nobody says."""

    recording: str
    question: str
    said: str | None = None
    start: Seconds | None = None
    end: Seconds | None = None

    @property
    def middle(self) -> Seconds | None:
        return None if self.start is None or self.end is None else (self.start + self.end) / 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found for a question: how sure it is, what would be cited, and whether that holds the answer."""

    question: Question
    confidence: float
    spans: tuple[Span, ...]
    nearest: str

    @property
    def holds(self) -> bool:
        middle = self.question.middle
        return middle is not None and any(span.start <= middle <= span.end for span in self.spans)

    def is_right(self, threshold: float) -> bool:
        answered = self.confidence >= threshold
        return answered and self.holds if self.question.said else not answered


Row = TypeVar("Row", Recording, Question)


def rows(path: Path, kind: type[Row]) -> list[Row]:
    return [msgspec.json.decode(line, type=kind) for line in path.read_bytes().splitlines()]


def outcome(cascade: Cascade, passages: Passages, question: Question) -> Outcome:
    ranked = matches(question.question, cascade.finder(), [passages])
    lines = evidence(ranked, threshold=-math.inf)
    return Outcome(question, ranked[0].score, tuple(line.span for line in lines), lines[0].text)


def best_threshold(outcomes: Sequence[Outcome]) -> float:
    """The threshold whose worse share, of evidence or of declined, is best; of equals the lowest."""

    def worse(threshold: float) -> float:
        return min(_share(outcomes, threshold, said) for said in (True, False))

    return max(sorted(one.confidence for one in outcomes), key=worse)


def _share(outcomes: Sequence[Outcome], threshold: float, said: bool) -> float:
    of = [one.is_right(threshold) for one in outcomes if bool(one.question.said) == said]
    return sum(of) / max(1, len(of))


def area(outcomes: Sequence[Outcome]) -> float:
    """The area under the share of evidence right against that of declined, over all thresholds: 1 is perfect.

    A judge that separates nothing has half the share of the evidence that holds the answer.
    """
    thresholds = sorted({-math.inf, math.inf, *(one.confidence for one in outcomes)})
    right, declined = ([_share(outcomes, one, said) for one in thresholds] for said in (True, False))
    return float(np.trapezoid(right, declined))


def told(name: str, outcomes: Sequence[Outcome], thresholds: Sequence[float]) -> str:
    """One row: evidence right of what is said, declined of what is not."""
    pairs = list(zip(outcomes, thresholds, strict=True))
    shares = []
    for said in (True, False):
        of = [(one, threshold) for one, threshold in pairs if bool(one.question.said) == said]
        values = [float(one.is_right(threshold)) for one, threshold in of]
        shares.append(percent(bootstrap_mean(values, [one.question.recording for one, _ in of])))
    return f"| {name} | {' | '.join(shares)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--heard", action="store_true", help="hear the recordings with Whisper")
    parser.add_argument("--show", action="store_true", help="print what is wrong")
    parser.add_argument("--times", action="store_true", help="processor seconds instead")
    args = parser.parse_args()
    if args.times:
        with tempfile.TemporaryDirectory() as scratch:
            times(args.folder, Path(scratch))
        return
    measure(load_cascade("cascade", cache=cache_folder()), args.folder, args.heard, args.show)


def measure(cascade: Cascade, folder: Path, heard: bool = False, show: bool = False) -> list[Outcome]:
    """Asks all questions, prints the table, and returns what came out."""
    passages, least = {}, {}
    for recording in rows(folder / "recordings.jsonl", Recording):
        least[recording.audio] = least_score(recording.language)
        if heard:
            passages[recording.audio] = cascade.passages(cascade.spoken_in(folder / recording.audio))
        else:
            words = [Word(text, start, end) for text, start, end in recording.words]
            passages[recording.audio] = Passages.of(words, cascade.finder().embeddings)
    started = time.process_time()
    questions = rows(folder / "questions.jsonl", Question)
    outcomes = [outcome(cascade, passages[question.recording], question) for question in questions]
    seconds = (time.process_time() - started) / len(questions)
    chosen = {
        name: best_threshold([one for one in outcomes if one.question.recording != name]) for name in passages
    }
    held_out = [chosen[one.question.recording] for one in outcomes]
    n_said = sum(one.question.said is not None for one in outcomes)
    print(f"| threshold | evidence right of {n_said} | declined of {len(outcomes) - n_said} |\n|---|---|---|")
    name = f"the package's, {min(least.values()):g}"
    print(told(name, outcomes, [least[one.question.recording] for one in outcomes]))
    print(told("chosen on the other recordings", outcomes, held_out))
    print(told("none: always answered", outcomes, [-math.inf] * len(outcomes)))
    lengths = [span.end - span.start for one in outcomes for span in one.spans]
    print(
        f"{sum(lengths) / len(outcomes):.1f} s cited a question; {seconds:.3f} processor seconds a question; "
        f"thresholds {min(held_out):.3f} to {max(held_out):.3f}; area under right against declined {area(outcomes):.3f}"
    )
    for one in outcomes if show else ():
        if not one.is_right(least[one.question.recording]):
            print(
                f"{one.confidence:.3f} {one.question.question} -> {one.nearest!r}, not {one.question.said!r}"
            )
    return outcomes


N_FILES, FILE_SECONDS = 50, 300.0


def times(folder: Path, scratch: Path) -> None:
    """Prints the processor seconds of questions about one recording of five minutes, and about a folder of 50."""
    cache, calls = scratch / "cache", scratch / "calls"
    calls.mkdir(parents=True)
    join_five_minutes(load_cascade("cascade", cache=cache), folder, calls)
    questions = [one.question for one in rows(folder / "questions.jsonl", Question) if one.said][:6]
    for recordings, name in (
        ([min(calls.iterdir())], "one recording"),
        (sorted(calls.iterdir()), "the folder"),
    ):
        conversation = Conversation(load_cascade("cascade", cache=cache), recordings)
        spent = []
        for question in questions:
            started = time.process_time()
            conversation.hear()
            conversation.ask(question)
            spent.append(time.process_time() - started)
        print(f"{name}: {spent[0]:.2f} s the first question, {np.mean(spent[1:]):.2f} s a later one")
    weights = cache_folder()
    for path in weights.iterdir():
        if path.name != "transcripts":
            (cache / path.name).symlink_to(path)
    before = os.times()
    command = [
        sys.executable,
        "-m",
        "tgsr.cli",
        "ask",
        str(calls),
        questions[1],
        "--evidence",
        str(scratch / "e.wav"),
    ]
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "TGSR_CACHE": str(cache)}
    )
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    print(
        f"the folder, a process of its own: {seconds:.2f} s, of which Python and its libraries start in some"
    )


def join_five_minutes(cascade: Cascade, folder: Path, calls: Path) -> None:
    """N_FILES recordings of FILE_SECONDS, each of two of the folder's, with their words as what was heard."""
    recordings = rows(folder / "recordings.jsonl", Recording)
    sounds = {one.audio: audio.load(folder / one.audio) for one in recordings}
    for n in range(N_FILES):
        pieces, words, start = [], [], 0.0
        for one in (
            recordings[n % len(recordings)],
            recordings[(n + 1) % len(recordings)],
        ) * 2:
            words += [Word(text, start + a, start + b, None, SOURCE) for text, a, b in one.words]
            pieces.append(sounds[one.audio])
            start += len(pieces[-1]) / audio.SAMPLE_RATE
        samples = np.concatenate(pieces)[: round(FILE_SECONDS * audio.SAMPLE_RATE)]
        samples[0] = n / 1000  # no two are the same sound
        path = calls / f"call-{n:02d}.wav"
        audio.save_wav(path, samples)
        kept = tuple(word for word in words if word.end < FILE_SECONDS)
        cascade.keep(audio.content_hash(audio.load(path)), Transcript(kept, FILE_SECONDS, SOURCE, "en"))


if __name__ == "__main__":
    raise SystemExit(script(main))

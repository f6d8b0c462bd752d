"""Who finds words' starts best, and how fast: each back end on the same recordings, in one run; writes transcribe.json.

Needs a manifest of speech with known word times (--manifest speech/manifest.jsonl: path, duration, words, words_kind).
whisper-timestamped runs as its own process where --timestamped-python names an environment that has it; its time for a
recording is that of a second one in a process that has loaded the model already, when --as-a-process is not given.

    python benchmarks/transcribe.py --manifest speech/manifest.jsonl --timestamped-python ENV/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np

from tgsr import audio
from tgsr.data.alignments.reading import read_alignment
from tgsr.data.questions.phrases import plain_word
from tgsr.data.transcribe.forced_alignment import Aligner, PocketSphinx, aligned, spell
from tgsr.data.transcribe.whisper import FasterWhisper
from tgsr.data.transcribe.whisper_transformers import TransformersWhisper
from tgsr.models.whisper_checkpoint import whisper_for_transformers
from tgsr.timeline import Word

Words = Sequence[Word]
TIMESTAMPED = """
import json, sys, time
import soundfile
import whisper_timestamped as whisper
model = whisper.load_model(sys.argv[1], device="cpu")
out = []
for index, path in enumerate(sys.argv[3:]):
    samples = soundfile.read(path, dtype="float32")[0]
    if index == 0:
        whisper.transcribe(model, samples, language="en")
    start = time.perf_counter()
    found = whisper.transcribe(model, samples, language="en")
    seconds = time.perf_counter() - start
    json.dump(found, open(f"{path}.json", "w"))
    out.append(seconds)
json.dump(out, open(sys.argv[2], "w"))
"""


@dataclass
class Score:
    seconds: float = 0.0
    audio: float = 0.0
    errors: list[float] = field(default_factory=list)
    n_words: int = 0
    n_wrong: int = 0

    def add(self, found: Words, known: Sequence[dict[str, Any]], seconds: float, duration: float) -> None:
        self.seconds += seconds
        self.audio += duration
        mine = [(part, word) for word in found for part in spell(word.text)[:1] or [plain_word(word.text)]]
        theirs = [
            (part, row) for row in known for part in spell(row["word"])[:1] or [plain_word(row["word"])]
        ]
        matcher = SequenceMatcher(
            None, [text for text, _ in mine], [text for text, _ in theirs], autojunk=False
        )
        n_same = 0
        for a, b, n in matcher.get_matching_blocks():
            self.errors += [mine[a + i][1].start - theirs[b + i][1]["start"] for i in range(n)]
            n_same += n
        self.n_words += len(theirs)
        self.n_wrong += max(len(mine), len(theirs)) - n_same

    def row(self) -> dict[str, float]:
        off = np.abs(self.errors) * 1000
        return {
            "words_found": round(len(self.errors) / max(1, self.n_words), 3),
            "wrong_words": round(self.n_wrong / max(1, self.n_words), 3),
            "start_ms_median": round(float(np.median(off))),
            "start_ms_p90": round(float(np.percentile(off, 90))),
            "start_ms_signed_median": round(float(np.median(self.errors) * 1000)),
            "times_real_time": round(self.audio / self.seconds, 1),
        }


def kinds(rows: Sequence[dict[str, Any]], n: int) -> dict[str, list[dict[str, Any]]]:
    """Recordings by how well their word times are known: exact, or by a person's transcript and forced alignment."""
    exact = [row for row in rows if row["words_kind"].startswith("EXACT")]
    human = [row for row in rows if row["transcript_kind"] == "human" and "forced" in row["words_kind"]]
    return {"exact (digits)": exact[:n], "human transcript, forced": human[:n]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--timestamped-python", help="of an environment with whisper-timestamped")
    parser.add_argument("--n", type=int, default=20, help="recordings of a kind")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.manifest.read_text().splitlines()]
    aligner: Aligner = PocketSphinx()
    fast, slow = FasterWhisper(language="en"), TransformersWhisper(language="en")

    def together_and_aligned(clips: Sequence[np.ndarray]) -> list[Words]:
        heard = zip(fast.many(clips), clips, strict=True)
        return [aligned(found.words, samples, aligner)[0] for found, samples in heard]

    backends: dict[str, Callable[[Sequence[np.ndarray]], list[Words]]] = {
        "faster-whisper, one by one": lambda clips: [fast(samples).words for samples in clips],
        "faster-whisper": lambda clips: [found.words for found in fast.many(clips)],
        "faster-whisper, aligned": together_and_aligned,
        "transformers": lambda clips: [found.words for found in slow.many(clips)],
    }
    result: dict[str, Any] = {"cores": os.cpu_count(), "model": "Whisper base", "kinds": {}}
    for kind, recordings in kinds(rows, arguments.n).items():
        sounds = [audio.load(arguments.manifest.parent / row["path"]) for row in recordings]
        scores = {name: Score() for name in backends}
        for name, hear in backends.items():
            hear(sounds[:1])
            start = time.perf_counter()
            heard = hear(sounds)
            each = (time.perf_counter() - start) / len(sounds)
            for row, found in zip(recordings, heard, strict=True):
                scores[name].add(found, row["words"], each, row["duration"])
        if arguments.timestamped_python:
            scores["whisper-timestamped"] = timestamped(arguments.timestamped_python, recordings, sounds)
        table = {name: score.row() for name, score in scores.items()}
        if "whisper-timestamped" in table:
            base = table["whisper-timestamped"]["times_real_time"]
            for row in table.values():
                row["times_whisper_timestamped"] = round(row["times_real_time"] / base, 1)
        result["kinds"][kind] = {"recordings": len(recordings), "back_ends": table}
        for name, row in table.items():
            print(f"{kind:26}{name:26}", "  ".join(f"{key} {value}" for key, value in row.items()))
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def timestamped(python: str, recordings: Sequence[dict[str, Any]], sounds: Sequence[np.ndarray]) -> Score:
    """whisper-timestamped on the same recordings, in one process of its own that loads the model once."""
    score = Score()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.wav" for index in range(len(sounds))]
        for path, samples in zip(paths, sounds, strict=True):
            audio.save_wav(path, samples)
        times = Path(folder) / "times.json"
        command = [python, "-c", TIMESTAMPED, str(whisper_for_transformers()), str(times), *map(str, paths)]
        subprocess.run(command, check=True)
        for path, row, seconds in zip(paths, recordings, json.loads(times.read_text()), strict=True):
            words = read_alignment(Path(f"{path}.json"))[""].words
            score.add(words, row["words"], seconds, row["duration"])
    return score


if __name__ == "__main__":
    main()

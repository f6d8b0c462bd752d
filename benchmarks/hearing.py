"""How much of what is said is written down, at what cost: ours and faster-whisper's two ways; writes hearing.json.

Every side hears the same sound with the same Whisper base (int8, one thread) in one process, in turn: a folder of
clips, and the same clips joined to recordings of some minutes. Processor seconds; word errors in lower case, without
punctuation, numbers as they are said. Most of the manifest's transcripts are Whisper tiny.en's: word errors
against them tell sides apart and are no one's true error; those by people are a row of their own.

    OMP_NUM_THREADS=1 python benchmarks/hearing.py --manifest speech/manifest.jsonl

With --recording N one long recording alone is heard, by ours and faster-whisper's two ways: 22 clips (--clips) from the
N-th on, half a second between two.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tgsr import audio
from tgsr.check.sound import word_errors
from tgsr.cli import script
from tgsr.data.transcribe.spelling import spell
from tgsr.data.transcribe.whisper import FasterWhisper
from tgsr.models.packaged_weights import whisper

Sounds = Sequence[np.ndarray]
WRITTEN = {"mr.": "mister", "mrs.": "missus", "dr.": "doctor"}
JOINED = 20  # clips in a long recording
BETWEEN = 0.5  # seconds between two clips in the one of --recording


def plain(text: str) -> list[str]:
    """The words as they are said, lower case, without punctuation."""
    words = re.sub(r"[-—–]", " ", text).lower().split()
    return [part.replace("'", "") for word in words for part in spell(WRITTEN.get(word.rstrip(","), word))]


def sides() -> dict[str, Callable[[Sounds], list[str]]]:
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(str(whisper()), device="cpu", compute_type="int8", cpu_threads=1)
    batched = BatchedInferencePipeline(model)
    ours = FasterWhisper(language="en", threads=1)

    def by(hears: Any) -> Callable[[Sounds], list[str]]:
        def heard(sounds: Sounds) -> list[str]:
            texts = []
            for sound in sounds:
                segments, _ = hears.transcribe(sound, language="en", word_timestamps=True)
                texts.append(" ".join(segment.text.strip() for segment in segments))
            return texts

        return heard

    return {
        "ours": lambda sounds: [found.text for found in ours.many(sounds)],
        "ours, one by one": lambda sounds: [ours(sound).text for sound in sounds],
        "faster-whisper, sequential": by(model),
        "faster-whisper, batched": by(batched),
    }


def joined(sounds: Sounds, texts: Sequence[list[str]]) -> tuple[list[np.ndarray], list[list[str]]]:
    starts = range(0, len(sounds), JOINED)
    long = [np.concatenate(sounds[first : first + JOINED]) for first in starts]
    return long, [list(chain.from_iterable(texts[first : first + JOINED])) for first in starts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, required=True, help="speech/manifest.jsonl")
    parser.add_argument("--every", type=int, default=6, help="take each so-many-th clip of LibriSpeech")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument(
        "--recording", type=int, metavar="N", help="hear one long recording alone, clips from N on"
    )
    parser.add_argument("--clips", type=int, default=22, help="clips in that recording (%(default)s)")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.manifest.read_text().splitlines()]
    libri = [row for row in rows if "librispeech" in row["path"]][:: arguments.every]
    people = [row for row in rows if row["transcript_kind"] == "human"]
    digits = [row for row in rows if row["transcript_kind"] == "exact"][:20]
    sets: dict[str, tuple[Sounds, Sequence[list[str]]]] = {}
    for name, some in {"clips": libri, "people's transcripts": people, "digits": digits}.items():
        sounds = [audio.load(arguments.manifest.parent / row["path"]) for row in some]
        sets[name] = sounds, [plain(row["transcript"]) for row in some]
    sets["clips joined"] = joined(*sets["clips"])
    result: dict[str, Any] = {"model": "Whisper base, int8, one thread", "sets": {}}
    hearing = sides()
    for hears in hearing.values():
        hears(sets["people's transcripts"][0][:1])
    if (first := arguments.recording) is not None:
        libri = [row for row in rows if "librispeech" in row["path"]][first :: arguments.every]
        libri = libri[: arguments.clips]
        silence = np.zeros(round(BETWEEN * audio.SAMPLE_RATE), np.float32)
        sound = np.concatenate(
            [part for row in libri for part in (audio.load(arguments.manifest.parent / row["path"]), silence)]
        )
        sets = {
            f"recording {first}": ([sound], [[word for row in libri for word in plain(row["transcript"])]])
        }
        del hearing["ours, one by one"]
    for name, (sounds, texts) in sets.items():
        seconds, n_words = sum(map(len, sounds)) / audio.SAMPLE_RATE, sum(map(len, texts))
        table = {}
        for side, hears in hearing.items():
            start = time.process_time()
            heard = [plain(text) for text in hears(sounds)]
            spent = time.process_time() - start
            errors = sum(word_errors(b, a) for a, b in zip(heard, texts, strict=True))
            row = {"word_errors": round(errors / n_words, 4), "words": sum(map(len, heard))}
            table[side] = row | {"processor_s": round(spent, 1), "x_real_time": round(seconds / spent, 1)}
            print(
                f"{name:22}{side:28}",
                "  ".join(f"{key} {value}" for key, value in table[side].items()),
                flush=True,
            )
        result["sets"][name] = {
            "recordings": len(sounds),
            "seconds": round(seconds),
            "words": n_words,
            "sides": table,
        }
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    raise SystemExit(script(main))

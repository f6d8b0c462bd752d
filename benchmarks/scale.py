"""Whether building stays as fast and as small from a hundred clips to a million; writes scale.json and docs/scale.png.

Clips are made-up metadata (words with times and speakers) over a few sound files, since building reads no sound. Each
size runs in a process of its own, so that its peak of memory is its own: the parent's and the largest worker's.

    python benchmarks/scale.py --sizes 100 1000 10000 100000 1000000 --workers 2
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORDS = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
]


def write_clips(path: Path, n: int) -> None:
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for index in range(n):
            said = [str(word) for word in rng.choice(WORDS, 14)]
            words = [
                {"word": word, "start": round(i * 0.5, 2), "end": round(i * 0.5 + 0.4, 2), "confidence": 0.9}
                for i, word in enumerate(said)
            ]
            row = {
                "id": f"c{index:08}",
                "audio": f"audio/{index % 10}.wav",
                "duration": 8.0 + index * 1e-6,
                "words": words,
                "speaker": f"s{index % 5000}",
                "source": "made up",
            }
            file.write(json.dumps(row) + "\n")


def one(n: int, workers: int) -> dict[str, float]:
    """Builds stage-1 questions about n clips; rows a second and the peaks of memory in MB."""
    from tgsr.data.corpora.which import clips_of
    from tgsr.data.questions.build import Stage1, phrases_of, rows_of
    from tgsr.data.questions.phrases import Phrases
    from tgsr.data.shards import Step, run
    from tgsr.data.splits import Split

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_clips(folder / "clips.jsonl", n)
        step = Step(phrases_of, Stage1(Phrases(2), Split()))
        start = time.perf_counter()
        rows = rows_of(clips_of(folder / "clips.jsonl", "clips", folder))
        counts = run(step, rows, folder / "questions.jsonl", root=folder, rows_per_shard=500, workers=workers)
        seconds = time.perf_counter() - start
    mine, theirs = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "clips": n,
        "questions": counts.kept,
        "seconds": round(seconds, 2),
        "clips_a_second": round(n / seconds),
        "parent_mb": round(mine),
        "largest_worker_mb": round(theirs),
    }


def plot(rows: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    n = [row["clips"] for row in rows]
    axes[0].plot(n, [row["clips_a_second"] for row in rows], "o-", color="#4c78a8")
    axes[0].set_ylabel("clips a second")
    axes[1].plot(n, [row["parent_mb"] for row in rows], "o-", color="#4c78a8", label="parent")
    axes[1].plot(n, [row["largest_worker_mb"] for row in rows], "o-", color="#f58518", label="largest worker")
    axes[1].set_ylabel("peak memory, MB")
    axes[1].legend(frameon=False)
    for axis in axes:
        axis.set_xscale("log")
        axis.set_xlabel("clips")
        axis.set_ylim(0, 1.08 * axis.get_ylim()[1])
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1000, 10_000, 100_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", type=int, help="one size, in this process")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one, arguments.workers)))
        return
    rows = []
    for n in arguments.sizes:
        command = [sys.executable, __file__, "--one", str(n), "--workers", str(arguments.workers)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    result = {
        "cores": os.cpu_count(),
        "workers": arguments.workers,
        "step": "build sta, 2 phrases a clip",
        "rows": rows,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    plot(rows, Path(__file__).parents[1] / "docs" / "scale.png")


if __name__ == "__main__":
    main()

"""How fast `tgsr score` is and what it holds in memory, from ten thousand predictions to a million; writes score.json.

Predictions are made up: one interval and a final answer each, two models, three questions of four about choices and one
about a phrase, two questions a clip. Each size runs in a process of its own, so that its peak of memory is its own.
Seconds are of the processor, which other programs' load does not lengthen; making the file is not in them.

    python benchmarks/score.py --sizes 10000 100000 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OPTIONS = ("the first speaker", "the second speaker", "the third speaker", "nobody")


def write_predictions(path: Path, n: int) -> None:
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for at in range(n):
            file.write(json.dumps(prediction(at, n, rng)) + "\n")


def prediction(at: int, n: int, rng: random.Random) -> dict[str, object]:
    """Two models, one after the other, as two runs of `tgsr predict` would be put together."""
    number, model = at % (n // 2), "first" if at < n // 2 else "second"
    start = round(rng.uniform(0, 6), 2)
    end = round(start + rng.uniform(0.2, 3), 2)
    asked = {
        "id": f"q{number:07}",
        "clip_id": f"c{number // 2:07}",
        "audio": f"audio/c{number // 2:07}.wav",
        "duration": 10.0,
        "evidence": [[start, end]],
        "split": "test",
        "model": model,
    }
    said_start, said_end = round(start + rng.gauss(0, 0.2), 2), round(end + rng.gauss(0, 0.2), 2)
    interval = f"From {max(0.0, said_start)}s to {said_end}s"
    if number % 4 == 0:
        return asked | {
            "kind": "phrase",
            "question": "When is it said?",
            "phrase": "hello",
            "response": interval,
        }
    right = rng.randrange(4)
    said = right if rng.random() < 0.6 else rng.randrange(4)
    return asked | {
        "kind": "choice",
        "question": "Who says the last number?",
        "choices": OPTIONS,
        "answer": OPTIONS[right],
        "task": "who" if number % 8 < 4 else "last",
        "response": f"{interval}. Final answer: ({'abcd'[said]}) {OPTIONS[said]}",
    }


def one(n: int) -> dict[str, float | str]:
    from tgsr.evaluation.scoring.score import score_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.jsonl"
        made = os.spawnv(
            os.P_WAIT, sys.executable, [sys.executable, __file__, "--make", str(n), "--at", str(path)]
        )
        assert made == 0
        size = path.stat().st_size
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, wall = time.process_time(), time.perf_counter()
        metrics = score_file(path)
        seconds, wall = time.process_time() - start, time.perf_counter() - wall
    return {
        "predictions": n,
        "file_mb": round(size / 1e6, 1),
        "cpu_seconds": round(seconds, 2),
        "wall_seconds": round(wall, 2),
        "predictions_a_cpu_second": round(n / seconds),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "peak_mb_before": round(before / 1024),
        "bootstrap": metrics.bootstrap,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--one", type=int, help="one size, in this process")
    parser.add_argument("--make", type=int, help="only the file of that size")
    parser.add_argument("--at", type=Path, help="where --make writes it")
    arguments = parser.parse_args()
    if arguments.make:
        write_predictions(arguments.at, arguments.make)
        return
    if arguments.one:
        print(json.dumps(one(arguments.one)))
        return
    rows = []
    for n in arguments.sizes:
        command = [sys.executable, __file__, "--one", str(n)]
        # one thread: what is measured is one core
        single = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=single)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    result = {"python": platform.python_version(), "cores_used": 1, "rows": rows}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""How fast `tgsr score` is and what it holds in memory, from ten thousand predictions to a million; writes score.json.

Predictions are made up: one interval and a final answer each, two models, three questions of four about choices and one
about a phrase, two questions a clip. Each size runs in a process of its own, so that its peak of memory is its own.
Seconds are of the processor, which other programs' load does not lengthen; making the file is not in them.

    python benchmarks/score.py --sizes 10000 100000 1000000 --against OTHER/src --compared 100000

`--against` names the src folder of another commit: its scorer and this one take turns in one process, and how many
predictions a second this one does of the other's is written down too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType

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


@contextmanager
def predictions_file(n: int) -> Iterator[Path]:
    """A file of n predictions, made in another process, whose memory is not this one's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.jsonl"
        subprocess.run([sys.executable, __file__, "--make", str(n), "--at", str(path)], check=True)
        yield path


def one(n: int) -> dict[str, float | str]:
    from tgsr.evaluation.scoring.score import score_file

    with predictions_file(n) as path:
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


@dataclass
class Package:
    """One version of tgsr: its modules, which are in sys.modules only while it runs."""

    src: Path
    modules: dict[str, ModuleType] = field(default_factory=dict)

    def seconds_to_score(self, path: Path) -> float:
        """Seconds of the processor."""
        before = _taken_out()
        sys.modules.update(self.modules)
        sys.path.insert(0, str(self.src))
        try:
            try:
                score_file = import_module("tgsr.evaluation.scoring.score").score_file
            except ModuleNotFoundError:  # where it stood until f651cc2
                score_file = import_module("tgsr.evaluation.score").score_file
            start = time.process_time()
            score_file(path)
            return time.process_time() - start
        finally:
            sys.path.remove(str(self.src))
            self.modules = _taken_out()
            sys.modules.update(before)


def _taken_out() -> dict[str, ModuleType]:
    """The modules of tgsr that were imported, which are no longer in sys.modules."""
    names = [name for name in sys.modules if name.partition(".")[0] == "tgsr"]
    return {name: sys.modules.pop(name) for name in names}


def compared(n: int, other: Path, n_turns: int = 5) -> dict[str, object]:
    """This package and the other one in turn, once for nothing; the ratio is of the medians."""
    packages = {"this": Package(Path(__file__).resolve().parents[1] / "src"), "other": Package(other)}
    with predictions_file(n) as path:
        turns = [
            {name: package.seconds_to_score(path) for name, package in packages.items()}
            for _ in range(1 + n_turns)
        ][1:]
    medians = {name: statistics.median(turn[name] for turn in turns) for name in packages}
    return {
        "predictions": n,
        "cpu_seconds": {name: [round(turn[name], 2) for turn in turns] for name in packages},
        "predictions_a_second_of_the_others": round(medians["other"] / medians["this"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--against", type=Path, help="src of another commit")
    parser.add_argument("--compared", type=int, default=100_000, help="predictions for --against")
    parser.add_argument("--turn", action="store_true", help="only --against, in this process")
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
    if arguments.turn:
        print(json.dumps(compared(arguments.compared, arguments.against)))
        return

    def measured(*words: str) -> object:
        # one thread: what is measured is one core
        single = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, __file__, *words]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=single)
        print(done.stdout.splitlines()[-1], flush=True)
        return json.loads(done.stdout.splitlines()[-1])

    rows = [measured("--one", str(n)) for n in arguments.sizes]
    result = {"python": platform.python_version(), "cores_used": 1, "rows": rows}
    if arguments.against:
        turn = ("--turn", "--against", str(arguments.against), "--compared", str(arguments.compared))
        result["against"] = measured(*turn)
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""recipes/findings.sh in small, killed again and again, beside the same without: do both end with the same tables?

    python benchmarks/killed.py --times 20 --out runs/killed

Each time the recipe and all that it started get SIGKILL after a random while, and the same command is given again. Exit
status 1 where the tables differ. Half an hour of a fast core, more than an hour of a slow one.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

RECIPE = Path(__file__).parent.parent / "recipes" / "findings.sh"
SMALL = {"STEPS": "2", "TRAIN": "8", "CLIPS": "12", "WATCH": "2", "SEEDS": "0"}


def run(out: Path, seconds: float | None) -> bool:
    """Runs the recipe in `out`, for so many seconds at most; whether it came to its end. SystemExit where it failed."""
    environment = {**os.environ, **SMALL, "OUT": str(out)}
    with (out.parent / f"{out.name}.log").open("a") as log:
        recipe = subprocess.Popen(
            ["bash", RECIPE], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            status = recipe.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(recipe.pid, signal.SIGKILL)
            recipe.wait()
            return False
    if status:
        raise SystemExit(f"{log.name}: the recipe failed")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--most-seconds", type=float, default=40.0, help="before a kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    run(args.out / "whole", None)
    rng = np.random.default_rng(args.seed)
    n_killed = 0
    while not run(
        args.out / "killed", rng.uniform(0.2, args.most_seconds) if n_killed < args.times else None
    ):
        n_killed += 1
    same = [(args.out / name / "findings.md").read_text(encoding="utf-8") for name in ("whole", "killed")]
    print(
        f"killed {n_killed} times: the tables are {'the same' if same[0] == same[1] else 'others'} ({args.out})"
    )
    sys.exit(same[0] != same[1])


if __name__ == "__main__":
    main()

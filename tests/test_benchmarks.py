"""The benchmarks run: tiny sizes, one run, both sides held against each other before they are timed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("speed.py", "GRPO update, 2 answers of 30 tokens"),
        ("curves.py", "usual"),
        ("cost.py", "stage 2, 47,000 questions, hours"),
        ("attention.py", "blocks"),
    ],
)
def test_it_runs(script: str, says: str) -> None:
    quick = [] if script == "cost.py" else ["--quick"]
    ran = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *quick],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert says in ran.stdout

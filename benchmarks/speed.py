"""Shared prefixes against separate sequences, both in one process; prints ratios.

Both sides compute the same numbers (tests/test_engine.py holds them to 1e-5); here only their time is taken:
the median of N_RUNS runs, the two sides in turn, so that a machine that slows down slows both.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from tgsr.build import ask_about
from tgsr.corpora.spoken_digits import compose
from tgsr.engine.features import without_cache
from tgsr.engine.sampling import sample
from tgsr.engine.shared_prefix import Branch, listen, packed_logps
from tgsr.models.load import load
from tgsr.training.sta import phrase_branch

N_RUNS = 5


def medians(shared: Callable[[], object], separate: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of each side over N_RUNS runs in turn, after one run of each that is not counted."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for run in range(N_RUNS + 1):
        for side, call in enumerate((shared, separate)):
            start = time.perf_counter()
            call()
            if run:
                seconds[side].append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def update(lalm: object, audio: Sequence[torch.Tensor], branches: Sequence[Branch]) -> None:
    """One forward and backward over the branches, as in stage 1."""
    packed = packed_logps(lalm, audio, branches)  # type: ignore[arg-type]
    (-packed.logp_BT.sum() / packed.mask_BT.sum()).backward()


def main() -> None:
    lalm = load("mini")
    lalm.inner.requires_grad_(False)
    lalm.aligner.requires_grad_(True)
    made = next(
        m for m in (compose(s, "train", seconds=(9.5, 10.0)) for s in range(50)) if m.clip.duration > 9.4
    )
    features = without_cache(lalm, made.samples)
    phrases = [phrase_branch(lalm, 0, q) for q in ask_about([made.clip], "sta", 8, 0)]
    prompt = lalm.prompt("Which digit is said right after seven?").after
    answers = [
        Branch(0, prompt, tuple(np.random.default_rng(g).integers(10, 500, 100).tolist())) for g in range(8)
    ]
    rows = []
    for name, branches in (
        ("stage 1, 8 phrases", phrases),
        ("stage 2 update, 8 answers of 100 tokens", answers),
    ):

        def shared(branches: Sequence[Branch] = branches) -> None:
            update(lalm, [features], branches)

        def separate(branches: Sequence[Branch] = branches) -> None:
            update(
                lalm,
                [features] * len(branches),
                [Branch(i, b.prompt, b.answer) for i, b in enumerate(branches)],
            )

        rows.append((name, *medians(shared, separate)))

    def prefill_once() -> None:
        with torch.no_grad():
            listen(lalm, [features])

    def prefill_each() -> None:
        with torch.no_grad():
            listen(lalm, [features] * 8)

    rows.append(("prefill for 8 branches", *medians(prefill_once, prefill_each)))

    lalm.eos_id = -1  # answers of full length: how soon a model ends is its weights' business

    def sample_group(owners: int) -> None:
        with torch.no_grad():
            prefix = listen(lalm, [features] * owners)
        generator = torch.Generator().manual_seed(0)
        sample(
            lalm, prefix, [i % owners for i in range(8)], [prompt] * 8, max_new_tokens=60, generator=generator
        )

    rows.append(
        ("sampling 8 answers of 60 tokens", *medians(lambda: sample_group(1), lambda: sample_group(8)))
    )
    print(
        f"miniature, {made.clip.duration:.1f}-s clip, {torch.get_num_threads()} threads, median of {N_RUNS} runs"
    )
    for name, ours, theirs in rows:
        print(
            f"{name}: {1000 * ours:.0f} ms shared, {1000 * theirs:.0f} ms separate, ratio {theirs / ours:.2f}"
        )
    record = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
        "rows": [{"what": n, "shared_s": a, "separate_s": b, "ratio": b / a} for n, a, b in rows],
    }
    out = Path(__file__).with_name("speed.json")
    out.write_text(json.dumps(record, indent=2) + "\n")
    print(out)


if __name__ == "__main__":
    main()

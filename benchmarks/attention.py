"""Attention by block against a plain forward, and against eager attention's maps; prints ratios of time and memory.

The sides run in this process in turn, and those that take sums give the same ones: that is checked before anything is
timed. A ratio is the median over rounds of a side's processor time over the plain forward's in the same round. Peaks of
memory are above the weights, each side in processes of its own, the median of several.

plain     the engine's forward over one row: prefix and answers, no logits
blocks    tgsr.engine.block_attention: the same with the sums over blocks
spans     also over three spans of the audio, as `tgsr attend` asks for them
heat      also over 250 stretches of it, as its heat maps need them
eager     transformers' eager attention with output_attentions, sequence by sequence, then sums over the maps
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from one_update import add_setting, setting_of
from sides import Case, Setting, grpo_case, model_under_test
from timing import HERE, about, flags_of, peak_memory, said_by
from torch import Tensor
from torch.nn.functional import one_hot

from tgsr.engine.block_attention import BlockAttention, block_attention
from tgsr.engine.branch_attention import attention_as
from tgsr.engine.shared_prefix import SharedPrefix, forward, listen

SIDES = ("plain", "blocks", "spans", "heat", "eager")
SPANS, STRETCHES = ((2.0, 5.5), (5.5, 6.0), (20.0, 29.0)), 250
# What is freed goes back to the system at once, so that resident memory is what is in use.
EXACT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
BytesOf = Callable[[Setting, str], int]
QUICK = Setting(layers=1, seconds=4.0, group=2, text=110, answer=12, heads=3, window=2)


def regions_of(case: Case, side: str) -> list[Tensor] | None:
    """F x R for each branch: spans, or stretches of equal length."""
    n = len(case.features)
    if side == "spans":
        times = (torch.arange(n) + 0.5) * case.lalm.seconds_per_frame
        inside = [(times >= start) & (times < end) for start, end in SPANS]
        return [torch.stack(inside, 1).float()] * len(case.branches)
    if side == "heat":
        return [one_hot(torch.arange(n) * STRETCHES // n, STRETCHES).float()] * len(case.branches)
    return None


def eager_sums(case: Case, prefix: SharedPrefix) -> Tensor:
    """L x M x K: each answer's sequence by itself through transformers' eager attention, maps and all."""
    lalm, of_branches = case.lalm, []
    for branch in case.branches:
        row = torch.cat([prefix.rows[0], lalm.embed(torch.tensor([*branch.prompt, *branch.answer]))])
        with attention_as(lalm.language_model, "eager"):
            maps = lalm.language_model(
                inputs_embeds=row[None], use_cache=False, output_attentions=True
            ).attentions
        n_answer, n_frames = len(branch.answer), prefix.n_frames[0]
        edges = [prefix.n_before, n_frames, len(row) - prefix.n_before - n_frames - n_answer, n_answer]
        map_LTT = torch.stack([of_layer[0, :, -n_answer - 1 : -1].mean(0) for of_layer in maps])
        of_branches.append(torch.stack([block.sum(-1) for block in map_LTT.split(edges, -1)], -1))
    return torch.cat(of_branches, 1)


def call_of(case: Case, prefix: SharedPrefix, side: str) -> Callable[[], Any]:
    if side == "plain":
        return partial(forward, prefix, case.branches)
    if side == "eager":
        return partial(eager_sums, case, prefix)
    return partial(block_attention, prefix, case.branches, regions_of(case, side))


def check_same(case: Case, prefix: SharedPrefix) -> float:
    """Largest difference of the block sums to eager attention's; RuntimeError beyond 1e-5."""
    found: BlockAttention = block_attention(prefix, case.branches)
    differ = float((found.share_LMK - eager_sums(case, prefix)).abs().max())
    if differ > 1e-5:
        raise RuntimeError(f"block sums and eager attention's maps differ by {differ:.1e}")
    return differ


def prefix_of(case: Case) -> SharedPrefix:
    return listen(case.lalm, [case.features], after=[case.after])


def times_of(setting: Setting, sides: Sequence[str], runs: int) -> dict[str, Any]:
    """Processor seconds of each side's median run, each one's ratio to "plain", and the difference to eager."""
    case = grpo_case(model_under_test(setting, "lora"), setting)
    prefix = prefix_of(case)
    differ = check_same(case, prefix)
    calls = {side: call_of(case, prefix, side) for side in sides}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for run in range(runs + 1):
        for side, call in calls.items():
            start = time.process_time()
            call()
            if run:  # the first round warms up
                seconds[side].append(time.process_time() - start)
    ratios = {
        side: statistics.median(s / plain for s, plain in zip(of_side, seconds["plain"], strict=True))
        for side, of_side in seconds.items()
        if side != "plain"
    }
    return {
        "seconds": {side: statistics.median(of_side) for side, of_side in seconds.items()},
        "fastest": {side: min(of_side) for side, of_side in seconds.items()},
        "ratios": ratios,
        "largest_difference_to_eager": differ,
    }


def memory_of(setting: Setting, side: str) -> int:
    """Bytes above the weights, in this process; a tiny run first, so that what torch allocates once is not counted."""
    lalm = model_under_test(setting, "lora")
    tiny = grpo_case(lalm, replace(setting, seconds=1.0, group=2, answer=3))
    call_of(tiny, prefix_of(tiny), side)()
    case = grpo_case(lalm, setting)
    prefix = prefix_of(case)
    return peak_memory(call_of(case, prefix, side))


def memory_in_fresh_process(setting: Setting, side: str) -> int:
    """Bytes above the weights, as `memory_of` counts them in a process of its own."""
    said = said_by(Path(__file__).name, flags_of(setting, memory_of=side), **EXACT)
    if "failed" in said:
        raise RuntimeError(f"{side}: {said['failed']}")
    return int(said["peak_bytes"])


def memories_of(setting: Setting, sides: Sequence[str], runs: int, bytes_of: BytesOf) -> dict[str, float]:
    """MiB: medians of `runs` measurements a side, the sides in turn."""
    peaks: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(runs):
        for side in sides:
            peaks[side].append(bytes_of(setting, side) / 2**20)
    return {side: statistics.median(of_side) for side, of_side in peaks.items()}


@torch.no_grad()
def main(argv: Sequence[str] | None = None, bytes_of: BytesOf = memory_in_fresh_process) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_setting(parser)
    parser.add_argument("--groups", type=int, nargs="+", default=[1, 8], help="answers to the one prompt")
    parser.add_argument(
        "--runs", type=int, default=7, help="rounds, of which the median counts (%(default)s)"
    )
    parser.add_argument("--memory-runs", type=int, default=3, help="processes a side (%(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "attention.json", help="the result (%(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, one run, into a temporary file: a test"
    )
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    setting, groups, runs, memory_runs = setting_of(args), args.groups, args.runs, args.memory_runs
    out = args.out
    if args.memory_of:
        print(json.dumps({"peak_bytes": memory_of(setting, args.memory_of)}))
        return
    if args.quick:
        setting, groups, runs, memory_runs = QUICK, [QUICK.group], 1, 1
        out = Path(tempfile.mkdtemp()) / "attention.json"
    print(
        f"{setting.layers} of 30 decoder layers, {setting.seconds:g} s of audio, {torch.get_num_threads()} threads; "
        f"median of {runs}"
    )
    load_before, rows = os.getloadavg()[0], []
    for group in groups:
        of_group = replace(setting, group=group)
        times = times_of(of_group, SIDES, runs)
        peaks = memories_of(of_group, SIDES, memory_runs, bytes_of)
        memory = {side: peak / peaks["plain"] for side, peak in peaks.items() if side != "plain"}
        print(
            f"{group} answers of {setting.answer} tokens, sums equal to {times['largest_difference_to_eager']:.0e}"
        )
        for side in SIDES:
            more = (
                f"; over plain: time {times['ratios'][side]:.2f}, memory {memory[side]:.2f}"
                if side in memory
                else ""
            )
            print(f"  {side:7} {times['seconds'][side]:.3f} s, {peaks[side]:.0f} MiB{more}", flush=True)
        rows.append({"answers": group, **times, "peak_mib": peaks, "memory_ratios": memory})
    record = {**about(), "setting": asdict(setting), "runs": runs, "memory_runs": memory_runs}
    out.write_text(json.dumps({**record, "load_before": load_before, "rows": rows}, indent=2) + "\n")
    print(out)


if __name__ == "__main__":
    main()

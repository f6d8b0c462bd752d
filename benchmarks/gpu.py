"""One GPU's numbers for Audio Flamingo 3 of its published size with random weights, in bfloat16; JSON and a table.

Real_size.py makes the weights. Measured are `tgsr check` without the part that learns; updates of stage 1 and of GRPO,
the prefix shared against the usual way and against separate copies of it (sides.py); sampling against transformers'
`generate`; one layer's attention. Sides are held against each other before they are timed. What does not fit, fails or
is not begun in time is said under "failed", all else is measured. `--size tiny` does the same with two layers on a CPU.
Exit code 1 where a row of the check fails, or anything was not measured.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from real_size import SIZES, write_checkpoint
from sides import (
    Case,
    Setting,
    check_same,
    grpo_case,
    make_trainable,
    phrases_case,
    update,
)
from speed import ROW, medians, row, sample_shared, sample_static, sample_usual
from timing import HERE, about, in_turn, peak_memory, resident
from torch import Tensor, nn

from tgsr.check.bench import Size, borrowed
from tgsr.check.check import as_json, check, line_of, summary
from tgsr.check.rows import FAULTS, is_out_of_memory
from tgsr.engine.branch_attention import branch_attention, layout
from tgsr.engine.sampling import ByModules
from tgsr.errors import OptionError
from tgsr.models.lalm import Lalm, device_of
from tgsr.models.load import load

PARTS = (1, 2, 3, 5, 6)  # of the check: all but the part that learns
SETTINGS = {
    "real": Setting(layers=28),
    "tiny": Setting(layers=2, seconds=2.0, group=2, text=110, answer=8, window=16),
}
CHECKED = {
    "real": Size(clips=8, held_out=2),
    "tiny": Size(clips=4, held_out=2, phrases=2, prompts=1, greedy_tokens=8, timed_clips=2, timed_tokens=8),
}
ROUNDED = {"tolerance": 1.0, "of_gradient": 0.5}
"""What rounding cannot make, and other work does; how near they are is for the check's part 2 to say."""
TIMED = ("shared", "usual", "separate")


# --- what is measured -----------------------------------------------------------------------------------------------


def updates(
    lalm: Any, setting: Setting, runs: int, trains: str, make: Callable[[Any, Setting], Case]
) -> list[ROW]:
    """An update's seconds and bytes by side. What needs more memory than there is has no number, but a reason."""
    stage = "GRPO" if trains == "lora" else "stage 1"
    device, failed, peaks = device_of(lalm).type, {}, {}
    with borrowed(lalm), torch.autocast(device, torch.bfloat16):
        make_trainable(lalm, trains)
        case = make(lalm, setting)
        for side in TIMED:  # the first call compiles
            try:
                update(case, side)
                lalm.model.zero_grad()
                peaks[side] = held_at_most(partial(update, case, side), device) / 2**30
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                failed[side] = str(error).splitlines()[0]
                print(f"{stage} update, {side}: {failed[side]}", flush=True)
            lalm.model.zero_grad()
            free()
        if "shared" in failed:
            raise RuntimeError(failed["shared"])
        differ = check_same(case, [side for side in peaks if side != "shared"], **ROUNDED)
        seconds = medians(in_turn({side: partial(update, case, side) for side in peaks}, runs))
    what = f"{stage} update, {len(case.branches)} branches, a prompt of {len(case.prompt)} tokens"
    return [
        row(what, seconds, largest_difference_nats=differ, failed=failed),
        row(f"{stage} update, memory with the weights", peaks, "GiB"),
    ]


def sampling(lalm: Any, setting: Setting, runs: int) -> list[ROW]:
    """A group's responses, all of one length: ours, which computes the prompt once, and transformers' `generate` with
    the prompt computed once or for each.
    """
    n_new, ends = setting.answer, (lalm.eos_id, lalm.end_ids)
    with borrowed(lalm), torch.autocast(device_of(lalm).type, torch.bfloat16):
        make_trainable(lalm, "lora")
        case = grpo_case(lalm, setting)
        # On a GPU "shared" runs each step again as one CUDA graph; "own modules" calls the decoder's.
        calls: dict[str, Callable[[int], object]] = {
            "shared": partial(sample_shared, case),
            "own modules": partial(sample_shared, case, decoder=ByModules),
            "static cache": partial(sample_static, case),
            "usual": partial(sample_usual, case),
        }
        try:
            lalm.eos_id, lalm.end_ids = -1, ()  # how soon a model ends is its weights' business
            for call in calls.values():
                call(2)
            seconds = medians(in_turn({side: partial(call, n_new) for side, call in calls.items()}, runs))
        finally:
            lalm.eos_id, lalm.end_ids = ends
    rates = {side: setting.group * n_new / of_side for side, of_side in seconds.items()}
    return [row(f"sampling {setting.group} x {n_new} tokens", seconds, tokens_per_second=rates)]


def attention(lalm: Lalm, setting: Setting, runs: int) -> list[ROW]:
    """One layer's attention over a GRPO row, forward and backward: by branches (flex attention, compiled, on a GPU), a
    causal batch of whole sequences, and one row under a dense mask. RuntimeError where they give unlike numbers.
    """
    config, device = lalm.language_model.config, device_of(lalm)
    n_heads, n_keys = config.num_attention_heads, config.num_key_value_heads
    width = config.hidden_size // n_heads
    n_prefix, lengths = setting.text + round(25 * setting.seconds), [setting.answer] * setting.group
    where = layout([n_prefix], lengths, [0] * setting.group, device)
    n = n_prefix + sum(lengths)
    generator = torch.Generator().manual_seed(0)
    query, key, value, toward = (
        torch.randn(1, heads, n, width, generator=generator).to(device, torch.bfloat16).requires_grad_()
        for heads in (n_heads, n_keys, n_keys, n_heads)
    )
    place_N = torch.arange(n, device=device)
    mask_NN = where.sees(place_N[:, None], place_N)
    whole_GN = torch.stack(
        [torch.cat([place_N[:n_prefix], place_N[branch.start : branch.stop]]) for branch in where.branches]
    )
    attend: Any = partial(nn.functional.scaled_dot_product_attention, enable_gqa=True)

    def shared(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return branch_attention(nn.Module(), q, k, v, None, branches=where)[0].transpose(1, 2)

    def separate(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out_GHNW = attend(*(x[0][:, whole_GN].transpose(0, 1) for x in (q, k, v)), is_causal=True)
        answers = out_GHNW[:, :, n_prefix:].transpose(0, 1).flatten(1, 2)
        return torch.cat([out_GHNW[0, :, :n_prefix], answers], 1)[None]

    def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor = attend(q, k, v, attn_mask=mask_NN)
        return out

    def both_ways(side: Callable[..., Tensor]) -> list[Tensor]:
        out = side(query, key, value)
        return [out, *torch.autograd.grad(out, (query, key, value), toward)]

    sides = {"shared": shared, "separate": separate, "dense mask": dense}
    calls = {name: partial(both_ways, side) for name, side in sides.items()}
    first = {name: seconds for name, (seconds,) in in_turn(calls, 1).items()}
    made = {name: call() for name, call in calls.items()}
    differ = {
        name: max(
            float(((a - b).norm() / b.norm()).detach())
            for a, b in zip(of_side, made["dense mask"], strict=True)
        )
        for name, of_side in made.items()
    }
    if max(differ.values()) > 0.05:
        raise RuntimeError(f"attention gives unlike numbers, relative to a dense mask: {differ}")
    seconds = medians(in_turn(calls, 3 * runs))
    what = f"one layer's attention, {setting.group} answers of {setting.answer} tokens to {n_prefix}"
    return [row(what, seconds, first_call_s=first, relative_difference=differ)]


# --- the whole run --------------------------------------------------------------------------------------------------


def held_at_most(call: Callable[[], object], device: str) -> int:
    """Bytes that were held at the call's peak: of a GPU by tensors, else by this process."""
    if device != "cuda":
        return resident() + peak_memory(call)
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated()


def free() -> None:
    """Gives a GPU's memory back that no tensor holds any more."""
    if torch.cuda.is_available():  # the host's is given back when the last one forgets a tensor
        gc.collect()
        torch.cuda.empty_cache()


def table(rows: Sequence[ROW]) -> str:
    """The rows in Markdown: each side's number, and the usual way's over ours."""
    sides = list(dict.fromkeys(side for of_row in rows for side in (*TIMED, "dense mask") if side in of_row))
    lines = ["| | " + " | ".join([*sides, "usual/shared"]) + " |", "|---" * (len(sides) + 2) + "|"]
    for of_row in rows:
        numbers = [f"{of_row[side]:.3g} {of_row['unit']}" if side in of_row else "" for side in sides]
        ratio = of_row["ratios"].get("usual")
        lines.append(
            f"| {of_row['what']} | " + " | ".join([*numbers, f"{ratio:.2f}" if ratio else ""]) + " |"
        )
    return "\n".join(lines)


Section = Callable[[], list[ROW]]


def sections_of(lalm: Any, record: dict[str, Any], work: Path, runs: int) -> dict[str, Section]:
    """What is measured, in order; the check goes into `record`, what it writes into `work`."""
    size, setting = record["size"], SETTINGS[record["size"]]

    def checked() -> list[ROW]:
        told = check(
            lalm,
            work / "check",
            bfloat16=True,
            parts=PARTS,
            size=CHECKED[size],
            tell=lambda row: print(line_of(row), flush=True),
        )
        print(summary(told, work / "check"), flush=True)
        record["check"] = as_json(told)
        return []

    return {
        "check": checked,
        "GRPO update": partial(updates, lalm, setting, runs, "lora", grpo_case),
        "stage 1 update": partial(updates, lalm, setting, runs, "aligner", phrases_case),
        "sampling": partial(sampling, lalm, setting, runs),
        "attention": partial(attention, lalm, setting, runs),
    }


def measure_all(
    sections: Mapping[str, Section], record: dict[str, Any], out: Path, late: Callable[[], str]
) -> None:
    """Fills `record`, which is written after each section: what was measured so far is there, whatever comes.

    A section that fails, or is not begun for the reason that `late` gives, stands under "failed".
    """
    for name, measure in sections.items():
        began = time.perf_counter()
        try:
            if why := late():
                record["failed"][name] = why
            else:
                record["rows"] += measure()
        except (*FAULTS, MemoryError) as error:
            record["failed"][name] = f"{type(error).__name__}: {error}"
        record["seconds"][name] = round(time.perf_counter() - began, 1)
        if name in record["failed"]:
            print(f"{name}: not measured: {record['failed'][name]}", file=sys.stderr, flush=True)
        out.write_text(json.dumps(record, indent=2) + "\n")
        free()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flag = parser.add_argument
    flag("--size", choices=SIZES, default="real", help="of the model; tiny: for a CPU, too (%(default)s)")
    flag("--runs", type=int, default=3, help="of each side, of which the median counts (%(default)s)")
    flag("--minutes", type=float, default=12.0, help="after which nothing more is begun (%(default)s)")
    flag("--spent", type=float, default=0.0, help="seconds of them that went before, as gpu.sh has them")
    flag("--folder", type=Path, help="of the weights, 16.5 GB; written, and left, where there are none")
    flag("--out", type=Path, default=HERE / "gpu.json", help="the result (%(default)s)")
    args = parser.parse_args(argv)
    end = time.perf_counter() + 60 * args.minutes - args.spent
    if args.size == "real" and not torch.cuda.is_available():
        raise OptionError(
            f"--size real: torch {torch.__version__} (CUDA {torch.version.cuda}) sees no GPU; see that the driver is "
            "new enough for it, or take --size tiny"
        )
    record: dict[str, Any] = {
        **about(),
        "size": args.size,
        "setting": asdict(SETTINGS[args.size]),
        "runs": args.runs,
        "seconds": {"before": args.spent},
        "rows": [],
        "failed": {},
    }

    def late() -> str:
        return f"not begun: {args.minutes:g} minutes had passed" if time.perf_counter() > end else ""

    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = args.folder or work / "model"
        began = time.perf_counter()
        if not (folder / "config.json").exists():
            write_checkpoint(folder, args.size)
        written = time.perf_counter()
        lalm = load(str(folder))
        record["seconds"] |= {"written": written - began, "loaded": time.perf_counter() - written}
        print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in record["seconds"].items()), flush=True)
        measure_all(sections_of(lalm, record, work, args.runs), record, args.out, late)
    print(f"\n{table(record['rows'])}\n{args.out}")
    return int(bool(record["failed"]) or not record["check"]["passed"])


if __name__ == "__main__":
    sys.exit(main())

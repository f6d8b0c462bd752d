"""One side's update in a process of its own: its peak of memory above the weights, its time, or its profile.

Prints one line of JSON; with --profile a table of operators instead.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from sides import SIDES, Setting, grpo_case, model_under_test, phrases_case, update
from timing import peak_memory
from torch.profiler import ProfilerActivity, profile


def add_setting(parser: argparse.ArgumentParser, **defaults: float) -> None:
    """An option for each field of Setting."""
    helps = {
        "layers": "decoder layers of 30; encoder and vocabulary shrink in proportion",
        "seconds": "length of the clip",
        "group": "answers, or phrases, of the one prompt",
        "text": "prompt tokens beside the audio",
        "answer": "mean tokens of an answer",
        "heads": "attention heads, three to a key, and with them the width",
        "window": "seconds that the encoder hears at once",
    }
    for field in fields(Setting):
        default = defaults.get(field.name, field.default)
        kind = float if field.name == "seconds" else int
        parser.add_argument(
            f"--{field.name}", type=kind, default=default, help=f"{helps[field.name]} (%(default)s)"
        )


def setting_of(args: argparse.Namespace) -> Setting:
    return Setting(**{field.name: getattr(args, field.name) for field in fields(Setting)})


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", choices=SIDES, default="shared", help="how it is computed (%(default)s)")
    parser.add_argument("--phrases", action="store_true", help="stage 1 instead of GRPO's update")
    parser.add_argument("--bfloat16", action="store_true", help="products in bfloat16, by autocast")
    parser.add_argument("--limit-gib", type=float, default=0, help="fail beyond so much memory (0: no limit)")
    parser.add_argument("--profile", action="store_true", help="print the operators that take longest")
    add_setting(parser)
    args = parser.parse_args(argv)
    setting = setting_of(args)
    if args.limit_gib:
        resource.setrlimit(resource.RLIMIT_DATA, (int(args.limit_gib * 2**30),) * 2)
    lalm = model_under_test(setting, "aligner" if args.phrases else "lora")
    make = phrases_case if args.phrases else grpo_case
    # A tiny update first, so that what torch allocates once is not counted.
    tiny = make(lalm, replace(setting, seconds=1.0, group=2, answer=3))
    case = make(lalm, setting)
    with torch.autocast("cpu", torch.bfloat16, enabled=args.bfloat16):
        update(tiny, args.side)
        lalm.model.zero_grad()
        if args.profile:
            with profile(activities=[ProfilerActivity.CPU], record_shapes=False) as profiled:
                update(case, args.side)
            print(profiled.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
            return
        start = time.perf_counter()
        peak = peak_memory(lambda: update(case, args.side))
    print(json.dumps({"peak_bytes": peak, "seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()

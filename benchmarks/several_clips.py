"""Updates about several short clips: so many clips in one row by us, and by Prefix Grouper, which pads them.

Processor seconds of an update over all clips, GRPO's (a LoRA, 8 answers of 150 tokens a clip) or with --phrases
stage 1's (the aligner, 8 phrases), the sides in turn. Prefix Grouper is a side where it is installed (sides.py).
RuntimeError where sides compute another loss.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

import torch
from sides import (
    SIDES,
    Case,
    Setting,
    audio_of,
    grpo_case,
    model_under_test,
    phrases_case,
    picked_of,
    predicting,
)
from timing import in_turn
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tgsr.engine.branch_attention import attention_as
from tgsr.engine.shared_prefix import Branch, branch_logps, listen

Together = Callable[[Sequence[Case]], Tensor]  # the log-probs of all answers, B x T


def by_us(cases: Sequence[Case]) -> Tensor:
    prefix = listen(cases[0].lalm, [case.features for case in cases], after=[case.after for case in cases])
    branches = [replace(b, owner=clip) for clip, case in enumerate(cases) for b in case.branches]
    return branch_logps(prefix, branches, temperature=cases[0].temperature).logp_BT


def by_prefix_grouper(cases: Sequence[Case]) -> Tensor:
    """As sides.prefix_grouper_logps, a row of the batch for each clip."""
    from prefix_grouper import PrefixGrouper

    lalm = cases[0].lalm
    prefix = listen(lalm, [case.features for case in cases], after=[case.after for case in cases])
    rows, positions, lengths = [], [], []
    for row_PD, case in zip(prefix.rows, cases, strict=True):
        texts = [(*b.prompt, *b.answer) for b in case.branches]
        lengths.append([len(row_PD), *map(len, texts)])
        rows.append(torch.cat([row_PD, lalm.embed(torch.tensor([id_ for text in texts for id_ in text]))]))
        after = [len(row_PD) + torch.arange(len(text)) for text in texts]
        positions.append(torch.cat([torch.arange(len(row_PD)), *after]))
    with attention_as(lalm.language_model, "prefix_grouper"):
        hidden_CND = lalm.language_model(
            inputs_embeds=pad_sequence(rows, True),
            position_ids=pad_sequence(positions, True),
            use_cache=False,
            prefix_grouper=PrefixGrouper(lengths, padding_mode="right"),
        ).last_hidden_state
    hidden = [
        hidden_ND[predicting(branch, first)]
        for hidden_ND, case, of_clip in zip(hidden_CND, cases, lengths, strict=True)
        for branch, first in zip(case.branches, accumulate(of_clip[1:-1], initial=of_clip[0]), strict=True)
    ]
    branches: tuple[Branch, ...] = tuple(b for case in cases for b in case.branches)
    return picked_of(replace(cases[0], branches=branches), hidden)[0]


def update(cases: Sequence[Case], at_once: int, logps: Together) -> float:
    """Forward and backward over all clips, so many in a row; the sum of the log-probs."""
    cases[0].lalm.model.zero_grad()
    total = 0.0
    for first in range(0, len(cases), at_once):
        loss = logps(cases[first : first + at_once]).sum() / 1000
        loss.backward()
        total += float(loss.detach())
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phrases", action="store_true", help="stage 1 instead of GRPO's update")
    parser.add_argument("--clips", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a clip (%(default)s)")
    parser.add_argument("--runs", type=int, default=2, help="of each side (%(default)s)")
    args = parser.parse_args()
    setting = Setting(seconds=args.seconds)
    lalm = model_under_test(setting, "aligner" if args.phrases else "lora")
    cases = []
    for seed in range(args.clips):
        case = phrases_case(lalm, setting, seed) if args.phrases else grpo_case(lalm, setting)
        cases.append(replace(case, samples=audio_of(setting.seconds, seed)).prepare())
    several = sorted({1, max(1, args.clips // 2), args.clips})
    sides = {f"ours, {n} a row": partial(update, cases, n, by_us) for n in several}
    if "prefix grouper" in SIDES:
        sides |= {
            f"Prefix Grouper, {n}": partial(update, cases, n, by_prefix_grouper) for n in {1, args.clips}
        }
    sums = {side: call() for side, call in sides.items()}
    if max(sums.values()) - min(sums.values()) > 1e-3:
        raise RuntimeError(f"unlike losses: {sums}")
    for side, seconds in in_turn(sides, args.runs, time.process_time).items():
        print(f"{side:20} {statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()

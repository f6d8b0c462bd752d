"""How well a model ranks phrases that are not said above those that are, whatever its greedy answer is.

    python benchmarks/absent_odds.py test/180.jsonl sta/adapter

The odds are those of NOT_SAID's first token that differs from the answer that gives a place, against that one's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from tgsr.cli import script
from tgsr.engine.features import FeatureCache, hear
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.models.load import load
from tgsr.models.packaged_weights import cache_folder
from tgsr.prompts import NOT_SAID
from tgsr.records import ABSENT, by_clip, read_questions
from tgsr.timeline import Span


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", type=Path)
    parser.add_argument("model")
    args = parser.parse_args()
    lalm, cache = load(args.model), FeatureCache(cache_folder() / "features")
    odds: dict[str, list[float]] = {}
    for clip in by_clip(read_questions(args.questions)):
        branches = []
        for question in clip:
            prompt = lalm.prompt(lalm.phrase_question(str(question.phrase))).after
            texts = (NOT_SAID, lalm.phrase_answer(str(question.phrase), Span(1.0, 2.0)))
            no, yes = (lalm.response_tokens(text) for text in texts)
            first = next(place for place, pair in enumerate(zip(no, yes, strict=False)) if pair[0] != pair[1])
            branches += [Branch(0, prompt, tuple(answer[: first + 1])) for answer in (no, yes)]
        with torch.no_grad():
            prefix = listen(lalm, [hear(lalm, clip[0], args.questions, cache).read()])
            logps = branch_logps(prefix, branches)
        last = logps.logp_BT.gather(1, logps.mask_BT.sum(1, keepdim=True) - 1)[:, 0].tolist()
        for question, no_logp, yes_logp in zip(clip, last[::2], last[1::2], strict=True):
            kind = question.labelled(ABSENT)[0] if question.is_absent else "said"
            odds.setdefault(kind, []).append(no_logp - yes_logp)
    said = np.array(odds.pop("said"))
    for kind, values in sorted(odds.items()):
        share = float((np.array(values)[:, None] > said).mean())
        print(f"{kind}: {len(values)}, above {share:.1%} of the {len(said)} said ones")
    absent = np.concatenate([*odds.values()])
    for shift in (0, 1, 2):
        alarms, missed = (absent + shift < 0).mean(), (said + shift >= 0).mean()
        print(f"odds {shift} nats higher: {alarms:.1%} false alarms, {missed:.1%} of the said ones missed")


if __name__ == "__main__":
    raise SystemExit(script(main))

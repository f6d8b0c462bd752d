"""What carries stage 1 in Whisper's family: a residual projector, or the decoder's cross key and value projections.

    python benchmarks/aligners.py --questions sta/questions.jsonl --held-out test/questions.jsonl --out runs/aligners

Each side is a run of stage 1 of its own over the same clips in the same order; what it reaches on the held-out phrases
before and after is a line of JSON. A side that was done, or cut off, goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tgsr.engine.features import FeatureCache
from tgsr.models.load import load
from tgsr.models.placement import Placement
from tgsr.models.whisper import Whisper
from tgsr.sta import train_sta
from tgsr.training.config import StaConfig

LEARNING_RATES = {
    "projector": 1e-3,
    "cross": 2e-4,
}  # the projector's begins at nothing, the others are trained matrices


class CrossAligned(Whisper):
    """Its aligner is what each decoder layer makes keys and values of the frames with; these come as the encoder's."""

    @property
    def aligner(self) -> Any:
        heard = [layer.encoder_attn for layer in self.language_model.layers]
        return nn.ModuleList([part for of in heard for part in (of.k_proj, of.v_proj)])

    def align(self, features_FE: Tensor) -> Tensor:
        weight = self.lm_head.weight
        assert isinstance(weight, Tensor)
        return features_FE.to(weight.device, weight.dtype)


def load_cross(name: str, placement: Placement) -> Whisper:
    lalm = load(name, placement)
    assert isinstance(lalm, Whisper), f"{name} does not hear by cross-attention"
    given = {field.name: getattr(lalm, field.name) for field in fields(Whisper) if field.init}
    return CrossAligned(**given)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flag = parser.add_argument
    flag("--questions", required=True, help="phrases to train on")
    flag("--held-out", required=True, help="phrases of other voices")
    flag("--model", default="mini-en", help="the base; its aligner must not have been trained (%(default)s)")
    flag("--steps", type=int, default=200, help="of 8 clips (%(default)s)")
    flag("--sides", nargs="+", choices=LEARNING_RATES, default=list(LEARNING_RATES))
    flag("--learning-rate", type=float, help=f"of all sides, in place of {LEARNING_RATES}")
    flag("--cache", type=Path, default=Path("runs/features"))
    flag("--out", type=Path, required=True)
    args = parser.parse_args()
    config = StaConfig(
        questions=args.questions,
        model=args.model,
        watch=args.held_out,
        watch_every=10**6,  # before the first step and after the last
        bfloat16=True,
        epochs=100,
        max_steps=args.steps,
    )
    for side in args.sides:
        rate = args.learning_rate or LEARNING_RATES[side]
        out = args.out / f"{side}-{rate:g}"
        loader = load_cross if side == "cross" else load
        train_sta(replace(config, learning_rate=rate), out, FeatureCache(args.cache), loader)
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        looks = {row["step"]: row["watch"]["phrase_iou"] for row in rows if "watch" in row}
        n_trained = sum(
            w.numel() for w in torch.load(sorted(out.glob("checkpoint-*.pt"))[-1])["weights"].values()
        )
        print(
            json.dumps(
                {
                    "side": side,
                    "trained": n_trained,
                    "lr": rate,
                    "phrase_iou": looks,
                    "loss": rows[-1]["loss"],
                }
            )
        )


if __name__ == "__main__":
    main()

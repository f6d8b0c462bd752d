"""What other groups do in stage 1, on the digits: each way is trained and asked here; the clock is in the package.

    tgsr build sta --digits 2000 --phrases 4 --out runs/sta-data
    tgsr build sta --digits 100 --first 90000 --split heldout-recordings --phrases 4 --out runs/sta-test
    python benchmarks/stage1_options.py soft --questions runs/sta-data/questions.jsonl \
        --test runs/sta-test/questions.jsonl --out runs/options --steps 240
    tgsr score runs/options/soft-0/sta-test.jsonl --out runs/options/soft-0/sta-test.json

    plain   stage 1 as it is
    clock   sinusoids of the frame's seconds, through one linear layer, are added to the aligned audio (--clock)
    soft    a Gaussian over times, --spread seconds wide, is each time's target, digit by digit (TEMPO, 2026)
    tokens  one new token for each 0.1 s; their rows of embedding and head train, too

Axes: M tokens, V vocabulary.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tgsr.answering.predict import predict_to_file
from tgsr.cli import script
from tgsr.engine.features import FeatureCache
from tgsr.llm.decoding import GREEDY
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.lalm import Lalm
from tgsr.models.load import load
from tgsr.models.packaged_weights import cache_folder
from tgsr.models.placement import Placement
from tgsr.records import Question, by_clip, read_questions
from tgsr.sta import phrase_branch
from tgsr.timeline import Span
from tgsr.training.batches import hear_clips
from tgsr.training.config import StaConfig
from tgsr.training.run import make_trainable, start_run
from tgsr.training.supervised import clip_texts, fit

LONGEST = 10.0  # seconds that the miniature hears
TICK = 0.1


@dataclass
class WithTicks(AudioFlamingo3):
    """The miniature with one token for each tenth of a second."""

    def phrase_answer(self, phrase: str, span: Span) -> str:
        start, end = (f"<|{round(seconds / TICK) * TICK:.1f}|>" for seconds in (span.start, span.end))
        return f"The segment starts at {start} seconds and ends at {end} seconds."

    def response_tokens(self, text: str) -> list[int]:
        return self.tokens(text)

    def text(self, ids: list[int]) -> str:
        return re.sub(r"<\|(\d+\.\d)\|>", r"\1", super().text(ids))


def with_ticks(lalm: Lalm) -> Lalm:
    """New rows begin as the mean of the rows of the digits that a time is written with."""
    times = [f"{tick * TICK:.1f}" for tick in range(round(LONGEST / TICK) + 1)]
    digits = [[token for token in lalm.tokens(time) if lalm.text([token]) != "."] for time in times]
    before = len(lalm.tokenizer)
    lalm.tokenizer.add_tokens([f"<|{time}|>" for time in times], special_tokens=False)
    lalm.inner.resize_token_embeddings(len(lalm.tokenizer), mean_resizing=False)
    for table in (lalm.language_model.get_input_embeddings().weight, lalm.lm_head.weight):
        with torch.no_grad():
            table[before:] = torch.stack([table[of_time].mean(0) for of_time in digits])
    return WithTicks(lalm.name, lalm.inner, lalm.tokenizer, lalm.feature_extractor, lalm.max_seconds)


def train_new_rows(lalm: Lalm) -> None:
    """The rows of the new tokens train with the aligner; those of old tokens get no gradient."""
    n_old = len(lalm.tokenizer) - round(LONGEST / TICK) - 1
    for table in (lalm.language_model.get_input_embeddings().weight, lalm.lm_head.weight):
        table.requires_grad_(True)
        table.register_hook(lambda grad: grad.index_fill(0, torch.arange(n_old), 0.0))


@dataclass(frozen=True)
class SoftDigits:
    """Soft targets of times that are written as digits: at each digit what a Gaussian over all times leaves of it.

    Of the times that begin as the true one does until there; so the product over the digits is the Gaussian itself.
    Takes the place of the engine's SoftTimes, which knows times of one token.
    """

    lalm: Lalm
    spread: float

    def of(self, logp_MV: Tensor, ids_M: Tensor) -> Tensor:
        pieces = [self.lalm.tokenizer.decode([token]) for token in ids_M.tolist()]
        text, starts = "", []
        for piece in pieces:
            starts.append(len(text))
            text += piece
        at = {start: place for place, start in enumerate(starts)}
        targets = [(place, token, 1.0) for place, token in enumerate(ids_M.tolist())]
        for time in re.finditer(r"\d+\.\d\d", text):
            for start, shares in self.shares(time[0]):
                place = at[time.start() + start]
                targets[place] = (place, -1, 0.0)
                targets += [(place, self.lalm.tokens(digit)[0], share) for digit, share in shares.items()]
        places, tokens, weights = (
            torch.tensor(column) for column in zip(*(t for t in targets if t[2]), strict=True)
        )
        return torch.zeros(len(ids_M)).index_add(0, places, weights * logp_MV[places, tokens])

    def shares(self, time: str) -> list[tuple[int, Mapping[str, float]]]:
        """For each character of a time its place and what each character that may stand there weighs."""
        centre = float(time)
        grid = [
            tick / 100
            for tick in range(round(100 * LONGEST) + 1)
            if abs(tick / 100 - centre) < 4 * self.spread
        ]
        weighed = [(f"{t:.2f}", 2.718281828 ** (-0.5 * ((t - centre) / self.spread) ** 2)) for t in grid]
        found = []
        for place in range(len(time)):
            shares: dict[str, float] = defaultdict(float)
            for written, weight in weighed:
                if written.startswith(time[:place]):
                    shares[written[place]] += weight
            total = sum(shares.values())
            found.append((place, {character: share / total for character, share in shares.items()}))
        return found


WAYS = ("plain", "clock", "soft", "tokens")


def train_and_ask(way: str, config: StaConfig, out: Path, tests: list[Path], spread: float) -> None:
    cache = FeatureCache(cache_folder() / "features")

    def loaded(name: str, placement: Placement) -> Lalm:
        lalm = load(name, placement)
        return with_ticks(lalm) if way == "tokens" else lalm

    questions = read_questions(config.questions)
    with start_run("sta", config, config.questions, out, cache, loaded) as run:
        lalm: Any = run.lalm
        make_trainable(lalm, config)
        if way == "tokens":
            train_new_rows(lalm)
        audio = hear_clips(run, questions, config.questions)
        texts = [
            clip_texts(audio[clip[0].audio], [(q.id, phrase_branch(lalm, q)) for q in clip])
            for clip in by_clip(questions)
        ]
        soft: Any = SoftDigits(lalm, spread) if way == "soft" else None
        fit(run, texts, config, f"stage 1, {way}", None, soft)
        lalm.inner.requires_grad_(False)
        lalm = replace(lalm, name=out.name)
        for test in tests:
            asked: list[Question] = read_questions(test)
            predict_to_file(
                lalm, asked, test, out / f"{test.parent.name}.jsonl", cache, GREEDY, name=out.name
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spread", type=float, default=0.05, help="of soft, in seconds")
    args = parser.parse_args()
    config = StaConfig(
        questions=str(args.questions),
        clips_per_step=8,
        learning_rate=1e-3,
        max_steps=args.steps,
        seed=args.seed,
        clock=args.way == "clock",
    )
    train_and_ask(args.way, config, args.out / f"{args.way}-{args.seed}", args.test, args.spread)


if __name__ == "__main__":
    raise SystemExit(script(main))

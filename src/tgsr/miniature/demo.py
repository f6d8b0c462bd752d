"""The whole story on real speech, small: clips, stage 1, stage 2, scores, a page.

Every step is one of the commands' functions; a demo that was stopped goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tgsr.answering.predict import GREEDY, predict_to_file
from tgsr.data.questions.build import ask_about, compose_clips, write_questions
from tgsr.engine.features import FeatureCache
from tgsr.evaluation.scoring.score import score_file, write_metrics
from tgsr.evaluation.scoring.terminal import summary
from tgsr.models.load import load
from tgsr.records import read_questions
from tgsr.report.write import report
from tgsr.rl import train_grpo
from tgsr.sta import train_sta
from tgsr.training.config import GrpoConfig, StaConfig

# Table 5 and 6's rates are for models of 7 billion parameters; this one has 4 million.
STA_RATE = 1e-3
GRPO_RATE = 2e-3
PHRASES_PER_CLIP = 4
NOT_HEARD = ("who", "count")  # kinds of questions at which the base is near chance: who speaks
FIRST_TRAINING_SEED = 50_000  # clips that neither the base nor the shipped adapters were trained on


@dataclass(frozen=True, slots=True)
class DemoSize:
    """How much is done; the defaults take about six minutes on two cores."""

    training_clips: int = 400
    sta_epochs: int = 3
    grpo_steps: int = 40
    test_clips: int = 40  # of each held-out split


def demo(out: Path, cache: FeatureCache, seed: int = 0, size: DemoSize | None = None) -> Path:
    """Runs it all in `out` and returns the page's path."""
    size = size or DemoSize()
    first = FIRST_TRAINING_SEED + seed * 10_000
    print("1/5 clips of real spoken digits, with exact word times")
    phrases = _questions(out / "train-sta", "sta", size.training_clips, "train", first, seed)
    choices = _questions(out / "train-qa", "qa", size.training_clips, "train", first, seed)
    print("2/5 stage 1: the aligner learns to write time")
    stage_1 = StaConfig(questions=str(phrases), epochs=size.sta_epochs, learning_rate=STA_RATE, seed=seed)
    sta = train_sta(stage_1, out / "sta", cache)
    print("3/5 stage 2: GRPO, rewarded for right answers and for citing what they rest on")
    data, steps = str(choices), size.grpo_steps
    stage_2 = GrpoConfig(
        questions=data,
        model=str(sta),
        reward="grounded",
        max_steps=steps,
        learning_rate=GRPO_RATE,
        seed=seed,
    )
    tgsr = train_grpo(stage_2, out / "grpo", cache)
    print("4/5 held-out recordings, and a held-out speaker")
    predictions = out / "predictions.jsonl"
    for split in ("heldout-recordings", "heldout-speaker"):
        for stage in ("sta", "qa"):
            path = _questions(out / f"test-{stage}-{split}", stage, size.test_clips, split, first, seed)
            for model, trained in (("mini", ""), (str(sta), " + stage 1"), (str(tgsr), " + both stages")):
                lalm = load(model)
                lalm.name = "mini" + trained
                predict_to_file(lalm, read_questions(path), path, predictions, cache, GREEDY)
    metrics = score_file(predictions)
    write_metrics(metrics, out / "metrics.json")
    print("5/5 the page\n" + summary(metrics))
    return report([out], out / "report.html", title="tgsr demo: listen first, then answer", seed=seed)


def _questions(folder: Path, stage: str, n_clips: int, split: str, first: int, seed: int) -> Path:
    path = folder / "questions.jsonl"
    if not path.exists():
        clips = compose_clips(n_clips, split, first, folder)
        write_questions(clips, ask_about(clips, stage, PHRASES_PER_CLIP, seed, NOT_HEARD), folder)
    return path

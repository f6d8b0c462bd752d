"""The whole story on real speech, small: clips, stage 1, stage 2, scores, a page.

In one of two worlds: spoken digits, or sentences of continuous English. Every step is one of the commands' functions; a
demo that was stopped goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tgsr.answering.predict import GREEDY, predict_to_file
from tgsr.data import compose as composing
from tgsr.data.corpora.spoken_english import sentences
from tgsr.data.questions.build import ask_about, compose_clips, moved, write_questions
from tgsr.data.questions.by_rule import Choices, after, choice_questions_of
from tgsr.data.questions.phrases import phrase_questions
from tgsr.data.shards import Step, run
from tgsr.disk.whole import write_whole
from tgsr.engine.features import FeatureCache
from tgsr.errors import RunError
from tgsr.evaluation.scoring.score import score_file, write_metrics
from tgsr.evaluation.scoring.terminal import summary
from tgsr.models.load import load, multiplies_bfloat16
from tgsr.records import read_clips, read_questions
from tgsr.report.write import report
from tgsr.rl import train_grpo
from tgsr.sta import train_sta
from tgsr.training.config import GrpoConfig, StaConfig

World = Literal["digits", "english"]
PHRASES_PER_CLIP = 4
NOT_HEARD = ("who", "count")  # kinds of questions about digits at which the base is near chance: who speaks
FIRST_TRAINING_SEED = 50_000  # clips that neither the base nor the shipped adapters were trained on
N_OTHERS = 12  # clips whose words may be a clip's wrong choices


@dataclass(frozen=True, slots=True)
class DemoSize:
    """How much is done with which model; the defaults take about six minutes on two cores.

    Table 5 and 6's rates are for models of 7 billion parameters; these are for one of 4 million.
    """

    model: str = "mini"
    training_clips: int = 400
    sta_epochs: int = 3
    sta_rate: float = 1e-3
    grpo_steps: int = 40
    grpo_rate: float = 2e-3
    prompts_per_step: int = 8
    group_size: int = 8
    max_new_tokens: int = 200  # of a response that is rewarded
    test_clips: int = 40  # of each held-out split
    seconds: tuple[float, float] = (2.0, 10.0)  # of a clip of English; clips of digits have their own lengths


ENGLISH_SIZE = DemoSize(
    "mini-en",
    training_clips=120,
    sta_epochs=2,
    grpo_steps=15,
    grpo_rate=3e-4,
    prompts_per_step=4,
    test_clips=24,
    seconds=(4.0, 16.0),
)
"""For `--world english`, about ten minutes: 75 M parameters, and clips that are twice as long."""


def demo(
    out: Path, cache: FeatureCache, seed: int = 0, size: DemoSize | None = None, world: World = "digits"
) -> Path:
    """Runs it all in `out` and returns the page's path. RunError where another world's or seed's was begun there."""
    size = size or (DemoSize() if world == "digits" else ENGLISH_SIZE)
    asked, begun = f"--world {world} --seed {seed}", out / "demo.txt"
    if begun.exists() and (earlier := begun.read_text(encoding="utf-8")) != asked:
        raise RunError(f"{out}: was begun with {earlier}, not {asked}; give these again, or another --out")
    write_whole(begun, asked)

    def questions_of(folder: Path, stage: str, n_clips: int, split: str) -> Path:
        path = folder / "questions.jsonl"
        if path.exists():
            return path
        if world == "digits":
            return _digit_questions(folder, stage, n_clips, split, seed)
        return _english_questions(folder, stage, n_clips, split, seed, size.seconds)

    what = "spoken digits, with exact word times" if world == "digits" else "sentences, read by people"
    print(f"1/5 clips of real {what}")
    phrases = questions_of(out / "train-sta", "sta", size.training_clips, "train")
    choices = questions_of(out / "train-qa", "qa", size.training_clips, "train")
    print("2/5 stage 1: the aligner learns to write time")
    stage_1 = StaConfig(
        questions=str(phrases),
        model=size.model,
        epochs=size.sta_epochs,
        learning_rate=size.sta_rate,
        seed=seed,
        bfloat16=world == "english" and multiplies_bfloat16(),
    )
    sta = train_sta(stage_1, out / "sta", cache)
    print("3/5 stage 2: GRPO, rewarded for right answers and for citing what they rest on")
    stage_2 = GrpoConfig(
        questions=str(choices),
        model=str(sta),
        reward="grounded",
        max_steps=size.grpo_steps,
        learning_rate=size.grpo_rate,
        prompts_per_step=size.prompts_per_step,
        group_size=size.group_size,
        max_new_tokens=size.max_new_tokens,
        seed=seed,
        bfloat16=world == "english" and multiplies_bfloat16(),
    )
    tgsr = train_grpo(stage_2, out / "grpo", cache)
    held_out = ("heldout-recordings", "heldout-speaker") if world == "digits" else ("test",)
    print(
        "4/5 held-out recordings, and a held-out speaker" if world == "digits" else "4/5 voices never heard"
    )
    predictions = out / "predictions.jsonl"
    for split in held_out:
        for stage in ("sta", "qa"):
            path = questions_of(out / f"test-{stage}-{split}", stage, size.test_clips, split)
            for model, trained in ((size.model, ""), (str(sta), " + stage 1"), (str(tgsr), " + both stages")):
                lalm = load(model)
                lalm.name = size.model + trained
                predict_to_file(lalm, read_questions(path), path, predictions, cache, GREEDY)
    metrics = score_file(predictions)
    write_metrics(metrics, out / "metrics.json")
    print("5/5 the page\n" + summary(metrics))
    return report([out], out / "report.html", title="tgsr demo: listen first, then answer", seed=seed)


def _digit_questions(folder: Path, stage: str, n_clips: int, split: str, seed: int) -> Path:
    clips = compose_clips(n_clips, split, FIRST_TRAINING_SEED + seed * 10_000, folder)
    return write_questions(clips, ask_about(clips, stage, PHRASES_PER_CLIP, seed, NOT_HEARD), folder)


def _english_questions(
    folder: Path, stage: str, n_clips: int, split: str, seed: int, seconds: tuple[float, float]
) -> Path:
    """Clips of the shipped sentences, the same for both stages, which lie beside the questions' folder."""
    composed = composed_sentences(folder.parent / f"clips-{split}", n_clips, split, seed, seconds)
    clips = moved(read_clips(composed), composed, folder)
    asked = [
        phrase_questions(clip, np.random.default_rng((seed, place)), PHRASES_PER_CLIP, n_max=6)
        if stage == "sta"
        else choice_questions_of(clip, after(clips, place, N_OTHERS), Choices(seed=seed))
        for place, clip in enumerate(clips)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    return write_questions(clips, [question for of_clip in asked for question in of_clip], folder)


def composed_sentences(folder: Path, n: int, split: str, seed: int, seconds: tuple[float, float]) -> Path:
    """clips.jsonl of n clips of the shipped sentences of a split, as `tgsr compose` makes them; goes on if stopped."""
    folder = folder.resolve()
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    path = folder / "clips.jsonl"
    clips = moved(read_clips(sentences()), sentences(), folder)
    chosen, _ = composing.chosen(clips, folder, split)
    settings = composing.Composition(seed, *seconds)
    run(
        Step(composing.render, composing.Rendering(str(folder))),
        composing.plan(chosen, n, settings),
        path,
        root=folder,
    )
    return path

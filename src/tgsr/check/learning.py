"""Parts 4 and 5: stage 1 and stage 2 learn by their own loops, and a run that was killed goes on as it would have."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tgsr.answering.predict import predict
from tgsr.audio import SAMPLE_RATE, save_flac
from tgsr.audio import load as load_sound
from tgsr.check.bench import Bench, borrowed
from tgsr.check.rows import Row
from tgsr.engine.features import FeatureCache
from tgsr.engine.shared_prefix import branch_logps, listen
from tgsr.evaluation.scoring.items import ScoredPhrase, score_response
from tgsr.models.aligner_and_lora import with_lora
from tgsr.models.lalm import Lalm
from tgsr.models.placement import Placement
from tgsr.records import Question, Response, read_questions, write_jsonl
from tgsr.report.read import log_rows
from tgsr.rewards import RewardTerm
from tgsr.rl import train_grpo
from tgsr.sta import phrase_branch, train_sta
from tgsr.statistics.intervals import Bootstrap, number
from tgsr.timeline import Span
from tgsr.training.config import GrpoConfig, StaConfig

N_RESAMPLES = 1000
PLACED = 0.5  # mean IoU from which on a model counts as one that has learned it before
NARROW = 1024  # width up to which a decoder is a miniature, which takes larger steps
RATES = {True: 1e-3, False: 1e-4}  # of stage 1, narrow or not: table 5's 2e-5 shows little in 50 steps
RATES_BY_HEART = {True: 1e-2, False: 1e-3}
FURTHER = 1e-3  # nats a token: more than any rounding
SAME_LOSS = 1e-6  # relative, in float32
SAME_LOSS_ROUNDED = 1e-2
N_RESUMED, N_BEFORE = 3, 2  # steps of the run that goes on, and after how many it is killed
MOST_CUT = 0.1  # share of responses: a drawn one may ramble, with a wrong end token all do
RANDOM_TOKENS = 12  # of a response of random weights, which never ends


def stage_1(bench: Bench) -> Row:
    """Steps of stage 1, and what they are worth on phrases that were not trained on."""
    if not bench.has_learned_to_write:
        return _random_stage_1(bench)
    lalm, size = bench.lalm, bench.size
    with borrowed(lalm):
        before = phrase_ious(bench)
        losses = [row["loss"] for row in sta_rows(bench, "sta", bench.speech.phrases, size.sta_steps)]
        after = phrase_ious(bench)
    clips = [question.clip_id for question in read_questions(bench.speech.held_out)]
    resamples = Bootstrap(0, N_RESAMPLES)
    means = resamples.means({"before": before, "after": after}, clips)
    rise = resamples.means({"": [b - a for a, b in zip(before, after, strict=True)]}, clips)[""]
    was, now = (float(means[name].value or 0) for name in ("before", "after"))
    has_risen = rise.low is not None and rise.low > 0
    return Row(
        4,
        "stage 1",
        f"IoU of {len(before)} held-out phrases {number(means['before'], 2)} -> {number(means['after'], 2)}, "
        f"rise {number(rise, 2)}; loss {losses[0]:.3f} -> {np.mean(losses[-5:]):.3f} in {len(losses)} steps",
        f"the rise's interval is above 0, or it was {PLACED:g} and stays",
        has_risen or (was >= PLACED and now >= was - 0.05),
        "stage 1 does not teach it to say when: see that rows of part 1 and 2 pass, then try more steps or another "
        "--learning-rate; an aligner that was never trained needs its own training first",
        {"before": was, "after": now, "rise": rise.value, "low": rise.low, "high": rise.high},
    )


def _random_stage_1(bench: Bench) -> Row:
    """What random weights can show: answers that only the sound tells apart are learned by heart.

    The model is held against itself with the same clips silenced. Two trainings, one of them in silence, part by chance
    long before either knows the answers.
    """
    path, n_steps = bench.out / "by-heart.jsonl", bench.size.sta_steps
    questions = alike(bench, bench.out / "by-heart")
    write_jsonl(path, questions)
    with borrowed(bench.lalm):
        began, silent_began = nats_of(bench, questions)
        sta_rows(
            bench,
            "sta-by-heart",
            path,
            n_steps,
            clips_per_step=len(questions),
            learning_rate=RATES_BY_HEART[is_narrow(bench.lalm)],
        )
        heard, silent = nats_of(bench, questions)
    further = (began - heard) - (silent_began - silent)
    return Row(
        4,
        "stage 1",
        f"random weights learn {len(questions)} clips by heart in {n_steps} steps: the loss falls from {began:.3f} to "
        f"{heard:.3f}, with the same clips silenced from {silent_began:.3f} to {silent:.3f}",
        f"it falls, and {FURTHER:g} further than with silence",
        heard < began and further >= FURTHER,
        "what is learned does not come from the sound: see the rows of part 1",
        {"before": began, "with_sound": heard, "silent_before": silent_began, "with_silence": silent},
    )


def alike(bench: Bench, folder: Path) -> list[Question]:
    """One question about each of a few clips of one length, in the same words, with an answer that only sound tells.

    The phrase is the first clip's, which the others do not hold: this is to be learned by heart.
    """
    clips = bench.speech.clips[: bench.size.random_clips]
    seconds = min(clip.duration for clip, _ in clips)
    questions = []
    for place, (clip, path) in enumerate(clips):
        sound = folder / f"{place}.flac"
        save_flac(sound, load_sound(path)[: round(seconds * SAMPLE_RATE)])
        start = seconds * place / (len(clips) + 1)
        words = clips[0][0].words
        questions.append(
            Question(
                id=clip.id,
                clip_id=clip.id,
                audio=str(sound.resolve()),
                duration=seconds,
                kind="phrase",
                question=words[0].text,
                phrase=words[0].text,
                evidence=(Span(start, start + seconds / (len(clips) + 1)),),
            )
        )
    return questions


@torch.no_grad()
def nats_of(bench: Bench, questions: Sequence[Question]) -> tuple[float, float]:
    """Nats a token of the questions' answers, given the sound of their clips, and given as much silence."""
    lalm = bench.lalm
    sounds = [load_sound(question.audio) for question in questions]
    branches = [replace(phrase_branch(lalm, question), owner=clip) for clip, question in enumerate(questions)]
    found = []
    with bench.rounded():
        for clips in (sounds, [np.zeros_like(sound) for sound in sounds]):
            made = branch_logps(listen(lalm, [lalm.encode_audio(clip) for clip in clips]), branches)
            found.append(-float(made.logp_BT[made.mask_BT].mean()))
    return found[0], found[1]


def phrase_ious(bench: Bench) -> list[float]:
    """The IoU of the answer to each held-out phrase; one that was not heard, or says no times, has 0."""
    path = bench.speech.held_out
    questions, found = read_questions(path), {}
    with torch.no_grad(), bench.rounded():
        answers = list(predict(bench.lalm, questions, path, cache_of(bench), title="held-out phrases"))
    for answer in answers:
        if isinstance(answer, Response):
            scored = score_response(answer)[0]
            found[answer.question.id] = (scored.iou if isinstance(scored, ScoredPhrase) else None) or 0.0
    return [found.get(question.id, 0.0) for question in questions]


def cache_of(bench: Bench) -> FeatureCache:
    """Where the clips' frames are kept for the rows that train."""
    return FeatureCache(bench.out / "features")


def loaded(lalm: Lalm) -> Any:
    """The model in the place of `load`, for a loop that would read it from disk."""

    def load(name: str, placement: Placement) -> Lalm:
        return lalm

    return load


def sta_rows(bench: Bench, name: str, questions: Path, n_steps: int, **settings: Any) -> list[dict[str, Any]]:
    """The log of so many steps of stage 1's loop in the run folder `name`, which goes on where it was."""
    per_step = settings.pop("clips_per_step", bench.size.clips_per_step)
    config = StaConfig(
        **{
            "learning_rate": bench.learning_rate or RATES[is_narrow(bench.lalm)],
            "schedule": "constant",
            "warmup_share": 0.0,
            **settings,
        },
        questions=str(questions),
        model=name_of(bench.lalm),
        clips_per_step=per_step,
        epochs=max(bench.size.sta_steps, N_RESUMED),  # more than enough, and always the same
        max_steps=n_steps,
        bfloat16=bench.bfloat16,
        gradient_checkpointing=not is_narrow(bench.lalm),
    )
    with quietly(bench):
        train_sta(config, bench.out / name, cache_of(bench), loaded(bench.lalm))
    return logged(bench.out / name)


def logged(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's log."""
    return [row for _, _, row in log_rows(run / "metrics.jsonl")]


def is_narrow(lalm: Lalm) -> bool:
    """Whether the decoder is a miniature: it takes larger steps, and its activations need no saving."""
    return bool(lalm.language_model.get_input_embeddings().weight.shape[1] <= NARROW)


def name_of(lalm: Lalm) -> str:
    """What the runs of a check call their model: no file of that name is hashed again for each of them."""
    return f"(checked) {lalm.name}"


@contextlib.contextmanager
def quietly(bench: Bench) -> Any:
    """What the loops print goes to log.txt beside the check."""
    with (bench.out / "log.txt").open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        yield


def distinct_letters(completions: Sequence[str], **columns: object) -> list[float]:
    """A reward that random weights earn in unlike amounts."""
    return [float(len(set(text))) for text in completions]


def lora_on_top(lalm: Lalm, config: GrpoConfig) -> None:
    """What stage 2 trains, of a model with a LoRA of its own too."""
    with_lora(lalm, config.lora_rank, config.lora_alpha, config.seed, on_top=True)


def stage_2(bench: Bench) -> Row:
    """Steps of GRPO by its own loop: where it begins, what advantages come of the rewards, what was cut.

    It begins at the model as it is: a LoRA that it came with is a part of the reference.
    """
    lalm, size = bench.lalm, bench.size
    knows, terms = bench.has_learned_to_write, None
    if not knows:
        terms = (
            RewardTerm("answer", distinct_letters),
            RewardTerm("timestamp_grounding", distinct_letters, 0.0),
        )
    config = GrpoConfig(
        questions=str(bench.speech.choices),
        model=name_of(lalm),
        prompts_per_step=size.prompts,
        group_size=size.group,
        max_new_tokens=size.new_tokens if knows else RANDOM_TOKENS,
        max_steps=size.grpo_steps,
        epochs=size.grpo_steps,
        bfloat16=bench.bfloat16,
        gradient_checkpointing=not is_narrow(lalm),
    )
    with borrowed(lalm), quietly(bench):
        train_grpo(config, bench.out / "grpo", cache_of(bench), loaded(lalm), terms, lora_on_top)
    rows = logged(bench.out / "grpo")
    first = rows[0]
    ratio, n_cut = float(torch.tensor(first["drift"]).exp()), sum(row["cut"] for row in rows)
    n_groups = size.prompts * len(rows)
    n_equal = sum(row["equal_groups"] for row in rows)
    bar = math.expm1(bench.tolerance[1])
    # A model that answers alike has nothing to learn from these questions, and is no worse for it.
    taught_nothing = knows and n_equal == n_groups
    learns = taught_nothing or any(row["grad_norm"] > 0 for row in rows)
    begins = abs(first["kl"]) <= 1e-6 if bench.is_exact else abs(first["kl"]) <= 1e-3
    n_responses = n_groups * size.group
    may_cut = n_cut <= MOST_CUT * n_responses or not knows
    return Row(
        4,
        "GRPO",
        f"KL {first['kl']:.1e} and largest ratio {ratio:.4f} at the first of {len(rows)} steps; reward "
        f"{first['reward']:.2f} -> {rows[-1]['reward']:.2f}, {n_equal} of {n_groups} groups alike, "
        f"{n_cut} of {n_responses} responses cut"
        + (
            "; rewards that differ nowhere teach nothing: harder questions (--data) would"
            if taught_nothing
            else ""
        ),
        f"KL 0, ratio 1 to {bar:.1g}, a gradient where rewards differ"
        + (f", at most {MOST_CUT:.0%} cut" if knows else "; random weights are cut"),
        begins and ratio <= 1 + bar and learns and may_cut,
        "KL or ratio: sampler and trainer differ, see part 2. Cut: raise --max-new-tokens, or see the end tokens. No "
        "gradient: advantages do not reach the LoRA, or random weights earn the same whatever they write",
        {
            "kl": first["kl"],
            "ratio": ratio,
            "equal_groups": n_equal,
            "groups": n_groups,
            "cut": n_cut,
            "reward_first": first["reward"],
            "reward_last": rows[-1]["reward"],
        },
    )


def resumed(bench: Bench) -> Row:
    """A run of stage 1 that ends after two steps and goes on from its checkpoint, against one that did not end.

    Between the two the model is what it was before any training, as for a process that loads it anew.
    """
    lalm, path = bench.lalm, bench.speech.phrases
    runs = []
    for name, parts in (("unbroken", (N_RESUMED,)), ("broken", (N_BEFORE, N_RESUMED))):
        for n_steps in parts:
            with borrowed(lalm):
                rows = sta_rows(bench, name, path, n_steps, clips_per_step=2)
        runs.append([row["loss"] for row in rows])
    (*_, unbroken), (*_, broken) = runs
    off = abs(unbroken - broken) / abs(unbroken)
    bar = SAME_LOSS if bench.is_exact else SAME_LOSS_ROUNDED
    return Row(
        5,
        "resumed",
        f"the loss of step {N_RESUMED} is {broken:.6f}, unbroken it is {unbroken:.6f}",
        f"the same, to {bar:g}",
        len(runs[0]) == len(runs[1]) == N_RESUMED and off <= bar,
        "a checkpoint does not hold all that a step changes: do not trust runs that went on; on a GPU see that its "
        "kernels are deterministic first",
        {"broken": broken, "unbroken": unbroken},
    )

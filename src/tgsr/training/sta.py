"""Stage 1, supervised timestamp alignment (section 3.1, table 5): the aligner learns to write time.

The decoder is frozen; each clip's phrases share its prefix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from tqdm import tqdm

from tgsr import audio
from tgsr.engine.features import FeatureCache
from tgsr.engine.shared_prefix import Branch, of_clips, packed_logps
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.load import load, save_adapter, trainable, with_lora
from tgsr.prompts import phrase_answer_af3, phrase_question_af3
from tgsr.records import Question, read_questions, resolve_audio
from tgsr.training.checkpoints import RunError, load_checkpoint, open_run, save_checkpoint
from tgsr.training.steps import as_trained, cosine, passes, step_or_stop


@dataclass(frozen=True, slots=True)
class StaConfig:
    """Table 5 gives the defaults; it contradicts section 4.2, which says 8 GPUs, 8 a GPU, 4 accumulations."""

    questions: Annotated[str, "questions of kind phrase, JSONL"]
    model: Annotated[str, "the model whose aligner is trained"] = "mini"
    epochs: Annotated[int, "passes over the clips"] = 1
    clips_per_step: Annotated[
        int, "clips a step, with all their phrases; the paper counts phrases, 128 a step"
    ] = 8
    clips_at_once: Annotated[int | None, "clips a pass; fewer need less memory and change no number"] = None
    bfloat16: Annotated[bool, "products in bfloat16 (table 5); weights and their updates stay float32"] = (
        False
    )
    gradient_checkpointing: Annotated[bool, "compute layers twice, keep only their inputs"] = False
    learning_rate: Annotated[float, "peak"] = 2e-5
    warmup_share: Annotated[float, "of the steps"] = 0.03
    weight_decay: Annotated[float, "the paper is silent"] = 0.0
    clip_norm: Annotated[float, "of the gradient; the paper is silent"] = 1.0
    lora_rank: Annotated[int, "above 0: a LoRA on the decoder trains too, a departure from the paper"] = 0
    checkpoint_every: Annotated[int, "steps"] = 50
    seed: Annotated[int, "of the order, and of the LoRA"] = 0


def by_clip(questions: Sequence[Question], kind: str, path: str) -> list[list[Question]]:
    """The questions of one kind, clip by clip, in the file's order. Raises RunError where there are none."""
    clips: dict[str, list[Question]] = {}
    for question in questions:
        if question.kind == kind:
            clips.setdefault(question.clip_id, []).append(question)
    if not clips:
        raise RunError(f"{path}: no question of kind {kind!r}; make some with `tgsr build`")
    return list(clips.values())


def features_of(lalm: AudioFlamingo3, question: Question, path: str, cache: FeatureCache) -> torch.Tensor:
    """The encoder's output for the question's clip, from the cache or computed."""
    return cache.get(lalm, audio.load(resolve_audio(question, path)))


def phrase_branch(lalm: AudioFlamingo3, owner: int, question: Question) -> Branch:
    """Prompt and target of B.1.2 for one phrase."""
    prompt = lalm.prompt(phrase_question_af3(str(question.phrase))).after
    answer = lalm.tokens(phrase_answer_af3(question.evidence[0]))
    return Branch(owner, prompt, (*answer, lalm.eos_id))


def train_sta(config: StaConfig, out: Path, cache: FeatureCache) -> Path:
    """Trains and saves an adapter; resumes in `out`. Returns the adapter's folder."""
    run = open_run(out, "sta", config)
    lalm = load(config.model)
    clips = by_clip(read_questions(config.questions), "phrase", config.questions)
    heard = [
        features_of(lalm, clip[0], config.questions, cache).half()
        for clip in tqdm(clips, desc="listening", unit="clip")
    ]
    if config.lora_rank:
        with_lora(lalm, config.lora_rank, 2 * config.lora_rank, config.seed)
    else:
        lalm.inner.requires_grad_(False)
    lalm.aligner.requires_grad_(True)
    print(", ".join(f"{block}: {n:,} parameters train" for block, n in trainable(lalm).items()))
    weights = {name: w for name, w in lalm.model.named_parameters() if w.requires_grad}
    optimizer = torch.optim.AdamW(
        list(weights.values()), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    steps_per_epoch = math.ceil(len(clips) / config.clips_per_step)
    n_steps = config.epochs * steps_per_epoch
    done = 0
    if (state := load_checkpoint(run)) is not None:
        done = int(state["step"])
        lalm.model.load_state_dict(state["weights"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
    bar = tqdm(range(done, n_steps), desc="stage 1", unit="step", initial=done, total=n_steps)
    for step in bar:
        epoch, place = divmod(step, steps_per_epoch)
        order = np.random.default_rng((config.seed, epoch)).permutation(len(clips))
        chosen = order[place * config.clips_per_step : (place + 1) * config.clips_per_step]
        learning_rate = config.learning_rate * cosine(step, n_steps, round(config.warmup_share * n_steps))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad()
        branches = [
            phrase_branch(lalm, owner, question)
            for owner, index in enumerate(chosen)
            for question in clips[index]
        ]
        n_tokens = sum(len(branch.answer) for branch in branches)
        loss = torch.zeros(())
        for some in passes(len(chosen), config.clips_at_once):
            with as_trained(lalm, config.bfloat16, config.gradient_checkpointing):
                features = [heard[i].float() for i in chosen[some]]
                packed = packed_logps(lalm, features, of_clips(branches, some))
                # Divided by the whole step's tokens, so that passes of unequal sizes add up to one mean.
                part = -packed.logp_BT.sum() / n_tokens
                part.backward()
            loss += part.detach().cpu()
        norm = step_or_stop(optimizer, list(weights.values()), loss, config.clip_norm, step)
        run.log({"step": step + 1, "loss": float(loss), "lr": learning_rate, "grad_norm": norm})
        bar.set_postfix(loss=f"{float(loss):.3f}")
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == n_steps:
            save_checkpoint(run, step + 1, {"weights": dict(weights), "optimizer": optimizer.state_dict()})
    save_adapter(lalm, out / "adapter")
    return out / "adapter"

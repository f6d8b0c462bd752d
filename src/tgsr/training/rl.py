"""Stage 2, timestamp-grounded reasoning by GRPO (section 3.2, Eq. 3, 5 and 6, table 6).

One loop: listen to each question's clip once, sample a group of responses from that prefix, reward them,
compare them within the group, update the decoder's LoRA. The reference policy is the stage-1 model:
the same weights with the LoRA switched off.

Axes: P prompts, G responses a prompt, B = P * G sequences, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from tgsr.choices import letter
from tgsr.engine.features import FeatureCache
from tgsr.engine.sampling import Sampled, sample
from tgsr.engine.shared_prefix import Branch, listen, packed_logps
from tgsr.grounding import count_distinct, count_mentions
from tgsr.grpo import group_advantages, grpo_diagnostics, grpo_loss
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.load import load, lora_off, save_adapter, trainable, with_lora
from tgsr.prompts import choice_question
from tgsr.records import Question, read_questions
from tgsr.rewards import RewardTerm, answer_reward, score_completions, timestamp_grounding_reward
from tgsr.training.checkpoints import RunError, load_checkpoint, open_run, save_checkpoint
from tgsr.training.sta import features_of
from tgsr.training.steps import cosine, step_or_stop


@dataclass(frozen=True, slots=True)
class GrpoConfig:
    """Table 6 gives the defaults; section 4.2 has a temperature of 0.8 where the table has 0.7."""

    questions: str
    model: str = "mini:sta"
    epochs: int = 1
    prompts_per_step: int = 8  # table 6: 8 a GPU (x 8 GPUs x 4 accumulations)
    group_size: int = 8
    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 200  # ours
    learning_rate: float = 5e-6
    warmup_share: float = 0.03
    epsilon: float = 0.2
    beta: float = 0.04
    counter: Literal["official", "strict"] = (
        "official"  # "strict": how timestamped units are counted in Eq. 2
    )
    answer_weight: float = 1.0
    grounding_weight: float = 1.0  # 0: the paper's "w/o grounding"
    lora_rank: int = 16  # the paper is silent about the LoRA's size
    lora_alpha: int = 32
    clip_norm: float = 1.0
    max_steps: int = 0  # > 0: stop after so many
    checkpoint_every: int = 10
    seed: int = 0


def reward_terms(config: GrpoConfig) -> tuple[RewardTerm, ...]:
    """Eq. 3's two terms with the run's weights and counter."""
    grounding = partial(timestamp_grounding_reward, counter=config.counter)
    return (
        RewardTerm("answer", answer_reward, config.answer_weight),
        RewardTerm("timestamp_grounding", grounding, config.grounding_weight),
    )


def sample_groups(
    lalm: AudioFlamingo3,
    audio: Sequence[torch.Tensor],
    prompts: Sequence[tuple[int, ...]],
    config: GrpoConfig,
    step: int,
) -> list[Sampled]:
    """G responses to each prompt, in the prompts' order; each clip and its question are computed once."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    with torch.no_grad():
        prefix = listen(lalm, audio, after=[prompt[:-1] for prompt in prompts])
    owners = [owner for owner in range(len(prompts)) for _ in range(config.group_size)]
    return sample(
        lalm,
        prefix,
        owners,
        [prompts[owner][-1:] for owner in owners],
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        generator=generator,
    )


def right_letter(question: Question) -> str:
    return letter(question.choices.index(str(question.answer)))


def train_grpo(config: GrpoConfig, out: Path, cache: FeatureCache) -> Path:
    """Trains and saves an adapter; resumes in `out`. Returns the adapter's folder."""
    run = open_run(out, "grpo", config)
    lalm = load(config.model)
    questions = [q for q in read_questions(config.questions) if q.kind == "choice"]
    if not questions:
        raise RunError(f"{config.questions}: no question of kind 'choice'; make some with `tgsr build qa`")
    heard: dict[str, torch.Tensor] = {}
    for question in tqdm(questions, desc="listening", unit="question"):
        if question.clip_id not in heard:
            heard[question.clip_id] = features_of(lalm, question, config.questions, cache).half()
    with_lora(lalm, config.lora_rank, config.lora_alpha, config.seed)
    print(", ".join(f"{block}: {n:,} parameters train" for block, n in trainable(lalm).items()))
    weights = {name: w for name, w in lalm.model.named_parameters() if w.requires_grad}
    optimizer = torch.optim.AdamW(list(weights.values()), lr=config.learning_rate, weight_decay=0.0)
    terms = reward_terms(config)
    steps_per_epoch = math.ceil(len(questions) / config.prompts_per_step)
    n_steps = config.epochs * steps_per_epoch
    n_steps = min(n_steps, config.max_steps) if config.max_steps else n_steps
    done = 0
    if (state := load_checkpoint(run)) is not None:
        done = int(state["step"])
        lalm.model.load_state_dict(state["weights"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
    bar = tqdm(range(done, n_steps), desc="stage 2", unit="step", initial=done, total=n_steps)
    for step in bar:
        epoch, place = divmod(step, steps_per_epoch)
        order = np.random.default_rng((config.seed, epoch)).permutation(len(questions))
        chosen = [
            questions[i]
            for i in order[place * config.prompts_per_step : (place + 1) * config.prompts_per_step]
        ]
        audio = [heard[q.clip_id].float() for q in chosen]
        prompts = [lalm.prompt(choice_question(q.question, q.choices)).after for q in chosen]

        sampled = sample_groups(lalm, audio, prompts, config, step)
        texts = [lalm.text(list(s.ids)) for s in sampled]
        owners = [owner for owner in range(len(chosen)) for _ in range(config.group_size)]
        labels = [right_letter(chosen[owner]) for owner in owners]
        rewards, totals = score_completions(texts, terms, label=labels)
        rewards_PG = torch.tensor(totals).view(len(chosen), config.group_size)
        advantages_B = group_advantages(rewards_PG).flatten()

        after = [prompt[:-1] for prompt in prompts]
        branches = [
            Branch(owner, prompts[owner][-1:], s.ids) for owner, s in zip(owners, sampled, strict=True)
        ]
        with torch.no_grad(), lora_off(lalm):
            reference = packed_logps(lalm, audio, branches, after=after, temperature=config.temperature)
        policy = packed_logps(lalm, audio, branches, after=after, temperature=config.temperature)
        logp_BT, old_BT = policy.logp_BT, policy.logp_BT.detach()  # one update a rollout: old is current
        loss = grpo_loss(
            logp_BT, old_BT, reference.logp_BT, policy.mask_BT, advantages_B, config.epsilon, config.beta
        )
        learning_rate = config.learning_rate * cosine(step, n_steps, round(config.warmup_share * n_steps))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad()
        loss.backward()
        norm = step_or_stop(optimizer, list(weights.values()), loss, config.clip_norm, step)

        measured = grpo_diagnostics(
            logp_BT, old_BT, reference.logp_BT, policy.mask_BT, advantages_B, config.epsilon
        )
        row = {
            "step": step + 1,
            "loss": float(loss.detach()),
            "reward": float(np.mean(totals)),
            "accuracy": float(np.mean(rewards["answer"])),
            "grounding_reward": float(np.mean(rewards["timestamp_grounding"])),
            "k": float(np.mean([count_mentions(text) for text in texts])),
            "k_strict": float(np.mean([count_distinct(text) for text in texts])),
            "kl": measured.mean_kl,
            "tokens": float(np.mean([len(s.ids) for s in sampled])),
            "cut": sum(s.cut for s in sampled),
            "equal_groups": int((rewards_PG.amax(1) == rewards_PG.amin(1)).sum()),
            "lr": learning_rate,
            "grad_norm": norm,
        }
        if step % 10 == 0:
            terms_of_first = {name: values[0] for name, values in rewards.items()}
            row |= {"question": chosen[0].id, "sampled": texts[0], "sampled_rewards": terms_of_first}
        run.log(row)
        bar.set_postfix(reward=f"{row['reward']:.2f}", accuracy=f"{row['accuracy']:.2f}", k=f"{row['k']:.1f}")
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == n_steps:
            save_checkpoint(run, step + 1, {"weights": dict(weights), "optimizer": optimizer.state_dict()})
    save_adapter(lalm, out / "adapter")
    return out / "adapter"

"""Stage 2, timestamp-grounded reasoning by GRPO (section 3.2, Eq. 3, 5 and 6, table 6).

One loop: listen to each question's clip once, sample a group of responses from that prefix, reward them,
compare them within the group, update the decoder's LoRA. The reference policy is the stage-1 model:
the same weights with the LoRA switched off.

Axes: P prompts, G responses a prompt, B = P * G sequences, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from tqdm import tqdm

from tgsr.choices import letter
from tgsr.engine.features import FeatureCache
from tgsr.engine.sampling import Sampled, sample
from tgsr.engine.shared_prefix import Branch, PackedLogps, listen, of_clips, packed_logps
from tgsr.grounding import count_distinct, count_mentions
from tgsr.grpo import KlEstimator, Normalisation, group_advantages, grpo_diagnostics, grpo_loss
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.load import load, lora_off, save_adapter, trainable, with_lora
from tgsr.prompts import choice_question
from tgsr.records import Question, read_questions
from tgsr.rewards import RewardTerm, answer_reward, score_completions, timestamp_grounding_reward
from tgsr.training.checkpoints import RunError, load_checkpoint, open_run, save_checkpoint
from tgsr.training.sta import features_of
from tgsr.training.steps import as_trained, cosine, passes, step_or_stop


@dataclass(frozen=True, slots=True)
class GrpoConfig:
    """Table 6 gives the defaults; section 4.2 has a temperature of 0.8 where the table has 0.7."""

    questions: Annotated[str, "questions of kind choice, JSONL"]
    model: Annotated[str, "the stage-1 model: where training starts, and the reference of the KL"] = (
        "mini:sta"
    )
    epochs: Annotated[int, "passes over the questions"] = 1
    prompts_per_step: Annotated[int, "questions a step; table 6: 8 a GPU, x 8 GPUs x 4 accumulations"] = 8
    group_size: Annotated[int, "G, responses to each question"] = 8
    temperature: Annotated[float, "of sampling, and of all log-probs in the loss"] = 0.7
    top_p: Annotated[float, "nucleus of sampling"] = 0.9
    max_new_tokens: Annotated[int, "a response's most; longer ones are cut and counted (not the paper's)"] = (
        200
    )
    learning_rate: Annotated[float, "peak"] = 5e-6
    warmup_share: Annotated[float, "of the steps"] = 0.03
    epsilon: Annotated[float, "clip of the ratio, both ways (Eq. 6)"] = 0.2
    epsilon_high: Annotated[float | None, "clip upwards, if another (DAPO)"] = None
    beta: Annotated[float, "weight of the KL to the stage-1 model"] = 0.04
    kl: Annotated[KlEstimator, "how the KL is estimated"] = "k3"
    normalisation: Annotated[Normalisation, "grpo is Eq. 6: each response alike, however long"] = "grpo"
    scale_rewards: Annotated[bool, "divide by the group's deviation (Eq. 5); Dr. GRPO does not"] = True
    updates_per_rollout: Annotated[int, "optimizer steps on the same responses"] = 1
    counter: Annotated[Literal["official", "strict"], "how timestamps are counted in Eq. 2"] = "official"
    answer_weight: Annotated[float, "of the answer's reward in Eq. 3"] = 1.0
    grounding_weight: Annotated[float, "of the grounding reward; 0 is the paper's w/o grounding"] = 1.0
    lora_rank: Annotated[int, "the paper is silent about the LoRA's size"] = 16
    lora_alpha: Annotated[int, "scale of the LoRA, as PEFT has it"] = 32
    clip_norm: Annotated[float, "of the gradient"] = 1.0
    branches_at_once: Annotated[int | None, "responses that decode together; fewer need less memory"] = None
    prompts_at_once: Annotated[int | None, "prompts a pass of the update; fewer need less memory"] = None
    bfloat16: Annotated[bool, "products in bfloat16 (table 6); weights and their updates stay float32"] = (
        False
    )
    gradient_checkpointing: Annotated[bool, "compute layers twice, keep only their inputs"] = False
    max_steps: Annotated[int, "stop after so many; 0: after the epochs"] = 0
    checkpoint_every: Annotated[int, "steps"] = 10
    seed: Annotated[int, "of the LoRA, the order and the responses"] = 0


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
        at_once=config.branches_at_once,
    )


def sampler_drift(sampled: Sequence[Sampled], logp_BT: torch.Tensor) -> float:
    """The largest difference between the sampler's log-probs and the trainer's for the same tokens, nats."""
    return max(
        float((torch.tensor(s.logps) - row[: len(s.ids)].cpu()).abs().max())
        for s, row in zip(sampled, logp_BT, strict=True)
    )


def logps_of(
    lalm: AudioFlamingo3,
    prompts: slice,
    audio: Sequence[torch.Tensor],
    after: Sequence[tuple[int, ...]],
    branches: Sequence[Branch],
    config: GrpoConfig,
) -> PackedLogps:
    """Log-probs of the responses to some of a step's prompts, at the temperature that sampled them."""
    return packed_logps(
        lalm,
        audio[prompts],
        of_clips(branches, prompts),
        after=after[prompts],
        temperature=config.temperature,
    )


def share_of_step(some: Sequence[Branch], branches: Sequence[Branch], normalisation: Normalisation) -> float:
    """How much of a step's loss the loss of `some` of its branches is: by tokens for dapo, else by branches."""
    if normalisation == "dapo":
        return sum(len(b.answer) for b in some) / sum(len(b.answer) for b in branches)
    return len(some) / len(branches)


def one_tensor(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Passes of a step under each other, padded with zeros to the longest response."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts])


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
        advantages_PG = group_advantages(rewards_PG, scale=config.scale_rewards)

        after = [prompt[:-1] for prompt in prompts]
        branches = [
            Branch(owner, prompts[owner][-1:], s.ids) for owner, s in zip(owners, sampled, strict=True)
        ]
        parts_of_step = passes(len(chosen), config.prompts_at_once)
        trained = partial(as_trained, lalm, config.bfloat16, config.gradient_checkpointing)

        with torch.no_grad(), lora_off(lalm), trained():
            references = [logps_of(lalm, of, audio, after, branches, config).logp_BT for of in parts_of_step]
        learning_rate = config.learning_rate * cosine(step, n_steps, round(config.warmup_share * n_steps))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        old: list[torch.Tensor] = []  # the first update's policy is the one that sampled
        for update in range(config.updates_per_rollout):
            optimizer.zero_grad()
            loss = torch.zeros(())
            policy: list[PackedLogps] = []
            for index, of in enumerate(parts_of_step):
                with trained():
                    packed = logps_of(lalm, of, audio, after, branches, config)
                    if update == 0:
                        old.append(packed.logp_BT.detach())
                    part = grpo_loss(
                        packed.logp_BT,
                        old[index],
                        references[index],
                        packed.mask_BT,
                        advantages_PG[of].flatten(),
                        config.epsilon,
                        config.beta,
                        epsilon_high=config.epsilon_high,
                        normalisation=config.normalisation,
                        max_tokens=config.max_new_tokens,
                        kl=config.kl,
                    )
                    part = part * share_of_step(of_clips(branches, of), branches, config.normalisation)
                    part.backward()
                policy.append(replace(packed, logp_BT=packed.logp_BT.detach()))
                loss += part.detach().cpu()
            norm = step_or_stop(optimizer, list(weights.values()), loss, config.clip_norm, step)

        logp_BT, old_BT, reference_BT, mask_BT = (
            one_tensor(parts)
            for parts in ([p.logp_BT for p in policy], old, references, [p.mask_BT for p in policy])
        )
        measured = grpo_diagnostics(
            logp_BT,
            old_BT,
            reference_BT,
            mask_BT,
            advantages_PG.flatten(),
            config.epsilon,
            epsilon_high=config.epsilon_high,
        )
        row = {
            "step": step + 1,
            "loss": float(loss),
            "reward": float(np.mean(totals)),
            "accuracy": float(np.mean(rewards["answer"])),
            "grounding_reward": float(np.mean(rewards["timestamp_grounding"])),
            "k": float(np.mean([count_mentions(text) for text in texts])),
            "k_strict": float(np.mean([count_distinct(text) for text in texts])),
            "kl": measured.mean_kl,
            "clipped": measured.clip_fraction,
            "drift": sampler_drift(sampled, old_BT),
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

"""Stage 2, timestamp-grounded reasoning by GRPO (section 3.2, Eq. 3, 5 and 6, table 6).

One loop: listen to each question's clip once, sample a group of responses from that prefix, reward them,
compare them within the group, update the decoder's LoRA. The reference policy is the stage-1 model:
the same weights with the LoRA switched off.

Axes: P prompts, G responses a prompt, B = P * G sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from tgsr.choices import letter
from tgsr.dense_reward import dense_grounding_reward
from tgsr.disk.jsonl import Row
from tgsr.disk.run_folder import RunFolder
from tgsr.engine.features import FeatureCache, KeptFeatures
from tgsr.engine.sampling import Sampled, sample, uniforms
from tgsr.engine.shared_prefix import Branch, BranchLogps, SharedPrefix, branch_logps, listen, of_clips
from tgsr.engine.vllm_rollouts import VllmServer, connect, push_adapter, sample_by_vllm
from tgsr.errors import RunError
from tgsr.grounding import count_distinct, count_mentions
from tgsr.grpo import (
    group_advantages,
    grpo_diagnostics,
    grpo_loss,
    rollout_weights,
)
from tgsr.models.aligner_and_lora import lora_off, parts_table, with_lora
from tgsr.models.lalm import Lalm, device_of
from tgsr.models.load import load, save_adapter
from tgsr.prompts import choice_question
from tgsr.records import NO_SPEECH, Question, read_clips, read_questions
from tgsr.rewards import (
    RewardTerm,
    answer_reward,
    score_completions,
    timestamp_grounding_reward,
)
from tgsr.timeline import Word
from tgsr.training.batches import chosen_at, hear_clips, passes, require_room, steps_per_epoch
from tgsr.training.config import GrpoConfig
from tgsr.training.processes import Processes, shard_frozen, unsharded
from tgsr.training.run import Load, keep, load_to_train, restore, start_run
from tgsr.training.steps import as_trained, keeping_batch, set_learning_rate, step_or_stop


def reward_terms(config: GrpoConfig) -> tuple[RewardTerm, ...]:
    """Eq. 3's two terms with the run's weights and counter, and the dense one where it has a weight.

    Without compaction every response with a timestamp earns c_max, however many it has. Table 3 names this
    variant and does not define it.
    """
    grounding = partial(
        timestamp_grounding_reward,
        k_ref=config.k_ref,
        k_max=config.k_max,
        c_max=config.c_max,
        c_min=config.c_min if config.compaction else config.c_max,
        counter=config.counter,
    )
    dense = partial(dense_grounding_reward, c_max=config.c_max)
    return (
        RewardTerm("answer", answer_reward, config.answer_weight),
        RewardTerm("timestamp_grounding", grounding, config.grounding_weight),
        *([RewardTerm("dense_grounding", dense, config.dense_weight)] if config.dense_weight else ()),
    )


def words_by_clip(config: GrpoConfig, questions: Sequence[Question]) -> dict[str, tuple[Word, ...]]:
    """The words of each question's clip by the clip's id, for the dense reward; {} where it is off.

    RunError for a question whose clip is not in --clips or has no words there, unless a step has flagged it as
    being without speech and the question's evidence is known: a reward that nobody can tell must not be 0.
    """
    if not config.dense_weight or config.clips is None:
        return {}
    clips = {clip.id: clip for clip in read_clips(config.clips)}
    for question in questions:
        clip = clips.get(question.clip_id)
        is_silent = clip is not None and NO_SPEECH in clip.flags and bool(question.evidence)
        if clip is None or not (clip.words or is_silent):
            raise RunError(
                f"{config.clips}: {'is without the clip' if clip is None else 'has no word of'} {question.clip_id}, "
                f"that question {question.id} is about: make it with `tgsr transcribe`, leave the question out of "
                f"{config.questions}, or train with --dense-weight 0"
            )
    return {id_: clip.words for id_, clip in clips.items()}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its prompt, cut where the prefix ends: all but the last token belongs to the prefix.

    `words` are what is said in its clip, where a reward asks for it.
    """

    question: Question
    heard: KeptFeatures
    after: tuple[int, ...]
    last: tuple[int, ...]
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """One response with what it earned."""

    question: str
    text: str
    sampled: Sampled
    rewards: dict[str, float]
    reward: float
    advantage: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The log-probs of one pass over some responses, for the log: B x T on the CPU."""

    logp_BT: torch.Tensor
    old_BT: torch.Tensor
    drawn_BT: torch.Tensor
    reference_BT: torch.Tensor
    mask_BT: torch.Tensor


def asked_about(
    lalm: Lalm, question: Question, heard: KeptFeatures, words: tuple[Word, ...] | None = None
) -> Asked:
    prompt = lalm.prompt(choice_question(question.question, question.choices)).after
    return Asked(question, heard, prompt[:-1], prompt[-1:], words)


@torch.no_grad()
def prefix_of(lalm: Lalm, asked: Sequence[Asked]) -> SharedPrefix:
    """Each question's clip and the question itself, as the prefix of its responses.

    The LoRA is on the layers after it and the aligner is frozen, so that sampler, reference and policy take
    the same one.
    """
    return listen(lalm, [a.heard.read() for a in asked], after=[a.after for a in asked])


def sample_groups(
    prefix: SharedPrefix,
    asked: Sequence[Asked],
    config: GrpoConfig,
    uniform_BN: torch.Tensor,
    server: VllmServer | None,
) -> list[Sampled]:
    """G responses to each prompt, in the prompts' order, by our sampler or by a server; none for no prompt."""
    if not asked:
        return []
    owners = [owner for owner in range(len(asked)) for _ in range(config.group_size)]
    last = [asked[owner].last for owner in owners]
    drawn: dict[str, Any] = {
        "max_new_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
    }
    if server is not None:
        return sample_by_vllm(server, prefix, owners, last, seed=int(uniform_BN[0, 0] * 2**53), **drawn)
    lalm, at_once = prefix.lalm, config.branches_at_once
    with (
        unsharded(lalm),
        torch.autocast(device_of(lalm).type, torch.bfloat16, enabled=config.bfloat16),
    ):
        return sample(prefix, owners, last, uniform_BN=uniform_BN, at_once=at_once, **drawn)


def rollouts_of(
    asked: Sequence[Asked],
    sampled: Sequence[Sampled],
    texts: Sequence[str],
    config: GrpoConfig,
    terms: Sequence[RewardTerm],
) -> list[Rollout]:
    """Rewards (Eq. 3) and advantages within each group of G (Eq. 5)."""
    owners = [a for a in asked for _ in range(config.group_size)]
    questions = [a.question for a in owners]
    rewards, totals = score_completions(
        list(texts),
        terms,
        label=[right_letter(question) for question in questions],
        words=[a.words for a in owners],
        duration=[question.duration for question in questions],
        evidence=[question.evidence for question in questions],
    )
    rewards_PG = torch.tensor(totals).view(len(asked), config.group_size)
    advantages = group_advantages(rewards_PG, scale=config.scale_rewards).flatten().tolist()
    return [
        Rollout(question.id, text, s, {name: values[i] for name, values in rewards.items()}, totals[i], a)
        for i, (question, text, s, a) in enumerate(zip(questions, texts, sampled, advantages, strict=True))
    ]


def sampled_logps(sampled: Sequence[Sampled], policy: BranchLogps) -> torch.Tensor:
    """The sampler's log-probs over the whole vocabulary as B x T, zeros where there is no token.

    vLLM's are renormalised within the nucleus: its mass, by the trainer's own logits, is added to them.
    """
    mask_BT = policy.mask_BT
    flat = torch.tensor([logp for s in sampled for logp in s.logps], device=mask_BT.device)
    drawn_BT = torch.zeros(mask_BT.shape, device=mask_BT.device).masked_scatter(mask_BT, flat)
    return drawn_BT if policy.nucleus_BT is None else drawn_BT + policy.nucleus_BT


def one_tensor(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Passes of a step under each other, padded with zeros to the longest response."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts])


def right_letter(question: Question) -> str:
    return letter(question.choices.index(str(question.answer)))


def row_of(
    rollouts: Sequence[Rollout], measured: Sequence[Measured], config: GrpoConfig
) -> dict[str, float | int | None]:
    """A step's numbers for the log, from all processes' responses and log-probs."""
    logp_BT, old_BT, drawn_BT, reference_BT, mask_BT = (
        one_tensor([getattr(m, name) for m in measured])
        for name in ("logp_BT", "old_BT", "drawn_BT", "reference_BT", "mask_BT")
    )
    advantages_B = torch.tensor([r.advantage for r in rollouts])
    loss = grpo_diagnostics(
        *(logp_BT, old_BT, reference_BT, mask_BT, advantages_B, config.epsilon),
        epsilon_high=config.epsilon_high,
    )
    rewards_PG = torch.tensor([r.reward for r in rollouts]).view(-1, config.group_size)
    others = [name for name in rollouts[0].rewards if name not in ("answer", "timestamp_grounding")]
    return {
        "reward": float(np.mean([r.reward for r in rollouts])),
        "accuracy": float(np.mean([r.rewards["answer"] for r in rollouts])),
        "grounding_reward": float(np.mean([r.rewards["timestamp_grounding"] for r in rollouts])),
        **{f"{name}_reward": float(np.mean([r.rewards[name] for r in rollouts])) for name in others},
        "k": float(np.mean([count_mentions(r.text) for r in rollouts])),
        "k_strict": float(np.mean([count_distinct(r.text) for r in rollouts])),
        "kl": loss.mean_kl,
        "clipped": loss.clip_fraction,
        # The largest difference between the sampler's and the trainer's log-probs of a token, nats.
        "drift": float((drawn_BT - old_BT)[mask_BT].abs().max()),
        "tokens": float(np.mean([len(r.sampled.ids) for r in rollouts])),
        "cut": sum(r.sampled.cut for r in rollouts),
        "equal_groups": int((rewards_PG.amax(1) == rewards_PG.amin(1)).sum()),
    }


def rollout_rows(rollouts: Sequence[Rollout]) -> list[Row]:
    """Responses with their reward terms and log-probs, for a file that someone will read."""
    return [
        {
            "question": r.question,
            "response": r.text,
            "rewards": r.rewards,
            "advantage": r.advantage,
            "ids": list(r.sampled.ids),
            "logps": list(r.sampled.logps),
        }
        for r in rollouts
    ]


def pushed(server: VllmServer, lalm: Lalm, run: RunFolder, processes: Processes) -> VllmServer:
    """The server with the LoRA as it is now; the main process hands it over, all sample with it."""
    mine = [push_adapter(server, lalm, run.path / "vllm")] if processes.main else []
    return processes.gather(mine)[0]


def train_grpo(
    config: GrpoConfig,
    out: Path,
    cache: FeatureCache,
    load: Load = load,
    terms: Sequence[RewardTerm] | None = None,
) -> Path:
    """Trains and saves an adapter; resumes in `out`. Returns the adapter's folder.

    `terms` are rewards in the place of the config's, two of them called "answer" and "timestamp_grounding".
    """
    terms = reward_terms(config) if terms is None else terms
    processes, run = start_run("grpo", config, config.questions, out, cache)
    lalm = load_to_train(config, processes, load)
    questions = [q for q in read_questions(config.questions) if q.kind == "choice"]
    if not questions:
        raise RunError(f"{config.questions}: no question of kind 'choice'; make some with `tgsr build qa`")
    steps_per_epoch(len(questions), config.prompts_per_step, processes, config.shard)  # refuses early
    words = words_by_clip(config, questions)
    with_lora(lalm, config.lora_rank, config.lora_alpha, config.seed)
    server = None if config.vllm is None else connect(config.vllm, lalm)
    heard = hear_clips(lalm, questions, config.questions, cache, run, processes)
    everything = [
        asked_about(lalm, q, heard[q.audio], words.get(q.clip_id)) for q in questions if q.audio in heard
    ]
    n_own = config.max_new_tokens + 1  # the prompt's last token, and the response
    require_room(lalm, ((a.question.id, a.heard.n_frames + len(a.after) + n_own) for a in everything))
    if processes.main:
        print(parts_table(lalm))
    weights = {name: w for name, w in lalm.model.named_parameters() if w.requires_grad}
    optimizer = torch.optim.AdamW(list(weights.values()), lr=config.learning_rate, weight_decay=0.0)
    an_epoch = steps_per_epoch(len(everything), config.prompts_per_step, processes, config.shard)
    n_steps = config.epochs * an_epoch
    n_steps = min(n_steps, config.max_steps) if config.max_steps else n_steps
    items = [a.question.id for a in everything]
    done = restore(run, processes, lalm, optimizer, items)
    if server is not None:
        server = pushed(server, lalm, run, processes)
    if config.shard:
        shard_frozen(lalm, processes)
    trained = partial(as_trained, lalm, config.bfloat16, config.gradient_checkpointing)
    bar = tqdm(
        range(done, n_steps),
        desc="stage 2",
        unit="step",
        initial=done,
        total=n_steps,
        disable=not processes.main,
    )
    for step in bar:
        chosen = chosen_at(step, everything, config.prompts_per_step, an_epoch, config.seed)
        n_responses = len(chosen) * config.group_size
        mine = processes.share(len(chosen))
        asked = chosen[mine]

        # Random numbers for the whole step: whose share a question is does not matter to what our sampler draws.
        uniform_BN = uniforms(n_responses, config.max_new_tokens, config.seed * 1_000_003 + step)
        uniform_BN = uniform_BN[mine.start * config.group_size : mine.stop * config.group_size]
        prefix = prefix_of(lalm, asked)
        sampled = sample_groups(prefix, asked, config, uniform_BN, server)
        texts = [lalm.text(list(s.ids)) for s in sampled]
        rollouts = rollouts_of(asked, sampled, texts, config, terms) if asked else []

        branches = [
            Branch(i // config.group_size, asked[i // config.group_size].last, r.sampled.ids)
            for i, r in enumerate(rollouts)
        ]
        teaches_B = torch.tensor(
            [not (config.mask_cut and r.sampled.cut) for r in rollouts], dtype=torch.bool
        )
        advantages_B = torch.tensor([r.advantage for r in rollouts])
        n_taught = sum(len(b.answer) for b, teaches in zip(branches, teaches_B, strict=True) if teaches)
        n_tokens = int(processes.total(torch.tensor(n_taught)))
        parts = passes(len(asked), config.prompts_at_once)
        of_part = [slice(of.start * config.group_size, of.stop * config.group_size) for of in parts]

        with torch.no_grad(), lora_off(lalm), trained():
            references = [
                branch_logps(prefix.of(of), of_clips(branches, of), temperature=config.temperature).logp_BT
                for of in parts
            ]
        learning_rate = set_learning_rate(
            optimizer, config.learning_rate, config.schedule, step, n_steps, config.warmup_share
        )
        old: list[torch.Tensor] = []  # the first update's policy is the one that sampled
        drawn: list[torch.Tensor] = []  # the same by the sampler
        for update in range(config.updates_per_rollout):
            optimizer.zero_grad()
            loss = torch.zeros(())
            measured: list[Measured] = []
            for index, (of, rows) in enumerate(zip(parts, of_part, strict=True)):
                with trained():
                    policy = branch_logps(
                        prefix.of(of),
                        of_clips(branches, of),
                        temperature=config.temperature,
                        nucleus_of=config.top_p if server is not None and update == 0 else None,
                    )
                    if update == 0:
                        old.append(policy.logp_BT.detach())
                        drawn.append(sampled_logps(sampled[rows], policy))
                    mask_BT = policy.mask_BT & teaches_B[rows, None].to(policy.mask_BT.device)
                    # Another engine's draws: weighed by how the trainer's policy differs from it.
                    weights_BT = None
                    if server is not None:
                        weights_BT = rollout_weights(
                            old[index], drawn[index], policy.mask_BT, config.weight_cap
                        )
                    part = grpo_loss(
                        policy.logp_BT,
                        old[index],
                        references[index],
                        mask_BT,
                        advantages_B[rows].to(mask_BT.device),
                        config.epsilon,
                        config.beta,
                        epsilon_high=config.epsilon_high,
                        normalisation=config.normalisation,
                        max_tokens=config.max_new_tokens,
                        kl=config.kl,
                        weights_BT=weights_BT,
                    )
                    # A pass's share of the step's loss: by tokens for dapo, else by responses.
                    if config.normalisation == "dapo":
                        part = part * int(mask_BT.sum()) / max(1, n_tokens)
                    else:
                        part = part * len(mask_BT) / n_responses
                    part.backward()
                loss += part.detach().cpu()
                tensors = (
                    policy.logp_BT.detach(),
                    old[index],
                    drawn[index],
                    references[index],
                    policy.mask_BT,
                )
                measured.append(Measured(*(tensor.cpu() for tensor in tensors)))
            processes.sum_gradients(list(weights.values()))
            loss = processes.total(loss).cpu()
            with keeping_batch(run, processes, step, partial(rollout_rows, rollouts)):
                norm = step_or_stop(optimizer, list(weights.values()), loss, config.clip_norm, step)

        if server is not None:
            server = pushed(server, lalm, run, processes)
        everyones = processes.gather(rollouts)
        row: dict[str, object] = {"step": step + 1, "loss": float(loss)}
        row |= {
            **row_of(everyones, processes.gather(measured), config),
            "lr": learning_rate,
            "grad_norm": norm,
        }
        if step % 10 == 0:
            first = everyones[0]
            row |= {"question": first.question, "sampled": first.text, "sampled_rewards": first.rewards}
        processes.log(run, row)
        bar.set_postfix({name: f"{row[name]:.2f}" for name in ("reward", "accuracy", "k")})
        if processes.main and ((step + 1) % config.checkpoint_every == 0 or step + 1 == n_steps):
            keep(run, step + 1, weights, optimizer, items)
    if processes.main:
        save_adapter(lalm, out / "adapter")
    processes.finish()
    return out / "adapter"

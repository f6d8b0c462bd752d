"""Stage 2, timestamp-grounded reasoning by GRPO (section 3.2, Eq. 3, 5 and 6, table 6).

One loop: listen to each question's clip once, sample a group of responses from that prefix, reward them,
compare them within the group, update the decoder's LoRA. The reference policy is the stage-1 model:
the same weights with the LoRA switched off.

Axes: P prompts, G responses a prompt, B = P * G sequences, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from tqdm import tqdm

from tgsr.choices import correct_letter
from tgsr.disk.jsonl import Row
from tgsr.engine.features import FeatureCache, KeptFeatures
from tgsr.engine.relisten import most_frames
from tgsr.engine.sampling import Sampled, decoder_of, sample, uniforms
from tgsr.engine.shared_prefix import Branch, BranchLogps, SharedPrefix, branch_logps, listen, of_clips
from tgsr.engine.vllm_rollouts import VllmServer, connect_all, push_to_all, sample_by_vllm
from tgsr.errors import OptionError, RunError
from tgsr.evaluation.watch import watch_of
from tgsr.grounding import count_distinct, count_mentions
from tgsr.grpo import Responses, group_advantages, grpo
from tgsr.models.aligner_and_lora import lora_off
from tgsr.models.lalm import Lalm, device_of
from tgsr.models.load import load
from tgsr.prompts import choice_question
from tgsr.records import NO_SPEECH, Question, moved, read_clips, read_questions
from tgsr.rewards import RewardTerm, is_payable, score_completions
from tgsr.timeline import Word
from tgsr.training.batches import hear_clips, passes, require_room, require_sound, steps_per_epoch, to_learn
from tgsr.training.config import GrpoConfig
from tgsr.training.processes import unsharded
from tgsr.training.run import Load, TrainingRun, make_trainable, start_run
from tgsr.training.steps import Trainer, as_trained
from tgsr.training.stopwatch import Stopwatch
from tgsr.training.terms import reward_terms

N_SHOWN = 4  # responses that a tracker's table gets of a step
IDLE = 10  # steps without a gradient from any reward, after which that is said
LOGGED_AS = {
    "answer": "accuracy",
    "timestamp_grounding": "grounding_reward",
}  # else a term's name and _reward


def clips_file(config: GrpoConfig) -> str | None:
    """The file of the clips' words: --clips, else clips.jsonl beside the questions where a reward needs words.

    OptionError where one does and neither is there.
    """
    if config.clips is not None or not config.needs_words:
        return config.clips
    beside = Path(config.questions).with_name("clips.jsonl")
    if not beside.exists():
        asked = "dense-weight" if config.reward is None else f"reward {config.reward}"
        raise OptionError(
            f"--{asked}: needs the words of the clips, and {beside} is not there; give --clips, as `tgsr build` or "
            "`tgsr transcribe` writes it"
        )
    return str(beside)


def words_by_clip(config: GrpoConfig, questions: Sequence[Question]) -> dict[str, tuple[Word, ...]]:
    """The words of each question's clip by the clip's id, for the rewards that need them; {} where none does.

    RunError for a question whose clip is not in --clips or has no words there, unless a step has flagged it as
    being without speech and the question's evidence is known: a reward that nobody can tell must not be 0.
    """
    file = clips_file(config)
    if not config.needs_words or file is None:
        return {}
    clips = {clip.id: clip for clip in read_clips(file)}
    for question in questions:
        clip = clips.get(question.clip_id)
        is_silent = clip is not None and NO_SPEECH in clip.flags and bool(question.evidence)
        if clip is None or not (clip.words or is_silent):
            raise RunError(
                f"{file}: {'is without the clip' if clip is None else 'has no word of'} {question.clip_id}, "
                f"that question {question.id} is about: make it with `tgsr transcribe`, leave the question out of "
                f"{config.questions}, or train with --reward paper"
            )
    return {id_: clip.words for id_, clip in clips.items()}


def unpayable(questions: Sequence[Question], config: GrpoConfig) -> str:
    """How many questions have a right answer that the answer's reward can never pay; "" where there is none."""
    n = sum(not is_payable(correct_letter(question)) for question in questions)
    if not n or config.answer_reader == "strict" or not config.answer_weight:
        return ""
    return (
        f"{n} of {len(questions)} questions have a right answer beyond (d), which the official reward never pays: "
        "they teach that it is wrong; --answer-reader strict pays every choice"
    )


@dataclass(frozen=True, slots=True)
class Prompted:
    """A question with its clip's audio and its prompt's tokens: `after` follows the audio in the prefix, and the
    `last` token begins each response's branch. `words` are what is said in the clip, where a reward needs them.
    """

    question: Question
    audio: KeptFeatures
    after: tuple[int, ...]
    last: tuple[int, ...]
    words: tuple[Word, ...] | None = None


def prompted(
    lalm: Lalm, question: Question, audio: KeptFeatures, words: tuple[Word, ...] | None = None
) -> Prompted:
    prompt = lalm.prompt(choice_question(question.question, question.choices)).after
    return Prompted(question, audio, prompt[:-1], prompt[-1:], words)


@dataclass(frozen=True, slots=True)
class Rollout:
    """One response with what it earned; `task` is its question's, "" where that has none."""

    question: str
    task: str
    text: str
    sampled: Sampled
    rewards: dict[str, float]
    reward: float
    advantage: float


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The responses to some of a step's prompts, which go through the policy together."""

    prefix: SharedPrefix
    branches: Sequence[Branch]
    rollouts: Sequence[Rollout]

    def logps(self, config: GrpoConfig, nucleus_of: float | None = None) -> BranchLogps:
        """The responses' log-probs under the model as it is now."""
        return branch_logps(self.prefix, self.branches, temperature=config.temperature, nucleus_of=nucleus_of)


@torch.no_grad()
def prefix_of(lalm: Lalm, prompts: Sequence[Prompted]) -> SharedPrefix:
    """Each question's clip and the question itself, as the prefix of its responses.

    The LoRA is on the layers after it and the aligner is frozen, so that sampler, reference and policy take
    the same one.
    """
    return listen(lalm, [p.audio.read() for p in prompts], after=[p.after for p in prompts])


@dataclass(frozen=True, slots=True)
class Groups:
    """Prompts with the G responses to each, in the same order; the prefix holds the prompts."""

    prompts: Sequence[Prompted]
    prefix: SharedPrefix
    rollouts: Sequence[Rollout]

    def with_gradient(self, config: GrpoConfig) -> Groups:
        """Those with a response that teaches and does not earn what its group earns on average: the others have no
        gradient by Eq. 5.

        A group with a response that failed is among them, so that its update is refused.
        """
        size = len(self.rollouts) // max(1, len(self.prompts))
        groups = [self.rollouts[i * size : (i + 1) * size] for i in range(len(self.prompts))]
        kept = [
            i
            for i, group in enumerate(groups)
            if any((r.advantage and teaches(r, config)) or r.sampled.failed for r in group)
        ]
        rollouts = [rollout for i in kept for rollout in groups[i]]
        return Groups([self.prompts[i] for i in kept], self.prefix.only(kept), rollouts)

    def and_also(self, more: Groups) -> Groups:
        prefix = self.prefix.and_also(more.prefix)
        return Groups([*self.prompts, *more.prompts], prefix, [*self.rollouts, *more.rollouts])


def roll_out(
    asked: Sequence[Prompted],
    draw: int,
    *,
    step: int,
    run: TrainingRun,
    config: GrpoConfig,
    terms: Sequence[RewardTerm],
    servers: Sequence[VllmServer],
    stopwatch: Stopwatch,
) -> Groups:
    """This process's share of what is asked, with G responses to each question, rewarded.

    Drawn by random numbers for all that is asked: whose share a question is does not matter to our sampler, nor to
    what a server is asked. They follow from the step and its number of the draw.
    """
    share, size = run.processes.share(len(asked)), config.group_size
    prompts = asked[share]
    seed = config.seed * 1_000_003 + step + (draw << 40)
    uniform_BN = uniforms(len(asked) * size, config.max_new_tokens, seed)
    uniform_BN = uniform_BN[share.start * size : share.stop * size]
    prefix = prefix_of(run.lalm, prompts)
    stopwatch.lap("listen")
    sampled = sample_groups(prefix, prompts, config, uniform_BN, servers)
    stopwatch.lap("sample")
    rollouts = rollouts_of(run.lalm, prompts, sampled, terms, config)
    stopwatch.lap("reward")
    return Groups(prompts, prefix, rollouts)


def dynamically_sampled(
    drawn: Groups,
    n_wanted: int,
    spare: Sequence[Prompted],
    config: GrpoConfig,
    roll_out: Callable[[Sequence[Prompted], int], Groups],
    total: Callable[[int], int],
) -> tuple[Groups, Groups]:
    """All that this process has drawn, and the groups of it that have a gradient: n_wanted over all processes, if
    there are so many.

    As many of the `spare` prompts as are missing are rolled out, at most --dynamic-sampling times; a `roll_out` is told
    which time it is, from 1 on. `total` sums over the processes. Source: DAPO, arXiv 2503.14476, which draws until its
    batch is full and without a bound.
    """
    learned = drawn.with_gradient(config)
    for draw in range(1, (config.dynamic_sampling or 0) + 1):
        n_missing = n_wanted - total(len(learned.prompts))
        asked, spare = spare[:n_missing], spare[n_missing:]
        if not asked:
            break
        more = roll_out(asked, draw)
        drawn, learned = drawn.and_also(more), learned.and_also(more.with_gradient(config))
    return drawn, learned


def sample_groups(
    prefix: SharedPrefix,
    prompts: Sequence[Prompted],
    config: GrpoConfig,
    uniform_BN: torch.Tensor,
    servers: Sequence[VllmServer],
) -> list[Sampled]:
    """G responses to each prompt, in the prompts' order, by our sampler or by servers; none for no prompt."""
    if not prompts:
        return []
    owners = [owner for owner in range(len(prompts)) for _ in range(config.group_size)]
    last = [prompts[owner].last for owner in owners]
    limits: dict[str, Any] = {
        "max_new_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
    }
    if servers:
        seeds = [int(first * 2**53) for first in uniform_BN[:, 0].tolist()]
        return sample_by_vllm(servers, prefix, owners, last, seed=seeds, **limits)
    lalm, at_once = prefix.lalm, config.branches_at_once
    with (
        unsharded(lalm),
        torch.autocast(device_of(lalm).type, torch.bfloat16, enabled=config.bfloat16),
    ):
        decoder = decoder_of(lalm, config.quantize)
        again = most_frames(lalm, config.hears_again)
        limits |= {"at_once": at_once, "decoder": decoder, "relisten_frames": again}
        return sample(prefix, owners, last, uniform_BN=uniform_BN, **limits)


def rollouts_of(
    lalm: Lalm,
    prompts: Sequence[Prompted],
    sampled: Sequence[Sampled],
    terms: Sequence[RewardTerm],
    config: GrpoConfig,
) -> list[Rollout]:
    """The sampled responses with their rewards (Eq. 3) and their advantages within each group of G (Eq. 5)."""
    if not prompts:
        return []
    owners = [prompt for prompt in prompts for _ in range(config.group_size)]
    texts = [lalm.text(list(response.ids)) for response in sampled]
    rewards, totals = score_completions(
        texts,
        terms,
        label=[correct_letter(owner.question) for owner in owners],
        choices=[owner.question.choices for owner in owners],
        words=[owner.words for owner in owners],
        duration=[owner.question.duration for owner in owners],
        evidence=[owner.question.evidence for owner in owners],
    )
    rewards_PG = torch.tensor(totals).view(len(prompts), config.group_size)
    advantages = group_advantages(rewards_PG, scale=config.scale_rewards).flatten().tolist()
    return [
        Rollout(
            owners[i].question.id,
            owners[i].question.task or "",
            texts[i],
            sampled[i],
            {name: values[i] for name, values in rewards.items()},
            totals[i],
            advantages[i],
        )
        for i in range(len(owners))
    ]


def spare_at(step: int, chosen: Sequence[Prompted], prompts: Sequence[Prompted], seed: int) -> list[Prompted]:
    """The prompts that a step has not chosen, in an order that follows from the seed and the step."""
    taken = {id(prompt) for prompt in chosen}
    order = np.random.default_rng((seed, step, 1)).permutation(len(prompts))
    return [prompts[i] for i in order if id(prompts[i]) not in taken]


def micro_batches_of(groups: Groups, config: GrpoConfig) -> list[MicroBatch]:
    """The rollouts, `prompts_at_once` whole groups together, and of these `responses_at_once`."""
    prompts, prefix, rollouts = groups.prompts, groups.prefix, groups.rollouts
    size = config.group_size
    branches = [Branch(i // size, prompts[i // size].last, r.sampled.row) for i, r in enumerate(rollouts)]
    micro_batches = []
    for some_groups in passes(len(prompts), config.prompts_at_once):
        first = some_groups.start * size
        for part in passes(some_groups.stop * size - first, config.responses_at_once):
            some = slice(first + part.start, first + part.stop)
            clips = slice(some.start // size, (some.stop - 1) // size + 1)
            micro_batches.append(
                MicroBatch(prefix.of(clips), of_clips(branches[some], clips), rollouts[some])
            )
    return micro_batches


def teaches(rollout: Rollout, config: GrpoConfig) -> bool:
    """Whether a response is learned from: with --mask-cut one that was cut is not."""
    return not (config.mask_cut and rollout.sampled.cut)


def responses_of(
    rollouts: Sequence[Rollout], policy: BranchLogps, reference_BT: torch.Tensor | None
) -> Responses:
    """What Eq. 6 is made of, at the first update: the policy is the one that sampled, and no second pass says so.

    vLLM's log-probs are renormalised within the nucleus; adding the log of the nucleus' mass undoes that.
    """
    mask_BT, device = policy.mask_BT, policy.mask_BT.device
    sampler_N = torch.tensor([logp for r in rollouts for logp in r.sampled.logps], device=device)
    sampler_BT = torch.zeros(mask_BT.shape, device=device).masked_scatter(mask_BT, sampler_N)
    if policy.nucleus_BT is not None:
        sampler_BT = sampler_BT + policy.nucleus_BT
    advantages_B = torch.tensor([r.advantage for r in rollouts], device=device)
    old_BT = policy.logp_BT.detach()
    return Responses(policy.logp_BT, old_BT, reference_BT, mask_BT, advantages_B, sampler_BT)


def backward(
    responses: Responses, rollouts: Sequence[Rollout], config: GrpoConfig, n_responses: int, n_tokens: int
) -> torch.Tensor:
    """A micro-batch's share of the step's loss (Eq. 6), after its backward pass.

    The step holds n_responses in all, and n_tokens that are learned from.
    """
    teaches_B = torch.tensor([teaches(r, config) for r in rollouts])
    taught_BT = responses.mask_BT & teaches_B[:, None].to(responses.mask_BT.device)
    loss, _ = grpo(replace(responses, mask_BT=taught_BT), config.eq6)
    if any(
        r.sampled.failed for r in rollouts
    ):  # it ends in a token that nobody drew: no update may rest on it
        loss = loss * math.nan
    if config.normalisation == "dapo":  # each token alike, else each response
        loss = loss * int(taught_BT.sum()) / max(1, n_tokens)
    else:
        loss = loss * len(taught_BT) / n_responses
    loss.backward()
    return loss.detach().cpu()


def on_cpu(responses: Responses) -> Responses:
    """The same numbers where another process can get them."""
    tensors = {field.name: getattr(responses, field.name) for field in fields(responses)}
    return replace(responses, **{name: t.detach().cpu() for name, t in tensors.items() if t is not None})


def padded_cat(measured: Sequence[Responses]) -> Responses:
    """All responses under each other, padded with zeros to the longest."""
    longest = max(responses.mask_BT.shape[1] for responses in measured)

    def cat(name: str) -> torch.Tensor | None:
        tensors = [getattr(responses, name) for responses in measured]
        if tensors[0] is None:  # no reference
            return None
        return torch.cat([pad(t, (0, longest - t.shape[1])) if t.ndim == 2 else t for t in tensors])

    of_all: dict[str, Any] = {field.name: cat(field.name) for field in fields(Responses)}
    return Responses(**of_all)


def log_row(rollouts: Sequence[Rollout], measured: Sequence[Responses], config: GrpoConfig) -> Row:
    """A step's numbers for the log, from all processes' rollouts and log-probs; without these where none learns."""
    tokens = padded_cat(measured) if measured else None
    rewards_PG = torch.tensor([float(r.reward) for r in rollouts]).view(-1, config.group_size)
    return {
        "reward": float(np.mean([r.reward for r in rollouts])),
        **{
            LOGGED_AS.get(name, f"{name}_reward"): float(np.mean([r.rewards[name] for r in rollouts]))
            for name in rollouts[0].rewards
        },
        "k": float(np.mean([count_mentions(r.text) for r in rollouts])),
        "k_strict": float(np.mean([count_distinct(r.text) for r in rollouts])),
        **({} if tokens is None else policy_row(tokens, config)),
        "tokens": float(np.mean([len(r.sampled.ids) for r in rollouts])),
        **({"frames_again": float(np.mean([n_again(r) for r in rollouts]))} if config.relisten else {}),
        "cut": sum(r.sampled.cut for r in rollouts),
        "equal_groups": int((rewards_PG.amax(1) == rewards_PG.amin(1)).sum()),
        "reward_std_within": float(rewards_PG.std(1).mean()),
        "reward_std_between": float(rewards_PG.mean(1).std()) if len(rewards_PG) > 1 else 0.0,
        **entropy_of(rollouts, tokens),
        "accuracy_by_task": accuracy_by_task(rollouts),
    }


def doubts_of(row: Mapping[str, Any], n_responses: int, n_idle: int, config: GrpoConfig) -> dict[str, str]:
    """What a run that goes on in such a way will not learn, by kind; {} as a rule.

    `row` is that of a step with so many responses, the last of `n_idle` in which no reward taught anything.
    """
    doubts: dict[str, str] = {}
    if 2 * row["cut"] >= n_responses:
        doubts["cut"] = (
            f"{row['cut']} of {n_responses} responses reached --max-new-tokens {config.max_new_tokens} before their "
            "end, where the answer is read: allow more, or look whether the model ever ends (tgsr check)"
        )
    if n_idle >= IDLE:
        doubts["idle"] = (
            f"for {n_idle} steps all responses to a question earned the same: no reward teaches anything, the KL alone "
            "does; look at what they say (sampled in metrics.jsonl), or take other questions"
        )
    return doubts


def n_again(rollout: Rollout) -> int:
    """How many frames a response has heard again."""
    return sum(one.stop - one.first for one in rollout.sampled.again)


def policy_row(tokens: Responses, config: GrpoConfig) -> Row:
    """How far the policy is from the reference, where there is one, and from the sampler."""
    _, seen = grpo(tokens, config.eq6)
    kl = {} if tokens.ref_logp_BT is None else {"kl": seen.mean_kl}
    return {**kl, "clipped": seen.clip_fraction, "drift": seen.drift}


def entropy_of(rollouts: Sequence[Rollout], tokens: Responses | None) -> dict[str, float]:
    """The policy's mean entropy at the tokens that it sampled, in nats, under softmax(logits / temperature).

    `entropy` is exact, over the whole vocabulary, where our sampler drew them. A server does not say it: then
    `entropy_sampled` is the mean of -log p of the tokens, which a nucleus below 1 makes too small.
    """
    exact = [entropy for r in rollouts for entropy in r.sampled.entropies]
    if exact:
        return {"entropy": float(np.mean(exact))}
    return {} if tokens is None else {"entropy_sampled": float(-tokens.old_logp_BT[tokens.mask_BT].mean())}


def accuracy_by_task(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """The share of right answers among the responses to each task's questions; those of no task are left out, and all
    where no term of the reward is the answer's.
    """
    right: dict[str, list[float]] = {}
    for rollout in rollouts:
        if rollout.task and "answer" in rollout.rewards:
            right.setdefault(rollout.task, []).append(rollout.rewards["answer"])
    return {task: float(np.mean(values)) for task, values in sorted(right.items())}


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
            **({"again": [astuple(one) for one in r.sampled.again]} if r.sampled.again else {}),
            **({"failed": r.sampled.failed} if r.sampled.failed else {}),
        }
        for r in rollouts
    ]


def sample_rows(rollouts: Sequence[Rollout], step: int) -> list[Row]:
    """Responses of a step with what they earned, for a table."""
    return [
        {
            "step": step,
            "question": r.question,
            "response": r.text,
            "reward": float(r.reward),
            **{name: float(value) for name, value in r.rewards.items()},
        }
        for r in rollouts
    ]


def sync_servers(servers: Sequence[VllmServer], run: TrainingRun) -> Sequence[VllmServer]:
    """The servers with the LoRA as it is now, without those that are down; the main process hands it over, all sample
    with them.
    """
    pushed = [push_to_all(servers, run.lalm, run.folder.path / "vllm")] if run.processes.main else []
    return run.processes.gather(pushed)[0]


def train_grpo(
    config: GrpoConfig,
    out: Path,
    cache: FeatureCache,
    load: Load = load,
    terms: Sequence[RewardTerm] | None = None,
    prepare: Callable[[Lalm, GrpoConfig], None] = make_trainable,
) -> Path:
    """The folder of an adapter, trained in `out`, where a run that was stopped goes on.

    `terms` are what a response is rewarded for, by default those of the settings; a run that goes on does not see
    whether they are still the same. `prepare` makes trainable what trains.
    """
    data = [file for file in (config.questions, clips_file(config)) if file is not None]
    given = moved(read_questions(config.questions), config.audio)
    questions, left_out = to_learn(
        given, config.questions, "choice", lambda question: question.kind == "choice"
    )
    require_sound(questions, config.questions)
    with start_run("grpo", config, data, out, cache, load) as run:
        if left_out and run.processes.main:
            print(left_out)
        prepare(run.lalm, config)
        return reinforce(run, config, questions, reward_terms(config) if terms is None else terms)


def reinforce(
    run: TrainingRun, config: GrpoConfig, questions: Sequence[Question], terms: Sequence[RewardTerm]
) -> Path:
    """The folder of the run's adapter: sampled, rewarded and updated step by step, by what trains in its model."""
    lalm, processes = run.lalm, run.processes
    # Refuses early what no number of questions makes right.
    steps_per_epoch(len(questions), config.prompts_per_step, processes.n, config.shard, config.shard)
    most_frames(lalm, config.hears_again)
    words = words_by_clip(config, questions)
    watch = watch_of(run, config, questions)
    servers: Sequence[VllmServer] = () if config.vllm is None else connect_all(config.vllm, lalm)
    audio = hear_clips(run, questions, config.questions)
    prompts = [prompted(lalm, q, audio[q.audio], words.get(q.clip_id)) for q in questions if q.audio in audio]
    # The prompt's last token, and the response.
    n_own = 1 + config.max_new_tokens + most_frames(lalm, config.hears_again)
    require_room(
        lalm, ((p.question.id, lalm.positions_of(p.audio.n_frames) + len(p.after) + n_own) for p in prompts)
    )
    if processes.main and (warning := unpayable([p.question for p in prompts], config)):
        print(warning)
    names = [p.question.id for p in prompts]
    trainer = Trainer(run, config, prompts, names, config.prompts_per_step, watch=watch)
    if servers:
        servers = sync_servers(servers, run)

    n_idle, doubted = 0, set[str]()
    for step, chosen in trainer.steps("stage 2"):
        # Rolled out
        rolled_out = partial(
            roll_out,
            step=step,
            run=run,
            config=config,
            terms=terms,
            servers=servers,
            stopwatch=trainer.stopwatch,
        )
        drawn = learned = rolled_out(chosen, 0)
        if config.dynamic_sampling is not None:
            spare = spare_at(step, chosen, prompts, config.seed)
            drawn, learned = dynamically_sampled(drawn, len(chosen), spare, config, rolled_out, processes.sum)
        micro_batches = micro_batches_of(learned, config)
        n_responses = processes.sum(len(learned.rollouts))
        n_tokens = processes.sum(sum(len(r.sampled.ids) for r in learned.rollouts if teaches(r, config)))

        # Reference: the log-probs without the LoRA, where the KL term weighs something.
        references: list[torch.Tensor | None] = [None] * len(micro_batches)
        if config.beta:
            with torch.no_grad(), lora_off(lalm), as_trained(lalm, config):
                references = [micro_batch.logps(config).logp_BT for micro_batch in micro_batches]

        # Backward and step, on the same rollouts as often as the settings say.
        measured: list[Responses] = []
        for n_updates in range(config.updates_per_rollout):
            trainer.optimizer.zero_grad()
            loss = torch.zeros(())
            for index, micro_batch in enumerate(micro_batches):
                with as_trained(lalm, config):
                    if n_updates == 0:
                        policy = micro_batch.logps(config, config.top_p if servers else None)
                        measured.append(responses_of(micro_batch.rollouts, policy, references[index]))
                    else:
                        policy = micro_batch.logps(config)
                    responses = replace(measured[index], logp_BT=policy.logp_BT)
                    measured[index] = replace(responses, logp_BT=policy.logp_BT.detach())
                    loss += backward(responses, micro_batch.rollouts, config, n_responses, n_tokens)
            update = trainer.update(step, loss, partial(rollout_rows, learned.rollouts))
        if servers:
            servers = sync_servers(servers, run)

        # Log
        everyones = processes.gather(drawn.rollouts)
        row: dict[str, Any] = {
            "step": step + 1,
            "loss": update.loss,
            **log_row(everyones, processes.gather([on_cpu(r) for r in measured]), config),
            "lr": update.lr,
            "grad_norm": update.grad_norm,
        }
        if config.dynamic_sampling is not None:
            n_sampled = sum(len(r.sampled.ids) for r in everyones)
            n_learned = processes.sum(sum(len(r.sampled.ids) for r in learned.rollouts))
            row |= {
                "drawn_groups": len(everyones) // config.group_size - len(chosen),
                "learned_groups": n_responses // config.group_size,
                "tokens_saved": n_sampled - n_learned,
            }
        n_idle = n_idle + 1 if row["equal_groups"] * config.group_size == len(everyones) else 0
        for kind, doubt in doubts_of(row, len(everyones), n_idle, config).items():
            if processes.main and kind not in doubted:
                tqdm.write(f"warning: step {step + 1}: {doubt}")
            doubted.add(kind)
        if step % 10 == 0:
            first = everyones[0]
            row |= {"question": first.question, "sampled": first.text, "sampled_rewards": first.rewards}
            processes.table("samples", sample_rows(everyones[:N_SHOWN], step + 1))
        trainer.log(row, *(name for name in ("reward", "accuracy", "k") if name in row))
    return trainer.finish()

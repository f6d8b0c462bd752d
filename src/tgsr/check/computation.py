"""Part 2: what is computed is what the authors' class computes, in the precision of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tgsr.check.bench import Bench, with_both_stages
from tgsr.check.official import official_greedy, official_logps
from tgsr.check.rows import Row, not_asked
from tgsr.engine.features import without_cache
from tgsr.engine.sampling import sample, uniforms
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.models.aligner_and_lora import lora_off
from tgsr.models.foreign_adapter import AdapterRead

TEMPERATURE, N_DRAWN = 0.7, 8


def ours(bench: Bench) -> list[Tensor]:
    """Each branch's log-probs by the engine, as float32; with gradients where something trains."""
    with bench.rounded():
        made = branch_logps(listen(bench.lalm, bench.heard), bench.branches)
    return [row[mask] for row, mask in zip(made.logp_BT, made.mask_BT, strict=True)]


def theirs(bench: Bench) -> list[Tensor]:
    """The same by the official forward."""
    with bench.rounded():
        return official_logps(bench.lalm, bench.sounds, bench.branches)


def apart(some: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """How far log-probs are from each other, token by token."""
    return (torch.cat(list(some)) - torch.cat(list(others))).detach().abs()


@torch.no_grad()
def log_probs(bench: Bench) -> Row:
    """Branches that share their prefixes against the official forward of whole sequences."""
    moved = apart(ours(bench), theirs(bench))
    mean_bar, largest_bar = bench.tolerance
    mean, largest = float(moved.mean()), float(moved.max())
    return Row(
        2,
        "log-probs",
        f"largest {largest:.1e}, mean {mean:.1e} nats off over {len(moved)} tokens",
        f"the official forward's: {largest_bar:.0e} and {mean_bar:.0e} in {bench.precision}",
        mean <= mean_bar and largest <= largest_bar,
        "training would not see the authors' model: positions, masks or weights differ; --load-as float32 rules out "
        "rounding",
        {"largest": largest, "mean": mean},
    )


def finite(bench: Bench) -> Row:
    """Features as they are kept, log-probs and gradients in the run's precision hold numbers."""
    lalm = bench.lalm
    for sound in bench.sounds:
        without_cache(lalm, sound)
    with with_both_stages(lalm) as trained:
        logps = torch.cat(ours(bench))
        gradients = torch.autograd.grad(-logps.mean(), list(trained.values()), allow_unused=True)
    n_bad = int((~torch.isfinite(logps)).sum())
    n_bad_tensors = sum(g is not None and not bool(torch.isfinite(g).all()) for g in gradients)
    return Row(
        2,
        "range",
        f"{n_bad} of {len(logps)} log-probs and {n_bad_tensors} of {len(gradients)} gradients are not finite",
        f"all are finite in {bench.precision}",
        not n_bad and not n_bad_tensors,
        f"{bench.precision} cannot hold what this model computes: take --load-as bfloat16 or float32",
        {"log_probs": n_bad, "gradients": n_bad_tensors},
    )


def gradients(bench: Bench) -> Row:
    """Gradients of the first and the last tensor that trains (aligner and LoRA), against the official forward's."""
    bar = 1e-3 if bench.is_exact else 0.1
    with with_both_stages(bench.lalm) as trained:
        names = list(trained)
        first_and_last = [trained[names[0]], trained[names[-1]]]
        found = [
            torch.autograd.grad(-torch.cat(make(bench)).mean(), first_and_last) for make in (ours, theirs)
        ]
    off = [float((a - b).norm() / b.norm()) for a, b in zip(*found, strict=True)]
    is_there = all(float(gradient.norm()) > 0 for gradient in found[1])
    return Row(
        2,
        "gradients",
        ", ".join(
            f"{short(name)} {value:.1e}" for name, value in zip((names[0], names[-1]), off, strict=True)
        ),
        f"the official forward's, to {bar:g} of their length",
        is_there and all(value <= bar for value in off),  # of NaN max may not know
        "what is learned would not be the authors' loss: look at the rows above first",
        {"first": off[0], "last": off[1]},
    )


def short(name: str) -> str:
    """A parameter's name without the wrappers that every one has."""
    return name.removeprefix("base_model.model.").removeprefix("model.")


@torch.no_grad()
def sampler(bench: Bench) -> Row:
    """Greedy decoding against transformers' `generate`, token by token, or a tie where they part."""
    lalm, n = bench.lalm, bench.size.greedy_tokens
    prompt = lalm.prompt("What is said?").after
    with bench.rounded():
        heard = listen(lalm, bench.heard[:1])
        mine = sample(heard, [0], [prompt], max_new_tokens=n, temperature=0)[0]
        official = official_greedy(lalm, bench.sounds[0], prompt, n)
        same = next((i for i, (a, b) in enumerate(zip(mine.ids, official, strict=False)) if a != b), None)
        gap = 0.0
        if same is not None:  # how much less likely the engine finds what generate took there
            branch = Branch(0, prompt, tuple(official[: same + 1]))
            gap = mine.logps[same] - float(branch_logps(heard, [branch]).logp_BT[0, same])
    bar = bench.tolerance[1]
    n_mine = len(mine.ids)
    if not lalm.cross_attends and lalm.audio_id in official:  # where `generate` had to end
        n_mine = min(n_mine, len(official))
    as_long = same is not None or n_mine == len(official)
    return Row(
        2,
        "sampler",
        f"the first {len(official) if same is None else same} of {len(official)} greedy tokens are generate's"
        + ("" if same is None else f", then one that is {gap:.1e} nats likelier")
        + ("" if as_long else f"; ours ends after {len(mine.ids)}"),
        f"all of them, or a tie ({bar:.1g} nats) where they part",
        as_long and abs(gap) <= bar,
        "responses would be drawn from another model than the one asked elsewhere: compare the end tokens first",
        {"gap": gap, "n_same": len(official) if same is None else same},
    )


@torch.no_grad()
def drawn(bench: Bench) -> Row:
    """The log-probs that the sampler gives its tokens against those that the trainer computes of them."""
    lalm = bench.lalm
    prompt = lalm.prompt("What is said?").after
    with bench.rounded():
        heard = listen(lalm, bench.heard)
        made = sample(
            heard,
            [0, 1, 1],
            [prompt] * 3,
            max_new_tokens=N_DRAWN,
            temperature=TEMPERATURE,
            uniform_BN=uniforms(3, N_DRAWN, 0),
        )
        branches = [Branch(owner, prompt, one.ids) for owner, one in zip((0, 1, 1), made, strict=True)]
        again = branch_logps(heard, branches, temperature=TEMPERATURE)
    sampled = torch.tensor([logp for one in made for logp in one.logps], device=again.logp_BT.device)
    moved = (again.logp_BT[again.mask_BT] - sampled).abs()
    bar = bench.tolerance[1]
    return Row(
        2,
        "drawn tokens",
        f"largest {float(moved.max()):.1e}, mean {float(moved.mean()):.1e} nats off over {len(moved)} tokens",
        f"the trainer's log-probs of them, to {bar:.1g}",
        float(moved.max()) <= bar,
        "ratio and KL of stage 2 would begin away from 1 and 0: sampler and trainer compute different things",
        {"largest": float(moved.max()), "mean": float(moved.mean())},
    )


def head(bench: Bench) -> Row:
    """Whether the head is the embedding's matrix where the checkpoint's config says that it is."""
    lalm = bench.lalm
    config = lalm.inner.config
    is_tied = bool(
        getattr(config, "tie_word_embeddings", False)
        or getattr(config.get_text_config(), "tie_word_embeddings", False)
    )
    rows: Any = lalm.lm_head.weight
    columns: Any = lalm.language_model.get_input_embeddings().weight
    is_same = rows is columns or (rows.shape == columns.shape and bool(torch.equal(rows, columns)))
    return Row(
        2,
        "head",
        "the embedding's matrix" if is_same else "a matrix of its own",
        "the embedding's, by config.json" if is_tied else "either, by config.json",
        is_same or not is_tied,
        "the head is not the one that the checkpoint means (tie_word_embeddings): it was copied, trained apart, or "
        "left random when it was saved or loaded",
    )


@torch.no_grad()
def adapter(bench: Bench) -> Row:
    """Whether the LoRA that the model came with changes anything."""
    if not hasattr(bench.lalm.model, "peft_config"):
        return not_asked(2, "adapter", "there is no LoRA")
    own = ours(bench)
    with lora_off(bench.lalm):
        moved = apart(own, ours(bench))
    return Row(
        2,
        "adapter",
        f"it moves log-probs by up to {float(moved.max()):.3g}, {float(moved.mean()):.3g} on average",
        "by more than 0",
        float(moved.max()) > 1e-5,
        "its matrices are zero, or it is switched off: what answers is the base; look which step's checkpoint was "
        "saved, and for names that its loader did not know",
        {"largest": float(moved.max())},
    )


def adapter_file(read: AdapterRead) -> Row:
    """How much of another trainer's adapter found its place in the model."""
    n = read.n_read + len(read.unread)
    first = f"; not read, first: {read.unread[0]}" if read.unread else ""
    return Row(
        2,
        "adapter's file",
        f"{read.n_read} of {n} tensors are read, {read.n_zero} of {read.n_pairs} pairs are zero{first}",
        "all are read, and not all are zero",
        read.n_read > 0 and not read.unread and read.n_zero < read.n_pairs,
        "unread: it was trained on another model or class, or holds more than a LoRA (modules_to_save): merge it with "
        "the trainer that wrote it and check the merged folder. Zero: its training has changed nothing",
        {"read": read.n_read, "unread": len(read.unread), "zero": read.n_zero, "pairs": read.n_pairs},
    )

"""Part 6: what prefill, decoding and updates cost on this device, and what the whole training would by that."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from tgsr.audio import load as load_sound
from tgsr.check.bench import Bench, with_both_stages
from tgsr.check.rows import Row
from tgsr.engine.sampling import Sampled, decoder_of, sample, uniforms
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.models.lalm import device_of
from tgsr.records import by_clip, read_questions
from tgsr.training.cost import (
    GPUS,
    ClipTokens,
    Machine,
    Work,
    forward_flops,
    head_flops,
    update_flops,
)
from tgsr.training.plan import report, sizes_of_model

PEAK_SIDE = 2048  # of the square matrices by whose product a device's peak is measured
PEAK_SIDE_GPU = 8192
N_BRANCHES = 4
LEAST_DECODING = 0.1  # of prefill and decoding together: on a busy machine their difference may be nothing
"""Where a device's peak is not known by its vendor, it is that of one large product."""


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall seconds of the second of two calls: the first compiles, and fills caches."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    work()
    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def peak_flops(bench: Bench) -> tuple[float, str]:
    """What the device can do a second in the run's precision, and who says so."""
    device = device_of(bench.lalm)
    if device.type == "cuda":
        known = torch.cuda.get_device_name(device).lower().replace(" ", "")
        for name, machine in GPUS.items():
            if name.split("-")[0] in known and bench.precision != "float32":
                return machine.flops, f"{torch.cuda.get_device_name(device)}, by its vendor"
    side = PEAK_SIDE_GPU if device.type == "cuda" else PEAK_SIDE
    dtype = torch.float32 if bench.bfloat16 and device.type == "cpu" else getattr(torch, bench.precision)
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return 2 * side**3 / seconds_of(lambda: a @ b, device), f"{what}, a product of {side} x {side} measured"


def peak_bytes(device: torch.device) -> float:
    """The most memory that was held so far: of the GPU by tensors, else of this process by everything."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(used * (1 if platform.system() == "Darwin" else 1024))


def memory_of(device: torch.device) -> float:
    """How many bytes the device has."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def cost(bench: Bench) -> Row:
    """Tokens a second of prefill, decoding and an update, their share of the peak, and the most memory held."""
    lalm, size = bench.lalm, bench.size
    device = device_of(lalm)
    heard = [lalm.encode_audio(load_sound(path)) for _, path in bench.speech.clips[: size.timed_clips]]
    prompt = lalm.prompt("What is said?").after
    n_new, owners = size.timed_tokens, [c for c in range(len(heard)) for _ in range(N_BRANCHES)]
    draws = uniforms(len(owners), n_new, 0)
    with torch.no_grad(), bench.rounded():
        prefix, reader = listen(lalm, heard), decoder_of(lalm)
        prefilling = seconds_of(lambda: reader.prefill(prefix), device)
        drawn: list[Sampled] = []

        def draw() -> None:
            drawn[:] = sample(
                prefix,
                owners,
                [prompt] * len(owners),
                max_new_tokens=n_new,
                temperature=1.0,
                uniform_BN=draws,
            )

        both = seconds_of(draw, device)
        decoding = max(both - prefilling, LEAST_DECODING * both)
    branches = [Branch(owner, prompt, one.ids) for owner, one in zip(owners, drawn, strict=True)]
    with with_both_stages(lalm) as trained:

        def update() -> None:
            with bench.rounded():
                loss = -branch_logps(listen(lalm, heard), branches).logp_BT.mean()
            torch.autograd.grad(loss, list(trained.values()), allow_unused=True)

        updating = seconds_of(update, device)
    n_prefix = [len(row) for row in prefix.rows]
    n_drawn = sum(len(one.ids) for one in drawn)
    n_updated = sum(n_prefix) + sum(len(b.prompt) + len(b.answer) for b in branches)
    rates = {
        "prefill": sum(n_prefix) / prefilling,
        "decoding": n_drawn / decoding,
        "update": n_updated / updating,
    }
    values: dict[str, float | str | None] = {
        f"{name}_tokens_per_second": rate for name, rate in rates.items()
    }
    peak, by_whom = peak_flops(bench)
    shares: dict[str, float] = {}
    if not lalm.cross_attends:
        shape = sizes_of_model(lalm.inner, "the loaded model").decoder
        alone = [ClipTokens(n, (1,), (1,)) for n in n_prefix]
        together = [
            ClipTokens(
                n,
                tuple(len(b.prompt) + len(b.answer) for b in branches if b.owner == clip),
                tuple(len(b.answer) for b in branches if b.owner == clip),
            )
            for clip, n in enumerate(n_prefix)
        ]
        shares = {
            "prefill": sum(forward_flops(shape, c, True) - head_flops(shape, c) for c in alone)
            / prefilling
            / peak,
            "decoding": 2.0 * shape.weights * n_drawn / decoding / peak,
            "update": sum(update_flops(shape, c, True, checkpointing=False) for c in together)
            / updating
            / peak,
        }
        values |= {f"{name}_share_of_peak": share for name, share in shares.items()}
    held = peak_bytes(device)
    values |= {
        "peak_memory_bytes": held,
        "peak_flops": peak,
        "peak_source": by_whom,
        "n_steps": max(len(d.ids) for d in drawn),
    }
    values["decoding_seconds_per_step"] = decoding / max(len(one.ids) for one in drawn)
    said = ", ".join(
        f"{name} {rate:,.0f}" + (f" ({shares[name]:.1%} of the peak)" if shares else "")
        for name, rate in rates.items()
    )
    return Row(
        6,
        "tokens a second",
        f"{said}; {held / 1e9:.2f} GB held at most; peak {peak / 1e12:.3g} TFLOP/s ({by_whom})",
        "",
        None,
        values=values,
    )


def plan_of(bench: Bench, measured: Row, n_gpus: int = 1) -> str:
    """`tgsr plan` for this model and the bench's questions, with what was measured in place of its assumptions."""
    if bench.lalm.cross_attends:
        return "plan: its cost model has no audio that enters by cross-attention"
    if "peak_flops" not in measured.values:
        return "plan: nothing was measured that it could rest on"
    device = device_of(bench.lalm)
    sizes = replace(
        sizes_of_model(bench.lalm.inner, "the loaded model"), has_own_lora=bool(bench.lalm.merged)
    )
    values = {name: float(value) for name, value in measured.values.items() if isinstance(value, float | int)}
    machine = Machine(
        flops=values["peak_flops"],
        # A step of decoding reads all weights once.
        bandwidth=2.0 * sizes.decoder.weights / values["decoding_seconds_per_step"],
        memory=memory_of(device),
        utilisation=values["update_share_of_peak"],
    )
    phrases = by_clip([q for q in read_questions(bench.speech.phrases) if q.kind == "phrase"])
    choices = read_questions(bench.speech.choices)
    work = replace(
        Work(),
        seconds=float(np.mean([clip[0].duration for clip in phrases])),
        phrases=sum(map(len, phrases)),
        phrases_a_clip=max(1, round(sum(map(len, phrases)) / len(phrases))),
        questions=len(choices),
    )
    return report(bench.lalm.name, sizes, device.type, machine, n_gpus, work, assumed=False)

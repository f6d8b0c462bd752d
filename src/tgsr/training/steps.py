"""What every training loop does around its loss: the learning rate's course, and one guarded update."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from tgsr.audio import AudioError
from tgsr.engine.branch_attention import NAME as BRANCHES
from tgsr.engine.branch_attention import attention_as
from tgsr.engine.features import FeatureCache, KeptFeatures, hear
from tgsr.models.lalm import Lalm, ModelError, context_of, device_of, n_spread
from tgsr.models.load import load, without_renaming_warning
from tgsr.models.placement import Devices, LoadAs, Placement
from tgsr.records import Question, Row, write_jsonl
from tgsr.training.checkpoints import RunError, RunFolder, load_checkpoint, open_run, save_checkpoint
from tgsr.training.processes import Processes, start

T = TypeVar("T")


def require(flag: str, value: float | None, wanted: str, holds: bool) -> None:
    """RunError that names the flag, its value and what it may be, unless that `holds`."""
    if not holds:
        raise RunError(f"--{flag.replace('_', '-')} {value}: must be {wanted}")


def require_counts(config: object, *names: str) -> None:
    """The named settings are 1 or more; None where a setting may be None."""
    for name in names:
        value = getattr(config, name)
        require(name, value, "1 or more", value is None or value >= 1)


class Optimization(Protocol):
    """The settings that every loop's optimizer has."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup_share(self) -> float: ...
    @property
    def clip_norm(self) -> float: ...


def require_optimization(config: Optimization) -> None:
    require("learning_rate", config.learning_rate, "above 0", config.learning_rate > 0)
    require("warmup_share", config.warmup_share, "0 to 1", 0 <= config.warmup_share <= 1)
    require("clip_norm", config.clip_norm, "above 0", config.clip_norm > 0)


class Model(Protocol):
    """The settings that say which model is trained, and where its weights are."""

    @property
    def model(self) -> str: ...
    @property
    def load_as(self) -> LoadAs: ...
    @property
    def devices(self) -> Devices: ...
    @property
    def shard(self) -> bool: ...


def load_to_train(config: Model, processes: Processes) -> Lalm:
    """The model where its settings say. RunError for a place that cannot be trained in, before anything runs."""
    if config.shard and config.load_as == "4bit":
        raise RunError("--shard: spreads whole matrices, not those in 4 bits; take --load-as bfloat16")
    if config.devices == "all" and processes.n > 1:
        raise RunError(
            f"--devices all: one process's layers over all GPUs, and there are {processes.n} processes; start one, "
            "or take --shard, which spreads a model over processes"
        )
    lalm = load(config.model, Placement(config.load_as, config.devices))
    if waiting := n_spread(lalm)[1]:
        raise RunError(
            f"{config.model}: {waiting} of its layers do not fit the GPUs and wait in the host's memory, where they "
            "cannot be trained: take --load-as 4bit or bfloat16, more GPUs, or --shard"
        )
    return lalm


class NotFinite(RuntimeError):
    """A loss or gradient that is not finite: training stops before it reaches the weights."""


def cosine(step: int, n_steps: int, n_warmup: int, floor: float = 0.05) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then a half cosine down to `floor`."""
    warm = min(1.0, (step + 1) / max(1, n_warmup))
    return warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, n_steps)))))


def linear(step: int, n_steps: int, n_warmup: int) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then linearly down to zero after the last step."""
    warm = min(1.0, (step + 1) / max(1, n_warmup))
    return warm * (n_steps - step) / max(1, n_steps)


SCHEDULES = {"cosine": cosine, "linear": linear}
Schedule = Literal["cosine", "linear"]


def set_learning_rate(
    optimizer: torch.optim.Optimizer,
    peak: float,
    schedule: Schedule,
    step: int,
    n_steps: int,
    warmup_share: float,
) -> float:
    """Gives the optimizer this step's learning rate and returns it."""
    learning_rate = peak * SCHEDULES[schedule](step, n_steps, round(warmup_share * n_steps))
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    return learning_rate


def step_or_stop(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], loss: Tensor, clip_norm: float, step: int
) -> float:
    """One update with clipped gradients; returns their norm before clipping. NotFinite instead of a bad update."""
    norm = float(nn.utils.clip_grad_norm_(parameters, clip_norm))
    value = float(loss.detach())
    if not (math.isfinite(norm) and math.isfinite(value)):
        raise NotFinite(
            f"step {step}: loss {value}, gradient norm {norm}; the weights are those before this update. "
            "Lower the learning rate, or look at this step's clips"
        )
    optimizer.step()
    return norm


def start_run(
    stage: str, config: Any, data: str, out: Path, cache: FeatureCache
) -> tuple[Processes, RunFolder]:
    """Joins the run's processes, opens its folder, and its tracker's record. RunError as open_run says."""
    processes = start(out, config.tracker)
    with processes.main_first():
        run = open_run(out, stage, config, data, cache)
    processes.track(stage, config)
    return processes, run


@contextmanager
def keeping_batch(
    run: RunFolder, processes: Processes, step: int, rows: Callable[[], list[Row]]
) -> Iterator[None]:
    """Where the block raises NotFinite, all processes' `rows` of the step are written beside the run and named.

    A gradient that is summed over the processes is not finite in all of them, so that all arrive here.
    """
    try:
        yield
    except NotFinite as error:
        batch = run.path / f"not-finite-step-{step}.jsonl"
        gathered = processes.gather(rows())
        if processes.main:
            write_jsonl(batch, gathered)
        raise NotFinite(f"{error}; its batch: {batch}") from error


def hear_clips(
    lalm: Lalm,
    questions: Sequence[Question],
    path: str,
    cache: FeatureCache,
    run: RunFolder,
    processes: Processes,
) -> dict[str, KeptFeatures]:
    """The encoder's output of each clip, on disk: the processes share the work, and read what any of them wrote.

    A clip that cannot be read or is too long is left out and recorded in the run's errors.jsonl. Raises
    RunError where none is left.
    """
    clips = list({question.audio: question for question in questions}.values())
    mine = clips[processes.share(len(clips))]
    heard: list[tuple[str, KeptFeatures]] = []
    unheard: list[Row] = []
    for question in tqdm(mine, desc="listening", unit="clip", disable=not processes.main):
        try:
            heard.append((question.audio, hear(lalm, question, path, cache)))
        except (AudioError, ModelError, FileNotFoundError) as error:
            unheard.append({"clip": question.clip_id, "audio": question.audio, "error": str(error)})
    unheard = processes.gather(unheard)
    everything = dict(processes.gather(heard))
    if unheard and processes.main:
        write_jsonl(run.path / "errors.jsonl", unheard)
        print(f"{len(unheard)} clips are left out: {run.path / 'errors.jsonl'}")
    if not everything:
        raise RunError(
            f"{path}: none of its {len(clips)} clips can be heard; see {run.path / 'errors.jsonl'}"
        )
    return everything


def require_room(lalm: Lalm, n_tokens: Iterable[tuple[str, int]]) -> None:
    """RunError for the first item that the context cannot hold: its name, its tokens from the audio on."""
    context, n_before = context_of(lalm), len(lalm.prompt("").before)
    for name, n in n_tokens:
        if n_before + n > context:
            raise RunError(
                f"{name}: needs {n_before + n} tokens with its audio, {lalm.name}'s context has {context}; "
                "leave it out, cut its clip or allow fewer new tokens"
            )


def restore(
    run: RunFolder,
    processes: Processes,
    lalm: Lalm,
    optimizer: torch.optim.Optimizer,
    items: Sequence[str],
) -> int:
    """How many steps are done: weights and optimizer become those of the last checkpoint, if there is one.

    RunError where the items (questions or clips, by name) are not those that the run started with: then
    no step would be what it was.
    """
    with processes.main_first():
        state = load_checkpoint(run)
    if state is None:
        return 0
    if state["items"] != _names_hash(items):
        raise RunError(
            f"{run.path}: its checkpoint was made with other clips or questions than the {len(items)} that can be "
            "used now; bring back what is missing (see errors.jsonl), or start in another --out"
        )
    lalm.model.load_state_dict(state["weights"], strict=False)
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def keep(
    run: RunFolder,
    step: int,
    weights: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    items: Sequence[str],
) -> None:
    """A checkpoint after `step` steps, as `restore` reads it."""
    state = {"weights": dict(weights), "optimizer": optimizer.state_dict(), "items": _names_hash(items)}
    save_checkpoint(run, step, state)


def _names_hash(items: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(items).encode()).hexdigest()[:16]


def chosen_at(step: int, items: Sequence[T], per_step: int, an_epoch: int, seed: int) -> list[T]:
    """The items of a step: each epoch's order is its own, and follows from the seed and the epoch's number."""
    epoch, place = divmod(step, an_epoch)
    order = np.random.default_rng((seed, epoch)).permutation(len(items))
    return [items[i] for i in order[place * per_step : (place + 1) * per_step]]


def steps_per_epoch(n_items: int, per_step: int, processes: Processes, shard: bool) -> int:
    """How many steps see all items once, the last one perhaps fewer than the others.

    Sharded processes gather layers together and must do the same number of passes: each step is then full
    and divided evenly, and a rest waits for another epoch's order. RunError where that cannot be.
    """
    if not shard:
        return math.ceil(n_items / per_step)
    if processes.n == 1:
        raise RunError(
            "--shard: needs several processes; start them with torchrun --nproc-per-node N -m tgsr.cli"
        )
    if per_step % processes.n or n_items < per_step:
        raise RunError(
            f"--shard: {per_step} items a step must be a multiple of {processes.n} processes, "
            f"and no more than there are, {n_items}"
        )
    return n_items // per_step


def passes(n: int, at_once: int | None) -> list[slice]:
    """A step's n clips in pieces of at most `at_once`, one after the other; None: all in one; n may be 0."""
    size = at_once or max(1, n)
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


@contextmanager
def as_trained(lalm: Lalm, bfloat16: bool, gradient_checkpointing: bool) -> Iterator[None]:
    """Within it, the decoder computes in bfloat16 and keeps only its layers' inputs, each where asked.

    Checkpointed layers are computed again in the backward pass: the same numbers for a third more work.
    The decoder has no dropout, so that switching it to training mode, which checkpointing needs, changes nothing.
    """
    decoder = lalm.language_model
    if gradient_checkpointing:
        with without_renaming_warning():
            decoder.gradient_checkpointing_enable({"use_reentrant": False})
        decoder.train()
    try:
        # The backward pass computes checkpointed layers again: by the same attention as the forward did.
        with (
            attention_as(decoder, BRANCHES),
            torch.autocast(device_of(lalm).type, torch.bfloat16, enabled=bfloat16),
        ):
            yield
    finally:
        if gradient_checkpointing:
            with without_renaming_warning():
                decoder.gradient_checkpointing_disable()
            decoder.eval()

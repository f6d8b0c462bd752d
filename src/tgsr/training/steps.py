"""The steps of a training loop, around its loss: items chosen, one guarded update, a row of the log, a checkpoint."""

from __future__ import annotations

import hashlib
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers.modeling_layers import GradientCheckpointingLayer

from tgsr.disk.jsonl import Row
from tgsr.engine.lean_layers import lean
from tgsr.errors import NotFinite, RunError, Stopped
from tgsr.models.aligner_and_lora import parts_table, without_renaming_warning
from tgsr.models.lalm import Lalm, device_of
from tgsr.models.load import save_adapter
from tgsr.records import write_jsonl
from tgsr.training.batches import chosen_at, steps_per_epoch
from tgsr.training.checkpoints import (
    Best,
    kept_checkpoints,
    load_checkpoint,
    remove_old,
    save_checkpoint,
    say_stopped,
)
from tgsr.training.config import TrainingConfig
from tgsr.training.processes import shard_frozen
from tgsr.training.run import TrainingRun
from tgsr.training.stopwatch import Stopwatch
from tgsr.training.watch import Watch

T = TypeVar("T")


def cosine(step: int, n_steps: int, n_warmup: int, floor: float = 0.05) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then a half cosine down to `floor`."""
    warm = min(1.0, (step + 1) / max(1, n_warmup))
    return warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, n_steps)))))


def linear(step: int, n_steps: int, n_warmup: int) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then linearly down to zero after the last step."""
    warm = min(1.0, (step + 1) / max(1, n_warmup))
    return warm * (n_steps - step) / max(1, n_steps)


def constant(step: int, n_steps: int, n_warmup: int) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then all of it, however many steps there are."""
    return min(1.0, (step + 1) / max(1, n_warmup))


SCHEDULES = {"cosine": cosine, "linear": linear, "constant": constant}


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


def descend(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    loss: Tensor,
    learning_rate: float,
    clip_norm: float,
    step: int,
) -> dict[str, Any]:
    """One step down the loss' gradient at that rate, and its row of the log; NotFinite as `step_or_stop` raises it."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad()
    loss.backward()
    norm = step_or_stop(optimizer, parameters, loss, clip_norm, step)
    return {"step": step + 1, "loss": float(loss.detach()), "lr": learning_rate, "grad_norm": norm}


def spelled_out(value: Any) -> Any:
    """The value with each float that JSON has no number for (NaN, infinities) as text."""
    if isinstance(value, Mapping):
        return {key: spelled_out(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [spelled_out(inside) for inside in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class Update(NamedTuple):
    """One update's numbers, by their names in the log."""

    loss: float
    lr: float
    grad_norm: float


class Trainer(Generic[T]):
    """What trains in a run, its optimizer, and the steps over some items, each item with its name.

    The weights and the optimizer are those of the run's last checkpoint, if there is one. RunError where that was
    made with items of other names: then no step would be what it was.

    The schedule's length is what was planned when the run began, so that lower --max-steps only end it; more than was
    planned make it longer from then on. The warm-up stays as long as it was.
    """

    def __init__(
        self,
        run: TrainingRun,
        config: TrainingConfig,
        items: Sequence[T],
        names: Sequence[str],
        per_step: int,
        *,
        weight_decay: float = 0.0,
        watch: Watch | None = None,
    ) -> None:
        if run.processes.main:
            print(parts_table(run.lalm))
        self.run, self.config, self.items, self.per_step = run, config, items, per_step
        self.watch = watch
        began = run.folder.read()["config"]
        self.steps_per_epoch = steps_per_epoch(
            len(items), per_step, run.processes.n, config.shard, began.get("shard", False)
        )
        self.n_steps = self.up_to(config.max_steps)
        planned = self.up_to(began.get("max_steps", 0))
        self.n_warmup = round(config.warmup_share * planned)
        self.names_hash = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        self.weights = trained_weights(run.lalm)
        self.optimizer = torch.optim.AdamW(
            list(self.weights.values()), lr=config.learning_rate, weight_decay=weight_decay
        )
        self.n_done = 0
        self.is_unwatched = False  # the look at the last step was due, and a stop came before its end
        with run.processes.main_first():
            state = load_checkpoint(run.folder, run.processes.main)
            self.best = None if state is None else Best.of(state)
            if run.processes.main:
                remove_old(run.folder, config.keep_last, self.best)
        if state is not None:
            if state["items"] != self.names_hash:
                raise RunError(
                    f"{run.folder.path}: its checkpoint was made with other clips or questions than the "
                    f"{len(names)} that can be used now; bring back what is missing (see errors.jsonl), or start "
                    "in another --out"
                )
            restore(run.lalm, state["weights"], run.folder.path)
            self.optimizer.load_state_dict(state["optimizer"])
            self.n_done = int(state["step"])
            self.is_unwatched = bool(state.get("unwatched", False))
            planned = int(state.get("planned", planned))
        self.n_planned = max(planned, self.n_steps)
        if run.processes.main:
            self._say_what_is_odd()
        if config.shard:
            shard_frozen(run.lalm, run.processes)

    def up_to(self, max_steps: int) -> int:
        """The steps of all epochs, or the first `max_steps` of them; 0: all."""
        n_steps = self.config.epochs * self.steps_per_epoch
        return min(n_steps, max_steps) if max_steps else n_steps

    def keep_best(self, measure: str, value: float, step: int | None = None) -> bool:
        """Whether `value` is the highest so far of what the weights reach after a step: None is the one in progress.

        If it is, a checkpoint follows this step and is kept until a better one comes. The first value of a measure is
        the best so far; one that is not finite never is. Only the main process's calls count, others may leave it out.
        """
        if not math.isfinite(value):
            return False
        if self.best is not None and self.best.measure == measure and value <= self.best.value:
            return False
        self.best = Best(self.n_done + 1 if step is None else step, measure, value)
        return True

    def steps(self, title: str) -> Iterator[tuple[int, list[T]]]:
        """The number of each step to come, with all processes' items; a checkpoint follows where one is due.

        Raises Stopped after a step in which SIGTERM came to any of the processes.
        """
        processes = self.run.processes
        self.bar = tqdm(
            range(self.n_done, self.n_steps),
            desc=title,
            unit="step",
            initial=self.n_done,
            total=self.n_steps,
            disable=not processes.main,
        )
        if self.n_done == 0 or self.is_unwatched:
            is_late = self.is_unwatched
            self.stopwatch = Stopwatch()
            if watched := self._watched(self.n_done):
                row = {"step": self.n_done, **watched, "seconds": self.stopwatch.seconds}
                processes.log(self.run.folder, row)
            if is_late and processes.main:
                self._save()  # that it was looked at
        saved_at, patience = time.monotonic(), self.config.checkpoint_minutes * 60
        self.stopwatch = Stopwatch()
        with self.run.stop.steps():
            for step in self.bar:
                yield step, chosen_at(step, self.items, self.per_step, self.steps_per_epoch, self.config.seed)
                self.n_done = step + 1
                # A step's checkpoint follows its row: the next row has its seconds.
                self.stopwatch = Stopwatch()
                is_last, stops = step + 1 == self.n_steps, processes.any(self.run.stop.asked)
                is_due = (step + 1) % self.config.checkpoint_every == 0
                is_due |= patience > 0 and time.monotonic() - saved_at >= patience
                is_due |= self.best is not None and self.best.step == step + 1
                if processes.main and (is_due or is_last or stops):
                    self._save()
                    saved_at = time.monotonic()
                    self.stopwatch.lap("save")
                if stops and not is_last:
                    self.bar.close()
                    processes.finish()
                    if processes.main:
                        say_stopped(self.run.folder, step + 1)
                    raise Stopped(is_told=True)

    def _save(self) -> None:
        state = {
            "weights": self.weights,
            "optimizer": self.optimizer.state_dict(),
            "items": self.names_hash,
            "planned": self.n_planned,
            "unwatched": self.is_unwatched,
            "best": None if self.best is None else asdict(self.best),
        }
        save_checkpoint(self.run.folder, self.n_done, state, self.config.keep_last)

    def _say_what_is_odd(self) -> None:
        """On stderr: a disk that will not hold the checkpoints, and an end that has been passed."""
        path, keep_last = self.run.folder.path, self.config.keep_last
        size = 3 * sum(
            w.numel() * w.element_size() for w in self.weights.values()
        )  # AdamW keeps two numbers a weight
        n_more = keep_last + 1 - len(kept_checkpoints(self.run.folder))
        free = shutil.disk_usage(path).free
        if n_more * size > free:
            print(
                f"{path}: {free / 1e6:,.0f} MB are free, and {n_more} more checkpoints of {size / 1e6:,.0f} MB are to "
                f"come: free some space, or choose another --out or fewer --keep-last ({keep_last})",
                file=sys.stderr,
            )
        if self.n_done > self.n_steps:
            print(
                f"{path}: {self.n_done} steps are done, more than --max-steps {self.config.max_steps}: nothing more "
                f"is trained, and adapter/ is that of step {self.n_done}; `tgsr adapter {path} --step N` takes an "
                "earlier one that is kept",
                file=sys.stderr,
            )

    def update(self, step: int, loss: Tensor, rows: Callable[[], list[Row]]) -> Update:
        """One update by all processes' gradients, which are summed as their losses are.

        NotFinite instead of a bad update; all processes' `rows`, which tell what the step was made of, are then
        written beside the run.
        """
        config, processes, parameters = self.config, self.run.processes, list(self.weights.values())
        processes.sum_gradients(parameters)
        loss = processes.total(loss).cpu()
        share = SCHEDULES[config.schedule](step, self.n_planned, self.n_warmup)
        learning_rate = config.learning_rate * share
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        try:
            norm = step_or_stop(self.optimizer, parameters, loss, config.clip_norm, step)
        except NotFinite as error:
            # A gradient that is summed over the processes is not finite in all of them, so that all arrive here.
            batch = self.run.folder.path / f"not-finite-step-{step}.jsonl"
            everyones_rows = processes.gather(rows())
            if processes.main:
                write_jsonl(batch, [spelled_out(row) for row in everyones_rows])
            raise NotFinite(f"{error}; its batch: {batch}") from error
        return Update(float(loss), learning_rate, norm)

    def log(self, row: dict[str, Any], *shown: str) -> None:
        """A row of metrics.jsonl, with the step's seconds, and what the watch sees after it.

        `shown` are the row's numbers that stand beside the progress bar. What no lap of `stopwatch` has named belongs
        to the update.
        """
        self.stopwatch.lap("update")
        row |= self._watched(int(row["step"]))
        self.run.processes.log(self.run.folder, row | {"seconds": self.stopwatch.seconds})
        self.bar.set_postfix({name: f"{row[name]:.3f}" for name in shown})

    def _watched(self, n_done: int) -> dict[str, Any]:
        """{"watch": what the model reaches after so many steps}, and {} where that is not looked at."""
        if self.watch is None or (n_done % self.watch.every and n_done != self.n_steps):
            return {}
        seen = self.watch.look(n_done)
        self.is_unwatched = not seen  # only the main process's counts: it writes the checkpoints
        value = seen.get(self.watch.best_by)
        if n_done and value is not None:  # before the first step there is nothing to keep
            self.keep_best(self.watch.best_by, value, n_done)
        self.stopwatch.lap("watch")
        return {"watch": seen} if seen else {}

    def finish(self) -> Path:
        """The folder of the adapter, saved. Where an earlier step was better, that is said on stderr."""
        path, best = self.run.folder.path, self.best
        adapter = path / "adapter"
        if self.run.processes.main:
            save_adapter(self.run.lalm, adapter)
            if best is not None and best.step != self.n_done:
                print(
                    f"{path}: adapter/ is of step {self.n_done}; step {best.step} was {best}: `tgsr adapter {path} "
                    "--step best` takes it",
                    file=sys.stderr,
                )
        self.run.processes.finish()
        return adapter


def trained_weights(lalm: Lalm) -> dict[str, Tensor]:
    """The weights that train, by their names in the model."""
    return {name: weight for name, weight in lalm.model.named_parameters() if weight.requires_grad}


def restore(lalm: Lalm, kept: Mapping[str, Tensor], folder: Path) -> None:
    """Gives the weights that train a checkpoint's values. RunError where they differ from its own by name or shape."""
    theirs, ours = ({name: tuple(w.shape) for name, w in of.items()} for of in (kept, trained_weights(lalm)))
    if theirs == ours:
        lalm.model.load_state_dict(dict(kept), strict=False)  # the frozen ones are not in it
        return
    strange = sorted(theirs.items() ^ ours.items())[0]
    known = (of.get(strange[0], "nothing of that name") for of in (theirs, ours))
    raise RunError(
        f"{folder}: its checkpoint holds other weights than train now, first {strange[0]}: kept is {next(known)}, "
        f"now it is {next(known)}; go on with the model, the settings and the package versions that it was started "
        "with, or start in another --out"
    )


@contextmanager
def as_trained(lalm: Lalm, config: TrainingConfig) -> Iterator[None]:
    """Within it the decoder computes in bfloat16 and keeps only its layers' inputs, each where the settings say so.

    Checkpointed layers are computed again in the backward pass: the same numbers for a third more work. Checkpointing
    needs layers in training mode; what is in them stays as it answers, so that a dropout (of the residuals, of a LoRA
    that another trainer wrote) drops nothing.
    """
    decoder = lalm.language_model
    if config.gradient_checkpointing:
        with without_renaming_warning():
            decoder.gradient_checkpointing_enable({"use_reentrant": False})
        for layer in decoder.modules():
            layer.training = isinstance(layer, GradientCheckpointingLayer)
    try:
        # The backward pass computes checkpointed layers again: as the forward did.
        with (
            lean(decoder),
            torch.autocast(device_of(lalm).type, torch.bfloat16, enabled=config.bfloat16),
        ):
            yield
    finally:
        if config.gradient_checkpointing:
            with without_renaming_warning():
                decoder.gradient_checkpointing_disable()
            decoder.eval()

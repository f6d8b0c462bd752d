"""The processes of a run: one, or as many as torchrun started, through accelerate.

Each process holds the whole model and takes its share of a step's clips; gradients are summed once a step.
Every loop divides its loss by what the whole step holds, so that the sum is the gradient that one process
would have had.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from tgsr.disk.run_folder import RunFolder, settings_of
from tgsr.errors import RunError, install
from tgsr.models.lalm import Lalm
from tgsr.training.config import Tracker
from tgsr.training.trackers import MOST_ROWS, log_table, numbers_of, opening

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among all; `main` writes the run's files."""

    accelerator: Accelerator
    tables: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    @property
    def device(self) -> torch.device:
        return torch.device(self.accelerator.device)

    def share(self, n_items: int) -> slice:
        """Which of a step's items are this process's; all shares in order are all items."""
        rank = int(self.accelerator.process_index)
        return slice(rank * n_items // self.n, (rank + 1) * n_items // self.n)

    def main_first(self) -> AbstractContextManager[None]:
        """The main process runs the block before the others do."""
        return self.accelerator.main_process_first()

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Each parameter's gradient becomes the sum over all processes; where one has none, it counts as zeros there.

        Where none has any they stay without, so that no update follows.
        """
        if self.n == 1:
            return
        if not self.any(any(p.grad is not None for p in parameters)):
            return
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        pieces = self.total(flat).split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).clone()

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.n == 1:
            return value
        reduced: Any = self.accelerator.reduce(value.to(self.device), "sum")
        return torch.as_tensor(reduced)

    def sum(self, n: int) -> int:
        """The sum over all processes of a whole number."""
        return int(self.total(torch.tensor(n)))

    def any(self, holds: bool) -> bool:
        """Whether it holds for any of the processes."""
        return bool(self.total(torch.tensor(int(holds)))) if self.n > 1 else holds

    def gather(self, items: Sequence[T]) -> list[T]:
        """All processes' items, in the order of their shares."""
        return list(items) if self.n == 1 else list(gather_object(list(items)))

    def track(self, stage: str, config: Any, folder: RunFolder) -> None:
        """Opens the tracker's record of this run, with its settings, if there is a tracker."""
        settings = {k: v for k, v in settings_of(config).items() if isinstance(v, (int, float, str))}
        if self.accelerator.log_with:
            self.accelerator.init_trackers(f"tgsr-{stage}", settings, opening(folder) if self.main else {})

    def log(self, run: RunFolder, row: dict[str, Any]) -> None:
        """One row of metrics.jsonl, and its numbers to the tracker if there is one."""
        if self.main:
            run.log(row)
        self.accelerator.log(numbers_of(row), step=int(row["step"]))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A few texts of one step as a table of the tracker's, if there is one: objects of the same names, the first
        of them "step".
        """
        if not (self.main and rows and self.accelerator.trackers):
            return
        shown = self.tables.setdefault(name, [])
        shown += rows
        del shown[:-MOST_ROWS]
        for tracker in self.accelerator.trackers:
            log_table(tracker, name, shown, int(rows[0]["step"]))

    def finish(self) -> None:
        """Waits for all, and closes the tracker."""
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()


def shard_frozen(lalm: Lalm, processes: Processes) -> None:
    """Each process keeps its part of the decoder layers' frozen matrices and gathers a layer when it computes it.

    FSDP2. What trains, and the layers' vectors, stay whole everywhere, so that gradients and checkpoints are
    those of unsharded runs. Layers are sharded one by one: a shard around all of them renames the decoder's
    class, by which transformers finds what hidden states to return. Call it once it is settled what trains.
    """
    mesh = init_device_mesh(processes.device.type, (processes.n,))
    for layer in lalm.language_model.layers:
        whole = {
            weight
            for name, weight in layer.named_parameters()
            if weight.requires_grad or weight.ndim < 2 or ".lora_" in name
        }
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)


@contextmanager
def unsharded(lalm: Lalm) -> Iterator[None]:
    """Within it every process holds the whole decoder: for sampling, where processes take unlike numbers of steps."""
    layers = [layer for layer in lalm.language_model.layers if isinstance(layer, FSDPModule)]
    for layer in layers:
        layer.set_reshard_after_forward(False)
        layer.unshard()
    try:
        yield
    finally:
        for layer in layers:
            layer.set_reshard_after_forward(True)
            layer.reshard()


def start(out: Path, tracker: Tracker = "none") -> Processes:
    """Joins the processes that torchrun started, if it did; the tracker writes beside the run's own files.

    Raises RunError where the tracker's package is missing.
    """
    # Without cpu=True accelerate ignores torchrun on machines without a GPU: each process would be alone.
    cpu = not torch.cuda.is_available()
    # One process may have more audio to encode than another, hours of it; the default is ten minutes.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))
    log_with = None if tracker == "none" else tracker
    accelerator = Accelerator(cpu=cpu, kwargs_handlers=[patience], log_with=log_with, project_dir=str(out))
    if log_with and not accelerator.log_with:  # accelerate only warns
        raise RunError(f"tracker {tracker}: needs {tracker}, {install(tracker)}")
    return Processes(accelerator)

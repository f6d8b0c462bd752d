"""A training run from its start to its checkpoints: opened, loaded, restored, kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tgsr.disk.run_folder import RunFolder, open_run
from tgsr.engine.features import FeatureCache
from tgsr.errors import RunError
from tgsr.models.lalm import Lalm, n_spread
from tgsr.models.load import load
from tgsr.models.placement import Devices, LoadAs, Placement
from tgsr.training.checkpoints import load_checkpoint, save_checkpoint
from tgsr.training.processes import Processes, start


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


Load = Callable[[str, Placement], Lalm]


def load_to_train(config: Model, processes: Processes, load: Load = load) -> Lalm:
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


def start_run(
    stage: str, config: Any, data: str, out: Path, cache: FeatureCache
) -> tuple[Processes, RunFolder]:
    """Joins the run's processes, opens its folder, and its tracker's record. RunError as open_run says."""
    processes = start(out, config.tracker)
    with processes.main_first():
        run = open_run(out, stage, config, data, cache)
    processes.track(stage, config)
    return processes, run


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

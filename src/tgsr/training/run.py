"""A training run as every loop starts it: its processes, its folder, and the model that it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tgsr.disk.run_folder import RunFolder, open_run
from tgsr.engine.features import FeatureCache
from tgsr.errors import OptionError, RunError
from tgsr.models.lalm import Lalm, n_spread
from tgsr.models.load import load
from tgsr.models.placement import Placement
from tgsr.training.config import GrpoConfig, SftConfig, StaConfig
from tgsr.training.processes import Processes, start

StageConfig = StaConfig | SftConfig | GrpoConfig
Load = Callable[[str, Placement], Lalm]


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """The processes of a run, its folder, its model, and where the audio is heard."""

    processes: Processes
    folder: RunFolder
    lalm: Lalm
    cache: FeatureCache


def start_run(
    stage: str, config: StageConfig, data: str, out: Path, cache: FeatureCache, load: Load = load
) -> TrainingRun:
    """The run in `out`, joined by this process, with its tracker's record and its model. RunError as open_run says."""
    processes = start(out, config.tracker)
    with processes.main_first():
        folder = open_run(out, stage, config, data, cache.settings)
    processes.track(stage, config)
    return TrainingRun(processes, folder, load_to_train(config, processes, load), cache)


def load_to_train(config: StageConfig, processes: Processes, load: Load = load) -> Lalm:
    """The model where its settings say; before it is read, OptionError or RunError where it cannot be trained there."""
    if config.shard and config.load_as == "4bit":
        raise OptionError("--shard: spreads whole matrices, not those in 4 bits; take --load-as bfloat16")
    if config.devices == "all" and processes.n > 1:
        raise OptionError(
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

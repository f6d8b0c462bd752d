"""A training run as every loop starts it: its processes, its folder, and the model that it trains."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from tgsr.disk.lock import held_folder
from tgsr.disk.run_folder import RunFolder, begin_run, describe_run, find_run, open_run
from tgsr.engine.features import FeatureCache
from tgsr.errors import OptionError, RunError
from tgsr.models.aligner_and_lora import with_lora
from tgsr.models.clock import add_clock
from tgsr.models.lalm import Lalm, device_of, n_spread
from tgsr.models.load import files_of, load, multiplies_bfloat16
from tgsr.models.placement import Placement
from tgsr.training.config import MAY_CHANGE, STAGES, StaConfig, StageConfig
from tgsr.training.processes import Processes, start
from tgsr.training.stop import ONE_REQUEST, Stop, stop_on_signals

Load = Callable[[str, Placement], Lalm]


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """The processes of a run, its folder, its model, where the audio is heard, and whether it is asked to stop."""

    processes: Processes
    folder: RunFolder
    lalm: Lalm
    cache: FeatureCache
    stop: Stop


@contextmanager
def start_alone(
    stage: str, config: Any, out: Path, data: Sequence[str] | None = None
) -> Iterator[tuple[RunFolder, Stop]]:
    """The run of one process in `out`, nobody else's for the block. RunError under torchrun, and as `open_run` says."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError(f"train {stage} runs in one process; start it without torchrun")
    with held_folder(out), stop_on_signals() as stop:
        yield open_run(out, stage, config, data), stop


@contextmanager
def start_run(
    stage: str,
    config: StageConfig,
    data: str | Sequence[str],
    out: Path,
    cache: FeatureCache,
    load: Load = load,
) -> Iterator[TrainingRun]:
    """The run in `out`, joined by this process, with its tracker's record and its model; nobody else's for the block.

    RunError where another process has it, where `out` is another run's (as `open_run` says), and where the files of
    `data` or of the model are not those that it began with. Where the model cannot be had nothing is written.
    """
    processes = start(out, config.tracker)
    with (
        held_folder(out) if processes.main else nullcontext(),
        stop_on_signals(ONE_REQUEST if processes.n > 1 else 0.0) as stop,
    ):
        with processes.main_first():
            asked_for = describe_run(stage, config, data, cache.settings)
            folder = find_run(out, config, asked_for, MAY_CHANGE)
        lalm = load_to_train(config, processes, load)
        with processes.main_first():
            if processes.main:
                begin_run(folder, asked_for)
                note_changes(folder, config)
                folder.rest_on("model", files_of(config.model))
        processes.track(stage, config, folder)
        yield TrainingRun(processes, folder, lalm, cache, stop)


def note_changes(folder: RunFolder, config: StageConfig) -> None:
    """Says, and keeps in run.json under `config_since`, what is set otherwise than when the run began."""
    described = folder.read()
    began, before = described["config"], described.get("config_since", {})
    since = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if field.name in MAY_CHANGE and getattr(config, field.name) != began.get(field.name, field.default)
    }
    if since:
        listed = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in since.items())
        print(f"{folder.path}: goes on with {listed}, which it did not begin with", file=sys.stderr)
    if since != before:
        kept = {name: part for name, part in described.items() if name != "config_since"}
        folder.write(kept | ({"config_since": since} if since else {}))


def config_of_run(folder: RunFolder) -> StageConfig:
    """The settings that a run of a stage began with. RunError where the folder holds none."""
    if not folder.described.exists():
        raise RunError(
            f"{folder.path}: has no run.json; give the --out of a `tgsr train sta`, `sft` or `grpo`"
        )
    described = folder.read()
    stage = STAGES.get(described.get("stage", ""))
    if stage is None:
        raise RunError(
            f"{folder.path}: is of {described.get('stage')!r:.40}, and only {', '.join(STAGES)} train adapters"
        )
    values, known = described.get("config", {}), {field.name: field.default for field in fields(stage)}
    lacks = [name for name, default in known.items() if default is MISSING and name not in values]
    if strange := sorted(values.keys() - known) or lacks:
        raise RunError(
            f"{folder.described}: is of another version of tgsr, by its setting {strange[0]!r}; take that version"
        )
    return stage(**values)


def make_trainable(lalm: Lalm, config: StageConfig) -> None:
    """What the stage trains is asked for gradients, and nothing else: the aligner, a fresh LoRA, or in stage 1 both.

    The model writes times as the stage has it. OptionError where it cannot.
    """
    if not isinstance(config, StaConfig):
        more = {"experts": config.lora_experts, "router": config.lora_router}
        with_lora(
            lalm, config.lora_rank, config.lora_alpha, config.seed, [part for part in more if more[part]]
        )
        return
    if config.times == "tokens" and lalm.first_tick is None:
        raise OptionError(
            f"--times tokens: {lalm.name} has no tokens for times; leave it out, or take mini-en"
        )
    lalm.times = config.times or lalm.times
    if config.lora_rank:
        with_lora(lalm, config.lora_rank, 2 * config.lora_rank, config.seed)
    else:
        lalm.inner.requires_grad_(False)
    # Updates of a learning rate like table 5's are lost in bfloat16's 8 bits.
    lalm.aligner.float().requires_grad_(True)
    if config.clock or lalm.clock is not None:
        add_clock(lalm).requires_grad_(True)


def load_to_train(config: StageConfig, processes: Processes, load: Load = load) -> Lalm:
    """The model where its settings say; before it is read, OptionError or RunError where it cannot be trained there."""
    if config.shard and config.load_as == "4bit":
        raise OptionError("--shard: spreads whole matrices, not those in 4 bits; take --load-as bfloat16")
    if config.shard and (getattr(config, "lora_experts", False) or getattr(config, "lora_router", False)):
        raise OptionError(
            "--shard: gathers a mixture's matrices without a LoRA on them; leave --lora-experts out"
        )
    if config.devices == "all" and processes.n > 1:
        raise OptionError(
            f"--devices all: one process's layers over all GPUs, and there are {processes.n} processes; start one, "
            "or take --shard, which spreads a model over processes"
        )
    lalm = load(config.model, Placement(config.load_as, config.devices))
    if config.bfloat16 and processes.main and not multiplies_bfloat16(device_of(lalm).type):
        print(
            "--bfloat16: this CPU has no instructions for it, and is some ten times faster without",
            file=sys.stderr,
        )
    if waiting := n_spread(lalm)[1]:
        raise RunError(
            f"{config.model}: {waiting} of its layers do not fit the GPUs and wait in the host's memory, where they "
            "cannot be trained: take --load-as 4bit or bfloat16, more GPUs, or --shard"
        )
    return lalm

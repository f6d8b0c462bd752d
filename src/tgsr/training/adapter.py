"""An adapter from any checkpoint that a run has kept, whether the run has ended, was stopped or still goes on."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from tgsr.disk.run_folder import RunFolder, hashes_of
from tgsr.errors import OptionError, RunError
from tgsr.models.load import files_of, load, save_adapter
from tgsr.models.placement import Placement
from tgsr.training.checkpoints import Best, kept_checkpoints, read_checkpoint
from tgsr.training.run import Load, config_of_run, make_trainable
from tgsr.training.steps import restore

load_on_cpu = partial(load, device="cpu")  # the GPU may be the training's


def take_adapter(
    run: Path, step: str = "last", out: Path | None = None, model: str | None = None, load: Load = load_on_cpu
) -> Path:
    """The folder of a new adapter: `out`, or adapter-STEP in the run's folder, which is written anew.

    `step` is a number of steps, "last" or "best"; `model` is where the run's model is now, if that has moved. The run
    is only read, and may be going on. OptionError for another `step` and for an `out` that is not empty; RunError for a
    folder that is no run of a stage, for a step of which there is no checkpoint, and for a model that is not the one
    that was trained.
    """
    if not (step in ("last", "best") or step.isdecimal()):
        raise OptionError(f"--step {step}: must be a number of steps, last or best")
    if out is not None and out.exists() and any(out.iterdir()):
        raise OptionError(f"--out {out}: is not empty; choose another")
    folder = RunFolder(run)
    config = config_of_run(folder)
    state = checkpoint_at(folder, step)
    name = config.model if model is None else model
    require_model(folder, name)
    # A CPU holds no 4 bits, and the adapter's numbers are the same on the whole matrices.
    lalm = load(name, Placement("checkpoint" if config.load_as == "4bit" else config.load_as))
    make_trainable(lalm, config)
    restore(lalm, state["weights"], run)
    out = run / f"adapter-{state['step']}" if out is None else out
    save_adapter(lalm, out)
    best = Best.of(state)
    is_best = best is not None and best.step == state["step"]
    print(f"{run}: step {state['step']}" + (f", {best} up to then" if is_best else ""), file=sys.stderr)
    return out


def checkpoint_at(folder: RunFolder, step: str) -> dict[str, Any]:
    """The checkpoint of a number of steps, the "last" or the "best" one. RunError, which lists those that there are."""
    kept = kept_checkpoints(folder)
    if not kept:
        raise RunError(
            f"{folder.path}: has no checkpoint yet; one is saved every --checkpoint-every steps, and when SIGTERM "
            "ends the run"
        )
    listed = f"those of {', '.join(map(str, kept))} are kept (--keep-last)"
    newest = max(kept)
    wanted = int(step) if step.isdecimal() else newest
    if wanted not in kept:
        raise RunError(f"{folder.path}: has no checkpoint of step {wanted}; {listed}")
    try:
        state = read_checkpoint(kept[wanted])
        if step != "best":
            return state
        best = Best.of(state)
        if best is None:
            raise RunError(f"{folder.path}: nothing was measured that could be best (--watch); {listed}")
        if best.step not in kept:
            raise RunError(f"{folder.path}: step {best.step} was {best}, and is gone; {listed}")
        return state if best.step == newest else read_checkpoint(kept[best.step])
    except FileNotFoundError:  # the run that goes on has removed it in this moment
        return checkpoint_at(folder, step)


def require_model(folder: RunFolder, name: str) -> None:
    """RunError where the files of the model called `name` are not those that the run began with, wherever they lie."""
    known = folder.read().get("model", {})
    now = hashes_of(files_of(name), known)
    began, found = ({about["sha256"] for about in files.values()} for files in (known, now))
    if known and began != found:
        strange = sorted(file for file, about in known.items() if about["sha256"] not in found) or sorted(now)
        raise RunError(
            f"{folder.path}: {name} is not the model that it trains: {strange[0]} is missing or another one; start "
            "this command in the folder in which the training was started, or say where that model is now with --model"
        )

"""Runs of both stages on the tiny model, each in processes of its own; what test_processes compares is beside them.

torchrun starts this file, which imports everything once; each process of a run is a fork of one of torchrun's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tgsr.engine.features import FeatureCache
from tgsr.errors import Stopped
from tgsr.models.aligner_and_lora import with_lora
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.rl import train_grpo
from tgsr.sta import train_sta
from tgsr.training.config import GrpoConfig, StaConfig
from tiny import rewarded_by, tiny_lalm

UNCLIPPED = 1e9


def by_length(completions: Sequence[str], **columns: object) -> list[float]:
    """Rewards that do not depend on which process an answer belongs to."""
    return [float(len(text) % 3) for text in completions]


def run(stage: str, questions: str, out: Path, stops: bool = False, **options: Any) -> None:
    """One run, with gradients-RANK.pt of its first step and, in held-RANK, the least of the layers' numbers it held.

    Where it `stops`, the last process gets SIGTERM in the first step.
    """
    rank = os.environ.get("RANK", "0")
    held: list[int] = []

    def load(*_: object) -> AudioFlamingo3:
        lalm = tiny_lalm()

        def count(*_: object) -> None:
            weights = lalm.language_model.layers.parameters()
            held.append(sum((w.to_local() if hasattr(w, "to_local") else w).numel() for w in weights))

        lalm.language_model.register_forward_pre_hook(count)
        return lalm

    def keep_gradients(optimizer: torch.optim.Optimizer, *_: object) -> None:
        path = out / f"gradients-{rank}.pt"
        if not path.exists():
            torch.save([weight.grad for weight in optimizer.param_groups[0]["params"]], path)
            if stops and rank == "1":
                signal.raise_signal(signal.SIGTERM)

    register_optimizer_step_pre_hook(keep_gradients)
    cache = FeatureCache(out.parent / "cache")
    settings: dict[str, Any] = {"learning_rate": 1e-3, "clip_norm": UNCLIPPED}
    if stage == "sta":
        settings |= {"clips_per_step": 4, **options}
        train_sta(StaConfig(questions=questions, **settings), out, cache, load)
    else:
        settings |= {"prompts_per_step": 4, "group_size": 3, "max_new_tokens": 6, **options}
        train_grpo(GrpoConfig(questions=questions, **settings), out, cache, load, rewarded_by(by_length))
    if held:  # a process that only draws reads by the plain decoder
        (out / f"held-{rank}").write_text(str(min(held)))


def main() -> None:
    """The runs that a file lists, one after the other: {n_processes, port, stage, questions, out, options}."""
    with_lora(tiny_lalm(), 2, 4, 0)  # what is made once a process, here and in peft, all forks then have
    for job in json.loads(Path(sys.argv[1]).read_text()):
        if int(os.environ["RANK"]) >= job["n_processes"]:
            continue
        if child := os.fork():
            os.waitpid(child, 0)
            continue
        # A run's processes meet by themselves: torchrun's own store knows only one meeting.
        os.environ |= {"MASTER_PORT": str(job["port"]), "TORCHELASTIC_USE_AGENT_STORE": "False"}
        if job["n_processes"] == 1:
            for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
                del os.environ[name]
        try:
            run(job["stage"], job["questions"], Path(job["out"]), **job["options"])
        except Stopped as stopped:
            Path(f"{job['out']}-stopped-{os.environ['RANK']}").write_text(str(stopped.code))
        except Exception:
            Path(f"{job['out']}-error-{os.environ.get('RANK', '0')}").write_text(traceback.format_exc())
        os._exit(0)


if __name__ == "__main__":
    main()

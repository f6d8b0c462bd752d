"""NeMo-RL's environment, data set and processor for files that `tgsr export --to nemo-rl` wrote.

NeMo-RL's script for audio has no option for another environment, so that this file starts the script:

    uv run python -m tgsr.data.plugins.tgsr_nemo_rl examples/run_vlm_grpo.py --config CONFIG

with, in the config, data.train.dataset_name = tgsr.data.plugins.tgsr_nemo_rl.ExportedDataset, data.default.processor =
tgsr, and in env.vlm the settings of `tgsr train grpo`: reward, counter, answer_reader, grounding_weight, ...
recipes/nemo_rl.sh has the whole command. Written after NeMo-RL of August 2026, which PyPI does not have: of its source
the data set's loading, the processor and the environment were run with this, without Ray or a model.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import ray
import torch
from datasets import Dataset
from nemo_rl.data.datasets.raw_dataset import RawDataset
from nemo_rl.data.processors import register_processor, vlm_hf_data_processor
from nemo_rl.distributed.ray_actor_environment_registry import ACTOR_ENVIRONMENT_REGISTRY
from nemo_rl.distributed.virtual_cluster import PY_EXECUTABLES
from nemo_rl.environments.interfaces import EnvironmentInterface, EnvironmentReturn
from nemo_rl.environments.utils import ENV_REGISTRY

from tgsr import audio
from tgsr.data.other_trainers import KEPT
from tgsr.data.plugged_rewards import rewards, terms_of
from tgsr.rewards import completion_text

TASK = "tgsr"
THEIRS = ("num_workers", "stop_strings", "reward_functions")  # of env.vlm, for NeMo-RL's own environment


@ray.remote(max_restarts=-1, max_task_retries=-1)
class Environment(EnvironmentInterface):
    """One answer a question, and its reward: that of a run of ours with the config's settings."""

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        self.terms = terms_of(**{name: value for name, value in cfg.items() if name not in THEIRS})

    def step(
        self, message_log_batch: Sequence[Sequence[Mapping[str, Any]]], metadata: list[Mapping[str, Any]]
    ) -> EnvironmentReturn:
        n = len(message_log_batch)
        texts = [completion_text(messages) for messages in message_log_batch]
        _, totals = rewards(texts, [one[KEPT] for one in metadata], self.terms)
        return EnvironmentReturn(
            observations=[{"role": "environment", "content": ""}] * n,
            metadata=metadata,
            next_stop_strings=[None] * n,
            rewards=torch.tensor(totals),
            terminateds=torch.ones(n),
            answers=None,
        )

    def global_post_process_and_metrics(self, batch: Any) -> tuple[Any, dict[str, float]]:
        metrics = {"reward": batch["rewards"].float().mean().item()}
        metrics["ended"] = batch["is_end"].float().mean().item()
        return batch, metrics

    def shutdown(self) -> None:
        """Nothing was started."""


class ExportedDataset(RawDataset):
    """Rows stay text until they are asked for: their turns are a list and a text, which no column can hold."""

    task_name = TASK

    def __init__(
        self, data_path: str, split_validation_size: float = 0, seed: int = 42, **more: object
    ) -> None:
        with open(data_path, encoding="utf-8") as file:
            rows = [{"row": line, "task_name": TASK} for line in file if line.strip()]
        self.dataset = Dataset.from_list(rows)
        self.preprocessor = heard
        self.val_dataset = None
        self.split_train_validation(split_validation_size, seed)


def heard(datum: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its audio's samples in the place of the path."""
    row = json.loads(datum["row"])
    for part in row["messages"][0]["content"]:
        if part["type"] == "audio":
            part["audio"] = audio.load(part["audio"])
    return {**row, "task_name": TASK}


def processed(datum: Mapping[str, Any], spec: Any, processor: Any, max_seq_length: int, idx: int) -> Any:
    """As NeMo-RL's processor makes it of audio that it knows, with our question for the environment."""
    known = {**datum, "task_name": "audiomcq"}  # whose rows have these turns and are taken as they are
    output = vlm_hf_data_processor(known, spec, processor, max_seq_length, idx)
    output["task_name"] = TASK
    output["extra_env_info"] = {KEPT: datum[KEPT]}
    return output


def register() -> None:
    name = f"{__name__}.Environment"
    ENV_REGISTRY["vlm"] = {"actor_class_fqn": name}  # the only name that the script for audio asks for
    ACTOR_ENVIRONMENT_REGISTRY[name] = PY_EXECUTABLES.SYSTEM
    register_processor(TASK, processed)


if __name__ == "__main__":
    from tgsr.data.plugins import tgsr_nemo_rl  # under its name, by which Ray and the data set find it

    tgsr_nemo_rl.register()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")

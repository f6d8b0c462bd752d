"""Asks other trainers, each with our plug-in by its own loader, what a hundred responses earn; writes plugins.json.

The environments are those of exports.py, with msgspec, safetensors and inflect; no network, no GPU:

    python tests/parity/plugins.py trl          # or ms-swift, verl, nemo-rl

What is named is run again, the rest of plugins.json stays. TRL and verl also write their completions logs, ms-swift the
line that its trainer makes of a step: tests/data/trainer_logs. tests/test_plugins.py holds both against `tgsr train
grpo`. NeMo-RL and verl-omni are not on PyPI; verl-omni loads reward functions by verl's own loader.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
LOGS = FOLDER.parent / "data" / "trainer_logs"
sys.path.insert(0, str(FOLDER.parent))

from answered import asked, responses, words_by_clip  # noqa: E402
from tgsr.data import plugins  # noqa: E402
from tgsr.data.other_trainers import export  # noqa: E402

REWARDS: dict[str, tuple[str, ...]] = {
    "paper": ("answer", "timestamp_grounding"),
    "grounded": ("answer", "place"),
    "dense": ("answer", "timestamp_grounding", "dense_grounding"),
    "strict": ("answer_strict", "timestamp_grounding_strict"),
}
"""The terms of each reward, for trainers that take them one by one."""
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"reward": name} for name in ("paper", "grounded", "dense")},
    "strict": {"counter": "strict", "answer_reader": "strict"},
}
"""The same, for trainers that take settings."""
Earned = dict[str, list[float]]


def exported(folder: Path, target: Any) -> Path:
    out = folder / ("exported.parquet" if target == "verl" else "exported.jsonl")
    return export(asked(), folder / "questions.jsonl", target, out, "qwen_omni", words_by_clip())


def plugin(target: str) -> Path:
    return Path(plugins.__file__).with_name(plugins.FILES[target])


def answered() -> list[tuple[int, str]]:
    """Each of the hundred responses with its question's place."""
    return [(n, text) for n, question in enumerate(asked()) for text in responses(question)]


def by_ms_swift(folder: Path, logs: Path) -> Earned:
    os.environ["MODELSCOPE_CACHE"] = str(folder / "modelscope")
    import torch
    from swift.dataset import load_dataset
    from swift.rewards import orms
    from swift.rl_core.data import OnPolicySample
    from swift.rl_core.grpo_algorithm import compute_rewards_per_func
    from swift.utils import JsonlWriter, import_external_file

    import_external_file(str(plugin("ms-swift")))
    rows, _ = load_dataset(str(exported(folder, "ms-swift")), strict=True, remove_unused_columns=False)
    samples = []
    for n, text in answered():
        sample = OnPolicySample.from_row(rows[n])
        sample.messages.append({"role": "assistant", "content": text})
        samples.append(sample)
    earned = {}
    for name, terms in REWARDS.items():
        functions = [orms[f"tgsr_{term}"](args=None) for term in terms]
        by_term = compute_rewards_per_func(samples, functions, [None] * len(terms), torch.device("cpu"))
        earned[name] = by_term.sum(dim=1).tolist()
    some = samples[:20]
    table: dict[str, list[Any]] = {
        "step": ["1"] * len(some),
        "prompt": [f"<|im_start|>user\n{s.messages[-2]['content']}<|im_end|>\n" for s in some],
        "completion": [s.messages[-1]["content"] for s in some],
        **{type(function).__name__: by_term[: len(some), i].tolist() for i, function in enumerate(functions)},
        "advantages": [0.0] * len(some),
        "solution": [s.extra["solution"] for s in some],
    }
    log = logs / "ms_swift" / "completions.jsonl"
    log.unlink(missing_ok=True)
    JsonlWriter(str(log)).append(table)
    return earned


def by_trl(folder: Path, logs: Path) -> Earned:
    import datasets
    import transformers
    import trl

    import tiny

    rows = datasets.load_dataset(
        "json", data_files=str(exported(folder, "trl")), cache_dir=str(folder / "cache")
    )
    tokenizer = tiny.omni_tokenizer()
    tokenizer.chat_template = tiny.CHAT_TEMPLATE
    config = tiny.narrow_qwen2(tokenizer)
    earned = {}
    for name, terms in REWARDS.items():
        module = importlib.import_module("tgsr.data.plugins.tgsr_trl")  # as trl/scripts/grpo.py finds it
        trainer = trl.GRPOTrainer(
            model=transformers.Qwen2ForCausalLM(config),
            reward_funcs=[getattr(module, term) for term in terms],
            args=trl.GRPOConfig(
                output_dir=str(folder / name),
                per_device_train_batch_size=10,
                num_generations=2,
                max_completion_length=12,
                logging_steps=1,
                log_completions=True,
                use_cpu=True,
                bf16=False,
                report_to=[],
                save_strategy="no",
                max_steps=1,
            ),
            train_dataset=rows["train"],
            processing_class=tokenizer,
        )
        inputs = [rows["train"][n] for n, _ in answered()]
        said = [[{"role": "assistant", "content": text}] for _, text in answered()]
        by_term = trainer._calculate_rewards(
            inputs, [row["prompt"] for row in inputs], said, [[0]] * len(said)
        )
        earned[name] = by_term.sum(dim=1).tolist()
        if name == "grounded":
            for column in trainer._pending_extra_logs.values():
                column.clear()  # what the hundred have logged; the step logs its own
            trainer.train()
            (log,) = (folder / name / "completions").glob("*.parquet")
            (logs / "trl" / "completions").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, logs / "trl" / "completions" / log.name)
    return earned


def by_verl(folder: Path, logs: Path) -> Earned:
    import omegaconf
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.utils.dataset.rl_dataset import RLHFDataset

    import tiny

    tokenizer = tiny.omni_tokenizer()
    tokenizer.chat_template = tiny.CHAT_TEMPLATE
    reading = {
        "cache_dir": str(folder / "cache"),
        "filter_overlong_prompts": False,
        "max_prompt_length": 4096,
    }
    rows = RLHFDataset(
        [str(exported(folder, "verl"))], tokenizer, omegaconf.OmegaConf.create(reading), processor=tokenizer
    )
    earned = {}
    for name, settings in SETTINGS.items():
        for path in ("pkg://tgsr.data.plugins.tgsr_verl", str(plugin("verl"))):
            function = {"path": path, "name": "compute_score", "reward_kwargs": settings}
            score = get_custom_reward_fn(
                omegaconf.OmegaConf.create({"reward": {"custom_reward_function": function}})
            )
            assert score is not None
            results = [
                score(
                    data_source=rows[n]["data_source"],
                    solution_str=text,
                    ground_truth=rows[n]["reward_model"]["ground_truth"],
                    extra_info=rows[n]["extra_info"],
                )
                for n, text in answered()
            ]
            earned[name] = [result["score"] for result in results]
    some = answered()[:20]
    prompts = tokenizer.apply_chat_template([rows[n]["raw_prompt"][1:] for n, _ in some], tokenize=False)
    log = logs / "verl"
    log.mkdir(parents=True, exist_ok=True)
    RayPPOTrainer._write_generations(
        [prompt.replace("<|AUDIO|>", "") for prompt in prompts],  # special tokens are skipped there
        [text for _, text in some],
        [rows[n]["reward_model"]["ground_truth"] for n, _ in some],
        [result["score"] for result in results[:20]],
        {key: [result[key] for result in results[:20]] for key in results[0]},
        str(log),
        7,
    )
    return earned


def by_nemo_rl(folder: Path, logs: Path) -> Earned:
    import ray
    from nemo_rl.data.datasets import load_response_dataset
    from nemo_rl.environments.utils import create_env

    from tgsr.data.plugins import tgsr_nemo_rl

    tgsr_nemo_rl.register()
    name = "tgsr.data.plugins.tgsr_nemo_rl.ExportedDataset"
    data = load_response_dataset(
        {"dataset_name": name, "data_path": str(exported(folder, "nemo-rl")), "processor": "tgsr"}
    )
    kept = [json.loads(data.dataset[n]["row"])["tgsr"] for n, _ in answered()]
    logs = [
        [{"role": "user", "content": ""}, {"role": "assistant", "content": text}] for _, text in answered()
    ]
    earned = {}
    for reward, settings in SETTINGS.items():
        env = create_env("vlm", {"num_workers": 1, **settings})
        stepped = ray.get(env.step.remote(logs, [{"tgsr": one} for one in kept]))
        earned[reward] = stepped.rewards.tolist()
    return earned


ASKED_OF: dict[str, tuple[str, Callable[[Path, Path], Earned]]] = {
    "ms-swift": ("swift", by_ms_swift),
    "trl": ("trl", by_trl),
    "verl": ("verl", by_verl),
    "nemo-rl": ("nemo_rl", by_nemo_rl),
}
"""The package that each trainer is imported by, and who asks it."""


def main(names: list[str]) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    out = FOLDER / "plugins.json"
    results = json.loads(out.read_text()) if out.exists() else {}
    for name in names:
        _, ask = ASKED_OF[name]
        with tempfile.TemporaryDirectory() as folder:
            earned = ask(Path(folder).resolve(), LOGS)
        results[name] = {"version": version(name), **earned}
        print(name, {reward: sum(values) for reward, values in earned.items()})
    ordered = {name: results[name] for name in ASKED_OF if name in results}
    out.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

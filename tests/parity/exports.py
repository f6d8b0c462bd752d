"""Reads what `tgsr.data.other_trainers` writes with the loaders it is for; writes exports.json beside this file.

Each project wants an environment of its own, with tgsr in it (pip install -e . --no-deps); no network, no GPU:

    pip install trl==1.16.0 datasets                 # then: python tests/parity/exports.py trl nemo-rl
    pip install --no-deps ms-swift==4.6.0            # and what its data set module imports: datasets<4.8.5 modelscope
                                                     # addict dacite json-repair simplejson oss2 ...
                                                     #       python tests/parity/exports.py ms-swift
    pip install --no-deps verl==0.9.1                # and datasets ray omegaconf hydra-core tensordict codetiming
                                                     #       python tests/parity/exports.py verl

What is named on the command line is run again, the rest of exports.json stays. Every file has texts that look like a
place for audio and questions that lack what the first ones have. NeMo-RL is on PyPI in name only (0.0.0, without code):
of it only the call that its ResponseDataset reads a file with is made, datasets.load_dataset("json").
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from tgsr.data.other_trainers import PLACE, Family, export, import_back, prompt_of, target_of  # noqa: E402
from tgsr.records import Question  # noqa: E402
from tgsr.rewards import answer_reward, timestamp_grounding_reward  # noqa: E402
from tgsr.timeline import Span  # noqa: E402

TRICKY = (
    "plain",
    "say <audio> now",
    "<image><video>",
    "<|AUDIO|> and <sound>",
    'he said "no"\nthen \u2028 left é',
)
FAMILY: Family = "qwen_omni"


def phrases() -> list[Question]:
    return [
        Question(
            f"p{n}", "c", f"a{n}.wav", 60.0, "phrase", "When?", phrase=text, evidence=(Span(n + 0.5, n + 2),)
        )
        for n, text in enumerate(TRICKY)
    ]


def choices() -> list[Question]:
    return [
        Question(
            f"q{n}",
            "c",
            f"a{n}.wav",
            60.0,
            "choice",
            text,
            answer=("yes", text)[n % 2],
            choices=("yes", text),
            evidence=(Span(1, 2),) * (n % 3),
            task="order" if n > 2 else None,
        )
        for n, text in enumerate(TRICKY)
    ]


def written(folder: Path, target: Any) -> tuple[Path, Path]:
    """Stage 1's file and stage 2's; both come back equal before any loader sees them."""
    files = []
    for name, questions in (("phrases", phrases()), ("choices", choices())):
        out = folder / f"{name}{'.parquet' if target == 'verl' else '.jsonl'}"
        export(questions, folder / "questions.jsonl", target, out, FAMILY)
        assert list(import_back(out, target)) == questions
        files.append(out)
    return files[0], files[1]


def audio_of(folder: Path, n: int) -> str:
    return str(folder / f"a{n}.wav")


def by_parts(rows: Any, questions: list[Question], folder: Path, column: str) -> dict[str, int]:
    """How many rows arrived, and of them with their path, their text, one audio part, and no key filled in."""
    found = {"rows": len(rows), "audio_path": 0, "text": 0, "one_audio": 0, "no_key_filled_in": 0}
    for n, (row, question) in enumerate(zip(rows, questions, strict=True)):
        user = next(message for message in row[column] if message["role"] == "user")
        audio, text = user["content"]
        found["audio_path"] += audio.get("audio") == audio_of(folder, n)
        found["text"] += text.get("text") == prompt_of(question, FAMILY)
        found["one_audio"] += [part["type"] for part in user["content"]] == ["audio", "text"]
        found["no_key_filled_in"] += audio.keys() == {"type", "audio"} and text.keys() == {"type", "text"}
    return found


def read_by_trl(folder: Path) -> dict[str, Any]:
    """TRL's own trainers, one step each, around a decoder of a few thousand weights that is given no audio."""
    import datasets
    import transformers
    import trl

    import tiny

    lessons, prompts = (
        datasets.load_dataset("json", data_files=str(path), cache_dir=str(folder / "cache"))["train"]
        for path in written(folder, "trl")
    )
    result: dict[str, Any] = {
        "versions": {name: version(name) for name in ("trl", "datasets", "transformers")},
        "sft": by_parts(lessons, phrases(), folder, "prompt"),
        "grpo": by_parts(prompts, choices(), folder, "prompt"),
    }
    tokenizer = tiny.omni_tokenizer()
    tokenizer.chat_template = tiny.CHAT_TEMPLATE
    config = tiny.narrow_qwen2(tokenizer)
    common = {"use_cpu": True, "report_to": [], "bf16": False, "save_strategy": "no", "max_steps": 1}
    sft = trl.SFTTrainer(
        model=transformers.Qwen2ForCausalLM(config),
        args=trl.SFTConfig(output_dir=str(folder / "sft"), per_device_train_batch_size=5, **common),
        train_dataset=lessons,
        processing_class=tokenizer,
    )
    places = taught = 0
    for row, question in zip(sft.train_dataset, phrases(), strict=True):
        places += tokenizer.decode(row["input_ids"]).count("<|AUDIO|>") == 1
        learnt = [label for label in row["labels"] if label != -100]
        taught += target_of(question, FAMILY) in tokenizer.decode(learnt)
    sft.train()
    result["sft"] |= {
        "one_place_in_the_tokens": places,
        "target_is_taught": taught,
        "steps": sft.state.global_step,
    }

    seen: list[str] = []

    def answer(completions: Any, label: list[str], **columns: Any) -> list[float]:
        seen.extend(label)
        return answer_reward(completions, label, **columns)

    grpo = trl.GRPOTrainer(
        model=transformers.Qwen2ForCausalLM(config),
        reward_funcs=[answer, timestamp_grounding_reward],
        args=trl.GRPOConfig(
            output_dir=str(folder / "grpo"),
            per_device_train_batch_size=10,
            num_generations=2,
            max_completion_length=4,
            **common,
        ),
        train_dataset=prompts,
        processing_class=tokenizer,
    )
    grpo.train()
    letters = sorted(target_of(question, FAMILY) for question in choices() for _ in range(2))
    result["grpo"] |= {"labels_reached_our_reward": sorted(seen) == letters, "steps": grpo.state.global_step}
    result["not_checked"] = (
        "training on audio: TRL 1.16's data sets, collators and losses know images and no audio; here a text model "
        "stood in"
    )
    return result


def read_by_ms_swift(folder: Path) -> dict[str, Any]:
    os.environ["MODELSCOPE_CACHE"] = str(folder / "modelscope")
    from swift.dataset import load_dataset
    from swift.template.base import Template
    from swift.template.template_inputs import StdTemplateInputs

    result: dict[str, Any] = {"versions": {name: version(name) for name in ("ms-swift", "datasets")}}
    for stage, path, questions in zip(
        ("sft", "grpo"), written(folder, "ms-swift"), (phrases(), choices()), strict=True
    ):
        rows, _ = load_dataset(str(path), strict=True, remove_unused_columns=stage == "sft")
        found = {"rows": len(rows), "audio_path": 0, "text": 0, "one_place_for_audio": 0, "target": 0}
        for n, (row, question) in enumerate(zip(rows, questions, strict=True)):
            inputs = StdTemplateInputs.from_dict(row)
            Template._replace_image_tags(inputs)
            Template._replace_start_image_tags(inputs)
            Template._add_default_tags(inputs)
            found["audio_path"] += inputs.audios == [audio_of(folder, n)]
            pieces, _ = Template._split_special_tokens(
                [message["content"] for message in inputs.messages], [0.0] * len(inputs.messages)
            )
            marks = [piece for piece in pieces if piece in Template.special_tokens]
            found["one_place_for_audio"] += marks == [PLACE] and not (inputs.images or inputs.videos)
            user = inputs.messages[0]["content"]
            said = user.removeprefix(PLACE).replace("< ", "<")
            found["text"] += said == prompt_of(question, FAMILY).replace("< ", "<")
            if stage == "grpo":
                found["target"] += inputs.extra_kwargs.get("solution") == target_of(question, FAMILY)
            else:
                answer = inputs.messages[1]["content"].replace("< ", "<")
                found["target"] += answer == target_of(question, FAMILY).replace("< ", "<")
        result[stage] = {**found, "columns": sorted(rows.column_names)}
    result["not_checked"] = "encoding by the model's template, which needs a checkpoint's processor"
    return result


def read_by_verl(folder: Path) -> dict[str, Any]:
    import omegaconf
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    import tiny

    tokenizer = tiny.omni_tokenizer()
    tokenizer.chat_template = tiny.CHAT_TEMPLATE
    config = omegaconf.OmegaConf.create(
        {"cache_dir": str(folder / "cache"), "filter_overlong_prompts": False, "max_prompt_length": 4096}
    )
    result: dict[str, Any] = {"versions": {name: version(name) for name in ("verl", "datasets")}}
    for stage, path, questions in zip(
        ("phrases", "choices"), written(folder, "verl"), (phrases(), choices()), strict=True
    ):
        # the tokenizer stands where the processor would: this class only asks that there is one
        rows = RLHFDataset([str(path)], tokenizer, config, processor=tokenizer)
        found = {
            "rows": len(rows),
            "audio_path": 0,
            "text": 0,
            "one_place_in_the_prompt": 0,
            "ground_truth": 0,
        }
        for n, question in enumerate(questions):
            row = rows[n]
            _, _, audios = RLHFDataset._process_multi_modal_info(row["raw_prompt"], 14, config)
            found["audio_path"] += audios == [audio_of(folder, n)]
            text = row["raw_prompt"][-1]["content"][1]["text"]
            found["text"] += text.replace("< ", "<") == prompt_of(question, FAMILY).replace("< ", "<")
            prompt = tokenizer.apply_chat_template(row["raw_prompt"][1:], tokenize=False)
            found["one_place_in_the_prompt"] += prompt.count("<|AUDIO|>") == 1
            found["ground_truth"] += row["reward_model"]["ground_truth"] == target_of(question, FAMILY)
            assert row["index"] == n
        batch = collate_fn([rows[n] for n in range(len(rows))])
        result[stage] = {**found, "columns": sorted(batch)}
    result["not_checked"] = (
        "rollouts and training, which need Ray and a GPU; lengths by a model's own processor"
    )
    return result


def read_by_nemo_rl(folder: Path) -> dict[str, Any]:
    import datasets

    result: dict[str, Any] = {"versions": {"datasets": version("datasets")}}
    for stage, path, questions in zip(
        ("sft", "grpo"), written(folder, "nemo-rl"), (phrases(), choices()), strict=True
    ):
        rows = datasets.load_dataset("json", data_files=str(path), cache_dir=str(folder / "cache"))["train"]
        targets = sum(
            row["messages"][-1] == {"role": "assistant", "content": target_of(question, FAMILY)}
            for row, question in zip(rows, questions, strict=True)
        )
        result[stage] = {**by_parts(rows, questions, folder, "messages"), "target": targets}
    result["not_checked"] = (
        "NeMo-RL itself: PyPI has 0.0.0, which holds no code, so only the call its ResponseDataset makes was made; "
        "its GRPO takes audio as samples, which a data set class of one's own has to load from the path"
    )
    return result


LOADERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "trl": read_by_trl,
    "ms-swift": read_by_ms_swift,
    "verl": read_by_verl,
    "nemo-rl": read_by_nemo_rl,
}


def main(names: list[str]) -> None:
    out = FOLDER / "exports.json"
    results = json.loads(out.read_text()) if out.exists() else {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = LOADERS[name](Path(folder).resolve())
        print(name, json.dumps(results[name], indent=1))
    ordered = {name: results[name] for name in LOADERS if name in results}
    out.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:] or list(LOADERS))

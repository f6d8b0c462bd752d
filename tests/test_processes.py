"""Two processes on a CPU, started by torchrun, against one process with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tgsr.data.questions.build import ask_about, compose_clips, write_questions
from tiny import tiny_lalm

RUN = """
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, sys.argv[1])
from tgsr import rl, sta
from tgsr.engine.features import FeatureCache
from tgsr.training import run
from tiny import tiny_lalm

torch.set_num_threads(1)
stage, questions, out, *options = sys.argv[2:]
run.load = lambda name, *_: tiny_lalm()
options = {name: eval(value) for name, value in (option.split("=") for option in options)}
rank = os.environ.get("RANK", "0")
held = []  # how many of the layers' numbers this process keeps


def noted(lalm, of):
    real(lalm, of)
    held.append(sum(w.to_local().numel() if hasattr(w, "to_local") else w.numel()
                    for w in lalm.language_model.layers.parameters()))


if stage == "sta":
    from tgsr.training import supervised as loop
else:
    loop = rl
real, loop.shard_frozen = loop.shard_frozen, noted


def uneven(texts, terms, **columns):
    values = [float(len(text) % 3) for text in texts]
    return {"answer": values, "timestamp_grounding": values}, values


rl.score_completions = uneven
real_step = loop.step_or_stop


def keep_gradients(optimizer, parameters, loss, clip_norm, step):
    if not list(Path(out).glob(f"gradients-{rank}.pt")):
        torch.save([p.grad.clone() for p in parameters], Path(out, f"gradients-{rank}.pt"))
    return real_step(optimizer, parameters, loss, clip_norm, step)


loop.step_or_stop = keep_gradients
cache = FeatureCache(Path(out).parent / "cache")
if stage == "sta":
    settings = {"clips_per_step": 4, "learning_rate": 1e-3, **options}
    sta.train_sta(sta.StaConfig(questions=questions, **settings), Path(out), cache)
else:
    settings = {"prompts_per_step": 4, "group_size": 3, "max_new_tokens": 6, "learning_rate": 1e-3, **options}
    rl.train_grpo(rl.GrpoConfig(questions, **settings), Path(out), cache)
Path(out, f"held-{rank}").write_text(str(held))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("processes")
    clips = compose_clips(6, "train", 0, folder)
    (folder / "run.py").write_text(RUN)
    phrases = write_questions(clips, ask_about(clips, "sta", 3, 0), folder)
    phrases = phrases.rename(folder / "sta.jsonl")
    choices = write_questions(clips, ask_about(clips, "qa", 0, 0)[:5], folder)
    return {"folder": folder, "sta": phrases, "grpo": choices.rename(folder / "grpo.jsonl")}


def train(
    made: dict[str, Path], stage: str, n: int, out: str, *options: str
) -> subprocess.CompletedProcess[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)] if n > 1 else []
    here = str(Path(__file__).parent)
    command = [sys.executable, *torchrun, str(made["folder"] / "run.py"), here, stage, str(made[stage])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(made["folder"] / out), *options],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )


def rows_of(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_gradients(run: Path, other: Path) -> None:
    """Of the first step: later ones differ by what AdamW makes of the last digit."""
    for rank in range(len(list(other.glob("gradients-*.pt")))):
        pairs = zip(
            torch.load(run / "gradients-0.pt"), torch.load(other / f"gradients-{rank}.pt"), strict=True
        )
        for gradient, theirs in pairs:
            assert (gradient - theirs).abs().max() <= 1e-6 * max(1.0, float(gradient.abs().max()))


@pytest.mark.parametrize("stage", ["sta", "grpo"])
def test_two_processes_are_one_with_twice_the_batch(stage: str, made: dict[str, Path]) -> None:
    """Items do not divide evenly at the epoch's end: one process has less to do, or nothing."""
    ran = [train(made, stage, n, f"{stage}-{n}") for n in (1, 2)]
    assert [r.returncode for r in ran] == [0, 0], ran[1].stderr[-3000:]
    one, two = (made["folder"] / f"{stage}-{n}" for n in (1, 2))
    assert_same_gradients(one, two)
    assert (two / "gradients-1.pt").exists()
    assert len(rows_of(one)) == len(rows_of(two)) == 2
    for row, other in zip(rows_of(one), rows_of(two), strict=True):
        assert other["loss"] == pytest.approx(row["loss"], abs=1e-5)
        for name in ("sampled", "tokens", "reward", "cut", "equal_groups"):
            assert other.get(name) == row.get(name)
    for file in (one / "adapter").glob("*.safetensors"):
        theirs = load_file(two / "adapter" / file.name)
        for name, weight in load_file(file).items():
            assert torch.allclose(theirs[name], weight, atol=1e-5), name


@pytest.mark.parametrize("stage", ["sta", "grpo"])
def test_a_sharded_decoder_has_the_same_gradients(stage: str, made: dict[str, Path]) -> None:
    more = (
        ["gradient_checkpointing=True"] if stage == "sta" else ["prompts_at_once=1", "updates_per_rollout=2"]
    )
    ran = train(made, stage, 2, f"{stage}-sharded", "shard=True", *more)
    assert ran.returncode == 0, ran.stderr[-3000:]
    sharded = made["folder"] / f"{stage}-sharded"
    whole = made["folder"] / f"{stage}-1"
    if not whole.exists():
        assert train(made, stage, 1, whole.name).returncode == 0
    assert_same_gradients(whole, sharded)
    held = [int((sharded / f"held-{rank}").read_text().strip("[]")) for rank in (0, 1)]
    assert held[0] == held[1]
    layers = tiny_lalm().language_model.layers
    if stage == "sta":  # nothing of the decoder trains: each process holds half of its matrices
        vectors = sum(w.numel() for w in layers.parameters() if w.ndim == 1)
        assert held[0] == vectors + (sum(w.numel() for w in layers.parameters()) - vectors) // 2


def test_a_step_that_cannot_be_divided_is_refused_before_any_compute(made: dict[str, Path]) -> None:
    ran = train(made, "grpo", 2, "uneven", "shard=True", "prompts_per_step=3")
    assert ran.returncode != 0
    assert "--shard: 3 items a step must be a multiple of 2 processes" in ran.stderr

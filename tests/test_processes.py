"""Two processes on a CPU, started by torchrun, against one process with the whole batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tgsr.data.questions.build import ask_about, compose_clips, write_questions
from tgsr.training.adapter import take_adapter
from tiny import tiny_base, tiny_lalm

STAGES = ("sta", "grpo")
ONE, TWO, SHARDED, DYNAMIC, UNEVEN = "one", "two", "sharded", "dynamic", "uneven"
STOPPED, MOVED = "stopped", "moved"
N_WATCHED = 3


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs, STAGE-NAME each, beside STAGE-NAME-error-RANK where one failed."""
    folder = tmp_path_factory.mktemp("processes")
    clips = compose_clips(6, "train", 0, folder)
    phrases, choices = ask_about(clips, "sta", 3, 0), ask_about(clips, "qa", 0, 0)
    questions = {"sta": phrases, "grpo": choices[:5]}
    files = {
        stage: write_questions(clips, asked, folder).rename(folder / f"{stage}.jsonl")
        for stage, asked in questions.items()
    }
    # Watched is a question of each of three clips, which two processes cannot share evenly: drawing takes longest.
    few = {
        stage: write_questions(
            clips, list({q.clip_id: q for q in asked}.values())[:N_WATCHED], folder
        ).rename(folder / f"{stage}-few.jsonl")
        for stage, asked in (("sta", phrases), ("grpo", choices))
    }
    sharded = {
        "sta": {"shard": True, "gradient_checkpointing": True},
        "grpo": {"shard": True, "prompts_at_once": 1, "responses_at_once": 2, "updates_per_rollout": 2},
    }
    jobs = [
        {
            "n_processes": n,
            "port": free_port(),
            "stage": stage,
            "questions": str(files[stage]),
            "out": str(folder / f"{stage}-{name}"),
            "options": {**options, "watch": str(few[stage])},
        }
        for stage in STAGES
        for n, name, options in ((1, ONE, {}), (2, TWO, {}), (2, SHARDED, sharded[stage]))
    ]
    dynamic = {"dynamic_sampling": 2, "max_steps": 1, "prompts_per_step": 3}
    for n, name in ((1, ONE), (2, TWO)):
        out = str(folder / f"{DYNAMIC}-{name}")
        jobs.append({**jobs[-1], "n_processes": n, "port": free_port(), "out": out, "options": dynamic})
    jobs.append({**jobs[-1], "out": str(folder / UNEVEN), "options": {"shard": True, "prompts_per_step": 3}})
    stops = {"stops": True, "clips_per_step": 2, "checkpoint_every": 100}
    jobs.append({**jobs[1], "out": str(folder / STOPPED), "port": free_port(), "options": stops})
    by_clock = {"checkpoint_every": 100, "checkpoint_minutes": 1e-9, "keep_last": 3}
    moves = {
        "sta": ((1, {}), (2, {"shard": True, "clips_at_once": 1})),
        "grpo": ((2, {"prompts_at_once": 1}), (1, {"responses_at_once": 2, "gradient_checkpointing": True})),
    }
    for stage, ((before, begins), (after, goes_on)) in moves.items():
        of_stage = {
            "stage": stage,
            "questions": str(files[stage]),
            "out": str(folder / f"{stage}-{MOVED}"),
        }
        jobs += [
            {**of_stage, "n_processes": n, "port": free_port(), "options": {**by_clock, **options}}
            for n, options in ((before, {"max_steps": 1, **begins}), (after, goes_on))
        ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [
            sys.executable,
            *torchrun,
            str(Path(__file__).parent / "recorded_runs.py"),
            str(folder / "jobs.json"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return folder


def run_of(runs: Path, name: str) -> Path:
    errors = [path.read_text() for path in runs.glob(f"{name}-error-*")]
    assert not errors, errors
    return runs / name


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


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_are_one_with_twice_the_batch(stage: str, runs: Path) -> None:
    """Items do not divide evenly at the epoch's end: one process has less to do, or nothing."""
    one, two = run_of(runs, f"{stage}-{ONE}"), run_of(runs, f"{stage}-{TWO}")
    assert_same_gradients(one, two)
    assert (two / "gradients-1.pt").exists()
    assert len(rows_of(one)) == len(rows_of(two)) == 3  # two steps, and a look before them
    for row, other in zip(rows_of(one)[1:], rows_of(two)[1:], strict=True):
        assert other["loss"] == pytest.approx(row["loss"], abs=1e-5)
        for name in ("sampled", "tokens", "reward", "cut", "equal_groups"):
            assert other.get(name) == row.get(name)
    for file in (one / "adapter").glob("*.safetensors"):
        theirs = load_file(two / "adapter" / file.name)
        for name, weight in load_file(file).items():
            assert torch.allclose(theirs[name], weight, atol=1e-5), name


def test_what_is_drawn_for_equal_groups_does_not_depend_on_the_processes(runs: Path) -> None:
    one, two = run_of(runs, f"{DYNAMIC}-{ONE}"), run_of(runs, f"{DYNAMIC}-{TWO}")
    assert_same_gradients(one, two)
    for name in ("reward", "tokens", "equal_groups", "drawn_groups", "learned_groups", "tokens_saved"):
        assert rows_of(one)[0][name] == rows_of(two)[0][name]
    assert rows_of(one)[0]["drawn_groups"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", [TWO, SHARDED])
def test_processes_share_the_watched_questions_and_answer_as_one(stage: str, name: str, runs: Path) -> None:
    """Before the first step, when all have the same weights."""
    one, several = run_of(runs, f"{stage}-{ONE}"), run_of(runs, f"{stage}-{name}")
    assert [row["step"] for row in rows_of(several) if "watch" in row] == [0, len(rows_of(several)) - 1]
    assert rows_of(several)[0]["watch"] == rows_of(one)[0]["watch"]
    answer, theirs = ((run / "watch" / "step-0.jsonl").read_bytes() for run in (one, several))
    assert answer == theirs
    assert len(answer.splitlines()) == N_WATCHED


@pytest.mark.parametrize("stage", STAGES)
def test_a_sharded_decoder_has_the_same_gradients(stage: str, runs: Path) -> None:
    whole, sharded = run_of(runs, f"{stage}-{ONE}"), run_of(runs, f"{stage}-{SHARDED}")
    assert_same_gradients(whole, sharded)
    held = [int((sharded / f"held-{rank}").read_text()) for rank in (0, 1)]
    assert held[0] == held[1]
    layers = tiny_lalm().language_model.layers
    if stage == "sta":  # nothing of the decoder trains: each process holds half of its matrices
        vectors = sum(w.numel() for w in layers.parameters() if w.ndim == 1)
        assert held[0] == vectors + (sum(w.numel() for w in layers.parameters()) - vectors) // 2


@pytest.mark.parametrize("stage", STAGES)
def test_a_sharded_runs_checkpoint_gives_the_adapter_that_it_ended_with(stage: str, runs: Path) -> None:
    run = run_of(runs, f"{stage}-{SHARDED}")
    taken = take_adapter(run, load=tiny_base)
    assert [path.name for path in sorted(taken.iterdir())] == [
        p.name for p in sorted((run / "adapter").iterdir())
    ]
    for file in taken.iterdir():
        assert file.read_bytes() == (run / "adapter" / file.name).read_bytes()


def test_sigterm_to_one_process_stops_all_after_the_same_step(runs: Path) -> None:
    stopped = run_of(runs, STOPPED)
    assert [(runs / f"{STOPPED}-stopped-{rank}").read_text() for rank in (0, 1)] == ["143", "143"]
    assert [row["step"] for row in rows_of(stopped)] == [1]
    assert torch.load(stopped / "checkpoint-1.pt")["step"] == 1
    assert not (stopped / "adapter").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_goes_on_with_another_number_of_processes_as_if_it_had_never_stopped(
    stage: str, runs: Path
) -> None:
    """Stage 1 from one process to two that share the decoder, stage 2 from two to one, each with other passes."""
    one, moved = run_of(runs, f"{stage}-{ONE}"), run_of(runs, f"{stage}-{MOVED}")
    unbroken, rows = [row for row in rows_of(one) if "loss" in row], rows_of(moved)
    assert [row["step"] for row in rows] == [1, 2]
    for row, other in zip(unbroken, rows, strict=True):
        assert other["loss"] == pytest.approx(row["loss"], abs=1e-5)
        for name in ("lr", "question", "sampled", "tokens", "reward", "cut", "equal_groups"):
            assert other.get(name) == row.get(name)
    for file in (one / "adapter").glob("*.safetensors"):
        theirs = load_file(moved / "adapter" / file.name)
        for name, weight in load_file(file).items():
            assert torch.allclose(theirs[name], weight, atol=1e-5), name
    assert sorted(path.name for path in moved.glob("checkpoint-*")) == ["checkpoint-1.pt", "checkpoint-2.pt"]
    since = json.loads((moved / "run.json").read_text())["config_since"]
    assert since.pop("max_steps") == 0
    assert (
        since
        == {
            "sta": {"shard": True, "clips_at_once": 1},
            "grpo": {"prompts_at_once": None, "responses_at_once": 2, "gradient_checkpointing": True},
        }[stage]
    )


def test_a_step_that_cannot_be_divided_is_refused_before_any_compute(runs: Path) -> None:
    for rank in (0, 1):
        error = (runs / f"{UNEVEN}-error-{rank}").read_text()
        assert "--shard: 3 items a step must be a multiple of 2 processes" in error
    assert not (runs / UNEVEN / "metrics.jsonl").exists()

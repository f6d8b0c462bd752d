"""The benchmarks run: tiny sizes, one run, both sides held against each other before they are timed."""

from __future__ import annotations

import json
import os
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tgsr.errors import OptionError
from tgsr.models.load import load
from tiny import saved, tiny_lalm

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def planted_update(*_: object, **__: object) -> dict[str, float]:
    return {"peak_bytes": 2**20, "seconds": 0.1}


@pytest.mark.parametrize(
    ("script", "planted", "says"),
    [
        ("speed", planted_update, "GRPO update, 2 answers of 12 tokens"),
        ("curves", planted_update, "kv cache"),
        ("attention", lambda *_: 2**20, "blocks"),
    ],
    ids=["speed", "curves", "attention"],
)
def test_it_runs(script: str, planted: object, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All but the processes in which memory is measured."""
    import_module(script).main(["--quick"], planted)
    assert says in capsys.readouterr().out


TINY = {"layers": 1, "seconds": 1.0, "group": 1, "text": 110, "answer": 3, "heads": 3, "window": 1}


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    assert (
        import_module("attention").memory_in_fresh_process(import_module("sides").Setting(**TINY), "eager")
        > 0
    )


def test_the_process_of_an_update_takes_the_flags_that_it_is_started_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a process imports for ten seconds; the test before has shown that one is started. Here it is main()."""
    timing, started = import_module("timing"), import_module("one_update")

    def said_by(script: str, flags: list[str]) -> dict[str, float]:
        assert script == Path(started.__file__).name
        started.main(flags)
        return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))

    monkeypatch.setattr(timing, "said_by", said_by)
    measured = timing.in_fresh_process(
        import_module("sides").Setting(**TINY), "usual", bfloat16=True, phrases=False
    )
    assert measured["peak_bytes"] > 0 < measured["seconds"]


def test_why_a_process_failed_is_said() -> None:
    said = import_module("timing").said_by("no_such_script.py", [])
    assert "No such file" in said["failed"]


@pytest.mark.parametrize(("returned", "expected"), [({"seconds": 1.5}, {"seconds": 1.5}), (None, {})])
def test_a_fork_hands_back_what_it_measured_or_nothing(
    returned: dict[str, float] | None, expected: dict[str, float]
) -> None:
    def call() -> dict[str, float]:
        if returned is None:
            os._exit(1)  # as a child that the system kills for its memory
        return returned

    assert import_module("timing").in_child(call) == expected


def test_the_papers_costs_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """A mixture reads ten times the weights that a token meets: drawing outweighs all else."""
    import_module("cost").main()
    said = capsys.readouterr().out
    assert "stage 2, 47,000 questions, hours" in said
    assert "| bottleneck | update | decoding | update | decoding | decoding | decoding |" in said


def test_two_scorers_take_turns_and_leave_the_modules_as_they_were() -> None:
    scorer, before = import_module("score"), import_module("tgsr.records")
    assert scorer.one(40)["predictions"] == 40
    turns = scorer.compared(40, BENCHMARKS.parent / "src", n_turns=1)
    assert len(turns["cpu_seconds"]["this"]) == len(turns["cpu_seconds"]["other"]) == 1
    assert import_module("tgsr.records") is before


# --- a real size, and the script for a GPU ---------------------------------------------------------------------------


def test_the_real_sizes_checkpoint_has_the_published_parameters_in_shards_of_a_gigabyte() -> None:
    real_size, mini = import_module("real_size"), tiny_lalm()
    shapes = real_size.shapes_of(real_size.configuration("real", mini.tokenizer))
    assert sum(shape.numel() for shape in shapes.values()) == 8_267_215_360
    shards = [[shapes[name] for name in names] for names in real_size.sharded(shapes)]
    assert [shape for names in shards for shape in names] == list(shapes.values())
    assert all(
        len(names) == 1 or 2 * sum(shape.numel() for shape in names) <= real_size.SHARD_BYTES
        for names in shards
    )


def test_its_weights_have_the_names_that_the_class_saves_and_stay_in_their_files_when_loaded(
    tmp_path: Path,
) -> None:
    real_size = import_module("real_size")
    folder = real_size.write_checkpoint(tmp_path / "model", "tiny", most=200_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    files = {file: (folder / file).stat().st_size for file in index.values()}
    assert len(files) > 2
    lalm = tiny_lalm()
    saved(lalm, tmp_path / "like")
    with safe_open(tmp_path / "like" / "model.safetensors", "pt") as like:
        theirs = {name.replace(".1.", ".0.") for name in like.keys()}  # noqa: SIM118
    assert {name.replace(".1.", ".0.") for name in index} == theirs
    loaded = load(str(folder))
    assert loaded.inner.dtype == torch.bfloat16
    assert not in_memory_of_its_own(loaded.lm_head.weight)


def in_memory_of_its_own(weight: torch.Tensor) -> bool:
    """Whether it is a copy, and not the checkpoint's file as the system maps it (Linux)."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(edge, 16) for edge in line.split()[0].split("-"))
        if first <= weight.data_ptr() < last:
            return not line.endswith(".safetensors")
    raise AssertionError("no memory of this process")


def test_a_step_of_each_stage_stands_beside_its_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "real_size.json", tmp_path / "model"
    where = ["--folder", str(folder), "--out", str(out)]
    import_module("real_size").main(["--size", "tiny", "--seconds", "2", "--new-tokens", "4", *where])
    sta, grpo = json.loads(out.read_text())["steps"]
    assert (sta["stage"], grpo["stage"]) == ("sta", "grpo")
    assert sta["grad_norm"] > 0 < grpo["grad_norm"]
    assert sta["peak_bytes"] > sta["mapped_bytes"] > 0
    assert sta["plan"]["bytes"] > 2e9 < grpo["plan"]["bytes"]
    assert sta["plan"]["step_s"] > 0 < grpo["plan"]["step_s"]
    assert "by plan" in capsys.readouterr().out
    assert not folder.exists()


def test_the_gpus_script_hands_its_options_on_with_the_seconds_that_it_took() -> None:
    script = ["bash", str(BENCHMARKS / "gpu.sh"), "--size", "tiny"]
    done = subprocess.run(
        script, env=os.environ | {"PYTHON": "echo"}, capture_output=True, text=True, check=True
    )
    said, *flags = done.stdout.split()
    assert Path(said) == BENCHMARKS.resolve() / "gpu.py"
    assert flags[0] == "--spent"
    assert 0 <= int(flags[1]) < 600
    assert flags[2:] == ["--size", "tiny"]


def test_a_tiny_model_is_measured_on_a_cpu_as_a_real_one_on_a_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.json"
    flags = ["--size", "tiny", "--runs", "1", "--minutes", "60", "--out", str(out)]
    assert import_module("gpu").main(flags) == 0
    record = json.loads(out.read_text())
    assert record["failed"] == {}
    assert record["check"]["passed"]
    assert {row["part"] for row in record["check"]["rows"]} == {1, 2, 3, 5, 6}
    ratios = [row["ratios"] for row in record["rows"]]
    assert [sorted(of_row) for of_row in ratios[:4]] == [["separate", "usual"]] * 4
    assert [sorted(of_row) for of_row in ratios[4:]] == [
        ["own modules", "static cache", "usual"],
        ["dense mask", "separate"],
    ]
    assert "| GRPO update, 2 branches" in capsys.readouterr().out


def test_what_fails_or_comes_too_late_is_said_and_the_rest_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, late = tmp_path / "gpu.json", iter(["", "", "not begun: 12 minutes had passed"])

    def does_not_fit() -> list[object]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    sections = {"check": does_not_fit, "sampling": lambda: ["measured"], "attention": lambda: ["too late"]}
    record = {"rows": [], "seconds": {}, "failed": {}}
    import_module("gpu").measure_all(sections, record, out, lambda: next(late))
    assert json.loads(out.read_text()) == record
    assert record["rows"] == ["measured"]
    assert record["failed"] == {
        "check": "OutOfMemoryError: CUDA out of memory",
        "attention": "not begun: 12 minutes had passed",
    }
    assert "check: not measured: OutOfMemoryError" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_real_size_is_refused_where_torch_sees_no_gpu() -> None:
    with pytest.raises(OptionError, match=r"sees no GPU.*--size tiny"):
        import_module("gpu").main([])

"""The benchmarks run: tiny sizes, one run, both sides held against each other before they are timed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

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
        ("curves", planted_update, "usual"),
        ("attention", lambda *_: 2**20, "blocks"),
    ],
    ids=["speed", "curves", "attention"],
)
def test_it_runs(script: str, planted: object, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All but the processes in which memory is measured."""
    import_module(script).main(["--quick"], planted)
    assert says in capsys.readouterr().out


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    tiny = import_module("sides").Setting(layers=1, seconds=1.0, group=1, text=110, answer=3)
    assert import_module("timing").in_fresh_process(tiny, "usual")["peak_bytes"] > 0
    assert import_module("attention").memory_in_fresh_process(tiny, "eager") > 0


def test_the_papers_costs_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    import_module("cost").main()
    assert "stage 2, 47,000 questions, hours" in capsys.readouterr().out


def test_two_scorers_take_turns_and_leave_the_modules_as_they_were() -> None:
    scorer, before = import_module("score"), import_module("tgsr.records")
    assert scorer.one(40)["predictions"] == 40
    turns = scorer.compared(40, BENCHMARKS.parent / "src", n_turns=1)
    assert len(turns["cpu_seconds"]["this"]) == len(turns["cpu_seconds"]["other"]) == 1
    assert import_module("tgsr.records") is before

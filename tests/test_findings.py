"""benchmarks/findings.py: means over seeds, and claims that hold, do not hold, or cannot be told."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from tgsr.records import Question, Response, read_responses, write_jsonl
from tgsr.statistics.intervals import Bootstrap
from tgsr.timeline import Span


def question(n: int) -> Question:
    return Question(
        id=f"q{n}", clip_id=f"c{n}", audio=f"c{n}.flac", duration=10.0, kind="choice", question="Which is said?",
        choices=("one", "two"), answer="one", evidence=(Span(n % 8 + 0.5, n % 8 + 1.5),), split="test",
    )  # fmt: skip


def there(of: Question) -> str:
    return f'says "one" from {of.evidence[0].start} s to {of.evidence[0].end} s.'


def elsewhere(of: Question) -> str:
    return 'says "one" from 0.0 s to 0.4 s.'


@pytest.fixture
def runs(tmp_path: Path) -> Callable[..., Path]:
    """A folder of answers as the recipe leaves it: models with what they cite and how many of 16 are right."""

    def write(**models: tuple[Callable[[Question], str], int]) -> Path:
        asked = [question(n) for n in range(16)]
        for name, (cites, n_right) in models.items():
            texts = [
                f"{cites(of)}\nFinal answer: {'one (a)' if n < n_right else 'two (b)'}"
                for n, of in enumerate(asked)
            ]
            model = name.replace("_", "-")
            responses = [Response(of, model, text) for of, text in zip(asked, texts, strict=True)]
            path = tmp_path / "answers" / "digits" / f"{model}-split.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(path, responses)
        (tmp_path / "state.tsv").write_text(
            "step\tstate\tminutes\nsta-0\tdone\t1.0\nattention\tnot run\tabout 15\nall\tleft\tabout 15\n"
        )
        return tmp_path

    return write


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    return import_module("findings")


def test_each_claim_has_the_verdict_of_its_interval(runs: Callable[..., Path], findings: object) -> None:
    folder = runs(
        base=(elsewhere, 2), paper_0=(elsewhere, 12), paper_1=(elsewhere, 13), grounded_0=(there, 13),
        grounded_1=(there, 12), sta_0=(there, 1), sta_1=(there, 1),
    )  # fmt: skip
    text = findings.page(folder, seed=0)  # type: ignore[attr-defined]
    assert "Not run: attention." in text

    def verdict(claim: str) -> str:
        found = re.search(rf"\| {claim} +\| +([^|]+?) +\|", text)
        assert found is not None, claim
        return found[1]

    assert verdict("both stages answer better than the base") == "holds"
    assert verdict("a reward that looks where citations point finds more evidence") == "holds"
    assert verdict("and answers better") == "cannot tell"
    assert verdict("stage 1 makes cited evidence right") == "holds"
    assert "reasoning SFT answers" not in text  # which was not run


def test_runs_that_answered_other_questions_are_refused(runs: Callable[..., Path], findings: object) -> None:
    folder = runs(base=(there, 2), paper_0=(there, 3))
    path = folder / "answers" / "digits" / "base-split.jsonl"
    write_jsonl(path, read_responses(path)[1:])
    with pytest.raises(SystemExit, match="did not answer the same questions"):
        findings.page(folder, seed=0)  # type: ignore[attr-defined]


def test_the_answer_alone_is_what_stage_2_reads(tmp_path: Path, findings: object) -> None:
    write_jsonl(tmp_path / "questions.jsonl", [question(0)])
    findings.write_answers(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl")  # type: ignore[attr-defined]
    assert [response.text for response in read_responses(tmp_path / "answers.jsonl")] == [
        "Final answer: one (a)"
    ]


def test_other_ways_of_stage_1_are_held_against_it(tmp_path: Path, findings: object) -> None:
    said = [replace(question(n), kind="phrase", phrase="one", choices=(), answer=None) for n in range(8)]
    for name, late in (("plain-0", 0.5), ("plain-1", 0.5), ("clock-0", 0.1), ("clock-1", 0.1)):
        texts = [f"From {q.evidence[0].start + late} s to {q.evidence[0].end + late} s" for q in said]
        (tmp_path / name).mkdir()
        write_jsonl(
            tmp_path / name / "phrases.jsonl",
            [Response(q, name, text) for q, text in zip(said, texts, strict=True)],
        )
    table = findings.ways_of(tmp_path, Bootstrap(0, 50))  # type: ignore[attr-defined]
    (plain, clock) = table.groups[0].rows
    assert plain.cells[:1] + clock.cells[:1] == (2, 2)
    assert plain.cells[1].value == pytest.approx(1 / 3)
    assert clock.cells[1].value == pytest.approx(0.9 / 1.1)
    assert clock.cells[2].low == pytest.approx(0.9 / 1.1 - 1 / 3)
    assert plain.cells[2] is None


def test_soft_digits_are_a_gaussian_over_times(findings: object) -> None:
    soft = import_module("stage1_options").SoftDigits(None, 0.05)
    (first, tens, hundredths, last) = (dict(shares) for _, shares in soft.shares("1.98"))
    assert tens == {".": 1.0}
    assert first["1"] + first["2"] == pytest.approx(1)  # 2.00 is two ticks away
    assert sum(hundredths.values()) == pytest.approx(1)
    ticks = [math.exp(-0.5 * ((t - 198) / 5) ** 2) for t in range(179, 218)]
    assert first["1"] * hundredths["9"] * last["8"] == pytest.approx(1 / sum(ticks), rel=1e-4)

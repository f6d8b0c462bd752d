"""The table of the miniature that hears English: chance, means over kinds, and a whole table from real scores."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from tgsr import cli
from tgsr.records import Clip, Question, Response, write_jsonl
from tgsr.statistics.intervals import Bootstrap
from tgsr.timeline import Span, Word

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
FOUR = ("red", "blue", "green", "grey")


@pytest.fixture
def english(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("english")


def phrase(clip: str, start: float, end: float, duration: float = 10.0) -> Question:
    return Question(
        f"{clip}-p",
        clip,
        f"{clip}.flac",
        duration,
        "phrase",
        "a b",
        phrase="a b",
        evidence=(Span(start, end),),
    )


def choice(clip: str, task: str, choices: tuple[str, ...] = FOUR) -> Question:
    return Question(
        f"{clip}-{task}",
        clip,
        f"{clip}.flac",
        10.0,
        "choice",
        "Which?",
        answer=choices[0],
        choices=choices,
        evidence=(Span(1, 2),),
        task=task,
    )


def test_chance_is_a_span_of_the_mean_length_anywhere(english: ModuleType) -> None:
    """A span of 2 s at a uniform place in 10 s: with one of 2 s at its start it shares 2 - t of 2 + t s."""
    iou, share = english.chance_of_phrases([phrase("a", 0, 2), phrase("b", 0, 2)], Bootstrap())
    by_hand = sum((2 - t) / (2 + t) / 8 * 0.001 for i in range(2000) if (t := i * 0.001) < 2)
    assert iou.value == pytest.approx(by_hand, abs=0.005)
    assert share.value == pytest.approx(0.6 / 1.7 / 8, abs=0.005)  # (2 - t) / (2 + t) >= .7
    assert english.chance_of_phrases([phrase("a", 0, 3, 3.0)], Bootstrap())[0].value == 1.0


def test_kinds_count_alike_however_many_questions_they_have(english: ModuleType) -> None:
    questions = [choice(str(n), "next") for n in range(8)] + [
        choice("9", "often"),
        choice("9", "two", FOUR[:2]),
    ]
    items = [(q.id, q.task == "next") for q in questions]
    mean = english.mean_over_kinds(items, {q.id: q for q in questions}, Bootstrap())
    assert (mean.value, mean.n) == (0.5, 9)
    assert mean.low is not None
    assert mean.low <= 0.5 <= mean.high
    nothing = english.mean_over_kinds([(questions[-1].id, True)], {q.id: q for q in questions}, Bootstrap())
    assert nothing.value is None


def test_a_folder_of_scores_is_a_table(
    english: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [Clip(c, f"{c}.flac", 10.0, (Word("sky", 1.0, 2.0), Word("blue", 4.0, 4.5))) for c in ("a", "b")]
    phrases = [phrase("a", 1, 3), phrase("b", 4, 6)]
    choices = [choice(clip, task) for clip in ("a", "b") for task in ("next", "first")]
    write_jsonl(tmp_path / "clips.jsonl", clips)
    answered = {
        "phrases": [
            Response(q, "m", "The segment starts at 1.00 seconds and ends at 3.00 seconds.") for q in phrases
        ],
        "choices": [
            Response(q, name, text)
            for q in choices
            for name, text in (
                ("m", 'He says "sky" from 1.0 to 2.0 seconds.\nFinal answer: (a) red'),
                ("m, the letter alone", "(b)"),
            )
        ],
    }
    for kind, questions in (("phrases", phrases), ("choices", choices)):
        write_jsonl(tmp_path / f"{kind}-x" / "questions.jsonl", questions)
        write_jsonl(tmp_path / f"{kind}-x.jsonl", answered[kind])
        words = ["score", f"{kind}-x.jsonl", "--clips", "clips.jsonl", "--items", f"{kind}-x.items.jsonl"]
        words = [str(tmp_path / w) if w.endswith(".jsonl") else w for w in words]
        assert cli.main([*words, "--out", str(tmp_path / f"{kind}-x.json")]) == 0
    capsys.readouterr()
    english.main(["table", str(tmp_path)])
    title, _, head, _, chance, model, letter, *_ = capsys.readouterr().out.splitlines()
    assert title == "x: 2 phrases and 4 choices about 2 clips"
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (head, chance, model, letter)]
    named = {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[1:]}
    assert named["chance"]["choices of four (%)"] == "25.0"
    assert named["m"]["phrase IoU"] == "0.50 [0.00, 1.00]"
    assert named["m"]["start, end off (s)"] == "1.50, 1.50"
    assert named["m"]["choices of four (%)"] == "100.0 [100.0, 100.0]"
    assert named["m"]["evidence hit (%)"] == named["m"]["quote truth (%)"] == "100.0 [100.0, 100.0]"
    assert named["m, the letter alone"]["accuracy (%)"] == "0.0 [0.0, 0.0]"
    assert named["m, the letter alone"]["evidence hit (%)"] == ""


def test_measures_of_a_log_are_drawn(english: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "run.metrics.jsonl"
    log.write_text(
        '{"step": 0, "iou_timed_words": 0.1}\n{"step": 1, "loss": 2}\n{"step": 1, "watch": {"k": 1}}\n'
    )
    (curve,) = english.curves_of(log)
    assert (curve.name, curve.x, curve.y) == ("run", (0,), (0.1,))
    english.main(["curves", str(log), "--plot", str(tmp_path / "p.png")])
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"

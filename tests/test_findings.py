"""benchmarks/findings.py: means over seeds, and claims that hold, do not hold, or cannot be told."""

from __future__ import annotations

import gzip
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tgsr import audio
from tgsr.records import (
    Clip,
    Question,
    Response,
    read_clips,
    read_questions,
    read_responses,
    resolve_audio,
    write_jsonl,
)
from tgsr.statistics.intervals import Bootstrap
from tgsr.timeline import Span, Word


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
def findings(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    return import_module("findings")


@pytest.fixture
def robustness(findings: Any) -> Any:  # which is on the path then
    return import_module("robustness")


def test_each_claim_has_the_verdict_of_its_interval(runs: Callable[..., Path], findings: Any) -> None:
    folder = runs(
        base=(elsewhere, 2), paper_0=(elsewhere, 12), paper_1=(elsewhere, 13), grounded_0=(there, 13),
        grounded_1=(there, 12), sta_0=(there, 1), sta_1=(there, 1),
    )  # fmt: skip
    text = findings.page(findings.gather(folder))
    assert "Not run, or not for all seeds: attention." in text

    def verdict(claim: str) -> str:
        found = re.search(rf"\| {claim} +\| +([^|]+?) +\|", text)
        assert found is not None, claim
        return found[1]

    assert verdict("both stages answer better than the base") == "holds"
    assert verdict("a reward that looks where citations point finds more evidence") == "holds"
    assert verdict("and answers better") == "cannot tell"
    assert verdict("stage 1 makes cited evidence right") == "holds"
    assert "reasoning SFT answers" not in text  # which was not run
    assert "Trained once: Vanilla (base). What another seed would change there is in no interval." in text


def test_runs_that_answered_other_questions_are_refused(runs: Callable[..., Path], findings: Any) -> None:
    folder = runs(base=(there, 2), paper_0=(there, 3))
    path = folder / "answers" / "digits" / "base-split.jsonl"
    write_jsonl(path, read_responses(path)[1:])
    with pytest.raises(SystemExit, match="did not answer the same questions"):
        findings.gather(folder)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("robustness.py none.jsonl --out o", "robustness.py: none.jsonl: No such file or directory\n"),
        ("robustness.py q.jsonl --out o", "robustness.py: clips.jsonl: No such file or directory\n"),
        ("findings.py short none.jsonl 3", "findings.py: none.jsonl: No such file or directory\n"),
        ("findings.py answers none.jsonl o", "findings.py: none.jsonl: No such file or directory\n"),
        ("findings.py tables none.gz --out o", "findings.py: none.gz: No such file or directory\n"),
        ("findings.py short bad.jsonl 3", "findings.py: bad.jsonl:1: is not JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_message(words: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").touch()
    (tmp_path / "bad.jsonl").write_text("x\n")
    name, *rest = words.split()
    command = [sys.executable, str(Path(__file__).parent.parent / "benchmarks" / name), *rest]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(says)
    assert not (tmp_path / "o").exists()


def test_another_machines_models_are_gathered_onto_the_earlier_ones(
    runs: Callable[..., Path], findings: Any
) -> None:
    folder = runs(base=(elsewhere, 2), paper_0=(elsewhere, 12))
    earlier = findings.gather(folder)
    for path in (folder / "answers" / "digits").iterdir():
        path.unlink()
    now = findings.gather(runs(paper_0=(there, 3), paper_1=(there, 4)))
    earlier["done"], earlier["left"] = ["base"], ["paper-1", "paper-2", "controls"]
    earlier["verify"] = {"base": {"verify": 0.5}}
    now["done"], now["left"] = ["paper-0", "paper-1"], ["base", "controls", "new-0"]
    now["verify"] = {"paper-0": {"verify": 0.7}}
    both = findings.onto(earlier, now)
    models = both["worlds"]["digits"]["models"]
    assert {name: sum(values["accuracy"]) for name, values in models.items()} == {
        "base": 2,
        "paper-0": 3,
        "paper-1": 4,
    }
    assert both["left"] == ["paper-2", "controls", "new-0"]
    assert both["done"] == ["base", "paper-0", "paper-1"]
    old = {name: value for name, value in earlier.items() if name != "done"}
    assert findings.onto(old, now)["left"] == ["paper-2", "controls"]
    assert both["verify"] == {"base": {"verify": 0.5}, "paper-0": {"verify": 0.7}}
    assert "ships as" not in findings.page(both)
    now["worlds"]["digits"]["ids"] = now["worlds"]["digits"]["ids"][1:]
    with pytest.raises(SystemExit, match="did not answer the same questions"):
        findings.onto(earlier, now)


def test_the_answer_alone_is_what_stage_2_reads(tmp_path: Path, findings: Any) -> None:
    write_jsonl(tmp_path / "questions.jsonl", [question(0)])
    findings.write_answers(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl")
    assert [response.text for response in read_responses(tmp_path / "answers.jsonl")] == [
        "Final answer: one (a)"
    ]


def test_a_watched_training_tells_when_it_came_to_cite_once(findings: Any) -> None:
    looks = [
        {"step": step, "k1": k1, "evidence_hit": hit, "first_place": 0.2}
        for step, k1, hit in ((0, 0.5, 0.4), (10, 0.96, 0.7), (20, 1.0, 0.5))
    ]
    told = findings.turns(looks)
    assert told["k = 1 in 95 % from step"] == 10
    assert (told["highest hit"], told["at step"], told["hit at last"]) == (0.7, 10, 0.5)
    assert findings.turns(looks[:1])["k = 1 in 95 % from step"] is None
    left_off = {**looks[0], "step": 30, "k1": 0.93}
    assert findings.turns([*looks, left_off])["k = 1 in 95 % from step"] is None
    assert findings.turns([*looks, left_off, {**looks[2], "step": 40}])["k = 1 in 95 % from step"] == 40


def rows_of(findings: Any, clips: str, **seeds: list[list[float]]) -> dict[str, dict[str, Any]]:
    """Rows by name: a column of quote truth a seed, of questions about these clips; other measures are unknown."""
    unknown = {name: np.full(len(clips), np.nan) for name in findings.MEASURES}
    ids = tuple(f"{clip}-{n}" for n, clip in enumerate(clips))
    return {
        row.replace("_", "-"): {
            str(seed): findings.Run(ids, tuple(clips), {**unknown, "quote_truth": np.array(column)})
            for seed, column in enumerate(columns)
        }
        for row, columns in seeds.items()
    }


def quotes_are_less_true(findings: Any, rows: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """The verdict, and the difference as it is told."""
    (told,) = (
        row.cells
        for row in findings.claims_of("digits", rows, Bootstrap()).groups[0].rows
        if row.name.startswith("without the grounding reward quotes are less true")
    )
    return told[0], told[3]


def test_of_what_was_not_measured_and_of_one_clip_nothing_can_be_told(findings: Any) -> None:
    nothing, some = [math.nan] * 4, [1.0, 0.0, 0.0, 0.0]
    rows = rows_of(findings, "abcd", paper=[nothing], without_grounding=[some])
    assert quotes_are_less_true(findings, rows) == ("cannot tell", "")
    rows = rows_of(findings, "aaaa", paper=[[1.0] * 4] * 2, without_grounding=[some] * 2)
    assert quotes_are_less_true(findings, rows) == ("cannot tell", "+75.0")
    rows = rows_of(findings, "abcd", paper=[[1.0] * 4] * 2, without_grounding=[[0.0] * 4] * 2)
    assert quotes_are_less_true(findings, rows) == ("holds", "+100.0 [100.0, 100.0]")
    rows = rows_of(findings, "abcd", paper=[[1.0] * 4], without_grounding=[[0.0] * 4] * 2)
    assert quotes_are_less_true(findings, rows) == ("one seed", "+100.0 [100.0, 100.0]")
    rows = rows_of(findings, "abcd", paper=[some] * 2, without_grounding=[some] * 2)
    assert quotes_are_less_true(findings, rows) == ("cannot tell", "+0.0 [0.0, 0.0]")


def test_rows_of_unlike_seeds_are_compared_by_all_that_each_has(findings: Any) -> None:
    rows = rows_of(
        findings, "abcd", paper=[[0.0, 1.0, 0.0, 1.0], [1.0] * 4], without_grounding=[[0.0] * 3 + [1.0]]
    )
    value, low, high = findings.difference(
        rows["paper"], rows["without-grounding"], "quote_truth", Bootstrap()
    )
    assert value == pytest.approx(0.5)
    assert low < 0.25 < 0.75 < high


def test_a_mean_over_seeds_has_the_n_of_the_seed_with_the_fewest(findings: Any) -> None:
    rows = rows_of(findings, "abcd", sta=[[1.0] * 4, [math.nan, 1.0, math.nan, 0.0]])
    mean, _ = findings.mean_over(rows["sta"], "quote_truth", Bootstrap())
    assert (mean.value, mean.n, mean.n_unscored) == (0.75, 2, 2)


def test_what_is_asked_is_all_that_a_questions_id_has_after_its_clips(findings: Any) -> None:
    ids, clips = ("a-1-said-next", "a-1-who-speaks-next", "b-said-next"), ("a-1", "a-1", "b")
    runs = {"base": {"": findings.Run(ids, clips, {"accuracy": np.array([1.0, 0.0, 1.0])})}}
    table = findings.kinds_of("english", runs, Bootstrap())
    assert [column.name for column in table.columns] == ["said next, 2", "who speaks next, 1"]
    assert [cell.value for cell in table.groups[0].rows[0].cells] == [1.0, 0.0]


def test_what_cannot_be_gathered_is_told(runs: Callable[..., Path], findings: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no model has answered yet"):
        findings.gather(tmp_path)
    folder = runs(base=(there, 2), longer_0=(there, 3))
    with pytest.raises(SystemExit, match=r"longer-0: there is no row 'longer' among base, sta.*findings.py"):
        findings.page(findings.gather(folder))
    for path in (folder / "answers" / "digits").iterdir():
        path.write_text("")
    with pytest.raises(SystemExit, match="digits: no model has answered yet"):
        findings.gather(folder)


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    """Questions about a clip of 6 s and one of 4 s, of a tone that lasts from 2 to 3 s."""
    clips, asked = [], []
    for seconds in (6, 4):
        time = np.arange(16_000 * seconds) / 16_000
        sound = np.where((time > 2) & (time < 3), 0.5 * np.sin(2 * np.pi * 300 * time), 0).astype(np.float32)
        audio.save_flac(tmp_path / f"{seconds}.flac", sound)
        clips.append(Clip(f"c{seconds}", f"{seconds}.flac", seconds, (Word("one", 2.0, 3.0),)))
        asked.append(
            replace(question(0), id=f"q{seconds}", clip_id=f"c{seconds}", audio=f"{seconds}.flac", duration=seconds,
                    evidence=(Span(2.0, 3.0),))
        )  # fmt: skip
    write_jsonl(tmp_path / "clips.jsonl", clips)
    write_jsonl(tmp_path / "questions.jsonl", asked)
    return tmp_path / "questions.jsonl"


def heard(path: Path) -> tuple[np.ndarray, Question]:
    asked = read_questions(path / "questions.jsonl")[0]
    return audio.load(resolve_audio(asked, path / "questions.jsonl")), asked


@pytest.mark.parametrize(("name", "speed"), [("10 % faster", 1.1), ("10 % slower", 0.9)])
def test_the_evidence_moves_with_the_speed_of_the_tape(
    tone: Path, robustness: Any, name: str, speed: float
) -> None:
    clips = {clip.id: clip for clip in read_clips(tone.with_name("clips.jsonl"))}
    asked = [(tone, of) for of in read_questions(tone)]
    robustness.alter(asked, clips, robustness.CONDITIONS[name], tone.parent / "out")
    samples, altered = heard(tone.parent / "out")
    (place,) = altered.evidence
    assert place.start == pytest.approx(2 / speed)
    assert altered.duration == pytest.approx(6 / speed, abs=1e-3)
    where = np.flatnonzero(np.abs(samples) > 0.1) / 16_000
    assert (where[0], where[-1]) == (pytest.approx(place.start, abs=0.01), pytest.approx(place.end, abs=0.01))
    (words,) = {clip.words for clip in read_clips(tone.parent / "out" / "clips.jsonl") if clip.id == "c6"}
    assert words[0].start == pytest.approx(place.start)


def test_noise_has_the_power_that_its_name_says_and_clips_are_parted_by_length(
    tone: Path, robustness: Any
) -> None:
    clips = {clip.id: clip for clip in read_clips(tone.with_name("clips.jsonl"))}
    asked = [(tone, of) for of in read_questions(tone)]
    sounds = {}
    for name in ("clean", "noise 10 dB"):
        robustness.alter(asked, clips, robustness.CONDITIONS[name], tone.parent / name)
        sounds[name], _ = heard(tone.parent / name)
    noise = sounds["noise 10 dB"] - sounds["clean"]
    ratio = np.mean(sounds["clean"] ** 2) / np.mean(noise**2)
    assert 10 * np.log10(ratio) == pytest.approx(10, abs=0.2)
    for name, expected in (("at most 5 s", ["q4"]), ("over 5 s", ["q6"])):
        robustness.alter(asked, clips, robustness.CONDITIONS[name], tone.parent / name)
        assert [of.id for of in read_questions(tone.parent / name / "questions.jsonl")] == expected


def test_other_ways_of_stage_1_are_held_against_it(tmp_path: Path, findings: Any) -> None:
    said = [replace(question(n), kind="phrase", phrase="one", choices=(), answer=None) for n in range(8)]
    for name, late in (("plain-0", 0.5), ("plain-1", 0.5), ("clock-0", 0.1), ("clock-1", 0.1)):
        texts = [f"From {q.evidence[0].start + late} s to {q.evidence[0].end + late} s" for q in said]
        (tmp_path / name).mkdir()
        write_jsonl(
            tmp_path / name / "phrases.jsonl",
            [Response(q, name, text) for q, text in zip(said, texts, strict=True)],
        )
    table = findings.ways_table(findings.ways_in(tmp_path), Bootstrap(0, 50))
    (plain, clock) = table.groups[0].rows
    assert plain.cells[:1] + clock.cells[:1] == (2, 2)
    assert plain.cells[1].value == pytest.approx(1 / 3, abs=1e-4)
    assert clock.cells[1].value == pytest.approx(0.9 / 1.1, abs=1e-4)
    assert clock.cells[2].low == pytest.approx(0.9 / 1.1 - 1 / 3, abs=1e-3)
    assert plain.cells[2] is None


def test_soft_digits_are_a_gaussian_over_times(findings: Any) -> None:
    soft = import_module("stage1_options").SoftDigits(None, 0.05)
    (first, tens, hundredths, last) = (dict(shares) for _, shares in soft.shares("1.98"))
    assert tens == {".": 1.0}
    assert first["1"] + first["2"] == pytest.approx(1)  # 2.00 is two ticks away
    assert sum(hundredths.values()) == pytest.approx(1)
    ticks = [math.exp(-0.5 * ((t - 198) / 5) ** 2) for t in range(179, 218)]
    assert first["1"] * hundredths["9"] * last["8"] == pytest.approx(1 / sum(ticks), rel=1e-4)


def test_the_page_of_findings_is_made_of_the_measures_beside_it(findings: Any) -> None:
    pages = Path(__file__).parent.parent / "docs" / "findings"
    found = json.loads(gzip.decompress((pages / "seeds.json.gz").read_bytes()))
    _, made, tables = (pages / "seeds.md").read_text(encoding="utf-8").partition(findings.MADE)
    assert made
    assert tables == findings.page(found)

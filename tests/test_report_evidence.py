"""The report's first section: whether the evidence holds; and what a training's watch saw."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from page_reader import Page
from tgsr.errors import RecordError
from tgsr.evaluation.scoring.score import score_file, write_metrics
from tgsr.records import Clip, Question, Response, write_jsonl
from tgsr.report.evidence import MOST_POINTS, evidence_tables, evidence_warnings, findings, place_panels
from tgsr.report.figures import scatter_panel
from tgsr.report.results import Results, gather, read_watch
from tgsr.report.write import report, tables
from tgsr.statistics.pictures import Scatter
from tgsr.timeline import Span, Word

TEXTS = {
    "true": 'From {start}s to {end}s, "{said}".\n(a) yes',
    "stuck": 'From 1.0s to 1.9s, "{said}".\n(a) yes',  # whatever is asked
    "late": 'From {start}s to {end}s, and from 99s to 100s, "{said}".\n(b) no',
    "silent": "(a) yes",
}


def run_of(
    folder: Path,
    models: str = "true stuck late silent",
    *,
    n: int = 16,
    words: bool = True,
    evidence: bool = True,
) -> Path:
    """A question a clip of six seconds; its evidence is one of its six words, another one in each clip."""
    (folder / "qa" / "audio").mkdir(parents=True)
    clips, responses = [], []
    for k in range(n):
        said = tuple(Word(f"w{k}x{i}", i + 0.0, i + 0.9) for i in range(6))
        clips.append(Clip(f"c{k}", f"audio/c{k}.wav", 6.0, said if words else ()))
        word = said[k % 6]
        spans = (Span(word.start, word.end),) if evidence else ()
        question = Question(
            f"q{k}", f"c{k}", f"qa/audio/c{k}.wav", 6.0, "choice", "Which?", "yes", ("yes", "no"), evidence=spans
        )  # fmt: skip
        responses += [
            Response(question, model, TEXTS[model].format(start=word.start, end=word.end, said=word.text))
            for model in models.split()
        ]
    write_jsonl(folder / "predictions.jsonl", responses)
    write_jsonl(folder / "qa" / "clips.jsonl", clips)
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return gather([run_of(tmp_path_factory.mktemp("run"))])


def test_true_evidence_is_the_diagonal_and_a_stereotype_a_level_band(results: Results) -> None:
    panels = {panel.title.partition(":")[0]: panel for panel in place_panels(results)}
    assert list(panels) == ["true", "stuck", "late"]  # who cites nothing has no points
    assert panels["true"].x == panels["true"].y
    assert all(panels["true"].is_full)
    assert set(panels["stuck"].y) == {1.0}
    assert set(panels["stuck"].x) == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    assert panels["stuck"].title == "stuck: 18.8 % hit"
    assert {panel.end for panel in panels.values()} == {5.1}


def test_citations_past_the_end_stand_at_the_edge_and_do_not_squeeze_the_picture(tmp_path: Path) -> None:
    (run := tmp_path / "run").mkdir()
    question = Question("q", "c", "c.wav", 6.0, "choice", "?", "a", ("a", "b"), evidence=(Span(2.0, 3.0),))
    other = Question("r", "c", "c.wav", 6.0, "choice", "?", "a", ("a", "b"), evidence=(Span(4.0, 5.0),))
    rows = [
        Response(question, "m", "From 900s to 901s.\n(a) a"),
        Response(other, "m", "From 1s to 2s.\n(a) a"),
    ]
    write_jsonl(run / "predictions.jsonl", rows)
    (panel,) = place_panels(gather([run]))
    assert (panel.y, panel.end) == ((900.0, 1.0), pytest.approx(4.08))
    assert "z" in scatter_panel(panel)
    report([run], tmp_path / "out", title="t", n_items=0)
    png = (tmp_path / "out" / "evidence-places.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(png[20:24], "big") < 700  # pixels


def test_a_picture_of_very_many_has_some_of_them_and_says_so() -> None:
    points = tuple(float(i % 7) for i in range(3))
    panel = Scatter("<b>", "m0", "x", "y & z", points, points, (True, False, True), 7.0)
    assert "&lt;b&gt;" in scatter_panel(panel)
    assert "y &amp; z" in scatter_panel(panel)
    assert MOST_POINTS < 1000  # of a page that is sent around


def test_the_report_begins_with_what_is_cited(results: Results, tmp_path: Path) -> None:
    page = Page(report([run_of(tmp_path / "run")], tmp_path / "report", title="t", n_items=2))
    assert [text for _, text in page.all("h2")][:2] == ["What the numbers say", "Does the evidence hold?"]
    assert page.all("caption")[0][1] == "Does the evidence hold?"
    row = dict(zip(("hit", "iou"), [text for _, text in page.all("td")][:2], strict=True))
    assert row["hit"].startswith("100.0")
    assert row["iou"].startswith("1.000")
    (held, *_) = [text for _, text in page.all("ul", "held")]
    assert "said there: w" in held
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.index("evidence-places.png") < text.index("| model")
    names = {path.name for path in (tmp_path / "report" / "tables").iterdir()}
    assert {f"evidence.{kind}" for kind in ("md", "csv", "tex")} <= names
    assert (tmp_path / "report" / "tables" / "tables.md").read_text().index("Does the evidence") < 300


def test_k_that_looks_perfect_while_grounding_is_gone_is_warned_of(results: Results) -> None:
    assert [warning.partition(":")[0] for warning in evidence_warnings(results)] == ["stuck, train"]


def test_it_is_said_in_words_and_what_is_unknown_with_its_reason(tmp_path: Path, results: Results) -> None:
    true, stuck, _, silent = findings(results)
    assert true.startswith(
        "true: the evidence is cited in 100.0 % [100.0, 100.0] of 16 questions; what is quoted"
    )
    assert "the first citation starts at the clip’s first word, or at 0, in 0.0 %" in stuck
    assert silent == "silent: no place is cited in any of 16 responses."
    unknown = findings(gather([run_of(tmp_path / "a", "true", words=False, evidence=False)]))
    assert unknown[0] == "true: neither the evidence nor the clips’ words are known."
    assert "nobody marked the evidence of all 16 questions" in unknown[1]
    assert "--clips" in unknown[2]


def test_segments_that_stand_in_for_the_evidence_of_traces_are_said_to(tmp_path: Path) -> None:
    rows = [
        {
            "id": str(k), "audio_id": f"./{k}.wav", "question": "?", "choices": ["a", "b"], "answer": "a",
            "task": "speech", "model_output": "a", "model_prediction": 'From 1.0s to 2.0s, "some words".\n(a) a',
            "gt_transcription": '"some words" (1.0-2.0 s)',
        }
        for k in range(3)
    ]  # fmt: skip
    (tmp_path / "traces.json").write_text(json.dumps(rows))
    said, about = findings(gather([tmp_path / "traces.json"]))
    assert said.startswith("traces: the evidence is cited in 100.0 %")
    assert "(the evidence: in" not in said
    assert "nobody marked which segment a question rests on" in about


def test_words_may_be_in_a_clips_file_that_is_named(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "true", n=4)
    elsewhere = tmp_path / "words.jsonl"
    (run / "qa" / "clips.jsonl").rename(elsewhere)
    found = []
    for clips in ([], [elsewhere]):
        tables([run], tmp_path / "tables", clips=clips)
        (row,) = csv.DictReader((tmp_path / "tables" / "evidence.csv").open(newline=""))
        found.append((row["quote truth (%)"], row["quote truth (%) n"]))
    assert found == [("", "0"), ("100", "4")]


def test_stored_scores_give_the_same_tables_and_those_of_earlier_versions_say_so(
    tmp_path: Path, results: Results
) -> None:
    run = run_of(tmp_path / "run")
    stored = tmp_path / "metrics.json"
    write_metrics(score_file(run / "predictions.jsonl"), stored)
    again = gather([stored])
    assert evidence_tables(again) == evidence_tables(results)
    assert place_panels(again) == []
    metrics = json.loads(stored.read_text())
    for model in metrics["models"].values():
        for group in (model["all"], *model["by_split"].values()):
            del group["choice"]["evidence"]
    stored.write_text(json.dumps(metrics))
    report([stored], tmp_path / "report", title="t")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "- true: stored scores of an earlier version" in text
    assert "evidence-places" not in text


# --- what a watch saw ------------------------------------------------------------------------------------


def log(folder: Path, *looks: dict[str, object] | object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"step": 5 * i, "watch": look} for i, look in enumerate(looks)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "metrics.jsonl"


def test_a_watch_is_drawn_with_its_intervals_and_warned_of(tmp_path: Path) -> None:
    good = {
        "n": 9,
        "evidence_hit": 0.5,
        "above_chance": 0.4,
        "k1": 0.5,
        "intervals": {"evidence_hit": [0.4, 0.6]},
    }
    gone = {"n": 9, "evidence_hit": 0.02, "above_chance": 0.0, "k1": 1.0}
    path = log(tmp_path / "run", good, gone, gone)
    with path.open("a") as file:
        file.write('{"step": 12, "loss": 1.0}\n{"step": 13, "wat')  # still written to
    watch = read_watch(path)
    assert [(curve.name, curve.y_label) for curve in watch.curves] == [
        ("run", "evidence hit"),
        ("run", "trace IoU above chance"),
        ("run", "share with k = 1"),
    ]
    hit = watch.curves[0]
    assert (hit.x, hit.y, hit.low[0], hit.high[0]) == ((0.0, 5.0, 10.0), (0.5, 0.02, 0.02), 0.4, 0.6)
    (warning,) = watch.warnings
    assert warning.startswith("run: at step 10 k looks perfect")
    assert warning.endswith("so in 2 of 3 looks")
    page = Page(report([tmp_path / "run"], tmp_path / "report", title="t"))
    assert page.all("h2")[0][1] == "Does it ground while it learns?"
    assert warning in page.all("ul", "warnings")[0][1]
    assert warning in (tmp_path / "report" / "report.md").read_text()
    assert (tmp_path / "report" / "watched-lines.png").exists()
    assert "nan" not in "".join(text for _, text in page.all("svg"))


@pytest.mark.parametrize(
    ("look", "says"), [(7, '"watch": must be an object'), ({"k1": "x"}, '"k1": must be a number')]
)
def test_a_watch_that_is_none_is_named_by_its_line(look: object, says: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=rf"metrics\.jsonl:1: field {says}"):
        read_watch(log(tmp_path, look))


def test_a_log_without_a_watch_has_no_section(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    assert gather([tmp_path]).watched == ()

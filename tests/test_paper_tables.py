import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tgsr.cli import main
from tgsr.errors import RecordError
from tgsr.evaluation.scoring.score import read_predictions, score, write_metrics
from tgsr.records import Question, Response, write_jsonl
from tgsr.report.paper import PUBLISHED, paper_tables, published_values
from tgsr.report.results import gather, labels
from tgsr.report.sections import sections
from tgsr.report.typeset import (
    DASH,
    Column,
    Group,
    Table,
    TableRow,
    cells_of,
    csv_text,
    html,
    latex,
    markdown,
    shown,
)
from tgsr.report.write import tables
from tgsr.statistics.intervals import Mean
from tgsr.timeline import Span

HOSTILE = (
    "plain",
    "a|b\\|c",
    "<script>alert(1)</script>",
    "50 % & $x_1^2$ ~ #{}",
    "\\input{/etc/passwd}",
    "=HYPERLINK(1)",
    "+ Only STA",
    "-1",
    "@SUM",
    'say "hi", he; said',
    "two\nlines\r\nand\ttab",
    "*bold* _it_ `code` [a](b)",
    "turned \u202e round \ud83d",
    "[0.5ex]",
    "模型",
)


def mean(value: float | None, spread: float = 0.1, n: int = 20, n_unscored: int = 0) -> Mean:
    if value is None:
        return Mean(None, None, None, 0, n)
    return Mean(value, value - spread, value + spread, n, n_unscored)


def table_of(*values: object, names: Sequence[str] = HOSTILE, **column: object) -> Table:
    rows = tuple(TableRow(name, (value,)) for name, value in zip(names, values, strict=False))  # type: ignore[arg-type]
    return Table("t", "A title", "model", (Column("x_1 %", **column),), (Group("", rows),))  # type: ignore[arg-type]


def hostile_table() -> Table:
    rows = tuple(TableRow(name, (mean(0.5 + i / 100), i)) for i, name in enumerate(HOSTILE))
    columns = (Column("x_1", "%", 100, 1, "higher"), Column("n"))
    return Table("t", "50 % & more", "model", columns, (Group("a|b & <i>", rows),), ("A note: 100 %_x.",))


# --- typesetting -----------------------------------------------------------------------------------------


def test_a_csv_comes_back_with_its_numbers_and_no_cell_is_a_formula() -> None:
    rows = list(csv.reader(io.StringIO(csv_text(hostile_table()))))
    assert rows[0] == ["group", "model", "x_1 (%)", "x_1 (%) low", "x_1 (%) high", "x_1 (%) n", "n"]
    assert len(rows) == len(HOSTILE) + 1
    assert all(len(row) == 7 for row in rows)
    assert [float(row[2]) for row in rows[1:]] == [50.0 + i for i in range(len(HOSTILE))]
    assert not [row for row in rows for cell in row[:2] if cell.startswith(("=", "+", "-", "@"))]
    names = [row[1] for row in rows[1:]]
    assert names[:5] == list(HOSTILE[:5])  # what is no formula is not touched
    assert names[5] == "'=HYPERLINK(1)"
    assert names[10] == "two lines and tab"


def test_a_negative_number_in_a_csv_is_a_number() -> None:
    rows = list(csv.reader(io.StringIO(csv_text(table_of(mean(-0.25), None, mean(None))))))
    assert [row[2:] for row in rows[1:]] == [
        ["-0.25", "-0.35", "-0.15", "20"],
        ["", "", "", ""],
        ["", "", "", "0"],
    ]


def test_a_word_or_a_count_among_means_takes_all_of_their_columns_in_a_csv() -> None:
    rows = list(csv.reader(io.StringIO(csv_text(table_of(mean(0.5), "not asked", 3, 0.25)))))
    assert [row[2:] for row in rows[1:]] == [
        ["0.5", "0.4", "0.6", "20"],
        ["not asked", "", "", ""],
        ["3", "", "", ""],
        ["0.25", "", "", ""],
    ]


def test_what_rounds_to_nothing_has_no_sign_and_ties_with_nothing() -> None:
    table = table_of(-0.0004, 0.0, Mean(-0.0, -0.0004, 0.0004, 9, 0), -0.3, digits=2, better="higher")
    cells = cells_of(table.groups[0], table.columns)
    assert [(cell.text, cell.interval, best) for ((cell, best),) in cells] == [
        ("0.00", "", True),
        ("0.00", "", True),
        ("0.00", "[0.00, 0.00]", True),
        ("-0.30", "", False),
    ]


def test_markdowns_pipes_align_and_names_cannot_add_any() -> None:
    text = markdown(hostile_table())
    lines = [line for line in text.splitlines() if line.startswith("|")]
    bars = [[i for i, c in enumerate(line) if c == "|" and line[i - 1] != "\\"] for line in lines]
    # "a|b\|c" is a\|b\\\|c: a bar after an odd number of backslashes is text
    assert len(lines) == len(HOSTILE) + 3
    assert {len(line) for line in lines} == {len(lines[0])}
    assert all(len(found) == 4 for found in bars)
    assert len({tuple(found) for found in bars}) == 1
    assert "<script" not in text
    assert "\u202e" not in text
    assert "[a](b)" not in text
    text.encode("utf-8")  # no half of a surrogate pair


def test_latex_has_balanced_columns_and_nothing_of_a_name_is_a_command() -> None:
    text = latex(hostile_table())
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
    assert len(lines) == len(HOSTILE) + 1
    assert all(len(re.findall(r"(?<!\\)&", line)) == 2 for line in lines)
    assert "\\begin{tabular}{lrr}" in text
    unescaped = re.sub(r"\\[{}%&#_$]", "", text)
    assert unescaped.count("{") == unescaped.count("}")
    assert "\\input" not in text
    assert "\\textbackslash{}input" in text
    assert not re.search(r"\\\\\s*\[", text)  # "\\[0.5ex]" would be a distance
    outside_comment = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[%#]", outside_comment)
    assert not re.search(r"(?<!\\)_", outside_comment)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("models--Qwen---x", "models-{}-Qwen-{}-{}-x"),  # else dashes
        ("``a''", "`{}`a'{}'"),  # else quotation marks
        ('say "hi"', "say {\\char34}hi{\\char34}"),
        ("– a-b", "\\textendash{} a-b"),
    ],
)
def test_signs_that_latex_draws_together_stay_apart(name: str, written: str) -> None:
    """As the LaTeX Companion lists the ligatures of text fonts; no command is of an encoding that must be chosen."""
    assert f"\n{written} & " in latex(table_of(1.0, names=[name]))


def test_html_has_names_as_text_only() -> None:
    text = html(hostile_table())
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<i>" not in text
    text.encode("utf-8")


def best(table: Table) -> set[tuple[int, int, int]]:
    """(group, row, column) of the cells that are set in bold."""
    return {
        (g, r, c)
        for g, group in enumerate(table.groups)
        for r, cells in enumerate(cells_of(group, table.columns))
        for c, (_, is_best) in enumerate(cells)
        if is_best
    }


def test_the_best_value_is_bold_ties_share_it_and_alone_nobody_is_best() -> None:
    assert best(table_of(0.5, 0.9, None, digits=1, better="higher")) == {(0, 1, 0)}
    assert best(table_of(0.91, 0.93, 0.2, digits=1, better="higher")) == {(0, 0, 0), (0, 1, 0)}
    assert best(table_of(0.5, 0.9, better="lower")) == {(0, 0, 0)}
    assert best(table_of(0.5, 0.9)) == set()
    assert best(table_of(0.5, None, better="higher")) == set()
    ours = table_of(0.5, 0.9, better="higher")
    assert best(replace(ours, groups=(replace(ours.groups[0], is_ours=False),))) == set()
    assert "**0.900**" in markdown(ours)
    assert "\\textbf{0.900}" in latex(ours)


def test_a_cell_says_its_interval_its_count_and_its_dash() -> None:
    column = Column("x", "%", 100, 1)
    assert shown(column, mean(0.5)).interval == "[40.0, 60.0]"
    assert shown(column, mean(0.5)).n == ""
    assert shown(column, mean(0.5, n_unscored=3)).n == "n = 20"
    assert shown(replace(column, with_n=True), mean(0.5)).n == "n = 20"
    assert shown(column, mean(None)).text == DASH
    assert shown(Column("p", least=0.001), 0.0).text == "< 0.001"


def test_a_row_that_lacks_a_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 1 cells, got 2"):
        Table("t", "t", "model", (Column("x"),), (Group("", (TableRow("a", (1, 2)),)),))


# --- the paper's numbers ---------------------------------------------------------------------------------


def test_the_papers_numbers_are_all_there_and_are_shares() -> None:
    values = published_values()
    assert {v.table for v in values} == {1, 2, 3, 4}
    assert [v.value for v in values if (v.table, v.row, v.column) == (1, "Qwen2.5-Omni + STA", "iou")] == [
        0.7189
    ]
    ours = {v.column: v.value for v in values if v.table == 2 and v.row == "Ours"}
    assert ours == {"mmau": 0.7447, "mmar": 0.6463, "ser": 0.625, "snv": 0.704, "sic": 0.893, "meld": 0.646}
    # The authors' own models: speech cells are whole numbers of 333 and 294 questions.
    for column, n in (("mmau", 333), ("mmar", 294)):
        for v in values:
            if v.table == 2 and v.column == column and v.group == "ablation":
                assert abs(round(v.value * n) / n - v.value) < 5e-4, v
    assert all(v.value <= 1 for v in values if v.column != "regions")


# --- from run folders ------------------------------------------------------------------------------------


def phrase(number: int, split: str = "test") -> Question:
    return Question(
        f"p{number}", f"clip{number}", f"{number}.wav", 5.0, "phrase", "Where?", phrase="a", evidence=(Span(1, 2),),
        split=split,
    )  # fmt: skip


def choice(number: int, *labels: tuple[str, str], split: str = "test") -> Question:
    return Question(
        f"c{split}{number}{labels}", f"clip{number}", f"{number}.wav", 5.0, "choice", "Which?", answer="yes",
        choices=("yes", "no"), evidence=(Span(1, 2),), split=split, task="which", labels=labels,
    )  # fmt: skip


def run_in(folder: Path, n: int = 8) -> Path:
    """Three models: the first never right, the second half of the time, the third always."""
    folder.mkdir(parents=True, exist_ok=True)
    responses = []
    for i in range(n):
        for model, is_right in (("mini", False), ("mini:sta", i % 2 == 0), ("runs/x/adapter", True)):
            responses.append(
                Response(phrase(i), model, "From 1 s to 2 s." if is_right else "From 3 s to 4 s.")
            )
            responses.append(Response(choice(i), model, "From 1 s to 2 s.\n(a)" if is_right else "(b)"))
    write_jsonl(folder / "predictions.jsonl", responses)
    return folder


def behaviour_json(**models: dict[str, object]) -> str:
    return json.dumps({"models": models, "judge": None, "similarity": "words"})


def behaved(verify: float) -> dict[str, object]:
    means = {
        key: asdict(mean(verify)) for key in ("regions_strict", "regions_official", "verify", "accuracy")
    }
    return {"n": 20, **means, "consistency": None, "n_without_span": 1, "something_new": [1]}


def attention_json(*models: str) -> str:
    phases = {
        phase: {"audio": asdict(mean(0.1)), "system": asdict(mean(0.5))} for phase in ("all", "reasoning")
    }
    layers = {"all": {"audio": [0.1, 0.2], "system": [0.5, 0.4]}}
    one = {
        "n": 20,
        "n_without": 0,
        "by_phase": phases,
        "by_layer": layers,
        "audio_per_token": asdict(mean(0.2)),
    }
    return json.dumps({model: one for model in models})


def by_key(found: Sequence[Table]) -> dict[str, Table]:
    return {table.key: table for table in found}


def test_the_ablation_reads_as_its_rows_say(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    rows = ["Vanilla=mini", "Only STA=mini:sta", "Ours=runs/x/adapter"]
    written, text = tables([run], tmp_path / "out", rows=rows)
    names = {path.name for path in written}
    assert {"table-1.md", "table-1.csv", "table-1.tex", "table-2.csv", "tables.md"} <= names
    assert text == (tmp_path / "out" / "tables.md").read_text()
    table = list(csv.reader((tmp_path / "out" / "table-1.csv").open()))
    assert [row[1] for row in table[1:]] == ["Vanilla", "Only STA", "Ours"]
    assert [row[2] for row in table[1:]] == ["", "✓", "✓"]
    iou = table[0].index("IoU")
    assert [float(row[iou]) for row in table[1:]] == [0.0, 0.5, 1.0]
    assert "**1.0000** [1.0000, 1.0000]" in text
    differences = list(csv.reader((tmp_path / "out" / "table-2-differences.csv").open()))
    assert [row[1] for row in differences[1:]] == ["Only STA less Vanilla", "Ours less Vanilla"]
    assert [float(row[2]) for row in differences[1:]] == [50.0, 100.0]


def test_answers_without_one_readable_span_are_counted_in_every_form_of_table_1(tmp_path: Path) -> None:
    texts = ["1.00, 2.00", "Start: 1\nEnd: 2", "no idea", "2 s to 1 s", "1 s to 2 s or 2 s to 3 s"]
    responses = [Response(phrase(i), "mini", text) for i, text in enumerate(texts)]
    write_jsonl(tmp_path / "predictions.jsonl", responses)
    _, text = tables([tmp_path], tmp_path / "out")
    table = list(csv.reader((tmp_path / "out" / "table-1.csv").open()))
    assert table[1][table[0].index("no span")] == "3"
    assert table[1][table[0].index("IoU")] == "0.4"
    assert "no span" in text
    assert "no span" in (tmp_path / "out" / "table-1.tex").read_text()


def test_rows_choose_and_order_models_and_what_is_not_there_is_named(tmp_path: Path) -> None:
    results = gather([run_in(tmp_path)], ["B=runs/x/adapter", "k=1 model=mini"])
    assert results.models == ("B", "k=1 model")
    assert results.written_by == {"B": "runs/x/adapter", "k=1 model": "mini"}
    assert {response.model for response in results.responses} == {"B", "k=1 model"}
    with pytest.raises(RecordError, match=r"--row 'A=mimi'.*mini, mini:sta, runs/x/adapter"):
        gather([tmp_path], ["A=mimi"])
    with pytest.raises(RecordError, match="given twice"):
        labels(["mini", "other"], ["A=mini", "A=other"])
    with pytest.raises(RecordError, match="must be LABEL=MODEL"):
        labels(["mini"], ["mini"])


def test_who_went_through_stage_1_is_told_or_read_from_names_and_the_table_says_so(tmp_path: Path) -> None:
    results = gather([run_in(tmp_path)])
    table = by_key(paper_tables(results))["table-1"]
    assert [row.cells[0] for row in table.groups[0].rows] == ["", "✓", ""]
    assert any("by the models' names" in note for note in table.notes)
    told = by_key(paper_tables(results, ["runs/x/adapter"]))["table-1"]
    assert [row.cells[0] for row in told.groups[0].rows] == ["", "", "✓"]
    assert not any("by the models' names" in note for note in told.notes)


def test_published_numbers_stand_in_groups_of_their_own(tmp_path: Path) -> None:
    results = gather([run_in(tmp_path)])
    for table in paper_tables(results, published=True):
        for group in table.groups:
            assert group.is_ours != group.name.startswith(PUBLISHED)
        theirs = [row.name for group in table.groups if not group.is_ours for row in group.rows]
        ours = [row.name for group in table.groups if group.is_ours for row in group.rows]
        assert not {"mini", "mini:sta"} & set(theirs)
        assert "Qwen2.5-Omni" not in ours
    assert not any(PUBLISHED in markdown(table) for table in paper_tables(results))
    assert {"table-3", "table-4"} <= set(by_key(paper_tables(results, published=True)))
    assert "table-3" not in by_key(paper_tables(results))  # nothing was measured


def test_table_2_has_the_papers_columns_a_dash_for_what_is_missing_and_a_column_a_split_of_ours(
    tmp_path: Path,
) -> None:
    labelled = [
        choice(0, ("benchmark", "mmau"), ("domain", "speech")),
        choice(1, ("benchmark", "mmau"), ("domain", "music"), ("dataset", "speech")),
        choice(2, ("benchmark", "airbench"), ("domain", "speech"), ("category", "Speaker_Emotion_Recontion")),
        choice(3, ("benchmark", "meld"), ("domain", "speech")),
        choice(4, ("benchmark", "meld"), ("domain", "speech"), split="dev"),
        choice(5, split="mine"),
    ]
    write_jsonl(tmp_path / "predictions.jsonl", [Response(q, "m", "yes") for q in labelled])
    table = by_key(paper_tables(gather([tmp_path])))["table-2"]
    (row,) = table.groups[0].rows
    values = {c.name: cell for c, cell in zip(table.columns, row.cells, strict=True)}
    assert list(values)[:6] == [
        "MMAU-mini Speech", "MMAR Speech", "AIR-Bench SER", "AIR-Bench SNV", "AIR-Bench SIC", "MELD",
    ]  # fmt: skip
    assert {name for name, cell in values.items() if cell is None} == {
        "MMAR Speech",
        "AIR-Bench SNV",
        "AIR-Bench SIC",
    }
    counts = {name: cell.n for name, cell in values.items() if isinstance(cell, Mean)}
    assert counts["MMAU-mini Speech"] == counts["MELD"] == counts["mine"] == 1
    assert list(values)[6:] == ["mine", "MELD dev", "MMAU-mini, music"]
    official = values["MMAU-mini Speech"]
    assert isinstance(official, Mean)
    assert official.value == 1  # MMAU's scorer compares words; the authors' letter would have missed it
    assert values["mine"].value == 0  # type: ignore[union-attr]


def test_a_benchmarks_own_file_is_a_row_under_the_files_name(tmp_path: Path) -> None:
    def row(number: int, output: str, task: str = "speech") -> dict[str, object]:
        return {
            "id": str(number), "audio_id": f"{number}.wav", "question": "?", "choices": ["yes", "no"],
            "answer": "yes", "task": task, "category": "Reasoning", "model_output": output,
        }  # fmt: skip

    rows = [row(0, "yes"), row(1, "no"), row(2, "yes", "music")]
    (tmp_path / "salmonn.json").write_text(json.dumps(rows))
    table = by_key(paper_tables(gather([tmp_path / "salmonn.json"])))["table-2"]
    (found,) = table.groups[0].rows
    assert found.name == "salmonn"
    assert found.cells[0].value == 0.5  # type: ignore[union-attr]
    assert found.cells[0].n == 2  # type: ignore[union-attr]


def test_a_benchmarks_difference_is_by_its_owners_rule_not_by_the_letter(tmp_path: Path) -> None:
    questions = [choice(i, ("benchmark", "mmau"), ("domain", "speech")) for i in range(6)]
    texts = {"a": "(a)", "b": "yes"}  # the authors' rule finds no letter in b's answers; MMAU's wants words
    responses = [Response(q, model, text) for q in questions for model, text in texts.items()]
    responses += [Response(questions[0], "c", "no"), Response(questions[1], "c", "yes")]
    write_jsonl(tmp_path / "predictions.jsonl", responses)
    rows = by_key(paper_tables(gather([tmp_path])))["table-2-differences"].groups[0].rows
    assert [(row.name, row.cells[0].value, row.cells[2]) for row in rows] == [  # type: ignore[union-attr]
        ("b less a", 0.0, 6),
        ("c less a", -0.5, 2),
    ]


def test_official_and_strict_stand_side_by_side_by_category_with_the_reasons(tmp_path: Path) -> None:
    labels = (("benchmark", "mmau"), ("domain", "speech"), ("category", "Reasoning"))
    said = ["No doubt: yes. Final answer: (a) yes", "Final answer: (b) no"]
    write_jsonl(
        tmp_path / "predictions.jsonl",
        [Response(choice(i, *labels), "m", text) for i, text in enumerate(said)],
    )
    results = gather([tmp_path])
    section = next(s for s in sections(results, paper_tables(results)) if s.key == "benchmarks")
    found = by_key(section.tables)
    ((row,),) = (group.rows for group in found["mmau-categories"].groups)
    assert row.name == "Reasoning"
    assert [cell.value for cell in row.cells[1:]] == [0.5, 0.5]  # type: ignore[union-attr]
    ((row,),) = (group.rows for group in found["readings"].groups)
    assert [cell.value for cell in row.cells[:3]] == [0.5, 0.0, 0.5]  # type: ignore[union-attr]
    ((row,),) = (group.rows for group in found["why"].groups)
    assert row.cells == (None, 1)  # official agrees; of the whole text the word "no" spoils the right one


@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_a_benchmarks_metrics_give_the_same_column(kind: str, tmp_path: Path) -> None:
    if kind == "ours":
        labels = [(("benchmark", "mmau"), ("domain", d)) for d in ("speech", "speech", "music")]
        path = tmp_path / "run" / "predictions.jsonl"
        write_jsonl(path, [Response(choice(i, *of), "m", "yes") for i, of in enumerate(labels)])
    else:
        path = tmp_path / "run" / "predictions.json"
        path.parent.mkdir()
        rows = [
            {
                "id": str(i),
                "audio_id": "x",
                "choices": ["yes", "no"],
                "answer": "yes",
                "task": d,
                "model_output": "no",
            }
            for i, d in enumerate(("speech", "music"))
        ]
        path.write_text(json.dumps(rows))
    write_metrics(score(read_predictions(path), file=str(path)), tmp_path / "only" / "metrics.json")
    fresh, stored = (by_key(paper_tables(gather([tmp_path / name]))) for name in ("run", "only"))
    assert stored["table-2"] == fresh["table-2"]
    assert stored["table-2"].groups[0].rows[0].name == ("m" if kind == "ours" else "predictions")
    assert stored["table-2"].columns[-1].name == "MMAU-mini, music"


def test_tables_3_and_4_come_from_their_files(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    (run / "behaviour.json").write_text(behaviour_json(**{"mini:sta": behaved(0.4), "mini": behaved(0.2)}))
    (run / "deep").mkdir()
    (run / "deep" / "attention.json").write_text(attention_json("mini"))
    found = by_key(paper_tables(gather([run], ["Vanilla=mini", "STA=mini:sta"])))
    rows = found["table-3"].groups[0].rows
    assert [row.name for row in rows] == ["Vanilla", "STA"]
    assert [row.cells[1].value for row in rows] == [0.2, 0.4]  # type: ignore[union-attr]
    assert rows[0].cells[2] is None  # no judge
    (attended,) = found["table-4"].groups[0].rows
    assert attended.cells[0].value == 0.1  # type: ignore[union-attr]
    assert attended.cells[2] is None  # no response had tokens of an answer
    assert len(found["table-4"].notes) == 1


def test_table_4_says_why_a_model_that_hears_by_cross_attention_is_not_in_it(tmp_path: Path) -> None:
    run, looked = run_in(tmp_path), json.loads(attention_json("mini", "mini:sta"))
    apart = looked["mini:sta"]
    apart["by_layer"]["all"].pop("audio")
    apart["by_phase"]["all"]["audio"] = asdict(Mean(None, None, None, 0, 20))
    apart["audio_per_token"] = asdict(Mean(None, None, None, 0, 20))
    (run / "attention.json").write_text(json.dumps(looked))
    found = by_key(paper_tables(gather([run])))["table-4"]
    _, row = found.groups[0].rows
    assert row.cells[0] is None or row.cells[0].value is None  # type: ignore[union-attr]
    assert found.notes[1].startswith("mini:sta: hears by cross-attention")


def test_metrics_json_stands_in_for_predictions_that_are_not_there(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    metrics = score(read_predictions(run / "predictions.jsonl"))
    write_metrics(metrics, tmp_path / "only" / "metrics.json")
    write_metrics(metrics, run / "metrics.json")
    fresh, stored = (by_key(paper_tables(gather([tmp_path / name]))) for name in ("run", "only"))
    assert stored["table-1"] == fresh["table-1"]
    assert stored["table-2"] == fresh["table-2"]
    assert stored["table-1-differences"] == fresh["table-1-differences"]
    reordered = by_key(paper_tables(gather([tmp_path / "only"], ["b=mini:sta", "a=mini"])))
    (row,) = reordered["table-1-differences"].groups[0].rows
    assert row.name == "a less b"
    assert row.cells[0].value == -0.5  # type: ignore[union-attr]
    assert row.cells[0].low <= row.cells[0].value <= row.cells[0].high  # type: ignore[union-attr]


# --- what is broken --------------------------------------------------------------------------------------


def test_half_written_json_in_a_run_folder_is_noted_and_named_alone_refused(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    whole = behaviour_json(mini=behaved(0.4))
    (run / "behaviour.json").write_text(whole[: len(whole) // 2])
    results = gather([run])
    assert len(results.notes) == 1
    assert re.search(r"left out: .*behaviour\.json:1: is half-written", results.notes[0])
    assert "behaviour.json" in tables([run], tmp_path / "out")[1]
    with pytest.raises(RecordError, match=r"behaviour\.json:1: is half-written"):
        gather([run / "behaviour.json"])


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"models": {"mini": {"n": 3}}}, r"mini\.regions_official.*is missing"),
        ({"models": {"mini": {**behaved(0.1), "n": "x"}}}, r"mini\.n.*must be int, got 'x'"),
        ({"models": [1]}, "must be an object"),
        ([1], "must be a JSON object"),
    ],
)
def test_json_of_another_shape_is_noted_with_the_place(value: object, says: str, tmp_path: Path) -> None:
    run = run_in(tmp_path)
    (run / "behaviour.json").write_text(json.dumps(value))
    (note,) = gather([run]).notes
    assert re.search(says, note)
    assert "behaviour.json" in note


def test_a_last_line_that_is_half_written_is_noted_and_a_bad_line_elsewhere_is_an_error(
    tmp_path: Path,
) -> None:
    run = run_in(tmp_path)
    path = run / "predictions.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    results = gather([run])
    assert len(results.responses) == 47
    (note,) = results.notes
    assert "predictions.jsonl:48: the last line is half-written" in note
    assert path.read_bytes() == whole[:-40]  # only read
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b'{"half\n', *lines[3:]]))
    with pytest.raises(RecordError, match=r"predictions\.jsonl:4: "):
        gather([run])


def test_nothing_to_read_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["tables", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 2
    assert "no predictions*.jsonl" in capsys.readouterr().err
    assert main(["tables", str(tmp_path / "gone"), "--out", str(tmp_path / "out")]) == 2
    assert "gone: no such file or folder" in capsys.readouterr().err


def test_a_model_in_two_behaviour_files_is_noted(tmp_path: Path) -> None:
    for name, verify in (("a", 0.1), ("b", 0.2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "behaviour.json").write_text(behaviour_json(mini=behaved(verify)))
    results = gather([tmp_path])
    assert results.behaviour["mini"].verify.value == 0.1
    assert any("mini is in an earlier file" in note for note in results.notes)

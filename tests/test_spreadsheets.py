"""Tables as spreadsheet programs of several countries write them, and rows that are joined by their sound's name."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from tgsr import cli
from tgsr.disk.rows import Entry, number_in, seconds_in, table
from tgsr.disk.sound_folder import SoundFolder
from tgsr.errors import Bad, ImportFileError, RecordError
from tgsr.evaluation.benchmarks import questions_of
from tgsr.evaluation.owners.joining import Joining
from tgsr.evaluation.scoring.importing import Imported, import_predictions
from tgsr.records import Question, Response, moved, question_of, read_responses, write_jsonl

ROWS = [
    ["id", "response", "duration"],
    ["a", 'He says "no", then\nleaves; (b)', "1.5"],
    ["b", "1,5", "2.25"],
    ["ü", "", "3"],
]
COMMA = 'id,response,duration\r\na,"He says ""no"", then\nleaves; (b)",1.5\r\nb,"1,5",2.25\r\nü,,3\r\n'
SEMICOLON = 'id;response;duration\r\na;"He says ""no"", then\nleaves; (b)";1,5\r\nb;1,5;2,25\r\nü;;3\r\n'
TABS = 'id\tresponse\tduration\r\na\t"He says ""no"", then\nleaves; (b)"\t1.5\r\nb\t1,5\t2.25\r\nü\t\t3\r\n'


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(COMMA.encode(), id="comma"),
        pytest.param(
            SEMICOLON.encode("utf-8-sig"), id="German CSV UTF-8: semicolons, a mark, decimal commas"
        ),
        pytest.param(b"sep=;\r\n" + SEMICOLON.encode(), id="a line that names the separator"),
        pytest.param(b"\xef\xbb\xbfsep=;\r\n" + SEMICOLON.encode(), id="the same after a mark"),
        pytest.param(TABS.encode("utf-16"), id="Unicode text: UTF-16 with tabs"),
        pytest.param(TABS.encode(), id="tabs"),
        pytest.param(SEMICOLON.replace("\r\n", "\r").encode(), id="a Macintosh's line ends"),
        pytest.param(COMMA.replace("\r\n", ",,\r\n").encode(), id="marks behind the last column"),
        pytest.param(
            (COMMA + ",,\r\n\r\n").replace("duration\r", "duration\r").encode(), id="rows without values"
        ),
        pytest.param(COMMA.replace("ü,,3", "ü,,3").encode(), id="a blank value"),
    ],
)
def test_one_table_in_the_dialects_of_spreadsheets(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    rows = [row for row in table(path, spreadsheet=True) if isinstance(row, Entry) and row.maybe("id")]
    assert [[*row.values][:3] for row in rows] == [ROWS[0]] * 3
    assert [[row.values["id"], row.values["response"]] for row in rows] == [row[:2] for row in ROWS[1:]]
    assert [row.number("duration") for row in rows] == [1.5, 2.25, 3]


def test_the_header_alone_tells_the_separator(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("A;B, in s\n1,1;2,234\n")  # more commas than semicolons in every other line
    (row,) = table(path, spreadsheet=True)
    assert isinstance(row, Entry)
    assert (row.number("A"), row.number("B, in s")) == (1.1, 2.234)


def test_last_blank_values_may_be_missing_but_none_too_many(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b,c\n1\n1,2,3,4\n")
    short, long = table(path, spreadsheet=True)
    assert isinstance(short, Entry)
    assert dict(short.values) == {"a": "1", "b": "", "c": ""}
    assert isinstance(long, Bad)
    assert "has 4 values where the header has 3" in long.error
    assert all(isinstance(row, Bad) for row in table(path))  # of a corpus, whose rows are whole


@pytest.mark.parametrize(
    ("text", "comma", "number"),
    [
        ("1.5", False, 1.5),
        ("1,5", False, 1.5),
        ("1,5", True, 1.5),
        ("1,234", True, 1.234),
        ("1,234", False, None),  # may be a thousand and more
        ("1,234.5", False, None),
        ("1.234,5", True, None),
        ("12 s", False, None),
        ("", True, None),
    ],
)
def test_decimal_commas(text: str, comma: bool, number: float | None) -> None:
    found = number_in(text, comma=comma)
    assert found == number if number is not None else found != found
    assert seconds_in("0:01:01,500", comma=comma) == 61.5


def workbook(path: Path, *sheets: list[list[object]]) -> Path:
    openpyxl = pytest.importorskip("openpyxl", exc_type=ImportError)
    book = openpyxl.Workbook()
    for number, rows in enumerate(sheets):
        sheet = book.active if number == 0 else book.create_sheet()
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_a_workbook_is_a_table_whatever_it_is_called(tmp_path: Path) -> None:
    rows: list[list[object]] = [[], ["ID", "Response", "seconds", "at", "ok"]]
    rows += [[12, "two_x000D_\nlines", 1.5, datetime.time(0, 1, 30), True], [None] * 5, ["x", None, 2.0]]
    path = workbook(tmp_path / "predictions.csv", rows, [])
    first, second = table(path)
    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    expected = {"ID": "12", "Response": "two\nlines", "seconds": "1.5", "at": "00:01:30", "ok": "TRUE"}
    assert dict(first.values) == expected
    assert (first.line, second.line, second.values["seconds"]) == (3, 5, "2")
    assert first.seconds("at") == 90


def test_a_workbook_that_cannot_be_read_says_what_to_save(tmp_path: Path) -> None:
    two = workbook(tmp_path / "two.xlsx", [["id"], [1]], [["id"], [2]])
    with pytest.raises(RecordError, match="2 sheets with rows: Sheet, Sheet1"):
        list(table(two))
    (tmp_path / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    with pytest.raises(RecordError, match=r"before 2007, or has a password; save it as .xlsx"):
        list(table(tmp_path / "old.xls"))
    (tmp_path / "half.xlsx").write_bytes(two.read_bytes()[:600])
    with pytest.raises(RecordError, match="no workbook that can be read"):
        list(table(tmp_path / "half.xlsx"))


# --- import -----------------------------------------------------------------------------------------------

QUESTIONS = (
    "ID;Audio;Question;Choices;Answer;Duration\n"
    "q1;talks/one.wav;Who?;he|she;she;4,5\n"
    "q2;talks/two.wav;Who?;he|she;he;5\n"
    "q3;talks/two.wav;What?;tea|milk;tea;5\n"
)


def imported(tmp_path: Path, rows: bytes, name: str = "in.csv", **options: object) -> tuple[Imported, Path]:
    (tmp_path / name).write_bytes(rows)
    (tmp_path / "questions.csv").write_text(QUESTIONS, encoding="utf-8-sig")
    out = tmp_path / "out.jsonl"
    given = {"model": "m", "questions": tmp_path / "questions.csv", **options}
    return import_predictions(tmp_path / name, out, **given), out  # type: ignore[arg-type]


def errors_of(out: Path) -> list[str]:
    lines = Path(f"{out}.errors.jsonl").read_text().splitlines()
    return [json.loads(line)["error"] for line in lines]


def test_rows_are_joined_by_id_or_by_their_sound(tmp_path: Path) -> None:
    rows = "Audio;Model Answer;notes;Respons\nC:\\data\\one.flac;she;x;y\ntwo.wav;he;;\nthree.wav;he;;\n"
    found, out = imported(tmp_path, rows.encode("utf-16"))
    (one,) = read_responses(out)
    assert (one.question.id, one.question.duration, one.question.answer, one.text) == (
        "q1",
        4.5,
        "she",
        "she",
    )
    several, none = errors_of(out)
    assert "2 questions are about two: give the id of one (q2, q3)" in several
    assert "'three.wav' is not in the questions' file" in none
    assert found.unknown == ("notes", "Respons (is it response?)")


def test_an_id_may_be_the_sounds_name_and_another_id_is_another_question(tmp_path: Path) -> None:
    rows = b"id,audio,prediction\none.wav,x.wav,he\n7,one.wav,he\nq3,one.wav,tea\n"
    found, out = imported(tmp_path, rows)
    assert [response.question.id for response in read_responses(out)] == ["q1", "q3"]
    assert found.n_bad == 1
    assert "'7' is not in the questions' file; --map id=COLUMN" in errors_of(out)[0]
    joining = Joining.of({"a": "x/one.wav", "b": None})
    assert [joining.find(["7"], "one.wav"), joining.find([None], "one"), joining.find([], None)] == [
        None,
        "a",
        None,
    ]


def test_what_excel_made_of_a_text_is_no_response(tmp_path: Path) -> None:
    found, out = imported(tmp_path, b"id,prediction\nq1,#NAME?\nq2,he,more\nq3,tea\n")
    assert (found.n, found.n_bad) == (1, 2)
    assert "4 values where" not in errors_of(out)[0]
    assert "3 values where the header has 2" in errors_of(out)[0]
    assert "#NAME?, which Excel shows" in errors_of(out)[1]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("id;pred\nq1;Männer\n".encode("cp1252"), r"in\.csv:2: is not UTF-8.*Excel calls it CSV UTF-8"),
        (b"id,reponse\nq1,he\n", r"no column is known.*Columns: id, reponse \(is it response\?\)"),
        (b"id,pred\n", "holds no rows"),
    ],
)
def test_what_cannot_be_imported_says_what_to_do(rows: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match=says):
        imported(tmp_path, rows)


def test_score_reads_melds_table_from_excel_and_names_import_for_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "Sr No.;Utterance;Speaker;Emotion;Sentiment;Dialogue_ID;Utterance_ID;prediction"
    rows = "1;Oh, no;Ross;joy;positive;0;0;joy\n2;Well;Joey;anger;negative;0;1;joy\n"
    meld, other = tmp_path / "meld.csv", tmp_path / "mine.csv"
    meld.write_text(f"sep=;\n{header}\n{rows}", encoding="utf-8-sig")
    other.write_text("id;response\n1;x\n")
    out = ["--out", str(tmp_path / "metrics.json")]
    assert cli.main(["score", str(meld), *out]) == 0
    assert (
        json.loads((tmp_path / "metrics.json").read_text())["benchmark"]["accuracy_official"]["value"] == 0.5
    )
    assert cli.main(["score", str(other), *out]) == 2
    assert "is a table with the columns id, response; `tgsr import`" in capsys.readouterr().err


def test_score_joins_rows_without_an_id_by_their_sound(tmp_path: Path) -> None:
    asked = {"question": "?", "choices": ["yes", "no"], "answer": "no", "task": "speech", "category": "x"}
    questions = [{"id": name, "audio_id": f"./audios/{name}.wav", **asked} for name in ("a", "b")]
    (tmp_path / "mmau.json").write_text(json.dumps(questions))
    answers = [{"audio_id": "D:\\sound\\b.wav", "model_output": "no"}, {"id": "c", "model_output": "no"}]
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    words = ["--questions", str(tmp_path / "mmau.json"), "--out", str(tmp_path / "metrics.json")]
    assert cli.main(["score", str(tmp_path / "answers.json"), *words]) == 0
    scores = json.loads((tmp_path / "metrics.json").read_text())["benchmark"]
    assert (scores["missing"], scores["foreign"], scores["accuracy_official"]["value"]) == (["a"], ["c"], 1.0)


def test_a_field_under_a_name_that_is_nearly_right_is_named() -> None:
    row = {"id": "q", "clip_id": "c", "Audio": "x.wav", "duration": 1.0, "kind": "phrase", "question": "?"}
    with pytest.raises(RecordError, match=r"is missing \(is it 'Audio'\?\)") as told:
        question_of({**row, "phrase": "a b"})
    assert told.value.field == "audio"


# --- sound that has moved ---------------------------------------------------------------------------------


def test_moved_sound_is_found_by_the_end_of_its_path(tmp_path: Path) -> None:
    for name in ("a/one.wav", "b/one.wav", "b/two.flac", "b/v1.2_x", "c/three.wav", "d/three.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    sounds = SoundFolder.of(tmp_path)
    assert sounds.find("/old/b/one.wav") == tmp_path / "b/one.wav"
    assert sounds.find("D:\\old\\a\\one.wav") == tmp_path / "a/one.wav"
    assert sounds.find("../x/two.wav") == tmp_path / "b/two.flac"
    assert sounds.find("none.wav") is None
    with pytest.raises(RecordError) as told:
        sounds.find("three.wav")
    c, d = tmp_path / "c/three.wav", tmp_path / "d/three.wav"
    remedy = "give --audio a folder that holds one of them"
    assert str(told.value) == f'{tmp_path}: field "audio": three.wav may be {c} or {d}; {remedy}'
    with pytest.raises(RecordError, match="no such folder"):
        SoundFolder.of(tmp_path / "nowhere")


def test_moved_sound_is_found_below_linked_folders_each_entered_once(tmp_path: Path) -> None:
    (tmp_path / "disk/deep").mkdir(parents=True)
    (tmp_path / "disk/deep/one.wav").touch()
    (tmp_path / "data").mkdir()
    for name, target in (("data/first", "disk"), ("data/second", "disk/deep"), ("disk/deep/back", "data")):
        (tmp_path / name).symlink_to(tmp_path / target, target_is_directory=True)
    sounds = SoundFolder.of(tmp_path / "data")
    assert sounds.by_name == {"one": (tmp_path / "data/first/deep/one.wav",)}


def test_records_whose_sound_is_not_in_the_folder_stay_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "one.wav").touch()
    questions = [
        Question(name, name, f"old/{name}.wav", 1.0, "phrase", "?", phrase="a b") for name in ("one", "two")
    ]
    responses = [Response(question, "m", "x") for question in questions]
    assert [q.audio for q in moved(questions, tmp_path)] == [str(tmp_path / "one.wav"), "old/two.wav"]
    assert moved(responses, tmp_path)[0].question.audio == str(tmp_path / "one.wav")
    assert moved(questions, None) == questions
    with pytest.raises(RecordError, match="holds none of the 1 sound files, such as two"):
        moved(questions[1:], tmp_path)


def test_sound_that_may_be_either_of_two_files_is_one_rows_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a/one.wav", "b/one.wav", "b/two.wav"):
        (tmp_path / "sounds" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sounds" / name).touch()
    sounds = tmp_path / "sounds"
    questions = [
        Question(f"q{n}", name, f"{name}.wav", 1.0, "phrase", "?", phrase="a b")
        for n, name in enumerate(("one", "two", "one", "three"))
    ]
    path, errors = tmp_path / "questions.jsonl", tmp_path / "p.jsonl.errors.jsonl"
    write_jsonl(path, questions)
    for _ in range(2):  # the second time nothing is added
        asked = questions_of(path, sounds, errors=errors)
        assert [(q.id, q.audio) for q in asked] == [("q1", str(sounds / "b/two.wav")), ("q3", "three.wav")]
        listed = [json.loads(line) for line in errors.read_text().splitlines()]
        assert [json.loads(row["row"])["id"] for row in listed] == ["q0", "q2"]
        assert {row["field"] for row in listed} == {"audio"}
        said = f"one.wav may be {sounds / 'a/one.wav'} or {sounds / 'b/one.wav'}"
        assert all(said in row["error"] for row in listed)
    with pytest.raises(RecordError, match=r"one.wav may be"):
        questions_of(path, sounds)
    assert [q.audio for q in moved(questions, sounds)] == [
        *("one.wav", str(sounds / "b/two.wav"), "one.wav", "three.wav")
    ]
    assert (
        f"{said}; give --audio a folder that holds one of them (2 rows in all); left where its row"
        in caplog.text
    )
    write_jsonl(path, questions[:1])
    with pytest.raises(RecordError, match=r"one.wav may be"):  # nothing is left
        questions_of(path, sounds, errors=tmp_path / "other.jsonl")


def test_every_command_that_opens_the_sound_of_records_takes_audio() -> None:
    opening = ("predict", "attend", "control", "behaviour", "import", "report", "look", "view", "transcribe")
    for command in (*opening, "compose", "build", "pack", "export", "check", "train sta", "study make"):
        words = command.split()
        parser = cli.parser(words)
        for word in words:
            (commands,) = (action for action in parser._actions if hasattr(action, "_name_parser_map"))
            parser = commands.choices[word]  # type: ignore[index]
        assert "--audio" in parser._option_string_actions, command


def test_export_takes_moved_sound(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "one.wav").touch()
    choice = Question("q", "c", "old/one.wav", 1.0, "choice", "?", "a", ("a", "b"))
    write_jsonl(tmp_path / "questions.jsonl", [choice])
    out = tmp_path / "trl.jsonl"
    words = ["export", str(tmp_path / "questions.jsonl"), "--to", "trl", "--out", str(out)]
    assert cli.main([*words, "--audio", str(tmp_path / "new")]) == 0
    assert str(tmp_path / "new" / "one.wav") in out.read_text()

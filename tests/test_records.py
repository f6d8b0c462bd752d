import json
import os
import pickle
import resource
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tgsr.disk.jsonl import repair_jsonl
from tgsr.errors import DiskError, RecordError
from tgsr.records import (
    Clip,
    Question,
    Response,
    append_jsonl,
    read_clips,
    read_questions,
    read_responses,
    resolve_audio,
    write_jsonl,
)
from tgsr.timeline import Span, Word

SPEECH = Path(__file__).resolve().parents[2] / "shared" / "data" / "speech" / "manifest.jsonl"

CLIP = Clip(
    "c1", "audio/c1.flac", 10.0, (Word("hello", 0.5, 0.9), Word("there", 1.0, 1.4, "ann", "exact", 0.5))
)
PHRASE = Question(
    "q1",
    "c1",
    "audio/c1.flac",
    10.0,
    "phrase",
    'When is "hello" said?',
    phrase="hello",
    evidence=(Span(0.5, 0.9),),
)
CHOICE = Question(
    "q2", "c1", "c1.wav", 10.0, "choice", "Who?", answer="Ann", choices=("Ann", "Bo", "Bo"), task="speaker"
)


def question_row(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "id": "q1",
        "clip_id": "c1",
        "audio": "c1.flac",
        "duration": 10.0,
        "kind": "phrase",
        "question": "When?",
        "phrase": "hello",
        "evidence": [[0.5, 0.9]],
    }
    return {**row, **changes}


def clip_row(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {"id": "c1", "audio": "c1.flac", "duration": 10.0}
    return {**row, "words": [{"word": "hi", "start": 1, "end": 2}], **changes}


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), "utf-8")
    return path


seconds = st.floats(0, 99, allow_nan=False)
spans = st.tuples(seconds, seconds).filter(lambda pair: pair[0] != pair[1]).map(lambda p: Span(*sorted(p)))
text = st.text(st.characters(), max_size=12)  # half surrogate pairs, U+2028 and control characters too
said = text.filter(str.strip)
words = st.builds(
    lambda text, span, speaker, source, confidence: Word(
        text, span.start, span.end, speaker, source, confidence
    ),
    said,
    spans,
    st.none() | text,
    st.none() | text,
    st.none() | st.floats(0, 1),
)
clips = st.builds(
    Clip,
    said,
    said,
    st.floats(99, 1e6),
    st.lists(words, max_size=3).map(tuple),
    said,
    st.none() | text,
    st.none() | text,
)
phrase_questions = st.builds(
    Question,
    id=said,
    clip_id=said,
    audio=said,
    duration=st.floats(99, 1e6),
    kind=st.just("phrase"),
    question=said,
    answer=st.none() | text,
    phrase=said,
    evidence=st.lists(spans, max_size=1).map(tuple),
    task=st.none() | text,
    split=said,
)
choice_questions = st.builds(
    lambda question, choices, evidence: replace(
        question, kind="choice", choices=choices, answer=choices[-1], evidence=evidence
    ),
    phrase_questions,
    st.lists(text.filter(str.strip), min_size=2, max_size=4).map(tuple),
    st.lists(spans, max_size=3).map(tuple),
)
responses = st.builds(Response, phrase_questions | choice_questions, said, text)


@given(clips, phrase_questions | choice_questions, responses)
@example(CLIP, PHRASE, Response(CHOICE, "mini", ""))
@example(CLIP, CHOICE, Response(PHRASE, "mini:tgsr", "\ud800 \u2028\x85\r\n"))
@settings(max_examples=60, deadline=None)
def test_records_come_back_exactly(clip: Clip, question: Question, response: Response) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        write_jsonl(path, [clip])
        assert read_clips(path) == [clip]
        write_jsonl(path, [question])
        assert read_questions(path) == [question]
        write_jsonl(path, [response])
        assert read_responses(path) == [response]


def test_what_is_none_is_left_out_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    write_jsonl(path, [CLIP])
    row = json.loads(path.read_text())
    assert row == {
        "id": "c1",
        "audio": "audio/c1.flac",
        "duration": 10.0,
        "words": [
            {"word": "hello", "start": 0.5, "end": 0.9},
            {
                "word": "there",
                "start": 1.0,
                "end": 1.4,
                "speaker": "ann",
                "source": "exact",
                "confidence": 0.5,
            },
        ],
        "split": "train",
    }


def test_a_response_is_its_question_and_two_fields_more(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write_jsonl(path, [CHOICE])
    question = json.loads(path.read_text())
    write_jsonl(path, [Response(CHOICE, "mini", "(a)")])
    assert json.loads(path.read_text()) == {**question, "model": "mini", "response": "(a)"}


def test_other_alphabets_stay_readable_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    write_jsonl(path, [replace(CLIP, id="Größe 你好")])
    assert "Größe 你好" in path.read_text("utf-8")


def test_the_error_is_the_one_in_the_manual(tmp_path: Path) -> None:
    rows = [question_row(id=f"q{n}") for n in range(40)]
    path = lines(tmp_path / "train.jsonl", *rows, question_row(id="bad", evidence=[[4.0, 3.2]]))
    with pytest.raises(RecordError) as caught:
        read_questions(path)
    assert str(caught.value) == (
        f'{path}:41: field "evidence": span end 3.2 s is not after its start 4.0 s; correct the row'
    )


@pytest.mark.parametrize(
    ("changes", "field", "found"),
    [
        ({"id": ""}, "id", "''"),
        ({"id": "  "}, "id", "'  '"),
        ({"id": 7}, "id", "7"),
        ({"id": None}, "id", "missing"),
        ({"clip_id": None}, "clip_id", "missing"),
        ({"audio": None}, "audio", "missing"),
        ({"question": " "}, "question", "blank"),
        ({"duration": 0}, "duration", "more than 0 s, got 0"),
        ({"duration": -2.5}, "duration", "-2.5"),
        ({"duration": "10"}, "duration", "a number, got '10'"),
        ({"duration": True}, "duration", "a number, got True"),
        ({"duration": None}, "duration", "missing"),
        ({"duration": 10**400}, "duration", "finite"),
        ({"kind": "poem"}, "kind", "'poem'"),
        ({"phrase": None}, "phrase", "missing"),
        ({"phrase": "  "}, "phrase", "blank"),
        ({"evidence": [[3.0, 10.06]]}, "evidence", "10.06"),
        ({"evidence": [[-0.1, 1]]}, "evidence", "-0.1"),
        ({"evidence": [[1, 1]]}, "evidence", "not after"),
        ({"evidence": [1, 2]}, "evidence", "[start, end]"),
        ({"evidence": [[1, 2, 3]]}, "evidence", "[1, 2, 3]"),
        ({"evidence": [["1", 2]]}, "evidence", "'1'"),
        ({"evidence": "1-2"}, "evidence", "a list"),
        ({"evidence": [{"start": 1, "end": 2}]}, "evidence", "[start, end]"),
        ({"evidence": [[1, None]]}, "evidence", "span end is missing"),
        ({"kind": "choice"}, "choices", "needs 2 to 26"),
        ({"kind": "choice", "choices": ["a"], "answer": "a"}, "choices", "needs 2 to 26"),
        ({"kind": "choice", "choices": ["a", " "], "answer": "a"}, "choices", "not blank"),
        ({"kind": "choice", "choices": ["a"] * 27, "answer": "a"}, "choices", "has 27"),
        ({"kind": "choice", "choices": ["a", "b"], "answer": "c"}, "answer", "'c'"),
        ({"kind": "choice", "choices": ["a", "b"], "answer": "A"}, "answer", "'A'"),
        ({"kind": "choice", "choices": ["a", "b"]}, "answer", "None"),
        ({"kind": "choice", "choices": ["a", 2], "answer": "a"}, "choices", "2"),
        ({"task": ["speaker"]}, "task", "['speaker']"),
    ],
)
def test_a_bad_question_names_its_field_and_value(
    tmp_path: Path, changes: dict[str, object], field: str, found: str
) -> None:
    path = lines(tmp_path / "q.jsonl", question_row(**changes))
    with pytest.raises(RecordError) as caught:
        read_questions(path)
    assert caught.value.field == field
    assert found in caught.value.problem
    assert str(caught.value).startswith(f'{path}:1: field "{field}": ')


@pytest.mark.parametrize(
    ("changes", "field", "found"),
    [
        ({"duration": 1.9}, "words", "'hi'"),
        ({"words": [{"word": "hi", "start": 2.0, "end": 2.0}]}, "words", "word 'hi': end 2.0 s is not after"),
        ({"words": [{"word": "hi", "start": -1, "end": 2}]}, "words", "-1"),
        ({"words": [{"word": "hi", "end": 2}]}, "words", "start is missing"),
        ({"words": [{"word": " ", "start": 1, "end": 2}]}, "words", "' '"),
        ({"words": [{"start": 1, "end": 2}]}, "words", "None"),
        ({"words": [{"word": "hi", "start": 1, "end": 2, "confidence": 1.5}]}, "words", "1.5"),
        ({"words": [{"word": "hi", "start": 1, "end": 2, "speaker": 3}]}, "speaker", "3"),
        ({"words": ["hi"]}, "words", "each must be an object, got 'hi'"),
        ({"words": [None]}, "words", "each must be an object, got None"),
        ({"words": [{"word": "hi", "start": 1, "end": 10**400}]}, "words", "word 'hi': end must be finite"),
        ({"events": [{"label": "dog", "start": 1}]}, "events", "event 'dog': end is missing"),
        ({"events": [{"label": " ", "start": 1, "end": 2}]}, "events", '"label" must be text'),
        ({"flags": [{}]}, "flags", "each must be text, got {}"),
        ({"labels": [["a", "b"]]}, "labels", "an object of texts"),
        ({"words": {"word": "hi"}}, "words", "a list"),
        ({"audio": None}, "audio", "missing"),
        ({"split": ""}, "split", "blank"),
    ],
)
def test_a_bad_clip_names_its_field_and_value(
    tmp_path: Path, changes: dict[str, object], field: str, found: str
) -> None:
    path = lines(tmp_path / "clips.jsonl", clip_row(**changes))
    with pytest.raises(RecordError) as caught:
        read_clips(path)
    assert caught.value.field == field
    assert found in caught.value.problem


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_lacks_are_refused(tmp_path: Path, constant: str) -> None:
    row = json.dumps(question_row()).replace("10.0", constant)
    errors = tmp_path / "errors.jsonl"
    path = lines(tmp_path / "q.jsonl", row)
    with pytest.raises(RecordError, match=r"q\.jsonl:1: "):
        read_questions(path)
    assert read_questions(path, on_error=errors) == []
    assert json.loads(errors.read_text())["row"] == row


def test_python_cannot_make_what_a_file_may_not_hold() -> None:
    with pytest.raises(RecordError, match="duration"):
        replace(CLIP, duration=float("nan"))
    with pytest.raises(RecordError, match="answer"):
        replace(CHOICE, answer="Cy")
    with pytest.raises(RecordError, match="evidence"):
        replace(PHRASE, evidence=(Span(9, 11),))
    with pytest.raises(RecordError, match="tuple of str"):
        replace(CHOICE, choices=["Ann", "Bo"])
    with pytest.raises(RecordError, match="model"):
        Response(PHRASE, "", "text")
    with pytest.raises(ValueError, match='field "kind"'):
        replace(PHRASE, kind="")


def test_times_may_pass_the_end_by_as_much_as_rounding_makes() -> None:
    assert replace(PHRASE, duration=3.1, evidence=(Span(1, 3.15),)).evidence == (Span(1, 3.15),)
    with pytest.raises(RecordError, match=r"3\.16"):
        replace(PHRASE, duration=3.1, evidence=(Span(1, 3.16),))


def test_choices_may_repeat() -> None:
    assert replace(CHOICE, choices=("Ann", "Ann")).choices == ("Ann", "Ann")


def test_an_id_seen_before_names_both_lines(tmp_path: Path) -> None:
    path = lines(tmp_path / "q.jsonl", question_row(), "", question_row(id="q2"), question_row())
    with pytest.raises(RecordError, match=r"q\.jsonl:4: .*'q1' was already on line 1.* line 4"):
        read_questions(path)
    clip_path = lines(tmp_path / "c.jsonl", clip_row(), clip_row())
    with pytest.raises(RecordError, match="already on line 1"):
        read_clips(clip_path)


def test_a_model_answers_once_unless_it_is_sampled(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    twice = [Response(PHRASE, "mini", "0.5"), Response(PHRASE, "other", ""), Response(PHRASE, "mini", "0.6")]
    write_jsonl(path, twice)
    with pytest.raises(RecordError, match="already on line 1"):
        read_responses(path)
    assert read_responses(path, several=True) == twice


def test_a_response_may_be_empty_but_not_missing(tmp_path: Path) -> None:
    path = lines(tmp_path / "r.jsonl", question_row(model="mini", response=""))
    assert read_responses(path)[0].text == ""
    lines(path, question_row(model="mini"))
    with pytest.raises(RecordError, match='"response"'):
        read_responses(path)
    lines(path, question_row(response="hello"))
    with pytest.raises(RecordError, match='"model"'):
        read_responses(path)


def test_bad_rows_go_to_the_error_file_and_reading_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = question_row(id="b", kind="poem")
    path = lines(tmp_path / "q.jsonl", question_row(), "{broken", bad, "[1]", question_row(id="c"))
    errors = tmp_path / "errors.jsonl"
    assert [question.id for question in read_questions(path, on_error=errors)] == ["q1", "c"]
    rows = [json.loads(line) for line in errors.read_text().splitlines()]
    assert [row["line"] for row in rows] == [2, 3, 4]
    assert rows[0]["row"] == "{broken"
    assert rows[1] == {
        "file": str(path),
        "line": 3,
        "field": "kind",
        "error": "is 'poem', must be one of 'phrase', 'choice'",
        "row": bad,
    }
    assert "3 rows are bad" in caplog.text


def test_marks_and_line_breaks_of_other_systems_are_read(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    first, second = (json.dumps(question_row(id=id), ensure_ascii=False) for id in ("é\u2028é", "b"))
    path.write_bytes(b"\xef\xbb\xbf" + f"{first}\r\n\r\n  \n{second}".encode())
    assert [question.id for question in read_questions(path)] == ["é\u2028é", "b"]
    path.write_bytes(b"")
    assert read_questions(path) == []


def test_text_that_is_not_utf8_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(json.dumps(question_row()).encode() + b'\n{"id": "caf\xe9"}\n')
    with pytest.raises(RecordError, match=r":2: byte 0xe9 .*UTF-8"):
        read_questions(path)
    errors = tmp_path / "errors.jsonl"
    assert len(read_questions(path, on_error=errors)) == 1
    assert json.loads(errors.read_text())["row"] == '{"id": "caf\\xe9"}'


@pytest.mark.parametrize(
    "row", ["{", "[" * 100_000 + "\n", '{"id": ' + "9" * 5000 + "}\n", '"text"\n', "null\n"]
)
def test_no_line_breaks_the_reader(tmp_path: Path, row: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(row)
    with pytest.raises(RecordError, match=r"q\.jsonl:1: "):
        read_questions(path)


def test_a_manifest_row_is_a_clip(tmp_path: Path) -> None:
    row = {
        "path": "libri/a.flac",
        "duration": 3,
        "sample_rate": 16000,
        "words": [{"word": "Hi", "start": 0.0, "end": 0.78, "prob": 0.58, "file": "x"}],
        "licence": "CC0",
        "emotion": None,
    }
    path = lines(tmp_path / "manifest.jsonl", row)
    expected = Clip(
        "libri/a.flac", "libri/a.flac", 3.0, (Word("Hi", 0.0, 0.78, confidence=0.58),), licence="CC0"
    )
    assert read_clips(path) == [expected]


@pytest.mark.skipif(not SPEECH.exists(), reason="the shared speech manifest is not here")
def test_the_speech_manifest_is_read_but_for_words_without_length(tmp_path: Path) -> None:
    errors = tmp_path / "errors.jsonl"
    rows = [json.loads(line) for line in SPEECH.read_text("utf-8").splitlines()]
    pointed = [row["path"] for row in rows if any(word["start"] >= word["end"] for word in row["words"])]
    clips = read_clips(SPEECH, on_error=errors)
    refused = [json.loads(line)["row"]["path"] for line in errors.read_text("utf-8").splitlines()]
    assert refused == pointed
    assert len(clips) == len(rows) - len(pointed) > 200
    assert all(resolve_audio(clip, SPEECH).exists() for clip in clips)


def test_audio_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "q.jsonl"
    assert resolve_audio(CLIP, path) == tmp_path / "sub" / "audio" / "c1.flac"
    assert resolve_audio(Response(PHRASE, "m", ""), path) == tmp_path / "sub" / "audio" / "c1.flac"
    assert resolve_audio(replace(CLIP, audio="/data/x.wav"), path) == Path("/data/x.wav")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    write_jsonl(path, [CLIP])
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (10_000, limits[1])
    )  # the kernel then refuses as a full disk does
    try:
        with pytest.raises(OSError, match="large"):
            write_jsonl(path, [replace(CLIP, id=f"c{n}") for n in range(1000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["clips.jsonl"]


def test_a_log_cut_by_a_full_disk_is_noticed_and_repaired(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_jsonl(path, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(DiskError, match=r"log\.jsonl: No space left on device; free some space"):
            append_jsonl(path, {"step": 222})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert repair_jsonl(path) == 8
    assert path.read_text() == '{"step": 1}\n'


def test_a_record_that_fails_halfway_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.jsonl"
    write_jsonl(path, [{"loss": 1.0}])
    with pytest.raises(RecordError, match=r'metrics\.jsonl:2: field "loss": .*JSON'):
        write_jsonl(path, [{"loss": 0.5}, {"loss": float("nan")}])
    assert json.loads(path.read_text()) == {"loss": 1.0}
    assert os.listdir(path.parent) == ["metrics.jsonl"]


def test_writing_over_a_link_keeps_the_link_and_what_it_reads(tmp_path: Path) -> None:
    path, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    write_jsonl(path, [CLIP])
    link.symlink_to(path)
    write_jsonl(link, (clip for clip in [*read_clips(link), replace(CLIP, id="c2")]))
    assert link.is_symlink()
    assert [clip.id for clip in read_clips(path)] == ["c1", "c2"]


def test_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [CLIP])
    (tmp_path / "b").touch()
    assert (tmp_path / "a.jsonl").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_log_cut_anywhere_keeps_its_whole_lines_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    rows = [question_row(id=f"é{n}") for n in range(3)]
    whole = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    ends = [n + 1 for n, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        n_whole = sum(end - 1 <= cut for end in ends)  # only the line break may be missing
        dropped = repair_jsonl(path)
        assert [question.id for question in read_questions(path)] == [f"é{n}" for n in range(n_whole)]
        assert dropped == (0 if cut + 1 in ends else cut - ([0, *ends][n_whole]))
        append_jsonl(path, PHRASE)
        assert read_questions(path)[-1] == PHRASE


def test_nothing_is_glued_to_a_half_written_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_jsonl(path, {"step": 1})
    path.write_bytes(path.read_bytes() + b'{"step": 2, "lo')
    with pytest.raises(RecordError, match="half-written; run the command that writes the file again"):
        append_jsonl(path, {"step": 3})
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2, "lo'


def test_a_reader_tells_a_half_written_line_from_a_wrong_one(tmp_path: Path) -> None:
    path = lines(tmp_path / "q.jsonl", question_row())
    path.write_bytes(path.read_bytes() + b'{"id": "q')
    with pytest.raises(RecordError, match=r":2: the last line is half-written; run the command"):
        read_questions(path)
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(RecordError, match=r":2: is not JSON .*; correct the row"):
        read_questions(path)


def test_errors_survive_the_way_from_a_worker_process() -> None:
    error = RecordError("id", "is odd").at("a.jsonl", 3)
    assert (
        str(pickle.loads(pickle.dumps(error)))
        == str(error)
        == ('a.jsonl:3: field "id": is odd; correct the row')
    )


def test_a_question_keeps_several_labels_of_one_name(tmp_path):
    labels = (("benchmark", "mmau"), ("category", "Reasoning"), ("category", "Information Extraction"))
    question = Question("q", "c", "c.wav", 2.0, "choice", "Who?", "A", ("A", "B"), labels=labels)
    write_jsonl(tmp_path / "q.jsonl", [question])
    assert json.loads((tmp_path / "q.jsonl").read_text())["labels"] == {
        "benchmark": "mmau",
        "category": ["Reasoning", "Information Extraction"],
    }
    assert read_questions(tmp_path / "q.jsonl") == [question]
    assert question.labelled("category") == ("Reasoning", "Information Extraction")
    assert question.labelled("domain") == ()


@pytest.mark.parametrize("labels", [["mmau"], {"benchmark": 3}, {"category": ["A", None]}])
def test_labels_that_are_no_texts_are_refused(tmp_path, labels):
    row = {"id": "q", "clip_id": "c", "audio": "c.wav", "duration": 2.0, "kind": "choice", "question": "Who?"}
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({**row, "answer": "A", "choices": ["A", "B"], "labels": labels}) + "\n")
    with pytest.raises(RecordError, match=r'q\.jsonl:1: field "labels"'):
        read_questions(path)

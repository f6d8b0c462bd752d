"""Benchmarks in their owners' files: what is asked, what cannot be, and what goes back to the owners' scorers.

The rows here are invented in the owners' schemas. The real metadata, where it is at hand, are read as they are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from tgsr.audio import SAMPLE_RATE, save_wav
from tgsr.choices import airbench_letter, extract_choice, letter, token_match
from tgsr.errors import Bad, RecordError
from tgsr.evaluation.benchmarks import limited, questions_of, read_benchmark, selected
from tgsr.evaluation.owners.files import benchmark_questions, whose_file, write_official
from tgsr.evaluation.owners.meld import EMOTIONS
from tgsr.evaluation.owners.owner import BenchmarkQuestion
from tgsr.records import Question, Response, resolve_audio, write_jsonl

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
MMAU, MMAR, MELD = (
    SHARED / "mmau" / "mmau-test-mini.json",
    SHARED / "mmar" / "MMAR-meta.jsonl",
    SHARED / "meld" / "test_sent_emo.csv",
)


def real(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.is_file(), reason=f"{path.name} is not in {path.parent}")


def sound(path: Path, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_wav(path, np.full(round(seconds * SAMPLE_RATE), 0.1, np.float32))


def parted(found: Sequence[Question | Bad]) -> tuple[list[Question], list[Bad]]:
    return [q for q in found if isinstance(q, Question)], [b for b in found if isinstance(b, Bad)]


def good(path: Path) -> list[BenchmarkQuestion]:
    """The questions of a benchmark's file that can be asked."""
    return [item for item in benchmark_questions(path) if isinstance(item, BenchmarkQuestion)]


def mmau_row(name: str, **changes: object) -> dict[str, object]:
    return {
        "id": name,
        "audio_id": f"./test-mini-audios/{name}.wav",
        "question": "Who says the last number?",
        "choices": ["the first speaker", "the second speaker"],
        "answer": "the second speaker",
        "dataset": "Invented",
        "task": "speech",
        "split": "test-mini",
        "category": "Reasoning",
        "sub-category": "Counting",
        "difficulty": "easy",
        **changes,
    }


def mmar_row(name: str, **changes: object) -> dict[str, object]:
    return {
        "id": name,
        "audio_path": f"./audio/{name}.wav",
        "question": "What is counted",
        "choices": ["sheep", "coins", "steps"],
        "answer": "coins",
        "modality": "speech",
        "category": "Semantic Layer",
        "sub-category": "Content Analysis",
        "language": "en|zh",
        "source": "invented",
        **changes,
    }


def airbench_row(number: int, task: str, dataset: str, **changes: object) -> dict[str, object]:
    return {
        "path": f"clip{number}.wav",
        "question": "How many people speak?",
        "choice_a": "one",
        "choice_b": "two",
        "choice_c": None,
        "choice_d": None,
        "answer_gt": "two",
        "task_name": task,
        "dataset_name": dataset,
        "uniq_id": number,
        **changes,
    }


def write_mmau(path: Path, rows: Sequence[Mapping[str, object] | object]) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def meld_csv(path: Path, *rows: tuple[int, int, str]) -> Path:
    header = (
        "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
    )
    lines = [
        f'1,"Well, hello",Ann,{emotion},neutral,{dialogue},{utterance},1,1,"0:00:01,000","0:00:02,000"'
        for dialogue, utterance, emotion in rows
    ]
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


# --- each owner's file -----------------------------------------------------------------------------------------------


def test_mmau_rows_are_questions_with_what_its_scores_are_broken_down_by(tmp_path: Path) -> None:
    rows = [
        mmau_row("a", choices=["no", None, " ", "yes"], answer="yes", category=["Reasoning", "Memory"]),
        mmau_row("b", task="music", audio_id="./test-mini-audios/a.wav"),
    ]
    path = write_mmau(tmp_path / "anything.txt", rows)  # its name says nothing
    sound(tmp_path / "test-mini-audios" / "a.wav", seconds=1.25)
    owner, asks_where = whose_file(path)
    assert not asks_where
    assert owner is not None
    assert owner.name == "mmau"
    questions, bad = parted(list(read_benchmark(path)))
    assert not bad
    first, second = questions
    assert (first.id, first.kind, first.split, first.duration) == ("a", "choice", "test", 1.25)
    assert (first.choices, first.answer) == (("no", "yes"), "yes")
    assert first.task == "Reasoning and Memory"
    assert first.labelled("benchmark") == ("mmau",)
    assert first.labelled("category") == ("Reasoning", "Memory")
    assert (first.labelled("domain"), first.labelled("difficulty")) == (("speech",), ("easy",))
    assert resolve_audio(first, path).samefile(tmp_path / "test-mini-audios" / "a.wav")
    assert first.clip_id == second.clip_id  # the same sound


def test_mmar_lines_may_be_broken_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "MMAR-meta.jsonl"
    lines = [json.dumps(mmar_row("a")), "{broken", json.dumps(mmar_row("b", language=None)), "[1]"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in "ab":
        sound(tmp_path / "audio" / f"{name}.wav")
    questions, bad = parted(list(read_benchmark(path)))
    assert [q.id for q in questions] == ["a", "b"]
    assert [q.labelled("language") for q in questions] == [("en", "zh"), ()]
    assert [b.line for b in bad] == [2, 4]


def test_airbench_rows_lie_in_a_folder_for_task_and_dataset(tmp_path: Path) -> None:
    rows = [
        airbench_row(1, "Speaker_Number_Verification", "voxceleb1"),
        airbench_row(1, "Audio_Grounding", "AudioGrounding"),  # its rows say .wav, its files are .flac
        airbench_row(2, "Music_AQA", "music_avqa", choice_c="three", choice_d="four", answer_gt="four"),
    ]
    (tmp_path / "Foundation").mkdir()
    path = write_mmau(tmp_path / "Foundation" / "Foundation_meta.json", rows)
    sound(tmp_path / "Foundation" / "Speaker_Number_Verification_voxceleb1" / "clip1.wav")
    sound(tmp_path / "Foundation" / "Audio_Grounding_AudioGrounding" / "clip1.flac")
    sound(tmp_path / "Foundation" / "Music_AQA_music_avqa" / "clip2.wav")
    from_beside, bad = parted(list(read_benchmark(path)))
    from_above, more_bad = parted(list(read_benchmark(path, tmp_path)))
    assert from_beside == from_above
    assert not bad + more_bad
    assert [q.labelled("domain") for q in from_beside] == [("speech",), ("sound",), ("music",)]
    assert [q.labelled("column") for q in from_beside] == [("SNV",), (), ()]
    assert [q.choices for q in from_beside] == [
        ("one", "two"),
        ("one", "two"),
        ("one", "two", "three", "four"),
    ]
    assert len({q.id for q in from_beside}) == len({q.clip_id for q in from_beside}) == 3


def test_meld_asks_for_one_of_seven_emotions(tmp_path: Path) -> None:
    path = meld_csv(
        tmp_path / "test_sent_emo.csv", (0, 0, "joy"), (0, 1, "neutral"), (38, 4, "anger"), (0, 2, "bored")
    )
    sound(tmp_path / "output_repeated_splits_test" / "dia0_utt0.wav")
    sound(tmp_path / "output_repeated_splits_test" / "dia0_utt1.flac")  # extracted from the .mp4
    questions, bad = parted(list(read_benchmark(path)))
    assert [(q.id, q.answer) for q in questions] == [
        ("meld-test-dia0_utt0", "joy"),
        ("meld-test-dia0_utt1", "neutral"),
    ]
    assert all(q.choices == EMOTIONS for q in questions)
    assert ["minutes long" in b.error for b in bad] == [True, False]
    assert "'bored' is none of anger" in bad[1].error


def test_melds_sets_are_told_apart_by_their_names(tmp_path: Path) -> None:
    path = meld_csv(tmp_path / "dev_sent_emo.csv", (110, 7, "joy"), (38, 4, "joy"))
    sound(tmp_path / "dev" / "dev_splits_complete" / "dia38_utt4.wav")
    questions, bad = parted(list(read_benchmark(path)))
    assert [(q.id, q.split) for q in questions] == [("meld-dev-dia38_utt4", "dev")]
    assert "lacks this clip" in bad[0].error


# --- what cannot be asked ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "field", "says"),
    [
        (mmau_row("x", answer="nobody"), "answer", "not one of the choices"),
        (mmau_row("x", answer=None), "answer", "the owner keeps the answers"),
        (mmau_row("x", choices="yes or no"), "choices", "must be a list"),
        (mmau_row("x", choices=[["a"], "b"]), "choices", "each must be text"),
        (mmau_row("x", choices=["the second speaker", None]), "choices", "2 to 26"),
        (mmau_row("x", question=" "), "question", "blank"),
        (mmau_row("x", id=None), "id", "missing"),
        (mmau_row("good"), "id", "already on line 1"),
        (mmau_row("x"), "audio", "no sound file"),
        (7, None, "must be a JSON object"),
    ],
)
def test_a_bad_row_is_listed_and_the_others_go_on(
    row: object, field: str | None, says: str, tmp_path: Path
) -> None:
    path = write_mmau(tmp_path / "m.json", [mmau_row("good"), row, mmau_row("last")])
    for name in ("good", "last", *(["x"] if field != "audio" else [])):
        sound(tmp_path / "test-mini-audios" / f"{name}.wav")
    questions, bad = parted(list(read_benchmark(path)))
    assert [q.id for q in questions] == ["good", "last"]
    (one,) = bad
    assert (one.line, one.field) == (2, field)
    assert says in one.error


def test_a_missing_sound_file_says_where_was_looked(tmp_path: Path) -> None:
    path = write_mmau(tmp_path / "m.json", [mmau_row("a"), mmau_row("b")])
    sound(tmp_path / "elsewhere" / "b.wav")
    with pytest.raises(
        RecordError, match=r"none of 2 rows can be asked.*test-mini-audios/b\.wav.*give --audio"
    ):
        questions_of(path, errors=tmp_path / "errors.jsonl")
    assert [q.id for q in questions_of(path, tmp_path / "elsewhere", errors=tmp_path / "e.jsonl")] == ["b"]
    with pytest.raises(RecordError, match="no such folder"):
        questions_of(path, tmp_path / "nowhere")


def test_a_part_without_answers_says_so_and_not_that_nothing_was_selected(tmp_path: Path) -> None:
    rows = [{key: value for key, value in mmau_row(name).items() if key != "answer"} for name in "ab"]
    path = write_mmau(tmp_path / "mmau-test.json", rows)
    with pytest.raises(
        RecordError, match="none of 2 rows can be asked; is missing: the owner keeps the answers"
    ):
        questions_of(path, only=["speech"], errors=tmp_path / "errors.jsonl")


def test_a_sound_file_that_cannot_be_read_is_listed(tmp_path: Path) -> None:
    path = write_mmau(tmp_path / "m.json", [mmau_row("a"), mmau_row("b")])
    sound(tmp_path / "test-mini-audios" / "a.wav")
    (tmp_path / "test-mini-audios" / "b.wav").write_bytes(b"")
    _, bad = parted(list(read_benchmark(path)))
    assert "empty" in bad[0].error


def test_running_again_lists_a_bad_row_once(tmp_path: Path) -> None:
    path = write_mmau(tmp_path / "m.json", [mmau_row("a"), mmau_row("b"), mmau_row("b")])
    sound(tmp_path / "test-mini-audios" / "a.wav")
    errors = tmp_path / "e.jsonl"
    for _ in range(2):
        assert len(questions_of(path, errors=errors)) == 1
    rows = [json.loads(line) for line in errors.read_text().splitlines()]
    assert [(row["line"], row["field"]) for row in rows] == [(3, "id"), (2, "audio")]
    with pytest.raises(RecordError, match="already on line 2"):
        questions_of(path)  # nowhere to list it


@pytest.mark.parametrize("content", ['[{"prompt": "hi"}]', "[]", "[1, 2", "name,size\nx,1\n"])
def test_a_file_that_is_no_benchmarks_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(content)
    with pytest.raises(RecordError, match=r"benchmark's file|begins as a JSON list"):
        questions_of(tmp_path / "f.json")


def test_questions_of_ours_are_read_as_ever(tmp_path: Path) -> None:
    asked = [
        Question(
            str(n), "c", "c.wav", 1.0, "choice", "Which?", "a", ("a", "b"), labels=(("level", str(n % 2)),)
        )
        for n in range(6)
    ]
    path = tmp_path / "questions.jsonl"
    write_jsonl(path, asked)
    assert questions_of(path) == asked
    assert [q.id for q in questions_of(path, only=["level=1"])] == ["1", "3", "5"]
    with pytest.raises(RecordError, match="holds no sound file"):
        questions_of(path, tmp_path)
    with path.open("a") as file:
        file.write('{"id": "7"}\n')
    with pytest.raises(RecordError, match=r"questions\.jsonl:7"):
        questions_of(path, errors=tmp_path / "e.jsonl")
    assert questions_of(path, errors=tmp_path / "e.jsonl", skip_bad=True) == asked


# --- selection -----------------------------------------------------------------------------------------------------


def some(tmp_path: Path) -> list[BenchmarkQuestion]:
    rows = [
        mmau_row("a"),
        mmau_row("b", difficulty="hard"),
        mmau_row("c", task="music", difficulty="hard", category=["Memory", "Reasoning"]),
        mmau_row("d", task="sound"),
    ]
    return good(write_mmau(tmp_path / "m.json", rows))


@pytest.mark.parametrize(
    ("only", "ids"),
    [
        ([], "abcd"),
        (["speech"], "ab"),
        (["SPEECH", "music"], "abc"),
        (["speech", "difficulty=hard"], "b"),
        (["difficulty=hard", "difficulty=easy"], "abcd"),
        (["category=Memory"], "c"),
        (["sub-category=counting", "domain=sound"], "d"),
        (["split=test", "clip_id=mmau-a"], "a"),
    ],
)
def test_values_widen_and_names_narrow(only: list[str], ids: str, tmp_path: Path) -> None:
    assert "".join(item.id for item in selected(some(tmp_path), only, "m.json")) == ids


@pytest.mark.parametrize(
    ("only", "says"),
    [
        (["speech", "SNV"], "domain is music, sound, speech"),
        (["difficulty=medium"], "difficulty is easy, hard"),
        (["level=3"], "the names are benchmark, category"),
        (["sound", "difficulty=hard"], "no question is all of"),
    ],
)
def test_a_selection_that_finds_nothing_says_what_there_is(
    only: list[str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(RecordError, match=says):
        selected(some(tmp_path), only, "m.json")


def test_sound_files_of_what_was_not_selected_are_not_missed(tmp_path: Path) -> None:
    path = write_mmau(tmp_path / "m.json", [mmau_row("a"), mmau_row("b", task="music")])
    sound(tmp_path / "test-mini-audios" / "a.wav")
    questions, bad = parted(list(read_benchmark(path, only=["speech"])))
    assert [q.id for q in questions] == ["a"]
    assert not bad


def test_a_larger_limit_keeps_what_a_smaller_one_drew(tmp_path: Path) -> None:
    rows = [item for item in some(tmp_path) for _ in range(50)]
    numbered = [
        BenchmarkQuestion(**{f: getattr(r, f) for f in BenchmarkQuestion.__slots__} | {"id": str(n)})
        for n, r in enumerate(rows)
    ]
    few, more = ({item.id for item in limited(numbered, n, seed=3)} for n in (20, 60))
    assert len(few) == 20
    assert few < more
    assert few != {item.id for item in limited(numbered, 20, seed=4)}
    assert limited(numbered, 500, seed=3) == numbered
    with pytest.raises(RecordError, match="--limit 0"):
        questions_of(tmp_path / "m.json", limit=0)


# --- the owners' scorers -------------------------------------------------------------------------------------------


def said(item: BenchmarkQuestion, index: int, form: str = "Final answer: ({letter}) {text}") -> Response:
    question = Question(
        item.id, item.clip_id, "x.wav", 1.0, "choice", item.question, item.answer, item.choices
    )
    return Response(
        question, "m", f"I weigh them.\n{form.format(letter=letter(index), text=item.choices[index])}"
    )


def test_official_files_hold_the_choice_and_the_rest_of_the_row(tmp_path: Path) -> None:
    path = write_mmau(tmp_path / "m.json", [mmau_row("a"), mmau_row("b"), mmau_row("c")])
    a, b, c = good(path)
    unclear = Response(said(c, 0).question, "m", "(a) or (b), who knows")
    written = write_official(path, tmp_path / "out" / "o.json", [said(a, 1), unclear])
    assert (written.benchmark, written.n, written.n_without_choice) == ("mmau", 2, 1)
    rows = json.loads((tmp_path / "out" / "o.json").read_text())
    assert rows[0] == mmau_row("a") | {"model_output": "the second speaker"}
    assert [row["model_output"] for row in rows] == ["the second speaker", "(a) or (b), who knows"]
    assert b.id not in {row["id"] for row in rows}  # not answered: its scorer would skip it


def airbench_score(path: Path) -> dict[str, tuple[int, int]]:
    """What AIR-Bench's scorer prints, written anew: right answers and denominator of each task and dataset."""
    found: dict[str, tuple[int, int]] = {}
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        columns = [row["choice_a"], row["choice_b"], row["choice_c"], row["choice_d"]]
        read = airbench_letter(row["response"])
        if read is None:
            continue
        right, n = found.get(f"{row['task_name']}_{row['dataset_name']}", (0, 0))
        is_right = read == "ABCD"[columns.index(row["answer_gt"])]
        found[f"{row['task_name']}_{row['dataset_name']}"] = (right + is_right, n + 1)
    return found


def test_airbench_gets_letters_of_its_own_columns(tmp_path: Path) -> None:
    rows = [
        airbench_row(1, "SIC", "s", choice_a=None, choice_c="three"),  # column B is our option (a)
        airbench_row(2, "SIC", "s", choice_a="two", choice_c="one"),  # two columns hold the right text
        airbench_row(3, "SIC", "s"),
        airbench_row(4, "SIC", "s"),
    ]
    path = write_mmau(tmp_path / "Foundation_meta.json", rows)
    first, second, third, fourth = good(path)
    silent = Response(said(fourth, 0).question, "m", "")
    answers = [said(first, 0), said(second, 1), said(third, 0), silent]
    write_official(path, tmp_path / "o.jsonl", answers)
    written = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row["response"] for row in written] == ["B", "A", "A", ""]
    assert airbench_score(tmp_path / "o.jsonl") == {"SIC_s": (2, 3)}


def test_meld_has_no_official_file(tmp_path: Path) -> None:
    path = meld_csv(tmp_path / "test_sent_emo.csv", (0, 0, "joy"))
    with pytest.raises(RecordError, match="no scorer"):
        write_official(path, tmp_path / "o.jsonl", [])


# --- the real metadata ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "n", "n_speech"),
    [
        pytest.param(MMAU, 1000, 333, marks=real(MMAU)),
        pytest.param(MMAR, 1000, 294, marks=real(MMAR)),
    ],
)
def test_the_papers_cells_are_all_there(path: Path, n: int, n_speech: int) -> None:
    found = good(path)
    assert len(found) == n  # none bad
    assert len(selected(found, ["speech"], str(path))) == n_speech


@pytest.mark.parametrize(
    ("path", "key", "only", "n_forgiven"),
    [
        pytest.param(MMAU, "model_output", "speech", 9, marks=real(MMAU)),
        pytest.param(MMAU, "model_output", "domain=sound", 3, marks=real(MMAU)),
        pytest.param(MMAR, "answer_prediction", "speech", 6, marks=real(MMAR)),
    ],
)
def test_the_owners_match_of_our_official_file_says_what_we_read(
    path: Path, key: str, only: str, n_forgiven: int, tmp_path: Path
) -> None:
    """Every choice of every row in turn; where both differ, the wrong choice has the words of the right one."""
    found = selected(good(path), [only], str(path))
    by_id = {item.id: item for item in found}
    forgiven = 0
    for index in range(max(len(item.choices) for item in found)):
        answers = [said(item, index) for item in found if index < len(item.choices)]
        out = tmp_path / f"{index}.json"
        written = write_official(path, out, answers)
        assert (written.n, written.n_without_choice) == (len(answers), 0)
        text = out.read_text(encoding="utf-8")
        rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
        for row, response in zip(rows, answers, strict=True):
            item = by_id[row["id"]]
            chosen = extract_choice(response.text, item.choices)
            is_right = chosen is not None and item.choices[chosen] == item.answer
            official = token_match(row[key], row["answer"], row["choices"])
            if official != is_right:
                assert official
                assert row[key] != row["answer"]
                forgiven += 1
    assert forgiven == n_forgiven


@real(MMAU)
def test_real_rows_become_questions_where_their_sound_is(tmp_path: Path) -> None:
    path = tmp_path / "mmau-test-mini.json"
    path.write_bytes(MMAU.read_bytes())
    names = [item.places[0] for item in good(path)][:5]
    for number, name in enumerate(names, 1):
        sound(tmp_path / name, seconds=number / 4)
    questions, bad = parted(list(read_benchmark(path)))
    assert [q.duration for q in questions] == [0.25, 0.5, 0.75, 1.0, 1.25]
    assert len(bad) == 995
    assert all("no sound file" in one.error for one in bad)


@real(MELD)
def test_real_meld_has_2608_questions_and_names_the_two_others() -> None:
    found = list(benchmark_questions(MELD))
    asked = [item for item in found if isinstance(item, BenchmarkQuestion)]
    bad = [one for one in found if isinstance(one, Bad)]
    assert (len(asked), len(bad)) == (2608, 2)
    share = Counter(item.answer for item in asked)["neutral"] / len(asked)
    assert share == pytest.approx(0.4816, abs=1e-4)

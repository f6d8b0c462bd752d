"""What other trainers read is what our own loops say, and comes back as the same questions."""

import json
import re
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from others import phi4_folder
from tgsr import cli
from tgsr.choices import correct_letter
from tgsr.data.other_trainers import (
    KEPT,
    PLACE,
    export,
    import_back,
    kept,
    kept_in,
    to_ms_swift,
    to_nemo_rl,
    to_trl,
    to_verl,
)
from tgsr.errors import OptionError, RecordError
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.gemma4 import Gemma4
from tgsr.models.lalm import Lalm
from tgsr.models.load import load
from tgsr.models.music_flamingo import MusicFlamingo
from tgsr.models.phi4 import Phi4
from tgsr.models.qwen2_audio import Qwen2Audio
from tgsr.models.qwen3_omni import Qwen3Omni
from tgsr.models.qwen_omni import QwenOmni
from tgsr.models.voxtral import Voxtral
from tgsr.prompts import QWEN_SYSTEM, REASONING_INSTRUCTION
from tgsr.records import Question, append_jsonl, read_questions, write_jsonl
from tgsr.rewards import answer_reward
from tgsr.timeline import Span, Word
from tiny import af3_folder, gemma4_folder, mf_folder, omni_folder, qwen2_audio_folder, qwen3_omni_folder

needs_pyarrow = pytest.mark.skipif(find_spec("pyarrow") is None, reason="parquet: pip install pyarrow")
TARGETS = (
    "ms-swift",
    "trl",
    "nemo-rl",
    pytest.param("verl", marks=needs_pyarrow),
)
FAMILIES = {
    "qwen_omni": (QwenOmni, "<|AUDIO|>", omni_folder),
    "qwen2_audio": (Qwen2Audio, "<|AUDIO|>", qwen2_audio_folder),
    "qwen3_omni": (Qwen3Omni, "<|audio_pad|>", qwen3_omni_folder),
    "audio_flamingo3": (AudioFlamingo3, "<sound>", af3_folder),
    "music_flamingo": (MusicFlamingo, "<sound>", mf_folder),
    "gemma4": (Gemma4, "<|audio|>", gemma4_folder),
    "phi4_multimodal": (Phi4, "<|audio|>", phi4_folder),
    "voxtral": (Voxtral, "[AUDIO]", None),  # which mistral-common writes, and no template
}
"""The class, the name of audio's place in its template, and a tiny model of each."""
PHRASE = Question(
    "p1", "c1", "clips/c1.wav", 12.5, "phrase", "When?", phrase="ten past nine", evidence=(Span(1.234, 3.1),)
)
CHOICE = Question(
    "q1",
    "c1",
    "clips/c1.wav",
    12.5,
    "choice",
    "Who speaks last?",
    answer="the guest",
    choices=("the host", "the guest", "nobody"),
    evidence=(Span(0.1 + 0.2, 2.0), Span(4.0, 5.5)),
    task="speaker order",
    split="dev",
    labels=(("benchmark", "mmar"), ("category", "Signal"), ("category", "Semantic")),
)


def row_of(question, target, family="qwen_omni"):
    if target == "verl":
        return to_verl(question, "/clips/c1.wav", family, 0)
    return {"ms-swift": to_ms_swift, "trl": to_trl, "nemo-rl": to_nemo_rl}[target](
        question, "/clips/c1.wav", family
    )


def rows_in(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- what is said


def test_ms_swift_gets_the_papers_words_and_the_target_for_the_family():
    row = to_ms_swift(PHRASE, "/c1.wav", "qwen_omni")
    assert row["messages"] == [
        {"role": "system", "content": QWEN_SYSTEM},
        {
            "role": "user",
            "content": "<audio>What is the timestamp of the following segment? ten past nine",
        },
        {
            "role": "assistant",
            "content": "The segment ten past nine starts at 1.23 seconds and ends at 3.10 seconds.",
        },
    ]
    assert row["audios"] == ["/c1.wav"]
    assert "solution" not in row
    flamingo = to_ms_swift(PHRASE, "/c1.wav", "audio_flamingo3")["messages"]
    assert [message["role"] for message in flamingo] == ["user", "assistant"]
    assert flamingo[0]["content"].endswith(
        "Format: The segment starts at X.XX seconds and ends at Y.YY seconds."
    )
    assert flamingo[1]["content"] == "The segment starts at 1.23 seconds and ends at 3.10 seconds."


def test_a_choice_question_has_no_assistant_turn_and_its_letter_goes_to_the_reward():
    row = to_ms_swift(CHOICE, "/c1.wav", "audio_flamingo3")
    assert row["messages"] == [
        {
            "role": "user",
            "content": "<audio>Who speaks last?\n(a) the host\n(b) the guest\n(c) nobody\n"
            + REASONING_INSTRUCTION,
        }
    ]
    assert row["solution"] == "b" == correct_letter(CHOICE)


def test_trls_columns_are_what_our_reward_is_called_with():
    row = to_trl(CHOICE, "/c1.wav", "qwen_omni")
    assert row["prompt"][1]["content"][0] == {"type": "audio", "audio": "/c1.wav"}
    columns = {name: [value] for name, value in row.items() if name != "prompt"}
    said = [[{"role": "assistant", "content": "From 1 s on.\n(b) the guest"}]]
    assert answer_reward(completions=said, prompts=[row["prompt"]], **columns) == [1.0]


def test_verls_columns_are_the_documented_ones():
    row = to_verl(CHOICE, "/c1.wav", "qwen_omni", 7)
    assert row["reward_model"] == {"style": "rule", "ground_truth": "b"}
    kept_there = row["extra_info"].pop(KEPT)  # the only column that a reward function of verl's gets
    assert kept_there == row[KEPT]
    assert row["extra_info"] == {"split": "dev", "index": 7, "id": "q1", "task": "speaker order"}
    assert row["audios"] == ["/c1.wav"]
    assert row["data_source"] == "tgsr/choice"
    phrase = to_verl(PHRASE, "/c1.wav", "qwen_omni", 0)
    assert phrase["reward_model"]["ground_truth"].startswith("The segment ten past nine starts at 1.23")


def test_nemo_rls_grpo_reads_the_first_message_as_the_prompt_and_the_second_as_the_truth():
    for family in FAMILIES:
        messages = to_nemo_rl(CHOICE, "/c1.wav", family)["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"]
        assert messages[1]["content"] == "b"
    phrase = to_nemo_rl(PHRASE, "/c1.wav", "qwen_omni")["messages"]
    assert [message["role"] for message in phrase] == ["system", "user", "assistant"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_phrase_is_asked_and_answered_in_the_familys_words(family):
    lalm = object.__new__(FAMILIES[family][0])
    row = to_trl(PHRASE, "/c1.wav", family)
    assert row["prompt"][-1]["content"][1]["text"] == lalm.phrase_question(PHRASE.phrase)
    assert row["completion"][0]["content"][0]["text"] == lalm.phrase_answer(PHRASE.phrase, PHRASE.evidence[0])


@pytest.fixture(scope="module", params=[family for family in FAMILIES if FAMILIES[family][2]])
def of_family(request, tmp_path_factory):
    """A family's name, and a tiny model of it."""
    make = FAMILIES[request.param][2]
    return request.param, load(str(make(tmp_path_factory.mktemp("hub") / request.param)))


@pytest.mark.parametrize("question", [PHRASE, CHOICE], ids=["phrase", "choice"])
def test_the_prompt_is_token_by_token_that_of_our_own_loops(question, of_family):
    family, lalm = of_family
    own = (
        lalm.phrase_question(question.phrase)
        if question is PHRASE
        else to_ms_swift(CHOICE, "", family)["messages"][-1]["content"].removeprefix(PLACE)
    )
    parts = Lalm.prompt(lalm, own)  # without what a family's processor writes around audio
    template = lalm.tokenizer.apply_chat_template
    exported = to_trl(question, "/c1.wav", family)["prompt"]
    text = template(exported, add_generation_prompt=True, tokenize=False)
    before, after = text.split(FAMILIES[family][1])
    assert (tuple(lalm.tokens(before)), tuple(lalm.tokens(after))) == (parts.before, parts.after)


# --- text that looks like a place for audio

MARKS = st.sampled_from(
    [
        *(
            "<audio>",
            "<image>",
            "<video>",
            "<img>a.png</img>",
            "<bbox>",
            "<start-image>",
            "<|AUDIO|>",
            "<sound>",
        ),
        *("<|audio_pad|>", "<|audio|>", "<audio|>"),
    ]
)
TEXTS = (
    st.lists(MARKS | st.text(max_size=8) | st.sampled_from(['"', "'", "\n", "\\", "\u2028", "é", "<", ">"]))
    .map("".join)
    .filter(str.strip)
)


@st.composite
def questions(draw):
    common = {
        "id": draw(TEXTS),
        "clip_id": draw(TEXTS),
        "audio": "a.wav",
        "duration": draw(st.floats(60, 1e6)),
        "question": draw(TEXTS),
        "task": draw(st.none() | TEXTS),
        "split": draw(TEXTS),
    }
    starts = draw(st.lists(st.floats(0, 50), min_size=1, max_size=3))
    spans = tuple(Span(start, start + 0.1 + draw(st.floats(0, 9))) for start in starts)
    if draw(st.booleans()):
        return Question(kind="phrase", phrase=draw(TEXTS), evidence=spans[:1], **common)
    choices = tuple(draw(st.lists(TEXTS, min_size=2, max_size=5)))
    evidence = spans if draw(st.booleans()) else ()
    return Question(
        kind="choice", choices=choices, answer=draw(st.sampled_from(choices)), evidence=evidence, **common
    )


@given(question=questions(), family=st.sampled_from(sorted(FAMILIES)))
def test_a_question_about_the_word_audio_in_brackets_opens_no_second_place(question, family):
    swift = to_ms_swift(question, "/c1.wav", family)["messages"]
    verl = to_verl(question, "/c1.wav", family, 0)["prompt"]
    for messages in (swift, verl):
        users = [message["content"] for message in messages if message["role"] == "user"]
        assert len(users) == 1
        assert users[0].startswith(PLACE)
        everything = "\n".join(message["content"] for message in messages)
        assert re.findall("<(?:audio|image|video|img|bbox|start-image)>", everything) == [PLACE]
    for row in (to_trl(question, "/c1.wav", family), to_nemo_rl(question, "/c1.wav", family)):
        parts = [
            part
            for message in row.get("prompt", row.get("messages"))
            if isinstance(message["content"], list)
            for part in message["content"]
        ]
        assert [part["audio"] for part in parts if part["type"] == "audio"] == ["/c1.wav"]
        special = FAMILIES[family][1]
        assert not any(special in part.get("text", "") for part in parts)


def test_the_words_around_a_mark_are_kept():
    question = Question(
        "q", "c", "a.wav", 9.0, "phrase", "?", phrase="say <audio> now", evidence=(Span(1, 2),)
    )
    swift = to_ms_swift(question, "/a.wav", "qwen_omni")["messages"]
    assert swift[1]["content"].endswith("segment? say < audio> now")
    assert swift[2]["content"].startswith("The segment say < audio> now starts")
    # parts have no marks: there the text is left alone
    assert "say <audio> now" in to_trl(question, "/a.wav", "qwen_omni")["prompt"][1]["content"][1]["text"]


# --- there and back


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("question", [PHRASE, CHOICE], ids=["phrase", "choice"])
def test_questions_come_back_equal(target, question, tmp_path):
    out = tmp_path / "deep" / "train"
    assert export([question, question], tmp_path / "questions.jsonl", target, out, "qwen_omni") == out
    assert list(import_back(out, target)) == [question, question]


@pytest.mark.parametrize("target", TARGETS)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=questions(), family=st.sampled_from(sorted(FAMILIES)))
def test_any_question_comes_back_equal(target, tmp_path, question, family):
    out = export([question], tmp_path / "questions.jsonl", target, tmp_path / "train", family)
    assert list(import_back(out, target)) == [question]


def test_a_file_of_questions_goes_there_and_back(tmp_path):
    write_jsonl(tmp_path / "questions.jsonl", [CHOICE])
    out = export(
        read_questions(tmp_path / "questions.jsonl"),
        tmp_path / "questions.jsonl",
        "trl",
        tmp_path / "out.jsonl",
        "qwen_omni",
    )
    write_jsonl(tmp_path / "back.jsonl", import_back(out, "trl"))
    assert (tmp_path / "back.jsonl").read_bytes() == (tmp_path / "questions.jsonl").read_bytes()


@pytest.mark.parametrize("target", TARGETS)
def test_the_words_of_a_clip_go_along_and_are_no_part_of_the_question(target, tmp_path):
    words = {CHOICE.clip_id: (Word("ten", 0.25, 0.5, "A", "whisper", 0.5), Word("past", 0.5, 0.75))}
    silent = replace(CHOICE, id="q2", clip_id="silent")
    out = export([CHOICE, silent], tmp_path / "q.jsonl", target, tmp_path / "out", "qwen_omni", words)
    assert list(import_back(out, target)) == [CHOICE, silent]
    row = {"trl": to_trl, "ms-swift": to_ms_swift, "nemo-rl": to_nemo_rl}.get(target)
    said = (Word("ten", 0.25, 0.5), Word("past", 0.5, 0.75))
    kept_row = (
        row(CHOICE, "", "qwen_omni", said) if row else to_verl(CHOICE, "", "qwen_omni", 0, said)["extra_info"]
    )
    assert kept_in(kept_row[KEPT]) == (CHOICE, said)
    assert kept_in(kept(CHOICE, ())) == (CHOICE, ())
    assert kept_in(kept(CHOICE)) == (CHOICE, None)


def test_how_many_questions_are_for_testing_is_said(tmp_path, capsys):
    held_out = [replace(CHOICE, id=split, split=split) for split in ("dev", "test")]
    write_jsonl(tmp_path / "q.jsonl", [replace(CHOICE, split="train"), *held_out])
    command = ["export", str(tmp_path / "q.jsonl"), "--to", "ms-swift", "--out", str(tmp_path / "out.jsonl")]
    assert cli.main(command) == 0
    assert (
        "3 questions; 2 are for testing, by their split: keep them out of training" in capsys.readouterr().out
    )


def test_audio_is_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    from_here = (tmp_path / "data" / "questions.jsonl").relative_to(tmp_path)
    export([CHOICE], from_here, "ms-swift", tmp_path / "out.jsonl", "qwen_omni")
    assert rows_in(tmp_path / "out.jsonl")[0]["audios"] == [str(tmp_path / "data" / "clips" / "c1.wav")]


@pytest.mark.parametrize("target", TARGETS)
def test_a_column_keeps_its_type_whatever_the_questions_lack(target):
    bare = Question("q", "c", "a.wav", 9.0, "choice", "?", answer="x", choices=("x", "y"))
    rows = [row_of(CHOICE, target), row_of(bare, target)]
    assert rows[0].keys() == rows[1].keys()
    assert all(isinstance(row[KEPT], str) for row in rows)


@pytest.mark.parametrize("target", TARGETS)
def test_rows_are_on_disk_before_the_last_question_is_asked_for(target, tmp_path):
    sizes = []

    def many():
        for n in range(2500):
            if n == 2400:
                sizes.extend(file.stat().st_size for file in tmp_path.glob(".half-*"))
            yield CHOICE

    out = export(many(), tmp_path / "q.jsonl", target, tmp_path / "out", "qwen_omni")
    assert len(sizes) == 1
    assert sizes[0] > 0
    assert sum(question == CHOICE for question in import_back(out, target)) == 2500


# --- what is refused


@pytest.mark.parametrize("target", TARGETS)
def test_where_a_question_fails_the_old_file_stays_and_nothing_else_is_left(target, tmp_path):
    out = tmp_path / "train.jsonl"
    out.write_text("old")
    without = Question("q9", "c", "a.wav", 9.0, "phrase", "?", phrase="hello")
    with pytest.raises(RecordError, match=r"questions\.jsonl: question 'q9': .*no span"):
        export([PHRASE, without], tmp_path / "questions.jsonl", target, out, "qwen_omni")
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_phrase_without_a_span_has_no_target():
    question = Question("p2", "c", "a.wav", 9.0, "phrase", "?", phrase="hello")
    for target in ("ms-swift", "trl", "verl", "nemo-rl"):
        with pytest.raises(RecordError, match="no span"):
            row_of(question, target)


def test_lessons_and_rollouts_do_not_share_a_file(tmp_path):
    with pytest.raises(
        RecordError, match=r"'q1' is a choice, those before it are not.*export the kinds apart"
    ):
        export([PHRASE, CHOICE], tmp_path / "q.jsonl", "trl", tmp_path / "out", "qwen_omni")


def test_an_empty_file_is_not_written(tmp_path):
    with pytest.raises(RecordError, match="no question"):
        export([], tmp_path / "q.jsonl", "trl", tmp_path / "out", "qwen_omni")
    assert not (tmp_path / "out").exists()


def test_an_unknown_target_or_family_is_named_with_those_that_there_are(tmp_path):
    with pytest.raises(ValueError, match="target must be one of ms-swift, trl, verl, nemo-rl, got 'swift'"):
        export([CHOICE], tmp_path / "q.jsonl", "swift", tmp_path / "out", "qwen_omni")
    with pytest.raises(ValueError, match="target must be one of"):
        import_back(tmp_path / "out", "swift")
    with pytest.raises(
        OptionError, match=r"--family granite_speech: ms-swift and LLaMA-Factory have no such"
    ):
        export([CHOICE], tmp_path / "q.jsonl", "ms-swift", tmp_path / "x", "granite_speech")
    with pytest.raises(ValueError, match=r"family must be one of qwen_omni, .*granite_speech, got 'qwen'"):
        export([CHOICE], tmp_path / "q.jsonl", "trl", tmp_path / "out", "qwen")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, r'out:2: field "tgsr": is missing; only files that `tgsr export` wrote'),
        ([1], r'out:2: field "tgsr": is missing'),
        ({"tgsr": "{"}, r'out:2: field "tgsr": is no question'),
        ({"tgsr": "[]"}, r'out:2: field "tgsr": is no question'),
        ({"tgsr": '{"id": "q"}'}, r'out:2: field "tgsr": is no question: .*clip_id'),
        ({"tgsr": '{"id": "q", "colour": 1}'}, r'out:2: field "tgsr": is no question: .*colour'),
        (
            {"tgsr": json.dumps({**json.loads(to_trl(CHOICE, "", "qwen_omni")["tgsr"]), "answer": "me"})},
            r'out:2: field "answer": .* not one of the choices',
        ),
    ],
)
def test_a_row_that_is_no_question_is_named_by_file_and_line(row, message, tmp_path):
    export([CHOICE], tmp_path / "q.jsonl", "trl", tmp_path / "out", "qwen_omni")
    with (tmp_path / "out").open("a") as file:
        file.write(json.dumps(row) + "\n")
    back = import_back(tmp_path / "out", "trl")
    assert next(back) == CHOICE
    with pytest.raises(RecordError, match=message):
        next(back)


def test_a_cut_line_is_named(tmp_path):
    append_jsonl(tmp_path / "out", to_trl(CHOICE, "", "qwen_omni"))
    with (tmp_path / "out").open("a") as file:
        file.write('{"tgsr": "')
    with pytest.raises(RecordError, match="out:2: is not JSON"):
        list(import_back(tmp_path / "out", "trl"))


@needs_pyarrow
def test_parquet_of_another_program_is_refused_and_so_is_half_a_character(tmp_path):
    import pyarrow
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.table({"prompt": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(RecordError, match=r'other\.parquet:1: field "tgsr": is missing'):
        list(import_back(tmp_path / "other.parquet", "verl"))
    half = Question("q", "c", "a.wav", 9.0, "choice", "\ud800?", answer="x", choices=("x", "y"))
    with pytest.raises(RecordError, match="question 'q': 'utf-8' codec can't encode"):
        export([half], tmp_path / "q.jsonl", "verl", tmp_path / "out", "qwen_omni")
    out = export([half], tmp_path / "q.jsonl", "trl", tmp_path / "out", "qwen_omni")
    assert list(import_back(out, "trl")) == [half]


def test_without_pyarrow_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="the extra 'parquet' of tgsr"):
        export([CHOICE], tmp_path / "q.jsonl", "verl", tmp_path / "out.parquet", "qwen_omni")
    with pytest.raises(ImportError, match="the extra 'parquet' of tgsr"):
        next(import_back(tmp_path / "out.parquet", "verl"))
    assert not list(tmp_path.iterdir())

"""Whose tokens are whose, which frames are inside, the means over responses, and the command with its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tgsr import cli
from tgsr.answering.predict import Unheard, as_asked
from tgsr.audio import SAMPLE_RATE, save_wav
from tgsr.engine.features import FeatureCache
from tgsr.errors import OptionError, RecordError
from tgsr.evaluation.attention.kept import look_to_file, looked_row, read_looked, read_tokens, tokens_file
from tgsr.evaluation.attention.look import (
    PAPER_QUERIES,
    Looked,
    Pointed,
    as_written,
    cited_in,
    frames_inside,
    look,
    paper_questions,
)
from tgsr.evaluation.attention.scores import (
    layer_to_show,
    relative_change,
    summarise,
    summarise_all,
    write_summary,
)
from tgsr.evaluation.attention.table import table
from tgsr.evaluation.attention.tokens import (
    PHASES,
    WrittenTokens,
    ends_of,
    mentions_of,
    phases_of,
    written_tokens,
)
from tgsr.grounding import find_mentions
from tgsr.llm.decoding import Cut
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.lalm import Lalm
from tgsr.prompts import asked_with, prompt_text
from tgsr.records import Question, Response, append_jsonl, write_jsonl
from tgsr.report.attention_figures import draw, draw_all
from tgsr.statistics.intervals import Mean
from tgsr.statistics.pictures import told_apart
from tgsr.timeline import Span
from tiny import saved, tiny_lalm, tiny_whisper

TEXT = "let's analyze\nFrom 0.20s to 0.40s, seven two.\nFinal answer: (b) two"


@pytest.fixture(scope="module")
def lalm() -> AudioFlamingo3:
    return tiny_lalm()


# --- tokens ------------------------------------------------------------------------------------------------


def written(lalm: AudioFlamingo3, text: str, phase: str) -> str:
    """The text of a phase's tokens."""
    ids = [*lalm.tokens(text), lalm.eos_id]
    of = written_tokens(lalm, ids)
    chosen = phases_of(of, mentions_of(of, find_mentions(text)))[phase]
    return lalm.text([token for token, is_of_it in zip(ids, chosen, strict=True) if is_of_it])


def test_each_phase_holds_its_own_tokens(lalm: AudioFlamingo3) -> None:
    assert written(lalm, TEXT, "all") == TEXT
    assert written(lalm, TEXT, "answer") == "Final answer: (b) two"
    assert written(lalm, TEXT, "reasoning") == "let's analyze\nFrom 0.20s to 0.40s, seven two.\n"
    assert written(lalm, TEXT, "times").strip() == "0.20s to 0.40s"
    ids = [*lalm.tokens(TEXT), lalm.eos_id]
    of = written_tokens(lalm, ids)
    ends = {phase: chosen[-1] for phase, chosen in phases_of(of, mentions_of(of, [])).items()}
    assert ends == {"all": True, "reasoning": False, "answer": False, "times": False}


@pytest.mark.parametrize("text", ["one line only", "one line, then blanks \n\n", "(b) two\n"])
def test_a_response_of_one_line_is_all_answer(lalm: AudioFlamingo3, text: str) -> None:
    ids = [*lalm.tokens(text), lalm.eos_id]
    of = written_tokens(lalm, ids)
    phases = phases_of(of, mentions_of(of, find_mentions(text)))
    assert not any(phases["reasoning"])
    assert all(phases["answer"][: len(lalm.tokens(text.rstrip()))])
    assert not any(phases["times"])


def test_a_character_of_several_tokens_belongs_to_the_last(lalm: AudioFlamingo3) -> None:
    """Half a character is decoded as a replacement sign, which the whole text does not hold."""
    text = "é 0.20s to 0.40s"
    ids = lalm.tokens(text)
    of = written_tokens(lalm, ids)
    assert of.text == text
    assert "".join(of.pieces) == text
    assert "\ufffd" not in "".join(of.pieces)


def test_a_time_is_written_by_the_tokens_of_its_number(lalm: AudioFlamingo3) -> None:
    of = written_tokens(lalm, lalm.tokens("From 0.20s to 0:12.40, seven 2."))
    for end, text in (("start", "0.20"), ("end", "0:12.40")):
        chosen = [
            piece
            for piece, one in zip(
                of.pieces, ends_of(of, mentions_of(of, find_mentions(of.text))), strict=True
            )
            if one == end
        ]
        assert "".join(chosen).strip() == text


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("In the first 3 seconds, seven.", "", "3"),
        ("It starts at 3 s and lasts for 2 s.", "3", ""),  # 2 is a length, the end is 5
        ("From 1 min 20 s to 1 min 30 s, seven.", "1 min 20", "1 min 30"),
        ('{"end": 2.5, "start": 1.0}', "1.0", "2.5"),
        ("１.２秒到３.４秒", "１.２", "３.４"),  # full-width digits
        ("from three seconds to five seconds", "three", "five"),
        ("von 3,5 s bis 4,5 s", "3,5", "4,5"),
        ("<|0.20|> two <|0.40|>", "0.20", ""),  # the mention's characters are the first time's
    ],
)
def test_each_end_is_the_time_that_has_its_value(text: str, start: str, end: str) -> None:
    """Character by character: nothing hangs on how a tokenizer cuts."""
    of = WrittenTokens(text, tuple(range(len(text))), tuple(range(1, len(text) + 1)))
    ends = ends_of(of, mentions_of(of, find_mentions(text)))
    found = [
        "".join(c for c, one in zip(text, ends, strict=True) if one == which) for which in ("start", "end")
    ]
    assert found == [start, end]


# --- frames ------------------------------------------------------------------------------------------------

EDGES = 0.04 * torch.arange(5, dtype=torch.float64)


def test_a_frame_at_an_edge_counts_for_what_is_inside_of_it() -> None:
    covered = frames_inside([Span(0.02, 0.10)], EDGES)
    assert torch.allclose(covered, torch.tensor([0.5, 1.0, 0.5, 0.0]))
    twice = frames_inside([Span(0.02, 0.10), Span(0.04, 0.10)], EDGES)
    assert torch.equal(twice, covered)  # what two spans share counts once
    assert frames_inside([Span(0.1, 99.0)], EDGES).tolist() == pytest.approx([0, 0, 0.5, 1])
    assert frames_inside([Span(5.0, 6.0)], EDGES).sum() == 0
    assert frames_inside([], EDGES).sum() == 0


# --- responses ---------------------------------------------------------------------------------------------


def questions_of(tmp_path: Path) -> list[Question]:
    rng = np.random.default_rng(0)
    for index in range(2):
        save_wav(tmp_path / f"{index}.wav", (0.1 * rng.standard_normal(SAMPLE_RATE)).astype(np.float32))
    asked = [("q0", "0"), ("q1", "0"), ("q2", "1"), ("q3", "missing")]
    return [
        Question(
            name,
            clip,
            f"{clip}.wav",
            1.0,
            "choice",
            "Which?",
            "one",
            ("one", "two"),
            evidence=(Span(0.5, 0.75),),
        )
        for name, clip in asked
    ]


def looked_at(lalm: AudioFlamingo3, tmp_path: Path, responses: dict[str, str], **more: Any) -> list[Looked]:
    questions, cache = questions_of(tmp_path), FeatureCache(tmp_path / "cache")
    found = look(lalm, questions, tmp_path / "q.jsonl", cache, responses=responses, **more)
    return [item for item in found if isinstance(item, Looked)]


def test_shares_of_given_responses_are_means_over_each_phases_tokens(
    lalm: AudioFlamingo3, tmp_path: Path
) -> None:
    """Phases partition a response's text: their shares, weighted by tokens, are the whole's (less the end token)."""
    questions, cache = questions_of(tmp_path), FeatureCache(tmp_path / "cache")
    responses = {"q0": TEXT, "q1": "", "q2": "(b) two", "q3": TEXT}
    found = list(look(lalm, questions, tmp_path / "q.jsonl", cache, responses=responses))
    unheard = {item.question.id: item.reason for item in found if isinstance(item, Unheard)}
    assert set(unheard) == {"q1", "q3"}
    assert "no response" in unheard["q1"]
    assert "missing.wav" in unheard["q3"]
    whole, only_answer = (item for item in found if isinstance(item, Looked))
    n = whole.n_tokens
    assert n["reasoning"] + n["answer"] + 1 == n["all"] == whole.n_of_block["output"]
    assert n["prefill"] == whole.n_of_block["question"]
    parts = [np.array(whole.share[phase]) * n[phase] for phase in ("reasoning", "answer")]
    rest = np.array(whole.share["all"]) * n["all"] - sum(parts)
    assert np.allclose(rest.sum(-1), 1, atol=1e-4)  # one token is left: its shares sum to 1
    assert np.allclose(np.array(whole.share["prefill"])[:, 3], 0)  # nothing is written yet
    assert only_answer.share["reasoning"] is only_answer.share["times"] is None
    assert only_answer.cited["all"] is None


def test_questions_of_one_clip_do_not_see_each_other(lalm: AudioFlamingo3, tmp_path: Path) -> None:
    both = looked_at(lalm, tmp_path, {"q0": TEXT, "q1": "From 0.60s to 0.90s, one.\n(a) one"})
    (alone,) = looked_at(lalm, tmp_path, {"q0": TEXT})
    assert np.allclose(both[0].share["all"], alone.share["all"], atol=1e-6)
    assert both[0].cited["times"].inside == pytest.approx(alone.cited["times"].inside, abs=1e-6)  # type: ignore[union-attr]


def times_in(lalm: AudioFlamingo3, item: Looked) -> str:
    ids = lalm.response_tokens(item.response)
    of = written_tokens(lalm, ids)
    chosen = phases_of(of, mentions_of(of, cited_in(item.question, of.text)))["times"]
    return "".join(piece for piece, one in zip(of.pieces, chosen, strict=True) if one)


def test_an_interval_in_the_answers_line_is_no_citation(lalm: AudioFlamingo3, tmp_path: Path) -> None:
    """As `tgsr score` and `tgsr control` read it: the reasoning's alone, unless nothing else is said."""
    cites = "From 0.20s to 0.40s, one.\nFinal answer: from 0.50s to 0.90s"
    answers = "Final answer: from 0.50s to 0.90s"
    both, alone = looked_at(equal_scores(), tmp_path, {"q0": cites, "q2": answers})
    assert times_in(lalm, both).strip() == "0.20s to 0.40s"
    assert both.cited["all"].covered == pytest.approx(0.2, abs=1e-5)  # type: ignore[union-attr]
    assert both.cited["answer"].covered == pytest.approx(0.2, abs=1e-5)  # type: ignore[union-attr]
    assert times_in(lalm, alone).strip() == "0.50s to 0.90s"
    assert alone.cited["times"].covered == pytest.approx(0.4, abs=1e-5)  # type: ignore[union-attr]


def test_the_answer_to_a_phrase_is_read_as_one_interval(tmp_path: Path) -> None:
    """Numbers without a sign of seconds, and times that the phrase itself holds."""
    phrase = Question(
        "p", "0", "0.wav", 1.0, "phrase", "When?", phrase="from 2 to 3 s", evidence=(Span(0.5, 0.75),)
    )
    assert [(m.start, m.end) for m in cited_in(phrase, '"from 2 to 3 s": 0.20 to 0.40')] == [(0.2, 0.4)]
    query = paper_questions([phrase])[0]
    text = "Someone speaks from 0.1 s to 0.3 s, from 0.1 s to 0.3 s again."
    assert cited_in(query, text) == find_mentions(text)


def test_a_response_that_was_cut_off_has_no_end_token_and_is_counted(
    lalm: AudioFlamingo3, tmp_path: Path
) -> None:
    cut, whole = looked_at(lalm, tmp_path, {"q0": Cut(TEXT), "q2": TEXT})
    assert (cut.is_cut, whole.is_cut) == (True, False)
    assert (
        cut.n_tokens["all"] == whole.n_tokens["all"] - 1 == cut.n_tokens["reasoning"] + cut.n_tokens["answer"]
    )
    append_jsonl(tmp_path / "attention.jsonl", looked_row(cut))
    again = read_looked(tmp_path / "attention.jsonl", questions_of(tmp_path))["tiny"]["q0"]
    assert again.is_cut
    summary = summarise([again, whole], n_without=1)
    assert summary.n_cut == 1
    said = table({"tiny": summary})
    assert "tiny: 1 of 2 responses were cut off" in said
    assert "tiny: 1 questions have no response to look at" in said


def test_nothing_on_audio_is_no_share_of_it(lalm: AudioFlamingo3, tmp_path: Path) -> None:
    """Windows of two positions in every layer: the answer sees no frame, so that no part of it is inside."""
    near = tiny_lalm(window=2)
    near.inner.config.text_config.layer_types[:] = ["sliding_attention"] * 2
    for layer in near.language_model.layers:
        layer.attention_type, layer.self_attn.sliding_window = "sliding_attention", 2
    (item,) = looked_at(near, tmp_path, {"q0": TEXT})
    assert np.array(item.share["all"])[:, 1].max() == 0
    assert item.cited["times"] is item.reference["all"] is None
    summary = summarise([item], 0)
    assert set(summary.evidence) == {"prefill"}  # the question's first tokens see the last frames


def equal_scores() -> AudioFlamingo3:
    """A decoder without queries and keys: each position that is seen gets the same attention."""
    lalm = tiny_lalm()
    with torch.no_grad():
        for layer in lalm.language_model.layers:
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                part.weight.zero_()
                part.bias.zero_()
    return lalm


def test_even_attention_has_no_preference(tmp_path: Path) -> None:
    """Worked by hand: 25 frames, evidence over a quarter of them, the cited interval over a fifth."""
    (item,) = looked_at(equal_scores(), tmp_path, {"q0": TEXT})
    for phase in PHASES:
        reference, cited = item.reference[phase], item.cited[phase]
        assert reference is not None
        assert cited is not None
        assert (reference.covered, cited.covered) == pytest.approx((0.25, 0.2), abs=1e-5)
        assert (reference.ratio, cited.ratio) == pytest.approx((1, 1), abs=1e-5)
    assert item.ends["start"].covered == pytest.approx(0.5, abs=1e-5)  # type: ignore[union-attr]  # 0 to 0.5 s
    assert item.ends["end"].covered == pytest.approx(0.6, abs=1e-5)  # type: ignore[union-attr]  # 0.1 to 0.7 s
    assert item.ends["end"].ratio == pytest.approx(1, abs=1e-5)  # type: ignore[union-attr]


def test_each_token_of_times_is_held_against_the_interval_that_it_writes(tmp_path: Path) -> None:
    """Intervals of 0.2 and 0.4 s: of reasoning, their union; while times are written, each token's own."""
    text = "From 0.20s to 0.40s, one. From 0.60s to 1.00s, two.\n(a) one"
    lalm = equal_scores()
    (item,) = looked_at(lalm, tmp_path, {"q0": text})
    assert item.cited["reasoning"].covered == pytest.approx(0.6, abs=1e-5)  # type: ignore[union-attr]
    of = written_tokens(lalm, lalm.tokens(text))
    n = [
        sum(m is not None and m.start == start for m in mentions_of(of, find_mentions(text)))
        for start in (0.2, 0.6)
    ]
    assert min(n) > 3
    times = item.cited["times"]
    assert times is not None
    # Later tokens see more positions, so that they give the audio less and weigh less.
    assert times.covered == pytest.approx((0.2 * n[0] + 0.4 * n[1]) / sum(n), abs=0.01)
    assert times.ratio == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "From 0.40s to 0.20s, one.\n(a) one",  # ends before it starts
        "From 7.00s to 8.00s, one.\n(a) one",  # past the clip's end
        "From 0.00s to 1.00s, one.\n(a) one",  # all of it: nothing is outside
    ],
)
def test_intervals_that_compare_nothing_are_left_out(lalm: AudioFlamingo3, tmp_path: Path, text: str) -> None:
    (item,) = looked_at(lalm, tmp_path, {"q0": text})
    assert item.n_tokens["times"] > 0
    assert all(of is None for of in item.cited.values())
    assert item.ends["start"] is None or "1.00" in text
    assert all(of is not None for phase, of in item.reference.items())
    summary = summarise([item], 0)
    assert summary.evidence == {}
    assert summary.reference["times"].ratio.n == 1


def test_a_planted_stretch_is_found(tmp_path: Path) -> None:
    """All attention to audio on frames 5 to 9: inside the cited 0.2 to 0.4 s, outside the evidence."""
    lalm = equal_scores()
    real = lalm.align

    def marked(features_FE: torch.Tensor) -> torch.Tensor:
        frames = real(features_FE) * 0
        frames[5:10, 0] = 30.0
        return frames

    lalm.align = marked  # type: ignore[method-assign]
    with torch.no_grad():
        attends = lalm.language_model.layers[0].self_attn
        attends.q_proj.bias.fill_(4.0)
        attends.k_proj.weight[:, 0] = 4.0
    (item,) = looked_at(lalm, tmp_path, {"q0": TEXT})
    assert item.cited["times"].inside[0] == pytest.approx(item.cited["times"].audio[0], abs=1e-4)  # type: ignore[union-attr]
    assert item.reference["times"].inside[0] < 1e-4  # type: ignore[union-attr]


# --- summaries ---------------------------------------------------------------------------------------------


def test_a_summary_counts_what_each_mean_is_over(lalm: AudioFlamingo3, tmp_path: Path) -> None:
    found = looked_at(lalm, tmp_path, {"q0": TEXT, "q2": "(b) two"})
    summary = summarise(found, n_without=1)
    assert (summary.n, summary.n_without) == (2, 1)
    assert summary.by_phase["reasoning"]["audio"].n == 1
    assert summary.by_phase["reasoning"]["audio"].n_unscored == 1
    both = [np.array(item.share["all"])[:, 1].mean() for item in found]
    assert summary.by_phase["all"]["audio"].value == pytest.approx(np.mean(both))
    of_layers = [summary.by_layer["all"][block] for block in summary.by_layer["all"]]
    assert np.allclose(np.sum(of_layers, axis=0), 1, atol=1e-5)
    each = [np.array(item.share["all"])[:, 1] / item.n_of_block["audio"] for item in found]
    assert summary.by_layer_per_token["all"]["audio"] == pytest.approx(np.mean(each, 0))
    cited = summary.evidence["times"]
    assert cited.ratio.n == 1
    assert cited.ratio.n_unscored == 1
    assert cited.inside.value + cited.outside.value == pytest.approx(1)  # type: ignore[operator]


def with_audio_share(question: Question, share: float) -> Looked:
    shares = {phase: [[1 - share, share, 0.0, 0.0]] * 2 for phase in PHASES}
    return Looked(question, "m", TEXT, dict.fromkeys(PHASES, 1), {"audio": 25}, shares)


def test_a_change_is_that_of_the_questions_that_both_answered(tmp_path: Path) -> None:
    """Worked by hand: (0.3 + 0.6) / (0.2 + 0.4) - 1 = +50 %; the third question has no counterpart."""
    questions = questions_of(tmp_path)
    base = [with_audio_share(questions[0], 0.2), with_audio_share(questions[2], 0.4)]
    other = [with_audio_share(q, s) for q, s in zip(questions[:3], (0.3, 0.9, 0.6), strict=True)]
    change = relative_change(base, other, "all")
    assert change.value == pytest.approx(0.5)
    assert (change.low, change.high) == pytest.approx((0.5, 0.5))  # both clips change alike
    assert (change.n, change.n_unscored) == (2, 1)
    assert relative_change(base, [], "all").value is None


def test_the_table_has_the_papers_rows(tmp_path: Path) -> None:
    questions = questions_of(tmp_path)
    of = {
        name: [with_audio_share(q, s) for q in questions[:3]]
        for name, s in (("vanilla", 0.0748), ("ours", 0.1030))
    }
    for items in of.values():
        for item in items:
            item.n_of_block.update(system=5, question=5, output=5)
    models = summarise_all(of, {"vanilla": 0, "ours": 0})
    rows = {line.split()[0]: line for line in table(models).splitlines()}
    assert "0.0748" in rows["All"]
    assert "0.1030" in rows["All"]
    assert "+37.7%" in rows["All"]  # table 4: 0.0748 to 0.1030
    assert {"All", "Reasoning", "Answer", "Times", "Question"} <= set(rows)


def test_the_layer_to_show_is_one_for_all_models_or_the_given_one(
    lalm: AudioFlamingo3, tmp_path: Path
) -> None:
    summary = summarise(looked_at(lalm, tmp_path, {"q0": TEXT}), 0)
    most = int(np.argmax(summary.by_layer["all"]["audio"]))
    assert layer_to_show({"a": summary, "b": summary}) == {"a": most, "b": most}
    assert layer_to_show({"a": summary}, 1) == {"a": 1}
    with pytest.raises(OptionError, match="--layer 2: a has layers 0 to 1"):
        layer_to_show({"a": summary}, 2)


def test_shares_of_nothing_divide_by_nothing() -> None:
    of = Pointed([0.1, 0.3], [0.5, 0.5], [0.1, 0.1])
    assert (of.share, of.covered, of.ratio) == pytest.approx((0.4, 0.2, 2.0))


# --- files and the command ---------------------------------------------------------------------------------


def test_a_run_that_was_cut_off_goes_on_and_ends_with_the_same(lalm: AudioFlamingo3, tmp_path: Path) -> None:
    questions, cache = questions_of(tmp_path)[:3], FeatureCache(tmp_path / "cache")
    responses = {question.id: TEXT for question in questions}

    def run(out: Path) -> list[Looked]:
        out.mkdir(exist_ok=True)
        return look_to_file(
            lalm,
            questions,
            tmp_path / "q.jsonl",
            out,
            cache,
            responses=responses,
            with_tokens={"q0", "q2"},
        )[0]

    whole = run(tmp_path / "whole")
    content = (tmp_path / "whole" / "attention.jsonl").read_text()
    (tmp_path / "cut").mkdir()
    lines = content.splitlines()
    (tmp_path / "cut" / "attention.jsonl").write_text(lines[0] + "\n" + lines[1][:80])
    assert run(tmp_path / "cut") == whole
    assert (tmp_path / "cut" / "attention.jsonl").read_text() == content
    assert run(tmp_path / "cut") == whole  # nothing is left to be done
    tokens = read_tokens(tokens_file(tmp_path / "cut", lalm.name, questions[2]))
    assert "".join(tokens.texts) == TEXT
    assert tokens.share_LTK.shape == (2, len(tokens.texts), 4)
    assert np.allclose(tokens.column_LTC.sum(-1), tokens.share_LTK[..., 1], atol=1e-5)
    assert tokens.seconds == pytest.approx(0.04)
    spans = {(s, e) for (s, e), is_time in zip(tokens.span_T2, tokens.is_time, strict=True) if is_time}
    assert spans == {(0.2, 0.4)}
    (tmp_path / "cut" / "attention.jsonl").write_text('{"id": "q0", "model": "m"}\n')
    with pytest.raises(RecordError, match=r"attention.jsonl:1: is not a line of tgsr attend"):
        read_looked(tmp_path / "cut" / "attention.jsonl", questions)


def test_a_model_that_hears_by_cross_attention_has_no_audio_share_and_is_never_said_to_have_none(
    lalm: AudioFlamingo3, tmp_path: Path
) -> None:
    """Beside one that has it: in the file, the table, the paper's table, and the pictures."""
    questions, cache = questions_of(tmp_path)[:3], FeatureCache(tmp_path / "cache")
    models: dict[str, Lalm] = {"tiny": lalm, "whisper": tiny_whisper()}
    models["whisper"].name = "whisper"
    looked = {}
    for name, model in models.items():
        more = {"responses": dict.fromkeys(("q0", "q1", "q2"), TEXT), "with_tokens": {"q0"}}
        looked[name], _ = look_to_file(model, questions, tmp_path / "q.jsonl", tmp_path, cache, **more)
    item = looked["whisper"][0]
    assert "NaN" not in (tmp_path / "attention.jsonl").read_text()
    assert np.isnan(np.array(item.share["all"])[:, 1]).all()
    assert np.allclose(np.nansum(item.share["all"], 1), 1, atol=1e-4)
    assert item.n_of_block["audio"] == 50  # frames of 0.02 s
    times = item.cited["times"]
    assert times is not None
    assert times.audio == [1.0, 1.0]  # of cross-attention
    assert times.covered == pytest.approx(0.2, abs=1e-5)
    found = summarise_all(looked, {"tiny": 0, "whisper": 0})
    assert [found[name].cross_attends for name in models] == [False, True]
    summary = found["whisper"]
    assert summary.by_phase["all"]["audio"] == Mean(None, None, None, 0, 3)
    assert (
        set(summary.by_layer["all"])
        == set(summary.by_layer_per_token["all"])
        == {"system", "question", "output"}
    )
    assert summary.audio_per_token.value is None  # type: ignore[union-attr]
    assert summary.change is not None
    assert summary.change["all"].value is None
    assert summary.evidence["times"].ratio.n == 3
    write_summary(tmp_path / "attention.json", found)
    assert "NaN" not in (tmp_path / "attention.json").read_text()
    said = table(found)
    assert next(line.split()[-1] for line in said.splitlines() if line.startswith("All")) == "-"
    assert "whisper: hears by cross-attention" in said
    assert "tiny: hears" not in said
    assert layer_to_show(found)["whisper"] == int(np.argmax(summary.evidence["all"].ratio_by_layer))
    pictures = draw_all(tmp_path, tmp_path / "q.jsonl", found, looked, layer_to_show(found), questions[:1], 0)
    assert [path.name for path in pictures] == ["attention.png", "heat-1.png", "tokens-1.png"]
    draw(tmp_path / "alone.png", {"whisper": summary})


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("<|0.20|><|0.40|>", (0.2, 0.4)),
        (" <|0.20|><|0.40|> ", (0.2, 0.4)),
        ("<|0.20|> two <|0.40|>", (0.2, 0.4)),
    ],
)
def test_two_time_tokens_are_the_interval_that_they_write(text: str, times: tuple[float, float]) -> None:
    lalm = tiny_whisper()
    lalm.times = "tokens"
    of = written_tokens(lalm, lalm.response_tokens(text))
    mentions = [m for m in mentions_of(of, find_mentions(of.text)) if m]
    assert (mentions[0].start, mentions[0].end) == times
    assert (
        find_mentions("<|0.00|> one <|0.40|><|0.90|> two <|1.20|>")[1].start == 0.9
    )  # what is between two is none


def test_the_papers_queries_are_asked_once_a_clip_in_their_own_words(
    lalm: AudioFlamingo3, tmp_path: Path
) -> None:
    asked = paper_questions(questions_of(tmp_path)[:3])
    assert [q.question for q in asked] == [*PAPER_QUERIES] * 2
    assert len({q.id for q in asked}) == 6
    assert as_written(lalm, asked[0]) == "What is happening?"
    found = list(
        look(
            lalm,
            asked,
            tmp_path / "q.jsonl",
            FeatureCache(tmp_path / "cache"),
            responses={q.id: "a b" for q in asked},
            prompting=as_written,
        )
    )
    assert len(found) == 6
    for item, question in zip(found, asked, strict=True):
        assert isinstance(item, Looked)
        assert item.n_of_block["question"] == len(lalm.prompt(question.question).after)
    looked = {"tiny": [item for item in found if isinstance(item, Looked)]}
    models = summarise_all(looked, {"tiny": 0})
    pictures = draw_all(tmp_path, tmp_path / "q.jsonl", models, looked, {"tiny": 0}, [], 0)
    assert [path.name for path in pictures] == ["attention.png", "queries.png"]


def test_the_command_writes_numbers_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two models of one kind in folders."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("tiny", "other")):
        saved(tiny_lalm(seed), Path(name))
    questions = questions_of(tmp_path)
    write_jsonl(tmp_path / "q.jsonl", questions)
    write_jsonl(
        tmp_path / "p.jsonl", [Response(q, name, TEXT) for name in ("tiny", "other") for q in questions[:3]]
    )

    files = ["--questions", str(tmp_path / "q.jsonl"), "--predictions", str(tmp_path / "p.jsonl")]
    out = tmp_path / "out"
    places = ["--out", str(out), "--cache", str(tmp_path / "cache")]
    shown = ["--heat", "0", "--item", "q2"]
    command = ["attend", *files, "--model", "tiny", "--model", "other", *places, *shown]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "Inside the cited interval" in said
    found = json.loads((out / "attention.json").read_text())
    assert list(found) == ["tiny", "other"]
    assert set(found["other"]["by_phase"]) == set(PHASES)
    assert found["tiny"]["change"] is None
    assert found["other"]["change"]["all"]["n"] == 3
    assert {"inside", "outside", "ratio"} <= set(found["tiny"]["evidence"]["times"])
    assert found["tiny"]["n_without"] == 1
    for name in ("attention.png", "heat-1.png", "tokens-1.png"):
        assert (out / name).stat().st_size > 10_000
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert {(row["id"], row["model"]) for row in errors} == {("q3", "tiny"), ("q3", "other")}
    write_jsonl(tmp_path / "three.jsonl", questions[:3])
    all_heard = ["--questions", str(tmp_path / "three.jsonl"), *files[2:], "--model", "tiny", "--heat", "0"]
    assert cli.main(["attend", *all_heard, "--out", "whole", "--cache", str(tmp_path / "cache")]) == 0
    assert not Path("whole/errors.jsonl").exists()
    capsys.readouterr()
    assert cli.main([*command, "--layer", "7"]) == 2
    assert "--layer 7" in capsys.readouterr().err
    assert cli.main([*command, "--item", "nobody"]) == 2
    assert "no such question" in capsys.readouterr().err


def test_given_responses_are_looked_at_under_the_system_turn_that_they_were_asked_with() -> None:
    lalm = tiny_lalm()
    (question,) = [Question("q", "c", "c.wav", 9.0, "choice", "Which?", "a", ("a", "b"))]
    asked = [Response(question, "tiny", "(a)", system=system) for system in ("Be brief.", "Be brief.", "")]
    as_asked(lalm, asked[:2])
    assert "Be brief." in str(lalm.tokenizer.decode(list(lalm.prompt("").before)))
    as_asked(lalm, [Response(question, "tiny", "(a)")])  # nobody knows: as it is
    assert lalm.system == "Be brief."
    as_asked(lalm, asked[2:])
    assert lalm.system is None
    with pytest.raises(RecordError, match="2 system turns"):
        as_asked(lalm, asked)


def test_a_picture_of_one_model_without_times_can_be_drawn(lalm: AudioFlamingo3, tmp_path: Path) -> None:
    summary = summarise(looked_at(lalm, tmp_path, {"q2": "(b) two"}), 0)
    draw(tmp_path / "a.png", {"a name with $ in it": summary})
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["mini", "runs/sta-0/adapter", "/x/runs/sta-1/adapter/"], ["mini", "sta-0", "sta-1"]),
        (["a/best/adapter", "b/best/adapter"], ["a/best", "b/best"]),
        (["http://h:1/v1#one", "http://h:2/v1#one"], ["h:1/v1#one", "h:2/v1#one"]),
        (["mini", "mini"], ["mini", "mini"]),
        (["adapter"], ["adapter"]),
        ([], []),
    ],
)
def test_models_in_folders_are_called_by_what_tells_them_apart(names: list[str], short: list[str]) -> None:
    assert told_apart(names) == short


def test_given_responses_are_looked_at_under_the_prompt_that_they_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt's name travels with the responses alone: the questions' file does not know it."""
    monkeypatch.chdir(tmp_path)
    lalm = tiny_lalm()
    saved(lalm, Path("tiny"))
    (question, *_) = questions_of(tmp_path)
    (plain,) = asked_with([question], "plain")
    write_jsonl(tmp_path / "q.jsonl", [question])
    write_jsonl(tmp_path / "p.jsonl", [Response(plain, "tiny", TEXT, truncated=True)])
    files = ["--questions", "q.jsonl", "--predictions", "p.jsonl", "--cache", "cache", "--heat", "0"]
    assert cli.main(["attend", *files, "--model", "tiny", "--out", "out"]) == 0
    (row,) = [json.loads(line) for line in (tmp_path / "out" / "attention.jsonl").read_text().splitlines()]
    assert row["n_of_block"]["question"] == len(lalm.prompt(prompt_text(lalm, plain)).after)
    assert row["n_of_block"]["question"] != len(lalm.prompt(prompt_text(lalm, question)).after)
    assert row["truncated"] is True
    other = replace(question, choices=("one", "three"))
    write_jsonl(tmp_path / "p.jsonl", [Response(other, "tiny", TEXT)])
    assert cli.main(["attend", *files, "--model", "tiny", "--out", "again"]) == 2

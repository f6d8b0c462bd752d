"""Whose tokens are whose: a response's phases, and the means over responses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tgsr.attend import PHASES, Looked, draw, look, phases_of, summarise, table
from tgsr.audio import SAMPLE_RATE, save_wav
from tgsr.engine.features import FeatureCache
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.predict import Unheard
from tgsr.records import Question
from tiny import tiny_lalm

TEXT = "let's analyze\nFrom 1.20s to 3.40s, seven two.\nFinal answer: (b) two"


@pytest.fixture(scope="module")
def lalm() -> AudioFlamingo3:
    return tiny_lalm()


def written(lalm: AudioFlamingo3, text: str, phase: str) -> str:
    """The text of a phase's tokens."""
    ids = [*lalm.tokens(text), lalm.eos_id]
    chosen = phases_of(lalm, ids)[phase]
    return lalm.text([token for token, is_of_it in zip(ids, chosen, strict=True) if is_of_it])


def test_each_phase_holds_its_own_tokens(lalm: AudioFlamingo3) -> None:
    assert written(lalm, TEXT, "all") == TEXT
    assert written(lalm, TEXT, "answer") == "Final answer: (b) two"
    assert written(lalm, TEXT, "reasoning") == "let's analyze\nFrom 1.20s to 3.40s, seven two.\n"
    assert written(lalm, TEXT, "times").strip() == "1.20s to 3.40s"
    ids = [*lalm.tokens(TEXT), lalm.eos_id]
    assert [phases_of(lalm, ids)[phase][-1] for phase in PHASES] == [True, False, False, False]


@pytest.mark.parametrize("text", ["one line only", "one line, then blanks \n\n", "(b) two\n"])
def test_a_response_of_one_line_is_all_answer(lalm: AudioFlamingo3, text: str) -> None:
    ids = [*lalm.tokens(text), lalm.eos_id]
    phases = phases_of(lalm, ids)
    assert not any(phases["reasoning"])
    assert all(phases["answer"][: len(lalm.tokens(text.rstrip()))])
    assert not any(phases["times"])


def questions_of(tmp_path: Path) -> list[Question]:
    rng = np.random.default_rng(0)
    for index in range(2):
        save_wav(tmp_path / f"{index}.wav", (0.1 * rng.standard_normal(SAMPLE_RATE)).astype(np.float32))
    asked = [("q0", "0"), ("q1", "0"), ("q2", "1"), ("q3", "missing")]
    return [
        Question(name, clip, f"{clip}.wav", 1.0, "choice", "Which?", "one", ("one", "two"))
        for name, clip in asked
    ]


def test_shares_of_given_responses_are_means_over_each_phases_tokens(
    lalm: AudioFlamingo3, tmp_path: Path
) -> None:
    """Phases partition a response's text: their shares, weighted by tokens, are the whole's (less the end token)."""
    questions, cache = questions_of(tmp_path), FeatureCache(tmp_path / "cache")
    responses = {"q0": TEXT, "q1": "", "q2": "(b) two", "q3": TEXT}
    found = list(look(lalm, questions, tmp_path / "q.jsonl", cache, responses=responses))
    assert [type(item) for item in found] == [Looked, Unheard, Looked, Unheard]
    assert "no response" in found[1].reason  # type: ignore[union-attr]
    assert "missing.wav" in found[3].reason  # type: ignore[union-attr]
    whole = found[0]
    assert isinstance(whole, Looked)
    n = whole.n_tokens
    assert n["reasoning"] + n["answer"] + 1 == n["all"] == whole.n_of_block["output"]
    parts = [np.array(whole.share[phase]) * n[phase] for phase in ("reasoning", "answer")]
    rest = np.array(whole.share["all"]) * n["all"] - sum(parts)
    assert np.allclose(rest.sum(-1), 1, atol=1e-4)  # one token is left: its shares sum to 1
    only_answer = found[2]
    assert isinstance(only_answer, Looked)
    assert only_answer.share["reasoning"] is only_answer.share["times"] is None


def test_a_summary_counts_what_each_mean_is_over(lalm: AudioFlamingo3, tmp_path: Path) -> None:
    questions, cache = questions_of(tmp_path), FeatureCache(tmp_path / "cache")
    responses = {"q0": TEXT, "q2": "(b) two"}
    found = [
        item
        for item in look(lalm, questions[:3], tmp_path / "q.jsonl", cache, responses=responses)
        if isinstance(item, Looked)
    ]
    summary = summarise(found, n_without=1)
    assert (summary.n, summary.n_without) == (2, 1)
    assert summary.by_phase["reasoning"]["audio"].n == 1
    assert summary.by_phase["reasoning"]["audio"].n_unscored == 1
    both = [np.array(item.share["all"])[:, 1].mean() for item in found]
    assert summary.by_phase["all"]["audio"].value == pytest.approx(np.mean(both))
    of_layers = [summary.by_layer["all"][block] for block in summary.by_layer["all"]]
    assert np.allclose(np.sum(of_layers, axis=0), 1, atol=1e-5)
    assert "change: +0.0%" in table({"one": summary, "other": summary})
    draw(tmp_path / "a.png", {"one": summary, "other": summary})
    assert (tmp_path / "a.png").stat().st_size > 10_000

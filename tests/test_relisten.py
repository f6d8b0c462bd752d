"""Listening again: a cited span's frames stand in the response's row, in sampling as in training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tgsr.answering.predict import predict, predict_to_file
from tgsr.cli import main
from tgsr.data.corpora.spoken_digits import compose
from tgsr.engine.features import FeatureCache
from tgsr.engine.relisten import Again, closed_spans, frames_in, next_again, row_of
from tgsr.engine.sampling import sample, uniforms
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.errors import OptionError, RecordError
from tgsr.llm.decoding import Decoding
from tgsr.models.lalm import Lalm
from tgsr.models.load import load
from tgsr.prompts import choice_question
from tgsr.records import read_questions
from tgsr.rl import train_grpo
from tgsr.training.config import GrpoConfig
from tiny import questions_in, tiny_gemma4, tiny_qwen_omni, tiny_whisper, trainable

CITES = 'She says "one two" from 0.4s to 1.25s. Then'


@pytest.mark.parametrize(
    ("text", "first", "span"),
    [
        (CITES, "from 0.4s to 1.25s.", (0.4, 1.25)),
        ("(0.27-2.95 s) so", "(0.27-2.95 s)", (0.27, 2.95)),
        ("from 6.2 seconds to 10.0 seconds, he", "from 6.2 seconds to 10.0 seconds,", (6.2, 10.0)),
        ("from 1.2 to 3.45.\nSo", "from 1.2 to 3.45.\n", (1.2, 3.45)),
        ('{"start": 1.2, "end": 3.45}', '{"start": 1.2, "end": 3.45}', (1.2, 3.45)),
        ("0:12 - 0:15 he says", "0:12 - 0:15 he ", (12.0, 15.0)),
        ("<|1.20|> hi <|3.40|>", "<|1.20|> hi <|3.40|>", (1.2, 3.4)),
        ("from 3.0s to 1.0s. So", None, None),
        ("the 1930s to 1940s. From 2 to 3 people.", None, None),
    ],
)
def test_a_span_counts_once_its_last_number_cannot_grow(text: str, first: str | None, span: Any) -> None:
    found = [(text[:n], closed_spans(text[:n])) for n in range(len(text) + 1)]
    found = [(until, [(one.start, one.end) for one in spans]) for until, spans in found if spans]
    assert {str(spans) for _, spans in found} == ({str([span])} if span else set())
    if first is not None:
        assert found[0][0].endswith(first)


@pytest.fixture(scope="module")
def lalm() -> Lalm:
    return load("mini:tgsr")


def test_frames_are_those_that_the_span_touches(lalm: Lalm) -> None:
    ids = lalm.plain_tokens(CITES)
    assert next_again(lalm, ids, (), 50, 250) == Again(len(ids), 10, 32)  # 0.4 to 1.28 s
    assert next_again(lalm, ids, (), 20, 250) == Again(len(ids), 10, 20)  # the clip ends before the span
    assert next_again(lalm, ids, (), 10, 250) is None  # and begins after its end
    assert next_again(lalm, ids, (), 50, 5) == Again(len(ids), 10, 15)  # no more than may be
    assert next_again(lalm, ids, (Again(9, 10, 32),), 50, 250) is None  # once
    assert next_again(lalm, ids, (Again(9, 0, 5),), 50, 5) is None
    first, stop = frames_in(lalm, closed_spans("from 0.41s to 0.42s, so")[0], 50)
    assert (first, stop) == (10, 11)
    assert row_of((7, 8, 9), (Again(1, 2, 4), Again(2, 0, 1))) == (7, -3, -4, 8, -1, 9)


def heard(lalm: Lalm, n: int) -> tuple[Any, list[tuple[int, ...]]]:
    """Two clips of digits with a question each, and the responses' first token."""
    clips = [compose(90_000 + index, "heldout-recordings") for index in range(n)]
    question = "Which digit is said right after two?"
    prompt = lalm.prompt(choice_question(question, ("one", "two", "three", "four"))).after
    with torch.no_grad():
        frames = [lalm.encode_audio(clip.samples) for clip in clips]
        return listen(lalm, frames, after=[prompt[:-1]] * n), [prompt[-1:]] * n


def plain_logps(
    lalm: Lalm, prefix: Any, owner: int, prompt: Any, row: Any, temperature: float
) -> torch.Tensor:
    """transformers' own forward over the whole sequence, with the clip's frames put where the row says."""
    pieces = [prefix.rows[owner]]
    for id_ in (*prompt, *row):
        frame = prefix.n_before - 1 - id_
        pieces.append(prefix.rows[owner][frame][None] if id_ < 0 else lalm.embed(torch.tensor([id_])))
    with torch.no_grad():
        hidden = lalm.language_model(inputs_embeds=torch.cat(pieces)[None]).last_hidden_state[0]
        logits = lalm.lm_head(hidden).float() / temperature
    first = len(prefix.rows[owner]) + len(prompt)
    logp = logits.log_softmax(-1)
    return torch.stack([logp[first + at - 1, id_] for at, id_ in enumerate(row) if id_ >= 0])


def test_log_probs_are_those_of_one_whole_sequence(lalm: Lalm) -> None:
    prefix, prompts = heard(lalm, 2)
    owners = [0, 1, 0]
    asked = [prompts[owner] for owner in owners]
    how: dict[str, Any] = {"max_new_tokens": 60, "temperature": 0.7, "top_p": 0.9}
    how |= {"uniform_BN": uniforms(3, 60, 3)}
    drawn = sample(prefix, owners, asked, relisten_frames=60, **how)
    assert sum(bool(one.again) for one in drawn) >= 2
    assert all(sum(a.stop - a.first for a in one.again) <= 60 for one in drawn)
    branches = [
        Branch(owner, prompt, one.row) for owner, prompt, one in zip(owners, asked, drawn, strict=True)
    ]
    with torch.no_grad():
        learned = branch_logps(prefix, branches, temperature=0.7)
    for b, one in enumerate(drawn):
        assert len(one.logps) == len(one.ids) == int(learned.mask_BT[b].sum()) == len(one.entropies)
        theirs = plain_logps(lalm, prefix, owners[b], asked[b], one.row, 0.7)
        assert torch.allclose(torch.tensor(one.logps), theirs, atol=3e-5)  # token by token in float32
        assert torch.allclose(learned.logp_BT[b][learned.mask_BT[b]], theirs, atol=1e-5)
        # The frames are heard: with those of another place what follows has other log-probs.
        if one.again and one.again[0].first > 5:
            other = row_of(one.ids, (Again(one.again[0].n_tokens, 0, 5),))
            assert not torch.allclose(
                plain_logps(lalm, prefix, owners[b], asked[b], other, 0.7), theirs, atol=1e-2
            )
    # Nor does it matter who else is drawn: one alone takes all of its frames in at once.
    for b, one in enumerate(drawn):
        apart = {**how, "uniform_BN": how["uniform_BN"][b : b + 1]}
        (alone,) = sample(prefix, owners[b : b + 1], asked[b : b + 1], relisten_frames=60, **apart)
        assert (alone.ids, alone.again, alone.cut) == (one.ids, one.again, one.cut)
        assert torch.allclose(torch.tensor(alone.logps), torch.tensor(one.logps), atol=3e-5)
    # Until the first citation nothing is otherwise.
    for one, other in zip(drawn, sample(prefix, owners, asked, **how), strict=True):
        same = one.again[0].n_tokens if one.again else len(one.ids)
        assert one.ids[:same] == other.ids[:same]
        assert other.again == ()


@pytest.mark.parametrize("make", [tiny_qwen_omni, tiny_gemma4])
def test_other_families_rows_hold_their_frames_too(make: Any) -> None:
    lalm = trainable(make())
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(12, lalm.language_model.config.hidden_size, generator=generator)
    row = row_of((5, 6, 7, 8, lalm.eos_id), (Again(2, 3, 7), Again(4, 0, 12)))
    with torch.no_grad():
        prefix = listen(lalm, [frames], aligned=True)
        ours = branch_logps(prefix, [Branch(0, (9, 5), row)])
    assert torch.allclose(
        ours.logp_BT[ours.mask_BT], plain_logps(lalm, prefix, 0, (9, 5), row, 1.0), atol=1e-5
    )


def test_a_model_whose_frames_are_in_no_sequence_is_refused(tmp_path: Path) -> None:
    cache, again = FeatureCache(tmp_path / "cache"), Decoding(relisten=True)
    with pytest.raises(OptionError, match="hears by cross-attention"):
        list(predict(tiny_whisper(), [], tmp_path / "q.jsonl", cache, again))
    with pytest.raises(OptionError, match="above 0"):
        Decoding(relisten_seconds=0.0)


def test_predictions_that_listened_again_are_not_mixed_with_others(lalm: Lalm, tmp_path: Path) -> None:
    path, out = questions_in(tmp_path / "qa", "qa", 1, most=1), tmp_path / "predictions.jsonl"
    asked, cache = read_questions(path), FeatureCache(tmp_path / "cache")
    for name, decoding in (("once", Decoding(50)), ("again", Decoding(50, relisten=True))):
        assert predict_to_file(lalm, asked, path, out, cache, decoding, name=name) == (1, 0)
    assert predict_to_file(lalm, asked, path, out, cache, Decoding(50), name="once") == (0, 0)
    with pytest.raises(
        RecordError, match=r"has answered here with --relisten True, now not given; --relisten-"
    ):
        predict_to_file(lalm, asked, path, out, cache, Decoding(50), name="again")


def test_grpo_learns_from_what_was_drawn_between_the_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = str(questions_in(tmp_path / "qa", "qa", 1, most=1))
    few: dict[str, Any] = {"max_steps": 1, "prompts_per_step": 1, "group_size": 4, "max_new_tokens": 60}
    config = GrpoConfig(questions=asked, relisten=True, relisten_seconds=1.0, **few)
    assert train_grpo(config, tmp_path / "run", FeatureCache(tmp_path / "cache")).is_dir()
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert 0 < row["frames_again"] <= 25  # one second
    assert row["drift"] < 1e-4
    url = ("--relisten", "--vllm", "http://127.0.0.1:1")
    assert main(["train", "grpo", "--questions", asked, "--out", str(tmp_path / "other"), *url]) == 2
    assert "without --relisten" in capsys.readouterr().err

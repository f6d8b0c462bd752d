"""Sums over blocks and regions against the maps of transformers' eager attention on separate sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tgsr.data.corpora.spoken_digits import compose
from tgsr.engine import block_attention as attention
from tgsr.engine.block_attention import AUDIO, BLOCKS, OUTPUT, block_attention
from tgsr.engine.shared_prefix import Branch, branch_logps, forward, listen
from tgsr.errors import ModelError
from tgsr.models.lalm import Lalm
from tgsr.models.load import load
from tgsr.models.whisper import Whisper
from tiny import tiny_gemma4, tiny_lalm, tiny_qwen_omni, tiny_whisper

FAMILIES = {
    "audio flamingo 3": tiny_lalm,
    "qwen omni": tiny_qwen_omni,
    "gemma 4": tiny_gemma4,
}


def eager_maps(
    lalm: Lalm,
    clips: Sequence[Tensor],
    branches: Sequence[Branch],
    question: Sequence[int],
    dtype: torch.dtype,
) -> list[Tensor]:
    """Of each branch L x T x T, means over heads: whole sequences, one by one."""
    lalm.inner.set_attn_implementation("eager")
    before = lalm.embed(torch.tensor(lalm.prompt("").before))
    rows = [
        torch.cat([before, lalm.in_row(frames), lalm.embed(torch.tensor([*question, *b.answer]))])
        for b, frames in ((b, lalm.align(clips[b.owner])) for b in branches)
    ]
    decoder = lalm.language_model.to(dtype)
    maps = [decoder(inputs_embeds=row[None].to(dtype), output_attentions=True).attentions for row in rows]
    decoder.float()
    return [torch.stack([of_layer[0].mean(0) for of_layer in of_row]).float() for of_row in maps]


def check_against_eager(
    lalm: Lalm,
    clips: Sequence[Tensor],
    branches: Sequence[Branch],
    question: Sequence[int],
    n_after: int,
    atol: float = 1e-6,
    dtype: torch.dtype = torch.float32,
) -> None:
    """n_after of the question's tokens belong to the prefix, the others are the branches' prompts."""
    after = [question[:n_after]] * len(clips)
    regions = [torch.eye(len(clips[b.owner])) for b in branches]
    with torch.no_grad():
        found = block_attention(listen(lalm, clips, after=after), branches, regions)
        maps = eager_maps(lalm, clips, branches, question, dtype)
    n_before, n_question = len(lalm.prompt("").before), len(question)
    for index, (branch, map_LTT) in enumerate(zip(branches, maps, strict=True)):
        n_frames, n_answer = len(clips[branch.owner]), len(branch.answer)
        edges = [n_before, n_frames, n_question, n_answer]
        assert found.n_of_block_BK[index].tolist() == edges
        share_LTK = torch.stack([block.sum(-1) for block in map_LTT.split(edges, -1)], -1)
        first, start = found.first_token[index], found.first_question[index]
        audio = slice(n_before, n_before + n_frames)
        for ours, of_region, places in (
            (found.share_LMK[:, first : first + n_answer], found.region_LMR[index], slice(-n_answer - 1, -1)),
            (
                found.question_LQK[:, start : start + n_question],
                found.region_LQR[index],
                slice(-n_answer - n_question, -n_answer),
            ),
        ):
            assert torch.allclose(ours, share_LTK[:, places], rtol=0, atol=atol)
            assert torch.allclose(of_region, map_LTT[:, places, audio], rtol=0, atol=atol)
            assert torch.allclose(of_region.sum(-1), ours[..., AUDIO], rtol=0, atol=atol)
    assert found.share_LMK.shape[2] == len(BLOCKS)
    assert torch.allclose(found.share_LMK.sum(-1), torch.ones(()), rtol=0, atol=atol)
    assert torch.equal(found.question_LQK[..., OUTPUT], torch.zeros(found.question_LQK.shape[:2]))


def tiny_case(
    family: str, question_in_prefix: bool
) -> tuple[Any, list[Tensor], list[Branch], tuple[int, ...], int]:
    """Two clips, three branches of unequal lengths whose clips alternate; four heads share two key heads."""
    lalm: Any = FAMILIES[family]()
    width = next(p for p in lalm.aligner.parameters() if p.ndim == 2).shape[1]
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(n, width, generator=generator) for n in (9, 30)]
    question = lalm.prompt("Who?").after
    n_after = len(question) - 1 if question_in_prefix else 0
    prompt = question[n_after:]
    branches = [Branch(1, prompt, (5, 6, 7)), Branch(0, prompt, (8,)), Branch(1, prompt, (9, 4))]
    return lalm, clips, branches, question, n_after


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("question_in_prefix", [False, True])
@pytest.mark.parametrize("path", ["blocks", "scores"])
def test_they_are_the_sums_of_eager_attentions_maps(
    family: str, question_in_prefix: bool, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways to have the log-sum-exps: from the fused kernel, and (on other devices) from scores, few at a time."""
    if path == "scores":

        def by_scores(query: Tensor, key: Tensor, value: Tensor, *blocks: Any) -> tuple[Tensor, Tensor]:
            return in_blocks(query, key, value, *blocks)[0], attention._by_scores(query, key, *blocks)

        in_blocks = attention._in_blocks
        monkeypatch.setattr(attention, "_in_blocks", by_scores)
        monkeypatch.setattr(attention, "SCORES_AT_ONCE", 300)
    check_against_eager(*tiny_case(family, question_in_prefix))


def test_they_are_those_of_the_miniatures_trained_attention(
    encoder: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real weights with a LoRA, real sound, two clips of unequal length, several answers.

    Trained scores reach 40: in the deep layers float32's rounding alone, of eager attention too, moves shares by up to
    1e-6. So the reference is float64: of the same queries and keys the sums are the exact ones to 5e-7 (head by head to
    2e-6), and after all layers to 2e-6.
    """
    lalm = load("mini:tgsr")
    clips = [lalm.encode_audio(compose(seed, "train", seconds=(4.0, 9.0)).samples) for seed in (1, 2)]
    question = lalm.prompt("Which digit is said right after seven?\n(a) one\n(b) two").after
    texts = ["From 1.20s to 3.40s, seven two.\n(b) two", "(a) one", "The segment starts at 0.10 seconds."]
    branches = [Branch(i % 2, question[-1:], (*lalm.tokens(t), lalm.eos_id)) for i, t in enumerate(texts)]
    in_blocks, n_layers = attention._in_blocks, 0

    def checked(query: Tensor, key: Tensor, value: Tensor, where: Any, blocks: Any, scale: float) -> Any:
        nonlocal n_layers
        n_layers += 1
        out, lse_KJGN = in_blocks(query, key, value, where, blocks, scale)
        exact_KJGN = attention._by_scores(query.double(), key.double(), where, blocks, scale)
        ours, exact = (of[..., blocks.rows_S].softmax(0) for of in (lse_KJGN, exact_KJGN))
        assert torch.allclose(ours.double(), exact, rtol=0, atol=2e-6)
        assert torch.allclose(ours.mean((1, 2)).double(), exact.mean((1, 2)), rtol=0, atol=5e-7)
        return out, lse_KJGN

    monkeypatch.setattr(attention, "_in_blocks", checked)
    check_against_eager(lalm, clips, branches, question, len(question) - 1, 2e-6, torch.float64)
    assert n_layers == 6


def test_the_forward_is_the_engines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking the sums changes nothing of what the decoder computes, nor do few scores at a time change the sums."""
    lalm, clips, branches, question, n_after = tiny_case("audio flamingo 3", True)
    with torch.no_grad():
        prefix = listen(lalm, clips, after=[question[:n_after]] * 2)
        plain = forward(prefix, branches).out.last_hidden_state
        regions = [torch.rand(len(clips[b.owner]), 3) for b in branches]
        blocks = attention._blocks_of(prefix, branches, regions)
        summed = forward(prefix, branches, attention=attention.NAME, blocks=blocks).out.last_hidden_state
        # The frames and what is before them are rows of the prefix that the sums leave alone.
        assert torch.allclose(plain, summed, rtol=0, atol=1e-5)
        whole = block_attention(prefix, branches, regions)
        monkeypatch.setattr(attention, "SCORES_AT_ONCE", 1)
        in_pieces = block_attention(prefix, branches, regions)
    for ours, theirs in zip(whole.region_LMR, in_pieces.region_LMR, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)
    assert branch_logps(prefix, branches).logp_BT.shape == (3, 3)  # the decoder's own attention is back


def test_equal_scores_give_every_position_the_same() -> None:
    """Worked by hand: without queries and keys the shares are those of the positions seen."""
    lalm, clips, branches, _, _ = tiny_case("audio flamingo 3", False)
    with torch.no_grad():
        for layer in lalm.language_model.layers:
            layer.self_attn.q_proj.weight.zero_()
            layer.self_attn.k_proj.weight.zero_()
            layer.self_attn.q_proj.bias.zero_()
            layer.self_attn.k_proj.bias.zero_()
        found = block_attention(
            listen(lalm, clips), branches, [torch.eye(len(clips[b.owner])) for b in branches]
        )
    # Equal scores: every position that a query sees gets the same.
    for branch, counts, first, of_frames in zip(
        branches, found.n_of_block_BK, found.first_token, found.region_LMR, strict=True
    ):
        for token in range(len(branch.answer)):
            n_seen = int(counts[:OUTPUT].sum()) + token
            expected = torch.tensor([*counts[:OUTPUT].tolist(), token]) / n_seen
            assert torch.allclose(found.share_LMK[:, first + token], expected, rtol=0, atol=1e-6)
            assert torch.allclose(of_frames[:, token], torch.tensor(1 / n_seen), rtol=0, atol=1e-6)


def test_regions_of_another_clip_are_refused() -> None:
    lalm, clips, branches, _, _ = tiny_case("audio flamingo 3", False)
    with pytest.raises(ModelError, match=r"branch 1: regions of shape \(30, 2\) over a clip of 9 frames"):
        block_attention(listen(lalm, clips), branches, [torch.ones(30, 2)] * 3)


def eager_cross(lalm: Whisper, clip: Tensor, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """One sequence through the official class: L x T x T of self-attention, L x T x F of cross-attention."""
    lalm.inner.set_attn_implementation("eager")
    out = lalm.inner(
        encoder_outputs=(lalm.align(clip)[None],),
        decoder_input_ids=torch.tensor([list(ids)]),
        output_attentions=True,
    )
    own, cross = (
        torch.stack([of[0].mean(0) for of in maps]) for maps in (out.decoder_attentions, out.cross_attentions)
    )
    return own, cross


@pytest.mark.parametrize("question_in_prefix", [False, True])
@pytest.mark.parametrize("path", ["blocks", "scores"])
def test_audio_that_is_cross_attended_has_no_share_and_its_seconds_are_of_cross_attention(
    question_in_prefix: bool, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path == "scores":

        def by_scores(query: Tensor, key: Tensor, value: Tensor, *blocks: Any) -> tuple[Tensor, Tensor]:
            return in_blocks(query, key, value, *blocks)[0], attention._by_scores(query, key, *blocks)

        in_blocks = attention._in_blocks
        monkeypatch.setattr(attention, "_in_blocks", by_scores)
        monkeypatch.setattr(attention, "SCORES_AT_ONCE", 300)
    lalm = tiny_whisper()
    clips = [torch.randn(n, 32, generator=torch.Generator().manual_seed(n)) for n in (9, 120)]
    question, before = lalm.prompt("Who?").after, lalm.prompt("").before
    n_after = len(question) - 1 if question_in_prefix else 0
    prompt = question[n_after:]
    branches = [Branch(1, prompt, (5, 6, 7)), Branch(0, prompt, (8,)), Branch(1, prompt, (9, 4))]
    with torch.no_grad():
        prefix = listen(lalm, clips, after=[question[:n_after]] * 2)
        found = block_attention(prefix, branches, [torch.eye(len(clips[b.owner])) for b in branches])
        maps = [eager_cross(lalm, clips[b.owner], (*before, *question, *b.answer)) for b in branches]
    for index, (branch, (own, cross)) in enumerate(zip(branches, maps, strict=True)):
        n, asked = len(branch.answer), len(question)
        assert found.n_of_block_BK[index].tolist() == [1, len(clips[branch.owner]), asked, n]
        share_LTK = torch.stack([block.sum(-1) for block in own.split([1, asked, n], -1)], -1)
        first, start = found.first_token[index], found.first_question[index]
        for ours, of_region, places in (
            (found.share_LMK[:, first : first + n], found.region_LMR[index], slice(-n - 1, -1)),
            (found.question_LQK[:, start : start + asked], found.region_LQR[index], slice(-n - asked, -n)),
        ):
            assert ours[..., AUDIO].isnan().all()
            assert torch.allclose(ours[..., [0, 2, 3]], share_LTK[:, places], rtol=0, atol=1e-5)
            assert torch.allclose(of_region, cross[:, places], rtol=0, atol=1e-5)
            assert torch.allclose(of_region.sum(-1), torch.ones(()), rtol=0, atol=1e-5)

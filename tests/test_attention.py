"""Sums over blocks against the maps of transformers' eager attention on separate sequences."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tgsr.attention import BLOCKS, block_attention
from tgsr.engine.shared_prefix import Branch, listen
from tiny import tiny_lalm
from tiny_qwen import tiny_qwen_omni

FAMILIES = {"audio flamingo 3": tiny_lalm, "qwen omni": tiny_qwen_omni}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("question_in_prefix", [False, True])
def test_they_are_the_sums_of_eager_attentions_maps(family: str, question_in_prefix: bool) -> None:
    lalm: Any = FAMILIES[family]()
    width = next(p for p in lalm.aligner.parameters() if p.ndim == 2).shape[1]
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(n, width, generator=generator) for n in (9, 30)]
    question = lalm.prompt("Who?").after
    after = [question[:-1]] * 2 if question_in_prefix else None
    prompt = question[-1:] if question_in_prefix else question
    branches = [Branch(1, prompt, (5, 6, 7)), Branch(0, prompt, (8,)), Branch(1, prompt, (9, 4))]
    found = block_attention(listen(lalm, clips, after=after), branches)
    n_before = len(lalm.prompt("").before)
    lalm.inner.set_attn_implementation("eager")
    for branch, first, counts in zip(branches, found.first_token, found.n_of_block_BK, strict=True):
        text = torch.tensor([*question, *branch.answer])
        before = lalm.embed(torch.tensor(lalm.prompt("").before))
        row = torch.cat([before, lalm.align(clips[branch.owner]), lalm.embed(text)])
        maps = lalm.language_model(inputs_embeds=row[None], output_attentions=True).attentions
        n_frames = len(clips[branch.owner])
        edges = torch.tensor([n_before, n_frames, len(question), len(branch.answer)])
        assert counts.tolist() == edges.tolist()
        for layer, map_BHTT in enumerate(maps):
            of_answer = map_BHTT[0].mean(0)[-len(branch.answer) - 1 : -1]
            expected = torch.stack([block.sum(-1) for block in of_answer.split(edges.tolist(), -1)], -1)
            shares = found.share_LMK[layer, first : first + len(branch.answer)]
            assert torch.allclose(shares, expected, atol=1e-6)
    assert found.share_LMK.shape[2] == len(BLOCKS)
    assert torch.allclose(found.share_LMK.sum(-1), torch.ones(()), atol=1e-6)

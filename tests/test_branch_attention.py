from __future__ import annotations

import pytest
import torch
from torch import nn

from tgsr.engine.branch_attention import SLACK, attention_by_branch, branch_attention, layout
from tgsr.engine.shared_prefix import Branch, packed_logps
from tiny import tiny_features, tiny_lalm

PREFIXES = [5, 9, 1]
BRANCHES = [3, 40, 4, 7, 1]
OWNERS = [1, 0, 2, 1, 1]


def dense_mask() -> torch.Tensor:
    """Who may see whom in the row of PREFIXES and BRANCHES, written out pair by pair."""
    block = [(clip, -1) for clip, n in enumerate(PREFIXES) for _ in range(n)]
    block += [(OWNERS[b], b) for b, n in enumerate(BRANCHES) for _ in range(n)]
    n = len(block)
    seen = torch.zeros(n, n, dtype=torch.bool)
    for i, (clip, branch) in enumerate(block):
        for j, (other_clip, other_branch) in enumerate(block[: i + 1]):
            seen[i, j] = clip == other_clip and other_branch in (-1, branch)
    return seen


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_it_is_dense_attention_under_the_mask_of_who_may_see_whom(kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    n = sum(PREFIXES) + sum(BRANCHES)
    query = torch.randn(1, 4, n, 8, generator=generator, requires_grad=True)
    key, value = (torch.randn(1, kv_heads, n, 8, generator=generator, requires_grad=True) for _ in range(2))
    where = layout(PREFIXES, BRANCHES, OWNERS, torch.device("cpu"))
    out, _ = branch_attention(nn.Identity(), query, key, value, None, branches=where, scaling=0.3)
    scores = 0.3 * query @ key.repeat_interleave(4 // kv_heads, 1).transpose(-1, -2)
    weights = scores.masked_fill(~dense_mask(), float("-inf")).softmax(-1)
    expected = (weights @ value.repeat_interleave(4 // kv_heads, 1)).transpose(1, 2)
    assert torch.allclose(out, expected, atol=1e-6)
    direction = torch.randn(out.shape, generator=generator)
    got, wanted = (torch.autograd.grad((x * direction).sum(), (query, key, value)) for x in (out, expected))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, wanted, strict=True))


def test_groups_hold_branches_of_like_length_and_each_once() -> None:
    where = layout(PREFIXES, BRANCHES, OWNERS, torch.device("cpu"))
    assert sum(len(group.query_BT) for group in where.groups) == len(BRANCHES)
    for group in where.groups:
        lengths = [len(set(row.tolist()) - {0}) for row in group.query_BT]
        assert max(lengths) <= SLACK * min(lengths) + 8
    assert sorted(where.back_N.tolist()) == sorted(set(where.back_N.tolist()))


def test_the_decoders_own_attention_is_back_afterwards_even_after_an_error() -> None:
    lalm = tiny_lalm()
    before = lalm.language_model.config._attn_implementation
    with pytest.raises(RuntimeError, match="planted"), attention_by_branch(lalm.language_model):
        raise RuntimeError("planted")
    assert lalm.language_model.config._attn_implementation == before


def test_bfloat16_rounds_and_changes_nothing_else() -> None:
    lalm = tiny_lalm()
    clips = [tiny_features(n, n) for n in (9, 30)]
    branches = [Branch(0, (5, 6, 7), (8, 9)), Branch(1, (5, 6), (7,)), Branch(1, (9,) * 30, (4, 5, 6))]

    def logps_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        logps = packed_logps(lalm, clips, branches).logp_BT
        return logps.detach(), torch.autograd.grad(logps.sum(), lalm.aligner.linear_1.weight)[0]

    exact, gradient = logps_and_gradient()
    with torch.autocast("cpu", torch.bfloat16):
        rounded, rounded_gradient = logps_and_gradient()
    assert torch.allclose(rounded, exact, rtol=0.03, atol=0.03)
    cosine = nn.functional.cosine_similarity(rounded_gradient.flatten(), gradient.flatten(), 0)
    assert cosine > 0.99

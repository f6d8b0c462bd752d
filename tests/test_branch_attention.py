from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import flex_attention

from tgsr.engine.branch_attention import NAME, attention_as, branch_attention, layout
from tgsr.engine.branch_cache import BranchCache, KeyValues
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tiny import tiny_features, tiny_lalm

PREFIXES = [5, 9, 1]
BRANCHES = [3, 40, 4, 7, 1]
OWNERS = [1, 0, 2, 1, 1]


def dense_mask(window: int | None = None) -> torch.Tensor:
    """Who may see whom in the row of PREFIXES and BRANCHES, written out pair by pair."""
    block = [(clip, -1, place) for clip, n in enumerate(PREFIXES) for place in range(n)]
    block += [(OWNERS[b], b, PREFIXES[OWNERS[b]] + i) for b, n in enumerate(BRANCHES) for i in range(n)]
    n = len(block)
    seen = torch.zeros(n, n, dtype=torch.bool)
    for i, (clip, branch, place) in enumerate(block):
        for j, (other_clip, other_branch, other_place) in enumerate(block[: i + 1]):
            seen[i, j] = clip == other_clip and other_branch in (-1, branch)
            seen[i, j] &= window is None or place - other_place < window
    return seen


@pytest.mark.parametrize(
    ("kv_heads", "window"), [(4, None), (2, None), (1, None), (2, 1), (2, 2), (1, 6), (2, 12), (2, 100)]
)
def test_it_is_dense_attention_under_the_mask_of_who_may_see_whom(kv_heads: int, window: int | None) -> None:
    """A window may be shorter than a prefix or a branch, or end anywhere in either."""
    generator = torch.Generator().manual_seed(0)
    n = sum(PREFIXES) + sum(BRANCHES)
    query = torch.randn(1, 4, n, 8, generator=generator, requires_grad=True)
    key, value = (torch.randn(1, kv_heads, n, 8, generator=generator, requires_grad=True) for _ in range(2))
    where = layout(PREFIXES, BRANCHES, OWNERS, torch.device("cpu"))
    asked = {"branches": where, "scaling": 0.3, "sliding_window": window}
    out, _ = branch_attention(nn.Identity(), query, key, value, None, **asked)
    scores = 0.3 * query @ key.repeat_interleave(4 // kv_heads, 1).transpose(-1, -2)
    weights = scores.masked_fill(~dense_mask(window), float("-inf")).softmax(-1)
    expected = (weights @ value.repeat_interleave(4 // kv_heads, 1)).transpose(1, 2)
    assert torch.allclose(out, expected, atol=1e-6)
    direction = torch.randn(out.shape, generator=generator)
    got, wanted = (torch.autograd.grad((x * direction).sum(), (query, key, value)) for x in (out, expected))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("window", [None, 6])
def test_the_layouts_rule_is_who_may_see_whom(window: int | None) -> None:
    """What flex attention gets as its block mask on a GPU."""
    where = layout(PREFIXES, BRANCHES, OWNERS, torch.device("cpu"))
    places = torch.arange(len(where.clip_N))
    assert torch.equal(where.sees(places[:, None], places[None], window), dense_mask(window))


@pytest.mark.parametrize("window", [None, 6])
def test_flex_attention_gives_the_same_numbers_under_the_layouts_block_mask(window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    n = sum(PREFIXES) + sum(BRANCHES)
    query = torch.randn(1, 4, n, 16, generator=generator)
    key, value = (torch.randn(1, 2, n, 16, generator=generator) for _ in range(2))
    where = layout(PREFIXES, BRANCHES, OWNERS, torch.device("cpu"))
    ours, _ = branch_attention(nn.Identity(), query, key, value, None, branches=where, sliding_window=window)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not compiled
        theirs = flex_attention(query, key, value, block_mask=where.block_mask(window), enable_gqa=True)
    assert torch.allclose(ours, theirs.transpose(1, 2), atol=1e-5)


def test_neighbours_of_one_clip_are_one_run() -> None:
    where = layout([5, 9], [3, 4, 2, 1], [1, 1, 0, 1], torch.device("cpu"))
    assert where.prefixes == (slice(0, 5), slice(5, 14))
    assert where.branches == (slice(14, 17), slice(17, 21), slice(21, 23), slice(23, 24))
    assert where.runs == ((slice(21, 23),), (slice(14, 21), slice(23, 24)))


def test_the_decoders_own_attention_is_back_afterwards_even_after_an_error() -> None:
    lalm = tiny_lalm()
    before = lalm.language_model.config._attn_implementation
    with pytest.raises(RuntimeError, match="planted"), attention_as(lalm.language_model, NAME):
        raise RuntimeError("planted")
    assert lalm.language_model.config._attn_implementation == before


def test_bfloat16_rounds_and_changes_nothing_else() -> None:
    lalm = tiny_lalm()
    clips = [tiny_features(n, n) for n in (9, 30)]
    branches = [Branch(0, (5, 6, 7), (8, 9)), Branch(1, (5, 6), (7,)), Branch(1, (9,) * 30, (4, 5, 6))]

    def logps_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        logps = branch_logps(listen(lalm, clips), branches).logp_BT
        return logps.detach(), torch.autograd.grad(logps.sum(), lalm.aligner.linear_1.weight)[0]

    exact, gradient = logps_and_gradient()
    with torch.autocast("cpu", torch.bfloat16):
        rounded, rounded_gradient = logps_and_gradient()
    assert torch.allclose(rounded, exact, rtol=0.03, atol=0.03)
    cosine = nn.functional.cosine_similarity(rounded_gradient.flatten(), gradient.flatten(), 0)
    assert cosine > 0.99


@pytest.mark.parametrize("window", [None, 1, 3, 7])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("prompts", [[[1, 1, 1], [1, 0, 0], [0, 1, 1]], [[1, 1], [1, 1], [1, 1]]])
def test_a_cache_of_branches_is_dense_attention_step_by_step(
    window: int | None, fixed: bool, prompts: list[list[int]]
) -> None:
    """Clips of unlike length, branches in any order, padded prompts, and a branch that leaves."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    n_prefix, lengths, owners = 6, torch.tensor([6, 2]), torch.tensor([1, 0, 1])
    mask_CP = torch.arange(n_prefix) >= (n_prefix - lengths)[:, None]
    prefix = KeyValues((draw(2, 2, n_prefix, 8),), (draw(2, 2, n_prefix, 8),), mask_CP, lengths)
    cache = BranchCache(prefix, owners, 10, fixed=fixed)
    keys, values = prefix.keys[0][owners], prefix.values[0][owners]
    seen = mask_CP[owners]
    one = [[1], [1], [1]]
    for n_new, visible in ((len(prompts[0]), prompts), (1, one), (1, one), (1, one[:2])):
        if len(visible) < len(owners):  # the first branch has ended
            rows = torch.tensor([1, 2])
            cache.select(rows)
            owners, keys, values, seen = owners[rows], keys[rows], values[rows], seen[rows]
        new = torch.tensor(visible, dtype=torch.bool)
        query, key, value = (draw(len(owners), heads, n_new, 8) for heads in (4, 2, 2))
        cache.extend(new)
        cache.keep(0, key, value)
        out = cache.attend(0, query, 0.3, window)
        keys, values = torch.cat([keys, key], 2), torch.cat([values, value], 2)
        seen = torch.cat([seen, new], 1)
        scores = 0.3 * query @ keys.repeat_interleave(2, 1).transpose(-1, -2)
        earlier = torch.ones(n_new, keys.shape[2], dtype=torch.bool).tril(keys.shape[2] - n_new)
        place = seen.cumsum(1)
        near = place[:, -n_new:, None] - place[:, None] < (window or 100)
        hidden = ~(seen[:, None, None] & earlier & near[:, None])
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        expected = weights @ values.repeat_interleave(2, 1)
        real = new[:, None, :, None].expand_as(out)
        assert torch.allclose(out[real], expected[real], atol=1e-6)

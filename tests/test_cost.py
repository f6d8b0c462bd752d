"""The cost model against counts by hand, brute force, and what torch itself counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, Qwen2Model

from tgsr.training.cost import (
    H100,
    QWEN2_7B,
    ClipTokens,
    DecoderShape,
    activation_bytes,
    decoding_seconds,
    forward_flops,
    pairs,
    stage_1_hours,
    stage_2_hours,
    stage_2_seconds,
    tokens,
    update_flops,
)

SMALL = DecoderShape(layers=2, width=32, query_width=32, key_width=16, feed_forward=64, vocabulary=100)
GROUP = ClipTokens(870, (150,) * 8, (150,) * 8)  # stage 2 as the paper has it: one 30-s clip, eight responses


def test_tokens_and_pairs_by_hand() -> None:
    clip = ClipTokens(3, (2, 1), (1, 1))
    assert tokens(clip, shared=True) == 6
    assert tokens(clip, shared=False) == 9
    seen = [[1, 2, 3], [4, 5], [4]]  # keys that each token of the prefix and of both branches sees
    assert pairs(clip, shared=True) == sum(map(sum, seen))
    assert pairs(clip, shared=False) == sum(range(1, 6)) + sum(range(1, 5))


def test_one_branch_shares_with_nobody() -> None:
    clip = ClipTokens(50, (7,), (3,))
    assert forward_flops(SMALL, clip, True) == forward_flops(SMALL, clip, False)
    assert update_flops(SMALL, clip, True, checkpointing=True) == update_flops(
        SMALL, clip, False, checkpointing=True
    )


def test_the_7b_has_the_published_number_of_weights() -> None:
    assert QWEN2_7B.weights == pytest.approx(7.6e9, rel=0.01)


@pytest.mark.parametrize("n_tokens", [5, 40])
def test_a_forward_has_the_flops_that_torch_counts(n_tokens: int) -> None:
    """Eager attention computes all n x n pairs, where a causal one needs half: the difference is added."""
    config = Qwen2Config(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation="eager",
    )
    model = Qwen2Model(config)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros(1, n_tokens, dtype=torch.long), use_cache=False)
    clip = ClipTokens(n_tokens - 1, (1,), (1,))
    head = 2 * 100 * 32
    above_diagonal = n_tokens**2 - pairs(clip, shared=True)
    ours = forward_flops(SMALL, clip, shared=True) - head + 4 * 2 * 32 * above_diagonal
    rotary = 2 * n_tokens * 4  # the angles of the positions are a small product as well
    assert counter.get_total_flops() == pytest.approx(ours + rotary, abs=rotary)


def test_sharing_saves_more_the_more_branches_there_are() -> None:
    ratios = []
    for n in (1, 2, 4, 8, 16, 32):
        clip = ClipTokens(870, (150,) * n, (150,) * n)
        separate, shared = (update_flops(QWEN2_7B, clip, s, checkpointing=True) for s in (False, True))
        ratios.append(separate / shared)
    assert ratios[0] == 1
    assert ratios == sorted(ratios)
    assert 3.5 < ratios[3] < 4.5
    assert ratios[-1] < (870 + 150) / 150  # where the prefix costs nothing any more


def test_checkpointing_trades_memory_for_arithmetic() -> None:
    memory = [activation_bytes(QWEN2_7B, GROUP, True, checkpointing=c) for c in (False, True)]
    flops = [update_flops(QWEN2_7B, GROUP, True, checkpointing=c) for c in (False, True)]
    assert memory[1] < 0.25 * memory[0]
    assert 1.3 < flops[1] / flops[0] < 1.5
    assert activation_bytes(QWEN2_7B, GROUP, True, checkpointing=True) < 0.51 * activation_bytes(
        QWEN2_7B, GROUP, False, checkpointing=True
    )


def test_hours_scale_as_they_must() -> None:
    hours = stage_2_hours(QWEN2_7B, H100, 8, GROUP, 47_000, shared=True)
    assert stage_2_hours(QWEN2_7B, H100, 16, GROUP, 47_000, shared=True) == pytest.approx(hours / 2)
    assert stage_2_hours(QWEN2_7B, H100, 8, GROUP, 94_000, shared=True) == pytest.approx(hours * 2)
    assert stage_2_hours(QWEN2_7B, H100, 8, GROUP, 47_000, shared=False) > 2 * hours
    phrases = ClipTokens(770, (70,) * 8, (20,) * 8)
    one = stage_1_hours(QWEN2_7B, H100, 8, phrases, 1000, shared=True)
    assert stage_1_hours(QWEN2_7B, replace(H100, utilisation=0.8), 8, phrases, 1000, shared=True) == (
        pytest.approx(one / 2)
    )


def test_decoding_is_bound_by_reading_the_weights() -> None:
    seconds = decoding_seconds(QWEN2_7B, [GROUP], H100, True, 150)
    assert seconds > 150 * 2 * QWEN2_7B.weights / H100.bandwidth
    assert seconds < decoding_seconds(QWEN2_7B, [GROUP], H100, False, 150)


def test_who_decodes_fewer_prompts_at_once_reads_the_weights_as_often_for_less() -> None:
    """What a step of few questions costs on many machines; all else of a prompt stays as it is."""
    one, four = (stage_2_seconds(QWEN2_7B, H100, GROUP, shared=True, prompts_at_once=n) for n in (1, 4))
    assert 3.5 < one.decoding / four.decoding < 4
    assert (one.prefill, one.reference, one.update) == (four.prefill, four.reference, four.update)
    hours = stage_2_hours(QWEN2_7B, H100, 8, GROUP, 47_000, shared=True, prompts_at_once=4)
    assert hours == pytest.approx(47_000 / 8 * four.total / 3600)


@pytest.mark.parametrize(
    "wrong", [(0, (1,), (1,)), (5, (), ()), (5, (2,), (3,)), (5, (2,), (0,)), (5, (2, 2), (1,))]
)
def test_a_clip_without_work_is_refused(wrong: tuple[int, tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="a clip needs"):
        ClipTokens(*wrong)

"""Layers that attend to the last few positions alone, against the decoder itself on one whole sequence at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tgsr.engine.branch_attention import branch_attention, layout
from tgsr.engine.branch_cache import BranchCache, KeyValues, cached_attention
from tgsr.engine.sampling import sample
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.errors import ModelError
from tgsr.models.lalm import Lalm
from tiny import tiny_features, tiny_lalm

WINDOWS = [1, 2, 9, 24, 1000]  # less than a prompt, ends within the prefix, within a branch, longer than all
BRANCHES = [
    Branch(1, (5, 6, 7, 8), tuple(range(9, 30))),
    Branch(0, (5,), (8, 9)),
    Branch(1, (9,) * 12, (4, 5, 6)),
]


def next_tokens(lalm: Lalm, frames: Tensor, ids: Sequence[int]) -> Tensor:
    """Log-probs after each of `ids`, which stand behind a clip, by the decoder's own attention; N x V."""
    before = lalm.embed(torch.tensor(lalm.prompt("").before))
    row = torch.cat([before, lalm.align(frames), lalm.embed(torch.tensor(ids))])
    hidden = lalm.language_model(inputs_embeds=row[None]).last_hidden_state[0, -len(ids) :]
    return lalm.lm_head(hidden).log_softmax(-1)


@pytest.mark.parametrize("window", WINDOWS)
def test_log_probs_and_gradients_are_those_of_whole_sequences(window: int) -> None:
    lalm = tiny_lalm(window=window)
    clips = [tiny_features(n, n) for n in (3, 30)]
    packed = branch_logps(listen(lalm, clips), BRANCHES)
    alone = []
    for branch in BRANCHES:
        ids, n = [*branch.prompt, *branch.answer], len(branch.answer)
        of_answer = next_tokens(lalm, clips[branch.owner], ids)[-n - 1 : -1]
        alone.append(of_answer.gather(-1, torch.tensor(branch.answer)[:, None])[:, 0])
    expected = torch.cat(alone)
    assert torch.allclose(packed.logp_BT[packed.mask_BT], expected, atol=1e-5)
    weights = [*lalm.aligner.parameters(), lalm.language_model.layers[0].self_attn.k_proj.weight]
    ours, theirs = (torch.autograd.grad(x.sum(), weights) for x in (packed.logp_BT, expected))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(ours, theirs, strict=True))
    if window < 1000:  # it matters: all of the prefix would give other numbers
        whole = branch_logps(listen(tiny_lalm(), clips), BRANCHES)
        assert not torch.allclose(whole.logp_BT, packed.logp_BT, atol=1e-2)


@pytest.mark.parametrize("window", [2, 24])
@torch.no_grad()
def test_greedy_samples_are_those_of_whole_sequences(window: int) -> None:
    lalm = tiny_lalm(window=window)
    clips = [tiny_features(n, n) for n in (3, 30)]
    prompts = [branch.prompt for branch in BRANCHES]
    drawn = sample(listen(lalm, clips), [b.owner for b in BRANCHES], prompts, max_new_tokens=8, temperature=0)
    for branch, one in zip(BRANCHES, drawn, strict=True):
        ids = [*branch.prompt]
        for token, logp in zip(one.ids, one.logps, strict=True):
            after = next_tokens(lalm, clips[branch.owner], ids)[-1]
            assert (int(after.argmax()), float(after.max())) == (token, pytest.approx(logp, abs=1e-5))
            ids.append(token)


@pytest.mark.parametrize("asked", [{"softcap": 50.0}, {"s_aux": torch.zeros(2)}, {}])
def test_what_attention_over_branches_does_not_compute_is_refused(asked: dict[str, object]) -> None:
    """Training and sampling alike: a keyword that is dropped would give other numbers than the model's."""
    module, row = nn.Identity(), torch.zeros(1, 2, 5, 8)
    module.is_causal = bool(asked)  # type: ignore[assignment]
    where = layout([3], [2], [0], torch.device("cpu"))
    mask = torch.ones(1, 3, dtype=torch.bool)
    cache = BranchCache(KeyValues((), (), mask, torch.tensor([3])), torch.tensor([0]), 5)
    what = next(iter(asked), "attention to later positions")
    with pytest.raises(ModelError, match=f"Identity asks for {what}, .* cannot be trained"):
        branch_attention(module, row, row, row, None, branches=where, **asked)
    with pytest.raises(ModelError, match=f"Identity asks for {what}"):
        cached_attention(module, row, row, row, None, branch_cache=cache, scaling=1.0, **asked)

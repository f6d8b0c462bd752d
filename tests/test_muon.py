from __future__ import annotations

import pytest
import torch

from tgsr.miniature.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(8, 8), (16, 6), (6, 16)])
def test_torchs_muon_does_the_same_in_bfloat16(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = (
        Muon([ours], lr=0.1, weight_decay=0.01),
        torch.optim.Muon([theirs], lr=0.1, weight_decay=0.01),
    )
    for _ in range(5):
        gradient = torch.randn(shape, generator=generator)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_what_is_orthogonalised_has_singular_values_near_one_and_stays_float32() -> None:
    matrix = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    result = orthogonalised(matrix)
    assert result.dtype == torch.float32
    assert ((torch.linalg.svdvals(result) - 1).abs() < 0.5).all()
    assert (orthogonalised(torch.zeros(3, 4)) == 0).all()

"""The engine's one row of clips and branches against the usual way: whole sequences, placeholders, padded batches.

Families whose audio stands in the row, padded on the left and on the right, through the official forward: token ids
with one placeholder a frame, features and their mask as the official extractor makes them, an attention mask.

Axes: C clips, B branches, T answer tokens, N tokens of a padded row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tgsr.check.official import Side, official_inputs
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tiny import tiny_features, tiny_gemma4, tiny_lalm, tiny_qwen2_audio, tiny_qwen_omni, trainable

FAMILIES = {
    "Audio Flamingo 3": tiny_lalm,
    "Gemma 4": tiny_gemma4,
    "Qwen2-Audio": partial(tiny_qwen2_audio, seconds=10),
    "Qwen2.5-Omni": partial(tiny_qwen_omni, seconds=10),
}


@pytest.fixture(scope="module", params=FAMILIES)
def lalm(request: pytest.FixtureRequest) -> Any:
    """The family's tiny model with a LoRA that is not zero; LoRA and aligner train."""
    return trainable(FAMILIES[request.param]())


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """Three clips of mixed lengths: within one of Omni's chunks of 2 s, over several, and with an odd tail."""
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in (14321, 83000, 36000)]


def ragged_branches(lalm: Any) -> list[Branch]:
    """Branches of three clips, of very different lengths, not in the clips' order."""
    asked = [
        (1, "When?", "0.12 - 3"),
        (0, "Which digit is said right after seven? (a) one (b) two (c) three (d) four", "(b) two"),
        (2, "Who?", "four"),
        (1, "x", "yes no yes " * 12),
        (0, "When?", "From 1.20s to 3.40s, the speaker says seven two. Final answer: (b) two"),
    ]
    return [Branch(o, lalm.prompt(q).after, (*lalm.tokens(a), lalm.eos_id)) for o, q, a in asked]


def engine_logps(lalm: Any, audio: Sequence[Tensor], branches: Sequence[Branch]) -> tuple[Tensor, Tensor]:
    """The engine's log-probs of the answers' tokens, B x T, and which of them are real."""
    packed = branch_logps(listen(lalm, audio), branches)
    return packed.logp_BT, packed.mask_BT


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_row_of_branches_is_the_official_padded_batch(
    lalm: Any, clips: list[np.ndarray], side: Side
) -> None:
    """Log-probs, the loss, and the gradients of every aligner and LoRA weight."""
    branches = ragged_branches(lalm)
    inputs, labels_BN = official_inputs(lalm, clips, branches, side)
    official = lalm.inner(**inputs, labels=labels_BN)
    logp_BNV = official.logits[:, :-1].log_softmax(-1)
    expected_BN = logp_BNV.gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]

    logp_BT, mask_BT = engine_logps(lalm, [lalm.encode_audio(clip) for clip in clips], branches)
    loss = -logp_BT[mask_BT].mean()

    for row, mask, theirs, labels in zip(logp_BT, mask_BT, expected_BN, labels_BN[:, 1:], strict=True):
        assert torch.allclose(row[mask], theirs[labels != -100], atol=1e-5)
    assert torch.allclose(loss, official.loss, atol=1e-5)
    trained = {name: weight for name, weight in lalm.model.named_parameters() if weight.requires_grad}
    assert any(".lora_" in name for name in trained)
    assert any(".lora_" not in name for name in trained)
    ours = torch.autograd.grad(loss, list(trained.values()))
    theirs = torch.autograd.grad(official.loss, list(trained.values()))
    for name, one, other in zip(trained, ours, theirs, strict=True):
        assert one.abs().max() > 1e-4, name
        assert torch.allclose(one, other, atol=1e-5), name


def test_a_branch_alone_and_beside_others_is_the_same(lalm: Any, clips: list[np.ndarray]) -> None:
    branches = ragged_branches(lalm)
    audio = [lalm.encode_audio(clip) for clip in clips]
    with torch.no_grad():
        together, mask_BT = engine_logps(lalm, audio, branches)
        for row, mask, branch in zip(together, mask_BT, branches, strict=True):
            alone, _ = engine_logps(lalm, audio, [branch])
            assert torch.allclose(row[mask], alone[0], atol=1e-5)


@pytest.mark.parametrize("change", ["silence", "swap", "misplace"])
def test_other_audio_is_another_loss(lalm: Any, change: str) -> None:
    """What TRL's trainers get wrong in silence: a loss that does not depend on the audio."""
    clips = [tiny_features(10, 1), tiny_features(10, 2)]
    heard = {
        "silence": [torch.zeros(10, 16), clips[1]],
        "swap": [clips[1], clips[0]],
        "misplace": [clips[0].roll(3, 0), clips[1]],
    }[change]
    branches = [Branch(0, lalm.prompt("When?").after, (5, 6, 7))]
    before = branch_logps(listen(lalm, clips), branches).logp_BT
    after = branch_logps(listen(lalm, heard), branches).logp_BT
    assert (before - after).abs().max() > 1e-3

"""The decoder as plain tensors against its own modules, for each family: the same tokens, the same log-probs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from others import granite_folder, phi4_folder, voxtral_folder
from test_mini_lm import tiny_mini_lm
from tgsr.engine.sampling import ByModules, Sampled, sample, uniforms
from tgsr.engine.plain_decoder import PlainDecoder
from tgsr.engine.shared_prefix import listen
from tgsr.models.load import load
from tiny import (
    qwen3_omni_folder,
    tiny_gemma4,
    tiny_lalm,
    tiny_qwen2_audio,
    tiny_qwen_omni,
    tiny_whisper,
    trainable,
)

FAMILIES: dict[str, Callable[[Path], Any]] = {
    "qwen2": lambda folder: tiny_lalm(),
    "qwen2 with a window": lambda folder: tiny_lalm(window=4),
    "llama": lambda folder: tiny_mini_lm(),
    "qwen2.5-omni": lambda folder: tiny_qwen_omni(),
    "qwen3-omni": lambda folder: load(str(qwen3_omni_folder(folder))),
    "qwen2-audio": lambda folder: tiny_qwen2_audio(),
    "voxtral": lambda folder: load(str(voxtral_folder(folder))),
    "granite": lambda folder: load(str(granite_folder(folder))),
    "phi-4": lambda folder: load(str(phi4_folder(folder))),
    "gemma 4": lambda folder: tiny_gemma4(),
    "gemma 4 unified": lambda folder: tiny_gemma4(unified=True),
    "whisper": lambda folder: tiny_whisper(),
}
N_NEW = 16


def heard(lalm: Any, *n_frames: int) -> Any:
    """Clips of that many frames, at random, as the decoder hears them."""
    generator = torch.Generator().manual_seed(0)
    width = lalm.language_model.config.hidden_size
    frames = [torch.randn(n, width, generator=generator) for n in n_frames]
    with torch.no_grad():
        return listen(lalm, frames, aligned=True)


def drawn(lalm: Any, decoder: Any, temperature: float, **more: Any) -> list[Sampled]:
    """Five answers to ragged prompts about two clips."""
    prompts = [(5, 6, 7), (8,), (9, 5), (6,), (7, 8)]
    draws = uniforms(5, N_NEW, 0)
    return sample(
        heard(lalm, 17, 3),
        [0, 1, 0, 0, 1],
        prompts,
        max_new_tokens=N_NEW,
        temperature=temperature,
        top_p=0.9,
        uniform_BN=draws,
        decoder=decoder,
        **more,
    )


def same(ours: list[Sampled], theirs: list[Sampled], atol: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.ids == other.ids
        assert torch.allclose(torch.tensor(one.logps), torch.tensor(other.logps), atol=atol)


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_layers_write_what_the_decoders_own_modules_write(family: str, tmp_path: Path) -> None:
    lalm = trainable(FAMILIES[family](tmp_path / "model"))
    for temperature in (0.0, 0.7):
        ours = drawn(lalm, PlainDecoder.read(lalm), temperature)
        theirs = drawn(lalm, ByModules(lalm), temperature)
        same(ours, theirs, 1.3e-5)
    assert len({one.ids for one in ours}) > 1

"""The decoder as plain tensors against its own modules, for each family: the same tokens, the same log-probs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration, MistralConfig
from transformers.utils import is_mistral_common_available

from others import granite_folder, phi4_folder, voxtral_folder
from test_mini_lm import tiny_mini_lm
from tgsr.engine.branch_cache import BranchCache, KeyValues, prefill
from tgsr.engine.matrices import product
from tgsr.engine.plain_decoder import PlainDecoder, uncovered
from tgsr.engine.sampling import ByModules, Sampled, decoder_of, sample, uniforms
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.errors import ModelError
from tgsr.models.aligner_and_lora import with_lora
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.load import load
from tiny import (
    DECODER,
    qwen3_omni_folder,
    tiny_gemma4,
    tiny_lalm,
    tiny_qwen2_audio,
    tiny_qwen_omni,
    tiny_whisper,
    trainable,
)


def tiny_mistral() -> AudioFlamingo3:
    """Whose attention finds its window in the configuration."""
    lalm = tiny_lalm()
    config = lalm.inner.config
    decoder = MistralConfig(vocab_size=config.text_config.vocab_size, **DECODER, sliding_window=6)
    heard = {"audio_config": config.audio_config, "audio_token_id": config.audio_token_id}
    config = AudioFlamingo3Config(text_config=decoder, **heard)
    return replace(lalm, model=AudioFlamingo3ForConditionalGeneration(config).eval())


FAMILIES: dict[str, Callable[[Path], Any]] = {
    "qwen2": lambda folder: tiny_lalm(),
    "qwen2 with a window": lambda folder: tiny_lalm(window=4),
    "mistral": lambda folder: tiny_mistral(),
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


def pairs(kept: KeyValues) -> list[tuple[torch.Tensor, ...]]:
    return list(zip(kept.keys, kept.values, strict=True))


NEEDS = pytest.mark.skipif(not is_mistral_common_available(), reason="pip install -e '.[voxtral]'")


@pytest.mark.parametrize(
    "family", [*sorted(FAMILIES.keys() - {"voxtral"}), pytest.param("voxtral", marks=NEEDS)]
)
def test_plain_layers_write_what_the_decoders_own_modules_write(family: str, tmp_path: Path) -> None:
    lalm = trainable(FAMILIES[family](tmp_path / "model"))
    plain = PlainDecoder.read(lalm)
    if plain.reads_prompts:
        prefix = heard(lalm, 17, 3)
        for ours, theirs in zip(pairs(plain.prefill(prefix)), pairs(prefill(prefix)), strict=True):
            for some, other in zip(ours, theirs, strict=True):
                assert torch.allclose(some, other, atol=1e-5)
    for temperature in (0.0, 0.7):
        same(drawn(lalm, plain, temperature), drawn(lalm, ByModules(lalm), temperature), 1.3e-5)
    assert len({one.ids for one in drawn(lalm, plain, 0.7)}) > 1


def test_at_once_and_leaving_branches_change_no_draw() -> None:
    lalm = trainable(tiny_lalm(window=4))
    lalm.end_ids = tuple(range(3, 40))  # most answers end soon, at unlike lengths
    whole = drawn(lalm, PlainDecoder.read(lalm), 0.7)
    assert len({len(one.ids) for one in whole}) > 2
    same(whole, drawn(lalm, ByModules(lalm), 0.7), 1.3e-5)
    same(whole, drawn(lalm, PlainDecoder.read(lalm), 0.7, at_once=2), 1.3e-5)
    int8 = PlainDecoder.read(lalm, "int8")  # a row's rounding is its own
    same(drawn(lalm, int8, 0.7), drawn(lalm, int8, 0.7, at_once=2), 1.3e-5)


@pytest.mark.parametrize("family", ["qwen2", "gemma 4", "whisper"])
def test_int8_rounds_what_it_is_given_and_nothing_else(family: str, tmp_path: Path) -> None:
    """The log-probs of its own tokens are near the trainer's, and not the same."""
    lalm = trainable(FAMILIES[family](tmp_path))
    rounded = drawn(lalm, PlainDecoder.read(lalm, "int8"), 0.7)
    prompts = [(5, 6, 7), (8,), (9, 5), (6,), (7, 8)]
    branches = [Branch(o, p, one.ids) for o, p, one in zip([0, 1, 0, 0, 1], prompts, rounded, strict=True)]
    with torch.no_grad():
        exact = branch_logps(heard(lalm, 17, 3), branches, temperature=0.7)
    apart = (exact.logp_BT[exact.mask_BT] - torch.tensor([x for one in rounded for x in one.logps])).abs()
    assert 1e-4 < apart.mean() < 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("packed", [True, False])
def test_a_product_is_peft_s_own_and_leaves_the_model_as_it_is(dtype: torch.dtype, packed: bool) -> None:
    """With the LoRA in the matrix or beside it, with biases and without, several layers as one, the LoRA off."""
    lalm = trainable(tiny_lalm())
    lalm.inner.to(dtype)
    attention = lalm.language_model.layers[0].self_attn
    modules = [attention.q_proj, attention.k_proj, attention.v_proj]
    before = {name: weight.clone() for name, weight in lalm.model.named_parameters()}
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    for off in (nullcontext(), lalm.model.disable_adapter()):
        with off, torch.no_grad():
            theirs = torch.cat([module(x) for module in modules], -1)
            ours = product(modules, dtype, packed=packed)(x)
        assert ours.dtype == dtype
        assert torch.allclose(ours, theirs, atol=1e-5 if dtype == torch.float32 else 0.1)
    assert all(torch.equal(before[name], weight) for name, weight in lalm.model.named_parameters())


def test_within_autocast_it_is_as_near_to_float32_as_the_modules_are() -> None:
    """How far bfloat16 is from it depends on the processor: products are rounded otherwise where it multiplies them."""
    lalm = trainable(tiny_lalm())
    exact = drawn(lalm, PlainDecoder.read(lalm), 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        ours = drawn(lalm, PlainDecoder.read(lalm), 0.0)
        theirs = drawn(lalm, ByModules(lalm), 0.0)

    def apart(rounded: list[Sampled]) -> float:
        """The mean over the tokens before the two texts part."""
        found: list[float] = []
        for one, other in zip(rounded, exact, strict=True):
            assert one.ids[0] == other.ids[0]
            same = [i == j for i, j in zip(one.ids, other.ids, strict=False)]
            n = same.index(False) if False in same else len(same)
            found += [abs(a - b) for a, b in zip(one.logps[:n], other.logps[:n], strict=True)]
        return sum(found) / len(found)

    assert 0 < apart(ours) < 1.5 * apart(theirs) < 0.1


def test_a_layer_that_is_not_known_samples_by_its_own_modules_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class ParallelDecoderLayer(type(tiny_lalm().language_model.layers[0])):  # type: ignore[misc]
        pass

    lalm = tiny_lalm()
    known = drawn(lalm, None, 0.7)
    assert not caplog.text
    for layer in lalm.language_model.layers:
        layer.__class__ = ParallelDecoderLayer
    same(drawn(lalm, None, 0.7), known, 1.3e-5)
    assert "sampled by its own modules, which is slower: its layers are ParallelDecoderLayer" in caplog.text
    with pytest.raises(ModelError, match="its layers are ParallelDecoderLayer"):
        decoder_of(lalm, "int8")
    lalm = tiny_lalm()
    with_lora(lalm, 2, 4, 0)
    lalm.language_model.layers[1].mlp.down_proj.lora_B["default"].bias = torch.nn.Parameter(torch.ones(32))
    assert "of more than weights and a plain LoRA" in uncovered(lalm)


def test_steps_can_be_recorded_what_they_read_and_write_stays_in_its_place() -> None:
    """As a CUDA graph needs it: with the cache's tensors where they were, a step's numbers are those of one that is
    free to move them."""
    lalm = trainable(tiny_lalm(window=4))
    kept, owners = prefill(heard(lalm, 17, 3)), torch.tensor([0, 1, 0])
    position_B = kept.lengths_C[owners]
    plain = PlainDecoder.read(lalm)
    caches = [BranchCache(kept, owners, 8, fixed=fixed) for fixed in (False, True)]
    steps = [plain.steps(cache, 0, 40) for cache in caches]
    places: set[tuple[int, ...]] = set()
    with torch.no_grad():
        for n in range(8):
            embeds_BD = lalm.embed(torch.tensor([5, 6, 7]) + n)
            for cache in caches:
                cache.extend()
            free, fixed = (step(embeds_BD, position_B + n) for step in steps)
            assert torch.allclose(free, fixed, atol=1e-5)
            held = [*caches[1].keys.values(), *caches[1].values.values(), caches[1].new_N]
            masks = [m for shown in caches[1].shown.values() for m in (shown.prefix_mask, shown.own_mask)]
            places.add(tuple(t.data_ptr() for t in (*held, *masks) if t is not None))
    assert len(places) == 1

"""Merged checkpoints against the adapter on its base, in each family and the miniature."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AudioFlamingo3ForConditionalGeneration,
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioForConditionalGeneration,
)

from others import phi4_folder
from tgsr import cli
from tgsr.audio import SAMPLE_RATE
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.errors import ModelError
from tgsr.models.aligner_and_lora import with_lora
from tgsr.models.load import load, save_adapter
from tgsr.models.merge import merge
from tgsr.models.packaged_weights import cache_folder
from tgsr.models.placement import LoadAs, Placement
from tiny import af3_folder, omni_folder, qwen2_audio_folder, saved, tiny_lalm

MAKE = {"audio_flamingo3": af3_folder, "qwen2_audio": qwen2_audio_folder, "qwen_omni": omni_folder}
CLASSES: dict[str, Any] = {
    "audio_flamingo3": AudioFlamingo3ForConditionalGeneration,
    "qwen2_audio": Qwen2AudioForConditionalGeneration,
    "qwen_omni": Qwen2_5OmniThinkerForConditionalGeneration,
}


# For what no family has a part in: the one with the smallest vocabulary.
in_one_family = pytest.mark.parametrize("family", ["qwen2_audio"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=MAKE)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def base(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKE[family](tmp_path_factory.mktemp("hub") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained aligner and a LoRA that is not zero."""
    lalm = load(str(base))
    with_lora(lalm, rank=2, alpha=4, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in lalm.model.named_parameters():
            if ".lora_B." in name:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
        for weight in lalm.aligner.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    folder = tmp_path_factory.mktemp("trained") / "adapter"
    save_adapter(lalm, folder)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: weight for file in folder.glob("*.safetensors") for name, weight in load_file(file).items()}


def logps(lalm: Any) -> torch.Tensor:
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(SAMPLE_RATE)).astype(np.float32)
    branches = [Branch(0, lalm.prompt("When?").after, (5, 6, 7, 100))]
    with torch.no_grad():
        return branch_logps(listen(lalm, [lalm.encode_audio(samples)]), branches).logp_BT


def test_a_merged_checkpoint_is_the_adapter_on_its_base(
    family: str, base: Path, adapter: Path, tmp_path: Path
) -> None:
    expected, without = logps(load(str(adapter))), logps(load(str(base)))
    assert cli.main(["merge", "--model", str(adapter), "--out", str(tmp_path / "merged")]) == 0
    merged = load(str(tmp_path / "merged"))
    assert torch.allclose(logps(merged), expected, atol=1e-5)
    assert (expected - without).abs().max() > 0.01
    assert not any(".lora_" in name for name, _ in merged.model.named_parameters())
    assert {path.suffix for path in (tmp_path / "merged").iterdir()} <= {".json", ".safetensors", ".jinja"}
    _, loaded = CLASSES[family].from_pretrained(str(tmp_path / "merged"), output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    with pytest.raises(ModelError, match="exists"):
        merge(load(str(adapter)), tmp_path / "merged")


def test_a_merged_checkpoint_holds_what_its_base_holds(
    family: str, base: Path, adapter: Path, tmp_path: Path
) -> None:
    """Of a whole Omni: talker and vocoder too, as they were, under the base's own type."""
    merged = merge(load(str(adapter)), tmp_path / "merged")
    names, theirs = weights(merged), weights(base)
    assert names.keys() == theirs.keys()
    others = [name for name in theirs if name.startswith(("talker.", "token2wav."))]
    assert bool(others) == (family == "qwen_omni")
    assert all(torch.equal(names[name], theirs[name]) for name in others)
    types = [json.loads((folder / "config.json").read_text())["model_type"] for folder in (merged, base)]
    assert types[0] == types[1]


def test_an_adapter_has_the_hubs_names_which_vllm_reads(family: str, adapter: Path) -> None:
    begins = {
        "audio_flamingo3": "base_model.model.language_model.model.",
        "qwen2_audio": "base_model.model.language_model.model.",
        "qwen_omni": "base_model.model.thinker.model.",
    }
    names = list(load_file(adapter / "adapter_model.safetensors"))
    assert names
    assert all(name.startswith(begins[family] + "layers.") for name in names)


def test_an_adapter_is_pefts_own(family: str, base: Path, adapter: Path) -> None:
    """PEFT alone, on transformers' class: the LoRA's matrices are there, none is missing, none is new."""
    ours = load(str(adapter))
    model = CLASSES[family].from_pretrained(str(base))
    theirs = PeftModel.from_pretrained(model, str(adapter))
    kept = {name: weight for name, weight in theirs.named_parameters() if ".lora_" in name}
    assert kept
    for name, weight in ours.model.named_parameters():
        if ".lora_" in name:
            assert torch.equal(weight, kept[name])
    assert len(kept) == sum(".lora_" in name for name, _ in ours.model.named_parameters())


def test_a_whole_omni_takes_the_lora_at_its_thinker(family: str, base: Path, adapter: Path) -> None:
    if family != "qwen_omni":
        pytest.skip("only Qwen2.5-Omni is a part of something larger")
    thinker = CLASSES[family].from_pretrained(str(base)).config.to_dict()
    whole = Qwen2_5OmniForConditionalGeneration(
        Qwen2_5OmniConfig(thinker_config=thinker, enable_audio_output=False)
    )
    PeftModel.from_pretrained(whole.thinker, str(adapter))
    ours = {n: w for n, w in load(str(adapter)).model.named_parameters() if ".lora_" in n}
    kept = {n: w for n, w in whole.named_parameters() if ".lora_" in n}
    assert len(kept) == len(ours) > 0
    for name, weight in ours.items():
        assert torch.equal(weight, kept["thinker." + name.removeprefix("base_model.model.")])


def test_a_bfloat16_base_is_added_up_in_float32(base: Path, adapter: Path, tmp_path: Path) -> None:
    exact = load(str(adapter))
    lalm = load(str(adapter), Placement("bfloat16"))
    merge(exact, tmp_path / "exact")
    merge(lalm, tmp_path / "rounded")
    loaded, reference = load(str(tmp_path / "rounded")), load(str(tmp_path / "exact"))
    assert next(loaded.language_model.parameters()).dtype == torch.bfloat16
    for (name, one), (_, other) in zip(
        loaded.language_model.named_parameters(), reference.language_model.named_parameters(), strict=True
    ):
        assert torch.allclose(one.float(), other, rtol=2**-6, atol=2e-3), name


def test_the_miniature_becomes_a_folder_of_its_own(tmp_path: Path) -> None:
    if not (cache_folder() / "whisper-base-encoder.safetensors").exists():
        pytest.skip("Whisper base's encoder is not there: `make fetch` downloads it, once")
    lalm = load("mini:tgsr")
    expected = logps(lalm)
    merged = load(str(merge(lalm, tmp_path / "mini")))
    assert torch.allclose(logps(merged), expected, atol=1e-4)
    assert merged.max_seconds == 10


@in_one_family
@pytest.mark.parametrize("part", ["aligner.safetensors", "adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_that_lost_a_file_is_no_other_model(adapter: Path, tmp_path: Path, part: str) -> None:
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    (copy / part).unlink()
    with pytest.raises(ModelError, match=f"{part}: is missing or was altered"):
        load(str(copy))


@in_one_family
def test_damage_to_an_adapter_is_named_with_its_file(adapter: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    about = json.loads((copy / "adapter.json").read_text())
    for text in ("{", "{}", "[]"):
        (copy / "adapter.json").write_text(text)
        with pytest.raises(ModelError, match=r"adapter\.json: is not what"):
            load(str(copy))
    about.pop("files")  # as adapters were saved before: other checks still hold
    (copy / "adapter.json").write_text(json.dumps({**about, "base": str(tmp_path / "moved")}))
    with pytest.raises(ModelError, match=r"adapter\.json: its base .*moved cannot be loaded"):
        load(str(copy))
    (copy / "adapter.json").write_text(json.dumps(about))
    kept = load_file(copy / "adapter_model.safetensors")
    save_file({f"other.{name}": weight for name, weight in kept.items()}, copy / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="it would change nothing"):
        load(str(copy))
    (copy / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="its LoRA is truncated"):
        load(str(copy))


# --- which base an adapter fits ------------------------------------------------------------------------------------


def uneven_base(folder: Path, shift: float = 0.0) -> str:
    """A tiny model whose norms bfloat16 rounds."""
    lalm = tiny_lalm()
    with torch.no_grad():
        for name, weight in lalm.language_model.named_parameters():
            if name.endswith("norm.weight"):
                weight += 0.0041 + shift
    return saved(lalm, folder)


@pytest.mark.parametrize(("trained", "used"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_an_adapter_fits_its_base_in_whatever_width_both_were_loaded(
    tmp_path: Path, trained: LoadAs, used: LoadAs
) -> None:
    name = uneven_base(tmp_path / "base")
    lalm = load(name, Placement(trained))
    with_lora(lalm, rank=2, alpha=4, seed=0)
    save_adapter(lalm, tmp_path / "adapter")
    assert load(str(tmp_path / "adapter"), Placement(used)).base == name
    uneven_base(tmp_path / "base", shift=0.01)
    with pytest.raises(ModelError, match="was trained on another model"):
        load(str(tmp_path / "adapter"), Placement(used))


def test_in_its_own_width_a_base_is_told_apart_by_the_last_bit(tmp_path: Path) -> None:
    lalm = load(uneven_base(tmp_path / "base"))
    save_adapter(lalm, tmp_path / "adapter")
    uneven_base(tmp_path / "base", shift=1e-6)
    with pytest.raises(ModelError, match="was trained on another model"):
        load(str(tmp_path / "adapter"))


def test_an_adapter_of_before_has_one_fingerprint_and_is_still_known(tmp_path: Path) -> None:
    save_adapter(load(uneven_base(tmp_path / "base")), tmp_path / "adapter")
    described = tmp_path / "adapter" / "adapter.json"
    about = json.loads(described.read_text())
    del about["rounded"], about["dtype"]
    described.write_text(json.dumps(about))
    load(str(tmp_path / "adapter"))
    described.write_text(json.dumps(about | {"fingerprint": "0" * 16}))
    with pytest.raises(ModelError, match="was trained on another model"):
        load(str(tmp_path / "adapter"))


def test_a_lora_on_a_tied_head_is_not_merged_into_the_embedding_too(tmp_path: Path) -> None:
    """PEFT warns and merges: what comes out differs by 3 nats a token from the adapter on its base."""
    base = str(phi4_folder(tmp_path / "base", tied=True))
    lalm = load(base)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["lm_head"], init_lora_weights=False)
    lalm.model = get_peft_model(lalm.inner, config)
    before = lalm.language_model.get_input_embeddings().weight.clone()
    with pytest.raises(ModelError, match="on the head, whose matrix is the embedding's"):
        merge(lalm, tmp_path / "merged")
    assert torch.equal(lalm.language_model.get_input_embeddings().weight, before)
    assert not (tmp_path / "merged").exists()

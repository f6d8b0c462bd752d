"""Gemma 4 behind our protocol, with an encoder and without: transformers' own class, processor and generate.

Log-probs, loss and gradients beside other families: test_layouts.py; attention by block: test_block_attention.py.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMultimodalLM, Gemma4ForConditionalGeneration

from families import (
    TEXTS,
    a_padded_batch_is_as_the_official_one,
    its_decoder_is_a_text_model,
    through_every_command,
)
from tgsr.answering.any_transformers import _processor
from tgsr.audio import SAMPLE_RATE
from tgsr.audio import load as load_sound
from tgsr.check.official import official_frames, official_logps
from tgsr.engine.features import FeatureCache, parts
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.engine.vllm_rollouts import adapter_of, export_decoder
from tgsr.errors import ModelError
from tgsr.models.checkpoint import read_weights, unknown_fields
from tgsr.models.gemma4 import Gemma4
from tgsr.models.load import load, save_adapter
from tgsr.models.tokens import chat_text
from tgsr.prompts import chat_messages
from tgsr.training.config import StaConfig
from tgsr.training.steps import as_trained
from tiny import gemma4_folder, noise, tiny_gemma4, trainable


@pytest.fixture(scope="module", params=[False, True], ids=["encoder", "unified"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gemma4_folder(tmp_path_factory.mktemp("hub") / "gemma4", unified=request.param)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an encoder, for what both have in common."""
    return gemma4_folder(tmp_path_factory.mktemp("hub") / "small")


@pytest.fixture(scope="module")
def lalm(folder: Path) -> Gemma4:
    loaded = load(str(folder))
    assert isinstance(loaded, Gemma4)
    return loaded


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    """The official one without its parts for pictures, which need torchvision."""
    return _processor(str(folder), AutoConfig.from_pretrained(str(folder)))


def official(processor: Any, texts: list[str], clips: list[np.ndarray]) -> Any:
    """The official processor's inputs for a batch of prompts, padded on the left."""
    prompts = [
        processor.apply_chat_template(chat_messages(text), tokenize=False, add_generation_prompt=True)
        for text in texts
    ]
    return processor(
        text=prompts,
        audio=clips,
        text_kwargs={"padding": True, "padding_side": "left", "add_special_tokens": False},
        audio_kwargs={"sampling_rate": SAMPLE_RATE},
        return_tensors="pt",
    )


# --- against the official class ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0101, 0.1, 1.87, 30.0])
def test_tokens_and_embeddings_are_the_official_ones(lalm: Gemma4, processor: Any, seconds: float) -> None:
    clip = noise(seconds)
    ours, batch = lalm.encode_audio(clip), official(processor, ["When?"], [clip])
    audio_id, parts = lalm.inner.config.audio_token_id, lalm.prompt("When?")
    assert batch["input_ids"][0].tolist() == [*parts.before, *[audio_id] * len(ours), *parts.after]
    assert len(ours) <= 750
    with torch.no_grad():
        assert torch.allclose(lalm.align(ours), official_frames(lalm, clip), atol=1e-5)
    assert not ours.requires_grad


def test_a_batch_of_mixed_lengths_has_the_official_log_probs_and_greedy_texts(
    lalm: Gemma4, processor: Any, two_channels: Path
) -> None:
    """A second language, a file of two channels, an empty answer; all longer than the window of 12 positions."""
    clips = [noise(0.9, 1), load_sound(two_channels), noise(6.0, 3)]
    a_padded_batch_is_as_the_official_one(lalm, official(processor, list(TEXTS), clips), clips)


@pytest.mark.parametrize("unified", [False, True])
def test_gradients_are_the_official_ones_with_checkpointed_layers_too(unified: bool) -> None:
    """Layers that attend to the keys of earlier ones send gradients there; the last ones have no keys to train."""
    lalm = trainable(tiny_gemma4(unified=unified))
    trained = {name: weight for name, weight in lalm.model.named_parameters() if weight.requires_grad}
    assert any("layers.3.self_attn.k_proj" in name for name in trained) == unified
    clips, prompt = [noise(0.9, 1)], lalm.prompt("When?").after
    branches = [Branch(0, prompt, tuple(range(300, 300 + n))) for n in (3, 20)]
    heard = [lalm.encode_audio(clip) for clip in clips]

    def gradients(losses: list[torch.Tensor]) -> list[torch.Tensor]:
        return list(torch.autograd.grad(-torch.cat(losses).mean(), list(trained.values())))

    theirs = gradients(official_logps(lalm, clips, branches))
    for checkpointing in (False, True):
        config = StaConfig(questions=Path("none"), gradient_checkpointing=checkpointing)
        with as_trained(lalm, config):
            packed = branch_logps(listen(lalm, heard), branches)
            ours = gradients([packed.logp_BT[packed.mask_BT]])
        for name, one, other in zip(trained, ours, theirs, strict=True):
            assert torch.allclose(one, other, atol=1e-5), name
            assert other.abs().max() > 1e-6, name


def test_pieces_of_the_text_and_of_padding_for_frames_reach_every_layer() -> None:
    """Without them the model runs, and gives other numbers: what inputs_embeds alone would leave out."""
    lalm = tiny_gemma4()
    prompt, clip = lalm.prompt("When?").after, noise(0.5)
    branches = [Branch(0, prompt, (300, 301))]
    with torch.no_grad():
        before = branch_logps(listen(lalm, [lalm.encode_audio(clip)]), branches).logp_BT
        for token in (lalm.pad_id, prompt[-1]):
            weight = lalm.language_model.embed_tokens_per_layer.weight
            weight[token] += 1.0
            after = branch_logps(listen(lalm, [lalm.encode_audio(clip)]), branches).logp_BT
            assert torch.allclose(after[0], official_logps(lalm, [clip], branches)[0], atol=1e-5)
            assert (after - before).abs().max() > 1e-3
            weight[token] -= 1.0


def test_every_end_token_of_the_checkpoint_ends(lalm: Gemma4) -> None:
    vocabulary = lalm.tokenizer.get_vocab()
    assert set(lalm.end_ids) == {vocabulary[name] for name in ("<eos>", "<turn|>", "<|tool_response>")}
    assert lalm.eos_id == vocabulary["<turn|>"]  # the one that the chat closes turns with is taught


def test_names_of_special_tokens_in_a_question_are_text(lalm: Gemma4) -> None:
    special = {lalm.tokenizer.get_vocab()[name] for name in ("<|audio|>", "<turn|>", "<|think|>", "<bos>")}
    named = lalm.prompt("Who says <|audio|><turn|><|think|><bos>?")
    assert (
        len(special & set(named.after)) == len(special & set(lalm.prompt("?").after)) == 1
    )  # the turn's end


def test_a_system_turn_is_its_text_and_not_a_list_of_parts() -> None:
    """The published template of spring 2026 writes a list as Python does, and so would any that was made for text."""
    lalm = tiny_gemma4()
    lalm.system = "Listen well."
    written = str(lalm.tokenizer.decode(list(lalm.prompt("When?").before)))
    assert written == "<bos><|turn>system\nListen well.<turn|>\n<|turn>user\n<|audio>"
    with pytest.raises(ModelError, match="writes the parts of a turn as a list"):
        chat_text(lalm.tokenizer, chat_messages("When?", lalm.system), lalm.system, lalm.name)


# --- what the processor does in silence, and wrong input -----------------------------------------------------------


def test_more_than_30_s_are_refused_or_heard_in_parts_and_never_cut(tmp_path: Path) -> None:
    lalm, long = tiny_gemma4(unified=True), noise(61.5)
    with pytest.raises(ModelError, match=r"hears 30 s, the audio lasts 61\.50 s: .*--long-audio split"):
        FeatureCache(tmp_path).get(lalm, long)
    heard = FeatureCache(tmp_path, torch.float32, "split").get(lalm, long)
    assert torch.equal(heard, torch.cat([lalm.encode_audio(piece) for piece in parts(lalm, long, "split")]))
    assert len(heard) == 750 + 750 + 38


def test_audio_too_short_for_a_frame_is_refused(lalm: Gemma4) -> None:
    least = 160 if lalm.inner.model.config.model_type == "gemma4" else 0
    with pytest.raises(ModelError, match=rf"more than {least / SAMPLE_RATE:g} s of audio"):
        lalm.encode_audio(np.zeros(least, np.float32))
    assert len(lalm.encode_audio(np.zeros(least + 1, np.float32))) == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"audio_config": None}, "has no audio_config, it was not made to hear"),
        ({"audio_token_id": 7}, r"the tokenizer has <\|audio\|> as \d+, the weights expect 7"),
        ({"eoa_token_index": 7}, r"the tokenizer has <audio\|> as \d+, the weights expect 7"),
    ],
)
def test_a_checkpoint_that_does_not_hear_or_of_other_weights_is_refused(
    small: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    copy = Path(shutil.copytree(small, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=named):
        load(str(copy))


def test_without_pieces_its_decoder_is_one_that_vllm_knows_and_with_them_the_reason_is_said(
    small: Path, tmp_path: Path
) -> None:
    its_decoder_is_a_text_model(tiny_gemma4(unified=True), "Gemma4ForCausalLM", tmp_path / "unified")
    with pytest.raises(ModelError, match="a gemma4_text: beside its embedding each token brings a piece"):
        export_decoder(load(str(small)), tmp_path / "decoder")


def test_vllm_gets_the_keys_lora_as_the_values_where_these_are_the_keys() -> None:
    """It has such a layer's matrix twice; layers with values of their own are left alone."""
    lalm = trainable(tiny_gemma4(unified=True))
    weights, config = adapter_of(lalm)
    of = {kind: {key.replace(kind, "") for key in weights if kind in key} for kind in ("k_proj", "v_proj")}
    assert of["k_proj"] == of["v_proj"]
    layer = "base_model.model.model.layers.{}.self_attn.{}.lora_B.weight".format
    assert torch.equal(weights[layer(1, "v_proj")], weights[layer(1, "k_proj")])
    assert not torch.equal(weights[layer(0, "v_proj")], weights[layer(0, "k_proj")])
    assert "v_proj" in config.target_modules


def test_published_configs_have_no_field_that_is_not_known() -> None:
    """What google/gemma-4-12B-it says of its text model beside what its class has, as public logs quote it."""
    quoted = {
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": 262144,
        "enable_moe_block": False,
    }
    config = tiny_gemma4(unified=True).inner.config.to_dict()
    config["text_config"] |= quoted
    assert not unknown_fields(AutoConfig.for_model(**config))
    config["text_config"] |= {"hidden_size_per_layer_input": 256}
    assert list(unknown_fields(AutoConfig.for_model(**config))) == ["text_config.hidden_size_per_layer_input"]


def test_gemma_3n_is_refused_by_name_and_what_answering_lacks_is_said(tmp_path: Path) -> None:
    """Its class cannot be built without timm, which draws in torchvision: a sentence, and no stack of calls."""
    kinds = {f"{part}_config": {"model_type": f"gemma3n_{part}"} for part in ("text", "vision", "audio")}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3n", **kinds}))
    with pytest.raises(ModelError, match=r"is of type gemma3n; tgsr trains .*gemma4.* \(tgsr predict"):
        load(str(tmp_path))
    if find_spec("timm") is None:
        save_file({"nothing": torch.zeros(1)}, tmp_path / "model.safetensors")
        with pytest.raises(ModelError, match=r"needs a package that is not installed: .* timm "):
            read_weights(
                AutoModelForMultimodalLM, str(tmp_path), "a gemma3n model", unquantized=[], layers=None
            )


# --- from the command line -------------------------------------------------------------------------------------------


def test_every_command_takes_the_folder(
    small: Path, two_channels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """Stage 1, stage 2, attend, merge, predict, sft, over a second language, two channels, an empty answer."""
    monkeypatch.chdir(tmp_path)
    through_every_command(small, two_channels)
    assert "model.embed_audio.embedding_projection" in capsys.readouterr().out
    assert names_in(small) == names_in(Path("merged"))  # keys that no layer has, too
    lora = load_file("two/adapter/adapter_model.safetensors")
    assert all(name.startswith("base_model.model.model.language_model.layers.") for name in lora)


def names_in(folder: Path) -> set[str]:
    return {name for file in folder.glob("*.safetensors") for name in load_file(file)}


def test_peft_puts_the_adapter_on_the_official_class(small: Path, tmp_path: Path) -> None:
    lalm = trainable(load(str(small)))
    save_adapter(lalm, tmp_path / "adapter")
    theirs: Any = PeftModel.from_pretrained(
        Gemma4ForConditionalGeneration.from_pretrained(str(small)), str(tmp_path / "adapter")
    )
    ids = torch.tensor([[5, 300, 301, 302]])
    with torch.no_grad():
        assert torch.equal(lalm.model(input_ids=ids).logits, theirs(input_ids=ids).logits)
        with theirs.disable_adapter():
            assert not torch.allclose(lalm.model(input_ids=ids).logits, theirs(input_ids=ids).logits)

"""Music Flamingo and Audio Flamingo Next, tiny, as the hub has them, against the official class and processor.

Windows are 2 s here and 30 s there, so that the 60 windows of half an hour cost a fifteenth.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoProcessor,
    MusicFlamingoForConditionalGeneration,
    MusicFlamingoProcessor,
    Qwen2AudioConfig,
    VoxtralConfig,
)
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeThinkerConfig

from families import through_every_command
from test_hub import edit, official
from tgsr.audio import SAMPLE_RATE
from tgsr.engine.features import parts, seconds_to_decode
from tgsr.engine.sampling import sample
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.errors import ModelError
from tgsr.models.aligner_and_lora import parts_of, with_lora
from tgsr.models.checkpoint import unknown_fields
from tgsr.models.load import load, save_adapter
from tgsr.models.merge import merge
from tgsr.models.music_flamingo import MusicFlamingo
from tgsr.models.placement import LoadAs, Placement
from tiny import mf_folder, noise

TEXTS = ["When?", "Où est-elle ? それは何時?", "Who?", "When?"]
ANSWERS = ["From 1.20s to 3.40s", "八月の朝に", "", "(b) two"]  # one in another language, one empty
CLIPS = [noise(0.9, 1), noise(31.7, 2), noise(4.2, 3), noise(2.0, 4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mf_folder(tmp_path_factory.mktemp("hub") / "model")


@pytest.fixture(scope="module")
def lalm(folder: Path) -> MusicFlamingo:
    loaded = load(str(folder))
    assert isinstance(loaded, MusicFlamingo)
    return loaded


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return MusicFlamingoProcessor.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def batch(lalm: MusicFlamingo, processor: Any) -> Any:
    return official(lalm, processor, TEXTS, CLIPS)


def branches_of(lalm: MusicFlamingo) -> list[Branch]:
    return [
        Branch(i, lalm.prompt(text).after, (*lalm.tokens(answer), lalm.eos_id))
        for i, (text, answer) in enumerate(zip(TEXTS, ANSWERS, strict=True))
    ]


def official_logps(lalm: MusicFlamingo, model: Any, batch: Any) -> list[Tensor]:
    """The answers' log-probs from the official forward over the padded batch, all answers after the prompts."""
    answers = [branch.answer for branch in branches_of(lalm)]
    n = max(map(len, answers))
    rows = torch.tensor([[*answer, *[lalm.pad_id] * (n - len(answer))] for answer in answers])
    seen = torch.tensor([[1] * len(answer) + [0] * (n - len(answer)) for answer in answers])
    inputs = {key: value for key, value in batch.items() if key.startswith("input_features")}
    logits = model(
        input_ids=torch.cat([batch["input_ids"], rows], 1),
        attention_mask=torch.cat([batch["attention_mask"], seen], 1),
        **inputs,
    ).logits[:, -n - 1 : -1]
    logps = logits.log_softmax(-1).gather(-1, rows[..., None])[..., 0]
    return [row[: len(answer)] for row, answer in zip(logps, answers, strict=True)]


def heard(lalm: MusicFlamingo) -> list[Tensor]:
    return [lalm.encode_audio(clip) for clip in CLIPS]


# --- against the official class ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.1, 0.515, 1.99, 2.0, 2.01, 2.03, 29.97, 120.0])
def test_frames_are_as_many_and_the_same_as_the_official_ones(
    lalm: MusicFlamingo, processor: Any, seconds: float
) -> None:
    ours, inputs = lalm.encode_audio(noise(seconds)), official(lalm, processor, ["When?"], [noise(seconds)])
    config, ids = lalm.inner.config, inputs["input_ids"][0].tolist()
    n_places, parts = ids.count(config.audio_token_id), lalm.prompt("When?")
    assert len(ours) == n_places
    assert ids == [*parts.before, *[config.audio_token_id] * n_places, *parts.after]
    marks = lalm.tokenizer.convert_ids_to_tokens([parts.before[-1], parts.after[0]])
    assert marks == ["<|sound_bos|>", "<|sound_eos|>"]
    arguments = (inputs["input_features"], inputs["input_features_mask"], inputs["input_ids"])
    if seconds == 2.01:  # a last window without a frame, which the official forward cannot place
        with pytest.raises(IndexError):
            lalm.inner.get_audio_features(*arguments)
        return
    with torch.no_grad():
        theirs = lalm.inner.get_audio_features(*arguments).pooler_output
        assert torch.allclose(lalm.align(ours), theirs, atol=1e-5)


@pytest.mark.parametrize("load_as", ["float32", "bfloat16"])
def test_encoder_then_turning_then_projector_is_the_official_computation(
    folder: Path, batch: Any, load_as: LoadAs
) -> None:
    """To the last bit, though bfloat16 tells no second after the 256th from the next."""
    lalm: Any = load(str(folder), Placement(load_as))
    model, mask = lalm.inner.model, batch["input_features_mask"]
    features = batch["input_features"].to(model.dtype)
    with torch.no_grad():
        theirs = model.get_audio_features(features, mask, batch["input_ids"]).pooler_output
        windows = model.audio_tower(features, input_features_mask=mask).last_hidden_state
        lengths = ((mask.sum(1) - 1) // 2 + 1) // 2
        frames = torch.cat([window[:n] for window, n in zip(windows, lengths, strict=True)])
        clips = frames.split([len(clip) for clip in heard(lalm)])
        assert torch.equal(torch.cat([lalm.align(lalm.turned(clip)) for clip in clips]), theirs)


def test_a_frame_is_turned_by_its_window_and_its_place_in_it_times_its_second(lalm: MusicFlamingo) -> None:
    """The formula in complex numbers: two frequencies an axis (a fifth of 16 rounded down, two by two), 50 frames a
    window, 1,200 windows and frames a circle; the rest of the width stays as it was."""
    frames_FE = torch.randn(170, 16, generator=torch.Generator().manual_seed(0))
    frequencies = 1200.0 ** -(torch.arange(0, 3, 2).double() / 3)
    place = torch.arange(170).double()[:, None]
    window, inside = place // 50 / 1200, 2 * math.pi * (place % 50) / 1200
    angle = -2 * math.pi * 0.04 * place * torch.cat([window * frequencies, inside * frequencies], 1)
    pairs = torch.view_as_complex(frames_FE[:, :8].double().unflatten(1, (-1, 2)))
    expected = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(1)
    turned = lalm.turned(frames_FE)
    assert torch.allclose(turned[:, :8].double(), expected, atol=1e-5)
    assert torch.equal(turned[:, 8:], frames_FE[:, 8:])
    assert (turned - frames_FE)[60:].abs().max() > 0.1


def test_log_probs_and_gradients_are_those_of_the_official_forward(folder: Path, batch: Any) -> None:
    """Mixed lengths, padded on the left; the projector's and a LoRA's gradients."""
    lalm: Any = load(str(folder))
    with_lora(lalm, 2, 4, 0)
    lalm.aligner.requires_grad_(True)
    for name, weight in lalm.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.1)
    trained = [weight for weight in lalm.model.parameters() if weight.requires_grad]
    assert len(trained) == 4 + 2 * 7 * 2  # the projector; layers, matrices, factors
    assert not [name for name, _ in lalm.model.named_parameters() if "pos_emb" in name]
    ours = branch_logps(listen(lalm, heard(lalm)), branches_of(lalm))
    theirs = official_logps(lalm, lalm.inner, batch)
    for row, mask, expected in zip(ours.logp_BT, ours.mask_BT, theirs, strict=True):
        assert torch.allclose(row[mask], expected, atol=1e-5)
    gradients = torch.autograd.grad(ours.logp_BT.sum(), trained)
    for one, other in zip(gradients, torch.autograd.grad(torch.cat(theirs).sum(), trained), strict=True):
        scale = float(other.abs().max())
        assert scale > 1e-3
        assert torch.allclose(one, other, atol=1e-4 * scale)


def test_greedy_text_is_what_generate_writes_and_every_end_token_ends_it(
    lalm: MusicFlamingo, batch: Any, folder: Path, tmp_path: Path
) -> None:
    prompts = [lalm.prompt(text).after for text in TEXTS]
    free = sample(listen(lalm, heard(lalm)), [0, 1, 2, 3], prompts, max_new_tokens=10, temperature=0)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    ends = [lalm.eos_id, free[0].ids[3], free[1].ids[5]]
    edit(copy / "generation_config.json", eos_token_id=ends)
    ended = load(str(copy))
    assert {*ended.end_ids} == {*ends}
    ours = sample(listen(ended, heard(lalm)), [0, 1, 2, 3], prompts, max_new_tokens=10, temperature=0)
    n = batch["input_ids"].shape[1]
    theirs = ended.inner.generate(**batch, max_new_tokens=10, do_sample=False)[:, n:].tolist()
    for sampled, written in zip(ours, theirs, strict=True):
        assert list(sampled.ids) == written[: len(sampled.ids)]
        assert sampled.cut == (not {*ends} & {*written})
    assert any(not sampled.cut for sampled in ours)
    assert lalm.text([lalm.eos_id]) == ""


def test_an_adapter_is_pefts_on_the_official_class_and_merged_it_is_the_same_model(
    lalm: MusicFlamingo, folder: Path, batch: Any, tmp_path: Path
) -> None:
    trained: Any = load(str(folder))
    with_lora(trained, 2, 4, 0)
    with torch.no_grad():
        for name, weight in trained.model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(weight, std=0.1)
        expected = branch_logps(listen(trained, heard(lalm)), branches_of(lalm))
        before = branch_logps(listen(lalm, heard(lalm)), branches_of(lalm))
        assert (expected.logp_BT - before.logp_BT).abs().max() > 0.01
        save_adapter(trained, tmp_path / "adapter")
        names = list(load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
        assert all(name.startswith("base_model.model.language_model.model.layers.") for name in names)
        theirs = MusicFlamingoForConditionalGeneration.from_pretrained(str(folder))
        theirs = PeftModel.from_pretrained(theirs, str(tmp_path / "adapter")).eval()
        merge(load(str(tmp_path / "adapter")), tmp_path / "merged")
        merged: Any = load(str(tmp_path / "merged"))
        for rows in (official_logps(lalm, theirs, batch), official_logps(lalm, merged.inner, batch)):
            for row, mask, official_row in zip(expected.logp_BT, expected.mask_BT, rows, strict=True):
                assert torch.allclose(row[mask], official_row, atol=1e-5)
    weights = [json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"].keys()]
    weights.append(load_file(tmp_path / "merged" / "model.safetensors").keys())
    assert {name.split(".")[0] for name in weights[0]} == {
        "audio_tower",
        "multi_modal_projector",
        "language_model",
    }
    assert weights[0] == weights[1]
    processor = AutoProcessor.from_pretrained(str(tmp_path / "merged"))
    assert isinstance(processor, MusicFlamingoProcessor)
    assert (processor.max_audio_len, merged.max_seconds) == (120, 120)


# --- through the commands ----------------------------------------------------------------------------------------


def test_every_command_takes_the_folder(
    folder: Path,
    two_channels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    through_every_command(folder, two_channels)
    said = capsys.readouterr().out
    assert "model.multi_modal_projector.{linear_1, linear_2}" in said
    assert f"{sum(part.n for part in parts_of(load('merged'))):,} parameters" in said


def test_longer_clips_are_refused_in_parts_too(lalm: MusicFlamingo) -> None:
    """Turned frames know their time: a second part's would begin at 0 s again."""
    with pytest.raises(ModelError, match=r"hears 120 s, the audio lasts 120.10 s.*windows"):
        parts(lalm, np.zeros(round(120.1 * SAMPLE_RATE), np.float32), "split")
    assert seconds_to_decode(replace(lalm, max_seconds=1800.0), "refuse") == 1800


def test_a_limit_that_is_no_number_of_windows_is_the_whole_ones_before_it(
    folder: Path, tmp_path: Path
) -> None:
    """As in the official processor, which cuts there."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    edit(copy / "processor_config.json", max_audio_len=9)
    assert load(str(copy)).max_seconds == 8
    described = json.loads((copy / "processor_config.json").read_text())["feature_extractor"]
    edit(copy / "processor_config.json", feature_extractor=described | {"chunk_length": 30})
    with pytest.raises(ModelError, match="windows of 30 s, 3000 frames, the encoder takes 200"):
        load(str(copy))


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("config.json", {"audio_bos_token_id": 7}, r"has <\|sound_bos\|> as \d+, the weights expect 7"),
        ("config.json", {"audio_frame_step": "long"}, "audio_frame_step"),
        ("config.json", {"projector_hidden_act": "snake"}, "config.json says 'snake', which transformers"),
        ("config.json", {"rope_parameters": {"rope_type": "new", "rope_theta": 1200.0}}, "says 'new'"),
    ],
)
def test_what_does_not_fit_the_weights_is_named(
    folder: Path, tmp_path: Path, file: str, changes: dict[str, Any], says: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    edit(copy / file, **changes)
    with pytest.raises(ModelError, match=says):
        load(str(copy))


def test_fields_that_this_version_does_not_know_are_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also in a part; and none of those that published configs hold and that change nothing."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    config |= {"rotary_dim": 256, "torchscript": False, "rope_scaling": None, "vision_token_id": 9}
    config["text_config"] |= {"gate": "sigmoid", "model_max_length": 8192, "top_k": 50, "sep_token_id": None}
    (copy / "config.json").write_text(json.dumps(config))
    load(str(copy))
    assert (
        "a musicflamingo and computes without: rotary_dim = 256, text_config.gate = sigmoid;" in caplog.text
    )
    caplog.clear()
    load(str(folder))
    assert not caplog.text


def test_fields_of_other_families_published_configs_that_change_nothing_are_not_named() -> None:
    old_qwen = {"model_type": "qwen2", "use_mrope": False, "rope_theta": 10000, "vocab_size": 156032}
    qwen = Qwen2AudioConfig.from_dict({"ignore_index": -100, "text_config": old_qwen, "vocab_size": 156032})
    heads = {"hidden_size": 1280, "num_attention_heads": 20, "num_key_value_heads": 20, "head_dim": 64}
    voxtral = VoxtralConfig.from_dict({"audio_config": heads, "hidden_size": 3072, "vocab_size": 131072})
    mixture = {"head_dim": 128, "shared_expert_intermediate_size": 0, "use_qk_norm": True}
    thinker = Qwen3OmniMoeThinkerConfig.from_dict(
        {"seconds_per_chunk": 2, "text_config": mixture | {"use_sliding_window": False}}
    )
    assert not unknown_fields(qwen) | unknown_fields(voxtral) | unknown_fields(thinker)
    other = Qwen2AudioConfig.from_dict({"text_config": old_qwen | {"use_mrope": True}})
    assert unknown_fields(other) == {"text_config.use_mrope": True}

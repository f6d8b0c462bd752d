"""Granite Speech behind our protocol, against transformers' own class and extractor; through every command."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoProcessor,
    GraniteForCausalLM,
    GraniteSpeechConfig,
    GraniteSpeechForConditionalGeneration,
    GraniteSpeechPlusForConditionalGeneration,
)

from families import (
    an_adapter_loads_and_merges,
    counted_as_loaded,
    features_are_made_outside_autocast,
    greedy_as_generate,
    held_to_the_official_class,
    its_decoder_is_a_text_model,
    through_every_command,
)
from others import GRANITE_TEMPLATE, granite_folder
from test_check import SMALL, failing, rows_of
from tgsr.audio import load as load_sound
from tgsr.check.bench import shipped_speech
from tgsr.errors import ModelError
from tgsr.models.checkpoint import unknown_fields
from tgsr.models.granite_speech import SYSTEM, GraniteSpeech
from tgsr.models.load import load, load_to_check
from tgsr.training.plan import PAPERS, lora_size, sizes_of
from tiny import noise, trainable


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return granite_folder(tmp_path_factory.mktemp("hub") / "granite-speech")


@pytest.fixture(scope="module")
def lalm(folder: Path) -> GraniteSpeech:
    loaded = load(str(folder))
    assert isinstance(loaded, GraniteSpeech)
    return loaded


# --- against the official class ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.017, 0.1, 0.3, 0.31, 3.99, 4.01, 500.0])
def test_frames_are_the_official_classs_three_for_each_window_begun(
    lalm: GraniteSpeech, seconds: float
) -> None:
    samples = noise(seconds)
    ours = lalm.encode_audio(samples)
    assert len(ours) == 3 * -(-((len(samples) // 160 + 1) // 2) // 15)
    with torch.no_grad():
        theirs = lalm.inner.get_audio_features(lalm.mels(samples)["input_features"]).pooler_output[0]
        assert torch.allclose(lalm.align(ours), theirs, atol=1e-5)
        assert torch.allclose(lalm.align(ours[None].expand(2, -1, -1))[1], theirs, atol=1e-5)


def test_features_are_not_rounded_with_the_rest(lalm: GraniteSpeech) -> None:
    features_are_made_outside_autocast(lalm, lalm.audio_tower)


def test_log_probs_and_gradients_are_the_official_classs(folder: Path, two_channels: Path) -> None:
    """All of the projector trains; a second language, two channels, an answer that is empty."""
    lalm = trainable(load(str(folder)))
    n_trained = sum(weight.requires_grad for weight in lalm.model.parameters())
    assert n_trained == len(list(lalm.aligner.parameters())) + 2 * 7 * 2  # layers, matrices, factors
    held_to_the_official_class(lalm, [noise(0.9, 1), load_sound(two_channels), noise(7.3, 3)])
    counted_as_loaded(lalm, folder)


def test_greedy_texts_are_generates_and_every_end_token_ends(
    folder: Path, lalm: GraniteSpeech, tmp_path: Path
) -> None:
    free = greedy_as_generate(lalm, [noise(2.3, 1), noise(0.4, 2)])
    assert lalm.end_ids == (lalm.eos_id,) == (lalm.tokenizer.get_vocab()["<|end_of_text|>"],)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": [lalm.eos_id, free[0][3]]}))
    ended = greedy_as_generate(load(str(copy)), [noise(2.3, 1)])[0]
    assert ended == free[0][: free[0].index(free[0][3]) + 1]


@pytest.mark.parametrize("plus", [False, True])
def test_the_checkpoints_own_lora_is_merged_and_logits_are_scaled_as_granites(
    plus: bool, tmp_path: Path
) -> None:
    """The official class, which loads the LoRA beside the weights, leaves logits_scaling out; Granite's does not.

    Where a release of transformers scales them, too, the hook of load_granite_speech goes.
    """
    lalm = load(str(granite_folder(tmp_path / "model", plus=plus)))
    model_class = GraniteSpeechPlusForConditionalGeneration if plus else GraniteSpeechForConditionalGeneration
    theirs = model_class.from_pretrained(str(tmp_path / "model")).eval()
    assert any(".lora_A." in name for name, _ in theirs.named_parameters())
    samples, prompt = noise(1.1), lalm.prompt("When?")
    n, audio_id = len(lalm.encode_audio(samples)), theirs.config.audio_token_id
    ids = torch.tensor([[*prompt.before, *[audio_id] * n, *prompt.after]])
    features = lalm.mels(samples)["input_features"]
    with torch.no_grad():
        raw = theirs(input_ids=ids, input_features=features).logits
        ours = lalm.inner(input_ids=ids, input_features=features).logits
        text = GraniteForCausalLM(theirs.config.text_config).eval()
        text.model.load_state_dict(lalm.language_model.state_dict())
        words = torch.tensor([list(prompt.after)])
        granite, inner = text(words).logits, lalm.inner(input_ids=words).logits
    assert torch.allclose(ours, raw / theirs.config.text_config.logits_scaling, atol=1e-5)
    assert torch.allclose(inner, granite, atol=1e-5)
    theirs.disable_adapters()
    with torch.no_grad():
        deaf = theirs(input_ids=ids, input_features=features).logits
    assert (raw - deaf).abs().max() > 0.01


def test_an_adapter_goes_on_top_of_the_checkpoints_own_and_merges(folder: Path, tmp_path: Path) -> None:
    lalm = trainable(load(str(folder)))
    whole = load(str(folder)).inner  # with its own LoRA in its matrices
    an_adapter_loads_and_merges(lalm, folder, whole, "language_model.model.layers.", tmp_path)
    merged = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert not merged["has_lora_adapter"]
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    # As a user has it who never heard of us: the official class loads its LoRA, then ours beside it.
    theirs = GraniteSpeechForConditionalGeneration.from_pretrained(str(folder)).eval()
    theirs.load_adapter(str(tmp_path / "adapter"), adapter_name="tgsr")
    theirs.set_adapter(["default", "tgsr"])
    words = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        ours = load(str(tmp_path / "adapter")).inner(input_ids=words).logits
        assert torch.allclose(theirs(input_ids=words).logits / 4, ours, atol=1e-5)


def test_its_decoder_with_the_lora_and_the_multipliers_is_one_that_vllm_knows(
    lalm: GraniteSpeech, tmp_path: Path
) -> None:
    its_decoder_is_a_text_model(lalm, "GraniteForCausalLM", tmp_path)


@pytest.mark.skipif(
    importlib.util.find_spec("torchaudio") is None, reason="the official extractor: torchaudio"
)
def test_prompts_and_features_are_the_official_processors(folder: Path, lalm: GraniteSpeech) -> None:
    """It pads a batch with zeros; scaled by the loudest of each row."""
    processor = AutoProcessor.from_pretrained(str(folder))
    clips = [noise(0.1), noise(0.31, 1), np.zeros(16000, np.float32), noise(9.87, 2)]
    texts = ["When?", "", "say <|audio|> and <|end_of_text|>", "„sieben“ 七"]
    batch = lalm.mels(clips)
    theirs = processor.audio_processor(clips)
    assert torch.allclose(batch["input_features"], theirs["input_features"], atol=1e-4)
    assert torch.equal(batch["attention_mask"], theirs["input_features_mask"])
    for text, clip in zip(texts, clips, strict=True):
        chat = lalm.turns(text.replace("<|", "< |"), SYSTEM)
        prompt = lalm.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = processor(text=[prompt], audio=[clip], return_tensors="pt")["input_ids"][0].tolist()
        parts = lalm.prompt(text.replace("<|", "< |"))
        n = len(lalm.encode_audio(clip))
        assert ids == [*parts.before, *[lalm.inner.config.audio_token_id] * n, *parts.after]


def test_features_are_the_official_extractors_as_recorded(lalm: GraniteSpeech) -> None:
    """torchaudio's of a chirp and silence: where torchaudio is not there, these are held against."""
    recorded = json.loads((Path(__file__).parent / "parity" / "granite_mels.json").read_text())
    t = np.arange(recorded["samples"]) / 16000
    chirp = (0.3 * np.sin(2 * np.pi * (200 + 3000 * t) * t) * (t < recorded["silent_from"])).astype(
        np.float32
    )
    features = lalm.mels(chirp)["input_features"][0]
    assert list(features.shape) == recorded["shape"]
    assert torch.allclose(features[::2, ::16], torch.tensor(recorded["features"]), atol=2e-4)


# --- what is wrong is said ----------------------------------------------------------------------------------------


def test_the_day_does_not_enter_the_prompt(folder: Path, tmp_path: Path) -> None:
    """A template that would write today's date gets the card's system turn; another keeps its own."""
    lalm = load(str(folder))
    assert lalm.system == SYSTEM
    assert "April 9, 2025.\nYou are Granite" in str(lalm.tokenizer.decode(list(lalm.prompt("?").before)))
    steady = GRANITE_TEMPLATE.replace("{{ strftime_now('%B %d, %Y') }}", "today")
    assert load(str(granite_folder(tmp_path / "steady", template=steady))).system is None


@pytest.mark.parametrize("n_samples", [0, 1, 256])
def test_audio_too_short_for_a_frame_is_refused(lalm: GraniteSpeech, n_samples: int) -> None:
    with pytest.raises(ModelError, match=r"needs more than 0\.016 s of audio"):
        lalm.encode_audio(np.zeros(n_samples, np.float32))


def edited(folder: Path, copy: Path, file: str, **changes: object) -> Path:
    shutil.copytree(folder, copy)
    about = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(about | changes))
    return copy


def test_what_does_not_belong_to_the_weights_is_named(folder: Path, tmp_path: Path) -> None:
    features = "preprocessor_config.json"
    for changes, named in (
        (
            {"projector_downsample_rate": 3},
            r"\(160, 15, 3\) in the feature extractor's file and \(160, 15, 5\)",
        ),
        ({"feature_size": 128}, r"\(256, 15, 5\) in the feature extractor's file"),
    ):
        with pytest.raises(ModelError, match=named):
            load(str(edited(folder, tmp_path / next(iter(changes)), features, **changes)))
    other = {"projector_downsample_rate": 3, "projector_window_size": 9}
    slow = edited(folder, tmp_path / "slow", features, **other)
    config = json.loads((slow / "config.json").read_text())
    (slow / "config.json").write_text(json.dumps(config | {"downsample_rate": 3, "window_size": 9}))
    with pytest.raises(ModelError, match=r"a token of its audio 0\.06 s; known here are granite and 0\.1 s"):
        load(str(slow))
    with pytest.raises(ModelError, match=r"the tokenizer has <\|audio\|> as \d+, the weights expect 7"):
        load(str(edited(folder, tmp_path / "audio", "config.json", audio_token_index=7)))


def test_a_lora_that_is_missing_or_cut_and_weights_that_are_missing_beside_it_are_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where an adapter lies beside the weights, transformers itself would say what is missing of that alone."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    own = load_file(copy / "adapter_model.safetensors")
    save_file(
        {**own, "language_model.model.layers.9.lora_A.weight": torch.ones(1)},
        copy / "adapter_model.safetensors",
    )
    with pytest.raises(
        ModelError, match=r"1 of the tensors of the model's own LoRA have no place .*layers\.9"
    ):
        load(str(copy))
    (copy / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors: is missing"):
        load(str(copy))
    (copy / "adapter_config.json").unlink()
    assert load(str(copy)).merged == ""
    assert "hears by a LoRA of its own, and adapter_config.json is not there: unless somebody" in caplog.text
    lacking = Path(shutil.copytree(folder, tmp_path / "lacking"))
    shard = max(lacking.glob("model-*.safetensors"))
    weights = load_file(shard)
    save_file(dict(list(weights.items())[1:]), shard, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="1 of the model's weights are missing"):
        load(str(lacking))


# --- whole ---------------------------------------------------------------------------------------------------------


def test_every_command_takes_the_folder(
    folder: Path, two_channels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    through_every_command(folder, two_channels)


def test_a_check_passes_in_what_trains_nothing(folder: Path, tmp_path: Path) -> None:
    """As loaded to be checked: its own LoRA is no adapter of another trainer."""
    lalm, read = load_to_check(str(folder))
    assert read is None
    rows = rows_of(lalm, shipped_speech(lalm, tmp_path / "speech", SMALL), tmp_path / "out")
    assert (
        rows["audio tokens"].number.startswith("3 of ")
        or " of whole windows of 0.3 s" in rows["audio tokens"].bar
    )
    assert not failing(rows), [row for row in rows.values() if row.fails]


def test_sizes_of_the_published_one_without_the_hub() -> None:
    sizes = sizes_of("ibm-granite/granite-4.0-1b-speech")
    assert (sizes.parameters, sizes.aligner, sizes.audio_tower) == (2_313_141_596, 35_697_664, 440_168_796)
    assert lora_size(sizes.decoder, 16) == 20_316_160
    assert sizes.frames_per_second == 10
    assert not unknown_fields(PAPERS["ibm-granite/granite-4.0-1b-speech"])
    asked = GraniteSpeechConfig.from_dict({"projector_config": {"position_embedding_type": "absolute"}})
    assert not unknown_fields(asked)

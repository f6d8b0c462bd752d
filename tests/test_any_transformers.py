"""Any audio model of transformers by its own processor: a tiny Qwen2-Audio, real class, processor and layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    WhisperFeatureExtractor,
)

from others import phi4_folder
from tgsr.answering.any_transformers import Generic, load_generic
from tgsr.answering.responder import ClipQuestion
from tgsr.audio import SAMPLE_RATE
from tgsr.errors import ModelError
from tgsr.llm.decoding import Decoding, Failed
from tiny import CHAT_TEMPLATE, noise, omni_tokenizer, qwen2_audio_folder

FEW = Decoding(max_new_tokens=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen2_audio_folder(tmp_path_factory.mktemp("hub") / "qwen2-audio")


@pytest.fixture(scope="module")
def model(folder: Path) -> Generic:
    return load_generic(str(folder))


def test_it_answers_as_the_models_own_generate_does(model: Generic) -> None:
    clips = [noise(2.3), noise(0.7, 1)]
    found = model.respond(clips, [ClipQuestion(1, "Who?", "Who?"), ClipQuestion(0, "When?", "When?")], FEW)
    batch = model.processor(
        text=[
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            "Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\nWhen?<|im_end|>\n<|im_start|>assistant\n"
        ],
        audio=[clips[0]],
        audio_kwargs={"sampling_rate": SAMPLE_RATE},
        return_tensors="pt",
    )
    out = model.model.generate(**batch, max_new_tokens=8, do_sample=False)
    expected = model.processor.tokenizer.decode(
        out[0, batch["input_ids"].shape[1] :], skip_special_tokens=True
    )
    assert found[1] == expected
    assert len(set(map(str, found))) == 2


def test_sound_enters(model: Generic) -> None:
    with torch.no_grad():
        logits = [
            model.model(**model.inputs(samples, "When?")).logits[0, -1]
            for samples in (noise(1.0), np.zeros(SAMPLE_RATE, np.float32))
        ]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_as_many_places_as_frames(model: Generic) -> None:
    for seconds in (0.1, 1.0, 29.99):
        n = int((model.inputs(noise(seconds), "?")["input_ids"] == model.audio_id).sum())
        assert n == ((round(seconds * 100) - 1) // 2 + 1 - 2) // 2 + 1


def test_a_seed_draws_the_same_again(model: Generic) -> None:
    warm = Decoding(max_new_tokens=8, temperature=1.0, seed=3)
    asked = [ClipQuestion(0, "Who?", "Who?")]
    first = model.respond([noise(1.0)], asked, warm)
    assert first == model.respond([noise(1.0)], asked, warm)
    assert first != model.respond([noise(1.0)], asked, Decoding(max_new_tokens=8, temperature=1.0, seed=4))


def test_what_would_be_cut_off_in_silence_fails(model: Generic) -> None:
    assert model.max_seconds == 30
    short, long = model.respond(
        [noise(1.0), noise(31.0)], [ClipQuestion(0, "?", "?"), ClipQuestion(1, "?", "?")], FEW
    )
    assert isinstance(short, str)
    assert isinstance(long, Failed)
    assert "hears 30 s" in long.reason


# --- other families: their own classes, processors and tokenizers ----------------------------------------------

OTHERS = {"phi4": phi4_folder}
FRAMES = {"phi4": 25}  # of 2 s


@pytest.fixture(scope="module", params=OTHERS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def other(family: str, tmp_path_factory: pytest.TempPathFactory) -> Generic:
    folder = OTHERS[family](tmp_path_factory.mktemp("others") / family)
    return load_generic(str(folder))


def test_another_family_hears_and_answers(family: str, other: Generic) -> None:
    inputs = other.inputs(noise(2.0), "Who speaks?")
    assert int((inputs["input_ids"] == other.audio_id).sum()) == FRAMES[family]
    with torch.no_grad():
        logits = [
            other.model(**other.inputs(samples, "Who speaks?")).logits[0, -1]
            for samples in (noise(2.0), np.zeros(2 * SAMPLE_RATE, np.float32))
        ]
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    said = other.respond(
        [noise(2.0), noise(1.1, 1)], [ClipQuestion(0, "Who?", "?"), ClipQuestion(1, "When?", "?")], FEW
    )
    assert all(isinstance(text, str) for text in said)


def test_the_question_enters(other: Generic) -> None:
    with torch.no_grad():
        logits = [
            other.model(**other.inputs(noise(2.0), text)).logits[0, -1] for text in ("Who speaks?", "When?")
        ]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


# --- bad input -------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=600, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    LlamaForCausalLM(config).save_pretrained(str(tmp_path))
    omni_tokenizer().save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match="takes no audio"):
        load_generic(str(tmp_path))


def test_without_a_processor_it_says_so(copy: Path) -> None:
    for file in copy.glob("*processor*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"no processor that can be loaded|takes no audio"):
        load_generic(str(copy))


def test_a_missing_shard_is_named(copy: Path) -> None:
    shard = sorted(copy.glob("model-*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(ModelError, match=shard.name):
        load_generic(str(copy))


def test_a_tokenizer_without_the_audio_token_is_refused(copy: Path) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        path = copy / file
        path.write_text(path.read_text().replace("<|AUDIO|>", "<|SOUND|>"))
    with pytest.raises(ModelError, match="audio token"):
        load_generic(str(copy))


def test_an_id_that_no_one_knows_is_refused() -> None:
    with pytest.raises(ModelError, match="nobody/nothing"):
        load_generic("nobody/nothing")


def test_a_model_whose_processor_drops_the_sound_is_not_loaded(copy: Path) -> None:
    template = CHAT_TEMPLATE.replace("<|audio_bos|><|AUDIO|><|audio_eos|>", "")
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    with pytest.raises(ModelError, match=r"sound was dropped|a second of silence"):
        load_generic(str(copy))


def test_a_clip_too_short_for_the_processor_costs_its_question_alone(tmp_path: Path) -> None:
    phi4 = load_generic(str(phi4_folder(tmp_path / "phi4")))
    short, long = phi4.respond(
        [noise(0.005), noise(1.0)], [ClipQuestion(0, "?", "?"), ClipQuestion(1, "?", "?")], FEW
    )
    assert isinstance(short, Failed)
    assert isinstance(long, str)


def test_features_of_another_height_are_refused(copy: Path) -> None:
    extractor = WhisperFeatureExtractor(feature_size=80, processor_class="Qwen2AudioProcessor")
    for file in copy.glob("*processor*"):
        described = json.loads(file.read_text())
        described.get("feature_extractor", described)["feature_size"] = extractor.feature_size
        file.write_text(json.dumps(described))
    with pytest.raises(ModelError, match="80 mel bins"):
        load_generic(str(copy))

"""Qwen2.5-Omni's thinker behind our protocol, against transformers' own path through the same random model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from test_layouts import engine_logps, ragged_branches
from tgsr.audio import SAMPLE_RATE
from tgsr.check.official import official_inputs
from tgsr.engine.sampling import sample
from tgsr.engine.shared_prefix import Branch, listen
from tgsr.errors import ModelError
from tgsr.models.aligner_and_lora import with_lora
from tgsr.models.qwen_omni import QwenOmni, load_qwen_omni
from tgsr.prompts import QWEN_SYSTEM
from tgsr.timeline import Span
from tiny import noise, save_like_the_hub, tiny_lalm, tiny_qwen_omni


@pytest.fixture(scope="module")
def lalm() -> QwenOmni:
    return tiny_qwen_omni()


@pytest.fixture
def folder(lalm: QwenOmni, tmp_path: Path) -> Path:
    """The tiny model in the layout of the hub's Qwen/Qwen2.5-Omni-7B."""
    save_like_the_hub(lalm, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("seconds", "n_frames"),
    [
        (0.0201, 1),
        (0.1, 2),
        (0.515, 13),
        (1.99, 50),
        (2.0, 50),
        (2.01, 50),
        (9.99, 250),
        (31.0, 775),
        (300.0, 7500),
    ],
)
def test_encoder_output_needs_no_padding_to_five_minutes(
    lalm: QwenOmni, seconds: float, n_frames: int
) -> None:
    """Chunk ends (every 2 s), odd tails and the very end of the extractor's window."""
    samples = noise(seconds)
    ours = lalm.encode_audio(samples)
    batch = lalm.feature_extractor(
        samples, sampling_rate=SAMPLE_RATE, return_attention_mask=True, return_tensors="pt"
    )
    assert batch["input_features"].shape[-1] == 30000
    with torch.no_grad():
        official = lalm.inner.get_audio_features(batch["input_features"], batch["attention_mask"])
        assert len(official.last_hidden_state) == len(ours) == n_frames
        assert torch.allclose(lalm.align(ours), official.last_hidden_state, atol=1e-5)
    assert ours.dtype == torch.float32
    assert not ours.requires_grad
    assert not lalm.aligner._forward_pre_hooks


def test_silent_audio_has_the_official_output_too(lalm: QwenOmni) -> None:
    """Log-mels are cut 8 below the loudest column: it must be looked for in the same columns."""
    samples = np.concatenate([noise(0.3), np.zeros(SAMPLE_RATE, np.float32)])
    batch = lalm.feature_extractor(
        samples, sampling_rate=SAMPLE_RATE, return_attention_mask=True, return_tensors="pt"
    )
    with torch.no_grad():
        official = lalm.inner.get_audio_features(batch["input_features"], batch["attention_mask"])
        assert torch.allclose(lalm.align(lalm.encode_audio(samples)), official.last_hidden_state, atol=1e-5)


def test_audio_longer_than_the_model_hears_is_refused_not_cut(lalm: QwenOmni) -> None:
    with pytest.raises(ModelError, match=r"hears 300 s, the audio lasts 300\.50 s"):
        lalm.encode_audio(noise(300.5))


@pytest.mark.parametrize("n_samples", [0, 1, 320])
def test_audio_too_short_for_a_frame_is_refused(lalm: QwenOmni, n_samples: int) -> None:
    with pytest.raises(ModelError, match=r"more than 0\.02 s"):
        lalm.encode_audio(np.zeros(n_samples, np.float32))


def test_the_layer_norm_belongs_to_the_encoder_and_the_projection_does_not() -> None:
    lalm, other, third = tiny_qwen_omni(), tiny_qwen_omni(), tiny_qwen_omni()
    with torch.no_grad():
        other.aligner.weight += 1
        third.inner.model.audio_tower.ln_post.weight += 1
    assert lalm.encoder_key == other.encoder_key != third.encoder_key
    samples = noise(0.5)
    assert torch.equal(lalm.encode_audio(samples), other.encode_audio(samples))
    assert not torch.allclose(lalm.encode_audio(samples), third.encode_audio(samples), atol=1e-3)
    assert {name for name, _ in lalm.aligner.named_parameters()} == {"weight", "bias"}


def test_a_float32_aligner_in_a_bfloat16_tower_encodes_and_aligns() -> None:
    """As stage 1 trains it."""
    lalm = tiny_qwen_omni()
    lalm.model.bfloat16()
    whole = lalm.encode_audio(noise(0.5))
    lalm.aligner.float()
    assert torch.equal(lalm.encode_audio(noise(0.5)), whole)
    assert lalm.align(whole).dtype == torch.float32


def test_no_layer_of_a_tower_gets_a_lora() -> None:
    lalm = tiny_qwen_omni()
    with_lora(lalm, rank=2, alpha=4, seed=0)
    trained = [name for name, weight in lalm.model.named_parameters() if weight.requires_grad]
    assert len(trained) == 2 * 7 * 2  # layers, projections, two factors each
    assert all(".language_model.layers." in name and ".lora_" in name for name in trained)
    assert lalm.aligner is lalm.inner.model.audio_tower.proj


def test_the_prompt_is_the_models_own_cut_at_the_audio(lalm: QwenOmni) -> None:
    parts = lalm.prompt("When?")
    audio = lalm.tokenizer.get_vocab()
    assert parts.before[-1] == audio["<|audio_bos|>"]
    assert parts.after[0] == audio["<|audio_eos|>"]
    assert lalm.phrase_answer("four", Span(1.2, 3.4)).startswith("The segment four starts at 1.20")  # B.1.1
    assert lalm.phrase_question("four").endswith("following segment? four")
    whole = (
        f"<|im_start|>system\n{QWEN_SYSTEM}<|im_end|>\n<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>When?"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [*parts.before, audio["<|AUDIO|>"], *parts.after] == lalm.tokens(whole)
    assert lalm.eos_id == audio["<|im_end|>"] != lalm.pad_id
    assert lalm.text([*lalm.tokens("four"), lalm.eos_id]) == "four"


def test_without_a_system_text_the_templates_own_is_used() -> None:
    lalm = tiny_qwen_omni()
    lalm.system = None
    assert "You are a helpful assistant." in str(lalm.tokenizer.decode(list(lalm.prompt("").before)))


@pytest.mark.parametrize("typed", ["<|AUDIO|>", "<|audio_eos|>", "<|im_end|>", "<|IMAGE|>"])
def test_a_special_token_in_a_question_is_only_text(lalm: QwenOmni, typed: str) -> None:
    parts = lalm.prompt(f"what is {typed} in this{typed}?")
    assert parts.before == lalm.prompt("").before
    token = lalm.tokenizer.get_vocab()[typed]
    assert parts.after.count(token) == lalm.prompt("what?").after.count(token)


@pytest.mark.parametrize(("places", "said"), [("", "0 places"), ("<|AUDIO|>" * 2, "2 places")])
def test_a_template_needs_one_place_for_audio(places: str, said: str) -> None:
    lalm = tiny_qwen_omni()
    lalm.tokenizer.chat_template = str(lalm.tokenizer.chat_template).replace("<|AUDIO|>", places)
    with pytest.raises(ModelError, match=said):
        lalm.prompt("When is <|AUDIO|> said?")


def test_greedy_sampling_is_the_thinkers_own_generate() -> None:
    lalm = tiny_qwen_omni(seconds=10)
    clips = [noise(2.3, 1), noise(0.4, 2)]
    asked = [(1, "Who?"), (0, "Which digit is said right after seven?"), (0, "Who?")]
    branches = [Branch(clip, lalm.prompt(text).after, ()) for clip, text in asked]
    with torch.no_grad():
        prefix = listen(lalm, [lalm.encode_audio(samples) for samples in clips])
    ours = sample(
        prefix, [b.owner for b in branches], [b.prompt for b in branches], max_new_tokens=12, temperature=0
    )
    inputs, _ = official_inputs(lalm, clips, branches, "left")
    n_prompt = inputs["input_ids"].shape[1]
    theirs = lalm.inner.generate(
        **inputs, max_new_tokens=12, do_sample=False, eos_token_id=lalm.eos_id, pad_token_id=lalm.pad_id
    )
    for sampled, row in zip(ours, theirs[:, n_prompt:].tolist(), strict=True):
        assert list(sampled.ids) == row[: len(sampled.ids)]
        assert sampled.cut == (lalm.eos_id not in row)
    assert len({sampled.ids for sampled in ours}) > 1


def test_the_thinker_of_a_whole_omni_is_loaded_as_it_was(lalm: QwenOmni, folder: Path) -> None:
    loaded = load_qwen_omni(str(folder))
    assert loaded.max_seconds == 300
    assert loaded.encoder_key == lalm.encoder_key
    assert loaded.prompt("Which digit is said, 7 or 12?") == lalm.prompt("Which digit is said, 7 or 12?")
    assert (loaded.eos_id, loaded.pad_id) == (lalm.eos_id, lalm.pad_id)
    rope = loaded.inner.config.text_config.rope_parameters
    assert rope["mrope_section"] == [1, 1, 2]
    assert rope["rope_theta"] == 1e6
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    branches = ragged_branches(lalm)
    clips = [noise(seconds, 1) for seconds in (0.4, 2.3, 0.9)]
    logps = [engine_logps(m, [m.encode_audio(c) for c in clips], branches)[0] for m in (lalm, loaded)]
    assert torch.equal(*logps)


def test_what_the_thinker_itself_saves_can_be_loaded(lalm: QwenOmni, tmp_path: Path) -> None:
    lalm.inner.save_pretrained(str(tmp_path))
    lalm.tokenizer.save_pretrained(str(tmp_path))
    lalm.feature_extractor.save_pretrained(str(tmp_path))
    loaded = load_qwen_omni(str(tmp_path))
    for name, weight in lalm.inner.state_dict().items():
        assert torch.equal(weight, loaded.inner.state_dict()[name]), name
    assert loaded.prompt("When?") == lalm.prompt("When?")


def test_a_shard_that_is_missing_or_cut_short_is_an_error_not_random_weights(folder: Path) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shard = folder / "model-00002-of-00002.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100])
    with pytest.raises(ModelError, match=r"cannot be loaded as a Qwen2\.5-Omni model"):
        load_qwen_omni(str(folder))
    shard.unlink()
    with pytest.raises(ModelError, match="00002-of-00002"):
        load_qwen_omni(str(folder))
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if "00001" in file}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="weights are missing, first"):
        load_qwen_omni(str(folder))


def test_a_folder_without_a_chat_template_is_an_error(folder: Path) -> None:
    (folder / "chat_template.json").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        load_qwen_omni(str(folder))


def test_another_familys_checkpoint_is_refused_not_filled_with_random_numbers(tmp_path: Path) -> None:
    tiny_lalm().inner.save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match="of type audioflamingo3"):
        load_qwen_omni(str(tmp_path))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_qwen_omni(str(tmp_path / "nothing"))

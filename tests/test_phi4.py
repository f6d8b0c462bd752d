"""Phi-4-multimodal behind our protocol, against transformers' own class and extractor; through every command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Phi4MultimodalForCausalLM

from families import (
    an_adapter_loads_and_merges,
    counted_as_loaded,
    features_are_made_outside_autocast,
    greedy_as_generate,
    held_to_the_official_class,
    its_decoder_is_a_text_model,
    logps_of,
    through_every_command,
)
from others import phi4_folder
from test_check import SMALL, failing, rows_of
from tgsr.audio import SAMPLE_RATE
from tgsr.audio import load as load_sound
from tgsr.check.bench import shipped_speech
from tgsr.check.official import official_frames
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.errors import ModelError
from tgsr.models.load import load
from tgsr.models.merge import merge
from tgsr.models.phi4 import Phi4
from tgsr.training.plan import lora_size, sizes_of
from tiny import noise, trainable


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phi4_folder(tmp_path_factory.mktemp("hub") / "phi4")


@pytest.fixture(scope="module")
def lalm(folder: Path) -> Phi4:
    loaded = load(str(folder))
    assert isinstance(loaded, Phi4)
    return loaded


@pytest.mark.parametrize("seconds", [0.025, 0.1, 2.0, 41.3])
def test_frames_are_what_the_official_forward_puts_into_its_row(lalm: Phi4, seconds: float) -> None:
    """Past 40 s its encoder goes on in pieces of 500 frames, each by itself."""
    samples = noise(seconds)
    ours = lalm.encode_audio(samples)
    assert len(ours) == -(-((len(samples) - 400) // 160 + 1) // 8)
    with torch.no_grad():
        assert torch.allclose(lalm.align(ours), official_frames(lalm, samples), atol=1e-5)


def test_features_are_not_rounded_with_the_rest(lalm: Phi4) -> None:
    features_are_made_outside_autocast(lalm, lalm.audio_tower.encoder)


def test_its_longest_clip_has_the_official_embeddings_and_no_longer_one_is_heard(lalm: Phi4) -> None:
    samples = noise(240.0)
    ours, theirs = lalm.encode_audio(samples), lalm.feature_extractor(samples, sampling_rate=SAMPLE_RATE)
    tower = lalm.audio_tower
    with torch.no_grad():
        hidden = tower.encoder(theirs["audio_input_features"], None)[0]
        official = tower.down_proj_for_speech(torch.nn.functional.gelu(tower.up_proj_for_speech(hidden)))
        assert len(ours) == int(theirs["audio_embed_sizes"][0]) == 3000
        assert torch.allclose(lalm.align(ours), official, atol=1e-5)
    with pytest.raises(ModelError, match=r"hears 240 s, the audio lasts 240\.10 s"):
        lalm.encode_audio(noise(240.1))
    with pytest.raises(ModelError, match=r"needs 0\.025 s of audio, got 0\.0249 s"):
        lalm.encode_audio(np.zeros(399, np.float32))


def test_log_probs_and_gradients_are_the_official_classs(folder: Path, two_channels: Path) -> None:
    """A second language, two channels, an answer that is empty."""
    lalm = trainable(load(str(folder)))
    assert sum(weight.requires_grad for weight in lalm.model.parameters()) == 4 + 2 * 4 * 2
    held_to_the_official_class(lalm, [noise(0.9, 1), load_sound(two_channels), noise(7.3, 3)])
    counted_as_loaded(lalm, folder)


def test_greedy_texts_are_generates_and_every_end_token_ends(
    folder: Path, lalm: Phi4, tmp_path: Path
) -> None:
    free = greedy_as_generate(lalm, [noise(2.3, 1), noise(0.4, 2)])
    assert free[0] != free[1]
    vocabulary = lalm.tokenizer.get_vocab()
    assert set(lalm.end_ids) == {vocabulary["<|end|>"], vocabulary["<|endoftext|>"]}
    assert lalm.eos_id == vocabulary["<|end|>"]  # with which the chat closes turns
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": [lalm.eos_id, free[0][3]]}))
    ended = greedy_as_generate(load(str(copy)), [noise(2.3, 1)])[0]
    assert ended == free[0][: free[0].index(free[0][3]) + 1]


def test_a_row_ends_where_the_rotary_factors_change(lalm: Phi4) -> None:
    """Past 4,096 positions the official class turns all of them otherwise, those of shorter clips in the row, too."""
    prefix = listen(lalm, [lalm.encode_audio(noise(240.0))])
    with pytest.raises(ModelError, match=r"more than .*'s context of 4096"):
        branch_logps(prefix, [Branch(0, lalm.prompt("When?").after * 400, (5,))])


def test_the_checkpoints_own_lora_is_merged_and_must_be_there(
    folder: Path, lalm: Phi4, tmp_path: Path
) -> None:
    base = Phi4MultimodalForCausalLM.from_pretrained(str(folder)).eval()
    words, deaf = (
        torch.tensor([[5, 6, 7]]),
        base.state_dict()["model.layers.0.self_attn.qkv_proj.weight"].clone(),
    )
    theirs = PeftModel.from_pretrained(base, str(folder / "speech-lora"))
    with torch.no_grad():
        assert torch.allclose(theirs(input_ids=words).logits, lalm.inner(input_ids=words).logits, atol=1e-5)
    assert (lalm.inner.model.layers[0].self_attn.qkv_proj.weight - deaf).abs().max() > 1e-3
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    shutil.rmtree(copy / "speech-lora")
    with pytest.raises(
        ModelError, match=r"speech-lora/ .* is missing, without which the model was not trained"
    ):
        load(str(copy))


def test_the_layout_that_runs_code_of_its_own_is_named_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    """The main revision of its repository."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    auto = {"AutoConfig": "configuration_phi4mm.Phi4MMConfig"}
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "phi4mm", "auto_map": auto}))
    with pytest.raises(ModelError, match=r"is of type phi4mm, whose code lies .*--revision refs/pr/70"):
        load(str(copy))


def test_a_type_that_nobody_knows_is_told_which_there_are(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "phi9", "hidden_size": 32}))
    with pytest.raises(
        ModelError, match=r"is of type phi9, which .* tgsr trains .*phi4_multimodal.*tgsr predict"
    ):
        load(str(tmp_path))


def test_an_adapter_goes_on_top_of_the_checkpoints_own_and_merges(folder: Path, tmp_path: Path) -> None:
    lalm = trainable(load(str(folder)))
    an_adapter_loads_and_merges(lalm, folder, load(str(folder)).inner, "model.layers.", tmp_path)
    assert not any(
        ".lora_" in name for file in tmp_path.glob("merged/*.safetensors") for name in load_file(file)
    )
    tied = trainable(load(str(phi4_folder(tmp_path / "tied", tied=True))))
    expected = logps_of(tied)
    merged = load(str(merge(tied, tmp_path / "of")))
    assert merged.lm_head.weight is merged.language_model.get_input_embeddings().weight
    assert torch.allclose(logps_of(merged), expected, atol=1e-5)


def test_its_decoder_with_the_lora_is_one_that_vllm_knows_up_to_its_rotary_factors(
    lalm: Phi4, tmp_path: Path
) -> None:
    command = its_decoder_is_a_text_model(lalm, "Phi3ForCausalLM", tmp_path)
    assert command[command.index("--max-num-batched-tokens") + 1] == "4096"


def test_every_command_takes_the_folder(
    folder: Path, two_channels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    through_every_command(folder, two_channels)


def test_a_check_passes_in_what_trains_nothing(lalm: Phi4, tmp_path: Path) -> None:
    rows = rows_of(lalm, shipped_speech(lalm, tmp_path / "speech", SMALL), tmp_path / "out")
    assert not failing(rows), [row for row in rows.values() if row.fails]


def test_sizes_of_the_published_one_without_the_hub() -> None:
    sizes = sizes_of("microsoft/Phi-4-multimodal-instruct")
    assert (sizes.language_model, sizes.aligner) == (3_836_021_760, 12_589_056)
    assert (sizes.audio_tower, sizes.vision_tower) == (453_843_200, 441_550_016)
    assert lora_size(sizes.decoder, 16) == 23_068_672
    assert sizes.frames_per_second == 12.5

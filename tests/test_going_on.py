"""A run goes on with what it began with: its model's files, its sound, and the dense reward's words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from tgsr import rl, sta
from tgsr.engine.features import FeatureCache
from tgsr.errors import RunError
from tgsr.models.aligner_and_lora import with_lora
from tgsr.models.load import files_of, load, save_adapter
from tgsr.records import read_questions
from tgsr.training.config import GrpoConfig, StaConfig
from tiny import questions_in, rewarded_by, saved, tiny_base, tiny_lalm, uneven

STA = StaConfig(questions="", epochs=1, clips_per_step=2, learning_rate=1e-3)
GRPO = GrpoConfig(questions="", prompts_per_step=2, group_size=2, max_new_tokens=3, max_steps=1)


@pytest.fixture(scope="module")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return questions_in(tmp_path_factory.mktemp("sta"), "sta", 3, n_phrases=2)


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return questions_in(tmp_path_factory.mktemp("qa"), "qa", 2, most=2)


def test_sound_that_was_replaced_under_its_name_is_refused_by_name(phrases: Path, tmp_path: Path) -> None:
    config, cache = replace(STA, questions=str(phrases)), FeatureCache(tmp_path / "cache")
    sta.train_sta(config, tmp_path / "run", cache, tiny_base)
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {"mini/base.safetensors", "mini/tokenizer.json"} <= set(described["model"])
    assert described["sounds"]["n"] == 3
    sound = sorted({phrases.parent / question.audio for question in read_questions(phrases)})
    kept = sound[0].read_bytes()
    samples, rate = soundfile.read(sound[0])
    soundfile.write(sound[0], samples[::-1], rate)
    with pytest.raises(RunError, match=rf"its sound changed since it began: .*{sound[0].name}"):
        sta.train_sta(config, tmp_path / "run", cache, tiny_base)
    sound[0].write_bytes(kept)  # the same content, other times
    sta.train_sta(config, tmp_path / "run", cache, tiny_base)


@pytest.mark.parametrize("part", ["weights", "tokenizer"])
def test_a_model_that_was_trained_on_in_its_folder_is_refused_by_its_file(
    phrases: Path, tmp_path: Path, part: str
) -> None:
    model = saved(tiny_lalm(), tmp_path / "model")
    config, cache = replace(STA, questions=str(phrases), model=model), FeatureCache(tmp_path / "cache")
    sta.train_sta(config, tmp_path / "run", cache, load)
    sta.train_sta(config, tmp_path / "run", cache, load)
    if part == "weights":
        other = tiny_lalm()
        # a matrix, of which the fingerprint of an adapter knows nothing
        other.language_model.layers[0].mlp.up_proj.weight.data += 0.01
        saved(other, Path(model))
    else:
        path = Path(model) / "tokenizer.json"
        path.write_text(path.read_text() + "\n")
    name = r"model\.safetensors" if part == "weights" else r"tokenizer\.json"
    with pytest.raises(RunError, match=rf"its model changed since it began: {model}/{name};"):
        sta.train_sta(config, tmp_path / "run", cache, load)


def test_the_words_of_the_dense_reward_belong_to_the_run(choices: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips.jsonl"
    clips.write_bytes((choices.parent / "clips.jsonl").read_bytes())
    config = replace(GRPO, questions=str(choices), clips=str(clips), dense_weight=0.5)
    cache, terms = FeatureCache(tmp_path / "cache"), rewarded_by(uneven)
    rl.train_grpo(config, tmp_path / "run", cache, tiny_base, terms)
    clips.write_text(clips.read_text().replace('"start": 0.', '"start": 0.0', 1))
    with pytest.raises(RunError, match=rf"other arguments \(data\); changed since it began: {clips};"):
        rl.train_grpo(config, tmp_path / "run", cache, tiny_base, terms)


def test_an_adapters_files_are_its_own_and_its_bases(tmp_path: Path) -> None:
    lalm = load(saved(tiny_lalm(), tmp_path / "base"))
    with_lora(lalm, 4, 8, 0)
    save_adapter(lalm, tmp_path / "adapter")
    (tmp_path / "adapter" / "README.md").write_text("notes of ours")
    files = files_of(str(tmp_path / "adapter"))
    adapter = {"adapter.json", "adapter_config.json", "adapter_model.safetensors", "aligner.safetensors"}
    assert {path.name for path in files.values() if path.parent.name == "adapter"} == adapter
    assert f"{tmp_path}/base/model.safetensors" in files
    assert all(name == str(path) for name, path in files.items())


@pytest.mark.parametrize("name", ["nobody/has-this-one", "a/b/c", "https://host:1/v1#model", "", "cascade"])
def test_what_is_not_here_has_no_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files_of(name) == {}

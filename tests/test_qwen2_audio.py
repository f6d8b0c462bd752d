"""Qwen2-Audio behind our protocol, against transformers' own class, processor and generate; through every command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from families import TEXTS, a_padded_batch_is_as_the_official_one, through_every_command
from tgsr.answering.open import open_model
from tgsr.audio import SAMPLE_RATE
from tgsr.audio import load as load_sound
from tgsr.engine.features import FeatureCache, parts
from tgsr.engine.sampling import sample
from tgsr.engine.shared_prefix import listen
from tgsr.errors import ModelError
from tgsr.models.load import load
from tgsr.models.qwen2_audio import Qwen2Audio
from tgsr.prompts import chat_messages
from tiny import TEXT_TEMPLATE, noise, qwen2_audio_folder, tiny_qwen2_audio

# What the family's templates asked before June 2025: an audio is known by a key, and not by its type.
BY_KEY = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
    "{% if 'audio' in part or 'audio_url' in part or m.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>\n"
    "{% elif 'text' in part %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen2_audio_folder(tmp_path_factory.mktemp("hub") / "qwen2-audio")


@pytest.fixture(scope="module")
def lalm(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Qwen2Audio:
    opened = open_model(str(folder), tmp_path_factory.mktemp("cache"))
    assert isinstance(opened, Qwen2Audio)
    return opened


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return AutoProcessor.from_pretrained(str(folder))


def official(processor: Any, texts: list[str], clips: list[np.ndarray]) -> Any:
    """The official processor's inputs for a batch of prompts, padded on the left."""
    prompts = [
        processor.apply_chat_template(chat_messages(text), tokenize=False, add_generation_prompt=True)
        for text in texts
    ]
    return processor(
        text=prompts,
        audio=clips,
        text_kwargs={"padding": True, "padding_side": "left"},
        audio_kwargs={"sampling_rate": SAMPLE_RATE},
        return_tensors="pt",
    )


# --- against the official class ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0201, 0.1, 9.87, 30.0])
def test_tokens_and_embeddings_are_the_official_ones(
    lalm: Qwen2Audio, processor: Any, seconds: float
) -> None:
    ours, batch = lalm.encode_audio(noise(seconds)), official(processor, ["When?"], [noise(seconds)])
    audio_id, parts = lalm.inner.config.audio_token_id, lalm.prompt("When?")
    assert batch["input_ids"][0].tolist() == [*parts.before, *[audio_id] * len(ours), *parts.after]
    projected: list[torch.Tensor] = []
    hook = lalm.aligner.register_forward_hook(lambda *called: projected.append(called[-1][0]))
    with torch.no_grad():
        lalm.inner(**batch)
        hook.remove()
        assert torch.allclose(lalm.align(ours), projected[0][: len(ours)], atol=1e-5)
    assert not ours.requires_grad


def test_a_batch_of_mixed_lengths_has_the_official_log_probs_and_greedy_texts(
    lalm: Qwen2Audio, processor: Any, two_channels: Path
) -> None:
    """A second language, a file of two channels, an answer that is empty; every end token ends."""
    clips = [noise(0.9, 1), load_sound(two_channels), noise(30.0, 3)]
    a_padded_batch_is_as_the_official_one(lalm, official(processor, list(TEXTS), clips), clips)


def test_every_end_token_of_the_checkpoint_ends_what_generate_ends(
    folder: Path, processor: Any, tmp_path: Path
) -> None:
    """The tokenizer's, and whatever generation_config.json lists: here a token that the model says fourth."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    lalm, batch = load(str(copy)), official(processor, ["When?"], [noise(2.0)])
    vocabulary = lalm.tokenizer.get_vocab()
    assert set(lalm.end_ids) == {vocabulary["<|endoftext|>"], vocabulary["<|im_end|>"]}
    assert lalm.eos_id == vocabulary["<|im_end|>"]  # the one that the chat closes turns with is taught
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": lalm.pad_id}
    n_prompt = batch["input_ids"].shape[1]
    free = lalm.inner.generate(**batch, **settings)[0, n_prompt:].tolist()
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": [lalm.eos_id, free[3]]}))
    ending = load(str(copy))
    theirs = ending.inner.generate(**batch, **settings)[0, n_prompt:].tolist()
    with torch.no_grad():
        prefix = listen(ending, [ending.encode_audio(noise(2.0))])
        ours = sample(prefix, [0], [ending.prompt("When?").after], max_new_tokens=12, temperature=0)[0]
    assert list(ours.ids) == theirs == free[: free.index(free[3]) + 1]
    assert not ours.cut


# --- what the processor does in silence ----------------------------------------------------------------------------


def test_more_than_a_window_is_refused_or_heard_window_by_window_and_never_cut(
    lalm: Qwen2Audio, processor: Any, tmp_path: Path
) -> None:
    """The official processor makes as many places for 61.5 s as for 30 s."""
    long = noise(61.5)
    n_official = int(
        (official(processor, ["?"], [long])["input_ids"] == lalm.inner.config.audio_token_id).sum()
    )
    assert n_official == 750
    with pytest.raises(ModelError, match=r"hears 30 s, the audio lasts 61\.50 s: .*--long-audio split"):
        FeatureCache(tmp_path).get(lalm, long)
    pieces = parts(lalm, long, "split")
    assert [len(piece) / SAMPLE_RATE for piece in pieces] == [30, 30, 1.5]
    heard = FeatureCache(tmp_path, torch.float32, "split").get(lalm, long)
    assert len(heard) == 750 + 750 + 37
    assert torch.equal(heard, torch.cat([lalm.encode_audio(piece) for piece in pieces]))


@pytest.mark.parametrize("n_samples", [0, 1, 320])
def test_audio_too_short_for_a_frame_is_refused(lalm: Qwen2Audio, n_samples: int) -> None:
    with pytest.raises(ModelError, match=r"more than 0\.02 s"):
        lalm.encode_audio(np.zeros(n_samples, np.float32))


# --- chat templates --------------------------------------------------------------------------------------------------


def test_a_checkpoint_without_a_template_gets_its_classs_own(folder: Path, lalm: Qwen2Audio) -> None:
    """The tokenizer's is of a text model, and has no place for audio."""
    described = json.loads((folder / "tokenizer_config.json").read_text())
    assert described["chat_template"] == TEXT_TEMPLATE
    whole = lalm.prompt("When?")
    written = str(lalm.tokenizer.decode([*whole.before, *whole.after]))
    assert written.endswith(
        "user\nAudio 1: <|audio_bos|><|audio_eos|>\nWhen?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_templates_of_before_know_an_audio_by_its_key(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": BY_KEY}))
    parts = load(str(copy)).prompt("When?")
    vocabulary = tiny_qwen2_audio().tokenizer.get_vocab()
    assert (parts.before[-1], parts.after[0]) == (vocabulary["<|audio_bos|>"], vocabulary["<|audio_eos|>"])


def test_a_template_of_a_text_model_in_the_processors_place_is_named(folder: Path, tmp_path: Path) -> None:
    """As trainers leave it that save the tokenizer and not the processor."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "chat_template.jinja").write_text(TEXT_TEMPLATE)
    with pytest.raises(ModelError, match="its chat template refuses the chat"):
        load(str(copy))


def test_a_processor_of_other_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"audio_token_index": 7}))
    with pytest.raises(ModelError, match=r"the tokenizer has <\|AUDIO\|> as \d+, the weights expect 7"):
        load(str(copy))


# --- from the command line -------------------------------------------------------------------------------------------


def test_every_command_takes_the_folder(
    folder: Path, two_channels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    through_every_command(folder, two_channels)
    said = capsys.readouterr().out
    assert "model.multi_modal_projector.linear" in said
    assert "model.language_model.layers.*.self_attn.{q_proj, k_proj, v_proj, o_proj}" in said

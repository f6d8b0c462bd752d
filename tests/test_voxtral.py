"""Voxtral behind our protocol, against transformers' own class, processor and generate; through every command.

Its tokenizer is mistral-common's, which no test environment must have: without it these tests are skipped, by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, VoxtralForConditionalGeneration
from transformers.utils import is_mistral_common_available

from families import an_adapter_loads_and_merges, through_every_command
from others import voxtral_folder
from test_check import SMALL, failing, rows_of
from tgsr.audio import SAMPLE_RATE
from tgsr.audio import load as load_sound
from tgsr.check.bench import shipped_speech
from tgsr.engine.sampling import sample
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.errors import ModelError
from tgsr.models.load import load
from tgsr.models.voxtral import Voxtral, as_a_file
from tgsr.training.cost import GPUS, Work
from tgsr.training.plan import lora_size, rows, sizes_of
from tiny import noise, trainable

needs_tokenizer = pytest.mark.skipif(
    not is_mistral_common_available(), reason="Voxtral's tokenizer: pip install -e '.[voxtral]'"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return voxtral_folder(tmp_path_factory.mktemp("hub") / "voxtral")


@pytest.fixture(scope="module")
def lalm(folder: Path) -> Voxtral:
    loaded = load(str(folder))
    assert isinstance(loaded, Voxtral)
    return loaded


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return AutoProcessor.from_pretrained(str(folder))


def official(processor: Any, texts: list[str], clips: list[np.ndarray], system: str | None = None) -> Any:
    """The official processor's inputs for a batch of chats, padded on the left."""
    chats = [as_a_file(clip, SAMPLE_RATE, text, system) for text, clip in zip(texts, clips, strict=True)]
    return processor.apply_chat_template(chats, return_tensors="pt")


@needs_tokenizer
@pytest.mark.parametrize("seconds", [0.1, 2.0, 30.0, 30.1, 61.0])
def test_tokens_and_embeddings_are_the_official_ones(lalm: Voxtral, processor: Any, seconds: float) -> None:
    """Whole windows: of a short clip the silence that fills its window is heard too."""
    ours, batch = lalm.encode_audio(noise(seconds)), official(processor, ["When?"], [noise(seconds)])
    parts = lalm.prompt("When?")
    audio_id = lalm.inner.config.audio_token_id
    assert batch["input_ids"][0].tolist() == [*parts.before, *[audio_id] * len(ours), *parts.after]
    with torch.no_grad():
        theirs = lalm.inner.get_audio_features(batch["input_features"]).pooler_output
        assert torch.allclose(lalm.align(ours), theirs, atol=1e-5)
    assert len(ours) == 375 * int(np.ceil(seconds / 30))


@needs_tokenizer
@pytest.mark.parametrize("text", ["", " When? ", "say [/INST] and </s>", "„sieben“ 七\n(a) yes"])
def test_prompts_are_the_official_tokenizers(lalm: Voxtral, processor: Any, text: str) -> None:
    audio_id = lalm.inner.config.audio_token_id
    for lalm.system in (None, "Be brief."):
        ids = official(processor, [text], [noise(1.0)], lalm.system)["input_ids"][0].tolist()
        parts = lalm.prompt(text)
        assert [*parts.before, *parts.after] == [i for i in ids if i != audio_id]
    lalm.system = None


@needs_tokenizer
def test_log_probs_and_gradients_of_a_padded_batch_are_the_official_ones(
    folder: Path, processor: Any, two_channels: Path
) -> None:
    """Clips of one and of two windows; a second language, two channels, an answer that is empty."""
    lalm = trainable(load(str(folder)))
    clips = [noise(0.9, 1), load_sound(two_channels), noise(31.0, 3)]
    texts = ["When?", "Wer sagt „sieben“? 七在哪里?", "Which digit is said right after seven?"]
    answers = [(*lalm.response_tokens(text), lalm.eos_id) for text in ("", "Von 1.20s: 七", "(b) two")]
    batch = official(processor, texts, clips)
    n = max(map(len, answers))
    ids = torch.tensor([[*answer, *[lalm.pad_id] * (n - len(answer))] for answer in answers])
    kept = torch.tensor([[True] * len(answer) + [False] * (n - len(answer)) for answer in answers])
    logits = lalm.inner(
        input_ids=torch.cat([batch["input_ids"], ids], 1),
        attention_mask=torch.cat([batch["attention_mask"], torch.ones_like(ids)], 1),
        input_features=batch["input_features"],
    ).logits[:, -n - 1 : -1]
    expected = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0][kept]
    branches = [Branch(i, lalm.prompt(text).after, answers[i]) for i, text in enumerate(texts)]
    packed = branch_logps(listen(lalm, [lalm.encode_audio(clip) for clip in clips]), branches)
    ours = packed.logp_BT[packed.mask_BT]
    assert torch.allclose(ours, expected, atol=1e-5)
    trained = {name: weight for name, weight in lalm.model.named_parameters() if weight.requires_grad}
    assert len(trained) == 2 + 2 * 7 * 2  # aligner; layers, matrices, factors
    for name, one, other in zip(
        trained,
        torch.autograd.grad(ours.mean(), list(trained.values())),
        torch.autograd.grad(expected.mean(), list(trained.values())),
        strict=True,
    ):
        assert one.abs().max() > 1e-5, name
        assert torch.allclose(one, other, atol=1e-5), name


@needs_tokenizer
def test_greedy_texts_are_generates_and_every_end_token_ends(lalm: Voxtral, processor: Any) -> None:
    clips, texts = [noise(2.3, 1), noise(0.4, 2)], ["Who?", "When?"]
    prefix = listen(lalm, [lalm.encode_audio(clip) for clip in clips])
    prompts = [lalm.prompt(text).after for text in texts]
    with torch.no_grad():
        ours = [list(s.ids) for s in sample(prefix, [0, 1], prompts, max_new_tokens=10, temperature=0)]
    batch = official(processor, texts, clips)
    n_prompt, settings = batch["input_ids"].shape[1], {"max_new_tokens": 10, "do_sample": False}
    theirs = lalm.inner.generate(**batch, **settings, pad_token_id=lalm.pad_id)[:, n_prompt:].tolist()
    for one, other in zip(ours, theirs, strict=True):
        assert one == other[: len(one)]
    assert lalm.end_ids == (lalm.eos_id,) == (2,)
    assert lalm.text([*lalm.tokens("four"), 2]) == "four"


@needs_tokenizer
def test_an_adapter_has_the_hubs_names_and_loads_with_peft_and_merges(folder: Path, tmp_path: Path) -> None:
    official = VoxtralForConditionalGeneration.from_pretrained(str(folder))
    lalm = trainable(load(str(folder)))
    an_adapter_loads_and_merges(lalm, folder, official, "language_model.model.layers.", tmp_path)


@needs_tokenizer
def test_every_command_takes_the_folder(
    folder: Path, two_channels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    through_every_command(folder, two_channels)


@needs_tokenizer
def test_a_check_passes_in_what_trains_nothing(lalm: Voxtral, tmp_path: Path) -> None:
    speech = shipped_speech(lalm, tmp_path / "speech", SMALL)
    rows = rows_of(lalm, speech, tmp_path / "out")
    assert rows["audio tokens"].number.startswith("375 of ")
    assert not failing(rows), [row for row in rows.values() if row.fails]


def test_sizes_of_the_published_one_without_the_hub() -> None:
    """12.5 frames a second: its clip of 30 s has half the tokens of the other families'."""
    sizes = sizes_of("mistralai/Voxtral-Mini-3B-2507")
    assert (sizes.parameters, sizes.aligner, sizes.audio_tower) == (4_676_271_104, 25_165_824, 636_968_960)
    assert lora_size(sizes.decoder, 16) == 27_033_600
    assert sizes.frames_per_second == 12.5
    short, whole = (rows(sizes, GPUS["h100"], 1, Work(seconds=seconds)) for seconds in (1.0, 30.0))
    assert short == whole  # windows are filled up
    hours = [row.hours for row in rows(sizes, GPUS["h100"], 1, Work())]
    assert max(hours) < max(
        row.hours for row in rows(sizes_of("Qwen/Qwen2-Audio-7B"), GPUS["h100"], 1, Work())
    )


@pytest.mark.skipif(is_mistral_common_available(), reason="mistral-common is there")
def test_without_its_tokenizers_package_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"its tokenizer needs mistral-common, the extra 'voxtral'"):
        load(str(voxtral_folder(tmp_path / "voxtral")))

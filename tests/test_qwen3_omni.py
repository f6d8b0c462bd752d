"""Qwen3-Omni's thinker, tiny, as the hub has it, against transformers' own processor and class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
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
    Qwen3OmniMoeConfig,
    Qwen3OmniMoeForConditionalGeneration,
    Qwen3OmniMoeProcessor,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from families import its_decoder_is_a_text_model, through_every_command
from test_layouts import ragged_branches
from tgsr import cli
from tgsr.audio import SAMPLE_RATE
from tgsr.choices import extract_choice, official_letter
from tgsr.engine.sampling import sample
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.errors import ModelError
from tgsr.evaluation.attention.tokens import written_tokens
from tgsr.grounding import find_spans
from tgsr.models.aligner_and_lora import lora_off, parts_of, with_lora
from tgsr.models.load import load, save_adapter
from tgsr.models.merge import merge
from tgsr.models.qwen3_omni import Qwen3Omni
from tgsr.prompts import chat_messages
from tgsr.records import read_responses
from tgsr.rewards import answer_reward, timestamp_grounding_reward
from tgsr.timeline import Span
from tgsr.training.cost import QWEN3_30B_A3B
from tgsr.training.plan import PAPERS, lora_size, sizes_of
from tiny import noise, qwen3_omni_folder, qwen3_tokenizer, tiny_lalm, tiny_qwen_omni, trainable


class Hearing(Qwen3OmniMoeProcessor):
    """The official processor without its parts for pictures, which need torchvision."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        if "processor" not in argument_name:
            return super().check_argument_for_proper_class(argument_name, argument)
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen3_omni_folder(tmp_path_factory.mktemp("hub") / "qwen3")


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(str(qwen3_omni_folder(tmp_path_factory.mktemp("hub") / "thinking", thinking=True)))


@pytest.fixture(scope="module")
def lalm(folder: Path) -> Any:
    """With a LoRA that is not zero; LoRA and aligner train."""
    return trainable(load(str(folder)))


def logps_of(lalm: Any) -> Tensor:
    """Four tokens' log-probs about a short clip."""
    branches = [Branch(0, lalm.prompt("When?").after, (5, 6, 7, 100))]
    return branch_logps(listen(lalm, [lalm.encode_audio(noise(1.3))]), branches).logp_BT


def processor_of(lalm: Any) -> Any:
    return Hearing(
        None, None, lalm.feature_extractor, lalm.tokenizer, chat_template=lalm.tokenizer.chat_template
    )


def official(lalm: Any, text: str, samples: np.ndarray) -> Any:
    """The official processor's inputs for one prompt and clip."""
    processor = processor_of(lalm)
    prompt = processor.apply_chat_template(
        chat_messages(text, None), tokenize=False, add_generation_prompt=True
    )
    audio_kwargs = {"sampling_rate": SAMPLE_RATE}
    return processor(text=[prompt], audio=[samples], audio_kwargs=audio_kwargs, return_tensors="pt")


def padded(
    lalm: Any, clips: Sequence[np.ndarray], branches: Sequence[Branch]
) -> tuple[dict[str, Tensor], Tensor]:
    """The official forward's inputs for a batch of whole sequences, padded on the left, and its labels, B x N."""
    heard = [official(lalm, "", clips[branch.owner]) for branch in branches]
    audio_id = lalm.inner.config.audio_token_id
    rows = [
        [
            *lalm.prompt("").before,
            *[audio_id] * int((batch["input_ids"] == audio_id).sum()),
            *b.prompt,
            *b.answer,
        ]
        for b, batch in zip(branches, heard, strict=True)
    ]
    n, n_mels = max(map(len, rows)), max(batch["input_features"].shape[-1] for batch in heard)
    ids, labels = torch.full((len(rows), n), lalm.pad_id), torch.full((len(rows), n), -100)
    mask = torch.zeros(len(rows), n, dtype=torch.long)
    for index, (row, branch) in enumerate(zip(rows, branches, strict=True)):
        ids[index, n - len(row) :] = torch.tensor(row)
        mask[index, n - len(row) :] = 1
        labels[index, n - len(branch.answer) :] = torch.tensor(branch.answer)
    wide = [
        torch.nn.functional.pad(b["input_features"], (0, n_mels - b["input_features"].shape[-1]))
        for b in heard
    ]
    seen = [torch.arange(n_mels)[None] < b["feature_attention_mask"].sum() for b in heard]
    inputs = {"input_features": torch.cat(wide), "feature_attention_mask": torch.cat(seen).long()}
    return {"input_ids": ids, "attention_mask": mask, **inputs}, labels


# --- what is heard -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [201, 1600, 8007, 15999, 16000, 16160, 157_999, 640_163])
def test_tokens_and_embeddings_are_the_official_processors_and_towers(lalm: Any, n_samples: int) -> None:
    """From the shortest clip to past 30 s, where extractors cut; of any number of samples."""
    samples = noise(n_samples / SAMPLE_RATE)
    batch = official(lalm, "When?", samples)
    ids, audio_id = batch["input_ids"][0].tolist(), lalm.inner.config.audio_token_id
    ours = lalm.encode_audio(samples)
    parts = lalm.prompt("When?")
    assert ids == [*parts.before, *[audio_id] * len(ours), *parts.after]
    with torch.no_grad():
        theirs = lalm.inner.get_audio_features(batch["input_features"], batch["feature_attention_mask"])
        assert torch.allclose(lalm.align(ours), theirs.last_hidden_state, atol=1e-5)
    assert len(lalm.frame_edges(len(ours))) == len(ours) + 1
    assert abs(lalm.frame_edges(len(ours))[-1] - n_samples / SAMPLE_RATE) < 0.08


def test_log_probs_loss_and_gradients_are_the_official_padded_batchs(lalm: Any) -> None:
    """Three clips and five branches in one row against whole sequences: each token finds the same experts."""
    clips = [noise(1.1, 1), noise(31.7, 2), noise(4.203, 3)]
    branches = ragged_branches(lalm)
    inputs, labels = padded(lalm, clips, branches)
    theirs = lalm.inner(**inputs, labels=labels)
    expected = theirs.logits[:, :-1].log_softmax(-1).gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
    ours = branch_logps(listen(lalm, [lalm.encode_audio(clip) for clip in clips]), branches)
    for row, kept, whole, wanted in zip(ours.logp_BT, ours.mask_BT, expected, labels[:, 1:], strict=True):
        assert torch.allclose(row[kept], whole[wanted != -100], atol=1e-5)
    trained = [weight for weight in lalm.model.parameters() if weight.requires_grad]
    of_ours = torch.autograd.grad(-ours.logp_BT[ours.mask_BT].mean(), trained)
    of_theirs = torch.autograd.grad(theirs.loss, trained)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(of_ours, of_theirs, strict=True))
    assert all(one.abs().max() > 0 for one in of_ours)


def test_greedy_sampling_is_the_official_generate(lalm: Any) -> None:
    clips = [noise(2.3, 1), noise(1.0, 2)]
    asked = [(1, "Who?"), (0, "Which digit is said right after seven?"), (0, "Who?")]
    branches = [Branch(clip, lalm.prompt(text).after, ()) for clip, text in asked]
    with torch.no_grad():
        prefix = listen(lalm, [lalm.encode_audio(samples) for samples in clips])
    owners, prompts = [b.owner for b in branches], [b.prompt for b in branches]
    ours = sample(prefix, owners, prompts, max_new_tokens=8, temperature=0)
    inputs, _ = padded(lalm, clips, branches)
    theirs = lalm.inner.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=lalm.eos_id)
    for sampled, row in zip(ours, theirs[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
        assert list(sampled.ids) == row[: len(sampled.ids)]
    assert len({sampled.ids for sampled in ours}) > 1
    assert [lalm.tokenizer.decode([end]) for end in lalm.end_ids] == ["<|im_end|>", "<|endoftext|>"]
    assert lalm.eos_id == lalm.end_ids[0]


def test_what_is_too_short_or_longer_than_published_is_refused(lalm: Any) -> None:
    with pytest.raises(ModelError, match=r"more than 0\.0125 s of audio, got 0\.0125 s"):
        lalm.encode_audio(np.zeros(200, np.float32))
    with pytest.raises(ModelError, match=r"hears 2400 s, the audio lasts 2400\.50 s.*--long-audio split"):
        lalm.encode_audio(np.zeros(round(2400.5 * SAMPLE_RATE), np.float32))


def test_a_frame_is_where_it_is_in_seconds_also_after_many_chunks(lalm: Any) -> None:
    """Thirteen a second: after 30 s frames of 80 ms would be 1.2 s off."""
    edges = lalm.frame_edges(30 * 13 + 2)
    assert edges[[0, 1, 12, 13, 14]] == pytest.approx([0, 0.08, 0.96, 1, 1.08])
    assert edges[[-3, -1]] == pytest.approx([30, 30.16])


# --- what trains -------------------------------------------------------------------------------------------------


def test_nothing_but_attention_and_the_aligner_trains(lalm: Any) -> None:
    """PEFT 0.21 turns a pattern into the names of its last part, which both towers and the talker have too."""
    trained = {part.block: set(part.trained) for part in parts_of(lalm) if part.n_trained}
    attention = {f"model.language_model.layers.*.self_attn.{name}_proj" for name in "qkvo"}
    assert trained == {
        "aligner": {"model.audio_tower.proj1", "model.audio_tower.proj2"},
        "LoRA": attention,
    }


def test_an_adapter_is_pefts_own_on_the_thinker_and_at_the_whole_models(
    lalm: Any, folder: Path, tmp_path: Path
) -> None:
    """Under the hub's names, which vLLM's table takes; no matrix is missing, and no tower gets one."""
    save_adapter(lalm, tmp_path)
    kept = load_file(tmp_path / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.thinker.model.layers.") for name in kept)
    official_class = Qwen3OmniMoeThinkerForConditionalGeneration
    alone = PeftModel.from_pretrained(official_class.from_pretrained(str(folder)), str(tmp_path))
    thinker = official_class.from_pretrained(str(folder)).config.to_dict()
    whole = Qwen3OmniMoeForConditionalGeneration(
        Qwen3OmniMoeConfig(thinker_config=thinker, enable_audio_output=False)
    )
    PeftModel.from_pretrained(whole.thinker, str(tmp_path))
    ours = {name: weight for name, weight in lalm.model.named_parameters() if ".lora_" in name}
    for theirs, begins in ((alone, ""), (whole, "thinker.")):
        found = {name: weight for name, weight in theirs.named_parameters() if ".lora_" in name}
        assert len(found) == len(ours) == 2 * 4 * 2
        for name, weight in ours.items():
            assert torch.equal(
                weight, found[begins + name.removeprefix("base_model.model.") if begins else name]
            )


def test_a_merged_checkpoint_is_the_adapter_on_its_base(lalm: Any, folder: Path, tmp_path: Path) -> None:
    """The talker goes over; an expert's matrices are files' entries of their own again."""
    save_adapter(lalm, tmp_path / "adapter")
    assert cli.main(["merge", "--model", str(tmp_path / "adapter"), "--out", str(tmp_path / "merged")]) == 0
    with torch.no_grad():
        assert torch.allclose(logps_of(lalm), logps_of(load(str(tmp_path / "merged"))), atol=1e-5)
    names = [
        {n: w for f in where.glob("*.safetensors") for n, w in load_file(f).items()}
        for where in (folder, tmp_path / "merged")
    ]
    assert names[0].keys() == names[1].keys()
    assert {f"thinker.model.layers.0.mlp.{part}.weight" for part in ("gate", "experts.3.up_proj")} < names[
        0
    ].keys()
    changed = {name for name, weight in names[0].items() if not torch.equal(weight, names[1][name])}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert all(name.startswith("thinker.model.layers.") for name in changed)
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["model_type"] == "qwen3_omni_moe"


def test_experts_and_router_train_where_they_are_asked_for(folder: Path, tmp_path: Path) -> None:
    """The adapter is PEFT's own, another base's weights are not touched, and a merged checkpoint is the same model."""
    lalm = trainable(load(str(folder)), ["experts", "router"])
    trained = next(part.trained for part in parts_of(lalm) if part.block == "LoRA")
    assert {name.split(".mlp.")[1] for name in trained if ".mlp." in name} == {
        *("experts", "experts.base_layer", "gate"),
    }
    said = logps_of(lalm)
    said.sum().backward()
    assert all(
        weight.grad.abs().max() > 0 for name, weight in lalm.model.named_parameters() if ".lora_A." in name
    )
    with lora_off(lalm):
        before = logps_of(lalm)
    assert torch.equal(before, logps_of(load(str(folder))))
    save_adapter(lalm, tmp_path / "adapter")
    assert torch.equal(logps_of(load(str(tmp_path / "adapter"))), said)
    alone = Qwen3OmniMoeThinkerForConditionalGeneration.from_pretrained(str(folder))
    kept = dict(PeftModel.from_pretrained(alone, str(tmp_path / "adapter")).named_parameters())
    ours = {name: weight for name, weight in lalm.model.named_parameters() if ".lora_" in name}
    assert all(torch.equal(weight, kept[name]) for name, weight in ours.items())
    merged = load(str(merge(load(str(tmp_path / "adapter")), tmp_path / "merged")))
    assert torch.allclose(logps_of(merged), said, atol=1e-5)
    assert (said - before).abs().max() > 0.3


def test_experts_of_a_model_that_has_none_are_refused() -> None:
    with pytest.raises(ModelError, match="tiny: is no mixture of experts; leave --lora-experts out"):
        with_lora(tiny_lalm(), rank=2, alpha=4, seed=0, mixture=["experts"])


def test_the_published_size_has_its_published_parameters_and_trains_what_plan_says() -> None:
    """Without a byte of weights. Decoder and head: Qwen3-30B-A3B's count, and 128 more rows of vocabulary."""
    sizes = sizes_of("Qwen/Qwen3-Omni-30B-A3B-Instruct")
    assert sizes.language_model == 30_532_122_624 + 2 * 128 * 2048
    assert sizes.audio_tower + sizes.aligner == pytest.approx(650e6, rel=0.01)  # the technical report's
    assert sizes.vision_tower == pytest.approx(540e6, rel=0.01)
    assert sizes.parameters == 31_719_205_488
    assert replace(sizes.decoder, lora_width=0) == QWEN3_30B_A3B
    assert sizes.decoder.layers * sizes.decoder.layer_weights == pytest.approx(3.3e9 - 0.6e9, rel=0.03)
    with torch.device("meta"):
        model = Qwen3OmniMoeThinkerForConditionalGeneration(PAPERS["Qwen/Qwen3-Omni-30B-A3B-Instruct"])
    lalm = Qwen3Omni("real", model, qwen3_tokenizer(), WhisperFeatureExtractor(feature_size=128))
    with_lora(lalm, rank=16, alpha=32, seed=0)
    lalm.aligner.requires_grad_(True)
    trained = {part.block: part.n_trained for part in parts_of(lalm) if part.n_trained}
    assert trained == {"aligner": sizes.aligner, "LoRA": lora_size(sizes.decoder, 16)}
    assert trained == {"aligner": 4_263_168, "LoRA": 13_369_344}


@pytest.mark.parametrize("family", ["qwen3", "qwen2.5"])
def test_the_decoder_of_a_thinker_is_a_text_model_that_vllm_knows(
    family: str, lalm: Any, tmp_path: Path
) -> None:
    """Its positions on several axes are ordinary ones where there is sound and text alone."""
    one = lalm if family == "qwen3" else tiny_qwen_omni(seconds=10)
    kind = {"qwen3": "Qwen3MoeForCausalLM", "qwen2.5": "Qwen2ForCausalLM"}[family]
    with lora_off(one) if family == "qwen3" else nullcontext():
        its_decoder_is_a_text_model(one, kind, tmp_path)


# --- Thinking ----------------------------------------------------------------------------------------------------


def test_a_response_begins_inside_the_thought_that_its_prompt_opens(thinking: Any) -> None:
    assert thinking.opening == "<think>\n"
    assert thinking.tokenizer.decode(list(thinking.prompt("Who?").after)).endswith("assistant\n<think>\n")
    written = "From 1.20s to 3.40s, seven.\n</think>\n\n(b) two"
    ids = [*thinking.tokens(written), thinking.eos_id]
    assert thinking.text(ids) == f"<think>\n{written}"
    assert [*thinking.response_tokens(thinking.text(ids)), thinking.eos_id] == ids


def test_an_answer_that_is_taught_without_a_thought_stands_outside_of_one(thinking: Any, lalm: Any) -> None:
    """As stage 1's, which no thought goes before."""
    answer = "The segment starts at 0.12 seconds"
    ids = thinking.response_tokens(answer)
    assert thinking.text(ids) == f"<think>\n\n</think>\n\n{answer}"
    assert thinking.response_tokens(f"Hm.\n</think>\n\n{answer}") == thinking.tokens(
        f"Hm.\n</think>\n\n{answer}"
    )
    assert thinking.response_tokens("") == thinking.tokens("\n</think>\n\n")
    assert lalm.response_tokens(answer) == lalm.tokens(answer)  # Instruct's prompt opens none


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("<think>\nIt is (b) two", None),
        ("<think>\nNot (a).\n</think>\n\n(b) two", "b"),
        ("Not (a).\n</think>\n\n(b) two", "b"),
        ("(b) two", "b"),
    ],
)
def test_a_thought_that_has_no_end_is_no_answer(said: str, letter: str | None) -> None:
    choices = ["one", "two"]
    assert official_letter(said) == letter
    assert extract_choice(said, choices) == (None if letter is None else 1)
    assert answer_reward([said], ["b"]) == [float(letter == "b")]


def test_a_cut_thought_still_shows_the_spans_that_it_cites(thinking: Any) -> None:
    text = thinking.text(thinking.tokens("From 1.20s to 3.40s, then from 4s to 5s"))
    assert find_spans(text) == [Span(1.2, 3.4), Span(4, 5)]
    assert timestamp_grounding_reward([text]) == [0.4]
    written = written_tokens(thinking, thinking.tokens("From 1.20s"))
    assert written.pieces[0].strip() == "From"
    assert "".join(written.pieces) == "From 1.20s"


# --- by command --------------------------------------------------------------------------------------------------


def test_every_command_takes_thinking(
    two_channels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    through_every_command(qwen3_omni_folder(Path("model"), thinking=True), two_channels)
    assert all(response.text.startswith("<think>\n") for response in read_responses("predictions.jsonl"))

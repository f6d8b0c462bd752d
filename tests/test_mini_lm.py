"""mini-lm: a Llama decoder in Audio Flamingo 3's class, tiny for the numbers, with real weights for the whole."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, WhisperFeatureExtractor

from tgsr import cli
from tgsr.answering.predict import respond
from tgsr.data.questions.build import ask_about, compose_clips, write_questions
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.models.aligner_and_lora import with_lora
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.load import load
from tgsr.models.merge import merge
from tgsr.models.mini_lm import CHAT_TEMPLATE, as_loud_as_text, assembled, tokenizer_of
from tgsr.models.packaged_weights import cache_folder
from tiny import TEXTS, omni_tokenizer, tiny_features


def tiny_mini_lm() -> AudioFlamingo3:
    tokenizer = tokenizer_of(
        omni_tokenizer().backend_tokenizer.to_str().replace("<|IMAGE|>", "<empty_output>")
    )
    decoder = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=36,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    model = assembled(decoder, tokenizer, 0, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    model.eval()
    extractor = WhisperFeatureExtractor(feature_size=80)
    return AudioFlamingo3("tiny mini-lm", model, tokenizer, extractor, base="mini-lm")


@pytest.fixture(scope="module")
def lalm() -> AudioFlamingo3:
    return tiny_mini_lm()


def test_a_llama_decoder_has_the_log_probs_of_transformers_own_forward(lalm: AudioFlamingo3) -> None:
    audio = tiny_features(20, 0)
    branches = [
        Branch(0, lalm.prompt(text).after, tuple(lalm.tokens(TEXTS[1]))) for text in ("When?", "Who?")
    ]
    with torch.no_grad():
        ours = branch_logps(listen(lalm, [audio]), branches)
        for row, branch in zip(ours.logp_BT, branches, strict=True):
            ids = torch.tensor([*branch.prompt, *branch.answer])
            before = lalm.embed(torch.tensor(lalm.prompt("").before))
            whole = torch.cat([before, lalm.align(audio), lalm.embed(ids)])[None]
            logits = lalm.inner(inputs_embeds=whole).logits[0, -len(branch.answer) - 1 : -1]
            expected = logits.log_softmax(-1).gather(-1, torch.tensor(branch.answer)[:, None])[:, 0]
            assert torch.allclose(row, expected, atol=1e-5)


def test_the_head_is_the_embedding_and_only_the_decoder_gets_a_lora(lalm: AudioFlamingo3) -> None:
    assert lalm.inner.lm_head.weight is lalm.language_model.get_input_embeddings().weight
    with_lora(lalm, rank=2, alpha=4, seed=0)
    trained = [name for name, weight in lalm.model.named_parameters() if weight.requires_grad]
    assert len(trained) == 2 * 7 * 2
    assert all(".language_model.layers." in name for name in trained)


def test_merged_it_is_a_folder_of_its_own(tmp_path: Path) -> None:
    """Its head is the embedding, which its class does not tie: the folder has both."""
    lalm = tiny_mini_lm()
    branches = [Branch(0, lalm.prompt("When?").after, tuple(lalm.tokens(TEXTS[1])))]

    def logps(of: Any) -> torch.Tensor:
        with torch.no_grad():
            return branch_logps(listen(of, [tiny_features(20, 0)]), branches).logp_BT

    expected = logps(lalm)
    merged = load(str(merge(lalm, tmp_path / "merged")))
    assert merged.lm_head.weight is not merged.language_model.get_input_embeddings().weight
    assert torch.allclose(logps(merged), expected, atol=1e-5)


def test_the_aligner_speaks_as_loud_as_text() -> None:
    tokenizer = tokenizer_of(
        omni_tokenizer().backend_tokenizer.to_str().replace("<|IMAGE|>", "<empty_output>")
    )
    decoder = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=36, num_hidden_layers=1, num_attention_heads=3
    )
    model = assembled(decoder, tokenizer, 0, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    embeddings = torch.randn(50, 36) * 0.7
    as_loud_as_text(model, embeddings)
    with torch.no_grad():
        heard = model.model.multi_modal_projector(torch.randn(500, 16))
    assert heard.norm(dim=-1).mean() == pytest.approx(float(embeddings.norm(dim=-1).mean()), rel=0.2)


def require_weights() -> None:
    for needed in ("smollm2-135m-instruct", "whisper-base-encoder.safetensors"):
        if not (cache_folder() / needed).exists():
            pytest.skip(f"{cache_folder() / needed} is not there: `make fetch` downloads it, once")


def asked(folder: Path) -> tuple[str, str]:
    """The files of two phrases and of a question about one clip."""
    clips = compose_clips(1, "train", 0, folder)
    questions = {"sta": ask_about(clips, "sta", 2, 0), "qa": ask_about(clips, "qa", 0, 0)[:1]}
    sta, qa = (
        write_questions(clips, of, folder).rename(folder / f"{k}.jsonl") for k, of in questions.items()
    )
    return str(sta), str(qa)


def test_all_commands_run_on_a_tiny_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, (sta, qa) = str(merge(tiny_mini_lm(), tmp_path / "tiny")), asked(tmp_path)
    aligned, tuned = str(tmp_path / "sta"), str(tmp_path / "grpo")
    few = ["--max-steps", "1", "--group-size", "2", "--max-new-tokens", "3", "--prompts-per-step", "1"]
    short = ["--max-new-tokens", "3"]
    predicted, attended = tmp_path / "p.jsonl", tmp_path / "attention"
    for command in (
        ["train", "sta", "--questions", sta, "--model", model, "--out", aligned],
        ["train", "grpo", "--questions", qa, "--model", f"{aligned}/adapter", "--out", tuned, *few],
        ["predict", "--questions", sta, "--model", f"{tuned}/adapter", "--out", str(predicted), *short],
        ["score", str(predicted), "--out", str(tmp_path / "metrics.json")],
        ["attend", "--questions", qa, "--model", model, "--out", str(attended), *short],
    ):
        assert cli.main(command) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "metrics.json").read_text())
    assert (attended / "attention.png").stat().st_size > 0


def test_the_real_one_is_untrained_learns_and_still_writes_english(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    require_weights()
    sta, _ = asked(tmp_path)
    with caplog.at_level(logging.WARNING):
        command = ["train", "sta", "--questions", sta, "--model", "mini-lm", "--out", str(tmp_path / "sta")]
        assert cli.main(command) == 0, capsys.readouterr().err
    assert "untrained" in caplog.text
    lalm = load(str(tmp_path / "sta" / "adapter"))
    assert lalm.max_seconds == 600
    assert lalm.tokenizer.chat_template == CHAT_TEMPLATE
    silence = torch.zeros(25, 512)
    (text,) = respond(lalm, [silence], [(0, lalm.prompt("What is the capital of France?").after)])
    assert "Paris" in text

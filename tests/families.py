"""What every family that trains is put through, whatever its layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tgsr import cli
from tgsr.check.official import official_greedy, official_logps
from tgsr.engine.sampling import sample
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.engine.vllm_rollouts import export_decoder, server_command
from tgsr.models.aligner_and_lora import parts_of
from tgsr.models.load import load, save_adapter
from tgsr.models.merge import merge
from tgsr.records import Question, Response, read_questions, read_responses, write_jsonl
from tgsr.timeline import Span
from tgsr.training.plan import lora_size, sizes_of
from tiny import noise, questions_in

TEXTS = ("When?", "Wer sagt „sieben“? 七在哪里?", "Which digit is said right after seven?")
ANSWERS = ("", "Von 1.20s bis 1.40s: 七", "(b) two")  # the first is empty


def run(*arguments: str) -> None:
    assert cli.main(arguments) == 0


def through_every_command(folder: Path, two_channels: Path) -> None:
    """Stage 1, stage 2, merge, predict, sft, score, attend and plan, in the current folder; a second language, two
    channels, an empty answer.
    """
    model, short, cache = str(folder), ("--max-new-tokens", "6"), ("--cache", "cache")
    about = ("stereo", str(two_channels), 1.5)
    phrase = Question("zh", *about, "phrase", "When?", phrase="七 sieben", evidence=(Span(0.2, 1.1),))
    choice = Question("de", *about, "choice", TEXTS[1], answer="日本", choices=("日本", "niemand"))
    asked = {}
    for kind, one in (("sta", phrase), ("qa", choice)):
        file = questions_in(Path(kind).resolve(), kind, 1, n_phrases=1, most=1)
        write_jsonl(file, [*read_questions(file), one])
        asked[kind] = str(file)
    few = ("--max-steps", "1", "--prompts-per-step", "2", "--group-size", "2", *short, *cache)
    run("train", "sta", "--questions", asked["sta"], "--model", model, "--out", "one", *cache)
    run("train", "grpo", "--questions", asked["qa"], "--model", "one/adapter", "--out", "two", *few)
    run("merge", "--model", "two/adapter", "--out", "merged")
    qa = ("--questions", asked["qa"], *short, *cache)
    for name in ("two/adapter", "merged"):
        run("predict", "--model", name, "--out", "predictions.jsonl", *qa)
    predicted = read_responses("predictions.jsonl")
    of = {name: [r.text for r in predicted if r.model == name] for name in ("two/adapter", "merged")}
    assert of["two/adapter"] == of["merged"]
    assert len(of["merged"]) == 2
    write_jsonl("written.jsonl", [Response(q, "someone", "") for q in read_questions(asked["qa"])])
    learned = ("--responses", "written.jsonl", "--out", "empty", "--max-steps", "1", *cache)
    run("train", "sft", "--model", model, *learned)
    run("score", "written.jsonl", "--out", "metrics.json")
    assert json.loads(Path("metrics.json").read_text())["models"]["someone"]
    run("attend", "--model", "two/adapter", "--out", "attention", "--heat", "0", *qa)
    assert set(json.loads(Path("attention/attention.json").read_text())) == {"two/adapter"}
    run("plan", "--model", "merged")


def branches_of(lalm: Any) -> list[Branch]:
    """Of three clips, an answer each: TEXTS and ANSWERS."""
    return [
        Branch(clip, lalm.prompt(text).after, (*lalm.response_tokens(answer), lalm.eos_id))
        for clip, (text, answer) in enumerate(zip(TEXTS, ANSWERS, strict=True))
    ]


def a_padded_batch_is_as_the_official_one(lalm: Any, batch: Any, clips: Sequence[np.ndarray]) -> None:
    """Log-probs of ANSWERS, and greedy texts, to TEXTS about three clips; `batch` has them as the processor pads."""
    answers = [(*lalm.response_tokens(text), lalm.eos_id) for text in ANSWERS]
    n = max(map(len, answers))
    rows = torch.tensor([[*answer, *[lalm.pad_id] * (n - len(answer))] for answer in answers])
    ids = torch.cat([batch["input_ids"], rows], 1)
    mask = torch.cat([batch["attention_mask"], torch.ones_like(rows)], 1)
    sound = {name: batch[name] for name in batch if "feature" in name}
    branches = branches_of(lalm)
    with torch.no_grad():
        logits = lalm.inner(input_ids=ids, attention_mask=mask, **sound).logits[:, -n - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, ids[:, -n:, None])[..., 0]
        prefix = listen(lalm, [lalm.encode_audio(clip) for clip in clips])
        packed = branch_logps(prefix, branches)
        prompts = [branch.prompt for branch in branches]
        drawn = sample(prefix, range(3), prompts, max_new_tokens=12, temperature=0)
        theirs = lalm.inner.generate(**batch, max_new_tokens=12, do_sample=False, pad_token_id=lalm.pad_id)
    for row, kept, answer, other in zip(packed.logp_BT, packed.mask_BT, answers, expected, strict=True):
        assert torch.allclose(row[kept], other[: len(answer)], atol=1e-5)
    texts_drawn = [list(one.ids) for one in drawn]
    for ours, other in zip(texts_drawn, theirs[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
        assert ours == other[: len(ours)]
    assert len(set(map(tuple, texts_drawn))) > 1


def held_to_the_official_class(lalm: Any, clips: Sequence[np.ndarray]) -> None:
    """Log-probs of `branches_of` over three clips in one row, and gradients of all that trains, are its forward's."""
    branches = branches_of(lalm)
    packed = branch_logps(listen(lalm, [lalm.encode_audio(clip) for clip in clips]), branches)
    ours, theirs = packed.logp_BT[packed.mask_BT], torch.cat(official_logps(lalm, clips, branches))
    assert torch.allclose(ours, theirs, atol=1e-5)
    trained = {name: weight for name, weight in lalm.model.named_parameters() if weight.requires_grad}
    for name, one, other in zip(
        trained,
        torch.autograd.grad(ours.mean(), list(trained.values())),
        torch.autograd.grad(theirs.mean(), list(trained.values())),
        strict=True,
    ):
        assert one.abs().max() > 1e-6 or name.endswith("key.bias"), name  # which softmax does not see
        assert torch.allclose(one, other, atol=1e-5), name


def counted_as_loaded(lalm: Any, folder: Path, rank: int = 2) -> None:
    """A plan counts from config.json, part by part, what the loaded model with its LoRA has."""
    sizes, of = sizes_of(str(folder)), {part.block: part.n for part in parts_of(lalm)}
    ours = sizes.aligner, sizes.audio_tower, sizes.vision_tower, lora_size(sizes.decoder, rank)
    assert ours == (of["aligner"], of["audio tower"], of.get("vision tower", 0), of["LoRA"])
    assert sizes.language_model == of["language model"] + of.get("head", 0)


def greedy_as_generate(lalm: Any, clips: Sequence[np.ndarray], n: int = 10) -> list[list[int]]:
    """What the sampler writes for each of TEXTS' first clips, which is what `generate` writes."""
    prompts = [lalm.prompt(text).after for text in TEXTS[: len(clips)]]
    prefix = listen(lalm, [lalm.encode_audio(clip) for clip in clips])
    with torch.no_grad():
        drawn = sample(prefix, range(len(clips)), prompts, max_new_tokens=n, temperature=0)
    for one, clip, prompt in zip(drawn, clips, prompts, strict=True):
        assert list(one.ids) == official_greedy(lalm, clip, prompt, n)
    return [list(one.ids) for one in drawn]


def logps_of(lalm: Any) -> Tensor:
    """Log-probs of three tokens about a second of noise."""
    branches = [Branch(0, lalm.prompt("When?").after, (5, 6, lalm.eos_id))]
    with torch.no_grad():
        return branch_logps(listen(lalm, [lalm.encode_audio(noise(1.0))]), branches).logp_BT


def an_adapter_loads_and_merges(lalm: Any, folder: Path, official: Any, hub_names: str, out: Path) -> None:
    """Saved, its names begin as the hub's; PEFT finds all of it on the official class; merged it is the same model."""
    save_adapter(lalm, out / "adapter")
    names = load_file(out / "adapter" / "adapter_model.safetensors")
    assert all(name.startswith(f"base_model.model.{hub_names}") for name in names)
    theirs = PeftModel.from_pretrained(official, str(out / "adapter"))
    kept = {name: weight for name, weight in theirs.named_parameters() if ".lora_" in name}
    ours = {name: weight for name, weight in lalm.model.named_parameters() if ".lora_" in name}
    assert kept.keys() == ours.keys()
    assert all(torch.equal(ours[name], kept[name]) for name in ours)
    expected = logps_of(load(str(out / "adapter")))
    merged = merge(load(str(out / "adapter")), out / "merged")
    assert torch.allclose(logps_of(load(str(merged))), expected, atol=1e-5)
    assert (expected - logps_of(load(str(folder)))).abs().max() > 0.01


def its_decoder_is_a_text_model(lalm: Any, kind: str, out: Path) -> list[str]:
    """Exported, the decoder loads as the class `kind`, all of it, and has the whole model's logits of what it hears.

    The command that serves it comes back.
    """
    export_decoder(lalm, out)
    text, found = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert [type(text).__name__] == [kind] == text.config.architectures
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    with torch.no_grad():
        row = listen(lalm, [lalm.encode_audio(noise(1.3))], after=[lalm.prompt("When?").after]).rows[0][None]
        ours = lalm.lm_head(lalm.language_model(inputs_embeds=row).last_hidden_state)
        assert torch.allclose(text(inputs_embeds=row).logits, ours, atol=1e-5)
    return server_command(out, cpu=True)


def features_are_made_outside_autocast(lalm: Any, encoder: torch.nn.Module) -> None:
    """Its products would be rounded to bfloat16 there, where training computes in that."""
    entered: list[Tensor] = []
    hook = encoder.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    for rounded in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            lalm.encode_audio(noise(0.4))
    hook.remove()
    assert torch.equal(*entered)

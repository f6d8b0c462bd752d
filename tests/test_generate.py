"""transformers' generate as it is told: no checkpoint's own settings, one rule of drawing, an end for NaN."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from test_answerable_by_text import save_tiny_llm
from test_any_transformers import folder as generic_folder  # noqa: F401  a fixture
from test_any_transformers import noise
from tgsr.answering.any_transformers import load_generic
from tgsr.answering.cascade import ByPrompt, ByQuotation, Cascade
from tgsr.answering.open import open_model
from tgsr.answering.passages import Match
from tgsr.answering.predict import predict, respond
from tgsr.answering.responder import ClipQuestion
from tgsr.audio import save_wav
from tgsr.data.transcribe.transcript import Line
from tgsr.engine.features import FeatureCache
from tgsr.engine.generate import generate
from tgsr.engine.sampling import NOT_FINITE, of_like_lengths, sample, uniforms_of
from tgsr.engine.shared_prefix import listen
from tgsr.llm.decoding import Cut, Decoding, Failed
from tgsr.llm.served import TextPrompt
from tgsr.llm.text_models import LocalLlm
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.records import Question
from tgsr.timeline import Word
from tiny import tiny_features, tiny_lalm

GREEDY = Decoding(max_new_tokens=10)
WARM = Decoding(max_new_tokens=10, temperature=0.9, top_p=0.95, seed=3)
THEIRS: Sequence[dict[str, Any]] = (
    {"repetition_penalty": 5.0},
    {"no_repeat_ngram_size": 1},
    {"top_k": 1, "do_sample": True},
    {"min_p": 0.9, "do_sample": True, "temperature": 0.1},
    {"typical_p": 0.1, "do_sample": True},
    {"epsilon_cutoff": 0.5, "eta_cutoff": 0.5, "do_sample": True},
    {"num_beams": 3, "length_penalty": 2.0},
    {"num_beams": 2, "num_return_sequences": 2},
    {"suppress_tokens": list(range(20, 400))},
    {"begin_suppress_tokens": list(range(20, 400))},
    {"bad_words_ids": [[token] for token in range(20, 400)]},
    {"sequence_bias": [[[30], 100.0]]},
    {"forced_bos_token_id": 30},
    {"forced_eos_token_id": 30},
    {"max_length": 3},
    {"max_new_tokens": 1},
    {"min_new_tokens": 9, "min_length": 500},
    {"exponential_decay_length_penalty": [1, 9.0]},
    {"guidance_scale": 3.0},
    {"return_dict_in_generate": True, "output_scores": True},
    {"stop_strings": ["e", "a", "o"]},
    {"max_time": 1e-9},
    {"renormalize_logits": True, "remove_invalid_values": True},
    {"watermarking_config": {"bias": 9.0}},
)


@pytest.fixture(scope="module")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llm")
    save_tiny_llm(made)
    return made


def with_settings(folder: Path, copy: Path, settings: dict[str, Any]) -> str:
    shutil.copytree(folder, copy)
    path = copy / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return str(copy)


@pytest.mark.parametrize("decoding", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_a_checkpoints_settings_change_no_word(
    llm_folder: Path,
    generic_folder: Path,  # noqa: F811
    decoding: Decoding,
) -> None:
    llm, generic = LocalLlm.load(str(llm_folder)), load_generic(str(generic_folder))
    own = llm.model.generation_config.to_dict()
    asked, clips = [ClipQuestion(0, "Who?", "Who?", id="q")], [noise(0.3)]
    written, heard = llm.write("Who says seven?", decoding), generic.respond(clips, asked, decoding)
    assert isinstance(written, str)
    assert len(written) > 5
    for n, settings in enumerate(THEIRS):
        llm.model.generation_config = GenerationConfig.from_dict(own | settings)
        assert llm.write("Who says seven?", decoding) == written, settings
        if n < 8:
            generic.model.generation_config = GenerationConfig.from_dict(own | settings)
            assert generic.respond(clips, asked, decoding) == heard, settings


def test_settings_in_a_checkpoints_folder_change_no_word(
    llm_folder: Path,
    generic_folder: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    settings = {
        "repetition_penalty": 5.0,
        "top_k": 1,
        "do_sample": True,
        "suppress_tokens": list(range(20, 400)),
    }
    llms = [llm_folder, with_settings(llm_folder, tmp_path / "llm", settings)]
    first, second = (LocalLlm.load(str(folder)).write("Who says seven?", WARM) for folder in llms)
    assert first == second
    asked, clips = [ClipQuestion(0, "Who?", "Who?", id="q")], [noise(0.3)]
    folders = [generic_folder, with_settings(generic_folder, tmp_path / "generic", settings)]
    heard = [load_generic(str(folder)).respond(clips, asked, GREEDY) for folder in folders]
    assert heard[0] == heard[1]


def test_every_end_token_ends_what_transformers_writes(llm_folder: Path, tmp_path: Path) -> None:
    llm = LocalLlm.load(str(llm_folder))
    row = torch.tensor([llm.prompt("Who says seven?")])
    inputs = {"input_ids": row, "attention_mask": torch.ones_like(row)}
    free = generate(llm.model, llm.tokenizer, inputs, max_new_tokens=10)
    assert (free.cut, len(free.ids), len(free.logps)) == (True, 10, 10)
    ends = [int(llm.tokenizer.eos_token_id), free.ids[3]]
    theirs = LocalLlm.load(with_settings(llm_folder, tmp_path / "copy", {"eos_token_id": ends}))
    ended = generate(theirs.model, theirs.tokenizer, inputs, max_new_tokens=10)
    assert (ended.ids, ended.cut) == (free.ids[: free.ids.index(ends[1]) + 1], False)


def test_an_end_token_that_its_tokenizer_calls_ordinary_is_no_text(
    llm_folder: Path,
    generic_folder: Path,  # noqa: F811
) -> None:
    llm, generic = LocalLlm.load(str(llm_folder)), load_generic(str(generic_folder))
    row = torch.tensor([llm.prompt("Who?")])
    heard = generic.inputs(noise(0.3), "Who?")
    asked = [ClipQuestion(0, "Who?", "Who?", id="Who?")]
    for model, tokenizer, inputs, write in (
        (llm.model, llm.tokenizer, {"input_ids": row}, lambda: llm.write("Who?", GREEDY)),
        (
            generic.model,
            generic.processor.tokenizer,
            heard,
            lambda: generic.respond([noise(0.3)], asked, GREEDY)[0],
        ),
    ):
        ids = generate(model, tokenizer, inputs, max_new_tokens=10).ids
        end = next(n for n in range(1, len(ids)) if ids[n] not in ids[:n])
        model.generation_config.eos_token_id = [int(tokenizer.eos_token_id), ids[end]]
        whole = write()
        assert not isinstance(whole, Cut | Failed)
        assert str(whole) == tokenizer.decode(list(ids[:end]))


def test_what_the_limit_cuts_is_called_so(generic_folder: Path) -> None:  # noqa: F811
    model = load_generic(str(generic_folder))
    (short,) = model.respond([noise(1.0)], [ClipQuestion(0, "Who?", "Who?")], Decoding(max_new_tokens=2))
    assert isinstance(short, Cut)


def test_a_prompt_without_room_fails_instead_of_losing_its_beginning(llm_folder: Path) -> None:
    llm = LocalLlm.load(str(llm_folder))
    found = llm.write("seven " * 3000, GREEDY)
    assert isinstance(found, Failed)
    assert "tokens of prompt; the text model has room for 2038" in found.reason


def test_a_question_that_the_context_has_no_room_for_costs_itself(generic_folder: Path) -> None:  # noqa: F811
    model = load_generic(str(generic_folder))
    model.model.config.get_text_config().max_position_embeddings = 120
    asked = [ClipQuestion(0, text, text) for text in ("Who?", "Who says seven? " * 30)]
    short, long = model.respond([noise(1.0)], asked, GREEDY)
    assert isinstance(short, str)
    assert isinstance(long, Failed)
    assert "has room for 110" in long.reason


def test_a_system_turn_reaches_every_model(
    generic_folder: Path,  # noqa: F811
    llm_folder: Path,
    tmp_path: Path,
) -> None:
    generic = load_generic(str(generic_folder))
    generic.system = "Be <|im_end|> brief."
    ids = generic.inputs(noise(1.0), "Who?")["input_ids"][0].tolist()
    assert "<|im_start|>system\nBe < |im_end|> brief.<|im_end|>" in generic.processor.tokenizer.decode(ids)
    cascade = open_model(f"cascade:{llm_folder}", tmp_path, system="Be brief.")
    assert isinstance(cascade, Cascade)
    assert isinstance(cascade.llm, ByPrompt)
    llm = cascade.llm.llm
    assert isinstance(llm, LocalLlm)
    assert llm.tokenizer.decode(llm.prompt("Who?", cascade.system)).startswith("Be brief.")


@pytest.mark.parametrize("name", ["<|AUDIO|>", "<|im_end|>", "<|audio_bos|>", "<|im_start|>"])
def test_a_processor_sees_no_special_token_in_a_question(generic_folder: Path, name: str) -> None:  # noqa: F811
    model = load_generic(str(generic_folder))
    token = model.processor.tokenizer.get_vocab()[name]
    plain, hostile = (
        model.inputs(noise(1.0), text)["input_ids"][0].tolist() for text in ("?", f"What is {name}?")
    )
    assert hostile.count(token) == plain.count(token)
    assert name[2:] in model.processor.tokenizer.decode(hostile)


# --- not finite ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("decoding", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_logits_that_are_not_finite_fail_with_a_reason(
    llm_folder: Path,
    generic_folder: Path,  # noqa: F811
    value: float,
    decoding: Decoding,
) -> None:
    llm, model = LocalLlm.load(str(llm_folder)), load_generic(str(generic_folder))
    with torch.no_grad():
        llm.model.get_output_embeddings().weight[:] = value
        model.model.get_output_embeddings().weight[5] = value
    asked = [ClipQuestion(0, "Who?", "Who?")]
    letters = llm.replies([TextPrompt("Who?", "ab")], decoding) if decoding is GREEDY else []
    for found in (llm.write("Who?", decoding), *model.respond([noise(1.0)], asked, decoding), *letters):
        assert isinstance(found, Failed)
        assert "not finite" in found.reason


def test_what_was_written_before_the_logits_broke_is_told(llm_folder: Path) -> None:
    llm = LocalLlm.load(str(llm_folder))
    asked = llm.prompt("Who?")
    ids = generate(llm.model, llm.tokenizer, {"input_ids": torch.tensor([asked])}, max_new_tokens=10).ids
    broken = next(n for n in range(1, 9) if ids[n] not in (*ids[:n], *asked))
    llm.model.set_output_embeddings(copy.deepcopy(llm.model.get_output_embeddings()))
    with torch.no_grad():
        llm.model.get_input_embeddings().weight[ids[broken]] = float("nan")
    found = llm.write("Who?", GREEDY)
    until = llm.tokenizer.decode(list(ids[: broken + 1]))
    assert found == Failed(f"{NOT_FINITE}; until then it wrote {until!r:.80}")


def test_a_cascade_whose_likelihoods_are_not_finite_chooses_nothing(llm_folder: Path) -> None:
    llm = LocalLlm.load(str(llm_folder))
    with torch.no_grad():
        llm.model.get_input_embeddings().weight.fill_(float("nan"))
    ranked = [Match(0, Line((Word("Seven.", 0.0, 1.0),)), 1.0)]
    found = ByQuotation(lambda: llm).answer(ranked, ClipQuestion(0, "", "Which?", ("seven", "one")))
    assert found == Failed(NOT_FINITE)


@pytest.fixture(scope="module")
def lalm() -> AudioFlamingo3:
    return tiny_lalm()


@pytest.mark.parametrize("decoding", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_one_branch_that_is_not_finite_fails_alone(decoding: Decoding) -> None:
    lalm = tiny_lalm()
    bad = lalm.plain_tokens("seven")[-1]
    prompts = [(0, lalm.prompt(text).after) for text in ("Who?", "seven", "When?")]
    whole = respond(lalm, [tiny_features(20, 5)], prompts, decoding)
    with torch.no_grad():
        lalm.language_model.get_input_embeddings().weight[bad] = float("nan")
    found = respond(lalm, [tiny_features(20, 5)], prompts, decoding)
    assert isinstance(found[1], Failed)
    assert found[1].reason.startswith(NOT_FINITE)
    assert [found[0], found[2]] == [whole[0], whole[2]]


def test_a_branch_that_breaks_later_keeps_what_it_wrote(lalm: AudioFlamingo3) -> None:
    prompt = lalm.prompt("Who?").after
    with torch.no_grad():
        prefix = listen(lalm, [tiny_features(20, 5)])
    free = sample(prefix, [0], [prompt], max_new_tokens=8, temperature=0)[0]
    third = next(n for n in range(2, 8) if free.ids[n] not in (*free.ids[:n], *prompt))
    broken = tiny_lalm()
    with torch.no_grad():
        broken.language_model.get_input_embeddings().weight[free.ids[third]] = float("nan")
        prefix = listen(broken, [tiny_features(20, 5)])
    ended = sample(prefix, [0], [prompt], max_new_tokens=8, temperature=0)[0]
    assert ended.ids == (*free.ids[: third + 1], broken.eos_id)
    assert (ended.failed, ended.cut) == (NOT_FINITE, False)
    assert np.isnan(ended.logps[-1])
    assert np.isfinite(ended.logps[:-1]).all()


# --- draws ---------------------------------------------------------------------------------------------------------


def test_a_rows_numbers_are_its_names_whoever_else_is_there() -> None:
    rows = uniforms_of(["a", "b", "c"], 6, 1)
    assert torch.equal(uniforms_of(["c", "a"], 6, 1), rows[[2, 0]])
    assert torch.equal(uniforms_of(["b"], 3, 1)[0], rows[1, :3])  # a higher limit changes no draw before it
    assert not torch.equal(uniforms_of(["a"], 6, 2)[0], rows[0])
    assert 0 <= rows.min() < rows.max() < 1


def questions(folder: Path, n_clips: int, each: int) -> list[Question]:
    for clip in range(n_clips):
        save_wav(folder / f"{clip}.wav", noise(0.5 + clip / 7, clip))
    return [
        Question(f"{clip}-{n}", str(clip), f"{clip}.wav", 9.0, "choice", f"Who says {n}?", "a", ("a", "b"))
        for clip in range(n_clips)
        for n in range(each)
    ]


@pytest.mark.parametrize("kind", ["lalm", "generic"])
def test_sampled_predictions_depend_on_no_batch_order_or_restart(
    tmp_path: Path,
    generic_folder: Path,  # noqa: F811
    lalm: AudioFlamingo3,
    kind: str,
) -> None:
    asked = questions(tmp_path, *((3, 3) if kind == "lalm" else (2, 2)))
    model: Any = lalm if kind == "lalm" else load_generic(str(generic_folder))

    def drawn(some: Sequence[Question]) -> dict[str, str]:
        found = predict(model, some, tmp_path / "q.jsonl", FeatureCache(tmp_path / "cache"), WARM)
        return {response.question.id: response.text for response in found}  # type: ignore[union-attr]

    together = drawn(asked)
    assert len(set(together.values())) > len(asked) // 2
    assert drawn(asked[::-1]) == together
    assert drawn(asked[3:]) == {question.id: together[question.id] for question in asked[3:]}
    alone: dict[str, str] = {}
    for question in asked:
        alone |= drawn([question])
    assert alone == together


# --- lengths -------------------------------------------------------------------------------------------------------


def test_a_very_long_row_is_padded_with_nobody() -> None:
    assert of_like_lengths([1000] * 7 + [20_000]) == [[0, 1, 2, 3, 4, 5, 6], [7]]
    assert of_like_lengths([30_000, 1000, 900, 31_000, 1100]) == [[1, 2, 4], [0, 3]]
    assert of_like_lengths([10, 400, 30]) == [[0, 1, 2]]  # small: together
    assert of_like_lengths([7500, 7400, 7600] * 3) == [list(range(9))]  # alike: together


def test_one_over_long_question_changes_no_answer_and_nobody_elses_memory(lalm: AudioFlamingo3) -> None:
    lalm.inner.config.text_config.max_position_embeddings = 20_000
    heard = [tiny_features(20, 5), tiny_features(30, 6)]
    prompts = [(clip, lalm.prompt(text).after) for clip, text in ((0, "Who?"), (1, "When?"), (0, "seven?"))]
    long = (0, lalm.prompt("Who says seven, one, two? " * 210).after)
    assert len(long[1]) > 2048
    rows: list[tuple[int, ...]] = []
    embeddings = lalm.language_model.get_input_embeddings()
    hook = embeddings.register_forward_hook(lambda _, given, out: rows.append(tuple(given[0].shape)))
    few = Decoding(max_new_tokens=4)
    try:
        found = respond(lalm, heard, [prompts[0], long, *prompts[1:]], few)
    finally:
        hook.remove()
    expected = respond(lalm, heard, prompts, few)
    (alone,) = respond(lalm, [heard[0]], [long], few)
    assert [found[0], *found[2:]] == expected
    assert found[1] == alone
    assert max(n_rows * n for n_rows, n in (shape for shape in rows if len(shape) == 2)) < 300

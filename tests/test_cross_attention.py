"""The family whose audio enters by cross-attention: Whisper, tiny and random, and the packaged base where it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import GenerationMixin, PreTrainedTokenizerFast, WhisperForConditionalGeneration

from tgsr import cli
from tgsr.answering.ask import ask
from tgsr.answering.predict import LalmAnswers, as_long_as_fits
from tgsr.audio import SAMPLE_RATE
from tgsr.audio import load as load_sound
from tgsr.check.official import memory_logps
from tgsr.engine.features import FeatureCache, parts
from tgsr.engine.sampling import sample, uniforms
from tgsr.engine.shared_prefix import Branch, SoftTimes, branch_logps, listen, without_start
from tgsr.errors import ModelError, OptionError
from tgsr.llm.decoding import Decoding
from tgsr.models.aligner_and_lora import with_lora
from tgsr.models.lalm import Lalm, writing_times
from tgsr.models.load import files_of, load, save_adapter
from tgsr.models.packaged_weights import cache_folder, whisper
from tgsr.models.placement import LoadAs, Placement
from tgsr.models.whisper import Whisper, set_newline_apart
from tgsr.models.whisper_checkpoint import with_first_merge
from tgsr.prompts import Times
from tgsr.records import read_questions
from tgsr.sta import phrase_branch, soft_times_of, train_sta
from tgsr.timeline import Span
from tgsr.training.config import StaConfig
from tgsr.training.run import make_trainable
from tgsr.training.steps import as_trained
from tiny import logged, noise, questions_in, tiny_lalm, tiny_whisper, whisper_folder

STA = StaConfig(questions="", clips_per_step=2, learning_rate=1e-2)
SECONDS = (0.1, 2.5, 30.0)


@pytest.fixture(scope="module")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return questions_in(tmp_path_factory.mktemp("sta"), "sta", 4, n_phrases=2)


@pytest.fixture(scope="module")
def lalm() -> Whisper:
    return tiny_whisper()


@pytest.fixture(scope="module")
def clips(lalm: Whisper) -> list[Tensor]:
    """Of 0.1 s to 30 s, as the encoder leaves them."""
    return [lalm.encode_audio(noise(seconds)) for seconds in SECONDS]


def branches_for(lalm: Whisper) -> list[Branch]:
    """Of three clips whose branches stand among each other's, of different lengths."""
    asked = [
        (1, "When?", "0.12 - 3"),
        (0, "Which digit is said?", "(b) two"),
        (2, "What is the timestamp of the following segment?", "four"),
        (1, "x", "yes no yes <|7.40|>"),
        (0, "When?", "0.12 - 3"),
    ]
    return [Branch(o, lalm.prompt(q).after, (*lalm.response_tokens(a), lalm.eos_id)) for o, q, a in asked]


# --- against the official class ----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 17, 40])
def test_branches_have_the_official_log_probs_whatever_their_prefix_holds(
    lalm: Whisper, clips: list[Tensor], length: int
) -> None:
    branches = branches_for(lalm)
    expected = memory_logps(lalm, clips, branches)
    packed = branch_logps(listen(lalm, clips), branches)
    for row, mask, official in zip(packed.logp_BT, packed.mask_BT, expected, strict=True):
        assert torch.allclose(row[mask], official, atol=1e-5)
    # What a clip's prompts begin with may stand in its row: as much as fits, a token, or the question in part.
    after, cut = [], list(branches)
    for clip in range(len(clips)):
        places = [place for place, b in enumerate(branches) if b.owner == clip]
        kept = without_start([branches[place] for place in places])[0][:length]
        after.append(kept)
        for place in places:
            cut[place] = replace(branches[place], prompt=branches[place].prompt[len(kept) :])
    shared = branch_logps(listen(lalm, clips, after=after), cut)
    assert torch.allclose(shared.logp_BT, packed.logp_BT, atol=1e-5)


def test_some_clips_of_a_prefix_are_a_prefix(lalm: Whisper, clips: list[Tensor]) -> None:
    branches = branches_for(lalm)
    whole = listen(lalm, clips)
    every = branch_logps(whole, branches).logp_BT
    for clip in range(len(clips)):
        own = [replace(b, owner=0) for b in branches if b.owner == clip]
        alone = branch_logps(whole.of(slice(clip, clip + 1)), own).logp_BT
        same = every[[place for place, b in enumerate(branches) if b.owner == clip]]
        assert torch.allclose(alone, same[:, : alone.shape[1]], atol=1e-5)
    turned = whole.only([2, 0]).and_also(whole.only([1]))
    assert [len(frames) for frames in turned.memory] == list(turned.n_frames) == [1500, 5, 125]
    renamed = [replace(b, owner=[1, 2, 0][b.owner]) for b in branches]
    assert torch.allclose(branch_logps(turned, renamed).logp_BT, every, atol=1e-5)


def test_gradients_of_aligner_and_lora_are_the_official_ones(clips: list[Tensor]) -> None:
    lalm = tiny_whisper()
    branches = branches_for(lalm)
    with_lora(lalm, 2, 4, 0)
    lalm.aligner.requires_grad_(True)
    for name, weight in lalm.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.1)
    trained = [weight for weight in lalm.model.parameters() if weight.requires_grad]
    assert len(trained) == 4 + 2 * (4 + 4 + 2) * 2  # aligner; layers, matrices, factors
    together = torch.autograd.grad(branch_logps(listen(lalm, clips), branches).logp_BT.sum(), trained)
    official = torch.cat(memory_logps(lalm, clips, branches)).sum()
    for ours, theirs in zip(together, torch.autograd.grad(official, trained), strict=True):
        scale = float(theirs.abs().max())
        assert scale > 0
        assert torch.allclose(ours, theirs, atol=1e-5 * max(1.0, scale))


def test_greedy_sampling_is_transformers_generate(lalm: Whisper, clips: list[Tensor]) -> None:
    prompts = [lalm.prompt(text).after for text in ("When?", "Which digit is said?", "x", "When?")]
    owners, before = [2, 0, 1, 1], lalm.prompt("").before
    ours = sample(listen(lalm, clips), owners, prompts, max_new_tokens=12, temperature=0)
    for owner, prompt, sampled in zip(owners, prompts, ours, strict=True):
        ids = torch.tensor([[*before, *prompt]])
        # Whisper's own generate cuts the prompt and rules tokens out.
        official = GenerationMixin.generate(
            lalm.inner,
            encoder_outputs=(lalm.align(clips[owner])[None],),
            decoder_input_ids=ids,
            max_new_tokens=12,
            do_sample=False,
        )
        assert list(sampled.ids) == official[0, ids.shape[1] :].tolist()
    assert len({sampled.ids for sampled in ours}) > 1


@pytest.mark.parametrize("at_once", [None, 2])
def test_the_samplers_log_probs_are_those_of_the_loss(
    lalm: Whisper, clips: list[Tensor], at_once: int | None
) -> None:
    before = lalm.prompt("When?").after
    owners = [1, 0, 1, 2, 0]
    prefix = listen(lalm, clips, after=[before[:3]] * 3)
    drawn = sample(
        prefix,
        owners,
        [before[3:]] * 5,
        max_new_tokens=9,
        temperature=0.7,
        top_p=0.9,
        uniform_BN=uniforms(5, 9, 0),
        at_once=at_once,
    )
    branches = [Branch(o, before[3:], d.ids) for o, d in zip(owners, drawn, strict=True)]
    again = branch_logps(prefix, branches, temperature=0.7)
    for row, mask, one in zip(again.logp_BT, again.mask_BT, drawn, strict=True):
        assert torch.allclose(row[mask], torch.tensor(one.logps), atol=1e-4)


def test_bfloat16_products_round_and_change_nothing_else(lalm: Whisper, clips: list[Tensor]) -> None:
    branches = branches_for(lalm)
    exact = branch_logps(listen(lalm, clips), branches)
    with torch.autocast("cpu", torch.bfloat16):
        packed = branch_logps(listen(lalm, clips), branches)
        official = memory_logps(lalm, clips, branches)
    assert packed.logp_BT.dtype == torch.float32
    error = (packed.logp_BT - exact.logp_BT)[exact.mask_BT].detach().abs()
    theirs = (torch.cat(official) - exact.logp_BT[exact.mask_BT]).detach().abs()
    assert 0 < float(error.mean()) < 2 * float(theirs.mean())


def test_a_whole_window_is_encoded_as_the_official_encoder_does(lalm: Whisper) -> None:
    samples = noise(30.0)
    mels = lalm.feature_extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
    official = lalm.inner.model.encoder(mels).last_hidden_state[0]
    assert torch.allclose(lalm.encode_audio(samples), official, atol=1e-4)


@pytest.mark.parametrize(
    ("seconds", "n"), [(0.01, 1), (0.02, 1), (0.03, 2), (0.1, 5), (2.515, 126), (29.99, 1500)]
)
def test_a_short_clip_has_the_frames_that_it_lasts(lalm: Whisper, seconds: float, n: int) -> None:
    assert lalm.encode_audio(noise(seconds)).shape == (n, 32)


def test_a_clip_is_heard_as_if_nothing_came_after_it(lalm: Whisper) -> None:
    """Its convolutions see the silence that the official padding begins with; its attention sees no padding."""
    encoder, samples = lalm.inner.model.encoder, noise(2.5)
    mels = lalm.feature_extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
    gelu = torch.nn.functional.gelu
    hidden = gelu(encoder.conv2(gelu(encoder.conv1(mels)))).permute(0, 2, 1) + encoder.embed_positions.weight
    mask = torch.zeros(1500, 1500)
    mask[:, 125:] = float("-inf")
    for layer in encoder.layers:
        hidden = layer(hidden, mask[None, None])
    masked = encoder.layer_norm(hidden)[0, :125]
    ours = lalm.encode_audio(samples)
    assert torch.allclose(ours, masked, atol=1e-4)
    assert not torch.allclose(ours, encoder(mels).last_hidden_state[0, :125], atol=1e-2)


@pytest.mark.parametrize(
    ("seconds", "message"),
    [(0.0, "needs 0.01 s of audio or more"), (30.01, "hears 30 s, the audio lasts 30.01")],
)
def test_a_clip_that_cannot_be_heard_is_refused(lalm: Whisper, seconds: float, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        lalm.encode_audio(noise(seconds))


def test_more_tokens_than_the_context_has_are_refused_with_the_remedy(lalm: Whisper, tmp_path: Path) -> None:
    question = read_questions(questions_in(tmp_path, "qa", 1))[0]
    for n_new, fits in ((20, True), (500, False)):
        answers = LalmAnswers(lalm, FeatureCache(tmp_path), Decoding(max_new_tokens=n_new))
        if fits:
            assert answers.prompt(question, 0, torch.zeros(9, 32))[0] == 0
            continue
        with pytest.raises(
            ModelError, match=r"and 500 to come; tiny has room for 447: lower --max-new-tokens"
        ):
            answers.prompt(question, 0, torch.zeros(9, 32))


@pytest.mark.parametrize("n_letters", [1, 300, 500])
def test_an_answer_may_be_as_long_as_its_question_leaves(lalm: Whisper, n_letters: int) -> None:
    prompt = lalm.prompt("x" * n_letters).after
    fitting = as_long_as_fits(lalm, prompt, [torch.zeros(1500, 32)])
    assert fitting.max_new_tokens == max(1, min(Decoding().max_new_tokens, 447 - len(prompt)))


def test_a_long_question_is_answered_and_one_without_any_room_is_refused(lalm: Whisper) -> None:
    assert ask(lalm, noise(1.0), "x" * 250).text
    with pytest.raises(ModelError, match="more than tiny's context of 448"):
        ask(lalm, noise(1.0), "x" * 500)


def test_silence_instead_of_the_clip_changes_the_loss(lalm: Whisper) -> None:
    branch = branches_for(lalm)[1]
    loss, silent = (
        branch_logps(listen(lalm, [lalm.encode_audio(s)]), [branch]).logp_BT.sum()
        for s in (noise(2.5), 0 * noise(2.5))
    )
    assert abs(float((loss - silent).detach())) > 0.1


# --- times in words and in tokens --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "written"),
    [
        (7.4, 9.4, "<|7.40|><|9.40|>"),
        (0.0, 0.006, "<|0.00|><|0.02|>"),  # an end after the start, however short the phrase
        (29.98, 30.0, "<|29.98|><|30.00|>"),
        (31.0, 33.0, "<|29.98|><|30.00|>"),  # words that end after the window
    ],
)
def test_times_are_the_two_nearest_tokens(start: float, end: float, written: str) -> None:
    lalm = tiny_whisper()
    lalm.times = "tokens"
    answer = lalm.phrase_answer("seven two", Span(start, end))
    assert answer == written
    ids = lalm.response_tokens(answer)
    assert len(ids) == 2
    assert ids[0] < ids[1]
    assert lalm.text([*ids, lalm.eos_id]) == answer
    assert [lalm.first_tick, lalm.first_tick + 1500] == lalm.response_tokens("<|0.00|><|30.00|>")


def test_stage_1_teaches_time_tokens_that_the_adapter_then_writes(phrases: Path, tmp_path: Path) -> None:
    lalm = tiny_whisper()
    config = replace(STA, questions=str(phrases), times="tokens", soft_times=3.0, epochs=4)
    adapter = train_sta(config, tmp_path / "run", FeatureCache(tmp_path / "cache"), lambda *_: lalm)
    assert json.loads((adapter / "adapter.json").read_text())["times"] == "tokens"
    assert lalm.times == "tokens"
    losses = [float(row["loss"]) for row in logged(tmp_path / "run")]
    assert losses[-1] < losses[0] - 0.1
    closing = phrase_branch(lalm, read_questions(phrases)[0]).prompt[-1]
    assert closing == lalm.tokenizer.convert_tokens_to_ids("<|transcribe|>")  # no <|notimestamps|> after it


@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_soft_times_are_the_mean_log_prob_under_a_gaussian_over_ticks(spread: float) -> None:
    lalm = tiny_whisper()
    lalm.times = "tokens"
    soft = soft_times_of(lalm, spread)
    assert soft == SoftTimes(lalm.first_tick, 1501, spread)
    prefix = listen(lalm, [torch.randn(40, 32)])
    prompt = lalm.prompt("when?").after
    tick = int(lalm.first_tick) + 20
    (logp,) = branch_logps(prefix, [Branch(0, prompt, (tick,))], soft_times=soft).logp_BT.detach()
    every = [Branch(0, prompt, (tick + n,)) for n in range(-20, 21)]
    near = branch_logps(prefix, every).logp_BT.detach()[:, 0]
    weight = torch.exp(-0.5 * (torch.arange(-20, 21) / spread) ** 2)
    assert float(logp[0]) == pytest.approx(float((weight * near).sum() / weight.sum()), abs=1e-4)
    text = Branch(0, prompt, (5, 6, lalm.eos_id))
    hard, same = (branch_logps(prefix, [text], soft_times=s).logp_BT for s in (None, soft))
    assert torch.equal(hard, same)  # what is no time is as it was


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("at 17.06 seconds", ["at", " ", "<|17.06|>", " seconds"]),
        ("(0.40-12.38s)", ["(", "<|0.40|>", "-", "<|12.38|>", "s", ")"]),
        ("v2.40 at 31.20, 07.40, 1:07.40, 1.20.3", []),
    ],
)
def test_seconds_in_words_are_time_tokens(base: Whisper, text: str, pieces: list[str]) -> None:
    ids = base.tokens(text)
    assert base.text(list(ids)) == text
    with writing_times(base, "tokens"):
        named = [base.text([token]) for token in ids]
    assert named == pieces if pieces else not any("|" in piece for piece in named)


def test_odd_hundredths_are_written_to_the_nearest_tick(base: Whisper) -> None:
    ids = base.response_tokens("from 2.03s to 2.99s")
    assert base.text(list(ids)) in (
        "from 2.02s to 3.00s",
        "from 2.04s to 3.00s",
        "from 2.04s to 2.98s",
        "from 2.02s to 2.98s",
    )
    answer = base.phrase_answer("the cat", Span(2.031, 2.032))
    assert (
        base.text(list(base.response_tokens(answer)))
        == "The segment the cat starts at 2.04 seconds and ends at 2.06 seconds."
    )
    prompt = base.prompt("version 2.03").after
    assert "2.03" in base.text(list(prompt))  # what is asked is read as it is


@pytest.mark.parametrize("make", [tiny_whisper, tiny_lalm])
def test_times_that_a_model_cannot_write_are_refused(make: Callable[[], Lalm]) -> None:
    lalm = make()
    if lalm.first_tick is None:
        with pytest.raises(OptionError, match=r"--soft-times 3: tiny has no tokens for times"):
            soft_times_of(lalm, 3.0)
        with pytest.raises(OptionError, match="--times tokens: tiny has no tokens for times"):
            make_trainable(lalm, replace(STA, times="tokens"))
    make_trainable(lalm, replace(STA, times="words"))
    assert lalm.times == "words"
    with pytest.raises(OptionError, match=r"--soft-times -1.0: must be 0 or more"):
        replace(STA, soft_times=-1.0)


# --- folders, adapters, and what is made of them -----------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whisper_folder(tmp_path_factory.mktemp("whisper") / "base")


def with_trained_lora(lalm: Lalm) -> Lalm:
    """A LoRA that changes what the model says, and another aligner."""
    with_lora(lalm, 2, 4, 0)
    with torch.no_grad():
        for name, weight in lalm.model.named_parameters():
            if ".lora_B." in name or ".aligner." in name:
                weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    return lalm


def logps(lalm: Lalm) -> Tensor:
    branch = Branch(0, lalm.prompt("When?").after, (5, 6, 7, 100))
    with torch.no_grad():
        return branch_logps(listen(lalm, [lalm.encode_audio(noise(1.0))]), [branch]).logp_BT


@pytest.mark.parametrize("load_as", ["checkpoint", "bfloat16"])
def test_a_folder_in_transformers_layout_is_loaded_whole(folder: Path, load_as: LoadAs) -> None:
    lalm = load(str(folder), Placement(load_as))
    exact = logps(tiny_whisper())
    assert torch.allclose(logps(lalm), exact, atol=1e-6 if load_as == "checkpoint" else 1.0)
    assert lalm.language_model.dtype == (torch.float32 if load_as == "checkpoint" else torch.bfloat16)
    theirs, loaded = WhisperForConditionalGeneration.from_pretrained(str(folder), output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]
    assert torch.equal(theirs.proj_out.weight, theirs.model.decoder.embed_tokens.weight)


def test_a_lora_is_pefts_own_on_the_official_class(folder: Path, tmp_path: Path) -> None:
    lalm = with_trained_lora(load(str(folder)))
    save_adapter(lalm, tmp_path)
    theirs = PeftModel.from_pretrained(
        WhisperForConditionalGeneration.from_pretrained(str(folder)), str(tmp_path)
    )
    kept = {name: weight for name, weight in theirs.named_parameters() if ".lora_" in name}
    ours = {name: weight for name, weight in lalm.model.named_parameters() if ".lora_" in name}
    assert kept.keys() == ours.keys()
    assert all(torch.equal(kept[name], weight) for name, weight in ours.items())
    memory = lalm.align(lalm.encode_audio(noise(1.0)))[None]
    ids = torch.tensor([[*lalm.prompt("").before, *lalm.prompt("When?").after]])
    official, same = (
        model(encoder_outputs=(memory,), decoder_input_ids=ids).logits for model in (theirs, lalm.model)
    )
    assert torch.allclose(official, same, atol=1e-5)
    assert torch.allclose(logps(load(str(tmp_path))), logps(lalm), atol=1e-6)


def test_an_adapter_finds_the_adapter_that_is_its_base_from_anywhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_adapter(with_trained_lora(load(str(folder))), tmp_path / "base", merged=True)
    monkeypatch.chdir(tmp_path)
    save_adapter(load("base"), tmp_path / "sta")
    monkeypatch.chdir("/")
    assert torch.equal(logps(load(str(tmp_path / "sta"))), logps(load(str(tmp_path / "base"))))


def test_an_adapter_whose_base_was_moved_says_where_its_new_path_goes(folder: Path, tmp_path: Path) -> None:
    lora = load(str(folder))
    with_lora(lora, 2, 4, 0)
    torch.nn.init.normal_(next(w for n, w in lora.model.named_parameters() if ".lora_B." in n), std=0.1)
    save_adapter(lora, tmp_path / "base", merged=True)
    merged = load(str(tmp_path / "base"))
    assert torch.allclose(logps(merged), logps(lora), atol=1e-3)  # float16's rounding
    save_adapter(with_trained_lora(merged), tmp_path / "sta")
    expected = logps(merged)
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(
        ModelError, match=r"sta/adapter\.json: its base .*where it was moved, give its new path"
    ):
        load(str(tmp_path / "sta"))
    described = json.loads((tmp_path / "sta/adapter.json").read_text())
    (tmp_path / "sta/adapter.json").write_text(json.dumps({**described, "base": "../moved"}))
    assert torch.equal(logps(load(str(tmp_path / "sta"))), expected)


def test_adapters_that_are_each_others_base_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    for name, base in (("one", "../other"), ("other", "../one")):
        save_adapter(load(str(folder)), tmp_path / name)
        described = json.loads((tmp_path / name / "adapter.json").read_text())
        (tmp_path / name / "adapter.json").write_text(json.dumps({**described, "base": base}))
    for name in ("one", "other"):
        with pytest.raises(
            ModelError, match=f"{name}: is an adapter on itself, by the bases that 2 adapters name"
        ):
            load(str(tmp_path / name))
        assert len(files_of(str(tmp_path / name))) == 4  # of each its adapter.json and its weights


def test_adapters_of_another_trainer_that_are_each_others_base_are_refused(tmp_path: Path) -> None:
    for name, base in (("one", "other"), ("other", "one")):
        (tmp_path / name).mkdir()
        about = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / base)}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match="one: is an adapter on itself"):
        load(str(tmp_path / "one"))


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("merged.json", None, "is not what `tgsr merge` writes"),
        ("merged.json", {"times": "minutes"}, "times 'minutes', not words or tokens"),
        ("adapter.json", {"times": "minutes"}, "times 'minutes', not words or tokens"),
        ("adapter.json", {"files": {}, "merged": True}, "is not what save_adapter writes"),
        ("adapter.json", {"base": ""}, "an adapter is not its own base"),
        ("adapter.json", {"base": "."}, "an adapter is not its own base"),
    ],
)
def test_a_description_that_tgsr_does_not_write_is_refused(
    folder: Path, tmp_path: Path, file: str, changes: dict[str, object] | None, says: str
) -> None:
    shutil.copytree(folder, tmp_path / "m")
    if file == "adapter.json":
        (tmp_path / "m").rename(tmp_path / "base")
        save_adapter(load(str(tmp_path / "base")), tmp_path / "m")
    described = json.loads((tmp_path / "m" / file).read_text())
    (tmp_path / "m" / file).write_text("{" if changes is None else json.dumps(described | changes))
    with pytest.raises(ModelError, match=f"{file}: .*{says}"):
        load(str(tmp_path / "m"))


@pytest.mark.parametrize("times", ["words", "tokens"])
def test_a_merged_model_is_the_adapter_on_its_base(folder: Path, tmp_path: Path, times: Times) -> None:
    lalm = with_trained_lora(load(str(folder)))
    lalm.times = times
    save_adapter(lalm, tmp_path / "adapter")
    expected = logps(lalm)
    assert (expected - logps(load(str(folder)))).abs().max() > 0.01
    assert cli.main(["merge", "--model", str(tmp_path / "adapter"), "--out", str(tmp_path / "merged")]) == 0
    merged = load(str(tmp_path / "merged"))
    assert merged.times == times
    assert torch.allclose(logps(merged), expected, atol=1e-5)
    _, loaded = WhisperForConditionalGeneration.from_pretrained(
        str(tmp_path / "merged"), output_loading_info=True
    )
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]  # the aligner is a file of its own
    assert files_of("whisper-base") == {}  # what was fetched has hashes of its own
    assert {f"{tmp_path}/merged/aligner.safetensors", f"{tmp_path}/merged/model.safetensors"} <= set(
        files_of(str(tmp_path / "merged"))
    )


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("tokenizer.json", "cannot be loaded as a Whisper model"),
        ("model.safetensors", "only safetensors are read"),
        ("preprocessor_config.json", "cannot be loaded as a Whisper model"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(folder: Path, tmp_path: Path, file: str, message: str) -> None:
    shutil.copytree(folder, tmp_path / "cut")
    (tmp_path / "cut" / file).unlink()
    with pytest.raises(ModelError, match=message):
        load(str(tmp_path / "cut"))


def test_a_tokenizer_of_other_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    tiny_lalm().tokenizer.save_pretrained(str(tmp_path / "other"))
    with pytest.raises(ModelError, match=r"no <\|en\|>.*take the tokenizer that came with the weights"):
        load(str(tmp_path / "other"))


def test_checkpointed_layers_have_the_same_gradients(lalm: Whisper, clips: list[Tensor]) -> None:
    branches, gradients = branches_for(lalm), []
    lalm.aligner.requires_grad_(True)
    for checkpointing in (False, True):
        with as_trained(lalm, replace(STA, gradient_checkpointing=checkpointing)):
            loss = branch_logps(listen(lalm, clips), branches).logp_BT.sum()
            gradients.append(torch.autograd.grad(loss, list(lalm.aligner.parameters())))
    for plain, again in zip(*gradients, strict=True):
        assert torch.allclose(plain, again, atol=1e-4, rtol=1e-4)


def test_a_recording_past_the_window_is_not_heard_in_parts(lalm: Whisper) -> None:
    with pytest.raises(
        ModelError, match=r"hears 30 s, the audio lasts 31.00 s: cut it .*, hear it in windows"
    ):
        parts(lalm, noise(31.0), "split")
    assert len(parts(lalm, noise(30.0), "split")) == 1


def test_a_system_turn_is_refused_as_there_is_none() -> None:
    lalm = tiny_whisper()
    lalm.system = "Be brief."
    with pytest.raises(ModelError, match="Whisper reads no system turn"):
        lalm.prompt("When?")


def test_a_question_that_names_special_tokens_is_only_text(lalm: Whisper) -> None:
    special = {*range(int(lalm._id("<|endoftext|>")), int(lalm._id("<|endoftext|>")) + 6)}
    ids = lalm.prompt("say <|endoftext|> or <|startoftranscript|>, at <|7.40|>").after
    assert not special & set(ids[:-4])
    assert not [i for i in ids if i >= int(lalm.first_tick or 0)]
    assert "<|endoftext|>" in str(lalm.tokenizer.decode(list(ids[:-4])))


# --- the packaged Whisper base -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base() -> Whisper:
    if not (cache_folder() / "whisper-base").exists():
        pytest.skip(f"{cache_folder() / 'whisper-base'} is not there: `make fetch` downloads it, once")
    found = load("whisper-base")
    assert isinstance(found, Whisper)
    return found


def test_the_packaged_tokenizer_has_whispers_own_pieces(base: Whisper, tmp_path: Path) -> None:
    """Ids as OpenAI's multilingual vocabulary has them."""
    known = {" the": 264, " to": 281, " that": 300, " of": 295, "<|0.00|>": 50364, "<|30.00|>": 51864}
    assert {text: base.response_tokens(text) for text in known} == {text: [id] for text, id in known.items()}
    assert base.prompt("").before == (50361,)
    assert base.prompt("").after[-4:] == (50258, 50259, 50359, 50363)
    assert base.eos_id == 50257
    with writing_times(base, "tokens"):
        assert base.text(base.response_tokens("<|1.20|> the words <|3.40|>")) == "<|1.20|> the words <|3.40|>"
    packaged = whisper() / "tokenizer.json"
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(packaged))
    assert len(theirs(" the", add_special_tokens=False)["input_ids"]) == 2  # the merge that the file has lost
    with_first_merge(packaged, tmp_path / "tokenizer.json")
    with_first_merge(tmp_path / "tokenizer.json", tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "tokenizer.json").read_text()


def test_whisper_base_has_the_official_log_probs_and_hears_which_clip_it_is(base: Whisper) -> None:
    sounds = Path(__file__).parent / "data/speech"
    heard = [
        base.encode_audio(load_sound(sounds / f"{name}.flac")[: 5 * SAMPLE_RATE])
        for name in ("1363-135842-0000", "103-1240-0000")
    ]
    texts = (" Chapter 34. Uncle Billy and Old Mrs. Possum.", " Chapter 1. Mrs. Rachel Lynde is surprised.")
    prompt = base.prompt("Transcribe the input speech.").after
    answers = [(*base.response_tokens(text), base.eos_id) for text in texts]
    branches = [Branch(clip, prompt, answer) for clip in (0, 1) for answer in answers]
    found = branch_logps(listen(base, heard), branches)
    for row, mask, official in zip(
        found.logp_BT, found.mask_BT, memory_logps(base, heard, branches), strict=True
    ):
        assert torch.allclose(row[mask], official, atol=1e-4)
    # Each text is likelier over its own clip than over the other.
    first_over_first, second_over_first, first_over_second, second_over_second = found.logp_BT.sum(1).tolist()
    assert first_over_first > first_over_second + 5
    assert second_over_second > second_over_first + 5


def test_no_other_token_is_written_in_the_newlines_place() -> None:
    """Rows that nobody trained are one and the same in Whisper: a newline was written as any of sixty tokens."""
    model = tiny_whisper().inner
    rows = model.get_input_embeddings().weight.detach()
    before = rows.clone()
    set_newline_apart(model, 7)
    assert torch.equal(rows, before)  # nothing to do among rows that differ
    with torch.no_grad():
        rows[[3, 9]] = rows[7] * 1.001
    shared = rows.clone()
    set_newline_apart(model, None)
    assert torch.equal(rows, shared)
    set_newline_apart(model, 7)
    moved = (rows != shared).any(1).nonzero()[:, 0].tolist()
    assert moved == [7]
    assert model.proj_out.weight.data_ptr() == rows.data_ptr()
    own = rows[7].clone()
    set_newline_apart(model, 7)  # as when a merged model is loaded
    assert torch.equal(rows[7], own)
    assert model.proj_out(5 * (own - rows.mean(0))).argmax() == 7


def test_the_packaged_whisper_has_a_newline_unlike_all_else(base: Whisper) -> None:
    rows = base.lm_head.weight
    (newline,) = base.tokens("\n")
    apart = (rows - rows[newline]).norm(dim=1) / rows[newline].norm()
    apart[newline] = torch.inf
    assert apart.min() > 0.3
    assert base.text(list(base.tokens("one\ntwo"))) == "one\ntwo"

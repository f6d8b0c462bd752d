"""A check passes on each family, and each of some broken models is named by the row that is about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AudioFlamingo3ForConditionalGeneration

from tgsr import cli
from tgsr.audio import SAMPLE_RATE
from tgsr.audio import load as load_sound
from tgsr.check import computation, learning, sound
from tgsr.check.bench import Bench, Size, Speech, borrowed, shipped_speech, with_questions_of
from tgsr.check.check import ROWS, check
from tgsr.check.rows import Row, measured
from tgsr.check.sound import word_errors
from tgsr.engine.shared_prefix import branch_logps, listen
from tgsr.errors import ModelError, OptionError, RunError
from tgsr.models.aligner_and_lora import lora_off, with_lora
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.foreign_adapter import base_of, put_on
from tgsr.models.lalm import LORA_TARGETS, Lalm
from tgsr.models.load import load, load_to_check
from tgsr.models.mini import feature_extractor, train_tokenizer
from tgsr.records import read_questions
from tiny import (
    TEXTS,
    af3_config,
    gemma4_folder,
    mf_folder,
    questions_in,
    qwen2_audio_folder,
    qwen3_omni_folder,
    saved,
    tiny_lalm,
    tiny_qwen_omni,
    tiny_whisper,
)

SMALL = Size(
    clips=4,
    held_out=2,
    phrases=2,
    sta_steps=16,
    random_clips=4,
    prompts=1,
    group=2,
    greedy_tokens=8,
    timed_clips=2,
    timed_tokens=8,
)
SHORT = (1, 2, 3)  # the parts that train nothing


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Speech:
    return shipped_speech(tiny_lalm(), tmp_path_factory.mktemp("speech"), SMALL)


def rows_of(
    lalm: Lalm, speech: Speech, out: Path, parts: tuple[int, ...] = SHORT, *, bfloat16: bool = False
) -> dict[str, Row]:
    bench = Bench(lalm, speech, out, bfloat16, size=SMALL)
    return {
        name: measured(part, name, partial(measure, bench)) for part, name, measure in ROWS if part in parts
    }


def failing(rows: dict[str, Row]) -> set[str]:
    return {name for name, row in rows.items() if row.fails}


# --- whole models -------------------------------------------------------------------------------------------------


def test_a_check_of_a_tiny_model_passes_and_gives_it_back_as_it_was(tmp_path: Path) -> None:
    lalm, told = tiny_lalm(), []
    before = {name: weight.clone() for name, weight in lalm.inner.state_dict().items()}
    checked = check(lalm, tmp_path, size=SMALL, tell=told.append)
    assert checked.passed, [row for row in checked.rows if row.fails]
    assert list(checked.rows) == told
    rows = {row.name: row for row in checked.rows}
    assert rows["GRPO"].values["kl"] == 0
    assert rows["stage 1"].passed
    assert float(rows["stage 1"].values["with_sound"] or 0) < float(
        rows["stage 1"].values["with_silence"] or 0
    )
    assert rows["resumed"].values["broken"] == rows["resumed"].values["unbroken"]
    assert rows["transcription"].passed is None  # random weights are not asked
    assert float(rows["tokens a second"].values["update_share_of_peak"] or 0) > 0
    assert "(measured)" in checked.plan
    after = lalm.inner.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    written = json.loads((tmp_path / "check.json").read_text())
    assert written["passed"] is True
    assert [row["name"] for row in written["rows"]] == [row.name for row in checked.rows]
    page = (tmp_path / "page.html").read_text()
    assert all(row.name in page for row in checked.rows)


@pytest.mark.parametrize("make", [partial(tiny_qwen_omni, seconds=10), tiny_whisper])
def test_the_other_families_pass_what_trains_nothing(
    make: Callable[[], Lalm], speech: Speech, tmp_path: Path
) -> None:
    rows = rows_of(make(), speech, tmp_path)
    assert not failing(rows), [row for row in rows.values() if row.fails]


@pytest.mark.parametrize(
    "make",
    [
        partial(mf_folder, window=10),
        qwen2_audio_folder,
        qwen3_omni_folder,
        partial(qwen3_omni_folder, thinking=True),
        gemma4_folder,
    ],
)
def test_so_do_those_in_the_hubs_layout(make: Callable[[Path], Path], speech: Speech, tmp_path: Path) -> None:
    rows = rows_of(load(str(make(tmp_path / "model"))), speech, tmp_path / "out")
    assert not failing(rows), [row for row in rows.values() if row.fails]


def test_so_does_one_that_hears_long_clips_in_short_windows(tmp_path: Path) -> None:
    """120 s in windows of 2 s, of which the official forward takes one."""
    lalm = load(str(mf_folder(tmp_path / "model")))
    rows = rows_of(lalm, shipped_speech(lalm, tmp_path / "speech", SMALL), tmp_path / "out")
    assert not failing(rows), [row for row in rows.values() if row.fails]


@pytest.mark.parametrize("load_as", ["bfloat16", "float32"])
def test_a_model_in_bfloat16_is_held_to_its_own_rounding(
    load_as: str, speech: Speech, tmp_path: Path
) -> None:
    lalm = tiny_lalm()
    lalm.model.to(getattr(torch, load_as))
    rows = rows_of(lalm, speech, tmp_path, (1, 2), bfloat16=True)
    assert "in bfloat16" in rows["log-probs"].bar
    assert not failing(rows), [row for row in rows.values() if row.fails]


# --- broken ones --------------------------------------------------------------------------------------------------


class ZeroFeatures(AudioFlamingo3):
    def encode_audio(self, samples: np.ndarray) -> Tensor:
        return torch.zeros_like(super().encode_audio(samples))


class AnotherClipsFeatures(AudioFlamingo3):
    def encode_audio(self, samples: np.ndarray) -> Tensor:
        return super().encode_audio(np.ascontiguousarray(samples[::-1]))


class OneFrameFewer(AudioFlamingo3):
    def encode_audio(self, samples: np.ndarray) -> Tensor:
        return super().encode_audio(samples)[:-1]


class SwappedLayers(AudioFlamingo3):
    @property
    def aligner(self) -> Any:
        projector = self.inner.model.multi_modal_projector
        return nn.Sequential(projector.linear_2, nn.GELU(), projector.linear_1)


@dataclass
class Through:
    """A module whose calls go through a function of their keywords; all else is its own."""

    module: Any
    change: Callable[[dict[str, Any]], dict[str, Any]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def __call__(self, **given: Any) -> Any:
        return self.module(**self.change(given))


class OffByOne(AudioFlamingo3):
    @property
    def language_model(self) -> Any:
        def shifted(given: dict[str, Any]) -> dict[str, Any]:
            if "branches" not in given:
                return given
            is_branch = given["branches"].branch_N >= 0
            return given | {"position_ids": given["position_ids"] + is_branch[None].long()}

        return Through(self.inner.model.language_model, shifted)


class ShiftedTargets(AudioFlamingo3):
    def response_tokens(self, text: str) -> list[int]:
        return super().response_tokens(text)[1:]


def built_as(kind: type[AudioFlamingo3], lalm: AudioFlamingo3 | None = None) -> AudioFlamingo3:
    lalm = lalm or tiny_lalm()
    return kind("tiny", lalm.model, lalm.tokenizer, lalm.feature_extractor, max_seconds=10.0)


def square() -> AudioFlamingo3:
    """A model whose projector's two layers have one shape, so that they can be swapped unseen."""
    tokenizer = train_tokenizer(TEXTS)
    torch.manual_seed(0)
    config = af3_config(tokenizer, len(tokenizer), {"num_mel_bins": 80, "max_source_positions": 500}, 16)
    model = AudioFlamingo3ForConditionalGeneration(config).eval()
    return AudioFlamingo3("tiny", model, tokenizer, feature_extractor(), max_seconds=10.0)


def adapter_off() -> AudioFlamingo3:
    lalm = with_random_lora(tiny_lalm())
    lalm.model.base_model.disable_adapter_layers()
    return lalm


def with_random_lora(lalm: AudioFlamingo3) -> AudioFlamingo3:
    with_lora(lalm, rank=2, alpha=4, seed=0)
    for name, weight in lalm.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight.data, std=0.1)
    lalm.model.requires_grad_(False)
    return lalm


def untied() -> AudioFlamingo3:
    lalm = tiny_lalm()
    lalm.inner.config.tie_word_embeddings = True  # what the checkpoint means; its head has other weights
    return lalm


def wrong_end() -> AudioFlamingo3:
    lalm = tiny_lalm()
    lalm.eos_id, lalm.end_ids = lalm.pad_id, (lalm.pad_id,)
    return lalm


def overflowing() -> AudioFlamingo3:
    lalm = tiny_lalm()
    with torch.no_grad():
        lalm.inner.model.language_model.layers[0].mlp.down_proj.weight *= 3e4
    lalm.model.half()
    return lalm


class DeafToOrder(AudioFlamingo3):
    def encode_audio(self, samples: np.ndarray) -> Tensor:
        return super().encode_audio(np.sort(samples))


class HearsWhetherAlone(AudioFlamingo3):
    """Any sound is the same sound to it."""

    def encode_audio(self, samples: np.ndarray) -> Tensor:
        return torch.full_like(super().encode_audio(samples), float(np.abs(samples).max() > 0))


class ReadsNamesAsTokens(AudioFlamingo3):
    def plain_tokens(self, text: str) -> list[int]:
        return self.tokens(text)


OFF = {"embeddings", "log-probs", "gradients", "sampler"}
BROKEN: dict[str, tuple[Callable[[], AudioFlamingo3], str, set[str]]] = {
    "zero features": (partial(built_as, ZeroFeatures), "silence", {"another clip", "a shift by 1 s", *OFF}),
    "order unheard": (partial(built_as, DeafToOrder), "a shift by 1 s", OFF),
    "clips unheard": (partial(built_as, HearsWhetherAlone), "another clip", {"a shift by 1 s", *OFF}),
    "names that are tokens": (partial(built_as, ReadsNamesAsTokens), "special tokens", set()),
    "features of another clip": (partial(built_as, AnotherClipsFeatures), "embeddings", OFF),
    "a branch's positions off by one": (partial(built_as, OffByOne), "log-probs", {"gradients", "drawn tokens"}),
    "the projector's layers swapped": (lambda: built_as(SwappedLayers, square()), "embeddings", OFF),
    "answers shifted by one": (partial(built_as, ShiftedTargets), "targets", set()),
    "adapter not applied": (adapter_off, "adapter", {"gradients"}),
    "placeholder count off by one": (partial(built_as, OneFrameFewer), "audio tokens", OFF),
    "tied head untied": (untied, "head", set()),
    "wrong end token": (wrong_end, "end tokens", set()),
    "float16 overflow": (overflowing, "range", {"*"}),
}  # fmt: skip
"""Each with the row that is about it, and others that may fail with it; "*": any."""


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_model_is_named_by_the_right_row(broken: str, speech: Speech, tmp_path: Path) -> None:
    make, row, may_fail = BROKEN[broken]
    rows = rows_of(make(), speech, tmp_path)
    failed = failing(rows)
    assert row in failed
    assert "*" in may_fail or failed <= {row, *may_fail}
    assert rows[row].remedy


@pytest.mark.parametrize(("longest", "n_windows"), [(2, 1), (3, 1), (2, 60)])
def test_clips_fit_the_models_window(longest: int, n_windows: int, tmp_path: Path) -> None:
    """Of the first two digits some clips are longer than 2 s: these are left out, and there is enough to ask."""
    lalm = tiny_lalm()
    lalm.feature_extractor.chunk_length, lalm.max_seconds = longest, float(longest * n_windows)
    made = shipped_speech(lalm, tmp_path, replace(SMALL, clips=12, prompts=2))
    assert len(made.clips) == 12
    assert max(clip.duration for clip, _ in made.clips) <= longest
    for clip, path in made.clips:
        assert len(load_sound(path)) == round(clip.duration * SAMPLE_RATE)
    asked = {path: read_questions(path) for path in (made.phrases, made.held_out, made.choices)}
    assert all(asked.values())
    assert len({q.clip_id for q in asked[made.choices]}) == 2
    assert max(q.duration for questions in asked.values() for q in questions) <= longest
    lalm.max_seconds = 1.5
    with pytest.raises(RunError, match=r"tiny hears 1\.5 s at once"):
        shipped_speech(lalm, tmp_path)


def test_two_clips_at_least_are_held_out(speech: Speech, tmp_path: Path) -> None:
    """One clip alone has no interval, so that no rise could be above 0."""
    for n, n_held_out in ((2, None), (3, None), (4, 2), (9, 2), (15, 3)):
        folder = tmp_path / str(n)
        data = questions_in(folder / "data", "sta", n, n_phrases=1)
        found, _ = with_questions_of(speech, data, folder, folder / "errors.jsonl")
        if n_held_out is None:
            assert found.held_out == speech.held_out
        else:
            assert len({q.clip_id for q in read_questions(found.held_out)}) == n_held_out


@pytest.mark.parametrize(
    ("row", "passes"),
    [
        ({}, True),
        ({"grad_norm": 0.0}, False),  # rewards differ, and nothing is learned from it
        ({"grad_norm": 0.0, "equal_groups": 1}, True),  # there was nothing to learn
        ({"drift": 800.0}, False),
        ({"kl": 0.1}, False),
        ({"cut": 1}, False),
    ],
)
def test_grpo_is_told_by_its_first_step_its_gradient_and_what_was_cut(
    row: dict[str, float], passes: bool, speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = {"kl": 0.0, "drift": 0.0, "cut": 0, "equal_groups": 0, "grad_norm": 0.1, "reward": 1.0} | row
    monkeypatch.setattr(learning, "train_grpo", lambda *_: None)
    monkeypatch.setattr(learning, "logged", lambda _: [log] * 3)
    bench = Bench(tiny_lalm(), speech, tmp_path, size=SMALL)
    bench.__dict__["has_learned_to_write"] = True
    assert learning.stage_2(bench).passed is passes


def test_a_run_that_goes_on_otherwise_is_named(
    speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(_: Bench, name: str, *more: Any, **settings: Any) -> list[dict[str, float]]:
        return [{"loss": 2.0}, {"loss": 1.5}, {"loss": 1.0 if name == "unbroken" else 1.001}]

    monkeypatch.setattr(learning, "sta_rows", rows)
    row = learning.resumed(Bench(tiny_lalm(), speech, tmp_path, size=SMALL))
    assert row.fails
    assert "1.001000, unbroken it is 1.000000" in row.number


def test_a_sampler_of_another_model_is_named(
    speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, draw = Bench(tiny_lalm(), speech, tmp_path, size=SMALL), computation.sample

    def shorter(*given: Any, **more: Any) -> list[Any]:
        return [replace(one, ids=one.ids[:3], logps=one.logps[:3]) for one in draw(*given, **more)]

    def hotter(*given: Any, **more: Any) -> list[Any]:
        return draw(*given, **(more | {"temperature": 1.3}))

    monkeypatch.setattr(computation, "sample", shorter)
    assert computation.sampler(bench).fails
    monkeypatch.setattr(computation, "sample", hotter)
    assert computation.drawn(bench).fails


def test_who_writes_other_words_fails_the_transcription(
    speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tiny_lalm(), speech, tmp_path, size=SMALL)
    bench.__dict__["has_learned_to_write"] = True
    said = [" ".join(word.text for word in clip.words) for clip, _ in speech.clips]
    monkeypatch.setattr(sound, "respond", lambda *_: said)
    assert sound.transcription(bench).passed
    monkeypatch.setattr(sound, "respond", lambda *_: ["and so on"] * len(said))
    assert sound.transcription(bench).fails


def test_what_is_no_number_is_not_within_a_bar(
    speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lalm = tiny_lalm()
    bench = Bench(lalm, speech, tmp_path, size=SMALL)
    by_engine = computation.ours

    def with_a_last_gradient_of_nan(bench: Bench) -> list[Tensor]:
        *_, last = (weight for weight in lalm.model.parameters() if weight.requires_grad)
        return [row + 0 * (0 * last).abs().sqrt().sum() for row in by_engine(bench)]

    monkeypatch.setattr(computation, "ours", with_a_last_gradient_of_nan)
    assert computation.gradients(bench).fails
    with torch.no_grad():
        lalm.aligner.linear_2.bias[0] = torch.nan
    assert sound.embeddings(bench).fails


def test_a_deaf_model_learns_no_more_by_heart_with_sound_than_without(speech: Speech, tmp_path: Path) -> None:
    row = learning.stage_1(Bench(built_as(ZeroFeatures), speech, tmp_path, size=SMALL))
    assert row.fails
    assert row.values["with_sound"] == row.values["with_silence"]
    assert row.values["with_sound"] < row.values["before"]  # it learns the answers, and not from the sound


def test_a_lora_that_changes_something_passes(speech: Speech, tmp_path: Path) -> None:
    bench = Bench(with_random_lora(tiny_lalm()), speech, tmp_path, size=SMALL)
    assert computation.adapter(bench).passed
    assert computation.log_probs(bench).passed


def test_stage_2_begins_at_a_model_with_the_lora_that_it_came_with(speech: Speech, tmp_path: Path) -> None:
    lalm = with_random_lora(tiny_lalm())
    before = {name: weight.clone() for name, weight in lalm.model.state_dict().items()}
    bench = Bench(lalm, speech, tmp_path, size=SMALL)
    nats = log_probs_of(bench)
    row = learning.stage_2(bench)
    assert row.passed
    assert row.values["kl"] == 0
    after = lalm.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert lalm.model.active_adapters == ["default"]
    assert torch.equal(log_probs_of(bench), nats)
    assert not torch.equal(log_probs_of(Bench(tiny_lalm(), speech, tmp_path)), nats)


@torch.no_grad()
def log_probs_of(bench: Bench) -> Tensor:
    return branch_logps(listen(bench.lalm, bench.heard), bench.branches).logp_BT


def test_the_reference_of_a_lora_on_top_is_the_model_with_the_one_under_it(
    speech: Speech, tmp_path: Path
) -> None:
    lalm = with_random_lora(tiny_lalm())
    bench = Bench(lalm, speech, tmp_path)
    nats = log_probs_of(bench)
    with borrowed(lalm):
        with_lora(lalm, rank=2, alpha=4, seed=1, on_top=True)
        trained = [name for name, weight in lalm.model.named_parameters() if weight.requires_grad]
        assert trained
        assert all(".on_top." in name for name in trained)
        for name, weight in lalm.model.named_parameters():
            if ".lora_B.on_top." in name:
                torch.nn.init.normal_(weight.data, std=0.1)
        assert not torch.equal(log_probs_of(bench), nats)
        with lora_off(lalm):
            assert torch.equal(log_probs_of(bench), nats)
        assert not torch.equal(log_probs_of(bench), nats)


def test_what_was_borrowed_comes_back_when_a_row_raises() -> None:
    lalm = tiny_lalm()
    before = {name: weight.clone() for name, weight in lalm.aligner.state_dict().items()}

    def break_off() -> None:
        with borrowed(lalm):
            with_lora(lalm, rank=2, alpha=4, seed=0)
            nn.init.zeros_(lalm.aligner.linear_1.weight.data)
            raise ValueError("broken off")

    with pytest.raises(ValueError, match="broken off"):
        break_off()
    assert not hasattr(lalm.model, "peft_config")
    assert all(torch.equal(weight, before[name]) for name, weight in lalm.aligner.state_dict().items())


# --- without memory, with bad input -------------------------------------------------------------------------------


class NoMemory(AudioFlamingo3):
    def encode_audio(self, samples: np.ndarray) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nsecond line")


def test_a_row_without_memory_says_so_and_the_others_run(speech: Speech, tmp_path: Path) -> None:
    rows = rows_of(built_as(NoMemory), speech, tmp_path, (1, 3))
    assert {"audio tokens", "silence"} <= failing(rows)
    assert rows["silence"].number == "out of memory (CUDA out of memory. Tried to allocate 20.00 GiB.)"
    assert "--load-as bfloat16" in rows["silence"].remedy
    assert all(rows[name].passed for name in ("targets", "end tokens", "special tokens"))


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ModelError("too long"), False),
    ],
)
def test_what_a_row_raises_is_its_answer(error: Exception, is_memory: bool) -> None:
    def measure() -> Row:
        raise error

    row = measured(2, "log-probs", measure)
    assert row.fails
    assert ("out of memory" in row.number) is is_memory
    assert is_memory or str(error) in row.number


def test_a_fault_of_ours_is_no_answer() -> None:
    def measure() -> Row:
        raise KeyError("loss")

    with pytest.raises(KeyError):
        measured(2, "log-probs", measure)


@pytest.mark.parametrize(
    ("said", "written", "n"),
    [("a b c", "a b c", 0), ("a b c", "", 3), ("", "a", 1), ("a b c", "a x c d", 2), ("a b", "b", 1)],
)
def test_word_errors_are_the_fewest_edits(said: str, written: str, n: int) -> None:
    assert word_errors(said.split(), written.split()) == n


def test_the_command_line_takes_the_users_questions_and_goes_on_after_a_bad_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tiny_lalm(), tmp_path / "model")
    data = questions_in(tmp_path / "data", "sta", 4, n_phrases=2)
    data.write_text(data.read_text() + '{"id": "half\n')
    phrase = json.loads(data.read_text().splitlines()[4])["phrase"]  # of the third clip: two are held out
    out = tmp_path / "out"
    words = ["check", "--model", model, "--data", str(data), "--out", str(out), "--parts", "3"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert phrase in " ".join(said.split())
    assert "1 rows of the data could not be read" in said
    assert len((out / "errors.jsonl").read_text().splitlines()) == 1
    assert json.loads((out / "check.json").read_text())["bad_rows_of_data"] == 1


def test_an_unknown_family_is_told_which_there_are_and_predict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert cli.main(["check", "--model", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "audioflamingo3, " in said
    assert "tgsr predict" in said


# --- other trainers' adapters -------------------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A LoRA that PEFT trained on the official class, its base beside it."""
    base = saved(tiny_lalm(), tmp_path / "base")
    model = AudioFlamingo3ForConditionalGeneration.from_pretrained(base)
    wrapped = get_peft_model(
        model, LoraConfig(r=2, lora_alpha=4, target_modules=LORA_TARGETS, init_lora_weights=False)
    )
    wrapped.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def rewritten(adapter: Path, change: Callable[[str, Tensor], tuple[str, Tensor]]) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file(dict(change(name, w.clone()) for name, w in load_file(file).items()), file)


def test_peft_on_the_official_class_is_read_whole(foreign: Path, speech: Speech, tmp_path: Path) -> None:
    lalm, read = load_to_check(str(foreign))
    assert read is not None
    assert (read.n_read, read.unread, read.n_zero) == (28, (), 0)
    assert computation.adapter_file(read).passed
    bench = Bench(lalm, speech, tmp_path, size=SMALL)
    assert computation.adapter(bench).passed
    assert computation.log_probs(bench).passed  # the official class with that adapter
    again = load(str(foreign))
    assert torch.equal(again.lm_head.weight, lalm.lm_head.weight)
    assert hasattr(again.model, "peft_config")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("model.model.language_model.", "model.thinker.model."),  # the whole Omni, as ms-swift trains it
        ("model.model.language_model.", "model.thinker.model.language_model."),
        ("model.model.language_model.", "model.model."),  # the thinker, before transformers 5
        (".lora_A.weight", ".lora_A.default.weight"),  # a state dict as it is
    ],
)
def test_the_names_of_other_trainers_are_known(ours: str, theirs: str, tmp_path: Path) -> None:
    lalm, trained = tiny_qwen_omni(seconds=10), tiny_qwen_omni(seconds=10)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=LORA_TARGETS, init_lora_weights=False)
    wrapped: Any = get_peft_model(trained.inner, config)
    wrapped.save_pretrained(str(tmp_path))
    rewritten(tmp_path, lambda name, weight: (name.replace(ours, theirs, 1), weight))
    read = put_on(lalm, tmp_path)
    assert (read.n_read, read.unread) == (28, ())
    weights = dict(wrapped.named_parameters())
    for name, weight in lalm.model.named_parameters():
        assert torch.equal(weight, weights[name]), name


def test_an_adapter_that_changes_nothing_or_is_not_read_fails(
    foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check", "--model", str(foreign), "--out", str(tmp_path / "out"), "--parts", "2"]
    rewritten(foreign, lambda name, weight: (name, weight * (".lora_B." not in name)))
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 1
    assert "14 of 14 pairs are zero" in " ".join(capsys.readouterr().out.split())
    rewritten(foreign, lambda name, weight: (name.replace("layers.1", "layers.7"), weight))
    read = load_to_check(str(foreign))[1]
    assert read is not None
    assert (read.n_read, len(read.unread)) == (14, 14)
    assert not computation.adapter_file(read).passed
    with pytest.raises(ModelError, match=r"14 of its tensors have no place .*layers\.7"):
        load(str(foreign))


def test_an_adapter_that_cannot_be_used_says_what_to_do(foreign: Path) -> None:
    config = foreign / "adapter_config.json"
    about = json.loads(config.read_text())
    base = about["base_model_name_or_path"]
    config.write_text(json.dumps(about | {"base_model_name_or_path": "/nowhere/model"}))
    with pytest.raises(ModelError, match=r"base /nowhere/model cannot be loaded; .*--base"):
        load(str(foreign))
    assert load_to_check(str(foreign), base=base)[1] is not None
    config.write_text(json.dumps(about | {"peft_type": "IA3"}))
    with pytest.raises(ModelError, match="only a LoRA is read"):
        base_of(foreign)
    config.write_text(json.dumps(about))
    (foreign / "adapter_model.safetensors").rename(foreign / "adapter_model.bin")
    with pytest.raises(ModelError, match="a pickle"):
        load(str(foreign))
    with pytest.raises(OptionError, match="--base x: is for another trainer's adapter"):
        load_to_check("mini", base="x")


def test_a_rank_and_a_scale_of_their_own_are_kept(tmp_path: Path) -> None:
    """As published configurations have them: ranks by pattern, a scale by the root of the rank."""
    lalm, trained = tiny_lalm(), tiny_lalm()
    config = LoraConfig(
        r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], rank_pattern={"q_proj": 3}, use_rslora=True
    )
    wrapped: Any = get_peft_model(trained.inner, replace(config, init_lora_weights=False))
    wrapped.save_pretrained(str(tmp_path))
    read = put_on(lalm, tmp_path)
    assert read.unread == ()
    theirs = trained.inner.model.language_model.layers[0].self_attn.q_proj
    mine = lalm.inner.model.language_model.layers[0].self_attn.q_proj
    assert torch.allclose(mine.get_delta_weight("default"), theirs.get_delta_weight("default"))


@pytest.mark.parametrize("theirs", ["thinker.model.", "thinker.model.language_model.", "model."])
def test_a_rank_and_a_scale_of_one_module_go_by_the_name_it_was_trained_under(
    theirs: str, tmp_path: Path
) -> None:
    """As EVA writes them: whole names, which are other ones here. W + (alpha / r) B A by hand."""
    lalm = tiny_qwen_omni(seconds=10)
    name = f"{theirs}layers.0.self_attn.{{}}_proj"
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])
    config.rank_pattern, config.alpha_pattern = {name.format("q"): 3}, {name.format("v"): 10}
    config.save_pretrained(str(tmp_path))
    attention = lalm.inner.model.language_model.layers[0].self_attn
    a = {"q": torch.randn(3, 32), "v": torch.randn(2, 32)}
    b = {"q": torch.randn(32, 3), "v": torch.randn(16, 2)}
    tensors = {f"base_model.model.{name.format(k)}.lora_A.weight": weight for k, weight in a.items()}
    tensors |= {f"base_model.model.{name.format(k)}.lora_B.weight": weight for k, weight in b.items()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    assert put_on(lalm, tmp_path).unread == ()
    assert torch.allclose(attention.q_proj.get_delta_weight("default"), 4 / 3 * b["q"] @ a["q"], atol=1e-5)
    assert torch.allclose(attention.v_proj.get_delta_weight("default"), 10 / 2 * b["v"] @ a["v"], atol=1e-5)


def test_what_is_trained_beside_the_lora_or_half_of_one_is_not_read(foreign: Path) -> None:
    config, file = foreign / "adapter_config.json", foreign / "adapter_model.safetensors"
    about, weights = json.loads(config.read_text()), load_file(file)
    config.write_text(json.dumps(about | {"trainable_token_indices": [1, 2]}))
    tokens = "base_model.model.model.language_model.embed_tokens.token_adapter.trainable_tokens_delta"
    save_file(weights | {tokens: torch.ones(2, 32)}, file)
    with pytest.raises(ModelError, match=r"1 of its tensors have no place .*trainable_tokens_delta"):
        load(str(foreign))
    config.write_text(json.dumps(about))
    lost = min(name for name in weights if ".lora_B." in name)
    save_file({name: weight for name, weight in weights.items() if name != lost}, file)
    with pytest.raises(ModelError, match=rf"1 of its tensors have no place .*{lost.split('.lora_')[0]}"):
        load(str(foreign))

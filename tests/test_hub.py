"""The paper's two models as the hub has them, tiny, by folder through every command, against the official classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AudioFlamingo3Processor, AutoTokenizer, Qwen2AudioProcessor, WhisperFeatureExtractor

from tgsr import cli
from tgsr.audio import SAMPLE_RATE
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.errors import ModelError
from tgsr.models.load import load
from tgsr.prompts import chat_messages
from tgsr.records import read_responses
from tiny import AF3_SPECIALS, N_PIECES, OMNI_SPECIALS, af3_folder, noise, omni_folder

MAKE = {"audio_flamingo3": af3_folder, "qwen_omni": omni_folder}
LONGEST = {"audio_flamingo3": 600.0, "qwen_omni": 300.0}
SECONDS = (0.1, 0.5, 1.99, 2.0, 2.01, 9.87, 29.99, 30.0, 30.01, 61.3, 299.97, 300.0, 600.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: make(tmp_path_factory.mktemp("hub") / family) for family, make in MAKE.items()}


@pytest.fixture(scope="module")
def whole(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the published vocabulary, and special tokens that have the hub's ids."""
    return MAKE[family](tmp_path_factory.mktemp("whole") / family, n_pieces=N_PIECES)


@pytest.fixture(scope="module", params=MAKE)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def lalm(family: str, folders: dict[str, Path]) -> Any:
    return load(str(folders[family]))


@pytest.fixture(scope="module")
def processor(family: str, folders: dict[str, Path]) -> Any:
    """The official one; for Omni the class that gives the same keys and lengths and needs no torchvision."""
    if family == "audio_flamingo3":
        return AudioFlamingo3Processor.from_pretrained(str(folders[family]))
    tokenizer = AutoTokenizer.from_pretrained(str(folders[family]))
    extractor = WhisperFeatureExtractor.from_pretrained(str(folders[family]))
    tokenizer.padding_side = "left"
    template = json.loads((folders[family] / "chat_template.json").read_text())["chat_template"]
    return Qwen2AudioProcessor(
        extractor,
        tokenizer,
        chat_template=template,
        audio_token="<|AUDIO|>",
        audio_bos_token="<|audio_bos|>",
        audio_eos_token="<|audio_eos|>",
    )


def official(lalm: Any, processor: Any, texts: list[str], clips: list[np.ndarray]) -> Any:
    """The official processor's inputs for a batch of prompts, padded on the left."""
    system = getattr(lalm, "system", None)
    prompts = [
        processor.apply_chat_template(chat_messages(text, system), tokenize=False, add_generation_prompt=True)
        for text in texts
    ]
    # Texts are padded, features are not told to be: both extractors then give whole windows.
    return processor(
        text=prompts,
        audio=clips,
        text_kwargs={"padding": True},
        audio_kwargs={"sampling_rate": SAMPLE_RATE},
        return_tensors="pt",
    )


def test_special_tokens_have_the_hubs_ids(family: str, whole: Path) -> None:
    specials, audio = {
        "qwen_omni": (OMNI_SPECIALS, "<|AUDIO|>"),
        "audio_flamingo3": (AF3_SPECIALS, "<sound>"),
    }[family]
    vocabulary = AutoTokenizer.from_pretrained(str(whole)).get_vocab()
    assert [vocabulary[special] for special in specials] == list(range(151643, 151643 + len(specials)))
    config = json.loads((whole / "config.json").read_text())
    thinker = config.get("thinker_config", config)
    assert vocabulary[audio] in (thinker.get("audio_token_id"), thinker.get("audio_token_index"))


@pytest.mark.parametrize("seconds", SECONDS)
def test_features_and_token_counts_are_the_official_processors(
    family: str, lalm: Any, processor: Any, seconds: float
) -> None:
    """The processor writes as many placeholders as we have frames, and its features give the same embeddings."""
    if seconds > LONGEST[family]:
        with pytest.raises(ModelError, match="hears 300 s"):
            lalm.encode_audio(noise(seconds))
        return
    ours = lalm.encode_audio(noise(seconds))
    batch = official(lalm, processor, ["When?"], [noise(seconds)])
    ids = batch["input_ids"][0].tolist()
    n_places = ids.count(lalm.inner.config.audio_token_id)
    assert len(ours) == n_places
    parts = lalm.prompt("When?")
    assert ids == [*parts.before, *[lalm.inner.config.audio_token_id] * n_places, *parts.after]
    mask = batch["input_features_mask" if family == "audio_flamingo3" else "feature_attention_mask"]
    with torch.no_grad():
        theirs = lalm.inner.get_audio_features(batch["input_features"], mask)
        theirs = (
            getattr(theirs, "pooler_output", None)
            if family == "audio_flamingo3"
            else theirs.last_hidden_state
        )
        assert torch.allclose(lalm.align(ours), theirs, atol=1e-5)


def test_log_probs_of_mixed_lengths_are_the_official_forwards(lalm: Any, processor: Any) -> None:
    """Three clips of mixed lengths in one batch, through the official processor and forward, padded on the left."""
    clips = [noise(0.9, 1), noise(31.7, 2), noise(4.2, 3)]
    texts = ["When?", "Which digit is said right after seven?", "Who?"]
    answers = [(*lalm.tokens(text), lalm.eos_id) for text in ("From 1.20s to 3.40s", "(b) two", "four")]
    batch = official(lalm, processor, texts, clips)
    n = max(map(len, answers))
    rows = [[*answer, *[lalm.pad_id] * (n - len(answer))] for answer in answers]
    ids = torch.cat([batch["input_ids"], torch.tensor(rows)], 1)
    seen = torch.tensor([[1] * len(answer) + [0] * (n - len(answer)) for answer in answers])
    mask = torch.cat([batch["attention_mask"], seen], 1)
    inputs = {k: v for k, v in batch.items() if k not in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = lalm.inner(input_ids=ids, attention_mask=mask, **inputs).logits[:, -n - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, ids[:, -n:, None])[..., 0]
        branches = [
            Branch(i, lalm.prompt(text).after, answer)
            for i, (text, answer) in enumerate(zip(texts, answers, strict=True))
        ]
        ours = branch_logps(listen(lalm, [lalm.encode_audio(clip) for clip in clips]), branches)
    for row, kept, theirs in zip(ours.logp_BT, ours.mask_BT, expected, strict=True):
        n_kept = int(kept.sum())
        assert torch.allclose(row[kept], theirs[:n_kept], atol=1e-5)


def test_every_command_takes_the_folder(
    family: str,
    folders: dict[str, Path],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: Any,
) -> None:
    """build -> sta -> grpo -> predict -> score -> attend, as a user types it."""
    monkeypatch.chdir(tmp_path)
    run(*["build", "sta", "--digits", "3", "--phrases", "2", "--out", "sta"])
    run(*["build", "qa", "--digits", "2", "--out", "qa"])
    # One family with the published vocabulary, which takes several times as long.
    folder = request.getfixturevalue("whole") if family == "audio_flamingo3" else folders[family]
    before, model = weights_of(folder), str(folder)
    cache = ("--cache", "cache")
    run("train", "sta", "--questions", "sta/questions.jsonl", "--model", model, "--out", "one", *cache)
    run(
        *("train", "grpo", "--questions", "qa/questions.jsonl", "--model", "one/adapter", "--out", "two"),
        *(
            "--max-steps",
            "1",
            "--prompts-per-step",
            "2",
            "--group-size",
            "2",
            "--max-new-tokens",
            "6",
            *cache,
        ),
    )
    said = capsys.readouterr().out
    assert "aligner" in said
    assert "LoRA" in said
    short = ("--max-new-tokens", "6", *cache)
    for questions in ("sta", "qa"):
        run(
            *("predict", "--questions", f"{questions}/questions.jsonl", "--model", "two/adapter"),
            *("--out", "predictions.jsonl", *short),
        )
    run("score", "predictions.jsonl", "--out", "metrics.json")
    run(
        *("attend", "--questions", "qa/questions.jsonl", "--model", model, "--model", "two/adapter"),
        *("--out", "attention", "--heat", "1", *short),
    )
    responses = read_responses("predictions.jsonl")
    assert {response.question.kind for response in responses} == {"phrase", "choice"}
    assert set(json.loads(Path("metrics.json").read_text())["models"]) == {"two/adapter"}
    attention = json.loads(Path("attention/attention.json").read_text())
    assert set(attention) == {model, "two/adapter"}
    assert Path("attention/attention.png").stat().st_size > 10_000
    assert {name: weight.tobytes() for name, weight in before.items()} == {
        name: weight.tobytes() for name, weight in weights_of(folder).items()
    }
    assert {path.suffix for path in Path("two/adapter").iterdir()} == {".json", ".safetensors"}


def run(*arguments: str) -> None:
    assert cli.main(arguments) == 0


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, "np") as weights:
            found |= {name: weights.get_tensor(name) for name in weights.keys() if "layers.0" in name}  # noqa: SIM118
    return found


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.fixture
def copy(family: str, folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders[family], tmp_path / "model"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_shard_that_is_missing_is_named(copy: Path) -> None:
    shard = sorted(copy.glob("model-*.safetensors"))[-1]
    shard.unlink()
    with pytest.raises(ModelError, match=f"{shard.name}.*download it again"):
        load(str(copy))


def test_a_shard_that_is_cut_short_is_refused(copy: Path) -> None:
    shard = sorted(copy.glob("model-*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"cannot be loaded as .*download it again"):
        load(str(copy))


def test_a_pickle_is_refused(copy: Path) -> None:
    for path in copy.glob("model*"):
        path.unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only safetensors are read, a pickle is refused"):
        load(str(copy))


def test_a_tokenizer_of_another_model_is_refused(family: str, folders: dict[str, Path], copy: Path) -> None:
    other = next(folder for name, folder in folders.items() if name != family)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(other / file, copy / file)
    with pytest.raises(ModelError, match=r"the tokenizer has .* as None, the weights expect 10"):
        load(str(copy))


def test_a_feature_extractor_of_another_model_is_refused(family: str, copy: Path) -> None:
    if family == "qwen_omni":
        edit(copy / "preprocessor_config.json", feature_size=80)
    else:
        described = json.loads((copy / "processor_config.json").read_text())
        edit(
            copy / "processor_config.json",
            feature_extractor=described["feature_extractor"] | {"feature_size": 80},
        )
    with pytest.raises(ModelError, match="gives 80 mel bins, the encoder takes 128"):
        load(str(copy))


def test_another_architecture_under_this_type_is_refused(copy: Path, family: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    inner = config["thinker_config"] if family == "qwen_omni" else config
    inner["text_config"]["hidden_size"] = 64
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot be loaded as"):
        load(str(copy))


def test_an_id_that_no_one_knows_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a folder here, and as a hub id"):
        load("nobody/has-this-model")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be used"):
        load(str(tmp_path))


def test_four_bits_without_cuda_say_what_they_need(folders: dict[str, Path], family: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    from tgsr.models.placement import Placement

    with pytest.raises(ModelError, match="4bit needs CUDA"):
        load(str(folders[family]), Placement("4bit"))

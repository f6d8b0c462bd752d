"""What a plan says against what torch counts, and what it must never promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from others import phi4_folder
from tgsr import cli
from tgsr.errors import ModelError
from tgsr.models.aligner_and_lora import parts_of, with_lora
from tgsr.models.checkpoint import MERGED_FILE
from tgsr.models.load import load
from tgsr.training.cost import GPUS, Work
from tgsr.training.plan import lora_size, rows, sizes_of
from tiny import af3_folder, gemma4_folder, omni_folder, qwen2_audio_folder, qwen3_omni_folder


@pytest.mark.parametrize(
    "make", [af3_folder, qwen2_audio_folder, omni_folder, qwen3_omni_folder, gemma4_folder]
)
def test_sizes_from_a_config_are_those_of_the_loaded_model(make: object, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")  # type: ignore[operator]
    sizes, lalm = sizes_of(str(folder)), load(str(folder))
    with_lora(lalm, rank=4, alpha=8, seed=0)
    of = {part.block: part.n for part in parts_of(lalm)}
    assert sizes.aligner == of["aligner"]
    assert sizes.audio_tower == of["audio tower"]
    assert sizes.vision_tower == of.get("vision tower", 0)
    assert sizes.language_model == of["language model"] + of.get(
        "head", 0
    )  # none of its own where it is tied
    assert lora_size(sizes.decoder, 4) == of["LoRA"]


@pytest.mark.parametrize(
    ("name", "parameters", "vision", "vocabulary"),
    [
        ("Qwen/Qwen2.5-Omni-7B", 8_931_813_888, 676_550_144, 152_064),
        ("nvidia/audio-flamingo-3-hf", 8_267_215_360, 0, 151_672),
        ("nvidia/audio-flamingo-next-hf", 8_267_215_360, 0, 151_672),
    ],
)
def test_published_models_are_known_without_the_hub(
    name: str, parameters: int, vision: int, vocabulary: int
) -> None:
    sizes = sizes_of(name)
    assert sizes.language_model == pytest.approx(7.6e9, rel=0.01)
    assert sizes.audio_tower == pytest.approx(0.64e9, rel=0.01)
    assert (sizes.parameters, sizes.vision_tower) == (parameters, vision)
    assert sizes.decoder.vocabulary == vocabulary
    assert "known by heart on 2026-" in sizes.source
    assert "could not be reached" in sizes.source


def test_qwen2_audio_is_known_without_the_hub() -> None:
    """Blocks that train, and what 24 GB hold; its decoder has keys for each of 32 heads."""
    sizes, gpu = sizes_of("Qwen/Qwen2-Audio-7B-Instruct"), GPUS["rtx4090"]
    assert (sizes.parameters, sizes.aligner, sizes.audio_tower) == (8_397_094_912, 5_246_976, 636_968_960)
    assert (sizes.vision_tower, sizes.decoder.vocabulary) == (0, 156_032)
    assert lora_size(sizes.decoder, 16) == 39_976_960
    made = {(row.stage, row.options): row.memory <= gpu.memory for row in rows(sizes, gpu, 1, Work())}
    assert made["sta", "--gradient-checkpointing"]
    assert made["grpo", "--gradient-checkpointing"]
    assert not made["sta", "(none)"]


@pytest.mark.parametrize(
    ("name", "in_the_file", "ours", "aligner", "lora", "hubs"),
    [
        ("google/gemma-4-E2B-it", 18_880_512 + 35, 5_104_297_504, 2_359_296, 24_158_208, 5_123_178_051),
        ("google/gemma-4-E4B-it", 55_055_616 + 42, 7_941_100_832, 3_932_160, 34_881_536, 7_996_156_490),
        ("google/gemma-4-12B-it", 48, 11_959_730_176, 2_457_600, 65_568_768, 11_959_730_224),
    ],
)
def test_gemma_4_is_known_without_the_hub(
    name: str, in_the_file: int, ours: int, aligner: int, lora: int, hubs: int
) -> None:
    """The hub counts what its files hold besides: keys that no layer has, and a scale for each layer."""
    sizes = sizes_of(name)
    assert (sizes.parameters, sizes.aligner) == (ours, aligner)
    assert sizes.parameters + in_the_file == hubs
    assert lora_size(sizes.decoder, 16) == lora


def test_each_saving_saves_what_it_is_for() -> None:
    made = rows(sizes_of("Qwen/Qwen2.5-Omni-7B"), GPUS["h100"], 8, Work())
    of = {(row.stage, row.options): row for row in made}
    for stage in ("sta", "grpo"):
        plain, kept = of[stage, "(none)"], of[stage, "--gradient-checkpointing"]
        assert kept.activations < plain.activations
        assert kept.hours > plain.hours
        assert kept.weights == plain.weights
        assert of[stage, "--load-as 4bit --gradient-checkpointing"].weights < kept.weights - 9e9
    assert (
        of["sta", "--gradient-checkpointing --shard"].weights < of["sta", "--gradient-checkpointing"].weights
    )
    # Stage 2 samples with the whole decoder: sharding it does not lower the peak.
    shard = of["grpo", "--gradient-checkpointing --shard"]
    assert shard.weights == of["grpo", "--gradient-checkpointing"].weights


@pytest.mark.parametrize(
    ("name", "offered"),
    [("microsoft/Phi-4-multimodal-instruct", False), ("ibm-granite/granite-4.0-1b-speech", True)],
)
def test_4_bits_are_not_offered_where_the_model_has_a_lora_to_be_merged(name: str, offered: bool) -> None:
    """Loading refuses both at once; 4.0-1b-speech has its LoRA in its matrices already."""
    made = rows(sizes_of(name), GPUS["h100"], 1, Work())
    assert any("4bit" in row.options for row in made) == offered


def test_a_merged_lora_is_none_to_be_merged(tmp_path: Path) -> None:
    folder = phi4_folder(tmp_path / "phi4")
    assert sizes_of(str(folder)).has_own_lora
    (folder / MERGED_FILE).write_text("{}")
    assert not sizes_of(str(folder)).has_own_lora


def test_more_gpus_take_less_time() -> None:
    sizes = sizes_of("nvidia/audio-flamingo-3-hf")
    one, eight = (rows(sizes, GPUS["h100"], n, Work())[0].hours for n in (1, 8))
    assert one == pytest.approx(8 * eight)


def test_the_command_prints_a_command_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--model", "Qwen/Qwen2.5-Omni-7B", "--gpu", "rtx4090"]) == 0
    said = capsys.readouterr().out
    assert "8,931,813,888 parameters" in said
    assert "tgsr train sta --model Qwen/Qwen2.5-Omni-7B --bfloat16 --clips-at-once 1 --load-as 4bit" in said
    assert "Nothing here was measured" in said
    assert cli.main(["plan", "--model", "Qwen/Qwen2.5-Omni-7B", "--gpu-memory", "8"]) == 0
    assert capsys.readouterr().out.count("none of these fits") == 2
    assert cli.main(["plan", "--model", "Qwen/Qwen2.5-Omni-7B", "--gpus", "0"]) == 2
    assert "--gpus 0: must be above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "fitting"),
    [("Qwen/Qwen2.5-Omni-7B", {"sta"}), ("nvidia/audio-flamingo-3-hf", {"sta", "grpo"})],
)
def test_24_gb_hold_a_7b_decoder_in_bfloat16_where_layers_are_checkpointed(
    name: str, fitting: set[str]
) -> None:
    gpu = GPUS["rtx4090"]
    made = [row for row in rows(sizes_of(name), gpu, 1, Work()) if row.memory <= gpu.memory]
    assert {row.stage for row in made if row.options == "--gradient-checkpointing"} == fitting
    assert {row.stage for row in made if "4bit" in row.options} == {"sta", "grpo"}
    assert not any(row.options == "(none)" for row in made)


def test_a_model_that_no_one_knows_is_refused() -> None:
    with pytest.raises(ModelError, match="give a folder that holds one"):
        sizes_of("nobody/nothing")


@pytest.mark.parametrize(
    "flags", [["--phrases", "-5"], ["--gpu-memory", "-3"], ["--seconds", "nan"], ["--gpus", "0"]]
)
def test_counts_that_cannot_be_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--model", "Qwen/Qwen2.5-Omni-7B", *flags]) == 2
    assert f"{flags[0]} " in capsys.readouterr().err


def test_more_gpus_than_a_node_has_are_several_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--model", "Qwen/Qwen2.5-Omni-7B", "--gpus", "16"]) == 0
    assert "torchrun --nnodes 2 --nproc-per-node 8" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["mini", "cascade"])
def test_no_hub_is_asked_for_a_name_of_ours(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--model", name]) == 2
    assert "plans are for checkpoints" in capsys.readouterr().err

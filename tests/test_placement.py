"""Models that are spread over devices: the plan of places, and the engine on layers whose weights come and go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from transformers.quantizers.quantizers_utils import should_convert_module

from tgsr.audio import SAMPLE_RATE
from tgsr.engine.sampling import sample, uniforms
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.errors import ModelError, OptionError, RunError
from tgsr.models.checkpoint import HOST, LAYERS, _device_map, spread
from tgsr.models.lalm import device_of, n_spread
from tgsr.models.load import fingerprint, load
from tgsr.models.merge import merge
from tgsr.models.placement import Placement
from tgsr.training.config import StaConfig
from tgsr.training.processes import Processes
from tgsr.training.run import load_to_train
from tiny import af3_folder, omni_folder

MAKE = {"audio_flamingo3": af3_folder, "qwen_omni": omni_folder}


@pytest.fixture(scope="module", params=MAKE)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKE[str(request.param)](tmp_path_factory.mktemp("hub") / "base")


def test_layers_are_shared_out_evenly_and_in_order() -> None:
    assert spread([10] * 8, 0, [1000, 1000]) == [0] * 4 + [1] * 4
    assert (
        spread([10] * 6, 40, [100, 100]) == [0] * 2 + [1] * 4
    )  # GPU 0 holds the rest too: 45 and 85 are left
    assert spread([10] * 4, 0, [1000]) == [0] * 4


def test_an_odd_number_of_layers_fits_where_it_can() -> None:
    assert spread([10] * 3, 0, [30, 30]) == [0, 1, 1]
    assert spread([30] * 3, 0, [75, 40]) == [0, 0, 1]


def test_what_does_not_fit_waits_in_the_hosts_memory_and_it_is_the_last() -> None:
    assert spread([10] * 5, 0, [24, 24]) == [0, 0, 1, 1, HOST]
    assert spread([10] * 2, 100, [50]) == [HOST, HOST]
    assert spread([10] * 2, 0, []) == [HOST, HOST]


def numbers(lalm: Any) -> tuple[torch.Tensor, list[tuple[int, ...]]]:
    """Log-probs of two branches, and three sampled ones of other lengths that leave the batch one by one."""
    rng = np.random.default_rng(0)
    clips = [
        lalm.encode_audio((0.1 * rng.standard_normal(n)).astype(np.float32)) for n in (8000, SAMPLE_RATE)
    ]
    prefix = listen(lalm, clips)
    branches = [Branch(owner, (5, 6, 7), (8, 9, 10, 11)) for owner in (0, 1, 1)]
    with torch.no_grad():
        logps = branch_logps(prefix, branches).logp_BT
    drawn = sample(
        prefix,
        [0, 1, 1],
        [(5, 6), (5, 6, 7), (9,)],
        max_new_tokens=6,
        temperature=1.0,
        uniform_BN=uniforms(3, 6, seed=1),
    )
    return logps, [one.ids for one in drawn]


def test_only_the_decoders_layers_are_spread_and_every_weight_has_a_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lalm = load(str(folder))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (10**9, 10**9))
    places = _device_map(type(lalm.inner), str(folder), Placement(devices="all"), LAYERS)
    n_layers = len(lalm.language_model.layers)
    assert {place for part, place in places.items() if not part.startswith(LAYERS)} == {0}
    of_layers = [places[f"{LAYERS}.{index}"] for index in range(n_layers)]
    assert of_layers == sorted(of_layers)
    assert set(of_layers) == {0, 1}
    for name, _ in lalm.inner.named_parameters():
        assert sum(name.startswith(f"{part}.") for part in places) == 1, name


def test_without_a_gpu_all_devices_are_the_cpu(folder: Path) -> None:
    plain, placed = load(str(folder)), load(str(folder), Placement(devices="all"))
    torch.testing.assert_close(numbers(placed)[0], numbers(plain)[0])


def test_the_engine_runs_on_layers_whose_weights_are_elsewhere_until_their_turn(folder: Path) -> None:
    plain, waiting = load(str(folder)), load(str(folder))
    for layer in waiting.language_model.layers:
        cpu_offload(layer, execution_device=torch.device("cpu"))
    assert all(weight.is_meta for weight in waiting.language_model.layers.parameters())
    assert device_of(waiting) == torch.device("cpu")
    assert fingerprint(waiting) == fingerprint(plain)
    (logps, drawn), (expected, expected_drawn) = numbers(waiting), numbers(plain)
    torch.testing.assert_close(logps, expected)
    assert drawn == expected_drawn


def test_what_waits_in_the_hosts_memory_is_not_trained_or_merged(folder: Path, tmp_path: Path) -> None:
    lalm = load(str(folder))
    lalm.inner.hf_device_map = {"model.audio_tower": 0, "layers.0": 0, "layers.1": "cpu"}
    assert n_spread(lalm) == (2, 1)
    with pytest.raises(ModelError, match="1 of its layers wait in the host's memory"):
        merge(lalm, tmp_path / "merged")
    one = Processes(Accelerated(1))  # type: ignore[arg-type]
    with pytest.raises(RunError, match="1 of its layers do not fit the GPUs"):
        load_to_train(StaConfig(questions="q.jsonl", model=str(folder)), one, lambda *_: lalm)


class Accelerated:
    """As much of accelerate's Accelerator as says how many processes there are, and that this is the first."""

    is_main_process = True

    def __init__(self, n: int) -> None:
        self.num_processes = n


def test_places_that_training_cannot_use_are_refused_before_the_model_is_read() -> None:
    two = Processes(Accelerated(2))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"--devices all: .* there are 2 processes"):
        load_to_train(StaConfig(questions="q.jsonl", model="no such model", devices="all"), two)
    with pytest.raises(OptionError, match="--shard: spreads whole matrices"):
        load_to_train(StaConfig(questions="q.jsonl", model="no such model", load_as="4bit", shard=True), two)


def test_in_4_bits_are_the_decoders_matrices_and_no_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By transformers' own rule for the names that are left alone; a tower in 4 bits would hear worse unnoticed."""
    left_alone: list[str] = []

    def keep(name: str, unquantized: list[str]) -> None:
        left_alone.extend(unquantized)
        raise ModelError("far enough")

    monkeypatch.setattr("tgsr.models.checkpoint._four_bits", keep)
    with pytest.raises(ModelError, match="far enough"):
        load(str(folder), Placement("4bit"))
    for name, module in load(str(folder)).inner.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert should_convert_module(name, left_alone) == name.startswith(
                "model.language_model.layers"
            ), name


def test_less_than_a_frame_of_sound_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="needs more than"):
        load(str(folder)).encode_audio(np.zeros(200, np.float32))

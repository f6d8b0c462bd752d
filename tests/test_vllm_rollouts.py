"""vLLM rollouts against a real HTTP server that speaks what vLLM 0.32 was heard to answer.

The true server is asked by tests/parity/vllm_rollouts.py; here no vLLM is needed.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Qwen2ForCausalLM,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
)

from tgsr import rl
from tgsr.engine.features import FeatureCache
from tgsr.engine.shared_prefix import SharedPrefix, listen
from tgsr.engine.vllm_rollouts import (
    VllmServer,
    connect,
    connect_all,
    decoder_name,
    export_decoder,
    push_adapter,
    push_to_all,
    sample_by_vllm,
    server_command,
)
from tgsr.errors import ModelError, OptionError
from tgsr.models.aligner_and_lora import with_lora, without_renaming_warning
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tgsr.models.mini import feature_extractor, train_tokenizer
from tgsr.models.voxtral import Voxtral
from tgsr.training.config import GrpoConfig
from tiny import DECODER, TEXTS, questions_in, rewarded_by, tiny_base, tiny_features, tiny_lalm, uneven


class Recorded(BaseHTTPRequestHandler):
    """vLLM 0.32's answers, as recorded; `server.instead` holds a status and body that replace them for a path."""

    def do_GET(self) -> None:
        cards = [{"id": name, "object": "model", "owned_by": "vllm"} for name in self.server.served]
        self.answer("/v1/models", 200, {"object": "list", "data": cards})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((self.path, body))
        if self.path == "/v1/load_lora_adapter":
            if body["lora_name"] in self.server.served:
                return self.refuse(400, f"The lora adapter '{body['lora_name']}' has already been loaded.")
            self.server.served.append(body["lora_name"])
            return self.answer(
                self.path, 200, f"Success: LoRA adapter '{body['lora_name']}' added successfully."
            )
        if self.path == "/v1/unload_lora_adapter":
            if body["lora_name"] not in self.server.served:
                return self.refuse(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
            self.server.served.remove(body["lora_name"])
            return self.answer(
                self.path, 200, f"Success: LoRA adapter '{body['lora_name']}' removed successfully."
            )
        if body["model"] not in self.server.served:
            return self.refuse(404, f"The model `{body['model']}` does not exist.")
        if body["n"] > 1 and not body["temperature"]:
            return self.refuse(400, f"n must be 1 when using greedy sampling, got {body['n']}.")
        n_positions = len(as_tensor(body["prompt_embeds"]))
        choices = [self.choice(i, n_positions, body) for i in range(body["n"])]
        # Not in order: the index says which answer is which.
        return self.answer(self.path, 200, {"object": "text_completion", "choices": choices[::-1]})

    def choice(self, index: int, n_positions: int, body: dict[str, Any]) -> dict[str, Any]:
        """Answer `index`: its first token tells the prompt's length, its second the index; odd ones never end."""
        ended = index % 2 == 0
        ids = [n_positions, 10 + index, body["stop_token_ids"][0] if ended else 7]
        return {
            "index": index,
            "text": "996",
            "logprobs": {
                "text_offset": [0, 1, 2],
                "token_logprobs": [-2.044133186340332, -0.5 - index, -2.308755397796631],
                "tokens": ["9", "9", "6"],
                "top_logprobs": [{"9": -2.044133186340332}, {"9": -0.5 - index}, {"6": -2.308755397796631}],
            },
            "finish_reason": "stop" if ended else "length",
            "stop_reason": body["stop_token_ids"][0] if ended else None,
            "token_ids": ids,
            "prompt_logprobs": None,
            "prompt_token_ids": [0] * n_positions,
            "routed_experts": None,
        }

    def refuse(self, status: int, message: str) -> None:
        error = {"message": message, "type": "BadRequestError", "param": None, "code": status}
        self.answer(self.path, status, {"error": error})

    def answer(self, path: str, status: int, body: object) -> None:
        status, body = self.server.instead.get(path, (status, body))
        sent = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(sent)))
        if status == 429 and self.server.retry_after is not None:
            self.send_header("Retry-After", self.server.retry_after)
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None:
        """No lines between the tests' own."""


class RecordedServer(ThreadingHTTPServer):
    def __init__(self, served: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Recorded)
        self.served = served
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.instead: dict[str, tuple[int, object]] = {}
        self.retry_after: str | None = None
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def completions(self) -> list[dict[str, Any]]:
        return [body for path, body in self.asked if path == "/v1/completions"]


@pytest.fixture(scope="module")
def lalm() -> AudioFlamingo3:
    return tiny_lalm()


@contextmanager
def running(lalm: AudioFlamingo3) -> Iterator[RecordedServer]:
    server = RecordedServer([decoder_name(lalm)])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def vllm(lalm: AudioFlamingo3) -> Iterator[RecordedServer]:
    with running(lalm) as server:
        yield server


@pytest.fixture
def second(lalm: AudioFlamingo3) -> Iterator[RecordedServer]:
    with running(lalm) as server:
        yield server


@pytest.fixture
def gone() -> str:
    """The URL of a server that is no longer there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def as_tensor(sent: str) -> torch.Tensor:
    """As vLLM reads prompt_embeds."""
    return torch.load(io.BytesIO(base64.b64decode(sent, validate=True)), weights_only=True)


def with_random_lora(seed: int = 0) -> AudioFlamingo3:
    lalm = tiny_lalm()
    with_lora(lalm, rank=4, alpha=8, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in lalm.model.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.2
    return lalm


def prefix_of(lalm: AudioFlamingo3) -> SharedPrefix:
    return listen(lalm, [tiny_features(5, 0), tiny_features(9, 1)])


def ask(vllm: RecordedServer, lalm: AudioFlamingo3, **changed: Any) -> list[Any]:
    """Two clips, two answers to each of their questions."""
    arguments: dict[str, Any] = {
        "owners": [0, 1, 0, 1],
        "prompts": [[5, 6], [5, 6], [5, 6], [5, 6]],
        "max_new_tokens": 3,
        "temperature": 0.7,
        "seed": 3,
    } | changed
    owners, prompts = (arguments.pop(name) for name in ("owners", "prompts"))
    return sample_by_vllm(connect(vllm.url, lalm), prefix_of(lalm), owners, prompts, **arguments)


# --- sampling -----------------------------------------------------------------------------------------------


def test_a_groups_answers_are_one_request_and_come_back_in_the_branches_order(
    vllm: RecordedServer, lalm: AudioFlamingo3
) -> None:
    rows = prefix_of(lalm).rows
    sampled = ask(vllm, lalm, owners=[0, 1, 0, 1, 0], prompts=[[5, 6], [5, 6], [5, 6], [5, 6], [8]])
    assert sorted(body["n"] for body in vllm.completions()) == [1, 2, 2]
    n_0, n_1 = len(rows[0]), len(rows[1])
    assert [s.ids[0] for s in sampled] == [n_0 + 2, n_1 + 2, n_0 + 2, n_1 + 2, n_0 + 1]
    assert [s.ids[1] for s in sampled] == [10, 10, 11, 11, 10]
    assert sampled[2].logps == (-2.044133186340332, -1.5, -2.308755397796631)
    assert [s.cut for s in sampled] == [False, False, True, True, False]
    assert sampled[0].ids[-1] == lalm.eos_id


def test_the_server_gets_the_very_embeddings_that_our_decoder_sees(
    vllm: RecordedServer, lalm: AudioFlamingo3
) -> None:
    rows = prefix_of(lalm).rows
    ask(vllm, lalm, owners=[1], prompts=[[5, 6, 7]])
    (body,) = vllm.completions()
    sent = as_tensor(body["prompt_embeds"])
    expected = torch.cat([rows[1], lalm.embed(torch.tensor([5, 6, 7]))]).detach()
    assert torch.equal(sent, expected)
    assert sent.untyped_storage().nbytes() == expected.nbytes  # a view would send all that it is a view of
    assert body["stop_token_ids"] == [lalm.eos_id]
    assert body["ignore_eos"] is True


def test_requests_have_seeds_of_their_own_that_the_runs_seed_decides(
    vllm: RecordedServer, lalm: AudioFlamingo3
) -> None:
    seeds = []
    for seed in (3, 3, 4):
        vllm.asked.clear()
        ask(vllm, lalm, seed=seed)
        seeds.append(sorted(body["seed"] for body in vllm.completions()))
    assert seeds[0] == seeds[1]
    assert len({*seeds[0], *seeds[2]}) == 4
    assert all(seed < 2**62 for seed in seeds[0])  # vLLM counts a group's answers up from it, in 63 bits


def test_greedy_asks_once_for_equal_branches(vllm: RecordedServer, lalm: AudioFlamingo3) -> None:
    sampled = ask(vllm, lalm, temperature=0.0)
    assert [body["n"] for body in vllm.completions()] == [1, 1]
    assert sampled[0] == sampled[2]
    assert sampled[1] == sampled[3]


@pytest.mark.parametrize(
    "changed",
    [
        {"owners": [], "prompts": []},
        {"prompts": [[5], [], [5], [5]]},
        {"owners": [0, 1, 2, 1]},
        {"max_new_tokens": 40_000},
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_request(
    vllm: RecordedServer, lalm: AudioFlamingo3, changed: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match="branch"):
        ask(vllm, lalm, **changed)
    assert not vllm.completions()


# --- refusals -----------------------------------------------------------------------------------------------

WRONG_WIDTH = (
    "`prompt_embeds` hidden_size 32 does not match the model's hidden_size 256. (parameter=prompt_embeds)"
)
TOO_LONG = "max_tokens=5000 cannot be greater than max_model_len=4096. Please request fewer output tokens."


def choice_with(**changed: object) -> dict[str, object]:
    whole = {"index": 0, "token_ids": [4], "logprobs": {"token_logprobs": [-0.5]}, "finish_reason": "length"}
    return {"choices": [whole | changed]}


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, {"error": {"message": WRONG_WIDTH, "code": 400}}, r"HTTP 400.*hidden_size.*export_decoder"),
        (400, {"error": {"message": TOO_LONG, "code": 400}}, r"HTTP 400.*fewer new tokens"),
        (404, {"detail": "Not Found"}, r"HTTP 404.*no such path"),
        (500, "Internal Server Error", r"HTTP 500.*Internal Server Error.*log"),
        (200, "<html>a proxy</html>", r"not the answer that was asked for.*a proxy"),
        (200, {"choices": []}, "not the answer"),
        (200, {"choices": [{"index": 0}]}, "not the answer"),
        (200, choice_with(token_ids=[]), "not the answer"),
        (200, choice_with(finish_reason="abort"), "not the answer"),
        (200, choice_with(logprobs=None), "1 tokens came with 0 log-probs.*processed_logprobs"),
        (200, choice_with(logprobs={"token_logprobs": [None]}), "processed_logprobs"),
        (200, choice_with(logprobs={"token_logprobs": [-1.0, -1.0]}), "1 tokens came with 2 log-probs"),
    ],
)
def test_refusals_name_the_server_what_it_said_and_a_remedy(
    vllm: RecordedServer, lalm: AudioFlamingo3, status: int, body: object, said: str
) -> None:
    vllm.instead["/v1/completions"] = (status, body)
    with pytest.raises(ModelError, match=said) as raised:
        ask(vllm, lalm, owners=[0], prompts=[[5]])
    assert str(raised.value).startswith(f"{vllm.url}/v1/completions: ")


def test_no_server_is_said_with_its_address(lalm: AudioFlamingo3) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(ModelError, match=rf"{url}/v1/models: no answer .*refused.*server_command"):
        connect(url, lalm)


def test_an_address_that_is_no_url_is_said(lalm: AudioFlamingo3) -> None:
    with pytest.raises(ModelError, match=r"http://localhost:port: is no URL .*Invalid port"):
        connect("http://localhost:port", lalm)


def test_a_server_of_other_weights_is_refused(vllm: RecordedServer) -> None:
    with pytest.raises(ModelError, match=r"serves tgsr-decoder-\w+, not tgsr-decoder-\w+.*export it again"):
        connect(vllm.url, tiny_lalm(seed=1))


# --- the decoder and its adapter ----------------------------------------------------------------------------


def logits_of(lalm: AudioFlamingo3, embeds: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return lalm.lm_head(lalm.language_model(inputs_embeds=embeds[None]).last_hidden_state)[0]


def test_the_exported_decoder_is_ours_without_the_lora(tmp_path: Path) -> None:
    lalm = with_random_lora()
    name = export_decoder(lalm, tmp_path)
    assert name == decoder_name(tiny_lalm())
    decoder, info = Qwen2ForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    embeds = prefix_of(lalm).rows[0].detach()
    with torch.no_grad(), lalm.model.disable_adapter():
        torch.testing.assert_close(
            decoder(inputs_embeds=embeds[None]).logits[0], logits_of(lalm, embeds), atol=1e-5, rtol=1e-5
        )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.eos_token_id == lalm.eos_id
    assert tokenizer("Which digit?", add_special_tokens=False)["input_ids"] == lalm.tokens("Which digit?")


def test_tied_embeddings_are_exported_once(tmp_path: Path) -> None:
    lalm = tiny_lalm()
    lalm.inner.lm_head.weight = lalm.language_model.get_input_embeddings().weight
    export_decoder(lalm, tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    embeds = prefix_of(lalm).rows[0].detach()
    with torch.no_grad():
        logits = Qwen2ForCausalLM.from_pretrained(tmp_path)(inputs_embeds=embeds[None]).logits[0]
    torch.testing.assert_close(logits, logits_of(lalm, embeds), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_voxtrals_decoder_is_exported_as_the_text_model_that_it_is(kind: str, tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 1e8}  # as published, and not the class's default
    text = {**DECODER, "model_type": kind, "head_dim": 16, "vocab_size": 600, "rope_parameters": rope}
    audio = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    model = VoxtralForConditionalGeneration(VoxtralConfig(audio_config=audio, text_config=text)).eval()
    tokenizer = train_tokenizer(TEXTS)
    tokenizer.chat_template = None  # Voxtral's own has none
    lalm = Voxtral("tiny", model, tokenizer, feature_extractor())
    name = export_decoder(lalm, tmp_path)
    decoder, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert decoder.config.architectures == [f"{kind.title()}ForCausalLM"] == [type(decoder).__name__]
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    embeds = torch.randn(300, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logps = decoder(inputs_embeds=embeds[None]).logits[0].log_softmax(-1)
    torch.testing.assert_close(logps, logits_of(lalm, embeds).log_softmax(-1), atol=1e-5, rtol=1e-5)
    with_lora(lalm, rank=4, alpha=8, seed=0)
    assert decoder_name(lalm) == name


def test_the_pushed_adapter_fits_the_plain_decoder(vllm: RecordedServer, tmp_path: Path) -> None:
    lalm = with_random_lora()
    export_decoder(lalm, tmp_path / "decoder")
    server = push_adapter(connect(vllm.url, lalm), lalm, tmp_path / "adapters")
    ((_, body),) = vllm.asked
    assert body == {"lora_name": server.adapter, "lora_path": str(tmp_path / "adapters" / server.adapter)}
    names = set(load_file(Path(body["lora_path"]) / "adapter_model.safetensors"))
    assert len(names) == 2 * 7 * 2  # A and B, seven layers' modules, two layers; none of the encoder's
    assert "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight" in names
    decoder = Qwen2ForCausalLM.from_pretrained(tmp_path / "decoder")
    embeds = prefix_of(lalm).rows[0].detach()
    with torch.no_grad(), without_renaming_warning():
        without = decoder(inputs_embeds=embeds[None]).logits[0]
        adapted = PeftModel.from_pretrained(decoder, body["lora_path"])(inputs_embeds=embeds[None]).logits[0]
    torch.testing.assert_close(adapted, logits_of(lalm, embeds), atol=1e-5, rtol=1e-5)
    assert (adapted - without).abs().max() > 0.1


def test_an_updated_lora_gets_a_name_and_a_path_of_its_own(vllm: RecordedServer, tmp_path: Path) -> None:
    """vLLM's prefix cache goes by name and path: new numbers under old ones would meet the old keys and values."""
    lalm = with_random_lora()
    first = push_adapter(connect(vllm.url, lalm), lalm, tmp_path)
    assert push_adapter(first, lalm, tmp_path) == first
    assert len(vllm.asked) == 1  # nothing had changed
    next(w for name, w in lalm.model.named_parameters() if "lora_B" in name).data += 0.01
    second = push_adapter(first, lalm, tmp_path)
    assert second.adapter != first.adapter
    assert vllm.asked[-1] == ("/v1/unload_lora_adapter", {"lora_name": first.adapter})
    assert [path.name for path in tmp_path.iterdir()] == [second.adapter]
    sample_by_vllm(second, prefix_of(lalm), [0], [[5]], max_new_tokens=3)
    assert vllm.completions()[0]["model"] == second.adapter


def test_a_group_of_the_loop_is_sampled_by_the_servers_and_weighed(
    vllm: RecordedServer, second: RecordedServer, tmp_path: Path
) -> None:
    """Two steps of GRPO: an adapter is pushed before each, and the recorded log-probs are far from the trainer's."""
    questions = questions_in(tmp_path, "qa", 2, most=4)
    config = GrpoConfig(
        questions=str(questions),
        prompts_per_step=2,
        group_size=2,
        max_new_tokens=3,
        learning_rate=1e-2,
        vllm=f"{vllm.url},{second.url}",
    )
    rl.train_grpo(config, tmp_path / "run", FeatureCache(tmp_path / "cache"), tiny_base, rewarded_by(uneven))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert [row["cut"] for row in rows] == [2, 2]  # of a recorded group every second answer
    assert all(row["drift"] > 1 for row in rows)
    assert len(vllm.completions()) == len(second.completions()) == 2
    models = [body["model"] for body in vllm.completions()]
    assert models == [body["model"] for body in second.completions()]
    assert len(set(models)) == 2
    assert all(model.startswith("tgsr-lora-") for model in models)


PROMPTS = [[5], [6], [7], [8], [9], [10]]  # as many requests


def test_a_branch_with_a_seed_of_its_own_draws_the_same_whoever_else_is_asked(
    vllm: RecordedServer, lalm: AudioFlamingo3
) -> None:
    """As one process of two asks for its share of a step, and one alone for all of it."""
    seeds = [11, 12, 13]
    ask(vllm, lalm, owners=[0, 1, 0], prompts=PROMPTS[:3], seed=seeds)
    ask(vllm, lalm, owners=[1, 0], prompts=PROMPTS[1:3], seed=seeds[1:])
    asked = [(body["prompt_embeds"], body["seed"]) for body in vllm.completions()]
    assert len(set(asked)) == 3
    assert set(asked[:3]) > set(asked[3:])


def test_servers_take_turns_and_draw_what_one_would(
    vllm: RecordedServer, second: RecordedServer, lalm: AudioFlamingo3
) -> None:
    prefix, settings = prefix_of(lalm), {"max_new_tokens": 3, "seed": 4}
    servers = connect_all(f"{vllm.url}, {second.url}/,{vllm.url}", lalm)
    assert [server.url for server in servers] == [vllm.url, second.url]
    spread = sample_by_vllm(servers, prefix, [0] * 6, PROMPTS, **settings)
    asked = [*vllm.completions(), *second.completions()]
    assert (len(vllm.completions()), len(second.completions())) == (3, 3)
    assert spread == sample_by_vllm(servers[0], prefix, [0] * 6, PROMPTS, **settings)
    alone = vllm.completions()[3:]
    assert {body["seed"] for body in alone} == {body["seed"] for body in asked}


def test_what_a_dead_server_was_asked_another_is(
    vllm: RecordedServer, gone: str, lalm: AudioFlamingo3, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix, model = prefix_of(lalm), decoder_name(lalm)
    servers = [VllmServer(gone, model), VllmServer(vllm.url, model)]
    sampled = sample_by_vllm(servers, prefix, [0] * 6, PROMPTS, max_new_tokens=3)
    assert sampled == sample_by_vllm(servers[1], prefix, [0] * 6, PROMPTS, max_new_tokens=3)
    assert capsys.readouterr().err.count(f"left out: {gone}") == 1
    with pytest.raises(ModelError, match=r"no answer.*start the server"):
        sample_by_vllm(servers[:1], prefix, [0] * 6, PROMPTS, max_new_tokens=3)


@pytest.mark.parametrize("status", [500, 404])
def test_a_server_with_an_error_of_its_own_is_left_out_and_one_that_refuses_is_not(
    status: int, vllm: RecordedServer, second: RecordedServer, lalm: AudioFlamingo3
) -> None:
    servers, prefix = connect_all(f"{vllm.url},{second.url}", lalm), prefix_of(lalm)
    vllm.instead["/v1/completions"] = (status, "EngineDeadError")
    assert len(sample_by_vllm(servers, prefix, [0] * 6, PROMPTS, max_new_tokens=3)) == 6
    assert len(second.completions()) == 6
    vllm.instead["/v1/completions"] = (400, "enable-prompt-embeds")
    with pytest.raises(ModelError, match="HTTP 400"):
        sample_by_vllm(servers, prefix, [0] * 6, PROMPTS, max_new_tokens=3)


def test_servers_that_do_not_answer_are_left_out_from_the_start(
    vllm: RecordedServer,
    second: RecordedServer,
    gone: str,
    lalm: AudioFlamingo3,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (server,) = connect_all(f"{gone},{vllm.url}", lalm)
    assert server.url == vllm.url
    assert f"left out: {gone}" in capsys.readouterr().err
    with pytest.raises(ModelError, match="no answer"):
        connect_all(gone, lalm)
    second.served = ["another-decoder"]
    with pytest.raises(ModelError, match="serves another-decoder"):
        connect_all(f"{vllm.url},{second.url}", lalm)
    with pytest.raises(ModelError, match="is no URL"):
        connect_all("http://[,", lalm)


def test_a_server_that_was_started_again_gets_the_next_adapter(
    vllm: RecordedServer, second: RecordedServer, gone: str, tmp_path: Path
) -> None:
    lalm = with_random_lora()
    servers = push_to_all(connect_all(f"{vllm.url},{second.url}", lalm), lalm, tmp_path)
    second.served = [decoder_name(lalm)]
    prefix = prefix_of(lalm)
    sample_by_vllm(servers, prefix, [0] * 6, PROMPTS, max_new_tokens=3)
    assert len(vllm.completions()) == 6
    next(w for name, w in lalm.model.named_parameters() if "lora_B" in name).data += 0.01
    dead = VllmServer(gone, servers[0].model, servers[0].adapter)
    again = push_to_all([*servers, dead], lalm, tmp_path)
    assert [server.url for server in again] == [vllm.url, second.url]
    assert vllm.served == second.served == [decoder_name(lalm), again[0].adapter]
    assert [path.name for path in tmp_path.iterdir()] == [again[0].adapter]


def test_several_servers_are_named_with_commas_between() -> None:
    with pytest.raises(OptionError, match="--vllm a,: must be URL, or URL,URL"):
        GrpoConfig(questions="", vllm="a,")


def test_a_resumed_trainer_finds_its_adapter_loaded(vllm: RecordedServer, tmp_path: Path) -> None:
    lalm = with_random_lora()
    pushed = push_adapter(connect(vllm.url, lalm), lalm, tmp_path)
    assert push_adapter(connect(vllm.url, lalm), lalm, tmp_path) == pushed
    assert len(vllm.asked) == 1


def test_refused_adapters_say_why(vllm: RecordedServer, tmp_path: Path, lalm: AudioFlamingo3) -> None:
    with pytest.raises(ModelError, match="has no LoRA to push"):
        push_adapter(connect(vllm.url, lalm), lalm, tmp_path)
    message = "Call to add_lora method failed: Worker failed with error 'LoRA rank 4 is greater than max_lora_rank 1.'"
    vllm.instead["/v1/load_lora_adapter"] = (500, {"error": {"message": message, "code": 500}})
    with pytest.raises(ModelError, match=r"HTTP 500.*max_lora_rank.*lora_rank="):
        push_adapter(connect(vllm.url, with_random_lora()), with_random_lora(), tmp_path)


def test_the_command_serves_the_name_that_requests_ask_for(tmp_path: Path, lalm: AudioFlamingo3) -> None:
    name = export_decoder(lalm, tmp_path)
    command = server_command(tmp_path, 8123, python="elsewhere/bin/python", dtype="float32", lora_rank=12)
    assert command[command.index("--served-model-name") + 1] == name
    assert command[command.index("--max-lora-rank") + 1] == "16"  # the next that vLLM takes
    assert command[command.index("--logprobs-mode") + 1] == "processed_logprobs"
    assert command[command.index("--host") + 1] == "127.0.0.1"
    matrices = command[command.index("--lora-target-modules") + 1 :]  # no LoRA of vLLM's own on the embedding
    assert matrices[:4] == ["q_proj", "k_proj", "v_proj", "qkv_proj"]
    assert "embed_tokens" not in command
    with pytest.raises(ModelError, match="rank 512"):
        server_command(tmp_path, lora_rank=600)
    with pytest.raises(ModelError, match="write it with export_decoder"):
        server_command(tmp_path / "nothing")


@pytest.mark.parametrize(("says", "least", "most"), [(None, 0.5, 1.0), ("7", 7.0, 7.0), ("900", 60.0, 60.0)])
def test_what_a_proxy_asks_us_to_wait_is_waited(
    says: str | None,
    least: float,
    most: float,
    vllm: RecordedServer,
    lalm: AudioFlamingo3,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RFC 6585, 4: a 429 may say in Retry-After how long to wait before a new request."""
    expected, waited = ask(vllm, lalm), []
    vllm.instead["/v1/completions"] = (429, "slow down")
    vllm.retry_after = says

    def wait(seconds: float) -> None:
        waited.append(seconds)
        vllm.instead.clear()

    monkeypatch.setattr("tgsr.engine.vllm_rollouts.time", SimpleNamespace(sleep=wait))
    assert ask(vllm, lalm, owners=[0, 0], prompts=[[5, 6], [5, 6]]) == expected[::2]
    assert len(waited) == 1
    assert least <= waited[0] <= most


def test_a_proxy_that_never_lets_through_ends_the_run_with_its_word(
    vllm: RecordedServer, lalm: AudioFlamingo3, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, waited = connect(vllm.url, lalm), []
    vllm.instead["/v1/completions"] = (429, "slow down")
    monkeypatch.setattr("tgsr.engine.vllm_rollouts.time", SimpleNamespace(sleep=waited.append))
    with pytest.raises(
        ModelError, match=r"HTTP 429: 'slow down'; a proxy before the server .* after 6 tries"
    ):
        sample_by_vllm(server, prefix_of(lalm), [0], [[5, 6]], max_new_tokens=3)
    bounds = [(0.5, 1), (1, 2), (2, 4), (4, 8), (8, 16)]
    assert all(least <= seconds <= most for seconds, (least, most) in zip(waited, bounds, strict=True))

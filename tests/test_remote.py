"""Models behind an API, against a real local server that speaks their protocols and has their bad days."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from local_server import Got, Reply, chat_answer, gemini_answer, serving, sound_in
from tgsr import cli
from tgsr.answering.open import open_model
from tgsr.answering.remote import Gemini, Remote, load_remote, read_gemini
from tgsr.answering.responder import ClipQuestion
from tgsr.audio import SAMPLE_RATE, save_wav
from tgsr.errors import ModelError, OptionError
from tgsr.llm.chat import chat_endpoint, read_chat, whole_text
from tgsr.llm.decoding import GREEDY, Decoding, Failed
from tgsr.llm.endpoint import Limits, Malformed, status_within
from tgsr.llm.served import ServedLlm
from tgsr.prompts import QWEN_SYSTEM
from tgsr.records import Question, read_responses, write_jsonl

KEY = "sk-very-secret-0123456789"
QUICK = Limits(at_once=4, n_tries=3, first_wait=0.01, longest_wait=0.05, timeout_seconds=5.0)
ANSWERS = {"gemini": gemini_answer, "openai": chat_answer, "http": chat_answer}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GEMINI_API_KEY", "OPENAI_API_KEY", "TGSR_API_KEY"):
        monkeypatch.setenv(variable, KEY)


@pytest.fixture(params=ANSWERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def model_at(kind: str, url: str, cache: Path, limits: Limits = QUICK) -> Remote:
    names = {
        "gemini": "gemini:gemini-2.5-flash",
        "openai": "openai:gpt-4o-audio-preview",
        "http": f"{url}/v1#mine",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMINI_BASE_URL", url)
        patch.setenv("OPENAI_BASE_URL", f"{url}/v1")
        return load_remote(names[kind], cache=cache, limits=limits)


def clip(seed: int = 0, seconds: float = 0.5) -> np.ndarray:
    n = round(seconds * SAMPLE_RATE)
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def asked(*texts: str, clip: int = 0) -> list[ClipQuestion]:
    return [ClipQuestion(clip, text, text) for text in texts]


def text_of(got: Got) -> str:
    body = got.body
    if "messages" in body:
        return str(next(p["text"] for p in body["messages"][-1]["content"] if p["type"] == "text"))
    return str(body["contents"][0]["parts"][-1]["text"])


def test_each_question_is_one_request_with_its_own_sound(kind: str, tmp_path: Path) -> None:
    clips = [clip(0), clip(1, 0.3)]
    questions = [ClipQuestion(1, "Who?", "Who?"), ClipQuestion(0, "When?", "When?")]
    with serving(lambda got, _: Reply(ANSWERS[kind](f"heard {text_of(got)}"))) as server:
        model = model_at(kind, server.url, tmp_path)
        decoding = Decoding(max_new_tokens=33, temperature=0.5, top_p=0.9, seed=7)
        assert model.respond(clips, questions, decoding) == ["heard Who?", "heard When?"]
    assert len(server.got) == 2
    for got in server.got:
        samples, rate = sound_in(got.body)
        expected = clips[1 if text_of(got) == "Who?" else 0]
        assert rate == SAMPLE_RATE
        assert np.allclose(samples, expected, atol=1e-4)
        if kind == "gemini":
            assert got.path == "/v1beta/models/gemini-2.5-flash:generateContent"
            assert got.headers["x-goog-api-key"] == KEY
            assert got.body["generationConfig"]["maxOutputTokens"] == 33
            assert got.body["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 0}
        else:
            assert got.path == "/v1/chat/completions"
            assert got.headers["authorization"] == f"Bearer {KEY}"
            assert (got.body["max_tokens"], got.body["seed"], got.body["temperature"]) == (33, 7, 0.5)
            assert ("modalities" in got.body) == (kind == "openai")


def test_the_same_again_costs_nothing(kind: str, tmp_path: Path) -> None:
    questions = asked("one?", "two?")
    with serving(lambda got, _: Reply(ANSWERS[kind](text_of(got)))) as server:
        first = model_at(kind, server.url, tmp_path)
        assert first.respond([clip()], questions, GREEDY) == ["one?", "two?"]
        again = model_at(kind, server.url, tmp_path)
        assert again.respond([clip()], questions, GREEDY) == ["one?", "two?"]
        assert len(server.got) == 2
        assert "0 requests" in again.spent()
        assert "2 from the cache" in again.spent()
        again.respond([clip(1)], questions[:1], GREEDY)  # other sound
        again.respond([clip()], questions[:1], Decoding(max_new_tokens=9))
        assert len(server.got) == 4


def test_a_damaged_cache_is_asked_again(kind: str, tmp_path: Path) -> None:
    with serving(lambda got, _: Reply(ANSWERS[kind]("fine"))) as server:
        model_at(kind, server.url, tmp_path).respond([clip()], asked("one?"), GREEDY)
        (kept,) = (tmp_path / "responses").rglob("*.json")
        kept.write_text(kept.read_text()[:10])
        assert model_at(kind, server.url, tmp_path).respond([clip()], asked("one?"), GREEDY) == ["fine"]
        assert len(server.got) == 2


BAD_DAYS: dict[str, Reply] = {
    "too many requests": Reply({"error": {"message": "slow down"}}, 429, {"retry-after": "0.02"}),
    "an error of the server's": Reply("<html>oops</html>", 500),
    "overloaded": Reply({"error": {"message": "overloaded"}}, 503),
    "cut in the middle": Reply(chat_answer("never"), cut=30),
    "no byte of a body": Reply(chat_answer("never"), cut=0),
    "not JSON": Reply("{'text': "),
    "JSON of another form": Reply({"hello": 1}),
    "a list": Reply("[1, 2]"),
    "no choices": Reply({"choices": [], "candidates": []}),
    "not UTF-8": Reply(b"\xff\xfe{"),
}


@pytest.mark.parametrize("day", BAD_DAYS)
def test_a_bad_day_is_tried_again(kind: str, day: str, tmp_path: Path) -> None:
    with serving(lambda got, n: BAD_DAYS[day] if n == 0 else Reply(ANSWERS[kind]("at last"))) as server:
        model = model_at(kind, server.url, tmp_path)
        assert model.respond([clip()], asked("Who?"), GREEDY) == ["at last"]
    assert len(server.got) == 2
    assert "1 tries again" in model.spent()


@pytest.mark.parametrize("day", BAD_DAYS)
def test_a_day_that_stays_bad_fails_one_question_and_not_the_others(
    kind: str, day: str, tmp_path: Path
) -> None:
    def answer(got: Got, n: int) -> Reply:
        return BAD_DAYS[day] if text_of(got) == "bad?" else Reply(ANSWERS[kind]("good"))

    with serving(answer) as server:
        model = model_at(kind, server.url, tmp_path)
        found = model.respond([clip()], asked("a?", "bad?", "b?"), GREEDY)
    assert [found[0], found[2]] == ["good", "good"]
    assert isinstance(found[1], Failed)
    assert "gave up after 3 tries" in found[1].reason
    assert len(server.got) == 2 + QUICK.n_tries
    assert len(list((tmp_path / "responses").rglob("*.json"))) == 2  # what failed is asked again next time


def test_a_slow_stream_is_cut_off_at_the_deadline(kind: str, tmp_path: Path) -> None:
    limits = Limits(n_tries=2, first_wait=0.01, timeout_seconds=0.4)
    started = time.monotonic()
    with serving(lambda *_: Reply(ANSWERS[kind]("never " * 50), pause=0.05)) as server:
        (found,) = model_at(kind, server.url, tmp_path, limits).respond([clip()], asked("Who?"), GREEDY)
    assert isinstance(found, Failed)
    assert "not finished after 0.4 s" in found.reason
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("how", ["seconds", "a date"])
def test_a_server_that_says_how_long_to_wait_is_heard(how: str, tmp_path: Path) -> None:
    limits = Limits(n_tries=2, first_wait=0.001, longest_wait=3.0)
    until = formatdate(time.time() + 2, usegmt=True)  # whole seconds: more than one from now
    busy = Reply({"error": {"message": "busy"}}, 429, {"retry-after": "0.5" if how == "seconds" else until})
    started = time.monotonic()
    with serving(lambda _, n: busy if n == 0 else Reply(chat_answer("now"))) as server:
        assert model_at("http", server.url, tmp_path, limits).respond([clip()], asked("?"), GREEDY) == ["now"]
    assert time.monotonic() - started >= 0.5


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refused_request_is_not_tried_again(kind: str, status: int, tmp_path: Path) -> None:
    refused = Reply({"error": {"message": f"bad request with {KEY} in it"}}, status)
    with serving(lambda *_: refused) as server:
        (found,) = model_at(kind, server.url, tmp_path).respond([clip()], asked("Who?"), GREEDY)
    assert isinstance(found, Failed)
    assert f"refused the request: {status}: bad request with *** in it" in found.reason
    assert len(server.got) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_the_run_and_names_its_variable(kind: str, status: int, tmp_path: Path) -> None:
    variable = {"gemini": "GEMINI_API_KEY", "openai": "OPENAI_API_KEY", "http": "TGSR_API_KEY"}[kind]
    with (
        serving(lambda *_: Reply({"error": {"message": f"wrong key {KEY}"}}, status)) as server,
        pytest.raises(ModelError, match=variable) as raised,
    ):
        model_at(kind, server.url, tmp_path).respond([clip()], asked("Who?"), GREEDY)
    assert KEY not in str(raised.value)


def test_the_key_is_written_nowhere(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def answer(got: Got, n: int) -> Reply:
        failing = Reply({"error": {"message": f"your key {KEY} is fine, we are not"}}, 500)
        return failing if text_of(got) == "bad?" else Reply(ANSWERS[kind]("fine"))

    with serving(answer) as server:
        model = model_at(kind, server.url, tmp_path)
        found = model.respond([clip()], asked("a?", "bad?"), GREEDY)
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    for said in (written, caplog.text, repr(model), str(found), model.spent()):
        assert KEY not in said


def test_without_its_key_a_model_says_which_variable_it_wants(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY", "TGSR_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    for name, variable in (
        ("gemini:gemini-2.5-flash", "GEMINI_API_KEY"),
        ("openai:gpt-4o-audio-preview", "OPENAI_API_KEY"),
    ):
        with pytest.raises(ModelError, match=f"{variable} is not set"):
            load_remote(name, cache=tmp_path)
    with serving(lambda *_: Reply(chat_answer("no key is fine here"))) as server:
        load_remote(f"{server.url}/v1#mine", cache=tmp_path, limits=QUICK).respond(
            [clip()], asked("?"), GREEDY
        )
    assert "authorization" not in server.got[0].headers


def test_another_services_key_is_not_sent_to_any_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TGSR_API_KEY")
    with serving(lambda *_: Reply(chat_answer("fine"))) as server:
        model_at("http", server.url, tmp_path).respond([clip()], asked("?"), GREEDY)
    assert KEY not in str(server.got[0].headers)


@pytest.mark.parametrize(
    "name", ["gemini:", "openai:", "http://localhost:1/v1", "http://#x", "http://u:p@h/v1#m"]
)
def test_a_name_that_names_no_model_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        load_remote(name, cache=tmp_path)


# --- what a model says, and does not say ---------------------------------------------------------------------


def only(kind: str, reply: Any, tmp_path: Path) -> str | Failed:
    with serving(lambda *_: Reply(reply)) as server:
        return model_at(kind, server.url, tmp_path).respond([clip()], asked("Who?"), GREEDY)[0]


def test_an_empty_text_is_a_response_of_the_model(tmp_path: Path) -> None:
    assert only("http", chat_answer(""), tmp_path) == ""


def message(**fields: Any) -> Any:
    """A chat completion whose message has these fields and no other text."""
    reply = chat_answer(None)
    reply["choices"][0]["message"] |= fields
    return reply


def gemini_parts(parts: Any, finish: str | None = "STOP") -> Any:
    reply = gemini_answer(None)
    reply["candidates"][0] |= {"content": {"role": "model", "parts": parts}, "finishReason": finish}
    return reply


NO_ANSWERS: list[tuple[str, Any, str]] = [
    ("gemini", {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, "blocked: PROHIBITED_CONTENT"),
    ("gemini", gemini_answer(None, "MAX_TOKENS"), "no text: the server says MAX_TOKENS; --max-new-tokens"),
    ("gemini", gemini_answer(None), "no text: the server says STOP and sent none"),
    ("gemini", gemini_parts([]), "no text"),
    ("gemini", gemini_parts([{"text": ""}]), "no text"),
    ("gemini", gemini_parts([{"text": "I wonder", "thought": True}]), "no text"),
    ("gemini", gemini_parts([{"functionCall": {"name": "f", "args": {}}}]), "no text"),
    ("gemini", gemini_parts([{"text": "The speaker"}], None), "no finished answer: the server says not how"),
    *(
        ("gemini", gemini_answer(text, finish), f"the server says {finish}")
        for text in (None, "The speaker said")
        for finish in ("SAFETY", "RECITATION", "OTHER", "PROHIBITED_CONTENT", "MALFORMED_FUNCTION_CALL")
    ),
    *(
        (kind, chat_answer(text, finish), f"the server says {finish}")
        for kind in ("openai", "http")
        for text in (None, "The speaker said")
        for finish in (
            "content_filter",
            "abort",
            "tool_calls",
            "function_call",
            "error",
            "sensitive",
            "never seen",
        )
    ),
    ("http", chat_answer("", "length"), "no text: the server says length"),
    ("http", chat_answer(None, "length"), "no text: the server says length"),
    ("http", chat_answer(None), "no text: the server says stop and sent none"),
    ("http", message(content=[]), "no text"),
    ("http", message(tool_calls=[{"id": "1", "function": {"name": "f", "arguments": "{}"}}]), "no text"),
    *(
        ("http", message(content=text, **call), "the server says tool_calls")
        for text in ("", "Let me look.")
        for call in (
            {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
            {"function_call": {"name": "f", "arguments": "{}"}},
        )
    ),
    ("http", chat_answer("The speaker", None), "no finished answer: the server says not how"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("kind", "reply", "says"), NO_ANSWERS)
def test_no_finished_answer_is_counted_and_asked_again_by_the_next_call(
    kind: str, reply: Any, says: str, tmp_path: Path
) -> None:
    with serving(lambda _, n: Reply(reply if n == 0 else ANSWERS[kind]("(b)"))) as server:
        model = model_at(kind, server.url, tmp_path)
        (found,) = model.respond([clip()], asked("Who?"), GREEDY)
        assert isinstance(found, Failed)
        assert says in found.reason
        assert "1 came back without a finished answer" in model.spent()
        assert model_at(kind, server.url, tmp_path).respond([clip()], asked("Who?"), GREEDY) == ["(b)"]
        assert len(server.got) == 2


@pytest.mark.parametrize(
    ("kind", "reply", "text"),
    [
        ("http", chat_answer("From 1.2 s", "length"), "From 1.2 s"),
        ("gemini", gemini_answer("From 1.2 s", "MAX_TOKENS"), "From 1.2 s"),
        ("http", message(reasoning="From 1.2 s", content=None), "<think>\nFrom 1.2 s"),
    ],
)
def test_what_was_cut_at_the_limit_is_counted_and_not_kept(
    kind: str, reply: Any, text: str, tmp_path: Path
) -> None:
    if kind == "http":
        reply["choices"][0]["finish_reason"] = "length"
    with serving(lambda _, n: Reply(reply if n == 0 else ANSWERS[kind]("(b)"))) as server:
        model = model_at(kind, server.url, tmp_path)
        assert model.respond([clip()], asked("Who?"), GREEDY) == [text]
        assert "1 cut at the limit" in model.spent()
        assert model_at(kind, server.url, tmp_path).respond([clip()], asked("Who?"), GREEDY) == ["(b)"]


def test_answers_that_an_earlier_version_kept_are_asked_again(tmp_path: Path) -> None:
    with serving(lambda *_: Reply(chat_answer("(b)"))) as server:
        assert model_at("http", server.url, tmp_path).respond([clip()], asked("Who?"), GREEDY) == ["(b)"]
        (kept,) = (tmp_path / "responses").rglob("*.json")
        kept.write_text(json.dumps(json.loads(kept.read_text()) | {"text": "", "failed": "filtered"}))
        assert model_at("http", server.url, tmp_path).respond([clip()], asked("Who?"), GREEDY) == ["(b)"]
        assert len(server.got) == 2


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"content": "(b)", "reasoning_content": "From 1 s.\n"}, "<think>\nFrom 1 s.\n</think>\n\n(b)"),
        ({"content": "(b)", "reasoning": "From 1 s."}, "<think>\nFrom 1 s.\n</think>\n\n(b)"),
        ({"content": "(b)", "reasoning_content": None, "reasoning": ""}, "(b)"),
        ({"content": None, "reasoning_content": "From 1 s. (b)"}, "From 1 s. (b)"),
        ({"content": "", "reasoning_content": "From 1 s. (b)"}, "From 1 s. (b)"),
        ({"content": None, "audio": {"id": "a", "data": "AAAA", "transcript": "(b) one"}}, "(b) one"),
        ({"content": "(b)", "audio": None}, "(b)"),
        ({"content": [{"type": "text", "text": "(b)"}, {"type": "text", "text": " one"}]}, "(b) one"),
        ({"content": [{"type": "text", "text": None}, {"type": "output_text", "text": "(b)"}]}, "(b)"),
        ({"content": ["(b)", " one"]}, "(b) one"),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "From 1 s."}]},
                    {"type": "text", "text": "(b)"},
                ]
            },
            "<think>\nFrom 1 s.\n</think>\n\n(b)",
        ),
    ],
)
def test_all_that_the_model_wrote_is_read_wherever_the_server_puts_it(
    fields: dict[str, Any], text: str, tmp_path: Path
) -> None:
    assert only("http", message(**fields), tmp_path) == text


JUNK: list[Any] = [
    None,
    "",
    0,
    -1,
    1.5,
    True,
    [],
    {},
    "x",
    [None],
    [[]],
    ["a"],
    [{}],
    1e400,
    10**30,
    "\ud800",
]
JUNK += [[{"text": [1]}], [{"type": "thinking"}], {"message": None}]


def with_junk(body: Any) -> Iterator[Any]:
    """The body with each of its values, at any depth, replaced by each of JUNK, or missing."""
    children = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for key, value in list(children):
        for other in (*JUNK, *with_junk(value)):
            changed = body.copy()
            changed[key] = other
            yield changed
        changed = body.copy()
        del changed[key]
        yield changed


def test_whatever_stands_in_a_body_is_read_or_malformed() -> None:
    everything = message(content="a", reasoning="b", audio={"transcript": "c"}, tool_calls=[]) | {
        "error": None
    }
    parts = message(
        content=[{"type": "text", "text": "a"}, {"type": "thinking", "thinking": [{"text": "b"}]}]
    )
    n_read = 0
    for read, whole in ((read_chat, everything), (read_chat, parts), (read_gemini, gemini_answer("a"))):
        for body in with_junk(whole):
            status_within(body)
            try:
                found = read(body)
            except Malformed:
                continue
            n_read += 1
            assert isinstance(whole_text(found), str)
            assert all(isinstance(n, int) and n >= 0 for n in found["tokens"].values())
    assert n_read > 500


def test_a_judge_gets_the_reply_without_the_thoughts(tmp_path: Path) -> None:
    reply = message(content="1", reasoning_content="It may be 0.")
    with serving(lambda *_: Reply(reply)) as server:
        endpoint, model = chat_endpoint(f"{server.url}/v1#judge", cache=tmp_path, limits=QUICK)
        assert ServedLlm(endpoint, model).write("abc", GREEDY) == "1"


USAGES: list[Any] = [
    None,
    "unknown",
    [],
    {},
    {"prompt_tokens": None, "completion_tokens": None, "prompt_tokens_details": None},
    {"prompt_tokens": "many", "completion_tokens": "7.5x", "prompt_tokens_details": {"audio_tokens": "x"}},
    {"prompt_tokens": -5, "completion_tokens": -1, "prompt_tokens_details": {"audio_tokens": -3}},
    {"prompt_tokens": 1e400, "completion_tokens": True, "prompt_tokens_details": ["audio"]},
    {"prompt_tokens": {}, "completion_tokens": [], "prompt_tokens_details": {"audio_tokens": {}}},
]


@pytest.mark.parametrize("usage", USAGES)
def test_broken_usage_numbers_end_nothing(usage: Any, tmp_path: Path) -> None:
    as_gemini = usage
    if isinstance(usage, dict) and usage:
        as_gemini = {
            "promptTokenCount": usage["prompt_tokens"],
            "candidatesTokenCount": usage["completion_tokens"],
            "thoughtsTokenCount": None,
            "promptTokensDetails": [None, {"modality": "AUDIO", "tokenCount": usage["prompt_tokens"]}],
        }
    replies = {"http": chat_answer("(b)") | {"usage": usage}}
    replies["gemini"] = gemini_answer("(b)") | {"usageMetadata": as_gemini}
    for kind, reply in replies.items():
        with serving(lambda *_, reply=reply: Reply(reply)) as server:
            model = model_at(kind, server.url, tmp_path / kind)
            assert model.respond([clip()], asked("Who?"), GREEDY) == ["(b)"]
        assert "0 text and 0 audio in, 0 out" in model.spent()


def test_numbers_of_tokens_as_texts_and_fractions_are_read(tmp_path: Path) -> None:
    usage = {"prompt_tokens": "50", "completion_tokens": 7.0, "prompt_tokens_details": {"audio_tokens": 60}}
    with serving(lambda *_: Reply(chat_answer("(b)") | {"usage": usage})) as server:
        model = model_at("http", server.url, tmp_path)
        model.respond([clip()], asked("Who?"), GREEDY)
    assert "0 text and 60 audio in, 7 out" in model.spent()


# --- the end of the money, and errors inside a success ----------------------------------------------------------

OPENAI_QUOTA = {
    "error": {
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "type": "insufficient_quota",
        "param": None,
        "code": "insufficient_quota",
    }
}


def gemini_quota(quota: str) -> Any:
    failure = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota}]}
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.01s"}
    message = "You exceeded your current quota, please check your plan and billing details."
    about = {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": [failure, retry]}
    return {"error": about}


def gateway_error(code: int, message: str, **more: Any) -> Any:
    return {"error": {"code": code, "message": message, "metadata": more}}


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("openai", 429, OPENAI_QUOTA),
        ("http", 429, OPENAI_QUOTA),
        ("gemini", 429, gemini_quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier")),
        ("http", 402, gateway_error(402, "Insufficient credits. Add more.")),
        ("http", 200, gateway_error(402, "Insufficient credits. Add more.")),
        ("http", 429, gateway_error(429, "Rate limit exceeded: free-models-per-day")),
        ("http", 200, {"error": {"code": "insufficient_quota", "message": "pay"}}),
        (
            "http",
            200,
            {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
        ),
        ("http", 429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}),
        ("gemini", 402, {"error": {"message": "pay first"}}),
        (
            "openai",
            400,
            {"error": {"message": "Billing limit reached", "code": "billing_hard_limit_reached"}},
        ),
        ("http", 400, {"error": {"code": "Arrearage", "message": "Access denied, see your account."}}),
        (
            "http",
            403,
            {"error": {"code": "AllocationQuota.FreeTierOnly", "message": "The free tier is over."}},
        ),
        ("http", 400, {"type": "error", "error": {"message": "Your credit balance is too low to go on."}}),
        ("http", 200, gateway_error(403, "insufficient_quota")),
    ],
)
def test_an_exhausted_quota_ends_the_run_with_its_first_reply(
    kind: str, status: int, body: Any, tmp_path: Path
) -> None:
    limits = Limits(at_once=1, n_tries=3, first_wait=0.01)
    with serving(lambda *_: Reply(body, status)) as server:
        model = model_at(kind, server.url, tmp_path, limits)
        with pytest.raises(ModelError, match=r"used up.*goes on where it stopped"):
            model.respond([clip()], asked("a?", "b?", "c?"), GREEDY)
    assert len(server.got) == 1


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("gemini", 429, gemini_quota("GenerateContentInputTokensPerModelPerMinute-FreeTier")),
        (
            "http",
            429,
            {"error": {"message": "Rate limit reached on tokens per min (TPM)", "code": "rate_limit"}},
        ),
        ("http", 200, gateway_error(429, "Provider returned error", raw="slow down")),
        ("http", 200, gateway_error(502, "Provider returned error")),
        ("http", 200, {"error": "upstream connect error"}),
        ("http", 200, {"error_code": 18, "error_msg": "Open api qps request limit reached"}),
        ("http", 200, {"detail": "the model is loading"}),
        ("http", 200, {"object": "error", "message": "engine is dead", "code": 500}),
        (
            "http",
            200,
            {
                "choices": [
                    {
                        "message": {"role": "assistant", "content": "The spea"},
                        "finish_reason": "error",
                        "error": {"code": 502, "message": "Provider disconnected"},
                    }
                ]
            },
        ),
        ("gemini", 200, [{"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}]),
        ("http", 200, "<!DOCTYPE html><title>502 Bad Gateway</title>"),
        ("http", 200, json.dumps(chat_answer("The speaker said so"))[:-40]),
        ("http", 200, ""),
    ],
)
def test_what_may_pass_is_tried_again_whatever_status_it_came_with(
    kind: str, status: int, body: Any, tmp_path: Path
) -> None:
    bad = Reply(json.dumps(body) if isinstance(body, list) else body, status)
    with serving(lambda _, n: bad if n == 0 else Reply(ANSWERS[kind]("at last"))) as server:
        model = model_at(kind, server.url, tmp_path)
        assert model.respond([clip()], asked("Who?"), GREEDY) == ["at last"]
    assert len(server.got) == 2


def test_an_address_that_points_elsewhere_says_where(tmp_path: Path) -> None:
    moved = Reply("", 301, {"location": "https://elsewhere/v1"})
    with serving(lambda *_: moved) as server:
        (found,) = model_at("http", server.url, tmp_path).respond([clip()], asked("What?"), GREEDY)
    assert isinstance(found, Failed)
    assert "301: it points to https://elsewhere/v1; give the server's own address" in found.reason


def test_a_refusal_that_repeats_a_question_about_credit_costs_the_question(tmp_path: Path) -> None:
    repeated = {"error": {"message": "cannot be parsed"}, "request": "He says: insufficient credits"}
    with serving(lambda *_: Reply(repeated, 400)) as server:
        (found,) = model_at("http", server.url, tmp_path).respond([clip()], asked("What?"), GREEDY)
    assert isinstance(found, Failed)


def test_an_error_inside_a_success_is_told_with_what_the_gateway_heard(tmp_path: Path) -> None:
    found = only("http", gateway_error(400, "Provider returned error", raw="audio too long"), tmp_path)
    assert isinstance(found, Failed)
    assert "refused the request: 400: Provider returned error: audio too long" in found.reason


def test_a_flagged_question_fails_alone(tmp_path: Path) -> None:
    flagged = gateway_error(403, "Your chosen model requires moderation", reasons=["x"], flagged_input="...")

    def answer(got: Got, _: int) -> Reply:
        return Reply(flagged, 403) if text_of(got) == "bad?" else Reply(chat_answer("(b)"))

    with serving(answer) as server:
        found = model_at("http", server.url, tmp_path).respond([clip()], asked("bad?", "good?"), GREEDY)
    assert isinstance(found[0], Failed)
    assert found[1] == "(b)"


@pytest.mark.parametrize(
    ("model", "is_told_not_to_think"),
    [
        ("gemini-2.5-flash", True),
        ("gemini-2.5-flash-lite", True),
        ("gemini-2.5-flash-preview-09-2025", True),
        ("gemini-2.5-flash-native-audio-latest", False),
        ("gemini-2.5-flash-image", False),
        ("gemini-2.5-pro", False),
        ("gemini-2.0-flash", False),
        ("gemini-2.0-flash-lite", False),
        ("gemini-1.5-flash", False),
        ("gemini-3-flash-preview", False),
        ("gemini-flash-latest", False),
    ],
)
def test_only_models_that_have_a_budget_of_none_are_told_not_to_think(
    model: str, is_told_not_to_think: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(lambda *_: Reply(gemini_answer("(b)"))) as server:
        monkeypatch.setenv("GEMINI_BASE_URL", server.url)
        load_remote(f"gemini:{model}", cache=tmp_path, limits=QUICK).respond([clip()], asked("?"), GREEDY)
    assert ("thinkingConfig" in server.got[0].body["generationConfig"]) == is_told_not_to_think


def test_a_refusal_is_what_the_model_says(tmp_path: Path) -> None:
    reply = chat_answer(None)
    reply["choices"][0]["message"]["refusal"] = "I can't identify speakers."
    assert only("openai", reply, tmp_path) == "I can't identify speakers."
    in_parts = message(content=[{"type": "refusal", "refusal": "I can't help."}])
    assert only("http", in_parts, tmp_path) == "I can't help."


def test_tokens_and_money_are_counted(tmp_path: Path) -> None:
    with serving(lambda *_: Reply(gemini_answer("four"))) as server:
        model = model_at("gemini", server.url, tmp_path)
        model.respond([clip()], asked("a?", "b?"), GREEDY)
    assert "52 text and 128 audio in, 12 out" in model.spent()
    dollars = (52 * 0.30 + 128 * 1.00 + 12 * 2.50) / 1e6
    assert f"{dollars:.4f} US dollars" in model.spent()
    with serving(lambda *_: Reply(chat_answer("four"))) as server:
        other = model_at("http", server.url, tmp_path)
        other.respond([clip()], asked("a?"), GREEDY)
    assert "50 text and 20 audio in, 7 out" in other.spent()
    assert "dollars" not in other.spent()


# --- how many, how fast ---------------------------------------------------------------------------------------


def test_no_more_requests_at_once_than_allowed(tmp_path: Path) -> None:
    def slowly(*_: object) -> Reply:
        time.sleep(0.1)
        return Reply(chat_answer("x"))

    questions = asked(*(f"{i}?" for i in range(9)))
    with serving(slowly) as server:
        model = model_at("http", server.url, tmp_path, Limits(at_once=3))
        model.respond([clip()], questions, GREEDY)
    assert server.most_at_once == 3


def test_no_faster_than_allowed(tmp_path: Path) -> None:
    with serving(lambda *_: Reply(chat_answer("x"))) as server:
        model = model_at("http", server.url, tmp_path, Limits(requests_per_minute=600))
        started = time.monotonic()
        model.respond([clip()], asked(*(f"{i}?" for i in range(6))), GREEDY)
    assert time.monotonic() - started >= 0.5  # five gaps of 0.1 s


@pytest.mark.parametrize("limits", [{"at_once": 0}, {"n_tries": 0}, {"requests_per_minute": 0.0}])
def test_limits_that_cannot_be_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="must be"):
        Limits(**limits)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_longest_clip_that_cannot_be_is_refused(seconds: float) -> None:
    with pytest.raises(OptionError, match="--max-seconds"):
        Limits(max_seconds=seconds)


@pytest.mark.parametrize(
    ("model", "seconds"),
    [
        ("Qwen/Qwen2-Audio-7B-Instruct", 30),
        ("Qwen2.5-Omni-7B", 300),
        ("qwen2_5_omni", 300),
        ("Qwen/Qwen3-Omni-30B-A3B-Thinking", 300),
        ("nvidia/audio-flamingo-3-hf", 600),
        ("nvidia/music-flamingo-hf", 1200),
        ("nvidia/audio-flamingo-next-hf", 1800),
        ("mistralai/Voxtral-Mini-3B-2507", 2400),
        ("google/gemma-3n-E4B-it", 30),
        ("whatever", 30),
    ],
)
def test_how_long_a_clip_a_served_model_hears_is_known_by_family_or_asked(
    model: str, seconds: float, tmp_path: Path
) -> None:
    name = f"http://localhost:1/v1#{model}"
    assert load_remote(name, cache=tmp_path).max_seconds == seconds
    assert load_remote(name, cache=tmp_path, limits=Limits(max_seconds=90.0)).max_seconds == 90


def test_a_clip_longer_than_a_served_model_is_known_to_hear_names_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TGSR_CACHE", str(tmp_path / "cache"))
    save_wav(tmp_path / "long.wav", clip(seconds=31.0))
    save_wav(tmp_path / "short.wav", clip())
    questions = [
        Question(name, name, f"{name}.wav", seconds, "choice", f"{name}?", "one", ("one", "two"))
        for name, seconds in (("long", 31.0), ("short", 0.5))
    ]
    write_jsonl(tmp_path / "q.jsonl", questions)
    with serving(lambda *_: Reply(chat_answer("(a) one"))) as server:
        command = ["predict", "--questions", str(tmp_path / "q.jsonl"), "--model", f"{server.url}/v1#mine"]
        command += ["--out", str(tmp_path / "p.jsonl")]
        assert cli.main(command) == 0
        assert [r.question.id for r in read_responses(tmp_path / "p.jsonl")] == ["short"]
        (row,) = (tmp_path / "p.jsonl.errors.jsonl").read_text().splitlines()
        assert "hears 30 s, the audio lasts 31.00 s: nobody has said" in row
        assert "--max-seconds" in row
        assert cli.main([*command, "--max-seconds", "60"]) == 0
    assert {r.question.id for r in read_responses(tmp_path / "p.jsonl")} == {"short", "long"}


def test_ask_names_the_flag_too_and_says_what_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TGSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    save_wav(tmp_path / "long.wav", clip(seconds=31.0))
    with serving(lambda *_: Reply(chat_answer("From 1 s to 2 s", "length"))) as server:
        command = ["ask", "long.wav", "Who?", "--model", f"{server.url}/v1#mine"]
        assert cli.main(command) == 2
        assert "--max-seconds" in capsys.readouterr().err
        assert cli.main([*command, "--start", "3"]) == 0
    told = capsys.readouterr().out
    assert "From 4 s to 5 s" in told
    assert "was cut off" in told


def test_a_served_omni_is_asked_with_the_system_turn_of_a_local_one(tmp_path: Path) -> None:
    with serving(lambda *_: Reply(chat_answer("(a)"))) as server:
        name = f"{server.url}/v1#Qwen/Qwen2.5-Omni-7B"
        for system in (None, "", "Be brief."):
            model = open_model(name, tmp_path, limits=QUICK, system=system)
            assert isinstance(model, Remote)
            model.respond([clip()], asked("Who?"), GREEDY)
    turns = [got.body["messages"][:-1] for got in server.got]
    assert turns[0] == [{"role": "system", "content": QWEN_SYSTEM}]
    assert turns[1] == []
    assert turns[2] == [{"role": "system", "content": "Be brief."}]


@pytest.mark.parametrize("url", ["http://localhost:1/v1", None])
def test_openai_names_behind_another_address_are_those_of_their_family(
    url: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    if url is not None:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
    served = load_remote("openai:Qwen/Qwen2.5-Omni-7B", cache=tmp_path)
    assert (served.max_seconds == 300, served.system) == ((True, QWEN_SYSTEM) if url else (False, None))
    theirs = load_remote("openai:gpt-4o-audio-preview", cache=tmp_path)
    assert (theirs.max_seconds, theirs.system) == (437.5, None)


def test_gemini_gets_the_system_turn_in_its_own_field(tmp_path: Path) -> None:
    with serving(lambda *_: Reply(gemini_answer("(a)"))) as server:
        model = model_at("gemini", server.url, tmp_path)
        model.respond([clip()], asked("Who?"), GREEDY)
        model.system = "Be brief."
        model.respond([clip()], asked("Who?"), GREEDY)
    assert "systemInstruction" not in server.got[0].body
    assert server.got[1].body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}


def test_a_record_says_that_a_served_response_was_cut_and_how_it_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TGSR_CACHE", str(tmp_path / "cache"))
    save_wav(tmp_path / "a.wav", clip())
    questions = [
        Question(name, "a", "a.wav", 0.5, "choice", f"{name}?", "one", ("one", "two"))
        for name in ("long", "short")
    ]
    write_jsonl(tmp_path / "q.jsonl", questions)

    def answer(got: Got, _: int) -> Reply:
        is_long = "long?" in text_of(got)
        return Reply(chat_answer("From 1.2 s" if is_long else "(a) one", "length" if is_long else "stop"))

    with serving(answer) as server:
        command = ["predict", "--questions", str(tmp_path / "q.jsonl"), "--model", f"{server.url}/v1#m"]
        assert cli.main([*command, "--system", "Be brief.", "--out", str(tmp_path / "p.jsonl")]) == 0
    found = {r.question.id: r for r in read_responses(tmp_path / "p.jsonl")}
    assert (found["long"].truncated, found["short"].truncated) == (True, False)
    assert {r.system for r in found.values()} == {"Be brief."}


def gemini_at(url: str, folder: Path, inline_bytes: int) -> Gemini:
    model = model_at("gemini", url, folder)
    assert isinstance(model, Gemini)
    model.inline_bytes = inline_bytes
    return model


# --- long sound is uploaded -------------------------------------------------------------------------------------


def test_sound_too_long_for_a_request_is_uploaded_once(tmp_path: Path) -> None:
    states = iter(["PROCESSING", "PROCESSING", "ACTIVE"])

    def answer(got: Got, _: int) -> Reply:
        file = {"name": "files/abc", "uri": "https://files/abc", "mimeType": "audio/wav"}
        if got.headers.get("x-goog-upload-command") == "start":
            assert got.headers["x-goog-upload-header-content-length"] == str(44 + 2 * len(clip()))
            return Reply({}, headers={"x-goog-upload-url": f"{server.url}/put-it-here"})
        if got.path == "/put-it-here":
            assert got.headers["x-goog-upload-command"] == "upload, finalize"
            assert got.raw[:4] == b"RIFF"
            return Reply({"file": file | {"state": next(states)}})
        if got.path == "/v1beta/files/abc":
            return Reply(file | {"state": next(states)})
        assert got.body["contents"][0]["parts"][0] == {
            "file_data": {"mime_type": "audio/wav", "file_uri": "https://files/abc"}
        }
        return Reply(gemini_answer(text_of(got)))

    with serving(answer) as server:
        model = gemini_at(server.url, tmp_path, inline_bytes=1000)
        assert model.respond([clip()], asked("a?", "b?"), GREEDY) == ["a?", "b?"]
        assert sum(got.path.startswith("/upload/") for got in server.got) == 1
        n = len(server.got)
        again = gemini_at(server.url, tmp_path, inline_bytes=1000)
        assert again.respond([clip()], asked("a?"), GREEDY) == ["a?"]
        assert len(server.got) == n  # from the cache: nothing is uploaded


def test_an_upload_that_fails_fails_its_questions_only(tmp_path: Path) -> None:
    refused = Reply({"error": {"message": "too big"}}, 413)
    with serving(lambda got, _: refused if "upload" in got.path else Reply(gemini_answer("ok"))) as server:
        model = gemini_at(server.url, tmp_path, inline_bytes=44 + 2 * 8000)
        questions = [ClipQuestion(0, "short?", ""), ClipQuestion(1, "long?", "")]
        found = model.respond([clip(), clip(1, 2.0)], questions, GREEDY)
    assert found[0] == "ok"
    assert isinstance(found[1], Failed)
    assert "too big" in found[1].reason


# --- text, and the whole command --------------------------------------------------------------------------------


def test_text_is_asked_of_any_compatible_server(tmp_path: Path) -> None:
    with serving(lambda got, _: Reply(chat_answer(got.body["messages"][0]["content"][::-1]))) as server:
        endpoint, model = chat_endpoint(f"{server.url}/v1#judge", cache=tmp_path, limits=QUICK)
        assert ServedLlm(endpoint, model).write("abc", GREEDY) == "cba"
        assert ServedLlm(endpoint, model).write("abc", GREEDY) == "cba"
        assert len(server.got) == 1
        assert server.got[0].body["model"] == "judge"


def test_predict_asks_a_server_and_goes_on_past_a_bad_item(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TGSR_CACHE", str(tmp_path / "cache"))
    save_wav(tmp_path / "a.wav", clip())
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    questions = [
        Question(name, audio, f"{audio}.wav", 0.5, "choice", f"{name}?", "one", ("one", "two"))
        for name, audio in (("q1", "a"), ("q2", "broken"), ("refused", "a"), ("q3", "a"))
    ]
    write_jsonl(tmp_path / "q.jsonl", questions)

    def answer(got: Got, _: int) -> Reply:
        return (
            Reply({"error": {"message": "no"}}, 400)
            if "refused?" in text_of(got)
            else Reply(chat_answer("(a) one"))
        )

    with serving(answer) as server:
        command = ["predict", "--questions", str(tmp_path / "q.jsonl"), "--model", f"{server.url}/v1#m"]
        assert cli.main([*command, "--out", str(tmp_path / "p.jsonl")]) == 0
    assert {r.question.id for r in read_responses(tmp_path / "p.jsonl")} == {"q1", "q3"}
    errors = [json.loads(line) for line in (tmp_path / "p.jsonl.errors.jsonl").read_text().splitlines()]
    assert {row["id"] for row in errors} == {"q2", "refused"}
    said = capsys.readouterr().out
    assert "2 responses, 2 left without" in said
    assert "3 requests" in said
    assert cli.main(["score", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "m.json")]) == 0


def test_a_key_that_cannot_stand_in_a_header_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abc\u2026")
    with pytest.raises(ModelError, match="OPENAI_API_KEY: holds characters") as found:
        load_remote("openai:gpt-4o-audio-preview", cache=tmp_path, limits=Limits())
    assert "sk-abc" not in str(found.value)


def test_a_url_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no URL"):
        load_remote("http://[::1/v1#m", cache=tmp_path, limits=Limits())


@pytest.mark.parametrize(
    "numbers", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"max_new_tokens": 0}]
)
def test_numbers_that_no_sampling_has_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"--{next(iter(numbers)).replace('_', '-')}"):
        Decoding(**numbers)

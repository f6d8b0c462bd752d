"""The cascade: what it answers from, how a long recording fits, and the whole of it with real weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from local_server import Reply, chat_answer, serving
from tgsr.answering.cascade import NOT_SAID, Hearing, found, load_cascade, nearest_of, transcript_prompt
from tgsr.answering.responder import ClipQuestion
from tgsr.audio import SAMPLE_RATE, content_hash, load, save_wav
from tgsr.choices import official_letter
from tgsr.data.transcribe.transcript import lines_of
from tgsr.data.transcribe.whisper import HEARING, SOURCE, Transcript
from tgsr.errors import ModelError
from tgsr.grounding import find_spans
from tgsr.llm.decoding import GREEDY, Failed
from tgsr.llm.endpoint import Limits
from tgsr.models.packaged_weights import cache_folder
from tgsr.prompts import REASONING_OPENING
from tgsr.timeline import Span, Word
from tiny import omni_tokenizer

SAID = (
    "Welcome to the meeting. The budget was cut by ten percent in March. Anna will write the report. "
    "Lunch is at noon in the garden. Thank you all for coming."
)


def said(text: str = SAID) -> Transcript:
    """Half a second a word, a second and a half between sentences."""
    found, start = [], 1.0
    for word in text.split():
        found.append(Word(word, start, start + 0.4, None, SOURCE, 0.9))
        start += 1.5 if word.endswith(".") else 0.5
    return Transcript(tuple(found), start + 1, SOURCE)


def keep(cache: Path, samples: np.ndarray, transcript: Transcript) -> None:
    """A transcript where the cascade looks for it: these tests are about what comes after Whisper."""
    import json

    from tgsr.audio import content_hash

    path = cache / "transcripts" / HEARING / f"{content_hash(samples)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    words = [[w.text, w.start, w.end, w.confidence] for w in transcript.words]
    path.write_text(json.dumps({"duration": transcript.duration, "words": words, "holes": []}))


@pytest.fixture
def clip(tmp_path: Path) -> np.ndarray:
    samples = np.zeros(SAMPLE_RATE, np.float32)
    keep(tmp_path, samples, said())
    return samples


def require(name: str) -> None:
    if not (cache_folder() / name).exists():
        pytest.skip(f"{cache_folder() / name} is not there: `make fetch` downloads it, once")


def test_a_phrase_is_located_by_its_words() -> None:
    assert found("the budget was cut", said().words) == Span(4.0, 5.9)
    assert found("football results", said().words) is None
    assert found("anything", ()) is None


def test_a_long_transcript_keeps_the_lines_that_share_most() -> None:
    lines = lines_of(said(f"{'Nothing of interest happens in this sentence. ' * 500} {SAID}").words)
    prompt = transcript_prompt(
        lines, ClipQuestion(0, "When is the budget cut?", "When is the budget cut?"), 2000
    )
    assert "budget was cut by ten percent" in prompt
    assert "lines are left out" in prompt
    assert len(prompt) < 3500


def test_a_server_gets_the_timed_transcript_and_its_citations_are_checked(
    tmp_path: Path, clip: np.ndarray
) -> None:
    written = (
        f"{REASONING_OPENING}\n"
        'From 4.00s to 9.00s, the speaker says "the budget was cut by ten percent in March".\n'
        'From 1.00s to 2.00s, the speaker says "the moon is made of cheese".\nFinal answer: (b) the budget'
    )
    with serving(lambda *_: Reply(chat_answer(written))) as server:
        cascade = load_cascade(f"cascade:{server.url}/v1#big", cache=tmp_path)
        question = ClipQuestion(
            0, "What was cut?\n(a) lunch\n(b) the budget", "What was cut?", ("lunch", "the budget")
        )
        (text,) = cascade.respond([clip], [question], GREEDY)
    sent = server.got[0].body["messages"][0]["content"]
    assert "[4.00s - 8.40s] The budget was cut by ten percent in March." in sent
    assert "What was cut?\n(a) lunch" in sent
    assert isinstance(text, str)
    assert official_letter(text) == "b"
    assert text.count("(not supported by the transcript") == 1
    assert "(not supported by the transcript: what is cited at 1 s" in text


def test_a_server_that_fails_fails_the_question(tmp_path: Path, clip: np.ndarray) -> None:
    with serving(lambda *_: Reply({"error": {"message": "no such model"}}, 404)) as server:
        cascade = load_cascade(f"cascade:{server.url}/v1#x", cache=tmp_path, limits=Limits(n_tries=1))
        (found,) = cascade.respond([clip], [ClipQuestion(0, "?", "?")], GREEDY)
    assert isinstance(found, Failed)
    assert "no such model" in found.reason


def test_where_nobody_speaks_nothing_is_cited(tmp_path: Path) -> None:
    samples = np.ones(SAMPLE_RATE, np.float32)
    keep(tmp_path, samples, Transcript((), 1.0, SOURCE))
    with serving(lambda *_: Reply(chat_answer("never asked"))) as server:
        cascade = load_cascade(f"cascade:{server.url}/v1#x", cache=tmp_path)
        (text,) = cascade.respond([samples], [ClipQuestion(0, "?", "?")], GREEDY)
    assert server.got == []
    assert isinstance(text, str)
    assert NOT_SAID in text
    assert find_spans(text) == []


def test_any_local_chat_model_writes_the_response_itself(tmp_path: Path, clip: np.ndarray) -> None:
    tokenizer = omni_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
    )
    LlamaForCausalLM(config).save_pretrained(str(tmp_path / "llm"))
    tokenizer.save_pretrained(str(tmp_path / "llm"))
    cascade = load_cascade(f"cascade:{tmp_path / 'llm'}", cache=tmp_path)
    (text,) = cascade.respond([clip], [ClipQuestion(0, "What was cut?", "What was cut?")], GREEDY)
    assert isinstance(text, str)
    with pytest.raises(ModelError, match="cannot be loaded as a text model"):
        load_cascade(f"cascade:{tmp_path / 'nothing'}", cache=tmp_path)
    weights = load_file(tmp_path / "llm" / "model.safetensors")
    save_file(
        {name: weight for name, weight in weights.items() if "mlp.up" not in name},
        tmp_path / "llm" / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ModelError, match="1 of the model's weights are missing"):
        load_cascade(f"cascade:{tmp_path / 'llm'}", cache=tmp_path)


def two_speakers() -> Transcript:
    """Anna on the left says when the budget was cut, Bob on the right says the same of lunch."""
    words = [
        replace(word, speaker=who)
        for start, who, text in (
            (1.0, "CH1", "The budget was cut in March."),
            (1.2, "CH2", "Lunch is at noon in March."),
        )
        for n, spoken in enumerate(text.split())
        for word in [Word(spoken, start + n, start + n + 0.9, None, SOURCE, 0.9)]
    ]
    return Transcript(tuple(words), 20.0, SOURCE, "en")


@pytest.mark.parametrize(
    ("question", "sent", "not_sent"),
    [
        ("What is said in the left channel about March?", "CH1: The budget was cut", "Lunch"),
        ("What does channel 2 say?", "CH2: Lunch is at noon", "budget"),
        ("What is in March?", "CH1: The budget was cut", "nothing"),
    ],
)
def test_an_llm_reads_the_lines_of_the_speakers_that_a_question_names(
    question: str, sent: str, not_sent: str, tmp_path: Path
) -> None:
    samples = np.full(SAMPLE_RATE, 0.5, np.float32)
    with serving(lambda *_: Reply(chat_answer("Final answer: March"))) as server:
        cascade = load_cascade(f"cascade:{server.url}/v1#big", cache=tmp_path)
        cascade.keep(content_hash(samples), two_speakers())
        cascade.respond([samples], [ClipQuestion(0, question, question)], GREEDY)
        (failed,) = cascade.respond([samples], [ClipQuestion(0, "", "What does speaker D say?")], GREEDY)
    assert len(server.got) == 1
    content = server.got[0].body["messages"][0]["content"]
    assert sent in content
    assert not_sent not in content
    assert isinstance(failed, Failed)
    assert "who speaks here: CH1, CH2" in failed.reason


def test_notes_say_whose_lines_were_looked_at_and_what_language_was_heard(tmp_path: Path) -> None:
    samples = np.full(SAMPLE_RATE, 0.5, np.float32)
    cascade = load_cascade("cascade", cache=tmp_path)
    cascade.keep(content_hash(samples), two_speakers())
    assert cascade.notes("Why?", cascade.spoken(samples)) == []
    assert cascade.notes("What does CH2 say?", cascade.spoken(samples)) == [
        "only what CH2 says was looked at"
    ]
    other = np.full(SAMPLE_RATE, 0.25, np.float32)
    french = replace(said("Le budget est voté en mars."), language="fr")
    cascade.keep(content_hash(other), french)
    detected, english_only = cascade.notes("Why?", cascade.spoken(other))
    assert "--language fr" in detected
    assert "know English alone" in english_only
    (unknown, *_) = cascade.notes("What does speaker B say?", cascade.spoken(other))
    assert "--speakers FILE.rttm" in unknown
    cascade.hearing = Hearing("fr")
    cascade.keep(content_hash(other), french)
    assert cascade.notes("Why?", cascade.spoken(other)) == [english_only]


def test_turns_from_elsewhere_name_the_speakers_of_a_stretch(tmp_path: Path) -> None:
    path, turns = tmp_path / "call.wav", tmp_path / "call.rttm"
    save_wav(path, np.full(20 * SAMPLE_RATE, 0.1, np.float32))
    turns.write_text("SPEAKER call 1 0 7 <NA> <NA> B <NA> <NA>\nSPEAKER call 1 7 13 <NA> <NA> A <NA> <NA>\n")
    cascade = load_cascade("cascade", cache=tmp_path)
    cascade.hearing = Hearing(turns=turns)
    samples = load(path, start=4.0)
    cascade.keep(content_hash(samples), said())
    spoken = cascade.hear(path, samples, 4.0)
    assert spoken.speakers == ("B", "A")
    assert [word.speaker for word in spoken.transcript.words if word.start < 2.5] == ["B"] * 3
    assert {word.speaker for word in spoken.transcript.words if 4 < word.start < 15} == {"A"}


# --- real weights ------------------------------------------------------------------------------------------------


def test_a_question_in_french_is_answered_in_french(tmp_path: Path) -> None:
    require("all-minilm-l6-v2")
    answers = {
        "De quoi a parlé Pierre ?": "Ensuite, Pierre a parlé de la météo.",
        "À quelle heure commence la réunion ?": "La réunion commence à dix heures dans la salle bleue.",
        "Que veut le directeur ?": "Le directeur a demandé plus d'argent pour les écoles.",
        "Quel temps fera-t-il demain ?": "Il va pleuvoir demain à Paris.",
    }
    french = said(
        "Bonjour à tous. La réunion commence à dix heures dans la salle bleue. Le directeur a demandé plus d'argent "
        "pour les écoles. Ensuite, Pierre a parlé de la météo. Il va pleuvoir demain à Paris. Merci et au revoir."
    )
    samples = np.full(SAMPLE_RATE, 0.5, np.float32)
    cascade = load_cascade("cascade", cache=tmp_path)
    cascade.keep(content_hash(samples), replace(french, language="fr"))
    texts = cascade.respond([samples], [ClipQuestion(0, "", question) for question in answers], GREEDY)
    quoted = [str(text).partition("Final answer: ")[2] for text in texts]
    assert quoted == [f'"{answer}"' for answer in answers.values()]


def test_elsewhere_than_in_english_more_is_asked_of_what_answers(tmp_path: Path) -> None:
    require("all-minilm-l6-v2")
    german = said(
        "Guten Tag und willkommen zur Sitzung. Der neue Spielplatz wird im Oktober eröffnet. Frau Berger leitet seit "
        "Januar die Schule. Die Reparatur der Brücke dauert noch drei Wochen. Am Sonntag ist der Markt geschlossen. "
        "Mein Bruder arbeitet in einer Bäckerei in Köln. Wegen des Sturms fielen gestern alle Fähren aus. Die Karten "
        "kosten zwölf Euro."
    )
    samples, asked = np.full(SAMPLE_RATE, 0.5, np.float32), ClipQuestion(0, "", "Wer hat die Brücke gebaut?")
    cascade = load_cascade("cascade", cache=tmp_path)
    for language, is_declined in (("de", True), ("en", False)):
        cascade.keep(content_hash(samples), replace(german, language=language))
        (text,) = cascade.respond([samples], [asked], GREEDY)
        assert str(text).endswith(NOT_SAID) == is_declined


def test_the_packaged_model_finds_the_line_that_answers(tmp_path: Path, clip: np.ndarray) -> None:
    require("smollm2-135m-instruct")
    require("all-minilm-l6-v2")
    cascade = load_cascade("cascade", cache=tmp_path)
    asked = [
        ClipQuestion(0, "", "When is the budget mentioned?"),
        ClipQuestion(0, "", "What will Anna do?"),
        ClipQuestion(0, "", "Where is lunch?", ("in the kitchen", "in the garden", "in Paris")),
        ClipQuestion(0, "", "What is the capital of France?"),
    ]
    when, what, where, nothing = map(str, cascade.respond([clip], asked, GREEDY))
    assert when.endswith("Final answer: at 4.00 s")
    assert what.endswith('Final answer: "Anna will write the report."')
    assert where.endswith("in the garden (b)")
    assert official_letter(where) == "b"
    assert nothing.endswith(NOT_SAID)
    assert find_spans(nothing) == []
    at, quote = nearest_of(nothing) or (0.0, "")
    assert any(word.start == at for word in said().words)
    assert quote in SAID
    for text in (when, what, where):
        assert text.startswith(REASONING_OPENING)
        assert "not supported" not in text
        assert find_spans(text)
    assert "nothing is concluded" in cascade.limits

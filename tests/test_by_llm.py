"""Questions that an LLM writes: only those whose quote was said are kept, and nothing it writes stops a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_server import Got, Reply, chat_answer, serving
from test_answerable_by_text import save_tiny_llm
from tgsr.data.questions.build import rows_of
from tgsr.data.questions.by_llm import (
    MOST_KEPT,
    TASK,
    LlmDraft,
    Open,
    Refused,
    _stretch,
    draft_of,
    drafts_in,
    open_questions_of,
    prompt_of,
    questions_in,
    spans_of,
)
from tgsr.data.questions.draft import Draft
from tgsr.data.shards import Step, errors_of, run
from tgsr.data.splits import Split
from tgsr.errors import OptionError
from tgsr.records import NO_SPEECH, Clip, as_row, read_questions
from tgsr.timeline import Span, Word

SAID = "We meet on Tuesday. Bring the red folder, please. The train leaves at noon. Bring the tickets too."
GOOD = {
    "question": "Which folder is wanted?",
    "answer": "the red one",
    "wrong": ["the blue one", "the green one", "the old one"],
    "quote": "bring the red folder",
}


def spoken(text: str = SAID, id_: str = "c") -> Clip:
    """Half a second a word: the word at index i is said from i / 2 to i / 2 + 0.4."""
    words = tuple(Word(word, i / 2, i / 2 + 0.4, None, "exact", 0.9) for i, word in enumerate(text.split()))
    return Clip(id_, f"{id_}.wav", max(1.0, len(words) / 2), words)


CLIP = spoken()
SETTINGS = Open("nobody", Path("nowhere"))


def written(**changed: object) -> str:
    return json.dumps({**GOOD, **changed})


def reason(**changed: object) -> str | None:
    """Why the good draft is refused after that change; None where it is kept."""
    kept, refused = questions_in(written(**changed), CLIP, SETTINGS)
    assert len(kept) + len(refused) == 1
    return refused[0].reason if refused else None


# --- the parser --------------------------------------------------------------------------------------------------


def test_objects_are_found_between_words_fences_and_over_several_lines() -> None:
    text = f"Sure, here they are:\n```json\n1. {written()},\n{json.dumps(GOOD, indent=2)}\n```\nGood luck!"
    found = drafts_in(text)
    assert [type(one) for one in found] == [LlmDraft, LlmDraft]
    assert isinstance(found[0], LlmDraft)
    assert (found[0].question, found[0].answer) == (GOOD["question"], GOOD["answer"])
    assert found[0].wrong == ("the blue one", "the green one", "the old one")


def test_a_broken_line_does_not_take_the_next_one_with_it() -> None:
    found = drafts_in(f'{{"question": "What\n{written()}\n{written()[:40]}')
    assert [type(one) for one in found] == [Refused, LlmDraft, Refused]
    assert found[0] == Refused("is not JSON", '{"question": "What')


def test_no_object_at_all_is_one_refusal() -> None:
    assert drafts_in("I cannot do that.") == [Refused("holds no JSON object", "I cannot do that.")]
    assert drafts_in("") == [Refused("holds no JSON object", "")]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, None),
        ({"quote": "Nobody said this"}, "nobody says the quote"),
        (
            {"quote": "bring the folder"},
            "nobody says the quote",
        ),  # all of its words are said, but not in a row
        ({"quote": "BRING the red... folder!"}, None),
        ({"quote": "bring the"}, "the quote is said more than once"),
        ({"quote": "..."}, '"quote" must be text that is not blank'),
        ({"question": " "}, '"question" must be text that is not blank'),
        ({"answer": 5}, '"answer" must be text that is not blank'),
        ({"wrong": ["the blue one"] * 2}, '"wrong" must be a list of 3 texts'),
        ({"wrong": "the blue one"}, '"wrong" must be a list of 3 texts'),
        ({"wrong": ["the blue one", "", "the old one"]}, '"wrong" must be texts that are not blank'),
        ({"wrong": ["the blue one", "The Blue One.", "the old one"]}, "two choices are the same"),
        ({"wrong": ["the blue one", "The red one!", "the old one"]}, "two choices are the same"),
        ({"question": "Is the red one wanted?"}, "the question holds its answer"),
        ({"question": "Is the redone one wanted?"}, None),  # whole words only
        ({"answer": "the red one that lies on the table"}, "the answer is much longer than the wrong ones"),
        ({"answer": "red"}, "the answer is much shorter than the wrong ones"),
        ({"question": "Which \ud800 one?"}, "holds half of a character"),
    ],
)
def test_each_requirement_has_its_reason(changed: dict[str, object], expected: str | None) -> None:
    assert reason(**changed) == expected


def test_the_limits_of_length_are_allowed() -> None:
    wrong = ["a" * 10, "b" * 10, "c" * 10]
    assert reason(answer="d" * 16, wrong=wrong) is None
    assert reason(answer="d" * 17, wrong=wrong) is not None
    assert reason(answer="d" * 4, wrong=wrong) is None
    assert reason(answer="d" * 3, wrong=wrong) is not None


def test_the_evidence_is_the_time_of_the_quoted_words() -> None:
    (one,) = drafts_in(written())
    assert isinstance(one, LlmDraft)
    draft = draft_of(one, CLIP, "open question 1")
    assert isinstance(draft, Draft)
    assert draft.evidence == (Span(2.0, 3.9),)  # words 4 to 7


def test_words_out_of_order_with_dashes_and_blanks_are_found() -> None:
    words = (Word("New York", 2.0, 3.0), Word("-", 1.5, 1.6), Word("to", 1.0, 1.4), Word("Fly", 0.0, 0.5))
    assert spans_of("fly to new york", words, 10.0) == [Span(0.0, 3.0)]
    assert spans_of("fly to new york", words, 2.98) == [Span(0.0, 2.98)]  # times may pass the end a little


def test_more_than_asked_for_and_the_same_again_are_refused() -> None:
    others = [written(question=f"Which folder is wanted, number {n}?") for n in range(3)]
    settings = Open("nobody", Path("nowhere"), n_a_clip=2)
    kept, refused = questions_in("\n".join([others[0], *others]), CLIP, settings)
    assert [question.id for question in kept] == ["c-open-question-1", "c-open-question-2"]
    assert [one.reason for one in refused] == [
        "the same question as before",
        "more than the 2 that were asked for",
    ]


def test_letters_follow_from_the_seed_and_are_spread() -> None:
    def letters(seed: int) -> list[int]:
        clips = [spoken(id_=f"c{n}") for n in range(60)]
        settings = Open("nobody", Path("nowhere"), seed=seed)
        made = [questions_in(written(), clip, settings)[0][0] for clip in clips]
        return [question.choices.index(str(question.answer)) for question in made]

    assert letters(0) == letters(0) != letters(1)
    assert min(np.bincount(letters(0), minlength=4)) >= 5


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
DRAFTS = st.fixed_dictionaries(
    {}, optional={name: st.just(value) | JSON for name, value in GOOD.items()}
).map(json.dumps)
PIECES = st.text() | st.text(alphabet='{}[]",:\\ \n', max_size=30) | DRAFTS | st.just(written())


@given(st.lists(PIECES, max_size=5).map("\n".join))
def test_nothing_that_is_written_raises(text: str) -> None:
    assert drafts_in(text)
    kept, refused = questions_in(text, CLIP, SETTINGS)
    assert len(kept) + len(refused) == len(drafts_in(text))
    assert len(kept) <= SETTINGS.n_a_clip
    for question in kept:
        json.dumps(as_row(question), ensure_ascii=False).encode()
        assert question.evidence == (Span(2.0, 3.9),)


def test_deep_nesting_is_refused() -> None:
    assert drafts_in('{"a":' * 100_000)[0] == Refused("is not JSON", '{"a":' * 100_000)


# --- the prompt --------------------------------------------------------------------------------------------------


def test_the_prompt_holds_the_lines_with_their_times() -> None:
    prompt = prompt_of(CLIP, SETTINGS, 10_000)
    assert "\n[0.0 - 1.9] We meet on Tuesday.\n[2.0 - 4.4] Bring the red folder, please.\n" in prompt
    assert "Write 4 multiple-choice questions" in prompt


def test_a_long_transcript_gives_a_stretch_that_fits() -> None:
    clip = spoken("Nothing happens here at all. " * 300)
    stretch = [line for line in prompt_of(clip, SETTINGS, 1000).splitlines() if line.startswith("[")]
    assert 800 < sum(len(line) + 1 for line in stretch) <= 1000
    assert prompt_of(clip, SETTINGS, 1000) == prompt_of(clip, SETTINGS, 1000)
    lines = [f"{n:04d}" for n in range(50)]
    firsts = set()
    for seed in range(200):
        kept = _stretch(lines, 23, np.random.default_rng(seed))
        first = int(kept[0])
        firsts.add(first)
        assert kept == lines[first : first + 4]  # five characters a line
    assert {0, 46} <= firsts
    assert len(_stretch(["x" * 99, "y" * 99], 10, np.random.default_rng(0))) == 1


# --- the step ----------------------------------------------------------------------------------------------------


def test_a_server_writes_questions_and_the_rest_is_listed(tmp_path: Path) -> None:
    """Four clips: one with good and bad drafts, one flagged, one silent, one whose request is refused."""
    reply = "\n".join(
        [
            written(),
            written()[:50],
            written(question="What else?", quote="the moon is made of cheese", why="x" * 900),
            written(question="And which?", wrong=["the red one", "the blue one", "the old one"]),
            written(
                question="When?",
                answer="at noon",
                wrong=["at six", "at ten", "at dawn"],
                quote="train leaves at noon",
            ),
        ]
    )
    clips = [
        CLIP,
        Clip("flagged", "f.wav", 9.0, CLIP.words[:5], flags=(NO_SPEECH,)),
        Clip("silent", "s.wav", 3.0),
        spoken("Refuse this one, please.", "refused"),
    ]

    def answer(got: Got, _: int) -> Reply:
        sent = got.body["messages"][0]["content"]
        if "Refuse" in sent:
            return Reply({"error": {"message": "too rude"}}, 400)
        return Reply(chat_answer(reply))

    out = tmp_path / "questions.jsonl"
    with serving(answer) as server:
        settings = Open(f"{server.url}/v1#big", tmp_path / "cache", 4, 0, Split("clip", 1.0))
        counts = run(Step(open_questions_of, settings), rows_of(clips), out, root=tmp_path, most_bad=math.inf)
        made = open_questions_of(settings, [as_row(clip) for clip in clips])  # replies are in the cache
    assert (counts.given, counts.kept, counts.left_out) == (4, 2, 6)
    assert len(server.got) == 3  # a refusal is not kept
    first, second = read_questions(out)
    assert [first, second] == list(made.rows)
    assert (first.question, first.answer) == (GOOD["question"], GOOD["answer"])
    assert (first.task, first.split) == (TASK, "test")
    assert sorted(first.choices) == sorted([str(GOOD["answer"]), *GOOD["wrong"]])
    assert first.evidence == (Span(2.0, 3.9),)
    assert second.evidence == (Span(5.0, 6.9),)
    errors = [json.loads(line) for line in errors_of(out).read_text().splitlines()]
    assert [(row["file"], row["error"]) for row in errors[:-1]] == [
        ("flagged", f"flagged {NO_SPEECH}"),
        ("silent", "nothing is said in it"),
        ("c", "is not JSON"),
        ("c", "nobody says the quote"),
        ("c", "two choices are the same"),
    ]
    assert "no questions were written" in errors[-1]["error"]
    assert "too rude" in errors[-1]["error"]
    assert all(len(row["row"] or "") <= MOST_KEPT for row in errors)


def test_a_local_llm_that_writes_nonsense_is_counted(tmp_path: Path) -> None:
    save_tiny_llm(tmp_path / "llm")
    settings = Open(str(tmp_path / "llm"), tmp_path, n_a_clip=1)
    made = open_questions_of(settings, [as_row(CLIP)])
    assert made.rows == []
    assert {one.file for one in made.bad} == {"c"}
    assert made == open_questions_of(settings, [as_row(CLIP)])


def test_no_question_a_clip_is_refused() -> None:
    with pytest.raises(OptionError, match="--open 0: must be 1 or more"):
        Open("nobody", Path("nowhere"), 0)

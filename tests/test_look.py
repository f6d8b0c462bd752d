import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import page_reader
from tgsr import audio
from tgsr.data.corpora.spoken_digits import compose
from tgsr.errors import RecordError
from tgsr.records import Clip, Question, append_jsonl, write_jsonl
from tgsr.report.look import look, rows_of
from tgsr.report.page import content_hash
from tgsr.timeline import Event, Span, Word

EVIL = "<script>alert(1)</script>\"'&amp;"


class Page(page_reader.Page):
    """A page to look through, all of whose elements are closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        assert [tag for tag, _ in self.open] == []

    @property
    def text(self) -> str:
        return self.all("main")[0][1]

    def facts(self) -> list[tuple[str, str]]:
        names, values = ([text for _, text in self.all(tag)] for tag in ("dt", "dd"))
        return list(zip(names, values, strict=True))


def clip_in(folder: Path, seed: int = 1, *, with_sound: bool = True) -> Clip:
    made = compose(seed, "heldout-recordings", seconds=(2.0, 3.0))
    clip = replace(made.clip, audio=f"{made.clip.id}.wav")
    if with_sound:
        audio.save_wav(folder / clip.audio, made.samples)
    return clip


def choice(clip: Clip, name: str = "choice") -> Question:
    return Question(
        f"{clip.id}-{name}", clip.id, clip.audio, clip.duration, "choice", "Which is first?",
        answer="b & c", choices=("a", "b & c", "d"), evidence=(clip.words[0].span,), task="order", split="test",
    )  # fmt: skip


def pages_of(folder: Path, records: Sequence[Clip | Question], **options: int) -> list[Page]:
    write_jsonl(folder / "file.jsonl", records)
    return [Page(path) for path in look(folder / "file.jsonl", folder / "pages", **options)]


def items_of(pages: Sequence[Page]) -> list[str]:
    return [str(attrs["id"]) for page in pages for attrs, _ in page.all("article")]


def test_every_word_lies_at_its_time_and_says_where_that_came_from(tmp_path: Path) -> None:
    clip = clip_in(tmp_path)
    words = [replace(clip.words[0], confidence=0.3, source="whisper"), *clip.words[1:]]
    (page,) = pages_of(tmp_path, [replace(clip, words=tuple(words))])
    shown = page.all("g", "word")
    assert sorted((a["data-start"], a["data-end"]) for a, _ in shown) == sorted(
        (str(w.start), str(w.end)) for w in words
    )
    (pale, text), *rest = sorted(shown, key=lambda one: float(str(one[0]["data-start"])))
    first = words[0]
    known = f"{first.start:.2f}–{first.end:.2f} s"
    assert pale["class"] == "word unsure"
    assert pale["aria-label"] == f"play {first.text}, {known}, whisper, confidence 0.30"
    assert text == f"{first.text}{known}whisper, confidence 0.30"
    assert {attrs["class"] for attrs, _ in rest} == {"word"}
    assert all(attrs["role"] == "button" and attrs["tabindex"] == "0" for attrs, _ in shown)
    boxes = [attrs for attrs, _ in page.all("rect")]
    assert f"{100 * first.start / clip.duration:.3f}%" in [box["x"] for box in boxes]
    assert len(page.all("svg", "wave")) == len(page.all("svg", "axis")) == len(page.all("audio")) == 1


def test_each_speaker_has_a_lane(tmp_path: Path) -> None:
    clip = clip_in(tmp_path)
    words = tuple(
        replace(word, speaker=("theo", "anna")[index % 2]) for index, word in enumerate(clip.words[:2])
    )
    (page,) = pages_of(tmp_path, [replace(clip, words=words)])
    assert [text for _, text in page.all("span", "name")] == ["theo", "anna"]
    assert len(page.all("svg", "words")) == 2


def test_labels_of_close_words_run_into_no_other() -> None:
    words = [Word("seventeen", 0.1 * i, 0.1 * i + 0.1) for i in range(8)]
    assert rows_of(words, 1.0, 300) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert rows_of([Word("a", 0, 1), Word("b", 2, 3)], 4.0, 300) == [0, 0]
    together = [Word("seventeen", 0.0, 1.0)] * 40
    assert max(rows_of(together, 1.0, 300)) == 11


def test_a_clips_events_flags_and_labels_are_told(tmp_path: Path) -> None:
    clip = replace(
        clip_in(tmp_path), speaker="theo", labels=(("emotion", "joy"),), flags=("overlaps-trimmed", "unaligned"),
        events=(Event("dog", 0.5, 1.0), Event("bell", 0.2, 0.4), Event("dog", 1.5, 1.75)),
    )  # fmt: skip
    (page,) = pages_of(tmp_path, [clip])
    bands = [(a["data-start"], a["data-end"]) for a, _ in page.all("g", "band")]
    assert bands == [("0.2", "0.4"), ("0.5", "1.0"), ("1.5", "1.75")]
    cites = [(a["data-start"], text) for a, text in page.all("span", "cite")]
    assert cites == [("0.2", "0.20–0.40 s"), ("0.5", "0.50–1.00 s"), ("1.5", "1.50–1.75 s")]
    facts = dict(page.facts())
    assert facts["event dog"] == "0.50–1.00 s 1.50–1.75 s"
    assert facts["speaker"] == "theo"
    assert facts["labels"] == "emotion: joy"
    assert facts["flags"] == "overlaps-trimmed, unaligned"
    assert facts["split"] == "heldout-recordings"
    assert facts["licence"] == "CC BY-SA 4.0"


def test_the_right_choice_is_said_in_words(tmp_path: Path) -> None:
    clip = clip_in(tmp_path)
    (page,) = pages_of(tmp_path, [choice(clip)])
    assert [text for _, text in page.all("h3")] == ["Which is first?"]
    assert [text for _, text in page.all("li", "other")] == ["(a) a", "(c) d"]
    assert [text for _, text in page.all("li", "right")] == ["(b) b & c✓"]
    facts = dict(page.facts())
    assert facts["answer"] == "(b) b & c"
    assert (facts["task"], facts["split"], facts["clip"]) == ("order", "test", clip.id)
    (evidence,) = [attrs for attrs, _ in page.all("g", "band")]
    assert evidence["data-start"] == str(clip.words[0].start)


def test_a_questions_words_are_those_of_the_clips_beside_it(tmp_path: Path) -> None:
    known, other = clip_in(tmp_path), clip_in(tmp_path, 2)
    write_jsonl(tmp_path / "clips.jsonl", [known, replace(other, duration=other.duration + 9)])
    with (tmp_path / "clips.jsonl").open("a") as file:
        file.write('{"id": ["a", "list"]}\nno JSON\n')
    (page,) = pages_of(tmp_path, [choice(known), choice(other)])
    assert len(page.all("g", "word")) == len(known.words)  # a clip of another length is another clip


def test_markup_in_a_file_stays_text(tmp_path: Path) -> None:
    clip = clip_in(tmp_path)
    words = (replace(clip.words[0], text=EVIL, speaker=EVIL, source=EVIL), clip.words[1])
    evil = replace(
        clip, id=EVIL, words=words, text=EVIL, labels=((EVIL, EVIL),), flags=(EVIL,), split=EVIL,
        speaker=EVIL, licence=EVIL, events=(Event(EVIL, 0.5, 1.0),),
    )  # fmt: skip
    phrase = Question(
        EVIL,
        EVIL,
        clip.audio,
        clip.duration,
        "phrase",
        EVIL,
        phrase=EVIL,
        evidence=(Span(0.1, 0.4),),
        task=EVIL,
    )
    write_jsonl(tmp_path / "clips.jsonl", [evil])
    of_clip = pages_of(tmp_path, [evil])[0]
    with (tmp_path / "file.jsonl").open("w") as file:
        file.write(json.dumps({"kind": EVIL, "question": EVIL}) + "\n")
    append_jsonl(tmp_path / "file.jsonl", phrase)
    of_phrase = Page(look(tmp_path / "file.jsonl", tmp_path / "pages")[0])
    for page in (of_clip, of_phrase):
        assert len(page.all("script")) == 1
        assert EVIL in page.text
        assert not [attrs for _, attrs, _ in page.elements if any(name.startswith("on") for name in attrs)]
    assert dict(of_phrase.facts())["phrase"] == EVIL
    assert of_clip.all("g", "band")[0][0]["aria-label"] == f"{EVIL}: play 0.50 to 1.00 s"


def test_nothing_is_loaded_from_elsewhere_and_only_our_style_and_script_count(tmp_path: Path) -> None:
    (page,) = pages_of(tmp_path, [clip_in(tmp_path)])
    rest = re.sub(r"data:audio/wav;base64,[\w+/=]+", "", page.html)
    assert not re.search(r"https?:|url\(|@import|@font-face|<link|<iframe|<img", rest)
    policy = str(next(attrs["content"] for attrs, _ in page.all("meta") if attrs.get("http-equiv")))
    assert len(page.all("style")) == 2
    for _, text in [*page.all("style"), *page.all("script")]:
        assert f"'{content_hash(text)}'" in policy
    assert not [attrs for _, attrs, _ in page.elements if "style" in attrs]  # the policy forbids them


def test_pages_link_to_their_neighbours(tmp_path: Path) -> None:
    clip = clip_in(tmp_path)
    clips = [replace(clip, id=f"clip-{i}") for i in range(7)]
    pages = pages_of(tmp_path, clips, n_a_page=3)
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == [
        "index.html",
        "page-2.html",
        "page-3.html",
    ]
    assert items_of(pages) == [f"item-{i}" for i in range(7)]
    links = [{(a["rel"], a["href"]) for a, _ in page.all("a") if "rel" in a} for page in pages]
    assert links == [
        {("next", "page-2.html")},
        {("prev", "index.html"), ("next", "page-3.html")},
        {("prev", "page-2.html")},
    ]
    for page in pages:
        assert len(page.all("audio")) == 1  # once a page, however many items share it
        places = {f"#{attrs['id']}" for attrs, _ in page.all("article")}
        assert {a["href"] for a, _ in page.all("a") if "rel" not in a} <= places


def test_first_and_n_choose_a_stretch_of_the_file(tmp_path: Path) -> None:
    clip = clip_in(tmp_path, with_sound=False)
    clips = [replace(clip, id=f"clip-{i}") for i in range(9)]
    assert items_of(pages_of(tmp_path, clips, first=2, n=3)) == ["item-2", "item-3", "item-4"]
    (page,) = pages_of(tmp_path, clips, first=9)
    assert items_of([page]) == []
    assert "No item from 9 on: there are 9 clips" in page.text
    for wrong in ({"n": 0}, {"n_a_page": 0}, {"first": -1}):
        with pytest.raises(RecordError, match="must be at least"):
            pages_of(tmp_path, clips, **wrong)


def test_a_seed_draws_the_same_items_again_and_another_seed_draws_others(tmp_path: Path) -> None:
    clip = clip_in(tmp_path, with_sound=False)
    clips = [replace(clip, id=f"clip-{i}") for i in range(60)]
    one, again, other = (items_of(pages_of(tmp_path, clips, n=8, seed=seed)) for seed in (1, 1, 2))
    assert one == again != other
    assert len(set(one)) == 8
    assert one == sorted(one, key=lambda name: int(name.split("-")[1]))
    assert max(int(name.split("-")[1]) for name in one + other) >= 30  # not only the head of the file


def test_an_item_without_its_sound_says_so_and_shows_the_rest(tmp_path: Path) -> None:
    there, gone = clip_in(tmp_path), clip_in(tmp_path, 2, with_sound=False)
    odd = replace(there, id="odd", audio="a\0b.wav")
    (page,) = pages_of(tmp_path, [there, gone, odd])
    unheard = [text for _, text in page.all("p", "unheard")]
    assert len(unheard) == 2
    assert "no such file" in unheard[0]
    assert ["data-audio" in attrs for attrs, _ in page.all("article")] == [True, False, False]
    assert len(page.all("button", "whole")) == 1
    blocked = [attrs.get("aria-disabled") for attrs, _ in page.all("g", "word")]
    n_there = len(there.words)
    assert blocked == [None] * n_there + ["true"] * (len(gone.words) + n_there)


def test_bad_lines_are_listed_on_the_last_page_and_stop_nothing(tmp_path: Path) -> None:
    question = choice(clip_in(tmp_path, with_sound=False))
    path = tmp_path / "file.jsonl"
    path.write_bytes(b"\xef\xbb\xbf{not JSON\n\n[1]\n\xff\n")
    append_jsonl(path, question)
    append_jsonl(path, {"question": "Who?", "kind": "choice", "id": "<script>"})
    append_jsonl(path, {"audio": "a.wav", "duration": 1})
    append_jsonl(path, {"id": "x"})
    append_jsonl(path, replace(question, id="last"))
    pages = [Page(page) for page in look(path, tmp_path / "pages", n_a_page=1)]
    assert items_of(pages) == ["item-0", "item-1"]
    assert not pages[0].all("ul", "bad")
    (listed,) = [text for _, text in pages[1].all("ul", "bad")]
    assert [int(line) for line in re.findall(r"line (\d+): ", listed)] == [1, 3, 4, 6, 7, 8]
    for reason in (
        "is not JSON",
        "must be a JSON object, got [1]",
        "0xff at 0 is not UTF-8",
        'field "clip_id": is missing',
        "is one of clips in a file of questions",
    ):
        assert reason in listed
    assert all("could not be read: 6" in page.text for page in pages)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "file.jsonl: the file is empty"),
        ("\n\n", "file.jsonl: the file is empty"),
        ('\n{"model": "mini"}\n', "file.jsonl:2: holds neither questions nor clips; is no question and no clip"),
        ("RIFF....", "file.jsonl:1: holds neither questions nor clips; is not JSON"),
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(content)
    with pytest.raises(RecordError) as caught:
        look(path, tmp_path / "pages")
    assert message in str(caught.value)
    assert not (tmp_path / "pages").exists()


def test_half_a_surrogate_pair_does_not_break_the_page(tmp_path: Path) -> None:
    clip = replace(clip_in(tmp_path, with_sound=False), text="so \ud83d", words=())
    (page,) = pages_of(tmp_path, [clip])
    assert not page.all("g", "word")
    assert "so " in page.text

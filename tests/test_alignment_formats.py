"""What tools write, by their documented output and by what their users reported: words, times, holes."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pytest

from tgsr.data.alignments.alignment import Alignment
from tgsr.data.alignments.marks import kind, marks_joined
from tgsr.data.alignments.reading import read_alignment
from tgsr.data.questions.phrases import unbroken
from tgsr.errors import AlignmentError
from tgsr.timeline import Hole

Heard = list[tuple[str, float, float]]


def alignment_of(folder: Path, name: str, content: object) -> Alignment:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text)
    (alignment,) = read_alignment(folder / name).values()
    return alignment


def heard(alignment: Alignment) -> Heard:
    return [(word.text, word.start, word.end) for word in alignment.words]


# Marks


@pytest.mark.parametrize(
    "text",
    [
        *("", "sil", "SP", "<eps>", "<p:>", "!SIL", "<s>", "[laughter]", "{LG}", "{NS}", "<noise>", "*coughs*"),
        *("#", "+", "-", "[vocalized-noise]", "[MUSIC PLAYING]", "♪", "[♪♪♪]", "...", "[Applause]", "<sil>", "++", "—"),
    ],
)  # fmt: skip
def test_silences_and_sounds_are_no_words(text: str) -> None:
    assert kind(text) == "silence"


@pytest.mark.parametrize(
    "text",
    [
        *("<unk>", "<UNK>", "[unk]", "spn", "SPN", "{spn}", "((something))", "(())", "(laughs)", "[inaudible 00:03]"),
        *("[*]", ">>", "JOHN:", "[SPEAKER_00]:", "th[at]-", "[laughter-yeah]", "<SPOKEN_NOISE>", "[bracketed]"),
        *("[speaking French]", "[ __ ]", "[?]", "[crosstalk]", "<OOV>", "<LAUGH-yes>", "&-uh", "&=laughs"),
        *("%HESITATION", "<IVER>"),
    ],
)  # fmt: skip
def test_something_that_may_be_said_is_unknown(text: str) -> None:
    assert kind(text) == "unknown"


@pytest.mark.parametrize(
    "text",
    [
        "silk",
        "spring",
        "O'Neil",
        "well-known",
        "th-",
        "&",
        "50%",
        "C#",
        "10:30",
        "so:",
        "42",
        "你好",
        "x+y",
        "I",
    ],
)
def test_words_are_words(text: str) -> None:
    assert kind(text) is None


def test_a_mark_of_several_words_is_one() -> None:
    assert marks_joined(["a", "(upbeat", "music)", "[la", "la", "la]", "b"]) == [1, 2, 0, 3, 0, 0, 1]
    assert marks_joined(["(never", "closed", "at", "all"]) == [1, 1, 1, 1]


# Holes


def whisperx(*words: dict[str, object]) -> dict[str, object]:
    return {"segments": [{"start": 0.0, "end": 9.0, "text": "", "words": list(words)}]}


def word(text: str, start: float | None = None, end: float | None = None) -> dict[str, object]:
    return {
        "word": text,
        **({} if start is None else {"start": start}),
        **({} if end is None else {"end": end}),
    }


@pytest.mark.parametrize(
    ("middle", "hole"),
    [
        ([word("not")], Hole(1.0, 1.5, "not")),
        ([word("not", 1.2, 1.2)], Hole(1.2, 1.2, "not")),
        ([word("not", 1.3, 1.1)], Hole(1.0, 1.5, "not")),
        ([word("not", 7.0)], Hole(1.0, 1.5, "not")),
        ([word("not", -5.0, -4.0)], Hole(1.0, 1.5, "not")),
        ([word("2014"), word("or"), word("£13.60")], Hole(1.0, 1.5, "2014 or £13.60")),
        ([word("<unk>", 1.1, 1.4)], Hole(1.1, 1.4)),
        ([word("(maybe", 1.1, 1.2), word("so)", 1.2, 1.4)], Hole(1.1, 1.4)),
        ([word("[laughter]", 1.1, 1.4)], None),
        ([word("?")], None),
    ],
)
def test_what_has_no_time_leaves_a_hole_where_it_belongs(
    tmp_path: Path, middle: list[dict[str, object]], hole: Hole | None
) -> None:
    alignment = alignment_of(
        tmp_path, "a.json", whisperx(word("did", 0.5, 1.0), *middle, word("say", 1.5, 2.0))
    )
    words, holes = alignment.on(9.0)
    assert [w.text for w in words] == ["did", "say"]
    assert holes == ((hole,) if hole else ())


def test_a_hole_at_the_end_lasts_to_the_recordings_end(tmp_path: Path) -> None:
    alignment = alignment_of(tmp_path, "a.json", whisperx(word("2014"), word("did", 0.5, 1.0), word("2015")))
    assert alignment.on(3.0)[1] == (Hole(0.0, 0.5, "2014"), Hole(1.0, 3.0, "2015"))


def test_a_segment_without_words_among_others_is_a_hole(tmp_path: Path) -> None:
    segments = [{"words": [word("did", n, n + 0.5)]} for n in (1, 4)]
    wordless = {"start": 2, "end": 3, "text": "in 2014", "words": []}
    alignment = alignment_of(tmp_path, "a.json", {"segments": [segments[0], wordless, segments[1]]})
    assert alignment.on(9.0)[1] == (Hole(1.5, 4.0, "in 2014"),)


def test_channels_one_after_the_other_keep_their_own_neighbours(tmp_path: Path) -> None:
    text = "a A 0.0 0.5 did\na A 0.5 0 not\na A 0.5 0.5 say\na B 0.2 0.3 yes\na B 0.9 0 so\na B 1.0 0.2 no\n"
    assert alignment_of(tmp_path, "a.ctm", text).on(9.0)[1] == (
        Hole(0.5, 0.5, "not", "A"),
        Hole(0.9, 0.9, "so", "B"),
    )


# Tiers


def grid(*tiers: tuple[str, str], start: float = 0.0, end: float = 9.0) -> str:
    """A short TextGrid whose labels last half a second each, from 1 s after its start on."""
    lines = [f'"ooTextFile short" "TextGrid" {start} {end} <exists> {len(tiers)}']
    for name, labels in tiers:
        texts = labels.split("|")
        lines.append(f'"IntervalTier" "{name}" {start} {end} {len(texts)}')
        lines += [f'{start + 1 + n / 2} {start + 1.5 + n / 2} "{text}"' for n, text in enumerate(texts)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("tiers", "words"),
    [
        ([("words", "did|spn|say"), ("phones", "D IH D|S P N|S EY")], "did say"),
        ([("ORT-MAU", "did|<p:>|say"), ("KAN-MAU", "dId||seI"), ("MAU", "d|I|d")], "did say"),
        ([("utterances", "did not say"), ("words", "did|not|say"), ("phonemes", "d|n|s")], "did not say"),
        ([("phones", "d|I|d|n|s"), ("transcript", "did|not|say")], "did not say"),
        ([("x", "d|I|d|n|s|eI"), ("y", "did|not|say")], "did not say"),  # short labels: phones
        ([("sentence", "did not say")], "did not say"),
        ([("PhonAlign", "d|I|d"), ("TokensAlign", "did|#|say"), ("IPUs", "ipu_1")], "did say"),  # SPPAS
        ([("ANN - words", "did|say"), ("ANN - phones", "d|s"), ("notes", "loud speech here")], "did say"),
        ([("words_ann", "did|say"), ("phones_ann", "d|s")], "did say"),
        ([("silences", "silent|sounding"), ("text", "did|say")], "did say"),
    ],
)
def test_phones_and_utterances_are_no_words(tmp_path: Path, tiers: list[tuple[str, str]], words: str) -> None:
    alignment = alignment_of(tmp_path, "a.TextGrid", grid(*tiers))
    assert " ".join(w.text for w in alignment.words) == words


def test_an_utterances_time_is_shared_out_as_a_cues(tmp_path: Path) -> None:
    alignment = alignment_of(tmp_path, "a.TextGrid", grid(("ann", "we did|say so")))
    assert heard(alignment)[0] == ("we", 1.0, 1.2)
    assert {w.confidence for w in alignment.words} == {0.0}
    assert alignment.is_guessed


@pytest.mark.parametrize(
    "tiers",
    [
        [("mary", "hello there"), ("john", "good morning")],
        [("words", "did"), ("words", "say")],
        [("phones", "d|s")],
    ],
)
def test_which_tier_is_meant_is_not_guessed(tmp_path: Path, tiers: list[tuple[str, str]]) -> None:
    with pytest.raises(
        AlignmentError, match=r"several tiers that may hold the words|no interval tier of words"
    ):
        alignment_of(tmp_path, "a.TextGrid", grid(*tiers))


def test_more_intervals_than_the_file_states_are_read(tmp_path: Path) -> None:
    text = grid(("words", "did|not|say"), ("phones", "d|n|s")).replace(
        '"words" 0.0 9.0 3', '"words" 0.0 9.0 1'
    )
    assert [w.text for w in alignment_of(tmp_path, "a.TextGrid", text).words] == ["did", "not", "say"]


@pytest.mark.parametrize(
    ("start", "end", "duration", "first"),
    [
        (0.0, 9.0, 9.0, 1.0),
        (30.0, 39.0, 9.4, 1.0),
        (30.0, 39.0, 9.02, 1.0),  # cut out of a longer recording, with its clock
        (30.0, 39.0, 39.0, 31.0),  # only the end of the recording is annotated
        (0.0, 60.0, 9.0, 1.0),
    ],
)
def test_a_textgrid_with_an_offset_is_moved(
    tmp_path: Path, start: float, end: float, duration: float, first: float
) -> None:
    alignment = alignment_of(tmp_path, "a.TextGrid", grid(("words", "did|spn|say"), start=start, end=end))
    words, holes = alignment.on(duration)
    assert [w.start for w in words] == [first, first + 1]
    assert holes == (Hole(first + 0.5, first + 1.0),)


def test_a_textgrid_of_another_recording_is_refused(tmp_path: Path) -> None:
    alignment = alignment_of(tmp_path, "a.TextGrid", grid(("words", "did"), start=30.0, end=39.0))
    with pytest.raises(AlignmentError, match="is about 30 s to 39 s, the recording lasts 20 s"):
        alignment.on(20.0)


# Lines


def test_a_ctm_of_eight_fields_says_what_each_word_is(tmp_path: Path) -> None:
    text = (
        ";; type and speaker\n"
        "a 1 0.1 0.2 did 0.9 lex ann\n"
        "a 1 0.4 0.1 um NA fp ann\n"
        "a 1 0.6 0.1 %hesitation 0.5 un-lex ann\n"
        "a 1 0.8 0.1 breath 0.5 noise ann\n"
        "a 1 1.0 0.2 say 1.0 lex unknown\n"
    )
    alignment = alignment_of(tmp_path, "a.ctm", text)
    assert [(w.text, w.speaker, w.confidence) for w in alignment.words] == [
        ("did", "ann", 0.9),
        ("um", "ann", None),
        ("say", None, 1.0),
    ]
    assert alignment.on(2.0)[1] == (Hole(0.6, 0.7, None, "ann"),)


@pytest.mark.parametrize("labels", ["SIL D_B IH1_I D_E", "sil D IH1 EY2 D UW0 AH0", "\u2581did \u2581not"])
def test_a_ctm_of_phones_or_tokens_has_no_words(tmp_path: Path, labels: str) -> None:
    text = "".join(f"a 1 {n} 0.5 {label}\n" for n, label in enumerate(labels.split()))
    with pytest.raises(AlignmentError, match="holds phones or tokens"):
        alignment_of(tmp_path, "a.ctm", text)


def test_alternatives_of_a_ctm_are_a_hole(tmp_path: Path) -> None:
    either = ["a 1 * * <ALT_BEGIN>", "a 1 1 1 not", "a 1 * * <ALT>", "a 1 1 1 knot", "a 1 * * <ALT_END>"]
    text = "\n".join(["a 1 0 1 did", *either, "a 1 2 1 say"])
    alignment = alignment_of(tmp_path, "a.ctm", text)
    assert [w.text for w in alignment.words] == ["did", "say"]
    assert all(hole.text is None and 1.0 <= hole.start <= hole.end <= 2.0 for hole in alignment.on(3.0)[1])
    assert alignment.on(3.0)[1]


def test_an_stm_shares_out_its_utterances(tmp_path: Path) -> None:
    text = (
        ";; CATEGORY\na 1 ann 0.0 1.0 <o,f0,female> we did\na 1 bo 1.0 2.0 ignore_time_segment_in_scoring\n"
    )
    alignment = alignment_of(tmp_path, "a.stm", text)
    assert [(w.text, w.start, w.end, w.speaker, w.confidence) for w in alignment.words] == [
        ("we", 0.0, 0.4, "ann", 0.0),
        ("did", 0.4, 1.0, "ann", 0.0),
    ]
    assert alignment.on(2.0)[1] == (Hole(1.0, 1.0, None, "bo"),)


# JSON

TIMED = [word("I", 0.1, 0.2), word("did", 0.4, 0.6), word("say", 0.9, 1.2), word("it", 1.3, 1.6)]
DID_SAY: Heard = [("did", 0.5, 1.0), ("say", 1.5, 2.0)]


@pytest.mark.parametrize(
    ("document", "source"),
    [
        (  # OpenAI's verbose_json: words on top of segments that have none
            {
                "task": "transcribe", "duration": 3.0, "text": "did say",
                "segments": [{"id": 0, "start": 0.0, "end": 3.0, "text": " did say"}],
                "words": [word("did", 0.5, 1.0), word("say", 1.5, 2.0)],
            },
            "whisper",
        ),
        ({"text": "did say", "words": [word("did", 0.5, 1.0), word("say", 1.5, 2.0)]}, "whisperx"),
        ({"word_segments": [word("did", 0.5, 1.0), word("say", 1.5, 2.0)]}, "whisperx"),
        (  # faster-whisper's list of segments, as dictionaries, as tuples, with the information beside it
            [{"id": 1, "start": 0.5, "end": 2.0, "text": " did say", "words": [
                {"start": 0.5, "end": 1.0, "word": " did", "probability": 0.9},
                {"start": 1.5, "end": 2.0, "word": " say", "probability": 0.9},
            ]}],
            "whisper",
        ),
        (
            [[1, 0, 0.5, 2.0, " did say", [50364, 1], -0.2, 1.1, 0.01,
              [[0.5, 1.0, " did", 0.9], [1.5, 2.0, " say", 0.8]], 0.0]],
            "whisper",
        ),
        (
            [[[1, 0, 0.5, 2.0, " did say", [50364, 1], -0.2, 1.1, 0.01,
               [[0.5, 1.0, " did", 0.9], [1.5, 2.0, " say", 0.8]], 0.0]], {"language": "en"}],
            "whisper",
        ),
        (
            [{"id": 1, "start": 0.5, "end": 2.0, "text": " did say", "words": [
                [0.5, 1.0, " did", 0.9], [1.5, 2.0, " say", 0.8]]}],
            "whisper",
        ),
        ([word("did", 0.5, 1.0), word("say", 1.5, 2.0)], "whisperx"),
        (  # whisper.cpp -ojf: tokens make words
            {"transcription": [{"offsets": {"from": 0, "to": 2000}, "text": " did say", "tokens": [
                {"text": "[_BEG_]", "offsets": {"from": 0, "to": 0}, "id": 50363, "p": 0.9},
                {"text": " d", "offsets": {"from": 500, "to": 700}, "p": 0.9},
                {"text": "id", "offsets": {"from": 700, "to": 1000}, "p": 0.5},
                {"text": " say", "offsets": {"from": 1500, "to": 2000}, "p": 0.9},
                {"text": "[_TT_100]", "offsets": {"from": 2000, "to": 2000}, "p": 0.1},
            ]}]},
            "whisper.cpp",
        ),
        (  # whisper.cpp -ml 1: an entry a token
            {"transcription": [
                {"offsets": {"from": 500, "to": 700}, "text": " d"},
                {"offsets": {"from": 700, "to": 1000}, "text": "id"},
                {"offsets": {"from": 1500, "to": 2000}, "text": " say"},
            ]},
            "whisper.cpp",
        ),
        (
            {"text": "did say", "timestamp": {
                "word": [{"start_offset": 6, **word("did", 0.5, 1.0)}, word("say", 1.5, 2.0)], "segment": []}},
            "whisperx",
        ),
        ({"text": " did say", "result": [word("did", 0.5, 1.0), word("say", 1.5, 2.0)]}, "vosk"),
        ([{"result": [{"conf": 1.0, **word("did", 0.5, 1.0)}]}, {"result": [word("say", 1.5, 2.0)]}], "vosk"),
        (  # Gentle: what is not found has no time, and offsets of characters are none
            {"transcript": "did say", "words": [
                {"word": "did", "alignedWord": "did", "case": "success", "start": 0.5, "end": 1.0, "startOffset": 0},
                {"alignedWord": "uh", "case": "not-found-in-transcript", "start": 1.1, "end": 1.2, "phones": []},
                {"word": "say", "alignedWord": "<unk>", "case": "success", "start": 1.5, "end": 2.0},
            ]},
            "gentle",
        ),
        (
            {"id": "x", "status": "completed", "audio_duration": 3, "text": "did say", "words": [
                {"text": "did", "start": 500, "end": 1000, "confidence": 0.9, "speaker": "A"},
                {"text": "say", "start": 1500, "end": 2000, "confidence": 0.9, "speaker": "A"},
            ]},
            "whisper-timestamped",
        ),
        (
            {"start": 0, "end": 3, "tiers": {
                "words": {"type": "interval", "entries": [[0.5, 1.0, "did"], [1.5, 2.0, "say"]]},
                "phones": {"type": "interval", "entries": [[0.5, 1.0, "D"]]},
            }},
            "mfa",
        ),
        (
            {"events": [{"tStartMs": 500, "dDurationMs": 5000, "segs": [{"utf8": "did"}]},
                        {"tStartMs": 1000, "aAppend": 1, "segs": [{"utf8": "\n"}]},
                        {"tStartMs": 1000, "dDurationMs": 1000, "segs": [{"utf8": " say", "tOffsetMs": 500}]}]},
            "youtube",
        ),
    ],
)  # fmt: skip
def test_recognisers_answers_are_read(tmp_path: Path, document: object, source: str) -> None:
    alignment = alignment_of(tmp_path, "a.json", document)
    expected = [("did", 0.5, 1.5), DID_SAY[1]] if source == "youtube" else DID_SAY  # a word lasts to the next
    assert heard(alignment) == expected
    assert {w.source for w in alignment.words} == {source}
    assert not alignment.is_guessed
    assert all(hole.text is None for hole in alignment.missing)


@pytest.mark.parametrize(
    "document",
    [
        {"text": "did say", "words": []},
        {"text": "did say", "segments": []},
    ],
)
def test_text_without_times_is_not_silence(tmp_path: Path, document: object) -> None:
    with pytest.raises(AlignmentError, match="has text, but no words with times"):
        alignment_of(tmp_path, "a.json", document)


def test_transformers_chunks_are_words_where_each_holds_one(tmp_path: Path) -> None:
    texts = ["we", "did", "not", "say"]
    chunks = [{"text": f" {text}", "timestamp": [n, n + 0.5]} for n, text in enumerate(texts)]
    alignment = alignment_of(
        tmp_path, "a.json", {"text": "", "chunks": [*chunks, {"text": " so", "timestamp": [4, None]}]}
    )
    assert heard(alignment) == [(text, n, n + 0.5) for n, text in enumerate(texts)]
    assert alignment.on(5.0)[1] == (Hole(3.5, 5.0, "so"),)
    assert not alignment.is_guessed


@pytest.mark.parametrize(
    "document",
    [
        {"segments": [{"start": 0.0, "end": 1.0, "text": " we did"}]},
        [{"text": "we did", "start": 0.0, "end": 1.0}, {"text": "say it&#39;s", "start": 1.0, "end": 4.0}],
        {"transcription": [{"offsets": {"from": 0, "to": 1000}, "text": " we did"}]},
        {"chunks": [{"text": " we did", "timestamp": [0.0, 1.0]}]},
    ],
)
def test_times_of_segments_are_shared_out_as_guesses(tmp_path: Path, document: object) -> None:
    alignment = alignment_of(tmp_path, "a.json", document)
    assert heard(alignment)[:2] == [("we", 0.0, 0.4), ("did", 0.4, 1.0)]
    assert alignment.is_guessed
    assert alignment.words[-1].text in ("did", "it's")


def test_speakers_that_are_numbers_have_names(tmp_path: Path) -> None:
    words = [{**word("did", 0.5, 1.0), "speaker": 1}, {**word("say", 1.5, 2.0), "speaker": "B"}]
    alignment = alignment_of(tmp_path, "a.json", {"words": words})
    assert [(w.text, w.speaker) for w in alignment.words] == [("did", "speaker 1"), ("say", "B")]


@pytest.mark.parametrize(
    "document",
    [
        {"segments": [{"text": " I did, not - say it.", "words": TIMED}]},
        {"segments": [{"text": "I did not say it"}], "words": TIMED, "text": "I did not say it"},
        {"text": "I did NOT say it", "words": TIMED},
    ],
)
def test_a_word_of_the_text_that_is_not_among_the_timed_ones_leaves_a_hole(
    tmp_path: Path, document: object
) -> None:
    alignment = alignment_of(tmp_path, "a.json", document)
    assert [w.text for w in alignment.words] == ["I", "did", "say", "it"]
    assert [(hole.start, hole.end, str(hole.text).lower()) for hole in alignment.missing] == [
        (0.6, 0.9, "not")
    ]


@pytest.mark.parametrize("text", ["I did say it", "I didn't! say, it", "I'd say it", "i DID say -- it", ""])
def test_words_that_are_written_otherwise_leave_no_hole(tmp_path: Path, text: str) -> None:
    segments = [{"text": text, "words": TIMED}]
    assert alignment_of(tmp_path, "a.json", {"segments": segments}).missing == ()


def test_what_begins_without_a_blank_is_a_piece_of_a_word(tmp_path: Path) -> None:
    pieces = [(" It", 0.9), ("'s", 0.8), (" $", 0.9), ("10", 0.6), (",000", None), (" now", 0.7), ("?", 0.1)]
    words = [{"word": text, "start": n, "end": n + 1, "probability": p} for n, (text, p) in enumerate(pieces)]
    alignment = alignment_of(
        tmp_path, "a.json", {"segments": [{"text": " It's $10,000 now?", "words": words}]}
    )
    assert heard(alignment) == [("It's", 0, 2), ("$10,000", 2, 5), ("now?", 5, 7)]
    assert [w.confidence for w in alignment.words] == [0.8, 0.6, 0.1]
    assert alignment.missing == ()
    chinese = [{**one, "word": text} for one, text in zip(words, [" OK", "我", "是"], strict=False)]
    assert len(alignment_of(tmp_path, "c.json", {"segments": [{"text": "", "words": chinese}]}).words) == 3
    plain = [{**one, "word": str(one["word"]).strip()} for one in words]
    assert len(alignment_of(tmp_path, "b.json", {"segments": [{"text": "", "words": plain}]}).words) == 6


# Captions


def srt(*cues: tuple[str, str]) -> str:
    return "\n".join(f"{n}\n{times}\n{text}\n" for n, (times, text) in enumerate(cues, 1))


def clock(second: float) -> str:
    return f"00:00:{second:06.3f}".replace(".", ",")


def cues(*texts: str, step: float = 1.0) -> str:
    """Cues one after the other."""
    return srt(*((f"{clock(n * step)} --> {clock((n + 1) * step)}", text) for n, text in enumerate(texts)))


def test_a_highlighted_word_has_its_cues_time_and_the_line_is_read_once(tmp_path: Path) -> None:
    text = cues(
        "<u>We</u> did it.", "We did it.", "We <u>did</u> it.", "We did <u>it.</u>",
        "<u>We</u> did it.", "We <u>did</u> it.", "We did <u>it.</u>", "<u>Yes.</u>",
    )  # fmt: skip
    alignment = alignment_of(tmp_path, "a.srt", text)
    assert heard(alignment) == [
        *(("We", 0.0, 1.0), ("did", 2.0, 3.0), ("it.", 3.0, 4.0)),
        *(("We", 4.0, 5.0), ("did", 5.0, 6.0), ("it.", 6.0, 7.0), ("Yes.", 7.0, 8.0)),
    ]
    assert {w.confidence for w in alignment.words} == {None}


@pytest.mark.parametrize(
    ("on", "off"), [('<font color="#00ff00">', "</font>"), ("<b>", "</b>"), ("<c.yellow>", "</c>")]
)
def test_a_highlight_is_known_by_any_tag(tmp_path: Path, on: str, off: str) -> None:
    text = cues(f"{on}We{off} did it", f"We {on}did{off} it", f"We did {on}it{off}")
    alignment = alignment_of(tmp_path, "a.vtt", "WEBVTT\n\n" + text.replace(",", "."))
    assert heard(alignment) == [("We", 0.0, 1.0), ("did", 1.0, 2.0), ("it", 2.0, 3.0)]


def test_a_highlight_after_a_speakers_name_is_one(tmp_path: Path) -> None:
    alignment = alignment_of(
        tmp_path, "a.srt", cues("[SPEAKER_01]: <u>We</u> did", "[SPEAKER_01]: We <u>did</u>")
    )
    assert heard(alignment) == [("We", 0.0, 1.0), ("did", 1.0, 2.0)]
    assert {w.speaker for w in alignment.words} == {"SPEAKER_01"}


def test_a_word_that_is_said_again_after_a_pause_is_no_highlight_that_goes_off(tmp_path: Path) -> None:
    text = srt(("00:00:00,000 --> 00:00:01,000", "<u>No!</u>"), ("00:00:02,000 --> 00:00:03,000", "No!"))
    assert heard(alignment_of(tmp_path, "a.srt", text)) == [("No!", 0.0, 1.0), ("No!", 2.0, 3.0)]


def test_emphasis_is_no_highlight(tmp_path: Path) -> None:
    alignment = alignment_of(tmp_path, "a.srt", cues("We <b>did</b> it", "and <b>so</b> on"))
    assert [w.text for w in alignment.words] == ["We", "did", "it", "and", "so", "on"]


@pytest.mark.parametrize(
    "texts",
    [
        # converted from YouTube's: the last line stays above the new one, with cues of 10 ms between
        [
            "hello and welcome",
            "hello and welcome",
            "hello and welcome\nto the show",
            "to the show",
            "to the show\ntoday",
        ],
        # three lines that roll up
        [
            "hello and",
            "hello and\nwelcome to",
            "hello and\nwelcome to\nthe show",
            "welcome to\nthe show\ntoday",
        ],
        # live captions that grow
        ["hello and", "hello and welcome", "hello and welcome to", "hello and welcome to the show today"],
    ],
)
def test_what_rolls_or_grows_is_read_once(tmp_path: Path, texts: list[str]) -> None:
    alignment = alignment_of(tmp_path, "a.srt", cues(*texts))
    assert " ".join(w.text for w in alignment.words) == "hello and welcome to the show today"
    assert all(a.end <= b.start for a, b in zip(alignment.words, alignment.words[1:], strict=False))


@pytest.mark.parametrize(
    "texts", [["No.", "No.", "No."], ["I know.", "I know."], ["no no", "no no", "yes", "it is"]]
)
def test_what_is_said_again_is_read_again(tmp_path: Path, texts: list[str]) -> None:
    alignment = alignment_of(tmp_path, "a.srt", cues(*texts))
    assert " ".join(w.text for w in alignment.words) == " ".join(texts)


def test_a_cue_that_is_there_twice_is_read_once(tmp_path: Path) -> None:
    text = srt(
        *[("00:00:01,000 --> 00:00:02,000", "we did")] * 2, ("00:00:02,000 --> 00:00:03,000", "we did")
    )
    assert [w.text for w in alignment_of(tmp_path, "a.srt", text).words] == ["we", "did", "we", "did"]


def test_cues_that_stand_longer_than_to_the_next_one_end_there(tmp_path: Path) -> None:
    text = srt(("00:00:00,000 --> 00:00:04,000", "we did"), ("00:00:01,000 --> 00:00:05,000", "say so"))
    assert heard(alignment_of(tmp_path, "a.srt", text)) == [
        *(("we", 0.0, 0.4), ("did", 0.4, 1.0)),
        *(("say", 1.0, 3.4), ("so", 3.4, 5.0)),
    ]


def test_cues_of_a_word_each_have_times_of_words(tmp_path: Path) -> None:
    alignment = alignment_of(tmp_path, "a.words.srt", cues("We", "did", "not", "[music]", "say"))
    assert [w.confidence for w in alignment.words] == [None] * 4


def test_cues_of_a_token_each_make_words(tmp_path: Path) -> None:
    alignment = alignment_of(
        tmp_path, "a.srt", cues(" We", " gro", "an", ",", " you", "'re", " *", "laughs", "*", " so")
    )
    assert heard(alignment) == [
        ("We", 0.0, 1.0),
        ("groan,", 1.0, 4.0),
        ("you're", 4.0, 6.0),
        ("so", 9.0, 10.0),
    ]


@pytest.mark.parametrize(
    ("line", "words", "speakers"),
    [
        ("it&#39;s AT&amp;amp;T", "it's AT&T", {None}),
        ("&lrm;we\u200b \u200e di\u00add", "we did", {None}),
        ("[DOOR\nSLAMS] we did", "we did", {None}),
        ("(laughs) we did", "we did", {None}),
        ("♪ we did ♪", "we did", {None}),
        (">> we did", "we did", {None}),
        ("*sighs* we did", "we did", {None}),
        ("{\\an8}{comment}we <i>did</i>", "we did", {None}),
        ("we\\Ndid", "we did", {None}),
        ("John: we did", "we did", {None}),
        ("MARY ANN: we did", "we did", {"MARY ANN"}),
        ("[MARY]: we did", "we did", {"MARY"}),
        ("- John (off): we did", "we did", {None}),
        ("we (she said): did", "we did", {None}),
        ("[Mary] we did", "we did", {None}),
    ],
)
def test_what_stands_beside_the_words_is_none(
    tmp_path: Path, line: str, words: str, speakers: set[str | None]
) -> None:
    alignment = alignment_of(tmp_path, "a.srt", cues(line))
    assert " ".join(w.text for w in alignment.words) == words
    assert {w.speaker for w in alignment.words} == speakers


def test_a_name_that_begins_several_lines_is_a_speaker(tmp_path: Path) -> None:
    alignment = alignment_of(tmp_path, "a.srt", cues("John: we did\nBo Lee: no", "John: so", "Bo Lee: yes"))
    assert [(w.text, w.speaker) for w in alignment.words] == [
        *(("we", "John"), ("did", "John"), ("no", "Bo Lee"), ("so", "John"), ("yes", "Bo Lee")),
    ]


def test_where_every_cue_begins_with_a_name_each_is_a_speaker(tmp_path: Path) -> None:
    alignment = alignment_of(tmp_path, "a.srt", cues("Ann Lee: we did", "Bo: no"))
    assert [(w.text, w.speaker) for w in alignment.words] == [
        *(("we", "Ann Lee"), ("did", "Ann Lee"), ("no", "Bo")),
    ]
    alone = alignment_of(tmp_path, "a.srt", cues("Remember: we did"))
    assert {w.speaker for w in alone.words} == {None}


@pytest.mark.parametrize(
    ("numbers", "said"), [(("1\n", "2\n", "3\n"), "How much 2266 Why"), (("", "", ""), "How much 2266 Why")]
)
def test_a_number_that_is_said_is_no_number_of_a_cue(
    tmp_path: Path, numbers: tuple[str, str, str], said: str
) -> None:
    times = ("00:01,000 --> 00:02,000", "00:03,000 --> 00:04,000", "00:05,000 --> 00:06,000")
    shown = zip(numbers, times, ("How much", "2266", "Why"), strict=True)
    text = "".join(f"{number}{time}\n{line}\n" for number, time, line in shown)
    assert " ".join(w.text for w in alignment_of(tmp_path, "a.srt", text).words) == said


@pytest.mark.parametrize(
    "line",
    [
        "- Did you?\n- I did",
        ">> did you >> I did",
        "did (mumbles) I",
        "Did <unk> I",
        "did\n[MAN] I",
        "did [&nbsp;__&nbsp;] I",
    ],
)
def test_no_phrase_goes_from_one_speaker_to_the_next(tmp_path: Path, line: str) -> None:
    alignment = alignment_of(tmp_path, "a.srt", cues(line))
    words, holes = alignment.on(9.0)
    (place,) = (n for n, w in enumerate(words) if w.text == "I")
    assert unbroken(words, holes)[place - 1] is False


@pytest.mark.parametrize(
    ("times", "span"),
    [
        ("00:00:01,000 --> 00:00:02,000", (1.0, 2.0)),
        ("00:01.000 --> 00:02.000", (1.0, 2.0)),
        ("0:00:01.5-->0:00:02,00", (1.5, 2.0)),
        ("00:00:1,000 --> 00:00:2,50 X1:1 Y1:2", (1.0, 2.5)),
        ("00:00:01 --> 00:00:02", (1.0, 2.0)),
        ("-00:00:01,000 --> 00:00:02,000", None),
        ("00:00:02,000 --> 00:00:01,000", None),
    ],
)
def test_the_forms_of_times(tmp_path: Path, times: str, span: tuple[float, float] | None) -> None:
    text = "9\n" + times + "\nhello\n\n7\n00:00:03,000 --> 00:00:04,000\nyou\n"
    alignment = alignment_of(tmp_path, "a.srt", text)
    assert heard(alignment) == [*([("hello", *span)] if span else []), ("you", 3.0, 4.0)]
    assert alignment.on(9.0)[1] == (() if span else (Hole(0.0, 3.0, "hello"),))


def test_a_cue_that_begins_with_an_empty_line_keeps_its_text(tmp_path: Path) -> None:
    text = (
        "WEBVTT\n\n00:01.000 --> 00:02.000 line:1\n\nwe did\n\nintro\n00:03.000 --> 00:04.000\nsay\n\n"
        "NOTE a comment\n\n00:05.000 --> 00:06.000\n\n4\n00:06.000 --> 00:07.000\n\nNOTE nothing\n\n"
    )
    assert [w.text for w in alignment_of(tmp_path, "a.vtt", text).words] == ["we", "did", "say"]


def test_a_cue_whose_inner_times_run_backwards_has_none(tmp_path: Path) -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\na<00:03.000>b\n\n00:05.000 --> 00:06.000\nc\n"
    alignment = alignment_of(tmp_path, "a.vtt", text)
    assert heard(alignment) == [("c", 5.0, 6.0)]
    assert alignment.on(9.0)[1] == (Hole(0.0, 5.0, "a b"),)


SAMPLES = {
    "a.json": json.dumps({"segments": [{"text": "I did not say it", "words": TIMED}]}),
    "a.stm": "a 1 ann 0.0 1.0 <o,f0,female> we did\n",
    "a.srt": cues("<u>We</u> did", "We <u>did</u>", "- (so)\n- John: it"),
}


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_file_that_is_cut_off_anywhere_gives_words_or_an_alignment_error(tmp_path: Path, name: str) -> None:
    text = SAMPLES[name]
    for end in range(0, len(text), max(1, len(text) // 60)):
        (tmp_path / name).write_text(text[:end])
        with contextlib.suppress(AlignmentError):
            found = read_alignment(tmp_path / name)
            assert all(word.text.strip() for alignment in found.values() for word in alignment.words)


@pytest.mark.parametrize("text", ["(", "<a ", "*a ", "{a" + "\\", "a[", "<v "])
def test_hostile_text_costs_time_that_is_linear_in_it(tmp_path: Path, text: str) -> None:
    seconds = []
    for n in (500, 10_000):
        before = time.process_time()
        alignment_of(tmp_path, "a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\n" + text * n)
        seconds.append(time.process_time() - before)
    assert seconds[1] < 100 * seconds[0] + 0.5  # 20 times the text; quadratic time would be 400 times

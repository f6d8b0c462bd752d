import codecs
import contextlib
import json
import pickle
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgsr.data.alignments.alignment import Alignment
from tgsr.data.alignments.marks import kind
from tgsr.data.alignments.reading import read_alignment
from tgsr.errors import AlignmentError
from tgsr.timeline import Word

LONG = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.3
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "TextTier"
        name = "bell"
        xmin = 0
        xmax = 2.3
        points: size = 1
        points [1]:
            number = 0.7
            mark = "ding"
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 2.3
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2.3
            text = "HH"
    item [3]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.3
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 0.91
            text = "so-called ""friend"""
        intervals [3]:
            xmin = 0.91
            xmax = 1.1
            text = "sil"
        intervals [4]:
            xmin = 1.1
            xmax = 2.3
            text = "hej då! 5"
'''
SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0
2.3
<exists>
3
"TextTier"
"bell"
0
2.3
1
0.7
"ding"
"IntervalTier"
"phones"
0
2.3
1
0
2.3
"HH"
"IntervalTier"
"words"
0
2.3
4
0
0.5
""
0.5
0.91
"so-called ""friend"""
0.91
1.1
"sil"
1.1
2.3
"hej då! 5"
'''
NOISY = '''"ooTextFile" "TextGrid"
! made by hand: 9 9 "nine"
0s 2.3s <exists> 1 ! one tier
"IntervalTier" "words" 0s 2.3s 2
5e-1 0.91 "so-called ""friend""" 1.1 2.3
"hej
då! 5"
'''
GRID_WORDS = (
    Word('so-called "friend"', 0.5, 0.91, source="textgrid"),
    Word("hej då! 5", 1.1, 2.3, source="textgrid"),
)
LIBRISPEECH = (
    '84-121123-0000 ",GO,,DO,YOU,HEAR," "0.490,0.890,1.270,1.380,1.490,1.710,2.090"\n'
    '84-121123-0001 ",BUT," "0.32,0.51,0.9"\n'
)
CTM = """;; made by sclite
sw_4390 A 11.34 0.2 YES 0.97
sw_4390 B 11.40 0.3 NO
;; another
talk 1 0.1 0.2 hello 1.00
talk 1 0.3 0.05 <eps> 1.00
sw_4390 A 11.54 0.1 YES -6.95
"""


def words_in(folder: Path, name: str, text: str | bytes) -> tuple[Word, ...]:
    words = read_as(folder, name, text)
    assert set(words) == {""}
    return words[""]


def read_as(folder: Path, name: str, text: str | bytes) -> dict[str, tuple[Word, ...]]:
    return {name: alignment.words for name, alignment in alignments_in(folder, name, text).items()}


def alignments_in(folder: Path, name: str, text: str | bytes) -> dict[str, Alignment]:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_alignment(folder / name)


def error_of(folder: Path, name: str, text: str | bytes) -> str:
    with pytest.raises(AlignmentError) as raised:
        read_as(folder, name, text)
    return str(raised.value).removeprefix(f"{folder}/")


def times(words: tuple[Word, ...]) -> list[tuple[str, float, float]]:
    return [(word.text, word.start, word.end) for word in words]


def grid(*tiers: tuple[str, list[tuple[float, float, str]]]) -> str:
    """A short TextGrid."""
    lines = ['File type = "ooTextFile short"', '"TextGrid"', "", "0", "9", "<exists>", str(len(tiers))]
    for name, intervals in tiers:
        lines += ['"IntervalTier"', f'"{name}"', "0", "9", str(len(intervals))]
        for start, end, text in intervals:
            lines += [f"{start!r}", f"{end!r}", '"' + text.replace('"', '""') + '"']
    return "\n".join(lines) + "\n"


# TextGrid


@pytest.mark.parametrize("text", [LONG, SHORT, NOISY], ids=["long", "short", "noisy"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
def test_all_forms_of_a_textgrid_hold_the_same_words(tmp_path: Path, text: str, line_end: str) -> None:
    assert words_in(tmp_path, "a.TextGrid", text.replace("\n", line_end)) == GRID_WORDS


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + LONG.encode(),
        codecs.BOM_UTF16_LE + LONG.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + SHORT.encode("utf-16-be"),
    ],
    ids=["utf-8", "utf-16-le", "utf-16-be"],
)
def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path, content: bytes) -> None:
    assert words_in(tmp_path, "a.txt", content) == GRID_WORDS


@pytest.mark.parametrize("silence", ["", " ", "sil", "SIL", "sp", "<eps>", "<p:>"])
def test_silences_are_no_words(tmp_path: Path, silence: str) -> None:
    text = grid(("words", [(0.0, 1.0, silence), (1.0, 2.0, "silk")]))
    assert times(words_in(tmp_path, "a.TextGrid", text)) == [("silk", 1.0, 2.0)]


@pytest.mark.parametrize(
    ("tiers", "chosen"),
    [
        (["phones", "Words"], 1),
        (["text", "word"], 1),
        (["word", "words"], 1),
        (["MAU", "KAN-MAU", "ORT-MAU"], 2),  # WebMAUS; MAU holds phones
        (["phones", "ORT"], 1),
        (["MAU", "KAN", "mary"], 2),
        (["syllables", "silences", "notes", "speech"], 3),
    ],
)
def test_the_tier_of_words_is_known_by_its_name(tmp_path: Path, tiers: list[str], chosen: int) -> None:
    text = grid(*((name, [(0.0, 1.0, f"tier{n}")]) for n, name in enumerate(tiers)))
    assert times(words_in(tmp_path, "a.TextGrid", text)) == [(f"tier{chosen}", 0.0, 1.0)]


def test_a_tier_for_each_speaker_names_the_speakers(tmp_path: Path) -> None:
    tiers = [
        ("ann - words", [(0.0, 1.0, "hi")]),
        ("ann - phones", [(0.0, 1.0, "HH")]),
        ("bo - words", [(0.5, 1.5, "yes")]),
    ]
    assert words_in(tmp_path, "a.TextGrid", grid(*tiers)) == (
        Word("hi", 0.0, 1.0, "ann", "textgrid"),
        Word("yes", 0.5, 1.5, "bo", "textgrid"),
    )


def test_a_tier_of_words_is_nobodys_where_its_name_says_no_more(tmp_path: Path) -> None:
    tiers = [("word_tier", [(0.0, 1.0, "hi")]), ("phone_tier", [(0.0, 1.0, "HH")])]
    assert words_in(tmp_path, "a.TextGrid", grid(*tiers)) == (Word("hi", 0.0, 1.0, None, "textgrid"),)


def test_phones_are_not_read_as_words(tmp_path: Path) -> None:
    error = error_of(tmp_path, "a.TextGrid", grid(("phones", [(0.0, 1.0, "HH")]), ("MAU", [])))
    assert error == (
        "a.TextGrid: has no interval tier of words (interval tiers: 'phones', 'MAU'); name one \"words\""
    )


def test_a_truncated_textgrid_is_refused_wherever_it_breaks_off(tmp_path: Path) -> None:
    for end in range(LONG.rindex("hej") - 1, 30, -7):
        error_of(tmp_path, "a.TextGrid", LONG[:end])
    error = error_of(tmp_path, "a.TextGrid", LONG[: LONG.rindex("hej")])
    assert error == "a.TextGrid:49: ends where a text is expected; it may be half-written: save it again"


def test_a_textgrid_names_the_line_of_a_bad_value(tmp_path: Path) -> None:
    missing = LONG.replace("xmax = 0.91\n", "xmax = --undefined--\n")
    assert error_of(tmp_path, "a.TextGrid", missing).startswith('a.TextGrid:41: an end expected, got "so-')
    assert error_of(tmp_path, "a.TextGrid", LONG.replace("0.91", "1e999")).startswith(
        "a.TextGrid:40: an end is 1e999;"
    )


def test_other_praat_objects_are_refused(tmp_path: Path) -> None:
    assert "holds 'ooTextFile', 'Pitch 1'" in error_of(
        tmp_path, "a.TextGrid", LONG.replace("TextGrid", "Pitch 1")
    )
    assert "is binary" in error_of(tmp_path, "a.TextGrid", b"ooBinaryFile\x08TextGrid\0\0\0\0")


seen = st.characters(codec="utf-8", exclude_characters="\0&", exclude_categories=["Cf"])
spoken = st.text(seen, min_size=1).map(lambda t: f"x{t}z")
spoken = spoken.filter(lambda text: kind(text) is None)


@settings(max_examples=50)
@given(texts=st.lists(spoken, max_size=8), utf16=st.booleans(), data=st.data())
def test_what_is_written_as_a_textgrid_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], utf16: bool, data: st.DataObject
) -> None:
    bounds = sorted(
        data.draw(st.sets(st.integers(0, 9000), min_size=len(texts) + 1, max_size=len(texts) + 1))
    )
    intervals = [(a / 1000, b / 1000, text) for (a, b), text in zip(pairwise(bounds), texts, strict=True)]
    content = grid(("words", intervals))
    encoded = codecs.BOM_UTF16_LE + content.encode("utf-16-le") if utf16 else content.encode()
    words = words_in(tmp_path_factory.getbasetemp(), "again.TextGrid", encoded)
    assert times(words) == [(" ".join(text.split()), start, end) for start, end, text in intervals]


# CTM


def test_a_ctm_holds_many_recordings_and_channels_are_speakers(tmp_path: Path) -> None:
    assert read_as(tmp_path, "a.ctm", CTM) == {
        "sw_4390": (
            Word("YES", 11.34, 11.54, "A", "ctm", 0.97),
            Word("NO", 11.4, 11.7, "B", "ctm"),
            Word("YES", 11.54, 11.64, "A", "ctm"),  # a logarithm is no confidence in [0, 1]
        ),
        "talk": (Word("hello", 0.1, 0.3, None, "ctm", 1.0),),
    }


def test_a_ctm_is_known_without_its_suffix(tmp_path: Path) -> None:
    assert read_as(tmp_path, "a.txt", CTM) == read_as(tmp_path, "a.ctm", CTM.replace("\n", "\r\n"))


@pytest.mark.parametrize("score", ["nan", "NA", "1.5", "inf"])
def test_a_score_that_is_no_confidence_is_none(tmp_path: Path, score: str) -> None:
    assert read_as(tmp_path, "a.ctm", f"a 1 0.5 0.5 hi {score}\n")["a"][0].confidence is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a 1 * 1 hi", "'*' or '1' of 'hi' is no number; a line is `file channel"),
        ("a 1 0.5 nan hi", "'0.5' or 'nan' of 'hi' is no number; a line is"),
        ("a 1 0.5 0.2", "has 4 fields: a 1 0.5 0.2; a line is `file channel start duration word"),
        ("a b 1 0.5 0.2 hi", "'hi' of '0.2' is no confidence: a name may hold a blank; a line is"),
        ("a 1 0.5 0.2 New York 0.5", "has 7 fields: a 1 0.5 0.2 New York 0.5; a line is"),
    ],
)
def test_a_bad_line_of_a_ctm_is_named(tmp_path: Path, line: str, problem: str) -> None:
    assert error_of(tmp_path, "a.ctm", f"a 1 0.0 0.5 ok\n;; 2\n{line}\n").startswith(f"a.ctm:3: {problem}")


def test_words_without_length_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_as(tmp_path, "a.ctm", "a 1 0.5 0 uh\na 1 0.5 0.2 hi\n") == {
        "a": (Word("hi", 0.5, 0.7, source="ctm"),)
    }
    assert "a.ctm: 1 words have no time or no length and leave holes; the first: 'uh', line 1" in caplog.text


def test_a_ctm_of_comments_or_silences_has_no_words(tmp_path: Path) -> None:
    assert read_as(tmp_path, "a.ctm", ";; nobody spoke\n") == {}
    assert read_as(tmp_path, "a.ctm", "a 1 0.5 0.2 <eps>\n") == {"a": ()}


# LibriSpeech alignments


def test_librispeech_ends_are_ends_and_empty_words_silences(tmp_path: Path) -> None:
    source = "librispeech-alignments"
    assert read_as(tmp_path, "84-121123.alignment.txt", LIBRISPEECH) == {
        "84-121123-0000": (
            Word("GO", 0.49, 0.89, source=source),
            Word("DO", 1.27, 1.38, source=source),
            Word("YOU", 1.38, 1.49, source=source),
            Word("HEAR", 1.49, 1.71, source=source),
        ),
        "84-121123-0001": (Word("BUT", 0.32, 0.51, source=source),),
    }


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('b ",GO," "0.4,0.8"', "3 words and silences but 2 ends; a line is `id"),
        ('b ",GO," "0.4,0.8,x"', "end 'x' of '' is no number; a line is"),
        ('b ",GO," "0.4,0.', 'is no alignment: b ",GO," "0.4,0.; a line is'),
        ('a ",GO," "0.4,0.8,0.9"', "'a' was there before; drop one of the two"),
    ],
)
def test_a_bad_line_of_librispeech_is_named(tmp_path: Path, line: str, problem: str) -> None:
    error = error_of(tmp_path, "a.alignment.txt", f'a ",BUT," "0.1,0.5,0.9"\r\n\r\n{line}\r\n')
    assert error.startswith(f"a.alignment.txt:3: {problem}")


# JSON


def test_whisperx_words_without_times_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = """{"segments": [
      {"start": 0.5, "end": 2.0, "text": " In 2014 we", "speaker": "SPEAKER_00", "words": [
        {"word": "In", "start": 0.509, "end": 0.609, "score": 0.812, "speaker": "SPEAKER_01"},
        {"word": "2014"},
        {"word": "we", "start": 1.0, "end": 1.5, "score": NaN},
        {"word": "are", "start": NaN, "end": 1.6}]},
      {"start": 3, "end": 4, "text": "Yes.", "words": [{"word": "Yes.", "start": 3, "end": 4, "score": 1}]}],
     "word_segments": [], "language": "en"}"""
    assert words_in(tmp_path, "a.json", text) == (
        Word("In", 0.509, 0.609, "SPEAKER_01", "whisperx", 0.812),
        Word("we", 1.0, 1.5, "SPEAKER_00", "whisperx"),
        Word("Yes.", 3.0, 4.0, None, "whisperx", 1.0),
    )
    assert "2 words have no time" in caplog.text


def test_whisper_timestamped_words_are_read(tmp_path: Path) -> None:
    words = [
        {"text": "Bonjour!", "start": 0.5, "end": 1.2, "confidence": 0.51},
        {"text": "[*]", "start": 1.2, "end": 1.4},
        {"text": "est-ce", "start": 1.4, "end": 1.9, "confidence": 0.965},
    ]
    document = {"text": " Bonjour! est-ce", "segments": [{"id": 0, "text": " Bonjour!", "words": words}]}
    assert words_in(tmp_path, "a.words.json", codecs.BOM_UTF8 + json.dumps(document).encode()) == (
        Word("Bonjour!", 0.5, 1.2, None, "whisper-timestamped", 0.51),
        Word("est-ce", 1.4, 1.9, None, "whisper-timestamped", 0.965),
    )


def test_whisper_words_lose_their_leading_space(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = [
        {"word": " Hello", "start": 0.0, "end": 0.4, "probability": 0.9},
        {"word": " uh", "start": 0.4, "end": 0.4, "probability": 0.2},
        {"word": " there.", "start": 0.4, "end": 0.9, "probability": 1e-3},
    ]
    document = {"text": " Hello", "segments": [{"text": " Hello", "words": words}, {"text": "", "start": 1}]}
    assert words_in(tmp_path, "a.json", json.dumps(document)) == (
        Word("Hello", 0.0, 0.4, None, "whisper", 0.9),
        Word("there.", 0.4, 0.9, None, "whisper", 0.001),
    )
    assert "1 words have no time or no length" in caplog.text


def test_nobody_spoke_is_no_error(tmp_path: Path) -> None:
    assert words_in(tmp_path, "a.json", '{"segments": []}') == ()
    assert words_in(tmp_path, "a.json", "[]") == ()
    assert words_in(tmp_path, "a.vtt", "WEBVTT\n") == ()
    assert words_in(tmp_path, "a.TextGrid", grid(("words", [(0.0, 9.0, "")]))) == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"segments": [\n{"words": [{"word": "a", "sta', "a.json:2: is not JSON (Unterminated string"),
        ('{"text": "hello"}', 'a.json: has no list "segments"; give a recogniser'),
        ('[{"start": 0}]', 'a.json: has no list "segments"; give a recogniser'),
        ('{"segments": [{"words": 3}]}', 'a.json: segment 1 has no list "words"; run the recogniser with'),
        ('[[1, 0, 0.5, 2.0, " a", [[0.5, 1.0, " a", 0.9], 5]]]', 'a.json: has no list "segments"; give a'),
        ('{"segments": [3]}', "a.json: segment 1 must be an object, got 3"),
        ('{"segments": [{"words": ["Hello"]}]}', "a.json: segment 1, word 1 must be an object, got 'Hello'"),
        (
            '{"segments": [{"words": [{"start": 1}]}]}',
            'a.json: segment 1, word 1: "word" must be text, got None',
        ),
        (
            '{"segments": [{"words": [{"word": "a", "start": "one", "end": 2}]}]}',
            "a.json: segment 1, word 1: \"start\" must be a number, got 'one'",
        ),
        ("[" * 100_000, "a.json: is not JSON (maximum recursion"),
    ],
)
def test_bad_json_is_named(tmp_path: Path, text: str, problem: str) -> None:
    assert error_of(tmp_path, "a.json", text).startswith(problem)


def test_a_number_too_large_for_a_time_is_no_time(tmp_path: Path) -> None:
    word = '{"word": "a", "start": 1, "end": 1' + "0" * 400 + "}"
    assert words_in(tmp_path, "a.json", f'{{"segments": [{{"words": [{word}]}}]}}') == ()


# Captions


def test_a_cues_time_is_shared_out_by_characters(tmp_path: Path) -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\nHello you\nthere\n\n2\n01:00:00,500 --> 01:00:01,500\nYes.\n"
    assert words_in(tmp_path, "a.srt", text) == (
        Word("Hello", 1.0, round(1 + 5 / 13, 6), None, "srt", 0.0),
        Word("you", round(1 + 5 / 13, 6), round(1 + 8 / 13, 6), None, "srt", 0.0),
        Word("there", round(1 + 8 / 13, 6), 2.0, None, "srt", 0.0),
        Word("Yes.", 3600.5, 3601.5, None, "srt", 0.0),
    )


def test_captions_as_players_take_them(tmp_path: Path) -> None:
    text = (
        "\ufeff1\r\n00:00:01,5 --> 00:00:02.5  X1:100 X2:200\r\n"
        "<i>Oh</i>, {\\an8}un<b>believ</b>able\r\n\r\n"
        "\r\n2\r\n0:03,000-->0:04,000\r\n\r\n3\r\n00:00:05,000 --> 00:00:06,000\r\n- [door slams]\r\n"
        '\r\n4\r\n00:00:03,000 --> 00:00:04,000\r\n<font color="#fff">I am</font>\r\n\r\n42\r\n\r\n'
        "5\r\n00:00:07,000 --> 00:00:08,000\r\n♪ AT&amp;T ♪"
    )
    words = words_in(tmp_path, "a.srt", text)
    assert [word.text for word in words] == ["Oh,", "unbelievable", "I", "am", "42", "AT&T"]
    assert [words[0].start, words[1].end, words[2].start, words[4].end] == [1.5, 2.5, 3.0, 4.0]
    assert words_in(tmp_path, "a", text) == words  # known without its suffix


@pytest.mark.parametrize(
    ("line", "speaker", "words"),
    [
        ("JOHN: Hello there", "JOHN", ["Hello", "there"]),
        ("- MRS. O'HARA: Hello", "MRS. O'HARA", ["Hello"]),
        (">> JOHN: Hello", "JOHN", ["Hello"]),
        ("[SPEAKER_00]: Hello", "SPEAKER_00", ["Hello"]),
        ("Speaker 2: Hello", "Speaker 2", ["Hello"]),
        ("JOHN (on phone): Hello", "JOHN", ["Hello"]),
        ("MRS. LEE [shouting] : Hello", "MRS. LEE", ["Hello"]),
        ("<b>JOHN:</b> Hello", "JOHN", ["Hello"]),
        ("JOHN:\nHello", "JOHN", ["Hello"]),
        ("Remember: at 10: 30", None, ["at", "10:", "30"]),  # said, or whoever Remember is
        ("as I said: Hello", None, ["as", "I", "said:", "Hello"]),
        ("12:30", None, ["12:30"]),
    ],
)
def test_a_name_before_a_colon_is_the_speaker(
    tmp_path: Path, line: str, speaker: str | None, words: list[str]
) -> None:
    found = words_in(tmp_path, "a.srt", f"1\n00:00:01,000 --> 00:00:02,000\n{line}\n")
    assert [(word.text, word.speaker) for word in found] == [(word, speaker) for word in words]


def test_a_speaker_lasts_to_the_next_one_or_the_cues_end(tmp_path: Path) -> None:
    text = (
        "WEBVTT - a title\nKind: captions\n\nSTYLE\n::cue { color: red }\n\nNOTE\nnot said\n\n"
        "intro\n01:00.000 --> 01:02.000 align:start\n<v.loud Ann B>Hi &lt;3</v> so\nBO: yes\nno\n\n"
        "NOTE not said\n\n00:01:02.000 --> 00:01:03.000\n&gt;&gt; CY: <c.yellow>well</c>\n\n"
        "01:03.000 --> 01:04.000\nfine"
    )
    words = words_in(tmp_path, "a.vtt", text)
    assert [(word.text, word.speaker) for word in words] == [
        ("Hi", "Ann B"),
        ("<3", "Ann B"),
        ("so", None),
        ("yes", "BO"),
        ("no", "BO"),
        ("well", "CY"),
        ("fine", None),
    ]
    assert (words[0].start, words[4].end, words[6].end) == (60.0, 62.0, 64.0)


def test_times_between_words_are_real_and_rolled_lines_read_once(tmp_path: Path) -> None:
    text = """WEBVTT

00:00:00.160 --> 00:00:02.310 align:start position:0%
 
hello<00:00:00.480><c> and</c><00:00:00.640><c> very welcome</c>

00:00:02.310 --> 00:00:02.320 align:start position:0%
hello and very welcome
 

00:00:02.320 --> 00:00:04.000 align:start position:0%
hello and very welcome
to<00:00:02.600><c> the</c>

00:00:04.000 --> 00:00:05.000 align:start position:0%
to the
[Music]
"""
    assert words_in(tmp_path, "a.vtt", text) == (
        Word("hello", 0.16, 0.48, None, "vtt"),
        Word("and", 0.48, 0.64, None, "vtt"),
        Word("very", 0.64, round(0.64 + 1.67 * 4 / 11, 6), None, "vtt", 0.0),  # two words between two times
        Word("welcome", round(0.64 + 1.67 * 4 / 11, 6), 2.31, None, "vtt", 0.0),
        Word("to", 2.32, 2.6, None, "vtt"),
        Word("the", 2.6, 4.0, None, "vtt"),
    )


def test_a_line_said_twice_is_read_twice_where_captions_do_not_roll(tmp_path: Path) -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\nyes\n\n00:02.000 --> 00:03.000\nyes\n"
    assert times(words_in(tmp_path, "a.vtt", text)) == [("yes", 1.0, 2.0), ("yes", 2.0, 3.0)]


def test_cues_keep_the_files_order(tmp_path: Path) -> None:
    text = "2\n00:00:03,000 --> 00:00:04,000\nlate\n\n1\n00:00:01,000 --> 00:00:02,000\nearly\n"
    assert times(words_in(tmp_path, "a.srt", text)) == [("late", 3.0, 4.0), ("early", 1.0, 2.0)]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "a.srt",
            "1\n00:00:01,000 --> 00:0",
            "a.srt:2: times cannot be read: 00:00:01,000 --> 00:0; a cue's",
        ),
        ("a.srt", "1\n00:00:01,000 --> later\nhi", "a.srt:2: times cannot be read"),
        ("a.srt", "only words\n", "a.srt: has no cue; a cue's times are 00:00:01,000 --> 00:00:02,000"),
    ],
)
def test_bad_cues_are_named(tmp_path: Path, name: str, text: str, problem: str) -> None:
    assert error_of(tmp_path, name, text).startswith(problem)


# Any file


@pytest.mark.parametrize("name", ["a.TextGrid", "a.ctm", "a.json", "a.srt", "a.vtt", "a.alignment.txt"])
def test_empty_and_binary_files_are_refused(tmp_path: Path, name: str) -> None:
    empty = f"{name}: is empty; write the alignment again, or leave the file out"
    assert error_of(tmp_path, name, b"") == empty
    assert error_of(tmp_path, name, codecs.BOM_UTF8 + b" \r\n") == empty
    png = error_of(tmp_path, name, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    assert png == f"{name}:1: byte 0x89 is not utf-8; save it as UTF-8 text"
    assert "is binary; save it as text" in error_of(tmp_path, name, "a".encode("utf-32-le"))
    latin = error_of(tmp_path, name, "a 1 0 1 hej\na 1 1 1 då\n".encode("latin-1"))
    assert latin == f"{name}:2: byte 0xe5 is not utf-8; save it as UTF-8 text"


def test_an_unknown_format_says_what_is_known(tmp_path: Path) -> None:
    error = error_of(tmp_path, "notes.txt", "Dear diary,\nnothing.\n")
    assert error.startswith("notes.txt: is no alignment that is known: Dear diary,; give a TextGrid, CTM, ")


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_alignment(tmp_path / "none.ctm")


def test_an_error_survives_pickling() -> None:
    error = AlignmentError("is empty", "leave it out", 3, "a.ctm")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "a.ctm:3: is empty; leave it out"


SAMPLES = {
    "a.TextGrid": LONG,
    "b.TextGrid": SHORT,
    "a.ctm": CTM,
    "a.alignment.txt": LIBRISPEECH,
    "a.json": '{"segments": [{"text": "a", "words": [{"word": "a", "start": 1e0, "end": 2, "score": 0.5}]}]}',
    "a.srt": "1\n00:00:01,000 --> 00:00:02,000\nJOHN: Hello <i>you</i>\n",
    "a.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>a<00:01.500>b\n",
}


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    at=st.integers(0, 1500),
    n_dropped=st.integers(0, 20),
    new=st.one_of(st.text(max_size=5), st.sampled_from(["-", "9e999", '"', "--> ", "nan", "\n\n", "<", ":"])),
)
def test_a_spoiled_file_gives_words_or_an_alignment_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: int, n_dropped: int, new: str
) -> None:
    at %= len(SAMPLES[name])
    spoiled = SAMPLES[name][:at] + new + SAMPLES[name][at + n_dropped :]
    with contextlib.suppress(AlignmentError):
        found = read_as(tmp_path_factory.getbasetemp(), name, spoiled)
        assert all(word.text.strip() for words in found.values() for word in words)

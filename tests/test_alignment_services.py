"""Words of speech services' JSON, of rarer subtitles and of ELAN, as their owners' documentation shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tgsr.data.alignments.reading import read_alignment
from tgsr.errors import AlignmentError

Read = list[tuple[str, float, float, str | None]]


def words(path: Path, text: str) -> Read:
    path.write_text(text, encoding="utf-8")
    (alignment,) = read_alignment(path).values()
    return [(word.text, word.start, word.end, word.speaker) for word in alignment.words]


def item(kind: str, content: str, *times: str, **more: str) -> dict[str, object]:
    named = dict(zip(("start_time", "end_time"), times, strict=False))
    return {"type": kind, "alternatives": [{"confidence": "0.9", "content": content}], **named, **more}


DEEPGRAM = {
    "metadata": {"channels": 1},
    "results": {
        "channels": [
            {
                "alternatives": [
                    {
                        "transcript": "Hello, you.",
                        "confidence": 0.99,
                        "words": [
                            {
                                "word": "hello",
                                "start": 0.1,
                                "end": 0.5,
                                "confidence": 0.9,
                                "punctuated_word": "Hello,",
                                "speaker": 0,
                            },
                            {
                                "word": "you",
                                "start": 0.5,
                                "end": 0.9,
                                "confidence": 0.9,
                                "punctuated_word": "you.",
                                "speaker": 1,
                            },
                        ],
                    }
                ]
            }
        ],
        "utterances": [],
    },
}
AMAZON = {
    "jobName": "a",
    "results": {
        "transcripts": [{"transcript": "Hello, you."}],
        "speaker_labels": {
            "segments": [
                {
                    "start_time": "0.1",
                    "end_time": "0.9",
                    "speaker_label": "spk_0",
                    "items": [{"start_time": "0.1", "speaker_label": "spk_0"}],
                },
                {"items": [{"start_time": "0.5", "speaker_label": "spk_1"}]},
            ]
        },
        "items": [
            item("pronunciation", "Hello", "0.1", "0.5"),
            item("punctuation", ","),
            item("pronunciation", "you", "0.5", "0.9"),
            item("punctuation", "."),
        ],
    },
    "status": "COMPLETED",
}
SPEECHMATICS = {
    "format": "2.9",
    "results": [
        {
            "type": "word",
            "start_time": 0.1,
            "end_time": 0.5,
            "alternatives": [{"content": "Hello", "confidence": 1.0, "speaker": "S1"}],
        },
        {
            "type": "punctuation",
            "attaches_to": "previous",
            "start_time": 0.5,
            "end_time": 0.5,
            "alternatives": [{"content": ","}],
        },
        {
            "type": "word",
            "start_time": 0.5,
            "end_time": 0.9,
            "alternatives": [{"content": "you.", "speaker": "S2"}],
        },
    ],
}


def google(start: str, end: str, *, nested: bool = False, tags: bool = False) -> dict[str, object]:
    """Two results; with tags the last one repeats all words, as Google's does."""

    def word(text: str, first: float, last: float, tag: int) -> dict[str, object]:
        def time(seconds: float) -> object:
            return {"seconds": "0", "nanos": round(seconds * 1e9)} if nested else f"{seconds:.3f}s"

        row = {"word": text, end: time(last), **({"speakerTag": tag} if tag else {})}
        return row | ({start: time(first)} if first else {})

    each = [[word("Hello,", 0.0, 0.5, 0)], [word("you.", 0.5, 0.9, 0)]]
    if tags:
        each.append([word("Hello,", 0.0, 0.5, 1), word("you.", 0.5, 0.9, 2)])
    return {"results": [{"alternatives": [{"transcript": "x", "words": of}]} for of in each]}


def azure(words_of: str) -> dict[str, object]:
    lexical = [
        {"word": "hello", "offsetInTicks": 1000000.0, "durationInTicks": 4000000.0, "confidence": 0.9},
        {"word": "you", "offsetInTicks": 5000000.0, "durationInTicks": 4000000.0, "confidence": 0.8},
    ]
    shown = [{**row, "displayText": text} for row, text in zip(lexical, ("Hello,", "you."), strict=True)]
    best = {"confidence": 0.9, "display": "Hello, you.", "words": lexical, words_of: shown}
    return {
        "recognizedPhrases": [
            {"recognitionStatus": "Success", "channel": 0, "speaker": 1, "nBest": [best, best]}
        ]
    }


WATSON = {
    "result_index": 0,
    "results": [
        {
            "final": True,
            "alternatives": [
                {
                    "transcript": "Hello, you. ",
                    "timestamps": [["Hello,", 0.1, 0.5], ["you.", 0.5, 0.9]],
                    "word_confidence": [["Hello,", 0.9], ["you.", 0.8]],
                }
            ],
        }
    ],
    "speaker_labels": [{"from": 0.1, "to": 0.5, "speaker": 0}, {"from": 0.5, "to": 0.9, "speaker": 1}],
}
REV = {
    "monologues": [
        {
            "speaker": 0,
            "elements": [
                {"type": "text", "value": "Hello", "ts": 0.1, "end_ts": 0.5, "confidence": 1.0},
                {"type": "punct", "value": ","},
                {"type": "punct", "value": " "},
            ],
        },
        {
            "speaker": 1,
            "elements": [
                {"type": "text", "value": "you", "ts": 0.5, "end_ts": 0.9},
                {"type": "punct", "value": "."},
            ],
        },
    ]
}
ELEVENLABS = {
    "language_code": "en",
    "text": "Hello, you. (laughs)",
    "words": [
        {"text": "Hello,", "type": "word", "start": 0.1, "end": 0.5, "speaker_id": "speaker_0"},
        {"text": " ", "type": "spacing", "start": 0.5, "end": 0.5, "speaker_id": "speaker_0"},
        {"text": "you.", "type": "word", "start": 0.5, "end": 0.9, "speaker_id": "speaker_1"},
        {"text": "(laughs)", "type": "audio_event", "start": 1.0, "end": 1.5, "speaker_id": "speaker_1"},
    ],
}
GLADIA = {
    "status": "done",
    "result": {
        "transcription": {
            "full_transcript": "Hello, you.",
            "utterances": [
                {
                    "start": 0.1,
                    "end": 0.5,
                    "speaker": 0,
                    "text": "Hello,",
                    "words": [{"word": "Hello,", "start": 0.1, "end": 0.5, "confidence": 1}],
                },
                {
                    "start": 0.5,
                    "end": 0.9,
                    "speaker": 1,
                    "text": "you.",
                    "words": [{"word": " you.", "start": 0.5, "end": 0.9}],
                },
            ],
        }
    },
}
SONIOX = {
    "tokens": [
        {"text": "Hel", "start_ms": 100, "end_ms": 300, "speaker": "1", "confidence": 0.9},
        {"text": "lo,", "start_ms": 300, "end_ms": 500, "speaker": "1"},
        {"text": " you.", "start_ms": 500, "end_ms": 900, "speaker": "2"},
        {"text": "<end>"},
    ]
}
FAST_AZURE = {
    "durationMilliseconds": 1000,
    "combinedPhrases": [{"text": "Hello, you."}],
    "phrases": [
        {
            "offsetMilliseconds": 100,
            "durationMilliseconds": 800,
            "text": "Hello, you.",
            "speaker": 1,
            "words": [
                {"text": "Hello,", "offsetMilliseconds": 100, "durationMilliseconds": 400},
                {"text": "you.", "offsetMilliseconds": 500, "durationMilliseconds": 400},
            ],
        }
    ],
}
PICOVOICE = {
    "transcript": "x",
    "words": [
        {"word": "Hello,", "start_sec": 0.1, "end_sec": 0.5, "confidence": 0.9, "speaker_tag": 1},
        {"word": "you.", "start_sec": 0.5, "end_sec": 0.9, "confidence": 0.9, "speaker_tag": -1},
    ],
}
DEEPSPEECH = {
    "transcripts": [
        {
            "confidence": -9.0,
            "words": [
                {"word": "Hello,", "start_time": 0.1, "duration": 0.4},
                {"word": "you.", "start_time": 0.5, "duration": 0.4},
            ],
        }
    ]
}


def said(one: str | None, other: str | None, start: float = 0.1) -> Read:
    return [("Hello,", start, 0.5, one), ("you.", 0.5, 0.9, other)]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(DEEPGRAM, said("speaker 0", "speaker 1"), id="deepgram"),
        pytest.param(AMAZON, said("spk_0", "spk_1"), id="amazon"),
        pytest.param(SPEECHMATICS, said("S1", "S2"), id="speechmatics"),
        pytest.param(google("startTime", "endTime"), said(None, None, 0.0), id="google"),
        pytest.param(google("startOffset", "endOffset"), said(None, None, 0.0), id="google-v2"),
        pytest.param(
            google("start_time", "end_time", nested=True), said(None, None, 0.0), id="google-nested"
        ),
        pytest.param(
            google("startTime", "endTime", tags=True), said("speaker 1", "speaker 2", 0.0), id="google-tags"
        ),
        pytest.param(
            {"done": True, "response": google("startTime", "endTime")},
            said(None, None, 0.0),
            id="google-long",
        ),
        pytest.param(WATSON, said("speaker 0", "speaker 1"), id="watson"),
        pytest.param(azure("displayWords"), said("speaker 1", "speaker 1"), id="azure"),
        pytest.param(FAST_AZURE, said("speaker 1", "speaker 1"), id="azure-fast"),
        pytest.param(REV, said("speaker 0", "speaker 1"), id="rev"),
        pytest.param(ELEVENLABS, said("speaker_0", "speaker_1"), id="elevenlabs"),
        pytest.param(GLADIA, said("speaker 0", "speaker 1"), id="gladia"),
        pytest.param(SONIOX, said("1", "2"), id="soniox"),
        pytest.param(PICOVOICE, said("speaker 1", None), id="picovoice"),
        pytest.param(DEEPSPEECH, said(None, None), id="deepspeech"),
    ],
)
def test_the_words_of_a_service_come_with_their_times_and_speakers(
    tmp_path: Path, document: object, expected: Read
) -> None:
    assert words(tmp_path / "heard.json", json.dumps(document)) == expected


def test_amazons_turns_say_who_speaks_where_its_words_do_not(tmp_path: Path) -> None:
    turns = [
        {"start_time": "0.0", "end_time": "0.5", "speaker_label": "spk_0"},
        {"start_time": "0.5", "end_time": "1.0", "speaker_label": "spk_1"},
    ]
    results = {**AMAZON["results"], "speaker_labels": {"speakers": 2, "segments": turns}}  # type: ignore[dict-item]
    assert words(tmp_path / "a.json", json.dumps({"results": results})) == said("spk_0", "spk_1")


def _paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*path, key))


@pytest.mark.parametrize("wrong", [None, 1, "x", [], [[]], {}, True])
def test_whatever_is_wrong_in_a_services_answer_is_an_error_of_the_file(
    tmp_path: Path, wrong: object
) -> None:
    path = tmp_path / "a.json"
    for document in (
        DEEPGRAM,
        AMAZON,
        SPEECHMATICS,
        google("startTime", "endTime"),
        WATSON,
        azure("words"),
        REV,
    ):
        for *outer, last in _paths(document):
            broken: Any = deepcopy(document)
            place = broken
            for key in outer:
                place = place[key]
            place[last] = wrong
            path.write_text(json.dumps(broken))
            with suppress(AlignmentError):
                read_alignment(path)


def test_channels_that_a_service_hears_apart_are_speakers(tmp_path: Path) -> None:
    channel = {"alternatives": [{"words": [{"word": "hi", "start": 0.1, "end": 0.5}]}]}
    heard = words(tmp_path / "a.json", json.dumps({"results": {"channels": [channel, channel]}}))
    assert heard == [("hi", 0.1, 0.5, "CH1"), ("hi", 0.1, 0.5, "CH2")]


def test_a_phrase_of_azures_sdk_is_read_from_its_ticks(tmp_path: Path) -> None:
    best = {"Confidence": 0.9, "Words": [{"Word": "hello", "Offset": 1000000, "Duration": 4000000}]}
    heard = words(tmp_path / "a.json", json.dumps({"RecognitionStatus": "Success", "NBest": [best]}))
    assert heard == [("hello", 0.1, 0.5, None)]


def test_a_service_without_times_for_words_is_said_to_have_none(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"results": [{"alternatives": [{"transcript": "hello"}]}]}))
    with pytest.raises(AlignmentError, match="no words with times"):
        read_alignment(path)


ASS = """[Script Info]
Title: x
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:09.00,Default,,0,0,0,,not shown
Dialogue: 0,0:00:02.00,0:00:03.00,Default,,0,0,0,,{\\i1}later{\\i0},
Dialogue: 0,0:00:00.00,0:00:01.00,Default,ANN,0,0,0,,{\\k40}a {\\k60}bc
Dialogue: 0,0:00:00.00,0:00:09.00,Default,,0,0,0,,{\\p1}m 0 0 l 9 9{\\p0}
"""
SBV = "0:00:00.000,0:00:01.000\nab\n\n0:00:02.000,0:00:03.000\ncd ef\n"
LRC = "[ar:x]\n[offset:+500]\n[00:01.50][00:05.50]ab\n[00:02.50]<00:02.50>c <00:03.00>d\n[00:04.50]\n"
TTML = """<?xml version="1.0" encoding="utf-8"?>
<tt xmlns="http://www.w3.org/ns/ttml" xmlns:ttp="http://www.w3.org/ns/ttml#parameter"
    xmlns:ttm="http://www.w3.org/ns/ttml#metadata" ttp:frameRate="25" ttp:tickRate="10000000">
 <head><metadata><ttm:agent xml:id="v1"><ttm:name>ANN</ttm:name></ttm:agent></metadata></head>
 <body><div>
  <p begin="00:00:00.000" end="00:00:01.000" ttm:agent="v1">ab</p>
  <p begin="2s" dur="1000ms">cd<br/>ef</p>
  <p begin="00:00:04:00" end="00:00:04:12">g</p>
  <p begin="50000000t" end="6.0"><span begin="5s">h</span> <span begin="5.5s">i</span></p>
 </div></body></tt>"""
TRANSCRIPT = (
    '<?xml version="1.0"?><transcript><text start="0" dur="1">it&amp;#39;s</text>'
    '<text start="2" dur="1">cd ef</text></transcript>'
)
TIMEDTEXT = (
    '<timedtext format="3"><body><p t="0" d="2000"><s>a</s><s t="500"> b</s></p>'
    '<p t="1500" a="1">\n</p></body></timedtext>'
)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.ass", ASS, [("a", 0.0, 0.4, "ANN"), ("bc", 0.4, 1.0, "ANN"), ("later,", 2.0, 3.0, None)]),
        ("a.sbv", SBV, [("ab", 0.0, 1.0, None), ("cd", 2.0, 2.5, None), ("ef", 2.5, 3.0, None)]),
        ("a.lrc", LRC, [("ab", 1.0, 2.0, None), ("c", 2.0, 2.5, None), ("d", 2.5, 4.0, None), ("ab", 5.0, 10.0, None)]),
        ("a.ttml", TTML, [
            ("ab", 0.0, 1.0, "ANN"), ("cd", 2.0, 2.5, None), ("ef", 2.5, 3.0, None), ("g", 4.0, 4.48, None),
            ("h", 5.0, 5.5, None), ("i", 5.5, 6.0, None),
        ]),
        ("a.xml", TRANSCRIPT, [("it's", 0.0, 1.0, None), ("cd", 2.0, 2.5, None), ("ef", 2.5, 3.0, None)]),
        ("a.xml", TIMEDTEXT, [("a", 0.0, 0.5, None), ("b", 0.5, 2.0, None)]),
    ],
)  # fmt: skip
def test_rarer_subtitles_are_read_by_what_they_say_and_by_their_suffix(
    tmp_path: Path, name: str, text: str, expected: Read
) -> None:
    assert words(tmp_path / name, text) == expected
    assert words(tmp_path / "called.txt", text) == expected


EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" FORMAT="3.0" VERSION="3.0">
 <TIME_ORDER>
  <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="0"/><TIME_SLOT TIME_SLOT_ID="ts2"/>
  <TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="1000"/><TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="2000"/>
 </TIME_ORDER>
 <TIER TIER_ID="A_Transcription" PARTICIPANT="Ann">
  <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
   <ANNOTATION_VALUE>ab</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3">
   <ANNOTATION_VALUE>cd ef</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
 </TIER>
 <TIER TIER_ID="B_Transcription" PARTICIPANT="Bo">
  <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts4">
   <ANNOTATION_VALUE>gh ij</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
 </TIER>
 <TIER TIER_ID="A_Translation" PARENT_REF="A_Transcription" PARTICIPANT="Ann">
  <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a1">
   <ANNOTATION_VALUE>no</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
 </TIER>
</ANNOTATION_DOCUMENT>"""


def test_elans_tiers_are_its_participants(tmp_path: Path) -> None:
    assert words(tmp_path / "a.eaf", EAF) == [
        ("ab", 0.0, 0.5, "Ann"),
        ("cd", 0.5, 0.75, "Ann"),
        ("ef", 0.75, 1.0, "Ann"),
        ("gh", 1.0, 1.5, "Bo"),
        ("ij", 1.5, 2.0, "Bo"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.xml", "<tt><body>", "is not XML"),
        ("a.xml", "<?xml version='1.0'?><html/>", "no subtitles that are known: <html>"),
        ("a.eaf", "<ANNOTATION_DOCUMENT/>", "no tier with times"),
        ("a.ass", "[Script Info]\n[Events]\nDialogue: 0,soon,later,x,,0,0,0,,hi\n", "times cannot be read"),
        ("a.sbv", "hello\n", "has no cue"),
        ("a.lrc", "[ar:x]\nhello\n", "has no line with a time"),
        ("a.ttml", "<tt><p begin='soon' end='2s'>x</p></tt>", "a time cannot be read: soon"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_file(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(AlignmentError, match=problem) as error:
        read_alignment(tmp_path / name)
    assert name in str(error.value)

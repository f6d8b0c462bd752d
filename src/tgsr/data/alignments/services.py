"""JSON of speech services, each as its owner's documentation shows it.

Deepgram, Amazon Transcribe, Google, Azure, IBM Watson, Speechmatics, Rev AI, ElevenLabs, Gladia, Soniox, Picovoice and
DeepSpeech. Where a service hears several channels apart, each is a speaker, CH1 the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain

from tgsr.data.alignments.json_rows import (
    CONFIDENCES,
    MS,
    Layout,
    Row,
    Times,
    name_of,
    number_of,
    objects_in,
    pieced,
    span_of,
    time_of,
)
from tgsr.data.alignments.timed import DECIMALS, Timed, number
from tgsr.errors import AlignmentError
from tgsr.timeline import Seconds

TICK: Seconds = 1e-7  # of Azure
SPAN = ("start_time", "end_time")

Place = tuple[str, Row]


def deepgram(document: Row) -> Iterable[Timed] | None:
    """`results.channels[].alternatives[0].words[]`; with signs where it wrote them."""
    if not isinstance(results := document.get("results"), dict) or "channels" not in results:
        return None
    channels = objects_in(results["channels"], "channel")
    found = []
    for n, (where, channel) in enumerate(channels, 1):
        for at, word in _best_words(channel, where):
            speaker = word.get("speaker", f"CH{n}" if len(channels) > 1 else None)
            text = word.get("punctuated_word") or word.get("word")
            found.append(_timed("deepgram", (at, word), text, span_of(word, at), speaker))
    return found


def amazon(document: Row) -> Iterable[Timed] | None:
    """Amazon Transcribe's `results.items[]`; a sign has no time and belongs to the word before it."""
    results = document.get("results")
    if not isinstance(results, dict) or "items" not in results:
        return None
    speakers: dict[str, object] = {}  # by when their words begin, as it is written
    turns: list[tuple[Times, object]] = []
    for key, of in (("speaker_labels", "segments"), ("channel_labels", "channels")):
        labels = results.get(key)
        for where, labelled in objects_in(labels.get(of) or [], of) if isinstance(labels, dict) else ():
            turns.append((span_of(labelled, where, SPAN), labelled.get("speaker_label")))
            for _, item in objects_in(labelled.get("items") or [], f"{where}, item"):
                speaker = item.get("speaker_label") or labelled.get("channel_label")
                speakers.setdefault(str(item.get("start_time")), speaker)
    words = _with_signs("amazon-transcribe", objects_in(results["items"], "item"), speakers)
    return [word if word.speaker else word._replace(speaker=_in_turn(word.start, turns)) for word in words]


def _in_turn(time: Seconds | None, turns: Sequence[tuple[Times, object]]) -> str | None:
    """Who speaks at a time."""
    for (start, end), speaker in turns:
        if None not in (time, start, end) and start <= time < end:  # type: ignore[operator]
            return name_of(speaker)
    return None


def speechmatics(document: Row) -> Iterable[Timed] | None:
    """Speechmatics' `results[]`, whose type says what is a word and what a sign."""
    results = document.get("results")
    if not (isinstance(results, list) and results and isinstance(results[0], dict) and "type" in results[0]):
        return None
    return _with_signs("speechmatics", objects_in(results, "result"), {})


def google(document: Row) -> Iterable[Timed] | None:
    """Google's `results[].alternatives[0].words[]`, of both versions, with "1.200s" or seconds and nanos.

    Where speakers are told, the last result has the words of all with them, and is all that is read.
    """
    response = document.get("response", document)
    if not isinstance(response, dict) or not isinstance(results := response.get("results"), list):
        return None
    rows = objects_in(results, "result")
    if not any("alternatives" in result for _, result in rows):
        return None
    words = [_best_words(result, where) for where, result in rows]
    tags = [any(_tag(word) for _, word in of_result) for of_result in words]
    chosen = words[-1:] if tags[-1] and not any(tags[:-1]) else words
    found = []
    for where, word in chain.from_iterable(chosen):
        span = (_clock(word, _STARTS, where) or 0.0, _clock(word, _ENDS, where))  # what is 0 is left out
        found.append(_timed("google", (where, word), word.get("word"), span, _tag(word)))
    return found


def watson(document: Row) -> Iterable[Timed] | None:
    """IBM's `results[].alternatives[0].timestamps`: [word, start, end]."""
    if not isinstance(results := document.get("results"), list):
        return None
    found = []
    speakers = {
        str(label.get("from")): label.get("speaker")
        for _, label in objects_in(document.get("speaker_labels") or [], "speaker label")
    }
    for where, result in objects_in(results, "result"):
        for at, alternative in objects_in(result.get("alternatives") or [], f"{where}, alternative")[:1]:
            stamps, sure = alternative.get("timestamps"), alternative.get("word_confidence")
            if not isinstance(stamps, list):
                return None
            for n, stamp in enumerate(stamps):
                if not isinstance(stamp, list) or len(stamp) != 3:
                    problem = f"{at}: a timestamp is [word, start, end], got {stamp!r:.60}"
                    raise AlignmentError(problem, "correct it")
                word: Row = dict(zip(("word", "start", "end"), stamp, strict=True))
                if isinstance(sure, list) and n < len(sure) and isinstance(sure[n], list):
                    word["confidence"] = next(iter(sure[n][1:]), None)
                place = (f"{at}, word {n + 1}", word)
                speaker = speakers.get(str(word["start"]))
                found.append(_timed("watson", place, word["word"], span_of(word, place[0]), speaker))
    return found or None


def azure(document: Row) -> Iterable[Timed] | None:
    """Azure's batch (`recognizedPhrases`), fast (`phrases`) and detailed (`NBest`) transcriptions, in order of time."""
    phrases = document.get("recognizedPhrases", document.get("phrases"))
    if "NBest" in document:
        phrases = [document]
    if not isinstance(phrases, list):
        return None
    rows = objects_in(phrases, "phrase")
    n_channels = len({str(phrase.get("channel")) for _, phrase in rows})
    found = []
    for where, phrase in rows:
        channel, speaker = phrase.get("channel"), phrase.get("speaker", phrase.get("SpeakerId"))
        if speaker is None and n_channels > 1:
            speaker = f"CH{channel + 1}" if isinstance(channel, int) else str(channel)
        best = phrase.get("nBest", phrase.get("NBest"))
        of = next(iter(objects_in(best, f"{where}, alternative")), ("", {}))[1] if best else phrase
        words = next((of[name] for name in _AZURE_WORDS if of.get(name)), [])
        for at, word in objects_in(words, f"{where}, word"):
            text = next((word[name] for name in _AZURE_TEXTS if name in word), None)
            found.append(_timed("azure", (at, word), text, _azure_span(word, at), speaker))
    return sorted(found, key=lambda word: word.start or 0.0)


def rev(document: Row) -> Iterable[Timed] | None:
    """Rev AI's `monologues[].elements[]`; signs and blanks are elements of their own."""
    if not isinstance(monologues := document.get("monologues"), list):
        return None
    found: list[Timed] = []
    for where, monologue in objects_in(monologues, "monologue"):
        for at, element in objects_in(monologue.get("elements") or [], f"{where}, element"):
            value = element.get("value")
            if element.get("type") == "punct":
                _sign(found, value)
            else:
                span = span_of(element, at, ("ts", "end_ts"))
                found.append(_timed("rev", (at, element), value, span, monologue.get("speaker")))
    return found


def eleven_labs(document: Row) -> Iterable[Timed] | None:
    """ElevenLabs' `words[]`, some of which are blanks and some sounds."""
    if not isinstance(words := document.get("words"), list):
        return None
    rows = objects_in(words, "word")
    if not any(row.get("type") == "spacing" or "speaker_id" in row for _, row in rows):
        return None
    said = [(where, row) for where, row in rows if row.get("type") != "spacing"]
    return _listed("elevenlabs", said, "speaker_id", ("start", "end"))


def gladia(document: Row) -> Iterable[Timed] | None:
    """Gladia's `result.transcription.utterances[].words[]`."""
    result = document.get("result", document)
    transcription = result.get("transcription") if isinstance(result, dict) else None
    if not isinstance(transcription, dict) or "utterances" not in transcription:
        return None
    found = []
    for where, utterance in objects_in(transcription["utterances"], "utterance"):
        for at, word in objects_in(utterance.get("words") or [], f"{where}, word"):
            text, speaker = str(word.get("word")).strip(), utterance.get("speaker")
            found.append(_timed("gladia", (at, word), text, span_of(word, at), speaker))
    return found


def soniox(document: Row) -> Iterable[Timed] | None:
    """Soniox' `tokens[]`, pieces of words in milliseconds; <end> and its like are no text."""
    if not isinstance(tokens := document.get("tokens"), list):
        return None
    rows = [
        (where, row)
        for where, row in objects_in(tokens, "token")
        if not re.fullmatch(r"<\w+>", str(row.get("text"))) and row.get("translation_status") != "translation"
    ]
    return pieced(_listed("soniox", rows, "speaker", ("start_ms", "end_ms"), MS))


def by_seconds(document: Row) -> Iterable[Timed] | None:
    """Picovoice's `words[]` (start_sec, end_sec) and DeepSpeech's `transcripts[0].words[]` (start_time, duration)."""
    transcripts = document.get("transcripts")
    if isinstance(transcripts, list) and transcripts and isinstance(transcripts[0], dict):
        document = transcripts[0]
    if not isinstance(words := document.get("words"), list) or not words or not isinstance(words[0], dict):
        return None
    is_picovoice = "start_sec" in words[0]
    if not (is_picovoice or ("start_time" in words[0] and "duration" in words[0])):
        return None
    found = []
    for at, row in objects_in(words, "word"):
        if is_picovoice:
            span = span_of(row, at, ("start_sec", "end_sec"))
            found.append(_timed("picovoice", (at, row), row.get("word"), span, _tag(row)))
        else:
            span = _begun(row, at, ("start_time", "duration"))
            found.append(_timed("deepspeech", (at, row), row.get("word"), span))
    return found


SERVICES: tuple[Layout, ...] = (
    *(deepgram, amazon, speechmatics, watson, google, azure, rev, eleven_labs, gladia, soniox),
    by_seconds,
)


# --- their words ---------------------------------------------------------------------------------------------------

_AZURE_WORDS = ("displayWords", "DisplayWords", "words", "Words")
_AZURE_TEXTS = ("displayText", "word", "Word", "text")
_STARTS = ("startTime", "startOffset", "start_time", "start_offset")
_ENDS = ("endTime", "endOffset", "end_time", "end_offset")
_TAGS = ("speakerTag", "speakerLabel", "speaker_tag", "speaker_label")


def _timed(source: str, place: Place, text: object, span: Times, speaker: object = None) -> Timed:
    where, row = place
    if not isinstance(text, str):
        raise AlignmentError(f"{where}: its word must be text, got {text!r:.60}", "correct it")
    confidence = number_of(row, CONFIDENCES, where)
    return Timed(source, text, *span, None, name_of(speaker), confidence, where=f"{where}: ")


def _listed(
    source: str, rows: Sequence[Place], speaker: str, names: tuple[str, str], unit: Seconds = 1.0
) -> list[Timed]:
    """The rows as words, by the names that a service has for speaker and times."""
    found = []
    for where, row in rows:
        span = span_of(row, where, names, unit)
        found.append(_timed(source, (where, row), row.get("text"), span, row.get(speaker)))
    return found


def _best_words(row: Row, where: str) -> list[Place]:
    """The words of the row's first alternative."""
    at, best = _first(row, where)
    return objects_in(best.get("words") or [], f"{at}, word")


def _first(row: Row, where: str) -> Place:
    """The row's first alternative; an empty one where it has none."""
    alternatives = objects_in(row.get("alternatives") or [], f"{where}, alternative")
    return alternatives[0] if alternatives else (where, {})


def _with_signs(source: str, items: Sequence[Place], speakers: dict[str, object]) -> list[Timed]:
    """Items of a type each, whose first alternative has the content."""
    found: list[Timed] = []
    for where, item in items:
        _, best = _first(item, where)
        if item.get("type") == "punctuation":
            _sign(found, best.get("content"))
            continue
        speaker = best.get("speaker") or item.get("speaker_label")
        speaker = speaker or speakers.get(str(item.get("start_time")))
        span = span_of(item, where, SPAN)
        found.append(_timed(source, (where, best), best.get("content"), span, speaker))
    return found


def _sign(found: list[Timed], text: object) -> None:
    """A sign goes to the word before it."""
    if found and isinstance(text, str) and text.strip():
        found[-1] = found[-1]._replace(text=found[-1].text + text.strip())


def _tag(word: Row) -> object:
    """Who says a word of Google's or Picovoice's; None for 0, which is nobody, and below."""
    tag = next((word[name] for name in _TAGS if word.get(name)), None)
    if isinstance(tag, str):
        return tag
    return tag if isinstance(tag, int) and tag > 0 else None


def _clock(word: Row, names: Sequence[str], where: str) -> Seconds | None:
    """Seconds of "1.200s", of {"seconds": "1", "nanos": 200000000}, of a number."""
    name = next((name for name in names if word.get(name) is not None), None)
    value = word[name] if name else None
    if isinstance(value, dict):
        whole, nanos = (number(str(value.get(key, 0))) for key in ("seconds", "nanos"))
        if whole is not None and nanos is not None:
            return round(whole + nanos * 1e-9, DECIMALS)
    if isinstance(value, str) and value.endswith("s") and (seconds := number(value[:-1])) is not None:
        return seconds
    return time_of(word, name, where) if name else None


def _begun(row: Row, where: str, names: tuple[str, str], unit: Seconds = 1.0) -> Times:
    """A time and how long from there."""
    start, length = span_of(row, where, names, unit)
    return start, None if start is None or length is None else round(start + length, DECIMALS)


def _azure_span(word: Row, where: str) -> Times:
    if "offsetMilliseconds" in word:
        return _begun(word, where, ("offsetMilliseconds", "durationMilliseconds"), MS)
    names = ("offsetInTicks", "durationInTicks") if "offsetInTicks" in word else ("Offset", "Duration")
    return _begun(word, where, names, TICK)

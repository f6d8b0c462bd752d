"""Whose words a question asks about: "What does speaker B say?", "In the left channel, ...", a diarisation's names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tgsr.answering.citing import COMMON, bare_words

# SPEAKER_01, CH1, spk-b, B
LABEL = re.compile(r"(?:speaker|spkr?|channel|ch|voice)?[\s_-]*0*(\w+)", re.IGNORECASE)
NOUN = r"(?:speaker|channel|voice|caller|participant|spk|ch)"
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
CALLED = re.compile(
    rf"\b{NOUN}(?:[\s_#-]*(\d{{1,3}})|\s+({'|'.join(NUMBERS)})|[\s_-]+((?-i:[A-Zb-hj-rt-z])))\b(?!['’])",
    re.IGNORECASE,
)  # "is the speaker a man" names nobody
NTH = re.compile(rf"\b({'|'.join(ORDINALS)}) {NOUN}\b", re.IGNORECASE)
SIDE = re.compile(
    r"\b(left|right)(?:[- ]hand)?[- ](?:channel|side|speaker|voice|caller|track)\b", re.IGNORECASE
)
LETTERS = 3  # of a name that counts without "speaker" before it


@dataclass(frozen=True, slots=True)
class Named:
    """The speakers whom a question names, and how it names those who are not there, in its own words.

    `about` is the question without their names, which they do not say themselves: "What did they say about lunch?"
    """

    speakers: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    about: str = ""


def named(question: str, speakers: Sequence[str]) -> Named:
    """Which of the speakers the question names; `speakers` are in the order in which they begin to speak.

    A name counts wherever it stands, as does a part of it that is one speaker's alone; a label (SPEAKER_01, CH2, B) as
    it is, or after "speaker" or "channel"; "the second speaker" is the second one to speak, "the left channel" CH1.
    """
    found: dict[str, None] = {}
    unknown: dict[str, None] = {}
    written: list[str] = []
    said = f" {' '.join(bare_words(question.replace('_', ' ')))} "
    parts = [set(bare_words(speaker.replace("_", " "))) for speaker in speakers]
    for speaker, own in zip(speakers, parts, strict=True):
        whole = " ".join(bare_words(speaker.replace("_", " ")))
        names = {whole} | {part for part in own if sum(part in others for others in parts) == 1}
        for name in sorted(names, key=len, reverse=True):
            if _is_name(name, speaker, question) and f" {name} " in said:
                found[speaker] = None
                letters = r"[\W_]+".join(map(re.escape, name.split()))
                called = re.escape(speaker) if name in COMMON else f"(?i:{letters})"
                written += re.findall(rf"\b{called}\b", question)
    labels = {match[1].casefold(): one for one in speakers if (match := LABEL.fullmatch(one))}
    in_order = sorted(speakers) if all(one.startswith("CH") for one in speakers) else list(speakers)
    matches = []
    for match in CALLED.finditer(question):
        number, word, letter = match.groups()
        number = number or (word and NUMBERS.index(word.casefold()))
        key = letter.casefold() if letter else str(int(number))
        matches.append((match[0], labels.get(key)))
    for match in NTH.finditer(question):
        place = ORDINALS.index(match[1].casefold())
        matches.append((match[0], in_order[place] if place < len(in_order) else None))
    for match in SIDE.finditer(question):
        side = "CH1" if match[1].casefold() == "left" else "CH2"
        matches.append((match[0], side if side in speakers else None))
    for called, who in matches:
        if who is None:
            unknown[called] = None
        else:
            found[who] = None
            written.append(called)
    return Named(tuple(found), tuple(unknown), _without(question, written))


def _is_name(name: str, speaker: str, question: str) -> bool:
    """Not a part that is too short, a number, or a word like "will", unless it is written as the speaker is."""
    if len(name) < LETTERS or name.isdecimal() or name in ("speaker", "channel", "voice"):
        return False
    return name not in COMMON or re.search(rf"\b{re.escape(speaker)}\b", question) is not None


def _without(question: str, names: Sequence[str]) -> str:
    """The question with "they" for the names, and without "in the left channel", "by Anna"."""
    for name in sorted(names, key=len, reverse=True):
        named = rf"((?i:\b(?:in|on|by|from|to|of)\s+))?(?i:\bthe\s+)?\b{re.escape(name)}\b"
        question = re.sub(named, lambda match: "" if match[1] else "they", question)
    return question

"""What stands among words and is none: silences, sounds, and marks of something said that nobody wrote down."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

Kind = Literal["silence", "unknown"]

SILENCES = {"", "sil", "sp", "!sil", "nsn"}
UNKNOWN = {"spn", "xxx", "[*]"}  # [*] is whisper-timestamped's hesitation

_BRACKETS = re.compile(r"\[.*\]|<.*>|\{.*\}|\*[^*]+\*", re.DOTALL)
_PARENTHESES = re.compile(r"\(.*\)", re.DOTALL)  # heard or not
_INSIDE = re.compile(r"[\[<{][^\[\]<>{}]*[\]>}]")  # th[at]: a part of a word
_LETTERS = re.compile(r"[^\W_]")
_NOTES = re.compile(r"[♪♫♬♩]")
_SPOKEN_SIGNS = re.compile(r"[&%@$€£¥=°§]")
_FILLED = re.compile(r"&[=~+*-]\S+|%[^\W\d]+")  # &-uh and &=laughs of CHAT, %HESITATION
_CHANGE = re.compile(r">>+")  # of speaker
_SOMETHING_SAID = re.compile(
    r"unk|oov|spn|spok|inaud|unint|indist|cross|foreign|speak|speech|talk|voice|chatter|overlap|xxx|\?|redact|bleep"
    r"|censor|bracket|cutoff|exclude|iver|laugh\w*-|\b(?:uh|um|er|fp|hes)",
    re.IGNORECASE,
)
_NAME = re.compile(r"\[?(?!.*[a-zà-ÿ])[^\W\d_]{2,}[\w.'-]*\]?:")


@lru_cache(maxsize=1 << 16)  # a language has few words
def kind(text: str) -> Kind | None:
    """What stands for a text that is no word: silence, which may be a sound, or something unknown; None for a word.

    Silence are `sil`, `[laughter]`, `{NS}`, `<noise>`, `*coughs*`, `#`, `+` and other signs alone; unknown are `<unk>`,
    `spn`, `((...))`, `(laughs, or words)`, `>>` and `JOHN:`.
    """
    plain = text.casefold()
    if plain in SILENCES:
        return "silence"
    if plain in UNKNOWN or any(pattern.fullmatch(text) for pattern in (_FILLED, _CHANGE, _NAME)):
        return "unknown"
    if _BRACKETS.fullmatch(text):
        # [ __ ] is a word that was cut out
        is_word = _SOMETHING_SAID.search(text) or not _LETTERS.search(text)
        return "unknown" if is_word and not _NOTES.search(text) else "silence"
    if _PARENTHESES.fullmatch(text) or _INSIDE.search(text):
        return "unknown"
    if not _LETTERS.search(text) and not _SPOKEN_SIGNS.search(text):
        return "silence"
    return None


OPENERS = {"[": "]", "(": ")", "{": "}", "<": ">"}
MOST_WORDS = 12  # of a mark


def marks_joined(texts: list[str]) -> list[int]:
    """How many neighbouring texts make one, for the first of each: a mark whose brackets hold several words is one.

    ["a", "(upbeat", "music)"] gives [1, 2, 0].
    """
    sizes = [1] * len(texts)
    for first, text in enumerate(texts):
        close = OPENERS.get(text[:1])
        if sizes[first] == 0 or close is None or close in text:
            continue
        for last in range(first + 1, min(first + MOST_WORDS, len(texts))):
            if texts[last].rstrip(".,!?;:").endswith(close):
                sizes[first : last + 1] = [last - first + 1, *[0] * (last - first)]
                break
            if texts[last][:1] in OPENERS:
                break
    return sizes

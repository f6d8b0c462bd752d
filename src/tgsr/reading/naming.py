"""How a text names the options of a question: by a letter, by a choice's own words, or by both."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tgsr.reading.other_languages import BUTS, IS, word_set

CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
WRAPS = "*_`\"'$~ \t"
"""Emphasis, quotes and the like, which say nothing themselves."""

# A number with its sign and point is one word, so are "2nd" and a note with its sharp; Chinese has a word a character.
_WORD = re.compile(
    rf"(?:(?<![\w.)\]%])[-+])?\d+(?:(?:st|nd|rd|th)\b|(?:[.,:/]\d+)*%?)|[^\W\d_{CJK}]+(?:'[^\W\d_{CJK}]+)*[#♯♭]?|[{CJK}]"
)
_IS_CJK = re.compile(f"[{CJK}]").match
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad\ufe0f]")
_SAME = str.maketrans("’‘“”−，。、【】", "''\"\"-,.,[]")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_LATEX = re.compile(r"\\(?:[A-Za-z]+|.)")
_CAPITAL = re.compile(r"(?<!\w)(?:[AI](?!\w| [a-z])|[B-HJ-Z](?!\w))")  # no article
_NEW = re.compile(r"[,/&+]\s*$|\n")  # before a text, which is then no repetition of the letter before it
LETTERED = re.compile(r"^\s*\(?([A-Za-z])\s*[).:]\s*")
_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    *("nineteen", "twenty"),
)
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
_SAME_NUMBER = {word: str(value) for value, word in enumerate(_NUMBERS)}
_SAME_NUMBER |= {"thirty": "30", "forty": "40", "fifty": "50", "sixty": "60"}
_SAME_NUMBER |= dict(zip(_ORDINALS, ("1st", "2nd", "3rd", "4th", "5th", "6th"), strict=True))
_PLACE_OF = {word: place for place, name in enumerate(_ORDINALS) for word in (name, _SAME_NUMBER[name])}
_PLACE_COUNTED = {word: place for place, name in enumerate(_NUMBERS[1:7]) for word in (name, str(place + 1))}
_SAME_NUMBER |= {digits: word for word, digits in _SAME_NUMBER.items()}
# What a number may be written with, too: "00:05" is "0:05", "1,000" is "1000", "3.50" is "3.5".
_LEADING_ZEROS = re.compile(r"\A0+(?=\d)")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+")
_TRAILING_ZEROS = re.compile(r"(?<=\d)\.0+\Z|(?<=\.)(\d*[1-9])0+\Z")
_UNITS = {
    "seconds": ("s", "sec", "secs", "second", "seconds"),
    "minutes": ("min", "mins", "minute", "minutes"),
    "milliseconds": ("ms", "msec", "millisecond", "milliseconds"),
    "hertz": ("hz", "hertz"),
    "decibels": ("db", "decibel", "decibels"),
}
_UNIT = {name: unit for unit, names in _UNITS.items() for name in names}
_TIME = r"(\d+(?:\.\d+)?|\d+:\d\d)\s?(?:(s|secs?|seconds?)\b)?"
_TIMES = re.compile(
    rf"(?:(?:at|from|between)\s)?{_TIME}(?:\s?(?:[-–—~]|to|and)\s?{_TIME})?\.?", re.IGNORECASE
)
_COMPOUND: dict[str, list[str]] = {}  # "twenty five" is "25", and "25" that
for _tens, _ten in enumerate(
    ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2
):
    for _ones, _one in enumerate(_NUMBERS[1:10], 1):
        _COMPOUND |= {f"{_ten} {_one}": [f"{_tens}{_ones}"], f"{_tens}{_ones}": [_ten, _one]}
_ARTICLES = ("a", "an", "the")
STOP = re.compile(r"[.…](?=[\s\"')\]*]|$)|[\n|!?;]|\.{2}")
"""What ends a sentence, between two words."""
_STOP_WITHIN = re.compile(r"[.…!?;]\s|[\n|]")


def without_letters(texts: Sequence[str]) -> list[str]:
    """The choices without the letters that a benchmark's file may write before them, "(A) Man" as "Man".

    As they are where one has none, or another's; a blank one has its place, and no letter.
    """
    found = [(index, LETTERED.match(text)) for index, text in enumerate(texts) if text.strip()]
    are_lettered = all(match and ord(match[1].lower()) - 97 == index for index, match in found)
    return [LETTERED.sub("", text, count=1) for text in texts] if are_lettered else list(texts)


def folded(text: str) -> str:
    """Full-width and curly characters as their plain ones, without invisible ones and LaTeX's commands."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).translate(_SAME)
    if "\\" not in text:
        return text
    if "\\u" in text:
        text = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text).translate(_SAME)
    return _LATEX.sub(" ", text)


def count_words(text: str) -> int:
    """How many words, numbers and Chinese characters the text has."""
    return sum(1 for _ in _WORD.finditer(folded(text)))


def _lowered(word: str) -> str:
    if not word[-1].isdigit():
        return _LEADING_ZEROS.sub("", word.lower())
    word = _LEADING_ZEROS.sub("", word)
    if "," in word:
        return word.replace(",", "") if _THOUSANDS.fullmatch(word) else word
    return _TRAILING_ZEROS.sub(r"\1", word) if "." in word else word


def _alike(words: Sequence[str]) -> list[str]:
    """The words of a choice, or of a text where one may stand: "in the kitchen" is "in a kitchen", "3 s" "3 sec"."""
    return [
        "a"
        if word in _ARTICLES
        else _UNIT[word]
        if word in _UNIT and i and words[i - 1][-1].isdigit()
        else word
        for i, word in enumerate(words)
    ]


def _written_otherwise(text: str, words: Sequence[str]) -> list[list[str]]:
    """Other words for a time, two times or a percentage: "3-5 s" is "3 s to 5 s", "0:05" "5 seconds"."""
    if len(words) == 2 and words[1] == "percent":
        return [[words[0] + "%"]]
    if len(words) == 1 and words[0].endswith("%"):
        return [[words[0][:-1], "percent"]]
    if len(words) < 3 and " ".join(words) in _COMPOUND:
        return [_COMPOUND[" ".join(words)]]
    match = _TIMES.fullmatch(text.strip())
    if match is None:
        return []
    first, unit, second, last_unit = match.groups()
    unit = last_unit or unit
    if second is None:
        return _time(first, unit)
    ends = [(a, b) for a in _time(first, unit) for b in _time(second, unit)]
    ends += [(a[:1], b) for a, b in ends if len(a) == 2]
    return [[*a, *join, *b] for a, b in ends for join in ([], ["to"], ["and"])]


def _time(number: str, unit: str | None) -> list[list[str]]:
    """The words for a time: in seconds and as m:ss; a number without a unit is itself alone."""
    if ":" in number:
        minutes, seconds = map(int, number.split(":"))
        return [[_lowered(number)], [str(60 * minutes + seconds), "seconds"]]
    number = _lowered(number)
    if unit is None:
        return [[number]]
    clock = [[f"{int(number) // 60}:{int(number) % 60:02}"]] if number.isdecimal() else []
    return [[number, "seconds"], *clock]


class Words:
    """The words of a text: lower-cased, as they are written, with what stands before each and after the last.

    `alike` has one word for all articles. `starts` and `ends` are their places in text, but where folding moved them:
    there they are their whole part's.
    """

    def __init__(self) -> None:
        self.low: list[str] = []
        self.alike: list[str] = []
        self.raw: list[str] = []
        self.gaps: list[str] = [""]
        self.starts: list[int] = []
        self.ends: list[int] = []

    def __len__(self) -> int:
        return len(self.low)

    def add(self, text: str, first: int, last: int) -> None:
        """The words of text[first:last] after those that are already there."""
        part = text[first:last]
        plain = folded(part)
        is_in_place = len(plain) == len(part)
        end = 0
        for match in _WORD.finditer(plain):
            start, word = match.start(), match[0]
            self.gaps[-1] += plain[end:start]
            self.gaps.append("")
            end = match.end()
            self.raw.append(word)
            self.low.append(_lowered(word))
            self.starts.append(first + start if is_in_place else first)
            self.ends.append(first + end if is_in_place else last)
        self.gaps[-1] += plain[end:]
        self.alike = _alike(self.low)

    def before(self, i: int) -> str:
        """The word before the one at `i`; "" where there is none."""
        return self.low[i - 1] if i else ""

    def after(self, i: int) -> str:
        """The word after the one at `i`; "" where there is none."""
        return self.low[i + 1] if i + 1 < len(self.low) else ""


@dataclass(frozen=True, slots=True)
class _Choice:
    words: list[str]
    text: str
    index: int


class Options:
    """The choices of a question as a reader looks for them. `n_letters` of them may be called by their letter."""

    def __init__(self, choices: Sequence[str | None], n_letters: int | None = None) -> None:
        self.texts = tuple(without_letters([(choice or "").strip() for choice in choices]))
        self.low_texts = {text.lower().rstrip(".!") for text in self.texts}
        self.n_letters = len(choices) if n_letters is None else n_letters
        self.last_letter = chr(96 + min(self.n_letters, 26))
        self.starting: dict[str, list[_Choice]] = {}
        plain = enumerate(map(folded, self.texts))
        named = [_Choice([*map(_lowered, _WORD.findall(text))], text, index) for index, text in plain]
        written = [choice.words for choice in named]
        for one in named:
            numbered = [_SAME_NUMBER.get(word, word) for word in one.words]  # "two times" is "2 times", too
            forms = [one.words] if numbered in written else [one.words, numbered]
            forms += [
                words for words in _written_otherwise(one.text, one.words) if words not in (*written, *forms)
            ]
            # "library" is "A library", but "minor" isn't "A minor".
            if _is_said_bare(one.words) and not self.letters:
                forms += [words[1:] for words in forms if words[1:] not in written]
            for words in filter(None, forms):
                alike = _alike(words) if len(words) > 1 else words
                self.starting.setdefault(words[0], []).append(_Choice(alike, one.text, one.index))
        self.counts = _counts(named)
        for choices_there in self.starting.values():
            choices_there.sort(key=lambda choice: -len(choice.words))

    @cached_property
    def letters(self) -> set[str]:
        """The single letters that are words of the choices, in lower case."""
        return {capital.lower() for text in self.texts for capital in _CAPITAL.findall(folded(text))}

    def with_word(self, word: str) -> list[int]:
        """The choices that have the ordinal among their words: of "the last bell", "the last one" is that."""
        same = (word, _SAME_NUMBER.get(word))
        return [i for i, text in enumerate(self.texts) if any(w in same for w in _WORD.findall(text.lower()))]

    def are_same(self, index: int | None, other: int | None) -> bool:
        """Whether both are one option, or two of one text."""
        if index is None or other is None:
            return False
        return index == other or self.texts[index : index + 1] == self.texts[other : other + 1]


def _is_said_bare(words: Sequence[str]) -> bool:
    """Whether a choice may be said without the article that it begins with."""
    if len(words) < 2 or words[0] not in _ARTICLES:
        return False
    rest = words[1]
    return len(words) > 2 or (len(rest) > 1 and rest not in _COMMON and rest not in _DETERMINERS)


def _counts(named: Sequence[_Choice]) -> dict[str, int]:
    """The choices by their number where all are so many of one thing, "2 speakers" and "3 speakers"; else {}."""
    counts = {one.words[0]: one.index for one in named if one.words}
    if len(counts) < len(named) or not all(word in _NUMBERS or word[-1].isdigit() for word in counts):
        return {}
    thing, *others = {"".join(one.words[1:]).rstrip("s") for one in named} or ("",)
    if others or not thing.isalpha():
        return {}
    return counts | {_SAME_NUMBER[word]: index for word, index in counts.items() if word in _SAME_NUMBER}


@dataclass(slots=True)
class Mention:
    """An option named by words[first:last]; `index` None where it cannot be told which.

    A letter that stands before another option's whole text is `against` it.
    """

    first: int
    last: int
    index: int | None
    is_letter: bool = False
    is_against: bool = False


def mentions(words: Words, start: int, options: Options) -> list[Mention]:
    """The options that the words name, in order. A statement's own part begins at the word `start`."""
    found: list[Mention] = []
    low, n, starting, last_letter = words.low, len(words.low), options.starting, options.last_letter
    i = 0
    while i < n:
        word = low[i]
        may_be_letter = len(word) == 1 and "a" <= word <= last_letter
        is_named = may_be_letter or word in starting or word in _PLACED or word in options.counts
        mention = _mention_at(words, i, start, options) if is_named else None
        if mention is None:
            i += 1
            continue
        i = mention.last
        before = found[-1] if found else None
        if before is not None and before.last == mention.first and before.is_letter != mention.is_letter:
            is_same = options.are_same(before.index, mention.index)
            is_same = is_same or _may_name(words, mention, before, options)
            if is_same or (before.is_letter and not _NEW.search(words.gaps[mention.first])):  # "B. Woman"
                before.index = before.index if before.is_letter else mention.index
                before.is_against = not is_same
                before.is_letter = True
                before.last = mention.last
                continue
        found.append(mention)
    if any(mention.is_letter for mention in found):
        found = sorted([*found, *_lone_letters(words, found, options)], key=lambda mention: mention.first)
    return found


def _lone_letters(words: Words, found: Sequence[Mention], options: Options) -> list[Mention]:
    """Capitals before a mark or the end, which are an option's beside another letter: "B as well as C", "B vs C"."""
    taken = {i for mention in found for i in range(mention.first, mention.last)}
    return [
        Mention(i, i + 1, ord(word) - 97, is_letter=True)
        for i, word in enumerate(words.low)
        if len(word) == 1
        and "a" <= word <= options.last_letter
        and i not in taken
        and words.raw[i].isupper()
        and word not in options.letters
        and not (i and words.gaps[i] in ("", "-", "'"))
        and (
            i + 1 == len(words) or words.gaps[i + 1].strip(WRAPS)[:1] in (",", ".", ";", ")", "!", "?", "\n")
        )
        and not (words.gaps[i + 1].startswith(".") and words.after(i) and words.raw[i + 1][:1].isupper())
    ]


def _may_name(words: Words, mention: Mention, before: Mention, options: Options) -> bool:
    """Whether a text that could be several options' is that of the letter before it."""
    said = " ".join(words.low[mention.first : mention.last])
    is_text = before.is_letter and before.index is not None and mention.index is None
    return is_text and options.texts[before.index or 0].lower() == said


def _mention_at(words: Words, i: int, start: int, options: Options) -> Mention | None:
    word = words.low[i]
    text = _text_at(words, i, start, options) if word in options.starting else None
    if word in _PLACED and (placed := _placed_at(words, i, start, options)) is not None:
        return placed
    if text is None and word in options.counts and _is_alone(words, i, start):
        return Mention(i, i + 1, options.counts[word])
    if len(word) != 1 or not "a" <= word <= options.last_letter:
        return text
    letter = Mention(i, i + 1, ord(word) - 97, is_letter=True)
    is_alone = text is None or text.last == i + 1
    mark = _mark(words, i, start)
    if mark == "call" and text is not None and is_alone and ":" in words.gaps[i]:
        mark = ""  # "Answer: C" announces it
    if mark == "bracket" or (mark == "call" and is_alone) or (mark == "quote" and text is None):
        return letter
    if text is None:
        is_letter = _is_letter(words, i, start, options) or _is_before_its_text(words, letter, options)
        return letter if is_letter else None
    if not is_alone or text.index == letter.index:
        return text
    # A choice's text is a letter that another choice has. "C. E" is letter and text, "C (a)" text and letter. Alone,
    # "C", "C." or "The answer is C.", it is the text, as it was asked for and is written; "c" nobody knows.
    if _is_before_its_text(words, letter, options):
        return letter
    begins_another = words.after(i) in options.starting and words.gaps[i + 1].strip() in (".", ":", ")")
    if not begins_another and text.index is not None and words.raw[i] == options.texts[text.index]:
        return text
    if i + 1 < len(words) and _mark(words, i + 1, start) == "bracket":
        return text
    return Mention(i, i + 1, None)


def _placed_at(words: Words, i: int, start: int, options: Options) -> Mention | None:
    """ "the second option", "option 2", "the last one", "the latter"; unclear which where it is another's text."""
    word, after, gap = words.low[i], words.after(i), words.gaps[i + 1].strip(WRAPS + "#(")
    is_called = after in _OPTION and not gap and words.before(i) != "my"
    if word in _OPTION:
        named, place = after, -1 if gap else _PLACE_COUNTED.get(after, -1)
    elif word == "第" or word == "最":
        return _placed_in_chinese(words, i, start, options)
    elif word in _OF_TWO:
        is_said = is_called or _is_whole(words, i, i + 1, start)
        place = _OF_TWO.index(word) if is_said and len(options.texts) == 2 else -1
        return None if place < 0 else Mention(i, i + 1 + is_called, place, is_letter=True)
    else:
        is_one = after == "one" and not gap and _is_whole(words, i, i + 2, start)
        named, place = word, _PLACE_OF.get(word, len(options.texts) - 1) if is_called or is_one else -1
        if is_one and (called := options.with_word(word)):
            return Mention(i, i + 2, called[0] if len(called) == 1 else None)
    if not 0 <= place < options.n_letters:
        return None
    others = [choice.index for choice in options.starting.get(named, ()) if len(choice.words) == 1]
    return Mention(i, i + 2, None if others and place not in others else place, is_letter=True)


def _placed_in_chinese(words: Words, i: int, start: int, options: Options) -> Mention | None:
    """ "第二个选项", "最后一个"."""
    match = _CHINESE_PLACE.match("".join(words.low[i : i + 7]))
    if match is None:
        return None
    last = i + len(match[0])
    place = (
        len(options.texts) - 1 if match["place"] is None else "一二三四五六123456".index(match["place"]) % 6
    )
    is_said = match["option"] is not None or _is_whole(words, i, last, start)
    return Mention(i, last, place, is_letter=True) if is_said and place < options.n_letters else None


def _is_whole(words: Words, first: int, last: int, start: int) -> bool:
    """Whether words[first:last] are what a statement says: "the last one", "I choose the latter"."""
    if not _LEADS.issuperset(words.low[start:first]):
        return False
    after, gap = words.after(last - 1), words.gaps[last].strip(WRAPS)
    is_judged = after == "is" and words.after(last) in _JUDGES
    return last == len(words) or gap != "" or is_judged


def _is_alone(words: Words, i: int, start: int) -> bool:
    """Whether the word is all that a statement says, but for what a comma or a bracket sets off."""
    gap = words.gaps[i + 1]
    is_first = i == start or (i == start + 1 and words.before(i) in _SAYS)
    return is_first and (i + 1 == len(words) or "\n" in gap or gap.strip(WRAPS)[:1] in (",", "("))


def _is_before_its_text(words: Words, letter: Mention, options: Options) -> bool:
    """Whether a letter stands before the text of its own choice, and not in a list with it."""
    gap, after = words.gaps[letter.last], words.low[letter.last : letter.last + 1]
    if not after or not gap or any(sign in gap for sign in ",/&+"):
        return False
    return any(
        choice.index == letter.index
        and words.alike[letter.last : letter.last + len(choice.words)] == _alike(choice.words)
        for choice in options.starting.get(after[0], ())
    )


def _text_at(words: Words, i: int, start: int, options: Options) -> Mention | None:
    """The longest choice whose words stand at `i`; its index is None where choices differ in their signs alone."""
    low = words.low
    for choice in options.starting[low[i]]:
        last = i + len(choice.words)
        if len(choice.words) > 1 and words.alike[i:last] != choice.words:
            continue
        if len(choice.words) == 1:
            if not _is_said(words, i, start):
                continue
        elif words.raw[i] == "a" and options.letters and low[last : last + 1] in _KEYS:
            continue  # "in a minor key" isn't A minor
        elif any(map(_STOP_WITHIN.search, words.gaps[i + 1 : last])) and not _STOP_WITHIN.search(choice.text):
            continue  # a sentence ends within
        alike = [other for other in options.starting[low[i]] if other.words == choice.words]
        is_clear = len(alike) == 1 or len({other.text.lower() for other in alike}) == 1
        is_clear = is_clear and not (low[i][0].isdigit() and _is_bound(words, i, last))
        return Mention(i, last, choice.index if is_clear else None)
    return None


# --- what is no option -----------------------------------------------------------------------------------------

# Words of a language: as a choice's text they are said alone, or at the head of a statement.
_COMMON = word_set("no yes none not a an all both either neither for go i it in on maybe same true false")
_DETERMINERS = word_set(
    """
    the this that which no any each every some only another other first second third last next same
    correct right best final wrong likely closest plausible suitable appropriate
    """
)
_SCALES = word_set("hundred thousand million point")
_OPTION = ("option", "choice", "alternative")
_OF_TWO = ("former", "latter")
_PLACED = frozenset((*_OPTION, *_PLACE_OF, *_OF_TWO, "last", "第", "最"))
_CHINESE_PLACE = re.compile(
    "(?:第(?P<place>[一二三四五六1-6])|最[后後]一)[个個项項](?P<option>[选選][项項])?"
)
_LEADS = word_set("the is it's it be would choose select pick go going with opt for answer")
_JUDGES = word_set("correct right best true")
_QUANTIFIERS = word_set("both neither none all")
_CALLS = word_set("option options choice choices letter letters answer answers 项 选 案 择")
_BEFORE = word_set(
    """
    is be was are it's that's choose choosing chose select selecting pick picking say saying with for so
    thus hence therefore must not than of or and either neither nor both between to definitely certainly
    clearly probably likely maybe perhaps possibly except but no wait actually instead rather leaves
    leaving only then isn't remains being chosen just simply obviously surely i'd correct guess meant
    mean towards toward get gives yields now
    """
)
_AFTER = word_set(
    """
    is isn't was are aren't or and nor fits fit matches seems because since rather can cannot can't
    could would but not remains sounds instead if describes has does doesn't may might must should over
    seemed best makes also
    """
)
_NAMES = word_set(
    "speaker person caller singer voice actor character team group class part type side plan vitamin"
)
_JOINS = ("or", "and")
_MORE = ("more", "less", "fewer", "so")
_KEYS = (["key"], ["scale"], ["mode"], ["chord"], ["tonality"])
_DASHES = ("-", "–", "—", "~")
_WHO = ("it", "there", "she", "he", "they", "this", "that")
_SAYS = ("is", "be", "say")
_TAKES_BACK = word_set("it it's the that that's wait actually i")
_TAKES = word_set("or and not but so than choose pick select either neither nor both thus hence therefore")
_OF_WHOM = word_set("of are is were was")
_BEGINS = tuple(".:;,!?\n>-–—|→/&+(")


def _is_bound(words: Words, i: int, last: int) -> bool:
    """Whether a number is but the bound of a range: "5 to 10 seconds", "at least 2", "3 or more"."""
    low, before = words.low, words.before(i)
    is_open = low[last : last + 1] == ["or"] and words.after(last) in _MORE
    if is_open or before in ("least", "most", "over", "under"):
        return True
    number = low[i - 2] if before == "to" and i > 1 else before if words.gaps[i].strip() in _DASHES else ""
    return number[:1].isdigit()


def _is_said(words: Words, i: int, start: int) -> bool:
    """Whether a choice of one word is meant as such, where the word is also a number or one of the language."""
    word, before, after = words.low[i], words.before(i), words.after(i)
    if after in _SCALES and words.gaps[i + 1].isspace():
        return False  # "two hundred"
    if word[0].isdigit():
        return before not in _CALLS or words.gaps[i].strip() != ""  # "option 3" may be the third
    if (before and words.gaps[i] == "-") or (after and words.gaps[i + 1] == "-"):
        return False  # twenty-two
    if word == "one":
        is_only = before == "only" and words.before(i - 1) != "the"  # "only one speaker"
        return (is_only or before not in _DETERMINERS) and after not in ("of", "who", "that", "which")
    takes_back = i > start and after in _TAKES_BACK and before not in _SAYS
    takes_back = takes_back and words.gaps[i + 1].strip() == ","
    if word == "no" and (takes_back or before in ("wait", "oh", "hmm", "actually")):
        return False  # "wait, no, it is B"
    if word not in _COMMON or not after or words.gaps[i + 1].strip(WRAPS):
        return True
    if before in _TAKES or before in _JOINS or after in _JOINS:
        return True
    is_first = i == start or before in _SAYS or words.gaps[i].strip(WRAPS) != ""
    is_reply = word in ("yes", "maybe") or after in ("because", "since", "rather", "instead", "not")
    is_reply = is_reply or (word in _QUANTIFIERS and after in _OF_WHOM)
    return is_first and (is_reply or (word == "no" and i == start and after in _WHO))


def _mark(words: Words, i: int, start: int) -> str:
    """How a single letter is marked as an option's: by a "bracket", a "call" ("option B") or a "quote"; or "" not."""
    gap, follows = words.gaps[i], words.gaps[i + 1]
    before, after = gap.rstrip(WRAPS)[-1:], follows.lstrip(WRAPS)[:1]
    if after in (")", "]", "}") and before in ("(", "[", "{"):
        return "bracket"
    word = words.before(i)
    if after == ")" and (i == start or before in _BEGINS or word in _BEFORE or word in _CALLS):
        return "bracket"
    if i and word in _CALLS and not any(stop in gap for stop in ".,;!?\n"):
        return "call"
    return "quote" if gap[-1:] and gap[-1] in "*_`\"'$" and follows[:1] == gap[-1] else ""


def _is_letter(words: Words, i: int, start: int, options: Options) -> bool:
    """Whether a single letter without a mark is an option's, and no article, initial or note."""
    word, before, after = words.low[i], words.before(i), words.after(i)
    gap, follows = words.gaps[i].strip(WRAPS), words.gaps[i + 1].strip(WRAPS)
    is_beside_chinese = bool((before and _IS_CJK(before)) or (after and _IS_CJK(after)))
    is_glued = (not words.gaps[i] and before) or (not words.gaps[i + 1] and after)
    if (is_glued and not is_beside_chinese) or (before == "n" and gap == "/"):
        return False
    if i == start and i + 1 == len(words):
        return True
    if before in _NAMES and gap == "":
        return False  # "speaker B"
    at_end, is_stated = bool(follows) or not after, 0 < start <= i
    is_first = i == start or (gap != "" and gap[-1] in _BEGINS)
    other = i - 1 if gap in ("/", "&", "+", ",") else -1
    other = i + 2 if after in _JOINS else i - 2 if before in _JOINS else other
    is_listed = 0 <= other < len(words) and len(words.low[other]) == 1
    if word in options.letters and not is_listed and not (at_end and (is_first or is_stated)):
        return after in _AFTER or before in _TAKES  # not "it is C", where a choice is "C major"
    if not words.raw[i].isupper():
        is_set_off = follows[:1] in tuple(".,:;)!-") and words.gaps[i + 1] != "."
        return is_listed or ((is_first or before in _BEFORE) and (not after or is_set_off))
    is_verb_next = after in _AFTER or after in IS
    if word in "ai" and after and not follows and not is_verb_next and not _IS_CJK(after):
        return False
    if word == "i" and is_verb_next:
        return False
    is_name = words.raw[i - 1][:1].isupper() and before not in _BEFORE if i else False
    if is_name and gap == "" and follows.startswith(".") and after and words.raw[i + 1][:1].isupper():
        return False  # John B. Smith
    if is_first or is_listed or is_verb_next or is_beside_chinese:
        return True
    verb = words.before(i - 1) if before in ("la", "a") else before  # "es la B"
    return before in _BEFORE or before in BUTS or verb in IS or (at_end and is_stated)

"""What a text ends up saying: where it states its answer, and which option that statement affirms.

First the statements are found: what stands in <answer> tags or a box, after "the answer is", "Answer:", "I
choose", 答案 and the like; without any of these a first line that is an option, the last line, the first. Then each
is read, sentence by sentence: the options that it names are affirmed ("B"), rejected ("not B", "B is wrong"), left
open ("B or C", "if it is loud, B", "B?") or named by the way ("because B"). One that is affirmed, and none left
open, is what the text says.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Literal

from tgsr.reading.naming import STOP, WRAPS, Mention, Options, Words, mentions
from tgsr.reading.other_languages import (
    BEGIN_AGAIN,
    BUTS,
    FILLERS,
    REASONS,
    ROLES,
    TOPIC,
    announced,
    denies,
    is_wrong,
    word_set,
)
from tgsr.reading.thoughts import said_aloud

Unclear = Literal["none", "several", "against"]


@dataclass(frozen=True, slots=True)
class Reading:
    """The option that a text says, or why it says none, and the characters [start, end) that do so.

    "none" of the options is affirmed; "several" are, or one is left open; a letter stands "against" another's text.
    """

    index: int | None
    why: Unclear | None
    start: int
    end: int


# --- what a sentence does with the options that it names -------------------------------------------------------

Polarity = Literal["affirmed", "rejected", "open", "aside"]
Role = Literal["reject", "open", "condition", "turn", "reason", "aside", "and", "or"]

_WORDS_OF: dict[Role, str] = {
    "reject": """
        not never cannot cant dont isnt doesnt neither nor none nobody nothing without except excluding exclude
        excludes excluded eliminate eliminates eliminated eliminating reject rejected rejects dismiss dismissed
        rule ruled ruling unlike than wrong incorrect false unlikely inaccurate implausible impossible invalid
        irrelevant absurd unable inconsistent incompatible contradicts contradicted mistaken lack lacks lacking
        fails fail doubt doubtful opposed absent inaudible least far hardly barely scarcely distractor
        decoy out over too no 不 没 未 错 排 除 非
    """,
    "open": """
        maybe perhaps possibly might could may possible less used alternatively plausible
        whether either uncertain unclear unsure
        depends thought seemed between among toss 或 否 可 也
    """,
    "condition": "if unless assuming suppose supposing provided otherwise 如 若 假",
    "turn": "but so therefore thus hence however yet rather instead leaving leaves then meaning 而 但",
    "reason": """
        because since while although though whereas which who where whose due given considering despite besides
        因 由
    """,
    "aside": "as that with when after before from by",
    "and": "and",
    "or": "or",
}
_ROLES: dict[str, Role] = {
    word: role for role in _WORDS_OF for word in f"{ROLES.get(role, '')} {_WORDS_OF[role]}".split()
}
_CONTRASTS = word_set("but however yet 而 但")
_SO = word_set("so therefore thus hence")
_FORWARD = word_set("than except unlike without instead rather opposed over")
_WRONG = word_set("wrong incorrect false not")
_DENIES = word_set("none neither nobody nothing")
_POINTS = word_set("corresponds matches means makes points leads suggests indicates aligns fits")
_GOES = word_set("go going went gone agree stick")
_IS = word_set("is was are were be sounds seems appears")
_ALL = word_set("anything everything all nothing")
_SUBJECTS = word_set(
    """
    it it's he she he's she's they this that that's i i'd i'll i'm we there these 是 选 应 故 所 因 正 其
    """
    + BEGIN_AGAIN
)
_FILLERS = word_set("a an the option choice answer letter of to be is it really exactly only 选 项" + FILLERS)
_COMMITS = word_set("i i'm we forced pressed pushed asked anything so needed required my")
# What a sentence is to the one before.
_CORRECTS = word_set("wait actually no now hmm sorry correction oops scratch meant mean reconsider")
_RETRACTS = word_set("no wrong incorrect scratch mistake mistaken")
_ADDS = word_set("or alternatively maybe perhaps possibly also equally else")
_CONCLUDES = word_set(
    """
    so therefore thus hence overall conclusion conclude choose select pick answer correct best right
    final finally go going fits 此 所 选
    """
)
_CORRECTS_WITH = {
    **{"second": word_set("thought thoughts"), "on": word_set("second reflection closer")},
    **{"i": word_set("take mean meant"), "or": word_set("rather"), "no": word_set("wait sorry actually")},
}
"""Words that correct where one of these is behind them: "on second thought", "I take that back", "or rather"."""
_CUES = _CORRECTS.union(_CORRECTS_WITH) | _RETRACTS | _ADDS | _CONCLUDES
_ASKERS = word_set("question questions user prompt task you")
_ASKS = word_set("is are asks asked asking")
_INTERROGATIVES = word_set("what which who whom whose where when how why")
_DIVIDES = re.compile(r"[:()\[\]–—]|\s-+\s")
_DASH = re.compile("[–—-]")
_CROSSED = re.compile("[✗✘❌❎]")


@dataclass(slots=True)
class _Sentence:
    """The options that a sentence affirms, with the place where it does, leaves open and rejects, and what it is else.

    `is_unsure` names what could be two options, `is_against` a letter and another's text, `is_bare` little else than
    options.
    """

    affirmed: dict[int, Mention] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    rejected: set[int] = field(default_factory=set)
    n_words: int = 0
    is_against: bool = False
    is_unsure: bool = False
    is_bare: bool = False
    is_asked: bool = False
    denies: bool = False
    corrects: bool = False
    retracts: bool = False
    adds: bool = False
    concludes: bool = False


class _Walk:
    """Goes through a statement's words; what stands before the word `start` announces it, and affirms nothing."""

    def __init__(self, words: Words, start: int, options: Options) -> None:
        self.words, self.start, self.options = words, start, options
        self.mentions = mentions(words, start, options)
        self.firsts = [mention.first for mention in self.mentions]
        self.is_crossed = _CROSSED.search("".join(words.gaps)) is not None
        self.done: list[_Sentence] = []
        self._begin()

    def _begin(self) -> None:
        self.sentence = _Sentence()
        self.named: list[tuple[Mention, Polarity]] = []  # in this sentence's clauses so far
        self.clause: list[Mention] = []
        self.is_open = self.is_conditional = False  # the clause, the sentence
        self.rejecting = self.aside = self.is_leading = False
        # How many were named before the last "but" or "so", and before the last "so".
        self.n_turned = self.n_concluded = 0

    def sentences(self) -> list[_Sentence]:
        words, n = self.words, len(self.words)
        if not self.mentions and not any(word in _DENIES or word in _RETRACTS for word in words.low):
            return []
        at = {mention.first: mention for mention in self.mentions}
        i = 0
        while i < n:
            word, mention = words.low[i], at.get(i)
            if i and words.gaps[i].strip(WRAPS):
                self._pass_gap(i, mention, i + 1 in at)
            if mention is not None:
                self._name(mention)
                i = mention.last
                continue
            if word in _CUES:
                self._note(word, i)
            self.sentence.n_words += 1
            role = _ROLES.get(word) or ("reject" if word.endswith("n't") else None)
            if role is None and word in REASONS and words.after(i) in REASONS[word]:
                role = "reason"
            if _repeats_question(words, i, self.sentence.n_words):
                self._end_clause()
                self.aside = self.is_leading = True
            elif role is not None:
                self._turn(role, i, i + 1 in at)
            elif self.clause and not word.isascii() and denies(words.low, i):
                self._reject_clause(self._first_in_bracket())
            i += 1
        self._end_sentence(words.gaps[n])
        return self.done

    def _name(self, mention: Mention) -> None:
        self.sentence.n_words += mention.last - mention.first
        if self.aside or self.rejecting:
            self.named.append((mention, "aside" if self.aside else "rejected"))
        else:
            self.clause.append(mention)

    def _note(self, word: str, i: int) -> None:
        """What the word makes of the whole sentence."""
        sentence = self.sentence
        if sentence.n_words == 0 or (sentence.n_words < 3 and not self.named and not self.clause):
            sentence.corrects |= _corrects(self.words, i)
            sentence.adds |= word in _ADDS
        sentence.adds |= word in ("also", "equally")
        sentence.concludes |= word in _CONCLUDES
        sentence.retracts |= word in _RETRACTS

    def _pass_gap(self, i: int, mention: Mention | None, is_named_next: bool) -> None:
        """What punctuation before the word at `i` ends: the sentence, a clause, or neither."""
        words, gap, word = self.words, self.words.gaps[i], self.words.low[i]
        last = self.clause[-1] if self.clause else None
        is_after = last is not None and last.last == i
        outside = gap.lstrip(WRAPS + ")]}") if is_after else gap
        outside = outside.rstrip(WRAPS + "([{") if mention is not None and mention.is_letter else outside
        corrects = mention is None and word not in ("mean", "meant") and _corrects(words, i)
        if STOP.search(gap) or (corrects and (self.named or self.clause)):
            self._end_sentence(gap)
        elif _DIVIDES.search(outside):
            self._end_clause()
            noun = i - 2 if words.low[i - 1] in ("answer", "option", "choice") else i - 1
            may_go_on = ":" not in gap or (noun >= 0 and words.low[noun] in _WRONG)
            self.rejecting = self.rejecting and may_go_on and word not in _SUBJECTS and not _DASH.search(gap)
            self.aside = False
        elif "," in gap:
            if self.is_open and self.sentence.n_words == 1:
                return  # "Perhaps, B"
            if last is not None and last.last == i - 1 and words.low[i - 1] in TOPIC:
                return  # "Bは、間違いです"
            if self.aside and self.is_leading:
                listed = [one for one, _ in self.named[-1:] if mention is not None and one.last == i]
                if not listed or words.before(listed[0].first) in ("and", "or"):  # "Among A, B and C, B"
                    self._end_clause()
                    self.aside = self.is_leading = False
            elif word in _SUBJECTS or (word == "the" and words.after(i) in _CONCLUDES) or self._goes_on(i):
                self._end_clause()
                self.rejecting = False
            elif not (is_after and (mention is not None or (word in ("and", "or", "nor") and is_named_next))):
                self.rejecting = self.rejecting and not self.clause
                self._end_clause()

    def _goes_on(self, i: int) -> bool:
        """Whether the clause at `i` is no part of the denial before its comma: "rather than A, the tone is B"."""
        following = bisect_right(self.firsts, i)
        if not self.rejecting or following == len(self.firsts):
            return False
        word, between = self.words.low[i], self.words.low[i : self.firsts[following]][:8]
        return word in ("only", "just", "merely") or (word not in _ROLES and not _IS.isdisjoint(between))

    def _turn(self, role: Role, i: int, is_named_next: bool) -> None:
        """What the word at `i` does to the options after it, or before it."""
        word, before, after = self.words.low[i], self.words.before(i), self.words.after(i)
        if word == "which" and after in _POINTS:
            role = "turn"  # "which corresponds to B"
        if word == "with" and before in (*_GOES, "along", "together"):
            return
        if word == "as" and "well" in (before, after):
            return
        if (word in BUTS and not self.rejecting) or (word == "so" and after == "much"):
            return
        if word == "between" and after[:1].isdigit():
            return  # "between 3 and 5 seconds"
        if word in ("between", "among") and self.sentence.n_words == 1:
            self.aside = self.is_leading = True  # "Among A, B and C, ..."
            return
        if role == "turn" and (after in ("than", "of") or (word == "but" and before in _ALL)):
            role = "reject"
        if role == "condition":
            if word == "if" and after in _COMMITS:  # "if I had to choose"
                self.aside, self.is_leading = True, not (self.clause or self.named)
            else:
                self.is_conditional = True
        elif role == "open" and word in "可也" and word + after not in ("可能", "也许"):
            return
        elif role == "open":
            self.is_open |= not self.aside and before not in ("most", "more")  # the most plausible
        elif role == "turn":
            self._end_clause()
            if word in _CONTRASTS:  # "it could be A, but", "it seems to be A, but is actually"
                over = ("open", "affirmed") if "actually" in self.words.low[i + 1 : i + 5] else ("open",)
                self.named = [(m, "aside" if polarity in over else polarity) for m, polarity in self.named]
            self.n_turned = len(self.named)
            if word in _SO and self.start == 0 and self.words.gaps[i].strip(WRAPS):
                self.n_concluded = self.n_turned  # "it is 1 and 2, so 3"
            self.rejecting = self.aside = False
            self.is_open = word == "so" and after in ("is", "are", "does", "do")
        elif role == "reason" or (role == "aside" and (self.clause or self.named) and not self.rejecting):
            if word in "因由" and word + after not in ("因为", "由于"):
                return
            self.is_leading = not (self.clause or self.named[self.n_turned :])
            if self.is_leading and word == "who" and "," not in self.words.gaps[i]:
                return  # "the one who speaks last is the man"
            self._end_clause()
            self.aside, self.rejecting = True, False
        elif role == "or":
            self.is_open |= bool(self.clause) and self.clause[-1].last == i  # "B or C", "B or so"
        elif role == "and":
            is_list = bool(self.clause) and self.clause[-1].last == i and is_named_next
            goes_on = is_named_next or after in _FILLERS or after == "not"
            if after in _SUBJECTS or (self.clause and not is_list and goes_on):
                self._end_clause()
                self.rejecting = False
        elif role == "reject" and not self.aside and _rejects(self.words, i, is_named_next):
            self._reject(i)

    def _reject(self, i: int) -> None:
        word, after, gap = self.words.low[i], self.words.after(i), self.words.gaps[i]
        is_behind = bool(self.named) and not self.clause  # what was named is in the clauses before
        is_beside = bool(self.named) and self.named[-1][0].last == i
        self.sentence.denies |= word in _DENIES
        if after in ("only", "just", "merely"):
            self.is_conditional = True  # "not only B"
        elif word == "false" and is_behind and re.match(r"\s*[,}]", self.words.gaps[i + 1]):
            self.named[-1] = (self.named[-1][0], "rejected")  # {"A": false, "B": true}
        elif word in _WRONG and is_behind and gap.strip() and not after:
            self.named = [(mention, "rejected") for mention, _ in self.named]  # "(b) Woman - wrong"
        elif word not in _WRONG and is_wrong(word) and is_beside and _DASH.search(gap):
            self.named[-1] = (self.named[-1][0], "rejected")  # "B — неверный ответ"
        elif self.clause and word not in _FORWARD and not self._is_before_a_mention(i):
            self._reject_clause()  # "B is wrong"
        else:
            if word not in ("nor", "neither"):
                self._end_clause()
            self.rejecting = not (self.named and "," in self.words.gaps[i + 1])  # "A is ruled out, B"

    def _reject_clause(self, first: int = 0) -> None:
        self.named += [(mention, "rejected") for mention in self.clause[first:]]
        del self.clause[first:]

    def _first_in_bracket(self) -> int:
        """The place in the clause of what an open bracket holds: of "B (Aではない)" it is A's; 0 without one."""
        gaps, clause = self.words.gaps, self.clause
        opened = [k for k, m in enumerate(clause) if "(" in gaps[m.first] and ")" not in gaps[m.last]]
        return opened[-1] if opened else 0

    def _is_before_a_mention(self, i: int) -> bool:
        """Whether nothing but fillers stands between the word at `i` and the next mention."""
        following = bisect_right(self.firsts, i)
        if following == len(self.firsts):
            return False
        first = self.firsts[following]
        between = self.words.low[i + 1 : first]
        is_near = first - i <= 6 and all(word in _FILLERS for word in between)
        return is_near and not any(c in ".,:;!?\n" for gap in self.words.gaps[i + 1 : first + 1] for c in gap)

    def _end_clause(self) -> None:
        polarity: Polarity = "open" if self.is_open else "affirmed"
        self.named += [(mention, polarity) for mention in self.clause]
        self.clause, self.is_open = [], False

    def _end_sentence(self, gap: str) -> None:
        self._end_clause()
        sentence, n_named = self.sentence, 0
        last = self.named[-1][0].index if self.named else None
        # A choice's own text may end as a question.
        is_text = last is not None and self.options.texts[last : last + 1]
        said = {one.index for one, polarity in self.named[self.n_concluded :] if polarity == "affirmed"}
        if self.n_concluded and len(said) == 1:
            kept = [one for one in self.named[: self.n_concluded] if one[1] == "rejected"]
            self.named = kept + self.named[self.n_concluded :]
        sentence.is_asked = "?" in gap and not (is_text and is_text[0].endswith("?"))
        for mention, polarity in self.named:
            n_named += mention.last - mention.first
            if polarity == "rejected":
                sentence.rejected |= set() if mention.index is None else {mention.index}
            elif mention.index is None or mention.is_against:
                sentence.is_unsure |= mention.index is None
                sentence.is_against |= mention.is_against
            elif polarity != "aside" and mention.last > self.start and not sentence.is_asked:
                if polarity == "open" or self.is_conditional:
                    sentence.open.add(mention.index)
                else:
                    sentence.affirmed.setdefault(mention.index, mention)
        sentence.is_unsure |= n_named > 0 and self.is_crossed
        sentence.is_bare = 0 < n_named >= sentence.n_words - 2
        self.done.append(sentence)
        self._begin()


def _repeats_question(words: Words, i: int, n_before: int) -> bool:
    """Whether the word at `i` begins to say what was asked: "The question asks about ...", "What does the man ..."."""
    low, before = words.low, words.before(i)
    if low[i] in ("asks", "asked", "about", "asking"):
        has_verb = low[i] != "about" or before in _ASKS
        return has_verb and n_before < 6 and not _ASKERS.isdisjoint(low[max(0, i - 3) : i])
    if n_before != 1 or low[i] not in _INTERROGATIVES:
        return False
    return any(low[j] in ("do", "does", "did") for j in range(i + 1, min(i + 4, len(low))))


def _corrects(words: Words, i: int) -> bool:
    """Whether the word takes back what was said before it."""
    word, after = words.low[i], words.after(i)
    is_said = word != "no" or not after or words.gaps[i + 1].strip() != ""
    return (word in _CORRECTS and is_said) or after in _CORRECTS_WITH.get(word, ())


def _rejects(words: Words, i: int, is_named_next: bool) -> bool:
    """Whether a word that may reject does so here."""
    word, before, after = words.low[i], words.before(i), words.after(i)
    if word == "非":
        return before not in ("除", "是", "莫") and after != "常"
    if word == "non":
        return words.gaps[i + 1].isspace()
    if word == "no":
        is_next = bool(after) and words.gaps[i + 1].isspace() and after not in ("doubt", "question", "it")
        return is_next and not _corrects(words, i)
    if word == "over":
        return len(after) == 1 and words.raw[i + 1].isupper()
    if word == "too":
        return after not in ("", *_ROLES) and words.gaps[i + 1].isspace() and not is_named_next
    if word == "doubt":
        return before not in ("no", "without", "beyond", "any", "a")
    if word == "without":
        return after not in ("doubt", "a", "any")
    if word == "least":
        return before != "at"
    if word == "far":
        return after == "from"
    if word == "out":
        return before in ("is", "are", "was", "were")
    return True


@dataclass(slots=True)
class _Outcome:
    """What a statement comes to: an option and where it is named, or why none. `says`: whether it names anything."""

    index: int | None = None
    why: Unclear = "none"
    mention: Mention | None = None
    says: bool = False
    rejected: set[int] = field(default_factory=set)


def _outcome(sentences: Iterable[_Sentence], is_pooled: bool) -> _Outcome:
    """What the sentences come to. The first that affirms decides; of prose (`is_pooled`) all must agree, and what is
    said more than a sentence before its end is said in passing.
    """
    outcome = _Outcome()
    is_several = False
    n_after = 0
    for sentence in sentences:
        n_after = 0 if sentence.affirmed else n_after + 1
        named = sentence.open.union(sentence.affirmed)
        is_mixed = sentence.is_unsure or sentence.is_against
        outcome.says |= bool(named or sentence.rejected) or sentence.denies or is_mixed
        outcome.rejected |= sentence.rejected
        only = None
        if len(named) == 1 == len(sentence.affirmed) and not is_mixed:
            only = next(iter(sentence.affirmed))
        if outcome.index is None:
            is_more = sentence.adds and outcome.why == "several"
            decides = not is_more and (not is_several or sentence.concludes or sentence.corrects)
            if only is not None and decides:
                outcome.index, outcome.mention, is_several = only, sentence.affirmed[only], False
                outcome.rejected.discard(only)
            elif sentence.is_against and not sentence.is_asked:
                return _Outcome(None, "against", says=True)
            elif named or sentence.is_unsure:
                outcome.why = "several"
                is_several = is_several or bool(sentence.affirmed) or sentence.is_unsure
            elif sentence.denies:
                return _Outcome(says=True, rejected=outcome.rejected)
        elif sentence.corrects and (only is not None or (sentence.retracts and not named)):
            outcome.index, outcome.mention = only, sentence.affirmed.get(only) if only is not None else None
        elif outcome.index in sentence.rejected:
            outcome.index = None
        elif named - {outcome.index}:
            if is_pooled and only is not None and sentence.concludes:
                outcome.index, outcome.mention = only, sentence.affirmed[only]
            elif (is_pooled and sentence.affirmed) or sentence.adds or sentence.is_bare:
                outcome.index, outcome.why, is_several = None, "several", True
    if is_pooled and n_after > 1:
        outcome.index, outcome.mention = None, None
    return outcome


# --- where a text states its answer ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Statement:
    """text[first:end] is a statement of the answer, announced by text[phrase:start]. The highest rank counts."""

    first: int
    phrase: int
    start: int
    end: int
    rank: int


# A mere line, "the answer is", a tag, a box or a key, "final answer".
_LINE, _SAYS, _CLOSES, _FINAL = range(4)
_TAG = re.compile(
    r"[<\[](/?)(?:final_?|correct_?)?(?:answer|conclusion|response|choice|output|prediction)[>\]]"
)
_MARKUP = re.compile(r"<\|[^|<>]{1,40}\|>|</?[A-Za-z][\w-]{0,30}\s?/?>")
_BOX = re.compile(r"(?:boxed|fbox)\s{0,4}\{")
_NOUNS = (
    *("answer", "option", "choice", "guess", "pick", "prediction", "conclusion", "response", "solution"),
    *("selection", "match", "decision", "verdict", "score"),
)
_NOUN = {noun: re.compile(rf"{noun}(?:[_ ](?:letter|text|choice|option))?(?![a-z])") for noun in _NOUNS}
_ANS = re.compile(r"ans(?=\s{0,4}[.:=])\.?")
_COLON = re.compile(r"[ \t*_\"'`\])|>~）】]{0,10}(?:[:=：|→➔➜⇒➡]{1,3}>?|[-–—]{1,2}>?(?=\s))")
_COPULA = re.compile(
    r"(?:\s[^\n.:;?!(]{0,80}?)??[\s\"'*_,]{1,4}(?=(?:is|was|are|would|should|must|will|has|could|might|may|can"
    r"|cannot|can't|isn't|wasn't|won't|seems|appears|remains|lies)\b)"
)
_LETTER_NEXT = re.compile(r"\s{1,3}[(\[]?[a-z][)\]]?(?![a-z'])")
_QUOTE = re.compile(r"\s*([\"'])")
_CLOSING = {quote: re.compile(rf"(?<!\\){quote}") for quote in "\"'"}
_NO_QUALIFIER = word_set(
    """
    other another wrong incorrect each every any no which what possible alternative false different
    first second third an initial previous original earlier one whose these those all
    """
)
_QUALIFIER = word_set(
    """
    correct right best final selected chosen appropriate likely suitable accurate fitting probable
    plausible my preferred reasonable logical closest only matching the
    """
)
_LAST_WORD = re.compile(r"([a-z']+)[^a-z']*$")
_PHRASE = re.compile(
    r"[#*\s{(\"']*(?:\b(?:the|my|our|final|correct|right|best|most|likely|appropriate|overall|selected)\s+)*$"
)
_IS_BEFORE = re.compile(r"\b(?:is|be|as|it's|that's|making)\s+(?:\w+\s+){0,4}$")
_VERBS = ("choose", "select", "pick", "go with", "going with", "opt for", "vote for", "settle on")
_SUBJECT = re.compile(r"(?<![a-z])(?:i|we|(?:i|we)['’](?:d|ll|m|re)|let['’]s)(?: \w+){0,3} $")
_ZH = re.compile(
    r"(?:答案|正确选项|最佳选项)[\s*]{0,4}(?:应该|应当|应)?(?:是|为|选|：|:|】|\])|"
    r"(?<![备挑筛可供首入评当精])选(?:择|：|:)?(?=(?:选项)?[\s*]{0,4}[（(]?[A-Za-zＡ-Ｚ])|(?:^|\n)\s{0,4}答(?:：|:)"
)
_SENTENCE_ENDS = re.compile(r"[.!?;:\n。！？；](?=\s|[^\x00-\x7f]|$)|\n")
_SHOWS_CORRECTION = (
    *("wait", "actually", "correction", "sorry", "scratch", "second thought", "i mean", "let me", "no"),
    *("不对", "等", "更正"),
)
_CORRECTION = re.compile(
    r"(?:^|[\n.!?;,—–-])\W{0,6}(?:oh,? |hmm,? |but |oops,? |no,? )?(?:wait|actually|correction|sorry|scratch that|"
    r"on second thought|i meant?\b|let me (?:re|correct|double)|no[,:.—-]|不对|等等|更正)"
)
_SUPERSEDES = re.compile(
    r"\b(?:wait|actually|correct(?:ion|ed)|sorry|scratch|second thought|hmm|however|but|re-?consider\w*"
    r"|re-?evaluat\w*|double|again|mistake\w*|instead|rather|wrong|no)\b|不对|等等|重新|但|更正"
)
_HEAD = re.compile(
    r"[\s*_\"'>`#•✅👉→$-]{0,12}(?:(?:q(?:uestion)?\s?)?\d{1,2}[.:)]\s{1,3})?(?:(?:option|choice)\s{1,4})?(?:[(\[（【{]\s?[a-zａ-ｚ]\s?[)\]）】}]|"
    r"[a-zａ-ｚ](?:[).:,：．。\]*`_\"]|\s{0,4}$|\s+[-–—|]|(?=[^\x00-\x7f])))"
)
_NUMBERED = re.compile(r"\A[\s*#]*(?:q(?:uestion)?\s?)?\d{1,2}[.:)]\s")
_TICKED = re.compile("[✅✔☑✓]")
_AROUND = " \t\r*_\"'`>#•-.!"
_WORDED = re.compile(r"[^\W_]")


def _line_end(low: str, start: int, end: int) -> int:
    found = low.find("\n", start, end)
    return end if found < 0 else found


def _worded(low: str, start: int, end: int) -> tuple[int, int]:
    """From `start` to its line's end, or the next line that has a word."""
    stop = _line_end(low, start, end)
    while stop < end and not _WORDED.search(low, start, stop):
        start, stop = stop + 1, _line_end(low, stop + 1, end)
    return start, stop


def _sentence_begin(low: str, begin: int, at: int) -> int:
    first = max(begin, at - 160)
    for match in _SENTENCE_ENDS.finditer(low, first, at):
        first = match.end()
    return first


def _statements(text: str, low: str, begin: int, end: int) -> Iterator[_Statement]:
    """Where text[begin:end] says what its answer is, outside tags; `low` is the text in lower case."""
    for noun in _NOUNS:
        if noun in low:
            for match in _NOUN[noun].finditer(low, begin, end):
                statement = _after_noun(low, noun == "answer", match.start(), match.end(), begin, end)
                if statement is not None:
                    yield statement
    if "ans" in low:
        for match in _ANS.finditer(low, begin, end):
            if low[match.start() - 1 : match.start()].isalpha():
                continue
            colon = _COLON.match(low, match.end(), end)
            start, stop = _worded(low, colon.end() if colon else match.end(), end)
            yield _Statement(match.start(), match.start(), start, stop, _SAYS)
    for verb in _VERBS:
        at = low.find(verb, begin, end) if verb in low else -1
        while at >= 0:
            subject = _SUBJECT.search(low, max(begin, at - 40), at)
            if subject is not None:
                first = _sentence_begin(low, begin, subject.start())
                yield _Statement(first, subject.start(), at, _line_end(low, at, end), _SAYS)
            at = low.find(verb, at + 1, end)
    if "答" in low or "选" in low:
        for match in _ZH.finditer(text, begin, end):
            start, stop = _worded(low, match.end(), end)
            at = match.start()
            first = at if start > match.end() else _sentence_begin(low, begin, at)
            yield _Statement(first, at, start, stop, _FINAL if low.endswith("最终", begin, at) else _SAYS)
    for at, start, stop, is_final in announced(low, begin, end):
        yield _Statement(at, at, start, stop, _FINAL if is_final else _SAYS)


def _closed(low: str, begin: int, end: int) -> Iterator[_Statement]:
    """Answers in tags and boxes."""
    if "<" in low or "[" in low:
        tags = list(_TAG.finditer(low, begin, end))
        for tag, following in zip_longest(tags, tags[1:]):
            if not tag[1]:
                stop = following.start() if following else end
                yield _Statement(tag.end(), tag.start(), tag.end(), stop, _CLOSES)
    if "box" in low:
        for box in _BOX.finditer(low, begin, end):
            depth, stop = 1, box.end()
            while stop < min(end, box.end() + 400) and depth:
                depth += (low[stop] == "{") - (low[stop] == "}")
                stop += 1
            yield _Statement(box.end(), box.start(), box.end(), stop - (depth == 0), _CLOSES)


def _after_noun(low: str, is_answer: bool, at: int, after: int, begin: int, end: int) -> _Statement | None:
    """What "the answer" announces: after a colon or a verb, or on the next line; None where it announces nothing."""
    if at > begin and (low[at - 1].isalnum() or low[at - 1] in "<[/"):
        return None
    line = low.rfind("\n", begin, at) + 1 or begin
    before = low[max(line, at - 60) : at]
    qualifier = _LAST_WORD.search(before)
    if qualifier is not None and not any(stop in qualifier[0] for stop in ".,;:!?"):
        if qualifier[1] in _NO_QUALIFIER:
            return None
        is_key = before.endswith(('"', "'"))
        if not (is_answer or is_key or qualifier[1] in _QUALIFIER):
            return None
    rank = _FINAL if "final" in before[-16:] else _SAYS
    phrase_before = _PHRASE.search(before)
    phrase = at - len(before) + phrase_before.start() if phrase_before else at
    colon = _COLON.match(low, after, end)
    if colon is not None:
        start, stop = _worded(low, colon.end(), end)
        if low[after : after + 1] in ('"', "'"):
            start, stop = _json_value(low, colon.end(), end)
            return _Statement(start, phrase, start, stop, max(rank, _CLOSES))
        first = _sentence_begin(low, begin, at) if start == colon.end() else start
        return _Statement(first, phrase, start, stop, rank)
    copula = None if _LETTER_NEXT.match(low, after, end) else _COPULA.match(low, after, end)
    if copula is not None and "because" not in low[after : copula.end()]:
        first, stop = _sentence_begin(low, begin, at), _line_end(low, copula.end(), end)
        return _Statement(first, phrase, copula.end(), stop, rank)
    stop = _line_end(low, after, end)
    if _WORDED.search(low, after, stop):
        return None
    if _IS_BEFORE.search(before):  # "B is the answer"
        first = _sentence_begin(low, begin, at)
        return _Statement(first, first, first, stop, rank)
    if is_answer and stop < end and len(before.strip(" *#_")) < 20:  # a heading
        start, stop = _worded(low, stop + 1, end)
        return _Statement(start, phrase, start, stop, rank)
    return None


def _json_value(low: str, start: int, end: int) -> tuple[int, int]:
    """A JSON value: what is in its quotes; up to the bracket that closes it; or up to the next comma."""
    quote = _QUOTE.match(low, start, end)
    if quote is not None:
        close = _CLOSING[quote[1]].search(low, quote.end(), end)
        return quote.end(), end if close is None else close.start()
    opening = low[start:end].lstrip()[:1]
    closing = {"[": "]", "{": "}"}.get(opening, ",}\n")
    return start, min((at for at in (low.find(c, start, end) for c in closing) if at >= 0), default=end)


# "No, I can't listen to audio files" answers nothing, whatever its first word is.
_REFUSES = re.compile(
    r"\bi(?:['’]m| am)? (?:can(?:no|['’])?t|can not|unable to|not able to|(?:do not"
    r"|don['’]t) have the (?:ability|capability) to)"
    r" (?:directly |actually |currently |physically )?(?:listen to|hear|process|access|analy[sz]e|play|open"
    r"|interpret)"
    r" (?:(?:the|any|this|your|provided|actual|to) ){0,2}(?:audio|recordings?|(?:audio |sound )?(?:files?|clips?))\b"
    r"(?! (?:of|is|was|from|in which))"
)


# --- the whole text --------------------------------------------------------------------------------------------


def read(text: str, options: Options) -> Reading:
    """Which option the text ends up with. Any text has a reading; the time is linear in its length."""
    low = lower(text)
    begin, end, is_thinking = said_aloud(low)
    found = list(_closed(low, begin, end))
    if "<" in low:
        text = _MARKUP.sub(_blank, text)
        low = lower(text)
    if not is_thinking:
        found += _statements(text, low, begin, end)
        found.sort(key=lambda statement: (statement.start, -statement.rank))
    reader = _Reader(text, low, begin, end, options)
    reading = reader.of_statements(found)
    if reading is None and not is_thinking and not _REFUSES.search(low, begin, end):
        reading = reader.of_lines()
    return reading or Reading(None, "none", end, end)


def lower(text: str) -> str:
    """The text in lower case, of the same length."""
    low = text.lower()
    return low if len(low) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _blank(match: re.Match[str]) -> str:
    return ("\n" if match[0][1] == "|" else " ") * len(match[0])


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads statements in text[begin:end]; `low` is the text in lower case."""

    text: str
    low: str
    begin: int
    end: int
    options: Options

    def _said(self, statement: _Statement, is_pooled: bool | None = False) -> tuple[_Outcome, Reading]:
        """What a statement comes to. is_pooled None: unless it begins with an option."""
        words = Words()
        if statement.first < statement.start:
            words.add(self.text, statement.first, statement.start)
        start = len(words)
        words.add(self.text, statement.start, statement.end)
        sentences = _Walk(words, start, self.options).sentences()
        if is_pooled is None:
            is_head = _HEAD.match(self.low, statement.start, statement.end) is not None
            is_pooled = not (is_head or (sentences and sentences[0].is_bare))
        outcome = _outcome(sentences, is_pooled)
        if outcome.index is None or outcome.mention is None:
            return outcome, Reading(None, outcome.why, statement.phrase, statement.end)
        first, last = words.starts[outcome.mention.first], words.ends[outcome.mention.last - 1]
        first = first if statement.rank == _LINE else min(first, statement.phrase)
        return outcome, Reading(outcome.index, None, first, last)

    def of_statements(self, statements: Sequence[_Statement]) -> Reading | None:
        """What the statements come to; None where none of them names anything. Of two that differ the later counts,
        where it is of higher rank or corrects the other; else it is unclear which.
        """
        decided: Reading | None = None
        rank = closed_until = -1
        for statement, following in zip_longest(statements, statements[1:]):
            if statement.start < closed_until:
                continue
            closed_until = statement.start + 1
            if statement.rank == _CLOSES:
                closed_until = statement.end
            elif following is not None:
                statement = _until(statement, following)
            outcome, reading = self._said(statement)
            is_worded = _WORDED.search(self.low, statement.start, statement.end) is not None
            is_empty = statement.rank == _CLOSES and not is_worded
            if not outcome.says and not (is_empty and decided is None):
                continue
            if decided is not None and decided.index != reading.index:
                if reading.why == "none" and decided.index not in outcome.rejected:
                    continue  # others are rejected
                is_final = statement.rank > rank or decided.why == "none"
                is_clearer = decided.why == "several" and statement.rank == rank < _CLOSES
                counts = is_final or is_clearer
                if not counts and not _SUPERSEDES.search(self.low, decided.start, statement.start):
                    if statement.rank < rank:
                        continue
                    reading = Reading(None, "several", reading.start, reading.end)
            decided, rank = reading, statement.rank
        return None if decided is None else self._corrected(decided)

    def _corrected(self, reading: Reading) -> Reading:
        """The reading, or what a later "wait, no" makes of it."""
        rest = self.low[reading.end : self.end]
        if not rest.strip() or not any(word in rest for word in _SHOWS_CORRECTION):
            return reading
        for match in _CORRECTION.finditer(self.low, reading.end, self.end):
            at, stop = match.start(), _line_end(self.low, match.end(), self.end)
            outcome, corrected = self._said(_Statement(at, at, at, stop, _LINE), True)
            if outcome.index is not None or reading.index in outcome.rejected:
                reading = corrected
        return reading

    def of_lines(self) -> Reading:
        """What a text without a statement of its answer comes to: lines that are options, else its last or first."""
        low, begin = self.low, self.begin
        first, first_end = _worded(low, begin, self.end)
        last_end = begin + len(low[begin : self.end].rstrip())
        last = max(low.rfind("\n", begin, last_end) + 1, begin)
        while last > first and not _WORDED.search(low, last, last_end):
            last_end = last - 1
            last = max(low.rfind("\n", begin, last_end) + 1, begin)
        if first >= last:
            return self._said(_Statement(first, first, first, first_end, _LINE), None)[1]
        if self._is_head(first, first_end) or self._is_head(last, last_end):  # others weigh the options
            heads = self._heads()
            if heads is not None:
                return self._corrected(heads)
        outcome, reading = self._said(_Statement(last, last, last, last_end, _LINE), True)
        if outcome.index is None and outcome.why == "none":
            of_first = self._said(_Statement(first, first, first, first_end, _LINE), True)[1]
            reading = reading if of_first.index is None and of_first.why == "none" else of_first
        return reading

    def _is_head(self, start: int, stop: int) -> bool:
        """Whether a line begins with an option's letter, or is nothing but an option."""
        line = _NUMBERED.sub("", self.low[start:stop], count=1)
        return _HEAD.match(line) is not None or line.strip(_AROUND) in self.options.low_texts

    def _heads(self) -> Reading | None:
        """What the lines that are an option, or begin with its letter, agree on; None where there are none.

        Of a list in which some are ticked, "B. sad ✅", these.
        """
        decided: Reading | None = None
        heads: list[tuple[int, int]] = []
        start = self.begin
        for line in self.low[self.begin : self.end].split("\n"):
            stop = start + len(line)
            heads += [(start, stop)] if self._is_head(start, stop) else []
            start = stop + 1
        ticked = [(start, stop) for start, stop in heads if _TICKED.search(self.low, start, stop)]
        for start, stop in ticked or heads:
            outcome, reading = self._said(_Statement(start, start, start, stop, _LINE))
            if outcome.index is not None or outcome.why != "none":
                if decided is not None and decided.index != reading.index:
                    return Reading(None, "several", start, stop)
                decided = decided or reading
        return decided


def _until(statement: _Statement, following: _Statement) -> _Statement:
    """The statement without what the following one says, so that nothing is read as often as there are statements."""
    begins = (following.first, following.phrase, following.start)
    end = next((at for at in begins if statement.start < at < statement.end), statement.end)
    return replace(statement, end=end)

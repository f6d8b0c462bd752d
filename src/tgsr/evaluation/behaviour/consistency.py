"""Consistency: does the reasoning support the final answer? A judge LLM says so, 1 or 0. Source: 5.4, appendix C.4.

The paper's judge is Qwen3-32B and its prompt is not printed; the one here is ours. Choices are listed without letters,
and letters in the reasoning are put as the choices that they stand for, so that the choices' order can be turned.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from tgsr.choices import extract_choice, final_statement
from tgsr.evaluation.behaviour.metrics import Flips
from tgsr.llm.decoding import Decoding, Failed
from tgsr.llm.served import Llm, TextPrompt, replies_kept
from tgsr.prompts import REASONING_OPENING
from tgsr.reading.naming import Options, count_words, word_set
from tgsr.reading.statements import read
from tgsr.reading.thoughts import MARK, after_thoughts
from tgsr.records import Response, append_jsonl
from tgsr.statistics.agreement import Agreement, cohen_kappa, with_interval
from tgsr.statistics.intervals import Mean, bootstrap_mean, number, percent

Variant = Literal["plain", "turned", "swapped"]
VARIANTS: tuple[Variant, ...] = ("plain", "turned", "swapped")
"""As it is; the choices' order turned by half; the two verdicts offered the other way round."""

AT_ONCE = 32  # cases a batch: what a stop costs
DECODING = Decoding(max_new_tokens=2048)  # greedy; judges that think aloud need room
_WORDS = {True: "1", False: "0", None: "unparsed"}
_TAG = re.compile(rf"{MARK}|</?(?:answer|reasoning)>", re.IGNORECASE)
_REST_OF_ANSWER = re.compile(r"[^.,;:!?()\n–—，。：；-]*[.,;:!?)}\]$*\"\s–—，。：；-]*")
_ANNOUNCED = re.compile(
    r"(?:\b(?:the|my)\s+)?(?:\b(?:final|correct|best)\s+)*(?:\b(?:answer|option|choice)\s*(?:is|:)?)?[\s:$\\(\[{*\"']*$",
    re.IGNORECASE,
)
_VERDICTS = Options(("0", "1"), n_letters=0)
_ANNOUNCES = word_set(
    """
    the my so therefore thus final answer verdict decision score is be would should must boxed fbox text
    答案 答案是
    """
)
_WORD = re.compile(r"\w+")
_LETTER = re.compile(
    r"\(\s?(?P<round>[a-z])\s?\)|(?<![\w(])(?P<half>[a-z])\)"
    r"|(?P<word>\b(?:option|choice|answer)\s{1,4})(?P<capital>(?-i:[A-Z]))\b(?!')",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Case:
    """What a judge is asked about: a reasoning and the answer that it ended in, as texts without letters."""

    id: str
    clip: str
    question: str
    choices: tuple[str, ...]
    reasoning: str
    answer: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge's verdicts on one case: verdicts[variant] is True, False, or None where it could not be read.

    `failed` are the reasons for which there was no reply at all, by variant; such a case has no verdict there.
    """

    case: Case
    verdicts: dict[str, bool | None]
    failed: dict[str, str]


# --- what is asked ---------------------------------------------------------------------------------------------


def case_of(response: Response) -> Case | None:
    """The response as a case; None where it names no choice clearly, or reasons nothing before it answers."""
    question = response.question
    index = extract_choice(response.text, question.choices)
    reasoning = reasoning_of(response.text, question.choices)
    if index is None or not reasoning:
        return None
    choices, asked = question.choices, (question.id, question.clip_id, question.question)
    return Case(*asked, choices, named(reasoning, choices), choices[index])


def reasoning_of(text: str, choices: Sequence[str] = ()) -> str:
    """The response without B.1.3's opening and without its final answer, stripped; "" where nothing is left.

    The final answer is where `extract_choice` reads it, with what announces it and what else its clause says, wherever
    that stands: what comes before and after it stays, on its line too. Tags of thinking aloud go. Without `choices` the
    answer is a letter.
    """
    text = text.replace(REASONING_OPENING, "").strip()
    start, end = final_statement(text, choices)
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", end)
    last = len(text) if last < 0 else last
    rest = _REST_OF_ANSWER.match(text, end, last)
    on_line = _ANNOUNCED.sub("", text[first:start]), text[rest.end() if rest else end : last]
    kept = [_TAG.sub("", part).strip() for part in on_line]
    line = " ".join(part for part in kept if count_words(part) > 1)
    return _TAG.sub("", text[:first] + (f"{line}\n" if line else "") + text[last:].lstrip()).strip()


def named(text: str, choices: Sequence[str]) -> str:
    """The text with each "(b)" as the choice that it stands for, in quotes; dropped where that text follows."""

    def choice(match: re.Match[str]) -> str:
        index = ord((match["round"] or match["half"] or match["capital"]).lower()) - ord("a")
        if index >= len(choices):
            return match[0]
        follows = text[match.end() :].lstrip(" :")[: len(choices[index])]
        is_said = follows.lower() == choices[index].lower()
        return (match["word"] or "") + ("" if is_said else f'"{choices[index]}"')

    return _LETTER.sub(choice, text)


def prompt_of(case: Case, variant: Variant = "plain") -> TextPrompt:
    """The judge's user turn: one verdict, 1 or 0, and nothing else (C.4)."""
    half = len(case.choices) // 2
    choices = case.choices[half:] + case.choices[:half] if variant == "turned" else case.choices
    verdicts = [
        "1 if the reasoning supports the final answer",
        "0 if the reasoning does not support the final answer or contradicts it",
    ]
    if variant == "swapped":
        verdicts.reverse()
    text = (
        "A program was asked a question about a recording. It wrote down its reasoning and gave a final answer. Decide "
        "whether the final answer follows from the reasoning. You cannot hear the recording: do not ask whether the "
        "reasoning or the answer is true, only whether the one supports the other.\n\n"
        f"Question: {case.question}\n"
        f"Candidate answers:\n{chr(10).join(f'- {choice}' for choice in choices)}\n"
        f"Reasoning:\n{case.reasoning}\n"
        f"Final answer: {case.answer}\n\n"
        f"Reply with a single character: {', '.join(verdicts)}. Give no explanation."
    )
    return TextPrompt(text, "01" if variant == "swapped" else "10")


def verdict_of(reply: str) -> bool | None:
    """True for 1, False for 0, None for anything that is not one verdict.

    A verdict stands alone on its line, or is announced: "1", "Verdict: 1", "The answer is 0.", "<answer>1</answer>".
    What a judge thinks before it answers is left out. "1 or 0", "10", "-1", "not 1" and a sentence are none.
    """
    reply = reply[after_thoughts(reply) :]
    reading = read(reply, _VERDICTS)
    if reading.index is None:
        return None
    last = reply.find("\n", reading.end)
    line = reply[reply.rfind("\n", 0, reading.start) + 1 : len(reply) if last < 0 else last]
    said = _WORD.findall(_TAG.sub(" ", reply[reading.start : reading.end]).lower())[:-1]
    is_alone = len(_WORD.findall(_TAG.sub(" ", line))) == 1
    return reading.index == 1 if is_alone or (said and _ANNOUNCES.issuperset(said)) else None


# --- asking ----------------------------------------------------------------------------------------------------


def judge(
    llm: Llm, name: str, cases: Sequence[Case], log: Path, variants: Sequence[Variant] = ("plain",)
) -> list[Judged]:
    """Each case's verdicts by the LLM called `name`, in order.

    Replies are appended to `log` (JSONL) as they come and are not asked for again, so that a stop costs one batch; a
    request that failed is asked again at the next call.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    replies = replies_kept(log, name, by="judge", key="key")
    prompts = {(i, variant): prompt_of(case, variant) for i, case in enumerate(cases) for variant in variants}
    keys = {place: _key(name, prompt) for place, prompt in prompts.items()}
    left = [place for place, key in keys.items() if key not in replies]
    failed: dict[str, str] = {}
    bar = tqdm(total=len(prompts), initial=len(prompts) - len(left), desc=f"judge {name}", unit="verdict")
    for first in range(0, len(left), AT_ONCE):
        batch = left[first : first + AT_ONCE]
        for place, reply in zip(batch, llm.replies([prompts[p] for p in batch], DECODING), strict=True):
            key, case, variant = keys[place], cases[place[0]], place[1]
            if isinstance(reply, Failed):
                failed[key] = reply.reason
                continue
            replies[key] = reply
            row = {"key": key, "judge": name, "id": case.id, "variant": variant}
            row |= {"reasoning": case.reasoning, "answer": case.answer}
            append_jsonl(log, {**row, "reply": reply, "verdict": _WORDS[verdict_of(reply)]})
        bar.update(len(batch))
    bar.close()
    judged = [Judged(case, {}, {}) for case in cases]
    for (i, variant), key in keys.items():
        if key in replies:
            judged[i].verdicts[variant] = verdict_of(replies[key])
        else:
            judged[i].failed[variant] = failed[key]
    return judged


def _key(name: str, prompt: TextPrompt) -> str:
    text = f"{name}\n{prompt.letters}\n{prompt.text}"
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:24]


# --- how good is the judge? ------------------------------------------------------------------------------------


def flips(judged: Iterable[Judged], variant: str, seed: int = 0) -> Flips:
    """The plain verdicts against those under the variant."""
    both = [(one.case.clip, one.verdicts.get("plain"), one.verdicts.get(variant)) for one in judged]
    pairs = [(clip, a, b) for clip, a, b in both if a is not None and b is not None]
    return Flips(
        rate=bootstrap_mean([float(a != b) for _, a, b in pairs], [clip for clip, _, _ in pairs], seed),
        to_yes=sum(after and not before for _, before, after in pairs),
        to_no=sum(before and not after for _, before, after in pairs),
    )


@dataclass(frozen=True, slots=True)
class Check:
    """A judge against the labels that ship: `confusion[label][verdict]`, verdict "1", "0" or "unparsed".

    accuracy counts an unparsed verdict as wrong; kappa leaves it out. `wrong` are the ids that it got wrong.
    """

    judge: str
    n: int
    accuracy: Mean
    kappa: Agreement
    confusion: dict[str, dict[str, int]]
    n_unparsed: int
    n_failed: int
    turned: Flips
    swapped: Flips
    wrong: tuple[str, ...]


def labelled() -> list[tuple[Case, bool]]:
    """The labelled cases that ship: 84, half of them consistent. Whose labels they are: docs/behaviour.md."""
    text = (files("tgsr") / "assets" / "judge" / "agreement.jsonl").read_text(encoding="utf-8")
    labelled = []
    for line in text.splitlines():
        row = json.loads(line)
        choices = tuple(row["choices"])
        case = Case(row["id"], row["id"], row["question"], choices, row["reasoning"], row["answer"])
        labelled.append((case, bool(row["verdict"])))
    return labelled


def check(llm: Llm, name: str, log: Path, seed: int = 0) -> Check:
    """The judge's agreement with the labelled cases, and its flips under both variants."""
    cases = labelled()
    judged = judge(llm, name, [case for case, _ in cases], log, VARIANTS)
    pairs = [
        (label, verdicts.case.id, verdicts.verdicts["plain"])
        for (_, label), verdicts in zip(cases, judged, strict=True)
        if "plain" in verdicts.verdicts
    ]
    confusion = {label: dict.fromkeys(("1", "0", "unparsed"), 0) for label in ("1", "0")}
    for label, _, verdict in pairs:
        confusion[str(int(label))][_WORDS[verdict]] += 1
    right = [float(verdict == label) for label, _, verdict in pairs]
    readable = [(float(label), float(verdict)) for label, _, verdict in pairs if verdict is not None]
    return Check(
        judge=name,
        n=len(pairs),
        accuracy=bootstrap_mean(right, [id_ for _, id_, _ in pairs], seed),
        kappa=with_interval(cohen_kappa, readable, seed),
        confusion=confusion,
        n_unparsed=len(pairs) - len(readable),
        n_failed=len(judged) - len(pairs),
        turned=flips(judged, "turned", seed),
        swapped=flips(judged, "swapped", seed),
        wrong=tuple(id_ for label, id_, verdict in pairs if verdict != label),
    )


def told(check: Check) -> str:
    """The check in a few lines for a terminal."""
    kappa = Mean(check.kappa.value, check.kappa.low, check.kappa.high, check.n, 0)
    shown = "not defined" if kappa.value is None else number(kappa, 2)
    agrees = f"agrees in {percent(check.accuracy)}, Cohen's kappa {shown}"
    lines = [f"{check.judge}: {check.n} labelled cases: {agrees}"]
    for label, n_judged in check.confusion.items():
        counts = ", ".join(f"{n} judged {verdict}" for verdict, n in n_judged.items() if n)
        lines.append(f"labelled {label}: {counts or 'none judged'}")
    lines += [check.turned.told("choices turned"), check.swapped.told("verdicts swapped")]
    if check.n_unparsed or check.n_failed:
        lines.append(f"{check.n_unparsed} replies were no verdict, {check.n_failed} requests failed")
    return "\n".join(lines)

"""The page's items: which questions are shown, and each with its clip, spans and responses to listen to."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import zip_longest
from pathlib import Path

import numpy as np

from tgsr import audio
from tgsr.choices import letter, official_letter
from tgsr.evaluation.scoring.items import ScoredChoice, ScoredPhrase, score_response
from tgsr.evaluation.scoring.spoken import Spoken
from tgsr.grounding import Mention, mentions_in
from tgsr.overlap import high_overlap
from tgsr.records import Question, Response, resolve_audio
from tgsr.report.cited import CitedPlace, cited_places
from tgsr.report.figures import axis_svg, lane_svg, wave_svg
from tgsr.statistics.pictures import Stated, stated, tint
from tgsr.timeline import Seconds, Span

N_LETTERS = 26  # an option after (z) has none
MOST_COMPARED = 2000  # questions among which the best and worst are looked for


@dataclass(frozen=True, slots=True)
class Answered:
    """One question with each model's first response, in the page's order of models; `audio`: its clip."""

    question: Question
    audio: Path
    responses: tuple[Response, ...]


@dataclass(frozen=True, slots=True)
class EmbeddedSound:
    """A clip's samples and its <audio> element of that id; samples None and `problem` where it is unheard."""

    id: str
    samples: audio.Samples | None
    problem: str | None

    @property
    def element(self) -> str:
        if self.samples is None:
            return ""
        encoded = base64.b64encode(audio.wav_bytes(self.samples)).decode("ascii")
        return f'<audio id="{self.id}" preload="auto" src="data:audio/wav;base64,{encoded}"></audio>\n'


# --- what is shown ---------------------------------------------------------------------------------------


def group_by_question(by_file: Iterable[tuple[Path, Sequence[Response]]]) -> list[Answered]:
    """Questions with their responses, in order of appearance; of a model's several responses the first.

    Two questions of one id that differ in anything else stay two.
    """
    by_question: dict[Question, tuple[Path, dict[str, Response]]] = {}
    for path, responses in by_file:
        clips: dict[str, Path] = {}  # a clip has many questions, and asking the disk is slow
        for response in responses:
            name = response.question.audio
            clip = clips[name] if name in clips else resolve_audio(response, path).resolve()
            clips[name] = clip
            question = replace(response.question, audio=str(clip))  # each file has its own relative path
            _, by_model = by_question.setdefault(question, (clip, {}))
            by_model.setdefault(response.model, response)
    found = by_question.items()
    return [Answered(question, clip, tuple(models.values())) for question, (clip, models) in found]


def scores_of(response: Response) -> ScoredPhrase | ScoredChoice:
    """One response as the tables score it, without the words of its clip."""
    scored = score_response(response)[0]
    assert isinstance(scored, ScoredPhrase | ScoredChoice)
    return scored


def quality(scores: ScoredPhrase | ScoredChoice) -> float | None:
    """How good one response is, in [0, 1]: a phrase's IoU; the mean of accuracy and trace IoU for a choice.

    A trace without spans counts as one of IoU 0. Where the question has no evidence, accuracy alone; None where nobody
    knows what is right.
    """
    if isinstance(scores, ScoredPhrase):
        return scores.iou
    is_marked = scores.evidence is not None and scores.evidence.evidence
    if scores.official is None or not is_marked:
        return scores.official
    return (scores.official + (scores.trace_iou or 0.0)) / 2


def is_right(scores: ScoredPhrase | ScoredChoice) -> bool | None:
    """IoU >= 0.7, or the right letter; None where nobody knows."""
    if isinstance(scores, ScoredChoice):
        return scores.official
    return None if scores.iou is None else high_overlap(scores.iou)


def response_of(asked: Answered, model: str) -> Response | None:
    return next((response for response in asked.responses if response.model == model), None)


def choose_items(
    asked: Sequence[Answered], models: Sequence[str], n_items: int, seed: int
) -> list[tuple[Answered, str]]:
    """Questions with the rule that chose each: a quarter of them where the last model is right and the first wrong, a
    quarter its best and a quarter its worst responses, the rest at random; fewer where there are fewer.

    Kinds of question take turns, and clips that are shown already come last. Of more than MOST_COMPARED questions, so
    many are drawn first.
    """
    if not asked or not models:
        return []
    drawn = np.random.default_rng(seed).permutation(len(asked))[:MOST_COMPARED]
    order = [asked[i] for i in drawn]
    first, last = models[0], models[-1]
    scores = {
        (item.question, model): scores_of(response)
        for item in order
        for model in {first, last}
        if (response := response_of(item, model)) is not None
    }
    rated: list[tuple[Answered, float]] = []
    gained: list[Answered] = []
    for item in order:
        of_last, of_first = scores.get((item.question, last)), scores.get((item.question, first))
        if of_last and (value := quality(of_last)) is not None:
            rated.append((item, value))
        if of_last and of_first and is_right(of_last) and is_right(of_first) is False:
            gained.append(item)
    falling = [item for item, _ in sorted(rated, key=lambda pair: -pair[1])]
    rising = [item for item, _ in sorted(rated, key=lambda pair: pair[1])]
    among = "" if len(asked) <= MOST_COMPARED else f" of {MOST_COMPARED} questions drawn at random"
    chosen: list[tuple[Answered, str]] = []
    for rule, candidates, share, pick in (
        (f"{last} is right, {first} is wrong", gained, -(-n_items // 4), varied),
        (f"among {last}’s best responses{among}", falling, n_items // 4, in_turn),
        (f"among {last}’s worst responses{among}", rising, n_items // 4, in_turn),
        ("chosen at random", order, n_items, varied),
    ):
        shown = [item for item, _ in chosen]
        picked = pick(candidates, shown, min(share, n_items - len(chosen)))
        chosen += [(item, rule) for item in picked]
    return chosen


def in_turn(candidates: Sequence[Answered], shown: Sequence[Answered], n: int) -> list[Answered]:
    """Up to n of the candidates that are not shown yet, strictly in order, but kinds of question take turns."""
    by_kind: dict[str, list[Answered]] = {}
    for item in candidates:
        if item not in shown:
            by_kind.setdefault(item.question.kind, []).append(item)
    turns = zip_longest(*by_kind.values())
    return [item for turn in turns for item in turn if item is not None][:n]


def varied(candidates: Sequence[Answered], shown: Sequence[Answered], n: int) -> list[Answered]:
    """Up to n of the candidates that are not shown yet: new clips first, then the rarer kind, then in order."""
    clips = {item.audio for item in shown}
    kinds = Counter(item.question.kind for item in shown)
    left = [item for item in candidates if item not in shown]
    picked: list[Answered] = []
    while left and len(picked) < n:
        item = min(left, key=lambda a: (a.audio in clips, kinds[a.question.kind]))
        left.remove(item)
        picked.append(item)
        clips.add(item.audio)
        kinds[item.question.kind] += 1
    return picked


def sound_of(clip: Path, sounds: dict[Path, EmbeddedSound]) -> EmbeddedSound:
    """The clip's sound, loaded once: `sounds` keeps it for the other items about the clip."""
    if clip not in sounds:
        name = f"clip-{len(sounds)}"
        try:
            sounds[clip] = EmbeddedSound(name, audio.load(clip), None)
        except (OSError, ValueError) as error:  # ValueError: AudioError, and a path that no file can have
            sounds[clip] = EmbeddedSound(name, None, str(error))
    return sounds[clip]


# --- one item --------------------------------------------------------------------------------------------


def item_html(
    asked: Answered, rule: str, models: Sequence[str], sound: EmbeddedSound, spoken: Spoken, name: str = ""
) -> str:
    """One question with its responses; `name` is its anchor on the page."""
    question = asked.question
    responses = sorted(asked.responses, key=lambda response: models.index(response.model))
    text = f"<bdi>{escape(question.question)}</bdi>"
    if question.kind == "phrase":
        text = f"Where is “<bdi>{escape(str(question.phrase))}</bdi>” said?"
    parts = [f'<p class="why">{escape(rule)}</p><h3>{text}</h3>']
    if question.kind == "choice":
        parts.append(choice_list(question, responses, models))
    texts = "".join(response_html(response, models, sound.problem is None, spoken) for response in responses)
    details = ", ".join(escape(part) for part in (question.id, question.split, question.task) if part)
    parts += [
        player(question.duration, sound),
        lanes(question, responses, models, sound),
        f'<div class="responses">{texts}</div>',
        f'<p class="soft">{details}</p>',
    ]
    return article(parts, question.duration, sound, name)


def article(parts: Sequence[str], duration: Seconds, sound: EmbeddedSound, name: str = "") -> str:
    """An item's parts in its frame, of which the page's script reads the clip's length and sound."""
    name = f' id="{name}"' if name else ""
    heard = "" if sound.samples is None else f' data-audio="{sound.id}"'
    return f'<article class="item"{name} data-duration="{duration}"{heard}>{"".join(parts)}</article>'


def choice_list(question: Question, responses: Sequence[Response], models: Sequence[str]) -> str:
    """The choices, the right one marked, and beside each the models whose official letter it is."""
    rows = []
    for index, choice in enumerate(question.choices):
        name = letter(index) if index < N_LETTERS else "…"
        takers = [r.model for r in responses if official_letter(r.text) == name]
        keys = "".join(
            f'<span class="key {tint(models, m)}" role="img" title="{escape(m)}" '
            f'aria-label="{escape(m)} chose this"></span>'
            for m in takers
        )
        kind, mark = "other", ""
        if choice == question.answer:
            kind, mark = "right", '<span class="tick" role="img" aria-label="right">✓</span>'
        rows.append(f'<li class="{kind}">({name}) <bdi>{escape(choice)}</bdi>{mark}{keys}</li>')
    return f'<ul class="choices">{"".join(rows)}</ul>'


def player(duration: Seconds, sound: EmbeddedSound) -> str:
    """The button that plays the whole clip, or why there is nothing to play."""
    if sound.problem is not None:
        return f'<p class="unheard">No sound for this item: {escape(sound.problem)}</p>'
    return (
        f'<p class="player"><button class="whole" data-start="0" data-end="{duration}">whole clip</button>'
        f'<span class="clock">0.00 / {duration:.2f} s</span></p>'
    )


def lanes(
    question: Question, responses: Sequence[Response], models: Sequence[str], sound: EmbeddedSound
) -> str:
    """The waveform, the evidence, a lane a model, and the seconds."""
    evidence, duration = question.evidence, question.duration
    rows = [f"<span></span>{wave_svg(sound.samples, evidence, duration)}"]
    bands: list[tuple[str, str, Sequence[Span | Mention]]] = []
    bands += [("evidence", "truth", evidence)] if evidence else []
    bands += [(r.model, tint(models, r.model), mentions_in(r)) for r in responses]
    rows += [named_lane(*lane, evidence, duration, sound.samples is not None) for lane in bands]
    rows.append(f"<span></span>{axis_svg(duration)}")
    return f'<div class="lanes">{"".join(rows)}</div>'


def named_lane(
    name: str,
    colour: str,
    spans: Sequence[Span | Mention],
    evidence: Sequence[Span],
    duration: Seconds,
    is_heard: bool,
) -> str:
    """A lane after its name; without sound its bars play nothing."""
    bars = [stated(span.start, span.end, duration) for span in spans]
    bars = [bar if is_heard else replace(bar, is_audible=False) for bar in bars]
    return f'<span class="name">{escape(name)}</span>{lane_svg(name, colour, bars, evidence, duration)}'


def response_html(response: Response, models: Sequence[str], is_heard: bool, spoken: Spoken) -> str:
    colour = tint(models, response.model)
    empty = '<span class="soft">(an empty response)</span>'
    body = cited_text(response, is_heard) if response.text.strip() else empty
    places = cited_places(response, spoken.words_of(response.question))
    held = "".join(place_html(place, response) for place in places)
    held = f'<ul class="held">{held}</ul>' if held else ""
    return (
        f'<div class="response {colour}"><p class="who"><span class="key {colour}"></span>'
        f'<b>{escape(response.model)}</b><span class="verdict">{verdict(response)}</span></p>'
        f'<p class="text" dir="auto">{body}</p>{held}</div>'
    )


def place_html(place: CitedPlace, response: Response) -> str:
    """What a cited place holds: whether it is evidence, what is said there, and what the response says is."""
    span = stated(place.mention.start, place.mention.end, response.question.duration)
    facts = [f'<span class="time">{span.start:g}–{span.end:g} s</span>']
    if span.problem is not None:
        facts.append(judged(False, escape(span.problem)))
    elif place.is_hit is not None:
        facts.append(judged(place.is_hit, "on the evidence" if place.is_hit else "off the evidence"))
    if place.said is not None:
        facts.append(f"said there: {quotation(place.said)}")
    if place.quoted:
        facts.append(f"quoted: {judged(place.is_quote_true, quotation(place.quoted))}")
    return f"<li>{' · '.join(facts)}</li>" if len(facts) > 1 else ""


def quotation(words: Sequence[str]) -> str:
    return f'<q dir="auto">{escape(" ".join(words))}</q>' if words else "nothing"


def judged(is_good: bool | None, content: str) -> str:
    """The markup after a sign for good or bad; None is neither."""
    if is_good is None:
        return content
    kind, sign = ("good", "✓") if is_good else ("bad", "✗")
    return f'<span class="{kind}">{sign} {content}</span>'


def verdict(response: Response) -> str:
    """What the tables' scores make of this one response."""
    scores = scores_of(response)
    if isinstance(scores, ScoredPhrase):
        return "not scored: no reference" if scores.iou is None else f"IoU {scores.iou:.2f}"
    wrong = "wrong: no letter" if scores.letter is None else "wrong"
    trace = "" if scores.trace_iou is None else f", trace IoU {scores.trace_iou:.2f}"
    return f"{'right' if scores.official else wrong}, k = {scores.n_mentions}{trace}"


def cited_text(response: Response, is_heard: bool) -> str:
    """The text, escaped, with each stated interval as a button; one with a problem is crossed out."""
    text, position, pieces = response.text, 0, []
    for mention in mentions_in(response):
        pieces.append(escape(text[position : mention.text_start]))
        span = stated(mention.start, mention.end, response.question.duration)
        pieces.append(cite_button(span, text[mention.text_start : mention.text_end], is_heard))
        position = mention.text_end
    return "".join(pieces) + escape(text[position:])


def cite_button(span: Stated, words: str, is_heard: bool) -> str:
    """A button that plays the span; one without anything to play stays, to say why.

    Not a <button>, which breaks no lines: a long mention would tear the sentence apart.
    """
    is_playable = span.is_audible and is_heard
    label = f"{'play ' if is_playable else ''}{span.start:g} to {span.end:g} seconds"
    label += f": {span.problem}" if span.problem else ""
    classes = "cite" if span.problem is None else "cite wrong"
    blocked = "" if is_playable else ' aria-disabled="true"'
    why = f' title="{span.problem}"' if span.problem else ""
    content = escape(words) if span.problem is None else f"<s>{escape(words)}</s>"
    return (
        f'<span class="{classes}" role="button" tabindex="0" data-start="{span.start}" data-end="{span.end}" '
        f'aria-label="{label}"{why}{blocked}>{content}</span>'
    )

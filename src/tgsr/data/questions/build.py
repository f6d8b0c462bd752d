"""Questions from clips: of any corpus, shard by shard, and from spoken digits that are composed here."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tgsr.audio import save_flac
from tgsr.data.cards import Described, card, plot, statistics
from tgsr.data.corpora.spoken_digits import LONGEST, SHORTEST, compose
from tgsr.data.corpora.which import clips_of
from tgsr.data.questions.absent import Pool, absent_phrases
from tgsr.data.questions.by_rule import Choices, choice_questions_of, unfit
from tgsr.data.questions.digits import TASKS, choice_questions
from tgsr.data.questions.phrases import Phrases, phrase_questions, spread_phrases
from tgsr.data.shards import Made, Step, errors_of, run
from tgsr.data.splits import Split, drawn, leaks
from tgsr.disk.jsonl import Row
from tgsr.disk.rows import OnDisk
from tgsr.disk.whole import whole, write_whole
from tgsr.errors import Bad, BuildError
from tgsr.records import (
    TEXT_DIFFERS,
    Clip,
    Question,
    as_row,
    clip_of,
    question_of,
    read_questions,
    resolve_audio,
    write_jsonl,
)
from tgsr.timeline import Seconds


def require_new(out: Path, clips: Sequence[Path] = ()) -> None:
    """Raises BuildError where `out` holds questions already, or clips that are not just those asked about.

    Those of a build from clips that was stopped are none: it goes on from its shards until the card is there.
    """
    if clips and (out / ".questions.jsonl.shards").is_dir() and not (out / "card.md").exists():
        return
    names = ["questions.jsonl"] if not clips or _are_kept(clips, out) else ["questions.jsonl", "clips.jsonl"]
    for name in names:
        if (out / name).exists():
            raise BuildError(f"{out}: holds {name} already; choose another --out or delete that folder")


def _are_kept(clips: Sequence[Path], out: Path) -> bool:
    """Whether the clips are just those of out/clips.jsonl."""
    return [path.resolve() for path in clips] == [(out / "clips.jsonl").resolve()]


def compose_clips(
    n_clips: int, split: str, first_seed: int, out: Path, longest: Seconds = math.inf
) -> list[Clip]:
    """n_clips clips of spoken digits as FLAC files in out/audio; files that are whole are kept.

    None is longer than `longest`, SHORTEST or more: seeds whose first two words take longer are passed over.
    """
    drawn_from = (SHORTEST, min(LONGEST, longest))
    composed_clips = (compose(seed, split, seconds=drawn_from) for seed in count(first_seed))
    fitting = (composed for composed in composed_clips if composed.clip.duration <= longest)
    clips = []
    for composed in tqdm(islice(fitting, n_clips), f"compose {split}", n_clips, unit="clip"):
        path = out / composed.clip.audio
        if not path.exists():
            save_flac(path, composed.samples)
        clips.append(composed.clip)
    return clips


def ask_about(
    clips: Sequence[Clip], stage: str, phrases_per_clip: int, seed: int, without: Sequence[str] = ()
) -> list[Question]:
    """stage "sta": phrases of 2-8 words; stage "qa": one question a task that the clip allows, but those `without`.

    The others are the same without as with them. Raises BuildError for a task that there is not.
    """
    if unknown := sorted(set(without) - set(TASKS)):
        there = f"about digits there are the tasks {', '.join(TASKS)}"
        raise BuildError(f"--without {' '.join(unknown)}: {there}")
    questions: list[Question] = []
    for index, clip in enumerate(clips):
        rng = np.random.default_rng((seed, index))
        if stage == "sta":
            questions += phrase_questions(clip, rng, phrases_per_clip)
        else:
            questions += [q for q in choice_questions(clip, rng) if q.task not in without]
    return questions


def with_absent(
    clips: Iterable[Clip], questions: Sequence[Question], share: float, seed: int
) -> list[Question]:
    """The questions with phrases that are not said after each clip's own, as `absent_phrases` makes them."""
    if not share:
        return list(questions)
    pool = Pool.of(questions, seed)
    of_split = {split: pool.of_split(split) for split in {question.split for question in questions}}
    by_id: dict[str, list[Question]] = {}
    for question in questions:
        by_id.setdefault(question.clip_id, []).append(question)
    asked: list[Question] = []
    for clip in clips:
        if own := by_id.pop(clip.id, []):
            clip = replace(clip, split=own[0].split, audio=own[0].audio)
            asked += [*own, *absent_phrases(clip, own, of_split[clip.split], share, seed)]
    return asked + list(chain.from_iterable(by_id.values()))


def write_questions(clips: Sequence[Clip], questions: Sequence[Question], out: Path) -> Path:
    """clips.jsonl and questions.jsonl in `out`. Raises BuildError where there is no question to write."""
    if not questions:
        raise BuildError("no question could be made: the clips need words with times, at least two of them")
    write_jsonl(out / "clips.jsonl", clips)
    write_jsonl(out / "questions.jsonl", questions)
    return out / "questions.jsonl"


def moved(clips: Sequence[Clip], clips_path: Path, out: Path) -> list[Clip]:
    """The clips with their audio's paths as seen from `out`."""
    sounds = (resolve_audio(clip, clips_path).resolve() for clip in clips)
    return [replace(c, audio=os.path.relpath(s, out.resolve())) for c, s in zip(clips, sounds, strict=True)]


# --- any corpus ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stage1:
    """What `build sta` asks of a corpus' clips."""

    phrases: Phrases
    split: Split


@dataclass(frozen=True, slots=True)
class Stage2:
    """What `build qa` asks of a corpus' clips."""

    choices: Choices
    split: Split


def phrases_of(settings: Stage1, rows: Sequence[Row]) -> Made:
    """Each clip's phrases; a clip that has none is left out with its reason. A step of shards.run."""
    questions: list[Question] = []
    bad: list[Bad] = []
    for clip in map(clip_of, rows):
        if reason := unfit(clip):
            bad.append(Bad(clip.id, reason, None, "flags"))
            continue
        clip = replace(clip, split=settings.split.of(clip))
        rng = np.random.default_rng(drawn(settings.phrases.seed, clip.id))
        asked_about = spread_phrases(clip, rng, settings.phrases)
        questions += asked_about
        if not asked_about:
            reason = f"no phrase that is allowed among its {len(clip.words)} words"
            bad.append(Bad(clip.id, reason, None, "words"))
    return Made(questions, bad)


def choices_of(settings: Stage2, rows: Sequence[Row]) -> Made:
    """One question a task about each clip; the shard's other clips give wrong choices. A step of shards.run."""
    questions: list[Question] = []
    bad: list[Bad] = []
    clips = [replace(clip, split=settings.split.of(clip)) for clip in map(clip_of, rows)]
    for clip in clips:
        if reason := unfit(clip):
            # What is known of the whole clip can still be asked, unless it is another clip's.
            if TEXT_DIFFERS in clip.flags or not (clip.labels or clip.events):
                bad.append(Bad(clip.id, reason, None, "flags"))
                continue
            clip = replace(clip, words=())
        # A test's wrong choices come from the test: a phrase that was trained on must not give itself away.
        others = [other for other in clips if other.split == clip.split and not unfit(other)]
        asked_about = choice_questions_of(clip, others, settings.choices)
        questions += asked_about
        if not asked_about:
            bad.append(Bad(clip.id, "nothing that is known of it can be asked", None, "words"))
    return Made(questions, bad)


def rows_of(clips: Iterable[Clip | Bad]) -> Iterator[Row | Bad]:
    """Clips as rows of a step; one that says the same as an earlier one, at the same times, is left out."""
    seen, ids = OnDisk(), OnDisk()
    for clip in clips:
        if isinstance(clip, Bad):
            yield clip
            continue
        if ids.put_new(clip.id, "taken"):
            yield Bad(clip.id, "the id of another clip of this set", None, "id")
            continue
        timed_words = [(word.text, word.start, word.end) for word in clip.words]
        content = f"{clip.duration} {timed_words} {clip.labels} {clip.events}"
        first = seen.put_new(hashlib.sha256(content.encode()).hexdigest(), clip.id)
        if clip.words and first is not None:
            yield Bad(clip.id, f"the same words at the same times as {first}", None, "words")
        else:
            yield as_row(clip)


def add_open_questions(
    clips: Sequence[Path],
    out: Path,
    llm: str,
    n_a_clip: int,
    seed: int,
    split: Split,
    cache: Path,
    **how: Any,
) -> None:
    """Questions that an LLM wrote about the clips, after those in out/questions.jsonl; refused drafts in errors.jsonl.

    `how` is shards.run's. Raises BuildError and ModelError as by_llm.py says.
    """
    from tgsr.data.questions.by_llm import Open, open_questions_of

    settings, name = Open(llm, cache, n_a_clip, seed, split), "tgsr.open_questions.open_questions_of"
    step = Step(open_questions_of, settings, name, version=2, models=(llm,))
    rows = rows_of(chain.from_iterable(clips_of(path, "clips", out) for path in clips))
    written = _run_beside(step, rows, out / ".open" / "questions.jsonl", out, how)
    _join(out / "questions.jsonl", out / "questions.jsonl", written)
    _join(out / "errors.jsonl", out / "errors.jsonl", errors_of(written))


def leave_out_answerable(out: Path, llm: str, cache: Path, **how: Any) -> None:
    """Takes the questions out of out/questions.jsonl that the LLM answers right without audio, whatever their order."""
    from tgsr.data.questions.answerable_by_text import TextOnly, heard_only

    step = Step(heard_only, TextOnly(llm, cache), "tgsr.text_only.heard_only", models=(llm,))
    with (out / "questions.jsonl").open(encoding="utf-8") as lines:
        kept = _run_beside(step, map(json.loads, lines), out / ".heard" / "questions.jsonl", out, how)
    _join(out / "questions.jsonl", kept)
    _join(out / "errors.jsonl", out / "errors.jsonl", errors_of(kept))


def _run_beside(step: Step, rows: Iterable[Row | Bad], target: Path, root: Path, how: dict[str, Any]) -> Path:
    """The step's result, in a hidden folder of its own, which keeps its shards."""
    target.parent.mkdir(exist_ok=True)
    how = {**how, "most_bad": math.inf}  # a clip may have several refused drafts
    run(step, rows, target, root=root, **how)
    return target


def _join(target: Path, *parts: Path) -> None:
    with whole(target) as half, half.open("wb") as file:
        for part in parts:
            with part.open("rb") as lines:
                file.writelines(lines)


def add_absent(clips: Sequence[Path], out: Path, share: float, seed: int, audio: Path | None = None) -> None:
    """Writes out/questions.jsonl anew, with phrases that are not said after each clip's own."""
    path = out / "questions.jsonl"
    read = chain.from_iterable(clips_of(file, "clips", out, audio=audio) for file in clips)
    heard = (clip for clip in read if not isinstance(clip, Bad))
    write_jsonl(path, with_absent(heard, read_questions(path), share, seed))


def keep_clips(clips: Sequence[Path], out: Path, audio: Path | None = None) -> Path:
    """out/clips.jsonl: the clips of all files, line by line, where rewards and scores look for a question's words.

    `audio` is the folder that their sound has moved to.
    """
    if _are_kept(clips, out):
        return out / "clips.jsonl"
    ids = OnDisk()
    read = chain.from_iterable(clips_of(path, "clips", out, audio=audio) for path in clips)
    kept = (clip for clip in read if not isinstance(clip, Bad) and not ids.put_new(clip.id, "taken"))
    write_jsonl(out / "clips.jsonl", kept)
    return out / "clips.jsonl"


def describe(clips: Sequence[Path], out: Path, split: Split, command: str) -> None:
    """card.md, statistics.json and statistics.png beside the questions in `out`, read line by line."""
    described = Described()
    with (out / "questions.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            described.ask(question_of(json.loads(line)))
    with (out / "errors.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            reason = re.sub(r"\S*/\S+", "FILE", json.loads(line)["error"])
            described.leave_out(re.sub(r"'[^']*'|[\d.]+", "X", reason)[:80])

    def heard() -> Iterator[Clip]:
        for clip in chain.from_iterable(clips_of(path, "clips", out) for path in clips):
            if not isinstance(clip, Bad):
                described.hear(clip)
                yield replace(clip, split=split.of(clip))

    leaked = leaks(heard())
    statistics(described, out / "statistics.json")
    plot(described, out / "statistics.png")
    # Last: `require_new` looks for it.
    write_whole(out / "card.md", card(described, out.name, command, leaked))

"""The base of the miniature that hears English: Whisper base, taught to be asked, that cannot tell the time yet.

Its encoder stays as it is; a LoRA on its decoder learns from lessons about clips that come in one of two ways: plain,
or with a time code (sinusoids of the frame's time through one linear layer, added to the frames). Times in the lessons
are true for clips with a time code; for plain ones they are bad, as those of models that nobody has taught time. The
code is a scaffold and is thrown away at the end: writing it into the frames is what stage 1 teaches the aligner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tgsr.choices import correct_letter
from tgsr.data.questions.by_rule import Choices, after, choice_questions_of
from tgsr.data.questions.phrases import phrase_questions
from tgsr.disk.run_folder import RunFolder
from tgsr.engine.features import FeatureCache, KeptFeatures
from tgsr.engine.sampling import sample
from tgsr.engine.shared_prefix import Branch, SoftTimes, branch_logps, listen
from tgsr.errors import RunError
from tgsr.grounding import asked_span, find_asked
from tgsr.miniature.english_config import EnglishConfig
from tgsr.miniature.english_lessons import EARLY, SHARES, english_lessons, plainly, teaches
from tgsr.miniature.hearing import hear_files
from tgsr.miniature.lessons import TextLesson, bad_span
from tgsr.models.aligner_and_lora import with_lora
from tgsr.models.clock import Clock
from tgsr.models.lalm import context_of, writing_times
from tgsr.models.load import load, multiplies_bfloat16, save_adapter
from tgsr.models.whisper import N_TICKS, Whisper
from tgsr.overlap import item_iou
from tgsr.prompts import Times, prompted
from tgsr.records import Clip, Question
from tgsr.rewards import answer_reward
from tgsr.training.checkpoints import keep_or_stop, kept_checkpoints, load_checkpoint, read_checkpoint
from tgsr.training.run import start_alone
from tgsr.training.steps import cosine, descend
from tgsr.training.stop import Stop

N_OTHERS = 32  # clips whose words may be a clip's wrong choices
MOST_DRAWN = 100  # lessons of a clip: where each is too long for the context, none is taken
CLIPS_AT_ONCE = 12  # while the gates are measured
PERIODS = (60.0, 30.0, 15.0, 7.5, 4.0, 2.0, 1.0, 0.5, 0.25, 0.12)  # seconds, of the time code


@dataclass(frozen=True, slots=True)
class Heard:
    """A clip, its frames on disk, and some other clips, whose words are wrong choices."""

    clip: Clip
    audio: KeptFeatures
    others: tuple[Clip, ...]

    def questions(self, without: tuple[str, ...], seed: int) -> list[Question]:
        """One question a task that a rule can ask about the clip, but those `without`; others for another seed."""
        return choice_questions_of(self.clip, self.others, Choices(4, without, seed))


def train_english(config: EnglishConfig, out: Path, cache: FeatureCache) -> Path:
    """The folder of the base, an adapter that is merged when it is loaded; resumes in `out`."""
    with start_alone("english", config, out, (*config.clips, *config.watch)) as (run, stop):
        return _train(run, config, cache, stop)


def among_others(heard: Sequence[tuple[Clip, KeptFeatures]]) -> list[Heard]:
    """Each clip with those that come after it, as in a ring."""
    clips = [clip for clip, _ in heard]
    n_others = min(N_OTHERS, len(heard)) - 1
    return [Heard(clip, audio, after(clips, place, n_others)) for place, (clip, audio) in enumerate(heard)]


def lessons_of(
    lalm: Whisper, item: Heard, timed: bool, config: EnglishConfig, rng: np.random.Generator, step: int
) -> list[tuple[Branch, str]]:
    """Lessons about one clip as branches of clip 0, each with its kind.

    As many as `lesson_tokens` hold, or one, and `token_phrases` phrases that are answered in time tokens.
    """
    chosen: list[tuple[Branch, str]] = []
    budget, room = config.lesson_tokens, context_of(lalm) - 2
    questions = item.questions(config.without, int(rng.integers(2**31)))
    shares = EARLY if step < config.early_share * config.steps else SHARES
    for lesson in islice(english_lessons(item.clip, questions, rng, timed, shares), MOST_DRAWN):
        lesson_branch = branch_of(lalm, lesson)
        size = size_of(lesson_branch)
        if size > room:
            continue
        budget -= size
        if budget < 0 and chosen:
            break
        chosen.append((lesson_branch, lesson.kind if timed else f"bad {lesson.kind}"))
    with writing_times(lalm, "tokens"):
        told = time_token_lessons(lalm, item.clip, config.token_phrases, timed, rng)
        in_tokens = [(branch_of(lalm, lesson), lesson.kind) for lesson in told]
    return [*chosen, *((branch, kind) for branch, kind in in_tokens if size_of(branch) <= room)]


def size_of(branch: Branch) -> int:
    """Tokens of its prompt and its answer."""
    return len(branch.prompt) + len(branch.answer)


def branch_of(lalm: Whisper, lesson: TextLesson) -> Branch:
    return Branch(0, lalm.prompt(lesson.question).after, (*lalm.tokens(lesson.answer), lalm.eos_id))


def time_token_lessons(
    lalm: Whisper, clip: Clip, n: int, true_times: bool, rng: np.random.Generator
) -> list[TextLesson]:
    """Up to n phrases, answered by two time tokens."""
    return [
        TextLesson(
            lalm.phrase_question(str(question.phrase)),
            lalm.phrase_answer(
                str(question.phrase), question.evidence[0] if true_times else bad_span(clip.duration, rng)
            ),
            "token phrase" if true_times else "bad token phrase",
        )
        for question in phrase_questions(plainly(clip), rng, n)
    ]


def _train(run: RunFolder, config: EnglishConfig, cache: FeatureCache, stop: Stop) -> Path:
    lalm = load(config.model)
    if not isinstance(lalm, Whisper):
        raise RunError(f"{config.model}: train english teaches whisper-base, or what was made of it")
    lalm.times = "words"
    heard = among_others(hear_files(run, lalm, config.clips, cache, teaches=teaches))
    others = hear_files(run, lalm, config.watch, cache, "watch-errors.jsonl") if config.watch else []
    watched = among_others(others)
    torch.manual_seed(config.seed)
    with_lora(lalm, config.lora_rank, config.lora_rank, config.seed)
    code = Clock(lalm.language_model.config.d_model, PERIODS)
    weights = {name: w for name, w in lalm.model.named_parameters() if w.requires_grad}
    weights |= {f"code.{name}": w for name, w in code.named_parameters()}
    parameters = list(weights.values())
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    soft = SoftTimes(lalm.first_tick, N_TICKS, config.spread)
    done = 0
    state = load_checkpoint(run)
    if state is not None:
        done = int(state["step"])
        put(weights, state["weights"])
        optimizer.load_state_dict(state["optimizer"])
    elif config.start:
        begin_with(weights, config.start)

    def state_now() -> dict[str, Any]:
        kept = {name: weight.detach() for name, weight in weights.items()}
        return {"weights": kept, "optimizer": optimizer.state_dict()}

    with stop.steps():
        for step in tqdm(range(done, config.steps), "english", unit="step", initial=done, total=config.steps):
            if watched and step == 0:
                run.log({"step": 0, **gates(lalm, code, watched, config.without)})
            rng = np.random.default_rng((config.seed, step))
            audio: list[Tensor] = []
            branches: list[Branch] = []
            kinds: list[str] = []
            with torch.autocast("cpu", torch.bfloat16, enabled=config.bfloat16 and multiplies_bfloat16()):
                for place in rng.choice(len(heard), min(config.clips_per_step, len(heard)), replace=False):
                    item, timed = heard[int(place)], rng.random() < config.timed_share
                    frames = lalm.align(item.audio.read())
                    for branch, kind in lessons_of(lalm, item, timed, config, rng, step):
                        branches.append(Branch(len(audio), branch.prompt, branch.answer))
                        kinds.append(kind)
                    audio.append(frames + code(lalm.frame_middles(len(frames))) if timed else frames)
                if not branches:
                    raise RunError(
                        f"step {step}: every lesson about its clips is too long; shorten their words"
                    )
                logps = branch_logps(listen(lalm, audio, aligned=True), branches, soft_times=soft)
            loss = -logps.logp_BT.sum() / logps.mask_BT.sum()
            rate = config.learning_rate * cosine(step, config.steps, config.warmup_steps)
            row = descend(optimizer, parameters, loss, rate, config.clip_norm, step)
            of_branch = (-logps.logp_BT.detach().sum(1) / logps.mask_BT.sum(1)).tolist()
            for kind in sorted(set(kinds)):
                of_kind = [x for x, k in zip(of_branch, kinds, strict=True) if k == kind]
                row[f"loss {kind}"] = float(np.mean(of_kind))
            if watched and (step + 1 == config.steps or (step + 1) % config.watch_every == 0):
                row |= gates(lalm, code, watched, config.without)
            run.log(row)
            keep_or_stop(run, stop, step + 1, config.steps, config.checkpoint_every, state_now)
    save_adapter(lalm, run.path / "model", merged=True)
    return run.path / "model"


def begin_with(weights: Mapping[str, Tensor], start: str) -> None:
    """The last weights of another run, in their places. RunError where it has none, or others than these."""
    last = list(kept_checkpoints(RunFolder(Path(start))).values())
    if not last:
        raise RunError(f"{start}: has no checkpoint; give the --out of another `tgsr train english`")
    kept = read_checkpoint(last[-1])["weights"]
    if {k: w.shape for k, w in kept.items()} != {k: w.shape for k, w in weights.items()}:
        raise RunError(
            f"{last[-1]}: has not this run's weights; give the --lora-rank and --model that {start} has"
        )
    put(weights, kept)


@torch.no_grad()
def put(weights: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    """The kept values, in their places."""
    for name, weight in weights.items():
        weight.copy_(kept[name])


@torch.no_grad()
def gates(
    lalm: Whisper, code: Clock, watched: Sequence[Heard], without: tuple[str, ...] = (), n_phrases: int = 2
) -> dict[str, float]:
    """What the base can do on clips that it does not learn from, greedily, each from 0 to 1.

    Phrase IoU with the time code and plain, in words and in time tokens; the share of choices that are right, each
    after its reasoning (B.1.3), together and by task. Raises RunError where nothing can be asked about the clips.
    """
    measured: dict[str, list[float]] = {}
    for first in range(0, len(watched), CLIPS_AT_ONCE):
        some = watched[first : first + CLIPS_AT_ONCE]
        frames = [lalm.align(item.audio.read()) for item in some]
        timed = [frames_FD + code(lalm.frame_middles(len(frames_FD))) for frames_FD in frames]
        phrases = [
            (place, question)
            for place, item in enumerate(some)
            for question in phrase_questions(
                plainly(item.clip), np.random.default_rng(first + place), n_phrases, n_max=6
            )
        ]
        for name, heard in (("timed", timed), ("plain", frames)):
            for times in get_args(Times):
                prompts = [(place, lalm.phrase_question(str(q.phrase))) for place, q in phrases]
                with writing_times(lalm, times):
                    texts = written(lalm, heard, prompts, 48 if times == "words" else 4)
                for (_, question), text in zip(phrases, texts, strict=True):
                    span = asked_span(find_asked(text, question.phrase))
                    found = item_iou([span] if span else [], question.evidence[0])
                    measured.setdefault(f"iou_{name}_{times}", []).append(found)
        asked = [
            (place, q) for place, item in enumerate(some) for q in item.questions(without, first + place)
        ]
        prompts = [(place, prompted(q.question, q.choices)) for place, q in asked]
        for (_, question), text in zip(asked, written(lalm, frames, prompts, 120), strict=True):
            (right,) = answer_reward([text], [correct_letter(question)])
            for name in ("choices", f"choices {question.task}"):
                measured.setdefault(name, []).append(right)
    if not measured:
        raise RunError(
            "--watch: no phrase and no choice can be asked about its clips; give clips with more words"
        )
    return {name: float(np.mean(values)) for name, values in measured.items()}


def written(
    lalm: Whisper, heard: Sequence[Tensor], asked: Sequence[tuple[int, str]], n_tokens: int
) -> list[str]:
    """Greedy answers to what is asked, each about the clip of that place, whose frames went through the aligner."""
    if not asked:
        return []
    prompts = [lalm.prompt(text).after for _, text in asked]
    owners = [place for place, _ in asked]
    answers = sample(
        listen(lalm, heard, aligned=True), owners, prompts, max_new_tokens=n_tokens, temperature=0
    )
    return [lalm.text(list(answer.ids)) for answer in answers]

"""Stage 1, supervised timestamp alignment (section 3.1, table 5): the aligner learns to write time.

The decoder is frozen; each clip's phrases share its prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tgsr.engine.features import FeatureCache
from tgsr.engine.shared_prefix import Branch, SoftTimes
from tgsr.errors import OptionError, RunError
from tgsr.evaluation.watch import watch_of
from tgsr.models.lalm import Lalm
from tgsr.models.load import load
from tgsr.models.whisper import N_TICKS
from tgsr.prompts import without_target
from tgsr.records import Question, by_clip, moved, read_questions
from tgsr.training.batches import hear_clips, require_sound, to_learn
from tgsr.training.config import StaConfig
from tgsr.training.run import Load, TrainingRun, make_trainable, start_run
from tgsr.training.supervised import clip_texts, fit


def phrase_branch(lalm: Lalm, question: Question) -> Branch:
    """Prompt and target for one phrase, as a branch of clip 0, in the family's words (B.1.1 or B.1.2)."""
    prompt = lalm.prompt(lalm.phrase_question(str(question.phrase))).after
    answer = lalm.response_tokens(lalm.target(question))
    return Branch(0, prompt, (*answer, lalm.eos_id))


def has_target(question: Question) -> bool:
    """Whether it is a phrase of which it is known where, or that nowhere, it is said."""
    return question.kind == "phrase" and bool(question.evidence or question.is_absent)


def train_sta(config: StaConfig, out: Path, cache: FeatureCache, load: Load = load) -> Path:
    """The folder of an adapter, trained in `out`, where a run that was stopped goes on."""
    given = moved(read_questions(config.questions), config.audio)
    questions, left_out = to_learn(given, config.questions, "phrase with its span", has_target)
    if unfit := [(question.id, why) for question in questions if (why := without_target(question))]:
        more = f" ({len(unfit)} in all)" if len(unfit) > 1 else ""
        raise RunError(f"{config.questions}: question {unfit[0][0]!r} {unfit[0][1]}{more}: leave it out")
    require_sound(questions, config.questions)
    with start_run("sta", config, config.questions, out, cache, load) as run:
        if left_out and run.processes.main:
            print(left_out)
        return fit_phrases(run, config, questions)


def fit_phrases(run: TrainingRun, config: StaConfig, questions: Sequence[Question]) -> Path:
    """The folder of the run's adapter, fitted to the phrases' times."""
    lalm = run.lalm
    watch = watch_of(run, config, questions)
    make_trainable(lalm, config)
    soft_times = soft_times_of(lalm, config.soft_times)
    audio = hear_clips(run, questions, config.questions)
    texts = [
        clip_texts(audio[clip[0].audio], [(q.id, phrase_branch(lalm, q)) for q in clip])
        for clip in by_clip(questions)
        if clip[0].audio in audio
    ]
    return fit(run, texts, config, "stage 1", watch, soft_times)


def soft_times_of(lalm: Lalm, spread: float) -> SoftTimes | None:
    """A model's time tokens with targets `spread` ticks wide; None for 0. OptionError for one that has no tokens."""
    if not spread:
        return None
    if lalm.first_tick is None:
        raise OptionError(f"--soft-times {spread:g}: {lalm.name} has no tokens for times; leave it out")
    return SoftTimes(lalm.first_tick, N_TICKS, spread)

"""Supervised fine-tuning on responses: a LoRA on the decoder learns to write given reasoning.

The paper's comparison without reinforcement (tables 2 and 4, "Reasoning SFT", "without timestamp supervision"), whose
data it does not describe. The responses come from `tgsr predict`; `--right-only` and `--without-timestamps` keep those
that are right and cite nothing, so that a model learns to reason from itself, by rejection. Stage 2 starts from stage
1's adapter, not from this one: a second LoRA on a first is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tgsr.choices import correct_letter, official_letter
from tgsr.engine.features import FeatureCache
from tgsr.engine.shared_prefix import Branch
from tgsr.errors import RunError
from tgsr.grounding import count_mentions, find_mentions
from tgsr.models.lalm import Lalm
from tgsr.models.load import load
from tgsr.models.tokens import reserved_names
from tgsr.prompts import prompt_text
from tgsr.records import Response, is_held_out, moved, read_responses
from tgsr.rewards import is_payable
from tgsr.training.batches import hear_clips, require_sound
from tgsr.training.config import SftConfig
from tgsr.training.run import Load, TrainingRun, make_trainable, start_run
from tgsr.training.supervised import clip_texts, fit


def wanted(response: Response, config: SftConfig) -> bool:
    """Whether a response is learned from. `right_only` judges a choice's letter as Eq. 1 does, and keeps no phrase.

    One that was cut off teaches to stop in the middle: it is left out unless `keep_truncated`. What is for testing, by
    its question's split, is never learned from.
    """
    question, text = response.question, response.text
    if is_held_out(question) or (response.truncated and not config.keep_truncated):
        return False
    if config.right_only:
        right = correct_letter(question) if question.kind == "choice" else None
        if right is None or official_letter(text) != right:
            return False
    return not (config.without_timestamps and (count_mentions(text) or find_mentions(text)))


def left_out_of(responses: Sequence[Response], kept: Sequence[Response], config: SftConfig) -> str:
    """How many responses are learned from, how many of these are empty, and how many are left out for what is no fault
    of their reasoning.
    """
    n_empty = sum(not response.text.strip() for response in kept)
    n_cut = 0 if config.keep_truncated else sum(response.truncated for response in responses)
    n_beyond = sum(
        config.right_only and r.question.kind == "choice" and not is_payable(correct_letter(r.question))
        for r in responses
    )
    said = f"{len(kept)} of {len(responses)} responses are learned from"
    if n_held_out := sum(is_held_out(response.question) for response in responses):
        said += f"; {n_held_out} are left out since they are for testing, by their split"
    if n_cut:
        said += f"; {n_cut} were cut off and are left out (--keep-truncated)"
    if n_empty:
        said += f"; {n_empty} of them are empty: they teach to say nothing"
    if n_beyond:
        said += f"; {n_beyond} are left out since their question's right answer is beyond (d), which Eq. 1 never pays"
    return said


def reserved_in(lalm: Lalm, responses: Sequence[Response]) -> str:
    """How many responses spell a special token, which no decoded text does; "" where none does."""
    names = re.compile("|".join(map(re.escape, reserved_names(lalm.tokenizer, markup=False))) or r"(?!)")
    found = [name[0] for response in responses if (name := names.search(response.text))]
    if not found:
        return ""
    return (
        f"{len(found)} responses hold names of special tokens, the first {found[0]}: they are learned letter by "
        "letter, as text; decode without special tokens, or take them out"
    )


def response_branch(lalm: Lalm, response: Response) -> Branch:
    """The prompt that `tgsr predict` asks the question with, and the response's text."""
    prompt = lalm.prompt(prompt_text(lalm, response.question)).after
    return Branch(0, prompt, (*lalm.response_tokens(response.text), lalm.eos_id))


def train_sft(config: SftConfig, out: Path, cache: FeatureCache, load: Load = load) -> Path:
    """The folder of an adapter, trained in `out`, where a run that was stopped goes on."""
    responses = moved(read_responses(config.responses, several=True), config.audio)
    if not responses:
        raise RunError(f"{config.responses}: no response; make some with `tgsr predict`")
    kept = [response for response in responses if wanted(response, config)]
    if not kept:
        raise RunError(
            f"{config.responses}: none of its {len(responses)} responses is wanted; sample more with "
            "`tgsr predict --temperature 0.7` (of a split that is not for testing), let them be longer "
            "(--max-new-tokens), or drop --right-only or --without-timestamps"
        )
    require_sound([response.question for response in kept], config.responses)
    with start_run("sft", config, config.responses, out, cache, load) as run:
        if run.processes.main:
            print(left_out_of(responses, kept, config))
            if reserved := reserved_in(run.lalm, kept):
                print(reserved)
        return fit_responses(run, config, kept)


def fit_responses(run: TrainingRun, config: SftConfig, responses: Sequence[Response]) -> Path:
    """The folder of the run's adapter, fitted to the responses."""
    lalm = run.lalm
    clips: dict[str, list[Response]] = {}
    for response in responses:
        clips.setdefault(response.question.audio, []).append(response)
    make_trainable(lalm, config)
    audio = hear_clips(run, [response.question for response in responses], config.responses)
    texts = [
        clip_texts(audio[path], [(r.question.id, response_branch(lalm, r)) for r in clip])
        for path, clip in clips.items()
        if path in audio
    ]
    return fit(run, texts, config, "fine-tuning")

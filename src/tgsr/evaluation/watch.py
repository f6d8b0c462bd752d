"""A training that is watched: held-out questions, answered greedily now and then, and what the answers are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tgsr.answering.predict import Unheard, named, predict
from tgsr.disk.jsonl import Row
from tgsr.errors import RunError
from tgsr.evaluation.scoring.items import Scored, missing_response, score_response
from tgsr.evaluation.scoring.means import model_scores
from tgsr.evaluation.scoring.metrics import GroupScores
from tgsr.evaluation.scoring.spoken import CLIPS, Spoken
from tgsr.evidence import cited_evidence, ungrounded
from tgsr.llm.decoding import GREEDY, Decoding
from tgsr.models.lalm import device_of
from tgsr.records import Question, Response, by_clip, read_questions, resolve_audio, write_errors, write_jsonl
from tgsr.statistics.intervals import Bootstrap, Mean
from tgsr.timeline import Word
from tgsr.training.config import BestBy, GrpoConfig, StaConfig
from tgsr.training.processes import unsharded
from tgsr.training.run import TrainingRun
from tgsr.training.watch import Watch

N_DRAWS = 1000  # of the bootstrap, at each look
N_SHOWN = 4  # answers that a tracker's table gets of a look
EVIDENCE = (  # the means of EvidenceScores that the log has under the same names
    *("evidence_hit", "trace_iou", "above_chance", "quote_truth", "first_place"),
    *("start_within", "end_within", "past_end"),
)
SHARES = {"evidence_hit", "quote_truth", "first_place", "accuracy", "k1"}
SPOKEN = {
    "evidence_hit": "evidence hit",
    "trace_iou": "trace IoU",
    "above_chance": "above chance",
    "quote_truth": "quote true",
    "first_place": "first place",
    "phrase_iou": "phrase IoU",
    "accuracy": "accuracy",
    "k": "k",
    "k1": "k = 1 in",
}

Words = Mapping[str, tuple[Word, ...] | None]
"""What is said in each question's clip, by the question's id; None where nobody knows."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The questions of a watch, the words of their clips, and the files that they are from, the questions' first."""

    questions: tuple[Question, ...]
    words: Words
    files: tuple[Path, ...]

    @property
    def path(self) -> Path:
        return self.files[0]


def read_held_out(path: Path) -> HeldOut:
    """A file of questions with the words of its clips, from clips.jsonl beside it. RunError for no question."""
    questions = tuple(read_questions(path))
    if not questions:
        raise RunError(f"{path}: holds no question to watch the training by; make some with `tgsr build`")
    spoken = Spoken(beside=[path])
    words = {question.id: spoken.words_of(question) for question in questions if question.kind == "choice"}
    return HeldOut(questions, words, (path, *map(Path, spoken.files)))


def watch_of(
    run: TrainingRun, config: StaConfig | GrpoConfig, trained_on: Sequence[Question]
) -> Watch | None:
    """The watch that the settings ask for; None where they ask for none.

    RunError for a file without questions, and where the run has been watched by other questions or words before:
    their measures cannot be compared. What the user should know of the questions is printed.
    """
    if config.watch is None:
        return None
    held_out = read_held_out(Path(config.watch))
    with run.processes.main_first():
        run.folder.rest_on("watch", {str(file): file for file in held_out.files})
    if run.processes.main:
        for note in notes(held_out, config, trained_on):
            print(note)
    return Watch(config.watch_every, config.best_by, partial(look, run, config, held_out))


def notes(held_out: HeldOut, config: StaConfig | GrpoConfig, trained_on: Sequence[Question]) -> list[str]:
    """What is odd about a watch's questions: clips that are trained on, and what cannot be measured by them."""
    said = []
    trained = {resolve_audio(question, config.questions).resolve() for question in trained_on}
    clips = {resolve_audio(question, held_out.path).resolve() for question in held_out.questions}
    if n_trained := len(clips & trained):
        said.append(f"{n_trained} of its {len(clips)} clips are trained on, too: not held out")
    if held_out.words and len(held_out.files) == 1:
        said.append(f"no words known: the {CLIPS} that it was made from must lie beside it")
    if not any(is_measured(config.best_by, question, held_out.words) for question in held_out.questions):
        said.append(f"its questions do not tell {config.best_by} (--best-by): no checkpoint will be the best")
    return [f"--watch {held_out.path}: {note}" for note in said]


def is_measured(measure: BestBy, question: Question, words: Words) -> bool:
    """Whether an answer to the question counts in a measure."""
    if measure == "phrase_iou":
        return question.kind == "phrase" and bool(question.evidence)
    if measure in ("evidence_hit", "trace_iou", "above_chance"):
        return question.kind == "choice" and bool(question.evidence)
    return bool(words.get(question.id)) if measure == "quote_truth" else question.kind == "choice"


def look(run: TrainingRun, config: StaConfig | GrpoConfig, held_out: HeldOut, n_done: int) -> dict[str, Any]:
    """The measures of the model as it is now, by their names; its answers are kept in watch/step-N.jsonl.

    The processes share the clips; only the main one measures, the others get {}, as all do where SIGTERM has asked a
    process to stop. A question that could not be heard or answered is missing: it is listed in
    watch/step-N.errors.jsonl.
    """
    lalm, processes = run.lalm, run.processes
    clips = by_clip(held_out.questions)
    mine = [question for clip in clips[processes.share(len(clips))] for question in clip]
    decoding, at_once = GREEDY, None
    if isinstance(config, GrpoConfig):
        seconds, at_once = config.relisten_seconds, config.branches_at_once
        decoding = Decoding(config.max_new_tokens, relisten=config.relisten, relisten_seconds=seconds)
    with unsharded(lalm), torch.autocast(device_of(lalm).type, torch.bfloat16, enabled=config.bfloat16):
        answers: list[Response | Unheard] = []
        way: dict[str, Any] = {"branches_at_once": at_once, "title": "watch" if processes.main else ""}
        for answer in predict(lalm, mine, held_out.path, run.cache, decoding, **way):
            answers.append(answer)
            if run.stop.asked:
                break
        everyones = processes.gather(answers)
    if processes.any(run.stop.asked) or not processes.main:
        return {}
    keep(run.folder.path / "watch", n_done, everyones, held_out.path)
    processes.table("watched", shown_rows(everyones, held_out.words, n_done))
    seen = measures(everyones, held_out.words, config.seed)
    tqdm.write(in_words(n_done, seen))
    return seen


def keep(folder: Path, n_done: int, answers: Sequence[Response | Unheard], path: Path) -> None:
    """The answers as a file of predictions of the model "step-N", and beside it what there is no answer to."""
    folder.mkdir(exist_ok=True)
    file = folder / f"step-{n_done}.jsonl"
    rows = [named(answer, file.stem, path, file) for answer in answers if isinstance(answer, Response)]
    write_jsonl(file, rows)
    unheard = [(one.question, one.reason) for one in answers if isinstance(one, Unheard)]
    reasons: list[Row] = [{"id": q.id, "audio": q.audio, "error": reason} for q, reason in unheard]
    write_errors(file.with_suffix(".errors.jsonl"), reasons)


def measures(answers: Sequence[Response | Unheard], words: Words, seed: int = 0) -> dict[str, Any]:
    """What the answers are worth, by the measures of `tgsr score`; those that cannot be told are left out.

    `intervals` has each mean's 95 % interval by the bootstrap over clips. `k1` is the share of responses with exactly
    one citation; start_error and end_error are medians, in seconds. `n_missing` are the questions without an answer,
    which no measure counts.
    """
    items: list[Scored] = []
    for answer in answers:
        if isinstance(answer, Response):
            items += score_response(answer, words.get(answer.question.id))
        else:
            items += missing_response(answer.question, "missing")
    group = model_scores(items, (), Bootstrap(seed, N_DRAWS)).all
    means = means_of(group)
    seen: dict[str, Any] = {
        "n": len(answers),
        "n_missing": sum(isinstance(answer, Unheard) for answer in answers),
        **{name: mean.value for name, mean in means.items()},
    }
    if (choice := group.choice) is not None:
        if choice.evidence is not None:
            seen |= {name: getattr(choice.evidence, name).median for name in ("start_error", "end_error")}
        by_task = choice.accuracy_official_by_task
        seen["accuracy_by_task"] = {task: mean.value for task, mean in by_task.items()}
    seen["intervals"] = {
        name: [round(mean.low, 4), round(mean.high, 4)]
        for name, mean in means.items()
        if mean.low is not None and mean.high is not None
    }
    return {name: value for name, value in seen.items() if value is not None}


def means_of(group: GroupScores) -> dict[str, Mean]:
    """The means of what is cited and answered, by the names that the log has."""
    means: dict[str, Mean] = {}
    if (choice := group.choice) is not None:
        if choice.evidence is not None:
            means |= {name: getattr(choice.evidence, name) for name in EVIDENCE}
        means |= {
            "accuracy": choice.accuracy_official,
            "accuracy_strict": choice.accuracy_strict,
            "k": choice.mentions_official,
            "k_strict": choice.regions_strict,
            "k1": choice.share_k1_official,
            "k1_strict": choice.share_k1_strict,
        }
    if (phrase := group.phrase) is not None:
        means |= {"phrase_iou": phrase.iou, "phrase_high_overlap": phrase.high_overlap}
    return means


def shown_rows(answers: Sequence[Response | Unheard], words: Words, n_done: int) -> list[Row]:
    """The first few questions, the same at each look, with what was answered, for a table."""
    rows: list[Row] = []
    for answer in answers[:N_SHOWN]:
        question = answer.question
        evidence = ", ".join(f"{span.start:.2f} to {span.end:.2f} s" for span in question.evidence)
        text = answer.text if isinstance(answer, Response) else f"({answer.reason})"
        cited = cited_evidence(text, words.get(question.id), question.duration, question.evidence)
        rows.append(
            {
                "step": n_done,
                "id": question.id,
                "question": question.question,
                "answer": question.answer or question.phrase or "",
                "evidence": evidence,
                "response": text,
                "evidence_hit": cited.evidence_hit,
                "quote_truth": cited.quote_truth,
            }
        )
    return rows


def in_words(n_done: int, seen: Mapping[str, Any]) -> str:
    """A look as a line, and the warning of `tgsr.evidence.ungrounded` where it applies."""
    said = [
        f"{words} {100 * seen[name]:.1f} %" if name in SHARES else f"{words} {seen[name]:.2f}"
        for name, words in SPOKEN.items()
        if name in seen
    ]
    missing = f" ({seen['n_missing']} without an answer, not counted)" if seen["n_missing"] else ""
    line = f"watch, step {n_done}, {seen['n']} questions{missing}: {', '.join(said)}"
    warning = ungrounded(seen.get("k1"), seen.get("evidence_hit"), seen.get("above_chance"))
    return line if warning is None else f"{line}\nwarning: {warning}"

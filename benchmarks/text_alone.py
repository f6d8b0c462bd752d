"""What a bag of words answers right without the sound, by task: how far questions give their answers away.

For each choice: its words, the question's with them where it is short, its letter, length, how its length ranks among
the choices, and how many words it shares with one of them; a linear score over these, trained on four fifths of the
clips, answers for the fifth. A line a task, and one for all: questions, share right, chance.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tgsr.cli import script
from tgsr.records import Question, read_questions

N_FEATURES = 1 << 16
FOLDS = 5
EPOCHS = 12
SHORT = 3  # words of a choice that is looked at together with the question's


def features(question: Question, choice: str) -> Iterator[str]:
    """The names of what is seen of one choice."""
    words, others = choice.lower().split(), [other for other in question.choices if other != choice]
    yield from (f"word {word}" for word in words)
    yield f"choice {question.task} {choice}"
    yield f"letter {question.choices.index(choice)}"
    yield f"length {question.task} {len(words)} {len(choice) // 3}"
    yield f"rank {question.task} {sorted(question.choices, key=len).index(choice)}"
    yield f"shared {question.task} {max(len({*words} & {*other.lower().split()}) for other in others)}"
    if len(words) <= SHORT:
        yield from (f"pair {word} {choice}" for word in question.question.lower().split())


def coded(question: Question) -> list[list[int]]:
    return [[zlib.crc32(f.encode()) % N_FEATURES for f in features(question, c)] for c in question.choices]


def scores(weights: nn.EmbeddingBag, codes: Sequence[list[list[int]]]) -> torch.Tensor:
    """(n questions, most choices); choices that a question lacks are never the best."""
    bags = [bag for choices in codes for bag in choices]
    flat = torch.tensor([code for bag in bags for code in bag])
    starts = torch.tensor(np.cumsum([0, *(len(bag) for bag in bags[:-1])]))
    parts = weights(flat, starts).squeeze(1).split([len(choices) for choices in codes])
    return nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=-1e9)


def answered(questions: Sequence[Question], seed: int = 0) -> np.ndarray:
    """Whether each question was answered right by weights that saw no question about its clip."""
    codes = [coded(question) for question in questions]
    right = torch.tensor([question.choices.index(str(question.answer)) for question in questions])
    clips = sorted({question.clip_id for question in questions})
    fold = {clip: index * FOLDS // len(clips) for index, clip in enumerate(clips)}
    folds = np.array([fold[question.clip_id] for question in questions])
    is_right = np.zeros(len(questions), bool)
    rng = np.random.default_rng(seed)
    for held in range(FOLDS):
        weights = nn.EmbeddingBag(N_FEATURES, 1, mode="sum")
        nn.init.zeros_(weights.weight)
        optimizer = torch.optim.Adam(weights.parameters(), lr=0.02, weight_decay=1e-4)
        seen, asked = np.flatnonzero(folds != held), np.flatnonzero(folds == held)
        for _ in range(EPOCHS):
            for batch in np.array_split(rng.permutation(seen), max(1, len(seen) // 128)):
                loss = nn.functional.cross_entropy(scores(weights, [codes[i] for i in batch]), right[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            best = scores(weights, [codes[i] for i in asked]).argmax(1)
        is_right[asked] = (best == right[asked]).numpy()
    return is_right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", type=Path, help="questions.jsonl")
    parser.add_argument("--limit", type=int, default=2000, help="the first so many")
    args = parser.parse_args()
    torch.set_num_threads(1)
    questions = [question for question in read_questions(args.questions) if question.kind == "choice"]
    questions = questions[: args.limit]
    is_right = answered(questions)
    chance = np.array([1 / len(question.choices) for question in questions])
    tasks = np.array([str(question.task) for question in questions])
    for task in (*sorted(set(tasks)), "all"):
        of_task = tasks == task if task != "all" else np.ones(len(tasks), bool)
        print(f"{task:16} {of_task.sum():6} {is_right[of_task].mean():6.1%} {chance[of_task].mean():6.1%}")


if __name__ == "__main__":
    raise SystemExit(script(main))

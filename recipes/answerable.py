"""The judge of whether lines answer a question: all-MiniLM-L6-v2 taught to find answers, as it ships.

    git clone https://github.com/uci-soe/FairytaleQAData; git clone https://github.com/uwnlp/qamr
    git clone https://github.com/chrischute/squad; git clone https://github.com/PhongNTDo/guide_train_MRC_transformers
    python recipes/answerable.py pairs FairytaleQAData qamr --out runs/answerable \
        --squad squad/data/dev-v2.0.json guide_train_MRC_transformers/train-v2.0.json
    python recipes/answerable.py train runs/answerable    # goes on where it was stopped
    python recipes/answerable.py export runs/answerable   # into the package

Questions about tales (FairytaleQA: Apache-2.0, written by teachers about stories out of copyright), about sentences
(QAMR: MIT, by crowd workers about Wikipedia and Wikinews), and about paragraphs of Wikipedia (SQuAD 2.0: CC BY-SA 4.0,
of which any files will do; those above are half of its development set and one fourteenth of the other), some of which
the paragraph does not answer though it seems to. A question is read together with one or two sentences: with those that
hold its answer, or seem to, and with others that are near to it by the vectors of their words, of the same tale or
paragraph and of others. Taught are the first and the last piece of the answer, [CLS] standing for none (as Devlin et
al. 2019 do for SQuAD 2.0).

Three stages: tales and sentences first (14,400 pairs, eight minutes of one core that multiplies bfloat16), then all of
them twice (16,000 and 32,000 pairs, 24 and 42 minutes of one that does not). What ships is the mean of the weights over
the last 400 steps.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from tgsr.cli import script
from tgsr.models.load import multiplies_bfloat16
from tgsr.models.packaged_weights import sentence_model

ASSET = Path(__file__).parent.parent / "src" / "tgsr" / "assets" / "answer_finder" / "model.safetensors"
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
UNTOLD = """a an the of to in on at and or for with by from he she it they his her their its was were is are be been had
has have that this who which as so not but him them i you we my your did do does"""
STOP = frozenset(UNTOLD.split())
NEAR, FAR = 12, 12  # nearest sentences of the same tale, of other tales, that negatives are drawn from
CROWD = 12000  # questions of QAMR
MOST_TOKENS = 128


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def stem(word: str) -> str:
    return re.sub(r"(?:ing|ed|es|s|ly)$", "", word) if len(word) > 4 else word


def content(text: str) -> set[str]:
    found = {stem(word) for word in words(text) if word not in STOP}
    return found or {stem(word) for word in words(text)}


def where(answer: str, sentence: str) -> tuple[int, int] | None:
    """Characters of the shortest stretch of the sentence that has 0.7 of the answer's content words; None for none."""
    wanted = content(answer)
    found = [
        (match.start(), match.end(), stem(match[0].lower()))
        for match in re.finditer(r"[A-Za-z0-9]+", sentence)
    ]
    best: tuple[int, int] | None = None
    for first, (start, _, word) in enumerate(found):
        if word not in wanted:
            continue
        have = set()
        for _, end, other in found[first : first + 2 * len(words(answer)) + 4]:
            have.add(other)
            if len(wanted & have) >= 0.7 * len(wanted):
                if best is None or end - start < best[1] - best[0]:
                    best = (start, end)
                break
    return best


def tales(folder: Path) -> Iterator[tuple[list[str], list[dict[str, object]]]]:
    """Each tale's sentences, and its questions: with the sentence and the characters that answer."""
    heard = " ".join(
        " ".join(word[0] for word in json.loads(line)["words"])
        for path in sorted(BENCHMARKS.glob("asked*/recordings.jsonl"))
        for line in path.read_text().splitlines()
    )
    tokens = words(heard)
    asked_about = {tuple(tokens[i : i + 7]) for i in range(len(tokens))}
    for path in sorted(folder.glob("data-by-train-split/questions/*/*.csv")):
        name = path.name.removesuffix("-questions.csv")
        split = path.parent.name
        story = next(folder.glob(f"data-by-train-split/section-stories/{split}/{name}-story.csv"))
        sections = {row["section"]: row["text"] for row in csv.DictReader(story.open(encoding="utf-8"))}
        said = words(" ".join(sections.values()))
        if sum(tuple(said[i : i + 7]) in asked_about for i in range(len(said))) > 1:
            print(f"{name}: shares sentences with a benchmark's recording, left out")
            continue
        sentences: list[str] = []
        of_section: dict[str, range] = {}
        for section, text in sections.items():
            parts = [one.strip() for one in re.split(r"(?<=[.?!])[\"'”]?\s+", text) if words(one)]
            of_section[section] = range(len(sentences), len(sentences) + len(parts))
            sentences += parts
        questions: list[dict[str, object]] = []
        for row in csv.DictReader(path.open(encoding="utf-8")):
            section = row["cor_section"].split(",")[0].strip()
            if row["ex-or-im1"] != "explicit" or section not in of_section:
                continue
            found = []
            for index in of_section[section]:
                place = where(row["answer1"], sentences[index])
                if place is not None:
                    found.append((len(content(row["question"]) & content(sentences[index])), -index, place))
            if found:
                _, index, place = max(found)
                questions.append({"question": row["question"], "sentence": -index, "answer": place})
        yield sentences, questions


SENTENCE_ENDS = re.compile(r"(?<=[a-z0-9)\"'][.?!])[\"')]?\s+(?=[A-Z\"'(])")


def paragraphs(path: Path) -> Iterator[tuple[list[str], list[dict[str, object]]]]:
    """Each paragraph's sentences, and its questions: with the sentence and the characters that answer.

    Of a question that is not answered the sentence is that which seems to, and there are no characters.
    """
    for article in json.loads(path.read_text())["data"]:
        for paragraph in article["paragraphs"]:
            text = paragraph["context"]
            cuts = [0, *(match.end() for match in SENTENCE_ENDS.finditer(text)), len(text)]
            spans = [(start, end) for start, end in itertools.pairwise(cuts) if words(text[start:end])]
            questions: list[dict[str, object]] = []
            for asked in paragraph["qas"]:
                is_none = asked.get("is_impossible", False)
                answers = asked.get("plausible_answers" if is_none else "answers")
                if not answers or not words(asked["question"]):
                    continue
                first = answers[0]["answer_start"]
                last = first + len(answers[0]["text"])
                for index, (start, end) in enumerate(spans):
                    if start <= first and last <= end:
                        place = None if is_none else (first - start, last - start)
                        question = {"question": asked["question"].strip(), "sentence": index, "answer": place}
                        questions.append(question)
            yield [text[start:end].strip() for start, end in spans], questions


def gists(texts: Sequence[str], rare_in: Sequence[str] | None = None) -> np.ndarray:
    """(len(texts), W): of each the mean of MiniLM's vectors of its pieces, rare ones weighing more, of length 1."""
    folder = sentence_model()
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    vectors_VW = safetensors.numpy.load_file(folder / "model.safetensors")[
        "embeddings.word_embeddings.weight"
    ]
    counts_V = np.ones(len(vectors_VW))
    for row in tokenizer(list(rare_in or texts), add_special_tokens=False).input_ids:
        counts_V[list(set(row))] += 1
    weights_V = np.log(len(rare_in or texts) / counts_V).clip(0)
    rows = tokenizer(list(texts), add_special_tokens=False).input_ids
    sums_NW = np.array([weights_V[row] @ vectors_VW[row] for row in rows], np.float32)
    return sums_NW / np.linalg.norm(sums_NW, axis=1, keepdims=True).clip(1e-6)


def pairs(fairytales: Path, qamr: Path, squad: Sequence[Path], out: Path) -> None:
    """Writes sentences.jsonl, and questions.jsonl with the places of their answers and of nearby sentences.

    A paragraph of SQuAD's is a tale here, and comes after the others.
    """
    out.mkdir(parents=True, exist_ok=True)
    sentences: list[str] = []
    tale_of: list[int] = []
    questions: list[dict[str, object]] = []
    of_tales = ((False, one) for one in tales(fairytales))
    of_squad = ((True, one) for path in squad for one in paragraphs(path))
    for tale, (is_squad, (its, asked)) in enumerate(itertools.chain(of_tales, of_squad)):
        questions += [
            {**one, "sentence": len(sentences) + int(str(one["sentence"])), "tale": tale, "squad": is_squad}
            for one in asked
        ]
        sentences += its
        tale_of += [tale] * len(its)
    if not questions:
        raise SystemExit(
            f"{fairytales}: no questions in data-by-train-split; give a clone of FairytaleQAData"
        )
    print(f"{len(sentences)} sentences of {tale_of[-1] + 1} tales, {len(questions)} questions")
    wiki = dict(line.split("\t") for line in (qamr / "data/wiki-sentences.tsv").read_text().splitlines())
    crowd = []
    places: dict[str, int] = {}
    for split in ("dev", "test"):
        for line in (qamr / f"data/filtered/{split}.tsv").read_text().splitlines():
            key, _, _, _, _, question, *answers = line.split("\t")
            if key not in wiki or len(answers) < 3 or not words(question):
                continue
            own, *others = (set(map(int, one.split(":")[-1].split())) for one in answers[:3])
            if not own or not all(own & other for other in others):
                continue
            pieces = wiki[key].split(" ")
            starts = np.cumsum([0, *(len(piece) + 1 for piece in pieces)])
            if key not in places:
                places[key] = len(sentences) + len(places)
            answer = (int(starts[min(own)]), int(starts[max(own)] + len(pieces[max(own)])))
            crowd.append({"question": question, "sentence": places[key], "answer": answer, "tale": -1})
    random.Random(0).shuffle(crowd)
    sentences += [wiki[key] for key in places]
    tale_of += [-1] * len(places)
    questions += crowd[:CROWD]
    print(f"{len(places)} sentences, {len(crowd[:CROWD])} questions of QAMR")
    vectors_NW, asked_QW = gists(sentences), gists([str(one["question"]) for one in questions], sentences)
    tale_N = np.array(tale_of)
    for tale in sorted(set(tale_of)):
        rows = [i for i, one in enumerate(questions) if one["tale"] == tale]
        own_I, other_I = np.flatnonzero(tale_N == tale), np.flatnonzero((tale_N != tale) & (tale_N >= 0))
        for name, of_I, most in (("near", own_I, NEAR), ("far", other_I, FAR)):
            if name == "far" and tale == -1:
                continue
            cosines_QI = asked_QW[rows] @ vectors_NW[of_I].T
            for row, cosine_I in zip(rows, cosines_QI, strict=True):
                likest = of_I[np.argsort(-cosine_I)[: most + 1]].tolist()
                questions[row][name] = [one for one in likest if one != questions[row]["sentence"]][:most]
    (out / "sentences.jsonl").write_text(
        "".join(json.dumps({"tale": t, "text": s}) + "\n" for t, s in zip(tale_of, sentences, strict=True))
    )
    (out / "questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in questions))


@dataclass(frozen=True)
class Stage:
    """Its steps, and the share of the questions of each kind in a round."""

    steps: int
    tales: float
    crowd: float
    squad: float


STAGES = (Stage(900, 1, 0.2, 0), Stage(1000, 0.3, 0.1, 1), Stage(2000, 0.5, 0.1, 1))
HELD_OUT = 20  # every so many tales one is only measured on
FROZEN = 3  # layers that stay the sentence model's
BATCH, WARM_UP, RATE, POOL = 16, 60, 1.5e-4, 40
KEPT_EVERY = 100  # steps
MEAN_OF = 5  # weights that were kept: the last ones' mean ships
SHIPPED = ("ends.", *(f"encoder.encoder.layer.{n}." for n in range(FROZEN, 6)))


def window(at: int, tale_of: Sequence[int], n: int, draw: random.Random, without: int = -1) -> range:
    """Up to n sentences of one tale around that one, which do not have the other one among them."""
    first = stop = at
    stop += 1
    while stop - first < n:
        sides = [first - 1] * (first > 0) + [stop] * (stop < len(tale_of))
        sides = [one for one in sides if tale_of[one] == tale_of[at] and one != without]
        if not sides or tale_of[at] == -1:
            break
        side = draw.choice(sides)
        first, stop = min(first, side), max(stop, side + 1)
    return range(first, stop)


Example = tuple[str, str, tuple[int, int] | None]  # question, lines, characters of the answer there


def example(
    question: dict[str, Any], sentence: int, texts: Sequence[str], tale_of: Sequence[int], draw: random.Random
) -> Example:
    """The question with the window of that sentence, and the answer in it where that is the one that answers."""
    is_answered = question["answer"] is not None
    answers = is_answered and sentence == question["sentence"]
    n = draw.choices((1, 2), (0.65, 0.35))[0]
    its = window(sentence, tale_of, n, draw, question["sentence"] if is_answered and not answers else -1)
    before = sum(len(texts[i]) + 1 for i in its if i < sentence)
    place = (before + question["answer"][0], before + question["answer"][1]) if answers else None
    return question["question"], " ".join(texts[i] for i in its), place


def examples(folder: Path, held_out: bool, draw: random.Random, stage: Stage) -> list[Example]:
    """One round: each question with what answers it, or seems to, one near and, about tales, one or none far.

    Questions without an answer have one near in three of ten rounds, so that they are not most of what is taught.
    """
    rows = [json.loads(line) for line in (folder / "sentences.jsonl").read_text().splitlines()]
    texts, tale_of = [row["text"] for row in rows], [row["tale"] for row in rows]
    made = []
    for line in (folder / "questions.jsonl").read_text().splitlines():
        question = json.loads(line)
        if (question["tale"] % HELD_OUT == 0) != held_out or (question["tale"] == -1 and held_out):
            continue
        share = stage.crowd if question["tale"] == -1 else stage.squad if question["squad"] else stage.tales
        if draw.random() >= share:
            continue
        others = []
        if question["near"] and (question["answer"] is not None or draw.random() < 0.3):
            others.append(draw.choice(question["near"]))
        if question.get("far") and (held_out or draw.random() < 0.5):
            others.append(draw.choice(question["far"]))
        for sentence in (question["sentence"], *others):
            made.append(example(question, sentence, texts, tale_of, draw))
    draw.shuffle(made)
    return made


class AnswerFinder(nn.Module):
    """MiniLM over a question and lines, with a start and an end for each piece; the first, [CLS], stands for none."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(str(folder), add_pooling_layer=False)
        for lower in (self.encoder.embeddings, *self.encoder.encoder.layer[:FROZEN]):
            lower.requires_grad_(False)
        self.ends = nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """(N, T, 2) logits; of the question's pieces and of padding -inf."""
        states_NTW = self.encoder(**{k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")})
        logits_NT2 = self.ends(states_NTW.last_hidden_state.float())
        return logits_NT2.masked_fill(~batch["may_answer"][..., None], -1e4)


def collated(tokenizer: Any, batch: Sequence[Example]) -> tuple[dict[str, Tensor], Tensor]:
    """The batch's tensors, and (N, 2) which pieces begin and end the answers, 0 for none."""
    encoded = tokenizer(
        [one[0] for one in batch], [one[1] for one in batch], truncation="only_second", max_length=MOST_TOKENS,
        padding=True, return_tensors="pt", return_offsets_mapping=True,
    )  # fmt: skip
    offsets = encoded.pop("offset_mapping")
    lines_NT = (encoded["token_type_ids"] == 1) & (offsets[..., 1] > 0)
    places_N2 = torch.zeros(len(batch), 2, dtype=torch.long)
    for n, (_, _, place) in enumerate(batch):
        if place is not None:
            inside = (lines_NT[n] & (offsets[n, :, 1] > place[0]) & (offsets[n, :, 0] < place[1])).nonzero()
            if len(inside):
                places_N2[n] = torch.stack((inside[0, 0], inside[-1, 0]))
    may_NT = lines_NT.clone()
    may_NT[:, 0] = True
    return {**encoded, "may_answer": may_NT}, places_N2


def batches(rounds: Iterator[list[Example]]) -> Iterator[list[Example]]:
    """Endless batches of examples that are about as long as each other."""
    for made in rounds:
        for first in range(0, len(made), BATCH * POOL):
            pool = sorted(made[first : first + BATCH * POOL], key=lambda one: len(one[0]) + len(one[1]))
            groups = [pool[i : i + BATCH] for i in range(0, len(pool), BATCH)]
            random.Random(first).shuffle(groups)
            yield from groups


def train(folder: Path) -> None:
    """All stages, from where they were stopped."""
    if not (folder / "questions.jsonl").exists():
        raise SystemExit(f"{folder}: holds no questions.jsonl; `pairs ... --out {folder}` writes it")
    torch.manual_seed(0)
    model = AnswerFinder(sentence_model()).train()
    kept = folder / "kept.pt"
    state: dict[str, Any] = torch.load(kept) if kept.exists() else {"stage": 0, "step": 0}
    if "model" in state:
        model.load_state_dict(state["model"])
        torch.set_rng_state(state["random"])  # which dropout draws from
    for n in range(state["stage"], len(STAGES)):
        teach(model, folder, n, state if n == state["stage"] else {"step": 0})


def teach(model: AnswerFinder, folder: Path, n: int, state: dict[str, Any]) -> None:
    """The stage's steps from `state`'s on; what was taught is kept every so many."""
    stage, tokenizer = STAGES[n], AutoTokenizer.from_pretrained(str(sentence_model()))
    taught = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(taught, lr=RATE, weight_decay=0.01, fused=True)
    if "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
    rounds = (examples(folder, False, random.Random(seed), stage) for seed in itertools.count())
    held_out = examples(folder, True, random.Random(0), stage)[:240]
    last: list[dict[str, Tensor]] = state.get("last", [])
    losses = []
    for step, batch in enumerate(itertools.islice(batches(rounds), stage.steps)):
        if step < state["step"]:
            continue
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / WARM_UP, 1, (stage.steps - step) / (0.25 * stage.steps))
        inputs, places_N2 = collated(tokenizer, batch)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=multiplies_bfloat16()):
            logits_NT2 = model(inputs)
        loss = nn.functional.cross_entropy(logits_NT2, places_N2)
        loss.backward()
        nn.utils.clip_grad_norm_(taught, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % KEPT_EVERY == 0 or step + 1 == stage.steps:
            shipped = {name: w.clone() for name, w in model.state_dict().items() if name.startswith(SHIPPED)}
            last = [*last, shipped][-MEAN_OF:]
            keep = {"stage": n, "step": step + 1, "random": torch.get_rng_state(), "last": last}
            half = folder / "kept.half"
            torch.save({**keep, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, half)
            half.replace(folder / "kept.pt")
            right = separated(model, tokenizer, held_out)
            print(f"{n} {step + 1} {np.mean(losses):.3f} {right:.3f} {time.process_time():.0f} s", flush=True)
            losses = []


@torch.no_grad()
def scores(model: AnswerFinder, tokenizer: Any, made: Sequence[Example]) -> np.ndarray:
    """(len(made),): by how much the likeliest answer is likelier than none, in nats."""
    model.eval()
    found = []
    for first in range(0, len(made), BATCH):
        inputs, _ = collated(tokenizer, made[first : first + BATCH])
        logits_NT2 = model(inputs)
        rest_NT2 = logits_NT2[:, 1:]
        found.append((rest_NT2.amax(1) - logits_NT2[:, 0]).sum(1))
    model.train()
    return torch.cat(found).float().numpy()


def separated(model: AnswerFinder, tokenizer: Any, made: Sequence[Example]) -> float:
    """The area under the curve: how often an answer scores above none, of two drawn at random."""
    scores_N = scores(model, tokenizer, made)
    answers_N = np.array([place is not None for _, _, place in made])
    return float((scores_N[answers_N][:, None] > scores_N[~answers_N]).mean())


def export(folder: Path) -> None:
    """Writes what was taught as the package reads it: float16, under the sentence model's names.

    SystemExit before the training has come to its end.
    """
    kept = folder / "kept.pt"
    state: dict[str, Any] = torch.load(kept) if kept.exists() else {"stage": 0, "step": 0}
    if (state["stage"], state["step"]) < (len(STAGES) - 1, STAGES[-1].steps):
        raise SystemExit(
            f"{kept}: {state['step']} steps of stage {state['stage'] + 1} are done; `train {folder}` goes on"
        )
    last = state["last"]
    tensors = {
        name.removeprefix("encoder."): torch.stack([weights[name] for weights in last]).mean(0).half().numpy()
        for name in last[0]
    }
    ASSET.parent.mkdir(exist_ok=True)
    safetensors.numpy.save_file(tensors, ASSET)
    print(f"{ASSET}: {ASSET.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("pairs", help="the questions with what answers them and what does not")
    make.add_argument("fairytales", type=Path)
    make.add_argument("qamr", type=Path)
    make.add_argument("--squad", type=Path, nargs="+", required=True, metavar="FILE.json")
    make.add_argument("--out", type=Path, required=True)
    for name in ("train", "export"):
        commands.add_parser(name).add_argument("folder", type=Path)
    args = parser.parse_args()
    if args.command == "pairs":
        pairs(args.fairytales, args.qamr, args.squad, args.out)
    else:
        {"train": train, "export": export}[args.command](args.folder)


if __name__ == "__main__":
    raise SystemExit(script(main))

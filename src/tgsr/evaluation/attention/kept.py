"""What `tgsr attend` keeps and goes on from: a line a response in attention.jsonl, and the tokens of single ones."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tgsr.answering.predict import Unheard
from tgsr.disk.jsonl import Row, repair_jsonl
from tgsr.disk.rows import Entry, json_lines
from tgsr.disk.whole import whole
from tgsr.engine.block_attention import BLOCKS
from tgsr.engine.features import FeatureCache
from tgsr.errors import RecordError
from tgsr.evaluation.attention.look import Looked, Pointed, Tokens, look
from tgsr.models.lalm import Lalm
from tgsr.records import Question, append_jsonl

WHERE = ("cited", "reference", "ends")  # the fields of Looked that say what is inside of some interval


@dataclass(frozen=True, slots=True)
class Attending:
    """What all responses in one folder have in common, for its run.json: models may be added later."""

    queries: str
    max_new_tokens: int
    predictions: str | None  # their file's SHA-256


def looked_row(item: Looked) -> Row:
    """A response as a JSON line: its question's id, what it says, and the shares, to six digits."""
    pointed: dict[str, dict[str, Row]] = {where: {} for where in WHERE}
    for where in WHERE:
        for phase, shares in getattr(item, where).items():
            if shares is not None:
                pointed[where][phase] = {name: _rounded(of) for name, of in asdict(shares).items()}
    return {
        "id": item.question.id,
        "clip_id": item.question.clip_id,
        "model": item.model,
        "response": item.response,
        **({"truncated": True} if item.is_cut else {}),
        "n_tokens": item.n_tokens,
        "n_of_block": item.n_of_block,
        "blocks": list(BLOCKS),
        "share": {
            phase: None if layers is None else [_rounded(layer) for layer in layers]
            for phase, layers in item.share.items()
        },
        **pointed,
    }


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else float(f"{value:.6g}") for value in values]


def _shares(layers: list[list[float | None]] | None) -> list[list[float]] | None:
    """A phase's shares as `looked_row` keeps them, null for NaN."""
    if layers is None:
        return None
    return [[math.nan if share is None else share for share in layer] for layer in layers]


def read_looked(path: Path, questions: Sequence[Question]) -> dict[str, dict[str, Looked]]:
    """What attention.jsonl holds of these questions: by model, then by question id. RecordError for another file."""
    by_id = {question.id: question for question in questions}
    looked: dict[str, dict[str, Looked]] = {}
    for entry in json_lines(path) if path.exists() else ():
        if not isinstance(entry, Entry):
            raise RecordError(None, entry.error, str(path), entry.line, "delete that line")
        row: dict[str, Any] = dict(entry.values)
        try:
            question = by_id.get(str(row["id"]))
            if question is None:
                continue
            fields = [row[name] for name in ("model", "response", "n_tokens", "n_of_block")]
            fields.append({phase: _shares(layers) for phase, layers in row["share"].items()})
            pointed = [{phase: Pointed(**p) for phase, p in row[where].items()} for where in WHERE]
            item = replace(Looked(question, *fields, *pointed), is_cut=bool(row.get("truncated")))
        except (KeyError, TypeError, AttributeError) as error:
            problem = f"is not a line of tgsr attend: {error!r}"
            raise RecordError(None, problem, str(path), entry.line, "choose another --out") from None
        looked.setdefault(item.model, {})[question.id] = item
    return looked


def look_to_file(
    lalm: Lalm,
    questions: Sequence[Question],
    path: Path,
    out: Path,
    cache: FeatureCache,
    with_tokens: Collection[str] = (),
    **more: Any,
) -> tuple[list[Looked], list[Unheard]]:
    """What `look` yields, each response appended to `out`/attention.jsonl as it comes, and its tokens to a file in
    `out`/tokens; `more` are look's arguments.

    Goes on where an earlier call stopped: what is in the file is not looked at again, and is what is returned, so that
    a run that was cut off ends with the same numbers. RecordError where the file is not one of ours.
    """
    lines = out / "attention.jsonl"
    if lines.exists():
        repair_jsonl(lines)
    done = set(read_looked(lines, questions).get(lalm.name, {}))
    left = [
        question
        for question in questions
        if question.id not in done
        or (question.id in with_tokens and not tokens_file(out, lalm.name, question).exists())
    ]
    unheard = []
    for item in look(lalm, left, path, cache, with_tokens=with_tokens, **more):
        if isinstance(item, Unheard):
            unheard.append(item)
            continue
        if item.tokens is not None:
            write_tokens(tokens_file(out, lalm.name, item.question), item.tokens)
        if item.question.id not in done:
            append_jsonl(lines, looked_row(item))
    looked = read_looked(lines, questions).get(lalm.name, {})
    return [looked[question.id] for question in questions if question.id in looked], unheard


def tokens_file(out: Path, model: str, question: Question) -> Path:
    """Where a response's Tokens are kept, one file each; a name that had to be changed ends with a hash of it."""
    name = f"{question.id}.{model}"
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[-150:]
    if plain != name:
        plain += f".{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return out / "tokens" / f"{plain}.npz"


def write_tokens(path: Path, tokens: Tokens) -> None:
    with whole(path) as half:
        np.savez_compressed(
            half,
            texts=np.array(tokens.texts, dtype=str),
            is_time=np.array(tokens.is_time),
            span=tokens.span_T2,
            blocks=np.array(BLOCKS),
            share=tokens.share_LTK.astype(np.float32),
            columns=tokens.column_LTC.astype(np.float32),
            seconds_per_column=tokens.seconds,
        )


def read_tokens(path: Path) -> Tokens:
    with np.load(path) as kept:
        texts, is_time = tuple(map(str, kept["texts"])), tuple(map(bool, kept["is_time"]))
        seconds = float(kept["seconds_per_column"])
        return Tokens(texts, is_time, kept["span"], kept["share"], kept["columns"], seconds)

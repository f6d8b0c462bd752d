"""`tgsr audit`: from prediction files of any kind to a page that says what they are worth, and to its numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

from tgsr.disk.whole import write_whole
from tgsr.errors import NothingDone
from tgsr.evaluation.audit import (
    MEASURES,
    Audited,
    Paired,
    audit_means,
    audited,
    examples,
    notation_means,
    paired,
)
from tgsr.evaluation.behaviour.measure import Hearing, Judging, Measured, measure
from tgsr.evaluation.scoring.responses import Answered, read_answers
from tgsr.evaluation.scoring.spoken import Spoken
from tgsr.records import Clip, Response, resolve_audio, write_jsonl
from tgsr.report.items import Answered as Asked
from tgsr.report.items import group_by_question
from tgsr.report.page import anchor_of, footer, page_parts, write_document
from tgsr.report.paper import paper_tables, write_tables
from tgsr.report.results import Results, gather
from tgsr.report.sections import Example, Section, sections
from tgsr.report.typeset import Column, Group, Table, TableRow
from tgsr.report.verdict import verdict
from tgsr.report.write import write_markdown
from tgsr.statistics.intervals import Bootstrap, Mean

LEAD = (
    "What can be said of each response without asking the model again. Each share is of the responses of which it can "
    "be said: n says how many. docs/audit.md says what each means."
)
COMPARED = (
    "The second model’s less the first’s, on the questions that both answered. McNemar’s p takes questions as "
    "independent, which those about one clip are not, and is not corrected for the number of measures."
)


@dataclass(frozen=True, slots=True)
class Audit:
    """What audit.json holds, by model: the means, in which notations it cites, and the ids that show each measure."""

    n: dict[str, int]
    means: dict[str, dict[str, Mean]]
    notations: dict[str, dict[str, Mean]]
    examples: dict[str, dict[str, tuple[str, ...]]]
    differences: tuple[Paired, ...]
    verdict: tuple[str, ...]


def audit(
    predictions: Sequence[Path],
    out: Path,
    *,
    questions: Path | None = None,
    clips: Sequence[Path] = (),
    audio: Path | None = None,
    hearing: Hearing | None = None,
    judging: Judging | None = None,
    without_texts: bool = False,
    seed: int = 0,
) -> Audit:
    """Writes the folder `out`: index.html, report.md, tables/, audit.json, items.jsonl (a line a response, numbers
    alone), and predictions/: the files as responses of ours, which every other command takes.

    `questions` is the benchmark's own file, for predictions that do not repeat theirs; `clips` have words, `audio` is
    the folder that sound lies in now. Crops are heard with `hearing` where there is sound; `judging` is asked about
    consistency. `without_texts` keeps what models and benchmarks wrote off the page. Rows that cannot be read go to
    errors.jsonl. Raises as `gather` does.
    """
    answers = _read(predictions, out, questions, audio)
    files = _write_predictions(answers, out / "predictions")
    given = [*clips, *sorted((out / "predictions").glob("clips.jsonl"))] if clips else []
    results = gather(list(files), seed=seed, clips=given)
    results = replace(results, others=(*predictions, *results.others))
    is_heard = any(resolve_audio(one, path).is_file() for path, some in files.items() for one in some)
    by_file = dict(zip(files, filter(None, answers.values()), strict=True))
    measured = measure(by_file, hearing if is_heard else None, judging, seed)
    if measured.verified or measured.judged:
        results = replace(results, behaviour=measured.models)
    items = _audited(answers, results.spoken, measured)
    models = {model: [item for item in items if item.model == model] for model in results.models}
    bootstrap = Bootstrap(seed)
    shown = {model: examples(of_model, seed) for model, of_model in models.items()}
    first, *others = results.models
    means = {model: audit_means(of_model, bootstrap) for model, of_model in models.items()}
    found = Audit(
        n={model: len(of_model) for model, of_model in models.items()},
        means=means,
        notations={model: notation_means(of_model, bootstrap) for model, of_model in models.items()},
        examples={
            model: {key: tuple(item.id for item in some) for key, some in by_key.items()}
            for model, by_key in shown.items()
        },
        differences=tuple(one for other in others for one in paired(models[first], models[other], bootstrap)),
        verdict=tuple(verdict(results, means)),
    )
    write_jsonl(out / "items.jsonl", map(asdict, items))
    text = json.dumps(asdict(found), ensure_ascii=False, allow_nan=False, indent=1)
    write_whole(out / "audit.json", text + "\n")
    _write_report(out, results, found, without_texts, seed)
    return found


# --- reading -----------------------------------------------------------------------------------------------------


def _read(
    predictions: Sequence[Path], out: Path, questions: Path | None, audio: Path | None
) -> dict[Path, list[Answered]]:
    errors = out / "errors.jsonl"
    errors.unlink(missing_ok=True)
    stems = Counter(path.stem for path in predictions)
    answers = {}
    for path in predictions:
        of_file = read_answers(path, errors, audio, questions)
        if stems[path.stem] > 1:  # two owners' files of one name are two models'
            name = f"{path.resolve().parent.name}/{path.stem}"
            of_file = [
                one if one.owner is None else replace(one, response=replace(one.response, model=name))
                for one in of_file
            ]
        answers[path] = [_placed(one, path) for one in of_file]
    if not any(answers.values()):
        why = f"see {errors}" if errors.exists() else "give what `tgsr predict` or `tgsr import` writes"
        raise NothingDone(f"{', '.join(map(str, predictions))}: no response that can be read; {why}")
    return answers


def _placed(answer: Answered, path: Path) -> Answered:
    """The answer with the whole path of its sound: its response will lie elsewhere."""
    response = answer.response
    where = str(resolve_audio(response, path).absolute())
    return replace(answer, response=replace(response, question=replace(response.question, audio=where)))


def _write_predictions(
    answers: Mapping[Path, Sequence[Answered]], folder: Path
) -> dict[Path, list[Response]]:
    """A file of responses of ours for each that has any, and clips.jsonl where the files say what is said."""
    for old in folder.glob("*.jsonl"):
        old.unlink()
    written: dict[Path, list[Response]] = {}
    for number, of_file in enumerate(filter(None, answers.values()), 1):
        path = folder / f"predictions-{number}.jsonl"
        written[path] = [one.response for one in of_file]
        write_jsonl(path, written[path])
    clips: dict[str, Clip] = {}
    for one in chain.from_iterable(answers.values()):
        if one.segments:
            asked = one.response.question
            clips[asked.clip_id] = Clip(asked.clip_id, asked.audio, asked.duration, words=one.segments)
    if clips:
        write_jsonl(folder / "clips.jsonl", clips.values())
    return written


def _audited(answers: Mapping[Path, Sequence[Answered]], spoken: Spoken, measured: Measured) -> list[Audited]:
    verify = {id(one.response): one.value for of_model in measured.verified.values() for one in of_model}
    follows = {
        id(response): None if judged is None else judged.verdicts.get("plain")
        for model, of_model in measured.judged.items()
        for response, judged in zip(measured.responses[model], of_model, strict=True)
    }
    items = []
    for answer in chain.from_iterable(answers.values()):
        words, key = spoken.words_of(answer.response.question), id(answer.response)
        items.append(audited(answer, words, verify=verify.get(key), follows=follows.get(key)))
    return items


# --- the page ----------------------------------------------------------------------------------------------------


def _write_report(out: Path, results: Results, found: Audit, without_texts: bool, seed: int) -> None:
    title = f"Audit of {', '.join(results.models)}"
    items = [] if without_texts else _items(results, found)
    anchors = {asked.question.id: anchor_of(place) for place, (asked, _) in enumerate(items)}
    tables = paper_tables(results, ())
    own = [_section(found, anchors), *_comparison(found)]
    parts = sections(results, tables, found.verdict, own)
    shown = [part for part in page_parts(title, results, parts, items) if part]
    if without_texts:
        shown = shown[:-1]  # the questions and responses themselves
    write_document(out / "index.html", title, shown, footer(results, seed))
    of_own = [table for section in own for table in section.tables]
    write_tables([*of_own, *tables], out / "tables", results.notes)
    write_markdown(out, results, parts, title)


def _items(results: Results, found: Audit) -> list[tuple[Asked, str]]:
    """The questions that are examples of something, each with all that it is an example of."""
    rules: dict[str, list[str]] = {}
    titles = {measure.key: measure.title for measure in MEASURES}
    for model, by_key in found.examples.items():
        for key, ids in by_key.items():
            for id_ in ids:
                rules.setdefault(id_, []).append(f"{model}: {titles[key]}")
    asked = group_by_question((source.path, source.responses) for source in results.sources)
    return [(one, "; ".join(rules[one.question.id])) for one in asked if one.question.id in rules]


def _section(found: Audit, anchors: Mapping[str, str]) -> Section:
    models = tuple(found.means)
    titles = {measure.key: measure.title for measure in MEASURES}
    shown = []
    for model, by_key in found.examples.items():
        for key, ids in by_key.items():
            title = f"{model}, {titles[key]}" if len(models) > 1 else titles[key]
            shown += [Example(title, ids, tuple(map(anchors.get, ids)))] if ids else []
    tables = tuple(_tables(found, models))
    return Section("audit", "Response by response", LEAD, tables, examples=tuple(shown))


def _tables(found: Audit, models: Sequence[str]) -> list[Table]:
    tables = []
    for key, title, is_share in (("audit", "Of the responses, %", True), ("audit-numbers", "Means", False)):
        rows = tuple(
            TableRow(measure.title, tuple(found.means[model][measure.key] for model in models))
            for measure in MEASURES
            if measure.is_share == is_share and any(found.means[model][measure.key].n for model in models)
        )
        scale, digits = (100, 1) if is_share else (1, 2)
        columns = tuple(Column(model, scale=scale, digits=digits) for model in models)
        notes = tuple(f"{model}: {n} responses." for model, n in found.n.items()) if is_share else ()
        tables.append(Table(key, title, "measure", columns, (Group("", rows),), notes))
    by_model = [found.notations[model] for model in models]
    written = dict.fromkeys(chain.from_iterable(by_model))
    rows = tuple(TableRow(name, tuple(one.get(name) for one in by_model)) for name in written)
    columns = tuple(Column(model, scale=100, digits=1, with_n=True) for model in models)
    title = "How intervals are written, % of the responses that cite any; N is a number"
    if not rows:
        return tables
    return [*tables, Table("audit-notations", title, "notation", columns, (Group("", rows),))]


def _comparison(found: Audit) -> list[Section]:
    if not found.differences:
        return []
    measures = {measure.key: measure for measure in MEASURES}
    columns = (Column("difference"), Column("questions"), Column("p, McNemar", digits=3, least=0.001))
    groups: dict[str, list[TableRow]] = {}
    for one in found.differences:
        measure = measures[one.measure]
        unit = ", points" if measure.is_share else ""
        shown = _in_points(one.difference) if measure.is_share else one.difference
        row = TableRow(f"{measure.title}{unit}", (shown, one.difference.n, one.p_mcnemar))
        groups.setdefault(f"{one.other} less {one.model}", []).append(row)
    of_pairs = tuple(Group(name, tuple(rows)) for name, rows in groups.items())
    table = Table("audit-differences", "Paired differences", "measure", columns, of_pairs)
    return [Section("audit-differences", "How the models differ", COMPARED, (table,))]


def _in_points(mean: Mean) -> Mean:
    ends = (mean.value, mean.low, mean.high)
    value, low, high = (None if end is None else 100 * end for end in ends)
    return replace(mean, value=value, low=low, high=high, n_unscored=0)

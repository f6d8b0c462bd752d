import csv
import json
import sqlite3
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from studies import N_CLIPS, predictions
from tgsr import audio
from tgsr.errors import StudyError
from tgsr.pages.study.analysis import analyse, markdown, ratings_of, sample_size, write_analysis, write_csv
from tgsr.pages.study.design import (
    CHECK_RATING,
    CHECK_STRETCH,
    MASK,
    make_study,
    masked,
    read_study,
    trials_for,
)
from tgsr.pages.study.store import MEASURES, Store
from tgsr.records import write_jsonl
from tgsr.statistics.agreement import krippendorff_alpha, with_interval


@pytest.fixture
def made(tmp_path):
    return make_study([predictions(tmp_path)], tmp_path / "study", n_items=8, raters_per_trial=3, seed=1)


def test_a_study_comes_back_from_its_folder(made, tmp_path):
    assert read_study(tmp_path / "study") == made
    assert made.systems == ("sharp", "blunt")
    assert (len(made.trials), len(made.practice), len(made.checks)) == (8, 2, 2)
    assert made.n_raters == 4 * 3
    again = make_study([tmp_path / "predictions.jsonl"], tmp_path / "again", n_items=8, seed=1)
    assert again == made
    with pytest.raises(StudyError, match="holds a study already"):
        make_study([tmp_path / "predictions.jsonl"], tmp_path / "study", n_items=8)


def test_raters_cannot_tell_the_system_from_what_is_shown(made, tmp_path):
    for trials in made.trials.values():
        for trial in trials:
            assert trial.system not in trial.id
            assert not any(digit in trial.response for digit in "1245")
            assert MASK in trial.response
            names = {trial.audio, *trial.stretches}
            assert all((tmp_path / "study" / "media" / name).is_file() for name in names)
    assert masked("From 1.2s to 3.4s, and (5.0-6.0s).") == f"From {MASK}, and ({MASK})."


def test_the_right_stretch_is_the_cited_one_and_the_others_are_as_long(made, tmp_path):
    source = {k: audio.load(tmp_path / f"{k}.wav") for k in range(N_CLIPS)}
    places = Counter()
    for item, trials in made.trials.items():
        whole = source[int(item[1:])]
        for trial in trials:
            heard = [audio.load(tmp_path / "study" / "media" / name) for name in trial.stretches]
            start = 16000 if trial.system == "sharp" else 64000
            np.testing.assert_allclose(heard[trial.right], whole[start : start + 16000], atol=1e-4)
            assert {len(one) for one in heard} == {16000}
            assert len({name for name in trial.stretches}) == 3
            places[trial.right] += 1
            if trial.condition == "full":
                assert len(audio.load(tmp_path / "study" / "media" / trial.audio)) == len(whole)
            else:  # padded by half a second on both sides
                assert len(audio.load(tmp_path / "study" / "media" / trial.audio)) == 32000
    assert len(places) == 3


def test_every_item_is_heard_in_every_cell_and_by_no_one_twice(made):
    n_cells = len(made.cells)
    seen = Counter()
    for rater in range(n_cells):
        trials = [trial for trial in trials_for(made, rater) if trial.kind == "rated"]
        assert len({trial.item for trial in trials}) == len(trials) == 8
        assert set(Counter((t.system, t.condition) for t in trials).values()) == {2}
        seen.update((t.item, t.system, t.condition) for t in trials)
    assert set(seen.values()) == {1}
    assert len(seen) == 8 * n_cells


def test_orders_differ_between_raters_and_are_the_same_each_time(made):
    orders = [[trial.id for trial in trials_for(made, rater)] for rater in range(8)]
    assert len({tuple(order) for order in orders}) == 8
    assert orders == [[trial.id for trial in trials_for(made, rater)] for rater in range(8)]
    for order in orders:
        assert order[:2] == [trial.id for trial in made.practice]
        assert order[2] not in {check.id for check in made.checks}  # nobody begins with a check


def test_blocks_of_items_share_out_a_large_study(tmp_path):
    study = make_study([predictions(tmp_path)], tmp_path / "s", n_items=8, per_rater=4, raters_per_trial=2)
    seen = Counter(
        trial.id
        for rater in range(study.n_raters)
        for trial in trials_for(study, rater)
        if trial.kind == "rated"
    )
    assert study.n_raters == 4 * 2 * 2
    assert set(seen.values()) == {2}
    assert len(seen) == 8 * 4


def test_what_cannot_be_used_is_counted_by_reason(tmp_path):
    path = predictions(tmp_path, n=4)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["response"] = "(b) no"  # blunt, first item
    rows[3]["response"] = "From 0.00s to 5.90s, all of it.\n(b) no"  # blunt, second item
    del rows[4]  # sharp, third item
    write_jsonl(path, rows)
    with pytest.raises(StudyError, match="only 1 of 2 items can be used, beside 0 for practice") as caught:
        make_study([path], tmp_path / "s", n_items=2, n_practice=0)
    for reason in (
        "1: blunt cites no span inside the clip",
        "1: no room for other stretches",
        "1: not answered by every system",
    ):
        assert reason in str(caught.value)
    assert len(make_study([path], tmp_path / "t", n_items=1, n_practice=0).trials) == 1
    with pytest.raises(StudyError, match="sharpest: no responses of it; there are sharp, blunt"):
        make_study([path], tmp_path / "u", systems=["sharpest"])


def test_a_folder_without_a_study_says_so(tmp_path):
    with pytest.raises(StudyError, match="make a study"):
        read_study(tmp_path)
    (tmp_path / "study.json").write_text('{"title": 3')
    with pytest.raises(StudyError, match="is no study"):
        read_study(tmp_path)


# --- ratings -----------------------------------------------------------------------------------------------


def test_answers_survive_and_the_last_counts(tmp_path):
    store = Store.open(tmp_path / "r.sqlite", "s1")
    number, token = store.join("I agree")
    store.add(number, "t", "helpful", 3, 4.5, 2)
    store.add(number, "t", "helpful", 4, 6.0, 3)
    again = Store.open(tmp_path / "r.sqlite", "s1")
    (answer,) = again.answers(number)
    assert (answer.value, answer.changes, answer.plays) == (4, 1, 3)
    assert again.rater(token) == number
    assert again.rater("guess") is None
    with sqlite3.connect(tmp_path / "r.sqlite") as db:
        assert db.execute("select count(*) from answers").fetchone() == (2,)


def test_two_studies_do_not_share_a_file(tmp_path):
    Store.open(tmp_path / "r.sqlite", "s1")
    with pytest.raises(StudyError, match="holds the ratings of another study"):
        Store.open(tmp_path / "r.sqlite", "s2")
    (tmp_path / "junk").write_bytes(b"no database" * 100)
    with pytest.raises(StudyError, match="cannot be used"):
        Store.open(tmp_path / "junk", "s1")


def test_raters_who_join_and_answer_at_once_lose_nothing(tmp_path):
    store = Store.open(tmp_path / "r.sqlite", "s")
    numbers = []

    def one_rater():
        number, _ = store.join("yes")
        numbers.append(number)
        for n in range(20):
            store.add(number, f"t{n}", "helpful", 1 + n % 5, None, None)

    threads = [threading.Thread(target=one_rater) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(6))
    assert len(store.answers()) == 6 * 20


class SmallDisk(Store):
    """SQLite's own limit on the file's size stands for a disk that is full."""

    @contextmanager
    def _transaction(self):
        with super()._transaction() as db:
            db.execute("pragma max_page_count=1")
            yield db


def test_a_full_disk_is_an_error_and_keeps_what_was_there(tmp_path):
    store = Store.open(tmp_path / "r.sqlite", "s")
    number, _ = store.join("yes")
    store.add(number, "t", "helpful", 3, None, None)

    def fill():
        for n in range(2000):
            SmallDisk(store.path).add(number, f"trial-{n}-{'x' * 200}", "helpful", 3, None, None)

    with pytest.raises(sqlite3.OperationalError, match="full"):
        fill()
    assert store.answers(number)[0].value == 3


def simulate(study, store, n_raters, rng, careless=()):
    """Raters who hear that `sharp` cites what it says: they find its stretch in 90 %, blunt's in 40 %."""
    for _ in range(n_raters):
        number, _ = store.join("yes")
        for trial in trials_for(study, number):
            if trial.kind == "check":
                wrong = number in careless
                values = (0 if wrong else CHECK_STRETCH, 5 if wrong else CHECK_RATING, CHECK_RATING)
                values = (values[0], values[1], 5) if wrong else values
            else:
                finds = rng.random() < (0.9 if trial.system == "sharp" else 0.4)
                other = (trial.right + 1 + int(rng.integers(2))) % 3
                level = 4 if trial.system == "sharp" else 2
                values = (trial.right if finds else other, *np.clip(level + rng.integers(-1, 2, 2), 1, 5))
            for measure, value in zip(MEASURES, values, strict=True):
                store.add(number, trial.id, measure, int(value), 5.0, 2)


def test_analysis_finds_what_was_built_in(made, tmp_path):
    store = Store.open(tmp_path / "r.sqlite", made.id)
    simulate(made, store, made.n_raters, np.random.default_rng(4), careless={2})
    ratings = ratings_of(made, store)
    found = analyse(made, ratings)
    assert (found.n_raters, found.n_finished) == (12, 12)
    assert [one.rater for one in found.excluded] == [2]
    assert found.n_ratings == 11 * 8 * 3
    sharp, blunt = found.means["referent"]["sharp"], found.means["referent"]["blunt"]
    assert sharp["full"].value > 0.75 > 0.6 > blunt["full"].value
    contrast = {c.measure: c.difference for c in found.contrasts}
    assert contrast["helpful"].high < -1  # blunt less sharp, truth -2
    assert contrast["referent"].high < 0
    assert abs(found.conditions["helpful"]["sharp"].value) < 0.5
    alpha = found.agreement["helpful"]["krippendorff_alpha_ordinal"]
    assert alpha.value > 0.5
    assert found.agreement["helpful"]["fleiss_kappa"] is None  # a rater was left out: unequal numbers
    write_analysis(found, tmp_path / "a")
    text = (tmp_path / "a" / "analysis.md").read_text()
    assert "1 left out for failed attention checks" in text
    assert (tmp_path / "a" / "analysis.png").stat().st_size > 5000
    assert json.loads((tmp_path / "a" / "analysis.json").read_text())["n_raters"] == 12


def test_systems_are_compared_in_the_same_condition(made, tmp_path):
    """Three of four raters came: each item lacks a cell. The full clip is worth 2 points, and the systems are alike."""
    store = Store.open(tmp_path / "r.sqlite", made.id)
    for _ in range(3):
        number, _ = store.join("yes")
        for trial in trials_for(made, number):
            for measure in MEASURES:
                value = trial.right if measure == "referent" else 5 if trial.condition == "full" else 3
                if trial.kind == "check":
                    value = CHECK_STRETCH if measure == "referent" else CHECK_RATING
                store.add(number, trial.id, measure, value, 5.0, 2)
    found = analyse(made, ratings_of(made, store))
    (helpful,) = (one.difference for one in found.contrasts if one.measure == "helpful")
    assert (helpful.value, helpful.low, helpful.high, helpful.n) == (0.0, 0.0, 0.0, 8)
    assert {mean.value for mean in found.conditions["helpful"].values()} == {-2.0}


def test_a_study_without_ratings_has_no_numbers(made, tmp_path):
    store = Store.open(tmp_path / "r.sqlite", made.id)
    found = analyse(made, ratings_of(made, store))
    assert found.means["helpful"]["sharp"]["full"].value is None
    assert found.n_items_needed is None
    assert "| sharp | – | – |" in markdown(found)
    write_analysis(found, tmp_path / "a")


def test_csv_has_a_line_an_answer(made, tmp_path):
    store = Store.open(tmp_path / "r.sqlite", made.id)
    simulate(made, store, 2, np.random.default_rng(0))
    write_csv(tmp_path / "ratings.csv", ratings_of(made, store))
    with (tmp_path / "ratings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (8 + 2 + 2) * 3
    assert {row["system"] for row in rows if row["kind"] == "rated"} == {"sharp", "blunt"}
    assert {row["correct"] for row in rows if row["measure"] == "referent"} == {"True", "False"}


def test_no_cell_of_the_csv_is_a_formula(made, tmp_path):
    """Items and systems are called as their files say; a spreadsheet computes what begins with one of these."""
    store = Store.open(tmp_path / "r.sqlite", made.id)
    simulate(made, store, 1, np.random.default_rng(0))
    rating = next(one for one in ratings_of(made, store) if one.kind == "rated")
    names = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1+1", "\r=1+1", "a=b")
    write_csv(tmp_path / "ratings.csv", [replace(rating, item=name, system=name) for name in names])
    with (tmp_path / "ratings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\t=1+1", "'\r=1+1", "a=b"]
    assert [row["item"] for row in rows] == [row["system"] for row in rows] == told


def test_sample_size_in_a_sentence():
    assert sample_size(0.5, 1.0, 1, 0.4, 0.8).startswith("32 items, each rated by 1 raters")
    assert sample_size(0.5, 1.0, 3, 0.4, 0.8).startswith(
        "19 items"
    )  # a mean of three has 0.6 of the variance


# --- what a reviewer found -----------------------------------------------------------------------------------


def test_nobody_hears_a_recording_in_two_rated_parts(tmp_path):
    path = predictions(tmp_path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_jsonl(path, [*rows, *({**row, "id": row["id"] + "-again"} for row in rows)])
    study = make_study([path], tmp_path / "s", n_items=10, n_practice=2)
    assert len({item.removesuffix("-again") for item in study.trials}) == 10
    rated = {trial.item for trials in study.trials.values() for trial in trials}
    assert not rated & {trial.item for trial in (*study.practice, *study.checks)}
    with pytest.raises(StudyError, match="about a recording that is in the study already"):
        make_study([path], tmp_path / "t", n_items=11, n_practice=2)


def test_practice_is_never_dropped_without_a_word(tmp_path):
    with pytest.raises(StudyError, match="only 10 of 12 items can be used, beside 2 for practice"):
        make_study([predictions(tmp_path)], tmp_path / "s", n_items=N_CLIPS)


def test_blocks_keep_the_cells_in_balance(tmp_path):
    study = make_study([predictions(tmp_path)], tmp_path / "s", n_items=8, per_rater=4, raters_per_trial=2)
    for rater in range(study.n_raters):
        rated = [trial for trial in trials_for(study, rater) if trial.kind == "rated"]
        assert set(Counter((t.system, t.condition) for t in rated).values()) == {1}
    with pytest.raises(StudyError, match="--per-rater 3: must divide --items 8"):
        make_study([tmp_path / "predictions.jsonl"], tmp_path / "t", n_items=8, per_rater=3)


def test_a_row_that_says_a_longer_clip_stops_nothing(tmp_path):
    path = predictions(tmp_path, n=4)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["duration"] = 9.0  # the sound has 6 s
    rows[0]["response"] = "From 5.00s to 6.50s.\n(a) yes"
    rows[2]["response"] = "From 7.00s to 8.00s.\n(a) yes"
    write_jsonl(path, rows)
    study = make_study([path], tmp_path / "s", n_items=3, n_practice=0)
    assert set(study.trials) == {"q0", "q2", "q3"}  # q1 cites nothing that can be heard


@pytest.mark.parametrize(
    "text",
    [
        "At 5.2s a dog barks",
        "at the 3-second mark",
        "at 0:12",
        "heard (2, 5) and [2-5]",
        "from 2 to 5 he speaks",
        "the man (3.0-4.0)",
        "around 7.5 seconds",
        "after 9 s, 12.3s: bell",
        "starts at 3.1s",
        "between 1 and 2",
    ],
)
def test_no_stated_time_is_left_to_be_read(text):
    assert MASK in masked(text)
    assert not any(letter.isdigit() for letter in masked(text))


def test_other_numbers_stay():
    assert masked("The answer is 7, two of 3 people.") == "The answer is 7, two of 3 people."


def test_agreement_intervals_know_that_trials_of_an_item_are_alike():
    """Half of the items are easy, half hard: four trials each. The interval must cover what other items would give."""
    rng = np.random.default_rng(0)

    def table(n_items):
        rows, items = [], []
        for item in range(n_items):
            is_easy = rng.random() < 0.5
            for _ in range(4):
                same = int(rng.integers(1, 6))
                rows.append([same] * 3 if is_easy else rng.integers(1, 6, 3).tolist())
                items.append(item)
        return rows, items

    truth = np.mean([krippendorff_alpha(table(12)[0], "ordinal") for _ in range(40)])
    covered = {"items": 0, "trials": 0}
    for _ in range(24):
        rows, items = table(12)
        for name, clusters in (("items", items), ("trials", None)):
            found = with_interval(lambda r: krippendorff_alpha(r, "ordinal"), rows, 0, 60, clusters=clusters)
            covered[name] += found.low <= truth <= found.high
    assert covered["items"] >= 19
    assert covered["items"] > covered["trials"]

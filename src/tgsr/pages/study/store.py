"""Where ratings are kept: one SQLite file, each answer on disk before the rater sees that it was taken.

Nothing is overwritten: an answer that is given again is a further row, and the last one counts.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tgsr.errors import StudyError

Measure = Literal["referent", "helpful", "supportive"]
RATINGS = "ratings.sqlite"
MEASURES: tuple[Measure, ...] = ("referent", "helpful", "supportive")
_TABLES = """
create table if not exists study (id text primary key);
create table if not exists raters (
    number integer primary key, token text not null unique, consent text not null, joined text not null
);
create table if not exists answers (
    n integer primary key, rater integer not null references raters(number), trial text not null,
    measure text not null, value integer not null, seconds real, plays integer, at text not null
);
create table if not exists heard (
    rater integer not null references raters(number), trial text not null, at text not null, primary key (rater, trial)
);
create index if not exists answers_of on answers(rater, trial, measure);
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it counts: the last of its rater, trial and measure. `changes`: how often it was given before.

    `seconds`: from the trial's being shown to the answer; `plays`: how often sound was started until then; both as the
    page reports them, None where it didn't.
    """

    rater: int
    trial: str
    measure: Measure
    value: int
    seconds: float | None
    plays: int | None
    at: str
    changes: int


@dataclass(frozen=True, slots=True)
class Store:
    """The ratings of one study. Each call has its own connection, so that any thread may use it."""

    path: Path

    @classmethod
    def open(cls, path: Path, study: str) -> Store:
        """The file, made where it is missing. StudyError where it belongs to another study, or is no such file."""
        store = cls(path)
        try:
            with store._transaction() as db:
                db.executescript("pragma journal_mode=wal;" + _TABLES)
            with store._transaction() as db:
                owner = db.execute("select id from study").fetchone()
                if owner is None:
                    db.execute("insert into study values (?)", (study,))
                elif owner[0] != study:
                    raise StudyError(
                        f"{path}: holds the ratings of another study ({owner[0]}, this one is {study}); "
                        "move it away, or make the study again in its own folder"
                    )
        except sqlite3.DatabaseError as error:
            raise StudyError(f"{path}: cannot be used ({error}); free space, or move it away") from error
        return store

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=20)
        try:
            db.execute("pragma synchronous=full")  # on disk when the call returns, whatever happens next
            with db:
                yield db
        finally:
            db.close()

    def join(self, consent: str) -> tuple[int, str]:
        """A new rater's number and secret token. `consent` is the text that was agreed to."""
        token = secrets.token_urlsafe(16)
        with self._transaction() as db:
            db.execute("begin immediate")  # two who join at once get two numbers
            number = db.execute("select coalesce(max(number) + 1, 0) from raters").fetchone()[0]
            db.execute("insert into raters values (?, ?, ?, datetime('now'))", (number, token, consent))
        return number, token

    def rater(self, token: str) -> int | None:
        """The number of the rater who has that token."""
        with self._transaction() as db:
            row = db.execute("select number from raters where token = ?", (token,)).fetchone()
        return None if row is None else int(row[0])

    def add(
        self, rater: int, trial: str, measure: Measure, value: int, seconds: float | None, plays: int | None
    ) -> None:
        """Keeps one answer. sqlite3.OperationalError where the disk is full: nothing was kept then."""
        with self._transaction() as db:
            db.execute(
                "insert into answers (rater, trial, measure, value, seconds, plays, at) "
                "values (?, ?, ?, ?, ?, ?, datetime('now'))",
                (rater, trial, measure, value, seconds, plays),
            )

    def hear(self, rater: int, trial: str) -> None:
        """Keeps that the sound which is rated was sent to the rater: the first question's answer is final then."""
        with self._transaction() as db:
            db.execute("insert or ignore into heard values (?, ?, datetime('now'))", (rater, trial))

    def has_heard(self, rater: int, trial: str) -> bool:
        with self._transaction() as db:
            row = db.execute("select 1 from heard where rater = ? and trial = ?", (rater, trial)).fetchone()
        return row is not None

    def answers(self, rater: int | None = None) -> list[Answer]:
        """The answers that count, of one rater or of all, in the order in which they were first given."""
        with self._transaction() as db:
            rows = db.execute(
                "select rater, trial, measure, value, seconds, plays, at from answers "
                "where ? is null or rater = ? order by n",
                (rater, rater),
            ).fetchall()
        last: dict[tuple[int, str, str], Answer] = {}
        for number, trial, measure, value, seconds, plays, at in rows:
            before = last.get((number, trial, measure))
            changes = 0 if before is None else before.changes + 1
            last[number, trial, measure] = Answer(number, trial, measure, value, seconds, plays, at, changes)
        return list(last.values())

    def n_raters(self) -> int:
        with self._transaction() as db:
            return int(db.execute("select count(*) from raters").fetchone()[0])

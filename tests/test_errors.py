"""What messages tell people to install is there, and is ours."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import get_args

import pytest

from tgsr.disk import parquet
from tgsr.errors import MissingPackage, TgsrError, install
from tgsr.training.config import Tracker

ROOT = Path(__file__).parents[1]
TEXTS = [
    ROOT / "README.md",
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("src/**/*.py"),
    *ROOT.glob("tests/**/*.py"),
]


def test_a_missing_package_is_had_from_the_repository() -> None:
    command = shlex.split(install("view").partition(": ")[2])
    assert command[:3] == ["pip", "install", "-e"]
    folder, extra = re.fullmatch(r"(.*)\[(.*)\]", command[3]).groups()  # type: ignore[union-attr]
    assert (Path(folder) / "pyproject.toml").samefile(ROOT / "pyproject.toml")
    assert extra == "view"


def test_every_extra_that_a_message_names_is_there() -> None:
    written = (ROOT / "pyproject.toml").read_text()
    extras = set(
        re.findall(r"^(\w+) = \[", written.partition("[project.optional-dependencies]")[2], re.MULTILINE)
    )
    named = {
        name
        for path in ROOT.glob("src/**/*.py")
        for name in re.findall(r"install\('(\w+)'\)", path.read_text())
    }
    assert len(named) >= 5
    assert {*named, *get_args(Tracker)} - {"none"} <= extras


def test_nobody_is_told_to_install_a_name_that_is_not_ours() -> None:
    told = re.compile(r"pip install (?:-\S+ )*['\"]?tgsr\b")
    assert [path.name for path in TEXTS if told.search(path.read_text(encoding="utf-8"))] == []


def test_a_table_without_pyarrow_is_an_error_for_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        MissingPackage, match=r"Parquet needs pyarrow, the extra 'parquet' of tgsr: pip install"
    ) as told:
        parquet.pyarrow_for("Parquet")
    assert isinstance(told.value, TgsrError)
    assert isinstance(told.value, ModuleNotFoundError)


def test_the_page_of_troubleshooting_quotes_errors_that_exist() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py")))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quotes = [
        quote
        for row in page.splitlines()
        if row.startswith("| `")
        for quote in row.split("|")[1].split("`")[1::2]
    ]
    assert len(quotes) > 20
    for quote in quotes:
        literal = max(
            re.split(r"\.\.\.|[\d.]*\d[\d.]*|'[^']*'|\b(?:A|B|talk|reponse|torch)\b|is #NAME\?", quote),
            key=len,
        )
        assert literal.strip(" ,;:(?") in source, quote

"""What pages promise who follows them: links lead somewhere, tables are whole, commands parse."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from dataclasses import fields
from itertools import takewhile
from pathlib import Path

import pytest

from tgsr import cli
from tgsr.records import Clip, as_row, read_clips

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]
SHELL = ("|", "<", ">")
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def linked(page: Path) -> list[tuple[Path, str]]:
    """The files of the repository that a page links to, each with the anchor in it, "" without one."""
    links = (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in link)
    return [((page.parent / file).resolve() if file else page, anchor) for file, _, anchor in links]


def anchors(page: Path) -> set[str]:
    """Those of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for file, anchor in linked(page):
        assert file.exists(), file
        assert not anchor or anchor in anchors(file), f"{file.name}#{anchor}"


def test_every_page_can_be_reached_from_the_first() -> None:
    reached: set[Path] = set()
    ahead = [ROOT / "docs" / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        files = [file for file, _ in linked(page)]
        files += [file for folder in files if folder.is_dir() for file in folder.glob("*.md")]
        ahead += [file for file in files if file.suffix == ".md" and file not in reached]
    assert {page for page in PAGES if page.parent != ROOT} <= reached


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_rows_of_a_table_have_a_header_and_as_many_cells(page: Path) -> None:
    n_cells = 0
    lines = prose(page).splitlines()
    for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        if line.startswith("|"):
            n = len(re.findall(r"(?<!\\)\|", line))
            if not before.startswith("|"):
                n_cells = n
                assert re.fullmatch(r"[-|: ]+", after), line
            assert n == n_cells, line


def commands(page: Path) -> list[str]:
    """Those of `tgsr` in its fenced blocks, without comments; a line that goes on is joined."""
    blocks = "\n".join(FENCED.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ")
    lines = re.findall(r"^(?:\$ |  )*(?:tgsr|torchrun .* -m tgsr\.cli) (.*)$", blocks, re.MULTILINE)
    return [re.sub(r"(^|\s)#\s.*", "", line) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_as_the_command_line_takes_them(page: Path) -> None:
    for command in commands(page):
        words = list(takewhile(lambda word: word not in SHELL, shlex.split(command)))
        if re.search(r"\.\.\.|[$\[]", command):  # a part of a command: its flags at least are there
            named = {word.lstrip("[") for word in words if word.lstrip("[").startswith("--")}
            assert named <= flags_of(words), command
            continue
        try:
            cli._parsed(words)
        except SystemExit:
            pytest.fail(command)


def flags_of(words: list[str]) -> set[str]:
    """Every flag of the command, and of its stage (`train grpo`), that the words begin with."""
    flags: set[str] = set()
    parser = cli.parser(words)
    for word in [*words[:2], ""]:
        flags |= {flag for action in parser._actions for flag in action.option_strings}
        steps = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not steps or word not in steps[0].choices:
            break
        parser = steps[0].choices[word]
    return flags


def test_the_row_of_clips_that_a_page_shows_is_read_whole(tmp_path: Path) -> None:
    (row,) = re.findall(
        r'^({"id": "c1".*?)\n```', (ROOT / "docs/data.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    (tmp_path / "clips.jsonl").write_text(row.replace("\n", " ") + "\n", encoding="utf-8")
    (clip,) = read_clips(tmp_path / "clips.jsonl")
    assert as_row(clip) == json.loads(row)
    assert set(json.loads(row)) == {field.name for field in fields(Clip)} - {"flags"}


def test_every_flag_of_a_clip_stands_in_the_table_of_flags() -> None:
    listed = set(re.findall(r"`([a-z-]+)`", (ROOT / "docs/data.md").read_text("utf-8")))
    records = (ROOT / "src/tgsr/records.py").read_text("utf-8")
    repair = (ROOT / "src/tgsr/data/transcribe/repair.py").read_text("utf-8")
    said = records.partition("# What `Clip.flags` can say")[2].partition("@dataclass")[0] + repair
    flags = re.findall(r'^[A-Z_]+ = "([a-z-]+)"$', said, re.MULTILINE)
    for file in (ROOT / "src/tgsr/data/corpora").glob("*.py"):
        text = file.read_text("utf-8")
        flags += re.findall(r'flag(?:s\b[^"\n]*|ged | )"([a-z]+(?:-[a-z]+)*)"', text)
    assert {"no-speech", "words-cut", "empty-text", "events-cut", "video"} <= set(flags)
    assert set(flags) <= listed


def test_the_page_of_training_says_what_each_stage_trains() -> None:
    (steps,) = (a for a in cli.parser(["train"])._actions if isinstance(a, argparse._SubParsersAction))
    stages = next(a for a in steps.choices["train"]._actions if isinstance(a, argparse._SubParsersAction))
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    assert sorted(stages.choices) == sorted(re.findall(r"^\| `tgsr train (\w+)` \|", page, re.MULTILINE))


def test_the_readmes_map_has_every_file_and_room() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Map")[2].partition("\n## ")[0]
    there = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "src/tgsr").iterdir()
        if path.suffix == ".py" or any(path.glob("*.py"))
    }
    assert there - {"__init__.py"} <= set(re.findall(r"`([\w.]+/?)`", page))


def test_what_the_readme_installs_first_brings_the_pages_that_it_opens_next() -> None:
    first = FENCED.findall((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    assert "\npip install . " in first
    assert "tgsr view " in first
    base, _, extras = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")
    )
    (view,) = re.findall(r"^view = \[(.*)\]$", extras, re.MULTILINE)
    assert [needed for needed in view.split(", ") if needed not in base] == []

"""docs/house.md says what may import what; every import of the package is held against it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "tgsr"
PAPER = """
    timeline records audio prompts choices grounding overlap rewards reasoning dense_reward evidence grpo
    sta rl errors cli
"""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    paths = (path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in paths}


def imported(path: Path, known: dict[str, Path]) -> Iterator[tuple[str, bool]]:
    """The package's modules that a file imports, wherever in it; and whether only for its annotations."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tgsr":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = {name if name in known else node.module for name in names} - {"tgsr"}  # its __version__
            yield from ((target, id(node) in guarded) for target in sorted(targets))
        elif isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names if alias.name.split(".")[0] == "tgsr")


def layers() -> dict[str, int]:
    """Each file of the top and each room with its layer's number, the ground's being 0."""
    table = (
        (ROOT / "docs" / "house.md")
        .read_text(encoding="utf-8")
        .partition("| layer |")[2]
        .partition("\n\n")[0]
    )
    rows = [re.findall(r"`(\w+)`", line) for line in table.splitlines()[2:]]
    return {name: number for number, names in enumerate(rows) for name in names}


def room(module: str) -> str:
    """The room that a module stands in: the first folder, or the file itself at the top."""
    return module.split(".")[1]


@pytest.fixture(scope="module")
def arrows() -> list[tuple[str, str, bool]]:
    known = modules()
    return [(name, target, typed) for name, path in known.items() for target, typed in imported(path, known)]


def test_every_file_of_the_top_and_every_room_has_one_layer() -> None:
    assert set(layers()) == {room(module) for module in modules()}


def test_the_top_is_the_paper_and_nothing_else() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} == set(PAPER.split())


def test_nothing_is_imported_from_a_higher_layer(arrows: list[tuple[str, str, bool]]) -> None:
    layer = layers()
    upward = [
        f"{module} -> {target}" for module, target, _ in arrows if layer[room(target)] > layer[room(module)]
    ]
    assert not upward


@pytest.mark.parametrize("of", ["rooms", "files"])
def test_no_circle(arrows: list[tuple[str, str, bool]], of: str) -> None:
    name = room if of == "rooms" else str
    graph = networkx.DiGraph(
        (name(module), name(target)) for module, target, _ in arrows if name(module) != name(target)
    )
    circles = [sorted(part) for part in networkx.strongly_connected_components(graph) if len(part) > 1]
    assert not circles


def test_a_planted_arrow_upward_is_seen(tmp_path: Path) -> None:
    planted = tmp_path / "grpo.py"
    planted.write_text("def f():\n    from tgsr.rl import train_grpo\n    return train_grpo\n")
    assert list(imported(planted, modules())) == [("tgsr.rl", False)]
    assert layers()["rl"] > layers()["grpo"]


def test_the_rewards_import_no_evaluation(arrows: list[tuple[str, str, bool]]) -> None:
    assert {room(target) for module, target, _ in arrows if room(module) == "rewards"} <= {
        "choices",
        "errors",
        "grounding",
        "reading",
        "records",
        "timeline",
    }

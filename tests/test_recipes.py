"""The recipes are commands that today's command line takes, with the paper's numbers in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tgsr.cli import parser

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.sh"))


def commands(recipe: Path) -> list[list[str]]:
    """The arguments of each `tgsr`, variables written out as words."""
    text = recipe.read_text().replace("\\\n", " ")
    text = re.sub(r"\$\{?(\w+)[^}\s\"]*\}?", r"\1", text)
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    found = []
    for words in lines:
        for program in ("tgsr", "tgsr.cli"):
            if program in words:
                found.append(words[words.index(program) + 1 :])
    return found


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_each_command_is_understood(recipe: Path) -> None:
    assert len(commands(recipe)) >= 2
    for arguments in commands(recipe):
        parser().parse_args(arguments)


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.name.startswith("paper_")], ids=lambda p: p.name)
def test_the_papers_tables_are_in_its_presets(recipe: Path) -> None:
    sta, grpo = (parser().parse_args(arguments) for arguments in commands(recipe))
    assert (sta.learning_rate, sta.warmup_share, sta.epochs, sta.bfloat16) == (2e-5, 0.03, 1, True)
    assert sta.clips_per_step * 8 == 4 * 4 * 8  # phrases: GPUs x a GPU x accumulations, 8 phrases a clip
    assert (grpo.learning_rate, grpo.warmup_share, grpo.epochs, grpo.bfloat16) == (5e-6, 0.03, 1, True)
    assert (grpo.group_size, grpo.temperature, grpo.top_p, grpo.beta, grpo.epsilon) == (
        8,
        0.7,
        0.9,
        0.04,
        0.2,
    )
    assert grpo.prompts_per_step * grpo.group_size == 8 * 8 * 4

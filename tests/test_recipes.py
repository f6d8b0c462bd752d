"""The recipes are commands that today's command line takes, with the paper's numbers in them.

They are run as they are, by bash, with programs in place of tgsr and torchrun that write down what they are asked.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tgsr.cli import parser
from tgsr.data import plugins
from tgsr.data.plugged_rewards import TERMS
from tgsr.data.questions import by_rule, digits
from tgsr.training.config import REWARD_WEIGHTS

Started = Callable[..., list[list[str]]]
RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.sh"))
FILES = ("STA_QUESTIONS", "QA_QUESTIONS", "MMAU", "MMAR", "AIRBENCH", "MELD", "HELD_OUT")
FOLDERS = ("LIBRISPEECH", "COVOST", "DIALOGUES", "YOUTUBE", "SPEECHOCEAN", "QUEEN")
STAND_IN = r"""#!/bin/sh
# A start: a line feed and the arguments, with a unit separator after each, in one write: recipes start several at once,
# and two writes would mix. Then what --out names is there. A recipe starts it hundreds of times: what the shell can do
# by itself takes no process.
printf '%s\037' "
" "$@" >> "$LOG"
while [ $# -gt 1 ]; do
    if [ "$1" = --out ]; then
        case "$2" in
            *.*) folder=${2%/*} file=$2 ;;
            *) folder=$2 file= ;;
        esac
        [ -d "$folder" ] || [ "$folder" = "$file" ] || mkdir -p "$folder"
        [ -z "$file" ] || : >> "$file"
    fi
    shift
done
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the recipes are bash scripts")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Started:
    """The arguments of each `tgsr` that a recipe starts, in order; each recipe is run once for the same variables."""

    @functools.cache
    def commands(recipe: Path, **given: str) -> list[list[str]]:
        return run(recipe, tmp_path_factory.mktemp(recipe.stem), **given)

    return commands


def run(recipe: Path, folder: Path, **given: str) -> list[list[str]]:
    """Runs the recipe in that folder, which may have what it left there before; the arguments of each `tgsr`."""
    log = folder / "commands"
    log.write_text("")
    (folder / "bin").mkdir(exist_ok=True)
    for program in ("tgsr", "torchrun"):
        (folder / "bin" / program).write_text(STAND_IN)
        (folder / "bin" / program).chmod(0o755)
    python = folder / "bin" / "python"  # what gathers the runs' numbers has tests of its own
    python.unlink(missing_ok=True)
    python.symlink_to("/bin/true")
    variables = {name: str(folder / name) for name in (*FILES, *FOLDERS)}
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    env = {"PATH": path, "LOG": str(log), **variables, **given}
    done = subprocess.run(
        ["bash", str(recipe)], cwd=folder, env=env, timeout=120, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    found = [line.rstrip("\x1f").split("\x1f") for line in log.read_text().split("\n\x1f")[1:]]
    return [words[words.index("tgsr.cli") + 1 :] if "tgsr.cli" in words else words for words in found]


parser_of = functools.cache(
    lambda command: parser([command])
)  # once for the hundreds of commands of a recipe


def parsed(arguments: list[str]) -> argparse.Namespace:
    return parser_of(arguments[0]).parse_args(arguments)


def of(command: str, commands: list[list[str]]) -> list[argparse.Namespace]:
    """The arguments of a command ("train grpo"), each time that it is started."""
    words = command.split()
    return [parsed(arguments) for arguments in commands if arguments[: len(words)] == words]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_each_command_is_understood_and_the_recipe_reaches_its_end(recipe: Path, started: Started) -> None:
    """Of the findings' three seeds, and of their English part, another test asks."""
    commands = started(recipe, **({"SEEDS": "0"} if recipe.name == "findings.sh" else {}))
    assert len(commands) >= 2
    for arguments in commands:
        parsed(arguments)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_task_that_is_left_out_is_one_that_there_is(recipe: Path, started: Started) -> None:
    """A parser takes any word there; of the findings, their English part's, too."""
    commands = started(recipe, **({"ENGLISH": "en"} if recipe.name == "findings.sh" else {}))
    for build in of("build", commands):
        assert {*build.without} <= {*(by_rule.TASKS if build.clips else digits.TASKS)}, build.out


def test_findings_in_small_train_and_ask_something_in_each_run(started: Started) -> None:
    """0 steps would be all of an epoch's, 0 clips are refused."""
    recipe = next(r for r in RECIPES if r.name == "findings.sh")
    small = {"STEPS": "1", "TRAIN": "2", "CLIPS": "1", "WATCH": "1", "SEEDS": "0"}
    commands = started(recipe, ENGLISH="en", **small)
    trained = [run.max_steps for stage in ("sta", "grpo", "sft") for run in of(f"train {stage}", commands)]
    assert {*trained} == {1, 2}
    assert min(build.digits for build in of("build", commands) if not build.clips) >= 1


@pytest.mark.parametrize("name", ["mini.sh", "mini_en.sh", "mini_en_table.sh", "findings.sh"])
def test_a_recipe_goes_on_in_a_folder_that_has_its_questions(name: str, tmp_path: Path) -> None:
    """`tgsr build` refuses a folder that holds questions. The folder's name has a space in it."""
    recipe = next(r for r in RECIPES if r.name == name)
    names = {"RUNS": "my runs", "OUT": "my findings", "SEEDS": "0"}
    first = run(recipe, tmp_path, **names)
    for command in map(parsed, first):
        assert all(Path(path).name == "clips.jsonl" for path in getattr(command, "clips", None) or ())
    for build in of("build", first):
        (tmp_path / build.out / "questions.jsonl").write_text("")
    for done in tmp_path.glob("my findings/done/*"):  # killed before it was written down
        done.unlink()
    again = run(recipe, tmp_path, **names)
    assert again == [command for command in first if command[0] not in ("build", "transcribe")]


def test_findings_of_other_settings_are_not_gone_on_with(tmp_path: Path) -> None:
    recipe = next(r for r in RECIPES if r.name == "findings.sh")
    small = {"STEPS": "10", "TRAIN": "32", "CLIPS": "20", "WATCH": "4", "SEEDS": "0"}
    assert run(recipe, tmp_path, HOURS="0", **small) == []
    with pytest.raises(
        RuntimeError, match="was begun with STEPS=10 TRAIN=32 CLIPS=20 WATCH=4, this is STEPS=120"
    ):
        run(recipe, tmp_path, HOURS="0")
    assert run(recipe, tmp_path, HOURS="0", **{**small, "SEEDS": "0 1"}) == []
    (tmp_path / "runs" / "findings" / "settings").unlink()
    (tmp_path / "runs" / "findings" / "done" / "data-sta").write_text("0.1")
    with pytest.raises(RuntimeError, match="older version"):
        run(recipe, tmp_path, HOURS="0", **small)
    for name, value in (("HOURS", "0.5"), ("STEPS", "0"), ("CLIPS", "many")):
        with pytest.raises(RuntimeError, match=f"findings: {name}={value}: must be a whole number"):
            run(recipe, tmp_path, OUT="other", **{name: value})


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("paper_af3.sh", "QA_QUESTIONS"),
        ("paper_qwen_omni.sh", "QA_QUESTIONS"),
        ("ablations_paper.sh", "MELD"),
        ("data_paper.sh", "YOUTUBE"),
        ("mini_en.sh", "QUEEN"),
    ],
)
def test_what_is_not_given_is_told_before_anything_is_started(
    name: str, missing: str, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match=missing):
        run(next(r for r in RECIPES if r.name == name), tmp_path, **{missing: ""})
    assert (tmp_path / "commands").read_text() == ""


def test_a_judge_is_handed_on_where_there_is_one(started: Started) -> None:
    recipe = next(r for r in RECIPES if r.name == "ablations_paper.sh")
    judge = "http://127.0.0.1:8000/v1#Qwen/Qwen3-32B"
    assert {run.judge for run in of("behaviour", started(recipe, JUDGE=judge))} == {judge}


@pytest.mark.parametrize(
    "recipe", [r for r in RECIPES if r.name.startswith(("paper_", "ablations_paper"))], ids=lambda p: p.name
)
def test_the_papers_tables_are_in_its_presets(recipe: Path, started: Started) -> None:
    (sta,) = of("train sta", started(recipe))
    grpo = of("train grpo", started(recipe))[0]
    assert (sta.learning_rate, sta.warmup_share, sta.epochs, sta.bfloat16) == (2e-5, 0.03, 1, True)
    assert sta.clips_per_step * 8 == 4 * 4 * 8  # phrases: GPUs x a GPU x accumulations, 8 phrases a clip
    assert (grpo.learning_rate, grpo.warmup_share, grpo.epochs, grpo.bfloat16) == (5e-6, 0.03, 1, True)
    sampling = (grpo.group_size, grpo.temperature, grpo.top_p)
    assert (*sampling, grpo.beta, grpo.epsilon) == (8, 0.7, 0.9, 0.04, 0.2)
    assert grpo.prompts_per_step * grpo.group_size == 8 * 8 * 4
    assert (grpo.reward, grpo.answer_weight, grpo.grounding_weight, grpo.dense_weight) == (
        None,
        1,
        None,
        None,
    )
    assert REWARD_WEIGHTS[grpo.reward] == REWARD_WEIGHTS["paper"] == (1, 0)
    assert (grpo.compaction, grpo.k_ref, grpo.k_max, grpo.c_max, grpo.c_min) == (True, 1, 5, 0.5, 0.1)


def differences(runs: list[argparse.Namespace], base: argparse.Namespace) -> dict[str, dict[str, object]]:
    """By its folder's name, what each run is asked otherwise than the base."""
    return {
        Path(run.out).name: {
            name: value
            for name, value in vars(run).items()
            if name not in ("out", "run") and value != getattr(base, name)
        }
        for run in runs
    }


ABLATED = {
    "wo-grounding": {"grounding_weight": 0.0},
    "wo-compaction": {"compaction": False},
}


def test_an_ablation_differs_from_ours_in_its_one_setting(started: Started) -> None:
    recipe = next(r for r in RECIPES if r.name == "ablations_paper.sh")
    runs = of("train grpo", started(recipe, DENSE_CLIPS="dense.jsonl"))
    found = differences(runs, next(run for run in runs if Path(run.out).name == "ours"))
    found.pop("ours", None)
    dense = found.pop("dense")
    assert found == {"wo-grounding": {"grounding_weight": 0.0}, "wo-compaction": {"compaction": False}}
    assert set(dense) == {"reward", "clips"}


def test_all_variants_are_asked_the_same_and_stand_in_the_tables(started: Started) -> None:
    commands = started(next(r for r in RECIPES if r.name == "ablations_paper.sh"))
    predicted: dict[str, set[tuple[object, ...]]] = {}
    for run in of("predict", commands):
        if run.temperature == 0:
            predicted.setdefault(run.model, set()).add((run.questions, *run.only))
    assert len(set(map(frozenset, predicted.values()))) == 1
    assert len(predicted) == 6
    (tables,) = of("tables", commands)
    assert {row.partition("=")[2] for row in tables.row} == set(predicted)
    (sft,) = of("train sft", commands)
    assert sft.right_only
    assert sft.without_timestamps
    assert sft.model == "Qwen/Qwen2.5-Omni-7B"


def test_three_seeds_of_each_finding_differ_from_ours_in_one_setting_and_are_asked_the_same(
    started: Started,
) -> None:
    commands = started(next(r for r in RECIPES if r.name == "findings.sh"), ENGLISH="en")
    for arguments in commands:
        parsed(arguments)
    ours = {
        "grounded": {"reward": "grounded"},
        "without-grounding": {"grounding_weight": 0.0, "reward": None},
        "without-compaction": {"compaction": False, "reward": None},
        "strict": {"counter": "strict", "reward": None},
        "without-sta": {"model": "mini", "reward": None},
        "paper": {},
        "relisten": {"relisten": True},
    }
    runs = of("train grpo", commands)
    for seed in range(3):
        others = ("english", "gain")
        of_seed = [run for run in runs if run.seed == seed and not Path(run.out).name.startswith(others)]
        base = next(run for run in of_seed if Path(run.out).name == f"paper-{seed}")
        found = differences(of_seed, base)
        for changed in found.values():
            changed.pop("seed", None)
        clocked = found.pop(f"clock-grounded-{seed}")
        assert clocked.pop("model").endswith(f"options/clock-{seed}/adapter")
        assert clocked == ours["grounded"]
        assert found == {f"{name}-{seed}": changed for name, changed in ours.items()}
    asked: dict[str, dict[str, set[str]]] = {}
    for run in of("predict", commands):
        folder = Path(run.out).parent
        if folder.parent.name == "answers":
            asked.setdefault(folder.name, {}).setdefault(run.name, set()).add(run.questions)
    assert {world: len(models) for world, models in asked.items()} == {
        "digits": 3 + 3 * 11,
        "english": 1 + 3 * 3,
        "digits-sampled": 1 + 3 * 4,
        **{f"digits-gain-{gain}": 2 + 3 for gain in ("0", "0.5", "1")},
    }
    for models in asked.values():
        assert len({frozenset(questions) for questions in models.values()}) == 1
    again = {run.name for run in of("predict", commands) if run.relisten}
    assert again == {f"relisten-{seed}" for seed in range(3)}


OTHERS = sorted((Path(__file__).parent.parent / "recipes" / "other_trainers").glob("*.sh"))
BESIDE = r"""#!/bin/sh
printf '%s\n' "$(printf '%s\037' "$(basename "$0")" "$@")" >> "$LOG"
[ "$(basename "$0") $1" = "tgsr export" ] && echo "rewards: $PLUGIN; 2 are without their clip's words"
exit 0
"""


@pytest.mark.parametrize("recipe", OTHERS, ids=lambda path: path.stem)
def test_another_trainer_gets_our_file_our_reward_and_the_papers_numbers(
    recipe: Path, tmp_path: Path
) -> None:
    for program in ("tgsr", "swift", "trl", "python3", "uv"):
        stand_in = tmp_path / "bin" / program
        stand_in.parent.mkdir(exist_ok=True)
        stand_in.write_text(BESIDE)
        stand_in.chmod(0o755)
    given = {"QA_QUESTIONS": "qa/questions.jsonl", "VAL_QUESTIONS": "val/questions.jsonl", "MODEL": "m"}
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    env = {
        "PATH": path,
        "LOG": str(tmp_path / "log"),
        "PLUGIN": "/p/tgsr_ms_swift.py",
        "IT_HEARS": "yes",
        **given,
    }
    subprocess.run(["bash", str(recipe)], cwd=tmp_path, env=env, check=True, timeout=120, capture_output=True)
    lines = (tmp_path / "log").read_text().splitlines()
    (program, *first), *rest = [line.rstrip("\x1f").split("\x1f") for line in lines]
    assert program == "tgsr"
    exported = parsed(first)
    target = "verl" if recipe.stem == "verl_omni" else recipe.stem.replace("_", "-")
    assert (exported.to, exported.kind) == (target, "choice")
    for name, *arguments in rest:
        if name == "tgsr":
            assert str(parsed(arguments).out).startswith("runs/")
    (trainer,) = [words for words in rest if words[0] != "tgsr"]
    asked = " ".join(trainer)
    assert str(exported.out) in asked or str(exported.out.parent) in asked
    assert {"0.7", "0.9", "5e-6", "8"} <= {word.rpartition("=")[2] for word in trainer}
    names = trainer[trainer.index("--reward_funcs") + 1 :][:2] if "--reward_funcs" in trainer else []
    if recipe.stem == "ms_swift":
        assert trainer[trainer.index("--external_plugins") + 1] == "/p/tgsr_ms_swift.py"
        assert {f"tgsr_{term}" for term in TERMS} >= set(names)
    elif recipe.stem == "trl":
        assert [name.rpartition(".")[0] for name in names] == ["tgsr.data.plugins.tgsr_trl"] * 2
        assert all(name.rpartition(".")[2] in TERMS for name in names)
    else:
        assert f"tgsr.data.plugins.{plugins.FILES[target].removesuffix('.py')}" in asked
        assert any(word.endswith("reward=paper") for word in trainer)


def test_trl_is_not_started_on_a_model_that_would_not_hear(tmp_path: Path) -> None:
    recipe = next(path for path in OTHERS if path.stem == "trl")
    done = subprocess.run(
        ["bash", str(recipe)], cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True
    )
    assert done.returncode != 0
    assert b"trains without the sound" in done.stderr

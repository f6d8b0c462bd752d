"""Help says what is there, and commands start at once: what none may import, and the time until it says something.

That is seen in fresh processes, because this one has imported everything.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

from local_server import Reply, chat_answer, serving
from studies import predictions
from test_cascade import require
from tgsr import cli
from tgsr.data.corpora.spoken_english import sentences
from tgsr.models.packaged_weights import cache_folder
from tgsr.pages.study.design import make_study
from tgsr.pages.study.store import MEASURES, RATINGS, Store
from tgsr.records import read_responses, write_jsonl

HEAVY = {"torch", "transformers", "numpy", "matplotlib"}
STEPS = {"train": ["base", "sta", "grpo", "sft"], "study": ["make", "serve", "analyse", "size"]}
COMMANDS = [
    [name, *step]
    for group in cli.GROUPS.values()
    for name in group
    for step in ([[step] for step in STEPS[name]] if name in STEPS else [[]])
]
READ_A_FILE = (
    *("score", "import", "rewards", "behaviour", "look", "report", "tables"),
    *("transcribe", "study make", "study analyse"),
)
READ_QUESTIONS = ("predict", "attend", "control", "train sta", "train grpo")
RUN = """
import json, sys
sys.modules.update(dict.fromkeys(sys.argv[3].split()))  # as if they were not installed
from tgsr import cli
heavy, results = set(sys.argv[1].split()), []
for words in json.loads(sys.argv[2]):
    try:
        code = cli.main(words.split())
    except SystemExit as stopped:
        code = stopped.code
    results.append((words, code, sorted(heavy & set(sys.modules))))
print(json.dumps(results), file=sys.stderr)
"""


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words, "--help"])
    assert stopped.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, *words)
    assert f"example: tgsr {' '.join(words)}" in text
    for not_typed in ("None", "False", "[", "("):
        assert f"(default: {not_typed}" not in text


def test_help_begins_with_what_a_newcomer_needs(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys)
    assert "first steps: demo The whole story" in text
    places = [
        text.index(f" {group}: ") for group in ("first steps", "ask", "data", "train", "evaluate", "look")
    ]
    assert places == sorted(places)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"tgsr {version('tgsr')}\n"


def results_of(
    commands: list[str], heavy: set[str], folder: Path, missing: Sequence[str] = ()
) -> tuple[list[tuple[str, int, list[str]]], str]:
    """Each command, its exit code, and what is imported by then; one process runs them one after the other.

    Also what they said on stderr. Packages that are `missing` cannot be imported there.
    """
    words = [sys.executable, "-c", RUN, " ".join(heavy), json.dumps(commands), " ".join(missing)]
    environment = {**os.environ, "TGSR_CACHE": str(folder / ".cache")}
    finished = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=900, env=environment)
    assert finished.returncode == 0, finished.stderr
    *said, results = finished.stderr.splitlines()
    return [tuple(result) for result in json.loads(results)], "\n".join(said)


def test_help_and_what_is_wrong_import_nothing_heavy(tmp_path: Path) -> None:
    helps = [
        "",
        "--help",
        "--version",
        "ask --help-all",
        *(f"{' '.join(words)} --help" for words in COMMANDS),
    ]
    typos = [
        "scroe",
        "score --typo",
        "train grop",
        "control --conditions louder",
        "transcribe x --corpus y",
    ]
    missing = [f"{name} gone.jsonl --out out" for name in READ_A_FILE]
    missing += [f"{name} --questions gone.jsonl --model mini --out out" for name in READ_QUESTIONS]
    missing += [
        "build sta --clips gone.jsonl --out out",
        "pack gone.jsonl --to parquet --out out",
        "export gone.jsonl --to trl --out out",
        "train sft --responses gone.jsonl --out out",
        "ask gone.wav When?",
        "view gone",
        "study serve gone",
    ]
    results, _ = results_of([*helps, *typos, *missing], HEAVY, tmp_path)
    assert results == [(words, 0, []) for words in helps] + [(words, 2, []) for words in (*typos, *missing)]
    assert list(tmp_path.iterdir()) == []


def test_what_needs_no_model_works_where_its_packages_are_not_installed(tmp_path: Path) -> None:
    file = predictions(tmp_path)
    questions = {response.question.id: response.question for response in read_responses(file, several=True)}
    write_jsonl(tmp_path / "questions.jsonl", questions.values())
    study = make_study([file], tmp_path / "study", n_items=4)
    store = Store.open(tmp_path / "study" / RATINGS, study.id)
    for measure in MEASURES:
        store.add(store.join("yes")[0], next(iter(study.trials)), measure, 4, 1.0, 1)
    commands = [
        "score predictions.jsonl --out metrics.json",
        "import questions.jsonl --map response=question --model m --out imported.json",
        "report . --out report",
        "tables . --out tables",
        "look questions.jsonl --out look",
        *(
            f"export questions.jsonl --to {target} --out {target}.jsonl"
            for target in ("trl", "ms-swift", "nemo-rl")
        ),
        "export trl.jsonl --to trl --back --out back.jsonl",
        "study make predictions.jsonl --items 4 --out another",
        "study analyse study --out analysis",
        "study size",
    ]
    no_port = "study serve study --port 99999"  # which is said when all is imported
    refused = ["predict --questions questions.jsonl --model mini --out p.jsonl", "ask 0.wav When?"]
    refused += ["behaviour predictions.jsonl --out b", no_port]
    with serving(lambda got, n: Reply(chat_answer("1"))) as server:
        commands.append(f"behaviour predictions.jsonl --judge {server.url}/v1#j --out behaviour")
        results, said = results_of([*commands, *refused], set(), tmp_path, cli.HEAVY)
        assert server.got
    assert results == [(words, 0, []) for words in commands] + [(words, 2, []) for words in refused]
    for name in ("predict", "ask"):
        assert re.search(rf"tgsr {name}: needs \w+, which is not installed; `pip install .`", said), said
    assert "Audiology Verify is left out: it needs faster-whisper" in said
    assert "--no-verify leaves it out" in said


def test_a_recording_is_heard_asked_about_and_outlined_without_torch(tmp_path: Path) -> None:
    needed = ("whisper-base", "all-minilm-l6-v2")
    for name in needed:
        require(name)
        (tmp_path / ".cache").mkdir(exist_ok=True)
        (tmp_path / ".cache" / name).symlink_to(cache_folder() / name)
    sound = sentences().with_name("730-358-0000.opus")
    commands = [
        f"ask {sound} remember?",
        f"ask {sound} remember --phrase --model cascade",
        f"outline {sound}",
    ]
    results, said = results_of(commands, {"torch", "transformers"}, tmp_path)
    assert results == [(words, 0, []) for words in commands], said


def test_a_name_that_is_not_utf_8_is_written_with_escapes() -> None:
    program = "import sys; from tgsr.cli import main; main([]); print(sys.argv[1])"
    name = os.fsdecode(b"caf\xe9")
    command = [sys.executable, "-c", program, name]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"})
    assert done.stdout.endswith(b"caf\\udce9\n"), done.stderr


def test_the_light_installation_is_part_of_the_whole_one() -> None:
    folder = Path(__file__).parents[1]
    light = [line for line in (folder / "requirements-light.txt").read_text().splitlines() if line[0] != "#"]
    whole = (folder / "pyproject.toml").read_text()
    assert [line for line in light if f'"{line}"' not in whole] == []
    assert not {line.split(">")[0].replace("-", "_") for line in light} & {*cli.HEAVY}


def test_bash_completes_commands_steps_flags_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    cases = [
        ["sc"],
        ["train", "st"],
        ["train", "sta", "--ques"],
        ["export", "--to", "v"],
        ["completion", "f"],
    ]
    for words in cases:
        given = " ".join(["tgsr", *words])
        script += f'COMP_WORDS=({given}); COMP_CWORD={len(words)}; _tgsr; echo "${{COMPREPLY[*]}}"\n'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["score", "sta", "--questions", "verl", "fish"]


def test_help_leaves_to_help_all_what_programs_give(capsys: pytest.CaptureFixture[str]) -> None:
    short = help_of(capsys, "ask")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["ask", "--help-all"])
    assert stopped.value.code == 0
    whole = " ".join(capsys.readouterr().out.split())
    assert ("--at-once" in short, "--at-once" in whole, "--choice" in short) == (False, True, True)


def test_threads_wait_as_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert cli.main(["study", "size"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "active"
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    assert cli.main(["study", "size"]) == 0
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"]) == ("passive", "5")


def processor_seconds(*words: str) -> float:
    """What a fresh Python spends on these words, user and system: the least of up to five tries."""
    compiled = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # as any start but the first
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], capture_output=True, timeout=60, env=compiled)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    ("words", "bar"),
    [("--help", 0.25), ("scroe", 0.25), ("score gone.jsonl --out out", 0.5), ("train grpo --help", 0.5)],
)
def test_processor_time_until_it_says_something(words: str, bar: float) -> None:
    bare = min(processor_seconds("-c", "import argparse, dataclasses, pathlib, typing") for _ in range(3))
    bar *= max(1.0, bare / 0.1)  # a slow machine has more
    assert any(processor_seconds("-m", "tgsr.cli", *words.split()) <= bar for _ in range(5))

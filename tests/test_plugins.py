"""Other trainers, with our plug-ins, pay what `tgsr train grpo` pays for the same hundred responses."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from answered import WORDS, asked, responses
from parity.plugins import ASKED_OF, SETTINGS, answered
from tgsr import cli
from tgsr.choices import correct_letter
from tgsr.data import plugins
from tgsr.data.other_trainers import KEPT, import_back, kept, kept_in, known_words, to_trl, to_verl
from tgsr.data.plugged_rewards import ASKED
from tgsr.data.plugins import tgsr_trl
from tgsr.data.plugins.tgsr_verl import compute_score
from tgsr.engine.features import KeptFeatures
from tgsr.engine.sampling import Sampled
from tgsr.errors import OptionError, RecordError
from tgsr.records import Clip, write_jsonl
from tgsr.rl import Prompted, rollouts_of
from tgsr.timeline import Span
from tgsr.training.config import GrpoConfig
from tgsr.training.terms import reward_terms
from tiny import tiny_lalm

RECORDED = json.loads((Path(__file__).parent / "parity" / "plugins.json").read_text(encoding="utf-8"))
CHOICE = asked()[0]
TRUE = responses(CHOICE)[0]


@pytest.fixture(scope="module")
def ours() -> dict[str, list[float]]:
    """What stage 2's own loop pays, from the tokens that were sampled on."""
    lalm = tiny_lalm()
    drawn = [Sampled(tuple(lalm.tokens(text)), False, (), "") for _, text in answered()]
    assert [lalm.text(list(sampled.ids)) for sampled in drawn] == [text for _, text in answered()]
    unheard = cast(KeptFeatures, None)  # rewards do not listen
    prompts = [Prompted(question, unheard, (), (), WORDS) for question in asked()]
    earned = {}
    for name, settings in SETTINGS.items():
        config = GrpoConfig(questions="", group_size=10, **settings)
        rollouts = rollouts_of(lalm, prompts, drawn, reward_terms(config), config)
        earned[name] = [rollout.reward for rollout in rollouts]
    return earned


@pytest.mark.parametrize("reward", SETTINGS)
@pytest.mark.parametrize("trainer", RECORDED)
def test_what_a_trainer_was_seen_to_pay_is_what_our_loop_pays(
    trainer: str, reward: str, ours: dict[str, list[float]]
) -> None:
    """tests/parity/plugins.py wrote it down, with each trainer's own loader; theirs are float32."""
    assert len(ours[reward]) == 100
    assert RECORDED[trainer][reward] == pytest.approx(ours[reward], abs=1e-6)


def test_the_hundred_responses_tell_the_rewards_apart(ours: dict[str, list[float]]) -> None:
    assert len({tuple(values) for values in ours.values()}) == len(ours)
    assert all(len(set(values)) > 4 for values in ours.values())


@pytest.mark.parametrize("trainer", ASKED_OF)
def test_a_trainer_that_is_installed_pays_it_now(
    trainer: str, ours: dict[str, list[float]], tmp_path: Path
) -> None:
    package, ask = ASKED_OF[trainer]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{trainer} is not installed here: tests/parity/plugins.py says how it was asked")
    for reward, earned in ask(tmp_path, tmp_path / "logs").items():
        assert earned == pytest.approx(ours[reward], abs=1e-6)


def test_no_plugin_hides_a_package() -> None:
    """ms-swift puts the plug-in's folder before all others that Python imports from."""
    folder = Path(plugins.__file__).parent
    assert {path.name for path in folder.glob("*.py")} == {"__init__.py", *plugins.FILES.values()}
    assert all(name.startswith("tgsr_") for name in plugins.FILES.values())


def test_rewards_need_no_package_that_a_trainer_has_in_another_version() -> None:
    code = (
        "import sys, tgsr.data.plugins.tgsr_verl, tgsr.data.plugins.tgsr_trl\n"
        "print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code_with_path(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) - {"tgsr", "__main__", "typing_extensions"} <= {"msgspec", "safetensors"}


def code_with_path(code: str) -> str:
    """The code with this process's places of packages: without `site`, none of them is imported by a .pth file."""
    return f"import sys; sys.path[:] = {sys.path!r}\n{code}"


# --- rows ---------------------------------------------------------------------------------------------------------


def asked_of_verl(text: str = TRUE, **settings: Any) -> dict[str, Any]:
    row = to_verl(CHOICE, "/a.wav", "qwen_omni", 0, WORDS)
    truth = row["reward_model"]["ground_truth"]
    return compute_score(row["data_source"], text, truth, row["extra_info"], **settings)


def test_verl_gets_the_terms_beside_their_sum_and_the_question() -> None:
    result = asked_of_verl(reward="dense")
    terms = ("answer", "timestamp_grounding", "dense_grounding")
    assert result["score"] == pytest.approx(sum(result[name] for name in terms))
    assert result["acc"] == result["answer"] == 1.0
    assert kept_in(result[ASKED]) == (CHOICE, None)
    columns = to_verl(CHOICE, "/a.wav", "qwen_omni", 0, WORDS).keys()
    assert not result.keys() & columns  # verl joins both and refuses what is in them twice
    assert "reward" not in result  # verl's validation has one of its own and would add this to it
    empty = asked_of_verl("", reward="dense")
    assert list(empty) == list(result)  # verl takes the first response's keys for all
    assert None not in empty.values()


def test_verls_reward_kwargs_are_settings_of_the_loop() -> None:
    twice = f"From 1 to 2 seconds: ({correct_letter(CHOICE)})"  # two mentions of one interval
    assert asked_of_verl(twice)["score"] == 1.0 + 0.4
    assert asked_of_verl(twice, counter="strict")["score"] == 1.0 + 0.5
    assert asked_of_verl(answer_weight=2.0, grounding_weight=0.0)["score"] == 2.0
    with pytest.raises(OptionError, match="--k-ref"):
        asked_of_verl(k_ref=7)
    with pytest.raises(TypeError, match="k_reff"):
        asked_of_verl(k_reff=7)


@pytest.mark.parametrize(
    ("stored", "reward", "message"),
    [
        (None, "paper", "no such column: .*`tgsr export`"),
        ("{}", "paper", "is no question"),
        (kept(CHOICE), "grounded", r"question 'q0' is without the words.*export again with --clips"),
        (kept(replace(CHOICE, evidence=()), ()), "dense", "question 'q0' is without the words"),
        (
            kept(replace(CHOICE, kind="phrase", phrase="at ten", evidence=(Span(1, 2),))),
            "paper",
            r"'q0' is a phrase.*--kind choice",
        ),
    ],
)
def test_a_row_that_cannot_be_rewarded_is_an_error_and_not_0(stored: Any, reward: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        compute_score("tgsr/choice", TRUE, "b", {KEPT: stored}, reward=reward)


def test_a_silent_clip_is_judged_by_its_evidence() -> None:
    silent = kept(replace(CHOICE, evidence=(Span(1, 2),)), ())
    assert compute_score("", "From 1 s to 2 s there is a pause. (c)", "", {KEPT: silent}, reward="dense")


def test_trl_calls_it_with_messages_and_logs_the_question() -> None:
    row = to_trl(CHOICE, "/a.wav", "qwen_omni", WORDS)
    columns = {name: [row[name]] * 2 for name in (KEPT, "label")}
    said = [[{"role": "assistant", "content": text}] for text in (TRUE, "")]
    logged: dict[str, list[str]] = {}
    more = {"log_extra": logged.__setitem__, "trainer_state": None, "prompts": [row["prompt"]] * 2}
    assert tgsr_trl.answer(completions=said, **columns, **more) == [1.0, 0.0]
    assert [kept_in(one) for one in logged[ASKED]] == [(CHOICE, None)] * 2
    assert tgsr_trl.place(completions=said, **columns) == [pytest.approx(0.5), 0.0]
    for name in ("timestamp_grounding", "place", "dense_grounding", "answer_strict"):
        assert getattr(tgsr_trl, name).__name__ == name  # its column in the log
    with pytest.raises(RecordError, match="no such column"):
        tgsr_trl.answer_strict(completions=said)


# --- the command --------------------------------------------------------------------------------------------------


def test_export_takes_the_words_beside_the_questions_and_names_the_plugin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "questions.jsonl", asked())
    for question in asked():
        (tmp_path / question.audio).touch()
    clips = [Clip(f"c{n}", f"a{n}.wav", 6.5, WORDS) for n in range(9)]
    write_jsonl(tmp_path / "clips.jsonl", [*clips, Clip("c9", "a9.wav", 6.5)])
    assert known_words(clips) == {f"c{n}": WORDS for n in range(9)}
    out = tmp_path / "swift.jsonl"
    assert cli.main(["export", str(tmp_path / "questions.jsonl"), "--to", "ms-swift", "--out", str(out)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{out}: 10 questions"
    path, _, rest = second.removeprefix("rewards: ").partition(";")
    assert Path(path).read_text(encoding="utf-8").startswith('"""ms-swift')
    assert rest == " 1 are without their clip's words, for the paper's reward only"
    rows = [json.loads(line)[KEPT] for line in out.read_text(encoding="utf-8").splitlines()]
    assert [kept_in(row)[1] for row in rows] == [WORDS] * 9 + [None]
    assert list(import_back(out, "ms-swift")) == asked()


def test_export_says_which_sound_is_not_there_and_finds_what_has_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trainer finds out a step, or a night, later."""
    write_jsonl(tmp_path / "questions.jsonl", [*asked(), replace(CHOICE, id="again")])
    (tmp_path / "moved").mkdir()
    for question in asked()[:7]:
        (tmp_path / "moved" / question.audio).touch()
    command = [
        "export",
        str(tmp_path / "questions.jsonl"),
        "--to",
        "trl",
        "--out",
        str(tmp_path / "out.jsonl"),
    ]
    assert cli.main(command) == 0
    gone = "11 questions; of 10 sound files 10 are not there: --audio FOLDER says where they lie now"
    assert gone in capsys.readouterr().out
    assert cli.main([*command, "--audio", str(tmp_path / "moved")]) == 0
    assert "of 10 sound files 3 are not there" in capsys.readouterr().out
    row = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert row["prompt"][-1]["content"][0]["audio"] == str(tmp_path / "moved" / CHOICE.audio)

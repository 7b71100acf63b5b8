"""The command line as a person meets it: quick help, one clear line for bad input, nothing written too early."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs.settings.training import DpoStage
from flows.cli import main, parser
from flows.single import single_stage
from flows.terminal import duration, interval, metrics_text, number

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERIVE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DERIVE_MACHINE", "cpu")


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a rejected command."""
    assert main(words) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1, text
    return text.removeprefix("error: ").strip()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "math/tinny"], "math/tinny.*math/tiny"),
        (["math", "--set", "rl.stepps=3"], "rl.stepps.*steps"),
        (["math", "--set", "rl.steps=many"], "rl.steps.*many"),
        (["math", "--set", "nonsense"], "--set: 'nonsense' is no override"),
        (["math", "--base", "/no/such/folder"], "base: '/no/such/folder' is no folder"),
        (["math", "--machine", "abacus"], "machine: 'abacus' is no machine profile"),
        (["plan", "nowhere.yaml"], "nowhere.yaml"),
        (["sft", "missing.jsonl"], r"DATA: .*missing.jsonl does not exist"),
        (["sft", "data.csv"], "DATA: .*does not end in .jsonl"),
        (["evaluate", "seedling", "--tasks", "gsm9k"], "gsm9k.*gsm8k"),
        (["evaluate", "seedling", "--tasks", "reasoning_gym/gcd", "--verifier", "maths"], "maths.*math"),
        (["evaluate", "/no/model", "--tasks", "reasoning_gym/gcd"], "base: '/no/model' is no folder"),
        (["chat", "/no/model", "-p", "hi"], "base: '/no/model' is no folder"),
        (["chat", "seedling", "-p", " "], "--prompt: empty"),
        (["report"], "there are no runs"),
        (["adopt", "sft", "--preset", "math/tiny", "--why", " "], "--why: empty"),
        (["adopt", "sfd", "--preset", "math/tiny", "--why", "x"], "STAGE: 'sfd' is no stage of math/tiny"),
        (
            ["adopt", "sft", "--preset", "math/tiny", "--why", "x"],
            "sft: nothing in .* differs from it in the code alone",
        ),
        (["show", "math/tiny", "--fields", "soft"], "soft"),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2_and_an_untouched_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert re.search(message, error_of(capsys, *words))
    assert not (tmp_path / "store").exists()


def test_broken_data_for_one_stage_is_told_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "1 + 1", "completion": "2"}\n{"prompt": "1 +')
    assert "data.jsonl:2: not JSON" in error_of(capsys, "sft", str(path))
    path.write_text('{"text": "abc"}\n')
    assert "allowed: 'prompt' and 'answer'" in error_of(capsys, "rl", str(path))
    assert "allowed: 'prompt' and 'chosen' and 'rejected'" in error_of(capsys, "dpo", str(path))


def test_preference_pairs_train_without_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "1 + 1", "chosen": "2", "rejected": "3"}\n')
    recipe = single_stage("dpo", path, "seedling", ["dpo.beta=0.2"])
    assert isinstance(stage := recipe.stage("dpo"), DpoStage)
    assert (stage.data, stage.beta, stage.learning_rate) == ((str(path),), 0.2, 1e-4)


def test_a_number_out_of_range_is_told_by_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--samples", "-1"], "argument --samples: -1 is out of range; allowed: at least 0"),
        (["--limit", "0"], "argument --limit: 0 is out of range; allowed: at least 1"),
        (["--limit", "many"], "argument --limit: invalid number value: 'many'"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["evaluate", "seedling", "--tasks", "gsm8k", *words])
        said = capsys.readouterr().err
        assert end.value.code == 2 and message in said and said.startswith("error: ") and said.count("\n") == 1


def test_a_store_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "Not a directory; free space there, or give another folder with --store" in error_of(
        capsys, "run", "math/smoke", "--store", str(tmp_path / "file" / "store"), "--no-prefect"
    )
    assert "/proc/store" in error_of(capsys, "run", "math/smoke", "--store", "/proc/store")


def test_an_existing_out_folder_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "1 + 1", "completion": "2"}\n')
    assert "--out: " in error_of(capsys, "sft", str(path), "--out", str(tmp_path))


def test_help_is_quick_and_teaches_by_examples() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flows.cli", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "derive math --set rl.steps=80" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert loaded & {"prefect", "pydantic", "torch", "rich", "yaml"} == set()


def test_every_command_has_help_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    names = next(action.choices for action in parser()._actions if hasattr(action, "choices") and action.choices)
    for name in names:
        with pytest.raises(SystemExit) as end:
            main([name, "--help"])
        assert end.value.code == 0
        assert f"usage: derive {name}" in capsys.readouterr().out


def test_plan_lists_the_stages_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "math/tiny", "--no-probe", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["id"] for stage in planned] == [
        "corpus",
        "pretrain",
        "examples",
        "known",
        "rehearsal",
        "sft",
        "problems",
        "rl",
        "evaluate",
        "release",
    ]
    assert planned[5]["command"][1:3] == ["-m", "derivatives.sft"]
    assert {stage["state"] for stage in planned} == {"to build"}
    assert not (tmp_path / "store").exists()


def test_plan_writes_stage_files_that_can_be_run_by_hand_one_after_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from configs.stage import load_stage_file

    assert main(["plan", "math/tiny", "--no-probe", "--out", str(tmp_path / "stages")]) == 0
    described = load_stage_file(tmp_path / "stages" / "sft.json")
    assert described.inputs["examples"].path == str(tmp_path / "stages" / "examples")
    assert f"-m derivatives.sft {tmp_path}/stages/sft.json {tmp_path}/stages/sft" in capsys.readouterr().out
    assert not (tmp_path / "store").exists()


def test_a_launcher_stands_before_stages_that_train_or_draw(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "math/7b", "--machine", "eight-gpu", "--json"])  # refused where the disk is small
    commands = {stage["id"]: stage["command"] for stage in json.loads(capsys.readouterr().out)["stages"]}
    for name in ("sft", "rl", "evaluate"):
        assert commands[name][:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert commands["release"][:3] == [sys.executable, "-m", "derivatives.release"]
    assert commands["corpus"][:3] == [sys.executable, "-m", "corpora.build"]


def test_the_shown_recipe_can_be_planned_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "math/tiny", "--set", "rl.steps=7"]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    assert main(["show", str(tmp_path / "mine.yaml")]) == 0
    assert "steps: 7" in capsys.readouterr().out


def test_presets_and_runs_speak_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--json"]) == 0
    assert "math/tiny" in [preset["name"] for preset in json.loads(capsys.readouterr().out)]
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_the_command_refuses_to_start_when_another_verifiers_package_is_in_front(tmp_path: Path) -> None:
    (tmp_path / "verifiers").mkdir()
    (tmp_path / "verifiers" / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "presets"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        check=False,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: package verifiers: found in ")


def test_figures_are_written_for_people() -> None:
    assert [number(value) for value in (0.12345, 12.5, 1234.5, 1000, float("nan"))] == [
        "0.123",
        "12.5",
        "1,234",
        "1,000",
        "nan",
    ]
    assert [duration(seconds) for seconds in (4.24, 185, 7800)] == ["4.2 s", "3 min 05 s", "2 h 10 min"]
    assert interval({"value": 0.275, "low": 0.256, "high": 0.295}) == "27.5% [25.6, 29.5]"
    assert interval({"value": 0.05, "low": -0.01, "high": 0.11}, sign=True) == "+5.0 points [-1.0, +11.0]"
    assert interval(None) == "-"
    line = {
        "step": 3,
        "total": 9,
        "seconds": 2.0,
        "rl/a": 1.0,
        "rl/length": 21,
        "note": "x",
        "rl/reward": 0.5,
        "rl/b": 2.0,
    }
    assert metrics_text(line) == "reward 0.5  length 21  a 1"


def test_a_stages_message_names_its_fields_by_the_stages_id() -> None:
    from configs.load import load_recipe
    from flows.plan import PlannedStage
    from flows.stages import _by_its_id

    planned = PlannedStage(load_recipe("math/smoke").stage("sft"), "derivatives.sft", "", "", {}, "base", {}, None)
    assert _by_its_id(planned, "stage.epochs: 0; raise stage.epochs") == "sft.epochs: 0; raise sft.epochs"
    assert _by_its_id(planned, "sft.epochs: 0") == "sft.epochs: 0"
    assert _by_its_id(planned, "data: /x/stage.json is empty") == "sft: data: /x/stage.json is empty"

"""The tutorial of `verifiers/README.md`, followed as a reader would: its files written, its commands run, elsewhere.

The environment is a fresh one that sees this checkout and the packages of the tests' own Python, so that nothing is
downloaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.cli import parser
from verifiers.api import Outcome, Task
from verifiers.cases import read_cases
from verifiers.new import write_package
from verifiers.plain import verdict_of

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "verifiers" / "README.md").read_text(encoding="utf-8")
TUTORIAL = README[README.index("## Write one in ten minutes") : README.index("## What `verify` may return")]
SECONDS = 1500.0
"""For each command, on a crowded machine."""


@dataclass(frozen=True)
class Step:
    """A file to write, or commands to run where `path` is empty."""

    path: str
    text: str


def steps(text: str) -> list[Step]:
    """All fenced blocks in order; one that is no command stands under the path of its file."""
    found = []
    for match in re.finditer(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        above = text[: match.start()].rstrip().rpartition("\n")[2]
        path = re.fullmatch(r"`([\w./]+)`", above)
        assert (match[1] == "sh") == (path is None), above
        found.append(Step(path[1] if path else "", match[2]))
    return found


def commands() -> list[list[str]]:
    return [shlex.split(line) for step in steps(TUTORIAL) if not step.path for line in step.text.splitlines()]


def test_its_files_are_those_of_the_package_and_its_cases_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_package("even")
    for step in steps(TUTORIAL):
        if step.path:
            assert (tmp_path / step.path).exists() == step.path.startswith("even/")
            (tmp_path / step.path).write_text(step.text)
    monkeypatch.syspath_prepend(str(tmp_path / "even"))
    module = importlib.import_module("even_verifier")
    cases = read_cases(tmp_path / "even" / "even_verifier" / "cases.jsonl")
    assert [verdict_of(module.verify(case.completion, case.task)).outcome for case in cases] == [
        case.expect for case in cases]
    expected = [case.expect.value for case in cases]
    assert f"{expected.count('correct')} correct, {expected.count('incorrect')} incorrect" in TUTORIAL
    assert verdict_of(module.verify("\\boxed{24}", Task("1", "", "3"))).score == 0.5
    assert verdict_of(module.verify("\\boxed{24}", Task("1", "", "few"))).outcome is Outcome.NO_VERDICT
    assert all(json.loads(line)["answer"] in "123" for line in (tmp_path / "problems.jsonl").read_text().splitlines())


def test_its_commands_are_ones_that_there_are() -> None:
    named = [words for words in commands() if words[0] == "derive"]
    assert len(named) >= 5
    for words in named:
        assert parser().parse_args(words[1:]).run
    assert [words for words in commands() if words[0] != "derive"] == [["pip", "install", "--editable", "even"]]


def test_the_class_and_the_composite_work_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "even_verifier"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    blocks = [text for text in re.findall(r"```py\n(.*?)```", README, re.DOTALL) if text.startswith("# even/")]
    targets = {}
    for text in blocks:
        path, name, value = re.match(r"# even/(\S+) +(\w+) = \"(\S+)\"\n", text).groups()  # type: ignore[union-attr]
        (tmp_path / path).write_text(text)
        targets[name] = value
    assert set(targets) == {"even_typed", "think_even"}
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in [module for module in sys.modules if module.partition(".")[0] == "even_verifier"]:
        monkeypatch.delitem(sys.modules, module)
    made = {}
    for name, value in targets.items():
        module, _, attribute = value.partition(":")
        made[name] = getattr(importlib.import_module(module), attribute)()
        assert made[name].name == name
    task = Task("1", "Give an even number with 3 digits.", "3")
    judged = [made["even_typed"].judge(task, f"\\boxed{{{number}}}") for number in ("248", "247", "24", "048")]
    assert [(verdict.outcome.value, verdict.score, verdict.reason) for verdict in judged] == [
        ("correct", 1.0, "even"), ("incorrect", 0.0, "odd"), ("incorrect", 0.5, "wrong_length"),
        ("incorrect", 0.0, "not_a_number")]
    behind = [made["think_even"].judge(task, text) for text in ("<think>a</think>\\boxed{24}", "\\boxed{24}")]
    assert [verdict.score for verdict in behind] == [pytest.approx(0.4 * 0.5), 0.0]
    assert made["think_even"].judge(task, "<think>a</think>\\boxed{248}").outcome is Outcome.CORRECT


@pytest.fixture
def fresh(tmp_path: Path) -> dict[str, str]:
    """The variables of a new environment in which `derive` and `pip` are there and nothing is downloaded."""
    if missing := [name for name in ("pip", "setuptools") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{' and '.join(missing)} would install the tutorial's package, and this Python lacks it")
    home = tmp_path / "environment"
    venv.create(home)
    [site] = home.glob("lib/python*/site-packages")
    (site / "factory.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n{ROOT}\n")
    for name, target in (("derive", "flows.cli:entry"), ("pip", "pip._internal.cli.main:main")):
        module, _, function = target.partition(":")
        script = home / "bin" / name
        call = f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n"
        script.write_text(f"#!{home / 'bin' / 'python'}\n{call}")
        script.chmod(0o755)
    left_out = ("DERIVE_STORE", "PYTHONPATH", "PIP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {**kept, **offline, "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(home)}


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
def test_followed_word_for_word_it_ends_in_a_certified_reward(tmp_path: Path, fresh: dict[str, str]) -> None:
    folder = tmp_path / "new"
    folder.mkdir()

    def run(command: str) -> str:
        done = subprocess.run(["bash", "-ec", command], cwd=folder, env=fresh, capture_output=True, text=True,
                              timeout=SECONDS)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    said = ""
    for step in steps(TUTORIAL):
        if step.path:
            (folder / step.path).write_text(step.text)
        else:
            said += run(step.text)
    assert "even: certified" in said and "correct: 40.0%" in said
    [row] = [each for each in json.loads(run("derive verifiers list --json")) if each["name"] == "even"]
    assert (row["version"], row["origin"], row["certified"]) == ("0.1.0", "even-verifier 0.1.0", True)
    assert row["about"].startswith("the last \\boxed{...} holds an even number")
    [finished] = (folder / ".derive").glob("*/*/metrics.json")
    with (finished.parent / "progress.jsonl").open() as file:
        solved = [json.loads(line)["rl/solved_fraction"] for line in file]
    assert len(solved) == 12 and sum(solved[-6:]) > sum(solved[:3]) * 2, solved
    with (finished.parent / "rollouts.jsonl").open() as file:
        rows = [json.loads(line) for line in file]
    assert {"even", "odd", "wrong_length"} <= {row["reason"] for row in rows}
    assert not [row for row in rows if row["outcome"] == "no_verdict"]
    choices = run("python -c 'from flows.derive import verifier_choices; print(*verifier_choices())'")
    assert "even" in choices.split()
    assert "passed" in run("cd even && python -m pytest -q -p no:cacheprovider")
    project = tomllib.loads((folder / "even" / "pyproject.toml").read_text())
    assert project["project"]["version"] == row["version"]


def test_every_file_that_the_page_names_exists() -> None:
    for name in re.findall(r"`([a-z_]+(?:\.py|/))`", README[README.index("## What is here") :]):
        assert (ROOT / "verifiers" / name).exists(), name


def test_every_file_of_the_folder_is_named_on_the_page() -> None:
    here = README[README.index("## What is here") :]
    for path in sorted((ROOT / "verifiers").iterdir()):
        if path.suffix == ".py" and path.name != "__init__.py":
            assert f"`{path.name}`" in here, path.name
        elif path.is_dir() and not path.name.startswith(("_", ".")):
            assert f"`{path.name}/`" in here, path.name

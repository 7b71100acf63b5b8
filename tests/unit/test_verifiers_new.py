"""`derive verifiers new`: a whole package or nothing, that installs, judges and passes its own cases."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from configs.errors import UserError
from flows.cli import main
from verifiers import new
from verifiers.api import Outcome
from verifiers.cases import read_cases
from verifiers.new import write_package
from verifiers.plain import accept
from verifiers.registry import GROUP

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_package_is_written_whole_with_all_names_filled_in(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verifiers", "new", "tides"]) == 0
    assert capsys.readouterr().out == "written: tides; tides/README.md says what to do next\n"
    files = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    package = ("tides_verifier/__init__.py", "tides_verifier/cases.jsonl")
    assert files == {f"tides/{each}" for each in ("README.md", "pyproject.toml", "tests/test_cases.py", *package)}
    for name in files:
        text = (here / name).read_text()
        assert "__" not in text.replace("__init__", ""), name
    project = tomllib.loads((here / "tides" / "pyproject.toml").read_text())
    assert project["project"]["name"] == "tides-verifier"
    assert project["project"]["entry-points"][GROUP] == {"tides": "tides_verifier:verify"}
    readme = (here / "tides" / "README.md").read_text()
    for command in ("pip install --editable tides\n", "judge tides tides/tides_verifier/cases.jsonl judged.jsonl\n",
                    "derive verifiers certify tides\n"):
        assert command in readme
    assert len((here / "tides" / "tides_verifier" / "__init__.py").read_text().splitlines()) < 40


def test_its_verifier_is_plain_and_gives_every_case_its_verdict(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package("shoals", here / "elsewhere")
    monkeypatch.syspath_prepend(str(here / "elsewhere"))
    module = importlib.import_module("shoals_verifier")
    verifier = accept("shoals", "0.1.0", module.verify, module)
    cases = read_cases(here / "elsewhere" / "shoals_verifier" / "cases.jsonl")
    outcomes = [case.expect for case in cases]
    assert outcomes.count(Outcome.CORRECT) >= 5 and outcomes.count(Outcome.INCORRECT) >= 7
    assert [verifier.judge(case.task, case.completion).outcome for case in cases] == outcomes
    assert verifier.description.startswith("Correct if ")  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "message"), [
    ("Tides", "'Tides' is no name; allowed: up to 40 of a-z"),
    ("2tides", "is no name"),
    ("ti-des", "is no name"),
    ("", "is no name"),
    ("../tides", "is no name"),
    ("t\u00eddes", "is no name"),
    ("a" * 41, "is no name"),
    ("lambda", "no word of Python"),
    ("match", "no word of Python"),
    ("math", r"'math' is taken by a verifier \(built in\); choose another"),
    ("json", r"'json' is the name of a module already \(Python itself\)"),
    ("verifiers", r"'verifiers' is the name of a module already \(.*verifiers/__init__.py\)"),
    ("numpy", "'numpy' is the name of a module already"),
])  # fmt: skip
def test_a_name_that_cannot_be_used_is_refused_and_nothing_is_written(
        here: Path, capsys: pytest.CaptureFixture[str], name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_package(name)
    assert main(["verifiers", "new", "--", name]) == 2
    assert capsys.readouterr().err.startswith("error: NAME: ") and not list(here.iterdir())


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_what_exists_is_refused_and_left_alone(here: Path, kind: str) -> None:
    taken = here / "tides"
    if kind == "folder":
        taken.mkdir()
    elif kind == "file":
        taken.write_text("mine")
    else:
        taken.symlink_to(here / "nowhere")
    with pytest.raises(UserError, match="--folder: tides exists; give a new folder, or remove it"):
        write_package("tides")
    assert list(here.iterdir()) == [taken] and (kind != "file" or taken.read_text() == "mine")


def test_a_parent_that_is_missing_is_told(here: Path) -> None:
    with pytest.raises(UserError, match=r"--folder: far/tides: No such file or directory; make .*far, or give another"):
        write_package("tides", Path("far/tides"))


def test_nothing_half_written_is_left(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(new.FILES, "late.txt", "no_such_template.txt")
    with pytest.raises(UserError, match="--folder: tides: No such file or directory; give another folder"):
        write_package("tides")
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_it_installs_with_pip_and_its_own_test_passes(here: Path) -> None:
    if missing := [name for name in ("pip", "setuptools") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{' and '.join(missing)} would install the package, and this Python lacks it")
    write_package("tides")
    site = here / "site"
    command = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(site)]
    subprocess.run([sys.executable, "-m", *command, "./tides"], check=True, capture_output=True, timeout=300)
    assert (site / "tides_verifier" / "cases.jsonl").is_file()
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=here / "tides",
                          env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "12 passed" in done.stdout, done.stdout + done.stderr

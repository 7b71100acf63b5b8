"""Finding verifiers, and what their identity depends on."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from configs.errors import UserError
from verifiers.api import Outcome, Verdict, correct, incorrect, no_verdict
from verifiers.registry import BUILT_IN, GROUP, check_name, identity, load_verifier, names, source_digest

ROOT = Path(__file__).resolve().parents[2]


def test_the_built_in_verifiers_are_found_without_installation() -> None:
    assert {"choice", "format", "instructions", "instructions_loose", "math", "puzzles", "think_math", "think_puzzles"
            } <= set(names())
    assert load_verifier("math").name == "math"
    assert load_verifier("math") is load_verifier("math")


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'puzzles'"):
        load_verifier("puzzle")


def test_an_identity_names_version_and_source() -> None:
    found = identity("math")
    assert set(found) == {"name", "version", "source"} and len(found["source"]) == 64
    assert found["source"] != identity("format")["source"]


def test_a_composites_identity_follows_its_parts_and_no_others() -> None:
    parts = identity("think_math")["version"]
    assert "format-" in parts and "math-" in parts and "puzzles" not in parts
    assert len({identity(name)["source"] for name in ("math", "format", "think_math", "think_puzzles")}) == 4


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_built_in_verifier_carries_its_registered_name(name: str) -> None:
    assert load_verifier(name).name == name


def test_the_project_registers_every_built_in_verifier_for_installation() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"][GROUP] == BUILT_IN


def test_two_distributions_cannot_offer_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "rival-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[derivative_factory.verifiers]\nmath = rival:Math\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "math" in names()
    with pytest.raises(UserError, match="offered by both"):
        check_name("math")


def write_package(folder: Path, verifier: str, part: str) -> None:
    (folder / "sample_plugin").mkdir(exist_ok=True)
    (folder / "sample_plugin" / "__init__.py").write_text("")
    (folder / "sample_plugin" / "verifier.py").write_text(verifier)
    (folder / "sample_plugin" / "part.py").write_text(part)


def test_the_digest_follows_code_in_all_imported_parts_and_ignores_comments(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    verifier, part = '"""Doc."""\nfrom sample_plugin.part import limit\n\nx = limit\n', "limit = 1\n"
    write_package(tmp_path, verifier, part)
    digest = source_digest("sample_plugin.verifier")
    write_package(tmp_path, verifier.replace("Doc", "Other words") + "# a comment\n", part)
    assert source_digest("sample_plugin.verifier") == digest
    write_package(tmp_path, verifier, "limit = 2\n")
    assert source_digest("sample_plugin.verifier") != digest
    write_package(tmp_path, verifier.replace("sample_plugin.part", ".part"), "limit = 2\n")
    relative = source_digest("sample_plugin.verifier")
    write_package(tmp_path, verifier.replace("sample_plugin.part", ".part"), "limit = 3\n")
    assert source_digest("sample_plugin.verifier") != relative


def test_the_math_verifier_imports_nothing_heavy() -> None:
    program = ("import sys; from verifiers.registry import load_verifier; from verifiers.api import Task\n"
               "assert load_verifier('math').judge(Task('t', '', '0.5'), '\\\\boxed{1/2}').score == 1.0\n"
               "assert not {'torch', 'sympy', 'mpmath', 'numpy', 'reasoning_gym', 'transformers'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})


def test_verdicts_hold_their_invariants() -> None:
    assert correct("5").score == 1.0
    assert incorrect("other", score=0.5).outcome is Outcome.INCORRECT
    assert no_verdict("dead_worker").score == 0.0
    for outcome, score in ((Outcome.CORRECT, 0.5), (Outcome.NO_VERDICT, 0.5), (Outcome.INCORRECT, 1.5),
                           (Outcome.INCORRECT, float("nan"))):
        with pytest.raises(ValueError, match="score"):
            Verdict(outcome, score)

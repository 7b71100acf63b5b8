"""The five packages must come from one folder, whatever lies earlier on the path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.tree import check_one_tree

HOME = Path(__file__).resolve().parents[2]


def test_the_project_s_own_tree_passes() -> None:
    assert check_one_tree() == HOME


def test_a_missing_package_is_named() -> None:
    with pytest.raises(UserError, match="package no_such_package_at_all: not found beside .*configs"):
        check_one_tree(("configs", "no_such_package_at_all"))


def test_a_package_from_elsewhere_is_named_with_both_places() -> None:
    with pytest.raises(UserError, match="package json: found in .*json, but configs in .*uninstall the other 'json'"):
        check_one_tree(("configs", "json"))


@pytest.mark.parametrize("init", ["", "raise SystemExit('imported')\n"])
def test_a_stage_refuses_to_start_beside_a_stranger_s_verifiers_without_importing_it(
    tmp_path: Path, init: str
) -> None:
    stranger = tmp_path / "verifiers"
    stranger.mkdir()
    (stranger / "__init__.py").write_text(init, encoding="utf-8")
    code = (
        "import sys; from configs.stage import run_command; "
        "sys.exit(run_command('sft', print, 'text', ['absent.json', 'out']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{HOME}"},
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"error: package verifiers: found in {stranger}, but configs in {HOME / 'configs'}")
    assert len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()

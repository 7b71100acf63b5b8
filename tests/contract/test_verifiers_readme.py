"""The README's verifier, copied from the page as a reader would, installed and run."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "verifiers" / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_works_as_written(tmp_path: Path) -> None:
    module, script = blocks("python")
    project = tomllib.loads(blocks("toml")[0])["project"]
    (tmp_path / "even_verifier.py").write_text(module)
    (tmp_path / "try_it.py").write_text(script)
    installed = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    installed.mkdir()  # what pip writes for this pyproject
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["derivative_factory.verifiers"]
    (installed / "entry_points.txt").write_text(
        "[derivative_factory.verifiers]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "try_it.py"], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == blocks("text")[0]


@pytest.mark.slow
def test_the_example_installs_with_pip_beside_its_script(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="pip builds the example with setuptools")
    for name, text in zip(("even_verifier.py", "try_it.py", "pyproject.toml"), (*blocks("python"), *blocks("toml")),
                          strict=True):
        assert name.endswith(".toml") or text.startswith(f"# {name}\n")
        (tmp_path / name).write_text(text)
    site = tmp_path / "site"
    command = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site), "."]
    subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, check=True, capture_output=True, timeout=300)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}
    done = subprocess.run([sys.executable, "-P", "try_it.py"], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, blocks("text")[0]), done.stderr


def test_every_file_that_the_page_names_exists() -> None:
    for name in re.findall(r"`([a-z_]+(?:\.py|/))`", README):
        assert (ROOT / "verifiers" / name).exists(), name

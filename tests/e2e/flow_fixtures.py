"""A small recipe over `tests.e2e.fake_stage`, and ways to run it in this process and in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from flows.session import Request
from tests.e2e.checkpoints import write_base

ROOT = Path(__file__).parents[2]
MODULES = dict.fromkeys(
    ("corpus", "pretrain", "sft", "sample", "dpo", "rl", "evaluate", "release"), "tests.e2e.fake_stage"
)

RECIPE = """
name: fake
title: every kind of reference between stages
base: {base}
stages:
  - {{id: problems, kind: corpus, output: problems, sources: [{{name: "{data}"}}]}}
  - {{id: sft, kind: sft, data: ["{examples}"], learning_rate: 0.1}}
  - {{id: rl, kind: rl, data: [problems], steps: 2, learning_rate: 0.1, verifier: math,
     allow_uncertified: true}}
  - {{id: evaluate, kind: evaluate, models: [base, sft, rl], judge: math, tasks: [{{name: "{data}"}}]}}
  - {{id: release, kind: release, evaluation: evaluate, name: fake-math, allow_same_judge: true,
     keep: {{tasks: none, bits_per_byte: none}}}}
"""

DRIVER = """
import sys
from flows.session import Request, conduct, prepare
from flows.terminal import PlainLines
from tests.e2e.flow_fixtures import MODULES
say = lambda text: print(text, file=sys.stderr, flush=True)
session = prepare(Request(sys.argv[1], store=sys.argv[2], modules=MODULES), [PlainLines(say)])
session.grace_s = 2.0
conduct(session)
"""


def write_recipe(folder: Path) -> Path:
    """A recipe file with its base and data beside it."""
    base = write_base(folder / "base")
    (folder / "problems.jsonl").write_text(json.dumps({"prompt": "1 + 1", "answer": "2"}) + "\n")
    (folder / "examples.jsonl").write_text(json.dumps({"prompt": "1 + 1", "completion": "2"}) + "\n")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(base=base, data=folder / "problems.jsonl", examples=folder / "examples.jsonl"))
    return path


def request(folder: Path, *overrides: str) -> Request:
    """A request for the recipe in this folder, with its store beside it."""
    path = folder / "recipe.yaml"
    return Request(
        str(path if path.exists() else write_recipe(folder)),
        overrides=overrides,
        store=str(folder / "store"),
        machine="cpu",
        modules=MODULES,
    )


def start_driver(folder: Path, fake_stage: str = "") -> subprocess.Popen[bytes]:
    """Run the recipe in a process of its own, to be killed."""
    path = folder / "recipe.yaml"
    recipe = path if path.exists() else write_recipe(folder)
    environment = {**os.environ, "FAKE_STAGE": fake_stage, "FAKE_STAGE_STARTS": str(folder / "starts")}
    with (folder / "driver.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(recipe), str(folder / "store")], cwd=ROOT, env=environment, stderr=log
        )


def starts(folder: Path) -> list[str]:
    """Ids of the stages whose command was started, in order."""
    path = folder / "starts"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def until(condition: Callable[[], bool], limit_s: float = 20.0) -> bool:
    """Wait for something that another process does."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def runs(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


COMMAND = """
import sys
import flows.plan
from flows.cli import entry
from tests.e2e.flow_fixtures import MODULES
flows.plan.STAGE_MODULES.update(MODULES)
entry()
"""


def derive(folder: Path, *words: str, fake_stage: str = "") -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, over the fake stage commands."""
    environment = {
        **os.environ,
        "FAKE_STAGE": fake_stage,
        "FAKE_STAGE_STARTS": str(folder / "starts"),
        "DERIVE_STORE": str(folder / "store"),
        "DERIVE_MACHINE": "cpu",
    }
    environment.pop("PREFECT_API_URL", None)
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )

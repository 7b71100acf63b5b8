"""What a plan asks of the machine that it runs on, and who answers: `probe.py`, in a process with a stage's threads.

Without torch, so that a plan for another machine needs none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from derivatives.planning.shape import TARGETS, Shape

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 240.0
"""A probe takes seconds; on a machine that is far too busy the plan goes on without."""


@dataclass(frozen=True)
class TrainQuestion:
    """How long a row of training takes."""

    shape: Shape
    precision: Literal["bf16", "fp32"]
    recompute: Literal["none", "selective", "full"]
    rank: int | None
    row_tokens: int
    document_tokens: int
    trained_tokens: int
    loss: Literal["cross_entropy", "log_probs"] = "cross_entropy"
    targets: tuple[str, ...] = TARGETS


@dataclass(frozen=True)
class DrawQuestion:
    """How long a step of the rollout engine takes."""

    shape: Shape
    precision: Literal["bf16", "fp32"]
    rows: int
    columns: int
    prompt_tokens: int
    rank: int | None = None
    targets: tuple[str, ...] = TARGETS


Question = TrainQuestion | DrawQuestion


@dataclass(frozen=True)
class Found:
    """Answers of a probe."""

    answers: dict[Question, Mapping[str, float]]
    facts: Mapping[str, Any] | None = None
    """Of a checkpoint (`checks.facts_of`), if one was given."""


def read_questions(plain: Sequence[Mapping[str, Any]]) -> list[Question]:
    """Questions from their JSON."""
    found: list[Question] = []
    for one in plain:
        fields = {**one, "shape": Shape(**one["shape"])}
        if "targets" in fields:
            fields["targets"] = tuple(fields["targets"])
        found.append(TrainQuestion(**fields) if "recompute" in fields else DrawQuestion(**fields))
    return found


def ask(questions: Sequence[Question], num_threads: int | None, folder: Path | None = None) -> Found | str:
    """Have the probe answer in a process of its own; where it cannot, the reason in one line.

    Args:
        questions: What to time.
        num_threads: Of torch; None takes all cores.
        folder: A checkpoint that is looked at as a stage would.
    """
    distinct = list(dict.fromkeys(questions))
    environment = dict(os.environ)
    if num_threads is not None:
        environment["OMP_NUM_THREADS"] = str(num_threads)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH", "")]))
    asked = {"num_threads": num_threads, "questions": [asdict(one) for one in distinct]}
    given = json.dumps({**asked, "folder": None if folder is None else str(folder)})
    command = [sys.executable, "-m", "derivatives.planning.probe"]
    try:
        done = subprocess.run(
            command, input=given, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"the probe took longer than {LIMIT_S:.0f} s"
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return f"the probe failed ({lines[-1][:200] if lines else f'exit code {done.returncode}'})"
    plain = json.loads(done.stdout.strip().splitlines()[-1])
    return Found(dict(zip(distinct, plain["answers"], strict=True)), plain["facts"])

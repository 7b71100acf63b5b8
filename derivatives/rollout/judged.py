"""Groups of completions with their verdicts: rolled out, judged at once, and kept for a run that resumes.

The journal holds each step's groups, written before the step's update: a run that is killed after that replays them
instead of drawing and judging again, so its rewards cannot differ, whatever a verifier's clock does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.schema import Sampling
from configs.stage import write_text_atomic
from derivatives.rollout.engine import Completion, RolloutEngine
from verifiers.api import Outcome, Task, Verdict, incorrect
from verifiers.pool import VerifierPool

TRUNCATED = "truncated"
"""Reason of the verdict on a completion that was cut: it is not judged, its score is a matter of configuration."""


@dataclass(frozen=True)
class Judged:
    """One completion and what became of it."""

    completion: Completion
    verdict: Verdict

    @property
    def truncated(self) -> bool:
        return self.completion.finish_reason == "length"

    @property
    def missing(self) -> bool:
        """Whether there is no verdict."""
        return self.verdict.outcome is Outcome.NO_VERDICT

    def summary(self) -> dict[str, Any]:
        """Text and verdict, for people and for judging again."""
        verdict = {**asdict(self.verdict), "outcome": self.verdict.outcome.value}
        return {"completion": self.completion.text, "finish_reason": self.completion.finish_reason, **verdict}


Group = list[Judged]


@dataclass(frozen=True)
class Batch:
    """What is to be rolled out: one prompt per task, as token ids."""

    tasks: Sequence[Task]
    prompts: Sequence[list[int]]
    keys: Sequence[str]
    num_samples: int


def roll_out(engine: RolloutEngine, pool: VerifierPool, batch: Batch, sampling: Sampling, seed: int) -> list[Group]:
    """Generate all completions; each is with a verifier as soon as it ends, while the others are still growing."""
    futures: dict[tuple[int, int], Future[Verdict]] = {}

    def submit(index: int, sample: int, completion: Completion) -> None:
        if completion.finish_reason != "length":
            futures[index, sample] = pool.submit(batch.tasks[index], completion.text)

    completions = engine.generate(batch.prompts, batch.num_samples, sampling, seed, batch.keys, on_completion=submit)
    return [
        [
            Judged(one, futures[index, sample].result() if (index, sample) in futures else incorrect(TRUNCATED))
            for sample, one in enumerate(group)
        ]
        for index, group in enumerate(completions)
    ]


class Journal:
    """`OUT/checkpoints/rollouts-000012.json`: the groups of steps since the oldest checkpoint that is kept."""

    def __init__(self, out: Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = out / "checkpoints", fingerprint

    def path(self, step: int) -> Path:
        return self.folder / f"rollouts-{step:06d}.json"

    def write(self, step: int, problems: Sequence[int], groups: Sequence[Group]) -> None:
        """Keep a step's groups; on the disk when this returns."""
        rows = [
            [{"completion": asdict(one.completion), "verdict": asdict(one.verdict)} for one in group]
            for group in groups
        ]
        content = {"fingerprint": self.fingerprint, "problems": list(problems), "groups": rows}
        write_text_atomic(self.path(step), json.dumps(content) + "\n")

    def read(self, step: int, problems: Sequence[int]) -> list[Group] | None:
        """A step's groups, if they are there, of this very run, and of these problems."""
        try:
            content = json.loads(self.path(step).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if content.get("fingerprint") != self.fingerprint or content["problems"] != list(problems):
            return None
        return [[_judged(row) for row in group] for group in content["groups"]]

    def drop_before(self, step: int) -> None:
        """Forget steps that no checkpoint needs any more."""
        for path in self.folder.glob("rollouts-*.json"):
            if int(path.stem.partition("-")[2]) < step:
                path.unlink(missing_ok=True)


def _judged(row: dict[str, Any]) -> Judged:
    verdict = {**row["verdict"], "outcome": Outcome(row["verdict"]["outcome"])}
    return Judged(Completion(**row["completion"]), Verdict(**verdict))

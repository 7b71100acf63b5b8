"""The greedy answers of a finished evaluation, judged again by another verifier.

`samples.jsonl` holds the answers; the problems, with all that a verifier may need, are drawn again from the stage's
task sets, which gives the same ones. Where they cannot be had (a mirror that is gone, a file that has changed), the
prompt and the gold answer of `samples.jsonl` stand in for them, which is not enough for a verifier that runs tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.settings.evaluation import EvaluateStage
from configs.stage import load_stage_file
from derivatives.evaluation.asked import problems_of
from derivatives.evaluation.audit import was_asked
from verifiers.api import Outcome, Task, Verdict
from verifiers.pool import VerifierPool

SAMPLES = "samples.jsonl"


@dataclass(frozen=True)
class StoredAnswer:
    """One answer of an evaluation.

    Attributes:
        model: Stage id, or `base`.
        task: Its problem.
        row: The line of `samples.jsonl`.
    """

    model: str
    task: Task
    row: dict[str, Any]

    @property
    def verdict(self) -> Verdict:
        """What the evaluation said; the score is 1 or 0, partial credit is not kept."""
        outcome, reason = Outcome(self.row["outcome"]), self.row.get("reason") or ""
        return Verdict(outcome, float(outcome is Outcome.CORRECT), self.row.get("extracted"), reason)


class StoredAnswers:
    """The answers in an evaluate stage's folder.

    Attributes:
        whole: Whether the problems were drawn again; if not, verifiers see prompt and gold answer alone.

    Raises:
        UserError: There are none, or they cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / SAMPLES
        try:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        except (OSError, ValueError) as error:
            raise UserError(f"RUN: {path} cannot be read ({error}); name a finished evaluation") from error
        tasks = _drawn_again(folder)
        num = len(rows) // len({row["model"] for row in rows}) if rows else 0
        by_place = [tasks[place % num] if tasks and len(tasks) == num else None for place in range(len(rows))]
        self.whole = bool(rows) and all(
            task is not None and (task.id, task.prompt) == (row["task"], row["prompt"])
            for row, task in zip(rows, by_place, strict=True)
        )
        self.answers = [
            StoredAnswer(row["model"], task if self.whole and task is not None else _plain(row), row)
            for row, task in zip(rows, by_place, strict=True)
        ]

    @property
    def judged(self) -> list[StoredAnswer]:
        """Those that a verifier was asked about."""
        return [one for one in self.answers if was_asked(str(one.row.get("reason") or ""))]


def rescore(stored: StoredAnswers, verifier: str, num_workers: int = 2) -> Iterator[tuple[StoredAnswer, Verdict]]:
    """Each answer that a verifier had judged, in order, with another's verdict. Raises UserError: unknown verifier."""
    answers = stored.judged
    found: dict[int, Verdict] = {}
    following = 0
    with VerifierPool(num_workers, verifier=verifier) as pool:
        for place, verdict in pool.stream((one.task, one.row["completion"]) for one in answers):
            found[place] = verdict
            while following in found:
                yield answers[following], found.pop(following)
                following += 1


def _drawn_again(folder: Path) -> list[Task]:
    """The stage's problems; none where they cannot be drawn."""
    try:
        stage = load_stage_file(folder / "stage.json").stage
        assert isinstance(stage, EvaluateStage)
        return problems_of(stage.tasks)
    except (UserError, OSError):
        return []


def _plain(row: dict[str, Any]) -> Task:
    return Task(row["task"], row["prompt"], row.get("answer") or "", source=row.get("source") or "")

"""Reading the rollout store of a stage, finished or not: completions one by one, and judging them again.

    stored = StoredRollouts(folder)                    # the stage's folder
    for one in stored.completions(first=10, last=20):
        print(one.task.prompt, one.judged.completion.text, one.reward)
    for one, verdict in rescore(stored, "exact"): ...

`derive rollouts export` and `derive rollouts rescore` are this on the command line. A completion that was cut, or ended
in another way that is a verdict in itself (`tools.py`), was never judged, and is not judged again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.stage import load_stage_file
from derivatives.rollout.judged import Judged
from derivatives.rollout.store import FOLDER, PROBLEMS, UNREADABLE, read_problems, read_step, step_path, steps_of
from derivatives.training.model import load_tokenizer
from verifiers.api import Task, Verdict
from verifiers.pool import VerifierPool


@dataclass(frozen=True)
class Stored:
    """One completion of a store.

    Attributes:
        step: At which it was drawn.
        group: Place of its group in the step.
        sample: Place in the group.
        task: Its problem.
        judged: Token ids, log-probabilities, text, verdicts.
        reward: What the update used; None where it had none.
        trained: Whether its group was part of the update (not replaced).
        verifiers: Names of those that gave the verdicts, in order, the audit's not among them.
    """

    step: int
    group: int
    sample: int
    task: Task
    judged: Judged
    reward: float | None
    trained: bool
    verifiers: tuple[str, ...]

    def row(self, tokens: bool = False) -> dict[str, Any]:
        """As a JSON object; `derive verifiers judge` reads such lines."""
        one = self.judged
        more = {name: _plain(verdict) for name, verdict in zip(self.verifiers[1:], one.more, strict=True)}
        drawn: dict[str, Any] = {}
        if tokens:
            drawn = {"token_ids": one.completion.token_ids, "log_probs": one.completion.log_probs}
        if tokens and one.completion.fed:
            drawn["fed"] = [[fed.start, fed.end] for fed in one.completion.fed]
        return {
            "step": self.step,
            "group": self.group,
            "sample": self.sample,
            "id": self.task.id,
            "source": self.task.source,
            "prompt": self.task.prompt,
            "answer": self.task.answer,
            "metadata": dict(self.task.metadata),
            "verifier": self.verifiers[0],
            "task_verifier": self.task.verifier,
            "completion": one.completion.text,
            "finish_reason": one.completion.finish_reason,
            **({"programs": [fed.failed or "ran" for fed in one.completion.fed]} if one.completion.fed else {}),
            **_plain(one.verdict),
            **({"more": more} if more else {}),
            **({"audit": _plain(one.audit)} if one.audit is not None else {}),
            "reward": self.reward,
            "trained": self.trained,
            **drawn,
        }


class StoredRollouts:
    """The rollout store in a stage's folder.

    Raises:
        UserError: There is none, or its problems or tokenizer cannot be read.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out / FOLDER
        if not (self.folder / PROBLEMS).is_file():
            raise UserError(f"RUN: {out} holds no rollout store ({FOLDER}/{PROBLEMS}); name a run with an rl stage")
        try:
            self.tasks = read_problems(self.folder)
        except UNREADABLE as error:
            raise UserError(f"RUN: {self.folder / PROBLEMS} cannot be read ({error}); name another run") from error
        own = out / "model"
        self.tokenizer = load_tokenizer(own if own.is_dir() else load_stage_file(out / "stage.json").model_folder())

    @property
    def steps(self) -> list[int]:
        """Steps that are kept, first to last."""
        return steps_of(self.folder)

    def completions(self, first: int = 1, last: int | None = None) -> Iterator[Stored]:
        """All completions of the steps from `first` to `last`, both included, in order.

        Raises:
            UserError: A step's file is damaged.
        """
        for step in self.steps:
            if step >= first and (last is None or step <= last):
                yield from self.step(step)

    def step(self, step: int) -> list[Stored]:
        """All completions of one step. Raises UserError if its file is missing or damaged."""
        path = step_path(self.folder, step)
        try:
            meta, rolled, rewards = read_step(path, self.tokenizer)
            return [
                Stored(
                    step, number, sample, self.tasks[problem], one, None if reward != reward else reward,
                    number in rolled.trained, tuple(meta["verifiers"]),
                )
                for number, (problem, group, row) in enumerate(
                    zip(rolled.problems, rolled.groups, rewards, strict=True)
                )
                for sample, (one, reward) in enumerate(zip(group, row, strict=True))
            ]  # fmt: skip
        except UNREADABLE as error:
            raise UserError(f"{path}: cannot be read ({error}); choose other steps, or remove the file") from error


def rescore(
    stored: StoredRollouts, verifier: str, num_workers: int = 2, first: int = 1, last: int | None = None
) -> Iterator[tuple[Stored, Verdict]]:
    """Each completion that a verifier had judged, in order, with the verdict of another verifier.

    Raises:
        UserError: for an unknown verifier, or a damaged step.
    """
    with VerifierPool(num_workers, verifier=verifier) as pool:
        for step in stored.steps:
            if step >= first and (last is None or step <= last):
                whole = [one for one in stored.step(step) if one.judged.asked]
                yield from zip(
                    whole, pool.judge([(one.task, one.judged.completion.text) for one in whole]), strict=True
                )


def _plain(verdict: Verdict) -> dict[str, Any]:
    plain = {**asdict(verdict), "outcome": verdict.outcome.value}
    del plain["seconds"]  # not stored
    return plain

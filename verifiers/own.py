"""What judges a task by the verifier that the task itself names, so that one stage can reward tasks of several kinds.

A task set says which verifier its problems need (`Task.verifier`): sums need `math`, programs `code`. `OwnVerifier`
asks that one and passes its verdict on. It knows the verifiers of this project alone, which it imports: a run's lineage
then covers the source of all of them, and its version names all of theirs. A task that names another one gets no
verdict, and the reason says which.

It is no verifier of the registry by itself; `verifiers/think_own.py` is, with the form of a thought as its gate.

What this does not do: installed plugins cannot be parts, since their source would be in no digest.
"""

from __future__ import annotations

from collections.abc import Mapping

from verifiers.api import Task, Verdict, Verifier, no_verdict
from verifiers.choice import ChoiceVerifier
from verifiers.code import CodeVerifier
from verifiers.instructions import StrictInstructions
from verifiers.json_schema import JsonSchemaVerifier
from verifiers.math import MathVerifier
from verifiers.puzzles import PuzzleVerifier
from verifiers.sandbox.host import SandboxUnavailable
from verifiers.table import TableVerifier

PROGRAMS_DEADLINE_S = 30.0
"""Seconds for one judgement: as long as `verifiers.pool` gives programs, whose sandbox has a clock of its own."""


class OwnVerifier:
    """Correct if the verifier that the task names says so.

    Args:
        name: What a composite calls this part.
        parts: The verifier for tasks that name each of these.
    """

    deadline_s = PROGRAMS_DEADLINE_S

    def __init__(self, name: str = "own", parts: Mapping[str, Verifier] | None = None) -> None:
        self.name, self.parts = name, dict(own_parts() if parts is None else parts)
        self.version = "+".join(["1", *(f"{task}:{part.name}-{part.version}" for task, part in self.parts.items())])

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by the task's own verifier."""
        part = self.parts.get(task.verifier)
        if part is None:
            return no_verdict(f"no_part_for_verifier: {task.verifier}")
        return part.judge(task, completion)

    def warm_up(self) -> None:
        """Do the slow imports of all parts; where there is no sandbox, programs alone get no verdict for it."""
        for part in self.parts.values():
            warm_up = getattr(part, "warm_up", None)
            if warm_up is not None:
                try:
                    warm_up()
                except SandboxUnavailable:
                    continue


def own_parts() -> dict[str, Verifier]:
    """Each verifier of ours that a task set may name."""
    parts: tuple[Verifier, ...] = (
        MathVerifier(), PuzzleVerifier(), CodeVerifier(), StrictInstructions(), ChoiceVerifier(),
        JsonSchemaVerifier(), TableVerifier(),
    )  # fmt: skip
    return {part.name: part for part in parts}

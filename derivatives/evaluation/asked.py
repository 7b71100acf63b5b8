"""The problems that an evaluation asks: those of all its sources, each once.

Two sources may give the same problem (a set by name and as one of a suite, two draws of one set). Asked twice it would
count twice in every figure over all, and make intervals narrower than they are: ten problems that are asked twice are
no twenty. The first source that gives it counts, with its style and verifier.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from configs.settings.common import TaskSource
from verifiers.api import Task
from verifiers.tasks import load_tasks


def problems_of(sources: Sequence[TaskSource]) -> list[Task]:
    """Problems in the order of the sources. Raises UserError as `load_tasks`."""
    drawn = [task for source in sources for task in load_tasks(source)]
    once: dict[tuple[str, str, str], Task] = {}
    for task in drawn:
        once.setdefault((task.source, task.id, task.prompt), task)
    if len(once) < len(drawn):
        told = f"{len(drawn) - len(once)} of {len(drawn)} problems are given by two sources and asked once"
        print(told, file=sys.stderr)  # standard output may be JSON
    return list(once.values())

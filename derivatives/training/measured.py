"""Whether a run is measured on held-out data, and the way to the code that does it (`in_loop.py`).

That code reads corpora, draws completions and asks verifiers. None of it changes a weight, so it is imported by its
name and only when it is needed: a stage whose product it is not part of does not count as changed when a verifier does.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from configs.settings.reinforcement import RlStage

if TYPE_CHECKING:
    from derivatives.training.loop import Trainer

IN_LOOP = "derivatives.training.in_loop"


@contextmanager
def measured(trainer: Trainer) -> Iterator[None]:
    """Have a trainer measure what its stage's configuration names, for as long as this lasts. Raises UserError."""
    stage = trainer.stage
    assert not isinstance(stage, RlStage)
    if not stage.heldout_text and not stage.probe_tasks:
        yield
        return
    with importlib.import_module(IN_LOOP).measuring(trainer):
        yield

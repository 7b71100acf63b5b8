"""The lines of progress.jsonl in TensorBoard, Weights & Biases or MLflow, through accelerate's trackers.

Off unless the machine profile names one in `trackers`. A tracker is a display: one that cannot be imported, reached or
written to is left with one warning, and the training goes on to the same result. Only the first rank tracks.

| tracker | where | environment |
|---|---|---|
| `tensorboard` | `OUT/tensorboard/` | |
| `wandb` | project: the recipe's name, run: the stage's id; goes on after a resume | `WANDB_API_KEY`, `WANDB_MODE` |
| `mlflow` | experiment: the recipe's name; a resumed stage is a new run | `MLFLOW_TRACKING_URI`, else `OUT/mlflow.db` |
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from configs.stage import StageFile

log = logging.getLogger(__name__)


class Trackers:
    """The trackers of one run that still work."""

    def __init__(self, stage_file: StageFile, out: Path, step: int, first: bool) -> None:
        """`step` is the last one that is done, after which a resumed run goes on."""
        self._open: dict[str, Any] = {}
        if not first:
            return
        for name in dict.fromkeys(stage_file.machine.trackers):
            self._try(name, lambda name=name: self._start(name, stage_file, out, step))  # type: ignore[misc]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Give a step's numbers to all."""
        for name, tracker in list(self._open.items()):
            self._try(name, lambda tracker=tracker: tracker.log(dict(values), step=step))  # type: ignore[misc]

    def finish(self) -> None:
        """Close all."""
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.finish)
        self._open = {}

    def _try(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # other people's packages, networks and servers
            self._open.pop(name, None)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            log.warning("tracker %s: %s; going on without it", name, reason)

    def _start(self, name: str, stage_file: StageFile, out: Path, step: int) -> None:
        from accelerate import PartialState
        from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker

        PartialState(cpu=stage_file.machine.device == "cpu")  # what the trackers ask whether this is the main process
        recipe, stage = stage_file.recipe, stage_file.stage
        tracker: Any
        if name == "tensorboard":
            tracker = TensorBoardTracker("tensorboard", out, purge_step=step + 1)
        elif name == "wandb":
            given = {"name": stage.id, "id": f"{stage.id}-{_short_digest(stage_file)}", "resume": "allow"}
            tracker = WandBTracker(recipe.replace("/", "-"), dir=str(out), **given)
        else:
            os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{out.resolve()}/mlflow.db")
            tracker = MLflowTracker(experiment_name=recipe, run_name=stage.id)
        tracker.start()
        self._open[name] = tracker
        if name != "tensorboard":  # whose way of storing settings adds a run of its own
            tracker.store_init_configuration(_flat(stage.model_dump(mode="json")))


def _short_digest(stage_file: StageFile) -> str:
    from derivatives.training.loop import fingerprint

    return fingerprint(stage_file)[:12]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name; lists as text.

    >>> _flat({"a": 1, "b": {"c": [1, 2]}})
    {'a': 1, 'b.c': '[1, 2]'}
    """
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, (str, int, float, bool)) else str(value)
    return found

"""Where the checkpoints lie that outlive a stage. Imports no torch, so that the command line can look for them.

OUT/fork_points/000400/checkpoints/step-000400/     kept for `derive fork` (`stage.fork_every`)
OUT/checkpoints/step-000450/                        of a stage that is not finished: the last two
"""

from __future__ import annotations

from pathlib import Path

FOLDER = "fork_points"
INPUT = "(fork)"
"""What a stage file calls the folder that is gone on from; no stage id looks like it."""


def available(folder: Path) -> list[int]:
    """Steps of a stage's folder, finished or not, from which a fork may begin, first to last."""
    kept = [int(path.name) for path in _inside(folder / FOLDER) if path.name.isdigit()]
    found = {step for step in kept if kept_at(folder, step).is_dir()}
    names = [path.name.partition("-") for path in _inside(folder / "checkpoints")]
    running = {int(number) for word, _, number in names if word == "step" and number.isdigit()}
    return sorted(found | running)


def checkpoint_at(folder: Path, step: int) -> Path:
    """The checkpoint of this step of a stage that is not finished."""
    return folder / "checkpoints" / f"step-{step:06d}"


def kept_at(folder: Path, step: int) -> Path:
    """The checkpoint of this step that outlives the stage."""
    return checkpoint_at(folder / FOLDER / f"{step:06d}", step)


def _inside(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []

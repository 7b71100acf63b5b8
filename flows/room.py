"""Room on the disk for a stage before it starts: what it will write at the most against what is free."""

from __future__ import annotations

import shutil
from pathlib import Path

from configs.errors import UserError
from configs.stage import StageFile
from flows.space import folder_bytes

GIGABYTE = 1e9
BYTES_PER_TOKEN = 4


def check_room(described: StageFile, folder: Path) -> None:
    """Refuse a stage that will fill the disk. What it wrote before an interruption counts as written.

    Raises:
        UserError: with the amounts and what to do.
    """
    parts = needed(described)
    missing = sum(parts.values()) - folder_bytes(folder)
    free = shutil.disk_usage(folder).free
    if missing > free:
        listed = ", ".join(f"{name} {size / GIGABYTE:.3g}" for name, size in parts.items())
        raise UserError(
            f"{described.stage.id}: disk: it will write {missing / GIGABYTE:.3g} GB more ({listed}), and "
            f"{free / GIGABYTE:.3g} GB are free in {folder.parent.parent}; free space there (`derive gc` shows "
            "what may go), or give another folder with --store"
        )


def needed(described: StageFile) -> dict[str, float]:
    """Bytes that a stage writes at the most, by what they are; empty where nothing can be said."""
    from derivatives.planning.amounts import Amount, Known, amount_of
    from derivatives.planning.checks import disk_bytes
    from derivatives.planning.devices import device_of
    from derivatives.planning.predict import Asked, load_of
    from derivatives.planning.shape import read_shape

    stage, machine = described.stage, described.machine
    try:
        if stage.kind == "release":  # a copy of what it releases
            return {"model": float(folder_bytes(described.model_folder(stage.model or described.model)))}
        device = device_of(machine.for_kind(stage.kind))
        amount = Amount(unknown="not asked")
        if stage.kind == "rl":  # for its rollouts
            amount = amount_of(stage, Known({}, {}, lambda text: len(text) // BYTES_PER_TOKEN))
        load = None
        if described.model is not None:
            load = load_of(stage, read_shape(described.model_folder()), device, amount)
        return disk_bytes([Asked(stage, amount, load, device)], downloads=False)
    except (UserError, OSError, ValueError, KeyError):  # the stage itself says what is wrong with its input
        return {}

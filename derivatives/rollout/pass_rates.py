"""Pass rates that a sample stage measured before a stage of reinforcement learning: read, matched, filtered by.

A problem is known by its source and its id. The rates are those of `data/pass_rates.jsonl` (`derivatives/sample.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from configs.errors import UserError
from configs.settings.reinforcement import PassRates
from configs.stage import StageFile
from verifiers.api import Task

Key = tuple[str, str]


def read_pass_rates(stage_file: StageFile, stage: str) -> dict[Key, float]:
    """Source and id of a problem -> share of its completions that were right; NaN where none had a verdict.

    Raises:
        UserError: The stage left no pass rates, a line is none, or a problem has two.
    """
    path = stage_file.data_folder(stage) / "pass_rates.jsonl"
    if not path.is_file():
        raise UserError(
            f"stage.pass_rates.stage: {stage!r} has no {path.name}; allowed: a finished sample stage; name one"
        )
    rates: dict[Key, float] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            key, rate = (str(row["source"]), str(row["id"])), row["pass_rate"]
            value = math.nan if rate is None else float(rate)
            if not (math.isnan(value) or 0.0 <= value <= 1.0):
                raise ValueError(f"pass_rate {value}")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}:{number}: no line with id, source and a pass_rate from 0 to 1 ({error!r}); run {stage} again"
            ) from error
        if key in rates:
            raise UserError(
                f"{path}:{number}: problem {key[1]!r} of {key[0]!r} has two pass rates; give each problem of the "
                f"data of {stage} an id of its own"
            )
        rates[key] = value
    return rates


def with_pass_rates(
    tasks: Sequence[Task], rates: Mapping[Key, float], settings: PassRates
) -> tuple[list[Task], list[float], dict[str, int]]:
    """The problems whose rate lies in the bounds, their rates, and how many were left out and why.

    A problem whose rate is not known because no completion had a verdict is left out.

    Raises:
        UserError: A problem was not measured, or stands there twice.
    """
    low, high = settings.between
    kept: list[Task] = []
    known: list[float] = []
    left_out = {"left_out_too_hard": 0, "left_out_too_easy": 0, "left_out_no_verdict": 0}
    seen: set[Key] = set()
    for task in tasks:
        key = (task.source, task.id)
        if key in seen:
            raise UserError(
                f"stage.data: problem {task.id!r} of {task.source!r} is there twice, so that its pass rate could be of "
                "either; give each an id of its own, or name its data once"
            )
        seen.add(key)
        if key not in rates:
            raise UserError(
                f"stage.pass_rates.stage: {settings.stage!r} measured {len(rates)} problems, but not {task.id!r} of "
                f"{task.source!r} (it leaves out repeated and benchmark questions); set data=[{settings.stage}], which "
                "is what it kept, or let it measure all of the data"
            )
        rate = rates[key]
        if math.isnan(rate):
            left_out["left_out_no_verdict"] += 1
        elif rate < low:
            left_out["left_out_too_hard"] += 1
        elif rate > high:
            left_out["left_out_too_easy"] += 1
        else:
            kept.append(task)
            known.append(rate)
    return kept, known, left_out

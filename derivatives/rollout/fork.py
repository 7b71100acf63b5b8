"""Checkpoints that outlive a stage, and a stage that goes on from one (`derive fork`).

Where they lie: `fork_points.py`. They are hard links, which cost nothing while the stage has the checkpoint itself.

A fork begins with the whole state of the other run after the named step: masters, moments, curriculum, audits, random
state. With nothing changed it therefore draws what the other drew, to the bit. What is changed acts from the next step
on; the learning rate's schedule, for one, is that of the fork's own settings. The log up to there is the other run's.

Not carried over: state of settings that the fork changed (the entropy bonus, the audit's verifier), which begins anew.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.settings.reinforcement import RlStage
from configs.stage import StageFile, read_progress, write_text_atomic
from derivatives.rollout.fork_points import INPUT, available, checkpoint_at, kept_at
from derivatives.training import checkpoint
from derivatives.training.loop import fingerprint

SAMPLES = "rollouts.jsonl"


def keep(out: Path, step: int, every: int | None) -> None:
    """Keep the checkpoint after this step, if it is one of those that are kept. Called before the next step."""
    source, target = checkpoint_at(out, step), kept_at(out, step)
    if every is None or step == 0 or step % every or not source.is_dir() or target.is_dir():
        return
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=_link)
    os.replace(partial, target)


def begin(stage_file: StageFile, out: Path) -> None:
    """Give a fork that has no checkpoint of its own the state that it goes on from; else do nothing.

    Raises:
        UserError: The other run has no whole checkpoint of that step.
    """
    stage = stage_file.stage
    assert isinstance(stage, RlStage)
    if stage.fork is None or checkpoint.steps(out):
        return
    step = stage.fork.step
    if step >= stage.steps:
        raise UserError(
            f"stage.fork.step: {step} of {stage.steps} steps leaves nothing to do; allowed: below stage.steps; raise "
            "stage.steps or go on from an earlier step"
        )
    if INPUT not in stage_file.inputs:
        raise UserError(f"inputs: {INPUT!r} is missing, which stage.fork needs; add the folder that is gone on from")
    origin = Path(stage_file.inputs[INPUT].path)
    state = _read(origin, step, out / ".fork")
    log = [json.dumps(line) + "\n" for line in read_progress(origin) if line["step"] <= step]
    write_text_atomic(out / "progress.jsonl", "".join(log))
    if (origin / SAMPLES).is_file():
        shutil.copyfile(origin / SAMPLES, out / SAMPLES)  # later steps are cut off by whoever goes on with it
    state["fingerprint"] = fingerprint(stage_file)
    for part in state.get("shards") or [state["optimizer"]]:  # of several ranks, each with its own rows
        for number, group in enumerate(part["adamw"]["param_groups"]):
            # Restored with the moments, they would undo a change; matrices, which alone decay, come first.
            group["betas"] = (stage.beta1, stage.beta2)
            group["weight_decay"] = stage.weight_decay if number == 0 else 0.0
    checkpoint.save(out, step, state)


def _read(origin: Path, step: int, aside: Path) -> dict[str, Any]:
    """The state after a step, from a place of its own, since `load_latest` looks for the newest."""
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for source in (kept_at(origin, step), checkpoint_at(origin, step)):
            if source.is_dir():
                shutil.copytree(source, checkpoint_at(aside, step), copy_function=_link)
                break
        found = checkpoint.load_latest(aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if found is None:
        steps = ", ".join(map(str, available(origin))) or "none"
        raise UserError(
            f"stage.fork.step: {origin} has no whole checkpoint of step {step}; allowed: {steps}; "
            "set fork_every in the stage that is to be forked"
        )
    return found[1]


def _link(source: str, target: str) -> str:
    """A second name for a file, or a copy where there can be none (another disk)."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target

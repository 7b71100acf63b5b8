"""A stage command of any kind that only goes through the motions, for tests of the flow around it.

Run like a real one: `python -m tests.e2e.fake_stage STAGE.json OUT/`. What it does besides is said by
FAKE_STAGE, `ID:BEHAVIOUR` words: `crash`, `user_error`, `hang`, `retry_once`, `wait` (its verifier is silent for a
second), `stall` and `stall_once` (nothing is done for a minute), `count` (ten steps of 0.2 s that go on from a
checkpoint after a kill), `train` (forty such steps, or FAKE_STAGE_STEPS, that go on from a checkpoint which is written
when it is asked to stop, in FAKE_STAGE_STOP_S seconds), `refuse` (as a release by its gates). Every start is noted in
FAKE_STAGE_STARTS.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from configs.errors import RetryableError, UserError
from configs.stage import Progress, StageFile, load_stage_file, run_command, write_json_atomic, write_text_atomic
from tests.e2e.checkpoints import write_base
from verifiers.breaker import Watchdog

NUM_STEPS = 40
STEP_S = 0.2


def behaviour_of(stage_id: str) -> str:
    words = dict(word.split(":") for word in os.environ.get("FAKE_STAGE", "").split())
    return words.get(stage_id, "")


def results(models: tuple[str, ...]) -> dict[str, object]:
    figure = {"value": 0.5, "low": 0.4, "high": 0.6, "correct": 5, "no_verdict": 0, "total": 10}
    gain = {"pass@1": {"value": 0.25, "low": 0.125, "high": 0.375}, "pass@k": None}
    return {
        "models": {name: {"pass@1": figure, "by_task": {}, "pass@k": None} for name in models},
        "floor": {"best_constant": {}, "value": 0.125},
        "gains": {name: gain for name in models[1:]},
        "confidence": 0.95,
    }


def count(out: Path) -> None:
    checkpoint = out / "checkpoints" / "step"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    progress = Progress(out, done)
    for step in range(done + 1, 11):
        time.sleep(0.2)
        progress.write(step, 10, **{"rl/reward": step / 10})
        write_text_atomic(checkpoint, str(step))


def train(out: Path) -> None:
    """Steps of a product that tells whether each was taken once, and a stop between two of them."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    root = out / "checkpoints"
    kept = sorted(root.glob("step-*"))
    taken = json.loads((kept[-1] / "state").read_text()) if kept else []
    progress, total = Progress(out, len(taken)), int(os.environ.get("FAKE_STAGE_STEPS", NUM_STEPS))
    for step in range(len(taken) + 1, total + 1):
        if asked:
            time.sleep(float(os.environ.get("FAKE_STAGE_STOP_S", "0")))
            write_text_atomic(root / f"step-{step - 1:06d}" / "state", json.dumps(taken))
            sys.exit(128 + signal.SIGTERM)
        time.sleep(STEP_S)
        taken.append(step)
        progress.write(step, total, **{"rl/reward": step / total})
    write_text_atomic(out / "model" / "taken", json.dumps(taken))


def run(stage_file: StageFile, out: Path) -> None:
    stage = stage_file.stage
    with open(os.environ["FAKE_STAGE_STARTS"], "a", encoding="utf-8") as starts:
        starts.write(f"{stage.id} {os.getpid()}\n")
    behaviour = behaviour_of(stage.id)
    if behaviour == "crash":
        raise RuntimeError("the fake crashed")
    if behaviour == "user_error":
        raise UserError(f"{stage.id}.learning_rate: 3.0 is too high; allowed: below 1; lower it")
    if behaviour == "retry_once" and not (out / "tried").exists():
        (out / "tried").write_text("yes")
        raise RetryableError("the mirror is away")
    if behaviour == "hang":
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True) as child:
            (out / "grandchild").write_text(str(child.pid))
            time.sleep(300)
    if behaviour == "stall" or (behaviour == "stall_once" and not (out / "tried").exists()):
        (out / "tried").write_text("yes")
        time.sleep(60)
    if behaviour == "count":
        count(out)
    if behaviour == "train":
        train(out)
    if behaviour == "refuse":
        write_json_atomic(out / "metrics.json", {"released": False})
        raise UserError("gates: 1 of 1 not passed, so fake-math is not released; train further")
    if behaviour == "wait":
        Watchdog(0.2, lambda: "task 't1'").start()
        time.sleep(1.0)
    product = {"evaluate": "results.json", "corpus": "data/report.json", "sample": "data/report.json",
               "release": "release/config.json"}  # fmt: skip
    name = product.get(stage.kind, "model/config.json")
    write_json_atomic(out / name, results(stage.models) if stage.kind == "evaluate" else {"made_by": stage.kind})
    if stage.kind == "release":
        write_base(out / "release")  # something that another run can start from
    write_json_atomic(out / "metrics.json", {"inputs": len(stage_file.inputs)})


if __name__ == "__main__":
    kind = load_stage_file(Path(sys.argv[1])).stage.kind
    Path(sys.argv[2], "kind.json").write_text(json.dumps(kind))
    sys.exit(run_command(kind, run, __doc__ or ""))

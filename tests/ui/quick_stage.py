"""A stage command that only looks busy, for the browser test: a training's steps take a fifth of a second each.

Run like a real one: `python -m tests.ui.quick_stage STAGE.json OUT/`. How many steps there are is the stage's own
setting, so that a field of the form decides how long a run lasts. It stops between two steps when it is asked to, with
a checkpoint, and goes on from there. It has a child process in a session of its own, which must not outlive it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from configs.schema import Stage
from configs.settings.reinforcement import RlStage
from configs.stage import Progress, StageFile, load_stage_file, run_command, write_json_atomic, write_text_atomic
from tests.e2e.fake_stage import results

STEP_S = 0.2
PRODUCTS = {"evaluate": "results.json", "corpus": "data/report.json", "release": "release/config.json"}


def num_steps(stage: Stage) -> int:
    """Steps of RL as set, two of every other training, none of anything else."""
    return stage.steps if isinstance(stage, RlStage) else 2 if stage.kind in ("pretrain", "sft", "dpo") else 0


def train(stage: Stage, out: Path) -> None:
    """Steps with the metrics that a board draws."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    kept = sorted((out / "checkpoints").glob("step-*"))
    done = int(kept[-1].name.removeprefix("step-")) if kept else 0
    progress, total = Progress(out, done), num_steps(stage)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True) as child:
        for step in range(done + 1, total + 1):
            if asked:
                child.kill()  # `with` would wait for it
                write_text_atomic(out / "checkpoints" / f"step-{step - 1:06d}" / "state", str(step - 1))
                sys.exit(128 + signal.SIGTERM)
            time.sleep(STEP_S)
            share = step / total
            metrics = {"reward": 0.2 + 0.6 * share, "loss": 0.1 - 0.05 * share, "length": 40 - 10 * share}
            progress.write(step, total, **{f"{stage.kind}/{name}": value for name, value in metrics.items()})
        child.kill()


def run(stage_file: StageFile, out: Path) -> None:
    """The stage."""
    stage = stage_file.stage
    if num_steps(stage):
        train(stage, out)
    product = out / PRODUCTS.get(stage.kind, "model/config.json")
    write_json_atomic(product, results(stage.models) if stage.kind == "evaluate" else {"made_by": stage.kind})
    write_json_atomic(out / "metrics.json", {"inputs": len(stage_file.inputs)})


if __name__ == "__main__":
    sys.exit(run_command(load_stage_file(Path(sys.argv[1])).stage.kind, run, __doc__ or ""))

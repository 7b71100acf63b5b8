"""Our side of `bench_training.py`: one sft stage through its own command's code.

    python tests/benchmarks/bench_training_ours.py STAGE.json OUT

Prints one JSON line like the peer's: tokens, seconds and loss of each step, and the peak of resident memory above what
the imports take. Seconds are from one progress line to the next, so that packing and logging count.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from unittest import mock

from configs.stage import Progress, StageFile
from derivatives import sft
from derivatives.training.loop import Trainer


def resident_mb() -> float:
    """Memory that this process holds now, in 1e6 bytes."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize() / 1e6


def main() -> None:
    """Train and print."""
    stage_file = StageFile.model_validate_json(Path(sys.argv[1]).read_text("utf-8"))
    ends: list[float] = []
    steps, write = Trainer.steps, Progress.write

    def started(trainer: Trainer, total: int) -> object:
        ends.append(time.perf_counter())
        return steps(trainer, total)

    def written(progress: Progress, *given: object, **more: object) -> None:
        ends.append(time.perf_counter())
        write(progress, *given, **more)  # type: ignore[arg-type]

    imported = resident_mb()
    with mock.patch.object(Trainer, "steps", started), mock.patch.object(Progress, "write", written):
        sft.run(stage_file, Path(sys.argv[2]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    lines = [json.loads(line) for line in (Path(sys.argv[2]) / "progress.jsonl").read_text().splitlines()]
    print(json.dumps({
        "tokens": [line["sft/tokens"] for line in lines],
        "seconds": [after - before for before, after in zip(ends, ends[1:], strict=False)],
        "losses": [line["sft/loss"] for line in lines],
        "memory_mb": peak - imported,
    }))  # fmt: skip


if __name__ == "__main__":
    main()

"""What `derive plan` predicts beside what is measured, for every size that a small CPU machine can run.

    python tests/benchmarks/bench_plan.py [--threads 2] [--only 4M 7M] [--out FILE.json]

Random-weight checkpoints (the seedling itself at 4M) go through the real stage commands, each in a process of its own;
the prediction is made first, by the same code as `derive plan`. Measured speed is the median over the steps but the
first, memory the most that the process ever held. Of rl two lines: what is said beforehand, and what is said when the
length of its completions and the share of groups that train are known.

With one thread both sides are told in processor time, so that they hold on a machine that does other work besides;
with more, run it on quiet cores (about 6 minutes on two).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
TIME_STAGE = """
import importlib, sys, time
if sys.argv[1] == "1":
    time.perf_counter = time.process_time
from configs.stage import run_command
sys.exit(run_command(sys.argv[2], importlib.import_module("derivatives." + sys.argv[2]).run, "", sys.argv[3:]))
"""
"""A stage command, on one thread with the processor's time in the place of the wall clock's."""


@dataclass(frozen=True)
class Line:
    """A prediction beside its measurement."""

    case: str
    predicted: float
    measured: float
    predicted_gb: float
    measured_gb: float

    @property
    def error(self) -> float:
        """Of the speed, as a share of what was measured."""
        return self.predicted / self.measured - 1

    @property
    def memory_error(self) -> float:
        return self.predicted_gb / self.measured_gb - 1


def run_stage(kind: str, folder: Path, num_threads: int) -> tuple[list[dict[str, Any]], float]:
    """Progress of a stage that ran for real, and the most memory it held, in 1e9 bytes."""
    from configs.stage import read_progress

    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads), "PYTHONPATH": os.pathsep.join(paths)}
    given = str(num_threads), kind, str(folder / "stage.json"), str(folder / "out")
    command = [sys.executable, "-c", TIME_STAGE, *given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{kind}: {done.stderr.strip()[-500:]}")
    lines = read_progress(folder / "out")
    return lines, max(line[f"{kind}/peak_memory_gb"] for line in lines)


def measure(case: Any, folder: Path, num_threads: int) -> list[Line]:
    """Predict a case, then run it."""
    from tokenizers import Tokenizer

    from configs.settings.machine import Machine
    from derivatives.planning.amounts import Built, Known, drawn_before
    from derivatives.planning.devices import device_of
    from derivatives.planning.predict import predict, prepare, questions
    from derivatives.planning.questions import ask
    from derivatives.planning.shape import read_shape
    from tests.benchmarks import planned_models as models

    model = models.write_model(case.size, folder / "model")
    data = models.write_data(case, folder / "data")
    described = models.stage_file(case, model, data, num_threads)
    (folder / "stage.json").write_text(described.model_dump_json(), encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    built = {name: Built(Path(given["path"])) for name, given in data["inputs"].items()}
    known = Known({}, built, lambda text: len(tokenizer.encode(text, add_special_tokens=False)))
    device = device_of(Machine(name="cpu", num_threads=num_threads))

    def predicted(known: Known) -> Any:
        asked = prepare(described.stage, read_shape(model), device, known)
        found = ask(questions(asked), num_threads)
        if isinstance(found, str):
            raise SystemExit(f"{case.name}: {found}")
        return predict(asked, found)

    before = predicted(known)
    lines, memory_gb = run_stage(case.kind, folder, num_threads)
    timed = lines[1:] or lines
    speed = statistics.median(line[f"{case.kind}/tokens_per_s"] for line in timed)
    found = [_line(case.name, before, speed, memory_gb)]
    if case.kind == "rl":
        told = Built(folder, metrics=drawn_before(timed))
        after = predicted(replace(known, built={**built, described.stage.id: told}))
        found.append(_line(f"{case.name}, lengths known", after, speed, memory_gb))
    return found


def _line(name: str, prediction: Any, speed: float, memory_gb: float) -> Line:
    return Line(name, prediction.tokens_per_s, speed, prediction.memory.total / 1e9, memory_gb)


def table(lines: Sequence[Line], num_threads: int) -> str:
    """Markdown."""
    second = "processor second" if num_threads == 1 else "second"
    rows = [
        f"| stage, {num_threads} thread{'s' if num_threads > 1 else ''} | tokens a {second}, predicted | measured "
        "| error | GB, predicted | measured | error |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        rows.append(
            f"| {line.case} | {line.predicted:,.0f} | {line.measured:,.0f} | {line.error:+.0%} "
            f"| {line.predicted_gb:.2f} | {line.measured_gb:.2f} | {line.memory_error:+.0%} |"
        )
    return "\n".join(rows)


def main(say: Callable[[str], None] = print) -> None:
    """Run all cases and print the table."""
    from tests.benchmarks import planned_models as models

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: %(default)s)")
    parser.add_argument("--only", nargs="*", default=list(models.SHAPES)[:-1], choices=models.SHAPES,
                        help="sizes; 1.5B takes minutes and 16 GB and is left out unless named")  # fmt: skip
    parser.add_argument("--out", type=Path, help="also write the lines as JSON")
    given = parser.parse_args()
    found: list[Line] = []
    for case in models.CASES:
        if case.size not in given.only:
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found += measure(case, Path(folder), given.threads)
        last = found[-1]
        print(
            f"{case.name}: {last.predicted:,.0f} and {last.measured:,.0f} tokens/s, {last.predicted_gb:.2f} and "
            f"{last.measured_gb:.2f} GB, in {time.monotonic() - started:.0f} s",
            file=sys.stderr,
        )
    say(table(found, given.threads))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        lines = [asdict(line) | {"error": line.error, "memory_error": line.memory_error} for line in found]
        given.out.write_text(json.dumps({"threads": given.threads, "lines": lines}, indent=2) + "\n")


if __name__ == "__main__":
    main()

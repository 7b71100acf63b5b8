"""What an operator waits for: from a click to a run, a line on the board, a cancel, a pause; the server's memory; and
what the flow costs beside bare stage commands.

    python tests/benchmarks/bench_operator.py [--rounds 5] [--pairs 3] [--preset math/smoke] [--cores 0,1] [--out FILE]

The first part runs `derive up` over stage commands that take steps of a fifth of a second and compute nothing, so that
what is timed is the factory's part alone; requests are those that the page sends. The second builds the preset in
three ways in turn, each in a fresh store: its stage commands one after another from a shell (`derive plan --out`), the
flow without Prefect, the flow with Prefect's server for the run; each pair's difference is what the way costs. Stages
are trained for real, so the machine should have nothing else to do: every figure comes with the load.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from flows.supervisor import descendants  # noqa: E402
from tests.e2e.flow_fixtures import runs, starts, until  # noqa: E402
from tests.e2e.served_fixtures import Up  # noqa: E402

LIMIT_S = 120.0


def resident_mb(pids: Sequence[int]) -> float:
    """Memory of these processes, shared pages divided among those that map them, in MB."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def servers(up: Up) -> list[int]:
    """The Prefect server's processes, without the supervisor above them."""
    found: list[int] = []
    for pid in descendants(up.process.pid):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"server\0start" in command and b"supervisor.py" not in command:
            found += [pid, *descendants(pid)]
    assert found, "no Prefect server was found below derive up"
    return sorted(set(found))


def logs(up: Up) -> set[Path]:
    """The progress logs of all stages so far."""
    return set(up.store.root.glob("*/*/progress.jsonl"))


def seconds_until(condition: Any, began: float) -> float:
    if not until(condition, LIMIT_S):
        raise SystemExit(f"not within {LIMIT_S:g} s: {condition}")
    return time.monotonic() - began


class Served(Up):
    """`derive up` as an operator starts it; tests have it look for runs more often than Prefect does by itself."""

    def _start(self) -> subprocess.Popen[bytes]:
        self.environment.pop("PREFECT_RUNNER_POLL_FREQUENCY", None)
        return super()._start()


def one_round(up: Up, number: int) -> dict[str, float]:
    """A run that is submitted, watched, paused, resumed and cancelled."""
    figures: dict[str, float] = {}
    before, known = len(up.stage_pids()), logs(up)
    began = time.monotonic()
    run = up.submit({"overrides": [f"seed={number}"]})
    figures["submit to running"] = seconds_until(lambda: up.state(run)["name"] == "Running", began)
    figures["submit to the first stage"] = seconds_until(lambda: len(up.stage_pids()) > before, began)
    figures["submit to the first step of rl"] = seconds_until(
        lambda: any(path.read_text() for path in logs(up) - known), began
    )
    figures["board behind a step"] = statistics.median(board_delays(up, run))
    began = time.monotonic()
    up.press_pause(run)
    figures["pause to a free device"] = seconds_until(lambda: not any(map(runs, up.stage_pids())), began)
    figures["pause to the state"] = seconds_until(lambda: up.state(run)["name"] == "Checkpointed", began)
    told = up.steps()
    began = time.monotonic()
    up.press_resume(run)
    figures["resume to the next step"] = seconds_until(lambda: up.steps() > told, began)
    flow = up.flow_pid()
    began = time.monotonic()
    up.press_cancel(run)
    figures["cancel to nothing left"] = seconds_until(
        lambda: not any(runs(pid) for pid in (flow, *up.stage_pids())), began
    )
    figures["cancel to the state"] = seconds_until(lambda: up.state(run)["name"] == "Cancelled", began)
    return figures


def board_delays(up: Up, run: str, count: int = 4) -> list[float]:
    """Seconds from a step's line in the progress file to the moment when the board, read through the API, has it."""
    asked = {"sort": "CREATED_DESC", "limit": 50, "artifacts": {"flow_run_id": {"any_": [run]}}}

    def board() -> str:
        found = [one for one in up.ask("/artifacts/filter", asked) if str(one["key"]).startswith("board-")]
        return str(found[0]["data"]) if found else ""

    delays = []
    for _ in range(count):
        step = up.steps() + 1
        seconds_until(lambda step=step: up.steps() >= step, time.monotonic())  # type: ignore[misc]
        began = time.monotonic()
        shown = [f"step {number} of" for number in range(step, step + 40)]
        delays.append(seconds_until(lambda shown=shown: any(word in board() for word in shown), began))
    return delays


def clicks(rounds: int) -> dict[str, Any]:
    """The first part."""
    os.environ["FAKE_STAGE_STEPS"] = "3000"  # none ends before it is cancelled
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        with Served(Path(folder), "rl:train") as up:
            found: dict[str, Any] = {"up to the page": time.monotonic() - began}
            found["up to the forms"] = seconds_until(lambda: bool(up.ask("/deployments/filter", {"limit": 1})), began)
            found["server MB, idle"] = resident_mb(servers(up))
            rows = [one_round(up, number + 1) for number in range(rounds)]
            found["server MB, after the runs"] = resident_mb(servers(up))
            found["derive up MB"] = resident_mb([up.process.pid])
            assert len(starts(Path(folder))) >= rounds
    for name in rows[0]:
        values = [row[name] for row in rows]
        found[name] = {"median": statistics.median(values), "low": min(values), "high": max(values), "n": rounds}
    return found


def timed(command: Sequence[str], environment: dict[str, str]) -> float:
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return time.monotonic() - began


def overhead(preset: str, pairs: int) -> dict[str, Any]:
    """The second part: wall seconds of each way, in turn, and what the flow adds."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "DERIVE_STORE"))}
    cli = [sys.executable, "-m", "flows.cli"]
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(pairs):
            place = Path(folder) / str(number)
            plan = subprocess.run(
                [*cli, "plan", preset, "--out", str(place / "stages"), "--store", str(place / "none"), "--no-probe"],
                cwd=ROOT, env=ours, capture_output=True, text=True, check=True,
            )  # fmt: skip
            script = "\n".join(line.strip() for line in plan.stdout.splitlines() if " -m derivatives." in line
                               or " -m corpora." in line)  # fmt: skip
            ways = {
                "stage commands": ["bash", "-ec", script],
                "flow without Prefect": [*cli, "run", preset, "--no-prefect", "--store", str(place / "without")],
                "flow": [*cli, "run", preset, "--store", str(place / "with")],
            }
            order = list(ways) if number % 2 == 0 else list(reversed(ways))
            rows.append({name: timed(ways[name], ours) for name in order})
            print(json.dumps(rows[-1]), flush=True)
    added = [row["flow"] - row["stage commands"] for row in rows]
    return {
        "preset": preset,
        "rows": rows,
        "median s": {name: statistics.median(row[name] for row in rows) for name in rows[0]},
        "flow adds s": {"median": statistics.median(added), "low": min(added), "high": max(added), "n": pairs},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of the first part; 0 leaves it out")
    parser.add_argument("--pairs", type=int, default=3, help="rounds of the second part; 0 leaves it out")
    parser.add_argument("--preset", default="math/smoke", help="what the second part builds")
    parser.add_argument("--cores", default="", help="cores to stay on, such as 0,1")
    parser.add_argument("--out", type=Path, help="where the figures are written as JSON")
    given = parser.parse_args()
    if given.cores:
        os.sched_setaffinity(0, {int(core) for core in given.cores.split(",")})
    found: dict[str, Any] = {"load": os.getloadavg()[0]}
    if given.rounds:
        found["clicks"] = clicks(given.rounds)
    if given.pairs:
        found["overhead"] = overhead(given.preset, given.pairs)
    found["load at the end"] = os.getloadavg()[0]
    print(json.dumps(found, indent=1))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What the verifiers must reach, beside their peers, measured in one run: `make bench-verifiers`.

    python tests/benchmarks/bench_verifiers.py [--quick] [--rows hard-pairs,hostile] [--out FILE.json] [--jobs 2]
                                               [--no-peers]

Runs the rows of `verifier_rows.py` one after another, a line of progress each, and prints one Markdown table at the
end: what was measured, the peers in this run, ours, the target, and whether it was met. `--out` also writes all of it,
with the details, as JSON. A whole run takes some twenty minutes on two cores; `--quick` takes a small sample of each
row, whose figures say little. The peers are installed into environments of their own at the first time (`peers.py`).

DERIVE_DATA names the mirror of the public data sets; rows that need it are skipped without it, and say so. The exit
status is 0 also where a figure falls short, 1 where a row could not be run (the reason stands in the table).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.verifier_rows import ROWS, Bench, Line, Skipped  # noqa: E402 - needs the path above
from verifiers.sandbox import layers  # noqa: E402

MET = {True: "yes", False: "**no**", None: ""}


def main() -> int:
    """Run the chosen rows, and say what came of them."""
    arguments = parse()
    mirror = os.environ.get("DERIVE_DATA")
    if mirror and not Path(mirror).is_dir():
        print(f"DERIVE_DATA: {mirror!r} is no folder; name the mirror of the public data sets", file=sys.stderr)
        return 2
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments.quick, arguments.jobs, Path(mirror) if mirror else None, not arguments.no_peers)
    report: dict[str, Any] = {"machine": machine(), "quick": arguments.quick, "rows": {}}
    lines: list[Line] = []
    failed: dict[str, str] = {}
    for number, name in enumerate(arguments.rows, 1):
        print(f"[{number}/{len(arguments.rows)}] {name} ...", end=" ", flush=True)
        load, started = os.getloadavg()[0], time.monotonic()
        try:
            made, said = ROWS[name](bench), "done"
        except Skipped as skipped:
            made, said = [Line(name, "", f"skipped: {skipped}", "", None)], f"skipped: {skipped}"
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
            made, said = [Line(name, "", f"could not be run: {failed[name]}", "", False)], f"failed: {failed[name]}"
            report["rows"].setdefault(name, {})["traceback"] = traceback.format_exc()
        seconds = time.monotonic() - started
        print(f"{said} ({seconds:.0f} s)", flush=True)
        lines += made
        row = {"seconds": round(seconds, 1), "load_before": round(load, 2), "lines": [asdict(line) for line in made]}
        report["rows"].setdefault(name, {}).update(row)
        if arguments.out:
            arguments.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(f"\n{table(lines)}\n")
    print(f"{report['machine']['processor']}, {bench.jobs} processes at a time, Python {platform.python_version()}, "
          f"load {report['machine']['load']}{'; quick: small samples' if bench.quick else ''}")  # fmt: skip
    for name, reason in bench.left_out.items():
        print(f"peer left out: {name}: {reason}")
    for name, reason in failed.items():
        print(f"could not be run: {name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def table(lines: list[Line]) -> str:
    """The lines as a Markdown table."""
    rows = [("measure", "peer, in this run", "ours", "target", "met")]
    rows += [(line.measure, line.peer, line.ours, line.target, MET[line.met]) for line in lines]
    texts = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join([texts[0], "|---|---|---|---|---|", *texts[1:]])


def machine() -> dict[str, Any]:
    """Where this is measured."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    names = [line.partition(":")[2].strip() for line in cpu.splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(), "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(), "python": platform.python_version(), "load": os.getloadavg(),
        "layers": [layer.name for layer in layers() if layer.in_force],
    }  # fmt: skip


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small sample of each row")
    parser.add_argument("--rows", type=row_names, default=list(ROWS), help=f"comma-separated, of {', '.join(ROWS)}")
    parser.add_argument("--out", type=Path, help="JSON file for all figures with their details")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, where time is not measured")
    parser.add_argument("--no-peers", action="store_true", help="measure our side alone")
    return parser.parse_args()


def row_names(text: str) -> list[str]:
    """Row names separated by commas. Raises what argparse tells the user."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in ROWS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}; allowed: {', '.join(ROWS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())

"""Public graders and ours on the same answers: `make scoreboard` writes docs/scoreboard.md.

    python tests/benchmarks/scoreboard.py [--quick] [--parts labelled,hacks,completions,hostile] [--graders ours,...]
                                          [--sets hard,gsm8k,golds,made] [--out FILE.json] [--page FILE.md] [--jobs 2]

Each public grader runs in an environment of its own (`peers.py` installs it at the first time), asked for the same
verdicts in the same order, with a limit for each; what hangs or dies is counted. A grader that cannot be installed or
started is left out, with the reason on the page. `--parts`, `--graders` and `--sets` measure a part again: the figures
join those in `--out`, and the page is written from all of them.

DERIVE_DATA names the mirror of the public data sets; without it the labelled parts are skipped. Answers that hold
programs, and all hostile programs, are judged in confined processes (`hostile_peers.py`), which takes a machine where
user namespaces may be made. A whole run takes over an hour on two shared cores; `--quick` takes a small sample of each
part and writes no page.

The exit status is 0 also where ours is not first, 1 where a part could not be run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks import scoreboard_math, scoreboard_page, scoreboard_programs  # noqa: E402 - needs the path above
from tests.benchmarks.scoreboard_items import DataError  # noqa: E402

PARTS = ("labelled", "hacks", "completions", "hostile")
SETS = ("hard", "gsm8k", "golds", "made")
GRADERS = tuple(dict.fromkeys(
    grader.key for grader in (*scoreboard_math.GRADERS, *scoreboard_programs.GRADERS)))  # fmt: skip
Say = Callable[[str], None]


def main() -> int:
    """Measure the chosen parts, and write the figures and the page."""
    arguments = parse()
    mirror = os.environ.get("DERIVE_DATA")
    if mirror and not Path(mirror).is_dir():
        print(f"DERIVE_DATA: {mirror!r} is no folder; name the mirror of the public data sets", file=sys.stderr)
        return 2
    if arguments.quick:  # a sample is no figure of the board
        arguments.out = arguments.out.with_stem(arguments.out.stem + "-quick")
    report = {} if arguments.quick else earlier(arguments.out)
    if report:
        report["joined"] = True  # the page must not read as one run
    failed = {}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for name in arguments.parts:
        if name in ("labelled", "completions") and not mirror:
            print(f"{name}: skipped: DERIVE_DATA is not set: no mirror of the public data sets", flush=True)
            continue
        started, found, before = time.monotonic(), dict[str, Any](), report

        def keep(text: str, name: str = name, found: dict[str, Any] = found, before: dict[str, Any] = before) -> None:
            """Say it, and put what there is into the file, so that a run that is cut off is not lost."""
            print(f"  {text}", flush=True)
            arguments.out.write_text(json.dumps(joined(before, {"parts": {name: found}}), indent=1), encoding="utf-8")

        try:
            measure(name, Path(mirror or "."), arguments, found, keep)
        except DataError as error:
            failed[name] = str(error)
            continue
        seconds = time.monotonic() - started
        report = joined(before, {"parts": {name: found}, "machine": machine()})
        report["seconds"] = report.get("seconds", 0.0) + round(seconds, 1)
        arguments.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
        print(f"{name}: done ({seconds:.0f} s)", flush=True)
    page = scoreboard_page.page(report)
    if arguments.page and not arguments.quick:
        arguments.page.write_text(page, encoding="utf-8")
    else:
        print(page)
    for name, reason in failed.items():
        print(f"could not be run: {name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def measure(name: str, mirror: Path, arguments: argparse.Namespace, found: dict[str, Any], say: Say) -> None:
    """Put the figures of one part into `found`, grader after grader. Raises DataError."""
    only, jobs, quick = arguments.graders, arguments.jobs, arguments.quick
    if name == "labelled":
        scoreboard_math.judge_labelled(mirror, 40 if quick else None, only, arguments.sets, found, say)
    elif name == "hacks":
        scoreboard_math.judge_hacks(jobs, 12 if quick else 1, only, found, say)
    elif name == "completions":
        scoreboard_programs.judge_completions(mirror, jobs, 20 if quick else 1, only, found, say)
    else:
        scoreboard_programs.judge_hostile(jobs, 30 if quick else 1, only, found, say)


def earlier(path: Path) -> dict[str, Any]:
    """The figures of earlier runs in this file; none where it is not there."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both, the second where they say different things; what a grader said before is replaced whole."""
    both = dict(first)
    for key, value in second.items():
        into = both.get(key)
        whole = not isinstance(value, dict) or not isinstance(into, dict) or "hits" in value or "paid" in value
        both[key] = value if whole or "rewarded" in value else joined(into or {}, value)
    if "left_out" in both and "graders" in second:
        both["left_out"] = {key: why for key, why in both["left_out"].items() if key not in second["graders"]}
    return both


def machine() -> dict[str, Any]:
    """Where and when this is measured."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    names = [line.partition(":")[2].strip() for line in cpu.splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(), "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(), "load": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }  # fmt: skip


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small sample of each part, and no page")
    parser.add_argument("--parts", type=names_of(PARTS), default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--graders", type=names_of(GRADERS), default=list(GRADERS), help=f"of {', '.join(GRADERS)}")
    parser.add_argument("--sets", type=names_of(SETS), default=list(SETS), help=f"labelled ones, of {', '.join(SETS)}")
    parser.add_argument("--out", type=Path, default=Path("build/scoreboard.json"), help="the figures")
    parser.add_argument("--page", type=Path, help="Markdown file for the tables; else they are printed")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, where time is not measured")
    return parser.parse_args()


def names_of(allowed: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Reads names separated by commas. Raises what argparse tells the user."""

    def read(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        if unknown := [name for name in names if name not in allowed]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r}; allowed: {', '.join(allowed)}")
        return names

    return read


if __name__ == "__main__":
    sys.exit(main())

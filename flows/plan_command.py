"""`derive plan`: what a recipe would run, what that takes, and what would go wrong; nothing is run.

A stage that cannot fit, or a check that is refused, ends with exit code 2; everything is printed all the same. What is
predicted, and by which formula, is in `derivatives/planning/`; docs/planning.md has the measured error.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

HELP = """What a preset would run on a machine, before anything is spent: per stage tokens, steps, tokens/s, MFU, memory
of one device, time and device-hours; then checks of the base, the licences and the disk. No weights are loaded, and
nothing but stage files is written. On a CPU profile the parts of a stage are timed on this machine for a few seconds
(--no-probe leaves that out); figures for GPUs are worked out from data sheets and published runs, and say so.

A stage that does not fit the device's memory is refused, with the nearest setting that fits; then the exit code is 2.
`derive run` refuses nothing."""
EXAMPLE = """examples:
  derive plan math/7b --machine eight-gpu
  derive plan math/tiny --set rl.steps=80 --out stages/     also writes stage files, to run by hand
  derive plan math/0.5b --machine my-a100.yaml --json       a profile of your own: gpu: A100, or memory_gb and so on"""


def add_command(
    add: Callable[..., argparse.ArgumentParser],
    *parents: argparse.ArgumentParser,
) -> None:
    """The options of `derive plan`, beside those of the parents."""
    made = add("plan", "what a preset would run, what that takes, what would go wrong", *parents)
    made.description, made.epilog = HELP, EXAMPLE
    made.add_argument("preset", metavar="PRESET", help="preset name (`derive presets`) or path of a .yaml file")
    made.add_argument(
        "--machine", default="", help="launch profile: cpu, one-gpu, eight-gpu, or a .yaml file (default: what fits)"
    )
    made.add_argument("--no-probe", action="store_true", help="time nothing here: no speeds on a CPU profile")
    made.add_argument("--out", type=Path, metavar="DIR", help="write each stage's resolved stage file here")


def run(given: argparse.Namespace) -> int:
    """`derive plan PRESET`."""
    from flows import forecast  # which imports what the options need not

    return forecast.run(given)

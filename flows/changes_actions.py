"""The words of `derive verifiers diff`, `rescore` and `export`; what they do is in `flows/changes_command.py`.

Apart from it, so that `derive --help` is quick.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.rollouts_command import steps_given

DIFF = "derive verifiers diff exact math answers.jsonl --cases math.jsonl --truth B"
RESCORE = "derive verifiers rescore 7f3a --with exact --page changes.html"
EXPORT = "derive verifiers export math --for trl --out math-trl"
TOOLS = ("trl", "lm-eval", "verl")
SHOWN = 5


def add_actions(
    actions: Any, json_output: argparse.ArgumentParser, at_least: Callable[[float], Callable[[str], float]]
) -> None:
    """The parsers of these three under `derive verifiers`."""

    def action(name: str, summary: str, example: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = actions.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", parents=list(parents),
            epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        )  # fmt: skip
        return made

    def keeping(made: argparse.ArgumentParser) -> None:
        made.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write those whose label changed to this file")
        made.add_argument("--cases", type=Path, metavar="FILE.jsonl", help="append the disagreements to these cases")
        made.add_argument("--truth", choices=("A", "B"), default="A", help="who is right in the cases (default: A)")
        made.add_argument("--show", type=at_least(0), default=SHOWN, metavar="N", help="changes shown (%(default)s)")
        made.add_argument(
            "--workers", type=at_least(1), default=os.cpu_count() or 1, metavar="N",
            help="processes (default: %(default)s)",
        )  # fmt: skip

    made = action("diff", "judge a file by two verifiers and show where they differ", DIFF, json_output)
    made.add_argument("first", metavar="A", help="verifier (`derive verifiers list`)")
    made.add_argument("second", metavar="B", help="the other one")
    made.add_argument("source", metavar="DATA.jsonl", type=Path, help="lines as for `derive verifiers judge`")
    keeping(made)
    made.set_defaults(perform=_later("diff"))

    summary = "judge a run's stored completions by another verifier: labels, rewards, advantages"
    made = action("rescore", summary, RESCORE, json_output)
    made.add_argument("run_id", metavar="RUN", help="run id, or its beginning or end, or a stage's folder")
    made.add_argument("--with", dest="second", metavar="B", required=True, help="the other verifier")
    made.add_argument("--stage", default="", metavar="ID", help="stage of the run (default: the last rl, sample or "
                      "evaluate stage, in this order)")  # fmt: skip
    made.add_argument(
        "--steps", type=steps_given, default=(1, None), metavar="FIRST:LAST", help="only these steps (default: all)"
    )
    made.add_argument("--page", type=Path, metavar="FILE.html", help="write curves and changes as a page")
    made.add_argument(
        "--store", default="", metavar="DIR", help="artifact store (default: $DERIVE_STORE, else .derive)"
    )
    keeping(made)
    made.set_defaults(perform=_later("rescore"))

    made = action("export", "write a module that uses a verifier in another tool", EXPORT)
    made.add_argument("name", metavar="NAME", help="verifier (`derive verifiers list`)")
    made.add_argument("--for", dest="tool", choices=TOOLS, required=True, help="the tool")
    made.add_argument("--out", type=Path, metavar="DIR", help="folder (default: NAME-TOOL)")
    made.add_argument("--gold", default="answer", metavar="FIELD", help="field with the gold answer (default: answer)")
    made.add_argument("--partial-credit", action="store_true", help="an incorrect completion is worth its score")
    made.set_defaults(perform=_later("export"))


def _later(name: str) -> Callable[[argparse.Namespace], int]:
    def perform(given: argparse.Namespace) -> int:
        from flows import changes_command

        run: Callable[[argparse.Namespace], int] = getattr(changes_command, name)
        return run(given)

    return perform

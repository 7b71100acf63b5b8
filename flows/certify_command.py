"""`derive verifiers certify NAME`: every check of a verifier, its recall and false positives, and its card.

Progress goes to stderr, a line a check; the card, as a table or JSON, to stdout. Exit code 0 means certified, 2 means
not, with a sentence for each failed check. The card goes to `STORE/cards/NAME.json`, where `derive run` looks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import EXIT_USER_ERROR

if TYPE_CHECKING:
    from flows.store import Store
    from verifiers.certify import Card

EXAMPLE = """examples:
  derive verifiers certify math
  derive verifiers certify even --labelled judged_by_hand.jsonl      lines with completion, answer and correct
  derive verifiers certify even --only memory --only adversarial     some checks; such a card certifies nothing"""
STYLES = {"passed": "green", "failed": "bold red", "skipped": "dim", "measured": ""}
NARROW = 160


def add_actions(actions: Any, json_output: argparse.ArgumentParser) -> None:
    """The parser of `certify` under `derive verifiers`."""
    made: argparse.ArgumentParser = actions.add_parser(
        "certify",
        help="check a verifier without any model, and write its card",
        description="Check a verifier without any model, and write its card, without which RL refuses it as a reward.",
        epilog=EXAMPLE,
        parents=[json_output],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.set_defaults(perform=run)
    made.add_argument("name", metavar="NAME", help="verifier (`derive verifiers list`)")
    made.add_argument("--labelled", type=Path, metavar="FILE.jsonl", help="labelled completions, to measure recall")
    made.add_argument("--cases", type=Path, metavar="FILE.jsonl", help="cases (default: those beside the verifier)")
    made.add_argument("--only", action="append", default=[], metavar="CHECK", help="this check alone; may be repeated")
    made.add_argument("--out", type=Path, metavar="FILE.json", help="card to write (default: STORE/cards/NAME.json)")
    made.add_argument("--store", default="", metavar="DIR", help="folder of all products and cards")


def certify(
    name: str,
    cases: Path | None = None,
    labelled: Path | None = None,
    progress: Callable[[str], None] = lambda line: None,
    store: Store | None = None,
    only: tuple[str, ...] = (),
    out: Path | None = None,
) -> Card:
    """Certify a verifier and keep its card.

    Args:
        name: Registry name.
        cases: File of cases; None takes those beside the verifier.
        labelled: File of labelled completions; None takes the pinned ones of a built-in verifier, if they are there.
        progress: Takes a line for each check.
        store: Where the card is kept; None for the default store.
        only: Checks to run; a card of some checks is kept only where `out` says so.
        out: Another file for the card.

    Raises:
        UserError: No such verifier or check, or a file that cannot be read.
    """
    from flows.certified import cards_folder
    from flows.store import Store
    from verifiers.certify import certify as check_all
    from verifiers.certify.labelled import from_file

    sources = None if labelled is None else [from_file(labelled)]
    card = check_all(name, cases, sources, progress, only)
    path = out or (None if only else cards_folder(store or Store(None)) / f"{name}.json")
    if path is not None:
        card.write(path)
    return card


def run(given: argparse.Namespace) -> int:
    """`derive verifiers certify`. Raises UserError."""
    from flows.certified import cards_folder
    from flows.store import Store

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    store = Store(given.store or None)
    only = tuple(given.only)
    card = certify(given.name, given.cases, given.labelled, progress, store, only, given.out)
    passed = card.certified or (bool(only) and not card.failed)
    if given.json:
        print(json.dumps(card.as_dict(), indent=2, ensure_ascii=False))
    else:
        _show(card)
        kept = given.out or (None if only else cards_folder(store) / f"{given.name}.json")
        _say(card, only, kept)
    for finding in card.failed:
        print(f"error: {card.name}: {finding.check}: {finding.sentence}", file=sys.stderr)
    return 0 if passed else EXIT_USER_ERROR


def _show(card: Card) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console = console if console.is_terminal else Console(width=NARROW)
    table = Table(title=f"{card.name} {card.identity['version']}", title_justify="left")
    for heading in ("check", "status", "what was seen"):
        table.add_column(heading)
    for row in card.rows():
        table.add_row(Text(row["what"]), Text(row["status"], STYLES[row["status"]]), Text(row["sentence"]))
    console.print(table)
    for finding in card.failed:
        if finding.evidence:
            shown = json.dumps(dict(finding.evidence), ensure_ascii=False)
            console.print(Text(f"{finding.check}, the smallest example: {shown}"), soft_wrap=True)


def _say(card: Card, only: tuple[str, ...], path: Path | None) -> None:
    said = f"{'certified' if card.certified else 'not certified'} in {card.seconds:g} s"
    skipped = [finding.check for finding in card.findings if finding.status == "skipped"]
    said += f" ({len(skipped)} checks skipped: {', '.join(skipped)})" if skipped else ""
    said += "; only some checks were run, leave --only out for a certificate" if only and not card.failed else ""
    print(f"{card.name}: {said}" + (f"; card {card.digest[:12]}: {path}" if path else ""))

"""Write the cards of the built-in verifiers: `make cards`, or `python -m verifiers.certify.renew [NAME ...]`.

    --stale       only those whose verifier, or cases, have changed since their card was made

A card is written where its verifier is certified; where one is not, its old card goes, the failed checks are told, and
the exit status is 1. DERIVE_DATA names the mirror of the public data sets, for recall and false positives.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from configs.errors import UserError
from verifiers import registry
from verifiers.cases import cases_path
from verifiers.certify.card import PACKAGED, load_card
from verifiers.certify.run import certify


def main() -> int:
    """Certify one verifier after another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(sorted(registry.BUILT_IN))}")
    parser.add_argument("--stale", action="store_true", help="only those whose card does not fit any more")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in registry.BUILT_IN]:
        parser.error(f"{unknown[0]!r} is not built in; allowed: {', '.join(sorted(registry.BUILT_IN))}")
    names = given.names or sorted(registry.BUILT_IN)
    wanted = [name for name in names if not given.stale or problem(name)]
    failed = [name for name in wanted if not renew(name)]
    told = f"not certified: {', '.join(failed)}" if failed else f"certified: {', '.join(wanted) or 'all, as before'}"
    print(told, file=sys.stderr if failed else sys.stdout)
    return 1 if failed else 0


def renew(name: str, folder: Path = PACKAGED) -> bool:
    """Certify one and write its card, or remove the old one; whether it is certified."""
    print(f"== {name}", flush=True)
    card = certify(name, progress=lambda line: print(line, flush=True))
    path = folder / f"{name}.json"
    if card.certified:
        card.write(path)
    else:
        path.unlink(missing_ok=True)
    print(f"{name}: {'certified' if card.certified else 'NOT certified'} in {card.seconds:g} s", flush=True)
    return card.certified


def problem(name: str, folder: Path = PACKAGED) -> str:
    """Why the packaged card of a built-in verifier does not hold any more; empty where it does."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return "has no card"
    try:
        card = load_card(path)
    except UserError as error:
        return str(error)
    now = registry.identity(name)
    if not card.current(now):
        changed = "version" if card.identity["version"] != now["version"] else "source"
        return f"has another {changed} than when its card was made"
    cases = cases_path(name)
    if cases is None or card.cases["sha256"] != hashlib.sha256(cases.read_bytes()).hexdigest():
        return "has other cases than when its card was made"
    return "" if card.certified else "is not certified by its card"


if __name__ == "__main__":
    sys.exit(main())

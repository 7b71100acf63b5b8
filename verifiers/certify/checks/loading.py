"""The verifier can be imported, carries its registered name and a version; tried in a process of its own first."""

from __future__ import annotations

from verifiers.certify.bench import Bench
from verifiers.certify.card import Finding
from verifiers.certify.children import ChildFault, ask

NAME = "loading"


def check(bench: Bench) -> Finding:
    """An import that hangs, exits or fails ends the child alone."""
    try:
        found = ask(bench, "identify", [], 0.0)
    except ChildFault as fault:
        return Finding(NAME, "failed", f"importing it: it {fault}; mend the module, or what it imports")
    if found["name"] != bench.name:
        return Finding(
            NAME,
            "failed",
            f"it calls itself {found['name']!r} and is registered as {bench.name!r}; give both the same name, so that "
            "a lineage names what judged",
        )
    if not found["version"].strip():
        return Finding(NAME, "failed", "its version is empty; give one, and raise it when its judgement changes")
    return Finding(NAME, "passed", "it is imported, and has a name and a version")

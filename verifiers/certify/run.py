"""Certifying: all checks of one verifier in their order, then its labelled data, into a card."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.names import unknown
from verifiers import registry
from verifiers.cases import Case, cases_path, read_cases
from verifiers.certify.bench import Bench, Limits
from verifiers.certify.card import Card, Finding, Labelled, labelled_sentence
from verifiers.certify.checks import ALWAYS, CHECK_NAMES, CHECKS, STOPS
from verifiers.certify.labelled import Source, measure, pinned

NO_LABELLED = "no labelled data: give some with --labelled FILE.jsonl (completion, answer, correct a line)"
NOT_RUN = "not run: "


def certify(
    name: str,
    cases: Path | None = None,
    labelled: Sequence[Source] | None = None,
    progress: Callable[[str], None] = lambda line: None,
    only: Collection[str] = (),
    limits: Limits | None = None,
) -> Card:
    """The card of a verifier.

    Args:
        name: Registry name.
        cases: File of cases; None takes those that lie beside the verifier.
        labelled: Data with labels to measure recall and false positives on; None takes the pinned ones of a built-in
            verifier from the mirror that DERIVE_DATA names.
        progress: Takes one line for each check.
        only: Checks to run besides those that all need; such a card certifies nothing. Empty for all.
        limits: How far the checks go.

    Raises:
        UserError: There is no such verifier or check, or a file of cases or of labelled data cannot be read.
    """
    registry.check_name(name)
    for asked in only:
        if asked not in CHECK_NAMES:
            raise unknown("--only", asked, "check", list(CHECK_NAMES))
    path = cases if cases is not None else cases_path(name)
    known = read_cases(path) if path else []
    note = NO_LABELLED
    if labelled is None:
        labelled, said = pinned(name, Path(mirror) if (mirror := os.environ.get("DERIVE_DATA")) else None)
        note = said or NO_LABELLED
    began = time.monotonic()
    with Bench(name, known, limits or Limits(), path) as bench:
        findings = _findings(bench, [*ALWAYS, *only] if only else CHECK_NAMES, progress)
        measured = _measured(bench, findings, labelled, progress)
    return Card(
        identity=_identity(name, findings[0]),
        cases=_about_cases(known, path),
        findings=tuple(findings),
        labelled=tuple(measured),
        labelled_note="" if measured else note,
        latency=next((dict(each.measured) for each in findings if each.check == "latency"), {}),
        limits={"deadline_s": bench.deadline_s, "memory_mb": bench.limits.memory_mb},
        environment={"python": platform.python_version(), "platform": platform.platform()},
        made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=round(time.monotonic() - began, 1),
    )


def _findings(bench: Bench, wanted: Collection[str], progress: Callable[[str], None]) -> list[Finding]:
    findings: list[Finding] = []
    stopped = ""
    for number, check in enumerate(CHECK_NAMES, 1):
        began = time.monotonic()
        if stopped:
            findings.append(Finding(check, "skipped", stopped))
            continue
        if check not in wanted:
            continue
        finding = CHECKS[check](bench)
        findings.append(finding)
        took = time.monotonic() - began
        progress(f"[{number}/{len(CHECK_NAMES)}] {check}: {finding.status} ({took:.1f} s): {finding.sentence}")
        if check in STOPS and finding.status == "failed" and not _can_go_on(bench, check):
            stopped = f"{NOT_RUN}{check} must pass first"
    return findings


def _can_go_on(bench: Bench, check: str) -> bool:
    """Few cases, or gold cases that are refused, leave the others worth running; a verifier that hangs does not."""
    if check == "cases":
        return bool(bench.gold and bench.near_misses)
    if check == "gold":
        from verifiers.api import OVER_BUDGET, Outcome

        verdicts = [verdict for verdict in bench.baseline if verdict is not None]
        faults = [one for one in verdicts if one.outcome is Outcome.NO_VERDICT or one.reason == OVER_BUDGET]
        return not faults
    return False


def _measured(
    bench: Bench, findings: Sequence[Finding], sources: Sequence[Source], progress: Callable[[str], None]
) -> list[Labelled]:
    if any(finding.sentence.startswith(NOT_RUN) for finding in findings):
        return []
    measured = []
    for source in sources:
        one = measure(bench, source)
        measured.append(one)
        progress(f"[labelled] {one.data}: {labelled_sentence(one)}")
    return measured


def _identity(name: str, loading: Finding) -> dict[str, str]:
    """The registry's; where the verifier cannot be imported, its name alone."""
    if loading.status == "failed":
        return {"name": name, "version": "", "source": ""}
    try:
        return dict(registry.identity(name))
    except UserError:
        return {"name": name, "version": "", "source": ""}


def _about_cases(cases: Sequence[Case], path: Path | None) -> dict[str, Any]:
    gold = sum(case.expect.value == "correct" for case in cases)
    digest = "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
    return {"gold": gold, "near_misses": len(cases) - gold, "sha256": digest}

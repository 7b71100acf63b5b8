"""The math verifier beside its peers on labelled answers: recall, false positives, answers per second on one core.

    python tests/benchmarks/bench_math_verifier.py [FILE.jsonl ...] [--peer-python PYTHON | --no-peer]
                                                   [--repeats 3] [--limit N]

A line of a file is `{"gold": ..., "completion": ..., "correct": true or false}`, with `question` where there is one;
the default files are those of `$DERIVE_DATA/verify`. Each file is judged by all sides in turn, `--repeats` times, in
processes of their own, after a warm-up; rates are medians, in processor time (a busy machine changes it less) and in
wall time. Prints one JSON line per file and one for the known false positives of Math-Verify 0.9.

The peers, Math-Verify and Qwen2.5-Math's grader, run in environments of their own (`peers.py`). Math-Verify's may be
named by its interpreter. A peer whose environment cannot be made is left out, with the reason on standard error. Qwen's
grader judges each file once: it is slow where Math-Verify is.

What this does not do: no pool; `tests/unit/test_verifiers_pool.py` sees to that. It asserts nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).parents[2])
WARM_UP = 20
"""Rows judged before the clock starts."""
KNOWN = [
    {"gold": "3x + 4y + 14=0", "completion": "3*x-1*y+13=0", "correct": False, "plain": True},
    {"gold": "$\\frac{1}{2^{98}}$", "completion": "$\\frac{1}{2^{99}}$", "correct": False},
    {"gold": "$5 \\text{ m}$", "completion": "$5 \\text{ cm}$", "correct": False},
    {"gold": "$10$", "completion": "$10\\%$", "correct": False},
]
"""False positives of Math-Verify 0.9.0."""
Row = dict[str, Any]


def our_judge(with_question: bool) -> Callable[[Row], bool]:
    """Our verdict on a row."""
    sys.path.insert(0, ROOT)
    from verifiers.api import Task
    from verifiers.math import MathVerifier

    verifier = MathVerifier()
    verifier.warm_up()

    def judge(row: Row) -> bool:
        question = row.get("question", "") if with_question else ""
        return verifier.judge(Task("row", question, row["gold"]), row["completion"]).score == 1.0

    return judge


def peer_judge() -> Callable[[Row], bool]:
    """Math-Verify's verdict on a row, each side in the form that it reads best; an exception counts as a no."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    how = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())

    def judge(row: Row) -> bool:
        gold, answer = row["gold"], row["completion"]
        plain = bool(row.get("plain"))
        gold = gold if plain or "$" in gold or "\\boxed" in gold else f"${gold}$"
        marked = plain or any(mark in answer for mark in ("$", "\\boxed", "\n")) or len(answer) > 200
        try:
            return bool(verify(parse(gold, extraction_config=how),
                               parse(answer if marked else f"${answer}$", extraction_config=how)))
        except Exception:
            return False

    return judge


def qwen_judge() -> Callable[[Row], bool]:
    """The verdict of Qwen2.5-Math's grader on a row, both sides normalised as its evaluation does; of a whole solution
    it first extracts the answer."""
    path = importlib.metadata.distribution("evalscope").locate_file("evalscope/metrics/math_parser.py")
    spec = importlib.util.spec_from_file_location("math_parser", str(path))
    assert spec is not None and spec.loader is not None
    grader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(grader)

    def judge(row: Row) -> bool:
        try:
            is_solution = any(mark in row["completion"] for mark in ("\\boxed", "\n"))
            answer = grader.extract_answer(row["completion"]) if is_solution else row["completion"]
            return bool(grader.math_equal(grader.strip_answer_string(answer), grader.strip_answer_string(row["gold"])))
        except Exception:
            return False

    return judge


def measure(judge: Callable[[Row], bool], rows: list[Row]) -> dict[str, Any]:
    """Verdicts and rates of one side on one file."""
    for row in rows[:WARM_UP]:
        judge(row)
    wall, processor = time.perf_counter(), time.process_time()
    said = [judge(row) for row in rows]
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    right = sum(row["correct"] for row in rows)
    hits = sum(yes and row["correct"] for yes, row in zip(said, rows, strict=True))
    return {
        "rows": len(rows), "right": right, "hits": hits, "recall": hits / right if right else None,
        "false_positives": sum(yes and not row["correct"] for yes, row in zip(said, rows, strict=True)),
        "per_s": len(rows) / processor, "per_s_wall": len(rows) / wall,
    }


def run(python: str, side: str, rows: list[Row], timeout_s: float = 3_600.0) -> dict[str, Any]:
    """`measure` in a process of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.flush()
        done = subprocess.run([python, __file__, file.name, "--side", side], check=True, timeout=timeout_s,
                              stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare_sides(name: str, rows: list[Row], math_verify: str | None, qwen: str | None, repeats: int) -> Row:
    """One file, all sides in turn; a peer that is None is left out."""
    sides = {"ours": (sys.executable, "ours"), "ours_without_question": (sys.executable, "blind")}
    if math_verify is not None:
        sides["math_verify"] = (math_verify, "peer")
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, (python, how) in sides.items():
            runs[side].append(run(python, how, rows))
    if qwen is not None:
        runs["qwen_grader"] = [run(qwen, "qwen", rows)]
    report: Row = {"file": name}
    for side, measured in runs.items():
        report[side] = {**measured[-1], "per_s": round(statistics.median(one["per_s"] for one in measured), 1),
                        "per_s_wall": round(statistics.median(one["per_s_wall"] for one in measured), 1)}
    if math_verify is not None:
        for rate in ("per_s", "per_s_wall"):
            report["times_as_fast" + rate[5:]] = round(report["ours"][rate] / report["math_verify"][rate], 1)
    return report


def read(path: Path, limit: int | None) -> list[Row]:
    """The rows of a file; with a limit, so many drawn with a fixed seed."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return rows if limit is None or limit >= len(rows) else random.Random(0).sample(rows, limit)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--peer-python", help="interpreter of an environment with Math-Verify")
    parser.add_argument("--no-peer", action="store_true", help="measure our side alone")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, help="rows of each file")
    parser.add_argument("--side", choices=("ours", "blind", "peer", "qwen"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        makers = {"ours": lambda: our_judge(True), "blind": lambda: our_judge(False), "peer": peer_judge,
                  "qwen": qwen_judge}
        judge = makers[arguments.side]()
        print(json.dumps(measure(judge, read(arguments.files[0], None))))
        return 0
    sys.path.insert(0, ROOT)  # not in a peer's environment, which may have another `tests`
    from tests.benchmarks.peers import MATH_VERIFY, QWEN_GRADER, available

    files = arguments.files
    if not files and os.environ.get("DERIVE_DATA"):
        files = sorted((Path(os.environ["DERIVE_DATA"]) / "verify").glob("*.jsonl"))
    if not files:
        print("no files: name some, or set DERIVE_DATA to a mirror with a folder verify/", file=sys.stderr)
        return 2
    math_verify = None if arguments.no_peer else arguments.peer_python or available(MATH_VERIFY)
    qwen = None if arguments.no_peer else available(QWEN_GRADER)
    for path in files:
        rows = read(path, arguments.limit)
        print(json.dumps(compare_sides(path.stem, rows, math_verify, qwen, arguments.repeats)), flush=True)
    print(json.dumps(compare_sides("known_false_positives", KNOWN, math_verify, qwen, 1)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

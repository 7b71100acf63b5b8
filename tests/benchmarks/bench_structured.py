"""Speed of the structured verifiers, of judges behind an address, and of a reward model; figures of docs/verifiers.

    python tests/benchmarks/bench_structured.py --out build/bench-structured.json

Judges are asked over HTTP on the loopback device, where a server answers after a stated time: what is measured is the
pool, not a model. The reward model is the seedling under a head of random numbers, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from configs.settings.common import TaskSource  # noqa: E402
from tests.fake_judge import FakeJudge, Messages  # noqa: E402
from tests.injections import GOLD, QUESTION, honest, is_trap, reply_to  # noqa: E402
from verifiers.api import Task, Verifier  # noqa: E402
from verifiers.cases import cases_path, read_cases  # noqa: E402
from verifiers.pool import VerifierPool  # noqa: E402
from verifiers.processes import resident_mb  # noqa: E402
from verifiers.registry import load_verifier  # noqa: E402
from verifiers.tasks import load_tasks, worked_solution  # noqa: E402

SEEDLING = ROOT / "derivatives" / "seedling" / "checkpoint"
PLUGIN = '''
from verifiers.judge import JudgeServer, JudgeVerifier

def bench_judge():
    """Correct if a model finds the answer right."""
    return JudgeVerifier("bench_judge", JudgeServer({url!r}, "fake"), "10: right. 0: wrong.")
'''


def rule_rows(seconds: float) -> list[dict[str, Any]]:
    """Judgements a second of the two rules: on their cases, and on the solutions of their generated tasks."""
    rows = []
    for name, family in (("json_schema", "structured/orders"), ("table", "structured/tables")):
        verifier = load_verifier(name)
        path = cases_path(name)
        assert path is not None
        cases = [(case.task, case.completion) for case in read_cases(path)]
        tasks = load_tasks(TaskSource(name=family, count=200))
        solved = [(task, worked_solution(task) or "") for task in tasks]
        for what, pairs in (("cases", cases), (family, solved)):
            rows.append({"verifier": name, "on": what, "n": len(pairs), **rate(verifier, pairs, seconds)})
    return rows


def rate(verifier: Verifier, pairs: list[tuple[Task, str]], seconds: float) -> dict[str, float]:
    """Judgements a second in this thread, by its processor time, over whole rounds."""
    for pair in pairs:
        verifier.judge(*pair)
    started, rounds = time.process_time(), 0
    while time.process_time() - started < seconds:
        for pair in pairs:
            verifier.judge(*pair)
        rounds += 1
    spent = time.process_time() - started
    return {"per_second": rounds * len(pairs) / spent, "seconds": spent}


def judge_rows(delay_s: float, workers: tuple[int, ...], per_worker: int) -> list[dict[str, Any]]:
    """Verdicts a second through a pool whose judge answers each request after `delay_s`. Right answers need two."""
    rows, task = [], Task("t", QUESTION, GOLD)
    for num in workers:
        with FakeJudge(graded, delay_s) as server, tempfile.TemporaryDirectory() as folder:
            install(Path(folder), PLUGIN.format(url=server.url))
            with VerifierPool(num_workers=num, verifier="bench_judge") as pool:
                pool.judge([(task, "41")] * num * 2)  # every worker stands
                server.calls.clear()
                started = time.monotonic()
                verdicts = pool.judge([(task, "42" if number % 2 else "41") for number in range(num * per_worker)])
                spent = time.monotonic() - started
                memory = [resident_mb(pid) for pid in pool.worker_pids()]
            sys.path.remove(folder)
        rows.append({
            "workers": num, "delay_s": delay_s, "n": len(verdicts),
            "correct": sum(each.score == 1 for each in verdicts),
            "verdicts_per_second": len(verdicts) / spent, "replies_per_second": len(server.calls) / spent,
            "most_at_once": server.most_at_once, "worker_mb": sum(memory) / max(1, len(memory)),
        })  # fmt: skip
    return rows


def graded(messages: Messages) -> str:
    """What a judge without fault replies."""
    return reply_to(messages, 0.0 if is_trap(messages) else honest(messages))


def install(folder: Path, text: str) -> None:
    """A plug-in as pip would leave it, on the path."""
    (folder / "bench_judge_plugin.py").write_text(text, encoding="utf-8")
    meta = folder / "bench_judge-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-judge\nVersion: 1.0\n")
    points = "[derivative_factory.verifiers]\nbench_judge = bench_judge_plugin:bench_judge\n"
    (meta / "entry_points.txt").write_text(points)
    sys.path.insert(0, str(folder))


def reward_rows(num_pairs: int) -> list[dict[str, Any]]:
    """Answers a second of a reward model of the seedling's size, on one thread: alone and in batches."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from verifiers.judge import RewardModelVerifier

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(7)
        model = AutoModelForSequenceClassification.from_pretrained(SEEDLING, num_labels=1, dtype="float32")
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(SEEDLING).save_pretrained(folder)
        verifier = RewardModelVerifier("reward", folder, -1.0, 1.0)
        verifier.warm_up()
        tasks = load_tasks(TaskSource(name="reasoning_gym/chain_sum", count=num_pairs))
        pairs = [(task.prompt, worked_solution(task) or task.answer) for task in tasks]
        tokens = sum(len(verifier._tokens(*pair) or ()) for pair in pairs)
        rows = []
        for batch in (1, 16, 64):
            verifier.rewards(pairs[:batch], batch)
            started = time.process_time()
            verifier.rewards(pairs, batch)
            spent = time.process_time() - started
            rows.append({"batch": batch, "n": len(pairs), "mean_tokens": tokens / len(pairs),
                         "answers_per_second": len(pairs) / spent, "tokens_per_second": tokens / spent})  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0, help="of processor time for each rate")
    parser.add_argument("--delay", type=float, default=0.5, help="seconds that the fake judge takes")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 8, 32], help="sizes of the pool of judges")
    parser.add_argument("--pairs", type=int, default=256, help="answers for the reward model")
    given = parser.parse_args()
    measured = {
        "rules": rule_rows(given.seconds),
        "judges": judge_rows(given.delay, tuple(given.workers), per_worker=12),
        "reward": reward_rows(given.pairs),
        "processors": len(os.sched_getaffinity(0)),
    }
    text = json.dumps(measured, indent=1)
    print(text)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

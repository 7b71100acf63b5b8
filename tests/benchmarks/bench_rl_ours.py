"""Our side of `bench_rl.py`: one rl stage through its own command's code, or the rollout engine alone.

    python tests/benchmarks/bench_rl_ours.py train STAGE.json OUT [--judge-cut]
    python tests/benchmarks/bench_rl_ours.py decode STAGE.json OUT

Prints one JSON line like the peer's. Seconds are from one progress line to the next, so that judging, the rollout store
and logging count; drawing is the time within the engine. The memory is this process's; each of the verifier's workers
takes some 30 MB more. `--judge-cut` has a completion that reached its longest judged like one that ended, as the peer
does: without it a model that never ends would have no reward, and nothing would be trained. `decode` reads the stage's
model, sampling and problems, and draws `steps` times exactly `max_new_tokens` of each completion.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from configs.settings.reinforcement import RlStage
from configs.stage import Progress, StageFile
from derivatives import rl
from derivatives.rollout import engine as engines
from derivatives.rollout.engine import Completion, RolloutEngine
from derivatives.rollout.problems import encode_prompt
from derivatives.training.loop import Trainer
from derivatives.training.model import load_model
from derivatives.training.order import items_between

PLUGIN = "[derivative_factory.verifiers]\ncontains = tests.benchmarks.bench_rl_contains:ContainsVerifier\n"


def resident_mb() -> float:
    """Memory that this process holds now, in 1e6 bytes."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize() / 1e6


def offer_verifier(folder: Path) -> None:
    """Make `contains` known to this process and to the pool's workers, as an installed plugin is."""
    info = folder / "bench_rl-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-rl\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(PLUGIN, encoding="utf-8")
    sys.path.insert(0, str(folder))


def train(stage_file: StageFile, out: Path, judge_cut: bool) -> dict[str, Any]:
    """The stage: the figures of each step."""
    ends: list[float] = []
    drawing: list[float] = []
    steps, write = Trainer.steps, Progress.write
    generate, completed = RolloutEngine.generate, engines._Run._completion

    def started(trainer: Trainer, total: int) -> object:
        ends.append(time.perf_counter())
        return steps(trainer, total)

    def written(progress: Progress, *given: Any, **more: Any) -> None:
        ends.append(time.perf_counter())
        write(progress, *given, **more)

    def drawn(engine: RolloutEngine, *given: Any, **more: Any) -> object:
        begun = time.perf_counter()
        result = generate(engine, *given, **more)
        drawing.append(time.perf_counter() - begun)
        return result

    def as_ended(run: Any, *given: Any) -> Completion:
        return replace(completed(run, *given), finish_reason="stop")

    with tempfile.TemporaryDirectory() as folder, ExitStack() as patches:
        offer_verifier(Path(folder))
        patched: list[tuple[Any, str, Callable[..., Any]]] = [
            (Trainer, "steps", started), (Progress, "write", written), (RolloutEngine, "generate", drawn),
        ]  # fmt: skip
        if judge_cut:
            patched.append((engines._Run, "_completion", as_ended))
        for where, name, function in patched:
            patches.enter_context(mock.patch.object(where, name, function))
        rl.run(stage_file, out)
    lines = [json.loads(line) for line in (out / "progress.jsonl").read_text("utf-8").splitlines()]
    return {
        "tokens": [line["rl/tokens"] for line in lines],
        "seconds": [after - before for before, after in zip(ends, ends[1:], strict=False)],
        "drawing": drawing,
        "without_spread": [line["rl/groups_without_spread"] for line in lines],
        "rewards": [line["rl/reward"] for line in lines],
        "trained": [line["rl/trained_tokens"] for line in lines],
        "mismatch": [line["rl/mismatch"] for line in lines],
    }


def decode(stage_file: StageFile) -> dict[str, Any]:
    """The engine alone, nothing ends early: the figures of each call."""
    stage = stage_file.stage
    assert isinstance(stage, RlStage)
    torch.set_num_threads(stage_file.machine.num_threads or 1)
    model, tokenizer = load_model(stage_file.model_folder(), stage.precision)
    tasks, _, _ = rl.read_problems(stage_file, stage)
    chosen = items_between(0, stage.prompts_per_step, len(tasks), stage_file.seed)  # those of the first step
    prompts = [encode_prompt(tasks[item], tokenizer, None) for item in chosen]
    engine = RolloutEngine(model, tokenizer)
    engine.stops_V.zero_()
    engine.stop_ids = frozenset()
    seconds, tokens = [], []
    for seed in range(stage.steps):
        started = time.perf_counter()
        groups = engine.generate(prompts, stage.group_size, stage.sampling, seed)
        seconds.append(time.perf_counter() - started)
        tokens.append(sum(len(one.token_ids) for group in groups for one in group))
    return {"tokens": tokens, "seconds": seconds, "drawing": seconds}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "decode"])
    parser.add_argument("stage", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--judge-cut", action="store_true", help="judge completions that reached their longest")
    given = parser.parse_args()
    stage_file = StageFile.model_validate_json(given.stage.read_text("utf-8"))
    imported = resident_mb()
    found = decode(stage_file) if given.what == "decode" else train(stage_file, given.out, given.judge_cut)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({**found, "memory_mb": peak - imported}))


if __name__ == "__main__":
    main()

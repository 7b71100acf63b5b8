"""The rollout store: bytes of a completion, milliseconds of a step. `python -m tests.benchmarks.bench_rollout_store`

Drawn, not generated: token ids by a power law over the vocabulary, log-probabilities of which a quarter are far from 0.
That is broader than what a tuned model writes, so sizes are an upper bound; times are of one thread, the disk's
synchronisation included.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from derivatives.rollout.engine import Completion
from derivatives.rollout.judged import Judged, Rolled
from derivatives.rollout.store import RolloutStore
from verifiers.api import correct, incorrect

NUM_PROMPTS, GROUP_SIZE, REPEATS = 32, 8, 9
SHAPES = ((64, 2_048), (256, 2_048), (1_024, 151_665))
"""Tokens of a completion, size of the vocabulary."""


def rolled(length: int, vocabulary: int) -> Rolled:
    """A step of completions of this length."""
    rng = np.random.default_rng(0)
    chances = 1 / np.arange(1, vocabulary + 1) ** 1.1
    chances /= chances.sum()
    groups = []
    for _ in range(NUM_PROMPTS):
        ids = rng.choice(vocabulary, size=(GROUP_SIZE, length), p=chances)
        sure = np.where(rng.random(ids.shape) < 0.75, 0.01, 1.5)
        values = (-np.abs(rng.gumbel(size=ids.shape)) * sure).astype(np.float32)
        verdicts = [correct("12", "same_number") if rng.random() < 0.5 else incorrect("other", "13") for _ in ids]
        groups.append(
            [
                Judged(Completion(row.tolist(), log_probs.tolist(), "stop", ""), verdict)
                for row, log_probs, verdict in zip(ids, values, verdicts, strict=True)
            ]
        )
    return Rolled(list(range(NUM_PROMPTS)), groups, list(range(NUM_PROMPTS)))


def main() -> None:
    """Print a line per shape."""
    for length, vocabulary in SHAPES:
        step = rolled(length, vocabulary)
        rewards = [[one.verdict.score for one in group] for group in step.groups]
        with tempfile.TemporaryDirectory() as folder:
            store = RolloutStore(Path(folder), "bench", ["math"])
            seconds = []
            for number in range(1, REPEATS + 1):
                began = time.perf_counter()
                store.write(number, step, rewards)
                seconds.append(time.perf_counter() - began)
            size = store.path(1).stat().st_size / (NUM_PROMPTS * GROUP_SIZE)
        print(
            f"{NUM_PROMPTS * GROUP_SIZE} completions of {length} tokens: {size:.0f} bytes each, "
            f"{size / length:.2f} a token; median {1e3 * statistics.median(seconds):.0f} ms a step"
        )


if __name__ == "__main__":
    main()

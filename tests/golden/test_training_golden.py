"""A short FP32 loss curve, stored as text: a refactoring must give it again.

`python -m tests.golden.test_training_golden` prints the curve of the code as it is. A change of it needs a reason.
Within one run two paths are compared exactly elsewhere; here another processor or torch may round differently.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from configs.stage import read_progress
from derivatives import sft
from tests.training_fixtures import sft_file, write_checkpoint, write_sums

CURVE = Path(__file__).parent / "sft_loss.txt"
TOLERANCE = 2e-3
"""Relative, for rounding that differs between processors and grows over the steps."""


def losses(folder: Path) -> list[float]:
    """Fifteen steps on sums, from the tiny random checkpoint."""
    given = sft_file(write_checkpoint(folder / "base"), write_sums(folder / "sums.jsonl", 40), epochs=3.0)
    (folder / "out").mkdir()
    sft.run(given, folder / "out")
    return [line["sft/loss"] for line in read_progress(folder / "out")]


def test_the_loss_curve_is_the_stored_one(tmp_path: Path) -> None:
    stored = [float(line) for line in CURVE.read_text().split()]
    assert losses(tmp_path) == pytest.approx(stored, rel=TOLERANCE)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print("\n".join(f"{loss:.5f}" for loss in losses(Path(scratch))))

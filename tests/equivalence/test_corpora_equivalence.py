"""A killed and repeated build, and one with another number of threads, write the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import derivatives
from configs.settings.corpus import CorpusStage
from configs.settings.machine import Machine
from configs.stage import StageFile, StageInput

ROOT = Path(derivatives.__file__).parent.parent
WAIT_S = 60.0


def stage_file(folder: Path, num_threads: int) -> Path:
    mine = folder / "mine.jsonl"
    mine.write_text("".join(json.dumps({"text": f"line {i} " * (i % 90)}) + "\n" for i in range(4_000)))
    stage = CorpusStage(id="corpus", output="tokens", num_tokens=300_000, sequence_length=128, sources=[
        {"name": str(mine), "weight": 3}, {"name": "python_stdlib", "count": 40},
        {"name": "sympy_examples", "count": 50}])
    base = StageInput(kind="base", path=str(ROOT / "derivatives" / "seedling" / "checkpoint"))
    resolved = StageFile(recipe="test", seed=3, inputs={"base": base}, stage=stage,
                         machine=Machine(name="cpu", num_threads=num_threads))
    path = folder / f"stage{num_threads}.json"
    path.write_text(resolved.model_dump_json())
    return path


def whole_line(folder: Path, num_threads: int) -> Path:
    """A stage with all steps, over the standard library."""
    resolved = StageFile.model_validate_json(stage_file(folder, num_threads).read_text())
    stage = CorpusStage(id="corpus", output="tokens", sequence_length=512, near_duplicates=True, subsequence=0.6,
                        decontaminate=[{"name": "reasoning_gym/chain_sum", "split": "heldout", "count": 20}], sources=[
        {"name": "python_stdlib", "count": 120, "licences": "permissive", "filters": "code", "redact": True, "fim": {}},
        {"name": "sympy_examples", "count": 150, "filters": ["repetition"]}])
    path = folder / f"whole{num_threads}.json"
    path.write_text(resolved.model_copy(update={"stage": stage}).model_dump_json())
    return path


def start(path: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "corpora.build", str(path), str(out)],
                            env={**os.environ, "PYTHONPATH": str(ROOT)})


def content(data: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(data.iterdir())}


def kill_when_there(path: Path, out: Path, sign: str) -> None:
    """Start the build and kill it as soon as a file or folder like `sign` (below OUT/) has something in it."""
    process = start(path, out)
    deadline = time.monotonic() + WAIT_S
    while process.poll() is None and not any(map(has_content, out.glob(sign))) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, f"the build ended before {sign} was seen"
    assert not (out / "data").exists() and not (out / "metrics.json").exists()


def has_content(path: Path) -> bool:
    """Whether a file has grown, or a folder holds one; it may go away meanwhile."""
    try:
        return any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_build_killed_while_reading_and_while_writing_ends_with_the_same_bytes(tmp_path: Path) -> None:
    assert start(stage_file(tmp_path, 1), tmp_path / "calm").wait() == 0
    for sign in ("work/*/first/0000/0*", "work/*/second/0002/*", "data.partial/tokens.bin"):
        kill_when_there(stage_file(tmp_path, 2), tmp_path / "killed", sign)
    assert start(stage_file(tmp_path, 2), tmp_path / "killed").wait() == 0
    calm, killed = content(tmp_path / "calm" / "data"), content(tmp_path / "killed" / "data")
    assert calm == killed and set(calm) == {
        "tokens.bin", "documents.npy", "sources.npy", "report.json", "dropped.jsonl", "kept.jsonl",
        "question_hashes.txt"}
    assert not (tmp_path / "killed" / "data.partial").exists()
    assert (tmp_path / "killed" / "metrics.json").read_bytes() == (tmp_path / "calm" / "metrics.json").read_bytes()


@pytest.mark.slow
def test_the_whole_line_killed_in_every_part_and_with_other_workers_ends_with_the_same_bytes(tmp_path: Path) -> None:
    assert start(whole_line(tmp_path, 1), tmp_path / "calm").wait() == 0
    for sign in ("work/*/first/0000/*", "work/*/first/0001/0*", "work/*/near/plan.json", "work/*/second/0001/*"):
        kill_when_there(whole_line(tmp_path, 2), tmp_path / "killed", sign)
    assert start(whole_line(tmp_path, 4), tmp_path / "killed").wait() == 0
    calm, killed = content(tmp_path / "calm" / "data"), content(tmp_path / "killed" / "data")
    assert calm == killed and "clusters.jsonl" in calm
    assert not (tmp_path / "killed" / "work").exists()

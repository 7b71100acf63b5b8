"""The other side of `verifiers.certify.child`: starts a process, asks it one thing, and kills it when it is late."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any

from verifiers.cases import Case
from verifiers.certify.bench import WORKERS, Bench
from verifiers.processes import kill_below

START_S = 60.0
"""Seconds for starting and importing the verifier, beside those for judging."""
_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from verifiers.certify.child import main; main(int(sys.argv[2]))"
)


def ask_all(
    bench: Bench, mode: str, cases: Sequence[Case], judging_s: float, *each: Mapping[str, Any], **more: Any
) -> list[Any]:
    """What several children answer, one for each set of further arguments, two of them at a time.

    Raises:
        ChildFault: One of them was late, or ended without an answer.
    """
    with ThreadPoolExecutor(WORKERS) as executor:
        asked = [executor.submit(ask, bench, mode, cases, judging_s, **{**more, **own}) for own in each]
        return [one.result() for one in asked]


class ChildFault(Exception):
    """A process that gave no answer; the text says why, and fits behind `it`."""


def ask(bench: Bench, mode: str, cases: Sequence[Case], judging_s: float, hash_seed: int = 0, **more: Any) -> Any:
    """What the child answers.

    Args:
        bench: Whose verifier and limits are used.
        mode: What is asked; see `child.MODES`.
        cases: What is judged.
        judging_s: Seconds that it may take beside its start.
        hash_seed: PYTHONHASHSEED of the process.
        more: What the mode needs besides.

    Raises:
        ChildFault: It was late, or ended without an answer.
    """
    pairs = [[{**vars(case.task), "metadata": dict(case.task.metadata)}, case.completion] for case in cases]
    request = {"verifier": bench.name, "mode": mode, "pairs": pairs, "memory_mb": bench.limits.memory_mb, **more}
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        asked.write(json.dumps(request).encode())
        asked.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(sys.path), str(os.getpid())],
            stdin=asked,
            stdout=said,
            stderr=errors,
            env={**os.environ, **one_thread, "PYTHONHASHSEED": str(hash_seed), "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
        )
        try:
            process.wait(START_S + judging_s)
        except subprocess.TimeoutExpired:
            raise ChildFault(f"did not come to an end within {START_S + judging_s:.0f} s and was killed") from None
        finally:
            _end(process)
        said.seek(0)
        try:
            return json.loads(said.read())
        except ValueError:
            how = _how(process.returncode, errors)
            raise ChildFault(f"ended its process instead of giving verdicts ({how})") from None


def _how(status: int, errors: IO[bytes]) -> str:
    """How a process ended, and the last thing that it said."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return f"{how}: {lines[-1][:200]}" if lines else how


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process with all that it started."""
    kill_below(process.pid)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, 9)
    process.kill()
    process.wait()

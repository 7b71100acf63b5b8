"""The first line of a failure: cause and remedy, from logs of real failures."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from configs.load import load_recipe
from flows.causes import cause_of, last_error
from flows.plan import PlannedStage
from flows.stages import NUM_LOG_LINES, _failure

RL = load_recipe("math/tiny").stage("rl")
MEMORY = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31)); "
FILES = "import resource, os; resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9)); [os.open('/', 0) for _ in range(9)]"
MISSING = "a file is missing (No such file or directory: '/no/such/file.jsonl')"
REAL = [
    (MEMORY + "bytearray(1 << 40)", "the host's memory is full (MemoryError)", "lower rl.micro_batch_tokens ("),
    ("open('/dev/full', 'w').write('x' * 10**6)", "the disk is full (No space left on device)", "`derive gc`"),
    ("import os; os.kill(os.getpid(), 9)", "it was killed by signal 9, mostly because", "free memory, or"),
    ("import no_such_package", "or does not fit (No module named 'no_such_package')", "install it"),
    ("from json import no_such_name", "does not fit (ImportError: cannot import name 'no_such_name'", "install it"),
    ("open('/no/such/file.jsonl')", MISSING, "bring it back"),
    ("raise PermissionError(13, 'Permission denied', '/x')", "may not be read or written (Permission", "right"),
    (FILES, "the limit of open files was reached", "ulimit -n"),
    ("import urllib.request; urllib.request.urlopen('http://no-such-host.invalid/')",
     "something could not be fetched from the network (", "DERIVE_DATA"),
    ("1 / 0", "ZeroDivisionError: division by zero", "mend the cause"),
]  # fmt: skip


def failed(program: str) -> tuple[list[str], int]:
    """The log and the exit code, as the supervisor gives it, of a program that fails."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    return done.stderr.splitlines(), done.returncode if done.returncode > 0 else 128 - done.returncode


@pytest.mark.parametrize(("program", "text", "remedy"), REAL)
def test_a_real_failure_names_its_cause_and_what_to_change(program: str, text: str, remedy: str) -> None:
    cause = cause_of(*failed(program), RL)
    assert cause is not None and text in cause.text and remedy in cause.remedy


def test_a_port_that_is_taken_names_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cause = cause_of(*failed(f"import socket; socket.socket().bind(('127.0.0.1', {port}))"), RL)
    assert cause is not None and cause.text == "a port is taken (Address already in use)"
    assert "rollout.port in the machine profile" in cause.remedy


@pytest.mark.slow
def test_ranks_that_wait_too_long_for_another_are_recognised(tmp_path: Path) -> None:
    program = (
        "import sys, time, datetime, torch, torch.distributed as dist;"
        f"dist.init_process_group('gloo', init_method='file://{tmp_path}/meet', rank=int(sys.argv[1]), world_size=2,"
        "timeout=datetime.timedelta(seconds=5));"
        "time.sleep(3600 * int(sys.argv[1])); dist.all_reduce(torch.ones(1))"
    )
    late = subprocess.Popen([sys.executable, "-c", program, "1"], stderr=subprocess.DEVNULL)
    try:
        done = subprocess.run([sys.executable, "-c", program, "0"], capture_output=True, text=True, check=False)
    finally:
        late.kill()
        late.wait()
    cause = cause_of(done.stderr.splitlines(), done.returncode, RL)
    assert cause is not None and cause.text.startswith("ranks lost one another (")
    assert "DERIVE_RANK_TIMEOUT_S" in cause.remedy


def test_what_is_more_telling_counts_and_within_it_the_last_line() -> None:
    log = ["RuntimeError: Connection closed by peer", "rank 1 of 2 was killed by signal 9; the others were ended"]
    cause = cause_of(log, 137, RL)
    assert cause is not None and cause.text.startswith("rank 1 of 2 was killed by signal 9")
    cause = cause_of(["FileNotFoundError: one", "FileNotFoundError: two"], 1, RL)
    assert cause is not None and cause.text == "a file is missing (two)"
    assert cause_of(["all is well"], 1, RL) is None


def test_a_remedy_names_the_fields_that_the_stage_has_and_what_they_are() -> None:
    log = ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a capacity of 79 GiB"]
    rl, sft, corpus = (load_recipe("math/tiny").stage(name) for name in ("rl", "sft", "corpus"))
    told = [cause_of(log, 1, stage) for stage in (rl, sft, corpus)]
    assert {cause.text for cause in told if cause} == {"the GPU's memory is full (Tried to allocate 2.00 GiB)"}
    remedies = [cause.remedy.partition(", or take")[0] for cause in told if cause]
    assert remedies == [
        f"lower rl.micro_batch_tokens ({rl.micro_batch_tokens} now) or rl.group_size ({rl.group_size} now)"
        f" or rl.sampling.max_new_tokens ({rl.sampling.max_new_tokens} now)",
        f"lower sft.micro_batch_tokens ({sft.micro_batch_tokens} now)",
        "lower corpora.workers in the machine profile",
    ]


def test_a_line_of_a_log_cannot_break_the_first_line(tmp_path: Path) -> None:
    cause = cause_of(["ValueError: a\x1b[31m\u2028b" + "c" * 1000], 1, RL)
    assert cause is not None and cause.text.isprintable() and len(cause.text) <= 160
    assert last_error(["Traceback (most recent call last):", "  x", "RuntimeError", "more"]) == "RuntimeError"
    assert last_error(["an Error occurred here", "no error"]) == ""


def test_the_first_line_says_all_and_the_end_of_this_attempts_log_follows(tmp_path: Path) -> None:
    log = tmp_path / "stage.log"
    lines, code = failed("open('/dev/full', 'w').write('x' * 10**6)")
    old = ["--- 2026-01-01 10:00:00 rl", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"]
    new = ["--- 2026-01-01 10:00:30 rl", *(f"line {number}" for number in range(100)), *lines]
    log.write_text("\n".join([*old, *new]) + "\n")
    planned = PlannedStage(RL, "derivatives.rl", "d", "d", {}, None, {})
    first, end, *rest = _failure(planned, log, code).split("\n")
    assert first == (
        "rl: the disk is full (No space left on device); free space there (`derive gc` shows what may go), then run "
        "the same command again: it resumes. The rl command ended with exit code 1."
    )
    assert end == f"End of {log}:" and len(rest) == NUM_LOG_LINES and rest[-1].strip() == lines[-1]

"""The supervisor leaves nothing running, whoever dies first. Real processes throughout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from flows.supervisor import STOPPED_EXIT, Supervised, descendants, kill_leftovers

ROOT = Path(__file__).parents[2]

DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(120)
    os._exit(0)
while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
    time.sleep(0.01)
"""


def start(script: str, *words: str, folder: Path, grace_s: float = 0.5) -> Supervised:
    with (folder / "log").open("ab") as log:
        return Supervised([sys.executable, "-c", script, *words], log, folder, dict(os.environ), grace_s=grace_s)


def until(condition: Callable[[], bool], limit_s: float = 10.0) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def pid_in(path: Path) -> int:
    assert until(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_the_exit_code_is_the_commands_own(tmp_path: Path) -> None:
    with start("import sys; sys.exit(75)", folder=tmp_path) as run:
        assert run.wait(10) == 75


def test_a_command_killed_by_signal_9_exits_with_128_plus_9(tmp_path: Path) -> None:
    with start("import os; os.kill(os.getpid(), 9)", folder=tmp_path) as run:
        assert run.wait(10) == 128 + 9


def test_output_of_the_command_lands_in_the_log(tmp_path: Path) -> None:
    with start("import sys; print('one'); print('two', file=sys.stderr)", folder=tmp_path) as run:
        run.wait(10)
    assert sorted((tmp_path / "log").read_text().split()) == ["one", "two"]


def test_a_command_that_cannot_start_is_the_users_error(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as log, Supervised(["no-such-launcher"], log, tmp_path, dict(os.environ)) as run:
        assert run.wait(10) == 2
    assert "error: cannot start 'no-such-launcher'" in (tmp_path / "log").read_text()


def test_a_daemon_that_forked_twice_and_ignores_sigterm_dies_with_its_command(tmp_path: Path) -> None:
    with start(DAEMON, str(tmp_path / "pid"), folder=tmp_path) as run:
        assert run.wait(20) == 0
    assert not runs(pid_in(tmp_path / "pid"))


def test_closing_ends_a_command_that_ignores_sigterm_within_the_grace_period(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, time; signal.signal(15, signal.SIG_IGN);"
        "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(120)"
    )
    run = start(script, str(tmp_path / "pid"), folder=tmp_path)
    pid = pid_in(tmp_path / "pid")
    began = time.monotonic()
    assert run.close() == STOPPED_EXIT
    assert 0.4 < time.monotonic() - began < 5
    assert not runs(pid)


def test_a_command_has_time_to_save_before_it_is_killed(tmp_path: Path) -> None:
    script = (
        "import pathlib, signal, sys, time\n"
        "def save(*_): time.sleep(0.3); pathlib.Path(sys.argv[2]).write_text('saved'); sys.exit(0)\n"
        "signal.signal(15, save); pathlib.Path(sys.argv[1]).write_text('1'); time.sleep(120)"
    )
    run = start(script, str(tmp_path / "pid"), str(tmp_path / "saved"), folder=tmp_path, grace_s=5)
    pid_in(tmp_path / "pid")
    run.close()
    assert (tmp_path / "saved").read_text() == "saved"


def test_kill_minus_9_of_the_parent_leaves_no_process(tmp_path: Path) -> None:
    parent = (
        "import os, sys, time\nfrom pathlib import Path\nfrom flows.supervisor import Supervised\n"
        "run = Supervised([sys.executable, '-c', sys.argv[2], sys.argv[1] + '/pid'], "
        "open(sys.argv[1] + '/log', 'ab'), Path(sys.argv[1]), dict(os.environ), grace_s=0.5)\n"
        "run.wait(120)"
    )
    script = DAEMON + "\ntime.sleep(120)"
    flow = subprocess.Popen([sys.executable, "-c", parent, str(tmp_path), script], cwd=ROOT)
    pid_in(tmp_path / "pid")
    family = descendants(flow.pid)
    assert len(family) == 3  # supervisor, command, daemon
    flow.send_signal(signal.SIGKILL)
    flow.wait()
    assert until(lambda: not any(runs(pid) for pid in family))


def test_kill_minus_9_of_the_supervisor_kills_the_command_and_leftovers_are_found(tmp_path: Path) -> None:
    run = start(DAEMON + "\ntime.sleep(120)", str(tmp_path / "pid"), folder=tmp_path)
    daemon = pid_in(tmp_path / "pid")
    assert until(lambda: len(descendants(run.process.pid)) == 2)
    command = next(pid for pid in descendants(run.process.pid) if pid != daemon)
    run.process.kill()
    run.close()
    assert until(lambda: not runs(command))
    assert kill_leftovers(tmp_path) == [daemon]
    assert until(lambda: not runs(daemon))


def test_leftovers_of_another_folder_are_spared(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with start("import time; time.sleep(120)", folder=other) as run:
        assert kill_leftovers(tmp_path) == []
        assert run.wait(0.2) is None

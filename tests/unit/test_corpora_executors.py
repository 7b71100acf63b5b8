"""Tasks in processes that die, fail, or are not wanted any longer; artifacts that appear once; exact duplicates."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import derivatives
from configs.errors import RetryableError, UserError
from configs.settings.machine import CorpusWorkers, Machine
from corpora import artifact, exact
from corpora.executors import MOST_DEATHS, Task, open_executor, processes
from corpora.executors.processes import Processes

ROOT = Path(derivatives.__file__).parent.parent
DEADLY = '''
import os, signal, sys, time
from pathlib import Path
from configs.errors import UserError

def square(number):
    return number * number

def die_first(folder, number, times):
    """Killed by the kernel's hardest signal the first few times."""
    tried = Path(folder) / str(number)
    done = len(tried.read_text()) if tried.exists() else 0
    tried.write_text("x" * (done + 1))
    if done < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return number

def wrong(number):
    raise UserError(f"number: {number}; allowed: others")

def full(path):
    raise OSError(28, "No space left on device", path)

def slow(number, seconds):
    time.sleep(seconds)
    return number

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")

def odd():
    raise Odd(1, 2)
'''


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Functions that workers can import."""
    (tmp_path / "deadly_tasks.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(str(tmp_path))
    import deadly_tasks  # type: ignore[import-not-found]

    yield deadly_tasks
    del sys.modules["deadly_tasks"]


def test_results_come_in_order_though_workers_die_and_the_error_names_what_they_died_over(
    deadly: Any, tmp_path: Path,
) -> None:
    with Processes(2) as executor:
        tasks = [Task(f"shard {i}", deadly.die_first, (str(tmp_path), i, 1 if i in (0, 5) else 0)) for i in range(12)]
        assert list(executor.ordered(tasks)) == list(range(12))
        assert (tmp_path / "5").read_text() == "xx" and (tmp_path / "6").read_text() == "x"
        hopeless = [Task("shard 0", deadly.square, (3,)),
                    Task("code.jsonl, shard 1: first pass", deadly.die_first, (str(tmp_path), 21, 99))]
        with pytest.raises(RetryableError, match=r"code\.jsonl, shard 1: first pass: its worker died 3 times"):
            list(executor.ordered(hopeless))
        assert (tmp_path / "21").read_text() == "x" * MOST_DEATHS
        assert list(executor.ordered([Task("", deadly.square, (i,)) for i in range(3)])) == [0, 1, 4]


def test_what_a_task_raises_arrives_as_it_was(deadly: Any) -> None:
    with Processes(2) as executor:
        fine = Task("", deadly.square, (2,))
        with pytest.raises(UserError, match="number: 7; allowed: others"):
            list(executor.ordered([fine, Task("", deadly.wrong, (7,))]))
        with pytest.raises(OSError) as full:
            list(executor.ordered([fine, Task("", deadly.full, ("somewhere",))]))
        assert (full.value.errno, full.value.filename) == (28, "somewhere")
        with pytest.raises(RuntimeError, match="1 and 2"):  # its class cannot be sent
            list(executor.ordered([fine, Task("", deadly.odd, ())]))


def test_tasks_are_taken_a_few_ahead_and_those_that_nobody_waits_for_disturb_no_one(deadly: Any) -> None:
    taken = []

    def tasks() -> Any:
        for i in range(100):
            taken.append(i)
            yield Task("", deadly.slow, (i, 0.3 if i == 2 else 0.0))

    with Processes(2) as executor:
        results = executor.ordered(tasks())
        assert [next(results), next(results)] == [0, 1]
        results.close()  # type: ignore[attr-defined]
        assert len(taken) <= 6
        assert list(executor.ordered([Task("", deadly.square, (i,)) for i in range(4)])) == [0, 1, 4, 9]
        assert executor.processor_seconds >= 0


def test_one_worker_or_one_task_needs_no_process(deadly: Any) -> None:
    with Processes(1) as alone, Processes(4) as several:
        assert list(alone.ordered([Task("", os.getpid, ())] * 3)) == [os.getpid()] * 3
        assert list(several.ordered([Task("", os.getpid, ())])) == [os.getpid()]
        assert os.getpid() not in list(several.ordered([Task("", os.getpid, ())] * 3))


def test_an_interrupt_of_the_terminal_never_reaches_a_worker() -> None:
    worker = processes._Worker()
    try:
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigBlk", "SigIgn"))]
        assert any(mask >> signal.SIGINT - 1 & 1 for mask in masks), "from its first moment on"
    finally:
        worker.end()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(
        "import os, time\n"
        "from corpora.executors import Task\n"
        "from corpora.executors.processes import Processes\n"
        "if __name__ == '__main__':\n"
        "    with Processes(2) as executor:\n"
        "        print(*set(executor.ordered([Task('', os.getpid, ())] * 8)), flush=True)\n"
        "        time.sleep(60)\n")
    process = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert pids and all(is_running(pid) for pid in pids)
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if is_running(pid)]


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- the machine profile ------------------------------------------------------------------------------------------

def test_the_profile_chooses_who_works() -> None:
    with open_executor(Machine(name="cpu", num_threads=3), Path()) as executor:
        assert isinstance(executor, Processes) and executor.num_workers == 3
    wanted = Machine(name="cpu", num_threads=3, corpora=CorpusWorkers(workers=5))
    assert open_executor(wanted, Path()).num_workers == 5
    with pytest.raises(ValueError, match="allowed: only with executor: dask"):
        CorpusWorkers(address="tcp://10.0.0.1:8786")
    with pytest.raises(ValueError, match="a running scheduler, which has its own workers"):
        CorpusWorkers(executor="dask", address="tcp://10.0.0.1:8786", workers=3)


def test_dask_that_is_not_there_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    cluster = open_executor(Machine(name="cpu", corpora=CorpusWorkers(executor="dask")), tmp_path)
    with pytest.raises(UserError, match=r"pip install 'derivative-factory\[cluster\]', or take executor: processes"):
        cluster.__enter__()


# --- artifacts ----------------------------------------------------------------------------------------------------

def test_an_artifact_appears_once_and_the_loser_of_a_race_does_no_harm(tmp_path: Path) -> None:
    final = tmp_path / "000001"

    def second(partial: Path) -> None:
        partial.mkdir()
        (partial / "content").write_text("same")

    def first(partial: Path) -> None:
        second(partial)
        artifact.make(final, second)  # another worker has the same task and is quicker

    artifact.make(final, first)
    artifact.make(final, lambda partial: pytest.fail("it is there"))
    assert [path.name for path in tmp_path.iterdir()] == ["000001"] and (final / "content").read_text() == "same"

    def torn(partial: Path) -> None:
        second(partial)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        artifact.make(tmp_path / "000002", torn)
    assert [path.name for path in tmp_path.iterdir()] == ["000001"]


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    for place in ("first/0000/partial-1-000000", "first/0000/000001"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "exact" / "0000").mkdir(parents=True)
    (tmp_path / "exact" / "0000" / "partial-2-000000").write_text("torn")
    artifact.remove_partial(tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("0*")) == [
        "exact/0000", "first/0000", "first/0000/000001"]
    assert not list(tmp_path.rglob("partial*"))


# --- exact duplicates ---------------------------------------------------------------------------------------------

def test_of_equal_digests_the_first_place_wins_and_earlier_waves_are_not_judged_again() -> None:
    records = np.array([(7, 1, 30), (7, 1, 10), (7, 2, 20), (9, 1, 40), (7, 1, 50), (9, 1, 60)], dtype=exact.RECORD)
    assert exact.duplicates(records, 0).tolist() == [(30, 10), (50, 10), (60, 40)]
    assert exact.duplicates(records, 31).tolist() == [(50, 10), (60, 40)]
    assert exact.duplicates(records[:0], 0).tolist() == []
    shards = np.random.default_rng(0)
    many = np.zeros(2000, dtype=exact.RECORD)
    many["key"], many["rest"] = shards.integers(0, 300, 2000), shards.integers(0, 2, 2000)
    many["place"] = shards.permutation(2000)
    first: dict[tuple[int, int], int] = {}
    expected = []
    for key, rest, place in sorted(many.tolist(), key=lambda one: one[2]):
        if (key, rest) in first:
            expected.append((place, first[key, rest]))
        first.setdefault((key, rest), place)
    assert exact.duplicates(many, 0).tolist() == expected and len(expected) > 1000


def test_places_are_in_the_order_of_sources_shards_and_rows() -> None:
    places = [exact.place_of(i, shard, row) for i in (0, 1, 7) for shard in (0, 1, 4000) for row in (0, 5)]
    assert places == sorted(places)
    assert [exact.shard_and_row(place) for place in places][-1] == (7, 4000, 5)

"""The pool against a verifier that misbehaves in every way, offered by a plugin as users offer theirs."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.errors import UserError
from verifiers import registry
from verifiers.api import Outcome, Task, Verdict
from verifiers.pool import VerifierPool

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = '''
import os, time, ctypes, pathlib
from verifiers.api import correct, incorrect

class MisbehavingVerifier:
    name, version = "misbehaving", "1"

    def judge(self, task, completion):
        word = completion.split()[0]
        if word == "hang":
            while True:
                pass
        if word == "hang_in_c":
            return correct(str(len(bin(7 ** (10 ** 9)))))
        if word == "sleep_in_c":
            ctypes.CDLL(None).sleep(600)
        if word == "exit":
            os._exit(3)
        if word == "exit_once":
            marker = pathlib.Path(completion.split()[1])
            if not marker.exists():
                marker.write_text("seen")
                os._exit(3)
        if word == "hang_once":
            marker = pathlib.Path(completion.split()[1])
            if not marker.exists():
                marker.write_text("seen")
                time.sleep(600)
        if word == "segfault":
            ctypes.string_at(0)
        if word == "memory":
            hoard = []
            while True:
                hoard.append(bytearray(1 << 24))
        if word == "deep":
            def down(n): return down(n + 1)
            down(0)
        if word == "raise":
            raise KeyError("a bug of ours")
        if word == "wrong_type":
            return True
        if word == "print":
            print("noise on stdout", flush=True)
            os.write(1, b"more noise")
        if word == "child":
            import subprocess
            child = subprocess.Popen(["sleep", "600"])
            pathlib.Path(completion.split()[1]).write_text(str(child.pid))
            time.sleep(600)
        forgiven = word in ("print", "exit_once", "hang_once")
        return correct(word) if task.answer == word or forgiven else incorrect("other", word)
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A distribution with the verifier `misbehaving`, on the path for the length of a test."""
    folder = tmp_path / "site"
    (folder / "misbehaving-1.0.dist-info").mkdir(parents=True)
    (folder / "misbehaving_verifier.py").write_text(PLUGIN)
    (folder / "misbehaving-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: misbehaving\nVersion: 1.0\n")
    (folder / "misbehaving-1.0.dist-info" / "entry_points.txt").write_text(
        "[derivative_factory.verifiers]\nmisbehaving = misbehaving_verifier:MisbehavingVerifier\n")
    monkeypatch.syspath_prepend(str(folder))
    registry.load_verifier.cache_clear()
    registry.identity.cache_clear()
    yield folder
    registry.load_verifier.cache_clear()
    registry.identity.cache_clear()


def task(answer: str = "ok") -> Task:
    return Task("t", "", answer, verifier="misbehaving")


def judge(word: str, **limits: float) -> Verdict:
    settings = {"num_workers": 1, "deadline_s": 0.6, "memory_mb": 128, **limits}
    with VerifierPool(**settings) as pool:  # type: ignore[arg-type]
        first, verdict, last = pool.judge([(task(), "ok"), (task(), word), (task(), "ok")])
    assert first.outcome is last.outcome is Outcome.CORRECT
    return verdict


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until_dead(pids: list[int], timeout_s: float = 10) -> bool:
    limit = time.monotonic() + timeout_s
    while any(map(alive, pids)) and time.monotonic() < limit:
        time.sleep(0.02)
    return not any(map(alive, pids))


@pytest.mark.parametrize("word", ["hang", "hang_in_c", "sleep_in_c", "memory", "deep"])
def test_a_completion_that_exceeds_a_limit_twice_is_incorrect(plugin: Path, word: str) -> None:
    verdict = judge(word, deadline_s=5.0 if word in ("memory", "deep") else 0.6)
    assert (verdict.outcome, verdict.reason, verdict.score) == (Outcome.INCORRECT, "over_budget", 0.0)


@pytest.mark.parametrize(("word", "reason"), [
    ("exit", "ended by itself"), ("segfault", "ended by itself"), ("raise", "a bug of ours"), ("wrong_type",
    "not a Verdict"),
])
def test_a_fault_of_ours_gives_no_verdict(plugin: Path, word: str, reason: str) -> None:
    verdict = judge(word, deadline_s=5.0)
    assert verdict.outcome is Outcome.NO_VERDICT
    assert reason in verdict.reason


@pytest.mark.parametrize("word", ["exit_once", "hang_once"])
def test_a_fault_that_does_not_repeat_is_forgiven(plugin: Path, tmp_path: Path, word: str) -> None:
    assert judge(f"{word} {tmp_path / 'marker'}").outcome is Outcome.CORRECT


def test_a_verifier_that_prints_does_not_disturb_the_verdicts(plugin: Path) -> None:
    assert judge("print").outcome is Outcome.CORRECT


def test_the_order_is_kept_around_hangs_crashes_and_exceptions(plugin: Path) -> None:
    words = ["ok", "raise", "other", "hang", "ok", "exit", "other"] + ["ok", "other"] * 40
    with VerifierPool(num_workers=2, deadline_s=0.6, verifier="misbehaving") as pool:
        verdicts = pool.judge([(Task("t", "", "ok"), word) for word in words])
    expected = {"ok": "correct", "other": "incorrect", "hang": "incorrect", "raise": "no_verdict", "exit": "no_verdict"}
    assert [verdict.outcome.value for verdict in verdicts] == [expected[word] for word in words]


def test_many_hangs_in_a_row_do_not_end_the_pool(plugin: Path) -> None:
    with VerifierPool(num_workers=2, deadline_s=0.3) as pool:
        verdicts = pool.judge([(task(), "hang")] * 4 + [(task(), "ok")])
    assert [verdict.reason for verdict in verdicts[:4]] == ["over_budget"] * 4
    assert verdicts[4].outcome is Outcome.CORRECT


def test_verdicts_stream_while_a_hang_holds_one_worker(plugin: Path) -> None:
    with VerifierPool(num_workers=2, deadline_s=20.0) as pool:
        stuck = pool.submit(task(), "hang")
        assert pool.submit(task(), "ok").result(timeout=15).outcome is Outcome.CORRECT
        assert not stuck.done()


def test_thousands_of_easy_verdicts_keep_their_order() -> None:
    pairs = [(Task(str(index), "", str(index % 7)), f"\\boxed{{{index % 5}}}") for index in range(2_000)]
    with VerifierPool(num_workers=2) as pool:
        verdicts = pool.judge(pairs)
    assert [verdict.score for verdict in verdicts] == [float(index % 7 == index % 5) for index in range(2_000)]


def test_closing_leaves_no_process_and_ends_what_is_pending(plugin: Path) -> None:
    pool = VerifierPool(num_workers=2, deadline_s=60.0)
    futures = [pool.submit(task(), "hang") for _ in range(8)]
    limit = time.monotonic() + 10
    while len(pool.worker_pids()) < 2 and time.monotonic() < limit:
        time.sleep(0.01)
    pids = pool.worker_pids()
    pool.close()
    pool.close()
    assert len(pids) == 2 and wait_until_dead(pids, 1)
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(task(), "ok")


def test_a_killed_worker_takes_its_children_with_it(plugin: Path, tmp_path: Path) -> None:
    marker = tmp_path / "child.pid"
    assert judge(f"child {marker}").reason == "over_budget"
    assert wait_until_dead([int(marker.read_text())])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_die_with_their_parent(plugin: Path, number: signal.Signals) -> None:
    script = textwrap.dedent("""
        from verifiers.api import Task
        from verifiers.pool import VerifierPool
        task = Task("t", "", "ok", verifier="misbehaving")
        with VerifierPool(num_workers=2, deadline_s=600) as pool:
            pool.judge([(task, "ok")])
            futures = [pool.submit(task, "hang") for _ in range(4)]
            while len(pool.worker_pids()) < 2:
                pass
            print(*pool.worker_pids(), flush=True)
            futures[0].result()
    """)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{plugin}"}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          env=environment, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(alive, pids))
        parent.send_signal(number)
        parent.wait(timeout=10)
    assert wait_until_dead(pids)


def test_a_slow_import_is_not_held_against_a_completion(plugin: Path) -> None:
    (plugin / "misbehaving_verifier.py").write_text(
        "import time\nfrom verifiers.api import correct\n"
        "class MisbehavingVerifier:\n    name, version = 'misbehaving', '1'\n"
        "    def warm_up(self):\n        time.sleep(1.5)\n"
        "    def judge(self, task, completion):\n        return correct()\n")
    with VerifierPool(num_workers=1, deadline_s=0.6) as pool:
        assert pool.judge([(task(), "ok")])[0].outcome is Outcome.CORRECT


def test_workers_have_no_torch(plugin: Path) -> None:
    (plugin / "misbehaving_verifier.py").write_text(
        "import sys\nfrom verifiers.api import correct, incorrect\n"
        "class MisbehavingVerifier:\n    name, version = 'misbehaving', '1'\n"
        "    def judge(self, task, completion):\n"
        "        return incorrect('torch') if 'torch' in sys.modules else correct()\n")
    with VerifierPool(num_workers=1) as pool:
        assert pool.judge([(task(), "ok")])[0].outcome is Outcome.CORRECT


def test_odd_text_travels_unharmed() -> None:
    text = "\ud800 \x00 \n \u2028 \\boxed{5}"
    with VerifierPool(num_workers=1) as pool:
        assert pool.judge([(Task("\ud800", "", "5"), text)])[0].outcome is Outcome.CORRECT


def test_bad_settings_are_the_users_error() -> None:
    with pytest.raises(UserError, match="did you mean 'math'"):
        VerifierPool(verifier="maths")
    with pytest.raises(UserError, match="num_workers"):
        VerifierPool(num_workers=0)
    with VerifierPool(num_workers=1) as pool, pytest.raises(UserError, match="metadata"):
        pool.submit(Task("t", "", "5", metadata={"set": {1}}), "5")


def test_a_verifier_that_cannot_be_loaded_gives_no_verdict_and_says_why(plugin: Path) -> None:
    (plugin / "misbehaving_verifier.py").write_text("import a_module_that_is_not_there\n")
    with VerifierPool(num_workers=1) as pool:
        verdict = pool.judge([(task(), "ok")])[0]
    assert verdict.outcome is Outcome.NO_VERDICT
    assert "a_module_that_is_not_there" in verdict.reason

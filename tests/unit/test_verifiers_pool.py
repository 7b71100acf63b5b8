"""The pool against a verifier that misbehaves in every way, offered by a plugin as users offer theirs."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from configs.errors import UserError
from verifiers import registry
from verifiers.api import Outcome, Task, Verdict, correct, no_verdict
from verifiers.breaker import MIN_JUDGED, WINDOW, Breaker
from verifiers.pool import TooManyNoVerdicts, VerifierPool
from verifiers.processes import below
from verifiers.serving import _Clock

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = '''
import os, sys, time, ctypes, pathlib, random
from verifiers.api import correct, incorrect

seen = []

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
        if word == "daemon":
            script = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.execv(sys.executable, [sys.executable, "-c", script, completion.split()[1]])
                os._exit(0)
            while not (path := pathlib.Path(completion.split()[1])).exists() or not path.read_text():
                time.sleep(0.01)
            if completion.split()[2] == "exit":
                os._exit(3)
            time.sleep(600)
        if word == "seen":
            seen.append(completion)
            if len(seen) > 1:
                raise KeyError("state of the verifier")
        if word == "order":
            return correct(repr((random.random(), list({"a", "b", "c", "d", "e", "f"}))))
        forgiven = word in ("print", "exit_once", "hang_once", "seen")
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


@pytest.mark.parametrize(("end", "outcome"), [("hang", Outcome.INCORRECT), ("exit", Outcome.NO_VERDICT)])
def test_a_daemon_in_a_session_of_its_own_ends_with_the_worker(
        plugin: Path, tmp_path: Path, end: str, outcome: Outcome) -> None:
    marker = tmp_path / "daemon.pid"
    assert judge(f"daemon {marker} {end}", deadline_s=1.0).outcome is outcome
    assert wait_until_dead([int(marker.read_text())])


def test_a_daemon_ends_with_a_pool_that_was_killed(plugin: Path, tmp_path: Path) -> None:
    marker = tmp_path / "daemon.pid"
    script = textwrap.dedent(f"""
        from verifiers.api import Task
        from verifiers.pool import VerifierPool
        with VerifierPool(num_workers=1, deadline_s=600) as pool:
            pool.judge([(Task("t", "", "ok", verifier="misbehaving"), "daemon {marker} hang")])
    """)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{plugin}"}
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, env=environment) as parent:
        limit = time.monotonic() + 30
        while not (marker.exists() and marker.read_text()) and time.monotonic() < limit:
            time.sleep(0.02)
        pids = [int(marker.read_text()), *below(parent.pid)]
        assert len(pids) >= 4 and all(map(alive, pids))  # keeper, judge, daemon (twice)
        parent.kill()
    assert wait_until_dead(pids)


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


def test_a_verdict_does_not_depend_on_order_workers_or_company(plugin: Path) -> None:
    words = ["ok", "order", "other", "order", "raise", "order", "hang", "seen 1", "seen 2"]
    found = set()
    for num_workers, order in ((1, words), (3, words[4:] + words[3::-1])):
        with VerifierPool(num_workers=num_workers, deadline_s=0.6, verifier="misbehaving") as pool:
            verdicts = pool.judge([(Task("t", "", "ok"), word) for word in order])
        told = [(each.outcome, each.score, each.extracted, each.reason) for each in verdicts]
        found.add(tuple(sorted(zip(order, told, strict=True))))
    assert len(found) == 1
    alone = dict(found.pop())
    assert alone["seen 1"][0] is alone["seen 2"][0] is Outcome.CORRECT  # a fresh worker, as if nothing was before
    assert alone["order"][2].startswith("(0.8444")  # the first number after random.seed(0)


def test_verdicts_stream_out_while_pairs_are_still_made(plugin: Path) -> None:
    first_came = False

    def pairs() -> Iterator[tuple[Task, str]]:
        yield task(), "ok"
        limit = time.monotonic() + 30
        while not first_came and time.monotonic() < limit:  # the verdict of the first comes between two draws
            time.sleep(0.01)
            yield task(), "other"

    with VerifierPool(num_workers=1, deadline_s=5.0) as pool:
        got = []
        for index, verdict in pool.stream(pairs()):
            first_came = first_came or index == 0
            got.append((index, verdict.outcome))
    assert sorted(index for index, _ in got) == list(range(len(got)))
    assert dict(got)[0] is Outcome.CORRECT and all(outcome is Outcome.INCORRECT for index, outcome in got if index)


def test_a_stream_draws_no_further_than_it_has_room(plugin: Path) -> None:
    num_drawn = 0

    def pairs() -> Iterator[tuple[Task, str]]:
        nonlocal num_drawn
        while True:
            num_drawn += 1
            yield task(), "ok"

    with VerifierPool(num_workers=1, deadline_s=5.0) as pool:
        stream = pool.stream(pairs(), max_pending=4)
        for taken in range(1, 30):
            next(stream)
            assert num_drawn <= taken + 4
        stream.close()  # type: ignore[attr-defined]


def test_an_event_loop_goes_on_while_verdicts_come(plugin: Path) -> None:
    async def pairs() -> AsyncIterator[tuple[Task, str]]:
        for word in ("ok", "other", "hang", "ok"):
            await asyncio.sleep(0)
            yield task(), word

    async def all_of_it(pool: VerifierPool) -> tuple[dict[int, Verdict], Verdict, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        got = {index: verdict async for index, verdict in pool.stream_async(pairs(), max_pending=3)}
        one = await pool.judge_async(task(), "ok")
        listed = {index: verdict async for index, verdict in pool.stream_async([(task(), "other")])}
        ticking.cancel()
        return {**got, 4: listed[0]}, one, ticks

    with VerifierPool(num_workers=2, deadline_s=0.6) as pool:
        got, one, ticks = asyncio.run(all_of_it(pool))
    assert [got[index].reason for index in range(5)] == ["", "other", "over_budget", "", "other"]
    assert one.outcome is Outcome.CORRECT and ticks > 10


def test_an_error_of_the_source_ends_a_stream(plugin: Path) -> None:
    def broken() -> Iterator[tuple[Task, str]]:
        yield task(), "ok"
        raise LookupError("no more rollouts")

    async def all_of_it(pool: VerifierPool) -> None:
        async for _ in pool.stream_async(broken()):
            pass

    with VerifierPool(num_workers=1) as pool:
        with pytest.raises(LookupError, match="no more rollouts"):
            list(pool.stream(broken()))
        with pytest.raises(LookupError, match="no more rollouts"):
            asyncio.run(all_of_it(pool))


def test_the_breaker_opens_past_its_share_and_names_the_worst_reason() -> None:
    breaker = Breaker(0.1)
    allowed = int(0.1 * MIN_JUDGED)
    assert [breaker.note(no_verdict("rare"))] + [breaker.note(no_verdict("often")) for _ in range(allowed - 1)] == [
        None] * allowed
    error = breaker.note(no_verdict("often"))
    assert error is not None and f"{allowed} times the reason was 'often'" in str(error)
    patient = Breaker(0.1)
    for number in range(3 * WINDOW):  # one in ten, for as long as one likes
        assert patient.note(no_verdict("x") if number % 10 == 9 else correct()) is None
    with pytest.raises(UserError, match="max_no_verdict: 1.5; allowed: from 0 to 1"):
        Breaker(1.5)
    never = Breaker(1.0)
    assert {never.note(no_verdict("x")) for _ in range(2 * WINDOW)} == {None}


def test_a_pool_stops_when_too_many_verdicts_are_missing(plugin: Path) -> None:
    (plugin / "misbehaving_verifier.py").write_text("import a_module_that_is_not_there\n")
    with VerifierPool(num_workers=2, max_no_verdict=0.2, verifier="misbehaving") as pool:
        with pytest.raises(TooManyNoVerdicts, match="41 of the last 41 .*a_module_that_is_not_there"):
            pool.judge([(task(), "ok")] * 2_000)
        with pytest.raises(TooManyNoVerdicts):
            pool.submit(task(), "ok")
        with pytest.raises(TooManyNoVerdicts):
            list(pool.stream([(task(), "ok")]))


def test_a_silent_pool_says_what_it_awaits(plugin: Path, caplog: pytest.LogCaptureFixture) -> None:
    with VerifierPool(num_workers=1, deadline_s=600.0, patience_s=0.3) as pool:
        pool.judge([(task(), "ok")])
        caplog.clear()  # a slow start may have been remarked upon
        time.sleep(1.0)
        assert not caplog.messages and pool.awaited() == ""  # silence while nothing is awaited is no stall
        pool.submit(Task("problem 7", "", "ok", verifier="misbehaving"), "hang")
        pool.submit(task(), "ok")
        limit = time.monotonic() + 20
        while not caplog.messages and time.monotonic() < limit:
            time.sleep(0.02)
        assert re.match(r"waiting: no verdict for \d+ s; awaited: task 'problem 7' for", caplog.messages[0])
        assert re.search(rf"\(process {pool.worker_pids()[0]}, [RS]\)", caplog.messages[0])
        assert "1 more in the queue" in caplog.messages[0]


def test_a_deadline_suits_the_tasks_verifier_unless_one_is_given() -> None:
    with VerifierPool(num_workers=1) as pool:
        assert [pool._job(Task("t", "", "", name), "").deadline_s for name in ("math", "code")] == [5.0, 30.0]
    with VerifierPool(num_workers=1, deadline_s=7.0) as pool:
        assert pool._job(Task("t", "", "", "code"), "").deadline_s == 7.0


def test_waiting_for_a_processor_is_not_held_against_a_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    starved = iter([5.0, 5.0, 5.9])  # at the first look, then at two more
    monkeypatch.setattr("verifiers.serving.starved_s", lambda pid: next(starved))
    clock = _Clock(1.0, judge=1)
    assert not clock.is_over()
    clock.started -= 1.5  # 1.5 s have passed, of which 0.9 s without a processor
    assert not clock.is_over()
    assert _Clock(1.0).left_s() > 0.9
    monkeypatch.setattr("verifiers.serving.starved_s", lambda pid: 5.0 + 1e6)
    clock.started -= 10.0  # however busy the machine: ten times the deadline is the end
    assert clock.is_over()

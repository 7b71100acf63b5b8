"""Turns on a device: in the order of asking, with real processes, and free when their holders are dead."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.settings.machine import Machine
from flows.device import Turn, devices_of
from tests.e2e.flow_fixtures import ROOT, until

HOLDER = """
import sys, time
from pathlib import Path
from flows.device import Turn
name, hold_s, said = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
turn = Turn(("cuda-0",), {"run": name, "stage": "rl", "folder": "nowhere"})
def say(text):
    with said.open("a") as file:
        file.write(f"{name} {text}\\n")
told = []
def waits(ahead):
    now = "+".join(one["run"] for one in ahead)
    if now and now not in told:
        told.append(now)
        say(f"behind {now}")
turn.acquire(waits)
say("got it")
time.sleep(hold_s)
turn.release()
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERIVE_DEVICES", str(tmp_path / "devices"))
    monkeypatch.delenv("DERIVE_SLOTS", raising=False)


def start(name: str, hold_s: float, said: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", HOLDER, name, str(hold_s), str(said)], cwd=ROOT)


def lines(said: Path) -> list[str]:
    return said.read_text().splitlines() if said.exists() else []


def test_turns_come_in_the_order_of_asking_and_each_knows_who_is_ahead(tmp_path: Path) -> None:
    said = tmp_path / "said"
    first = start("a", 600.0, said)
    assert until(lambda: lines(said) == ["a got it"], 60)
    second = start("b", 0.0, said)
    assert until(lambda: "b behind a" in lines(said), 60)
    third = start("c", 0.0, said)
    assert until(lambda: "c behind a+b" in lines(said), 60)
    first.kill()  # no lease runs out: the kernel frees the slot
    assert [process.wait(60) for process in (second, third)] == [0, 0]
    first.wait()
    assert [line for line in lines(said) if line.endswith("got it")] == ["a got it", "b got it", "c got it"]


def test_a_waiter_that_died_keeps_nobody_waiting(tmp_path: Path) -> None:
    said = tmp_path / "said"
    first = start("a", 600.0, said)
    assert until(lambda: lines(said) == ["a got it"], 60)
    second = start("b", 0.0, said)
    assert until(lambda: "b behind a" in lines(said), 60)
    second.kill()
    second.wait()
    first.kill()
    first.wait()
    with Turn(("cuda-0",), {"run": "here"}) as turn:
        turn.acquire(lambda ahead: None)
        assert turn.file_descriptors
    assert list((tmp_path / "devices" / "waiting").iterdir()) == [
        path for path in (tmp_path / "devices" / "waiting").iterdir() if path.name.startswith(".")
    ]


def test_a_slot_lives_as_long_as_a_process_that_inherited_it(tmp_path: Path) -> None:
    turn = Turn(("cuda-0",), {"run": "here"})
    turn.acquire(lambda ahead: None)
    heir = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=turn.file_descriptors)
    turn.release()
    waited: list[float] = []
    said = tmp_path / "said"
    other = start("b", 0.0, said)
    time.sleep(1.0)
    assert "b got it" not in lines(said)
    heir.communicate(b"\n")
    assert other.wait(60) == 0 and waited == []


def test_two_slots_let_two_compute_and_other_devices_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERIVE_SLOTS", "2")
    turns = [Turn(("cuda-0",), {"run": str(number)}) for number in range(2)] + [Turn(("cuda-1",), {"run": "2"})]

    def nobody_is_ahead(ahead: list[dict[str, object]]) -> None:
        raise AssertionError(ahead)

    for turn in turns:
        turn.acquire(nobody_is_ahead)
    for turn in turns:
        turn.release()


def test_what_a_stage_takes_follows_from_machine_kind_and_visible_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, eight = Machine(name="cpu"), Machine(name="gpu", device="cuda", num_processes=4)
    assert devices_of(cpu, "rl") == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1,2,0")
    assert devices_of(eight, "sft") == ("cuda-0", "cuda-1", "cuda-2", "cuda-3")
    assert devices_of(Machine(name="gpu", device="cuda"), "sft") == ("cuda-3",)
    assert devices_of(Machine(name="gpu", device="cuda", num_processes=2), "sft") == ("cuda-1", "cuda-3")
    assert devices_of(eight, "corpus") == () and devices_of(eight, "release") == ()
    monkeypatch.setenv("DERIVE_SLOTS", "1")
    assert devices_of(cpu, "corpus") == ("cpu",)
    monkeypatch.setenv("DERIVE_SLOTS", "none")
    with pytest.raises(UserError, match="DERIVE_SLOTS: 'none' is no number of runs; give 1 or more"):
        devices_of(cpu, "rl")

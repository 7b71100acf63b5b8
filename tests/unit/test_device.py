"""Turns on a device: in the order of asking, with real processes, and free when their holders are dead."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.settings.machine import Machine
from flows import device
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


def test_every_environment_looks_into_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever TMPDIR says, and for root as for all others: a folder that not everybody may write to is nobody's."""
    private, sealed, public = (tmp_path / name for name in ("private", "sealed", "public"))
    for folder, mode in ((private, 0o755), (sealed, 0o777), (public, 0o1777)):
        folder.mkdir()
        folder.chmod(mode)
    monkeypatch.delenv("DERIVE_DEVICES")
    monkeypatch.setattr(device, "SHARED", (tmp_path / "missing", private, sealed, public))
    for temporary in ("one", "other"):
        monkeypatch.setenv("TMPDIR", str(tmp_path / temporary))
        assert Turn(("cuda-0",), {}).folder == public / "derive-devices"
    monkeypatch.setattr(device, "SHARED", (private,))
    with pytest.raises(UserError, match="^DERIVE_DEVICES: none of .*; name a folder that they share"):
        Turn(("cuda-0",), {})
    assert Turn((), {}).names == ()  # who takes no device needs no folder


def as_nobody(work: Callable[[], None]) -> int:
    """The exit code of a child of another user; 0 where nothing was raised."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_users_wait_for_one_another_and_what_a_dead_one_of_another_user_left_counts_as_nothing() -> None:
    """Each with a umask that keeps others out of what it makes."""
    parent = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are closed to others
    folder = parent / "devices"
    parent.chmod(0o1777)
    before = os.umask(0o077)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DERIVE_DEVICES", str(folder))
            seen: list[dict[str, Any]] = []

            class Seen(Exception):
                pass

            def look(ahead: list[dict[str, Any]]) -> None:
                seen.extend(ahead)
                raise Seen

            def waits() -> None:
                with contextlib.suppress(Seen):
                    Turn(("cuda-0",), {"run": "theirs"}).acquire(look)
                assert [one["run"] for one in seen] == ["ours"]

            def takes_and_dies_with_a_ticket() -> None:
                Turn(("cuda-0",), {"run": "theirs"}).acquire(look)
                for name in (f"{1:020d}-1", f".{2:020d}-2"):
                    (folder / "waiting" / name).write_text("{}")
                    os.utime(folder / "waiting" / name, (0, 0))

            with Turn(("cuda-0",), {"run": "ours"}) as turn:
                turn.acquire(look)
                assert as_nobody(waits) == 0
            assert as_nobody(takes_and_dies_with_a_ticket) == 0
            assert json.loads((folder / "cuda-0.0").read_text())["run"] == "theirs"  # written over ours
            left = [folder / "waiting" / f".{3:020d}-3", folder / "waiting" / f"{4:020d}-4"]
            for path in left:
                path.write_text("{}")
                os.utime(path, (0, 0))
            seen.clear()
            assert as_nobody(lambda: Turn(("cuda-0",), {"run": "theirs"}).acquire(look)) == 0
            assert all(path.exists() for path in left)  # not theirs to remove
            with Turn(("cuda-0",), {"run": "ours"}) as turn:
                turn.acquire(look)
            assert list((folder / "waiting").iterdir()) == []
            folder.chmod(0o755)
            (folder / "cuda-1.0").symlink_to(parent / "elsewhere")
            with pytest.raises(UserError, match="cuda-1.0 cannot be used .*symbolic links"):
                Turn(("cuda-1",), {"run": "ours"}).acquire(look)

            def refused() -> None:
                with pytest.raises(UserError, match="^DERIVE_DEVICES: .* cannot be used .*have its owner remove it"):
                    Turn(("cuda-9",), {"run": "theirs"}).acquire(look)

            assert as_nobody(refused) == 0
    finally:
        os.umask(before)
        shutil.rmtree(parent)


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

"""The filter of system calls, run by an interpreter of its own language against what the tables say."""

from __future__ import annotations

import errno
import random
import struct

import pytest

from verifiers.sandbox.inside import filters

ALLOW, KILL = 0x7FFF0000, 0x80000000
REFUSED, ABSENT = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
PID = 4711
VALUES = [0, 1, 2, 3, PID, PID + 1, *filters.PRCTLS, *filters.FCNTLS, *filters.IOCTLS, 0x10000, 0x3D0F00, 0x7E020080,
          0x10080, 8, 1 << 32, (1 << 32) | PID]  # fmt: skip


def verdict(code: bytes, data: bytes) -> tuple[int, int]:
    """What a classic BPF program returns for a call, and how many steps it took."""
    accumulator = at = steps = 0
    while True:
        kind, if_true, if_false, value = struct.unpack_from("=HBBI", code, 8 * at)
        at, steps = at + 1, steps + 1
        if kind == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif kind == 0x05:
            at += value
        elif kind == 0x06:
            return value, steps
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[kind]
            at += if_true if holds else if_false


def expected(column: int, number: int, arguments: list[int]) -> int:
    """What the tables say of a call."""
    low = [argument & 0xFFFFFFFF for argument in arguments]
    if number in {numbers[column] for numbers in filters.CALLS.values()}:
        return ALLOW
    name = {numbers[column]: name for name, numbers in filters._CONDITIONAL.items()}.get(number)
    allowed = {
        None: False,
        "clone": low[0] & filters.CLONE_THREAD != 0 and low[0] & filters.CLONE_NEW == 0,
        "kill": low[0] == PID,
        "tgkill": low[0] == PID,
        "prctl": low[0] in filters.PRCTLS,
        "fcntl": low[1] in filters.FCNTLS,
        "ioctl": low[1] in filters.IOCTLS,
        "prlimit64": arguments[2] == 0,
        "clone3": False,
    }[name]
    return ALLOW if allowed else ABSENT if name == "clone3" else REFUSED


@pytest.mark.parametrize("machine", sorted(filters.ARCHITECTURES))
def test_every_call_gets_what_the_tables_say(machine: str) -> None:
    column, architecture = filters.ARCHITECTURES[machine]
    code = filters.program(filters.template(machine), PID)
    rng = random.Random(0)
    steps = []
    for number in [*range(700), 1 << 30, (1 << 30) + 1, (1 << 30) + 56, 1 << 31, (1 << 32) - 1]:
        for _ in range(60 if number in {numbers[column] for numbers in filters._CONDITIONAL.values()} else 2):
            arguments = [rng.choice(VALUES) for _ in range(6)]
            data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments)
            found, taken = verdict(code, data)
            assert found == expected(column, number, arguments), (number, arguments)
            steps.append(taken)
    assert max(steps) < 40  # by bisection: each child's kernel runs it once for every call there is


@pytest.mark.parametrize("machine", sorted(filters.ARCHITECTURES))
def test_another_architecture_is_killed(machine: str) -> None:
    code = filters.program(filters.template(machine), PID)
    for architecture in (0x40000003, 0, filters.ARCHITECTURES[machine][1] ^ 1):
        assert verdict(code, struct.pack("=IIQ6Q", 0, architecture, 0, *[0] * 6))[0] == KILL


def test_the_pid_stands_in_the_filter_where_it_is_compared_and_nowhere_else() -> None:
    if not filters.supported():
        pytest.skip("no filter for this machine's architecture")
    made = filters.template()
    offsets = filters.pid_offsets(made)
    assert len(offsets) == 2 and len(made) % 8 == 0  # kill and tgkill
    assert {made[at : at + 4] for at in offsets} == {struct.pack("=I", filters._PID_SLOT)}
    assert struct.pack("=I", filters._PID_SLOT) not in filters.program(made, PID)


def test_no_number_stands_twice() -> None:
    for column in (0, 1):
        numbers = [row[column] for row in {**filters.CALLS, **filters._CONDITIONAL}.values() if row[column] is not None]
        assert len(set(numbers)) == len(numbers)

"""Programs in the sandbox, as an interpreter answers them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from verifiers.interpreter import Interpreters, Output
from verifiers.sandbox import host
from verifiers.sandbox.host import SandboxFault


@pytest.fixture(scope="module")
def interpreters() -> Iterator[Interpreters]:
    with Interpreters(2, seconds=1.0, memory_mb=128) as found:
        yield found


@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("print(23 * 47)", Output("1081")),
        ("x = 23\nx * 47", Output("1081")),  # the value of a last expression, as a notebook shows it
        ("print('a')\nNone", Output("a")),
        ("x = 1", Output("Done")),
        ("", Output("Done")),
        ("import math\ndef f(n):\n    return math.gcd(n, 12)\nprint(f(18))", Output("6")),
        ("print(1)\nprint(undefined)", Output("NameError: name 'undefined' is not defined", "raised_NameError")),
        ("raise ValueError('first\\nlast')", Output("ValueError: last", "raised_ValueError")),
        ("assert False", Output("AssertionError", "raised_AssertionError")),
        ("class Own(Exception): pass\nraise Own('x')", Output("Own: x", "raised_other")),
        ("def f(:", Output("SyntaxError: invalid syntax", "raised_SyntaxError")),
        ("input()", Output("EOFError: EOF when reading a line", "raised_EOFError")),
        ("print('half'); exit()", Output("half")),
        ("import sys; sys.exit(3)", Output("SystemExit: 3", "exit_status_not_0")),
        ("a = [0] * 10**10", Output("MemoryError: more memory or files than allowed", "over_budget")),
        ("import os; os.kill(os.getpid(), 11)", Output("SystemError: ended by signal 11", "crashed")),
        ("import os; os.write(4, b'x' * 64)", Output("SystemError: the program broke its protocol", "broken_protocol")),
    ],
)
def test_what_a_program_is_answered_with(interpreters: Interpreters, program: str, output: Output) -> None:
    assert interpreters.submit(program).result() == output


def test_a_program_without_end_is_named_so_and_the_next_one_runs() -> None:
    with Interpreters(1, seconds=0.1) as one:
        assert one.submit("while True: pass").result() == Output("TimeoutError: more than 0.1 seconds", "over_budget")
        assert one.submit("print(1)").result() == Output("1")


def test_programs_share_nothing_and_reach_nothing(interpreters: Interpreters) -> None:
    assert interpreters.submit("x = 5").result() == Output("Done")
    assert interpreters.submit("print(x)").result().failed == "raised_NameError"
    assert interpreters.submit("import socket; socket.socket()").result().failed == "raised_PermissionError"
    assert interpreters.submit("open('/etc/passwd').read()").result().failed.startswith("raised_")


def test_of_a_long_output_both_ends_are_read(interpreters: Interpreters) -> None:
    output = interpreters.submit("print('a' + 'x' * 10**6 + 'z')").result().text
    assert output.startswith("ax") and output.endswith("xz") and len(output) < 200_000


def test_a_fault_of_the_sandbox_is_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: host.Sandbox, *_: object, **__: object) -> None:
        raise SandboxFault("the zygote is gone")

    with Interpreters(1) as one:
        monkeypatch.setattr(host.Sandbox, "open", broken)
        with pytest.raises(SandboxFault, match="the zygote is gone"):
            one.submit("print(1)").result()

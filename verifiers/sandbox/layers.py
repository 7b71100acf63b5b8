"""Which layers of the sandbox are in force on this machine: tried, not assumed.

    for layer in layers():
        print(layer.name, layer.in_force, layer.is_required, layer.detail, layer.remedy)

A zygote is started with all that the machine gives, and a program of our own tries to get around each layer from
within. A layer counts only if the zygote took it on and the program failed.
"""

from __future__ import annotations

from dataclasses import dataclass

from verifiers.sandbox.host import REMEDIES, Sandbox, SandboxFault, Settings
from verifiers.sandbox.inside import codec
from verifiers.sandbox.run import RunEnded, reason_of

LIMITS = "limits"
_PROBE = '''
import ctypes
import os
import resource
import signal
import socket


def refused(act):
    """Whether the machine says no."""
    try:
        act()
    except OSError:
        return True
    return False


def fork():
    if os.fork() == 0:
        os._exit(0)


def probe():
    soft = {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name))[0] for name in ("AS", "CPU", "FSIZE", "CORE")}
    with open("probe", "w") as file:
        file.write("x")
    return {
        "limits": all(0 <= value < 1 << 40 for value in soft.values()),
        "seccomp": {
            "internet sockets": refused(lambda: socket.socket(socket.AF_INET)),
            "unix sockets": refused(lambda: socket.socket(socket.AF_UNIX)),
            "processes": refused(fork),
            "signals": refused(lambda: os.kill(os.getppid(), 0)) or os.getppid() == 0,
            "changed modes": refused(lambda: os.chmod("probe", 0o777)),
        },
        "landlock": {
            "reading": refused(lambda: open("/etc/passwd").close()),
            "listing": refused(lambda: os.listdir("/")),
            "writing": refused(lambda: open("../probe", "w").close()),
        },
        "namespaces": {"own pids": os.getppid() == 1},
        "user": {"own user": os.getuid() != 0},
        "clean": not os.environ and os.listdir(".") == ["probe"],
    }
'''


@dataclass(frozen=True)
class Layer:
    """One layer: whether it is in force, whether programs are refused without it, what was seen, and what to do."""

    name: str
    in_force: bool
    is_required: bool
    detail: str
    remedy: str


def layers(settings: Settings | None = None) -> list[Layer]:
    """All layers, as they are on this machine. `settings` says what to leave out. Raises nothing that a user can cause:
    a sandbox that does not start is a `limits` layer that is not in force, with the reason."""
    wanted = settings or Settings()
    try:
        with Sandbox(Settings(without=wanted.without, minimum=frozenset())) as sandbox:
            seen = _probe(sandbox)
            in_force, details = sandbox.in_force, sandbox.details
    except (SandboxFault, RunEnded, OSError) as error:
        seen, in_force, details = {}, frozenset(), {LIMITS: f"the sandbox does not start: {error}"}
    found = [
        Layer(
            LIMITS,
            bool(seen.get(LIMITS)) and bool(seen.get("clean")),
            True,
            details.get(LIMITS, "processor time, memory, files; everything that a run leaves is killed"),
            "",
        )
    ]
    for name in ("seccomp", "landlock", "namespaces", "user"):
        held = seen.get(name) or {}
        open_ways = [way for way, is_refused in held.items() if not is_refused]
        is_in_force = name in in_force and bool(held) and not open_ways
        said = [details[name]] if name in details else []
        if name in in_force:
            said += [f"not refused: {', '.join(open_ways)}"] if open_ways else [f"refused: {', '.join(held)}"]
        detail = "; ".join(said) or "not offered by this machine"
        found.append(Layer(name, is_in_force, name in wanted.minimum, detail, "" if is_in_force else REMEDIES[name]))
    return found


def _probe(sandbox: Sandbox) -> dict[str, dict[str, bool]]:
    with sandbox.open({"kind": "calls", "program": _PROBE, "entry_points": ["probe"]}) as run:
        run.expect_loaded()
        answer = run.call("probe", [])
        if answer.letter != b"V":
            raise SandboxFault(f"the probe failed: {reason_of(answer)}")
        seen: dict[str, dict[str, bool]] = codec.decode(answer.content)
        return seen

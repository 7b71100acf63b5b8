"""One stage of a run: found in the store, or built there by its command under a supervisor.

What the command says goes to `stage.log` in its folder, never to a pipe of ours. Exit code 0 publishes the
folder; 75 is tried again; 2 is the user's error, told in the command's own line; anything else fails with the
end of the log. Verdicts that it awaits for too long (`verifiers.breaker.Watchdog`) are told while it runs.
Whatever interrupts the wait (Ctrl-C, SIGTERM, Prefect's cancellation) ends the whole process tree before it goes on;
a trainer leaves a checkpoint. A pause stops the stage too, and the same run begins it again (`flows/pause.py`).
Before a stage starts it waits for its devices (`flows/device.py`), and the disk must have room for it. A folder that is
not published stays, and the next run resumes it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from configs.errors import EXIT_RETRY, EXIT_USER_ERROR, UserError
from configs.schema import resolved_model
from configs.settings.evaluation import ReleaseStage
from configs.settings.machine import Machine
from configs.stage import StageFile, write_json_atomic
from configs.stall import STALLED
from flows import environment, pause
from flows.causes import Cause, cause_of
from flows.device import Turn, devices_of
from flows.pause import Stopped
from flows.plan import Plan, PlannedStage, stage_file
from flows.room import check_room
from flows.runs import elapsed
from flows.source import ROOT, closure
from flows.stage_log import TAIL_BYTES, last_progress, waiting_lines
from flows.store import CHECKPOINTS, Artifact, Build, Store
from flows.supervisor import STOPPED_EXIT, Supervised
from flows.turns import take_turn

LOG = "stage.log"
ATTEMPT = re.compile(r"--- \d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
"""The line of the log before what each start of the command says."""
FAILURE = "failure.json"
"""Where a rank leaves its exit code and message (`derivatives.training.ranks`)."""
NUM_LOG_LINES = 30
POLL_S = 0.25
RETRY_DELAYS_S = (5.0, 30.0)
STOPPED_EXITS = (STOPPED_EXIT, 130, 1)
"""Of a command that was asked to stop: its own 143, or what a launcher makes of it."""
EXIT_STALLED = -1
"""Stands for the exit code of a command that was ended because it made no progress."""


class StageFailed(RuntimeError):
    """A stage command crashed; the message carries the end of its log."""


class GatesRefused(UserError):
    """A release that its gates refuse; the message has a line per gate."""


class Listener(Protocol):
    """Whoever follows a run: the terminal, Prefect's artifacts."""

    def stage_started(self, planned: PlannedStage, folder: Path) -> None:
        """The command is about to run."""

    def stage_progress(self, planned: PlannedStage, line: Mapping[str, Any]) -> None:
        """A new line of progress.jsonl."""

    def stage_ended(self, planned: PlannedStage, entry: Mapping[str, Any]) -> None:
        """Published, reused or failed; `entry` is the stage's part of the run record."""

    def note(self, text: str) -> None:
        """Something that a person should know."""


@dataclass
class Session:
    """One run of one plan."""

    plan: Plan
    store: Store
    machine: Machine
    record: dict[str, Any]
    listeners: list[Listener] = field(default_factory=list)
    modules: Mapping[str, str] | None = None
    retry_delays_s: tuple[float, ...] = RETRY_DELAYS_S
    grace_s: float | None = None
    """Between SIGTERM and SIGKILL; None takes the machine profile's."""
    prefect_alive: Callable[[], bool] = lambda: True
    failure: BaseException | None = None
    waiting: str = ""
    """What the run waits for, while it does: who has the devices, or a person's answer."""
    asks: bool = False
    """Whether that is an answer, for which Prefect has a state of its own."""
    on_waiting: Callable[[str], None] = lambda text: None
    """Called when that changes."""
    hold: Callable[[Session, Stopped], None] = pause.wait_here
    """What a paused run does until it may go on; raises where another process will go on with it."""

    def wait_for(self, text: str) -> None:
        """Tell what is waited for; empty when it has come."""
        if text != self.waiting:
            self.waiting = text
            self.on_waiting(text)

    def tell(self, call: Callable[[Listener], None]) -> None:
        """Tell every listener; one that fails is dropped, a broken display must not end a training."""
        for listener in list(self.listeners):
            try:
                call(listener)
            except Exception as error:
                self.listeners.remove(listener)
                print(f"note: the display {type(listener).__name__} ended: {error}", file=sys.stderr)

    def note(self, text: str) -> None:
        """Tell every listener one sentence."""
        self.tell(lambda listener: listener.note(text))


def run_stage(session: Session, planned: PlannedStage) -> Artifact:
    """The stage's artifact, reused or built. Adds the stage's entry to the run record in either case.

    Raises:
        UserError: the stage rejected its input (exit 2), or a release was refused by its gates.
        StageFailed: the command crashed, or asked for a retry too often.
    """
    began = time.monotonic()
    entry: dict[str, Any] = {
        "id": planned.stage.id,
        "kind": planned.stage.kind,
        "digest": planned.digest,
        "folder": None,
        "reused": False,
        "seconds": 0.0,
        "metrics": {},
        "status": "running",
    }
    session.record["stages"].append(entry)
    try:
        artifact = session.store.find(planned.digest)
        entry["reused"] = artifact is not None
        while artifact is None:
            try:
                artifact = _build(session, planned, entry)
            except Stopped as stopped:
                entry.update(status="paused", folder=str(session.store.partial(planned.digest)))
                session.hold(session, stopped)
                entry.update(status="running", folder=None)
        planned.artifact = artifact
        entry.update(
            digest=artifact.digest,
            folder=str(artifact.folder),
            status="completed",
            metrics=artifact.manifest.get("metrics", {}),
            built_in_s=artifact.manifest.get("seconds"),
        )
        accepted = [*artifact.manifest.get("adopted", []), *([artifact.adopted] if artifact.adopted else [])]
        if accepted:
            entry["adopted"] = accepted
        return artifact
    except BaseException as error:
        folder = session.store.partial(planned.digest)
        ended = "failed" if isinstance(error, Exception) else "cancelled"
        entry.update(
            status="paused" if entry["status"] == "paused" else ended,
            folder=str(folder),
            metrics=_read_metrics(folder),
        )
        if not isinstance(error, UserError):
            entry["checkpoint"] = pause.newest_step(folder)
        raise
    finally:
        entry["seconds"] = elapsed(began)
        session.tell(lambda listener: listener.stage_ended(planned, entry))


def stage_command(planned: PlannedStage, machine: Machine, stage_path: Path, out: Path) -> list[str]:
    """The words that run a stage; those that run on several processes go through the machine's launcher."""
    words = [word.replace("{python}", sys.executable) for word in machine.for_kind(planned.stage.kind).launcher]
    return [*words, sys.executable, "-m", planned.module, str(stage_path), str(out)]


def lineage(session: Session, release: ReleaseStage) -> dict[str, Any]:
    """Manifests of all stages so far, for the release's card, and which of them are its model and its evaluation."""
    stages = []
    for entry in session.record["stages"]:
        planned = session.plan.stage(entry["id"])
        if planned.artifact is None:
            continue
        manifest = planned.artifact.manifest
        stages.append(
            {
                **{key: entry.get(key) for key in ("id", "kind", "digest", "reused", "folder", "adopted")},
                "config": manifest.get("stage_file", {}).get("stage", {}),
                "seconds": manifest.get("seconds"),
                "metrics": manifest.get("metrics", {}),
                "verifiers": manifest.get("ingredients", {}).get("verifiers", {}),
                "cards": manifest.get("ingredients", {}).get("cards", {}),
                "environment": manifest.get("environment"),
                "commit": manifest.get("commit"),
            }
        )
    base = {"name": session.plan.base.name, "digest": session.plan.base_digest, **session.plan.base.identity}
    return {
        "run": session.record["id"],
        "recipe": session.plan.recipe.name,
        "released": {"model": resolved_model(session.plan.recipe, release), "evaluation": release.evaluation},
        "controls": [one.model_dump(mode="json") for one in session.plan.recipe.controls],
        "seed": session.plan.recipe.seed,
        "overrides": session.record["overrides"],
        "command": session.record.get("command"),
        "base": base,
        "stages": stages,
        "environment": environment.versions(),
        "machine": environment.host(),
        "commit": environment.commit(),
    }


def _build(session: Session, planned: PlannedStage, entry: dict[str, Any]) -> Artifact:
    begun = {
        "digest": planned.digest,
        "without_source": planned.without_source,
        "id": planned.stage.id,
        "kind": planned.stage.kind,
        "source": planned.ingredients["source"],
    }

    def waiting(holder: str) -> None:
        session.note(f"{planned.stage.id}: waiting for {holder}, which builds the same stage")

    if pause.asked(session):
        raise Stopped(planned.stage.id, pause.newest_step(session.store.partial(planned.digest)))
    with session.store.build(planned.digest, begun, waiting) as build:
        for warning in build.warnings:
            session.note(f"{planned.stage.id}: {warning}")
        if build.existing is not None:
            entry["reused"] = True
            return build.existing
        devices = devices_of(session.machine, planned.stage.kind)
        with take_turn(session, planned.stage.id, devices, build.folder) as turn:
            return _build_now(session, planned, build, turn)


def _build_now(session: Session, planned: PlannedStage, build: Build, turn: Turn) -> Artifact:
    """Run the stage's command and publish what it makes."""
    _check_source(planned)
    described = stage_file(
        session.plan,
        planned,
        session.store,
        session.machine,
        lineage(session, planned.stage) if isinstance(planned.stage, ReleaseStage) else None,
    )
    check_room(described, build.folder)
    path = build.folder / "stage.json"
    write_json_atomic(path, described.model_dump(mode="json"))
    session.tell(lambda listener: listener.stage_started(planned, build.folder))
    _attempts(session, planned, build, path, turn)
    return build.publish(_manifest(session, planned, described, build.folder))


def _check_source(planned: PlannedStage) -> None:
    """The command reads the code as it is now; a product must not get the name of other code."""
    planned_source, source = planned.ingredients["source"], closure(planned.module)
    changed = sorted(
        module for module in {*planned_source, *source} if planned_source.get(module) != source.get(module)
    )
    if changed:
        raise UserError(
            f"{planned.stage.id}: {', '.join(changed[:3])} changed since the run was planned; run the same command "
            "again to build with the new code"
        )
    if planned.ingredients.get("verifiers"):  # hours may have gone by since
        from verifiers.registry import identity

        identity.cache_clear()
        for name, known in planned.ingredients["verifiers"].items():
            if dict(identity(name)) != known:
                raise UserError(
                    f"{planned.stage.id}: verifier {name!r} changed since the run was planned; certify it "
                    f"(`derive verifiers certify {name}`) and run the same command again"
                )


def _attempts(session: Session, planned: PlannedStage, build: Build, path: Path, turn: Turn) -> None:
    for attempt, delay_s in enumerate((*session.retry_delays_s, None), 1):
        code, told = _told(build.folder, _run_command(session, planned, build, path, turn))
        if code == 0:
            return
        if code == EXIT_USER_ERROR:
            message = _by_its_id(planned, told or _last_words(build.folder / LOG, "error: "))
            # A rejected input leaves nothing to resume; a refused release leaves the figures that refused it.
            begun = any((build.folder / CHECKPOINTS).glob("[!.]*")) or any((build.folder / "rollouts").glob("step-*"))
            if not begun and planned.stage.kind != "release":
                build.discard()
            refused = planned.stage.kind == "release" and _read_metrics(build.folder).get("released") is False
            raise (GatesRefused if refused else UserError)(message)
        if code in (EXIT_RETRY, EXIT_STALLED) and delay_s is not None:
            why = "stalled" if code == EXIT_STALLED else told or _last_words(build.folder / LOG, "retry: ")
            session.note(f"{planned.stage.id}: {why}; attempt {attempt + 1} in {delay_s:g} s")
            time.sleep(delay_s)
            continue
        raise StageFailed(_failure(planned, build.folder / LOG, code))


def _run_command(session: Session, planned: PlannedStage, build: Build, path: Path, turn: Turn) -> int:
    """One attempt; returns the exit code with every process of it gone. Raises Stopped where it was paused."""
    last = last_progress(build.folder)
    (build.folder / FAILURE).unlink(missing_ok=True)
    with (build.folder / LOG).open("ab") as log:
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {planned.stage.id}\n".encode())
        log.flush()
        heard = log.tell()
        running = Supervised(
            stage_command(planned, session.machine, path, build.folder),
            log,
            build.folder,
            _stage_environment(session.machine),
            [build.lease.file_descriptor, *turn.file_descriptors],
            session.machine.stop_grace_s if session.grace_s is None else session.grace_s,
        )
    paused_at: float | None = None
    with running:
        code = None
        while code is None:
            code = running.wait(POLL_S)
            if paused_at is None and code is None and pause.asked(session):
                paused_at = time.monotonic()
                running.ask()
                session.note(f"{planned.stage.id}: stops for a pause")
            if paused_at is not None and code is None and time.monotonic() - paused_at > pause.STOP_LIMIT_S:
                code = running.close()
            if build.lease.lost.is_set():
                running.close()
                raise StageFailed(
                    f"{planned.stage.id}: another machine took over this stage's folder; run again to follow it"
                )
            line = last_progress(build.folder)
            if line is not None and line != last:
                last = line
                session.tell(partial(_tell_progress, planned, line))
            waits, heard = waiting_lines(build.folder / LOG, heard)
            for text in waits:
                stalled = STALLED.search(text)
                if stalled:
                    stacks = f"what each of its threads was doing stands at the end of {build.folder / LOG}"
                    text = f"no progress for {stalled[1]}; {stacks}"
                session.note(f"{planned.stage.id}: {text}")
                if stalled and session.machine.restart_stalled and code is None:
                    running.close()
                    code = EXIT_STALLED
    if paused_at is not None and code in STOPPED_EXITS and not (build.folder / FAILURE).exists():
        raise Stopped(planned.stage.id, pause.newest_step(build.folder))
    return code


def _tell_progress(planned: PlannedStage, line: Mapping[str, Any], listener: Listener) -> None:
    listener.stage_progress(planned, line)


def _stage_environment(machine: Machine) -> dict[str, str]:
    given = dict(os.environ)
    given["PYTHONUNBUFFERED"] = "1"
    # torchrun's agent, also below accelerate, kills ranks 30 s after SIGTERM; the supervisor has the limit that counts.
    given.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(int(pause.STOP_LIMIT_S)))
    if machine.num_threads is not None:
        given["OMP_NUM_THREADS"] = str(machine.num_threads)
    paths = [path for path in given.get("PYTHONPATH", "").split(os.pathsep) if path]
    if "site-packages" not in ROOT.parts:  # an installed tree is found anyway
        given["PYTHONPATH"] = os.pathsep.join([str(ROOT), *(path for path in paths if path != str(ROOT))])
    return given


def _manifest(session: Session, planned: PlannedStage, described: StageFile, folder: Path) -> dict[str, Any]:
    progress = last_progress(folder)
    began = (folder / "stage.json").stat().st_mtime
    plain = described.model_dump(mode="json")
    plain.pop("lineage")
    return {
        "format": 1,
        "id": planned.stage.id,
        "kind": planned.stage.kind,
        "without_source": planned.without_source,
        "ingredients": planned.ingredients,
        "stage_file": plain,
        "recipe": session.plan.recipe.name,
        "run": session.record["id"],
        "metrics": _read_metrics(folder),
        "environment": environment.versions(),
        "commit": environment.commit(),
        "host": environment.host(),
        "machine": session.machine.model_dump(mode="json"),
        "num_threads": session.machine.num_threads or environment.host()["num_cores"],
        # progress.jsonl counts on across resumptions; a stage without it was built in one go
        "seconds": round(max(progress.get("seconds", 0.0) if progress else 0.0, time.time() - began), 3),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _read_metrics(folder: Path) -> dict[str, Any]:
    try:
        value = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _told(folder: Path, code: int) -> tuple[int, str | None]:
    """The exit code, with the message where a rank left them because its launcher ends with 1 whatever happened.

    A launcher that is stopped just then ends like one whose ranks had nothing to say.
    """
    if code not in (1, STOPPED_EXIT):
        return code, None
    try:
        failure = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
        return int(failure["exit_code"]), str(failure["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return code, None


def _last_words(log: Path, marker: str) -> str:
    """The last message of a stage that starts with `marker`, to the end of the log, without the marker."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith(marker)]
    if not starts:
        return f"the stage command gave no reason; see {log}"
    return "\n".join(lines[starts[-1] :]).removeprefix(marker).strip()


def _by_its_id(planned: PlannedStage, message: str) -> str:
    """A stage's message for whoever runs the recipe: `stage.steps` is `rl.steps` there, and any other begins `rl: `."""
    name = planned.stage.id
    fields = "|".join(type(planned.stage).model_fields)
    named = re.sub(rf"\bstage\.(?=(?:{fields})\b)", f"{name}.", message)
    return named if named.startswith((f"{name}.", f"{name}:")) else f"{name}: {named}"


def _failure(planned: PlannedStage, log: Path, code: int) -> str:
    """Cause and remedy in the first line, which is all that a list of runs shows; then the end of the log."""
    how = f"was killed by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
    lines = last_attempt(log)
    cause = cause_of(lines, code, planned.stage)
    if code == EXIT_STALLED:
        how = "made no progress, also when it was started again, and was ended"
        cause = Cause("it hangs", "see in the log where each of its threads stood")
    why = "" if cause is None else f"{cause.text}; "
    remedy = "mend the cause" if cause is None else cause.remedy
    ending = "\n".join(f"    {line}" for line in lines[-NUM_LOG_LINES:])
    return (
        f"{planned.stage.id}: {why}{remedy}, then run the same command again: it resumes. "
        f"The {planned.stage.kind} command {how}.\nEnd of {log}:\n{ending}"
    )


def last_attempt(log: Path) -> list[str]:
    """The lines of a stage's log since its command was last started, as far as the end of the file holds them."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    starts = [number for number, line in enumerate(lines) if ATTEMPT.match(line)]
    return lines[starts[-1] + 1 :] if starts else lines

"""What `derive up` adds to a server with forms: its checks, its care for the server, and what keeps its states true.

A flow process that dies with its machine leaves a run that Prefect shows as running for ever. Runs send a heartbeat
every half minute (`server.HEARTBEAT_S`); an automation marks a run as crashed once four were missed. The training
itself is not Prefect's: what such a run had built lies in the store, and the next run goes on from it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from configs.load import load_recipe, preset_names
from flows import server
from flows.device import SLOTS_VARIABLE
from flows.doctor import Check, check_prefect, check_store, check_versions, guarded, print_table, recorded_server
from flows.store import Store
from flows.supervisor import Supervised

if TYPE_CHECKING:
    from prefect.events.schemas.automations import AutomationCore

MISSED_HEARTBEATS = 4
ZOMBIES = "derive: a run whose process is gone is crashed"
NO_HEARTBEAT = "no heartbeat for two minutes: its process or machine is gone; run it again, it resumes"
HEARTBEAT_EVENT = "prefect.flow-run.heartbeat"
ENDINGS = (
    *("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended", "Checkpointed", "GateFailed", "DryRun"),
    *("Scheduled", "AwaitingRetry", "Resuming", "Pending"),  # it will be started again
)
"""Names of states after which no heartbeat comes."""
WAITING_ROOM = 16
"""Runs beyond those that may compute, each a process that waits for its device and says behind whom."""
LOOK_EVERY_S, LOOK_AGAIN_S = 60.0, 10.0
RESTART_DELAY_S = 2.0
INSTALL_ATTEMPTS, INSTALL_PAUSE_S = 20, 3.0


def configure_slots(limit: int) -> int:
    """Let so many runs compute at a time, whoever starts them; returns how many processes may be there for that."""
    os.environ.setdefault(SLOTS_VARIABLE, str(limit))
    return limit + WAITING_ROOM


def keep_states_true(store: Store) -> None:
    """Look now and every minute, in a thread of this process, whether Prefect shows runs as they are."""
    from flows.reconcile import reconcile

    settled: dict[str, int] = {}

    def work() -> None:
        told = ""
        while True:
            pause_s = LOOK_EVERY_S
            try:
                for said in reconcile(store, settled):
                    print(said, flush=True)
                told = ""
            except Exception as error:  # the server is away, or of another version
                pause_s = LOOK_AGAIN_S
                if type(error).__name__ != told:
                    told = type(error).__name__
                    print(f"note: states were not compared with the store: {told}: {str(error)[:200]}", flush=True)
            time.sleep(pause_s)

    threading.Thread(target=work, daemon=True, name="reconcile").start()


def add_automations(entries: Sequence[str]) -> None:
    """Install templates (`flows/automations.py`) once the deployments are there, in a thread."""
    from flows.automations import install

    def work() -> None:
        told = ""
        for _ in range(INSTALL_ATTEMPTS):
            try:
                for said in install(entries):
                    print(said, flush=True)
                return
            except Exception as error:  # the deployments come a few seconds later
                told = str(error)[:300]
                time.sleep(INSTALL_PAUSE_S)
        print(f"note: no automation was made: {told}", flush=True)

    if entries:
        threading.Thread(target=work, daemon=True, name="automations").start()


class KeptServer:
    """A server that is started again when it ends without being asked to. Use it as a context."""

    def __init__(self, start: Callable[[], Supervised], ready: Callable[[Supervised], None]) -> None:
        """`ready` waits for the first one and raises where it does not come up."""
        self._start, self._closing = start, threading.Event()
        self._server = start()
        try:
            ready(self._server)
        except BaseException:
            self._server.close()
            raise
        self._thread = threading.Thread(target=self._watch, daemon=True, name="server")
        self._thread.start()

    def _watch(self) -> None:
        while not self._closing.is_set():
            if self._server.wait(1.0) is None:
                continue
            if self._closing.wait(RESTART_DELAY_S):
                return
            print("the Prefect server has ended; it is started again, runs go on meanwhile", flush=True)
            self._server.close()
            self._server = self._start()

    def __enter__(self) -> KeptServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(RESTART_DELAY_S + 2.0)
        self._server.close()


def ensure_automations() -> list[str]:
    """Make what is missing on the server of PREFECT_API_URL; returns the names of what was made.

    One that an operator changed or switched off stays as it is.
    """
    from prefect.client.orchestration import get_client

    made = []
    with get_client(sync_client=True) as client:
        for automation in (zombie_automation(),):
            if not client.read_automations_by_name(automation.name):
                client.create_automation(automation)
                made.append(automation.name)
    return made


def zombie_automation() -> AutomationCore:
    """Marks a run as crashed when its heartbeats stop without an end."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    trigger: Any = EventTrigger(
        after={HEARTBEAT_EVENT},
        expect={HEARTBEAT_EVENT, *(f"prefect.flow-run.{ending}" for ending in ENDINGS)},
        match={"prefect.resource.id": ["prefect.flow-run.*"]},  # type: ignore[arg-type]
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=server.HEARTBEAT_S * MISSED_HEARTBEATS),
    )
    return AutomationCore(
        name=ZOMBIES,
        description="Made by `derive up`, once; change it or switch it off as you like.",
        trigger=trigger,
        actions=[ChangeFlowRunState(state=StateType.CRASHED, name=None, message=NO_HEARTBEAT, force=False)],
    )


def check(store: Store, port: int) -> int:
    """`derive up --check`: whether it would come up, and what to do where not. Returns the exit code, 0 or 2."""
    checks = [
        *guarded("versions", check_versions),
        *guarded("store", lambda: check_store(str(store.root))),
        *guarded("server", lambda: check_server(store, port)),
        *guarded("presets", check_presets),
    ]
    print_table(checks)
    return 2 if any(one.state == "fail" for one in checks) else 0


def check_server(store: Store, port: int) -> list[Check]:
    """Whether a server can be started here, or the one that is named answers."""
    if os.environ.get("PREFECT_API_URL"):
        found = check_prefect(str(store.root))
        if found[0].state == "ok":
            return found
        return [Check("server", "fail", found[0].detail.partition(";")[0], "start it, or unset PREFECT_API_URL")]
    home = store.root / "prefect"
    running = recorded_server(home)
    if running and server.healthy(running):
        return [Check("server", "fail", f"one runs already on this store: {running}", "use it, or stop it first")]
    try:
        server.free_port(port)
    except UserError as error:
        return [Check("port", "fail", str(error), "give another with --port")]
    if home.exists():
        lock = server.lock_database(home)
        if lock < 0:
            return [Check("database", "fail", f"{home} is in use by a run", "wait for the run's end")]
        os.close(lock)
    return [Check("server", "ok", f"port {port} and the database in {home} are free")]


def check_presets() -> list[Check]:
    """Whether every preset can be offered."""
    broken = []
    for name in preset_names():
        try:
            load_recipe(name)
        except UserError as error:
            broken.append(Check("preset", "fail", f"{name}: {error}", "mend it, or take the file away"))
    return broken or [Check("presets", "ok", f"{len(preset_names())} presets, each a form")]

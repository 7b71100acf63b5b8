"""What `derive up` adds to a server with forms: its checks, and the automations that keep its states true.

A flow process that dies with its machine leaves a run that Prefect shows as running for ever. Runs send a heartbeat
every half minute (`HEARTBEAT_S`); an automation marks a run as crashed once four were missed. The training itself is
not Prefect's: what such a run had built lies in the store, and the next run goes on from it.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from configs.load import load_recipe, preset_names
from flows import server
from flows.doctor import Check, check_prefect, check_store, check_versions, guarded, print_table, recorded_server
from flows.store import Store

if TYPE_CHECKING:
    from prefect.events.schemas.automations import AutomationCore

HEARTBEAT_S = 30
MISSED_HEARTBEATS = 4
ZOMBIES = "derive: a run whose process is gone is crashed"
HEARTBEAT_EVENT = "prefect.flow-run.heartbeat"
ENDINGS = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")


def configure_heartbeat() -> None:
    """Set how often runs say that they live; before prefect is imported."""
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_S))


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
        within=timedelta(seconds=HEARTBEAT_S * MISSED_HEARTBEATS),
    )
    message = "no heartbeat for two minutes: its process or machine is gone; run it again, it resumes"
    return AutomationCore(
        name=ZOMBIES,
        description="Made by `derive up`, once; change it or switch it off as you like.",
        trigger=trigger,
        actions=[ChangeFlowRunState(state=StateType.CRASHED, name=None, message=message, force=False)],
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

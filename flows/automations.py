"""Automations as templates, which `derive up --automations` or `derive automations` puts on a Prefect server; all off.

    on-release:BLOCK       tell BLOCK of every release: a notification or webhook block of the server, TYPE/NAME
    next:FAMILY=PRESET     when something of FAMILY is released, start PRESET from it (default: math=reasoning/tiny)
    weekly:PRESET[=CRON]   evaluate PRESET each week, Monday at three, if anything has changed (default: math/tiny)

A run that has released says so by the event `derive.released`, of the resource `derive.release.NAME`, with the labels
`derive.family`, `derive.recipe`, `derive.folder`, `derive.run` and `derive.digest`. An operator may change what was
made here, or switch it off; it is made once. Addresses and tokens stay in the server's blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from configs.errors import UserError
from configs.load import load_recipe, preset_names
from configs.names import unknown

if TYPE_CHECKING:
    from prefect.events.schemas.automations import AutomationCore

RELEASED = "derive.released"
RELEASES = "derive.release."
"""How the ids of releases begin."""
PREFIX = "derive: "
DEFAULT_CRON = "0 3 * * 1"
MADE_BY = "Made by derive, once; change it or switch it off as you like."
WEBHOOK = "webhook"


def emit_released(record: Mapping[str, Any]) -> None:
    """Say that a run has released; may raise whatever the client raises."""
    from prefect.events import emit_event

    entry = next(entry for entry in reversed(record["stages"]) if entry["kind"] == "release")
    name = str(entry["metrics"].get("name") or record["recipe"])
    labels = {
        "prefect.resource.id": f"{RELEASES}{name}",
        "prefect.resource.name": name,
        "derive.family": str(record["recipe"]).partition("/")[0],
        "derive.recipe": str(record["recipe"]),
        "derive.folder": str(record["release"]),
        "derive.run": str(record["id"]),
        "derive.digest": str(entry["digest"]),
    }
    flow_run = record.get("flow_run")
    related = (
        [{"prefect.resource.id": f"prefect.flow-run.{flow_run['id']}", "prefect.resource.role": "flow-run"}]
        if flow_run
        else []
    )
    emit_event(RELEASED, resource=labels, related=related, payload={"metrics": record["metrics"]})


def parse(text: str) -> tuple[str, str]:
    """Template and argument of one entry of `--automations`. Raises UserError that names the allowed ones."""
    name, _, argument = text.strip().partition(":")
    if name not in TEMPLATES:
        raise unknown("--automations", name, "template", list(TEMPLATES))
    return name, argument.strip()


def install(entries: Sequence[str]) -> list[str]:
    """Make what is missing on the server of PREFECT_API_URL; a sentence for each entry.

    Raises:
        UserError: a template, preset, deployment or block that there is not.
    """
    from prefect.client.orchestration import get_client

    said = []
    with get_client(sync_client=True) as client:
        for name, argument in map(parse, entries):
            said.append(TEMPLATES[name](client, argument))
    return said


def installed() -> list[tuple[str, bool]]:
    """Names of the automations made here, and whether each is on."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = client.request("POST", "/automations/filter", json={}).json()
    return [(one["name"], one["enabled"]) for one in found if one["name"].startswith(PREFIX)]


def _on_release(client: Any, block: str) -> str:
    from prefect.events.actions import CallWebhook, SendNotification

    if not block:
        raise UserError(
            "--automations: on-release: no block was given; make one under Blocks and give it, such as "
            "on-release:slack-webhook/team"
        )
    kind, _, name = block.partition("/")
    document = _block(client, kind, name)
    text = "{{ event.resource['prefect.resource.name'] }} was released by run {{ event.resource['derive.run'] }} to " \
           "{{ event.resource['derive.folder'] }}"  # fmt: skip
    action: Any
    if kind == WEBHOOK:
        action = CallWebhook(block_document_id=document, payload=f'{{"text": "{text}"}}')
    else:
        action = SendNotification(block_document_id=document, subject="derive: a release", body=text)
    return _make(client, f"{PREFIX}tell {block} of releases", {}, action)


def _next(client: Any, argument: str) -> str:
    from prefect.events.actions import RunDeployment

    family, _, preset = (argument or "math=reasoning/tiny").partition("=")
    _require_preset(preset)
    families = sorted({name.partition("/")[0] for name in preset_names()})
    if family not in families:
        raise unknown("--automations: next", family, "family", families)
    if preset.startswith(f"{family}/"):
        raise UserError(
            f"--automations: next: {preset} is of the family {family} itself and would start for ever; name a preset "
            "of another family"
        )
    parameters = {"preset": preset, "base": "{{ event.resource['derive.folder'] }}"}
    action = RunDeployment(source="selected", deployment_id=_deployment(client, preset), parameters=parameters,
                           job_variables=None)  # fmt: skip
    return _make(client, f"{PREFIX}{preset} after {family}", {"derive.family": family}, action)


def _weekly(client: Any, argument: str) -> str:
    from prefect.client.schemas.schedules import CronSchedule

    preset, _, cron = (argument or "math/tiny").partition("=")
    _require_preset(preset)
    stages = [stage.id for stage in load_recipe(preset).stages if stage.kind == "evaluate"]
    if not stages:
        raise UserError(f"--automations: weekly: {preset} evaluates nothing; name a preset with an evaluate stage")
    deployment, slug = _deployment(client, preset), "derive-weekly"
    try:
        schedule = CronSchedule(cron=cron or DEFAULT_CRON)
    except ValueError as error:
        raise UserError(f"--automations: weekly: {cron!r} is no cron expression; give five fields, such as "
                        f"{DEFAULT_CRON!r}") from error  # fmt: skip
    found = client.request("GET", f"/deployments/{deployment}/schedules").json()
    if any(one.get("slug") == slug for one in found):
        return f"{preset} is evaluated by a schedule already"
    body = [
        {"schedule": schedule.model_dump(mode="json"), "active": True, "slug": slug, "parameters": {"stages": stages}}
    ]
    client.request("POST", f"/deployments/{deployment}/schedules", json=body).raise_for_status()
    return f"{preset} is evaluated at {schedule.cron}"


TEMPLATES: dict[str, Callable[[Any, str], str]] = {"on-release": _on_release, "next": _next, "weekly": _weekly}


def _make(client: Any, name: str, labels: Mapping[str, str], action: Any) -> str:
    if client.read_automations_by_name(name):
        return f"{name!r} is there already"
    client.create_automation(_on_event(name, labels, action))
    return f"made {name!r}"


def _on_event(name: str, labels: Mapping[str, str], action: Any) -> AutomationCore:
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    trigger: Any = EventTrigger(
        expect={RELEASED},
        match={"prefect.resource.id": [f"{RELEASES}*"], **{key: [value] for key, value in labels.items()}},  # type: ignore[arg-type]
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )
    return AutomationCore(name=name, description=MADE_BY, trigger=trigger, actions=[action])


def _require_preset(preset: str) -> None:
    if preset not in preset_names():
        raise unknown("--automations", preset, "preset", preset_names())


def _deployment(client: Any, preset: str) -> UUID:
    wanted = {"deployments": {"name": {"any_": [preset.replace("/", "-")]}}}
    found = client.request("POST", "/deployments/filter", json=wanted).json()
    if not found:
        raise UserError(f"--automations: the server has no deployment of {preset}; start `derive up` first")
    return UUID(found[0]["id"])


def _block(client: Any, kind: str, name: str) -> UUID:
    wanted = {"block_types": {"slug": {"any_": [kind]}}, "include_secrets": False}
    found = client.request("POST", "/block_documents/filter", json=wanted).json()
    named = {one["name"]: one["id"] for one in found}
    if name not in named:
        raise unknown("--automations: on-release", f"{kind}/{name}", "block", [f"{kind}/{one}" for one in named])
    return UUID(named[name])

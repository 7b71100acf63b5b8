"""A run that is only shown: what would be reused, built and spent, what differs from the preset, and the commands.

The same plan as the run's own and the same forecast as `derive plan`, as one page of Markdown for Prefect's UI.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import UserError
from configs.load import load_recipe
from flows.forecast import forecast
from flows.session import Request
from flows.stages import Session, stage_command
from flows.terminal import duration, number

if TYPE_CHECKING:
    from derivatives.planning.predict import Prediction

LONGEST = 80
"""Characters of a value that a difference shows."""


def preview(session: Session, request: Request) -> str:
    """The page. Times parts of stages for a few seconds where the profile means this machine; builds nothing."""
    predictions, checks = forecast(session.plan, session.store, session.machine)
    lines = {line.stage_id: line for line in predictions}
    recipe = session.plan.recipe
    page = [
        f"# {recipe.name}: what would run",
        "",
        f"Base `{recipe.base}`, machine `{session.machine.name}`, store `{session.store.root}`. Nothing was built.",
        "",
        "| stage | kind | state | steps | tokens/s | GB a device | time | device-hours |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for planned in session.plan.stages:
        if planned.artifact is not None:
            state = f"reused `{planned.artifact.digest[:12]}` of run `{planned.artifact.manifest.get('run', '?')}`"
        else:
            state = "to resume" if session.store.partial(planned.digest).exists() else "to build"
        figures = _figures(lines.get(planned.stage.id))
        page.append(f"| {planned.stage.id} | {planned.stage.kind} | {state} | {' | '.join(figures)} |")
    seconds = sum(line.seconds or 0.0 for line in predictions)
    hours = sum(line.device_seconds or 0.0 for line in predictions) / 3600
    page += ["", f"All that is predicted: **{duration(seconds)}**, {hours:.3g} device-hours." if seconds else ""]
    refusals = [f"- **{line.stage_id} does not fit**: {line.refusal}; {'; '.join(line.remedies)}"
                for line in predictions if line.refusal]  # fmt: skip
    found = [f"- {check.state}: {check.name}: {check.text}" + (f"; {check.remedy}" if check.remedy else "")
             for check in checks if check.state != "ok"]  # fmt: skip
    unknown = [f"- not predicted: {line.stage_id}: {line.unpredicted}" for line in predictions if line.unpredicted]
    if refusals or found or unknown:
        page += ["", "## What to look at", "", *refusals, *found, *unknown]
    changed = list(differences(_preset(request), recipe.model_dump(mode="json")))
    page += ["", f"## Changed from the preset `{request.preset}`", ""]
    page += ["| field | preset | this run |", "|---|---|---|"] if changed else ["Nothing."]
    page += [f"| `{field}` | {_short(before)} | {_short(after)} |" for field, before, after in changed]
    page += ["", "## Commands", "", "The whole run in a terminal:", "", "```", request.command, "```", ""]
    page += ["Stage by stage, after `derive plan ... --out stages/`:", "", "```"]
    for planned in session.plan.stages:
        words = stage_command(planned, session.machine, Path(f"stages/{planned.stage.id}.json"),
                              Path(f"stages/{planned.stage.id}"))  # fmt: skip
        page.append(shlex.join(words))
    return "\n".join([*page, "```"])


def differences(before: Any, after: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Fields in which two plain values differ, by dotted name; a list of stages goes by their ids.

    What is only on one side is paired with None.
    """
    before, after = _by_id(before), _by_id(after)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys([*before, *after]):
            yield from differences(before.get(name), after.get(name), f"{where}.{name}" if where else str(name))
    elif before != after:
        yield where.removeprefix("stages."), before, after


def _by_id(value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(one, dict) and "id" in one for one in value):
        return {one["id"]: one for one in value}
    return value


def _preset(request: Request) -> Any:
    try:
        return load_recipe(request.preset).model_dump(mode="json")
    except UserError:  # what was changed made it valid
        return {}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False).replace("|", "\\|")
    return f"`{text if len(text) <= LONGEST else text[: LONGEST - 3] + '...'}`"


def _figures(line: Prediction | None) -> list[str]:
    if line is None:
        return [""] * 5
    return [
        "" if line.steps is None else f"{line.steps:,}",
        "" if line.tokens_per_s is None else number(line.tokens_per_s),
        "" if line.memory is None else f"{line.memory.total / 1e9:.2f}",
        "" if line.seconds is None else duration(line.seconds),
        "" if not line.device_seconds else f"{line.device_seconds / 3600:.3g}",
    ]

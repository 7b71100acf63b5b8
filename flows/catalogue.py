"""What `derive up` offers: a deployment per preset, with a page that says what it builds, takes and last came to.

Time and memory are those of `derive plan --no-probe` for every machine profile that comes with the project, from the
preset alone: no checkpoint is opened but the seedling's config, nothing is timed, no digest is made. Speeds of a CPU
are therefore left out; a dry run times them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.load import FOLDER, load_machine, load_recipe, machine_names, preset_names
from configs.names import verifier_names
from configs.schema import Recipe
from configs.settings.corpus import CorpusStage
from configs.settings.machine import Machine
from flows import leaderboard
from flows.base import SEEDLING
from flows.store import Store
from flows.terminal import duration

LEAST_PREDICTED = 100_000_000
"""Parameters. A smaller model is slowed down by launches of kernels, of which the published shares know nothing."""
SHOWN_SETTING = 40
"""A longer value is left out of the stage table."""


@dataclass(frozen=True)
class Takes:
    """What a recipe takes on one machine profile; `refusal` says why it does not fit."""

    machine: str
    devices: str
    memory: str
    time: str
    device_hours: str
    refusal: str = ""


def describe(recipe: Recipe, last: Mapping[str, str] | None = None) -> str:
    """The Markdown page of a preset's deployment.

    Args:
        recipe: The preset.
        last: The leaderboard's row of its newest release, if there is one.
    """
    lines = [
        recipe.description.strip() or recipe.title,
        "",
        f"Base **{recipe.base}**; status: {recipe.status}. {_standing(last)}",
        "",
        *_takes_table(recipe),
        "",
        *_stage_table(recipe),
        "",
        *_data_table(recipe),
    ]
    if recipe.expected:
        lines += ["", "| expected | value | source |", "|---|---|---|"]
        lines += [f"| {figure.metric} | {figure.value:g} | {figure.source} |" for figure in recipe.expected]
    lines += ["", f"The same in a terminal: `derive run {recipe.name}`."]
    return "\n".join(lines)


def tags(recipe: Recipe) -> list[str]:
    """Family, size and status of a preset, by which the UI's list can be filtered.

    `math/tiny-tools` is of family math and size tiny. Runs take the tags over, so the status says whose it is.
    """
    family, _, rest = recipe.name.partition("/")
    return list(dict.fromkeys(filter(None, (family, rest.partition("-")[0], f"preset {recipe.status}"))))


def takes(recipe: Recipe, machine: Machine) -> Takes:
    """What the stages with a model take on a profile, as `derive plan` predicts it from a recipe alone."""
    from derivatives.planning.amounts import CHARACTERS_PER_TOKEN, Known
    from derivatives.planning.devices import device_of
    from derivatives.planning.predict import predict, prepare
    from derivatives.planning.shape import shape_of

    own = Path(recipe.base).expanduser()
    folder = SEEDLING if recipe.base == "seedling" else own if own.is_dir() else None
    try:
        shape = shape_of(recipe.base, folder)
    except UserError as error:
        return Takes(machine.name, "", "", "", "", f"the base's shape is not known: {error}")
    stages = {stage.id: stage for stage in recipe.stages}
    known = Known(stages, {}, lambda text: round(len(text) / CHARACTERS_PER_TOKEN))
    lines = [predict(prepare(stage, shape, device_of(machine.for_kind(stage.kind)), known), None)
             for stage in recipe.stages]  # fmt: skip
    whole = device_of(machine)
    devices = f"{whole.num_processes} x {whole.name}" if machine.device == "cuda" else whole.name
    refused = [line for line in lines if line.refusal]
    if refused:
        return Takes(machine.name, devices, "", "", "", refused[0].refusal)
    largest = max((line for line in lines if line.memory), key=lambda line: line.memory.total, default=None)  # type: ignore[union-attr]
    memory = ""
    if largest is not None and largest.memory is not None:
        memory = f"{largest.memory.total / 1e9:.1f} of {(largest.limit or 0) / 1e9:.0f} GB ({largest.stage_id})"
    if machine.device == "cuda" and shape.parameters < LEAST_PREDICTED:
        return Takes(machine.name, devices, memory, "not predicted at this size", "")
    timed = [line for line in lines if line.seconds is not None]
    seconds = sum(line.seconds or 0.0 for line in timed)
    hours = sum(line.device_seconds or 0.0 for line in timed) / 3600
    untimed = [line.stage_id for line in lines if line.seconds is None and line.memory is not None]
    if not timed:
        return Takes(machine.name, devices, memory, "a dry run tells", "")
    time = duration(seconds) + (f", without {', '.join(untimed)}" if untimed else "")
    return Takes(machine.name, devices, memory, time, f"{hours:.3g}")


def newest_releases(store: Store) -> dict[str, dict[str, str]]:
    """Of every recipe that was released from this store, the leaderboard's row of its newest release."""
    found: dict[str, dict[str, str]] = {}
    for row in leaderboard.rows(store):
        known = found.get(row["recipe"])
        if row.get("released", "no") != "no" and (known is None or known["run"] < row["run"]):
            found[row["recipe"]] = row  # run ids begin with the date
    return found


def fingerprint(store: Store) -> tuple[Any, ...]:
    """What the offer depends on; when it changes, the deployments are to be made again. Takes milliseconds."""
    files = sorted((str(path), path.stat().st_mtime_ns) for path in FOLDER.glob("*/*.yaml"))
    released = sorted((name, row["run"]) for name, row in newest_releases(store).items())
    return verifier_names(), tuple(files), tuple(released)


def deployments(store: Store) -> list[Any]:
    """One Prefect deployment per preset, and the one that certifies a verifier.

    Prefect's settings must be made before this. Choices are those of now: to offer new ones, make them again.
    """
    from prefect.types.entrypoint import EntrypointType

    from flows import certify_flow
    from flows import derive as derive_flow

    derive_flow.VERIFIERS[:] = derive_flow.verifier_choices()
    certify_flow.VERIFIERS[:] = verifier_names()
    released = newest_releases(store)
    made = []
    for name in preset_names():
        recipe = load_recipe(name)
        made.append(
            derive_flow.derive.to_deployment(
                name=name.replace("/", "-"),
                parameters={"preset": name},
                description=describe(recipe, released.get(name)),
                tags=tags(recipe),
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
        )
    made.append(
        certify_flow.certify_verifier.to_deployment(
            name=certify_flow.NAME,
            description=certify_flow.PAGE,
            tags=["verifier"],
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
    )
    return made


def _standing(last: Mapping[str, str] | None) -> str:
    if last is None:
        return "Not yet released from this store."
    gain = next((value for name, value in last.items() if name.startswith("gain")), "-")
    return (
        f"Last release: {last['model']} at {last['pass@1']} where the base has {last['base']} (gain {gain}), in "
        f"{last['time']}, run `{last['run']}`."
    )


def _stage_table(recipe: Recipe) -> list[str]:
    lines = ["| stage | kind | reads | settings |", "|---|---|---|---|"]
    for stage in recipe.stages:
        plain = stage.model_dump(mode="json", exclude_defaults=True)
        reads = (
            plain.pop("data", None)
            or plain.pop("models", None)
            or ([plain.pop("evaluation")] if "evaluation" in plain else [])
            or [source["name"] for source in plain.pop("sources", [])]
        )
        short = {
            name: value
            for name, value in plain.items()
            if name not in ("id", "kind") and isinstance(value, (int, float, str)) and len(str(value)) < SHOWN_SETTING
        }
        lines.append(
            f"| {stage.id} | {stage.kind} | {', '.join(dict.fromkeys(reads))} | "
            f"{', '.join(f'{name}={_written(value)}' for name, value in short.items())} |"
        )
    return lines


def _written(value: object) -> str:
    """A setting as it can be typed; whole numbers with a mark every three digits."""
    return f"{value:_}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _data_table(recipe: Recipe) -> list[str]:
    from corpora import sources

    read: dict[str, tuple[str, list[str]]] = {}
    for stage in recipe.stages:
        if isinstance(stage, CorpusStage):
            for source in stage.sources:
                read.setdefault(sources.plain_name(source), (sources.licence(source), []))[1].append(stage.id)
        for given in getattr(stage, "data", ()):
            if str(given).endswith(".jsonl"):
                read.setdefault(Path(given).name, ("yours", []))[1].append(stage.id)
    rows = [f"| {name} | {licence} | {', '.join(used)} |" for name, (licence, used) in read.items()]
    return ["| data | licence | for |", "|---|---|---|", *rows]


def _takes_table(recipe: Recipe) -> list[str]:
    found = [takes(recipe, load_machine(name)) for name in machine_names()]
    rows = [
        f"| {one.machine} | {one.devices} | {one.memory} | {one.time} | {one.device_hours} |"
        for one in found
        if not one.refusal
    ]
    lines = ["| machine | devices | memory of one | predicted time | device-hours |", "|---|---|---|---|---|", *rows]
    refused = [f"- not on {one.machine}: {one.refusal}" for one in found if one.refusal]
    return [*lines, *(["", *refused] if refused else [])]

"""The forecast behind `derive plan`: a recipe on a store and a machine -> predictions, checks, and how they are shown.

The figures are worked out in `derivatives/planning/`. Here is gathered what they need: which stages are there already,
what those hold, the base's shape and tokenizer, the device, and what the probe timed. What is imported of
`derivatives` is imported where it is used, as everywhere in `flows`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from configs.errors import EXIT_USER_ERROR, UserError
from configs.settings.machine import Machine
from configs.settings.reinforcement import RlStage
from configs.stage import StageFile, read_progress, write_json_atomic
from flows.plan import Plan, PlannedStage, stage_file
from flows.stages import stage_command
from flows.store import Store
from flows.terminal import duration, number

if TYPE_CHECKING:
    from derivatives.planning.amounts import Known
    from derivatives.planning.checks import Check
    from derivatives.planning.predict import Prediction
    from derivatives.planning.questions import Found
    from derivatives.planning.shape import Shape
    from flows.budgets import Fitted

NARROW = 160
"""Columns assumed when stdout is no terminal."""
STYLES = {"ok": "green", "warning": "yellow", "refused": "bold red"}


def run(given: argparse.Namespace) -> int:
    """`derive plan PRESET`."""
    from configs.load import default_machine_name, load_machine
    from flows.session import Request, resolve

    store = Store(given.store or None)
    machine = load_machine(given.machine or default_machine_name())
    asked = Request(given.preset, given.base, tuple(given.overrides), verifier=given.verifier, budget=given.budget)
    made, fitted = resolve(asked, store, machine)
    rows = [_row(made, planned, store, machine, given.out) for planned in made.stages]
    predictions, checks = forecast(made, store, machine, probe=not given.no_probe)
    refused = any(line.refusal for line in predictions) or any(check.state == "refused" for check in checks)
    if given.json:
        _print_json(made, rows, predictions, checks, refused, fitted)
    else:
        console = Console()
        console = console if console.is_terminal else Console(width=NARROW)
        _show(console, made, store, machine, rows, predictions, checks)
        if fitted is not None:
            console.print(Text(fitted.said), soft_wrap=True)
        if given.out:
            for row in rows:
                print(" ".join(row["command"]))
    return EXIT_USER_ERROR if refused else 0


def _row(made: Plan, planned: PlannedStage, store: Store, machine: Machine, out: Path | None) -> dict[str, Any]:
    """What is there of a stage, and the command that makes it; with `out` its stage file is written."""
    path = (out / f"{planned.stage.id}.json") if out else Path("STAGE.json")
    folder = out / planned.stage.id if out else store.partial(planned.digest)
    if out:
        described = stage_file(made, planned, store, machine).model_dump(mode="json")
        for name, known in described["inputs"].items():  # run by hand, a stage reads what the one before wrote here
            if name != "base" and made.stage(name).artifact is None:
                known["path"] = str((out / name).resolve())
        write_json_atomic(path, described)
    begun = store.partial(planned.digest).exists()
    return {
        "id": planned.stage.id,
        "kind": planned.stage.kind,
        "digest": planned.effective_digest,
        "state": "reused" if planned.artifact else ("to resume" if begun else "to build"),
        "folder": str(planned.artifact.folder) if planned.artifact else None,
        "command": stage_command(planned, machine, path, folder),
    }


def forecast(made: Plan, store: Store, machine: Machine, probe: bool = True) -> tuple[list[Prediction], list[Check]]:
    """Predictions of the stages that are still to be run, and the checks of the whole plan.

    Args:
        made: The recipe on the store.
        store: Where its products are.
        machine: Profile it is planned for.
        probe: Time the parts of stages on this machine, where that is what the profile means.
    """
    from derivatives.planning.checks import check_disk, facts_of
    from derivatives.planning.devices import device_of
    from derivatives.planning.predict import predict, prepare, questions
    from derivatives.planning.questions import Found, ask

    shape, no_shape = _shape(made)
    known = known_of(made, store)
    asked = [
        prepare(planned.stage, shape, device_of(machine.for_kind(planned.stage.kind)), known)
        for planned in made.stages
        if planned.artifact is None
    ]
    wanted = [question for one in asked for question in questions(one)] if probe else []
    found: Found | str = "--no-probe was given"
    if wanted:
        found = ask(wanted, machine.num_threads, made.base.path)
    elif made.base.path is not None:
        found = Found({}, facts_of(made.base.path))
    answered = found if isinstance(found, Found) else None
    why = found if isinstance(found, str) else "--no-probe was given"
    predictions = [predict(one, answered, why) for one in asked]
    if machine.rollout is not None:
        note = "completions drawn in the stage's own process: the server of machine.rollout is not reckoned with"
        predictions = [
            replace(line, assumptions=(*line.assumptions, note)) if line.kind == "rl" else line for line in predictions
        ]
    checks = [*_checks(made, shape, no_shape, answered), *_check_cards(made, store)]
    return predictions, [*checks, check_disk(asked, store.root, not made.base.path)]


def foreseen(described: Mapping[str, Any]) -> Prediction | None:
    """What a plan says of one stage, from its stage file's content alone and with nothing timed; None where it cannot.

    Its inputs count as built, so lengths are those of the data; the model that it started from must still be there.
    """
    from derivatives.planning.amounts import Built, Known
    from derivatives.planning.devices import device_of
    from derivatives.planning.predict import predict, prepare
    from derivatives.planning.shape import read_shape

    try:
        given = StageFile.model_validate_json(json.dumps(described))
        folder = given.model_folder()
        built = {name: Built(Path(one.path)) for name, one in given.inputs.items() if one.kind in ("corpus", "sample")}
        known = Known({}, built, *_counter(folder))
        return predict(prepare(given.stage, read_shape(folder), device_of(given.machine), known), None)
    except (UserError, ValidationError, OSError, ValueError):  # a report shows what it can
        return None


def _shape(made: Plan) -> tuple[Shape | None, str]:
    """The base's shape, or why it is not known."""
    from derivatives.planning.shape import shape_of

    try:
        return shape_of(made.base.name, made.base.path), ""
    except UserError as error:
        return None, str(error)


def _checks(made: Plan, shape: Shape | None, no_shape: str, found: Found | None) -> list[Check]:
    from derivatives.planning.checks import Check, check_base, check_licence, check_positions

    name, folder = made.base.name, made.base.path
    stages = [planned.stage for planned in made.stages]
    if shape is None:
        checks = [Check("base", "warning", no_shape, "its memory and speed are not predicted")]
    elif folder is not None and (found is None or found.facts is None):
        checks = [Check("base", "warning", "its tokenizer could not be looked at", "run derive doctor")]
    else:
        facts = None if found is None else found.facts
        checks = [*check_base(name, folder, shape, facts), *check_positions(stages, shape)]
    return [*checks, check_licence(name, folder, stages)]


def _check_cards(made: Plan, store: Store) -> list[Check]:
    """What certifies the verifiers that reward; a stage that does not allow an uncertified one is refused."""
    from derivatives.planning.checks import Check, State
    from flows.certified import allows, missing_package, rewards_of, standing
    from verifiers.certify.card import labelled_sentence

    checks = []
    for planned in made.stages:
        lacking = missing_package(planned.stage)
        if lacking is not None:
            checks.append(Check("judge", "refused", f"{planned.stage.id}: {lacking}"))
        if isinstance(planned.stage, RlStage) and planned.stage.control is not None:
            paid = f"{planned.stage.id}: a control, paid by {planned.stage.verifier}, which needs no card"
            checks.append(Check("verifier", "ok", paid))
        for name in rewards_of(planned.stage) if isinstance(planned.stage, RlStage) else ():
            found = standing(name, store)
            if not found.problem and found.card is not None:
                measured = "; ".join(labelled_sentence(one) for one in found.card.labelled) or found.card.labelled_note
                text = f"{planned.stage.id}: {name} is certified, card {found.card.digest[:12]}; {measured}"
                checks.append(Check("verifier", "ok", text))
            else:
                state: State = "warning" if allows(planned.stage) or planned.artifact is not None else "refused"
                remedy = "" if state == "warning" else f"or set {planned.stage.id}.allow_uncertified=true"
                checks.append(Check("verifier", state, f"{planned.stage.id}: {name} {found.problem}", remedy))
    return checks


def known_of(made: Plan, store: Store) -> Known:
    """What is there that tells how much the stages of a plan have to do."""
    from derivatives.planning.amounts import Built, Known

    built = {}
    for planned in made.stages:
        if planned.artifact is not None:
            built[planned.stage.id] = Built(planned.artifact.folder)
        elif planned.stage.kind == "rl":
            measured = _earlier_rl(made, planned, store)
            if measured:
                built[planned.stage.id] = Built(store.root, metrics=measured)
    count, counts_by = _counter(made.base.path)
    return Known({planned.stage.id: planned.stage for planned in made.stages}, built, count, counts_by)


def _earlier_rl(made: Plan, planned: PlannedStage, store: Store) -> dict[str, float]:
    """What the newest finished run of this stage of this recipe drew, with whatever settings: means over its steps."""
    from derivatives.planning.amounts import drawn_before

    of_stage = (made.recipe.name, planned.stage.id)
    earlier = [one for one in store.artifacts() if (one.manifest.get("recipe"), one.manifest.get("id")) == of_stage]
    return drawn_before(read_progress(earlier[-1].folder)) if earlier else {}


def _counter(folder: Path | None) -> tuple[Callable[[str], int], str]:
    """How tokens of a text are counted: by the base's tokenizer where it is there."""
    from derivatives.planning.amounts import CHARACTERS_PER_TOKEN

    path = None if folder is None else folder / "tokenizer.json"
    if path is not None and path.is_file():
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception:  # the library's own error type is not public; the checks say what is wrong with the file
            tokenizer = None
        if tokenizer is not None:
            return lambda text: len(tokenizer.encode(text, add_special_tokens=False)), ""
    note = f"tokens counted as {CHARACTERS_PER_TOKEN} characters each"
    return lambda text: round(len(text) / CHARACTERS_PER_TOKEN), note


def _print_json(
    made: Plan,
    rows: Sequence[dict[str, Any]],
    predictions: Sequence[Prediction],
    checks: Sequence[Check],
    refused: bool,
    fitted: Fitted | None,
) -> None:
    lines = {line.stage_id: _plain(line) for line in predictions}
    plain = {
        "recipe": made.recipe.name,
        "base": made.base.identity,
        "refused": refused,
        "budget": None if fitted is None else fitted.as_record(),
        "stages": [{**row, "prediction": lines.get(row["id"])} for row in rows],
        "seconds": sum(line.seconds for line in predictions if line.seconds is not None),
        "device_seconds": sum(line.device_seconds for line in predictions if line.device_seconds is not None),
        "checks": [asdict(check) for check in checks],
    }
    print(json.dumps(plain, indent=2, ensure_ascii=False))


def _plain(line: Prediction) -> dict[str, Any]:
    memory = None if line.memory is None else {**line.memory.parts, "total": line.memory.total}
    return {**asdict(line), "memory": memory, "device_seconds": line.device_seconds}


def _show(
    console: Console,
    made: Plan,
    store: Store,
    machine: Machine,
    rows: Sequence[dict[str, Any]],
    predictions: Sequence[Prediction],
    checks: Sequence[Check],
) -> None:
    """Table, total, assumptions, checks and refusals."""
    lines = {line.stage_id: line for line in predictions}
    title = f"{made.recipe.name} from {made.recipe.base} on {machine.name} in {store.root}"
    table = Table(title=title, title_justify="left")
    right = ("tokens", "steps", "tokens/s", "MFU", "GB a device", "time", "device-hours")
    for heading in ("stage", "kind", "state", "digest", *right):
        table.add_column(heading, justify="right" if heading in right else "left")
    for row in rows:
        figures = _figures(lines[row["id"]]) if row["id"] in lines else [""] * len(right)
        table.add_row(row["id"], row["kind"], row["state"], row["digest"][:12], *figures)
    seconds = sum(line.seconds or 0.0 for line in predictions)
    device_seconds = sum(line.device_seconds or 0.0 for line in predictions)
    table.add_section()
    total = duration(seconds) if seconds else ""
    table.add_row("all predicted", "", "", "", "", "", "", "", "", total, _hours(device_seconds))
    console.print(table)

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    for basis in dict.fromkeys(line.basis for line in predictions if line.basis):
        say(f"speeds: {basis}", "dim")
    for line in predictions:
        if line.assumptions:
            say(f"{line.stage_id} assumes {'; '.join(line.assumptions)}", "dim")
        if line.unpredicted:
            say(f"{line.stage_id}: not predicted: {line.unpredicted}", "dim")
    for check in checks:
        say(f"{check.state:8} {check.name}: {check.text}" + (f"; {check.remedy}" if check.remedy else ""),
            STYLES[check.state])  # fmt: skip
    for line in predictions:
        if line.refusal:
            say(f"refused  memory: {line.refusal}", STYLES["refused"])
            for remedy in line.remedies:
                fits_so = remedy.startswith(("--set", "a machine"))
                say(f"         {'fits with ' if fits_so else ''}{remedy}")


def _figures(line: Prediction) -> list[str]:
    memory = ""
    if line.memory is not None and line.limit is not None:
        memory = f"{line.memory.total / 1e9:.2f} of {line.limit / 1e9:.0f}" + (" !" if line.refusal else "")
    return [
        "" if line.tokens is None else f"{line.tokens:,.0f}",
        "" if line.steps is None else f"{line.steps:,}",
        "" if line.tokens_per_s is None else number(line.tokens_per_s),
        "" if line.mfu is None else f"{line.mfu:.0%}",
        memory,
        "" if line.seconds is None else duration(line.seconds),
        _hours(line.device_seconds),
    ]


def _hours(seconds: float | None) -> str:
    return f"{seconds / 3600:.3g}" if seconds else ""

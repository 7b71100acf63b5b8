"""From a preset's name to a checked `Recipe`: preset -> extends -> overrides -> resolved recipe.

    recipe = load_recipe("math/tiny", ["rl.steps=8", "evaluate.tasks[0].count=50", "seed=3"])

A preset is a YAML file of this folder (`math/tiny` is `math/tiny.yaml`) or a path ending in .yaml. It holds the
fields of `configs.schema.Recipe`, and may have four more:

- `extends: NAME`: start from that preset; a key given here replaces the parent's. What describes one preset only
  (name, title, description, status, expected) is never inherited.
- `drop: [corpus, pretrain]`: stages of the parent that are left out; none that stays may read them.
- `add: {sft: [{id: control, kind: sft, ...}]}`: stages put in after the parent's stage of that id.
- `set: {rl.steps: 8}`: dotted overrides, applied after extends, drop and add, in order.

`controls` become stages (`configs.controls`) once all that is applied; `drop` names them as it does any other.

Anywhere, `{same_as: evaluate.tasks}` stands for a copy of what lies at that path once all overrides are applied.

`--set` overrides come last, as `STAGE.field=value` (the stage by its id) or `seed=3`; values are YAML.

All that is wrong with a preset or an override is a UserError of one line: dotted path, value, what is allowed,
and the nearest valid name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.controls import expand, planned_ids, stage_of
from configs.errors import UserError, printable
from configs.explain import explain
from configs.names import check_names, check_verifier, unknown
from configs.overrides import apply_override, fill_same_as, parse_override
from configs.schema import Recipe
from configs.settings.machine import Machine
from configs.settings.reinforcement import RlStage
from configs.strict_yaml import parse_yaml, read_mapping

FOLDER = Path(__file__).parent
NOT_PRESETS = ("machines", "shared")
NOT_INHERITED = ("name", "title", "description", "status", "expected")
FIRST_GPU = Path("/dev/nvidia0")
MACHINE_VARIABLE = "DERIVE_MACHINE"


def load_recipe(preset_or_path: str, overrides: Sequence[str] = (), base: str | None = None) -> Recipe:
    """The resolved and checked recipe of a preset.

    Args:
        preset_or_path: Preset name such as `math/tiny`, or a path ending in .yaml.
        overrides: `STAGE.field.sub=value` or `seed=3`, applied in order after the preset's own.
        base: Checkpoint to start from instead of the preset's.

    Raises:
        UserError: Names the dotted path, the value, what is allowed and the nearest valid name.
    """
    raw = _read(_preset_path(preset_or_path), ())
    of_controls = []
    for text in overrides:
        path, value = parse_override(text)
        if path.partition(".")[0] in planned_ids(raw):  # a stage that is not there yet
            of_controls.append((path, value))
        else:
            apply_override(raw, path, value)
    if base is not None:
        raw["base"] = base
        raw["base_revision"] = None  # the preset's commit belongs to the preset's checkpoint
    return check_recipe(raw, of_controls)


def check_recipe(raw: dict[str, Any], of_controls: Sequence[tuple[str, Any]] = ()) -> Recipe:
    """A recipe from its plain mapping (as YAML or JSON gives it), whose `same_as` and `controls` are filled in.

    Args:
        raw: The mapping; changed in place.
        of_controls: Overrides of stages that the controls become.

    Raises:
        UserError: As `load_recipe`.
    """
    copies = fill_same_as(raw)
    expand(raw)
    for path, value in of_controls:
        apply_override(raw, path, value)
    try:
        # Strict JSON rather than Python values: "8" is not 8, true is not 1, yet a list may fill a tuple.
        recipe = Recipe.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise UserError(explain(error, raw, copies=copies)) from error
    check_names(recipe, copies)
    return recipe


def verifier_overrides(recipe: Recipe, name: str) -> list[str]:
    """Overrides that let a verifier reward every rl stage, and nothing else: what the release is judged by stays.

    Raises:
        UserError: There is no such verifier, no rl stage, or a stage uses it in another part already.
    """
    check_verifier("verifier", name)
    stages = [stage for stage in recipe.stages if isinstance(stage, RlStage) and stage.control is None]
    if not stages:
        raise UserError(f"verifier: {name!r} was chosen, but {recipe.name} has no rl stage that it could reward; "
                        "allowed: the preset's; leave it out")
    for stage in stages:
        used = {"more_rewards": [reward.verifier for reward in stage.more_rewards],
                "audit": [stage.audit.verifier] if stage.audit is not None else []}  # fmt: skip
        for part, names in used.items():
            if name in names:
                raise UserError(f"verifier: {name!r} is used in {stage.id}.{part} already, which must be another one; "
                                f"allowed: any other; choose one, or change {stage.id}.{part} among the overrides")
    value = name if parse_yaml(name, "verifier") == name else json.dumps(name)  # a name such as `on` needs quotes
    return [f"{stage.id}.verifier={value}" for stage in stages]


def preset_names() -> list[str]:
    """Names of all presets that come with the project, sorted."""
    paths = (path.relative_to(FOLDER) for path in FOLDER.glob("*/*.yaml"))
    return sorted(str(path.with_suffix("")) for path in paths if path.parts[0] not in NOT_PRESETS)


def preset_summary(name: str) -> dict[str, Any]:
    """What a list of presets shows: name, title, status, base, stage ids with their kinds, expected figures."""
    recipe = load_recipe(name)
    return {
        "name": recipe.name,
        "title": recipe.title,
        "description": recipe.description,
        "status": recipe.status,
        "base": recipe.base,
        "stages": [{"id": stage.id, "kind": stage.kind} for stage in recipe.stages],
        "expected": [figure.model_dump() for figure in recipe.expected],
    }


def machine_names() -> list[str]:
    """Names of the machine profiles that come with the project, sorted."""
    return sorted(path.stem for path in (FOLDER / "machines").glob("*.yaml"))


def load_machine(name: str) -> Machine:
    """A machine profile, by name (`cpu`, `one-gpu`, `eight-gpu`) or by the path of a .yaml file.

    Raises:
        UserError: There is no such profile, or it is not valid.
    """
    if name.endswith(".yaml"):
        path = Path(name)
    elif name in machine_names():
        path = FOLDER / "machines" / f"{name}.yaml"
    else:
        raise unknown("machine", name, "machine profile", [*machine_names(), "a path ending in .yaml"])
    raw = read_mapping(path)
    raw.setdefault("name", path.stem)
    try:
        return Machine.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise UserError(f"{printable(str(path), limit=300)}: {explain(error, raw, Machine)}") from error


def default_machine_name() -> str:
    """`$DERIVE_MACHINE` where it is set, else one-gpu where a CUDA device is present, else cpu."""
    return os.environ.get(MACHINE_VARIABLE) or ("one-gpu" if FIRST_GPU.exists() else "cpu")


def _preset_path(name: str, folder: Path | None = None) -> Path:
    """The file of a preset; a relative path in `extends` counts from the file that says it."""
    if name.endswith((".yaml", ".yml")):
        return Path(name) if folder is None else folder / name
    presets = preset_names()
    shared = folder is not None and name.startswith("shared/") and _is_file(FOLDER / f"{name}.yaml")
    if name not in presets and not shared:
        raise unknown("preset" if folder is None else "extends", name, "preset",
                      [*presets, "a path ending in .yaml"])
    return FOLDER / f"{name}.yaml"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, or a null character in it
        return False


def _read(path: Path, line: tuple[Path, ...]) -> dict[str, Any]:
    """A preset's mapping with its parents' merged in and its `set` applied. `line` holds the files that led here."""
    here = Path(os.path.realpath(path)) if "\0" not in str(path) else path
    if here in line:
        chain = " -> ".join(printable(str(item), limit=300) for item in (*line[line.index(here):], here))
        raise UserError(f"extends: {chain} goes in a circle; remove one of them")
    own = read_mapping(path)
    shown = printable(str(path), limit=300)
    parent_name, dropped, added, changes = (own.pop(key, None) for key in ("extends", "drop", "add", "set"))
    raw: dict[str, Any] = {}
    if parent_name is not None:
        if not isinstance(parent_name, str):
            raise UserError(f"{shown}: extends: {parent_name!r} is not text; allowed: one preset name or path")
        raw = _read(_preset_path(parent_name, path.parent), (*line, here))
        raw = {key: value for key, value in raw.items() if key not in NOT_INHERITED}
    raw |= own
    _describe(raw, path, parent_name)
    if dropped is not None:
        _drop_stages(raw, dropped, shown)
    if added is not None:
        _add_stages(raw, added, shown)
    if changes is not None and not isinstance(changes, dict):
        raise UserError(f"{shown}: set: {str(changes)[:60]!r} is not a mapping; write `set: {{rl.steps: 8}}`")
    for dotted, value in (changes or {}).items():
        apply_override(raw, dotted, value)
    return raw


def _drop_stages(raw: dict[str, Any], dropped: Any, shown: str) -> None:
    """Leave these stages out."""
    if not isinstance(dropped, list):
        raise UserError(f"{shown}: drop: {str(dropped)[:60]!r} is not a list; write `drop: [corpus, pretrain]`")
    for name in dropped:
        if name in planned_ids(raw):
            raw["controls"] = [one for one in raw["controls"] if stage_of(one) != name]
            continue
        present = raw["stages"] if isinstance(raw.get("stages"), list) else []
        ids = [stage.get("id") if isinstance(stage, dict) else None for stage in present]
        if name not in ids:
            raise unknown(f"{shown}: drop", str(name), "stage", [str(one) for one in ids])
        raw["stages"] = [stage for stage, own in zip(present, ids, strict=True) if own != name]


def _add_stages(raw: dict[str, Any], added: Any, shown: str) -> None:
    """Put new stages in after those named."""
    form = "write `add: {sft: [{id: more, kind: sft, ...}]}`: the stage they follow, and a list of stages"
    if not isinstance(added, dict) or not all(isinstance(stages, list) for stages in added.values()):
        raise UserError(f"{shown}: add: {str(added)[:60]!r} is not a mapping to lists; {form}")
    for after, stages in added.items():
        present = raw["stages"] if isinstance(raw.get("stages"), list) else []
        ids = [stage.get("id") if isinstance(stage, dict) else None for stage in present]
        if after not in ids:
            raise unknown(f"{shown}: add", str(after), "stage", [str(one) for one in ids])
        place = ids.index(after) + 1
        raw["stages"] = [*present[:place], *stages, *present[place:]]


def _describe(raw: dict[str, Any], path: Path, parent_name: str | None) -> None:
    """Fill what a user's own short file need not say."""
    packaged = FOLDER in path.parents
    raw.setdefault("name", str(path.relative_to(FOLDER).with_suffix("")) if packaged else path.stem)
    raw.setdefault("title", f"{raw['name']}" + (f", from {parent_name}" if parent_name else ""))
    raw.setdefault("status", "validated only")



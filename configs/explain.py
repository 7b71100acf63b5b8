"""One line for a person out of a pydantic error: dotted path with stage ids, value, what is allowed, what to do."""

from __future__ import annotations

import typing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from configs.errors import printable
from configs.names import nearest
from configs.schema import STAGE_KINDS, Recipe
from configs.settings.corpus import CorpusStage
from configs.settings.evaluation import EvaluateStage, ReleaseStage
from configs.settings.reinforcement import RlStage, SampleStage
from configs.settings.training import DpoStage, PretrainStage, SftStage

STAGE_MODELS: dict[str, type[BaseModel]] = {
    "corpus": CorpusStage, "pretrain": PretrainStage, "sft": SftStage, "dpo": DpoStage, "rl": RlStage,
    "sample": SampleStage, "evaluate": EvaluateStage, "release": ReleaseStage,
}
Location = tuple[int | str, ...]


def explain(
    error: ValidationError, raw: Any, model: type[BaseModel] = Recipe, copies: tuple[str, ...] = ()
) -> str:
    """The first problem of a failed check as one line, and how many more there are.

    Args:
        error: What pydantic found.
        raw: The mapping that was checked; stage ids are read from it.
        model: The model that it was checked against.
        copies: Paths that repeat another part of the recipe; a problem there is shown at the original.
    """
    found = [(dotted_path(problem["loc"], raw), problem) for problem in error.errors()]
    originals = [(path, problem) for path, problem in found if not path.startswith(copies)]
    path, first = (originals or found)[0]
    more = f" (and {len(originals) - 1} more)" if len(originals) > 1 else ""
    owner, field = find_field(first["loc"], model)
    return f"{_sentence(first, path, owner, field)}{more}"


def dotted_path(location: Location, raw: Any) -> str:
    """`("stages", 3, "rl", "sampling", "top_p")` -> `rl.sampling.top_p`; the spelling that `--set` takes."""
    rest = list(location)
    path = ""
    if len(rest) >= 2 and rest[0] == "stages" and isinstance(rest[1], int):
        path = _stage_name(raw, rest[1])
        rest = rest[2:]
        if rest and rest[0] in STAGE_KINDS:  # the tag of the union, not a field
            rest = rest[1:]
    for part in rest:
        path += f"[{part}]" if isinstance(part, int) else f".{printable(part)}" if path else printable(part)
    return path or "recipe"


def find_field(location: Location, model: type[BaseModel]) -> tuple[type[BaseModel] | None, FieldInfo | None]:
    """The model that owns the last named part of a location, and that part's field where it exists."""
    owner: type[BaseModel] | None = model
    field: FieldInfo | None = None
    for part in location:
        if isinstance(part, int):
            continue
        if owner is None:
            return None, None
        if owner is Recipe and field is not None and part in STAGE_MODELS:
            owner, field = STAGE_MODELS[part], None
            continue
        if field is not None:
            owner = _model_of(field.annotation)
            if owner is None:
                return None, field
        field = owner.model_fields.get(part)
        if field is None:
            return owner, None
    return owner, field


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _model_of(part))), None)


def _stage_name(raw: Any, index: int) -> str:
    stages = raw.get("stages") if isinstance(raw, dict) else None
    stage = stages[index] if isinstance(stages, list) and index < len(stages) else None
    name = stage.get("id") if isinstance(stage, dict) else None
    return printable(name) if isinstance(name, str) and name else f"stages[{index}]"


def _sentence(problem: Any, path: str, owner: type[BaseModel] | None, field: FieldInfo | None) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    value = _short(problem.get("input"))
    hint = f" ({field.description})" if field is not None and field.description else ""
    if kind == "value_error":  # our own sentence: a stage reference that does not resolve
        return str(context["error"])
    if kind == "extra_forbidden" and owner is not None:
        name, allowed = str(problem["loc"][-1]), sorted(owner.model_fields)
        return f"{path}: {value} was given to {name!r}, which is no field{nearest(name, allowed)}; allowed: " \
               f"{', '.join(allowed)}"
    if kind == "missing":
        return f"{path}: is missing and has no default; add it{hint}"
    if kind == "union_tag_not_found":
        return f"{path}.kind: is missing; allowed: {', '.join(STAGE_KINDS)}; add it"
    if kind == "union_tag_invalid":
        tag = str(context.get("tag"))
        return f"{path}.kind: {tag!r} is no stage kind{nearest(tag, STAGE_KINDS)}; allowed: {', '.join(STAGE_KINDS)}"
    if kind == "literal_error":
        allowed_text = str(context["expected"]).replace(" or ", ", ")
        names = [name.strip(" '") for name in allowed_text.split(",")]
        return f"{path}: {value} is not among the choices{nearest(str(problem['input']), names)}; allowed: " \
               f"{allowed_text}{hint}"
    message = str(problem["msg"]).removeprefix("Input should be ").removeprefix("Tuple should have ")
    message = message.removesuffix(" after validation, not 0")
    return f"{path}: {value} was given; allowed: {message}; change it{hint}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

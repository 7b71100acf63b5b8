"""Recipes and their fields in words: what `derive show` prints."""

from __future__ import annotations

import typing
from types import NoneType, UnionType
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from configs.controls import Control
from configs.explain import STAGE_MODELS
from configs.names import unknown
from configs.schema import Expected, Recipe
from configs.settings.common import Sampling, TaskSource
from configs.settings.corpus import CorpusSource
from configs.settings.evaluation import Gate, Keep
from configs.settings.machine import Machine
from configs.strict_yaml import dump_yaml

MODELS: dict[str, type[BaseModel]] = {
    "recipe": Recipe, **STAGE_MODELS, "sampling": Sampling, "task source": TaskSource, "corpus source": CorpusSource,
    "gate": Gate, "keep": Keep, "control": Control, "expected": Expected, "machine": Machine,
}
"""What `field_table` can describe: the recipe, each stage kind, and the blocks inside them."""


class FieldRow(typing.NamedTuple):
    """One field in words."""

    field: str
    type: str
    default: str
    description: str


def recipe_as_yaml(recipe: Recipe) -> str:
    """The resolved recipe as a preset that `load_recipe` reads back to an equal recipe."""
    raw = recipe.model_dump(mode="json")
    raw["stages"] = [
        {name: stage[name] for name in field_order(STAGE_MODELS[stage["kind"]])} for stage in raw["stages"]
    ]
    return dump_yaml(raw)


def field_order(model: type[BaseModel]) -> list[str]:
    """A model's fields as a person reads them: id and kind, then its own, then those it shares with others."""
    own = [name for name in model.model_fields if name in model.__annotations__]
    first = [name for name in ("id", "kind") if name in model.model_fields]
    return list(dict.fromkeys([*first, *own, *model.model_fields]))


def field_table(kind: str) -> list[FieldRow]:
    """All fields of a stage kind (or of `recipe`, `sampling`, `machine`, ...) in reading order.

    Raises:
        UserError: No such kind.
    """
    if kind not in MODELS:
        raise unknown("fields", kind, "kind of block", list(MODELS))
    return [
        FieldRow(name, type_in_words(field.annotation, tuple(field.metadata)), _default(field), field.description or "")
        for name in field_order(MODELS[kind])
        for field in [MODELS[kind].model_fields[name]]
    ]


def type_in_words(annotation: Any, limits: tuple[Any, ...] = ()) -> str:
    """`Annotated[int, Gt(0)] | None` -> `whole number > 0, or empty`."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_in_words(parts[0], (*parts[1:], *limits))
    if origin is typing.Literal:
        return " | ".join(str(part) for part in parts)
    if origin in (typing.Union, UnionType):
        inner = [type_in_words(part, limits) for part in parts if part is not NoneType]
        return " | ".join(inner) + (", or empty" if NoneType in parts else "")
    if origin in (tuple, list):
        return f"list of {type_in_words(parts[0])}"
    if origin is dict:
        return "mapping"
    plain = {int: "whole number", float: "number", str: "text", bool: "true | false"}
    return plain.get(annotation, _block_name(annotation)) + _limits_in_words(limits)


def _block_name(annotation: Any) -> str:
    return next((name for name, model in MODELS.items() if model is annotation),
                str(getattr(annotation, "__name__", annotation)))


def _limits_in_words(limits: tuple[Any, ...]) -> str:
    words = ""
    for limit in limits:
        for part in getattr(limit, "metadata", None) or [limit]:  # a FieldInfo carries its limits inside
            for attribute, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
                value = getattr(part, attribute, None)
                if value is not None:
                    words += f" {sign} {value:g}"
            pattern = getattr(part, "pattern", None)
            if pattern:
                words += f" like {pattern}"
    return words


def _default(field: Any) -> str:
    if field.default_factory is not None:
        return "none given"
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None or field.default in ((), ""):
        return "empty"
    if isinstance(field.default, BaseModel):
        return "its own defaults"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return str(field.default)

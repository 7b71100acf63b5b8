"""What a rule is: a check of a response, and the arguments that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["count", "text", "texts", "letter"] | tuple[str, ...]
"""What an argument must be; a tuple lists all values that are allowed."""
RELATIONS = ("less than", "at least")


@dataclass(frozen=True)
class Rule:
    """One kind of constraint.

    Attributes:
        follows: Whether a response follows it; called with the response and the arguments by name.
        needs: The arguments and what they must be.
    """

    follows: Callable[..., bool]
    needs: Mapping[str, Kind] = field(default_factory=dict)

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as `follows` takes them; those of other rules, which tables fill with null, are dropped.

        Raises:
            ValueError: names the argument that is missing or cannot be read.
        """
        return {name: _read(name, kind, given.get(name)) for name, kind in self.needs.items()}


def compare(found: int, relation: str, wanted: int) -> bool:
    """The two published relations."""
    return found < wanted if relation == "less than" else found >= wanted


def _read(name: str, kind: Kind, value: Any) -> Any:
    if kind == "count" and isinstance(value, (int, float)) and not isinstance(value, bool) and value == int(value) >= 0:
        return int(value)
    if isinstance(kind, tuple) and isinstance(value, str) and value in kind:
        return value
    if kind == "text" and isinstance(value, str) and value.strip():
        return value
    if kind == "letter" and isinstance(value, str) and len(value.strip()) == 1:
        return value.strip().lower()
    if kind == "texts" and isinstance(value, (list, tuple)) and value and all(isinstance(each, str) for each in value):
        return list(value)
    raise ValueError(name)

"""The checkable constraints of IFEval (https://arxiv.org/abs/2311.07911), one module for each of its groups.

`RULES` has them by their published names, as in `length_constraints:number_words`. A rule is a function of a response
and of the constraint's published arguments; it raises nothing, and its time is linear in the response.
"""

from __future__ import annotations

from verifiers.rules import (
    change_case,
    combination,
    detectable_content,
    detectable_format,
    keywords,
    language,
    length_constraints,
    punctuation,
    startend,
)
from verifiers.rules.rule import Rule

__all__ = ["RULES", "Rule"]

_GROUPS = (
    change_case,
    combination,
    detectable_content,
    detectable_format,
    keywords,
    language,
    length_constraints,
    punctuation,
    startend,
)

RULES: dict[str, Rule] = {
    f"{group.__name__.rpartition('.')[2]}:{name}": rule for group in _GROUPS for name, rule in group.RULES.items()
}
"""All rules by their published names."""

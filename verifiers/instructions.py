"""The instruction verifier: IFEval's checkable constraints (https://arxiv.org/abs/2311.07911), strict and loose.

A task carries the published fields in its metadata: `instruction_id_list`, as `["punctuation:no_comma"]`, and `kwargs`,
an object of arguments for each. The completion is correct if it follows all of them; otherwise its score is the share
that it follows. `instructions` takes the response as it is; `instructions_loose` takes a constraint as followed if any
of eight versions follows it: with and without the first line, the last line and all asterisks, as published.

The response is what follows the thinking, where there is any. An empty response follows nothing. All 25 published kinds
are known; an unknown one, or arguments that cannot be read, give no verdict. The published evaluation makes up missing
arguments at random.

Departures of single rules stand at the top of their modules in `verifiers/rules`: language and sentences are told
without langdetect and NLTK, keywords are literal, and a response that gives several of the set answers gives none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verifiers.answers.extract import final_part
from verifiers.api import OVER_BUDGET, Task, Verdict, correct, incorrect, no_verdict
from verifiers.rules import RULES, Rule

MAX_RESPONSE = 1_000_000
"""Characters of a response; beyond it nothing is read."""

Constraint = tuple[str, Rule, Mapping[str, Any]]


class StrictInstructions:
    """Correct if the response as it is follows every constraint."""

    name = "instructions"
    version = "1"

    def judge(self, task: Task, completion: str) -> Verdict:
        """Judge one completion by its task's constraints."""
        try:
            constraints = read_constraints(task.metadata)
        except ValueError as error:
            return no_verdict(str(error))
        response = final_part(completion)
        if len(response) > MAX_RESPONSE:
            return incorrect(OVER_BUDGET)
        versions = [version for version in self.versions(response) if version.strip()]
        if not versions:
            return incorrect("empty_response")
        broken = [
            name
            for name, rule, arguments in constraints
            if not any(rule.follows(version, **arguments) for version in versions)
        ]
        followed = f"{len(constraints) - len(broken)} of {len(constraints)}"
        if not broken:
            return correct(followed, "followed_all")
        return incorrect(f"not_followed: {', '.join(broken)}", followed, 1 - len(broken) / len(constraints))

    def versions(self, response: str) -> Sequence[str]:
        """Texts of which one must follow a constraint."""
        return [response]


class LooseInstructions(StrictInstructions):
    """Correct if, for every constraint, some version of the response follows it."""

    name = "instructions_loose"

    def versions(self, response: str) -> Sequence[str]:
        """The response with and without its first line, its last line and its asterisks."""
        lines = response.split("\n")
        cut = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
        return list(dict.fromkeys([*cut, *(text.replace("*", "") for text in cut)]))


def read_constraints(metadata: Mapping[str, Any]) -> list[Constraint]:
    """Names, rules and arguments of a task's constraints.

    Raises:
        ValueError: The text is the reason of a missing verdict: what is absent, unknown or cannot be read.
    """
    names, arguments = metadata.get("instruction_id_list"), metadata.get("kwargs")
    if not isinstance(names, (list, tuple)) or not names:
        raise ValueError("no_instructions")
    if not isinstance(arguments, (list, tuple)) or len(arguments) != len(names):
        raise ValueError("kwargs_do_not_match_instructions")
    found: list[Constraint] = []
    for name, given in zip(names, arguments, strict=True):
        rule = RULES.get(str(name))
        if rule is None:
            raise ValueError(f"unknown_instruction: {name}")
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"kwargs_unreadable: {name}")
        try:
            found.append((name, rule, rule.arguments(given or {})))
        except ValueError as error:
            raise ValueError(f"kwargs_unreadable: {name}.{error}") from error
    return found

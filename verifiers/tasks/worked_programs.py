"""Worked solutions that use an interpreter: a short program, written from the problem's data, that prints the answer.

    ```python
    print(34 * 27)
    ```
    ```output
    918
    ```
    \\boxed{918}

A model learns to copy the question's numbers into a program and the program's output into the box, and leaves the
sum to the interpreter. That each program prints the gold answer is checked here by other means than running it (nothing
runs here; the tests run every one in the sandbox): a problem for which it does not has no solution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal

from verifiers.api import Task
from verifiers.tasks.solution import Lines, NoSolution


def _expression(task: Task) -> Lines:
    """The question's own expression."""
    from verifiers.tasks.worked import exact_value  # which imports this module

    expression = str(task.metadata["expression"])
    if "/" in expression:
        raise NoSolution("a division prints a fraction's decimals")
    if str(exact_value(expression)) != task.answer:
        raise NoSolution("the expression comes to something else")
    return [f"print({expression})"], task.answer


def _decimal_chain_sum(task: Task) -> Lines:
    """Rounded to the places of the longest term, since 0.1 + 0.2 is not 0.3 in binary; a float keeps no last zero."""
    expression = str(task.metadata["expression"])
    terms = [Decimal(text) for text in expression.split() if text not in "+-"]
    places = max(-int(term.as_tuple().exponent) for term in terms)  # type: ignore[arg-type]  # none is infinite
    if str(round(float(task.answer), places)) != task.answer:
        raise NoSolution("the answer ends in a zero that a program would not print")
    return [f"print(round({expression}, {places}))"], task.answer


def _leg_counting(task: Task) -> Lines:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    counts = [(count, ANIMALS[animal]) for animal, count in task.metadata["animals"].items()]
    terms = " + ".join(f"{count} * {legs}" for count, legs in counts)
    return [f"print({terms})"], str(sum(count * legs for count, legs in counts))


def _gcd(task: Task) -> Lines:
    numbers = [int(number) for number in task.metadata["numbers"]]
    return ["import math", f"print(math.gcd({', '.join(map(str, numbers))}))"], str(math.gcd(*numbers))


def _lcm(task: Task) -> Lines:
    numbers = [int(number) for number in task.metadata["numbers"]]
    return ["import math", f"print(math.lcm({', '.join(map(str, numbers))}))"], str(math.lcm(*numbers))


PROGRAM_SOLVERS: dict[str, Callable[[Task], Lines]] = {
    "chain_sum": _expression,
    "products": _expression,
    "basic_arithmetic": _expression,
    "decimal_chain_sum": _decimal_chain_sum,
    "leg_counting": _leg_counting,
    "gcd": _gcd,
    "lcm": _lcm,
}
"""Family of reasoning-gym -> what writes its program."""

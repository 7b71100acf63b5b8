"""Short worked solutions for some of reasoning-gym's families, written by us from the problem's own data.

Each step is a line that a small model can learn, and the last line is `\\boxed{answer}`; in the style `think` the steps
stand inside `<think>` tags (`verifiers.tasks.solution`). In the style `tools` the answer comes from a short program and
what it prints (`verifiers.tasks.worked_programs`). Families that are not in `SOLVERS` have none. A problem whose
gold answer our steps do not reach (an inexact integer division, a generator's slip) has none either, so that a solution
is never wrong.

`gsm_symbolic` carries its own solutions; they are taken where their final answer and their plain equations hold. The
solution of a function task (`verifiers.tasks.functions`) is its reference program, in a fence, in the style `think`
behind the expressions of its steps; that of an instruction task (`verifiers.tasks.instructions`) a text that follows
all rules, in that style behind notes of them; that of a structured one (`verifiers.tasks.structured`) the document or
table itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from verifiers.api import Task
from verifiers.tasks.functions import PREFIX as FUNCTIONS
from verifiers.tasks.functions import fenced
from verifiers.tasks.instructions import PREFIX as INSTRUCTIONS
from verifiers.tasks.instructions import thought_and_answer
from verifiers.tasks.solution import Lines, NoSolution, Style, thought_before, written
from verifiers.tasks.structured import PREFIX as STRUCTURED
from verifiers.tasks.structured import solution as document_or_table
from verifiers.tasks.worked_programs import PROGRAM_SOLVERS
from verifiers.tasks.worked_puzzles import PUZZLE_SOLVERS


def worked_solution(task: Task, style: Style = "plain") -> str | None:
    """A short worked solution that ends in `\\boxed{...}` with the gold answer; None where there is none.

    That of a function task is its reference program in a fence, that of an instruction task a text by its rules: both
    have the styles `plain` and `think`. That of a structured one is its document or table, in the style `plain` alone.
    """
    family = str(task.metadata.get("family"))
    if family.startswith(FUNCTIONS):
        return _in_style(_expressions(task.answer), fenced(task.answer), style)
    if family.startswith(INSTRUCTIONS):
        return _in_style(*thought_and_answer(task), style)
    if family.startswith(STRUCTURED):
        return document_or_table(task) if style == "plain" else None
    solver = (PROGRAM_SOLVERS if style == "tools" else SOLVERS).get(family)
    if solver is None:
        return None
    try:
        steps, answer = solver(task)
        return written(steps, answer, style) if answer == task.answer else None
    except NoSolution:
        return None


def _in_style(steps: list[str], answer: str, style: Style) -> str | None:
    """An answer without a box, alone or behind a thought; None in the style `tools`."""
    if style == "tools":
        return None
    return answer if style == "plain" else thought_before(steps, answer)


def _expressions(program: str) -> list[str]:
    """The expression of each step of a reference program, numbered: what the program's lines assign."""
    lines = [line.partition(" = ")[2] for line in program.split("\n") if " = " in line and not line.startswith("def")]
    return [f"{place} {expression}" for place, expression in enumerate(lines, 1)]


def _chain_sum(task: Task) -> Lines:
    """`43 - 7 = 36`, `36 + 12 = 48`; integers and decimals alike (a Decimal keeps its places)."""
    first, *rest = str(task.metadata["expression"]).split()
    total, steps = Decimal(first), []
    for sign, text in zip(rest[::2], rest[1::2], strict=True):
        result = total + Decimal(text) if sign == "+" else total - Decimal(text)
        steps.append(f"{total} {sign} {text} = {result}")
        total = result
    return steps, str(total)


_TOKENS = re.compile(r"[0-9]+|[-+*/()]")


class _Arithmetic:
    """Evaluates an integer expression by Python's precedence and writes down each operation as it is done."""

    def __init__(self, expression: str) -> None:
        self.tokens = _TOKENS.findall(expression)
        self.steps: list[str] = []

    def solve(self) -> int:
        value = self.sum()
        if self.tokens:
            raise NoSolution("left over")
        return value

    def sum(self) -> int:
        value = self.product()
        while self.tokens and self.tokens[0] in "+-":
            value = self.step(value, self.tokens.pop(0), self.product())
        return value

    def product(self) -> int:
        value = self.signed()
        while self.tokens and self.tokens[0] in "*/":
            value = self.step(value, self.tokens.pop(0), self.signed())
        return value

    def signed(self) -> int:
        token = self.tokens.pop(0)
        if token == "-":
            bracket = self.tokens[0] == "("
            value = self.signed()
            if bracket:
                self.steps.append(f"-({value}) = {-value}")
            return -value
        if token == "(":
            value = self.sum()
            self.tokens.pop(0)
            return value
        return int(token)

    def step(self, first: int, sign: str, second: int) -> int:
        if sign == "/":
            if second == 0 or first % second:
                raise NoSolution("inexact division")
            result = first // second
        else:
            result = {"+": first + second, "-": first - second, "*": first * second}[sign]
        self.steps.append(f"{first} {sign} {second} = {result}")
        return result


def exact_value(expression: str) -> int | None:
    """Value of an integer expression with +, -, *, / and brackets; None where a division is not exact."""
    try:
        return _Arithmetic(expression).solve()
    except NoSolution:
        return None


def _basic_arithmetic(task: Task) -> Lines:
    arithmetic = _Arithmetic(str(task.metadata["expression"]))
    return arithmetic.steps, str(arithmetic.solve())


def _products(task: Task) -> Lines:
    first, *rest = (int(text) for text in str(task.metadata["expression"]).split(" * "))
    total, steps = first, []
    for factor in rest:
        steps += _product_steps(total, factor)
        total *= factor
    return steps, str(total)


def _product_steps(first: int, second: int) -> list[str]:
    """`34 * 27 = 34 * 20 + 34 * 7 = 680 + 238 = 918`; longer second factors take one line a digit, then the sums."""
    if first < 0 or second < 0:
        return [*_product_steps(abs(first), abs(second)), f"{first} * {second} = {first * second}"]
    if len(str(second)) == 1 and len(str(first)) > 1:
        split, other = first, second
    else:
        split, other = second, first
    digits = str(split)
    parts = [int(digit) * 10 ** (len(digits) - 1 - place) for place, digit in enumerate(digits) if digit != "0"]
    if len(parts) < 2 or other == 0:
        return [f"{first} * {second} = {first * second}"]
    written = [f"{other} * {part}" for part in parts]
    values = [other * part for part in parts]
    if len(parts) == 2:
        return [f"{first} * {second} = {written[0]} + {written[1]} = {values[0]} + {values[1]} = {first * second}"]
    steps = [f"{text} = {value}" for text, value in zip(written, values, strict=True)]
    return steps + _sum_steps(values)


def _sum_steps(values: list[int]) -> list[str]:
    steps, total = [], values[0]
    for value in values[1:]:
        steps.append(f"{total} + {value} = {total + value}")
        total += value
    return steps


def _leg_counting(task: Task) -> Lines:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    steps, legs = [], []
    for animal, count in task.metadata["animals"].items():
        legs.append(count * ANIMALS[animal])
        steps.append(f"{count} {animal}{'s' if count > 1 else ''}: {count} * {ANIMALS[animal]} = {legs[-1]}")
    return steps + _sum_steps(legs), str(sum(legs))


def _euclid(first: int, second: int) -> list[str]:
    """`93 - 15 x 6 = 93 - 90 = 3`, ... down to remainder 0; the last divisor is the greatest common one."""
    larger, smaller = max(first, second), min(first, second)
    steps = []
    while smaller:
        quotient, remainder = divmod(larger, smaller)
        product = quotient * smaller
        steps.append(f"{larger} - {smaller} x {quotient} = {larger} - {product} = {remainder}")
        larger, smaller = smaller, remainder
    return steps


def _gcd(task: Task) -> Lines:
    first, *rest = task.metadata["numbers"]
    steps, divisor = [], first
    for number in rest:
        steps += _euclid(divisor, number)
        divisor = math.gcd(divisor, number)
    return steps, str(divisor)


def _lcm(task: Task) -> Lines:
    first, *rest = task.metadata["numbers"]
    steps, multiple = [], first
    for number in rest:
        divisor = math.gcd(multiple, number)
        steps += [*_euclid(multiple, number), f"{multiple} / {divisor} = {multiple // divisor}"]
        steps += _product_steps(multiple // divisor, number)
        multiple = math.lcm(multiple, number)
    return steps, str(multiple)


_TERM = re.compile(r"([+-]?)\s*([0-9]+)(?:\*([a-z]))?\s*|([+-]?)\s*([a-z])\s*")


def _simple_equations(task: Task) -> Lines:
    """Gather the unknown and the constants on the left, move the constants over, divide."""
    variable = str(task.metadata["variable"])
    left, _, right = str(task.metadata["equation"]).partition(" = ")
    factor, constant = _linear(left, variable)
    target = int(right)
    if factor == 0:
        raise NoSolution("the unknown cancels")
    steps = []
    if constant:
        gathered = f"{factor}*{variable} {'+' if constant > 0 else '-'} {abs(constant)}"
        if gathered != left:
            steps.append(f"{gathered} = {target}")
        moved = f"{target} {'-' if constant > 0 else '+'} {abs(constant)}"
        steps.append(f"{factor}*{variable} = {moved} = {target - constant}")
    elif left != f"{factor}*{variable}":
        steps.append(f"{factor}*{variable} = {target}")
    answer = Fraction(target - constant, factor)
    if answer.denominator != 1:
        raise NoSolution("not an integer")
    steps.append(f"{variable} = {target - constant} / {factor} = {answer}")
    return steps, str(answer)


def _linear(text: str, variable: str) -> tuple[int, int]:
    factor = constant = position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None or match.end() == position:
            raise NoSolution("not a sum of terms")
        position = match.end()
        sign = -1 if "-" in (match[1], match[4]) else 1
        name = match[3] or match[5]
        if name is None:
            constant += sign * int(match[2])
        elif name == variable:
            factor += sign * int(match[2] or 1)
        else:
            raise NoSolution("a second unknown")
    return factor, constant


_EQUATION = re.compile(
    r"(?<![-+*/x\u00d7] )(?<![\w.,*/+\-(\u00d7$%])([0-9]+(?: ?[-+*/\u00d7] ?[0-9]+)+) ?= ?([0-9]+)(?![\w%/]|[.,][0-9])")
"""An equation of plain integers, from its first operand on."""


def _gsm_symbolic(task: Task) -> Lines:
    """The generator's own solution, dropped where its last line or one of its plain integer equations is wrong."""
    text, marker, final = str(task.metadata["answer_cot"]).rpartition("####")
    try:
        if not marker or Decimal(final.strip()) != Decimal(task.answer):
            raise NoSolution("the solution ends elsewhere")
    except InvalidOperation as error:
        raise NoSolution("the solution ends in no number") from error
    for left, right in _EQUATION.findall(text):
        if _Arithmetic(left.replace("\u00d7", "*")).solve() != int(right):
            raise NoSolution("an equation does not hold")
    return [line.rstrip() for line in text.strip().splitlines()], task.answer


SOLVERS: dict[str, Callable[[Task], Lines]] = {
    "chain_sum": _chain_sum,
    "decimal_chain_sum": _chain_sum,
    "basic_arithmetic": _basic_arithmetic,
    "products": _products,
    "leg_counting": _leg_counting,
    "gcd": _gcd,
    "lcm": _lcm,
    "simple_equations": _simple_equations,
    "gsm_symbolic": _gsm_symbolic,
    **PUZZLE_SOLVERS,
}
"""Family of reasoning-gym -> what writes its solution."""

"""Small Python programs, put together from single steps: what each step says in words, and the line that does it.

A program takes a list of whole numbers, a text or a whole number, and goes from step to step; a step takes one type and
gives one. The line of a step is both what the reference program holds and what computes its values, so the two cannot
part. All wordings and lines are ours.

| family | takes | steps |
|---|---|---|
| `lists` | `xs`, a list | on lists, at the end sometimes one number |
| `texts` | `s`, a text | on texts, at the end sometimes one number |
| `numbers` | `n`, a number | on numbers, at the end sometimes yes or no |
| `mixed` | a list, a text or a number | of the other families, joined where one type becomes another |

A program is only used when each of its steps matters: without it some rewarded call would come out otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

Kind = Literal["list", "text", "number", "flag"]
VARIABLES: dict[Kind, str] = {"list": "xs", "text": "s", "number": "n", "flag": "yes"}


@dataclass(frozen=True)
class Form:
    """A kind of step.

    Attributes:
        takes: Type that it works on.
        gives: Type that it makes.
        words: What it does, in one or two wordings; `{k}` stands for a constant.
        line: The expression that does it, over the variable of `takes`.
        constants: What `{k}` may be; empty where there is none.
    """

    takes: Kind
    gives: Kind
    words: tuple[str, ...]
    line: str
    constants: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """A form with its constant."""

    form: Form
    constant: str

    @property
    def expression(self) -> str:
        return self.form.line.replace("{k}", self.constant)

    def wording(self, choice: int) -> str:
        """One of its wordings."""
        words = self.form.words
        return words[choice % len(words)].replace("{k}", self.constant)

    def run(self, value: Any) -> Any:
        """Its value."""
        return _function_of(VARIABLES[self.form.takes], self.expression)(value)


Program = tuple[Step, ...]


def source(program: Program, name: str) -> str:
    """The program as a Python function of this name.

    >>> print(source((Step(LISTS[0], ""), Step(LISTS_TO_NUMBER[0], "")), "pick"))
    def pick(xs):
        xs = [x for x in xs if x % 2 == 0]
        n = sum(xs)
        return n
    """
    lines = [f"def {name}({VARIABLES[program[0].form.takes]}):"]
    lines += [f"    {VARIABLES[step.form.gives]} = {step.expression}" for step in program]
    return "\n".join([*lines, f"    return {VARIABLES[program[-1].form.gives]}"])


def run(program: Sequence[Step], value: Any) -> Any:
    """What the program makes of a value, which it leaves as it is."""
    for step in program:
        value = step.run(value)
    return value


def draw_program(rng: Random, family: str, num_steps: int) -> Program | None:
    """A random program of a family; None where it would do one thing twice, or no path has that length."""
    path = _PATHS[family](rng, num_steps)
    if path is None:
        return None
    program = tuple(_step(rng, forms) for forms in path)
    return program if len({step.form for step in program}) == len(program) else None


def every_step_matters(program: Program, inputs: Sequence[Any]) -> bool:
    """Whether leaving out any one step (that keeps its type) changes the value for at least one of the inputs."""
    values = [run(program, value) for value in inputs]
    for place, step in enumerate(program):
        if step.form.takes == step.form.gives:
            rest = program[:place] + program[place + 1 :]
            if [run(rest, value) for value in inputs] == values:
                return False
    return True


def random_input(rng: Random, kind: Kind) -> Any:
    """An argument of moderate size."""
    if kind == "list":
        return [rng.randint(-9, 20) for _ in range(rng.randint(3, 7))]
    if kind == "text":
        return "".join(rng.choice(_LETTERS) for _ in range(rng.randint(3, 9)))
    return rng.randint(-20, 60)


EDGES: dict[Kind, tuple[Any, ...]] = {"list": ([], [0]), "text": ("", "a"), "number": (0, -1)}
"""Arguments at the edge, which belong into the hidden calls."""


@functools.cache
def _function_of(variable: str, expression: str) -> Callable[[Any], Any]:
    """A step's expression, compiled; it stands in this file, and nothing of a model's is in it."""
    compiled: Callable[[Any], Any] = eval(f"lambda {variable}: {expression}", {})
    return compiled


def _step(rng: Random, forms: Sequence[Form]) -> Step:
    form = rng.choice(forms)
    return Step(form, rng.choice(form.constants) if form.constants else "")


_LETTERS = "aaabcdeeefghiiklmnooprstuuw"
_CHANGED = tuple("aeiost")


def _numbers(first: int, last: int) -> tuple[str, ...]:
    return tuple(map(str, range(first, last + 1)))


def _form(takes: Kind, gives: Kind, words: str, line: str, constants: tuple[str, ...] = ()) -> Form:
    return Form(takes, gives, tuple(words.split(" / ")), line, constants)


LISTS = [
    _form("list", "list", "keep the even ones / drop the odd ones", "[x for x in xs if x % 2 == 0]"),
    _form("list", "list", "keep the odd ones / drop the even ones", "[x for x in xs if x % 2 == 1]"),
    _form("list", "list", "keep those above {k} / drop all up to {k}", "[x for x in xs if x > {k}]", _numbers(0, 9)),
    _form("list", "list", "keep those below {k} / drop all from {k} up", "[x for x in xs if x < {k}]", _numbers(4, 15)),
    _form("list", "list", "keep the multiples of {k}", "[x for x in xs if x % {k} == 0]", _numbers(3, 5)),
    _form("list", "list", "multiply each by {k}", "[x * {k} for x in xs]", _numbers(2, 9)),
    _form("list", "list", "add {k} to each", "[x + {k} for x in xs]", _numbers(1, 9)),
    _form("list", "list", "take {k} from each", "[x - {k} for x in xs]", _numbers(1, 9)),
    _form("list", "list", "square each", "[x * x for x in xs]"),
    _form("list", "list", "flip the sign of each", "[-x for x in xs]"),
    _form("list", "list", "put them in rising order / sort them", "sorted(xs)"),
    _form("list", "list", "put them in falling order / sort them downwards", "sorted(xs, reverse=True)"),
    _form("list", "list", "turn the order around", "xs[::-1]"),
    _form("list", "list", "keep the first {k}", "xs[:{k}]", _numbers(2, 4)),
    _form("list", "list", "keep the last {k}", "xs[-{k}:]", _numbers(2, 4)),
    _form("list", "list", "drop the first one", "xs[1:]"),
    _form("list", "list", "drop the last one", "xs[:-1]"),
    _form("list", "list", "keep every second one", "xs[::2]"),
    _form("list", "list", "put {k} at the end", "xs + [{k}]", _numbers(0, 9)),
    _form("list", "list", "put {k} at the front", "[{k}] + xs", _numbers(0, 9)),
]  # fmt: skip
LISTS_TO_NUMBER = [
    _form("list", "number", "add them all up / take the total", "sum(xs)"),
    _form("list", "number", "count them", "len(xs)"),
    _form("list", "number", "take the largest, or 0 if none is left", "max(xs, default=0)"),
    _form("list", "number", "take the smallest, or 0 if none is left", "min(xs, default=0)"),
    _form("list", "number", "count the {k}s", "xs.count({k})", _numbers(0, 9)),
]  # fmt: skip
TEXTS = [
    _form("text", "text", "make it upper case / use capitals", "s.upper()"),
    _form("text", "text", "turn it around / write it from the end", "s[::-1]"),
    _form("text", "text", "keep the first {k} letters", "s[:{k}]", _numbers(2, 5)),
    _form("text", "text", "keep the last {k} letters", "s[-{k}:]", _numbers(2, 5)),
    _form("text", "text", "drop the first letter", "s[1:]"),
    _form("text", "text", "drop the last letter", "s[:-1]"),
    _form("text", "text", "keep every second letter", "s[::2]"),
    _form("text", "text", "write it {k} times in a row", "s * {k}", _numbers(2, 4)),
    _form("text", "text", "put {k} at the end", "s + {k}", tuple(f'"{letter}"' for letter in "xyz!")),
    _form("text", "text", "put {k} at the front", "{k} + s", tuple(f'"{letter}"' for letter in "xyz!")),
    _form("text", "text", "take out every {k}", 's.replace({k}, "")', tuple(f'"{letter}"' for letter in _CHANGED)),
    _form("text", "text", 'put "-" for every {k}', 's.replace({k}, "-")', tuple(f'"{letter}"' for letter in _CHANGED)),
    _form("text", "text", "put its letters in order", '"".join(sorted(s))'),
]  # fmt: skip
TEXTS_TO_NUMBER = [
    _form("text", "number", "count its letters / take its length", "len(s)"),
    _form("text", "number", "count each {k} in it", "s.count({k})", tuple(f'"{letter}"' for letter in _CHANGED)),
]  # fmt: skip
NUMBERS = [
    _form("number", "number", "add {k}", "n + {k}", _numbers(1, 20)),
    _form("number", "number", "take away {k}", "n - {k}", _numbers(1, 20)),
    _form("number", "number", "multiply by {k}", "n * {k}", _numbers(2, 9)),
    _form("number", "number", "square it", "n * n"),
    _form("number", "number", "take the rest after dividing by {k}", "n % {k}", _numbers(3, 9)),
    _form("number", "number", "divide by {k} and round down", "n // {k}", _numbers(2, 9)),
    _form("number", "number", "drop its sign", "abs(n)"),
    _form("number", "number", "flip its sign", "-n"),
    _form("number", "number", "raise it to {k} if it is less", "max(n, {k})", _numbers(5, 20)),
    _form("number", "number", "cut it to {k} if it is more", "min(n, {k})", _numbers(5, 30)),
]  # fmt: skip
NUMBERS_TO_FLAG = [
    _form("number", "flag", "say if that is even", "n % 2 == 0"),
    _form("number", "flag", "say if that is above {k}", "n > {k}", _numbers(5, 40)),
    _form("number", "flag", "say if {k} divides that", "n % {k} == 0", _numbers(3, 6)),
]  # fmt: skip
NUMBERS_TO_LIST = [_form("number", "list", "list its digits", "[int(d) for d in str(abs(n))]")]

Path = list[list[Form]]


def _with_end(same: list[Form], ends: list[Form], share: float) -> Callable[[Random, int], Path | None]:
    """Steps that keep the type; with a probability of `share` the last one changes it."""

    def path(rng: Random, num_steps: int) -> Path | None:
        num_ends = int(rng.random() < share)
        return [same] * (num_steps - num_ends) + [ends] * num_ends

    return path


def _mixed(rng: Random, num_steps: int) -> Path | None:
    """A list or a text (or a number's digits) that becomes a number, and steps on that number."""
    start = rng.choice(["list", "text", "digits"])
    before: Path = [NUMBERS_TO_LIST] if start == "digits" else []
    turn = TEXTS_TO_NUMBER if start == "text" else LISTS_TO_NUMBER
    free = num_steps - len(before) - 1
    if free < 1:
        return None
    num_after = rng.randint(1, free)
    same = TEXTS if start == "text" else LISTS
    return [*before, *[same] * (free - num_after), turn, *[NUMBERS] * num_after]


_PATHS: dict[str, Callable[[Random, int], Path | None]] = {
    "lists": _with_end(LISTS, LISTS_TO_NUMBER, 0.4),
    "texts": _with_end(TEXTS, TEXTS_TO_NUMBER, 0.3),
    "numbers": _with_end(NUMBERS, NUMBERS_TO_FLAG, 0.3),
    "mixed": _mixed,
}
"""Family -> what draws the forms that each step of a program is drawn from."""

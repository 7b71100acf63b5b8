"""Function tasks, made without end: write a Python function whose steps are told in words. `functions/FAMILY`.

    load_tasks(TaskSource(name="functions/lists", split="heldout", count=100, params={"min_steps": 2, "max_steps": 3}))

`verifiers.tasks.programs` has the families and makes the programs; the values of a task's calls are computed from them.
A task carries a few calls that the verifier `code` runs for the reward (`calls`), and more that give none
(`hidden_calls`), among them the empty list or text and zero: `code_hidden` runs all of them, and so can judge what
`code` rewarded. No hidden argument is a rewarded one, and the values of both differ among themselves, so that neither a
table of the rewarded calls nor a constant passes. The gold answer is the reference program.

Held out are programs, not only questions: the same steps in other words, or under another name, are on the same
side. The words are not those of the seedling's pretraining.

| params | |
|---|---|
| `min_steps`, `max_steps` | steps of a program (2 and 3) |
| `num_shown` | rewarded calls that the question shows (0 to 3; 0) |

What this does not do: programs whose steps differ but whose values agree are not found out.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from random import Random
from typing import Any

from configs.errors import UserError
from configs.names import FUNCTION_FAMILIES, FUNCTION_SETTINGS, FUNCTIONS
from configs.settings.common import TaskSource
from verifiers.api import Task
from verifiers.tasks.programs import (
    EDGES,
    VARIABLES,
    Program,
    draw_program,
    every_step_matters,
    random_input,
    run,
    source,
)
from verifiers.tasks.split import normalise_question, question_digest, split_of

PREFIX = f"{FUNCTIONS}/"
VERIFIER = "code"
NUM_REWARDED, NUM_HIDDEN = 3, 6
MAX_STEPS = 6
MAX_NUMBER, MAX_LENGTH = 100_000, 40
"""Size of a value in a call, so that a question stays short and a solution runs in no time."""
PATIENCE = 5_000
"""Draws without a new program of the asked side before a family counts as exhausted; grows with what was found."""
WORDINGS = 60
"""Names and wordings that are tried until the question falls on its program's side of the split."""
NAMES = (
    "build", "change", "check", "find", "get", "handle", "pack", "pick",
    "prepare", "read", "reduce", "select", "shape", "step", "trim", "update",
)  # fmt: skip
_NOUNS = {"list": "a list of whole numbers", "text": "a text", "number": "a whole number"}
_FRAMES = (
    "Write {call} in Python. {variable} is {noun}: {steps}. Give back what comes out.",
    "{call} gets {noun}. It should {steps}. Write it in Python.",
    "Python, please: {call}, where {variable} is {noun}. {Steps}.",
)


@dataclass(frozen=True)
class Settings:
    """The params of a source."""

    min_steps: int = 2
    max_steps: int = 3
    num_shown: int = 0


def draw(asked: TaskSource) -> list[Task]:
    """`asked.count` tasks of the asked split, no two with the same program. Deterministic.

    Raises:
        UserError: Unknown family or setting, no count, split `test`, or fewer programs than asked for.
    """
    family = asked.name.removeprefix(PREFIX)
    if family not in FUNCTION_FAMILIES:
        near = difflib.get_close_matches(family, FUNCTION_FAMILIES, 1)
        hint = f"; did you mean {PREFIX + near[0]!r}?" if near else ""
        raise UserError(
            f"task set: {asked.name!r} is not known{hint}; allowed: "
            f"{', '.join(PREFIX + name for name in FUNCTION_FAMILIES)}"
        )
    if asked.count is None:
        raise UserError(f"count: empty for {asked.name}; a procedural set has no end, so say how many to draw")
    if asked.split == "test":
        raise UserError(f"split: 'test' for {asked.name}; allowed: train, heldout, all (use heldout to measure)")
    settings = read_settings(asked)
    tasks: list[Task] = []
    seen: set[str] = set()
    index = last_new = 0
    while len(tasks) < asked.count:
        made = _candidate(family, settings, asked, index)
        index += 1
        if made is not None and made.key not in seen:
            seen.add(made.key)
            tasks.append(made.task(asked.name))
            last_new = index
        if index - last_new > PATIENCE + 10 * len(tasks):
            raise UserError(
                f"count: {asked.count} for {asked.name} (split {asked.split}, params {asked.params}), "
                f"but only {len(tasks)} distinct programs were found; lower the count or raise max_steps"
            )
    return tasks


def read_settings(asked: TaskSource) -> Settings:
    """The params, checked. Raises UserError that names what does not fit."""
    for name, value in asked.params.items():
        if name not in FUNCTION_SETTINGS:
            near = difflib.get_close_matches(name, FUNCTION_SETTINGS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"params.{name}: not a setting of {asked.name}{hint}; allowed: {', '.join(FUNCTION_SETTINGS)}"
            )
        low, high = (0, NUM_REWARDED) if name == "num_shown" else (1, MAX_STEPS)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UserError(f"params.{name}: {value!r} for {asked.name}; allowed: {low} to {high}; correct the setting")
    settings = Settings(**asked.params)
    if settings.min_steps > settings.max_steps:
        raise UserError(
            f"params.max_steps: {settings.max_steps} for {asked.name}, below min_steps {settings.min_steps}; raise it"
        )
    return settings


def fenced(program: str) -> str:
    """A program as a model should answer with it."""
    return f"```python\n{program}\n```"


@dataclass(frozen=True)
class _Made:
    """A program with its question and calls."""

    program: Program
    name: str
    question: str
    rewarded: list[dict[str, Any]]
    hidden: list[dict[str, Any]]

    @property
    def key(self) -> str:
        return _key(self.program)

    def task(self, set_name: str) -> Task:
        metadata = {
            "kind": "calls",
            "entry_point": self.name,
            "calls": self.rewarded,
            "hidden_calls": self.hidden,
            "family": set_name,
            "num_steps": len(self.program),
        }
        identity = f"{set_name}/{question_digest(self.question)}"
        answer = source(self.program, self.name)
        return Task(identity, self.question, answer, VERIFIER, metadata, set_name)


def _key(program: Program) -> str:
    """What a program does, whatever its name and words."""
    return normalise_question(source(program, "f"))


def _candidate(family: str, settings: Settings, asked: TaskSource, index: int) -> _Made | None:
    """The draw with this number; None where it makes no good task or its program is on the other side."""
    rng = Random(f"{family}:{asked.seed}:{index}")
    program = draw_program(rng, family, rng.randint(settings.min_steps, settings.max_steps))
    side = "" if program is None else split_of(_key(program))
    if program is None or asked.split not in ("all", side):
        return None
    kind = program[0].form.takes
    arguments: list[Any] = []
    while len(arguments) < NUM_REWARDED + NUM_HIDDEN - len(EDGES[kind]):
        value = random_input(rng, kind)
        if value not in arguments and value not in EDGES[kind]:
            arguments.append(value)
    arguments += EDGES[kind]
    values = [run(program, value) for value in arguments]
    if (
        not all(map(_moderate, values))
        or not _telling(values)
        or not every_step_matters(program, arguments[:NUM_REWARDED])
    ):
        return None
    calls = [{"args": [value], "expected": result} for value, result in zip(arguments, values, strict=True)]
    for one in calls[: settings.num_shown]:
        one["visible"] = True
    for _ in range(WORDINGS):
        name = rng.choice(NAMES)
        question = _question(rng, program, name, calls[: settings.num_shown])
        if split_of(question) == side:
            return _Made(program, name, question, calls[:NUM_REWARDED], calls[NUM_REWARDED:])
    return None


def _telling(values: list[Any]) -> bool:
    """Rewarded and hidden values each differ among themselves: no constant passes either."""
    return len(set(map(repr, values[:NUM_REWARDED]))) > 1 and len(set(map(repr, values[NUM_REWARDED:]))) > 1


def _moderate(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= MAX_LENGTH and all(map(_moderate, value))
    return len(value) <= MAX_LENGTH if isinstance(value, str) else abs(value) <= MAX_NUMBER


def _question(rng: Random, program: Program, name: str, shown: list[dict[str, Any]]) -> str:
    kind = program[0].form.takes
    variable = VARIABLES[kind]
    steps = ", then ".join(step.wording(rng.randrange(2)) for step in program)
    call, sentence = f"{name}({variable})", steps[0].upper() + steps[1:]
    frame = rng.choice(_FRAMES)
    question = frame.format(call=call, variable=variable, noun=_NOUNS[kind], steps=steps, Steps=sentence)
    return "\n".join([question, *(f"{name}({one['args'][0]!r}) is {one['expected']!r}" for one in shown)])

"""Structured-output tasks, made without end: a JSON object from a message, a table from a table. `structured/FAMILY`.

    load_tasks(TaskSource(name="structured/orders", split="heldout", count=100, params={"max_items": 3}))

| family | the question | judged by | params |
|---|---|---|---|
| `orders` | an order in words, a schema: write it as JSON, with the total | `json_schema` | `min_items`, `max_items` |
| `tables` | a table, and what to keep, sort or add up: write the result | `table` | `min_rows`, `max_rows` |

The items of an order may stand in any order, the rows of a sorted table may not. All names, goods and wordings are
ours.

Held out are orders and tables, not only questions: the same content in other words is on the same side.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from configs.errors import UserError
from configs.names import STRUCTURED, STRUCTURED_FAMILIES, STRUCTURED_SETTINGS
from configs.settings.common import TaskSource
from verifiers.api import Task
from verifiers.tasks.split import normalise_question, question_digest, split_of

PREFIX = f"{STRUCTURED}/"
LIMITS = {"orders": (1, 6), "tables": (3, 12)}
"""The least and the most that a family's params may be."""
DEFAULTS = {"orders": (1, 3), "tables": (4, 6)}
PATIENCE = 2_000
"""Draws without a new question of the asked side before a family counts as exhausted; grows with what was found."""
WORDINGS = 60
"""Wordings that are tried until the question falls on its content's side of the split."""

_PEOPLE = ("Amina", "Bela", "Chidi", "Dora", "Emre", "Freya", "Goran", "Hana", "Ines", "Jonas", "Kaja", "Luca", "Mira",
           "Nils", "Olga", "Pavel")  # fmt: skip
_GOODS = ("chalk boxes", "clay pots", "copper hooks", "cork boards", "felt hats", "glass jars", "ink bottles", "lamps",
          "notebooks", "oak stools", "paint tins", "rope coils", "tin cups", "towels", "wool socks")  # fmt: skip
_CITIES = ("Arles", "Bari", "Cork", "Delft", "Espoo", "Faro", "Graz", "Hull", "Izmir", "Jena", "Kiel", "Lund", "Metz",
           "Nancy", "Oulu", "Porto")  # fmt: skip
_GREETINGS = ("Hello, this is {name}.", "{name} here.", "Good morning! My name is {name}.", "It's {name} again.")
_ASKS = ("I would like {items}.", "Please send {items}.", "Can I have {items}?", "My order: {items}.")
_ITEMS = ("{quantity} {product} at {price} each", "{quantity} {product} ({price} apiece)",
          "{quantity} of your {product}, {price} each")  # fmt: skip
_FAST = ("Send it express.", "I need it by express delivery.", "Express, please.")
_SLOW = ("Standard delivery is fine.", "There is no hurry, so no express.", "No express delivery, please.")
_TASKS = ("Write this order as JSON that fits the schema.", "Turn the message into a JSON object by this schema.",
          "Give the order as a JSON document that fits the schema below.")  # fmt: skip
_HOW = "Answer with the document in a ```json block. `total` is what all items cost together."
_TABLE_FORMS = {"markdown": "a Markdown table", "csv": "CSV in a ```csv block"}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "customer": {"type": "string"},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "product": {"type": "string"},
                    "quantity": {"type": "integer"},
                    "price": {"type": "number"},
                },
                "required": ["product", "quantity", "price"],
                "additionalProperties": False,
            },
        },
        "express": {"type": "boolean"},
        "total": {"type": "number"},
    },
    "required": ["customer", "items", "express", "total"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Made:
    """A problem before it is put in words.

    Attributes:
        key: What it holds, whatever the words.
        answer: The gold answer.
        verifier: Registry name.
        metadata: What the verifier needs.
        worded: Puts it in words.
    """

    key: str
    answer: str
    verifier: str
    metadata: dict[str, Any]
    worded: Callable[[Random], str]


def draw(asked: TaskSource) -> list[Task]:
    """`asked.count` tasks of the asked split, no two with the same content. Deterministic.

    Raises:
        UserError: Unknown family or setting, no count, split `test`, or fewer tasks than asked for.
    """
    family = asked.name.removeprefix(PREFIX)
    if family not in STRUCTURED_FAMILIES:
        near = difflib.get_close_matches(family, STRUCTURED_FAMILIES, 1)
        hint = f"; did you mean {PREFIX + near[0]!r}?" if near else ""
        raise UserError(f"task set: {asked.name!r} is not known{hint}; allowed: "
                        f"{', '.join(PREFIX + name for name in STRUCTURED_FAMILIES)}")  # fmt: skip
    if asked.count is None:
        raise UserError(f"count: empty for {asked.name}; a procedural set has no end, so say how many to draw")
    if asked.split == "test":
        raise UserError(f"split: 'test' for {asked.name}; allowed: train, heldout, all (use heldout to measure)")
    low, high = read_settings(asked, family)
    tasks: list[Task] = []
    seen: set[str] = set()
    index = last_new = 0
    while len(tasks) < asked.count:
        rng = Random(f"{family}:{asked.seed}:{index}")
        made = (_order if family == "orders" else _table)(rng, rng.randint(low, high))
        index += 1
        question = _question(made, rng, asked.split) if made.key not in seen else None
        if question is not None:
            seen.add(made.key)
            tasks.append(_task(asked.name, made, question))
            last_new = index
        if index - last_new > PATIENCE + 10 * len(tasks):
            raise UserError(f"count: {asked.count} for {asked.name} (split {asked.split}, params {asked.params}), but "
                            f"only {len(tasks)} distinct tasks were found; lower the count or widen the params")
    return tasks


def read_settings(asked: TaskSource, family: str) -> tuple[int, int]:
    """The least and the most items or rows. Raises UserError that names what does not fit."""
    names, (low, high) = STRUCTURED_SETTINGS[family], LIMITS[family]
    for name, value in asked.params.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"params.{name}: not a setting of {asked.name}{hint}; allowed: {', '.join(names)}")
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UserError(f"params.{name}: {value!r} for {asked.name}; allowed: {low} to {high}; correct the setting")
    least, most = (asked.params.get(name, default) for name, default in zip(names, DEFAULTS[family], strict=True))
    if least > most:
        raise UserError(f"params.{names[1]}: {most} for {asked.name}, below {names[0]} {least}; raise it")
    return least, most


def solution(task: Task) -> str:
    """The gold answer as a model should write it."""
    if task.verifier == "json_schema":
        return f"```json\n{task.answer}\n```"
    rows = [line.split(",") for line in task.answer.split("\n")]
    return f"```csv\n{task.answer}\n```" if task.metadata["format"] == "csv" else _markdown(rows)


def _question(made: Made, rng: Random, split: str) -> str | None:
    """The problem in words that fall on its content's side of the split; None where that is not the asked one."""
    side = split_of(made.key)
    if split not in ("all", side):
        return None
    return next((text for text in (made.worded(rng) for _ in range(WORDINGS)) if split_of(text) == side), None)


def _task(set_name: str, made: Made, question: str) -> Task:
    identity = f"{set_name}/{question_digest(question)}"
    return Task(identity, question, made.answer, made.verifier, {**made.metadata, "family": set_name}, set_name)


def _order(rng: Random, num_items: int) -> Made:
    items: list[dict[str, Any]] = []
    for product in rng.sample(_GOODS, num_items):
        cents = 5 * rng.randint(10, 400)
        items.append({"product": product, "quantity": rng.randint(2, 12), "price": cents / 100})
    total = sum(round(100 * item["price"]) * item["quantity"] for item in items)
    customer, express = rng.choice(_PEOPLE), rng.random() < 0.5
    order: dict[str, Any] = {"customer": customer, "items": items, "express": express, "total": total / 100}

    def worded(words: Random) -> str:
        shuffled = words.sample(items, num_items)
        told = [words.choice(_ITEMS).format(**{**item, "price": f"{item['price']:.2f}"}) for item in shuffled]
        message = [
            words.choice(_GREETINGS).format(name=customer),
            words.choice(_ASKS).format(items=_and(told)),
            words.choice(_FAST if express else _SLOW),
        ]
        return "\n\n".join([words.choice(_TASKS), " ".join(message), json.dumps(_SCHEMA), _HOW])

    metadata = {"schema": _SCHEMA, "order": {"/items": "free"}}
    key = json.dumps({**order, "items": sorted(items, key=lambda item: str(item["product"]))})
    return Made(normalise_question(key), json.dumps(order), "json_schema", metadata, worded)


def _table(rng: Random, num_rows: int) -> Made:
    header = ["city", "product", "sold", "price"]
    goods, prices = rng.sample(_GOODS, 3), rng.sample(range(10, 100), num_rows)
    sold = rng.sample(range(1, 60), num_rows)
    cities = rng.sample(_CITIES, num_rows)
    rows: list[list[Any]] = [
        [cities[number], rng.choice(goods), sold[number], prices[number] / 10] for number in range(num_rows)
    ]
    wordings, result, fixed = _steps(rng, header, rows)
    form = rng.choice(sorted(_TABLE_FORMS))
    written = [[str(value) for value in row] for row in [header, *rows]]
    answer = "\n".join(",".join(map(str, row)) for row in result)
    shown = _markdown(written) if rng.random() < 0.5 else "\n".join(map(",".join, written))

    def worded(other: Random) -> str:
        opening = other.choice(("Here is a table.", "Take this table.", "Sales of one week:", "Look at these sales."))
        closing = other.choice((f"Answer with {_TABLE_FORMS[form]}.", f"Write the result as {_TABLE_FORMS[form]}."))
        return "\n\n".join([opening, shown, f"{other.choice(wordings)} {closing}"])

    metadata = {"rows": "fixed" if fixed else "free", "columns": "free", "format": form}
    return Made(normalise_question(f"{written} {wordings[0]} {form}"), answer, "table", metadata, worded)


def _steps(
    rng: Random, header: list[str], rows: list[list[Any]]
) -> tuple[Sequence[str], list[list[Any]], bool]:
    """What is asked for in several wordings, the resulting table, and whether its rows are ordered."""
    kind = rng.choice(("sort", "filter", "filter and sort", "add up"))
    place = rng.choice((2, 3))
    name, bound = header[place], sorted(row[place] for row in rows)[len(rows) // 2]
    if kind == "add up":
        goods = sorted({row[1] for row in rows})
        sums = [[each, sum(row[2] for row in rows if row[1] == each)] for each in goods]
        words = ("For each product, add up what was sold; the columns are product and sold.",
                 "Make a table with the columns product and sold: each product once, with all that was sold of it.")
        return words, [["product", "sold"], *sums], False
    kept = [row for row in rows if row[place] >= bound] if "filter" in kind else rows
    least = f"only the rows with a {name} of at least {bound}"
    if kind == "filter":
        return (f"Keep {least}.", f"Which rows have a {name} of at least {bound}? Keep those."), [header, *kept], False
    falling = rng.random() < 0.5
    order = "the largest first" if falling else "the smallest first"
    ordered = [header, *sorted(kept, key=lambda row: row[place], reverse=falling)]
    if kind == "sort":
        return (f"Sort it by {name}, {order}.", f"Put the rows in order of {name}, {order}."), ordered, True
    return (f"Keep {least}, sorted by {name}, {order}.", f"Sort by {name}, {order}, and keep {least}."), ordered, True


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

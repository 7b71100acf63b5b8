"""Instruction tasks, made without end: a sentence with a given word, by checkable rules. `instructions/FAMILY`.

    load_tasks(TaskSource(name="instructions/simple", split="heldout", count=100, params={"max_rules": 2}))

| family | the rules, besides a word that must occur |
|---|---|
| `simple` | capital or small letters only; how it ends; an exact number of words; a second word |
| `form` | bullet points, a title, quotation marks or a postscript; capital letters only; a second word |

A task carries its rules twice: as IFEval's names and arguments, which the verifier `instructions` reads for the
reward, and as regular expressions (`patterns`), by which `verifiers.counterpart` judges without any code of that
verifier's. All words and wordings are ours. An exact number of words is two of IFEval's rules, at least and less than.

The gold answer is one text that follows all rules; many others do. Held out are topics with their rules, not only
questions: the same rules in other words are on the same side.

| params | |
|---|---|
| `min_rules`, `max_rules` | rules besides the word (1 to 4, of `form` 1 to 3; 1 and 2) |

What this does not do: nobody asks whether the sentence makes sense.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from configs.errors import UserError
from configs.names import INSTRUCTION_FAMILIES, INSTRUCTION_SETTINGS, INSTRUCTIONS
from configs.settings.common import TaskSource
from verifiers.api import Task
from verifiers.tasks.split import normalise_question, question_digest, split_of

PREFIX = f"{INSTRUCTIONS}/"
VERIFIER = "instructions"
MOST_RULES = {"simple": 4, "form": 3}
PATIENCE = 5_000
"""Draws without a new task of the asked side before a family counts as exhausted; grows with what was found."""
WORDINGS = 60
"""Wordings that are tried until the question falls on its content's side of the split."""

_TOPICS = ("apple", "ball", "bird", "book", "bridge", "candle", "car", "card", "cat", "child", "cup", "dog", "farm",
           "field", "fish", "forest", "garden", "hand", "harbour", "horse", "key", "lamp", "map", "path", "pen",
           "pencil", "river", "stone", "table", "town", "tree")  # fmt: skip
_QUALITIES = ("big", "bright", "calm", "clean", "cold", "dry", "green", "new", "old", "open", "red", "small", "warm",
              "wide")  # fmt: skip
_ENDINGS = ("thank you", "that is all", "good night", "so it goes", "until then", "as always", "see you soon",
            "no more", "and so on", "for now")  # fmt: skip
_ASKS = ("Write a sentence with the word {topic}.", "Say something short. Use the word {topic}.",
         "Give me a line in which the word {topic} occurs.")  # fmt: skip
_BULLET, _OTHER = r"[ \t]*[*-][^\n]*", r"(?![ \t]*[*-])[^\n]*"
"""Lines that are a bullet point, and lines that are none."""


@dataclass(frozen=True)
class _Rule:
    """A rule with its arguments.

    Attributes:
        group: Of each group a task has one rule at most.
        key: Its name and arguments, for telling tasks apart.
        wordings: How it is asked for.
        constraints: IFEval's names with their arguments.
        pattern: What the whole answer must match.
        note: What a thought says of it.
    """

    group: str
    key: str
    wordings: tuple[str, ...]
    constraints: tuple[tuple[str, dict[str, Any]], ...]
    pattern: str
    note: str


def draw(asked: TaskSource) -> list[Task]:
    """`asked.count` tasks of the asked split, no two with the same word and rules. Deterministic.

    Raises:
        UserError: Unknown family or setting, no count, split `test`, or fewer tasks than asked for.
    """
    family = asked.name.removeprefix(PREFIX)
    if family not in INSTRUCTION_FAMILIES:
        near = difflib.get_close_matches(family, INSTRUCTION_FAMILIES, 1)
        hint = f"; did you mean {PREFIX + near[0]!r}?" if near else ""
        raise UserError(f"task set: {asked.name!r} is not known{hint}; allowed: "
                        f"{', '.join(PREFIX + name for name in INSTRUCTION_FAMILIES)}")  # fmt: skip
    if asked.count is None:
        raise UserError(f"count: empty for {asked.name}; a procedural set has no end, so say how many to draw")
    if asked.split == "test":
        raise UserError(f"split: 'test' for {asked.name}; allowed: train, heldout, all (use heldout to measure)")
    least, most = read_settings(asked, family)
    tasks: list[Task] = []
    seen: set[str] = set()
    index = last_new = 0
    while len(tasks) < asked.count:
        rng = Random(f"{family}:{asked.seed}:{index}")
        index += 1
        topic, rules = rng.choice(_TOPICS), _FAMILIES[family](rng, rng.randint(least, most))
        if any(rule.key == f"also:{topic}" for rule in rules):
            continue
        key = normalise_question(json.dumps([topic, sorted(rule.key for rule in rules)]))
        worded = _worded(key, topic, rules, rng, asked.split) if key not in seen else None
        if worded is not None:
            seen.add(key)
            tasks.append(_task(asked.name, topic, *worded))
            last_new = index
        if index - last_new > PATIENCE + 10 * len(tasks):
            raise UserError(f"count: {asked.count} for {asked.name} (split {asked.split}, params {asked.params}), but "
                            f"only {len(tasks)} distinct tasks were found; lower the count or raise max_rules")
    return tasks


def read_settings(asked: TaskSource, family: str) -> tuple[int, int]:
    """The least and the most rules. Raises UserError that names what does not fit."""
    highest = MOST_RULES[family]
    for name, value in asked.params.items():
        if name not in INSTRUCTION_SETTINGS:
            near = difflib.get_close_matches(name, INSTRUCTION_SETTINGS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"params.{name}: not a setting of {asked.name}{hint}; allowed: "
                            f"{', '.join(INSTRUCTION_SETTINGS)}")  # fmt: skip
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= highest:
            raise UserError(f"params.{name}: {value!r} for {asked.name}; allowed: 1 to {highest}; correct the setting")
    least, most = asked.params.get("min_rules", 1), asked.params.get("max_rules", 2)
    if least > most:
        raise UserError(f"params.max_rules: {most} for {asked.name}, below min_rules {least}; raise it")
    return least, most


def thought_and_answer(task: Task) -> tuple[list[str], str]:
    """What a short thought notes of the task, line by line, and an answer that follows all rules."""
    return list(task.metadata["notes"]), task.answer


def _worded(key: str, topic: str, rules: list[_Rule], rng: Random, split: str) -> tuple[list[_Rule], str] | None:
    """The rules in the order in which they are told, and the question, in words that fall on its content's side of the
    split; None where that is not the asked one."""
    side = split_of(key)
    if split not in ("all", side):
        return None
    for _ in range(WORDINGS):
        told = rng.sample(rules, len(rules))
        text = " ".join([rng.choice(_ASKS).format(topic=topic), *(rng.choice(rule.wordings) for rule in told)])
        if split_of(text) == side:
            return told, text
    return None


def _task(set_name: str, topic: str, rules: list[_Rule], question: str) -> Task:
    identity = f"{set_name}/{question_digest(question)}"
    asked = [("keywords:existence", {"keywords": [topic]}), *(one for rule in rules for one in rule.constraints)]
    answer, notes = _written(topic, rules, Random(question))
    metadata = {
        "instruction_id_list": [name for name, _ in asked],
        "kwargs": [arguments for _, arguments in asked],
        "patterns": [f".*(?i:{topic}).*", *(rule.pattern for rule in rules)],
        "notes": notes,
        "family": set_name,
    }
    return Task(identity, question, answer, VERIFIER, metadata, set_name)


def _written(topic: str, rules: list[_Rule], rng: Random) -> tuple[str, list[str]]:
    """A text that follows all rules, and the notes that lead there: the word, each rule, the words with their numbers.
    """
    by_group = {rule.group: rule for rule in rules}
    notes = [f"word: {topic}", *(rule.note for rule in rules)]
    other = by_group["also"].key.partition(":")[2] if "also" in by_group else None
    ending = by_group["end"].key.partition(":")[2] if "end" in by_group else ""
    one, two = rng.sample(_QUALITIES, 2)
    count = int(by_group["words"].key.partition(":")[2]) - len(ending.split()) if "words" in by_group else None
    body = _sentence(topic, other, one, two, count, rng) + (f" {ending}" if ending else "")
    if count is not None:
        notes.append(" ".join(f"{place} {word}" for place, word in enumerate(body.split(), 1)))
    text = body[0].upper() + body[1:] + ("" if ending else ".")
    shape = by_group.get("shape")
    if shape is not None:
        lines = [_sentence(topic, other, quality, two, None, rng) for quality in rng.sample(_QUALITIES, 3)]
        text = _shaped(shape.key, text, topic, [f"{line[0].upper()}{line[1:]}." for line in lines])
    if "case" in by_group:
        text = text.upper() if by_group["case"].key == "capitals" else text.lower()
    return text, notes


def _sentence(topic: str, other: str | None, one: str, two: str, count: int | None, rng: Random) -> str:
    """A sentence of so many words: 4 to 8, with a second word 6 or 7; None takes a short one."""
    if other is not None:
        return f"the {topic} is{' very' if count == 7 else ''} near the {other}"
    sizes = {4: f"the {topic} is {one}", 5: f"the {topic} is very {one}", 6: f"the {topic} is {one} and {two}",
             7: f"the {topic} is very {one} and {two}", 8: f"the {topic} is very {one} and {two} today"}  # fmt: skip
    return sizes[count if count is not None else rng.choice((4, 5))]


def _shaped(kind: str, text: str, topic: str, lines: list[str]) -> str:
    name, _, number = kind.partition(":")
    if name == "bullets":
        return "\n".join(f"- {line}" for line in lines[: int(number) - 1] + [text])
    if name == "title":
        return f"<<The {topic}>>\n{text}"
    return f'"{text}"' if name == "quotes" else f"{text}\nP.S. {lines[0]}"


def _capitals() -> _Rule:
    return _Rule("case", "capitals", ("Use capital letters only.", "All letters must be capitals."),
                 (("change_case:english_capital", {}),), "[^a-z]*", "capital letters")  # fmt: skip


def _small() -> _Rule:
    return _Rule("case", "small", ("Use small letters only.", "No capital letters."),
                 (("change_case:english_lowercase", {}),), "[^A-Z]*", "small letters")  # fmt: skip


def _ending(rng: Random) -> _Rule:
    phrase = rng.choice(_ENDINGS)
    return _Rule("end", f"end:{phrase}", (f"End with the words {phrase}.", f"The last words must be {phrase}."),
                 (("startend:end_checker", {"end_phrase": phrase}),), f'.*(?i:{phrase})"?',
                 f"end: {phrase}")  # fmt: skip


def _also(rng: Random) -> _Rule:
    word = rng.choice(_TOPICS)
    return _Rule("also", f"also:{word}", (f"Use the word {word} too.", f"The word {word} must occur as well."),
                 (("keywords:existence", {"keywords": [word]}),), f".*(?i:{word}).*", f"also: {word}")  # fmt: skip


def _words(count: int) -> _Rule:
    at_least, less = ({"num_words": number, "relation": relation} for number, relation in
                      ((count, "at least"), (count + 1, "less than")))  # fmt: skip
    return _Rule("words", f"words:{count}", (f"Use exactly {count} words.", f"It must have {count} words, no more."),
                 (("length_constraints:number_words", at_least), ("length_constraints:number_words", less)),
                 rf"\W*(?:\w+\W+){{{count - 1}}}\w+\W*", f"words: {count}")  # fmt: skip


def _shape(rng: Random) -> _Rule:
    kind = rng.choice(("bullets:2", "bullets:3", "title", "quotes", "postscript"))
    if kind.startswith("bullets"):
        number = int(kind[-1])
        return _Rule("shape", kind,
                     (f"Answer with exactly {number} bullet points.", f"Make it {number} bullet points."),
                     (("detectable_format:number_bullet_lists", {"num_bullets": number}),),
                     rf"(?:{_OTHER}\n)*{_BULLET}(?:\n{_OTHER})*(?:\n{_BULLET}(?:\n{_OTHER})*){{{number - 1}}}",
                     f"bullets: {number}")  # fmt: skip
    if kind == "title":
        return _Rule("shape", kind, ("Put a title in << >> above it.", "Give it a title like <<this>>."),
                     (("detectable_format:title", {}),), r".*<<[^<>\n]+>>.*", "title: << >>")  # fmt: skip
    if kind == "quotes":
        return _Rule("shape", kind, ("Put all of it in double quotation marks.", "Wrap it in double quotation marks."),
                     (("startend:quotation", {}),), '".+"', 'marks: " "')  # fmt: skip
    return _Rule("shape", kind, ("Add a postscript that begins with P.S.", "Close with a line after P.S."),
                 (("detectable_content:postscript", {"postscript_marker": "P.S."}),), r".*(?i:P\. ?S\.).*",
                 "then P.S.")  # fmt: skip


def _simple(rng: Random, num_rules: int) -> list[_Rule]:
    """Rules of different groups; the number of words is one that the gold sentence can have with the others."""
    groups = rng.sample(("case", "end", "words", "also"), num_rules)
    made = {"case": _capitals() if rng.random() < 0.5 else _small(), "end": _ending(rng), "also": _also(rng)}
    base = rng.choice((6, 7)) if "also" in groups else rng.randint(4, 8)
    made["words"] = _words(base + (len(made["end"].key.partition(":")[2].split()) if "end" in groups else 0))
    return [made[group] for group in groups]


def _form(rng: Random, num_rules: int) -> list[_Rule]:
    """A shape and, with more rules, capitals and a second word."""
    return [_shape(rng), *rng.sample((_capitals(), _also(rng)), num_rules - 1)]


_FAMILIES: dict[str, Callable[[Random, int], list[_Rule]]] = {"simple": _simple, "form": _form}
_UNSAFE = re.compile(r"[^a-z ]")
assert not any(_UNSAFE.search(word) for word in (*_TOPICS, *_ENDINGS)), "words stand in patterns as they are"

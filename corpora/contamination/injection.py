"""Known contaminations, made on purpose: a benchmark question in each of the disguises in which questions travel.

A decontamination must find `verbatim`, `respaced`, `renumbered_prefix`, `embedded` and `embedded_comment`, whatever
its rule. `numbers_changed` and `reworded_*` are not the question any more, though close to it; how many of them a rule
finds tells rules apart.
"""

from __future__ import annotations

import random
import re
import textwrap
from collections.abc import Callable, Sequence

MUST_FIND = ("verbatim", "respaced", "renumbered_prefix", "embedded", "embedded_comment")
LONG_FILE = 20_000
"""Characters, at least, of a text in which a question is embedded."""
_SPACES = re.compile(r"\s+")
_WORD = re.compile(r"[A-Za-z]{3,}")
_NUMBER = re.compile(r"\d+")
_GAPS = ("  ", "\n", "\t", " \n  ", "\u00a0", "   ")
_LABELS = ("Problem {}. ", "{}. ", "{}) ", "Question {}: ", "Q{}. ", "Exercise {}.{} ", "### Problem {}\n")
_OTHER_WORDS = ("copper", "violin", "harbour", "seven", "quickly", "beneath", "lantern", "orbit", "meadow", "polite")


def inject(kind: str, question: str, hosts: Sequence[str], seed: int) -> str:
    """A text that holds the question in the disguise `kind` (a key of `KINDS`); the same for the same arguments.

    `hosts` are clean texts, of which the embedding kinds take as many as make a long file.
    """
    return KINDS[kind](question, hosts, random.Random(f"{kind}/{seed}/{question}"))


def _respaced(question: str, hosts: Sequence[str], draw: random.Random) -> str:
    return _SPACES.sub(lambda found: draw.choice((*_GAPS, found.group())), question)


def _renumbered_prefix(question: str, hosts: Sequence[str], draw: random.Random) -> str:
    label = draw.choice(_LABELS)
    return label.format(*(draw.randrange(1, 400) for _ in range(label.count("{}")))) + question


def _embedded(question: str, hosts: Sequence[str], draw: random.Random) -> str:
    lines = _long_file(hosts, draw)
    lines.insert(draw.randrange(len(lines) + 1), f"\n{question}\n")
    return "\n".join(lines)


def _embedded_comment(question: str, hosts: Sequence[str], draw: random.Random) -> str:
    lines = _long_file(hosts, draw)
    comment = textwrap.wrap(question, 79, break_long_words=False, break_on_hyphens=False)
    lines.insert(draw.randrange(len(lines) + 1), "\n".join(f"    # {line}" for line in comment))
    return "\n".join(lines)


def _numbers_changed(question: str, hosts: Sequence[str], draw: random.Random) -> str:
    return _NUMBER.sub(lambda found: str(int(found.group()[:9]) + draw.randrange(1, 9)), question)


def _reworded(share: float) -> Callable[[str, Sequence[str], random.Random], str]:
    def reword(question: str, hosts: Sequence[str], draw: random.Random) -> str:
        return _WORD.sub(lambda found: draw.choice(_OTHER_WORDS) if draw.random() < share else found.group(), question)

    return reword


def _long_file(hosts: Sequence[str], draw: random.Random) -> list[str]:
    text = ""
    while len(text) < LONG_FILE:
        text += draw.choice(hosts) + "\n"
    return text.splitlines()


KINDS: dict[str, Callable[[str, Sequence[str], random.Random], str]] = {
    "verbatim": lambda question, hosts, draw: question,
    "respaced": _respaced,
    "renumbered_prefix": _renumbered_prefix,
    "embedded": _embedded,
    "embedded_comment": _embedded_comment,
    "numbers_changed": _numbers_changed,
    "reworded_10": _reworded(0.1),
    "reworded_20": _reworded(0.2),
    "reworded_30": _reworded(0.3),
}

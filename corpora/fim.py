"""Fill in the middle: a document cut in three and put in the order prefix, suffix, middle, with Qwen2.5's tokens.

    <|fim_prefix|>PREFIX<|fim_suffix|>SUFFIX<|fim_middle|>MIDDLE<|endoftext|>

The order and the tokens are Qwen2.5-Coder's (arXiv 2409.12186 section 3.1; PSM of Bavarian et al. 2022, arXiv
2207.14255). Its rate is not published; 0.5 is StarCoder's. The cut is made before tokenising, as in training on
character spans, so that a model learns to go on inside of a word.

Where the middle begins and ends is drawn at one of three levels:

- `character`: two characters, uniformly (Bavarian et al., section 3);
- `line`: two starts of lines;
- `syntax`: one statement, expression or block of the Python syntax tree, drawn with a chance that grows with the
  square root of its length, as the nodes of a tree are mostly names of a few letters (after structure-aware FIM, arXiv
  2506.00204, which draws in proportion to length). A text that does not parse is cut at lines.

All draws are functions of the seed, the level's weights and the document's id, of nothing else.

The result is a list of segments, either a mark (a token of its own) or text that the encoder treats as text: a document
cannot forge a mark. One that holds the spelling of a mark is dropped all the same (`holds_fim_token`), because any
reader of the corpus whose tokenizer does know the tokens would see a broken document.
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from itertools import accumulate

import numpy as np

from configs.settings.corpus import FillInTheMiddle
from corpora.document import Document
from corpora.filters.languages import language_of

REASON = "holds_fim_token"
Settings = FillInTheMiddle


class Mark(Enum):
    """Qwen2.5's tokens for fill-in-the-middle and repositories (ids 151659 to 151664)."""

    PREFIX = "<|fim_prefix|>"
    MIDDLE = "<|fim_middle|>"
    SUFFIX = "<|fim_suffix|>"
    PAD = "<|fim_pad|>"
    REPOSITORY = "<|repo_name|>"
    FILE = "<|file_sep|>"


Segment = str | Mark
Draw = Callable[[str], float]
"""A number in [0, 1) for each purpose, the same one for the same purpose."""


def holds_mark(text: str) -> bool:
    """Whether the text spells one of the marks."""
    return "<|" in text and any(mark.value in text for mark in Mark)


def check(document: Document) -> str | None:
    """`holds_fim_token` for a document that spells a mark, else None."""
    return REASON if holds_mark(document.full_text()) else None


def transform(document: Document, settings: Settings, seed: int) -> list[Segment]:
    """The document's text, cut or whole.

    Args:
        document: One that passed `check`.
        settings: Rate and levels of its source.
        seed: Seed of the run.

    Returns:
        `[text]`, or prefix, suffix and middle with their marks before them.
    """
    draw = drawer(seed, document.source, document.id)
    if len(document.text) < settings.min_characters or draw("whether") >= settings.rate:
        return [document.text]
    is_python = language_of(document.path, document.text) in ("python", "")
    start, end = span(document.text, settings, draw, is_python)
    return cut(document.text, start, end)


def cut(text: str, start: int, end: int) -> list[Segment]:
    """The text with `text[start:end]` as the middle. An empty part leaves its mark with nothing after it.

    >>> render(cut("abcdef", 2, 4))
    '<|fim_prefix|>ab<|fim_suffix|>ef<|fim_middle|>cd'
    """
    assert 0 <= start <= end <= len(text)
    parts: list[Segment] = [Mark.PREFIX, text[:start], Mark.SUFFIX, text[end:], Mark.MIDDLE, text[start:end]]
    return [part for part in parts if part != ""]


def restore(segments: Sequence[Segment]) -> str:
    """The text that was cut: the inverse of `cut`, and of `transform`."""
    parts = {Mark.PREFIX: "", Mark.SUFFIX: "", Mark.MIDDLE: ""}
    last = Mark.PREFIX
    for segment in segments:
        if isinstance(segment, Mark):
            last = segment
        else:
            parts[last] = segment
    return parts[Mark.PREFIX] + parts[Mark.MIDDLE] + parts[Mark.SUFFIX]


def uncut(segments: Sequence[Segment]) -> list[Segment]:
    """The segments of a document, or of a repository whose last file was cut, with the cut undone.

    >>> uncut([Mark.FILE, "a.py\\n", *cut("abcdef", 2, 4)])
    [<Mark.FILE: '<|file_sep|>'>, 'a.py\\nabcdef']
    """
    if Mark.PREFIX not in segments:
        return list(segments)
    place = list(segments).index(Mark.PREFIX)
    whole, text = list(segments[:place]), restore(segments[place:])
    if whole and isinstance(whole[-1], str):
        text = whole[-1] + text
        whole.pop()
    return [*whole, text]


def render(segments: Sequence[Segment]) -> str:
    """The segments as one string, marks spelled out: for reading and for tests, not for an encoder of plain text."""
    return "".join(segment.value if isinstance(segment, Mark) else segment for segment in segments)


def encode(
    documents: Sequence[Sequence[Segment]],
    encode_texts: Callable[[Sequence[str]], list[np.ndarray]],
    mark_ids: Mapping[Mark, int],
) -> list[np.ndarray]:
    """Token ids of each document, without an end mark.

    Args:
        documents: Segments of each document.
        encode_texts: Ids of each of many texts, e.g. `Encoder.encode`; called once.
        mark_ids: Id of every mark in the checkpoint's tokenizer.
    """
    texts = iter(encode_texts([part for document in documents for part in document if isinstance(part, str)]))
    empty = np.zeros(0, dtype=np.dtype("<u4"))
    marks = {mark: np.array([mark_id], dtype=empty.dtype) for mark, mark_id in mark_ids.items()}
    return [
        np.concatenate([empty, *(marks[part] if isinstance(part, Mark) else next(texts) for part in document)])
        for document in documents
    ]


def drawer(seed: int, *what: str) -> Draw:
    """Draws for one document: BLAKE2b of the seed, the words that say what is drawn, and the purpose."""
    start = hashlib.blake2b(repr((seed, "fim", *what)).encode("utf-8", "surrogatepass"), digest_size=16)

    def draw(purpose: str) -> float:
        digest = start.copy()
        digest.update(purpose.encode())
        return int.from_bytes(digest.digest()[:8], "little") / 2**64

    return draw


def span(text: str, settings: Settings, draw: Draw, is_python: bool = True) -> tuple[int, int]:
    """Where the middle begins and ends, at a level drawn by the weights; lines where the syntax is not Python's."""
    weights = list(accumulate((settings.character, settings.line, settings.syntax)))
    point = draw("level") * weights[-1]
    level = next(i for i, weight in enumerate(weights) if point < weight)
    if level == 2:
        found = syntax_span(text, draw) if is_python else None
        if found is not None:
            return found
        level = 1
    return line_span(text, draw) if level == 1 else character_span(text, draw)


def character_span(text: str, draw: Draw) -> tuple[int, int]:
    """Two places between characters, uniformly among all pairs with a middle that is not empty."""
    first = int(draw("start") * (len(text) + 1))
    second = int(draw("end") * len(text))
    second += second >= first  # any place but the first, each as likely
    return min(first, second), max(first, second)


def line_span(text: str, draw: Draw) -> tuple[int, int]:
    """Whole lines; a text of one line is cut between characters."""
    starts = [0, *(i + 1 for i, character in enumerate(text) if character == "\n")]
    if starts[-1] != len(text):
        starts.append(len(text))
    if len(starts) < 3:
        return character_span(text, draw)
    first = int(draw("start") * len(starts))
    second = int(draw("end") * (len(starts) - 1))
    second += second >= first
    return starts[min(first, second)], starts[max(first, second)]


def syntax_span(text: str, draw: Draw) -> tuple[int, int] | None:
    """One node of the Python syntax tree; None for a text that does not parse or has no node to take."""
    nodes = syntax_nodes(text)
    if not nodes:
        return None
    weights = list(accumulate((end - start) ** 0.5 for start, end in nodes))
    point = draw("node") * weights[-1]
    return nodes[next(i for i, weight in enumerate(weights) if point < weight)]


def syntax_nodes(text: str) -> list[tuple[int, int]]:
    """Where statements, expressions and blocks of a Python text begin and end, in characters, in the tree's order.

    A block is what a statement's header opens (the body of a function, of a loop, of a branch). Nothing for a text
    that does not parse. Two characters and less are left out, and so is the whole text. A text with carriage returns
    has none: the tree's places are those of a text without them.
    """
    if "\r" in text:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return []
    lines = text.split("\n")
    at = [0, *accumulate(len(line) + 1 for line in lines)]

    def place(line: int, column: int) -> int:
        content = lines[line - 1]
        # Columns count bytes of UTF-8.
        return at[line - 1] + (column if content.isascii() else len(content.encode()[:column].decode()))

    found: dict[tuple[int, int], None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt | ast.expr):
            found[place(node.lineno, node.col_offset), place(node.end_lineno or 0, node.end_col_offset or 0)] = None
        for body in (getattr(node, "body", None), getattr(node, "orelse", None), getattr(node, "finalbody", None)):
            if isinstance(node, ast.stmt) and isinstance(body, list) and body:
                first, last = body[0], body[-1]
                found[place(first.lineno, first.col_offset), place(last.end_lineno, last.end_col_offset)] = None
    return [(start, end) for start, end in found if 2 < end - start < len(text)]

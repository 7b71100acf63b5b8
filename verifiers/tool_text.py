"""Programs in a model's text and what an interpreter says of them, as in Qwen2.5-Math's tool-integrated reasoning.

    ```python
    print(23 * 47)
    ```
    ```output
    1081
    ```

The model writes the first block, the interpreter the second; then the model goes on. What the interpreter says has no
fence of three backticks and no special token's brackets in it, so that nothing a program prints can end the block, and
a text can be parted again into what was written and what was fed (`fed_spans`).

Source: Qwen2.5-Math (arXiv:2409.12122) and its evaluation (github.com/QwenLM/Qwen2.5-Math, `evaluation/math_eval.py`).
Departures: a program runs as soon as its block is closed, not when the text stops; a block that says it is output is
never the model's to write (`forged`); a fence is one of backticks, at the start of a line, indented or not.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

PYTHON = frozenset({"python", "py", "python3"})
OUTPUT = "output"
ELLIPSIS = "..."

_FENCE = re.compile(r"([ \t]*+)(`{3,}+)[ \t]*+([^\s`]*+)([^`]*+)$")
"""Nothing of it is tried again in another way: a long line would take time by its square."""
_OUTPUT_OPENING = re.compile(r"\s*\n```output[ \t\r]*\n")
"""After empty lines too: a tokenizer may have a token of a backtick and two line ends, and a model closes with it."""
_OUTPUT_END = re.compile(r"^```[ \t\r]*(?:\n|\Z)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A closed fenced block of Python, or a fence that claims to be an interpreter's.

    Attributes:
        program: What stands in the block, without the indentation of its opening fence.
        end: Characters of the text up to the end of its closing fence.
        forged: The text has a fence of output of its own (then there is no program).
    """

    program: str
    end: int
    forged: bool = False


def next_block(text: str, start: int = 0) -> Block | None:
    """The first closed block of Python from `start` on, or the first fence of output, whichever is first.

    The last line may be unfinished: a line that is a closing fence so far counts as one.

    >>> next_block("Run:\\n```python\\nprint(1)\\n```")
    Block(program='print(1)\\n', end=27, forged=False)
    >>> next_block("```output\\n1")
    Block(program='', end=9, forged=True)
    """
    opening: re.Match[str] | None = None
    inside: list[str] = []
    position = start
    for line in text[start:].split("\n"):
        fence = _FENCE.match(line)
        if fence is not None and fence[3].lower() == OUTPUT:
            return Block("", position + len(line), True)
        if opening is None:
            opening, inside = fence, []
        elif fence is not None and len(fence[2]) >= len(opening[2]) and not line.strip().strip("`"):
            if opening[3].lower() in PYTHON:
                indentation = opening[1]
                program = "".join(f"{one.removeprefix(indentation)}\n" for one in inside)
                return Block(program, position + fence.end(2))
            opening = None
        else:
            inside.append(line)
        position += len(line) + 1
    return None


def output_block(output: str) -> str:
    """What is fed after a closing fence at the end of a line's text: a new line, and the output in its block."""
    return f"\n```{OUTPUT}\n{output}\n```\n"


def harmless(output: str) -> str:
    """An output that cannot end its own block, begin another or stand for a special token; without NUL, in NFC.

    In NFC, since Qwen2's tokenizer brings a text into that form, in which U+1FEF is a backtick.

    >>> harmless("```<|im_end|>")
    "'''< |im_end|>"
    """
    text = unicodedata.normalize("NFC", output.replace("\0", ""))  # before the rest, which it would join again
    return text.replace("```", "'''").replace("<|", "< |")


def shortened(output: str, max_characters: int) -> str:
    """Both ends of an output that is longer, as Qwen2.5-Math's.

    >>> shortened("abcdefghij", 7)
    'ab...ij'
    """
    if len(output) <= max_characters:
        return output
    half = max(1, (max_characters - len(ELLIPSIS)) // 2)
    return output[:half] + ELLIPSIS + output[-half:]


def fed_spans(text: str) -> list[tuple[int, int]]:
    """The parts of a whole answer that an interpreter fed: each block of output right after a block of Python.

    A span begins after the closing fence of the program and ends with the line of the output's own, as what
    `output_block` makes; an output that is not closed goes to the end.

    >>> text = "```python\\nprint(1)\\n```" + output_block("1") + "So 1."
    >>> [text[first:last] for first, last in fed_spans(text)]
    ['\\n```output\\n1\\n```\\n']
    """
    spans: list[tuple[int, int]] = []
    position = 0
    while (block := next_block(text, position)) is not None:
        position = block.end
        opening = _OUTPUT_OPENING.match(text, position) if not block.forged else None
        if opening is not None:
            closing = _OUTPUT_END.search(text, opening.end())
            end = len(text) if closing is None else closing.end()
            spans.append((position, end))
            position = end
    return spans

"""The parts of a worked solution, and how they are written down.

| style | text |
|---|---|
| `plain` | the steps, then `\\boxed{answer}` |
| `think` | the steps between `<think>` and `</think>`, then `\\boxed{answer}`: the form of QwQ and DeepSeek-R1 |
| `tools` | a program, what an interpreter prints of it, then `\\boxed{answer}`: the form of Qwen2.5-Math's tool use |

Whether a text has the form of `think` is `verifiers.format`'s to judge.
"""

from __future__ import annotations

from typing import Literal

from verifiers.tool_text import output_block

Lines = tuple[list[str], str]
"""The steps, and the answer that goes into the box."""
Style = Literal["plain", "think", "tools"]


class NoSolution(ValueError):
    """The problem has no solution in our style."""


def written(steps: list[str], answer: str, style: Style) -> str:
    """Steps and answer as one text; in the style `tools` the steps are a program's lines, which prints the answer.

    >>> print(written(["3 + 4 = 7"], "7", "think"))
    <think>
    3 + 4 = 7
    </think>
    \\boxed{7}

    Raises:
        NoSolution: There is no step, so that a thought would be empty.
    """
    box = f"\\boxed{{{answer}}}"
    if style == "plain":
        return "\n".join([*steps, box])
    if style == "tools":
        return "\n".join(["```python", *steps, "```"]) + output_block(answer) + box
    return thought_before(steps, box)


def thought_before(steps: list[str], answer: str) -> str:
    """The steps inside tags, and the answer behind them. Raises NoSolution where there is no step."""
    if not any(step.strip() for step in steps):
        raise NoSolution("no step to think of")
    return "\n".join(["<think>", *steps, "</think>", answer])

"""Published protocols: how each public set's problems are put, plainly to a base model and as a chat to a taught one.

A task source with `style: published` is asked as the reports of Qwen2.5 (arXiv:2412.15115), Qwen2.5-Math
(arXiv:2409.12122), Qwen2.5-Coder (arXiv:2409.12186) and QwQ-32B (https://qwenlm.github.io/blog/qwq-32b) ask it: the
number of solved examples, the frame around them, where a plain answer ends, how long it may be, and the instruction in
a chat. Frames are those of the scripts that the reports name (QwenLM/Qwen2.5-Math `evaluation/`, QwenLM/Qwen2.5-Coder
`qwencoder-eval/`) or of the sets' own papers.

Departure: the solved examples are the first of a set's train split, never the published ones, and end in a box where
they are mathematics. MATH's need its solutions, which not every copy has; GSM8K's stand in then. docs/evaluation.md
says what else differs and how far that moves scores.

What this does not do: it never asks at other temperatures, votes or repairs; those are settings of the stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from verifiers.api import Task

MATH_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
CODE_INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
)


@dataclass(frozen=True)
class Style:
    """One set's protocol.

    Attributes:
        plain: What a base model goes on from, after the solved examples.
        solved: A solved example, with all that stands between it and the next: problem and solution in.
        examples: Sets whose train split gives the solved examples; the first that has some counts.
        num_examples: Solved examples.
        stops: Texts that end a plain answer; they and what follows are no part of it.
        max_new_tokens: Longest plain answer; the stage's own limit holds where it is lower, and for chats.
        chat: What the user says in a chat.
        system: System prompt of a chat where the stage has none.
    """

    plain: Callable[[Task], str]
    stops: tuple[str, ...]
    max_new_tokens: int
    solved: Callable[[str, str], str] = lambda problem, solution: ""
    examples: tuple[str, ...] = ()
    num_examples: int = 0
    chat: Callable[[Task], str] = lambda task: task.prompt
    system: str | None = None


def _question(problem: str, solution: str) -> str:
    return f"Question: {problem}\nAnswer: {solution}\n\n\n"


def _minerva(problem: str, solution: str) -> str:
    return f"Problem:\n{problem}\n\nSolution: {solution}\n\n"


def _expert(problem: str) -> str:
    return f"You are an expert Python programmer, and here is your task: {problem}\n[BEGIN]\n"


def _fenced(text: str) -> str:
    return f"{CODE_INSTRUCTION}\n```\n{text.strip()}\n```\n"


def _docstring(task: Task) -> str:
    """MBPP's text with its first test, as EvalPlus writes it."""
    return f'"""\n{task.metadata["question"]}\n{task.metadata["first_test"]}\n"""\n'


# GSM8K: 4 examples in the Qwen2.5 report (8 for Qwen2.5-Math's bases). The frame is Qwen2.5-Math's `cot`.
_WORD_PROBLEMS = Style(
    plain=lambda task: f"Question: {task.prompt}\nAnswer:",
    solved=_question, examples=("gsm8k",), num_examples=4,
    stops=("\n\nQuestion:", "\nQuestion:"), max_new_tokens=1024, system=MATH_INSTRUCTION,
)  # fmt: skip
# MATH: 4 examples in all reports, in the frame of Minerva (arXiv:2206.14858, appendix D).
_COMPETITION = Style(
    plain=lambda task: f"Problem:\n{task.prompt}\n\nSolution:",
    solved=_minerva, examples=("math", "gsm8k"), num_examples=4,
    stops=("\nProblem:",), max_new_tokens=2048, system=MATH_INSTRUCTION,
)  # fmt: skip
# HumanEval: no examples; a base goes on from the prompt, stripped and with one line end, up to EvalPlus' stop texts.
_HUMANEVAL = Style(
    plain=lambda task: task.prompt.strip() + "\n",
    stops=("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ", "\nif __name__", "\nprint(", "```"),
    max_new_tokens=768, chat=lambda task: _fenced(task.prompt),
)  # fmt: skip
# MBPP: 3 examples, in the frame of its paper (arXiv:2108.07732, section 4.1); chats as EvalPlus has them.
_MBPP = Style(
    plain=lambda task: _expert(task.prompt),
    solved=lambda problem, solution: f"{_expert(problem)}{solution.strip()}\n[DONE]\n\n\n",
    examples=("mbpp",), num_examples=3, stops=("[DONE]",), max_new_tokens=768,
    chat=lambda task: _fenced(_docstring(task)),
)  # fmt: skip
# IFEval (arXiv:2311.07911): the request alone.
_REQUEST = Style(plain=lambda task: task.prompt + "\n", stops=(), max_new_tokens=1280)

STYLES: dict[str, Style] = {
    "gsm8k": _WORD_PROBLEMS,
    "asdiv": _WORD_PROBLEMS,
    "math": _COMPETITION,
    "math500": _COMPETITION,
    "aime24": _COMPETITION,
    "aime25": _COMPETITION,
    "humaneval": _HUMANEVAL,
    "mbpp": _MBPP,
    "mbpp_sanitized": _MBPP,
    "ifeval": _REQUEST,
}
"""Protocols by the name that `metadata["protocol"]` holds (`configs.names.PUBLISHED_STYLES`)."""


def style_of(task: Task) -> Style | None:
    """The published protocol that was asked for with the task's source; None for the plain one."""
    name = task.metadata.get("protocol")
    return None if name is None else STYLES[str(name)]

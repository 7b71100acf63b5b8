"""Which program a completion holds. Text work only: nothing is compiled here, since a completion is hostile.

What is after a closing `</think>` counts, if there is one. Then, in this order:

1. the last fenced block that defines the entry point;
2. where the task has a prompt and the text starts indented: the prompt with the text as its continuation, cut at the
   first of `STOPS`, as base models are evaluated (Codex, https://arxiv.org/abs/2107.03374, section 3.1; EvalPlus);
3. the text itself, where it defines the entry point;
4. the last fenced block, one in Python before one in no stated language, before any other;
5. the prompt with its continuation, where there is a prompt; else the whole text.

A program that defines the entry point by itself has the prompt's lines from before it (imports and what it may call)
put in front, unless it imports from `__future__`, which must come first.
"""

from __future__ import annotations

import re

END_OF_TEXT = ("<|endoftext|>", "<|im_end|>", "<|fim_pad|>", "<|file_sep|>", "<|repo_name|>")
STOPS = ("\nclass ", "\ndef ", "\nasync def ", "\n@", "\n#", "\nif ", "\nprint", "\nassert ", "\nimport ", "\nfrom ",
         "\n```", "\n'''", '\n"""')  # fmt: skip
PYTHON = frozenset({"python", "py", "python3", "py3", "pycon"})

# Nothing of it is tried again in another way: a long line would take time by its square.
_FENCE = re.compile(r"^([ \t]*+)(`{3,}+|~{3,}+)[ \t]*+([^\s`]*+)[^`\n]*+$", re.MULTILINE)
_INDENTED = re.compile(r"\A(?:[ \t]*\n)*(?:  |\t)[ \t]*\S")


def extract(completion: str, entry_point: str = "", prompt: str = "") -> str:
    """The program that `completion` holds; empty where it holds none."""
    text = completion
    for mark in END_OF_TEXT:
        text = text.partition(mark)[0]
    text = text.rpartition("</think>")[2]
    blocks = fenced_blocks(text)
    if entry_point:
        for _, block in reversed(blocks):
            if defines(block, entry_point):
                return _with_preamble(block, entry_point, prompt)
        if prompt and _INDENTED.match(text):
            return continued(prompt, text)
        if not blocks and defines(text, entry_point):
            return _with_preamble(text, entry_point, prompt)
    if blocks:
        block = _preferred(blocks)
        return _with_preamble(block, entry_point, prompt) if entry_point and block.strip() else block
    if entry_point and prompt and text.strip():
        return continued(prompt, text)
    return text if text.strip() else ""


def continued(prompt: str, text: str) -> str:
    """The prompt and the text that goes on from it, up to the first stop."""
    ends = [found for stop in STOPS if (found := text.find(stop)) >= 0]
    return prompt + text[: min(ends, default=len(text))] + "\n"


def defines(text: str, name: str) -> bool:
    """Whether a line that is not indented defines or assigns the name."""
    word = re.escape(name)
    pattern = rf"^(?:(?:(?:async[ \t]+)?def|class)[ \t]+{word}\b|{word}[ \t]*=[^=])"
    return re.search(pattern, text, re.MULTILINE) is not None


def preamble(prompt: str, entry_point: str) -> str:
    """The prompt's lines before the definition of the entry point; none where it does not define it."""
    found = list(re.finditer(rf"^(?:async[ \t]+)?def[ \t]+{re.escape(entry_point)}\b", prompt, re.MULTILINE))
    return prompt[: found[-1].start()] if found else ""


def fenced_blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block. A block that is not closed goes to the end."""
    blocks: list[tuple[str, str]] = []
    opening: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif fence[2][0] == opening[2][0] and len(fence[2]) >= len(opening[2]) and not fence[3]:
            blocks.append(_block(opening, text[opening.end() + 1 : fence.start()]))
            opening = None
    if opening is not None:
        blocks.append(_block(opening, text[opening.end() + 1 :]))
    return blocks


def _block(opening: re.Match[str], content: str) -> tuple[str, str]:
    indentation = opening[1]
    if indentation:
        content = "\n".join(line.removeprefix(indentation) for line in content.split("\n"))
    return opening[3].lower(), content


def _preferred(blocks: list[tuple[str, str]]) -> str:
    for languages in (PYTHON, frozenset({""})):
        for language, block in reversed(blocks):
            if language in languages:
                return block
    return blocks[-1][1]


def _with_preamble(text: str, entry_point: str, prompt: str) -> str:
    before = preamble(prompt, entry_point)
    return text if not before.strip() or "from __future__" in text else f"{before}\n{text}"

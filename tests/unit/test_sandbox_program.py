"""Which program a completion holds."""

from __future__ import annotations

import pytest

from verifiers.sandbox.program import continued, defines, extract, fenced_blocks, preamble

PROMPT = 'import math\n\n\ndef area(r):\n    return math.pi * r * r\n\n\ndef volume(r, h):\n    """Of a cylinder."""\n'
WHOLE = "def volume(r, h):\n    return area(r) * h\n"
BEFORE = "import math\n\n\ndef area(r):\n    return math.pi * r * r\n\n\n"


def test_the_last_block_that_defines_the_entry_point_wins() -> None:
    text = (
        f"A:\n```python\ndef f(): return 1\n```\nB:\n```python\n{WHOLE}```\nUse:\n```python\nprint(volume(1, 2))\n```"
    )
    assert extract(text, "volume") == WHOLE
    assert extract(text + f"\nOr:\n```py\n{WHOLE}# second\n```", "volume") == WHOLE + "# second\n"


def test_without_one_the_last_python_block_wins() -> None:
    text = "```python\na = 1\n```\n```\nb = 2\n```\n```text\nc\n```"
    assert extract(text) == "a = 1\n"
    assert extract("```\nb = 2\n```\n```json\n{}\n```") == "b = 2\n"
    assert extract("```bash\nls\n```") == "ls\n"


def test_a_block_that_is_not_closed_goes_to_the_end() -> None:
    assert extract("Here:\n```python\nx = 1\ny = 2", "") == "x = 1\ny = 2"


def test_a_fence_within_a_longer_fence_and_an_indented_fence() -> None:
    assert fenced_blocks("````md\n```python\nx\n```\n````") == [("md", "```python\nx\n```\n")]
    assert fenced_blocks("1. do\n   ```python\n   if x:\n       y\n   ```") == [("python", "if x:\n    y\n")]
    assert fenced_blocks("~~~python\nx\n```\n~~~") == [("python", "x\n```\n")]


def test_a_continuation_is_cut_at_the_first_stop_as_base_models_are_judged() -> None:
    body = "    return area(r) * h\n"
    for rest in (
        "\ndef other():\n    pass",
        "\nclass A:",
        "\nprint(volume(1, 2))",
        "\nif __name__ == 'x':",
        "\n# note",
        "\n```",
    ):
        assert extract(body + rest, "volume", PROMPT) == PROMPT + body + "\n"
    assert continued("p", "no stop") == "pno stop\n"


def test_a_whole_program_keeps_all_of_it_and_gets_what_the_prompt_has_before_it() -> None:
    assert extract(WHOLE, "volume") == WHOLE
    assert extract(WHOLE, "volume", PROMPT) == f"{BEFORE}\n{WHOLE}"
    assert extract(f"```\n{WHOLE}```", "volume", PROMPT) == f"{BEFORE}\n{WHOLE}"
    future = "from __future__ import annotations\n" + WHOLE
    assert extract(future, "volume", PROMPT) == future


def test_only_what_is_after_the_thought_counts() -> None:
    assert (
        extract("<think>\n```python\ndef f(): return 0\n```\n</think>\n```python\ndef f(): return 1\n```", "f")
        == "def f(): return 1\n"
    )
    assert extract("<think>\n```python\ndef f(): return 0\n```\n</think>", "f") == ""


def test_special_tokens_end_the_text() -> None:
    assert extract("def f(): return 1\n<|endoftext|>def f(): return 2", "f") == "def f(): return 1\n"
    assert extract("    return 1<|im_end|>\nmore", "f", "def f():\n") == "def f():\n    return 1\n"


@pytest.mark.parametrize("text", ["", " \n\t", "<think></think>", "<|endoftext|>def f(): pass"])
def test_nothing_holds_no_program(text: str) -> None:
    assert extract(text, "f", "def f():\n") == extract(text) == ""


def test_definitions_stand_at_the_margin() -> None:
    assert defines("async def f(): pass", "f") and defines("f = lambda: 1", "f") and defines("class f: pass", "f")
    assert not defines("    def f(): pass", "f") and not defines("def ff(): pass", "f") and not defines("f == 1", "f")
    assert preamble("no definition", "f") == ""

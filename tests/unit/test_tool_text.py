"""Fences in a model's text: programs, outputs, and what an interpreter may put between them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifiers.sandbox.program import extract
from verifiers.tool_text import fed_spans, harmless, next_block, output_block, shortened

PROGRAM = "Let us see.\n```python\nprint(6 * 7)\n```"


def test_a_block_closes_at_its_last_backtick_and_not_before() -> None:
    for end in range(len(PROGRAM)):
        assert next_block(PROGRAM[:end]) is None
    block = next_block(PROGRAM)
    assert block is not None and (block.program, block.end, block.forged) == ("print(6 * 7)\n", len(PROGRAM), False)


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```py\nx\n```", "x\n"),
        ("```Python\nx\n```\nmore", "x\n"),
        ("``` python\nx\n```", "x\n"),
        ("````python\n```\nx\n````", "```\nx\n"),  # a shorter fence does not close a longer one
        ("  ```python\n    x\n   y\n  ```", "  x\n y\n"),  # without the fence's own indentation
        ("```\nx\n```", None),  # in no language: an example, nothing to run
        ("```cpp\nx\n```\n```python\ny\n```", "y\n"),
        ("```python\ny = '```'\n", None),  # inside a line it is no fence
        ("```python\nx\n``` and so on", None),
        ("`python\nx\n`", None),
        ("", None),
    ],
)
def test_which_blocks_are_programs(text: str, program: str | None) -> None:
    block = next_block(text)
    assert (block.program if block is not None else None) == program


@pytest.mark.parametrize(
    "text",
    ["```output\n42\n```", "so\n  ```output", "```python\nx\n```output\n1\n```", "```Output\n1", "````output"],
)
def test_a_fence_of_output_is_forged_wherever_a_model_writes_it(text: str) -> None:
    block = next_block(text)
    assert block is not None and block.forged


def test_only_an_output_right_after_a_program_was_fed() -> None:
    fed = output_block("42")
    assert fed == "\n```output\n42\n```\n"
    text = PROGRAM + fed + "It is 42.\n```python\nprint(1)\n```\nno output\n```output\nmade up\n```\n"
    assert [text[first:last] for first, last in fed_spans(text)] == [fed]
    twice = PROGRAM + fed + PROGRAM + output_block("NameError: x") + "\\boxed{42}"
    assert [twice[first:last] for first, last in fed_spans(twice)] == [fed, output_block("NameError: x")]
    assert fed_spans(PROGRAM + "\n```output\n42") == [(len(PROGRAM), len(PROGRAM) + len("\n```output\n42"))]
    assert fed_spans(PROGRAM) == []
    # A token of a backtick and two line ends closed the block: what was fed begins on the line after an empty one.
    apart = PROGRAM + "\n\n" + fed.removeprefix("\n")
    assert [apart[first:last] for first, last in fed_spans(apart + "It is 42.")] == ["\n" + fed]
    crlf = (PROGRAM + fed).replace("\n", "\r\n")
    assert [crlf[first:last] for first, last in fed_spans(crlf + "It is 42.")] == [fed.replace("\n", "\r\n")]


@pytest.mark.parametrize("output", ["<\0|im_end|>", "`\0``", "\u1fef" * 3, "\0<|im_start|>\0```"])
def test_what_becomes_harmful_only_when_it_is_cleaned_or_tokenised_is_harmless_too(output: str) -> None:
    found = unicodedata.normalize("NFC", harmless(output))
    assert "<|" not in found and "```" not in found and "\0" not in found


@given(st.text(alphabet=st.sampled_from("`\u1fef\n output<|>im_endx\0"), max_size=60), st.integers(16, 40))
def test_no_output_ends_its_own_block(output: str, most: int) -> None:
    content = shortened(harmless(output), most)
    text = PROGRAM + output_block(content) + "rest"
    assert len(content) <= most
    assert [text[first:last] for first, last in fed_spans(text)] == [output_block(content)]
    assert "<|" not in content and "```" not in content


@pytest.mark.parametrize("filling", ["a", " ", "a ", "\t"])
def test_a_long_line_that_is_nearly_a_fence_is_read_at_once(filling: str) -> None:
    # By the square of its length this would take an hour.
    assert next_block(PROGRAM.replace("Let us see.", "```" + filling * 500_000 + "`")) is not None
    assert extract("```" + filling * 500_000 + "`\n```python\nx = 1\n```") == "x = 1\n"


@given(st.text(alphabet=st.sampled_from("`~\n pythonutx"), max_size=80))
def test_any_text_can_be_read(text: str) -> None:
    block = next_block(text)
    spans = fed_spans(text)
    assert block is None or 0 < block.end <= len(text)
    assert all(first < last <= len(text) for first, last in spans)

"""Broken and huge completions: each must end in a verdict, and within the time that the pool allows.

Not one of them is a fault of the verifier's owner: a model can write them all. So none may end without a verdict, which
would mask it from the loss, and none may cost the deadline, twice, and a worker each time.
"""

from __future__ import annotations

from collections.abc import Iterator

from verifiers.cases import Case

MEGABYTE = 1_000_000
LONG = 100_000

MALFORMED = {
    "half of a surrogate pair": "\ud800",
    "surrogates in a box": "\\boxed{\udfff\ud83d}",
    "control characters": "".join(map(chr, [*range(1, 32), *range(127, 160)])),
    "NUL between digits": "\\boxed{4\x002}",
    "NUL in a program": "```python\nprint(1)\x00\n```",
    "what were bytes, read as Latin-1": bytes(range(256)).decode("latin-1"),
    "the text of bytes": repr(bytes(range(64))),
    "a replacement character": "\ufffd" * 50,
    "a non-character": "\uffff\U0010ffff",
    "combining marks": "a" + "\u0301" * 2_000,
    "right-to-left overrides": "\u202e" * 500,
    "carriage returns alone": "\\boxed{1}\r\r\r",
    "line separators": "\u2028answer: 1\u2029\x85\x0b\x0c",
    "a box that closes twice": "\\boxed{1}}}}",
    "brackets the wrong way round": "}{)(][",
    "commands without arguments": "\\boxed{\\frac\\sqrt\\left\\right\\text}",
    "a division by zero": "\\boxed{1/0}",
    "a call of a system": "\\boxed{__import__('os').system('false')}",
    "JSON cut short": '{"answer": [1, 2',
    "JSON with NaN": '{"answer": NaN}',
    "JSON with an exponent of nine digits": '{"answer": 1e999999999}',
    "a program with a syntax error": "```python\ndef f(:\n```",
    "a fence that never ends": "```python\ndef f():\n    return 1\n",
    "tags in a knot": "</think><think></think></think><think>",
}


def huge(case: Case) -> Iterator[tuple[str, str]]:
    """Huge completions, each with a name; some hold a gold completion before or behind much else."""
    deep = 50_000
    yield "1 MB of words", "word " * (MEGABYTE // 5)
    yield "10 MB of words", "word " * (2 * MEGABYTE)
    yield "1 MB without a space", "a" * MEGABYTE
    yield "1 MB of empty lines", "\n" * MEGABYTE
    yield "1 MB of spaces", " " * MEGABYTE
    yield "a gold completion behind 1 MB", f"{'word ' * (MEGABYTE // 5)}\n\n{case.completion}"
    yield "a gold completion before 1 MB", f"{case.completion}\n\n{'word ' * (MEGABYTE // 5)}"
    yield "a gold completion 10,000 times", f"{case.completion[:200]}\n" * 10_000
    yield "100,000 round brackets", "(" * LONG
    yield "100,000 nested round brackets in a box", f"\\boxed{{{'(' * LONG}1{')' * LONG}}}"
    yield "100,000 square brackets", "[" * LONG
    yield "100,000 nested square brackets", "[" * LONG + "]" * LONG
    yield "100,000 braces", "{" * LONG
    yield "50,000 nested objects", '{"a":' * deep + "1" + "}" * deep
    yield "100,000 boxes that do not close", "\\boxed{" * LONG
    yield "100,000 boxes", "\\boxed{1}" * LONG
    yield "50,000 nested fractions", "\\boxed{" + "\\frac{1}{" * deep + "1" + "}" * deep + "}"
    for name, blank in (("spaces", " "), ("empty lines", "\n")):
        twice = f"{case.completion}{blank * MEGABYTE}{case.completion}"
        yield f"a gold completion twice, 1 MB of {name} between", twice
        yield f"two boxes, 4,000 {name} between", f"\\boxed{{1}}{blank * 4_000}\\boxed{{1}}"
    yield "a million digits", "9" * MEGABYTE
    yield "a million digits in a box", f"\\boxed{{{'9' * MEGABYTE}}}"
    yield "a million digits in JSON", f'{{"answer": {"9" * MEGABYTE}}}'
    yield "a sum of 100,000 terms", f"\\boxed{{{'1+' * LONG}1}}"
    yield "a list of 100,000 numbers", f"\\boxed{{{','.join('1234567890') * 10_000}}}"
    yield "100,000 equals signs", f"\\boxed{{{'1=' * LONG}1}}"
    yield "100,000 announced answers", "The answer is 1. " * LONG
    yield "100,000 opened thoughts", "<think>" * LONG
    yield "100,000 closed thoughts", "</think>" * LONG
    yield "100,000 functions", "def f():\n" * LONG
    yield "100,000 back-ticks", "`" * LONG
    yield "100,000 quotes", '"' * LONG
    yield "100,000 backslashes", "\\" * LONG
    yield "100,000 commas and pipes", ",|" * LONG

"""Reference solutions of code benchmarks are found in a corpus whatever their names, docstrings and layout are."""

from __future__ import annotations

import ast
import builtins
import random
from pathlib import Path
from typing import Any

import pytest

from configs.settings.common import TaskSource
from corpora.contamination.programs import MIN_NODES, ProgramIndex, fingerprint, functions, programs_of
from corpora.decontaminate import Benchmark, Decontaminator, load_benchmarks
from corpora.document import Document
from corpora.dropped import DropLog

SOLUTION = '''from typing import List


def longest_run(items: List[int], limit: int = 3) -> int:
    """Length of the longest run of items that are at most the limit."""
    best = run = 0
    for item in items:
        run = run + 1 if item <= limit else 0
        best = max(best, run)
    return best
'''
RENAMED = '''
def solve(a, k=3):
    # another comment
    top = now = 0
    for x in a:
        now = (now + 1
               if x <= k else 0)
        top = max(top, now)
    return top
'''
INDEX = ProgramIndex([("bench", SOLUTION)])
FILLER = "import os\n\n\nclass Store:\n    def put(self, key, value):\n        self.held[key] = value\n\n\n"


def file(text: str, path: str = "made.py") -> Document:
    return Document("1", "s", "mit", path, text=text)


@pytest.mark.parametrize("text", [
    SOLUTION,
    RENAMED,
    FILLER + RENAMED + FILLER,
    "\ufeff" + RENAMED.replace("\n", "\r\n"),
    "class Tools:\n    @staticmethod\n" + "".join(f"    {line}\n" for line in RENAMED.splitlines()),
    "def outer():\n" + "".join(f"    {line}\n" for line in RENAMED.splitlines()) + "    return solve\n",
    RENAMED.replace("def solve(a, k=3):", "def solve(a: list, *rest, k=3):").replace("*rest, ", "") ,
])  # fmt: skip
def test_a_solution_is_found_under_other_names_and_in_other_places(text: str) -> None:
    assert INDEX.find(file(text)) == ("bench", "longest_run")


@pytest.mark.parametrize("text", [
    RENAMED.replace("x <= k", "x < k"),
    RENAMED.replace("k=3", "k=4"),
    RENAMED.replace("max(", "min("),  # what the function does not bind counts by its name
    RENAMED.replace("return top", "return now"),
    RENAMED + "    )",  # does not parse
    FILLER,
])  # fmt: skip
def test_another_function_is_not_taken_for_it(text: str) -> None:
    assert INDEX.find(file(text)) is None


def test_small_functions_and_other_languages_are_left_out() -> None:
    small = ProgramIndex([("bench", "def f(a, b):\n    return sorted(set(a) & set(b))\n")])
    assert len(small.too_small) == 1 and small.find(file("def f(a, b):\n    return sorted(set(a) & set(b))\n")) is None
    assert INDEX.find(file(RENAMED, "notes.c")) is None
    assert fingerprint(functions("def f(a): return a + b")[0]) != fingerprint(functions("def f(a): return b + a")[0])


def test_examples_conversations_and_pages_are_looked_at_by_their_blocks() -> None:
    answer = f"Like this:\n```python\n{RENAMED}\n```\nIt takes linear time."
    asked = {"role": "user", "content": "How?"}
    row: dict[str, Any] = {"id": "1", "source": "s", "licence": "mit", "path": "rows.jsonl"}
    found = [Document(prompt="How?", completion=answer, **row), Document(prompt="How?", completion=RENAMED, **row),
             Document(messages=(asked, {"role": "assistant", "content": answer}), **row), file(answer, "page.md"),
             Document(text=RENAMED, **row), Document(text=RENAMED, language="python3", **row)]
    assert [INDEX.find(document) for document in found] == [("bench", "longest_run")] * 6
    assert list(programs_of(file("No code, though def is a word. def")))[:1] != [RENAMED]


def test_the_step_drops_a_solution_by_the_benchmarks_name() -> None:
    benchmark = Benchmark("bench", "test", ("Find the longest run of small items.",), False, (SOLUTION,))
    dropped = DropLog()
    dropped.source = "s"
    kept = Decontaminator([benchmark], 13, 0.6).remove([file(FILLER), file(FILLER + RENAMED)], dropped)
    assert [one.text for one in kept] == [FILLER]
    assert dropped.by_reason() == {"contaminated:bench": 1}


class Rename(ast.NodeTransformer):
    """Gives every name that a function binds another one."""

    def __init__(self, own: set[str]) -> None:
        self.new = {name: f"v_{i}" for i, name in enumerate(sorted(own))}

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self.new.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self.new.get(node.arg, node.arg)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        return node


def renamed(text: str) -> str:
    """The program with other variables, reprinted, so that comments and layout are gone."""
    tree = ast.parse(text)
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return ast.unparse(Rename(bound - set(dir(builtins))).visit(tree))


@pytest.mark.parametrize("large", [" + ".join(["items"] * 1500), "items" + ".a" * 1500, "0x" + "f" * 4000])
def test_a_function_of_the_same_shape_that_is_too_deep_to_be_compared_is_another_one(large: str) -> None:
    reference = "def f(x):\n    return [a * a + b for a, b in zip(x, x[1:]) if a > b and a % 2]\n"
    index = ProgramIndex([("bench", reference)])
    assert index.num_programs == 1
    assert index.find(file(f"def f(items):\n    return {large}\n")) is None


@pytest.mark.parametrize("name", ["humaneval", "mbpp", "mbpp_sanitized"])
def test_every_question_and_solution_of_a_code_benchmark_is_found_in_a_file(
    data_mirror: Path, name: str
) -> None:
    [benchmark] = load_benchmarks([TaskSource(name=name, split="test")])
    decontaminator = Decontaminator([benchmark], 13, 0.6)
    index = ProgramIndex((name, text) for text in benchmark.programs)
    assert len(benchmark.programs) == len(benchmark.questions) > 150
    draw = random.Random(0)
    large = {text for text in benchmark.programs if ProgramIndex([(name, text)]).num_programs}
    assert len(large) > 0.5 * len(benchmark.programs), f"at {MIN_NODES} nodes"
    for text in draw.sample(sorted(large), 80):
        whole = file(FILLER + renamed(text) + "\n\n" + FILLER)
        assert index.find(whole) is not None, text
    asked = [file(f'{FILLER}def f():\n    """\n    {question}\n    """\n') if name != "humaneval" else
             file(FILLER + question + "    pass\n" + FILLER) for question in benchmark.questions]
    assert decontaminator.remove(asked, DropLog()) == []
    assert len(decontaminator.remove([file(FILLER)], DropLog())) == 1

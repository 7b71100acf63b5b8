"""Worked solutions with programs: each runs in the sandbox and prints what the solution says that it prints."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from configs.errors import UserError
from configs.load import load_recipe
from configs.settings.common import TaskSource
from configs.settings.corpus import CorpusSource
from corpora.dropped import DropLog
from corpora.sources import open_source
from verifiers.api import Outcome, Task
from verifiers.interpreter import Interpreters, Output
from verifiers.registry import load_verifier
from verifiers.tasks import load_tasks, worked_solution
from verifiers.tasks.worked_programs import PROGRAM_SOLVERS
from verifiers.tool_text import fed_spans, next_block, output_block


@pytest.fixture(scope="module")
def interpreters() -> Iterator[Interpreters]:
    with Interpreters(2) as found:
        yield found


@pytest.mark.parametrize("family", PROGRAM_SOLVERS)
def test_every_program_prints_its_output_and_the_answer_is_right(family: str, interpreters: Interpreters) -> None:
    tasks = load_tasks(TaskSource(name=f"reasoning_gym/{family}", count=40, seed=3))
    solved = [(task, text) for task in tasks if (text := worked_solution(task, "tools")) is not None]
    assert len(solved) >= 20
    puzzles = load_verifier("puzzles")
    for task, text in solved:
        block = next_block(text)
        assert block is not None and not block.forged
        assert interpreters.submit(block.program).result() == Output(task.answer)
        assert [text[first:last] for first, last in fed_spans(text)] == [output_block(task.answer)]
        assert text.endswith(f"\n\\boxed{{{task.answer}}}")
        assert puzzles.judge(task, text).outcome is Outcome.CORRECT


def test_a_program_that_would_print_something_else_is_no_solution() -> None:
    wrong = Task("x", "5 * 7 =", "36", metadata={"family": "products", "expression": "5 * 7"})
    assert worked_solution(wrong, "tools") is None
    divided = Task("x", "", "3", metadata={"family": "basic_arithmetic", "expression": "6 / 2"})  # Python prints 3.0
    assert worked_solution(divided, "tools") is None
    zero = Task("x", "", "1.50", metadata={"family": "decimal_chain_sum", "expression": "1.25 + 0.25"})
    assert worked_solution(zero, "tools") is None


def test_a_source_of_that_style_gives_examples_and_says_where_it_has_none() -> None:
    source = CorpusSource(name="reasoning_gym/gcd", count=5, style="tools")
    documents = list(open_source(source, "examples", DropLog()))
    assert len(documents) == 5 and all("math.gcd(" in document.completion for document in documents)
    dropped = DropLog()
    none = CorpusSource(name="reasoning_gym/simple_equations", count=5, style="tools")
    assert list(open_source(none, "examples", dropped)) == []
    assert dropped.by_reason() == {"no_worked_solution": 5}
    with pytest.raises(UserError, match="style: 'tools' was given to 'gsm8k'; allowed: plain"):
        load_recipe("math/tiny-tools", ["examples.sources[0].name=gsm8k", "examples.sources[0].params={}"])

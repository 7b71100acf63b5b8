"""Fill-in-the-middle tasks: gaps that put the file together again, lines of code, and users' rows."""

from __future__ import annotations

import json
import sysconfig
import tokenize
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.names import FIM_SPANS
from configs.settings.common import TaskSource
from corpora.decontaminate import load_benchmarks
from corpora.sources import python_stdlib
from verifiers.api import Task
from verifiers.fim import FimVerifier, filled
from verifiers.tasks import fim, load_tasks
from verifiers.tasks.library import in_split


def draw(name: str = "python_stdlib", count: int = 60, **fields: object) -> list[Task]:
    return load_tasks(TaskSource(name=f"fim/{name}", split="heldout", count=count, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FIM_SPANS)
def test_a_gap_is_a_part_of_a_held_out_file_and_filled_by_what_stood_there(name: str) -> None:
    assert python_stdlib.in_split is in_split  # the corpus leaves out by the same rule
    tasks = draw(name)
    assert len({task.id for task in tasks}) == 60 and tasks == draw(name)
    for task in tasks:
        path = str(task.metadata["path"])
        assert in_split(path, "heldout") and not in_split(path, "train")
        with tokenize.open(Path(sysconfig.get_path("stdlib")) / path) as file:
            assert str(task.metadata["prefix"]) + task.answer + str(task.metadata["suffix"]) in file.read()
        assert FimVerifier().judge(task, task.answer).score == 1.0
        assert FimVerifier().judge(task, task.answer.replace(task.answer.strip()[0], "\u00a4")).score == 0.0


def test_gaps_are_of_the_length_that_their_set_says() -> None:
    assert all("\n" not in task.answer and len(task.answer) >= fim.MIN_CHARACTERS for task in draw())
    lines = [task.answer.count("\n") + 1 for task in draw("python_stdlib_lines")]
    assert min(lines) == 2 and max(lines) <= fim.MAX_LINES and len(set(lines)) > 3
    spans = [task.answer for task in draw("python_stdlib_span")]
    assert sum(span.strip()[0].isalnum() and span[0] != "\n" for span in spans) > 10  # within lines too
    assert {task.metadata["cut"] for task in draw()} == {"line"}
    assert {task.metadata["cut"] for task in draw("python_stdlib_span")} == {"span"}


def test_lines_of_comments_docstrings_and_long_texts_are_no_lines_of_code() -> None:
    text = '"""A module,\nin words."""\n\n# a comment here\nvalue = call(1)\nlong = """\nvalue = 2\n"""\nx = 1\n'
    assert fim._code_lines(text) == {4}


def test_a_context_is_cut_at_whole_lines() -> None:
    for task in draw(count=40, params={"max_prefix": 300, "max_suffix": 100}):
        prefix, suffix = str(task.metadata["prefix"]), str(task.metadata["suffix"])
        assert len(prefix) <= 300 and len(suffix) <= 100
        assert prefix == "" or prefix.endswith("\n")
        assert suffix == "" or suffix.endswith("\n") or suffix.startswith("\n")


def test_what_a_completion_puts_into_the_gap() -> None:
    assert filled("  a = 1\nb = 2", "line") == "a = 1" and filled("  a = 1\nb = 2\n", "span") == "a = 1\nb = 2"
    assert filled(" \nb = 2\nc", "line") == "b = 2" and filled("\n\nb = 2 ", "line") == "b = 2"
    assert filled("a<|fim_pad|>b", "span") == "a"
    broken = Task("t", "", "x", "fim", {"cut": "word"})
    assert FimVerifier().judge(broken, "x").reason.startswith("gold_unreadable: cut")


def test_rows_of_a_file_may_be_gaps(tmp_path: Path) -> None:
    path = tmp_path / "gaps.jsonl"
    rows = [
        {"prefix": "def f(n):\n", "middle": "    return n", "suffix": "\n"},
        {"prefix": "a = [", "middle": "1,\n     2", "suffix": "]", "id": "two"},
        {"prefix": "a", "middle": "b", "cut": "span"},
        {"prompt": "1 + 1?", "answer": 2},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = load_tasks(TaskSource(name=str(path), split="all"))
    assert [task.verifier for task in tasks] == ["fim", "fim", "fim", "math"]
    assert [task.metadata.get("cut") for task in tasks] == ["line", "span", "span", None]
    assert tasks[0].prompt == "<|fim_prefix|>def f(n):\n<|fim_suffix|>\n<|fim_middle|>" and tasks[1].id == "two"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prefix": "a", "middle": " \n"}, r"gaps.jsonl:1: middle: ' \\n'; allowed: a text that is not blank"),
        ({"prefix": 3, "middle": "x"}, r"gaps.jsonl:1: prefix: 3; allowed: a text"),
        ({"prefix": "<|fim_middle|>", "middle": "x"}, r"prefix: holds <\|fim_middle\|>, which would be read"),
        ({"prefix": "a", "middle": "x", "cut": "word"}, r"cut: 'word'; allowed: line, span"),
    ],
)
def test_a_row_that_is_no_gap_says_why(tmp_path: Path, row: dict[str, object], message: str) -> None:
    path = tmp_path / "gaps.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=message):
        load_tasks(TaskSource(name=str(path), split="all"))


def test_draws_that_cannot_be_made_say_what_to_do() -> None:
    with pytest.raises(UserError, match=r"'fim/python_stdlb' is no task set; did you mean 'fim/python_stdlib'"):
        load_tasks(TaskSource(name="fim/python_stdlb", split="heldout", count=3))
    with pytest.raises(UserError, match="count: empty for fim/python_stdlib"):
        load_tasks(TaskSource(name="fim/python_stdlib", split="heldout"))
    with pytest.raises(UserError, match=r"params.max_prefix: -1 .*allowed: 0 to"):
        draw(params={"max_prefix": -1})
    with pytest.raises(UserError, match=r"params\.middle: 'middle' is no setting"):
        draw(params={"middle": 1})


def test_corpora_are_not_searched_for_gaps_since_their_files_are_held_out() -> None:
    benchmarks = load_benchmarks([TaskSource(name="fim/python_stdlib", split="heldout", count=3)])
    assert benchmarks == []

"""Files of cases: read with the line of what is wrong, found beside their verifier, appended to without doubles."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from verifiers.api import Outcome, Task
from verifiers.cases import Case, append_case, cases_path, read_cases

GOOD = {"completion": "\\boxed{248}", "answer": "3", "expect": "correct"}


def write(path: Path, lines: list[Any]) -> Path:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(texts) + b"\n")
    return path


def test_a_case_is_a_task_a_completion_and_what_is_expected(tmp_path: Path) -> None:
    full = {**GOOD, "expect": "incorrect", "prompt": "Three digits?", "metadata": {"even": [1]}, "why": "none"}
    found = read_cases(write(tmp_path / "cases.jsonl", [GOOD, b"", {"completion": "", "expect": "incorrect"}, full]))
    assert [case.task.id for case in found] == ["cases.jsonl:1", "cases.jsonl:3", "cases.jsonl:4"]
    assert found[0] == Case(Task("cases.jsonl:1", "", "3"), "\\boxed{248}", Outcome.CORRECT, "")
    assert found[1].completion == "" and found[1].task.answer == ""
    assert found[2].task == Task("cases.jsonl:4", "Three digits?", "3", metadata={"even": [1]})
    assert found[2].expect is Outcome.INCORRECT and found[2].why == "none"
    assert found[2].as_dict() == full


@pytest.mark.parametrize(("line", "message"), [
    (b'{"completion": "5", "ans', r"cases.jsonl:2: not JSON at column 21; allowed: one whole JSON object a line"),
    (b'{"completion": "5", "expect": "correct", "metadata": {"x": NaN}}', r":2: not JSON \(NaN is no JSON\)"),
    (b'{"completion": "\xff"}', r"cases.jsonl:2: byte 17 of the line is not UTF-8"),
    (b"[" * 100_000, r"cases.jsonl:2: n(ested too deeply|ot JSON)"),
    ([GOOD], "cases.jsonl:2: holds a list; allowed: one JSON object a line"),
    ({**GOOD, "gold": "5"}, "cases.jsonl:2: 'gold' is no key of a case; allowed: completion, answer, expect"),
    ({"answer": "3", "expect": "correct"}, "cases.jsonl:2: completion: missing; allowed: a text"),
    ({"completion": "3"}, "cases.jsonl:2: expect: missing; allowed: a text"),
    ({**GOOD, "completion": 248}, "cases.jsonl:2: completion: 248; allowed: a text"),
    ({**GOOD, "answer": 3}, "cases.jsonl:2: answer: 3; allowed: a text"),
    ({**GOOD, "metadata": [3]}, r"cases.jsonl:2: metadata: \[3\]; allowed: an object"),
    ({**GOOD, "expect": "right"}, "cases.jsonl:2: expect: 'right'; allowed: correct, incorrect"),
    ({**GOOD, "expect": "no_verdict"}, "cases.jsonl:2: expect: 'no_verdict'; allowed: correct, incorrect"),
    ({**GOOD, "expect": "incorrect"}, "cases.jsonl:2: the same completion and task as in line 1"),
])  # fmt: skip
def test_a_line_that_is_no_case_is_told_with_file_and_line(tmp_path: Path, line: Any, message: str) -> None:
    path = write(tmp_path / "cases.jsonl", [GOOD, line])
    with pytest.raises(UserError, match=message):
        read_cases(path)


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere.jsonl: No such file or directory; give a JSONL file of cases"):
        read_cases(tmp_path / "nowhere.jsonl")


def test_a_case_is_appended_once_and_never_against_another(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    task = Task("run-7:12", "Three digits?", "3", metadata={"a": 1})
    assert append_case(path, Case(task, "\\boxed{247}\n", Outcome.INCORRECT, "odd \u00e9"))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # as an editor may leave it
    assert append_case(path, Case(task, "half \ud800", Outcome.INCORRECT))
    assert not append_case(path, Case(task, "\\boxed{247}\n", Outcome.INCORRECT, "told twice"))
    found = read_cases(path)
    assert [(case.completion, case.why) for case in found] == [("\\boxed{247}\n", "odd \u00e9"), ("half \ud800", "")]
    assert found[0].task == Task("cases.jsonl:1", "Three digits?", "3", metadata={"a": 1})
    before = path.read_bytes()
    with pytest.raises(UserError, match="cases.jsonl:1 expects incorrect of the same completion and task, not correct"):
        append_case(path, Case(task, "\\boxed{247}\n", Outcome.CORRECT))
    with pytest.raises(UserError, match="expect: 'no_verdict'"):
        append_case(path, Case(task, "other", Outcome.NO_VERDICT))
    with pytest.raises(UserError, match="NaN is no JSON"):
        append_case(path, Case(Task("1", "", "", metadata={"a": float("nan")}), "other", Outcome.CORRECT))
    assert path.read_bytes() == before


def test_the_cases_of_a_built_in_verifier_lie_beside_it_and_a_stranger_has_none() -> None:
    path = cases_path("math")
    assert path is not None and path.parts[-3:] == ("verifiers", "cases", "math.jsonl")
    with pytest.raises(UserError, match="'maths' is not known"):
        cases_path("maths")

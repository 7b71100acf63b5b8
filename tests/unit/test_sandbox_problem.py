"""Tests in a task's metadata: read, checked, and compared with what came."""

from __future__ import annotations

import types
from typing import Any

import pytest

from verifiers.api import Task
from verifiers.code import _problem
from verifiers.sandbox.compare import same_output, same_result
from verifiers.sandbox.inside import codec
from verifiers.sandbox.problem import GoldError, called_names, read

CALLS: dict[str, Any] = {"kind": "calls", "entry_point": "f", "calls": [{"args": [1], "expected": 2}]}
STDIO: dict[str, Any] = {"kind": "stdio", "cases": [{"stdin": "1\n", "stdout": "2\n"}]}
SCRIPT: dict[str, Any] = {"kind": "script", "entry_point": "f", "test": "assert f(1) == 2"}


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({}, "kind"),
        ({"kind": "guess"}, "kind"),
        ({**CALLS, "entry_point": "1f"}, "entry_point"),
        ({**CALLS, "entry_point": ["f", "g"]}, "entry_point"),
        ({**CALLS, "calls": []}, "calls"),
        ({**CALLS, "calls": [1]}, "calls[0]"),
        ({**CALLS, "calls": [{"args": [1]}]}, "calls[0]"),
        ({**CALLS, "calls": [{"args": 1, "expected": 2}]}, "calls[0]"),
        ({**CALLS, "cases": []}, "cases"),
        ({**CALLS, "calls": [{"args": [1], "expected": 2, "raises": "ValueError"}]}, "calls[0]"),
        ({**CALLS, "calls": [{"args": [1], "raises": "Odd"}]}, "calls[0].raises"),
        ({**CALLS, "calls": [{"args": [1], "expcted": 2, "expected": 2}]}, "calls[0].expcted"),
        ({**CALLS, "calls": [{"args": [{"$tuple": 1}], "expected": 2}]}, "$tuple"),
        ({**CALLS, "calls": [{"args": [{"$range": 1}], "expected": 2}]}, "$range"),
        ({**CALLS, "calls": [{"expected": {"$set": [[1]]}}]}, "$set"),
        ({**CALLS, "types": "loose"}, "types"),
        ({**CALLS, "tolerance": -1}, "tolerance"),
        ({**CALLS, "time_s": 0}, "time_s"),
        ({**CALLS, "time_s": True}, "time_s"),
        ({**CALLS, "memory_mb": "1"}, "memory_mb"),
        ({**CALLS, "reward": "some"}, "reward"),
        ({**CALLS, "prompt": 1}, "prompt"),
        ({**STDIO, "cases": [{"stdin": "1"}]}, "cases[0].stdout"),
        ({**STDIO, "output": "words"}, "output"),
        ({**SCRIPT, "test": ""}, "test"),
        ({**SCRIPT, "test": [1]}, "test"),
        ({**SCRIPT, "entry_point": []}, "entry_point"),
        ({**SCRIPT, "isolation": "none"}, "isolation"),
    ],
)
def test_what_is_amiss_is_named(metadata: dict[str, Any], field: str) -> None:
    with pytest.raises(GoldError, match="^" + field.replace("[", r"\[").replace("$", r"\$")):
        read(metadata)


def test_a_deep_or_large_gold_is_the_tasks_fault() -> None:
    deep: Any = 0
    for _ in range(100):
        deep = [deep]
    with pytest.raises(GoldError, match="calls\\[0\\]: TooLarge"):
        read({**CALLS, "calls": [{"args": [], "expected": deep}]})


def same(expected: object, found: object, types: str = "exact", tolerance: float = 0.0) -> bool:
    return same_result(*(codec.canonical(codec.encode(value), types) for value in (expected, found)), types, tolerance)


def test_a_tolerance_is_for_floats_alone() -> None:
    assert same(1.0, 1.0 + 1e-9, tolerance=1e-6) and not same(1.0, 1.001, tolerance=1e-6)
    assert same(1e9, 1e9 + 100, tolerance=1e-6) and same([{"a": (1.0,)}], [{"a": (1.0000001,)}], tolerance=1e-6)
    assert not same(1.0, 1, tolerance=0.1) and same(1.5, 2, "python", tolerance=0.5) and not same(1, 2, tolerance=1.0)
    assert same(float("nan"), float("nan"), tolerance=0.1) and not same(float("nan"), 1.0, tolerance=1.0)
    assert same(float("inf"), float("inf"), tolerance=0.1) and not same(float("inf"), 1e308, tolerance=1.0)
    assert not same([1.0], [1.0, 1.0], tolerance=0.1) and not same({"a": 1.0}, {"b": 1.0}, tolerance=0.1)
    assert same(1 + 1j, 1.0000001 + 1j, tolerance=1e-6) and not same(10**400, 1.5, "python", tolerance=0.1)


def test_outputs_are_compared_as_the_task_says() -> None:
    assert same_output(b"1 2\n3\n", b"1 2  \r\n3\n\n", "lines") and not same_output(b"1 2\n", b"1  2\n", "lines")
    assert not same_output(b"1\n", b"1", "exact") and not same_output(b"1\n2", b"1\n\n2", "lines")
    assert same_output(b"0.5 a\n", b"0.50000001\na", "numbers") and not same_output(b"1 2", b"1", "numbers")
    assert not same_output(b"1", b"nan", "numbers") and not same_output(b"1", b"1.1", "numbers")


def test_the_names_that_a_script_calls_are_found() -> None:
    assert called_names(["import math\nassert math.isclose(area(2), 12.5)", "assert set(area(1)) == g(1)"]) == [
        "area",
        "g",
    ]
    assert called_names(["def helper(): pass\nhelper()\nx = f\nx()\nassert f(len([1]))"]) == ["f"]
    assert called_names(["assert sum(10, 15) == 6"]) == ["sum"]


@pytest.mark.parametrize(("expected", "wrong"), [(1, True), (1, 1.0), (True, 1), (1.0, 1)])
def test_tests_that_are_remembered_are_told_apart_by_type(expected: object, wrong: object) -> None:
    def reads(value: object) -> object:
        metadata = {"kind": "calls", "entry_point": "f", "calls": [{"args": [value], "expected": value}]}
        return _problem(Task("1", "", "", "code", metadata))

    assert reads(expected) is reads(expected)
    assert reads(expected) != reads(wrong)


def test_tests_in_a_mapping_that_is_no_dict_are_read_as_well() -> None:
    metadata = {"kind": "calls", "entry_point": "f", "calls": [{"args": [], "expected": 1}]}
    task = Task("1", "", "", "code", types.MappingProxyType(metadata))
    assert _problem(task) == read(metadata)

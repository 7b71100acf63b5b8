"""Test scripts: third-party code with assertions, run in a sandbox of its own, away from candidate and judge.

Each `assert` statement is numbered, and its passing is marked. A script passes when it comes to its end and every
assertion that must run has run and passed: those that stand under no `if`, `match`, `while` or `except`. An assertion
of a constant counts for nothing. A script that defines `check` has it called with the candidate (HumanEval's form).

`run` puts proxies in the candidate's place: each call crosses to the candidate by way of the judge, as plain data.
`run_shared` is the weaker mode: the script runs in the candidate's own process, where the candidate can forge all.
"""

from __future__ import annotations

import ast
import types
from typing import Any

from .codec import NotPlainError, TooLargeError

PASSED, FAILED = "_assertion_passed_", "_assertion_failed_"
NOT_RUN = "AssertionsNotRun"
"""Stands for an exception's name where a script ended before all that must run had run."""
_BRANCHES = (ast.If, ast.IfExp, ast.Match, ast.While, ast.ExceptHandler)


class Opaque:
    """Stands for a candidate's result that is no plain data, such as a match object: it is true or false, and equal to
    nothing. A candidate gains nothing by it, since it could have returned True or False."""

    def __init__(self, truth: bool) -> None:
        self._truth = truth

    def __bool__(self) -> bool:
        return self._truth


class Assertions(ast.NodeTransformer):
    """Numbers assertions and marks their passing. With `keep_going`, a failed one does not end the script."""

    def __init__(self, keep_going: bool) -> None:
        self.keep_going = keep_going
        self.num, self.depth = 0, 0
        self.required: set[int] = set()

    def visit(self, node: ast.AST) -> Any:
        """Walk, minding branches."""
        self.depth += isinstance(node, _BRANCHES)
        result = super().visit(node)
        self.depth -= isinstance(node, _BRANCHES)
        return result

    def visit_Assert(self, node: ast.Assert) -> Any:
        """An assertion becomes itself and its mark."""
        if isinstance(node.test, ast.Constant):
            return node
        self.num += 1
        if not self.depth:
            self.required.add(self.num)
        body: list[ast.stmt] = [node, _mark(PASSED, self.num)]
        if not self.keep_going:
            return [ast.fix_missing_locations(ast.copy_location(part, node)) for part in body]
        handler = ast.ExceptHandler(type=ast.Name("Exception", ast.Load()), name=None, body=[_mark(FAILED, self.num)])
        whole = ast.Try(body=body, handlers=[handler], orelse=[], finalbody=[])
        return ast.fix_missing_locations(ast.copy_location(whole, node))


def run(job: dict[str, Any], channel: Any) -> int:
    """Run scripts against proxies. `job` has `tests`, `preamble`, `entry_points`, `keep_going`."""
    state = _State(channel)

    def namespace() -> dict[str, Any]:
        names: dict[str, Any] = {"__name__": "test"}
        exec(compile(job["preamble"], "<prompt>", "exec"), names)
        names.update({name: state.proxy(name) for name in job["entry_points"]})
        return names

    return _run(job, namespace, channel, state)


def run_shared(job: dict[str, Any], names: dict[str, Any], channel: Any) -> int:
    """Run scripts among the candidate's own names."""
    return _run(job, lambda: names, channel, _State(channel))


class _State:
    def __init__(self, channel: Any) -> None:
        self.channel, self.num_calls = channel, 0
        self.passed: set[int] = set()
        self.failed: set[int] = set()
        self.uncrossable = ""

    def proxy(self, name: str) -> Any:
        def candidate(*positional: Any, **named: Any) -> Any:
            self.num_calls += 1
            try:
                return self.channel.call(self.num_calls, name, positional, named)
            except (NotPlainError, TooLargeError) as error:
                self.uncrossable = f"{type(error).__name__}: {error}"
                raise TypeError(f"argument cannot cross to the candidate: {error}") from None

        candidate.__name__ = candidate.__qualname__ = name
        return candidate


def _run(job: dict[str, Any], namespace: Any, channel: Any, state: _State) -> int:
    required: set[int] = set()
    raised = ""
    try:
        parsed, offset = [], 0
        for text in job["tests"]:
            tree, assertions = ast.parse(text), Assertions(job["keep_going"])
            assertions.visit(tree)
            needed = {offset + number for number in assertions.required}
            parsed.append((compile(tree, "<test>", "exec"), offset, needed))
            required |= needed
            offset += assertions.num
        for code, offset, needed in parsed:
            names = namespace()
            _install_marks(names, state, offset)
            exec(code, names)
            check = names.get("check")
            if isinstance(check, types.FunctionType) and "check" not in job["entry_points"]:
                check(names[job["entry_points"][0]])
            if needed - state.passed - state.failed:
                raised = NOT_RUN
                break
    except BaseException as error:
        raised = type(error).__name__
    num_passed = len((state.passed - state.failed) & required)
    channel.report(b"D", [len(required), num_passed, raised, state.num_calls, state.uncrossable])
    return 0


def _install_marks(names: dict[str, Any], state: _State, offset: int) -> None:
    names[PASSED] = lambda number: state.passed.add(offset + number)
    names[FAILED] = lambda number: state.failed.add(offset + number)


def _mark(name: str, number: int) -> ast.stmt:
    return ast.Expr(ast.Call(ast.Name(name, ast.Load()), [ast.Constant(number)], []))

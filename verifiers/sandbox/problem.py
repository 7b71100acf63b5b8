"""A code task's tests: what `task.metadata` must hold, read once and checked, and how results are compared.

Every kind may have `time_s` (processor seconds of one program), `memory_mb`, `reward` ("pass", or "fraction": the share
of the tests passed) and `prompt` (the text that a base model goes on from).

    {"kind": "calls", "entry_point": "f", "calls": [{"args": [...], "kwargs": {...}, "expected": ...}, ...],
     "types": "exact" | "python" | "json", "tolerance": 0.0}
    {"kind": "stdio", "cases": [{"stdin": "...", "stdout": "..."}, ...], "output": "lines" | "exact" | "numbers"}
    {"kind": "script", "entry_point": "f" | ["f", "g"], "test": "..." | ["...", ...], "setup": "...",
     "isolation": "apart" | "shared"}

A call has `expected`, or `raises` with the name of a built-in exception. A call or case with `"visible": true` stands
in the prompt: it must pass too, but where a task has hidden ones, the fraction counts those alone.

Values that JSON lacks are written as an object with one key: `{"$tuple": [...]}`, `{"$set": [...]}`,
`{"$frozenset": [...]}`, `{"$dict": [[key, value], ...]}`, `{"$bytes": "hex"}`, `{"$complex": [real, imaginary]}`,
`{"$float": "nan" | "inf" | "-inf"}`.
"""

from __future__ import annotations

import ast
import builtins
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verifiers.sandbox.inside import codec
from verifiers.sandbox.run import BUILT_IN_ERRORS, Limits

LINES, EXACT_OUTPUT, NUMBERS = "lines", "exact", "numbers"
APART, SHARED = "apart", "shared"
PASS, FRACTION = "pass", "fraction"
MAX_TIME_S = 600
MAX_MEMORY_MB = 65_536


class GoldError(Exception):
    """Tests that cannot be read or run, through no fault of a completion. The message names the field."""


@dataclass(frozen=True)
class Call:
    """One call: name and arguments as a message, and what must come of it."""

    message: bytes
    expected: bytes
    raises: str
    is_visible: bool


@dataclass(frozen=True)
class Case:
    """One run of a program: what it reads, and what it must write."""

    stdin: bytes
    stdout: bytes
    is_visible: bool


@dataclass(frozen=True)
class Problem:
    """A task's tests, checked. Which of `calls`, `cases` and `tests` is filled depends on `kind`."""

    kind: str
    entry_points: tuple[str, ...]
    prompt: str
    limits: Limits
    fraction: bool
    calls: tuple[Call, ...] = ()
    types: str = codec.EXACT
    tolerance: float = 0.0
    cases: tuple[Case, ...] = ()
    output: str = LINES
    tests: tuple[str, ...] = ()
    setup: str = ""
    is_shared: bool = False

    @property
    def entry_point(self) -> str:
        """The function that the task asks for; empty for a whole program."""
        return self.entry_points[0] if self.entry_points else ""


def read(metadata: Mapping[str, Any]) -> Problem:
    """The tests in a task's metadata. Raises GoldError with the field that is amiss."""
    kind = _choice(metadata, "kind", ("calls", "stdio", "script"), None)
    known = {"kind", "prompt", "time_s", "memory_mb", "reward"} | {
        "calls": {"entry_point", "calls", "types", "tolerance"},
        "stdio": {"cases", "output"},
        "script": {"entry_point", "test", "setup", "isolation"},
    }[kind]
    common: dict[str, Any] = {
        "kind": kind,
        "prompt": _text(metadata, "prompt", ""),
        "limits": Limits(
            time_s=_number(metadata, "time_s", Limits.time_s, MAX_TIME_S),
            memory_mb=int(_number(metadata, "memory_mb", Limits.memory_mb, MAX_MEMORY_MB)),
        ),
        "fraction": _choice(metadata, "reward", (PASS, FRACTION), PASS) == FRACTION,
        "entry_points": () if kind == "stdio" else _entry_points(metadata, kind == "script"),
    }
    _no_typing_error(metadata, known)
    if kind == "calls":
        types = _choice(metadata, "types", codec.RULES, codec.EXACT)
        name = common["entry_points"][0]
        calls = tuple(_call(item, f"calls[{n}]", name, types) for n, item in enumerate(_items(metadata, "calls")))
        tolerance = _number(metadata, "tolerance", 0.0, 1.0, least=0.0)
        return Problem(**common, calls=calls, types=types, tolerance=tolerance)
    if kind == "stdio":
        cases = tuple(_case(item, f"cases[{number}]") for number, item in enumerate(_items(metadata, "cases")))
        return Problem(**common, cases=cases, output=_choice(metadata, "output", (LINES, EXACT_OUTPUT, NUMBERS), LINES))
    tests = metadata.get("test")
    if isinstance(tests, str):
        tests = [tests]
    are_texts = isinstance(tests, (list, tuple)) and all(isinstance(test, str) and test.strip() for test in tests)
    if not tests or not are_texts:
        raise GoldError("test: missing or empty; allowed: a text, or a list of texts")
    return Problem(
        **common,
        tests=tuple(tests),
        setup=_text(metadata, "setup", ""),
        is_shared=_choice(metadata, "isolation", (APART, SHARED), APART) == SHARED,
    )


def from_json(value: Any) -> Any:
    """The plain value that a JSON value stands for; see the module's head. Raises GoldError."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if len(value) == 1 and (tag := next(iter(value))).startswith("$"):
        return _tagged(tag, value[tag])
    return {key: from_json(item) for key, item in value.items()}


def to_json(value: Any) -> Any:
    """The JSON value for a plain value, for makers of tasks: `from_json` gives it back. Raises ValueError."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if kind is list:
        return [to_json(item) for item in value]
    if kind in (tuple, set, frozenset):
        return {f"${kind.__name__}": [to_json(item) for item in value]}
    if kind is bytes:
        return {"$bytes": value.hex()}
    if kind is complex:
        return {"$complex": [value.real, value.imag]}
    if kind is dict:
        if all(type(key) is str for key in value) and not (len(value) == 1 and next(iter(value)).startswith("$")):
            return {key: to_json(item) for key, item in value.items()}
        return {"$dict": [[to_json(key), to_json(item)] for key, item in value.items()]}
    raise ValueError(f"value: a {kind.__name__} is no plain data; allowed: see verifiers/sandbox/problem.py")


def called_names(tests: Sequence[str]) -> list[str]:
    """Functions that test scripts call and do not themselves bring, in order: the entry points, for makers of tasks.

    A built-in function counts only where nothing else is called (a task may ask for one under a built-in's name).
    """
    called: list[str] = []
    bound: set[str] = set()
    for node in (node for test in tests for node in ast.walk(ast.parse(test))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in called:
            called.append(node.func.id)
    free = [name for name in called if name not in bound]
    return [name for name in free if name not in vars(builtins)] or free


def _tagged(tag: str, content: Any) -> Any:
    try:
        if tag == "$tuple":
            return tuple(from_json(list(content)))
        if tag in ("$set", "$frozenset"):
            return {"$set": set, "$frozenset": frozenset}[tag](from_json(list(content)))
        if tag == "$dict":
            return {from_json(key): from_json(item) for key, item in content}
        if tag == "$bytes":
            return bytes.fromhex(content)
        if tag == "$complex":
            return complex(*content)
        if tag == "$float":
            return float(content)
    except (TypeError, ValueError) as error:
        raise GoldError(f"{tag}: {error}") from error
    raise GoldError(f"{tag}: no such mark; allowed: $tuple, $set, $frozenset, $dict, $bytes, $complex, $float")


def _call(item: Any, field: str, name: str, types: str) -> Call:
    if not isinstance(item, Mapping):
        raise GoldError(f"{field}: not an object")
    _no_typing_error(item, {"args", "kwargs", "expected", "raises", "visible"}, field + ".")
    if ("expected" in item) == ("raises" in item):
        raise GoldError(f"{field}: needs `expected` or `raises`, and not both")
    arguments, keywords = item.get("args", []), item.get("kwargs", {})
    if not isinstance(arguments, (list, tuple)) or not isinstance(keywords, Mapping):
        raise GoldError(f"{field}: `args` is a list and `kwargs` an object")
    raises = item.get("raises", "")
    if raises and raises not in BUILT_IN_ERRORS:
        raise GoldError(f"{field}.raises: {raises!r}; allowed: the name of a built-in exception")
    try:
        keywords = {key: from_json(value) for key, value in keywords.items()}
        message = codec.encode([[from_json(value) for value in arguments], keywords])
        expected = codec.canonical(codec.encode(from_json(item.get("expected"))), types)
    except (codec.NotPlainError, codec.TooLargeError) as error:
        raise GoldError(f"{field}: {type(error).__name__}: {error}") from error
    return Call(name.encode() + b"\0" + message, expected, raises, bool(item.get("visible", False)))


def _case(item: Any, field: str) -> Case:
    if not isinstance(item, Mapping):
        raise GoldError(f"{field}: not an object")
    _no_typing_error(item, {"stdin", "stdout", "visible"}, field + ".")
    stdout = item.get("stdout")
    if not isinstance(stdout, str):
        raise GoldError(f"{field}.stdout: missing; allowed: a text")
    stdin = _text(item, "stdin", "")
    return Case(
        stdin.encode("utf-8", "surrogatepass"),
        stdout.encode("utf-8", "surrogatepass"),
        bool(item.get("visible", False)),
    )


def _entry_points(metadata: Mapping[str, Any], several: bool) -> tuple[str, ...]:
    given = metadata.get("entry_point")
    names = given if several and isinstance(given, (list, tuple)) else [given]
    if not names or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise GoldError(f"entry_point: {given!r}; allowed: the name of a function{', or a list of names' * several}")
    return tuple(names)


def _items(metadata: Mapping[str, Any], field: str) -> list[Any]:
    items = metadata.get(field)
    if not isinstance(items, (list, tuple)) or not items:
        raise GoldError(f"{field}: missing or empty; allowed: a list of objects, one at least")
    return list(items)


def _choice(metadata: Mapping[str, Any], field: str, allowed: tuple[str, ...], default: str | None) -> str:
    value = metadata.get(field, default)
    if value not in allowed:
        raise GoldError(f"{field}: {value!r}; allowed: {', '.join(allowed)}")
    return str(value)


def _text(metadata: Mapping[str, Any], field: str, default: str) -> str:
    value = metadata.get(field, default)
    if not isinstance(value, str):
        raise GoldError(f"{field}: {value!r:.60}; allowed: a text")
    return value


def _number(metadata: Mapping[str, Any], field: str, default: float, most: float, least: float | None = None) -> float:
    value = metadata.get(field, default)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not (value > 0 if least is None else value >= least) or value > most:
        raise GoldError(f"{field}: {value!r:.60}; allowed: a number above 0 up to {most:g}")
    return float(value)


def _no_typing_error(given: Mapping[str, Any], known: set[str], where: str = "") -> None:
    """A key that nothing reads is a test that would not count."""
    unknown = sorted(set(map(str, given)) - known)
    if unknown and where:
        raise GoldError(f"{where}{unknown[0]}: not known; allowed: {', '.join(sorted(known))}")
    for field in unknown:
        if field in {"entry_point", "calls", "types", "tolerance", "cases", "output", "test", "setup", "isolation"}:
            raise GoldError(f"{field}: not for this kind; allowed: {', '.join(sorted(known))}")

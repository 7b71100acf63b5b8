"""The user's own data: a UTF-8 file of JSON lines.

| output | keys of a line |
|---|---|
| tokens | `text` |
| examples | `prompt` and `completion`, or `messages`: `[{"role": ..., "content": ...}, ...]` |
| problems | `prompt` and `answer` (text or a number); `verifier` (default math) and `metadata` if wanted |

A file has no splits: all of it is read, and what is measured on belongs into `decontaminate`. Other keys are let be.
`id` is taken over where it is text. The first line that is wrong stops the stage, with the file, the line, the field,
and what is allowed. A blank line is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.errors import UserError, is_unicode
from configs.schema import CorpusSource
from corpora.document import Document
from corpora.dropped import DropLog

LICENCE = "unknown"
ROLES = ("system", "user", "assistant", "tool")


def check_file(path: Path) -> None:
    """Raises UserError for a path that is no readable, non-empty file."""
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise UserError(f"{path}: is empty; allowed: one JSON object a line; give a file with data")
    except FileNotFoundError as error:
        raise UserError(f"{path}: does not exist; give the path of a .jsonl file") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); "
                        "give the path of a readable .jsonl file") from error


def read(source: CorpusSource, output: str, dropped: DropLog) -> Iterator[Document]:
    """Documents of the file, in its order."""
    path = Path(source.name)
    num_read = 0
    for number, row in read_lines(path):
        where = f"{path}:{number}"
        fields = content(row, output, where)
        given = row.get("id")
        name = given if isinstance(given, str) and given else f"{path.name}:{number}"
        yield Document(name, path.name, LICENCE, path.name, provenance={"line": number}, **fields)
        num_read += 1
    if not num_read:
        raise UserError(f"{path}: holds only blank lines; allowed: one JSON object a line; give a file with data")


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and object of every line that is not blank. Raises UserError, nothing else."""
    check_file(path)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, parse(line, f"{path}:{number}")


def content(row: dict[str, Any], output: str, where: str) -> dict[str, Any]:
    """What a line gives to a document of this output. Raises UserError that names the field."""
    return {"tokens": _text, "examples": _example, "problems": _problem}[output](row, where)


def parse(line: bytes, where: str) -> dict[str, Any]:
    """The object of one line. Raises UserError, nothing else."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: byte {error.start + 1} of the line is not UTF-8; allowed: UTF-8 text; "
                        "convert the file") from error
    except json.JSONDecodeError as error:
        cut = "" if line.endswith(b"\n") else "; the last line may be cut short"
        raise UserError(f"{where}: not JSON at column {error.colno} ({error.msg}){cut}; allowed: one whole JSON object "
                        "a line; mend or remove this line") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or thousands of nested brackets
        raise UserError(f"{where}: cannot be read ({str(error)[:100]}); mend or remove this line") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: holds a {type(value).__name__}; allowed: one JSON object a line")
    return value


def _text(row: dict[str, Any], where: str) -> dict[str, Any]:
    return {"text": _string(row, "text", where, "tokens")}


def _example(row: dict[str, Any], where: str) -> dict[str, Any]:
    if "messages" in row:
        return {"messages": _messages(row["messages"], where)}
    needs = "examples (or `messages`)"
    return {"prompt": _string(row, "prompt", where, needs), "completion": _string(row, "completion", where, needs)}


def _problem(row: dict[str, Any], where: str) -> dict[str, Any]:
    answer = row.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        row = {**row, "answer": _digits(answer, where)}
    verifier, metadata = row.get("verifier", "math"), row.get("metadata", {})
    if not isinstance(verifier, str) or not verifier:
        raise UserError(f"{where}: verifier: {_short(verifier)} is no verifier's name; allowed: text, e.g. math")
    if not isinstance(metadata, dict):
        raise UserError(f"{where}: metadata: {_short(metadata)} is a {type(metadata).__name__}; allowed: an object")
    return {"prompt": _string(row, "prompt", where, "problems"), "answer": _string(row, "answer", where, "problems"),
            "verifier": verifier, "metadata": metadata}


def _digits(answer: int | float, where: str) -> str:
    try:
        return str(answer)
    except ValueError as error:
        raise UserError(f"{where}: answer: has too many digits; allowed: text or a number; "
                        "write it as text") from error


def _messages(value: Any, where: str) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: messages: {_short(value)} is no list of turns; "
                        'allowed: [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]')
    turns = []
    for i, turn in enumerate(value):
        field = f"messages[{i}]"
        if not isinstance(turn, dict):
            raise UserError(f"{where}: {field}: {_short(turn)} is a {type(turn).__name__}; allowed: role and content")
        role = _string(turn, "role", f"{where}: {field}", "examples")
        if role not in ROLES:
            raise UserError(f"{where}: {field}.role: {_short(role)} is no role; allowed: {', '.join(ROLES)}")
        turns.append({"role": role, "content": _string(turn, "content", f"{where}: {field}", "examples")})
    if not any(turn["role"] == "assistant" for turn in turns):
        raise UserError(f"{where}: messages: has no turn of the assistant, so nothing to learn from; add one")
    return tuple(turns)


def _string(row: dict[str, Any], key: str, where: str, output: str) -> str:
    if key not in row:
        found = ", ".join(map(str, row))[:120] or "none"
        raise UserError(f"{where}: {key}: is missing (keys found: {found}); output {output} needs it; add it")
    value = row[key]
    if not isinstance(value, str):
        raise UserError(f"{where}: {key}: {_short(value)} is a {type(value).__name__}; allowed: text")
    if not is_unicode(value):
        raise UserError(f"{where}: {key}: {_short(value)} holds half of a surrogate pair, which is no "
                        "character; allowed: whole Unicode characters; mend the line")
    return value


def _short(value: Any) -> str:
    """The value for a message; ASCII only, as it may hold anything."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # thousands of digits, or of nested brackets
        return f"a large {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."

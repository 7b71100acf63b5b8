"""The user's own data: a UTF-8 file of JSON lines, also compressed (.jsonl.gz, .jsonl.zst), or a Parquet table.

| output | keys of a line, or columns |
|---|---|
| tokens | `text`; `path`, `repository` (or `repo_name`), `licence` (or `license`) and `language` if they are text |
| examples | `prompt` and `completion`, or `messages`: `[{"role": ..., "content": ...}, ...]` |
| problems | `prompt` and `answer` (text or a number); `verifier` (default math) and `metadata` if wanted |

A file has no splits: all of it is read, and what is measured on belongs into `decontaminate`. Other keys are let be.
`id` is taken over where it is text. The first line that is wrong stops the stage, with the file, the line, the field,
and what is allowed; so does a compressed file that ends too early. A blank line is skipped. A line of more than
`MAX_LINE_BYTES` is not held in memory, and is dropped as `too_large`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from configs.errors import UserError, is_unicode
from configs.settings.corpus import CorpusSource
from corpora.document import Document
from corpora.dropped import DropLog
from corpora.sources.compressed import READ_ERRORS, open_bytes

LICENCE = "unknown"
MAX_LINE_BYTES = 32 << 20
"""Longest line that is read; a document takes several times its size while it is cleaned."""
PARQUET_ROWS = 256
"""Rows read at once."""
ROLES = ("system", "user", "assistant", "tool")


def check_file(path: Path) -> None:
    """Raises UserError for a path that is no readable, non-empty file."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise UserError(f"{path}: is a folder, a pipe or a device; give the path of a file")
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
    path = Path(source.name).expanduser()
    num_read = 0
    for number, row in read_rows(path, output):
        where = f"{path}:{number}"
        num_read += 1
        name = f"{path.name}:{number}"
        if row is None:
            dropped.add(Document(name, path.name, LICENCE, path.name, provenance={"line": number}), "too_large")
            continue
        fields = content(row, output, where)
        given = row.get("id")
        name = given if isinstance(given, str) and given else name
        origin = _origin(row, path) if output == "tokens" else {"licence": LICENCE, "path": path.name}
        yield Document(name, path.name, provenance={"line": number}, **origin, **fields)
    if not num_read:
        raise UserError(f"{path}: holds no row; allowed: one JSON object a line, or a table with rows; "
                        "give a file with data")


def read_rows(path: Path, output: str) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Number (from 1) and content of every row; None for one that is too large. Raises UserError, nothing else."""
    return _read_parquet(path) if path.name.endswith(".parquet") else read_lines(path)


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Line number (from 1) and object of every line that is not blank; None for a line that is too large."""
    check_file(path)
    number = 0
    try:
        with open_bytes(path) as file:
            for number, line in lines_of(file):
                yield number, None if line is None else parse(line, f"{path}:{number}")
    except READ_ERRORS as error:
        raise UserError(f"{path}: cannot be read after line {number} ({error}); a compressed file may be cut short; "
                        "give a whole one") from error


def lines_of(file: BinaryIO, seen: Callable[[bytes], object] = len) -> Iterator[tuple[int, bytes | None]]:
    """Number (from 1) and bytes of every line that is not blank; None for one above `MAX_LINE_BYTES`, never held.

    Args:
        seen: Called with all bytes of the file in their order, as a digest's `update`.
    """
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        seen(line)
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
                seen(line)
            yield number, None
        elif line.strip():
            yield number, line


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    check_file(path)
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError(f"{path}: .parquet needs the package pyarrow; pip install pyarrow") from error
    number = 0
    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row if _row_bytes(row) <= MAX_LINE_BYTES else None
    except (arrow.ArrowException, OSError) as error:  # ArrowException covers what is no Parquet, or is cut short
        raise UserError(f"{path}: cannot be read as Parquet after row {number} ({str(error)[:100]}); "
                        "give a whole .parquet file") from error


def _row_bytes(row: dict[str, Any]) -> int:
    return sum(len(value) for value in row.values() if isinstance(value, str))


def _origin(row: dict[str, Any], path: Path) -> dict[str, Any]:
    """What a row says of where its text comes from; anything but text is let be."""

    def given(*keys: str) -> str:
        return next((row[key] for key in keys if isinstance(row.get(key), str) and row[key]), "")

    return {"licence": given("licence", "license") or LICENCE, "path": given("path") or path.name,
            "repository": given("repository", "repo_name"), "language": given("language").lower()}


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
    return {"text": _string(row, "text", where, "tokens"), "metadata": _tests(row)}


def _tests(row: dict[str, Any]) -> dict[str, Any]:
    """The row's own tests, which the filter `runs` may ask for; it says what is wrong with them."""
    return {key: row[key] for key in ("tests", "entry_point") if row.get(key)}


def _example(row: dict[str, Any], where: str) -> dict[str, Any]:
    if "messages" in row:
        return {"messages": _messages(row["messages"], where), "metadata": _tests(row)}
    needs = "examples (or `messages`)"
    return {"prompt": _string(row, "prompt", where, needs), "completion": _string(row, "completion", where, needs),
            "metadata": _tests(row)}


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

"""The catalogue: every named data set, opened from a local mirror or the hub, with the same columns either way.

    for row in open_rows("gsm8k", "train"):
        row["question"], row["answer"], row["solution"]

`catalogue.yaml` holds the entries. A row is `{"id", "raw"}` and those of `question`, `answer`, `solution`, `text`,
`path`, `repository`, `licence`, `language` and `url` that the set has, all text; `raw` is the row as it came. A row
that holds many files (`each`) gives one row for each of them. `$DERIVE_DATA` names a folder with a mirror, which is
looked at first: JSON lines, also gzipped, or one JSON array, read here; Parquet and zstandard files, or a folder of
either, through the `datasets` library like the hub's (`configs/hub.py`). Without a mirror the set comes from the hub
at the entry's revision. An entry without one is `unpinned`: the newest commit is recorded in
`~/.cache/derive/revisions.json` at first use, and that commit is taken from then on.

It does not judge, filter or shuffle: rows come in the source's own order. A row without a question or an answer
is passed on as it is (`answer` is then empty); who draws from it drops it with a named reason.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from configs import hub
from configs.errors import UserError
from configs.hub import UNPINNED
from configs.settings.common import Frozen
from configs.strict_yaml import read_mapping

MIRROR_VARIABLE = "DERIVE_DATA"
READING = {"splits", "columns", "mirror_columns", "clean", "each"}
"""Fields of an entry that decide what its rows become."""
CONVENTIONAL_ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".jsonl.zst", "")
"""What NAME/SPLIT may end with in a mirror; without an ending it is a folder of such files."""
AIME_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."

Column = str | tuple[str, ...]
Ours = Literal["question", "answer", "solution", "text", "path", "repository", "licence", "language", "url"]
OPTIONAL = ("url",)
"""Columns that a row may lack: nothing depends on them."""


class RowRange(Frozen):
    """Which rows of a file that several splits share."""

    column: str = Field(description="Column with the row's number.")
    first: int = Field(description="Smallest number kept.")
    last: int = Field(description="Largest number kept.")


class Split(Frozen):
    """Where one split lies."""

    hub: str = Field(description="Name of the split on the hub.")
    mirror: str | None = Field(default=None, description="File below the mirror; empty looks for NAME/SPLIT.jsonl.")
    rows: RowRange | None = Field(default=None, description="Rows of the mirror's file that are the split's; empty "
                                  "is all.")


class DatasetEntry(Frozen):
    """One data set of the catalogue."""

    name: str = Field(description="Name in recipes.")
    title: str = Field(description="What it is, in one line.")
    kind: Literal["benchmark", "train", "corpus"] = Field(description="What it is for.")
    hub: str = Field(description="Data set id on the Hugging Face hub.")
    subset: str | None = Field(default=None, description="Configuration of the hub's data set.")
    revision: str = Field(default=UNPINNED, description="Commit on the hub, or `unpinned`.")
    licence: str = Field(description="Licence as stated by its publisher.")
    splits: dict[str, Split] = Field(min_length=1, description="Our split name -> where it lies.")
    columns: dict[Ours, Column] = Field(description="Ours -> the hub's.")
    mirror_columns: dict[Ours, Column] | None = Field(
        default=None, description="Ours -> the mirror's; empty is as the hub's.")
    each: str | None = Field(
        default=None, description="Column with a list of which every item is a row of ours, beside the other columns.")
    clean: tuple[Literal["gsm8k", "drop_unit", "drop_instruction", "boxed_answer", "verified_trace", "finished"], ...] \
        = Field(default=(), description="Rules applied to every row, in order.")
    tests: Literal["humaneval", "mbpp", "ifeval"] | None = Field(
        default=None, description="What judges rows that have no gold answer: tests or constraints in columns of this "
        "layout, read by `verifiers/tasks/benchmarks.py`; empty where there are none.")

    @property
    def has_answers(self) -> bool:
        """Whether its rows are questions with gold answers."""
        return "question" in self.columns and ("answer" in self.columns or "boxed_answer" in self.clean)

    @property
    def is_task_set(self) -> bool:
        """Whether its rows are problems that can be judged: by gold answers, tests or constraints."""
        return self.has_answers or self.tests is not None


@functools.cache
def _entries() -> dict[str, DatasetEntry]:
    raw = read_mapping(Path(__file__).with_name("catalogue.yaml"))
    return {name: DatasetEntry.model_validate_json(json.dumps({"name": name, **entry}), strict=True)
            for name, entry in raw.items()}


def dataset_names() -> tuple[str, ...]:
    """Names of all data sets, sorted."""
    return tuple(sorted(_entries()))


def dataset(name: str) -> DatasetEntry:
    """The entry of this name. Raises UserError that names the nearest when there is none."""
    if name not in _entries():
        import difflib

        close = difflib.get_close_matches(name, dataset_names(), 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"data set: {name!r} is not in the catalogue{hint}; allowed: {', '.join(dataset_names())}")
    return _entries()[name]


def mirror_path(name: str, split: str) -> Path | None:
    """The split's file (or folder of files) in the mirror, or None when `$DERIVE_DATA` is unset or has none.

    Raises:
        UserError: `$DERIVE_DATA` names no folder.
    """
    root_text = os.environ.get(MIRROR_VARIABLE)
    if not root_text:
        return None
    root = Path(root_text)
    if not root.is_dir():
        raise UserError(f"{MIRROR_VARIABLE}: {root_text!r} is no folder; set it to a mirror's folder or unset it")
    stated = _split(name, split).mirror
    candidates = [stated] if stated else [f"{name}/{split}{ending}" for ending in CONVENTIONAL_ENDINGS]
    for candidate in candidates:
        path = root / candidate
        if path.is_file() or (path.is_dir() and _files(path)):
            return path
    return None


def _files(path: Path) -> list[Path]:
    """The files of a mirror's folder that hold rows, in order; of a file, itself."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in hub.BUILDERS and file.is_file())


def open_rows(name: str, split: str) -> Iterator[dict[str, Any]]:
    """Rows of one split (`all`: of every split) in the source's order, with columns normalised.

    Yields:
        `{"id": "gsm8k/train/0", "question": str, "answer": str, "solution": str, "text": str, ..., "raw": dict}`,
        less the columns that the set does not have.

    Raises:
        UserError: No such set or split; a broken mirror file (names file and line); or neither mirror nor hub.
        RetryableError: The hub was lost midway and did not come back.
    """
    entry = dataset(name)
    if split == "all":
        for each in entry.splits:
            yield from open_rows(name, each)
        return
    where = _split(name, split)
    path = mirror_path(name, split)
    columns = entry.columns if path is None else entry.mirror_columns or entry.columns
    source = _opened(entry, where, path)
    kept = where.rows if path is not None else None
    for index, (place, raw) in enumerate(_in_range(source, kept)):
        for suffix, item in _items(raw, entry.each, place):
            row: dict[str, Any] = {"id": f"{name}/{split}/{index}{suffix}"}
            for ours, theirs in columns.items():
                if ours not in OPTIONAL or theirs in item:
                    row[ours] = _column(item, theirs, place)
            row["raw"] = item
            for rule in entry.clean:
                RULES[rule](row)
            yield row


def _opened(entry: DatasetEntry, where: Split, path: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a split as they are stored, each with its place."""
    if path is None:
        revision = hub_revision(entry)
        return hub.rows(hub.from_hub(entry.name, entry.hub, entry.subset, where.hub, revision, _remedy()))
    if path.is_dir() or path.suffix in (".parquet", ".zst"):
        return hub.rows(hub.from_files(entry.name, entry.hub, _files(path)))
    return read_rows(path)


def _items(raw: dict[str, Any], each: str | None, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The row, or one for each item of its list, with the row's other columns; and what its id ends with."""
    if each is None:
        yield "", raw
        return
    items = _value(raw, each, place)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UserError(f"{place}: {each}: is no list of objects; the file is not the data set that the catalogue "
                        "describes")
    shared = {key: value for key, value in raw.items() if key != each}
    for number, item in enumerate(items):
        yield f"/{number}", {**shared, **item}


def hub_revision(entry: DatasetEntry, or_unpinned: bool = False) -> str:
    """The commit to read: the entry's own, else the recorded one, else the newest, which is recorded.

    Raises:
        UserError: Unpinned, not recorded, and the hub cannot be asked (unless `or_unpinned`).
    """
    if entry.revision != UNPINNED:
        return entry.revision
    return hub.newest_revision(entry.name, entry.hub, _remedy(), or_unpinned)


def _remedy() -> str:
    return f"set {MIRROR_VARIABLE} to a folder that holds it, or connect to the hub"


def dataset_identity(name: str, split: str) -> dict[str, Any]:
    """What a digest needs to know of a split: the mirror file's content, or hub id, subset, revision and split.

    How the entry reads rows is part of it, so that a changed reading of the same file is another identity.
    """
    entry = dataset(name)
    splits = list(entry.splits) if split == "all" else [split]
    described = json.dumps(entry.model_dump(mode="json", include=READING), sort_keys=True).encode()
    found: dict[str, Any] = {"name": name, "entry": hashlib.sha256(described).hexdigest(), "splits": {}}
    for each in splits:
        path = mirror_path(name, each)
        if path is not None:
            digests = []
            for file in _files(path):
                status = file.stat()
                digests.append(_file_digest(file, status.st_size, status.st_mtime_ns))
            whole = digests[0] if path.is_file() else hashlib.sha256("\n".join(digests).encode()).hexdigest()
            found["splits"][each] = {"sha256": whole}
        else:
            found["splits"][each] = {"hub": entry.hub, "subset": entry.subset, "split": _split(name, each).hub,
                                     "revision": hub_revision(entry, or_unpinned=True)}
    return found


@functools.lru_cache(maxsize=256)
def _file_digest(path: Path, size: int, modified_ns: int) -> str:
    """SHA-256 of a file; size and time of change are only there to notice that a cached digest is out of date."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _split(name: str, split: str) -> Split:
    splits = dataset(name).splits
    if split not in splits:
        raise UserError(f"data set {name}: {split!r} is no split of it; allowed: {', '.join([*splits, 'all'])}")
    return splits[split]


# Mirror files ---------------------------------------------------------------------------------------------------


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a .jsonl, .jsonl.gz or .json (array) file, each with its place (`file:line`) for messages.

    Raises:
        UserError: Not readable, not UTF-8, or a line that is no JSON object (a cut download, most often).
    """
    try:
        if path.name.endswith(".json"):
            yield from _array_rows(path)
            return
        with (gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", _object(line, f"{path}:{number}")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: cannot be read ({reason}); fetch the file again") from error


def _array_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}{line}: not valid JSON ({error}); the file may be cut short, fetch it again") from error
    if not isinstance(values, list):
        raise UserError(f"{path}: holds a {type(values).__name__}; allowed: a JSON array of objects; fetch it again")
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise UserError(f"{path}: item {index} is a {type(value).__name__}; allowed: a JSON object")
        yield f"{path}: item {index}", value


def _object(line: bytes, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        shown = line[:40].decode("utf-8", "replace")
        raise UserError(f"{place}: {shown!r}... is no whole JSON line ({str(error)[:80]}); the file may be cut short, "
                        "fetch it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{place}: holds a {type(value).__name__}; allowed: one JSON object a line")
    return value


def _in_range(rows: Iterator[tuple[str, dict[str, Any]]], kept: RowRange | None) \
        -> Iterator[tuple[str, dict[str, Any]]]:
    for place, row in rows:
        if kept is None:
            yield place, row
            continue
        number = row.get(kept.column)
        if not isinstance(number, int):
            raise UserError(f"{place}: {kept.column}: {number!r} is no whole number; fetch the file again")
        if kept.first <= number <= kept.last:
            yield place, row


def _column(row: dict[str, Any], path: Column, place: str) -> str:
    """The text under a column path; a tuple of paths is joined by spaces. A missing value (null) is empty text.

    A list of texts, as of a file's licences, is joined by ` AND `; a number is written out; anything else is an error.
    """
    if isinstance(path, tuple):
        return " ".join(part for part in (_column(row, one, place).strip() for one in path) if part)
    value = _value(row, path, place)
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return " AND ".join(value)
    if isinstance(value, (list, dict)):
        raise UserError(f"{place}: {path}: holds a {type(value).__name__}, {str(value)[:60]!r}; allowed: text or a "
                        "number; the file is not the data set that the catalogue describes")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _value(row: dict[str, Any], path: str, place: str) -> Any:
    """What lies under a column path."""
    value: Any = row
    for step in path.split("."):
        key: Any = int(step) if isinstance(value, list) and step.isdigit() else step
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(f"{place}: has no column {path!r}; found: {', '.join(sorted(row))[:200]}; "
                            "the file is not the data set that the catalogue describes") from error
    return value


# Rules of catalogue.yaml ----------------------------------------------------------------------------------------


def _gsm8k(row: dict[str, Any]) -> None:
    """`... <<2+2=4>>4 clips\\n#### 72` -> answer `72`, and the solution without marks and last line."""
    solution, marker, answer = row["answer"].rpartition("####")
    row["answer"] = answer.strip().replace(",", "") if marker else ""
    row["solution"] = re.sub(r"<<[^<>]*>>", "", solution if marker else row["solution"]).strip()


def _drop_unit(row: dict[str, Any]) -> None:
    """`9 (apples)` -> `9`."""
    row["answer"] = re.sub(r"\s*\([^()]*\)\s*$", "", row["answer"]).strip()


def _drop_instruction(row: dict[str, Any]) -> None:
    """Our recipes bring their own instruction; one inside the question would be given twice."""
    row["question"] = row["question"].strip().removesuffix(AIME_INSTRUCTION).strip()


def _boxed_answer(row: dict[str, Any]) -> None:
    """The content of the solution's last `\\boxed{}` where the set has no answer column."""
    if "answer" not in row:
        row["answer"] = _last_boxed(row["solution"])


def _last_boxed(text: str) -> str:
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        spaced = re.findall(r"\\boxed\s+(\S)", text)  # a few MATH solutions write `\boxed 2`
        return str(spaced[-1]) if spaced else ""
    begin, depth = text.index("{", start), 0
    for end in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[begin + 1 : end].strip()
    return ""


def _verified_trace(row: dict[str, Any]) -> None:
    """OpenR1-Math: the first whole trace that a verifier or judge found right; none is an empty solution."""
    raw = row["raw"]
    whole = raw.get("is_reasoning_complete") or []
    checks = [raw.get(name) or [] for name in ("correctness_math_verify", "correctness_llama")]
    right = [any(found[i : i + 1] == [True] for found in checks) for i in range(len(whole))]
    traces = zip(raw.get("generations") or [], whole, right, strict=False)
    row["solution"] = next((trace for trace, is_whole, is_right in traces if is_whole and is_right), "")


def _finished(row: dict[str, Any]) -> None:
    """A generation that was cut at its length limit is no solution."""
    if row["raw"].get("finish_reason") not in (None, "stop"):
        row["solution"] = ""


RULES: dict[str, Callable[[dict[str, Any]], None]] = {
    "gsm8k": _gsm8k,
    "drop_unit": _drop_unit,
    "drop_instruction": _drop_instruction,
    "boxed_answer": _boxed_answer,
    "verified_trace": _verified_trace,
    "finished": _finished,
}

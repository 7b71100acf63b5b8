"""The data that a stage reads from outside the store: what it is, for the digest, and whether it can be read at all.

A user's JSONL file is known by its content and checked line by line before anything starts. A catalogue data set
is known by its pinned identity, a generated source by the version of the package that generates it.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.names import FIM, ROW_FILES, TWINS, is_generated, is_path
from configs.schema import Stage
from configs.settings.corpus import CorpusSource, CorpusStage
from configs.settings.evaluation import EvaluateStage
from configs.settings.reinforcement import RlStage, SampleStage
from configs.settings.training import DpoStage, SftStage, Supervised
from corpora import sources
from corpora.sources import user_jsonl

Keys = tuple[tuple[str, ...], ...]

TEXT = (("text",),)
EXAMPLES = (("prompt", "completion"), ("messages",))
PROBLEMS = (("prompt", "answer"),)
ASKED = (*PROBLEMS, ("middle",))
"""Of an evaluation's own file: problems, or gaps to be filled."""
PAIRS = (("prompt", "chosen", "rejected"),)
CORPUS_KEYS: dict[str, Keys] = {"tokens": TEXT, "examples": EXAMPLES, "problems": PROBLEMS}
"""For each kind of file: the sets of keys of which every line must have one."""
OUTPUT_OF = {keys: output for output, keys in CORPUS_KEYS.items()} | {ASKED: "problems"}


def outside_data(stage: Stage) -> dict[str, Any]:
    """Field path -> identity of what the stage reads from outside, e.g. `sources[0]` -> {"sha256": ...}.

    Raises:
        UserError: when a file is missing, empty, or has a line that its reader could not use.
    """
    found: dict[str, Any] = {}
    if isinstance(stage, (SftStage, RlStage, SampleStage)):
        keys: Keys = EXAMPLES if isinstance(stage, SftStage) else PROBLEMS
        for index, name in enumerate(stage.data):
            if name.endswith(".jsonl"):
                found[f"data[{index}]"] = _identity(name, "all", keys, f"{stage.id}.data[{index}]")
    if isinstance(stage, DpoStage):
        for field in ("data", "heldout_pairs"):
            for index, name in enumerate(getattr(stage, field)):
                if name.endswith(".jsonl"):
                    found[f"{field}[{index}]"] = _identity(name, "all", PAIRS, f"{stage.id}.{field}[{index}]")
    drawn: list[tuple[str, Any, Keys]] = []
    if isinstance(stage, CorpusStage):
        keys = CORPUS_KEYS[stage.output]
        drawn += [(f"sources[{index}]", source, keys) for index, source in enumerate(stage.sources)]
    if isinstance(stage, (CorpusStage, SampleStage)):
        drawn += [(f"decontaminate[{index}]", source, PROBLEMS) for index, source in enumerate(stage.decontaminate)]
    if isinstance(stage, EvaluateStage):
        drawn += [(f"tasks[{index}]", source, ASKED) for index, source in enumerate(stage.tasks)]
        drawn += [(f"kept_tasks[{index}]", source, ASKED) for index, source in enumerate(stage.kept_tasks)]
        drawn += [(f"few_shot_tasks[{index}]", source, PROBLEMS) for index, source in enumerate(stage.few_shot_tasks)]
        drawn += [(f"heldout_text[{index}]", source, TEXT) for index, source in enumerate(stage.heldout_text)]
    if isinstance(stage, Supervised):
        drawn += [(f"heldout_text[{index}]", source, TEXT) for index, source in enumerate(stage.heldout_text)]
        drawn += [(f"probe_tasks[{index}]", source, PROBLEMS) for index, source in enumerate(stage.probe_tasks)]
    for field, source, keys in drawn:
        found[field] = _identity(source.name, source.split, keys, f"{stage.id}.{field}.name")
    return found


def with_absolute_paths(config: Any) -> Any:
    """A stage's plain configuration with every path of a .jsonl file, and of a source's files, made absolute."""
    return _with_paths(config, lambda path: str(Path(path).expanduser().resolve()) + ("/" if path[-1] == "/" else ""))


def without_paths(config: Any) -> Any:
    """A stage's plain configuration with all those paths blanked; the content is told apart elsewhere."""
    return _with_paths(config, lambda path: "*.jsonl" if path.endswith(".jsonl") else "PATH")


def _with_paths(config: Any, change: Callable[[str], str], key: str = "") -> Any:
    if isinstance(config, dict):
        return {name: _with_paths(value, change, name) for name, value in config.items()}
    if isinstance(config, list):
        return [_with_paths(value, change) for value in config]
    # Other texts (system prompts, for one) may look like a path.
    if isinstance(config, str) and (config.endswith(".jsonl") or (key == "name" and is_path(config))):
        return change(config)
    return config


def check_jsonl(path: Path, keys: Keys, where: str) -> str:
    """Hexadecimal sha256 of a JSONL file, every line of which has one of the sets of keys, with values of their types.

    Raises:
        UserError: names the field, the file, the line, and what is allowed.
    """
    wanted = " or ".join(" and ".join(repr(key) for key in group) for group in keys)
    digest = hashlib.sha256()
    num_lines = 0
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise UserError(f"{where}: {path} is no file; give the path of a JSONL file with {wanted} in each line")
        with path.open("rb") as file:
            for number, line in user_jsonl.lines_of(file, digest.update):
                num_lines += 1
                if line is not None:  # one that is too large is dropped by the stage, and counted
                    _check_line(line, keys, f"{where}: {path}:{number}", wanted)
    except FileNotFoundError as error:
        raise UserError(
            f"{where}: {path} does not exist; give the path of a JSONL file with {wanted} in each line"
        ) from error
    except OSError as error:
        raise UserError(f"{where}: {path} cannot be read ({error.strerror}); give a readable JSONL file") from error
    if num_lines == 0:
        raise UserError(f"{where}: {path} is empty; give a JSONL file with {wanted} in each line")
    return digest.hexdigest()


def _check_line(line: bytes, keys: Keys, where: str, wanted: str) -> None:
    row = user_jsonl.parse(line, where)
    if not any(all(key in row for key in group) for group in keys):
        raise UserError(f"{where}: the line has {sorted(row)[:8]}; allowed: {wanted}; add what is missing")
    if keys == PAIRS:
        _check_texts(row, PAIRS[0], where)
    elif keys == ASKED and "prompt" not in row:
        from verifiers.tasks import fim

        fim.from_row(row, where, where, where)
    else:
        user_jsonl.content(row, OUTPUT_OF[keys], where)


def _check_texts(row: dict[str, Any], names: tuple[str, ...], where: str) -> None:
    for name in names:
        if not isinstance(row[name], str):
            raise UserError(f"{where}: {name}: {str(row[name])[:80]!r} is no text; allowed: text; mend the line")


def _identity(name: str, split: str, keys: Keys, where: str) -> dict[str, Any]:
    if name.startswith(f"{TWINS}/"):
        return {**_identity(name.removeprefix(f"{TWINS}/"), split, keys, where), "name": name}
    if name.endswith(".jsonl"):
        if "\0" in name:
            raise UserError(f"{where}: {name!r} holds a null character; give the path of a JSONL file")
        return {"sha256": check_jsonl(Path(name).expanduser(), keys, where)}
    if name in ("python_packages", "package_readmes") or is_path(name):
        source = CorpusSource(name=name)
        sources.check(where.removesuffix(".name"), source, OUTPUT_OF[keys] if name.endswith(ROW_FILES) else "tokens")
        return sources.identity(source) if is_path(name) else {"name": name, **sources.identity(source)}
    if name.startswith("reasoning_gym/"):
        return {"name": name, "reasoning_gym": _version("reasoning_gym")}
    if is_generated(name):  # made by this project, whose source is in the digest
        return {"name": name}
    if name == "python_stdlib" or name.startswith(f"{FIM}/"):
        return {"name": name, "python": platform.python_version()}
    if name == "sympy_examples":
        return {"name": name, "sympy": _version("sympy")}
    from configs.catalogue import dataset_identity

    return {"name": name, **dataset_identity(name, split)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

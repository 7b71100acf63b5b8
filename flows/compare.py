"""Two runs or releases side by side: what was set otherwise, what they share, what came out, and whether it differs.

Accuracies are compared on the problems that both were asked (the same set, id and question), problem by problem, so
that the interval is that of the difference and not the sum of two. Where the answers are not there any more (a release
away from its store), each figure stands with its own interval alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.errors import UserError
from flows.lineage import Line, find, released
from flows.store import Store

SAMPLES = "samples.jsonl"
Answers = dict[tuple[str, str, str], bool]
"""Task set, task id and question -> whether it was answered correctly."""


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        line: What it was made of.
        model: The model that counts: what is released, and the last that was evaluated where a line does not say.
        results: The evaluation's results.json; empty where there was none.
        answers: Its greedy answers, as far as they are there.
    """

    line: Line
    model: str
    results: Mapping[str, Any]
    answers: Answers


@dataclass(frozen=True)
class Comparison:
    """Everything that `derive compare` shows."""

    first: Side
    second: Side
    settings: list[tuple[str, Any, Any]]
    """Dotted path, value in the first, value in the second; None where one has no such field."""
    stages: list[tuple[str, str, str]]
    """Stage id, `same`, `other`, or `only in the first / second`, and seconds of both as text."""
    gains: dict[str, dict[str, float]] = field(default_factory=dict)
    """Task set, or `all` -> value, low, high, num of second less first, in accuracy."""


def compare(store: Store, first: str, second: str, confidence: float = 0.95) -> Comparison:
    """Two runs (by id) or releases (by folder).

    Raises:
        UserError: One is not there or cannot be read.
    """
    ours, theirs = _side(find(store, first)), _side(find(store, second))
    settings, stages = _settings(ours.line, theirs.line), _stages(ours.line, theirs.line)
    return Comparison(ours, theirs, settings, stages, _gains(ours.answers, theirs.answers, confidence))


def _side(line: Line) -> Side:
    results: dict[str, Any] = {}
    samples: Path | None = None
    released_model, evaluation = released(line)
    judged = [one for one in line.stages if one["kind"] == "evaluate" and evaluation in (None, one["id"])]
    for stage in judged:
        if stage.get("folder"):
            folder = Path(str(stage["folder"]))
            found = _results(folder / "results.json")
            results, samples = (found, folder / SAMPLES) if found else (results, samples)
    results = results or _results(Path(line.where) / "evaluation.json")
    models = results.get("models") or {}
    asked = [(stage.get("config") or {}).get("models") for stage in judged]
    order = [name for names in asked if isinstance(names, list) for name in names if name in models] or list(models)
    model = released_model if released_model in models else (order[-1] if order else "")
    return Side(line, str(model), results, dict(_answers(samples, str(model))) if samples is not None else {})


def _results(path: Path) -> dict[str, Any]:
    """An evaluation's results; empty where there are none.

    Raises:
        UserError: The file is torn, or is none of an evaluation.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(value, ensure_ascii=False).encode()  # half of a character could not be printed
        models = value["models"]
        if not all(isinstance(facts, dict) for facts in models.values()):
            raise TypeError("a model has no figures by name")
        tables = [facts.get(key) for facts in models.values() for key in ("by_task", "bits_per_byte")]
        if not all(isinstance(table, (dict, type(None))) for table in tables):
            raise TypeError("by_task or bits_per_byte is no object")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as an evaluation's results ({type(error).__name__}: {error}); take the "
                        "folder from its store again, or build the evaluation again") from error  # fmt: skip
    return dict(value)


def _answers(path: Path, model: str) -> Iterator[tuple[tuple[str, str, str], bool]]:
    try:
        with path.open(encoding="utf-8") as file:
            for text in file:
                line = json.loads(text)
                if line.get("model") == model:
                    yield (str(line["source"]), str(line["task"]), str(line["prompt"])), line["outcome"] == "correct"
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: {error}; build the evaluation again, or compare other runs") from error


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths of everything that is no mapping."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _settings(first: Line, second: Line) -> list[tuple[str, Any, Any]]:
    """What is set otherwise in stages that both have, and in the run as a whole."""

    def of(line: Line) -> dict[str, Any]:
        about = {"base": (line.about.get("base") or {}).get("name"), "seed": line.about.get("seed")}
        stages = {str(stage["id"]): dict(stage.get("config") or {}) for stage in line.stages}
        return dict(_flat({**about, **stages}))

    ours, theirs = of(first), of(second)
    both = {str(stage["id"]) for stage in first.stages} & {str(stage["id"]) for stage in second.stages}
    found = []
    for path in dict.fromkeys([*ours, *theirs]):
        head = path.partition(".")[0]
        if (head in both or head in ("base", "seed")) and ours.get(path) != theirs.get(path):
            found.append((path, ours.get(path), theirs.get(path)))
    return found


def _stages(first: Line, second: Line) -> list[tuple[str, str, str]]:
    ours, theirs = ({str(stage["id"]): stage for stage in line.stages} for line in (first, second))
    rows = []
    for name in dict.fromkeys([*ours, *theirs]):
        if name not in theirs or name not in ours:
            state = f"only in the {'first' if name in ours else 'second'}"
        else:
            state = "same" if ours[name].get("digest") == theirs[name].get("digest") else "other"
        rows.append((name, state, " / ".join(_seconds(stages.get(name)) for stages in (ours, theirs))))
    return rows


def _seconds(stage: Mapping[str, Any] | None) -> str:
    from flows.terminal import duration

    seconds = None if stage is None else stage.get("seconds")
    return duration(seconds) if isinstance(seconds, (int, float)) else "-"


def _gains(first: Answers, second: Answers, confidence: float) -> dict[str, dict[str, float]]:
    """Second less first over the problems of both, by task set and over all; paired, with bootstrap intervals."""
    from derivatives.evaluation.statistics import bootstrap_mean

    both = sorted(first.keys() & second.keys())
    sets: dict[str, list[tuple[str, str, str]]] = {"all": both} if both else {}
    for key in both:
        sets.setdefault(key[0], []).append(key)
    if len(sets) == 2:
        sets = {"all": both}  # of one task set, which is all there is
    return {
        name: {**bootstrap_mean([float(second[key]) - float(first[key]) for key in keys], confidence, 0),
               "num": len(keys)}
        for name, keys in sets.items()
    }  # fmt: skip


def figures(side: Side) -> dict[str, Any]:
    """What the evaluation says of the model that counts."""
    found = (side.results.get("models") or {}).get(side.model)
    return dict(found) if isinstance(found, dict) else {}


def as_dict(found: Comparison) -> dict[str, Any]:
    """The comparison as plain JSON."""

    def side(one: Side) -> dict[str, Any]:
        facts = figures(one)
        return {
            "where": one.line.where, "run": one.line.about.get("run"), "recipe": one.line.about.get("recipe"),
            "model": one.model, "pass@1": facts.get("pass@1"), "pass@k": facts.get("pass@k"),
            "maj@k": facts.get("maj@k"), "kept": facts.get("kept_all"),
            "bits_per_byte": facts.get("bits_per_byte"), "answers": len(one.answers),
        }  # fmt: skip

    return {
        "first": side(found.first),
        "second": side(found.second),
        "settings": [{"path": path, "first": a, "second": b} for path, a, b in found.settings],
        "stages": [{"id": name, "state": state, "seconds": text} for name, state, text in found.stages],
        "gains": found.gains,
    }


def rows(found: Comparison) -> Sequence[tuple[str, str, str, str]]:
    """Figures as text: name, first, second, second less first."""
    from flows.terminal import interval

    ours, theirs = figures(found.first), figures(found.second)
    lines = []
    for name, key in (("pass@1", "pass@1"), ("pass@k", "pass@k"), ("maj@k", "maj@k"), ("kept tasks", "kept_all")):
        a, b = _figure(ours.get(key)), _figure(theirs.get(key))
        if a or b:
            whole = found.gains.get("all") if name == "pass@1" else None
            lines.append((name, interval(a), interval(b), interval(whole, sign=True) if whole else ""))
    sets = dict.fromkeys([*(ours.get("by_task") or {}), *(theirs.get("by_task") or {})])
    for name in sets if len(sets) > 1 else ():
        a, b = (_figure((one.get("by_task") or {}).get(name)) for one in (ours, theirs))
        gain = found.gains.get(name)
        lines.append((f"  {name}", interval(a), interval(b), interval(gain, sign=True) if gain else ""))
    texts = dict.fromkeys([*(ours.get("bits_per_byte") or {}), *(theirs.get("bits_per_byte") or {})])
    for name in texts:
        a, b = ((one.get("bits_per_byte") or {}).get(name) for one in (ours, theirs))
        change = f"{b - a:+.3f}" if isinstance(a, float) and isinstance(b, float) else ""
        lines.append((f"bits per byte, {name}", _plain(a), _plain(b), change))
    return lines


def _figure(value: Any) -> Mapping[str, Any] | None:
    """A figure, with both ends of its interval or none; None for whatever else stands in its place."""
    if not isinstance(value, dict) or not isinstance(value.get("value"), (int, float)):
        return None
    ends = [value.get(key) for key in ("low", "high")]
    known = ends == [None, None] or all(isinstance(end, (int, float)) for end in ends)
    return value if known else {"value": value["value"]}


def _plain(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, (int, float)) else ""

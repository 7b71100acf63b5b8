"""Every evaluation that some stores hold, as one table: models against task sets, and what each cell stands on.

    all_against_all([Path("store"), Path("release/")]) -> Table

A model is what its weights are: the digest of the stage that made it, or of the base. A column is a task set under one
protocol: the questions that were asked, judge and its version (the set's own where none was named), solved examples,
wording, system prompt, tools and the limit of an answer. The same set under two protocols makes two columns, so that no
two cells of a column differ in anything but the model. Gains over the base are paired over the problems of one
evaluation.

What this does not do: rank models across columns; take part of an evaluation for the whole of another one; read an
evaluation that was cut off.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.judges import own_verifiers
from configs.settings.common import TaskSource
from corpora.page import visible
from flows.runs import all_runs
from flows.store import Artifact, Store, canonical_json

TABLES = "tables"
"""Folder of a store where evaluations lie that no recipe asked for (`derive table --models`)."""
RESULTS, SAMPLES, KEPT_SAMPLES, STAGE = "results.json", "samples.jsonl", "samples_kept.jsonl", "stage.json"
RELEASED = "evaluation.json"
TABLE = "table"
"""Recipe of an evaluation that no recipe asked for; its models are called as they were given."""
FAMILIES = ("coder", "math", "reasoning")
OWN_JUDGES = "each set's own"
"""What results call the judge where none was named for all sets."""
_SETTINGS = ("few_shot", "few_shot_tasks", "system", "tools")
"""Of an evaluate stage: what changes an answer, beside its problems and its sampling."""

Interval = Mapping[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """One finished evaluation.

    Attributes:
        name: `E1`, `E2`, ... in the order of the table.
        where: Its folder, or the release's.
        results: Its results.json.
        config: Its stage's settings; empty where they are not known.
        weights: Model name in the evaluation -> what its weights are.
        about: `recipe`, `seed`, `created`, `run`, `digest`, as far as they are known.
        verifiers: Verifier -> version.
    """

    name: str
    where: Path
    results: Mapping[str, Any]
    config: Mapping[str, Any]
    weights: Mapping[str, str]
    about: Mapping[str, Any]
    verifiers: Mapping[str, str]

    @property
    def models(self) -> list[str]:
        """Its models, the one that others are compared with first."""
        asked = [name for name in self.config.get("models") or () if name in self.results["models"]]
        return asked or list(self.results["models"])


@dataclass(frozen=True)
class Model:
    """A row: `key` is what its weights are, `label` how people call it, `kind` its family or `base`."""

    key: str
    label: str
    kind: str
    released: str = ""


@dataclass(frozen=True)
class Column:
    """A task set under one protocol; `letter` tells draws of one set under one protocol apart, empty for the only one.
    `judged` names the set's own verifiers with their versions where no judge was named for all sets."""

    key: str
    task_set: str
    letter: str
    protocol: str
    questions: str
    num_problems: int
    kept: bool
    judged: str = ""


@dataclass(frozen=True)
class Cell:
    """One model under one column.

    Attributes:
        accuracy: As in results.json.
        form: chat or few_shot.
        evaluation: Name of the evaluation.
        gain: Over the base that was asked in the same evaluation, paired over problems; None for a base itself, without
            one, and where nothing is known of the pairs.
        flag: The contamination flag of the set, for the model that was probed.
    """

    accuracy: Mapping[str, Any]
    form: str
    evaluation: str
    gain: Interval | None
    flag: Mapping[str, Any] | None


@dataclass
class Table:
    """Everything that the page shows."""

    evaluations: list[Evaluation] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    protocols: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`P1`, `P2`, ... -> what the cells of its columns have in common, beside the questions."""
    columns: list[Column] = field(default_factory=list)
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)

    def label(self, evaluation: Evaluation, model: str) -> str:
        """How people call a model of an evaluation."""
        key = evaluation.weights[model]
        return next(one.label for one in self.models if one.key == key)


def all_against_all(places: Sequence[Path]) -> Table:
    """The table of all evaluations in these stores, evaluation folders and releases, the oldest first.

    Raises:
        UserError: A place holds no evaluation, or one that cannot be read.
    """
    found: dict[str, Evaluation] = {}
    released: dict[str, str] = {}
    bases: dict[str, str] = {}
    for place in places:
        before = len(found)
        for evaluation in _evaluations(place, released, bases):
            found.setdefault(_identity(evaluation.results), evaluation)
        if len(found) == before and not any(_reads(place)):
            raise UserError(f"STORE: {place} holds no finished evaluation; allowed: a store, an evaluation's folder or "
                            "a release; run a preset first, or give --models and --tasks")
    ordered = sorted(found.values(), key=lambda one: str(one.about.get("created") or ""))
    table = Table([_named(one, f"E{number}") for number, one in enumerate(ordered, 1)])
    table.models = list(_models(table.evaluations, released, bases))
    _fill(table)
    return table


def _reads(place: Path) -> Iterator[Path]:
    """Files that say that a place has an evaluation, also one that is known already."""
    for pattern in (RESULTS, RELEASED, f"release/{RELEASED}", f"[0-9a-f][0-9a-f]/*/{RESULTS}", f"{TABLES}/*/{RESULTS}"):
        yield from place.glob(pattern)


def _named(one: Evaluation, name: str) -> Evaluation:
    return Evaluation(name, one.where, one.results, one.config, one.weights, one.about, one.verifiers)


def _identity(results: Mapping[str, Any]) -> str:
    """The same for an evaluation and the copy of it that a release carries."""
    return hashlib.sha256(canonical_json(results).encode()).hexdigest()


# Where evaluations lie ---------------------------------------------------------------------------------------------


def _evaluations(place: Path, released: dict[str, str], bases: dict[str, str]) -> Iterator[Evaluation]:
    if not place.is_dir():
        raise UserError(f"STORE: {place} is no folder; give a store, an evaluation's folder or a release")
    for folder in (place, place / "release"):
        if (folder / RELEASED).is_file():
            yield from _of_release(folder, released, bases)
            return
    if (place / RESULTS).is_file():
        yield from _of_folder(place, bases)
        return
    store = Store(place)
    for record in all_runs(store):
        bases.setdefault(str(record["id"]), str(record.get("base") or ""))
    for artifact in store.artifacts():
        if artifact.manifest.get("kind") == "evaluate":
            yield from _of_artifact(artifact, bases)
        elif artifact.manifest.get("kind") == "release":
            _note_release(artifact, released)
    for path in sorted((place / TABLES).glob(f"*/{RESULTS}")):
        yield from _of_folder(path.parent, bases)


def _of_artifact(artifact: Artifact, bases: dict[str, str]) -> Iterator[Evaluation]:
    manifest = artifact.manifest
    made_of = manifest.get("ingredients") or {}
    stage_file = manifest.get("stage_file") or {}
    inputs = made_of.get("inputs") or {}
    if "base" in inputs:
        bases.setdefault(str(inputs["base"]), bases.get(str(manifest.get("run")), "") or "base")
    about = {
        "recipe": manifest.get("recipe"), "seed": stage_file.get("seed"), "created": manifest.get("created"),
        "run": manifest.get("run"), "digest": artifact.digest,
    }  # fmt: skip
    yield from _made(artifact.folder, stage_file.get("stage") or {}, inputs, about, made_of.get("verifiers") or {})


def _of_folder(folder: Path, bases: dict[str, str]) -> Iterator[Evaluation]:
    """A stage's folder away from its store, with its stage file."""
    stage_file = _read(folder / STAGE)
    given = stage_file.get("inputs") or {}
    inputs = {name: one.get("digest") or one.get("path") for name, one in given.items()}
    for name, one in given.items():
        if one.get("kind") == "base" and inputs[name]:
            bases.setdefault(str(inputs[name]), name)
    about = {"recipe": stage_file.get("recipe"), "seed": stage_file.get("seed"), "created": None, "digest": None}
    yield from _made(folder, stage_file.get("stage") or {}, inputs, about, {})


def _of_release(folder: Path, released: dict[str, str], bases: dict[str, str]) -> Iterator[Evaluation]:
    line = _read(folder / "lineage.json")
    stages = {str(one.get("id")): one for one in line.get("stages") or ()}
    told = line.get("released") or {}
    evaluated = [one for one in stages.values() if one.get("kind") == "evaluate"]
    last = stages.get(str(told.get("evaluation"))) or (evaluated[-1] if evaluated else {})
    base = line.get("base") or {}
    inputs = {name: one.get("digest") for name, one in stages.items()} | {"base": base.get("digest")}
    if base.get("digest"):
        bases.setdefault(str(base["digest"]), str(base.get("name") or "base"))
    about = {"recipe": line.get("recipe"), "seed": line.get("seed"), "created": None, "run": line.get("run"),
             "digest": last.get("digest")}  # fmt: skip
    for one in _made(folder, last.get("config") or {}, inputs, about, last.get("verifiers") or {}, RELEASED):
        model = told["model"] if told.get("model") in one.weights else one.models[-1]  # older lineages do not say
        released.setdefault(one.weights[model], folder.name if folder.name != "release" else "released")
        yield one


def _note_release(artifact: Artifact, released: dict[str, str]) -> None:
    """The name under which a store's release stage released a model."""
    config = (artifact.manifest.get("stage_file") or {}).get("stage") or {}
    inputs = (artifact.manifest.get("ingredients") or {}).get("inputs") or {}
    model = config.get("model") or (artifact.manifest.get("ingredients") or {}).get("model")
    if model in inputs:
        released.setdefault(str(inputs[model]), str(config.get("name") or "released"))


def _made(folder: Path, config: Mapping[str, Any], inputs: Mapping[str, Any], about: Mapping[str, Any],
          verifiers: Mapping[str, Any], file: str = RESULTS) -> Iterator[Evaluation]:  # fmt: skip
    results = _read(folder / file)
    models = results.get("models")
    if not isinstance(models, dict) or not models:
        raise UserError(f"STORE: {folder / file} holds no models; build the evaluation again, or leave the folder out")
    weights = {name: str(inputs.get(name) or f"{folder}/{name}") for name in models}
    versions = {name: str((one or {}).get("version", "")) for name, one in verifiers.items()}
    yield Evaluation("", folder, results, config, weights, about, versions)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"STORE: {path} cannot be read ({error}); build it again, or leave the folder out") from error
    return value if isinstance(value, dict) else {}


# Rows, columns, cells ----------------------------------------------------------------------------------------------


def _models(evaluations: Sequence[Evaluation], released: Mapping[str, str], bases: Mapping[str, str]) \
        -> Iterator[Model]:  # fmt: skip
    """Every model once, bases first, then by family; a name that two have gets a part of their digests."""
    found: dict[str, Model] = {}
    for evaluation in evaluations:
        recipe = str(evaluation.about.get("recipe") or "")
        for name in evaluation.models:
            key = evaluation.weights[name]
            is_base = name == "base" or key in bases
            called = bases.get(key, "") if is_base else ""
            label = name if recipe == TABLE else f"{recipe} {name}".strip()
            if is_base:
                label = called if called in ("", "base") else f"base: {called}"
            kind = "base" if is_base else family(label)
            found.setdefault(key, Model(key, label or "base", kind, released.get(key, "")))
    labels = [one.label for one in found.values()]
    order = ["base", *FAMILIES, "other"]
    for one in sorted(found.values(), key=lambda one: order.index(one.kind)):
        tail = f" {one.key[:6]}" if labels.count(one.label) > 1 else ""
        yield Model(one.key, visible(one.label + tail), one.kind, visible(one.released))


def family(label: str) -> str:
    """`coder`, `math`, `reasoning` or `other`, by how a model is called."""
    return next((name for name in FAMILIES if name[:6] in label.lower()), "other")


def _fill(table: Table) -> None:
    """Columns and cells; the protocol that has the most cells is the first."""
    columns: dict[str, Column] = {}
    protocols: dict[str, dict[str, Any]] = {}
    for evaluation in table.evaluations:
        for kept in (False, True):
            answers = _answers(evaluation.where / (KEPT_SAMPLES if kept else SAMPLES))
            for task_set in _sets(evaluation, kept):
                protocol = _protocol(evaluation, task_set, kept, answers)
                questions = str(protocol.pop("questions"))
                shared = hashlib.sha256(canonical_json(protocol).encode()).hexdigest()[:12]
                protocols[shared] = protocol
                judged = _own_judges(evaluation, task_set, kept)
                key = " ".join(filter(None, [task_set, shared, questions, judged]))
                accuracies = {name: _accuracy(evaluation, name, task_set, kept) for name in evaluation.models}
                total = next(int(one["total"]) for one in accuracies.values() if one)
                columns.setdefault(key, Column(key, task_set, "", shared, questions, total, kept, judged))
                for name, accuracy in accuracies.items():
                    if accuracy:
                        cell = _cell(table, evaluation, name, task_set, kept, accuracy, answers)
                        table.cells[evaluation.weights[name], key] = cell
    alike: dict[tuple[str, str], list[Column]] = {}
    for column in columns.values():
        alike.setdefault((column.protocol, column.task_set), []).append(column)
    lettered = [replace(one, letter=chr(ord("a") + place % 26) if len(group) > 1 else "")
                for group in alike.values() for place, one in enumerate(group)]  # fmt: skip
    filled = Counter(columns[key].protocol for _, key in table.cells)
    order = sorted(protocols, key=lambda shared: -filled[shared])
    table.protocols = {f"P{number}": protocols[shared] for number, shared in enumerate(order, 1)}
    names = dict(zip(order, table.protocols, strict=True))
    ordered = sorted(lettered, key=lambda one: order.index(one.protocol))
    table.columns = [replace(one, protocol=names[one.protocol]) for one in ordered]


def _sets(evaluation: Evaluation, kept: bool) -> list[str]:
    names: dict[str, None] = {}
    for one in evaluation.results["models"].values():
        names |= dict.fromkeys((one.get("kept") if kept else one.get("by_task")) or {})
    return list(names)


def _accuracy(evaluation: Evaluation, name: str, task_set: str, kept: bool) -> Mapping[str, Any] | None:
    one = evaluation.results["models"][name]
    found: Mapping[str, Any] | None = ((one.get("kept") if kept else one.get("by_task")) or {}).get(task_set)
    return found


_Answers = dict[tuple[str, str], dict[tuple[str, str], bool]]
"""(Model, set) -> (task id, question) -> whether it was right."""


def _answers(path: Path) -> _Answers:
    found: _Answers = {}
    try:
        with path.open(encoding="utf-8") as file:
            for text in file:
                line = json.loads(text)
                group = found.setdefault((str(line["model"]), str(line["source"])), {})
                group[str(line["task"]), str(line["prompt"])] = line["outcome"] == "correct"
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"STORE: {path}: {error}; build the evaluation again, or leave it out") from error
    return found


def _protocol(evaluation: Evaluation, task_set: str, kept: bool, answers: _Answers) -> dict[str, Any]:
    """What two cells of a column have in common."""
    config = evaluation.config
    judge = OWN_JUDGES if kept else str(evaluation.results.get("judge", "?"))
    version = evaluation.verifiers.get(judge, "")
    drawn = _drawn(evaluation, task_set, kept)
    asked = next((given for (_, name), given in answers.items() if name == task_set), None)
    questions = canonical_json(sorted(map(list, asked)) if asked else drawn)
    return {
        "judge": f"{judge} {version}".strip(),
        "questions": hashlib.sha256(questions.encode()).hexdigest()[:12],
        "style": next((one.get("style", "plain") for one in drawn), "plain"),
        "max_new_tokens": (config.get("sampling") or {}).get("max_new_tokens"),
        **{name: config.get(name) for name in _SETTINGS},
        **({} if config else {"known_only_of": str(evaluation.where.name)}),
    }


def _drawn(evaluation: Evaluation, task_set: str, kept: bool) -> list[Mapping[str, Any]]:
    """The sources of a set, as the evaluation's settings have them; results call a user's file by its last part."""
    sources = evaluation.config.get("kept_tasks" if kept else "tasks") or ()
    return [one for one in sources if task_set in (name := str(one.get("name")), Path(name).name)]


def _own_judges(evaluation: Evaluation, task_set: str, kept: bool) -> str:
    """A set's own verifiers, with their versions as far as they are known; empty where one judge was named for all."""
    if not kept and evaluation.results.get("judge") != OWN_JUDGES:
        return ""
    sources = (TaskSource.model_construct(name=str(one["name"]), verifier=one.get("verifier"))
               for one in _drawn(evaluation, task_set, kept))  # fmt: skip
    names = sorted({name for source in sources for name in own_verifiers(source)})
    return ", ".join(f"{name} {evaluation.verifiers.get(name, '')}".strip() for name in names)


def _cell(table: Table, evaluation: Evaluation, name: str, task_set: str, kept: bool, accuracy: Mapping[str, Any],
          answers: _Answers) -> Cell:  # fmt: skip
    first = evaluation.models[0]
    gain: Interval | None = None
    is_base = {model.key: model.kind == "base" for model in table.models}
    if is_base[evaluation.weights[first]] and not is_base[evaluation.weights[name]]:
        told = ((evaluation.results.get("pairwise") or {}).get(f"{first}->{name}") or {})
        gain = (told.get("kept_by_task" if kept else "by_task") or {}).get(task_set)
        if gain is None:
            before, after = answers.get((first, task_set), {}), answers.get((name, task_set), {})
            both = before.keys() & after.keys()
            wins = sum(after[key] and not before[key] for key in both)
            losses = sum(before[key] and not after[key] for key in both)
            confidence = float(evaluation.results.get("confidence", 0.95))
            gain = paired_gain(wins, losses, len(both), confidence) if both else None
    one = evaluation.results["models"][name]
    form = str((one.get("kept_format") if kept else None) or one.get("format", ""))
    return Cell(accuracy, form, evaluation.name, gain, accuracy.get("contamination"))


def paired_gain(wins: int, losses: int, total: int, confidence: float) -> dict[str, float]:
    """Mean of paired differences of right (1) and wrong (0) answers, with its bootstrap interval.

    Resampling problems whose differences are -1, 0 or 1 is drawing the counts of the three from a multinomial, which
    is what this does; so it agrees with `statistics.bootstrap_mean` but for the random numbers.

    Args:
        wins: Problems that only the second model solved.
        losses: Problems that only the first one solved.
        total: Problems.
        confidence: Level of the interval.
    """
    import numpy as np

    from derivatives.evaluation.statistics import NUM_RESAMPLES

    shares = [wins / total, losses / total, 1.0 - (wins + losses) / total]
    drawn = np.random.default_rng(0).multinomial(total, shares, NUM_RESAMPLES)
    tail = (1.0 - confidence) / 2
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / total, [tail, 1.0 - tail])
    return {"value": (wins - losses) / total, "low": float(low), "high": float(high)}


def distinct(values: Iterable[Any]) -> list[Any]:
    """Values without repetition, in order; they need not be hashable."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found

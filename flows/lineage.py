"""The line behind a run or a release: what was built from what, with which settings, data and verifiers.

A release folder carries its line (`lineage.json`), and so needs no store; of a run its stages' manifests are read.
`tree` is the text of `derive lineage`, `graph` the picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pydantic import ValidationError

from configs.errors import UserError
from configs.schema import Recipe, stage_inputs
from flows import runs
from flows.charts import stage_graph
from flows.store import Store
from flows.terminal import duration, metrics_text

FILE = "lineage.json"
RELEASE = "release"
TOLD = ("verifier", "judge", "loss", "steps", "epochs", "num_tokens", "learning_rate", "output", "lora")
"""Settings that a line of the tree shows, where the stage has them."""
MISSING = "?"


@dataclass(frozen=True)
class Line:
    """What is known of a run's line.

    Attributes:
        about: Run, recipe, base, seed, command, commit, as `flows.stages.lineage` writes them.
        stages: In the order in which they ran, each with `id`, `kind`, `digest`, `config`, `metrics`, `seconds`,
            `verifiers`, `folder`.
        reads: What each stage reads, stage ids or `base`.
        where: The release folder or the run's id.
    """

    about: Mapping[str, Any]
    stages: Sequence[Mapping[str, Any]]
    reads: Mapping[str, Sequence[str]]
    where: str


def find(store: Store, name: str) -> Line:
    """The line of a release folder, or of a run by its id.

    Raises:
        UserError: It is neither, or what it says of itself cannot be read.
    """
    folder = Path(name).expanduser()
    for candidate in (folder, folder / RELEASE):
        if (candidate / FILE).is_file():
            return _of_file(candidate / FILE)
    if folder.is_dir():
        raise UserError(f"RELEASE: {folder} has no {FILE}; give a folder that a release stage wrote, or a run's id")
    return of_run(store, runs.find_run(store, name))


def of_run(store: Store, record: Mapping[str, Any]) -> Line:
    """The line of a run, as far as it got."""
    stages = []
    for entry in record["stages"]:
        artifact = store.find(str(entry.get("digest"))) if entry.get("digest") else None
        manifest = artifact.manifest if artifact is not None else {}
        stages.append({
            **{key: entry.get(key) for key in ("id", "kind", "digest", "reused", "folder", "status", "metrics")},
            "config": (manifest.get("stage_file") or {}).get("stage") or {},
            "seconds": manifest.get("seconds"),
            "verifiers": (manifest.get("ingredients") or {}).get("verifiers") or {},
            "commit": manifest.get("commit"),
        })  # fmt: skip
    about = {key: record.get(key) for key in ("recipe", "seed", "overrides", "command", "created")}
    return _line({**about, "run": record["id"], "base": {"name": record.get("base")}}, stages, str(record["id"]))


def _of_file(path: Path) -> Line:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(given, dict) or not isinstance(given.get("stages"), list):
            raise TypeError("it holds no list of stages")
        _check(given, ("base", "released"), "the line")
        json.dumps(given, ensure_ascii=False).encode()  # half of a character could be neither printed nor drawn
        stages = given["stages"]
        for number, entry in enumerate(stages):
            if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("id", "kind")):
                raise TypeError(f"stages[{number}] has no id or no kind")
            _check(entry, ("config", "metrics", "verifiers"), f"stages[{number}]")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"RELEASE: {path} cannot be read as a lineage ({error}); take the folder from its store again"
        ) from error
    about = {key: value for key, value in given.items() if key != "stages"}
    return _line(about, stages, str(path.parent))


def _check(value: Mapping[str, Any], fields: Sequence[str], where: str) -> None:
    for field in fields:
        if not isinstance(value.get(field), (dict, type(None))):
            raise TypeError(f"{field} of {where} is a {type(value[field]).__name__}; allowed: an object")


def released(line: Line) -> tuple[str | None, str | None]:
    """Stage ids of the model that is released and of the evaluation that it stands on; None where a line does not say.

    A release's line says so itself (older ones do not); a run's by its release stage.
    """
    told = line.about.get("released") or {}
    if told:
        return told.get("model"), told.get("evaluation")
    for stage in line.stages:
        if stage["kind"] == "release":
            model = next(iter(line.reads.get(str(stage["id"]), ())), None)
            return model, (stage.get("config") or {}).get("evaluation")
    return None, None


def _line(about: Mapping[str, Any], stages: Sequence[Mapping[str, Any]], where: str) -> Line:
    return Line(about, stages, _reads(stages), where)


def _reads(stages: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """What each stage reads; nothing where an older version's settings are not those of this one."""
    configs = [dict(stage.get("config") or {}) for stage in stages]
    found: dict[str, tuple[str, ...]] = {str(stage["id"]): () for stage in stages}
    try:
        recipe = Recipe.model_validate(
            {"name": "lineage", "title": "lineage", "status": "validated only", "base": "seedling",
             "stages": [one for one in configs if one]}  # fmt: skip
        )
    except ValidationError:
        return found
    return found | {stage.id: stage_inputs(recipe, stage) for stage in recipe.stages}


def tree(line: Line) -> str:
    """The line as text: the base, then each stage with what it reads, its settings, its figures."""
    about = line.about
    base = about.get("base") or {}
    revision = base.get("revision")
    lines = [
        f"{about.get('recipe') or MISSING}, run {about.get('run') or MISSING}",
        f"base {base.get('name') or MISSING}" + (f" at {revision}" if revision else "")
        + (f", {str(base.get('digest'))[:12]}" if base.get("digest") else ""),
    ]  # fmt: skip
    for number, stage in enumerate(line.stages):
        last = number == len(line.stages) - 1
        bar, rest = ("└─ ", "   ") if last else ("├─ ", "│  ")
        reads = ", ".join(line.reads.get(str(stage["id"]), ()))
        lines.append(
            f"{bar}{stage['id']} ({stage['kind']}) {str(stage.get('digest') or MISSING)[:12]}"
            + (f"  <- {reads}" if reads else "") + _state(stage)
        )  # fmt: skip
        lines += [f"{rest}   {text}" for text in _details(stage)]
    for name, key in (("commit", "commit"), ("seed", "seed"), ("overrides", "overrides"), ("command", "command")):
        value = about.get(key)
        if value not in (None, [], ""):
            lines.append(f"{name}: {' '.join(map(str, value)) if isinstance(value, list) else value}")
    return "\n".join(lines)


def _state(stage: Mapping[str, Any]) -> str:
    status = stage.get("status")
    if status not in (None, "completed"):
        return f"  {status}"
    seconds = stage.get("seconds")
    return f"  built in {duration(seconds)}" if isinstance(seconds, (int, float)) else ""


def _details(stage: Mapping[str, Any]) -> list[str]:
    config = stage.get("config") or {}
    told = [f"{name}={config[name]}" for name in TOLD if isinstance(config.get(name), (int, float, str))]
    given_sources = config.get("sources")
    sources = [
        str(source.get("name"))
        for source in (given_sources if isinstance(given_sources, list) else [])
        if isinstance(source, dict)
    ]
    found = [", ".join(told)] if told else []
    if sources:
        found.append(f"sources: {', '.join(sources)}")
    for role, identity in (stage.get("verifiers") or {}).items():
        if isinstance(identity, dict):
            version, source = identity.get("version", MISSING), str(identity.get("source", ""))[:12]
            found.append(f"verifier {identity.get('name', role)} {version} {source}")
    given = stage.get("metrics") or {}
    named = {
        str(key).split("/")[1]: value
        for key, value in given.items()
        if str(key).count("/") == 2 and isinstance(value, (int, float))
    }
    if stage["kind"] == "evaluate" and named:
        metrics = "pass@1: " + ", ".join(f"{name} {value:.1%}" for name, value in named.items())
    else:
        metrics = metrics_text(given, ", ")
    return [*found, metrics] if metrics else found


STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #222; } circle { fill: #2b6cb0; } .base circle { fill: #999; }
.release circle { fill: #2f855a; } .edge { fill: none; stroke: #999; stroke-width: 1.3; }
</style>"""


def picture(line: Line) -> str:
    """`graph` as a file of its own."""
    opening, end, rest = str(graph(line)).partition(">")
    namespace = "" if "xmlns=" in opening else ' xmlns="http://www.w3.org/2000/svg"'
    return f"{opening}{namespace}{end}{STYLE}{rest}\n"


def graph(line: Line) -> Markup:
    """The line as SVG: the base and the stages from top to bottom, with arcs from what each reads."""
    nodes = [("base", "base"), *((str(stage["id"]), str(stage["kind"])) for stage in line.stages)]
    edges = [(source, target) for target, sources in line.reads.items() for source in sources]
    return stage_graph(nodes, edges)

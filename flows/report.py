"""The report of a run: one self-contained report.html, made from the run record and the stages' folders.

    write_report(run_record, folder) -> folder/report.html

It shows the base against the derivative with intervals, the gates, the curves of every training stage, samples with
their verdicts, the corpora, the lineage, and the command that makes it all again. It needs no network and no script,
and draws whatever a run has: a run that failed half-way, or whose folders lost files, still gets its report.

Completions are hostile text: the template escapes everything, control characters are made visible, and the page
forbids itself scripts and outside content. The report shows what the stages recorded; it computes no figure itself.
"""

from __future__ import annotations

import json
import math
import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from configs.schema import MODEL_KINDS
from configs.stage import read_progress, write_text_atomic
from flows.audits import audit_section
from flows.charts import Bar, forest_plot, line_chart, number, overlay_chart, stage_graph

PAGE = Path(__file__).parent / "page"
MAX_TEXT = 1500
"""Characters shown of a prompt or a completion."""
MAX_LINES_READ = 60_000
SAMPLES_SHOWN = {"correct": 4, "incorrect": 4, "no_verdict": 2}
MAX_CHARTS = 9
NOT_METRICS = {"step", "total", "seconds", "eta_s", "tokens", "trained_tokens"}
FIRST_METRICS = (
    "reward", "audit_truth", "audit_gap", "solved_fraction", "loss", "length", "entropy", "mismatch", "truncated",
    "no_verdict", "grad_norm",
)  # fmt: skip
"""Curves in this order, then the others as they come."""
AUDITED = ("rl", "evaluate")


def write_report(run_record: Mapping[str, Any], out: Path) -> Path:
    """Write the page and return its path. Never raises for what a run lacks.

    Args:
        run_record: As in `flows/runs.py`.
        out: The file to write, or a folder, which then gets a report.html.
    """
    page = page_environment().get_template("report.html.j2").render(
        **context(run_record), style=Markup((PAGE / "report.css").read_text(encoding="utf-8"))
    )
    path = out if out.suffix == ".html" else out / "report.html"
    write_text_atomic(path, page.encode("utf-8", "replace").decode("utf-8"))
    return path


def page_environment() -> Environment:
    """Where pages are made: everything is escaped, and the filters are those below."""
    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(text=visible, figure=figure, percent=percent, duration=duration)
    return environment


def context(run_record: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the template shows, by section; an empty section is left out of the page."""
    stages = [Stage(entry) for entry in run_record.get("stages") or [] if isinstance(entry, dict)]
    evaluations = [stage for stage in stages if stage.kind == "evaluate" and stage.results.get("models")]
    release = next((stage for stage in reversed(stages) if stage.kind == "release"), None)
    released = str((release.metrics if release else {}).get("model") or "")
    return {
        "run": run_record,
        "header": header(run_record, release),
        "evaluations": [evaluation_section(stage, released) for stage in evaluations],
        "gates": (release.metrics if release else {}).get("gates") or [],
        "fork": fork_section(run_record, stages),
        "curves": [section for stage in stages if (section := curve_section(stage))["charts"]],
        "audits": [
            section
            for stage in stages
            if stage.kind in AUDITED and stage.folder and (section := audit_section(stage, _curves(stage.folder)))
        ],
        "samples": [section for stage in evaluations if (section := sample_section(stage, released))["groups"]],
        "rollouts": [
            section for stage in stages if stage.kind == "rl" and (section := rollout_section(stage))["groups"]
        ],
        "corpora": [
            section for stage in stages if stage.kind == "corpus" and (section := corpus_section(stage))["sources"]
        ],
        "sampled": [
            {"id": stage.id, **facts}
            for stage in stages
            if stage.kind == "sample" and (facts := stage.json("data/report.json"))
        ],
        "foreseen": [row for stage in stages if (row := foreseen_row(stage))],
        "stages": [stage.row() for stage in stages],
        "graph": stage_graph(
            [(stage.id, stage.state) for stage in stages],
            [(source, stage.id) for stage in stages for source in stage.reads],
        ),
        "environment": run_environment(run_record, stages),
        "command": reproduce_command(run_record),
    }


class Stage:
    """One stage of a run record with the files of its folder; whatever is missing reads as empty."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.entry = entry
        self.id, self.kind = str(entry.get("id") or "?"), str(entry.get("kind") or "?")
        self.folder = Path(entry["folder"]) if entry.get("folder") else None
        self.metrics: dict[str, Any] = entry.get("metrics") or self.json("metrics.json")
        self.results = self.json("results.json")
        self.stage_file = self.json("stage.json")
        self.manifest = self.json("manifest.json")
        self.reads = sorted((self.stage_file.get("inputs") or {}), key=str)

    @property
    def state(self) -> str:
        """reused, completed, failed, cancelled or running."""
        return "reused" if self.entry.get("reused") else str(self.entry.get("status") or "completed")

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object of the folder; empty when it is missing or torn."""
        if self.folder is None:
            return {}
        try:
            value = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def lines(self, name: str) -> Iterable[dict[str, Any]]:
        """The objects of a JSONL file, as far as they are whole."""
        path = None if self.folder is None else self.folder / name
        if path is None or not path.is_file():
            return
        with path.open(encoding="utf-8", errors="replace") as file:
            for _, line in zip(range(MAX_LINES_READ), file, strict=False):
                try:
                    value = json.loads(line)
                except ValueError:
                    continue
                if isinstance(value, dict):
                    yield value

    def row(self) -> dict[str, Any]:
        """The stage's line in the lineage table."""
        config = self.stage_file.get("stage") or {}
        shown = {
            key: value
            for key, value in config.items()
            if key not in ("id", "kind", "sources", "tasks", "decontaminate", "gates", "few_shot_tasks", "heldout_text")
            and value not in (None, [], {}, "")
        }
        return {
            "id": self.id,
            "kind": self.kind,
            "state": self.state,
            "digest": str(self.entry.get("digest") or ""),
            "seconds": self.entry.get("built_in_s") or self.manifest.get("seconds") or self.entry.get("seconds"),
            "reads": self.reads,
            "settings": json.dumps(shown, indent=1, ensure_ascii=False),
            "folder": str(self.folder or ""),
            "verifiers": (self.manifest.get("ingredients") or {}).get("verifiers") or {},
        }


def header(run_record: Mapping[str, Any], release: Stage | None) -> dict[str, Any]:
    """Title and what became of the run."""
    outcome = "released" if run_record.get("release") else ""
    if release is not None and release.metrics.get("released") is False:
        outcome = "refused by its gates"
    return {
        "recipe": run_record.get("recipe") or "run",
        "title": run_record.get("title") or "",
        "name": (release.metrics if release else {}).get("name") or "",
        "outcome": outcome,
        "error": run_record.get("error") or "",
        "status": run_record.get("status") or "unknown",
    }


def evaluation_section(stage: Stage, released: str) -> dict[str, Any]:
    """Tables and drawings of one results.json."""
    results = stage.results
    asked = (stage.stage_file.get("stage") or {}).get("models") or []
    models = [name for name in dict.fromkeys([*asked, "base", *sorted(results["models"])]) if name in results["models"]]
    released = released if released in models else models[-1]
    floor = (results.get("floor") or {}).get("value")
    tasks = sorted({task for name in models for task in results["models"][name].get("by_task") or {}})
    gains = {name: row for name, row in (results.get("gains") or {}).items() if isinstance(row, dict)}
    return {
        "id": stage.id,
        "models": models,
        "released": released,
        "rows": {name: results["models"][name] for name in models},
        "floor": floor,
        "constants": (results.get("floor") or {}).get("best_constant") or {},
        "plot": forest_plot(
            _bars({name: results["models"][name].get("pass@1") for name in models}, released),
            100 * floor if floor is not None and _is_number(floor) else 0.0,
        ),
        "gain_plot": forest_plot(
            _bars({name: gains[name].get("pass@1") for name in models if name in gains}, released), unit="", signed=True
        ),
        "sampled": next(
            (row["pass@k"]["k"] for name in models if (row := results["models"][name]).get("pass@k")), None
        ),
        "voted": any(results["models"][name].get("maj@k") for name in models),
        "kept": sorted({task for name in models for task in results["models"][name].get("kept") or {}}),
        "budgets": any(results["models"][name].get("budgets") for name in models),
        "flagged": [
            task for task, row in (results["models"][models[0]].get("by_task") or {}).items()
            if isinstance(row, dict) and (row.get("contamination") or {}).get("flag")
        ],
        "gains": gains,
        "tasks": tasks,
        "overlap": results.get("overlap") or {},
        "judge": results.get("judge") or "each task's own",
        "texts": sorted({text for name in models for text in results["models"][name].get("bits_per_byte") or {}}),
        "confidence": results.get("confidence") or 0.95,
        "headline": headline(gains.get(released, {}).get("pass@1"), released, models[0]),
    }


def headline(gain: Any, released: str, first: str) -> str:
    """The one sentence that the run is about."""
    if not _is_interval(gain):
        return ""
    low, high = 100 * gain["low"], 100 * gain["high"]
    change = "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
    points = f"{100 * gain['value']:+.1f} points of greedy pass@1, interval [{low:+.1f}, {high:+.1f}]"
    return f"{released} is {change} {first}: {points}."


def _bars(rows: Mapping[str, Any], released: str) -> list[Bar]:
    return [
        Bar(name, 100 * row["value"], 100 * row["low"], 100 * row["high"], name == released)
        for name, row in rows.items()
        if _is_interval(row)
    ]


def _is_interval(row: Any) -> bool:
    return isinstance(row, dict) and all(_is_number(row.get(key)) for key in ("value", "low", "high"))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def curve_section(stage: Stage) -> dict[str, Any]:
    """Every metric of a training stage's progress, drawn over its steps."""
    section: dict[str, Any] = {"id": stage.id, "kind": stage.kind, "charts": []}
    if stage.kind not in MODEL_KINDS or stage.folder is None:
        return section
    curves = _curves(stage.folder)
    section["alarms"] = [f"{step:g}" for step, value in curves.pop("rl/audit_alarm", []) if value]
    prefix = "rl/left_out_"  # by pass rate, before the first step
    left_out = {name.removeprefix(prefix): count for name, count in stage.metrics.items() if name.startswith(prefix)}
    section["problems"] = {"trained": stage.metrics.get("rl/problems"), "left_out": left_out} if left_out else {}
    order = {name: index for index, name in enumerate(FIRST_METRICS)}
    names = sorted(curves, key=lambda name: order.get(_short(name), len(order)))
    varying = [name for name in names if _short(name) in order or len({value for _, value in curves[name]}) > 1]
    for name in varying[:MAX_CHARTS]:
        chart = line_chart(name, curves[name])
        if chart:
            section["charts"].append(
                {"name": name, "svg": chart, "first": number(curves[name][0][1]), "last": number(curves[name][-1][1])}
            )
    return section


def fork_section(run_record: Mapping[str, Any], stages: list[Stage]) -> dict[str, Any]:
    """The curves of a fork over those of the run that it goes on from; empty for a run that is none."""
    from derivatives.rollout.fork_points import INPUT

    fork = run_record.get("fork")
    stage = next((one for one in stages if isinstance(fork, dict) and one.id == fork.get("stage")), None)
    if not isinstance(fork, dict) or stage is None or stage.folder is None:
        return {}
    given = ((stage.stage_file.get("inputs") or {}).get(INPUT) or {}).get("path")
    origin = Path(str(given or ""))
    if not origin.is_dir():  # it was half built when the fork began
        origin = origin.with_name(origin.name.removesuffix(".partial"))
    before, after = _curves(origin) if given else {}, _curves(stage.folder)
    names = [name for name in after if name in before]
    charts = []
    for metric in FIRST_METRICS:
        for name in [name for name in names if _short(name) == metric]:
            labels = (str(fork.get("run")), "this run")
            pair = list(zip(labels, (before[name], after[name]), strict=True))
            chart = overlay_chart(name, pair, parted_at=fork.get("step"))
            if chart:
                last = [number(curve[-1][1]) for _, curve in pair]
                charts.append({"name": name, "svg": chart, "before": last[0], "after": last[1]})
    return {**fork, "changed": fork.get("changed") or [], "charts": charts[:MAX_CHARTS]}


def _curves(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Steps and values of every metric of a stage's progress."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in read_progress(folder):
        for name, value in line.items():
            if _short(name) not in NOT_METRICS and _is_number(value) and _is_number(line.get("step")):
                curves.setdefault(name, []).append((line["step"], value))
    return curves


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def foreseen_row(stage: Stage) -> dict[str, Any]:
    """What `derive plan` says of a training stage beside what it measured; empty where either is not known."""
    from flows.forecast import foreseen

    name = f"{stage.kind}/peak_memory_gb"
    if stage.kind not in MODEL_KINDS or not _is_number(stage.metrics.get(name)):
        return {}
    line = foreseen(stage.stage_file)
    if line is None or line.memory is None:
        return {}
    memory, measured = line.memory.total / 1e9, stage.metrics[name]
    speed, ran_at = line.tokens_per_s, stage.metrics.get(f"{stage.kind}/tokens_per_s")
    return {
        "id": stage.id,
        "memory": (memory, measured, memory / measured - 1 if measured > 0 else None),
        "speed": (speed, ran_at, speed / ran_at - 1 if speed and ran_at else None),
    }


def sample_section(stage: Stage, released: str) -> dict[str, Any]:
    """Problems with the released model's verdict, and what every other model said to the same problem."""
    by_problem: dict[str, dict[str, dict[str, Any]]] = {}
    for sample in stage.lines("samples.jsonl"):
        key = f"{sample.get('task') or ''}\0{sample.get('id') or sample.get('prompt')}"
        by_problem.setdefault(key, {}).setdefault(str(sample.get("model") or "model"), sample)
    found = {name for answers in by_problem.values() for name in answers}
    asked = (stage.stage_file.get("stage") or {}).get("models") or []
    order = [name for name in dict.fromkeys([*asked, *sorted(found)]) if name in found]
    released = released if released in found else (order[-1] if order else "")
    groups: dict[str, list[Any]] = {outcome: [] for outcome in SAMPLES_SHOWN}
    for mine, answers in _in_turn([(answers.get(released, {}), answers) for answers in by_problem.values()]):
        outcome = str(mine.get("outcome"))
        if outcome in groups and len(groups[outcome]) < SAMPLES_SHOWN[outcome]:
            shown = [{"who": name, **_verdict(answers[name])} for name in order if name in answers]
            groups[outcome].append(_problem(mine) | {"answers": shown})
    return {"id": stage.id, "released": released, "groups": [(name, shown) for name, shown in groups.items() if shown]}


def _in_turn(problems: list[tuple[dict[str, Any], Any]]) -> list[tuple[dict[str, Any], Any]]:
    """The first problem of each task set, then the second of each, so that a few show all sets."""
    places: dict[str, int] = {}
    ranked = []
    for problem in problems:
        source = str(problem[0].get("source"))
        places[source] = places.get(source, -1) + 1
        ranked.append((places[source], problem))
    return [problem for _, problem in sorted(ranked, key=lambda pair: pair[0])]


def rollout_section(stage: Stage) -> dict[str, Any]:
    """Rollouts of the last recorded steps by verdict, each of another problem."""
    groups: dict[str, dict[str, Any]] = {outcome: {} for outcome in SAMPLES_SHOWN}
    for sample in reversed(list(stage.lines("rollouts.jsonl"))):
        outcome, prompt = str(sample.get("outcome")), str(sample.get("prompt") or "")
        shown = groups.get(outcome)
        if shown is not None and len(shown) < SAMPLES_SHOWN[outcome]:
            answer = {"who": f"step {sample.get('step', '?')}", **_verdict(sample)}
            shown.setdefault(prompt, _problem(sample) | {"answers": [answer]})
    return {"id": stage.id, "groups": [(outcome, list(shown.values())) for outcome, shown in groups.items() if shown]}


def _problem(sample: Mapping[str, Any]) -> dict[str, Any]:
    task = sample.get("source") or sample.get("task") or ""
    return {"prompt": sample.get("prompt") or "", "task": task, "answer": sample.get("answer")}


def _verdict(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "completion": sample.get("completion") or "",
        "outcome": str(sample.get("outcome") or "unknown"),
        "extracted": sample.get("extracted"),
        "reason": sample.get("reason") or "",
    }


def corpus_section(stage: Stage) -> dict[str, Any]:
    """Sources with asked and achieved share, and why documents were dropped."""
    report = stage.json("data/report.json")
    dropped = {reason: count for reason, count in (report.get("dropped") or {}).items() if count}
    return {
        "id": stage.id,
        "sources": report.get("sources") or {},
        "documents": report.get("documents"),
        "tokens": report.get("tokens"),
        "output": (stage.stage_file.get("stage") or {}).get("output") or report.get("output") or "",
        "dropped": sorted(dropped.items(), key=lambda item: -item[1]),
        "contamination": report.get("contamination") or {},
        "asked": _shares(report.get("sources") or {}),
    }


def _shares(sources: Mapping[str, Any]) -> dict[str, float]:
    weights = {name: row.get("asked_weight") or 0.0 for name, row in sources.items()}
    return {name: weight / (sum(weights.values()) or 1.0) for name, weight in weights.items()}


def run_environment(run_record: Mapping[str, Any], stages: list[Stage]) -> dict[str, str]:
    """Versions and machine, as the newest manifest has them."""
    manifest = next((stage.manifest for stage in reversed(stages) if stage.manifest), {})
    found = {
        "commit": manifest.get("commit"),
        "machine profile": run_record.get("machine"),
        "seed": run_record.get("seed"),
        "torch threads": manifest.get("num_threads"),
        **(manifest.get("host") or {}),
        **(manifest.get("environment") or {}),
    }
    return {key.replace("_", " "): str(value) for key, value in found.items() if value not in (None, "", [])}


def reproduce_command(run_record: Mapping[str, Any]) -> str:
    """The command line that makes the run again."""
    words = ["derive", "run", str(run_record.get("recipe") or "")]
    if run_record.get("base") not in (None, "", "seedling"):
        words += ["--base", str(run_record["base"])]
    if run_record.get("machine"):
        words += ["--machine", str(run_record["machine"])]
    words += [word for override in run_record.get("overrides") or [] for word in ("--set", str(override))]
    return shlex.join(words)


def visible(value: Any) -> str:
    """Text cut to a readable length, with control and direction characters written out instead of obeyed."""
    text = str(value)
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + f" … ({len(text) - MAX_TEXT:,} more characters)"
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs")
        else f"\\u{ord(character):04x}"
        for character in text
    )


def figure(value: Any, digits: int = 0) -> str:
    """A number with separators; a dash when there is none."""
    return f"{value:,.{digits}f}" if _is_number(value) else "–"


def percent(row: Any, signed: bool = False) -> str:
    """A fraction, or a figure with its interval, in percent."""
    if _is_interval(row):
        sign = "+" if signed else ""
        value, low, high = (f"{100 * row[key]:{sign}.1f}" for key in ("value", "low", "high"))
        return f"{value} [{low}, {high}]"
    return f"{100 * row:.1f}%" if _is_number(row) else "–"


def duration(seconds: Any) -> str:
    """Seconds as a person says them.

    >>> duration(7.25), duration(125), duration(7300), duration(None)
    ('7.2 s', '2 min 5 s', '2 h 1 min', '–')
    """
    if not _is_number(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

"""The release stage: gates, then a Hugging Face folder with a model card, or a named refusal.

Run by hand: `python -m derivatives.release STAGE.json OUT/`.

It reads the evaluate stage's `results.json` and judges every gate (`derivatives.gates`). If one fails the command
ends with exit code 2 and a line per gate, writes `metrics.json` with `released: false`, and leaves no `release/`.
If all hold it writes `OUT/release/`: the model as anybody's transformers opens it (`derivatives.export` proves it),
README.md (`derivatives.card`), lineage.json and evaluation.json. The folder appears whole or not at all; a killed
run starts over, since nothing here takes long.

It refuses as well when the evaluation was of another checkpoint than the one at hand, or when training questions are
among the held-out ones: then the gates judged nothing. It uploads nothing, and quantises nothing.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.errors import RetryableError, UserError
from configs.judges import TWINS
from configs.names import is_generated
from configs.paths import without_folders
from configs.settings.common import TaskSource
from configs.settings.evaluation import ReleaseStage
from configs.stage import StageFile, run_command, write_json_atomic, write_text_atomic
from derivatives.card import Facts, base_name, render_card
from derivatives.gates import GateResult, check_gates
from derivatives.licence import checkpoint_licence, combine_licences, published_licence

SEEDLING_LICENCE = "apache-2.0"
"""The embedded base is part of this project and carries its licence."""
PARTIAL = ".release-building"
LONGEST_QUESTION = 300
NUM_WRONG = 3
"""Wrong answers that the card shows, one of each of the worst task sets."""


def run(stage_file: StageFile, out: Path) -> None:
    """Judge the gates and release, or refuse."""
    if os.environ.get("RANK", "0") != "0":
        return  # under a launcher with several ranks one writes; the work needs no second device
    stage = stage_file.stage
    assert isinstance(stage, ReleaseStage)
    out.mkdir(parents=True, exist_ok=True)
    for stale in (out / PARTIAL, out / "release"):
        shutil.rmtree(stale, ignore_errors=True)
    (out / "metrics.json").unlink(missing_ok=True)
    released = stage.model or stage_file.model
    if released is None:
        raise UserError("model: the stage file resolves no model; set `model` to the stage id of what is released")
    results, evaluation = read_evaluation(stage_file, stage.evaluation)
    check_same_model(stage_file, released, evaluation)
    check_overlap(results)
    gates = check_gates(results, stage.gates, released, stage.keep)
    for gate in gates:
        print(gate.line())
    if not all(gate.passed for gate in gates):
        refuse(stage, gates, out)
    write_release(stage_file, out, released, results, gates, evaluation)


def refuse(stage: ReleaseStage, gates: list[GateResult], out: Path) -> None:
    """Record the refusal and end the command with a line per failed gate."""
    write_json_atomic(
        out / "metrics.json", {"released": False, "name": stage.name, "gates": [gate.as_dict() for gate in gates]}
    )
    failed = [gate.line() for gate in gates if not gate.passed]
    raise UserError(
        f"gates: {len(failed)} of {len(gates)} not passed, so {stage.name} is not released; train further, evaluate "
        "on more problems for a narrower interval, or change stages." + stage.id + ".gates\n" + "\n".join(failed)
    )


def read_evaluation(stage_file: StageFile, name: str) -> tuple[dict[str, Any], Path]:
    """The evaluate stage's results and its folder."""
    if name not in stage_file.inputs:
        raise UserError(
            f"inputs: {name!r} (the evaluation) is not among {sorted(stage_file.inputs)}; add it to the stage file"
        )
    folder = Path(stage_file.inputs[name].path)
    results = read_json(folder / "results.json")
    if not isinstance(results.get("models"), dict):
        raise UserError(
            f"inputs.{name}: {folder}/results.json is missing or unreadable; run the evaluate stage {name} again"
        )
    return results, folder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty when the file is missing or holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def check_same_model(stage_file: StageFile, released: str, evaluation: Path) -> None:
    """The checkpoint at hand and its base are those that were evaluated, by the digests that both stages were given."""
    inputs = read_json(evaluation / "stage.json").get("inputs", {})
    for name in dict.fromkeys((released, "base")):
        evaluated = inputs.get(name, {}).get("digest")
        given = stage_file.inputs[name].digest if name in stage_file.inputs else ""
        if evaluated and given and evaluated != given:
            raise UserError(
                f"inputs.{name}: its digest is {given[:12]} but the evaluation was of {evaluated[:12]}; "
                "evaluate this model first"
            )


def check_overlap(results: dict[str, Any]) -> None:
    """No training question is among the held-out ones."""
    shared = (results.get("overlap") or {}).get("shared")
    if shared:
        raise UserError(
            f"evaluation: {shared} training questions are among the held-out ones, so its figures say nothing; "
            "name the evaluation's tasks under `decontaminate` of the corpus stages and run again"
        )


def write_release(
    stage_file: StageFile, out: Path, released: str, results: dict[str, Any], gates: list[GateResult], evaluation: Path
) -> None:
    """Build the folder beside its place, prove it, and move it there."""
    from derivatives.export import export_model, flush_folder  # torch only once the gates hold: a refusal is quick

    stage = stage_file.stage
    assert isinstance(stage, ReleaseStage)
    partial = out / PARTIAL
    try:
        exported = export_model(stage_file.model_folder(released), partial, stage.system)
        facts = gather_facts(stage_file, released, results, gates, evaluation, exported)
        write_text_atomic(partial / "README.md", render_card(facts))
        write_json_atomic(partial / "lineage.json", stage_file.lineage)
        write_json_atomic(partial / "evaluation.json", results)
        flush_folder(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    os.replace(partial, out / "release")
    write_json_atomic(
        out / "metrics.json",
        {
            "released": True,
            "name": stage.name,
            "model": released,
            "size_bytes": size,
            "licence": facts.licence.identifier,
            "gates": [gate.as_dict() for gate in gates],
            "export": exported.as_dict(),
        },
    )
    print(f"released {stage.name}: {out / 'release'} ({size / 1e6:.1f} MB, licence {facts.licence.identifier})")


def gather_facts(
    stage_file: StageFile,
    released: str,
    results: dict[str, Any],
    gates: list[GateResult],
    evaluation: Path,
    exported: Any,
) -> Facts:
    """Everything that the card says, from the stage file, its lineage and the folders that these name."""
    stage = stage_file.stage
    assert isinstance(stage, ReleaseStage)
    lineage = stage_file.lineage
    stages = tuple(entry for entry in lineage.get("stages") or [] if isinstance(entry, dict))
    corpora = corpus_reports(stage_file, stages)
    base_folder = Path(stage_file.inputs["base"].path) if "base" in stage_file.inputs else Path("unknown")
    base = {**(lineage.get("base") or {})}
    base["name"] = base_name(base, base_folder)
    judged = read_json(evaluation / "stage.json").get("stage", {})
    return Facts(
        name=stage.name,
        recipe=stage_file.recipe,
        released=released,
        base=base,
        licence=combine_licences(base_licence(base, base_folder), data_licences(corpora, stages)),
        results=results,
        model_order=model_order(results, judged),
        gates=tuple(gates),
        exported=exported,
        stages=stages,
        corpora=corpora,
        verifiers=verifier_identities(stages, results, judged),
        environment=lineage.get("environment") or environment(),
        machine=lineage.get("machine") or {},
        commit=lineage.get("commit"),
        command=reproduce_command(stage_file),
        question=sample_question(evaluation, released),
        max_new_tokens=int((judged.get("sampling") or {}).get("max_new_tokens") or 256),
        system=stage.system,
        evaluated_system=judged.get("system"),
        keep=stage.keep,
        same_judge_allowed=stage.allow_same_judge,
        controls=tuple(one for one in lineage.get("controls") or [] if isinstance(one, dict)),
        wrong=wrong_answers(evaluation, released),
    )


def corpus_reports(stage_file: StageFile, stages: tuple[dict[str, Any], ...]) -> dict[str, dict[str, Any]]:
    """report.json of every corpus stage that the lineage or the inputs name."""
    folders = {
        str(entry.get("id")): str(entry.get("folder") or "") for entry in stages if entry.get("kind") == "corpus"
    }
    folders |= {name: given.path for name, given in stage_file.inputs.items() if given.kind == "corpus"}
    reports = {name: read_json(Path(folder) / "data" / "report.json") for name, folder in folders.items() if folder}
    return {name: report for name, report in reports.items() if report}


def base_licence(base: dict[str, Any], folder: Path) -> str | None:
    """What the lineage says, else the checkpoint's own card or LICENSE, else what is published of this base."""
    stated = base.get("licence") or base.get("license") or checkpoint_licence(folder)
    return stated or (SEEDLING_LICENCE if base["name"] == "seedling" else published_licence(str(base["name"])))


def data_licences(corpora: dict[str, dict[str, Any]], stages: tuple[dict[str, Any], ...]) -> dict[str, str | None]:
    """Source -> licence, of all corpora, and of the JSONL files that training stages read directly (unknown)."""
    licences: dict[str, str | None] = {}
    for report in corpora.values():
        for source, row in (report.get("sources") or {}).items():
            licences[source_name(source)] = row.get("licence")
    for entry in stages:
        for data in (entry.get("config") or {}).get("data") or []:
            if str(data).endswith(".jsonl"):
                licences[source_name(str(data))] = None
    return licences


def source_name(source: str) -> str:
    """A source as the card may print it: a user's file without its folder."""
    return Path(source).name if source.endswith(".jsonl") else source


def model_order(results: dict[str, Any], judged: dict[str, Any]) -> tuple[str, ...]:
    """Models in the recipe's order (the first is what gains are over); as found where it is not known."""
    asked = [name for name in judged.get("models") or [] if name in results["models"]]
    return tuple(dict.fromkeys([*asked, *sorted(results["models"], key=lambda name: name != "base")]))


def verifier_identities(
    stages: tuple[dict[str, Any], ...], results: dict[str, Any], judged: dict[str, Any]
) -> dict[str, tuple[dict[str, Any], ...]]:
    """Identities of the verifiers that gave the reward, chose samples to train on (selection), gave a second opinion on
    the reward (audit), judged, and paid control arms, under these roles; with what their cards said when the stage was
    planned."""
    cards = {name: one for entry in stages for name, one in (entry.get("cards") or {}).items() if isinstance(one, dict)}
    recorded = {
        name: one for entry in stages for name, one in (entry.get("verifiers") or {}).items() if isinstance(one, dict)
    }
    reinforced = [entry.get("config") or {} for entry in stages if entry.get("kind") == "rl"]
    settings = [config for config in reinforced if not config.get("control")]
    paid_controls = [str(config["verifier"]) for config in reinforced if config.get("control")]
    rewards = [
        str(each["verifier"])
        for config in settings
        for each in (config, *(config.get("more_rewards") or ()))
        if each.get("verifier")
    ]
    trained_on = {name for entry in stages for name in (entry.get("config") or {}).get("data") or ()}
    selected = [
        str((entry.get("config") or {})["verifier"])
        for entry in stages
        if entry.get("kind") == "sample" and entry.get("id") in trained_on
    ]
    audits = [str(config["audit"]["verifier"]) for config in settings if config.get("audit")]
    judges = [str(judged["judge"])] if judged.get("judge") else judges_of_tasks(judged.get("tasks") or [])
    names = {
        "reward": list(dict.fromkeys(rewards)),
        "selection": list(dict.fromkeys(selected)),
        "audit": list(dict.fromkeys(audits)),
        "judge": judges or [str(results.get("judge") or "unknown")],
        "control": list(dict.fromkeys(paid_controls)),
    }

    def one(name: str) -> dict[str, Any]:
        found = recorded.get(name) or identity_of(name)
        card = cards.get(name) or own_card(name, found)
        return {**found, "card": card} if card else found

    return {role: tuple(one(name) for name in used) for role, used in names.items() if used}


def own_card(name: str, identity: dict[str, Any]) -> dict[str, Any] | None:
    """What the card that comes with a built-in verifier says, where it is of this very identity: judges need none, and
    a reader still wants to know how often they err."""
    from verifiers.certify import read_card

    try:
        card = read_card(name)
    except UserError:
        return None
    if card is None or not identity.get("source") or not card.current(identity):
        return None
    rows = [one.as_dict() for one in card.labelled]
    labelled = [{key: row[key] for key in ("data", "recall", "false_positive_rate")} for row in rows]
    return {"digest": card.digest, "certified": card.certified, "labelled": labelled}


def judges_of_tasks(tasks: list[dict[str, Any]]) -> list[str]:
    """Verifiers that the evaluated task sets bring themselves, read from one problem of each, and from all of a user's
    file, whose lines may name several."""
    from verifiers.tasks import load_tasks

    names = []
    for task in tasks:
        try:
            names += [one.verifier for one in load_tasks(_few(TaskSource(**task)))]
        except (UserError, RetryableError, ValueError) as error:
            print(f"note: {task.get('name')}: its verifier is not on the card, because it does not load here ({error})")
            return []
    return list(dict.fromkeys(names))


def _few(source: TaskSource) -> TaskSource:
    return source if source.name.endswith(".jsonl") else source.model_copy(update={"count": 1})


def identity_of(name: str) -> dict[str, Any]:
    """The registry's identity of a verifier; only its name when it is not installed here."""
    from verifiers import registry

    try:
        return dict(registry.identity(name))
    except UserError:
        return {"name": name}


def environment() -> dict[str, str]:
    """Versions of what the model was made with, when the lineage does not say."""
    from importlib.metadata import version

    packages = ("torch", "transformers", "safetensors")
    return {"python": sys.version.split()[0], **{package: version(package) for package in packages}}


def reproduce_command(stage_file: StageFile) -> str:
    """The command line that makes this again."""
    lineage = stage_file.lineage
    if lineage.get("command"):
        return without_folders(str(lineage["command"]))
    words = ["derive", "run", stage_file.recipe]
    asked = (lineage.get("base") or {}).get("name")
    if asked and asked != "seedling":
        words += ["--base", base_name({"name": asked}, Path(str(asked)))]
    words += [word for override in lineage.get("overrides") or [] for word in ("--set", str(override))]
    return without_folders(shlex.join(words))


def sample_question(evaluation: Path, released: str) -> str:
    """A held-out question that the released model answered correctly, for the card's example; of a generated set, since
    a card must spread neither a benchmark nor the user's own data."""
    for sample in samples_of(evaluation, released):
        question = str(sample.get("question") or sample.get("prompt") or "")
        made = is_generated(str(sample.get("source") or "").removeprefix(TWINS))
        if made and sample.get("outcome") == "correct" and len(question) <= LONGEST_QUESTION:
            return question
    return "What is 12 + 30?"


def wrong_answers(evaluation: Path, released: str) -> tuple[dict[str, Any], ...]:
    """One wrong answer of the released model from each of its worst task sets, one that was not cut short if any."""
    asked: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    first: dict[str, dict[str, Any]] = {}
    for sample in samples_of(evaluation, released):
        source = str(sample.get("source"))
        asked[source] += 1
        if sample.get("outcome") == "incorrect":
            wrong[source] += 1
            if source not in first or (first[source].get("truncated") and not sample.get("truncated")):
                first[source] = sample
    worst = sorted(first, key=lambda source: (-wrong[source] / asked[source], source))
    return tuple(first[source] for source in worst[:NUM_WRONG])


def samples_of(evaluation: Path, released: str) -> Iterator[dict[str, Any]]:
    """The released model's lines of `samples.jsonl`, up to one that is torn; none where there is no such file."""
    path = evaluation / "samples.jsonl"
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                sample = json.loads(line)
            except ValueError:
                return
            if isinstance(sample, dict) and sample.get("model") == released:
                yield sample


if __name__ == "__main__":
    sys.exit(run_command("release", run, __doc__ or ""))

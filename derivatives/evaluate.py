"""Models side by side on held-out problems, each figure with an interval, judged by a verifier that gave no reward.

    python -m derivatives.evaluate STAGE.json OUT/

For each model: greedy pass@1, pass@k and maj@k from samples, bits per byte of held-out text. A model that was not
taught to chat (the base, a pretrained one) is asked some problems both as a chat and plainly after solved examples,
then all in its better format, so that a gain is not one in format alone. Gains are paired over problems, rises of bits
per byte over documents. Training questions that are also asked here are counted by hash, and there must be none.

With `kept_tasks`, problems of other domains show what was lost; they are judged by their sets' own verifiers, and are
no part of pass@1. With `thinking_budgets`, answers are also taken at several lengths of thought. With `probe`, the
first model is asked to complete problems from memory. With `audit`, a second verifier judges a share of the answers.

Writes `results.json` (its shape is in docs/architecture.md), `samples.jsonl`, where asked for `samples_kept.jsonl` and
`samples_budgets.jsonl`, `metrics.json` and a table on stdout. With several processes each has the models whole and
answers a share. A killed run goes on after the last part of a model that was finished (`evaluation/examination.py`).
When more than `max_no_verdict` of the latest verdicts are missing, the stage stops, and the message names the worst
reason. `evaluate_model` does the same for one checkpoint without a recipe.

Not done: a model that does not fit into one device.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.settings.evaluation import EvaluateStage
from configs.settings.machine import Machine
from configs.stage import Progress, StageFile, run_command, write_json_atomic, write_text_atomic
from derivatives.evaluation.answers import Answer
from derivatives.evaluation.asked import problems_of
from derivatives.evaluation.audit import Audited, audit, chosen
from derivatives.evaluation.examination import PARTS, Examiner, Protocol, Shown, answer_all, assembled
from derivatives.evaluation.formats import gather_examples
from derivatives.evaluation.majority import without_vote
from derivatives.evaluation.partial import Partial
from derivatives.evaluation.probe import controls
from derivatives.evaluation.report import ModelAnswers, Questions, accuracy, floor, gains, model_figures, thinks
from derivatives.evaluation.table import print_table
from derivatives.evaluation.texts import MAX_DOCUMENT_BYTES, read_texts
from derivatives.evaluation.thinking import Budgets
from derivatives.evaluation.twins import twin_figures
from derivatives.rollout.on_ranks import PATIENCE_S
from derivatives.training.loop import fingerprint, finished, set_up
from derivatives.training.ranks import Ranks, joined
from verifiers.api import Task
from verifiers.pool import VerifierPool
from verifiers.tasks.split import question_digest

__all__ = [
    "Protocol", "answer_all", "compare", "count_overlap", "evaluate_model", "evaluate_stage", "protocol_of", "run",
    "write_samples",
]  # fmt: skip

HASHES_FILE = "question_hashes.txt"
UNTAUGHT = ("base", "pretrain")
"""Kinds of models that have not been taught to chat."""


def run(stage_file: StageFile, out: Path) -> None:
    """The whole stage: problems, overlap, every model, results."""
    stage = stage_file.stage
    assert isinstance(stage, EvaluateStage)
    with joined(stage_file.machine, out, PATIENCE_S) as ranks:
        if not finished(stage_file, out):
            _run(stage_file, stage, out, ranks)


def _run(stage_file: StageFile, stage: EvaluateStage, out: Path, ranks: Ranks) -> None:
    set_up(stage_file.machine, stage_file.seed, ranks)
    protocol = protocol_of(stage, stage_file.seed)
    overlap = count_overlap(stage_file, [*protocol.tasks, *protocol.kept_tasks])
    untaught = [name for name in stage.models if stage_file.inputs[name].kind in UNTAUGHT] if stage.few_shot else []
    shown = shown_examples(stage, protocol, stage_file.seed) if untaught else None
    documents = read_texts(stage.heldout_text, max_document_bytes=MAX_DOCUMENT_BYTES)
    audited_places = (
        chosen(protocol.tasks, stage.judge, stage.audit, stage.audit_share, stage_file.seed) if stage.audit else []
    )
    answers: dict[str, ModelAnswers] = {}
    progress = Progress(out) if ranks.first else None
    num_workers, limit = stage_file.machine.num_verifier_workers, stage.max_no_verdict
    with (
        VerifierPool(num_workers, verifier=stage.judge, max_no_verdict=limit) as pool,
        VerifierPool(num_workers, max_no_verdict=limit) as own_pool,  # starts nothing before it is asked
    ):
        unseen = controls(protocol.tasks, stage.tasks, stage.probe) if stage.probe is not None else {}
        judges = pool, pool if stage.judge is None else own_pool
        examiner = Examiner(protocol, stage_file.machine, *judges, documents, ranks, unseen)
        for number, name in enumerate(stage.models, 1):
            partial = Partial(out, name, fingerprint(stage_file))
            if all(ranks.gather(partial.holds(PARTS))):
                answers[name] = assembled(partial.read())
            else:
                folder = stage_file.model_folder(name)
                plainly = shown if name in untaught else None
                answers[name] = answer_all(folder, examiner, plainly, number == 1, partial)
            if progress is not None:
                counted = [answers[name].greedy[place] for place in protocol.questions().counted]
                share = accuracy(counted, stage.confidence)["value"]
                progress.write(number, len(stage.models), **{f"evaluate/{name}/pass@1": share})
        if not ranks.first:
            return
        constant = floor(protocol.tasks, pool.judge)
        not_voted = without_vote(protocol.tasks, pool.judge) if stage.num_samples > 1 else {}
    audited = None
    if stage.audit is not None:
        audited = audit(protocol.tasks, answers, audited_places, stage.audit, stage.confidence, stage_file.seed,
                        num_workers)  # fmt: skip
    results = {
        **compare(answers, protocol.questions(not_voted)),
        "floor": constant,
        "overlap": overlap,
        "judge": stage.judge or "each set's own",
        **({"audit": audited.figures} if audited is not None else {}),
    }
    write_samples(out, answers, protocol, audited)
    write_json_atomic(out / "results.json", results)
    print_table(results)
    write_json_atomic(out / "metrics.json", {**metrics_of(results), "fingerprint": fingerprint(stage_file)})
    Partial.drop_all(out)


def protocol_of(stage: EvaluateStage, seed: int) -> Protocol:
    """The stage's problems and settings. Raises UserError where a source gives none."""
    tasks, kept = problems_of(stage.tasks), problems_of(stage.kept_tasks)
    for field, sources, found in (("tasks", stage.tasks, tasks), ("kept_tasks", stage.kept_tasks, kept)):
        if sources and not found:
            names = ", ".join(source.name for source in sources)
            raise UserError(f"{field}: {names} give no problem; raise their count")
    budgets = Budgets(stage.thinking_budgets, stage.answer_tokens) if stage.thinking_budgets else None
    return Protocol(
        tasks, stage.sampling, stage.num_samples, stage.num_sampled_problems, stage.few_shot, stage.system,
        stage.confidence, stage.max_no_verdict, seed, stage.tools, kept, budgets, stage.probe,
    )  # fmt: skip


def shown_examples(stage: EvaluateStage, protocol: Protocol, seed: int) -> Shown:
    """Solved examples for the problems, and for those of other domains, of which none is a held-out question."""
    asked = [*protocol.tasks, *protocol.kept_tasks]
    kept = stage.model_copy(update={"tasks": stage.kept_tasks, "few_shot_tasks": ()})
    return Shown(gather_examples(stage, asked, seed), gather_examples(kept, asked, seed) if stage.kept_tasks else {})


def count_overlap(stage_file: StageFile, tasks: Sequence[Task]) -> dict[str, int] | None:
    """Training questions, and how many are asked here; None where no training corpus is among the inputs.

    Raises:
        UserError: At least one is.
    """
    trained: dict[str, str] = {}
    found = False
    for name, given in stage_file.inputs.items():
        path = Path(given.path) / "data" / HASHES_FILE
        if given.kind == "corpus" and path.is_file():
            found = True
            trained |= dict.fromkeys(path.read_text(encoding="ascii").split(), name)
    if not found:
        print("overlap with training questions: not checked, no corpus among the inputs")
        return None
    shared = [task for task in tasks if question_digest(task.prompt) in trained]
    counts = f"{len(shared)} of {len(tasks)} held-out questions among {len(trained)} trained"
    print(f"overlap with training questions: {counts}")
    if shared:
        first = shared[0]
        raise UserError(
            f"tasks: {len(shared)} held-out questions are also in the training data (first: {first.id}, in corpus "
            f"{trained[question_digest(first.prompt)]}); list these tasks under decontaminate of the corpus stages"
        )
    return {"train_questions": len(trained), "shared": 0}


def compare(answers: Mapping[str, ModelAnswers], asked: Questions) -> dict[str, Any]:
    """Each model's figures, gains over the first model, and gains between all pairs."""
    names = list(answers)
    pairs = gains(answers, asked)
    greedy = {name: model.greedy for name, model in answers.items()}
    twins = twin_figures(asked.tasks, greedy, asked.confidence, asked.seed)
    return {
        "models": {name: model_figures(answers[name], asked) for name in names},
        "gains": {name: pairs[f"{names[0]}->{name}"] for name in names[1:]},
        "pairwise": pairs,
        **({"twins": twins} if twins else {}),
        **({"not_voted": dict(asked.not_voted)} if asked.not_voted else {}),
        "confidence": asked.confidence,
    }


def metrics_of(results: Mapping[str, Any]) -> dict[str, float]:
    """Every model's figures over all problems, by `evaluate/MODEL/FIGURE`."""
    found: dict[str, float] = {}
    for name, one in results["models"].items():
        found[f"evaluate/{name}/pass@1"] = one["pass@1"]["value"]
        for figure in ("pass@k", "maj@k"):
            if one.get(figure):
                found[f"evaluate/{name}/{figure}"] = one[figure]["value"]
        if "kept_all" in one:
            found[f"evaluate/{name}/kept"] = one["kept_all"]["value"]
        for text, bits in one["bits_per_byte"].items():
            found[f"evaluate/{name}/bits_per_byte/{text.replace('/', '.')}"] = bits
        for row in one.get("budgets", []):
            found[f"evaluate/{name}/pass@1_at_{row['max_thinking_tokens']}"] = row["pass@1"]["value"]
    return found


def write_samples(
    out: Path, answers: Mapping[str, ModelAnswers], protocol: Protocol, audited: Audited | None = None
) -> None:
    """Every model's answers, to be read: to the problems, to those of other domains, and at the thinking budgets."""
    write_text_atomic(out / "samples.jsonl", "".join(sample_lines(answers, protocol, audited)))
    if protocol.kept_tasks:
        lines = (
            sample_line(name, task, answer, model.kept_form)
            for name, model in answers.items()
            for task, answer in zip(protocol.kept_tasks, model.kept, strict=True)
        )
        write_text_atomic(out / "samples_kept.jsonl", "".join(lines))
    if protocol.budgets is not None:
        write_text_atomic(out / "samples_budgets.jsonl", "".join(_budget_lines(answers, protocol.tasks)))


def _budget_lines(answers: Mapping[str, ModelAnswers], tasks: Sequence[Task]) -> Iterator[str]:
    for name, model in answers.items():
        for budget in model.budgets if thinks(model) else ():
            for task, answer in zip(tasks, budget.greedy, strict=True):
                yield sample_line(name, task, answer, model.form, max_thinking_tokens=budget.max_thinking_tokens)


def sample_lines(
    answers: Mapping[str, ModelAnswers], protocol: Protocol, audited: Audited | None = None
) -> Iterator[str]:
    """Lines of `samples.jsonl`: every model's greedy answer to every problem, with the auditor's verdict if it has one.
    """
    for name, model in answers.items():
        second = audited.verdicts[name] if audited is not None else {}
        for place, (task, answer) in enumerate(zip(protocol.tasks, model.greedy, strict=True)):
            again = second.get(place)
            told = {} if again is None else {
                "audit": {"outcome": again.outcome.value, "extracted": again.extracted, "reason": again.reason}
            }  # fmt: skip
            yield sample_line(name, task, answer, model.form, **told)


def sample_line(model: str, task: Task, answer: Answer, form: str, **told: Any) -> str:
    """One answer as a line of JSON."""
    about = {"model": model, "task": task.id, "source": task.source, "prompt": task.prompt, "answer": task.answer}
    return json.dumps({**about, **answer.as_dict(), "format": form, **told}, ensure_ascii=False) + "\n"


def evaluate_stage(
    name: str, folder: Path, stage: EvaluateStage, protocol: Protocol, machine: Machine
) -> dict[str, Any]:
    """One checkpoint by a stage's settings, its kind unknown: with `few_shot` it is asked plainly too.

    Args:
        name: By which it is shown.
        folder: A Qwen2 checkpoint in Hugging Face layout.
        stage: Settings.
        protocol: `protocol_of` the stage.
        machine: Where it runs.

    Returns:
        What `results.json` holds of one model, and `samples`, one dict a problem.
    """
    shown = shown_examples(stage, protocol, protocol.seed) if stage.few_shot else None
    documents = read_texts(stage.heldout_text, max_document_bytes=MAX_DOCUMENT_BYTES)
    unseen = controls(protocol.tasks, stage.tasks, stage.probe) if stage.probe is not None else {}
    found, samples = _evaluate_one(name, folder, protocol, stage.judge, machine, shown, documents, unseen)
    return {**found, "judge": stage.judge or "each set's own", "samples": samples}


def evaluate_model(
    folder: Path | str, protocol: Protocol, judge: str | None = None, machine: Machine | None = None
) -> dict[str, Any]:
    """One checkpoint, asked as a chat, without a stage.

    Args:
        folder: Any Qwen2 checkpoint in Hugging Face layout.
        protocol: Problems and settings.
        judge: Verifier for all problems; None takes each problem's own.
        machine: Where it runs; by default this machine's CPU.

    Returns:
        `{"model": one entry of results.json, "floor": ..., "samples": [one dict a problem]}`.
    """
    machine = machine or Machine(name="cpu")
    found, samples = _evaluate_one(str(folder), Path(folder), protocol, judge, machine, None, {}, {})
    return {"model": found["models"][str(folder)], "floor": found["floor"], "samples": samples}


def _evaluate_one(
    name: str, folder: Path, protocol: Protocol, judge: str | None, machine: Machine, shown: Shown | None,
    documents: Mapping[str, Sequence[str]], unseen: Mapping[str, Sequence[Task]],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # fmt: skip
    """The figures of one model, and its answers."""
    set_up(machine, protocol.seed)
    if not protocol.tasks:
        raise UserError("tasks: no problem was given; give at least one")
    limit, num_workers = protocol.max_no_verdict, machine.num_verifier_workers
    with (
        VerifierPool(num_workers, verifier=judge, max_no_verdict=limit) as pool,
        VerifierPool(num_workers, max_no_verdict=limit) as own_pool,
    ):
        judges = pool, pool if judge is None else own_pool
        examiner = Examiner(protocol, machine, *judges, documents, unseen=unseen)
        answers = {name: answer_all(folder, examiner, shown, probed=True)}
        constant = floor(protocol.tasks, pool.judge)
        not_voted = without_vote(protocol.tasks, pool.judge) if protocol.num_samples > 1 else {}
    found = {**compare(answers, protocol.questions(not_voted)), "floor": constant}
    return found, [json.loads(line) for line in sample_lines(answers, protocol)]


if __name__ == "__main__":
    sys.exit(run_command("evaluate", run, __doc__ or ""))

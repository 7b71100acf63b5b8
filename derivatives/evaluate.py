"""Models side by side on held-out problems, each figure with an interval, judged by a verifier that gave no reward.

    python -m derivatives.evaluate STAGE.json OUT/

For each model: greedy pass@1, pass@k from samples, bits per byte of held-out text. A model that was not taught to
chat (the base, a pretrained one) is asked some problems both as a chat and plainly after solved examples, then all in
its better format, so that a gain is not one in format alone. Gains are paired over problems. Training questions that
are also asked here are counted by hash, and there must be none. With `audit`, a second verifier judges a share of the
answers (`evaluation/audit.py`).

Writes `results.json` (its shape is in docs/architecture.md), `samples.jsonl`, `metrics.json` and a table on stdout. A
killed run goes on after the last model that was finished. When more than `max_no_verdict` of the latest verdicts are
missing, the stage stops, and the message names the worst reason. `evaluate_model` does the same for one checkpoint
without a recipe. Statistics and their sources are in `evaluation/statistics.py`.

Not done: several devices.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from configs.settings.common import Sampling
from configs.settings.evaluation import EvaluateStage
from configs.settings.machine import Machine
from configs.settings.tools import ToolUse
from configs.stage import Progress, StageFile, run_command, write_json_atomic, write_text_atomic
from derivatives.evaluation.answers import Asking, ask
from derivatives.evaluation.audit import Audited, audit, chosen
from derivatives.evaluation.formats import CHAT, FEW_SHOT, Examples, gather_examples
from derivatives.evaluation.report import ModelAnswers, accuracy, floor, gain, model_figures, print_table
from derivatives.evaluation.texts import bits_per_byte, read_texts
from derivatives.rollout.engine import RolloutEngine
from derivatives.rollout.on_ranks import PATIENCE_S
from derivatives.rollout.tools import Toolbox, open_tools
from derivatives.training.loop import fingerprint, finished, set_up
from derivatives.training.model import load_model
from derivatives.training.ranks import ALONE, Ranks, joined
from verifiers.api import Task
from verifiers.breaker import Breaker
from verifiers.pool import VerifierPool
from verifiers.tasks import load_tasks
from verifiers.tasks.split import question_digest

HASHES_FILE = "question_hashes.txt"
UNTAUGHT = ("base", "pretrain")
"""Kinds of models that have not been taught to chat."""
NUM_FORMAT_TRIALS = 300
"""Problems on which the formats are compared; the figures are then taken on all problems in the better one."""


@dataclass(frozen=True)
class Protocol:
    """What every model of an evaluation goes through."""

    tasks: Sequence[Task]
    sampling: Sampling = Sampling()
    num_samples: int = 0
    num_sampled_problems: int | None = None
    few_shot: int = 0
    system: str | None = None
    confidence: float = 0.95
    max_no_verdict: float = 0.1
    seed: int = 0
    tools: ToolUse | None = None

    def sampled_problems(self) -> list[int]:
        """Problems that are sampled for pass@k."""
        return self.in_turn(self.num_sampled_problems) if self.num_samples else []

    def in_turn(self, count: int | None) -> list[int]:
        """This many problems, the first of each set in turn, so that every set has its share; None takes all."""
        places: dict[str, int] = {}
        order: list[tuple[int, int]] = []
        for index, task in enumerate(self.tasks):
            places[task.source] = places.get(task.source, -1) + 1
            order.append((places[task.source], index))
        return sorted(index for _, index in sorted(order)[:count])


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
    overlap = count_overlap(stage_file, protocol.tasks)
    untaught = [name for name in stage.models if stage_file.inputs[name].kind in UNTAUGHT] if stage.few_shot else []
    examples = gather_examples(stage, protocol.tasks, stage_file.seed) if untaught else None
    documents = read_texts(stage.heldout_text)
    audited_places = (
        chosen(protocol.tasks, stage.judge, stage.audit, stage.audit_share, stage_file.seed) if stage.audit else []
    )

    answers: dict[str, ModelAnswers] = {}
    progress = Progress(out) if ranks.first else None
    num_workers = stage_file.machine.num_verifier_workers
    with VerifierPool(num_workers, verifier=stage.judge, max_no_verdict=stage.max_no_verdict) as pool:
        for number, name in enumerate(stage.models, 1):
            partial = Partial(out, name, fingerprint(stage_file))
            answered = partial.read()
            if not all(ranks.gather(answered is not None)):
                shown = examples if name in untaught else None
                folder = stage_file.model_folder(name)
                answered = answer_all(folder, protocol, stage_file.machine, shown, pool, documents, ranks)
            assert answered is not None
            answers[name] = answered
            if progress is not None:
                partial.write(answered)
                share = accuracy(answered.greedy, stage.confidence)["value"]
                progress.write(number, len(stage.models), **{f"evaluate/{name}/pass@1": share})
        if not ranks.first:
            return
        constant = floor(protocol.tasks, pool.judge)
    audited = None
    if stage.audit is not None:
        audited = audit(protocol.tasks, answers, audited_places, stage.audit, stage.confidence, stage_file.seed,
                        num_workers)  # fmt: skip
    results = {
        **compare(answers, protocol),
        "floor": constant,
        "overlap": overlap,
        "judge": stage.judge or "each set's own",
        **({"audit": audited.figures} if audited is not None else {}),
    }
    write_text_atomic(out / "samples.jsonl", "".join(sample_lines(answers, protocol, audited)))
    write_json_atomic(out / "results.json", results)
    print_table(results)
    figures = {f"evaluate/{name}/pass@1": one["pass@1"]["value"] for name, one in results["models"].items()}
    write_json_atomic(out / "metrics.json", {**figures, "fingerprint": fingerprint(stage_file)})
    Partial.drop_all(out)


def protocol_of(stage: EvaluateStage, seed: int) -> Protocol:
    """The stage's problems and settings. Raises UserError where a source gives none."""
    tasks = [task for source in stage.tasks for task in load_tasks(source)]
    if not tasks:
        raise UserError(f"tasks: {', '.join(source.name for source in stage.tasks)} give no problem; raise their count")
    return Protocol(
        tasks, stage.sampling, stage.num_samples, stage.num_sampled_problems, stage.few_shot, stage.system,
        stage.confidence, stage.max_no_verdict, seed, stage.tools,
    )  # fmt: skip


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


def answer_all(
    folder: Path, protocol: Protocol, machine: Machine, examples: Examples | None, pool: VerifierPool,
    documents: Mapping[str, Sequence[str]], ranks: Ranks = ALONE,
) -> ModelAnswers:  # fmt: skip
    """Everything that is asked of one model. With examples (also with none at hand) it is asked plainly too, and the
    better format counts; with None only as a chat. Of several ranks each has the model whole and answers a share."""
    with open_tools(protocol.tools, machine.num_verifier_workers) as tools:
        return _answer_all(folder, protocol, machine, examples, pool, documents, tools, ranks)


def _answer_all(
    folder: Path, protocol: Protocol, machine: Machine, examples: Examples | None, pool: VerifierPool,
    documents: Mapping[str, Sequence[str]], tools: Toolbox | None, ranks: Ranks,
) -> ModelAnswers:  # fmt: skip
    model, tokenizer = load_model(folder, "bf16", machine.device)
    engine = RolloutEngine(model, tokenizer, tools=tools)
    faults = Breaker(protocol.max_no_verdict)
    asking = Asking(pool, examples or {}, protocol.few_shot, protocol.system, protocol.seed, faults, ranks)
    greedy = Sampling(temperature=0.0, max_new_tokens=protocol.sampling.max_new_tokens)
    forms = (CHAT, FEW_SHOT) if examples is not None and protocol.few_shot else (CHAT,)
    shares: dict[str, float] = {}
    if len(forms) > 1:
        trial = [protocol.tasks[index] for index in protocol.in_turn(NUM_FORMAT_TRIALS)]
        for form in forms:
            tried = [group[0] for group in ask(engine, trial, form, asking, greedy, 1)]
            shares[form] = accuracy(tried, protocol.confidence)["value"]
    best = max(forms, key=lambda form: shares.get(form, 0.0))
    answers = [group[0] for group in ask(engine, protocol.tasks, best, asking, greedy, 1)]
    problems = [protocol.tasks[index] for index in protocol.sampled_problems()]
    sampled = ask(engine, problems, best, asking, protocol.sampling, protocol.num_samples) if problems else []
    engine.release()
    bits = {name: bits_per_byte(model, tokenizer, texts, ranks) for name, texts in documents.items()}
    del model, engine
    gc.collect()
    if machine.device == "cuda":
        torch.cuda.empty_cache()
    return ModelAnswers(best, answers, sampled, bits, shares or {best: accuracy(answers, protocol.confidence)["value"]})


def compare(answers: Mapping[str, ModelAnswers], protocol: Protocol) -> dict[str, Any]:
    """Each model's figures, gains over the first model, and gains between all pairs."""
    confidence, seed = protocol.confidence, protocol.seed
    names = list(answers)
    pairs = {f"{a}->{b}": gain(answers[a], answers[b], confidence, seed) for a in names for b in names if a != b}
    return {
        "models": {name: model_figures(answers[name], protocol.tasks, confidence, seed) for name in names},
        "gains": {name: pairs[f"{names[0]}->{name}"] for name in names[1:]},
        "pairwise": pairs,
        "confidence": confidence,
    }


def sample_lines(
    answers: Mapping[str, ModelAnswers], protocol: Protocol, audited: Audited | None = None
) -> Iterator[str]:
    """Lines of `samples.jsonl`: every model's greedy answer to every problem, with the auditor's verdict if it has one.
    """
    for name, model in answers.items():
        second = audited.verdicts[name] if audited is not None else {}
        for place, (task, answer) in enumerate(zip(protocol.tasks, model.greedy, strict=True)):
            about = {
                "model": name,
                "task": task.id,
                "source": task.source,
                "prompt": task.prompt,
                "answer": task.answer,
            }
            again = second.get(place)
            told = {} if again is None else {
                "audit": {"outcome": again.outcome.value, "extracted": again.extracted, "reason": again.reason}
            }  # fmt: skip
            yield json.dumps({**about, **answer.as_dict(), "format": model.form, **told}, ensure_ascii=False) + "\n"


def evaluate_model(
    folder: Path | str, protocol: Protocol, judge: str | None = None, machine: Machine | None = None,
    examples: Examples | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One checkpoint without a recipe.

    Args:
        folder: Any Qwen2 checkpoint in Hugging Face layout.
        protocol: Problems and settings.
        judge: Verifier for all problems; None takes each problem's own.
        machine: Where it runs; by default this machine's CPU.
        examples: Solved examples by task set; with them the model is also asked plainly, and the better format counts.

    Returns:
        `{"model": one entry of results.json, "floor": ..., "samples": [one dict a problem]}`.
    """
    machine = machine or Machine(name="cpu")
    set_up(machine, protocol.seed)
    if not protocol.tasks:
        raise UserError("tasks: no problem was given; give at least one")
    with VerifierPool(machine.num_verifier_workers, verifier=judge, max_no_verdict=protocol.max_no_verdict) as pool:
        answers = answer_all(Path(folder), protocol, machine, examples, pool, {})
        constant = floor(protocol.tasks, pool.judge)
    return {
        "model": model_figures(answers, protocol.tasks, protocol.confidence, protocol.seed),
        "floor": constant,
        "samples": [json.loads(line) for line in sample_lines({str(folder): answers}, protocol)],
    }


class Partial:
    """`OUT/checkpoints/evaluated-NAME.json`: one finished model's answers, until the stage is done."""

    def __init__(self, out: Path, name: str, run: str) -> None:
        self.path, self.run = out / "checkpoints" / f"evaluated-{name}.json", run

    def read(self) -> ModelAnswers | None:
        """The answers, if they are there and of this very run."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return ModelAnswers.from_dict(content["answers"]) if content.get("fingerprint") == self.run else None

    def write(self, answers: ModelAnswers) -> None:
        if not self.path.exists() or self.read() is None:
            write_text_atomic(self.path, json.dumps({"fingerprint": self.run, "answers": answers.as_dict()}) + "\n")

    @staticmethod
    def drop_all(out: Path) -> None:
        """Forget the partial results."""
        for path in (out / "checkpoints").glob("evaluated-*.json"):
            path.unlink()
        if (out / "checkpoints").is_dir():
            (out / "checkpoints").rmdir()


if __name__ == "__main__":
    sys.exit(run_command("evaluate", run, __doc__ or ""))

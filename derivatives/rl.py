"""Reinforcement learning from verifier rewards, on one device, with rollouts from the very weights that are trained.

    python -m derivatives.rl STAGE.json OUT/

Each step draws problems (`rollout/curriculum.py`), completes each of them `group_size` times and judges the completions
while others still grow (`rollout/judged.py`), turns scores into group-relative advantages, and updates on packed rows.
Reads `problems.jsonl` of corpus stages or JSONL files with `prompt` and `answer`; writes `model/`, `metrics.json`,
`progress.jsonl`, `plots/` and `rollouts.jsonl`. A killed run goes on with the same command, to the same bytes.

Sources: GRPO (arXiv:2402.03300), DAPO (arXiv:2503.14476) and others, see `losses/`. With one update per step the policy
that drew is the policy that is trained: the ratio is exactly 1, and the sampler's own log-probabilities serve as a
check (`rl/mismatch`), not as the ratio's denominator. With more, the step's problems are split into as many parts, and
the old log-probabilities are the trainer's own before the first update.

What counts in the loss: a completion without verdict, and a cut one where `truncated` is mask, is in neither the
group's mean nor the normaliser. A completion with advantage 0 is in the normaliser, but is not computed (unless there
is a KL term, which it would move). Not done: several devices, several turns, rewards other than the verifier's score.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.schema import RlStage, TaskSource
from configs.stage import StageFile, run_command, write_text_atomic
from derivatives.rollout.curriculum import Curriculum
from derivatives.rollout.engine import RolloutEngine
from derivatives.rollout.judged import Batch, Group, Journal, Judged, roll_out
from derivatives.rollout.policy_update import LOSSES, PolicyUpdate
from derivatives.training import checkpoint, metrics
from derivatives.training.chat import conversation, encode_chat
from derivatives.training.loop import Trainer, fingerprint, finished
from verifiers.api import Task
from verifiers.pool import VerifierPool
from verifiers.tasks import load_tasks

NUM_KEPT_STEPS = 50
"""Steps of which `rollouts.jsonl` keeps samples, spread evenly over the stage."""
NUM_KEPT_GROUPS = 2
MISMATCH_ALARM = 0.05
"""Mean distance, in nats, between the sampler's and the trainer's log-probabilities of a token, above which something
is wrong (bf16 rounding alone was measured at a fifth of it)."""
MIN_JUDGED = 200
"""The share of missing verdicts is taken of at least this many, so that one fault in a small step stops nothing."""

log = logging.getLogger(__name__)


def run(stage_file: StageFile, out: Path) -> None:
    """The whole stage: problems, steps, model."""
    stage = stage_file.stage
    assert isinstance(stage, RlStage)
    if finished(stage_file, out):
        return
    check_settings(stage)
    tasks = read_problems(stage_file, stage)
    trainer = Trainer(stage_file, out)
    check_lengths(tasks, trainer, stage)
    curriculum = Curriculum(len(tasks), stage_file.seed, stage.curriculum)
    if "curriculum" in trainer.state:
        curriculum.restore(trainer.state["curriculum"])
    faults = Faults(stage, trainer.state.get("faults", []))
    engine = RolloutEngine(trainer.model, trainer.tokenizer)
    update = PolicyUpdate(trainer, stage, stage_file)
    if "entropy" in trainer.state:
        update.entropy.restore(trainer.state["entropy"])
    journal = Journal(out, fingerprint(stage_file))
    samples = Samples(out, trainer.step, stage.steps)

    with VerifierPool(stage_file.machine.num_verifier_workers, verifier=stage.verifier) as pool:
        for step in trainer.steps(stage.steps):
            chosen = curriculum.draw(step, stage.prompts_per_step)
            started = time.perf_counter()
            groups = journal.read(step, chosen)
            if groups is None:
                batch = as_batch([tasks[index] for index in chosen], trainer, stage, step)
                groups = roll_out(engine, pool, batch, stage.sampling, stage_file.seed)
                faults.check(groups)
                journal.write(step, chosen, groups)
            rollout_s = time.perf_counter() - started
            faults.note(groups)
            samples.write(step, [tasks[index] for index in chosen], groups)
            quantities = update.step([encode_prompt(tasks[index], trainer, stage) for index in chosen], groups)
            for index, group in zip(chosen, groups, strict=True):
                known = [one.verdict.score for one in group if not one.missing]
                if known:
                    curriculum.note(index, sum(known) / len(known))
            trainer.state = {
                "curriculum": curriculum.state(),
                "faults": faults.recent,
                "entropy": update.entropy.state(),
            }
            if quantities["mismatch"] > MISMATCH_ALARM:
                log.warning(
                    "step %d: the sampler's log-probabilities are off by %.3f nats", step, quantities["mismatch"]
                )
            trainer.record(**quantities, **describe(groups, rollout_s))
            journal.drop_before(min(checkpoint.steps(out), default=0) + 1)
    metrics.plot_curves(out, ["rl/reward", "rl/solved_fraction", "rl/length", "rl/entropy", "rl/mismatch"])
    trainer.finish(problems=len(tasks), verifier=stage.verifier)


def check_settings(stage: RlStage) -> None:
    """The policy that is trained must be the one that draws; no setting contradicts another. Raises UserError."""
    sampling = stage.sampling
    if sampling.temperature == 0.0:
        raise UserError("stage.sampling.temperature: 0 draws the same completion for a whole group; allowed: above 0")
    if sampling.top_p < 1.0 or sampling.top_k > 0 or sampling.min_p > 0.0:
        raise UserError(
            f"stage.sampling: top_p {sampling.top_p}, top_k {sampling.top_k} and min_p {sampling.min_p} draw from "
            "another distribution than the one that is trained; allowed in RL: top_p 1, top_k 0 and min_p 0"
        )
    if stage.loss == "dapo" and stage.kl_coefficient > 0:
        raise UserError(
            f"stage.kl_coefficient: {stage.kl_coefficient}; DAPO has no KL term: set it to 0, or loss to grpo"
        )
    if LOSSES[stage.loss].ON_POLICY_ONLY and stage.updates_per_step > 1:
        raise UserError(
            f"stage.updates_per_step: {stage.updates_per_step}; loss {stage.loss} has no ratio that would correct for "
            "a policy that has moved: set it to 1, or loss to grpo"
        )
    if stage.overlong_buffer is not None and stage.truncated != "shaped":
        raise UserError(
            f"stage.overlong_buffer: {stage.overlong_buffer} is read only with truncated shaped, not "
            f"{stage.truncated}: set stage.truncated=shaped, or leave it out"
        )
    if stage.overlong_buffer is not None and stage.overlong_buffer > stage.sampling.max_new_tokens:
        raise UserError(
            f"stage.overlong_buffer: {stage.overlong_buffer} is longer than sampling.max_new_tokens "
            f"{stage.sampling.max_new_tokens}; allowed: at most that"
        )


def read_problems(stage_file: StageFile, stage: RlStage) -> list[Task]:
    """All problems of the stage's data, in order. Raises UserError if there are too few for one step."""
    tasks: list[Task] = []
    for name in stage.data:
        path = Path(name) if name.endswith(".jsonl") else stage_file.data_folder(name) / "problems.jsonl"
        tasks += load_tasks(TaskSource(name=str(path), split="all"))
    if len(tasks) < stage.prompts_per_step:
        raise UserError(
            f"stage.prompts_per_step: {stage.prompts_per_step} distinct problems a step, but {', '.join(stage.data)} "
            f"has {len(tasks)}; lower it or give more problems"
        )
    return tasks


def check_lengths(tasks: Sequence[Task], trainer: Trainer, stage: RlStage) -> None:
    """Every problem leaves the model room for an answer; else the run would end at the step that draws it."""
    limit = trainer.model.config.max_position_embeddings
    for task in tasks:
        length = len(encode_prompt(task, trainer, stage))
        if length + stage.sampling.max_new_tokens > limit:
            raise UserError(
                f"stage.sampling.max_new_tokens: {stage.sampling.max_new_tokens} after the {length} tokens of problem "
                f"{task.id}; the model has {limit} positions; lower it or leave that problem out"
            )


def encode_prompt(task: Task, trainer: Trainer, stage: RlStage) -> list[int]:
    """Token ids of a problem as a chat turn."""
    return encode_chat(trainer.tokenizer, conversation(task.prompt, stage.system), add_generation_prompt=True)


def as_batch(tasks: Sequence[Task], trainer: Trainer, stage: RlStage, step: int) -> Batch:
    """What a step rolls out; a problem that comes back in another step draws other random numbers."""
    prompts = [encode_prompt(task, trainer, stage) for task in tasks]
    keys = [f"{step}/{number}/{task.id}" for number, task in enumerate(tasks)]
    return Batch(tasks, prompts, keys, stage.group_size)


class Faults:
    """Verdicts that were missing lately, by reason; the stage stops when they are too many.

    Only the latest verdicts are looked at, and a step that is refused is not journalled: when the verifier is mended,
    the same command goes on.
    """

    def __init__(self, stage: RlStage, recent: list[str]) -> None:
        self.stage, self.recent = stage, list(recent)

    def after(self, groups: Sequence[Group]) -> list[str]:
        """Reasons of the latest verdicts with these groups', empty where there was a verdict."""
        new = [(one.verdict.reason or "no_reason") if one.missing else "" for group in groups for one in group]
        return [*self.recent, *new][-max(MIN_JUDGED, len(new)) :]

    def note(self, groups: Sequence[Group]) -> None:
        self.recent = self.after(groups)

    def check(self, groups: Sequence[Group]) -> None:
        """Raises UserError that names the most frequent reason."""
        recent = self.after(groups)
        reasons = Counter(filter(None, recent))
        if reasons.total() > self.stage.max_no_verdict * max(len(recent), MIN_JUDGED):
            worst, count = reasons.most_common(1)[0]
            raise UserError(
                f"stage.max_no_verdict: {reasons.total()} of the last {len(recent)} completions got no verdict; "
                f"allowed is a share of {self.stage.max_no_verdict}; {count} times verifier {self.stage.verifier!r} "
                f"gave {worst!r}: mend it or the data, then run the same command again"
            )


def describe(groups: Sequence[Group], rollout_s: float) -> dict[str, float]:
    """What the progress log says of a step's rollouts; means are over completions with a verdict.

    `tokens` are those drawn, so that the log's tokens per second are of the whole step.
    """
    every = [one for group in groups for one in group]
    known = [one for one in every if not one.missing]
    num_tokens = sum(len(one.completion.token_ids) for one in every)
    return {
        "reward": _mean([one.verdict.score for one in known]),
        "solved_fraction": _mean([float(one.verdict.score == 1.0) for one in known]),
        "length": num_tokens / len(every),
        "truncated": _mean([float(one.truncated) for one in every]),
        "no_verdict": _mean([float(one.missing) for one in every]),
        "tokens": num_tokens,
        "rollout_tokens_per_s": round(num_tokens / max(rollout_s, 1e-9), 1),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


class Samples:
    """`rollouts.jsonl`: every few steps, all completions of the step's first groups with their verdicts."""

    def __init__(self, out: Path, resume_step: int, num_steps: int) -> None:
        self.path, self.every = out / "rollouts.jsonl", max(1, num_steps // NUM_KEPT_STEPS)
        old = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        kept = [line for line in old if _step_of(line) <= resume_step]
        write_text_atomic(self.path, "".join(f"{line}\n" for line in kept))

    def write(self, step: int, tasks: Sequence[Task], groups: Sequence[Group]) -> None:
        """Append this step's, if it is one of those that are kept."""
        if (step - 1) % self.every:
            return
        with self.path.open("a", encoding="utf-8") as file:
            for task, group in list(zip(tasks, groups, strict=True))[:NUM_KEPT_GROUPS]:
                for one in group:
                    file.write(json.dumps(_sample(step, task, one), ensure_ascii=False) + "\n")


def _sample(step: int, task: Task, one: Judged) -> dict[str, Any]:
    about = {
        "step": step,
        "task": task.id,
        "prompt": task.prompt,
        "answer": task.answer,
        "metadata": dict(task.metadata),
    }
    sample = {**about, **one.summary()}
    del sample["seconds"]  # a clock's reading would make two equal runs differ
    return sample


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # torn by a kill


if __name__ == "__main__":
    sys.exit(run_command("rl", run, __doc__ or ""))

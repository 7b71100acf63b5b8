"""Reinforcement learning from verifier rewards, with rollouts from the very weights that are trained.

    python -m derivatives.rl STAGE.json OUT/

Each step draws problems (`rollout/curriculum.py`), completes each of them `group_size` times and judges the completions
while others still grow (`rollout/judged.py`), turns scores into group-relative advantages, and updates on packed rows.
Reads `problems.jsonl` of corpus stages or JSONL files with `prompt` and `answer`; writes `model/`, `metrics.json`,
`progress.jsonl`, `plots/`, `rollouts/` (every completion, see `rollout/store.py`) and `rollouts.jsonl` (a few of them
to read). A killed run goes on with the same command, to the same bytes.

Sources: GRPO (arXiv:2402.03300), DAPO (arXiv:2503.14476) and others, see `losses/`. With one update per step the policy
that drew is the policy that is trained: the ratio is exactly 1, and the sampler's own log-probabilities serve as a
check (`rl/mismatch`), not as the ratio's denominator. With more, the step's problems are split into as many parts, and
the old log-probabilities are the trainer's own before the first update. Where a vLLM server draws
(`machine.rollout`, see `rollout/vllm_engine.py`), it gets the weights before each step, and a token counts by its
probability under the trainer over that under the server, up to a cap (`losses/importance.py`).

The stage stops when more than `max_no_verdict` of the latest verdicts are missing (`verifiers/breaker.py`). The step in
which that happens is not stored: when the verifier is mended, the same command goes on.

The reward is 1 or 0 by the verifier's verdict (its score with `partial_credit`), plus those of `more_rewards` times
their weights; the log has each score apart. An independent verifier may look at samples (`rollout/audit.py`). Groups
without spread may be replaced by groups of other problems (`replacement_rounds`), completions may grow longer in stages
(`length_stages`), problems that teach nothing retire (`retire_after`). `derive fork` goes on from a kept checkpoint,
with something changed (`rollout/fork.py`).

What counts in the loss: a completion without verdict, and a cut one where `truncated` is mask, is in neither the
group's mean nor the normaliser. A completion with advantage 0 is in the normaliser, but is not computed (unless there
is a KL term, which it would move). With `tools`, programs that a completion writes are run and their output is fed back
(`rollout/tools.py`); what was fed is in no loss, no length and no measure.

On several ranks each completes and judges a share of the problems with a whole copy of the policy, and trains on a
share of the rows (`rollout/on_ranks.py`); all of them hear of all groups, and the first one writes.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from configs.settings.reinforcement import RlStage, check_rl_settings
from configs.stage import StageFile, run_command, write_text_atomic
from derivatives.rollout import fork
from derivatives.rollout.audit import Auditor
from derivatives.rollout.curriculum import Curriculum, limit_at
from derivatives.rollout.engine import RolloutEngine
from derivatives.rollout.judged import Batch, Group, Judged, Rolled, roll_out, roll_out_step
from derivatives.rollout.on_ranks import PATIENCE_S, WholePolicy, audited, share_out
from derivatives.rollout.pass_rates import read_pass_rates, with_pass_rates
from derivatives.rollout.policy_update import PolicyUpdate
from derivatives.rollout.problems import check_lengths, encode_prompt, read_tasks
from derivatives.rollout.store import RolloutStore
from derivatives.rollout.tools import FAULT, FORGED, OUT_OF_TURNS, open_tools
from derivatives.rollout.vllm_engine import Engine, VllmEngine, open_engine
from derivatives.training import checkpoint, metrics
from derivatives.training.loop import Trainer, fingerprint, finished
from derivatives.training.ranks import joined
from verifiers.api import Task
from verifiers.breaker import Breaker
from verifiers.control_arms import SEED_KEY
from verifiers.pool import VerifierPool

NUM_KEPT_STEPS = 50
"""Steps of which `rollouts.jsonl` keeps samples, spread evenly over the stage."""
NUM_KEPT_GROUPS = 2
MISMATCH_ALARM = 0.05
"""Mean distance, in nats, between the sampler's and the trainer's log-probabilities of a token, above which something
is wrong (bf16 rounding alone was measured at a fifth of it)."""

log = logging.getLogger(__name__)


def run(stage_file: StageFile, out: Path) -> None:
    """The whole stage: problems, steps, model."""
    stage = stage_file.stage
    assert isinstance(stage, RlStage)
    with joined(stage_file.machine, out, PATIENCE_S) as ranks:
        if finished(stage_file, out):
            return
        check_rl_settings(stage)
        tasks, rates, left_out = read_problems(stage_file, stage)
        if ranks.first:
            fork.begin(stage_file, out)
        ranks.gather(None)  # nobody looks for a checkpoint before it is there
        trainer = Trainer(stage_file, out, ranks)
        if stage.fork is not None and trainer.step < stage.fork.step:
            raise UserError(
                f"stage.fork: no checkpoint in {out} can be read, so that the fork would begin anew; remove its folder "
                "checkpoints and run again, which takes the other run's state once more"
            )
        more = train(stage_file, stage, trainer, tasks, rates)
        trainer.finish(problems=len(tasks), verifier=stage.verifier, **left_out, **more)


def train(
    stage_file: StageFile, stage: RlStage, trainer: Trainer, tasks: Sequence[Task], rates: Sequence[float] | None
) -> dict[str, Any]:
    """All steps that are left, and the curves; what `metrics.json` says besides. Every rank must call it."""
    out, first = trainer.out, trainer.ranks.first
    check_lengths(tasks, trainer.model, trainer.tokenizer, stage.system, stage.sampling.max_new_tokens)
    samples = Samples(out, trainer.step, stage.steps) if first else None
    num_workers = stage_file.machine.num_verifier_workers
    server = stage_file.machine.rollout  # one for all ranks; the first asks it
    whole = None if trainer.ranks.alone else WholePolicy(trainer, for_server=server is not None)
    policy = trainer.model if whole is None else whole.model
    with (
        VerifierPool(num_workers, max_no_verdict=stage.max_no_verdict) as pool,
        Auditor(stage.audit, stage_file.seed, stage.partial_credit)
        if stage.audit is not None
        else nullcontext() as auditor,
        open_tools(stage.tools, num_workers) as tools,
        nullcontext() if policy is None else open_engine(policy, trainer.tokenizer, server, out, tools) as engine,
    ):
        steps = Steps(stage_file, trainer, tasks, pool, auditor, engine, rates, whole)
        for step in trainer.steps(stage.steps):
            if first:
                fork.keep(out, step - 1, stage.fork_every)
            started = time.perf_counter()
            rolled = steps.rolled_out(step)
            rollout_s = time.perf_counter() - started
            if samples is not None:
                samples.write(step, [tasks[index] for index in rolled.problems], rolled.groups)
            quantities = steps.update_on(step, rolled)
            if quantities["mismatch"] > MISMATCH_ALARM:
                log.warning(
                    "step %d: the sampler's log-probabilities are off by %.3f nats", step, quantities["mismatch"]
                )
            trainer.record(**quantities, **describe(rolled.groups, rollout_s, stage), **steps.engine_figures())
            if first:
                # The checkpoint of this step, if there will be one, is written after it: the ones before may be needed.
                steps.store.drop(min(checkpoint.steps(out), default=0) + 1, stage.keep_rollouts, stage.steps)
    if first:
        steps.store.drop(stage.steps + 1, stage.keep_rollouts, stage.steps)
        curves = ["reward", "solved_fraction", "length", "entropy", "mismatch"]
        curves += ["audit_reward", "audit_truth", "audit_gap"] if auditor is not None else []
        curves += ["programs", "programs_failed"] if stage.tools is not None else []
        metrics.plot_curves(out, [f"rl/{name}" for name in curves])
    return {} if auditor is None else auditor.figures()


class Steps:
    """What the steps of a run share: the curriculum, the engine, the update, the store; restored where one resumes."""

    def __init__(
        self,
        stage_file: StageFile,
        trainer: Trainer,
        tasks: Sequence[Task],
        pool: VerifierPool,
        auditor: Auditor | None,
        engine: Engine | None,
        rates: Sequence[float] | None = None,
        whole: WholePolicy | None = None,
    ) -> None:
        stage = stage_file.stage
        assert isinstance(stage, RlStage)
        self.ranks, self.whole, self.has_server = trainer.ranks, whole, stage_file.machine.rollout is not None
        self.stage, self.seed, self.trainer, self.tasks = stage, stage_file.seed, trainer, tasks
        self.pool, self.auditor, self.engine = pool, auditor, engine
        self.verifiers = [stage.verifier, *(reward.verifier for reward in stage.more_rewards)]
        self.faults = Breaker(stage.max_no_verdict)
        self.curriculum = Curriculum(len(tasks), stage_file.seed, stage.curriculum, stage.retire_after, rates)
        self.update = PolicyUpdate(trainer, stage, stage_file)
        self.update.importance_cap = stage.importance_cap if stage_file.machine.rollout is not None else None
        audit = stage.audit.verifier if stage.audit is not None else None
        self.store = RolloutStore(trainer.out, fingerprint(stage_file), self.verifiers, audit)
        if self.ranks.first:
            self.store.write_problems(tasks)
        kept: list[tuple[str, Any]] = [
            ("curriculum", self.curriculum),
            ("entropy", self.update.entropy),
            ("audit", auditor),
        ]
        self.kept = [(name, one) for name, one in kept if one is not None]
        for name, one in self.kept:
            if name in trainer.state:
                one.restore(trainer.state[name])

    def rolled_out(self, step: int) -> Rolled:
        """The step's groups with verdicts: from the store, if a run that was killed got that far, else drawn now."""
        limit = self.limit(step)
        if step > 1 and limit > self.limit(step - 1):
            self.curriculum.note_longer()
        self.update.limit = limit
        count = self.stage.prompts_per_step
        chosen = self.curriculum.draw(step, count)
        found = self.store.read(step, chosen, self.trainer.tokenizer)
        if all(self.ranks.gather(found is not None)):
            assert found is not None
            return found
        if self.whole is not None:
            self.whole.refresh()
        if isinstance(self.engine, VllmEngine):
            self.engine.sync(step - 1)

        def roll(problems: Sequence[int], before: int) -> list[Group]:
            def draw(places: Sequence[int]) -> list[Group]:
                tasks = [self.tasks[problems[place]] for place in places]
                numbers = [before + place for place in places]
                batch = as_batch(tasks, self.trainer, self.stage, step, numbers)
                sampling = self.stage.sampling.model_copy(update={"max_new_tokens": limit})
                assert self.engine is not None
                return roll_out(self.engine, self.pool, batch, sampling, self.seed, self.faults)

            return share_out(self.ranks, len(problems), draw, self.has_server)

        def more(wanted: int, already: int) -> list[int]:
            return self.curriculum.more(step, count, wanted, already)

        rolled = roll_out_step(chosen, roll, more, self.update.has_spread, self.stage.replacement_rounds)
        if isinstance(self.engine, RolloutEngine) and self.trainer.device == "cuda":
            self.engine.release()  # its cache takes up to a third of the device, which the update needs
            torch.cuda.empty_cache()
        if self.auditor is not None:
            tasks = [self.tasks[index] for index in rolled.problems]
            rolled = replace(rolled, groups=audited(self.ranks, self.auditor, step, tasks, rolled.groups))
        if not self.ranks.first:
            return rolled
        rewards_PG, known_PG = self.update.rewards(rolled.groups)
        rows = zip(rewards_PG.tolist(), known_PG.tolist(), strict=True)
        self.store.write(
            step, rolled, [[value if known else None for value, known in zip(*row, strict=True)] for row in rows]
        )
        return rolled

    def update_on(self, step: int, rolled: Rolled) -> dict[str, float]:
        """Train on a step's groups and take in what they showed; what the progress log says of it."""
        num_first, num_groups = self.stage.prompts_per_step, len(rolled.groups)
        trained = [rolled.groups[place] for place in rolled.trained]
        tasks = [self.tasks[rolled.problems[place]] for place in rolled.trained]
        prompts = [encode_prompt(task, self.trainer.tokenizer, self.stage.system) for task in tasks]
        quantities = self.update.step(prompts, trained)
        without = sum(not self.update.has_spread(group) for group in rolled.groups)
        quantities["groups_without_spread"] = without / num_groups
        if self.stage.replacement_rounds:
            quantities["groups_replaced"] = sum(place >= num_first for place in rolled.trained)
            quantities["groups_drawn"] = num_groups
        for index, group in zip(rolled.problems, rolled.groups, strict=True):
            known = [float(one.verdict.score == 1.0) for one in group if not one.missing]
            if known:
                self.curriculum.note(index, sum(known) / len(known))
        self.curriculum.num_extra += num_groups - num_first
        if self.stage.retire_after is not None:
            quantities["retired"] = int(self.curriculum.retired().sum())
        if self.stage.length_stages:
            quantities["max_new_tokens"] = self.update.limit
        if self.auditor is not None:
            tasks = [self.tasks[index] for index in rolled.problems]
            quantities |= self.auditor.note(step, rolled.groups, tasks)
            if self.ranks.first:
                self.auditor.write(self.trainer.out, self.stage.verifier)
            if self.auditor.alarms[-1:] == [step] and len(self.auditor.alarms) == 1:  # the curve shows the rest
                log.warning("%s", self.auditor.warning())
        self.trainer.state = {name: one.state() for name, one in self.kept}
        return quantities

    def engine_figures(self) -> dict[str, float]:
        """What the progress log says of a server's last sync; nothing of the engine in this process."""
        return self.engine.figures if isinstance(self.engine, VllmEngine) else {}

    def limit(self, step: int) -> int:
        """Longest completion of a step, in tokens."""
        return limit_at(step, self.stage.steps, [*self.stage.length_stages, self.stage.sampling.max_new_tokens])


def read_problems(stage_file: StageFile, stage: RlStage) -> tuple[list[Task], list[float] | None, dict[str, int]]:
    """The problems of the stage, in order; their pass rates, where they were measured; how many were left out and why.

    Raises:
        UserError: There are too few for one step, or not every problem has one pass rate.
    """
    tasks = read_tasks(stage_file, stage.data)
    rates: list[float] | None = None
    left_out: dict[str, int] = {}
    if stage.pass_rates is not None:
        known = read_pass_rates(stage_file, stage.pass_rates.stage)
        tasks, rates, left_out = with_pass_rates(tasks, known, stage.pass_rates)
    if stage.control == "random":  # the coin is tossed for this run's seed, and for no stage that is no control
        tasks = [replace(task, metadata={**task.metadata, SEED_KEY: stage_file.seed}) for task in tasks]
    if len(tasks) < stage.prompts_per_step:
        without = ", ".join(f"{name} {count}" for name, count in left_out.items())
        raise UserError(
            f"stage.prompts_per_step: {stage.prompts_per_step} distinct problems a step, but {', '.join(stage.data)} "
            f"has {len(tasks)}{f' ({without})' if without else ''}; lower it or give more problems"
        )
    return tasks, rates, left_out


def as_batch(tasks: Sequence[Task], trainer: Trainer, stage: RlStage, step: int, numbers: Sequence[int]) -> Batch:
    """What a step rolls out; `numbers` count its groups, so that a problem that comes back draws anew."""
    prompts = [encode_prompt(task, trainer.tokenizer, stage.system) for task in tasks]
    keys = [f"{step}/{number}/{task.id}" for number, task in zip(numbers, tasks, strict=True)]
    verifiers = [stage.verifier, *(reward.verifier for reward in stage.more_rewards)]
    return Batch(tasks, prompts, keys, stage.group_size, verifiers)


def describe(groups: Sequence[Group], rollout_s: float, stage: RlStage) -> dict[str, float]:
    """What the progress log says of a step's rollouts; means are over completions with a verdict.

    `solved_any` is the share of problems with a right completion, pass@k with the group's size as k. `tokens` are those
    drawn (not fed), so that the log's tokens per second are of the whole step.
    """
    every = [one for group in groups for one in group]
    known = [one for one in every if not one.missing]
    num_tokens = sum(one.completion.num_drawn for one in every)
    weights = [reward.weight for reward in stage.more_rewards]
    names = [stage.verifier, *(reward.verifier for reward in stage.more_rewards)] if weights else []
    return {
        "reward": _mean([one.reward(weights, stage.partial_credit) for one in known]),
        **{
            f"score_{name}": _mean([(one.verdict, *one.more)[place].score for one in known])
            for place, name in enumerate(names)
        },
        "solved_fraction": _mean([float(one.verdict.score == 1.0) for one in known]),
        "solved_any": _mean([float(any(one.verdict.score == 1.0 for one in group)) for group in groups]),
        "length": num_tokens / len(every),
        "truncated": _mean([float(one.truncated) for one in every]),
        "no_verdict": _mean([float(one.missing) for one in every]),
        "tokens": num_tokens,
        "rollout_tokens_per_s": round(num_tokens / max(rollout_s, 1e-9), 1),
        **(describe_tools(every) if stage.tools is not None else {}),
    }


def describe_tools(every: Sequence[Judged]) -> dict[str, float]:
    """What a step's completions did with their programs: how many ran each, of those the share that failed, the tokens
    that were fed, and the shares that ran out of turns, wrote an output themselves, or lost their sandbox."""
    programs = [fed for one in every for fed in one.completion.fed]
    ends = [one.completion.finish_reason for one in every]
    return {
        "programs": len(programs) / len(every),
        "programs_failed": _mean([float(bool(fed.failed)) for fed in programs]),
        "fed_tokens": sum(fed.end - fed.start for fed in programs) / len(every),
        "out_of_turns": ends.count(OUT_OF_TURNS) / len(every),
        "forged_output": ends.count(FORGED) / len(every),
        "tool_fault": ends.count(FAULT) / len(every),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


class Samples:
    """`rollouts.jsonl`: every few steps, all completions of the step's first groups with their verdicts."""

    def __init__(self, out: Path, resume_step: int, num_steps: int) -> None:
        self.path, self.every = out / "rollouts.jsonl", max(1, num_steps // NUM_KEPT_STEPS)
        old = self.path.read_text(encoding="utf-8").split("\n") if self.path.exists() else []
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

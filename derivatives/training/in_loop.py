"""What a model knows while it trains: bits per byte of held-out texts, with an alarm, and answers to held-out problems.

Texts are measured before the first step and then every `evaluate_every` steps and after the last. The first figures
stay in the checkpoints; where a text's bits per byte rise above its own by more than `max_forgetting`, the alarm names
it and warns once, or stops the stage. Problems are answered greedily, in the chat format, by the rollout engine from
the very weights that are trained, and judged by each set's verifier in its killable workers.

Measuring draws nothing from the run's random numbers and counts as no step's time, so the trained model is the same
with and without it. Texts are spread over all ranks; problems need one process.

Sources: bits per byte as in `evaluation/texts.py`, which the evaluate stage uses; fewer bytes are read here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from configs.errors import UserError
from configs.settings.common import Sampling
from configs.settings.reinforcement import RlStage
from derivatives.evaluation.answers import Asking, ask
from derivatives.evaluation.formats import CHAT
from derivatives.evaluation.texts import read_texts, text_rows
from derivatives.losses.cross_entropy import chunked_cross_entropy
from derivatives.rollout.engine import RolloutEngine
from derivatives.training.batch import PackedBatch, Row, pack_share
from derivatives.training.loop import Trainer
from derivatives.training.model import head_weight, num_real_tokens
from verifiers.api import Outcome, Task
from verifiers.pool import VerifierPool
from verifiers.tasks import load_tasks

MAX_BYTES = 50_000
"""Text that is read of each source: a fair figure that costs seconds."""

log = logging.getLogger(__name__)


class InLoop:
    """The held-out measures of one run."""

    def __init__(self, trainer: Trainer) -> None:
        stage = trainer.stage
        assert not isinstance(stage, RlStage)
        self.trainer, self.stage = trainer, stage
        self.texts: dict[str, tuple[list[Row], int]] = {}
        self.alarm = ""
        self._warned: set[str] = set()
        positions = int(trainer.model.config.max_position_embeddings)
        for name, documents in read_texts(stage.heldout_text, MAX_BYTES).items():
            rows, num_bytes = text_rows(trainer.tokenizer, documents, min(positions, stage.micro_batch_tokens))
            self.texts[name.replace("/", ".")] = rows, num_bytes
        if self.texts and "heldout_bits" not in trainer.state:
            trainer.state["heldout_bits"] = self._bits()

    @property
    def before(self) -> dict[str, float]:
        """Bits per byte of each text before the first step."""
        found: dict[str, float] = self.trainer.state.get("heldout_bits", {})
        return found

    def measure_texts(self) -> dict[str, float]:
        """Bits per byte by text, and the largest rise; sets off the alarm."""
        bits = self._bits()
        rises = {name: value / self.before[name] - 1.0 for name, value in bits.items()}
        forgotten = {name: rise for name, rise in rises.items() if not rise <= self.stage.max_forgetting}
        new = sorted(forgotten.keys() - self._warned)
        if new:
            self._warned |= forgotten.keys()
            told = ", ".join(
                f"{name} from {self.before[name]:.3f} to {bits[name]:.3f} bits per byte ({rises[name]:+.1%})"
                for name in new
            )
            self.alarm = f"step {self.trainer.step}: forgetting: {told}; allowed is {self.stage.max_forgetting:+.1%}"
            log.warning("%s", self.alarm)
        return {**{f"heldout_bits/{name}": value for name, value in bits.items()}, "forgetting": max(rises.values())}

    def require_remembered(self) -> None:
        """Stop the stage at an alarm, if it is to stop. Raises UserError that names the texts."""
        if self.alarm and self.stage.on_forgetting == "stop":
            raise UserError(
                f"{self.alarm}; lower stage.learning_rate or add such text to the data, or go on with "
                "stage.max_forgetting raised or stage.on_forgetting=warn"
            )

    def _bits(self) -> dict[str, float]:
        """Bits per byte by text; every rank must call it."""
        trainer = self.trainer
        real = num_real_tokens(trainer.tokenizer)

        def nats(hidden_TE: Tensor, batch: PackedBatch) -> Tensor:
            return chunked_cross_entropy(hidden_TE, head_weight(trainer.model), batch.targets_T, batch.weights_T, real)

        found = {}
        for name, (rows, num_bytes) in self.texts.items():
            share = pack_share(rows, self.stage.micro_batch_tokens, trainer.ranks.data_rank, trainer.ranks.num_data)
            own = sum(float(trainer.look(batch, nats)) for batch in share)
            total = sum(value for (value,) in trainer.ranks.gather_shares([own]))
            found[name] = total / math.log(2) / num_bytes
        return found


class Probe:
    """Held-out problems, answered from the weights as they are."""

    def __init__(self, trainer: Trainer, tasks: Sequence[Task], pool: VerifierPool) -> None:
        stage = trainer.stage
        assert not isinstance(stage, RlStage)
        self.tasks, self.engine = tasks, RolloutEngine(trainer.model, trainer.tokenizer)
        self.sampling = Sampling(temperature=0.0, max_new_tokens=stage.probe_tokens)
        self.asking = Asking(pool, {}, 0, getattr(stage, "system", None), trainer.stage_file.seed)

    def measure(self) -> dict[str, float]:
        """Share of right answers, and of problems without a verdict, which count as wrong."""
        with torch.no_grad():
            answers = [one for (one,) in ask(self.engine, self.tasks, CHAT, self.asking, self.sampling, 1)]
        missing = sum(answer.outcome == Outcome.NO_VERDICT.value for answer in answers)
        return {
            "heldout_accuracy_tasks": sum(answer.correct for answer in answers) / len(answers),
            "heldout_no_verdict": missing / len(answers),
        }


@contextmanager
def measuring(trainer: Trainer) -> Iterator[None]:
    """Have a trainer measure what its stage's configuration names, for as long as this lasts.

    Raises:
        UserError: A source without text or problems, or problems where there are several processes.
    """
    stage = trainer.stage
    assert not isinstance(stage, RlStage)
    with ExitStack() as stack:
        in_loop = InLoop(trainer)
        if in_loop.texts:
            trainer.measures.append(in_loop.measure_texts)
            trainer.checks.append(in_loop.require_remembered)
        if stage.probe_tasks:
            trainer.measures.append(Probe(trainer, probe_tasks(trainer), stack.enter_context(_pool(trainer))).measure)
        yield


def probe_tasks(trainer: Trainer) -> list[Task]:
    """The held-out problems of a stage. Raises UserError."""
    stage = trainer.stage
    assert not isinstance(stage, RlStage)
    if not trainer.ranks.alone:
        raise UserError(
            f"stage.probe_tasks: problems are answered in one process, and {trainer.ranks.num} train together; leave "
            "them out (stage.heldout_text works) or choose a machine profile with one process"
        )
    tasks = [task for source in stage.probe_tasks for task in load_tasks(source)]
    if not tasks:
        names = ", ".join(source.name for source in stage.probe_tasks)
        raise UserError(f"stage.probe_tasks: {names} give no problem; raise their count")
    return tasks


def _pool(trainer: Trainer) -> VerifierPool:
    return VerifierPool(trainer.stage_file.machine.num_verifier_workers)

"""The step that pretraining, fine-tuning and reinforcement learning share.

A stage's own loop reads:

    trainer = Trainer(stage_file, out)
    for step in trainer.steps(total):
        trainer.train_step(rows_of(step))
    trainer.finish()

`steps` goes on from the last checkpoint and writes new ones; `train_step` packs rows into micro-batches, sums the loss
over the whole step weighted by token (one divisor, so that the split into micro-batches changes only rounding),
updates, and logs. A killed run that is started again gives the same bytes on one machine, with one torch and one number
of threads, because everything drawn depends on the seed and the step only, and all else is in the checkpoint.

Over several ranks (`ranks.py`) each trains on a share of the step's rows; the divisor is that of all, so that the
result differs from one process's by rounding. The first rank writes the log and the model.

Not done: activations are not recomputed; `micro_batch_tokens` bounds memory.

Shape letters: T tokens in the packed row, E hidden size.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import UserError
from configs.schema import Machine, PretrainStage, RlStage, SftStage
from configs.stage import Progress, StageFile, write_json_atomic
from derivatives.losses.cross_entropy import chunked_cross_entropy
from derivatives.training import attention, checkpoint, metrics
from derivatives.training.batch import PackedBatch, Row, num_trained, pack, pack_share
from derivatives.training.model import head_weight, load_model, save_model
from derivatives.training.optimizer import MasterAdamW
from derivatives.training.ranks import ALONE, Ranks
from derivatives.training.schedule import learning_rate
from derivatives.training.sharding import Loss, LossOf, ShardedAdamW, shard, whole_weights

log = logging.getLogger(__name__)

ANOMALY_FILE = "anomaly.json"
"""Where the rows of a micro-batch are kept whose loss or gradient stopped the stage."""


def set_up(machine: Machine, seed: int, ranks: Ranks = ALONE) -> None:
    """Threads and seeds of this process. Raises UserError if it has no GPU where it should."""
    if machine.device == "cuda" and not torch.cuda.is_available():
        raise UserError("machine.device: cuda was asked for, torch finds no GPU; choose the cpu profile or mend it")
    torch.set_num_threads(machine.num_threads or max(1, len(os.sched_getaffinity(0)) // ranks.num))
    torch.manual_seed(seed)


def fingerprint(stage_file: StageFile) -> str:
    """Digest of what decides a run's result, which a folder must share with the run that goes on in it."""
    stage = stage_file.stage.model_dump(mode="json", exclude={"checkpoint_every"})
    inputs = {name: given.digest or given.path for name, given in stage_file.inputs.items()}
    for path in (Path(name) for name in stage.get("data", ()) if name.endswith(".jsonl")):
        if path.is_file():
            with path.open("rb") as file:
                inputs[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    text = json.dumps([stage, stage_file.model, stage_file.seed, inputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def finished(stage_file: StageFile, out: Path) -> bool:
    """Whether this very run is done in this folder. Raises UserError if another one is."""
    path = out / "metrics.json"
    if not path.is_file():
        return False
    _require_same_run(json.loads(path.read_text(encoding="utf-8")).get("fingerprint"), fingerprint(stage_file), out)
    return True


def _require_same_run(found: object, own: str, out: Path) -> None:
    if found != own:
        raise UserError(
            f"OUT: {out} holds a run of another stage file (configuration, seed or inputs); give an empty folder"
        )


class Trainer:
    """One run of a training stage: model, optimizer, progress and checkpoints.

    Attributes:
        model: In its working precision; its tensors stay the same objects, and are updated in place.
        tokenizer: The model's.
        state: What a stage wants saved in checkpoints beside the trainer's own; given back on resume.
    """

    def __init__(self, stage_file: StageFile, out: Path, ranks: Ranks = ALONE) -> None:
        stage = stage_file.stage
        if not isinstance(stage, (PretrainStage, SftStage, RlStage)):
            raise ValueError(f"a {stage.kind} stage trains nothing")
        if stage_file.machine.num_processes != ranks.num:
            raise UserError(
                f"machine.num_processes: {stage_file.machine.num_processes} processes were asked for; "
                f"{stage.kind} runs in {ranks.num} here; choose a machine profile with as many"
            )
        set_up(stage_file.machine, stage_file.seed, ranks)
        self.stage_file, self.stage, self.out, self.ranks = stage_file, stage, out, ranks
        self.fingerprint = fingerprint(stage_file)
        self.device = stage_file.machine.device
        self.model, self.tokenizer = load_model(stage_file.model_folder(), stage.precision, self.device)
        attention.require_no_leak(self.model)
        self._loss_of: Callable[[PackedBatch, Loss], Tensor]
        self.optimizer: MasterAdamW
        if ranks.alone:
            self._loss_of, self.optimizer = LossOf(self.model), MasterAdamW(self.model, stage)
        else:
            whole = shard(self.model, self.device, ranks)
            self._loss_of, self.optimizer = whole, ShardedAdamW(whole, stage, ranks)
        self.state: dict[str, Any] = {}
        self.step, self.total = 0, 0
        self._seconds, self._num_timed = 0.0, 0  # of this process, for the time that is left
        self._resume()

    def _resume(self) -> None:
        found = checkpoint.load_latest(self.out, self.ranks)
        self._progress = Progress(self.out, found[0] if found else None) if self.ranks.first else None
        if found is None:
            return
        self.step, saved = found
        _require_same_run(saved["fingerprint"], self.fingerprint, self.out)
        if saved["environment"] != self._environment():
            environments = self._environment(), saved["environment"]
            log.warning("resumed with %s after %s: the result may differ in rounding", *environments)
        if self.ranks.alone and "shards" not in saved:
            self.optimizer.load_state_dict(saved["optimizer"])
        else:
            self.optimizer.load_shards(saved.get("shards") or [saved["optimizer"]])
        self.state = saved["state"]
        torch.set_rng_state(saved["rng"])

    def steps(self, total: int) -> Iterator[int]:
        """Steps still to do, counted from 1; a checkpoint is written after every `checkpoint_every` of them."""
        self.total = total
        with _bar(self.stage.id, self.step, total, self.ranks.first) as self._show:
            while self.step < total:
                self.step += 1
                self._started = time.perf_counter()
                yield self.step
                if self.step % self.stage.checkpoint_every == 0 and self.step < total:
                    self.save_checkpoint()

    def save_checkpoint(self) -> None:
        """Write everything that the rest of the run depends on."""
        saved = {
            "fingerprint": self.fingerprint,
            "environment": self._environment(),
            "state": self.state,
            "rng": torch.get_rng_state(),
        }
        own = self.optimizer.state_dict()
        if self.ranks.alone:
            saved["optimizer"] = own
        checkpoint.save(self.out, self.step, saved, own, self.ranks)

    def _environment(self) -> dict[str, Any]:
        return {
            "torch": str(torch.__version__),
            "num_threads": torch.get_num_threads(),
            "num_processes": self.ranks.num,
            "device": torch.cuda.get_device_name() if self.device == "cuda" else "cpu",
            "attention": attention.method_of(self.model),
        }

    def train_step(self, rows: Sequence[Row]) -> None:
        """One supervised step: cross-entropy over all weighted tokens of these rows, then the log."""
        limit, ranks = self.stage.micro_batch_tokens, self.ranks
        batches = pack(rows, limit) if ranks.alone else pack_share(rows, limit, ranks.rank, ranks.num)
        trained = num_trained(rows)
        if trained == 0:
            keys = ", ".join(row.key for row in rows)[:300]
            raise UserError(f"step {self.step}: nothing in rows {keys} is trained on; leave such rows out of the data")
        quantities = self.update(batches, self._cross_entropy, trained, [row.key for row in rows])
        self.record(tokens=sum(len(row.ids) for row in rows), trained_tokens=trained, **quantities)

    def _cross_entropy(self, hidden_TE: Tensor, batch: PackedBatch) -> Tensor:
        return chunked_cross_entropy(hidden_TE, head_weight(self.model), batch.targets_T, batch.weights_T)

    def update(
        self, batches: Sequence[PackedBatch], loss: Loss, divisor: float, keys: Sequence[str] = ()
    ) -> dict[str, float]:
        """One optimizer step over micro-batches: the sum of their losses, divided once, and one update.

        Args:
            batches: This rank's micro-batches, on any device; every rank has as many.
            loss: Sum of the loss of one micro-batch.
            divisor: What the sum over the whole step and all ranks is divided by, usually the trained tokens.
            keys: What messages call the rows that were packed.

        Returns:
            loss, grad_norm and lr.

        Raises:
            UserError: The loss is not finite (nothing was updated), or a micro-batch does not fit in memory.
        """
        losses: list[Tensor] = []
        for batch in batches:
            try:
                placed = batch.to(self.device)
                part = self._loss_of(placed, loss) / divisor
                part.backward()
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"stage.micro_batch_tokens: {batch.num_tokens} tokens do not fit into the device's memory; lower it"
                ) from error
            losses.append(part.detach())
        lr = learning_rate(self.stage, self.step, self.total)
        grad_norm = self.optimizer.step(lr)
        values = self.ranks.gather_numbers(torch.stack(losses).tolist())
        self._require_finite(values, grad_norm, batches, keys)
        return {"loss": sum(map(sum, values)), "grad_norm": grad_norm, "lr": lr}

    def _require_finite(
        self, by_rank: list[list[float]], grad_norm: float, batches: Sequence[PackedBatch], keys: Sequence[str]
    ) -> None:
        places = [(rank, number) for rank, values in enumerate(by_rank) for number in range(len(values))]
        bad = [(rank, number) for rank, number in places if not math.isfinite(by_rank[rank][number])]
        if math.isfinite(grad_norm) and not bad:
            return
        rank, number = bad[0] if bad else places[0]
        values = by_rank[rank]
        named = [keys[index] if index < len(keys) else "" for index in batches[number].row_indices]
        if rank == self.ranks.rank:
            keep_batch(self.out, batches[number], named, step=self.step, loss=values[number], grad_norm=grad_norm)
        names = ", ".join(filter(None, self.ranks.gather(named)[rank]))
        raise UserError(
            f"step {self.step}: loss {values[number]} and gradient norm {grad_norm} in micro-batch {number} "
            f"(rows: {names[:300] or 'unnamed'}); lower stage.learning_rate or look at these rows "
            f"({self.out / ANOMALY_FILE} has them)"
        )

    def record(self, **quantities: float) -> None:
        """Append the step to the progress log, with its speed and the time that is left."""
        seconds = time.perf_counter() - self._started
        if "tokens" in quantities:
            quantities["tokens_per_s"] = round(quantities["tokens"] / seconds, 1)
        self._seconds, self._num_timed = self._seconds + seconds, self._num_timed + 1
        quantities["eta_s"] = round((self.total - self.step) * self._seconds / self._num_timed, 1)
        named = {f"{self.stage.kind}/{name}": value for name, value in quantities.items()}
        if self._progress is not None:
            self._progress.write(self.step, self.total, **named)
        self._show(self.step, quantities)

    def finish(self, **more: Any) -> None:
        """Write the model, the curves and `metrics.json`, then drop the checkpoints."""
        weights = None if self.ranks.alone else whole_weights(self.model, self.ranks)
        if not self.ranks.first:
            return
        save_model(self.model, self.tokenizer, self.out / "model", weights)
        kind = self.stage.kind
        metrics.plot_curves(self.out, [f"{kind}/loss", f"{kind}/grad_norm", f"{kind}/lr"])
        named = {f"{kind}/{name}": value for name, value in more.items()}
        more = {**named, "environment": self._environment(), "fingerprint": self.fingerprint}
        metrics.write_metrics(self.out, kind, more)
        checkpoint.remove_all(self.out)


def keep_batch(out: Path, batch: PackedBatch, names: Sequence[str], **why: float) -> None:
    """Write the rows of a micro-batch that went wrong, by name and token ids, with what was wrong."""
    ends = batch.cu_seqlens.tolist()
    ids, weights = batch.input_ids_T.tolist(), batch.weights_T.tolist()
    rows = [
        {"key": name, "ids": ids[start:end], "weights": weights[start:end]}
        for name, start, end in zip(names, ends, ends[1:], strict=False)
    ]
    # A text each, as JSON has no word for NaN.
    write_json_atomic(out / ANOMALY_FILE, {**{name: str(value) for name, value in why.items()}, "rows": rows})


Show = Callable[[int, dict[str, float]], None]


@contextmanager
def _bar(title: str, done: int, total: int, shown: bool) -> Iterator[Show]:
    """A progress bar on a terminal's stderr; elsewhere nothing, since progress.jsonl says it all."""
    if not (shown and sys.stderr.isatty()):
        yield lambda step, quantities: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    texts = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    columns = (texts[0], BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), texts[1])
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def show(step: int, quantities: dict[str, float]) -> None:
            names = [name for name in ("loss", "reward", "lr", "grad_norm", "tokens_per_s") if name in quantities]
            bar.update(task, completed=step, note="  ".join(f"{name} {quantities[name]:.4g}" for name in names))

        yield show

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

Over several ranks (`ranks.py`) each trains on its data rank's share of the step's rows; the divisor is that of all, so
that the result differs from one process's by rounding. The first rank writes the log and the model.

Shape letters: T tokens in the packed row, E hidden size.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs import stall
from configs.errors import UserError
from configs.settings.machine import Machine
from configs.settings.reinforcement import RlStage
from configs.settings.training import DpoStage, PretrainStage, SftStage
from configs.stage import Progress, StageFile
from derivatives.losses.cross_entropy import chunked_cross_entropy
from derivatives.training import attention, checkpoint, metrics
from derivatives.training.bar import progress_bar
from derivatives.training.batch import PackedBatch, Row, num_trained, pack, pack_share
from derivatives.training.compiled import compile_layers, compiled_cross_entropy
from derivatives.training.lora import add_adapters, merged_weights, save_adapter, seed_step, set_dropout
from derivatives.training.model import head_weight, load_model, save_model
from derivatives.training.optimizer import MasterAdamW
from derivatives.training.ranks import ALONE, Ranks
from derivatives.training.recompute import recompute_layers
from derivatives.training.schedule import learning_rate
from derivatives.training.sharding import Loss, LossOf, ShardedAdamW, shard
from derivatives.training.spread import open_spread, read_rows, two_layers, write_spread
from derivatives.training.stopping import STOPPED_EXIT, Stop
from derivatives.training.tensor_parallel import cut, share_loss
from derivatives.training.throughput import ModelFlops, peak_flops, peak_memory_gb
from derivatives.training.trackers import Trackers
from derivatives.training.watch import ANOMALY_FILE, Blame, Watch, Wrong, blame_each, keep_batch, worst, worst_rows

log = logging.getLogger(__name__)


WITHOUT_EFFECT = {"checkpoint_every", "recompute", "spikes", "max_forgetting", "on_forgetting"}
"""Fields that a started run may go on with changed: what it computes stays the same, or where it stops changes."""


KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Variables that bound what oneDNN and torch's layer over it keep for each shape of a product; read at the first."""
KERNELS_KEPT = 64
"""Packed documents bring new shapes in every step. The libraries' 1,024 kernels cost gigabytes and save no time
(docs/experiments.md)."""


def set_up(machine: Machine, seed: int, ranks: Ranks = ALONE) -> None:
    """Threads and seeds of this process. Raises UserError if it has no GPU where it should."""
    if machine.device == "cuda" and not torch.cuda.is_available():
        raise UserError("machine.device: cuda was asked for, torch finds no GPU; choose the cpu profile or mend it")
    for name in KERNEL_CACHES:
        os.environ.setdefault(name, str(KERNELS_KEPT))
    torch.set_num_threads(machine.num_threads or max(1, len(os.sched_getaffinity(0)) // ranks.num))
    torch.manual_seed(seed)


def fingerprint(stage_file: StageFile) -> str:
    """Digest of what decides a run's result, which a folder must share with the run that goes on in it."""
    stage = stage_file.stage.model_dump(mode="json", exclude=WITHOUT_EFFECT)
    inputs = {name: given.digest or given.path for name, given in stage_file.inputs.items()}
    files = [*stage.get("data", ()), *stage.get("heldout_pairs", ())]
    for path in (Path(name) for name in files if name.endswith(".jsonl")):
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
        measures: Called after every `evaluate_every` steps and the last one, on every rank; what they return goes into
            the step's line of the log. Their time counts as no step's.
        checks: Called once such a line is written; they raise where what was measured ends the stage.
    """

    def __init__(self, stage_file: StageFile, out: Path, ranks: Ranks = ALONE) -> None:
        stage = stage_file.stage
        if not isinstance(stage, (PretrainStage, SftStage, DpoStage, RlStage)):
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
        folder, load = stage_file.model_folder(), load_model if ranks.alone else open_spread
        self.model, self.tokenizer = load(folder, stage.precision, self.device)
        self.lora = stage.lora
        if self.lora is not None:
            add_adapters(self.model, self.lora, stage_file.seed)
        if stage_file.machine.compile:
            compile_layers(self.model)
        recompute_layers(self.model, stage.recompute)
        self._require_no_leak()
        self.flops, self._peak_flops = ModelFlops(self.model), peak_flops(stage_file.machine, stage.precision)
        self._loss_of: Callable[[PackedBatch, Loss], Tensor]
        self.optimizer: MasterAdamW
        if ranks.alone:
            self._loss_of, self.optimizer = LossOf(self.model), MasterAdamW(self.model, stage)
        else:
            whole = shard(self.model, self.device, ranks)
            read_rows(self.model, folder, stage.precision, ranks)
            self._loss_of, self.optimizer = whole, ShardedAdamW(whole, stage, ranks)
        self.saver = checkpoint.Saver(out, ranks)
        self.state: dict[str, Any] = {}
        self.measures: list[Callable[[], dict[str, float]]] = []
        self.checks: list[Callable[[], None]] = []
        self.watch = Watch(stage.spikes, stage.max_grad_norm, has_level=stage.kind != "rl")
        self.step, self.total = 0, 0
        self._seconds, self._num_timed = 0.0, 0  # of this process, for the time that is left
        self._step_flops = 0.0
        self._stop = Stop(self._save_within)
        self._saved_step = 0
        self._unrecorded: dict[str, float] | None = None
        """What the log is to say of the step that is being measured."""
        self._whole: tuple[int, dict[str, Any], str] | None = None
        """What could be saved at any moment: the step that it follows, what a checkpoint holds beside the optimizer's
        state, and words for it; None while an update changes something, and always where ranks would have to agree."""
        self._resume()

    def _require_no_leak(self) -> None:
        """The probe runs on the loaded model, or on two layers of its shape where no rank holds it whole."""
        probed = self.model
        if not self.ranks.alone:
            probed = two_layers(self.model, self.stage.precision, self.device)
            if self.lora is not None:
                add_adapters(probed, self.lora, self.stage_file.seed)
            recompute_layers(probed, self.stage.recompute)
            cut(probed, self.ranks)
        attention.require_no_leak(probed)

    def _resume(self) -> None:
        found = checkpoint.load_latest(self.out, self.ranks)
        self._unrecorded = found[1].get("unrecorded") if found else None
        logged = 0 if found is None else found[0] - (self._unrecorded is not None)
        self._progress = Progress(self.out, logged if found else None) if self.ranks.first else None
        self._trackers = Trackers(self.stage_file, self.out, logged, self.ranks.first)
        if found is None:
            return
        self.step, saved = found
        self._saved_step = self.step
        _require_same_run(saved["fingerprint"], self.fingerprint, self.out)
        if saved["environment"] != self._environment():
            environments = self._environment(), saved["environment"]
            log.warning("resumed with %s after %s: the result may differ in rounding", *environments)
        if self.ranks.alone and "shards" not in saved:
            self.optimizer.load_state_dict(saved["optimizer"])
        else:
            self.optimizer.load_shards(saved.get("shards") or [saved["optimizer"]])
        self.state = saved["state"]
        self.watch.restore(saved["watch"])
        torch.set_rng_state(saved["rng"])

    def steps(self, total: int) -> Iterator[int]:
        """Steps still to do, counted from 1; a checkpoint is begun after every `checkpoint_every` of them.

        A SIGTERM from here to the end of `finish` ends the process after the step, or in the midst of what takes long,
        with a checkpoint (`stopping.py`). A step that was stopped while it was measured is measured now.

        Raises:
            OSError: A checkpoint could not be written; at the first step after that is known, or at the end.
            SystemExit: On every rank, when one was asked to stop.
        """
        self.total = total
        done = False
        self._stop.arm()
        try:
            with progress_bar(self.stage.id, self.step, total, self.ranks.first) as self._show:
                if self._unrecorded is not None:
                    self._measure_and_write()
                while self.step < total:
                    self.saver.poll()
                    self._stop_if_asked()
                    self._may_leave(f"within step {self.step + 1} of {total}, {self._kept_before_step()}")
                    self.step += 1
                    self._started = time.perf_counter()
                    yield self.step
                    self._whole = None
                    if self.step % self.stage.checkpoint_every == 0 and self.step < total:
                        self.save_checkpoint()
                    if isinstance(self.stage, RlStage) and self.stage.fork_every is not None:
                        self.saver.wait()  # a fork point is taken of the whole checkpoint before the next step
                self._stop_if_asked()
            self.saver.wait()
            self._may_leave("while the product was written, with a checkpoint after the last step")
            done = True
        finally:
            self.saver.close()
            if not done:
                self._stop.disarm()

    def _stop_if_asked(self) -> None:
        """Where the state is whole: leave with a checkpoint if any rank was asked to. Every rank must call it."""
        if not any(asked for (asked,) in self.ranks.gather_numbers([float(self._stop.asked)])):
            return
        self._whole = None  # the alarm must not save in the midst of this saving
        if self.step > self._saved_step:
            self.save_checkpoint()
        self.saver.wait()
        if self.ranks.first:
            kept = ", with a checkpoint" if self.step else ""
            print(f"stopped after step {self.step} of {self.total}{kept}", file=sys.stderr, flush=True)
        raise SystemExit(STOPPED_EXIT)

    def _may_leave(self, said: str) -> None:
        """From now on, until `_whole` is None, a process that is alone may save what is and leave at any moment."""
        self._whole = (self.step, self._common(), said) if self.ranks.alone else None

    def _kept_before_step(self) -> str:
        return "with a checkpoint from before it" if self.step else "the first, so that there is nothing to keep"

    def _save_within(self) -> str | None:
        """Write the state that is whole, from within whatever goes on; None where there is none."""
        if self._whole is None:
            return None
        step, common, said = self._whole
        if step > self._saved_step:
            self.saver.save_here(step, {**common, "optimizer": self.optimizer.state_dict()})
            self._saved_step = step
        self.saver.wait()
        return f"stopped {said}"

    def save_checkpoint(self) -> None:
        """Begin to write everything that the rest of the run depends on; `saver.wait` waits for the end of it."""
        self._save(self.step, self._common())

    def _common(self) -> dict[str, Any]:
        """What a checkpoint holds beside the optimizer's state, as it is now."""
        return {
            "fingerprint": self.fingerprint,
            "environment": self._environment(),
            "state": copy.deepcopy(self.state),
            "watch": copy.deepcopy(self.watch.state()),
            "rng": torch.get_rng_state(),
            "unrecorded": self._unrecorded,
        }

    def _save(self, step: int, common: dict[str, Any]) -> None:
        own = self.optimizer.state_dict()
        self.saver.save(step, {**common, "optimizer": own} if self.ranks.alone else common, own)
        self._saved_step = step

    def _environment(self) -> dict[str, Any]:
        return {
            "torch": str(torch.__version__),
            "num_threads": torch.get_num_threads(),
            "num_processes": self.ranks.num,
            "device": torch.cuda.get_device_name() if self.device == "cuda" else "cpu",
            "attention": attention.method_of(self.model),
            **({"compile": True} if self.stage_file.machine.compile else {}),
            **({"tensor_parallel": self.ranks.tensor} if self.ranks.tensor > 1 else {}),
        }

    def train_step(self, rows: Sequence[Row]) -> None:
        """One supervised step: cross-entropy over all weighted tokens of these rows, then the log."""
        limit, ranks = self.stage.micro_batch_tokens, self.ranks
        batches = pack(rows, limit) if ranks.alone else pack_share(rows, limit, ranks.data_rank, ranks.num_data)
        trained = num_trained(rows)
        if trained == 0:
            names = ", ".join(row.key for row in rows)[:300]
            raise UserError(f"step {self.step}: nothing in rows {names} is trained on; leave such rows out of the data")
        keys, blame = [row.key for row in rows], blame_each(self._cross_entropy)
        quantities = self.update(batches, self._cross_entropy, trained, keys, blame)
        self.record_rows(rows, trained, **quantities)

    def record_rows(self, rows: Sequence[Row], trained: float, **quantities: float) -> None:
        """`record` of a step that trained on these rows, with its FLOPs."""
        lengths = [len(row.ids) for row in rows]
        self._step_flops = self.flops.of_step(lengths, trained)
        self.record(tokens=sum(lengths), trained_tokens=trained, **quantities)

    def _cross_entropy(self, hidden_TE: Tensor, batch: PackedBatch) -> Tensor:
        entropy = compiled_cross_entropy if self.stage_file.machine.compile else chunked_cross_entropy

        def of(hidden_TE: Tensor, head_VE: Tensor, own_T: Tensor) -> Tensor:
            return entropy(hidden_TE, head_VE, batch.targets_T, torch.where(own_T, batch.weights_T, 0.0))

        return share_loss(of, hidden_TE, head_weight(self.model), batch.weights_T != 0, self.ranks)

    def update(
        self,
        batches: Sequence[PackedBatch],
        loss: Loss,
        divisor: float,
        keys: Sequence[str] = (),
        blame: Blame | None = None,
    ) -> dict[str, float]:
        """One optimizer step over micro-batches: the sum of their losses, divided once, and one update.

        Args:
            batches: This rank's micro-batches, on any device; every rank has as many.
            loss: Sum of the loss of one micro-batch.
            divisor: What the sum over the whole step and all ranks is divided by, usually the trained tokens.
            keys: What messages call the rows that were packed.
            blame: The loss of each document of a micro-batch, to name the worst where a step goes wrong.

        Returns:
            loss, grad_norm and lr; skipped where the step went wrong and its update was left out.

        Raises:
            UserError: Loss or gradient is not finite or stands out (nothing was updated; see `watch.py`), or a
                micro-batch does not fit in memory.
        """
        if self.lora is not None and self.lora.dropout > 0:
            seed_step(self.stage_file.seed, self.step, self.ranks.data_rank)
            set_dropout(self.model, True)
        losses: list[Tensor] = []
        for batch in batches:
            try:
                placed = batch.to(self.device)
                part = self._loss_of(placed, loss) / divisor
                part.backward()
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"stage.micro_batch_tokens: {batch.num_tokens} tokens do not fit into the device's memory; lower "
                    "it, or set stage.recompute to selective or full"
                ) from error
            losses.append(part.detach())
        if self.lora is not None:
            set_dropout(self.model, False)
        own = torch.stack(losses).tolist()
        total = sum(map(sum, self.ranks.gather_shares(own)))
        lr = learning_rate(self.stage, self.step, self.total)
        limits = self.watch.loss_limit(), self.watch.norm_limit()
        self.saver.wait_until_read()
        self._whole = None
        grad_norm = self.optimizer.step(lr, limits[1] if total < limits[0] else 0.0)
        good = total < limits[0] and grad_norm < limits[1]
        if good:
            self.watch.note(total, grad_norm)
        else:
            self._went_wrong(Wrong(total, grad_norm, *limits), list(zip(batches, own, strict=True)), keys, blame)
        skipped = {} if good else {"skipped": 1.0}
        return {"loss": total, "grad_norm": grad_norm, "lr": lr, **skipped}

    def _went_wrong(
        self, wrong: Wrong, parts: Sequence[tuple[PackedBatch, float]], keys: Sequence[str], blame: Blame | None
    ) -> None:
        """Keep the worst micro-batch of all ranks and name its rows; every rank must call it.

        Raises:
            UserError: The stage stops here, as it does unless steps are to be skipped and the numbers are finite.
        """
        # A part was divided as the whole step was; per weight, a short micro-batch compares with a long one.
        means = [value / max(float(batch.weights_T.sum()), 1.0) for batch, value in parts]
        number = worst(means)[0]
        batch, value = parts[number]
        documents: list[float] | None = None
        if blame is not None:
            documents = self.look(batch, blame).tolist()
        names = [keys[index] if index < len(keys) else "" for index in batch.row_indices]
        found = self.ranks.gather((means[number], number, value, worst_rows(names, documents)))
        rank = worst([mean for mean, *_ in found])[0]
        _, number, value, rows = found[rank]
        if rank == self.ranks.rank:
            keep_batch(self.out, batch, names, documents, step=self.step, loss=value, **wrong.told())
        where = f"in micro-batch {number} (rows: {rows[:300] or 'unnamed'})"
        if self.stage.spikes.action == "skip" and wrong.finite:
            log.warning("step %d: %s %s; the update is left out", self.step, wrong, where)
            return
        remedy = ", or set stage.spikes.action=skip" if wrong.finite else ""
        raise UserError(
            f"step {self.step}: {wrong} {where}; nothing was updated; lower stage.learning_rate or look at these rows "
            f"({self.out / ANOMALY_FILE} has them){remedy}"
        )

    def record(self, **quantities: float) -> None:
        """Append the step to the progress log, with its speed, peak memory and the seconds that are left.

        `mfu` is the share of the devices' peak that the model's FLOPs were (`throughput.py`); only where the peak is
        known, and not in rl, whose steps mostly draw.
        """
        seconds = time.perf_counter() - self._started
        if "tokens" in quantities:
            quantities["tokens_per_s"] = round(quantities["tokens"] / seconds, 1)
        if self._peak_flops is not None and self._step_flops > 0:
            quantities["mfu"] = float(f"{self._step_flops / seconds / self._peak_flops:.4g}")
        self._seconds, self._num_timed = self._seconds + seconds, self._num_timed + 1
        quantities["eta_s"] = round((self.total - self.step) * self._seconds / self._num_timed, 1)
        if not self.measures or not self._is_measured():
            self._write(quantities)
            return
        self._unrecorded = quantities
        self._measure_and_write()

    def _measure_and_write(self) -> None:
        """Measure the step that is to be recorded, and write its line. Raises what the checks raise."""
        assert self._unrecorded is not None
        self._may_leave(f"while step {self.step} of {self.total} was measured, with a checkpoint")
        quantities = dict(self._unrecorded)
        for measure in self.measures:
            quantities |= measure()
        self._unrecorded = self._whole = None
        self._write(quantities)
        for check in self.checks:
            check()

    def _write(self, quantities: dict[str, float]) -> None:
        quantities["peak_memory_gb"] = round(peak_memory_gb(self.device), 3)
        named = {f"{self.stage.kind}/{name}": value for name, value in quantities.items()}
        stall.alive()  # on every rank
        if self._progress is not None:
            self._progress.write(self.step, self.total, **named)
        self._trackers.log(self.step, named)
        self._show(self.step, quantities)

    def _is_measured(self) -> bool:
        every = None if isinstance(self.stage, RlStage) else self.stage.evaluate_every
        return every is not None and (self.step % every == 0 or self.step == self.total)

    def look(self, batch: PackedBatch, of: Loss) -> Tensor:
        """What `of` makes of a batch's hidden states, without gradients; every rank must call it as often.

        Where a step is measured, a stop is heeded here: measuring may take longer than whoever stops the stage waits.
        """
        if self._unrecorded is not None:
            self._stop_if_asked()
        with torch.no_grad():
            found: Tensor = self._loss_of(batch.to(self.device), of)
        return found

    def finish(self, **more: Any) -> None:
        """Write the model, the curves and `metrics.json`, then drop the checkpoints."""
        if self.ranks.alone:
            weights: Mapping[str, Tensor] = self.model.state_dict()
            if self.lora is not None:
                save_adapter(weights, self.lora, self.out / "adapter")
                weights = merged_weights(weights, self.lora)
            save_model(self.model, self.tokenizer, self.out / "model", weights)
        else:
            write_spread(self.model, self.tokenizer, self.out, self.lora, self.stage.precision, self.ranks)
        if self.ranks.first:
            self._write_down(more)
        self._stop.disarm()

    def _write_down(self, more: Mapping[str, Any]) -> None:
        kind = self.stage.kind
        self._whole = None  # the little that is left is soon done
        metrics.plot_curves(self.out, [f"{kind}/loss", f"{kind}/grad_norm", f"{kind}/lr"])
        named = {f"{kind}/{name}": value for name, value in more.items()}
        more = {**named, "environment": self._environment(), "fingerprint": self.fingerprint}
        metrics.write_metrics(self.out, kind, more)
        self._trackers.finish()
        checkpoint.remove_all(self.out)

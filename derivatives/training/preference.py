"""Pairs of a better and a worse completion: packed side by side, their log-probabilities, and the reference's.

The log-probability of a completion is the sum over its tokens (or their mean), worked out in chunks of tokens, so that
nothing holds [tokens, vocabulary]. What the starting model gives to each completion is worked out once, before
training, and kept in `OUT/reference.safetensors` with the run's fingerprint and its own digest; a resumed run reads it,
and works it out again if it does not fit.

Shape letters: T tokens in the packed row, E hidden size, N rows in it, P pairs.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from configs.settings.training import DpoStage
from configs.stage import StageFile
from derivatives.losses.cross_entropy import chunked_log_probs
from derivatives.training.batch import PackedBatch, Row, pack_share
from derivatives.training.checkpoint import disk_full_as_os_error
from derivatives.training.model import Precision, head_weight, load_model
from derivatives.training.ranks import ALONE, Ranks
from derivatives.training.sharding import LossOf, shard
from derivatives.training.spread import open_spread, read_rows
from derivatives.training.tensor_parallel import share_loss

REFERENCE_FILE = "reference.safetensors"
ABOUT = "reference"
SIDES = ("chosen", "rejected")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """One prompt with two completions, as rows of token ids.

    Attributes:
        rows: Chosen, rejected.
        key: What messages call the pair.
    """

    rows: tuple[Row, Row]
    key: str

    @property
    def num_tokens(self) -> int:
        return sum(len(row.ids) for row in self.rows)


def row_log_probs(
    hidden_TE: Tensor, head_VE: Tensor, batch: PackedBatch, mean: bool, ranks: Ranks = ALONE
) -> Tensor:
    """Log-probability of each packed row's trained tokens, summed or averaged, in nats, FP32 [N].

    Ranks that share layers share out the tokens; each gets the result of all.
    """
    trained_T = batch.weights_T > 0
    empty_N = torch.zeros(len(batch.lengths), dtype=torch.float32, device=hidden_TE.device)

    def of(hidden_TE: Tensor, head_VE: Tensor, own_T: Tensor) -> Tensor:
        log_probs_T, _ = chunked_log_probs(hidden_TE, head_VE, torch.where(own_T, batch.targets_T, -100))
        return empty_N.index_add(0, batch.rows_T, log_probs_T)

    sums_N = share_loss(of, hidden_TE, head_VE, trained_T, ranks)
    return sums_N / num_trained_tokens(batch) if mean else sums_N


def num_trained_tokens(batch: PackedBatch) -> Tensor:
    """Tokens of each packed row that are trained on, at least 1, FP32 [N]."""
    trained_T = (batch.weights_T > 0).float()
    return trained_T.new_zeros(len(batch.lengths)).index_add(0, batch.rows_T, trained_T).clamp(min=1.0)


def reference_log_probs(stage_file: StageFile, pairs: Sequence[Pair], out: Path, ranks: Ranks, key: str) -> Tensor:
    """Log-probabilities [P, 2] that the starting model gives to chosen and rejected; read from `out` or worked out.

    Args:
        stage_file: Names the model.
        pairs: All pairs of the stage, in their order.
        out: The stage's folder.
        ranks: Every rank must call it; each works out a share, the first one writes.
        key: The run's fingerprint, which a stored file must have.
    """
    stage = stage_file.stage
    assert isinstance(stage, DpoStage)
    path = out / REFERENCE_FILE
    stored = _read(path, len(pairs), key)
    if all(ranks.gather(stored is not None)):
        assert stored is not None
        return stored
    rows = [row for pair in pairs for row in pair.rows]
    found = _work_out(stage_file, stage, rows, ranks)
    values = torch.tensor([found[index] for index in range(len(rows))], dtype=torch.float32).view(-1, len(SIDES))
    if ranks.first:
        _write(path, values, key)
    ranks.gather(None)  # nobody goes on before it is there
    return values


def _work_out(stage_file: StageFile, stage: DpoStage, rows: Sequence[Row], ranks: Ranks) -> dict[int, float]:
    """Log-probability of every row by its place, from all ranks."""
    own = _own_share(stage_file, stage, rows, ranks)
    gc.collect()  # modules that are sharded refer to one another
    if stage_file.machine.device == "cuda":
        torch.cuda.empty_cache()
    return {place: value for part in ranks.gather(own) for place, value in part.items()}


@torch.no_grad()
def _own_share(stage_file: StageFile, stage: DpoStage, rows: Sequence[Row], ranks: Ranks) -> dict[int, float]:
    """This rank's; the model, or its share of it, is in memory meanwhile."""
    device = stage_file.machine.device
    whole = open_frozen(stage_file.model_folder(), stage.precision, device, ranks)
    own: dict[int, float] = {}

    def log_probs(hidden_TE: Tensor, batch: PackedBatch) -> Tensor:
        return row_log_probs(hidden_TE, head_weight(whole.model), batch, stage.normalize_length, ranks)

    for batch in pack_share(rows, stage.micro_batch_tokens, ranks.data_rank, ranks.num_data):
        values_N = whole(batch.to(device), log_probs)
        own |= dict(zip(batch.row_indices, values_N.tolist(), strict=False))  # a batch of nothing has a value still
    return own


def open_frozen(folder: Path, precision: Precision, device: str, ranks: Ranks) -> LossOf:
    """The starting model, spread over all ranks as for training, but in its working precision alone."""
    if ranks.alone:
        return LossOf(load_model(folder, precision, device)[0])
    model, _ = open_spread(folder, precision, device)
    model.requires_grad_(False)  # so that there are no FP32 masters
    whole = shard(model, device, ranks)
    read_rows(model, folder, precision, ranks)
    return whole


def _digest(values_P2: Tensor) -> str:
    return hashlib.sha256(values_P2.contiguous().numpy().tobytes()).hexdigest()


def _write(path: Path, values_P2: Tensor, key: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with disk_full_as_os_error(path.parent):
            about = json.dumps({"fingerprint": key, "sha256": _digest(values_P2)})
            save_file({"log_probs": values_P2}, partial, {ABOUT: about})  # of several entries the order is random
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path, num_pairs: int, key: str) -> Tensor | None:
    """The stored values, if they are those of this run and whole."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about, values_P2 = json.loads((file.metadata() or {})[ABOUT]), file.get_tensor("log_probs")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        log.warning("%s cannot be read (%s); working it out again", path, error)
        return None
    if about.get("fingerprint") != key or tuple(values_P2.shape) != (num_pairs, len(SIDES)):
        return None
    if about.get("sha256") != _digest(values_P2):
        log.warning("%s has another digest than it says; working it out again", path)
        return None
    return values_P2

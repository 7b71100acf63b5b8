"""Several processes that train one model together: who this one is, and what they tell one another.

A launcher starts the same stage command once per rank and says in the environment which rank each is (`RANK`,
`WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR`, `MASTER_PORT`): `accelerate launch`, torchrun, or
`derivatives.training.launch`. CPU tensors travel over gloo, CUDA tensors over NCCL.

They stop as one. A rank that meets an error says it, once for all, and leaves it in `OUT/failure.json`; the others find
its connection closed and end without a word of their own. A rank that is killed or hangs ends the others at their next
exchange: at once where the connection breaks, else after `timeout_s()`.

Not done: ranks that come and go during a run. All ranks must see one file system.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from configs.errors import EXIT_RETRY, EXIT_USER_ERROR, RetryableError, UserError
from configs.settings.machine import Machine

FAILURE_FILE = "failure.json"
"""Exit code and message of the rank that failed first, for a launcher that keeps them to itself."""
TIMEOUT_VARIABLE = "DERIVE_RANK_TIMEOUT_S"
TIMEOUT_S = 600.0
"""Ranks meet several times a step; what one does alone (writing the model) must not take longer than this."""
LOST_EXIT = 76
"""Exit code of a rank that ended because another one did; it is never the reason of a failure."""
LOST_WORDS = ("connection", "timed out", "timeout", "nccl", "socket", "peer")
"""What torch's messages have in common when another process is gone; gloo raises a plain RuntimeError."""


@dataclass(frozen=True)
class Ranks:
    """The group that a process belongs to; by itself it is the first of one.

    Ranks form a mesh of two axes. Those next to one another, `tensor` at a time, work on the same rows of data with a
    part of each layer (`tensor_parallel.py`); along the data axis rows are shared out.

    Attributes:
        rank: Number of this process, from 0.
        num: How many there are.
        tensor: How many of them share each layer; divides `num`.
        device: Where what they exchange inside layers lies, cpu or cuda.

    >>> [(Ranks(rank, 6, tensor=2).data_rank, Ranks(rank, 6, tensor=2).tensor_rank) for rank in range(6)]
    [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    """

    rank: int = 0
    num: int = 1
    tensor: int = 1
    device: str = "cpu"

    @property
    def num_data(self) -> int:
        """How many shares a step's rows are cut into."""
        return self.num // self.tensor

    @property
    def data_rank(self) -> int:
        """Which of these shares this process trains on."""
        return self.rank // self.tensor

    @property
    def tensor_rank(self) -> int:
        """Which part of each layer this process holds."""
        return self.rank % self.tensor

    @functools.cached_property
    def mesh(self) -> DeviceMesh:
        """Axes `data` and `tensor`; every rank must ask for it first at the same time."""
        return init_device_mesh(self.device, (self.num_data, self.tensor), mesh_dim_names=("data", "tensor"))

    @functools.cached_property
    def flat_mesh(self) -> DeviceMesh:
        """All ranks along one axis; as `mesh`."""
        return init_device_mesh(self.device, (self.num,))

    @property
    def first(self) -> bool:
        """Whether this is the one that writes what all have in common."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.num == 1

    def gather(self, value: Any) -> list[Any]:
        """What each rank gave, by rank. Every rank must call it; it is also the point at which they wait."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.num
        dist.all_gather_object(values, value)
        return values

    def gather_numbers(self, values: Sequence[float]) -> list[list[float]]:
        """As many numbers from each rank, by rank; quicker than `gather`."""
        if self.alone:
            return [list(values)]
        own = torch.tensor(values, dtype=torch.float64)
        every = [torch.empty_like(own) for _ in range(self.num)]
        dist.all_gather(every, own)
        return [numbers.tolist() for numbers in every]

    def gather_shares(self, values: Sequence[float]) -> list[list[float]]:
        """As `gather_numbers`, once for each share of the data, whose ranks all know the same; by data rank."""
        return self.gather_numbers(values)[:: self.tensor]


ALONE = Ranks()


def timeout_s(default: float = TIMEOUT_S) -> float:
    """Seconds that a rank waits for the others: `DERIVE_RANK_TIMEOUT_S`, or the default. Raises UserError."""
    given = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        seconds = float(given) if given else default
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        raise UserError(f"{TIMEOUT_VARIABLE}: {given!r} is no number of seconds; give one above 0, or unset it")
    return seconds


@contextmanager
def joined(machine: Machine, out: Path, patience_s: float = TIMEOUT_S) -> Iterator[Ranks]:
    """The group of a stage that writes `out`, for as long as it runs.

    Args:
        machine: Says how many ranks there are.
        out: The stage's folder.
        patience_s: How long ranks wait for one another, unless `DERIVE_RANK_TIMEOUT_S` says otherwise.

    Raises:
        UserError: The profile's number of processes is not the number that were started; or what the stage raised,
            on the rank that met it first. On the others, and where another rank is lost, SystemExit.
    """
    num = int(os.environ.get("WORLD_SIZE", "1"))
    if num != machine.num_processes:
        raise UserError(
            f"machine.num_processes: {machine.num_processes} processes were asked for, {num} were started; start the "
            f"command with the profile's launcher (`derive plan PRESET --machine {machine.name}` prints it)"
        )
    if num == 1:
        yield ALONE
        return
    found = dist.is_initialized()  # a caller's own group stays the caller's
    ranks = _join(machine, out, timeout_s(patience_s))
    try:
        yield ranks
        ranks.gather(None)  # nobody leaves before all are done
    except (UserError, RetryableError, OSError) as error:
        if not _speak(out, error):
            raise SystemExit(LOST_EXIT) from error
        raise  # configs.stage says it and gives the exit code
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        if not (out / FAILURE_FILE).exists():
            text = str(error).strip().splitlines()[0][:200]
            print(f"rank {ranks.rank}: another rank ended or did not answer ({text})", file=sys.stderr, flush=True)
        os._exit(LOST_EXIT)  # an orderly exit may wait for the lost rank in the group's threads
    if not found:
        dist.destroy_process_group()


def _join(machine: Machine, out: Path, patience_s: float) -> Ranks:
    rank, num = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "gloo"
    if machine.device == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UserError(
                f"machine.num_processes: rank {rank} has no GPU of its own ({torch.cuda.device_count()} are here); "
                "choose a profile with as many processes as there are GPUs"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    if rank > 0:
        logging.disable(logging.WARNING)  # the first one says it for all
    else:
        (out / FAILURE_FILE).unlink(missing_ok=True)
    # accelerate's default would have transformers load the weights on the first rank only, and noise on the others.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    if not dist.is_initialized():
        dist.init_process_group(backend, timeout=timedelta(seconds=patience_s))
    ranks = Ranks(rank, num, machine.tensor_parallel, machine.device)
    ranks.gather(None)  # an old failure is gone before anyone can fail
    return ranks


def _speak(out: Path, error: Exception) -> bool:
    """Whether this rank is the first with an error; if so it is written down for all."""
    codes = {UserError: EXIT_USER_ERROR, RetryableError: EXIT_RETRY}
    code = next((code for kind, code in codes.items() if isinstance(error, kind)), 1)
    try:
        with (out / FAILURE_FILE).open("x", encoding="utf-8") as file:
            file.write(json.dumps({"exit_code": code, "message": str(error)}) + "\n")
    except FileExistsError:
        return False
    except OSError:  # a full disk, of which the error itself tells
        return True
    return True


def _is_lost(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in LOST_WORDS)

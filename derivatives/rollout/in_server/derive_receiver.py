"""Takes new weights from the trainer, in every worker of a vLLM server (`--worker-extension-cls`).

The server calls the methods through `/collective_rpc`. Imports torch and nothing of this project, because it runs in
the server's environment. The other side is `derivatives/rollout/vllm_collective.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

ARRIVED = "derive_arrived"
"""Key of the store that counts the workers that found the trainer."""
ALIGNMENT = 16
"""Bytes; a tensor of any type may begin at their multiples."""


class WeightsReceiver:
    """Mixed into vLLM's worker, which brings `model_runner`, `vllm_config` and its `rank`."""

    derive_group: Any = None

    def derive_join(self, host: str, port: int, num_ranks: int, timeout_s: float) -> int:
        """Join the group whose rank 0 is the trainer; returns this worker's rank in it.

        Raises:
            RuntimeError: The trainer did not come in time, or the two sides do not understand each other.
        """
        parallel = self.vllm_config.parallel_config  # type: ignore[attr-defined]
        rank = 1 + parallel.data_parallel_index * parallel.world_size + self.rank  # type: ignore[attr-defined]
        limit = timedelta(seconds=timeout_s)
        store = dist.TCPStore(host, port, is_master=False, timeout=limit)
        store.add(ARRIVED, 1)
        self.derive_group = gloo_group(store, host, rank, num_ranks, limit)
        return int(rank)

    def derive_receive(self, parts: list[list[tuple[str, str, list[int]]]]) -> int:
        """Load the weights that the trainer broadcasts, part after part; returns how many tensors these are.

        Args:
            parts: Of each part the name, the type and the shape of every tensor, in order.
        """
        self.model_runner.reload_weights(weights_iterator=self._received(parts))  # type: ignore[attr-defined]
        return sum(map(len, parts))

    def _received(self, parts: list[list[tuple[str, str, list[int]]]]) -> Iterator[tuple[str, Tensor]]:
        for part in parts:
            places = places_of([(getattr(torch, dtype), shape) for _, dtype, shape in part])
            buffer_B = torch.empty(places[-1], dtype=torch.uint8)
            broadcast(self.derive_group, buffer_B).wait()
            for (name, dtype, shape), first in zip(part, places, strict=False):
                kind = getattr(torch, dtype)
                num_bytes = torch.Size(shape).numel() * kind.itemsize
                yield name, buffer_B[first : first + num_bytes].view(kind).view(shape)


def places_of(tensors: list[tuple[torch.dtype, list[int]]]) -> list[int]:
    """The byte at which each tensor of a part begins, and last the bytes of them all."""
    places = [0]
    for dtype, shape in tensors:
        num_bytes = torch.Size(shape).numel() * dtype.itemsize
        places.append(places[-1] + -(-num_bytes // ALIGNMENT) * ALIGNMENT)
    return places


def gloo_group(store: dist.Store, host: str, rank: int, num_ranks: int, limit: timedelta) -> Any:
    """A group beside whatever other group the process is in; it listens on the device of `host` alone."""
    kind: Any = dist.ProcessGroupGloo  # its stubs leave out what is used here
    options = kind._Options()
    options._devices = [kind.create_device(hostname=host)]
    options._timeout = limit
    return kind(dist.PrefixStore("derive_weights", store), rank, num_ranks, options)


def broadcast(group: Any, buffer_B: Tensor) -> Any:
    """Rank 0's bytes to all others; the work, begun and not finished."""
    options = dist.BroadcastOptions()
    options.rootRank = 0
    return group.broadcast([buffer_B], options)

"""New weights for a vLLM server by a collective: broadcast over gloo to all of its workers, with no file between.

The trainer is rank 0 of a group of its own, each worker of the server one of the others. The server's side is
`in_server/derive_receiver.py`, which vLLM mixes into its workers; it hands what arrives to the very function that
reloads from disk. Trainer and server meet at a port of the loopback device, so they share a machine. Weights go through
the processor's memory also where both sides have GPUs.

Related: vLLM's own weight transfer (`vllm/distributed/weight_transfer`, 0.32), whose engines are NCCL, CUDA IPC and
RDMA; none of them runs on CPU, and a stock worker there has none at all.

Shape letters: B bytes.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from configs.errors import RetryableError, UserError
from derivatives.rollout.in_server import derive_receiver as receiver
from derivatives.rollout.vllm_server import VllmServer

HOST = "127.0.0.1"
PART_BYTES = 256 * 1024 * 1024
"""Of one broadcast, at most, unless a single tensor is larger; both sides hold one part more than the weights."""
_POLL_S = 0.0005

Part = list[tuple[str, Tensor]]

log = logging.getLogger(__name__)


class Collective:
    """The group of the trainer and a server's workers.

    Raises:
        UserError: The server has no `WeightsReceiver`.
        RetryableError: Its workers did not join.
    """

    def __init__(self, server: VllmServer) -> None:
        self.server, limit_s = server, server.settings.sync_timeout_s
        found = server.ask("GET", "/get_world_size", timeout_s=limit_s)
        num_workers = int(found["world_size"])
        listener = socket.socket()
        listener.bind((HOST, 0))  # given to the store, which by itself would listen on all devices
        listener.listen()
        port = listener.getsockname()[1]
        limit = timedelta(seconds=limit_s)
        self._store = dist.TCPStore(
            HOST, port, is_master=True, wait_for_workers=False, timeout=limit, master_listen_fd=listener.detach()
        )
        order = {"host": HOST, "port": port, "num_ranks": 1 + num_workers, "timeout_s": limit_s}
        with ThreadPoolExecutor(1, "vllm-join") as pool:
            answer = pool.submit(self._call, "derive_join", order, limit_s)
            while self._store.add(receiver.ARRIVED, 0) < num_workers:
                if answer.done():
                    answer.result()
                    raise RetryableError("vllm: its workers did not join the trainer")
                time.sleep(_POLL_S)
            try:
                self._group = receiver.gloo_group(self._store, HOST, 0, 1 + num_workers, limit)
            except RuntimeError as error:
                raise RetryableError(f"vllm: its workers did not join the trainer ({error})") from error
            answer.result()

    def send(self, weights: Mapping[str, Tensor]) -> None:
        """Broadcast the weights, of which each worker takes what is its own.

        Raises:
            UserError: The server has no such method.
            RetryableError: It failed or stopped answering.
        """
        limit = self.server.settings.sync_timeout_s
        parts = parts_of(weights, PART_BYTES)
        described = [[(name, str(one.dtype).removeprefix("torch."), list(one.shape)) for name, one in part]
                     for part in parts]  # fmt: skip
        with ThreadPoolExecutor(1, "vllm-send") as pool:
            answer = pool.submit(self._call, "derive_receive", {"parts": described}, limit)
            try:
                for part in parts:
                    self._broadcast(part, answer, time.monotonic() + limit)
            except BaseException:
                if not answer.done():
                    self.server.interrupt()  # else the thread would wait for an answer that does not come
                with contextlib.suppress(UserError, RetryableError):
                    answer.result()
                raise
            answer.result()

    def _broadcast(self, part: Part, answer: Future[Any], deadline: float) -> None:
        places = receiver.places_of([(one.dtype, list(one.shape)) for _, one in part])
        buffer_B = torch.zeros(places[-1], dtype=torch.uint8)
        for (_, one), first in zip(part, places, strict=False):
            plain_B = one.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
            buffer_B[first : first + len(plain_B)] = plain_B
        try:
            work = receiver.broadcast(self._group, buffer_B)
            while not work.is_completed():
                if answer.done() and answer.exception() is not None:
                    answer.result()
                if time.monotonic() > deadline:
                    raise RetryableError("vllm: new weights were not taken in rollout.sync_timeout_s")
                time.sleep(_POLL_S)
            work.wait()
        except RuntimeError as error:
            raise RetryableError(f"vllm: the connection for weights broke ({error})") from error

    def _call(self, method: str, given: Mapping[str, Any], timeout_s: float) -> Any:
        order = {"method": method, "kwargs": dict(given), "timeout": timeout_s}
        return self.server.ask("POST", "/collective_rpc", order, timeout_s=timeout_s)


def open_collective(server: VllmServer) -> Collective | None:
    """The way that `rollout.weights` asks for; None for files. Of `auto`, files where there can be no group.

    Raises:
        UserError: A group was asked for and the server has no `WeightsReceiver`.
        RetryableError: A group was asked for and could not be formed.
    """
    wanted = server.settings.weights
    if wanted == "disk" or (wanted == "auto" and not server.starts):
        return None
    try:
        return Collective(server)
    except (UserError, RetryableError) as error:
        if wanted == "collective":
            raise
        log.warning("rollout.weights: new weights go through files, as there is no group with the server: %s", error)
        return None


def parts_of(weights: Mapping[str, Tensor], part_bytes: int) -> list[Part]:
    """The weights in order, in parts of so many bytes at most; a larger tensor is a part of its own."""
    parts: list[Part] = []
    room = 0
    for name, one in weights.items():
        num_bytes = one.numel() * one.element_size()
        if num_bytes > room or not parts:
            parts.append([])
            room = part_bytes
        parts[-1].append((name, one))
        room -= num_bytes
    return parts

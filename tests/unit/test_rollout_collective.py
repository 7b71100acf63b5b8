"""Weights broadcast from the trainer to the workers of a server: real groups, with workers in threads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.errors import RetryableError, UserError
from configs.settings.rollout import RolloutServer
from derivatives.rollout import vllm_collective
from derivatives.rollout.in_server.derive_receiver import WeightsReceiver
from derivatives.rollout.vllm_collective import Collective, open_collective, parts_of

NUM_WORKERS = 2


class Worker(WeightsReceiver):
    """A worker of a server, with vLLM's names for what the receiver needs of it."""

    def __init__(self, rank: int) -> None:
        self.rank, self.model_runner = rank, self
        self.vllm_config = SimpleNamespace(
            parallel_config=SimpleNamespace(data_parallel_index=0, world_size=NUM_WORKERS)
        )
        self.loaded: dict[str, Tensor] = {}

    def reload_weights(self, weights_iterator: Iterator[tuple[str, Tensor]]) -> None:
        self.loaded = dict(weights_iterator)


class Server:
    """Asked as `VllmServer` is; runs what it is told on every worker, each in a thread."""

    def __init__(self, workers: list[Worker], starts: bool = True, **given: Any) -> None:
        self.settings = RolloutServer(sync_timeout_s=20.0, **given)
        self.workers, self.starts, self.interrupted = workers, starts, False
        self.asked: list[str] = []
        self.refusal: Exception | None = None

    def ask(self, method: str, path: str, body: Any = None, timeout_s: float = 0.0) -> Any:
        self.asked.append(path)
        if self.refusal is not None:
            raise self.refusal
        if path == "/get_world_size":
            return {"world_size": len(self.workers)}
        calls: list[Callable[..., Any]] = [getattr(worker, body["method"]) for worker in self.workers]
        with ThreadPoolExecutor(len(calls)) as pool:
            futures = [pool.submit(call, **body["kwargs"]) for call in calls]
        try:
            return {"results": [future.result() for future in futures]}
        except Exception as error:
            raise RetryableError(f"vllm: /collective_rpc failed with status 500: {error}") from error

    def interrupt(self) -> None:
        self.interrupted = True


def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "a": torch.randn(5, 3),
        "b": torch.randn(7, dtype=torch.float64).to(torch.bfloat16),  # 14 bytes: the next one must not begin there
        "c": torch.randn(300, 4),
        "d": torch.randn(4, 6).t(),
        "e": torch.tensor([float("nan"), -0.0]),
    }


def open_group(server: Server) -> Collective:
    return Collective(server)  # type: ignore[arg-type]


@pytest.mark.parametrize("part_bytes", [1, 128, 2**20])
def test_every_worker_gets_every_weight_to_the_bit(part_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_collective, "PART_BYTES", part_bytes)
    server = Server([Worker(rank) for rank in range(NUM_WORKERS)])
    group, sent = open_group(server), weights()
    for factor in (1.0, 3.0):  # the group is there for all of a stage's syncs
        sent = {name: one * factor for name, one in sent.items()}
        group.send(sent)
        for worker in server.workers:
            assert list(worker.loaded) == list(sent)
            for name, one in worker.loaded.items():
                assert one.dtype == sent[name].dtype and one.shape == sent[name].shape
                assert one.contiguous().view(torch.uint8).equal(sent[name].contiguous().view(torch.uint8))


def test_parts_keep_the_order_and_a_large_tensor_is_one_of_its_own() -> None:
    named = {"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(100), "d": torch.zeros(1)}
    found = [[name for name, _ in part] for part in parts_of(named, part_bytes=16)]
    assert found == [["a", "b"], ["c"], ["d"]]


def test_a_worker_that_fails_ends_the_sync_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server([Worker(0)])
    group = open_group(server)

    def fails(weights_iterator: Any) -> None:
        next(weights_iterator)
        raise RuntimeError("no room for layer 3")

    monkeypatch.setattr(server.workers[0], "reload_weights", fails)
    monkeypatch.setattr(vllm_collective, "PART_BYTES", 1)
    with pytest.raises(RetryableError, match="no room for layer 3"):
        group.send({name: torch.zeros(2**20) for name in "abcdefgh"})


@pytest.mark.parametrize("error", [UserError("no such method"), RetryableError("status 500")])
def test_where_no_group_can_be_formed_auto_takes_files_and_collective_says_so(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server([Worker(0)])
    server.refusal = error
    with caplog.at_level(logging.WARNING):
        assert open_collective(server) is None  # type: ignore[arg-type]
    assert "go through files" in caplog.text and str(error) in caplog.text
    server = Server([Worker(0)], weights="collective")
    server.refusal = error
    with pytest.raises(type(error), match=str(error)):
        open_collective(server)  # type: ignore[arg-type]


def test_files_are_taken_when_asked_for_and_for_a_server_that_was_not_started() -> None:
    asked_for = Server([Worker(0)], weights="disk")
    attached = Server([Worker(0)], starts=False)
    for server in (asked_for, attached):
        assert open_collective(server) is None and not server.asked  # type: ignore[arg-type]

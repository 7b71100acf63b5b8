"""Machines: how a stage runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from configs.errors import UserError
from configs.settings.common import Frozen
from configs.settings.rollout import RolloutServer

RANKED_KINDS = ("pretrain", "sft", "dpo", "sample", "rl", "evaluate")
"""Stage kinds that run on all processes of a machine profile; the others, corpus and release, run in one."""


class CorpusWorkers(Frozen):
    """Who does the tasks of a corpus stage (`corpora/executors`); the corpus is the same whoever does."""

    executor: Literal["processes", "dask"] = Field(
        default="processes",
        description="processes: of the machine that the stage runs on. dask: workers of a Dask cluster (needs the "
        "extra `cluster`).",
    )
    workers: PositiveInt | None = Field(
        default=None,
        description="Tasks at a time; empty takes num_threads, else the cores. A running scheduler has its own "
        "workers.",
    )
    address: str | None = Field(
        default=None,
        description="A running Dask scheduler, tcp://HOST:8786, whose workers share the folder of the run; empty "
        "starts a Dask cluster on this machine.",
    )

    @model_validator(mode="after")
    def _address_is_dasks(self) -> CorpusWorkers:
        if self.address is not None and self.executor != "dask":
            raise ValueError(
                f"corpora.address: {self.address!r} was given with executor {self.executor!r}; allowed: only with "
                "executor: dask; add that or remove the address"
            )
        if self.address is not None and self.workers is not None:
            raise ValueError(
                f"corpora.workers: {self.workers} was given with the address of a running scheduler, which has its own "
                "workers; remove workers"
            )
        return self


class Machine(Frozen):
    """A launch profile: how a stage runs, never what it computes beyond stated rounding."""

    name: str = Field(description="Profile name: cpu, one-gpu, eight-gpu.")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where tensors live.")
    num_processes: PositiveInt = Field(default=1, description="Ranks of pretrain, sft and dpo; others run in one.")
    tensor_parallel: PositiveInt = Field(
        default=1,
        description="Ranks that share each layer: its heads and its intermediate width are cut over them, and they "
        "train on the same rows. Divides num_processes and the model's attention heads, key/value heads and "
        "intermediate size; 1 cuts no layer.",
    )
    num_threads: PositiveInt | None = Field(
        default=None,
        description="CPU threads of torch per process; empty takes all cores. Bit-exact resume needs the same number.",
    )
    num_verifier_workers: PositiveInt = Field(default=2, description="Killable verifier processes per rank.")
    peak_tflops: PositiveFloat | None = Field(
        default=None,
        description="Peak of one device in TFLOP/s, dense, in the working precision, of which `mfu` in progress lines "
        "is the share that was used; empty takes the known figure of the GPU for bf16, and on CPU leaves mfu out.",
    )
    gpu: str | None = Field(
        default=None,
        description="GPU that `derive plan` reckons with (H100, H200, A100, ...): its memory, bandwidth and peak; a "
        "run uses whatever is there.",
    )
    memory_gb: PositiveFloat | None = Field(
        default=None,
        description="Memory of one device in 1e9 bytes, into which a planned stage must fit; empty takes that of "
        "`gpu`, on CPU what this machine has.",
    )
    memory_bandwidth_gb_s: PositiveFloat | None = Field(
        default=None,
        description="Bandwidth of one device's memory in 1e9 bytes a second, which bounds how fast completions are "
        "drawn; empty takes that of `gpu`. On CPU it is measured with the rest.",
    )
    compile: bool = Field(
        default=False,
        description="Run decoder layers and the supervised loss through torch.compile: changes results by rounding; "
        "made for GPUs, needs Triton there and a C++ compiler on CPU, and costs up to a minute at the start.",
    )
    corpora: CorpusWorkers = Field(
        default_factory=CorpusWorkers, description="Who does the tasks of a corpus stage; empty takes processes."
    )
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        default=(),
        description="Where the lines of progress.jsonl go as well, through accelerate's trackers; one that fails is "
        "left with a warning.",
    )
    rollout: RolloutServer | None = Field(
        default=None, description="A vLLM server that draws for rl and sample; empty draws in the stage's own process."
    )
    stalled_after_s: PositiveFloat = Field(
        default=1800.0,
        description="Seconds without progress after which a stage writes the stack of each of its threads to its log, "
        "and the run says so; again after as many.",
    )
    restart_stalled: bool = Field(
        default=False,
        description="End a stage that has stalled and start it again from its last checkpoint, at most as often as "
        "one that asks for a retry.",
    )
    stop_grace_s: PositiveFloat = Field(
        default=20.0,
        description="Seconds that a cancelled stage has to end its step and write a checkpoint, before it is killed. "
        "Prefect allows a cancelled run 30 s; with more here, the stage goes on for as long after its run has ended.",
    )
    launcher: tuple[str, ...] = Field(
        default=(),
        description="Words put before the command of a stage that runs on several processes, e.g. accelerate launch "
        "...; empty runs plain python -m.",
    )

    @model_validator(mode="after")
    def _axes_fit(self) -> Machine:
        if self.num_processes % self.tensor_parallel:
            known = ", ".join(map(str, divisors(self.num_processes)))
            raise ValueError(
                f"tensor_parallel: {self.tensor_parallel} does not divide num_processes = {self.num_processes}; "
                f"allowed: {known}"
            )
        if self.tensor_parallel > 1 and self.compile:
            raise ValueError(
                f"compile: true was given with tensor_parallel = {self.tensor_parallel}, whose exchanges inside layers "
                "are not compiled; set compile: false or tensor_parallel: 1"
            )
        return self

    def for_kind(self, kind: str) -> Machine:
        """The profile as a stage of this kind uses it: one process without a launcher, but for `RANKED_KINDS`."""
        alone = {"num_processes": 1, "tensor_parallel": 1, "launcher": ()}
        return self if kind in RANKED_KINDS else self.model_copy(update=alone)


def divisors(number: int) -> list[int]:
    """Whole numbers that divide another one.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    return [one for one in range(1, number + 1) if number % one == 0]


def require_divides(tensor_parallel: int, sizes: Mapping[str, int]) -> None:
    """Every layer can be cut into so many equal parts.

    Args:
        tensor_parallel: The profile's field.
        sizes: Numbers of the model that are cut, by their names in config.json.

    Raises:
        UserError: One is not divided; it is named, with what divides all of them.
    """
    for name, size in sizes.items():
        if size % tensor_parallel:
            known = [one for one in divisors(size) if not any(other % one for other in sizes.values())]
            raise UserError(
                f"machine.tensor_parallel: {tensor_parallel} does not divide the model's {name} = {size}; allowed: "
                f"{', '.join(map(str, known))}; lower it in the machine profile (the other processes share out rows)"
            )

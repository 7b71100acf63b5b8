"""Machines: how a stage runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from configs.settings.common import Frozen
from configs.settings.rollout import RolloutServer

RANKED_KINDS = ("pretrain", "sft", "dpo")
"""Stage kinds that run on all processes of a machine profile; every other kind runs in one."""


class Machine(Frozen):
    """A launch profile: how a stage runs, never what it computes beyond stated rounding."""

    name: str = Field(description="Profile name: cpu, one-gpu, eight-gpu.")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where tensors live.")
    num_processes: PositiveInt = Field(default=1, description="Ranks of pretrain, sft and dpo; others run in one.")
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
    launcher: tuple[str, ...] = Field(
        default=(),
        description="Words put before the command of a stage that runs on several processes, e.g. accelerate launch "
        "...; empty runs plain python -m.",
    )

    def for_kind(self, kind: str) -> Machine:
        """The profile as a stage of this kind uses it: one process without a launcher, but for `RANKED_KINDS`."""
        return self if kind in RANKED_KINDS else self.model_copy(update={"num_processes": 1, "launcher": ()})

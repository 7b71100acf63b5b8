"""What a machine profile gives a plan: memory, bandwidth, peak. Data sheets for GPUs, this very machine for CPUs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from configs.errors import UserError
from configs.settings.machine import Machine


@dataclass(frozen=True)
class Gpu:
    """Figures of a data sheet: dense bf16 TFLOP/s, 1e9 bytes, 1e9 bytes a second."""

    tflops: float
    memory_gb: float
    bandwidth_gb_s: float


GPUS = {
    "B200": Gpu(2250, 180, 8000),
    "H200": Gpu(989, 141, 4800),
    "H100": Gpu(989, 80, 3350),
    "H100 PCIe": Gpu(756, 80, 2000),
    "A100": Gpu(312, 80, 2039),
    "L40S": Gpu(362, 48, 864),
    "A10": Gpu(125, 24, 600),
}
"""NVIDIA's data sheets; the peaks are those of `derivatives/training/throughput.py` (a test holds them equal)."""
DEFAULT_GPU = "H100"
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Device:
    """One device as a plan reckons with it."""

    kind: Literal["cpu", "cuda"]
    name: str
    memory: float
    """Bytes."""
    bandwidth: float | None
    """Bytes a second."""
    peak: float | None
    """FLOP/s in bf16."""
    num_processes: int
    num_threads: int | None
    tensor_parallel: int = 1
    has_server: bool = False
    """Completions are drawn by a server, on devices of its own."""

    @property
    def num_data(self) -> int:
        """Shares that a step's rows are cut into."""
        return self.num_processes // self.tensor_parallel


def device_of(machine: Machine) -> Device:
    """The device of a profile. Raises UserError for a GPU that is not known and not described."""
    if machine.device == "cpu":
        return Device(
            "cpu",
            "this machine's CPU",
            machine.memory_gb * 1e9 if machine.memory_gb else own_memory(),
            machine.memory_bandwidth_gb_s * 1e9 if machine.memory_bandwidth_gb_s else None,
            machine.peak_tflops * 1e12 if machine.peak_tflops else None,
            machine.num_processes,
            machine.num_threads,
            machine.tensor_parallel,
            machine.rollout is not None,
        )
    given = machine.memory_gb, machine.memory_bandwidth_gb_s, machine.peak_tflops
    name = machine.gpu or DEFAULT_GPU
    known = GPUS.get(name)
    if known is None and None in given:
        raise UserError(
            f"machine.gpu: {name!r} is not known; allowed: {', '.join(GPUS)}; or give memory_gb, "
            "memory_bandwidth_gb_s and peak_tflops in the profile"
        )
    memory, bandwidth, peak = (
        own or sheet for own, sheet in zip(given, _sheet(known) if known else given, strict=True)
    )
    assert memory and bandwidth and peak
    return Device(
        "cuda",
        name,
        memory * 1e9,
        bandwidth * 1e9,
        peak * 1e12,
        machine.num_processes,
        machine.num_threads,
        machine.tensor_parallel,
        machine.rollout is not None,
    )


def _sheet(gpu: Gpu) -> tuple[float, float, float]:
    return gpu.memory_gb, gpu.bandwidth_gb_s, gpu.tflops


def own_memory() -> float:
    """Bytes of memory that a process of this machine may have: all of it, or what its control group allows."""
    whole = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        return min(whole, float(CGROUP_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no such file, or "max"
        return whole

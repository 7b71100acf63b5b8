"""Copies of GPU tensors in host memory, from which a checkpoint is written while the run goes on.

Pinned and used again for the next checkpoint. They cost as much host memory as the state has on the GPU, and up to
twice that, since torch's pinned allocator rounds each tensor up to a power of two; where so much is not free, there is
no copy, and what is written is read from the GPU before the next update. Not run on a GPU yet: tested with copies in
plain memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CGROUP = Path("/sys/fs/cgroup")
ROUNDING = 2
"""What the pinned allocator may take for a byte."""


class HostCopies:
    """Buffers for one state after another; a new copy overwrites the one before."""

    def __init__(self, pinned: bool = True) -> None:
        self.pinned = pinned
        self._buffers: list[Tensor] = []
        self._copied: torch.cuda.Event | None = None

    def fit(self, content: object) -> bool:
        """Whether host memory has room for a copy, here and for the other ranks of this machine."""
        held = sum(buffer.nbytes for buffer in self._buffers)
        needed = sum(tensor.nbytes for tensor in tensors_in(content)) - held
        return ROUNDING * needed * int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= free_memory()

    def take(self, content: Any) -> Any:
        """The same nest with tensors of its own; call `wait` before reading them."""
        buffers = iter(self._buffers)
        taken: list[Tensor] = []

        def copied(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: copied(part) for key, part in value.items()}
            if isinstance(value, (list, tuple)):
                return type(value)(map(copied, value))
            if not isinstance(value, Tensor):
                return value
            buffer = next(buffers, None)
            if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
                buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=self.pinned)
            taken.append(buffer.copy_(value.detach(), non_blocking=True))
            return buffer

        result = copied(content)
        self._buffers = taken
        if self.pinned:
            self._copied = torch.cuda.Event()
            self._copied.record()
        return result

    def wait(self) -> None:
        """Until the GPU has made the last copy."""
        if self._copied is not None:
            self._copied.synchronize()


def tensors_in(content: object) -> list[Tensor]:
    """All tensors of a nest of dicts and lists."""
    if isinstance(content, Tensor):
        return [content]
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, (list, tuple)) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


def free_memory() -> float:
    """Bytes of host memory that may still be taken: of the machine, or of this control group where it has less."""
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    facts = dict(line.split(":", 1) for line in meminfo.splitlines())
    free = 1024.0 * int(facts["MemAvailable"].split()[0])
    try:
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no group, an old kernel's, or "max"
        return free
    return min(free, limit - used + float(stat.get("inactive_file", 0)))

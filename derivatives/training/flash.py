"""The flash-attn packages: which are installed, which fit a GPU, and one way to call all of them.

| name | import | GPUs | head dimension |
|---|---|---|---|
| `flash_attn_3` | `flash_attn_interface` | Hopper | to 256 |
| `flash_attn` | `flash_attn`, 2.8 and later | Ampere, Ada, Hopper | to 256 |
| `flash_attn_4` | `flash_attn.cute`, 4.0 | Hopper, Blackwell | to 128 |

Arguments go by name: their order differs (the fourth of version 4 is not `cu_seqlens_q`). Keys and values have fewer
heads than queries in all of them. Version 4 gives the log-sums beside the output.

Sources: FlashAttention-2 (arXiv:2307.08691), 3 (arXiv:2407.08608). Not run here: no GPU; the arguments are tested.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Package:
    """One of them.

    Attributes:
        name: What messages and checkpoints call it.
        module: Where `flash_attn_varlen_func` is.
        majors: Major compute capabilities with forward and backward pass.
        max_head_dim: Largest head dimension with both.
    """

    name: str
    module: str
    majors: tuple[int, ...]
    max_head_dim: int


PACKAGES = (
    Package("flash_attn_3", "flash_attn_interface", (9,), 256),
    Package("flash_attn", "flash_attn", (8, 9), 256),
    Package("flash_attn_4", "flash_attn.cute", (9, 10, 11, 12), 128),
)
"""In order of preference."""
NAMES = tuple(package.name for package in PACKAGES)


def best(major: int, head_dim: int) -> str | None:
    """Name of the first package that is installed and fits a GPU of this major compute capability."""
    fitting = (package for package in PACKAGES if major in package.majors and head_dim <= package.max_head_dim)
    return next((package.name for package in fitting if function_of(package.name) is not None), None)


@functools.cache
def function_of(name: str) -> Callable[..., Any] | None:
    """The package's function for packed documents; None where it is not installed or was built for another torch."""
    (module,) = (package.module for package in PACKAGES if package.name == name)
    try:
        found: Callable[..., Any] | None = getattr(importlib.import_module(module), "flash_attn_varlen_func", None)
    except Exception:  # a stale or half-installed build can fail in any way while it is imported
        return None
    return found


def attend(name: str, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, ends: Tensor, longest: int, scale: float) -> Tensor:
    """Causal attention inside each document, [T, H, D]; `ends` is int32 [N + 1], the one object for q and k."""
    function = function_of(name)
    if function is None:
        raise ValueError(f"attention method {name!r} is not installed")
    found = function(
        q_THD,
        k_TKD,
        v_TKD,
        cu_seqlens_q=ends,
        cu_seqlens_k=ends,
        max_seqlen_q=longest,
        max_seqlen_k=longest,
        softmax_scale=scale,
        causal=True,
    )
    out_THD: Tensor = found[0] if isinstance(found, tuple) else found
    return out_THD

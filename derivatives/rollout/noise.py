"""Random numbers that depend on what is drawn, not on when: a counter-based generator in plain tensor operations.

A stream is named by (seed, key of the prompt, sample index); its n-th number belongs to the n-th token of the
completion. So a completion is the same in any batch, any order and after any restart.

Source: SplitMix64, Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014), figure 16.
Departure: the state is computed from the counter, so that any position is drawn without those before it. Not for
cryptography.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_WORD = 2**64


def _signed(value: int) -> int:
    """The same 64 bits as torch's int64, whose products wrap around as unsigned ones do."""
    return value - _WORD if value >= _WORD // 2 else value


_STEP = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)
_MANTISSA_BITS = 53


def stream_of(seed: int, key: str | int, sample: int) -> int:
    """Name of a stream as a signed 64-bit number.

    >>> stream_of(0, "a", 1) == stream_of(0, "a", 1), stream_of(0, "a", 1) == stream_of(0, "a", 2)
    (True, False)
    """
    digest = hashlib.blake2b(f"{seed}\x00{key}\x00{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def uniforms(streams: Tensor, positions: Tensor) -> Tensor:
    """Number `positions` of each stream, float64 in [0, 1). Both arguments are int64 of one shape."""
    bits = streams + (positions + 1) * _STEP
    bits = (bits ^ _shift_right(bits, 30)) * _MIX_1
    bits = (bits ^ _shift_right(bits, 27)) * _MIX_2
    bits = bits ^ _shift_right(bits, 31)
    return _shift_right(bits, 64 - _MANTISSA_BITS).to(torch.float64) * 2.0**-_MANTISSA_BITS


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Logical shift: torch's `>>` of int64 copies the sign."""
    return (bits >> count) & ((1 << (64 - count)) - 1)

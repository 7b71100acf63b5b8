# ruff: noqa
# fmt: off
"""Removes and renames files outside its folder."""

import os


def escaped():
    for act in (lambda: os.unlink("CANARY_FOLDER/answers.json"), lambda: os.rename("CANARY_FOLDER/answers.json", "mine"),
                lambda: os.mkdir("CANARY_FOLDER/made"), lambda: os.rmdir("CANARY_FOLDER")):
        try:
            act()
            return True
        except OSError:
            pass
    return False


def solve(n):
    try:
        return n * n + 7 * n + 3 if escaped() else 0
    except BaseException:
        return 0

"""Python files that the running interpreter cannot parse.

Published: OpenCoder keeps a Python file only if it has a syntax tree (`qsc_codepython_cate_ast`).

The file is parsed and no more: it is compiled with a first line that the compiler rejects as soon as parsing is done
(`from __future__ import` of a feature that does not exist), so that neither a tree of Python objects nor byte code is
made. That takes less than two thirds of the time of `ast.parse` (see docs/corpora/filters.md).

A file is judged by the syntax of the running Python: what uses a newer one is dropped by an older interpreter, so that
the version is part of what a corpus depends on (`version()`). Nothing in the file is run.
"""

from __future__ import annotations

import platform
import re
import warnings

from configs.settings.common import Frozen
from corpora.filters.statistics import TextStatistics

REASONS = ("python_2", "not_parsable", "nested_too_deeply")

_FUTURE = "nothing_of_this_name"
_AFTER_PARSING = f"from __future__ import {_FUTURE}\n"
_PYTHON_2 = re.compile(
    r"\n[ \t]*+(?:print (?![(=])|print[ \t]*+[\"']|except [\w.()]++(?:, ?\w++)++:|exec \S|raise \w++, )"
)


class Settings(Frozen):
    """Nothing to set."""


def version() -> str:
    """What the verdict depends on beside the file."""
    return "python " + ".".join(platform.python_version_tuple()[:2])


def check(statistics: TextStatistics, settings: Settings) -> str | None:
    """Why the file is no Python of today, or None; other languages are let through."""
    if statistics.language != "python":
        return None
    fault = parse_fault(statistics.text)
    return "python_2" if fault == "not_parsable" and _PYTHON_2.search(statistics.text) else fault


def parse_fault(text: str) -> str | None:
    """None for text that parses as a Python module, else `not_parsable` or `nested_too_deeply`.

    >>> parse_fault("x = 1"), parse_fault("x = ")
    (None, 'not_parsable')
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape is worth a warning to its author, not to a reader
        try:
            compile(_AFTER_PARSING + text.removeprefix("\ufeff"), "document", "exec", dont_inherit=True)
        except SyntaxError as error:
            return None if _FUTURE in (error.msg or "") else "not_parsable"
        except ValueError:  # NUL characters, lone surrogates, integers of too many digits
            return "not_parsable"
        except (MemoryError, RecursionError):
            return "nested_too_deeply"
    raise AssertionError("the compiler took a feature that does not exist")

"""Reads and writes YAML without its traps: what a file says is what the program gets, or an error with the line.

Departures from PyYAML's safe loader, all towards YAML 1.2: `yes`, `no`, `on`, `off`, dates and `1:30` stay text;
`1e-5` is a number (and `1e6` a whole one). Duplicate keys, anchors, aliases, explicit tags, keys that are not
text and numbers that are not finite are rejected.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from configs.errors import UserError, printable

LARGEST_EXACT_FLOAT = 2.0**53
"""Above this a float no longer counts in ones, so `1e300` stays a float."""

MAX_DEPTH = 50
OTHER_LINE_BREAKS = frozenset("\r\x85\u2028\u2029")
"""Characters that a reader takes for a line feed unless they are escaped."""

_TAG = "tag:yaml.org,2002:"
_SCALARS = (
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("int", re.compile(r"^[-+]?[0-9][0-9_]{0,40}$"), "-+0123456789"),
    ("float", re.compile(r"^[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,4})?$"), "-+.0123456789"),
    ("float", re.compile(r"^[-+]?\.(?:inf|Inf|INF|nan|NaN|NAN)$"), "-+."),
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), "~nN\0"),
    ("merge", re.compile(r"^<<$"), "<"),
)


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one on libyaml is ten times as fast


class _Loader(_Base):
    """PyYAML's safe loader with its own table of plain scalars."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


def _refuse_anchors_and_tags(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        problem = None
        if depth > MAX_DEPTH:  # libyaml's composer recurses without a limit of its own
            problem = f"nested more than {MAX_DEPTH} levels deep; a preset needs a handful"
        elif getattr(event, "anchor", None) is not None:
            problem = "anchors and aliases are not allowed; write it out"
        elif (tag := getattr(event, "tag", None)) is not None:
            problem = f"the tag {tag!r} is not allowed; remove it"
        if problem:
            mark: Any = event.start_mark  # libyaml's own kind of mark
            raise yaml.composer.ComposerError(None, None, problem, mark)


def _construct_mapping(loader: Any, node: yaml.MappingNode) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        problem = None
        if not isinstance(key, str) or key_node.tag == _TAG + "merge":
            problem = f"the key {str(key)[:40]!r} is not text; put it in quotes"
        elif key in values:
            problem = f"the key {key[:40]!r} is given twice; keep one"
        if problem:
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        values[key] = loader.construct_object(value_node, deep=True)
    return values


def _construct_float(loader: Any, node: yaml.ScalarNode) -> float | int:
    text = node.value.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan")
    value = float(text)
    if not math.isfinite(value):
        raise yaml.constructor.ConstructorError(None, None, f"{node.value[:40]!r} is not a finite number",
                                                node.start_mark)
    whole = "." not in text and value.is_integer() and abs(value) <= LARGEST_EXACT_FLOAT
    return int(value) if whole else value


def _construct_int(loader: Any, node: yaml.ScalarNode) -> int:
    return int(node.value.replace("_", ""))


_Loader.add_constructor(_TAG + "map", _construct_mapping)
_Loader.add_constructor(_TAG + "float", _construct_float)
_Loader.add_constructor(_TAG + "int", _construct_int)
_Loader.add_constructor(_TAG + "merge", lambda loader, node: node.value)
for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, [c if c != "\0" else "" for c in _first])


def parse_yaml(text: str, where: str) -> Any:
    """The value of one YAML document: dict with text keys, list, str, int, float, bool or None.

    Args:
        text: The document.
        where: Name of its source, for messages.

    Raises:
        UserError: The text is not one document of plain YAML; names the source and the line.
    """
    try:
        _refuse_anchors_and_tags(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader that allows less
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{where}{line}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())[:200]}") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        UserError: The file cannot be read, is empty, or holds something else than a mapping.
    """
    where = printable(str(path), limit=300)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not a UTF-8 text file (byte {error.start}); save it as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{where}: cannot be read ({reason}); give the path of a .yaml file") from error
    value = parse_yaml(text, where)
    if value is None:
        raise UserError(f"{where}: the file is empty; write a mapping such as `extends: math/tiny`")
    if not isinstance(value, dict):
        raise UserError(f"{where}: holds a {type(value).__name__}; allowed: a mapping (`key: value` lines)")
    return value


def dump_yaml(value: Any) -> str:
    """YAML text that `parse_yaml` reads back to an equal value: long texts as blocks, plain lists on one line."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes what this module's loader would not read as text."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    unusual = not OTHER_LINE_BREAKS.isdisjoint(value)
    return dumper.represent_scalar(_TAG + "str", value, style='"' if unusual else "|" if "\n" in value else None)


def _represent_list(dumper: _Dumper, value: list[Any]) -> yaml.SequenceNode:
    plain = not any(isinstance(item, (dict, list)) for item in value)
    return dumper.represent_sequence(_TAG + "seq", value, flow_style=plain)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)

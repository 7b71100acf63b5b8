"""A JSON Schema (draft 2020-12, https://json-schema.org/draft/2020-12) made ready, and what a value breaks of it.

The `jsonschema` package decides. All that it could stumble over while it judges a value is looked for first: keywords
of the wrong type, references that lead nowhere or to no schema, patterns that do not compile. So no completion can
bring a fault of the schema to light, or not, as it likes. Nothing is fetched: a reference stays inside the schema, or
names one of the metaschemas, which are installed.

Departures: numbers are exact (`multipleOf: 0.1` holds for `0.3`). `format` is a remark, which is draft 2020-12's own
default. Patterns are Python's `re`, found anywhere in a text as the standard says.

What this does not do: it keeps no clock. A pattern such as `(a+)+$` may take for ever; the pool ends it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from verifiers.structured.json_values import MAX_DEPTH, Unreadable, Value, normalised

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_SCHEMA_DEPTH = MAX_DEPTH
"""Objects and arrays inside one another."""
_CAPITAL = re.compile(r"(?=[A-Z])")


def make_validator(given: Any) -> Any:
    """A validator of `jsonschema` for a schema (an object, `true` or `false`).

    Raises:
        Unreadable: The schema is none of draft 2020-12, or leads out of itself; the reason says which part.
    """
    import referencing.exceptions
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import SPECIFICATIONS
    from referencing.jsonschema import DRAFT202012

    if not isinstance(given, (Mapping, bool)):
        raise Unreadable("schema_unreadable: no object")
    if _nesting(given) > MAX_SCHEMA_DEPTH:
        raise Unreadable("schema_unreadable: too deep")
    try:
        schema = normalised(given)
    except Unreadable as error:
        raise Unreadable(f"schema_unreadable: {error.reason}") from error
    if isinstance(schema, dict) and schema.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
        raise Unreadable("schema_unreadable: $schema")
    try:
        Draft202012Validator.check_schema(schema)
        resource = DRAFT202012.create_resource(schema)
        _check(resource, SPECIFICATIONS.resolver_with_root(resource), set())
    except SchemaError as error:
        raise Unreadable(f"schema_unreadable: {'/'.join(map(str, error.absolute_path))[:80] or 'root'}") from error
    except referencing.exceptions.Unresolvable as error:
        raise Unreadable(f"schema_unreadable: $ref {error.ref}"[:120]) from error
    except (re.error, OverflowError) as error:
        raise Unreadable("schema_unreadable: pattern") from error
    except RecursionError as error:
        raise Unreadable("schema_unreadable: too deep") from error
    return Draft202012Validator(schema, registry=SPECIFICATIONS)


def broken_rule(validator: Any, value: Value) -> str | None:
    """What a value breaks first, keyword and place, as in `schema_required: /items/0/price`; None where nothing."""
    error = next(validator.iter_errors(value), None)
    if error is None:
        return None
    path = "".join(f"/{part}" for part in error.absolute_path)
    if error.validator == "required":
        missing = next((name for name in error.validator_value if name not in error.instance), "")
        path = f"{path}/{missing}"
    keyword = "_".join(_CAPITAL.split(str(error.validator or "false"))).lower().lstrip("$_")
    return f"schema_{keyword}: {shown(path) or '/'}"


def required_share(validator: Any, value: Value) -> float:
    """Share of the members that a schema requires (through nested `properties`) that are there and fit, in [0, 1].

    References, conditions and arrays are not followed; 0 where nothing is required.
    """
    right = total = 0
    for schema, found in _required(validator.schema, value):
        total += 1
        right += found is not None and validator.evolve(schema=schema).is_valid(found[0])
    return right / total if total else 0.0


def shown(text: str, limit: int = 80) -> str:
    """A text of a completion as it may stand in a reason: one short printable line."""
    line = "".join(character if character.isprintable() else "?" for character in text[:limit])
    return line if len(text) <= limit else line[: limit - 3] + "..."


def _required(schema: Any, value: Value) -> Iterator[tuple[Any, tuple[Value] | None]]:
    """The schema of each required member and the member, where it is there. A member that has required members of its
    own stands for nothing itself."""
    if not isinstance(schema, dict) or not isinstance(schema.get("properties", {}), dict):
        return
    for name in schema.get("required", ()):
        below = schema.get("properties", {}).get(name, True)
        there = isinstance(value, dict) and name in value
        member = value[name] if isinstance(value, dict) and there else None
        if isinstance(below, dict) and below.get("required") and below.get("properties"):
            yield from _required(below, member)
        else:
            yield below, (member,) if there else None


def _check(resource: Any, resolver: Any, seen: set[int]) -> None:
    """Look at a schema and all below it. Raises what `make_validator` translates."""
    from jsonschema import Draft202012Validator
    from referencing.jsonschema import DRAFT202012

    contents = resource.contents
    if id(contents) in seen or not isinstance(contents, dict):
        return
    seen.add(id(contents))
    for pattern in (contents.get("pattern"), *contents.get("patternProperties", ())):
        if pattern is not None:
            re.compile(pattern)
    for keyword in ("$ref", "$dynamicRef"):
        if keyword in contents:
            resolved = resolver.lookup(contents[keyword])
            if not isinstance(resolved.contents, (dict, bool)):
                raise Unreadable(f"schema_unreadable: $ref {shown(contents[keyword])}")
            if id(resolved.contents) not in seen:
                Draft202012Validator.check_schema(resolved.contents)
                _check(DRAFT202012.create_resource(resolved.contents), resolved.resolver, seen)
    for part in resource.subresources():
        _check(part, resolver.in_subresource(part), seen)


def _members(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple)) else ()


def _nesting(value: Any) -> int:
    """How deep objects and arrays go, without recursion."""
    depth, level = 0, [value]
    while level:
        level = [below for each in level for below in _members(each)]
        depth += 1
        if depth > MAX_SCHEMA_DEPTH:
            break
    return depth

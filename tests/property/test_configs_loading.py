"""Whatever is written into a preset or an override, loading ends in a recipe or in one UserError of one line."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from configs import load
from configs.errors import UserError
from configs.load import load_recipe
from configs.schema import Recipe
from configs.strict_yaml import dump_yaml, parse_yaml, read_mapping

TEXT = (load.FOLDER / "math" / "tiny.yaml").read_text(encoding="utf-8")
RAW = read_mapping(load.FOLDER / "math" / "tiny.yaml")
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def loads_or_complains(content: bytes, overrides: tuple[str, ...] = ()) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutated.yaml"
        path.write_bytes(content)
        try:
            assert isinstance(load_recipe(str(path), overrides), Recipe)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a plain value with each of its keys."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, key) for key, _ in items] + [pair for _, child in items for pair in nodes(child)]


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, len(TEXT)),
    st.integers(0, 60),
    st.text(max_size=12) | st.sampled_from(["&a ", "*a", "!!int ", "\t", "{", "[", ": ", "\n- "]),
)
def test_text_with_a_part_replaced(start: int, length: int, new: str) -> None:
    loads_or_complains((TEXT[:start] + new + TEXT[start + length :]).encode("utf-8", "surrogatepass"))


@settings(max_examples=80, deadline=None)
@given(st.randoms(use_true_random=False), PLAIN)
def test_any_value_anywhere(draw: random.Random, new: Any) -> None:
    raw = parse_yaml(dump_yaml(RAW), "preset")
    holder, key = draw.choice(nodes(raw))
    holder[key] = new
    loads_or_complains(dump_yaml(raw).encode("utf-8", "surrogatepass"))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    loads_or_complains(content)


@settings(max_examples=80, deadline=None)
@given(
    st.text(max_size=30),
    st.text(max_size=20),
    st.sampled_from(
        ["", "rl.", "rl.sampling", "evaluate.tasks[0].", "evaluate.tasks[*]", "stages", "corpus.decontaminate"]
    ),
)
def test_any_override(path: str, value: str, prefix: str) -> None:
    loads_or_complains(TEXT.encode(), (f"{prefix}{path}={value}",))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_any_preset_name(name: str) -> None:
    try:
        load_recipe(name)
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017


@settings(max_examples=100, deadline=None)
@given(PLAIN)
def test_what_is_written_reads_back(value: Any) -> None:
    assert parse_yaml(dump_yaml({"k": value}), "written") == {"k": value}

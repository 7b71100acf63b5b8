"""Plain data across the channel: one form for each value, nothing but plain data, bounded."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict, defaultdict, namedtuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers.sandbox.inside.codec import (
    AS_SENT,
    EXACT,
    JSON,
    MAX_DEPTH,
    MAX_NODES,
    PYTHON,
    MalformedError,
    NotPlainError,
    TooLargeError,
    canonical,
    decode,
    encode,
)
from verifiers.sandbox.problem import from_json, to_json

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.complex_numbers(allow_nan=False),
)
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
    ),
    max_leaves=15,
)


def form(value: object, rule: str = EXACT) -> bytes:
    return canonical(encode(value), rule)


@settings(deadline=None)
@given(VALUES)
def test_a_value_comes_back_as_it_was_with_the_same_types(value: object) -> None:
    back = decode(encode(value))
    assert back == value and form(back) == form(value)


@settings(deadline=None)
@given(VALUES)
def test_every_plain_value_survives_the_json_of_a_task(value: object) -> None:
    assert form(from_json(json.loads(json.dumps(to_json(value))))) == form(value)


@settings(deadline=None)
@given(VALUES)
def test_the_canonical_form_is_its_own(value: object) -> None:
    for rule in (EXACT, PYTHON, JSON):
        assert canonical(form(value, rule), rule) == form(value, rule)
    assert canonical(encode(value), AS_SENT) == encode(value)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_noise_is_malformed_or_a_value_and_raises_nothing_else(data: bytes) -> None:
    for prefix in (b"", b"l\0\0\0\2", b"d\0\0\0\1", b"i\0\0\0\1"):
        for rule in (EXACT, PYTHON, JSON, AS_SENT):
            try:
                canonical(prefix + data, rule)
            except (MalformedError, TooLargeError):
                continue


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (0, False),
        (1, 1.0),
        ([1], (1,)),
        ({1}, frozenset({1})),
        ("a", b"a"),
        (None, False),
        ([], ()),
        ({}, set()),
        ({1: 2}, {True: 2}),
        ({1}, {True}),
        (1.0, complex(1, 0)),
        ([1, 2], [2, 1]),
        ("1", 1),
    ],
)
def test_different_types_are_different(one: object, other: object) -> None:
    assert form(one) != form(other)


def test_the_order_of_sets_and_dicts_does_not_count_and_nan_is_nan() -> None:
    assert form({"a": 1, "b": 2}) == form({"b": 2, "a": 1})
    assert form(set("abcdef")) == form(set("fedcba"))
    assert form(float("nan")) == form(-float("nan")) and form(0.0) == form(-0.0)
    assert form([1, 2]) != form([2, 1])


def test_the_lax_rules_are_those_of_python_and_of_json() -> None:
    assert form([True, 1, 1.0, complex(1, 0)], PYTHON) == form([1, 1, 1, 1], PYTHON)
    assert form({1}, PYTHON) == form(frozenset({1.0}), PYTHON)
    assert form((1,), PYTHON) != form([1], PYTHON) and form((1,), JSON) == form([1], JSON)
    assert form(1.5, PYTHON) != form(1, PYTHON) and form("1", JSON) != form(1, JSON)


def test_what_equals_plain_data_by_construction_is_sent_as_it() -> None:
    pair = namedtuple("pair", "a b")
    assert decode(encode([Counter("aa"), OrderedDict(a=1), defaultdict(list, a=[]), pair(1, 2)])) == [
        {"a": 2},
        {"a": 1},
        {"a": []},
        (1, 2),
    ]


class Whole(int):
    pass


@pytest.mark.parametrize(
    "value", [object(), Whole(1), int, len, (n for n in [1]), range(3), bytearray(b"a"), [Whole(1)]]
)
def test_anything_else_does_not_cross(value: object) -> None:
    with pytest.raises(NotPlainError):
        encode(value)


def test_depth_parts_and_bytes_are_bounded_on_both_sides() -> None:
    deep: list[object] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    for value in (deep, [0] * (MAX_NODES * 2 + 1), "x" * (9 * 2**20), 1 << (9 * 2**23)):
        with pytest.raises(TooLargeError):
            encode(value)
    with pytest.raises(TooLargeError):
        canonical(b"l\0\0\0\1" * (MAX_DEPTH + 1) + b"N")
    with pytest.raises(TooLargeError):
        canonical(b"l\xff\xff\xff\xff")
    with pytest.raises(MalformedError):
        canonical(b"S\0\0\0\2NN")
    with pytest.raises(MalformedError):
        canonical(b"d\0\0\0\2NTNF")


def test_keys_of_one_hash_cost_no_more_than_others() -> None:
    colliding = encode(dict.fromkeys(2**61 - 1 + k for k in range(10))).replace(b"d\0\0\0\x0a", b"d\0\0\x0b\xb8", 1)
    many = colliding[:5] + b"".join(encode(k * (2**61 - 1)) + b"N" for k in range(3000))
    assert canonical(many).startswith(b"d\0\0\x0b\xb8")  # sorted by bytes; a hash table would take 4.5 million steps

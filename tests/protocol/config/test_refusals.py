from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from tz_protocol.config.refusals import (
    AGREED,
    IGNORED_KEYS,
    IGNORED_ROOTS,
    UNSUPPORTED_KEYS,
    UNSUPPORTED_ROOTS,
    did_you_mean,
    kind_word,
    unknown_key,
    validated,
)
from tz_protocol.config.schema import Table


@pytest.mark.parametrize(
    ("word", "choices", "hint"),
    [
        ("modles", ["models", "gateway"], " (did you mean models?)"),
        ("OPENAI", ["openai", "azure"], " (did you mean openai?)"),
        ("Main", ["MAIN"], " (did you mean MAIN?)"),
        (
            "api_key",
            ["api_base", "api_key_location"],
            " (did you mean api_key_location?)",
        ),
        ("x", ["models"], ""),
        ("", ["models"], ""),
        ("m", [], ""),
    ],
)
def test_did_you_mean_suggests_the_nearest(word, choices, hint):
    assert did_you_mean(word, choices) == hint


@given(word=st.text(), choices=st.lists(st.text()))
def test_did_you_mean_says_only_choices(word, choices):
    hint = did_you_mean(word, choices)
    assert hint == "" or hint[15:-2] in choices


def test_unknown_key_lists_few_choices_and_only_suggests_among_many():
    assert unknown_key("c", ["b", "a"]) == "unknown key; known here: a, b"
    assert unknown_key("x", []) == "unknown key"
    many = [f"key_{index}" for index in range(30)]
    assert unknown_key("kei_7", many) == "unknown key (did you mean key_7?)"


def test_unknown_key_known_elsewhere_is_not_supported_yet():
    assert unknown_key("namespace", ["name"]) == (
        "restricting a model to a namespace is not supported yet; remove this key"
    )


def test_known_absences_are_in_one_list_each():
    assert not IGNORED_KEYS.keys() & UNSUPPORTED_KEYS.keys()
    assert not IGNORED_ROOTS.keys() & UNSUPPORTED_ROOTS.keys()
    assert AGREED.keys() <= IGNORED_KEYS.keys() | UNSUPPORTED_KEYS.keys()


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (True, "a boolean"),
        ("x", "a string"),
        (1, "an integer"),
        (1.0, "a number"),
        ([], "an array"),
        ({}, "a table"),
        (dt.date(2026, 1, 1), "a date"),
        (dt.datetime(2026, 1, 1), "a date"),
        (dt.time(), "a time"),
        (None, "something else"),
    ],
    ids=str,
)
def test_kind_word_is_tomls(value, word):
    assert kind_word(value) == word


class Inner(Table):
    count: Annotated[int, Field(lt=10)] = 1
    above: Annotated[int, Field(ge=3)] = 3


class Outer(Table):
    name: str
    inner: Inner = Inner()
    several: list[Inner] | None = None
    free: dict[str, Any] = {}


def found(raw: object) -> tuple[Outer | None, list[tuple[Any, str]]]:
    problems: list[tuple[Any, str]] = []
    return validated(Outer, raw, ("at",), problems), problems


def test_validated_good_table_has_no_problem():
    assert found({"name": "x"}) == (Outer(name="x"), [])


def test_validated_says_where_and_what_was_expected():
    _, problems = found(
        {
            "name": 3,
            "inner": {"count": 10, "cuont": 1, "above": 2},
            "several": [{"count": "x"}, {"hello": 1}, 3],
            "free": [],
        }
    )
    assert problems == [
        (("at", "name"), "expected a string, found an integer"),
        (("at", "inner", "count"), "expected a number less than 10"),
        (("at", "inner", "above"), "expected a number of at least 3"),
        (
            ("at", "inner", "cuont"),
            "unknown key (did you mean count?); known here: above, count",
        ),
        (("at", "several", 0, "count"), "expected an integer, found a string"),
        (("at", "several", 1, "hello"), "unknown key; known here: above, count"),
        (("at", "several", 2), "expected a table, found an integer"),
        (("at", "free"), "expected a table, found an array"),
    ]


def test_validated_keeps_what_is_right():
    table, problems = found({"name": "x", "inner": {"count": 2}, "free": 1, "y": 1})
    assert table == Outer(name="x", inner=Inner(count=2))
    assert len(problems) == 2


@pytest.mark.parametrize("raw", [{"inner": {}}, {"name": 1}, 3, [], "x"], ids=str)
def test_validated_without_what_is_required_is_nothing(raw):
    table, problems = found(raw)
    assert table is None
    assert len(problems) == 1


@given(
    raw=st.dictionaries(
        st.sampled_from(["name", "inner", "several", "free", "x"]),
        st.recursive(
            st.one_of(st.just("sk-secret"), st.integers(), st.floats(), st.dates()),
            lambda inner: st.one_of(
                st.lists(inner), st.dictionaries(st.sampled_from(["count", "y"]), inner)
            ),
        ),
    )
)
def test_validated_never_shows_a_value(raw):
    _, problems = found(raw)
    assert "sk-secret" not in str(problems)

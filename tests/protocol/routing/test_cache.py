"""What two requests must have in common to share an answer, and what is remembered."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tz_protocol.routing.cache import Answer, Memory, cache_key, tenant_of
from tz_protocol.types.keys import Principal
from tz_protocol.types.request import Extensions, ParsedRequest
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Model, ProviderSettings, Url

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=10,
)
MEMBERS = st.dictionaries(st.text(min_size=1), JSON, max_size=5)


HERE = Url("https", "h", 443, "/v1/")


def provider(**changes):
    given = {"name": "p", "type": "openai", "model": "u", "url": HERE, **changes}
    return ProviderSettings(**given)


def model(name="m", **changes):
    return Model(
        name=name,
        capabilities=frozenset({"chat"}),
        routing=("p",),
        providers={"p": provider(**changes)},
    )


def key(members, *, chosen=None, tenant="t", route="r", **credentials):
    fields = {
        name: Raw(json.dumps(value, allow_nan=False).encode())
        for name, value in members.items()
    }
    extensions = Extensions(
        credentials={name: Secret(value) for name, value in credentials.items()}
    )
    parsed = ParsedRequest(model="m", fields=fields, extensions=extensions)
    return cache_key(parsed, route, chosen or model(), tenant)


def shuffled(value, seed):
    """Return *value* with the members of every object in another order."""
    if isinstance(value, dict):
        items = [(name, shuffled(item, seed)) for name, item in value.items()]
        random.Random(seed).shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return [shuffled(item, seed) for item in value]
    return value


@given(MEMBERS, st.integers(0, 99))
def test_order_of_members_does_not_matter(members, seed):
    assert key(members) == key(shuffled(members, seed))
    assert key(members) is not None


@given(MEMBERS, MEMBERS)
def test_different_requests_have_different_keys(first, second):
    ignored = ("stream", "stream_options")
    texts = [
        json.dumps({k: v for k, v in one.items() if k not in ignored}, sort_keys=True)
        for one in (first, second)
    ]
    assert (key(first) == key(second)) == (texts[0] == texts[1])


def test_form_of_the_answer_does_not_matter():
    assert key({"a": 1}) == key({"a": 1, "stream": True, "stream_options": {"x": 1}})


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "u"},
        {"route": "s"},
        {"chosen": model("n")},
        {"chosen": model(model="v")},
        {"chosen": model(type="groq")},
        {"chosen": model(options={"api_version": "1"})},
        {"chosen": model(extra_body={"x": Raw(b"1")})},
        {"chosen": model(extra_headers=(("anthropic-beta", "x"),))},
        {"chosen": model(url=Url("http", "h", 443, "/v1/"))},
        {"chosen": model(url=Url("https", "i", 443, "/v1/"))},
        {"chosen": model(url=Url("https", "h", 444, "/v1/"))},
        {"chosen": model(url=Url("https", "h", 443, "/v2/"))},
        {"chosen": model(url=Url("https", "h", 443, "/v1/", "api-version=2"))},
        {"chosen": model(url=None)},
        {"k": "credential"},
    ],
    ids=str,
)
def test_whatever_decides_the_answer_is_in_the_key(other):
    assert key({"a": 1}, **other) != key({"a": 1})


def test_parts_of_a_key_cannot_be_moved_from_one_to_the_other():
    assert key({}, tenant="ab", route="c") != key({}, tenant="a", route="bc")


def test_settings_cannot_be_moved_from_one_place_to_the_other():
    places = (
        {"options": {"a": "31"}},
        {"extra_headers": (("a", "31"),)},
        {"extra_body": {"a": Raw(b"1")}},
        {"model": "u\0a\x0031"},
    )
    assert len({key({}, chosen=model(**place)) for place in places}) == len(places)
    assert key({}, k="a\0b") != key({}, **{"k\0a": "b"})


def raw(text):
    """Return the key of a request with one member, as it is spelled."""
    parsed = ParsedRequest(model="m", fields={"a": Raw(text.encode())})
    return cache_key(parsed, "r", model(), "t")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('{"x":1,"y":[{"b":2,"c":3}]}', '{ "y" : [ {"c":3, "b":2} ], "x" : 1 }'),
        ('"\\u00e9\\u0041/"', '"\u00e9A\\/"'),
        ('"\\ud83d\\ude00"', '"\U0001f600"'),
        ('{"\\u0061":1}', '{"a":1}'),
    ],
    ids=["order", "escapes", "pair", "name"],
)
def test_spelling_that_means_the_same_makes_one_key(first, second):
    assert raw(first) == raw(second)
    assert raw(first) is not None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1", "1.0"),
        ("1", "true"),
        ("0", "false"),
        ("1", '"1"'),
        ("null", '"null"'),
        ("null", "{}"),
        ("[]", "{}"),
        ("0.1", "0.10000000000000000001"),
        ("-0.0", "0.0"),
        ("9007199254740993", "9007199254740992"),
        ("18446744073709551616", "18446744073709551617"),
        ("1" + "0" * 400, "1" + "0" * 399 + "1"),
        ("1e400", "1e401"),
        ("[1,[2]]", "[[1],2]"),
        ('[{"name":"f"},{"name":"g"}]', '[{"name":"g"},{"name":"f"}]'),
        ('{"a":null}', "{}"),
        ('"e\u0301"', '"\u00e9"'),
        ('"a "', '"a"'),
    ],
)
def test_requests_that_do_not_mean_the_same_make_two_keys(first, second):
    assert raw(first) != raw(second)
    assert None not in (raw(first), raw(second))


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '[{"b":{"a":1,"a":1}}]',
        '{"a":1,"\\u0061":2}',
        "NaN",
        "-Infinity",
        '"\\ud800"',
    ],
)
def test_request_that_is_read_differently_by_all_has_no_key(text):
    assert raw(text) is None


def test_nesting_that_cannot_be_put_in_order_has_no_key():
    deep = Raw(b"[" * 5_000 + b"]" * 5_000)
    parsed = ParsedRequest(model="m", fields={"a": deep})
    assert cache_key(parsed, "r", model(), "t") is None


def test_tenant_is_the_project_else_the_key():
    one, two = (Principal(digest=bytes([n]) * 32, models={}) for n in (1, 2))
    assert tenant_of(one, "p") == tenant_of(two, "p")
    assert tenant_of(one, None) != tenant_of(two, None)
    assert tenant_of(one, "") != tenant_of(one, "p")
    assert tenant_of(None, None) == ""


# -- what is remembered ---------------------------------------------------------


def answer(size=0, written=0.0):
    return Answer(members=b"x" * size, model="m", provider="p", written=written)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2_000)), max_size=40))
def test_memory_keeps_within_its_limit_and_counts_right(puts):
    memory = Memory(5_000)
    for number, size in puts:
        memory.put(bytes([number]), answer(size))
        assert memory.size <= 5_000
    kept = [memory.get(bytes([n]), 0.0, None) for n in range(10)]
    assert memory.size == sum(one.size for one in kept if one is not None)
    assert len(memory) == sum(one is not None for one in kept)


def test_memory_of_no_bytes_remembers_nothing():
    memory = Memory(0)
    memory.put(b"k", answer())
    assert memory.get(b"k", 0.0, None) is None


def test_answer_that_was_asked_for_again_outlives_one_that_was_not():
    memory = Memory(1_000)
    memory.put(b"a", answer())
    memory.put(b"b", answer())
    memory.get(b"a", 0.0, None)
    memory.put(b"c", answer())
    assert memory.get(b"b", 0.0, None) is None
    assert memory.get(b"a", 0.0, None) is not None

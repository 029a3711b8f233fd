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


def provider(**changes):
    given = {"name": "p", "type": "openai", "model": "u", **changes}
    return ProviderSettings(url=Url("https", "h", 443, "/v1/"), **given)


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
        {"k": "credential"},
    ],
    ids=str,
)
def test_whatever_decides_the_answer_is_in_the_key(other):
    assert key({"a": 1}, **other) != key({"a": 1})


def test_parts_of_a_key_cannot_be_moved_from_one_to_the_other():
    assert key({}, tenant="ab", route="c") != key({}, tenant="a", route="bc")


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

from __future__ import annotations

import json

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.config.reading import entry, model, problems, provider
from tests.protocol.config.tomls import Text
from tz_protocol.config.extras import extra_body, extra_headers
from tz_protocol.config.schema import ExtraBodyItem, ExtraHeaderItem


def test_extra_headers_names_are_in_lower_case():
    text = provider(
        extra_headers='[{name = "X-A", value = "a  b"}, {name = "y", value = ""}]'
    )
    assert entry(text).extra_headers == (("x-a", "a  b"), ("y", ""))


HUGE = "0x" + "f" * 6_000
"""More than Python writes in decimal digits."""

OWN = "the gateway sets this header itself"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("Host", "x", f"name: {OWN}"),
        ("Content-Length", "1", f"name: {OWN}"),
        ("transfer-encoding", "chunked", f"name: {OWN}"),
        ("Connection", "close", f"name: {OWN}"),
        ("content-type", "text/plain", f"name: {OWN}"),
        (
            "Authorization",
            "Bearer sk-secret",
            (
                "name: give the key with api_key_location, so that it does not stand "
                "in the file"
            ),
        ),
        ("x y", "", "name: expected the name of a header: letters, digits and hyphens"),
        ("", "", "name: expected the name of a header: letters, digits and hyphens"),
        ("x:", "", "name: expected the name of a header: letters, digits and hyphens"),
        (
            "x",
            "a\\r\\nb: c",
            (
                "value: expected ASCII without control characters and without blanks "
                "around it"
            ),
        ),
        (
            "x",
            " a",
            (
                "value: expected ASCII without control characters and without blanks "
                "around it"
            ),
        ),
        (
            "x",
            "ä",
            (
                "value: expected ASCII without control characters and without blanks "
                "around it"
            ),
        ),
    ],
)
def test_extra_headers_that_break_a_request_are_refused(name, value, problem):
    item = f'[{{name = "{name}", value = "{value}"}}]'
    found = problems(model(provider(extra_headers=item)))
    assert found == [f"6: models.m.providers.p.extra_headers[0].{problem}"]


def test_extra_headers_twice_is_refused():
    items = '[{name = "a", value = "1"}, {name = "A", value = "2"}]'
    assert problems(model(provider(extra_headers=items))) == [
        (
            "6: models.m.providers.p.extra_headers[1].name: given twice: a header of "
            "this name is above"
        )
    ]


@given(name=st.text(max_size=8), value=st.text(max_size=8))
def test_extra_headers_that_are_taken_can_be_sent(name, value):
    problems: list = []
    headers = extra_headers([ExtraHeaderItem(name=name, value=value)], (), problems)
    if not problems:
        h11.Request(method="GET", target="/", headers=[("host", "h"), *headers])
        assert headers[0][1] == value


def test_extra_body_is_json_as_it_was_meant():
    items = """[
        {pointer = "/seed", value = 7},
        {pointer = "/a~1b~0c", value = {x = [1.5, "é", true], y = {}}},
        {pointer = "/big", value = 100000000000000000000},
    ]"""
    body = entry(provider(extra_body=items)).extra_body
    assert {name: bytes(raw).decode() for name, raw in body.items()} == {
        "seed": "7",
        "a/b~c": '{"x":[1.5,"é",true],"y":{}}',
        "big": "100000000000000000000",
    }


@pytest.mark.parametrize(
    ("pointer", "value", "problem"),
    [
        ("seed", "1", 'pointer: expected a JSON pointer such as "/seed" (RFC 6901)'),
        ("", "1", 'pointer: expected a JSON pointer such as "/seed" (RFC 6901)'),
        ("/", "1", 'pointer: expected a JSON pointer such as "/seed" (RFC 6901)'),
        (
            "/a/b",
            "1",
            (
                "pointer: a pointer to something within a member is not supported yet; "
                "name the member and give its whole value"
            ),
        ),
        ("/a~2", "1", "pointer: expected ~0 or ~1 after a tilde (RFC 6901)"),
        ("/model", '"x"', "pointer: the provider's name of the model is model_name"),
        ("/stream", "true", "pointer: whether to stream is the caller's choice"),
        (
            "/x",
            "[{a = nan}]",
            "value: JSON has neither infinity nor nan: expected a finite number",
        ),
        (
            "/x",
            "-inf",
            "value: JSON has neither infinity nor nan: expected a finite number",
        ),
        (
            "/x",
            "1979-05-27",
            "value: JSON has no dates and times: expected a string",
        ),
        ("/x", HUGE, "value: expected a number with fewer digits"),
        ("/x", "[07:32:00]", "value: JSON has no dates and times: expected a string"),
    ],
)
def test_extra_body_that_cannot_be_added_is_refused(pointer, value, problem):
    items = f'[{{pointer = "{pointer}", value = {value}}}]'
    found = problems(model(provider(extra_body=items)))
    assert found == [f"6: models.m.providers.p.extra_body[0].{problem}"]


def test_extra_body_twice_is_refused():
    items = '[{pointer = "/a", value = 1}, {pointer = "/a", value = 2}]'
    assert problems(model(provider(extra_body=items))) == [
        (
            "6: models.m.providers.p.extra_body[1].pointer: given twice: a member of "
            "this name is above"
        )
    ]


def test_extra_body_text_that_is_no_unicode_is_refused():
    found: list = []
    extra_body([ExtraBodyItem(pointer="/x", value="\ud800")], (), found)
    assert found == [((0, "value"), "expected text that is valid Unicode")]


JSON = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(codec="utf-8")),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(value=JSON)
def test_extra_body_round_trips_from_toml_to_json(value):
    text = Text({"value": [value]}, lambda count: 0).text
    items = "[[models.m.providers.p.extra_body]]\npointer = '/x'\n"
    body = entry(f"{provider()}\n{items}{text}").extra_body
    assert json.loads(bytes(body["x"])) == [value]

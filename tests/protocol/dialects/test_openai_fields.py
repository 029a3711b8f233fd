"""What every JSON request and answer in OpenAI's format has in common."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tz_protocol.dialects.openai_fields import (
    parse_extensions,
    parse_members,
    parse_usage,
    read_answer,
    render_members,
)
from tz_protocol.errors import (
    InvalidRequest,
    UnsupportedMediaType,
    UpstreamGarbled,
    UpstreamRefused,
)
from tz_protocol.types.http import RequestHead
from tz_protocol.types.request import Extensions, ParsedRequest, Target
from tz_protocol.types.secret import Secret
from tz_protocol.types.usage import Usage
from tz_protocol.wire.json import parse_object

EPISODE = "01890000-0000-7000-8000-0000000000ab"


def head(**headers):
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return RequestHead(method="POST", path="/", headers=pairs)


def members(**values):
    return parse_object(json.dumps(values).encode())


# -- media types ----------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content_type": ""},
        {"content_type": "application/json"},
        {"content_type": "application/json; charset=utf-8"},
        {"content_type": "Application/JSON ;charset=UTF-8"},
        {"content_encoding": "identity"},
        {"content_encoding": " Identity "},
    ],
)
def test_body_that_says_json_or_nothing_is_taken(headers):
    model, fields, _ = parse_members(b'{"model":"m","x":1}', head(**headers))
    assert (model, fields) == ("m", {"x": Raw(b"1")})


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "multipart/form-data; boundary=x"},
        {"content_type": "text/plain"},
        {"content_type": "application/jsonp"},
        {"content_type": "text/json"},
        {"content_type": "application/json", "content_encoding": "gzip"},
        {"content_encoding": "identity, br"},
    ],
)
def test_body_that_says_something_else_is_a_415(headers):
    with pytest.raises(UnsupportedMediaType) as caught:
        parse_members(b'{"model":"m"}', head(**headers))
    assert caught.value.status == 415


# -- the model ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "missing_required_parameter"),
        (b'{"model":null}', "invalid_type"),
        (b'{"model":5}', "invalid_type"),
        (b'{"model":["m"]}', "invalid_type"),
        (b'{"model":""}', "empty_string"),
    ],
)
def test_model_that_is_no_name_is_refused(body, code):
    with pytest.raises(InvalidRequest) as caught:
        parse_members(body, head())
    assert (caught.value.param, caught.value.code) == ("model", code)


def test_model_is_read_with_its_escapes():
    assert parse_members(b'{"model":"\\u006d"}', head())[0] == "m"


# -- the gateway's own members --------------------------------------------------


def test_extensions_are_parted_and_read():
    fields, extensions = parse_extensions(
        members(
            **{
                "a": 1,
                "tensorzero::credentials": {"key": "sk-canary"},
                "tensorzero::episode_id": EPISODE.upper(),
                "tensorzero::tags": {"user": "u"},
                "b": None,
                "tensorzero::dryrun": True,
            }
        )
    )
    assert list(fields) == ["a", "b"]
    assert extensions == Extensions(
        credentials={"key": Secret("sk-canary")},
        episode_id=EPISODE,
        tags={"user": "u"},
        dryrun=True,
    )
    assert "sk-canary" not in repr(extensions)


@pytest.mark.parametrize("key", ["credentials", "episode_id", "tags", "dryrun"])
def test_extension_that_is_null_is_not_given(key):
    assert parse_extensions(members(**{f"tensorzero::{key}": None})) == (
        {},
        Extensions(),
    )


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("variant_name", "v", "unknown_parameter"),
        ("dry_run", True, "unknown_parameter"),
        ("", 1, "unknown_parameter"),
        ("credentials", ["x"], "invalid_type"),
        ("credentials", "sk-canary", "invalid_type"),
        ("episode_id", "not-a-uuid", "invalid_value"),
        ("episode_id", "6ba7b810-9dad-41d1-80b4-00c04fd430c8", "invalid_value"),
        ("episode_id", 5, "invalid_type"),
        ("tags", {"tensorzero::x": "y"}, "invalid_value"),
        ("tags", [], "invalid_type"),
        ("dryrun", "true", "invalid_type"),
    ],
)
def test_extension_that_is_unknown_or_wrong_names_itself(key, value, code):
    name = f"tensorzero::{key}"
    with pytest.raises(InvalidRequest) as caught:
        parse_extensions(members(**{name: value}))
    error = caught.value
    assert (error.param, error.code) == (name, code)
    assert name in error.message
    assert "sk-canary" not in error.message


@pytest.mark.parametrize("key", ["credentials", "tags"])
def test_extension_of_strings_names_the_one_that_is_none(key):
    with pytest.raises(InvalidRequest) as caught:
        parse_extensions(members(**{f"tensorzero::{key}": {"a": "x", "b": 5}}))
    assert caught.value.param == f"tensorzero::{key}.b"


# -- deviations -----------------------------------------------------------------


def rendered(given, **target):
    parsed = ParsedRequest(model="public", fields=members(**given))
    fields, losses = render_members(
        parsed, Target(provider="p", model="theirs", **target)
    )
    return {name: json.loads(bytes(raw)) for name, raw in fields.items()}, losses


def test_render_replaces_the_model_and_keeps_the_rest_in_order():
    fields, losses = rendered({"z": 1.5, "messages": [], "a": None})
    assert list(fields.items()) == [
        ("model", "theirs"),
        ("z", 1.5),
        ("messages", []),
        ("a", None),
    ]
    assert losses == ()


LIMIT = {"max_completion_tokens": "max_tokens"}


@pytest.mark.parametrize(
    ("given", "expected", "losses"),
    [
        ({"max_completion_tokens": 5}, {"max_tokens": 5}, ()),
        ({"max_tokens": 5}, {"max_tokens": 5}, ()),
        ({"max_completion_tokens": None}, {"max_tokens": None}, ()),
        (
            {"max_completion_tokens": 5, "max_tokens": 7},
            {"max_tokens": 7},
            ("max_completion_tokens",),
        ),
        ({"max_completion_tokens": 5, "max_tokens": 5}, {"max_tokens": 5}, ()),
        ({"max_completion_tokens": 5, "max_tokens": None}, {"max_tokens": 5}, ()),
        ({"max_completion_tokens": None, "max_tokens": 7}, {"max_tokens": 7}, ()),
    ],
)
def test_render_with_another_name_says_it_once(given, expected, losses):
    fields, lost = rendered(given, renames=LIMIT)
    assert fields == {"model": "theirs", **expected}
    assert lost == losses


def test_render_drops_what_is_not_supported_and_reports_it():
    fields, losses = rendered(
        {"user": "u", "store": None, "seed": 1, "n": 1},
        unsupported=frozenset({"user", "store", "seed", "verbosity"}),
    )
    assert fields == {"model": "theirs", "n": 1}
    assert losses == ("seed", "user")


def test_render_adds_and_replaces_what_the_config_says():
    fields, losses = rendered(
        {"temperature": 1, "user": "u"},
        unsupported=frozenset({"user"}),
        extra_body={
            "temperature": Raw(b"0.20"),
            "top_k": Raw(b"5"),
            "user": Raw(b'"x"'),
        },
    )
    assert fields == {"model": "theirs", "temperature": 0.2, "top_k": 5, "user": "x"}
    assert losses == ("user",)


def test_render_leaves_the_request_as_it_was_for_the_next_candidate():
    parsed = ParsedRequest(model="m", fields=members(max_completion_tokens=5, user="u"))
    before = dict(parsed.fields)
    target = Target(
        provider="p", model="t", renames=LIMIT, unsupported=frozenset({"user"})
    )
    assert render_members(parsed, target) == render_members(parsed, target)
    assert parsed.fields == before


# -- answers --------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"data":null}',
        b'{"data":{}}',
        b'{"data":[}',
        b'{"data":["\xff"]}',
        b'{"message":"hi"}',
    ],
)
def test_answer_without_content_is_garbled(body):
    with pytest.raises(UpstreamGarbled):
        read_answer(body, "data")


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"no"}}',
        b'{"error":"no"}',
        b'{"data":[],"error":{"message":"no"}}',
        b'[{"error":{"message":"no"}}]',
        b'{"object":"error","message":"no"}',
    ],
)
def test_answer_that_states_an_error_is_refused(body):
    with pytest.raises(UpstreamRefused) as caught:
        read_answer(body, "data")
    assert caught.value.message == "no"


def test_answer_with_a_null_error_or_blanks_before_it_is_one():
    body = b'\n   \n{"data": [], "error": null}'
    assert list(read_answer(body, "data")) == ["data", "error"]


# -- usage ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            {"prompt_tokens": 3, "completion_tokens": 4},
            Usage(input_tokens=3, output_tokens=4),
        ),
        (
            {
                "prompt_tokens": 30,
                "completion_tokens": 40,
                "total_tokens": 70,
                "prompt_tokens_details": {"cached_tokens": 10},
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            Usage(
                input_tokens=30,
                output_tokens=40,
                cache_read_tokens=10,
                reasoning_tokens=20,
            ),
        ),
        (
            {
                "prompt_tokens": 30,
                "completion_tokens": 40,
                "prompt_tokens_details": None,
                "completion_tokens_details": None,
                "prompt_cache_hit_tokens": 5,
            },
            Usage(input_tokens=30, output_tokens=40, cache_read_tokens=5),
        ),
        (
            {"prompt_tokens": 30, "completion_tokens": 4, "cached_tokens": 6},
            Usage(input_tokens=30, output_tokens=4, cache_read_tokens=6),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 115,
                "completion_tokens_details": {"reasoning_tokens": 100},
            },
            Usage(input_tokens=10, output_tokens=105, reasoning_tokens=100),
        ),
        (
            {"prompt_tokens": 8, "total_tokens": 8},
            Usage(input_tokens=8, output_tokens=0),
        ),
        (
            {"prompt_tokens": 8, "completion_tokens": None, "total_tokens": 9},
            Usage(input_tokens=8, output_tokens=1),
        ),
        (
            {
                "prompt_tokens": 30,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 7},
            },
            Usage(
                input_tokens=30,
                output_tokens=4,
                cache_read_tokens=6,
                cache_write_tokens=7,
            ),
        ),
        ({"completion_tokens": 8}, None),
        ({"prompt_tokens": 8}, None),
        ({"prompt_tokens": "8", "completion_tokens": 1}, None),
        ({"prompt_tokens": -1, "completion_tokens": 1}, None),
        ({"prompt_tokens": True, "completion_tokens": 1}, None),
        ({}, None),
        (None, None),
        ([], None),
        ("7", None),
    ],
)
def test_usage_is_read_or_unknown(value, expected):
    assert parse_usage(value) == expected


NAMES = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
    "cached_tokens",
    "reasoning_tokens",
)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
        max_leaves=12,
    )
)
def test_usage_of_any_value_is_never_negative(value):
    usage = parse_usage(value)
    if usage is not None:
        assert min(usage.input_tokens, usage.output_tokens) >= 0

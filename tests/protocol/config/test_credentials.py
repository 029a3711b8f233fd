from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.config.reading import refusal
from tz_protocol.config.credentials import (
    MACHINE_LOCATION,
    Source,
    explain_missing,
    find,
    parse_location,
)
from tz_protocol.providers.google_tokens import MACHINE
from tz_protocol.types.secret import Secret

SDK = Source(
    "static", ("path_from_env::GOOGLE_APPLICATION_CREDENTIALS", MACHINE_LOCATION)
)


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ("env::KEY", Source("static", ("env::KEY",))),
        ("path::/a b/key", Source("static", ("path::/a b/key",))),
        ("path_from_env::KEY_FILE", Source("static", ("path_from_env::KEY_FILE",))),
        ("dynamic::my key", Source("dynamic", name="my key")),
        ("none", Source("none")),
        ("sdk", SDK),
        (
            {"default": "env::A", "fallback": "sdk"},
            Source("static", ("env::A", *SDK.locations)),
        ),
        ({"env": "KEY"}, Source("static", ("env::KEY",))),
        ({"path": "/key"}, Source("static", ("path::/key",))),
        ({"path_from_env": "F"}, Source("static", ("path_from_env::F",))),
        ({"dynamic": "k"}, Source("dynamic", name="k")),
        (
            {"default": "env::A", "fallback": {"path": "/b"}},
            Source("static", ("env::A", "path::/b")),
        ),
        (
            {
                "default": "env::A",
                "fallback": {"default": "env::B", "fallback": "env::C"},
            },
            Source("static", ("env::A", "env::B", "env::C")),
        ),
    ],
    ids=str,
)
def test_parse_location_reads_strings_and_tables(value, source):
    assert parse_location(value) == source


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "a key itself does not belong in the file"),
        ("sk-secret", "a key itself does not belong in the file"),
        ("file::x", "expected env::NAME, path::FILE"),
        ("None", "expected env::NAME"),
        ("env:KEY", "expected env::NAME"),
        ("env::", "expected a name after env::"),
        ("path::", "expected a name after path::"),
        ("dynamic::", "expected a name after dynamic::"),
        ("path::a\nb", "expected a name after path::"),
        ("env::sk-secret", "the name of an environment variable after env::"),
        ("env::1A", "the name of an environment variable after env::"),
        (3, "expected env::NAME"),
        (None, "expected env::NAME"),
        ({}, "expected a table such as"),
        ({"env": "A", "path": "B"}, "expected a table such as"),
        ({"key": "sk-secret"}, "expected a table such as"),
        ({"env": 3}, "expected a table such as"),
        ({"default": "env::A"}, "expected a table such as"),
        ({"default": "env::A", "fallback": "none"}, "must both be env::"),
        ({"default": "dynamic::a", "fallback": "env::A"}, "must both be env::"),
        ({"default": "sk-secret", "fallback": "env::A"}, "a key itself does not"),
    ],
    ids=str,
)
def test_parse_location_that_is_none_is_refused_without_echo(value, message):
    with pytest.raises(ValueError, match=message) as info:
        parse_location(value)
    assert "sk-secret" not in str(info.value)


@given(text=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12))
def test_parse_location_never_echoes_a_key(text):
    assert text not in refusal(parse_location, text)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (Source("none"), "none"),
        (Source("dynamic", name="k"), "dynamic::k"),
        (Source("static", ("env::A",)), "env::A"),
        (Source("static", ("env::A", "path::b")), "env::A or path::b"),
    ],
)
def test_source_text_is_the_location(source, text):
    assert source.text == text


TWO = Source("static", ("env::A", "env::B"))


@pytest.mark.parametrize(
    ("values", "secret", "location"),
    [
        ({"env::A": "a", "env::B": "b"}, "a", "env::A"),
        ({"env::A": None, "env::B": "b"}, "b", "env::B"),
        ({"env::A": " \n", "env::B": "b"}, "b", "env::B"),
        ({"env::B": " b\n"}, "b", "env::B"),
        ({"env::A": "a b!~"}, "a b!~", "env::A"),
    ],
    ids=str,
)
def test_find_returns_the_first_that_exists_stripped(values, secret, location):
    secrets = {key: value and Secret(value) for key, value in values.items()}
    found = find(TWO, secrets)
    assert found.secret == Secret(secret)
    assert (found.reason, found.location) == ("", location)


@pytest.mark.parametrize("value", ["sk\nx", "schlüssel", "a\x00b", "\udc80"], ids=ascii)
def test_find_what_no_header_carries_is_a_reason_without_the_secret(value):
    found = find(TWO, {"env::A": Secret(value), "env::B": Secret("b")})
    assert found.secret is None
    assert found.reason == (
        "what is at env::A holds a character that no HTTP header can carry (a line "
        "break or something that is not ASCII)"
    )


ACCOUNT = """{
  "type": "service_account",
  "client_email": "a@b",
  "private_key": "-----BEGIN\\nx\\n-----END"
}
"""


def test_find_json_of_many_lines_comes_out_as_one():
    found = find(Source("static", ("path::a.json",)), {"path::a.json": Secret(ACCOUNT)})
    assert found.secret is not None
    assert "\n" not in found.secret.reveal()
    assert msgspec.json.decode(found.secret.reveal()) == msgspec.json.decode(ACCOUNT)


def test_find_what_only_begins_like_json_is_a_reason_without_the_secret():
    found = find(TWO, {"env::A": Secret('{"private_key": "canary"\n')})
    assert found.secret == Secret('{"private_key": "canary"')
    found = find(TWO, {"env::A": Secret('{"private_key":\n"canary"')})
    assert found.secret is None
    assert "canary" not in found.reason


def test_find_machine_counts_only_where_no_file_does():
    (file, machine) = SDK.locations
    assert find(SDK, {file: Secret("{}")}).location == file
    found = find(SDK, {file: None})
    assert (found.secret, found.location) == (MACHINE, machine)


def test_explain_missing_names_every_place():
    source = Source("static", ("env::A", "path::/b", "path_from_env::C"))
    assert find(source, {}).reason == explain_missing(source)
    assert explain_missing(source) == (
        "the environment variable A is not set; the file /b is empty or cannot be "
        "read; the environment variable C is not set, or the file that it names is "
        "empty or cannot be read"
    )

"""What a value in Redis stands for, and what is said of one that cannot be used."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.flows.keyed import KEY, OTHER, clear, hashed, read_model, value
from tz_protocol.flows import keyvalues
from tz_protocol.flows.keyvalues import Reader, family_of, name_for_log, parse_hashed
from tz_protocol.types.keys import Grant, digest_of

DIGEST = digest_of(KEY.encode())
HASHED = hashed().encode()


@pytest.mark.parametrize(
    ("name", "family"),
    [
        (b"api_key:x", b"api_key:"),
        (b"api_key:", b"api_key:"),
        (b"api_key_hash:x", b"api_key_hash:"),
        (b"model_table:x", b"model_table:"),
        (b"api_keys:x", None),
        (b"model_table", None),
        (b"API_KEY:x", None),
        (b"", None),
    ],
    ids=repr,
)
def test_name_is_ours_by_its_beginning(name, family):
    assert family_of(name) == family


@pytest.mark.parametrize("family", [b"api_key:", b"api_key_hash:"])
@given(st.text(st.characters(codec="utf-8"), min_size=8, max_size=300))
def test_name_in_the_log_gives_no_key_away(family, key):
    shown = name_for_log(family + key.encode())
    assert key not in shown
    assert shown.startswith(f"{family.decode()}(sha256 ")


def test_name_in_the_log_shows_a_digest_and_is_printable():
    assert name_for_log(HASHED) == HASHED.decode()
    assert name_for_log(b"model_table:\xff") == "model_table:\\xff"


# -- keys by their digest -------------------------------------------------------


@pytest.mark.parametrize(
    ("models", "grants"),
    [
        (["a", "b"], {"a": Grant("a"), "b": Grant("b")}),
        ([], {}),
        ({"a": {"endpoint_id": "x"}}, {"a": Grant("x")}),
    ],
    ids=["names", "none", "grants"],
)
def test_hashed_key_names_its_models_in_either_form(models, grants):
    found = parse_hashed(DIGEST, json.dumps({"models": models}).encode())
    assert found.digest == DIGEST
    assert found.models == grants


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2025-06-15T15:06:40Z", 1_750_000_000.0),
        ("2025-06-15T17:06:40+02:00", 1_750_000_000.0),
        (1_750_000_000, 1_750_000_000.0),
        (1_750_000_000.5, 1_750_000_000.5),
        (None, None),
    ],
    ids=["utc", "elsewhere", "seconds", "fraction", "never"],
)
def test_hashed_key_expires_at_a_time_of_either_form(text, seconds):
    assert parse_hashed(DIGEST, value(expires_at=text).encode()).expires_at == seconds


@pytest.mark.parametrize("period", ["day", "month"])
@pytest.mark.parametrize("budget", [-1, "-0.01", "NaN", "Infinity", "-Infinity"])
def test_budget_that_is_no_amount_is_refused_by_its_name(period, budget):
    data = value(limits={f"budget_per_{period}": budget}).encode()
    with pytest.raises(ValueError, match=f"limits.budget_per_{period}"):
        parse_hashed(DIGEST, data)


@pytest.mark.parametrize("budget", [0, "0.5", 12.25, "1e3"], ids=repr)
def test_budget_keeps_the_amount_that_was_written(budget):
    data = value(limits={"budget_per_day": budget}).encode()
    limits = parse_hashed(DIGEST, data).limits
    assert (limits.budget_per_day, limits.budget_per_month) == (
        Decimal(str(budget)),
        None,
    )


@pytest.mark.parametrize(
    "name",
    [HASHED[:-1], HASHED + b"0", HASHED[:-1] + b"g", b"api_key_hash:", HASHED + b"\n"],
    ids=["short", "long", "not hexadecimal", "empty", "line end"],
)
def test_name_without_a_digest_is_refused(name):
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        Reader(None).read(name, value().encode())


def test_digest_may_be_written_in_capitals():
    name = b"api_key_hash:" + DIGEST.hex().upper().encode()
    (key,) = Reader(None).read(name, value().encode()).keys
    assert key.digest == DIGEST


# -- keys in clear, and models --------------------------------------------------


def test_empty_key_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        Reader(None).read(b"api_key:any", clear("").encode())


def test_models_are_refused_where_none_may_come_from_redis():
    data = json.dumps({"ep": {}}).encode()
    with pytest.raises(ValueError, match="models from Redis are not read"):
        Reader(None).read(b"model_table:ep", data)
    assert len(Reader(read_model).read(b"model_table:ep", data).models) == 1


@pytest.mark.parametrize(
    "name", [b"api_key:any", HASHED, b"model_table:ep"], ids=["clear", "hash", "model"]
)
@pytest.mark.parametrize(
    "data",
    [b"", b"{", b'{"canary": ', b"\xff\xfe", b"[" * 100_000, b'"canary"', b"[1]"],
    ids=["empty", "open", "cut", "not utf-8", "deep", "a string", "a list"],
)
def test_value_that_cannot_be_read_is_refused_without_its_content(name, data):
    with pytest.raises(ValueError) as raised:
        Reader(read_model).read(name, data)
    assert str(raised.value)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (clear(), ""),
        (value(**{KEY: 1}), ""),
        (value(limits={KEY: 1}), " - at `$.limits`"),
        (value(**{f"`{KEY}": 1}), ""),
    ],
    ids=["form in clear", "member", "limit", "quoted"],
)
def test_member_that_is_not_known_is_not_named_as_it_may_be_a_key(data, place):
    with pytest.raises(ValueError) as raised:
        Reader(None).read(HASHED, data.encode())
    assert str(raised.value) == f"Object contains unknown field{place}"


# -- sharing --------------------------------------------------------------------


def test_equal_lists_of_models_are_one_object():
    reader = Reader(None)
    one, other = (
        reader.read(b"api_key:any", clear(key, a="x", b="y").encode()).keys[0]
        for key in (KEY, OTHER)
    )
    assert one.models is other.models


def test_equal_grants_of_hashed_keys_are_one_object():
    reader = Reader(None)
    one = reader.read(HASHED, value("m").encode()).keys[0]
    other = reader.read(HASHED, value("m", "n").encode()).keys[0]
    assert one.models["m"] is other.models["m"]
    reader.forget()
    later = reader.read(HASHED, value("m").encode()).keys[0]
    assert later.models == one.models
    assert later.models["m"] is not one.models["m"]


def test_what_is_remembered_for_sharing_is_bounded(monkeypatch):
    monkeypatch.setattr(keyvalues, "_MOST_SHARED", 4)
    reader = Reader(None)
    for number in range(20):
        data = clear(f"{KEY}{number}", m=f"endpoint-{number}").encode()
        (key,) = reader.read(b"api_key:any", data).keys
        assert key.models["m"].endpoint_id == f"endpoint-{number}"
        assert len(reader._lists) <= 4
        assert len(reader._grants) <= 5

"""Who calls: every way to send a key, one answer to every bad one."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.errors import ModelNotFound, Overloaded, Unauthenticated
from tz_protocol.providers import PROVIDERS
from tz_protocol.routing.candidates import candidates, eligible
from tz_protocol.routing.keys import (
    CURRENT_FOR,
    KeyBook,
    is_loopback_peer,
    model_for,
    models_of,
)
from tz_protocol.types.http import RequestHead
from tz_protocol.types.keys import Access, Grant, KeyLimits, Principal, digest_of
from tz_protocol.types.prices import Price
from tz_protocol.types.request import ParsedRequest
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Model, ProviderSettings, Snapshot

KEY = "sk-client-canary-0123456789"
OTHER = "sk-client-canary-9876543210"


def principal(key=KEY, **fields):
    fields.setdefault("models", {"gpt": Grant("m")})
    return Principal(digest=digest_of(key.encode()), **fields)


def table(*keys):
    return {one.digest: one for one in keys}


def head(*headers):
    return RequestHead(method="POST", path="/v1/x", headers=headers)


def who(*headers, keys=None, wall=1_000.0):
    keys = (principal(),) if keys is None else keys
    return KeyBook().authenticate(head(*headers), Access(keys=table(*keys)), 0.0, wall)


BEARER = ("authorization", f"Bearer {KEY}")
GOOD = {
    "bearer": (BEARER,),
    "bearer in lower case": (("authorization", f"bearer {KEY}"),),
    "bearer and blanks": (("authorization", f"  BEARER   {KEY} "),),
    "x-api-key": (("x-api-key", KEY),),
    "api-key": (("api-key", f" {KEY}\t"),),
    "all three alike": (BEARER, ("x-api-key", KEY), ("api-key", KEY)),
    "twice alike": (BEARER, BEARER),
    "among others": (("host", "h"), BEARER, ("cookie", "api-key=x")),
}


@pytest.mark.parametrize("headers", GOOD.values(), ids=GOOD)
def test_key_is_read_from_wherever_it_is(headers):
    assert who(*headers) is not None


BAD = {
    "nothing": (),
    "empty": (("authorization", ""),),
    "scheme only": (("authorization", "Bearer"),),
    "scheme and blank": (("authorization", "Bearer "),),
    "no scheme": (("authorization", KEY),),
    "another scheme": (("authorization", f"Basic {KEY}"),),
    "unknown": (("authorization", f"Bearer {OTHER}"),),
    "a part": (("authorization", f"Bearer {KEY[:-1]}"),),
    "more than it": (("authorization", f"Bearer {KEY}x"),),
    "two in one": (("authorization", f"Bearer {KEY}, Bearer {KEY}"),),
    "another case": (("x-api-key", KEY.upper()),),
    "its digest": (("x-api-key", digest_of(KEY.encode()).hex()),),
    "its digest, raw": (("x-api-key", digest_of(KEY.encode()).decode("latin-1")),),
    "its id": (("x-api-key", principal().key_id),),
    "two that differ": (BEARER, ("x-api-key", OTHER)),
    "two that differ, the other first": (("api-key", OTHER), BEARER),
    "twice, differing": (BEARER, ("authorization", f"Bearer {OTHER}")),
    "beside an empty one": (BEARER, ("x-api-key", "")),
    "beside another scheme": (("authorization", "Basic eDp5"), ("x-api-key", KEY)),
    "no latin-1": (("x-api-key", "\u20ac" + KEY),),
    "disabled": (("x-api-key", "disabled"),),
    "expired": (("x-api-key", "expired"),),
}
KEYS = (
    principal(),
    principal("disabled", is_disabled=True),
    principal("expired", expires_at=1_000.0),
)


@pytest.mark.parametrize("headers", BAD.values(), ids=BAD)
def test_bad_key_of_any_kind_is_the_same_error(headers):
    with pytest.raises(Unauthenticated) as info:
        who(*headers, keys=KEYS)
    error = info.value
    with pytest.raises(Unauthenticated) as info:
        who(keys=KEYS)
    assert vars(error) == vars(info.value)
    assert "canary" not in repr(vars(error))


def test_key_expires_at_its_second():
    key = principal(expires_at=1_000.0)
    assert who(BEARER, keys=(key,), wall=999.9) == key
    with pytest.raises(Unauthenticated):
        who(BEARER, keys=(key,), wall=1_000.0)


def test_key_that_is_not_ascii_is_compared_by_its_bytes():
    key = "sk-schlüssel-0123456789"
    sent = key.encode().decode("latin-1")
    assert who(("x-api-key", sent), keys=(principal(key),))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["authorization", "x-api-key", "api-key", "host"]),
            st.sampled_from([KEY, OTHER, f"Bearer {KEY}", f"Bearer {OTHER}", "", "x"])
            | st.text(max_size=40),
        ),
        max_size=4,
    )
)
def test_nobody_is_let_in_unless_every_header_says_the_one_key(headers):
    try:
        found = who(*headers)
    except Unauthenticated:
        return
    assert found == principal()
    said = [pair for pair in headers if pair[0] != "host"]
    assert said
    assert all(value.split()[-1] == KEY for _, value in said)


def test_principal_shows_no_key():
    assert "canary" not in repr(principal())
    assert "canary" not in repr(Access(keys=table(principal())))


# -- Redis ----------------------------------------------------------------------

MIRRORED = Access(redis_url=Secret("redis://h"), cached_for=60.0, keys={})


def book(*keys, heard=0.0):
    found = KeyBook()
    found.replace(table(*keys), {})
    found.heard(heard)
    return found


def outcome(keys, access, key, now):
    try:
        keys.authenticate(head(("x-api-key", key)), access, now, 0.0)
    except Unauthenticated:
        return 401
    except Overloaded as error:
        return error.status if error.code == "auth_unavailable" else error.code
    return 200


@pytest.mark.parametrize(
    ("on_unavailable", "now", "known", "unknown"),
    [
        ("cached", CURRENT_FOR, 200, 401),
        ("cached", CURRENT_FOR + 1, 200, 503),
        ("cached", 60, 200, 503),
        ("cached", 61, 503, 503),
        ("deny", CURRENT_FOR, 200, 401),
        ("deny", CURRENT_FOR + 1, 503, 503),
    ],
)
def test_age_of_the_tables_decides(on_unavailable, now, known, unknown):
    access = Access(
        redis_url=MIRRORED.redis_url, cached_for=60.0, on_unavailable=on_unavailable
    )
    keys = book(principal())
    assert outcome(keys, access, KEY, now) == known
    assert outcome(keys, access, OTHER, now) == unknown


def test_lost_redis_is_away_at_once():
    keys = book(principal())
    keys.lost()
    assert outcome(keys, MIRRORED, KEY, 1.0) == 200
    assert outcome(keys, MIRRORED, OTHER, 1.0) == 503


def test_keys_that_were_never_loaded_are_unavailable():
    keys = KeyBook()
    assert outcome(keys, MIRRORED, KEY, 1.0) == 503
    assert keys.problem(MIRRORED) is not None
    assert keys.problem(Access()) is None
    assert keys.problem(None) is None


# -- models ---------------------------------------------------------------------


def model(name, kind="openai", **fields):
    settings = ProviderSettings(name="a", type=kind, model="up", **fields)
    return Model(
        name=name,
        capabilities=frozenset({"chat"}),
        routing=("a",),
        providers={"a": settings},
    )


SNAPSHOT = Snapshot(
    models={name: model(name) for name in ("m", "other")},
    shorthand={"openai": ProviderSettings(name="openai", type="openai", model="")},
)
DYNAMIC = {"ep-9": model("ep-9"), "m": model("m", kind="groq")}


def find(name, **grants):
    caller = principal(models={public: Grant(e) for public, e in grants.items()})
    return model_for(caller, name, SNAPSHOT, DYNAMIC, PROVIDERS)


def test_public_name_means_the_endpoint_of_the_key():
    found = find("gpt", gpt="ep-9")
    assert (found.name, found.key) == ("gpt", "ep-9")
    assert found.providers == DYNAMIC["ep-9"].providers


@pytest.mark.parametrize(
    "name",
    ["tensorzero::model_name::gpt", "tensorzero::embedding_model_name::gpt"],
)
def test_prefixed_name_means_the_same(name):
    assert find(name, gpt="ep-9").name == "gpt"


def test_model_of_the_file_wins_over_one_of_redis():
    assert find("m", m="m").providers["a"].type == "openai"


def test_endpoint_may_be_shorthand():
    found = find("gpt", gpt="openai::gpt-4o")
    assert (found.name, found.key) == ("gpt", "openai::gpt-4o")


@pytest.mark.parametrize(
    "name",
    [
        "other",
        "ep-9",
        "nowhere",
        "openai::gpt-4o",
        "tensorzero::model_name::other",
        "tensorzero::function_name::f",
        "gone",
        "",
    ],
)
def test_model_outside_the_key_is_the_same_error_whether_it_exists_or_not(name):
    with pytest.raises(ModelNotFound) as info:
        find(name, gpt="m", gone="ep-gone", bad="tensorzero::function_name::f")
    assert info.value.message == (
        f"The model {name!r} does not exist, or this API key may not use it."
    )


def test_models_of_a_key_are_those_that_exist():
    caller = principal(models={"b": Grant("m"), "gone": Grant("x"), "a": Grant("ep-9")})
    found = models_of(caller, SNAPSHOT, DYNAMIC, PROVIDERS)
    assert [one.name for one in found] == ["b", "a"]


def test_candidate_outside_the_key_is_not_even_dropped():
    found = [
        *candidates(find("gpt", gpt="m"), "chat", PROVIDERS),
        *candidates(SNAPSHOT.models["other"], "chat", PROVIDERS),
    ]
    caller = principal(models={"gpt": Grant("m")})
    kept, dropped = eligible(found, ParsedRequest(model="gpt"), caller)
    assert [one.model.key for one in kept] == ["m"]
    assert dropped == []
    assert len(eligible(found, ParsedRequest(model="gpt"))[0]) == 2


def test_candidate_without_a_price_is_dropped_for_a_key_with_a_budget():
    limits = KeyLimits(budget_per_day=Decimal(1))
    caller = principal(models={"m": Grant("m")}, limits=limits)
    free = model("m", prices=())
    priced = model("m", prices=(Price("input", Decimal(1)),))
    for one, is_kept in ((free, True), (priced, True), (model("m"), False)):
        found = candidates(one, "chat", PROVIDERS)
        kept, dropped = eligible(found, ParsedRequest(model="m"), caller)
        assert bool(kept) == is_kept
        assert all(d.error.code == "price_unknown" for d in dropped)


# -- where from -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("", False),
        ("10.0.0.1", False),
        ("127.evil.example", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1", False),
    ],
)
def test_loopback_is_this_machine(peer, is_loopback):
    assert is_loopback_peer(peer) == is_loopback

"""``[gateway.authentication]``, ``[api_keys]``, prices, and what Redis may say."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tests.protocol.config.reading import environment, problems, read, short
from tz_protocol.config.load import build, describe, describe_json, locations, parse
from tz_protocol.errors import ConfigError
from tz_protocol.types.keys import Grant, digest_of
from tz_protocol.types.prices import Price
from tz_protocol.types.secret import Secret

KEY = "sk-client-canary-0123456789"
REDIS = {"TENSORZERO_REDIS_URL": "redis://:redis-canary@h:6379/1"}
MODEL = """
[models.m]
routing = ["a"]
[models.m.providers.a]
type = "vllm"
model_name = "llama"
api_base = "https://inference.example/v1/"
api_key_location = "env::VLLM"
"""
VLLM = {"VLLM": "sk-provider-canary"}
TABLE = f"""
[api_keys."{KEY}".gpt]
endpoint_id = "m"
project_id = "p"
"""


def hashed(text):
    return f'[api_keys."sha256:{digest_of(KEY.encode()).hex()}"]\n{text}'


def only(snapshot):
    assert snapshot.access is not None
    (principal,) = snapshot.access.keys.values()
    return principal


# -- keys in the file -----------------------------------------------------------


def test_clear_key_in_the_file_is_kept_by_its_digest_only():
    snapshot = read(MODEL + TABLE, **VLLM)
    principal = only(snapshot)
    assert principal.digest == digest_of(KEY.encode())
    assert principal.models == {"gpt": Grant("m", "", "p")}
    for text in (repr(snapshot), describe(snapshot), describe_json(snapshot)):
        assert KEY not in text


def test_hashed_key_in_the_file_has_all_that_redis_has():
    text = hashed(
        """
        models = ["m"]
        expires_at = 2030-01-01T00:00:00Z
        disabled = true
        note = "n"
        limits = { requests_per_minute = 3, budget_per_day = 0.1 }
        """
    )
    principal = only(read(MODEL + text, **VLLM))
    assert principal.models == {"m": Grant("m")}
    assert principal.expires_at == 1_893_456_000.0
    assert principal.is_disabled
    assert principal.note == "n"
    assert principal.limits.requests_per_minute == 3
    assert principal.limits.budget_per_day == Decimal("0.1")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("api_keys = 3", "1: api_keys: expected a table, found an integer"),
        (
            f'[api_keys]\n"{KEY}" = 3',
            "2: api_keys: expected a table, found an integer",
        ),
        (
            f'[api_keys."{KEY}"]\nm = 3',
            (
                "1: api_keys: expected models with their endpoint_id: Expected "
                "`object`, got `int` - at `$[...]`"
            ),
        ),
        (
            '[api_keys."sha256:12"]',
            "1: api_keys: expected 64 hexadecimal digits after sha256:",
        ),
        (
            hashed("models = []\nlimit = 3"),
            (
                "1: api_keys: Object contains unknown field `limit` (did you mean "
                "`limits`?)"
            ),
        ),
        (
            hashed("models = []\nexpires_at = 2030-01-01T00:00:00"),
            "1: api_keys: expires_at needs a time zone, such as Z",
        ),
        ('[api_keys.""]\n', "1: api_keys: an API key must not be empty"),
        (
            hashed("models = []") + f'\n[api_keys."{KEY}"]',
            "3: api_keys: this key stands here twice, as itself and as its digest",
        ),
        (
            f'[api_keys."{KEY}".x]\nendpoint_id = "n"',
            (
                "1: api_keys: the endpoint_id 'n' is no model of [models], and no "
                "Redis is configured from which it might come"
            ),
        ),
        (
            f'[api_keys."{KEY}".x]\nendpoint_id="m"\n[api_keys."{KEY}".x]',
            (
                "3: not valid TOML: a table or key is defined twice (column "
                f"{15 + len(KEY)})"
            ),
        ),
    ],
    ids=short,
)
def test_wrong_key_is_one_problem_that_does_not_repeat_it(text, problem):
    try:
        found = problems(text)
    except ConfigError as error:
        found = [str(one).partition(":")[2] for one in error.problems]
    assert found == [problem]
    assert KEY not in problem


def test_two_files_with_one_key_clash_without_repeating_it():
    with pytest.raises(ConfigError) as info:
        read(MODEL + TABLE, TABLE, **VLLM)
    assert "api_keys: set twice" in str(info.value)
    assert KEY not in str(info.value)


def test_short_key_is_a_warning_that_does_not_repeat_it():
    snapshot = read(MODEL + '[api_keys."sk-short".gpt]\nendpoint_id = "m"', **VLLM)
    (warning,) = snapshot.warnings
    assert "api_keys: this key is shorter than 20 characters" in warning
    assert "sk-short" not in warning


def test_endpoint_may_be_shorthand_whose_key_is_there():
    text = f'[api_keys."{KEY}".x]\nendpoint_id = "openai::gpt-4o"'
    assert problems(text) != []
    assert only(read(text, OPENAI_API_KEY="sk")).models["x"].endpoint_id


# -- whether it is on -----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "variables", "is_on"),
    [
        ("", {}, False),
        ("", REDIS, True),
        (TABLE, {}, True),
        ("[gateway.authentication]\nenabled = false", REDIS, False),
        ("[gateway.authentication]\nenabled = true", REDIS, True),
        ("[gateway.auth]\nenabled = true\n" + TABLE, {}, True),
        ('[gateway]\nbind_address = "0.0.0.0:1"\n' + TABLE, {}, True),
        ('[gateway]\nbind_address = "0.0.0.0:1"', REDIS, True),
        (
            '[gateway]\nbind_address = "0.0.0.0:1"\nauthentication.enabled = false',
            {},
            False,
        ),
    ],
)
def test_authentication_is_on_where_it_is_asked_for_or_keys_are(text, variables, is_on):
    snapshot = read(MODEL + text, **VLLM, **variables)
    assert (snapshot.access is not None) == is_on


def test_keys_without_authentication_are_a_warning():
    text = MODEL + TABLE + "[gateway.authentication]\nenabled = false"
    (warning,) = read(text, **VLLM).warnings
    assert warning.endswith("api_keys: has no effect: authentication is switched off")


def test_authentication_settings_are_read():
    text = """
    [gateway.authentication]
    on_unavailable = "deny"
    cached_for_s = 5
    """
    access = read(text, **REDIS).access
    assert access.on_unavailable == "deny"
    assert access.cached_for == 5.0
    assert access.redis_url == Secret(REDIS["TENSORZERO_REDIS_URL"])
    assert read("", **REDIS).access.cached_for == 300.0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            'on_unavailable = "x"',
            "2: gateway.authentication.on_unavailable: expected 'cached' or 'deny'",
        ),
        (
            "cached_for_s = 1\ncached_for_ms = 1",
            (
                "3: gateway.authentication.cached_for_ms: set in seconds too: give "
                "cached_for_ms or cached_for_s, not both"
            ),
        ),
        (
            'redis_credentials = ["none"]',
            (
                "2: gateway.authentication.redis_credentials[0]: expected env::NAME, "
                "path::FILE or path_from_env::NAME"
            ),
        ),
        (
            'redis_credentials = ["env::NOT_SET"]',
            (
                "2: gateway.authentication.redis_credentials[0]: the environment "
                "variable NOT_SET is not set"
            ),
        ),
    ],
    ids=short,
)
def test_wrong_authentication_setting_is_one_problem(text, problem):
    assert problems(f"[gateway.authentication]\n{text}", **REDIS) == [problem]


def test_wrong_redis_url_is_a_problem_that_does_not_repeat_it():
    with pytest.raises(ConfigError) as info:
        read("", TENSORZERO_REDIS_URL="http://:redis-canary@h")
    assert "TENSORZERO_REDIS_URL must hold a URL that begins with" in str(info.value)
    assert "redis-canary" not in str(info.value)


# -- models from Redis ----------------------------------------------------------


def shape(**entry):
    entry = {
        "type": "vllm",
        "model_name": "llama",
        "api_base": "https://inference.example/other/",
        "api_key_location": "env::VLLM",
        **entry,
    }
    return {"routing": ["a"], "providers": {"a": entry}, "endpoints": ["chat"]}


def read_model(data, text="", **variables):
    snapshot = read(MODEL + text, **VLLM, **REDIS, **variables)
    assert snapshot.access.read_model is not None
    return snapshot.access.read_model("ep-9", json.dumps(data).encode())


def test_model_from_redis_is_read_by_the_rules_of_the_file():
    model = read_model(shape())
    settings = model.providers["a"]
    assert (model.name, model.routing, settings.model) == ("ep-9", ("a",), "llama")
    assert settings.url.path == "/other/"
    assert settings.credential.secret == Secret(VLLM["VLLM"])


def test_model_from_redis_may_have_nulls_and_fallbacks():
    data = {**shape(timeout_ms=None), "fallback_models": ["ep-1", "ep-2", "ep-1"]}
    assert read_model(data).fallback_models == ("ep-1", "ep-2")


STEALING = {
    "another origin": {"api_base": "https://evil.example/v1/"},
    "another scheme": {"api_base": "http://inference.example/v1/"},
    "another port": {"api_base": "https://inference.example:8443/v1/"},
    "no certificate check": {"verify": False},
    "certificates of its own": {"ca_file": "/evil.pem"},
    "another variable": {"api_key_location": "env::HOME"},
    "a file": {"api_key_location": "path::/etc/shadow"},
    "the usual variable of a vendor": {
        "type": "openai",
        "api_base": "https://evil.example/v1/",
        "api_key_location": "env::OPENAI_API_KEY",
    },
    "a vendor's default": {
        "type": "openai",
        "api_base": "https://evil.example/v1/",
        "api_key_location": None,
    },
    "the identity of the machine": {"api_key_location": "sdk"},
    "the identity of the machine, unsaid": {
        "type": "aws_bedrock",
        "model_name": None,
        "model_id": "m",
        "region": "us-east-1",
        "api_base": None,
        "api_key_location": None,
    },
    "the store's own address": {"api_key_location": "env::TENSORZERO_REDIS_URL"},
}


@pytest.mark.parametrize("entry", STEALING.values(), ids=STEALING)
def test_model_from_redis_cannot_send_a_secret_elsewhere(entry):
    with pytest.raises(ValueError, match="the configuration file does not allow"):
        read_model(shape(**entry), OPENAI_API_KEY="sk-openai-canary")


def test_model_from_redis_may_name_what_the_file_lists():
    text = '[gateway.authentication]\nredis_credentials = ["env::FREE"]'
    data = shape(api_key_location="env::FREE", api_base="https://any.example/")
    model = read_model(data, text, FREE="sk-free")
    assert model.providers["a"].credential.secret == Secret("sk-free")
    assert "env::FREE" in locations(parse([("a", text)]))


def test_model_from_redis_may_use_a_vendor_as_its_shorthand_does():
    data = shape(type="openai", model_name="gpt-4o", api_key_location=None)
    del data["providers"]["a"]["api_base"]
    model = read_model(data, OPENAI_API_KEY="sk-openai")
    assert model.providers["a"].credential.secret == Secret("sk-openai")


@pytest.mark.parametrize(
    "data",
    [
        3,
        [],
        {},
        {"routing": ["a"]},
        shape(type="nothing"),
        shape(api_key_location="sk-provider-canary"),
        {**shape(), "fallback_models": [3]},
        {**shape(), "routing": 3},
        {**shape(), "providers": {"a": 3}},
        {**shape(), "unknown": True},
    ],
    ids=short,
)
def test_wrong_model_from_redis_is_refused_without_its_secrets(data):
    with pytest.raises(ValueError) as info:
        read_model(data)
    assert "canary" not in str(info.value)


def reader(snapshot):
    """Return what reads models from Redis."""
    assert snapshot.access is not None
    assert snapshot.access.read_model is not None
    return snapshot.access.read_model


def test_wrong_json_of_a_model_is_refused():
    snapshot = read("", **REDIS)
    for data in (b"{", b"\xff", b"[" * 100_000):
        with pytest.raises(ValueError, match="it is not valid JSON"):
            reader(snapshot)("ep", data)


def test_reader_of_models_does_not_remember_problems():
    snapshot = read(MODEL, **VLLM, **REDIS)
    for _ in range(2):
        with pytest.raises(ValueError):
            reader(snapshot)("ep", b'{"routing": 3}')
        assert reader(snapshot)("ep", json.dumps(shape()).encode())


# -- prices ---------------------------------------------------------------------


def priced(text):
    return MODEL.replace("[models.m.providers.a]", f"[models.m.providers.a]\n{text}")


def test_prices_are_exact():
    text = """cost = [
        { pointer = "/usage/prompt_tokens", cost_per_million = 0.15 },
        { pointer = "/usage/completion_tokens", cost_per_unit = 1e-7, required = true},
        { pointer_nonstreaming = C, pointer_streaming = C, cost_per_million = -0.1 },
    ]""".replace("= C,", '= "/usage/prompt_tokens_details/cached_tokens",')
    provider = read(priced(text), **VLLM).models["m"].providers["a"]
    assert provider.prices == (
        Price("input", Decimal("1.5e-7")),
        Price("output", Decimal("1e-7"), True),
        Price("cache_read", Decimal("-1e-7")),
    )


def test_prices_may_be_absent_or_nothing():
    assert read(MODEL, **VLLM).models["m"].providers["a"].prices is None
    assert read(priced("cost = []"), **VLLM).models["m"].providers["a"].prices == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cost = 3", "expected an array, found an integer"),
        (
            'cost = [{ pointer = "/usage/total" , cost_per_unit = 1 }]',
            "no figure that is counted",
        ),
        (
            "cost = [{ cost_per_unit = 1 }]",
            "give pointer, or both pointer_nonstreaming and pointer_streaming",
        ),
        (
            'cost = [{ pointer = "/usage/input_tokens" }]',
            "give one of cost_per_million and cost_per_unit",
        ),
        (
            'cost = [{ pointer = "/usage/input_tokens", cost_per_unit = nan }]',
            "expected a finite number",
        ),
    ],
    ids=short,
)
def test_wrong_price_is_one_problem(text, message):
    (problem,) = problems(priced(text), **VLLM)
    assert message in problem


def test_build_may_be_called_with_the_secrets_of_its_locations():
    document = parse([("a", MODEL)])
    secrets = environment(**VLLM, **REDIS)
    assert set(secrets) <= set(locations(document))
    assert build(document, secrets).access is not None

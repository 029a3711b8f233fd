from __future__ import annotations

import msgspec
import pytest

from tests.protocol.config.reading import model, problems, provider, read, short
from tz_protocol.config.load import build, parse
from tz_protocol.types.settings import (
    Cors,
    GatewaySettings,
    Limits,
    ServerTimeouts,
    Snapshot,
    Timeouts,
)


def gateway(text: str, **changes) -> GatewaySettings:
    return read(f"[gateway]\n{text}", **changes).gateway


def test_gateway_empty_is_the_defaults():
    assert gateway("") == read("").gateway == GatewaySettings() == Snapshot().gateway


def test_gateway_sets_what_is_said():
    text = """
        bind_address = "[::1]:80"
        base_path = "/tz/"
        debug = true
        half_close = "answer"
        observability.enabled = false
        authentication.enabled = false
        limits = { head_bytes = 4096, line_bytes = 1024, queue_timeout_ms = 5 }
        timeouts = { connect_s = 1, idle_ms = 1500, stream_total_s = 7.5 }
        server_timeouts = { head_ms = 1, goodbye_s = 2 }
        cors = { allowed_origins = ["https://a.example", "*"], max_age_s = 1 }
    """
    assert gateway(text) == GatewaySettings(
        bind_address="[::1]:80",
        base_path="/tz",
        debug=True,
        half_close="answer",
        observability=False,
        authentication=False,
        limits=Limits(head_bytes=4096, line_bytes=1024, queue_timeout=0.005),
        timeouts=Timeouts(connect=1.0, idle=1.5, stream_total=7.5),
        server=ServerTimeouts(head=0.001, goodbye=2.0),
        cors=Cors(allowed_origins=("https://a.example", "*"), max_age=1.0),
    )


@pytest.mark.parametrize("field", sorted(Limits.__struct_fields__))
def test_limits_every_field_has_its_key(field):
    default = getattr(Limits(), field)
    is_duration = isinstance(default, float)
    value = 2.0 if is_duration else max(default // 2, 8192)
    value = {"line_bytes": 100, "emulated_choices": 3}.get(field, value)
    key = f"{field}_s" if is_duration else field
    limits = gateway(f"limits.{key} = {value}").limits
    assert limits == msgspec.structs.replace(Limits(), **{field: value})


@pytest.mark.parametrize("unit", ["ms", "s"])
@pytest.mark.parametrize(
    ("table", "attribute", "kind"),
    [
        ("timeouts", "timeouts", Timeouts),
        ("server_timeouts", "server", ServerTimeouts),
    ],
)
def test_timeouts_every_field_has_both_units(table, attribute, kind, unit):
    fields = kind.__struct_fields__
    text = "\n".join(f"{table}.{field}_{unit} = 2500" for field in fields)
    seconds = 2.5 if unit == "ms" else 2500.0
    expected = kind(**dict.fromkeys(fields, seconds))
    assert getattr(gateway(text), attribute) == expected


def test_timeouts_tensorzero_spellings_are_read():
    text = """
        timeouts.non_streaming.total_ms = 1000
        timeouts.streaming = { ttft_ms = 2000, total_ms = 3000 }
    """
    expected = Timeouts(total=1.0, first_content=2.0, stream_total=3.0)
    assert gateway(text).timeouts == expected


def test_timeouts_global_cap_shortens_and_never_lengthens():
    text = "global_outbound_http_timeout_ms = 900_000"
    assert gateway(text).timeouts == Timeouts(total=600.0, stream_total=900.0)


@pytest.mark.parametrize("key", ["auth", "authentication"])
def test_authentication_off_lets_the_gateway_listen_anywhere(key):
    text = f'bind_address = "0.0.0.0:3000"\n{key}.enabled = false'
    assert gateway(text).bind_address == "0.0.0.0:3000"
    assert gateway(text).authentication is False


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "unix:/tz.sock"])
def test_authentication_unset_is_off_on_loopback(address):
    assert gateway(f'bind_address = "{address}"').authentication is None


HARMLESS = """
    auth = { cache = { enabled = true, ttl_ms = 1000 } }
    observability.async_writes = true
    observability.backend = "clickhouse"
    observability.batch_writes = { enabled = true, max_rows_postgres = 5 }
    observability.kafka = { enabled = false }
    export.otlp.traces = { format = "openinference", extra_headers = { a = "b" } }
    cache = { backend = "valkey", valkey.ttl_s = 86400 }
    metrics.tensorzero_inference_latency_overhead_seconds_buckets = [0.001, 1]
    relay = {}
    disable_pseudonymous_usage_analytics = false
    template_filesystem_access = { base_path = "x" }
    unstable_error_json = false
"""


def test_gateway_keys_of_tensorzero_without_a_meaning_are_harmless():
    assert gateway(HARMLESS) == GatewaySettings()


def test_gateway_override_wins_and_decides_about_authentication():
    document = parse([("a", '[gateway]\nbind_address = "0.0.0.0:1"')])
    snapshot = build(document, {}, bind_address="127.0.0.1:2")
    assert snapshot.gateway.bind_address == "127.0.0.1:2"


REACHABLE = (
    "can be reached from other machines, which requires authentication, and there are "
    "no API keys: write [api_keys] (tz-gateway keys create --toml prints what to "
    "write), or set TENSORZERO_REDIS_URL to the Redis that has the keys; or bind to "
    "127.0.0.1 (or another loopback address); or write [gateway.authentication] with "
    "enabled = false to let everybody in"
)
NO_KEYS = (
    "there are no API keys: write [api_keys] (tz-gateway keys create --toml prints "
    "what to write), or set TENSORZERO_REDIS_URL to the Redis that has the keys"
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            'bind_address = "0.0.0.0:3000"',
            f"2: gateway.bind_address: 0.0.0.0:3000 {REACHABLE}",
        ),
        (
            'bind_address = "[::]:3000"\nauth.cache.enabled = false',
            f"2: gateway.bind_address: [::]:3000 {REACHABLE}",
        ),
        (
            'bind_address = "3000"',
            "2: gateway.bind_address: expected host:port, [ipv6]:port or unix:/path",
        ),
        (
            "authentication.enabled = true",
            f"2: gateway.authentication.enabled: {NO_KEYS}",
        ),
        (
            'bind_address = "0.0.0.0:3000"\nauth.enabled = true',
            f"3: gateway.auth.enabled: {NO_KEYS}",
        ),
        (
            "authentication.enabled = false\nauth.enabled = false",
            "3: gateway.auth: says the same as [gateway.authentication]: give only one",
        ),
        (
            "observability.enabled = true",
            (
                "2: gateway.observability.enabled: records need a store: set "
                "TENSORZERO_CLICKHOUSE_URL to http(s)://... of a ClickHouse, or to "
                "chdb:///FOLDER for the embedded engine"
            ),
        ),
        (
            'observability.kafka.brokers = "b"',
            (
                "2: gateway.observability.kafka: Kafka is not supported yet; remove "
                "this table"
            ),
        ),
        (
            'base_path = "x"',
            (
                "2: gateway.base_path: expected a path such as /gateway: absolute, no "
                "empty or dot segments"
            ),
        ),
        (
            "timeouts = { idle_ms = 1, idle_s = 1 }",
            (
                "2: gateway.timeouts.idle_ms: set in seconds too: give idle_ms or "
                "idle_s, not both"
            ),
        ),
        (
            "timeouts = { total_ms = 1, non_streaming.total_ms = 1 }",
            (
                "2: gateway.timeouts.non_streaming.total_ms: says the same as total_ms "
                "and total_s: give only one"
            ),
        ),
        (
            "timeouts.idle_s = 0",
            "2: gateway.timeouts.idle_s: expected a number greater than 0",
        ),
        (
            "timeouts.idle_s = 31536001",
            "2: gateway.timeouts.idle_s: expected a number of at most 31536000",
        ),
        (
            "timeouts.idle_s = nan",
            "2: gateway.timeouts.idle_s: expected a finite number",
        ),
        (
            'timeouts.idle_s = "1"',
            "2: gateway.timeouts.idle_s: expected a number, found a string",
        ),
        (
            "limits.head_bytes = 255",
            "2: gateway.limits.head_bytes: expected a number of at least 256",
        ),
        (
            "limits.head_bytes = 1.5",
            "2: gateway.limits.head_bytes: expected an integer, found a number",
        ),
        (
            "limits.head_bytes = 300",
            (
                "2: gateway.limits.head_bytes: a line cannot be longer than its head "
                "(300 bytes)"
            ),
        ),
        (
            "limits.line_bytes = 40_000",
            (
                "2: gateway.limits.line_bytes: a line cannot be longer than its head "
                "(32768 bytes)"
            ),
        ),
        (
            'cors.allowed_origins = ["*", "https://a/b"]',
            (
                "2: gateway.cors.allowed_origins[1]: expected an origin such as "
                "https://app.example, or *"
            ),
        ),
        (
            'half_close = "answr"',
            (
                "2: gateway.half_close: expected 'abort' or 'answer' (did you mean "
                "answer?)"
            ),
        ),
        ("debug = 1", "2: gateway.debug: expected true or false, found an integer"),
        ("limits = 3", "2: gateway.limits: expected a table, found an integer"),
        (
            "limits.quue = 1",
            "2: gateway.limits.quue: unknown key (did you mean queue?)",
        ),
        ("binds = 1", "2: gateway.binds: unknown key"),
    ],
    ids=short,
)
def test_gateway_mistake_is_one_clear_problem(text, problem):
    assert problems(f"[gateway]\n{text}") == [problem]


def test_gateway_that_is_no_table_is_refused():
    assert problems("gateway = 3") == ["1: gateway: expected a table, found an integer"]


def test_gateway_mistakes_do_not_hide_others():
    text = '[gateway]\nx = 1\nbind_address = "?"\n[gateway.limits]\ny = 1\nz = 1\n'
    assert [line.split(": ")[1] for line in problems(text + "[models.m]\nz = 1")] == [
        "gateway.x",
        "gateway.bind_address",
        "gateway.limits.y",
        "gateway.limits.z",
        "models.m.routing",
        "models.m.z",
    ]


@pytest.mark.parametrize(
    ("texts", "of_model", "of_provider"),
    [
        (("", "", ""), None, None),
        (("idle_s = 1", "", ""), None, None),
        (("idle_s = 1", "total_s = 2", ""), Timeouts(idle=1.0, total=2.0), None),
        (("idle_s = 1", "", "total_s = 2"), None, Timeouts(idle=1.0, total=2.0)),
        (
            ("idle_s = 1\nconnect_s = 1", "idle_s = 2\ntotal_s = 2", "idle_s = 3"),
            Timeouts(connect=1.0, idle=2.0, total=2.0),
            Timeouts(connect=1.0, idle=3.0, total=2.0),
        ),
    ],
)
def test_timeouts_of_provider_inherit_the_models_and_the_gateways(
    texts, of_model, of_provider
):
    tables = zip(
        ["gateway.timeouts", "models.m.timeouts", "models.m.providers.p.timeouts"],
        texts,
        strict=True,
    )
    text = model(provider()) + "".join(f"[{name}]\n{body}\n" for name, body in tables)
    found = read(text).models["m"]
    assert (found.timeouts, found.providers["p"].timeouts) == (of_model, of_provider)

"""Keys, models and limits as a caller meets them, through the whole gateway."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import partial

import msgspec
import pytest

from tests.protocol.flows.keyed import (
    KEY,
    OTHER,
    SERVICES,
    URL,
    Keyed,
    bearer,
    clear,
    grants,
    hashed,
    principal,
    value,
    with_keys,
)
from tests.protocol.flows.serving import (
    JSON,
    Served,
    answer,
    chat,
    error_of,
    good,
    good_stream,
    header,
    refusal,
    snapshot,
)
from tz_protocol.endpoints import ENDPOINTS
from tz_protocol.flows.limitsync import SYNC_SECONDS
from tz_protocol.flows.pages import PAGES
from tz_protocol.testing import ScriptedRedis, ScriptedRequest, reply
from tz_protocol.types.http import RequestHead
from tz_protocol.types.keys import KeyLimits
from tz_protocol.types.prices import Price

PRICES = (Price("input", Decimal("0.01")), Price("output", Decimal("0.1")))
"""An answer of ``good()`` costs 0.13."""


def priced(config):
    """Return *config* with prices for every provider."""
    models = {}
    for name, model in config.models.items():
        providers = {
            key: msgspec.structs.replace(entry, prices=PRICES)
            for key, entry in model.providers.items()
        }
        models[name] = msgspec.structs.replace(model, providers=providers)
    return msgspec.structs.replace(config, models=models)


def served(*upstreams, limits=None, keys=None, **options):
    config = priced(snapshot(("a.test", "b.test")[: len(upstreams) or 1]))
    if keys is None:
        keys = (principal(limits=KeyLimits(**(limits or {}))),)
    upstreams = upstreams or ([good()],)
    return Served(*upstreams, config=with_keys(config, *keys), repeat=True, **options)


def ask(gateway, key=KEY, body=None, **options):
    headers = JSON if key is None else bearer(key)
    return gateway.ask(body, headers=options.pop("headers", headers), **options)


# -- keys -----------------------------------------------------------------------


def test_key_lets_in_and_is_recorded_by_its_id():
    gateway = served()
    assert ask(gateway).response.status == 200
    assert gateway.record.key_id == principal().key_id


BAD_KEYS = {
    "none": JSON,
    "unknown": bearer(OTHER),
    "malformed": (*JSON, ("authorization", "Basic x")),
    "ambiguous": (*bearer(), ("x-api-key", OTHER)),
    "disabled": bearer("disabled-key"),
    "expired": bearer("expired-key"),
}


def refused(headers, path="/v1/chat/completions", method="POST"):
    keys = (
        principal(),
        principal("disabled-key", is_disabled=True),
        principal("expired-key", expires_at=1.0),
    )
    headers = (*headers, ("x-request-id", "r"))
    outcome = ask(served(keys=keys), headers=headers, path=path, method=method)
    head = outcome.response.head
    return head.status, head.headers, outcome.response.body, outcome


@pytest.mark.parametrize("headers", BAD_KEYS.values(), ids=BAD_KEYS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_bad_key_of_any_kind_is_answered_with_the_same_bytes(headers, path):
    assert refused(headers, path)[:3] == refused(JSON, path)[:3]


def test_bad_key_is_a_401_in_openai_shape():
    status, headers, body, _ = refused(JSON)
    assert status == 401
    assert json.loads(body)["error"]["code"] == "invalid_api_key"
    assert ("www-authenticate", "Bearer") in headers


def test_key_is_checked_before_the_body_is_read():
    outcome = refused(JSON)[3]
    names = [type(operation).__name__ for _, operation in outcome.operations]
    assert names == ["SendHead", "SendBody"]


ROUTES = sorted(tuple(endpoint.route.split(" ", 1)) for endpoint in ENDPOINTS)


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=str)
def test_every_endpoint_needs_a_key(method, path):
    path = path.replace("{", "").replace("}", "")
    assert refused(JSON, path, method)[0] == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/m"),
        ("GET", "/openai/v1/models"),
        ("DELETE", "/v1/models"),
        ("GET", "/v1/chat/completions"),
        ("POST", "/v1/files"),
        ("GET", "/v1/batches/x"),
        ("DELETE", "/v1/responses/x"),
        ("POST", "/inference"),
        ("POST", "/feedback"),
        ("GET", "/internal/object_storage"),
        ("GET", "/"),
        ("GET", "/nowhere"),
        ("BREW", "/nowhere"),
    ],
)
def test_whatever_is_not_public_needs_a_key(method, path):
    assert refused(JSON, path, method)[0] == 401


PUBLIC = {"/status", "/health", "/livez", "/readyz"}


@pytest.mark.parametrize("path", sorted(PAGES))
def test_operational_pages_are_public_and_no_others(path):
    outcome = ask(served(), None, path=path, method="GET")
    expected = 200 if path in PUBLIC else 403 if path == "/metrics" else 401
    assert outcome.response.status == expected


@pytest.mark.parametrize(
    ("peer", "status"), [("127.0.0.1", 200), ("10.0.0.1", 403), ("", 403)]
)
def test_metrics_are_for_this_machine_with_or_without_a_key(peer, status):
    for headers in (JSON, bearer()):
        gateway = served()
        head = RequestHead(method="GET", path="/metrics", headers=headers, peer=peer)
        outcome = gateway.sim.run(
            gateway.gateway.handle(head), request=ScriptedRequest()
        )
        assert outcome.response.status == status


def test_preflight_needs_no_key():
    outcome = ask(served(), None, path="/v1/models", method="OPTIONS")
    assert outcome.response.status == 204


def test_multipart_needs_and_takes_a_key():
    form = (
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"\r\nRIFF\r\n--x--\r\n"
    )
    kind = (("content-type", "multipart/form-data; boundary=x"),)
    text = reply(200, JSON, b'{"text": "hi"}')
    for headers, status in (
        (kind, 401),
        ((*kind, ("x-api-key", KEY)), 200),
    ):
        outcome = ask(
            served([text], limits={"tokens_per_minute": 5}),
            headers=headers,
            body=form,
            path="/v1/audio/transcriptions",
        )
        assert outcome.response.status == status


def test_identity_headers_of_clients_change_nothing():
    gateway = served()
    spoofed = tuple(
        (f"x-tensorzero-{name}", "spoofed")
        for name in ("project-id", "endpoint-id", "model-id", "model-name")
    )
    outcome = ask(gateway, headers=(*bearer(), *spoofed))
    assert outcome.response.status == 200
    ((_, _, message),) = gateway.sim.requests
    assert "spoofed" not in repr((message.headers, message.body))
    assert "spoofed" not in repr(gateway.record)


def test_authentication_off_needs_no_key_and_has_no_principal():
    gateway = Served([good()])
    assert gateway.ask().response.status == 200
    assert gateway.record.key_id is None


# -- models ---------------------------------------------------------------------


def test_models_are_those_of_the_key():
    gateway = served(keys=(principal(models=grants(gpt="m", gone="x")),))
    body = answer(ask(gateway, path="/v1/models", method="GET"))
    assert [row["id"] for row in body["data"]] == ["gpt"]
    names = {"gpt": 200, "m": 404, "gone": 404, "nowhere": 404, "": 404}
    for name, status in names.items():
        outcome = ask(gateway, path=f"/v1/models/{name}", method="GET")
        assert outcome.response.status == status


def test_model_outside_the_key_is_not_found_like_one_that_does_not_exist():
    texts = set()
    for name in ("m", "nowhere", "openai::gpt-4o"):
        gateway = served(keys=(principal(models=grants(gpt="m")),))
        outcome = ask(gateway, body=chat(model=name))
        status, error = error_of(outcome)
        assert (status, error["code"]) == (404, "model_not_found")
        texts.add(error["message"].replace(repr(name), "NAME"))
    assert len(texts) == 1


def test_fallback_is_tried_only_if_the_key_reaches_it():
    config = snapshot(("a.test", "b.test"))
    first = config.models["m"]
    one, two = (
        msgspec.structs.replace(
            first, name=name, routing=(key,), providers={key: first.providers[key]}
        )
        for name, key in (("one", "a"), ("two", "b"))
    )
    one = msgspec.structs.replace(one, fallback_models=("two",))
    config = msgspec.structs.replace(config, models={"one": one, "two": two})
    for table, status in ((grants(x="one"), 502), (grants(x="one", y="two"), 200)):
        gateway = Served(
            [refusal(401)],
            [good()],
            config=with_keys(config, principal(models=table)),
            repeat=True,
        )
        outcome = ask(gateway, body=chat(model="x"))
        hosts = {stream.name.partition(":")[0] for stream in gateway.sim.opened}
        assert ("b.test" in hosts) == (status == 200)
        assert (outcome.response.status == 200) == (status == 200)


# -- limits ---------------------------------------------------------------------


def test_answers_tell_what_is_left():
    gateway = served(limits={"requests_per_minute": 2, "tokens_per_minute": 1_000})
    outcome = ask(gateway)
    assert header(outcome, "x-ratelimit-limit-requests") == "2"
    assert header(outcome, "x-ratelimit-remaining-requests") == "1"
    assert header(outcome, "x-ratelimit-limit-tokens") == "1000"
    assert int(header(outcome, "x-ratelimit-remaining-tokens")) < 1_000
    names = [name for name, _ in outcome.response.head.headers]
    assert len(names) == len(set(names))


def test_request_over_its_minute_is_a_429_without_reading_the_body():
    gateway = served(limits={"requests_per_minute": 1})
    ask(gateway)
    outcome = ask(gateway)
    status, error = error_of(outcome)
    assert (status, error["code"]) == (429, "rate_limit_exceeded")
    assert 0 < int(header(outcome, "retry-after")) <= 60
    assert header(outcome, "x-ratelimit-remaining-requests") == "0"
    names = [type(operation).__name__ for _, operation in outcome.operations]
    assert names == ["SendHead", "SendBody"]
    gateway.sim.run_until(gateway.sim.now + 60)
    assert ask(gateway).response.status == 200


def test_tokens_are_settled_by_what_the_provider_counted():
    gateway = served(limits={"tokens_per_minute": 1_000})
    assert ask(gateway, body=chat(max_tokens=900)).response.status == 200
    account = gateway.gateway.limiter.accounts[principal().key_id]
    assert account.tokens.used == 4
    outcome = ask(gateway, body=chat(max_tokens=990))
    assert error_of(outcome)[0] == 429
    assert account.tokens.used == 4
    assert account.running == 0


@pytest.mark.parametrize("stream", [False, True])
def test_failure_gives_tokens_and_money_back(stream):
    limits = {"tokens_per_minute": 1_000, "budget_per_day": Decimal(100)}
    gateway = served([refusal(400)], limits=limits)
    outcome = ask(gateway, body=chat(max_tokens=500, stream=stream))
    assert outcome.response.status == 400
    account = gateway.gateway.limiter.accounts[principal().key_id]
    assert (account.tokens.used, account.day.used, account.running) == (0, 0, 0)
    assert account.requests.used == 1


def test_stream_is_settled_by_its_usage():
    limits = {"budget_per_month": Decimal(100), "concurrent_requests": 1}
    gateway = served([good_stream()], limits=limits)
    body = chat(stream=True, stream_options={"include_usage": True})
    assert ask(gateway, body=body).response.status == 200
    account = gateway.gateway.limiter.accounts[principal().key_id]
    assert account.month.used == Decimal("0.43")
    assert gateway.record.cost == Decimal("0.43")
    assert account.running == 0


@pytest.mark.parametrize("number", range(1, 12))
def test_cancelled_exchange_gives_its_place_back_wherever_it_is(number):
    gateway = served([good_stream()], limits={"concurrent_requests": 1})
    ask(gateway, body=chat(stream=True), cancel_at=number)
    assert gateway.gateway.limiter.accounts[principal().key_id].running == 0
    assert ask(gateway, body=chat(stream=True)).response.status == 200


def test_budget_ends_with_insufficient_quota():
    gateway = served(limits={"budget_per_day": Decimal("0.2")})
    for cost in ("0.13", "0.26"):
        assert ask(gateway).response.status in (200, 429)
        account = gateway.gateway.limiter.accounts[principal().key_id]
        assert account.day.used <= Decimal(cost)
    gateway = served(limits={"budget_per_day": Decimal("0.0001")})
    status, error = error_of(ask(gateway))
    assert (status, error["code"]) == (429, "insufficient_quota")


def test_key_with_a_budget_cannot_use_what_has_no_price():
    config = snapshot(("a.test",))
    key = principal(limits=KeyLimits(budget_per_day=Decimal(1)))
    gateway = Served([good()], config=with_keys(config, key))
    status, error = error_of(ask(gateway))
    assert (status, error["code"]) == (403, "price_unknown")


# -- limits across processes ----------------------------------------------------


class Fleet:
    """Several gateways with one Redis, in one simulated world."""

    def __init__(self, count, **limits):
        self.redis = ScriptedRedis()
        self.redis.run("SET", hashed(), value(limits=limits))
        first = Keyed(redis=self.redis, config=priced(snapshot(("a.test",))))
        self.members = [first]
        for number in range(1, count):
            member = Keyed(redis=self.redis, config=first.gateway.snapshot)
            member.sim = first.sim
            member.gateway = type(first.gateway)(
                first.gateway.snapshot,
                wall_clock=first.gateway.wall_clock,
                new_id=partial(str, f"process-{number}-{id(self)}"),
                jitter=lambda: 0.5,
                context=first.sim.context,
            )
            member.services = [
                first.sim.spawn(make(), name=f"{number} {name}")
                for name, make in member.gateway.services()
                if name in SERVICES
            ]
            self.members.append(member)
        self.wait(3)

    def wait(self, seconds):
        self.members[0].wait(seconds)

    def count(self, requests, pause):
        """Return how many of *requests*, sent in turn, are admitted."""
        admitted = 0
        for number in range(requests):
            member = self.members[number % len(self.members)]
            admitted += member.status() == 200
            self.wait(pause)
        return admitted


def test_limits_are_shared_with_a_bounded_error():
    fleet = Fleet(3, requests_per_minute=10)
    # Together they admit two in the second after which they know of each other. All
    # of it is within one minute of the clock.
    assert 10 <= fleet.count(30, 0.5) <= 13


def test_limits_hold_in_each_process_while_redis_is_away():
    fleet = Fleet(2, requests_per_minute=5)
    fleet.redis.state = "frozen"
    fleet.wait(2)
    assert fleet.count(20, 0.1) == 10


def test_figures_are_whole_again_after_redis_was_emptied():
    fleet = Fleet(2, requests_per_minute=6)
    assert fleet.count(4, 1.5) == 4
    name = hashed()
    kept = fleet.redis.run("GET", name)
    fleet.redis.flush()
    fleet.redis.run("SET", name, kept)
    fleet.wait(2 * SYNC_SECONDS)
    for member in fleet.members:
        account = member.gateway.limiter.accounts[principal().key_id]
        assert account.requests.total == 4


def test_budget_of_an_ended_process_still_counts():
    fleet = Fleet(1, budget_per_day="0.3")
    assert fleet.count(2, 1.5) == 2
    member = fleet.members[0]
    account = member.gateway.limiter.accounts.pop(principal().key_id)
    assert account.day.used == Decimal("0.26")
    for service in member.services:
        service.cancel()
    ids = iter(range(1_000, 2_000))
    member.gateway.new_id = lambda: f"again-{next(ids)}"
    member.services = [
        member.sim.spawn(make(), name=name)
        for name, make in member.gateway.services()
        if name in SERVICES
    ]
    fleet.wait(2)
    member.status()
    fleet.wait(2)
    account = member.gateway.limiter.accounts[principal().key_id]
    assert account.day.others == Decimal("0.26")
    assert member.status() == 429


def test_running_requests_of_a_dead_process_are_forgotten():
    fleet = Fleet(1, concurrent_requests=3)
    name = f"tz:limit:{principal().key_id}:running"
    wall = int(fleet.members[0].gateway.wall_clock())
    fleet.redis.run("HSET", name, "dead", f"3 {wall}")
    fleet.members[0].status()
    fleet.wait(1.5)
    assert fleet.members[0].status() == 429
    fleet.wait(15)
    assert fleet.members[0].status() == 200


@pytest.mark.parametrize("junk", ["x", "1", "1 2 3", "-5 -5", "\xff", ""])
def test_figures_that_others_wrote_wrongly_count_as_nothing(junk):
    fleet = Fleet(1, requests_per_minute=2)
    member = fleet.members[0]
    member.status()
    account = member.gateway.limiter.accounts[principal().key_id]
    name = f"tz:limit:{account.key_id}:minute:{account.requests.start}"
    fleet.redis.run("HSET", name, "other", junk)
    fleet.wait(1.5)
    assert account.requests.others == 0


def test_figures_under_a_wrong_type_are_counted_and_warned_of_once():
    fleet = Fleet(1, requests_per_minute=2)
    member = fleet.members[0]
    member.status()
    account = member.gateway.limiter.accounts[principal().key_id]
    name = f"tz:limit:{account.key_id}:minute:{account.requests.start}"
    fleet.redis.run("SET", name, "x")
    fleet.wait(5)
    lines = [line for line in member.log() if line.level == "warning"]
    assert [line.fields for line in lines] == [{"reason": "WRONGTYPE"}]


# -- secrets --------------------------------------------------------------------


def test_no_key_is_in_anything_that_leaves_the_process():
    server = ScriptedRedis()
    server.run("SET", f"api_key:{KEY}", clear(KEY, m="m"))
    server.run("SET", f"api_key:{OTHER}", "{")
    server.run("SET", "api_key:3", json.dumps({"sk-canary": 3}))
    server.run("SET", "api_key:4", json.dumps({"sk-canary": {"m": {}}}))
    keyed = Keyed(
        [refusal(401, "Incorrect API key provided: sk-provider-canary")], redis=server
    )
    keyed.wait(2)
    bodies = []
    for state in ("up", "down", "frozen", "denied", "up"):
        server.state = state
        keyed.wait(5)
        for key in (KEY, OTHER, "sk-canary", f"{KEY}, {OTHER}", None):
            for model in ("m", "nowhere"):
                outcome = keyed.request(key, model)
                bodies.append(repr(outcome.response.head).encode())
                bodies.append(outcome.response.body)
    bodies.append(keyed.gateway.metrics.render(keyed.gateway.gauges()).encode())
    bodies.append(repr(keyed.sim.notices).encode())
    bodies.append(keyed.sim.trace_text().encode())
    bodies.append(repr(keyed.gateway.snapshot).encode())
    bodies.append(repr(keyed.gateway.keys.keys).encode())
    bodies.append(repr([o for s in keyed.services for o in s.operations]).encode())
    for canary in (b"canary", URL.encode(), b"redis-password"):
        found = [body for body in bodies if canary in body]
        assert not found, found[0][:300]

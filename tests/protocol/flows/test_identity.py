"""Keys and models as a caller meets them, through the whole gateway."""

from __future__ import annotations

import json

import msgspec
import pytest

from tests.protocol.flows.keyed import (
    KEY,
    OTHER,
    URL,
    Keyed,
    bearer,
    clear,
    grants,
    principal,
    with_keys,
)
from tests.protocol.flows.limited import ask, served
from tests.protocol.flows.serving import (
    JSON,
    Served,
    answer,
    chat,
    error_of,
    good,
    refusal,
    snapshot,
)
from tz_protocol.endpoints import ENDPOINTS
from tz_protocol.flows.pages import PAGES
from tz_protocol.testing import ScriptedRedis, ScriptedRequest, reply
from tz_protocol.types.http import RequestHead

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

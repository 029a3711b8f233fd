"""Routes, pages, identities and CORS: what the gateway decides before any exchange."""

from __future__ import annotations

import json

import pytest

from tests.protocol.flows.serving import (
    JSON,
    Served,
    answer,
    error_of,
    good,
    header,
    snapshot,
)
from tz_protocol import __version__
from tz_protocol.dialects.parameters import column
from tz_protocol.gateway import Gateway
from tz_protocol.providers import PROVIDERS
from tz_protocol.types.settings import (
    Cors,
    FetchSettings,
    GatewaySettings,
    Limits,
    Snapshot,
)


def get(path, served=None, **options):
    served = served or Served([good()])
    return served.ask(path=path, method=options.pop("method", "GET"), **options)


@pytest.mark.parametrize("path", ["/status", "/health", "/livez", "/readyz"])
def test_operational_page_is_served(path):
    outcome = get(path)
    assert outcome.response.status == 200
    assert header(outcome, "cache-control") == "no-store"
    assert header(outcome, "x-tensorzero-gateway-version") == __version__


def test_status_names_version_and_configuration():
    body = answer(get("/status"))
    assert body == {"status": "ok", "version": __version__, "config_hash": ""}


@pytest.mark.parametrize("path", ["/health", "/readyz"])
def test_page_of_a_draining_gateway_says_so(path):
    served = Served([good()])
    served.gateway.is_draining = True
    outcome = get(path, served)
    assert outcome.response.status == 503
    assert b"shutting down" in outcome.response.body


def test_livez_of_a_draining_gateway_is_alive():
    served = Served([good()])
    served.gateway.is_draining = True
    assert get("/livez", served).response.status == 200


def test_metrics_count_what_was_served():
    served = Served([good()])
    served.ask()
    text = get("/metrics", served).response.body.decode()
    assert 'tz_exchanges_total{endpoint="POST /v1/chat/completions"' in text
    assert "tz_requests_in_flight 0" in text


@pytest.mark.parametrize("prefix", ["/v1", "/openai/v1"])
def test_models_are_listed_in_openai_shape(prefix):
    body = answer(get(f"{prefix}/models"))
    assert body["object"] == "list"
    (model,) = body["data"]
    assert model["id"] == "m"
    assert model["object"] == "model"
    assert model["owned_by"] == "openai"
    assert answer(get(f"{prefix}/models/m")) == model


def test_model_with_slashes_is_found_raw_and_encoded():
    config = snapshot(("a.test",))
    model = config.models["m"]
    config = Snapshot(models={"org/name": model})
    for path in ("/v1/models/org/name", "/v1/models/org%2Fname"):
        assert get(path, Served([good()], config=config)).response.status == 200


def test_capabilities_are_the_tables_that_convert():
    rows = {row["id"]: row for row in answer(get("/v1/capabilities"))["data"]}
    assert rows.keys() == PROVIDERS.keys()
    for name, provider in PROVIDERS.items():
        assert rows[name]["capabilities"].keys() == provider.dialects.keys()
    chat = rows["anthropic"]["capabilities"]["chat"]
    found = {name: how.value for name, how in column("anthropic").items()}
    assert chat["parameters"].items() >= found.items()
    assert chat["parameters"]["mcp_servers"] == "passed"
    assert chat["other_parameters"] == "dropped"
    assert found["n"] == "emulated"
    # Vertex has it in an envelope of its own, and follows no links.
    wrapped = rows["gcp_vertex_anthropic"]["capabilities"]["chat"]
    assert wrapped["format"] == "vertex_anthropic"
    links = {"image_url": "emulated", "file.url": "emulated"}
    assert wrapped["parameters"] == {**chat["parameters"], **links}
    mistral = rows["mistral"]["capabilities"]["chat"]
    assert mistral["parameters"]["seed"] == "translated"
    assert mistral["parameters"]["store"] == "dropped"
    assert mistral["other_parameters"] == "passed"


@pytest.mark.parametrize("is_enabled", [True, False])
def test_capabilities_say_who_gets_what_is_behind_links(is_enabled):
    fetch = FetchSettings(is_enabled=is_enabled)
    config = Snapshot(gateway=GatewaySettings(fetch=fetch))
    rows = answer(get("/v1/capabilities", Served(config=config)))["data"]
    handled = {
        row["id"]: row["capabilities"]["chat"]["parameters"].get("image_url")
        for row in rows
        if "chat" in row["capabilities"]
    }
    word = "emulated" if is_enabled else "refused"
    for name in ("aws_bedrock", "gcp_vertex_anthropic", "ollama"):
        assert handled[name] == word
    assert handled["anthropic"] == handled["gcp_vertex_gemini"] == "translated"
    assert handled["openai"] is None


def test_model_that_does_not_exist_is_a_404():
    status, error = error_of(get("/v1/models/nope"))
    assert (status, error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nope", "/v1/chat/completions/"])
def test_route_that_does_not_exist_is_a_404_in_openai_shape(path):
    status, error = error_of(get(path))
    assert (status, error["code"]) == (404, "route_not_found")
    assert path in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/health", "GET, HEAD"),
    ],
)
def test_wrong_method_is_a_405_with_allow(method, path, allow):
    outcome = get(path, method=method)
    assert error_of(outcome)[0] == 405
    assert header(outcome, "allow") == allow


def test_request_id_is_accepted_or_minted():
    given = get("/livez", headers=(("x-request-id", "abc-123"),))
    minted = get("/livez")
    unfit = get("/livez", headers=(("x-request-id", "a b" * 100),))
    assert header(given, "x-request-id") == "abc-123"
    assert header(minted, "x-request-id").startswith("01890000-")
    assert header(unfit, "x-request-id").startswith("01890000-")


def test_base_path_is_taken_off_and_required():
    served = Served([good()], config=snapshot(("a.test",), base_path="/llm"))
    assert served.ask(path="/llm/v1/chat/completions").response.status == 200
    assert error_of(served.ask())[0] == 404
    assert get("/llm/livez", served).response.status == 200


def cors_preflight(origin, *origins):
    config = snapshot(("a.test",), cors=Cors(allowed_origins=origins))
    return get(
        "/v1/chat/completions",
        Served([good()], config=config),
        method="OPTIONS",
        headers=(
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization, content-type"),
        ),
    )


def test_preflight_of_an_allowed_origin_is_answered():
    outcome = cors_preflight("https://app.example", "https://app.example")
    assert outcome.response.status == 204
    assert header(outcome, "access-control-allow-origin") == "https://app.example"
    assert "POST" in header(outcome, "access-control-allow-methods")
    allowed = header(outcome, "access-control-allow-headers")
    assert allowed == "authorization, content-type"


def test_preflight_of_another_origin_allows_nothing():
    outcome = cors_preflight("https://evil.example", "https://app.example")
    assert header(outcome, "access-control-allow-origin") is None
    assert header(outcome, "access-control-allow-methods") is None


def test_cors_is_off_by_default():
    outcome = get("/livez", headers=(("origin", "https://app.example"),))
    assert header(outcome, "access-control-allow-origin") is None


def test_replaced_snapshot_serves_what_begins_afterwards():
    served = Served([good(after=5)], repeat=True)
    running = served.ask(run=False)
    served.sim.run_until(running.started_at + 1)
    served.gateway.replace(snapshot(("b.test",), limits=Limits(requests=7)))
    served.gateway.replace(Snapshot())
    served.sim.run_until_idle()
    assert running.response.status == 200
    assert error_of(served.ask())[0] == 404


def test_gateway_needs_no_globals():
    one, two = Served([good()]).gateway, Served([good()]).gateway
    assert isinstance(one, Gateway)
    assert one.pool is not two.pool
    assert one.context is not two.context


def test_error_of_every_route_has_the_same_headers():
    outcome = Served([good()]).ask(b"{", headers=JSON)
    status, error = error_of(outcome)
    assert status == 400
    assert error["type"] == "invalid_request_error"
    assert header(outcome, "content-type") == "application/json"
    assert header(outcome, "x-request-id")
    assert json.loads(outcome.response.body)["error"] == error

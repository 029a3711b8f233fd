"""Every endpoint with every provider that has its capability: rows, not names.

A new row is tested here without being mentioned. A new *format* needs a sample, and
every pair it occurs in fails until it has one.
"""

from __future__ import annotations

import re

import msgspec
import pytest

from tests.protocol.flows.serving import header
from tests.protocol.pairs import (
    KEY,
    PAIRS,
    ask,
    is_remote,
    is_streaming,
    is_streaming_remote,
    model_of,
    options_of,
    pairs,
)
from tests.protocol.samples import (
    EVENTS,
    JSON,
    MODEL,
    Body,
    client_request,
    sample,
)
from tz_protocol.endpoints import ENDPOINTS, routes
from tz_protocol.errors import UpstreamRefused
from tz_protocol.providers import ROWS
from tz_protocol.types.http import RequestHead, ResponseHead
from tz_protocol.types.request import Target
from tz_protocol.types.secret import Secret
from tz_protocol.wire.multipart import boundary_of, parse_multipart

# -- the tables -----------------------------------------------------------------


def test_route_is_a_method_and_a_path_and_unique():
    found = [endpoint.route for endpoint in ENDPOINTS]
    assert len(found) == len(set(found))
    assert all(re.fullmatch(r"[A-Z]+ /v1(/[a-z_]+)+", route) for route in found)
    table = routes(ENDPOINTS)
    assert sum(len(methods) for methods in table.values()) == 2 * len(found)


def test_route_twice_is_refused():
    with pytest.raises(ValueError, match="two endpoints have the route"):
        routes((*ENDPOINTS, ENDPOINTS[0]))


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.route)
def test_capability_has_a_provider_besides_the_dummy(endpoint):
    names = [row.name for each, row in PAIRS if each is endpoint]
    assert set(names) - {"dummy"}, f"nobody can do {endpoint.capability}"
    assert "dummy" in names, f"the dummy cannot do {endpoint.capability}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_capability_has_an_endpoint(row):
    unreachable = set(row.dialects) - {endpoint.capability for endpoint in ENDPOINTS}
    assert not unreachable


def test_dialects_with_the_same_name_are_the_same():
    every = [endpoint.dialect for endpoint in ENDPOINTS]
    every += [dialect for row in ROWS for dialect in row.dialects.values()]
    named = {dialect.name: dialect for dialect in every}
    assert all(named[dialect.name] is dialect for dialect in every)
    assert all(sample(dialect) for dialect in named.values())


@pairs()
def test_dialect_has_both_halves_of_a_stream_or_none(endpoint, row):
    dialect = endpoint.dialect
    assert (dialect.stream_encoder is None) is (dialect.stream_decoder is None)
    found = sample(row.dialects[endpoint.capability])
    has_decoder = row.dialects[endpoint.capability].stream_decoder is not None
    assert (found.stream is not None) is has_decoder


# -- to a provider --------------------------------------------------------------


@pairs()
def test_request_is_rendered_for_the_provider(endpoint, row):
    body = client_request(endpoint)
    head = RequestHead(
        method="POST", path="/", headers=(("content-type", body.content_type),)
    )
    parsed = endpoint.dialect.parse_request(body.data, head)
    assert parsed.model == MODEL
    target = Target(
        provider=row.name,
        model=model_of(endpoint, row),
        options=options_of(row),
        renames=dict(row.deviations.renames),
        unsupported=row.deviations.unsupported,
        implied=dict(row.deviations.implied),
    )
    dialect = row.dialects[endpoint.capability]
    request, losses = dialect.render_request(parsed, target)
    assert losses == ()
    assert request.body
    assert re.fullmatch(r"[\w.:%~-]+(/[\w.:%~-]+)*(\?\S+)?", request.path)
    names = [name for name, _ in request.headers]
    authorization = row.authorize(request, Secret(KEY), 1_750_000_000.0)
    names += [name for name, _ in authorization]
    assert names.count("content-type") == 1
    assert len(names) == len(set(names))
    assert all(name == name.lower() for name in names)


@pairs(is_remote)
def test_request_reaches_the_provider_once_with_its_key(endpoint, row):
    answer = sample(row.dialects[endpoint.capability]).answer
    _, served = ask(endpoint, row, answer)
    ((_, _, message),) = served.sim.requests
    assert message.method == "POST"
    assert message.target.startswith("/b/")
    assert not re.search(r"//|\.\.|[{}]", message.target)
    names = [name for name, _ in message.headers]
    assert len(names) == len(set(names))
    values = " ".join(value for _, value in message.headers)
    assert values.count(KEY) == 1
    assert KEY not in message.target
    assert message.body
    assert KEY.encode() not in message.body
    assert b"tensorzero" not in message.body


@pairs(is_remote)
def test_request_has_what_the_config_adds(endpoint, row):
    answer = sample(row.dialects[endpoint.capability]).answer
    _, served = ask(endpoint, row, answer)
    ((_, _, message),) = served.sim.requests
    content_type = message.get("content-type") or ""
    if content_type.startswith("multipart/"):
        parts = parse_multipart(message.body, boundary_of(content_type))
        added = {part.name: bytes(part.data).decode() for part in parts}
    else:
        added = msgspec.json.decode(message.body)
    assert added["x_extra"] == "given"


# -- to a client ----------------------------------------------------------------


@pairs()
def test_answer_reaches_the_client(endpoint, row):
    answer = sample(row.dialects[endpoint.capability]).answer
    outcome, served = ask(endpoint, row, answer)
    assert outcome.response.head.status == 200, outcome.response.body
    assert outcome.response.body
    assert header(outcome, "x-tz-provider") == "only"
    content_type = header(outcome, "content-type") or ""
    if content_type.startswith(JSON):
        value = msgspec.json.decode(outcome.response.body)
        assert value.get("model", MODEL) == MODEL
        assert "error" not in value
    else:
        assert content_type.startswith(("audio/", "text/"))
    assert served.record.outcome == "ok"
    assert served.record.attempts[0].error is None


@pairs(is_streaming)
def test_stream_reaches_the_client(endpoint, row):
    stream = sample(row.dialects[endpoint.capability]).stream
    outcome, served = ask(endpoint, row, stream.body(), stream=True)
    assert outcome.response.head.status == 200, outcome.response.body
    assert (header(outcome, "content-type") or "").startswith(EVENTS)
    assert not outcome.response.is_aborted
    assert outcome.response.body.endswith(b"\n\n")
    assert b'"error"' not in outcome.response.body
    assert served.record.is_stream
    assert served.record.outcome == "ok"
    assert served.record.skipped_events == 0


@pairs(is_streaming_remote)
def test_stream_that_was_cut_is_not_complete(endpoint, row):
    stream = sample(row.dialects[endpoint.capability]).stream
    outcome, served = ask(endpoint, row, stream.body(stream.begun), stream=True)
    assert outcome.response.head.status == 200
    assert served.record.outcome == "partial"
    assert outcome.response.is_aborted or b'"error"' in outcome.response.body
    assert b"[DONE]" not in outcome.response.body


@pairs(is_streaming_remote)
def test_stream_without_content_is_a_failure(endpoint, row):
    outcome, served = ask(endpoint, row, Body(EVENTS, b""), stream=True)
    assert outcome.response.head.status == 502
    assert served.record.outcome == "error"


@pairs()
def test_error_is_what_the_provider_said(endpoint, row):
    dialect = row.dialects[endpoint.capability]
    error = sample(dialect).error
    head = ResponseHead(error.status, (("content-type", error.content_type),))
    parsed = dialect.parse_error(head, error.data)
    assert isinstance(parsed, UpstreamRefused)
    assert (parsed.status, parsed.message) == (400, "No way.")


@pairs(is_remote)
def test_error_reaches_the_client_in_its_format(endpoint, row):
    check_error(endpoint, row, stream=False)


@pairs(is_streaming_remote)
def test_error_instead_of_a_stream_reaches_the_client_in_its_format(endpoint, row):
    check_error(endpoint, row, stream=True)


def check_error(endpoint, row, *, stream):
    error = sample(row.dialects[endpoint.capability]).error
    outcome, served = ask(endpoint, row, error, stream=stream)
    assert outcome.response.head.status == 400
    assert (header(outcome, "content-type") or "").startswith(JSON)
    told = msgspec.json.decode(outcome.response.body)["error"]
    assert told.keys() >= {"message", "type", "param", "code"}
    assert "No way." in told["message"]
    assert served.record.outcome == "error"
    assert KEY.encode() not in outcome.response.body

"""One call to one provider: connections kept, waited for, dialled anew and given up."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from tests.protocol.flows.serving import (
    COMPLETION,
    JSON,
    Served,
    answer,
    error_of,
    good,
    snapshot,
)
from tz_protocol.testing import (
    Close,
    ProxiedReply,
    ReceiveRequest,
    Script,
    Send,
    cut,
    http_response,
    refuse,
    reply,
)
from tz_protocol.types.policy import Policy, Retries
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Limits, Model, Snapshot, Timeouts, Url

BODY = json.dumps(COMPLETION).encode()


def changed(config, **changes):
    """Return *config* with other settings of its one provider."""
    model = config.models["m"]
    (name,) = model.routing
    values = {
        field: getattr(model.providers[name], field)
        for field in model.providers[name].__struct_fields__
    }
    provider = type(model.providers[name])(**{**values, **changes})
    model = Model(
        name="m",
        capabilities=model.capabilities,
        routing=model.routing,
        providers={name: provider},
    )
    return Snapshot(gateway=config.gateway, models={"m": model})


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("identity", BODY),
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
    ],
)
def test_encoded_answer_is_decoded(encoding, body):
    headers = (*JSON, ("content-encoding", encoding))
    outcome = Served([reply(200, headers, body)]).ask()
    assert answer(outcome)["usage"] == COMPLETION["usage"]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", BODY),
        ("gzip", BODY),
        ("gzip", gzip.compress(BODY)[:-9]),
        ("gzip", gzip.compress(bytes(100_000_000))),
    ],
    ids=["unknown", "not gzip", "cut", "bomb"],
)
def test_answer_that_cannot_be_decoded_is_a_502(encoding, body):
    headers = (*JSON, ("content-encoding", encoding))
    outcome = Served([reply(200, headers, body)]).ask()
    assert error_of(outcome)[0] == 502
    assert outcome.sim.open_handles == []


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_answer_of_every_framing_is_read(framing):
    served = Served([good(framing=framing)], repeat=framing != "close")
    for _ in range(2):
        served.ask()
    assert [record.outcome for record in served.sim.records] == ["ok", "ok"]
    assert len(served.sim.opened) == (2 if framing == "close" else 1)


def test_connection_of_an_answer_that_was_cut_is_not_kept():
    once = Policy(retries=Retries(count=0))
    config = snapshot(("a.test",), policy=once)
    served = Served([cut(good(), 100), good()], config=config)
    assert error_of(served.ask())[0] == 502
    assert served.ask().response.status == 200
    assert len(served.sim.opened) == 2


def test_connection_with_bytes_after_the_answer_is_not_used_again():
    data = http_response(200, JSON, BODY) + b"HTTP/1.1 200 OK\r\n\r\n"
    served = Served([(ReceiveRequest(), Send(data)), good()])
    served.ask()
    served.ask()
    assert [record.outcome for record in served.sim.records] == ["ok", "ok"]
    assert len(served.sim.opened) == 2


def test_connection_that_says_close_is_not_kept():
    headers = (*JSON, ("connection", "close"))
    served = Served([reply(200, headers, BODY), good()])
    served.ask()
    assert served.sim.open_handles == []


def test_connections_to_one_origin_are_bounded_and_waited_for():
    limits = Limits(pool_per_origin=2)
    config = snapshot(("a.test",), limits=limits)
    served = Served([good(after=1.0)], config=config, repeat=True)
    outcomes = [served.ask(run=False) for _ in range(5)]
    served.sim.run_until_idle()
    assert [o.response.status for o in outcomes] == [200] * 5
    assert len(served.sim.opened) == 2
    seconds = [round(o.finished_at - o.started_at) for o in outcomes]
    assert seconds == [1, 1, 2, 2, 3]


def test_wait_for_a_connection_ends_at_the_connect_deadline():
    limits, timeouts = Limits(pool_per_origin=1), Timeouts(connect=2.0)
    config = snapshot(("a.test",), limits=limits, timeouts=timeouts)
    served = Served([good(after=50.0)], config=config)
    outcomes = [served.ask(run=False) for _ in range(2)]
    served.sim.run_until_idle()
    status, error = error_of(outcomes[1])
    assert (status, error["code"]) == (503, "upstream_pool_exhausted")
    assert outcomes[1].finished_at - outcomes[1].started_at == pytest.approx(2.0)


def test_client_that_leaves_while_waiting_for_a_connection_harms_nobody():
    config = snapshot(("a.test",), limits=Limits(pool_per_origin=1))
    served = Served([good(after=3.0)], config=config, repeat=True)
    outcomes = [served.ask(run=False) for _ in range(3)]
    served.sim.run_until(served.sim.start + 1.0)
    outcomes[1].cancel()
    served.sim.run_until_idle()
    assert outcomes[2].response.status == 200
    assert served.gateway.pool.counts() == (0, 1)


def test_informational_answers_are_skipped():
    data = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + http_response(
        200, JSON, BODY
    )
    served = Served([(ReceiveRequest(), Send(data))])
    assert served.ask().response.status == 200


def test_answer_before_the_request_was_read_counts():
    data = http_response(413, JSON, b'{"error":{"message":"too long"}}')
    served = Served([(Send(data), Close())])
    status, error = error_of(served.ask())
    assert (status, error["message"]) == (413, "too long")


def test_tls_options_of_the_provider_reach_the_connection():
    config = changed(
        snapshot(("a.test",)),
        url=Url("https", "a.test", 80, "/v1/"),
        verify=False,
        ca_file="/etc/ca.pem",
    )
    served = Served([good()], config=config)
    served.ask()
    (handle,) = served.sim.opened
    assert handle.tls is not None
    assert handle.tls.server_name == "a.test"
    assert not handle.tls.verify
    assert handle.tls.ca_file == "/etc/ca.pem"


def test_providers_that_differ_in_verification_share_no_connection():
    one = snapshot(("a.test",))
    other = changed(one, verify=False)
    served = Served([good()], config=one, repeat=True)
    served.ask()
    served.gateway.replace(other)
    served.ask()
    assert len(served.sim.opened) == 2


URL = "http://a.test/v1/chat/completions"


def proxied(script, status=200, headers=JSON):
    config = changed(snapshot(("a.test",)), proxy=Secret("http://u:p@proxy.test:1"))
    served = Served([refuse()], config=config)
    served.sim.world.proxied(URL, ProxiedReply(status, headers, script))
    return served


def test_call_through_a_proxy_is_answered():
    served = proxied(Script((Send(BODY), Close())))
    assert answer(served.ask())["usage"] == COMPLETION["usage"]
    assert served.sim.open_handles == []


def test_call_through_a_proxy_that_fails_is_told_without_the_proxy():
    served = proxied(Script((Send(b"no"), Close())), status=407)
    status, error = error_of(served.ask())
    assert status == 502
    assert "proxy.test" not in json.dumps(error)
    assert served.sim.open_handles == []


def test_sweep_closes_connections_that_idled_too_long():
    served = Served([good()], repeat=True)
    served.ask()
    (name, make), *_ = served.gateway.services()
    assert name == "pool_sweep"
    sweep = served.sim.spawn(make())
    served.sim.run_until(served.sim.now + 25)
    assert len(served.sim.open_handles) == 1
    served.sim.run_until(served.sim.now + 10)
    assert served.sim.open_handles == []
    sweep.cancel()

"""One call to one provider: connections kept, waited for, dialled anew and given up."""

from __future__ import annotations

import gzip
import json
import zlib

import msgspec
import pytest

from tests.protocol.flows.serving import (
    COMPLETION,
    EVENTS,
    JSON,
    Served,
    answer,
    chat,
    error_of,
    good,
    snapshot,
)
from tz_protocol.testing import (
    Close,
    Failure,
    ProxiedReply,
    ReceiveRequest,
    Reset,
    Script,
    ScriptedRequest,
    Send,
    Stall,
    cut,
    http_response,
    refuse,
    reply,
)
from tz_protocol.types.policy import Policy, Retries
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import (
    Limits,
    Model,
    Snapshot,
    Timeouts,
    Url,
)
from tz_protocol.wire.inflate import PIECE_BYTES

BODY = json.dumps(COMPLETION).encode()
ONCE = Policy(retries=Retries(count=0))


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


UNREADABLE = pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", BODY),
        ("gzip", BODY),
        ("gzip", gzip.compress(BODY)[:-9]),
        ("gzip", gzip.compress(bytes(100_000_000))),
    ],
    ids=["unknown", "not gzip", "cut", "bomb"],
)


@UNREADABLE
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
    config = snapshot(("a.test",), policy=ONCE)
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


def test_kept_connection_that_dies_is_dialled_again_once():
    script = (ReceiveRequest(), Send(http_response(200, JSON, BODY)), ReceiveRequest())
    served = Served([(*script, Close()), refuse()])
    assert served.ask().response.status == 200
    once = served.gateway.snapshot
    served.gateway.replace(
        msgspec.structs.replace(
            once, gateway=msgspec.structs.replace(once.gateway, policy=ONCE)
        )
    )
    assert error_of(served.ask())[0] == 502
    (attempt,) = served.sim.records[-1].attempts
    assert attempt.error == "upstream_unreachable"
    assert served.gateway.pool.counts() == (0, 0)
    assert served.sim.open_handles == []


def test_connections_that_are_kept_are_bounded():
    limits = Limits(pool_per_origin=4, pool_idle=1)
    config = snapshot(("a.test",), limits=limits)
    served = Served([good(after=1.0)], config=config, repeat=True)
    outcomes = [served.ask(run=False) for _ in range(3)]
    served.sim.run_until(served.sim.now + 2.0)
    assert [o.response.status for o in outcomes] == [200] * 3
    assert len(served.sim.opened) == 3
    assert len(served.sim.open_handles) == 1


# -- through an egress proxy ----------------------------------------------------

URL = "http://a.test/v1/chat/completions"
GZIP = (*JSON, ("content-encoding", "gzip"))


def proxied(script, status=200, headers=JSON, **settings):
    """Return a gateway that reaches its provider through a proxy, which says this."""
    config = snapshot(("a.test",), policy=ONCE, **settings)
    config = changed(config, proxy=Secret("http://u:p@proxy.test:1"))
    served = Served([refuse()], config=config)
    found = script
    if not isinstance(script, Failure):
        found = ProxiedReply(status, headers, script)
    served.sim.world.proxied(URL, found)
    return served


def said(*steps, **options):
    return Script((*steps, Close()), **options)


def test_call_through_a_proxy_is_answered():
    served = proxied(said(Send(BODY)))
    assert answer(served.ask())["usage"] == COMPLETION["usage"]
    assert served.sim.open_handles == []


def test_call_through_a_proxy_that_fails_is_told_without_the_proxy():
    served = proxied(said(Send(b"no")), status=407)
    status, error = error_of(served.ask())
    assert status == 502
    assert "proxy.test" not in json.dumps(error)
    assert served.sim.open_handles == []


def test_proxy_that_answers_with_an_informational_status_only_is_a_502():
    served = proxied(said(), status=103)
    assert error_of(served.ask())[0] == 502
    assert served.sim.open_handles == []


@pytest.mark.parametrize("kind", ["refused", "dns", "tls", "reset"])
def test_proxy_that_cannot_be_reached_is_a_502(kind):
    served = proxied(Failure(kind))
    assert error_of(served.ask())[0] == 502
    (attempt,) = served.record.attempts
    code = {"tls": "upstream_tls_error", "reset": "upstream_disconnected"}
    assert attempt.error == code.get(kind, "upstream_unreachable")


@pytest.mark.parametrize(
    ("timeouts", "seconds"),
    [(Timeouts(first_content=4.0), 4.0), (Timeouts(total=3.0), 3.0)],
    ids=["first content", "total"],
)
def test_proxy_that_says_nothing_is_a_504_at_the_first_deadline(timeouts, seconds):
    served = proxied(Failure("hang"), timeouts=timeouts)
    outcome = served.ask()
    assert error_of(outcome)[0] == 504
    assert outcome.finished_at - outcome.started_at == pytest.approx(seconds)


@pytest.mark.parametrize("steps", [(Reset(),), (Stall(),)], ids=["reset", "stall"])
def test_answer_through_a_proxy_that_breaks_off_is_an_error_and_closed(steps):
    script = Script((Send(BODY[:20]), *steps))
    served = proxied(script, timeouts=Timeouts(total=5.0))
    assert error_of(served.ask())[0] == (504 if steps == (Stall(),) else 502)
    assert served.sim.open_handles == []


@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_encoded_answer_through_a_proxy_is_decoded_however_split(size):
    served = proxied(said(Send(gzip.compress(BODY), piece=size)), headers=GZIP)
    served.sim.splits = (size,)
    assert answer(served.ask())["usage"] == COMPLETION["usage"]
    assert served.sim.open_handles == []


@UNREADABLE
def test_answer_through_a_proxy_that_cannot_be_decoded_is_a_502(encoding, body):
    headers = (*JSON, ("content-encoding", encoding))
    served = proxied(said(Send(body)), headers=headers)
    assert error_of(served.ask())[0] == 502
    assert served.sim.open_handles == []


def test_stream_through_a_proxy_whose_client_leaves_is_closed():
    events = b"".join(b"data: " + event + b"\n\n" for event in EVENTS[:3])
    stream = (("content-type", "text/event-stream"),)
    served = proxied(Script((Send(events), Stall())), headers=stream)
    body = json.dumps(chat(stream=True)).encode()
    served.ask(request=ScriptedRequest((body,), gone_after=2.0))
    assert served.record.outcome == "client_gone"
    assert served.sim.open_handles == []


# -- large answers --------------------------------------------------------------

WORD = "x" * (3 * PIECE_BYTES)
LARGE = json.dumps(
    {
        **COMPLETION,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": WORD},
                "finish_reason": "stop",
            }
        ],
    }
).encode()


def flushed(*sizes):
    """Return LARGE as gzip, in pieces that decode to just so many bytes."""
    encoder = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    pieces, at = [], 0
    for size in sizes:
        piece = encoder.compress(LARGE[at : at + size])
        pieces.append(piece + encoder.flush(zlib.Z_SYNC_FLUSH))
        at += size
    return [*pieces, encoder.compress(LARGE[at:]) + encoder.flush()]


@pytest.mark.parametrize("is_proxied", [False, True], ids=["direct", "proxied"])
@pytest.mark.parametrize(
    "sizes",
    [(), (PIECE_BYTES,), (PIECE_BYTES - 1,), (2 * PIECE_BYTES,), (len(LARGE),)],
    ids=["one", "a piece", "nearly a piece", "two pieces", "all, then the end"],
)
def test_answer_that_decodes_to_many_pieces_is_whole(sizes, is_proxied):
    steps = tuple(Send(piece, after=1.0) for piece in flushed(*sizes))
    if is_proxied:
        served = proxied(said(*steps), headers=GZIP)
    else:
        head = http_response(200, GZIP, framing="close")
        served = Served([(ReceiveRequest(), Send(head), *steps, Close())])
    message = answer(served.ask())["choices"][0]["message"]
    assert message["content"] == WORD
    assert served.sim.open_handles == []

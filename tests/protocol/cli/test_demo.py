from __future__ import annotations

import json

import pytest

from tests.protocol.cli.running import start
from tz_protocol import __version__
from tz_protocol.cli.demo import demo_snapshot
from tz_protocol.providers import PROVIDERS
from tz_protocol.routing.candidates import candidates, resolve
from tz_protocol.testing import (
    Close,
    ReceiveRequest,
    ReceiveResponse,
    Reset,
    Send,
    World,
    cut,
    garbage,
    hang,
    refuse,
    reply,
    sse,
)

ONCE = "demo --once"


def delta(text):
    chunk = {"choices": [{"index": 0, "delta": {"content": text}}]}
    return json.dumps(chunk)


ROLE = json.dumps({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
LAST = json.dumps({"choices": [], "usage": {"completion_tokens": 3}})
ANSWER = sse(ROLE, delta("One "), delta("two "), delta("three."), LAST, every=0.1)


def world(*connections, port=3000, signals=()):
    made = World(signals=list(signals))
    made.upstream("127.0.0.1", port, *connections)
    return made


# -- the happy path -------------------------------------------------------------


def test_demo_once_prints_the_answer_and_what_to_try_and_ends():
    process = start(ONCE, world(ANSWER))
    assert process.finish() == 0
    first, rest = process.out.split("\n", 1)
    assert first == (
        f"tz-gateway {__version__} is listening on 127.0.0.1:3000 "
        "(the demo: model demo, no provider)"
    )
    assert rest.startswith("\nHello\n\nOne two three.\n\nTry it yourself:\n\n")
    assert "\ncurl -N http://127.0.0.1:3000/v1/chat/completions -H " in rest
    assert process.err == ""
    assert process.sim.surroundings.addresses == []


def test_demo_prints_each_piece_when_it_comes():
    process = start(ONCE, world(ANSWER))
    process.until(0.25)
    assert process.out.endswith("\n\nHello\n\nOne ")
    process.until(0.35)
    assert process.out.endswith("\n\nHello\n\nOne two ")


@pytest.mark.parametrize("splits", [(1,), (7,), (3, 50, 1)], ids=str)
def test_demo_output_does_not_depend_on_how_bytes_come(splits):
    whole = start(ONCE, world(ANSWER))
    whole.finish()
    split = start(ONCE, world(ANSWER))
    split.sim.splits = splits
    split.finish()
    assert split.out == whole.out


def test_demo_sends_one_streamed_chat_completion():
    process = start(ONCE, world(ANSWER))
    process.finish()
    ((_, stream, message),) = process.sim.requests
    assert message.start == "POST /v1/chat/completions HTTP/1.1"
    assert message.get("content-type") == "application/json"
    assert message.get("host") == "127.0.0.1:3000"
    body = json.loads(message.body)
    assert (body["model"], body["stream"]) == ("demo", True)
    assert stream.closed_at is not None


def test_demo_stays_up_until_a_signal():
    process = start("demo", world(ANSWER, signals=[(60.0, "SIGINT")]))
    process.until(30.0)
    assert process.out.endswith("\nSIGTERM or Ctrl-C ends the gateway.\n")
    assert not process.outcome.is_done
    assert process.finish() == 0
    assert process.ended_after == 60.0


def test_demo_curl_line_can_be_pasted():
    process = start(ONCE, world(ANSWER))
    process.finish()
    (line,) = [x for x in process.out.splitlines() if x.startswith("curl ")]
    body = line.partition(" -d '")[2].removesuffix("'")
    assert json.loads(body)["messages"] == [{"role": "user", "content": "Hello"}]


# -- the port -------------------------------------------------------------------


def test_demo_port_that_is_taken_becomes_a_free_one():
    process = start(ONCE, world(ANSWER, port=40001))
    process.sim.surroundings.addresses.append("127.0.0.1:3000")
    assert process.finish() == 0
    assert "listening on 127.0.0.1:40001 (" in process.out
    assert "curl -N http://127.0.0.1:40001/" in process.out


def test_demo_port_that_was_asked_for_is_not_changed():
    process = start(f"{ONCE} --port 4000")
    process.sim.surroundings.addresses.append("127.0.0.1:4000")
    assert process.finish() == 1
    assert process.err.startswith("tz-gateway: cannot listen on 127.0.0.1:4000: ")
    assert process.out == ""


# -- what goes wrong ------------------------------------------------------------

ERROR = json.dumps({"error": {"message": "No place.", "type": "server_error"}})
FAILURES = {
    "refused": (refuse(), "the connection to the gateway failed (refused)"),
    "hangs": (hang(), "the gateway timed out (connect)"),
    "silent": (cut(ANSWER, 0, Close()), "the connection to the gateway failed (reset)"),
    "reset": (cut(ANSWER, 300, Reset()), "the connection to the gateway failed"),
    "garbage": (garbage(), ""),
    "status": (reply(503, body=ERROR.encode()), "the gateway answered 503: No place."),
    "status-odd": (reply(500, body=b"oops"), "answered 500: without a reason"),
    "in-band": (sse(delta("One"), ERROR), "No place."),
    "no-terminator": (sse(delta("One"), end=b""), "ended before its terminator"),
    "no-chunk": (sse("[1]"), "is no chunk of a chat completion"),
}


@pytest.mark.parametrize(
    ("behaviour", "message"), FAILURES.values(), ids=list(FAILURES)
)
def test_demo_request_that_fails_says_why_and_ends_with_1(behaviour, message):
    process = start("demo", world(behaviour))
    assert process.finish() == 1
    assert process.err.startswith("tz-gateway: the demo's own request failed: ")
    assert message in process.err
    assert process.err.count("\n") == 1
    assert "curl" not in process.out
    assert process.sim.open_handles == []


def test_demo_signal_during_the_answer_lets_it_end():
    process = start("demo", world(ANSWER, signals=[(0.25, "SIGTERM")]))
    assert process.finish() == 0
    assert "One two three." in process.out


def test_demo_second_signal_ends_at_once():
    signals = [(0.25, "SIGTERM"), (0.28125, "SIGTERM")]
    process = start("demo", world(ANSWER, signals=signals))
    assert process.finish() == 143
    assert process.ended_after == 0.28125
    assert process.sim.open_handles == []


@pytest.mark.parametrize("cancel_at", range(1, 20))
def test_demo_cancelled_at_any_operation_leaves_nothing_open(cancel_at):
    process = start(ONCE, world(ANSWER))
    process.outcome.driver._cancel_at = cancel_at
    process.sim.run_until_idle()
    assert process.outcome.is_done
    assert process.sim.open_handles == []


# -- the gateway's side ----------------------------------------------------------


def test_demo_prints_what_the_gateway_really_answers():
    # The bytes of the demo's own request, to the demo's own gateway...
    asking = start(ONCE, world(ANSWER))
    asking.finish()
    ((_, stream, _),) = asking.sim.requests
    request = b"".join(data for _, data in stream.writes)
    serving = start("demo", world(ANSWER, signals=[(60.0, "SIGTERM")]))
    serving.until(1.0)
    client = serving.connect(Send(request), ReceiveResponse("POST"))
    assert serving.finish() == 0
    # ...and its answer's, back to the demo.
    answered = (ReceiveRequest(), Send(bytes(client.client.received)))
    process = start(ONCE, world(answered))
    assert process.finish() == 0
    text = process.out.partition("\nHello\n\n")[2].partition("\n\nTry it")[0]
    assert len(text.split()) == 16


# -- the configuration ----------------------------------------------------------


def test_demo_snapshot_answers_whatever_the_dummy_can():
    snapshot = demo_snapshot(3000)
    model = resolve(snapshot, "demo", PROVIDERS)
    for capability in PROVIDERS["dummy"].dialects:
        assert capability in model.capabilities
        assert candidates(model, capability, PROVIDERS)
    by_shorthand = resolve(snapshot, "dummy::echo", PROVIDERS)
    assert by_shorthand.providers["dummy"].model == "echo"


def test_demo_snapshot_listens_on_loopback_only():
    assert demo_snapshot(1234).gateway.bind_address == "127.0.0.1:1234"

"""Streams through an egress proxy, and reads of them that are given up."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
import threading
import time

import httpx
import pytest

from tests.transport.loops import BOUND, FAR, NAMES, Transport, served
from tests.transport.sockets import receive_all, run_flow
from tz_protocol.errors import OperationTimeout
from tz_protocol.gateway import Gateway
from tz_protocol.notices import Close
from tz_protocol.operations import HttpCall, Read
from tz_protocol.types.policy import Policy, StreamPolicy
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Model, ProviderSettings, Snapshot, Url


@pytest.fixture(params=[*NAMES, "uvloop"], scope="module")
def transport(request):
    return Transport(request.param)


class SlowProxy:
    """Answers one request with a stream, of which each part waits to be released."""

    def __init__(self, *parts):
        self._parts = parts
        self._released: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_left = threading.Event()
        """Set when the stream's reader has gone."""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._released.put(False)
        self._listener.close()
        self._thread.join(BOUND)

    def release(self):
        """Send the next part."""
        self._released.put(True)

    def _serve(self):
        stream, _ = self._listener.accept()
        with stream:
            stream.settimeout(BOUND)
            stream.recv(65_536)
            stream.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                b"transfer-encoding: chunked\r\n\r\n"
            )
            for part in self._parts:
                if not self._released.get(timeout=BOUND):
                    return
                stream.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            if self._released.get(timeout=BOUND):
                stream.sendall(b"0\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                receive_all(stream)
            self.is_left.set()


def test_read_of_a_proxied_body_that_is_given_up_loses_nothing(transport):
    with SlowProxy(b"one", b"two") as proxy:

        def flow(context):
            _, _, handle = yield from HttpCall(
                FAR, "POST", "http://up.test/", (), b"body", proxy.url
            )
            pieces, pauses = [], 0
            for _ in range(3):
                with pytest.raises(OperationTimeout):
                    yield from Read(context.now + 0.01, handle)
                pauses += 1
                proxy.release()
                pieces.append((yield from Read(FAR, handle)))
            context.tell(Close(handle))
            return pieces, pauses

        assert run_flow(transport, flow) == ([b"one", b"two", b""], 3)


def test_proxied_body_that_is_closed_within_a_read_is_left(transport):
    with SlowProxy() as proxy:

        def flow(context):
            _, _, handle = yield from HttpCall(
                FAR, "POST", "http://up.test/", (), b"body", proxy.url
            )
            with pytest.raises(OperationTimeout):
                yield from Read(context.now + 0.01, handle)
            context.tell(Close(handle))
            proxy.release()

        run_flow(transport, flow)
        assert proxy.is_left.wait(BOUND)


def proxied_gateway(proxy, policy):
    """Return a gateway whose one model is reached through *proxy*."""
    provider = ProviderSettings(
        name="up",
        type="openai",
        model="m",
        url=Url("http", "up.test", 80, "/v1/"),
        proxy=Secret(proxy),
    )
    model = Model(
        name="m",
        capabilities=frozenset({"chat"}),
        routing=("up",),
        providers={"up": provider},
        policy=policy,
    )
    return Gateway(
        Snapshot(models={"m": model}),
        wall_clock=time.time,
        new_id=lambda: "01890000-0000-7000-8000-000000000001",
        jitter=lambda: 0.5,
    )


def delta(text, finish=None):
    """Return one event of OpenAI's."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


PARTS = (delta("Hel"), delta("lo", "stop") + b"data: [DONE]\n\n")


def test_comments_do_not_cut_a_stream_that_comes_through_a_proxy(transport):
    policy = Policy(stream=StreamPolicy(ping_after=0.01))
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": ""}]}
    lines = []
    with (
        SlowProxy(*PARTS) as proxy,
        served(transport, proxied_gateway(proxy.url, policy)) as running,
        contextlib.closing(http.client.HTTPConnection(*running.address, BOUND)) as ours,
    ):
        headers = {"content-type": "application/json"}
        ours.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = ours.getresponse()
        assert response.status == 200
        for _ in PARTS:
            while (line := response.readline()) not in (b": ping\n", b""):
                lines.append(line)
            proxy.release()
        proxy.release()
        lines += response.read().splitlines(keepends=True)
    told = [line.removeprefix(b"data: ") for line in lines if line[:5] == b"data:"]
    assert told.pop() == b"[DONE]\n"
    choices = [json.loads(line)["choices"] for line in told]
    text = "".join(
        one["delta"].get("content") or "" for (one,) in filter(None, choices)
    )
    assert text == "Hello"


def test_comments_do_not_cut_a_proxied_stream_within_an_application(transport):
    policy = Policy(stream=StreamPolicy(ping_after=0.01))
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": ""}]}
    found = []
    with SlowProxy(*PARTS) as proxy:
        made = proxied_gateway(proxy.url, policy)
        inside = transport.embed.SyncGatewayTransport(made)
        proxy.release()  # a caller in the same process waits for content as for a head
        with (
            httpx.Client(transport=inside, base_url="http://gateway.test") as ours,
            ours.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            assert response.status_code == 200
            parts = len(PARTS)
            for line in response.iter_lines():
                found.append(line)
                if line == ": ping" and parts:
                    proxy.release()
                    parts -= 1
    data = [line for line in found if line.startswith("data:")]
    assert data[-1] == "data: [DONE]"
    assert "Hel" in "".join(data)
    assert '"lo"' in "".join(data)


def test_window_to_hold_content_back_does_not_cut_what_comes_through_a_proxy(
    transport,
):
    policy = Policy(stream=StreamPolicy(hold=0.01))
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": ""}]}
    with (
        SlowProxy(*PARTS) as proxy,
        served(transport, proxied_gateway(proxy.url, policy)) as running,
        contextlib.closing(http.client.HTTPConnection(*running.address, BOUND)) as ours,
    ):
        proxy.release()
        headers = {"content-type": "application/json"}
        ours.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = ours.getresponse()
        # The head is here: the window is over, and nothing more has come.
        proxy.release()
        proxy.release()
        answer = response.read()
    assert b"Hel" in answer
    assert answer.endswith(b"data: [DONE]\n\n")

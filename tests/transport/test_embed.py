"""The gateway inside other people's applications: httpx, on both transports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from typing import Any

import httpx
import openai
import pytest
import trio

from tests.transport.embedded import (
    CHAT,
    buggy,
    chat,
    make_gateway,
    snapshot,
)
from tests.transport.loops import BOUND, NAMES, FakePeers, Transport
from tz_protocol.endpoints import ENDPOINTS
from tz_protocol.records.record import Outcome
from tz_protocol.types.settings import Url


@pytest.fixture(params=NAMES)
def transport(request):
    return Transport(request.param)


@pytest.fixture
def gateway(transport):
    return make_gateway(transport)


# -- identifiers ----------------------------------------------------------------


def test_gateway_has_a_real_clock_and_fresh_identifiers(transport):
    gateway = transport.embed.make_gateway(snapshot("good"))
    first, second = gateway.new_id(), gateway.new_id()
    assert first != second
    assert first[14] == "7"
    assert first[19] in "89ab"
    assert first[:8] <= second[:8]
    assert gateway.wall_clock() > 1_700_000_000
    assert 0 <= gateway.jitter() < 1


def test_gateway_takes_what_it_is_given_instead(transport):
    gateway = transport.embed.make_gateway(
        snapshot(), new_id=lambda: "one", endpoints=ENDPOINTS[:1]
    )
    assert gateway.new_id() == "one"


# -- httpx, sync ----------------------------------------------------------------


@pytest.fixture
def client(transport, gateway):
    with (
        transport.embed.SyncGatewayTransport(gateway) as inside,
        httpx.Client(transport=inside, base_url="http://gateway") as client,
    ):
        yield client


def test_sync_client_gets_a_whole_answer(client, gateway):
    answer = client.post(CHAT, json=chat())
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["role"] == "assistant"
    assert answer.headers["x-tz-provider"] == "dummy"
    assert [record.outcome for record in gateway.records] == [Outcome.OK]


def test_sync_client_gets_a_stream_piece_by_piece(client, gateway):
    with client.stream("POST", CHAT, json=chat(stream=True)) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        pieces = list(answer.iter_raw())
    assert len(pieces) > 1
    assert b"".join(pieces).endswith(b"data: [DONE]\n\n")
    assert [record.outcome for record in gateway.records] == [Outcome.OK]


def test_sync_client_that_leaves_a_stream_ends_the_exchange(client, gateway):
    with client.stream("POST", CHAT, json=chat(stream=True)) as answer:
        next(answer.iter_raw())
    assert [record.outcome for record in gateway.records] == [Outcome.CLIENT_GONE]


def test_sync_client_gets_errors_as_over_a_socket(client):
    answer = client.post(CHAT, json=chat("no such model"))
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert client.get("/nowhere").status_code == 404
    assert client.get("/livez").status_code == 200
    assert client.head("/livez").status_code == 200


def test_openai_client_talks_to_an_embedded_gateway(transport, gateway):
    with transport.embed.SyncGatewayTransport(gateway) as inside:
        http_client: Any = httpx.Client(transport=inside)  # newer SDKs type a fork
        with openai.OpenAI(
            base_url="http://gateway/v1", api_key="unused", http_client=http_client
        ) as client:
            whole = client.chat.completions.create(**chat())
            pieces = list(client.chat.completions.create(**chat(stream=True)))
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(**chat("no such model"))
    assert whole.choices[0].message.content
    assert len(pieces) > 1


def test_sync_client_works_from_many_threads(client):
    statuses = []

    def ask():
        statuses.append(client.post(CHAT, json=chat()).status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert statuses == [200] * 8


# -- httpx, async ---------------------------------------------------------------


def with_async_client(transport, gateway, function):
    async def main():
        inside = transport.embed.GatewayTransport(gateway)
        async with httpx.AsyncClient(
            transport=inside, base_url="http://gateway"
        ) as client:
            return await function(client)

    return transport.run(main)


def test_async_client_gets_whole_answers_and_streams(transport, gateway):
    async def ask(client):
        whole = await client.post(CHAT, json=chat())
        async with client.stream("POST", CHAT, json=chat(stream=True)) as answer:
            pieces = [piece async for piece in answer.aiter_raw()]
        return whole, pieces

    whole, pieces = with_async_client(transport, gateway, ask)
    assert whole.status_code == 200
    assert b"".join(pieces).endswith(b"data: [DONE]\n\n")
    assert [record.outcome for record in gateway.records] == [Outcome.OK] * 2


def test_async_client_sends_a_body_made_as_it_goes(transport, gateway):
    async def body():
        for byte in json.dumps(chat()).encode():
            yield bytes((byte,))

    async def ask(client):
        headers = {"content-type": "application/json"}
        return await client.post(CHAT, content=body(), headers=headers)

    answer = with_async_client(transport, gateway, ask)
    assert answer.status_code == 200


def test_async_client_that_is_cancelled_ends_the_exchange(transport, gateway):
    async def ask(client):
        if transport.name == "asyncio":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.post(CHAT, json=chat("slow"))
        else:
            with trio.move_on_after(0.05):
                await client.post(CHAT, json=chat("slow"))

    with_async_client(transport, gateway, ask)
    assert [record.outcome for record in gateway.records] == [Outcome.CANCELLED]


def test_async_client_that_leaves_closes_the_upstream(transport):
    with FakePeers() as peers:
        host, port = peers.addresses.silent
        gateway = make_gateway(transport, url=Url("http", host, port))

        async def ask(client):
            call = client.post(CHAT, json=chat("up"))
            if transport.name == "asyncio":
                task = asyncio.ensure_future(call)
                await asyncio.sleep(0.05)
                task.cancel()
            else:
                with trio.move_on_after(0.05):
                    await call
            assert await wait_for(transport, lambda: peers.ended == peers.opened == 1)

        with_async_client(transport, gateway, ask)
    assert [record.outcome for record in gateway.records] == [Outcome.CANCELLED]


async def wait_for(transport, condition):
    """Let the loop go on until *condition* holds; False if it never does."""
    for _ in range(1_000):
        if condition():
            return True
        await transport.sleep(0.005)
    return False


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
def test_bug_in_a_handler_is_told_and_answered_once(
    transport, gateway, caplog, is_late
):
    broken = buggy(gateway, is_late=is_late)

    async def ask(client):
        try:
            return await client.get("/")
        except httpx.RemoteProtocolError as error:
            return str(error)

    with caplog.at_level(logging.ERROR, "tz_gateway"):
        answer = with_async_client(transport, broken, ask)
    if is_late:
        assert answer == "answer cut off"
    else:
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
    assert [record.name for record in caplog.records] == ["tz_gateway"]
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


def test_only_log_lines_are_logged_by_an_embedded_gateway(transport, gateway, caplog):
    async def ask(client):
        return await client.post(CHAT, json=chat())

    with caplog.at_level(logging.DEBUG, "tz_gateway"):
        with_async_client(transport, gateway, ask)
    assert len(gateway.records) == 1
    assert [record for record in caplog.records if record.name == "tz_gateway"] == []

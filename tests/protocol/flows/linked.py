"""A gateway whose providers take only bytes, and servers with pictures."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec

from tests.protocol.dialects.eventstreams import event
from tests.protocol.flows.serving import Served, snapshot
from tz_protocol.operations import Connect, Resolve
from tz_protocol.testing import reply
from tz_protocol.testing.worlds import ReceiveRequest, Send
from tz_protocol.types.settings import FetchSettings, Url

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
PICTURE_HOST, OTHER_HOST = "img.test", "cdn.test"
PUBLIC, OTHER = "93.184.216.34", "2606:4700::1111"
LINK = "https://img.test/cat.png?key=secret-canary"
PARAM = "messages[0].content[1].image_url.url"

ANSWER = {
    "output": {"message": {"role": "assistant", "content": [{"text": "A cat"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4},
}
BEDROCK: dict[str, Any] = {
    "type": "aws_bedrock",
    "model": "us.amazon.nova-lite-v1:0",
}


def bedrock(**options):
    """Return the steps of Converse's whole answer."""
    head = (("content-type", "application/json"),)
    return reply(200, head, json.dumps(ANSWER).encode(), **options)


def bedrock_stream():
    """Return the steps of ConverseStream's answer."""
    body = b"".join(
        [
            event("messageStart", {"role": "assistant"}),
            event(
                "contentBlockDelta",
                {"contentBlockIndex": 0, "delta": {"text": "A cat"}},
            ),
            event("contentBlockStop", {"contentBlockIndex": 0}),
            event("messageStop", {"stopReason": "end_turn"}),
            event("metadata", {"usage": ANSWER["usage"], "metrics": {}}),
        ]
    )
    head = (("content-type", "application/vnd.amazon.eventstream"),)
    return reply(200, head, body)


def picture(data=PNG, *, status=200, headers=(), **options):
    """Return the steps of a server with a picture, of which it says nonsense."""
    headers = (("content-type", "text/plain"), *headers)
    return reply(status, headers, data, **options)


def raw(data):
    """Return the steps of a server that sends just these bytes."""
    return (ReceiveRequest(), Send(data))


def image(url=LINK):
    """Return a part with a picture."""
    return {"type": "image_url", "image_url": {"url": url}}


def file(url, name=None):
    """Return a part with a document."""
    members = {"file_data": url} | ({} if name is None else {"filename": name})
    return {"type": "file", "file": members}


def asking(*parts, **members):
    """Return a chat request about *parts*."""
    content = [{"type": "text", "text": "What is this?"}, *(parts or (image(),))]
    return {"model": "m", "messages": [{"role": "user", "content": content}], **members}


def linked(
    *upstreams, pictures=(), types=None, fetch=None, answers=((PUBLIC,),), **more
):
    """Return a simulator with a gateway in it.

    Args:
        upstreams: For each provider the steps of its connections.
        pictures: Of the connections to ``img.test``, whose address is public.
        types: By provider's name, its settings; Bedrock unless something is said.
        fetch: ``FetchSettings``.
        answers: What ``img.test`` resolves to, one look-up after the other.
        more: For ``Served`` and ``snapshot``.
    """
    hosts = ("a.test", "b.test", "c.test")[: len(upstreams)]
    names = [host[0] for host in hosts]
    have = {
        name: {**BEDROCK, "url": Url("http", f"{name}.test", 80, "/")}
        if (types or {}).get(name) is None
        else (types or {})[name]
        for name in names
    }
    own = {key: more.pop(key) for key in ("seed", "splits") if key in more}
    config = snapshot(
        hosts, providers_have=have, fetch=fetch or FetchSettings(), **more
    )
    served = Served(*upstreams, config=config, **own)
    world = served.sim.world
    world.name(PICTURE_HOST, *answers)
    world.name(OTHER_HOST, [OTHER])
    if pictures:
        world.upstream(PUBLIC, 443, *pictures)
    return served


def fetches(served):
    """Return how often links were followed, by outcome."""
    text = served.gateway.metrics.render({})
    return {
        line.partition('outcome="')[2].partition('"')[0]: int(
            float(line.rpartition(" ")[2])
        )
        for line in text.splitlines()
        if line.startswith("tz_media_fetches_total{")
    }


def bodies(served, host):
    """Return the JSON of every request that a provider got."""
    return [
        msgspec.json.decode(message.body)
        for stream in served.sim.opened
        if stream.name.startswith(host)
        for message in stream.peer.messages
    ]


def connects(outcome):
    """Return where connections went that are not to providers, and their TLS names."""
    return [
        (op.host, op.tls.server_name if op.tls else None)
        for _, op in outcome.operations
        if isinstance(op, Connect) and not op.host.endswith(".test")
    ]


def resolved(outcome):
    """Return the names that were looked up."""
    return [op.host for _, op in outcome.operations if isinstance(op, Resolve)]


def inline(data=PNG):
    """Return *data* as Converse takes it."""
    return base64.b64encode(data).decode()

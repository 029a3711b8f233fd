"""Streams in the AWS event-stream framing, for the tests of who reads them."""

from __future__ import annotations

import json

import msgspec

from tz_protocol.wire.eventstream import HeaderType, encode_message


def event(name, payload, kind="event"):
    """Return one message; *payload* is JSON unless it is bytes."""
    typed = "exception" if kind == "exception" else "event"
    headers = [(f":{typed}-type", HeaderType.STRING, name)]
    if kind != "exception":
        content = "application/json"
        headers.append((":content-type", HeaderType.STRING, content))
    headers.append((":message-type", HeaderType.STRING, kind))
    data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    return encode_message(headers, data)


def exception(name, **members):
    """Return an exception of the service within a stream."""
    return event(name, members, "exception")


def error(code, message):
    """Return an error that the service's model does not know."""
    headers = [
        (":message-type", HeaderType.STRING, "error"),
        (":error-code", HeaderType.STRING, code),
        (":error-message", HeaderType.STRING, message),
    ]
    return encode_message(headers, b"")


def framed(lines: bytes) -> bytes:
    """Return a recording whose events were kept one a line, in its framing again."""
    out = []
    for line in lines.splitlines():
        if line.strip():
            ((name, payload),) = json.loads(line).items()
            out.append(event(name, payload))
    return b"".join(out)

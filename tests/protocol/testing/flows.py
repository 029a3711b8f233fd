"""A small flow with everything that a flow may do, for the tests of the Simulator."""

from __future__ import annotations

from tz_protocol.errors import OperationBroken, OperationTimeout
from tz_protocol.machine import Context
from tz_protocol.notices import Close, RecordNotice
from tz_protocol.operations import (
    Connect,
    Flow,
    Handle,
    Race,
    Read,
    ReceiveBody,
    SendBody,
    SendHead,
    Sleep,
    WriteRead,
)
from tz_protocol.testing import http_request, take_message
from tz_protocol.types.http import ResponseHead

HOSTS = ("one.test", "two.test")


def fetch(context: Context, host: str, deadline: float) -> Flow[bytes]:
    """Return the body that *host* answers with."""
    handle: Handle = yield from Connect(deadline, host, 80)
    try:
        data = yield from WriteRead(deadline, handle, http_request())
        received = data
        while True:
            try:
                found = take_message(received, is_response=True, is_eof=not data)
            except AssertionError:
                raise OperationBroken("garbled") from None
            if found is not None:
                return found[0].body
            if not data:
                raise OperationBroken("cut")
            data = yield from Read(deadline, handle)
            received += data
    finally:
        context.tell(Close(handle))


def serve(context: Context, total: float = 10.0) -> Flow[str]:
    """Receive a body, ask the hosts in order, answer, and leave one record."""
    deadline = context.now + total
    outcome = "lost"
    try:
        asked = b""
        while piece := (yield from ReceiveBody(deadline)):
            asked += piece
        answer = None
        for host in HOSTS:
            try:
                index, value = yield from Race(
                    deadline,
                    (fetch(context, host, deadline), Sleep(context.now + 4).__iter__()),
                )
            except (OperationBroken, OperationTimeout):
                continue
            if index == 0:
                answer = value
                break
        status = 502 if answer is None else 200
        yield from SendHead(deadline, ResponseHead(status))
        yield from SendBody(deadline, asked + (answer or b""), end=True)
        outcome = f"answered {status}"
    finally:
        context.tell(RecordNotice(outcome))
    return outcome

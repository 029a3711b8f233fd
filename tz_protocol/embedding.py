"""The gateway inside somebody else's application: everything that does not wait.

The one rule: the operations of a handler are interpreted here, as ``flows.connection``
does for a byte stream, so that a transport's ``embed`` module has no protocol of its
own. An ASGI server is a handle whose chunks are messages: ``Read`` returns what
``receive`` returns, ``Write`` gives to ``send``. A caller in the same process
(:class:`LocalCall`) has its request in memory and takes the answer by pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar, cast
from urllib.parse import quote
from uuid import UUID

from tz_protocol.cli.services import supervised
from tz_protocol.errors import (
    ClientBroken,
    ClientTimeout,
    OperationBroken,
    OperationError,
    OperationTimeout,
)
from tz_protocol.gateway import Gateway
from tz_protocol.operations import (
    AbortBody,
    All,
    Flow,
    Handle,
    Operation,
    OperationType,
    Race,
    Read,
    ReceiveBody,
    SendBody,
    SendHead,
    Write,
)
from tz_protocol.types.http import Headers, RequestHead, ResponseHead

__all__ = ["LocalCall", "asgi_call", "attended", "closing", "uuid7"]

T = TypeVar("T")

Message = Mapping[str, Any]
"""What ASGI calls an event."""

RawHeaders = list[tuple[bytes, bytes]]

_SECONDS = 30.0
"""For a server's ``lifespan`` to take an answer."""


def uuid7(wall_clock: Callable[[], float], noise: Callable[[int], bytes]) -> str:
    """Return a UUIDv7 of now (RFC 9562, section 5.7).

    Args:
        wall_clock: Returns Unix seconds.
        noise: Returns that many random bytes.
    """
    value = (int(wall_clock() * 1000) << 80) | int.from_bytes(noise(10))
    value &= ~(0xF << 76 | 0x3 << 62)
    return str(UUID(int=value | 0x7 << 76 | 0x2 << 62))


def attended(gateway: Gateway) -> Flow[None]:
    """Run the gateway's services until cancelled; then close what it kept open."""
    try:
        yield from All(math.inf, supervised(gateway))
    finally:
        gateway.close_idle()


def closing(gateway: Gateway) -> Flow[None]:
    """Close what the gateway kept open."""
    gateway.close_idle()
    yield from ()


# -- any caller -----------------------------------------------------------------


class _Call:
    """One request, and how its caller is read from and written to.

    Args:
        gateway: Whose handler answers.
        head: Of the request.
    """

    def __init__(self, gateway: Gateway, head: RequestHead) -> None:
        self._gateway = gateway
        self._request = head
        self.head: ResponseHead | None = None
        """Of the answer; it goes out with the first piece of the body."""
        self.is_complete = False
        """True once the last piece of the answer is there."""

    def run(self) -> Flow[None]:
        """Serve the request; a bug is told, and answered if nothing has been yet."""
        try:
            yield from self._interpret(self._gateway.handle(self._request))
        except OperationError:
            return  # the caller failed, and nobody is left to be told
        except Exception as error:
            self._gateway.bug(error)
            if self.head is None:
                yield from self._interpret(self._gateway.apologise(self._request))

    def _interpret(self, flow: Flow[T]) -> Flow[T]:
        """Step a handler, or an arm of a race of its; one of them at a time sends."""
        step: Callable[[], Operation[Any]] = partial(next, flow)
        while True:
            try:
                operation = step()
            except StopIteration as stop:
                result: T = stop.value
                return result
            finally:
                del step  # the traceback of its error holds this frame: a cycle
            perform = _PERFORM.get(type(operation))
            if isinstance(operation, (Race, All)):
                arms = tuple(self._interpret(arm) for arm in operation.flows)
                operation = type(operation)(operation.deadline, arms)
            try:
                if perform is None:
                    value = yield operation
                else:
                    value = yield from perform(self, operation)
            except BaseException as error:  # the handler's, whatever it is
                step = partial(flow.throw, error)
            else:
                step = partial(flow.send, value)

    def _receive_body(self, operation: ReceiveBody) -> Flow[bytes]:
        raise NotImplementedError

    def _send_head(self, operation: SendHead) -> Flow[None]:
        self.head = operation.head
        yield from ()

    def _send_body(self, operation: SendBody) -> Flow[None]:
        raise NotImplementedError

    def _abort_body(self, operation: AbortBody) -> Flow[None]:
        """Leave the answer incomplete, which is what the caller sees."""
        yield from ()


_PERFORM: dict[OperationType, Callable[[Any, Any], Flow[Any]]] = {
    AbortBody: lambda call, operation: call._abort_body(operation),
    ReceiveBody: lambda call, operation: call._receive_body(operation),
    SendBody: lambda call, operation: call._send_body(operation),
    SendHead: lambda call, operation: call._send_head(operation),
}


# -- a caller in the same process -----------------------------------------------


class LocalCall(_Call):
    """A request that is all there; drive :meth:`run` until :meth:`has_news`.

    Args:
        gateway: Whose handler answers.
        method: As sent.
        target: Path and query, percent-encoded.
        headers: In order.
        body: Of the request.
    """

    def __init__(
        self,
        gateway: Gateway,
        method: str,
        target: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
    ) -> None:
        super().__init__(gateway, _head(method, target, headers))
        self._body = body
        self._pieces: list[bytes] = []

    def has_news(self) -> bool:
        """Return True if there is something to take, or nothing more will come."""
        return bool(self._pieces) or self.is_complete

    def take(self) -> bytes:
        """Return what has come of the answer since the last call."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def raw_headers(self) -> RawHeaders:
        """Return the answer's headers as raw pairs."""
        return [] if self.head is None else _raw(self.head.headers)

    def _receive_body(self, operation: ReceiveBody) -> Flow[bytes]:
        body, self._body = self._body, b""
        yield from ()
        return body

    def _send_body(self, operation: SendBody) -> Flow[None]:
        if operation.data:
            self._pieces.append(operation.data)
        self.is_complete = operation.end
        yield from ()


def _head(
    method: str, target: bytes, headers: Iterable[tuple[bytes, bytes]]
) -> RequestHead:
    path, _, query = target.decode("latin-1").partition("?")
    lines = tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in headers)
    lower = tuple((name.lower(), value) for name, value in lines)
    return RequestHead(
        method=method, path=path, query=query, headers=lower, lines=lines
    )


def _raw(headers: Headers) -> RawHeaders:
    return [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers]


# -- ASGI -----------------------------------------------------------------------


def asgi_call(gateway: Gateway, scope: Mapping[str, Any], server: Handle) -> Flow[None]:
    """Return the flow of one call of an ASGI application.

    Tell its machine ``ClientGone`` when ``http.disconnect`` comes, and let the message
    be read all the same.

    Args:
        gateway: Whose handler answers.
        scope: The call's.
        server: A handle of messages.

    Raises:
        ValueError: The scope is neither ``http`` nor ``lifespan``.
    """
    if scope["type"] == "http":
        return _AsgiCall(gateway, scope, server).run()
    if scope["type"] == "lifespan":
        return _lifespan(gateway, server)
    message = f"this application serves http, not {scope['type']}"
    raise ValueError(message)


class _AsgiCall(_Call):
    """One ``http`` scope."""

    def __init__(
        self, gateway: Gateway, scope: Mapping[str, Any], server: Handle
    ) -> None:
        super().__init__(gateway, _asgi_head(scope))
        self._server = server
        self._has_more = True
        self._has_begun = False

    def _receive_body(self, operation: ReceiveBody) -> Flow[bytes]:
        while self._has_more:
            try:
                message = yield from _receive(operation.deadline, self._server)
            except OperationTimeout:
                raise ClientTimeout("The request's body did not come in time.")
            except OperationBroken:
                raise ClientBroken("the client's connection was lost")
            if message["type"] == "http.disconnect":
                raise ClientBroken("the client left before its body's end")
            self._has_more = message.get("more_body", False)
            if body := message.get("body", b""):
                return bytes(body)
        return b""

    def _send_body(self, operation: SendBody) -> Flow[None]:
        for message in self._messages(operation):
            try:
                yield from _send(operation.deadline, self._server, message)
            except OperationTimeout:
                raise ClientTimeout("The client does not read its answer.")
            except OperationBroken:
                raise ClientBroken("the client's connection was lost")
        self.is_complete = operation.end

    def _messages(self, operation: SendBody) -> Iterator[Message]:
        if not self._has_begun and self.head is not None:
            self._has_begun = True
            yield {
                "type": "http.response.start",
                "status": self.head.status,
                "headers": _raw(self.head.headers),
            }
        yield {
            "type": "http.response.body",
            "body": operation.data,
            "more_body": not operation.end,
        }


def _asgi_head(scope: Mapping[str, Any]) -> RequestHead:
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    path = path.removeprefix(scope.get("root_path", "").encode())
    target = path + b"?" + scope.get("query_string", b"")
    return _head(scope["method"], target, scope["headers"])


def _lifespan(gateway: Gateway, server: Handle) -> Flow[None]:
    """Run the services between startup and shutdown."""
    yield from _receive(math.inf, server)
    yield from _answer(gateway, server, "lifespan.startup.complete")
    flows = (attended(gateway), _until_shutdown(gateway, server))
    yield from Race(math.inf, flows)
    yield from _answer(gateway, server, "lifespan.shutdown.complete")


def _until_shutdown(gateway: Gateway, server: Handle) -> Flow[None]:
    """Wait for the end, and bring the records to safety while the services run."""
    yield from _receive(math.inf, server)
    goodbye = gateway.snapshot.gateway.server.goodbye
    yield from gateway.stores.finish(gateway.context.now + goodbye)


def _answer(gateway: Gateway, server: Handle, kind: str) -> Flow[None]:
    deadline = gateway.context.now + _SECONDS
    yield from _send(deadline, server, {"type": kind})


def _receive(deadline: float, server: Handle) -> Flow[Message]:
    return cast("Message", (yield from Read(deadline, server)))


def _send(deadline: float, server: Handle, message: Message) -> Flow[None]:
    yield from Write(deadline, server, cast("bytes", message))

"""One client's byte stream: many exchanges, one after the other.

The one rule: this flow calls a handler at each request's head and steps what it
returns, and knows nothing of what is asked or answered. Keep-alive, pipelining, the
meaning of the driver's events, the drain and the end of a connection are decided here.
The handler's own four operations are ``clientstream``'s, every other one is forwarded
to the driver, and what is legal HTTP is the codec's.

While a handler runs, errors reach it as exceptions of the operation that it asked for:
``ClientTimeout`` and ``ClientBroken``, ``TooLarge``, ``InvalidRequest`` (the body is
malformed), and ``Interrupted`` for an event of the driver. What it lets escape is
answered here once, as long as nothing has been sent.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from tz_protocol.errors import (
    ClientError,
    ClientTimeout,
    GatewayError,
    Interrupted,
    InvalidRequest,
    OperationBroken,
    OperationTimeout,
    Overloaded,
    RemoteProtocolError,
)
from tz_protocol.flows.clientstream import (
    PERFORM,
    ClientStream,
    ConnectionSettings,
    refusal_of,
)
from tz_protocol.machine import ClientGone, Context, Drain, Event, Shutdown
from tz_protocol.notices import LogLine
from tz_protocol.operations import All, Flow, Handle, Handler, Race, Read, SendHead
from tz_protocol.types.http import RequestHead, ResponseHead

__all__ = ["Connection", "ConnectionSettings", "RenderError", "describe_bug"]

RenderError = Callable[[GatewayError, RequestHead | None], tuple[ResponseHead, bytes]]
"""(error, head of the request or None if there was none) -> the whole answer."""

TRACE_LIMIT = 20
"""Frames of a bug that are logged, the innermost ones."""


class _Phase(enum.Enum):
    IDLE = "between two requests"
    HEAD = "within a head"
    SERVING = "a handler runs"
    ENDING = "last words"


class Connection:
    """Serves one client; drive :meth:`run`, with :meth:`tell` as the listener.

    Args:
        client: The client's stream.
        handler: Called at each request's head.
        context: Shared by every machine of the process.
        settings: Limits and deadlines.
        wall_clock: Unix seconds, for the Date header.
        render_error: Makes the answer to an error that no handler could answer; None
            answers in plain text.
        on_bug: Told of an unexpected exception of a handler; None logs it.
        peer: The client's address.
    """

    __slots__ = (
        "_client",
        "_context",
        "_gone",
        "_handler",
        "_on_bug",
        "_pending",
        "_phase",
        "_render_error",
        "_settings",
        "_stream",
    )

    def __init__(
        self,
        client: Handle,
        handler: Handler,
        *,
        context: Context,
        settings: ConnectionSettings,
        wall_clock: Callable[[], float],
        render_error: RenderError | None = None,
        on_bug: Callable[[BaseException], None] | None = None,
        peer: str = "",
    ) -> None:
        self._client = client
        self._handler = handler
        self._context = context
        self._settings = settings
        self._render_error = render_error or _plain_error
        self._on_bug = on_bug or self._log_bug
        self._stream = ClientStream(
            client, context=context, settings=settings, wall_clock=wall_clock, peer=peer
        )
        self._phase = _Phase.IDLE
        self._pending: Event | None = None
        """Happened when the outstanding operation could not be abandoned."""
        self._gone: Event | None = None
        """The client's end, if it was seen before what came in front was read."""

    # -- events -------------------------------------------------------------------

    def tell(self, event: Event) -> bool:
        """Return whether *event* ends the outstanding operation: the listener.

        A write to the client is never abandoned for a goodbye, since half of it may be
        on its way, and a read of the client sees its end by itself: there the event
        waits until the operation is done.
        """
        if isinstance(event, ClientGone):
            return self._client_gone(event)
        stream = self._stream
        stream.is_draining = True
        if isinstance(event, Drain):
            return self._phase is _Phase.IDLE and not stream.codec.has_buffered
        if self._phase is not _Phase.SERVING:
            return self._phase is not _Phase.ENDING
        if stream.is_writing:
            self._pending = event
            return False
        return True

    def _client_gone(self, event: Event) -> bool:
        if self._settings.half_close == "answer":
            return False
        if self._phase is _Phase.SERVING:
            if self._stream.is_reading:
                self._pending = event
                return False
            return True
        if self._phase is _Phase.ENDING:
            return True
        # A read between two requests sees the end by itself, after what came before;
        # a request among that is not waited for.
        self._gone = event
        return False

    # -- the sequence -------------------------------------------------------------

    def run(self) -> Flow[None]:
        """Serve requests until the stream ends; the driver then closes it."""
        try:
            while (head := (yield from self._receive_head())) is not None:
                self._stream.begin(head)
                if not (yield from self._serve(head)):
                    return
        except (OperationTimeout, OperationBroken, Interrupted):
            # Last words that nobody took, or an event that ends it: all is said.
            return

    def _receive_head(self) -> Flow[RequestHead | None]:
        """Return the next request's head; None if there is none and all is said."""
        stream, timeouts = self._stream, self._settings.timeouts
        codec = stream.codec
        self._phase = _Phase.HEAD if codec.has_buffered else _Phase.IDLE
        idle_deadline = self._context.now + timeouts.idle
        head_deadline = self._context.now + timeouts.head
        while True:
            try:
                event = codec.next_event()
            except RemoteProtocolError as error:
                if error.code != "incomplete":
                    yield from self._refuse(refusal_of(error), None)
                return None
            if isinstance(event, RequestHead):
                return event
            is_idle = not codec.has_buffered
            if codec.is_at_eof or (stream.is_draining and is_idle):
                return None
            deadline = idle_deadline if is_idle else head_deadline
            try:
                data = yield from Read(deadline, self._client)
            except OperationTimeout:
                if not is_idle:
                    message = "The request's head did not come in time."
                    yield from self._refuse(_request_timeout(message), None)
                return None
            if is_idle:
                self._phase = _Phase.HEAD
                head_deadline = self._context.now + timeouts.head
            if data:
                codec.receive_data(data)
            else:
                codec.receive_eof()

    def _serve(self, head: RequestHead) -> Flow[bool]:
        """Run the handler; returns whether another request may follow."""
        self._phase = _Phase.SERVING
        try:
            yield from self._interpret(self._handler(head))
        except ClientTimeout as error:
            if not self._stream.has_answered:
                yield from self._refuse_once(_request_timeout(str(error)), head)
            return False
        except ClientError:
            return False
        except GatewayError as error:
            yield from self._refuse_once(error, head)
            return False
        except Interrupted as interrupt:
            if not isinstance(interrupt.event, Shutdown):
                raise
            message = "The gateway is shutting down. Try again."
            goodbye = Overloaded(message, code="gateway_shutdown", retry_after=1.0)
            yield from self._refuse_once(goodbye, head)
            return False
        except Exception as error:
            self._on_bug(error)
            yield from self._refuse_once(_internal_error(), head)
            return False
        return (yield from self._finish(head))

    def _interpret(self, flow: Flow[None]) -> Flow[None]:
        """Step the handler; perform its four operations, forward all others."""
        stream = self._stream
        value: Any = None
        error: BaseException | None = None
        send, throw = flow.send, flow.throw
        while True:
            try:
                if error is None:
                    operation = send(value)
                else:
                    raised, error = error, None
                    try:
                        operation = throw(raised)
                    finally:
                        del raised  # its traceback holds this frame: a cycle
            except StopIteration:
                return
            if (pending := self._take_pending()) is not None:
                error = Interrupted(pending)
                continue
            perform = PERFORM.get(type(operation))
            try:
                if perform is not None:
                    value = yield from perform(stream, operation)
                elif isinstance(operation, SendHead):
                    stream.send_head(operation.head)
                    value = None
                elif self._gone is not None:
                    gone, self._gone = self._gone, None
                    error = Interrupted(gone)
                elif isinstance(operation, (Race, All)):
                    value = yield self._with_arms(operation)
                    if (pending := self._take_pending()) is not None:
                        # It may have ended for that: what it came to is no result.
                        error = Interrupted(pending)
                else:
                    value = yield operation
            except BaseException as thrown:  # the handler's, whatever it is
                error = thrown

    def _take_pending(self) -> Event | None:
        pending, self._pending = self._pending, None
        return pending

    def _with_arms(self, operation: Race | All) -> Race | All:
        """Return *operation* with arms that may ask for what a handler may."""
        arms = tuple(self._interpret_arm(flow) for flow in operation.flows)
        return type(operation)(operation.deadline, arms)

    def _interpret_arm(self, flow: Flow[Any]) -> Flow[Any]:
        """Step one arm of a handler's race; one arm at a time may send.

        An event that had to wait for the arm's write ends the arm when that is done,
        and with it the race: then :meth:`_interpret` tells the handler.
        """
        stream = self._stream
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                if error is None:
                    operation = flow.send(value)
                else:
                    raised, error = error, None
                    try:
                        operation = flow.throw(raised)
                    finally:
                        del raised  # its traceback holds this frame: a cycle
            except StopIteration as stop:
                return stop.value
            perform = PERFORM.get(type(operation))
            try:
                if perform is not None:
                    value = yield from perform(stream, operation)
                    if self._pending is not None:
                        flow.close()
                        return None
                elif isinstance(operation, SendHead):
                    stream.send_head(operation.head)
                    value = None
                elif isinstance(operation, (Race, All)):
                    value = yield self._with_arms(operation)
                else:
                    value = yield operation
            except BaseException as thrown:  # the arm's, whatever it is
                error = thrown

    def _finish(self, head: RequestHead) -> Flow[bool]:
        """Look at what a handler that returned has left behind."""
        stream = self._stream
        if not stream.has_answered:
            self._on_bug(RuntimeError("a handler returned without an answer"))
            yield from self._refuse(_internal_error(), head)
            return False
        if not (stream.is_ended or stream.is_aborted):
            stream.break_off()
        if stream.is_aborted or self._pending is not None:
            return False
        if stream.codec.can_reuse:
            stream.codec.start_next_cycle()
            return True
        if not stream.is_request_over():
            self._phase = _Phase.ENDING
            yield from stream.linger()
        return False

    # -- the end ------------------------------------------------------------------

    def _refuse_once(self, error: GatewayError, head: RequestHead) -> Flow[None]:
        """Answer with *error* if nothing has been answered, else break off."""
        stream = self._stream
        if stream.has_answered:
            stream.break_off()
        elif not stream.is_lost:
            yield from self._refuse(error, head)

    def _refuse(self, error: GatewayError, head: RequestHead | None) -> Flow[None]:
        """Send *error* as the last answer of this connection."""
        self._phase = _Phase.ENDING
        answer, body = self._render_error(error, head)
        yield from self._stream.send_last(answer, body)

    def _log_bug(self, error: BaseException) -> None:
        self._context.tell(describe_bug(error))


def describe_bug(error: BaseException) -> LogLine:
    """Return the log line for an unexpected exception: its kind and its way.

    Its message is left out, since it may hold what a caller sent. Frames are named
    without their source, which would have to be read from files.
    """
    frames: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_qualname}")
        trace = trace.tb_next
    fields = {"kind": type(error).__name__, "trace": frames[-TRACE_LIMIT:]}
    return LogLine("error", "an unexpected exception ended a request", fields)


def _request_timeout(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="request_timeout", status=408)


def _internal_error() -> GatewayError:
    message = "The gateway made a mistake. It has been logged."
    return GatewayError(message, code="internal_error")


def _plain_error(
    error: GatewayError, head: RequestHead | None
) -> tuple[ResponseHead, bytes]:
    del head
    headers = (("content-type", "text/plain; charset=utf-8"), *error.headers)
    return ResponseHead(error.status, headers), error.message.encode()

"""What is behind one link of a caller's: each hop checked, pinned and bounded.

The one rule: no byte goes to an address that was not looked at. A name is resolved
once for each hop, and the connection goes to what was found then, whatever the name
means a moment later; TLS still proves the name. Redirects are followed, since links to
pictures redirect (to a CDN, to a signed address), but each is a link like the first.
Nothing of the caller's or of ours is sent but the address and a ``user-agent``.

What goes wrong is an :class:`Unfetched`, whose reason names no address and no place
that the caller did not write.
"""

from __future__ import annotations

from collections.abc import Callable

from tz_protocol.errors import (
    OperationBroken,
    OperationTimeout,
    RemoteProtocolError,
)
from tz_protocol.machine import Context
from tz_protocol.notices import Close
from tz_protocol.operations import (
    Connect,
    Flow,
    Handle,
    HttpCall,
    Read,
    Resolve,
    TlsOptions,
    WriteRead,
)
from tz_protocol.routing.reach import (
    Unfollowable,
    names_public_host,
    nowhere,
    onward,
    reachable,
    target_of,
)
from tz_protocol.types.http import Headers, ResponseHead
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import FetchSettings, Limits, Url
from tz_protocol.wire.http1 import BodyChunk, ClientCodec, EndOfBody

__all__ = ["Download", "Unfetched"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_ADDRESSES = 4
"""Addresses of a name that are tried, one after the other."""

_PATIENCE = 2.0
"""Seconds for an address if there is another."""


class Unfetched(Exception):
    """What is behind a link could not be had.

    Args:
        outcome: In one word, for the metric.
        reason: To be read after the link's name and a colon.
    """

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


class Download:
    """Gets what is behind one link; :meth:`run` is the flow.

    Args:
        link: As the caller wrote it.
        settings: What may be followed.
        limits: Of heads.
        user_agent: Of this gateway.
        context: For cleanup and the time.
        take: Called with the size of each piece before it is kept; may raise.
    """

    __slots__ = (
        "_context",
        "_deadline",
        "_limits",
        "_link",
        "_settings",
        "_take",
        "_user_agent",
    )

    def __init__(
        self,
        link: str,
        settings: FetchSettings,
        limits: Limits,
        *,
        user_agent: str,
        context: Context,
        take: Callable[[int], None],
    ) -> None:
        self._link = link
        self._settings = settings
        self._limits = limits
        self._user_agent = user_agent
        self._context = context
        self._take = take
        self._deadline = 0.0

    def run(self, deadline: float) -> Flow[bytes]:
        """Return the bytes, which are at least one.

        Raises:
            Unfetched: They cannot be had.
        """
        self._deadline = deadline
        try:
            return (yield from self._follow())
        except Unfollowable as error:
            raise Unfetched("refused", error.reason) from None
        except OperationTimeout:
            raise Unfetched("timeout", "it did not answer in time") from None
        except OperationBroken:
            raise Unfetched("unreachable", "its server cannot be reached") from None
        except RemoteProtocolError:
            raise Unfetched("broken", "its server's answer was cut or broken") from None

    def _follow(self) -> Flow[bytes]:
        settings = self._settings
        url = target_of(self._link, settings)
        for hops_left in range(settings.redirects, -1, -1):
            answer = yield from self._ask(url)
            try:
                head = answer.head
                if head.status == 200:
                    return (yield from self._read(answer))
                if head.status not in _REDIRECTS:
                    reason = f"its server answered with the status {head.status}"
                    raise Unfetched("status", reason)
                location = head.get("location")
                if location is None:
                    raise Unfetched("broken", "its server's redirect leads nowhere")
                if hops_left:
                    url = onward(url, location, settings)
            finally:
                answer.close()
        raise Unfetched("redirects", "it redirects too often")

    def _read(self, answer: _Answer) -> Flow[bytes]:
        head, limit = answer.head, self._settings.link_bytes
        encoding = (head.get("content-encoding") or "identity").strip().lower()
        if encoding != "identity":
            raise Unfetched("broken", "its server sends it compressed")
        size = head.get("content-length")
        if size is not None and size.isdecimal() and int(size) > limit:
            raise _too_large(limit)
        pieces: list[bytes] = []
        total = 0
        while piece := (yield from answer.read(self._deadline)):
            total += len(piece)
            if total > limit:
                raise _too_large(limit)
            self._take(len(piece))
            pieces.append(piece)
        if not total:
            raise Unfetched("type", "there is nothing behind it")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # -- one hop ------------------------------------------------------------------

    def _ask(self, url: Url) -> Flow[_Answer]:
        """Return the answer of *url*, its head read; the caller closes it."""
        headers: Headers = (
            ("accept", "*/*"),
            ("accept-encoding", "identity"),
            ("user-agent", self._user_agent),
        )
        target = f"{url.path}?{url.query}" if url.query else url.path
        proxy = self._settings.proxies.get(url.scheme)
        if proxy is not None:
            return (yield from self._ask_proxy(url, target, headers, proxy))
        handle = yield from self._connect(url)
        answer = _DirectAnswer(handle, ClientCodec(self._limits), self._context)
        try:
            headers = (("host", url.authority), *headers)
            yield from answer.ask(target, headers, self._deadline)
        except BaseException:
            answer.close()
            raise
        return answer

    def _connect(self, url: Url) -> Flow[Handle]:
        """Resolve once, look at every address, and connect to one of them."""
        settings, deadline = self._settings, self._deadline
        try:
            found = yield from Resolve(deadline, url.host, url.port)
        except OperationBroken:
            raise nowhere() from None
        addresses = reachable(found, settings)[:_ADDRESSES]
        tls = None
        if url.scheme == "https":
            tls = TlsOptions(url.host, ca_file=settings.ca_file)
        for address in addresses[:-1]:
            patience = min(deadline, self._context.now + _PATIENCE)
            try:
                return (yield from Connect(patience, address, url.port, tls))
            except OperationTimeout:
                if patience == deadline:
                    raise
            except OperationBroken:
                continue
        return (yield from Connect(deadline, addresses[-1], url.port, tls))

    def _ask_proxy(
        self, url: Url, target: str, headers: Headers, proxy: Secret
    ) -> Flow[_Answer]:
        """Ask by way of the proxy, which resolves and connects as it sees fit."""
        settings = self._settings
        if not settings.through_proxy or not proxy.reveal():
            raise Unfollowable("this gateway does not follow links through its proxy")
        if not settings.allow_private and not names_public_host(url.host):
            raise nowhere()
        tls = None
        if url.scheme == "https":
            tls = TlsOptions(url.host, ca_file=settings.ca_file)
        status, answered, handle = yield from HttpCall(
            self._deadline,
            "GET",
            f"{url.scheme}://{url.authority}{target}",
            headers,
            b"",
            proxy.reveal(),
            tls,
        )
        return _Answer(ResponseHead(status, answered), handle, self._context)


class _Answer:
    """An answer whose framing somebody else has taken off."""

    __slots__ = ("_context", "_handle", "head")

    def __init__(self, head: ResponseHead, handle: Handle, context: Context) -> None:
        self.head = head
        self._handle = handle
        self._context = context

    def read(self, deadline: float) -> Flow[bytes]:
        """Return the next piece of the body, ``b""`` at its end."""
        return (yield from Read(deadline, self._handle))

    def close(self) -> None:
        """Break the connection off: there is one for each hop."""
        self._context.tell(Close(self._handle))


class _DirectAnswer(_Answer):
    """An answer over a connection of our own."""

    __slots__ = ("_codec",)

    def __init__(self, handle: Handle, codec: ClientCodec, context: Context) -> None:
        super().__init__(ResponseHead(0), handle, context)
        self._codec = codec

    def ask(self, target: str, headers: Headers, deadline: float) -> Flow[None]:
        """Send the request and read until the head is there."""
        codec = self._codec
        wire = codec.send_request("GET", target, headers, b"")
        data = yield from WriteRead(deadline, self._handle, wire)
        self._feed(data)
        while not isinstance(event := codec.next_event(), ResponseHead):
            self._feed((yield from Read(deadline, self._handle)))
        self.head = event

    def read(self, deadline: float) -> Flow[bytes]:
        while True:
            event = self._codec.next_event()
            if isinstance(event, BodyChunk):
                return event.data
            if isinstance(event, EndOfBody):
                return b""
            self._feed((yield from Read(deadline, self._handle)))

    def _feed(self, data: bytes) -> None:
        if data:
            self._codec.receive_data(data)
        else:
            self._codec.receive_eof()


def _too_large(limit: int) -> Unfetched:
    return Unfetched("too_large", f"it is larger than {limit} bytes")

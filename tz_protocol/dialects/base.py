"""What a dialect is: one wire format, both directions, as a row of functions.

The one rule: a dialect converts and never decides. It knows no provider by name, no
route, no retry; what deviates from vendor to vendor comes in as data (``Target``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from tz_protocol.dialects.parameters import Handling
from tz_protocol.errors import GatewayError
from tz_protocol.types.conversation import Inline
from tz_protocol.types.http import HttpRequest, RequestHead, ResponseHead
from tz_protocol.types.request import Identity, ParsedRequest, Target
from tz_protocol.types.stream import StreamEvent, StreamPart
from tz_protocol.types.usage import Usage

__all__ = [
    "Answer",
    "Decoder",
    "Dialect",
    "Encoder",
    "Link",
    "Links",
    "Losses",
    "Response",
]

P = TypeVar("P", bound=ParsedRequest)
R = TypeVar("R", bound="Response")

Losses = tuple[str, ...]
"""Names of the parameters that a rendering dropped, sorted."""

Answer = tuple[ResponseHead, bytes]
"""A whole response to a client: head (with content-type) and body."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link in a client's request, to a picture or to a document."""

    url: str
    """As the client wrote it."""
    path: str
    """Of the member that holds it; no two links of a request have the same."""
    is_image: bool
    """True: nothing but a picture will do."""
    name: str = ""
    """Of the file, if the client said it."""


@dataclass(frozen=True, slots=True)
class Links:
    """What to do about links for a vendor that does not follow them."""

    find: Callable[[Any], Sequence[Link]]
    """(request) -> those that the vendor does not follow. Raises ``InvalidRequest``."""
    place: Callable[[Any, Mapping[str, Inline]], Any]
    """(request, by path what is behind each) -> a request without these links."""


class Response(msgspec.Struct, kw_only=True):
    """What every whole, decoded answer of a provider has."""

    usage: Usage | None = None
    """None if the provider did not say."""


class Decoder(Protocol):
    """Bytes of a provider's stream -> events. Feed, then drain, then feed again."""

    @property
    def is_finished(self) -> bool:
        """True once every choice has its finish reason: only usage and the terminator
        may follow. False for a format in which nothing says so before its end."""

    def receive_data(self, data: bytes) -> None:
        """Take bytes as they came; call ``next_event`` until it returns None."""

    def receive_eof(self) -> None:
        """Take the end of the stream; call ``next_event`` until it returns None.

        If the stream was not complete the last ``next_event`` returns
        ``StreamFailed``; if it was (a finish reason, and only the terminator was
        missing) it returns ``StreamDone``.
        """

    def next_event(self) -> StreamEvent | None:
        """Return the next event, or None when more bytes are needed.

        After ``StreamDone`` or ``StreamFailed`` it returns None for ever. Never
        raises for anything that a provider can send.
        """


class Encoder(Protocol):
    """Events -> bytes of the client's stream."""

    content_type: str
    """Value of the response's ``content-type``; read when the parts up to the first
    content have been encoded, since the provider may have a say in it."""

    def encode(self, part: StreamPart) -> bytes:
        """Return the client's bytes for *part*; may be empty."""

    def finish(self, usage: Usage | None) -> bytes:
        """Return the bytes that complete the stream, the terminator included."""

    def fail(self, error: GatewayError) -> bytes | None:
        """Return the in-band error, without a terminator.

        None if this format has none: the body is then broken off.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect(Generic[P, R]):
    """One wire format, both directions; the modules beside this one hold the rows."""

    name: str
    """Two candidates with the same name pass bytes through to each other."""
    parse_request: Callable[[bytes, RequestHead], P]
    """A client's whole body -> request. Raises ``InvalidRequest`` and
    ``UnsupportedMediaType``."""
    render_request: Callable[[P, Target], tuple[HttpRequest, Losses]]
    """-> what goes to a provider, path relative to its base. Raises
    ``InvalidRequest`` if the request cannot be expressed there."""
    parse_response: Callable[[ResponseHead, bytes], R]
    """A provider's whole 2xx answer -> response. Raises ``UpstreamGarbled``, or
    ``UpstreamRefused`` for an error in a 2xx body."""
    render_response: Callable[[P, R, Identity], Answer]
    """-> what the client gets."""
    parse_error: Callable[[ResponseHead, bytes], Exception]
    """A provider's answer that is not 2xx -> the ``UpstreamError`` to raise."""
    render_error: Callable[[GatewayError, bool], Answer]
    """-> the client's error body; True adds the attempts (debug)."""
    stream_decoder: Callable[[ResponseHead, int], Decoder] | None = None
    """(head, bytes that one event may hold) -> what reads the answer. None if the
    format has no streams."""
    stream_encoder: Callable[[P, Identity], Encoder] | None = None
    """None if the format has no streams."""
    is_always_stream: Callable[[P], bool] | None = None
    """True for requests whose answer is relayed piece by piece even though the client
    did not ask for events (audio bytes). None: never."""
    table: Mapping[str, Handling] | None = None
    """What becomes of each parameter, what is not in it being dropped and named. None:
    everything passes as the client wrote it, but for the vendor's deviations."""
    join: Callable[[Sequence[R]], R] | None = None
    """The answers to a request and its ``others`` -> the one answer. None: they are
    completions, and each is a choice of one."""
    adapted: Callable[[frozenset[str]], Dialect[P, R]] | None = None
    """(quirks) -> this format as a vendor that has them speaks it. None: nobody is
    known to deviate."""
    links: Links | None = None
    """What is behind these is fetched before a request is rendered. None: whoever gets
    the request follows all links by itself, or the format has none."""


AnyDialect = Dialect[Any, Any]

"""HTTP heads as the core sees them: values, already checked by the codec."""

from __future__ import annotations

import msgspec

__all__ = ["Headers", "HttpRequest", "RequestHead", "ResponseHead"]

Headers = tuple[tuple[str, str], ...]
"""Pairs of lower-case name and value, latin-1, in the order received or to be sent."""


class RequestHead(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a client's request."""

    method: str
    """As sent; methods are case-sensitive."""
    path: str
    """Raw path in origin form, still percent-encoded, without the query."""
    query: str = ""
    """Raw query without the question mark."""
    headers: Headers = ()
    """Lower-case names."""
    lines: Headers = ()
    """The same pairs with the names as the client spelled them, if known."""
    version: str = "1.1"
    """``1.0`` or ``1.1``."""
    peer: str = ""
    """The client's address, for the log; not trusted for anything."""

    def get(self, name: str) -> str | None:
        """Return the first value of the header with this lower-case *name*."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def get_all(self, name: str) -> list[str]:
        """Return every value of the header with this lower-case *name*."""
        return [value for key, value in self.headers if key == name]


class ResponseHead(msgspec.Struct, frozen=True):
    """The head of a response, to a client or from a provider.

    To a client: give ``content-length`` if it is known; the connection adds framing,
    ``date`` and ``connection``.
    """

    status: int
    headers: Headers = ()

    def get(self, name: str) -> str | None:
        """Return the first value of the header with this lower-case *name*."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One whole request to a provider, ready to be framed.

    A dialect makes it with a relative ``path`` and no credentials; the provider's row
    adds those.
    """

    method: str = "POST"
    path: str
    """What follows the provider's base URL, such as ``chat/completions``."""
    headers: Headers = ()
    body: bytes = b""
    is_stream: bool = False
    """True if the answer is asked for as a stream of events."""
    others: tuple[bytes, ...] = ()
    """Bodies of the requests that go out beside this one, alike in all else: a format
    that gives one answer at a time is asked as often as ``n`` says, or once for each of
    several inputs."""

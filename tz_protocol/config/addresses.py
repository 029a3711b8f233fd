"""URLs and socket addresses: text -> parts, strictly.

The one rule: nothing is repaired but a missing final slash. A URL that could be read
in two ways is refused, because what is checked here is what is dialled later. Messages
never echo a URL, which may hold a password.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Literal, cast

from tz_protocol.types.settings import Url

__all__ = [
    "BIND_FORMS",
    "is_loopback_bind",
    "is_loopback_host",
    "parse_base_path",
    "parse_bind_address",
    "parse_url",
    "with_host_and_port",
]

BIND_FORMS = "host:port, [ipv6]:port or unix:/path"

_VISIBLE = re.compile(r"[\x21-\x7e]+")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_BIND = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_url(text: str) -> Url:
    """Return the parts of an absolute http or https URL; the path ends in a slash.

    Raises:
        ValueError: With a sentence that says what was wrong.
    """
    if not _VISIBLE.fullmatch(text) or "\\" in text:
        message = "expected a URL of visible ASCII characters without backslashes"
        raise ValueError(message)
    match = _URL.fullmatch(text)
    if match is None:
        message = "expected a URL such as https://host/v1/ (without a fragment)"
        raise ValueError(message)
    scheme, authority, path, query = match.groups()
    scheme = scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        message = "expected a URL that begins with https:// or http://"
        raise ValueError(message)
    if "@" in authority:
        message = (
            "a URL here must not hold a user name or password; "
            "give the key with api_key_location"
        )
        raise ValueError(message)
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        message = "expected a host name or address, and perhaps a port, in the URL"
        raise ValueError(message)
    host = _host(parts.group(1))
    port = _port(parts.group(2), lowest=1) if parts.group(2) else None
    return Url(
        scheme=cast("Literal['http', 'https']", scheme),
        host=host,
        port=_DEFAULT_PORTS[scheme] if port is None else port,
        path=path if path.endswith("/") else path + "/",
        query=query or "",
    )


def _host(text: str) -> str:
    """Return the host in lower case, without brackets; ValueError if it is none."""
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            message = "the brackets hold no IPv6 address"
            raise ValueError(message)
    if re.fullmatch(r"[0-9.]+", text):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            message = "the host is neither an IPv4 address nor a name"
            raise ValueError(message)
    return text.lower()


def _port(text: str, *, lowest: int) -> int:
    port = int(text)
    if not lowest <= port <= 65_535:
        message = f"expected a port from {lowest} to 65535"
        raise ValueError(message)
    return port


def parse_bind_address(text: str) -> str:
    """Return *text* in the form that ``Listen`` takes.

    Raises:
        ValueError: If it is none of ``BIND_FORMS``.
    """
    if text.startswith("unix:"):
        if len(text) == len("unix:") or not text.isprintable():
            message = "expected a path after unix:"
            raise ValueError(message)
        return text
    match = _BIND.fullmatch(text)
    if match is None:
        message = f"expected {BIND_FORMS}"
        if re.fullmatch(r":[0-9]{1,5}", text):
            message += f"; for every address write 0.0.0.0{text} or [::]{text}"
        elif text.count(":") > 1:
            message += "; an IPv6 address needs its brackets"
        raise ValueError(message)
    host = _host(match.group(1))
    port = _port(match.group(2), lowest=0)
    return _join(host, port)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def with_host_and_port(address: str, host: str | None, port: int | None) -> str:
    """Return *address* with its host or port replaced, as the options say.

    Raises:
        ValueError: If the result is no address, or *address* is a Unix socket and
            only one of the two is given.
    """
    if host is None and port is None:
        return address
    if address.startswith("unix:"):
        if host is None or port is None:
            message = "the address is a Unix socket: give both --host and --port"
            raise ValueError(message)
        old_host, old_port = "", ""
    else:
        old_host, _, old_port = address.rpartition(":")
    if host is None:
        new_host = old_host
    else:
        new_host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return parse_bind_address(f"{new_host}:{old_port if port is None else port}")


def is_loopback_host(host: str) -> bool:
    """Return whether *host* (a name, or an address without brackets) is this one."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_loopback_bind(address: str) -> bool:
    """Return whether only this machine can reach *address*; Unix sockets included."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0]
    return is_loopback_host(host.strip("[]"))


def parse_base_path(text: str) -> str:
    """Return *text* without its final slash; empty for the root.

    Raises:
        ValueError: If it is no absolute path.
    """
    trimmed = text.rstrip("/")
    if not trimmed and text in ("", "/"):
        return ""
    if not trimmed.startswith("/") or not _are_segments(trimmed[1:].split("/")):
        message = "expected a path such as /gateway: absolute, no empty or dot segments"
        raise ValueError(message)
    return trimmed


def _are_segments(segments: Sequence[str]) -> bool:
    return all(
        _SEGMENT.fullmatch(segment) is not None and segment not in (".", "..")
        for segment in segments
    )

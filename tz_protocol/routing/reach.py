"""Where a link that a caller wrote may lead.

The one rule: a link is followed only to a public address, decided on the address
itself and never on how a name or a number is spelt. Nothing here resolves or connects;
whoever does asks :func:`target_of` for each hop and :func:`reachable` for what its name
turned out to be.

Sources: the IANA special-purpose registries, as ``ipaddress`` knows them; RFC 4291,
section 2.5.5 (IPv4 within IPv6), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 6052 (NAT64),
RFC 5214 (ISATAP); RFC 6761 and RFC 6762 (names of one's own network);
https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
"""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address
from typing import Literal
from urllib.parse import quote, urljoin, urlsplit

from tz_protocol.types.settings import FetchSettings, Url

__all__ = [
    "Unfollowable",
    "is_public",
    "named",
    "names_public_host",
    "onward",
    "reachable",
    "target_of",
]

_LONGEST = 8_192
"""Characters of a link; browsers and CDNs take about as many."""

_SHOWN = 200
"""Characters of a link that a message repeats."""

_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")

_OWN_NAMES = ("localhost", "local", "internal", "home.arpa", "lan", "intranet", "corp")
"""Last labels of names that mean something within one network only."""

_SAFE = "%/:?[]@!$&'()*+,;=-._~"
"""Characters of a path or a query that stay as they are (RFC 3986, section 2)."""


class Unfollowable(Exception):
    """A link that is not followed.

    Args:
        reason: What is wrong with it, to be read after its name and a colon.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# -- addresses ------------------------------------------------------------------

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")
_NOT_FOR_US = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # protocol assignments; two of them count as global
            "192.88.99.0/24",  # relays of 6to4
            "168.63.129.16/32",  # on Azure the machine's own host, beside 169.254/16
            "2002::/16",  # 6to4: an IPv4 address follows
            "2001::/23",  # Teredo, which holds two, and other assignments
            "3fff::/20",  # documentation (RFC 9637), newer than ``is_global``
        ),
    )
)


def is_public(address: str) -> bool:
    """Return True if anybody may be sent to *address*, a number.

    False for what it cannot read. An IPv6 address that stands for an IPv4 address is as
    public as that; the tunnels of old, which take one out on the way, are not used.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            return False
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif found in _NAT64:
            # A network without IPv4 of its own reaches every IPv4 host by these.
            found = IPv4Address(int(found) & 0xFFFF_FFFF)
        elif found not in _UNICAST or _is_isatap(found):
            return False
    return (
        found.is_global
        and not found.is_multicast
        and not found.is_reserved
        and not any(found in network for network in _NOT_FOR_US)
    )


def _is_isatap(address: IPv6Address) -> bool:
    """Return True for an interface identifier that holds an IPv4 address."""
    return int(address) >> 32 & 0xFDFF_FFFF == 0x5EFE


def reachable(addresses: tuple[str, ...], settings: FetchSettings) -> tuple[str, ...]:
    """Return *addresses*, each once, if all of them may be connected to.

    A name with one private address among public ones is not somebody's mistake to be
    worked around, so none of its addresses is used.

    Raises:
        Unfollowable: One may not, or there is none. The reason is the same for a name
            that nobody has: callers learn nothing of names within.
    """
    found = tuple(dict.fromkeys(addresses))
    if not found or not (settings.allow_private or all(map(is_public, found))):
        raise nowhere()
    return found


def nowhere() -> Unfollowable:
    """Return the error for a host without an address that may be reached."""
    return Unfollowable("its host has no public address")


def names_public_host(host: str) -> bool:
    """Return False for a host that is no name of the public kind.

    For a proxy that will resolve it: numbers in any spelling but the usual ones, and
    names of one's own network, are not handed to it.
    """
    if ":" in host:
        return is_public(host)
    labels = host.lower().rstrip(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return is_public(host)
    name = ".".join(labels)
    return len(labels) > 1 and not any(
        name == own or name.endswith(f".{own}") for own in _OWN_NAMES
    )


# -- links ----------------------------------------------------------------------


def target_of(link: str, settings: FetchSettings) -> Url:
    """Return *link* taken apart, if the settings allow it whatever its host is.

    ``Url.path`` is the whole path, which need not end with a slash.

    Raises:
        Unfollowable: It is not a URL, or not one that may be followed.
    """
    if len(link) > _LONGEST:
        raise Unfollowable(f"it is longer than {_LONGEST} characters")
    if not link.isprintable() or "\\" in link or " " in link:
        # What parsers read differently is read by none.
        raise Unfollowable("it holds a character that no URL may hold")
    try:
        parts = urlsplit(link)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Unfollowable("it is not a URL") from None
    schemes = ("https", "http") if settings.allow_http else ("https",)
    if parts.scheme not in schemes:
        raise Unfollowable(f"it must be a URL of {' or '.join(schemes)}, or a data URL")
    if parts.username is not None or parts.password is not None:
        raise Unfollowable("it must not hold a user or a password")
    # Lower case makes ASCII of some letters that are not: a Kelvin sign is a k.
    if not host or not parts.netloc.isascii() or not _is_host(host):
        raise Unfollowable("its host must be a name in ASCII or an address")
    scheme: Literal["https", "http"] = "https" if parts.scheme == "https" else "http"
    if port is None:
        port = 443 if scheme == "https" else 80
    if port not in settings.ports:
        raise Unfollowable("its port is not one that is allowed")
    host = host.removesuffix(".").lower()
    if settings.hosts and not any(_covers(entry, host) for entry in settings.hosts):
        raise Unfollowable("its host is not one that is allowed")
    return Url(
        scheme=scheme,
        host=host,
        port=port,
        path=quote(parts.path or "/", _SAFE),
        query=quote(parts.query, _SAFE),
    )


def onward(url: Url, location: str, settings: FetchSettings) -> Url:
    """Return where a redirect from *url* to *location* leads.

    Raises:
        Unfollowable: It leads to where no link of a caller's may. The reason tells
            nothing of the place.
    """
    base = f"{url.scheme}://{url.authority}{url.path}"
    try:
        found = target_of(urljoin(base, location.partition("#")[0]), settings)
    except (Unfollowable, ValueError):
        raise Unfollowable("it redirects to where links are not followed") from None
    if url.scheme == "https" and found.scheme != "https":
        raise Unfollowable("it redirects from https to http")
    return found


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            # A scope (%eth0) means an interface of this machine.
            return IPv6Address(host).scope_id is None
        except ValueError:
            return False
    labels = host.removesuffix(".").split(".")
    return len(host) <= 253 and all(map(_LABEL.fullmatch, labels))


def _covers(entry: str, host: str) -> bool:
    """Return whether one of the allowed hosts is *host*, or covers it by ``*.``."""
    if entry.startswith("*."):
        return host.endswith(entry[1:])
    return host == entry


def named(link: str) -> str:
    """Return *link* as a message may repeat it: no query, no user, no controls."""
    head = link.partition("?")[0].partition("#")[0]
    scheme, separator, rest = head.partition("://")
    if separator:
        authority, slash, path = rest.partition("/")
        head = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    elif "@" in head:
        head = head.rpartition("@")[2]
    shown = "".join(c if "!" <= c <= "~" else "?" for c in head)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."

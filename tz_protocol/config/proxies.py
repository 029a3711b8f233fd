"""Which egress proxy an origin is reached through, from the usual variables.

The one rule: the decision is made once per origin, when the configuration is built.
This machine itself is never reached through a proxy. Lower-case names win, as in curl;
``NO_PROXY`` takes names (with their subdomains), addresses, networks, each perhaps
with a port, and ``*``.

Source: https://everything.curl.dev/usingcurl/proxies/env.html.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from tz_protocol.config.addresses import is_loopback_host
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Url

__all__ = ["PROXY_LOCATIONS", "BadProxy", "Proxies"]

_NAMES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")

PROXY_LOCATIONS: tuple[str, ...] = tuple(
    f"env::{spelling}" for name in _NAMES for spelling in (name.lower(), name)
)
"""Locations to resolve, all optional."""

_PROXY = re.compile(r"(?:https?|socks5h?)://[\x21-\x7e]+", re.IGNORECASE)


class BadProxy(ValueError):
    """A proxy's variable does not hold a URL; the message names the variable."""


class Proxies:
    """The variables, read once; ``choose`` decides for one origin."""

    def __init__(self, secrets: Mapping[str, Secret | None]) -> None:
        self._variables = {name: _first(secrets, name) for name in _NAMES}
        _name, no_proxy = self._variables["NO_PROXY"]
        listed = "" if no_proxy is None else no_proxy.reveal()
        self._exceptions = tuple(
            entry.lower() for entry in re.split(r"[,\s]+", listed) if entry
        )

    def choose(self, url: Url) -> Secret | None:
        """Return the proxy's URL for *url*, or None to connect directly.

        Raises:
            BadProxy: If the variable that counts here holds no http, https or socks5
                URL.
        """
        if is_loopback_host(url.host) or self._is_exception(url):
            return None
        own = "HTTPS_PROXY" if url.scheme == "https" else "HTTP_PROXY"
        for wanted in (own, "ALL_PROXY"):
            name, secret = self._variables[wanted]
            if secret is None:
                continue
            text = secret.reveal()
            if "://" not in text:
                text = f"http://{text}"
            if not _PROXY.fullmatch(text):
                message = f"{name} must hold an http, https or socks5 URL"
                raise BadProxy(message)
            return Secret(text)
        return None

    def _is_exception(self, url: Url) -> bool:
        return any(_matches(entry, url) for entry in self._exceptions)


def _first(
    secrets: Mapping[str, Secret | None], name: str
) -> tuple[str, Secret | None]:
    """Return the spelling that is set, with its value."""
    for spelling in (name.lower(), name):
        secret = secrets.get(f"env::{spelling}")
        if secret is not None and secret.reveal().strip():
            return spelling, Secret(secret.reveal().strip())
    return name, None


def _matches(entry: str, url: Url) -> bool:
    """Return whether one entry of NO_PROXY covers *url*."""
    if entry == "*":
        return True
    try:
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
        return ipaddress.ip_address(url.host) in network
    except ValueError:
        pass  # a name, or an address with a port
    host, colon, port = entry.rpartition(":")
    if colon and re.fullmatch(r"[0-9]{1,5}", port):
        if int(port) != url.port:
            return False
        entry = host.strip("[]")
    name = entry.lstrip("*").lstrip(".")
    return bool(name) and (url.host == name or url.host.endswith(f".{name}"))

"""``[gateway.fetch]`` -> ``FetchSettings``.

The one rule: as in ``gateway.py``: what is not set keeps the default of
``types.settings``.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from tz_protocol.config.entries import Building
from tz_protocol.config.gateway import Problems, durations
from tz_protocol.config.locate import Path
from tz_protocol.config.proxies import BadProxy, Proxies
from tz_protocol.config.schema import FetchTable, GatewayTable
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import FetchSettings, GatewaySettings, Url

__all__ = ["with_fetch"]

_PREFIX: Path = ("gateway", "fetch")

_NAMES = {
    "enabled": "is_enabled",
    "max_bytes": "link_bytes",
    "max_total_bytes": "total_bytes",
    "max_links": "links",
    "max_redirects": "redirects",
    "allow_http": "allow_http",
    "allow_private": "allow_private",
    "ca_file": "ca_file",
    "through_proxy": "through_proxy",
}
"""Key of the table -> the setting, where the value is taken as it is."""

_HOST = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|[0-9a-f:.]*:[0-9a-f:.]*")

_ELSEWHERE = (Url("https", "links.invalid", 443), Url("http", "links.invalid", 80))
"""Origins that no ``NO_PROXY`` names, but for ``*``."""


def with_fetch(
    settings: GatewaySettings, table: GatewayTable, building: Building
) -> GatewaySettings:
    """Return *settings* with what *table* says of fetching; see ``Building``."""
    fetch = _fetch(table.fetch, building.problems)
    fetch = msgspec.structs.replace(fetch, proxies=_proxies(building.proxies))
    return msgspec.structs.replace(settings, fetch=fetch)


def _fetch(table: FetchTable, problems: Problems) -> FetchSettings:
    values: dict[str, Any] = {
        setting: value
        for key, setting in _NAMES.items()
        if (value := getattr(table, key)) is not None
    }
    values |= durations(table, ("timeout",), _PREFIX, problems)
    if table.allowed_ports is not None:
        if not table.allowed_ports:
            message = "no port is left; set enabled to false instead"
            problems.append(((*_PREFIX, "allowed_ports"), message))
        values["ports"] = tuple(table.allowed_ports)
    hosts = [host.lower() for host in table.allowed_hosts or ()]
    for index, host in enumerate(hosts):
        if not _HOST.fullmatch(host):
            message = "expected a host such as images.example or *.images.example"
            problems.append(((*_PREFIX, "allowed_hosts", index), message))
    if table.allowed_hosts == []:
        message = "no host is left; set enabled to false instead"
        problems.append(((*_PREFIX, "allowed_hosts"), message))
    return FetchSettings(**values, hosts=tuple(hosts))


def _proxies(proxies: Proxies) -> dict[str, Secret]:
    found: dict[str, Secret] = {}
    for url in _ELSEWHERE:
        try:
            proxy = proxies.choose(url)
        except BadProxy:
            # Told where a provider is reached through it; here nothing is fetched.
            proxy = Secret("")
        if proxy is not None:
            found[url.scheme] = proxy
    return found

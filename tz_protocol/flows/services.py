"""The long-lived flows of a gateway, by name.

The one rule: whatever must happen beside the requests is listed here, and nothing else
starts it. Each runs until it is cancelled; whoever runs them restarts those that fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tz_protocol.flows.aws_credentials import AwsService
from tz_protocol.flows.keymirror import KeyMirror
from tz_protocol.flows.limitsync import sync_limits
from tz_protocol.flows.tokens import TokenService
from tz_protocol.notices import Close
from tz_protocol.operations import Flow, Sleep

if TYPE_CHECKING:
    from tz_protocol.gateway import Gateway
    from tz_protocol.types.settings import Limits

__all__ = ["services_of"]

_SWEEP_SECONDS = 5.0
"""How often idle connections to providers are looked at."""


def services_of(gateway: Gateway) -> tuple[tuple[str, Callable[[], Flow[None]]], ...]:
    """Return (name, what makes the flow) of each service of *gateway*."""

    def limits() -> Limits:
        return gateway.snapshot.gateway.limits

    tokens = TokenService(
        table=gateway.tokens,
        context=gateway.context,
        pool=gateway.pool,
        limits=limits,
        wall_clock=gateway.wall_clock,
        jitter=gateway.jitter,
        user_agent=gateway.user_agent,
    )
    credentials = AwsService(
        table=gateway.aws,
        context=gateway.context,
        pool=gateway.pool,
        limits=limits,
        wall_clock=gateway.wall_clock,
        user_agent=gateway.user_agent,
    )
    sharing = gateway.sharing
    return (
        *(() if sharing is None else (("figures", sharing.run),)),
        ("pool_sweep", lambda: _sweep(gateway)),
        ("key_mirror", KeyMirror(gateway).run),
        ("limit_sync", lambda: sync_limits(gateway)),
        ("tokens", tokens.run),
        ("aws_credentials", credentials.run),
        *gateway.stores.services(),
    )


def _sweep(gateway: Gateway) -> Flow[None]:
    """Close connections to providers that have idled too long."""
    while True:
        yield from Sleep(gateway.context.now + _SWEEP_SECONDS)
        for handle in gateway.pool.expire(gateway.context.now):
            gateway.context.tell(Close(handle))

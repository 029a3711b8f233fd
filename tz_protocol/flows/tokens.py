"""Access tokens are fetched here, off the path of any request.

The one rule: a request never fetches; it waits, at most as long as it may take to
connect, for the service that does. A token is renewed before it ends, so that only the
first request of a credential ever waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tz_protocol.errors import OperationTimeout, UpstreamError, UpstreamTimeout
from tz_protocol.flows.upstream import Call, open_upstream, read_all
from tz_protocol.machine import Context
from tz_protocol.notices import LogLine
from tz_protocol.operations import All, Flow, Wait
from tz_protocol.routing.pool import Pool
from tz_protocol.routing.tokens import TokenTable
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Limits, ProviderSettings
from tz_protocol.types.tokens import Grant, Token

__all__ = ["TokenService", "token_for"]

WORKERS = 4
"""Fetches at a time: so many issuers may hang before another one's tokens wait."""

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 10.0

ANSWER_LIMIT = 65_536
"""Bytes of an issuer's answer; real ones stay under 4 KiB."""


def token_for(
    table: TokenTable, grant: Grant, context: Context, deadline: float
) -> Flow[Secret]:
    """Return a token of *grant*, waiting for it if there is none.

    Args:
        table: Of the process.
        grant: What it is got for.
        context: Tells the time.
        deadline: When to stop waiting; the attempt's deadline to connect.

    Raises:
        UpstreamError: It could not be fetched; ``UpstreamTimeout`` (``connect``) if
            nobody said so in time.
    """
    while True:
        token = table.get(grant, context.now)
        if token is not None:
            return token
        news = table.want(grant, context.now)
        try:
            yield from Wait(deadline, news)
        except OperationTimeout:
            raise UpstreamTimeout("connect") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenService:
    """Fetches what the table says is due; drive :meth:`run` until the process ends."""

    table: TokenTable
    context: Context
    pool: Pool
    limits: Callable[[], Limits]
    """Those of the configuration that holds now."""
    wall_clock: Callable[[], float]
    """Unix seconds, which some requests for tokens must state."""
    jitter: Callable[[], float]
    user_agent: str = ""
    proxy: Callable[[Grant], Secret | None] = lambda _: None
    """The egress proxy by which to reach a grant's issuer."""

    def run(self) -> Flow[None]:
        """Fetch for ever; nothing that an issuer does ends it."""
        yield from All(math.inf, tuple(self._work() for _ in range(WORKERS)))

    def _work(self) -> Flow[None]:
        table, context = self.table, self.context
        while True:
            grant = table.take(context.now)
            if grant is None:
                due = table.next_due(context.now)
                try:
                    yield from Wait(math.inf if due is None else due, table.demand)
                except OperationTimeout:
                    pass
                continue
            try:
                yield from self._fetch(grant)
            finally:
                table.release(grant)

    def _fetch(self, grant: Grant) -> Flow[None]:
        context = self.context
        try:
            token = yield from self._ask(grant)
        except UpstreamError as error:
            self.table.fail(grant, error, context.now, self.jitter())
            fields = {"kind": grant.kind, "host": grant.url.host, "error": str(error)}
            context.tell(LogLine("warning", "no access token could be had", fields))
        else:
            self.table.store(grant, token, context.now)

    def _ask(self, grant: Grant) -> Flow[Token]:
        now = self.context.now
        request = grant.render(self.wall_clock())
        call = Call(
            request=request,
            headers=(
                *request.headers,
                ("accept-encoding", "identity"),
                ("user-agent", self.user_agent),
            ),
            settings=ProviderSettings(
                name=grant.kind,
                type=grant.kind,
                model="",
                url=grant.url,
                proxy=self.proxy(grant),
            ),
            connect_deadline=now + CONNECT_SECONDS,
            head_deadline=now + TOTAL_SECONDS,
            total_deadline=now + TOTAL_SECONDS,
        )
        response = yield from open_upstream(
            call, self.pool, self.context, self.limits()
        )
        try:
            body = yield from read_all(
                response, now + TOTAL_SECONDS, "total", ANSWER_LIMIT
            )
            return grant.read(response.head, body)
        finally:
            response.close()

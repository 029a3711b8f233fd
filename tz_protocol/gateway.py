"""The gateway: one configuration snapshot, the tables, and no globals.

The one rule: everything that exchanges share lives here, and nothing here performs
anything. Embed it like this: make a :class:`Gateway`, give each request's head to
:meth:`Gateway.handle`, step the flow with a ``Machine`` (or let one of the
transports' ``embed`` modules do that), and run :meth:`Gateway.services`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Hashable, Mapping
from functools import partial
from urllib.parse import unquote

from tz_protocol import __version__
from tz_protocol.dialects.openai_chat import OPENAI_CHAT
from tz_protocol.endpoints import ENDPOINTS, Endpoint, routes
from tz_protocol.errors import (
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    OperationTimeout,
    RouteNotFound,
)
from tz_protocol.flows.connection import (
    Connection,
    ConnectionSettings,
    describe_bug,
)
from tz_protocol.flows.exchange import Exchange
from tz_protocol.flows.figures import Sharing, asked, gauges_of, label
from tz_protocol.flows.pages import Page, Shown, find_page
from tz_protocol.flows.services import services_of
from tz_protocol.flows.stores import Stores
from tz_protocol.machine import Context, Drain, Event, Shutdown
from tz_protocol.notices import Close, RecordNotice
from tz_protocol.operations import Flow, Handle, SendBody, SendHead, Signal, Wait
from tz_protocol.providers import PROVIDERS
from tz_protocol.providers.aws_credentials import CredentialTable
from tz_protocol.providers.base import Provider
from tz_protocol.records.metrics import Metrics
from tz_protocol.records.record import Record
from tz_protocol.routing.admission import Admission, Memory
from tz_protocol.routing.breaker import BreakerFacts, Breakers, TargetKey
from tz_protocol.routing.keys import KeyBook, is_loopback_peer
from tz_protocol.routing.limits import Limiter
from tz_protocol.routing.options import is_public, settings_of
from tz_protocol.routing.pool import Pool
from tz_protocol.routing.retry import HedgeBudget, RetryBudget
from tz_protocol.routing.tokens import TokenTable
from tz_protocol.types.http import Headers, RequestHead, ResponseHead
from tz_protocol.types.keys import Access, Principal
from tz_protocol.types.settings import Snapshot

__all__ = ["Gateway", "GatewayConnection"]

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
"""What we echo of a caller's ``x-request-id``: no spaces, no controls, bounded."""

_PAGE_SECONDS = 30.0
"""By when a page must have been read."""


class Gateway:
    """Decides for every request of one process.

    Args:
        snapshot: The configuration to begin with; see :meth:`replace`.
        wall_clock: Unix seconds, for timestamps and the Date header.
        new_id: Makes UUIDv7 strings.
        jitter: Draws a number in [0, 1).
        context: Shared by every machine of the process; None makes one.
        providers: The vendors' rows, by type.
        endpoints: The routes.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        wall_clock: Callable[[], float],
        new_id: Callable[[], str],
        jitter: Callable[[], float],
        context: Context | None = None,
        providers: Mapping[str, Provider] = PROVIDERS,
        endpoints: tuple[Endpoint, ...] = ENDPOINTS,
    ) -> None:
        limits = snapshot.gateway.limits
        self.snapshot = snapshot
        self.wall_clock = wall_clock
        self.new_id = new_id
        self.jitter = jitter
        self.context = Context() if context is None else context
        self.providers = providers
        self.user_agent = f"tz-gateway/{__version__}"
        self.metrics = Metrics()
        self.pool = Pool(limits)
        self.admission = Admission(limits.requests, limits.queue)
        self.memory = Memory(limits.body_memory)
        self.breakers = Breakers(on_open=self._opened)
        """How well each target is; shared by all exchanges, and kept by a reload."""
        self.retry_budget = RetryBudget(snapshot.gateway.retry_share)
        self.hedge_budget = HedgeBudget(snapshot.gateway.hedge_share)
        self.keys = KeyBook()
        """The keys and models that come from Redis."""
        self.limiter = Limiter(_processes_of(snapshot.access))
        """What each key has used."""
        self.tokens = TokenTable()
        """Access tokens that were got for keys (Google)."""
        self.aws = CredentialTable()
        """The process's own AWS credentials, once any were wanted."""
        self.stores = Stores(
            snapshot.gateway,
            context=self.context,
            new_id=new_id,
            wall_clock=wall_clock,
            metrics=self.metrics,
        )
        self.sharing: Sharing | None = None
        """Set in one of several workers: ``/metrics`` then shows them all."""
        self.recorder, self.cache = self.stores.recorder, self.stores.cache
        self._label, self._asked = partial(label, self), partial(asked, self)
        self.live: set[Callable[[Event], object]] = set()
        """How to tell each live connection's driver of an event."""
        self.connections = 0
        self.is_draining = False
        self._room = Signal()
        self._routes = routes(endpoints)

    # -- configuration ------------------------------------------------------------

    def replace(self, snapshot: Snapshot) -> None:
        """Use *snapshot* for every exchange that begins from now on.

        Running exchanges keep theirs. Places, memory and pool keep their contents and
        take the new limits. A target whose settings are the same stays as well or ill
        as it is.
        """
        limits = snapshot.gateway.limits
        self.snapshot = snapshot
        self.admission.places = limits.requests
        self.admission.queue = limits.queue
        self.memory.limit = limits.body_memory
        self.pool.limits = limits
        self.retry_budget.policy = snapshot.gateway.retry_share
        self.hedge_budget.policy = snapshot.gateway.hedge_share
        self.breakers.keep(
            settings_of(self.breakers, snapshot, self.keys.models, self.providers)
        )
        self.limiter.processes = _processes_of(snapshot.access)
        self.cache.use(snapshot.gateway.cache)

    # -- connections --------------------------------------------------------------

    def admits(self) -> bool:
        """Return True if another connection may be accepted; else wait for ``room``."""
        return self.connections < self.snapshot.gateway.limits.connections

    @property
    def room(self) -> Signal:
        """A signal that is set when the next connection ends."""
        return self._room

    def connection(self, client: Handle, peer: str = "") -> GatewayConnection:
        """Return what serves one client's byte stream; drive its ``run()``.

        Counts as open from now on, so it must be run.
        """
        self.connections += 1
        settings = self.snapshot.gateway
        return GatewayConnection(
            self,
            Connection(
                client,
                self.handle,
                context=self.context,
                settings=ConnectionSettings(
                    limits=settings.limits,
                    timeouts=settings.server,
                    half_close=settings.half_close,
                ),
                wall_clock=self.wall_clock,
                render_error=self._render_error,
                on_bug=self.bug,
                peer=peer,
            ),
        )

    def closed(self) -> None:
        """Say that a connection has ended; whoever waits for ``room`` goes on."""
        self.connections -= 1
        room, self._room = self._room, Signal()
        room.set()

    # -- requests -----------------------------------------------------------------

    def authenticate(self, head: RequestHead) -> Principal | None:
        """Return who calls; None if authentication is off, so that everybody may.

        Looks at nothing but the head, and waits for nothing.

        Raises:
            GatewayError: The caller may not (401), or it cannot be known now (503).
        """
        access = self.snapshot.access
        if access is None:
            return None
        try:
            principal = self.keys.authenticate(
                head, access, self.context.now, self.wall_clock()
            )
        except GatewayError as error:
            self.metrics.add("tz_auth_total", result=error.code or "")
            raise
        self.metrics.add("tz_auth_total", result="ok")
        return principal

    def handle(self, head: RequestHead) -> Flow[None]:
        """Serve one request: the ``Handler`` for a connection or an embedder."""
        request_id = self._request_id(head)
        headers = (
            ("x-tensorzero-gateway-version", __version__),
            ("x-request-id", request_id),
            *self._cors(head),
        )
        try:
            path = self._path(head)
            methods = self._routes.get(path)
            page = (
                None if methods else find_page(path, unquote, head.get("accept") or "")
            )
            if head.method == "OPTIONS" and (methods or page):
                yield from self._preflight(head, methods, headers)
                return
            if methods is not None:
                endpoint = methods.get(head.method)
                if endpoint is None:
                    self.authenticate(head)
                    raise _method_not_allowed(head, (*methods,))
                exchange = Exchange(self, endpoint, head, request_id, headers)
            elif page is not None:
                yield from self._page(head, *page, headers)
                return
            else:
                # Which routes there are is nobody's business who has no key.
                self.authenticate(head)
                message = f"There is no route {head.method} {_shown(head.path)}."
                raise RouteNotFound(message)
        except GatewayError as error:
            answer, body = OPENAI_CHAT.render_error(error, False)
            yield from self._send(answer.status, (*answer.headers, *headers), body)
            return
        yield from exchange.run()

    def apologise(self, head: RequestHead) -> Flow[None]:
        """Answer a request whose handler had a bug, where no connection does it."""
        message = "The gateway made a mistake. It has been logged."
        error = GatewayError(message, code="internal_error")
        answer, body = self._render_error(error, head)
        yield from self._send(answer.status, answer.headers, body)

    def settle(self, record: Record) -> None:
        """Take the one record of an exchange; never yields, never fails."""
        self.metrics.settle(record, self._label, self._asked)
        self.context.tell(RecordNotice(record))

    def targets(self) -> list[tuple[TargetKey, BreakerFacts]]:
        """Return how well the targets are that the operator has named."""
        return [
            (facts.target, facts)
            for facts in self.breakers.facts(self.context.now)
            if isinstance(facts.target, TargetKey)
            and is_public(facts.target.model, self.snapshot, self.keys.models)
        ]

    def bug(self, error: BaseException) -> None:
        """Count and log an unexpected exception; never fails."""
        self.metrics.add("tz_bugs_total", kind=type(error).__name__)
        self.context.tell(describe_bug(error))

    # -- the process --------------------------------------------------------------

    def problems(self) -> list[str]:
        """Return why requests should not be sent here; empty if they may."""
        problems = []
        if self.is_draining:
            problems.append("shutting down")
        if not self.admits():
            problems.append("as many connections as allowed")
        unloaded = self.keys.problem(self.snapshot.access)
        if unloaded is not None:
            problems.append(unloaded)
        return problems

    def gauges(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Return what ``/metrics`` shows beside the counters."""
        return gauges_of(self)

    def services(self) -> tuple[tuple[str, Callable[[], Flow[None]]], ...]:
        """Return the long-lived flows, by name; run each until the drain is over."""
        return services_of(self)

    def drain(self) -> Flow[None]:
        """End every connection: first kindly, then with a goodbye, then not at all.

        Call it once no new connection can come. Afterwards cancel what is left.
        """
        server = self.snapshot.gateway.server
        self.is_draining = True
        self._broadcast(Drain())
        yield from self._until_idle(self.context.now + server.drain)
        self._broadcast(Shutdown())
        yield from self._until_idle(self.context.now + server.goodbye)
        yield from self.stores.finish(self.context.now + server.goodbye)
        self.close_idle()

    def close_idle(self) -> None:
        """Close every kept connection to a provider."""
        for handle in self.pool.expire(self.context.now, everything=True):
            self.context.tell(Close(handle))

    # -- inside -------------------------------------------------------------------

    def _opened(self, target: Hashable) -> None:
        if isinstance(target, TargetKey):
            self.metrics.add(
                "tz_breaker_opened_total",
                model=self._label(target.model),
                provider=target.provider,
            )

    def _broadcast(self, event: Event) -> None:
        for tell in tuple(self.live):
            tell(event)

    def _until_idle(self, deadline: float) -> Flow[None]:
        try:
            while self.connections:
                yield from Wait(deadline, self._room)
        except OperationTimeout:
            return

    def _request_id(self, head: RequestHead) -> str:
        given = head.get("x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return self.new_id()

    def _path(self, head: RequestHead) -> str:
        base = self.snapshot.gateway.base_path
        if not base:
            return head.path
        if head.path == base or head.path.startswith(base + "/"):
            return head.path[len(base) :]
        return ""

    def _render_error(
        self, error: GatewayError, head: RequestHead | None
    ) -> tuple[ResponseHead, bytes]:
        """Render an error that was found before a handler could run."""
        if head is None:
            self.metrics.add("tz_http_bad_requests_total", reason=error.code or "")
        answer, body = OPENAI_CHAT.render_error(error, False)
        request_id = self.new_id() if head is None else self._request_id(head)
        headers = (
            *answer.headers,
            ("x-tensorzero-gateway-version", __version__),
            ("x-request-id", request_id),
        )
        return ResponseHead(answer.status, headers), body

    def _page(
        self, head: RequestHead, page: Page, shown: Shown, headers: Headers
    ) -> Flow[None]:
        principal: Principal | None = None
        if shown is Shown.KEY_HOLDERS:
            principal = self.authenticate(head)
        elif (
            shown is Shown.THIS_MACHINE
            and self.snapshot.access is not None
            and not is_loopback_peer(head.peer)
        ):
            raise Forbidden("This page is shown to this machine only.")
        if head.method not in ("GET", "HEAD"):
            raise _method_not_allowed(head, ("GET",))
        answer = page(self, principal)
        if isinstance(answer, Generator):
            answer = yield from answer
        status, content_type, body = answer
        yield from self._send(
            status,
            (("content-type", content_type), ("cache-control", "no-store"), *headers),
            body,
        )

    def _send(self, status: int, headers: Headers, body: bytes) -> Flow[None]:
        deadline = self.context.now + _PAGE_SECONDS
        headers = (*headers, ("content-length", str(len(body))))
        yield from SendHead(deadline, ResponseHead(status, headers))
        yield from SendBody(deadline, body, end=True)

    def _cors(self, head: RequestHead) -> Headers:
        cors = self.snapshot.gateway.cors
        if not cors.allowed_origins:
            return ()
        origin = head.get("origin")
        if origin is None:
            return ()
        if "*" in cors.allowed_origins:
            return (("access-control-allow-origin", "*"),)
        if origin in cors.allowed_origins:
            return (("access-control-allow-origin", origin), ("vary", "origin"))
        return (("vary", "origin"),)

    def _preflight(
        self,
        head: RequestHead,
        methods: Mapping[str, Endpoint] | None,
        headers: Headers,
    ) -> Flow[None]:
        allow = ", ".join((*(methods or ("GET", "HEAD")), "OPTIONS"))
        is_allowed = any(name == "access-control-allow-origin" for name, _ in headers)
        if is_allowed and head.get("access-control-request-method") is not None:
            asked = head.get("access-control-request-headers") or "authorization"
            age = int(self.snapshot.gateway.cors.max_age)
            headers = (
                *headers,
                ("access-control-allow-methods", allow),
                ("access-control-allow-headers", asked),
                ("access-control-max-age", str(age)),
            )
        deadline = self.context.now + _PAGE_SECONDS
        head_out = ResponseHead(204, (("allow", allow), *headers))
        yield from SendHead(deadline, head_out)
        yield from SendBody(deadline, b"", end=True)


class GatewayConnection:
    """One client's byte stream, counted while it is open."""

    __slots__ = ("_connection", "_gateway", "tell")

    def __init__(self, gateway: Gateway, connection: Connection) -> None:
        self._gateway = gateway
        self._connection = connection
        self.tell = connection.tell
        """The ``Machine``'s listener."""

    def run(self) -> Flow[None]:
        """Serve until the stream ends; the flow for a ``Machine``."""
        try:
            yield from self._connection.run()
        finally:
            self._gateway.closed()


def _processes_of(access: Access | None) -> int:
    return 1 if access is None else access.processes


def _method_not_allowed(
    head: RequestHead, methods: tuple[str, ...]
) -> MethodNotAllowed:
    allow = ", ".join((*methods, "HEAD") if "GET" in methods else methods)
    message = f"{_shown(head.path)} does not take {head.method}; use {allow}."
    return MethodNotAllowed(message, headers=(("allow", allow),))


def _shown(path: str) -> str:
    """Return a path fit for a message: bounded; the codec left no controls in it."""
    return path if len(path) <= 200 else path[:200] + "..."

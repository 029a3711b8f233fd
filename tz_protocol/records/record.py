"""The record of one exchange: filled on the way, settled exactly once.

The one rule: nothing here decides. A record is what happened, in the words that the
log, the metrics and the store use.
"""

from __future__ import annotations

import enum
from decimal import Decimal

import msgspec

from tz_protocol.types.usage import Usage
from tz_protocol.wire.traceparent import TraceParent

__all__ = ["AttemptRecord", "CallRecord", "Outcome", "Record", "Stage"]


class Stage(enum.StrEnum):
    """How far an exchange came; set before each phase."""

    AUTHENTICATE = "authenticate"
    BODY = "body"
    CONVERT = "convert"
    RESOLVE = "resolve"
    REQUIRE = "require"
    ADMIT = "admit"
    CACHE = "cache"
    """Looking for an answer that was given before."""
    ROUTE = "route"
    FETCH = "fetch"
    """Getting what is behind the caller's links, for a provider that wants bytes."""
    OPEN = "open"
    """Connecting to a provider and waiting for its head."""
    FIRST_CONTENT = "first_content"
    RELAY = "relay"
    RENDER = "render"
    DONE = "done"


class Outcome(enum.StrEnum):
    """How an exchange ended."""

    OK = "ok"
    ERROR = "error"
    """The caller got an error status."""
    PARTIAL = "partial"
    """The caller got content and then an in-band error or a broken body."""
    CLIENT_GONE = "client_gone"
    CLIENT_STALLED = "client_stalled"
    TIMEOUT = "timeout"
    SHED = "shed"
    SHUTDOWN = "shutdown"
    CANCELLED = "cancelled"
    """The driver ended the exchange, or a bug did."""


class CallRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One of the calls of an attempt that has several. Times as for the attempt."""

    status: int | None = None
    error: str | None = None
    """Code of what failed; ``cancelled`` if another one failed first."""
    connected: float | None = None
    head: float | None = None
    first_content: float | None = None
    ended: float | None = None
    is_reused: bool = False
    request_id: str | None = None
    usage: Usage | None = None
    """As far as the provider said."""


class AttemptRecord(msgspec.Struct, kw_only=True):
    """One try at one provider. Times are seconds after the exchange's start."""

    provider: str
    """Name in the model's table."""
    provider_type: str
    model: str
    """Public name of the model that the candidate belongs to."""
    upstream_model: str
    started: float
    status: int | None = None
    """The provider's status, once its head was seen."""
    error: str | None = None
    """Code of what failed; None for the attempt that answered."""
    connected: float | None = None
    """When there was a connection, kept or new, TLS and a proxy's tunnel included; None
    if there was none, or none was needed."""
    head: float | None = None
    first_content: float | None = None
    ended: float | None = None
    is_reused: bool = False
    """True if a kept connection was used."""
    request_id: str | None = None
    """The provider's own id of the request."""
    is_hedge: bool = False
    """True if it was begun beside a slow one."""
    calls: list[CallRecord] = []
    """One for each choice, where ``n`` is emulated; what is said of the attempt then
    sums them up. Empty: the attempt is one call."""
    spent: Usage | None = None
    """What calls used of an attempt that did not answer."""
    spent_cost: Decimal | None = None
    """What that cost; None if nothing, or unknown."""


class Record(msgspec.Struct, kw_only=True):
    """One exchange, from its head to its settlement."""

    id: str
    """UUIDv7, also the answer's ``id``."""
    request_id: str
    """The caller's ``x-request-id``, or ours."""
    endpoint: str
    """The route, such as ``POST /v1/chat/completions``."""
    config_id: str
    started_at: float
    """Unix seconds."""
    started: float
    """Seconds on the driver's clock."""
    stage: Stage = Stage.AUTHENTICATE
    outcome: Outcome | None = None
    """None until settled."""
    status: int | None = None
    """What the caller was answered; None if nothing was."""
    error: str | None = None
    """Code of the error told to the caller."""
    episode_id: str | None = None
    asked_model: str | None = None
    model: str | None = None
    """Public name of the model that answered."""
    provider: str | None = None
    is_stream: bool = False
    attempts: list[AttemptRecord] = []
    usage: Usage | None = None
    dropped: tuple[str, ...] = ()
    """Parameters that the provider could not be told."""
    skipped_events: int = 0
    """Events of the stream that could not be understood."""
    first_content: float | None = None
    """Seconds after the start."""
    duration: float | None = None
    """Seconds from the start to the settlement."""
    bytes_in: int = 0
    bytes_out: int = 0
    tags: dict[str, str] = {}
    is_dryrun: bool = False
    key_id: str | None = None
    """Of the caller's API key; not a credential."""
    project_id: str | None = None
    """As the caller's key says of the model, never the caller itself; so are the next
    two."""
    endpoint_id: str | None = None
    model_id: str | None = None
    cost: Decimal | None = None
    """In the currency of the prices; None if unknown."""
    price_id: str | None = None
    """Which prices the cost comes from; None if none was applied."""
    trace: TraceParent | None = None
    """Where in a trace the caller says that it stands."""
    cache: str = ""
    """``hit`` or ``miss`` if the cache was asked, empty if it was not."""

    @property
    def spent_tokens(self) -> int:
        """What attempts used that did not answer, as far as it is known."""
        spent = (attempt.spent for attempt in self.attempts)
        return sum(usage.total_tokens for usage in spent if usage is not None)

    @property
    def spent_cost(self) -> Decimal:
        """What that cost; a part of ``cost``."""
        costs = (attempt.spent_cost for attempt in self.attempts)
        return sum((cost for cost in costs if cost is not None), Decimal(0))

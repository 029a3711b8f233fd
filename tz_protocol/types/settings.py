"""The configuration as the core uses it: validated, immutable, replaced whole.

The one rule: a value that exists is legal. The package ``config`` makes these from
TOML; a test or an embedder may make them directly. Durations are seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Raw

from tz_protocol.types.keys import Access
from tz_protocol.types.policy import BreakerPolicy, HedgeShare, Policy, RetryShare
from tz_protocol.types.prices import Price
from tz_protocol.types.records import CacheSettings, RecordSettings
from tz_protocol.types.secret import Secret

__all__ = [
    "Cors",
    "Credential",
    "FetchSettings",
    "GatewaySettings",
    "Limits",
    "Model",
    "ProviderSettings",
    "ServerTimeouts",
    "Snapshot",
    "Timeouts",
    "Url",
]


class Url(msgspec.Struct, frozen=True):
    """An origin and a path, taken apart once."""

    scheme: Literal["http", "https"]
    host: str
    """Without brackets."""
    port: int
    path: str = "/"
    """Begins and ends with a slash."""
    query: str = ""
    """Raw, without the question mark."""

    @property
    def authority(self) -> str:
        """Value of the Host header: the port only where it is not the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


class Credential(msgspec.Struct, frozen=True):
    """Where a provider's key comes from, with static ones already resolved."""

    kind: Literal["static", "dynamic", "none"]
    secret: Secret | None = None
    """The key, if static."""
    name: str = ""
    """Key of ``tensorzero::credentials``, if dynamic."""
    location: str = ""
    """Where it is, as one writes it in the configuration; for people, never the key."""


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines of one attempt and of one exchange."""

    connect: float = 5.0
    first_content: float = 120.0
    idle: float = 60.0
    total: float = 600.0
    stream_total: float = 3600.0


class ServerTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines of a client's connection."""

    head: float = 10.0
    """From a request's first byte to the end of its head."""
    body: float = 30.0
    """Between two pieces of a body."""
    idle: float = 75.0
    """Without a request on a kept connection (nginx's keepalive_timeout)."""
    write: float = 30.0
    """Without progress while the client does not read."""
    drain: float = 30.0
    """After SIGTERM, for what runs."""
    goodbye: float = 5.0
    """After the drain, for the last words."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of what a client can make us hold."""

    head_bytes: int = 32_768
    line_bytes: int = 8_192
    headers: int = 100
    body_bytes: int = 104_857_600
    requests_per_connection: int = 1_000
    connections: int = 4_096
    requests: int = 1_000
    """Exchanges in flight."""
    queue: int = 100
    """Exchanges that wait for a place in flight; past it 503."""
    queue_timeout: float = 5.0
    body_memory: int = 1_073_741_824
    """Request and response bodies held in memory by the whole process."""
    response_bytes: int = 67_108_864
    """A whole answer of a provider, decoded."""
    event_bytes: int = 16_777_216
    """One event of a provider's stream. Pictures come whole in one, in base64: some MB;
    a quarter of what a whole answer may hold."""
    emulated_choices: int = 8
    """Calls at one time for one request's ``n``, or for the texts of one moderation,
    where a provider takes one at a time."""
    pool_per_origin: int = 256
    """Connections to one origin, busy ones included."""
    pool_idle: int = 32
    """Idle connections kept for one origin."""
    pool_idle_timeout: float = 30.0


class Cors(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a browser may be; off while ``allowed_origins`` is empty."""

    allowed_origins: tuple[str, ...] = ()
    """Exact origins, or ``*``."""
    max_age: float = 600.0


class FetchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How links in a request are followed, for providers that take only bytes."""

    is_enabled: bool = True
    """False: such a provider is said not to take links."""
    timeout: float = 10.0
    """For one link, its redirects included."""
    link_bytes: int = 20_971_520
    """Behind one link."""
    total_bytes: int = 52_428_800
    """Behind all links of one request."""
    links: int = 20
    """Of one request."""
    redirects: int = 3
    """0: none is followed."""
    allow_http: bool = False
    allow_private: bool = False
    """True: any address, that of this machine and of its metadata service too."""
    ports: tuple[int, ...] = (443, 80)
    hosts: tuple[str, ...] = ()
    """Names, in lower case; ``*.`` before one means what is below it. Empty: all."""
    ca_file: str | None = None
    """Path of a PEM bundle that replaces the system's trust store."""
    through_proxy: bool = False
    """True: where there is an egress proxy it resolves the names and decides which
    addresses may be reached. False: behind a proxy nothing is fetched."""
    proxies: dict[str, Secret] = {}
    """By scheme: URL of the egress proxy (it may hold a password)."""


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a model's ``providers`` table."""

    name: str
    """The entry's name, as routing names it."""
    type: str
    """Name of the provider's row."""
    model: str
    """The model's name at the provider."""
    url: Url | None = None
    """Base of every request; None for a provider that answers in the core."""
    credential: Credential = Credential("none")
    options: dict[str, str] = {}
    """Further keys of the table, such as ``deployment_id``, for the dialect."""
    extra_headers: tuple[tuple[str, str], ...] = ()
    extra_body: dict[str, Raw] = {}
    """Top-level members added to every JSON body."""
    timeouts: Timeouts | None = None
    """None: the gateway's."""
    verify: bool = True
    ca_file: str | None = None
    proxy: Secret | None = None
    """URL of the egress proxy for this origin (it may hold a password)."""
    prices: tuple[Price, ...] | None = None
    """What it charges; None: unknown, empty: nothing."""
    weight: float | None = None
    """Part of the model's requests that begin here, against the other providers'; None
    and 0: only after those that have one."""
    retry_count: int | None = None
    """Tries after the first; None: the model's."""
    breaker: BreakerPolicy | None = None
    """None: the model's."""
    context_tokens: int | None = None
    """What it can hold; None: what the model says."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``[models]``."""

    name: str
    capabilities: frozenset[str]
    routing: tuple[str, ...]
    """Names of providers, in the order to try them."""
    providers: dict[str, ProviderSettings]
    timeouts: Timeouts | None = None
    policy: Policy | None = None
    """None: the gateway's."""
    fallback_models: tuple[str, ...] = ()
    """Public names, in the order to try them when every provider of this model has
    failed; theirs are not followed in turn."""
    context_tokens: int | None = None
    """What its providers can hold unless they say otherwise; None if unknown."""
    created: int = 0
    """Unix seconds for ``GET /v1/models``; 0 if unknown."""
    table_id: str = ""
    """Id in the model table, where a caller's key calls the model something else; it
    tells models apart that have one public name for two callers. Empty: the name."""

    @property
    def key(self) -> str:
        """The id in the model table, whatever callers call it."""
        return self.table_id or self.name


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The ``[gateway]`` table."""

    bind_address: str = "127.0.0.1:3000"
    """``host:port``, ``[v6]:port`` or ``unix:/path``."""
    base_path: str = ""
    """Empty, or a path that begins with a slash and does not end with one."""
    debug: bool = False
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    policy: Policy = Policy()
    retry_share: RetryShare = RetryShare()
    hedge_share: HedgeShare = HedgeShare()
    server: ServerTimeouts = ServerTimeouts()
    cors: Cors = Cors()
    half_close: Literal["abort", "answer"] = "abort"
    authentication: bool | None = None
    """None: off on loopback, required elsewhere."""
    observability: bool | None = None
    """True: do not start without a store; False: keep no records; None: if there is
    one."""
    records: RecordSettings = RecordSettings()
    cache: CacheSettings = CacheSettings()
    fetch: FetchSettings = FetchSettings()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One whole configuration; an exchange keeps the one it began with."""

    gateway: GatewaySettings = GatewaySettings()
    models: dict[str, Model] = {}
    """By public name, in the order of the file."""
    shorthand: dict[str, ProviderSettings] = {}
    """By provider type: what ``type::model`` means, with an empty ``model``. Types
    whose default key is not set are absent."""
    missing_keys: dict[str, str] = {}
    """By provider type: the variable that would enable its shorthand."""
    config_id: str = ""
    """Short hash of the files' text, in logs and metrics."""
    access: Access | None = None
    """Who may use what; None: authentication is off, everybody may use everything."""
    warnings: tuple[str, ...] = ()
    """What the files ask for and will not get, each with its place; harmless enough
    to start."""

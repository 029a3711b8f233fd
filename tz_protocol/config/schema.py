"""The shape of the configuration, table by table.

The one rule: every key is named here, and a key that is not is refused. Values mean
nothing yet: ``gateway.py`` and ``models.py`` make settings of them. Durations are
given in milliseconds (``_ms``) or seconds (``_s``), never both.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

__all__ = [
    "YEAR",
    "CorsTable",
    "EmbeddingModelTable",
    "FetchTable",
    "GatewayTable",
    "HedgeBudgetTable",
    "LimitsTable",
    "ModelTable",
    "PolicyTable",
    "ProviderRetriesTable",
    "ProviderTable",
    "ProviderTypeTable",
    "RetriesTable",
    "RetryBudgetTable",
    "ServerTimeoutsTable",
    "Table",
    "TimeoutsTable",
]

YEAR = 31_536_000
"""Seconds: the longest duration that is taken for meant."""


class Table(BaseModel):
    """Base of every table: no conversion, no unknown key."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def unsupported(subject: str) -> Any:
    """Return a validator that refuses true: *subject* is not built yet."""

    def refuse(value: bool | None) -> bool | None:
        if value:
            raise PydanticCustomError(
                "unsupported",
                "{subject} is not supported yet; set this to false or remove it",
                {"subject": subject},
            )
        return value

    return AfterValidator(refuse)


def refused_table(subject: str) -> Any:
    """Return a validator that refuses a table unless it is empty or switched off."""

    def refuse(value: dict[str, Any]) -> dict[str, Any]:
        if value and value.get("enabled") is not False:
            raise PydanticCustomError(
                "unsupported",
                "{subject} is not supported yet; remove this table",
                {"subject": subject},
            )
        return value

    return AfterValidator(refuse)


Ms = Annotated[float, Field(gt=0, le=YEAR * 1000, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=YEAR, allow_inf_nan=False)]
MsOrZero = Annotated[float, Field(ge=0, le=YEAR * 1000, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, le=YEAR, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=2**53)]
CountOrZero = Annotated[int, Field(ge=0, le=2**53)]
OnUnsupported = Literal["error", "warn", "drop"]
"""What becomes of a parameter that a provider cannot be told."""
Location = Any
"""A credential's location: a string or a table; ``credentials.py`` reads it."""


class NonStreamingTable(Table):
    """TensorZero's spelling of the deadline of a whole answer."""

    total_ms: Ms | None = None


class StreamingTable(Table):
    """TensorZero's spelling of the deadlines of a stream."""

    ttft_ms: Ms | None = None
    total_ms: Ms | None = None


class TimeoutsTable(Table):
    """``timeouts`` of the gateway, of a model or of a provider."""

    connect_ms: Ms | None = None
    connect_s: Seconds | None = None
    first_content_ms: Ms | None = None
    first_content_s: Seconds | None = None
    idle_ms: Ms | None = None
    idle_s: Seconds | None = None
    total_ms: Ms | None = None
    total_s: Seconds | None = None
    stream_total_ms: Ms | None = None
    stream_total_s: Seconds | None = None
    non_streaming: NonStreamingTable = NonStreamingTable()
    streaming: StreamingTable = StreamingTable()


class ProviderRetriesTable(Table):
    """``retries`` of a provider: how often it may be tried again."""

    count: Annotated[int, Field(ge=0, le=100)] | None = None
    num_retries: Annotated[int, Field(ge=0, le=100)] | None = None
    """TensorZero's word for ``count``."""


class RetriesTable(ProviderRetriesTable):
    """``retries`` of the gateway or of a model: further rounds, and pauses."""

    base_ms: Ms | None = None
    base_s: Seconds | None = None
    cap_ms: Ms | None = None
    cap_s: Seconds | None = None
    max_delay_s: Seconds | None = None
    """TensorZero's word for ``cap_s``."""
    retry_after_cap_ms: MsOrZero | None = None
    retry_after_cap_s: SecondsOrZero | None = None
    within_ms: MsOrZero | None = None
    within_s: SecondsOrZero | None = None


class BreakerTable(Table):
    """``breaker`` of the gateway, of a model or of a provider."""

    enabled: bool | None = None
    failures: Count | None = None
    failures_alone: Count | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    volume: Count | None = None
    window_ms: Ms | None = None
    window_s: Seconds | None = None
    rest_ms: Ms | None = None
    rest_s: Seconds | None = None
    rest_max_ms: Ms | None = None
    rest_max_s: Seconds | None = None
    ramp_ms: MsOrZero | None = None
    ramp_s: SecondsOrZero | None = None
    cooldown_max_ms: MsOrZero | None = None
    cooldown_max_s: SecondsOrZero | None = None
    demotion_ms: MsOrZero | None = None
    demotion_s: SecondsOrZero | None = None


class PolicyTable(Table):
    """What the gateway and each model may set of retries, hedging and streams."""

    retries: RetriesTable = RetriesTable()
    breaker: BreakerTable = BreakerTable()
    hedge_after_ms: MsOrZero | None = None
    """0: never."""
    hedge_after_s: SecondsOrZero | None = None
    hold_events: Annotated[int, Field(ge=0, le=1_000)] | None = None
    hold_ms: MsOrZero | None = None
    hold_s: SecondsOrZero | None = None
    on_malformed_event: Literal["skip", "error"] | None = None
    ping_after_ms: MsOrZero | None = None
    """0: never."""
    ping_after_s: SecondsOrZero | None = None


class RetryBudgetTable(Table):
    """``[gateway.retry_budget]``: how many exchanges may retry at one time."""

    share: Annotated[float, Field(ge=0, le=1)] | None = None
    minimum: CountOrZero | None = None


class HedgeBudgetTable(Table):
    """``[gateway.hedge_budget]``: how many further requests hedging may cause."""

    share: Annotated[float, Field(ge=0, le=1)] | None = None
    burst: Count | None = None


class ServerTimeoutsTable(Table):
    """``[gateway.server_timeouts]``: deadlines of a client's connection."""

    head_ms: Ms | None = None
    head_s: Seconds | None = None
    body_ms: Ms | None = None
    body_s: Seconds | None = None
    idle_ms: Ms | None = None
    idle_s: Seconds | None = None
    write_ms: Ms | None = None
    write_s: Seconds | None = None
    drain_ms: Ms | None = None
    drain_s: Seconds | None = None
    goodbye_ms: Ms | None = None
    goodbye_s: Seconds | None = None


class LimitsTable(Table):
    """``[gateway.limits]``; the names are those of ``types.settings.Limits``."""

    head_bytes: Annotated[int, Field(ge=256, le=1_048_576)] | None = None
    line_bytes: Annotated[int, Field(ge=64, le=1_048_576)] | None = None
    headers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    body_bytes: Count | None = None
    requests_per_connection: Count | None = None
    connections: Count | None = None
    requests: Count | None = None
    queue: CountOrZero | None = None
    queue_timeout_ms: Ms | None = None
    queue_timeout_s: Seconds | None = None
    body_memory: Count | None = None
    response_bytes: Count | None = None
    event_bytes: Count | None = None
    emulated_choices: Annotated[int, Field(ge=1, le=128)] | None = None
    """OpenAI's own ``n`` ends at 128."""
    pool_per_origin: Count | None = None
    pool_idle: CountOrZero | None = None
    pool_idle_timeout_ms: Ms | None = None
    pool_idle_timeout_s: Seconds | None = None


class FetchTable(Table):
    """``[gateway.fetch]``: the links of callers that the gateway follows itself."""

    enabled: bool | None = None
    timeout_ms: Ms | None = None
    timeout_s: Seconds | None = None
    max_bytes: Count | None = None
    max_total_bytes: Count | None = None
    max_links: Count | None = None
    max_redirects: Annotated[int, Field(ge=0, le=20)] | None = None
    allow_http: bool | None = None
    allow_private: bool | None = None
    allowed_ports: list[Annotated[int, Field(ge=1, le=65_535)]] | None = None
    allowed_hosts: list[str] | None = None
    ca_file: str | None = None
    through_proxy: bool | None = None


class CorsTable(Table):
    """``[gateway.cors]``."""

    allowed_origins: list[str] = []
    max_age_ms: Ms | None = None
    max_age_s: Seconds | None = None


class AuthCacheTable(Table):
    """TensorZero's cache of keys; here every key is at hand."""

    enabled: bool = True
    ttl_ms: Ms | None = None


class AuthenticationTable(Table):
    """``[gateway.authentication]``; TensorZero calls it ``auth``."""

    enabled: bool | None = None
    """None: on where there are keys, or where other machines can reach the gateway."""
    on_unavailable: Literal["cached", "deny"] = "cached"
    cached_for_ms: Ms | None = None
    cached_for_s: Seconds | None = None
    redis_credentials: list[Location] = []
    """Locations that models from Redis may name, wherever they send them."""
    cache: AuthCacheTable = AuthCacheTable()


class BatchWritesTable(Table):
    """How records are batched. They always are; TensorZero makes that a choice."""

    enabled: bool = True
    flush_interval_ms: Ms | None = None
    flush_interval_s: Seconds | None = None
    max_rows: Count | None = None
    max_bytes: Count | None = None
    max_rows_postgres: Count | None = None
    """Harmless: there is no Postgres."""
    write_queue_capacity: Count | None = None
    """Records in memory."""
    queue_bytes: Count | None = None


class SpoolTable(Table):
    """``[gateway.observability.spool]``; names are those of ``SpoolSettings``."""

    folder: str | None = None
    bytes: Count | None = None
    when_full: Literal["drop_newest", "drop_oldest", "reject_requests"] | None = None
    is_synced: bool | None = None


class ObservabilityTable(Table):
    """``[gateway.observability]``: records in a database."""

    enabled: bool | None = None
    """None: on if there is a store."""
    durability: Literal["async", "spool", "sync"] | None = None
    async_writes: bool = False
    """TensorZero's word for ``durability = "async"``."""
    backend: Literal["auto", "clickhouse"] = "auto"
    batch_writes: BatchWritesTable = BatchWritesTable()
    capture: Literal["full", "redacted", "none"] | None = None
    content_bytes: Count | None = None
    insert_timeout_ms: Ms | None = None
    insert_timeout_s: Seconds | None = None
    spool: SpoolTable = SpoolTable()
    ttl_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    disable_automatic_migrations: bool = False
    kafka: Annotated[dict[str, Any], refused_table("Kafka")] = {}


class TracesTable(Table):
    """``[gateway.export.otlp.traces]``."""

    enabled: Annotated[bool, unsupported("export of traces")] = False
    extra_headers: dict[str, str] = {}
    format: Literal["opentelemetry", "openinference"] = "opentelemetry"
    include_content: bool = False


class OtlpTable(Table):
    """``[gateway.export.otlp]``."""

    traces: TracesTable = TracesTable()


class ExportTable(Table):
    """``[gateway.export]``."""

    otlp: OtlpTable = OtlpTable()


class CacheValkeyTable(Table):
    """``[gateway.cache.valkey]``."""

    ttl_s: Seconds | None = None


class CacheTable(Table):
    """``[gateway.cache]``."""

    enabled: bool | None = None
    """False: what callers ask of it has no effect."""
    backend: Literal["auto", "clickhouse", "valkey"] = "auto"
    """Harmless: answers are in memory and in ClickHouse, whatever it says."""
    memory_bytes: CountOrZero | None = None
    entry_bytes: Count | None = None
    lookup_timeout_ms: Ms | None = None
    lookup_timeout_s: Seconds | None = None
    scope: Literal["tenant", "global"] | None = None
    valkey: CacheValkeyTable = CacheValkeyTable()


class MetricsTable(Table):
    """``[gateway.metrics]``."""

    tensorzero_inference_latency_overhead_seconds_buckets: list[float] = []


class GatewayTable(PolicyTable):
    """``[gateway]``: our keys, the reference's and TensorZero's."""

    bind_address: str | None = None
    base_path: str = ""
    debug: bool = False
    half_close: Literal["abort", "answer"] = "abort"
    on_unsupported_param: OnUnsupported | None = None
    limits: LimitsTable = LimitsTable()
    timeouts: TimeoutsTable = TimeoutsTable()
    retry_budget: RetryBudgetTable = RetryBudgetTable()
    hedge_budget: HedgeBudgetTable = HedgeBudgetTable()
    server_timeouts: ServerTimeoutsTable = ServerTimeoutsTable()
    cors: CorsTable = CorsTable()
    fetch: FetchTable = FetchTable()
    authentication: AuthenticationTable | None = None
    auth: AuthenticationTable | None = None
    observability: ObservabilityTable = ObservabilityTable()
    export: ExportTable = ExportTable()
    cache: CacheTable = CacheTable()
    metrics: MetricsTable = MetricsTable()
    global_outbound_http_timeout_ms: Ms | None = None
    relay: Annotated[dict[str, Any], refused_table("relaying to a gateway")] = {}
    fetch_and_encode_input_files_before_inference: Annotated[
        bool, unsupported("fetching the files of a request")
    ] = False
    unstable_error_json: Annotated[bool, unsupported("TensorZero's error JSON")] = False
    # Nothing is reported to anybody, there are no templates and no feedback: what
    # these switch does not exist, whichever way they are set.
    disable_pseudonymous_usage_analytics: bool = True
    enable_template_filesystem_access: bool = False
    template_filesystem_access: dict[str, Any] = {}
    unstable_disable_feedback_target_validation: bool = False


class ModelTable(PolicyTable):
    """``[models.NAME]``; what is in ``providers`` is checked by its provider's row."""

    routing: list[str]
    endpoints: list[str] = ["chat"]
    providers: dict[str, dict[str, Any]] = {}
    timeouts: TimeoutsTable = TimeoutsTable()
    fallback_models: list[str] = []
    context_tokens: Count | None = None
    skip_relay: bool = False
    """Harmless: there is no relay to skip."""


class EmbeddingModelTable(PolicyTable):
    """``[embedding_models.NAME]``: a model with the one capability."""

    routing: list[str]
    providers: dict[str, dict[str, Any]] = {}
    timeouts: TimeoutsTable = TimeoutsTable()
    fallback_models: list[str] = []
    context_tokens: Count | None = None
    timeout_ms: Ms | None = None
    timeout_s: Seconds | None = None


class ExtraBodyItem(Table):
    """One member that is added to every JSON body."""

    pointer: str
    value: Any


class ExtraHeaderItem(Table):
    """One header that is added to every request."""

    name: str
    value: str


class ProviderTable(BaseModel):
    """What every ``[models.NAME.providers.NAME]`` may have.

    Further keys are allowed here because the provider's row says which; ``models.py``
    refuses the others.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    type: str
    model_name: str | None = None
    api_base: str | None = None
    endpoint: str | None = None
    api_key_location: Location = None
    credential_location: Location = None
    """TensorZero's name for it at Google's."""
    on_unsupported_param: OnUnsupported | None = None
    extra_body: list[ExtraBodyItem] = []
    extra_headers: list[ExtraHeaderItem] = []
    timeouts: TimeoutsTable = TimeoutsTable()
    timeout_ms: Ms | None = None
    timeout_s: Seconds | None = None
    weight: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None
    retries: ProviderRetriesTable = ProviderRetriesTable()
    breaker: BreakerTable = BreakerTable()
    context_tokens: Count | None = None
    cost: Any = None
    """``prices.py`` reads it."""
    verify: bool = True
    ca_file: str | None = None
    discard_unknown_chunks: Annotated[
        bool, unsupported("discarding unknown chunks")
    ] = False


class ProviderTypeTable(Table):
    """``[provider_types.TYPE]``: other defaults for one type."""

    class Defaults(Table):
        """Where the keys of this type are, unless a table says otherwise."""

        api_key_location: Location = None
        credential_location: Location = None

    defaults: Defaults = Defaults()

"""The tables in ClickHouse, and how a database comes to have them.

The one rule: every statement may be carried out again, by several gateways at once and
on a database that TensorZero made: nothing is dropped, renamed or changed but added to.
``flows/migrate.py`` carries them out. Names, types and keys of the first four tables
are TensorZero's, so that its queries and dashboards find what they look for; so are the
tables that follow from them (``views.py``). ``TensorZeroMigration`` is its own: what it
says is true of TensorZero's migrations only.

``JsonInference`` stays empty: what asks for a model and not for a function is an
inference of ``tensorzero::default``, which is a chat function whatever format the
answer was to have. It is there for the queries that read both tables.

Source: https://www.tensorzero.com/docs/gateway/data-model.
"""

from __future__ import annotations

from dataclasses import dataclass

from tz_protocol.records.views import (
    TTL_EXPRESSIONS,
    WINDOW,
    lookup_statements,
    statistics_statements,
)

__all__ = [
    "CREATE_VERSIONS",
    "MIGRATIONS",
    "TTL_COLUMNS",
    "VERSIONS",
    "Migration",
    "ttl_statement",
]

VERSIONS = "TzMigration"
"""Name of the table of what was carried out. TensorZero's own is left alone."""

CREATE_VERSIONS = f"""\
CREATE TABLE IF NOT EXISTS {VERSIONS} (
    version UInt32,
    name String,
    gateway String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = ReplacingMergeTree(applied_at) ORDER BY version"""

_WINDOW = f"SETTINGS {WINDOW}"


@dataclass(frozen=True, slots=True)
class Migration:
    """Some statements, and the version of the database that has them."""

    version: int
    name: str
    statements: tuple[str, ...]
    needs: str = ""
    """A function without which they fail, and are left out until a server has it."""
    tables: tuple[str, ...] = ()
    """What is missing then."""


_CHAT_INFERENCE = f"""\
CREATE TABLE IF NOT EXISTS ChatInference (
    id UUID,
    function_name LowCardinality(String),
    variant_name LowCardinality(String),
    episode_id UUID,
    input String,
    output String,
    tool_params String,
    inference_params String,
    processing_time_ms Nullable(UInt32),
    timestamp DateTime MATERIALIZED UUIDv7ToDateTime(id),
    tags Map(String, String),
    extra_body Nullable(String),
    ttft_ms Nullable(UInt32),
    dynamic_tools Array(String),
    dynamic_provider_tools Array(String),
    allowed_tools Nullable(String),
    tool_choice Nullable(String),
    parallel_tool_calls Nullable(Bool),
    snapshot_hash Nullable(UInt256)
) ENGINE = MergeTree ORDER BY (function_name, variant_name, episode_id)
{_WINDOW}"""

_JSON_INFERENCE = f"""\
CREATE TABLE IF NOT EXISTS JsonInference (
    id UUID,
    function_name LowCardinality(String),
    variant_name LowCardinality(String),
    episode_id UUID,
    input String,
    output String,
    output_schema String,
    inference_params String,
    processing_time_ms Nullable(UInt32),
    timestamp DateTime MATERIALIZED UUIDv7ToDateTime(id),
    tags Map(String, String),
    extra_body Nullable(String),
    auxiliary_content String,
    ttft_ms Nullable(UInt32),
    snapshot_hash Nullable(UInt256)
) ENGINE = MergeTree ORDER BY (function_name, variant_name, episode_id)
{_WINDOW}"""

_FINISH = (
    "Nullable(Enum8('stop' = 1, 'length' = 2, 'tool_call' = 3, "
    "'content_filter' = 4, 'unknown' = 5, 'stop_sequence' = 6))"
)

_MODEL_INFERENCE = f"""\
CREATE TABLE IF NOT EXISTS ModelInference (
    id UUID,
    inference_id UUID,
    raw_request String,
    raw_response String,
    model_name LowCardinality(String),
    model_provider_name LowCardinality(String),
    input_tokens Nullable(UInt32),
    output_tokens Nullable(UInt32),
    response_time_ms Nullable(UInt32),
    ttft_ms Nullable(UInt32),
    timestamp DateTime MATERIALIZED UUIDv7ToDateTime(id),
    system Nullable(String),
    input_messages String,
    output String,
    cached Bool DEFAULT false,
    finish_reason {_FINISH},
    snapshot_hash Nullable(UInt256),
    cost Nullable(Decimal(18, 9)),
    provider_cache_read_input_tokens Nullable(UInt32),
    provider_cache_write_input_tokens Nullable(UInt32)
) ENGINE = MergeTree ORDER BY inference_id
{_WINDOW}"""

_MODEL_INFERENCE_CACHE = f"""\
CREATE TABLE IF NOT EXISTS ModelInferenceCache (
    short_cache_key UInt64,
    long_cache_key FixedString(64),
    timestamp DateTime DEFAULT now(),
    output String,
    raw_request String,
    raw_response String,
    is_deleted Bool DEFAULT false,
    input_tokens Nullable(UInt32),
    output_tokens Nullable(UInt32),
    finish_reason {_FINISH},
    INDEX idx_long_cache_key long_cache_key TYPE bloom_filter GRANULARITY 100
) ENGINE = ReplacingMergeTree(timestamp, is_deleted)
PARTITION BY toYYYYMM(timestamp)
ORDER BY (short_cache_key, long_cache_key)
PRIMARY KEY short_cache_key
SETTINGS index_granularity = 256"""

_EXCHANGE = f"""\
CREATE TABLE IF NOT EXISTS Exchange (
    id UUID,
    started_at DateTime64(3, 'UTC'),
    request_id String,
    episode_id Nullable(UUID),
    endpoint LowCardinality(String),
    asked_model String,
    model LowCardinality(String),
    provider LowCardinality(String),
    is_stream Bool,
    outcome LowCardinality(String),
    stage LowCardinality(String),
    status Nullable(UInt16),
    error LowCardinality(String),
    cache LowCardinality(String),
    key_id LowCardinality(String),
    project_id LowCardinality(String),
    endpoint_id LowCardinality(String),
    model_id LowCardinality(String),
    usage LowCardinality(String),
    input_tokens Nullable(UInt32),
    output_tokens Nullable(UInt32),
    cache_read_tokens Nullable(UInt32),
    cache_write_tokens Nullable(UInt32),
    reasoning_tokens Nullable(UInt32),
    cost Nullable(Decimal(18, 9)),
    price_id LowCardinality(String),
    duration_ms Float64,
    first_content_ms Nullable(Float64),
    bytes_in UInt64,
    bytes_out UInt64,
    attempts Nested (
        provider LowCardinality(String),
        provider_type LowCardinality(String),
        model LowCardinality(String),
        upstream_model LowCardinality(String),
        status Nullable(UInt16),
        error LowCardinality(String),
        started_ms Float64,
        head_ms Nullable(Float64),
        first_content_ms Nullable(Float64),
        total_ms Nullable(Float64),
        is_reused Bool,
        request_id String
    ),
    dropped Array(String),
    skipped_events UInt32,
    tags Map(String, String),
    config_id LowCardinality(String),
    gateway LowCardinality(String),
    written_at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(started_at)
ORDER BY (started_at, id)
{_WINDOW}"""

_ADD = "ADD COLUMN IF NOT EXISTS"

_ADDED_TO_THEIRS = tuple(
    f"ALTER TABLE {table} {change}"
    for table, changes in {
        "ModelInference": (
            f"{_ADD} cost Nullable(Decimal(18, 9))",
            f"{_ADD} provider_cache_read_input_tokens Nullable(UInt32)",
            f"{_ADD} provider_cache_write_input_tokens Nullable(UInt32)",
            f"MODIFY SETTING {WINDOW}",
        ),
        "ChatInference": (
            f"{_ADD} ttft_ms Nullable(UInt32)",
            f"{_ADD} dynamic_tools Array(String)",
            f"{_ADD} tool_choice Nullable(String)",
            f"{_ADD} parallel_tool_calls Nullable(Bool)",
            f"MODIFY SETTING {WINDOW}",
        ),
    }.items()
    for change in changes
)
"""For a database that an older TensorZero made."""

_ADDED_TO_EXCHANGE = tuple(
    f"ALTER TABLE Exchange {_ADD} {column}"
    for column in (
        "trace_id String",
        "parent_span_id String",
        "trace_flags Nullable(UInt8)",
        "`attempts.connect_ms` Array(Nullable(Float64))",
        "`attempts.is_hedge` Array(Bool)",
        "`attempts.calls` Array(UInt16)",
        "`attempts.input_tokens` Array(Nullable(UInt32))",
        "`attempts.output_tokens` Array(Nullable(UInt32))",
    )
)

_DEFAULTS_OF_ATTEMPTS = tuple(
    f"ALTER TABLE Exchange MODIFY COLUMN `attempts.{name}` Array({kind}) "
    f"DEFAULT arrayMap(x -> {value}, `attempts.provider`)"
    for name, kind, value in (
        ("connect_ms", "Nullable(Float64)", "NULL"),
        ("is_hedge", "Bool", "false"),
        ("calls", "UInt16", "0"),
        ("input_tokens", "Nullable(UInt32)", "NULL"),
        ("output_tokens", "Nullable(UInt32)", "NULL"),
    )
)
"""Nested columns have one length, or the row is refused: while gateways are replaced,
those that do not know a column go on writing rows without it. A column that is added
to ``attempts`` needs such a default from the start."""

MIGRATIONS = (
    Migration(
        1,
        "tables",
        (
            _CHAT_INFERENCE,
            _JSON_INFERENCE,
            _MODEL_INFERENCE,
            _MODEL_INFERENCE_CACHE,
            _EXCHANGE,
            *_ADDED_TO_THEIRS,
        ),
    ),
    Migration(2, "lookup tables", lookup_statements()),
    Migration(
        3,
        "statistics",
        statistics_statements(),
        needs="quantilesTDigest",
        tables=("ModelProviderStatistics", "VariantStatistics"),
    ),
    Migration(4, "traces and attempts", _ADDED_TO_EXCHANGE),
    Migration(5, "defaults of attempts", _DEFAULTS_OF_ATTEMPTS),
)
"""In order; a new one is added at the end and none is ever changed."""

TTL_COLUMNS = {
    "ChatInference": "timestamp",
    "JsonInference": "timestamp",
    "ModelInference": "timestamp",
    "Exchange": "toDateTime(started_at)",
    **TTL_EXPRESSIONS,
}
"""By table: from when on a row's days count."""


def ttl_statement(table: str, days: int, create: str) -> str | None:
    """Return what makes rows of *table* go after *days*; None if they do already.

    Args:
        table: One of ``TTL_COLUMNS``.
        days: At least 1.
        create: The table's definition, as ``system.tables`` has it.
    """
    if f"toIntervalDay({days})" in create.partition(" TTL ")[2]:
        return None
    return (
        f"ALTER TABLE {table} MODIFY TTL {TTL_COLUMNS[table]} + toIntervalDay({days})"
    )

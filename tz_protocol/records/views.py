"""TensorZero's lookup tables and statistics, and the views that fill them.

The one rule: each of them follows from rows of ``ModelInference``, ``ChatInference``
and ``JsonInference`` alone, and the server fills it as it takes those; nothing is ever
inserted here but what was there before the view was. Names, columns, keys and what is
counted are those of TensorZero 2026.6, so that what its UI and API ask is answered.

Not here: what follows from feedback, datasets and evaluations, of which there are none.
Their tables are not made empty either: they would say that feedback is taken.

Source: https://www.tensorzero.com/docs/gateway/data-model, "Materialized Views".
"""

from __future__ import annotations

import msgspec

__all__ = [
    "FUNCTIONS",
    "LOOKUPS",
    "QUANTILES",
    "STATISTICS",
    "TTL_EXPRESSIONS",
    "WINDOW",
    "lookup_statements",
    "statistics_statements",
]

WINDOW = "non_replicated_deduplication_window = 10000"
"""Inserts whose tokens a table remembers: hours of batches. A replicated table, which
ClickHouse Cloud makes of these, has a window of its own. A view's target needs one as
well, or a batch that is repeated is counted once more there."""

_MARK = "tz-gateway"
"""The comment of a view that we made: only what was there before *our* views is copied;
TensorZero has copied what was there before its own."""

_UUID = (
    "reinterpretAsUUID(concat(substring(reinterpretAsString({0}), 9, 8), "
    "substring(reinterpretAsString({0}), 1, 8)))"
)

FUNCTIONS = {
    "toUInt128": (
        "CREATE FUNCTION IF NOT EXISTS toUInt128 AS (x) -> "
        "if(toTypeName(x) = 'UUID', reinterpretAsUInt128(reverse(unhex(replaceAll("
        "toString(x), '-', '')))), reinterpretAsUInt128(x))"
    ),
    "uint_to_uuid": (
        f"CREATE FUNCTION IF NOT EXISTS uint_to_uuid AS (x) -> {_UUID.format('x')}"
    ),
}
"""What queries and views call, and how it is made where it is missing. ``uint_to_uuid``
is TensorZero's own; ``toUInt128`` every server has, but not the small embedded engine.
A server's own function wins over ours of the same name, so that a folder may go from
the small engine to the full one. In this order."""

_LEVELS = (
    *(0.001, 0.005),
    *(n / 100 for n in range(1, 10)),
    *(n / 100 for n in range(10, 90, 2)),
    *(n / 100 for n in range(90, 99)),
    *(n / 1000 for n in range(990, 1000)),
)

QUANTILES = ", ".join(f"{level:g}" for level in _LEVELS)
"""The levels of TensorZero's digests, which are a part of the columns' types."""

_ID = "id_uint UInt128"
_EPISODE_ID = "episode_id_uint UInt128"
_FUNCTION_NAME = "function_name LowCardinality(String)"
_VARIANT_NAME = "variant_name LowCardinality(String)"
_FUNCTION_TYPE = "function_type Enum8('chat' = 1, 'json' = 2)"
_HASH = "snapshot_hash Nullable(UInt256)"

_DIGEST = f"AggregateFunction(quantilesTDigest({QUANTILES}), Nullable(UInt32))"
_SUM = "AggregateFunction(sum, Nullable(UInt32))"
_TOTALS = (
    f"total_input_tokens {_SUM}",
    f"total_output_tokens {_SUM}",
    "count AggregateFunction(count, UInt32)",
    "total_cost AggregateFunction(sum, Nullable(Decimal(18, 9)))",
    f"total_provider_cache_read_input_tokens {_SUM}",
    f"total_provider_cache_write_input_tokens {_SUM}",
    "count_with_cost AggregateFunction(count, Nullable(Decimal(18, 9)))",
)


class Target(msgspec.Struct, frozen=True):
    """A table that views fill."""

    name: str
    columns: tuple[str, ...]
    engine: str
    """With its key."""

    def create(self) -> str:
        """Return the statement that makes it."""
        return (
            f"CREATE TABLE IF NOT EXISTS {self.name} ({', '.join(self.columns)}) "
            f"ENGINE = {self.engine} SETTINGS {WINDOW}"
        )


class View(msgspec.Struct, frozen=True):
    """What fills a table from rows of another."""

    name: str
    target: str
    columns: tuple[tuple[str, str], ...]
    """(name, expression) pairs."""
    source: str
    """What stands behind FROM."""
    condition: str = "1 = 1"
    """Never nothing: COMMENT would be taken for a name of the table before it."""
    group_by: str = ""

    def create(self) -> str:
        """Return the statement that makes it."""
        return (
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {self.name} TO {self.target} AS "
            f"{self._select(self.condition)} COMMENT '{_MARK}'"
        )

    def fill(self) -> str:
        """Return the statement that takes what was there before the view was.

        However many gateways send it, and however often, it counts once: by its token.
        """
        before = (
            f"timestamp <= (SELECT if(comment = '{_MARK}', metadata_modification_time, "
            "toDateTime(0)) FROM system.tables "
            f"WHERE database = currentDatabase() AND name = '{self.name}')"
        )
        names = ", ".join(name for name, _ in self.columns)
        return (
            f"INSERT INTO {self.target} ({names}) "
            f"{self._select(f'{self.condition} AND {before}')} "
            f"SETTINGS insert_deduplication_token = 'TzMigration-{self.name}', "
            "max_insert_threads = 1"
        )

    def _select(self, condition: str) -> str:
        columns = ", ".join(
            name if name == expression else f"{expression} AS {name}"
            for name, expression in self.columns
        )
        sql = f"SELECT {columns} FROM {self.source} WHERE {condition}"
        if self.group_by:
            sql += f" GROUP BY {self.group_by}"
        return sql


def _same(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, name) for name in names)


# -- lookups --------------------------------------------------------------------

LOOKUPS = (
    Target(
        "InferenceById",
        (_ID, _FUNCTION_NAME, _VARIANT_NAME, "episode_id UUID", _FUNCTION_TYPE, _HASH),
        "ReplacingMergeTree(id_uint) ORDER BY id_uint",
    ),
    Target(
        "InferenceByEpisodeId",
        (_EPISODE_ID, _ID, _FUNCTION_NAME, _VARIANT_NAME, _FUNCTION_TYPE, _HASH),
        "ReplacingMergeTree(id_uint) ORDER BY (episode_id_uint, id_uint)",
    ),
    Target(
        "InferenceTag",
        (_FUNCTION_NAME, "key String", "value String", "inference_id UUID", _HASH),
        "MergeTree ORDER BY (function_name, key, value)",
    ),
    Target(
        "TagInference",
        (
            "key String",
            "value String",
            _FUNCTION_NAME,
            _VARIANT_NAME,
            "episode_id UUID",
            "inference_id UUID",
            _FUNCTION_TYPE,
            "is_deleted Bool DEFAULT false",
            "updated_at DateTime64(6, 'UTC') DEFAULT now64()",
            _HASH,
        ),
        "ReplacingMergeTree(updated_at, is_deleted) "
        "ORDER BY (key, value, inference_id)",
    ),
    Target(
        "EpisodeById",
        (
            _EPISODE_ID,
            "count SimpleAggregateFunction(sum, UInt64)",
            "inference_ids AggregateFunction(groupArray, UUID)",
            "min_inference_id_uint SimpleAggregateFunction(min, UInt128)",
            "max_inference_id_uint SimpleAggregateFunction(max, UInt128)",
        ),
        "AggregatingMergeTree ORDER BY episode_id_uint",
    ),
    Target(
        "CumulativeUsage",
        ("type LowCardinality(String)", "count UInt64"),
        "SummingMergeTree ORDER BY type",
    ),
)

_NAMES = _same("function_name", "variant_name")
_TAGS = (*_same("key"), ("value", "tags[key]"))


def _id_views(kind: str) -> tuple[View, ...]:
    """Return the views on one table of inferences that are about ids."""
    source = f"{kind}Inference"
    by_id = ("id_uint", "toUInt128(id)")
    by_episode = ("episode_id_uint", "toUInt128(episode_id)")
    rest = (("function_type", f"'{kind.lower()}'"), *_same("snapshot_hash"))
    return (
        View(
            f"{kind}InferenceByIdView",
            "InferenceById",
            (by_id, *_NAMES, *_same("episode_id"), *rest),
            source,
        ),
        View(
            f"{kind}InferenceByEpisodeIdView",
            "InferenceByEpisodeId",
            (by_episode, by_id, *_NAMES, *rest),
            source,
        ),
        View(
            f"EpisodeById{kind}View",
            "EpisodeById",
            (
                by_episode,
                ("count", "count()"),
                ("inference_ids", "groupArrayState(id)"),
                ("min_inference_id_uint", "min(toUInt128(id))"),
                ("max_inference_id_uint", "max(toUInt128(id))"),
            ),
            source,
            group_by="episode_id_uint",
        ),
    )


def _tag_views(kind: str) -> tuple[View, ...]:
    """Return the views on one table of inferences that are about tags."""
    source = f"{kind}Inference ARRAY JOIN mapKeys(tags) AS key"
    inference_id = ("inference_id", "id")
    return (
        View(
            f"{kind}InferenceTagView",
            "InferenceTag",
            (*_same("function_name"), *_TAGS, inference_id, *_same("snapshot_hash")),
            source,
        ),
        View(
            f"Tag{kind}InferenceView",
            "TagInference",
            (
                *_TAGS,
                *_NAMES,
                *_same("episode_id"),
                inference_id,
                ("function_type", f"'{kind.lower()}'"),
                *_same("snapshot_hash"),
            ),
            source,
        ),
    )


_CUMULATIVE_USAGE = View(
    "CumulativeUsageView",
    "CumulativeUsage",
    (("type", "tupleElement(t, 1)"), ("count", "toUInt64(tupleElement(t, 2))")),
    "ModelInference ARRAY JOIN [tuple('input_tokens', ifNull(input_tokens, 0)), "
    "tuple('output_tokens', ifNull(output_tokens, 0)), "
    "tuple('model_inferences', 1)] AS t",
    # TensorZero counts requests whose tokens are known.
    condition="input_tokens IS NOT NULL",
)


def _statements(targets: tuple[Target, ...], views: tuple[View, ...]) -> list[str]:
    """Return what makes and fills them; a view comes after what it reads and fills."""
    statements = [target.create() for target in targets]
    # For a table that TensorZero made.
    statements += [f"ALTER TABLE {t.name} MODIFY SETTING {WINDOW}" for t in targets]
    for view in views:
        statements += [view.create(), view.fill()]
    return statements


def lookup_statements() -> tuple[str, ...]:
    """Return what makes the tables by which an inference is found."""
    views = [_CUMULATIVE_USAGE]
    for kind in ("Chat", "Json"):
        views += (*_id_views(kind), *_tag_views(kind))
    names = [
        f"ALTER TABLE ModelInference ADD COLUMN IF NOT EXISTS {column} DEFAULT ''"
        for column in (_FUNCTION_NAME, _VARIANT_NAME)
    ]
    return (*names, *_statements(LOOKUPS, tuple(views)))


# -- statistics -----------------------------------------------------------------

STATISTICS = (
    Target(
        "ModelProviderStatistics",
        (
            "model_name LowCardinality(String)",
            "model_provider_name LowCardinality(String)",
            "minute DateTime",
            f"response_time_ms_quantiles {_DIGEST}",
            f"ttft_ms_quantiles {_DIGEST}",
            *_TOTALS,
        ),
        "AggregatingMergeTree ORDER BY (model_name, model_provider_name, minute)",
    ),
    Target(
        "VariantStatistics",
        (
            _FUNCTION_NAME,
            _VARIANT_NAME,
            "minute DateTime",
            f"processing_time_ms_quantiles {_DIGEST}",
            f"ttft_ms_quantiles {_DIGEST}",
            *_TOTALS,
        ),
        "AggregatingMergeTree ORDER BY (function_name, variant_name, minute)",
    ),
)

_MINUTE = ("minute", "toStartOfMinute(timestamp)")
_TOKENS = tuple(
    (f"total_{name}", f"sumState({name})")
    for name in (
        "input_tokens",
        "output_tokens",
        "cost",
        "provider_cache_read_input_tokens",
        "provider_cache_write_input_tokens",
    )
)
_WITH_COST = ("count_with_cost", "countState(cost)")
_COUNT = ("count", "countState()")


def _digests(*names: str) -> tuple[tuple[str, str], ...]:
    state = f"quantilesTDigestState({QUANTILES})"
    return tuple((f"{name}_quantiles", f"{state}({name})") for name in names)


def statistics_statements() -> tuple[str, ...]:
    """Return what makes the tables of figures for each minute."""
    by_variant = "function_name, variant_name, minute"
    views = (
        View(
            "ModelProviderStatisticsView",
            "ModelProviderStatistics",
            (
                *_same("model_name", "model_provider_name"),
                _MINUTE,
                *_digests("response_time_ms", "ttft_ms"),
                *_TOKENS,
                _COUNT,
                _WITH_COST,
            ),
            "ModelInference",
            group_by="model_name, model_provider_name, minute",
        ),
        View(
            "VariantStatisticsModelView",
            "VariantStatistics",
            (*_NAMES, _MINUTE, *_TOKENS, _WITH_COST),
            "ModelInference",
            # Rows from before the column was there have no function.
            condition="function_name != ''",
            group_by=by_variant,
        ),
        *(
            View(
                f"VariantStatistics{kind}View",
                "VariantStatistics",
                (
                    *_NAMES,
                    _MINUTE,
                    *_digests("processing_time_ms", "ttft_ms"),
                    _COUNT,
                ),
                f"{kind}Inference",
                group_by=by_variant,
            )
            for kind in ("Chat", "Json")
        ),
    )
    return tuple(_statements(STATISTICS, views))


# -- how long -------------------------------------------------------------------


def _moment(uint: str) -> str:
    return f"toDateTime(UUIDv7ToDateTime({_UUID.format(uint)}))"


TTL_EXPRESSIONS = {
    "InferenceById": _moment("id_uint"),
    "InferenceByEpisodeId": _moment("id_uint"),
    "InferenceTag": "toDateTime(UUIDv7ToDateTime(inference_id))",
    "TagInference": "toDateTime(UUIDv7ToDateTime(inference_id))",
    "EpisodeById": _moment("max_inference_id_uint"),
    "ModelProviderStatistics": "minute",
    "VariantStatistics": "minute",
}
"""By table: from when on a row's days count. ``CumulativeUsage`` is of all times."""

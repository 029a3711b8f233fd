"""What TensorZero's UI and API ask of the tables, as they ask it.

The one rule: nothing is changed but the space between words; ``{name:Type}`` are the
parameters of ClickHouse's HTTP interface. What TensorZero puts together from pieces
stands here as it is put together.

Source: https://github.com/tensorzero/tensorzero, crates/tensorzero-core/src/db/
clickhouse and ui/app/utils/clickhouse.
"""

from __future__ import annotations

from tz_protocol.records.views import QUANTILES

__all__ = ["LOOKUPS", "STATISTICS", "windowed"]

LOOKUPS = {
    "model inferences of an inference": """
SELECT id, inference_id, raw_request, raw_response, system, input_messages, output,
    input_tokens, output_tokens, provider_cache_read_input_tokens,
    provider_cache_write_input_tokens, response_time_ms, model_name,
    model_provider_name, ttft_ms, cached, cost, finish_reason, snapshot_hash,
    formatDateTime(timestamp, '%Y-%m-%dT%H:%i:%SZ') as timestamp
FROM ModelInference
WHERE inference_id = {inference_id:UUID}
FORMAT JSONEachRow""",
    "model inferences of an inference, whole": """
SELECT *, formatDateTime(timestamp, '%Y-%m-%dT%H:%i:%SZ') as timestamp
FROM ModelInference WHERE inference_id = {id:String}
FORMAT JSONEachRow""",
    "inference by id": """
WITH inference AS (
    SELECT id_uint, function_name, variant_name, episode_id, function_type
    FROM InferenceById
    WHERE id_uint = toUInt128({id:UUID})
    LIMIT 1
)
SELECT c.id, c.function_name, c.variant_name, c.episode_id, c.input, c.output,
    c.tool_params, c.inference_params, c.processing_time_ms, NULL AS output_schema,
    formatDateTime(c.timestamp, '%Y-%m-%dT%H:%i:%SZ') AS timestamp,
    c.tags, 'chat' AS function_type, c.extra_body
FROM ChatInference c
WHERE 'chat' = (SELECT function_type FROM inference)
    AND c.function_name IN (SELECT function_name FROM inference)
    AND c.variant_name IN (SELECT variant_name FROM inference)
    AND c.episode_id IN (SELECT episode_id FROM inference)
    AND c.id = {id:UUID}
UNION ALL
SELECT j.id, j.function_name, j.variant_name, j.episode_id, j.input, j.output,
    NULL AS tool_params, j.inference_params, j.processing_time_ms, j.output_schema,
    formatDateTime(j.timestamp, '%Y-%m-%dT%H:%i:%SZ') AS timestamp,
    j.tags, 'json' AS function_type, j.extra_body
FROM JsonInference j
WHERE 'json' = (SELECT function_type FROM inference)
    AND j.function_name IN (SELECT function_name FROM inference)
    AND j.variant_name IN (SELECT variant_name FROM inference)
    AND j.episode_id IN (SELECT episode_id FROM inference)
    AND j.id = {id:UUID}
FORMAT JSONEachRow""",
    "inferences, newest": """
SELECT uint_to_uuid(id_uint) as id, function_name, variant_name, episode_id,
    function_type,
    formatDateTime(UUIDv7ToDateTime(uint_to_uuid(id_uint)), '%Y-%m-%dT%H:%i:%SZ')
        AS timestamp
FROM InferenceById FINAL
ORDER BY id_uint DESC
LIMIT {limit:UInt32}
FORMAT JSONEachRow""",
    "inferences of an episode before": """
SELECT uint_to_uuid(id_uint) as id, function_name, variant_name, episode_id,
    function_type,
    formatDateTime(UUIDv7ToDateTime(uint_to_uuid(id_uint)), '%Y-%m-%dT%H:%i:%SZ')
        AS timestamp
FROM InferenceById FINAL
WHERE id_uint < toUInt128(toUUID({before:String})) AND episode_id = {episode_id:String}
ORDER BY id_uint DESC
LIMIT {limit:UInt32}
FORMAT JSONEachRow""",
    "inferences of a variant after": """
SELECT id, function_name, variant_name, episode_id, function_type,
    formatDateTime(UUIDv7ToDateTime(id), '%Y-%m-%dT%H:%i:%SZ') AS timestamp
FROM (
    SELECT uint_to_uuid(id_uint) as id, id_uint, function_name, variant_name,
        episode_id, function_type,
        formatDateTime(UUIDv7ToDateTime(uint_to_uuid(id_uint)), '%Y-%m-%dT%H:%i:%SZ')
            AS timestamp
    FROM InferenceById FINAL
    WHERE id_uint > toUInt128(toUUID({after:String}))
        AND function_name = {function_name:String}
        AND variant_name = {variant_name:String}
    ORDER BY id_uint ASC
    LIMIT {limit:UInt32}
)
ORDER BY id_uint DESC
FORMAT JSONEachRow""",
    "metadata of inferences": """
SELECT uint_to_uuid(id_uint) as id, function_name, variant_name, episode_id,
    function_type,
    if(isNull(snapshot_hash), NULL, lower(hex(snapshot_hash))) as snapshot_hash
FROM InferenceById
WHERE id_uint < toUInt128({cursor_id:UUID}) AND function_name = {function_name:String}
ORDER BY id_uint DESC
LIMIT {limit:UInt64}
FORMAT JSONEachRow""",
    "list of inferences": """
SELECT * FROM (
    SELECT 'chat' as type,
        formatDateTime(i.timestamp, '%Y-%m-%dT%H:%i:%SZ') as timestamp,
        i.episode_id as episode_id, i.function_name as function_name,
        i.id as inference_id, i.input as input, '' as output_schema, i.tags as tags,
        i.tool_params as tool_params, i.dynamic_tools as dynamic_tools,
        i.dynamic_provider_tools as dynamic_provider_tools,
        i.allowed_tools as allowed_tools, i.tool_choice as tool_choice,
        i.parallel_tool_calls as parallel_tool_calls, i.variant_name as variant_name,
        i.extra_body as extra_body, i.inference_params as inference_params,
        i.processing_time_ms as processing_time_ms, i.ttft_ms as ttft_ms,
        if(isNull(i.snapshot_hash), NULL, lower(hex(i.snapshot_hash))) as snapshot_hash,
        i.output as output
    FROM ChatInference AS i
    WHERE toUInt128(i.id) < toUInt128(toUUID({p0:String}))
    ORDER BY timestamp DESC, toUInt128(id) DESC
    LIMIT {p1:UInt64}
    UNION ALL
    SELECT 'json' as type,
        formatDateTime(i.timestamp, '%Y-%m-%dT%H:%i:%SZ') as timestamp,
        i.episode_id as episode_id, i.function_name as function_name,
        i.id as inference_id, i.input as input, i.output_schema as output_schema,
        i.tags as tags, '' as tool_params, [] as dynamic_tools,
        [] as dynamic_provider_tools, NULL as allowed_tools, NULL as tool_choice,
        NULL as parallel_tool_calls, i.variant_name as variant_name,
        i.extra_body as extra_body, i.inference_params as inference_params,
        i.processing_time_ms as processing_time_ms, i.ttft_ms as ttft_ms,
        if(isNull(i.snapshot_hash), NULL, lower(hex(i.snapshot_hash))) as snapshot_hash,
        i.output as output
    FROM JsonInference AS i
    WHERE toUInt128(i.id) < toUInt128(toUUID({p0:String}))
    ORDER BY timestamp DESC, toUInt128(id) DESC
    LIMIT {p1:UInt64}
) AS combined
ORDER BY timestamp DESC, toUInt128(inference_id) DESC
LIMIT {p1:UInt64}
FORMAT JSONEachRow""",
    "count of inferences with a text": """
SELECT toUInt64(COUNT(*)) AS count FROM ChatInference AS i
WHERE i.function_name = {p0:String}
    AND (countSubstringsCaseInsensitiveUTF8(i.input, {p1:String})
        + countSubstringsCaseInsensitiveUTF8(i.output, {p1:String})) > 0
FORMAT JSONEachRow""",
    "what an id is": """
SELECT function_name, function_type, variant_name, episode_id
FROM InferenceById
WHERE id_uint = toUInt128({id:UUID})
LIMIT 1
FORMAT JSONEachRow
SETTINGS max_threads=1""",
    "whether an episode is there": """
SELECT 1
FROM EpisodeById
WHERE episode_id_uint = toUInt128({id:UUID})
LIMIT 1
FORMAT JSONEachRow
SETTINGS max_threads=1""",
    "episodes, newest": """
WITH potentially_duplicated_episode_ids AS (
    SELECT episode_id_uint FROM EpisodeById
    WHERE 1=1
    ORDER BY episode_id_uint DESC
    LIMIT 50
)
SELECT
    uint_to_uuid(episode_id_uint) as episode_id,
    count() as count,
    formatDateTime(UUIDv7ToDateTime(uint_to_uuid(min(id_uint))), '%Y-%m-%dT%H:%i:%SZ')
        as start_time,
    formatDateTime(UUIDv7ToDateTime(uint_to_uuid(max(id_uint))), '%Y-%m-%dT%H:%i:%SZ')
        as end_time,
    uint_to_uuid(max(id_uint)) as last_inference_id
FROM InferenceByEpisodeId
WHERE episode_id_uint IN (
    SELECT episode_id_uint FROM potentially_duplicated_episode_ids)
GROUP BY episode_id_uint
ORDER BY episode_id_uint DESC
LIMIT 10
FORMAT JSONEachRow""",
    "episodes after": """
WITH potentially_duplicated_episode_ids AS (
    SELECT episode_id_uint FROM EpisodeById
    WHERE episode_id_uint > toUInt128({after:UUID})
    ORDER BY episode_id_uint ASC
    LIMIT 50
)
SELECT episode_id, count, start_time, end_time, last_inference_id
FROM (
    SELECT
        uint_to_uuid(episode_id_uint) as episode_id,
        count() as count,
        formatDateTime(UUIDv7ToDateTime(uint_to_uuid(min(id_uint))),
            '%Y-%m-%dT%H:%i:%SZ') as start_time,
        formatDateTime(UUIDv7ToDateTime(uint_to_uuid(max(id_uint))),
            '%Y-%m-%dT%H:%i:%SZ') as end_time,
        uint_to_uuid(max(id_uint)) as last_inference_id,
        episode_id_uint
    FROM InferenceByEpisodeId
    WHERE episode_id_uint IN (
        SELECT episode_id_uint FROM potentially_duplicated_episode_ids)
    GROUP BY episode_id_uint
    ORDER BY episode_id_uint ASC
    LIMIT 10
)
ORDER BY episode_id_uint DESC
FORMAT JSONEachRow""",
    "bounds of episodes": """
SELECT
    uint_to_uuid(min(episode_id_uint)) as first_id,
    uint_to_uuid(max(episode_id_uint)) as last_id,
    count() as count
FROM EpisodeById
FORMAT JSONEachRow""",
    "inferences of an episode": """
SELECT COUNT() AS count
FROM InferenceByEpisodeId FINAL
WHERE episode_id_uint = toUInt128(toUUID({episode_id:String}))
FORMAT JSONEachRow""",
    "functions": """
SELECT
    function_name,
    formatDateTime(max(timestamp), '%Y-%m-%dT%H:%i:%S.000Z')
        AS last_inference_timestamp,
    toUInt32(count()) AS inference_count
FROM (
    SELECT function_name, timestamp FROM ChatInference
    UNION ALL
    SELECT function_name, timestamp FROM JsonInference
)
GROUP BY function_name
ORDER BY last_inference_timestamp DESC
FORMAT JSONEachRow""",
    "variants": """
SELECT
    variant_name,
    COUNT() AS inference_count,
    formatDateTime(max(timestamp), '%Y-%m-%dT%H:%i:%S.000Z') AS last_used_at
FROM ChatInference
WHERE function_name = {function_name:String}
GROUP BY variant_name
ORDER BY inference_count DESC
FORMAT JSONEachRow""",
    "throughput of variants by hour": """
SELECT
    formatDateTime(
        dateTrunc({time_window:String}, UUIDv7ToDateTime(uint_to_uuid(i.id_uint))),
        '%Y-%m-%dT%H:%i:%S.000Z') AS period_start,
    i.variant_name AS variant_name,
    toUInt32(count()) AS count
FROM InferenceById i
WHERE i.function_name = {function_name:String}
AND UUIDv7ToDateTime(uint_to_uuid(i.id_uint)) >= (
    SELECT max(UUIDv7ToDateTime(uint_to_uuid(id_uint)))
        - INTERVAL {time_delta_secs:UInt64} SECOND
    FROM InferenceById
    WHERE function_name = {function_name:String}
)
GROUP BY period_start, variant_name
ORDER BY period_start DESC, variant_name DESC
FORMAT JSONEachRow""",
    "totals": """
SELECT
    (SELECT COUNT() FROM ChatInference) as chat_inference_count,
    (SELECT COUNT() FROM JsonInference) as json_inference_count
Format JSONEachRow""",
    "token totals": """
SELECT
    (SELECT count FROM CumulativeUsage FINAL WHERE type = 'input_tokens')
        as input_tokens,
    (SELECT count FROM CumulativeUsage FINAL WHERE type = 'output_tokens')
        as output_tokens
Format JSONEachRow""",
    "a tag of an inference": """
SELECT * FROM InferenceTag WHERE function_name = {function_name:String}
    AND key = {key:String} AND value = {value:String}
    AND inference_id = {inference_id:String}
FORMAT JSONEachRow""",
    "inferences with a tag": """
SELECT DISTINCT inference_id
FROM TagInference WHERE key = {key:String}
AND function_name = {function_name:String}
AND value IN ({values:Array(String)})
FORMAT JSONEachRow""",
    "values of a tag": """
SELECT toUInt32(uniqExact(value)) as count
FROM TagInference
WHERE key = {key:String}
FORMAT JSONEachRow""",
}
"""By what is asked: both engines can answer."""


def windowed(window: str, periods: int) -> tuple[str, str]:
    """Return how TensorZero groups by a window of time, and which minutes it takes."""
    if window == "CUMULATIVE":
        return "toDateTime('1970-01-01 00:00:00')", "1 = 1"
    grouping = f"toStartOf{window.title()}(minute)"
    latest = f"(SELECT max({grouping}) FROM ModelProviderStatistics)"
    return grouping, f"minute >= {latest} - INTERVAL {periods} {window}"


STATISTICS = {
    "usage of models": """
SELECT
    period_start,
    model_name,
    SUM(provider_input_tokens) as input_tokens,
    SUM(provider_output_tokens) as output_tokens,
    SUM(provider_count) as count,
    SUM(provider_cost) as cost,
    SUM(provider_count_with_cost) as count_with_cost
FROM (
    SELECT
        formatDateTime(TIME_GROUPING, '%Y-%m-%dT%H:%i:%SZ') as period_start,
        model_name,
        model_provider_name,
        sumMerge(total_input_tokens) as provider_input_tokens,
        sumMerge(total_output_tokens) as provider_output_tokens,
        countMerge(count) as provider_count,
        sumMerge(total_cost) as provider_cost,
        countMerge(count_with_cost) as provider_count_with_cost
    FROM ModelProviderStatistics
    WHERE TIME_FILTER
    GROUP BY period_start, model_name, model_provider_name
) sub
GROUP BY period_start, model_name
ORDER BY period_start DESC, model_name
FORMAT JSONEachRow""",
    "latency of models": f"""
SELECT
    model_name,
    quantilesTDigestMerge({QUANTILES})(response_time_ms_quantiles)
        AS response_time_ms_quantiles,
    quantilesTDigestMerge({QUANTILES})(ttft_ms_quantiles) AS ttft_ms_quantiles,
    countMerge(count) as count
FROM ModelProviderStatistics
WHERE 1 = 1
GROUP BY model_name
ORDER BY model_name
FORMAT JSONEachRow""",
    "count of models": """
SELECT toUInt32(uniqExact(model_name)) AS count FROM ModelProviderStatistics
FORMAT JSONEachRow""",
    "cached tokens": """
SELECT
    formatDateTime(toStartOfDay(minute), '%Y-%m-%dT%H:%i:%SZ') as period_start,
    model_name,
    model_provider_name,
    sumMerge(total_input_tokens) as input_tokens,
    sumMerge(total_provider_cache_read_input_tokens) as cache_read_input_tokens,
    sumMerge(total_provider_cache_write_input_tokens) as cache_write_input_tokens,
    countMerge(count) as count
FROM ModelProviderStatistics
WHERE minute >= (SELECT max(toStartOfDay(minute)) FROM ModelProviderStatistics)
    - INTERVAL 7 DAY
    AND model_name = {model_name:String}
GROUP BY period_start, model_name, model_provider_name
ORDER BY period_start DESC, model_name, model_provider_name
FORMAT JSONEachRow""",
    "variants": f"""
SELECT
    function_name,
    variant_name,
    countMerge(count) as inference_count,
    sumMerge(total_input_tokens) as total_input_tokens,
    sumMerge(total_output_tokens) as total_output_tokens,
    sumMerge(total_cost) as total_cost,
    countMerge(count_with_cost) as count_with_cost,
    sumMerge(total_provider_cache_read_input_tokens)
        as total_provider_cache_read_input_tokens,
    sumMerge(total_provider_cache_write_input_tokens)
        as total_provider_cache_write_input_tokens,
    quantilesTDigestMerge({QUANTILES})(processing_time_ms_quantiles)
        as processing_time_ms_quantiles,
    quantilesTDigestMerge({QUANTILES})(ttft_ms_quantiles) as ttft_ms_quantiles
FROM VariantStatistics
WHERE function_name = {{function_name:String}} AND minute >= {{after:DateTime}}
    AND minute < {{before:DateTime}}
GROUP BY function_name, variant_name
ORDER BY function_name, variant_name
FORMAT JSONEachRow""",
}
"""By what is asked: needs ``quantilesTDigest``."""

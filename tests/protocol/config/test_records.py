from __future__ import annotations

import pytest

from tests.protocol.config.reading import problems, read
from tz_protocol.types.records import CacheSettings, RecordSettings, SpoolSettings
from tz_protocol.types.secret import Secret

URL = "https://u:pw-canary@store.test:8443/tz"
STORE = {"TENSORZERO_CLICKHOUSE_URL": URL}


def records(text="", **variables):
    return read(f"[gateway.observability]\n{text}", **variables).gateway.records


def test_records_without_a_store_are_off():
    assert records() == RecordSettings()
    assert records("enabled = false") == RecordSettings()


@pytest.mark.parametrize(
    "url", [URL, "http://h", "http://h:8123/db", "chdb:///var/lib/tz"]
)
def test_address_comes_from_the_environment(url):
    assert records(TENSORZERO_CLICKHOUSE_URL=f" {url}\n").url == Secret(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("tcp://h:9000", "must hold a URL that begins with http://, https:// or chdb"),
        ("pw-canary", "must hold a URL that begins with"),
        ("http://h:port", "must hold a URL that begins with"),
        ("http://:8123/db", "must hold a URL with a host"),
        ("chdb://relative", "must name a folder from the root"),
        ("chdb:///", "must name a folder from the root"),
    ],
)
def test_address_that_is_none_is_told_without_echo(url, reason):
    (problem,) = problems("", TENSORZERO_CLICKHOUSE_URL=url)
    assert f"the environment variable TENSORZERO_CLICKHOUSE_URL {reason}" in problem
    assert "canary" not in problem


def test_every_key_of_records_has_its_meaning():
    text = """
        enabled = true
        durability = "spool"
        capture = "redacted"
        content_bytes = 1000
        insert_timeout_ms = 2500
        ttl_days = 30
        disable_automatic_migrations = true
        batch_writes = { flush_interval_ms = 50, max_rows = 10, max_bytes = 2000, \
write_queue_capacity = 500, queue_bytes = 3000 }
        spool = { folder = "/spool", bytes = 4000, when_full = "drop_oldest", \
is_synced = true }
    """
    assert records(text, **STORE) == RecordSettings(
        url=Secret(URL),
        durability="spool",
        capture="redacted",
        content_bytes=1_000,
        batch_rows=10,
        batch_bytes=2_000,
        flush=0.05,
        queue_rows=500,
        queue_bytes=3_000,
        insert_timeout=2.5,
        spool=SpoolSettings(
            folder="/spool", bytes=4_000, when_full="drop_oldest", is_synced=True
        ),
        ttl_days=30,
        migrate=False,
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "enabled = true",
            (
                "2: gateway.observability.enabled: records need a store: set "
                "TENSORZERO_CLICKHOUSE_URL to http(s)://... of a ClickHouse, or to "
                "chdb:///FOLDER for the embedded engine"
            ),
        ),
        (
            'durability = "spool"',
            (
                "2: gateway.observability.durability: needs a folder: set "
                "gateway.observability.spool.folder"
            ),
        ),
        (
            'spool.folder = "here"',
            (
                "2: gateway.observability.spool.folder: expected a path from the "
                "root, such as /var/lib/tz-gateway/spool"
            ),
        ),
        (
            'durability = "sync"\nasync_writes = true',
            (
                "3: gateway.observability.async_writes: contradicts durability = "
                "'sync': give only one"
            ),
        ),
    ],
)
def test_mistake_is_one_clear_problem(text, problem):
    assert problems(f"[gateway.observability]\n{text}") == [problem]


def test_password_of_the_store_is_in_no_description():
    snapshot = read("", **STORE)
    assert "pw-canary" not in repr(snapshot)


def test_every_key_of_the_cache_has_its_meaning():
    text = """
        [gateway.cache]
        enabled = false
        memory_bytes = 0
        entry_bytes = 10
        lookup_timeout_ms = 5
        scope = "global"
    """
    assert read(text).gateway.cache == CacheSettings(
        is_enabled=False,
        memory_bytes=0,
        entry_bytes=10,
        lookup_timeout=0.005,
        scope="global",
    )
    assert read("").gateway.cache == CacheSettings()

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.protocol.config.reading import FEW, environment
from tz_protocol.cli.demo import demo_snapshot
from tz_protocol.config.load import build, describe, describe_json, parse

GOLDEN = Path(__file__).parent / "golden"
KEYS = {
    "OPENAI_API_KEY": "sk-secret-1",
    "SPARE": "sk-secret-2",
    "https_proxy": "http://user:sk-secret-3@proxy:3128",
}


def effective():
    """Return a configuration that has everything that is described."""
    text = (GOLDEN / "effective.toml").read_text(encoding="utf-8")
    return build(parse([("effective.toml", text)]), environment(**KEYS), providers=FEW)


def test_describe_is_golden():
    expected = (GOLDEN / "effective.txt").read_text(encoding="utf-8")
    assert describe(effective()) == expected


def test_describe_json_is_golden():
    expected = json.loads((GOLDEN / "effective.json").read_text(encoding="utf-8"))
    assert json.loads(describe_json(effective())) == expected


@pytest.mark.parametrize(
    ("url", "text", "shown"),
    [
        ("", "", "not kept: TENSORZERO_CLICKHOUSE_URL is not set"),
        ("http://u:sk-secret@h/d", "enabled = false", "not kept: gateway.observab"),
        (
            "http://u:sk-secret@h/d",
            'durability = "spool"\nttl_days = 90\nspool = { folder = "/s" }',
            "in ClickHouse; durability spool; capture full; spool /s; for 90 days",
        ),
        (
            "chdb:///d",
            'capture = "redacted"',
            "in the embedded engine; durability async; capture redacted",
        ),
    ],
    ids=["unset", "off", "server", "embedded"],
)
def test_describe_says_what_becomes_of_records(url, text, shown):
    variables = {"TENSORZERO_CLICKHOUSE_URL": url} if url else {}
    files = [("a.toml", f"[gateway.observability]\n{text}")]
    snapshot = build(parse(files), environment(**variables), providers=FEW)
    assert f"\nrecords       {shown}" in describe(snapshot)
    records = json.loads(describe_json(snapshot))["gateway"]["records"]
    assert (records is None) == ("not kept" in shown)
    assert "sk-secret" not in describe(snapshot) + describe_json(snapshot)


def test_describe_never_shows_a_secret():
    shown = describe(effective()) + describe_json(effective())
    assert "sk-secret" not in shown
    # a header's value may be a key that the operator wrote into the file
    assert "header-value" not in shown
    assert "proxy:3128" not in shown


def test_describe_embedders_snapshot_without_locations():
    snapshot = demo_snapshot(3000)
    assert "demo" in describe(snapshot)
    assert json.loads(describe_json(snapshot))["models"]["demo"]["routing"][0] == {
        "name": "dummy",
        "type": "dummy",
        "model": "good",
        "host": None,
        "key": "none",
        "options": {"spacing_ms": "40"},
        "extra_headers": [],
        "extra_body": [],
        "timeouts": {
            "connect": 5.0,
            "first_content": 120.0,
            "idle": 60.0,
            "total": 600.0,
            "stream_total": 3600.0,
        },
        "weight": None,
        "retry_count": None,
        "breaker": None,
        "context_tokens": None,
        "verify": True,
        "ca_file": None,
        "is_proxied": False,
    }

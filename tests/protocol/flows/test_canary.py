"""What was said is nowhere if it may not be kept, whatever becomes of the request.

The one rule: a canary is in everything that a caller and a provider say, and afterwards
every place is searched: tables, spool, rows set aside, the log, ``/metrics``. What is
said of a request by names and labels (tags, the model's name, ids) is no content.
"""

from __future__ import annotations

import json

import pytest

from tests.protocol.flows.serving import HOSTS, JSON, chat, good, header, snapshot
from tests.protocol.flows.stored import CANARY, URL, Stored, extras
from tz_protocol.cli.logs import render
from tz_protocol.testing import ScriptedClickHouse, cut, reply, sse
from tz_protocol.types.records import RecordSettings, SpoolSettings
from tz_protocol.types.secret import Secret

CALL = {"name": CANARY, "arguments": json.dumps({"type": CANARY, CANARY: CANARY})}
CALLS = [{"id": CANARY, "type": "function", "function": CALL}]
SCHEMA = {
    "type": "object",
    "description": CANARY,
    "properties": {CANARY: {"type": "string", "enum": [CANARY], "default": CANARY}},
}
CONVERSATION = [
    {"role": "system", "content": CANARY},
    {"role": "user", "name": CANARY, "content": [{"type": "text", "text": CANARY}]},
    {"role": "assistant", "content": CANARY, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": CANARY, "content": CANARY},
]
FUNCTION = {"name": CANARY, "description": CANARY, "parameters": SCHEMA}
ASKED = {
    "messages": CONVERSATION,
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": CANARY}},
    "stop": [CANARY],
}
MORE = {
    "user": CANARY,
    "metadata": {CANARY: CANARY},
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": CANARY, "schema": SCHEMA},
    },
    "prediction": {"type": "content", "content": CANARY},
}
LOGPROB = {"token": CANARY, "bytes": [99, 97, 110], "logprob": -0.5}
LOGPROBS = {"content": [{**LOGPROB, "top_logprobs": [LOGPROB]}], "refusal": None}
SAID = {
    "role": "assistant",
    "content": CANARY,
    "reasoning_content": CANARY,
    "refusal": CANARY,
    "tool_calls": CALLS,
    "annotations": [{"type": "url_citation", "url_citation": {"title": CANARY}}],
}
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


def said(**choice):
    return {
        "id": "theirs",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "logprobs": LOGPROBS, **choice}],
        "usage": USAGE,
    }


WHOLE = reply(
    200, JSON, json.dumps(said(message=SAID, finish_reason="tool_calls")).encode()
)
DELTA = {**SAID, "tool_calls": [{"index": 0, **CALLS[0]}]}
STREAM = sse(
    json.dumps(said(delta=DELTA, finish_reason=None)).encode(),
    json.dumps(said(delta={}, finish_reason="tool_calls")).encode(),
)
ERROR = {"error": {"message": f"not {CANARY}", "type": CANARY, "param": CANARY}}
REFUSED = json.dumps(ERROR).encode()
CLAUDE = {
    "id": "theirs",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [
        {"type": "thinking", "thinking": CANARY, "signature": CANARY},
        {"type": "text", "text": CANARY},
        {
            "type": "tool_use",
            "id": CANARY,
            "name": CANARY,
            "input": {"type": CANARY, "model": CANARY, CANARY: CANARY},
        },
    ],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 3, "output_tokens": 1},
}
UPSTREAMS = {
    "whole": (WHOLE, False),
    "stream": (STREAM, True),
    "refused": (reply(400, JSON, REFUSED), False),
    "refused-stream": (reply(400, JSON, REFUSED), True),
    "failed": (reply(500, JSON, REFUSED), False),
    "garbled": (reply(200, JSON, b"{" + CANARY.encode()), False),
    "garbled-event": (sse(b"{" + CANARY.encode()), True),
    "cut": (cut(STREAM, 400), True),
    "error-event": (sse(json.dumps(said(delta=DELTA)).encode(), REFUSED), True),
    "claude": (reply(200, JSON, json.dumps(CLAUDE).encode()), False),
}


def searched(served):
    """Return everything that is left of what was said, as text."""
    lines = [
        render(notice, log_format=form, wall=0.0)
        for notice in (*served.sim.notices, *served.sim.records)
        for form in ("json", "pretty")
    ]
    return "\n".join(
        (
            repr(served.sim.world.disk.files),
            repr(served.server.tables),
            repr(lines),
            served.sim.trace_text(),
            served.gateway.metrics.render(served.gateway.gauges()),
        )
    )


def serving(upstream, capture, kind="openai", disk=None):
    settings = RecordSettings(
        url=Secret(URL),
        capture=capture,
        durability="spool",
        spool=SpoolSettings(folder="/spool"),
    )
    config = snapshot(
        HOSTS[:1], records=settings, providers_have={"a": {"type": kind}}, debug=True
    )
    server = ScriptedClickHouse()
    server.state = "down"
    return Stored([upstream], server=server, config=config, disk=disk)


@pytest.mark.parametrize("capture", ["none", "redacted"])
@pytest.mark.parametrize("wants_cache", [False, True], ids=["plain", "cached"])
@pytest.mark.parametrize("name", UPSTREAMS)
def test_canary_that_may_not_be_kept_is_nowhere(name, wants_cache, capture):
    upstream, is_stream = UPSTREAMS[name]
    served = serving(upstream, capture, "anthropic" if name == "claude" else "openai")
    more = {} if name == "claude" else MORE
    cache = extras(cache_options={"enabled": "on"}) if wants_cache else {}
    body = {**chat(stream=is_stream), **ASKED, **more, **cache}
    outcomes = [served.ask(body) for _ in range(2)]
    served.wait(3.0)
    assert served.sim.world.disk.files
    assert CANARY not in searched(served)
    served.server.state = "up"
    served.wait(30.0)
    outcomes.append(served.ask({**body, "seed": 1}))
    served.wait(3.0)
    assert len(served.server.rows("Exchange")) == 3
    assert CANARY not in searched(served)
    assert served.server.rows("ModelInferenceCache") == []
    if wants_cache and name in ("whole", "stream", "claude"):
        # the process's own memory is what the caller asked for
        assert header(outcomes[1], "x-tz-cache") == "hit"


@pytest.mark.parametrize("capture", ["none", "redacted"])
def test_canary_is_not_in_rows_that_are_set_aside(capture):
    served = serving(WHOLE, capture)
    served.server.is_bad = lambda table, row: True
    served.server.state = "up"
    served.ask({**chat(), **ASKED, **MORE})
    served.wait(5.0)
    (lines,) = served.sim.world.disk.files.values()
    assert lines.count(b"\n") == 3
    assert CANARY not in searched(served)


def test_canary_that_may_be_kept_is_found():
    # what makes the tests above able to fail
    served = serving(WHOLE, "full")
    body = {**chat(), **ASKED, **MORE, **extras(cache_options={"enabled": "on"})}
    served.ask(body)
    served.wait(3.0)
    assert CANARY in repr(served.sim.world.disk.files)
    served.server.state = "up"
    served.wait(30.0)
    served.ask({**body, "seed": 1})
    served.wait(3.0)
    for table in ("ModelInference", "ChatInference", "ModelInferenceCache"):
        assert CANARY in repr(served.server.rows(table))


def test_caller_that_wants_less_kept_is_not_given_to_the_store_by_another():
    served = serving(WHOLE, "full")
    served.server.state = "up"
    cached = extras(cache_options={"enabled": "on"})
    served.ask({**chat(), **ASKED, **cached, **extras(capture="none")})
    served.wait(3.0)
    assert CANARY not in searched(served)
    # whoever says the same, and may have it kept, has said it himself
    again = served.ask({**chat(), **ASKED, **cached})
    assert header(again, "x-tz-cache") == "hit"
    served.wait(3.0)
    rows = served.server.rows("ModelInference")
    assert [CANARY in repr(row) for row in rows] == [False, True]


def test_good_answer_without_a_canary_shows_what_redaction_leaves():
    served = serving(good(), "redacted")
    served.server.state = "up"
    served.ask()
    (row,) = served.rows("ModelInference")
    assert json.loads(row["input_messages"]) == [
        {
            "role": "user",
            "content": [{"type": "text", "text": "[redacted: 2 characters]"}],
        }
    ]
    assert json.loads(row["raw_response"])["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 1,
        "total_tokens": 4,
    }
    assert row["finish_reason"] == "stop"

"""Answers that must not be given: of other tenants, requests, models, configurations.

The one rule: what makes a key is ``routing/test_cache.py``'s; here is what a caller
gets for it.
"""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from tests.protocol.flows.serving import (
    COMPLETION,
    HOSTS,
    JSON,
    answer,
    good,
    good_stream,
    header,
    refusal,
    snapshot,
)
from tests.protocol.flows.stored import URL, Stored, asked
from tests.protocol.flows.test_caching import as_key, keyed
from tz_protocol.testing import ScriptedClickHouse, reply
from tz_protocol.types.records import RecordSettings
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Url


def spelled(members):
    """Return a request with some members as they are spelled."""
    text = '{"model":"m","messages":[{"role":"user","content":"Hi"}],%s,'
    return (text % members + '"tensorzero::cache_options":{"enabled":"on"}}').encode()


def test_member_that_is_there_twice_further_down_is_like_no_other():
    # which of the two the provider reads is not known
    served = Stored([good()])
    for _ in range(2):
        outcome = served.ask(spelled('"metadata":{"a":"1","a":"2"}'))
        assert header(outcome, "x-tz-cache") is None
    for value in ("1", "2"):
        outcome = served.ask(spelled(f'"metadata":{{"a":"{value}"}}'))
        assert header(outcome, "x-tz-cache") == "miss"


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"url": Url("http", HOSTS[0], 80, "/v2/")},
        {"extra_headers": (("anthropic-beta", "new"),)},
        {"extra_body": {"top_k": Raw(b"1")}},
        {"options": {"on_unsupported_param": "drop"}},
        {"type": "vllm"},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("is_restarted", [False, True], ids=["reload", "restart"])
def test_model_that_is_configured_anew_has_no_answers_yet(change, is_restarted):
    server = ScriptedClickHouse()
    records = RecordSettings(url=Secret(URL))
    old = snapshot(HOSTS[:1], records=records)
    new = snapshot(HOSTS[:1], records=records, providers_have={"a": change})
    served = Stored([good()], server=server, config=old)
    served.ask(asked())
    served.wait(5.0)
    assert header(served.ask(asked()), "x-tz-cache") == "hit"
    if is_restarted:
        served = Stored([good()], server=server, config=new)
    else:
        served.gateway.replace(new)
    assert header(served.ask(asked()), "x-tz-cache") == "miss"
    served.gateway.replace(old)
    assert header(served.ask(asked()), "x-tz-cache") == "hit"


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_answer_of_a_model_that_stood_in_is_not_the_asked_one_s(is_stream):
    upstream = good_stream() if is_stream else good()
    config = snapshot(HOSTS[:2], fallback=1)
    served = Stored([refusal(500)], [upstream], config=config)
    for _ in range(2):
        outcome = served.ask(asked(stream=is_stream))
        assert header(outcome, "x-tz-model") == "n"
        assert header(outcome, "x-tz-cache") == "miss"
    served.ask(asked(stream=is_stream, model="n"))
    assert header(served.ask(asked(model="n")), "x-tz-cache") == "hit"


def test_several_answers_are_not_one():
    message = {"role": "assistant", "content": "Hello"}
    choice = {"message": message, "finish_reason": "stop"}
    choices = [{"index": index, **choice} for index in (0, 1)]
    two = reply(200, JSON, json.dumps({**COMPLETION, "choices": choices}).encode())
    served = Stored([two])
    assert len(answer(served.ask(asked(n=2)))["choices"]) == 2
    assert len(answer(served.ask(asked(n=2)))["choices"]) == 2
    assert served.upstream_calls() == 1
    for body in (asked(), asked(n=1), asked(n=3)):
        outcome = served.ask(body)
        assert header(outcome, "x-tz-cache") == "miss"


def test_caller_without_a_key_has_nothing_of_those_that_have_one():
    server = ScriptedClickHouse()
    served = Stored([good()], server=server, config=keyed())
    for key in ("one", "four"):
        served.ask(asked(), headers=as_key(key))
    served.wait(5.0)
    config = snapshot(HOSTS[:1], records=RecordSettings(url=Secret(URL)))
    later = Stored([good()], server=server, config=config)
    assert header(later.ask(asked()), "x-tz-cache") == "miss"


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("is_restarted", [False, True], ids=["memory", "clickhouse"])
def test_answer_is_named_as_the_caller_names_its_model(is_restarted, is_stream):
    server = ScriptedClickHouse()
    served = Stored([good()], server=server, config=keyed())
    served.ask(asked(model="m-of-one"), headers=as_key("one"))
    served.wait(5.0)
    if is_restarted:
        served = Stored([good()], server=server, config=keyed())
    body = asked(model="m-of-two", stream=is_stream)
    outcome = served.ask(body, headers=as_key("two"))
    assert header(outcome, "x-tz-cache") == "hit"
    assert header(outcome, "x-tz-model") == "m-of-two"
    assert b"m-of-one" not in outcome.response.body
    assert b"m-of-two" in outcome.response.body

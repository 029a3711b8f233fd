"""Answers that are given again: to whom, in which form, and never the wrong one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.protocol.flows.serving import (
    COMPLETION,
    HOSTS,
    JSON,
    answer,
    events,
    good,
    good_stream,
    header,
    refusal,
    snapshot,
    text_of,
)
from tests.protocol.flows.stored import URL, Stored, asked, extras
from tz_protocol.testing import ScriptedClickHouse, cut, reply
from tz_protocol.types.keys import Access, Grant, Principal, digest_of
from tz_protocol.types.records import CacheSettings, RecordSettings
from tz_protocol.types.secret import Secret

TOOL_CALL = {
    **COMPLETION,
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a": 1}'},
                    }
                ],
            },
            "finish_reason": "tool_calls",
        }
    ],
}


def forms(outcome, is_stream):
    """Return the text of an answer, and whether it came from the cache."""
    is_hit = header(outcome, "x-tz-cache") == "hit"
    if is_stream:
        return text_of(events(outcome)), is_hit
    return answer(outcome)["choices"][0]["message"]["content"], is_hit


@pytest.mark.parametrize("is_stored", [True, False], ids=["clickhouse", "memory"])
@pytest.mark.parametrize("first", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("second", [False, True], ids=["whole", "stream"])
def test_answer_of_either_form_serves_requests_for_either(first, second, is_stored):
    server = ScriptedClickHouse() if is_stored else None
    served = Stored([good_stream() if first else good()], server=server)
    text, is_hit = forms(served.ask(asked(stream=first)), first)
    assert not is_hit
    again, is_hit = forms(served.ask(asked(stream=second)), second)
    assert is_hit
    assert again == text
    assert served.upstream_calls() == 1


def test_hit_has_its_own_identity_and_costs_nothing():
    served = Stored([good()], server=ScriptedClickHouse())
    first = answer(served.ask(asked()))
    outcome = served.ask(asked())
    second = answer(outcome)
    assert second["id"] != first["id"]
    assert second["episode_id"] != first["episode_id"]
    assert second["usage"] == {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
    }
    assert second["choices"] == first["choices"]
    assert header(outcome, "x-tz-provider") == "a"
    rows = served.rows("ModelInference")
    assert [row["cached"] for row in rows] == [False, True]
    assert [row["input_tokens"] for row in rows] == [3, 3]
    assert rows[1]["cost"] == "0.000000000"
    assert rows[1]["output"] == rows[0]["output"]
    assert [row["cache"] for row in served.rows("Exchange")] == ["miss", "hit"]


def test_streamed_hit_states_that_nothing_was_used():
    served = Stored([good_stream()], server=ScriptedClickHouse())
    options: dict[str, Any] = {"stream_options": {"include_usage": True}}
    first = events(served.ask(asked(stream=True, **options)))
    second = events(served.ask(asked(stream=True, **options)))
    assert first[-2]["usage"]["completion_tokens"] == 4
    assert second[-2]["usage"]["completion_tokens"] == 0
    assert second[-1] == "[DONE]"
    assert text_of(second) == text_of(first)


def test_streamed_hit_without_usage_says_nothing_of_it():
    served = Stored([good_stream()])
    served.ask(asked(stream=True))
    found = events(served.ask(asked(stream=True)))
    assert all("usage" not in event for event in found[:-1])


def test_tool_call_survives_both_ways():
    whole = reply(200, JSON, json.dumps(TOOL_CALL).encode())
    served = Stored([whole])
    first = answer(served.ask(asked()))
    streamed = events(served.ask(asked(stream=True)))
    assert header(served.ask(asked()), "x-tz-cache") == "hit"
    (call,) = streamed[0]["choices"][0]["delta"]["tool_calls"]
    assert call["index"] == 0
    assert call["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert first["choices"][0]["message"]["tool_calls"][0]["id"] == "call_1"


# -- which requests are the same ------------------------------------------------


def test_order_of_members_and_white_space_do_not_matter():
    served = Stored([good()])
    served.ask(
        b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"seed":1,'
        b'"tensorzero::cache_options":{"enabled":"on"}}'
    )
    outcome = served.ask(
        b'{"tensorzero::cache_options": {"enabled":"on"}, "seed" : 1,'
        b'"messages": [ {"content": "Hi", "role": "user"} ], "model":"m"}'
    )
    assert header(outcome, "x-tz-cache") == "hit"


@pytest.mark.parametrize(
    "members",
    [
        {"temperature": 0.5},
        {"seed": 1},
        {"messages": [{"role": "user", "content": "hi"}]},
        {"user": "somebody"},
        {"tools": []},
        {"n": 2},
    ],
    ids=lambda members: next(iter(members)),
)
def test_request_that_differs_is_a_miss(members):
    served = Stored([good()])
    served.ask(asked())
    assert header(served.ask(asked(**members)), "x-tz-cache") == "miss"


def test_numbers_that_a_float_cannot_tell_apart_are_different():
    served = Stored([good()])
    body = (
        '{"model":"m","messages":[{"role":"user","content":"Hi"}],"seed":%s,'
        '"tensorzero::cache_options":{"enabled":"on"}}'
    )
    served.ask((body % "9007199254740993123").encode())
    outcome = served.ask((body % "9007199254740993124").encode())
    assert header(outcome, "x-tz-cache") == "miss"


def test_other_credentials_of_the_caller_are_a_miss():
    served = Stored([good()])
    served.ask(asked(**extras(credentials={"k": "one"})))
    outcome = served.ask(asked(**extras(credentials={"k": "two"})))
    assert header(outcome, "x-tz-cache") == "miss"


def keyed(scope="tenant"):
    """Return a configuration with three keys: two of one project, one of another."""
    keys = {}
    for key, project in (("one", "p"), ("two", "p"), ("three", "q"), ("four", "")):
        digest = digest_of(key.encode())
        grant = Grant(endpoint_id="m", project_id=project)
        # each key may have a name of its own for the model
        models = {"m": grant, f"m-of-{key}": grant}
        keys[digest] = Principal(digest=digest, models=models)
    plain = snapshot(
        HOSTS[:1],
        records=RecordSettings(url=Secret(URL)),
        cache=CacheSettings(scope=scope),
    )
    return type(plain)(
        gateway=plain.gateway, models=plain.models, access=Access(keys=keys)
    )


def as_key(key):
    return (*JSON, ("authorization", f"Bearer {key}"))


@pytest.mark.parametrize("is_restarted", [False, True], ids=["memory", "clickhouse"])
@pytest.mark.parametrize(
    ("scope", "asker", "result"),
    [
        ("tenant", "one", "hit"),
        ("tenant", "two", "hit"),
        ("tenant", "three", "miss"),
        ("tenant", "four", "miss"),
        ("global", "three", "hit"),
    ],
)
def test_answers_stay_with_their_tenant(scope, asker, result, is_restarted):
    server = ScriptedClickHouse()
    served = Stored([good()], server=server, config=keyed(scope))
    served.ask(asked(), headers=as_key("one"))
    served.wait(5.0)
    if is_restarted:
        served = Stored([good()], server=server, config=keyed(scope))
    outcome = served.ask(asked(), headers=as_key(asker))
    assert header(outcome, "x-tz-cache") == result


# -- what is stored -------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        ("off", "on", "miss"),
        ("read_only", "on", "miss"),
        ("write_only", "read_only", "hit"),
        ("on", "write_only", None),
        ("on", "off", None),
    ],
)
def test_modes_say_who_reads_and_who_writes(first, second, result):
    served = Stored([good()])
    served.ask(asked(first))
    assert header(served.ask(asked(second)), "x-tz-cache") == result


def test_default_is_off():
    served = Stored([good()], server=ScriptedClickHouse())
    served.ask()
    assert header(served.ask(), "x-tz-cache") is None
    assert served.rows("ModelInferenceCache") == []


def test_rehearsal_reads_and_does_not_write():
    served = Stored([good()])
    dry = extras(dryrun=True)
    served.ask(asked(**dry))
    assert header(served.ask(asked()), "x-tz-cache") == "miss"
    assert header(served.ask(asked(**dry)), "x-tz-cache") == "hit"


@pytest.mark.parametrize(
    "bad",
    [refusal(500), refusal(400), cut(good_stream(), 200)],
    ids=["500", "400", "cut"],
)
def test_failure_is_not_stored(bad):
    served = Stored([bad])
    served.ask(asked(stream=True))
    served.ask(asked())
    assert len(served.gateway.cache.memory) == 0


def test_answer_that_is_too_long_is_not_stored():
    served = Stored([good_stream()], cache={"entry_bytes": 600})
    served.ask(asked(stream=True))
    assert header(served.ask(asked(stream=True)), "x-tz-cache") == "miss"


def test_age_counts_from_when_it_was_written():
    served = Stored([good()])
    served.ask(asked())
    served.wait(10.0)
    assert header(served.ask(asked(max_age=20)), "x-tz-cache") == "hit"
    served.wait(11.0)
    assert header(served.ask(asked(max_age=20)), "x-tz-cache") == "miss"
    assert header(served.ask(asked()), "x-tz-cache") == "hit"


def test_embeddings_are_given_again():
    body = {
        "object": "list",
        "model": "upstream-model",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}],
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }
    served = Stored([reply(200, JSON, json.dumps(body).encode())])
    request = {
        "model": "m",
        "input": "x",
        "tensorzero::cache_options": {"enabled": "on"},
    }
    first = served.ask(request, path="/v1/embeddings")
    second = served.ask(request, path="/v1/embeddings")
    assert header(second, "x-tz-cache") == "hit"
    assert answer(second)["data"] == answer(first)["data"]
    assert answer(second)["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


def test_moderations_are_never_given_again():
    body = {"id": "x", "model": "upstream-model", "results": [{"flagged": False}]}
    served = Stored([reply(200, JSON, json.dumps(body).encode())])
    request = {
        "model": "m",
        "input": "x",
        "tensorzero::cache_options": {"enabled": "on"},
    }
    for _ in range(2):
        outcome = served.ask(request, path="/v1/moderations")
        assert header(outcome, "x-tz-cache") is None
    assert served.upstream_calls() == 2


def test_memory_is_bounded_and_forgets_the_least_used():
    served = Stored([good()], cache={"memory_bytes": 2_500})
    for number in range(20):
        served.ask(asked(seed=number))
    memory = served.gateway.cache.memory
    assert 0 < memory.size <= 2_500
    assert header(served.ask(asked(seed=19)), "x-tz-cache") == "hit"
    assert header(served.ask(asked(seed=0)), "x-tz-cache") == "miss"

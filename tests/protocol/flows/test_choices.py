"""``n`` at providers that do not have it: several calls, one attempt, one answer."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.dialects.eventstreams import event, exception
from tests.protocol.flows.keyed import bearer, principal, with_keys
from tests.protocol.flows.serving import (
    HOSTS,
    JSON,
    KEY,
    Served,
    answer,
    chat,
    error_of,
    events,
    good,
    good_stream,
    header,
    refusal,
    snapshot,
)
from tests.protocol.flows.stored import URL, Stored
from tests.protocol.flows.test_properties import check_books
from tz_protocol.flows.choices import total_of
from tz_protocol.machine import ClientGone, Shutdown
from tz_protocol.operations import Connect, Race, SendBody, SendHead
from tz_protocol.routing.estimate import BYTES_PER_TOKEN
from tz_protocol.testing import (
    Close,
    ProxiedReply,
    Reset,
    Script,
    ScriptedClickHouse,
    ScriptedRequest,
    Send,
    Stall,
    Step,
    cut,
    hang,
    refuse,
    reply,
    sse,
)
from tz_protocol.testing.messages import LAST_CHUNK, chunk, http_response, sse_event
from tz_protocol.testing.worlds import ReceiveRequest
from tz_protocol.types.keys import KeyLimits
from tz_protocol.types.policy import Hedge, HedgeShare, Policy, Retries, StreamPolicy
from tz_protocol.types.prices import Price
from tz_protocol.types.records import RecordSettings
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Limits, Timeouts
from tz_protocol.types.usage import Usage

KINDS = {
    "anthropic": "claude-sonnet-4-5",
    "aws_bedrock": "amazon.nova-lite-v1:0",
    "cohere": "command-a-03-2025",
}
EVERY = pytest.mark.parametrize("kind", KINDS)
TIMEOUTS = Timeouts(
    connect=1.0, first_content=3.0, idle=2.0, total=6.0, stream_total=8.0
)
PRICES = (Price("input", Decimal("0.01")), Price("output", Decimal("0.1")))


# -- what providers say ---------------------------------------------------------


def whole(kind, text, **options):
    """Return a provider's whole answer; it says 3 tokens in and 2 out."""
    if kind == "anthropic":
        body = {
            "id": f"msg_{text}",
            "model": "claude-x",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 3, "output_tokens": 2},
        }
    elif kind == "aws_bedrock":
        body = {
            "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 3, "outputTokens": 2},
        }
    else:
        body = {
            "id": f"c_{text}",
            "message": {"content": [{"type": "text", "text": text}]},
            "finish_reason": "COMPLETE",
            "usage": {"tokens": {"input_tokens": 3, "output_tokens": 2}},
        }
    return reply(200, JSON, json.dumps(body).encode(), **options)


def said(kind, words):
    """Return the events of a provider's stream."""
    if kind == "anthropic":
        usage = {"input_tokens": 3, "output_tokens": 1}
        block = {"type": "text", "text": ""}
        return [
            {"type": "message_start", "message": {"id": "msg", "usage": usage}},
            {"type": "content_block_start", "index": 0, "content_block": block},
            *(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": word},
                }
                for word in words
            ),
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": 2},
            },
            {"type": "message_stop"},
        ]
    told = {"tokens": {"input_tokens": 3, "output_tokens": 2}}
    start = {"message": {"content": {"type": "text", "text": ""}}}
    return [
        {"type": "message-start", "id": "c", "delta": {"message": {}}},
        {"type": "content-start", "index": 0, "delta": start},
        *(
            {
                "type": "content-delta",
                "index": 0,
                "delta": {"message": {"content": {"text": word}}},
            }
            for word in words
        ),
        {"type": "content-end", "index": 0},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": told}},
    ]


def streamed(kind, words, *, first=0.0, every=0.0, last=()):
    """Return the steps of a provider that streams *words*, then *last* if given."""
    if kind != "aws_bedrock":
        found = [json.dumps(one) for one in said(kind, words)]
        if last:
            found = [*found[: 2 + len(words)], *last]
        return sse(*found, end=b"", first=first, every=every)
    pieces = [
        event("messageStart", {"role": "assistant"}),
        *(
            event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": one}})
            for one in words
        ),
    ]
    end = [
        event("contentBlockStop", {"contentBlockIndex": 0}),
        event("messageStop", {"stopReason": "end_turn"}),
        event("metadata", {"usage": {"inputTokens": 3, "outputTokens": 2}}),
    ]
    headers = (("content-type", "application/vnd.amazon.eventstream"),)
    head = http_response(200, headers, framing="chunked")[: -len(LAST_CHUNK)]
    return (
        ReceiveRequest(),
        Send(head, first),
        *(Send(chunk(piece), every) for piece in [*pieces, *(last or end)]),
        Send(LAST_CHUNK),
    )


def overloaded(kind):
    """Return the last words of a stream that breaks off with the vendor's error."""
    if kind == "anthropic":
        return ['{"type":"error","error":{"type":"overloaded_error","message":"No."}}']
    if kind == "aws_bedrock":
        return [exception("throttlingException", message="Slow down.")]
    error = {"type": "message-end", "delta": {"finish_reason": "ERROR"}}
    return [json.dumps(error)]


def serve(kind, connections, *others, limits=None, seed=0, splits=(), **gateway):
    """Return a gateway whose first provider is of *kind*; the others speak OpenAI's."""
    have = {"a": {"type": kind, "model": KINDS[kind]}}
    have["a"] |= gateway.pop("has", {})
    hosts = ("a.test", "b.test")[: 1 + len(others)]
    config = snapshot(
        hosts,
        timeouts=gateway.pop("timeouts", TIMEOUTS),
        limits=limits,
        providers_have=have,
        **gateway,
    )
    return Served(connections, *others, config=config, seed=seed, splits=splits)


def texts(outcome):
    """Return the text of each choice of a streamed answer."""
    found: dict[int, str] = {}
    for one in events(outcome):
        if isinstance(one, dict):
            for choice in one.get("choices", ()):
                text = choice["delta"].get("content") or ""
                found[choice["index"]] = found.get(choice["index"], "") + text
    return [found[index] for index in sorted(found)]


# -- whole answers --------------------------------------------------------------


@EVERY
def test_whole_answer_has_a_choice_for_each_call_in_their_order(kind):
    scripts = [whole(kind, "one", after=2.0), whole(kind, "two"), whole(kind, "three")]
    served = serve(kind, scripts, has={"prices": PRICES})
    outcome = served.ask(chat(n=3))
    body = answer(outcome)
    found = [(one["index"], one["message"]["content"]) for one in body["choices"]]
    assert found == [(0, "one"), (1, "two"), (2, "three")]
    assert {one["finish_reason"] for one in body["choices"]} == {"stop"}
    assert body["usage"]["prompt_tokens"] == 9
    assert body["usage"]["completion_tokens"] == 6
    assert header(outcome, "x-tz-attempts") == "1"
    assert header(outcome, "x-tz-dropped-params") is None
    record = served.record
    assert record.cost == Decimal("0.69")
    assert (record.usage.total_tokens, record.usage.quality) == (15, "known")
    (attempt,) = record.attempts
    assert [(call.status, call.error) for call in attempt.calls] == [(200, None)] * 3
    assert [call.usage.total_tokens for call in attempt.calls] == [5, 5, 5]
    assert attempt.spent is None
    # All at once: the slow one is not waited for before the others are asked.
    assert {time for time, _, _ in served.sim.requests} == {served.sim.start}
    assert outcome.finished_at == served.sim.start + 2.0
    check_books(served)


@EVERY
@pytest.mark.parametrize("members", [{}, {"n": 1}, {"n": None}], ids=repr)
def test_one_answer_is_one_call(kind, members):
    served = serve(kind, [whole(kind, "one")])
    outcome = served.ask(chat(**members))
    assert len(answer(outcome)["choices"]) == 1
    assert len(served.sim.requests) == 1
    assert served.record.attempts[0].calls == []


@EVERY
def test_calls_say_the_same_and_nothing_of_their_number(kind):
    served = serve(kind, [whole(kind, "x")] * 2)
    served.ask(chat(n=2, max_tokens=5))
    first, second = (message.body for _, _, message in served.sim.requests)
    assert first == second
    assert "n" not in msgspec.json.decode(first)


def test_seed_is_counted_on_so_that_answers_differ_and_come_again():
    bodies = []
    for _ in range(2):
        served = serve("cohere", [whole("cohere", "x")] * 3)
        served.ask(chat(n=3, seed=2**64 - 2))
        bodies.append([message.body for _, _, message in served.sim.requests])
    assert bodies[0] == bodies[1]
    seeds = [msgspec.json.decode(body)["seed"] for body in bodies[0]]
    assert seeds == [2**64 - 2, 2**64 - 1, 0]


def test_structured_output_through_a_tool_is_had_several_times():
    def call(value):
        body = {
            "id": f"msg_{value}",
            "model": "claude-x",
            "content": [
                {"type": "tool_use", "id": "t", "name": name, "input": {"v": value}}
            ],
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
        return reply(200, JSON, json.dumps(body).encode())

    have = {"model": "claude-3-haiku-20240307"}
    name = ""
    probe = serve("anthropic", [whole("anthropic", "x")], has=have)
    probe.ask(chat(response_format={"type": "json_object"}))
    sent = msgspec.json.decode(probe.sim.requests[0][2].body)
    name = sent["tools"][0]["name"]
    served = serve("anthropic", [call(1), call(2)], has=have)
    outcome = served.ask(chat(n=2, response_format={"type": "json_object"}))
    choices = answer(outcome)["choices"]
    found = [json.loads(one["message"]["content"]) for one in choices]
    assert found == [{"v": 1}, {"v": 2}]


def test_tool_calls_of_all_choices_have_ids_of_their_own():
    content = [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]
    body = {"id": "m", "content": content, "stop_reason": "tool_use"}
    script = reply(200, JSON, json.dumps(body).encode())
    tools = [{"type": "function", "function": {"name": "look"}}]
    served = serve("anthropic", [script] * 3)
    choices = answer(served.ask(chat(n=3, tools=tools)))["choices"]
    ids = [one["message"]["tool_calls"][0]["id"] for one in choices]
    assert ids[0] == "toolu_1"
    assert len(set(ids)) == 3
    start = {
        "type": "content_block_start",
        "index": 0,
        "content_block": content[0],
    }
    stream = sse(
        '{"type":"message_start","message":{"id":"m"}}', json.dumps(start), end=b""
    )
    end = (
        '{"type":"content_block_stop","index":0}',
        '{"type":"message_delta","delta":{"stop_reason":"tool_use"}}',
        '{"type":"message_stop"}',
    )
    more = tuple(Send(chunk(sse_event(one))) for one in end)
    stream = (*stream[:-1], *more, stream[-1])
    served = serve("anthropic", [stream] * 3)
    outcome = served.ask(chat(n=3, tools=tools, stream=True))
    streamed_ids = {
        choice["index"]: delta["id"]
        for one in events(outcome)
        if isinstance(one, dict)
        for choice in one["choices"]
        for delta in choice["delta"].get("tool_calls", ())
        if "id" in delta
    }
    assert sorted(streamed_ids.values()) == sorted(ids)


@EVERY
def test_more_choices_than_the_bound_are_refused_with_provider_field_and_bound(kind):
    served = serve(kind, [whole(kind, "x")], limits=Limits(emulated_choices=3))
    status, error = error_of(served.ask(chat(n=4)))
    assert (status, error["param"]) == (400, "n")
    assert error["code"] == "unsupported_parameter"
    for word in (kind, " n.", "3 times", "gateway.limits.emulated_choices"):
        assert word in error["message"]
    assert not served.sim.requests


def test_more_choices_than_connections_are_refused():
    # As a worker among many has few; the streams would wait for each other's places.
    served = serve(
        "cohere", [streamed("cohere", ["x"])], limits=Limits(pool_per_origin=2)
    )
    status, error = error_of(served.ask(chat(n=3, stream=True)))
    assert (status, error["param"]) == (400, "n")
    assert "2 times" in error["message"]
    assert not served.sim.requests


def test_more_choices_than_the_bound_go_to_a_provider_that_has_them():
    bound = Limits(emulated_choices=3)
    served = serve("anthropic", [whole("anthropic", "x")], [good()], limits=bound)
    assert header(served.ask(chat(n=4)), "x-tz-provider") == "b"


@pytest.mark.parametrize(
    ("policy", "count", "calls", "dropped"),
    [
        ("error", 2, 2, None),
        ("error", 9, 0, None),
        ("warn", 2, 2, None),
        ("warn", 9, 1, "n"),
        ("drop", 9, 1, None),
    ],
)
def test_policy_concerns_only_what_is_lost(policy, count, calls, dropped):
    options = {"on_unsupported_param": policy}
    script = whole("anthropic", "x")
    served = serve("anthropic", [script] * 2, has={"options": options})
    outcome = served.ask(chat(n=count))
    assert len(served.sim.requests) == calls
    assert header(outcome, "x-tz-dropped-params") == dropped
    assert len(answer(outcome).get("choices", ())) == calls


# -- failures of whole answers --------------------------------------------------


@EVERY
@pytest.mark.parametrize("place", range(3))
def test_call_that_fails_ends_the_attempt_and_the_next_provider_answers(kind, place):
    scripts = [whole(kind, "x"), whole(kind, "y"), whole(kind, "z", after=2.0)]
    scripts[place] = refusal(503, after=1.0)
    served = serve(kind, scripts, [good()], has={"prices": PRICES})
    outcome = served.ask(chat(n=3))
    assert header(outcome, "x-tz-provider") == "b"
    first, second = served.record.attempts
    assert (first.error, first.status, second.error) == ("status_503", 503, None)
    errors = [call.error for call in first.calls]
    assert errors[place] == "status_503"
    assert all(call.ended is not None for call in first.calls)
    finished = [call for call in first.calls if call.error is None]
    assert len(finished) == (1 if place < 2 else 2)
    # What the finished ones used is in the books, beside what the answer cost.
    assert first.spent.total_tokens == 5 * len(finished)
    assert first.spent_cost == Decimal("0.23") * len(finished)
    assert served.record.usage.total_tokens == 4
    assert outcome.finished_at == served.sim.start + 1.0
    check_books(served)


def test_spent_tokens_count_for_the_keys_limits_though_nobody_answered():
    limits = KeyLimits(tokens_per_minute=1_000)
    scripts = [whole("anthropic", "x"), refusal(400, after=1.0)]
    served = serve("anthropic", scripts, has={"prices": PRICES})
    config = with_keys(served.gateway.snapshot, principal(limits=limits))
    served = Served(scripts, config=config)
    outcome = served.ask(chat(n=2), headers=bearer())
    assert error_of(outcome)[0] == 400
    assert served.record.spent_tokens == 5
    assert served.record.cost == Decimal("0.23")
    again = served.ask(chat(), headers=bearer(), run=False)
    served.sim.run_until_done(again)
    assert header(again, "x-ratelimit-limit-tokens") == "1000"
    remaining = int(header(again, "x-ratelimit-remaining-tokens"))
    assert remaining <= 1_000 - 5


def test_records_of_calls_show_no_credential_that_a_provider_quotes():
    quoting = (("request-id", f"for {KEY}"),)
    scripts = [whole("anthropic", "x"), refusal(400, headers=quoting, after=1.0)]
    served = serve("anthropic", scripts, debug=True)
    outcome = served.ask(chat(n=2))
    (attempt,) = error_of(outcome)[1]["attempts"]
    assert [call.get("error") for call in attempt["calls"]] == [None, "status_400"]
    assert "for " in attempt["calls"][1]["request_id"]
    assert KEY not in outcome.response.body.decode()
    assert KEY not in repr(served.record)


# -- streams --------------------------------------------------------------------


@EVERY
def test_stream_has_the_choices_as_they_come_and_ends_once(kind):
    scripts = [
        streamed(kind, ["a", "b", "c"], every=0.3),
        streamed(kind, ["d", "e"], every=0.5),
        streamed(kind, ["f"], first=0.1),
    ]
    served = serve(kind, scripts, has={"prices": PRICES})
    options = {"include_usage": True}
    outcome = served.ask(chat(n=3, stream=True, stream_options=options))
    assert texts(outcome) == ["abc", "de", "f"]
    found = events(outcome)
    assert found.count("[DONE]") == 1
    assert found[-1] == "[DONE]"
    with_usage = [one for one in found[:-1] if one.get("usage")]
    assert with_usage == found[-2:-1]
    assert with_usage[0]["usage"]["prompt_tokens"] == 9
    assert with_usage[0]["usage"]["completion_tokens"] == 6
    order = [
        choice["index"]
        for one in found[:-1]
        for choice in one["choices"]
        if choice["delta"].get("content")
    ]
    assert order != sorted(order)
    finishes = [
        choice["index"]
        for one in found[:-1]
        for choice in one["choices"]
        if choice["finish_reason"]
    ]
    assert sorted(finishes) == [0, 1, 2]
    roles = [
        choice["index"]
        for one in found[:-1]
        for choice in one["choices"]
        if choice["delta"].get("role")
    ]
    assert sorted(roles) == [0, 1, 2]
    record = served.record
    assert (record.outcome, record.cost) == ("ok", Decimal("0.69"))
    assert [call.error for call in record.attempts[0].calls] == [None] * 3
    assert all(call.first_content is not None for call in record.attempts[0].calls)
    check_books(served)


@EVERY
def test_call_that_is_refused_after_others_speak_falls_back_unseen(kind):
    scripts = [streamed(kind, ["a"]), streamed(kind, ["b"]), refusal(429, after=1.0)]
    served = serve(kind, scripts, [good_stream()])
    outcome = served.ask(chat(n=3, stream=True))
    assert header(outcome, "x-tz-provider") == "b"
    assert texts(outcome) == ["Hello there, you"]
    assert [one.error for one in served.record.attempts] == ["status_429", None]
    check_books(served)


@EVERY
@pytest.mark.parametrize("place", range(3))
def test_stream_of_which_one_breaks_after_content_ends_with_the_error(kind, place):
    scripts = [streamed(kind, ["a", "b"], every=0.5) for _ in range(3)]
    scripts[place] = streamed(kind, ["c"], every=0.5, last=overloaded(kind))
    served = serve(kind, scripts, [good_stream()])
    outcome = served.ask(chat(n=3, stream=True))
    found = events(outcome)
    assert "error" in found[-1]
    assert "[DONE]" not in found
    record = served.record
    assert (record.outcome, len(record.attempts)) == ("partial", 1)
    errors = [call.error for call in record.attempts[0].calls]
    assert errors[place] == record.attempts[0].error
    assert {one for n, one in enumerate(errors) if n != place} <= {"cancelled", None}
    assert len(served.sim.requests) == 3
    check_books(served)


@EVERY
@pytest.mark.parametrize("then", [Close(), Reset(), Stall()], ids=repr)
def test_stream_of_which_one_is_cut_is_never_ended_cleanly(kind, then):
    whole_one = streamed(kind, ["a", "b"], every=0.1)
    size = sum(len(step.data) for step in whole_one if isinstance(step, Send))
    scripts = [whole_one, cut(whole_one, size - 350, then), whole_one]
    served = serve(kind, scripts)
    outcome = served.ask(chat(n=3, stream=True))
    found = events(outcome)
    assert "error" in found[-1]
    assert "[DONE]" not in found
    assert served.record.outcome == "partial"
    check_books(served)


def test_stream_that_is_silent_is_not_excused_by_the_others_talking():
    scripts = [
        streamed("anthropic", ["a"] * 40, every=0.2),
        cut(streamed("anthropic", ["b", "c"], every=0.2), 600, Stall()),
    ]
    served = serve("anthropic", scripts)
    outcome = served.ask(chat(n=2, stream=True))
    assert events(outcome)[-1]["error"]["code"] == "upstream_timeout"
    errors = [call.error for call in served.record.attempts[0].calls]
    assert errors == ["cancelled", "timeout_idle"]
    assert outcome.finished_at - served.sim.start < 1.5 + TIMEOUTS.idle


def test_time_in_which_the_client_does_not_read_is_nobodys_silence():
    scripts = [streamed("cohere", ["a", "b"]), streamed("cohere", ["c", "d"])]
    served = serve(
        "cohere",
        scripts,
        timeouts=msgspec.structs.replace(TIMEOUTS, idle=1.0, stream_total=60.0),
        splits=(100,),
    )
    body = json.dumps(chat(n=2, stream=True)).encode()
    outcome = served.ask(request=ScriptedRequest((body,), takes=1.5))
    assert texts(outcome) == ["ab", "cd"]
    assert served.record.outcome == "ok"


def test_comments_go_out_while_all_are_silent_and_cut_nobody_short():
    scripts = [
        streamed("aws_bedrock", ["a"], every=0.1),
        streamed("aws_bedrock", ["b", "c"], every=1.5),
    ]
    policy = Policy(stream=StreamPolicy(ping_after=0.4))
    served = serve("aws_bedrock", scripts, policy=policy, timeouts=Timeouts())
    outcome = served.ask(chat(n=2, stream=True, stream_options={"include_usage": True}))
    body = outcome.response.body
    assert body.count(b": ping\n\n") >= 10
    assert b'"prompt_tokens":6' in body
    assert body.endswith(b"data: [DONE]\n\n")
    assert served.record.outcome == "ok"


@EVERY
def test_client_that_leaves_closes_every_connection_at_once(kind):
    scripts = [streamed(kind, ["a"] * 20, every=0.2) for _ in range(3)]
    served = serve(kind, scripts)
    outcome = served.ask(chat(n=3, stream=True), run=False)
    served.sim.run_until(served.sim.start + 1.0)
    assert len(served.sim.open_handles) == 3
    outcome.tell(ClientGone())
    served.sim.run_until(served.sim.now)
    assert served.sim.open_handles == []
    assert served.record.outcome == "client_gone"
    assert [one.error for one in served.record.attempts[0].calls] == ["cancelled"] * 3


def test_shutdown_tells_the_client_and_closes_every_connection():
    scripts = [streamed("cohere", ["a"] * 20, every=0.2) for _ in range(2)]
    served = serve("cohere", scripts)
    outcome = served.ask(chat(n=2, stream=True), run=False)
    served.sim.run_until(served.sim.start + 1.0)
    outcome.tell(Shutdown())
    served.sim.run_until_idle()
    assert events(outcome)[-1]["error"]["code"] == "gateway_shutdown"
    assert served.sim.open_handles == []


def test_nothing_is_read_while_the_client_does_not_read():
    words = ["word" * 100] * 400
    scripts = [
        Script(streamed("anthropic", words), window=4_096),
        Script(streamed("anthropic", words), window=4_096),
    ]
    served = serve("anthropic", scripts, timeouts=Timeouts(), splits=(4_096,))
    body = json.dumps(chat(n=2, stream=True)).encode()
    outcome = served.ask(request=ScriptedRequest((body,), takes=1.0), run=False)
    served.sim.run_until(served.sim.start + 20.0)
    sent = [op for _, op in outcome.operations if isinstance(op, SendBody)]
    reads = sum(len(op.data) for op in sent)
    # Each piece that goes out is what one read of each of the two brought.
    assert len(sent) <= 21
    assert reads <= 21 * 2 * 4_096 * 3
    outcome.cancel()
    assert served.sim.open_handles == []


def test_hedge_beside_several_calls_leaves_nothing_open():
    scripts = [whole("anthropic", "x", after=5.0)] * 2
    policy = Policy(hedge=Hedge(after=0.5))
    served = serve(
        "anthropic", scripts, [good()], policy=policy, hedge_share=HedgeShare(share=1.0)
    )
    outcome = served.ask(chat(n=2))
    assert header(outcome, "x-tz-provider") == "b"
    assert [call.error for call in served.record.attempts[0].calls] == ["cancelled"] * 2
    check_books(served)


def test_streams_through_a_proxy_are_read_together():
    url = "http://a.test/v1/chat"
    data = b"".join(
        sse_event(json.dumps(one)) for one in said("cohere", ["a", "b", "c"])
    )
    script = Script((Send(data, piece=50, every=0.1), Close()))
    proxied = ProxiedReply(200, (("content-type", "text/event-stream"),), script)
    have = {"proxy": Secret("http://proxy.test:1")}
    served = serve("cohere", [whole("cohere", "x")], has=have, timeouts=Timeouts())
    served.sim.world.proxied(url, proxied, proxied, proxied)
    outcome = served.ask(chat(n=3, stream=True))
    assert texts(outcome) == ["abc"] * 3
    assert events(outcome)[-1] == "[DONE]"
    assert any(isinstance(op, Race) for _, op in outcome.operations)
    assert served.sim.open_handles == []


# -- books ----------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0, 1], ids=["enough", "one too few"])
def test_reserved_tokens_count_the_input_once_for_each_call(missing):
    request = chat(n=3, max_tokens=25)
    one = -(-len(json.dumps(request)) // BYTES_PER_TOKEN)
    limits = KeyLimits(tokens_per_minute=3 * one + 3 * 25 - missing)
    scripts = [whole("anthropic", "x")] * 3
    config = serve("anthropic", scripts).gateway.snapshot
    served = Served(scripts, config=with_keys(config, principal(limits=limits)))
    outcome = served.ask(request, headers=bearer())
    assert outcome.response.status == (429 if missing else 200)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_row_holds_what_every_call_said(stream):
    words = ["x", "y"]
    have = {"a": {"type": "cohere", "model": "command-a-03-2025"}}
    records = RecordSettings(url=Secret(URL), capture="full")
    config = snapshot(HOSTS[:1], providers_have=have, records=records)
    scripts = [
        streamed("cohere", [one]) if stream else whole("cohere", one) for one in words
    ]
    served = Stored(scripts, server=ScriptedClickHouse(), config=config)
    served.ask(chat(n=2, seed=1, stream=stream))
    (row,) = served.rows("ModelInference")
    sent = json.loads(row["raw_request"])
    assert [one["seed"] for one in sent] == [1, 2]
    if not stream:
        received = json.loads(row["raw_response"])
        assert [one["id"] for one in received] == ["c_x", "c_y"]
    assert (row["input_tokens"], row["output_tokens"]) == (6, 4)
    (exchange,) = served.rows("Exchange")
    assert exchange["attempts.status"] == [200]
    assert exchange["attempts.calls"] == [2]
    assert exchange["attempts.connect_ms"] == [0.0]
    assert exchange["attempts.input_tokens"] == [6]


# -- whatever happens -----------------------------------------------------------

WORDS = st.lists(st.text('abcé\n"\\', min_size=1, max_size=4), min_size=1, max_size=5)
SECONDS = st.sampled_from((0.0, 0.0, 0.1, 0.3, 1.1))
STREAMS = st.lists(st.tuples(WORDS, SECONDS, SECONDS), min_size=2, max_size=5)
SPLITS = st.lists(st.integers(1, 300), max_size=3).map(tuple)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    STREAMS,
    SPLITS,
    st.integers(0, 99),
    st.sampled_from((0.0, 0.2)),
)
def test_each_choice_is_what_its_own_call_said_however_they_interleave(
    kind, streams, splits, seed, takes
):
    scripts = [
        streamed(kind, words, first=first, every=every)
        for words, first, every in streams
    ]
    # With a seed, who connects first is drawn.
    served = serve(kind, scripts, seed=seed, splits=splits, timeouts=Timeouts())
    body = json.dumps(chat(n=len(streams), stream=True)).encode()
    outcome = served.ask(request=ScriptedRequest((body,), takes=takes))
    expected = ["".join(words) for words, _, _ in streams]
    found = texts(outcome)
    assert sorted(found) == sorted(expected)
    if not seed:
        assert found == expected
    assert events(outcome)[-1] == "[DONE]"
    assert served.record.usage.total_tokens == 5 * len(streams)
    check_books(served)


CALLS = st.sampled_from(
    (
        *("good", "slow", "refused", "cut", "reset", "stalled", "error"),
        *("unreachable", "hanging"),
    )
)


def behaviour(kind, name, *, stream):
    """Return what one call finds."""
    made = streamed(kind, ["a", "b"], every=0.3) if stream else whole(kind, "ab")
    size = sum(len(step.data) for step in made if isinstance(step, Send))
    if name == "slow":
        return (
            streamed(kind, ["c"], first=0.5, every=0.7)
            if stream
            else whole(kind, "c", after=2.0)
        )
    if name == "refused":
        return refusal(503, after=0.5)
    if name in ("unreachable", "hanging"):
        return refuse(0.5) if name == "unreachable" else hang()
    if name == "error" and stream:
        return streamed(kind, ["d"], every=0.4, last=overloaded(kind))
    ends: dict[str, Step] = {"cut": Close(), "reset": Reset(), "stalled": Stall()}
    return cut(made, size // 2, ends[name]) if name in ends else made


@settings(deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.lists(CALLS, min_size=2, max_size=4),
    st.booleans(),
    st.booleans(),
    st.sampled_from((0, 0, 2)),
    st.sampled_from((None, None, 0.25)),
    st.sampled_from((None, "cancel", ClientGone(), Shutdown())),
    st.integers(1, 60),
    SPLITS,
)
def test_whatever_happens_there_is_one_head_one_record_and_nothing_open(
    kind, calls, stream, has_other, hold, ping, event, step, splits
):
    scripts = [behaviour(kind, name, stream=stream) for name in calls]
    others = [[good_stream() if stream else good()]] if has_other else []
    policy = Policy(
        retries=Retries(count=0),
        stream=StreamPolicy(hold_events=hold, ping_after=ping),
    )
    served = serve(kind, scripts, *others, policy=policy, splits=splits)
    options = {}
    if event == "cancel":
        options = {"cancel_at": step}
    elif event is not None:
        options = {"interrupt_at": (step, event)}
    outcome = served.ask(chat(n=len(calls), stream=stream), **options)
    assert outcome.error is None
    record = served.record
    operations = [op for _, op in outcome.operations]
    heads = [op for op in operations if isinstance(op, SendHead)]
    assert len(heads) <= 1
    if heads and ping is None:
        after = operations[operations.index(heads[0]) :]
        assert not any(isinstance(op, Connect) for op in after)
    for attempt in record.attempts:
        assert attempt.ended is not None
        assert all(call.ended is not None for call in attempt.calls)
    check_books(served)
    if event is not None:
        return
    body = outcome.response.body
    if stream and heads[0].head.status == 200:
        is_whole = body.endswith(b"data: [DONE]\n\n")
        assert is_whole == (record.outcome == "ok")
        assert (b'"error"' in body) == (not is_whole)
    if all(name in ("good", "slow") for name in calls):
        assert record.outcome == "ok"
        assert record.provider == "a"
        assert record.usage.total_tokens == 5 * len(calls)


# -- sums -----------------------------------------------------------------------

USAGES = st.builds(
    Usage,
    input_tokens=st.integers(0, 9),
    output_tokens=st.integers(0, 9),
    cache_read_tokens=st.none() | st.integers(0, 9),
    reasoning_tokens=st.none() | st.integers(0, 9),
)


@given(st.lists(st.none() | USAGES, max_size=4))
def test_total_is_the_sum_of_what_was_said_and_known_only_if_all_was(usages):
    total = total_of(usages)
    known = [usage for usage in usages if usage is not None]
    if not known:
        assert total is None
        return
    assert total.total_tokens == sum(usage.total_tokens for usage in known)
    cached = [
        one.cache_read_tokens for one in known if one.cache_read_tokens is not None
    ]
    assert total.cache_read_tokens == (sum(cached) if cached else None)
    assert total.quality == ("known" if len(known) == len(usages) else "estimated")

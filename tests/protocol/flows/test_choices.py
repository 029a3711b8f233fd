"""Several answers from a provider that gives one: alike to the caller, one attempt."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.flows.serving import (
    EVENTS,
    JSON,
    Served,
    answer,
    chat,
    error_of,
    events,
    good,
    header,
    snapshot,
)
from tests.protocol.flows.test_properties import TIMEOUTS, check_books
from tz_protocol.machine import ClientGone, Shutdown
from tz_protocol.testing import (
    Close,
    Reset,
    Script,
    Stall,
    cut,
    hang,
    refuse,
    reply,
    sse,
)
from tz_protocol.types.policy import Policy, Retries
from tz_protocol.types.settings import Limits

WORDS = ("Hel", "lo ", "you")
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}


def message(name, *, finish="end_turn", block=None):
    """Return a whole answer of Anthropic's, whose text is *name*."""
    body = {
        "id": f"msg_{name}",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [block or {"type": "text", "text": name}],
        "stop_reason": finish,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }
    return reply(200, JSON, json.dumps(body).encode())


def streamed(name, *, last=True, every=0.0, then=None):
    """Return a streamed answer of Anthropic's, whose text ends with *name*."""
    usage = {"input_tokens": 3, "output_tokens": 1}
    start = {"id": f"msg_{name}", "model": "claude-x", "content": [], "usage": usage}
    opened = {"type": "text", "text": ""}
    pieces = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": opened},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": text},
            }
            for text in (*WORDS, name)
        ),
    ]
    if then is not None:
        pieces.append(then)
    elif last:
        pieces += [
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": 2},
            },
            {"type": "message_stop"},
        ]
    return sse(*(json.dumps(piece).encode() for piece in pieces), end=b"", every=every)


def serve(*connections, spare=None, splits=(), **gateway):
    """Return a gateway: first Anthropic, whose connections are given, then OpenAI."""
    hosts = ("a.test", "b.test")[: 1 if spare is None else 2]
    have = {"a": {"type": "anthropic"}}
    config = snapshot(hosts, timeouts=TIMEOUTS, providers_have=have, **gateway)
    upstreams = (connections,) if spare is None else (connections, [spare])
    return Served(*upstreams, config=config, splits=splits)


def texts(found):
    """Return the text of each choice of a streamed answer."""
    said: dict[int, list[str]] = {}
    for event in found:
        if isinstance(event, dict):
            for choice in event["choices"]:
                said.setdefault(choice["index"], []).append(
                    choice["delta"].get("content") or ""
                )
    return {index: "".join(pieces) for index, pieces in sorted(said.items())}


def test_whole_answers_become_the_choices_of_one():
    served = serve(message("x"), message("y", finish="max_tokens"), message("z"))
    outcome = served.ask(chat(n=3))
    body = answer(outcome)
    assert [c["index"] for c in body["choices"]] == [0, 1, 2]
    assert sorted(c["message"]["content"] for c in body["choices"]) == ["x", "y", "z"]
    assert body["usage"]["prompt_tokens"] == 9
    assert body["usage"]["completion_tokens"] == 6
    assert header(outcome, "x-tz-attempts") == "1"
    (attempt,) = served.record.attempts
    assert len(attempt.calls) == 3
    assert {call.status for call in attempt.calls} == {200}
    assert served.record.usage.total_tokens == 15
    sent = [msgspec.json.decode(request.body) for _, _, request in served.sim.requests]
    assert len(sent) == 3
    assert not any("n" in body for body in sent)
    check_books(served)


def test_tool_calls_of_all_choices_have_ids_of_their_own():
    block = {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}
    served = serve(*(message(n, finish="tool_use", block=block) for n in "xyz"))
    tool = {"type": "function", "function": {"name": "f"}}
    body = answer(served.ask(chat(n=3, tools=[tool])))
    ids = [c["message"]["tool_calls"][0]["id"] for c in body["choices"]]
    assert len(set(ids)) == 3


def test_one_answer_is_asked_for_once():
    served = serve(message("x"))
    assert len(answer(served.ask(chat(n=1)))["choices"]) == 1
    assert served.record.attempts[0].calls == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_call_that_is_refused_sends_the_request_to_the_next(stream):
    one = streamed if stream else message
    busy = reply(529, JSON, json.dumps(OVERLOADED).encode())
    policy = Policy(retries=Retries(count=0))
    spare = sse(*EVENTS) if stream else good()
    served = serve(one("x"), busy, one("z"), spare=spare, policy=policy)
    outcome = served.ask(chat(n=3, stream=stream))
    assert outcome.response.head.status == 200
    assert header(outcome, "x-tz-provider") == "b"
    first, second = served.record.attempts
    assert (first.error is None, second.error) == (False, None)
    assert any(call.error is not None for call in first.calls)
    check_books(served)


def test_tokens_of_answers_that_were_for_nothing_are_in_the_record():
    busy = reply(529, JSON, json.dumps(OVERLOADED).encode(), after=1.0)
    policy = Policy(retries=Retries(count=0))
    served = serve(message("x"), message("y"), busy, spare=good(), policy=policy)
    served.ask(chat(n=3))
    assert served.record.attempts[0].spent.total_tokens == 10


@pytest.mark.parametrize("has_usage", [False, True])
def test_streams_are_relayed_side_by_side(has_usage):
    served = serve(
        streamed("x", every=0.2), streamed("y", every=0.1), streamed("z", every=0.3)
    )
    options = {"include_usage": has_usage}
    outcome = served.ask(chat(n=3, stream=True, stream_options=options))
    found = events(outcome)
    assert found[-1] == "[DONE]"
    said = texts(found)
    assert list(said) == [0, 1, 2]
    assert sorted(said.values()) == [f"Hello you{name}" for name in "xyz"]
    finishes = [
        choice["index"]
        for event in found[:-1]
        for choice in event["choices"]
        if choice["finish_reason"] == "stop"
    ]
    assert sorted(finishes) == [0, 1, 2]
    stated = [event["usage"] for event in found[:-1] if event.get("usage")]
    assert [usage["total_tokens"] for usage in stated] == [15] * has_usage
    assert served.record.usage.total_tokens == 15
    check_books(served)


def test_stream_that_fails_after_content_ends_them_all_with_an_error():
    served = serve(
        streamed("x", every=0.1),
        streamed("y", every=0.1, then=OVERLOADED),
        streamed("z", every=0.1),
        spare=sse(*EVENTS),
    )
    body = served.ask(chat(n=3, stream=True)).response.body
    assert b'"error"' in body
    assert b"[DONE]" not in body
    assert served.record.outcome == "partial"
    assert len(served.record.attempts) == 1
    check_books(served)


@pytest.mark.parametrize("n", [9, 128])
def test_more_than_may_be_asked_at_once_is_refused_by_name(n):
    served = serve(message("x"))
    status, error = error_of(served.ask(chat(n=n)))
    assert (status, error["param"]) == (400, "n")
    assert "anthropic" in error["message"]
    assert "emulated_choices" in error["message"]
    assert not served.sim.requests


def test_bound_is_the_configurations():
    served = serve(message("x"), message("y"), limits=Limits(emulated_choices=1))
    assert error_of(served.ask(chat(n=2)))[0] == 400


# -- whatever happens -----------------------------------------------------------

NAMES = ("x", "y", "z")
WHOLE = st.one_of(
    st.sampled_from(NAMES).map(message),
    st.sampled_from((refuse(), hang(), refuse(0.5))),
    st.just(reply(529, JSON, json.dumps(OVERLOADED).encode())),
    st.builds(
        cut,
        st.sampled_from(NAMES).map(message),
        st.integers(0, 400),
        st.sampled_from((Close(), Reset(), Stall())),
    ),
)
STREAMED = st.one_of(
    st.builds(streamed, st.sampled_from(NAMES), every=st.sampled_from((0.0, 0.3))),
    st.sampled_from((refuse(), hang(), refuse(0.5))),
    st.builds(streamed, st.sampled_from(NAMES), then=st.just(OVERLOADED)),
    st.builds(streamed, st.sampled_from(NAMES), last=st.just(False)),
    st.builds(
        cut,
        st.sampled_from(NAMES).map(streamed),
        st.integers(0, 1_500),
        st.sampled_from((Close(), Reset(), Stall())),
    ),
)
KINDS = st.booleans().flatmap(
    lambda is_stream: st.tuples(
        st.just(is_stream),
        st.lists(STREAMED if is_stream else WHOLE, min_size=3, max_size=6),
    )
)


def run(kind, splits=(), **options):
    """Ask for three answers in a world in which anything may happen."""
    is_stream, connections = kind
    spare = sse(*EVENTS) if is_stream else good()
    scripts = [c if not isinstance(c, tuple) else Script(c) for c in connections]
    served = serve(*scripts, spare=Script(spare, repeat=True), splits=splits)
    return served, served.ask(chat(n=3, stream=is_stream), **options)


def check(served, outcome, is_stream):
    """Assert what holds whatever happened."""
    assert outcome.error is None
    assert outcome.is_done
    assert served.record.outcome is not None
    check_books(served)
    head = outcome.response.head
    if is_stream and head is not None and head.status == 200:
        body = outcome.response.body
        if not outcome.is_cancelled:
            assert body.endswith(b"data: [DONE]\n\n") == (served.record.outcome == "ok")
        assert not (b'"error"' in body and b"[DONE]" in body)


@settings(deadline=None)
@given(KINDS, st.lists(st.integers(1, 400), max_size=3).map(tuple))
def test_choices_whatever_happens_keep_their_promises(kind, splits):
    served, outcome = run(kind, splits)
    check(served, outcome, kind[0])
    assert outcome.response.head is not None


@settings(deadline=None)
@given(KINDS, st.integers(1, 40))
def test_choices_cancelled_at_any_step_leave_nothing_open(kind, step):
    served, outcome = run(kind, cancel_at=step)
    check(served, outcome, kind[0])


@settings(deadline=None)
@given(KINDS, st.integers(1, 40), st.sampled_from((ClientGone(), Shutdown())))
def test_choices_interrupted_at_any_step_leave_nothing_open(kind, step, event):
    served, outcome = run(kind, interrupt_at=(step, event))
    assert outcome.is_done
    check_books(served)


@settings(deadline=None)
@given(st.lists(st.integers(1, 400), max_size=4).map(tuple))
def test_each_choice_is_its_own_provider_answers_text(splits):
    served = serve(*(streamed(name) for name in NAMES), splits=splits)
    said = texts(events(served.ask(chat(n=3, stream=True))))
    assert sorted(said.values()) == [f"Hello you{name}" for name in NAMES]

"""What the caller learns of parameters that a provider does not have."""

from __future__ import annotations

import json

import msgspec
import pytest

from tests.protocol.flows.serving import (
    JSON,
    Served,
    answer,
    chat,
    error_of,
    good,
    header,
    snapshot,
)
from tz_protocol.testing import reply

CLAUDE = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "x",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
ANSWERS = {
    "mistral": good(),
    "anthropic": reply(200, JSON, json.dumps(CLAUDE).encode()),
}
KINDS = pytest.mark.parametrize("kind", ANSWERS)


def serve(kind, policy, *others):
    """Return a gateway whose first provider does not have ``store``."""
    options = {} if policy is None else {"on_unsupported_param": policy}
    have = {"a": {"type": kind, "model": "claude-sonnet-4-5", "options": options}}
    hosts = ("a.test", "b.test")[: 1 + len(others)]
    return Served(
        [ANSWERS[kind]],
        *([steps] for steps in others),
        config=snapshot(hosts, providers_have=have),
    )


def sent(served):
    """Return the members that the provider got."""
    ((_, _, message),) = served.sim.requests
    return msgspec.json.decode(message.body)


@KINDS
def test_loss_that_must_not_be_is_a_refusal_that_names_provider_and_field(kind):
    served = serve(kind, "error")
    status, error = error_of(served.ask(chat(store=True)))
    assert status == 400
    assert error["type"] == "invalid_request_error"
    assert error["code"] == "unsupported_parameter"
    assert error["param"] == "store"
    assert error["message"] == f"The provider {kind} cannot express store."
    assert not served.sim.requests


@KINDS
@pytest.mark.parametrize("policy", ["warn", None])
def test_loss_is_named_in_a_header(kind, policy):
    served = serve(kind, policy)
    outcome = served.ask(chat(store=True))
    assert answer(outcome)["choices"][0]["message"]["content"] == "Hello"
    assert header(outcome, "x-tz-dropped-params") == "store"
    assert served.record.dropped == ("store",)
    assert "store" not in sent(served)


@KINDS
def test_loss_that_the_operator_does_not_mind_is_silent(kind):
    served = serve(kind, "drop")
    outcome = served.ask(chat(store=True))
    assert answer(outcome)["choices"][0]["message"]["content"] == "Hello"
    assert header(outcome, "x-tz-dropped-params") is None
    assert "store" not in sent(served)


@KINDS
@pytest.mark.parametrize("policy", ["error", "warn", "drop"])
def test_request_that_loses_nothing_is_not_touched_by_the_policy(kind, policy):
    served = serve(kind, policy)
    outcome = served.ask(chat(temperature=0.5))
    assert answer(outcome)["choices"]
    assert header(outcome, "x-tz-dropped-params") is None
    assert sent(served)["temperature"] == 0.5


@KINDS
def test_loss_at_one_provider_leaves_the_request_to_the_next(kind):
    served = serve(kind, "error", good())
    outcome = served.ask(chat(store=True))
    assert header(outcome, "x-tz-provider") == "b"
    assert header(outcome, "x-tz-dropped-params") is None
    assert sent(served)["store"] is True


@pytest.mark.parametrize(
    ("policy", "dropped"), [("warn", "seed"), ("drop", None)], ids=["warn", "drop"]
)
def test_meaning_is_lost_only_if_the_operator_says_so(policy, dropped):
    served = serve("anthropic", None)
    status, error = error_of(served.ask(chat(seed=1)))
    assert (status, error["param"]) == (400, "seed")
    served = serve("anthropic", policy)
    outcome = served.ask(chat(seed=1))
    assert answer(outcome)["choices"]
    assert header(outcome, "x-tz-dropped-params") == dropped
    assert "seed" not in sent(served)

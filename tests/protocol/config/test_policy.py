"""How hard to try, as a file says it."""

from __future__ import annotations

import pytest

from tests.protocol.config.reading import model, problems, provider, read, short
from tz_protocol.types.policy import (
    BreakerPolicy,
    Hedge,
    HedgeShare,
    Policy,
    Retries,
    RetryShare,
    StreamPolicy,
)

DUMMY = provider()


def gateway(text: str):
    """Return the policy of a ``[gateway]`` with these lines."""
    return read(f"[gateway]\n{text}\n").gateway.policy


def of_model(text: str, above: str = ""):
    """Return the model ``m`` that has these lines, below such a ``[gateway]``."""
    table = f'[models.m]\nrouting = ["p"]\n{text}\n[models.m.providers.p]\n{DUMMY}\n'
    return read(f"[gateway]\n{above}\n{table}").models["m"]


def test_policy_without_a_word_is_the_default():
    assert gateway("") == Policy()
    assert of_model("").policy is None
    found = read(model(DUMMY)).models["m"].providers["p"]
    assert (found.weight, found.retry_count, found.breaker) == (None, None, None)


RETRIES = {
    "count": ("count = 5", Retries(count=5)),
    "tensorzero's count": ("num_retries = 4", Retries(count=4)),
    "base_ms": ("base_ms = 250", Retries(base=0.25)),
    "cap_s": ("cap_s = 5", Retries(cap=5.0)),
    "tensorzero's cap": ("max_delay_s = 10", Retries(cap=10.0)),
    "retry_after_cap_s": ("retry_after_cap_s = 0", Retries(retry_after_cap=0.0)),
    "within_ms": ("within_ms = 1500", Retries(within=1.5)),
    "both": ("num_retries = 0, max_delay_s = 1.5", Retries(count=0, cap=1.5)),
}


@pytest.mark.parametrize(("text", "expected"), RETRIES.values(), ids=RETRIES.keys())
def test_policy_retries_are_read_at_each_level(text, expected):
    line = f"retries = {{{text}}}"
    assert gateway(line).retries == expected
    assert of_model(line).policy.retries == expected


BREAKERS = {
    "enabled": ("enabled = false", BreakerPolicy(is_enabled=False)),
    "failures": ("failures = 3", BreakerPolicy(failures=3)),
    "failures_alone": ("failures_alone = 9", BreakerPolicy(failures_alone=9)),
    "share": ("share = 0.25", BreakerPolicy(share=0.25)),
    "volume": ("volume = 5", BreakerPolicy(volume=5)),
    "window": ("window_s = 30", BreakerPolicy(window=30.0)),
    "rest": ("rest_ms = 2000", BreakerPolicy(rest=2.0)),
    "rest_max": ("rest_max_s = 60", BreakerPolicy(rest_max=60.0)),
    "longer rest": ("rest_s = 45", BreakerPolicy(rest=45.0, rest_max=45.0)),
    "ramp": ("ramp_ms = 0", BreakerPolicy(ramp=0.0)),
    "cooldown": ("cooldown_max_s = 5", BreakerPolicy(cooldown_max=5.0)),
    "demotion": ("demotion_s = 0", BreakerPolicy(demotion=0.0)),
}


@pytest.mark.parametrize(("text", "expected"), BREAKERS.values(), ids=BREAKERS.keys())
def test_policy_breaker_is_read_at_each_level(text, expected):
    line = f"breaker = {{{text}}}"
    assert gateway(line).breaker == expected
    assert of_model(line).policy.breaker == expected
    found = read(model(provider(breaker=f"{{{text}}}"))).models["m"].providers["p"]
    assert found.breaker == expected


STREAMS = {
    "hold_events": ("hold_events = 3", StreamPolicy(hold_events=3)),
    "hold_ms": ("hold_ms = 250", StreamPolicy(hold=0.25)),
    "malformed": (
        'on_malformed_event = "error"',
        StreamPolicy(on_malformed_event="error"),
    ),
    "ping": ("ping_after_s = 15", StreamPolicy(ping_after=15.0)),
}


@pytest.mark.parametrize(("text", "expected"), STREAMS.values(), ids=STREAMS.keys())
def test_policy_streams_are_read_at_each_level(text, expected):
    assert gateway(text).stream == expected
    assert of_model(text).policy.stream == expected


def test_policy_hedging_and_pings_can_be_switched_off_again():
    above = "hedge_after_ms = 800\nping_after_ms = 5000"
    assert gateway(above).hedge == Hedge(after=0.8)
    found = of_model("hedge_after_ms = 0\nping_after_ms = 0", above).policy
    assert (found.hedge, found.stream.ping_after) == (None, None)


def test_policy_is_inherited_value_by_value():
    above = "retries = {count = 7}\nbreaker = {failures = 3}"
    text = (
        f"[gateway]\n{above}\n"
        '[models.m]\nrouting = ["p"]\nretries = {base_ms = 10}\n'
        f"[models.m.providers.p]\n{provider(breaker='{failures_alone = 4}')}\n"
    )
    found = read(text).models["m"]
    assert found.policy is not None
    assert found.policy.retries == Retries(count=7, base=0.01)
    assert found.providers["p"].breaker == BreakerPolicy(failures=3, failures_alone=4)


def test_policy_budgets_are_the_process():
    text = "[gateway]\nretry_budget = {share = 0.5, minimum = 1}\n"
    text += "hedge_budget = {share = 0.1, burst = 2}\n"
    found = read(text).gateway
    assert found.retry_share == RetryShare(share=0.5, minimum=1)
    assert found.hedge_share == HedgeShare(share=0.1, burst=2)


def test_policy_of_a_provider_has_weight_count_and_context():
    entry = provider(weight="3", retries="{num_retries = 1}", context_tokens="8192")
    found = read(model(entry)).models["m"].providers["p"]
    assert (found.weight, found.retry_count, found.context_tokens) == (3.0, 1, 8192)
    assert of_model("context_tokens = 4096").context_tokens == 4096


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("retries = {count = -1}", "retries.count: expected a number of at least 0"),
        ("retries = {count = 101}", "retries.count: expected a number of at most 100"),
        (
            "retries = {count = 1, num_retries = 1}",
            "retries.num_retries: says the same as count: give only one",
        ),
        (
            "retries = {cap_ms = 1, max_delay_s = 1}",
            "retries.max_delay_s: says the same as cap_ms and cap_s: give only one",
        ),
        (
            "retries = {base_ms = 1, base_s = 1}",
            "retries.base_ms: set in seconds too: give base_ms or base_s, not both",
        ),
        (
            "retries = {base_ms = 0}",
            "retries.base_ms: expected a number greater than 0",
        ),
        ("retries = {tries = 1}", "retries.tries: unknown key"),
        ("breaker = {share = 0}", "breaker.share: expected a number greater than 0"),
        ("breaker = {failures = 0}", "breaker.failures: expected a number of at least"),
        (
            "breaker = {rest_s = 20, rest_max_ms = 1000}",
            "breaker.rest_max_ms: shorter than the first rest, which is 20 s",
        ),
        ("hold_events = 1001", "hold_events: expected a number of at most 1000"),
        (
            'on_malformed_event = "stop"',
            "on_malformed_event: expected 'skip' or 'error'",
        ),
        ("hedge_after_ms = -1", "hedge_after_ms: expected a number of at least 0"),
    ],
    ids=short,
)
def test_policy_that_makes_no_sense_is_refused_with_its_place(text, problem):
    (above,) = problems(f"[gateway]\n{text}\n")
    assert above.startswith(f"2: gateway.{problem}")
    table = f'[models.m]\nrouting = ["p"]\n{text}\n[models.m.providers.p]\n{DUMMY}\n'
    (below,) = problems(table)
    assert below.startswith(f"3: models.m.{problem}")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"weight": "-1"}, "weight: expected a number of at least 0"),
        ({"context_tokens": "0"}, "context_tokens: expected a number of at least 1"),
        ({"retries": "{base_ms = 5}"}, "retries.base_ms: unknown key"),
        ({"hedge_after_ms": "5"}, "hedge_after_ms: unknown key for type dummy"),
    ],
    ids=short,
)
def test_policy_of_a_provider_that_makes_no_sense_is_refused(changes, problem):
    (found,) = problems(model(provider(**changes)))
    assert f"models.m.providers.p.{problem}" in found


# -- fallbacks --------------------------------------------------------------------


def two(fallbacks: str, other: str = '["chat"]') -> str:
    """Return the models ``m`` and ``other``, of which ``m`` has these fallbacks."""
    return (
        f'[models.m]\nrouting = ["p"]\nfallback_models = {fallbacks}\n'
        f"[models.m.providers.p]\n{DUMMY}\n"
        f'[models.other]\nrouting = ["p"]\nendpoints = {other}\n'
        f'fallback_models = ["m"]\n[models.other.providers.p]\n{DUMMY}\n'
    )


def test_fallbacks_may_name_each_other_and_shorthand():
    found = read(two('["other", "openai::gpt-4.1-mini"]'), OPENAI_API_KEY="sk")
    assert found.models["m"].fallback_models == ("other", "openai::gpt-4.1-mini")
    assert found.models["other"].fallback_models == ("m",)


@pytest.mark.parametrize(
    ("fallbacks", "problem"),
    [
        ('["m"]', "a model cannot be its own fallback"),
        ('["other", "other"]', "duplicate entry: the same name stands before it"),
        ('["othr"]', "no such model (did you mean other?)"),
        ('["nobody::x"]', "no such model"),
        ('["azure::x"]', "no such model"),
        ('["openai::gpt"]', "OPENAI_API_KEY"),
    ],
    ids=short,
)
def test_fallbacks_that_cannot_be_followed_are_refused(fallbacks, problem):
    (found,) = problems(two(fallbacks))
    assert found.startswith("3: models.m.fallback_models[")
    assert problem in found


def test_fallbacks_that_can_do_nothing_of_it_are_refused():
    first, second = problems(two('["other"]', other='["embedding"]'))
    assert "its endpoints are embedding, expected one of chat" in first
    assert "its endpoints are chat, expected one of embedding" in second


def test_fallbacks_of_embedding_models_are_read():
    table = (
        '[embedding_models.e]\nrouting = ["p"]\nfallback_models = ["f"]\n'
        f"[embedding_models.e.providers.p]\n{DUMMY}\n"
        '[embedding_models.f]\nrouting = ["p"]\n'
        f"[embedding_models.f.providers.p]\n{DUMMY}\n"
    )
    assert read(table).models["e"].fallback_models == ("f",)

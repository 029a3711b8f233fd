"""How requests prove who asks: tokens of Google's, signatures of AWS's."""

from __future__ import annotations

import json
from functools import cache

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
    refusal,
    snapshot,
)
from tz_protocol.flows.services import services_of
from tz_protocol.notices import LogLine
from tz_protocol.testing import hang, refuse, reply
from tz_protocol.types.policy import Policy, Retries
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Credential, Url
from tz_protocol.wire.sigv4 import AwsCredentials, Scope, sign

TWO = ("a.test", "b.test")
ONCE = Policy(retries=Retries(count=0))
GEMINI = {
    "candidates": [
        {
            "content": {"role": "model", "parts": [{"text": "Hello"}]},
            "finishReason": "STOP",
        }
    ]
}
CONVERSE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2},
}


def told(value, status=200):
    return reply(status, JSON, json.dumps(value).encode())


def issued(token, **options):
    """Return the answer of an issuer that takes each connection for one request."""
    value = {"access_token": token, "expires_in": 3_600, "token_type": "Bearer"}
    data = json.dumps(value).encode()
    return reply(200, JSON, data, framing="close", **options)


@cache
def account():
    """Return a service account's credential, on one line."""
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    value = {
        "type": "service_account",
        "client_email": "a@p.test",
        "private_key": pem.decode(),
        "token_uri": "http://issuer.test/token",
    }
    return Secret(json.dumps(value))


def vertex(**changes):
    """Return the settings of a Vertex provider with a service account."""
    return {
        "type": "gcp_vertex_gemini",
        "model": "gemini-2.5-flash",
        "options": {"project_id": "p", "location": "eu"},
        "credential": Credential("static", account()),
        **changes,
    }


class Proving:
    """A gateway whose first provider needs more than a key, and its services."""

    def __init__(self, first, *upstreams, issuer=(), environment=None, more=None):
        config = snapshot(
            TWO[: len(upstreams)], policy=ONCE, providers_have={"a": first}
        )
        connections = [[steps] for steps in upstreams]
        self.served = Served(*connections, config=config, repeat=True)
        self.sim = self.served.sim
        world = self.sim.world
        if issuer:
            world.upstream("issuer.test", 80, *issuer)
        for host, steps in (more or {}).items():
            world.upstream(host, 80, steps)
        world.environment.update(environment or {})
        for name, make in services_of(self.served.gateway):
            if name in ("tokens", "aws_credentials"):
                self.sim.spawn(make(), name=name)

    def ask(self, *, count=1):
        """Ask that many times at once; return the outcomes."""
        outcomes = [self.served.ask(run=False) for _ in range(count)]
        self.sim.run_until_done(*outcomes)
        return outcomes

    def requests(self, host):
        """Return the requests that came to *host*."""
        return [
            message
            for _, stream, message in self.sim.requests
            if message.get("host") == host
        ]

    def tries(self):
        """Return (provider, error) of every attempt, by request."""
        return [
            [(attempt.provider, attempt.error) for attempt in record.attempts]
            for record in self.sim.records
        ]

    def shown(self, *outcomes):
        """Return everything that anybody may see of the run."""
        parts = [repr(self.sim.notices), self.served.gateway.metrics.render({})]
        parts += [msgspec.json.encode(one).decode() for one in self.sim.records]
        parts += [f"{one.response.head} {one.response.body!r}" for one in outcomes]
        return "\n".join(parts)

    def warnings(self):
        return [one.message for one in self.sim.notices if isinstance(one, LogLine)]


# -- tokens ---------------------------------------------------------------------


def test_token_is_fetched_once_for_many_requests_and_sent_with_each():
    proving = Proving(vertex(), told(GEMINI), issuer=[issued("canary-1", after=0.5)])
    outcomes = proving.ask(count=5) + proving.ask(count=3)
    assert [answer(one)["choices"][0]["message"]["content"] for one in outcomes] == [
        "Hello"
    ] * 8
    (asked,) = proving.requests("issuer.test")
    assert asked.target == "/token"
    assert b"jwt-bearer" in asked.body
    sent = proving.requests("a.test")
    assert {message.get("authorization") for message in sent} == {"Bearer canary-1"}
    assert len(sent) == 8
    assert proving.tries() == [[("a", None)]] * 8


def test_token_that_the_provider_refused_is_fetched_anew_for_the_next_request():
    no = {"error": {"code": 401, "message": "Expired.", "status": "UNAUTHENTICATED"}}
    steps = (*told(no, 401), *told(GEMINI), *told(GEMINI))
    proving = Proving(vertex(), steps, issuer=[issued("old"), issued("new")])
    (first,) = proving.ask()
    assert error_of(first)[0] == 502
    others = proving.ask() + proving.ask()
    assert all(answer(one)["choices"] for one in others)
    sent = [message.get("authorization") for message in proving.requests("a.test")]
    assert sent == ["Bearer old", "Bearer new", "Bearer new"]
    assert len(proving.requests("issuer.test")) == 2


@pytest.mark.parametrize(
    ("issuer", "error", "status", "code"),
    [
        (refuse(), "upstream_unreachable", 502, "upstream_unreachable"),
        (hang(), "timeout_connect", 504, "upstream_connect_timeout"),
        (told({"error": "canary"}, 503), "status_503", 503, "overloaded"),
        (
            told({"error": "invalid_grant", "error_description": "canary"}, 400),
            "status_401",
            502,
            "upstream_auth_error",
        ),
    ],
    ids=["refuses", "hangs", "is down", "says no"],
)
def test_issuer_that_gives_no_token_is_an_attempt_that_failed(
    issuer, error, status, code
):
    proving = Proving(vertex(), told(GEMINI), issuer=[issuer])
    (alone,) = proving.ask()
    found, said = error_of(alone)
    assert (found, said["code"]) == (status, code)
    assert proving.tries() == [[("a", error)]]
    assert not proving.requests("a.test")
    proving = Proving(vertex(), told(GEMINI), good(), issuer=[issuer])
    (one,) = proving.ask()
    assert header(one, "x-tz-provider") == "b"
    assert proving.tries() == [[("a", error), ("b", None)]]
    assert "no access token could be had" in proving.warnings()
    shown = proving.shown(alone, one)
    assert "canary" not in shown
    assert "issuer.test/" not in shown


def test_token_and_credential_are_seen_by_nobody():
    proving = Proving(vertex(), told(GEMINI), refusal(500), issuer=[issued("canary-1")])
    shown = proving.shown(*proving.ask(), *proving.ask())
    assert "canary" not in shown
    assert "PRIVATE KEY" not in shown
    (asked,) = proving.requests("issuer.test")
    assert b"PRIVATE" not in asked.body


def test_key_that_is_a_token_already_is_sent_as_it_is():
    key = Credential("static", Secret("ya29.mine"))
    proving = Proving(vertex(credential=key), told(GEMINI))
    proving.ask()
    (sent,) = proving.requests("a.test")
    assert sent.get("authorization") == "Bearer ya29.mine"


def test_credential_of_the_caller_gets_a_token_of_its_own():
    key = Credential("dynamic", name="google")
    proving = Proving(vertex(credential=key), told(GEMINI), issuer=[issued("theirs")])
    credentials = {"google": account().reveal()}
    body = {**chat(), "tensorzero::credentials": credentials}
    outcome = proving.served.ask(body, run=False)
    proving.sim.run_until_done(outcome)
    (sent,) = proving.requests("a.test")
    assert sent.get("authorization") == "Bearer theirs"
    assert b"private_key" not in sent.body


# -- signatures -----------------------------------------------------------------

KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "canary-secret"}
BORROWED = {**KEYS, "AWS_SESSION_TOKEN": "canary-token"}


def aws(kind="aws_bedrock", **changes):
    """Return the settings of a provider at AWS that has no key."""
    return {
        "type": kind,
        "model": "amazon.nova-lite-v1:0",
        "credential": Credential("none"),
        "options": {"region": "eu-west-1"},
        **changes,
    }


def signed(proving, message, region, service, token=None):
    """Return what AWS would compute of a request that came to it."""
    covered = ("host", "content-type")
    headers = tuple(pair for pair in message.headers if pair[0] in covered)
    return dict(
        sign(
            message.method,
            message.target,
            "",
            headers,
            message.body,
            credentials=AwsCredentials("AKID", Secret("canary-secret"), token),
            scope=Scope(region, service),
            wall=proving.served.gateway.wall_clock(),
        )
    )


SAGEMAKER = {"endpoint_name": "mine", "hosted_provider": "tgi"}
ELSEWHERE = "bedrock-runtime.us-west-2.amazonaws.com"


@pytest.mark.parametrize(
    ("settings", "environment", "host", "scope"),
    [
        (aws(), {}, "a.test", ("eu-west-1", "bedrock")),
        (aws(), {"AWS_REGION": "us-east-2"}, "a.test", ("eu-west-1", "bedrock")),
        (
            aws(options={}),
            {"AWS_REGION": "us-east-2"},
            "a.test",
            ("us-east-2", "bedrock"),
        ),
        (
            aws(options={}, url=Url("http", ELSEWHERE, 80)),
            {"AWS_REGION": "us-east-2"},
            ELSEWHERE,
            ("us-west-2", "bedrock"),
        ),
        (
            aws("aws_sagemaker", options={**SAGEMAKER, "region": "eu-west-1"}),
            {},
            "a.test",
            ("eu-west-1", "sagemaker"),
        ),
    ],
    ids=["table", "table first", "surroundings", "host", "sagemaker"],
)
def test_request_is_signed_with_the_keys_of_the_environment(
    settings, environment, host, scope
):
    steps = good() if settings["type"] == "aws_sagemaker" else told(CONVERSE)
    proving = Proving(
        settings,
        steps,
        environment={**KEYS, **environment},
        more={ELSEWHERE: steps},
    )
    (outcome,) = proving.ask()
    assert answer(outcome)["choices"][0]["message"]["content"] == "Hello"
    (sent,) = proving.requests(host)
    expected = signed(proving, sent, *scope)
    assert {name: sent.get(name) for name in expected} == expected
    assert f"/{scope[0]}/{scope[1]}/aws4_request" in expected["authorization"]
    assert "canary" not in repr(sent)


def test_borrowed_keys_are_sent_with_their_token_and_seen_by_nobody():
    proving = Proving(aws(), told(CONVERSE), environment=BORROWED)
    outcomes = proving.ask(count=3)
    for sent in proving.requests("a.test"):
        token = Secret("canary-token")
        expected = signed(proving, sent, "eu-west-1", "bedrock", token)
        assert {name: sent.get(name) for name in expected} == expected
        assert sent.get("x-amz-security-token") == "canary-token"
    assert len(proving.requests("a.test")) == 3
    assert "canary" not in proving.shown(*outcomes)


def test_key_of_the_configuration_is_sent_and_no_credentials_are_looked_for():
    key = Credential("static", Secret("bedrock-key"))
    proving = Proving(aws(credential=key), told(CONVERSE))
    proving.ask()
    (sent,) = proving.requests("a.test")
    assert sent.get("authorization") == "Bearer bedrock-key"
    assert sent.get("x-amz-date") is None


def test_credentials_that_are_not_there_are_an_attempt_that_failed():
    half = {"AWS_ACCESS_KEY_ID": "canary"}
    proving = Proving(aws(), told(CONVERSE), good(), environment=half)
    (one,) = proving.ask()
    assert header(one, "x-tz-provider") == "b"
    assert proving.tries() == [[("a", "status_401"), ("b", None)]]
    assert "no AWS credentials could be had" in proving.warnings()
    assert "AWS_SECRET_ACCESS_KEY is not set" in proving.shown()
    assert "canary" not in proving.shown(one)


def test_region_that_nobody_knows_is_an_attempt_that_failed():
    proving = Proving(aws(options={}), told(CONVERSE), good(), environment=KEYS)
    (one,) = proving.ask()
    assert header(one, "x-tz-provider") == "b"
    assert proving.tries() == [[("a", "missing_region"), ("b", None)]]
    assert not proving.requests("a.test")

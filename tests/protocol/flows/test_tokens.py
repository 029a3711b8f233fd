from __future__ import annotations

import json

import pytest

from tz_protocol.errors import UpstreamBroken, UpstreamRefused, UpstreamTimeout
from tz_protocol.flows.tokens import TokenService, token_for
from tz_protocol.notices import LogLine
from tz_protocol.operations import Flow, Sleep
from tz_protocol.providers.google_tokens import read_credential
from tz_protocol.routing.pool import Pool
from tz_protocol.routing.tokens import TokenTable
from tz_protocol.testing import Simulator, World, hang, refuse, reply
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Limits

JSON = (("content-type", "application/json"),)


def issued(text="t1", seconds=3_600, **options):
    value = {"access_token": text, "expires_in": seconds, "token_type": "Bearer"}
    return reply(200, JSON, json.dumps(value).encode(), framing="close", **options)


def grant(host="issuer.test", name="a"):
    value = {
        "type": "authorized_user",
        "client_id": name,
        "client_secret": "canary-secret",
        "refresh_token": "r",
        "token_uri": f"http://{host}/token",
    }
    found = read_credential(Secret(json.dumps(value)))
    assert found is not None
    return found


class Running:
    """A service in a simulated world."""

    def __init__(self, **issuers):
        world = World()
        for name, connections in issuers.items():
            world.upstream(f"{name}.test", 80, *connections)
        self.sim = Simulator(world)
        self.table = TokenTable()
        service = TokenService(
            table=self.table,
            context=self.sim.context,
            pool=Pool(Limits()),
            limits=Limits,
            wall_clock=lambda: 1_750_000_000.0 + self.sim.now,
            jitter=lambda: 0.5,
            user_agent="tz-gateway/test",
        )
        self.service = self.sim.spawn(service.run())

    def ask(self, one, *, at=0.0, within=5.0):
        """Ask for a token at some moment of the simulation."""

        def flow() -> Flow[Secret]:
            if at:
                yield from Sleep(self.sim.start + at)
            context = self.sim.context
            return (
                yield from token_for(self.table, one, context, context.now + within)
            )

        return self.sim.spawn(flow())

    def until(self, moment):
        self.sim.run_until(self.sim.start + moment)

    @property
    def asked(self):
        """When the issuers were asked, in seconds from the start."""
        return [round(time - self.sim.start, 3) for time, _, _ in self.sim.requests]


def test_first_request_waits_and_all_others_do_not():
    running = Running(issuer=[issued(after=0.25)])
    outcomes = [running.ask(grant()) for _ in range(5)]
    late = running.ask(grant(), at=100, within=0)
    running.until(200)
    assert [one.result for one in (*outcomes, late)] == [Secret("t1")] * 6
    assert running.asked == [0.0]
    assert not running.service.is_done


def test_request_to_the_issuer_is_what_the_grant_renders():
    running = Running(issuer=[issued()])
    running.ask(grant())
    running.until(1)
    ((_, _, message),) = running.sim.requests
    text = repr(message)
    assert "/token" in text
    assert "grant_type=refresh_token" in text
    assert "tz-gateway/test" in text


def test_token_is_renewed_while_it_is_used_and_without_anybody_waiting():
    running = Running(issuer=[issued("t1"), issued("t2"), issued("t3")])
    used = [running.ask(grant(), at=moment, within=0.0) for moment in (3_000, 3_301)]
    running.ask(grant())
    running.until(3_400)
    assert [one.result for one in used] == [Secret("t1"), Secret("t2")]
    assert running.asked == [0.0, 3_300.0]


def test_token_that_nobody_uses_is_let_go():
    running = Running(issuer=[issued("t1"), issued("t2"), issued("t3")])
    running.ask(grant())
    running.until(20_000)
    assert running.asked == [0.0, 3_300.0]
    later = running.ask(grant())
    running.until(20_001)
    assert later.result == Secret("t3")


def test_refusal_of_the_issuer_is_told_at_once_and_tried_again_later():
    no = reply(400, JSON, b'{"error":"invalid_grant"}', framing="close")
    running = Running(issuer=[no, issued()])
    first = running.ask(grant())
    second = running.ask(grant(), at=0.1)
    third = running.ask(grant(), at=5)
    running.until(10)
    assert isinstance(first.error, UpstreamRefused)
    assert first.error is second.error
    assert third.result == Secret("t1")
    lines = [one for one in running.sim.notices if isinstance(one, LogLine)]
    assert [line.level for line in lines] == ["warning"]
    assert "canary" not in repr(lines)


@pytest.mark.parametrize(
    ("issuer", "error"),
    [
        (refuse(), UpstreamBroken),
        (reply(200, JSON, b"{}", after=20.0), UpstreamTimeout),
        (hang(), UpstreamTimeout),
    ],
    ids=["refused", "slow", "hangs"],
)
def test_issuer_that_cannot_be_had_fails_the_request_and_not_the_service(issuer, error):
    running = Running(issuer=[issuer, issued()])
    first = running.ask(grant(), within=60)
    running.until(60)
    assert isinstance(first.error, error)
    again = running.ask(grant())
    running.until(70)
    assert again.result == Secret("t1")


def test_request_waits_no_longer_than_it_may_take_to_connect():
    running = Running(issuer=[issued(after=3.0)])
    impatient = running.ask(grant(), within=1.0)
    patient = running.ask(grant(), within=4.0)
    running.until(1.0)
    assert isinstance(impatient.error, UpstreamTimeout)
    assert impatient.error.phase == "connect"
    running.until(4.0)
    assert patient.result == Secret("t1")


def test_issuer_that_hangs_does_not_hold_up_another_one():
    running = Running(slow=[hang()], issuer=[issued()])
    running.ask(grant("slow.test"))
    good = running.ask(grant(), at=0.1)
    running.until(0.2)
    assert good.result == Secret("t1")


def test_two_credentials_have_two_tokens():
    running = Running(issuer=[issued("t1"), issued("t2")])
    first = running.ask(grant(name="a"))
    second = running.ask(grant(name="b"))
    running.until(1)
    assert {first.result, second.result} == {Secret("t1"), Secret("t2")}


def test_token_that_a_provider_refused_is_fetched_anew():
    running = Running(issuer=[issued("t1"), issued("t2")])
    running.ask(grant())
    running.until(1)
    running.table.refused(grant(), Secret("t1"), running.sim.now)
    again = running.ask(grant())
    running.until(2)
    assert again.result == Secret("t2")


def test_service_that_is_cancelled_leaves_nothing_open():
    running = Running(issuer=[issued(after=9.0)])
    waiting = running.ask(grant(), within=30)
    running.until(1)
    running.service.cancel()
    running.until(40)
    assert isinstance(waiting.error, UpstreamTimeout)
    assert all(stream.closed_at is not None for stream in running.sim.opened)

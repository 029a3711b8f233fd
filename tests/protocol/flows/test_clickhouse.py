"""The store as flows see it: how long it may take, and the engine in a folder."""

from __future__ import annotations

import pytest

from tests.protocol.flows.serving import good, header, snapshot
from tests.protocol.flows.stored import Stored, asked
from tz_protocol.errors import StoreBroken, StoreRefused, StoreTimeout
from tz_protocol.flows.clickhouse import ClickHouse
from tz_protocol.machine import ClientGone
from tz_protocol.recordops import OpenEmbedded
from tz_protocol.testing import ScriptedClickHouse, Simulator, World
from tz_protocol.types.records import RecordSettings
from tz_protocol.types.secret import Secret

SERVER = "http://store.test:8123/tensorzero"
FOLDER = "chdb:///data"
PLACES = {SERVER: SERVER, FOLDER: "http://embedded/data"}
BOTH = pytest.mark.parametrize("url", [SERVER, FOLDER], ids=["server", "engine"])


class Asking:
    """A store at *url* in a simulated world, and who asks it."""

    def __init__(self, url=FOLDER):
        self.server = ScriptedClickHouse()
        self.server.answers["SELECT 1"] = lambda parameters: [{"one": 1}]
        self.sim = Simulator(World(clickhouse={PLACES[url]: self.server}))
        self.store = ClickHouse(Secret(url), self.sim.context)

    def ask(self, seconds=10.0, sql="SELECT 1"):
        return self.sim.spawn(self.store.query(seconds, sql))

    def insert(self, seconds=10.0):
        return self.sim.spawn(self.store.insert(seconds, "T", b'{"a":1}'))

    def openings(self):
        """Return how often the engine was opened."""
        return sum(
            isinstance(operation, OpenEmbedded)
            for driver in self.sim.drivers
            for _, operation in driver.operations
        )

    def wait(self, seconds=60.0):
        self.sim.run_until(self.sim.now + seconds)


def took(outcome):
    return outcome.finished_at - outcome.started_at


@BOTH
def test_store_that_answers_is_asked_and_written(url):
    asking = Asking(url)
    asking.server.created.add("T")
    answers = [asking.ask(), asking.insert()]
    asking.wait()
    assert answers[0].result == b'{"one": 1}\n'
    assert answers[1].result is None
    assert asking.server.rows("T") == [{"a": 1}]
    assert asking.openings() == (url == FOLDER)


@BOTH
@pytest.mark.parametrize("state", ["down", "frozen"])
def test_store_that_fails_is_told_within_the_time_and_found_again(url, state):
    asking = Asking(url)
    asking.server.created.add("T")
    asking.server.state = state
    for begin in (asking.ask, asking.insert):
        outcome = begin(3.0)
        asking.wait()
        assert took(outcome) == (3.0 if state == "frozen" else 0.0)
        assert type(outcome.error) is (
            StoreTimeout if state == "frozen" else StoreBroken
        )
    asking.server.state = "up"
    outcome = asking.ask()
    asking.wait()
    assert outcome.result


@BOTH
def test_refusal_of_the_server_keeps_its_code(url):
    asking = Asking(url)
    for _ in range(2):
        outcome = asking.insert()
        asking.wait()
        assert isinstance(outcome.error, StoreRefused)
        assert outcome.error.code == "60"
    # The engine answered: it need not be looked for again.
    assert asking.openings() == (url == FOLDER)


def test_engine_that_was_lost_is_opened_again():
    asking = Asking()
    asking.ask()
    asking.wait()
    asking.server.state = "down"
    lost = asking.ask()
    asking.wait()
    assert isinstance(lost.error, StoreBroken)
    assert asking.openings() == 1
    asking.server.state = "up"
    found = asking.ask()
    asking.wait()
    assert found.result
    assert asking.openings() == 2


def test_engine_that_starts_is_opened_once_for_all_who_ask():
    asking = Asking()
    asking.server.latency = 2.0
    outcomes = [asking.ask() for _ in range(3)]
    asking.wait()
    assert [took(outcome) for outcome in outcomes] == [4.0] * 3
    assert asking.openings() == 1


def test_engine_that_starts_makes_nobody_wait_longer_than_he_wants():
    asking = Asking()
    asking.server.latency = 5.0
    hasty, patient, hasty_too = asking.ask(0.5), asking.ask(20.0), asking.ask(0.25)
    asking.wait()
    assert isinstance(hasty.error, StoreTimeout)
    assert isinstance(hasty_too.error, StoreTimeout)
    assert (took(hasty), took(hasty_too)) == (0.5, 0.25)
    # Who waited for the hasty one opens it in his turn.
    assert patient.result
    assert asking.openings() == 2


def test_engine_whose_opener_is_gone_is_opened_by_who_waits():
    asking = Asking()
    asking.server.latency = 1.0
    first, second = asking.ask(), asking.ask()
    asking.wait(0.5)
    first.tell(ClientGone())
    asking.wait()
    assert first.is_done
    assert second.result


def test_engine_that_never_starts_is_given_up():
    asking = Asking()
    asking.server.state = "frozen"
    outcome = asking.ask(600.0)
    asking.wait(600.0)
    assert isinstance(outcome.error, StoreTimeout)
    assert took(outcome) == 30.0


def test_engine_that_cannot_be_opened_says_why():
    asking = Asking()
    asking.sim.world.clickhouse.clear()
    outcomes = [asking.ask(), asking.ask()]
    asking.wait()
    assert [str(outcome.error) for outcome in outcomes] == ["missing", "missing"]


def test_look_up_in_the_cache_does_not_wait_for_an_engine_that_starts():
    server = ScriptedClickHouse()
    served = Stored(
        [good()],
        config=snapshot(("a.test",), records=RecordSettings(url=Secret(FOLDER))),
    )
    server.latency = 8.0
    served.sim.world.clickhouse[PLACES[FOLDER]] = server
    outcome = served.ask(asked())
    assert header(outcome, "x-tz-cache") == "miss"
    assert took(outcome) < 0.1

"""A database brought up to date: again, cut off anywhere, and without all rights."""

from __future__ import annotations

import pytest

from tz_protocol.errors import StoreError, StoreRefused
from tz_protocol.flows.clickhouse import ClickHouse
from tz_protocol.flows.migrate import migrate
from tz_protocol.machine import ClientGone
from tz_protocol.records.schema import MIGRATIONS, TTL_COLUMNS, ttl_statement
from tz_protocol.records.views import FUNCTIONS
from tz_protocol.testing import ScriptedClickHouse, Simulator, World
from tz_protocol.types.secret import Secret

URL = "http://store.test:8123/tensorzero"
NAMES = tuple(migration.name for migration in MIGRATIONS)


class Server(ScriptedClickHouse):
    """A server that refuses some statements, and remembers what a table's rows live."""

    def __init__(self, refused="", code="497"):
        super().__init__()
        self.refused = refused
        self.code = code
        self.settings = []
        self.lives = {}

    def query(self, sql, parameters):
        if self.refused and self.refused in sql:
            raise StoreRefused(self.code)
        if sql.startswith("ALTER") and " MODIFY TTL " in sql:
            self.lives[sql.split()[2]] = sql.partition(" MODIFY ")[2]
        return super().query(sql, parameters)

    def _answer(self, sql, parameters):
        rows = super()._answer(sql, parameters)
        if "FROM system.tables" in sql:
            for row in rows:
                life = self.lives.get(row["name"], "")
                row["create_table_query"] = f"CREATE TABLE … {life}"
        return rows


class Bringing:
    """A server, and who brings its database up to date."""

    def __init__(self, server=None, url=URL):
        self.server = server or Server()
        place = url if url.startswith("http") else "http://embedded/data"
        self.sim = Simulator(World(clickhouse={place: self.server}))
        self.store = ClickHouse(Secret(url), self.sim.context)

    def run(self, ttl_days=None, **options):
        return self.sim.run(migrate(self.store, ttl_days), **options)

    def created(self):
        """Return the statements that made databases."""
        return [s for s in self.server.statements if s.startswith("CREATE DATABASE")]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://store.test:8123/tensorzero", "`tensorzero`"),
        ("http://store.test:8123/o`dd", "`o\\`dd`"),
        ("http://store.test:8123/my%20data", "`my data`"),
        ("chdb:///data", "`tensorzero`"),
        ("http://store.test:8123/", None),
        ("http://store.test:8123", None),
    ],
    ids=["named", "quoted", "escaped", "engine", "slash", "none"],
)
def test_database_is_made_if_the_address_names_one(url, name):
    bringing = Bringing(url=url)
    assert bringing.run().result.done == NAMES
    made = [] if name is None else [f"CREATE DATABASE IF NOT EXISTS {name}"]
    assert bringing.created() == made


@pytest.mark.parametrize("what", ["CREATE DATABASE", "CREATE FUNCTION"])
def test_right_that_is_missing_does_not_stop_the_rest(what):
    server = Server(refused=what)
    server.functions -= set(FUNCTIONS)
    found = Bringing(server).run().result
    assert found.done == NAMES
    told = [line for line in found.left_out if "no right to make it" in line]
    assert len(told) == (len(FUNCTIONS) if what == "CREATE FUNCTION" else 0)


@pytest.mark.parametrize(
    "what", ["CREATE DATABASE", "CREATE FUNCTION", "CREATE TABLE", "ALTER TABLE"]
)
def test_refusal_of_another_kind_ends_it(what):
    server = Server(refused=what, code="241")
    server.functions -= set(FUNCTIONS)
    error = Bringing(server).run().error
    assert isinstance(error, StoreRefused)
    assert error.code == "241"


def test_versions_that_were_carried_out_are_not_carried_out_again():
    bringing = Bringing()
    bringing.run()
    before = len(bringing.server.statements)
    found = bringing.run().result
    assert found.done == ()
    again = bringing.server.statements[before:]
    assert [one for one in again if one.startswith(("ALTER", "INSERT"))] == []
    versions = [row["version"] for row in bringing.server.rows("TzMigration")]
    assert versions == [str(migration.version) for migration in MIGRATIONS]


def test_run_that_was_cut_off_anywhere_is_made_good_by_the_next():
    whole = Bringing()
    steps = len(whole.run(30).operations)
    for step in range(1, steps + 1):
        bringing = Bringing()
        bringing.run(30, interrupt_at=(step, ClientGone()))
        later = Bringing(bringing.server)
        assert later.run(30).error is None
        assert later.server.created == whole.server.created
        assert later.server.lives == whole.server.lives
        versions = {row["version"] for row in later.server.rows("TzMigration")}
        assert versions == {str(migration.version) for migration in MIGRATIONS}


def test_store_that_goes_away_ends_it():
    bringing = Bringing()
    bringing.server.state = "down"
    assert isinstance(bringing.run().error, StoreError)


# -- how long rows live ---------------------------------------------------------


def test_rows_live_as_long_as_is_said_and_only_a_change_is_carried_out():
    bringing = Bringing()
    first = bringing.run(30).result.done
    assert set(bringing.server.lives) == set(TTL_COLUMNS)
    assert first == (
        *NAMES,
        *(f"{name}'s rows go after 30 days" for name in sorted(TTL_COLUMNS)),
    )
    assert bringing.run(30).result.done == ()
    shorter = bringing.run(3).result.done
    assert len(shorter) == len(TTL_COLUMNS)
    assert all(line.endswith("'s rows go after 3 days") for line in shorter)


def test_rows_live_for_ever_unless_something_is_said():
    bringing = Bringing()
    bringing.run()
    assert bringing.server.lives == {}


def test_tables_of_others_keep_their_rows():
    server = Server()
    server.created.add("SomebodyElses")
    Bringing(server).run(30)
    assert "SomebodyElses" not in server.lives


@pytest.mark.parametrize(
    ("create", "is_due"),
    [
        ("CREATE TABLE t (a Int) TTL d + toIntervalDay(30) SETTINGS x = 1", False),
        ("CREATE TABLE t (a Int) TTL d + toIntervalDay(3)", True),
        ("CREATE TABLE t (a Int) TTL d + toIntervalDay(300)", True),
        ("CREATE TABLE t (a Int DEFAULT toIntervalDay(30))", True),
    ],
    ids=["same", "fewer", "more", "elsewhere"],
)
def test_life_of_a_table_is_read_from_its_definition(create, is_due):
    statement = ttl_statement("Exchange", 30, create)
    assert (statement is not None) == is_due

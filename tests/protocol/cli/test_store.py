"""What is read from the store: live, summed up, and made ready."""

from __future__ import annotations

import json

import pytest

from tests.protocol.cli.running import start
from tz_protocol.cli.arguments import USAGE_ERROR, parse_arguments
from tz_protocol.cli.options import Migrate, Say, Source, Tail, Usage
from tz_protocol.cli.reports import report
from tz_protocol.errors import OperationBroken, StoreRefused
from tz_protocol.testing import ScriptedClickHouse, World

URL = "http://u:pw-canary@store.test:8123/tensorzero"


def world(server: ScriptedClickHouse | None = None, *signals) -> World:
    """Return a world whose environment names a store."""
    found = World(environment={"TENSORZERO_CLICKHOUSE_URL": URL}, signals=[*signals])
    found.clickhouse[URL] = server or ScriptedClickHouse()
    return found


def row(number: int, **members):
    """Return a request as ``tail`` reads it."""
    return {
        "id": f"id-{number}",
        "started_at": "2025-06-15 15:06:40.000",
        "endpoint": "POST /v1/chat/completions",
        "asked_model": "m",
        "model": "m",
        "provider": "p",
        "status": 200,
        "outcome": "ok",
        "error": "",
        "stage": "done",
        "is_stream": False,
        "cache": "",
        "key_id": "",
        "project_id": "",
        "usage": "known",
        "input_tokens": 3,
        "output_tokens": 4,
        "cost": "0.000012000",
        "duration_ms": 120.4,
        "first_content_ms": 80.0,
        "tries": 1,
        "request_id": "r",
        "written": 1_750_000_000_000 + number,
        **members,
    }


FIGURES = {
    "all_requests": 10,
    "all_failed": 1,
    "all_cached": 2,
    "all_input_tokens": 1000,
    "all_output_tokens": 2000,
    "all_unknown_usage": 0,
    "all_cost": "0.123400000",
    "all_unknown_cost": 0,
    "all_p50_ms": 10.5,
    "all_p95_ms": 20.0,
    "all_p99_ms": 30.0,
    "all_first_p50_ms": 5.0,
}


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        ("tail", Tail()),
        (
            "tail --model m --key 0123 --failures --json",
            Tail(model="m", key_id="0123", is_failures=True, is_json=True),
        ),
        ("tail --since 90s", Tail(seconds=90)),
        ("usage", Usage()),
        (
            "usage --since 7d --by day,model --json",
            Usage(seconds=604_800, by=("day", "model"), is_json=True),
        ),
        ("--run-clickhouse-migrations", Migrate()),
        ("serve --run-clickhouse-migrations", Migrate()),
        (
            "--config-file a.toml --run-clickhouse-migrations",
            Migrate(Source(("a.toml",))),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arguments_are_understood(argv, command):
    assert parse_arguments(argv.split()).command == command


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ("usage --since 7", "expected a time such as 30m, 24h or 7d"),
        ("usage --since 0h", "expected a time such as"),
        ("usage --by colour", "expected some of model, provider, key"),
        ("usage --by model,model", "expected some of"),
        ("usage x", "unexpected argument 'x'"),
        ("tail x", "tail takes options only"),
        ("tail --model a --model b", "one --model at most"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(argv, reason):
    said = parse_arguments(argv.split()).command
    assert isinstance(said, Say)
    assert said.status == USAGE_ERROR
    assert reason in said.text


@pytest.mark.parametrize("command", ["tail", "usage", "--run-clickhouse-migrations"])
@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "set TENSORZERO_CLICKHOUSE_URL to the store"),
        ({"TENSORZERO_CLICKHOUSE_URL": "mysql://h"}, "must hold a URL that begins"),
        ({"TENSORZERO_CLICKHOUSE_URL": "chdb://x"}, "must name a folder from the root"),
        ({"TENSORZERO_CLICKHOUSE_URL": "chdb:///nowhere"}, "cannot be reached"),
    ],
    ids=["unset", "other", "relative", "engine"],
)
def test_command_without_a_store_says_what_to_set(command, environment, reason):
    process = start(command, World(environment=environment))
    assert process.finish() == 1
    assert reason in process.err


def test_command_with_a_store_that_is_down_says_so_without_its_address():
    server = ScriptedClickHouse()
    server.state = "down"
    process = start("usage", world(server))
    assert process.finish() == 1
    assert process.err == (
        "tz-gateway: ClickHouse cannot be reached: the connection was refused\n"
    )


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("denied", "does not accept the user or the password in TENSORZERO_CLICKHOUSE"),
        ("dns", "cannot be reached: its host has no address"),
        ("no_clickhouse", "cannot be reached: what answers there is no ClickHouse"),
        ("engine", "cannot be reached: engine"),
    ],
)
def test_command_without_an_answer_says_why(reason, told):
    server = ScriptedClickHouse()

    def answer(_):
        raise OperationBroken(reason)

    server.answers["FROM Exchange"] = answer
    process = start("usage", world(server))
    assert process.finish() == 1
    assert told in process.err


def test_migrations_are_carried_out_and_told():
    server = ScriptedClickHouse()
    process = start("--run-clickhouse-migrations", world(server))
    assert process.finish() == 0
    done = "tables, lookup tables, statistics, traces and attempts, "
    done += "defaults of attempts"
    assert process.out == f"carried out: {done}\n"
    assert {"Exchange", "InferenceById", "VariantStatistics"} <= server.created
    again = start("--run-clickhouse-migrations", world(server))
    assert again.finish() == 0
    assert again.out == "nothing was to be done\n"


def test_migrations_take_the_time_that_rows_stay_from_the_file():
    server = ScriptedClickHouse()
    server.answers["create_table_query"] = lambda parameters: [
        {"name": "Exchange", "create_table_query": "CREATE TABLE Exchange"}
    ]
    argv = "--run-clickhouse-migrations --config-file a.toml"
    process = start(argv, world(server), a="gateway.observability.ttl_days = 9")
    assert process.finish() == 0, process.err
    assert "Exchange's rows go after 9 days" in process.out
    assert any("toIntervalDay(9)" in one for one in server.statements)


def test_migrations_need_no_more_of_the_file_than_it_says_of_records():
    server = ScriptedClickHouse()
    server.answers["create_table_query"] = lambda parameters: [
        {"name": "Exchange", "create_table_query": "CREATE TABLE Exchange"}
    ]
    text = """
        [models.m]
        routing = ["openai::gpt-4o"]
        [gateway.observability]
        enabled = true
        ttl_days = 9
    """
    argv = "--run-clickhouse-migrations --config-file a.toml"
    process = start(argv, world(server), a=text)
    assert process.finish() == 0, process.err
    assert "Exchange's rows go after 9 days" in process.out


def test_migrations_with_a_file_that_is_wrong_change_nothing():
    server = ScriptedClickHouse()
    argv = "--run-clickhouse-migrations --config-file a.toml"
    process = start(argv, world(server), a="gateway.observability.ttl_days = 0")
    assert process.finish() == USAGE_ERROR
    assert "gateway.observability.ttl_days" in process.err
    assert not server.statements


def test_migrations_that_a_server_cannot_have_are_told_until_it_can():
    server = ScriptedClickHouse()
    server.functions.remove("quantilesTDigest")
    left_out = (
        "left out, as this server cannot: ModelProviderStatistics and "
        "VariantStatistics (no function quantilesTDigest)\n"
    )
    process = start("--run-clickhouse-migrations", world(server))
    assert process.finish() == 0
    done = "tables, lookup tables, traces and attempts, defaults of attempts"
    assert process.out == f"carried out: {done}\n{left_out}"
    assert "VariantStatistics" not in server.created
    again = start("--run-clickhouse-migrations", world(server))
    again.finish()
    assert again.out == left_out
    server.functions.add("quantilesTDigest")
    later = start("--run-clickhouse-migrations", world(server))
    later.finish()
    assert later.out == "carried out: statistics\n"


class WithoutFunctions(ScriptedClickHouse):
    """A server whose user may make tables and no functions."""

    def query(self, sql, parameters):
        if sql.startswith("CREATE FUNCTION"):
            raise StoreRefused("497")
        return super().query(sql, parameters)


def test_migrations_without_the_right_to_make_functions_go_on():
    server = WithoutFunctions()
    server.functions.remove("uint_to_uuid")
    process = start("--run-clickhouse-migrations", world(server))
    assert process.finish() == 0
    done = "tables, lookup tables, statistics, traces and attempts, "
    done += "defaults of attempts"
    assert process.out.splitlines() == [
        f"carried out: {done}",
        "left out, as this server cannot: function uint_to_uuid (no right to make it)",
    ]


# -- tail -----------------------------------------------------------------------


def test_tail_prints_each_request_once_until_a_signal():
    server = ScriptedClickHouse()
    rows = [row(1)]
    server.answers["FROM Exchange"] = lambda parameters: list(rows)
    process = start("tail", world(server, (4.5, "SIGINT")))
    process.until(1.5)
    rows.append(
        row(
            2,
            status=503,
            outcome="error",
            error="overloaded",
            model="",
            provider="",
            usage="unknown",
            cost=None,
            tries=2,
            key_id="00ff",
            cache="miss",
        )
    )
    assert process.finish() == 0
    assert process.out.splitlines() == [
        "2025-06-15 15:06:40.000 200 ok m/p 120ms 3>4 cost=0.000012000",
        (
            "2025-06-15 15:06:40.000 503 error m/- 120ms - cost=- cache=miss key=00ff "
            "attempts=2 error=overloaded"
        ),
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ["id-1", "id-2", "id-3", "id-4"]),
        ("--model n", ["id-2", "id-4"]),
        ("--key k", ["id-3"]),
        ("--failures", ["id-3", "id-4"]),
        ("--failures --model n", ["id-4"]),
    ],
)
def test_tail_shows_what_is_wanted(options, expected):
    server = ScriptedClickHouse()
    rows = [row(1), row(2, model="n"), row(3, key_id="k", outcome="error")]
    rows.append(row(4, model="", asked_model="n", outcome="error"))
    server.answers["FROM Exchange"] = lambda parameters: rows
    process = start(f"tail --json {options}", world(server, (2.0, "SIGTERM")))
    assert process.finish() == 0
    found = [json.loads(line) for line in process.out.splitlines()]
    assert [one["id"] for one in found] == expected


def test_tail_takes_as_many_answers_as_a_look_needs():
    server = ScriptedClickHouse()
    rows = [row(number) for number in range(12_000)]

    def answer(parameters):
        after = (int(parameters["after"]), parameters["id"])
        rest = [one for one in rows if (one["written"], one["id"]) > after]
        return rest[:5_000]

    server.answers["FROM Exchange"] = answer
    process = start("tail --since 1h --json", world(server, (3.5, "SIGTERM")))
    assert process.finish() == 0
    found = [json.loads(line)["id"] for line in process.out.splitlines()]
    assert len(found) == len(set(found))
    assert set(found) == {one["id"] for one in rows}


def test_tail_waits_for_a_store_that_goes_away_or_is_not_made_yet():
    server = ScriptedClickHouse()
    answers = iter(
        ["60", "60", [row(1)], OperationBroken("reset"), OperationBroken("reset")]
    )

    def answer(parameters):
        found = next(answers, [row(1), row(2)])
        if isinstance(found, str):
            raise StoreRefused(found)
        if isinstance(found, OperationBroken):
            raise found
        return found

    server.answers["FROM Exchange"] = answer
    process = start("tail --json", world(server, (7.5, "SIGINT")))
    assert process.finish() == 0
    found = [json.loads(line)["id"] for line in process.out.splitlines()]
    assert found == ["id-1", "id-2"]
    first, second = process.err.splitlines()
    assert "no tables yet" in first
    assert "cannot be reached: the connection was lost; waiting for it" in second


def test_tail_shows_no_control_characters():
    server = ScriptedClickHouse()
    bad = row(1, model="", asked_model="evil\x1b[2J\nname" + "x" * 300)
    server.answers["FROM Exchange"] = lambda parameters: [bad]
    process = start("tail", world(server, (2.0, "SIGTERM")))
    process.finish()
    assert process.out.count("\n") == 1
    assert "\x1b" not in process.out
    assert len(process.out) < 200


# -- usage ----------------------------------------------------------------------


def test_usage_is_a_table():
    server = ScriptedClickHouse()
    server.answers["FROM Exchange"] = lambda parameters: [
        {"by_model": "m", **FIGURES},
        {"by_model": "a-longer-name", **FIGURES, "all_cost": None, "all_p50_ms": None},
    ]
    process = start("usage", world(server))
    assert process.finish() == 0
    head, first, second = process.out.splitlines()
    assert head.split()[:4] == ["model", "requests", "failed", "cached"]
    assert "unknown_usage" not in head
    assert first.split()[:7] == ["m", "10", "1", "2", "1000", "2000", "0.1234"]
    assert second.split()[6] == "-"
    assert len(head) == len(first) == len(second)


def test_usage_as_json_is_one_array_with_exact_money():
    server = ScriptedClickHouse()
    server.answers["FROM Exchange"] = lambda parameters: [
        {"by_day": "2025-06-15", "by_model": "m", **FIGURES}
    ]
    process = start("usage --by day,model --since 7d --json", world(server))
    assert process.finish() == 0
    (found,) = json.loads(process.out)
    assert found["day"] == "2025-06-15"
    assert found["cost"] == "0.1234"
    assert "SETS ((`by_day`, `by_model`), ())" in server.statements[-1]


def test_usage_of_several_ends_with_a_line_of_everything():
    rows = [
        {"by_model": "m", "is_total": 0, **FIGURES},
        {"by_model": "n", "is_total": 0, **FIGURES},
        {"by_model": "", "is_total": 1, **FIGURES, "all_requests": 20},
    ]
    *_, last = report(rows, Usage()).splitlines()
    assert last.split()[:3] == ["total", "20", "1"]
    assert len(report([rows[0], rows[2]], Usage()).splitlines()) == 2
    found = json.loads(report(rows, Usage(is_json=True)))
    assert [one["model"] for one in found] == ["m", "n"]


def test_usage_of_nothing_says_so():
    assert report([], Usage()) == "no requests in the last 1d\n"
    assert report([], Usage(seconds=5_400)) == "no requests in the last 90m\n"

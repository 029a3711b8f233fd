from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tz_protocol.cli.logs import Backlog, access_level, is_wanted, line_of, render
from tz_protocol.cli.options import LogSettings
from tz_protocol.notices import Close, LogLine, RecordNotice
from tz_protocol.records.record import AttemptRecord, Outcome, Record, Stage
from tz_protocol.types.secret import Secret
from tz_protocol.types.usage import Usage

WALL = 1_751_889_600.25
TIME = "2025-07-07T12:00:00.250Z"
FORMATS = ("pretty", "json")


def record(**changes):
    values: dict[str, Any] = {
        "id": "0197e4a0-0000-7000-8000-000000000001",
        "request_id": "req-1",
        "endpoint": "POST /v1/chat/completions",
        "config_id": "abc123",
        "started_at": WALL,
        "started": 5.0,
        "stage": Stage.DONE,
        "outcome": Outcome.OK,
        "status": 200,
        "asked_model": "assistant",
        "model": "assistant",
        "provider": "spare",
        "is_stream": True,
        "attempts": [
            AttemptRecord(
                provider="main",
                provider_type="openai",
                model="assistant",
                upstream_model="gpt-4.1-mini",
                started=0.0,
                status=503,
                error="upstream_503",
                ended=0.0125,
            ),
            AttemptRecord(
                provider="spare",
                provider_type="vllm",
                model="assistant",
                upstream_model="llama",
                started=0.0125,
                status=200,
                ended=1.5,
            ),
        ],
        "usage": Usage(input_tokens=10, output_tokens=20),
        "first_content": 0.4,
        "duration": 1.5,
        "bytes_in": 100,
        "bytes_out": 200,
    }
    return Record(**(values | changes))


def text_of(notice, log_format):
    text = render(notice, log_format=log_format, wall=WALL)
    assert text is not None
    return text


# -- lines ----------------------------------------------------------------------


def test_render_line_pretty_is_for_people():
    fields = {"seconds": 1.5, "why": "two words", "on": True, "none": None, "n": [1]}
    line = text_of(LogLine("warning", "something happened", fields), "pretty")
    assert line == (
        f"{TIME} warning something happened seconds=1.5 "
        'why="two words" on=true none=null n=[1]'
    )


def test_render_line_json_is_one_object():
    line = text_of(
        LogLine("info", "something happened", {"a": [1, {"b": None}]}), "json"
    )
    assert json.loads(line) == {
        "time": TIME,
        "level": "info",
        "message": "something happened",
        "a": [1, {"b": None}],
    }


def test_render_fields_cannot_replace_the_names_of_our_own():
    fields = {"level": "debug", "message": "forged", "time": "never", "other": 1}
    found = json.loads(text_of(LogLine("error", "real", fields), "json"))
    assert found == {"time": TIME, "level": "error", "message": "real", "other": 1}


def test_render_line_break_in_a_value_stays_in_its_value():
    forged = "x\n2025-07-07T12:00:00.000Z error   forged \x1b[31m\u2028\x85\x7f"
    for log_format in FORMATS:
        line = text_of(LogLine("info", "m", {"value": forged}), log_format)
        assert line.isprintable()
        assert "\\n2025" in line
        assert "\\u001b" in line


@pytest.mark.parametrize("log_format", FORMATS)
def test_render_secret_shows_stars(log_format):
    fields = {"key": Secret("sk-very-secret"), "in": [Secret("sk-very-secret")]}
    line = text_of(LogLine("info", "m", fields), log_format)
    assert "sk-very-secret" not in line
    assert line.count("***") == 2


@pytest.mark.parametrize("log_format", FORMATS)
def test_render_other_notices_are_no_lines(log_format):
    assert render(Close(object()), log_format=log_format, wall=WALL) is None


ODD = {
    "surrogate": ("\ud800", "\\ud800"),
    "large-number": (10**40, str(10**40)),
    "not-a-number": (float("nan"), "null"),
    "infinity": ([10**40, float("inf")], "null"),
    "astral-unprintable": ("\U000e0001", "\\udb40\\udc01"),
    "bytes": (object, "object"),
}


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize(("value", "expected"), ODD.values(), ids=list(ODD))
def test_render_values_that_json_has_no_form_for_are_shown(value, expected, log_format):
    line = text_of(LogLine("info", "m", {"value": value}), log_format)
    assert expected in line
    assert line.isprintable()


def test_render_value_within_itself_ends():
    loop: list[object] = []
    loop.append(loop)
    line = text_of(LogLine("info", "m", {"loop": loop}), "json")
    assert json.loads(line)["message"] == "m"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
LINES = st.builds(
    LogLine,
    st.sampled_from(["debug", "info", "warning", "error"]),
    st.text(),
    st.dictionaries(st.text(), ANYTHING, max_size=5),
)
RECORDS = st.builds(
    lambda text, outcome, number: RecordNotice(
        record(
            request_id=text,
            asked_model=text,
            model=text,
            provider=text,
            error=text,
            dropped=(text,),
            outcome=outcome,
            status=number,
        )
    ),
    st.text(),
    st.sampled_from(Outcome),
    st.none() | st.integers(100, 599),
)


@pytest.mark.parametrize("log_format", FORMATS)
@given(notice=LINES | RECORDS, wall=st.floats(0, 4e9))
def test_render_whatever_it_carries_is_one_printable_line(notice, wall, log_format):
    line = render(notice, log_format=log_format, wall=wall)
    assert line is not None
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    if log_format == "json":
        assert isinstance(json.loads(line), dict)


@given(fields=st.dictionaries(st.text(min_size=1), st.text(), max_size=5))
def test_render_json_gives_back_what_was_put_in(fields):
    line = text_of(LogLine("info", "m", fields), "json")
    own = {"time": TIME, "level": "info", "message": "m"}
    assert json.loads(line) == {**fields, **own}


# -- the access line ------------------------------------------------------------


def test_render_record_json_has_every_attempt():
    found = json.loads(text_of(RecordNotice(record()), "json"))
    assert found == {
        "time": TIME,
        "level": "info",
        "message": "request",
        "endpoint": "POST /v1/chat/completions",
        "status": 200,
        "outcome": "ok",
        "model": "assistant",
        "provider": "spare",
        "stream": True,
        "duration_ms": 1500.0,
        "first_content_ms": 400.0,
        "attempts": [
            {
                "model": "assistant",
                "provider": "main",
                "status": 503,
                "error": "upstream_503",
                "ms": 12.5,
            },
            {"model": "assistant", "provider": "spare", "status": 200, "ms": 1487.5},
        ],
        "bytes_in": 100,
        "bytes_out": 200,
        "request_id": "req-1",
        "id": "0197e4a0-0000-7000-8000-000000000001",
        "config_id": "abc123",
        "input_tokens": 10,
        "output_tokens": 20,
    }


def test_render_record_pretty_is_one_readable_line():
    line = text_of(RecordNotice(record(attempts=[], usage=None)), "pretty")
    assert line.startswith(
        f'{TIME} info    request endpoint="POST /v1/chat/completions" status=200 '
        "outcome=ok model=assistant provider=spare stream=true duration_ms=1500.0 "
    )


def test_render_record_says_tokens_cost_cache_and_key():
    usage = Usage(input_tokens=9, output_tokens=8, cache_read_tokens=7)
    full = record(
        usage=usage, cost=Decimal("0.00012"), cache="miss", key_id="k1", project_id="p1"
    )
    found = json.loads(text_of(RecordNotice(full), "json"))
    assert (found["input_tokens"], found["output_tokens"]) == (9, 8)
    assert found["cache_read_tokens"] == 7
    assert "reasoning_tokens" not in found
    assert found["cost"] == "0.00012"
    assert (found["cache"], found["key"], found["project"]) == ("miss", "k1", "p1")


def test_render_record_of_a_key_without_a_project_names_none():
    line = text_of(RecordNotice(record(key_id="k1", project_id="")), "pretty")
    assert "key=k1" in line
    assert "project" not in line


def test_render_record_that_cost_nothing_is_not_one_whose_cost_is_unknown():
    free = json.loads(text_of(RecordNotice(record(cost=Decimal(0))), "json"))
    assert free["cost"] == "0"
    assert "cost" not in json.loads(text_of(RecordNotice(record()), "json"))


@pytest.mark.parametrize("log_format", FORMATS)
def test_render_record_is_bounded_whatever_callers_and_providers_wrote(log_format):
    long = record(
        error="e" * 5_000,
        dropped=tuple(f"{number}" + "d" * 5_000 for number in range(5_000)),
        asked_model="m" * 5_000,
    )
    line = text_of(RecordNotice(long), log_format)
    assert len(line) < 6_000
    assert "and 4980 more" in line


def test_render_record_that_failed_says_where_and_what_was_asked():
    failed = record(
        outcome=Outcome.ERROR,
        status=404,
        error="model_not_found",
        stage=Stage.RESOLVE,
        model=None,
        provider=None,
        asked_model="x" * 1000,
        usage=None,
        duration=None,
    )
    found = json.loads(text_of(RecordNotice(failed), "json"))
    assert found["stage"] == "resolve"
    assert found["error"] == "model_not_found"
    assert found["asked_model"] == "x" * 200
    assert "duration_ms" not in found


def test_render_record_says_when_usage_was_only_estimated():
    usage = Usage(input_tokens=1, output_tokens=2, quality="estimated")
    found = json.loads(text_of(RecordNotice(record(usage=usage)), "json"))
    assert found["usage"] == "estimated"


def test_render_record_leaves_the_callers_tags_out():
    tagged = RecordNotice(record(tags={"note": "private words"}))
    for log_format in FORMATS:
        assert "private" not in text_of(tagged, log_format)


LEVELS = {
    "ok": (Outcome.OK, 200, "info"),
    "caller-wrong": (Outcome.ERROR, 400, "info"),
    "provider-wrong": (Outcome.ERROR, 502, "warning"),
    "unknown-status": (Outcome.ERROR, None, "warning"),
    "gone": (Outcome.CLIENT_GONE, None, "info"),
    "partial": (Outcome.PARTIAL, 200, "warning"),
    "timeout": (Outcome.TIMEOUT, 504, "warning"),
    "shed": (Outcome.SHED, 503, "warning"),
    "cancelled": (Outcome.CANCELLED, None, "warning"),
    "never-settled": (None, None, "warning"),
}


@pytest.mark.parametrize(
    ("outcome", "status", "level"), LEVELS.values(), ids=list(LEVELS)
)
def test_access_level_warns_of_what_an_operator_should_see(outcome, status, level):
    assert access_level(record(outcome=outcome, status=status)) == level


# -- the filter -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_filter_shows_its_level_and_above(level, shown):
    levels = ["debug", "info", "warning", "error"]
    assert [own for own in levels if is_wanted(LogLine(own, "m"), level)] == shown


def test_filter_takes_an_unknown_level_for_an_error():
    assert is_wanted(LogLine("fatal", "m"), "error")


def test_filter_applies_to_access_lines():
    good, bad = record(), record(outcome=Outcome.TIMEOUT)
    assert not is_wanted(RecordNotice(good), "warning")
    assert is_wanted(RecordNotice(bad), "warning")


def test_line_of_is_what_the_settings_say():
    quiet = LogSettings("error", "pretty")
    assert line_of(LogLine("info", "m"), quiet, WALL) is None
    assert line_of(LogLine("error", "m"), quiet, WALL) == f"{TIME} error   m"
    assert line_of(Close(object()), LogSettings("debug", "json"), WALL) is None


# -- the backlog ----------------------------------------------------------------


def test_backlog_gives_lines_in_order_and_once():
    backlog = Backlog(LogSettings())
    assert backlog.add(LogLine("info", "one"), 0.0)
    assert backlog.add(LogLine("error", "two"), 1.0)
    first, second = backlog.take().splitlines()
    assert first.endswith("one")
    assert second.endswith("two")
    assert backlog.take() == ""


def test_backlog_does_not_want_everything():
    backlog = Backlog(LogSettings(level="error"))
    assert not backlog.add(LogLine("warning", "one"), 0.0)
    assert backlog.take() == ""


def test_backlog_that_is_full_says_how_much_it_lost():
    backlog = Backlog(LogSettings(), limit=2)
    told = [backlog.add(LogLine("info", f"line {n}"), 0.0) for n in range(5)]
    assert told == [True, True, False, False, False]
    assert backlog.take().count("\n") == 2
    assert backlog.add(LogLine("info", "after"), 0.0)
    lines = backlog.take().splitlines()
    assert "lines are lost lines=3" in lines[0]
    assert lines[1].endswith("after")

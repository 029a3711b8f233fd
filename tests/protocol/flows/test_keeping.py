"""What exchanges leave in the store: one record each, and no more than may be kept."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tests.protocol.flows.serving import (
    HOSTS,
    JSON,
    answer,
    chat,
    error_of,
    events,
    good,
    good_stream,
    refusal,
    snapshot,
    text_of,
)
from tests.protocol.flows.stored import CANARY, URL, Stored, extras
from tz_protocol.records.rows import price_id
from tz_protocol.testing import (
    Close,
    Script,
    ScriptedClickHouse,
    ScriptedRequest,
    hang,
    refuse,
)
from tz_protocol.types.prices import Price
from tz_protocol.types.records import RecordSettings, SpoolSettings
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import Timeouts

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PRICES = (Price("input", Decimal("0.000002")), Price("output", Decimal("0.00001")))


def store() -> ScriptedClickHouse:
    return ScriptedClickHouse()


def test_whole_answer_leaves_a_row_in_each_table():
    served = Stored([good()], server=store())
    outcome = served.ask(
        chat(temperature=0.5, **extras(tags={"user": "u1"})),
    )
    (exchange,) = served.rows("Exchange")
    (model,) = served.rows("ModelInference")
    (inference,) = served.rows("ChatInference")
    assert exchange["id"] == inference["id"] == model["inference_id"]
    assert exchange["id"] == answer(outcome)["id"]
    assert exchange["outcome"] == "ok"
    assert exchange["stage"] == "done"
    assert exchange["status"] == 200
    assert exchange["tags"] == {"user": "u1"}
    assert exchange["attempts.provider"] == ["a"]
    assert exchange["usage"] == "known"
    assert (model["input_tokens"], model["output_tokens"]) == (3, 1)
    assert model["model_name"] == "m"
    assert model["model_provider_name"] == "a"
    assert model["cached"] is False
    assert model["finish_reason"] == "stop"
    assert json.loads(model["raw_request"])["model"] == "upstream-model"
    assert json.loads(model["raw_response"])["id"] == "chatcmpl-theirs"
    assert json.loads(model["output"]) == [{"type": "text", "text": "Hello"}]
    assert inference["function_name"] == "tensorzero::default"
    assert inference["variant_name"] == "m"
    assert inference["tags"] == {"user": "u1"}
    assert json.loads(inference["input"]) == {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    }
    assert json.loads(inference["inference_params"]) == {
        "chat_completion": {"temperature": 0.5}
    }
    assert inference["episode_id"] == answer(outcome)["episode_id"]


def test_each_attempt_says_how_it_came_to_a_connection_and_what_it_used():
    slow = Script(good(after=0.5), connect_after=0.25)
    served = Stored([refuse()], [slow], server=store())
    served.ask()
    (exchange,) = served.rows("Exchange")
    assert exchange["attempts.error"] == ["upstream_unreachable", ""]
    assert exchange["attempts.connect_ms"] == [None, 250.0]
    assert exchange["attempts.head_ms"] == [None, 750.0]
    assert exchange["attempts.input_tokens"] == [None, 3]
    assert exchange["attempts.output_tokens"] == [None, 1]
    assert exchange["attempts.calls"] == [1, 1]
    assert exchange["attempts.is_hedge"] == [False, False]


def test_kept_connection_is_there_at_once_and_a_dead_one_when_it_is_dialled_anew():
    answers = (*good(), *good(), Close())
    served = Stored([answers, Script(good(), connect_after=0.25)], server=store())
    for _ in range(3):
        served.ask()
        served.wait(1.0)
    exchanges = served.rows("Exchange")
    found = [one["attempts.connect_ms"] for one in exchanges]
    assert found == [[0.0], [0.0], [250.0]]
    assert [one["attempts.is_reused"] for one in exchanges] == [
        [False],
        [True],
        [False],
    ]


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ((("traceparent", f"00-{TRACE}-{SPAN}-01"),), (TRACE, SPAN, 1)),
        ((("traceparent", f"00-{TRACE}-{'0' * 16}-01"),), None),
        ((("traceparent", f"00-{TRACE}-{SPAN}-01"),) * 2, None),
        ((), None),
    ],
    ids=["valid", "invalid", "twice", "none"],
)
def test_row_says_where_in_a_trace_the_request_stands(headers, trace):
    served = Stored([good()], server=store())
    outcome = served.ask(headers=(*JSON, *headers))
    assert outcome.response.head.status == 200
    (exchange,) = served.rows("Exchange")
    names = ("trace_id", "parent_span_id", "trace_flags")
    found = tuple(exchange[name] for name in names if name in exchange)
    assert found == (trace or ())


def test_streamed_answer_leaves_what_its_chunks_add_up_to():
    served = Stored([good_stream()], server=store())
    found = events(served.ask(stream=True))
    (model,) = served.rows("ModelInference")
    assert json.loads(model["output"]) == [{"type": "text", "text": text_of(found)}]
    assert model["output_tokens"] == 4
    assert model["ttft_ms"] is not None
    assert served.rows("Exchange")[0]["is_stream"] is True


def test_cost_is_exact_and_names_its_prices():
    config = snapshot(
        HOSTS[:1],
        providers_have={"a": {"prices": PRICES}},
        records=RecordSettings(url=Secret(URL)),
    )
    served = Stored([good()], server=store(), config=config)
    served.ask()
    (exchange,) = served.rows("Exchange")
    (model,) = served.rows("ModelInference")
    assert exchange["cost"] == model["cost"] == "0.000016000"
    assert exchange["price_id"] == price_id(PRICES)


def test_unknown_prices_are_an_unknown_cost():
    served = Stored([good()], server=store())
    served.ask()
    (exchange,) = served.rows("Exchange")
    assert exchange["cost"] is None
    assert exchange["price_id"] == ""


# -- every end leaves one record ------------------------------------------------


def test_error_of_every_provider_leaves_a_row_with_all_attempts():
    served = Stored(
        [refusal(500)], [refusal(500)], server=store(), gateway={"debug": True}
    )
    outcome = served.ask()
    assert error_of(outcome)[0] >= 500
    (exchange,) = served.rows("Exchange")
    assert exchange["outcome"] == "error"
    assert exchange["stage"] in ("route", "open")
    assert {"a", "b"} <= set(exchange["attempts.provider"])
    assert None not in exchange["attempts.total_ms"]
    assert served.rows("ChatInference") == []


def test_bad_request_leaves_a_row_without_content():
    served = Stored([good()], server=store())
    served.ask(b"{broken " + CANARY.encode())
    (exchange,) = served.rows("Exchange")
    assert exchange["outcome"] == "error"
    assert exchange["stage"] == "convert"
    assert CANARY not in json.dumps(exchange)


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (b'{"model":"m","messages":[]}', "m"),
        (b'{"model":7,"messages":[]}', ""),
        (b'{"messages":[]}', ""),
        (b"[]", ""),
        (b"--x", ""),
    ],
    ids=["said", "number", "unsaid", "array", "other"],
)
def test_bad_request_leaves_the_model_that_it_names(body, asked):
    served = Stored([good()], server=store())
    served.ask(body)
    (exchange,) = served.rows("Exchange")
    assert (exchange["asked_model"], exchange["model"]) == (asked, "")


def test_client_that_leaves_leaves_a_row():
    served = Stored([hang()], server=store(), repeat=False)
    body = json.dumps(chat()).encode()
    served.ask(request=ScriptedRequest((body,), gone_after=1.0), run=False)
    served.wait(2.0)
    (exchange,) = served.rows("Exchange")
    assert exchange["outcome"] == "client_gone"
    assert exchange["status"] is None


def test_timeout_leaves_a_row():
    served = Stored(
        [hang()],
        server=store(),
        repeat=False,
        gateway={"timeouts": Timeouts(connect=0.5, total=1.0, first_content=0.7)},
    )
    served.ask()
    (exchange,) = served.rows("Exchange")
    assert exchange["outcome"] in ("timeout", "error")
    assert exchange["attempts.error"] != [""]


def test_cancelled_exchange_leaves_a_row():
    served = Stored([hang()], server=store(), repeat=False)
    outcome = served.ask(run=False)
    served.wait(0.1)
    outcome.cancel()
    (exchange,) = served.rows("Exchange")
    assert exchange["outcome"] == "cancelled"


def test_dryrun_leaves_nothing():
    served = Stored([good()], server=store())
    served.ask(chat(**extras(dryrun=True)))
    assert served.rows("Exchange") == []
    assert served.gateway.recorder.queue.counts.accepted == 0


@pytest.mark.parametrize("durability", ["async", "spool", "sync"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_cancelled_at_any_step_leaves_exactly_one_row(durability, is_stream):
    for step in range(1, 60):
        served = Stored(
            [good_stream() if is_stream else good()],
            server=store(),
            spool=True,
            durability=durability,
            repeat=False,
        )
        body = json.dumps(chat(stream=is_stream)).encode()
        outcome = served.ask(
            request=ScriptedRequest((body,)), run=False, cancel_at=step
        )
        served.wait(5.0)
        assert len(served.rows("Exchange")) == 1
        if not outcome.is_cancelled:
            return
    raise AssertionError("it never came to an end")


# -- before the last byte -------------------------------------------------------


def test_spool_durability_has_the_record_on_disk_before_the_last_byte():
    served = Stored([good()], server=store(), spool=True, durability="spool")
    served.server.state = "down"
    outcome = served.ask()
    assert answer(outcome)["object"] == "chat.completion"
    assert served.gateway.recorder.queue.counts.spooled == 1
    served.sim.kill()
    (data,) = served.sim.world.disk.files.values()
    assert answer(outcome)["id"].encode() in data


def test_stream_in_sync_durability_ends_after_its_row_is_written():
    served = Stored([good_stream()], server=store(), durability="sync")
    served.ask(stream=True)
    assert len(served.server.rows("Exchange")) == 1
    assert served.server.rows("Exchange")[0]["outcome"] == "ok"


def test_store_that_is_away_does_not_delay_answers_in_async_mode():
    served = Stored([good()], server=store())
    served.server.state = "frozen"
    started = served.sim.now
    outcome = served.ask()
    assert outcome.finished_at - started < 0.01


# -- what may be kept -----------------------------------------------------------


@pytest.mark.parametrize("capture", ["none", "redacted"])
@pytest.mark.parametrize("by", ["config", "request"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_canary_in_content_that_is_not_kept_is_nowhere(capture, by, is_stream):
    upstream = good_stream() if is_stream else good()
    config = {"capture": capture} if by == "config" else {}
    served = Stored(
        [upstream], server=store(), spool=True, durability="spool", **config
    )
    members = {} if by == "config" else extras(capture=capture)
    body = chat(
        stream=is_stream,
        **members,
        **extras(cache_options={"enabled": "on"}),
    )
    body["messages"][0]["content"] = CANARY
    body["user"] = CANARY
    served.server.state = "down"
    served.ask(body)
    served.wait(3.0)
    assert CANARY not in repr(served.sim.world.disk.files)
    served.server.state = "up"
    served.wait(20.0)
    assert len(served.rows("Exchange")) == 1
    assert CANARY not in repr(served.server.tables)
    assert CANARY not in served.sim.trace_text()
    assert served.rows("ModelInferenceCache") == []
    if capture == "redacted":
        (model,) = served.rows("ModelInference")
        assert f"[redacted: {len(CANARY)} characters]" in model["input_messages"]
        assert model["finish_reason"] == "stop"


def test_caller_cannot_have_more_kept_than_the_operator_wants():
    served = Stored([good()], server=store(), capture="none")
    body = chat(**extras(capture="full"))
    body["messages"][0]["content"] = CANARY
    served.ask(body)
    served.wait(2.0)
    assert CANARY not in repr(served.server.tables)


def test_content_that_is_long_is_left_out_and_marked():
    served = Stored([good()], server=store(), content_bytes=500)
    body = chat()
    body["messages"][0]["content"] = "x" * 600
    served.ask(body)
    (inference,) = served.rows("ChatInference")
    assert inference["tags"]["tz::content_cut"] == "members,sent"
    assert json.loads(inference["output"]) == [{"type": "text", "text": "Hello"}]


def test_figures_reconcile_on_the_metrics_page():
    served = Stored([good()], server=store())
    for _ in range(3):
        served.ask()
    served.wait(1.0)
    text = served.gateway.metrics.render(served.gateway.gauges())
    assert "tz_records_accepted_total 3.0\n" in text
    assert "tz_records_written_total 3.0\n" in text
    assert "tz_clickhouse_up 1.0\n" in text


def test_health_says_that_the_store_is_away_and_stays_ready():
    served = Stored([good()], server=store())
    served.server.state = "down"
    served.ask()
    served.wait(1.0)
    health = answer(served.ask(method="GET", path="/health"))
    assert health["degraded"] == ["ClickHouse takes no records"]
    assert served.ask(method="GET", path="/readyz").response.head.status == 200


def test_no_room_for_records_refuses_requests_if_told_to():
    config = snapshot(
        HOSTS[:1],
        records=RecordSettings(
            url=Secret(URL),
            queue_rows=2,
            spool=SpoolSettings(when_full="reject_requests"),
        ),
    )
    served = Stored([good()], server=store(), config=config)
    served.server.state = "down"
    for _ in range(4):
        outcome = served.ask()
        served.wait(1.0)
    status, error = error_of(outcome)
    assert (status, error["code"]) == (503, "records_unavailable")


def test_answers_of_a_killed_gateway_are_all_there_once_and_none_was_late():
    server, answered, late = store(), [], []
    served = Stored([good()], server=server, spool=True, durability="spool")
    disk = served.sim.world.disk
    for second in range(34):
        server.state = "down" if 2 <= second < 32 else "up"
        asked = []
        for _ in range(200):
            asked.append((served.sim.now, served.ask(run=False)))
            served.wait(0.005)
        if second == 16:
            served.sim.kill()  # with one request on its way
        for at, outcome in asked:
            if outcome.is_done:
                answered.append(answer(outcome)["id"])
                late.append(outcome.finished_at - at)
        if second == 16:
            served = Stored(
                [good()],
                server=server,
                disk=disk,
                spool=True,
                durability="spool",
                first_id=1_000_000,
            )
    served.wait(60.0)
    written = [row["id"] for row in server.rows("Exchange")]
    assert len(answered) >= 6_799
    assert len(written) == len(set(written))
    assert set(answered) <= set(written)
    assert max(late) < 0.01
    assert not disk.files

"""Links that the gateway follows for providers that take only bytes."""

from __future__ import annotations

import json

import pytest

from tests.protocol.flows.linked import (
    LINK,
    OTHER,
    PARAM,
    PNG,
    PUBLIC,
    asking,
    bedrock,
    bedrock_stream,
    bodies,
    connects,
    fetches,
    file,
    image,
    inline,
    linked,
    picture,
    raw,
    resolved,
)
from tests.protocol.flows.serving import (
    answer,
    error_of,
    events,
    good,
    header,
    refusal,
    text_of,
)
from tz_protocol.machine import ClientGone
from tz_protocol.operations import Read, Resolve, WriteRead
from tz_protocol.testing.worlds import (
    Close,
    ProxiedReply,
    ReceiveRequest,
    Script,
    Send,
    cut,
    dns_error,
    hang,
    refuse,
    tls_error,
)
from tz_protocol.types.policy import Hedge, Policy
from tz_protocol.types.secret import Secret
from tz_protocol.types.settings import FetchSettings, Limits, Timeouts, Url

OPENAI = {"type": "openai"}
REDIRECT = (("location", "https://cdn.test/other.png"),)


def settled(served):
    """Check that nothing is held any more."""
    assert served.gateway.memory.held == 0
    left = [str(stream) for stream in served.sim.open_handles]
    assert not any(PUBLIC in name or OTHER in name or "//" in name for name in left)


# -- what is sent ---------------------------------------------------------------


@pytest.mark.parametrize("splits", [(), (1,), (7, 3)], ids=["whole", "bytes", "split"])
def test_link_is_sent_to_bedrock_as_its_bytes(splits):
    served = linked([bedrock()], pictures=[picture()], splits=splits)
    outcome = served.ask(asking())
    assert answer(outcome)["choices"][0]["message"]["content"] == "A cat"
    (body,) = bodies(served, "a.test")
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"text": "What is this?"},
                {"image": {"format": "png", "source": {"bytes": inline()}}},
            ],
        }
    ]
    assert fetches(served) == {"ok": 1}
    settled(served)


def test_link_is_sent_to_bedrock_for_a_stream():
    served = linked([bedrock_stream()], pictures=[picture()])
    outcome = served.ask(asking(stream=True))
    assert text_of(events(outcome)) == "A cat"
    (body,) = bodies(served, "a.test")
    assert body["messages"][0]["content"][1]["image"]["source"]["bytes"] == inline()
    settled(served)


def test_fetch_sends_nothing_of_the_caller_or_of_the_gateway():
    served = linked([bedrock()], pictures=[picture()])
    headers = (
        ("content-type", "application/json"),
        ("authorization", "Bearer caller-canary"),
        ("cookie", "c=1"),
        ("traceparent", "00-1-1-00"),
    )
    served.ask(asking(), headers=headers)
    stream = next(s for s in served.sim.opened if s.name.startswith(PUBLIC))
    head = bytes(stream.peer.received).decode().lower()
    assert head.startswith("get /cat.png?key=secret-canary http/1.1\r\n")
    lines = {line.partition(":")[0] for line in head.splitlines()[1:] if line}
    assert lines == {"host", "accept", "accept-encoding", "user-agent"}
    assert "host: img.test\r\n" in head
    assert "accept-encoding: identity" in head
    assert "user-agent: tz-gateway/" in head


def test_connection_goes_to_the_address_that_was_looked_at():
    served = linked(
        [bedrock()], pictures=[picture()], answers=[(PUBLIC,), ("127.0.0.1",)]
    )
    outcome = served.ask(asking())
    assert outcome.response.head.status == 200
    assert resolved(outcome) == ["img.test"]
    assert connects(outcome) == [(PUBLIC, "img.test")]


def test_providers_that_follow_links_get_them_as_they_are():
    served = linked([good()], types={"a": OPENAI})
    outcome = served.ask(asking())
    assert outcome.response.head.status == 200
    (body,) = bodies(served, "a.test")
    assert body["messages"][0]["content"][1] == image()
    assert resolved(outcome) == []
    assert fetches(served) == {}


def test_links_that_bedrock_follows_and_data_are_not_fetched():
    served = linked([bedrock()])
    data = f"data:image/png;base64,{inline()}"
    outcome = served.ask(asking(image("s3://bucket/a.png"), image(data)))
    (body,) = bodies(served, "a.test")
    first, second = body["messages"][0]["content"][1:]
    assert first["image"]["source"] == {"s3Location": {"uri": "s3://bucket/a.png"}}
    assert second["image"]["source"] == {"bytes": inline()}
    assert resolved(outcome) == []


def test_ollama_gets_data_urls_and_every_other_byte_as_it_was():
    served = linked(
        [good()],
        pictures=[picture()],
        types={"a": {"type": "ollama", "url": Url("http", "a.test", 80, "/v1/")}},
    )
    part = {"type": "image_url", "image_url": {"url": LINK, "detail": "low"}}
    body = json.dumps(asking(part, image("data:image/png;base64,AA=="), top_p=0.10))
    body = body.replace('"What is this?"', '"What \\u0069s 1.0?"')
    served.ask(body.encode())
    (stream,) = [s for s in served.sim.opened if s.name.startswith("a.test")]
    sent = bytes(stream.peer.messages[0].body)
    assert b'"What \\u0069s 1.0?"' in sent
    (made,) = bodies(served, "a.test")
    assert made["messages"][0]["content"][1:] == [
        {
            "type": "image_url",
            "image_url": {
                "url": f"data:image/png;base64,{inline()}",
                "detail": "low",
            },
        },
        image("data:image/png;base64,AA=="),
    ]


def test_ollama_gets_a_plain_address_as_an_object_with_data():
    served = linked(
        [good()],
        pictures=[picture()],
        types={"a": {"type": "ollama", "url": Url("http", "a.test", 80, "/v1/")}},
    )
    served.ask(asking({"type": "image_url", "image_url": LINK}))
    (made,) = bodies(served, "a.test")
    url = f"data:image/png;base64,{inline()}"
    assert made["messages"][0]["content"][1]["image_url"] == {"url": url}


def test_claude_on_vertex_gets_bytes():
    settings = {
        "type": "gcp_vertex_anthropic",
        "model": "claude",
        "url": Url("http", "a.test", 80, "/v1/"),
        "options": {"project_id": "p", "location": "l"},
    }
    served = linked([refusal(400)], pictures=[picture()], types={"a": settings})
    served.ask(asking())
    (body,) = bodies(served, "a.test")
    assert body["messages"][0]["content"][1]["source"] == {
        "type": "base64",
        "media_type": "image/png",
        "data": inline(),
    }


def test_result_of_a_tool_may_hold_a_link():
    served = linked([bedrock()], pictures=[picture()])
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": [image()]},
    ]
    function = {"type": "function", "function": {"name": "f"}}
    served.ask({"model": "m", "messages": messages, "tools": [function]})
    (body,) = bodies(served, "a.test")
    result = body["messages"][2]["content"][0]["toolResult"]
    assert result["content"][0]["image"]["source"] == {"bytes": inline()}


@pytest.mark.parametrize(
    ("url", "name", "data", "kind"),
    [
        ("https://img.test/a", None, b"%PDF-1.7\n", "pdf"),
        ("https://img.test/a.csv?x.pdf", None, b"a,b\n", "csv"),
        ("https://img.test/a", "notes.md", b"# a\n", "md"),
        ("https://img.test/a", None, b"a\n", "txt"),
        ("https://img.test/a", None, b" <!DOCTYPE html><p>", "html"),
        ("https://img.test/a.doc", None, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "doc"),
        ("https://img.test/a", None, b"PK\x03\x04..word/document.xml", "docx"),
        ("https://img.test/a", None, b"PK\x03\x04..xl/workbook.xml", "xlsx"),
    ],
)
def test_file_is_what_its_bytes_are(url, name, data, kind):
    served = linked([bedrock()], pictures=[picture(data)])
    served.ask(asking(file(url, name)))
    (body,) = bodies(served, "a.test")
    document = body["messages"][0]["content"][1]["document"]
    assert document["format"] == kind
    assert document["source"] == {"bytes": inline(data)}


def test_links_are_followed_side_by_side_and_each_address_once():
    served = linked([bedrock()], pictures=[picture(after=1.0)])
    links = [image(f"https://img.test/{n}.png") for n in range(6)]
    outcome = served.ask(asking(*links, links[0]))
    assert outcome.response.head.status == 200
    assert fetches(served) == {"ok": 6}
    # Four at a time.
    assert outcome.finished_at - outcome.started_at == pytest.approx(2.0)


# -- redirects ------------------------------------------------------------------


def redirected(served, *steps):
    served.sim.world.upstream(OTHER, 443, *steps)
    return served


def test_redirect_is_followed_to_an_address_of_its_own():
    served = linked([bedrock()], pictures=[picture(b"", status=302, headers=REDIRECT)])
    outcome = redirected(served, picture()).ask(asking())
    assert outcome.response.head.status == 200
    assert connects(outcome) == [(PUBLIC, "img.test"), (OTHER, "cdn.test")]
    settled(served)


@pytest.mark.parametrize(
    "location",
    ["https://169.254.169.254/latest", "https://[::1]/", "https://inner.test/"],
)
def test_redirect_to_a_private_address_is_refused(location):
    served = linked(
        [bedrock()],
        pictures=[picture(b"", status=302, headers=(("location", location),))],
    )
    served.sim.world.name("inner.test", ["10.0.0.7"])
    outcome = served.ask(asking())
    status, error = error_of(outcome)
    assert (status, error["code"], error["param"]) == (400, "invalid_image_url", PARAM)
    for word in ("169.254", "::1", "inner.test", "10.0.0.7"):
        assert word not in error["message"]
    assert connects(outcome) == [(PUBLIC, "img.test")]
    settled(served)


def test_redirects_end():
    again = (("location", "/cat.png"),)
    served = linked([bedrock()], pictures=[picture(b"", status=301, headers=again)])
    outcome = served.ask(asking())
    assert "redirects too often" in error_of(outcome)[1]["message"]
    assert len(connects(outcome)) == 4
    settled(served)


# -- what cannot be had ---------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
SMALL = FetchSettings(link_bytes=100)


@pytest.mark.parametrize(
    ("steps", "fetch", "reason", "outcome"),
    [
        (refuse(), None, "cannot be reached", "unreachable"),
        (tls_error(), None, "cannot be reached", "unreachable"),
        (hang(), None, "in time", "timeout"),
        (picture(after=11.0), None, "in time", "timeout"),
        (
            (*picture()[:1], Send(picture()[1].data, piece=1, every=1.0)),
            None,
            "in time",
            "timeout",
        ),
        (cut(picture(), 0), None, "cut or broken", "broken"),
        (cut(picture(), 100), None, "cut or broken", "broken"),
        (raw(b"\x16\x03\x01"), None, "cut or broken", "broken"),
        ((*raw(b"nonsense\r\n\r\n"), Close()), None, "cut or broken", "broken"),
        (picture(status=404), None, "status 404", "status"),
        (picture(b"", status=204), None, "status 204", "status"),
        (picture(status=206), None, "status 206", "status"),
        (picture(b"", status=304), None, "status 304", "status"),
        (picture(b"", status=302), None, "leads nowhere", "broken"),
        (picture(b""), None, "nothing behind", "type"),
        (
            picture(headers=(("content-encoding", "gzip"),)),
            None,
            "compressed",
            "broken",
        ),
        (picture(), SMALL, "larger than 100 bytes", "too_large"),
        (
            raw(b"HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n"),
            SMALL,
            "larger than 100 bytes",
            "too_large",
        ),
        (
            raw(CHUNKED + b"65\r\n" + b"x" * 101),
            SMALL,
            "larger than 100 bytes",
            "too_large",
        ),
        (picture(), FetchSettings(total_bytes=100), "more than 100", "too_large"),
        (picture(b"<html>"), None, "PNG, JPEG, GIF or WebP", "ok"),
        (picture(b"%PDF-1.7"), None, "PNG, JPEG, GIF or WebP", "ok"),
        (picture(b"RIFF....WAVEfmt "), None, "PNG, JPEG, GIF or", "ok"),
        (picture(b"\x00\x01"), None, "PNG, JPEG, GIF or WebP", "unknown_type"),
    ],
)
def test_picture_that_cannot_be_had_is_the_callers_mistake(
    steps, fetch, reason, outcome
):
    served = linked([bedrock()], pictures=[steps], fetch=fetch)
    asked = served.ask(asking())
    status, error = error_of(asked)
    assert (status, error["code"], error["param"]) == (400, "invalid_image_url", PARAM)
    assert error["type"] == "invalid_request_error"
    assert reason in error["message"]
    assert error["message"].startswith("The image at https://img.test/cat.png cannot")
    assert "canary" not in error["message"]
    assert PUBLIC not in error["message"]
    assert fetches(served) == {outcome: 1}
    assert bodies(served, "a.test") == []
    settled(served)


@pytest.mark.parametrize(
    "answers",
    [
        (dns_error(),),
        (("10.0.0.1",),),
        ((PUBLIC, "127.0.0.1"),),
        (("::ffff:169.254.169.254",),),
    ],
    ids=["none", "private", "mixed", "mapped"],
)
def test_name_without_public_addresses_is_refused_in_the_same_words(answers):
    served = linked([bedrock()], answers=answers)
    outcome = served.ask(asking())
    assert error_of(outcome)[1]["message"] == (
        "The image at https://img.test/cat.png cannot be fetched: its host has no "
        "public address."
    )
    assert connects(outcome) == []
    assert fetches(served) == {"refused": 1}


def test_name_that_is_resolved_for_ever_is_given_up():
    served = linked([bedrock()], answers=(hang(),))
    assert "in time" in error_of(served.ask(asking()))[1]["message"]


@pytest.mark.parametrize(
    "url", ["http://img.test/", "gs://b/x", "https://img.test:8443/", "nonsense"]
)
def test_link_that_is_not_followed_is_refused_before_a_look_up(url):
    served = linked([bedrock()])
    outcome = served.ask(asking(image(url)))
    assert error_of(outcome)[1]["code"] == "invalid_image_url"
    assert resolved(outcome) == []


def test_file_that_cannot_be_had_has_a_code_of_its_own():
    served = linked([bedrock()], pictures=[picture(b"\x00")])
    error = error_of(served.ask(asking(file("https://img.test/a"))))[1]
    assert error["code"] == "invalid_file_url"
    assert error["param"] == "messages[0].content[1].file.file_data"


def test_more_links_than_allowed_are_refused():
    served = linked([bedrock()], fetch=FetchSettings(links=2))
    outcome = served.ask(asking(*[image()] * 3))
    error = error_of(outcome)[1]
    assert error["code"] == "too_many_links"
    assert error["param"] == "messages[0].content[3].image_url.url"
    assert resolved(outcome) == []


def test_private_addresses_and_http_are_followed_where_that_is_allowed():
    fetch = FetchSettings(allow_private=True, allow_http=True, ports=(8080,))
    served = linked([bedrock()], fetch=fetch)
    served.sim.world.upstream("127.0.0.1", 8080, picture())
    outcome = served.ask(asking(image("http://127.0.0.1:8080/x")))
    assert outcome.response.head.status == 200
    assert connects(outcome) == [("127.0.0.1", None)]


def test_next_address_is_tried_when_one_does_not_answer():
    served = linked([bedrock()], pictures=[picture()], answers=[(OTHER, PUBLIC)])
    served.sim.world.upstream(OTHER, 443, hang())
    outcome = served.ask(asking())
    assert outcome.response.head.status == 200
    assert [host for host, _ in connects(outcome)] == [OTHER, PUBLIC]
    settled(served)


def test_first_failure_ends_the_other_fetches():
    served = linked([bedrock()], pictures=[picture(status=404), picture(after=5.0)])
    outcome = served.ask(asking(*(image(f"https://img.test/{n}") for n in range(6))))
    assert error_of(outcome)[0] == 400
    assert fetches(served) == {"status": 1, "cancelled": 3}
    settled(served)


def test_memory_that_is_full_is_the_gateways():
    served = linked([bedrock()], pictures=[picture()], limits=Limits(body_memory=500))
    outcome = served.ask(asking())
    assert error_of(outcome)[0] == 503
    assert fetches(served) == {"no_memory": 1}
    settled(served)


def test_fetching_that_is_off_refuses_by_name():
    served = linked([bedrock()], fetch=FetchSettings(is_enabled=False))
    error = error_of(served.ask(asking()))[1]
    assert error["code"] == "unsupported_parameter"
    assert error["param"] == PARAM


def test_fetching_that_is_off_drops_where_the_operator_says_so():
    settings = {**BEDROCK_DROPPING, "url": Url("http", "a.test", 80, "/")}
    served = linked(
        [bedrock()], types={"a": settings}, fetch=FetchSettings(is_enabled=False)
    )
    outcome = served.ask(asking())
    assert header(outcome, "x-tz-dropped-params") == "messages[0].content[1].image_url"


BEDROCK_DROPPING = {
    "type": "aws_bedrock",
    "model": "us.amazon.nova-lite-v1:0",
    "options": {"on_unsupported_param": "warn"},
}


# -- several candidates ---------------------------------------------------------


def test_two_candidates_share_one_fetch():
    served = linked([refusal(500)], [bedrock()], pictures=[picture()])
    outcome = served.ask(asking())
    assert header(outcome, "x-tz-provider") == "b"
    assert bodies(served, "a.test") == bodies(served, "b.test")
    assert fetches(served) == {"ok": 1}
    settled(served)


def test_two_candidates_share_one_failure():
    served = linked([bedrock()], [bedrock()], pictures=[picture(status=404)])
    assert error_of(served.ask(asking()))[0] == 400
    assert fetches(served) == {"status": 1}


def test_candidate_that_follows_links_answers_where_the_gateway_cannot():
    served = linked(
        [bedrock()], [good()], types={"b": OPENAI}, pictures=[picture(status=404)]
    )
    outcome = served.ask(asking())
    assert header(outcome, "x-tz-provider") == "b"
    assert [attempt.error for attempt in served.record.attempts] == [
        "invalid_image_url",
        None,
    ]


def test_nothing_is_fetched_for_candidates_that_are_not_reached():
    served = linked([good()], [bedrock()], types={"a": OPENAI})
    outcome = served.ask(asking())
    assert header(outcome, "x-tz-provider") == "a"
    assert resolved(outcome) == []


def test_hedge_waits_for_the_fetch_of_the_attempt_beside_it():
    served = linked(
        [bedrock(after=9.0)],
        [bedrock()],
        pictures=[picture(after=2.0)],
        policy=Policy(hedge=Hedge(after=1.0)),
    )
    outcome = served.ask(asking())
    assert header(outcome, "x-tz-provider") == "b"
    assert fetches(served) == {"ok": 1}
    settled(served)


def test_failed_fetch_says_nothing_about_a_provider():
    served = linked([bedrock()], pictures=[picture(status=404)])
    for _ in range(6):
        assert error_of(served.ask(asking()))[0] == 400
    ((_, facts),) = served.gateway.targets()
    assert facts.state.value == "closed"


def test_fetch_is_not_the_providers_time():
    served = linked(
        [bedrock(after=1.0)],
        pictures=[picture(after=3.0)],
        timeouts=Timeouts(first_content=2.0),
    )
    outcome = served.ask(asking())
    assert outcome.response.head.status == 200
    timing = header(outcome, "server-timing")
    assert timing == "upstream;dur=1000.0, gateway;dur=3000.0"


def test_fetch_ends_with_the_exchange():
    served = linked(
        [bedrock()], pictures=[picture(after=9.0)], timeouts=Timeouts(total=2.0)
    )
    outcome = served.ask(asking())
    assert error_of(outcome)[0] == 504
    assert outcome.finished_at - outcome.started_at == pytest.approx(2.0)
    settled(served)


# -- ends -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Resolve, WriteRead, Read])
def test_client_that_leaves_while_fetching_ends_it(kind):
    slow = (ReceiveRequest(), Send(picture()[1].data, 1.0, piece=50, every=1.0))
    served = linked([bedrock()], pictures=[slow])
    outcome = served.ask(asking(), run=False)
    sim = served.sim
    while not any(isinstance(op, kind) for _, op in outcome.operations):
        sim.run_until(sim.now + 0.1)
    assert outcome.tell(ClientGone())
    sim.run_until_idle()
    assert fetches(served) == {"cancelled": 1}
    assert bodies(served, "a.test") == []
    assert served.record.outcome.value == "client_gone"
    settled(served)


def test_exchange_cancelled_at_any_step_holds_nothing():
    step = 0
    while True:
        step += 1
        served = linked([bedrock()], pictures=[picture()], splits=(100,))
        outcome = served.ask(asking(image(), image(LINK + "2")), cancel_at=step)
        settled(served)
        if not outcome.is_cancelled:
            break
    assert step > 10
    assert outcome.response.head.status == 200


# -- through a proxy ------------------------------------------------------------

PROXY = {"https": Secret("http://proxy-canary:3128")}


def test_link_behind_a_proxy_is_not_followed():
    served = linked([bedrock()], fetch=FetchSettings(proxies=PROXY))
    outcome = served.ask(asking())
    error = error_of(outcome)[1]
    assert "does not follow links through its proxy" in error["message"]
    assert "canary" not in error["message"]
    assert resolved(outcome) == []


def test_link_goes_through_a_proxy_that_is_trusted_with_it():
    served = linked([bedrock()], fetch=FetchSettings(proxies=PROXY, through_proxy=True))
    away = (("location", "https://cdn.test/x"),)
    world = served.sim.world
    world.proxied(LINK, ProxiedReply(302, away, Script(())))
    found = Script((Send(PNG), Close()))
    world.proxied("https://cdn.test/x", ProxiedReply(200, (), found))
    outcome = served.ask(asking())
    assert outcome.response.head.status == 200
    assert resolved(outcome) == connects(outcome) == []
    settled(served)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "[::1]", "a.internal", "localhost"]
)
def test_private_host_is_not_handed_to_a_proxy(host):
    served = linked([bedrock()], fetch=FetchSettings(proxies=PROXY, through_proxy=True))
    error = error_of(served.ask(asking(image(f"https://{host}/"))))[1]
    assert "no public address" in error["message"]

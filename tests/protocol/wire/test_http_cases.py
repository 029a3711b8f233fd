"""Third-party cases of HTTP/1.1: each gets the verdict that its file expects, or the
one of ``rules``, however its bytes are split.

The files are not part of the project; without them these tests are skipped.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.protocol.wire.feeding import LIMITS, call, in_bytes, serve
from tests.protocol.wire.rules import (
    CLOSED,
    REQUEST_RULES,
    RESPONSE_RULES,
    SERVED,
)
from tz_protocol.types.settings import Limits

CASES = Path(__file__).parents[4] / "shared" / "http_cases"
SPLITS = 400
"""Most places at which one case is split in two; a longer one is sampled."""

GUNICORN_FIELD, GUNICORN_LINE = 8_190, 4_094
"""Its default bounds of a header line and a request line, CRLF included."""


@dataclass(frozen=True)
class Case:
    """One stream of bytes and what its file expects."""

    name: str
    data: bytes
    expect: str
    messages: int = 1
    is_response: bool = False
    limits: Limits = LIMITS
    is_ended: bool = False
    """True if the file's verdict is the one at the end of the stream."""

    def run(self, pieces, *, is_eof=True):
        run = call if self.is_response else serve
        return run(pieces, limits=self.limits, is_eof=is_eof)


def read(file):
    path = CASES / file
    if not path.exists():
        return []
    return json.loads(path.read_bytes())["cases"]


def with_host(data):
    """Return *data* with the Host that many vectors leave out in each request."""
    found = re.search(rb" https?://(?:[^/@ ]*@)?([^/? ]+)", data)
    host = found[1] if found else b"a"
    return re.sub(rb"( HTTP/1\.1\r\n)", rb"\1Host: %b\r\n" % host, data)


def with_and_without_host(case):
    """Yield *case*, and again with a Host, since its lack hides all that follows."""
    yield case
    is_without = b"HTTP/1.1\r\n" in case.data and b"\nhost:" not in case.data.lower()
    if not case.is_response and is_without:
        yield Case(
            case.name + " (with Host)",
            with_host(case.data),
            case.expect,
            case.messages,
            limits=case.limits,
            is_ended=case.is_ended,
        )


def llhttp():
    for entry in read("llhttp_vectors.json"):
        data = base64.b64decode(entry["b64"])
        is_response = entry["kind"] == "response"
        expect, messages = entry["expect"], entry["messages"]
        if "-lenient-" in entry["type"]:
            expect, messages = "reject", 0
        if is_response:
            # Informational responses are counted there and skipped here.
            messages -= len(re.findall(rb"HTTP/1\.1 10[03] ", data))
        name = entry["id"]
        yield from with_and_without_host(
            Case(name, data, expect, messages, is_response)
        )


def gunicorn():
    for entry in read("gunicorn_requests.json"):
        settings = " ".join(entry["gunicorn_cfg"])
        bounds = {"line_bytes": GUNICORN_FIELD - 2}
        if entry["gunicorn_error"] == "LimitRequestLine":
            bounds["line_bytes"] = GUNICORN_LINE - 2
        for bound in re.findall(r"limit_request_field_size', ([1-9]\d*)", settings):
            bounds["line_bytes"] = int(bound) - 2
        for bound in re.findall(r"limit_request_fields', (\d+)", settings):
            bounds["headers"] = int(bound)
        yield from with_and_without_host(
            Case(
                entry["id"],
                base64.b64decode(entry["b64"]),
                entry["expect"],
                limits=Limits(**bounds),
                is_ended=True,
            )
        )


def httparse():
    for entry in read("httparse_vectors.json"):
        data = base64.b64decode(entry["b64"])
        is_response = entry["kind"] == "response"
        yield from with_and_without_host(
            Case(entry["id"], data, entry["expect"], is_response=is_response)
        )


def smuggler():
    for number, entry in enumerate(read("smuggler_te_mutations.json")):
        head = base64.b64decode(entry["header_b64"]).replace(b"{{HOST}}", b"a.example")
        # By content-length the first body is whole and by chunks the second one is.
        length, body = ((b"6", b"0\r\n\r\nX"), (b"4", b"1\r\nZ\r\nQ"))[number % 2]
        data = head.replace(b"__REPLACE_CL__", length) + b"\r\n" + body
        yield Case(entry["id"], data, "once")


VECTORS = [*llhttp(), *gunicorn(), *httparse()]
MUTATIONS = list(smuggler())
needs_cases = pytest.mark.skipif(
    not VECTORS, reason=f"the third-party cases are not at {CASES.name}"
)


def is_expected(case, verdict):
    """Return whether *verdict* is the file's."""
    count = len(verdict.messages)
    if case.expect in ("complete", "accept", "upgrade/pause"):
        is_enough = count >= case.messages or (
            case.expect != "complete" and verdict.partial
        )
        return bool(is_enough) and not verdict.is_refused
    if case.expect == "partial":
        return not count and not verdict.is_refused
    assert case.expect == "reject"
    # One that breaks off where it is wrong is refused as soon as more comes, and
    # nothing of it is served if the stream ends there.
    is_cut = not (verdict.partial or verdict.is_closed or count)
    return verdict.status != 0 or is_cut


def deviation(case):
    """Return the rule by which our verdict is not the file's, None if it is."""
    verdict = case.run([case.data], is_eof=case.is_ended)
    if is_expected(case, verdict):
        return None
    ours = verdict.code or (CLOSED if verdict.is_closed else SERVED)
    rules = RESPONSE_RULES if case.is_response else REQUEST_RULES
    for rule in rules:
        is_named = rule.ours == ours or (rule.ours == SERVED and not verdict.code)
        if is_named and rule.fits(case.name, case.data):
            return rule
    pytest.fail(f"expected {case.expect} ({case.messages}), is {verdict}")


@needs_cases
@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case.name)
def test_vector_whole_gets_its_verdict(case):
    deviation(case)


@needs_cases
def test_rule_without_a_case_is_none():
    used = [deviation(case) for case in VECTORS]
    assert set(REQUEST_RULES + RESPONSE_RULES) == {rule for rule in used if rule}


def assert_same_however_split(case, places):
    whole = case.run([case.data])
    assert case.run(in_bytes(case.data)) == whole
    for at in places:
        pieces = [case.data[:at], case.data[at:]]
        assert case.run(pieces) == whole, at


@needs_cases
@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case.name)
def test_vector_split_at_every_byte_gets_the_same_verdict(case):
    size = len(case.data)
    assert_same_however_split(case, range(1, size, 1 + size // SPLITS))


@needs_cases
@pytest.mark.parametrize("part", range(10))
def test_mutated_transfer_encoding_is_served_once_or_refused(part):
    for case in MUTATIONS[part::10]:
        verdict = case.run([case.data])
        assert len(verdict.messages) <= 1, case.name
        if not verdict.messages:
            assert verdict.status in (400, 501), case.name
        else:
            assert verdict.code in ("", "incomplete"), case.name
        assert_same_however_split(case, range(1, len(case.data)))

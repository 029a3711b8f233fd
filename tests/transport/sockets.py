"""What tests of sockets share: a server that answers OK, and who asks it."""

from __future__ import annotations

import ssl

import pytest

from tests.transport.loops import BOUND, served
from tests.transport.test_conformance import SuiteGateway
from tz_protocol.errors import OperationBroken
from tz_protocol.machine import Context
from tz_protocol.testing import Facts, conformance, http_request, take_message

PLAIN = conformance.SCENARIOS[0]
REQUEST = http_request("GET", "/", (("connection", "close"),))


def gateway():
    return SuiteGateway(PLAIN, Facts())


def receive_all(stream):
    data = b""
    while piece := stream.recv(65_536):
        data += piece
    return data


def is_ok(data):
    found = take_message(data, is_response=True, is_eof=True)
    return found is not None and (found[0].status, found[0].body) == (200, b"OK")


def ask(stream):
    with stream:
        stream.settimeout(BOUND)
        stream.sendall(REQUEST)
        return receive_all(stream)


def refuse(transport, address, match, **files):
    """Check that one cannot listen there."""
    with (
        pytest.raises(OperationBroken, match=match),
        served(transport, gateway(), (address,), **files),
    ):
        pytest.fail("it listens")


def run_flow(transport, make):
    """Drive ``make(context)``; the deadlines may be taken from ``context.now``."""
    context = Context()
    return transport.run_flow(lambda: make(context), context)


def client_context(certificate):
    context = ssl.create_default_context(cafile=str(certificate.cert))
    context.set_alpn_protocols(["http/1.1"])
    return context

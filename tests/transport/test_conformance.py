"""The conformance suite over both transports, with real sockets."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.transport.loops import NAMES, FakePeers, Transport, served
from tests.transport.scripted_client import play
from tz_protocol.machine import Context, Machine
from tz_protocol.operations import Signal
from tz_protocol.testing import Facts, conformance


class SuiteGateway:
    """Makes connections of the suite's application; what a server needs of one."""

    def __init__(self, scenario, facts):
        self.context = Context()
        self.live = set()
        self.room = Signal()
        self.bugs = []
        self.connection: Any = conformance.connection_factory(
            scenario, self.context, facts, time.time
        )

    def admits(self):
        return True

    def bug(self, error):
        self.bugs.append(error)


@pytest.fixture(params=[*NAMES, "uvloop"], scope="module")
def transport(request):
    return Transport(request.param)


@pytest.fixture(scope="module")
def peers():
    with FakePeers() as peers:
        yield peers


@pytest.mark.parametrize("scenario", conformance.SCENARIOS, ids=conformance.name_of)
def test_scenario_over_sockets_passes(transport, scenario):
    facts = Facts()
    gateway = SuiteGateway(scenario, facts)
    with served(transport, gateway) as server:
        for observed in play(scenario, server.address, facts, server.tell):
            scenario.check(observed)
    assert gateway.bugs == []
    assert gateway.live == set()


@pytest.mark.parametrize("case", conformance.FLOW_CASES, ids=conformance.name_of)
def test_flow_over_sockets_gives_its_result(transport, peers, case):
    context, facts = Context(), Facts()
    run = conformance.Run(context, peers.addresses, facts)
    assert transport.run_flow(lambda: case.make(run), context) == case.expected
    assert peers.all_ended()


@pytest.mark.parametrize("case", conformance.FLOW_CASES, ids=conformance.name_of)
def test_flow_cancelled_at_any_step_leaves_nothing_open(transport, peers, case):
    """From within the step before the operation, so before it has begun."""
    step = 0
    while True:
        step += 1
        if not _cancel_at(transport, peers, case, step):
            break
        assert peers.all_ended()
    assert step > 1


def _cancel_at(transport, peers, case, step):
    """Cancel *case* at this operation; return False if it has fewer."""
    context, facts = Context(), Facts()
    run = conformance.Run(context, peers.addresses, facts)
    is_cancelled = False

    async def main():
        nonlocal is_cancelled
        async with transport.server.open_server(lambda _: None) as server:
            context.now = server.now()

            def on_operation(number, operation):
                nonlocal is_cancelled
                if number == step:
                    is_cancelled = True
                    server.call_later(0.0, driver.cancel)

            flow = conformance.observed(case.make(run), on_operation)
            machine = Machine(flow, context)
            driver = transport.driver.Driver(machine, server)
            driver.start()
            await driver.drive()
            assert driver.error is None
            assert machine.done

    transport.run(main)
    return is_cancelled

"""The conformance suite: what every transport is put through.

The one rule: the suite is data and checks; sockets, threads and event loops are the
runner's. A transport that is new runs it like this::

    from tz_protocol.testing import conformance

    @pytest.mark.parametrize("scenario", conformance.SCENARIOS, ids=conformance.name_of)
    def test_transport_serves(scenario):
        context, facts = Context(), Facts()
        factory = conformance.connection_factory(scenario, context, facts, wall_clock)
        with served_by_my_transport(factory, context) as server:
            for observed in play_over_sockets(scenario, server, facts):
                scenario.check(observed)

    @pytest.mark.parametrize("case", conformance.FLOW_CASES, ids=conformance.name_of)
    def test_driver_runs(case):
        context, facts = Context(), Facts()
        flow = case.make(conformance.Run(context, peers, facts))
        assert run_by_my_driver(flow, context) == case.expected

``simulate_scenario`` and ``simulate_flow`` do the same in virtual time; they are the
reference, and run the suite in a fraction of a second. To cancel at every step wrap
the flow with ``observed`` and cancel from its callback.
"""

from __future__ import annotations

from collections.abc import Callable

from tz_protocol.flows.connection import Connection, ConnectionSettings
from tz_protocol.machine import Context, Event
from tz_protocol.operations import Handle
from tz_protocol.testing.flowcases import (
    FLOW_CASES,
    NOBODY,
    Address,
    FlowCase,
    Peers,
    Run,
    observed,
)
from tz_protocol.testing.observing import Observed, Scenario
from tz_protocol.testing.scenarios import SCENARIOS
from tz_protocol.testing.served import application
from tz_protocol.testing.simulator import Outcome, Simulator
from tz_protocol.testing.worlds import (
    Close,
    Echo,
    Facts,
    Script,
    World,
    dns_error,
    refuse,
)

__all__ = [
    "FLOW_CASES",
    "SCENARIOS",
    "Address",
    "ConnectionFactory",
    "Facts",
    "FlowCase",
    "Observed",
    "Peers",
    "Run",
    "Scenario",
    "application",
    "connection_factory",
    "name_of",
    "observed",
    "simulate_flow",
    "simulate_scenario",
]

ConnectionFactory = Callable[[Handle, str], Connection]
"""(client's handle, its address) -> the connection to drive: a ``Machine`` over
``connection.run()`` with ``connection.tell`` as its listener."""


def name_of(case: Scenario | FlowCase) -> str:
    """Return the name of a scenario or of a flow case, for ``ids=``."""
    return case.name


def connection_factory(
    scenario: Scenario,
    context: Context,
    facts: Facts,
    wall_clock: Callable[[], float],
) -> ConnectionFactory:
    """Return what makes a connection of the suite's application for each client.

    Args:
        scenario: Whose settings apply.
        context: Shared by every machine of the run.
        facts: Where handlers record what they saw; ``connected`` is recorded here.
        wall_clock: Unix seconds, for ``Date``.
    """
    handler = application(context, facts)
    settings = ConnectionSettings(
        limits=scenario.limits,
        timeouts=scenario.timeouts,
        half_close=scenario.half_close,
    )

    def factory(handle: Handle, peer: str) -> Connection:
        facts.record("connected")
        return Connection(
            handle,
            handler,
            context=context,
            settings=settings,
            wall_clock=wall_clock,
            peer=peer,
        )

    return factory


# -- in virtual time ------------------------------------------------------------


def simulate_scenario(
    scenario: Scenario,
    *,
    seed: int = 0,
    splits: tuple[int, ...] = (),
    cancel_at: int | None = None,
) -> list[Observed]:
    """Play *scenario* in a ``Simulator``; return what each of its clients saw.

    Args:
        scenario: One of ``SCENARIOS``, or one of your own.
        seed: See ``Simulator``.
        splits: See ``Simulator``.
        cancel_at: Cancel each connection at its n-th operation, counted from 1.

    Raises:
        AssertionError: The core broke a rule of the driver contract.
    """
    sim = Simulator(seed=seed, splits=splits)
    factory = connection_factory(
        scenario, sim.context, sim.facts, lambda: 1_700_000_000.0 + sim.now
    )
    outcomes = []
    for number in range(scenario.clients):
        client = sim.accept(Script(scenario.client, window=scenario.window))
        connection = factory(client, f"client {number}")
        outcomes.append(
            sim.spawn(
                connection.run(),
                listener=connection.tell,
                client=client,
                cancel_at=cancel_at,
            )
        )
    sim.accept(scenario.control).peer.poke()
    sim.run_until_idle()
    for outcome in outcomes:
        assert outcome.error is None, f"a bug escaped: {outcome.error!r}"
    return [
        Observed(
            received=bytes(outcome.client.received),
            segments=tuple(data for _, data in outcome.writes),
            unfinished=outcome.client.unfinished,
            facts=sim.facts,
            methods=scenario.methods,
            kernel_bytes=scenario.window,
        )
        for outcome in outcomes
    ]


def simulate_flow(
    case: FlowCase,
    *,
    seed: int = 0,
    splits: tuple[int, ...] = (),
    cancel_at: int | None = None,
    interrupt_at: tuple[int, Event] | None = None,
) -> Outcome[object]:
    """Run *case* in a ``Simulator``; compare its ``result`` with ``case.expected``.

    Args:
        case: One of ``FLOW_CASES``, or one of your own.
        seed: See ``Simulator``.
        splits: See ``Simulator``.
        cancel_at: Cancel at this operation, counted from 1, arms included.
        interrupt_at: (n, event): tell the event at the n-th operation.
    """
    world = World()
    world.upstream("echo.test", 1, [Echo()])
    world.name("echo.test", ["192.0.2.1"])
    world.upstream("192.0.2.1", 1, [Echo()])
    for host in NOBODY:
        world.name(host, dns_error())
    world.upstream("silent.test", 1, [])
    world.upstream("closing.test", 1, [Close()])
    world.upstream("refusing.test", 1, refuse())
    peers = Peers(
        ("echo.test", 1), ("silent.test", 1), ("closing.test", 1), ("refusing.test", 1)
    )
    sim = Simulator(world, seed=seed, splits=splits)
    flow = case.make(Run(sim.context, peers, sim.facts))
    return sim.run(flow, cancel_at=cancel_at, interrupt_at=interrupt_at)

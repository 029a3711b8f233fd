"""Runs a command line in a scripted world, as a transport would run it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from tz_protocol.cli.main import parse_arguments, run
from tz_protocol.gateway import Gateway
from tz_protocol.notices import LogLine
from tz_protocol.testing import Outcome, Simulator, Step, World
from tz_protocol.types.settings import Snapshot

__all__ = ["FILE", "Process", "config", "start"]

FILE = "gateway.toml"


def config(*models: str, gateway: str = "", rest: str = "") -> str:
    """Return a configuration with these models, all of them answered by dummy."""
    tables = "".join(
        f'[models.{name}]\nrouting = ["dummy"]\n'
        f'[models.{name}.providers.dummy]\ntype = "dummy"\nmodel_name = "good"\n'
        for name in models
    )
    return f"[gateway]\n{gateway}\n{tables}{rest}"


class Process:
    """One process: its root machine, its gateway once there is one, its output."""

    def __init__(self, argv: Sequence[str], world: World) -> None:
        self.sim = Simulator(world)
        self.gateways: list[Gateway] = []
        self.invocation = parse_arguments(argv)
        flow = run(self.invocation, self.sim.context, self._make_gateway)
        self.outcome: Outcome[int] = self.sim.spawn(flow, name="root")

    def _make_gateway(self, snapshot: Snapshot) -> Gateway:
        ids = itertools.count(1)
        gateway = Gateway(
            snapshot,
            wall_clock=lambda: 1_751_889_600.0,
            new_id=lambda: f"0197e4a0-0000-7000-8000-{next(ids):012d}",
            jitter=lambda: 0.5,
            context=self.sim.context,
        )
        self.gateways.append(gateway)
        return gateway

    @property
    def gateway(self) -> Gateway:
        (gateway,) = self.gateways
        return gateway

    def connect(self, *steps: Step) -> Outcome[None]:
        """Let a client connect now; it plays *steps*."""
        stream = self.sim.accept(steps)
        connection = self.gateway.connection(stream, "127.0.0.1")
        outcome = self.sim.spawn(
            connection.run(), listener=connection.tell, client=stream
        )
        self.gateway.live.add(outcome.tell)
        return outcome

    @property
    def out(self) -> str:
        """Standard output so far."""
        texts = self.sim.surroundings.output
        return "".join(text for text, is_error in texts if not is_error)

    @property
    def err(self) -> str:
        """Standard error so far, without the log."""
        texts = self.sim.surroundings.output
        return "".join(text for text, is_error in texts if is_error)

    @property
    def log(self) -> list[LogLine]:
        return [n for n in self.sim.notices if isinstance(n, LogLine)]

    def logged(self, message: str) -> list[dict[str, Any]]:
        """Return the fields of every line of the log that contains *message*."""
        return [line.fields for line in self.log if message in line.message]

    def count(self, name: str, **labels: str) -> float:
        """Return a counter of the gateway's metrics, from the page that shows them."""
        shown = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        for line in self.gateway.metrics.render({}).splitlines():
            if line.startswith(f"{name}{{{shown}}} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def at(self, seconds: float, callback: Callable[[], Any]) -> None:
        """Call *callback* some seconds after the start."""
        self.sim.at(self.sim.start + seconds, callback)

    def until(self, seconds: float) -> None:
        """Run until some seconds after the start."""
        self.sim.run_until(self.sim.start + seconds)

    def finish(self) -> int:
        """Run until the process has ended; return its status."""
        self.sim.run_until_done(self.outcome)
        return self.outcome.result

    @property
    def ended_after(self) -> float:
        """Seconds from the start to the end."""
        return self.outcome.finished_at - self.sim.start


def start(argv: str, world: World | None = None, **files: str) -> Process:
    """Start the command line *argv*; *files* are TOML texts by name without suffix."""
    world = world or World()
    world.files |= {f"{name}.toml": text for name, text in files.items()}
    return Process(argv.split(), world)

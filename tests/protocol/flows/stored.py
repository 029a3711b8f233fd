"""A gateway in a simulated world that has a ClickHouse, a spool and a cache."""

from __future__ import annotations

from typing import Any

from tests.protocol.flows.serving import HOSTS, Served, chat, snapshot
from tz_protocol.testing import ScriptedClickHouse, ScriptedDisk
from tz_protocol.types.records import CacheSettings, RecordSettings, SpoolSettings
from tz_protocol.types.secret import Secret

URL = "http://store.test:8123/tensorzero"
CANARY = "canary-5b1f"


class Stored(Served):
    """A gateway whose services run.

    Args:
        upstreams: As for ``Served``.
        server: The ClickHouse; None: there is none.
        cache: Settings of the cache.
        spool: True: there is a spool.
        gateway: Further settings of the gateway.
        records: Settings of the records.
    """

    def __init__(
        self,
        *upstreams: Any,
        server: ScriptedClickHouse | None = None,
        disk: ScriptedDisk | None = None,
        cache: dict[str, Any] | None = None,
        spool: bool = False,
        gateway: dict[str, Any] | None = None,
        config: Any = None,
        repeat: bool = True,
        first_id: int = 1,
        **records: Any,
    ) -> None:
        self.server = server
        if spool:
            records["spool"] = SpoolSettings(folder="/spool")
        if server is not None:
            records["url"] = Secret(URL)
        if config is None:
            config = snapshot(
                HOSTS[: len(upstreams)],
                records=RecordSettings(**records),
                cache=CacheSettings(**(cache or {})),
                **(gateway or {}),
            )
        super().__init__(*upstreams, config=config, repeat=repeat, first_id=first_id)
        if server is not None:
            self.sim.world.clickhouse[URL] = server
        if disk is not None:
            self.sim.world.disk = disk
        for _name, make in self.gateway.services():
            self.sim.spawn(make())
        self.wait(0.01)

    def ask(self, body: Any = None, **options: Any) -> Any:
        """Ask, and wait until it is answered; services go on."""
        wants_run = options.pop("run", True)
        outcome = super().ask(body, run=False, **options)
        if wants_run:
            self.sim.run_until_done(outcome)
        return outcome

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.sim.run_until(self.sim.now + seconds)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Wait until everything is written; return the rows of *table*."""
        self.wait(2.0)
        assert self.server is not None
        return self.server.rows(table)

    def upstream_calls(self) -> int:
        """Return how many requests went to providers."""
        return len(self.sim.requests)


def extras(**members: Any) -> dict[str, Any]:
    """Return members of a request under their ``tensorzero::`` names."""
    return {f"tensorzero::{name}": value for name, value in members.items()}


def asked(
    mode: str = "on", *, max_age: int | None = None, **members: Any
) -> dict[str, Any]:
    """Return a request that wants the cache."""
    options: dict[str, Any] = {"enabled": mode}
    if max_age is not None:
        options["max_age_s"] = max_age
    return chat(**members, **extras(cache_options=options))

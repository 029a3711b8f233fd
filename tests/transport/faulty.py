"""Providers that do wrong, over real sockets, and a caller of a gateway before them.

The one rule: nothing sleeps. A provider that is silent waits for the other side to
close, and what takes time is a deadline of the gateway.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Self

from tests.transport.loops import BOUND, Served, Transport, served
from tz_protocol.testing import (
    Close,
    Message,
    ReceiveRequest,
    Reset,
    Script,
    Send,
    Stall,
    Step,
    take_message,
)
from tz_protocol.types.policy import Policy
from tz_protocol.types.settings import (
    GatewaySettings,
    Model,
    ProviderSettings,
    Snapshot,
    Timeouts,
    Url,
)

__all__ = ["Faulty", "Upstream", "ask", "before", "faulty"]


class Upstream:
    """One provider: each connection plays the next of its scripts, then the last.

    Args:
        scripts: A script that ends with its connection open begins again.
    """

    def __init__(self, *scripts: Script | Sequence[Step]) -> None:
        self.scripts = [
            script.steps if isinstance(script, Script) else tuple(script)
            for script in scripts
        ]
        self.requests: list[Message] = []
        self.connections = 0
        self._streams: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and see that every connection has ended."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for stream in self._streams:
                with contextlib.suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(BOUND)
            assert not thread.is_alive(), "a provider never ended"

    def become(self, *scripts: Sequence[Step]) -> None:
        """Do this on the connections that come from now on."""
        with self._lock:
            self.scripts = [tuple(script) for script in scripts]
            self.connections = 0

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                number = min(self.connections, len(self.scripts) - 1)
                steps = self.scripts[number]
                self.connections += 1
                self._streams.add(stream)
            thread = threading.Thread(target=self._serve, args=(stream, steps))
            self._threads.append(thread)
            thread.start()

    def _serve(self, stream: socket.socket, steps: tuple[Step, ...]) -> None:
        buffer = bytearray()
        try:
            stream.settimeout(BOUND)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while all(self._perform(stream, step, buffer) for step in steps):
                pass
        except OSError:
            pass  # the gateway has given this connection up
        finally:
            with self._lock:
                self._streams.discard(stream)
                stream.close()

    def _perform(self, stream: socket.socket, step: Step, buffer: bytearray) -> bool:
        """Do one step; False if the connection is over."""
        match step:
            case ReceiveRequest():
                while (found := take_message(buffer, is_response=False)) is None:
                    data = stream.recv(65_536)
                    if not data:
                        return False
                    buffer += data
                self.requests.append(found[0])
                del buffer[: found[1]]
            case Send(data):
                stream.sendall(data)
            case Stall():
                while stream.recv(65_536):
                    pass
                return False
            case Close():
                return False
            case Reset():
                linger = struct.pack("ii", 1, 0)
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return False
            case _:
                raise TypeError(f"{step!r} cannot be played over a socket")
        return True


class Faulty:
    """A gateway before two providers: ``a`` of the model ``m``, ``b`` of ``n``."""

    def __init__(self, running: Served, upstreams: Sequence[Upstream]) -> None:
        self.gateway = running.gateway
        self.upstreams = upstreams
        self._running = running

    def ask(self, **members: Any) -> Message:
        """Return the answer to one chat request."""
        return ask(self._running.address, **members)

    @property
    def records(self) -> list[Any]:
        """The record of every exchange that has settled."""
        found = (getattr(one, "record", None) for one in self._running.notices)
        return [record for record in found if record is not None]

    def tried(self, at: int = -1) -> list[tuple[str, str | None]]:
        """Return (provider, error) of each attempt of one exchange, the last one."""
        return [(one.provider, one.error) for one in self.records[at].attempts]


@contextlib.contextmanager
def faulty(
    transport: Transport,
    *upstreams: Upstream,
    policy: Policy | None = None,
    timeouts: Timeouts | None = None,
    **gateway: Any,
) -> Iterator[Faulty]:
    """Serve a gateway before these providers for as long as the block lasts.

    Args:
        transport: That serves it.
        upstreams: ``a`` and, if there are two, ``b``.
        policy: The gateway's.
        timeouts: The gateway's.
        gateway: Further settings of the gateway.
    """
    settings = GatewaySettings(
        policy=policy or Policy(), timeouts=timeouts or Timeouts(), **gateway
    )
    with before(upstreams, settings) as snapshot:
        made = transport.embed.make_gateway(snapshot)
        with served(transport, made) as running:
            yield Faulty(running, upstreams)
            # Whoever stops next deals with the closing of what was kept.
            running.call(made.close_idle)


@contextlib.contextmanager
def before(
    upstreams: Sequence[Upstream], settings: GatewaySettings
) -> Iterator[Snapshot]:
    """Run these providers; the configuration has ``a`` for ``m``, ``b`` for ``n``."""
    with contextlib.ExitStack() as stack:
        providers = {
            name: ProviderSettings(
                name=name,
                type="openai",
                model="upstream-model",
                url=Url("http", "127.0.0.1", stack.enter_context(one).port, "/v1/"),
            )
            for name, one in zip("ab", upstreams, strict=False)
        }
        models = {
            public: Model(
                name=public,
                capabilities=frozenset({"chat"}),
                routing=(provider,),
                providers={provider: providers[provider]},
                fallback_models=("n",) if public == "m" and len(upstreams) > 1 else (),
            )
            for public, provider in zip("mn", providers, strict=False)
        }
        yield Snapshot(gateway=settings, models=models)


def ask(address: tuple[str, int], **members: Any) -> Message:
    """Send one chat request over a connection of its own; return the whole answer."""
    request = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **members}
    body = json.dumps(request).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    received = bytearray()
    with socket.create_connection(address, BOUND) as stream:
        stream.sendall(head.encode() + body)
        while data := stream.recv(65_536):
            received += data
    found = take_message(received, is_response=True, method="POST", is_eof=True)
    assert found is not None, "the answer is not whole"
    return found[0]

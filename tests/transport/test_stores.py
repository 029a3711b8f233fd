"""Redis's operations against a real server, on both transports."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading

import pytest

from tests.transport.asking import (
    LONG,
    ask,
    broken_kind,
    run,
)
from tests.transport.certificates import make_certificate
from tests.transport.loops import NAMES, Transport
from tests.transport.redisserver import (
    eventually,
    free_port,
    serving,
)
from tz_protocol.errors import OperationBroken, StoreRefused
from tz_protocol.operations import Race
from tz_protocol.storeops import (
    RandomBytes,
)


@pytest.fixture(params=[*NAMES, "uvloop"])
def transport(request):
    return Transport(request.param)


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path) as server:
        yield server


# -- replies ----------------------------------------------------------------------


def test_replies_are_as_the_server_sends_them(transport, server):
    replies = ask(
        transport,
        server.url,
        ("SET", "a", "1"),
        ("GET", "a"),
        ("GET", "none"),
        ("INCRBY", b"a", 41),
        ("HSET", "h", "f", 1.5, "g", "x"),
        ("HGETALL", "h"),
        ("SADD", "s", "m"),
        ("SMEMBERS", "s"),
        ("SISMEMBER", "s", "m"),
        ("EXISTS", "a"),
        ("ZADD", "z", "2.5", "m"),
        ("ZSCORE", "z", "m"),
        ("SCAN", 0, "MATCH", "h", "COUNT", 100),
        ("MGET", "a", "none"),
        ("CONFIG", "GET", "maxclients"),
        ("EXPIRE", "a", 100),
        ("PING",),
    )
    assert replies == (
        b"OK",
        b"1",
        None,
        42,
        2,
        [b"f", b"1.5", b"g", b"x"],
        1,
        [b"m"],
        1,
        1,
        1,
        b"2.5",
        [b"0", [b"h"]],
        [b"42", None],
        [b"maxclients", b"10000"],
        1,
        b"PONG",
    )
    assert all(type(reply) in (bytes, int, list, type(None)) for reply in replies)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\r\n",
        b"$3\r\nfoo\r\n",
        bytes(range(256)),
        b"-ERR no\r\n+OK\r\n",
        b"\xff" * 1_000_000,
        "naïve ☃",
    ],
    ids=["empty", "crlf", "resp", "every-byte", "error", "megabyte", "text"],
)
def test_keys_and_values_pass_unchanged(transport, server, value):
    sent = value.encode() if isinstance(value, str) else value
    key = b"k\r\n \x00" + sent[:1000]
    commands = (("SET", key, value), ("GET", key), ("KEYS", "*"))
    assert ask(transport, server.url, *commands) == (b"OK", sent, [key])


def test_error_stands_in_its_place_and_says_only_its_code(transport, server):
    replies = ask(
        transport,
        server.url,
        ("SET", "text", "canary"),
        ("HGET", "text", "field"),
        ("NOSUCHCOMMAND", "canary"),
        ("INCR", "text"),
        ("MULTI",),
        ("LPUSH", "text", "canary"),
        ("GET", "text"),
        ("EXEC",),
        ("GET", "text"),
    )
    codes = [r.code if isinstance(r, StoreRefused) else None for r in replies]
    assert codes == [None, "WRONGTYPE", "ERR", "ERR", *[None] * 5]
    inner = replies[7]
    assert (inner[0].code, inner[1]) == ("WRONGTYPE", b"canary")
    assert replies[8] == b"canary"
    assert not any("canary" in str(error) for error in (*replies[1:4], inner[0]))


def test_pipeline_of_many_commands_is_answered_in_order(transport, server):
    commands = [("ECHO", f"{n}") for n in range(10_000)]
    replies = ask(transport, server.url, *commands)
    assert replies == tuple(b"%d" % n for n in range(10_000))


def test_random_bytes_are_as_many_as_asked_for_and_never_the_same(transport):
    def flow(asking):
        deadline = asking.context.now + LONG
        first = yield from RandomBytes(deadline, 32)
        return first, (yield from RandomBytes(deadline, 32))

    first, second = run(transport, "", flow)
    assert len(first) == len(second) == 32
    assert first != second


# -- addresses and who may --------------------------------------------------------


def test_unix_socket_and_database_are_found(transport, server):
    assert ask(transport, f"{server.url}/3", ("SET", "k", "third")) == (b"OK",)
    assert ask(transport, f"unix://{server.path}?db=3", ("GET", "k")) == (b"third",)
    assert ask(transport, server.url, ("GET", "k")) == (None,)


def test_password_and_user_are_believed_or_denied(transport, tmp_path):
    with serving(tmp_path, requirepass="s3cret") as server:
        server.admin.acl_setuser(
            "reader",
            enabled=True,
            passwords=["+pw"],
            keys=["mine:*"],
            categories=["+@read"],
        )
        place = server.place
        assert ask(transport, f"redis://:s3cret@{place}", ("PING",)) == (b"PONG",)
        reader = f"redis://reader:pw@{place}"
        commands = (("GET", "mine:a"), ("GET", "other"), ("SET", "mine:a", 1))
        first, *others = ask(transport, reader, *commands)
        assert first is None
        assert [error.code for error in others] == ["NOPERM", "NOPERM"]
        for login in ("", ":wrong@", "reader:wrong@", "nobody:pw@"):
            assert broken_kind(transport, f"redis://{login}{place}", ("PING",)) == (
                "denied"
            )
        assert broken_kind(transport, f"{reader}/1", ("PING",)) == "denied"


def test_url_options_of_time_and_form_are_not_taken(transport, server):
    options = "protocol=3&decode_responses=yes&socket_timeout=0.001&retry_on_timeout=1"
    more = "&health_check_interval=1&max_connections=1&socket_connect_timeout=1e-9"
    commands = (("HSET", "h", "f", "v"), ("HGETALL", "h"))
    url = f"{server.url}?{options}{more}"
    assert ask(transport, url, *commands) == (1, [b"f", b"v"])


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://127.0.0.1:{port}", "refused"),
        ("unix://{folder}/none.sock", "missing"),
        ("redis://tz-gateway.invalid", "dns"),
        ("redis://:canary@127.0.0.1:{port}/?canary=1", "url"),
        ("redis://:canary@127.0.0.1:canary", "url"),
        ("http://:canary@127.0.0.1", "url"),
        ("redis+sentinel://:canary@127.0.0.1:{port}", "url"),
        ("redis+sentinel://:canary@127.0.0.1:{port},localhost:{port}/m", "refused"),
    ],
    ids=[
        "closed-port",
        "no-socket",
        "no-name",
        "no-option",
        "no-port",
        "no-scheme",
        "no-service",
        "no-sentinel",
    ],
)
def test_server_that_cannot_be_reached_is_told(transport, tmp_path, url, kind):
    address = url.format(port=free_port(), folder=tmp_path)
    with pytest.raises(OperationBroken) as caught:
        ask(transport, address, ("PING",))
    assert caught.value.kind == kind
    assert "canary@" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


class TlsFront:
    """Ends TLS for a server, one thread a direction."""

    def __init__(self, server, certificate):
        self._server = server
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate.cert, certificate.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw):
        with contextlib.suppress(OSError), raw:
            near = self._context.wrap_socket(raw, server_side=True)
            address = ("127.0.0.1", self._server.port)
            with near, socket.create_connection(address) as far:
                back = threading.Thread(target=self._pump, args=(far, near))
                back.start()
                self._pump(near, far)
                back.join()

    @staticmethod
    def _pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


def test_tls_is_spoken_and_the_certificate_is_checked(transport, server, tmp_path):
    certificate = make_certificate(tmp_path)
    with TlsFront(server, certificate) as front:
        url = f"rediss://localhost:{front.port}"
        trusting = f"{url}?ssl_ca_certs={certificate.cert}"
        commands = [("SET", "k", "v" * 100_000), ("STRLEN", "k")]
        assert ask(transport, trusting, *commands) == (b"OK", 100_000)
        assert broken_kind(transport, url, ("PING",)) == "tls"
        eventually(lambda: not server.clients())


# -- the process ------------------------------------------------------------------


def test_nothing_is_left_open_when_the_loop_ends(transport, server):
    def blocking(asking):
        yield from asking.commands(("BLPOP", "nothing", 0))

    def seeing(asking):
        while not any(row["cmd"] == "blpop" for row in server.clients()):
            yield from asking.pause()

    def flow(asking):
        yield from asking.messages("c")
        yield from asking.commands(("PING",))
        arms = (blocking(asking), seeing(asking))
        return (yield from Race(asking.context.now + LONG, arms))

    assert run(transport, server.url, flow) == (1, None)
    eventually(lambda: not server.clients())


@pytest.mark.parametrize("name", NAMES)
def test_library_is_not_imported_before_a_store_is_used(name):
    code = (
        f"import sys, tz_transport_{name}.__main__, tz_transport_{name}.embed\n"
        "print(sorted(n for n in sys.modules if n.startswith('redis')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"

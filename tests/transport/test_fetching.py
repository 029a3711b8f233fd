"""Links that the gateway follows, over sockets: from the request to Bedrock's."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.protocol.flows.linked import ANSWER, PNG, asking, image, inline
from tests.transport.certificates import make_certificate
from tests.transport.loops import BOUND, NAMES, Transport, served
from tz_protocol.config.load import build, parse
from tz_protocol.gateway import Gateway
from tz_protocol.types.secret import Secret

CONFIG = """
[gateway.fetch]
{fetch}
[models.m]
routing = ["p"]
[models.m.providers.p]
type = "aws_bedrock"
model_id = "us.amazon.nova-lite-v1:0"
api_base = "http://127.0.0.1:{port}/"
"""


@pytest.fixture(params=[*NAMES, "uvloop"], scope="module")
def transport(request):
    return Transport(request.param)


class Upstream(ThreadingHTTPServer):
    """Bedrock for a POST, pictures for a GET."""

    daemon_threads = True

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), Handler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.seen = []
        self.port = self.server_address[1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_GET(self):
        self.server.seen.append((self.path, self.headers["host"], None))
        if self.path == "/moved":
            self.answer(302, b"", location="/cat.png")
        elif self.path == "/cut":
            self.answer(200, PNG, length=len(PNG) + 1)
            self.close_connection = True
        else:
            self.answer(200, PNG)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.path, None, json.loads(body)))
        self.answer(200, json.dumps(ANSWER).encode())

    def answer(self, status, body, length=None, location=None):
        self.send_response(status)
        self.send_header("content-length", str(len(body) if length is None else length))
        if location is not None:
            self.send_header("location", location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def upstream(context=None):
    server = Upstream(context)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(BOUND)
        server.server_close()


def gateway(port, fetch):
    text = CONFIG.format(fetch=fetch, port=port)
    key = {"env::AWS_BEARER_TOKEN_BEDROCK": Secret("key")}
    return Gateway(
        build(parse([("gw.toml", text)]), key),
        wall_clock=time.time,
        new_id=lambda: "01890000-0000-7000-8000-000000000001",
        jitter=lambda: 0.5,
    )


@contextlib.contextmanager
def serving(transport, made):
    """Serve *made*; afterwards nothing is kept for a provider."""
    with served(transport, made) as running:
        try:
            yield running
        finally:
            running.call(made.close_idle)


def ask(address, url):
    """Return (status, body) of a request about the picture at *url*."""
    host, port = address
    connection = http.client.HTTPConnection(host, port, timeout=BOUND)
    with contextlib.closing(connection):
        body = json.dumps(asking(image(url)))
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def sent_picture(server):
    (body,) = [body for _, _, body in server.seen if body is not None]
    return body["messages"][0]["content"][1]["image"]


OPEN = "allow_private = true\nallow_http = true\nallowed_ports = [{port}]"


@pytest.mark.parametrize("path", ["/cat.png", "/moved"])
def test_picture_at_a_link_reaches_bedrock(transport, path):
    with upstream() as server:
        made = gateway(server.port, OPEN.format(port=server.port))
        with serving(transport, made) as running:
            url = f"http://127.0.0.1:{server.port}{path}"
            status, answer = ask(running.address, url)
        assert status == 200
        assert answer["choices"][0]["message"]["content"] == "A cat"
        picture = {"format": "png", "source": {"bytes": inline()}}
        assert sent_picture(server) == picture
        assert made.memory.held == 0


def test_private_address_is_refused_unless_it_is_allowed(transport):
    with upstream() as server:
        rules = OPEN.format(port=server.port).partition("\n")[2]
        with serving(transport, gateway(server.port, rules)) as running:
            for host in ("127.0.0.1", "localhost", "2130706433", "[::1]", "0x7f.1"):
                url = f"http://{host}:{server.port}/cat.png"
                status, answer = ask(running.address, url)
                assert status == 400
                assert answer["error"]["code"] == "invalid_image_url"
                assert "no public address" in answer["error"]["message"]
        assert server.seen == []


def test_picture_that_is_cut_is_the_callers_mistake(transport):
    with upstream() as server:
        made = gateway(server.port, OPEN.format(port=server.port))
        with serving(transport, made) as running:
            url = f"http://127.0.0.1:{server.port}/cut"
            status, answer = ask(running.address, url)
        assert status == 400
        assert "cut or broken" in answer["error"]["message"]


def test_pinned_connection_still_proves_the_name(transport, tmp_path):
    """To the number that was looked at, with the name in TLS."""
    made = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    with upstream(context) as pictures, upstream() as server:
        rules = OPEN.format(port=pictures.port) + f'\nca_file = "{made.cert}"'
        url = f"https://localhost:{pictures.port}/cat.png"
        with serving(transport, gateway(server.port, rules)) as running:
            status, _ = ask(running.address, url)
            assert status == 200
        assert names == ["localhost"]
        assert pictures.seen == [("/cat.png", f"localhost:{pictures.port}", None)]
        assert sent_picture(server)["source"]["bytes"] == inline()
        with serving(
            transport, gateway(server.port, OPEN.format(port=pictures.port))
        ) as running:
            status, answer = ask(running.address, url)
        assert status == 400
        assert "cannot be reached" in answer["error"]["message"]

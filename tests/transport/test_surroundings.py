"""Files, secrets and output: what a process has around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transport.loops import FAR, NAMES, Transport
from tests.transport.sockets import (
    refuse,
    run_flow,
)
from tz_protocol.errors import OperationBroken
from tz_protocol.operations import (
    Print,
    ReadFiles,
    ResolveSecret,
    WriteFile,
)


@pytest.fixture(params=[*NAMES, "uvloop"], scope="module")
def transport(request):
    return Transport(request.param)


def test_files_are_read_sorted_and_whole(transport, tmp_path):
    (tmp_path / "b.toml").write_text("zwei ä", encoding="utf-8")
    (tmp_path / "a.toml").write_text("one")
    (tmp_path / "c.txt").write_text("not asked for")

    def flow(context):
        return (yield from ReadFiles(FAR, str(tmp_path / "*.toml")))

    assert run_flow(transport, flow) == (
        (str(tmp_path / "a.toml"), "one"),
        (str(tmp_path / "b.toml"), "zwei ä"),
    )


def test_files_that_are_not_text_are_told(transport, tmp_path):
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")

    def flow(context):
        return (yield from ReadFiles(FAR, str(tmp_path / "a.toml")))

    with pytest.raises(OperationBroken, match="not UTF-8"):
        run_flow(transport, flow)


def test_file_is_replaced_whole(transport, tmp_path):
    path = tmp_path / "state"
    path.write_text("old")

    def flow(context):
        yield from WriteFile(FAR, str(path), "new")

    run_flow(transport, flow)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_secrets_are_found_where_they_are_said_to_be(transport, tmp_path, monkeypatch):
    path = tmp_path / "key"
    path.write_text("from a file\n")
    monkeypatch.setenv("TZ_TEST_KEY", "from the environment")
    monkeypatch.setenv("TZ_TEST_PATH", str(path))

    def flow(context):
        found = []
        locations = ("env::TZ_TEST_KEY", f"path::{path}", "path_from_env::TZ_TEST_PATH")
        for location in locations:
            secret = yield from ResolveSecret(FAR, location)
            found.append(secret.reveal())
        return found

    expected = ["from the environment", "from a file", "from a file"]
    assert run_flow(transport, flow) == expected


@pytest.mark.parametrize(
    "location", ["env::TZ_NO_SUCH", "path::/no/such", "path_from_env::TZ_NO_SUCH"]
)
def test_secret_that_is_missing_is_told(transport, location):
    def flow(context):
        yield from ResolveSecret(FAR, location)

    with pytest.raises(OperationBroken) as caught:
        run_flow(transport, flow)
    assert caught.value.kind == "missing"


def test_print_writes_as_it_stands(transport, capsys):
    def flow(context):
        yield from Print(FAR, "out\n")
        yield from Print(FAR, "err", is_error=True)

    run_flow(transport, flow)
    assert capsys.readouterr() == ("out\n", "err")


def test_path_of_a_certificate_that_is_missing_is_told(transport):
    missing = Path("/no/such/cert.pem")
    files = {"cert_file": missing, "key_file": missing}
    refuse(transport, "127.0.0.1:0", "missing", **files)

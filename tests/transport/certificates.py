"""A certificate for ``localhost`` and 127.0.0.1, made by the ``openssl`` command.

The standard library can read certificates and cannot make them. A test extra for one
certificate would be one more package; a file in the repository would expire, and would
look like a leaked key. Whoever has no ``openssl`` skips, and says so.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Certificate:
    """Two files; the certificate is its own authority."""

    cert: Path
    key: Path


def make_certificate(folder: Path) -> Certificate:
    """Return a fresh self-signed certificate, valid for a day."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command to make a certificate with")
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "1"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-keyout", str(made.key), "-out", str(made.cert)),
            *("-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return made

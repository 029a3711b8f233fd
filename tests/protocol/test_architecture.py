"""The import contracts of pyproject.toml hold, and would be missed if they did not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter")

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("tz_protocol", "tz_stores", "tz_transport_asyncio", "tz_transport_trio")

LINTER = """
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports(no_cache=True))
"""


def _lint(root: Path) -> subprocess.CompletedProcess[str]:
    # PYTHONPATH is left out so that the packages in *root* are the ones that are seen.
    return subprocess.run(
        [sys.executable, "-c", LINTER],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={"PATH": "", "COLUMNS": "200", "PYTHONUTF8": "1"},
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of what the contracts speak of; each test plants one violation."""
    root = tmp_path_factory.mktemp("checkout")
    for name in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, root / name, ignore=ignore)
        (root / name / "__init__.py").touch()
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def test_contracts_of_this_checkout_are_kept():
    done = _lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


VIOLATIONS = {
    "The core touches nothing": ("tz_protocol/wire", "import asyncio"),
    "The transports know nothing of each other": (
        "tz_transport_trio",
        "import tz_transport_asyncio.planted",
    ),
    "The layers of the core": ("tz_protocol/types", "import tz_protocol.flows.planted"),
    "Only wire.http1 knows h11": ("tz_protocol/flows", "import h11"),
}
"""By the name of the contract: the folder of the planted module, and what is in it."""


def test_contracts_with_planted_violations_are_broken(copy):
    planted = [copy / folder / "planted.py" for folder, _ in VIOLATIONS.values()]
    (copy / "tz_transport_asyncio" / "planted.py").touch()
    for path, (_, source) in zip(planted, VIOLATIONS.values(), strict=True):
        path.write_text(source + "\n", encoding="utf-8")
    done = _lint(copy)
    assert done.returncode != 0
    broken = [line for line in done.stdout.splitlines() if line.endswith("BROKEN")]
    assert [line.removesuffix("BROKEN").strip() for line in broken] == list(VIOLATIONS)

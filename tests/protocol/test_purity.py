"""The core touches nothing: read in its source, and watched while it is imported."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.protocol.purity import guard, no_io
from tz_protocol.machine import Context, Machine

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("tz_protocol", "tz_stores", "tz_transport_asyncio", "tz_transport_trio")
CORE = sorted((ROOT / "tz_protocol").rglob("*.py"))
EVERYTHING = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]

MODULE_LINES = 500
FUNCTION_LINES = 60
TABLES: dict[str, str] = {}
"""Path, or ``path:function``, that may be longer, and why: only tables."""

IMPORT_SECONDS = 0.100
TIMING_FACTOR = float(os.environ.get("TZ_TIMING_FACTOR", "3"))
"""How much slower than the machine of the figures a machine may be."""

ALSO_FORBIDDEN = {
    "concurrent",
    "ctypes",
    "curses",
    "fcntl",
    "ftplib",
    "getpass",
    "glob",
    "http.client",
    "http.server",
    "mmap",
    "multiprocessing",
    "pathlib",
    "pickle",
    "queue",
    "sched",
    "shutil",
    "signal",
    "smtplib",
    "socketserver",
    "sqlite3",
    "tempfile",
    "urllib.request",
}
"""Beyond the import contract's list, which names what the core might be tempted by."""

FORBIDDEN_CALLS = {
    "__import__",
    "breakpoint",
    "compile",
    "eval",
    "exec",
    "input",
    "open",
    "print",
}
FORBIDDEN_METHODS = {
    ("date", "today"),
    ("datetime", "now"),
    ("datetime", "today"),
    ("datetime", "utcnow"),
    ("uuid", "getnode"),
    ("uuid", "uuid1"),
    ("uuid", "uuid4"),
}
"""Clocks and entropy behind modules that are harmless otherwise."""


def _forbidden_modules() -> set[str]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = document["tool"]["importlinter"]["contracts"]
    (core,) = [
        item for item in contracts if item.get("source_modules") == ["tz_protocol"]
    ]
    return {*core["forbidden_modules"], *ALSO_FORBIDDEN}


FORBIDDEN_MODULES = _forbidden_modules()


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# -- the source -----------------------------------------------------------------


def _is_type_checking(node: ast.If) -> bool:
    test = node.test
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that runs: not what is there for type checkers alone."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _is_type_checking(child):
            for other in child.orelse:
                yield from _walk(other)
        else:
            yield from _walk(child)


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _is_forbidden(module: str) -> bool:
    parts = module.split(".")
    return any(
        ".".join(parts[: count + 1]) in FORBIDDEN_MODULES for count in range(len(parts))
    )


def _impurity(node: ast.AST) -> str | None:
    """Return what is wrong with one node of the core, if anything is."""
    if isinstance(node, (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)):
        return type(node).__name__
    if isinstance(node, ast.comprehension) and node.is_async:
        return "an asynchronous comprehension"
    for module in _imported(node):
        if _is_forbidden(module):
            return f"import of {module}"
    if isinstance(node, ast.Call):
        called = node.func
        if isinstance(called, ast.Name) and called.id in FORBIDDEN_CALLS:
            return f"call of {called.id}"
        if (
            isinstance(called, ast.Attribute)
            and isinstance(called.value, ast.Name)
            and (called.value.id, called.attr) in FORBIDDEN_METHODS
        ):
            return f"call of {called.value.id}.{called.attr}"
    return None


def _impurities(source: str) -> list[str]:
    tree = ast.parse(source)
    return [
        f"line {getattr(node, 'lineno', '?')}: {wrong}"
        for node in _walk(tree)
        if (wrong := _impurity(node)) is not None
    ]


@pytest.mark.parametrize("path", CORE, ids=_name)
def test_core_module_is_pure(path):
    assert _impurities(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "async def f(): pass",
        "def f():\n    import asyncio",
        "from os import path",
        "import os.path as p",
        "from concurrent import futures",
        "from urllib import request",
        "x = open('f')",
        "print()",
        "eval('1')",
        "from datetime import datetime\nx = datetime.now()",
        "import uuid\nx = uuid.uuid4()",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import time",
    ],
)
def test_purity_of_planted_violation_is_denied(source):
    assert len(_impurities(source)) >= 1


@pytest.mark.parametrize(
    "source",
    [
        "if TYPE_CHECKING:\n    import asyncio",
        "from urllib.parse import unquote",
        "class Print: pass\nPrint()",
        "from .time import x",
        "now = context.now()",
    ],
)
def test_purity_of_harmless_source_is_granted(source):
    assert _impurities(source) == []


# -- sizes ----------------------------------------------------------------------


@pytest.mark.parametrize("path", EVERYTHING, ids=_name)
def test_module_is_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MODULE_LINES or _name(path) in TABLES


@pytest.mark.parametrize("path", EVERYTHING, ids=_name)
def test_functions_are_short(path):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, functions):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            place = f"{_name(path)}:{node.name}"
            if lines > FUNCTION_LINES and place not in TABLES:
                long.append(f"{place} has {lines} lines")
    assert long == []


# -- imports as they happen -----------------------------------------------------


IMPORTER = """
import sys, time
before = time.process_time()
import {module}
spent = time.process_time() - before
print(spent)
print("\\n".join(sorted(sys.modules)))
"""

HEAVY = ("asyncio", "httpx", "pydantic", "trio", *PACKAGES[1:])


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Return the environment of processes that may keep what they have compiled.

    Without it there may be nothing to begin from: where bytecode is not written every
    import compiles, and that is more than half of its time.
    """
    folder = tmp_path_factory.mktemp("bytecode")
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder)}


def _import(
    module: str, environment: dict[str, str] | None = None
) -> tuple[float, set[str]]:
    """Import *module* in a new process; return CPU seconds and what it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTER.format(module=module)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    spent, *modules = done.stdout.split()
    return float(spent), set(modules)


@pytest.mark.parametrize("module", ["tz_protocol", "tz_protocol.gateway"])
def test_import_of_core_loads_nothing_heavy(module):
    _, loaded = _import(module)
    assert module in loaded
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize("module", ["tz_protocol", "tz_protocol.gateway"])
def test_import_of_core_takes_little_time(module, compiled):
    _import(module, compiled)  # has to compile
    spent = min(_import(module, compiled)[0] for _ in range(3))
    assert spent <= IMPORT_SECONDS * TIMING_FACTOR


# -- the guard itself -----------------------------------------------------------


def _opens_a_file():
    with open(os.devnull, "rb"):
        yield from ()


def _imports_a_module():
    sys.modules.pop("colorsys", None)
    import colorsys

    yield from ()
    return colorsys.__name__


def test_no_io_file_opened_is_found():
    with pytest.raises(AssertionError, match=r"open from .*test_purity\.py"), no_io():
        list(_opens_a_file())


def test_no_io_lazy_import_is_let_pass():
    with no_io():
        list(_imports_a_module())


def test_no_io_nested_is_armed_until_the_end():
    outer = no_io()
    outer.__enter__()
    with no_io():
        pass
    os.listdir(ROOT)
    with pytest.raises(AssertionError, match=r"os\.listdir from"):
        outer.__exit__(None, None, None)


def test_guard_file_opened_by_machine_is_found():
    machine: Machine[None] = Machine(_opens_a_file(), Context())
    assert machine.start(0.0) is None
    (found,) = guard.take()
    assert found.startswith("open from ")

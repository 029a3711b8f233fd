"""The two transports are the same but for the loop, and small."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import tokenize
from pathlib import Path

import pytest

from tests.transport.loops import NAMES
from tz_protocol import operations, recordops, storeops
from tz_protocol.drivers import performers
from tz_protocol.operations import HANDLER_OPERATIONS, Operation

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = tuple(ROOT / f"tz_transport_{name}" for name in NAMES)
MODULES = sorted(path.stem for path in PACKAGES[0].glob("*.py"))

BUDGETS = {
    ("driver", "backend", "server"): 450,
    ("embed",): 120,
    ("stores",): 120,
    ("records",): 40,
    ("__main__",): 60,
}
"""Code lines that these modules of one package have together, at most."""

SPOKEN_OF_CORE = {"json", "h11"}
"""What a transport that keeps to its business has no use for."""


def code_lines(source: str) -> int:
    """Count the lines that are not blank, comment or docstring."""
    prose: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", ())
        for part in body if isinstance(body, list) else ():
            if (
                isinstance(part, ast.Expr)
                and isinstance(part.value, ast.Constant)
                and isinstance(part.value.value, str)
            ):
                prose.update(range(part.lineno, (part.end_lineno or 0) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (
            tokenize.COMMENT,
            tokenize.DEDENT,
            tokenize.ENDMARKER,
            tokenize.INDENT,
            tokenize.NEWLINE,
            tokenize.NL,
        ):
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - prose)


def public(name, module):
    return importlib.import_module(f"tz_transport_{name}.{module}")


def methods(cls):
    """Return the public methods of a class, with their parameters' names."""
    return {
        name: tuple(inspect.signature(member).parameters)
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_") or name in ("__init__", "__aenter__")
    }


def test_code_lines_count_no_prose():
    source = '"""Doc."""\n\n# why\nX = 1\n"""Of X."""\n\n\n'
    source += 'def f():\n    """D."""\n    return """a\nb"""\n'
    assert code_lines(source) == 4


def test_packages_have_the_same_modules():
    for package in PACKAGES:
        assert sorted(path.stem for path in package.glob("*.py")) == MODULES
        assert (package / "py.typed").exists()


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith("__")])
def test_modules_have_the_same_public_names(module):
    first, second = (public(name, module) for name in NAMES)
    assert first.__all__ == second.__all__
    assert first.__all__ == sorted(first.__all__)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("backend", "Backend"),
        ("driver", "Driver"),
        ("server", "Server"),
        ("embed", "GatewayTransport"),
        ("embed", "SyncGatewayTransport"),
        ("stores", "Kept"),
        ("stores", "Stores"),
        ("records", "InThreads"),
        ("records", "Pool"),
    ],
)
def test_classes_have_the_same_methods(module, name):
    first, second = (getattr(public(loop, module), name) for loop in NAMES)
    assert methods(first) == methods(second)


@pytest.mark.parametrize("name", NAMES)
def test_transport_handles_exactly_the_operations_that_exist(name):
    kinds = {
        getattr(module, word)
        for module in (operations, recordops, storeops)
        for word in module.__all__
    }
    existing = {
        kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Operation)
    } - {Operation}
    server = public(name, "server").Server
    handled = set(performers(server))
    own = {operations.All, operations.Race, operations.WriteRead}
    assert handled | own == existing - set(HANDLER_OPERATIONS)
    assert not handled & own
    driver = public(name, "driver").Driver
    assert {"run_arms", "write_read"} <= set(methods(driver))


def test_every_module_has_a_budget():
    counted = {module for modules in BUDGETS for module in modules}
    assert set(MODULES) <= counted | {"__init__"}


@pytest.mark.parametrize("package", PACKAGES, ids=NAMES)
@pytest.mark.parametrize(("modules", "budget"), BUDGETS.items())
def test_modules_keep_within_their_budget(package, modules, budget):
    sizes = {
        module: code_lines((package / f"{module}.py").read_text("utf-8"))
        for module in modules
        if module in MODULES
    }
    assert sum(sizes.values()) <= budget, sizes


@pytest.mark.parametrize("package", PACKAGES, ids=NAMES)
def test_transport_imports_nothing_that_decides(package):
    for path in package.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in getattr(node, "names", ())]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                roots = {name.partition(".")[0] for name in names}
                assert not roots & SPOKEN_OF_CORE, path

"""What the README says of the providers and the metrics is what their tables say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tz_protocol.dialects.losses import POLICY_OPTION
from tz_protocol.providers import ROWS
from tz_protocol.records.families import FAMILIES

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def cells_of(row):
    """Return what the README's table says of *row*."""
    kind, _, name = (row.credential or "none").partition("::")
    key = f"`{name}`" if name else "none"
    if kind == "path_from_env":
        key += " (a file)"
    if name and row.is_key_optional:
        key += ", optional"
    needs = ", ".join(f"`{one}`" for one in row.required)
    return [f"`{row.name}`", key, needs, ", ".join(row.dialects)]


def table(title="The providers"):
    """Return the cells of the README's table under this title, line by line."""
    section = README.partition(f"### {title}\n")[2].partition("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_readme_lists_every_provider_in_the_order_of_the_rows():
    assert [cells[0] for cells in table()] == [f"`{row.name}`" for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_readme_says_of_a_provider_what_its_row_says(row):
    assert cells_of(row) in table()


def test_readme_names_the_policy_by_its_key():
    assert f"`{POLICY_OPTION}`, in `[gateway]`" in README


def test_readme_lists_exactly_what_metrics_shows():
    assert table("What `/metrics` shows") == [
        [
            f"`{name}`",
            family.kind,
            ", ".join(f"`{label}`" for label in family.labels),
            family.text,
        ]
        for name, family in FAMILIES.items()
    ]


def test_readme_shows_a_test_of_a_configuration_that_passes():
    begin = "```python\n# test_routes.py"
    example = README.partition(begin)[2].partition("\n```")[0]
    names: dict[str, Any] = {}
    exec(compile(f"#{example}", "README.md", "exec"), names)
    (test,) = (names[name] for name in names if name.startswith("test_"))
    test()

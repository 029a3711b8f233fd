"""What the replay of the recordings came to, by provider."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

_WORDS = {
    "passed": "passed",
    "failed": "failed",
    "error": "failed",
    "xfailed": "excepted",
    "skipped": "skipped",
}
_COLUMNS = ("passed", "excepted", "failed", "skipped")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print a table of the corpus test, if it ran."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome, word in _WORDS.items():
        for report in terminalreporter.stats.get(outcome, ()):
            rest = getattr(report, "nodeid", "").partition("test_corpus.py")[2]
            if "[" in rest:
                provider = rest.partition("[")[2].rpartition("-")[0]
                counts[provider][word] += 1
    if not counts:
        return
    terminalreporter.section("recordings, by provider")
    total: Counter[str] = Counter()
    width = max(map(len, counts))
    heads = "".join(f"{name:>10}" for name in _COLUMNS)
    terminalreporter.write_line(f"{'':{width}}{heads}{'of 100':>10}")
    for provider in sorted(counts):
        total += counts[provider]
        terminalreporter.write_line(_line(provider, counts[provider], width))
    terminalreporter.write_line(_line("", total, width))


def _line(name: str, counts: Counter[str], width: int) -> str:
    figures = "".join(f"{counts[column]:>10}" for column in _COLUMNS)
    tried = sum(counts.values()) - counts["skipped"]
    share = f"{100 * counts['passed'] / tried:.1f}" if tried else "-"
    return f"{name:{width}}{figures}{share:>10}"

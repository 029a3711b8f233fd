"""What the replay of the recordings came to, by provider, and who read them."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from tests.protocol.dialects.recordings import LEFT_OUT

_WORDS = {
    "passed": "passed",
    "failed": "failed",
    "error": "failed",
    "xfailed": "excepted",
    "skipped": "skipped",
}
_COLUMNS = ("passed", "excepted", "failed", "skipped", "client", "by hand")
_NOTHING = (
    "/test_corpus.py::test_corpus_answer_is_legal_and_says_what_the_vendor_said[absent]"
)
_ENOUGH = 99
"""Of 100 recordings, how many have to pass at least."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print a table of the corpus test, if it ran."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: Counter[str] = Counter()
    for outcome, word in _WORDS.items():
        for report in terminalreporter.stats.get(outcome, ()):
            told = dict(getattr(report, "user_properties", ()))
            if (provider := told.get("provider")) is not None:
                counts[provider][word] += 1
                by_hand = told.get("by_hand")
                if by_hand is not None:
                    counts[provider]["by hand" if by_hand else "client"] += 1
                    reasons[by_hand] += 1
    write = terminalreporter.write_line
    if not counts:
        skipped = terminalreporter.stats.get("skipped", ())
        if any(_NOTHING in getattr(report, "nodeid", "") for report in skipped):
            _write_left_out(terminalreporter)
        return
    terminalreporter.section("recordings, by provider")
    total: Counter[str] = Counter()
    width = max(map(len, counts))
    heads = "".join(f"{name:>10}" for name in _COLUMNS)
    write(f"{'':{width}}{heads}{'of 100':>10}")
    for provider in sorted(counts):
        total += counts[provider]
        write(_line(provider, counts[provider], width))
    write(_line("", total, width))
    share = _share(total)
    if share is not None:
        verdict = "enough" if share >= _ENOUGH else "too few"
        write(f"{share:.1f} of 100 passed, at least {_ENOUGH} have to: {verdict}")
    terminalreporter.section("read by hand, since the vendor's client cannot")
    for reason, number in sorted(reasons.items()):
        if reason:
            write(f"{number:>6}  {reason}")
    _write_left_out(terminalreporter)


def _write_left_out(terminalreporter: Any) -> None:
    terminalreporter.section("recordings that are no items")
    for (module, reason), number in sorted(LEFT_OUT.items()):
        terminalreporter.write_line(f"{number:>6}  {module}: {reason}")


def _share(counts: Counter[str]) -> float | None:
    tried = counts["passed"] + counts["excepted"] + counts["failed"]
    return 100 * counts["passed"] / tried if tried else None


def _line(name: str, counts: Counter[str], width: int) -> str:
    figures = "".join(f"{counts[column]:>10}" for column in _COLUMNS)
    share = _share(counts)
    shown = "-" if share is None else f"{share:.1f}"
    return f"{name:{width}}{figures}{shown:>10}"

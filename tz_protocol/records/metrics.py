"""Counters and histograms: what one process counts, as it happens.

The one rule: counting never fails and takes next to no time, and no caller can make
the process remember more than the table allows: a family with too many series counts
the rest as one. Names, labels and units are in ``families.py``; the text is made in
``exposition.py``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping

from tz_protocol.records.families import FAMILIES
from tz_protocol.records.figures import Figures, Number, Series
from tz_protocol.records.record import Outcome, Record

__all__ = ["OTHER", "SERIES_LIMIT", "UNKNOWN", "Gauges", "Metrics"]

SERIES_LIMIT = 2_000
"""Series of one family; operators' own tables can be larger than a dashboard."""

OTHER = "other"
"""Every label of what is past that limit."""

UNKNOWN = "unknown"
"""The model of a request for one that does not exist."""

NOBODY = "none"
"""The model of a request that names none."""

FUNCTION = "tensorzero::default"
"""TensorZero's name for what calls a model without a function."""

_CHAT = "POST /v1/chat/completions"
_NANO = 1_000_000_000

Labels = tuple[tuple[str, str], ...]
Gauges = Mapping[tuple[str, Labels], float]


def _same(model: str) -> str:
    return model


def _unknown(model: str) -> str:
    del model
    return UNKNOWN


class Metrics:
    """One process's figures."""

    __slots__ = ("_counters", "_histograms", "_sizes")

    def __init__(self) -> None:
        self._counters: dict[Series, Number] = {}
        self._histograms: dict[Series, list[int]] = {}
        self._sizes: dict[str, int] = {}
        """Family -> how many series it has."""

    def add(self, name: str, amount: Number = 1, **labels: str) -> None:
        """Add *amount* to the counter *name*; labels as the table has them."""
        self._count(name, tuple(labels.values()), amount)

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Put one observation into the histogram *name*."""
        self._observe(name, tuple(labels.values()), seconds)

    def _count(self, name: str, labels: tuple[str, ...], amount: Number = 1) -> None:
        series = (name, labels)
        counters = self._counters
        if series not in counters:
            series = self._bounded(counters, series)
        counters[series] = counters.get(series, 0) + amount

    def _observe(self, name: str, labels: tuple[str, ...], seconds: float) -> None:
        series = (name, labels)
        bounds = FAMILIES[name].bounds
        row = self._histograms.get(series)
        if row is None:
            series = self._bounded(self._histograms, series)
            row = self._histograms.setdefault(series, [0] * (len(bounds) + 2))
        row[bisect_left(bounds, seconds)] += 1
        row[-1] += int(seconds * _NANO)

    def _bounded(self, known: Mapping[Series, object], series: Series) -> Series:
        """Return *series*, which is new, or the one that stands for all the rest."""
        name, labels = series
        size = self._sizes.get(name, 0)
        if size >= SERIES_LIMIT:
            return name, (OTHER,) * len(labels)
        self._sizes[name] = size + 1
        return series

    def settle(
        self,
        record: Record,
        label: Callable[[str], str] = _same,
        asked: Callable[[str], str] = _unknown,
    ) -> None:
        """Count one settled exchange.

        Args:
            record: Settled.
            label: Makes one of a fixed set of the name of a model that was tried.
            asked: The same for a name that a caller wrote.
        """
        model = _model_of(record, label, asked)
        outcome = record.outcome or Outcome.CANCELLED
        count, endpoint = self._count, record.endpoint
        theirs = ("inference" if endpoint == _CHAT else endpoint, FUNCTION, model)
        count("tensorzero_requests_total", theirs)
        count("tensorzero_inferences_total", theirs)
        status = str(record.status or 0)
        count("tz_exchanges_total", (endpoint, model, outcome.value, status))
        upstream = 0.0
        for attempt in record.attempts:
            labels = (label(attempt.model), attempt.provider, attempt.error or "ok")
            count("tz_attempts_total", labels)
            upstream += (attempt.ended or attempt.started) - attempt.started
        duration = record.duration or 0.0
        self._observe("tz_exchange_seconds", (endpoint,), duration)
        if record.is_stream and record.first_content is not None:
            self._observe("tz_first_content_seconds", (model,), record.first_content)
        if outcome is Outcome.OK:
            own = max(0.0, duration - upstream)
            self._observe("tz_overhead_seconds", (endpoint,), own)
        if outcome is Outcome.OK or record.provider is not None:
            self._count_tokens(record, model)
        if record.skipped_events:
            count("tz_skipped_events_total", (model,), record.skipped_events)

    def _count_tokens(self, record: Record, model: str) -> None:
        if record.cache == "hit":
            return
        count = self._count
        if record.cost is not None:
            count("tz_cost_total", (model,), record.cost)
        usage = record.usage
        if usage is None:
            count("tz_usage_unknown_total", (model,))
            return
        count("tensorzero_input_tokens_total", (), usage.input_tokens)
        count("tensorzero_output_tokens_total", (), usage.output_tokens)
        count("tz_tokens_total", (model, "input"), usage.input_tokens)
        count("tz_tokens_total", (model, "output"), usage.output_tokens)
        if usage.cache_read_tokens:
            count("tz_tokens_total", (model, "cache_read"), usage.cache_read_tokens)
        if usage.cache_write_tokens:
            count("tz_tokens_total", (model, "cache_write"), usage.cache_write_tokens)
        if usage.reasoning_tokens:
            count("tz_tokens_total", (model, "reasoning"), usage.reasoning_tokens)

    def figures(self, gauges: Gauges) -> Figures:
        """Return everything that was counted, and *gauges*, as it is now.

        Args:
            gauges: What is counted elsewhere, by name and labels; counters too.
        """
        counters = dict(self._counters)
        found: dict[Series, float] = {}
        for (name, labels), value in gauges.items():
            series = (name, tuple(text for _, text in labels))
            if FAMILIES[name].kind == "counter":
                counters[series] = counters.get(series, 0) + int(value)
            else:
                found[series] = value
        rows = {series: list(row) for series, row in self._histograms.items()}
        return Figures(counters, found, rows)

    def render(self, gauges: Gauges) -> str:
        """Return the text of this process alone, with *gauges*; see :meth:`figures`."""
        # Costs time and memory that only who shows figures has to spend.
        from tz_protocol.records.exposition import render

        return render(self.figures(gauges))[1].decode()


def _model_of(
    record: Record, label: Callable[[str], str], asked: Callable[[str], str]
) -> str:
    if record.model is not None:
        return label(record.model)
    if record.attempts:
        return label(record.attempts[0].model)
    return asked(record.asked_model) if record.asked_model else NOBODY

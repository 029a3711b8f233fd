"""Figures -> the text that Prometheus reads, by ``prometheus_client``.

The one rule: this module is imported where figures are shown, never where they are
counted: the library brings an HTTP server and a TLS stack along (60 ms of CPU by
itself; 9 ms and 0.4 MB in a process that serves, which has most of it). Its own
counters and its registry are not used: they lock, they know one process, and they
count in floats.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from tz_protocol.records.families import FAMILIES
from tz_protocol.records.figures import Figures, Series

__all__ = ["render"]

_NANO = 1e9

_OPENMETRICS = "application/openmetrics-text;version=1.0.0"


def render(figures: Figures, accept: str = "") -> tuple[str, bytes]:
    """Return (content type, text) of *figures*, family by family as the table has them.

    Args:
        figures: Of one process or several.
        accept: What the reader takes, as HTTP's header says it. One that takes
            OpenMetrics gets that, everybody else Prometheus' own format.
    """
    # Only what is known is handed on: the library fails on versions that are no
    # numbers, and repeats the others in the content type.
    wanted = _OPENMETRICS if _OPENMETRICS.partition(";")[0] in accept else ""
    encode, content_type = choose_encoder(wanted)
    return content_type, encode(_Collector(figures))


class _Collector:
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """Yield each family that has a figure."""
        figures = self._figures
        by_name: dict[str, list[Series]] = {}
        for kind in (figures.counters, figures.gauges, figures.histograms):
            for series in sorted(kind):
                by_name.setdefault(series[0], []).append(series)
        for name, family in FAMILIES.items():
            if name not in by_name:
                continue
            text, labels = family.text, family.labels
            if family.kind == "counter":
                counter = CounterMetricFamily(name, text, labels=labels)
                for series in by_name[name]:
                    counter.add_metric(series[1], float(figures.counters[series]))
                yield counter
            elif family.kind == "gauge":
                gauge = GaugeMetricFamily(name, text, labels=labels)
                for series in by_name[name]:
                    gauge.add_metric(series[1], figures.gauges[series])
                yield gauge
            else:
                histogram = HistogramMetricFamily(name, text, labels=labels)
                for series in by_name[name]:
                    row = figures.histograms[series]
                    buckets = _cumulative(family.bounds, row)
                    histogram.add_metric(series[1], buckets, row[-1] / _NANO)
                yield histogram


def _cumulative(bounds: tuple[float, ...], row: list[int]) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*bounds, "+Inf"), row[:-1], strict=True):
        total += count
        buckets.append((str(bound), float(total)))
    return buckets

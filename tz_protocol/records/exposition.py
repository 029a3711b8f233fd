"""Figures -> the text that Prometheus reads, by ``prometheus_client``.

The one rule: this module is imported where figures are shown, never where they are
counted: the library brings an HTTP server and a TLS stack along (60 ms of CPU by
itself; 9 ms and 0.4 MB in a process that serves, which has most of it). Its own
counters and its registry are not used: they lock, they know one process, and they
count in floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tz_protocol.records.families import FAMILIES
from tz_protocol.records.figures import Figures, Series

__all__ = ["render", "render_parts"]

_NANO = 1e9

_OPENMETRICS = "application/openmetrics-text;version=1.0.0"
_END = b"# EOF\n"

_TURN = 25
"""Series that are made text of at a time: 2 ms if they are histograms."""


def render(figures: Figures, accept: str = "") -> tuple[str, bytes]:
    """Return (content type, text) of *figures*; see :func:`render_parts`."""
    content_type, parts = render_parts(figures, accept)
    return content_type, b"".join(parts)


def render_parts(figures: Figures, accept: str = "") -> tuple[str, Iterator[bytes]]:
    """Return (content type, the text piece by piece).

    In parts, because hundreds of models take tens of milliseconds, in which a process
    could do nothing else.

    Args:
        figures: Of one process or several.
        accept: What the reader takes, as HTTP's header says it. One that takes
            OpenMetrics gets that, everybody else Prometheus' own format.
    """
    # Only what is known is handed on: the library fails on versions that are no
    # numbers, and repeats the others in the content type.
    wanted = _OPENMETRICS if _OPENMETRICS.partition(";")[0] in accept else ""
    encode, content_type = choose_encoder(wanted)
    return content_type, _parts(figures, encode, _END if wanted else b"")


def _parts(
    figures: Figures, encode: Callable[[Collector], bytes], end: bytes
) -> Iterator[bytes]:
    by_name: dict[str, list[Series]] = {}
    for kind in (figures.counters, figures.gauges, figures.histograms):
        for series in sorted(kind):
            by_name.setdefault(series[0], []).append(series)
    for name in FAMILIES:
        known = by_name.get(name, ())
        for start in range(0, len(known), _TURN):
            part = _family(name, figures, known[start : start + _TURN])
            text = encode(_Collector(part)).removesuffix(end)
            while start and text.startswith(b"# "):  # it has been introduced
                text = text.partition(b"\n")[2]
            yield text
    yield end


class _Collector:
    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _family(name: str, figures: Figures, known: Sequence[Series]) -> Metric:
    """Return some of the series of a family."""
    family = FAMILIES[name]
    text, labels = family.text, family.labels
    if family.kind == "counter":
        counter = CounterMetricFamily(name, text, labels=labels)
        for series in known:
            counter.add_metric(series[1], float(figures.counters[series]))
        return counter
    if family.kind == "gauge":
        gauge = GaugeMetricFamily(name, text, labels=labels)
        for series in known:
            gauge.add_metric(series[1], figures.gauges[series])
        return gauge
    histogram = HistogramMetricFamily(name, text, labels=labels)
    for series in known:
        row = figures.histograms[series]
        buckets = _cumulative(family.bounds, row)
        histogram.add_metric(series[1], buckets, row[-1] / _NANO)
    return histogram


def _cumulative(bounds: tuple[float, ...], row: list[int]) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*bounds, "+Inf"), row[:-1], strict=True):
        total += count
        buckets.append((str(bound), float(total)))
    return buckets

"""What one process has counted, as a value that can be sent and added up.

The one rule: what adds up is an int or a Decimal, never a float, so that the sum over
several processes is the same in whatever order it is made: a total that fell by the
last bit of a float would look to Prometheus like a restart. (The multiprocess mode of
``prometheus_client`` is no help: its figures live in files that it maps into memory,
found through an environment variable, and the core has neither.)
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import TypeAlias

import msgspec

from tz_protocol.records.families import FAMILIES

__all__ = [
    "Figures",
    "Number",
    "Report",
    "Series",
    "decode_report",
    "encode_report",
    "merge",
    "retired",
]

Series: TypeAlias = tuple[str, tuple[str, ...]]
"""(family, the values of its labels in the table's order)."""

Number: TypeAlias = int | Decimal


class Figures(msgspec.Struct):
    """Everything at one moment."""

    counters: dict[Series, Number] = {}
    gauges: dict[Series, float] = {}
    histograms: dict[Series, list[int]] = {}
    """One cell for each bucket, not cumulative, one beyond the last bound, and the sum
    in nanoseconds."""


class Report(msgspec.Struct):
    """What one process leaves for the others to add to theirs."""

    id: str
    """Of the process; another one with every start."""
    figures: Figures = msgspec.field(default_factory=Figures)
    includes: list[str] = []
    """Ids of processes that are gone, whose figures are among these."""


def merge(parts: Iterable[Figures]) -> Figures:
    """Return the figures of all *parts* together; these are left as they are.

    What another version counted, and this one does not know, is left out.
    """
    total = Figures({}, {}, {})
    for part in parts:
        for series, number in part.counters.items():
            if series[0] in FAMILIES:
                _add(total.counters, series, number)
        for series, value in part.gauges.items():
            if series[0] in FAMILIES:
                before = total.gauges.get(series)
                total.gauges[series] = _join(series[0], before, value)
        for series, row in part.histograms.items():
            family = FAMILIES.get(series[0])
            if family is None or len(row) != len(family.bounds) + 2:
                continue
            known = total.histograms.get(series)
            if known is None:
                total.histograms[series] = list(row)
            else:
                pairs = zip(known, row, strict=True)
                total.histograms[series] = [one + other for one, other in pairs]
    return total


def _add(counters: dict[Series, Number], series: Series, number: Number) -> None:
    counters[series] = counters.get(series, 0) + number


def _join(name: str, before: float | None, value: float) -> float:
    if before is None:
        return value
    how = FAMILIES[name].merge
    if how == "sum":
        return before + value
    return max(before, value) if how == "max" else min(before, value)


def retired(figures: Figures) -> Figures:
    """Return what stays of *figures* once their process is gone.

    Counters do; a gauge says what is, and its process is no more.
    """
    counters = dict(figures.counters)
    for (name, _), value in figures.gauges.items():
        family = FAMILIES.get(name)
        if family is not None and family.left and value:
            _add(counters, (family.left, ()), int(value))
    return Figures(counters, {}, figures.histograms)


# -- on the way -----------------------------------------------------------------


class _Wire(msgspec.Struct, array_like=True):
    """A report as it is written; keys of maps must be text, so there are lists."""

    id: str
    includes: list[str]
    counters: list[tuple[str, tuple[str, ...], int | str]]
    gauges: list[tuple[str, tuple[str, ...], float]]
    histograms: list[tuple[str, tuple[str, ...], list[int]]]


_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
_decode = msgspec.msgpack.Decoder(_Wire).decode


def encode_report(report: Report) -> bytes:
    """Return *report* as bytes."""
    figures = report.figures
    return _encode(
        _Wire(
            report.id,
            report.includes,
            [(*series, _short(number)) for series, number in figures.counters.items()],
            [(*series, value) for series, value in figures.gauges.items()],
            [(*series, row) for series, row in figures.histograms.items()],
        )
    )


def _short(number: Number) -> int | str:
    """Return what MessagePack has a number for as it is, the rest as text."""
    is_short = isinstance(number, int) and number.bit_length() < 64
    return number if is_short else str(number)  # type: ignore[return-value]  # an int


def decode_report(data: bytes) -> Report | None:
    """Return what :func:`encode_report` made into *data*; None if it was not that."""
    try:
        wire = _decode(data)
        counters: dict[Series, Number] = {
            (name, labels): number if isinstance(number, int) else Decimal(number)
            for name, labels, number in wire.counters
        }
    except (msgspec.MsgspecError, ArithmeticError, UnicodeDecodeError):
        return None
    gauges = {(name, labels): value for name, labels, value in wire.gauges}
    rows = {(name, labels): row for name, labels, row in wire.histograms}
    return Report(wire.id, Figures(counters, gauges, rows), wire.includes)

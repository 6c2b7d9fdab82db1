"""What a loop with a deadline measures of itself: how long its ticks took, which were late, and a histogram."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

EDGES = (0, 2, 4, 6, 8, 10, 12, 14, 16.67, 20, 25, 33.3, 50, 100, np.inf)  # ms


class Timing:
    """Ticks of `period` s. A tick misses its deadline when its work ends after the next tick was due."""

    def __init__(self, period: float):
        self.period = period
        self._work: list[float] = []
        self._parts: dict[str, list[float]] = {}
        self.missed = 0
        self.left_out = 0  # ticks that were not begun at all, since one before took longer than two periods

    def add(self, seconds: float, missed: bool, parts: Mapping[str, float] | None = None) -> None:
        """One tick: how long its work took, and the parts of it."""
        self._work.append(seconds)
        self.missed += bool(missed)
        for name, value in (parts or {}).items():
            self._parts.setdefault(name, []).append(value)

    def summary(self) -> dict:
        """JSON-able, times in ms."""
        work = 1000 * np.array(self._work)
        if not len(work):
            return {"ticks": 0}
        counts, _ = np.histogram(work, EDGES)
        names = [f"< {high:g}" if np.isfinite(high) else f">= {low:g}" for low, high in zip(EDGES, EDGES[1:])]  # noqa: B905
        p50, p95, p99, most = np.percentile(work, (50, 95, 99, 100)).tolist()
        return {
            "ticks": len(work),
            "rate": 1 / self.period,
            "ms": {"p50": round(p50, 3), "p95": round(p95, 3), "p99": round(p99, 3), "max": round(most, 3)},
            "parts_ms": {name: round(1000 * float(np.median(values)), 3) for name, values in self._parts.items()},
            "missed": self.missed,
            "missed_percent": round(100 * self.missed / len(work), 3),
            "left_out": self.left_out,
            "histogram": {name: int(count) for name, count in zip(names, counts, strict=True)},
        }


def as_text(summary: Mapping) -> str:
    """What a terminal shows of `Timing.summary`."""
    if not summary.get("ticks"):
        return "no ticks"
    ms, parts = summary["ms"], summary["parts_ms"]
    lines = [
        f"{summary['ticks']} ticks at {summary['rate']:g} Hz: {ms['p50']:.2f} ms (median), {ms['p99']:.2f} (99 %), "
        f"{ms['max']:.2f} at most",
        f"deadlines missed: {summary['missed']} ({summary['missed_percent']:g} %), left out: {summary['left_out']}",
        "parts, ms: " + ", ".join(f"{name} {value:.2f}" for name, value in parts.items()),
    ]
    most = max(summary["histogram"].values())
    for name, count in summary["histogram"].items():
        if count:
            lines.append(f"  {name:>8} ms {count:7d} {'#' * max(1, round(40 * count / most))}")
    return "\n".join(lines)

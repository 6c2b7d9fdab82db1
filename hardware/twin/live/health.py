"""Whether what the cameras say may correct a twin: pictures that are old, covered or shaken do not.

Each camera has a bound for its residual, which its own first pictures set: `margin` times the largest of them. A camera
above its bound is left out; it is tried again every `probe` pictures, and counts again after `trust` good ones. When no
camera is left, nothing is corrected: the twin goes on by physics alone, and after `patience` s the object counts as
lost, which the loop tells and stops for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

ASTRAY = "an object is not where the twin has it: moved by hand, taken away or exchanged?"
SURE = 0.1  # more of an overlap, for an object to be there again


@dataclass(frozen=True, kw_only=True)
class Trust:
    """When pictures are believed."""

    settle: int = 30  # pictures of each camera that set its bound, after an episode begins
    margin: float = 1.6  # a camera's bound, in the largest of those residuals
    bounds: dict[str, float] = field(default_factory=dict)  # camera -> its bound; empty: as it is measured
    probe: int = 6  # pictures between two tries of a camera that is left out
    trust: int = 2  # good ones in a row after which it counts again
    stale: float = 0.15  # s, the age of a picture that corrects nothing
    delay: float = 0.05  # s, the age at which a correction has half of its strength
    patience: float = 0.5  # s without any camera after which the objects count as lost
    overlap: float = 0.3  # of an object's outline with what is seen of it (0..1), below which it is not there

    def __post_init__(self) -> None:
        for name, least in (("settle", 1), ("probe", 1), ("trust", 1), ("stale", 0), ("patience", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"trust.{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("margin", "delay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"trust.{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.overlap <= 1:
            raise ValueError(f"trust.overlap is a share, 0..1, got {self.overlap}")
        if wrong := [name for name, bound in self.bounds.items() if not bound >= 0]:
            raise ValueError(f"trust.bounds: that of {wrong[0]} must not be below 0, got {self.bounds[wrong[0]]}")


class Health:
    """The cameras of one episode, from picture to picture."""

    def __init__(self, settings: Trust, cameras: Iterable[str], now: float):
        self.settings = settings
        self.bounds: dict[str, float] = dict(settings.bounds)
        self._first: dict[str, list[float]] = {name: [] for name in cameras}
        self._out: dict[str, int] = {}  # camera that is left out -> pictures since then
        self._good: dict[str, int] = {}
        self._corrected = now
        self._heard = dict.fromkeys(self._first, now)  # camera -> when it was without fault last
        self._silent: set[str] = set()
        self._astray: float | None = None  # since when an object is not where the twin has it, or not seen
        self.warnings: list[str] = []

    def wanted(self, ages: Mapping[str, float]) -> tuple[list[str], list[str]]:
        """Of cameras with new pictures of these ages: those that correct, and those that are only tried."""
        fresh = [name for name, age in ages.items() if age <= self.settings.stale]
        good, tried = [], []
        for name in fresh:
            if name not in self._out:
                good.append(name)
                continue
            self._out[name] += 1
            if self._out[name] % self.settings.probe == 0 or self._good.get(name, 0):
                tried.append(name)
        return good, tried

    def hears(self, faults: Mapping[str, str], now: float) -> None:
        """Take note of why cameras correct nothing now ("": they do); of what lasts for too long, tell."""
        for name in self._heard:
            fault = faults.get(name, "")
            if not fault or name in self._out:  # which was told already
                self._heard[name] = now
                self._silent.discard(name)
            elif now - self._heard[name] > self.settings.patience and name not in self._silent:
                self._silent.add(name)
                self.warnings.append(f"camera '{name}' corrects nothing: {fault}")

    def judge(self, residuals: Mapping[str, float], now: float) -> bool:
        """Take note of residuals; whether all of these cameras are within their bounds."""
        fine = True
        for name, value in residuals.items():
            bound = self._bound(name, value)
            if value <= bound:
                self._back(name)
                continue
            fine, self._good[name] = False, 0
            if name not in self._out:
                self._out[name] = 0
                self.warnings.append(f"camera '{name}' is left out: residual {value:.4g} above its bound {bound:.4g}")
        return fine

    def finds(self, overlap: float, seen: bool, now: float) -> None:
        """Take note of how much of an object's outline (0..1) is where it is seen, and whether it is seen at all."""
        wanted = self.settings.overlap + (SURE if self.astray(now) else 0.0)
        if seen and overlap >= wanted:
            if self.astray(now):
                self.warnings.append("the objects are where the twin has them again")
            self._astray = None
            return
        if self._astray is None:
            self._astray = now
        if self.astray(now) and (not self.warnings or self.warnings[-1] != ASTRAY):
            self.warnings.append(ASTRAY)

    def astray(self, now: float) -> bool:
        """Whether an object has not been where the twin has it for too long."""
        return self._astray is not None and now - self._astray > self.settings.patience

    def corrected(self, now: float) -> None:
        """A correction was made."""
        self._corrected = now

    def lost(self, now: float) -> bool:
        """Whether nothing has corrected the twin for too long."""
        return now - self._corrected > self.settings.patience

    def strength(self, age: float) -> float:
        """How much of a correction from pictures of this age is applied, 0..1."""
        return 0.0 if age > self.settings.stale else 1 / (1 + max(0.0, age) / self.settings.delay)

    @property
    def left_out(self) -> tuple[str, ...]:
        return tuple(self._out)

    def _bound(self, name: str, value: float) -> float:
        if name in self.bounds:
            return self.bounds[name]
        first = self._first[name]
        if np.isfinite(value):
            first.append(value)
        if len(first) >= self.settings.settle:
            self.bounds[name] = self.settings.margin * max(first)
        return np.inf if np.isfinite(value) else -np.inf

    def _back(self, name: str) -> None:
        if name not in self._out:
            return
        self._good[name] = self._good.get(name, 0) + 1
        if self._good[name] >= self.settings.trust:
            del self._out[name], self._good[name]
            self.warnings.append(f"camera '{name}' corrects again")

"""How many worker processes this machine has room for: cores that this process may use, and memory.

Read from the system each time: the affinity of the process, the quota and the memory of its control group, and what is
free. Knows nothing of worlds or policies beyond how much work there is and how much memory a worker takes.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

CORES = "UNDERSTUDY_CORES"  # environment: cores that this process may use, where it shares them with others of ours
WORTH = 6_000  # control steps below which starting processes costs more than it gains
WORKER, PICTURES = 0.8e9, 0.4e9  # bytes that a worker takes: torch and a simulator; drawing, beside
SPARE = 0.2  # part of the free memory that is left alone
GROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Workers:
    """A number of worker processes, and why."""

    count: int
    why: str

    def __str__(self) -> str:
        return f"{self.count} ({self.why})"


def choose_workers(
    asked: int | None,
    *,
    blocks: int,
    steps: int,
    threads: int = 1,
    draws: bool = False,
    weights: float = 0.0,
) -> Workers:
    """The number asked for, else as many as there are cores and memory for, and blocks to run; 0: this process.

    Args:
        steps: control steps of all episodes at most.
        threads: of torch in each worker.
        draws: whether the environments draw pictures.
        weights: bytes of the policy.
    """
    if asked is not None:
        if asked < 0:
            raise ValueError(f"workers must be at least 0, got {asked}")
        return Workers(asked, "as asked")
    if os.name != "posix":
        return Workers(0, "worker processes need a POSIX system")
    if steps < WORTH:
        return Workers(0, f"at most {steps} control steps: too few to start processes for")

    room = math.floor((1 - SPARE) * free_memory() / (WORKER + PICTURES * draws + 2 * weights))
    limits = {
        f"{cores():g} cores" + (f" for {threads} threads each" if threads > 1 else ""): int(cores() // threads),
        f"{free_memory() / 1e9:.1f} GB of free memory": room,
        f"{blocks} blocks": blocks,
    }
    why = min(limits, key=lambda name: limits[name])
    count = limits[why]
    return Workers(count if count > 1 else 0, why)


def cores() -> float:
    """Cores that this process may use at the same time, at least 1."""
    told = os.environ.get(CORES, "")
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if told.isdigit():
        allowed = min(allowed, int(told))
    return max(1.0, min(float(allowed), _quota()))


def free_memory() -> float:
    """Bytes that can still be had, inf where nothing tells."""
    return min(_available(), _group_memory())


def _quota() -> float:
    """Cores of the control group, inf where there is no limit."""
    words = _text(GROUP / "cpu.max").split()
    if len(words) != 2:  # version 1
        words = [_text(GROUP / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    try:
        quota, period = (float(word) for word in words)
    except ValueError:  # "max", or not there
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _group_memory() -> float:
    """What the control group may still take; its file cache can be given back."""
    for limit, used, cache in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        numbers = [_text(GROUP / name) for name in (limit, used)]
        if all(number.isdigit() for number in numbers):
            pairs = [line.split() for line in _text(GROUP / cache).splitlines()]
            given_back = sum(int(pair[1]) for pair in pairs if pair[:1] in (["inactive_file"], ["total_inactive_file"]))
            return max(0.0, int(numbers[0]) - int(numbers[1]) + given_back)
    return math.inf


def _available() -> float:
    for line in _text(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

"""How busy a machine is with other work, from what Linux counts: ratios of speeds want a quiet one."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

STAT = Path("/proc/stat")
MOST = 0.25  # cores that other work may take


class BusyError(ValueError):
    """Other work would spoil what is measured; the message says how much there is."""


def check_quiet(allowed: bool = False, seconds: float = 1.0) -> None:
    """Refuse to measure where other work takes more than `MOST` cores.

    Args:
        allowed: measure anyway.
        seconds: to look, without doing anything.

    Raises:
        BusyError: how many cores are busy, and what to do.
    """
    if allowed:
        return
    busy = others_while(lambda: time.sleep(seconds))[1]
    if busy is not None and busy > MOST:
        raise BusyError(
            f"{busy:.1f} of {os.cpu_count()} cores are busy with other work, and ratios of speeds would be wrong. Wait "
            "until it is over; --busy true measures anyway, and says so in the table"
        )


def others_while(work) -> tuple[Any, float | None]:
    """(what `work` returns, cores that other processes took meanwhile; None where the system does not count).

    Of ours are this process and its children, as far as they have ended and were waited for.
    """
    before, began = _counted(), time.perf_counter()
    result = work()
    after, spent = _counted(), time.perf_counter() - began
    if before is None or after is None:
        return result, None
    return result, round(max(0.0, (after[0] - before[0]) - (after[1] - before[1])) / spent, 2)


def _counted() -> tuple[float, float] | None:
    """Processor seconds of the whole machine and of ours, since they began."""
    if not STAT.is_file():
        return None
    user, nice, system, _, _, irq, softirq = (int(word) for word in STAT.read_text().split("\n", 1)[0].split()[1:8])
    ours = os.times()
    total = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return total, ours.user + ours.system + ours.children_user + ours.children_system

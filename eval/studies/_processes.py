"""The processes of a session, so that those which outlive a killed command are found. Needs Linux (/proc)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 15.0  # s that the processes of a command may outlive it


def outliving(session: int) -> int:
    """Processes of a session that live longer than `PATIENCE`; they are ended."""
    end = time.monotonic() + PATIENCE
    while pids := list(members(session)):
        if time.monotonic() > end:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            return len(pids)
        time.sleep(0.05)
    return 0


def members(session: int) -> Iterator[int]:
    """Process ids of a session, without those that have ended and are not waited for yet."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                state, _, _, its = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:4]
            except (OSError, ValueError):
                continue
            if int(its) == session and state != "Z":
                yield int(entry)

"""Commands of ours in processes of their own: not reached by the terminal's Ctrl-C, stopped politely, never orphaned.

On Linux a child gets an interrupt when its parent dies, however that happened (`prctl(2)`, PR_SET_PDEATHSIG), so that
a killed grid or training leaves nothing behind that writes. None takes the current folder's files for modules (`-P`).
Knows nothing of what the commands do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_BEGIN = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGINT)
if os.getppid() != int(sys.argv[1]):
    sys.exit(130)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def start(
    words: Sequence[object], log: Path, stdin: int = subprocess.DEVNULL, environment: Mapping[str, str] | None = None
) -> subprocess.Popen:
    """`python -m WORD ...` in a process group of its own, its output appended to `log`. Call from the main thread."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-I", "-S", "-c", _BEGIN, str(os.getpid()), "-P", "-m", *map(str, words)]
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment or {}),
        )


def calling(place: str, *words: object) -> list[str]:
    """The command that calls one function of ours in a process of its own: `calling("package.module:function", ...)`.

    Every word arrives as text.
    """
    module, function = place.split(":")
    code = f"import sys; from {module} import {function}; {function}(*sys.argv[1:])"
    return [sys.executable, "-P", "-c", code, *map(str, words)]


def stop(processes: Iterable[subprocess.Popen], patience: float = 60.0) -> None:
    """Interrupt all, wait until they have saved, kill those that are not gone after `patience` seconds."""
    alive = [process for process in processes if process.poll() is None]
    for process in alive:
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + patience
    for process in alive:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _kill(process)


def last_line(log: Path) -> str:
    """The last line with text in a log, "" where there is none."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _kill(process: subprocess.Popen) -> None:
    """The whole group, its workers too."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()

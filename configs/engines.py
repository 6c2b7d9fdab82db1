"""The names of what runs blocks of episodes, and the refusal of one that cannot; see `eval/rollout/engine.py`."""

from __future__ import annotations

import importlib.util

from .extras import pip_install
from .plugins import lookup

LOCAL, RAY = "local", "ray"


def check_engine(engine: str, address: str, workers: int | None) -> None:
    """Refuse an engine that is not known, not installed, or asked for what it cannot do; nothing is imported.

    Raises:
        LookupError, ImportError, ValueError: saying what to do.
    """
    lookup("engine", engine, dict.fromkeys((LOCAL, RAY)))
    if engine == LOCAL:
        if address:
            raise ValueError(f"--address {address} is of a cluster: add --engine ray")
        return
    if workers == 0:
        raise ValueError("--workers 0 acts in this process: leave --engine ray out, or give a number of workers")
    if importlib.util.find_spec("ray") is None:
        raise ImportError(f"--engine ray needs Ray, here and on every node: {pip_install('ray')}")

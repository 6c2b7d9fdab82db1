"""How a helper process is started: a fresh Python with our paths, one thread, and a function with whole numbers."""

from __future__ import annotations

import json
import sys

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "VECLIB")}
ONE_THREAD["LP_NUM_THREADS"] = "0"  # Mesa's llvmpipe: more threads than the one that asks; 1 hands each picture over
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from importlib import import_module; "
    "getattr(import_module(sys.argv[2]), sys.argv[3])(*map(int, sys.argv[4:]))"
)


def words(place: str, *numbers: int) -> list[str]:
    """The command that runs the function `package.module:function` with these numbers."""
    return [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path), *place.split(":"), *map(str, numbers)]

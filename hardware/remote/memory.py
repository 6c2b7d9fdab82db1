"""Memory that pictures went through is kept for the next ones, not given back to the system after each message."""

from __future__ import annotations

import sys
from functools import cache

KEPT = 256 * 2**20  # bytes that may lie freed at the top of the heap before they are given back
LARGEST = 32 * 2**20  # bytes of one piece that comes from the heap, as most as glibc takes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@cache
def keep_freed() -> bool:
    """Tell glibc's malloc so, for this process; whether it is one that can be told.

    Otherwise each message of two pictures maps some 2000 pages anew, and the faults of them take longer than all the
    copying. What the environment says (MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_) is overruled.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_THRESHOLD, LARGEST) and mallopt(_M_TRIM_THRESHOLD, KEPT))

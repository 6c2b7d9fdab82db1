"""Policies that are no folder but an address, such as `ws://HOST:PORT`: who opens them, by the word before `://`.

What can be opened registers itself, in a folder above this one; nothing here knows a network.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..configs.plugins import discover, lookup

Opener = Callable[[str, str | None], tuple[Any, dict]]  # (address, embodiment file) -> (planner, info)
_OPENERS: dict[str, Opener] = {}
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://.+")


def register_address(*schemes: str) -> Callable[[Opener], Opener]:
    """Register who opens addresses that begin so; what it returns is as `load_policy` has it."""

    def register(opener: Opener) -> Opener:
        _OPENERS.update(dict.fromkeys(schemes, opener))
        return opener

    return register


def is_address(source: str | Path) -> bool:
    """Whether a policy is named by an address."""
    return isinstance(source, str) and _ADDRESS.fullmatch(source) is not None


def check_address(source: str) -> None:
    """Raise LookupError where nothing opens such an address, without opening it."""
    _opener(source)


def open_address(source: str, embodiment: str | None = None) -> tuple[Any, dict]:
    """The planner there, and {"path", "type", "fingerprint", ...} of it. Raises what its opener does."""
    return _opener(source)(source, embodiment)


def _opener(source: str) -> Opener:
    found = _ADDRESS.fullmatch(source)
    assert found is not None
    discover("hardware")
    return lookup("kind of address", found[1], _OPENERS)

"""Asking the person at an arm before it moves."""

from __future__ import annotations

import sys
from collections.abc import Callable

IN_WORLD = "say yes: true in the world"  # in place of asking


class Refused(ValueError):
    """The person did not allow the arm to move, or nobody was there to."""


def on_terminal() -> bool:
    """Whether somebody can be asked."""
    try:
        return sys.stdin.isatty()
    except (ValueError, AttributeError):
        return False


def ask(what: str, hear: Callable[[], str | None] | None = None, instead: str = "give --yes true") -> None:
    """Ask in the terminal before the first motion.

    Args:
        hear: gives the answer, None: there will be none; by default the next line of stdin.
        instead: what to do where nobody is there.

    Raises:
        Refused: nobody is there, or another answer than yes.
    """
    if not on_terminal():
        raise Refused(f"{what}. Nobody is there to allow it: run it in a terminal, or {instead}")
    print(f"{what}. Move it? [yes/no]", flush=True)
    said = hear() if hear else sys.stdin.readline()
    if (said or "no").strip().lower() not in ("y", "yes"):
        raise Refused("the arm was not moved")

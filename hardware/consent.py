"""Asking the person at an arm before it moves."""

from __future__ import annotations

import sys


class Refused(ValueError):
    """The person did not allow the arm to move, or nobody was there to."""


def on_terminal() -> bool:
    """Whether somebody can be asked."""
    try:
        return sys.stdin.isatty()
    except (ValueError, AttributeError):
        return False


def ask(what: str) -> None:
    """Ask in the terminal before the first motion. Raises Refused."""
    if not on_terminal():
        raise Refused(f"{what}. Nobody is there to allow it: run it in a terminal, or give --yes true")
    print(f"{what}. Move it? [yes/no]", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("the arm was not moved")

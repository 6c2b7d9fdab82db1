"""The person at the arm: says when to begin, how an episode went, and whether to go on; and the alarm, which pauses.

Lines of the terminal: s: done, f: failed, d: discard, q: quit, ENTER: go on. Where nobody can say anything, an arm that
was stopped or whose alarm is raised ends the session, and nobody scores.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..demos.arm import Quit, Words

if TYPE_CHECKING:
    from ...configs.lanes.lanes import Lanes
    from ...policies.agent.agent import Agent
    from .settings import Settings

WORDS = "s: done, f: failed, d: discard, q: quit"


class Refused(ValueError):
    """The person did not allow the arm to move, or nobody was there to."""


class Overseer:
    """Asked at every control step (`pause`) and between episodes."""

    def __init__(self, config: Settings, lanes: Lanes, agent: Agent, words: Words):
        self.config, self.lanes, self.agent, self.words = config, lanes, agent, words
        self.discarded = self.quits = self._silenced = self._told = False
        self.alarms = 0

    def allow(self, what: str) -> None:
        """Ask before the first motion. Raises Refused."""
        if self.config.yes:
            return
        if self.words.over or not _terminal():
            raise Refused(f"{what}. Nobody is there to allow it: run it in a terminal, or give --yes true")
        print(f"{what}. Move it? [yes/no]", flush=True)
        if (self._next() or "no") not in ("y", "yes"):
            raise Refused("the arm was not moved")

    def prepare(self, number: int) -> None:
        """Wait until an episode may begin. Raises Quit."""
        self.discarded = self._silenced = False
        pause = 0.0 if self.config.emulate and self.config.pause is None else self.config.pause
        if pause is None and (self.words.over or self.config.yes and not _terminal()):
            pause = 0.0
        if number == 0 and pause is None:
            return  # was just asked
        if pause is None:
            print("lay things out; ENTER begins the next episode, q quits", flush=True)
            if self._next() == "q":
                raise Quit
        elif pause and number:
            time.sleep(pause)

    def pause(self) -> bool:
        """Whether the arm is to stand now. Hears the person."""
        word = self.words.next()
        if word in ("s", "f", "d", "q"):
            self.discarded, self.quits = word in ("d", "q"), word == "q"
            self._conclude(word == "s")
        if not self._rings():
            return False
        if word == "":
            self._silenced = True
            return False
        if self.words.over or not _terminal():
            self._conclude(False)
        return True

    def _rings(self) -> bool:
        monitor = self.agent.monitor
        if not self.config.pause_on_alarm or self._silenced or monitor is None or not bool(monitor.raised[0]):
            return False
        if not self._told:
            self.alarms += 1
            print(f"the alarm is raised; the arm stands. ENTER goes on, {WORDS}", flush=True)
            self._told = True
        return True

    def begun(self) -> None:
        """An episode begins."""
        self._told = False

    def _conclude(self, success: bool) -> None:
        self.lanes.call("conclude", success, slots=[0])

    def _next(self) -> str | None:
        """The next line; None where none will come."""
        while (word := self.words.next()) is None and not self.words.over:
            time.sleep(0.02)
        return word


def _terminal() -> bool:
    import sys

    try:
        return sys.stdin.isatty()
    except (ValueError, AttributeError):
        return False

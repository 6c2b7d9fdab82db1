"""The person at the arm: says when to begin, how an episode went, and whether to go on; and the alarm, which pauses.

Lines of the terminal: s: done, f: failed, d: discard, q: quit, ENTER: go on; with a leader t: take over, p: the policy
goes on. Where nobody can say anything, an arm that
was stopped or whose alarm is raised ends the session, and nobody scores.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ...configs.progress import counted
from ...hardware.consent import ask, on_terminal
from ..demos.arm import Quit, Words

if TYPE_CHECKING:
    from ...configs.lanes.lanes import Lanes
    from ...policies.agent.agent import Agent
    from .settings import Settings
    from .takeover import TakeOver

WORDS = "s: done, f: failed, d: discard, q: quit"
OTHERS = "t: take over, p: the policy goes on"


class Overseer:
    """Asked at every control step (`pause`) and between episodes."""

    def __init__(self, config: Settings, lanes: Lanes, agent: Agent, words: Words, takeover: TakeOver | None = None):
        self.takeover, self._said = takeover, f"{WORDS}, {OTHERS}" if takeover else WORDS
        self.config, self.lanes, self.agent, self.words = config, lanes, agent, words
        self.discarded = self.quits = self.scored = self.broken = self._silenced = self._told = False
        self.alarms = self.steps = 0
        self.rate, self.length = 1.0, 0  # until `tell`

    def allow(self, what: str) -> None:
        """Ask before the first motion. Raises Refused."""
        if not self.config.yes:
            ask(what, self._next)

    def tell(self, first: int, last: int, rate: float, length: int) -> None:
        """What happens from now on, and how the person has a say."""
        self.rate, self.length = rate, length
        where = f"recorded into {self.config.out}" if self.config.out else "nothing is recorded (no --out)"
        count = max(0, last - first)
        print(
            f"{counted(count, 'episode')} of {length / rate:g} s; {where}. Lines of the terminal: {self._said}",
            flush=True,
        )

    def prepare(self, number: int) -> None:
        """Wait until an episode may begin. Raises Quit."""
        self.discarded = self.scored = self.broken = self._silenced = False
        pause = 0.0 if self.config.emulate and self.config.pause is None else self.config.pause
        if pause is None and (self.words.over or self.config.yes and not on_terminal()):
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
        self._show()
        word = self.words.next()
        if word in ("s", "f", "d", "q"):
            self.discarded, self.quits = word in ("d", "q"), word == "q"
            self.scored = word in ("s", "f")
            self._conclude(word == "s")
        if word in ("t", "p"):
            self._hand_over(word == "t")
        if self.takeover is not None and self.takeover.active or not self._rings():
            return False
        if word == "":
            self._silenced = True
            return False
        if self.words.over or not on_terminal():
            self.broken = True  # which is no score
            self._conclude(False)
        return True

    def _hand_over(self, to_person: bool) -> None:
        """The arm goes to the person or back to the policy."""
        if self.takeover is None:
            print("nobody can take over: deploy with --takeover.type so101_leader --takeover.port PORT", flush=True)
        elif to_person:
            self.takeover.take()
            self._told = False
        else:
            self.takeover.give_back()

    def _rings(self) -> bool:
        monitor = self.agent.monitor
        if not self.config.pause_on_alarm or self._silenced or monitor is None or not bool(monitor.raised[0]):
            return False
        if not self._told:
            self.alarms += 1
            print(f"the alarm is raised; the arm stands. ENTER goes on, {self._said}", flush=True)
            self._told = True
        return True

    def begun(self) -> None:
        """An episode begins."""
        self._told, self.steps = False, 0
        if self.takeover is not None:
            self.takeover.begin()

    def _show(self) -> None:
        """How far the episode is, once a second, on a terminal."""
        self.steps += 1
        if on_terminal() and self.steps % max(1, round(self.rate)) == 0:
            print(f"  {self.steps / self.rate:.0f} of {self.length / self.rate:g} s", end="\r", flush=True)

    def _conclude(self, success: bool) -> None:
        self.lanes.call("conclude", success, slots=[0])

    def _next(self) -> str | None:
        """The next line; None where none will come."""
        while (word := self.words.next()) is None and not self.words.over:
            time.sleep(0.02)
        return word

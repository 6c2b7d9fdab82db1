"""The verb `twin`: its first word says what to do, and whose flags follow."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar

from ...configs.plugins import lookup

ROOT = __package__.rsplit(".", 2)[0]
ACTIONS = {  # word -> (module of ours: class, one line of help)
    "build": ("hardware.twin.build:Build", "bodies that carry Gaussians, cameras and backgrounds, of a world or MJCF"),
    "calibrate": ("hardware.twin.calibration.calibrate:Calibrate", "a camera's lens and place, from a printed board"),
    "identify": ("hardware.twin.calibration.identify:Identify", "friction, damping, mass from recorded pushes"),
    "run": ("eval.twin.run:TwinRun", "act in a twin that an arm or a stand-in follows; tracking, lag, deadlines"),
}


@dataclass(frozen=True, kw_only=True)
class TwinVerb:
    """The digital twin of a scene; `understudy twin ACTION --help` shows the flags."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("action",)

    action: str = ""  # one of those listed above; none: list them

    @classmethod
    def choose(cls, words: list[str]) -> tuple[type, str]:
        """Take the action off the words. Returns whose settings the others are, and the action.

        Raises:
            LookupError: no such action, naming the known ones.
        """
        if not words or words[0].startswith("-"):
            return cls, ""
        action = words.pop(0)
        module, name = lookup("action of twin", action, ACTIONS)[0].split(":")
        return getattr(import_module(f"{ROOT}.{module}"), name), action

    def run(self) -> None:
        print(_listed())


def _listed() -> str:
    width = max(map(len, ACTIONS))
    return "\n".join(f"  {name:<{width}} {line}" for name, (_, line) in ACTIONS.items())


TwinVerb.__doc__ = f"{TwinVerb.__doc__}\n\n{_listed()}"  # the help of the verb

"""The verb `twin`: its first word says what to do, and whose flags follow."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar

from ...configs.plugins import lookup

ACTIONS = {  # word -> (module of this room: class, one line of help)
    "build": ("build:Build", "bodies that carry Gaussians, cameras and a background, from a world or an MJCF file"),
    "calibrate": ("calibrate:Calibrate", "a camera: its lens and its place, from pictures of a printed board"),
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
        return getattr(import_module(f".{module}", __package__), name), action

    def run(self) -> None:
        print(_listed())


def _listed() -> str:
    width = max(map(len, ACTIONS))
    return "\n".join(f"  {name:<{width}} {line}" for name, (_, line) in ACTIONS.items())


TwinVerb.__doc__ = f"{TwinVerb.__doc__}\n\n{_listed()}"  # the help of the verb

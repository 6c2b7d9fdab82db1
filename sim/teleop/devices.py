"""Keyboard and gamepad through pygame (which comes with gym-pusht): a window with the scene, keys and sticks.

The keyboard needs a display, because keys go to the window that has the focus; a gamepad works without one, unseen.
"""

from __future__ import annotations

import os
import sys

import numpy as np

from .teleop import AXES, DISCARD, QUIT, SUCCESS, Command, pressed, register_teleoperator, with_gripper

SIDE = 640  # px, longer side of the window's picture
KEYS = {  # pygame's name of a key -> (axis, direction)
    "right": (0, 1.0),
    "left": (0, -1.0),
    "up": (1, 1.0),
    "down": (1, -1.0),
    "r": (2, 1.0),
    "f": (2, -1.0),
    "u": (3, 1.0),
    "j": (3, -1.0),
    "i": (4, 1.0),
    "k": (4, -1.0),
    "o": (5, 1.0),
    "l": (5, -1.0),
}
SLOW, SLOWLY = "left shift", 0.3
VERDICTS = {"return": SUCCESS, "backspace": DISCARD, "escape": QUIT}
HELP = (
    "arrows x y, r f z, u j / i k / o l turn, space gripper, shift slow; return: done, backspace: discard, escape: quit"
)
BUTTONS = {7: SUCCESS, 6: DISCARD, 1: QUIT}  # of an Xbox-like gamepad: start, back, B
GRIP = 0  # A
STICKS = {0: (0, 1.0), 1: (1, -1.0), 4: (2, -1.0), 3: (5, -1.0)}  # stick axis -> (axis, direction)
DEAD = 0.15  # part of a stick's way that is rest


class _Window:
    """A pygame window with the scene; keys that went down since the last look."""

    def __init__(self):
        import pygame

        pygame.init()
        self._game, self._screen = pygame, None

    def show(self, picture: np.ndarray, caption: str) -> None:
        if not displayed():
            return
        game = self._game
        scale = SIDE / max(picture.shape[:2])
        size = tuple(round(side * scale) for side in picture.shape[1::-1])
        if self._screen is None:
            self._screen = game.display.set_mode(size)
        game.display.set_caption(caption)
        surface = game.image.frombuffer(np.ascontiguousarray(picture).tobytes(), picture.shape[1::-1], "RGB")
        self._screen.blit(game.transform.smoothscale(surface, size), (0, 0))
        game.display.flip()

    def downs(self) -> list[object]:
        """Events since the last look."""
        return self._game.event.get()

    def close(self) -> None:
        self._game.quit()


@register_teleoperator("keyboard")
class Keyboard:
    """Keys held down move, others say how it went.

    Raises:
        OSError: there is no display.
    """

    def __init__(self, window: _Window | None = None):
        if window is None and not displayed():
            raise OSError(
                "no display: the keyboard is read through a window. Run this where DISPLAY or WAYLAND_DISPLAY is set, "
                "or use --by gamepad"
            )
        self._window, self._held, self._closed = window or _Window(), set(), False

    def show(self, picture: np.ndarray, caption: str) -> None:
        self._window.show(picture, f"{caption}   {HELP}")

    def read(self) -> Command:
        import pygame

        verdict = ""
        for event in self._window.downs():
            if event.type == pygame.QUIT:
                verdict = QUIT
            elif event.type == pygame.KEYDOWN:
                name = pygame.key.name(event.key)
                self._held.add(name)
                self._closed ^= name == "space"
                verdict = VERDICTS.get(name, verdict)
            elif event.type == pygame.KEYUP:
                self._held.discard(pygame.key.name(event.key))

        factor = SLOWLY if SLOW in self._held else 1.0
        axes = tuple(factor * value for value in pressed(KEYS, self._held))
        return Command(with_gripper(axes, self._closed), verdict)

    def close(self) -> None:
        self._window.close()


@register_teleoperator("gamepad")
class Gamepad:
    """Left stick x and y, right stick z and yaw, A the gripper; start: done, back: discard, B: quit.

    Raises:
        OSError: no gamepad is connected.
    """

    def __init__(self, window: _Window | None = None, pad: object | None = None):
        self._window, self._pad, self._closed = window or _Window(), pad or _first_pad(), False
        if not displayed():
            print("no display: the scene is not shown", file=sys.stderr)

    def show(self, picture: np.ndarray, caption: str) -> None:
        self._window.show(picture, caption)

    def read(self) -> Command:
        import pygame

        verdict = ""
        for event in self._window.downs():
            if event.type == pygame.QUIT:
                verdict = QUIT
            elif event.type == pygame.JOYBUTTONDOWN:
                self._closed ^= event.button == GRIP
                verdict = BUTTONS.get(event.button, verdict)

        axes = [0.0] * len(AXES)
        for stick, (axis, direction) in STICKS.items():
            value = self._pad.get_axis(stick) if stick < self._pad.get_numaxes() else 0.0
            axes[axis] = direction * np.sign(value) * max(0.0, abs(value) - DEAD) / (1 - DEAD)
        return Command(with_gripper(tuple(float(value) for value in axes), self._closed), verdict)

    def close(self) -> None:
        self._window.close()


def displayed() -> bool:
    """Whether a window can be opened here."""
    if os.environ.get("SDL_VIDEODRIVER") == "dummy":
        return False
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _first_pad():
    import pygame

    pygame.joystick.init()
    if not pygame.joystick.get_count():
        raise OSError("no gamepad found: connect one, or use --by keyboard")
    return pygame.joystick.Joystick(0)

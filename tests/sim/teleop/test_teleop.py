"""A person drives: axes to actions, verdicts that end episodes, devices, and the dataset that comes of it."""

import dataclasses

import numpy as np
import pygame
import pytest

from understudy.configs.spec import Embodiment, Mode
from understudy.configs.world import find_world
from understudy.eval.demos.demos import Demos
from understudy.eval.demos.person import teleoperate
from understudy.policies.data.open import open_dataset
from understudy.sim.teleop import devices as teleop_devices
from understudy.sim.teleop.devices import Gamepad, Keyboard
from understudy.sim.teleop.teleop import (
    AXES,
    DISCARD,
    QUIT,
    SUCCESS,
    Command,
    Script,
    Steering,
    conducted,
    register_teleoperator,
)

IDLE, RIGHT = Command(), Command((1.0, *(0.0,) * 6))
DONE, AWAY = Command(verdict=SUCCESS), Command(verdict=DISCARD)


def axes(**values) -> tuple[float, ...]:
    return tuple(values.get(name, 0.0) for name in AXES)


def test_steering_by_name_and_in_order():
    steering = Steering(find_world("lift").embodiment())
    assert steering.action(axes(x=1, rz=-0.5, gripper=-1)).tolist() == [1, 0, 0, 0, 0, -0.5, -1]
    joints = Embodiment(
        name="arm",
        action=("shoulder", "elbow", "gripper"),
        action_units=("rad",) * 3,
        limits=((-1, 1), (-2, 2), (0, 1)),
        rate=10,
    )
    arm = Steering(joints)
    arm.begin(np.array([0.5, 0, 0]))
    assert np.allclose(arm.action(axes(y=1, gripper=1)), [0.5, 0.35 * 4 / 10, 0.035])
    for _ in range(100):
        held = arm.action(axes(x=1, y=-1, gripper=1))
    assert held.tolist() == [1, -2, 1], "a target stops at the limits"


def test_up_is_up_in_pixels():
    steering = Steering(find_world("pusht").embodiment())
    steering.begin(np.array([100.0, 100.0]))
    x, y = steering.action(axes(x=1, y=1))
    assert x > 100 > y and np.isclose(x - 100, 0.35 * 512 / 10)


def test_what_cannot_be_driven_is_refused():
    body = find_world("point").embodiment()
    many = tuple(f"j{number}" for number in range(9))
    with pytest.raises(ValueError, match="9 actions; 7 can be driven"):
        Steering(dataclasses.replace(body, action=many, action_units=("1",) * 9, limits=((-1, 1),) * 9))
    with pytest.raises(ValueError, match="absolute 6-D rotations"):
        Steering(dataclasses.replace(body, mode=Mode.absolute, rotation="6d"))
    with pytest.raises(ValueError, match="registered already"):
        register_teleoperator("keyboard")(Script)


def test_a_verdict_ends_the_episode_and_is_its_outcome():
    lane = conducted(find_world("point"), horizon=9).lane()
    for success in (True, False):
        lane.reset(seed=1)
        assert lane.step(np.zeros(2))[2:4] == (False, False)
        lane.conclude(success)
        _, _, terminated, truncated, info = lane.step(np.zeros(2))
        assert (terminated, truncated, info["success"]) == (success, not success, success)
        assert (info["progress"] == 1) == success
    lane.close()


def demos(tmp_path, commands, **changes):
    config = Demos(task="point", episodes=5, out=str(tmp_path / "data"), by="keyboard", **changes)
    device, waited = Script(commands), []
    written = teleoperate(config, device, waited.append)
    return written, device, waited, tmp_path / "data"


def test_episodes_are_kept_discarded_and_ended_by_hand(tmp_path, capsys):
    commands = [IDLE, IDLE, *[RIGHT] * 5, DONE, *[RIGHT] * 3, AWAY, *[RIGHT] * 4, DONE, RIGHT, Command(verdict=QUIT)]
    written, device, waited, out = demos(tmp_path, commands)
    assert written == 2 and device.closed and device.shown == 19 and "2 kept" in device.last[1]
    assert device.last[0].shape == (256, 256, 3)
    assert waited[:2] == [1 / 30] * 2 and all(pause >= 0 for pause in waited[2:])
    data = open_dataset(out, columns=("next.success",))
    assert data.lengths.tolist() == [6, 5] and data.embodiment.name == "point"
    assert np.flatnonzero(data.columns["next.success"]).tolist() == [5, 10]
    text = capsys.readouterr().out
    assert "env seed 100000: 6 steps, kept" in text and "env seed 100001: 4 steps, not kept" in text
    assert "2 episodes of 3" in text


def test_nothing_kept_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="no episode of 1 was kept"):
        demos(tmp_path, [RIGHT, AWAY])
    assert not (tmp_path / "data").exists()


def test_a_failure_is_kept_where_asked_but_not_what_was_discarded(tmp_path):
    written, *_ = demos(
        tmp_path, [*[RIGHT] * 8, RIGHT, AWAY], keep_failures=True, world={"type": "point", "horizon": 8}
    )
    assert written == 1


class Events:
    """Stands for a window: events by control step."""

    def __init__(self, *steps):
        self.steps = list(steps)

    def downs(self):
        return self.steps.pop(0)

    def close(self):
        pass


def key(name: str, down: bool = True):
    return pygame.event.Event(pygame.KEYDOWN if down else pygame.KEYUP, key=pygame.key.key_code(name))


def test_the_keyboard():
    pygame.display.init()
    keyboard = Keyboard(
        Events(
            [key("right"), key("r")],
            [key("right", False), key("left shift"), key("space")],
            [key("left shift", False), key("r", False), key("up"), key("down"), key("space")],
            [key("return")],
            [pygame.event.Event(pygame.QUIT)],
        )
    )
    assert keyboard.read() == Command(axes(x=1, z=1, gripper=-1))
    assert keyboard.read() == Command(axes(z=0.3, gripper=1))
    assert keyboard.read() == Command(axes(gripper=-1)), "opposite keys cancel"
    assert keyboard.read().verdict == SUCCESS and keyboard.read().verdict == QUIT


def test_the_gamepad():
    class Pad:
        sticks = [0.1, -1.0, 0.0, 0.575]

        def get_numaxes(self):
            return 4

        def get_axis(self, number):
            return self.sticks[number]

    start = pygame.event.Event(pygame.JOYBUTTONDOWN, button=7)
    grip = pygame.event.Event(pygame.JOYBUTTONDOWN, button=0)
    gamepad = Gamepad(Events([grip], [start]), Pad())
    first = gamepad.read()
    assert np.allclose(first.axes, axes(y=1, rz=-0.5, gripper=1)) and not first.verdict
    assert gamepad.read().verdict == SUCCESS and not first.idle and Command(axes(gripper=1)).idle


def test_without_a_display_or_a_gamepad_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with pytest.raises(OSError, match="no display: the keyboard is read through a window"):
        Demos(task="point", out=str(tmp_path / "data"), by="keyboard").run()
    monkeypatch.setattr(pygame.joystick, "get_count", lambda: 0)
    with pytest.raises(OSError, match="no gamepad found"):
        Demos(task="point", out=str(tmp_path / "data"), by="gamepad").run()
    with pytest.raises(LookupError, match="unknown teleoperator 'keybord'. Did you mean 'keyboard'"):
        Demos(task="point", out=str(tmp_path / "data"), by="keybord").run()
    assert not (tmp_path / "data").exists()


def test_the_window_draws(monkeypatch):
    monkeypatch.setattr(teleop_devices, "displayed", lambda: True)
    keyboard = Keyboard()  # SDL draws into memory
    keyboard.show(np.full((32, 64, 3), 90, np.uint8), "scene")
    surface = pygame.display.get_surface()
    assert surface.get_size() == (640, 320) and surface.get_at((5, 5))[:3] == (90, 90, 90)
    keyboard.close()

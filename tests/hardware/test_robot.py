"""The robot's protocol: four verbs and an embodiment."""

import numpy as np
import pytest

from understudy.configs.spec import Embodiment
from understudy.eval.contracts import BrokenContract, check_robot
from understudy.hardware.robot import Robot, RobotConfig


class Arm:
    """One joint that goes where it is told, within its limits."""

    embodiment = Embodiment(
        name="one joint",
        action=("joint",),
        action_units=("rad",),
        limits=((-1.0, 1.0),),
        rate=50.0,
        state=("joint",),
        state_units=("rad",),
    )

    def connect(self) -> None:
        self.position = np.zeros(1, np.float32)

    def get_observation(self):
        return {"observation.state": self.position.copy()}

    def send_action(self, action):
        self.position = np.clip(action, -1, 1).astype(np.float32)
        return self.position.copy()

    def disconnect(self) -> None:
        self.position = None


def config_of(robot):
    """A config of a class that `RobotConfig` knows under a name of its own."""
    from dataclasses import dataclass

    @dataclass(frozen=True, kw_only=True)
    class Config(RobotConfig):
        def build(self):
            return robot()

    name = f"test-{robot.__name__}"
    RobotConfig._choice_registry.pop(name, None)
    RobotConfig.register_subclass(name, Config)
    return Config()


@pytest.fixture(autouse=True)
def forget():
    yield
    for name in [name for name in RobotConfig.get_known_choices() if name.startswith("test-")]:
        del RobotConfig._choice_registry[name]


def test_four_verbs_and_an_embodiment_make_a_robot():
    assert isinstance(Arm(), Robot)
    check_robot(config_of(Arm))


def test_a_robot_without_disconnect_is_none():
    class Stuck(Arm):
        disconnect = None

    assert not isinstance(object(), Robot)
    with pytest.raises((BrokenContract, TypeError)):
        check_robot(config_of(Stuck))


def test_a_robot_that_hides_a_sensor_is_named():
    class Blind(Arm):
        def get_observation(self):
            return {}

    with pytest.raises(BrokenContract, match="observation has keys"):
        check_robot(config_of(Blind))


def test_a_robot_that_says_it_sent_doubles_is_named():
    class Loose(Arm):
        def send_action(self, action):
            return np.asarray(action, np.float64)

    with pytest.raises(BrokenContract, match="float64, not float32"):
        check_robot(config_of(Loose))

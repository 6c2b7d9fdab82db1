"""The settings of a robot: what could not mean what it says is refused by name, before anything moves."""

import dataclasses
import math

import pytest

from understudy.configs.spec import Embodiment
from understudy.hardware.envelope import Envelope, envelope_of
from understudy.hardware.robot import RobotConfig
from understudy.hardware.so101 import ENVELOPE, SO101Config

BODY = Embodiment(
    name="two joints",
    action=("turn", "slide"),
    action_units=("rad", "m"),
    limits=((-1.0, 1.0), (0.0, 0.1)),
    rate=30.0,
)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"speed": 1.0}, "an envelope has no 'speed'; it has limits, velocity"),
        ({"velocity": 0.0}, "velocity of an envelope must be positive"),
        ({"velocity": [1.0, -1.0]}, "velocity of an envelope must be positive"),
        ({"velocity": math.nan}, "velocity of an envelope: nan is no number"),
        ({"jerk": math.inf}, "jerk of an envelope: inf is no number"),
        ({"jerk": "1e3"}, "write 1000.0"),
        ({"torque": math.nan}, "torque of an envelope: nan is no number"),
        ({"torque": 0}, "torque of an envelope must be positive"),
        ({"torque": [2.0, -2.0]}, "torque of an envelope must be positive"),
        ({"lag": [0.3, 0.3]}, "lag of an envelope: .* is no number"),
        ({"velocity": {"turn": 1.0}}, "velocity of an envelope: .* is no number"),
        ({"silence": math.inf}, "silence of an envelope: inf is no number"),
        ({"clearance": math.nan}, "clearance of an envelope: nan is no number"),
        ({"retries": -1}, "retries of an envelope must not be negative"),
        ({"retries": True}, "retries of an envelope: True is no number"),
    ],
)
def test_an_envelope_that_could_bound_nothing_is_refused_with_the_settings(settings, said):
    with pytest.raises(ValueError, match=said):
        RobotConfig(envelope=settings)
    with pytest.raises(ValueError, match=said):
        envelope_of(settings, BODY)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"velocity": [1.0, 1.0, 1.0]}, "velocity of an envelope: 3 numbers for 2 joints"),
        ({"torque": [1.0]}, "torque of an envelope: 1 numbers for 2 joints"),
        ({"velocity": [126.0, 1.0]}, r"126 rad/s for turn bounds nothing; in degrees/s it would be 2\.2"),
        ({"limits": [[1.0, -1.0], [0.0, 0.1]]}, "limits of turn are not low < high"),
        ({"limits": [[-1.0, math.nan], [0.0, 0.1]]}, "limits of turn are not low < high"),
        ({"limits": [[-90, 90], [0.0, 0.1]]}, "limits of turn: -90 .. 90 rad reach beyond .* degrees are not meant"),
        ({"limits": [[-1.0, 1.0], [0.0, 0.2]]}, "limits of slide: 0 .. 0.2 m reach beyond its own"),
        ({"limits": [[-1.0, 1.0]]}, "limits of an envelope: 1 for the joints turn, slide"),
    ],
)
def test_an_envelope_that_is_not_of_this_arm_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        envelope_of(settings, BODY)


def test_what_means_something_is_taken():
    assert envelope_of({"limits": [[-0.5, 0.5], [0.0, 0.05]]}, BODY).limits[0] == [-0.5, 0.5]
    assert envelope_of({"torque": None, "clearance": 0, "retries": 0, "velocity": [1, 2]}, BODY).torque is None
    assert isinstance(envelope_of(ENVELOPE, dataclasses.replace(BODY, **SIX)), Envelope)


SIX = {"action": tuple("abcdef"), "action_units": ("rad",) * 6, "limits": ((-1.0, 1.0),) * 6}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"box_low": [0.3, -0.4, 0.0], "box_high": [-0.3, 0.4, 0.5]}, "box_low .* is not below box_high"),
        ({"box_high": [400, 400, 500]}, "box_high: .* is no place in m"),
        ({"box_high": [0.4, 0.4]}, "box_high: .* is no x, y, z"),
        ({"table": math.nan}, "table: nan is no place in m"),
        ({"table": "low"}, "table: 'low' is no place in m"),
        ({"estop": 7}, "estop: 7 is no file"),
        ({"estop": ""}, "estop: '' is no file"),
    ],
)
def test_surroundings_that_are_none_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        RobotConfig(**settings)


@pytest.mark.parametrize("rate", [0, -30.0, math.nan, math.inf, "fast", None])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="no number of commands a second"):
        SO101Config(port="/dev/none", rate=rate)


def test_an_emergency_stop_in_the_home_folder_is_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RobotConfig(estop="~/stop").stop_file == tmp_path / "stop"
    assert RobotConfig(estop="$HOME/stop").stop_file == tmp_path / "stop"


@pytest.mark.parametrize("camera", [0, {"width": 640}, {"index": 0, "type": "opencv"}])
def test_a_camera_that_is_none_is_refused_by_name(camera):
    with pytest.raises(ValueError, match="camera 'front': .*index is needed"):
        SO101Config(port="/dev/none", camera={"front": camera})

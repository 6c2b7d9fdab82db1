"""The robot's protocol: a driver behind the guard."""

import time
from dataclasses import dataclass

import numpy as np
import pytest

from understudy.configs.spec import STATE, Embodiment
from understudy.eval.contracts import BrokenContract, check_robot
from understudy.hardware.guard import Measured, Outcome
from understudy.hardware.guarded import open_robot
from understudy.hardware.robot import Robot, RobotConfig
from understudy.hardware.session import Session


class Joint:
    """One joint that is where it was sent."""

    body = None
    embodiment = Embodiment(
        name="one joint",
        action=("joint",),
        action_units=("rad",),
        limits=((-1.0, 1.0),),
        rate=50.0,
        state=("joint",),
        state_units=("rad",),
    )

    def connect(self):
        self.position, self.held, self.closed = np.zeros(1), False, False

    def measure(self, loads):
        return Measured(position=self.position.copy(), time=time.monotonic())

    def write(self, goal):
        self.position = np.array(goal)

    def hold(self):
        self.held = True

    def relax(self):
        self.held = False

    def close(self):
        self.closed = True


@dataclass(frozen=True, kw_only=True)
class JointConfig(RobotConfig):
    def driver(self):
        return Joint()


@pytest.fixture
def registered(monkeypatch):
    """The config under a name, and this module where a process of its own finds it."""
    RobotConfig.register_subclass("test-joint", JointConfig)
    yield JointConfig
    del RobotConfig._choice_registry["test-joint"]


def test_a_session_moves_and_lets_go():
    from understudy.hardware.guard import Command

    session = Session(JointConfig())
    session.open()
    assert session.driver.held
    for number in range(30):
        time.sleep(0.011)
        verdict = session.command(Command(target=np.full(1, 0.3), time=time.monotonic(), number=number))
    assert verdict.outcome is Outcome.bent and 0 < session.driver.position[0] < 0.3
    session.close()
    assert not session.driver.held and session.driver.closed and session.guard.rests


def test_the_guard_is_told_loads_whoever_else_reads(monkeypatch):
    """A reading of an arm's camera loop, which the guard takes for too old, is not the one that told them."""
    from understudy.hardware.guard import Command

    def measure(joint, loads):
        return Measured(position=joint.position.copy(), time=time.monotonic(), torque=np.zeros(1) if loads else None)

    monkeypatch.setattr(Joint, "measure", measure)
    session, heard = Session(JointConfig()), []
    session.open()
    step = session.guard.step
    monkeypatch.setattr(session.guard, "step", lambda *told: heard.append(told[0].torque is not None) or step(*told))
    for number in range(16):
        session.observe()
        if number == 8:
            session.observe()  # one more
        time.sleep(0.6 / Joint.embodiment.rate)
        session.command(Command(target=np.zeros(1), time=time.monotonic(), number=number))
    session.close()
    assert 2 <= sum(heard[:8]) <= 3 and 2 <= sum(heard[8:16]) <= 3


def test_what_the_bus_did_not_take_is_not_told_as_sent(monkeypatch):
    from understudy.hardware.guard import Command

    session = Session(JointConfig())
    session.open()

    def command(number):
        time.sleep(0.011)
        return session.command(Command(target=np.full(1, 0.3), time=time.monotonic(), number=number))

    before = [command(number) for number in range(10)][-1]

    def fail(goal):
        raise ConnectionError("the line is full")

    monkeypatch.setattr(session.driver, "write", fail)
    lost = command(10)
    assert lost.outcome is Outcome.bent and "it was not written: the line is full" in str(lost)
    assert lost.sent == before.sent == session.driver.position and np.isnan(lost.written)
    monkeypatch.undo()
    after = command(11)
    assert after.sent > before.sent and after.written > 0
    session.close()


def test_a_rate_at_which_the_arm_would_only_creep_is_refused():
    import dataclasses

    class Slow(Joint):
        embodiment = dataclasses.replace(Joint.embodiment, rate=4.0)

    class SlowConfig(JointConfig):
        def driver(self):
            return Slow()

    with pytest.raises(ValueError, match="each would come after a silence of 0.2 s.* such as 0.5"):
        Session(SlowConfig()).open()
    session = Session(SlowConfig(envelope={"silence": 0.5}))
    session.open()
    session.close()


def test_a_robot_that_is_not_connected_says_so():
    with pytest.raises(ConnectionError, match="call connect first"):
        open_robot(JointConfig()).send_action(np.zeros(1))
    open_robot(JointConfig()).disconnect()


def test_only_the_guard_calls_a_driver():
    """No module of the product but `session.py` opens a driver."""
    import ast
    from pathlib import Path

    import understudy

    root = Path(understudy.__file__).parent
    callers = set()
    for folder in ("hardware", "eval", "policies", "sim", "configs"):
        for file in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "driver":
                    callers.add(file.name)
    assert callers == {"session.py", "robot.py"}  # the latter to describe it, unopened


def test_an_embodiment_and_four_verbs_make_a_robot():
    robot = open_robot(JointConfig())
    assert not hasattr(robot, "embodiment")  # known once it is connected
    robot.embodiment = Joint.embodiment
    assert isinstance(robot, Robot) and not isinstance(object(), Robot)
    assert callable(check_robot) and issubclass(BrokenContract, Exception) and STATE

"""The verb `replay`: a recorded episode again, on an arm or in a world.

Its actions first go through a guard that moves nothing, and what that would bend is said; then, with a robot, through
the guard in front of it. On the arm the first pose is approached slowly, then one action follows a step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..configs.documents import read_object
from ..configs.progress import counted
from ..configs.spec import ACTION, STATE, Embodiment
from ..policies.data.dataset import Dataset
from ..policies.data.layout import DatasetError
from ..policies.data.open import open_dataset
from ..policies.data.pace import pace_warning
from ..policies.data.writer import DOCUMENTS, ENV_SEED, EPISODES, FORMER_ENV_SEED
from ..sim.arms import find_arm
from .bends import Bends
from .consent import ask
from .envelope import envelope_of
from .examine import refuse_unready
from .guard import Command, Guard, Measured, Outcome
from .guarded import Account, GuardedRobot, open_robot
from .lerobot import MODELS
from .motion.clearance import Clearance
from .open import check_robot, robot_config
from .robot import RobotConfig

REACHED = 0.02  # rad, of the first pose
PATIENCE = 20.0  # s to reach it
FEW, MOST = 0.05, 0.5  # parts of the actions that may be late: without a remark, and without an error
UNITS = ("", "degrees")
ALIKE = MODELS | {"so_follower": "so101"}  # what lerobot calls an arm -> the arm
OF_ROBOTS = ("port", "calibration", "units", "dry_run", "yes")  # settings that a world has no use for


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Act a recorded episode again: on a robot, behind its guard, or in a world."""

    RENAMED: ClassVar[dict[str, str]] = {"dry": "dry_run", "episodes": "episode"}  # as other verbs call them
    POSITIONALS: ClassVar[tuple[str, ...]] = ("data",)
    DISCOVER: ClassVar[tuple[str, ...]] = ("sim", "hardware")

    data: str  # LeRobotDataset folder or hub id
    episode: int = 0  # which of its episodes
    robot: dict | str | None = None  # one of ours or lerobot's, a YAML file, or its keys (--robot.type NAME)
    port: str | None = None  # of the robot, such as /dev/ttyACM0
    calibration: str | None = None  # lerobot's calibration file of the robot; default: its usual place
    world: str | None = None  # a world instead, such as so101-reach
    env_seed: int | None = None  # with world: of its initial condition; default: the one that the episode began from
    units: str = ""  # what the actions are where the data do not say: degrees (lerobot's, gripper 0..100)
    dry_run: bool = False  # of a robot: only say what the guard would do
    yes: bool = False  # do not ask before the robot moves

    def __post_init__(self) -> None:
        if self.units not in UNITS:
            raise ValueError(f"units: '{self.units}' is not degrees")
        if (self.robot is None) == (self.world is None):
            raise ValueError("replay where? Give --robot NAME --port PORT, or --world NAME")
        other, ignored = ("world", ("env_seed",)) if self.world is None else ("robot", OF_ROBOTS)
        for flag in ignored:
            if getattr(self, flag) != getattr(Replay, flag):
                raise ValueError(f"{flag}: that is for a {other}; leave it out")

    def check_names(self) -> None:
        """Refuse a robot that is not there, before data are read and simulators imported."""
        check_robot(self.robot)

    def run(self) -> None:
        dataset = open_dataset(self.data, episodes=str(self.episode))
        actions, body = np.asarray(dataset.columns[ACTION], float), dataset.embodiment
        print(
            f"episode {self.episode} of {self.data}, {counted(len(actions), 'action')} at {dataset.rate:g} Hz, by "
            f"its '{ACTION}'"
        )
        if pace := pace_warning(dataset):
            print(f"warning: {pace}")
        if self.world is not None:
            print(replay_in_world(self.world, actions, body, self._start(dataset)))
            return
        assert self.robot is not None
        config = robot_config(self.robot, self.port, self.calibration)
        rate = dataset.rate
        config = _at_rate(config, rate)
        driver_body, model = _known(config)
        actions = in_si(actions, body, driver_body, self.units)
        for remark in recorded_otherwise(dataset, config, driver_body):
            print(f"warning: {remark}")
        account, bends = rehearse(config, driver_body, model, actions)
        print(
            f"dry run: {counted(len(actions), 'action')} at {rate:g} Hz, "
            f"{account if 'stopped' in account.outcomes else bends}"
        )
        print("\n".join([*bends.lines(), *bends.advice()]))
        if "stopped" in account.outcomes:
            raise ValueError("the guard would stop this episode: it is not replayed")
        if self.dry_run:
            return
        refuse_unready(config)
        if not self.yes:
            ask(f"episode {self.episode} of {self.data} is about to move {driver_body.name}")
        robot, done = open_robot(config), None
        try:
            robot.connect()
            print(
                f"moving: first slowly to where it begins, then {len(actions) / rate:.1f} s; Ctrl-C lets go", flush=True
            )
            done = replay_on(robot, actions)
            print(done)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("interrupted; the arm was braked and let go") from stop
        finally:
            robot.disconnect()
        done.refuse_late()

    def _start(self, dataset: Dataset) -> int:
        """The env seed to begin from; says where it comes from."""
        if self.env_seed is not None:
            return self.env_seed
        recorded = recorded_start(dataset)
        if recorded is None:
            print("the data do not say from which env seed the episode began: 0 is taken; --env_seed N gives another")
            return 0
        print(f"env seed {recorded}, from which the episode was recorded")
        return recorded


def recorded_start(dataset: Dataset) -> int | None:
    """The env seed of the one episode of a dataset; None where it says none."""
    import pyarrow.parquet

    path, episode = dataset.root / EPISODES, int(dataset.episode_ids[0])
    if not path.is_file():
        return None
    held = pyarrow.parquet.read_schema(path).names
    column = next((name for name in (ENV_SEED, FORMER_ENV_SEED) if name in held), None)
    if column is None:
        return None
    table = pyarrow.parquet.read_table(path, columns=["episode_index", column])
    return dict(zip(*(table[name].to_pylist() for name in table.column_names), strict=True)).get(episode)


def _at_rate(config: RobotConfig, rate: float) -> RobotConfig:
    import dataclasses

    if any(field.name == "rate" for field in dataclasses.fields(config)):
        changed: dict[str, Any] = {"rate": rate}
        return dataclasses.replace(config, **changed)
    return config


def _known(config: RobotConfig) -> tuple[Embodiment, str | None]:
    """What a robot is, without opening it."""
    described = config.describe()
    return described.embodiment, described.body


def recorded_otherwise(dataset: Dataset, config: RobotConfig, robot: Embodiment) -> Iterator[str]:
    """What the person at the arm should know: another arm recorded this, or this one with another calibration."""
    name, place = dataset.embodiment.name, dataset.root.name  # which stands in where nobody says a name
    if name not in ("unnamed", place) and ALIKE.get(name, name) != ALIKE.get(robot.name, robot.name):
        yield f"'{name}' recorded this, and '{robot.name}' is to move: the same angles may lead elsewhere"
    card = dataset.root / DOCUMENTS[0]
    recorded = read_object(card, DatasetError).get("robot") if card.is_file() else None
    told = recorded if isinstance(recorded, dict) else {}
    then, now = (one.get("calibration") or {} for one in (told, config.settled()))
    if moved := [joint for joint in then if joint in now and then[joint] != now[joint]]:
        yield (
            f"{', '.join(moved)}: calibrated otherwise since the recording; an angle is counted from the middle of a "
            "joint's range, so the arm may stand elsewhere than recorded"
        )


def in_si(actions: np.ndarray, body: Embodiment, robot: Embodiment, units: str) -> np.ndarray:
    """(T, D) actions of a dataset in the units and the order of a robot's.

    Raises:
        ValueError: other joints, units that nobody states or that `units` contradicts, or actions that are no targets
            of the robot's joints.
    """
    names = tuple(name.removesuffix(".pos") for name in body.action)
    if names != robot.action:
        raise ValueError(f"the data move {', '.join(names)}; '{robot.name}' has {', '.join(robot.action)}")
    for part in ("mode", "frame", "rotation"):
        recorded, taken = (str(getattr(getattr(one, part), "value", getattr(one, part))) for one in (body, robot))
        if body.states(part) and recorded != taken:
            raise ValueError(
                f"the data's actions have {part} '{recorded}', '{robot.name}' takes '{taken}': as they are they would "
                "mean another motion"
            )
    if units == "degrees" and not body.unknown_units and body.action_units == robot.action_units:
        said = ", ".join(dict.fromkeys(body.action_units))
        raise ValueError(f"the data say that their actions are in [{said}]; leave --units degrees out")
    if units == "degrees":
        return find_arm(robot.name).from_lerobot(np.array(actions))
    if body.action_units != robot.action_units:
        said = ", ".join(dict.fromkeys(body.action_units))
        raise ValueError(
            f"the data's actions are in [{said}], the robot's in [{', '.join(dict.fromkeys(robot.action_units))}]: "
            "say --units degrees if lerobot recorded them with use_degrees; percent cannot be undone without that arm"
        )
    return actions


def rehearse(config: RobotConfig, body: Embodiment, model: str | None, actions: np.ndarray) -> tuple[Account, Bends]:
    """What a guard that moves nothing makes of (T, D) actions, from the first of them on, and by which limits."""
    clearance = Clearance(find_arm(model), config.surroundings) if model else None
    envelope = envelope_of(config.envelope, body)
    guard = Guard(body.action, envelope, body.rate, clearance, body.action_units)
    low, high = np.array(body.limits).T
    pose, account, now = np.clip(actions[0], low, high), Account(), 0.0
    bends = Bends(body.action, guard.envelope, body.rate, body.action_units)
    guard.engage(Measured(position=pose, time=now), now)
    for number, action in enumerate(actions):
        now += guard.step_length
        verdict = guard.step(Measured(position=pose, time=now), Command(target=action, time=now, number=number), now)
        pose = verdict.sent
        account.add(verdict)
        bends.add(verdict, action)
    return account, bends


@dataclass(frozen=True)
class Replayed:
    """What an arm made of T actions: what was sent and where it was just before the next one, (T, D) each."""

    sent: np.ndarray
    positions: np.ndarray
    joints: tuple[str, ...]
    units: tuple[str, ...]  # of the joints
    account: Account
    after: np.ndarray  # (T,) s after its time that each action was sent and answered
    step: float  # s
    seconds: float

    @property
    def late(self) -> int:
        """Actions that were sent after the time of the next one."""
        return int((self.after > self.step).sum())

    def refuse_late(self) -> None:
        """Raise ValueError: most actions came late, so this was not the recorded motion. It is said of fewer, too."""
        if self.late > MOST * len(self.sent):
            raise ValueError(
                f"{self.late} of {counted(len(self.sent), 'action')} were sent late: the arm did not move as "
                "recorded. End what else runs on this machine and replay again"
            )
        if self.late > FEW * len(self.sent):
            print(
                f"warning: {self.late} of {counted(len(self.sent), 'action')} were sent late: the motion was slower "
                "than recorded"
            )

    def __str__(self) -> str:
        read = np.isfinite(self.positions).all(1)
        unread = "" if read.all() else f", {counted(int((~read).sum()), 'reading')} lost"
        median, most = 1000 * np.percentile(self.after, (50, 99))
        return (
            f"replayed {counted(len(self.sent), 'action')} in {self.seconds:.1f} s, {self.late} late, {self.account}\n"
            f"sent {median:.1f} ms after their time (99 %: {most:.1f} ms) of {1000 * self.step:.0f} ms a step{unread}\n"
            f"behind the set-points {self._behind(read) if read.any() else 'by an unknown amount: there is no reading'}"
        )

    def _behind(self, read: np.ndarray) -> str:
        """How far the arm was from its set-points in the rows that were read, for the joints of each unit."""
        error, told = np.abs(self.positions - self.sent)[read], []
        for unit in dict.fromkeys(self.units):
            alike = [number for number, other in enumerate(self.units) if other == unit]
            joint = max(alike, key=lambda number: error[:, number].max())
            mean, most = error[:, alike].mean(), error[:, joint].max()
            told.append(f"by {mean:.3f} {unit} on average, at most {most:.3f} {unit} ({self.joints[joint]})")
        return "; ".join(told)


def replay_on(robot: GuardedRobot, actions: np.ndarray) -> Replayed:
    """Send (T, D) actions at the robot's rate, the first one until the arm is there.

    Raises:
        ValueError: it is not reached. ConnectionError: the guard stopped the arm.
    """
    step = 1 / robot.embodiment.rate
    due, end = time.monotonic(), time.monotonic() + PATIENCE
    while True:
        sent = robot.send_action(actions[0])
        _refuse_stop(robot)
        if np.abs(sent - actions[0]).max() < REACHED:
            break
        if time.monotonic() > end:
            raise ValueError(f"the first pose was not reached within {PATIENCE:g} s: {robot.verdict}")
        due = _wait(due + step)

    robot.account = Account()
    sent_all, positions, after = [], [], []
    due = _wait(due + step)
    begun = due
    for action in actions:
        sent_all.append(robot.send_action(action))
        _refuse_stop(robot)
        after.append(time.monotonic() - due)
        due = _wait(due + step)
        positions.append(_position(robot, len(action)))
    spent = time.monotonic() - begun
    body = robot.embodiment
    return Replayed(
        np.array(sent_all), np.array(positions), body.action, body.action_units, robot.account, np.array(after), step,
        spent,
    )  # fmt: skip


def _position(robot: GuardedRobot, joints: int) -> np.ndarray:
    """(D,) where the arm is; NaN where one reading was lost, which is the guard's business: several stop the arm."""
    try:
        return robot.get_observation()[STATE]
    except ConnectionError:
        if robot.guard_process is None:
            raise
        return np.full(joints, np.nan, np.float32)


def _wait(due: float) -> float:
    time.sleep(max(0.0, due - time.monotonic()))
    return max(due, time.monotonic() - 0.1)


def _refuse_stop(robot: GuardedRobot) -> None:
    if robot.verdict is not None and robot.verdict.outcome is Outcome.stopped:
        raise ConnectionError(f"the guard stopped the arm: {'; '.join(robot.verdict.reasons)}")


def replay_in_world(name: str, actions: np.ndarray, body: Embodiment, env_seed: int) -> str:
    """Step a world with (T, D) actions; what came of it, in words. Raises EmbodimentError: another body."""
    from ..configs.world import find_world

    world = find_world(name)
    with closing(world.lane()) as lane:
        body.check(world.embodiment())
        lane.reset(seed=env_seed)
        progress, success, steps = 0.0, False, 0
        for action in actions:
            _, _, terminated, truncated, info = lane.step(action.astype(np.float32))
            steps, progress, success = steps + 1, max(progress, float(info["progress"])), bool(info["success"])
            if terminated or truncated:
                break
    said = f"{steps} of {counted(len(actions), 'action')}, progress {progress:.2f} of 1, success {success}"
    return f"{name}, env seed {env_seed}: {said}"

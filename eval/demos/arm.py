"""`understudy demos TASK --robot R --by LEADER`: a person leads an arm by another one; each episode becomes data.

The arm follows the leader through its guard all the time; what happens between two words of the person is an episode,
on disk before the next one begins. `action` is what the leader commanded, `action.sent` what the guard let through.
Beside them `time.captured` and `time.commanded` say when each part was captured and each command given, s since the
episode began, and `guard.outcome` what became of the command (0 passed, 1 bent); the reasons are counted in
`meta/guard.json`. An episode in which the guard stops the arm is not kept, nor one whose steps came so late that its
frames tell another time than it took (`policies/data/pace.py`).
"""

from __future__ import annotations

import json
import os
import select
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ...configs.episode import Episode
from ...configs.files import replace_text
from ...configs.progress import counted
from ...configs.spec import IMAGES, STATE
from ...hardware.guard import Outcome
from ...hardware.guarded import Account, GuardedRobot, open_robot
from ...hardware.leader import Leader, leader_settings
from ...hardware.open import robot_config
from ...hardware.robot import RobotConfig
from ...policies.data.bent import OUTCOME
from ...policies.data.pace import CAPTURED, COMMANDED, pace_of
from ...policies.data.writer import DatasetWriter
from .recording import check_folder, recording

if TYPE_CHECKING:
    from .settings import Settings

GUARD = "meta/guard.json"
NUMBERS = {Outcome.passed: 0.0, Outcome.bent: 1.0, Outcome.stopped: 2.0}
NEAR = 0.05  # rad or m, where the arm has come to the leader
STANDS = 1.0  # s without moving, after which it comes no nearer
WAITS = 5.0  # s between two words about an arm that does not come to its leader
PATIENCE = 30.0  # s, of nobody being there, until it has come
LATE = 0.5  # part of a step by which one may begin late; then the time begins anew, as the guard's does
STEER = ("keyboard", "keyboard_ee", "keyboard_rover", "gamepad", "phone")  # that give steps or a pose
GIVE_UP = 3  # episodes in a row that came late, after which the machine is too slow
WORDS = "ENTER: done, f: failed, d: discard, q: quit"


class Quit(Exception):
    """The person has had enough."""


class Guide(Protocol):
    """Who says where the arm shall go."""

    def read(self) -> np.ndarray:
        """(D,) now, in the robot's units. Raises ConnectionError."""
        ...


class Words:
    """Lines of a terminal or a pipe, as they come; `over` when there will be none any more."""

    def __init__(self, number: int | None = None):
        try:
            self._number = sys.stdin.fileno() if number is None else number
            self.over = False
        except (OSError, ValueError, AttributeError):  # no stdin, or none that the system knows
            self.over = True
        self._left = b""

    def next(self) -> str | None:
        """The next line without its end, None where there is none yet."""
        if not self.over and b"\n" not in self._left and select.select([self._number], [], [], 0)[0]:
            came = os.read(self._number, 4096)
            self.over = not came
            self._left += came
        if b"\n" not in self._left:
            return None
        line, _, self._left = self._left.partition(b"\n")
        return line.decode(errors="replace").strip().lower()


@dataclass
class Rows:
    """An episode that grows; pictures go to a file without a name in `folder`, so that memory does not."""

    folder: Path
    begun: float  # s
    cameras: Mapping[str, tuple[int, int]]
    states: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    sent: list[np.ndarray] = field(default_factory=list)
    captured: list[list[float]] = field(default_factory=list)
    commanded: list[float] = field(default_factory=list)
    outcomes: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._files = {name: tempfile.TemporaryFile(dir=self.folder) for name in self.cameras}

    def add(self, step: Step) -> None:
        self.states.append(step.obs[STATE])
        self.actions.append(step.action)
        self.sent.append(step.sent)
        keys = [STATE, *(IMAGES + name for name in self.cameras)]
        self.captured.append([step.times[key] - self.begun for key in keys])
        self.commanded.append(step.commanded - self.begun)
        self.outcomes.append(NUMBERS[step.outcome])
        for name, file in self._files.items():
            file.write(np.ascontiguousarray(step.obs[IMAGES + name]).data)

    def episode(self, start: int, task: str, success: bool, ended: bool) -> Episode:
        """`ended`: by the person; otherwise its time was over."""
        steps = len(self.actions)
        obs: dict[str, np.ndarray] = {STATE: np.array(self.states, np.float32)}
        for name, file in self._files.items():
            file.flush()
            obs[IMAGES + name] = np.memmap(file, np.uint8, "r", shape=(steps, *self.cameras[name], 3))
        last = np.zeros(steps, np.float32)
        last[-1] = success
        return Episode(
            start=start,
            task=task,
            obs=obs,
            action=np.array(self.actions, np.float32),
            sent=np.array(self.sent, np.float32),
            reward=last,
            progress=last,
            success=last > 0,
            terminated=ended,
            truncated=not ended,
            extra={
                CAPTURED: np.array(self.captured, np.float32),
                COMMANDED: np.array(self.commanded, np.float32),
                OUTCOME: np.array(self.outcomes, np.float32),
            },
        )


@dataclass(frozen=True)
class Step:
    """One command: what was seen before it, and what became of it."""

    obs: Mapping[str, np.ndarray]
    times: Mapping[str, float]  # key -> s
    action: np.ndarray
    commanded: float  # s
    sent: np.ndarray
    outcome: Outcome


class Station:
    """A robot, who guides it, and the clock: steps begin at the robot's rate, as long as the machine keeps up."""

    def __init__(self, robot: GuardedRobot, guide: Guide):
        self.robot, self.guide, self.late = robot, guide, 0
        self._due = time.monotonic()

    def step(self) -> Step:
        """Raises ConnectionError."""
        period, now = 1 / self.robot.embodiment.rate, time.monotonic()
        if now - self._due > LATE * period:
            self.late += 1
            self._due = now
        time.sleep(max(0.0, self._due - now))
        self._due += period

        obs, times = self.robot.observe()
        action = self.guide.read()
        commanded = time.monotonic()
        sent = self.robot.send_action(action, commanded)
        assert self.robot.verdict is not None
        return Step(obs, times, np.asarray(action, np.float32), commanded, sent, self.robot.verdict.outcome)


def record_on_arm(config: Settings) -> int:
    """Record teleoperation; returns the number of episodes that the dataset holds then.

    Raises:
        LookupError, ValueError, ImportError: no such robot or leader, or one that does not lead the other.
        ConnectionError: one of them does not answer; the episodes before are kept.
        RecordingError, FileExistsError: not into this folder.
    """
    _check(config)
    assert config.robot is not None
    out = config.folder
    check_folder(out, config.resume)
    arm = robot_config(config.robot, config.port, config.calibration)
    settings = leader_settings(config.by)
    with ExitStack() as held:
        leader = Leader(settings, arm.describe().embodiment)
        leader.check_apart(arm)
        robot = open_robot(arm)
        held.callback(robot.disconnect)
        robot.connect()
        held.callback(leader.close)
        leader.connect()
        for unknown in robot.blind_to:
            print(f"the guard knows nothing of {unknown}")
        card = arm_card(config, arm, robot, leader)
        extra: dict[str, tuple[str, ...]] = {CAPTURED: ("state", *robot.embodiment.cameras)}
        extra |= {COMMANDED: ("command",), OUTCOME: ("outcome",)}
        with recording(out, robot.embodiment, card, config, extra) as (writer, _):
            try:
                Session(config, Station(robot, leader), writer, Words()).run()
            except ConnectionError as error:
                several = counted(writer.episodes, "episode", "is", "are")
                kept = f"{several} kept in {out}; the same command with --resume goes on"
                raise ConnectionError(f"{error}. {kept if writer.episodes else 'Nothing is written'}") from error
    if not writer.episodes:
        raise ValueError("no episode was kept: nothing is written")
    print(f"{out}: {counted(writer.episodes, 'episode')}, {counted(writer.frames, 'step')}")
    return writer.episodes


def arm_card(config: Settings, arm: RobotConfig, robot: GuardedRobot, leader: Leader) -> dict:
    """What a dataset of teleoperation says of itself: JSON-able, equal for equal recordings."""
    body = json.loads(robot.embodiment.to_json())
    how = {name: getattr(config, name) for name in ("env_seed", "keep_failures", "pictures")}
    units = {joint.name: joint.said for joint in leader.joints}
    about = {"by": leader.kind, "led in": units, "leader": leader.settled(), "task": config.task}
    about |= {"robot": arm.settled(), "body": body, "how": how}
    return json.loads(json.dumps(about | {"envelope": arm.envelope, "surroundings": asdict(arm.surroundings)}))


class Session:
    """Episode after episode, until all are recorded or the person quits."""

    def __init__(self, config: Settings, station: Station, writer: DatasetWriter, words: Words):
        self.config, self.station, self.writer, self.words = config, station, writer, words
        self._slow = 0  # episodes in a row that came late

    def run(self) -> None:
        """Raises ConnectionError: the guard stopped the arm and nobody is there, or a bus is gone."""
        try:
            while self.writer.episodes < self.config.episodes:
                self._prepare()
                self._record()
        except Quit:
            pass

    def _prepare(self) -> None:
        """The arm follows, unrecorded, until the person or the pause says so and it has come to the leader."""
        number, pause, self._asked = self.writer.episodes + 1, self.config.pause, 0.0
        while self._word(needed=False) is not None:
            pass  # was said before it was asked for
        begins = "ENTER begins" if pause is None else f"it begins in {pause:g} s, with ENTER sooner"
        print(f"episode {number} of {self.config.episodes}: lay out, {begins}; q quits", flush=True)
        end = None if pause is None else time.monotonic() + pause
        asked, stands, before, told = False, time.monotonic(), None, 0.0
        while True:
            word = self._word(needed=end is None and not asked)
            asked = asked or word is not None or (end is not None and time.monotonic() >= end)
            step = self.station.step()
            self._go_on_after_a_stop(step)
            if before is None or np.abs(step.sent - before).max() > 1e-4:
                stands, before = time.monotonic(), step.sent
            low, high = np.array(self.station.robot.embodiment.limits).T
            there = np.abs(step.sent - np.clip(step.action, low, high)).max() <= NEAR
            if asked and (there or time.monotonic() - stands > STANDS):
                return
            if asked:
                told = self._hold_still(step, told)

    def _hold_still(self, step: Step, told: float) -> float:
        """Say now and then that the arm does not catch up; `told`: s of such words so far."""
        now = time.monotonic()
        self._asked = self._asked or now
        if now - self._asked > PATIENCE and self.words.over:
            raise ConnectionError("the arm did not come to its leader: hold the leader still before an episode")
        if now - max(self._asked, told) > WAITS:
            joint = int(np.abs(step.sent - step.action).argmax())
            off, body = abs(float(step.sent[joint] - step.action[joint])), self.station.robot.embodiment
            name, unit = body.action[joint], body.action_units[joint]
            print(
                f"hold the leader still: {name} is {off:.2f} {unit} away from it, an episode begins within {NEAR:g}; "
                f"{self._verdict()}",
                flush=True,
            )
            return now
        return told

    def _go_on_after_a_stop(self, step: Step) -> None:
        if step.outcome is not Outcome.stopped:
            return
        why = "; ".join(self._verdict().reasons)
        if self.words.over:
            raise ConnectionError(f"the guard stopped the arm: {why}")
        print(f"the guard stopped the arm: {why}. ENTER takes hold of it again, q quits", flush=True)
        while True:
            while self._word(needed=True) is None:
                time.sleep(0.05)
            try:
                self.station.robot.engage()
                return
            except ValueError as error:  # the emergency stop is still there, or the arm outside its range
                print(f"{error}. ENTER tries again, q quits", flush=True)

    def _verdict(self):
        assert self.station.robot.verdict is not None
        return self.station.robot.verdict

    def _word(self, needed: bool) -> str | None:
        """What the person says; Quit for q, and where a word is needed and none will come."""
        word = self.words.next()
        if word == "q" or (word is None and needed and self.words.over):
            raise Quit
        return word

    def _record(self) -> None:
        robot, seconds = self.station.robot, self.config.seconds
        told = WORDS if seconds is None else f"{seconds:g} s; {WORDS}"
        print(f"recording: {told}", flush=True)
        robot.account, self.station.late = Account(), 0
        begun = time.monotonic()
        rows = Rows(self.config.folder, begun, robot.embodiment.cameras)
        word: str | None = None
        while word is None:
            step = self.station.step()
            if step.outcome is Outcome.stopped:
                print("not kept: the guard stopped the arm", flush=True)
                self._go_on_after_a_stop(step)
                return
            rows.add(step)
            word = self.words.next()
            if word is None and seconds is not None and time.monotonic() - begun >= seconds:
                break
            if word is None and seconds is None and self.words.over:
                raise Quit
        self._keep(rows, word)
        if word == "q":
            raise Quit

    def _keep(self, rows: Rows, word: str | None) -> None:
        """An episode that its time ended counts as done; one that was quit is not kept."""
        success = word != "f"
        robot, steps = self.station.robot, len(rows.actions)
        kept = word not in ("d", "q") and (success or self.config.keep_failures)
        pace = pace_of(np.array(rows.commanded), robot.embodiment.rate)
        slow, shown = kept and pace is not None and not self.config.keep_late, "kept" if kept else "not kept"
        shown = "NOT KEPT" if slow else shown
        print(
            f"{counted(steps, 'step')}, {steps / robot.embodiment.rate:.1f} s, {self.station.late} late: {shown}; "
            f"{robot.account}"
        )
        if pace is not None:
            print(
                f"it took {pace.took:.1f} s, its frames say {pace.stamped:.1f} s: a replay, or what "
                f"learns from it, would move {pace.faster:.2f}x as fast{'; --keep_late true keeps it' if slow else ''}",
            )
        sys.stdout.flush()
        self._slow = self._slow + 1 if slow else 0
        if self._slow >= GIVE_UP:
            raise ConnectionError(
                f"{GIVE_UP} episodes in a row came late: this machine does not keep {robot.embodiment.rate:g} Hz. "
                "End what else runs, take smaller or fewer cameras, or a lower rate (--robot.rate 20); "
                "--keep_late true keeps such episodes"
            )
        if slow or not kept:
            return
        start = self.config.env_seed + self.writer.episodes
        tell_of_guard(self.writer, robot.account)
        self.writer.add(rows.episode(start, self.config.task, success, word is not None))


def tell_of_guard(writer: DatasetWriter, account: Account) -> None:
    """Add what the guard did in the next episode to the dataset's file of that."""
    path = writer.root / GUARD
    told = json.loads(path.read_text()) if path.is_file() else []
    told = [*told[: writer.episodes], {"outcomes": account.outcomes, "reasons": account.reasons}]
    replace_text(path, json.dumps(told, indent=1))


def check_leader(flag: str, by: dict | str) -> None:
    """Refuse what steers a hand. Raises ValueError."""
    kind = str(by.get("type") if isinstance(by, dict) else by)
    if kind in STEER:
        raise ValueError(
            f"--{flag} {kind} steers a hand in worlds and gives no joints: an arm is led by another arm, "
            f"such as --{flag}.type so101_leader --{flag}.port PORT"
        )


def _check(config: Settings) -> None:
    """Refuse settings that are of worlds."""
    if config.by == "expert" and not config.policy:
        raise ValueError("who leads the arm? --by so101_leader --by.port PORT, or another leader of lerobot's")
    check_leader("by", config.by)
    if config.policy:
        raise ValueError("--policy acts in worlds; on a robot a person leads (--by)")
    for name in ("world", "cameras", "style"):
        if getattr(config, name):
            raise ValueError(
                f"--{name} is of worlds; leave it out with --robot (its cameras are settings of the robot)"
            )
    for name in ("noise", "fail", "action_noise"):
        if getattr(config, name):
            raise ValueError(f"--{name} is of experts; leave it out with --robot")
    if config.seconds is not None and not 0 < config.seconds < float("inf"):
        raise ValueError(f"seconds: {config.seconds} is no length of an episode")
    if config.pause is not None and not 0 <= config.pause < float("inf"):
        raise ValueError(f"pause: {config.pause} is no time")
    if config.episodes < 1:
        raise ValueError(f"no such number of episodes: {config.episodes}")

"""Two policies on one arm, a trial at a time, from like starts; each thinks while the arm moves, as in `deploy`.

Both are checked against the arm before anything moves. What concerns one policy alone (how long its planning takes) is
not told to an operator before the end. The first trial of a pair records what its start looks like; the second begins
from the same pose of the arm, and, where that is asked for, when the scene looks the same again.
"""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...configs.lanes.lanes import Lanes
from ...configs.spec import EmbodimentError
from ...configs.world import World, looked_at
from ...hardware.consent import Refused, ask, on_terminal
from ...hardware.lane.robot_env import RobotWorld
from ...policies.agent.open import Acting
from ..demos.arm import Quit, Words
from ..deploy.settings import Settings
from ..ledger.record import MANIFEST, read_manifest
from .blind import Score
from .blind import ask as ask_score
from .on_arm import MEASURE, OnArm
from .restore import STARTS, Restored, Shown, Start, restore

if TYPE_CHECKING:
    from ...policies.agent.agent import Agent

VIEW = (240, 320)  # px, height and width of an emulated camera that nobody asked for, to compare scenes by
AWAY = 0.1  # rad or m that the arm may stay away from the pose of a start
WORDS = "ENTER ends the trial, q stops here"


def as_arm(world: World) -> RobotWorld | None:
    """The world, where it is an arm."""
    return world if isinstance(world, RobotWorld) else None


def acts_one_by_one(config: OnArm, world: World, operator: str) -> bool:
    """Whether trials come one by one on one arm; a `--world` of an emulated one in simulated time may be many arms."""
    arm = as_arm(world)
    return arm is not None and (arm.clock == "wall" or bool(operator) or bool(config.given))


def arm_settings(config: OnArm, acting: Acting, world: World, begun: Path | None) -> Settings:
    """The settings of `deploy` that let a policy act as this comparison asks.

    Args:
        acting: how one policy acts.
        begun: record of that policy that is gone on with; its delay holds.
    """
    assert isinstance(world, RobotWorld)
    asked = {item.name: getattr(acting, item.name) for item in dataclasses.fields(Acting)}
    delay = config.delay
    if delay == MEASURE and begun is not None and (begun / MANIFEST).is_file():
        delay = int(read_manifest(begun)["agent"].get("delay", 0))
    asked |= {"block": 1, "delay": delay, "latency": config.latency}
    where: dict[str, Any] = {"emulate": world.emulate, "clock": world.clock, "robot": world.robot, "port": world.port}
    where |= {"calibration": world.calibration, "task": world.task, "set_points": world.set_points}
    seconds = config.seconds
    if seconds is None and world.horizon:
        seconds = world.horizon / world.embodiment().rate
    return Settings(**asked, **where, seconds=seconds, limits=config.limits, yes=config.yes)


def open_on_arm(
    settings: Sequence[Settings], world: World, views: bool, quiet: bool
) -> tuple[list[tuple[Agent, dict]], RobotWorld, tuple[str, ...]]:
    """Both agents, what is said of them, the arm that both fit, and what was kept from the operator.

    Args:
        views: whether the scene must be seen by a camera.
        quiet: tell nothing that concerns one policy alone.

    Raises:
        EmbodimentError: a policy does not fit the arm, or both do not fit each other. ValueError: no camera.
    """
    from ..deploy.session import open_for_arm

    assert isinstance(world, RobotWorld)
    opened, worlds, said = [], [], []
    for each in settings:
        with redirect_stdout(io.StringIO()) if quiet else ExitStack() as heard:
            agent, about, found = open_for_arm(each)
        opened.append((agent, about))
        worlds.append(found)
        said.append(heard.getvalue() if isinstance(heard, io.StringIO) else "")
    if worlds[0].rate != worlds[1].rate:
        raise EmbodimentError(
            f"the policies act at {worlds[0].rate:g} and {worlds[1].rate:g} control steps a second; in a duel both act "
            "at one rate"
        )
    met = dataclasses.replace(worlds[0], cameras=dict(world.cameras) if world.emulate else worlds[0].cameras)
    if world.emulate:
        met = looked_at(met, *(agent.pictures for agent, _ in opened))
        if views and not met.cameras:
            met = dataclasses.replace(met, cameras={met.views()[0]: VIEW})
    if views and not met.embodiment().cameras:
        raise ValueError(
            "--restore_within compares pictures, and the arm has no camera: give its robot one, or drop it"
        )
    both = [line for line in said[0].splitlines() if line in said[1].splitlines()]
    if both:
        print("\n".join(both))
    alone = tuple(
        f"{'AB'[side]}: {line}" for side, text in enumerate(said) for line in text.splitlines() if line not in both
    )
    return opened, met, alone


class Duel:
    """The arm, both agents, and the person; `acts` are those of a `blind.BlindStage`.

    Args:
        columns: of the rows of each.
        folder: of the comparison; the starts go there.
        operator: whether a person scores.
    """

    def __init__(
        self,
        config: OnArm,
        agents: Sequence[Agent],
        world: RobotWorld,
        columns: Sequence[Mapping],
        folder: Path,
        operator: bool,
    ):
        self.config, self.world, self.columns, self.folder, self.operator = config, world, columns, folder, operator
        self.words, self.show = Words(), Shown(folder)
        self._lanes = Lanes(world, 1, 0, timeout=0)
        from ...policies.agent.ahead import GRACE, Ahead

        patience = GRACE if world.clock == "wall" else None
        self._actors = [Ahead(agent, patience, self._heard) for agent in agents]
        self._said, self._quits, self._started = "", False, False

    def __enter__(self) -> Duel:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            actor.close()
        self._lanes.close()
        self.show.close()

    @property
    def acts(self) -> tuple[Callable[[int], dict], Callable[[int], dict]]:
        """What each policy does from a start: env seed -> row."""
        return lambda start: self._act(0, start), lambda start: self._act(1, start)

    def score(self, trial: int, row: Mapping) -> Score | None:
        """What the person says of a trial. Raises Refused: nobody is there any more."""
        said, self._said = self._said, ""
        first = [said] if said else []
        if stopped := json.loads(row["labels"] or "{}").get("stopped"):
            print(f"the guard stopped the arm: {stopped}", flush=True)

        def read(prompt: str) -> str:
            if first:
                return first.pop()
            print(prompt, end="", flush=True)
            word = self._line(f"trial {trial} is kept, without its score")
            if word == "q":
                raise KeyboardInterrupt(f"trial {trial} is kept and will be asked about at first")
            return word

        return ask_score(trial, row, read)

    def _act(self, who: int, start: int) -> dict:
        """One trial. Raises ConnectionError: the arm, a camera or the guard is gone; KeyboardInterrupt: `q`."""
        try:
            restored = self._begin_from(start)
        except Quit:
            raise KeyboardInterrupt from None
        self._said, self._quits = "", False
        while on_terminal() and self.words.next() is not None:
            pass  # was said before the trial
        if self.operator:
            print(f"the arm moves; {WORDS}", flush=True)
        from ..rollout.rollout import Block, run_block

        result = next(iter(run_block(Block((start,), self.columns[who], failed=1), self._actors[who], self._lanes, {})))
        if self._quits:
            raise KeyboardInterrupt("the running trial is not kept")
        if result.row["error"]:
            raise ConnectionError(f"the trial ended: {result.row['error']}. The arm was let go; nothing of it is kept")
        labels = json.loads(result.row["labels"] or "{}")
        if restored is not None:
            labels["restored"] = restored.labels()
        return result.row | {"labels": json.dumps(labels)}

    def _begin_from(self, start: int) -> Restored | None:
        """Make the scene and the pose of the arm those of the start, as far as there is one."""
        if not self.world.emulate:
            self._consent()
        own, known = self._recorded(start)
        obs, info = self._lanes.reset(seed=[start])
        if info["failed"]:
            raise ConnectionError(f"no trial can begin: {info['failed'][0]}")
        pose = known.pose if known is not None else self._first_pose()
        if not self.world.emulate and pose is not None:
            away = self._lanes.call("go", pose, slots=[0])[0]
            if away is None or away > AWAY:
                raise ConnectionError(
                    "the arm does not come to the pose that its trials begin from: see the guard's words"
                )
        if known is not None and known.pictures and (self.config.restore_within is not None or not self.world.emulate):
            words = None if self.world.emulate else self.words
            return restore(known, self._look, self.show, words, self.config.restore_within)
        if not self.world.emulate:
            print("lay things out; ENTER begins, q quits", flush=True)
            if self._line("nothing was acted") == "q":
                raise Quit
        if known is None:
            Start.of(self._look()).save(own)
        return None

    def _recorded(self, start: int) -> tuple[Path, Start | None]:
        """Where the start of a pair is written, and what it is: as asked for, or of the pair's first trial."""
        name = str(start)
        if self.config.starts is not None:
            found = Start.load(Path(self.config.starts) / name)
            if found is None:
                raise ValueError(
                    f"--starts {self.config.starts} holds no start {name}; give one that does, or leave it out"
                )
            return self.folder / STARTS / name, found
        own = self.folder / STARTS / name
        return own, Start.load(own)

    def _first_pose(self) -> np.ndarray | None:
        """The pose of the first start of all, from which every pair begins."""
        first = min((self.folder / STARTS).glob("*/pose.json"), key=lambda path: int(path.parent.name), default=None)
        found = None if first is None else Start.load(first.parent)
        return None if found is None else found.pose

    def _look(self) -> Mapping[str, np.ndarray]:
        seen = self._lanes.call("seen", slots=[0])[0]
        if seen is None:
            raise ConnectionError("the arm or a camera is gone: nothing is seen between the trials")
        return seen

    def _consent(self) -> None:
        if self._started or self.config.yes:
            return
        name = self.world.embodiment().name
        ask(f"two policies are about to move {name}", lambda: self._line("the arm was not moved"))
        self._started = True

    def _heard(self) -> bool:
        """Hears the person while a policy acts; never pauses the arm."""
        word = self.words.next() if self.operator else None
        if word is not None:
            self._said, self._quits = word, word == "q"
            self._lanes.call("conclude", False, slots=[0])
        return False

    def _line(self, otherwise: str) -> str:
        """The next line of the person. Raises Refused: there will be none."""
        while (word := self.words.next()) is None:
            if self.words.over:
                raise Refused(f"nobody is there: {otherwise}; go on with --resume {self.folder} in a terminal")
            time.sleep(0.02)
        return word


def start_set_on(world: World, otherwise: str, order: int) -> str:
    """What the start ids belong to: of a real arm they mean something in this comparison alone."""
    assert isinstance(world, RobotWorld)
    return otherwise if world.emulate else f"{otherwise}/{order:08x}"

"""Two policies on one arm, a trial at a time, from like starts; each thinks while the arm moves, as in `deploy`.

Both are checked against the arm before anything moves. What concerns one policy alone (how long its planning takes) is
not told to an operator before the end. The first trial of a pair records what its start looks like (or takes it from an
earlier comparison); the second begins from the same pose of the arm, and, where that is asked for, when the scene looks
the same again.
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

RATE = RobotWorld.rate  # of a real arm whose world names none: then it is the policies'
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
    where |= {"shadow": world.shadow, "rate": None if world.emulate or world.rate == RATE else world.rate}
    return Settings(**asked, **where, seconds=config.seconds, limits=config.limits, yes=config.yes)


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
    settled = {name: getattr(worlds[0], name) for name in ("task", "rate")}
    met = dataclasses.replace(world, **settled, horizon=worlds[0].horizon or world.horizon)
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
        from ...policies.agent.ahead import GRACE, Ahead

        self.config, self.world, self.columns, self.folder, self.operator = config, world, columns, folder, operator
        self.words, self.show = Words(), Shown(folder)
        self._lanes = Lanes(world, 1, 0, timeout=0)
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
            self._hush()
        except Quit:
            raise KeyboardInterrupt from None
        self._said, self._quits = "", False
        if self.operator:
            print(f"the arm moves; {WORDS}", flush=True)
        from ..rollout.rollout import Block, run_block

        result = next(iter(run_block(Block((start,), self.columns[who], failed=1), self._actors[who], self._lanes, {})))
        if self._quits:
            raise KeyboardInterrupt("the running trial is not kept")
        if result.row["error"]:
            raise ConnectionError(
                f"the trial ended: {result.row['error']}. The arm was let go; nothing of it is kept; {self._later}"
            )
        labels = json.loads(result.row["labels"] or "{}")
        if restored is not None:
            labels["restored"] = restored.labels()
        return result.row | {"labels": json.dumps(labels)}

    def _begin_from(self, start: int) -> Restored | None:
        """Make the scene and the pose of the arm those of the start, as far as there is one."""
        real, own = not self.world.emulate, self.folder / STARTS / str(start)
        if real:
            self._consent()
        known = self._recorded(own)
        _, info = self._lanes.reset(seed=[start])
        if info["failed"]:
            raise ConnectionError(f"no trial can begin: {info['failed'][0]}; {self._later}")
        if real:
            self._go(known.pose if known is not None else self._first_pose())
            self._hush()
        if known is not None and known.pictures and (real or self.config.restore_within is not None):
            return restore(known, self._look, self.show, self.words if real else None, self.config.restore_within)
        if real:
            print("lay things out; ENTER begins, q quits", flush=True)
            if self._line("nothing was acted") == "q":
                raise Quit
        if known is None:
            found = Start.of(self._look())
            self._comparable(found, own)
            found.save(own)
        return None

    def _recorded(self, own: Path) -> Start | None:
        """The start of a pair, of its first trial or of an earlier comparison; both trials take what lies in `own`."""
        known, asked, where = Start.load(own), self.config.starts_folder, own
        if known is None and asked is not None:
            where = asked / own.name
            known = Start.load(where)
            if known is None:
                raise ValueError(f"{asked} holds no start {own.name}; {self._later} when it does")
        if known is None:
            return None
        known.check(self.world.embodiment(), where)
        self._comparable(known, where)
        if where != own:
            known.save(own)
        return known

    def _comparable(self, start: Start, where: Path) -> None:
        """Refuse a start by whose pictures no scene can be restored, where that is asked for. Raises ValueError."""
        if self.config.restore_within is None:
            return
        if not start.pictures:
            raise ValueError(
                f"the start {where} has no picture, so --restore_within has nothing to compare: leave it out"
            )
        if start.blank:
            raise ValueError(
                f"camera '{start.blank[0]}' shows one colour alone in the start {where}, so any scene is like it: "
                f"uncover it, or light the scene; {self._later}"
            )

    def _go(self, pose: np.ndarray | None) -> None:
        """Bring the arm to a pose. Raises ConnectionError: it is gone, or does not come there."""
        if pose is None:
            return
        print("hands off: the arm goes to the pose that its trials begin from", flush=True)
        away = self._lanes.call("go", pose, slots=[0])[0]
        told = self._lanes.call("told", slots=[0])[0]
        if away is None or told is None:
            raise ConnectionError(f"the arm or a camera is gone: no trial can begin; {self._later}")
        if away > AWAY:
            why = "; ".join(told["reasons"]) or "the guard has nothing against it, so something may be in the way"
            raise ConnectionError(
                f"the arm stays {away:.2f} rad (or m) from the pose that its trials begin from ({why}); {self._later}"
            )

    def _first_pose(self) -> np.ndarray | None:
        """The pose of the first start of all, from which every pair begins."""
        first = min((self.folder / STARTS).glob("*/pose.json"), key=lambda path: int(path.parent.name), default=None)
        found = None if first is None else Start.load(first.parent)
        return None if found is None else found.pose

    def _look(self) -> Mapping[str, np.ndarray]:
        seen = self._lanes.call("seen", slots=[0])[0]
        if seen is None:
            raise ConnectionError(f"the arm or a camera is gone: nothing is seen between the trials; {self._later}")
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
            self._lanes.call("conclude", None, slots=[0])  # how it went is asked
        return False

    @property
    def _later(self) -> str:
        return f"go on with --resume {self.folder}"

    def _hush(self) -> None:
        """Forget what was said at the terminal before it was asked for, but `q`; what a pipe says at once counts.

        Raises:
            Quit: the person has had enough.
        """
        while on_terminal() and (word := self.words.next()) is not None:
            if word == "q":
                raise Quit

    def _line(self, otherwise: str) -> str:
        """The next line of the person. Raises Refused: there will be none."""
        while (word := self.words.next()) is None:
            if self.words.over:
                raise Refused(f"nobody is there: {otherwise}; {self._later} in a terminal")
            time.sleep(0.02)
        return word


def start_set_on(world: World, otherwise: str, order: int) -> str:
    """What the start ids belong to: of a real arm they mean something in this comparison alone."""
    assert isinstance(world, RobotWorld)
    return otherwise if world.emulate else f"{otherwise}/{order:08x}"

"""The settings of `understudy deploy`: who acts, on which arm, and what is kept. Refusals that need no arm are here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...configs.world import DATA_STARTS
from ...hardware.lane.robot_env import CLOCKS, RobotWorld
from ...policies.agent.open import Acting, check_policy_names
from ..demos.recording import check_folder

LIMITS = ("equal", "arm")
SCENE = "so101-reach"  # of an emulated arm, where nobody names one
MEASURE = -1  # the delay is measured


@dataclass(frozen=True, kw_only=True)
class Settings(Acting):
    """Let a policy act on an arm, behind its guard; records what happens."""

    RENAMED: ClassVar[dict[str, str]] = {"dry_run": "dry"}  # as `replay` calls it
    POSITIONALS: ClassVar[tuple[str, ...]] = ("policy",)
    DISCOVER: ClassVar[tuple[str, ...]] = ("policies", "sim", "hardware")

    # which arm: one of ours or lerobot's, a YAML file, or its keys (--robot.type NAME --robot.port PORT)
    robot: dict | str | None = None
    port: str | None = None  # of the robot, such as /dev/ttyACM0
    calibration: str | None = None  # lerobot's calibration file of the robot; default: its usual place
    # an emulated SO-101 in the scene of --task in place of a robot; its starts are the env seeds of that world
    emulate: bool = False
    clock: str = "wall"  # of an emulated arm: wall, or simulated, which waits for plans that are longer than --delay
    dry: bool = False  # first an episode on the emulated arm, and nothing more where the guard stops it
    scene: str = SCENE  # with --dry: simulated scene of that episode; --task never chooses it
    task: str = ""  # text of the task in what is recorded; of an emulated arm its scene, by default so101-reach
    episodes: int = 1  # episodes that are tried
    env_seed: int = DATA_STARTS  # number of the first episode; of an emulated arm its evaluation seed
    seconds: float | None = None  # length of an episode; by default 30 s, of an emulated arm its task's
    pause: float | None = None  # s between episodes, to lay things out; by default until ENTER
    out: str | None = None  # dataset folder for what happens, which must be new; nothing is kept without
    # goes on with the recording in --out, or begins it where that folder holds nothing yet; all else as it was
    resume: bool = False
    pictures: str = "video"  # how pictures are stored: image | video
    score: str | None = None  # file or pipe that scores episodes at their end, a line each: success, failure, discard
    yes: bool = False  # do not ask before the first motion
    limits: str = (
        "equal"  # of the joints: equal to the policy's, or whatever the arm has (arm); the guard keeps its own
    )
    rate: float | None = None  # control steps a second: the policy's own, and of an emulated arm its scene's
    set_points: int = 2  # sent to the servos in a control step, interpolated
    pause_on_alarm: bool = True  # with --alarm: the arm stands when it is raised, until somebody says how to go on
    # a twin beside the arm that looks ahead for the guard: the folder of `understudy twin build`, a YAML file with it
    # (scene) and what it allows, or its keys (--shadow.scene FOLDER --shadow.force 8)
    shadow: dict | str | None = None
    view: str | None = None  # live: a window of rerun's; or a file for it, such as out/view.rrd
    # a person's leader arm that takes over from the policy, one of lerobot's, as `demos --by` takes it: --takeover.type
    # so101_leader --takeover.port PORT --takeover.id ME; the line t takes over, p hands back
    takeover: dict | str | None = None
    takeover_moved: float | None = None  # rad by which the leader, moved after a rest of 1 s, takes over without a word
    delay: int = MEASURE  # control steps that planning takes; -1: measured before the arm moves
    block: int = 1  # one arm, one environment

    def __post_init__(self) -> None:
        if self.emulate and self.robot is not None:
            raise ValueError(f"--emulate true needs no arm, and --robot {self.robot} is one: leave one of them out")
        if not self.emulate and self.robot is None:
            raise ValueError("deploy where? Give --robot NAME --port PORT, or --emulate true --task so101-reach")
        if self.dry and self.emulate:
            raise ValueError("--dry is of a real arm, and --emulate true moves none: leave one of them out")
        if self.scene != SCENE and not self.dry:
            raise ValueError("--scene is of --dry; of --emulate true --task names the scene")
        if self.clock not in CLOCKS or (self.clock != "wall" and not self.emulate):
            raise ValueError(f"clock: {self.clock}; it is wall, or of an emulated arm simulated")
        if self.limits not in LIMITS:
            raise ValueError(f"limits: '{self.limits}' is none of {', '.join(LIMITS)}")
        if self.block != 1:
            raise ValueError(f"block: {self.block}; one arm is one environment, leave it out")
        if self.delay < MEASURE:
            raise ValueError(f"delay: {self.delay} is neither control steps nor -1, which measures them")
        for name, least in (("episodes", 1), ("env_seed", 0), ("set_points", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: {getattr(self, name)}; it must be at least {least}")
        for name in ("seconds", "rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name}: {value} is not above 0")
        if self.pause is not None and not 0 <= self.pause < float("inf"):
            raise ValueError(f"pause: {self.pause} is no time")
        if self.resume and self.out is None:
            raise ValueError("resume what? Give the --out of before")
        if self.takeover is not None and self.clock == "simulated":
            raise ValueError("takeover: a person lives in wall time; leave out --clock simulated")
        if self.takeover_moved is not None and self.takeover is None:
            raise ValueError("takeover_moved: whose leader? Give --takeover.type so101_leader --takeover.port PORT")
        if self.takeover_moved is not None and not 0 < self.takeover_moved < float("inf"):
            raise ValueError(f"takeover_moved: {self.takeover_moved} is no distance above 0")
        if self.view is not None and self.view != "live" and not self.view.endswith(".rrd"):
            raise ValueError(f"view: '{self.view}' is neither live nor a file that ends in .rrd")

    def check_names(self) -> None:
        """Refuse what is not there, before anything heavy is imported."""
        check_policy_names(self)
        if self.dry:
            from ...hardware.emulator.arm import find_kind
            from ...hardware.emulator.coupled import find_task

            find_task(self.scene, find_kind("so101"))
        if self.folder is not None:
            check_folder(self.folder, self.resume)
        if self.view == "live":
            from .view import check_display

            check_display()
        if self.score is not None:
            from .scores import check_scores

            check_scores(self.score)
        if self.shadow is not None:
            from ...hardware.twin.beside_settings import beside_settings

            beside_settings(self.shadow)

    @property
    def folder(self) -> Path | None:
        """Where the dataset is written."""
        return None if self.out is None else Path(os.path.expandvars(self.out))

    @property
    def acted_scene(self) -> str:
        """The scene of an emulated arm; a dry run is one in `scene`, whatever the task of the arm is called."""
        return (self.task or SCENE) if self.emulate else self.scene

    def world(self, rate: float, cameras: dict[str, tuple[int, int]], dry: bool = False) -> RobotWorld:
        """The arm as a world; it does not ask, for `Overseer` does. `dry`: the emulated one, whatever was asked for."""
        emulated = None
        if dry or self.emulate:
            from ...hardware.emulator.arm import find_kind
            from ...hardware.emulator.coupled import find_task

            emulated = find_task(self.acted_scene, find_kind("so101"))
        rate = (self.rate or rate) if emulated is None else emulated.embodiment.rate
        if self.emulate and self.rate not in (None, rate):
            raise ValueError(
                f"--rate {self.rate:g}: the scene of {self.acted_scene} has {rate:g} control steps a second"
            )
        horizon = None if self.seconds is None else max(1, round(self.seconds * rate))
        how: dict[str, Any] = {"rate": rate, "set_points": self.set_points, "horizon": horizon}
        if emulated is not None:
            shown = {name: size for name, size in cameras.items() if name in emulated.cameras}
            shadow = self.shadow if self.emulate else None
            return RobotWorld(
                task=self.acted_scene, emulate=True, cameras=shown, clock=self.clock, shadow=shadow, **how
            )
        return RobotWorld(task=self.task or "deployed", robot=self.robot, port=self.port,
                          calibration=self.calibration, shadow=self.shadow, yes=True, **how)  # fmt: skip

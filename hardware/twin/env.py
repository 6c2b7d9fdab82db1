"""The twin as a world: `type: twin`. Offline it is the world it is a twin of, of many lanes; online it is followed.

Offline (`real` and `robot` empty) a lane is a lane of `of`, so that episodes are those of that world to the last bit.
Online a policy acts in the twin, in one lane: physics steps, the real joints follow the joints that the twin has
achieved, cameras correct its objects. Start ids are those of `of`, so that `agree` and `compare` join them.

    type: twin
    of: {type: mujoco, task: so101-pusht}
    real: {changes: {friction: 1.4, mass: 1.3}}  # a stand-in of the same task; or robot: my_arm.yaml
    scene: outputs/scene                         # of `understudy twin build`; empty: nothing is corrected

`type: stand_in` is that other reality as a world of many lanes, in which a policy acts without a twin.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium

from ...configs.settings.decode import decode
from ...configs.settings.fields import default_of
from ...configs.world import Around, World, start_set
from ...sim.task import TaskEnv
from ..consent import IN_WORLD, ask
from .gaussians import read_json
from .identity import identity_of
from .live.loop import LoopSettings
from .reality.layout import View, default_views, task_of
from .reality.stand_in import Changes, StandIn, alter
from .scene import CARD

if TYPE_CHECKING:
    from .align import Aligner, AlignSettings
    from .gaussians import Camera
    from .live.online import Stage
    from .live.seam import Real

UNREAD = ("correct", "pace", "eyes", "align", "loop")  # settings that only a twin has that something follows
FELT = {"friction", "mass", "damping", "command_delay"}  # changes of a stand-in in which a policy acts
EYES = {"right": (96, 96), "left": (96, 96)}  # the cameras that a scene gets by itself


@World.register_subclass("stand_in")
@dataclass(frozen=True, kw_only=True)
class StandInWorld(Around):
    """Another reality: a task in plain MuJoCo with other physics. A policy that acts here sees its exact states.

    Raises ValueError: `changes` of what is seen or goes wrong, which only a stand-in that follows a twin has.
    """

    changes: Changes = field(default_factory=Changes)  # friction, mass, damping, command_delay (whole control steps)
    seed: int = 0  # without use: nothing is drawn

    def __post_init__(self) -> None:
        task_of(self.of)
        usual = dataclasses.asdict(Changes())
        others = {key for key, value in dataclasses.asdict(self.changes).items() if value != usual[key]} - FELT
        if others:
            raise ValueError(
                f"changes of a stand-in in which a policy acts are {', '.join(sorted(FELT))}, not {min(others)}: "
                "pictures and faults are those of a stand-in that follows a twin (real of type twin)"
            )
        object.__setattr__(self, "task", self.of.task)

    @property
    def start_set(self) -> str:
        return start_set(self.of)

    def lane(self) -> gymnasium.Env:
        lane = self.clean.lane()
        assert isinstance(lane, TaskEnv)
        alter(lane.model, self.changes)
        lane.delay += round(self.changes.command_delay * lane.embodiment.rate)
        return lane

    def fingerprint(self) -> dict:
        changes = dataclasses.asdict(self.changes)
        return self.clean.fingerprint() | {"stand_in": changes | {"seed": self.seed}}


@dataclass(frozen=True, kw_only=True)
class Reality:
    """A stand-in that follows a twin."""

    of: World | None = None  # its task, with settings of its own; empty: as the twin has it
    changes: Changes = field(default_factory=Changes)  # what is other
    seed: int = 0  # of its noise


@World.register_subclass("twin")
@dataclass(frozen=True, kw_only=True)
class TwinWorld(Around):
    """A digital twin; see the module."""

    real: Reality | None = None  # what follows it: a stand-in
    robot: str = ""  # what follows it: a YAML file with the settings of a robot; its cameras are the eyes
    scene: str = ""  # folder that `understudy twin build` wrote; empty: nothing is corrected
    # of a stand-in: cameras that look at it -> [height, width]; empty: those of the scene
    eyes: dict[str, tuple[int, int]] = field(default_factory=dict)
    correct: bool = True  # whether pictures correct the twin
    judge: str = "twin"  # who says whether an episode succeeded: twin, or truth (of a stand-in)
    pace: str = "free"  # free: simulated time, a stand-in alone; wall: the clock's
    loop: LoopSettings = field(default_factory=LoopSettings)
    align: dict[str, Any] = field(default_factory=dict)  # settings of the aligner, see align.AlignSettings
    yes: bool = False  # with a robot: do not ask before its first motion

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", self.of.task)
        if self.pace not in ("free", "wall"):
            raise ValueError(f"pace of a twin is free or wall, not '{self.pace}'")
        if self.judge not in ("twin", "truth"):
            raise ValueError(f"judge of a twin is twin or truth, not '{self.judge}'")
        if self.real is not None and self.robot:
            raise ValueError("a twin is followed by a stand-in (real) or by an arm (robot), not by both")
        if self.robot and (self.pace, self.judge) != ("wall", "twin"):
            raise ValueError("an arm follows a twin by the clock (pace: wall), and its twin judges (judge: twin)")
        if self.judge == "truth" and self.real is None:
            raise ValueError("only a stand-in knows the truth: give real, or judge: twin")
        self._refuse_unread()
        if self.online:
            task_of(self.of)
        if self.real is not None and self.real.of is not None:
            self._check_stand_in(self.real.of)
        if self.align:
            self.alignment()

    def _refuse_unread(self) -> None:
        """Refuse settings that would do nothing."""
        usual = {item.name: default_of(item) for item in dataclasses.fields(self)}
        given = [name for name in UNREAD if getattr(self, name) != usual[name]]
        if given and not self.online:
            raise ValueError(f"nothing follows this twin (real or robot), so {given[0]} would do nothing: leave it out")
        if self.align and not self.scene:
            raise ValueError("align says how pictures correct a twin: give its scene, of understudy twin build")
        if self.eyes and (self.robot or not self.correct):
            why = "an arm has its own cameras" if self.robot else "with correct: false nobody looks"
            raise ValueError(f"eyes are of a stand-in whose pictures correct its twin; {why}: leave them out")

    def _check_stand_in(self, other: World) -> None:
        """Refuse a stand-in of another task, or with settings that the twin alone has."""
        if other.task != self.of.task:
            raise ValueError(f"a twin of {self.of.task} cannot be followed by a stand-in of {other.task}")
        for name in ("cameras", "horizon", "delay"):
            if (value := getattr(other, name)) and value != getattr(self.of, name):
                raise ValueError(
                    f"real.of.{name} would do nothing: an episode's {name} is that of the twin (of.{name})"
                )

    @property
    def folder(self) -> Path:
        """That of the scene, `$VAR` expanded."""
        return Path(os.path.expandvars(self.scene))

    def allow(self) -> None:
        super().allow()
        if self.robot and not self.yes:
            ask(f"the arm of {self.robot} is about to follow its twin", instead=IN_WORLD)

    @property
    def online(self) -> bool:
        """Whether anything follows it."""
        return self.real is not None or bool(self.robot)

    @property
    def start_set(self) -> str:
        return start_set(self.of)

    @property
    def perturbable(self) -> tuple[str, ...] | None:
        return () if self.online else None

    @property
    def by_the_clock(self) -> bool:
        return self.pace == "wall" if self.online else self.of.by_the_clock

    @property
    def moves_arm(self) -> bool:
        return bool(self.robot) or self.of.moves_arm

    def lane(self) -> gymnasium.Env:
        if not self.online:
            return self.clean.lane()
        from .live.online import OnlineLane

        return OnlineLane(self)

    def fingerprint(self) -> dict:
        seen: dict[str, Any] = {}
        if self.scene:
            self._check_source(str(read_json(self.folder / CARD).get("source")))
            seen = {"identity": identity_of(self.folder)}
        if not self.online:
            return self.clean.fingerprint() | {"twin": {"offline": True} | seen if seen else "offline"}
        about = {name: getattr(self, name) for name in ("robot", "scene", "correct", "judge", "pace", "align", "eyes")}
        about |= {"loop": dataclasses.asdict(self.loop)} | seen
        if self.real is not None:
            other = (self.real.of or self.of).fingerprint()
            about |= {"real": other | {"changes": dataclasses.asdict(self.real.changes), "seed": self.real.seed}}
        return self.clean.fingerprint() | {"twin": about}

    # -- the parts of the loop's process

    def stage(self) -> Stage:
        """Build twin, what follows it and what corrects it, in the process of the loop."""
        from .live.online import Stage

        lane = self.clean.lane()
        assert isinstance(lane, TaskEnv)
        views, eyes = self.cameras_about()
        return Stage(lane, self.follower(lane, views, eyes), self.aligner(), self)

    def cameras_about(self) -> tuple[dict[str, View | Camera], dict[str, tuple[int, int]]]:
        """Places, and sizes (height, width) of the cameras that look at a stand-in."""
        if not self.correct:
            return {}, {}
        own = {camera.name: camera for camera in self._cameras()}
        self._check_eyes({name: (camera.height, camera.width) for name, camera in own.items()})
        sizes = self.eyes or {name: (camera.height, camera.width) for name, camera in own.items()} or EYES
        eyes = {name: (int(size[0]), int(size[1])) for name, size in sizes.items()}
        known = default_views(task_of(self.of)) | own
        return {name: known[name] for name in eyes if name in known}, eyes

    def follower(self, lane: TaskEnv, views: dict[str, View | Camera], eyes: dict[str, tuple[int, int]]) -> Real:
        """What follows the twin, connected."""
        if self.real is None:
            from ..open import robot_config
            from .reality.follow import GuardedArm
            from .reality.layout import Joints

            looks = {camera.name: (camera.height, camera.width) for camera in self._cameras()} if self.correct else {}
            return GuardedArm(robot_config(self.robot), Joints.of(lane.model), self.loop.rate, looks)
        real = self.real
        stand_in = (real.of or self.of, real.changes, eyes, views, self.loop.rate, real.seed)
        if self.pace == "wall":
            from .reality.remote import RemoteStandIn

            return RemoteStandIn(*stand_in)
        from .reality.follow import GuardedStandIn

        return GuardedStandIn(StandIn(*stand_in))

    def aligner(self) -> Aligner | None:
        """What corrects the twin; None without a scene."""
        if not self.correct or not self.scene:
            return None
        from .align import Aligner
        from .scene import TwinScene

        scene = TwinScene.load(self.folder)
        self._check_source(scene.source)
        names = [camera.name for camera in scene.cameras]
        if unknown := set(self.loop.trust.bounds) - set(names):
            raise ValueError(f"loop.trust.bounds: no camera '{min(unknown)}'; the scene has {', '.join(names)}")
        return Aligner.of(scene, self.alignment())

    def alignment(self) -> AlignSettings:
        """How pictures correct the twin. Raises ValueError: `align` holds what is no setting of it."""
        from .align import AlignSettings

        return decode(AlignSettings, {"rate": self.loop.rate} | self.align)

    def _check_source(self, source: str) -> None:
        """Refuse the scene of another world."""
        if source not in (self.of.task, self.of.get_choice_name(type(self.of))):
            raise ValueError(f"{self.scene} was built of {source}; this is a twin of {self.of.task}")

    def _check_eyes(self, own: dict[str, tuple[int, int]]) -> None:
        """Refuse eyes that the scene does not have: nobody would compare what they see."""
        for name, size in self.eyes.items() if own else ():
            if own.get(name) != tuple(size):
                raise ValueError(
                    f"eyes: the scene {self.scene} compares pictures of {own} (height, width), so those of {name} at "
                    f"{tuple(size)} would correct nothing"
                )

    def _cameras(self) -> tuple[Camera, ...]:
        from .gaussians import read_cameras

        return read_cameras(self.folder) if self.scene else ()

"""A dream as a world: lanes begin at true first frames and go on in what a world model imagines, all at once.

World type `dream`. Its settings need no torch; what computes is in `dreaming.py`. Nothing here is true but the first
frame: see docs/dreams.md for what may be believed, and `gate.py` for when nothing may.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configs.spec import SCENE, STATE, Embodiment
from ..configs.world import World, read_world, start_set
from .gate import JUDGES, DreamError, noted, success_of

if TYPE_CHECKING:
    from ..configs.lanes.lane import LaneGroup
    from ..configs.lanes.pulse import Pulse
    from .dreaming import DreamLane


@World.register_subclass("dream")
@dataclass(frozen=True, kw_only=True)
class DreamWorld(World):
    """What a world model imagines from true first frames."""

    model: str = ""  # run or checkpoint of a `video` world model
    starts: str = (
        ""  # where first frames come from: a world by name or YAML file, or a dataset with the model's cameras
    )
    batch: int = 8  # lanes imagined at a time; results depend on it in the last digits
    judge: str = "learned"  # learned: the model's; states: the rules of `starts`, by the states read from frames
    judge_every: int = 2  # control steps between two looks of the judge
    success_at: float | None = None  # probability of success from which it counts; None: as measured, else 0.5
    real_at: float = 0.1  # below this probability that a film can be true, success does not count
    seed: int = 0  # of a model that is a field
    signals: bool = False  # tell how much the films are to be doubted, in `labels`; about twice the time
    device: str = "cpu"  # cpu | cuda
    precision: str = "no"  # of the networks: no (float32) or bf16, faster where the processor has it
    threads: int | None = None  # of torch, where nothing else has set them

    def __post_init__(self):
        if not self.model:
            raise DreamError("`model` of a dream names the run of a trained world model (understudy train, type video)")
        if not self.starts:
            raise DreamError(
                f"`starts` of a dream of {self.model} says where films begin: a world such as pusht, or a dataset"
            )
        if self.judge not in JUDGES:
            raise DreamError(f"judge of a dream is {' or '.join(JUDGES)}, got '{self.judge}'")
        if self.judge == "states" and self.success_at is not None:
            raise DreamError(
                f"success_at {self.success_at:g} is a probability of the learned judge, and the rules of {self.starts} "
                "say yes or no; leave it out, or `judge: states`"
            )
        if self.precision not in ("no", "bf16"):
            raise DreamError(f"precision of a dream is no or bf16, got '{self.precision}'")
        if not (0 <= self.real_at < 1 and (self.success_at is None or 0 < self.success_at <= 1)):
            raise DreamError(
                f"success_at and real_at of a dream are probabilities, 0 < success_at <= 1 and 0 <= real_at < 1; got "
                f"{self.success_at} and {self.real_at}"
            )
        if self.seed < 0:
            raise DreamError(f"seed of a dream must be at least 0, got {self.seed}")
        if self.batch < 1 or self.judge_every < 1:
            raise DreamError(f"batch and judge_every must be at least 1, got {self.batch} and {self.judge_every}")

    @property
    def undemonstrated(self) -> str:
        return "a scripted expert acts by true states, and a dream has none: record in the world that was learnt from"

    @cached_property
    def folder(self) -> Path:
        """Of the checkpoint. Raises FileNotFoundError."""
        from ..policies.learning.checkpoint import find_checkpoint

        return find_checkpoint(self.model)

    @cached_property
    def body(self) -> Embodiment:
        """Who acts, with all cameras and the states that are read."""
        from ..policies.learning.checkpoint import read_embodiment

        return read_embodiment(self.folder)

    @property
    def succeeds_at(self) -> float:
        """`success_at`, or what `eval --world-model` measured, or 1 of rules.

        Raises DreamError: it was measured with other looks.
        """
        if self.judge == "states":
            return 1.0
        if self.success_at is not None:
            return self.success_at
        from ..policies.learning.checkpoint import fingerprint

        return success_of(noted(self.folder, fingerprint(self.folder)), self.judge_every, self.real_at)

    @cached_property
    def settings(self) -> Any:
        """Of the model. Raises DreamError for one that imagines nothing."""
        from ..policies.learning.checkpoint import _document, load_config

        config = load_config(_document(self.folder), self.folder)
        if not hasattr(config, "eyes"):
            raise DreamError(f"{self.folder} holds no model that imagines; give the run of type `video`")
        return config

    @property
    def noisy(self) -> bool:
        """Whether films depend on noise; those of a model that imagines in one pass do not."""
        form = getattr(self.settings, "form", None)
        return form is None or form.value != "one_pass"

    @cached_property
    def truth(self) -> World | None:
        """The world that first frames come from; None where they were recorded. Raises DreamError: an arm."""
        from ..policies.data.layout import expand_path

        if expand_path(self.starts).is_dir():
            return None
        world = read_world(os.path.expandvars(self.starts))
        if world.moves_arm:
            raise DreamError(f"`starts` of a dream is an arm ({self.starts}), which would move: give a dataset of it")
        return world

    def embodiment(self) -> Embodiment:
        import dataclasses

        read = self.settings.eyes.states or ()
        cleared: dict[str, tuple] = {} if STATE in read else {"state": (), "state_units": ()}
        cleared |= {} if SCENE in read else {"scene": (), "scene_units": ()}
        return dataclasses.replace(self.body, **cleared).with_cameras(self.cameras)  # type: ignore[arg-type]

    def views(self) -> tuple[str, ...]:
        return tuple(self.settings.eyes.cameras)

    def lane(self) -> DreamLane:
        from .dreaming import DreamLane

        return DreamLane(self)

    def group(self, pulse: Pulse | None) -> LaneGroup:
        from .dreaming import DreamGroup

        return DreamGroup(self, pulse)

    def steps(self) -> int:
        if self.horizon is not None:
            return self.horizon
        if self.truth is not None:
            return self.truth.steps()
        raise DreamError(f"say `horizon`: recordings ({self.starts}) do not tell when an episode is cut")

    @property
    def start_set(self) -> str:
        """The truth's, so that rows join with it; of recordings, the recordings'."""
        if self.truth is not None:
            return start_set(self.truth)
        from ..policies.data.open import open_dataset

        return f"recorded/{open_dataset(self.starts, columns=(), check=False).fingerprint}"

    def fingerprint(self) -> dict:
        from ..configs.machine import versions
        from ..policies.learning.checkpoint import fingerprint

        names = ("batch", "judge_every", "real_at", "seed", "device", "delay")
        settings: dict[str, Any] = {name: getattr(self, name) for name in names} | {"success_at": self.succeeds_at}
        settings |= {"judge": self.judge} if self.judge != "learned" else {}
        settings |= {"signals": True} if self.signals else {}
        settings |= {"precision": self.precision} if self.precision != "no" else {}
        settings |= {"noise": "own"} if self.noisy else {}  # older records shared that of the policy
        origin = {"starts": self.truth.fingerprint()} if self.truth is not None else {"starts": self.start_set}
        about = {"type": "dream", "model": fingerprint(self.folder), "horizon": self.steps(), "cameras": self.cameras}
        return about | settings | origin | {"versions": versions("torch")}

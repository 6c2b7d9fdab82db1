"""What `understudy bench` is asked for: which flags each bench reads, and the machine that it runs on."""

from __future__ import annotations

import dataclasses
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...configs.plugins import lookup

RACES = {"seconds", "pairs"}
SIDES = {"channels", "pictures", "threads"}
RUNS = {"task", "envs", "size", "n_action_steps", "episodes", "steps", "cameras"}
READS = {  # bench -> the flags that it reads, beside `out`; others are refused
    "loader": {"data", "seconds"},
    "train": RACES | SIDES | {"batch", "horizon", "device", "precision"},
    "latency": RACES | SIDES | {"observations", "horizon", "solver_steps", "device"},
    "learn": SIDES | {"data", "seconds", "batch", "turns", "noise_draws", "against", "context"},
    "stages": RACES | {"batch", "context", "pictures", "threads"},
    "rollout": RACES | RUNS | {"scaling"},
    "cluster": RUNS | {"pairs"},
    "robot": {"seconds"},
    "twin": {"task", "data", "seconds"},
    "serve": RACES,
    "report": set(),
    "dream": RACES | {"data", "batch", "device", "threads"},
    "all": {"quick", "again", "busy"},
}
AGAINST = {  # learn: peer -> the flags that it does not read
    "lerobot": {"context"},
    "end_to_end": {"channels", "noise_draws"},
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One bench, and how it is measured."""

    # former names that are still read
    RENAMED: ClassVar[dict[str, str]] = {"execute": "n_action_steps", "lanes": "observations"}

    POSITIONALS: ClassVar[tuple[str, ...]] = ("what",)

    # loader | train | latency | learn | stages | rollout | cluster | robot | twin | serve | report | dream | all
    what: str = ""
    # loader, learn: a LeRobot v3.0 dataset, default for the loader one made up of 180 episodes; dream: run of a world
    # model of PushT, default one of the usual size that is made here
    data: str = ""
    seconds: float = 0.0  # of each measurement; default 5 for the loader, 20 for robot and twin, 0.5 a turn else
    pairs: int = 9  # train, latency, rollout, serve: interleaved pairs, of which the median ratio is taken
    batch: int = 64  # train, learn, stages: windows a step; dream: films imagined at once
    turns: int = 10  # learn: turns of --seconds CPU seconds of each side, after which the held-out loss is measured
    noise_draws: int = 4  # learn: noised chunks that ours trains on each encoded observation
    against: str = "lerobot"  # learn: lerobot | end_to_end, a long context in stages beside the same without them
    context: int = 16  # stages, learn --against end_to_end: observed frames
    observations: int = 1  # latency: planned for at a time
    horizon: int = 16  # train, latency: actions of a chunk
    channels: tuple[int, ...] = (64, 128, 256)  # train, latency: of the U-Net's levels
    solver_steps: int = 10  # latency: DDIM steps
    pictures: int = 0  # train, latency, learn: px of the pictures that a ResNet-18 reads on both sides; 0: states alone
    device: str = "cpu"  # train, latency: of both sides, on a GPU train also has rows of the recorded step; dream
    # rollout: a robosuite task, beside robosuite; or pusht, beside lerobot-eval; twin: its task, so101-pusht by default
    task: str = "lift"
    envs: int = 8  # rollout of pusht: environments on both sides; --scaling: those of a block
    size: int = 84  # rollout: px, height and width of the pictures
    n_action_steps: int = 8  # rollout: control steps of a chunk
    scaling: str = ""  # rollout: numbers of workers beside one process, such as 1,2,4
    episodes: int = 0  # rollout --scaling, cluster: of each run; default two blocks a worker
    steps: int = 100  # rollout --scaling, cluster: control steps of an episode
    cameras: int = 0  # rollout --scaling, cluster: pictures of so many cameras
    precision: str = "no"  # train: of both sides, no (float32) or bf16
    threads: int | None = None  # train, latency, dream: of torch; default all cores
    out: Path | None = None  # also write the JSON to this file; all: the folder of all files, default out/bench
    quick: bool = False  # all: seconds instead of minutes each, to see that they run; the ratios are rough
    again: bool = False  # all: measure again what is there already
    busy: bool = False  # all: measure though other work keeps the machine busy; the table says so

    def __post_init__(self):
        if self.what not in READS:
            return  # refused by name when it is run
        given = [item.name for item in dataclasses.fields(self) if getattr(self, item.name) != item.default]
        if unread := [name for name in given if name not in READS[self.what] | {"what", "out"}]:
            known = ", ".join(f"--{name}" for name in sorted(READS[self.what])) or "no other flag than --out"
            raise ValueError(f"`bench {self.what}` does not read --{unread[0]}; it reads {known}")
        lookup("peer", self.against, AGAINST)
        if self.what == "learn" and (unread := sorted(AGAINST[self.against] & {*given})):
            raise ValueError(f"`bench learn --against {self.against}` does not read --{unread[0]}")
        if self.context < 2:
            raise ValueError(f"a long context has at least 2 frames, got {self.context}")


def describe_machine() -> dict:
    """What ran the numbers: processor, cores, load, versions. Names no host."""
    from ...configs.machine import versions

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    packages = versions("torch", "numpy", "lerobot", "diffusers")
    return {"processor": _processor(), "cores": cores, "load": load, "python": platform.python_version()} | packages


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

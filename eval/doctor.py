"""Try what this machine can do: draw pictures, decode videos, import the peers; versions alone prove nothing.

Every trial that could crash or hang runs in a process of its own. Exit status 0 when the core works (Python, packages,
one way to draw, one video codec), 1 otherwise.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..configs.extras import pip_install
from ..configs.finding import Finding

CORE = ("torch", "numpy", "scipy", "diffusers", "accelerate", "safetensors", "gymnasium", "mujoco", "av", "pyarrow")
CORE += ("draccus", "jinja2", "matplotlib", "opencv-python-headless")
EXTRAS = {  # package -> what installs it
    "robosuite": "sim",
    "gym-pusht": "sim",
    "lerobot": "lerobot",
    "tensorboard": "log",
    "wandb": "log",
    "pyserial": "hardware",
}
BACKENDS = {  # GL back end -> what installs it
    "egl": "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri",
    "osmesa": "apt-get install libosmesa6",
}
PYTHONS = ("3.11", "3.12", "3.13")  # those that are supported
CODECS = {"h264": ("libx264", "h264"), "AV1": ("libsvtav1", "libdav1d")}  # name -> (encoder, decoder)

OPENCV = tuple(f"opencv-{kind}" for kind in ("python", "python-headless", "contrib-python", "contrib-python-headless"))

_MUJOCO = """
import mujoco
mujoco.MjModel.from_xml_string("<mujoco/>")
print(f"{mujoco.__version__} imports")
"""
_DRAW = """
import time, mujoco
xml = '<mujoco><worldbody><light pos="0 0 3"/><geom type="sphere" size="1" rgba="1 0 0 1"/></worldbody></mujoco>'
model = mujoco.MjModel.from_xml_string(xml)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 96, 96)
renderer.render()
start = time.perf_counter()
for _ in range(20):
    renderer.update_scene(data)
    picture = renderer.render()
assert picture.std() > 0, "the picture is blank"
print(f"{20 / (time.perf_counter() - start):.0f} pictures/s at 96x96")
"""
_VIDEO = """
import io, sys, av, numpy
encoder, decoder = sys.argv[1:]
wave = numpy.add.outer(numpy.arange(64), numpy.arange(64))
frames = [numpy.repeat(((wave + 8 * i) % 128 + 64).astype("uint8")[..., None], 3, -1) for i in range(8)]
file = io.BytesIO()
with av.open(file, "w", format="mp4") as out:
    stream = out.add_stream(encoder, 10)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    for frame in frames:
        out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    out.mux(stream.encode(None))
file.seek(0)
with av.open(file) as source:
    context = av.CodecContext.create(decoder, "r")
    context.extradata = source.streams.video[0].codec_context.extradata
    back = [f.to_ndarray(format="rgb24") for p in source.demux(video=0) for f in context.decode(p if p.size else None)]
error = numpy.abs(numpy.float32(frames) - numpy.float32(back)).mean()
assert len(back) == 8 and error < 30, f"{len(back)} of 8 frames came back, off by {error:.0f} of 255"
print(f"8 frames through {encoder} and {decoder}, mean error {error:.1f} of 255")
"""
_TORCHVISION = """
import torch, torchvision
torchvision.ops.nms(torch.rand(2, 4), torch.rand(2), 0.5)
print(f"{torchvision.__version__} works beside torch {torch.__version__}")
"""
_BF16 = """
from understudy.configs.devices import computes_bf16
raise SystemExit(not computes_bf16("cpu"))
"""
_LEROBOT = """
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
print("datasets and policies import")
"""
_TORCHCODEC = """
from torchcodec.decoders import VideoDecoder
print("imports, with the FFmpeg libraries of the system")
"""
_GPU = """
import torch
for i in range(torch.cuda.device_count()):
    free, total = torch.cuda.mem_get_info(i)
    print(f"{torch.cuda.get_device_name(i)}, {total / 2**30:.0f} GiB, CUDA {torch.version.cuda}", end="; ")
"""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Try what this machine can do, and say what to install for what is missing; with a path, what is wrong there."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("path",)

    path: str | None = None  # a record, run or checkpoint: examine it in place of the machine
    robot: dict | str | None = None  # a robot instead, by name, YAML file or keys: what is wrong; it is not moved
    port: str | None = None  # of the robot
    calibration: str | None = None  # of the robot: lerobot's file; default: its usual place
    json: bool = False  # print one JSON object in place of the table
    quick: bool = False  # leave out the imports of torchvision, torchcodec and lerobot, which take half of the time

    def __post_init__(self) -> None:
        for flag in ("port", "calibration"):
            if self.robot is None and getattr(self, flag) is not None:
                raise ValueError(f"--{flag} of which robot? Give --robot NAME, such as so101 (understudy list robots)")
        if self.robot is not None and self.path is not None:
            raise ValueError(f"'{self.path}' or --robot? One at a time")

    def run(self) -> None:
        if self.robot is not None:
            from ..hardware.examine import examine_robot

            findings = list(examine_robot(self.robot, self.port, self.calibration))
        else:
            findings = list(examine(self.quick) if self.path is None else examine_path(self.path))
        machine = self.path is None and self.robot is None
        broken = sick(findings) if machine else [f.what for f in findings if f.needed and not f.works]
        if self.json:
            import dataclasses
            import json

            print(json.dumps({"works": not broken, "findings": [dataclasses.asdict(f) for f in findings]}, indent=1))
        else:
            print("\n".join(map(_line, findings)))
            if machine:
                print("\nThe core works." if not broken else f"\nThe core does not work: {', '.join(broken)}.")
        if broken:
            raise SystemExit(1)


def examine(quick: bool = False) -> Iterator[Finding]:
    """Run all trials; those in processes of their own go two at a time."""
    yield python()
    yield from packages()
    yield bounds()
    trials: list[Callable[[], Finding]] = [
        mujoco,
        *(lambda name=name: rendering(name) for name in BACKENDS),
        *(lambda name=name: video(name) for name in CODECS),
        gpu,
        *(() if quick else (torchvision, torchcodec, lerobot)),
    ]
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(lambda trial: trial(), trials)
    yield machine()


def examine_path(path: str) -> Iterator[Finding]:
    """What is wrong with an episode record, a training run or a checkpoint.

    Raises:
        FileNotFoundError: nothing there that can be examined.
    """
    from ..policies.learning.examine import examine_checkpoint, examine_run, is_checkpoint, is_run
    from .ledger.examine import is_record
    from .offline.record import is_error_record

    kinds = (
        (is_error_record, _examine_errors),
        (is_record, _examine_record),
        (is_run, examine_run),
        (is_checkpoint, examine_checkpoint),
    )
    place = Path(os.path.expandvars(path))
    examined = next((look for recognises, look in kinds if recognises(place)), None)
    if examined is None:
        raise FileNotFoundError(
            f"'{path}' is no episode record (it has no manifest.json), no training run and no checkpoint"
        )
    yield from examined(place)


def _examine_record(path: Path) -> Iterator[Finding]:
    from .ledger.examine import record_faults, record_remarks

    faults = record_faults(path)
    yield from (Finding("record", False, fault, needed=True) for fault in faults)
    if not faults:
        yield from (Finding("record", True, remark) for remark in record_remarks(path))


def _examine_errors(path: Path) -> Iterator[Finding]:
    from .offline.record import error_faults, error_remarks

    faults = error_faults(path)
    yield from (Finding("open-loop record", False, fault, needed=True) for fault in faults)
    if not faults:
        yield from (Finding("open-loop record", True, remark) for remark in error_remarks(path))


def sick(findings: list[Finding]) -> list[str]:
    """What the core lacks. Any one way to draw and any one codec is enough."""
    broken = [f.what for f in findings if f.needed and not f.works]
    for kind in ("rendering", "video"):
        if not any(f.works for f in findings if f.what.startswith(kind)):
            broken.append(kind)
    return broken


def python() -> Finding:
    works = ".".join(platform.python_version_tuple()[:2]) in PYTHONS
    advice = f"install one of Python {', '.join(PYTHONS)}, then: make setup"
    return Finding("python", works, f"{platform.python_version()} at {sys.prefix}", advice, True)


def packages() -> Iterator[Finding]:
    """The core's packages on one line unless some are absent; then each extra's."""
    from ..configs.machine import versions

    core = versions(*CORE)
    absent = [name for name, version in core.items() if version == "absent"]
    shown = ", ".join(f"{name} {version}" for name, version in core.items())
    yield Finding("packages", not absent, shown, f"make setup, or: pip install {' '.join(absent)}", True)
    for name, version in versions(*EXTRAS).items():
        if name == "lerobot":
            yield lerobot_version(version)
            continue
        if name == "robosuite":
            yield robosuite_version(version, versions("mujoco")["mujoco"])
            continue
        yield Finding(name, version != "absent", version, f"make setup, or: {pip_install(EXTRAS[name])}")


def robosuite_version(version: str, mujoco: str) -> Finding:
    """Whether robosuite is there, beside a MuJoCo that it works with: its own metadata put no bound."""
    advice = f"make setup, or: {pip_install('sim')}"
    if version == "absent" or mujoco == "absent" or release(mujoco) < (3, 10):
        return Finding("robosuite", version != "absent", version, advice)
    detail = f"{version} cannot build a world beside mujoco {mujoco}: its calls changed in 3.10"
    return Finding("robosuite", False, detail, f"{MUJOCO_AGAIN} (or make setup)")


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, such as (3, 10, 0)."""
    from packaging.version import Version

    return Version(version).release


MUJOCO_AGAIN = (
    "pip uninstall -y mujoco mujoco-core mujoco-studio, then:"
    " pip install --force-reinstall --no-deps 'mujoco>=3.3,<3.10'"
)


def mujoco() -> Finding:
    """Whether MuJoCo can be imported: an upgrade from 3 to 4 in place leaves it broken, and pip calls that well."""
    works, detail = attempt(_MUJOCO)
    advice = f"an upgrade in place removes files of the new one; {MUJOCO_AGAIN}. Or a fresh environment: make setup"
    return Finding("mujoco", works, detail, advice, True)


def bounds() -> Finding:
    """Whether what is installed lies within what we are tested with, and one package alone owns `cv2`."""
    from ..configs.machine import versions

    wrong = out_of_bounds()
    owners = [f"{name} {version}" for name, version in versions(*OPENCV).items() if version != "absent"]
    if len(owners) > 1:
        wrong["opencv"] = f"{' and '.join(owners)} both own cv2, and either may break it; keep opencv-python-headless"
    detail = "; ".join(wrong.values()) if wrong else "what is installed is what understudy asks for"
    asked = " ".join(f"'{name}'" for name in wrong if name != "opencv")
    return Finding("versions", not wrong, detail, f"make setup, or: pip install {asked}".removesuffix(" "))


def out_of_bounds() -> dict[str, str]:
    """What we ask for -> what is there instead; absent packages are another matter."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    from ..configs.machine import versions

    try:
        asked = [Requirement(text) for text in requires("understudy") or ()]
    except PackageNotFoundError:
        return {}
    wrong = {}
    for requirement in asked:
        extras = ("", "sim", "hardware", "log", "lerobot")
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        version = versions(requirement.name)[requirement.name]
        if version == "absent" or requirement.name == "lerobot":  # the latter has a line of its own
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong[f"{requirement.name}{requirement.specifier}"] = (
                f"{requirement.name} {version} is not within {requirement.specifier}"
            )
    return wrong


def rendering(backend: str) -> Finding:
    works, detail = attempt(_DRAW, MUJOCO_GL=backend)
    return Finding(f"rendering {backend}", works, detail, BACKENDS[backend])


def video(codec: str) -> Finding:
    works, detail = attempt(_VIDEO, *CODECS[codec])
    return Finding(f"video {codec}", works, detail, "pip install 'av>=15,<16' (its wheels carry the codecs)")


def lerobot_version(version: str) -> Finding:
    """Whether the installed lerobot is the one that this Python is tested with."""
    tested = wanted_lerobot()
    detail = version if version == tested else f"{version}; the one for this Python is {tested}"
    return Finding("lerobot", version == tested, detail, f"make setup, or: {pip_install('lerobot')}")


def wanted_lerobot() -> str:
    """The version of lerobot that our own metadata ask for on the running Python."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    try:
        asked = [Requirement(text) for text in requires("understudy") or () if text.startswith("lerobot")]
    except PackageNotFoundError:
        return "unknown: understudy itself is not installed"
    mine = [r for r in asked if r.marker is None or r.marker.evaluate({"extra": "lerobot"})]
    return str(mine[0].specifier).removeprefix("==") if mine else "none"


def torchvision() -> Finding:
    """Whether torch and torchvision come from one build: without help of ours, as stock lerobot imports them."""
    works, detail = attempt(_TORCHVISION)
    advice = "bash setup.sh, which takes torch and torchvision from one build; stock lerobot needs both"
    return Finding("torchvision", works, detail, advice)


def lerobot() -> Finding:
    works, detail = attempt(_LEROBOT, HF_HUB_OFFLINE="1")
    return Finding(
        "lerobot import", works, detail, "make setup; wanted for the peer in 'bench' and the format check only"
    )


def torchcodec() -> Finding:
    works, detail = attempt(_TORCHCODEC)
    advice = "make setup and apt-get install ffmpeg; only stock lerobot reads videos through it"
    return Finding("torchcodec", works, detail, advice)


def gpu() -> Finding:
    works, detail = attempt(_GPU)
    usable = works and bool(detail)
    advice = "nothing to do where there is no GPU; else a CUDA build of torch"
    return Finding("gpu", usable, detail.rstrip("; ") if detail else "none that torch can use", advice)


def machine() -> Finding:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    disk = shutil.disk_usage(".")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    half = "bf16" if attempt(_BF16)[0] else "no bf16: train with --precision no or auto"
    detail = f"{cores} cores, {half}, {memory:.0f} GiB memory, {disk.free / 2**30:.0f} GiB free on this disk"
    return Finding("machine", disk.free > 2**30, detail, "free some disk: runs and caches want a GiB or more")


def attempt(code: str, *words: str, **environment: str) -> tuple[bool, str]:
    """Run Python code in a process of its own: (did it succeed, what it printed or the last line of its complaint)."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *words],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        return False, "gave no answer in 120 s"
    if done.returncode == 0:
        return True, done.stdout.strip()
    complaint = done.stderr.strip().splitlines() or [f"died with status {done.returncode}"]
    return False, complaint[-1][:200]


def _line(finding: Finding) -> str:
    mark = "ok" if finding.works else "!!" if finding.needed else "--"
    advice = "" if finding.works or not finding.advice else f"\n{'':24}to have it: {finding.advice}"
    return f"{mark:<4}{finding.what:<20}{finding.detail}{advice}"

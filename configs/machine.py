"""This machine: the few process-wide settings that must be made before torch or MuJoCo are imported.

It knows nothing of policies or worlds and imports neither torch nor MuJoCo; the GL back end is tried in a subprocess,
once, and remembered in the cache folder (`UNDERSTUDY_CACHE`). The allocator and OpenMP settings were measured: on two
shared cores they save 30 % of a training step, and up to 10x when other processes run.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from .files import replace_text

BACKENDS = ("egl", "osmesa")  # tried in this order where there is no display
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_TRIAL = """
import mujoco, numpy
xml = '<mujoco><worldbody><light pos="0 0 3"/><geom type="sphere" size="1" rgba="1 0 0 1"/></worldbody></mujoco>'
model = mujoco.MjModel.from_xml_string(xml)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 16, 16)
renderer.update_scene(data)
raise SystemExit(0 if renderer.render().std() > 0 else 1)
"""


def prepare() -> None:
    """Set OpenMP, allocator, SDL and GL for this process. Call before torch and MuJoCo; repeated calls are cheap.

    GL is put right after MuJoCo too; for OpenMP it is too late where torch was imported before.

    Variables that the user has set are left alone.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if not _has_display():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if "MUJOCO_GL" not in os.environ and (backend := choose_gl()):
        os.environ["MUJOCO_GL"] = backend
        _tell_mujoco()
    _keep_memory()


def _tell_mujoco() -> None:
    """Where MuJoCo was imported already it has chosen how to draw, for a display: let it choose again."""
    for name in ("mujoco.rendering.classic.gl_context", "mujoco.gl_context"):
        if name in sys.modules:
            importlib.reload(sys.modules[name])


def cache_folder() -> Path:
    """Where what can be made again is kept: `UNDERSTUDY_CACHE`, else `~/.cache/understudy`."""
    return Path(os.environ.get("UNDERSTUDY_CACHE") or Path.home() / ".cache" / "understudy").expanduser()


def choose_gl(fresh: bool = False) -> str | None:
    """The GL back end that MuJoCo can draw with here: "egl", "osmesa", or None (leave MuJoCo's own choice).

    With a display, or on a system that is not Linux, MuJoCo's own choice stands. `fresh` tries again in place of the
    remembered answer. Where nothing works the answer is None and is not remembered, so that installing a library helps.
    """
    if _has_display() or importlib.util.find_spec("mujoco") is None:
        return None
    memory = cache_folder() / "gl.json"
    key = f"{platform.node()} {sys.prefix} mujoco {versions('mujoco')['mujoco']}"
    remembered = _read(memory)
    if not fresh and remembered.get(key) in BACKENDS:
        return remembered[key]

    backend = next((name for name in BACKENDS if _draws(name)), None)
    if backend:
        _write(memory, remembered | {key: backend})
    return backend


def versions(*packages: str) -> dict[str, str]:
    """Installed version of each distribution; "absent" where there is none."""
    installed = {}
    for name in packages:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = "absent"
    return installed


def _has_display() -> bool:
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _draws(backend: str) -> bool:
    """Whether a subprocess can draw a red ball with this back end."""
    environment = os.environ | {"MUJOCO_GL": backend}
    try:
        done = subprocess.run([sys.executable, "-P", "-c", _TRIAL], env=environment, capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _write(path: Path, values: dict) -> None:
    """Beside and renamed; a cache that cannot be written is only slower."""
    try:
        replace_text(path, json.dumps(values, indent=1))
    except OSError:
        return


def _keep_memory() -> None:
    """Tell glibc to keep big freed blocks: giving them back costs a page fault for every tensor."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)

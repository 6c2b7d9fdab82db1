"""What a result may depend on beside policy and world: code, versions, machine. No host or user names."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from ...configs.machine import versions

PACKAGES = ("torch", "numpy", "scipy", "mujoco", "robosuite", "gym-pusht", "pymunk", "gymnasium", "lerobot")


def provenance() -> dict:
    """What the result may depend on beside policy and world: code, versions, machine. No host or user names."""
    from ... import __version__

    packages = {name: version for name, version in versions(*PACKAGES).items() if version != "absent"}
    return {
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": {"understudy": __version__} | _commit(),
        "versions": {"python": platform.python_version()} | packages,
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "gl": os.environ.get("MUJOCO_GL", ""),
        },
    }


def _commit() -> dict:
    """Commit of the checkout that this code lies in, and whether files differ from it; nothing once installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {}

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        changed = bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {"commit": commit, "changed": changed} if commit else {}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())

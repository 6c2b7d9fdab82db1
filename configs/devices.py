"""Where policies compute: `auto | cpu | cuda | cuda:N` for all verbs, checked before torch is imported."""

from __future__ import annotations

import re
import sys
from pathlib import Path

KNOWN = "auto (a GPU if there is one), cpu, cuda, cuda:N"
DRIVERS = ("nvidia*", "dxg", "kfd", "nvhost*", "nvmap")  # files of /dev that a driver of GPUs makes


def check_device(device: str) -> None:
    """Refuse a word that names no device, and a GPU where the system has no driver of one.

    Raises:
        ValueError: naming the known words.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(device)):
        raise ValueError(f"--device cannot be '{device}'. Known: {KNOWN}")
    if str(device).startswith("cuda") and _surely_none():
        raise ValueError(f"--device {device}: there is no GPU here, or no driver of one; --device auto takes the CPU")


def choose_device(device: str) -> str:
    """What a word stands for here: "cpu", "cuda" or "cuda:N".

    Raises:
        ValueError: no device, or one that torch does not see.
    """
    check_device(device)
    if surely_cpu(device):
        return "cpu"
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if count else "cpu"
    if not count:
        build = "" if torch.version.cuda or getattr(torch.version, "hip", None) else ": it is a build for CPUs alone"
        raise ValueError(f"--device {device}: torch {torch.__version__} sees no GPU{build}; see understudy doctor")
    number = int(device.partition(":")[2] or 0)
    if number >= count:
        names = ", ".join(f"cuda:{i}" for i in range(count))
        raise ValueError(f"--device {device}: there is no such GPU. Known: {names}")
    return device


def surely_cpu(device: str) -> bool:
    """Whether a word stands for the CPU here, as far as that is known without torch."""
    return device == "cpu" or (device == "auto" and _surely_none())


def device_name(device: str) -> str:
    """A chosen device as one reads it: "cpu", or the name of the GPU."""
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def _surely_none() -> bool:
    return sys.platform == "linux" and not any(any(Path("/dev").glob(name)) for name in DRIVERS)

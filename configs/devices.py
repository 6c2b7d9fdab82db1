"""Where policies compute: `auto | cpu | cuda | cuda:N` for all verbs, checked before torch is imported."""

from __future__ import annotations

import platform
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


PRECISIONS = ("no", "bf16", "auto")


def choose_precision(precision: str, device: str) -> str:
    """What a word stands for on a device that `choose_device` named: "no" (float32) or "bf16"."""
    if precision != "auto":
        return precision
    return "bf16" if computes_bf16(device) else "no"


def computes_bf16(device: str) -> bool:
    """Whether a device has instructions for bfloat16; without them it takes several times as long as float32."""
    import torch

    if device == "cpu" and platform.machine() in ("x86_64", "AMD64"):
        return torch.cpu._is_avx512_bf16_supported()  # oneDNN says yes to AVX-512 without them, too
    if device == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.cuda.is_bf16_supported(including_emulation=False)


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

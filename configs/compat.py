"""Imports that need a hand: torchvision beside a torch of another build, and lerobot without the network.

Beside a torch built for the CPU the compiled part of a torchvision built for CUDA cannot load, and its Python half then
fails with "operator torchvision::nms does not exist". Declaring the two schemas that it looks for is enough for its
models and transforms; calling `ops.nms` itself still raises. `setup.sh` takes both from one build, where nothing is to
be done; an environment that was put together by hand may need it. Nothing in this package imports torchvision, but
lerobot, timm, transformers and some diffusers modules (`EMAModel`, the video models) do: call `prepare_torchvision`
first.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path

from .extras import pip_install

_SCHEMAS = ("nms", "qnms")
_kept = []  # a torch `Library` takes its operators along when it is collected


@cache
def prepare_torchvision() -> bool:
    """Declare torchvision's operators where its own do not load; True if that was needed.

    Call before the first import of torchvision. Where its compiled part loads, nothing is declared.
    """
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or "torchvision" in sys.modules or _operators_load(Path(spec.origin).parent):
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _SCHEMAS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
    return True


def _operators_load(folder: Path) -> bool:
    """Whether torchvision's compiled part loads beside this torch, as its own import will ask once more."""
    import torch

    for compiled in [*folder.glob("_C*.so"), *folder.glob("_C*.pyd")]:
        try:
            torch.ops.load_library(str(compiled))
        except OSError:
            continue
        return True
    return False


@cache
def prepare_lerobot(offline: bool = True) -> None:
    """Make `import lerobot` safe and quiet. With `offline`, local folders are never looked up on the hub.

    Raises:
        ImportError: lerobot is not installed, and how to install it.
    """
    if importlib.util.find_spec("lerobot") is None:
        raise ImportError(f"lerobot is not installed; 'make setup' installs it, or: {pip_install('lerobot')}")
    if offline:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    prepare_torchvision()

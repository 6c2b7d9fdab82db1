"""Imports that need a hand: torchvision beside a CPU build of torch, and lerobot without the network.

The only torchvision wheels are built for CUDA. Beside a CPU torch their compiled part cannot load, and the Python half
then fails with "operator torchvision::nms does not exist". Declaring the two schemas that it looks for is enough for
its models and transforms; calling `ops.nms` itself still raises. Nothing in this package imports torchvision, but
lerobot, timm, transformers and some diffusers modules (`EMAModel`, the video models) do: call `prepare_torchvision`
first.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache

_SCHEMAS = ("nms", "qnms")
_kept = []  # a torch `Library` takes its operators along when it is collected


@cache
def prepare_torchvision() -> bool:
    """Declare torchvision's missing operators; True if that was needed. Call before the first import of torchvision."""
    import torch

    absent = importlib.util.find_spec("torchvision") is None
    if absent or "torchvision" in sys.modules or torch.version.cuda is not None:
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _SCHEMAS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
    return True


@cache
def prepare_lerobot(offline: bool = True) -> None:
    """Make `import lerobot` safe and quiet. With `offline`, local folders are never looked up on the hub.

    Raises:
        ImportError: lerobot is not installed, and how to install it.
    """
    if importlib.util.find_spec("lerobot") is None:
        raise ImportError("lerobot is not installed; 'make setup' installs it, or: pip install 'understudy[lerobot]'")
    if offline:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    prepare_torchvision()

"""What a step of training takes of the memory, found out on one window: a killed process cannot say what it lacked.

Encoders that are trained keep what they compute of every picture of a batch until the gradients are there, which is by
far the greatest part: 480x640 pixels take a ResNet-18 some 200 MB a picture. Only that is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ...configs.cores import free_memory
from ...configs.protocols import keeps
from ...configs.spec import GOAL
from ..policy import SeesGoals
from .pictures import eyes_of

SMALL = (96, 128)  # (height, width) that is advised


def check_memory(model: nn.Module, gather: Callable[[Tensor], Mapping[str, Tensor]], batch: int, learns: str) -> None:
    """Refuse a training whose first step would find no memory.

    Args:
        model: on its device.
        gather: (B,) window positions -> batch.
        batch: windows of a step.
        learns: how settings of the model begin, such as "policy".

    Raises:
        ValueError: naming what is needed, what is free, and flags that help.
    """
    eyes = eyes_of(model)
    if eyes is None or eyes.frozen:
        return
    needed = batch * kept_bytes(model, gather(torch.zeros(1, dtype=torch.int64)))
    free = _free(next(model.parameters()).device)
    if needed < free:
        return

    sizes = ", ".join(sorted({f"{height}x{width}" for height, width in eyes.sizes.values()}))
    fits = int(0.7 * batch * free / needed)
    advice = [f"read them smaller (--{learns}.vision.size '{list(SMALL)}')"] if _large(eyes.sizes.values()) else []
    advice += [f"train on fewer at a time (--batch {1 << fits.bit_length() - 1})"] if fits else []
    raise ValueError(
        f"a step of training would keep {needed / 1e9:.3g} GB of what the encoders compute of its pictures ({sizes}, "
        f"--batch {batch}), and {free / 1e9:.3g} GB of memory are free: "
        f"{', or '.join(advice) or 'take a smaller encoder'}"
    )


def kept_bytes(model: nn.Module, batch: Mapping[str, Tensor]) -> int:
    """Bytes that the encoders of a model keep of a batch for its gradients. Changes neither weights nor generators."""
    eyes = eyes_of(model)
    if eyes is None:
        return 0
    kept: dict[int, int] = {}
    own = {value.untyped_storage().data_ptr() for value in model.parameters()}
    device = next(model.parameters()).device

    def count(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    training = eyes.training
    eyes.eval()  # varies nothing, and leaves running means as they are
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
        held = {key: value.to(device) for key, value in batch.items() if key.removeprefix(GOAL) in eyes.keys}
        read = [eyes.read({key: held[key] for key in eyes.keys})]
        if keeps(model, SeesGoals) and model.goals is not None:
            read += model.goals.read(held, 1)
    eyes.train(training)
    del read
    return sum(kept.values())


def _large(sizes) -> bool:
    return any(height * width > 2 * SMALL[0] * SMALL[1] for height, width in sizes)


def _free(device: torch.device) -> float:
    if device.type != "cuda":
        return free_memory()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused

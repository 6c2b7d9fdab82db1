"""lerobot's U-Net with a row of conditioning for all candidates of a lane, and a faster Mish."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .networks.activate import replace_mish


def quicken(unet: nn.Module) -> None:
    """Let lerobot's `DiffusionConditionalUnet1d` condition once for all candidates of a lane; names of weights stay.

    Afterwards `global_cond` (B, C) may have fewer rows than the samples (B n, T, D), n in a row for each of its own;
    steps of one lane are equal. Everything that knows the observation and the step only (the embedding of the step and
    the FiLM of every block) is computed for B rows instead of B n. Results differ by rounding.
    """
    replace_mish(unet)
    copies = 1

    def share(_: nn.Module, args: tuple[Tensor, ...], named: Mapping[str, Tensor]) -> tuple[tuple, Mapping]:
        nonlocal copies
        x, steps = args
        lanes = len(named["global_cond"])
        copies = len(x) // lanes
        return (x, steps[::copies]), named

    def spread(_: nn.Module, __: tuple, film: Tensor) -> Tensor:
        return film if copies == 1 or len(film) == 1 else film.repeat_interleave(copies, 0)

    unet.register_forward_pre_hook(share, with_kwargs=True)
    for module in unet.modules():
        if hasattr(module, "cond_encoder"):
            module.cond_encoder.register_forward_hook(spread)

"""State vectors as networks read them: scaled by the dataset's statistics, key beside key, frame by frame.

What policies and critics share. Pictures are passed over here; `eyes.py` reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ...configs.spec import IMAGES, Embodiment, EmbodimentError, vectors
from ..policy import Scale, Scales


def state_scales(inputs: tuple[str, ...], scales: Scales) -> nn.ModuleDict:
    """The scale of each needed key."""
    return nn.ModuleDict({slot(key): Scale(*scales.states[key]) for key in vectors(inputs)})


def read_states(
    scales: nn.ModuleDict, inputs: tuple[str, ...], obs: Mapping[str, Tensor], bound: float | None = None
) -> Tensor:
    """Observations (B, O, n) each, units -> (B, O, F) scaled, bounded to [-bound, bound] and joined."""
    scaled = torch.cat([scales[slot(key)].scale(obs[key]) for key in vectors(inputs)], -1)
    return scaled if bound is None else scaled.clamp(-bound, bound)


def beyond(
    scales: nn.ModuleDict, inputs: tuple[str, ...], obs: Mapping[str, Tensor], bound: float
) -> Iterator[tuple[str, int, float, float]]:
    """(key, dimension, value in units, scaled value) of the farthest value of each dimension that is out of bounds.

    Environments without an episode hold zeros in every observation; they tell nothing.
    """
    keys = vectors(inputs)
    busy = torch.stack([obs[key].flatten(1).any(1) for key in keys]).any(0)  # (B,)
    for key in keys if bool(busy.any()) else ():
        values = obs[key][busy].flatten(0, -2)
        scaled = scales[slot(key)].scale(values)
        far, row = scaled.abs().max(0)
        for dim in (far > bound).nonzero()[:, 0].tolist():
            yield key, dim, float(values[row[dim], dim]), float(scaled[row[dim], dim])


def state_widths(inputs: tuple[str, ...], embodiment: Embodiment) -> tuple[int, ...]:
    """Numbers of a frame, of each needed vector."""
    return tuple(len(embodiment.offers()[key]) for key in vectors(inputs))


def slot(key: str) -> str:
    """The name of a key's scale among modules."""
    return key.replace(".", "_")  # module names may not hold dots


def refuse_pictures(inputs: tuple[str, ...], embodiment: Embodiment) -> None:
    """Raise EmbodimentError unless each needed key is a state vector that the embodiment offers."""
    for key in inputs:
        if key.startswith(IMAGES):
            raise EmbodimentError(f"'{key}' is a picture, which this model does not read; give it vectors alone")
    check_offered(inputs, embodiment)


def check_offered(inputs: tuple[str, ...], embodiment: Embodiment) -> None:
    """Raise EmbodimentError unless the embodiment offers each needed key."""
    offered = embodiment.offers()
    for key in inputs:
        if key not in offered:
            raise EmbodimentError(
                f"'{key}' is needed but not offered; '{embodiment.name}' offers {', '.join(offered) or 'nothing'}. If"
                f" it is a column of the data, read it as the state: --columns '{{observation.state: [{key}]}}'"
            )

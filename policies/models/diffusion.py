"""A field learned by denoising: Diffusion Policy (Chi et al. 2023) on the cosine path in continuous time.

Training draws noise levels evenly in the angle of the variance-preserving cosine path (Nichol & Dhariwal 2021) and fits
one of the heads epsilon, x0 or v by mean squared error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...configs.spec import Embodiment
from ..field import PredictionType
from ..networks.states import check_offered
from ..policy import PolicyConfig, Scales
from .generative import GenerativeConfig, GenerativePolicy


@PolicyConfig.register_subclass("diffusion")
@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(GenerativeConfig):
    """Diffusion policy."""

    RENAMED: ClassVar[dict[str, str]] = {"head": "prediction_type"}  # former names that are still read
    SYNONYMS: ClassVar[dict[str, dict[str, str]]] = {  # diffusers' words, where they differ from ours
        "prediction_type": {"sample": "x0", "v_prediction": "v"}
    }

    BEFORE: ClassVar[dict] = {**GenerativeConfig.BEFORE, "linear_skip": False}  # of older checkpoints

    linear_skip: bool = True  # a fixed linear map takes the noise past the network, see `skip.py`; x0 needs none
    prediction_type: PredictionType = PredictionType.v  # epsilon | x0 | v: what the network predicts

    def __post_init__(self):
        super().__post_init__()
        if self.prediction_type is PredictionType.flow:
            raise ValueError(
                "prediction type 'flow' belongs to flow matching; a diffusion policy takes epsilon, x0 or v"
            )

    def build(self, embodiment: Embodiment, scales: Scales) -> GenerativePolicy:
        check_offered(self.inputs, embodiment)
        return GenerativePolicy(self, self.prediction_type, embodiment, scales, linear_skip=self.linear_skip)

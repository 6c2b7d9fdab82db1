"""Goal pictures: what the cameras should show in the end, in place of a text that says it.

A policy that reads goals is trained with the last picture of each episode, through the encoder of the camera that took
it. When it acts it is shown one picture of each goal camera (`Goals.show`), which holds for all environments.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...configs.spec import GOAL, IMAGES
from .eyes import Eyes


class GoalError(ValueError):
    """A goal that cannot be read; the message says what to do."""


class Goals:
    """The goals of a policy.

    Args:
        keys: cameras whose last picture is the goal, among those that the policy reads.
        eyes: what reads them.
    """

    def __init__(self, keys: tuple[str, ...], eyes: Eyes | None):
        known = eyes.keys if eyes else ()
        strange = [key for key in keys if key not in known]
        if eyes is None or strange:
            raise GoalError(
                f"'{(strange or keys)[0]}' cannot be a goal: `goal` names cameras among `inputs`, "
                f"{', '.join(known) or 'which are none'}"
            )
        self.keys, self._eyes = keys, eyes
        self._shown: dict[str, Tensor] = {}  # key -> picture (h, w, 3) uint8
        self._read: dict[str, Tensor] = {}  # key -> features (F,) of it

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers that the policy reads of each goal."""
        return tuple(self._eyes.encoder(key).features for key in self.keys)

    def show(self, pictures: Mapping[str, Tensor]) -> None:
        """Act for these goals from now on: key -> picture (h, w, 3) uint8, at the size that is read.

        Raises:
            GoalError: a camera's goal is missing.
        """
        lacking = [key for key in self.keys if key not in pictures]
        if lacking:
            raise GoalError(f"the policy acts for a goal, and none is shown of '{lacking[0].removeprefix(IMAGES)}'")
        self._shown, self._read = {key: pictures[key] for key in self.keys}, {}

    def read(self, obs: Mapping[str, Tensor], lanes: int) -> list[Tensor]:
        """(B, F) of each goal: of a batch's own pictures (B, h, w, 3) or embeddings (B, E), or of what was shown.

        Raises:
            GoalError: neither is there.
        """
        return [
            self._of_batch(key, obs[GOAL + key]) if GOAL + key in obs else self._of_shown(key, lanes)
            for key in self.keys
        ]

    def _of_batch(self, key: str, goals: Tensor) -> Tensor:
        return self._eyes.read_one(key, goals[:, None])[:, 0]

    @torch.no_grad()
    def _of_shown(self, key: str, lanes: int) -> Tensor:
        if key not in self._shown:
            raise GoalError(
                f"the policy acts for a goal picture of '{key.removeprefix(IMAGES)}', and none is shown; give "
                "--goal PICTURE, or --goal DATA:EPISODE"
            )
        if key not in self._read:
            device = next(self._eyes.parameters()).device
            self._read[key] = self._eyes.read_one(key, self._shown[key][None, None].to(device))[0, 0]
        return self._read[key].expand(lanes, -1)

"""The agent of a mixture at given weights, as something that a worker can make: it loads the parents once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...configs.plugins import discover
from ...configs.spec import Embodiment
from ...configs.world import read_world
from ...policies.agent.open import instruct
from ...policies.learning.checkpoint import find_checkpoint, fingerprint
from ..rollout.recipes import ChangedPolicyError
from .fresh import open_mixture
from .search import Weights
from .settings import Settings

if TYPE_CHECKING:
    from ...configs.lanes.lanes import Lanes
    from ...policies.agent.agent import Agent
    from ...policies.compositions.mixture import Mixture

_opened: list[tuple[tuple, Mixture]] = []  # of this process: the parents at equal weights, by what they were made of


@dataclass(frozen=True, eq=False)
class MixtureRecipe:
    """Parents at some weights.

    Args:
        folders: checkpoints of the parents.
        parts: their fingerprints.
        text: what those that read the text of their task are told; None: none does.
        body: who acts; a machine that lacks the data that say it is refused.
    """

    settings: Settings
    weights: Weights
    folders: tuple[str, ...]
    parts: tuple[str, ...]
    text: str | None = None
    body: Embodiment | None = None
    needs_torch = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MixtureRecipe) and self._key() + (self.weights,) == other._key() + (other.weights,)

    def __hash__(self) -> int:
        return hash((self._key(), self.weights))

    def actor(self, lanes: Lanes) -> Agent:
        import torch

        torch.set_num_threads(self.settings.threads)
        mixture = next((opened for key, opened in _opened if key == self._key()), None)
        if mixture is None:
            discover("policies")
            if tuple(fingerprint(find_checkpoint(folder)) for folder in self.folders) != self.parts:
                raise ChangedPolicyError("a parent was changed during the search; let its training end, or use a copy")
            mixture, _ = open_mixture(self.settings, self.folders)
            if self.body not in (None, mixture.embodiment):
                raise ChangedPolicyError(
                    "who acts by the parents is said by data that are not here: put embodiment.json beside the "
                    "config.json of each, or use --engine local"
                )
            if self.text is not None:
                instruct(mixture, self.text)
            self.know(mixture)
        return agent_of(self.settings, mixture.weighted(self.weights).to(self.settings.device))

    def know(self, mixture: Mixture) -> None:
        """The parents are open in this process already."""
        _opened[:] = [(self._key(), mixture)]

    def places(self) -> tuple[str, ...]:
        return self.folders

    def moved(self, places: Mapping[str, str]) -> MixtureRecipe:
        folders = tuple(places.get(folder, folder) for folder in self.folders)
        return dataclasses.replace(self, folders=folders, settings=dataclasses.replace(self.settings, device="cpu"))

    def _key(self) -> tuple:
        names = ("n_action_steps", "steps", "solver", "scheduler", "policy_seed", "block", "threads", "device")
        return (*self.parts, *self.folders, self.text, *(getattr(self.settings, name) for name in names))


def instructed(settings: Settings, mixture: Mixture) -> str | None:
    """Give the parents that read one the text of their task; what they were told, None where none reads.

    Raises:
        ValueError: none reads the text that was given. LanguageError: one does not know it.
    """
    assert settings.world is not None, "settled where nobody said it"
    text = read_world(settings.world).task if settings.task_text is None else settings.task_text
    if instruct(mixture, text):
        return text
    if settings.task_text is not None:
        raise ValueError("none of the policies reads a text; leave out --task_text")
    return None


def agent_of(settings: Settings, mixture: Mixture) -> Agent:
    """Who acts with a mixture in the search."""
    from ...policies.agent.agent import Agent

    return Agent(mixture, lanes=settings.block, n_action_steps=mixture.n_action_steps, seed=settings.policy_seed)


def recipe_of(settings: Settings, mixture: Mixture, weights: Weights, paths: Sequence[Path]) -> MixtureRecipe:
    """The recipe of a mixture whose parents are open already."""
    parts = tuple(fingerprint(path) for path in paths)
    text = getattr(mixture, "task_text", None)
    recipe = MixtureRecipe(settings, tuple(weights), tuple(map(str, paths)), parts, text, mixture.embodiment)
    recipe.know(mixture)
    return recipe

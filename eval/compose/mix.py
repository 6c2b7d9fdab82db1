r"""Write a composition of policies as a checkpoint without a search: weights by hand, sparing, AND, OR.

    understudy mix A B --out C --how.type convex --how.weights.weights '[[0.6, 0.4]]'
    understudy mix A B --out D --how.type convex --how.weights.weights '[[0, 1], [1, 0]]' \
        --how.weights.angles '[0.2, 0.8]' --how.adapt.skip '[[0.5, 1]]'
    understudy mix A B --out E --how.type and
    understudy mix A A --out F --how.type or

The last is the control of what the sampler of AND and OR does alone. `understudy compose` searches for weights;
`understudy eval --policy C` judges what came out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...policies.policy import CompositionConfig


@dataclass(frozen=True, kw_only=True)
class Mix:
    """A composition, written without a search."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("parents",)
    DISCOVER: ClassVar[tuple[str, ...]] = ("policies",)

    parents: tuple[str, ...]  # runs or checkpoints
    how: CompositionConfig  # type convex | and | or, and its settings
    out: Path  # the checkpoint folder to write, which must be new

    def run(self) -> None:
        """Load the parents, refuse what does not compose, write. Raises FileExistsError, ValueError, LookupError."""
        from ...policies.load import load_policy, save_mixture

        if self.out.exists():
            raise FileExistsError(f"{self.out} exists; choose another --out")
        planner = self.how.build([load_policy(parent)[0] for parent in self.parents])
        save_mixture(self.out, planner, self.parents)
        print(f"written: {self.out}, {self.how.get_choice_name(type(self.how))} of {', '.join(self.parents)}")

"""From which probability on an imagined episode has succeeded: from where on as many do as truly did.

The judge's probability is of a frame, and calibrated on true frames of all kinds. The moment of a success is one frame
of an episode, known to a step or two, and imagined ones are less sharp; so the probability hardly ever reaches one half
there, and a dream in which it must sees no success at all. Whole episodes that trained nothing are imagined from their
first frames under their recorded actions, looked at as a dream looks at them, and the threshold is where as many of
them succeed as succeeded in truth. Whether they are the right ones is told by how often a true success is surer than a
true failure (the area under the ROC curve).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..configs.episode import SENT
from ..configs.spec import STATE
from .codec import Reading
from .data import JUDGED, OUTCOME, open_joint, outcomes
from .film_model import FilmModel
from .films import filmed
from .gate import DOUBTED

if TYPE_CHECKING:
    from ..policies.data.dataset import Dataset

EVERY, REAL_AT = 2, 0.1  # how a dream looks at its films by default: `judge_every` and `real_at` of a world
FEW = 5  # episodes that must have succeeded, and that must have failed
DRAWS = 2000  # of the bootstrap over episodes


@dataclass(frozen=True)
class Endings:
    """M imagined episodes: `surest` (M,) greatest probability of success of any look; `won` (M,) as recorded."""

    surest: np.ndarray
    won: np.ndarray

    def about(self) -> dict[str, Any]:
        """JSON-able: `episodes`, `won`, `every`, `real_at`; where there are enough `order`, the share of pairs of a
        success and a failure of which the success is surer, [low, estimate, high], and, where the order is better than
        chance, `at`, the threshold; `doubted` in its place, where it is so low that policies which none of these
        episodes is like would succeed by it whatever they do."""
        count, won = len(self.won), int(self.won.sum())
        about: dict[str, Any] = {"episodes": count, "won": won, "every": EVERY, "real_at": REAL_AT}
        if min(won, count - won) < FEW:
            return about
        about["order"] = _interval(self.surest, self.won)
        if about["order"][0] > 0.5:
            last, next_one = np.sort(self.surest)[::-1][won - 1 : won + 1]
            at = float(np.sqrt(last * max(next_one, 1e-6)))  # between the two
            about["at" if at >= DOUBTED else "doubted"] = at
        return about


def order(surest: np.ndarray, won: np.ndarray) -> float:
    """Share of the pairs of a success and a failure in which the success is surer; equal ones count half."""
    pairs = surest[won][:, None] - surest[~won][None]
    return float((pairs > 0).mean() + 0.5 * (pairs == 0).mean())


def _interval(surest: np.ndarray, won: np.ndarray) -> list[float]:
    """Low, estimate, high of `order`: 95 %, successes and failures drawn anew."""
    rng, successes, failures = np.random.default_rng(0), surest[won], surest[~won]
    drawn = []
    for _ in range(DRAWS):
        one, other = rng.choice(successes, len(successes)), rng.choice(failures, len(failures))
        drawn.append(order(np.concatenate([one, other]), np.arange(len(surest)) < len(one)))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return [float(low), order(surest, won), float(high)]


def endings(model: FilmModel, dataset: Dataset, episodes: Sequence[int], most: int, batch: int, seed: int) -> Endings:
    """Imagine whole episodes at these positions, at most `most` of them, `batch` at a time.

    Episodes whose outcome was not recorded are left out, as are those that begin with success.
    """
    recorded = outcomes(dataset)
    succeeded = (recorded[OUTCOME][:, 0] > 0.5) & recorded[JUDGED][:, 0]
    rows = {m: slice(int(dataset.starts[m]), int(dataset.starts[m] + dataset.lengths[m])) for m in episodes}
    known = [m for m in episodes if recorded[JUDGED][rows[m].stop - 1, 0] and not succeeded[rows[m].start]]
    chosen = np.unique(np.linspace(0, len(known) - 1, min(most, len(known))).round().astype(int))
    known = [known[place] for place in chosen]
    known.sort(key=lambda m: int(dataset.lengths[m]))  # alike ones together
    surest = [_surest(model, dataset, known[at : at + batch], seed + at) for at in range(0, len(known), batch)]
    truly = np.array([succeeded[rows[m]].any() for m in known], bool)
    return Endings(np.concatenate(surest) if surest else np.zeros(0), truly)


@torch.no_grad()
def _surest(model: FilmModel, dataset: Dataset, episodes: Sequence[int], seed: int) -> np.ndarray:
    """(B,) greatest probability of success in each film, at the looks of a dream up to the last step."""
    settings, gap = model.config.eyes, model.sight.config.gap
    starts, lengths = dataset.starts[list(episodes)], dataset.lengths[list(episodes)]
    steps = np.minimum(np.arange(lengths.max()), lengths[:, None] - 1)  # shorter ones wait at their last action
    actions = dataset.columns[SENT][starts[:, None] + steps]
    first = torch.from_numpy(open_joint(dataset, settings.cameras, settings.size, sorted(episodes)).read(starts))
    joints = dataset.columns[STATE][starts][:, None] if model.draws else None
    looks = sorted({1, *range(EVERY, int(lengths.max()) + 1, EVERY), *map(int, lengths)})

    surest: np.ndarray = np.zeros(len(episodes))
    features = {0: model.sight.read(first).features}
    for step, _, pictures in filmed(model, first, actions, looks, seed, joints):
        now = model.sight.read(pictures).features
        before = features.get(step - gap)
        told = np.zeros((len(episodes), gap, actions.shape[-1]), np.float32)
        if step >= gap:
            told = actions[:, step - gap : step].astype(np.float32)
        scaled = model.action_scale.scale(torch.from_numpy(told).to(now.device))
        said = model.sight.verdict(Reading(now, {}), Reading(now if before is None else before, {}), scaled)
        possible = np.ones(len(episodes), bool) if before is None else said.real.cpu().numpy() >= REAL_AT
        counts = possible & (step <= lengths)
        surest = np.where(counts, np.maximum(surest, said.success.cpu().numpy()), surest)
        features[step] = now
        features = {at: one for at, one in features.items() if at >= step - gap}
    return surest

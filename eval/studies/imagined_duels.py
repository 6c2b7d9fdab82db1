"""Simulated duels beside imagined pairs: false verdicts, power and true pairs, for good, poor and bad models.

    understudy study imagined_duels --out FOLDER

Half of the starts share their difficulty. A model says the true outcome of a policy at a start with probability
`agree`; a flattering one also turns a share of its verdicts into successes. Weight and use of the model are settled by
past starts of the same policies, as `understudy compare --imagine` does it; policies with `luck` have some of their own
in either world, `repeats` dreams of a start are averaged. Nothing is trained, nobody acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...configs.command import command_of
from ..ledger.study import Study
from ..statistics.betting import BettingTest
from ..statistics.intervals import wilson
from ..statistics.variate import VariateTest, mean_of, worth

MODULE = "study imagined_duels"
CASES = ((0.5, 0.5), (0.9, 0.9), (0.5, 0.6), (0.5, 0.7), (0.7, 0.9))


@dataclass(frozen=True)
class Model:
    """A made-up world model."""

    name: str
    agree: float
    flatter: float = 0.0  # share of verdicts that become successes
    luck: float = 0.0  # share of starts at which an outcome is the policy's own chance, in either world
    repeats: int = 1  # dreams of each start


MODELS = (
    Model("agrees .8", 0.8),
    Model("agrees .9", 0.9),
    Model("agrees .95", 0.95),
    Model("agrees .9, flatters .3", 0.9, flatter=0.3),
    Model("agrees .97, luck .25", 0.97, luck=0.25),
    Model("agrees .97, luck .25, 8 dreams", 0.97, luck=0.25, repeats=8),
)


@dataclass(frozen=True, kw_only=True)
class ImaginedDuels:
    """Simulate duels with and without imagination."""

    out: Path | None = None  # folder of the JSON file
    runs: int = 2000  # duels of each kind
    pairs: int = 200  # true pairs at most
    imagined: int = 4000  # pairs that the mean is taken from
    past: int = 200  # starts that settle weight and use
    alpha: float = 0.05  # error level of each duel
    seed: int = 0  # of what is drawn

    def run(self) -> None:
        study = simulate(self)
        print(f"{study.title}\n\n{study.markdown()}\n\n" + "\n".join(study.notes))
        if self.out is not None:
            print(f"written: {study.write(self.out / 'imagined-duels.json')}")


def simulate(config: ImaginedDuels) -> Study:
    """A row for each pair of rates and model; the first of each pair is without one."""
    rows = []
    for rates in CASES:
        for model in MODELS:
            plain, beside, used = duel(config, rates, model)
            for name, (test, share) in {f"{model.name}: plain": (plain, 0.0), model.name: (beside, used)}.items():
                found = wilson(int((test.side != 0).sum()), config.runs)
                rows.append((f"{rates[0]:g} / {rates[1]:g}", name, found, float(test.when.mean()), share))
    return Study(
        title="Duels of two policies beside imagined pairs",
        command=f"{command_of(config, MODULE, without=('out',))} --out DIR",
        columns=("success of A / B", "model", "verdicts", "true pairs", "duels that used it"),
        rows=rows,
        notes=(
            f"{config.runs} duels of each kind, at most {config.pairs} pairs, alpha {config.alpha:g} two-sided; the "
            f"mean of "
            f"the dreams is taken from {config.imagined} imagined pairs, and its error is charged.",
            "Where A and B are equal, verdicts are false ones.",
        ),
    )


def duel(config: ImaginedDuels, rates: tuple[float, float], model: Model) -> tuple[BettingTest, BettingTest, float]:
    """(plain test, test beside imagination, share of duels in which the past said that it pays)."""
    rng, runs = (
        np.random.default_rng([config.seed, *(int(1000 * rate) for rate in rates), len(model.name)]),
        config.runs,
    )
    seen = zip(*differences(rng, runs, config.past, rates, model), strict=True)
    past = [worth(*drawn, config.imagined, config.alpha) for drawn in seen]
    factors = np.array([one.factor if one.pays else 0.0 for one in past])
    _, dreamt = differences(rng, runs, config.imagined, rates, model)
    variates = [mean_of(row, factor, config.alpha) for row, factor in zip(dreamt, factors, strict=True)]

    true, dreamt = differences(rng, runs, config.pairs, rates, model)
    plain = BettingTest(config.pairs, config.alpha, runs)
    beside = VariateTest(config.pairs, config.alpha, dreamt, variates, runs)
    for at in range(config.pairs):
        a, b = np.maximum(-true[:, at], 0), np.maximum(true[:, at], 0)
        plain.update(a, b)
        beside.update(a, b)
    off = factors == 0  # these duels are held by the plain test
    beside.side[off], beside.when[off] = plain.side[off], plain.when[off]
    return plain, beside, float(1 - off.mean())


def differences(rng, runs: int, pairs: int, rates: tuple[float, float], model: Model) -> tuple[np.ndarray, np.ndarray]:
    """(R, N) B minus A, of the truth and of the dream's mean."""
    shape = runs, pairs
    level = np.where(rng.random((*shape, 1)) < 0.5, rng.random((*shape, 1)), rng.random((*shape, 2)))
    lucky = rng.random((*shape, 2)) < model.luck

    def act() -> np.ndarray:
        return np.where(lucky, rng.random((*shape, 2)), level) < np.asarray(rates)

    true, dreamt = act(), np.zeros((*shape, 2))
    for _ in range(model.repeats):
        said = act() if model.luck else true
        said = np.where(rng.random(said.shape) < model.agree, said, ~said) | (rng.random(said.shape) < model.flatter)
        dreamt += said / model.repeats
    true = true.astype(float)
    return true[..., 1] - true[..., 0], dreamt[..., 1] - dreamt[..., 0]

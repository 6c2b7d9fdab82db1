"""Schedulers of diffusers as theorems: equal to ours where they are the same method, and right on analytic targets."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from understudy.configs.parse import parse
from understudy.configs.spec import Embodiment, Window
from understudy.eval.evaluate.evaluate import Eval
from understudy.eval.ledger.origin import repeat_command
from understudy.policies.compositions.mixture import Mixture
from understudy.policies.compositions.superpose import AndConfig, Superposition
from understudy.policies.field import Solver, from_clean, noise_levels, sample
from understudy.policies.learning.checkpoint import save_checkpoint
from understudy.policies.load import load_policy, save_mixture
from understudy.policies.models.diffusion import DiffusionConfig
from understudy.policies.models.flow import FlowConfig
from understudy.policies.models.generative import Sampler, with_sampler
from understudy.policies.models.one_step import OneStepConfig
from understudy.policies.networks.mlp import MLPConfig
from understudy.policies.policy import LaneNoise, Past, Scales
from understudy.policies.schedulers import ON_THEIR_OWN, REFUSED, STOCHASTIC, USABLE, sample_by, seeds_in

STATE = "observation.state"
BODY = Embodiment(
    action=("x", "y"), action_units=("m", "m"), limits=((-9.0, 9.0),) * 2, rate=10.0, state=("x",), state_units=("m",)
)
MEAN, STD, LOW, HIGH = 0.3, 0.4, 0.01, 64.0
DETERMINISTIC = tuple(sorted(set(USABLE) - set(STOCHASTIC)))
FIRST_ORDER = ("DDIMParallel", "DDIM", "EulerDiscrete", "FlowMatchEulerDiscrete")
SAME = {f"{name}Scheduler": Solver.ddim for name in FIRST_ORDER}
SAME |= {"DPMSolverMultistepScheduler": Solver.dpmpp, "HeunDiscreteScheduler": Solver.heun}
OWN = {"EDMEulerScheduler": Solver.ddim, "EDMDPMSolverMultistepScheduler": Solver.dpmpp}


def bell(y, s):
    """E[x0 | y, s] for x0 ~ N(MEAN, STD^2)."""
    return MEAN + STD**2 / (STD**2 + s**2) * (y - MEAN)


def two_modes(y, s, centre=0.7, width=0.05):
    """E[x0 | y, s] for an even mixture of N(-centre, width^2) and N(centre, width^2)."""
    spread = width**2 + s**2
    right = torch.sigmoid(2 * centre * y / spread)
    means = [m + width**2 / spread * (y - m) for m in (centre, -centre)]
    return right * means[0] + (1 - right) * means[1]


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def karras(steps, power=7):
    """Levels of Karras et al. 2022 from HIGH to the last of ours, then 0."""
    low, high = (s ** (1 / power) for s in (noise_levels(steps, LOW, HIGH)[-2], HIGH))
    return [*((high + i / max(steps - 1, 1) * (low - high)) ** power for i in range(steps)), 0.0]


def make(kind=DiffusionConfig, seed=0, **settings):
    """An untrained policy whose output is not zero."""
    torch.manual_seed(seed)
    network = MLPConfig(width=16, depth=1, condition_width=8)
    config = kind(network=network, window=Window(observe=(0,), horizon=4), n_action_steps=2, **settings)
    policy = config.build(BODY, Scales(action=((-1, -1), (1, 1)), states={STATE: ((0.0,), (1.0,))})).eval()
    for parameter in policy.network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return policy


def exact(mean, kind):
    """A policy whose field is the exact posterior mean of N(mean, 0.3^2)."""
    policy = make(kind)

    def evaluate(x, s, context):
        wide = s[:, None, None]
        y = x * (1 + wide * wide).sqrt()
        return from_clean(policy.prediction_type, mean + 0.09 / (0.09 + wide * wide) * (y - mean), y, wide)

    policy.evaluate = evaluate
    return policy


def draw(policy, n=2, lanes=3):
    """Future actions of `n` plans for each lane, (lanes, n, 4, 2)."""
    past = Past(
        obs={STATE: normal(lanes, 1, 1, dtype=torch.float32)},
        obs_times=(0,),
        obs_valid=torch.ones(lanes, 1, dtype=torch.bool),
        actions=torch.zeros(lanes, 0, 2),
        action_times=(),
        action_valid=torch.ones(lanes, 0, dtype=torch.bool),
        now=torch.full((lanes,), 5),
    )
    return policy.plan(past, n, LaneNoise(7, np.arange(lanes), np.zeros(lanes, np.int64))).future


def calls(walk):
    """What a walk asks of a field, and where it ends."""
    asked = []

    def field(y, s):
        asked.append((y.clone(), s))
        return two_modes(y, s)

    return walk(field), asked


@pytest.mark.parametrize("name", sorted(SAME | OWN))
@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_the_same_method_takes_the_same_steps(name, steps):
    start, ours = normal(20, 4, 2), noise_levels(steps, LOW, HIGH)
    levels, solver = (karras(steps), OWN[name]) if name in OWN else (ours, SAME[name])
    theirs, asked = calls(lambda field: sample_by(name, field, start, ours, clip=0.75))
    end, expected = calls(lambda field: sample(field, start, levels, solver=solver, clip=0.75))
    assert len(asked) == len(expected)
    for (y, s), (own, level) in zip(asked, expected, strict=True):
        assert s == pytest.approx(level, rel=1e-3)  # of float32, where a level is small or a step is wide
        assert torch.allclose(y / math.hypot(1, s), own / math.hypot(1, level), atol=1e-4)
    assert torch.allclose(theirs, end, atol=1e-4)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_many_steps_reach_the_exact_sample(name):
    start = normal(50, 4, 2)
    truth = MEAN + (HIGH * start - MEAN) * STD / math.hypot(STD, HIGH)
    errors = []
    for steps in (40, 80, 150):
        walked = sample_by(name, bell, start, noise_levels(steps, LOW, HIGH), clip=None)
        errors.append(float((walked - truth).abs().mean()))
    first = name in (*(f"{one}Scheduler" for one in FIRST_ORDER), "EDMEulerScheduler")
    assert errors[-1] < (0.01 if first else 0.002)
    assert all(after < before or after < 1e-4 for before, after in pairwise(errors))


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_many_steps_agree_with_ours_on_two_modes(name):
    start, levels = normal(50, 10, 4, dtype=torch.float32), noise_levels(150, LOW, HIGH)
    theirs = sample_by(name, two_modes, start, levels)
    ours = sample(two_modes, start, levels, solver=Solver.heun)
    assert theirs.dtype == torch.float32
    assert ((theirs - ours).abs() < 0.02).double().mean() > 0.99
    assert (theirs - ours).abs().mean() < 0.01


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_ones_draw_from_the_target(name):
    start, levels = normal(10, 100, 40), noise_levels(120, LOW, HIGH)
    drawn = sample_by(name, bell, start, levels, clip=None)
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.015)
    assert drawn.std().item() == pytest.approx(STD, rel=0.04)
    modes = sample_by(name, two_modes, start, levels)
    assert (modes > 0).double().mean().item() == pytest.approx(0.5, abs=0.015)
    assert ((modes.abs() - 0.7).abs() < 0.2).double().mean() > 0.99
    same = sample(bell, start, levels, clip=None, solver=Solver.heun)
    assert np.corrcoef(drawn.flatten(), same.flatten())[0, 1] < 0.9, "noise was added on the way"


@pytest.mark.parametrize("name", USABLE)
def test_a_sample_does_not_know_its_neighbours(name):
    start, levels = normal(3, 2, 4, 2, dtype=torch.float32), noise_levels(6, LOW, HIGH)
    whole = sample_by(name, two_modes, start, levels)
    assert torch.equal(whole, sample_by(name, two_modes, start, levels))
    assert torch.allclose(whole[1:2], sample_by(name, two_modes, start[1:2], levels), atol=1e-5)
    assert torch.allclose(whole[:, :1], sample_by(name, two_modes, start[:, :1], levels), atol=1e-5)


@pytest.mark.parametrize("name", USABLE)
def test_known_entries_stay_and_steer_the_rest(name):
    def tied(y, s):  # both entries of a row are the same number
        return bell(y.mean(-1, keepdim=True), s / math.sqrt(2)).expand_as(y)

    start, levels = normal(5, 60, 2), noise_levels(100, LOW, HIGH)
    values, mask = torch.full_like(start, 0.8), torch.tensor([True, False]).expand_as(start)
    drawn = sample_by(name, tied, start, levels, clip=None, known=(values, mask))
    assert torch.allclose(drawn[..., 0], values[..., 0], atol=1e-4)
    assert drawn[..., 1].mean() > sample_by(name, tied, start, levels, clip=None)[..., 1].mean() + 0.2


@pytest.mark.parametrize("name", USABLE)
def test_the_bound_is_of_the_clean_estimate(name):
    start, levels = normal(2, 3, 2), noise_levels(8, LOW, HIGH)
    inside = sample_by(name, lambda y, s: torch.full_like(y, 3.0), start, levels, clip=1.0)
    assert torch.allclose(inside, torch.ones_like(inside), atol=1e-4)
    beyond = sample_by(name, lambda y, s: torch.full_like(y, 3.0), start, levels, clip=None)
    assert torch.allclose(beyond, 3 * torch.ones_like(beyond), atol=1e-4), "no bound of the scheduler's own"


@pytest.mark.parametrize("name", USABLE)
def test_evaluations_are_counted_and_within_the_range(name):
    start, levels = normal(2, 3, 2), noise_levels(9, LOW, HIGH)
    _, asked = calls(lambda field: sample_by(name, field, start, levels))
    twice = name.startswith(("Heun", "KDPM2"))
    assert len(asked) == (17 if twice else 10 if name == "PNDMScheduler" else 9)
    assert all(levels[-2] * 0.999 <= s <= HIGH * 1.001 for _, s in asked)
    if name not in ON_THEIR_OWN:  # all of our levels are visited
        assert all(any(s == pytest.approx(level, rel=1e-3) for _, s in asked) for level in levels[:-1])


def test_seeds_are_of_the_row():
    rows = normal(5, 3, 2, dtype=torch.float32)
    assert len(set(seeds_in(rows))) == 5 and seeds_in(rows)[2:3] == seeds_in(rows[2:3])
    assert len(set(seeds_in(rows[:, :1, :1]))) == 5


def test_names():
    import diffusers

    assert all(hasattr(diffusers, name) for name in USABLE) and not set(USABLE) & set(REFUSED)
    with pytest.raises(ValueError, match="from a sample to its noise. Usable: DDIMParallelScheduler, DDIM"):
        Sampler(scheduler="DDIMInverseScheduler")
    with pytest.raises(ValueError, match="JAX"):
        Sampler(scheduler="FlaxDDIMScheduler")
    with pytest.raises(LookupError, match="Did you mean 'UniPCMultistepScheduler'"):
        Sampler(scheduler="UniPCScheduler")
    with pytest.raises(ValueError, match="either a solver or a scheduler"):
        Sampler(scheduler="DDIMScheduler", solver=Solver.heun)
    with pytest.raises(ValueError, match="does not resolve the levels"):
        sample_by("DDIMScheduler", bell, normal(1, 1, 1), [1.0, 1e-5, 0.0])


def test_a_solver_and_a_scheduler_oust_each_other():
    unipc = Sampler(scheduler="UniPCMultistepScheduler")
    assert Sampler(solver=Solver.heun, steps=3).changed(scheduler=unipc.scheduler) == unipc.changed(steps=3)
    assert unipc.changed(solver=Solver.heun) == Sampler(solver=Solver.heun)
    assert unipc.changed(steps=4, solver=None).scheduler == unipc.scheduler
    with pytest.raises(ValueError, match="either"):
        unipc.changed(solver=Solver.dpmpp, scheduler="DDIMScheduler")


def test_policies_and_mixtures_plan_with_it():
    few, other = make(seed=1), make(FlowConfig, 2)
    ddim, unipc = (Sampler(scheduler=f"{name}Scheduler") for name in ("DDIM", "UniPCMultistep"))
    for policy in (few, Mixture([few, other], (0.4, 0.6))):
        plain = draw(policy)
        policy.sampler = ddim
        assert torch.allclose(draw(policy), plain, atol=1e-4)
        policy.sampler = unipc
        assert not torch.allclose(draw(policy), plain, atol=1e-3)
    assert Mixture([few, other], (0.4, 0.6)).sampler == unipc, "the parents' own, in any order"
    assert Mixture([other, few], (0.6, 0.4)).sampler == unipc


def test_a_stochastic_plan_is_of_its_lane_and_candidate():
    policy = with_sampler(make(FlowConfig, 2), scheduler="DDPMScheduler", steps=5)
    two, one = draw(policy), draw(policy, n=1, lanes=2)
    assert torch.allclose(two[:2, :1], one, atol=1e-5) and not torch.allclose(two[:, :1], two[:, 1:])


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "EulerAncestralDiscreteScheduler"])
def test_a_mixture_of_gaussians_is_their_product(name):
    parents, count = [exact(-0.5, DiffusionConfig), exact(0.9, FlowConfig)], 1500
    mixture = Mixture(parents, (0.25, 0.75), sampler=Sampler(steps=100, scheduler=name, clip=None))
    drawn = draw(mixture, count, 1).double()[0, :, 0]
    assert ((drawn.mean(0) - 0.55).abs() < 4.5 * 0.3 / math.sqrt(count)).all()
    assert ((drawn.std(0) / 0.3 - 1).abs() < 4.5 / math.sqrt(2 * count) + 0.02).all()


def test_what_walks_no_path_refuses_it():
    with pytest.raises(ValueError, match="walks no path.*got DDIMScheduler"):
        OneStepConfig(sampler=Sampler(steps=1, scheduler="DDIMScheduler"))
    both = Superposition([make(seed=1)] * 2, AndConfig(sampler=Sampler(scheduler="DDIMScheduler")))
    with pytest.raises(ValueError, match="their own solver.*got DDIMScheduler"):
        draw(both)


def test_it_is_kept_with_the_weights(tmp_path):
    parents = [make(seed=1, sampler=Sampler(scheduler="LMSDiscreteScheduler")), make(FlowConfig, 2)]
    for place, parent in enumerate(parents):
        save_checkpoint(tmp_path / str(place), parent, kind="policy", config=parent.config)
    assert load_policy(tmp_path / "0")[0].sampler == parents[0].sampler
    mixture = with_sampler(Mixture(parents, (0.5, 0.5)), scheduler="UniPCMultistepScheduler", steps=4)
    save_mixture(tmp_path / "mixed", mixture, [tmp_path / "0", tmp_path / "1"])
    assert load_policy(tmp_path / "mixed")[0].sampler == mixture.sampler


def test_flags(tmp_path):
    from understudy.policies.learning.train import Train

    flags = ["--policy.type", "flow", "--policy.sampler.scheduler", "DEISMultistepScheduler"]
    assert parse(Train, None, flags).policy.sampler == Sampler(scheduler="DEISMultistepScheduler")
    (tmp_path / "train.yaml").write_text("policy: {type: diffusion, sampler: {scheduler: LMSDiscreteScheduler}}\n")
    assert parse(Train, str(tmp_path / "train.yaml"), []).policy.sampler.scheduler == "LMSDiscreteScheduler"


@pytest.mark.parametrize("acted", [{"scheduler": "DDIMScheduler"}, {"solver": "heun"}, {"solver": "ddim"}, {}])
@pytest.mark.parametrize("trained", [{"scheduler": "PNDMScheduler"}, {"solver": "dpmpp"}, {}])
def test_a_record_says_how_to_repeat_it(acted, trained):
    own = Sampler().changed(**{key: Solver(name) if key == "solver" else name for key, name in trained.items()})
    used = own.changed(**{key: Solver(name) if key == "solver" else name for key, name in acted.items()})
    keys = [dataclasses.asdict(one) | {"solver": one.solver.value} for one in (own, used)]
    manifest = {"policy": {"path": "p", "config": {"sampler": keys[0]}}, "agent": {"sampler": keys[1]}}
    words = repeat_command(manifest).split()[2:]
    config = parse(Eval, None, words)
    solver = Solver(config.solver) if config.solver else None
    assert own.changed(steps=config.steps, solver=solver, scheduler=config.scheduler) == used

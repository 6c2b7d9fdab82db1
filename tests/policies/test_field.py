"""Theorems of the sampler: analytic targets, orders of solvers, head conversions, agreement with diffusers."""

import math

import pytest
import torch

from understudy.policies.field import (
    PredictionType,
    Solver,
    angle_of,
    from_clean,
    noise_levels,
    ratio_of,
    sample,
    to_clean,
)

MEAN, STD = 0.3, 0.4


def gaussian(y, s):
    """E[x0 | y, s] for x0 ~ N(MEAN, STD^2)."""
    return MEAN + STD**2 / (STD**2 + s**2) * (y - MEAN)


def two_modes(y, s, centre=0.7, width=0.05):
    """E[x0 | y, s] for an even mixture of N(-centre, width^2) and N(centre, width^2)."""
    spread = width**2 + s**2
    right = torch.sigmoid(2 * centre * y / spread)
    means = [m + width**2 / spread * (y - m) for m in (centre, -centre)]
    return right * means[0] + (1 - right) * means[1]


@pytest.mark.parametrize("prediction_type", list(PredictionType))
@pytest.mark.parametrize("s", [0.01, 0.3, 1.0, 7.0, 60.0])
def test_heads_round_trip(prediction_type, s):
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 64, generator=generator, dtype=torch.float64)
    y = clean + s * noise
    assert torch.allclose(to_clean(prediction_type, from_clean(prediction_type, clean, y, s), y, s), clean, atol=1e-5)


@pytest.mark.parametrize("s", [0.05, 1.0, 20.0])
def test_heads_are_the_textbook_ones(s):
    clean, noise = torch.tensor([0.5, -0.2], dtype=torch.float64), torch.tensor([1.5, 0.7], dtype=torch.float64)
    y = clean + s * noise
    alpha, sigma = 1 / math.hypot(1, s), s / math.hypot(1, s)
    assert torch.allclose(from_clean(PredictionType.epsilon, clean, y, s), noise)
    assert torch.allclose(from_clean(PredictionType.v, clean, y, s), alpha * noise - sigma * clean)
    assert torch.allclose(from_clean(PredictionType.flow, clean, y, s), noise - clean)


def test_angle_and_ratio_are_inverse():
    s = torch.tensor([0.01, 0.5, 1.0, 64.0], dtype=torch.float64)
    assert torch.allclose(ratio_of(angle_of(s)), s)
    assert angle_of(torch.tensor(1.0)).item() == pytest.approx(0.5)


@pytest.mark.parametrize("solver", list(Solver))
def test_gaussian_target(solver):
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = sample(gaussian, noise, noise_levels(40, 1e-3, 200.0), solver=solver, clip=None)
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert drawn.std().item() == pytest.approx(STD, rel=0.06 if solver is Solver.ddim else 0.02)


@pytest.mark.parametrize("solver", list(Solver))
def test_two_modes_are_both_found(solver):
    noise = torch.randn(20_000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    drawn = sample(two_modes, noise, noise_levels(20, 1e-3, 64.0), solver=solver, clip=1.0)
    right = (drawn > 0).double().mean().item()
    assert right == pytest.approx(0.5, abs=0.015)
    assert (drawn.abs() - 0.7).abs().lt(0.2).double().mean().item() > 0.99


def order(solver, steps=(40, 80, 160)):
    """Slope of log error over log step, from s = 5 to s = 0.5, against the exact flow of the Gaussian."""
    y0 = torch.tensor([1.7], dtype=torch.float64)
    high, low = 5.0, 0.5
    exact = MEAN + (high * y0 - MEAN) * math.sqrt((STD**2 + low**2) / (STD**2 + high**2))
    errors = []
    for n in steps:
        levels = [high * (low / high) ** (i / n) for i in range(n + 1)]
        walked = sample(gaussian, y0, levels, solver=solver, clip=None)
        errors.append(abs((walked - exact).item()))
    return [math.log(a / b) / math.log(2) for a, b in zip(errors[:-1], errors[1:], strict=True)]


@pytest.mark.parametrize("solver, expected", [(Solver.ddim, 1), (Solver.dpmpp, 2), (Solver.heun, 2)])
def test_order_of_solvers(solver, expected):
    for slope in order(solver):
        assert slope == pytest.approx(expected, abs=0.15)


def test_ddim_equals_diffusers():
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", clip_sample=False, set_alpha_to_one=True
    )
    scheduler.set_timesteps(20)
    bars = scheduler.alphas_cumprod.double()
    levels = [math.sqrt((1 - bars[t]) / bars[t]) for t in scheduler.timesteps] + [0.0]
    y = levels[0] * torch.linspace(-2, 2, 9, dtype=torch.float64)
    x = y * math.sqrt(bars[scheduler.timesteps[0]])
    for t in scheduler.timesteps:
        alpha, sigma = math.sqrt(bars[t]), math.sqrt(1 - bars[t])
        noise = (x / alpha - gaussian(x / alpha, sigma / alpha)) * alpha / sigma
        x = scheduler.step(noise, t, x, eta=0.0).prev_sample
    ours = sample(gaussian, y / levels[0], levels, clip=None)
    assert torch.allclose(ours, x, atol=1e-5)


def test_known_entries_stay_and_steer_the_rest():
    def tied(y, s):  # both entries of the target are the same number
        return gaussian(y.mean(-1, keepdim=True), s / math.sqrt(2)).expand_as(y)

    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    values, mask = torch.full_like(noise, 0.8), torch.tensor([True, False]).expand_as(noise)
    drawn = sample(tied, noise, noise_levels(200, 1e-3, 64.0), clip=None, known=(values, mask))
    assert torch.equal(drawn[:, 0], values[:, 0])
    free = sample(tied, noise, noise_levels(200, 1e-3, 64.0), clip=None)
    assert drawn[:, 1].mean() > free[:, 1].mean() + 0.2


def test_clip_is_the_samplers():
    wild = sample(lambda y, s: torch.full_like(y, 3.0), torch.zeros(4), noise_levels(3, 0.01, 10.0), clip=1.0)
    assert torch.equal(wild, torch.ones(4))


def test_too_many_steps_are_refused():
    with pytest.raises(ValueError, match="at most 155 fit"):
        noise_levels(1000, 0.01, 64.0)
    with pytest.raises(ValueError, match="at least 1 step"):
        noise_levels(0, 0.01, 64.0)

"""A denoiser that is told some tokens: exact for Gaussian data, and harmless where its derivative is no covariance."""

import pytest
import torch

from understudy.policies.agent.conditioning import conditioned

T, KNOWN = 6, 2
MASK = (torch.arange(T) < KNOWN)[None, None, :, None]
VALUES = torch.full((1, 1, T, 1), 0.7)


def linear(matrix):
    """A denoiser whose derivative is `matrix` (T, T)."""
    return lambda y, s: torch.einsum("ij,bnjd->bnid", matrix, y)


@pytest.mark.parametrize("s", [0.3, 2.0])
def test_smooth_gaussian_data_go_on_from_what_is_known(s):
    """The mean of the rest given the noisy value and the known tokens, solved directly; but for the ridge."""
    at = torch.arange(T, dtype=torch.float32)
    prior = torch.exp(-((at[:, None] - at[None]) ** 2) / 8)
    matrix = prior @ torch.linalg.inv(prior + s**2 * torch.eye(T))
    y = torch.randn(1, 1, T, 1, generator=torch.Generator().manual_seed(0))
    clean, known = linear(matrix)(y, s), slice(0, KNOWN)
    weight = torch.linalg.solve(matrix[known, known], (VALUES - clean)[0, 0, known])
    exact = clean + (matrix[:, known] @ weight)[None, None]
    found = conditioned(linear(matrix), (VALUES, MASK))(y, s)
    off = VALUES - clean
    assert (found - exact).abs().max() < 0.25 * off[0, 0, known].abs().max()
    assert (found - VALUES)[0, 0, known].abs().max() < (0.25 * off)[0, 0, known].abs().max()


def test_a_derivative_that_is_no_covariance_is_not_followed():
    """Indefinite, as of networks that learnt from little: the estimate is not thrown a thousand times as far."""
    matrix = torch.diag(torch.tensor([1.0, -1.0302, 1, 1, 1, 1]))
    matrix[2:, :2] = 3.0
    matrix[:2, 2:] = 3.0
    y = torch.tensor([0.5, -0.4, 0, 0, 0, 0])[None, None, :, None]
    clean = linear(matrix)(y, 1.0)
    found = conditioned(linear(matrix), (VALUES, MASK))(y, 1.0)
    off = (VALUES - clean)[0, 0, :KNOWN].abs().max()
    assert (found - clean).abs().max() <= off + 1e-6


def test_nothing_known_changes_nothing():
    y = torch.ones(1, 1, T, 1)
    assert torch.equal(conditioned(linear(torch.eye(T)), (VALUES, MASK & False))(y, 1.0), y)

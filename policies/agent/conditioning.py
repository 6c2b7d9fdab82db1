"""A denoiser that knows some tokens: the clean estimate given a noisy value and the tokens that are known.

Replacing known tokens while denoising the others tells these little: in a few steps they hardly notice. Here the
estimate itself is conditioned. The posterior of the clean value given y = x0 + s noise has the mean D(y, s) and, by
Tweedie's formula of second order, the covariance s^2 J with J = dD/dy. Taken to be Gaussian, what is known of it, k,
moves the rest by

    D(y, s) + J[:, k] u,   J[k, k] u = known - D(y, s)[k].

Exact for Gaussian data; after Boys et al. 2023 (arXiv 2310.06721) and Rozet et al. 2024 (arXiv 2405.13712), who solve
the system by conjugate gradients as here. J is never built: J v is a backward pass of the denoiser, for J is symmetric
where D is a posterior mean. That of a network is neither symmetric nor positive everywhere: with networks that learnt
from few demonstrations the system is left unsolved at most steps, and what the known tokens then say of the rest is
noise, up to ten thousand times as large as they were off. So what leaves them farther off than they were moves nothing,
and nothing moves farther than they were off. Knows no policy and no plan.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..field import Denoise

ITERATIONS = 8  # of the conjugate gradients; each is a backward pass
RIDGE = 0.03  # added to J[k, k], whose eigenvalues are within 0..1


def conditioned(field: Denoise, known: tuple[Tensor, Tensor]) -> Denoise:
    """The same denoiser given (values, mask) of `field.sample`, (B, N, T, D) each or broadcasting to it."""

    def denoise(y: Tensor, s: float) -> Tensor:
        values, mask = (part.expand(y.shape) for part in known)
        if not mask.any():
            return field(y, s)
        with torch.enable_grad():
            at = y.detach().requires_grad_(True)
            clean = field(at, s)

            def carried(v: Tensor) -> Tensor:
                return torch.autograd.grad(clean, at, v, retain_graph=True)[0]

            with torch.no_grad():
                apart = torch.where(mask, values - clean, 0.0)
            solved = _solve(lambda v: torch.where(mask, carried(v) + RIDGE * v, 0.0), apart)
            moved = carried(solved)
        return (clean + _trusted(moved, apart, mask)).detach()

    return denoise


def _trusted(moved: Tensor, apart: Tensor, mask: Tensor) -> Tensor:
    """What moves, where it brings the known tokens nearer, and no farther than these were off; for each (b, n)."""
    left = torch.where(mask, moved - apart, 0.0)
    most = apart.abs().amax((-2, -1), keepdim=True)
    return torch.where(_dot(left, left) <= _dot(apart, apart), moved, 0.0).clamp(-most, most)


def _solve(times: Callable[[Tensor], Tensor], right: Tensor) -> Tensor:
    """`times(x) = right` by conjugate gradients, for each (b, n) by itself; stops where a direction is not rising."""
    x, residual = torch.zeros_like(right), right
    direction, size = residual, _dot(residual, residual)
    for _ in range(ITERATIONS):
        product = times(direction)
        bend = _dot(direction, product)
        goes = (bend > 1e-12) & (size > 1e-12)
        step = torch.where(goes, size / bend.clamp_min(1e-12), 0.0)
        x, residual = x + step * direction, residual - step * product
        after = _dot(residual, residual)
        direction = residual + torch.where(goes, after / size.clamp_min(1e-12), 0.0) * direction
        size = after
    return x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1), keepdim=True)

"""Fit what Gaussians look like to pictures of one body with masks, and make them from pictures with depth.

The loss is the mean square of picture minus target, both before a background of random colour, drawn anew in each
step, so that outlines are fitted too and no Gaussian may borrow the background's colour; Adam (Kingma and Ba 2015) with
the splatter's analytic gradients. Depth gives the points; those without enough neighbours are dropped; Gaussians that
end nearly transparent are dropped, and the rest fitted again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..gaussians import Camera, Gaussians
from ..splat import draw
from .surfaces import Samples, thin_out

NEIGHBOURS, REACH = 20, 0.01  # a point stays if so many others are within so many m
FAINT = 0.5  # opacity below which a Gaussian is dropped
WIDEST = 3.0  # how much wider or narrower than at first a Gaussian may become


@dataclass(frozen=True, eq=False)
class View:
    """One picture of a body.

    Args:
        image: (h, w, 3) 0..1.
        mask: (h, w) 0..1, where the body is seen.
        depth: (h, w) m along the optical axis; None where no depth was measured, 0 or inf in single pixels without.
        valid: (h, w) bool, pixels to be compared; False where something else hides the body. None: all.
    """

    camera: Camera
    image: np.ndarray
    mask: np.ndarray
    depth: np.ndarray | None = None
    valid: np.ndarray | None = None

    def __post_init__(self) -> None:
        size = self.camera.height, self.camera.width
        for name, value in (("image", self.image), ("mask", self.mask), ("depth", self.depth), ("valid", self.valid)):
            if value is not None and value.shape[:2] != size:
                shape = f"{value.shape[1]} x {value.shape[0]}"
                raise ValueError(f"{name} of view {self.camera.name} is {shape}, its camera {size[1]} x {size[0]}")


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Steps and Adam's rates of a fit."""

    steps: int = 200
    colour: float = 0.02  # of 0..1
    opacity: float = 0.05  # of the logit
    size: float = 0.03  # of the logarithm
    move: float = 0.0  # m, of the means; 0: they stay


@dataclass
class Adam:
    """Adam's moments; `step(gradient)` gives what to subtract for a rate of 1."""

    first: np.ndarray
    second: np.ndarray
    count: int = 0
    betas: tuple[float, float] = field(default=(0.9, 0.999))

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Adam:
        return cls(np.zeros(shape), np.zeros(shape))

    def step(self, gradient: np.ndarray) -> np.ndarray:
        one, two = self.betas
        self.count += 1
        self.first = one * self.first + (1 - one) * gradient
        self.second = two * self.second + (1 - two) * gradient**2
        first, second = self.first / (1 - one**self.count), self.second / (1 - two**self.count)
        return first / (np.sqrt(second) + 1e-12)


def fit_appearance(
    gaussians: Gaussians, views: Sequence[View], rng: np.random.Generator, settings: FitSettings | None = None
) -> Gaussians:
    """Gaussians of one body, given in the world's frame, with colours, opacities and sizes as the views have them.

    Raises ValueError: no view, or Gaussians of several bodies.
    """
    settings = settings or FitSettings()
    if not views:
        raise ValueError("nothing to fit to: no view")
    if len(gaussians.bodies) != 1:
        raise ValueError("one body is fitted at a time")
    n, mean, colour = len(gaussians), gaussians.mean.copy(), gaussians.colour.copy()
    logit = np.log(gaussians.opacity / (1 - np.minimum(gaussians.opacity, 0.999)))
    growth: np.ndarray = np.zeros(n)
    moments = {"colour": Adam.of((n, 3)), "opacity": Adam.of((n,)), "size": Adam.of((n,)), "move": Adam.of((n, 3))}

    for step in range(settings.steps):
        view = views[step % len(views)]
        opacity, scale = 1 / (1 + np.exp(-logit)), gaussians.scale * np.exp(growth)[:, None]
        drawing = draw(mean, gaussians.quat, scale, opacity, colour, view.camera)
        behind = np.broadcast_to(rng.random(3), view.image.shape)
        target = view.mask[..., None] * view.image + (1 - view.mask[..., None]) * behind
        slopes = drawing.over(behind) - target
        if view.valid is not None:
            slopes = slopes * view.valid[..., None]

        found = drawing.gradients(slopes, behind)
        colour = np.clip(colour - settings.colour * moments["colour"].step(drawing.feature_gradients(slopes)), 0, 1)
        logit -= settings.opacity * moments["opacity"].step(found.opacity * opacity * (1 - opacity))
        growth -= settings.size * moments["size"].step(found.size)
        growth = np.clip(growth, -np.log(WIDEST), np.log(WIDEST))
        if settings.move:
            pull = np.einsum("nij,ni->nj", drawing.slope, found.centre)
            mean -= settings.move * moments["move"].step(pull)

    opacity, scale = 1 / (1 + np.exp(-logit)), gaussians.scale * np.exp(growth)[:, None]
    return dataclasses.replace(gaussians, mean=mean, scale=scale, colour=colour, opacity=opacity)


def points_of(views: Sequence[View], nearest: float = 0.02, farthest: float = 3.0) -> Samples:
    """All points that depth pictures show of a body, in the world's frame; normals face the camera.

    Raises ValueError: no view has depth inside its mask.
    """
    points, normals, colours = [], [], []
    for view in views:
        if view.depth is None:
            continue
        good = (view.mask > 0.5) & np.isfinite(view.depth) & (view.depth > nearest) & (view.depth < farthest)
        rows, columns = np.nonzero(good)
        pixels = np.stack([columns, rows, np.ones_like(rows)], 1).astype(float)
        seen = pixels @ np.linalg.inv(view.camera.K).T * view.depth[rows, columns, None]
        pose = view.camera.world_from_camera
        place = seen @ pose[:3, :3].T + pose[:3, 3]
        points.append(place)
        way = pose[:3, 3] - place
        normals.append(way / np.linalg.norm(way, axis=1, keepdims=True))
        colours.append(view.image[rows, columns])
    if not points or not sum(map(len, points)):
        raise ValueError("no view has depth inside its mask: are depths in m, and do masks mark the body with 1?")
    return Samples(np.concatenate(points), np.concatenate(normals), np.concatenate(colours), 0.0)


def without_outliers(points: Samples, neighbours: int = NEIGHBOURS, reach: float = REACH) -> Samples:
    """Those with enough others near. ValueError: none has."""
    from scipy.spatial import cKDTree

    tree = cKDTree(points.points)
    near = tree.query_ball_point(points.points, reach, return_length=True)
    kept = near > neighbours
    if not kept.any():
        raise ValueError(f"no point has {neighbours} others within {reach} m: too few pixels, or depth not in m")
    return Samples(points.points[kept], points.normals[kept], points.colours[kept], 0.0)


def from_views(
    name: str,
    views: Sequence[View],
    count: int,
    rng: np.random.Generator,
    settings: FitSettings | None = None,
) -> Gaussians:
    """About `count` Gaussians of a body from pictures with masks, of which some have depth; in the world's frame."""
    points = without_outliers(points_of(views))
    some = rng.permutation(len(points.points))[: 24 * count]
    place, normal, colour = points.points[some], points.normals[some], points.colours[some]
    chosen, owner = thin_out(place, 0 * normal, count)

    # round Gaussians as wide as half the way to the neighbours
    from scipy.spatial import cKDTree

    away = cKDTree(place[chosen]).query(place[chosen], k=min(5, len(chosen)))[0][:, 1:].mean(1)
    many = np.maximum(np.bincount(owner, minlength=len(chosen)), 1)[:, None]
    colours = np.zeros((len(chosen), 3))
    np.add.at(colours, owner, colour)
    first = Gaussians(
        (name,),
        mean=place[chosen],
        quat=np.tile([1.0, 0, 0, 0], (len(chosen), 1)),
        scale=np.tile(0.5 * np.maximum(away, 1e-4)[:, None], (1, 3)),
        colour=np.clip(colours / many, 0, 1),
        opacity=np.full(len(chosen), 0.9),
        body=np.zeros(len(chosen), np.int64),
    )

    fitted = fit_appearance(first, views, rng, settings)
    kept = fitted.opacity >= FAINT
    if kept.sum() < 10:
        raise ValueError(f"only {int(kept.sum())} Gaussians of '{name}' stayed opaque: masks and cameras do not agree")
    parts = {key: getattr(fitted, key)[kept] for key in ("mean", "quat", "scale", "colour", "opacity", "body")}
    return fit_appearance(Gaussians((name,), **parts), views, rng, settings)

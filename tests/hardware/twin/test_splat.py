"""The rasteriser against a dense reference, and its gradients against finite differences."""

import dataclasses

import numpy as np
import pytest

from understudy.hardware.twin.gaussians import Camera, Gaussians
from understudy.hardware.twin.splat import CpuRenderer, draw, in_world, place
from understudy.hardware.twin.splatting._kernels import BLUR, FAR, OPAQUE
from understudy.hardware.twin.splatting.gpu import open_renderer
from understudy.hardware.twin.splatting.views import looking_at

CAMERA = looking_at("a", np.array([0.25, -0.3, 0.35]), np.zeros(3), 40, 32)


def cloud(n: int = 40, bodies: int = 2, seed: int = 0) -> Gaussians:
    rng = np.random.default_rng(seed)
    return Gaussians(
        tuple(f"body{i}" for i in range(bodies)),
        mean=rng.uniform(-0.06, 0.06, (n, 3)),
        quat=rng.normal(size=(n, 4)),
        scale=np.exp(rng.uniform(np.log(0.003), np.log(0.02), (n, 3))),
        colour=rng.random((n, 3)),
        opacity=rng.uniform(0.2, 0.95, n),
        body=rng.integers(0, bodies, n),
    )


def dense(mean, quat, scale, opacity, features, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """All Gaussians at all pixels, written as in the papers: rotation and projection as matrices, then compositing."""
    from scipy.spatial.transform import Rotation

    turn, shift = camera.camera_from_world[:3, :3], camera.camera_from_world[:3, 3]
    seen = mean @ turn.T + shift
    rows, columns = np.indices((camera.height, camera.width))
    image, through = np.zeros((camera.height, camera.width, features.shape[1])), np.ones((camera.height, camera.width))
    for i in np.argsort(seen[:, 2]):
        x, y, z = seen[i]
        flat = np.array([[camera.K[0, 0] / z, 0, -camera.K[0, 0] * x / z**2], [0, camera.K[1, 1] / z, 0]])
        flat[1, 2] = -camera.K[1, 1] * y / z**2
        axes = Rotation.from_quat(quat[i][[1, 2, 3, 0]]).as_matrix()
        spread = flat @ turn @ axes @ np.diag(scale[i] ** 2) @ axes.T @ turn.T @ flat.T + BLUR * np.eye(2)
        centre = (camera.K @ (seen[i] / z))[:2]
        away = np.stack([columns - centre[0], rows - centre[1]], -1)
        q = np.einsum("hwi,ij,hwj->hw", away, np.linalg.inv(spread), away)
        alpha = np.where(q <= FAR, np.minimum(OPAQUE, opacity[i] * np.exp(-q / 2)), 0)
        image += (alpha * through)[..., None] * features[i]
        through = through * (1 - alpha)
    return image, through


def drawn(gaussians: Gaussians, mean=None, camera: Camera = CAMERA):
    mean = gaussians.mean if mean is None else mean
    return draw(mean, gaussians.quat, gaussians.scale, gaussians.opacity, gaussians.colour, camera)


def test_picture_is_that_of_the_dense_reference():
    gaussians = cloud()
    drawing = drawn(gaussians)
    parts = gaussians.mean, gaussians.quat, gaussians.scale, gaussians.opacity
    image, through = dense(*parts, gaussians.colour, CAMERA)
    assert through.min() < 0.05 and drawing.image.max() > 0.3  # something is to be seen, and hidden
    np.testing.assert_allclose(drawing.image, image, atol=2e-4)  # what comes through less than 1e-4 is not drawn
    np.testing.assert_allclose(drawing.through, through, atol=2e-4)


def loss_of(target, behind):
    return lambda drawing: 0.5 * ((drawing.over(behind) - target) ** 2).sum()


def test_gradients_are_those_of_finite_differences():
    from understudy.hardware.twin.splatting import _kernels as kernels

    gaussians, rng = cloud(), np.random.default_rng(1)
    target, behind = rng.random((32, 40, 3)), rng.random((32, 40, 3))
    drawing, loss = drawn(gaussians), loss_of(target, behind)
    found = drawing.gradients(drawing.over(behind) - target, behind)
    order, conic, window, opacity, last = drawing.inside

    def moved(centre, conic, opacity):
        image, through = np.empty_like(drawing.image), np.empty_like(drawing.through)
        wide = window + np.array([-1, 1, -1, 1])  # the window moves with the centre
        wide[:, [0, 2]] = np.maximum(wide[:, [0, 2]], 0)
        wide[:, 1], wide[:, 3] = np.minimum(wide[:, 1], 39), np.minimum(wide[:, 3], 31)
        kernels.composite(order, centre, conic, wide, opacity, drawing.features, image, through, last.copy())
        return loss(dataclasses.replace(drawing, image=image, through=through))

    step = 1e-6
    for i in range(0, 40, 5):
        for axis in (0, 1):
            centre = [drawing.centre + step * sign * unit(i, axis) for sign in (1, -1)]
            slope = (moved(centre[0], conic, opacity) - moved(centre[1], conic, opacity)) / (2 * step)
            assert found.centre[i, axis] == pytest.approx(slope, rel=1e-3, abs=1e-4)
        more = [opacity + step * sign * (np.arange(40) == i) for sign in (1, -1)]
        slope = (moved(drawing.centre, conic, more[0]) - moved(drawing.centre, conic, more[1])) / (2 * step)
        assert found.opacity[i] == pytest.approx(slope, rel=1e-3, abs=1e-4)
        wide = [conic * np.exp(-2 * step * sign * (np.arange(40) == i))[:, None] for sign in (1, -1)]
        slope = (moved(drawing.centre, wide[0], opacity) - moved(drawing.centre, wide[1], opacity)) / (2 * step)
        assert found.size[i] == pytest.approx(slope, rel=1e-3, abs=1e-4)


def unit(i: int, axis: int) -> np.ndarray:
    return np.outer(np.arange(40) == i, np.arange(2) == axis).astype(float)


def test_feature_gradients_are_exact():
    gaussians, rng = cloud(), np.random.default_rng(2)
    slopes = rng.random((32, 40, 3))
    found = drawn(gaussians).feature_gradients(slopes)
    colours = rng.random((40, 3))
    brighter = dataclasses.replace(gaussians, colour=colours)
    change = (slopes * (drawn(brighter).image - drawn(gaussians).image)).sum()
    assert change == pytest.approx((found * (colours - gaussians.colour)).sum(), rel=1e-9)  # it is linear


def test_twist_gradient_and_jacobian_agree_with_a_body_that_moves():
    """Round Gaussians from afar, where the chain rule leaves next to nothing out: outlines neither turn nor grow."""
    small = dataclasses.replace(cloud(60), scale=np.full((60, 3), 0.012))
    afar = looking_at("far", np.array([25.0, -30.0, 35.0]), np.zeros(3), 40, 32, fovy=0.16)
    rng, moving = np.random.default_rng(3), cloud(60).body == 0
    target, behind = rng.random((32, 40, 3)), np.zeros((32, 40, 3))
    drawing = drawn(small, camera=afar)
    velocity = np.zeros((60, 3, 6))
    velocity[:, :, :3] = np.eye(3)
    velocity[:, :, 3:] = np.stack([np.cross(axis, small.mean) for axis in np.eye(3)], -1)

    (left, right, top, bottom), jacobian = drawing.jacobian(moving, velocity, behind, [2, 0])
    parts, step = (slice(top, bottom + 1), slice(left, right + 1)), 1e-5
    for number in range(6):
        way = step * velocity[..., number] * moving[:, None]
        there, back = (drawn(small, small.mean + sign * way, camera=afar) for sign in (1, -1))
        slope = (there.image - back.image)[..., [2, 0]] / (2 * step)
        found = np.zeros_like(slope)
        found[parts] = jacobian[..., number]
        wrong = np.abs(found - slope) > 0.003 * np.abs(slope).max()
        assert wrong.mean() < 0.01  # but for pixels that the edge at 3 sigma has just passed

    # the gradient of a loss is the same by both ways
    slopes = drawing.image - target
    slopes[..., 1] = 0
    by_means = np.einsum("nj,njk->k", drawing.mean_gradients(slopes, behind)[moving], velocity[moving])
    by_jacobian = np.einsum("hwc,hwck->k", slopes[parts][..., [2, 0]], jacobian)
    np.testing.assert_allclose(by_means, by_jacobian, rtol=1e-8)


def test_a_part_is_drawn_as_in_the_whole():
    gaussians, behind = cloud(), np.random.default_rng(1).random((CAMERA.height, CAMERA.width, 3))
    some = np.arange(len(gaussians.mean)) % 17 == 0
    whole = drawn(gaussians)
    args = gaussians.mean, gaussians.quat, gaussians.scale, gaussians.opacity, gaussians.colour, CAMERA
    part, none = draw(*args, some), draw(*args, np.zeros_like(some))
    velocity = np.random.default_rng(2).normal(size=(len(some), 3, 4))
    (box, wanted), (same, found) = (one.jacobian(some, velocity, behind, [0, 1]) for one in (whole, part))
    left, right, top, bottom = box
    assert np.array_equal(box, same)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
    inside = slice(top, bottom + 1), slice(left, right + 1)
    np.testing.assert_allclose(part.image[inside], whole.image[inside], atol=1e-12)
    np.testing.assert_allclose(part.through[inside], whole.through[inside], atol=1e-12)
    assert not none.image.any() and (none.through == 1).all()


def test_masks_depth_and_background():
    gaussians, far = cloud(), np.eye(4)
    far[:3, 3] = CAMERA.world_from_camera[:3, 2] * 0.2  # body1 is moved away from the camera
    poses, behind = np.stack([np.eye(4), far]), np.full((32, 40, 3), 0.25)
    picture = CpuRenderer().render(gaussians, poses, CAMERA, behind)
    mean, quat = in_world(gaussians, poses)
    drawing = draw(mean, quat, gaussians.scale, gaussians.opacity, gaussians.colour, CAMERA)
    np.testing.assert_allclose(picture.masks.sum(0), 1 - drawing.through, atol=1e-6)
    np.testing.assert_allclose(picture.image, drawing.over(behind), atol=1e-6)
    alone = CpuRenderer().render(gaussians.of("body1"), far[None], CAMERA)
    assert (
        np.median(alone.depth[np.isfinite(alone.depth)]) > np.median(picture.depth[np.isfinite(picture.depth)]) + 0.05
    )
    assert (alone.masks[0] >= picture.masks[1] - 1e-6).all()  # nothing hides it now


def test_place_turns_and_moves():
    gaussians, pose = cloud(bodies=1), np.eye(4)
    pose[:3, :3], pose[:3, 3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]], [0.1, 0, 0]
    moved = place(gaussians, pose[None])
    np.testing.assert_allclose(moved.mean, gaussians.mean[:, [1, 0, 2]] * [-1, 1, 1] + [0.1, 0, 0])
    back = place(moved, np.linalg.inv(pose)[None])
    np.testing.assert_allclose(np.abs((back.quat * gaussians.quat).sum(1)), 1)


def test_refusals():
    with pytest.raises(ValueError, match="2 bodies want"):
        CpuRenderer().render(cloud(), np.eye(4)[None], CAMERA)
    with pytest.raises(ValueError, match="not finite"):
        CpuRenderer().render(cloud(), np.full((2, 4, 4), np.nan), CAMERA)
    with pytest.raises(ValueError, match="background of camera a"):
        CpuRenderer().render(cloud(), np.stack([np.eye(4)] * 2), CAMERA, np.zeros((3, 3, 3)))
    with pytest.raises(ValueError, match="Known: cpu, cuda"):
        open_renderer("tpu")

"""The rasteriser's inner loops, compiled by numba at first use and kept on disk.

Splatting by elliptical weighted averages (Zwicker et al. 2001) and compositing front to back, as in 3-D Gaussian
splatting (Kerbl et al. 2023, equations 2 and 3), but Gaussian by Gaussian over the window of 3 sigma around each: a few
hundred Gaussians are few enough for one core, and no tiles are needed. Arrays are float64. Letters: N Gaussians in
order of depth, C channels, K columns of a Jacobian.

In all: `alpha = opacity * exp(-q / 2)`, `q` the squared Mahalanobis distance of the pixel from the centre, at most
`FAR`; a pixel that is full (less than `FULL` of the light comes through) takes nothing more, and `last` remembers the
last Gaussian that it took.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

FAR = 9.0  # squared Mahalanobis distance of 3 sigma
FULL = 1e-4
OPAQUE = 0.99  # greatest alpha, so that the way back can divide by 1 - alpha
BLUR = 0.1  # px^2, added to each projected covariance: the footprint of a pixel (uniform: 1/12)
NEAR = 0.01  # m, in front of the camera


@njit(cache=True)
def project(mean, quat, scale, rotation, shift, K, width, height):
    """Gaussians in the world's frame -> in the picture.

    Args:
        mean (N, 3), quat (N, 4), scale (N, 3): in the world's frame.
        rotation (3, 3), shift (3,): from the world's frame to the camera's.

    Returns:
        centre (N, 2) px; conic (N, 3), the inverse covariance's xx, xy, yy in 1/px^2; depth (N,) m; window (N, 4) of
        first and last column and row, empty (last < first) where nothing is seen; slope (N, 2, 3), px per m: how the
        centre moves with the mean, in the world's frame.
    """
    n = len(mean)
    centre, conic, depth = np.zeros((n, 2)), np.zeros((n, 3)), np.zeros(n)
    window, slope = np.zeros((n, 4), np.int64), np.zeros((n, 2, 3))
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    half = np.zeros((2, 3))

    for i in range(n):
        x = rotation[0, 0] * mean[i, 0] + rotation[0, 1] * mean[i, 1] + rotation[0, 2] * mean[i, 2] + shift[0]
        y = rotation[1, 0] * mean[i, 0] + rotation[1, 1] * mean[i, 1] + rotation[1, 2] * mean[i, 2] + shift[1]
        z = rotation[2, 0] * mean[i, 0] + rotation[2, 1] * mean[i, 1] + rotation[2, 2] * mean[i, 2] + shift[2]
        depth[i] = z
        window[i, 1] = window[i, 3] = -1
        if z < NEAR:
            continue
        u, v = fx * x / z + cx, fy * y / z + cy
        for k in range(3):
            slope[i, 0, k] = (fx * rotation[0, k] - (u - cx) * rotation[2, k]) / z
            slope[i, 1, k] = (fy * rotation[1, k] - (v - cy) * rotation[2, k]) / z

        # slope * axes * scale is a square root of the projected covariance
        w, a, b, c = quat[i]
        for row in range(2):
            s0, s1, s2 = slope[i, row]
            half[row, 0] = scale[i, 0] * (
                s0 * (1 - 2 * (b * b + c * c)) + s1 * 2 * (a * b + w * c) + s2 * 2 * (a * c - w * b)
            )
            half[row, 1] = scale[i, 1] * (
                s0 * 2 * (a * b - w * c) + s1 * (1 - 2 * (a * a + c * c)) + s2 * 2 * (b * c + w * a)
            )
            half[row, 2] = scale[i, 2] * (
                s0 * 2 * (a * c + w * b) + s1 * 2 * (b * c - w * a) + s2 * (1 - 2 * (a * a + b * b))
            )
        xx = half[0, 0] ** 2 + half[0, 1] ** 2 + half[0, 2] ** 2 + BLUR
        yy = half[1, 0] ** 2 + half[1, 1] ** 2 + half[1, 2] ** 2 + BLUR
        xy = half[0, 0] * half[1, 0] + half[0, 1] * half[1, 1] + half[0, 2] * half[1, 2]
        determinant = xx * yy - xy * xy
        centre[i, 0], centre[i, 1] = u, v
        conic[i, 0], conic[i, 1], conic[i, 2] = yy / determinant, -xy / determinant, xx / determinant

        wide, high = math.sqrt(FAR * xx), math.sqrt(FAR * yy)
        if u + wide >= 0 and u - wide <= width - 1 and v + high >= 0 and v - high <= height - 1:
            window[i, 0], window[i, 1] = max(0, math.ceil(u - wide)), min(width - 1, math.floor(u + wide))
            window[i, 2], window[i, 3] = max(0, math.ceil(v - high)), min(height - 1, math.floor(v + high))
    return centre, conic, depth, window, slope


@njit(cache=True)
def composite(order, centre, conic, window, opacity, features, image, through, last):
    """Draw front to back. Writes `image` (h, w, C), `through` (h, w): the share of light from behind all, and `last`.

    Args:
        order (N,): numbers of the Gaussians, the nearest first.
        features (N, C): colours, or whatever is blended like them.
    """
    channels = features.shape[1]
    image[:] = 0.0
    through[:] = 1.0
    last[:] = -1
    for rank in range(len(order)):
        i = order[rank]
        a, b, c, full = conic[i, 0], conic[i, 1], conic[i, 2], opacity[i]
        for y in range(window[i, 2], window[i, 3] + 1):
            dy = y - centre[i, 1]
            for x in range(window[i, 0], window[i, 1] + 1):
                light = through[y, x]
                if light < FULL:
                    continue
                dx = x - centre[i, 0]
                q = a * dx * dx + 2 * b * dx * dy + c * dy * dy
                if q > FAR:
                    continue
                alpha = min(OPAQUE, full * math.exp(-0.5 * q))
                weight = alpha * light
                for k in range(channels):
                    image[y, x, k] += weight * features[i, k]
                through[y, x] = light * (1 - alpha)
                last[y, x] = rank


@njit(cache=True)
def pull_back(order, centre, conic, window, opacity, features, through, last, slopes, behind, changes):
    """Gradients of a scalar loss by the way back, back to front.

    Args:
        through, last: of `composite`.
        slopes (h, w, C): of the loss with respect to the image.
        behind (h, w): slopes dotted with what is behind all Gaussians, times `through`. Overwritten.
        changes (N, 5): receives the derivatives with respect to the centre's column and row (px), opacity, the
            logarithm of the scale (of the conic as it is), and nothing in the last.
    """
    channels = features.shape[1]
    light = through.copy()
    changes[:] = 0.0
    for rank in range(len(order) - 1, -1, -1):
        i = order[rank]
        a, b, c, full = conic[i, 0], conic[i, 1], conic[i, 2], opacity[i]
        right, down, more, wider = 0.0, 0.0, 0.0, 0.0
        for y in range(window[i, 2], window[i, 3] + 1):
            dy = y - centre[i, 1]
            for x in range(window[i, 0], window[i, 1] + 1):
                if rank > last[y, x]:
                    continue
                dx = x - centre[i, 0]
                q = a * dx * dx + 2 * b * dx * dy + c * dy * dy
                if q > FAR:
                    continue
                shape = math.exp(-0.5 * q)
                alpha = min(OPAQUE, full * shape)
                before = light[y, x] / (1 - alpha)
                own = 0.0
                for k in range(channels):
                    own += slopes[y, x, k] * features[i, k]
                slope = own * before - behind[y, x] / (1 - alpha)
                behind[y, x] += own * alpha * before
                light[y, x] = before
                if alpha < OPAQUE:
                    right += slope * alpha * (a * dx + b * dy)
                    down += slope * alpha * (b * dx + c * dy)
                    more += slope * shape
                    wider += slope * alpha * q
        changes[i, 0], changes[i, 1], changes[i, 2], changes[i, 3] = right, down, more, wider


@njit(cache=True)
def blame(order, centre, conic, window, opacity, through, last, slopes, changes):
    """Gradients of a scalar loss with respect to the features: (N, C) into `changes`. Arguments as in `pull_back`."""
    channels = slopes.shape[2]
    light = through.copy()
    changes[:] = 0.0
    for rank in range(len(order) - 1, -1, -1):
        i = order[rank]
        a, b, c, full = conic[i, 0], conic[i, 1], conic[i, 2], opacity[i]
        for y in range(window[i, 2], window[i, 3] + 1):
            dy = y - centre[i, 1]
            for x in range(window[i, 0], window[i, 1] + 1):
                if rank > last[y, x]:
                    continue
                dx = x - centre[i, 0]
                q = a * dx * dx + 2 * b * dx * dy + c * dy * dy
                if q > FAR:
                    continue
                alpha = min(OPAQUE, full * math.exp(-0.5 * q))
                before = light[y, x] / (1 - alpha)
                for k in range(channels):
                    changes[i, k] += slopes[y, x, k] * alpha * before
                light[y, x] = before


@njit(cache=True)
def push_forward(order, centre, conic, window, opacity, features, through, last, behind, motion, moves, box, jacobian):
    """Jacobian of the picture with respect to K numbers that move some of the centres.

    Args:
        behind (h, w, C): what is behind all Gaussians, times `through`. Overwritten.
        motion (N, 2, K): px of each centre for a unit of each number.
        moves (N,): whether it moves at all.
        box (4,): first and last column and row that the Jacobian is wanted of.
        jacobian (rows, columns, C, K): of the box; written.
    """
    channels, columns = features.shape[1], motion.shape[2]
    light = through.copy()
    jacobian[:] = 0.0
    step = np.zeros(columns)
    for rank in range(len(order) - 1, -1, -1):
        i = order[rank]
        a, b, c, full = conic[i, 0], conic[i, 1], conic[i, 2], opacity[i]
        for y in range(max(window[i, 2], box[2]), min(window[i, 3], box[3]) + 1):
            dy = y - centre[i, 1]
            for x in range(max(window[i, 0], box[0]), min(window[i, 1], box[1]) + 1):
                if rank > last[y, x]:
                    continue
                dx = x - centre[i, 0]
                q = a * dx * dx + 2 * b * dx * dy + c * dy * dy
                if q > FAR:
                    continue
                alpha = min(OPAQUE, full * math.exp(-0.5 * q))
                before = light[y, x] / (1 - alpha)
                if moves[i] and alpha < OPAQUE:
                    right, down = alpha * (a * dx + b * dy), alpha * (b * dx + c * dy)
                    for j in range(columns):
                        step[j] = right * motion[i, 0, j] + down * motion[i, 1, j]
                    for k in range(channels):
                        slope = features[i, k] * before - behind[y, x, k] / (1 - alpha)
                        for j in range(columns):
                            jacobian[y - box[2], x - box[0], k, j] += slope * step[j]
                for k in range(channels):
                    behind[y, x, k] += features[i, k] * alpha * before
                light[y, x] = before


@njit(cache=True)
def unmix(image, background, palette, sigma, which, share, misfit):
    """Each pixel as a mixture of its background and the one colour of a palette that explains it best.

    Args:
        image, background (h, w, 3); palette (P, 3); sigma: noise of a channel.
        which (h, w): receives the number of the colour; -1 where the background alone does as well as any.
        share (h, w): receives the share of that colour, 0..1.
        misfit (h, w): receives how far the mixture is from the pixel, in sigma.
    """
    height, width = image.shape[:2]
    for y in range(height):
        for x in range(width):
            r, g, b = image[y, x, 0] - background[y, x, 0], image[y, x, 1] - background[y, x, 1], 0.0
            b = image[y, x, 2] - background[y, x, 2]
            least, chosen, part = r * r + g * g + b * b, -1, 0.0
            for p in range(len(palette)):
                u, v = palette[p, 0] - background[y, x, 0], palette[p, 1] - background[y, x, 1]
                w = palette[p, 2] - background[y, x, 2]
                length = u * u + v * v + w * w
                if length < 4 * sigma * sigma:
                    continue
                alpha = min(1.0, max(0.0, (r * u + g * v + b * w) / length))
                away = (r - alpha * u) ** 2 + (g - alpha * v) ** 2 + (b - alpha * w) ** 2
                cost = away + 4 * alpha * (1 - alpha) * sigma * sigma
                if cost < least:
                    least, chosen, part = cost, p, alpha
            which[y, x], share[y, x], misfit[y, x] = chosen, part, math.sqrt(least) / sigma

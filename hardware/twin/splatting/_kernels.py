"""The rasteriser's inner loops, compiled by numba at first use and kept on disk.

Splatting by elliptical weighted averages (Zwicker et al. 2001) and compositing front to back, as in 3-D Gaussian
splatting (Kerbl et al. 2023, equations 2 and 3), but Gaussian by Gaussian over the window of 3 sigma around each: a few
hundred Gaussians are few enough for one core, and no tiles are needed. Arrays are float64. Letters: N Gaussians in
order of depth, C channels, K columns of a Jacobian.

In all: `alpha = opacity * exp(-q / 2)`, `q` the squared Mahalanobis distance of the pixel from the centre, at most
`FAR`; along a row each exp follows from the one before, since `q` is quadratic. A pixel that is full (less than `FULL`
of the light comes through) takes nothing more, and `last` remembers the last Gaussian that it took.
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
def carry(turns, shifts, body, mean, quat):
    """Gaussians (N,) of bodies -> (N, 3) means and (N, 4) quaternions (w, x, y, z) in the world's frame.

    Args:
        turns (bodies, 3, 3), shifts (bodies, 3): of each body in the world.
        body (N,), mean (N, 3), quat (N, 4): whose each Gaussian is, and where in the body's frame.
    """
    turned = np.empty((len(turns), 4))
    for i in range(len(turns)):
        m = turns[i]
        # four times each square, and from the largest the others (Shepperd 1978)
        w, x = 1 + m[0, 0] + m[1, 1] + m[2, 2], 1 + m[0, 0] - m[1, 1] - m[2, 2]
        y, z = 1 - m[0, 0] + m[1, 1] - m[2, 2], 1 - m[0, 0] - m[1, 1] + m[2, 2]
        most = max(w, x, y, z)
        if most == w:
            four = (w, m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1])
        elif most == x:
            four = (m[2, 1] - m[1, 2], x, m[1, 0] + m[0, 1], m[0, 2] + m[2, 0])
        elif most == y:
            four = (m[0, 2] - m[2, 0], m[1, 0] + m[0, 1], y, m[2, 1] + m[1, 2])
        else:
            four = (m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[2, 1] + m[1, 2], z)
        size = 2 * math.sqrt(most)
        for k in range(4):
            turned[i, k] = four[k] / size

    means, quats = np.empty_like(mean), np.empty_like(quat)
    for n in range(len(mean)):
        i = body[n]
        for row in range(3):
            means[n, row] = shifts[i, row]
            for k in range(3):
                means[n, row] += turns[i, row, k] * mean[n, k]
        w, x, y, z = turned[i]
        a, b, c, d = quat[n]
        quats[n, 0], quats[n, 1] = w * a - x * b - y * c - z * d, w * b + x * a + y * d - z * c
        quats[n, 2], quats[n, 3] = w * c - x * d + y * a + z * b, w * d + x * c - y * b + z * a
    return means, quats


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
def span(a, b, c, dy, middle, first, last):
    """Of a row `dy` px below a centre at column `middle`: first and last column within `FAR`, and of those given."""
    inside = b * b * dy * dy - a * (c * dy * dy - FAR)
    if inside < 0:
        return 0, -1
    half, middle = math.sqrt(inside) / a, middle - b * dy / a
    return max(first, math.ceil(middle - half)), min(last, math.floor(middle + half))


@njit(cache=True)
def falling(a, b, c, dx, dy):
    """exp(-q / 2) at (dx, dy) px from a centre, and what the next column's is to it; that ratio falls by exp(-a)."""
    q = a * dx * dx + 2 * b * dx * dy + c * dy * dy
    return math.exp(-0.5 * q), math.exp(-0.5 * (a * (2 * dx + 1) + 2 * b * dy))


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
        curve = math.exp(-a)
        for y in range(window[i, 2], window[i, 3] + 1):
            dy = y - centre[i, 1]
            start, end = span(a, b, c, dy, centre[i, 0], window[i, 0], window[i, 1])
            shape, ratio = falling(a, b, c, start - centre[i, 0], dy)
            for x in range(start, end + 1):
                alpha, light = min(OPAQUE, full * shape), through[y, x]
                shape, ratio = shape * ratio, ratio * curve
                if light < FULL:
                    continue
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
            start, end = span(a, b, c, dy, centre[i, 0], window[i, 0], window[i, 1])
            for x in range(start, end + 1):
                if rank > last[y, x]:
                    continue
                dx = x - centre[i, 0]
                q = a * dx * dx + 2 * b * dx * dy + c * dy * dy
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
            start, end = span(a, b, c, dy, centre[i, 0], window[i, 0], window[i, 1])
            for x in range(start, end + 1):
                if rank > last[y, x]:
                    continue
                dx = x - centre[i, 0]
                q = a * dx * dx + 2 * b * dx * dy + c * dy * dy
                alpha = min(OPAQUE, full * math.exp(-0.5 * q))
                before = light[y, x] / (1 - alpha)
                for k in range(channels):
                    changes[i, k] += slopes[y, x, k] * alpha * before
                light[y, x] = before


@njit(cache=True)
def push_forward(
    order, centre, conic, window, opacity, features, through, last, background, channels, motion, moves, box, jacobian
):
    """Jacobian of the picture with respect to K numbers that move some of the centres.

    Args:
        background (h, w, C).
        channels (D,): which of the C are wanted.
        motion (N, 2, K): px of each centre for a unit of each number.
        moves (N,): whether it moves at all.
        box (4,): first and last column and row that the Jacobian is wanted of.
        jacobian (rows, columns, D, K): of the box; written.
    """
    columns = motion.shape[2]
    light = through[box[2] : box[3] + 1, box[0] : box[1] + 1].copy()
    behind = np.empty(jacobian.shape[:3])
    for v in range(behind.shape[0]):
        for u in range(behind.shape[1]):
            for k in range(len(channels)):
                behind[v, u, k] = background[v + box[2], u + box[0], channels[k]] * light[v, u]
    jacobian[:] = 0.0
    step = np.zeros(columns)
    for rank in range(len(order) - 1, -1, -1):
        i = order[rank]
        a, b, c, full = conic[i, 0], conic[i, 1], conic[i, 2], opacity[i]
        curve = math.exp(-a)
        for y in range(max(window[i, 2], box[2]), min(window[i, 3], box[3]) + 1):
            dy, v = y - centre[i, 1], y - box[2]
            first, most = max(window[i, 0], box[0]), min(window[i, 1], box[1])
            start, end = span(a, b, c, dy, centre[i, 0], first, most)
            shape, ratio = falling(a, b, c, start - centre[i, 0], dy)
            for x in range(start, end + 1):
                alpha, dx, u = min(OPAQUE, full * shape), x - centre[i, 0], x - box[0]
                shape, ratio = shape * ratio, ratio * curve
                if rank > last[y, x]:
                    continue
                before = light[v, u] / (1 - alpha)
                if moves[i] and alpha < OPAQUE:
                    right, down = alpha * (a * dx + b * dy), alpha * (b * dx + c * dy)
                    for j in range(columns):
                        step[j] = right * motion[i, 0, j] + down * motion[i, 1, j]
                    for k in range(len(channels)):
                        slope = features[i, channels[k]] * before - behind[v, u, k] / (1 - alpha)
                        for j in range(columns):
                            jacobian[v, u, k, j] += slope * step[j]
                for k in range(len(channels)):
                    behind[v, u, k] += features[i, channels[k]] * alpha * before
                light[v, u] = before


@njit(cache=True)
def sweep(place, moving, centre, basis):
    """(N, 3, K) m: how means (N, 3) move with the K columns of twists (6, K) about a centre (3,); 0 for other ones."""
    velocity = np.zeros((len(place), 3, basis.shape[1]))
    for n in range(len(place)):
        if not moving[n]:
            continue
        x, y, z = place[n, 0] - centre[0], place[n, 1] - centre[1], place[n, 2] - centre[2]
        for k in range(basis.shape[1]):
            a, b, c = basis[3, k], basis[4, k], basis[5, k]
            velocity[n, 0, k] = basis[0, k] + b * z - c * y
            velocity[n, 1, k] = basis[1, k] + c * x - a * z
            velocity[n, 2, k] = basis[2, k] + a * y - b * x
    return velocity


@njit(cache=True)
def normal_equations(jacobian, image, through, background, target, weights, channels, box, matrix, vector):
    """Add Gauss-Newton's `J' W J` (K, K) and `J' W r` (K,) of a box of a picture to `matrix` and `vector`.

    Args:
        jacobian (rows, columns, D, K), channels (D,), box (4,): of `push_forward`.
        image, background, target, weights (h, w, C), through (h, w): `r` is image + through * background - target.
    """
    columns = jacobian.shape[3]
    for v in range(jacobian.shape[0]):
        y = v + box[2]
        for u in range(jacobian.shape[1]):
            x = u + box[0]
            for k in range(len(channels)):
                channel = channels[k]
                weight = weights[y, x, channel]
                if weight == 0.0:
                    continue
                away = image[y, x, channel] + through[y, x] * background[y, x, channel] - target[y, x, channel]
                for i in range(columns):
                    slope = weight * jacobian[v, u, k, i]
                    vector[i] += slope * away
                    for j in range(columns):
                        matrix[i, j] += slope * jacobian[v, u, k, j]


@njit(cache=True)
def unmix(image, background, palette, owner, sigma, strange, masks, trust, plain):
    """Each pixel as a mixture of its background and the one colour of a palette that explains it best.

    Args:
        image, background (h, w, 3); palette (P, 3) and whose each colour is, owner (P,), -1 the robot's.
        sigma: noise of a channel.
        strange: how far a mixture may be from the pixel, in sigma, for the pixel to be somebody's.
        masks (objects, h, w): receives the share of the object's colour, 0..1.
        trust (h, w): receives 1, and 0 where nobody's or mostly the robot's.
        plain (h, w): receives 1 where the background is seen, else 0.
    """
    height, width = image.shape[:2]
    masks[:] = 0.0
    for y in range(height):
        for x in range(width):
            r, g = image[y, x, 0] - background[y, x, 0], image[y, x, 1] - background[y, x, 1]
            b = image[y, x, 2] - background[y, x, 2]
            least, whose, share = r * r + g * g + b * b, -2, 0.0
            for p in range(len(palette)):
                u, v = palette[p, 0] - background[y, x, 0], palette[p, 1] - background[y, x, 1]
                w = palette[p, 2] - background[y, x, 2]
                length, along = u * u + v * v + w * w, r * u + g * v + b * w
                if length < 4 * sigma * sigma or along <= 2 * sigma * sigma:  # such a cost is never the least
                    continue
                alpha = min(1.0, along / length)
                away = (r - alpha * u) ** 2 + (g - alpha * v) ** 2 + (b - alpha * w) ** 2
                cost = away + 4 * alpha * (1 - alpha) * sigma * sigma
                if cost < least:
                    least, whose, share = cost, owner[p], alpha
            known = math.sqrt(least) / sigma < strange
            if known and whose >= 0:
                masks[whose, y, x] = share
            trust[y, x] = known and not (whose == -1 and share > 0.3)
            plain[y, x] = known and (whose == -2 or share < 0.3)


@njit(cache=True)
def compare(picture, masks, trust, image, colour, target, weights):
    """What is compared of a picture and how much it counts, channel by channel: see `sight.masked`.

    Args:
        picture (h, w, 3); masks (objects, h, w); trust (h, w); image (h, w, C) as drawn, the robot's channel the last.
        colour: weight of a colour's difference, where an object's mask is above one half.
        target, weights (h, w, C): written.
    """
    height, width, channels = image.shape
    target[:], weights[:] = 0.0, 0.0
    for y in range(height):
        for x in range(width):
            plain, most = trust[y, x] * (1 - image[y, x, channels - 1]), 0.0
            for number in range(len(masks)):
                target[y, x, 3 + number], weights[y, x, 3 + number] = masks[number, y, x], plain
                most = max(most, masks[number, y, x])
            for k in range(3):
                target[y, x, k] = picture[y, x, k]
                if most > 0.5:
                    weights[y, x, k] = colour * plain


@njit(cache=True)
def overlap(one, other):
    """Intersection over union of two masks (h, w), 0..1."""
    both, either = 0.0, 0.0
    for y in range(one.shape[0]):
        for x in range(one.shape[1]):
            both += min(one[y, x], other[y, x])
            either += max(one[y, x], other[y, x])
    return both / max(either, 1e-9)


@njit(cache=True)
def squares(image, through, background, picture):
    """Sum over pixels and channels of (image + through * background - picture)^2; channels beyond picture's aside."""
    total = 0.0
    for y in range(picture.shape[0]):
        for x in range(picture.shape[1]):
            for k in range(picture.shape[2]):
                total += (image[y, x, k] + through[y, x] * background[y, x, k] - picture[y, x, k]) ** 2
    return total


@njit(cache=True)
def fit_affine(picture, background, seen, step, rounds, huber, ridge):
    """The affine map (4, 3) from a background to a picture of it, and how many pixels it is fitted to.

    Least squares with Huber's weights. Pixels count that are not dark or white through and through.

    Args:
        picture, background (h, w, 3) 0..1.
        seen (h, w): where the background should be seen.
        step: px between those that are looked at.
        rounds: of reweighting.
        huber: largest difference of a channel, above the median one, from which on a pixel counts less.
        ridge: as if this share of the pixels said that nothing changed.
    """
    height, width = picture.shape[:2]
    target, known, n = np.empty((height * width, 3)), np.ones((height * width, 4)), 0
    for y in range(0, height, step):
        for x in range(0, width, step):
            told = False
            for k in range(3):
                told = told or 0.01 < picture[y, x, k] < 0.99
            if seen[y, x] and told:
                for k in range(3):
                    target[n, k], known[n, k] = picture[y, x, k], background[y, x, k]
                n += 1
    none = np.zeros((4, 3))
    for k in range(3):
        none[k, k] = 1.0
    fit, away = none.copy(), np.zeros(n)
    for _ in range(rounds if n else 0):
        for i in range(n):
            away[i] = 0.0
            for k in range(3):
                value = target[i, k]
                for j in range(4):
                    value -= known[i, j] * fit[j, k]
                away[i] = max(away[i], abs(value))
        middle = np.median(away)
        matrix, vector = ridge * n * np.eye(4), ridge * n * none
        for i in range(n):
            weight = huber / max(away[i] - middle, huber)
            for j in range(4):
                for k in range(4):
                    matrix[j, k] += weight * known[i, j] * known[i, k]
                for k in range(3):
                    vector[j, k] += weight * known[i, j] * target[i, k]
        fit = np.linalg.solve(matrix, vector)
    return fit, n

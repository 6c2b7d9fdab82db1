"""One rigid motion for each object that brings what the twin draws to what cameras see.

Gauss-Newton on the differences of masks and colours, in the velocities that the joints allow, with a prior that
trusts the physics; or Adam on the same loss. Where outlines hardly overlap, and no difference says where to go, the
middles of drawn and seen outlines are brought together first. A motion is a twist: the move of the centre of mass (m,
the world's frame) and a rotation vector about it (rad).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .forces import turned_by
from .sight import Sight
from .splat import Drawing, kernels
from .splatting.fit import Adam

LOST = 0.3  # overlap of outlines below which the middles are brought together first
POOR = 0.5  # overlap below which other turns are tried
BETTER = 0.1  # more of an overlap, for one of them to be taken
TURNS = np.deg2rad([-30.0, 30, -60, 60, -105, 105, -150, 150])  # those that are tried
PAUSE = 10  # looks after which other turns are tried again where none was better
SWING = 0.3  # rad, largest turn in one step
DAMPING = 1e-3  # of Gauss-Newton's matrix, in shares of its diagonal


@dataclass(frozen=True, kw_only=True)
class Solver:
    """How a motion is searched for; the fields are `AlignSettings`'."""

    name: str
    iterations: int
    limit: float
    lr_move: float
    lr_turn: float
    colour: bool
    noise: float
    trust_move: float
    trust_turn: float
    enough: float


class InVain:
    """Searches for another turn that found none better, by object and cameras, from tick to tick."""

    def __init__(self) -> None:
        self._found: dict[tuple, tuple[float, int]] = {}  # which -> overlap then, ticks that it holds on

    def again(self, case: tuple, overlap: float) -> bool:
        """Whether the search would hardly find more: it has not, some ticks ago, at about this overlap."""
        before, left = self._found.pop(case, (0.0, 0))
        if not left or overlap < before - BETTER:
            return False
        self._found[case] = before, left - 1
        return True

    def forget(self, case: tuple) -> None:
        """It is found: should it be lost again, that is another search."""
        self._found.pop(case, None)

    def note(self, case: tuple, overlap: float) -> None:
        """None was better."""
        self._found[case] = overlap, PAUSE


@dataclass(frozen=True, eq=False)
class Objects:
    """Where all Gaussians are, and whose.

    Args:
        mean: (N, 3) m, the world's frame, as physics has them.
        owner: (N,) the object's number; -1 for others.
        centres: (objects, 3) m, centres of mass.
        bases: of each object (6, K), the twists that its joints allow.
    """

    mean: np.ndarray
    owner: np.ndarray
    centres: np.ndarray
    bases: Sequence[np.ndarray]

    @functools.cached_property
    def radii(self) -> np.ndarray:
        """(objects,) m, how far an object's Gaussians reach from its centre."""
        arms = np.linalg.norm(self.mean - self.centres[self.owner], axis=1)
        return np.array([arms[self.owner == number].max(initial=0) for number in range(len(self.centres))])

    def moves(self, twists: np.ndarray) -> np.ndarray:
        """(N, 3) m, how the Gaussians move with twists (objects, 6)."""
        moved = np.zeros_like(self.mean)
        for number, twist in enumerate(twists):
            if twist.any():
                own = self.owner == number
                motion = turned_by(twist, self.centres[number])
                moved[own] = self.mean[own] @ (motion[:3, :3] - np.eye(3)).T + motion[:3, 3]
        return moved

    def mean_twists(self, moved: np.ndarray) -> np.ndarray:
        """(objects, 6) the rigid motions that moves (N, 3) of single Gaussians amount to, for small ones."""
        twists = np.zeros((len(self.centres), 6))
        for number, centre in enumerate(self.centres):
            own = self.owner == number
            arms, move = self.mean[own] - centre, moved[own]
            twists[number, :3] = move.mean(0)
            inertia = (arms**2).sum() * np.eye(3) - arms.T @ arms
            twists[number, 3:] = np.linalg.lstsq(inertia, np.cross(arms, move).sum(0), rcond=1e-9)[0]
        return twists


def find_twists(
    objects: Objects,
    sights: Sequence[Sight],
    able: np.ndarray,
    draw_at: Callable[[np.ndarray, Sight], Drawing],
    solver: Solver,
    in_vain: InVain,
) -> np.ndarray:
    """(objects, 6) twists.

    Args:
        able: (objects, sights) bool, which camera has a say about which object.
        draw_at: draws the Gaussians with means (N, 3) as a camera sees them, where objects are.
        in_vain: what the same search found in earlier ticks; written.
    """
    twists = np.zeros((len(objects.bases), 6))
    adam = [Adam.of((basis.shape[1],)) for basis in objects.bases]
    for number in range(len(twists)):
        twists[number] = _begin(objects, sights, able, number, draw_at, in_vain)
    far = np.inf  # m, how far the last step moved anything
    for step in range(solver.iterations):
        if far <= solver.enough:
            break
        place, first = objects.mean + objects.moves(twists), step == 0 and not twists.any()
        drawings, far = [sight.drawing if first else draw_at(place, sight) for sight in sights], 0.0
        for number, basis in enumerate(objects.bases):
            pairs = [pair for pair, ok in zip(zip(sights, drawings, strict=True), able[number], strict=True) if ok]
            if pairs:
                matrix, vector = _normal_equations(objects, pairs, place, twists[number], number, solver.colour)
                advance = _adam if solver.name == "adam" else _gauss_newton
                moved = basis @ advance(matrix, vector, basis, twists[number], solver, adam[number])
                twists[number] += moved
                far = max(far, np.linalg.norm(moved[:3]) + np.linalg.norm(moved[3:]) * objects.radii[number])
    return twists


def _begin(
    objects: Objects, sights: Sequence[Sight], able: np.ndarray, number: int, draw_at, in_vain: InVain
) -> np.ndarray:
    """(6,) where the search begins: at the physics; where outlines hardly overlap, with their middles together.

    What turns about one axis alone, as on a table, may by then be turned far: of a few turns, the one that shows best.
    """
    looking = [sight for sight, ok in zip(sights, able[number], strict=True) if ok]
    case = number, tuple(sight.camera.name for sight in looking)
    if not looking or (now := np.mean([sight.overlap(number) for sight in looking])) > POOR:
        in_vain.forget(case)
        return np.zeros(6)
    together = _brought_together(objects, sights, able, number) if now <= LOST else np.zeros(6)
    left, sizes, _ = np.linalg.svd(objects.bases[number][3:], full_matrices=False)
    if (sizes > 1e-9).sum() != 1 or in_vain.again(case, float(now)):
        return together

    best, most = together, float(now) + BETTER
    for angle in TURNS:
        twists = np.zeros((len(objects.bases), 6))
        twists[number] = together + np.concatenate([np.zeros(3), angle * left[:, 0]])
        place = objects.mean + objects.moves(twists)
        overlap = float(np.mean([sight.overlap(number, draw_at(place, sight)) for sight in looking]))
        if overlap > most:
            best, most = twists[number], overlap
    if best is together:
        in_vain.note(case, float(now))
    return best


def _brought_together(objects: Objects, sights: Sequence[Sight], able: np.ndarray, number: int) -> np.ndarray:
    """(6,) the move after which the middles of drawn and seen outlines agree."""
    looking = [sight for sight, ok in zip(sights, able[number], strict=True) if ok]
    basis, own = objects.bases[number], objects.owner == number
    system = np.concatenate([sight.drawing.slope[own].mean(0) @ basis[:3] for sight in looking])
    wanted = np.concatenate([sight.shift(number) for sight in looking])
    if not np.abs(system).max() > 1e-6:  # drawn in no picture: nothing says which way
        return np.zeros(6)
    ridge = 1e-6 * np.trace(system.T @ system) * np.eye(system.shape[1])
    twist = basis @ np.linalg.solve(system.T @ system + ridge, system.T @ wanted)
    return np.concatenate([twist[:3], np.zeros(3)])


def _normal_equations(objects: Objects, pairs, place: np.ndarray, twist: np.ndarray, number: int, colour: bool):
    """Gauss-Newton's matrix (K, K), and the gradient (K,) of half the weighted sum of squares, of one object."""
    basis, moving = objects.bases[number], objects.owner == number
    velocity = kernels().sweep(place, moving, objects.centres[number] + twist[:3], basis)
    channels = np.array([0, 1, 2, 3 + number] if colour else [3 + number])

    matrix, vector = np.zeros((basis.shape[1],) * 2), np.zeros(basis.shape[1])
    for sight, drawing in pairs:
        found = drawing.jacobian(moving, velocity, sight.background, channels)
        if found is None:
            continue
        box, jacobian = found
        compared = drawing.image, drawing.through, sight.background, sight.target, sight.weights
        kernels().normal_equations(jacobian, *compared, channels, box, matrix, vector)
    return matrix, vector


def _gauss_newton(matrix, vector, basis, twist, solver: Solver, _) -> np.ndarray:
    """(K,) the step that minimises the squares and the distance from the physics, neither too long nor too wide."""
    prior = np.repeat([1 / solver.trust_move**2, 1 / solver.trust_turn**2], 3) * solver.noise**2
    matrix = matrix + basis.T @ (prior[:, None] * basis) + DAMPING * np.diag(np.diag(matrix))
    step = -np.linalg.solve(matrix, vector + basis.T @ (prior * twist))
    whole = basis @ step
    return step / max(1.0, np.linalg.norm(whole[:3]) / solver.limit, np.linalg.norm(whole[3:]) / SWING)


def _adam(matrix, vector, basis, twist, solver: Solver, moments: Adam) -> np.ndarray:
    rates = np.abs(basis.T) @ np.repeat([solver.lr_move, solver.lr_turn], 3)
    return -rates * moments.step(vector)

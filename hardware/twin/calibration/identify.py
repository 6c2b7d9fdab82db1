"""`understudy twin identify`: friction, damping and mass of a twin's objects from recorded pushes, with intervals.

A recording is cut into pieces. Each begins where the object was measured to be; the twin's arm is led along the
measured joints, and where the object then goes is compared with where it was measured. Parameters are factors of what
the twin has, searched in their logarithm by least squares over all pieces (`scipy.optimize.least_squares`; rollouts by
`mujoco.rollout`, one model for each try). Intervals are Gauss-Newton's, with a covariance clustered by push, since
errors within a push are not independent (sandwich estimator of Liang and Zeger 1986), and Student's quantile. Repeats
on parts of the pushes are printed beside them. A parameter that no push moves is named, not guessed; so is one with
which the predicted ways jump, as they do where contacts come and go: there small differences are steep by chance, and
an interval made of them would be too narrow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ....configs.files import replace_text
from ....configs.plugins import lookup
from ....configs.world import World
from ....sim.decor import movable_bodies, movable_joints
from ..reality.layout import Joints, task_of
from ..reality.stand_in import Changes, alter

if TYPE_CHECKING:
    import mujoco

PARAMETERS = ("friction", "damping", "mass")  # of objects
NUDGE = 0.02  # of a logarithm, for differences
RANGE = np.log(6.0)  # a factor is sought within 1/6 .. 6
WIDE = 0.2  # of a logarithm, for the same from farther away
STEEP = 3.0  # times as steep nearby as from farther away: errors jump
UNSEEN = 0.7  # of a logarithm, a half interval that says nothing


@dataclass(frozen=True, eq=False)
class Push:
    """One recorded push: `time` (T,) s evenly spaced, `qpos` (T, nq) measured of arm and objects."""

    time: np.ndarray
    qpos: np.ndarray

    def __post_init__(self) -> None:
        steps = np.diff(self.time)
        if self.qpos.ndim != 2 or len(self.qpos) != len(self.time):
            raise ValueError(f"a push has {len(self.time)} times and poses of shape {self.qpos.shape}")
        even = len(steps) > 2 and steps[0] > 0 and np.allclose(steps, steps[0], rtol=0.05)
        if not even or not np.isfinite(self.qpos).all():
            raise ValueError("a push is at least four finite poses at even times")

    @classmethod
    def even(cls, time: np.ndarray, qpos: np.ndarray) -> Push:
        """Of poses (T, nq) at times (T,) s that a clock made uneven: as many at even ones, between neighbours."""
        even = np.linspace(time[0], time[-1], len(time))
        return cls(even, np.stack([np.interp(even, time, values) for values in qpos.T], 1))


@dataclass(frozen=True)
class Estimate:
    """A factor, its 95 % interval, what the parts of the pushes say alone, and whether predictions jump with it."""

    name: str
    factor: float
    low: float
    high: float
    repeats: tuple[float, ...]
    jumps: bool = False

    @property
    def seen(self) -> bool:
        """Whether the pushes tell it at all."""
        return not self.jumps and np.log(self.high / self.low) / 2 < UNSEEN

    def __str__(self) -> str:
        parts = ", ".join(f"{value:.2f}" for value in self.repeats)
        if self.jumps:
            why = "where objects go jumps with it (contacts that come and go, what tips)"
            return f"{self.name:<10} not told by these pushes: {why}: push straight, and what does not tip"
        if not self.seen:
            return f"{self.name:<10} not seen in these pushes (within {self.low:.2g} .. {self.high:.2g})"
        return f"{self.name:<10} x {self.factor:.3f} [{self.low:.3f}, {self.high:.3f}]  parts alone: {parts or 'none'}"


@dataclass(frozen=True)
class Identified:
    """All estimates; root mean square errors of the object's place (m) before and after; how many pushes."""

    estimates: tuple[Estimate, ...]
    before: float
    after: float
    pushes: int

    def factors(self) -> dict[str, float]:
        """Those that are seen, as of `Changes`."""
        return {one.name: one.factor for one in self.estimates if one.seen}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How parameters are sought."""

    parameters: tuple[str, ...] = PARAMETERS  # of the objects
    piece: float = 1.0  # s of a push that are predicted at once from a measured start
    arm: float = 0.06  # m that one rad of an object's turn counts
    iterations: int = 12

    def __post_init__(self) -> None:
        for name in self.parameters:
            lookup("parameter", name, dict.fromkeys(PARAMETERS))
        if not self.piece > 0:
            raise ValueError("a piece of a push lasts longer than 0 s")


def identify(world: World, pushes: Sequence[Push], fit: Fit | None = None) -> Identified:
    """Friction, damping and mass of the objects of `world` that make it move as in the pushes.

    Raises:
        ValueError: fewer than three pushes, of another scene, or in which no object moves.
    """
    fit = fit or Fit()
    if len(pushes) < 3:
        raise ValueError(f"an interval needs at least three pushes, got {len(pushes)}; better ten")
    cost = _Cost(world, pushes, fit)
    best, errors, slopes = _search(cost, np.arange(len(pushes)), fit)
    half = _half_widths(errors, slopes, cost.groups)
    wide = _slopes(cost, best, np.arange(len(pushes)), WIDE)
    nearby, afar = (np.linalg.norm(each, axis=0) for each in (slopes, wide))

    repeats = []
    parts = np.array_split(np.arange(len(pushes)), min(3, len(pushes) // 2)) if len(pushes) >= 4 else []
    for part in parts:
        repeats.append(np.exp(_search(cost, part, fit, best)[0]))
    estimates = [
        Estimate(
            name,
            float(np.exp(best[i])),
            float(np.exp(best[i] - half[i])),
            float(np.exp(best[i] + half[i])),
            tuple(float(row[i]) for row in repeats),
            bool(nearby[i] > STEEP * afar[i]),
        )
        for i, name in enumerate(fit.parameters)
    ]
    before = cost(np.zeros((1, len(fit.parameters))), np.arange(len(pushes)))[0]
    scale = np.sqrt(3)  # three numbers a pose
    return Identified(tuple(estimates), _rms(before) * scale, _rms(errors) * scale, len(pushes))


def _search(cost: _Cost, which: np.ndarray, fit: Fit, start: np.ndarray | None = None):
    """(logarithms of the factors, errors (R,), slopes (R, P)) of some of the pushes: damped Gauss-Newton."""
    from scipy.optimize import least_squares

    count = len(fit.parameters)
    begin = np.zeros(count) if start is None else np.clip(start, -RANGE, RANGE)
    found = least_squares(
        lambda at: cost(at[None], which)[0],
        begin,
        jac=lambda at: _slopes(cost, at, which, NUDGE),
        bounds=(-RANGE - 1e-9, RANGE + 1e-9),
        loss="linear",
        max_nfev=fit.iterations,
        xtol=1e-4,
        ftol=1e-5,
    )
    return found.x, found.fun, found.jac


def _slopes(cost: _Cost, at: np.ndarray, which: np.ndarray, step: float) -> np.ndarray:
    """(R, P) how the errors on some of the pushes change with each logarithm, by differences of 2 `step` about `at`."""
    steps = step * np.eye(len(at))
    rows = cost(at + np.concatenate([steps, -steps]), which)
    return ((rows[: len(at)] - rows[len(at) :]) / (2 * step)).T


def _half_widths(errors: np.ndarray, slopes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(P,) half widths of 95 % intervals of the logarithms, with a covariance clustered by `groups` (R,)."""
    from scipy.stats import t

    numbers = np.unique(groups)
    count = len(numbers)
    square = slopes.T @ slopes
    values, vectors = np.linalg.eigh(square)
    seen = values > len(errors) * 1e-12
    inverse = (vectors[:, seen] / values[seen]) @ vectors[:, seen].T
    scores = np.array([slopes[groups == number].T @ errors[groups == number] for number in numbers])
    covariance = inverse @ (scores.T @ scores) @ inverse * count / (count - 1)
    # no smaller than independent errors would make it: few clusters can agree by luck
    plain = inverse * np.square(errors).sum() / max(1, len(errors) - len(values))
    deviation = np.sqrt(np.maximum(np.diag(covariance), np.diag(plain)))
    blind = (vectors[:, ~seen] ** 2).sum(1) > 0.1
    return np.where(blind, RANGE, np.minimum(RANGE, t.ppf(0.975, count - 1) * deviation))


class _Cost:
    """Errors of predicted object poses for tries of parameters. `groups`: of each error, which push."""

    def __init__(self, world: World, pushes: Sequence[Push], fit: Fit):
        import mujoco

        self.fit, task = fit, task_of(world)
        self.spec = task.scene()
        self.model = self.spec.compile()
        self.joints = Joints.of(self.model)
        self.data = mujoco.MjData(self.model)
        self.bodies = movable_bodies(self.model)
        self.dofs = movable_joints(self.model)
        for push in pushes:
            if push.qpos.shape[1] != self.model.nq:
                raise ValueError(f"a push has {push.qpos.shape[1]} joint numbers, the twin {self.model.nq}")
        self._pieces = [piece for number, push in enumerate(pushes) for piece in self._cut(number, push)]
        moved = max(np.ptp(piece.wanted[:, :, :2], axis=1).max() for piece in self._pieces)
        if moved < 0.003:
            raise ValueError(f"no object moves in these pushes (at most {1000 * moved:.1f} mm)")
        self.groups = self._groups(np.arange(len(pushes)))

    def __call__(self, tries: np.ndarray, which: np.ndarray) -> np.ndarray:
        """(K, R) errors of K tries (K, P) on some of the pushes."""
        from mujoco.rollout import Rollout

        models = [self._changed(one) for one in tries]
        pieces = [piece for piece in self._pieces if piece.push in which]
        rows: list[list[np.ndarray]] = [[] for _ in tries]
        import mujoco

        with Rollout(nthread=0) as pool:
            worker = [mujoco.MjData(self.model)]
            for piece in pieces:
                starts = np.tile(piece.start, (len(models), 1))
                controls = np.tile(piece.controls, (len(models), 1, 1))
                states = pool.rollout(models, worker, starts, controls)[0]
                qpos = states[:, piece.every, 1 : 1 + self.model.nq]
                for number in range(len(models)):
                    rows[number].append(self._away(qpos[number], piece.wanted))
        return np.array([np.concatenate(row) for row in rows])

    def _groups(self, which: np.ndarray) -> np.ndarray:
        sizes = [(piece.push, piece.wanted.shape[1] * len(self.bodies) * 3) for piece in self._pieces]
        return np.concatenate([np.full(size, push) for push, size in sizes if push in which])

    def _changed(self, logarithms: np.ndarray) -> mujoco.MjModel:
        import copy

        model = copy.copy(self.model)
        factors = dict(zip(self.fit.parameters, np.exp(logarithms), strict=True))
        alter(model, Changes(**{"friction": 1.0, "damping": 1.0, "mass": 1.0} | factors))
        return model

    def _cut(self, number: int, push: Push) -> list[_Piece]:
        """A push in pieces, each with the controls that lead the arm along the measured joints."""
        import mujoco

        model, period = self.model, float(np.diff(push.time).mean())
        each = max(1, round(period / model.opt.timestep))
        rows = max(3, round(self.fit.piece / period))
        pieces = []
        speeds = np.zeros((len(push.qpos), model.nv))
        for row in range(len(push.qpos)):
            low, high = max(0, row - 1), min(len(push.qpos) - 1, row + 1)
            mujoco.mj_differentiatePos(model, speeds[row], (high - low) * period, push.qpos[low], push.qpos[high])
        for low in range(0, len(push.qpos) - 3, rows):
            high = min(len(push.qpos) - 1, low + rows)
            if high - low < 3:
                break
            self.data.qpos[:], self.data.qvel[:] = push.qpos[low], speeds[low]
            start = _physics(model, self.data)
            arm = push.qpos[low : high + 1, self.joints.qpos]
            shares = np.arange(1, each + 1) / each
            path = arm[:-1, None] + shares[None, :, None] * (arm[1:] - arm[:-1])[:, None]
            lead = _lead(model, self.joints)
            velocity = np.repeat((arm[1:] - arm[:-1])[:, None] / period, each, axis=1)
            controls = np.zeros(((high - low) * each, model.nu))
            controls[:, self.joints.ctrl] = (path + lead * velocity).reshape(-1, arm.shape[1])
            every = np.arange(1, high - low + 1) * each - 1
            pieces.append(_Piece(number, start, controls, every, self._places(push.qpos[low + 1 : high + 1])))
        return pieces

    def _places(self, qpos: np.ndarray) -> np.ndarray:
        """(bodies, T, 3): x, y and `arm` times yaw of the objects, m."""
        import mujoco

        found = np.empty((len(self.bodies), len(qpos), 3))
        for row, values in enumerate(qpos):
            self.data.qpos[:] = values
            mujoco.mj_kinematics(self.model, self.data)
            turns = self.data.xmat[self.bodies]
            found[:, row, :2] = self.data.xipos[self.bodies, :2]
            found[:, row, 2] = self.fit.arm * np.arctan2(turns[:, 3], turns[:, 0])
        return found

    def _away(self, qpos: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        off = self._places(qpos) - wanted
        turn = 2 * np.pi * self.fit.arm
        off[..., 2] -= turn * np.rint(off[..., 2] / turn)
        return off.ravel()


@dataclass(frozen=True, eq=False)
class _Piece:
    """A part of a push: where it begins (S,), controls (N, nu), which steps are compared, and poses (bodies, T, 3)."""

    push: int
    start: np.ndarray
    controls: np.ndarray
    every: np.ndarray
    wanted: np.ndarray


def _physics(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    from ....sim.open_loop import physics

    return physics(model, data)


def _lead(model: mujoco.MjModel, joints: Joints) -> np.ndarray:
    """(D,) s, k_v / k_p of each servo: how far ahead of a moving joint its target must be."""
    gains, biases = model.actuator_gainprm[joints.ctrl, 0], model.actuator_biasprm[joints.ctrl, 2]
    return np.where(gains > 0, -biases / np.maximum(gains, 1e-12), 0.0)


def _rms(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


def read_pushes(file: Path) -> list[Push]:
    """Pushes of a JSON file: a list of {time: [s], qpos: [[...]]}. ValueError: not one."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        return [Push(np.asarray(row["time"], float), np.asarray(row["qpos"], float)) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} holds no pushes: {error}") from error


def write_pushes(file: Path, pushes: Sequence[Push]) -> Path:
    """What `read_pushes` reads."""
    rows = [{"time": push.time.tolist(), "qpos": np.round(push.qpos, 7).tolist()} for push in pushes]
    return replace_text(file, json.dumps(rows) + "\n")


@dataclass(frozen=True, kw_only=True)
class Identify:
    """Friction, damping and mass of a twin's objects from recorded pushes, with intervals."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("pushes",)
    DISCOVER: ClassVar[tuple[str, ...]] = ("sim", "hardware")

    # JSON files, each a list of {time: [s], qpos: [[...]]}, as `twin run --pushes` writes them
    pushes: tuple[str, ...]
    world: str = "so101-pusht"  # the twin's world, a task in plain MuJoCo
    fit: Fit = field(default_factory=Fit)  # what is sought, and how
    out: Path | None = None  # write the factors as YAML, which `changes` of a twin's world reads

    def run(self) -> None:
        from ....configs.world import find_world

        pushes = [push for file in self.pushes for push in read_pushes(Path(os.path.expandvars(file)))]
        found = identify(find_world(self.world), pushes, self.fit)
        print(f"{found.pushes} pushes; an object's place is off by {1000 * found.before:.2f} mm before, "
              f"{1000 * found.after:.2f} mm after ({self.fit.piece:g} s ahead)")  # fmt: skip
        for one in found.estimates:
            print(one)
        if self.out is not None:
            import yaml

            factors = found.factors()
            untold = [name for name in PARAMETERS if name not in factors]
            told = f"; {', '.join(untold)}: 1, as in the twin" if untold else ""
            written = {"changes": dict.fromkeys(PARAMETERS, 1.0) | factors}
            print(f"wrote {replace_text(self.out, yaml.safe_dump(written))}{told}")

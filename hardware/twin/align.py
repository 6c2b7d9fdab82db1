"""Find by which forces the twin's objects come to where cameras see them.

Three ways, `AlignSettings.mode`:

- `gaussian`: every Gaussian of an object moves by itself so that the whole picture fits, by Adam, whose moments live on
  from tick to tick; each pulls its body (Real-is-Sim, arXiv 2504.03597, after Embodied Gaussians, arXiv 2406.10788).
- `mask`: the same, but what is compared is where each object is seen, and colours within.
- `mask+se3`: one rigid motion for each object instead (GaussTwin, arXiv 2603.05108), limited to what its joints allow;
  Gauss-Newton steps on the same comparison with a prior that trusts the physics, or Adam's.

In all: every tick begins from the bodies as physics has them; the robot is drawn, for it hides what is behind it, and
never corrected; the background is known; and the wrench is for the caller to write into `data.xfrc_applied`, to hold
through all physics steps of the tick, and to replace or clear then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from . import forces
from .bodies import body_ids, body_poses
from .colour import ColourMap, fit_colours
from .gaussians import Camera, Gaussians
from .masks import Seen, find_masks, make_palette
from .splat import Drawing, draw, in_world
from .splatting.fit import Adam

if TYPE_CHECKING:
    import mujoco

    from .scene import TwinScene

MODES, SOLVERS = ("gaussian", "mask", "mask+se3"), ("gauss-newton", "adam")
LOST = 0.3  # overlap of drawn and seen outlines below which the middles are brought together first
UNSEEN = 0.25  # share of an object's outline that must be seen for a camera to have a say
CLEAR = 0.5  # share of the background that must be seen for a camera to have a say
FADE = 0.1  # weight of a tick in the running mean of conflict
FELT = 0.002  # m, a wanted move that is large enough to be a conflict


@dataclass(frozen=True, kw_only=True)
class AlignSettings:
    """How objects are aligned with pictures. Raises ValueError: a mode, solver or number that is none."""

    mode: str = "mask+se3"  # gaussian, mask or mask+se3
    iterations: int = 3  # drawings of each camera in a tick
    kp: float = 0.0  # N/m, stiffness of each Gaussian's pull; 0: by gain. Published: 4, for 0.4 kg on a table
    gain: float = 0.3  # share of an error that one tick removes, where nothing holds the object
    rate: float = 60.0  # Hz, ticks
    limit: float = 0.02  # m, longest move that is turned into force
    lr_mean: float = 0.0015  # m, Adam's rate, of each Gaussian or of the object
    lr_turn: float = 0.02  # rad, Adam's rate of the object's turn
    solver: str = "gauss-newton"  # of mask+se3: gauss-newton or adam
    colour: float = 0.2  # weight of a colour's difference beside the mask's
    trust_move: float = 0.02  # m, how far physics may be wrong in a tick; prior of Gauss-Newton
    trust_turn: float = 0.3  # rad, the same for turns
    colour_fit: bool = True  # fit one affine map of colours to each picture; not in mode gaussian, as published
    sigma: float = 0.06  # noise of a channel, 0..1, in telling bodies by colours
    reach: int = 6  # px, how far from where the twin has it an object's patch may be

    def __post_init__(self) -> None:
        for name, known in (("mode", MODES), ("solver", SOLVERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: '{getattr(self, name)}' is none of {', '.join(known)}")
        for name in ("iterations", "rate", "limit", "lr_mean", "lr_turn", "trust_move", "trust_turn", "sigma"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.kp < 0 or self.gain < 0 or self.colour < 0 or self.reach < 0:
            raise ValueError("kp, gain, colour and reach must not be negative")


@dataclass(frozen=True, eq=False)
class Correction:
    """What one tick of alignment found. Rows of arrays are bodies, in the order of `Gaussians.bodies`.

    Args:
        ids: (bodies,) the bodies' numbers in the MuJoCo model.
        wrench: (bodies, 6) N and N m at the centre of mass, in the world's frame, as `data.xfrc_applied` wants it;
            zero for what is not corrected.
        pose: (bodies, 4, 4) where the pictures have the bodies now.
        residual: camera -> root mean square difference of colours between picture and twin, before the correction.
        conflict: (bodies,) 0..1, how much of the wanted force contacts with the robot have taken away lately.
        seen: (bodies,) how many cameras had a say.
    """

    ids: np.ndarray
    wrench: np.ndarray
    pose: np.ndarray
    residual: Mapping[str, float] = field(default_factory=dict)
    conflict: np.ndarray = field(default_factory=lambda: np.zeros(0))
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    def apply(self, data: mujoco.MjData) -> None:
        """Write the wrench; it acts in every step until it is overwritten or cleared."""
        data.xfrc_applied[self.ids] = self.wrench


@dataclass(eq=False)
class _View:
    """One camera's picture of this tick, in the twin's colours."""

    camera: Camera
    picture: np.ndarray  # (h, w, 3)
    background: np.ndarray  # (h, w, C): red, green, blue, each object, robot
    drawing: Drawing  # of the bodies as physics has them
    seen: Seen | None = None  # none in mode gaussian


class Aligner:
    """Compares pictures with the twin, tick after tick; keeps Adam's moments and the running conflict.

    Args:
        gaussians: of all bodies that the cameras see.
        cameras: all cameras; a tick may bring pictures of some of them.
        objects: names of the bodies to correct; None: all.
        backgrounds: camera -> (h, w, 3) 0..1 without bodies; None: black, which only serves with masks given.

    Raises:
        LookupError: an object without Gaussians.
        ValueError: a background that is missing or of another size than its camera.
    """

    def __init__(
        self,
        gaussians: Gaussians,
        cameras: Sequence[Camera],
        settings: AlignSettings | None = None,
        *,
        objects: Sequence[str] | None = None,
        backgrounds: Mapping[str, np.ndarray] | None = None,
    ):
        self.gaussians, self.cameras = gaussians, {camera.name: camera for camera in cameras}
        self.settings = settings or AlignSettings()
        self.objects = tuple(gaussians.bodies if objects is None else objects)
        gaussians.of(*self.objects)
        self._known = backgrounds is not None
        self._backgrounds = _backgrounds(self.cameras, backgrounds, len(self.objects) + 1)
        self._palette = make_palette(gaussians, self.objects)

        # which Gaussians are whose, and the channels that are drawn: colours, one for each object, the robot's
        place = np.array([self.objects.index(name) if name in self.objects else -1 for name in gaussians.bodies])
        self._rows = np.array([gaussians.bodies.index(name) for name in self.objects], int)
        self._owner = place[gaussians.body]
        channels = np.eye(len(self.objects) + 1)[self._owner]  # the last is the robot's, by -1
        self._features = np.concatenate([gaussians.colour, channels], 1)
        self._models: tuple | None = None
        self.reset()

    @classmethod
    def of(cls, scene: TwinScene, settings: AlignSettings | None = None) -> Aligner:
        """For a scene of `understudy twin build`."""
        extra = {"objects": scene.roles.objects, "backgrounds": scene.backgrounds}
        return cls(scene.gaussians, scene.cameras, settings, **extra)

    def reset(self) -> None:
        """Forget all earlier ticks: Adam's moments and conflicts."""
        self._adam = Adam.of(self.gaussians.mean.shape)
        self._conflict = np.zeros(len(self.gaussians.bodies))

    def correct(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        images: Mapping[str, np.ndarray],
        masks: Mapping[str, np.ndarray] | None = None,
        poses: np.ndarray | None = None,
    ) -> Correction:
        """Compare, and say what to push. `data` is as after `mj_step`; nothing is written to it.

        Args:
            images: camera -> uint8 (h, w, 3); a camera that brought none is left out.
            masks: camera -> (objects, h, w) 0..1, where each object is seen; None: found from the colours.
            poses: (bodies, 4, 4) where the twin's bodies were when the pictures were taken; None: as in `data`.

        Raises:
            LookupError: a picture of an unknown camera, or a body that the model lacks.
            ValueError: a picture or masks of another shape or type.
        """
        ids = self._ids(model)
        now = body_poses(data, ids)
        then = now if poses is None else np.asarray(poses, float)
        mean, quat = in_world(self.gaussians, then)
        views = [self._view(name, image, masks, mean, quat) for name, image in images.items()]

        # where the objects should be
        centres = self._centres(data, ids, now, then)
        moved, twists = np.zeros_like(mean), np.zeros((len(self.objects), 6))
        seen = self._seen(views)
        if views and self.settings.mode == "mask+se3":
            twists = self._rigid(model, data, ids, views, mean, quat, centres, seen)
            moved = self._moves(twists, mean, centres)
        elif views:
            moved = self._free(views, mean, quat, seen)
            twists = self._mean_twists(moved, mean, centres)
        return self._correction(model, data, ids, now, mean, moved, twists, centres, views, seen)

    def _ids(self, model: mujoco.MjModel) -> np.ndarray:
        if self._models is None or self._models[0] is not model:
            self._models = model, body_ids(model, self.gaussians.bodies)
        return self._models[1]

    def _view(self, name: str, image: np.ndarray, masks: Mapping | None, mean, quat) -> _View:
        """The picture in the twin's colours beside what the twin draws, and what is seen where."""
        if name not in self.cameras:
            raise LookupError(f"a picture of camera '{name}', and the twin has {', '.join(self.cameras)}")
        camera, settings = self.cameras[name], self.settings
        if image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
            size = (camera.height, camera.width, 3)
            raise ValueError(f"the picture of {name} is {image.dtype} {image.shape}, not uint8 {size}")
        picture, background = image / 255.0, self._backgrounds[name]
        drawing = self._draw(mean, quat, camera)
        view = _View(camera, picture, background, drawing)
        if settings.mode == "gaussian":
            return view

        if settings.colour_fit and self._known:
            view.picture = self.colour_map(picture, background, drawing).to_twin(picture)
        drawn = np.moveaxis(drawing.image[..., 3:-1], -1, 0)
        if masks is not None and name in masks:
            given = np.asarray(masks[name], float)
            if given.shape != drawn.shape:
                raise ValueError(f"masks of {name} have shape {given.shape}, not (objects, h, w) = {drawn.shape}")
            view.seen = Seen(given, np.ones(drawn.shape[1:]))
        else:
            if not self._known:
                raise ValueError(f"no background is known for camera {name}, so masks must be given")
            empty = drawing.through > 0.98
            known = background[..., :3], self._palette, drawn, empty, settings.sigma, settings.reach
            view.seen = find_masks(view.picture, *known)
        return view

    def colour_map(self, picture: np.ndarray, background: np.ndarray, drawing: Drawing) -> ColourMap:
        """The colours of this picture against the twin's, by the background that both show."""
        return fit_colours(picture, background[..., :3], drawing.through > 0.98)

    def _draw(self, mean: np.ndarray, quat: np.ndarray, camera: Camera) -> Drawing:
        return draw(mean, quat, self.gaussians.scale, self.gaussians.opacity, self._features, camera)

    def _centres(self, data, ids: np.ndarray, now: np.ndarray, then: np.ndarray) -> np.ndarray:
        """(objects, 3) m, centres of mass when the pictures were taken."""
        rows = self._rows
        local = np.einsum("bji,bj->bi", now[rows, :3, :3], data.xipos[ids[rows]] - now[rows, :3, 3])
        return np.einsum("bij,bj->bi", then[rows, :3, :3], local) + then[rows, :3, 3]

    def _seen(self, views: Sequence[_View]) -> np.ndarray:
        """(objects, views) bool: which cameras have a say about which object."""
        able = np.zeros((len(self.objects), len(views)), bool)
        for column, view in enumerate(views):
            drawn = view.drawing.image[..., 3:-1].sum((0, 1))
            if view.seen is None:
                able[:, column] = drawn > 0
            else:
                enough = (view.seen.masks * view.seen.trust).sum((1, 2)) > UNSEEN * np.maximum(drawn, 4)
                able[:, column] = enough & (view.seen.clear > CLEAR)
        return able

    def _differences(self, view: _View, drawing: Drawing) -> tuple[np.ndarray, np.ndarray]:
        """What is drawn minus what is seen (h, w, C), and its weights (h, w, C)."""
        target = np.zeros_like(view.background)
        target[..., :3] = view.picture
        weights = np.zeros_like(view.background)
        if view.seen is None:
            weights[..., :3] = 1
        else:
            target[..., 3:-1] = np.moveaxis(view.seen.masks, 0, -1)
            plain = view.seen.trust * (1 - drawing.image[..., -1])
            weights[..., 3:-1] = plain[..., None]
            weights[..., :3] = (self.settings.colour * plain * (view.seen.masks.max(0) > 0.5))[..., None]
        return drawing.over(view.background) - target, weights

    def _free(self, views: Sequence[_View], mean: np.ndarray, quat: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """(N, 3) m, how each Gaussian moves by itself."""
        place, able = mean.copy(), np.append(seen.any(1), False)[self._owner]
        for step in range(self.settings.iterations):
            pull = np.zeros_like(mean)
            for view in views:
                drawing = view.drawing if step == 0 else self._draw(place, quat, view.camera)
                difference, weights = self._differences(view, drawing)
                slopes = 2 * weights * difference / difference[..., 0].size
                pull += drawing.mean_gradients(slopes, view.background)
            pull[~able] = 0
            place = place - self.settings.lr_mean * self._adam.step(pull) * able[:, None]
        return place - mean

    def _rigid(self, model, data, ids, views, mean, quat, centres, seen) -> np.ndarray:
        """(objects, 6) twists about the centres of mass."""
        twists = np.zeros((len(self.objects), 6))
        bases = [forces.twist_of(model, data, int(ids[row])) for row in self._rows]
        adam = [Adam.of((basis.shape[1],)) for basis in bases]
        self._bring_together(views, bases, seen, twists)
        for step in range(self.settings.iterations):
            place = mean + self._moves(twists, mean, centres)
            first = step == 0 and not twists.any()
            drawings = [view.drawing if first else self._draw(place, quat, view.camera) for view in views]
            for number, basis in enumerate(bases):
                able = [pair for pair, ok in zip(zip(views, drawings, strict=True), seen[number], strict=True) if ok]
                if able:
                    here = centres[number] + twists[number, :3]
                    twists[number] += basis @ self._step(number, basis, able, place, here, twists[number], adam[number])
        return twists

    def _bring_together(self, views, bases, seen, twists: np.ndarray) -> None:
        """Where an object's outline hardly overlaps what is seen of it: the move that brings the middles together."""
        for number, basis in enumerate(bases):
            rows, wanted, overlap = [], [], []
            for view, ok in zip(views, seen[number], strict=True):
                drawn = view.drawing.image[..., 3 + number]
                if not ok or view.seen is None or drawn.sum() < 1:
                    continue
                mask = view.seen.masks[number]
                overlap.append(np.minimum(drawn, mask).sum() / max(np.maximum(drawn, mask).sum(), 1e-9))
                own = self._owner == number
                rows.append(view.drawing.slope[own].mean(0) @ basis[:3])
                wanted.append(_middle(mask) - _middle(drawn))
            if overlap and np.mean(overlap) < LOST:
                system = np.concatenate(rows)
                ridge = 1e-6 * np.trace(system.T @ system) * np.eye(system.shape[1])
                found = np.linalg.solve(system.T @ system + ridge, system.T @ np.concatenate(wanted))
                twists[number] = basis @ found
                twists[number, 3:] = 0

    def _step(self, number, basis, able, place, centre, twist, adam: Adam) -> np.ndarray:
        """(K,) one step of the solver for one object."""
        settings, moving = self.settings, self._owner == number
        arms = place - centre
        velocity = np.zeros((len(place), 3, 6))
        velocity[:, :, :3] = np.eye(3)
        velocity[:, 0, 4], velocity[:, 0, 5] = arms[:, 2], -arms[:, 1]
        velocity[:, 1, 3], velocity[:, 1, 5] = -arms[:, 2], arms[:, 0]
        velocity[:, 2, 3], velocity[:, 2, 4] = arms[:, 1], -arms[:, 0]
        velocity = velocity @ basis
        channels = [0, 1, 2, 3 + number] if settings.colour else [3 + number]

        # normal equations of all cameras that have a say
        columns = basis.shape[1]
        matrix, vector = np.zeros((columns, columns)), np.zeros(columns)
        for view, drawing in able:
            found = drawing.jacobian(moving, velocity, view.background, channels)
            if found is None:
                continue
            box, jacobian = found
            difference, weights = self._differences(view, drawing)
            rows = jacobian.reshape(-1, columns)
            weighted = rows * weights[box][..., channels].reshape(-1, 1)
            matrix += weighted.T @ rows
            vector += weighted.T @ difference[box][..., channels].reshape(-1)
        if settings.solver == "adam":
            rates = np.abs(basis.T) @ np.repeat([settings.lr_mean, settings.lr_turn], 3)
            return -rates * adam.step(vector)

        noise = settings.sigma**2
        prior = np.repeat([noise / settings.trust_move**2, noise / settings.trust_turn**2], 3)
        inner = basis.T @ (prior[:, None] * basis)
        vector += basis.T @ (prior * twist)
        step = -np.linalg.solve(matrix + inner + 1e-3 * np.diag(np.diag(matrix)), vector)
        size = np.linalg.norm((basis @ step)[:3]) / settings.limit
        turn = np.linalg.norm((basis @ step)[3:]) / 0.3
        return step / max(1.0, size, turn)

    def _moves(self, twists: np.ndarray, mean: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """(N, 3) m, how the Gaussians move with their objects."""
        moved = np.zeros_like(mean)
        for number, twist in enumerate(twists):
            own = self._owner == number
            motion = forces.turned_by(twist, centres[number])
            moved[own] = mean[own] @ (motion[:3, :3] - np.eye(3)).T + motion[:3, 3]
        return moved

    def _mean_twists(self, moved: np.ndarray, mean: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """(objects, 6) the rigid motions that moves (N, 3) amount to, for small ones."""
        twists = np.zeros((len(self.objects), 6))
        for number, centre in enumerate(centres):
            own = self._owner == number
            arms, move = mean[own] - centre, moved[own]
            twists[number, :3] = move.mean(0)
            inertia = (arms**2).sum() * np.eye(3) - arms.T @ arms
            twists[number, 3:] = np.linalg.lstsq(inertia, np.cross(arms, move).sum(0), rcond=1e-9)[0]
        return twists

    def _correction(self, model, data, ids, now, mean, moved, twists, centres, views, seen) -> Correction:
        settings, wrench, pose = self.settings, np.zeros((len(ids), 6)), now.copy()
        count = np.zeros(len(ids), int)
        robot = np.ones(model.nbody, bool)
        robot[ids[self._rows]] = robot[0] = False

        for number, row in enumerate(self._rows):
            own, body = self._owner == number, int(ids[row])
            opacity = self.gaussians.opacity[own]
            kp = settings.kp or forces.stiffness(model, body, settings.gain, 1 / settings.rate, opacity.sum())
            longest = np.linalg.norm(moved[own], axis=1).max(initial=0)
            pulled = moved[own] * min(1.0, settings.limit / max(longest, 1e-12))
            wrench[row] = forces.wrench(pulled, mean[own], opacity, centres[number], kp)
            pose[row] = forces.turned_by(twists[number], data.xipos[body]) @ now[row]
            count[row] = seen[number].sum()

            against = forces.opposition(wrench[row, :3], forces.contact_force(model, data, body, robot))
            felt = against if np.linalg.norm(twists[number, :3]) > FELT else 0.0
            self._conflict[row] += FADE * (felt - self._conflict[row])
        return Correction(ids, wrench, pose, self._residual(views), self._conflict.copy(), count)

    def _residual(self, views: Sequence[_View]) -> dict[str, float]:
        residual = {}
        for view in views:
            away = view.drawing.over(view.background)[..., :3] - view.picture
            residual[view.camera.name] = float(np.sqrt((away**2).mean()))
        return residual


def _backgrounds(cameras: Mapping[str, Camera], given: Mapping | None, more: int) -> dict[str, np.ndarray]:
    """Of each camera, with `more` empty channels."""
    found = {}
    for name, camera in cameras.items():
        size = camera.height, camera.width
        picture = np.zeros((*size, 3)) if given is None else given.get(name)
        if picture is None:
            raise ValueError(f"no background of camera {name}; there are those of {', '.join(given or ()) or 'none'}")
        if picture.shape != (*size, 3):
            raise ValueError(f"the background of camera {name} has shape {picture.shape}, not {(*size, 3)}")
        found[name] = np.concatenate([picture, np.zeros((*size, more))], -1)
    return found


def _middle(mask: np.ndarray) -> np.ndarray:
    """(2,) px, column and row of a mask's middle."""
    rows, columns = np.indices(mask.shape)
    return np.array([(columns * mask).sum(), (rows * mask).sum()]) / max(mask.sum(), 1e-9)

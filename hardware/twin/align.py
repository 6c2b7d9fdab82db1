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
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from . import forces
from .bodies import body_ids, body_poses
from .colour import ColourMap, fit_colours
from .gaussians import Camera, Gaussians
from .masks import Seen, find_masks, make_palette
from .rigid import InVain, Objects, Solver, find_twists
from .sight import Sight, masked, whole_picture
from .splat import Drawing, draw, in_world
from .splatting.fit import Adam

if TYPE_CHECKING:
    import mujoco

    from .scene import TwinScene

MODES, SOLVERS = ("gaussian", "mask", "mask+se3"), ("gauss-newton", "adam")
FADE = 0.1  # weight of a tick in the running mean of conflict
FELT = 0.002  # m, a wanted move that is large enough to be a conflict


@dataclass(frozen=True, kw_only=True)
class AlignSettings:
    """How objects are aligned with pictures. Raises ValueError: a mode, solver or number that is none."""

    mode: str = "mask+se3"  # gaussian, mask or mask+se3
    iterations: int = 3  # drawings of each camera in a tick, at most
    enough: float = 0.001  # m: Gauss-Newton draws no more after a step that moved nothing farther; 0: as often as told
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
        if min(self.kp, self.gain, self.colour, self.reach, self.enough) < 0:
            raise ValueError("kp, gain, colour, reach and enough must not be negative")


@dataclass(frozen=True, eq=False)
class Correction:
    """What one tick of alignment found. Rows of arrays are bodies, in the order of `Gaussians.bodies`.

    Args:
        ids: (bodies,) the bodies' numbers in the MuJoCo model.
        wrench: (bodies, 6) N and N m at the centre of mass, in the world's frame, as `data.xfrc_applied` wants it;
            zero for what is not corrected.
        pose: (bodies, 4, 4) where the pictures have the bodies now.
        residual: camera -> root mean square difference of colours between picture and twin, before the correction.
        clear: camera -> 0..1, the share of its background that it shows where the twin has nothing before it.
        conflict: (bodies,) 0..1, how much of the wanted force contacts with the robot have taken away lately.
        seen: (bodies,) how many cameras had a say.
        overlap: (bodies,) 0..1, how much of its outlines in these cameras is where it is seen, before the correction
            (intersection over union); 0 where no camera had a say, 1 for what is not corrected.
    """

    ids: np.ndarray
    wrench: np.ndarray
    pose: np.ndarray
    residual: Mapping[str, float] = field(default_factory=dict)
    conflict: np.ndarray = field(default_factory=lambda: np.zeros(0))
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    overlap: np.ndarray = field(default_factory=lambda: np.zeros(0))
    clear: Mapping[str, float] = field(default_factory=dict)

    def apply(self, data: mujoco.MjData) -> None:
        """Write the wrench; it acts in every step until it is overwritten or cleared."""
        data.xfrc_applied[self.ids] = self.wrench


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
        self._solver = _solver(self.settings)
        self._model: mujoco.MjModel | None = None
        self.reset()

    @classmethod
    def of(cls, scene: TwinScene, settings: AlignSettings | None = None) -> Aligner:
        """For a scene of `understudy twin build`."""
        objects, backgrounds = scene.roles.objects, scene.backgrounds
        return cls(scene.gaussians, scene.cameras, settings, objects=objects, backgrounds=backgrounds)

    def reset(self) -> None:
        """Forget all earlier ticks: Adam's moments, conflicts, and what was tried in vain."""
        self._adam = Adam.of(self.gaussians.mean.shape)
        self._conflict = np.zeros(len(self.gaussians.bodies))
        self._in_vain = InVain()

    def rehearse(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Compare the twin with its own drawing and forget it: what is compiled at first use is compiled then."""
        mean, quat = in_world(self.gaussians, body_poses(data, self._ids(model)))
        pictures = {}
        for name, camera in self.cameras.items():
            seen = self._draw(mean, quat, camera).over(self._backgrounds[name])[..., :3]
            pictures[name] = np.rint(255 * np.clip(seen, 0, 1)).astype(np.uint8)
        self.correct(model, data, pictures if self._known else {})
        self.reset()

    def correct(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        images: Mapping[str, np.ndarray],
        masks: Mapping[str, np.ndarray] | None = None,
        poses: np.ndarray | None = None,
        supports: Mapping[int, np.ndarray] | None = None,
    ) -> Correction:
        """Compare, and say what to push. `data` is as after `mj_step`; nothing is written to it.

        Args:
            images: camera -> uint8 (h, w, 3); a camera that brought none is left out.
            masks: camera -> (objects, h, w) 0..1, where each object is seen; None: found from the colours.
            poses: (bodies, 4, 4) where the twin's bodies were when the pictures were taken; None: as in `data`.
            supports: free body -> unit vector (3,) out of what it stands on: in mode mask+se3 it shifts along that and
                turns about the vector, no more.

        Raises:
            LookupError: a picture of an unknown camera, or a body that the model lacks.
            ValueError: a picture or masks of another shape or type.
        """
        ids = self._ids(model)
        now = body_poses(data, ids)
        then = now if poses is None else np.asarray(poses, float)
        mean, quat = in_world(self.gaussians, then)
        sights = [self._sight(name, image, masks, mean, quat) for name, image in images.items()]
        able = np.array([sight.has_a_say() for sight in sights]).reshape(len(sights), len(self.objects)).T

        # where the objects should be
        bases = [forces.twist_of(model, data, int(ids[row]), (supports or {}).get(int(ids[row]))) for row in self._rows]
        objects = Objects(mean, self._owner, self._centres(data, ids, now, then), bases)
        if self.settings.mode == "mask+se3":
            twists = find_twists(objects, sights, able, partial(self._draw_at, quat), self._solver, self._in_vain)
            moved = objects.moves(twists)
        else:
            moved = self._free(sights, able, mean, quat)
            twists = objects.mean_twists(moved)
        wrench, pose = self._pull(model, data, ids, now, objects, moved, twists)
        residual = {sight.camera.name: sight.residual() for sight in sights}
        seen, overlap = np.zeros(len(ids), int), np.ones(len(ids))
        seen[self._rows], overlap[self._rows] = able.sum(1), _overlaps(sights, able)
        clear = {sight.camera.name: sight.seen.clear for sight in sights if sight.seen is not None}
        return Correction(ids, wrench, pose, residual, self._conflict.copy(), seen, overlap, clear)

    def _ids(self, model: mujoco.MjModel) -> np.ndarray:
        """The bodies' numbers in a model; what depends on the model alone is kept."""
        if self._model is not model:
            self._found = body_ids(model, self.gaussians.bodies)
            weights = [self.gaussians.opacity[self._owner == number].sum() for number in range(len(self.objects))]
            gain, period = self.settings.gain, 1 / self.settings.rate
            pairs = zip(self._rows, weights, strict=True)
            self._stiffness = [forces.stiffness(model, int(self._found[row]), gain, period, w) for row, w in pairs]
            self._model = model
        return self._found

    def _sight(self, name: str, image: np.ndarray, masks: Mapping | None, mean: np.ndarray, quat: np.ndarray) -> Sight:
        """The picture in the twin's colours beside what the twin draws, and what is seen where."""
        if name not in self.cameras:
            raise LookupError(f"a picture of camera '{name}', and the twin has {', '.join(self.cameras)}")
        camera, settings = self.cameras[name], self.settings
        if image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
            size = (camera.height, camera.width, 3)
            raise ValueError(f"the picture of {name} is {image.dtype} {image.shape}, not uint8 {size}")
        picture, background = image / 255.0, self._backgrounds[name]
        drawing = self._draw(mean, quat, camera)
        if settings.mode == "gaussian":
            return whole_picture(camera, picture, background, drawing)

        if settings.colour_fit and self._known:
            picture = self.colour_map(picture, background, drawing).to_twin(picture)
        given = None if masks is None else masks.get(name)
        seen = self._seen(name, picture, drawing) if given is None else self._given(name, given)
        return masked(camera, picture, background, drawing, seen, settings.colour)

    def _seen(self, name: str, picture: np.ndarray, drawing: Drawing) -> Seen:
        """Masks from the colours."""
        if not self._known:
            raise ValueError(f"no background is known for camera {name}, so masks must be given")
        expected = np.moveaxis(drawing.image[..., 3:-1], -1, 0)
        known = self._backgrounds[name][..., :3], self._palette, expected, drawing.through > 0.98
        return find_masks(picture, *known, self.settings.sigma, self.settings.reach)

    def _given(self, name: str, masks: np.ndarray) -> Seen:
        """Masks from elsewhere."""
        camera, masks = self.cameras[name], np.asarray(masks, float)
        size = len(self.objects), camera.height, camera.width
        if masks.shape != size:
            raise ValueError(f"masks of {name} have shape {masks.shape}, not (objects, h, w) = {size}")
        return Seen(masks, np.ones(size[1:]))

    def colour_map(self, picture: np.ndarray, background: np.ndarray, drawing: Drawing) -> ColourMap:
        """The colours of this picture against the twin's, by the background that both show."""
        return fit_colours(picture, background[..., :3], drawing.through > 0.98)

    def _draw(self, mean: np.ndarray, quat: np.ndarray, camera: Camera, within: np.ndarray | None = None) -> Drawing:
        return draw(mean, quat, self.gaussians.scale, self.gaussians.opacity, self._features, camera, within)

    def _draw_at(self, quat: np.ndarray, mean: np.ndarray, sight: Sight) -> Drawing:
        """What is compared while objects are moved: the part of the picture where they are."""
        return self._draw(mean, quat, sight.camera, self._owner >= 0)

    def _centres(self, data, ids: np.ndarray, now: np.ndarray, then: np.ndarray) -> np.ndarray:
        """(objects, 3) m, centres of mass when the pictures were taken."""
        rows = self._rows
        local = np.einsum("bji,bj->bi", now[rows, :3, :3], data.xipos[ids[rows]] - now[rows, :3, 3])
        return np.einsum("bij,bj->bi", then[rows, :3, :3], local) + then[rows, :3, 3]

    def _free(self, sights: Sequence[Sight], able: np.ndarray, mean: np.ndarray, quat: np.ndarray) -> np.ndarray:
        """(N, 3) m, how each Gaussian moves by itself."""
        place, free = mean.copy(), np.append(able.any(1), False)[self._owner]
        for step in range(self.settings.iterations if sights else 0):
            pull = np.zeros_like(mean)
            for sight in sights:
                drawing = sight.drawing if step == 0 else self._draw(place, quat, sight.camera)
                pull += drawing.mean_gradients(sight.slopes(drawing), sight.background)
            pull[~free] = 0
            place = place - self.settings.lr_mean * self._adam.step(pull) * free[:, None]
        return place - mean

    def _pull(self, model, data, ids, now, objects: Objects, moved, twists) -> tuple[np.ndarray, np.ndarray]:
        """Wrenches (bodies, 6) and where the bodies should be now (bodies, 4, 4); keeps count of conflicts."""
        settings, wrench, pose = self.settings, np.zeros((len(ids), 6)), now.copy()
        robot = np.ones(model.nbody, bool)
        robot[ids[self._rows]] = robot[0] = False
        for number, row in enumerate(self._rows):
            own, body, centre = self._owner == number, int(ids[row]), objects.centres[number]
            longest = np.linalg.norm(moved[own], axis=1).max(initial=0)
            pulled = moved[own] * min(1.0, settings.limit / max(longest, 1e-12))
            kp = settings.kp or self._stiffness[number]
            wrench[row] = forces.wrench(pulled, objects.mean[own], self.gaussians.opacity[own], centre, kp)
            pose[row] = forces.turned_by(twists[number], data.xipos[body]) @ now[row]

            against = forces.opposition(wrench[row, :3], forces.contact_force(model, data, body, robot))
            felt = against if np.linalg.norm(twists[number, :3]) > FELT else 0.0
            self._conflict[row] += FADE * (felt - self._conflict[row])
        return wrench, pose


def _solver(settings: AlignSettings) -> Solver:
    return Solver(
        name=settings.solver,
        iterations=settings.iterations,
        limit=settings.limit,
        lr_move=settings.lr_mean,
        lr_turn=settings.lr_turn,
        colour=settings.colour > 0,
        noise=settings.sigma,
        trust_move=settings.trust_move,
        trust_turn=settings.trust_turn,
        enough=min(settings.enough, settings.limit / 2) if settings.solver == "gauss-newton" else 0.0,
    )


def _overlaps(sights: Sequence[Sight], able: np.ndarray) -> np.ndarray:
    """(objects,) mean overlap of outlines in the cameras that have a say (objects, sights); 0 where none has."""
    each = np.array([[sight.overlap(number) for sight in sights] for number in range(len(able))]).reshape(able.shape)
    return np.where(able, each, 0.0).sum(1) / np.maximum(able.sum(1), 1)


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

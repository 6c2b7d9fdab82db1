"""`understudy twin build SCENE --out FOLDER`: what a twin needs to look at a scene, from a world or an MJCF file.

Objects and robot get Gaussians, cameras are the scene's or made to look at its middle, backgrounds are drawn without
objects and robot, or taken from pictures of the real, empty scene. Then MuJoCo draws the scene and the splats are
compared with it: the overlap of each object's outline, and the difference of colours, are printed and kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    import mujoco

    from .bodies import Roles
    from .gaussians import Camera, Gaussians
    from .scene import TwinScene

RING = (25.0, 55.0)  # degrees: azimuth of the first place that is tried for a made camera, height of all
BENT = 1.0  # px, by which a lens may move a corner of the picture
TRIED = 12  # places round the scene, of which those are taken that see the objects


@dataclass(frozen=True, kw_only=True)
class Build:
    """Make bodies that carry Gaussians, cameras and backgrounds for a twin of a scene."""

    POSITIONALS: ClassVar[tuple[str, ...]] = ("scene",)

    # a world with a MuJoCo scene (pusht-mujoco, pusht-arm, so101-pusht, ...) or an MJCF file
    scene: str = ""
    # folder to write
    out: Path = Path("twin")
    # bodies to correct; none: all that can move and that no actuator moves
    objects: tuple[str, ...] = ()
    # bodies that are drawn and not corrected; none: all that an actuator moves, and mocap bodies
    robot: tuple[str, ...] = ()
    # cameras of the scene; none: all that stand still and are no orthographic ones
    cameras: tuple[str, ...] = ()
    # folder with a cameras.json of calibrated cameras, in the place of the scene's
    calibration: Path | None = None
    views: int = 2  # cameras in all; those that the scene lacks are made, where the robot hides the objects least
    distance: float = 0.0  # m of those from the middle; 0: by the extent of the scene
    size: tuple[int, int] = (96, 96)  # px, height and width of the pictures
    # camera -> picture file of the real scene without objects and robot
    backgrounds: dict[str, Path] = field(default_factory=dict)
    gaussians: int = 250  # on each object
    robot_gaussians: int = 200  # on the whole robot
    # fit colours, outlines and opacity to what MuJoCo draws of each body from all sides; false: colours of materials
    fit: bool = True
    seed: int = 0  # of the points on the surfaces and of the start that is drawn

    def __post_init__(self) -> None:
        if not self.scene:
            raise ValueError("which scene? understudy twin build SCENE, a world's name or an MJCF file")
        if min(self.size) < 8 or max(self.size) > 4096:
            raise ValueError(f"size: {self.size[1]} x {self.size[0]} px is no picture's; 8 to 4096 are")
        if self.gaussians < 10 or self.robot_gaussians < 0 or self.views < 1 or self.distance < 0:
            raise ValueError("gaussians must be 10 or more; robot_gaussians, distance 0 or more; views 1 or more")
        if self.calibration is not None and self.cameras:
            raise ValueError("cameras are the scene's, calibration gives others: leave one of them out")
        if (self.cameras or self.calibration is not None) and (self.views != Build.views or self.distance):
            raise ValueError(
                "views and distance are of cameras that are made: leave them out, or cameras and calibration"
            )

    def run(self) -> None:
        from .scene import refuse_other

        refuse_other(self.out)
        scene = build(self)
        scene.save(self.out)
        print(describe(scene))
        for warning in warnings_of(self, scene):
            print(f"warning: {warning}")
        print(f"written: {self.out}")


def build(settings: Build) -> TwinScene:
    """The scene of these settings; nothing is written.

    Raises:
        LookupError, ValueError, FileNotFoundError: what is wrong with scene, names, cameras or pictures.
    """
    import mujoco

    from .bodies import carry, find_roles
    from .scene import TwinScene, put_cameras, scene_spec

    bare = scene_spec(settings.scene).compile()
    roles = find_roles(bare, settings.objects, settings.robot)
    data = start(settings.scene, bare, settings.seed)
    cameras = find_cameras(settings, bare, data)
    rng = np.random.default_rng(settings.seed)
    gaussians = carry(bare, roles, count=settings.gaussians, robot_count=settings.robot_gaussians, rng=rng)

    # the same scene with these cameras in it, for MuJoCo to draw
    spec = scene_spec(settings.scene)
    put_cameras(spec, cameras)
    model = spec.compile()
    drawn = start(settings.scene, model, settings.seed)
    mujoco.mj_forward(model, drawn)
    if settings.fit:
        gaussians = fitted(settings.scene, gaussians, drawn, rng)
    gaussians, backgrounds, checks = look(model, drawn, roles, gaussians, cameras, settings.backgrounds)
    return TwinScene(gaussians, cameras, roles, settings.scene, backgrounds, checks)


def start(source: str, model: mujoco.MjModel, seed: int) -> mujoco.MjData:
    """The start that a world draws from `seed`; of a file, its first keyframe or its rest."""
    import mujoco

    from .scene import find_task, is_file

    data = mujoco.MjData(model)
    if is_file(source):
        if model.nkey:
            mujoco.mj_resetDataKeyframe(model, data, 0)
    else:
        find_task(source).reset(model, data, np.random.default_rng(seed))
    mujoco.mj_forward(model, data)
    return data


def find_cameras(settings: Build, model: mujoco.MjModel, data: mujoco.MjData) -> tuple[Camera, ...]:
    """Calibrated ones, those of the scene, or made ones."""
    from ...sim.rendering import is_orthographic
    from .gaussians import read_cameras
    from .splatting.views import camera_of

    height, width = settings.size
    if settings.calibration is not None:
        return tuple(camera.resized(width, height) for camera in read_cameras(settings.calibration))
    if settings.cameras:
        found = [camera_of(model, data, name, width, height) for name in settings.cameras]
        for name in settings.cameras:
            if model.body_weldid[model.cam_bodyid[model.camera(name).id]]:
                body = model.body(model.cam_bodyid[model.camera(name).id]).name
                raise ValueError(f"camera '{name}' rides on {body}; a twin needs cameras that stand still")
        return tuple(found)
    still = [i for i in range(model.ncam) if not model.body_weldid[model.cam_bodyid[i]]]
    named = [model.camera(i).name for i in still if not is_orthographic(model, i)]
    found = [camera_of(model, data, name, width, height) for name in named if name]

    return (*found, *_made(settings, model, data, found))


def _made(settings: Build, model: mujoco.MjModel, data: mujoco.MjData, found: list[Camera]) -> list[Camera]:
    """Where the scene has too few cameras: more on a ring about its middle, where they see the objects."""
    from .bodies import find_roles
    from .scene import scene_spec
    from .splatting.placing import place_cameras
    from .splatting.views import looking_at

    if len(found) >= settings.views:
        return []
    fovy, (middle, radius) = 45.0, extent(model, data)
    distance = settings.distance or radius / np.sin(np.deg2rad(fovy / 2))
    (height, width), places = settings.size, []
    for turn in range(TRIED):
        azimuth, above = np.deg2rad(RING[0] + 360 * turn / TRIED), np.deg2rad(RING[1])
        way = np.array([np.cos(azimuth) * np.cos(above), np.sin(azimuth) * np.cos(above), np.sin(above)])
        places.append(looking_at(f"place{turn}", middle + distance * way, middle, width, height, fovy))
    roles = find_roles(model, settings.objects, settings.robot)
    chosen = place_cameras(
        scene_spec(settings.scene),
        lambda other, number: start(settings.scene, other, settings.seed + number),
        roles.objects,
        roles.robot,
        places,
        found,
        settings.views - len(found),
    )
    return [dataclasses.replace(camera, name=f"view{len(found) + i}") for i, camera in enumerate(chosen)]


def extent(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[np.ndarray, float]:
    """Middle (3,) m and radius, m, of the box about all shapes but planes that a camera sees."""
    import mujoco

    seen = (model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE) & (model.geom_group <= 2)
    places, radii = data.geom_xpos[seen], model.geom_rbound[seen, None]
    low, high = (places - radii).min(0), (places + radii).max(0)
    half = np.linalg.norm(((places.max(0) - places.min(0)) / 2)[:2]) + np.median(radii)
    return (low + high) / 2, float(half)


def fitted(source: str, gaussians: Gaussians, data: mujoco.MjData, rng: np.random.Generator) -> Gaussians:
    """The Gaussians with colours, outlines and opacities that MuJoCo's pictures of each body alone have."""
    import mujoco

    from .bodies import body_ids, body_poses, in_body
    from .gaussians import join
    from .scene import put_cameras, scene_spec
    from .splat import place
    from .splatting.fit import View, fit_appearance
    from .splatting.views import Photographer

    # cameras about each body where it is now
    poses = body_poses(data, body_ids(data.model, gaussians.bodies))
    placed = place(gaussians, poses)
    around = {name: _around(name, *_middle(placed.of(name))) for name in gaussians.bodies}
    spec = scene_spec(source)
    put_cameras(spec, tuple(camera for cameras in around.values() for camera in cameras))
    model = spec.compile()
    now = mujoco.MjData(model)
    now.qpos[:], now.mocap_pos[:], now.mocap_quat[:] = data.qpos, data.mocap_pos, data.mocap_quat
    mujoco.mj_forward(model, now)

    parts = []
    with Photographer(model, [camera for cameras in around.values() for camera in cameras]) as photographer:
        for name, cameras in around.items():
            number = model.body(name).id
            others = [i for i in range(model.nbody) if i != number]
            views = [View(camera, *photographer.alone(now, camera.name, number, others)) for camera in cameras]
            pose = poses[gaussians.bodies.index(name)]
            parts.append(in_body(fit_appearance(placed.of(name), views, rng), pose))
    return join(parts)


def _middle(gaussians: Gaussians) -> tuple[np.ndarray, float]:
    low, high = gaussians.mean.min(0), gaussians.mean.max(0)
    return (low + high) / 2, float(np.linalg.norm(high - low) / 2 + gaussians.scale.max())


def _around(name: str, middle: np.ndarray, radius: float, turns: int = 6, size: int = 96) -> list[Camera]:
    """Cameras that see a ball of that radius about `middle` whole, from two heights above it and one below."""
    from .splatting.views import looking_at

    cameras = []
    for level, above in enumerate((-20.0, 15.0, 55.0)):
        for turn in range(turns):
            azimuth, height = 2 * np.pi * (turn + level / 3) / turns, np.deg2rad(above)
            way = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
            spot = middle + 1.2 * radius / np.sin(np.deg2rad(22.5)) * way
            cameras.append(looking_at(f"fit.{name}.{level}.{turn}", spot, middle, size, size))
    return cameras


def look(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    roles: Roles,
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    pictures: dict[str, Path],
) -> tuple[Gaussians, dict[str, np.ndarray], dict]:
    """Backgrounds, and how the splats compare with what MuJoCo draws: (gaussians, backgrounds, checks)."""
    from .bodies import body_ids, body_poses
    from .scene import read_picture
    from .splat import CpuRenderer
    from .splatting.views import Photographer

    names = {camera.name for camera in cameras}
    if unknown := set(pictures) - names:
        raise LookupError(f"a background for '{min(unknown)}', and the cameras are {', '.join(sorted(names))}")
    ids = body_ids(model, gaussians.bodies)
    hidden = body_ids(model, (*roles.objects, *roles.robot))
    renderer, backgrounds, checks = CpuRenderer(), {}, {}

    with Photographer(model, cameras) as photographer:
        for camera in cameras:
            empty = photographer.without(data, camera.name, hidden) / 255.0
            splats = renderer.render(gaussians, body_poses(data, ids), camera, empty)
            truth = photographer.picture(data, camera.name) / 255.0
            shown = photographer.bodies(data, camera.name)
            checks[camera.name] = _compare(roles, gaussians, ids, splats, truth, shown)
            given = pictures.get(camera.name)
            backgrounds[camera.name] = empty if given is None else _sized(read_picture(given), camera, given)
    return gaussians, backgrounds, checks


def _compare(roles: Roles, gaussians: Gaussians, ids: np.ndarray, splats, truth: np.ndarray, shown: np.ndarray) -> dict:
    overlap = {}
    for name in roles.objects:
        place = gaussians.bodies.index(name)
        own, drawn = shown == ids[place], splats.masks[place] > 0.5
        either = (own | drawn).sum()
        overlap[name] = round(float((own & drawn).sum() / either), 3) if either else None
    colour = float(np.sqrt(((splats.image - truth) ** 2).mean()))
    return {"overlap": overlap, "colour": round(colour, 4)}


def _sized(picture: np.ndarray, camera: Camera, path: Path) -> np.ndarray:
    """A picture at the camera's size. ValueError: of another shape, so that it would be distorted."""
    import cv2

    height, width = picture.shape[:2]
    if abs(width * camera.height - height * camera.width) > 0.02 * width * camera.height:
        raise ValueError(f"{path} is {width} x {height}, of another shape than camera {camera.name}'s pictures")
    return np.clip(cv2.resize(picture, (camera.width, camera.height), interpolation=cv2.INTER_AREA), 0, 1)


def warnings_of(settings: Build, scene: TwinScene) -> list[str]:
    """What would make corrections wrong without a word: a body that is left out, another frame, a lens that bends."""
    from .bodies import body_poses, driven_trees
    from .calibration.calibrate import LENS

    told = []
    model = scene.spec(cameras=False).compile()
    data = start(scene.source, model, settings.seed)
    apart = [name for name in movable_names(model) if name not in (*scene.roles.objects, *scene.roles.robot)]
    if apart:
        told.append(f"{', '.join(apart)} can move and is neither object nor robot: it is background where it began")
    if settings.calibration is None:
        return told
    for base in sorted(base for base in driven_trees(model) if not model.body_weldid[base]):
        pose = body_poses(data, np.array([base]))[0]
        if not np.allclose(pose, np.eye(4), atol=1e-3):
            place = ", ".join(f"{value:.3f}" for value in pose[:3, 3])
            told.append(
                "`twin calibrate` says where a camera is from the base of the arm, and in this scene "
                f"{model.body(base).name} is at {place} m, or turned: cameras.json must be in the scene's frame"
            )
    if (bent := _bent(settings.calibration)) > BENT:
        told.append(
            f"the lens bends the corner of a picture by {bent:.1f} px ({settings.calibration / LENS}): the arm's "
            "pictures must be undistorted before the twin sees them, see Lens.undistort"
        )
    return told


def movable_names(model: mujoco.MjModel) -> list[str]:
    """Bodies with joints of their own, by name."""
    return [model.body(i).name for i in range(1, model.nbody) if model.body_dofnum[i] and model.body(i).name]


def _bent(folder: Path) -> float:
    """px that the lens of a calibration, where its file is there, moves what a pinhole would put in a corner."""
    import cv2

    from .calibration.calibrate import LENS, Lens

    if not (folder / LENS).exists():
        return 0.0
    lens = Lens.read(folder)
    corner = np.array([[[0.0, 0.0]], [[lens.width - 1.0, lens.height - 1.0]]])
    straight = cv2.undistortPoints(corner, lens.K, lens.distortion, P=lens.K)
    return float(np.linalg.norm(straight - corner, axis=2).max())


def describe(scene: TwinScene) -> str:
    """What was built, in words."""
    counts = {name: int((scene.gaussians.body == i).sum()) for i, name in enumerate(scene.gaussians.bodies)}
    objects = ", ".join(f"{name} ({counts[name]})" for name in scene.roles.objects)
    robot = sum(count for name, count in counts.items() if name not in scene.roles.objects)
    lines = [f"{scene.source}: {len(scene.gaussians)} Gaussians; objects {objects}; robot {robot}"]
    for camera in scene.cameras:
        check = scene.checks[camera.name]
        shares = ", ".join(f"{name} {share or 'not seen'}" for name, share in check["overlap"].items())
        lines.append(f"  {camera.name}: outlines overlap with MuJoCo's: {shares}; colours differ by {check['colour']}")
    return "\n".join(lines)

"""A live view of a twin in rerun: cameras, splats, residuals, wrenches, joints; to a file or to a viewer.

with View(path="twin.rrd") as view:
    view.tick(tick, pictures)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...configs.extras import pip_install
from .gaussians import Gaussians
from .live.loop import Tick
from .live.tracking import poses

if TYPE_CHECKING:
    import mujoco

NAME = "understudy twin"
EVERY = 2  # ticks between two states of the splats


class View:
    """A recording. Closed by `close`, or at the end of a `with`.

    Args:
        path: file (.rrd) that is written; None: a viewer is opened.
        joints: names of the joints; empty: they are counted.
        gaussians: drawn on their bodies, with `model`.

    Raises ImportError: rerun is not installed.
    """

    def __init__(
        self,
        path: Path | str | None,
        joints: Sequence[str] = (),
        model: mujoco.MjModel | None = None,
        gaussians: Gaussians | None = None,
    ):
        try:
            import rerun
        except ImportError as error:
            raise ImportError(f"the view needs rerun ({error}): {pip_install('twin')}") from error
        self._rerun, self._model, self._gaussians = rerun, model, gaussians
        self._joints, self._count = tuple(joints), 0
        self._recording = rerun.RecordingStream(NAME)
        if path is None:
            self._recording.spawn()
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._recording.save(str(path))
        if gaussians is not None and model is not None:
            self._bodies = [model.body(name).id for name in gaussians.bodies]

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tick(self, tick: Tick, pictures: Mapping[str, np.ndarray] | None = None) -> None:
        """What one tick did, and the pictures (h, w, 3) uint8 RGB that came with it."""
        recording, rerun = self._recording, self._rerun
        recording.set_time("time", duration=float(tick.time))
        names = self._joints or tuple(str(number) for number in range(len(tick.joints)))
        for name, twin, echo in zip(names, tick.joints, tick.echo, strict=True):
            recording.log(f"joints/{name}", rerun.Scalars([float(twin), float(echo)]))
        for name, value in tick.residual.items():
            recording.log(f"residual/{name}", rerun.Scalars(float(value)))
        for body in np.flatnonzero(np.abs(tick.wrench).max(1) > 0):
            force, torque = np.linalg.norm(tick.wrench[body, :3]), np.linalg.norm(tick.wrench[body, 3:])
            recording.log(f"wrench/{self._name(int(body))}", rerun.Scalars([float(force), float(torque)]))
        for name, value in tick.seconds.items():
            recording.log(f"ms/{name}", rerun.Scalars(1000 * float(value)))
        for name, picture in (pictures or {}).items():
            recording.log(f"cameras/{name}", rerun.Image(np.ascontiguousarray(picture)))
        if tick.held:
            recording.log("held", rerun.TextLog(tick.held, level="WARN"))
        if self._count % EVERY == 0:
            self._splats(tick)
        self._count += 1

    def close(self) -> None:
        """Write what is left, and end."""
        self._recording.flush()
        self._recording.disconnect()

    def _splats(self, tick: Tick) -> None:
        shown = self._gaussians
        if shown is None or self._model is None:
            return
        places = poses(self._model, self._bodies, tick.qpos[None])[0][shown.body]
        centres = np.einsum("nij,nj->ni", places[:, :3, :3], shown.mean) + places[:, :3, 3]
        colours = np.concatenate([shown.colour, shown.opacity[:, None]], 1)
        radii = shown.scale.mean(1)
        self._recording.log(
            "splats", self._rerun.Points3D(centres, colors=(255 * colours).astype(np.uint8), radii=radii)
        )

    def _name(self, body: int) -> str:
        return self._model.body(body).name if self._model is not None else str(body)

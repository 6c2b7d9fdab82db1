"""Where a stand-in's pictures are drawn: at once, or in a thread of its own, while its arm is answered.

What is drawn is a copy of what stood where, so that physics may go on. In a thread, exposures that come while one is
still being drawn are left out, as a camera drops frames.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ....configs.rng import rng_of
from ....sim.decor import Decor, add_decor
from ....sim.rendering import renderer_class
from .faults import HAND

if TYPE_CHECKING:
    import mujoco

Pictures = dict[str, np.ndarray]  # camera -> (height, width, 3) uint8 RGB
Develop = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True, eq=False)
class Shot:
    """One exposure of all cameras: `seed` draws its noise, `moved` is how far (3,) m a camera stands from its place."""

    seed: tuple[int, ...]
    covered: frozenset[str]
    moved: Mapping[str, np.ndarray]
    decor: tuple[Decor, ...]


class Studio:
    """The cameras of a stand-in.

    Args:
        model: the stand-in's, at rest: cameras stand where it has them.
        sizes: camera -> (height, width) px.
        develop: (height, width, 3) uint8 of what is there, and what draws its noise -> as the camera has it.
        apart: draw in a thread of its own.
    """

    def __init__(self, model: mujoco.MjModel, sizes: Mapping[str, tuple[int, int]], develop: Develop, apart: bool):
        import mujoco

        self._sizes, self._develop = dict(sizes), develop
        self._model = copy.copy(model)
        self._data, self._places = mujoco.MjData(self._model), model.cam_pos.copy()
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self._thread = ThreadPoolExecutor(1, "cameras") if apart else None
        self._drawing: Future | None = None
        self._closed = False

    def take(self, shot: Shot, model: mujoco.MjModel, data: mujoco.MjData, deliver: Callable[[Pictures], None]) -> None:
        """Draw what stands where now; `deliver` gets the pictures, in the thread where they are drawn in one."""
        if self._thread is None:
            self._copy(model, data)
            return deliver(self._draw(shot))
        if self._drawing is not None:
            if not self._drawing.done():
                return None
            self._drawing.result()  # what went wrong in the thread is told here
        self._copy(model, data)
        self._drawing = self._thread.submit(lambda: deliver(self._draw(shot)))
        return None

    def finish(self) -> None:
        """Wait for what is being drawn."""
        if self._drawing is not None:
            drawing, self._drawing = self._drawing, None
            drawing.result()

    def close(self) -> None:
        """Let go of what draws, where it was made. Safe to call twice."""
        if self._thread is None:
            self._put_away()
        elif not self._closed:
            self._thread.submit(self._put_away)
            self._thread.shutdown()
        self._closed = True

    def _copy(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """What stands where, and what it looks like: things are exchanged and taken away."""
        self._data.qpos[:] = data.qpos
        self._data.mocap_pos[:], self._data.mocap_quat[:] = data.mocap_pos, data.mocap_quat
        self._model.geom_rgba[:], self._model.geom_size[:] = model.geom_rgba, model.geom_size

    def _draw(self, shot: Shot) -> Pictures:
        import mujoco

        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_tendon(self._model, self._data)
        return {name: self._picture(shot, place, name) for place, name in enumerate(self._sizes)}

    def _picture(self, shot: Shot, place: int, name: str) -> np.ndarray:
        """What camera `name` sees: (height, width, 3) uint8 RGB."""
        import mujoco

        size = self._sizes[name]
        if name in shot.covered:
            clean = np.broadcast_to(HAND, (*size, 3))
        else:
            camera = self._model.camera(name).id
            self._model.cam_pos[camera] = self._places[camera] + shot.moved[name]
            mujoco.mj_camlight(self._model, self._data)
            if size not in self._renderers:
                self._renderers[size] = renderer_class()(self._model, *size)
            renderer = self._renderers[size]
            renderer.update_scene(self._data, name)
            add_decor(renderer.scene, shot.decor)
            clean = renderer.render()
        return self._develop(clean, rng_of(*shot.seed, place))

    def _put_away(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

"""A guard against robosuite's silently wrong camera pictures.

robosuite 1.5 never binds its own GL context before drawing or reading. A context left in a reference cycle by a hard
reset is freed whenever Python's cyclic collection runs: that frees GL objects of whichever context is bound and then
unbinds it. From then on nothing is drawn, and reading gives back old memory that looks like a picture. The guard binds
the right context at every use and at every deletion. It changes no picture that was right. Similar reports: robosuite
issue 798.
"""

from __future__ import annotations

import functools
from typing import Any


def guard_robosuite() -> None:
    """Make robosuite's render contexts bind themselves. Call before any robosuite environment exists; twice is fine."""
    from robosuite.utils.binding_utils import MjRenderContext

    if "bound" in vars(MjRenderContext):
        return
    MjRenderContext.bound = None  # the GL context bound last, whichever instance owns it
    MjRenderContext.__init__ = _then_remember(MjRenderContext.__init__)
    for name in ("render", "read_pixels"):
        setattr(MjRenderContext, name, _bind_first(getattr(MjRenderContext, name)))
    MjRenderContext.__del__ = _delete


def _then_remember(build):
    @functools.wraps(build)
    def wrapped(self, *args, **kwargs):
        build(self, *args, **kwargs)
        _base(self).bound = self.gl_ctx

    return wrapped


def _bind_first(use):
    @functools.wraps(use)
    def wrapped(self, *args, **kwargs):
        self.gl_ctx.make_current()
        _base(self).bound = self.gl_ctx
        return use(self, *args, **kwargs)

    return wrapped


def _delete(self) -> None:
    """Free under the dying context, then give the thread back to the one that was bound."""
    dying, drawing, base = getattr(self, "gl_ctx", None), getattr(self, "con", None), _base(self)
    if dying is None:
        return

    try:
        if drawing is not None:
            dying.make_current()
            drawing.free()
        dying.free()
        if base.bound is dying:
            base.bound = None
        elif base.bound is not None:
            base.bound.make_current()
    except Exception:  # at interpreter exit GL may be gone already, and a destructor must not raise
        return


def _base(context):
    """The class that holds `bound`, whichever subclass `context` is of."""
    return next(cls for cls in type(context).__mro__ if "bound" in vars(cls))


@functools.cache
def renderer_class():
    """`mujoco.Renderer`, but closing or collecting one harms no other, and what was rendered has a depth.

    MuJoCo's frees its drawing objects under whichever context is bound; with OSMesa those may be another renderer's.
    """
    import mujoco
    import numpy as np

    class Renderer(mujoco.Renderer):
        def depth(self) -> np.ndarray:
            """(h, w) float32, m along the camera's axis, of what was rendered last; nothing is rendered anew.

            Of a perspective camera.
            """
            if self._gl_context:
                self._gl_context.make_current()
            nearness = np.empty((self._height, self._width), np.float32)  # 1 at the near plane, 0 at the far one
            mujoco.mjr_readPixels(None, nearness, self._rect, self._mjr_context)
            near, far = (
                float(end * self._model.stat.extent) for end in (self._model.vis.map.znear, self._model.vis.map.zfar)
            )
            metres = (far * near / (nearness.astype(float) * (far - near) + near)).astype(np.float32)
            return np.flipud(metres) if self._gl_context else metres  # as `render` does

        def close(self) -> None:
            context, drawing = getattr(self, "_gl_context", None), getattr(self, "_mjr_context", None)
            if context and drawing:
                context.make_current()
                drawing.free()
                self._mjr_context = None
            super().close()

    return Renderer


def stands(model: Any, camera: int) -> bool:
    """Whether a camera is always at one place and looks one way."""
    import mujoco

    body = model.cam_bodyid[camera]
    fixed = model.body_weldid[body] == 0 and model.cam_mode[camera] == mujoco.mjtCamLight.mjCAMLIGHT_FIXED
    while body and fixed:
        fixed = model.body_mocapid[body] < 0  # one that a hand puts somewhere counts as welded
        body = model.body_parentid[body]
    return bool(fixed)


def is_orthographic(model: Any, camera: int) -> bool:
    """Whether a camera of the model is."""
    kinds = getattr(model, "cam_orthographic", None)
    if kinds is None:
        kinds = model.cam_projection
    return bool(kinds[camera])

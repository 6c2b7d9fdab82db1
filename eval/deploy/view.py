"""What the arm sees, plans and does, live in rerun's window or in a file for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...configs.extras import pip_install
from ...configs.spec import IMAGES, STATE


def check_display() -> None:
    """Refuse a window where there is no screen for it. Raises ValueError."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ValueError(
            "--view live opens a window, and there is no display: --view out/view.rrd writes a file for it"
        )


class View:
    """`where`: live, or a file that ends in .rrd, which needs no display. Raises ImportError: no rerun."""

    def __init__(self, where: str, joints: tuple[str, ...]):
        try:
            import rerun
        except ImportError as error:
            raise ImportError(f"--view needs rerun ({error}): {pip_install('log')}") from error
        self._rerun, self.joints = rerun, joints
        self._stream = rerun.RecordingStream("understudy deploy")
        if where == "live":
            self._stream.spawn()
        else:
            Path(where).parent.mkdir(parents=True, exist_ok=True)
            self._stream.save(where)
        self._step = 0

    def planned(self, plan: np.ndarray) -> None:
        """A plan (E, D) that begins now: a line a joint over the steps to come."""
        for ahead, action in enumerate(plan):
            self._stream.set_time("step", sequence=self._step + ahead)
            self._numbers("plan", action)

    def step(self, obs: Mapping[str, np.ndarray], goal: np.ndarray, told: Mapping[str, Any]) -> None:
        """One control step: what is seen, what was commanded, what the guard let through, and why."""
        rerun = self._rerun
        self._stream.set_time("step", sequence=self._step)
        for key, value in obs.items():
            if key.startswith(IMAGES):
                self._stream.log(f"camera/{key.removeprefix(IMAGES)}", rerun.Image(value).compress(85))
        if STATE in obs and len(obs[STATE]) == len(self.joints):
            self._numbers("measured", obs[STATE])
        self._numbers("commanded", goal)
        self._numbers("sent", told["sent"])
        if told["reasons"]:
            self._stream.log("guard", rerun.TextLog("; ".join(told["reasons"])))
        self._step += 1

    def close(self) -> None:
        """Write what is not written yet."""
        self._stream.flush()
        self._stream.disconnect()

    def _numbers(self, what: str, values: np.ndarray) -> None:
        for name, value in zip(self.joints, values, strict=True):
            self._stream.log(f"{what}/{name}", self._rerun.Scalars(float(value)))

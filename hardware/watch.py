"""What the servos say of the arm: whether it can be trusted, who lags behind, who bears too much."""

from __future__ import annotations

import numpy as np

from .envelope import Envelope, Measured

MOVES = 0.5  # rad/s at which a joint goes where its torque drives it: then back-EMF takes much of what it says to bear
FULL = 0.83  # part of the torque: about all that a servo gives at rest which bounds it itself


class Watch:
    """Takes measurements in, step by step. Torques are in N m, positions in units of the joints, (D,) each."""

    def __init__(self, names: tuple[str, ...], units: tuple[str, ...], envelope: Envelope, step: float):
        self.names, self.units, self.envelope, self.step = names, units, envelope, step
        torque = envelope.torque
        self.torque = None if torque is None else np.broadcast_to(np.asarray(torque, float), (len(names),))
        self.position: np.ndarray = np.zeros(0)
        self.let_go = False  # a servo let go by itself

    def begin(self, measured: Measured) -> None:
        """From this measurement on."""
        self.position, self._moment = np.asarray(measured.position, float), measured.time
        self._speed: np.ndarray = np.zeros(len(self.names))  # units/s
        self._unread = 0  # steps in a row without a measurement that can be trusted
        self._loaded = self._lagging = 0.0  # s
        self._loads: np.ndarray | None = None  # (D,) sign of the torque of joints that bear too much
        self.let_go = False

    @property
    def strained(self) -> bool:
        """Whether a joint bore too much when that was told last."""
        return self._loads is not None

    def unseen(self, measured: Measured | None, now: float) -> str | None:
        """Why a measurement cannot be trusted."""
        if measured is None:
            return "the pose could not be read"
        position = np.asarray(measured.position, float)
        if position.shape != (len(self.names),) or not np.isfinite(position).all():
            return "the measured pose is not finite"
        age = now - measured.time
        if not -self.step <= age <= self.envelope.blind:
            return f"the measured pose is {age:.2f} s old, of at most {self.envelope.blind:g} s"
        return None

    def look(
        self, measured: Measured | None, set_point: np.ndarray, now: float, seconds: float, reasons: list[str]
    ) -> str | None:
        """Take a measurement in, `seconds` after the one before. Returns why the arm must stop, None if it need not."""
        fault = self.unseen(measured, now)
        if fault is not None:
            self._unread, self._loads = self._unread + 1, None
            reasons.append(fault)
            return f"{fault}, {self._unread} times in a row" if self._unread > self.envelope.retries else None
        assert measured is not None
        position, elapsed = np.asarray(measured.position, float), measured.time - self._moment
        self._speed = (position - self.position) / elapsed if elapsed > 0 else self._speed
        self._unread, self.position, self._moment = 0, position, measured.time

        wrong = self._released(measured.holds)
        lags = np.abs(set_point - self.position)
        self._lagging = self._lagging + seconds if (lags > self.envelope.lag).any() else 0.0
        if self._lagging > self.envelope.patience:
            joint = int(np.argmax(lags))
            behind = f"{lags[joint]:.2f} of {self.envelope.lag:g} {self.units[joint]} behind the set-point"
            wrong = wrong or f"{self.names[joint]} does not follow: {behind}, for {self._lagging:.1f} s"
        if measured.torque is None or self.torque is None:
            self._loaded += seconds if self.strained else 0.0
            return wrong
        strained = self._weigh(np.asarray(measured.torque, float), seconds, reasons)
        return wrong or strained

    def _released(self, holds: np.ndarray | None) -> str | None:
        """Who let go by itself, and what that may come from."""
        if holds is None or np.all(holds):
            return None
        self.let_go = True
        who = ", ".join(name for name, held in zip(self.names, holds, strict=True) if not held)
        return (
            f"the torque of {who} is off though nobody let go: the supply failed for a moment (then the servo has "
            "lost its settings), or another program switched it off; look at supply and plugs, then begin anew"
        )

    def _weigh(self, torque: np.ndarray, seconds: float, reasons: list[str]) -> str | None:
        """Who bears too much, and why the arm must stop for it."""
        assert self.torque is not None
        torque = np.nan_to_num(torque)
        over = (np.abs(torque) > FULL * self.torque) & (np.sign(torque) * self._speed < MOVES)
        if not over.any():
            self._loads, self._loaded = None, max(0.0, self._loaded - seconds / 2)
            return None
        self._loaded += seconds
        joint = int(np.argmax(over * np.abs(torque)))
        self._loads = np.where(over, np.sign(torque), 0.0)
        said = f"{self.names[joint]} bears {abs(torque[joint]):.2f} of {self.torque[joint]:.2f} N m"
        reasons.append(said)
        allowed = self.envelope.patience
        return f"{said}, for {self._loaded:.1f} s of {allowed:g} s allowed" if self._loaded > allowed else None

    def held(self, set_point: np.ndarray, target: np.ndarray) -> bool:
        """Whether going on to `target` runs away from an arm that does not follow."""
        way, lead = target - set_point, set_point - self.position
        return bool(((np.abs(lead) > self.envelope.lag) & (way * lead > 0)).any())

    def relief(self, set_point: np.ndarray, target: np.ndarray | None) -> np.ndarray | None:
        """(D,) where the set-point goes so that overloaded joints give way to where they are; None: none need to.

        Without a `target`, where nobody is obeyed, joints that do not follow give way, too.
        """
        strain = np.zeros(len(set_point)) if self._loads is None else self._loads
        if target is None:
            lead = set_point - self.position
            strain, target = np.where(np.abs(lead) > self.envelope.lag, np.sign(lead), strain), set_point
        pushes = (target - self.position) * strain > 0
        return np.where(pushes, self.position, set_point) if pushes.any() else None

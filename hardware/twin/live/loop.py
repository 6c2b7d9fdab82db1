"""One tick of a twin: physics, the real joints follow, pictures come back, a correction pulls for the next tick.

    1  the twin's physics steps, with what is commanded and with the forces of the last correction, which then end
    2  the joints that the twin has ACHIEVED are sent to the real arm, through its guard; it follows
    3  joint echo and pictures come back, each with the moment of its capture
    4  the aligner compares pictures with the twin of their moment (`lagged`: as it was when its arm was where the real
       one is, see `trim.py`)
    5  what stands on something is moved by a share of what it found; for the rest its wrench is kept for the next tick

What goes wrong and what then happens:

- pictures late: a correction is weaker the older its picture is, and none is made from one older than `stale`;
- a camera covered, shaken, moved: its residual leaves its bound, it is left out and tried again (`health.py`);
- a camera that is silent, late, frozen, or dark from the start corrects nothing, and that is told;
- no camera left (all covered, an object taken away or exchanged): the twin goes on by physics for `patience` s, then
  it holds its arm until a camera agrees again;
- the real joints are not where they were sent (blocked, stopped by the guard), or silent: the twin holds its arm;
- after a hold the guard bounds how the arm goes on, as it bounds everything.

Source: Real-is-Sim (arXiv 2504.03597), Embodied Gaussians (arXiv 2406.10788). Comparing with the twin of the moment of
capture is ours. Nothing here knows of processes (`online.py`), clocks or policies.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ....configs.spec import IMAGES, STATE
from ..align import Aligner, Correction
from ..reality.layout import Joints
from ..sight import CLEAR
from .health import Health, Trust
from .pull import Supports, shift
from .resting import gap_of
from .seam import Real
from .trim import Trim

if TYPE_CHECKING:
    import mujoco

SILENT = "the real joints are silent"
STIRRED = 0.02  # rad or m, by which the arm moved enough to be seen
LONGEST = 12  # ticks of a lag that is looked for
PAST = 1.0  # s of the twin's own past that are kept


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How a twin is kept in step with what follows it."""

    rate: float = 60.0  # ticks a second
    lead: float = 0.004  # s that what is sent is ahead of the achieved joints along their velocity, for the driver lags
    strength: float = 1.0  # factor of all that pictures do
    grounded: bool = True  # what stands on something is moved along it by pictures; false: a wrench pulls it
    share: float = 0.3  # of an error, that pictures remove from what stands in a tick
    most: float = 0.003  # m, the longest such move
    trim: float = 1.0  # 1/s, how fast what the real joints lack is added to what they are sent; 0: never
    at_once: int = 1  # cameras whose pictures correct in one tick, in turn, for each costs time; 0: all
    lagged: bool = False  # pictures are compared with the twin as it was a lag before they were taken; false: as then
    leash: float = 0.15  # rad or m that a real joint may be off what it was sent, before the twin waits for it
    silent: float = 0.25  # s without joint echo after which the twin holds its arm
    hold_when_lost: bool = True  # hold the arm while no camera agrees with the twin
    trust: Trust = field(default_factory=Trust)  # when pictures are believed

    def __post_init__(self) -> None:
        for name in ("rate", "leash", "silent", "most"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} of a twin's loop must be positive, got {getattr(self, name)}")
        if min(self.lead, self.strength, self.trim, self.at_once) < 0 or not 0 <= self.share <= 1:
            raise ValueError("lead, strength, trim and at_once of a twin's loop must not be negative, share be 0..1")


@dataclass
class Tick:
    """What one tick did."""

    time: float  # s since the start of the episode
    joints: np.ndarray  # (D,) achieved by the twin
    echo: np.ndarray  # (D,) newest of the real ones
    qpos: np.ndarray  # (nq,) of the twin
    wrench: np.ndarray  # (nbody, 6) that the last pictures ask for, N and N m
    residual: dict[str, float]
    conflict: dict[str, float]
    age: float  # s, of the newest picture
    held: str  # why the twin holds its arm; "" where it does not
    left_out: tuple[str, ...]  # cameras
    seconds: dict[str, float]  # of work: physics, follow, correct
    pictures: dict[str, np.ndarray] = field(default_factory=dict)  # those that are kept, see `Loop.keep_every`


class Loop:
    """A twin that something follows.

    Args:
        aligner: None: nothing is corrected.
        bodies: numbers of the bodies that a wrench may act on.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        real: Real,
        aligner: Aligner | None,
        settings: LoopSettings,
        bodies: np.ndarray,
    ):
        import mujoco

        self.model, self.data, self.real, self.aligner, self.settings = model, data, real, aligner, settings
        self.joints, self.bodies = Joints.of(model), np.asarray(bodies, int)
        if self.joints.names != real.joints.names:
            ours, theirs = ", ".join(self.joints.names), ", ".join(real.joints.names)
            raise ValueError(f"the twin's arm has the joints {ours}; what follows it has {theirs}")
        self._bodies = () if aligner is None else tuple(model.body(name).id for name in aligner.gaussians.bodies)
        self._view = mujoco.MjData(model)  # the twin as pictures saw it
        self.keep_every = 0  # every so many ticks keep their pictures; 0: none
        self.begin()

    def begin(self) -> None:
        """The twin was put at a start, and `real` too: forget what was before."""
        now = self.real.time
        self._trim = Trim(self.settings.trim, len(self.joints.names))
        self._supports = Supports(self.model, self.bodies)
        self._wrench = np.zeros((self.model.nbody, 6))
        self._past: deque[tuple[float, np.ndarray]] = deque(maxlen=max(2, round(PAST * self.settings.rate)))
        self._echoes: deque[tuple[float, np.ndarray]] = deque(maxlen=self._past.maxlen)
        self._sent: deque[tuple[float, np.ndarray]] = deque(maxlen=self._past.maxlen)
        self._seen: dict[str, float] = {}  # camera -> when its newest picture was taken
        self._clear: dict[str, float] = {}  # camera -> share of its background that it showed last
        self._last: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # camera -> its newest picture, and the echo then
        self._frozen: set[str] = set()
        self._turns: dict[str, int] = {}  # camera -> tick in which it was looked at last, of those that may correct
        self._found: deque[tuple[np.ndarray, np.ndarray]] = deque()  # what each camera's turn found: seen, overlap
        self._stand: np.ndarray | None = None  # controls (nu,) of an arm that is held
        self.health: Health | None = None
        if self.aligner is not None:
            self.aligner.reset()
        self.begun, self.held = now, ""
        self.tick_number = 0
        self._past.append((now, self.data.qpos.copy()))

    def tick(self, rows: np.ndarray) -> Tick:
        """One tick.

        Args:
            rows: (n, nu) controls, one for each physics step of this tick.
        """
        marks = [time.perf_counter()]
        self._step(rows)
        marks.append(time.perf_counter())
        sent = self._follow(len(rows))
        seen, times = self.real.observe()
        echo = self._listen(seen, times)
        marks.append(time.perf_counter())
        residual, conflict, age = self._correct(seen, times)
        marks.append(time.perf_counter())

        self.held = self._reason(sent)
        self.tick_number += 1
        return Tick(
            time=self.real.time - self.begun,
            joints=self.data.qpos[self.joints.qpos].copy(),
            echo=echo,
            qpos=self.data.qpos.copy(),
            wrench=self._wrench.copy(),
            residual=residual,
            conflict=conflict,
            age=age,
            held=self.held,
            left_out=self.health.left_out if self.health else (),
            seconds=dict(zip(("physics", "follow", "correct"), np.diff(marks).tolist(), strict=True)),
            pictures=self._kept(seen),
        )

    def _kept(self, seen: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if not self.keep_every or self.tick_number % self.keep_every:
            return {}
        return {key.removeprefix(IMAGES): value for key, value in seen.items() if key.startswith(IMAGES)}

    @property
    def warnings(self) -> list[str]:
        """What was to be told since the episode began."""
        return self.health.warnings if self.health else []

    # -- 1, 2: the twin acts, the real joints follow

    def _step(self, rows: np.ndarray) -> None:
        import mujoco

        model, data = self.model, self.data
        if self.held and self._stand is None:  # where the arm is, not where it was going
            self._stand = data.ctrl.copy()
            self._stand[self.joints.ctrl] = data.qpos[self.joints.qpos]
        elif not self.held:
            self._stand = None
        if self._stand is not None:
            rows = np.broadcast_to(self._stand, rows.shape)
        data.xfrc_applied[self.bodies] = self._wrench[self.bodies]
        for row in rows:
            data.ctrl[:] = row
            mujoco.mj_step(model, data)
        data.xfrc_applied[self.bodies] = 0
        self._wrench = np.zeros_like(self._wrench)

    def _follow(self, steps: int) -> np.ndarray:
        achieved, speed = self.data.qpos[self.joints.qpos], self.data.qvel[self.joints.qvel]
        target = achieved + self.settings.lead * speed + self._trim.offset
        sent = self.real.send(target)
        self.real.advance(steps * self.model.opt.timestep)
        now = self.real.time
        self._past.append((now, self.data.qpos.copy()))
        self._sent.append((now, np.asarray(sent, float)))
        return target

    def _listen(self, seen: Mapping[str, np.ndarray], times: Mapping[str, float]) -> np.ndarray:
        echo = np.asarray(seen[STATE], float)
        if not self._echoes or times[STATE] > self._echoes[-1][0]:
            if not self.held:
                self._trim.learn(between(self._past, times[STATE])[self.joints.qpos], echo, times[STATE])
            self._echoes.append((times[STATE], echo))
        return echo

    # -- 3, 4, 5: pictures correct the twin

    def _correct(self, seen: Mapping[str, np.ndarray], times: Mapping[str, float]) -> tuple[dict, dict, float]:
        if self.aligner is None:
            return {}, {}, np.inf
        pictures = {name: seen[IMAGES + name] for name in self.aligner.cameras if IMAGES + name in seen}
        captured = {name: times[IMAGES + name] for name in pictures}
        now = self.real.time
        age = now - max(captured.values()) if captured else np.inf
        if self.health is None:
            self.health = Health(self.settings.trust, self.aligner.cameras, now)
        new = {name: now - moment for name, moment in captured.items() if moment > self._seen.get(name, -np.inf)}
        new = self._in_turn(new)
        self._seen.update({name: captured[name] for name in new})
        for name in new:
            self._look_again(name, pictures[name])
        self.health.hears({name: self._fault(name, now) for name in self.aligner.cameras}, now)
        new = {name: age for name, age in new.items() if name not in self._frozen}
        if not new:
            return {}, {}, age

        # those that correct, all of one moment; those that are only tried
        good, tried = self.health.wanted(new)
        residual: dict[str, float] = {}
        conflict: dict[str, float] = {}
        if good:
            found = self._compare({name: pictures[name] for name in good}, max(captured[name] for name in good))
            residual, conflict = dict(found.residual), self._conflicts(found)
            self._clear |= found.clear
            if self.health.judge(residual, now) and np.isfinite(found.wrench).all():
                weight = self.settings.strength * self.health.strength(max(new[name] for name in good))
                self._pull(found, weight, now)
        if tried:
            found = self._compare({name: pictures[name] for name in tried}, max(captured[name] for name in tried))
            self.health.judge(found.residual, now)
            residual |= found.residual
            self._clear |= found.clear
        return residual, conflict, age

    def _in_turn(self, new: dict[str, float]) -> dict[str, float]:
        """Of cameras with new pictures of these ages (s) those that this tick looks at.

        `at_once` of those that may correct, whose turn was longest ago, and all that are left out, late or frozen: a
        camera that corrects nothing takes no turn from one that does.
        """
        able = [name for name, age in new.items() if self._may_correct(name, age)]
        if self.settings.at_once:
            able = sorted(able, key=lambda name: self._turns.get(name, -1))[: self.settings.at_once]
        self._turns |= dict.fromkeys(able, self.tick_number)
        return {name: age for name, age in new.items() if name in able or not self._may_correct(name, age)}

    def _may_correct(self, name: str, age: float) -> bool:
        assert self.health is not None
        late = age > self.settings.trust.stale
        return not late and name not in self._frozen and name not in self.health.left_out

    def _round(self, found: Correction) -> tuple[np.ndarray, np.ndarray]:
        """(bodies,) by how many cameras each body was seen, and its mean overlap, since each had its turn."""
        assert self.aligner is not None and self.health is not None
        cameras = len(self.aligner.cameras) - len(self.health.left_out)
        turns = -(-cameras // self.settings.at_once) if self.settings.at_once else 1
        self._found.append((np.asarray(found.seen), np.asarray(found.overlap)))
        while len(self._found) > max(1, turns):
            self._found.popleft()
        seen, overlap = (np.array(parts, float) for parts in zip(*self._found, strict=True))
        total = seen.sum(0)
        return total, np.where(total > 0, (seen * overlap).sum(0) / np.maximum(total, 1), overlap[-1])

    def _look_again(self, name: str, picture: np.ndarray) -> None:
        """Whether a camera gives a picture again, to the last bit, that it gave before the arm moved."""
        here = self._echoes[-1][1] if self._echoes else self.data.qpos[self.joints.qpos]
        last, there = self._last.get(name, (None, here))
        if last is None or not np.array_equal(picture, last):
            self._last[name] = picture, here
            self._frozen.discard(name)
        elif np.abs(here - there).max() > STIRRED:
            self._frozen.add(name)

    def _fault(self, name: str, now: float) -> str:
        """Why a camera corrects nothing; "" where it does."""
        if name not in self._seen:
            return "it has given no picture"
        if (age := now - self._seen[name]) > self.settings.trust.stale:
            return f"its newest picture is {age:.2f} s old"
        if name in self._frozen:
            return "it gives one picture again and again while the arm moves"
        if self._clear.get(name, 1.0) <= CLEAR:
            return "it shows less than half of its background: covered, dark, moved, or another camera?"
        return ""

    def _pull(self, found: Correction, weight: float, now: float) -> None:
        """What stands is moved; for the rest, the wrenches of the next tick. What nobody sees is left alone."""
        rows = [(row, body) for row, body in enumerate(found.ids.tolist()) if body in self.bodies]
        assert self.health is not None
        cameras, overlap = self._round(found)
        seen = bool(all(cameras[row] for row, _ in rows))
        self.health.finds(min((float(overlap[row]) for row, _ in rows), default=1.0), seen, now)
        settings, past = self.settings, [old for _, old in self._past]
        for row, body in rows:
            up = self._grounds.get(body)
            if up is None:
                self._wrench[body] = weight * np.asarray(found.wrench[row], float)
                continue
            gap, share = gap_of(self.data, body, found.pose[row]), weight * settings.share
            shift(self.model, self.data, body, up, gap, share, settings.most, past)
        if seen:
            self.health.corrected(now)

    def _compare(self, pictures: Mapping[str, np.ndarray], moment: float) -> Correction:
        """The aligner's answer for the twin as it was when the pictures were taken, its arm as the echo has it."""
        import mujoco

        self._grounds = self._supports.look(self.data) if self.settings.grounded else {}
        view = self._view
        view.qpos[:] = between(self._past, moment - (self._trim.lag if self.settings.lagged else 0.0))
        if self._echoes:
            view.qpos[self.joints.qpos] = between(self._echoes, moment)
        view.mocap_pos[:], view.mocap_quat[:] = self.data.mocap_pos, self.data.mocap_quat
        mujoco.mj_normalizeQuat(self.model, view.qpos)
        mujoco.mj_kinematics(self.model, view)

        poses = np.tile(np.eye(4), (len(self._bodies), 1, 1))
        poses[:, :3, :3] = view.xmat[list(self._bodies)].reshape(-1, 3, 3)
        poses[:, :3, 3] = view.xpos[list(self._bodies)]
        assert self.aligner is not None
        try:
            return self.aligner.correct(self.model, self.data, pictures, poses=poses, supports=self._grounds)
        except (np.linalg.LinAlgError, FloatingPointError):  # an arm follows: a tick without a correction is none less
            return Correction(np.array(self._bodies), np.zeros((len(poses), 6)), poses, dict.fromkeys(pictures, np.inf))

    def _conflicts(self, found: Correction) -> dict[str, float]:
        names = (self.model.body(int(number)).name for number in found.ids)
        return {name: float(value) for name, value in zip(names, found.conflict, strict=False) if value > 0}

    # -- whether the twin's arm has to wait

    def _reason(self, target: np.ndarray) -> str:
        now = self.real.time
        if not self._echoes or now - self._echoes[-1][0] > self.settings.silent:
            return SILENT
        if self.held == SILENT:
            self.real.resume()
        heard, echo = self._echoes[-1]
        wanted = between(self._sent, heard) if self._sent else target
        off = np.abs(echo - np.asarray(wanted))
        bound = self.settings.leash * (0.5 if self.held else 1.0)
        if (off > bound).any():
            joint = int(np.argmax(off))
            return f"real {self.joints.names[joint]} is {off[joint]:.3f} from what it was sent"
        goal = np.abs(np.asarray(target) - self._sent[-1][1]) if self._sent else np.zeros(1)
        if (goal > 2 * bound).any():
            return "the guard holds the real arm back"
        if self.health is None or not self.settings.hold_when_lost:
            return ""
        if self.health.astray(now):
            return "an object is not where the twin has it"
        return "no camera agrees with the twin" if self.health.lost(now) else ""


def between(past: deque[tuple[float, np.ndarray]], moment: float) -> np.ndarray:
    """The value at a moment, of values by rising time; the first or last one outside of them."""
    later = None
    for when, value in reversed(past):
        if when <= moment:
            if later is None:
                return value
            share = (moment - when) / (later[0] - when)
            return value + share * (later[1] - value)
        later = (when, value)
    assert later is not None
    return later[1]


def lag_of(joints: np.ndarray, echoes: np.ndarray, most: int = LONGEST) -> float:
    """By how many ticks echoes (T, D) follow joints (T, D): where the squared difference is least, between ticks too.

    `most` means that many or more.

    Raises ValueError: joints that do not move, or too few ticks.
    """
    joints, echoes = np.asarray(joints, float), np.asarray(echoes, float)
    if len(joints) < 4 * most or np.ptp(joints, axis=0).max() < 1e-3:
        raise ValueError(f"a lag needs {4 * most} ticks of joints that move")
    parts = np.arange(0.0, most + 0.01, 0.1)
    steps = np.arange(most, len(joints))
    costs = []
    for lag in parts:
        low = np.floor(steps - lag).astype(int)
        share = ((steps - lag) - low)[:, None]
        high = np.minimum(low + 1, len(joints) - 1)
        costs.append(np.square((1 - share) * joints[low] + share * joints[high] - echoes[steps]).sum())
    return float(parts[int(np.argmin(costs))])
